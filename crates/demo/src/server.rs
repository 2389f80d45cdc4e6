//! The demo's protected servers: the demo's own flag service, and stand-ins for vendors' servers.
//!
//! rmcp serves them over Streamable HTTP in both eras, so Bartizan talks to code that is not its
//! own. Tool names and arguments are those of the packs. A server keeps every request that reached
//! it, so that the demo does not rely on the firewall's own word. It checks its vendor's credential
//! and no other permission.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::flags::Flags;
use super::service::{FlagHandler, Service};
use super::vendor::{Credential, Vendor, VendorHandler};
use bartizan_sync::lock;

/// The path of the MCP endpoint.
pub const PATH: &str = "/mcp";

/// Most requests that are kept; older ones are dropped but still counted.
const RECEIVED_MAX: usize = 4_096;

/// Largest body that is accepted, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 256;

/// One request that reached the server by POST.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// The path and query.
    pub uri: Uri,
    /// The headers, credentials included.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The requests that reached the server, in order.
#[derive(Debug, Default)]
struct Traffic {
    requests: VecDeque<ReceivedRequest>,
    forgotten: usize,
}

impl Traffic {
    fn count(&self) -> usize {
        self.forgotten.saturating_add(self.requests.len())
    }

    fn keep(&mut self, request: ReceivedRequest) {
        if self.requests.len() >= RECEIVED_MAX && self.requests.pop_front().is_some() {
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.requests.push_back(request);
    }
}

/// A running server: the demo's own flag service or a vendor's stand-in.
#[derive(Debug, Clone)]
pub struct FlagService {
    address: SocketAddr,
    service: Arc<Mutex<dyn Service>>,
    traffic: Arc<Mutex<Traffic>>,
    tasks: TaskTracker,
}

impl FlagService {
    /// The URL of its MCP endpoint.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Number of POST requests that reached it.
    pub fn received_count(&self) -> usize {
        lock(&self.traffic).count()
    }

    /// The bodies of the POST requests after the first `skip`, byte for byte.
    pub fn received_since(&self, skip: usize) -> Vec<Bytes> {
        self.requests_since(skip).into_iter().map(|request| request.body).collect()
    }

    /// The POST requests after the first `skip`.
    pub fn requests_since(&self, skip: usize) -> Vec<ReceivedRequest> {
        let traffic = lock(&self.traffic);
        let forgotten = skip.saturating_sub(traffic.forgotten);
        traffic.requests.iter().skip(forgotten).cloned().collect()
    }

    /// The state of one environment and of what all environments share.
    pub fn snapshot(&self, environment: &str) -> Value {
        lock(&self.service).snapshot(environment)
    }

    /// Waits until it has closed; cancel its token first.
    pub async fn closed(&self) {
        self.tasks.wait().await;
    }
}

/// Serves the flag service on `listener` until `shutdown` is cancelled. Fails if the socket has no
/// address.
///
/// Only requests for a loopback `Host` and without `Origin` are answered, so that no web page can
/// call it.
pub fn serve_flag_service(
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<FlagService> {
    let flags = Arc::new(Mutex::new(Flags::seeded()));
    let handler = FlagHandler::new(Arc::clone(&flags));
    serve(listener, shutdown, flags, handler, None)
}

/// Serves the stand-in for `vendor` on `listener` until `shutdown` is cancelled. Requests must
/// carry the credential of [`Vendor::headers`]; others get 401. [`Vendor::FlagService`] is the same
/// as [`serve_flag_service`].
pub fn serve_vendor(
    vendor: Vendor,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<FlagService> {
    let Some((service, key)) = vendor.service() else {
        return serve_flag_service(listener, shutdown);
    };
    let handler = VendorHandler::new(vendor, Arc::clone(&service));
    serve(listener, shutdown, service, handler, Some(key))
}

fn serve<H: ServerHandler + Clone>(
    listener: TcpListener,
    shutdown: CancellationToken,
    service: Arc<Mutex<dyn Service>>,
    handler: H,
    key: Option<Credential>,
) -> std::io::Result<FlagService> {
    let service = FlagService {
        address: listener.local_addr()?,
        service,
        traffic: Arc::default(),
        tasks: TaskTracker::new(),
    };
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(["127.0.0.1", "localhost", "::1"])
        .enforce_origin_validation()
        .with_cancellation_token(shutdown.child_token());
    let mcp = StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let running = ServerTask {
        mcp,
        key,
        traffic: Arc::clone(&service.traffic),
        tasks: service.tasks.clone(),
        shutdown,
    };
    service.tasks.spawn(running.accept(listener));
    service.tasks.close();
    Ok(service)
}

#[derive(Clone)]
struct ServerTask<H> {
    mcp: StreamableHttpService<H, LocalSessionManager>,
    key: Option<Credential>,
    traffic: Arc<Mutex<Traffic>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl<H: ServerHandler + Clone> ServerTask<H> {
    async fn accept(self, listener: TcpListener) {
        let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (Ok((stream, _)), Ok(slot)) = (accepted, Arc::clone(&slots).try_acquire_owned())
            else {
                continue; // a peer that left at once, or one too many: it sees a closed socket
            };
            let running = self.clone();
            self.tasks.spawn(async move {
                running.connection(stream).await;
                drop(slot);
            });
        }
    }

    async fn connection(self, stream: tokio::net::TcpStream) {
        // Without this, an answer in two small writes waits for the client's delayed
        // acknowledgement (Nagle's algorithm).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "demo flag service: no TCP_NODELAY");
        }
        let running = self.clone();
        let service = service_fn(move |request| {
            let running = running.clone();
            async move { Ok::<_, Infallible>(running.answer(request).await) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "demo flag service: connection ended");
            }
        }
    }

    /// Keeps the request, then passes the same bytes to rmcp.
    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.uri().path() != PATH {
            return status(http::StatusCode::NOT_FOUND);
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return status(http::StatusCode::PAYLOAD_TOO_LARGE);
        };
        let body = body.to_bytes();
        if parts.method == http::Method::POST {
            lock(&self.traffic).keep(ReceivedRequest {
                uri: parts.uri.clone(),
                headers: parts.headers.clone(),
                body: body.clone(),
            });
        }
        if self.key.is_some_and(|key| !key.accepts(&parts.headers)) {
            return status(http::StatusCode::UNAUTHORIZED);
        }
        self.mcp.handle(Request::from_parts(parts, Full::new(body))).await
    }
}

fn status(status: http::StatusCode) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = status;
    response
}
