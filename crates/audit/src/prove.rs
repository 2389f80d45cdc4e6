//! Proves that one record is in the journal, to somebody who may not see the other records.
//!
//! A [`Proof`] has the form of C2SP's `tlog-proof`: the record, the hashes from its leaf to the root
//! of the tree (RFC 6962 §2.1.1), and the signed checkpoint with that root. It is made from the
//! journal's files, by whoever needs it; the firewall does no work for it.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::merkle::{self, Edge, Hash};
use super::note::{self, BadNote, PublicKey};
use super::segment::LINE_BYTES_MAX;
use super::tail::{self, JournalReader, ReadError};

/// The first line of a proof.
const FORMAT: &str = "c2sp.org/tlog-proof@v1";

/// Longest proof that is read, bytes: a record in base64, 64 hashes and a note.
pub const PROOF_BYTES_MAX: usize = LINE_BYTES_MAX.saturating_mul(2);

/// A record, and the proof that a checkpoint covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The record's line, without its LF.
    pub line: Vec<u8>,
    /// The record's place among the leaves: its sequence number less one.
    index: u64,
    /// The hashes beside the way from the leaf to the root.
    hashes: Vec<Hash>,
    note: String,
}

/// Why there is no proof, or why it proves nothing.
#[derive(Debug)]
pub enum NoProof {
    /// The text is not a proof.
    Form,
    /// The checkpoint is none, or not signed by a given key.
    Note(BadNote),
    /// The checkpoint does not cover the record.
    NotCovered {
        /// The last record that it covers.
        size: u64,
    },
    /// The journal cannot be read.
    Read(ReadError),
    /// Records that the checkpoint covers are not in the directory.
    Missing {
        /// The first of them.
        seq: u64,
    },
    /// The records are not those that were signed.
    OtherRoot,
    /// The record has another sequence number than the proof says.
    OtherRecord,
}

impl fmt::Display for NoProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => write!(f, "not a proof (`{FORMAT}`) with a record in `extra`"),
            Self::Note(error) => write!(f, "the checkpoint: {error}"),
            Self::NotCovered { size } => write!(
                f,
                "the checkpoint covers the records 1 to {size} alone\n\
                 hint: the firewall makes another one within `audit.checkpoints.interval`"
            ),
            Self::Read(error) => error.fmt(f),
            Self::Missing { seq } => write!(
                f,
                "record {seq} is not here, and the proof needs all records of the checkpoint\n\
                 hint: put the files that were moved elsewhere beside the others, in a copy"
            ),
            Self::OtherRoot => f.write_str("the records are not those that were signed"),
            Self::OtherRecord => f.write_str("the record is not the one that the proof names"),
        }
    }
}

impl std::error::Error for NoProof {}

/// Makes the proof of record `seq` of the journal in `directory`, for the checkpoint `note`.
///
/// Its signature is not checked. Reads all records that the checkpoint covers.
///
/// # Errors
///
/// The records cannot be read, or are not those of the checkpoint.
pub fn prove(directory: &Path, seq: u64, note: &str) -> Result<Proof, NoProof> {
    let (text, _) = note::split(note).map_err(NoProof::Note)?;
    let checkpoint = Checkpoint::read(text).ok_or(NoProof::Note(BadNote::Form))?;
    let size = checkpoint.size;
    let index = seq.checked_sub(1).filter(|_| seq <= size).ok_or(NoProof::NotCovered { size })?;
    let ranges = siblings(index, size);
    let mut subtrees: Vec<Edge> = ranges.iter().map(|_| Edge::default()).collect();
    let mut reader = JournalReader::new(directory, 1);
    let mut proven = Vec::new();
    for at in 0..size {
        let line = reader.read().map_err(NoProof::Read)?;
        let line = line.filter(|line| line.seq == at.saturating_add(1));
        let line = line.ok_or(NoProof::Missing { seq: at.saturating_add(1) })?;
        if at == index {
            proven = line.bytes;
            continue;
        }
        let here =
            ranges.iter().zip(&mut subtrees).find(|((from, to), _)| (*from..*to).contains(&at));
        if let Some((_, subtree)) = here {
            subtree.push(merkle::leaf(&line.bytes));
        }
    }
    let hashes = subtrees.iter().map(Edge::root).collect();
    let proof = Proof { line: proven, index, hashes, note: note.to_owned() };
    proof.check_root(&checkpoint)?;
    Ok(proof)
}

/// The ranges of leaves whose subtrees lie beside the way from the leaf `index` to the root of a tree
/// of `size` leaves, the one beside the leaf first (RFC 6962 §2.1.1).
fn siblings(index: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut from, mut to) = (0_u64, size);
    let mut ranges = Vec::new();
    while let Some(last) = to.checked_sub(from).and_then(|leaves| leaves.checked_sub(1))
        && let Some(bit) = last.checked_ilog2()
    {
        let middle = from.saturating_add(1 << bit);
        if index < middle {
            ranges.push((middle, to));
            to = middle;
        } else {
            ranges.push((from, middle));
            from = middle;
        }
    }
    ranges.reverse();
    ranges
}

impl Proof {
    /// Reads the text of a proof.
    ///
    /// # Errors
    ///
    /// [`NoProof::Form`].
    pub fn read(text: &str) -> Result<Self, NoProof> {
        Self::parse(text).ok_or(NoProof::Form)
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        (lines.next()? == FORMAT && text.len() <= PROOF_BYTES_MAX).then_some(())?;
        let line = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
        let digits = lines.next()?.strip_prefix("index ")?;
        let index: u64 = digits.parse().ok()?;
        (index.to_string() == digits).then_some(())?;
        let hash = |line: &str| STANDARD.decode(line).ok()?.try_into().ok();
        let hashes = lines.map(hash).collect::<Option<Vec<Hash>>>()?;
        (hashes.len() <= 64).then_some(Self { line, index, hashes, note: note.to_owned() })
    }

    /// The record's sequence number.
    pub fn seq(&self) -> u64 {
        self.index.saturating_add(1)
    }

    /// Checks that one of `keys` has signed the checkpoint, and that it covers the record. Returns
    /// the checkpoint.
    ///
    /// # Errors
    ///
    /// The proof proves nothing.
    pub fn check(&self, keys: &[PublicKey]) -> Result<Checkpoint, NoProof> {
        let (text, _) = note::open(&self.note, keys).map_err(NoProof::Note)?;
        let checkpoint = Checkpoint::read(text).ok_or(NoProof::Note(BadNote::Form))?;
        if self.index >= checkpoint.size {
            return Err(NoProof::NotCovered { size: checkpoint.size });
        }
        self.check_root(&checkpoint)?;
        if tail::seq_of(&self.line) != Some(self.seq()) {
            return Err(NoProof::OtherRecord);
        }
        Ok(checkpoint)
    }

    fn check_root(&self, checkpoint: &Checkpoint) -> Result<(), NoProof> {
        let root = self.root(checkpoint.size);
        root.filter(|root| *root == checkpoint.root).map(drop).ok_or(NoProof::OtherRoot)
    }

    /// The root that follows from the record and the hashes, in a tree of `size` leaves (RFC 9162
    /// §2.1.3.2); `None` if their number is wrong.
    fn root(&self, size: u64) -> Option<Hash> {
        let (mut at, mut last) = (self.index, size.checked_sub(1)?);
        let mut root = merkle::leaf(&self.line);
        for hash in &self.hashes {
            if last == 0 {
                return None;
            }
            if at & 1 == 1 || at == last {
                root = merkle::node(hash, &root);
                let levels = if at & 1 == 1 { 0 } else { at.trailing_zeros() };
                (at, last) = (at.checked_shr(levels)?, last.checked_shr(levels)?);
            } else {
                root = merkle::node(&root, hash);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        (last == 0).then_some(root)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FORMAT}\nextra {}\nindex {}", STANDARD.encode(&self.line), self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::Signer;
    use crate::segment;

    #[test]
    fn every_record_of_every_size_is_proven_and_no_other() {
        let signer = Signer::from_seed(&[3; 32], None).unwrap();
        let keys = [signer.public().clone()];
        let directory = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (1..=20).map(|seq| format!("{{\"seq\":{seq},\"x\":1}}")).collect();
        let file = directory.path().join(segment::name(1));
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let mut edge = Edge::default();
        for (size, line) in (1..).zip(&lines) {
            edge.push(merkle::leaf(line.as_bytes()));
            let origin = signer.public().name().to_owned();
            let checkpoint = Checkpoint { origin, size, root: edge.root() };
            let note = signer.sign(&checkpoint.to_string());
            for seq in 1..=size {
                let proof = prove(directory.path(), seq, &note).unwrap();
                let again = Proof::read(&proof.to_string()).unwrap();
                assert_eq!(again, proof);
                assert_eq!(again.check(&keys).unwrap(), checkpoint, "{seq} of {size}");
                let mut other = again.clone();
                other.line = lines.first().unwrap().replace('1', "2").into();
                assert!(matches!(other.check(&keys), Err(NoProof::OtherRoot)));
                let mut moved = again;
                moved.index ^= 1;
                assert!(moved.check(&keys).is_err(), "{seq} of {size}");
            }
            let beyond = prove(directory.path(), size.saturating_add(1), &note);
            assert!(matches!(beyond, Err(NoProof::NotCovered { .. })), "{size}");
        }
    }
}
