//! A call asks: it attaches to an open hold, uses a wider grant, or gets a new hold.

use std::sync::Arc;

use bartizan_gate::duty::hold::Hold;

use super::{Ledger, Plan};
use crate::limits::{Bound, NoHold, TTL_MAX, millis};
use crate::record::{
    Asked, HoldRecord, HoldState, Record, Scope, SlotRecord, Subject, WiderRecord,
};
use crate::store::Write;

/// The hold that a call got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Its id.
    pub id: Box<str>,
    /// Until when it may be granted and spent, milliseconds of the ledger's clock.
    pub expires_ms: u64,
    /// A hold that this call ended, because its rule now asks under other conditions.
    pub ended: Option<Box<str>>,
}

impl Ledger {
    /// The plan for a call that must be held. `fresh` is the name for a new hold, used by no other.
    ///
    /// # Errors
    ///
    /// The call gets no hold.
    pub fn ask(&self, hold: &Hold, fresh: &str, at_ms: u64) -> Result<Plan<Got>, NoHold> {
        let ttl = millis(hold.ttl.min(TTL_MAX));
        let asked = Asked::new(hold, fresh, at_ms, at_ms.saturating_add(ttl));
        let mut writes = Vec::new();
        let mut ended = None;
        if let Some(open) = self.open_hold_of(&asked.key, at_ms) {
            if open.asked.subject == asked.subject {
                return Ok(self.attach(open, at_ms));
            }
            // The rule asks other people now, or more of them: what was begun does not count.
            writes.extend(self.finish(open, HoldState::Cancelled, at_ms));
            ended = Some(open.asked.id.clone());
        }
        let got = Got { id: asked.id.clone(), expires_ms: asked.expires_ms, ended };
        let record = HoldRecord {
            asked: Arc::new(asked),
            state: HoldState::Pending,
            changed_ms: at_ms,
            answers: Vec::new(),
            scope: None,
            through: None,
            settled: false,
        };
        self.has_room(&record.asked, got.ended.as_deref(), at_ms)?;
        let wider = self.wider_for(&record.asked.subject, at_ms);
        if wider.is_none() {
            self.may_ask(&record.asked.subject.principal, at_ms)?;
        }
        // One write for the slot: it may still be that of the hold that ends.
        let key = &record.asked.key;
        writes.retain(|write| !matches!(write, Write::Remove { .. }));
        let slot = SlotRecord { key: key.clone(), hold: got.id.clone() };
        let expect = self.slots.get(key).map_or(0, |slot| slot.version);
        writes.push(Write::Put { record: Record::Slot(Arc::new(slot)), expect });
        match wider {
            Some(wider) => writes.extend(self.use_wider(&record, wider, at_ms)),
            None => writes.push(self.put_hold(record)),
        }
        Ok(Plan::new(writes, got))
    }

    /// The plan for each pending hold that a wider grant covers by now: the next one of them.
    pub fn use_wider_grants(&self, at_ms: u64) -> Option<Plan<Box<str>>> {
        let pending = |hold: &&HoldRecord| self.state(hold, at_ms) == HoldState::Pending;
        self.open_holds().filter(pending).find_map(|hold| {
            let wider = self.wider_for(&hold.asked.subject, at_ms)?;
            Some(Plan::new(self.use_wider(hold, wider, at_ms).into(), hold.asked.id.clone()))
        })
    }

    /// The hold of this key that is pending or granted.
    fn open_hold_of(&self, key: &str, at_ms: u64) -> Option<&HoldRecord> {
        let slot = self.slots.get(key)?;
        self.hold(&slot.record.hold).filter(|hold| self.state(hold, at_ms).is_open())
    }

    fn attach(&self, open: &HoldRecord, at_ms: u64) -> Plan<Got> {
        let got = Got { id: open.asked.id.clone(), expires_ms: open.asked.expires_ms, ended: None };
        let wider = self.wider_for(&open.asked.subject, at_ms);
        match wider.filter(|_| open.state == HoldState::Pending) {
            Some(wider) => Plan::new(self.use_wider(open, wider, at_ms).into(), got),
            None => Plan::nothing(got),
        }
    }

    /// The wider grant that covers a call of `subject`: of several, the one that ends first.
    fn wider_for(&self, subject: &Subject, at_ms: u64) -> Option<&WiderRecord> {
        let covers = |wider: &&WiderRecord| {
            wider.subject == *subject && at_ms < wider.expires_ms && wider.left > 0
        };
        let all = self.wider.values().map(|kept| &*kept.record);
        all.filter(covers).min_by_key(|wider| wider.expires_ms)
    }

    /// Writes that grant `hold` under `wider`, which then covers one call less.
    fn use_wider(&self, hold: &HoldRecord, wider: &WiderRecord, at_ms: u64) -> [Write; 2] {
        let granted = HoldRecord {
            state: HoldState::Granted,
            changed_ms: at_ms,
            through: Some(wider.through.clone()),
            ..hold.clone()
        };
        let rest = WiderRecord { left: wider.left.saturating_sub(1), ..wider.clone() };
        let expect = self.wider.get(&wider.through.hold).map_or(0, |kept| kept.version);
        [self.put_hold(granted), Write::Put { record: Record::Wider(Arc::new(rest)), expect }]
    }

    /// Whether one more hold fits, beside all open ones but `ended`.
    fn has_room(&self, asked: &Asked, ended: Option<&str>, at_ms: u64) -> Result<(), NoHold> {
        let limits = &self.limits;
        let subject = &asked.subject;
        let mut total = Used::of(asked);
        let (mut principal, mut server) = (total, total);
        for hold in self.open_holds() {
            let other = &hold.asked;
            if !self.state(hold, at_ms).is_open() || ended == Some(&*other.id) {
                continue;
            }
            total.add(other);
            if other.subject.principal == subject.principal {
                principal.add(other);
            }
            if other.subject.server == subject.server {
                server.add(other);
            }
        }
        let bounds = [
            (asked.bytes() <= limits.bytes_per_hold, Bound::HoldBytes),
            (principal.holds <= limits.holds_per_principal, Bound::Principal),
            (principal.bytes <= limits.bytes_per_principal, Bound::PrincipalBytes),
            (server.holds <= limits.holds_per_server, Bound::Server),
            (total.holds <= limits.holds, Bound::Total),
            (total.bytes <= limits.bytes, Bound::TotalBytes),
        ];
        match bounds.into_iter().find(|(fits, _)| !fits) {
            Some((_, bound)) => Err(NoHold::Full(bound)),
            None => Ok(()),
        }
    }
}

/// What some holds take.
#[derive(Debug, Clone, Copy)]
struct Used {
    holds: usize,
    bytes: usize,
}

impl Used {
    fn of(asked: &Asked) -> Self {
        Self { holds: 1, bytes: asked.bytes() }
    }

    fn add(&mut self, asked: &Asked) {
        self.holds = self.holds.saturating_add(1);
        self.bytes = self.bytes.saturating_add(asked.bytes());
    }
}

/// The offer of `subject` with this code.
pub(super) fn offer<'a>(subject: &'a Subject, code: &str) -> Option<&'a Scope> {
    subject.scopes.iter().find(|scope| &*scope.code == code)
}
