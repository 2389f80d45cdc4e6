//! Checkpoints: signed statements of how many records the journal has, and of all their contents.
//!
//! A checkpoint has the form of C2SP's `tlog-checkpoint`: origin, number of records and the root of
//! the Merkle tree over their lines, as a [signed note](super::note). Pure: no files, no clock.
//! [`signing`](super::signing) makes them, [`verify`](super::verify) and [`prove`](super::prove)
//! read them. [decision 41](../../../docs/decisions/0041-what-a-checkpoint-signs.md) says why a tree.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::merkle::{Edge, Hash};
use super::note::{self, Signer};

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log, which is the name of its key.
    pub origin: String,
    /// The number of records: it is about the records 1 to `size`.
    pub size: u64,
    /// The root of the tree (RFC 6962 §2.1) whose leaves are the lines of these records.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))
    }
}

impl Checkpoint {
    /// Reads the text of a note. Lines after the third are allowed, and skipped.
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        if origin.is_empty() || number.to_string() != size || lines.any(str::is_empty) {
            return None;
        }
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        Some(Self { origin: origin.to_owned(), size: number, root })
    }
}

/// The member `checkpoint` of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMember {
    /// The signed note.
    pub note: String,
    /// The roots of the complete subtrees of its tree, the largest one first, base64. Who has no
    /// older records can continue the tree from here.
    pub peaks: Vec<String>,
}

impl CheckpointMember {
    /// The checkpoint of the tree whose right edge is `edge`, signed by `signer`.
    pub fn new(signer: &Signer, edge: &Edge) -> Self {
        let origin = signer.public().name().to_owned();
        let checkpoint = Checkpoint { origin, size: edge.size(), root: edge.root() };
        let note = signer.sign(&checkpoint.to_string());
        Self { note, peaks: edge.peaks().iter().map(|peak| STANDARD.encode(peak)).collect() }
    }

    /// What the note says, whoever has signed it; `None` if it is no checkpoint.
    pub fn unchecked(&self) -> Option<Checkpoint> {
        Checkpoint::read(note::split(&self.note).ok()?.0)
    }

    /// The hashes of `peaks`; `None` if one is none.
    pub fn hashes(&self) -> Option<Vec<Hash>> {
        let hash = |peak: &String| STANDARD.decode(peak).ok()?.try_into().ok();
        self.peaks.iter().map(hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_one_of_transparency_logs() {
        let text = "log.example/a\n12\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::read(text).unwrap();
        assert_eq!((&*checkpoint.origin, checkpoint.size), ("log.example/a", 12));
        assert_eq!(checkpoint.to_string(), text);
        assert_eq!(Checkpoint::read(&format!("{text}extension\n")), Some(checkpoint));
        for bad in [
            "",
            "log\n12\n",
            "log\n012\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "log\n12\nCsUY\n",
            "\n12\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "log\n12\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n",
        ] {
            assert_eq!(Checkpoint::read(bad), None, "{bad:?}");
        }
    }
}
