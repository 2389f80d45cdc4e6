//! The edges: sockets and pipes, and no decisions.
//!
//! An edge turns bytes into [`Arrival`](bartizan_gate::session::Arrival)s and carries out the acts
//! that the gate hands back. HTTP and stdio differ here and nowhere else.

use std::sync::Arc;

use ::http::HeaderMap;
use bytes::Bytes;

use bartizan_gate::evidence::record::Now;
use bartizan_gate::evidence::step::{Act, AuditSink, Step, Unrecorded};
use bartizan_gate::session::{Gate, UpstreamFailure};

pub mod clock;
pub mod sse;
pub mod oauth;
pub mod upstream;
pub mod child;
pub mod http;
pub mod stdio;
pub mod admin;

/// What every edge shares.
#[derive(Clone)]
pub struct Shared {
    /// The gate.
    pub gate: Arc<Gate>,
    /// Where records are kept.
    pub sink: Arc<dyn AuditSink>,
    /// The clocks.
    pub clock: clock::Clock,
    /// Every task that shutdown waits for.
    pub tasks: tokio_util::task::TaskTracker,
    /// Cancelled when draining begins.
    pub closing: tokio_util::sync::CancellationToken,
}

impl Shared {
    /// Both clocks, now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Keeps the step's record and gives its act.
    pub fn record(&self, step: Step) -> Result<Act, Unrecorded> {
        let kept = step.record(&*self.sink);
        if let Err(unrecorded) = &kept {
            tracing::error!(cause = %unrecorded.cause.cause, "audit record not kept; refusing");
        }
        kept
    }
}

/// One server message as it travelled: an SSE event with its fields, or a line of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// The message; empty for an event that carries none (a priming event, a comment).
    pub data: Bytes,
    /// SSE `event`, where it is not `message`.
    pub event: Option<Box<str>>,
    /// SSE `id`.
    pub id: Option<Box<str>>,
    /// SSE `retry`, ms.
    pub retry: Option<u64>,
    /// SSE comment lines, joined by LF.
    pub comment: Option<Box<str>>,
}

/// How a server answered one permitted message.
#[derive(Debug)]
pub enum Answer {
    /// Taken without a body (HTTP 202 or 204, or a line written to a child).
    Accepted {
        /// The HTTP status; 202 for a child.
        status: u16,
        /// The answer's headers, unfiltered; empty for a child.
        headers: HeaderMap,
    },
    /// One body: a frame where the status is a success and mostly where it is not.
    Whole {
        /// The HTTP status.
        status: u16,
        /// The answer's headers, unfiltered.
        headers: HeaderMap,
        /// The body, whole and bounded.
        body: Bytes,
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

/// Server messages, one at a time, never read ahead.
#[derive(Debug)]
pub enum EventStream {
    /// From an HTTP body.
    Sse(Box<sse::SseBody>),
    /// From a child process.
    Child(child::ChildStream),
    /// From the one stream of an HTTP+SSE server.
    LegacySse(Box<upstream::LegacySseStream>),
}

impl EventStream {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        match self {
            Self::Sse(body) => body.next().await,
            Self::Child(stream) => stream.next().await,
            Self::LegacySse(stream) => stream.next().await,
        }
    }
}
