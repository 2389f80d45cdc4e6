//! The agents' listener: Streamable HTTP in both eras of MCP, and HTTP+SSE, over HTTP/1.1 and
//! HTTP/2.
//!
//! One request is one exchange. It is checked at the [`door`], its body is read whole, the gate
//! judges it, and only then is the server asked; the answer goes back frame by frame, each judged
//! before it is written. Nothing is decided here: every refusal comes from the gate and is
//! recorded before it is sent. HTTP/2 is spoken with prior knowledge only; no request upgrades.

mod framing;
mod wire;
mod bell;
mod gauge;
mod door;
mod bearer;
mod body;
mod sessions;
mod event_ids;
mod reply;
mod turned_away;
mod in_flight;
mod stream;
mod exchange;
mod well_known;
mod receive;
mod legacy_sse;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use self::bell::Belled;
use self::door::Allowed;
use self::event_ids::{EventIds, EventScope};
use self::gauge::Gauge;
use self::legacy_sse::LegacyStreams;
use self::sessions::{LegacySession, SessionLimits, Sessions};
use self::well_known::Sites;
use self::wire::{Patience, Peer, WatchedStream};
use super::Shared;
use super::oauth::OAuth;
use super::session::SessionHandle;
use super::upstream::Upstream;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::Protected;

/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silence of an agent's connection after which the kernel asks whether anybody is there.
const SILENT_MAX: Duration = Duration::from_mins(1);
/// Time between two such questions.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is over: two minutes after the last sign.
const PROBES_MAX: u32 = 4;
/// How often idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// One path and the server behind it.
#[derive(Debug)]
pub struct Route {
    /// The path of the request target, compared byte for byte: `/flags`.
    pub path: String,
    /// The path of the HTTP+SSE transport of 2024-11-05, if it is served: a GET opens a stream,
    /// and its messages are posted below it.
    pub sse_path: Option<String>,
    /// The protected server.
    pub server: Arc<Protected>,
    /// Hosts that may be addressed, `name` (any port) or `name:port`; loopback names if empty.
    pub hosts: Vec<String>,
    /// Web origins that may call, `scheme://name[:port]`, compared whole; if empty, those
    /// of loopback names, on any port. A request without `Origin` comes from no browser and
    /// passes.
    pub origins: Vec<String>,
    /// Who calls here, where no token says it.
    pub principal: Arc<Principal>,
    /// The way to the server.
    pub upstream: Upstream,
    /// What stands in the way to tokens for it.
    pub oauth: Option<OAuth>,
}

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// Requests in progress at once, streams included.
    pub exchanges_max: u64,
    /// Streams without an end at once: legacy GET streams and `subscriptions/listen`.
    pub streams_max: u64,
    /// Legacy sessions of one route.
    pub sessions_max: usize,
    /// GET streams of one legacy session at once.
    pub session_streams_max: u64,
    /// Size of one request body, bytes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies at once.
    pub body_budget_bytes: u64,
    /// Header fields of one request.
    pub headers_max: usize,
    /// Size of a request's head over HTTP/1, bytes; at least 8192.
    pub head_bytes_max: usize,
    /// Size of a request's decoded header list over HTTP/2, bytes.
    pub h2_header_list_bytes_max: u32,
    /// Requests in progress on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// Bytes of bodies that one HTTP/2 connection may send before we have read them.
    pub h2_window_bytes: u32,
    /// HTTP/2 streams that a peer may reset before we have taken them up.
    pub h2_pending_resets_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            exchanges_max: 16_384,
            streams_max: 12_288,
            sessions_max: 8_192,
            session_streams_max: 8,
            body_bytes_max: 4 << 20,
            body_budget_bytes: 256 << 20,
            headers_max: 100,
            head_bytes_max: 64 << 10,
            h2_header_list_bytes_max: 16 << 10,
            h2_streams_max: 100,
            h2_window_bytes: 256 << 10,
            h2_pending_resets_max: 20,
        }
    }
}

/// Waits of the listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimeouts {
    /// From the first byte of a request's head to its end.
    pub header: Duration,
    /// For a whole request body.
    pub body: Duration,
    /// On a connection between requests.
    pub idle_connection: Duration,
    /// For a client to take what we write.
    pub write: Duration,
    /// For a server's answer: a whole body, or the head of a stream. Not for streams without an
    /// end.
    pub answer: Duration,
    /// Between two events of a stream that ends with an answer.
    pub idle_stream: Duration,
    /// For the whole of a stream that ends with an answer, however often it shows life: MCP asks
    /// for a maximum that progress does not put off (threat F9).
    pub stream: Duration,
    /// For an answer whose legacy client went away (a disconnect is no cancellation there), and
    /// for the client to come for an answer that it must come for.
    pub drain: Duration,
    /// After a stream's answer, for the server to end the stream by itself.
    pub linger: Duration,
    /// For a legacy session that nobody uses.
    pub idle_session: Duration,
    /// Between pings on a quiet HTTP/2 connection, and for the reply to one.
    pub h2_ping: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            body: Duration::from_secs(15),
            idle_connection: Duration::from_secs(75),
            write: Duration::from_secs(30),
            answer: Duration::from_mins(5),
            idle_stream: Duration::from_mins(5),
            stream: Duration::from_hours(1),
            drain: Duration::from_mins(5),
            linger: Duration::from_millis(100),
            idle_session: Duration::from_hours(1),
            h2_ping: Duration::from_secs(20),
        }
    }
}

/// Bounds and waits of the listener.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpConfig {
    /// Bounds.
    pub limits: HttpLimits,
    /// Waits.
    pub timeouts: HttpTimeouts,
}

/// A route and what is alive on it.
#[derive(Debug)]
struct RouteState {
    path: Box<str>,
    server: Arc<Protected>,
    allowed: Allowed,
    /// Who calls here. Nothing where tokens end here: then only [`bearer::caller`] knows.
    principal: Option<Arc<Principal>>,
    upstream: Arc<Upstream>,
    oauth: Option<OAuth>,
    sessions: Sessions,
    streams: LegacyStreams,
}

/// What all connections share.
struct Inner {
    shared: Shared,
    routes: HashMap<Box<str>, Arc<RouteState>>,
    /// Routes by the path of their HTTP+SSE transport.
    legacy: HashMap<Box<str>, Arc<RouteState>>,
    sites: Sites,
    config: HttpConfig,
    exchanges: Arc<Gauge>,
    streams: Arc<Gauge>,
    body_budget: Arc<Gauge>,
    event_ids: EventIds,
}

impl Inner {
    /// Who may ask for which events again.
    fn event_scope(
        &self,
        route: &RouteState,
        principal: &Principal,
        legacy: Option<&LegacySession>,
    ) -> EventScope {
        let server = &route.server.facts.name;
        self.event_ids.scope(&principal.id, server, legacy.map(|legacy| &*legacy.ours))
    }

    /// Forgets idle sessions, and closes calls whose clients did not come for the answer.
    fn sweep(&self) {
        let now = self.shared.clock.uptime();
        for route in self.routes.values() {
            close_sessions(route.sessions.expire(now));
            for (session, call) in route.sessions.given_up(now, self.config.timeouts.drain) {
                session.client_gone(&call);
            }
        }
    }
}

/// Closes what expired or ended sessions still had in flight: nobody will come for it.
fn close_sessions(sessions: Vec<Arc<SessionHandle>>) {
    for session in sessions {
        drop(session.settle_all(None));
    }
}

/// The agents' listener, bound and not yet serving.
pub struct Listener {
    tcp: TcpListener,
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Listener {
    /// Will serve `routes` on `tcp`. Of two routes with one path the later stands; configurations
    /// are checked elsewhere.
    #[expect(clippy::large_types_passed_by_value, reason = "once a listener")]
    pub fn new(
        tcp: std::net::TcpListener,
        routes: Vec<Route>,
        config: HttpConfig,
        shared: Shared,
    ) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
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
        let inner = Inner {
            shared,
            sites: Sites::of(by_path.values()),
            routes: by_path,
            legacy,
            config,
            exchanges: Gauge::new(config.limits.exchanges_max),
            streams: Gauge::new(config.limits.streams_max),
            body_budget: Gauge::new(config.limits.body_budget_bytes),
            event_ids: EventIds::new()?,
        };
        Ok(Self { tcp: TcpListener::from_std(tcp)?, inner: Arc::new(inner) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until [`Shared::closing`], then until every request in progress is answered.
    /// Streams without an end are ended. Whoever must stop sooner drops the future and aborts
    /// the tasks of [`Shared::tasks`].
    pub async fn serve(self) {
        let Self { tcp, inner } = self;
        let limits = inner.config.limits;
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let builder = builder(&inner);
        let connections = TaskTracker::new();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = inner.shared.closing.cancelled() => break,
                accepted = accept(&tcp, &slots) => accepted,
                _ = sweep.tick() => {
                    inner.sweep();
                    continue;
                }
            };
            match accepted {
                Ok((stream, slot)) => {
                    let serving = connection(Arc::clone(&inner), builder.clone(), stream, slot);
                    connections.spawn(inner.shared.tasks.track_future(Belled::new(serving)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(tcp);
        connections.close();
        connections.wait().await;
        for route in inner.routes.values() {
            close_sessions(route.sessions.clear());
        }
    }
}

async fn accept(
    tcp: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = tcp.accept().await?;
    stream.set_nodelay(true)?;
    notice_silent_peers(&stream)?;
    Ok((stream, slot))
}

/// Has the kernel ask a silent peer whether it is there. An agent whose host is gone says no
/// goodbye, and on an idle stream nothing is written that could fail.
fn notice_silent_peers(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, SILENT_MAX)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES_MAX)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// Runs the tasks of HTTP/2 connections where shutdown waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

fn builder(inner: &Inner) -> auto::Builder<Tracked> {
    let HttpConfig { limits, timeouts } = inner.config;
    let mut builder = auto::Builder::new(Tracked(inner.shared.tasks.clone()));
    // Deadlines of HTTP/1 are kept by `wire`, which arms one timer where hyper arms one a request.
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(limits.h2_header_list_bytes_max)
        .max_pending_accept_reset_streams(limits.h2_pending_resets_max)
        .initial_stream_window_size(limits.h2_window_bytes)
        .initial_connection_window_size(limits.h2_window_bytes)
        .keep_alive_interval(timeouts.h2_ping)
        .keep_alive_timeout(timeouts.h2_ping);
    builder
}

async fn connection(
    inner: Arc<Inner>,
    builder: auto::Builder<Tracked>,
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
) {
    let timeouts = inner.config.timeouts;
    let patience =
        Patience { head: timeouts.header, idle: timeouts.idle_connection, write: timeouts.write };
    let peer = Arc::new(Peer::default());
    let stream = WatchedStream::new(stream, Arc::clone(&peer), inner.shared.clock, patience);
    let closing = inner.shared.closing.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = receive::answer(Arc::clone(&inner), Arc::clone(&peer), request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        biased;
        served = serving.as_mut() => served,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
    drop(slot);
}
