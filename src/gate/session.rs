//! The policy enforcement point: one frame's way, top to bottom.
//!
//! A [`Session`] is one conversation between one principal and one protected server: on stdio the
//! whole run, on legacy HTTP one MCP session, on modern HTTP one exchange. It owns the table of
//! what is in flight and decides nothing itself: it asks the [`Pdp`], discharges the obligations,
//! and hands out a [`Step`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::access::{Principal, Protocol, RoutingHeaders, Server, Transport};
use super::frame::FrameLimits;
use super::limit::Limits;
use super::pdp::Pdp;
use super::record::{CallId, Now};
use super::step::Step;

/// Whether verdicts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are decided and recorded, and everything well-formed passes.
    Observe,
}

/// How a refusal by policy looks to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalForm {
    /// A JSON-RPC error.
    Error,
    /// For `tools/call`, a tool result with `isError: true` that a model can read.
    ToolResult,
}

/// Bounds and identity of a gate.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// Enforce or observe.
    pub mode: Mode,
    /// Bounds on frames of either side.
    pub frame: FrameLimits,
    /// Requests in flight in one session.
    pub in_flight_max: usize,
    /// Tools remembered for one server.
    pub catalog_max: usize,
    /// Rate-limit buckets.
    pub buckets_max: usize,
    /// Random text, new at each start; the first half of every call id.
    pub boot: Box<str>,
    /// Key of the digests in records.
    pub digest_key: [u8; 32],
}

/// What all sessions share: the policy, the buckets, the counter of calls.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    pdp: ArcSwap<Box<dyn Pdp>>,
    limits: Limits,
}

impl Gate {
    /// A gate that asks `pdp`.
    pub fn new(config: GateConfig, pdp: Box<dyn Pdp>) -> Self {
        let limits = Limits::new(config.buckets_max);
        Self { config, pdp: ArcSwap::from_pointee(pdp), limits }
    }

    /// From the next question on, asks `pdp`. Questions already asked keep their answer.
    pub fn replace_policy(&self, pdp: Box<dyn Pdp>) {
        self.pdp.store(Arc::new(pdp));
    }

    /// The policy that answers now.
    pub fn policy(&self) -> Arc<Box<dyn Pdp>> {
        self.pdp.load_full()
    }

    /// A refusal of something that never became a frame: a bad path, a foreign Origin, a coded
    /// body. `facts` says what is known of it.
    pub fn refuse_at_door(&self, refusal: DoorRefusal, facts: DoorFacts<'_>, now: Now) -> Step {
        let _ = (refusal, facts, now, &self.limits, &self.config);
        todo!()
    }
}

/// Why something is refused before it is a frame (P1, P2, P12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorRefusal {
    /// No server has this path: 404.
    UnknownPath,
    /// The path has no such method: 405.
    MethodNotAllowed,
    /// Host missing, repeated, foreign, or other than the request target's: 403.
    Host,
    /// Origin present and not allowed: 403.
    Origin,
    /// A header is repeated, or of a refused form: 400.
    Header,
    /// Not one `Content-Type: application/json` in UTF-8, or coded: 415.
    MediaType,
    /// Message framing that two readers may read differently: 400.
    Framing,
    /// The body is too large: 413.
    TooLarge,
    /// The body took too long: 400.
    Slow,
    /// The session is not known, or is another principal's: 404.
    UnknownSession,
    /// Too many sessions, streams or calls at once: 429.
    TooMany,
    /// We are closing: 503.
    Closing,
}

/// What is known about something refused at the door.
#[derive(Debug, Clone, Copy, Default)]
pub struct DoorFacts<'a> {
    /// Whose it was.
    pub principal: Option<&'a Principal>,
    /// For which server.
    pub server: Option<&'a str>,
}

/// One message as an edge received it.
#[derive(Debug, Default)]
pub struct Arrival {
    /// The bytes.
    pub raw: Bytes,
    /// Routing headers; absent on transports that have none.
    pub headers: Option<RoutingHeaders>,
    /// `traceparent` of the transport, undecoded; `_meta` goes before it.
    pub traceparent: Option<Box<str>>,
}

/// A protected server with what was learnt about it; shared by its sessions.
#[derive(Debug)]
pub struct Protected {
    /// What policy sees.
    pub facts: Server,
    /// How refusals look.
    pub refusal: RefusalForm,
    catalog: Mutex<BTreeMap<Box<str>, Box<str>>>,
}

impl Protected {
    /// A server of which nothing has been learnt.
    pub fn new(facts: Server, refusal: RefusalForm) -> Self {
        Self { facts, refusal, catalog: Mutex::new(BTreeMap::new()) }
    }
}

/// How the way to the server failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// Could not be reached, or closed before it answered.
    Unreachable(String),
    /// Took longer than allowed.
    TimedOut,
    /// Answered with something that is no frame: a wrong content type, a coding, a body or an
    /// event too large, a broken stream.
    Unreadable(String),
    /// Ended its stream without the answer.
    EndedEarly,
    /// An HTTP error status whose body is no frame; the edge passes status and body on.
    Status(u16),
}

/// One conversation.
#[derive(Debug)]
pub struct Session {
    principal: Arc<Principal>,
    server: Arc<Protected>,
    protocol: Protocol,
}

#[expect(clippy::todo, unused_variables, reason = "contract first; filled in next")]
impl Session {
    /// A fresh conversation.
    pub fn new(principal: Arc<Principal>, server: Arc<Protected>, transport: Transport) -> Self {
        todo!()
    }

    /// What the conversation speaks, as far as is known.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// A message from the client. The act is `Forward`, `Deliver` (a refusal) or `Drop`.
    pub fn client_frame(&mut self, gate: &Gate, arrival: Arrival, now: Now) -> Step {
        todo!()
    }

    /// A message from the server. The act is `Deliver`, `Drop`, or `Forward` (our refusal of the
    /// server's own request, which goes back to the server).
    pub fn server_frame(&mut self, gate: &Gate, raw: Bytes, now: Now) -> Step {
        todo!()
    }

    /// The client wants the legacy stream of server messages (GET). `Forward` or `Deliver`.
    pub fn open_stream(&mut self, gate: &Gate, now: Now) -> Step {
        todo!()
    }

    /// The client ends the legacy session (DELETE). `Forward` or `Deliver`.
    pub fn end(&mut self, gate: &Gate, now: Now) -> Step {
        todo!()
    }

    /// The server took `call` without an answer (202, or a line written), or its stream opened.
    pub fn upstream_accepted(&mut self, gate: &Gate, call: &CallId, now: Now) -> Step {
        todo!()
    }

    /// The way to the server failed for `call`. `Deliver` gives the client an error where it
    /// still waits for an answer, else `Drop`.
    pub fn upstream_failed(
        &mut self,
        gate: &Gate,
        call: &CallId,
        failure: &UpstreamFailure,
        now: Now,
    ) -> Step {
        todo!()
    }

    /// The client went away before `call` was answered; always `Drop`.
    pub fn client_gone(&mut self, gate: &Gate, call: &CallId, now: Now) -> Step {
        todo!()
    }

    /// Whether `call` still waits for its answer.
    pub fn awaits(&self, call: &CallId) -> bool {
        todo!()
    }

    /// Calls that wait for an answer, oldest first: what must be closed when the server dies.
    pub fn in_flight(&self) -> Vec<CallId> {
        todo!()
    }
}
