//! People are not worn out: who is refused often, or asks often, has to pause (threat I6).

use std::sync::Arc;
use std::time::Duration;

use super::Ledger;
use crate::limits::{NoHold, millis};
use crate::record::{PrincipalRecord, Record};
use crate::store::Write;

impl Ledger {
    /// Whether `principal` may have one more new hold.
    pub(super) fn may_ask(&self, principal: &str, at_ms: u64) -> Result<(), NoHold> {
        let until = self.principals.get(principal).map_or(0, |kept| kept.record.until_ms);
        let until = until.max(self.asks_until(principal, at_ms));
        if until > at_ms {
            let retry_after = Duration::from_millis(until.saturating_sub(at_ms));
            return Err(NoHold::CoolingDown { retry_after });
        }
        Ok(())
    }

    /// When `principal` has asked for fewer holds than its bound in the time before.
    fn asks_until(&self, principal: &str, at_ms: u64) -> u64 {
        let within = millis(self.limits.asks_within);
        let own = self.holds().filter(|hold| {
            let asked = &hold.asked;
            *asked.subject.principal == *principal
                && hold.through.is_none()
                && asked.at_ms <= at_ms
                && asked.at_ms.saturating_add(within) > at_ms
        });
        let mut times: Vec<u64> = own.map(|hold| hold.asked.at_ms).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        // Once this one is so old that it does not count, there is room for another.
        match self.limits.asks.checked_sub(1) {
            Some(last) => times.get(last).map_or(0, |asked| asked.saturating_add(within)),
            None => at_ms.saturating_add(within),
        }
    }

    /// The write that counts a refusal of `principal`.
    pub(super) fn refused(&self, principal: &str, at_ms: u64) -> Write {
        let limits = &self.limits;
        let kept = self.principals.get(principal);
        let mut record = kept.map_or_else(
            || PrincipalRecord {
                principal: principal.into(),
                refusals_ms: Vec::new(),
                cool_downs: 0,
                until_ms: 0,
            },
            |kept| (*kept.record).clone(),
        );
        if record.until_ms.saturating_add(millis(limits.cool_down_forgotten)) <= at_ms {
            record.cool_downs = 0;
        }
        let within = millis(limits.refusals_within);
        record.refusals_ms.retain(|refused| refused.saturating_add(within) > at_ms);
        record.refusals_ms.push(at_ms);
        let enough = limits.refusals.max(1);
        if record.refusals_ms.len() >= enough {
            record.until_ms = at_ms.saturating_add(self.cool_down_ms(record.cool_downs));
            record.cool_downs = record.cool_downs.saturating_add(1);
            // The next one alone begins a longer cool-down, while the others still count.
            let surplus = record.refusals_ms.len().saturating_sub(enough.saturating_sub(1));
            record.refusals_ms.drain(..surplus);
        }
        let expect = kept.map_or(0, |kept| kept.version);
        Write::Put { record: Record::Principal(Arc::new(record)), expect }
    }

    /// How long a cool-down lasts that follows `before` others.
    fn cool_down_ms(&self, before: u32) -> u64 {
        let factor = 2_u64.saturating_pow(before);
        millis(self.limits.cool_down).saturating_mul(factor).min(millis(self.limits.cool_down_max))
    }

    /// Whether nothing of `record` counts any more.
    pub(super) fn is_forgotten(&self, record: &PrincipalRecord, at_ms: u64) -> bool {
        let last = record.refusals_ms.last().copied().unwrap_or_default();
        let calm = record.until_ms.saturating_add(millis(self.limits.cool_down_forgotten));
        last.saturating_add(millis(self.limits.refusals_within)) <= at_ms
            && (record.cool_downs == 0 || calm <= at_ms)
    }
}
