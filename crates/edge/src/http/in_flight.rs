//! The state of one exchange, and the steps that it takes in its session. `exchange` and `stream`
//! drive it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::ACCEPT;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;

use super::event_ids::EventScope;
use super::keep_alive::EarlyHead;
use super::sessions::LegacySession;
use super::shares::{self, NoRoom, Share, ShareTurn};
use super::{HttpTimeouts, ListenerState, RouteState, bearer};
use crate::budget::Reservation;
use crate::held::SpentGrants;
use crate::kept::Account;
use crate::session::{SessionHandle, StepOutcome, Taken};
use crate::upstream::SendContext;
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Dispatch, Permitted, Step};
use bartizan_gate::memory::Charge;
use bartizan_gate::session::{Gate, Redelivery, Session, UpstreamFailure};
use bartizan_gate::wire::frame::Id;
use bartizan_gate::wire::protocol::Era;

pub(super) const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// Which session the answer begins, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionStart {
    /// No session: the message is no `initialize`.
    NoSession,
    /// One whose id the server mints.
    ServerMinted,
    /// A session with a child process or an HTTP+SSE server, whose id we minted.
    SelfMinted,
}

/// One permitted message and all that comes back for it.
pub(super) struct Exchange {
    pub(super) inner: Arc<ListenerState>,
    pub(super) route: Arc<RouteState>,
    pub(super) session: Arc<SessionHandle>,
    /// The share of the caller, where callers have shares.
    pub(super) share: Option<Arc<Share>>,
    /// The legacy session: that of the request, or the one that the answer began.
    pub(super) legacy: OnceLock<Arc<LegacySession>>,
    /// A GET that resumes a stream with `Last-Event-ID`.
    pub(super) resumes: bool,
    /// The headers in it are empty: they share the connection's read buffer, so they are dropped
    /// once the message is sent; a stream may last for days.
    pub(super) context: SendContext,
    /// When the client's access token expires, as uptime; streams without an end are closed then.
    pub(super) until: Option<Duration>,
    /// The value of the client's `MCP-Protocol-Version` header.
    pub(super) version: Option<HeaderValue>,
    pub(super) call: CallId,
    /// The id of the request, or of the first of a batch: the client waits for its answer.
    pub(super) id: Option<Id>,
    pub(super) early: Option<Arc<EarlyHead>>,
    pub(super) era: Era,
    pub(super) dispatch: Dispatch,
    pub(super) begins: SessionStart,
    /// The stream has no end: a legacy GET stream, or `subscriptions/listen`.
    pub(super) endless: bool,
    pub(super) _slots: Vec<Reservation>,
    pub(super) _stream_slots: Vec<Reservation>,
    pub(super) _head_memory: Option<Charge>,
    pub(super) _resuming: Option<Arc<()>>,
    /// The grants that let it pass, until its outcome is recorded.
    pub(super) _spent: Option<SpentGrants>,
}

impl Exchange {
    /// Where messages for its client are charged.
    pub(super) fn account(&self) -> Account {
        Account::new(self.inner.shared.gate.memory(), &self.context.principal.id)
    }

    pub(super) fn era(&self) -> Era {
        self.era
    }

    pub(super) fn asks(&self) -> bool {
        self.id.is_some()
    }

    pub(super) fn is_endless(&self) -> bool {
        self.endless
    }

    /// Whether the exchange belongs to a registered legacy session.
    pub(super) fn is_kept(&self) -> bool {
        self.legacy.get().is_some()
    }

    pub(super) fn waits(&self) -> &HttpTimeouts {
        &self.inner.config.timeouts
    }

    pub(super) fn uptime(&self) -> Duration {
        self.inner.shared.clock.uptime()
    }

    /// Waits until the stream must end: its session ended, or, for a stream without an end,
    /// shutdown began or the access token expired.
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

    /// The stream ended before the answer; the client must resume it with `Last-Event-ID`.
    pub(super) fn await_resume(&self) {
        if let Some(legacy) = self.legacy.get() {
            legacy.await_resume(&self.call, self.uptime());
        }
    }

    /// The scope that seals the ids of this exchange's events.
    pub(super) fn event_scope(&self) -> EventScope {
        let legacy = self.legacy.get().map(|legacy| &**legacy);
        self.inner.event_scope(&self.route, &self.context.principal, legacy)
    }

    /// Takes a step about this exchange's call.
    pub(super) fn step(
        &self,
        step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
    ) -> Taken<'_> {
        self.session.step(Some(&self.call), step)
    }

    /// Whether the call is not settled: the client still waits for its answer.
    pub(super) fn awaits(&self) -> bool {
        self.session.awaits(&self.call)
    }

    /// Takes the gate's step for a message of the server, in this exchange or on a GET stream.
    /// `numbered`: its event has an id, so a resumed stream may repeat it. `stray`: it names no
    /// call ([`ServerEvent::stray`](crate::ServerEvent::stray)).
    pub(super) async fn server_message(
        &self,
        data: &Bytes,
        numbered: bool,
        stray: Option<&Duties>,
    ) -> StepOutcome {
        let caller = self.caller_turn(data.len()).await;
        let turn = self.session.turn(data.len()).await;
        let within = (self.dispatch != Dispatch::OpenStream).then_some(&self.call);
        let redelivery = Redelivery { numbered, resumed: self.resumes };
        let taken = self.session.step_over(turn, Some(&self.call), |session, gate, now| {
            Some(match stray {
                Some(duties) => session.server_stray(gate, duties, data, now),
                None => session.server_event(gate, within, data, redelivery, now),
            })
        });
        // Nobody's turn waits for the disk.
        drop(caller);
        taken.durable().await
    }

    /// Waits for a turn among the messages of this caller.
    async fn caller_turn(&self, bytes: usize) -> Option<ShareTurn<'_>> {
        shares::turn(self.share.as_deref(), bytes).await
    }

    /// Counts a large answer that waits to be judged for its caller; fails if the caller has no
    /// memory left for it.
    pub(super) fn count_answer(&self, body: &Bytes) -> Result<Option<Reservation>, NoRoom> {
        let Some(share) = &self.share else { return Ok(None) };
        share.count_answer(body.len())
    }

    /// Settles the call: the server could not be reached or its answer not be read.
    pub(super) fn fail(&self, failure: &UpstreamFailure) -> StepOutcome {
        self.step(|session, _, now| session.upstream_failed(&self.call, failure, now)).at_once()
    }

    /// Settles the call: the client disconnected.
    pub(super) fn client_gone(&self) {
        self.session.client_gone(&self.call);
    }

    /// Runs `work` in a tracked task without a client, for at most [`HttpTimeouts::drain`].
    pub(super) fn run_on(exchange: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the program is ending; the journal closes the open calls at the next
        // start.
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

    /// Sends the gate's refusal of a server's own request back to the server. Of the client's
    /// headers only the protocol version goes along.
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
