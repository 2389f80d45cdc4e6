//! Requests that ended without their answer, which the server may still send.
//!
//! A client cancels a request or disconnects, or a time limit ends it; the server need not know, and
//! may have answered already. Such a request is over for the client and the journal, and stays here
//! with the facts of its call: its late answer is withheld, and recorded as that call's. A cancelled
//! request still keeps the server busy for all that the gate knows, so for a while it counts as one
//! in flight; otherwise cancelling would lift the limit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::duty::limit::Places;
use crate::duty::redact::Redaction;
use crate::evidence::record::{CallId, Event, Finding, Now};
use crate::evidence::refusal::Refusal;
use crate::evidence::step::{Act, Step};
use crate::evidence::text::{Code, Text};
use crate::memory::Charge;
use crate::question::operation::OnSuccess;
use crate::question::readers::FactReader;
use crate::wire::frame::Id;

use super::{CallFacts, Gate, InFlightCall, Session, id_text};

/// For how long an ended request counts as one in flight. Servers that heed a cancellation send no
/// answer, so only time can tell that a request is over.
pub(super) const COUNTS_FOR: Duration = FactReader::OWED_FOR;
/// Ended requests of one session whose calls are remembered.
const OWED_MAX: usize = 64;

/// Why a request ended without its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The client cancelled it, or disconnected.
    Cancelled,
    /// The server took longer than allowed.
    TimedOut,
    /// The exchange failed in another way, or its answer was withheld unread.
    Failed,
    /// The server answered with an HTTP error status that refuses the request, such as a challenge.
    Rejected,
    /// The server, or a proxy before it, answered with another HTTP error status: the request may
    /// still be carried out.
    Unclear,
}

impl Unanswered {
    /// Whether the server may still be at work on it.
    pub(super) fn counts(self) -> bool {
        match self {
            Self::Cancelled | Self::TimedOut => true,
            Self::Failed | Self::Rejected | Self::Unclear => false,
        }
    }

    /// What an HTTP error status says of the request that it answers. With 408 and 499 somebody was
    /// tired of waiting (RFC 9110 §15.5.9; nginx).
    pub(super) fn by_status(status: u16) -> Self {
        match status {
            408 | 499 => Self::Unclear,
            400..=499 => Self::Rejected,
            _ => Self::Unclear,
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Cancelled => "the late answer to a request that had been cancelled",
            Self::TimedOut => "the late answer to a request that had timed out",
            Self::Failed | Self::Rejected | Self::Unclear => {
                "the late answer to a request that had failed"
            }
        }
    }
}

/// A request that the server may still answer.
#[derive(Debug, Clone)]
pub(super) struct OwedAnswer {
    id: Id,
    facts: CallFacts,
    exchange: CallId,
    redact: Vec<Redaction>,
    /// The keyed digest of the client's bytes.
    digest: Option<Text<Code>>,
    /// What it selects: open until the late answer comes.
    pub(super) on_success: Option<Box<OnSuccess>>,
    /// That it was judged by facts: until the late answer comes, or for a while.
    pub(super) reader: Option<Arc<FactReader>>,
    /// Its places in limits of calls in flight: until the late answer comes, or for a while.
    places: Option<Places>,
    why: Unanswered,
    /// Since when, as uptime.
    since: Duration,
    /// The memory of the call.
    _charge: Charge,
}

/// The requests that the server may still answer, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct OwedAnswers {
    calls: BTreeMap<u64, OwedAnswer>,
    ids: HashMap<Id, u64>,
    next: u64,
    /// The ends of those that count as in flight, oldest first, as uptime.
    counted: VecDeque<Duration>,
}

impl OwedAnswers {
    /// Remembers `entry`, unless it is no request. Of more than [`OWED_MAX`] requests the oldest is
    /// forgotten: its late answer is then withheld as one that nobody asked for.
    pub(super) fn keep(&mut self, entry: InFlightCall, why: Unanswered, now: Duration) {
        let InFlightCall {
            id,
            facts,
            exchange,
            redact,
            digest,
            on_success,
            reader,
            places,
            charge,
            ..
        } = entry;
        let Some(id) = id else { return };
        while self.calls.len() >= OWED_MAX {
            let Some((_, oldest)) = self.calls.pop_first() else { break };
            self.ids.remove(&oldest.id);
        }
        if why.counts() {
            self.counted.push_back(now);
        }
        let order = self.next;
        self.next = order.wrapping_add(1);
        self.ids.insert(id.clone(), order);
        let since = now;
        let owed = OwedAnswer {
            id,
            facts,
            exchange,
            redact,
            digest,
            on_success,
            reader,
            places,
            why,
            since,
            _charge: charge,
        };
        self.calls.insert(order, owed);
    }

    /// Whether a request with the keyed digest `digest` is one that the server rejected with an HTTP
    /// error status. A client may send it once more with other credentials, under the same id.
    pub(super) fn is_rejected(&self, id: &Id, digest: impl FnOnce() -> Text<Code>) -> bool {
        let owed = self.ids.get(id).and_then(|order| self.calls.get(order));
        let by_status = [Unanswered::Rejected, Unanswered::Unclear];
        let rejected = owed.filter(|owed| by_status.contains(&owed.why));
        rejected.is_some_and(|owed| owed.digest == Some(digest()))
    }

    /// How many of them count as in flight at uptime `now`.
    pub(super) fn counted(&mut self, now: Duration) -> usize {
        while self.counted.front().is_some_and(|end| now.saturating_sub(*end) >= COUNTS_FOR) {
            self.counted.pop_front();
        }
        self.counted.len()
    }

    /// What the requests of the exchange `within` select.
    pub(super) fn selections_of(
        &self,
        within: &CallId,
    ) -> impl Iterator<Item = Option<&OnSuccess>> {
        let of = self.calls.values().filter(move |owed| owed.exchange == *within);
        of.map(|owed| owed.on_success.as_deref())
    }

    /// Takes the request with this id, if it may be answered in the exchange `within`.
    pub(super) fn take(&mut self, id: &Id, within: Option<&CallId>) -> Option<OwedAnswer> {
        let order = *self.ids.get(id)?;
        let here = |owed: &OwedAnswer| within.is_none_or(|call| owed.exchange == *call);
        if !self.calls.get(&order).is_some_and(here) {
            return None;
        }
        self.remove(order)
    }

    /// Takes the only request of the exchange `within`, for an error without an id.
    pub(super) fn take_only(&mut self, within: &CallId) -> Option<OwedAnswer> {
        let mut of = self.calls.iter().filter(|(_, owed)| owed.exchange == *within);
        let (order, _) = of.next()?;
        let order = *order;
        if of.next().is_some() { None } else { self.remove(order) }
    }

    fn remove(&mut self, order: u64) -> Option<OwedAnswer> {
        let owed = self.calls.remove(&order)?;
        self.ids.remove(&owed.id);
        if let Some(places) = &owed.places {
            places.ended();
        }
        if owed.why.counts()
            && let Ok(at) = self.counted.binary_search(&owed.since)
        {
            self.counted.remove(at);
        }
        Some(owed)
    }
}

impl Session {
    /// Withholds the late answer `raw` to `owed`, and records it as that call's.
    pub(super) fn late_answer(
        &self,
        gate: &Gate,
        raw: &Bytes,
        owed: &OwedAnswer,
        now: Now,
    ) -> Step {
        let mut record = self.record_of(Event::Drop, &owed.facts, now);
        record.id = Some(id_text(&owed.id));
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(gate.digest(raw));
        record.decision = Some(gate.refused(&Refusal::Unsolicited, Some(owed.why.note())));
        Step::new(record.with_finding(Finding::UnsolicitedAnswer), Act::Drop)
    }

    /// Takes the redactions of the first attempt of a request that is sent once more.
    pub(super) fn first_attempt(&mut self, id: &Id) -> Vec<Redaction> {
        self.owed.take(id, None).map(|owed| owed.redact).unwrap_or_default()
    }
}
