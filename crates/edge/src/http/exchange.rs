//! One exchange: a permitted message on its way to the server, and the answer on its way back.
//!
//! An exchange is polled by the client's connection; if that goes away first, it either lets go of
//! the server at once (2026-07-28: a disconnect is a cancellation) or runs on in a tracked task
//! (the legacy eras: it is not), and either way the outcome is recorded. Nothing is sent twice.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;

use super::event_ids::EventScope;
use super::gauge::Held;
use super::reply::{self, ReplyBody};
use super::sessions::{LegacySession, SharedSession};
use super::stream::StreamBody;
use super::turn::{Turn, record, turn};
use super::{HttpTimeouts, Inner, RouteState, bearer, receive};
use crate::upstream::{Media, SESSION_ID, SendContext, media};
use crate::{Answer, EventStream};
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Act, Content, Dispatch, Permitted, Step};
use bartizan_gate::session::{ErrorAnswer, Gate, Replay, Session, UpstreamFailure};
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
    pub(super) session: SharedSession,
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
        receive::scope(&self.inner, &self.route, &self.context.principal, legacy)
    }

    fn turn(&self, step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>) -> Turn {
        turn(&self.inner.shared, &self.session, step)
    }

    /// Whether the client still waits for the answer.
    pub(super) fn awaits(&self) -> bool {
        self.session.lock().is_ok_and(|session| session.awaits(&self.call))
    }

    /// A message from the server, in this exchange or on a stream of its own. `numbered`: its
    /// event has an id, so it may come again.
    pub(super) fn server_message(&self, data: &Bytes, numbered: bool) -> Turn {
        let within = (self.dispatch != Dispatch::OpenStream).then_some(&self.call);
        let replay = Replay { numbered, resumed: self.resumes };
        self.turn(|session, gate, now| Some(session.server_event(gate, within, data, replay, now)))
    }

    /// The way to the server failed.
    pub(super) fn fail(&self, failure: &UpstreamFailure) -> Turn {
        self.turn(|session, _, now| session.upstream_failed(&self.call, failure, now))
    }

    /// The client went away.
    pub(super) fn client_gone(&self) {
        record(&self.turn(|session, _, now| session.client_gone(&self.call, now)));
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

    /// Sends the message and brings back the answer, whatever becomes of the client meanwhile.
    pub(super) fn attended(
        exchange: &Arc<Self>,
        permitted: Permitted,
        (headers, budget): (HeaderMap, Held),
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        let carrying = Arc::clone(exchange).carry(permitted, headers, budget);
        Attended { carrying: Some(Box::pin(carrying)), exchange: Arc::clone(exchange) }
    }

    /// Sends the message and brings back the answer.
    async fn carry(
        self: Arc<Self>,
        permitted: Permitted,
        headers: HeaderMap,
        budget: Held,
    ) -> Response<ReplyBody> {
        let context = SendContext { headers, ..self.context.clone() };
        let sending = self.route.upstream.send(permitted, &context);
        let answer = if self.endless {
            tokio::select! {
                biased;
                answer = sending => answer,
                () = self.closing() => Err(UpstreamFailure::EndedEarly),
            }
        } else {
            let answered = tokio::time::timeout(self.waits().answer, sending).await;
            answered.unwrap_or(Err(UpstreamFailure::TimedOut))
        };
        drop(budget);
        match answer {
            Ok(Answer::Accepted { status, headers }) => self.accepted(status, &headers),
            Ok(Answer::Whole { status, headers, body }) => self.whole(status, &headers, body).await,
            Ok(Answer::Stream { status, headers, events }) => self.stream(status, &headers, events),
            Err(failure) => self.failed(&failure),
        }
    }

    fn accepted(&self, status: u16, headers: &HeaderMap) -> Response<ReplyBody> {
        if self.dispatch == Dispatch::EndSession {
            self.forget_session();
        }
        match self.accept() {
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                let mut headers = reply::headers(headers, self.named(headers));
                headers.remove(CONTENT_TYPE);
                reply::whole(status, headers, Bytes::new())
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn accept(&self) -> Turn {
        self.turn(|session, _, now| session.upstream_accepted(&self.call, now))
    }

    async fn whole(
        self: &Arc<Self>,
        status: u16,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response<ReplyBody> {
        self.note_status(status);
        let turn = if (200..300).contains(&status) {
            self.server_message(&body, false)
        } else {
            self.error(status, headers, body)
        };
        match turn {
            Turn::Act(Act::Deliver(released)) if released.is_own() => reply::own(&released),
            Turn::Act(Act::Deliver(mut released)) => {
                if let Some(permitted) = released.take_back() {
                    self.answer_server(permitted).await;
                }
                if self.awaits() {
                    // Nothing follows a whole body: what it leaves unanswered stays so.
                    record(&self.fail(&UpstreamFailure::EndedEarly));
                }
                // Whose sessions we name ends one whose `initialize` it refuses.
                let refused = self.begins == Begins::Ours && released.content() == Content::Error;
                let session = if refused { None } else { self.begin_session(status, headers) };
                let headers = reply::headers(headers, session);
                reply::whole(status, headers, released.body().clone())
            }
            Turn::Act(Act::Forward(permitted)) => {
                self.answer_server(permitted).await;
                self.unanswered()
            }
            Turn::Act(Act::Drop) => self.unanswered(),
            Turn::Settled => reply::whole(status, reply::headers(headers, None), Bytes::new()),
            Turn::Refused(Some(released)) => reply::own(&released),
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The body was withheld. Whoever asked gets an error; whoever told is only told that it
    /// arrived.
    fn unanswered(&self) -> Response<ReplyBody> {
        if self.awaits() {
            return self.failed(&UpstreamFailure::EndedEarly);
        }
        record(&self.accept());
        reply::bare(StatusCode::ACCEPTED)
    }

    /// An HTTP error: a body that is an answer is judged as one, any other passes as it is. Clients
    /// of both eras read the status, and a probe's body must arrive unchanged.
    fn error(&self, status: u16, headers: &HeaderMap, body: Bytes) -> Turn {
        let answer = ErrorAnswer { status, json: claims_json(headers), body };
        let message = media(headers) == Some(Media::Json);
        self.turn(|session, gate, now| {
            if message {
                session.server_error(gate, &self.call, answer, now)
            } else {
                session.upstream_status(gate, &self.call, answer, now)
            }
        })
    }

    fn stream(
        self: Arc<Self>,
        status: u16,
        headers: &HeaderMap,
        events: EventStream,
    ) -> Response<ReplyBody> {
        // The call of a stream without a question is over once it is open.
        if !self.asks {
            match self.accept() {
                Turn::Act(_) | Turn::Settled => {}
                Turn::Refused(Some(released)) => return reply::own(&released),
                Turn::Refused(None) => return reply::bare(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
        let headers = reply::headers(headers, self.begin_session(status, headers));
        reply::stream(status, headers, StreamBody::new(self, events))
    }

    pub(super) fn failed(&self, failure: &UpstreamFailure) -> Response<ReplyBody> {
        match self.fail(failure) {
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                reply::bare(StatusCode::BAD_GATEWAY)
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
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
        record(&self.turn(|session, _, now| match answer {
            Ok(Ok(_)) => session.upstream_accepted(&call, now),
            Ok(Err(failure)) => session.upstream_failed(&call, &failure, now),
            Err(_) => session.upstream_failed(&call, &UpstreamFailure::TimedOut, now),
        }));
    }

    /// Remembers the session that an answer to `initialize` begins, and gives the id that the
    /// client may be told.
    fn begin_session(&self, status: u16, headers: &HeaderMap) -> Option<&str> {
        let success = (200..300).contains(&status);
        let theirs = match self.begins {
            Begins::Ours if success => self.context.session.as_deref()?,
            Begins::Theirs if success => headers.get(SESSION_ID)?.to_str().ok()?,
            Begins::Nothing | Begins::Ours | Begins::Theirs => return self.named(headers),
        };
        if self.legacy.get().is_none() {
            let now = self.uptime();
            let (session, principal) = (&self.session, &self.context.principal);
            let begun = self.route.sessions.begin(theirs, session, principal, now)?;
            return Some(&*self.legacy.get_or_init(|| begun).ours);
        }
        self.named(headers)
    }

    /// The session id of an answer as the client knows it, if it is the session that was asked
    /// in: no other is adopted.
    fn named(&self, headers: &HeaderMap) -> Option<&str> {
        let legacy = self.legacy.get()?;
        headers.get(SESSION_ID).is_some_and(|id| *id == *legacy.theirs).then_some(&*legacy.ours)
    }

    /// 404 says that the server has no such session any more.
    fn note_status(&self, status: u16) {
        if status == 404 && self.era == Era::Legacy {
            self.forget_session();
        }
    }

    fn forget_session(&self) {
        let ours = self.legacy.get().map(|legacy| &*legacy.ours);
        if let Some(session) = ours.and_then(|ours| self.route.sessions.remove(ours)) {
            let calls = session.lock().map(|session| session.in_flight()).unwrap_or_default();
            for call in calls.iter().filter(|call| **call != self.call) {
                record(&self.turn(|session, _, now| session.client_gone(call, now)));
            }
        }
    }
}

pub(super) fn claims_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_TYPE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("json")))
}

/// An exchange that its client's connection polls, and what becomes of it when that goes away.
struct Attended {
    carrying: Option<Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>>,
    exchange: Arc<Exchange>,
}

impl Future for Attended {
    type Output = Response<ReplyBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(carrying) = &mut self.carrying else { return Poll::Pending };
        let response = std::task::ready!(carrying.as_mut().poll(cx));
        self.carrying = None;
        Poll::Ready(response)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(carrying) = self.carrying.take() else { return };
        if self.exchange.era == Era::Modern || !self.exchange.asks && self.exchange.endless {
            drop(carrying);
            self.exchange.client_gone();
        } else {
            // A response that nobody takes is dropped, and a stream in it decides for itself.
            let unattended = async move { drop(carrying.await) };
            Exchange::run_on(&self.exchange, unattended);
        }
    }
}
