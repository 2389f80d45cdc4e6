//! What never comes back: a hold that is over, and a wider grant that is used up.
//!
//! A record is sealed, but whoever can read and write a shared store can put back an older one of the
//! same name. A ledger that has seen what followed knows that it is older.

use std::collections::{BTreeMap, BTreeSet};

use super::Ledger;
use crate::record::{HoldRecord, HoldState, Record, RecordKey};

/// Removed records that are remembered at most; beyond that, those whose time is over first are
/// forgotten.
const OVER_MAX: usize = 10_000;

/// The names of holds and wider grants that were removed, until their time would be over, when they
/// are of no use any more.
#[derive(Debug, Default)]
pub(super) struct Over {
    until_ms: BTreeMap<RecordKey, u64>,
    by_time: BTreeSet<(u64, RecordKey)>,
}

impl Over {
    /// Remembers `key` until then.
    pub(super) fn add(&mut self, key: RecordKey, until_ms: u64) {
        if let Some(before) = self.until_ms.insert(key.clone(), until_ms) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((until_ms, key));
        if self.by_time.len() > OVER_MAX {
            self.forget_first();
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn forget(&mut self, at_ms: u64) {
        while self.by_time.first().is_some_and(|(until_ms, _)| *until_ms <= at_ms) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first() {
            self.until_ms.remove(&key);
        }
    }

    fn has(&self, key: &RecordKey) -> bool {
        self.until_ms.contains_key(key)
    }
}

impl Ledger {
    /// All holds and wider grants, each with the time after which it is of no use.
    pub(super) fn usable(&self) -> impl Iterator<Item = (RecordKey, u64)> {
        let holds = self.holds.iter();
        let holds = holds.map(|(id, kept)| (RecordKey::hold(id), kept.record.asked.expires_ms));
        let wider = self.wider.iter();
        holds.chain(wider.map(|(id, kept)| (RecordKey::wider(id), kept.record.expires_ms)))
    }

    /// Whether the ledger has seen what followed `record`; `whole` says that it is from a reading of
    /// the whole store.
    pub(super) fn knows_later(&self, record: &Record, whole: bool) -> bool {
        match record {
            Record::Hold(hold) => match self.hold(&hold.asked.id) {
                Some(known) => is_older(hold, known, whole),
                None => hold.state.is_open() && self.over.has(&record.key()),
            },
            Record::Wider(wider) => match self.wider.get(&wider.through.hold) {
                Some(known) => {
                    let known = &known.record;
                    wider.left > known.left || wider.expires_ms > known.expires_ms
                }
                None => wider.left > 0 && self.over.has(&record.key()),
            },
            // They grant nothing: the call of a task needs a granted hold, too.
            Record::Slot(_) | Record::Principal(_) | Record::Task(_) => false,
        }
    }
}

/// Whether `hold` is not what can have become of `known`.
fn is_older(hold: &HoldRecord, known: &HoldRecord, whole: bool) -> bool {
    match (known.state, hold.state) {
        (HoldState::Pending, HoldState::Pending) => hold.answers.len() < known.answers.len(),
        (HoldState::Granted, HoldState::Pending) => true,
        (HoldState::Pending | HoldState::Granted, _) => false,
        (_, HoldState::Pending | HoldState::Granted) => true,
        // After a loss that another replica has noticed first, all that was open is over, whatever
        // became of it here; then the whole store is read.
        (_, _) if whole => false,
        (HoldState::Spent, HoldState::Unknown) => hold.changed_ms != known.changed_ms,
        (from, to) => from != to || hold.changed_ms != known.changed_ms,
    }
}
