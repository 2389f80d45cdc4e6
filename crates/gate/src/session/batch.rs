//! Batches (P7; JSON-RPC 2.0 §6; MCP 2025-03-26 alone): each message is decided as if it came
//! alone.
//!
//! A client's batch is forwarded only if every message may pass. It is decided on a copy of the
//! session, which replaces the session only then; events that a refused batch took from rate limits
//! are not given back. Of a server's batch, messages that may not pass are left out, as in a stream
//! of single messages. The transport names a client's batch by one call id of its own, the
//! exchange.

use std::sync::Arc;

use bytes::Bytes;

use crate::duty::duties::Duties;
use crate::duty::limit::Places;
use crate::evidence::record::{AuditRecord, CallId, Event, Finding, Now, Outcome};
use crate::evidence::refusal::{Refusal, malformed_position};
use crate::evidence::step::{
    Act, BatchedMessage, ClientBatch, Content, Payload, Permitted, Released, Routing, Status, Step,
};
use crate::question::readers::FactReader;
use crate::wire::frame::{Batch, Frame, Id, Malformed, Message, Sender, write_batch};
use crate::wire::headers::RoutingHeaders;
use crate::wire::method::Method;
use crate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};

use super::client::{Attempt, CallName};
use super::owed::Unanswered;
use super::payment::Paid;
use super::redelivery::Redelivery;
use super::{Arrival, CallFacts, Gate, InFlightCall, Session, id_text};

/// The only revision with batches.
const REVISION: Revision = Revision::V20250326;

/// A message of a client's batch, with the step that it would have alone.
struct DecidedMessage {
    reply_to: ReplyTo,
    step: Step,
}

/// Which answer a message of a client's batch gets.
enum ReplyTo {
    Never,
    /// An error with a null id: the message could not be read.
    WithoutId,
    Under(Id),
}

impl ReplyTo {
    fn id(&self) -> Option<&Id> {
        match self {
            Self::Under(id) => Some(id),
            Self::Never | Self::WithoutId => None,
        }
    }
}

impl Session {
    /// Whether an array of messages is read as a batch: the server's configuration allows it, and
    /// the conversation has the one revision with batches, or no revision yet. Over HTTP a server
    /// must assume that revision where nothing names another (MCP 2025-06-18, transports, "Protocol
    /// Version Header").
    pub(super) fn takes_batches(&self, headers: Option<&RoutingHeaders>) -> bool {
        let named = headers.and_then(|headers| headers.protocol_version.as_deref());
        let Protocol { revision, era, transport } = self.protocol;
        self.server.batches
            && transport == Transport::Http
            && era == Era::Legacy
            && named.is_none_or(|named| named == REVISION.as_str())
            && revision.is_none_or(|known| known == REVISION)
    }

    /// Handles a batch of the client. The act is `Forward` (the bytes as they came, except
    /// arguments that a rule sets) or `Deliver` (an array of refusals).
    pub(super) fn client_batch(
        &mut self,
        gate: &Gate,
        arrival: &Arrival,
        exchange: &CallId,
        now: Now,
    ) -> Step {
        let batch = match Batch::read(arrival.raw.clone(), &gate.config.frame) {
            Ok(batch) => batch,
            Err(malformed) => {
                return self.refuse_unread(gate, &arrival.raw, malformed, exchange, now);
            }
        };
        let mut trial = self.clone();
        trial.protocol.revision = Some(REVISION);
        let decided: Vec<_> = batch
            .elements()
            .map(|raw| trial.decide_batched(gate, &raw, arrival, exchange, now))
            .collect();
        let step = if decided.iter().all(|decided| decided.step.forwards()) {
            *self = trial;
            forward_batch(&batch, decided, exchange, self.protocol)
        } else {
            trial.server_got_nothing_of(exchange);
            // The trial may have ended calls of the session by a cancellation.
            let noted = self.calls.values().filter_map(|entry| entry.reader.as_deref());
            noted.for_each(FactReader::still_in_flight);
            let places = self.calls.values().filter_map(|entry| entry.places.as_ref());
            places.for_each(Places::still_in_flight);
            self.refused_batch(gate, decided)
        };
        let unrecorded = Refusal::unrecorded(self.addressee(None, exchange));
        match step {
            Some(step) => step.about(exchange).if_unrecorded(unrecorded),
            // Unreachable: a batch is not empty, and each message has a record.
            None => self.refuse_unread(gate, &arrival.raw, Malformed::BatchSize, exchange, now),
        }
    }

    /// Decides one message of a client's batch as if it came alone.
    fn decide_batched(
        &mut self,
        gate: &Gate,
        raw: &Bytes,
        arrival: &Arrival,
        exchange: &CallId,
        now: Now,
    ) -> DecidedMessage {
        let call = gate.next_call();
        let frame = match Frame::read(raw.clone(), Sender::Client, &gate.config.frame) {
            Ok(frame) => Arc::new(frame),
            Err(malformed) => {
                let step = self.refuse_unread(gate, raw, malformed, &call, now);
                return DecidedMessage { reply_to: ReplyTo::WithoutId, step };
            }
        };
        let id = match frame.message() {
            Message::Request { id, .. } => Some(id.clone()),
            Message::Notification { .. } | Message::Result { .. } | Message::Error { .. } => None,
        };
        let row = frame.message().method().and_then(Method::named);
        let alone = row.is_some_and(|row| !row.batched);
        let step = if alone || frame.claimed_version().is_some() {
            self.refuse_batched(gate, &frame, id.as_ref(), &call, now)
        } else {
            let (attempt, approvals, paid, leg) = (Attempt::First, &[][..], Paid::Nothing, None);
            let call = CallName { call: &call, exchange, attempt, approvals, paid, leg };
            self.client_message(gate, &frame, arrival, call, now)
        };
        DecidedMessage { reply_to: id.map_or(ReplyTo::Never, ReplyTo::Under), step }
    }

    fn refuse_batched(
        &self,
        gate: &Gate,
        frame: &Frame,
        id: Option<&Id>,
        call: &CallId,
        now: Now,
    ) -> Step {
        let mut facts = CallFacts::bare(call, Direction::ToServer, self.protocol);
        facts.method = frame.message().method().map(Into::into);
        let raw = frame.document().raw();
        let mut record = self.record_of(Event::Denial, &facts, now);
        record.id = id.map(id_text);
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(gate.digest(raw));
        record.decision = Some(gate.refused(&Refusal::Batched, None));
        let record = record.with_finding(Finding::MalformedFrame);
        let to = self.addressee(id, call);
        Step::new(record, Act::Deliver(Refusal::Batched.released(to)))
    }

    /// Refuses a batch: each refused message gets its own refusal, each other one `WithBatch`.
    fn refused_batch(&self, gate: &Gate, decided: Vec<DecidedMessage>) -> Option<Step> {
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let mut unasked = None;
        for DecidedMessage { reply_to, step } in decided {
            let (kept, act) = step.into_parts();
            let released = match act {
                Act::Deliver(released) => {
                    records.extend(kept);
                    released
                }
                Act::Hold(_) | Act::Drop => {
                    records.extend(kept);
                    continue;
                }
                Act::Forward(_) => {
                    let Some(record) = kept.into_iter().next() else { continue };
                    let record = refused_with_batch(gate, record);
                    let call = record.call.clone().unwrap_or_default();
                    let to = self.addressee(reply_to.id(), &call);
                    records.push(record);
                    Refusal::WithBatch.released(to)
                }
            };
            if matches!(reply_to, ReplyTo::Never) {
                unasked = unasked.or(Some(released));
            } else {
                answers.push((reply_to, released));
            }
        }
        let status = match answers.first() {
            Some((_, first)) if answers.iter().all(|(it, _)| it.id().is_none()) => first.status(),
            Some(_) | None => Status::Ok,
        };
        let refusals = answers.iter().map(|(_, released)| released.body());
        let act = match unasked {
            Some(released) if answers.is_empty() => Act::Deliver(released),
            Some(_) | None => {
                let body = write_batch(refusals);
                Act::Deliver(Released::issue_proof(body, Content::Batch, None, status, true))
            }
        };
        Step::of_all(records, act)
    }

    /// Handles a batch of the server. The act is `Deliver` (the bytes as they came, or without the
    /// messages that may not pass), `Drop`, or `Forward` (refusals of the server's requests).
    pub(super) fn server_batch(
        &mut self,
        gate: &Gate,
        within: Option<&CallId>,
        raw: &Bytes,
        redelivery: Redelivery,
        now: Now,
    ) -> Step {
        let limits = &gate.config.frame;
        let read = Batch::read(raw.clone(), limits).and_then(|batch| {
            let frames = batch.elements().map(|raw| Frame::read(raw, Sender::Server, limits));
            let frames = frames.collect::<Result<Vec<_>, _>>()?;
            Ok((batch, frames))
        });
        let (batch, frames) = match read {
            Ok(read) => read,
            Err(malformed) => {
                let place = malformed_position(&malformed, Direction::ToClient);
                let refusal = Refusal::Malformed(malformed);
                return self.withhold(gate, within, raw, (refusal, place), now);
            }
        };
        let mut records = Vec::new();
        let mut bodies = Vec::new();
        let mut refused = Vec::new();
        let mut updates = Vec::new();
        for frame in &frames {
            let mut step = if let Message::Error { id: None, .. } = frame.message() {
                // It is unknown which call of the exchange this error answers.
                self.unsolicited(gate, frame.document().raw(), "no id".to_owned(), now)
            } else {
                self.server_frame_read(gate, within, frame, redelivery, now)
            };
            updates.extend(step.take_updates());
            let (kept, act) = step.into_parts();
            records.extend(kept);
            match act {
                Act::Deliver(released) => bodies.push(released.body().clone()),
                Act::Forward(permitted) => refused.push(permitted),
                Act::Hold(_) | Act::Drop => {}
            }
        }
        let body =
            if bodies.len() == frames.len() { batch.with(&bodies) } else { write_batch(&bodies) };
        let back = refusals(&refused);
        let act = match back {
            Some(permitted) if bodies.is_empty() => Act::Forward(permitted),
            None if bodies.is_empty() => Act::Drop,
            back => {
                let released = Released::issue_proof(body, Content::Batch, None, Status::Ok, false);
                Act::Deliver(released.answering(back))
            }
        };
        let Some(step) = Step::of_all(records, act) else {
            // Unreachable: a batch is not empty, and each message has a record.
            let refusal = (Refusal::Malformed(Malformed::BatchSize), String::new());
            return self.withhold(gate, within, raw, refusal, now);
        };
        let call = within.map_or_else(|| gate.next_call(), Arc::clone);
        let unrecorded = Refusal::unrecorded(self.addressee(None, &call));
        step.if_unrecorded(unrecorded).updates(updates)
    }

    /// Ends every call of `exchange`, each with the step that `end` returns. Joins their records,
    /// and their answers into an array if the request was a batch. `None` if all have their
    /// outcome. `why` says why their requests got no answer.
    pub(super) fn end_exchange(
        &mut self,
        (exchange, why): (&CallId, Unanswered),
        now: Now,
        end: impl Fn(&Self, &InFlightCall) -> Step,
    ) -> Option<Step> {
        let ended = self.end_calls(exchange);
        let step = self.ended_exchange(exchange, &ended, end);
        self.keep_owed(ended, why, now);
        step
    }

    fn ended_exchange(
        &self,
        exchange: &CallId,
        ended: &[InFlightCall],
        end: impl Fn(&Self, &InFlightCall) -> Step,
    ) -> Option<Step> {
        if let [only] = ended
            && !only.is_batched()
        {
            return Some(end(self, only));
        }
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let mut unasked = None;
        for entry in ended {
            let (kept, act) = end(self, entry).into_parts();
            records.extend(kept);
            match act {
                Act::Deliver(released) if entry.id.is_some() => answers.push(released),
                Act::Deliver(released) => unasked = Some(released),
                Act::Forward(_) | Act::Hold(_) | Act::Drop => {}
            }
        }
        let act = match unasked {
            Some(released) if answers.is_empty() => Act::Deliver(released),
            None if answers.is_empty() => Act::Drop,
            Some(_) | None => {
                let body = write_batch(answers.iter().map(Released::body));
                Act::Deliver(Released::issue_proof(body, Content::Batch, None, Status::Ok, true))
            }
        };
        let unrecorded = Refusal::unrecorded(self.addressee(None, exchange));
        Some(Step::of_all(records, act)?.if_unrecorded(unrecorded))
    }

    /// Records the notifications of a batch as accepted, once the server answers the batch.
    pub(super) fn accept_notifications(&mut self, exchange: &CallId, now: Now) -> Vec<AuditRecord> {
        let told = |entry: &InFlightCall| entry.id.is_none() && entry.exchange == *exchange;
        let orders: Vec<_> =
            self.calls.iter().filter(|(_, entry)| told(entry)).map(|(order, _)| *order).collect();
        let negotiated_revision = orders.into_iter().filter_map(|order| self.end_call(order));
        let negotiated_revision: Vec<_> = negotiated_revision.collect();
        negotiated_revision
            .iter()
            .map(|entry| self.outcome_record(entry, Outcome::Accepted, now))
            .collect()
    }
}

/// Forwards a batch of which every message may pass; `None` if one may not.
fn forward_batch(
    batch: &Batch,
    decided: Vec<DecidedMessage>,
    exchange: &CallId,
    protocol: Protocol,
) -> Option<Step> {
    let mut records = Vec::new();
    let mut messages = Vec::new();
    let mut duties = Duties::default();
    let mut marks = Vec::new();
    for DecidedMessage { reply_to, mut step } in decided {
        marks.extend(step.take_marks());
        let (kept, act) = step.into_parts();
        let Act::Forward(permitted) = act else { return None };
        let begins = kept.iter().any(|record| record.event == Event::Intent);
        records.extend(kept);
        duties.merge(permitted.duties());
        messages.push(BatchedMessage {
            begins: begins.then(|| Arc::clone(permitted.call())),
            id: reply_to.id().cloned(),
            body: permitted.body().clone(),
        });
    }
    let bodies: Vec<_> = messages.iter().map(|message| message.body.clone()).collect();
    let payload = Payload::Batch(ClientBatch { body: batch.with(&bodies), messages });
    let call = Arc::clone(exchange);
    let permitted = Permitted::issue_proof(payload, protocol, call, Routing::default());
    Some(Step::of_all(records, Act::Forward(permitted.under(duties)))?.marking(marks))
}

/// The record of a message that is refused only because of its batch.
fn refused_with_batch(gate: &Gate, mut record: AuditRecord) -> AuditRecord {
    record.event = Event::Denial;
    record.decision = Some(gate.refused(&Refusal::WithBatch, None));
    record.outcome = None;
    record.duration_us = None;
    record
}

/// Joins refusals of a server's requests into one message to the server.
fn refusals(refused: &[Permitted]) -> Option<Permitted> {
    let first = refused.first()?;
    let body = match refused {
        [only] => only.body().clone(),
        several => write_batch(several.iter().map(Permitted::body)),
    };
    let (protocol, call) = (first.protocol(), Arc::clone(first.call()));
    Some(Permitted::issue_proof(Payload::Refusal(body), protocol, call, Routing::default()))
}
