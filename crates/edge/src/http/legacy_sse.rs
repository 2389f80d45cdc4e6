//! HTTP+SSE, the transport of revision 2024-11-05, for agents.
//!
//! A GET opens a stream whose first event names the address for the agent's messages: always an
//! address of ours, never the server's (threat F3). The stream is the session: its id is 128 random
//! bits, it belongs to one principal, and everything that it began ends with it. A POST is answered
//! at once with 202; the real answer, or a refusal, comes on the stream. Only a refusal that names
//! no request is sent as an HTTP status, because on the stream the agent could not match it. After
//! admission the agent is a [`Client`], like an agent on a pipe.

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
use super::body::BodyMemory;
use super::connection_state::{ConnectionState, RequestGuard};
use super::keep_alive::COMMENT;
use super::rejection::{Rejection, is_session_id};
use super::reply::{self, Events, ReplyBody};
use super::sessions::SESSION_BYTES;
use super::shares::{self, Share, request_slots};
use super::{HttpTimeouts, ListenerState, RouteState, admission, well_known};
use crate::budget::Reservation;
use crate::client::remote::{self, Challenge, Challenged, MessageSource};
use crate::client::{Client, Input, MessageFraming, RemoteLimits};
use crate::listed::listed;
use crate::oauth::OAuth;
use crate::own_tasks::{self, AsTask};
use crate::registry::{SessionRegistry, mint};
use crate::session::{StepOutcome, Taken};
use crate::{ServerEvent, sse};
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::memory::Charge;
use bartizan_gate::question::access::Principal;
use bartizan_gate::question::task::TaskAct;
use bartizan_gate::session::{Arrival, DoorRefusal, ErrorAnswer, Gate, Session, UpstreamFailure};

/// Events queued for one agent; when the queue is full, the server's side waits.
const EVENTS_MAX: usize = 8;
/// Messages of one agent queued behind earlier ones.
const MESSAGES_MAX: usize = 8;
/// How long the reply to a POST waits for the server's challenge. An agent may post its messages
/// one after the other, so this delays its next message during a slow call.
const CHALLENGE_WAIT: Duration = Duration::from_secs(2);

/// The open HTTP+SSE streams of one route, by session id.
#[derive(Debug)]
pub(super) struct LegacyStreams {
    path: Option<Box<str>>,
    max: usize,
    table: Mutex<SessionRegistry<StreamEntry>>,
}

#[derive(Clone)]
struct StreamEntry {
    client: Arc<Client>,
    messages: mpsc::Sender<PostedMessage>,
    /// The memory of the stream while nothing is in flight in it.
    _charge: Arc<Charge>,
}

impl fmt::Debug for StreamEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEntry").finish_non_exhaustive()
    }
}

impl LegacyStreams {
    /// The streams of a route that serves them at `path`, at most `max` at once.
    pub(super) fn new(path: Option<&str>, max: usize) -> Self {
        Self { path: path.map(Into::into), max, table: Mutex::default() }
    }

    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, SessionRegistry<StreamEntry>> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    fn begin(&self, id: &str, principal: Arc<Principal>, entry: StreamEntry) -> bool {
        let mut table = self.table();
        let fits = table.len() < self.max && !table.is_taken(id);
        if fits {
            table.begin(id.into(), principal, entry);
        }
        fits
    }

    fn find(&self, id: &str, principal: &Principal) -> Option<StreamEntry> {
        self.table().get(id, principal).cloned()
    }

    fn forget(&self, id: &str) {
        self.table().forget(id);
    }
}

/// What the path of a request names.
pub(super) enum LegacyTarget {
    /// A route's stream path.
    Stream(Arc<RouteState>),
    /// The message path of one stream, with its session id.
    Messages(Arc<RouteState>, Box<str>),
}

/// The stream or message path of this transport that `uri` names, if any. A query is not allowed,
/// as on every path.
pub(super) fn find(inner: &ListenerState, uri: &Uri) -> Option<LegacyTarget> {
    let path = admission::path(uri)?;
    if let Some(route) = inner.legacy.get(path) {
        return Some(LegacyTarget::Stream(Arc::clone(route)));
    }
    let (path, id) = path.rsplit_once('/')?;
    let minted = is_session_id(id);
    let path = if path.is_empty() { "/" } else { path };
    let route = inner.legacy.get(path).filter(|_| minted)?;
    Some(LegacyTarget::Messages(Arc::clone(route), id.into()))
}

/// Answers a request of this transport: admission, authentication, then [`open`] or
/// [`accept_message`].
pub(super) async fn answer(
    inner: &Arc<ListenerState>,
    peer: &ConnectionState,
    called: LegacyTarget,
    (mut parts, body): (Parts, Incoming),
) -> Result<Response<ReplyBody>, Rejection> {
    let (LegacyTarget::Stream(route) | LegacyTarget::Messages(route, _)) = &called;
    let reject = |why| Rejection::from(why, Some(route));
    if peer.is_ambiguous() {
        return Err(reject(DoorRefusal::Framing));
    }
    admission::admit(&parts, &route.allowed, &inner.config.limits).map_err(reject)?;
    let method = match &called {
        LegacyTarget::Stream(_) => Method::GET,
        LegacyTarget::Messages(..) => Method::POST,
    };
    if parts.method != method {
        let header = HeaderValue::from_str(method.as_str()).ok().map(|allowed| (ALLOW, allowed));
        return Err(Rejection { header, ..reject(DoorRefusal::MethodNotAllowed) });
    }
    let slot = inner.exchanges.take(1).ok_or_else(|| reject(DoorRefusal::TooMany))?;
    let asker = bearer::caller(inner, route, &mut parts.headers).await?;
    let share = inner.share_of(&asker);
    let reject = |why| Rejection { principal: Some(Arc::clone(&asker.principal)), ..reject(why) };
    let mut slots = request_slots(slot, share.as_deref()).map_err(reject)?;
    match &called {
        LegacyTarget::Stream(route) => {
            let stream = inner.stream(share.as_deref());
            slots.extend(stream.ok_or_else(|| reject(DoorRefusal::TooMany))?);
            open(inner, route, &asker, slots).await.map_err(reject)
        }
        LegacyTarget::Messages(route, id) => {
            let entry = route.streams.find(id, &asker.principal);
            let entry = entry.ok_or_else(|| reject(DoorRefusal::UnknownSession))?;
            let public = well_known::public(route, &parts).map(|public| public.metadata_url());
            let oauth = route.oauth.as_ref().filter(|oauth| matches!(oauth, OAuth::Forward(_)));
            let oauth = oauth.zip(public);
            let from = (peer, share.as_deref());
            accept_message((inner, route), from, (entry, oauth), (parts, body))
                .await
                .map_err(reject)
        }
    }
}

/// Opens a stream. The server is not contacted before `initialize`.
async fn open(
    inner: &Arc<ListenerState>,
    route: &Arc<RouteState>,
    caller: &Caller,
    slots: Vec<Reservation>,
) -> Result<Response<ReplyBody>, DoorRefusal> {
    if inner.shared.closing.is_cancelled() {
        return Err(DoorRefusal::Closing);
    }
    let (Some(id), Some(path)) = (mint(), &route.streams.path) else {
        return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE));
    };
    let (out, events) = mpsc::channel(EVENTS_MAX);
    let (messages, queue) = mpsc::channel(MESSAGES_MAX);
    let (server, principal) = (Arc::clone(&route.server), Arc::clone(&caller.principal));
    let shared = inner.shared.clone();
    let client =
        Client::new(shared, server, Arc::clone(&principal), MessageFraming::Events, out.clone());
    match client.act(Session::open_stream).await {
        Act::Forward(permitted) => client.opened(permitted.call()),
        Act::Deliver(released) => return Ok(reply::own(&released)),
        Act::Hold(_) | Act::Drop => return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE)),
    }
    let charge = client.charge(SESSION_BYTES).map_err(|_| DoorRefusal::TooMany)?;
    let charge = Arc::new(charge);
    let entry = StreamEntry { client: Arc::clone(&client), messages, _charge: charge };
    if !route.streams.begin(&id, principal, entry) {
        return Err(DoorRefusal::TooMany);
    }
    let mut first = BytesMut::new();
    let endpoint = ServerEvent {
        // A reference that begins with `//` would name a host (RFC 3986 §4.2).
        data: format!("{}/{id}", path.trim_end_matches('/')).into(),
        event: Some("endpoint".into()),
        ..ServerEvent::default()
    };
    sse::write(&endpoint, &mut first);
    let gone = client.gone.clone();
    let expired = bearer::expired(caller.until, inner.shared.clock.uptime());
    let interval = inner.config.timeouts.keep_alive;
    let run = StreamTask { id, route: Arc::clone(route), client, out, interval };
    inner.shared.tasks.spawn(run.serve(queue, limits(&inner.config.timeouts), expired));
    let body = LegacyBody {
        first: Some(first.freeze()),
        events,
        _gone: gone.drop_guard(),
        busy: None,
        _slots: slots,
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

/// The task of one stream.
struct StreamTask {
    id: Box<str>,
    route: Arc<RouteState>,
    client: Arc<Client>,
    out: mpsc::Sender<Bytes>,
    /// Interval of keep-alive comments, if there are any.
    interval: Option<Duration>,
}

impl StreamTask {
    /// Forwards messages until one side ends or the access token of the stream has `expired`.
    /// Dropping the last sender ends the agent's stream.
    async fn serve(
        self,
        queue: mpsc::Receiver<PostedMessage>,
        limits: RemoteLimits,
        expired: impl Future<Output = ()> + Send,
    ) {
        let Self { id, route, client, out, interval } = self;
        let gone = client.gone.clone();
        let messages = PostedQueue { queue, current: None, challenged: None };
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
            never = keep_alive(out, gone, interval) => match never {},
            never = ending => match never {},
        };
        tracing::debug!(%reason, "HTTP+SSE stream ended");
        route.streams.forget(&id);
    }
}

/// Writes a comment each `interval` if no event is queued. A comment also detects that the client has
/// disconnected.
async fn keep_alive(
    out: mpsc::Sender<Bytes>,
    gone: CancellationToken,
    interval: Option<Duration>,
) -> std::convert::Infallible {
    let Some(interval) = interval else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        if out.capacity() == EVENTS_MAX && out.try_send(Bytes::from_static(COMMENT)).is_err() {
            gone.cancel();
        }
    }
}

/// A permitted message on its way to the server.
struct PostedMessage {
    permitted: Permitted,
    headers: HeaderMap,
    /// The memory reserved for the body.
    _budget: BodyMemory,
    challenged: Option<Challenged>,
}

/// The posted messages of one stream, in the order of the gate's decisions.
struct PostedQueue {
    queue: mpsc::Receiver<PostedMessage>,
    current: Option<(HeaderMap, BodyMemory)>,
    challenged: Option<Challenged>,
}

impl MessageSource for PostedQueue {
    async fn next(&mut self, _: &Client) -> Input {
        let posted = self.queue.recv().await;
        let Some(PostedMessage { permitted, headers, _budget: budget, challenged }) = posted else {
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

/// Accepts one message of an agent. With OAuth, the reply waits up to [`CHALLENGE_WAIT`] for the
/// server's challenge, because an agent expects it in this reply (RFC 6750 §3) and not on its
/// stream.
async fn accept_message(
    (inner, route): (&ListenerState, &RouteState),
    (peer, share): (&ConnectionState, Option<&Share>),
    (entry, oauth): (StreamEntry, Option<(&OAuth, String)>),
    (parts, body): (Parts, Incoming),
) -> Result<Response<ReplyBody>, DoorRefusal> {
    let traceparent = admission::text(&parts.headers, "traceparent")?;
    let (raw, budget) = inner.body(peer, share, body).await?;
    let StreamEntry { client, messages, .. } = entry;
    // This transport has no headers that mirror the body. Such headers of later revisions are not
    // forwarded.
    let weight = client.weight(&raw);
    let may_wait = client.shared.holding.is_some();
    let arrival = Arrival { raw, headers: None, traceparent, may_wait };
    listed(client.server()).await;
    let from = peer.peer(&client.shared.gate);
    let judge = |session: &mut Session, gate: &Gate, now| {
        session.arrives_from(&from);
        Some(session.client_frame(gate, &arrival, now))
    };
    let caller = shares::turn(share, weight.bytes).await;
    let turn = client.turn(weight).await;
    let taken = client.step_over(turn, None, judge);
    drop(caller);
    let outcome = taken.durable().await;
    match outcome {
        StepOutcome::Act(Act::Forward(permitted)) => {
            let call = Arc::clone(permitted.call());
            let (challenged, challenge) = oauth.is_some().then(oneshot::channel).unzip();
            let headers = forwarded_headers(&parts.headers);
            let posted = PostedMessage { permitted, headers, _budget: budget, challenged };
            if messages.send(posted).await.is_err() {
                let why = "the stream is over".to_owned();
                client.failed(&call, &UpstreamFailure::Unreachable(why)).await;
                return Err(DoorRefusal::UnknownSession);
            }
            if let (Some(challenge), Some((oauth, ours))) = (challenge, oauth) {
                let waiting = ChallengeWait { client: &client, call: &call, route, challenge };
                if let Some(mut response) = waiting.reply().await {
                    well_known::relabel(oauth, &ours, response.headers_mut());
                    return Ok(response);
                }
            }
        }
        StepOutcome::Act(Act::Deliver(mut released)) | StepOutcome::Refused(Some(mut released)) => {
            if released.id().is_none() {
                return Ok(reply::own(&released));
            }
            // A task can be cancelled from here. Its call is made where it was asked for: over HTTP.
            if let Some(TaskAct::Cancel { name }) = released.take_task() {
                own_tasks::cancel(&client.shared, &name);
            }
            client.deliver(released).await;
        }
        StepOutcome::Act(Act::Hold(hold)) => {
            let headers = forwarded_headers(&parts.headers);
            let tasks = client.shared.tasks.clone();
            tasks.spawn(async move {
                let (act, spent) = client.settled_hold(&arrival, hold, AsTask::Never).await;
                resume(&client, &messages, act, (headers, budget)).await;
                drop(spent);
            });
        }
        StepOutcome::Act(Act::Drop) | StepOutcome::Settled => {}
        StepOutcome::Refused(None) => return Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE)),
    }
    Ok(reply::bare(StatusCode::ACCEPTED))
}

/// Does what is to be done with a message that waited for approval, and waits until it is over.
async fn resume(
    client: &Client,
    messages: &mpsc::Sender<PostedMessage>,
    act: Act,
    (headers, budget): (HeaderMap, BodyMemory),
) {
    match act {
        Act::Forward(permitted) => {
            let call = Arc::clone(permitted.call());
            let posted = PostedMessage { permitted, headers, _budget: budget, challenged: None };
            if messages.send(posted).await.is_err() {
                let why = "the stream is over".to_owned();
                client.failed(&call, &UpstreamFailure::Unreachable(why)).await;
            }
            client.over(&call).await;
        }
        Act::Deliver(released) => client.deliver(released).await,
        Act::Hold(_) | Act::Drop => {}
    }
}

/// Waits for the server's challenge to one call. Dropping it settles a challenge that has come,
/// even if the agent disconnected.
struct ChallengeWait<'a> {
    client: &'a Client,
    call: &'a CallId,
    route: &'a RouteState,
    challenge: oneshot::Receiver<Challenge>,
}

impl ChallengeWait<'_> {
    /// The reply that carries the challenge, if it comes within [`CHALLENGE_WAIT`].
    async fn reply(mut self) -> Option<Response<ReplyBody>> {
        let challenge = match timeout(CHALLENGE_WAIT, &mut self.challenge).await {
            Ok(challenge) => challenge.ok(),
            Err(_elapsed) => self.last(),
        };
        Some(self.challenge_reply(challenge?).await)
    }

    /// Closes the channel and takes a challenge that was sent before.
    fn last(&mut self) -> Option<Challenge> {
        self.challenge.close();
        self.challenge.try_recv().ok()
    }

    /// Takes the step for a challenge, whose headers are then those for the agent.
    fn judged(&self, challenge: Challenge) -> (u16, HeaderMap, Taken<'_>) {
        let Challenge { status, mut headers, body } = challenge;
        let challenge_dropped = self.route.hold_challenges(&mut headers);
        let answer = ErrorAnswer { status, challenge_dropped, body };
        (status, reply::headers(&headers, None), self.client.upstream_status(self.call, answer))
    }

    async fn challenge_reply(&self, challenge: Challenge) -> Response<ReplyBody> {
        let (status, headers, taken) = self.judged(challenge);
        match taken.durable().await {
            StepOutcome::Act(Act::Deliver(released)) if !released.is_own() => {
                reply::message(status, headers, &released)
            }
            StepOutcome::Act(Act::Deliver(released)) | StepOutcome::Refused(Some(released)) => {
                reply::own(&released)
            }
            StepOutcome::Act(Act::Forward(_) | Act::Hold(_) | Act::Drop) | StepOutcome::Settled => {
                reply::whole(status, headers, Bytes::new())
            }
            StepOutcome::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl Drop for ChallengeWait<'_> {
    fn drop(&mut self) {
        if let Some(challenge) = self.last() {
            drop(self.judged(challenge));
        }
    }
}

/// The agent's headers without those of the transport, which the upstream writes anew.
fn forwarded_headers(headers: &HeaderMap) -> HeaderMap {
    let mut forwarded_headers = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let own = *name == ACCEPT || name.as_str().starts_with("mcp-") || name == "last-event-id";
        if !own {
            forwarded_headers.append(name, value.clone());
        }
    }
    forwarded_headers
}

/// The body of one stream: its events for the agent. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct LegacyBody {
    first: Option<Bytes>,
    events: mpsc::Receiver<Bytes>,
    _gone: DropGuard,
    busy: Option<RequestGuard>,
    _slots: Vec<Reservation>,
}

impl Events for LegacyBody {
    fn hold(&mut self, busy: RequestGuard) {
        self.busy = Some(busy);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.events.poll_recv(cx),
        }
    }
}
