//! Frames of the client: from bytes to the step that forwards or refuses them.

use std::sync::Arc;

use bytes::Bytes;

use crate::duty::decision::Listing;
use crate::duty::decision::{Decision, Effect, Engine, Origin};
use crate::duty::duties::Duties;
use crate::duty::limit::Places;
use crate::duty::pdp::ListEntry;
use crate::duty::pdp::RecordedInput;
use crate::duty::redact::Redaction;
use crate::evidence::record::{
    ApprovalFacts, AuditRecord, CallId, DecisionFacts, Event, Finding, Now, Outcome, RedactionFacts,
};
use crate::evidence::refusal::{Addressee, Refusal, malformed_position};
use crate::evidence::step::{Act, ForwardedAt, Permitted, Routing, Step};
use crate::memory::Charge;
use crate::question::access::Resource;
use crate::question::access::Server;
use crate::question::hold::{Approval, Hold};
use crate::question::operation::Operation;
use crate::question::pack;
use crate::question::readers::FactReader;
use crate::question::routing::{self, HeaderMismatch};
use crate::question::status::DefinitionStatus;
use crate::session::definitions::ToolDefinition;
use crate::session::protected::RefusalForm;
use crate::wire::document::{Document, Value};
use crate::wire::frame::{Frame, Id, Malformed, Message, OuterMembers, write_id};
use crate::wire::headers::{self, RoutingHeaders};
use crate::wire::method::{Action, List, Method, Role, Subject};
use crate::wire::name::bad_name;
use crate::wire::protocol::{Direction, Era, Transport};

use super::charges::CALL_BYTES;
use super::discharge::{ReasonedRefusal, denied_facts, enforce, limits, reason, told};
use super::expected::{Expected, reads_alike};
use super::holds::{Asker, HeldCall};
use super::ids::alike;
use super::legs::{Leg, Resumes};
use super::owed::Unanswered;
use super::payment::{Paid, Payment};
use super::question::{Lookups, Question, client_of, protocol_of};
use super::redaction::redactions;
use super::{Arrival, CallFacts, Gate, InFlightCall, Session, id_text, sizes};

/// Resources that one `subscriptions/listen` may name; the policy is asked about each.
const LISTEN_URIS_MAX: usize = 256;

/// A client's `notifications/cancelled`, up to the id that it names.
const WITHDRAWAL: &[u8] =
    br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;

impl Session {
    /// Handles a message of the client. The act is `Forward`, `Deliver` (a refusal) or `Drop`.
    pub fn client_frame(&mut self, gate: &Gate, arrival: &Arrival, now: Now) -> Step {
        self.client_arrival(gate, arrival, Attempt::First, now)
    }

    /// Handles a message of the client that is sent once more, because the server no longer knew
    /// the session and did nothing with the first attempt. The client sent it once, so its id is
    /// no second use, and the redactions of the first attempt hold for the second. A repeated
    /// `initialize` begins a session of the server in which the server counts its ids anew.
    pub fn client_frame_again(&mut self, gate: &Gate, arrival: &Arrival, now: Now) -> Step {
        self.client_arrival(gate, arrival, Attempt::Again, now)
    }

    /// Judges a held request once more, with the approvals that were granted and spent for it, and
    /// with the places that were [reserved](Session::reserve) for it. The act is any of
    /// [`Session::client_frame`]'s: `Forward`; `Hold` where another rule holds it, or where what is
    /// held has changed; a refusal. `None` if it no longer waits: it was cancelled.
    pub fn client_frame_approved(
        &mut self,
        gate: &Gate,
        arrival: &Arrival,
        call: &CallId,
        (approvals, reserved): (&[Approval], Option<&Places>),
        now: Now,
    ) -> Option<Step> {
        let held = self.take_held(call)?;
        let paid = Paid::Held { payment: &held.payment, reserved };
        Some(match self.read_frame(gate, &arrival.raw, now) {
            Ok((frame, leg)) => {
                let (attempt, leg) = (Attempt::Held, leg.as_ref());
                let call = CallName { call, exchange: call, attempt, approvals, paid, leg };
                self.client_message(gate, &Arc::new(frame), arrival, call, now)
            }
            // The same bytes were read before.
            Err(malformed) => self.refuse_unread(gate, &arrival.raw, malformed, call, now),
        })
    }

    /// Decides whether the server is told that the client of `call` no longer waits, where nothing
    /// but a message tells it: the client's own `notifications/cancelled` takes the usual way. The
    /// call stays in flight; the edge settles it. The act is `Forward`, or anything else if nothing
    /// may be sent. `None` if `call` has its outcome already.
    pub fn withdraw(&mut self, gate: &Gate, call: &CallId, now: Now) -> Option<Step> {
        let mut entries = self.calls.values().filter(|entry| entry.exchange == *call);
        let id = entries.find_map(|entry| entry.id.as_ref())?;
        let mut raw = Vec::from(WITHDRAWAL);
        write_id(&mut raw, id);
        raw.extend_from_slice(b"}}");
        let arrival = Arrival { raw: raw.into(), ..Arrival::default() };
        Some(self.client_arrival(gate, &arrival, Attempt::ForGone, now).at_once())
    }

    fn client_arrival(
        &mut self,
        gate: &Gate,
        arrival: &Arrival,
        attempt: Attempt,
        now: Now,
    ) -> Step {
        let call = gate.next_call();
        self.sender.named(|| gate.conversation());
        let Arrival { raw, headers, .. } = arrival;
        match self.read_frame(gate, raw, now) {
            Ok((frame, leg)) => {
                let (call, leg) = (&call, leg.as_ref());
                let again = attempt == Attempt::Again;
                let paid = if again { Paid::Rates } else { Paid::Nothing };
                let (exchange, approvals) = (call, &[][..]);
                let call = CallName { call, exchange, attempt, approvals, paid, leg };
                self.client_message(gate, &Arc::new(frame), arrival, call, now)
            }
            Err(Malformed::Batch) if self.takes_batches(headers.as_ref()) => {
                self.client_batch(gate, arrival, &call, now)
            }
            Err(malformed) => self.refuse_unread(gate, raw, malformed, &call, now),
        }
    }

    /// Handles one message, which came alone or in a batch.
    pub(super) fn client_message(
        &mut self,
        gate: &Gate,
        frame: &Arc<Frame>,
        Arrival { headers, traceparent, may_wait, .. }: &Arrival,
        CallName { call, exchange, attempt, approvals, paid, leg }: CallName<'_>,
        now: Now,
    ) -> Step {
        let protocol = protocol_of(self.protocol, frame, headers.as_ref());
        let (id, name) = match frame.message() {
            Message::Request { id, method } => (Some(id), &**method),
            Message::Notification { method } => (None, &**method),
            Message::Result { id } => {
                return self.client_answers(gate, frame, Some(id), call, now);
            }
            Message::Error { id, .. } => {
                return self.client_answers(gate, frame, id.as_ref(), call, now);
            }
        };
        let row = Method::named(name);
        let tool = called_tool(frame, row);
        let known_tool = tool.map(|tool| self.server.status(tool, &self.principal.id));
        let known_tool = known_tool.unwrap_or_default();
        let definition = known_tool.definition.clone();
        let task = self.task(frame, name, Direction::ToServer);
        let server = Arc::clone(&self.server);
        let principal = Arc::clone(&self.principal);
        let state = Arc::clone(&self.state);
        let known = Lookups {
            handles: Some(self.known_handles((&server, &principal), &state, now)),
            definition: definition.as_deref(),
            task: task.as_ref().and_then(|task| task.as_deref()),
            status: DefinitionStatus {
                drift: known_tool.drift,
                flags: &known_tool.flags,
                text: known_tool.definition.as_deref().and_then(|it| it.text.as_deref()),
            },
        };
        let mut question = Question::of(self, frame, name, Direction::ToServer, protocol, known);
        let mut facts = question.facts(call);
        facts.approval = ApprovalFacts::spent(approvals).map(Arc::new);
        facts.sent_under(traceparent.as_deref().and_then(super::question::TraceContext::parse));
        let redact = Vec::new();
        let mut message = ClientMessage {
            gate,
            frame,
            row,
            id,
            facts,
            exchange,
            attempt,
            redact,
            now,
            input: None,
            removed: None,
            reader: None,
            places: None,
        };

        if let Some(headers) = headers {
            let parameters = definition.as_deref().map_or(&[][..], |tool| &tool.parameters);
            let checked = routing::check(frame, headers, protocol.era, question.method, parameters);
            if let Err(mismatch) = checked {
                return self.refuse(&message, &Refusal::Headers(mismatch), None);
            }
        }
        if let Some(member) = bad_name(name, row, frame.params()) {
            return self.refuse(&message, &Refusal::BadName(member), None);
        }
        if let Some(refusal) = self.refused_before_policy(&message, &question) {
            return self.refuse(&message, &refusal, None);
        }
        // Only a message that is read as the server will read it tells about the conversation.
        self.protocol = protocol;
        if let Some(client) = client_of(frame).filter(|client| self.client.as_ref() != Some(client))
        {
            self.sender.calls_itself(&client);
            self.client = Some(client);
        }

        if row.is_some_and(|row| row.role == Role::Cancel)
            && let Some(step) = self.cancel_held(frame, now)
        {
            return step;
        }
        match self.own_task(&message, &question) {
            Some(Ok(step)) => return step,
            Some(Err(refusal)) => return self.refuse(&message, &refusal, None),
            None => {}
        }
        question.approval = approvals.last();
        let (session_facts, reader) = self.facts_to_judge_by(gate, &question, now);
        question.session_facts = Some(session_facts);
        message.reader = reader.map(Arc::new);
        let decision = self.decision(gate, &question, now);
        message.redact = redactions(&decision, known.task);
        message.input = gate.recorded(|| question.request(self, now));
        let precheck = self.task_refusal(&question, &task);
        // What is removed from the answers that the request carries; noted in its record.
        let mut removed = AuditRecord::new(Event::Intent, now);
        let asker = Asker { session: &*self, call, approvals, paid };
        let enforced = enforce(gate, &question, &decision, precheck, Some(asker), now).and_then(
            |(set, verdict, observed, places)| {
                let passing = set.as_ref().unwrap_or(frame);
                let edited = self.judged_responses(gate, passing, &question, &mut removed, now)?;
                Ok((edited.or(set), verdict, observed, places))
            },
        );
        message.removed = removed.redacted;
        let (edited, verdict, observed, places) = match enforced {
            Ok(enforced) => enforced,
            Err(mut refused) => {
                let waits = *may_wait && id.is_some() && call == exchange;
                if let Some(hold) = refused.hold.take().filter(|_| waits) {
                    let tool = matches!(question.resource, Resource::Tool { .. });
                    return self.held(&message, &decision, (hold, &refused), (tool, leg, paid));
                }
                let mut verdict = denied_facts(&decision, &refused, true);
                let hidden = self.hide_existence(gate, &question, &refused.refusal, now);
                verdict.told = told(&decision, &refused, hidden.is_some());
                let hidden = hidden.filter(|_| verdict.told.is_none());
                let refusal = hidden.unwrap_or(refused.refusal);
                let finding =
                    refusal.finding().unwrap_or_else(|| pin_finding(&self.server.facts, &question));
                return self.refuse(&message, &refusal, Some((verdict, Some(finding))));
            }
        };
        message.places = places;
        let routing =
            routing_of(&question, definition.as_deref(), edited.as_ref(), headers.as_ref());
        self.forward(&message, &question, (verdict, observed), edited, routing)
    }

    /// Returns why a message is refused without asking the policy, if it is.
    fn refused_before_policy(
        &mut self,
        message: &ClientMessage<'_>,
        question: &Question<'_>,
    ) -> Option<Refusal> {
        let id = message.id;
        let modern = question.protocol.era == Era::Modern;
        // Over a pipe, a modern conversation does not make a request modern: a server that reads
        // each request by itself would take this one for a legacy one (threat E2).
        if modern && id.is_some() && question.frame.claimed_version().is_none() {
            return Some(Refusal::Headers(HeaderMismatch::NoMeta));
        }
        // This includes a modern handshake. A server that accepted one would use the legacy era
        // from here on, while the client and the gate use the modern one.
        if question.is_misplaced() {
            return Some(Refusal::UnknownMethod);
        }
        self.out_of_turn(message)
    }

    /// Returns why a message is refused by what the session has seen before, if it is.
    fn out_of_turn(&mut self, message: &ClientMessage<'_>) -> Option<Refusal> {
        let ClientMessage { gate, frame, row, id, attempt, now, .. } = *message;
        let repeats = |id| self.owed.is_rejected(id, || gate.digest(frame.document().raw()));
        let again = attempt == Attempt::Again || id.is_some_and(repeats);
        let role = row.map(|row| row.role);
        if id.is_some_and(|id| self.is_used(id, again)) {
            return Some(Refusal::DuplicateId);
        }
        let held = |id: &Id| self.holds_id(id);
        if role == Some(Role::Cancel)
            && self.cancelled_by(frame).is_none()
            && !frame.named_id("requestId").as_ref().is_some_and(held)
        {
            return Some(Refusal::NotInFlight);
        }
        let token = frame.progress_token().filter(|_| id.is_some() && !again);
        if token.is_some_and(|token| self.is_token_used(&token)) {
            return Some(Refusal::TokenInUse);
        }
        let open = self.ids.len().saturating_add(self.held.len()).saturating_add(1);
        if id.is_some() && !(self.used.has_room(open) && self.owed_tokens.has_room(open)) {
            return Some(Refusal::SessionSpent);
        }
        let in_flight = self.calls.len().saturating_add(self.owed.counted(now.uptime));
        let in_flight = in_flight.saturating_add(self.held.len());
        let most = gate.config.in_flight_max;
        // A cancellation takes the place of the request that it ends.
        (in_flight >= most && role != Some(Role::Cancel)).then_some(Refusal::Busy)
    }

    /// Whether the client has used this id, or one that reads alike, for a request in the session
    /// (MCP, basic, "Requests"). `again`: the request is the first attempt's own repetition.
    fn is_used(&self, id: &Id, again: bool) -> bool {
        let open = |id: &Id| self.ids.contains_key(id);
        open(id)
            || alike(id).as_ref().is_some_and(open)
            || self.holds_id(id)
            || (!again && self.used.contains(id))
    }

    /// Whether progress with this token may belong to another request: one in flight, one that
    /// ended without an answer, or a task.
    fn is_token_used(&self, token: &Id) -> bool {
        let same = |other: &Id| reads_alike(token, other);
        let mut open = self.calls.values().filter_map(|entry| entry.expected.token.as_ref());
        open.any(same)
            || self.holds_token(token)
            || self.task_tokens.iter().any(|(token, _)| same(token))
            || self.owed_tokens.contains(token)
    }

    /// The key of the request that a cancellation names: one in flight, and not `initialize`, which
    /// a client must not cancel (MCP 2025-11-25, cancellation, "Behavior Requirements").
    fn cancelled_by(&self, frame: &Frame) -> Option<u64> {
        let order = *self.ids.get(&frame.named_id("requestId")?)?;
        let method = self.calls.get(&order)?.method;
        method.is_none_or(|method| method.role != Role::Handshake).then_some(order)
    }

    /// Asks the policy. `subscriptions/listen` reads each resource that it names, so the policy
    /// must permit each of them, and the request as a whole.
    fn decision(&self, gate: &Gate, question: &Question<'_>, now: Now) -> Decision {
        let policy = gate.policy();
        let mut decision = policy.decide(&question.request(self, now));
        let Resource::Uris(uris) = question.resource else { return decision };
        if uris.len() > LISTEN_URIS_MAX {
            let why =
                reason("too_many_uris", "more resources than one call may name", Origin::Protocol);
            return Decision::deny(policy.revision(), Engine::None, why);
        }
        for uri in uris.elements().filter_map(Value::as_str) {
            if decision.effect == Effect::Deny {
                break;
            }
            let mut request = question.request(self, now);
            request.resource = Resource::Uri(uri);
            let one = policy.decide(&request);
            if one.effect == Effect::Deny {
                return one;
            }
            for obligation in one.obligations {
                if !decision.obligations.contains(&obligation) {
                    decision.obligations.push(obligation);
                }
            }
        }
        decision
    }

    /// What replaces a denial so that a hidden tool answers like one that does not exist, and so does
    /// a method that the negotiated revision does not define; `None` where nothing is hidden.
    fn hide_existence(
        &self,
        gate: &Gate,
        question: &Question<'_>,
        refusal: &Refusal,
        now: Now,
    ) -> Option<Refusal> {
        if *refusal != Refusal::Denied {
            return None;
        }
        if question.action() == Action::Unknown {
            return Some(Refusal::UnknownMethod);
        }
        let Resource::Tool { name, definition, status, .. } = question.resource else {
            return None;
        };
        let mut request = question.request(self, now);
        request.method = List::Tools.method().name;
        request.action = List::Tools.method().action;
        request.resource = Resource::Whole;
        request.params = None;
        request.operation = Arc::new(Operation::of_method(pack::Effect::Read));
        let limits = &gate.config.frame.document;
        let text = status.text.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let listed = text.and_then(|text| Document::read(text, limits).ok());
        let entry = ListEntry {
            name,
            operation: Some(Operation::of_tool(self.server.facts.pack.as_deref(), name)),
            digest: definition.unwrap_or_default(),
            definition: listed.as_ref().map(Document::root),
            status,
        };
        match gate.policy().list(&request, &[entry]) {
            Listing::Hide { names, .. } if names.iter().any(|hidden| **hidden == *name) => {
                Some(Refusal::UnknownTool(name.into()))
            }
            Listing::Hide { .. } | Listing::Withhold { .. } => None,
        }
    }

    /// Keeps a request that a rule holds, until a person has answered.
    fn held(
        &mut self,
        message: &ClientMessage<'_>,
        decision: &Decision,
        (hold, refused): (Box<Hold>, &ReasonedRefusal),
        (calls_tool, leg, paid): (bool, Option<&Leg>, Paid<'_>),
    ) -> Step {
        let Some(id) = message.id else {
            return self.refuse(message, &Refusal::ApprovalRequired, None);
        };
        let raw = message.frame.document().raw();
        let protocol = message.facts.protocol;
        let asks_back = message.row.is_some_and(|row| row.asks_back);
        let (resumes, takes_task) = if asks_back && protocol.era == Era::Modern {
            let declared = Expected::of(message.frame, message.row, protocol).declared;
            let takes_task = calls_tool && declared.tasks;
            (Resumes::of(message.frame, leg, declared), takes_task)
        } else {
            (None, false)
        };
        let carried = resumes.as_ref().map_or(0, Resumes::bytes);
        let (earlier, reserved) = (refused.paid.as_deref(), None);
        let paid = earlier.map_or(paid, |payment| Paid::Held { payment, reserved });
        let limits = limits(&decision.obligations);
        let payment = Payment::of(paid, limits, &hold, message.now.uptime);
        let shown = hold.all().map(|hold| hold.shown.len()).fold(0, usize::saturating_add);
        let bytes = [CALL_BYTES, raw.len(), shown, message.facts.bytes(), carried, payment.bytes()]
            .into_iter()
            .fold(sizes::id(id).saturating_mul(2), usize::saturating_add);
        let charge = match self.charge(message.gate, bytes) {
            Ok(charge) => charge,
            Err(refusal) => return self.refuse(message, &refusal, None),
        };
        let mut verdict = denied_facts(decision, refused, true);
        verdict.effect = "permit";
        verdict.told = told(decision, refused, false);
        for hold in hold.all() {
            verdict.obligations.push(format!("hold:{}", hold.code));
        }
        let mut record = self.record_of(Event::Hold, &message.facts, message.now);
        message.describe(&mut record);
        record.decision = Some(verdict.clone());
        self.held.push(HeldCall {
            id: id.clone(),
            token: message.frame.progress_token(),
            started: message.now.uptime,
            facts: message.facts.clone(),
            verdict,
            digest: message.gate.digest(raw),
            bytes: raw.len(),
            calls_tool,
            takes_task,
            resumes,
            payment,
            _charge: charge,
        });
        let unrecorded = Refusal::unrecorded(message.addressee());
        Step::new(record.with_finding(Finding::ApprovalRequested), Act::Hold(hold))
            .if_unrecorded(unrecorded)
    }

    /// Forwards a message of the client: adds it to the calls in flight, and creates its record
    /// and its [`Permitted`].
    fn forward(
        &mut self,
        message: &ClientMessage<'_>,
        question: &Question<'_>,
        (verdict, observed): (DecisionFacts, Option<Refusal>),
        edited: Option<Frame>,
        routing: Routing,
    ) -> Step {
        let call = Arc::clone(&message.facts.call);
        let begins = message.row.is_some_and(|row| row.role == Role::Handshake);
        if begins && message.attempt != Attempt::Again {
            self.sender.begins(message.gate.conversation());
        }
        let mut record = self.record_of(Event::Intent, &message.facts, message.now);
        message.describe(&mut record);
        record.decision = Some(verdict);
        if let Some(refusal) = observed {
            let pinned = || pin_finding(&self.server.facts, question);
            record = record.with_finding(refusal.finding().unwrap_or_else(pinned));
        }
        let expected = Expected::of(message.frame, question.method, question.protocol);
        let mut charge = match self.charge_call(message, question, &expected) {
            Ok(charge) => charge,
            Err(refusal) => return self.refuse(message, &refusal, None),
        };
        let reader = message.reader.as_deref();
        let now = message.now;
        let on_success = self.on_success(message.gate, question, (edited.as_ref(), reader), now);
        let Ok(on_success) = on_success else {
            return self.refuse(message, &Refusal::FactInUse, None);
        };
        let cancelled = self.cancels(message);
        let mut redact = message.redact.clone();
        redact.extend(message.id.map(|id| self.first_attempt(id)).unwrap_or_default());
        self.add_duties(message.gate, &redact, &mut charge);
        let duties = Duties::of(&redact);
        if begins {
            self.begins_anew();
            if message.attempt == Attempt::Again {
                self.server_used.clear();
            }
        }
        // Without room nothing is learnt from the answer, so it stays unknown.
        let on_success = on_success.filter(|on_success| {
            let more = sizes::on_success(on_success);
            charge.resize(charge.bytes().saturating_add(more)).is_ok()
        });
        let mark = self.track(InFlightCall {
            id: message.id.cloned(),
            started: message.now.uptime,
            forwarded: ForwardedAt::default(),
            facts: message.facts.clone(),
            exchange: Arc::clone(message.exchange),
            epoch: self.epoch(),
            method: question.method,
            operation: Arc::clone(&question.operation),
            expected,
            redact,
            digest: record.digest.clone(),
            on_success,
            reader: message.reader.clone(),
            places: message.places.clone(),
            charge,
        });
        let frame = (message.frame, edited);
        let (sent, routing) = self.propagated(message.gate, frame, &message.facts, routing);
        let permitted = Permitted::issue_proof(sent, question.protocol, call, routing);
        let step = Step::new(record, Act::Forward(permitted.under(duties))).marking([mark]);
        step.if_unrecorded(Refusal::unrecorded(message.addressee())).with_records(cancelled)
    }

    /// Charges the principal for what is kept of a message until it has its answer, and for what
    /// remains of it then (threat K10). A cancellation ends more than it adds, so it is never
    /// refused.
    fn charge_call(
        &self,
        message: &ClientMessage<'_>,
        question: &Question<'_>,
        expected: &Expected,
    ) -> Result<Charge, Refusal> {
        let parts = [
            // In the table of calls, in that of ids, and in the table of what is owed.
            message.id.map_or(0, |id| sizes::id(id).saturating_mul(3)),
            message.facts.bytes(),
            // For the call, and for the session's duties.
            sizes::redactions(&message.redact).saturating_mul(2),
            sizes::operation(&question.operation),
            expected.bytes(),
            message.reader.as_ref().map_or(0, |reader| reader.bytes()),
            message.places.as_ref().map_or(0, Places::bytes),
        ];
        let bytes = parts.into_iter().fold(CALL_BYTES, usize::saturating_add);
        if message.row.is_some_and(|row| row.role == Role::Cancel) {
            return Ok(message.gate.memory().count(&self.principal.id, bytes));
        }
        self.charge(message.gate, bytes)
    }

    /// If this is a cancellation, ends the request that it names. An answer that still comes is
    /// withheld, and recorded as the answer to that request.
    fn cancels(&mut self, message: &ClientMessage<'_>) -> Option<AuditRecord> {
        let cancels = message.row.is_some_and(|row| row.role == Role::Cancel);
        if !cancels || message.attempt == Attempt::ForGone {
            return None;
        }
        let entry = self.end_call(self.cancelled_by(message.frame)?)?;
        let record = self.outcome_record(&entry, Outcome::Cancelled, message.now);
        self.keep_owed([entry], Unanswered::Cancelled, message.now);
        Some(record)
    }

    fn refuse(
        &mut self,
        message: &ClientMessage<'_>,
        refusal: &Refusal,
        verdict: Option<(DecisionFacts, Option<Finding>)>,
    ) -> Step {
        let mut record = self.record_of(Event::Denial, &message.facts, message.now);
        message.describe(&mut record);
        let (verdict, finding) =
            verdict.unwrap_or_else(|| (message.gate.refused(refusal, None), refusal.finding()));
        record.decision = Some(verdict);
        if let Some(finding) = finding {
            record = record.with_finding(finding);
        }
        let mut to = message.addressee();
        to.tool_result = self.server.refusal == RefusalForm::ToolResult
            && message.row.is_some_and(|row| row.subject == Subject::Tool);
        self.refusal_step(record, refusal, to)
    }

    /// Delivers a refusal to the client if it waits for an answer. On stdio nobody waits for the
    /// answer to a notification; over HTTP its POST is answered with a status.
    pub(super) fn refusal_step(
        &self,
        record: AuditRecord,
        refusal: &Refusal,
        to: Addressee<'_>,
    ) -> Step {
        let told = record.decision.as_ref().and_then(|decision| decision.told.clone());
        let to = Addressee { told: told.as_deref().map(|told| &**told), ..to };
        let unrecorded = Refusal::unrecorded(to);
        // A cancellation may cross the answer on its way, which is no fault of the client.
        let late = *refusal == Refusal::NotInFlight;
        if to.id.is_none() && (late || self.protocol.transport == Transport::Stdio) {
            return Step::new(record, Act::Drop);
        }
        Step::new(record, Act::Deliver(refusal.released(to))).if_unrecorded(unrecorded)
    }

    /// The id of a request that could not be read, on a pipe, unless it is the id of another request:
    /// the client would take the error for the answer to that one.
    fn unread_id(&self, raw: &Bytes) -> Option<Id> {
        if self.protocol.transport != Transport::Stdio {
            return None;
        }
        let id = OuterMembers::of(raw).asks()?;
        let taken = self.used.contains(&id)
            || self.ids.contains_key(&id)
            || self.holds_id(&id)
            || alike(&id).is_some_and(|it| self.ids.contains_key(&it));
        (!taken).then_some(id)
    }

    pub(super) fn refuse_unread(
        &mut self,
        gate: &Gate,
        raw: &Bytes,
        malformed: Malformed,
        call: &CallId,
        now: Now,
    ) -> Step {
        let facts = CallFacts::bare(call, Direction::ToServer, self.protocol);
        let mut record = self.record_of(Event::Denial, &facts, now);
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(gate.digest(raw));
        let place = malformed_position(&malformed, Direction::ToServer);
        // JSON-RPC 2.0 §5: the error has the id of its request, and a null id where that cannot be
        // read. Over HTTP the response says which request it answers.
        let json = !matches!(malformed, Malformed::Unreadable(_));
        let id = if json { self.unread_id(raw) } else { None };
        let refusal = Refusal::Malformed(malformed);
        record.decision = Some(gate.refused(&refusal, Some(&place)));
        record.id = id.as_ref().map(id_text);
        let to = self.addressee(id.as_ref(), call);
        Step::new(record.with_finding(Finding::MalformedFrame), Act::Deliver(refusal.released(to)))
            .if_unrecorded(Refusal::unrecorded(to))
    }
}

/// Who sends a message, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The client, for the first time.
    First,
    /// The edge, once more: see [`Session::client_frame_again`].
    Again,
    /// The edge, for a client that has disconnected: see [`Session::withdraw`].
    ForGone,
    /// The edge, after an approval: see [`Session::client_frame_approved`].
    Held,
}

/// The ids of a message's call and of its exchange, and who sends it.
#[derive(Clone, Copy)]
pub(super) struct CallName<'a> {
    pub(super) call: &'a CallId,
    pub(super) exchange: &'a CallId,
    pub(super) attempt: Attempt,
    /// What was granted for the message.
    pub(super) approvals: &'a [Approval],
    /// What the message has of its limits already.
    pub(super) paid: Paid<'a>,
    /// Set if the client calls again because the message was held before.
    pub(super) leg: Option<&'a Leg>,
}

/// One request or notification of the client, with what its record and its answer need.
pub(super) struct ClientMessage<'a> {
    pub(super) gate: &'a Gate,
    pub(super) frame: &'a Arc<Frame>,
    /// The row of its method, in any revision.
    pub(super) row: Option<&'static Method>,
    pub(super) id: Option<&'a Id>,
    pub(super) facts: CallFacts,
    exchange: &'a CallId,
    attempt: Attempt,
    redact: Vec<Redaction>,
    pub(super) now: Now,
    /// The policy input for the record, once the policy was asked.
    input: Option<RecordedInput>,
    /// What was removed from the answers that it carries.
    removed: Option<Box<RedactionFacts>>,
    /// That it is judged by session facts.
    reader: Option<Arc<FactReader>>,
    /// Its places in limits of calls in flight.
    places: Option<Places>,
}

impl ClientMessage<'_> {
    pub(super) fn addressee(&self) -> Addressee<'_> {
        Addressee {
            id: self.id,
            decision_id: &self.facts.call,
            era: self.facts.protocol.era,
            tool_result: false,
            told: None,
        }
    }

    /// Adds id, size, digest and policy input to a record.
    pub(super) fn describe(&self, record: &mut AuditRecord) {
        let raw = self.frame.document().raw();
        record.id = self.id.map(id_text);
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(self.gate.digest(raw));
        record.set_input(self.input.clone());
        record.redacted.clone_from(&self.removed);
        if self.removed.is_some() {
            record.set_finding(Finding::RequestExfiltration);
        }
    }
}

/// The finding of a denied call: a violation of the environment pin if it reaches another
/// environment, whichever rule denied it.
fn pin_finding(server: &Server, question: &Question<'_>) -> Finding {
    let Resource::Tool { .. } = question.resource else { return Finding::ToolDenied };
    let operation = &question.operation;
    let outside = server.environment.as_ref().is_some_and(|pin| {
        operation.effect != pack::Effect::Read
            && operation.environments.iter().any(|environment| environment != pin)
    });
    if outside { Finding::EnvPinViolation } else { Finding::ToolDenied }
}

fn called_tool<'a>(frame: &'a Frame, row: Option<&Method>) -> Option<&'a str> {
    row.filter(|row| row.subject == Subject::Tool)?;
    frame.params()?.get("name")?.as_str()
}

/// The routing headers of a forwarded message. `Mcp-Param-*` headers are the client's where they
/// were checked against the body; computed for a stdio client, which sends none, and from `edited`
/// where an argument was set. No other reaches the server: nobody could say which argument it
/// mirrors, so somebody could route by it past the policy (threat E1).
fn routing_of(
    question: &Question<'_>,
    definition: Option<&ToolDefinition>,
    edited: Option<&Frame>,
    headers: Option<&RoutingHeaders>,
) -> Routing {
    let name = question.method.and_then(|method| routing::mirrored_name(question.frame, method));
    let mut routing = Routing { name: name.map(Into::into), ..Routing::default() };
    let modern = question.protocol.era == Era::Modern;
    let (true, Some(definition)) = (modern, definition) else { return routing };
    // Without headers, such as those of a request that the gate had made, they are written here.
    let computed = edited.is_some() || headers.is_none();
    let frame = edited.unwrap_or(question.frame);
    let arguments = frame.params().and_then(|params| params.get("arguments"));
    for (suffix, pointer) in &definition.parameters {
        let sent = headers.and_then(|headers| headers.params.iter().find(|(it, _)| it == suffix));
        let value = if computed {
            arguments
                .and_then(|arguments| arguments.pointer(pointer))
                .and_then(headers::encode_argument)
        } else {
            sent.map(|(_, value)| value.clone())
        };
        routing.params.extend(value.map(|value| (format!("mcp-param-{suffix}").into(), value)));
    }
    routing
}
