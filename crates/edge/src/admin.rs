//! The operator's listener: is the program alive, and is it ready?
//!
//! It answers `GET /livez` and `GET /readyz` on a socket of its own, never on the agents', and
//! knows nothing of MCP. It reads no request body and gives no secret: the reasons are written by
//! the program itself.

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

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request's head, and between requests.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that must stand before calls can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// A policy is loaded and proven.
    Policy,
    /// The journal can be written.
    Journal,
    /// The agents' listener is bound.
    Listener,
}

impl Component {
    const ALL: [Self; 3] = [Self::Policy, Self::Journal, Self::Listener];
}

/// Which components stand; shared by all who know.
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
    /// Nothing stands yet.
    pub fn new() -> Self {
        let missing = Component::ALL.map(|component| (component, "not started".to_owned()));
        Self { missing: Arc::new(Mutex::new(BTreeMap::from(missing))) }
    }

    /// `component` stands.
    pub fn ready(&self, component: Component) {
        lock(&self.missing).remove(&component);
    }

    /// `component` does not stand, and why, for the operator.
    pub fn not_ready(&self, component: Component, reason: impl Into<String>) {
        let mut missing = lock(&self.missing);
        missing.insert(component, reason.into());
    }

    /// Whether calls can be served.
    pub fn is_ready(&self) -> bool {
        lock(&self.missing).is_empty()
    }

    fn report(&self, draining: bool) -> (StatusCode, Bytes) {
        let missing = lock(&self.missing).clone();
        let ready = missing.is_empty() && !draining;
        let report = Report { ready, draining, reasons: missing };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, serde_json::to_vec(&report).unwrap_or_default().into())
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    draining: bool,
    /// Why not, by component.
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
    /// Serves on `tcp`. Liveness is answered until `closing` is cancelled and every task of
    /// `tasks` has ended; readiness is off from the moment of `closing`.
    pub fn new(
        tcp: std::net::TcpListener,
        readiness: Readiness,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Ok(Self { tcp: TcpListener::from_std(tcp)?, readiness, tasks, closing })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until nothing is left to drain. Run it outside of `tasks`, which it waits for.
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
