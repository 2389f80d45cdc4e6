//! Redelivery of messages on a resumed stream.
//!
//! A legacy client that lost its connection asks for the events after the last one that it received
//! (MCP 2025-11-25, transports, "Resumability and Redelivery"), and the server repeats them byte
//! for byte. An answer that was delivered has its outcome, but the client may never have received
//! it. So a session remembers the answers that may be redelivered and lets exactly those pass
//! again. A redelivery is recorded as a notice, not as a second outcome, and inspected with the
//! current policy.

use crate::evidence::record::{AuditRecord, CallId, Event, Now, Outcome};
use crate::evidence::step::{Act, Step};
use crate::evidence::text::{Code, Text};
use crate::wire::frame::{Frame, Id, Message};

use super::redaction::redacted;
use super::{CallFacts, Gate, InFlightCall, Session, id_text, released};

/// Answers that a session remembers for redelivery. The oldest is evicted first; a redelivery of an
/// evicted answer is withheld as unsolicited.
const ANSWERED_MAX: usize = 32;

/// Whether an event of a stream may be redelivered, or may be a redelivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redelivery {
    /// The event has an id, so the server may redeliver it.
    pub numbered: bool,
    /// Its stream resumes another one, so the event may be a redelivery.
    pub resumed: bool,
}

/// An answer that was delivered and may be redelivered.
#[derive(Debug, Clone)]
pub(super) struct DeliveredAnswer {
    call: InFlightCall,
    /// The keyed digest of the server's bytes.
    digest: Text<Code>,
}

impl Session {
    /// Removes the answer to `call`, because its record could not be kept.
    pub(super) fn forget_answer(&mut self, call: &CallId) {
        self.answered.retain(|seen| seen.call.facts.call != *call);
    }

    /// Remembers the answer to `call`, whose bytes have the keyed digest `digest`.
    pub(super) fn remember(&mut self, call: InFlightCall, digest: &Text<Code>) {
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(DeliveredAnswer { call, digest: digest.clone() });
    }

    /// Returns the step for `frame` if it is a redelivery, byte for byte: of an answer that was
    /// delivered, or of a request of the server that is still in flight.
    pub(super) fn redelivery(&mut self, gate: &Gate, frame: &Frame, now: Now) -> Option<Step> {
        let id = frame.message().id()?;
        if matches!(frame.message(), Message::Request { .. }) {
            return self.redeliver_request(gate, frame, id, now);
        }
        // The client uses the id for a new request, so an answer to it is not a redelivery.
        if self.ids.contains_key(id) {
            return None;
        }
        let digest = gate.digest(frame.document().raw());
        let answered = std::mem::take(&mut self.answered);
        let same =
            |seen: &&DeliveredAnswer| seen.call.id.as_ref() == Some(id) && seen.digest == digest;
        let step =
            answered.iter().find(same).map(|seen| self.redeliver_answer(gate, frame, seen, now));
        // The redelivery may be lost too, so keep the answer.
        self.answered = answered;
        step
    }

    fn redeliver_answer(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        answered: &DeliveredAnswer,
        now: Now,
    ) -> Step {
        let DeliveredAnswer { call, digest } = answered;
        let mut record = self.redelivery_record(&call.facts, frame, digest.clone(), now);
        record.id = call.id.as_ref().map(id_text);
        let mut also = Vec::new();
        let act = match self.inspect(gate, frame, call, (&mut record, &mut also), now) {
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

    fn redeliver_request(&self, gate: &Gate, frame: &Frame, id: &Id, now: Now) -> Option<Step> {
        let raw = frame.document().raw();
        let asked = self.server_requests.get(id)?;
        let digest = gate.digest(raw);
        if asked.digest != digest {
            return None;
        }
        let mut record = self.redelivery_record(&asked.facts, frame, digest, now);
        record.id = Some(id_text(id));
        record.note = Some("a request of the server again, on a resumed stream".into());
        // The same bytes were redacted at the first delivery, so this cannot fail.
        let edited = redacted(gate, frame.document(), &asked.redact, &mut record).ok()?;
        Some(Step::new(record, Act::Deliver(released(frame, edited))))
    }

    fn redelivery_record(
        &self,
        facts: &CallFacts,
        frame: &Frame,
        digest: Text<Code>,
        now: Now,
    ) -> AuditRecord {
        let mut record = self.record_of(Event::Notice, facts, now);
        record.bytes = u64::try_from(frame.document().raw().len()).ok();
        record.digest = Some(digest);
        record
    }
}
