//! What is known of one exchange, and the steps that it takes in its session.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::ACCEPT;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;

use super::event_ids::EventScope;
use super::gauge::Held;
use super::sessions::LegacySession;
use super::{HttpTimeouts, Inner, RouteState, bearer};
use crate::session::{SessionHandle, Turn};
use crate::upstream::SendContext;
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Dispatch, Permitted, Step};
use bartizan_gate::session::{Gate, Redelivery, Session, UpstreamFailure};
use bartizan_gate::wire::protocol::Era;

pub(super) const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// Which session the answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// None: the message is no `initialize`.
    Nothing,
    /// One whose id the server mints.
    Theirs,
    /// One with a child, whose id we minted for it.
    Ours,
}

/// A permitted message on its way, and the answer on its way back.
pub(super) struct Exchange {
    pub(super) inner: Arc<Inner>,
    pub(super) route: Arc<RouteState>,
    pub(super) session: Arc<SessionHandle>,
    /// The legacy session: the one that was asked in, or the one that the answer began.
    pub(super) legacy: OnceLock<Arc<LegacySession>>,
    /// A GET stream that goes on where another ended.
    pub(super) resumes: bool,
    /// Without headers: they are let go once the message is sent, because they keep the buffer
    /// that they were read into, and a stream may last for days.
    pub(super) context: SendContext,
    /// Until when the client's token holds, by uptime: no stream without an end outlives it.
    pub(super) until: Option<Duration>,
    /// The revision that the client's message named in its header.
    pub(super) version: Option<HeaderValue>,
    pub(super) call: CallId,
    /// Somebody waits for an answer to this very message.
    pub(super) asks: bool,
    pub(super) era: Era,
    pub(super) dispatch: Dispatch,
    pub(super) begins: Begins,
    /// The stream has no end: a legacy GET stream, or `subscriptions/listen`.
    pub(super) endless: bool,
    pub(super) _slot: Held,
    pub(super) _stream_slots: Vec<Held>,
    pub(super) _resuming: Option<Arc<()>>,
}

impl Exchange {
    pub(super) fn era(&self) -> Era {
        self.era
    }

    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    pub(super) fn is_endless(&self) -> bool {
        self.endless
    }

    /// Whether the session outlives the exchange.
    pub(super) fn is_kept(&self) -> bool {
        self.legacy.get().is_some()
    }

    pub(super) fn waits(&self) -> &HttpTimeouts {
        &self.inner.config.timeouts
    }

    pub(super) fn uptime(&self) -> Duration {
        self.inner.shared.clock.uptime()
    }

    /// Draining began or the token expired, and a stream without an end ends; or the session
    /// ended, and all do.
    pub(super) async fn closing(&self) {
        let ended = async {
            match self.legacy.get() {
                Some(legacy) => legacy.ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = bearer::expired(self.until, self.uptime()), if self.endless => {}
            () = self.inner.shared.closing.cancelled(), if self.endless => {}
        }
    }

    /// The client must come for the rest, with `Last-Event-ID`.
    pub(super) fn leave(&self) {
        if let Some(legacy) = self.legacy.get() {
            legacy.leave(&self.call, self.uptime());
        }
    }

    /// Seals the ids of this exchange's events.
    pub(super) fn event_scope(&self) -> EventScope {
        let legacy = self.legacy.get().map(|legacy| &**legacy);
        self.inner.event_scope(&self.route, &self.context.principal, legacy)
    }

    /// Takes a step about this exchange's call.
    pub(super) fn turn(&self, step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>) -> Turn {
        self.session.step(Some(&self.call), step)
    }

    /// Whether the client still waits for the answer.
    pub(super) fn awaits(&self) -> bool {
        self.session.awaits(&self.call)
    }

    /// A message from the server, in this exchange or on a stream of its own. `numbered`: its
    /// event has an id, so it may come again.
    pub(super) fn server_message(&self, data: &Bytes, numbered: bool) -> Turn {
        let within = (self.dispatch != Dispatch::OpenStream).then_some(&self.call);
        let redelivery = Redelivery { numbered, resumed: self.resumes };
        self.turn(|session, gate, now| {
            Some(session.server_event(gate, within, data, redelivery, now))
        })
    }

    /// The way to the server failed.
    pub(super) fn fail(&self, failure: &UpstreamFailure) -> Turn {
        self.turn(|session, _, now| session.upstream_failed(&self.call, failure, now))
    }

    /// The client went away.
    pub(super) fn client_gone(&self) {
        self.session.client_gone(&self.call);
    }

    /// Lets `work` run to its end without a client, for a bounded time.
    pub(super) fn run_on(exchange: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the program is ending, and the journal closes what is open.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let exchange = Arc::clone(exchange);
        let tasks = exchange.inner.shared.tasks.clone();
        let running = async move {
            if tokio::time::timeout(exchange.waits().drain, work).await.is_err() {
                exchange.client_gone();
            }
        };
        drop(tasks.spawn_on(running, &runtime));
    }

    /// Takes our answer to a request of the server back to it. No header of the client's own
    /// message goes along but the revision.
    pub(super) async fn answer_server(&self, permitted: Permitted) {
        let call = Arc::clone(permitted.call());
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(version) = &self.version {
            headers.insert(PROTOCOL_VERSION, version.clone());
        }
        let context = SendContext { headers, ..self.context.clone() };
        let sending = self.route.upstream.send(permitted, &context);
        let answer = tokio::time::timeout(self.waits().answer, sending).await;
        drop(self.session.step(Some(&call), |session, _, now| match answer {
            Ok(Ok(_)) => session.upstream_accepted(&call, now),
            Ok(Err(failure)) => session.upstream_failed(&call, &failure, now),
            Err(_) => session.upstream_failed(&call, &UpstreamFailure::TimedOut, now),
        }));
    }
}
