//! A store for the simulation: it fails when told to, lets another replica in between a plan and
//! its commit, and forgets at a crash what was not to last yet. A shared one can be put back to what
//! it was before, as a whole or in one record; it counts its batches in epochs, as the real one does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bartizan_approvals::record::{Record, RecordKey};
use bartizan_approvals::store::{
    Batch, CommitError, Delta, Lasting, Mark, Store, StoreError, Version, Write,
};

use crate::Random;

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
    epoch: Epoch,
}

/// Its number, and what tells it from others of that number.
type Epoch = (u64, u64);

/// What one replica has seen.
#[derive(Default)]
struct Seen {
    epoch: Epoch,
    number: u64,
    last: Version,
    rolled_back: Option<Epoch>,
}

impl Seen {
    fn follow(&mut self, epoch: Epoch, last: Version) {
        *self = Self { epoch, number: self.number.max(epoch.0), last, rolled_back: None };
    }
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
    /// What it was before, now and then.
    before: VecDeque<Content>,
    epochs: u64,
}

/// How many earlier contents are known.
const BEFORE_MAX: usize = 12;

/// The store, as one replica sees it.
pub(crate) struct Shelf {
    state: Arc<Mutex<State>>,
    exclusive: bool,
    seen: Mutex<Seen>,
}

impl Shelf {
    pub(crate) fn new(exclusive: bool) -> Self {
        Self { state: Arc::default(), exclusive, seen: Mutex::default() }
    }

    /// The same store, for a replica that begins.
    pub(crate) fn again(&self) -> Self {
        Self { state: Arc::clone(&self.state), exclusive: self.exclusive, seen: Mutex::default() }
    }

    /// The number of its last batch.
    pub(crate) fn batches(&self) -> Version {
        self.state.lock().unwrap().content.last
    }

    /// It is what it was before; `false` if nothing is known of that.
    pub(crate) fn roll_back(&self, random: &mut Random) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.before.is_empty() {
            return false;
        }
        let to = random.below(state.before.len());
        state.before.truncate(to + 1);
        state.content = state.before.pop_back().unwrap();
        true
    }

    /// One hold or wider grant that is there is what it was before, for all to read; `false` if there
    /// is none. One that was removed is left out: a replica that began later has not seen it.
    pub(crate) fn put_back(&self, random: &mut Random) -> bool {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        if state.before.is_empty() {
            return false;
        }
        let before = &state.before[random.below(state.before.len())].records;
        let grants = |record: &Record| matches!(record, Record::Hold(_) | Record::Wider(_));
        let now = |record: &Record| state.content.records.get(&record.key()).map(|(_, now)| *now);
        let mut old: Vec<_> = before
            .values()
            .filter(|(record, _)| grants(record))
            .filter_map(|(record, version)| Some((*version, now(record)?, record)))
            .filter(|(version, now, _)| now != version)
            .collect();
        // Names are random; in this order a seed finds the same one again.
        old.sort_by_key(|(version, now, record)| {
            (*version, *now, matches!(record, Record::Hold(_)))
        });
        // There are far more holds.
        let is_wider = |record: &Record| matches!(record, Record::Wider(_));
        if random.chance(50) && old.iter().any(|(.., record)| is_wider(record)) {
            old.retain(|(.., record)| is_wider(record));
        }
        if old.is_empty() {
            return false;
        }
        let (_, _, record) = old[random.below(old.len())];
        let record = record.clone();
        state.content.last += 1;
        state.content.records.insert(record.key(), (record, state.content.last));
        true
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
        let Content { records, last, mark_ms, removed, forgotten, epoch } = &state.content;
        let mut seen = self.seen.lock().unwrap();
        let rolled_back =
            if seen.epoch == *epoch { *last < seen.last } else { epoch.0 <= seen.number };
        let whole = rolled_back || seen.epoch != *epoch || cursor < *forgotten || cursor == 0;
        let from = if whole { 0 } else { cursor };
        if rolled_back {
            seen.rolled_back = Some(*epoch);
        } else {
            seen.follow(*epoch, *last);
        }
        let newer = records.values().filter(|(_, version)| *version > from);
        let removed = removed.iter().filter(|(batch, _)| !whole && *batch > cursor);
        Ok(Delta {
            whole,
            rolled_back,
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
        let mut seen = self.seen.lock().unwrap();
        let known = seen.rolled_back.take();
        let anew = batch.anew || known.is_some();
        let is_behind = state.content.last < seen.last;
        if !self.exclusive
            && (state.content.epoch != known.unwrap_or(seen.epoch) || is_behind && !anew)
        {
            return Err(CommitError::Conflict);
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
        if !self.exclusive && state.content.last.is_multiple_of(4) {
            let now = state.content.clone();
            state.before.push_back(now);
            while state.before.len() > BEFORE_MAX {
                state.before.pop_front();
            }
        }
        if anew || !self.exclusive && state.content.epoch == Epoch::default() {
            state.epochs += 1;
            state.content.last = state.content.last.max(seen.last);
            state.content.epoch = (seen.number + 1, state.epochs);
        }
        let Content { records, last, mark_ms, removed, forgotten, epoch } = &mut state.content;
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
        let (number, epoch) = (*last, *epoch);
        if state.fault == Some(Fault::After) {
            (state.fault, state.fired) = (None, true);
            return Err(CommitError::Fault(StoreError::new("after")));
        }
        seen.follow(epoch, number);
        Ok(number)
    }
}
