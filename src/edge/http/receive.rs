//! From a request to the gate: the door, the session, the whole body, the first step.

use std::sync::Arc;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::{self, BodyLimits};
use super::exchange::{Begins, Exchange, PROTOCOL_VERSION};
use super::gauge::Held;
use super::reply::{self, ReplyBody};
use super::sessions::SharedSession;
use super::turn::{Turn, era, turn};
use super::well_known::Site;
use super::wire::Peer;
use super::{Inner, RouteState, door, well_known};
use crate::edge::Shared;
use crate::edge::upstream::{SESSION_ID, SendContext, Upstream};
use crate::gate::access::{Era, Transport};
use crate::gate::headers::era_of;
use crate::gate::session::{Arrival, DoorFacts, DoorRefusal, Session, UpstreamFailure};
use crate::gate::step::{Act, Dispatch, Permitted, Unrecorded};

/// Answers one request.
pub(super) async fn answer(
    inner: Arc<Inner>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let busy = peer.begin();
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let answered = match inner.site(&parts) {
        Some(site) => site.answer(&inner, &peer, parts, body).await,
        None => match receive(&inner, &peer, parts, body).await {
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
    if let ReplyBody::Stream(stream) = response.body_mut() {
        stream.hold(busy);
    }
    response
}

/// A request that was no message.
pub(super) struct TurnedAway {
    pub(super) why: DoorRefusal,
    pub(super) route: Option<Arc<RouteState>>,
    /// A header of the refusal: what the client may do instead.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

impl TurnedAway {
    pub(super) fn from(why: DoorRefusal, route: Option<&Arc<RouteState>>) -> Self {
        Self { why, route: route.cloned(), header: None }
    }

    fn refuse(&self, shared: &Shared) -> Response<ReplyBody> {
        let facts = DoorFacts {
            principal: self.route.as_ref().map(|route| &*route.principal),
            server: self.route.as_ref().map(|route| &*route.server.facts.name),
            note: None,
        };
        let step = shared.gate.refuse_at_door(self.why, facts, shared.now());
        match shared.record(step) {
            Ok(Act::Deliver(released)) => {
                let mut response = reply::own(&released);
                if let Some((name, value)) = self.header.clone() {
                    response.headers_mut().insert(name, value);
                }
                response
            }
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
    stream_slot: Option<Held>,
    /// The body's share of the budget, until it is sent.
    budget: Held,
    /// Where the client finds out how to get a token; where OAuth is in the way.
    metadata_url: Option<String>,
}

async fn receive(
    inner: &Inner,
    peer: &Peer,
    parts: Parts,
    body: Incoming,
) -> Result<Received, TurnedAway> {
    let limits = &inner.config.limits;
    let found = door::path(&parts.uri).and_then(|path| inner.routes.get(path));
    let away = |why| TurnedAway::from(why, found);
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let Some(route) = found else { return Err(away(DoorRefusal::UnknownPath)) };
    door::admit(&parts, &route.allowed, limits.headers_max).map_err(away)?;
    let slot = inner.exchanges.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?;
    let stream_slot = if parts.method == Method::GET {
        Some(inner.streams.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?)
    } else {
        None
    };
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
            patience: inner.config.timeouts.body,
        },
    )
    .await
    .map_err(away)?;
    // Chunk framing comes with the body.
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    let metadata_url = well_known::public(route, &parts).map(|public| public.metadata_url());
    let context = SendContext {
        headers: parts.headers,
        session: id,
        principal: Arc::clone(&route.principal),
    };
    Ok(Received {
        route: Arc::clone(route),
        session,
        context,
        method: parts.method,
        arrival: Arrival { raw, headers: Some(routing), traceparent },
        slot,
        stream_slot,
        budget,
        metadata_url,
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
        let endless = dispatch == Dispatch::OpenStream || method == Some("subscriptions/listen");
        let stream_slot = match self.stream_slot {
            None if endless => inner.streams.take(1),
            taken => taken,
        };
        let crowded = endless && stream_slot.is_none();
        let room = !initialize || self.context.session.is_some() || inner.make_room(&self.route);
        let child = matches!(self.route.upstream, Upstream::Child(_));
        let begins = match (initialize, child) {
            (true, false) => Begins::Theirs,
            // No server mints the id of a session with a child; we do.
            (true, true) if self.context.session.is_none() => Begins::Ours,
            (true, true) | (false, _) => Begins::Nothing,
        };
        if begins == Begins::Ours {
            self.context.session = mint();
        }
        let mut headers = std::mem::take(&mut self.context.headers);
        if endless {
            detach(&mut headers);
        }
        let version = headers.get(PROTOCOL_VERSION).map(detached);
        let exchange = Arc::new(Exchange {
            call: Arc::clone(permitted.call()),
            asks: permitted.id().is_some(),
            era: era(&self.session),
            dispatch,
            begins,
            endless,
            inner,
            route: self.route,
            session: self.session,
            context: self.context,
            version,
            _slot: self.slot,
            _stream_slot: stream_slot,
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

    /// Whether one more session fits, perhaps after idle ones are forgotten.
    fn make_room(&self, route: &RouteState) -> bool {
        if !route.sessions.has_room() {
            self.close_sessions(route.sessions.expire(self.shared.clock.uptime()));
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

/// 128 random bits: not to be guessed (MCP "Session Hijacking").
fn mint() -> Option<Box<str>> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bits)).into())
}
