//! The policy enforcement point (PEP): what happens to one frame, from bytes to a [`Step`].
//!
//! A [`Session`] is one conversation between one principal and one protected server: on stdio the
//! whole run, on legacy HTTP one MCP session, on modern HTTP one exchange. It correlates answers
//! with the requests in flight, asks the policy, discharges obligations, and returns a [`Step`]. It
//! takes no decision of its own beyond the strict profile, and does no input or output. Every
//! method and transport takes the same path: `client` handles frames of the client, `server` those
//! of the server. The edge calls it, one step at a time under a lock.

mod sizes;
mod sender;
pub mod tasks;
mod ids;
mod definitions;
pub mod protected;
mod payment;
mod enforcement;
mod expected;
mod owed;
mod question;
mod redaction;
mod charges;
mod legs;
mod holds;
mod discharge;
mod propagation;
mod client;
mod own_tasks;
mod replies;
mod ownership;
mod answer;
mod learning;
mod redelivery;
mod server;
mod batch;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

pub use enforcement::{DoorFacts, Gate, GateConfig, Mode, keyed_digest};

pub use self::definitions::{ToolDefinition, ToolStatus};
pub use self::own_tasks::TaskEnd;
pub use self::redelivery::Redelivery;
pub use self::sender::Peer;
pub use crate::evidence::record::HttpFacts;
pub use crate::evidence::refusal::DoorRefusal;
pub use crate::session::protected::{Protected, RefusalForm};

use crate::duty::duties::Duties;
use crate::duty::limit::Places;
use crate::duty::redact::Redaction;
use crate::evidence::record::{
    ApprovalFacts, AuditRecord, CallId, Event, Finding, LinkFacts, Now, OperationFacts, Outcome,
    ProtocolFacts, Target, UpstreamFacts, micros,
};
use crate::evidence::refusal::{Addressee, Refusal};
use crate::evidence::step::{
    Act, Content, ForwardedAt, Payload, Permitted, Released, Routing, Status, Step,
};
use crate::evidence::text::{Code, IdText, Name, Text};
use crate::memory::Charge;
use crate::question::access::{Client, Principal};
use crate::question::handles::{CallEnd, ScopeState};
use crate::question::operation::{OnSuccess, Operation};
use crate::question::pack::Effect;
use crate::question::readers::FactReader;
use crate::session::tasks::Tasks;
use crate::wire::frame::{Frame, Id, write_batch, write_id};
use crate::wire::headers::RoutingHeaders;
use crate::wire::method::Method;
use crate::wire::protocol::{Direction, Era, Protocol, Transport};

use expected::Expected;
use holds::HeldCall;
use ids::UsedIds;
use owed::{OwedAnswers, Unanswered};
use sender::Sender;

/// One message of the client as the edge received it.
#[derive(Debug, Default)]
pub struct Arrival {
    /// The body, not yet read.
    pub raw: Bytes,
    /// The routing headers; absent on transports that have none.
    pub headers: Option<RoutingHeaders>,
    /// The HTTP header `traceparent`, not parsed; the one in `params._meta` takes precedence.
    pub traceparent: Option<Box<str>>,
    /// Whether the edge can ask for approval of the message and hand it to the gate again. If not,
    /// a message that a rule holds is refused.
    pub may_wait: bool,
}

/// Why a request to the server got no answer that may be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// The server could not be reached, or closed the connection before it answered; why.
    Unreachable(String),
    /// The server's program is not started, because it differs from its pin; which file it is, and
    /// its digest.
    PinViolated(String),
    /// The server took longer than allowed.
    TimedOut,
    /// The answer is not a frame: a wrong content type, a content coding, a body or event that is
    /// too large, a broken stream; which of them.
    Unreadable(String),
    /// The server ended its stream without the answer.
    EndedEarly,
    /// The server answered with this HTTP status and nothing that may pass, such as a redirect.
    Status(u16),
    /// It was not sent: there is no place here for the session or the stream that it would begin;
    /// the limit that is reached.
    NoPlace(&'static str),
}

/// One conversation between one principal and one protected server.
#[derive(Debug, Clone)]
pub struct Session {
    principal: Arc<Principal>,
    /// The principal's id, as charges share it.
    owner: Arc<str>,
    /// The same, as records have it.
    principal_name: Text<Name>,
    server: Arc<Protected>,
    protocol: Protocol,
    client: Option<Client>,
    /// What records say of the client.
    sender: Sender,
    /// Handles and facts that mirror what the server holds for this session.
    state: Arc<Mutex<ScopeState>>,
    /// What the server holds for this session.
    server_state: ServerState,
    /// Everything forwarded and still in flight, oldest first. Boxed: a node of the map has room
    /// for eleven calls, and most sessions have one or none.
    calls: BTreeMap<u64, Box<InFlightCall>>,
    next_order: u64,
    /// The client's requests that wait for approval, oldest first; few.
    held: Vec<HeldCall>,
    /// The client's requests in flight, by id; the key of each in `calls`.
    ids: HashMap<Id, u64>,
    /// The ids of the client's requests that have ended.
    used: UsedIds,
    /// The client's requests that ended without an answer, which may still come.
    owed: OwedAnswers,
    /// Progress tokens of requests that ended without an answer: progress may still come.
    owed_tokens: UsedIds,
    /// What every call so far demands of messages that name no call.
    duties: Duties,
    duty_scope: DutyScope,
    /// The server's requests in flight: delivered, and not answered by the client yet.
    server_requests: HashMap<Id, ServerRequest>,
    /// The ids of the server's requests that have ended.
    server_used: UsedIds,
    /// The ids of elicitations that the client was asked.
    elicitations: UsedIds,
    /// The tasks that the client runs for the server (MCP 2025-11-25, tasks).
    client_tasks: Tasks,
    /// Progress tokens of requests that were answered with a task, oldest first. They stay valid
    /// while the task runs (MCP 2025-11-25, tasks).
    task_tokens: VecDeque<(Id, Charge)>,
    /// What the session keeps as long as it lives, charged.
    kept: Option<Charge>,
    /// Delivered answers that may be redelivered on a resumed stream, oldest first.
    answered: VecDeque<redelivery::DeliveredAnswer>,
}

/// What a server holds for one of our sessions: what it was told to select, handles that it issued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerState {
    /// State of its MCP session, in the eras that have sessions: from 2024-11-05 to 2025-11-25.
    #[default]
    Session,
    /// State of a process that serves this session alone, in every era.
    Process,
    /// Nothing: it gave out no session id (2025-11-25, "Session Management"), so it may answer each
    /// request from another process.
    Nothing,
}

/// Whose calls a message of the server may concern that names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DutyScope {
    /// Those of this session, which has its line to the server alone.
    #[default]
    Line,
    /// Those of this session, which the server names by an id. The principal may speak with the
    /// server outside it, too.
    Session,
    /// All of the principal: the exchange is in no session, so the server may send on it what
    /// belongs to any of them.
    Principal,
}

/// Progress tokens of tasks in one session at most; the oldest is evicted first.
const TASK_TOKENS_MAX: usize = 256;

/// A message that was forwarded to the server and has no outcome yet.
#[derive(Debug, Clone)]
struct InFlightCall {
    /// The id of a request, whose answer the client waits for; absent for other messages.
    id: Option<Id>,
    started: Duration,
    forwarded: ForwardedAt,
    facts: CallFacts,
    /// The epoch of the server's session in which it was judged.
    epoch: u64,
    /// The call by which the transport names it: its own, or that of its batch.
    exchange: CallId,
    /// The method's row in the method table.
    method: Option<&'static Method>,
    /// What the call does, as classified by its pack.
    operation: Arc<Operation>,
    expected: Expected,
    /// What must be removed from its answer and from related messages.
    redact: Vec<Redaction>,
    /// The keyed digest of the client's bytes.
    digest: Option<Text<Code>>,
    /// What the call changes for later calls if it succeeds.
    on_success: Option<Box<OnSuccess>>,
    /// That the call was judged by session facts, until it is over.
    reader: Option<Arc<FactReader>>,
    /// Its places in limits of calls in flight, until it is over.
    places: Option<Places>,
    /// The memory of all this, and of what remains of it when the call has ended.
    charge: Charge,
}

impl InFlightCall {
    fn is_batched(&self) -> bool {
        self.exchange != self.facts.call
    }
}

/// A request of the server that was delivered to the client and is not answered yet.
#[derive(Debug, Clone)]
struct ServerRequest {
    started: Duration,
    facts: CallFacts,
    /// The keyed digest of the server's bytes.
    digest: Text<Code>,
    /// What must be removed from it, also when it is redelivered.
    redact: Vec<Redaction>,
    /// Its places in limits of calls in flight, until it is answered.
    _places: Option<Places>,
    /// The memory of all this.
    charge: Charge,
}

/// What all records about one message have in common.
#[derive(Debug, Clone)]
struct CallFacts {
    call: CallId,
    direction: Direction,
    protocol: Protocol,
    method: Option<Text<Name>>,
    target: Option<Arc<Target>>,
    operation: Option<Arc<OperationFacts>>,
    trace_id: Option<Text<Code>>,
    parent_span_id: Option<Text<Code>>,
    /// The trace context of the HTTP request, where `_meta` has the parent.
    link: Option<Arc<LinkFacts>>,
    /// The call in whose answer stream the server sent the message, or on whose behalf it can only
    /// be.
    within: Option<CallId>,
    /// The approvals that the call has used.
    approval: Option<Arc<ApprovalFacts>>,
}

impl Session {
    /// Starts a conversation. The protocol is unknown until the first message names it.
    pub fn new(principal: Arc<Principal>, server: Arc<Protected>, transport: Transport) -> Self {
        let ids_max = match transport {
            Transport::Http => ids::SESSION_BYTES_MAX,
            // The only session of its process.
            Transport::Stdio => ids::SERVER_BYTES_MAX,
        };
        let owner: Arc<str> = principal.id.as_ref().into();
        let used = UsedIds::new(server.id_memory().clone(), ids_max);
        let sender = Sender::of(&principal);
        Self {
            owed_tokens: used.clone(),
            server_used: used.clone(),
            elicitations: used.clone(),
            used,
            owed: OwedAnswers::default(),
            duties: Duties::default(),
            duty_scope: DutyScope::default(),
            principal_name: Text::shared(&owner),
            owner,
            principal,
            server,
            protocol: Protocol { revision: None, era: Era::Legacy, transport },
            client: None,
            sender,
            state: Arc::default(),
            server_state: ServerState::default(),
            calls: BTreeMap::new(),
            next_order: 0,
            held: Vec::new(),
            ids: HashMap::new(),
            server_requests: HashMap::new(),
            client_tasks: Tasks::default(),
            task_tokens: VecDeque::new(),
            kept: None,
            answered: VecDeque::new(),
        }
    }

    /// Says what the server holds for this session. Default: [`ServerState::Session`].
    pub fn set_server_state(&mut self, state: ServerState) {
        self.server_state = state;
    }

    /// Says that the next message comes from `peer`. Where nothing is said, records have no address,
    /// and each handshake, or else the first message, begins a conversation.
    pub fn arrives_from(&mut self, peer: &Peer) {
        self.sender.arrives_from(peer);
    }

    /// Says whose calls a message may concern that names none. Default: [`DutyScope::Line`].
    pub fn set_duty_scope(&mut self, scope: DutyScope) {
        self.duty_scope = scope;
    }

    /// What is demanded of a message of the server that names no call.
    fn stray_duties(&self) -> Cow<'_, Duties> {
        if self.duty_scope != DutyScope::Principal {
            return Cow::Borrowed(&self.duties);
        }
        let mut duties = self.duties.clone();
        duties.merge(self.server.duties().of(&self.principal.id));
        Cow::Owned(duties)
    }

    /// Whether `call` was judged by what is known of the server's session as it is now: no
    /// `initialize` was forwarded since. If not, an edge must not send it.
    pub fn is_current(&self, call: &CallId) -> bool {
        let epoch = self.epoch();
        let mut entries = self.calls.values().filter(|entry| entry.exchange == *call);
        entries.all(|entry| entry.epoch == epoch)
    }

    /// Whose conversation it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The name of the server.
    pub fn server_name(&self) -> &str {
        &self.server.facts.name
    }

    /// The protocol of the conversation, as far as it is known.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The client opens the legacy stream of server messages (HTTP GET). The act is `Forward`.
    pub fn open_stream(&mut self, gate: &Gate, now: Now) -> Step {
        self.transport_act(gate, Payload::OpenStream, "stream opened by the client", now)
    }

    /// The client ends the legacy session (HTTP DELETE). The act is `Forward`.
    pub fn end(&mut self, gate: &Gate, now: Now) -> Step {
        self.transport_act(gate, Payload::EndSession, "session ended by the client", now)
    }

    /// Records that an internal error (a panic) interrupted the step of a message, which is
    /// therefore refused. The act is `Drop`.
    pub fn interrupted(&self, gate: &Gate, now: Now) -> Step {
        let facts = CallFacts::bare(&gate.next_call(), Direction::ToServer, self.protocol);
        let mut record = self.record_of(Event::Denial, &facts, now);
        record.direction = None;
        record.decision = Some(gate.interrupted());
        record.note = Some("an internal error interrupted the step; its session is closed".into());
        Step::new(record, Act::Drop)
    }

    fn transport_act(
        &mut self,
        gate: &Gate,
        payload: Payload,
        note: &'static str,
        now: Now,
    ) -> Step {
        let call = gate.next_call();
        let facts = CallFacts::bare(&call, Direction::ToServer, self.protocol);
        let mut record = self.record_of(Event::Intent, &facts, now);
        record.note = Some(note.into());
        let mark = self.track(InFlightCall {
            id: None,
            started: now.uptime,
            forwarded: ForwardedAt::default(),
            facts,
            exchange: Arc::clone(&call),
            epoch: self.epoch(),
            method: None,
            operation: Arc::new(Operation::of_method(Effect::Read)),
            expected: Expected::default(),
            redact: Vec::new(),
            digest: None,
            on_success: None,
            reader: None,
            places: None,
            // One of these exists for each request of the listener at most.
            charge: gate.memory().count(&self.principal.id, charges::CALL_BYTES),
        });
        let unrecorded = Refusal::unrecorded(self.addressee(None, &call));
        let permitted = Permitted::issue_proof(payload, self.protocol, call, Routing::default());
        Step::new(record, Act::Forward(permitted)).if_unrecorded(unrecorded).marking([mark])
    }

    /// The server accepted `call` without an answer (202, or the line was written to a child), or
    /// opened its stream. A request needs an answer, so for one this is a failure. `None` if `call`
    /// has its outcome already.
    pub fn upstream_accepted(&mut self, call: &CallId, now: Now) -> Option<Step> {
        if self.awaits(call) {
            return self.upstream_failed(call, &UpstreamFailure::EndedEarly, now);
        }
        self.end_exchange((call, Unanswered::Failed), now, |session, entry| {
            Step::new(session.outcome_record(entry, Outcome::Accepted, now), Act::Drop)
        })
    }

    /// Forwarding `call` failed. The act is `Deliver` (an error) where the client still waits for
    /// an answer, else `Drop`. `None` if `call` has its outcome already.
    pub fn upstream_failed(
        &mut self,
        call: &CallId,
        failure: &UpstreamFailure,
        now: Now,
    ) -> Option<Step> {
        if let Some(held) = self.take_held(call) {
            return Some(self.refuse_held(&held, &Refusal::UpstreamFailed, now));
        }
        let why = match failure {
            UpstreamFailure::TimedOut => Unanswered::TimedOut,
            UpstreamFailure::Unreachable(_)
            | UpstreamFailure::PinViolated(_)
            | UpstreamFailure::Unreadable(_)
            | UpstreamFailure::EndedEarly
            | UpstreamFailure::NoPlace(_)
            | UpstreamFailure::Status(_) => Unanswered::Failed,
        };
        self.end_exchange((call, why), now, |session, entry| session.failed(entry, failure, now))
    }

    fn failed(&self, entry: &InFlightCall, failure: &UpstreamFailure, now: Now) -> Step {
        let (refusal, kind, note) = match failure {
            UpstreamFailure::Unreachable(why) => {
                (Refusal::UpstreamFailed, "unreachable".into(), Some(&**why))
            }
            UpstreamFailure::PinViolated(what) => {
                (Refusal::UpstreamFailed, "pin_violated".into(), Some(&**what))
            }
            UpstreamFailure::TimedOut => (Refusal::UpstreamTimedOut, "timeout".into(), None),
            UpstreamFailure::Unreadable(why) => {
                (Refusal::Withheld, "unreadable".into(), Some(&**why))
            }
            UpstreamFailure::NoPlace(limit) => {
                (Refusal::NoPlace, Refusal::NoPlace.code().into(), Some(*limit))
            }
            UpstreamFailure::EndedEarly => (Refusal::UpstreamFailed, "ended_early".into(), None),
            UpstreamFailure::Status(code) => {
                (Refusal::UpstreamFailed, code.to_string().into(), None)
            }
        };
        let outcome = match failure {
            UpstreamFailure::NoPlace(_) => Outcome::NotSent,
            UpstreamFailure::Unreachable(_)
            | UpstreamFailure::PinViolated(_)
            | UpstreamFailure::TimedOut
            | UpstreamFailure::Unreadable(_)
            | UpstreamFailure::EndedEarly
            | UpstreamFailure::Status(_) => Outcome::UpstreamFailed,
        };
        let mut record = self.outcome_record(entry, outcome, now);
        record.error_type = Some(kind);
        record.note = note.map(Into::into);
        let finding = if matches!(failure, UpstreamFailure::PinViolated(_)) {
            Some(Finding::LaunchPinViolation)
        } else {
            refusal.finding()
        };
        if let Some(finding) = finding {
            record = record.with_finding(finding);
        }
        let to = Self::reply_to(entry);
        let released = refusal.released(to.borrowed());
        // On stdio nobody waits for the answer to a notification; an HTTP client waits for a
        // status.
        let silent = entry.id.is_none() && self.protocol.transport == Transport::Stdio;
        if silent {
            Step::new(record, Act::Drop)
        } else {
            Step::new(record, Act::Deliver(released))
                .if_unrecorded(Refusal::unrecorded(to.borrowed()))
        }
    }

    /// The server answered `call` with an HTTP error status and a body that is no JSON-RPC answer.
    /// Nobody can judge such a body, so the client gets one of the gate's in its place, under the
    /// server's status; an empty body stays empty, with an error for where the status cannot be sent
    /// ([`Released::unsaid`]). The record says so, with the length and the digest of the server's.
    /// `None` if `call` has its outcome already.
    pub fn upstream_status(
        &mut self,
        gate: &Gate,
        call: &CallId,
        answer: ErrorAnswer,
        now: Now,
    ) -> Option<Step> {
        let ended = self.end_calls(call);
        let to = Self::reply_to(ended.first()?);
        let record = |entry| {
            let mut record = self.outcome_record(entry, Outcome::Error, now);
            record.error_type = Some(answer.status.to_string().into());
            record.bytes = u64::try_from(answer.body.len()).ok();
            record.digest = Some(gate.digest(&answer.body));
            record.note = (!answer.body.is_empty()).then(|| BODY_REPLACED.into());
            record
        };
        let records = ended.iter().map(record).collect();
        let released = error_body(&ended, answer.body);
        self.keep_owed(ended, Unanswered::by_status(answer.status), now);
        let step = Step::of_all(records, Act::Deliver(released))?;
        let step = if answer.challenge_dropped { step.noting(CHALLENGE_DROPPED) } else { step };
        Some(step.if_unrecorded(Refusal::unrecorded(to.borrowed())))
    }

    /// The client disconnected before `call` was answered. The act is `Drop`. `None` if `call` has
    /// its outcome already.
    pub fn client_gone(&mut self, call: &CallId, now: Now) -> Option<Step> {
        if self.is_held(call) {
            return self.drop_held(call, now);
        }
        self.end_exchange((call, Unanswered::Cancelled), now, |session, entry| {
            Step::new(session.outcome_record(entry, Outcome::Cancelled, now), Act::Drop)
        })
    }

    /// Removes `call` from all tables: its record could not be kept, so it was not forwarded.
    pub fn forget(&mut self, call: &CallId) {
        // Its id was not used, because the server got nothing.
        for order in self.orders_of(call) {
            if let Some(entry) = self.remove_call(order) {
                self.call_ended(
                    (entry.on_success.as_deref(), entry.reader.as_deref()),
                    CallEnd::Answered,
                );
            }
        }
        drop(self.take_held(call));
        self.server_requests.retain(|_, asked| asked.facts.call != *call);
        self.forget_answer(call);
    }

    /// Whether `call` has a request that is still in flight.
    pub fn awaits(&self, call: &CallId) -> bool {
        self.calls.values().any(|entry| entry.exchange == *call && entry.id.is_some())
            || self.is_held(call)
    }

    /// Whether the record of `call`'s intent has no outcome yet.
    pub fn is_open(&self, call: &CallId) -> bool {
        self.calls.values().any(|entry| entry.facts.call == *call)
            || self.server_requests.values().any(|asked| asked.facts.call == *call)
    }

    /// The calls in flight, oldest first, for the edge to fail when the server ends. A batch counts
    /// as one call.
    pub fn in_flight(&self) -> Vec<CallId> {
        let mut calls: Vec<_> =
            self.calls.values().map(|entry| Arc::clone(&entry.exchange)).collect();
        // The calls of one exchange are adjacent, because they were added together.
        calls.dedup();
        calls.extend(self.held.iter().map(|held| Arc::clone(&held.facts.call)));
        calls
    }

    /// Adds a call to those in flight, and returns what notes when it is forwarded.
    fn track(&mut self, call: InFlightCall) -> ForwardedAt {
        let mark = call.forwarded.clone();
        let order = self.next_order;
        self.next_order = self.next_order.wrapping_add(1);
        if let Some(id) = &call.id {
            self.ids.insert(id.clone(), order);
        }
        self.calls.insert(order, Box::new(call));
        mark
    }

    /// Removes the calls of an exchange from the tables and returns them, oldest first.
    fn end_calls(&mut self, exchange: &CallId) -> Vec<InFlightCall> {
        let orders = self.orders_of(exchange);
        orders.into_iter().filter_map(|order| self.end_call(order)).collect()
    }

    /// The keys of the calls of an exchange, oldest first.
    fn orders_of(&self, exchange: &CallId) -> Vec<u64> {
        let calls = self.calls.iter().filter(|(_, entry)| entry.exchange == *exchange);
        calls.map(|(order, _)| *order).collect()
    }

    fn end_request(&mut self, id: &Id) -> Option<InFlightCall> {
        let order = self.ids.get(id).copied()?;
        self.end_call(order)
    }

    /// Removes a call from the tables; its id is used up.
    fn end_call(&mut self, order: u64) -> Option<InFlightCall> {
        let mut entry = self.remove_call(order)?;
        if let Some(id) = &entry.id {
            self.used.insert(id, &mut entry.charge);
        }
        Some(entry)
    }

    fn remove_call(&mut self, order: u64) -> Option<InFlightCall> {
        let entry = self.calls.remove(&order)?;
        if let Some(id) = &entry.id {
            self.ids.remove(id);
        }
        Some(*entry)
    }

    /// Remembers calls that have ended without an answer, which the server may still send.
    fn keep_owed(
        &mut self,
        ended: impl IntoIterator<Item = InFlightCall>,
        why: Unanswered,
        now: Now,
    ) {
        for mut entry in ended {
            if let Some(token) = &entry.expected.token {
                self.owed_tokens.insert(token, &mut entry.charge);
            }
            let end = match why {
                Unanswered::Rejected => CallEnd::Answered,
                Unanswered::Cancelled
                | Unanswered::TimedOut
                | Unanswered::Failed
                | Unanswered::Unclear => CallEnd::Unanswered(now.uptime),
            };
            if let Some(places) = &entry.places {
                if why.counts() {
                    places.owed(now.uptime.saturating_add(owed::COUNTS_FOR));
                } else {
                    places.ended();
                }
            }
            self.call_ended((entry.on_success.as_deref(), entry.reader.as_deref()), end);
            self.owed.keep(entry, why, now.uptime);
        }
    }

    /// Removes a request of the server that has ended; its id is used up.
    fn end_server_request(&mut self, id: &Id) -> Option<ServerRequest> {
        let mut asked = self.server_requests.remove(id)?;
        self.server_used.insert(id, &mut asked.charge);
        Some(asked)
    }

    fn addressee<'a>(&self, id: Option<&'a Id>, call: &'a CallId) -> Addressee<'a> {
        Addressee { id, decision_id: call, era: self.protocol.era, tool_result: false, told: None }
    }

    fn reply_to(entry: &InFlightCall) -> OwnedAddressee {
        OwnedAddressee {
            id: entry.id.clone(),
            call: Arc::clone(&entry.facts.call),
            era: entry.facts.protocol.era,
        }
    }

    /// Creates a record with principal, server, protocol, method and target of `facts`; the caller
    /// adds the rest.
    fn record_of(&self, event: Event, facts: &CallFacts, now: Now) -> AuditRecord {
        let mut record = AuditRecord::new(event, now);
        record.call = Some(Arc::clone(&facts.call));
        record.principal = Some(self.principal_name.clone());
        self.sender.describe(&mut record);
        record.server = Some(self.server.record_name().clone());
        record.direction = Some(facts.direction.as_str());
        record.protocol = Some(ProtocolFacts {
            revision: facts.protocol.revision.map(crate::wire::protocol::Revision::as_str),
            era: facts.protocol.era.as_str(),
            transport: facts.protocol.transport.as_str(),
        });
        record.method.clone_from(&facts.method);
        record.target.clone_from(&facts.target);
        record.operation.clone_from(&facts.operation);
        record.trace_id.clone_from(&facts.trace_id);
        record.parent_span_id.clone_from(&facts.parent_span_id);
        record.link.clone_from(&facts.link);
        record.within.clone_from(&facts.within);
        record.approval.clone_from(&facts.approval);
        record
    }

    /// Creates the record of the outcome of `entry`.
    fn outcome_record(&self, entry: &InFlightCall, outcome: Outcome, now: Now) -> AuditRecord {
        let mut record = self.record_of(Event::Outcome, &entry.facts, now);
        record.id = entry.id.as_ref().map(id_text);
        record.outcome = Some(outcome);
        record.duration_us = Some(micros(now.uptime.saturating_sub(entry.started)));
        record.upstream = entry.forwarded.get().map(|start| {
            let duration_us = micros(now.uptime.saturating_sub(start));
            let at = self.server.address.clone();
            Box::new(UpstreamFacts { start_us: micros(start), duration_us, at })
        });
        record
    }
}

/// A server's HTTP error answer.
#[derive(Debug)]
pub struct ErrorAnswer {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// Whether the edge dropped a challenge (`WWW-Authenticate`) of it or a part of one; the record
    /// says so.
    pub challenge_dropped: bool,
    /// The body.
    pub body: Bytes,
}

/// The note of a record whose HTTP error had a body that nobody could judge.
const BODY_REPLACED: &str =
    "the body of the server's HTTP error is no JSON-RPC answer, so the client got another one";

/// The note of a record whose answer lost its challenge or a part of it.
const CHALLENGE_DROPPED: &str = "WWW-Authenticate was dropped in part or as a whole: it names an address that is not the server's, is of no known form, or cannot be read";

/// An [`Addressee`] that owns its fields.
struct OwnedAddressee {
    id: Option<Id>,
    call: CallId,
    era: Era,
}

impl OwnedAddressee {
    fn borrowed(&self) -> Addressee<'_> {
        Addressee {
            id: self.id.as_ref(),
            decision_id: &self.call,
            era: self.era,
            tool_result: false,
            told: None,
        }
    }
}

/// The id as a record has it.
fn id_text(id: &Id) -> Text<IdText> {
    match id {
        Id::Number(number) => Text::number(*number),
        Id::Text(_) => {
            let mut text = Vec::new();
            write_id(&mut text, id);
            String::from_utf8(text).unwrap_or_default().into()
        }
    }
}

/// Releases the server's message `frame`, as `edited` where the gate changed it.
fn released(frame: &Frame, edited: Option<Bytes>) -> Released {
    let body = edited.unwrap_or_else(|| frame.document().raw().clone());
    let (content, id) = (frame.message().into(), frame.message().id().cloned());
    Released::issue_proof(body, content, id, Status::Ok, false)
}

/// What the client gets in place of `body`, the unread body of an HTTP error that answers `ended`:
/// an error for each request. Where the server said nothing, the client gets nothing; the error is
/// attached.
fn error_body(ended: &[InFlightCall], body: Bytes) -> Released {
    let status = Status::BadGateway;
    if body.is_empty() {
        let asked = ended.iter().any(|entry| entry.id.is_some());
        let unsaid = if asked { errors(ended, &Refusal::UpstreamFailed).0 } else { body };
        return Released::issue_proof(unsaid, Content::Opaque, None, status, false);
    }
    let (body, content) = errors(ended, &Refusal::Withheld);
    let single = ended.first().filter(|_| content == Content::Error);
    let id = single.and_then(|entry| entry.id.clone());
    Released::issue_proof(body, content, id, status, false)
}

/// `refusal` as the answer to each request of `ended`: in an array, if they came in one.
fn errors(ended: &[InFlightCall], refusal: &Refusal) -> (Bytes, Content) {
    let error = |entry| refusal.message(Session::reply_to(entry).borrowed()).0;
    let asked = |entry: &&InFlightCall| entry.id.is_some() && entry.is_batched();
    let batched: Vec<_> = ended.iter().filter(asked).map(error).collect();
    if batched.is_empty() {
        (ended.first().map(error).unwrap_or_default(), Content::Error)
    } else {
        (write_batch(&batched), Content::Batch)
    }
}
