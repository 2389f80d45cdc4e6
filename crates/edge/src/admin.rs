//! The operator's listener: liveness and readiness probes.
//!
//! It answers `GET /livez` and `GET /readyz` on a socket of its own, never on the agents' listener,
//! and knows nothing of MCP. It reads no request body and shows no secret: the reasons in its
//! answers are texts of the program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use bartizan_sync::lock;

/// Connections open at once.
const CONNECTIONS_MAX: usize = 64;
/// Timeout for a request's head, and between requests.
const HEAD: Duration = Duration::from_secs(10);
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
    tcp: TcpListener,
    readiness: Readiness,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl AdminListener {
    /// A listener on `tcp`. Liveness is answered until `closing` is cancelled and every task of
    /// `tasks` has ended; readiness fails from the moment of `closing`. Fails if the socket cannot
    /// be registered with the runtime.
    pub fn new(
        tcp: std::net::TcpListener,
        readiness: Readiness,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Ok(Self { tcp: TcpListener::from_std(tcp)?, readiness, tasks, closing })
    }

    /// The address that it listens on. Fails if the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until all of `tasks` have ended. Must not run inside `tasks`, which it waits for.
    pub async fn serve(self) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let own = TaskTracker::new();
        let over = async {
            self.closing.cancelled().await;
            self.tasks.wait().await;
        };
        tokio::pin!(over);
        loop {
            let accepted = tokio::select! {
                () = &mut over => return,
                accepted = accept(&self.tcp, &connections) => accepted,
            };
            let Ok((stream, permit)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (readiness, closing) = (self.readiness.clone(), self.closing.clone());
            own.spawn(async move {
                let answering = service_fn(move |request| {
                    let answer = answer(&request, &readiness, closing.is_cancelled());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), answering)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "admin connection ended");
                }
                drop(permit);
            });
        }
    }
}

async fn accept(
    tcp: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(|_| io::ErrorKind::Other)?;
    let (stream, _) = tcp.accept().await?;
    Ok((stream, permit))
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
