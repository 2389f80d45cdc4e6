//! The balance of intents and outcomes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::lines::Place;
use crate::chain::{ChainFault, Link};
use crate::recover::Damage;

/// Calls without outcome.
#[derive(Default)]
pub(super) struct OpenCalls {
    open: BTreeMap<String, Awaited>,
    /// Number of open calls of missing segments whose ids are not known.
    elided: u64,
    /// Whether the current run may still record unknown outcomes for calls of earlier runs: it does
    /// so before anything else.
    settling: bool,
}

struct Awaited {
    outcomes: u32,
    seq: u64,
    path: PathBuf,
    line: u64,
    boot: String,
}

impl OpenCalls {
    /// The ids of the calls that have no outcome.
    pub(super) fn ids(self) -> Vec<String> {
        self.open.into_keys().collect()
    }

    /// Takes the next record; `first` says whether no record was taken before.
    pub(super) fn take(
        &mut self,
        link: &Link<'_>,
        place: Place<'_>,
        first: bool,
    ) -> Result<(), Damage> {
        let damage = |fault| place.damage(link.seq, fault);
        match (&*link.event, &link.call) {
            ("start", _) => self.settling = true,
            ("stop", _) if !self.settling => {
                let oldest = self.open.iter().min_by_key(|(_, awaited)| awaited.seq);
                if let Some((call, _)) = oldest {
                    let call = call.clone();
                    return Err(damage(ChainFault::StoppedWithOpenCall { call }));
                }
            }
            ("rotation", _) if first => {
                self.elided = link.open_elided;
                for call in &link.open {
                    self.await_outcome(call, link, place);
                }
            }
            ("rotation", _) if !self.agree_with(link) => return Err(damage(ChainFault::OpenCalls)),
            ("rotation" | "recovery" | "gap" | "checkpoint" | "retention", _) => {}
            ("outcome", Some(call)) => return self.end(call).map_err(damage),
            (event, call) => {
                // After `start` the journal first records the outcomes of earlier runs' calls, so
                // none may be open now.
                self.demand_settled(&link.boot)?;
                if let ("intent", Some(call)) = (event, call) {
                    self.await_outcome(call, link, place);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, call: &str) -> Result<(), ChainFault> {
        let Some(awaited) = self.open.get_mut(call) else {
            if let Some(rest) = self.elided.checked_sub(1) {
                self.elided = rest;
                return Ok(());
            }
            return Err(ChainFault::OutcomeWithoutIntent { call: call.to_owned() });
        };
        awaited.outcomes = awaited.outcomes.saturating_sub(1);
        if awaited.outcomes == 0 {
            self.open.remove(call);
        }
        Ok(())
    }

    fn await_outcome(&mut self, call: &str, link: &Link<'_>, place: Place<'_>) {
        let awaited = self.open.entry(call.to_owned()).or_insert_with(|| Awaited {
            outcomes: 0,
            seq: link.seq,
            path: place.path.to_owned(),
            line: place.line,
            boot: link.boot.clone().into_owned(),
        });
        awaited.outcomes = awaited.outcomes.saturating_add(1);
    }

    fn demand_settled(&mut self, boot: &str) -> Result<(), Damage> {
        if !std::mem::take(&mut self.settling) {
            return Ok(());
        }
        let unsettled =
            self.open.iter().filter(|(_, awaited)| awaited.boot != boot).min_by_key(|(_, a)| a.seq);
        unsettled.map_or(Ok(()), |(call, awaited)| {
            let fault = ChainFault::Unsettled { call: call.clone() };
            let place = Place { path: &awaited.path, line: awaited.line };
            Err(place.damage(awaited.seq, fault))
        })
    }

    fn agree_with(&self, rotation: &Link<'_>) -> bool {
        let mut listed: BTreeMap<&str, u32> = BTreeMap::new();
        for call in &rotation.open {
            let count = listed.entry(call).or_default();
            *count = count.saturating_add(1);
        }
        let known = listed.iter().all(|(call, count)| {
            self.open.get(*call).is_some_and(|awaited| *count <= awaited.outcomes)
        });
        let owed = self.open.values().map(|awaited| u64::from(awaited.outcomes)).sum::<u64>();
        let told = listed.values().map(|count| u64::from(*count)).sum::<u64>();
        known && owed.saturating_add(self.elided) == told.saturating_add(rotation.open_elided)
    }
}
