//! Signs the journal: makes [checkpoints](super::checkpoint) while it is written.
//!
//! A [`Checkpointer`] reads the journal's files, so no call waits for it, and hands the note to the
//! journal, which records it as event `checkpoint`. It signs only lines that follow from each other.
//! `bartizan run` calls it from a task.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;

use super::chain::{self, HashChain};
use super::checkpoint::{Checkpoint, CheckpointMember};
use super::entry;
use super::journal::Journal;
use super::merkle::{self, Edge};
use super::note::{self, BadNote, PublicKey, Signer};
use super::segment;
use super::tail::{JournalReader, Line, ReadError};
use bartizan_gate::evidence::record::Now;

/// The file in the state directory with the newest checkpoint.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// The file in the state directory with the public key that verifies checkpoints.
pub const PUBLIC_KEY_FILE: &str = "checkpoint.pub";

/// Records that are read at once.
const BATCH_RECORDS: usize = 1024;

/// What each line of a checkpoint has in it; a text of a record has its quotes escaped.
const EVENT: &[u8] = b"\"event\":\"checkpoint\"";

/// The members of a line that say whether it is a checkpoint.
#[derive(Deserialize)]
struct MaybeCheckpoint {
    event: String,
    checkpoint: Option<CheckpointMember>,
}

/// Why no checkpoint can be made.
#[derive(Debug)]
pub enum CheckpointError {
    /// The last checkpoint of the journal is signed with a key that is not known.
    OtherKey {
        /// The sequence number of its record.
        seq: u64,
        /// What is wrong with its signature.
        cause: BadNote,
        /// The present key.
        key: PublicKey,
    },
    /// The last checkpoint of the journal cannot be continued.
    Unreadable {
        /// The sequence number of its record.
        seq: u64,
    },
    /// The tree cannot be computed: no checkpoint is there, and the first records are elsewhere.
    NoBeginning {
        /// The oldest record that is there.
        first_seq: u64,
    },
    /// A line does not follow from the one before: somebody changed a file of the journal.
    Changed {
        /// The sequence number of the line.
        seq: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// Records cannot be read.
    Read(ReadError),
    /// A file of the state directory cannot be written.
    File(PathBuf, io::Error),
    /// The journal refused the record.
    Unkept(String),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKey { seq, cause, key } => write!(
                f,
                "the checkpoint in record {seq} is not one of the present key, `{key}`: {cause}"
            ),
            Self::Unreadable { seq } => {
                write!(f, "the checkpoint in record {seq} cannot be continued")
            }
            Self::NoBeginning { first_seq } => {
                write!(f, "records before {first_seq} are elsewhere, and no checkpoint covers them")
            }
            Self::Changed { seq, cause } => {
                write!(f, "record {seq} was changed after it was written: {cause}")
            }
            Self::Read(error) => error.fmt(f),
            Self::File(path, error) => write!(f, "cannot write `{}`: {error}", path.display()),
            Self::Unkept(cause) => write!(f, "the journal refuses it: {cause}"),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// Signs the journal's records, and records the signature in the journal.
#[derive(Debug)]
pub struct Checkpointer {
    journal: Arc<Journal>,
    state: PathBuf,
    signer: Signer,
    edge: Edge,
    chain: HashChain,
    reader: JournalReader,
    /// The sequence number of the last record of a checkpoint; 0 before the first.
    last: u64,
}

impl Checkpointer {
    /// Continues from the last checkpoint in `journal`, which `signer` or one of `former` must have
    /// signed, and writes the public key to the directory `state`.
    ///
    /// # Errors
    ///
    /// It cannot be continued, or a file cannot be read or written.
    pub fn open(
        journal: &Arc<Journal>,
        state: &Path,
        signer: Signer,
        former: &[PublicKey],
    ) -> Result<Self, CheckpointError> {
        let directory = journal.directory();
        let mut keys = vec![signer.public().clone()];
        keys.extend_from_slice(former);
        let (last, edge) = match last_checkpoint(directory)? {
            Some((seq, member)) => (seq, continued(seq, &member, &keys)?),
            None => (0, Edge::default()),
        };
        let next_seq = edge.size().saturating_add(1);
        let oldest = segment::list(directory)
            .map_err(|error| CheckpointError::File(directory.to_owned(), error))?
            .first()
            .map_or(1, |segment| segment.first_seq);
        if oldest > next_seq {
            return Err(CheckpointError::NoBeginning { first_seq: oldest });
        }
        let prev = (next_seq == 1).then_some(chain::GENESIS);
        replace(&state.join(PUBLIC_KEY_FILE), &format!("{}\n", signer.public()))?;
        Ok(Self {
            journal: Arc::clone(journal),
            state: state.to_owned(),
            signer,
            edge,
            chain: HashChain { next_seq, prev },
            reader: JournalReader::new(directory, next_seq),
            last,
        })
    }

    /// Sequence number of the first record that no checkpoint covers.
    pub fn next_seq(&self) -> u64 {
        self.edge.size().saturating_add(1)
    }

    /// How many records no checkpoint covers yet, the record of the last one left aside.
    pub fn uncovered(&self) -> u64 {
        let covered = self.edge.size();
        let own = u64::from(self.last > covered);
        // While nothing else happens, a checkpoint is no reason for another one.
        self.journal.last_seq().saturating_sub(covered).saturating_sub(own)
    }

    /// Signs all records that are there now, and records and stores the checkpoint. Blocks on files.
    ///
    /// # Errors
    ///
    /// The records cannot be read, or the checkpoint cannot be kept.
    pub fn write(&mut self, now: Now) -> Result<(), CheckpointError> {
        let newest = self.journal.last_seq();
        self.read_to(newest)?;
        let member = CheckpointMember::new(&self.signer, &self.edge);
        let seq = self.journal.checkpoint(&member, now);
        self.last = seq.map_err(|unkept| CheckpointError::Unkept(unkept.cause))?;
        self.store(&member)
    }

    /// Signs what a closed journal has, and stores the checkpoint in the state directory alone.
    /// Blocks on files.
    ///
    /// # Errors
    ///
    /// The records cannot be read, or the file cannot be written.
    pub fn seal(&mut self) -> Result<(), CheckpointError> {
        self.read_to(self.journal.last_seq())?;
        self.store(&CheckpointMember::new(&self.signer, &self.edge))
    }

    fn store(&self, member: &CheckpointMember) -> Result<(), CheckpointError> {
        replace(&self.state.join(CHECKPOINT_FILE), &member.note)
    }

    /// Adds the records up to `last` to the tree.
    fn read_to(&mut self, last: u64) -> Result<(), CheckpointError> {
        while self.edge.size() < last {
            let rest = last.saturating_sub(self.edge.size());
            let most = usize::try_from(rest).unwrap_or(usize::MAX).min(BATCH_RECORDS);
            let lines = self.reader.read_many(most);
            let lines = lines.map_err(CheckpointError::Read).inspect_err(|_| {
                self.reader.seek(self.chain.next_seq);
            })?;
            if lines.is_empty() {
                let (seq, found) = (self.chain.next_seq, last);
                return Err(CheckpointError::Read(ReadError::Missing { seq, found }));
            }
            for line in &lines {
                self.add(line).inspect_err(|_| self.reader.seek(self.chain.next_seq))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &Line) -> Result<(), CheckpointError> {
        let mut chain = self.chain;
        chain.take(&line.bytes).map_err(|fault| CheckpointError::Changed {
            seq: line.seq,
            cause: fault.to_string(),
        })?;
        self.chain = chain;
        self.edge.push(merkle::leaf(&line.bytes));
        Ok(())
    }
}

/// The last record of a checkpoint in the journal in `directory`, with its sequence number.
fn last_checkpoint(directory: &Path) -> Result<Option<(u64, CheckpointMember)>, CheckpointError> {
    let segments = segment::list(directory)
        .map_err(|error| CheckpointError::File(directory.to_owned(), error))?;
    let mut end = u64::MAX;
    for segment in segments.iter().rev() {
        let mut reader = JournalReader::new(directory, segment.first_seq);
        let mut found = None;
        while reader.next_seq() < end {
            let Some(line) = reader.read().map_err(CheckpointError::Read)? else { break };
            if memmem::find(&line.bytes, EVENT).is_none() {
                continue;
            }
            if let Ok(MaybeCheckpoint { event, checkpoint: Some(member) }) =
                entry::read(&line.bytes)
                && event == "checkpoint"
            {
                found = Some((line.seq, member));
            }
        }
        if found.is_some() {
            return Ok(found);
        }
        end = segment.first_seq;
    }
    Ok(None)
}

/// The tree of `member`, the checkpoint in record `seq`, which one of `keys` must have signed. The
/// first of them is the present one.
fn continued(
    seq: u64,
    member: &CheckpointMember,
    keys: &[PublicKey],
) -> Result<Edge, CheckpointError> {
    let (text, _) = note::open(&member.note, keys).map_err(|cause| match keys.first() {
        Some(key) => CheckpointError::OtherKey { seq, cause, key: key.clone() },
        None => CheckpointError::Unreadable { seq },
    })?;
    Checkpoint::read(text)
        .filter(|checkpoint| checkpoint.size < seq)
        .and_then(|checkpoint| {
            let edge = Edge::new(checkpoint.size, member.hashes()?)?;
            (edge.root() == checkpoint.root).then_some(edge)
        })
        .ok_or(CheckpointError::Unreadable { seq })
}

fn replace(path: &Path, text: &str) -> Result<(), CheckpointError> {
    segment::replace(path, text).map_err(|error| CheckpointError::File(path.to_owned(), error))
}
