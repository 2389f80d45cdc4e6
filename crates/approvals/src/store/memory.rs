//! A store in memory, for tests: one for each process, or one that several replicas share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use super::{Batch, CommitError, Delta, Mark, Store, StoreError, Version, Write};
use crate::record::{Record, RecordKey};

/// Removals that replicas are told of at most; one that missed more reads everything.
const REMOVED_MAX: usize = 1000;

/// Records in memory. What is in it ends with it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    shared: bool,
    content: Mutex<Content>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    records: BTreeMap<RecordKey, (Record, Version)>,
    batches: Version,
    mark_ms: u64,
    /// The last [`REMOVED_MAX`] records that were removed, and by which batch.
    removed: VecDeque<(Version, RecordKey)>,
    /// The last batch that removed a record which is not in `removed` any more, or since which all is
    /// read anew.
    forgotten: Version,
}

impl MemoryStore {
    /// An empty store for one process.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store for several replicas.
    pub fn shared() -> Self {
        Self { shared: true, ..Self::default() }
    }

    /// Loses a record without a trace, as a store does that evicts it.
    #[cfg(test)]
    pub(crate) fn lose(&self, key: &RecordKey) -> bool {
        bartizan_sync::lock(&self.content).records.remove(key).is_some()
    }

    /// What is kept under this name.
    #[cfg(test)]
    pub(crate) fn record(&self, key: &RecordKey) -> Record {
        let content = bartizan_sync::lock(&self.content);
        content.records.get(key).map(|(record, _)| record.clone()).unwrap()
    }

    /// Puts back a record as it was before, as somebody does who can write to a shared store.
    #[cfg(test)]
    pub(crate) fn put_back(&self, record: Record) {
        let mut content = bartizan_sync::lock(&self.content);
        content.batches = content.batches.saturating_add(1);
        let number = content.batches;
        content.records.insert(record.key(), (record, number));
    }

    /// A store with the same content.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        let content = bartizan_sync::lock(&self.content).clone();
        Self { shared: self.shared, content: Mutex::new(content) }
    }
}

impl Store for MemoryStore {
    fn is_exclusive(&self) -> bool {
        !self.shared
    }

    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError> {
        let content = bartizan_sync::lock(&self.content);
        let whole = cursor < content.forgotten || cursor == 0;
        let from = if whole { 0 } else { cursor };
        let newer = content.records.values().filter(|(_, version)| *version > from);
        let removed = content.removed.iter().filter(|(batch, _)| *batch > cursor);
        Ok(Delta {
            whole,
            rolled_back: false,
            removed: removed.map(|(_, key)| key.clone()).collect(),
            records: newer.cloned().collect(),
            cursor: content.batches,
            mark_ms: content.mark_ms,
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        let mut content = bartizan_sync::lock(&self.content);
        for write in &batch.writes {
            let fits = match write {
                Write::Put { record, expect } => content.version(&record.key()) == *expect,
                Write::Remove { key, expect } => [0, *expect].contains(&content.version(key)),
            };
            if !fits {
                return Err(CommitError::Conflict);
            }
        }
        let number = content.batches.saturating_add(1);
        content.batches = number;
        for write in &batch.writes {
            match write {
                Write::Put { record, .. } => {
                    content.records.insert(record.key(), (record.clone(), number));
                }
                Write::Remove { key, .. } => {
                    content.records.remove(key);
                    content.removed.push_back((number, key.clone()));
                }
            }
        }
        while content.removed.len() > REMOVED_MAX {
            content.forgotten = content.removed.pop_front().map_or(number, |(batch, _)| batch);
        }
        if batch.anew {
            content.forgotten = number;
        }
        content.mark_ms = match batch.mark {
            Mark::Raise(mark) => content.mark_ms.max(mark),
            Mark::Set(mark) => mark,
        };
        Ok(number)
    }
}

impl Content {
    fn version(&self, key: &RecordKey) -> Version {
        self.records.get(key).map_or(0, |(_, version)| *version)
    }
}
