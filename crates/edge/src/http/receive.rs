//! The way of a request to the gate: admission, authentication, session, body, and the gate's first
//! step. The listener calls [`answer`] for each HTTP request.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use bytes::Bytes;
use hyper::body::Incoming;

use super::bearer::Caller;
use super::body::{self, BodyLimits, BodyMemory};
use super::connection_state::ConnectionState;
use super::in_flight::{Exchange, PROTOCOL_VERSION, SessionStart};
use super::keep_alive::EarlyHead;
use super::refusals::Refused;
use super::rejection::{Rejection, RequestTarget};
use super::reply::{self, ReplyBody};
use super::sessions::LegacySession;
use super::shares::{self, Share, request_slots};
use super::well_known::Site;
use super::{
    LONG_HEAD_BYTES, ListenerState, RouteState, admission, bearer, close_sessions, legacy_sse,
    making, well_known,
};
use crate::budget::Reservation;
use crate::held::{HeldRequest, SpentGrants};
use crate::kept::FREE_BYTES;
use crate::listed::listed;
use crate::own_tasks::{self, AsTask, Making};
use crate::registry::mint;
use crate::session::{GoneClient, SessionHandle, StepOutcome};
use crate::upstream::{LAST_EVENT_ID, SESSION_ID, SendContext};
use bartizan_gate::evidence::step::{Act, Dispatch, Permitted, Released};
use bartizan_gate::memory::{Charge, MemoryBudget};
use bartizan_gate::question::access::Principal;
use bartizan_gate::question::task::TaskAct;
use bartizan_gate::session::{Arrival, DoorRefusal, DutyScope, Peer, Session, UpstreamFailure};
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::method::{Action, Method as McpMethod, Role};
use bartizan_gate::wire::protocol::{ClaimedVersion, Era, Transport};

/// Answers one HTTP request of a client: messages, and the discovery paths of OAuth. If the head was
/// sent `early`, of the response only the body is sent.
pub(super) async fn answer(
    inner: Arc<ListenerState>,
    peer: Arc<ConnectionState>,
    request: Request<Incoming>,
    early: Option<Arc<EarlyHead>>,
) -> Response<ReplyBody> {
    let busy = peer.begin();
    peer.let_others().await;
    let (parts, body) = request.into_parts();
    let target = RequestTarget::of(&parts);
    if head_bytes(&parts) > LONG_HEAD_BYTES {
        peer.note_long_head();
    }
    let http1 = parts.version < Version::HTTP_2;
    let legacy = legacy_sse::find(&inner, &parts.uri);
    let answered = match (legacy, inner.site(&parts)) {
        (Some(called), _) => legacy_sse::answer(&inner, &peer, called, (parts, body)).await,
        (None, Some(site)) => site.answer(&inner, &peer, parts, body).await,
        (None, None) => match receive(&inner, &peer, parts, body).await {
            Ok(mut received) => {
                received.early.clone_from(&early);
                Ok(received.answer(Arc::clone(&inner)).await)
            }
            Err(rejection) => Err(rejection),
        },
    };
    let is_part = early.is_some_and(|early| early.is_sent());
    let (response, untrusted) = match answered {
        Ok(mut response) => match response.extensions_mut().remove::<Refused>() {
            Some(Refused(who)) => {
                peer.note_refusal();
                match inner.limited(&who, &peer, http1) {
                    // The refusal is all that says what became of the call.
                    Some(_) if is_part && http1 => peer.ends_soon(),
                    Some(limited) if !is_part => response = limited,
                    Some(_) | None => {}
                }
                (response, false)
            }
            None => (response, false),
        },
        Err(rejection) => {
            let response = rejection.refuse(&inner.shared, &peer, Some(&target));
            let who = rejection.principal.as_deref().map_or("", |principal| &principal.id);
            let response = inner.limited(who, &peer, http1).unwrap_or(response);
            (response, rejection.why == DoorRefusal::Framing || peer.is_ambiguous())
        }
    };
    let last = http1 && (untrusted || peer.takes_no_more());
    let response = inner.answers.counted(response, peer.number());
    if is_part {
        return response;
    }
    reply::held(if last { reply::last(response) } else { response }, busy)
}

/// A request that passed admission and authentication, with its whole body.
struct Received {
    route: Arc<RouteState>,
    session: Arc<SessionHandle>,
    legacy: Option<Arc<LegacySession>>,
    /// A GET that resumes a stream with `Last-Event-ID`.
    resumes: bool,
    context: SendContext,
    /// When the client's access token expires, as uptime; `None` without one.
    until: Option<Duration>,
    method: Method,
    /// Where it comes from.
    peer: Peer,
    arrival: Arrival,
    slots: Vec<Reservation>,
    stream_slots: Vec<Reservation>,
    /// The memory of the request's head, until the answer is over.
    head_memory: Option<Charge>,
    /// The memory reserved for the body, until the body is sent.
    budget: BodyMemory,
    /// The URL of our metadata, for the server's challenges (RFC 9728 §5.1); `None` without OAuth.
    metadata_url: Option<String>,
    share: Option<Arc<Share>>,
    /// The grants that let the request pass.
    spent: Option<SpentGrants>,
    early: Option<Arc<EarlyHead>>,
    /// That it is the call of a task.
    making: Option<Arc<Making>>,
}

async fn receive(
    inner: &ListenerState,
    peer: &ConnectionState,
    mut parts: Parts,
    body: Incoming,
) -> Result<Received, Rejection> {
    let found = admission::path(&parts.uri).and_then(|path| inner.routes.get(path));
    let reject = |why| Rejection::from(why, found);
    if peer.is_ambiguous() {
        return Err(reject(DoorRefusal::Framing));
    }
    let Some(route) = found else { return Err(bearer::unknown_path(inner, &parts.uri)) };
    admission::admit(&parts, &route.allowed, &inner.config.limits).map_err(reject)?;
    let slot = inner.exchanges.take(1).ok_or_else(|| reject(DoorRefusal::TooMany))?;
    let caller = bearer::caller(inner, route, &mut parts.headers).await?;
    let share = inner.share_of(&caller);
    let Caller { principal, until } = caller;
    let reject = |why| Rejection { principal: Some(Arc::clone(&principal)), ..reject(why) };
    let slots = request_slots(slot, share.as_deref()).map_err(reject)?;
    let routing = admission::routing(&parts.headers).map_err(reject)?;
    let traceparent = admission::text(&parts.headers, "traceparent").map_err(reject)?;
    let modern = is_modern(&routing);
    let named = (&parts.headers, modern);
    let legacy = known_session(inner, route, &principal, named).map_err(reject)?;
    let opens = parts.method == Method::GET;
    let stream_slots = if opens {
        stream_slots(inner, share.as_deref(), legacy.as_deref()).map_err(reject)?
    } else {
        Vec::new()
    };
    let who = (&**route, &*principal);
    let may_resume = (legacy.as_deref(), opens && !modern);
    let resumes = resume(inner, who, may_resume, &mut parts.headers).map_err(reject)?;
    let session = legacy
        .as_ref()
        .map_or_else(|| new_session(inner, route, &principal), |known| Arc::clone(&known.session));
    let (raw, budget) = inner.body(peer, share.as_deref(), body).await.map_err(reject)?;
    let head_memory = head_memory(&parts, &principal, session.memory()).map_err(reject)?;
    let metadata_url = well_known::public(route, &parts).map(|public| public.metadata_url());
    let context = SendContext {
        headers: parts.headers,
        session: legacy.as_ref().map(|legacy| legacy.server_id.clone()),
        principal,
        departure: None,
    };
    let may_wait = inner.shared.holding.is_some();
    Ok(Received {
        route: Arc::clone(route),
        session,
        legacy,
        resumes,
        context,
        until,
        method: parts.method,
        peer: peer.peer(&inner.shared.gate),
        arrival: Arrival { raw, headers: Some(routing), traceparent, may_wait },
        slots,
        stream_slots,
        head_memory,
        budget,
        metadata_url,
        share,
        spent: None,
        early: None,
        making: None,
    })
}

/// The bytes of names and values in a request's head.
fn head_bytes(parts: &Parts) -> usize {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len().saturating_add(value.len())
    };
    parts.headers.iter().map(line).fold(0, usize::saturating_add)
}

/// Charges the principal for a request head of more than [`FREE_BYTES`], which is kept as long as
/// the request is in progress.
fn head_memory(
    parts: &Parts,
    principal: &Principal,
    memory: &Arc<MemoryBudget>,
) -> Result<Option<Charge>, DoorRefusal> {
    let bytes = head_bytes(parts);
    if bytes <= FREE_BYTES {
        return Ok(None);
    }
    memory.charge(&principal.id, bytes).map(Some).map_err(|_| DoorRefusal::TooMany)
}

/// Whether the request claims a revision of the modern era.
fn is_modern(routing: &RoutingHeaders) -> bool {
    let claimed = routing.protocol_version.as_deref().and_then(ClaimedVersion::parse);
    claimed.map(ClaimedVersion::era) == Some(Era::Modern)
}

/// The session that `headers` name, if it belongs to the principal. A session that a panic closed
/// is removed: its client gets 404 and initializes again. A request of the modern era has no session
/// and resumes nothing; an id that it carries is ignored and not forwarded.
fn known_session(
    inner: &ListenerState,
    route: &RouteState,
    principal: &Principal,
    (headers, modern): (&HeaderMap, bool),
) -> Result<Option<Arc<LegacySession>>, DoorRefusal> {
    if modern {
        return Ok(None);
    }
    let Some(id) = admission::text(headers, SESSION_ID.as_str())? else { return Ok(None) };
    let now = inner.shared.clock.uptime();
    let known = route.sessions.find(&id, principal, now);
    let known = known.ok_or(DoorRefusal::UnknownSession)?;
    if known.session.is_closed() {
        drop(route.sessions.remove(&id));
        return Err(DoorRefusal::UnknownSession);
    }
    Ok(Some(known))
}

/// Reserves a GET stream, in the limit of the listener, of the principal, and of the session.
fn stream_slots(
    inner: &ListenerState,
    share: Option<&Share>,
    legacy: Option<&LegacySession>,
) -> Result<Vec<Reservation>, DoorRefusal> {
    let mut slots = inner.stream(share).ok_or(DoorRefusal::TooMany)?;
    if let Some(legacy) = legacy {
        slots.push(legacy.streams.take(1).ok_or(DoorRefusal::TooMany)?);
    }
    Ok(slots)
}

/// Replaces our sealed `Last-Event-ID` by the server's own id and returns `true`; removes the
/// header if this request `may` not resume. The seal authorizes: only this principal got this id in
/// this session (threat F6). Fails with `UnknownEvent` if the seal does not match.
fn resume(
    inner: &ListenerState,
    (route, principal): (&RouteState, &Principal),
    (legacy, may): (Option<&LegacySession>, bool),
    headers: &mut HeaderMap,
) -> Result<bool, DoorRefusal> {
    let Some(sealed) = headers.remove(LAST_EVENT_ID).filter(|_| may) else { return Ok(false) };
    let id = inner.event_scope(route, principal, legacy).open(sealed.as_bytes());
    headers.insert(LAST_EVENT_ID, id.ok_or(DoorRefusal::UnknownEvent)?);
    if let Some(legacy) = legacy {
        legacy.resumed(inner.shared.clock.uptime());
    }
    Ok(true)
}

fn new_session(
    inner: &ListenerState,
    route: &RouteState,
    principal: &Arc<Principal>,
) -> Arc<SessionHandle> {
    let principal = Arc::clone(principal);
    let mut session = Session::new(principal, Arc::clone(&route.server), Transport::Http);
    session.set_duty_scope(DutyScope::Principal);
    Arc::new(SessionHandle::new(&inner.shared, session))
}

/// Whether the head of the answer may be sent early: `act` forwards or holds a request that is
/// neither `initialize`, whose answer names the session in its head, nor `server/discover`, whose
/// status tells a client of both eras which one to speak.
fn allows_early_head(act: &Act) -> bool {
    let begins = |method: Option<&McpMethod>| {
        method.is_some_and(|it| matches!(it.action, Action::Initialize | Action::Discover))
    };
    match act {
        Act::Forward(permitted) => permitted.id().is_some() && !begins(permitted.method()),
        Act::Hold(hold) => !begins(McpMethod::named(&hold.method)),
        Act::Deliver(_) | Act::Drop => false,
    }
}

impl Received {
    async fn answer(mut self, inner: Arc<ListenerState>) -> Response<ReplyBody> {
        let Some(ours) = self.metadata_url.take() else { return self.handle(inner).await };
        let route = Arc::clone(&self.route);
        let mut response = self.handle(inner).await;
        if let Some(oauth) = &route.oauth {
            well_known::relabel(oauth, &ours, response.headers_mut());
        }
        response
    }

    async fn handle(mut self, inner: Arc<ListenerState>) -> Response<ReplyBody> {
        if self.method == Method::POST {
            listed(&self.route.server).await;
        }
        let arrival = std::mem::take(&mut self.arrival);
        let weight = self.session.weight(&arrival.raw);
        let share = self.share.clone();
        let caller = shares::turn(share.as_deref(), weight.bytes).await;
        let turn = self.session.turn(weight).await;
        let taken = self.session.step_over(turn, None, |session, gate, now| {
            session.arrives_from(&self.peer);
            Some(match self.method {
                Method::GET => session.open_stream(gate, now),
                Method::DELETE => session.end(gate, now),
                _ => session.client_frame(gate, &arrival, now),
            })
        });
        drop(caller);
        let outcome = taken.durable().await;
        if let (Some(early), StepOutcome::Act(act)) = (&self.early, &outcome)
            && allows_early_head(act)
        {
            early.allow();
        }
        let outcome = if let StepOutcome::Act(Act::Hold(hold)) = outcome {
            let (shared, session) = (&inner.shared, &*self.session);
            let (arrival, until, early) = (&arrival, self.until, self.early.clone());
            let tell = |told: &Released| {
                if let Some(early) = &early {
                    early.tell(told);
                }
            };
            let offered = if self.route.checks_callers() { AsTask::Offered } else { AsTask::Never };
            let as_task = self.making.as_deref().map_or(offered, AsTask::Made);
            let request = HeldRequest { shared, session, arrival, until, tell: &tell, as_task };
            let settled = request.settle(hold).await;
            self.spent = settled.1;
            settled.0
        } else {
            outcome
        };
        match outcome {
            StepOutcome::Act(Act::Forward(permitted)) => self.forward(inner, permitted).await,
            StepOutcome::Act(Act::Deliver(mut released))
            | StepOutcome::Refused(Some(mut released)) => {
                if let Some(act) = released.take_task() {
                    self.act_on_task(&inner, act);
                }
                let mut response = reply::own(&released);
                response.extensions_mut().insert(Refused(self.context.principal.id.clone()));
                response
            }
            // A request that was held is settled where its client has cancelled it, and waits for
            // nothing.
            StepOutcome::Act(Act::Drop) | StepOutcome::Settled => reply::bare(StatusCode::ACCEPTED),
            StepOutcome::Act(Act::Hold(_)) | StepOutcome::Refused(None) => {
                reply::bare(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    /// Does what follows from a request about a task of the gate's own.
    fn act_on_task(&mut self, inner: &Arc<ListenerState>, act: TaskAct) {
        let (name, raw, id, (method, target)) = match act {
            TaskAct::Cancel { name } => return own_tasks::cancel(&inner.shared, &name),
            TaskAct::Make { name, raw, id, routing } => (name, raw, id, routing),
        };
        // Without a place the task stays approved, and a later poll finds one.
        let slot = inner.exchanges.take(1);
        let Some(Ok(slots)) = slot.map(|slot| request_slots(slot, self.share.as_deref())) else {
            return;
        };
        let headers = std::mem::take(&mut self.context.headers);
        let Some(headers) = making::head(headers, (&method, target.as_deref())) else { return };
        let Some(making) = Making::claim(&inner.shared, &name, &id).map(Arc::new) else { return };
        let principal = Arc::clone(&self.context.principal);
        let made = Self {
            route: Arc::clone(&self.route),
            session: new_session(inner, &self.route, &principal),
            legacy: None,
            resumes: false,
            context: SendContext { headers, session: None, principal, departure: None },
            until: self.until,
            method: Method::POST,
            peer: self.peer.clone(),
            arrival: Arrival { raw, may_wait: true, ..Arrival::default() },
            slots,
            stream_slots: Vec::new(),
            head_memory: None,
            budget: BodyMemory::default(),
            metadata_url: None,
            share: self.share.clone(),
            spent: None,
            early: None,
            making: Some(Arc::clone(&making)),
        };
        drop(inner.shared.tasks.spawn(made.make(Arc::clone(inner), making)));
    }

    /// Makes the call of a task. Boxed, because [`Received::handle`] starts it and is part of it.
    fn make(
        self,
        inner: Arc<ListenerState>,
        making: Arc<Making>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let event_max = inner.shared.gate.frame_limits().document.bytes_max;
        Box::pin(async move {
            let response = self.answer(inner).await;
            making::end(response, making, event_max).await;
        })
    }

    async fn forward(
        mut self,
        inner: Arc<ListenerState>,
        permitted: Permitted,
    ) -> Response<ReplyBody> {
        let role = permitted.method().map(|method| method.role);
        let initialize = role == Some(Role::Handshake);
        let dispatch = permitted.dispatch();
        let endless = dispatch == Dispatch::OpenStream || role == Some(Role::Listen);
        if endless && self.stream_slots.is_empty() {
            self.stream_slots = inner.stream(self.share.as_deref()).unwrap_or_default();
        }
        let crowded = endless && self.stream_slots.is_empty();
        let begins_one = initialize && self.context.session.is_none();
        let place = if crowded {
            Err("limits.streams: too many streams without an end at once")
        } else if begins_one {
            make_room(&self.route, &self.context.principal, self.session.memory())
        } else {
            Ok(())
        };
        let begins = match (initialize, self.route.upstream.mints_sessions()) {
            (true, true) => SessionStart::ServerMinted,
            // Servers of this kind have no session ids of their own, so we mint one.
            (true, false) if self.context.session.is_none() => SessionStart::SelfMinted,
            (true, false) | (false, _) => SessionStart::NoSession,
        };
        if begins == SessionStart::SelfMinted {
            self.context.session = mint();
        }
        if self.route.upstream.http().is_none() {
            let gone = GoneClient::of(&self.session, permitted.call());
            self.context.departure = Some(Arc::new(gone));
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
            id: permitted.id().cloned(),
            early: self.early,
            era: permitted.protocol().era,
            dispatch,
            begins,
            endless,
            inner,
            route: self.route,
            legacy: self.legacy.map(OnceLock::from).unwrap_or_default(),
            resumes: self.resumes,
            session: self.session,
            share: self.share,
            context: self.context,
            until: self.until,
            version,
            _slots: self.slots,
            _stream_slots: self.stream_slots,
            _head_memory: self.head_memory,
            _resuming: resuming,
            _spent: self.spent,
        });
        if let Err(limit) = place {
            drop(permitted);
            return reply::retry(exchange.failed(&UpstreamFailure::NoPlace(limit)));
        }
        Exchange::run(&exchange, permitted, headers, self.budget).await
    }
}

impl ListenerState {
    /// The response in place of a refusal, once the caller has had its share of refusals.
    fn limited(
        &self,
        principal: &str,
        peer: &ConnectionState,
        http1: bool,
    ) -> Option<Response<ReplyBody>> {
        let now = self.shared.clock.uptime();
        self.refusals.spend((principal, peer.address()), http1, now)
    }

    /// The OAuth discovery path that the request names, if any; routes come first.
    fn site(&self, parts: &Parts) -> Option<Site> {
        if self.routes.contains_key(parts.uri.path()) { None } else { self.sites.find(parts) }
    }

    /// The share of a caller that has proven who it is.
    pub(super) fn share_of(&self, caller: &Caller) -> Option<Arc<Share>> {
        caller.until.is_some().then(|| self.shares.of(&caller.principal))
    }

    /// Places for a stream without an end.
    pub(super) fn stream(&self, share: Option<&Share>) -> Option<Vec<Reservation>> {
        let mut slots = vec![self.streams.take(1)?];
        if let Some(share) = share {
            slots.push(share.streams.take(1)?);
        }
        Some(slots)
    }

    /// Reads the whole body of a request that came on `peer`.
    pub(super) async fn body(
        &self,
        peer: &ConnectionState,
        share: Option<&Share>,
        body: Incoming,
    ) -> Result<(Bytes, BodyMemory), DoorRefusal> {
        let arrival = peer.body_arrives();
        let read = body::read(body, self.body_limits(share)).await?;
        drop(arrival);
        // The chunk framing arrives with the body, so check again.
        if peer.is_ambiguous() { Err(DoorRefusal::Framing) } else { Ok(read) }
    }

    pub(super) fn body_limits<'a>(&'a self, share: Option<&'a Share>) -> BodyLimits<'a> {
        BodyLimits {
            bytes_max: self.config.limits.body_bytes_max,
            budget: &self.body_budget,
            share: share.map(|share| &share.bodies),
            timeout: self.config.timeouts.body,
        }
    }
}

/// Makes room for one more session of `principal` on the route; others may have to give way. Fails
/// with the limit that is reached.
fn make_room(
    route: &RouteState,
    principal: &Principal,
    memory: &Arc<MemoryBudget>,
) -> Result<(), &'static str> {
    close_sessions(route.sessions.make_room(principal, memory)?);
    Ok(())
}

/// Copies each value into memory of its own. Parsed values share the connection's read buffer,
/// which cannot be reused while one of them lives, and a stream may live for days.
fn detach(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        *value = detached(value);
    }
}

fn detached(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}
