//! Frames of the server: from bytes to the step that delivers or withholds them.

use std::sync::Arc;

use bytes::Bytes;

use crate::duty::duties::Duties;
use crate::duty::redact::Redaction;
use crate::evidence::record::{AuditRecord, CallId, Event, Now, Outcome};
use crate::evidence::refusal::{Addressee, KEPT_BYTES, Refusal, malformed_position};
use crate::evidence::step::{Act, Payload, Permitted, Routing, Step};
use crate::memory::Charge;
use crate::wire::document::Value;
use crate::wire::frame::{Frame, Id, Malformed, Message, OuterMembers, Sender};
use crate::wire::headers::{META_SERVER_INFO, META_SUBSCRIPTION_ID};
use crate::wire::method::{Method, Offer, Role};
use crate::wire::name::bad_name;
use crate::wire::protocol::{Direction, Era, Revision, Transport};

use super::answer::{EmbeddingMessage, task_problem};
use super::charges::CALL_BYTES;
use super::discharge::{ReasonedRefusal, denied_facts, enforce, finding_of, observed_record};
use super::expected::Declared;
use super::ids::alike;
use super::owed::Unanswered;
use super::question::{Lookups, Question};
use super::redaction::{redacted, redactions};
use super::redelivery::Redelivery;
use super::{
    CHALLENGE_DROPPED, CallFacts, ErrorAnswer, Gate, InFlightCall, ServerRequest, ServerState,
    Session, id_text, released, sizes,
};

impl Session {
    /// Handles a message of the server outside any exchange: on the legacy GET stream, or from a
    /// child process. The act is `Deliver`, `Drop`, or `Forward` (a refusal of the server's own
    /// request, which goes back to the server).
    pub fn server_frame(&mut self, gate: &Gate, raw: &Bytes, now: Now) -> Step {
        self.server_event(gate, None, raw, Redelivery::default(), now)
    }

    /// Handles a message of the server in the exchange of `call` (its HTTP answer, or an event of
    /// its stream). The only answer that may come here is that of `call`.
    pub fn server_answer(&mut self, gate: &Gate, call: &CallId, raw: &Bytes, now: Now) -> Step {
        self.server_event(gate, Some(call), raw, Redelivery::default(), now)
    }

    /// Handles a message of the server on a stream, in the exchange `within` or outside any.
    /// `redelivery` says whether the event may be redelivered, and whether it may be a redelivery.
    pub fn server_event(
        &mut self,
        gate: &Gate,
        within: Option<&CallId>,
        raw: &Bytes,
        redelivery: Redelivery,
        now: Now,
    ) -> Step {
        let frame = match Frame::read(raw.clone(), Sender::Server, &gate.config.frame) {
            Ok(frame) => frame,
            Err(Malformed::Batch) if self.takes_batches(None) => {
                return self.server_batch(gate, within, raw, redelivery, now);
            }
            Err(malformed) => {
                let place = malformed_position(&malformed, Direction::ToClient);
                let refusal = Refusal::Malformed(malformed);
                let answered = within.is_none().then(|| self.unread_answer(raw)).flatten();
                let within = answered.as_ref().or(within);
                return self.withhold(gate, within, raw, (refusal, place), now);
            }
        };
        self.server_frame_read(gate, within, &frame, redelivery, now)
    }

    /// The exchange of the request in flight that a server on a pipe has answered with something that
    /// cannot be read, as far as its id can.
    fn unread_answer(&self, raw: &Bytes) -> Option<CallId> {
        if self.protocol.transport != Transport::Stdio {
            return None;
        }
        let id = OuterMembers::of(raw).answers()?;
        let entry = self.calls.get(self.ids.get(&id)?)?;
        Some(Arc::clone(&entry.exchange))
    }

    /// Handles a message of the server that names no call, on a line that several sessions share:
    /// like [`Session::server_event`] outside any exchange. `duties` are those of every call that
    /// the server got on the line.
    pub fn server_stray(&mut self, gate: &Gate, duties: &Duties, raw: &Bytes, now: Now) -> Step {
        self.duties.merge(duties);
        self.server_event(gate, None, raw, Redelivery::default(), now)
    }

    /// Handles an HTTP error status for `call` with a body of JSON in UTF-8. A body that is a
    /// JSON-RPC answer is handled as the answer to `call`; any other body is replaced, as by
    /// [`Session::upstream_status`].
    pub fn server_error(
        &mut self,
        gate: &Gate,
        call: &CallId,
        answer: ErrorAnswer,
        now: Now,
    ) -> Option<Step> {
        let frame = Frame::read(answer.body.clone(), Sender::Server, &gate.config.frame);
        let judged = frame.ok().filter(|frame| frame.message().method().is_none());
        let Some(frame) = judged else { return self.upstream_status(gate, call, answer, now) };
        self.call_failed(call, answer.status, now);
        let of = |entry: &&InFlightCall| entry.exchange == *call;
        let calls = self.calls.values().map(|entry| &**entry);
        let asked: Vec<_> = calls.filter(of).cloned().collect();
        let step = self.server_frame_read(gate, Some(call), &frame, Redelivery::default(), now);
        if matches!(frame.message(), Message::Error { .. }) && !self.awaits(call) {
            self.keep_owed(asked, Unanswered::Rejected, now);
        }
        Some(if answer.challenge_dropped { step.noting(CHALLENGE_DROPPED) } else { step })
    }

    /// Handles one message of the server, which came alone or in a batch.
    pub(super) fn server_frame_read(
        &mut self,
        gate: &Gate,
        within: Option<&CallId>,
        frame: &Frame,
        redelivery: Redelivery,
        now: Now,
    ) -> Step {
        if redelivery.resumed
            && within.is_none()
            && let Some(step) = self.redelivery(gate, frame, now)
        {
            return step;
        }
        match frame.message() {
            Message::Result { .. } | Message::Error { .. } => {
                self.server_answers(gate, frame, within, redelivery, now)
            }
            Message::Request { method, .. } | Message::Notification { method } => {
                if Method::named(method).is_some_and(|row| row.role == Role::ToolsChanged) {
                    self.server.definitions_changed();
                }
                self.server_asks(gate, frame, (within, redelivery), method, now)
            }
        }
    }

    /// Withholds a frame. If a call of this exchange is in flight it ends with an error, so that
    /// the client does not wait for ever.
    pub(super) fn withhold(
        &mut self,
        gate: &Gate,
        within: Option<&CallId>,
        raw: &Bytes,
        (refusal, place): (Refusal, String),
        now: Now,
    ) -> Step {
        let explained = |mut record: AuditRecord| {
            record.bytes = u64::try_from(raw.len()).ok();
            record.digest = Some(gate.digest(raw));
            record.decision = Some(gate.refused(&refusal, Some(&place)));
            match refusal.finding() {
                Some(finding) => record.with_finding(finding),
                None => record,
            }
        };
        let ended = within.filter(|call| self.awaits(call)).and_then(|call| {
            self.end_exchange((call, Unanswered::Failed), now, |session, entry| {
                let mut record = session.outcome_record(entry, Outcome::Withheld, now);
                record.error_type = Some(refusal.code().into());
                let to = Self::reply_to(entry);
                let released = Refusal::Withheld.released(to.borrowed());
                Step::new(explained(record), Act::Deliver(released))
                    .if_unrecorded(Refusal::unrecorded(to.borrowed()))
            })
        });
        ended.unwrap_or_else(|| {
            let call = within.map_or_else(|| gate.next_call(), Arc::clone);
            let facts = CallFacts::bare(&call, Direction::ToClient, self.protocol);
            Step::new(explained(self.record_of(Event::Drop, &facts, now)), Act::Drop)
        })
    }

    fn server_answers(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        within: Option<&CallId>,
        redelivery: Redelivery,
        now: Now,
    ) -> Step {
        let id = frame.message().id();
        let mut also = Vec::new();
        let entry = match (within, id) {
            // An error without an id belongs to the exchange that it came in.
            (Some(call), None) => {
                let mut ended = self.end_calls(call).into_iter();
                let first = ended.next();
                also.extend(ended.map(|entry| self.outcome_record(&entry, Outcome::Error, now)));
                first
            }
            (Some(call), Some(id)) => {
                let mine = self
                    .ids
                    .get(id)
                    .and_then(|order| self.calls.get(order))
                    .is_some_and(|entry| entry.exchange == *call);
                if mine { self.end_request(id) } else { None }
            }
            (None, Some(id)) => self.end_request(id),
            (None, None) => None,
        };
        let raw = frame.document().raw();
        let Some(mut entry) = entry else { return self.unmatched(gate, frame, within, now) };
        let mut record = self.outcome_record(&entry, outcome_of(frame), now);
        if let Message::Error { code, .. } = frame.message() {
            record.error_type = Some(code.to_string().into());
        } else if record.outcome == Some(Outcome::ToolError) {
            record.error_type = Some("tool_error".into());
        }
        let settles = negotiated_revision(&entry, frame);
        if let Some(revision) = settles.filter(|revision| revision.era() == Era::Legacy) {
            self.protocol.revision = Some(revision);
        }
        self.identified(&entry, frame);
        let to = Self::reply_to(&entry);
        let unrecorded = Refusal::unrecorded(to.borrowed());
        let mut updates = None;
        self.call_answered((entry.on_success.as_deref(), entry.reader.as_deref()), frame, now);
        // The entry itself may be remembered.
        entry.places = None;
        also.extend(self.accept_notifications(&entry.exchange, now));
        let digest = gate.digest(raw);
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(digest.clone());
        let act = match self.judged(gate, frame, &mut entry, (&mut record, &mut also), now) {
            Ok(edited) => {
                if record.outcome == Some(Outcome::Ok) {
                    updates = self.pending_update(gate, &entry, frame, edited.as_ref(), now);
                }
                self.remember_elicitations(gate, frame);
                if redelivery.numbered {
                    self.remember(entry, &digest);
                }
                Act::Deliver(released(frame, edited).settling(settles))
            }
            Err(refusal) => {
                record.outcome = Some(Outcome::Withheld);
                Act::Deliver(refusal.released(to.borrowed()))
            }
        };
        Step::new(record, act).if_unrecorded(unrecorded).with_records(also).updates(updates)
    }

    /// Inspects the answer that came for `entry`. An error without an id may speak of another call,
    /// so it is redacted as any message is that names no call.
    ///
    /// # Errors
    ///
    /// The answer must be withheld; the refusal is for the client.
    fn judged(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        entry: &mut InFlightCall,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        if frame.message().id().is_none() {
            let duties = self.stray_duties();
            let Some(redactions) = duties.redactions() else {
                record.note = Some("more redactions than can be remembered".into());
                return Err(Refusal::Withheld);
            };
            for redaction in redactions {
                if !entry.redact.contains(redaction) {
                    entry.redact.push(redaction.clone());
                }
            }
        }
        self.inspect(gate, frame, entry, (record, also), now)
    }

    /// Notes what the server calls itself: in its answer to `initialize`, and in each result of the
    /// modern era (MCP 2026-07-28, `_meta`).
    fn identified(&self, entry: &InFlightCall, frame: &Frame) {
        let Some(result) = frame.result() else { return };
        let info = if entry.method.is_some_and(|method| method.role == Role::Handshake) {
            self.server.advise_listing();
            result.get("serverInfo")
        } else {
            result.get("_meta").and_then(|meta| meta.get(META_SERVER_INFO))
        };
        if let Some(info) = info {
            self.server.identified(info);
        }
    }

    /// Withholds an answer to no request in flight; as the late answer to a request that has ended,
    /// if it is one.
    fn unmatched(&mut self, gate: &Gate, frame: &Frame, within: Option<&CallId>, now: Now) -> Step {
        let (id, raw) = (frame.message().id(), frame.document().raw());
        let late = match (within, id) {
            (_, Some(id)) => self.owed.take(id, within),
            (Some(call), None) => self.owed.take_only(call),
            (None, None) => None,
        };
        if let Some(owed) = late {
            self.call_answered((owed.on_success.as_deref(), owed.reader.as_deref()), frame, now);
            return self.late_answer(gate, raw, &owed, now);
        }
        let place = id.map_or_else(|| "no id".to_owned(), |id| format!("id {}", id_text(id)));
        self.unsolicited(gate, raw, place, now)
    }

    /// Withholds an answer to no request in flight: late, repeated, forged, or of another exchange.
    pub(super) fn unsolicited(
        &mut self,
        gate: &Gate,
        raw: &Bytes,
        place: String,
        now: Now,
    ) -> Step {
        self.withhold(gate, None, raw, (Refusal::Unsolicited, place), now)
    }

    /// Handles a request or notification of the server, which the policy decides like the client's.
    fn server_asks(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        (within, redelivery): (Option<&CallId>, Redelivery),
        name: &str,
        now: Now,
    ) -> Step {
        let id = frame.message().id();
        let call = gate.next_call();
        let task = self.task(frame, name, Direction::ToClient);
        let known =
            Lookups { task: task.as_ref().and_then(|it| it.as_deref()), ..Lookups::default() };
        let question = Question::of(self, frame, name, Direction::ToClient, self.protocol, known);
        let facts = self.placed(question.facts(&call), within, id.filter(|_| task.is_none()), now);
        let mut record = self.record_of(id.map_or(Event::Notice, |_| Event::Intent), &facts, now);
        record.id = id.map(id_text);
        record.bytes = u64::try_from(frame.document().raw().len()).ok();
        let digest = gate.digest(frame.document().raw());
        record.digest = Some(digest.clone());
        if let Some(refusal) = self.refused_before_policy_to_client(gate, &question) {
            record.event = Event::Denial;
            record.decision = Some(gate.refused(&refusal, None));
            let id = id.filter(|id| self.is_answerable(&refusal, id, redelivery));
            return self.refuse_server(record, &refusal, id, &call);
        }
        let mut also = Vec::new();
        let decision = gate.policy().decide(&question.request(self, now));
        let mut redact = redactions(&decision, known.task);
        redact.extend(self.stray_duties().redactions().into_iter().flatten().cloned());
        let uncorrelated = self.uncorrelated(within, &question, &task).or_else(|| {
            let place = (within, &*redact);
            let why = self.refused_in_params(gate, place, (&question, &call), now, &mut also)?;
            record.note = Some(why.into());
            Some((Refusal::Withheld, "a question in it may not be asked"))
        });
        let (charge, spent) = self.charge_request(gate, id, &facts, &redact);
        let precheck = spent.or(uncorrelated).map(|(it, why)| ReasonedRefusal::of(it, why));
        record.set_input(gate.recorded(|| question.request(self, now)));
        let passed = enforce(gate, &question, &decision, precheck, None, now).and_then(
            |(set, verdict, seen, places)| {
                let document = set.as_ref().unwrap_or(frame).document();
                let redacted = redacted(gate, document, &redact, &mut record)
                    .map_err(|refusal| ReasonedRefusal::of(refusal, "it cannot be redacted"))?;
                let set = set.as_ref().map(|frame| frame.document().raw().clone());
                Ok((redacted.or(set), verdict, seen, places))
            },
        );
        let (edited, places) = match passed {
            Ok((edited, verdict, seen, places)) => {
                record = observed_record(record, verdict, seen.as_ref());
                (edited, places)
            }
            Err(refused) => {
                record.decision = Some(denied_facts(&decision, &refused, true));
                record.event = Event::Denial;
                let record = record.with_finding(finding_of(&refused.refusal));
                return self.refuse_server(record, &refused.refusal, id, &call).with_records(also);
            }
        };
        if let Some(id) = id {
            let charge = charge.unwrap_or_else(|| gate.memory().count(&self.principal.id, 0));
            let started = now.uptime;
            let asked = ServerRequest { started, facts, digest, redact, _places: places, charge };
            self.asked(gate, id, asked, &question);
        } else {
            also.extend(self.cancel_server_request(&question, now));
        }
        Step::new(record, Act::Deliver(released(frame, edited))).with_records(also)
    }

    /// Says in `facts` which call a message of the server came with, for records alone: `within`, or
    /// for a request `id` on a pipe, [`Session::only_call`].
    fn placed(
        &mut self,
        facts: CallFacts,
        within: Option<&CallId>,
        id: Option<&Id>,
        now: Now,
    ) -> CallFacts {
        let within = within.cloned().or_else(|| id.and_then(|_| self.only_call(now)));
        CallFacts { within, ..facts }
    }

    /// The call that a server which is a process of this session alone sends a request for: nothing
    /// on its pipe says so, so it is known only while the server has no other request at hand. A
    /// request that ended without an answer counts as such a request for a while.
    fn only_call(&mut self, now: Now) -> Option<CallId> {
        if self.server_state != ServerState::Process || self.owed.counted(now.uptime) > 0 {
            return None;
        }
        let calls = self.calls.values();
        let mut calls = calls.filter(|it| it.id.is_some() && it.forwarded.get().is_some());
        let only = calls.next()?;
        calls.next().is_none().then(|| Arc::clone(&only.facts.call))
    }

    /// The client is asked `question`, under `id`.
    fn asked(&mut self, gate: &Gate, id: &Id, asked: ServerRequest, question: &Question<'_>) {
        let elicits = question.row.is_some_and(|row| row.offer == Some(Offer::Elicitation));
        if let Some(params) = question.params.filter(|_| elicits) {
            self.remember_elicitation(gate, params);
        }
        self.server_requests.insert(id.clone(), asked);
    }

    /// Charges the principal for what is kept of a request of the server until it is answered. The
    /// second value says that there is no room.
    fn charge_request(
        &self,
        gate: &Gate,
        id: Option<&Id>,
        facts: &CallFacts,
        redact: &[Redaction],
    ) -> (Option<Charge>, Option<(Refusal, &'static str)>) {
        let Some(id) = id else { return (None, None) };
        let texts = sizes::id(id).saturating_add(facts.bytes());
        let bytes = texts.saturating_add(sizes::redactions(redact));
        match self.charge(gate, bytes.saturating_add(CALL_BYTES)) {
            Ok(charge) => (Some(charge), None),
            Err(refusal) => (None, Some((refusal, KEPT_BYTES))),
        }
    }

    /// Whether the server gets an answer to its request that is refused with `refusal`. MCP 2026-07-28
    /// has no requests of servers on any transport, so none is answered. A refusal under an id that
    /// is in flight would answer the other request, and a stream that is resumed repeats requests
    /// which have been answered.
    fn is_answerable(&self, refusal: &Refusal, id: &Id, redelivery: Redelivery) -> bool {
        let open = self.server_requests.contains_key(id) || redelivery.resumed;
        let duplicate = *refusal == Refusal::DuplicateId && open;
        self.protocol.era == Era::Legacy && !duplicate
    }

    /// Ends a request of the server that the server cancels before the client answered it, so that
    /// an answer is no longer accepted. `None` for any other notification.
    fn cancel_server_request(&mut self, question: &Question<'_>, now: Now) -> Option<AuditRecord> {
        question.row.filter(|row| row.role == Role::Cancel)?;
        let named = question.frame.named_id("requestId")?;
        let asked = self.end_server_request(&named)?;
        let mut record = self.record_of(Event::Outcome, &asked.facts, now);
        record.outcome = Some(Outcome::Cancelled);
        Some(record)
    }

    /// A notification about a task carries what an answer to `tasks/get` does, so the same checks
    /// apply; any other message of the server asks nothing in its `params`. Returns the reason if it
    /// must be withheld.
    fn refused_in_params(
        &self,
        gate: &Gate,
        (within, redact): (Option<&CallId>, &[Redaction]),
        (question, call): (&Question<'_>, &CallId),
        now: Now,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let tells = question.row.filter(|row| row.role == Role::TaskState && row.subscribed);
        let meta = question.params.and_then(|params| params.get("_meta"));
        let tag = meta.and_then(|meta| meta.get(META_SUBSCRIPTION_ID));
        let subscription = tells.and_then(|_| self.subscriptions(within, tag).next());
        let carrier = EmbeddingMessage {
            gate,
            frame: question.frame,
            call: subscription.map_or(call, |(entry, _)| &entry.facts.call),
            declared: subscription
                .map_or_else(Declared::default, |(entry, _)| entry.expected.declared),
            era: question.protocol.era,
            redact,
            now,
        };
        tells
            .and_then(|_| task_problem(question.params?))
            .or_else(|| self.refused_question(&carrier, also))
    }

    /// Returns why a message of the server is refused without asking the policy, if it is.
    fn refused_before_policy_to_client(
        &self,
        gate: &Gate,
        question: &Question<'_>,
    ) -> Option<Refusal> {
        if let Some(member) = bad_name(question.name, question.row, question.params) {
            return Some(Refusal::BadName(member));
        }
        let id = question.frame.message().id();
        let asks_modern = id.is_some() && self.protocol.era == Era::Modern;
        if asks_modern || question.is_misplaced() {
            return Some(Refusal::UnknownMethod);
        }
        let id = id?;
        if self.is_used_by_server(id) {
            Some(Refusal::DuplicateId)
        } else if !self.server_used.has_room(self.server_requests.len().saturating_add(1)) {
            Some(Refusal::SessionSpent)
        } else {
            (self.server_requests.len() >= gate.config.in_flight_max).then_some(Refusal::Busy)
        }
    }

    /// Whether the server has used this id, or one that reads alike, for a request in the session.
    fn is_used_by_server(&self, id: &Id) -> bool {
        let open = |id: &Id| self.server_requests.contains_key(id);
        open(id) || alike(id).as_ref().is_some_and(open) || self.server_used.contains(id)
    }

    /// Answers a refused request of the server, to the server; drops a refused notification.
    fn refuse_server(
        &self,
        record: AuditRecord,
        refusal: &Refusal,
        id: Option<&Id>,
        call: &CallId,
    ) -> Step {
        let Some(id) = id else { return Step::new(record, Act::Drop) };
        let to = Addressee {
            id: Some(id),
            decision_id: call,
            era: self.protocol.era,
            tool_result: false,
            told: None,
        };
        let (body, _, _) = refusal.message(to);
        let permitted = Permitted::issue_proof(
            Payload::Refusal(body),
            self.protocol,
            Arc::clone(call),
            Routing::default(),
        );
        Step::new(record, Act::Forward(permitted))
    }
}

fn outcome_of(frame: &Frame) -> Outcome {
    match frame.message() {
        Message::Error { .. } => Outcome::Error,
        Message::Result { .. } | Message::Request { .. } | Message::Notification { .. } => {
            let failed = frame.result().and_then(|result| result.get("isError"));
            if failed.and_then(Value::as_bool) == Some(true) {
                Outcome::ToolError
            } else {
                Outcome::Ok
            }
        }
    }
}

/// The revision that an answer to `initialize` negotiates, if it is one.
fn negotiated_revision(entry: &InFlightCall, frame: &Frame) -> Option<Revision> {
    entry.method.filter(|method| method.role == Role::Handshake)?;
    frame.result()?.get("protocolVersion").and_then(Value::as_str).and_then(Revision::parse)
}
