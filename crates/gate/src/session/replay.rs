//! What comes again on a resumed stream.
//!
//! A legacy client that lost its connection asks for the events after the last one that it took
//! (MCP 2025-11-25, transports, "Resumability and Redelivery"), and a server repeats them to the
//! byte. An answer that was delivered once is settled, but the client may never have got it. So a
//! session remembers the answers that could come again, and lets exactly those pass once more:
//! recorded as seen, with no second outcome, and inspected by the policy of now.

use crate::evidence::record::{AuditRecord, CallId, Event, Now, Outcome};
use crate::evidence::step::{Act, Step};
use crate::wire::frame::{Frame, Id, Message};

use super::redaction::redacted;
use super::{Call, CallFacts, Gate, Session, id_text, released};

/// Answers that a session remembers; one that was forgotten is withheld like any answer that
/// nobody waits for.
const ANSWERED_MAX: usize = 32;

/// How an event of a stream stands to resuming.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replay {
    /// It has an id, so it may come again.
    pub numbered: bool,
    /// Its stream goes on where another ended, so it may have come before.
    pub resumed: bool,
}

/// An answer that was delivered.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    call: Call,
    /// Of the server's bytes.
    digest: Box<str>,
}

impl Session {
    /// Forgets the answer to `call`.
    pub(super) fn forget_answer(&mut self, call: &CallId) {
        self.answered.retain(|seen| seen.call.facts.call != *call);
    }

    /// Remembers the answer to `call`, whose bytes have `digest`.
    pub(super) fn remember(&mut self, call: Call, digest: &str) {
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(Answered { call, digest: digest.into() });
    }

    /// The step for `frame`, if it came before to the byte and may come again: an answer that was
    /// delivered, or a request of the server that still waits for the client's answer.
    pub(super) fn replayed(&mut self, gate: &Gate, frame: &Frame, now: Now) -> Option<Step> {
        let id = frame.message().id()?;
        if matches!(frame.message(), Message::Request { .. }) {
            return self.asked_again(gate, frame, id, now);
        }
        // An id that is in flight again belongs to the new call.
        if self.ids.contains_key(id) {
            return None;
        }
        let digest = gate.digest(frame.document().raw());
        let answered = std::mem::take(&mut self.answered);
        let same = |seen: &&Answered| seen.call.id.as_ref() == Some(id) && seen.digest == digest;
        let step =
            answered.iter().find(same).map(|seen| self.answered_again(gate, frame, seen, now));
        // It may be lost again.
        self.answered = answered;
        step
    }

    fn answered_again(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        answered: &Answered,
        now: Now,
    ) -> Step {
        let Answered { call, digest } = answered;
        let mut record = self.again(&call.facts, frame, digest.clone(), now);
        record.id = call.id.as_ref().map(id_text);
        let mut also = Vec::new();
        let act = match self.inspected(gate, frame, call, (&mut record, &mut also), now) {
            Ok(edited) => {
                record.note = Some("an answer again, on a resumed stream".into());
                Act::Deliver(released(frame, edited))
            }
            Err(refusal) => {
                record.event = Event::Drop;
                record.outcome = Some(Outcome::Withheld);
                let to = Self::reply_to(call);
                Act::Deliver(refusal.released(to.borrowed()))
            }
        };
        Step::new(record, act).with_records(also)
    }

    fn asked_again(&self, gate: &Gate, frame: &Frame, id: &Id, now: Now) -> Option<Step> {
        let raw = frame.document().raw();
        let asked = self.server_requests.get(id)?;
        let digest = gate.digest(raw);
        if asked.digest != digest {
            return None;
        }
        let mut record = self.again(&asked.facts, frame, digest, now);
        record.id = Some(id_text(id));
        record.note = Some("a request of the server again, on a resumed stream".into());
        // It was redacted before, so it can be.
        let edited = redacted(gate, frame.document(), &asked.redact, &mut record).ok()?;
        Some(Step::new(record, Act::Deliver(released(frame, edited))))
    }

    fn again(&self, facts: &CallFacts, frame: &Frame, digest: Box<str>, now: Now) -> AuditRecord {
        let mut record = self.record_of(Event::Notice, facts, now);
        record.bytes = u64::try_from(frame.document().raw().len()).ok();
        record.digest = Some(digest);
        record
    }
}
