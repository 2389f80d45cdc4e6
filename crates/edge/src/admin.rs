//! The operator's listener: liveness and readiness probes.
//!
//! It answers `GET /livez` and `GET /readyz` on a socket, a thread and a runtime of its own, never on
//! the agents' listener, and knows nothing of MCP. It reads no request body and shows no secret: the reasons in its
//! answers are texts of the program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use bartizan_sync::lock;

pub mod approvers;

/// Connections open at once. Each has one request.
pub const CONNECTIONS_MAX: usize = 64;
/// Timeout for a request's head.
const HEAD: Duration = Duration::from_secs(2);
/// Timeout for a whole connection: its request and its answer.
const CONNECTION: Duration = Duration::from_secs(5);
/// Size of a request's head, bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Pause after a failed `accept`. Without it, running out of file descriptors would make a busy
/// loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A component that must be ready before calls can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// A policy is loaded and passed its checks.
    Policy,
    /// The journal can be written.
    Journal,
    /// The agents' listener is bound.
    Listener,
}

impl Component {
    const ALL: [Self; 3] = [Self::Policy, Self::Journal, Self::Listener];
}

/// Which components are ready. Clones share the state.
#[derive(Debug, Clone)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<Component, String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No component is ready.
    pub fn new() -> Self {
        let missing = Component::ALL.map(|component| (component, "not started".to_owned()));
        Self { missing: Arc::new(Mutex::new(BTreeMap::from(missing))) }
    }

    /// Marks `component` as ready.
    pub fn ready(&self, component: Component) {
        lock(&self.missing).remove(&component);
    }

    /// Marks `component` as not ready; `reason` is shown to the operator.
    pub fn not_ready(&self, component: Component, reason: impl Into<String>) {
        let mut missing = lock(&self.missing);
        missing.insert(component, reason.into());
    }

    /// Whether all components are ready.
    pub fn is_ready(&self) -> bool {
        lock(&self.missing).is_empty()
    }

    fn report(&self, draining: bool) -> (StatusCode, Bytes) {
        let missing = lock(&self.missing).clone();
        let ready = missing.is_empty() && !draining;
        let report = ReadinessReport { ready, draining, reasons: missing };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, serde_json::to_vec(&report).unwrap_or_default().into())
    }
}

#[derive(Debug, Serialize)]
struct ReadinessReport {
    ready: bool,
    draining: bool,
    /// Why components are not ready.
    reasons: BTreeMap<Component, String>,
}

/// The operator's listener, bound and not yet serving.
#[derive(Debug)]
pub struct AdminListener {
    tcp: std::net::TcpListener,
    readiness: Readiness,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl AdminListener {
    /// A listener on `tcp`. Liveness is answered until `closing` is cancelled and every task of
    /// `tasks` has ended; readiness fails from the moment of `closing`.
    pub fn new(
        tcp: std::net::TcpListener,
        readiness: Readiness,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        Self { tcp, readiness, tasks, closing }
    }

    /// The address that it listens on. Fails if the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves on a thread and a runtime of its own, so that probes are answered whatever the
    /// threads that serve agents do. The future ends when all of `tasks` have ended, and must not
    /// run inside `tasks`; dropping it stops the listener. Fails if the system gives no thread or
    /// the socket cannot be registered.
    pub fn start(self) -> io::Result<impl Future<Output = ()> + Send> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.tcp.set_nonblocking(true)?;
        let tcp = {
            let _inside = runtime.enter();
            TcpListener::from_std(self.tcp)?
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ended, end) = oneshot::channel::<()>();
        let (readiness, tasks, closing) = (self.readiness, self.tasks, self.closing);
        let serving = async move {
            let over = async {
                closing.cancelled().await;
                tasks.wait().await;
            };
            tokio::select! {
                () = over => {}
                () = stopped.cancelled() => {}
                () = serve(&tcp, &readiness, &closing) => {}
            }
        };
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(serving);
            drop(ended);
        })?;
        let stop = stop.drop_guard();
        Ok(async move {
            // Nothing is sent: the other end is dropped when the thread ends.
            drop(end.await);
            drop(stop);
        })
    }
}

/// Accepts connections for ever. A new one always gets a place: if all are taken, the oldest of the
/// peer that has most gives way (threat K1).
async fn serve(tcp: &TcpListener, readiness: &Readiness, closing: &CancellationToken) {
    let mut places = Places::default();
    loop {
        let Ok((stream, peer)) = tcp.accept().await else {
            // Out of file descriptors: the oldest connection's is free at once.
            places.shed();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (readiness, closing) = (readiness.clone(), closing.clone());
        let answering = service_fn(move |request| {
            let answer = answer(&request, &readiness, closing.is_cancelled());
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answering);
        let serving = async {
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, serving).await {
                tracing::debug!(%error, "admin connection ended");
            }
        };
        places.take(peer.ip(), serving);
    }
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Places {
    taken: Vec<(IpAddr, AbortHandle)>,
    tasks: TaskTracker,
}

impl Places {
    /// Gives a place to a connection of `peer`.
    fn take(&mut self, peer: IpAddr, serving: impl Future<Output = ()> + Send + 'static) {
        self.taken.retain(|(_, task)| !task.is_finished());
        if self.taken.len() >= CONNECTIONS_MAX {
            self.shed();
        }
        self.taken.push((peer, self.tasks.spawn(serving).abort_handle()));
    }

    /// Closes the oldest connection of the peer that has most.
    fn shed(&mut self) {
        let count = |of: IpAddr| self.taken.iter().filter(|(peer, _)| *peer == of).count();
        // `max_by_key` takes the last of equals, so the order is reversed.
        let crowd = self.taken.iter().rev().map(|(peer, _)| *peer).max_by_key(|peer| count(*peer));
        let oldest = self.taken.iter().position(|(peer, _)| Some(*peer) == crowd);
        if let Some(oldest) = oldest {
            self.taken.remove(oldest).1.abort();
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    readiness: &Readiness,
    draining: bool,
) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/livez" | "/readyz");
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => {
            (StatusCode::OK, Bytes::from_static(b"{\"alive\":true}"))
        }
        (&Method::GET | &Method::HEAD, "/readyz") => readiness.report(draining),
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
