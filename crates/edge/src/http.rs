//! The agents' listener: Streamable HTTP in both eras of MCP, and HTTP+SSE, over HTTP/1.1 and
//! HTTP/2. Started by the program's `run`.
//!
//! One request is one exchange. Its head is checked by [`admission`], its body is read whole, the
//! gate decides, and only then is the message sent to the server. The answer goes back frame by
//! frame, and the gate decides on each frame before it is written. This module decides nothing
//! about content: every refusal comes from the gate and is recorded before it is sent. HTTP/2 is
//! accepted with prior knowledge only (RFC 9113 §3.3); no request is upgraded.

mod framing;
mod shares;
pub(crate) mod lanes;
mod workers;
mod connection_state;
mod connections;
mod repoll;
mod versions;
mod admission;
mod bearer;
mod body;
mod sessions;
mod event_ids;
mod shaped;
mod reply;
mod keep_alive;
mod answers;
mod stalls;
mod rejection;
mod refusals;
mod in_flight;
mod stream;
mod exchange;
mod making;
mod well_known;
mod receive;
mod legacy_sse;
mod usage;

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::Allowed;
use self::answers::Answers;
use self::connection_state::{
    ConnectionLimits, ConnectionState, ConnectionTimeouts, HttpVersion, WatchedStream,
};
use self::connections::{Acceptor, Connections, Place};
use self::event_ids::{EventIds, EventScope};
use self::keep_alive::{Attended, EarlyHead};
use self::lanes::Lane;
use self::legacy_sse::LegacyStreams;
use self::refusals::RefusalLimit;
use self::rejection::Rejection;
use self::reply::ReplyBody;
use self::sessions::{LegacySession, SessionLimits, Sessions};
use self::shares::Shares;
use self::stalls::Tracked;
pub use self::usage::{Usage, UsageReader};
use self::well_known::Sites;
pub use self::workers::{TASKS_BETWEEN_EVENTS, TASKS_BETWEEN_QUEUES};
use self::workers::{WorkerPlace, Workers};
use super::Shared;
use super::oauth::{OAuth, challenge};
use super::session::SessionHandle;
use super::upstream::Upstream;
use crate::budget::{Budget, YieldingBudget};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::Protected;
use bartizan_sync::caught;

/// Connections that are accepted before other tasks run. Each begins a task that reads a head, so
/// a burst of connections would otherwise stand before every other task (threat K13).
const ACCEPTED_IN_A_ROW: u32 = 8;
/// How often idle sessions are swept.
const SWEEP: Duration = Duration::from_secs(30);

/// One path and the server behind it.
#[derive(Debug)]
pub struct Route {
    /// The path of the request target, compared byte for byte: `/flags`.
    pub path: String,
    /// The path of the HTTP+SSE transport (revision 2024-11-05), if the route serves it: a GET
    /// opens a stream, and messages are posted to addresses below this path.
    pub sse_path: Option<String>,
    /// The protected server.
    pub server: Arc<Protected>,
    /// Values of `Host` that are allowed: `name` (any port) or `name:port`. If empty, loopback
    /// names.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are allowed, `scheme://name[:port]`, compared whole. If empty, the
    /// origins of loopback names on any port. A request without `Origin` does not come from a web
    /// page and is allowed.
    pub origins: Vec<String>,
    /// The principal of every caller. Ignored where [`OAuth::Terminate`] takes the principal from
    /// each request's access token.
    pub principal: Arc<Principal>,
    /// How messages reach the server.
    pub upstream: Upstream,
    /// What clients are told about access tokens for this route. `None` if OAuth is not configured.
    pub oauth: Option<OAuth>,
}

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections open at once. If all are taken, those without a request give way to new ones; if
    /// none of them is without, a new one gets 503.
    pub connections_max: usize,
    /// Requests in progress at once, streams included.
    pub exchanges_max: u64,
    /// Refusals of one caller each second; further ones are answered with 429, and close the
    /// connection.
    pub refusals_max: u32,
    /// Streams without an end, open at once: legacy GET streams and `subscriptions/listen`.
    pub streams_max: u64,
    /// Legacy sessions of one route at once.
    pub sessions_max: usize,
    /// GET streams of one legacy session at once.
    pub session_streams_max: u64,
    /// Size of one request body, bytes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies held at once. A body that is still arriving gives way to later
    /// ones.
    pub body_budget_bytes: u64,
    /// Header fields of one request.
    pub headers_max: usize,
    /// Size of a request's head, bytes; at least 8192. Over HTTP/2, of its decoded header list (RFC
    /// 9113 §10.5.1).
    pub head_bytes_max: usize,
    /// Bytes of all answers of more than 4 KiB that clients have not taken.
    pub answer_budget_bytes: u64,
    /// Bytes of all incomplete heads over HTTP/1 held at once, without the first 4 KiB of each.
    pub head_budget_bytes: u64,
    /// Connections that speak HTTP/2; each costs more memory than one that speaks HTTP/1.
    pub h2_connections_max: u64,
    /// Requests in progress on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// HTTP/2 flow-control window of one connection and of each of its streams, bytes: what a
    /// client may send before we have read it.
    pub h2_window_bytes: u32,
    /// HTTP/2 streams that a client may reset before we have accepted them; more end the connection
    /// ("rapid reset", CVE-2023-44487).
    pub h2_pending_resets_max: usize,
}

impl HttpLimits {
    /// The size of a request's head that is allowed, bytes.
    fn head_bytes(&self) -> usize {
        self.head_bytes_max.max(HEAD_BYTES_LEAST)
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            exchanges_max: 4_096,
            refusals_max: 1000,
            streams_max: 2_048,
            sessions_max: 8_192,
            session_streams_max: 8,
            body_bytes_max: 4 << 20,
            body_budget_bytes: 32 << 20,
            headers_max: 100,
            head_bytes_max: 64 << 10,
            answer_budget_bytes: 16 << 20,
            head_budget_bytes: 16 << 20,
            h2_connections_max: 512,
            h2_streams_max: 100,
            h2_window_bytes: 64 << 10,
            h2_pending_resets_max: 20,
        }
    }
}

/// Timeouts of the listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimeouts {
    /// From the first byte of a request's head to its end.
    pub header: Duration,
    /// For a whole request body.
    pub body: Duration,
    /// On a connection between requests, whatever else the client sends.
    pub idle_connection: Duration,
    /// After which a connection takes no new requests: HTTP/2 gets GOAWAY, HTTP/1
    /// `Connection: close`.
    pub connection_age: Duration,
    /// For a client to accept bytes that we write; over HTTP/2 for each stream.
    pub write: Duration,
    /// For a server's answer: a whole body, or the head of a stream. Does not apply to streams
    /// without an end.
    pub answer: Duration,
    /// Between two events of a stream that ends with an answer.
    pub idle_stream: Duration,
    /// For the whole of a stream that ends with an answer, whatever progress it reports: MCP asks
    /// for a maximum that progress notifications do not extend (basic/lifecycle, "Timeouts"; threat
    /// F9).
    pub stream: Duration,
    /// How long a call of the legacy eras may go on after its client disconnected, which is no
    /// cancellation there; and how long the client has to resume the stream for its answer.
    pub drain: Duration,
    /// Silence after which a client gets a comment: on an event stream, and in place of an answer
    /// that takes longer, which becomes an event stream. `None`: no comments.
    pub keep_alive: Option<Duration>,
    /// After a stream's answer, how long we wait for the server to end the stream, so that its
    /// connection can be reused.
    pub linger: Duration,
    /// How long an unused legacy session is kept.
    pub idle_session: Duration,
    /// Between pings on a quiet HTTP/2 connection, and how long the reply may take.
    pub h2_ping: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            body: Duration::from_secs(15),
            idle_connection: Duration::from_secs(75),
            connection_age: Duration::from_hours(1),
            write: Duration::from_secs(30),
            answer: Duration::from_mins(5),
            idle_stream: Duration::from_mins(5),
            stream: Duration::from_hours(1),
            drain: Duration::from_mins(5),
            keep_alive: Some(Duration::from_secs(15)),
            linger: Duration::from_millis(100),
            idle_session: Duration::from_hours(1),
            h2_ping: Duration::from_secs(20),
        }
    }
}

/// After a request head of more bytes, a connection over HTTP/1 takes no further request: it keeps
/// the buffer that the head needed for as long as it is open.
pub const LONG_HEAD_BYTES: usize = 16 << 10;

/// What a connection over HTTP/2 keeps beside its requests, bytes: its window, the tables of header
/// fields of both directions (4 KiB each), and a frame in each direction (16 KiB each).
pub const H2_CONNECTION_BYTES: usize = (64 << 10) + 2 * (4 << 10) + 2 * (16 << 10);

/// The least size of heads, bytes: hyper reads in pieces of this size.
const HEAD_BYTES_LEAST: usize = 8192;

/// Limits and timeouts of the listener.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpConfig {
    /// Bounds.
    pub limits: HttpLimits,
    /// Waits.
    pub timeouts: HttpTimeouts,
    /// Serving threads; each connection stays on one. With 0, all connections are served by the
    /// runtime in which [`Listener::serve`] runs.
    pub threads: usize,
}

/// A route with its sessions and streams.
#[derive(Debug)]
struct RouteState {
    path: Box<str>,
    server: Arc<Protected>,
    allowed: Allowed,
    /// The configured principal of every caller; `None` where the principal comes from each
    /// request's access token ([`bearer::caller`]).
    principal: Option<Arc<Principal>>,
    upstream: Arc<Upstream>,
    oauth: Option<OAuth>,
    sessions: Sessions,
    streams: LegacyStreams,
}

impl RouteState {
    /// Whether we know who calls. With [`OAuth::Forward`] only the server checks the token.
    fn checks_callers(&self) -> bool {
        !matches!(self.oauth, Some(OAuth::Forward(_)))
    }

    /// Removes challenges of the server that would send the client to an address of somebody else,
    /// and returns whether there was one. With [`OAuth::Forward`] the address of the metadata is
    /// replaced by ours later, so it may be any.
    fn hold_challenges(&self, headers: &mut HeaderMap) -> bool {
        let Some(server) = self.upstream.http() else { return false };
        let metadata = match self.oauth {
            Some(OAuth::Forward(_)) => challenge::Metadata::Replaced,
            Some(OAuth::Terminate(_)) | None => challenge::Metadata::Kept,
        };
        challenge::hold(headers, server.address(), metadata)
    }
}

/// State that all connections share.
struct ListenerState {
    shared: Shared,
    routes: HashMap<Box<str>, Arc<RouteState>>,
    /// Routes by the path of their HTTP+SSE transport.
    legacy: HashMap<Box<str>, Arc<RouteState>>,
    sites: Sites,
    config: HttpConfig,
    exchanges: Arc<Budget>,
    streams: Arc<Budget>,
    body_budget: Arc<YieldingBudget>,
    shares: Shares,
    answers: Answers,
    connections: Arc<Connections>,
    connection_limits: ConnectionLimits,
    event_ids: EventIds,
    refusals: RefusalLimit,
}

impl ListenerState {
    /// The scope that seals event ids for this principal in this session with this server.
    fn event_scope(
        &self,
        route: &RouteState,
        principal: &Principal,
        legacy: Option<&LegacySession>,
    ) -> EventScope {
        let server = &route.server.facts.name;
        self.event_ids.scope(&principal.id, server, legacy.map(|legacy| &*legacy.public_id))
    }

    /// Removes idle sessions, and closes calls whose clients did not resume the stream within
    /// [`HttpTimeouts::drain`].
    fn sweep(&self) {
        let now = self.shared.clock.uptime();
        self.shares.sweep();
        for route in self.routes.values() {
            close_sessions(route.sessions.expire(now));
            for (session, call) in route.sessions.take_abandoned(now, self.config.timeouts.drain) {
                session.client_gone(&call);
            }
        }
    }
}

/// Closes the calls that removed sessions still have in flight; each is recorded.
fn close_sessions(sessions: Vec<Arc<SessionHandle>>) {
    for session in sessions {
        drop(session.settle_all(None));
    }
}

/// The agents' listener, bound and not yet serving.
pub struct Listener {
    tcp: TcpListener,
    inner: Arc<ListenerState>,
    workers: Workers,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Listener {
    /// A listener that will serve `routes` on `tcp`. If two routes have the same path, the later
    /// wins; the configuration is checked for that before. Fails if the socket cannot be registered
    /// with the runtime or the system gives no randomness.
    #[expect(clippy::large_types_passed_by_value, reason = "once a listener")]
    pub fn new(
        tcp: std::net::TcpListener,
        routes: Vec<Route>,
        config: HttpConfig,
        shared: Shared,
    ) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        let workers = Workers::start(config.threads)?;
        let (mut by_path, mut legacy) = (HashMap::new(), HashMap::new());
        for route in routes {
            let path: Box<str> = route.path.into();
            let sessions_max = config.limits.sessions_max;
            let tokens_end = matches!(route.oauth, Some(OAuth::Terminate(_)));
            let state = Arc::new(RouteState {
                path: path.clone(),
                server: route.server,
                allowed: Allowed::new(&route.hosts, &route.origins),
                principal: (!tokens_end).then_some(route.principal),
                upstream: Arc::new(route.upstream),
                oauth: route.oauth,
                sessions: Sessions::new(SessionLimits {
                    max: sessions_max,
                    streams_max: config.limits.session_streams_max,
                    idle: config.timeouts.idle_session,
                }),
                streams: LegacyStreams::new(route.sse_path.as_deref(), sessions_max),
            });
            if let Some(path) = route.sse_path {
                legacy.insert(path.into(), Arc::clone(&state));
            }
            by_path.insert(path, state);
        }
        let connections = Connections::new(config.limits.connections_max);
        let inner = ListenerState {
            answers: Answers::new(config.limits.answer_budget_bytes, &connections),
            shared,
            sites: Sites::of(by_path.values()),
            routes: by_path,
            legacy,
            config,
            exchanges: Budget::new(config.limits.exchanges_max),
            streams: Budget::new(config.limits.streams_max),
            body_budget: YieldingBudget::new(config.limits.body_budget_bytes),
            shares: Shares::new(&config.limits),
            connections,
            connection_limits: connection_limits(&config),
            event_ids: EventIds::new()?,
            refusals: RefusalLimit::new(config.limits.refusals_max),
        };
        Ok(Self { tcp: TcpListener::from_std(tcp)?, inner: Arc::new(inner), workers })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Tells what agents use, as long as it serves.
    pub fn usage(&self) -> UsageReader {
        UsageReader::of(&self.inner)
    }

    /// Serves until [`Shared::closing`] is cancelled, then until every request in progress is
    /// answered; streams without an end are closed at once. With [`HttpConfig::threads`], then until
    /// all of [`Shared::tasks`], which must be closed by then, have ended: the threads end with this
    /// future. To stop sooner, drop the future and abort the tasks of [`Shared::tasks`].
    pub async fn serve(self) {
        let Self { tcp, inner, workers } = self;
        let mut acceptor = Acceptor::new(tcp, &inner.connections);
        let connections = TaskTracker::new();
        let mut accepted_in_a_row = 0_u32;
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = inner.shared.closing.cancelled() => break,
                accepted = acceptor.accept() => accepted,
                _ = sweep.tick() => {
                    if caught(async { inner.sweep() }).await.is_err() {
                        tracing::error!("the sweep of sessions was interrupted by a panic; it is tried again");
                    }
                    continue;
                }
            };
            let (stream, peer, place) = accepted;
            accepted_in_a_row = accepted_in_a_row.saturating_add(1);
            if accepted_in_a_row.is_multiple_of(ACCEPTED_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            let number = place.number();
            peer.set_address(stream.peer_addr().ok().map(|address| address.ip()));
            let worker = workers.assign(&inner.shared.clock);
            // A socket belongs to the runtime that waits for it. The error is of one that is lost
            // already.
            let Ok(socket) = stream.into_std() else { continue };
            let lane = worker.lanes.of(peer.address());
            let places = (place, worker.place);
            let serving = connection(Arc::clone(&inner), lane.clone(), (socket, peer), places);
            let serving = inner.shared.tasks.track_future(lane.paced(serving));
            let task = connections.spawn_on(serving, &worker.handle);
            inner.connections.runs(number, task.abort_handle());
        }
        drop(acceptor);
        connections.close();
        connections.wait().await;
        for route in inner.routes.values() {
            close_sessions(route.sessions.clear());
        }
        if workers.have_threads() {
            // Some of them run there: calls whose clients have gone, programs.
            inner.shared.tasks.wait().await;
        }
    }
}

fn connection_limits(config: &HttpConfig) -> ConnectionLimits {
    let HttpConfig { limits, timeouts, .. } = config;
    ConnectionLimits {
        timeouts: ConnectionTimeouts {
            head: timeouts.header,
            idle: timeouts.idle_connection,
            write: timeouts.write,
            age: timeouts.connection_age,
        },
        head_max: limits.head_bytes(),
        heads: Budget::new(limits.head_budget_bytes),
        http2: Budget::new(limits.h2_connections_max),
    }
}

async fn connection(
    inner: Arc<ListenerState>,
    lane: Lane,
    (socket, peer): (std::net::TcpStream, Arc<ConnectionState>),
    places: (Place, WorkerPlace),
) {
    let stream = match TcpStream::from_std(socket) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection was not served"),
    };
    let (listener, state) = (Arc::clone(&inner), Arc::clone(&peer));
    let Shared { closing, clock, .. } = &listener.shared;
    // In a block, because this future keeps the room of a variable until the block of it ends.
    let serving = {
        let limits = inner.connection_limits.clone();
        let mut stream = WatchedStream::new(stream, Arc::clone(&peer), *clock, limits);
        let service = service_fn(move |request: Request<Incoming>| {
            let interval = inner.config.timeouts.keep_alive;
            let tells = inner.shared.holding.as_ref().is_some_and(|it| it.progress.is_some());
            let early = (interval.is_some() || tells).then(|| EarlyHead::of(&request)).flatten();
            let (inner, peer) = (Arc::clone(&inner), Arc::clone(&peer));
            let handling = receive::answer(inner, Arc::clone(&peer), request, early.clone());
            // Boxed: hyper keeps the room of this future as long as the connection is open.
            let attended = Attended::new(Box::pin(handling), (early, interval), peer);
            async move { Ok::<_, Infallible>(attended.await) }
        });
        let version = tokio::select! {
            biased;
            version = stream.version() => version,
            () = closing.cancelled() => return,
        };
        version.map(|version| serving(&listener, lane, version, TokioIo::new(stream), service))
    };
    let served: Result<(), Box<dyn Error + Send + Sync>> = match serving {
        Ok(serving) => gracefully(serving, &state, closing).await.map_err(Into::into),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
        // hyper has answered, or nobody waits for an answer, so only the record is left to do.
        if let Some((why, note)) = state.refused_head(&*error) {
            let rejection = Rejection { note: Some(note), ..Rejection::from(why, None) };
            drop(rejection.refuse(&listener.shared, &state, None));
        }
    }
    drop(places);
}

/// What serves a connection; boxed, because the future of the connection would otherwise have room
/// for the larger version, twice.
type Serving = Pin<
    Box<dyn GracefulConnection<Error = hyper::Error, Output = Result<(), hyper::Error>> + Send>,
>;

/// Serves the connection `io`, which speaks `version`, with `service`.
fn serving<S>(
    listener: &ListenerState,
    lane: Lane,
    version: HttpVersion,
    io: TokioIo<WatchedStream>,
    service: S,
) -> Serving
where
    S: HttpService<Incoming, ResBody = ReplyBody, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let config = &listener.config;
    match version {
        HttpVersion::Http1 => Box::pin(versions::http1(config).serve_connection(io, service)),
        HttpVersion::Http2 => {
            let (tasks, write) = (listener.shared.tasks.clone(), config.timeouts.write);
            let builder = versions::http2(config, Tracked { tasks, lane, write });
            Box::pin(builder.serve_connection(io, service))
        }
    }
}

/// Serves a connection to its end. It takes no new requests once shutdown begins; over HTTP/2 also
/// once it is old.
async fn gracefully(
    mut serving: Serving,
    state: &ConnectionState,
    closing: &CancellationToken,
) -> Result<(), hyper::Error> {
    let mut going_away = false;
    tokio::select! {
        biased;
        served = poll_fn(|cx| {
            if !going_away && state.is_old() && state.is_http2() {
                going_away = true;
                serving.as_mut().graceful_shutdown();
            }
            serving.as_mut().poll(cx)
        }) => served,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    }
}
