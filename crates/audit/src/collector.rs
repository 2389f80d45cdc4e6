//! The way to an OpenTelemetry collector: one HTTP client for the OTLP exporter.
//!
//! A small client of our own over hyper, because the program has hyper and rustls already. It
//! also reads what the stock exporter throws away: the status of the answer, and how many spans
//! the collector took and then rejected.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

/// Longest answer of a collector, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends one request at a time to a collector.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    last: Arc<LastAnswer>,
}

/// What became of the last request.
#[derive(Debug, Default)]
pub(super) struct LastAnswer {
    /// Its HTTP status; 0 where there was no answer.
    status: AtomicU16,
    /// Spans that the collector said it rejected.
    rejected: AtomicU64,
}

impl LastAnswer {
    /// Whether the same request may succeed later (OTLP specification, "Retryable Response
    /// Codes"), no answer included.
    pub(super) fn may_succeed_later(&self) -> bool {
        matches!(self.status.load(Ordering::Relaxed), 0 | 429 | 502 | 503 | 504)
    }

    /// Spans rejected although the request succeeded.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

/// A client cannot be made.
#[derive(Debug)]
pub(super) struct NoTls(pub(super) String);

impl Collector {
    /// A client for `http` and `https`; each request may take `timeout`.
    pub(super) fn new(timeout: Duration, last: Arc<LastAnswer>) -> Result<Self, NoTls> {
        let mut roots = rustls::RootCertStore::empty();
        // Certificates that cannot be read are left out; with none, no `https` will succeed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| NoTls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, timeout, last })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        self.last.status.store(head.status.as_u16(), Ordering::Relaxed);
        if head.status.is_success() {
            let answer = ExportTraceServiceResponse::decode(body.clone()).unwrap_or_default();
            let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
            self.last.rejected.store(u64::try_from(rejected).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(Response::from_parts(head, body))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.last.status.store(0, Ordering::Relaxed);
        self.last.rejected.store(0, Ordering::Relaxed);
        Box::pin(async move { tokio::time::timeout(self.timeout, self.send(request)).await? })
    }
}
