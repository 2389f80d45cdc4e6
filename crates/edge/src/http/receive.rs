//! From a request to the gate: the door, the session, the whole body, the first step.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::bearer::Caller;
use super::body::{self, BodyLimits};
use super::gauge::Held;
use super::in_flight::{Begins, Exchange, PROTOCOL_VERSION};
use super::reply::{self, ReplyBody};
use super::sessions::LegacySession;
use super::turned_away::TurnedAway;
use super::well_known::Site;
use super::wire::Peer;
use super::{Inner, RouteState, bearer, close_sessions, door, legacy_sse, well_known};
use crate::seats::mint;
use crate::session::{SessionHandle, Turn};
use crate::upstream::{LAST_EVENT_ID, SESSION_ID, SendContext};
use bartizan_gate::evidence::step::{Act, Dispatch, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Arrival, DoorRefusal, Session, UpstreamFailure};
use bartizan_gate::wire::headers::era_of;
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::{Era, Transport};

/// Answers one request.
pub(super) async fn answer(
    inner: Arc<Inner>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let busy = peer.begin();
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let legacy = legacy_sse::find(&inner, &parts.uri);
    let answered = match (legacy, inner.site(&parts)) {
        (Some(called), _) => legacy_sse::answer(&inner, &peer, called, (parts, body)).await,
        (None, Some(site)) => site.answer(&inner, &peer, parts, body).await,
        (None, None) => match receive(&inner, &peer, parts, body).await {
            Ok(received) => Ok(received.answer(Arc::clone(&inner)).await),
            Err(turned_away) => Err(turned_away),
        },
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(turned_away) => {
            let response = turned_away.refuse(&inner.shared);
            let http1 = version < Version::HTTP_2;
            let untrusted = turned_away.why == DoorRefusal::Framing || peer.is_ambiguous();
            if http1 && untrusted { reply::last(response) } else { response }
        }
    };
    match response.body_mut() {
        ReplyBody::Events(events) => events.hold(busy),
        ReplyBody::Whole(_) => {}
    }
    response
}

/// A request whose door checks are done and whose body is whole.
struct Received {
    route: Arc<RouteState>,
    session: Arc<SessionHandle>,
    legacy: Option<Arc<LegacySession>>,
    /// A GET that goes on where another stream ended.
    resumes: bool,
    context: SendContext,
    /// Until when the client's token holds, by uptime.
    until: Option<Duration>,
    method: Method,
    arrival: Arrival,
    slot: Held,
    stream_slots: Vec<Held>,
    /// The body's share of the budget, until it is sent.
    budget: Held,
    /// Where the client finds out how to get a token; where OAuth is in the way.
    metadata_url: Option<String>,
}

async fn receive(
    inner: &Inner,
    peer: &Peer,
    mut parts: Parts,
    body: Incoming,
) -> Result<Received, TurnedAway> {
    let found = door::path(&parts.uri).and_then(|path| inner.routes.get(path));
    let away = |why| TurnedAway::from(why, found);
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let Some(route) = found else { return Err(bearer::stray(inner, &parts.uri)) };
    door::admit(&parts, &route.allowed, inner.config.limits.headers_max).map_err(away)?;
    let slot = inner.exchanges.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?;
    let Caller { principal, until } = bearer::caller(inner, route, &mut parts.headers).await?;
    let away = |why| TurnedAway { principal: Some(Arc::clone(&principal)), ..away(why) };
    let routing = door::routing(&parts.headers).map_err(away)?;
    let traceparent = door::text(&parts.headers, "traceparent").map_err(away)?;
    let modern =
        routing.protocol_version.as_deref().is_some_and(|text| era_of(text) == Era::Modern);
    // Modern requests have no session and resume nothing; ids that come along are ignored and not
    // passed on.
    let legacy = if modern {
        None
    } else {
        known_session(inner, route, &principal, &parts.headers).map_err(away)?
    };
    let opens = parts.method == Method::GET;
    let stream_slots =
        if opens { stream_slots(inner, legacy.as_deref()).map_err(away)? } else { Vec::new() };
    let resumes = opens && !modern;
    let who = (&**route, &*principal);
    let resumes = resume(inner, who, (legacy.as_deref(), resumes), &mut parts.headers);
    let resumes = resumes.map_err(away)?;
    let session = legacy
        .as_ref()
        .map_or_else(|| new_session(inner, route, &principal), |known| Arc::clone(&known.session));
    let (raw, budget) = body::read(body, inner.body_limits()).await.map_err(away)?;
    // Chunk framing comes with the body.
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let metadata_url = well_known::public(route, &parts).map(|public| public.metadata_url());
    let context = SendContext {
        headers: parts.headers,
        session: legacy.as_ref().map(|legacy| legacy.theirs.clone()),
        principal,
    };
    Ok(Received {
        route: Arc::clone(route),
        session,
        legacy,
        resumes,
        context,
        until,
        method: parts.method,
        arrival: Arrival { raw, headers: Some(routing), traceparent },
        slot,
        stream_slots,
        budget,
        metadata_url,
    })
}

/// The session that `headers` name, if it is the principal's. One that a panic closed is forgotten:
/// its client will initialize anew.
fn known_session(
    inner: &Inner,
    route: &RouteState,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<Option<Arc<LegacySession>>, DoorRefusal> {
    let Some(id) = door::text(headers, SESSION_ID.as_str())? else { return Ok(None) };
    let now = inner.shared.clock.uptime();
    let known = route.sessions.find(&id, principal, now);
    let known = known.ok_or(DoorRefusal::UnknownSession)?;
    if known.session.is_closed() {
        drop(route.sessions.remove(&id));
        return Err(DoorRefusal::UnknownSession);
    }
    Ok(Some(known))
}

/// Room for one more GET stream, of all and of its session.
fn stream_slots(inner: &Inner, legacy: Option<&LegacySession>) -> Result<Vec<Held>, DoorRefusal> {
    let mut slots = vec![inner.streams.take(1).ok_or(DoorRefusal::TooMany)?];
    if let Some(legacy) = legacy {
        slots.push(legacy.streams.take(1).ok_or(DoorRefusal::TooMany)?);
    }
    Ok(slots)
}

/// Puts the server's event id in the place of ours where the request `may` resume a stream, else
/// removes it; says whether it resumes one. The right to ask is the id itself, which only this
/// principal was given in this session (threat F6).
fn resume(
    inner: &Inner,
    (route, principal): (&RouteState, &Principal),
    (legacy, may): (Option<&LegacySession>, bool),
    headers: &mut HeaderMap,
) -> Result<bool, DoorRefusal> {
    let Some(sealed) = headers.remove(LAST_EVENT_ID).filter(|_| may) else { return Ok(false) };
    let id = inner.event_scope(route, principal, legacy).open(sealed.as_bytes());
    headers.insert(LAST_EVENT_ID, id.ok_or(DoorRefusal::UnknownEvent)?);
    if let Some(legacy) = legacy {
        legacy.came_back(inner.shared.clock.uptime());
    }
    Ok(true)
}

fn new_session(
    inner: &Inner,
    route: &RouteState,
    principal: &Arc<Principal>,
) -> Arc<SessionHandle> {
    let principal = Arc::clone(principal);
    let session = Session::new(principal, Arc::clone(&route.server), Transport::Http);
    Arc::new(SessionHandle::new(&inner.shared, session))
}

impl Received {
    async fn answer(mut self, inner: Arc<Inner>) -> Response<ReplyBody> {
        let Some(ours) = self.metadata_url.take() else { return self.handle(inner).await };
        let route = Arc::clone(&self.route);
        let mut response = self.handle(inner).await;
        if let Some(oauth) = &route.oauth {
            well_known::relabel(oauth, &ours, response.headers_mut());
        }
        response
    }

    async fn handle(mut self, inner: Arc<Inner>) -> Response<ReplyBody> {
        let arrival = std::mem::take(&mut self.arrival);
        let turn = self.session.step(None, |session, gate, now| {
            Some(match self.method {
                Method::GET => session.open_stream(gate, now),
                Method::DELETE => session.end(gate, now),
                _ => session.client_frame(gate, &arrival, now),
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
        let role = permitted.method().map(|method| method.role);
        let initialize = role == Some(Role::Handshake);
        let dispatch = permitted.dispatch();
        let endless = dispatch == Dispatch::OpenStream || role == Some(Role::Listen);
        if endless && self.stream_slots.is_empty() {
            self.stream_slots.extend(inner.streams.take(1));
        }
        let crowded = endless && self.stream_slots.is_empty();
        let room = !initialize || self.context.session.is_some() || inner.make_room(&self.route);
        let begins = match (initialize, self.route.upstream.mints_sessions()) {
            (true, true) => Begins::Theirs,
            // No server mints the id of such a session; we do.
            (true, false) if self.context.session.is_none() => Begins::Ours,
            (true, false) | (false, _) => Begins::Nothing,
        };
        if begins == Begins::Ours {
            self.context.session = mint();
        }
        let mut headers = std::mem::take(&mut self.context.headers);
        if endless {
            detach(&mut headers);
        }
        let version = headers.get(PROTOCOL_VERSION).map(detached);
        let known = self.legacy.as_ref().filter(|_| self.resumes);
        let resuming = known.map(|legacy| Arc::clone(&legacy.resuming));
        let exchange = Arc::new(Exchange {
            call: Arc::clone(permitted.call()),
            asks: permitted.id().is_some(),
            era: permitted.protocol().era,
            dispatch,
            begins,
            endless,
            inner,
            route: self.route,
            legacy: self.legacy.map(OnceLock::from).unwrap_or_default(),
            resumes: self.resumes,
            session: self.session,
            context: self.context,
            until: self.until,
            version,
            _slot: self.slot,
            _stream_slots: self.stream_slots,
            _resuming: resuming,
        });
        if crowded || !room {
            drop(permitted);
            let why = "no room for one more session or stream".to_owned();
            return exchange.failed(&UpstreamFailure::Unreachable(why));
        }
        Exchange::attended(&exchange, permitted, (headers, self.budget)).await
    }
}

impl Inner {
    /// What `parts` ask for beside the routes.
    fn site(&self, parts: &Parts) -> Option<Site> {
        if self.routes.contains_key(parts.uri.path()) { None } else { self.sites.find(parts) }
    }

    fn body_limits(&self) -> BodyLimits<'_> {
        BodyLimits {
            bytes_max: self.config.limits.body_bytes_max,
            budget: &self.body_budget,
            patience: self.config.timeouts.body,
        }
    }

    /// Whether one more session fits, perhaps after idle ones are forgotten.
    fn make_room(&self, route: &RouteState) -> bool {
        if !route.sessions.has_room() {
            close_sessions(route.sessions.expire(self.shared.clock.uptime()));
        }
        route.sessions.has_room()
    }
}

/// Gives each value memory of its own. As they come they share the buffer that the connection read
/// them into, and while one of them is there the connection must take another to read on.
fn detach(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        *value = detached(value);
    }
}

fn detached(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}
