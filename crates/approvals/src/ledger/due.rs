//! What is over is written down, and the oldest of the history is dropped.

use std::sync::Arc;

use super::{Kept, Ledger, Plan};
use crate::limits::{SETTLE_WITHIN, millis};
use crate::record::{HoldRecord, HoldState, PrincipalRecord, Record, RecordKey};
use crate::store::Write;

/// Records that one batch of [`Ledger::due`] changes at most, about.
const DUE_MAX: usize = 64;

impl Ledger {
    /// The plan for what the time has brought about: holds that expired, cancels that the store
    /// does not have yet, spent holds of which nobody said how they ended, and history beyond its
    /// bounds. It is called until it has nothing more.
    pub fn due(&self, at_ms: u64) -> Option<Plan<()>> {
        let mut writes: Vec<Write> = self.over(at_ms).take(DUE_MAX).flatten().collect();
        if writes.is_empty() {
            writes = self.too_old(at_ms).take(DUE_MAX).collect();
        }
        (!writes.is_empty()).then(|| Plan::new(writes, ()))
    }

    /// The plan for a store that was closed: what its last owner left behind.
    ///
    /// `set_back` says that the wall clock is behind the store's: nobody knows how much time has
    /// passed, so everything that could still be used is over.
    pub fn inherit(&self, set_back: bool, wall_ms: u64) -> Plan<Vec<Box<str>>> {
        let mut writes = Vec::new();
        let latest_ms = if set_back { wall_ms } else { u64::MAX };
        for hold in self.finished.iter().filter_map(|(_, id)| self.hold(id)) {
            let unsettled = self.unsettled.contains(&hold.asked.id);
            let state = if unsettled { HoldState::Unknown } else { hold.state };
            let changed_ms = hold.changed_ms.min(latest_ms);
            if (state, changed_ms) != (hold.state, hold.changed_ms) {
                writes.push(self.moved(hold, state, changed_ms));
            }
        }
        let unknown = self.unsettled.iter().cloned().collect();
        if set_back {
            for hold in self.open_holds() {
                writes.extend(self.finish(hold, HoldState::Expired, wall_ms));
            }
            writes.extend(self.wider.iter().map(|(id, kept)| Write::Remove {
                key: RecordKey::wider(id),
                expect: kept.version,
            }));
            writes.extend(self.principals.values().map(|kept| self.as_of_now(kept, wall_ms)));
        }
        writes.extend(self.tasks_left(set_back));
        Plan::new(writes, unknown)
    }

    /// What must be written about holds, wider grants, principals and tasks, for each of them.
    fn over(&self, at_ms: u64) -> impl Iterator<Item = Vec<Write>> {
        let holds = self.open_holds().filter_map(move |hold| {
            let state = self.state(hold, at_ms);
            (state != hold.state).then(|| self.finish(hold, state, at_ms))
        });
        let unsettled = self.unsettled.iter().filter_map(move |id| {
            let hold = self.hold(id)?;
            let late = hold.changed_ms.saturating_add(millis(SETTLE_WITHIN)) <= at_ms;
            late.then(|| vec![self.moved(hold, HoldState::Unknown, hold.changed_ms)])
        });
        let wider = self.wider.iter().filter_map(move |(id, kept)| {
            let over = kept.record.expires_ms <= at_ms || kept.record.left == 0;
            let key = RecordKey::wider(id);
            over.then(|| vec![Write::Remove { key, expect: kept.version }])
        });
        let principals = self.principals.iter().filter_map(move |(name, kept)| {
            let key = RecordKey::principal(name);
            self.is_forgotten(&kept.record, at_ms)
                .then(|| vec![Write::Remove { key, expect: kept.version }])
        });
        holds.chain(unsettled).chain(wider).chain(principals).chain(self.tasks_due(at_ms))
    }

    /// Removes what the history has no room for, the oldest first.
    fn too_old(&self, at_ms: u64) -> impl Iterator<Item = Write> {
        let limits = &self.limits;
        let age = millis(limits.history_age);
        let mut count = self.finished.len();
        let mut bytes = self.finished_bytes;
        let finished = self.finished.iter().filter_map(|(_, id)| self.holds.get(id));
        let old = finished.map_while(move |kept| {
            let old = kept.record.changed_ms.saturating_add(age) <= at_ms;
            if !old && count <= limits.history && bytes <= limits.history_bytes {
                return None;
            }
            count = count.saturating_sub(1);
            bytes = bytes.saturating_sub(kept.record.bytes());
            Some(kept)
        });
        old.map(|kept: &Kept<HoldRecord>| Write::Remove {
            key: RecordKey::hold(&kept.record.asked.id),
            expect: kept.version,
        })
    }

    /// The refusals of a principal on a clock that was set back: as if they had just been given.
    fn as_of_now(&self, kept: &Kept<PrincipalRecord>, wall_ms: u64) -> Write {
        let latest = wall_ms.saturating_add(millis(self.limits.cool_down_max));
        let mut record = (*kept.record).clone();
        record.until_ms = record.until_ms.min(latest);
        for refused in &mut record.refusals_ms {
            *refused = (*refused).min(wall_ms);
        }
        Write::Put { record: Record::Principal(Arc::new(record)), expect: kept.version }
    }
}
