//! HTTP+SSE, the transport of 2024-11-05, towards agents.
//!
//! A GET opens a stream, whose first event names where the agent posts its messages: always an
//! address of ours, never the server's (threat F3). The stream is the session: it has an id of
//! 128 random bits, belongs to one principal, and what it began ends with it. A POST is answered
//! at once with 202 and its real answer, a refusal as well, comes on the stream; only what names
//! no request is refused with a status, because on the stream nobody could tell what it answers.
//! Behind the door the agent is a [`Client`] like that on a pipe, and goes the same ways.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{ACCEPT, ALLOW};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bearer::{self, Caller};
use super::body::{self, BodyLimits};
use super::gauge::Held;
use super::reply::{self, Events, ReplyBody};
use super::turned_away::TurnedAway;
use super::wire::{Busy, Peer};
use super::{HttpTimeouts, Inner, RouteState, door, well_known};
use crate::client::remote::{self, Challenge, Challenged, Source};
use crate::client::{Client, Form, Input, RemoteLimits};
use crate::oauth::OAuth;
use crate::seats::{Seats, mint};
use crate::session::Turn;
use crate::upstream::claims_json;
use crate::{ServerEvent, sse};
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Arrival, DoorRefusal, ErrorAnswer, Gate, Session, UpstreamFailure};

/// Events waiting to be written to one agent.
const EVENTS_MAX: usize = 8;
/// Messages of one agent waiting for those before them.
const MESSAGES_MAX: usize = 8;
/// How often a comment keeps a quiet stream alive, and shows whether anybody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the reply to a POST waits for a challenge. Agents may post one message after the
/// other, so this holds up what they say during a slow call.
const CHALLENGE_WAIT: Duration = Duration::from_secs(2);
const COMMENT: &[u8] = b": keep-alive\n\n";
/// Length of a session id, hexadecimal digits.
const ID_LEN: usize = 32;

/// The open streams of one route.
#[derive(Debug)]
pub(super) struct LegacyStreams {
    path: Option<Box<str>>,
    max: usize,
    table: Mutex<Seats<Entry>>,
}

#[derive(Clone)]
struct Entry {
    client: Arc<Client>,
    messages: mpsc::Sender<Posted>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl LegacyStreams {
    /// Of a route that serves them at `path`, `max` at once.
    pub(super) fn new(path: Option<&str>, max: usize) -> Self {
        Self { path: path.map(Into::into), max, table: Mutex::default() }
    }

    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    fn table(&self) -> MutexGuard<'_, Seats<Entry>> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    fn begin(&self, id: &str, principal: Arc<Principal>, entry: Entry) -> bool {
        let mut table = self.table();
        let fits = table.len() < self.max && !table.is_taken(id);
        if fits {
            table.begin(id.into(), principal, entry);
        }
        fits
    }

    fn find(&self, id: &str, principal: &Principal) -> Option<Entry> {
        self.table().get(id, principal).cloned()
    }

    fn forget(&self, id: &str) {
        self.table().forget(id);
    }
}

/// What a request is about.
pub(super) enum Called {
    /// The path of a route's streams.
    Stream(Arc<RouteState>),
    /// The messages of one stream.
    Messages(Arc<RouteState>, Box<str>),
}

/// Whether `uri` is an address of this transport. Its query must be empty, as everywhere.
pub(super) fn find(inner: &Inner, uri: &Uri) -> Option<Called> {
    let path = door::path(uri)?;
    if let Some(route) = inner.legacy.get(path) {
        return Some(Called::Stream(Arc::clone(route)));
    }
    let (path, id) = path.rsplit_once('/')?;
    let minted =
        id.len() == ID_LEN && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let path = if path.is_empty() { "/" } else { path };
    let route = inner.legacy.get(path).filter(|_| minted)?;
    Some(Called::Messages(Arc::clone(route), id.into()))
}

/// Answers a request of this transport.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    peer: &Peer,
    called: Called,
    (mut parts, body): (Parts, Incoming),
) -> Result<Response<ReplyBody>, TurnedAway> {
    let (Called::Stream(route) | Called::Messages(route, _)) = &called;
    let away = |why| TurnedAway::from(why, Some(route));
    if peer.is_ambiguous() {
        return Err(away(DoorRefusal::Framing));
    }
    door::admit(&parts, &route.allowed, inner.config.limits.headers_max).map_err(away)?;
    let method = match &called {
        Called::Stream(_) => Method::GET,
        Called::Messages(..) => Method::POST,
    };
    if parts.method != method {
        let header = HeaderValue::from_str(method.as_str()).ok().map(|allowed| (ALLOW, allowed));
        return Err(TurnedAway { header, ..away(DoorRefusal::MethodNotAllowed) });
    }
    let slot = inner.exchanges.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?;
    let asker = bearer::caller(inner, route, &mut parts.headers).await?;
    let away = |why| TurnedAway { principal: Some(Arc::clone(&asker.principal)), ..away(why) };
    match &called {
        Called::Stream(route) => open(inner, route, &asker, slot).map_err(away),
        Called::Messages(route, id) => {
            let entry = route.streams.find(id, &asker.principal);
            let entry = entry.ok_or_else(|| away(DoorRefusal::UnknownSession))?;
            let public = well_known::public(route, &parts).map(|public| public.metadata_url());
            let oauth = route.oauth.as_ref().filter(|oauth| matches!(oauth, OAuth::Forward(_)));
            let oauth = oauth.zip(public);
            take(inner, peer, (entry, oauth), (parts, body)).await.map_err(away)
        }
    }
}

/// Opens a stream. It asks nothing of the server: that is `initialize`'s to do.
fn open(
    inner: &Arc<Inner>,
    route: &Arc<RouteState>,
    caller: &Caller,
    slot: Held,
) -> Result<Response<ReplyBody>, DoorRefusal> {
    if inner.shared.closing.is_cancelled() {
        return Err(DoorRefusal::Closing);
    }
    let stream_slot = inner.streams.take(1).ok_or(DoorRefusal::TooMany)?;
    let (Some(id), Some(path)) = (mint(), &route.streams.path) else {
        return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE));
    };
    let (out, events) = mpsc::channel(EVENTS_MAX);
    let (messages, queue) = mpsc::channel(MESSAGES_MAX);
    let (server, principal) = (Arc::clone(&route.server), Arc::clone(&caller.principal));
    let shared = inner.shared.clone();
    let client = Client::new(shared, server, Arc::clone(&principal), (Form::Events, out.clone()));
    let client = Arc::new(client);
    match client.act(Session::open_stream) {
        Act::Forward(permitted) => client.opened(permitted.call()),
        Act::Deliver(released) => return Ok(reply::own(&released)),
        Act::Drop => return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE)),
    }
    let entry = Entry { client: Arc::clone(&client), messages };
    if !route.streams.begin(&id, principal, entry) {
        return Err(DoorRefusal::TooMany);
    }
    let mut first = BytesMut::new();
    let endpoint = ServerEvent {
        // Two slashes at the beginning would name a host (RFC 3986 §4.2).
        data: format!("{}/{id}", path.trim_end_matches('/')).into(),
        event: Some("endpoint".into()),
        ..ServerEvent::default()
    };
    sse::write(&endpoint, &mut first);
    let gone = client.gone.clone();
    let expired = bearer::expired(caller.until, inner.shared.clock.uptime());
    let run = Run { id, route: Arc::clone(route), client, out };
    inner.shared.tasks.spawn(run.serve(queue, limits(&inner.config.timeouts), expired));
    let body = LegacyBody {
        first: Some(first.freeze()),
        events,
        _gone: gone.drop_guard(),
        busy: None,
        _slots: (slot, stream_slot),
    };
    Ok(reply::events(200, HeaderMap::with_capacity(3), body))
}

fn limits(timeouts: &HttpTimeouts) -> RemoteLimits {
    RemoteLimits {
        answer_max: timeouts.answer,
        silence_max: timeouts.idle_stream,
        drain_max: timeouts.drain,
        ..RemoteLimits::default()
    }
}

/// One stream's conversation with its server.
struct Run {
    id: Box<str>,
    route: Arc<RouteState>,
    client: Arc<Client>,
    out: mpsc::Sender<Bytes>,
}

impl Run {
    /// Carries messages until one side ends, or the token has `expired` that opened the stream.
    /// The stream ends with the last sender to it.
    async fn serve(
        self,
        queue: mpsc::Receiver<Posted>,
        limits: RemoteLimits,
        expired: impl Future<Output = ()> + Send,
    ) {
        let Self { id, route, client, out } = self;
        let gone = client.gone.clone();
        let messages = Messages { queue, current: None, challenged: None };
        let upstream = Arc::clone(&route.upstream);
        let serving = remote::serve(client, messages, upstream, limits);
        let over = gone.clone();
        let ending = async {
            expired.await;
            over.cancel();
            std::future::pending::<std::convert::Infallible>().await
        };
        let reason = tokio::select! {
            reason = serving => reason,
            never = keep_alive(out, gone) => match never {},
            never = ending => match never {},
        };
        tracing::debug!(%reason, "an HTTP+SSE stream is over");
        route.streams.forget(&id);
    }
}

/// Writes a comment now and then where nothing else waits to be written.
async fn keep_alive(out: mpsc::Sender<Bytes>, gone: CancellationToken) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        if out.capacity() == EVENTS_MAX && out.try_send(Bytes::from_static(COMMENT)).is_err() {
            gone.cancel();
        }
    }
}

/// A message that may go to the server.
struct Posted {
    permitted: Permitted,
    headers: HeaderMap,
    /// The body's share of the budget.
    _budget: Held,
    challenged: Option<Challenged>,
}

/// The posted messages of one stream, in the order in which they were judged.
struct Messages {
    queue: mpsc::Receiver<Posted>,
    current: Option<(HeaderMap, Held)>,
    challenged: Option<Challenged>,
}

impl Source for Messages {
    async fn next(&mut self, _: &Client) -> Input {
        let posted = self.queue.recv().await;
        let Some(Posted { permitted, headers, _budget: budget, challenged }) = posted else {
            return Input::Closed;
        };
        (self.current, self.challenged) = (Some((headers, budget)), challenged);
        Input::Act(Act::Forward(permitted))
    }

    fn headers(&self) -> HeaderMap {
        self.current.as_ref().map(|(headers, _)| headers.clone()).unwrap_or_default()
    }

    fn challenged(&mut self) -> Option<Challenged> {
        self.challenged.take()
    }
}

/// Takes one message of an agent. Where OAuth is in the way, the reply waits a short time for the
/// server's challenge: an agent looks for it there (RFC 6750 §3), never on its stream.
async fn take(
    inner: &Inner,
    peer: &Peer,
    (entry, oauth): (Entry, Option<(&OAuth, String)>),
    (parts, body): (Parts, Incoming),
) -> Result<Response<ReplyBody>, DoorRefusal> {
    let traceparent = door::text(&parts.headers, "traceparent")?;
    let limits = BodyLimits {
        bytes_max: inner.config.limits.body_bytes_max,
        budget: &inner.body_budget,
        patience: inner.config.timeouts.body,
    };
    let (raw, budget) = body::read(body, limits).await?;
    // Chunk framing comes with the body.
    if peer.is_ambiguous() {
        return Err(DoorRefusal::Framing);
    }
    let Entry { client, messages } = entry;
    // The transport has no headers that mirror the body; those of later revisions do not go on.
    let arrival = Arrival { raw, headers: None, traceparent };
    let judge =
        |session: &mut Session, gate: &Gate, now| Some(session.client_frame(gate, &arrival, now));
    match client.turn(None, judge) {
        Turn::Act(Act::Forward(permitted)) => {
            let call = Arc::clone(permitted.call());
            let (challenged, challenge) = oauth.is_some().then(oneshot::channel).unzip();
            let headers = passing(&parts.headers);
            let posted = Posted { permitted, headers, _budget: budget, challenged };
            if messages.send(posted).await.is_err() {
                let why = "the stream is over".to_owned();
                client.failed(&call, &UpstreamFailure::Unreachable(why)).await;
                return Err(DoorRefusal::UnknownSession);
            }
            if let (Some(challenge), Some((oauth, ours))) = (challenge, oauth) {
                let hearing = Hearing { client: &client, call: &call, challenge };
                if let Some(mut response) = hearing.reply().await {
                    well_known::relabel(oauth, &ours, response.headers_mut());
                    return Ok(response);
                }
            }
        }
        Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
            if released.id().is_none() {
                return Ok(reply::own(&released));
            }
            client.deliver(released).await;
        }
        Turn::Act(Act::Drop) | Turn::Settled => {}
        Turn::Refused(None) => return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE)),
    }
    Ok(reply::bare(StatusCode::ACCEPTED))
}

/// Waits for the server's challenge to one call, which it settles even where the agent goes away.
struct Hearing<'a> {
    client: &'a Client,
    call: &'a CallId,
    challenge: oneshot::Receiver<Challenge>,
}

impl Hearing<'_> {
    /// The reply to the message, if its challenge comes soon.
    async fn reply(mut self) -> Option<Response<ReplyBody>> {
        match timeout(CHALLENGE_WAIT, &mut self.challenge).await {
            Ok(challenge) => challenge.ok().map(|challenge| self.turned_away(challenge)),
            Err(_elapsed) => self.last(),
        }
    }

    /// What was sent just now. Nothing can be sent any more.
    fn last(&mut self) -> Option<Response<ReplyBody>> {
        self.challenge.close();
        let challenge = self.challenge.try_recv().ok()?;
        Some(self.turned_away(challenge))
    }

    fn turned_away(&self, challenge: Challenge) -> Response<ReplyBody> {
        let Challenge { status, headers, body } = challenge;
        let answer = ErrorAnswer { status, json: claims_json(&headers), body };
        let headers = reply::headers(&headers, None);
        match self.client.turned_away(self.call, answer) {
            Turn::Act(Act::Deliver(released)) if !released.is_own() => {
                reply::whole(status, headers, released.body().clone())
            }
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                reply::whole(status, headers, Bytes::new())
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        drop(self.last());
    }
}

/// The agent's headers without those of the transport, which are written anew.
fn passing(headers: &HeaderMap) -> HeaderMap {
    let mut passing = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let own = *name == ACCEPT || name.as_str().starts_with("mcp-") || name == "last-event-id";
        if !own {
            passing.append(name, value.clone());
        }
    }
    passing
}

/// The events of one stream on their way to the agent. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct LegacyBody {
    first: Option<Bytes>,
    events: mpsc::Receiver<Bytes>,
    _gone: DropGuard,
    busy: Option<Busy>,
    _slots: (Held, Held),
}

impl Events for LegacyBody {
    fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.events.poll_recv(cx),
        }
    }
}
