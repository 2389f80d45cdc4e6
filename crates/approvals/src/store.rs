//! Where records are kept: the trait, and what it takes and gives.
//!
//! A store knows nothing of holds. It has records under names, each with a version, and takes a
//! batch of writes as a whole or not at all: each write says which version it replaces. That is a
//! compare-and-swap of each record, which a database, and a script in Redis or Valkey, can do.

use std::fmt;

use crate::record::{Record, RecordKey};

pub mod embedded;
pub mod memory;

/// A version of a record: the number of the batch that wrote it, from 1. Zero is "no such record".
pub type Version = u64;

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The record gets this content, if its version is `expect`.
    Put {
        /// The new content.
        record: Record,
        /// The version that it replaces; 0 for none.
        expect: Version,
    },
    /// The record is removed, if its version is `expect` or it is not there.
    Remove {
        /// Its name.
        key: RecordKey,
        /// The version that is removed.
        expect: Version,
    },
}

/// What the store does with its copy of the clock ([`crate::clock::HighWater`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It becomes this many milliseconds, unless it is higher.
    Raise(u64),
    /// It becomes this many milliseconds. Only who opens an exclusive store does that, when no hold
    /// is open.
    Set(u64),
}

/// When a batch must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Before `commit` returns.
    Now,
    /// With the next batch. A crash before that may lose it.
    Later,
}

/// Writes that are done together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// No two for one name.
    pub writes: Vec<Write>,
    /// The clock.
    pub mark: Mark,
    /// When it must be on the disk.
    pub lasting: Lasting,
    /// Whether the writer has found that the store has gone back: every other replica must then read
    /// all of it. A store that belongs to one process alone need not care.
    pub anew: bool,
}

/// What has been written since some batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Whether `records` is all there is: the store no longer knows what was removed since then.
    pub whole: bool,
    /// Whether the store has lost batches that this process has seen. Then nobody knows what has
    /// become of any hold: all that are open must be over, and the next commit must say so.
    pub rolled_back: bool,
    /// The names of records that were removed since then. One of them may be in `records`, too: it
    /// was put again later.
    pub removed: Vec<RecordKey>,
    /// Each record that was put since then and is still there, with its version.
    pub records: Vec<(Record, Version)>,
    /// The number of the last batch.
    pub cursor: Version,
    /// The clock, in milliseconds.
    pub mark_ms: u64,
}

/// A store cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// Why, for the log. Holds no content of a hold.
    pub cause: Box<str>,
}

impl StoreError {
    /// An error for the reason `cause`.
    pub fn new(cause: impl fmt::Display) -> Self {
        Self { cause: cause.to_string().into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for StoreError {}

/// The content of `record`, as stores keep it.
///
/// # Errors
///
/// It cannot be written as JSON.
pub fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(StoreError::new)
}

/// The record of this name and content.
///
/// # Errors
///
/// There is none. The error names no content.
pub fn decode(name: &str, text: &[u8]) -> Result<Record, StoreError> {
    let text = std::str::from_utf8(text).map_err(|_| StoreError::new("a record is no text"))?;
    let record: Record = serde_json::from_str(text).map_err(|error| {
        let place = (error.line(), error.column());
        StoreError::new(format_args!("a record is not in the form of records, at {place:?}"))
    })?;
    if record.key().as_str() != name || !record.is_consistent() {
        return Err(StoreError::new("a record contradicts itself"));
    }
    Ok(record)
}

/// Why a batch was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// A record has another version than the batch expects: another replica was faster. Nothing was
    /// written.
    Conflict,
    /// Nobody knows whether it was written: read the store again.
    Fault(StoreError),
}

/// A place for records.
pub trait Store: Send + Sync {
    /// Whether this process is the only one that writes to it.
    fn is_exclusive(&self) -> bool;

    /// What has been written since the batch `cursor`; everything, if that is 0.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or its content is not as written.
    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError>;

    /// Does a batch, and returns its number.
    ///
    /// # Errors
    ///
    /// See [`CommitError`].
    fn commit(&self, batch: &Batch) -> Result<Version, CommitError>;
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn is_exclusive(&self) -> bool {
        (**self).is_exclusive()
    }

    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError> {
        (**self).changes_since(cursor)
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        (**self).commit(batch)
    }
}
