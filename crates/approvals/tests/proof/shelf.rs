//! A store for the simulation: it fails when told to, lets another replica in between a plan and
//! its commit, and forgets at a crash what was not to last yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bartizan_approvals::record::{Record, RecordKey};
use bartizan_approvals::store::{
    Batch, CommitError, Delta, Lasting, Mark, Store, StoreError, Version, Write,
};

/// How the next commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is written.
    Before,
    /// It is written, but the one who asked is told otherwise.
    After,
}

/// Removals that a replica is told of at most.
const REMOVED_MAX: usize = 10;

#[derive(Default, Clone)]
struct Content {
    records: BTreeMap<RecordKey, (Record, Version)>,
    last: Version,
    mark_ms: u64,
    removed: Vec<(Version, RecordKey)>,
    forgotten: Version,
}

#[derive(Default)]
struct State {
    content: Content,
    /// What is on the disk, if that is less than `content`.
    disk: Option<Content>,
    fault: Option<Fault>,
    fired: bool,
    /// Reads and writes fail.
    gone: bool,
    between: Option<Box<dyn FnOnce() + Send>>,
}

/// The store; its clones are the same store.
#[derive(Clone)]
pub(crate) struct Shelf {
    state: Arc<Mutex<State>>,
    exclusive: bool,
}

impl Shelf {
    pub(crate) fn new(exclusive: bool) -> Self {
        Self { state: Arc::default(), exclusive }
    }

    /// The next commit fails.
    pub(crate) fn fail(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.fired) = (Some(fault), false);
    }

    /// No commit fails any more; whether one did.
    pub(crate) fn heal(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.fault = None;
        std::mem::take(&mut state.fired)
    }

    /// Nothing works until it is back.
    pub(crate) fn lose(&self, gone: bool) {
        self.state.lock().unwrap().gone = gone;
    }

    /// Does `what` before the next commit.
    pub(crate) fn between(&self, what: Box<dyn FnOnce() + Send>) {
        self.state.lock().unwrap().between = Some(what);
    }

    /// Takes back what nobody got between.
    pub(crate) fn not_between(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.state.lock().unwrap().between.take()
    }

    /// The machine stops: what was not to last yet is gone.
    pub(crate) fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        if let Some(disk) = state.disk.take() {
            state.content = disk;
        }
    }
}

impl Store for Shelf {
    fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError> {
        let state = self.state.lock().unwrap();
        if state.gone {
            return Err(StoreError::new("gone"));
        }
        let Content { records, last, mark_ms, removed, forgotten } = &state.content;
        let whole = cursor < *forgotten || cursor == 0;
        let from = if whole { 0 } else { cursor };
        let newer = records.values().filter(|(_, version)| *version > from);
        let removed = removed.iter().filter(|(batch, _)| *batch > cursor);
        Ok(Delta {
            whole,
            rolled_back: false,
            removed: removed.map(|(_, key)| key.clone()).collect(),
            records: newer.cloned().collect(),
            cursor: *last,
            mark_ms: *mark_ms,
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        let between = self.state.lock().unwrap().between.take();
        if let Some(between) = between {
            between();
        }
        let mut state = self.state.lock().unwrap();
        if state.gone {
            return Err(CommitError::Fault(StoreError::new("gone")));
        }
        if state.fault == Some(Fault::Before) {
            (state.fault, state.fired) = (None, true);
            return Err(CommitError::Fault(StoreError::new("before")));
        }
        let of = |records: &BTreeMap<_, (_, Version)>, key: &RecordKey| {
            records.get(key).map_or(0, |(_, version)| *version)
        };
        let fits = batch.writes.iter().all(|write| match write {
            Write::Put { record, expect } => of(&state.content.records, &record.key()) == *expect,
            Write::Remove { key, expect } => {
                [0, *expect].contains(&of(&state.content.records, key))
            }
        });
        if !fits {
            return Err(CommitError::Conflict);
        }
        match batch.lasting {
            Lasting::Now => state.disk = None,
            Lasting::Later => {
                let before = state.content.clone();
                state.disk.get_or_insert(before);
            }
        }
        let Content { records, last, mark_ms, removed, forgotten } = &mut state.content;
        *last += 1;
        for write in &batch.writes {
            match write {
                Write::Put { record, .. } => {
                    records.insert(record.key(), (record.clone(), *last));
                }
                Write::Remove { key, .. } => {
                    records.remove(key);
                    removed.push((*last, key.clone()));
                }
            }
        }
        if removed.len() > REMOVED_MAX {
            *forgotten = removed.drain(..removed.len() - REMOVED_MAX).map(|it| it.0).max().unwrap();
        }
        *mark_ms = match batch.mark {
            Mark::Raise(to) => to.max(*mark_ms),
            Mark::Set(to) => to,
        };
        let number = *last;
        if state.fault == Some(Fault::After) {
            (state.fault, state.fired) = (None, true);
            return Err(CommitError::Fault(StoreError::new("after")));
        }
        Ok(number)
    }
}
