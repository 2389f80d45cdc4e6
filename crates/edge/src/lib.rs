//! The edges: sockets and pipes. They make no decisions.
//!
//! An edge turns bytes into [`Arrival`](bartizan_gate::session::Arrival)s, passes them to the gate,
//! and carries out the acts that the gate returns. Only here do HTTP and stdio differ. The
//! program's `run` starts the edges.
//!
//! | module | what it does |
//! |---|---|
//! | `session` | Takes the steps of every transport: locks the session, asks the gate, keeps the record, returns the act. A panic closes the session. |
//! | [`http`] | The agents' listener: Streamable HTTP of both eras, and HTTP+SSE. |
//! | [`client`] | A client with one stream of messages (a pipe or HTTP+SSE), joined to a child process or to a server over HTTP. |
//! | [`upstream`] | Protected servers: over HTTP, over HTTP+SSE, or a child process. |
//! | [`child`] | Child processes, and which of them a message goes to. |
//! | `duplex` | Multiplexes many agents over one line: a child's pipes, or an HTTP+SSE server's stream. |
//! | `registry` | Sessions by id, each bound to its principal. |
//! | [`sse`] | Reads and writes event streams. |
//! | [`oauth`] | Verifies access tokens, or relabels the OAuth metadata of servers that verify them. |
//! | `budget` | Bounded counters of bytes, streams and requests. |
//! | `aside` | Keeps long work off the serving threads. |
//! | [`admin`] | Liveness and readiness, and answers of approvers, on a listener of its own. |
//! | [`webhook`] | Tells other services of held calls, and makes the links that answer them. |
//! | [`clock`] | The only reader of clocks. |

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;

use bartizan_gate::duty::duties::Duties;
use bartizan_gate::evidence::record::Now;
use bartizan_gate::evidence::step::{Act, AuditSink, Step, Unrecorded};
use bartizan_gate::session::{Gate, UpstreamFailure};

pub mod clock;
mod aside;
mod budget;
pub mod kept;
mod session;
pub mod sse;
mod registry;
mod duplex;
mod listed;
mod own_tasks;
pub mod held;
pub mod oauth;
pub mod upstream;
pub mod child;
pub mod client;
pub mod http;
pub mod webhook;
pub mod admin;

pub use aside::{Aside, processors, wait};
pub use duplex::DuplexStream;

/// What every edge shares.
#[derive(Clone)]
pub struct Shared {
    /// The gate.
    pub gate: Arc<Gate>,
    /// Where audit records are kept.
    pub sink: Arc<dyn AuditSink>,
    /// The clocks.
    pub clock: clock::Clock,
    /// Turns for long messages, and what was slow.
    pub aside: Arc<Aside>,
    /// Tracks every task that shutdown waits for.
    pub tasks: tokio_util::task::TaskTracker,
    /// Cancelled when shutdown begins.
    pub closing: tokio_util::sync::CancellationToken,
    /// Who is asked about requests that a rule holds; without it they are refused.
    pub holding: Option<held::Holding>,
}

impl Shared {
    /// Both clocks, now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Keeps the step's record and returns its act. Fails if the record cannot be kept; the error
    /// holds the refusal for the client.
    pub fn record(&self, step: Step) -> Result<Act, Unrecorded> {
        let kept = step.record(&*self.sink);
        if let Err(unrecorded) = &kept {
            let (call, cause) = (unrecorded.call.as_deref(), &*unrecorded.cause.cause);
            tracing::error!(call, cause, "audit record not kept; refusing");
        }
        kept
    }
}

#[cfg(test)]
impl Shared {
    /// A gate without a policy, whose records are kept nowhere.
    pub(self) fn for_tests() -> Self {
        use bartizan_gate::duty::pdp::NoPolicy;
        use bartizan_gate::evidence::record::AuditRecord;
        use bartizan_gate::evidence::step::Unkept;
        use bartizan_gate::session::{GateConfig, Mode};
        use bartizan_gate::wire::frame::FrameLimits;

        struct Nowhere;

        impl AuditSink for Nowhere {
            fn keep(&self, _: &AuditRecord) -> Result<(), Unkept> {
                Ok(())
            }
        }

        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "test".into(),
            digest_key: [7; 32],
        };
        Self {
            gate: Arc::new(Gate::new(config, Arc::new(NoPolicy))),
            sink: Arc::new(Nowhere),
            clock: clock::Clock::start(),
            aside: Arc::default(),
            tasks: tokio_util::task::TaskTracker::new(),
            closing: tokio_util::sync::CancellationToken::new(),
            holding: None,
        }
    }
}

/// One message of a server with its transport's fields: an SSE event, or a line of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// The message; empty for an event without one, such as a priming event or a comment.
    pub data: Bytes,
    /// SSE `event`; `None` if it is `message` or absent.
    pub event: Option<Box<str>>,
    /// SSE `id`.
    pub id: Option<Box<str>>,
    /// SSE `retry`, ms.
    pub retry: Option<u64>,
    /// SSE comment lines, joined by LF.
    pub comment: Option<Box<str>>,
    /// Present if the message names no call and came on a line that calls share, so that chance
    /// decides who reads it: what every call on the line demands of it.
    pub stray: Option<Arc<Duties>>,
}

/// How a server answered one permitted message.
#[derive(Debug)]
pub enum Answer {
    /// Accepted without a body: HTTP 202 or 204, or a line written to a child.
    Accepted {
        /// The HTTP status; 202 for a child.
        status: u16,
        /// The answer's headers, unfiltered; empty for a child.
        headers: HeaderMap,
    },
    /// One body. With a success status it is a JSON-RPC message; with an error status it may be
    /// one.
    Whole {
        /// The HTTP status.
        status: u16,
        /// The answer's headers, unfiltered.
        headers: HeaderMap,
        /// The body, whole and bounded.
        body: Bytes,
        /// What a large body holds of the memory for answers until it has been judged.
        memory: AnswerMemory,
    },
    /// A stream of server messages.
    Stream {
        /// The HTTP status; 200 for a child.
        status: u16,
        /// The answer's headers, unfiltered; empty for a child.
        headers: HeaderMap,
        /// The messages.
        events: EventStream,
    },
}

impl Answer {
    /// An answer with a status only.
    fn bare(status: u16) -> Self {
        Self::whole(status, HeaderMap::new(), Bytes::new())
    }

    /// The server accepted the message.
    fn accepted(status: u16) -> Self {
        Self::Accepted { status, headers: HeaderMap::new() }
    }

    /// An answer with a whole JSON body.
    fn json(status: u16, body: Bytes) -> Self {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self::whole(status, HeaderMap::from_iter([json]), body)
    }

    /// An answer in one body that is not counted.
    fn whole(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self::Whole { status, headers, body, memory: AnswerMemory::default() }
    }

    /// A stream of messages from a shared line.
    fn stream(stream: DuplexStream) -> Self {
        let events = EventStream::Duplex(stream);
        Self::Stream { status: 200, headers: HeaderMap::new(), events }
    }

    /// The answer's headers.
    fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Accepted { headers, .. }
            | Self::Whole { headers, .. }
            | Self::Stream { headers, .. } => headers,
        }
    }
}

/// Memory reserved for an answer until this is dropped; nothing for a small one.
#[derive(Debug, Default)]
pub struct AnswerMemory {
    _reserved: Option<budget::Reservation>,
}

/// A stream of server messages. Nothing is read before the caller asks for it.
#[derive(Debug)]
pub enum EventStream {
    /// From an HTTP body.
    Sse(Box<sse::SseBody>),
    /// From a line that many exchanges share: a child process or an HTTP+SSE server.
    Duplex(DuplexStream),
}

impl EventStream {
    /// Charges what is buffered of its messages to `account`; a shared line does so by itself.
    pub(crate) fn charged_to(&mut self, account: &kept::Account) {
        match self {
            Self::Sse(body) => body.charge_to(account),
            Self::Duplex(_) => {}
        }
    }

    /// The next message; `None` at the end. Fails if the server cannot be reached or its data not
    /// be read.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        match self {
            Self::Sse(body) => body.next().await,
            Self::Duplex(stream) => stream.next().await,
        }
    }
}
