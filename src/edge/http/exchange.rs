//! One exchange: a request in, the gate's acts carried out, an answer back.
//!
//! The way is straight: [`receive`] makes a message of the request, the gate judges it, and if it
//! may go [`Exchange::carry`] sends it and brings back the answer. The exchange is polled by the
//! client's connection; if that goes away first, [`Attended`] either lets go of the server at once
//! (2026-07-28: a disconnect is a cancellation) or lets the exchange run on in a tracked task (the
//! legacy eras: it is not), and either way the outcome is recorded. Nothing is sent twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use bytes::Bytes;
use hyper::body::Incoming;

use super::body::{self, BodyLimits};
use super::gauge::Held;
use super::reply::{self, ReplyBody};
use super::sessions::SharedSession;
use super::stream::StreamBody;
use super::wire::Peer;
use super::{HttpTimeouts, Inner, RouteState, door};
use crate::edge::upstream::{Media, SESSION_ID, SendContext, Upstream, media};
use crate::edge::{Answer, EventStream, Shared};
use crate::gate::access::{Era, Transport};
use crate::gate::frame::{Frame, FrameLimits, Message, Sender};
use crate::gate::headers::era_of;
use crate::gate::record::{CallId, Now};
use crate::gate::session::{
    Arrival, DoorFacts, DoorRefusal, ErrorAnswer, Gate, Session, UpstreamFailure,
};
use crate::gate::step::{Act, Dispatch, Permitted, Released, Step, Unrecorded};

const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// Answers one request.
pub(super) async fn answer(
    inner: Arc<Inner>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let busy = peer.begin();
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let mut response = match receive(&inner, &peer, parts, body).await {
        Ok(received) => received.handle(inner).await,
        Err(turned_away) => {
            let response = turned_away.refuse(&inner.shared);
            let http1 = version < Version::HTTP_2;
            let untrusted = turned_away.why == DoorRefusal::Framing || peer.is_ambiguous();
            if http1 && untrusted { reply::last(response) } else { response }
        }
    };
    if let ReplyBody::Stream(stream) = response.body_mut() {
        stream.hold(busy);
    }
    response
}

/// A request that was no message.
struct TurnedAway {
    why: DoorRefusal,
    route: Option<Arc<RouteState>>,
}

impl TurnedAway {
    fn refuse(&self, shared: &Shared) -> Response<ReplyBody> {
        let facts = DoorFacts {
            principal: self.route.as_ref().map(|route| &*route.principal),
            server: self.route.as_ref().map(|route| &*route.server.facts.name),
            note: None,
        };
        let step = shared.gate.refuse_at_door(self.why, facts, shared.now());
        match shared.record(step) {
            Ok(Act::Deliver(released)) => reply::own(&released),
            Err(Unrecorded { refusal: Some(released), .. }) => reply::own(&released),
            Ok(Act::Forward(_) | Act::Drop) | Err(_) => {
                reply::bare(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// A request whose door checks are done and whose body is whole.
struct Received {
    route: Arc<RouteState>,
    session: SharedSession,
    context: SendContext,
    method: Method,
    arrival: Arrival,
    slot: Held,
    /// The body's share of the budget, until it is sent.
    budget: Held,
}

async fn receive(
    inner: &Inner,
    peer: &Peer,
    parts: Parts,
    body: Incoming,
) -> Result<Received, TurnedAway> {
    let limits = &inner.config.limits;
    let found = door::path(&parts.uri).and_then(|path| inner.routes.get(path));
    let away = |why| TurnedAway { why, route: found.cloned() };
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let Some(route) = found else { return Err(away(DoorRefusal::UnknownPath)) };
    door::admit(&parts, &route.allowed, limits.headers_max).map_err(away)?;
    let slot = inner.exchanges.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?;
    let routing = door::routing(&parts.headers).map_err(away)?;
    let traceparent = door::text(&parts.headers, "traceparent").map_err(away)?;
    let modern =
        routing.protocol_version.as_deref().is_some_and(|text| era_of(text) == Era::Modern);
    // Modern requests have no session; an id that comes along is ignored and not passed on.
    let id = if modern {
        None
    } else {
        door::text(&parts.headers, SESSION_ID.as_str()).map_err(away)?
    };
    let session = match &id {
        Some(id) => {
            known_session(inner, route, id).ok_or_else(|| away(DoorRefusal::UnknownSession))?
        }
        None => new_session(route),
    };
    let (raw, budget) = body::read(
        body,
        BodyLimits {
            bytes_max: limits.body_bytes_max,
            budget: &inner.body_budget,
            patience: Duration::from_millis(inner.config.timeouts.body_ms),
        },
    )
    .await
    .map_err(away)?;
    // Chunk framing comes with the body.
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let context =
        SendContext { headers: parts.headers, session: id, principal: Arc::clone(&route.principal) };
    Ok(Received {
        route: Arc::clone(route),
        session,
        context,
        method: parts.method,
        arrival: Arrival { raw, headers: Some(routing), traceparent },
        slot,
        budget,
    })
}

/// The session `id` of the route's principal. One that a bug left in no known state is forgotten:
/// its client will initialize anew.
fn known_session(inner: &Inner, route: &RouteState, id: &str) -> Option<SharedSession> {
    let now = inner.shared.clock.uptime();
    let session = route.sessions.find(id, &route.principal, now)?;
    if session.is_poisoned() {
        drop(route.sessions.remove(id));
        return None;
    }
    Some(session)
}

fn new_session(route: &RouteState) -> SharedSession {
    let principal = Arc::clone(&route.principal);
    Arc::new(Session::new(principal, Arc::clone(&route.server), Transport::Http).into())
}

impl Received {
    async fn handle(mut self, inner: Arc<Inner>) -> Response<ReplyBody> {
        let arrival = std::mem::take(&mut self.arrival);
        let turn = turn(&inner.shared, &self.session, |session, gate, now| {
            Some(match self.method {
                Method::GET => session.open_stream(gate, now),
                Method::DELETE => session.end(gate, now),
                _ => session.client_frame(gate, arrival, now),
            })
        });
        match turn {
            Turn::Act(Act::Forward(permitted)) => self.forward(inner, permitted).await,
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Drop) => reply::bare(StatusCode::ACCEPTED),
            Turn::Settled | Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    async fn forward(mut self, inner: Arc<Inner>, permitted: Permitted) -> Response<ReplyBody> {
        let method = permitted.routing().method.as_deref();
        let initialize = method == Some("initialize");
        let dispatch = permitted.dispatch();
        let endless =
            dispatch == Dispatch::OpenStream || method == Some("subscriptions/listen");
        let stream_slot = if endless { inner.streams.take(1) } else { None };
        let crowded = endless && stream_slot.is_none();
        let room = !initialize || self.context.session.is_some() || inner.make_room(&self.route);
        let child = matches!(self.route.upstream, Upstream::Child(_));
        if initialize && child && self.context.session.is_none() {
            // No server mints the id of a session with a child; we do.
            self.context.session = mint();
        }
        let minted = initialize && child;
        let exchange = Arc::new(Exchange {
            call: Arc::clone(permitted.call()),
            asks: permitted.id().is_some(),
            era: turn_era(&self.session),
            dispatch,
            initialize,
            minted,
            endless,
            inner,
            route: self.route,
            session: self.session,
            context: self.context,
            _slot: self.slot,
            _stream_slot: stream_slot,
        });
        if crowded || !room {
            drop(permitted);
            let why = "no room for one more session or stream".to_owned();
            return exchange.failed(&UpstreamFailure::Unreachable(why));
        }
        let carrying = Arc::clone(&exchange).carry(permitted, self.budget);
        Attended { carrying: Some(Box::pin(carrying)), exchange }.await
    }
}

impl Inner {
    /// Whether one more session fits, perhaps after idle ones are forgotten.
    fn make_room(&self, route: &RouteState) -> bool {
        if !route.sessions.has_room() {
            self.close_sessions(route.sessions.expire(self.shared.clock.uptime()));
        }
        route.sessions.has_room()
    }
}

/// 128 random bits: not to be guessed (MCP "Session Hijacking").
fn mint() -> Option<Box<str>> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bits)).into())
}

/// What came of one step.
pub(super) enum Turn {
    /// The act, its record kept.
    Act(Act),
    /// There was nothing to do: the call is settled already.
    Settled,
    /// No record, so no act; and what the client is told, if anything.
    Refused(Option<Released>),
}

/// One step of `session`, recorded. The lock is held for the step alone. A lock that is poisoned
/// closes the session: a bug may have left it in no known state.
fn turn(
    shared: &Shared,
    session: &SharedSession,
    step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
) -> Turn {
    let now = shared.now();
    let step = match session.lock() {
        Ok(mut session) => step(&mut session, &shared.gate, now),
        Err(_) => return Turn::Refused(None),
    };
    let Some(step) = step else { return Turn::Settled };
    match shared.record(step) {
        Ok(act) => Turn::Act(act),
        Err(Unrecorded { call, refusal, .. }) => {
            if let (Some(call), Ok(mut session)) = (call, session.lock()) {
                session.forget(&call);
            }
            Turn::Refused(refusal)
        }
    }
}

fn turn_era(session: &SharedSession) -> Era {
    session.lock().map_or(Era::Legacy, |session| session.protocol().era)
}

/// Closes what `session` has in flight: nobody will come for it any more.
pub(super) fn abandon(shared: &Shared, session: &SharedSession) {
    let calls = session.lock().map(|session| session.in_flight()).unwrap_or_default();
    for call in calls {
        record(turn(shared, session, |session, _, now| session.client_gone(&call, now)));
    }
}

/// The record was what mattered; there is nobody to act for.
fn record(turn: Turn) {
    if let Turn::Refused(_) = turn {
        tracing::error!("an outcome could not be recorded");
    }
}

/// A permitted message on its way, and the answer on its way back.
pub(super) struct Exchange {
    inner: Arc<Inner>,
    route: Arc<RouteState>,
    session: SharedSession,
    context: SendContext,
    call: CallId,
    /// Somebody waits for an answer to this very message.
    asks: bool,
    era: Era,
    dispatch: Dispatch,
    initialize: bool,
    /// The session's id is ours.
    minted: bool,
    /// The stream has no end: a legacy GET stream, or `subscriptions/listen`.
    endless: bool,
    _slot: Held,
    _stream_slot: Option<Held>,
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
        self.context.session.is_some()
    }

    pub(super) fn waits(&self) -> &HttpTimeouts {
        &self.inner.config.timeouts
    }

    pub(super) async fn closing(&self) {
        self.inner.shared.closing.cancelled().await;
    }

    fn turn(&self, step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>) -> Turn {
        turn(&self.inner.shared, &self.session, step)
    }

    /// Whether the client still waits for the answer.
    pub(super) fn awaits(&self) -> bool {
        self.session.lock().is_ok_and(|session| session.awaits(&self.call))
    }

    /// A message from the server, in this exchange or on a stream of its own.
    pub(super) fn server_message(&self, data: &Bytes) -> Turn {
        self.turn(|session, gate, now| {
            Some(if self.dispatch == Dispatch::OpenStream {
                session.server_frame(gate, data, now)
            } else {
                session.server_answer(gate, &self.call, data, now)
            })
        })
    }

    /// The way to the server failed.
    pub(super) fn fail(&self, failure: &UpstreamFailure) -> Turn {
        self.turn(|session, _, now| session.upstream_failed(&self.call, failure, now))
    }

    /// The client went away.
    pub(super) fn client_gone(&self) {
        record(self.turn(|session, _, now| session.client_gone(&self.call, now)));
    }

    /// Lets `work` run to its end without a client, for a bounded time.
    pub(super) fn run_on(
        exchange: &Arc<Self>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        // Without a runtime the program is ending, and the journal closes what is open.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let exchange = Arc::clone(exchange);
        let tasks = exchange.inner.shared.tasks.clone();
        let running = async move {
            let patience = Duration::from_millis(exchange.waits().drain_ms);
            if tokio::time::timeout(patience, work).await.is_err() {
                exchange.client_gone();
            }
        };
        drop(tasks.spawn_on(running, &runtime));
    }

    /// Sends the message and brings back the answer.
    async fn carry(self: Arc<Self>, permitted: Permitted, budget: Held) -> Response<ReplyBody> {
        let sending = self.route.upstream.send(permitted, &self.context);
        let answer = if self.endless {
            tokio::select! {
                biased;
                answer = sending => answer,
                () = self.closing() => Err(UpstreamFailure::EndedEarly),
            }
        } else {
            let patience = Duration::from_millis(self.waits().answer_ms);
            let answered = tokio::time::timeout(patience, sending).await;
            answered.unwrap_or(Err(UpstreamFailure::TimedOut))
        };
        drop(budget);
        match answer {
            Ok(Answer::Accepted { status, headers }) => self.accepted(status, &headers),
            Ok(Answer::Whole { status, headers, body }) => {
                if (200..300).contains(&status) || is_answer(&headers, &body) {
                    self.whole(status, &headers, body).await
                } else {
                    self.error(status, &headers, body)
                }
            }
            Ok(Answer::Stream { status, headers, events }) => self.stream(status, &headers, events),
            Err(failure) => self.failed(&failure),
        }
    }

    fn accepted(&self, status: u16, headers: &HeaderMap) -> Response<ReplyBody> {
        if let (Dispatch::EndSession, Some(id)) = (self.dispatch, &self.context.session) {
            self.forget_session(id);
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
        match self.server_message(&body) {
            Turn::Act(Act::Deliver(released)) if released.is_own() => reply::own(&released),
            Turn::Act(Act::Deliver(released)) => {
                let session = self.begin_session(status, headers);
                let headers = reply::headers(headers, session);
                reply::whole(status, headers, released.body().clone())
            }
            Turn::Act(Act::Forward(permitted)) => {
                self.answer_server(permitted).await;
                self.unanswered()
            }
            Turn::Act(Act::Drop) | Turn::Settled => self.unanswered(),
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
        record(self.accept());
        reply::bare(StatusCode::ACCEPTED)
    }

    /// An HTTP error whose body is no answer passes as it is: clients of both eras read the
    /// status, and a probe's body must arrive unchanged.
    fn error(&self, status: u16, headers: &HeaderMap, body: Bytes) -> Response<ReplyBody> {
        self.note_status(status);
        let answer = ErrorAnswer { status, json: claims_json(headers), body };
        let turn = self.turn(|session, gate, now| {
            session.upstream_status(gate, &self.call, answer, now)
        });
        match turn {
            Turn::Act(Act::Deliver(released)) if !released.is_own() => {
                let headers = reply::headers(headers, self.named(headers));
                reply::whole(status, headers, released.body().clone())
            }
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                reply::whole(status, reply::headers(headers, None), Bytes::new())
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
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

    fn failed(&self, failure: &UpstreamFailure) -> Response<ReplyBody> {
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
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if let Some(version) = self.context.headers.get(PROTOCOL_VERSION) {
            headers.insert(PROTOCOL_VERSION, version.clone());
        }
        let context = SendContext {
            headers,
            session: self.context.session.clone(),
            principal: Arc::clone(&self.context.principal),
        };
        let patience = Duration::from_millis(self.waits().answer_ms);
        let sending = self.route.upstream.send(permitted, &context);
        let answer = tokio::time::timeout(patience, sending).await;
        record(self.turn(|session, _, now| match answer {
            Ok(Ok(_)) => session.upstream_accepted(&call, now),
            Ok(Err(failure)) => session.upstream_failed(&call, &failure, now),
            Err(_) => session.upstream_failed(&call, &UpstreamFailure::TimedOut, now),
        }));
    }

    /// Remembers the session that an answer to `initialize` begins, and gives the id that the
    /// client may be told.
    fn begin_session<'a>(&'a self, status: u16, headers: &'a HeaderMap) -> Option<&'a str> {
        if !self.initialize || !(200..300).contains(&status) {
            return self.named(headers);
        }
        let id = if self.minted {
            self.context.session.as_deref()?
        } else {
            headers.get(SESSION_ID)?.to_str().ok()?
        };
        let known = self.context.session.as_deref() == Some(id) && !self.minted;
        let now = self.inner.shared.clock.uptime();
        let sessions = &self.route.sessions;
        (known || sessions.insert(id, &self.session, &self.route.principal, now)).then_some(id)
    }

    /// The session id of an answer, if it is the one that was asked in: no other is adopted.
    fn named<'a>(&'a self, headers: &HeaderMap) -> Option<&'a str> {
        let own = self.context.session.as_deref()?;
        headers.get(SESSION_ID).is_some_and(|id| id == own).then_some(own)
    }

    /// 404 says that the server has no such session any more.
    fn note_status(&self, status: u16) {
        if let (404, Era::Legacy, Some(id)) = (status, self.era, &self.context.session) {
            self.forget_session(id);
        }
    }

    fn forget_session(&self, id: &str) {
        if let Some(session) = self.route.sessions.remove(id) {
            let calls = session.lock().map(|session| session.in_flight()).unwrap_or_default();
            for call in calls.iter().filter(|call| **call != self.call) {
                record(self.turn(|session, _, now| session.client_gone(call, now)));
            }
        }
    }
}

/// Whether the body of an error answer is a JSON-RPC answer, which then is judged as one.
fn is_answer(headers: &HeaderMap, body: &Bytes) -> bool {
    media(headers) == Some(Media::Json)
        && Frame::read(body.clone(), Sender::Server, &FrameLimits::default()).is_ok_and(|frame| {
            matches!(frame.message(), Message::Result { .. } | Message::Error { .. })
        })
}

fn claims_json(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("json"))
    })
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
