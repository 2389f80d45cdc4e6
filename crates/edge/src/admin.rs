//! The operators' listener: liveness and readiness probes, metrics, and the approval of held calls.
//!
//! It answers `GET /livez`, `GET /readyz` and `GET /metrics` on a socket, a thread and a runtime of its own, never on
//! the agents' listener, and knows nothing of MCP. For probes it reads no request body and shows no
//! secret: the reasons in its answers are texts of the program. Approvals ([`api`]) need the token of
//! an approver and have room of their own, so that they hold up no probe. `console` is a page for them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use bartizan_sync::lock;

pub mod approvers;
mod places;
mod message;
mod metrics;
mod reply;
mod console;
mod answer;
pub mod record;
pub mod sign_in;
pub mod overview;
pub mod api;

use self::api::ApprovalsApi;
pub use self::metrics::MetricsPage;
use self::metrics::Scraping;
pub use self::places::{APPROVER_REQUESTS_MAX, CONNECTIONS_MAX};
use self::places::{Place, Places};
use self::reply::{Body, json};

/// Timeout for a request's head.
const HEAD: Duration = Duration::from_secs(2);
/// Timeout for a whole connection: its request and its answer.
const CONNECTION: Duration = Duration::from_secs(5);
/// Size of a request's head, bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Answers of approvers that are worked on at once; they may wait for the disk.
const ANSWERS_AT_ONCE: usize = 4;
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

/// What a readiness report says about the program.
pub struct About {
    /// Its version.
    pub version: &'static str,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// Returns the revision of the policy that decides now.
    pub policy: Box<dyn Fn() -> Arc<str> + Send + Sync>,
}

/// Which components are ready. Clones share the state.
#[derive(Clone)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<Component, String>>>,
    degraded: Arc<Mutex<BTreeMap<&'static str, String>>>,
    about: Arc<OnceLock<About>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("missing", &self.missing)
            .field("degraded", &self.degraded)
            .finish_non_exhaustive()
    }
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
        Self {
            missing: Arc::new(Mutex::new(BTreeMap::from(missing))),
            degraded: Arc::default(),
            about: Arc::default(),
        }
    }

    /// Says what its reports tell about the program. Only the first call counts.
    pub fn describe(&self, about: About) {
        drop(self.about.set(about));
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

    /// Says what is wrong with `part`, which calls can be served without, or that it works again. It
    /// is shown to the operator, and changes no readiness.
    pub fn degraded(&self, part: &'static str, reason: Option<String>) {
        let mut degraded = lock(&self.degraded);
        match reason {
            Some(reason) => drop(degraded.insert(part, reason)),
            None => drop(degraded.remove(part)),
        }
    }

    /// Whether all components are ready.
    pub fn is_ready(&self) -> bool {
        lock(&self.missing).is_empty()
    }

    fn report(&self, draining: bool) -> (StatusCode, Bytes) {
        let missing = lock(&self.missing).clone();
        let ready = missing.is_empty() && !draining;
        let degraded = lock(&self.degraded).clone();
        let about = self.about.get().map(|about| AboutReport {
            version: about.version,
            mode: about.mode,
            policy: (about.policy)(),
        });
        let report = ReadinessReport { ready, draining, reasons: missing, degraded, about };
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
    /// What is wrong with parts that calls can be served without.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    degraded: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    about: Option<AboutReport>,
}

/// [`About`], now.
#[derive(Debug, Serialize)]
struct AboutReport {
    version: &'static str,
    mode: &'static str,
    policy: Arc<str>,
}

/// The operators' listener, bound and not yet serving.
#[derive(Debug)]
pub struct AdminListener {
    tcp: std::net::TcpListener,
    readiness: Readiness,
    tasks: TaskTracker,
    closing: CancellationToken,
    approvals: Option<Arc<ApprovalsApi>>,
    metrics: Option<Scraping>,
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Desk {
    readiness: Readiness,
    closing: CancellationToken,
    approvals: Option<Arc<ApprovalsApi>>,
    metrics: Option<Scraping>,
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
        Self { tcp, readiness, tasks, closing, approvals: None, metrics: None }
    }

    /// Answers approvers, too.
    #[must_use]
    pub fn with_approvals(self, approvals: ApprovalsApi) -> Self {
        Self { approvals: Some(Arc::new(approvals)), ..self }
    }

    /// Answers `GET /metrics` with `page`, too.
    #[must_use]
    pub fn with_metrics(self, page: Arc<dyn MetricsPage>) -> Self {
        Self { metrics: Some(Scraping::new(page)), ..self }
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(ANSWERS_AT_ONCE)
            .enable_all()
            .build()?;
        self.tcp.set_nonblocking(true)?;
        let tcp = {
            let _inside = runtime.enter();
            TcpListener::from_std(self.tcp)?
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ended, end) = oneshot::channel::<()>();
        let (tasks, closing) = (self.tasks, self.closing);
        let desk = Desk {
            readiness: self.readiness,
            closing: closing.clone(),
            approvals: self.approvals,
            metrics: self.metrics,
        };
        let serving = async move {
            let over = async {
                closing.cancelled().await;
                tasks.wait().await;
            };
            tokio::select! {
                () = over => {}
                () = stopped.cancelled() => {}
                () = serve(&tcp, &desk) => {}
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
async fn serve(tcp: &TcpListener, desk: &Desk) {
    let mut places = Places::default();
    loop {
        let Ok((stream, peer)) = tcp.accept().await else {
            // Out of file descriptors: the oldest connection's is free at once.
            places.shed();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let place = Arc::<Place>::default();
        places.take(
            peer.ip(),
            Arc::clone(&place),
            connection(stream, peer.ip(), place, desk.clone()),
        );
    }
}

/// Serves the one request of a connection.
async fn connection(stream: TcpStream, peer: IpAddr, place: Arc<Place>, desk: Desk) {
    let at = Arc::clone(&place);
    let answering = service_fn(move |request: Request<Incoming>| {
        let (desk, place) = (desk.clone(), Arc::clone(&at));
        async move {
            let approvals = desk.approvals.clone();
            let approvals = approvals.filter(|_| ApprovalsApi::has(request.uri().path()));
            let metrics = desk.metrics.as_ref().filter(|_| request.uri().path() == metrics::PATH);
            Ok::<_, Infallible>(match (approvals, metrics) {
                (Some(approvals), _) => approvals.answer(request, peer, &place).await,
                (None, Some(metrics)) => metrics.answer(&request).await,
                (None, None) => answer(&request, &desk),
            })
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answering);
    let mut serving = pin!(serving);
    let mut ended = tokio::time::timeout(CONNECTION, serving.as_mut()).await;
    // An approver's request may take longer.
    if ended.is_err() && place.is_left() {
        let more = api::REQUEST.saturating_sub(CONNECTION);
        ended = tokio::time::timeout(more, serving.as_mut()).await;
    }
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer(request: &Request<Incoming>, desk: &Desk) -> Response<Body> {
    let page = desk.approvals.as_ref();
    let page = page.and_then(|_| console::answer(request.method(), request.uri().path()));
    if let Some(page) = page {
        return page;
    }
    let known = matches!(request.uri().path(), "/livez" | "/readyz");
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => {
            (StatusCode::OK, Bytes::from_static(b"{\"alive\":true}"))
        }
        (&Method::GET | &Method::HEAD, "/readyz") => {
            desk.readiness.report(desk.closing.is_cancelled())
        }
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    json(status, body)
}
