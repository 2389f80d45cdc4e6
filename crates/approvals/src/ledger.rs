//! The state machine of holds: which changes are right. It has no I/O and reads no clock.
//!
//! A plan is made from what the ledger has: a batch for the store, and an outcome. Only when the
//! store has taken the batch does the ledger take it, too ([`Ledger::apply`]). If another replica
//! was faster, the ledger takes what that one wrote ([`Ledger::take`]) and the plan is made anew.
//!
//! What no plan needs to say: a hold whose time is over, or whose call was cancelled, is over at
//! once ([`Ledger::state`]), whatever the store has; [`Ledger::due`] writes it down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bartizan_gate::evidence::record::Now;

use crate::clock::HighWater;
use crate::limits::ApprovalLimits;
use crate::record::{
    Asked, HoldRecord, HoldState, PrincipalRecord, Record, RecordKey, SlotRecord, TaskRecord,
    WiderRecord,
};
use crate::store::{Batch, Delta, Lasting, Mark, Version, Write};
use over::Over;

mod answer;
mod ask;
mod due;
mod fatigue;
mod over;
mod spend;
mod task;

pub use answer::{AnswerError, Approver, Given};
pub use ask::Got;
pub use task::NoTask;

/// A record, and its version in the store.
#[derive(Debug, Clone)]
struct Kept<T> {
    record: Arc<T>,
    version: Version,
}

/// Writes for the store, and what the caller gets once they are done.
#[derive(Debug)]
pub struct Plan<T> {
    /// For the store; nothing if it is empty.
    pub writes: Vec<Write>,
    /// When they must be on the disk.
    pub lasting: Lasting,
    /// Whether all replicas must read the store anew ([`Batch::anew`]).
    pub anew: bool,
    /// For the caller.
    pub outcome: T,
}

impl<T> Plan<T> {
    fn new(writes: Vec<Write>, outcome: T) -> Self {
        Self { writes, lasting: Lasting::Now, anew: false, outcome }
    }

    /// A plan that changes nothing.
    pub fn nothing(outcome: T) -> Self {
        Self::new(Vec::new(), outcome)
    }

    /// The batch to commit at the time `at_ms`.
    pub fn batch(&self, at_ms: u64) -> Batch {
        let (writes, mark) = (self.writes.clone(), Mark::Raise(at_ms));
        Batch { writes, mark, lasting: self.lasting, anew: self.anew }
    }
}

/// All holds that are open or finished, wider grants, and refusals.
#[derive(Debug)]
pub struct Ledger {
    limits: ApprovalLimits,
    clock: HighWater,
    holds: BTreeMap<Box<str>, Kept<HoldRecord>>,
    /// Ids of the holds that are pending or granted in the store.
    open: BTreeSet<Box<str>>,
    /// Ids of the holds that are spent, with no word on how the call ended.
    unsettled: BTreeSet<Box<str>>,
    /// Ids of the finished holds, the oldest first.
    finished: BTreeSet<(u64, Box<str>)>,
    /// Bytes of the finished holds.
    finished_bytes: usize,
    slots: BTreeMap<Box<str>, Kept<SlotRecord>>,
    wider: BTreeMap<Box<str>, Kept<WiderRecord>>,
    principals: BTreeMap<Box<str>, Kept<PrincipalRecord>>,
    tasks: BTreeMap<Box<str>, Kept<TaskRecord>>,
    /// Ids of open holds whose call was cancelled and for which the store does not have that yet.
    cancelled: BTreeSet<Box<str>>,
    /// What was over when the store removed it.
    over: Over,
    /// The store has gone back, and it is not written yet that all that was open is over.
    all_over: bool,
}

impl Ledger {
    /// A ledger with what the store has.
    pub fn new(limits: ApprovalLimits, delta: Delta, now: Now) -> Self {
        let mut ledger = Self::empty(limits, HighWater::new(delta.mark_ms, now));
        // It knew nothing that could have gone back.
        ledger.take(delta, now);
        ledger
    }

    fn empty(limits: ApprovalLimits, clock: HighWater) -> Self {
        Self {
            limits,
            clock,
            holds: BTreeMap::new(),
            open: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            finished: BTreeSet::new(),
            finished_bytes: 0,
            slots: BTreeMap::new(),
            wider: BTreeMap::new(),
            principals: BTreeMap::new(),
            tasks: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            over: Over::default(),
            all_over: false,
        }
    }

    /// Takes what others wrote, or all that the store has. Whether some of that is older than what
    /// the ledger had: the store has gone back, or somebody has put back a record as it was before.
    /// Then nobody knows what has become of any hold, and all that are open must be over.
    pub fn take(&mut self, delta: Delta, now: Now) -> bool {
        self.clock.raise(delta.mark_ms, now);
        self.over.forget(self.clock.read(now));
        for key in &delta.removed {
            self.remove(key);
        }
        let gone_back =
            delta.records.iter().any(|(record, _)| self.knows_later(record, delta.whole));
        if delta.whole {
            let fresh = Self::empty(self.limits.clone(), self.clock);
            let mut old = std::mem::replace(self, fresh);
            let kept: BTreeSet<_> = delta.records.iter().map(|(record, _)| record.key()).collect();
            let mut over = std::mem::take(&mut old.over);
            for (key, until_ms) in old.usable().filter(|(key, _)| !kept.contains(key)) {
                over.add(key, until_ms);
            }
            (self.cancelled, self.over, self.all_over) = (old.cancelled, over, old.all_over);
        }
        for (record, version) in delta.records {
            self.put(record, version);
        }
        let open = &self.open;
        self.cancelled.retain(|id| open.contains(id));
        gone_back
    }

    /// Takes a batch that the store has taken as the number `version`.
    pub fn apply(&mut self, writes: &[Write], version: Version) {
        for write in writes {
            match write {
                Write::Put { record, .. } => self.put(record.clone(), version),
                Write::Remove { key, .. } => self.remove(key),
            }
        }
    }

    /// Moves the clock to `now` and returns it, in milliseconds.
    pub fn advance(&mut self, now: Now) -> u64 {
        self.clock.advance(now)
    }

    /// The clock at `now`, in milliseconds.
    pub fn time(&self, now: Now) -> u64 {
        self.clock.read(now)
    }

    /// The bounds.
    pub fn limits(&self) -> &ApprovalLimits {
        &self.limits
    }

    /// The hold `id`, with the state that the store has.
    pub fn hold(&self, id: &str) -> Option<&HoldRecord> {
        self.holds.get(id).map(|kept| &*kept.record)
    }

    /// All holds.
    pub fn holds(&self) -> impl Iterator<Item = &HoldRecord> {
        self.holds.values().map(|kept| &*kept.record)
    }

    /// The holds that the store has as pending or granted.
    pub fn open_holds(&self) -> impl Iterator<Item = &HoldRecord> {
        self.open.iter().filter_map(|id| self.hold(id))
    }

    /// Whether any hold or wider grant can still expire.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty() || !self.wider.is_empty()
    }

    /// The state of `hold` at the time `at_ms`.
    pub fn state(&self, hold: &HoldRecord, at_ms: u64) -> HoldState {
        if !hold.state.is_open() {
            hold.state
        } else if self.cancelled.contains(&hold.asked.id) {
            HoldState::Cancelled
        } else if self.all_over || at_ms >= hold.asked.expires_ms {
            HoldState::Expired
        } else {
            hold.state
        }
    }

    /// Whether all that is open in the store is over, although that is not written yet: the store has
    /// gone back to what it was before.
    pub fn set_all_over(&mut self, all_over: bool) {
        self.all_over = all_over;
    }

    /// The call of the hold `id` is cancelled, although the store did not take that: nothing can
    /// become of the hold any more, and [`Self::due`] writes it as soon as the store can.
    pub fn remember_cancelled(&mut self, id: &str) {
        if self.open.contains(id) {
            self.cancelled.insert(id.into());
        }
    }

    /// A write of `hold` in a new state, at the time `at_ms`.
    fn moved(&self, hold: &HoldRecord, state: HoldState, at_ms: u64) -> Write {
        self.put_hold(HoldRecord { state, changed_ms: at_ms, ..hold.clone() })
    }

    /// A write of `hold` over the version that the ledger has.
    fn put_hold(&self, hold: HoldRecord) -> Write {
        let expect = self.holds.get(&hold.asked.id).map_or(0, |kept| kept.version);
        Write::Put { record: Record::Hold(Arc::new(hold)), expect }
    }

    /// A write that gives up the slot of `asked`, if that hold has it.
    fn release(&self, asked: &Asked) -> Option<Write> {
        let slot = self.slots.get(&asked.key).filter(|slot| slot.record.hold == asked.id)?;
        Some(Write::Remove { key: RecordKey::slot(&asked.key), expect: slot.version })
    }

    /// Writes that finish `hold` in `state`.
    fn finish(&self, hold: &HoldRecord, state: HoldState, at_ms: u64) -> Vec<Write> {
        [self.moved(hold, state, at_ms)].into_iter().chain(self.release(&hold.asked)).collect()
    }

    fn put(&mut self, record: Record, version: Version) {
        match record {
            Record::Hold(record) => self.put_kept_hold(Kept { record, version }),
            Record::Slot(record) => {
                self.slots.insert(record.key.clone(), Kept { record, version });
            }
            Record::Wider(record) => {
                self.wider.insert(record.through.hold.clone(), Kept { record, version });
            }
            Record::Principal(record) => {
                self.principals.insert(record.principal.clone(), Kept { record, version });
            }
            Record::Task(record) => {
                self.tasks.insert(record.id.clone(), Kept { record, version });
            }
        }
    }

    fn put_kept_hold(&mut self, kept: Kept<HoldRecord>) {
        let record = Arc::clone(&kept.record);
        let asked = &record.asked;
        self.remove_hold(&asked.id);
        if record.state.is_open() {
            self.open.insert(asked.id.clone());
        } else {
            self.finished.insert((record.changed_ms, asked.id.clone()));
            self.finished_bytes = self.finished_bytes.saturating_add(record.bytes());
            self.cancelled.remove(&asked.id);
        }
        if record.state == HoldState::Spent && !record.settled {
            self.unsettled.insert(asked.id.clone());
        }
        self.holds.insert(asked.id.clone(), kept);
    }

    fn remove_hold(&mut self, id: &str) -> Option<Kept<HoldRecord>> {
        let kept = self.holds.remove(id)?;
        if self.finished.remove(&(kept.record.changed_ms, id.into())) {
            self.finished_bytes = self.finished_bytes.saturating_sub(kept.record.bytes());
        }
        self.open.remove(id);
        self.unsettled.remove(id);
        Some(kept)
    }

    /// No hold is removed before it is over, and no wider grant.
    fn remove(&mut self, key: &RecordKey) {
        match key.as_str().split_once('/') {
            Some(("hold", id)) => {
                if let Some(kept) = self.remove_hold(id) {
                    self.over.add(key.clone(), kept.record.asked.expires_ms);
                }
            }
            Some(("slot", of)) => drop(self.slots.remove(of)),
            Some(("wider", id)) => {
                if let Some(kept) = self.wider.remove(id) {
                    self.over.add(key.clone(), kept.record.expires_ms);
                }
            }
            Some(("principal", name)) => drop(self.principals.remove(name)),
            Some(("task", id)) => drop(self.tasks.remove(id)),
            Some(_) | None => {}
        }
    }
}
