//! Sends the journal on as OpenTelemetry traces.
//!
//! A task of its own follows the journal by reading its files, so it cannot block or slow a call,
//! and while the collector is away it only falls behind. What it does not do yet: remember across
//! restarts how far it came. It begins with the records of the run that starts it, and what is
//! unsent when the program ends is not sent later. Every loss is counted and logged.
//!
//! The standard `OTEL_EXPORTER_OTLP_HEADERS` variables are honoured beside the configuration.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::collector::{Collector, LastAnswer};
use super::entry::Entry;
use super::journal::Journal;
use super::span::Assembler;
use super::tail::{Follower, Line, ReadError};

/// Records read for one request to the collector.
const BATCH_RECORDS_MAX: usize = 512;

/// First wait before a request is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest wait before a request is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Time to send what is left once the program ends.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Where traces go.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Base URL of the collector, `http` or `https`; `/v1/traces` is added unless it ends so.
    pub endpoint: String,
    /// Headers of each request, credentials among them.
    pub headers: Vec<(String, String)>,
    /// `service.name` of the resource.
    pub service_name: String,
    /// Time for one request.
    pub timeout: Duration,
    /// Pause after each request, so that records gather into one.
    pub linger: Duration,
}

impl OtlpConfig {
    /// The defaults, for `endpoint`: 10 s for a request, one request a second.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            headers: Vec::new(),
            service_name: "bartizan".to_owned(),
            timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("OtlpConfig")
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .field("service_name", &self.service_name)
            .field("timeout", &self.timeout)
            .field("linger", &self.linger)
            .finish()
    }
}

/// Why no traces can be sent at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtlpError {
    /// The endpoint is no `http` or `https` URL with a host.
    Endpoint {
        /// As it was given.
        endpoint: String,
    },
    /// A header cannot be sent.
    Header {
        /// Its name.
        name: String,
    },
    /// The exporter cannot be built.
    Exporter(String),
}

impl fmt::Display for OtlpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { endpoint } => write!(
                f,
                "`{endpoint}` is no collector's address\n\
                 hint: give its base URL, like `http://127.0.0.1:4318`"
            ),
            Self::Header { name } => write!(f, "header `{name}` cannot be sent to the collector"),
            Self::Exporter(cause) => write!(f, "cannot build the trace exporter: {cause}"),
        }
    }
}

impl std::error::Error for OtlpError {}

/// What became of the spans so far.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Progress {
    /// Spans that the collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Spans, and records that could not be made into spans, that it will not get.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Starts sending the records of this run, as a task in `tasks`. Cancel `stop` once the last
/// record was kept: what is left is sent for up to five seconds, then the task ends.
pub fn start(
    config: &OtlpConfig,
    journal: &Journal,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Arc<Progress>, OtlpError> {
    let last = Arc::new(LastAnswer::default());
    let exporter = exporter(config, journal.boot(), Arc::clone(&last))?;
    let progress = Arc::new(Progress::default());
    let mut shipper = Shipper {
        exporter,
        last,
        follower: journal.follow(journal.first_seq()),
        assembler: Assembler::default(),
        progress: Arc::clone(&progress),
        linger: config.linger,
    };
    tasks.spawn(async move {
        let out_of_time = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            () = shipper.run(&stop) => {}
            () = out_of_time => {
                tracing::warn!(records = shipper.follower.lag(), "audit traces unsent at the end");
            }
        }
    });
    Ok(progress)
}

fn exporter(
    config: &OtlpConfig,
    boot: &str,
    last: Arc<LastAnswer>,
) -> Result<SpanExporter, OtlpError> {
    let client =
        Collector::new(config.timeout, last).map_err(|no_tls| OtlpError::Exporter(no_tls.0))?;
    let mut headers = HashMap::new();
    for (name, value) in &config.headers {
        let sendable =
            http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
        if !sendable {
            return Err(OtlpError::Header { name: name.clone() });
        }
        headers.insert(name.clone(), value.clone());
    }
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(traces_url(&config.endpoint)?)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(config.timeout)
        .with_headers(headers)
        // The exporter's own retries would block this thread while they wait.
        .with_retry_policy(RetryPolicy::default().with_max_retries(0))
        .build()
        .map_err(|error| OtlpError::Exporter(error.to_string()))?;
    let resource = Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", boot.to_owned()))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

fn traces_url(endpoint: &str) -> Result<String, OtlpError> {
    let refused = || OtlpError::Endpoint { endpoint: endpoint.to_owned() };
    let uri: Uri = endpoint.parse().map_err(|_| refused())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !known || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(refused());
    }
    let base = endpoint.trim_end_matches('/');
    let whole = base.ends_with("/v1/traces");
    Ok(if whole { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// Reads records, makes spans, sends them.
struct Shipper {
    exporter: SpanExporter,
    last: Arc<LastAnswer>,
    follower: Follower,
    assembler: Assembler,
    progress: Arc<Progress>,
    linger: Duration,
}

impl Shipper {
    /// Until the journal is gone, or `stop` is cancelled and everything was sent.
    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            if stop.is_cancelled() && self.follower.lag() == 0 {
                return;
            }
            let read = tokio::select! {
                biased;
                read = self.follower.batch(BATCH_RECORDS_MAX) => read,
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
            };
            match read {
                Ok(lines) if lines.is_empty() => return,
                Ok(lines) => {
                    let spans = self.assemble(&lines);
                    if !spans.is_empty() {
                        self.deliver(spans).await;
                    }
                }
                Err(ReadError::Io { path, source }) => {
                    tracing::warn!(path = %path.display(), error = %source, "cannot read the journal");
                    tokio::time::sleep(RETRY_FIRST).await;
                }
                Err(ReadError::Missing { found, .. }) => {
                    self.pass_over(found, "records are missing from the journal");
                }
                Err(ReadError::Unreadable { seq, .. }) => {
                    self.pass_over(seq.saturating_add(1), "a record cannot be read");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.linger) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn assemble(&mut self, lines: &[Line]) -> Vec<SpanData> {
        let mut spans = Vec::new();
        let given_up = self.assembler.given_up();
        for line in lines {
            match Entry::read(&line.bytes) {
                Ok(entry) => spans.extend(self.assembler.take(entry)),
                Err(cause) => self.lose(1, &format!("record {}: {cause}", line.seq)),
            }
        }
        let given_up = self.assembler.given_up().saturating_sub(given_up);
        if given_up > 0 {
            self.lose(given_up, "too many calls await their outcome");
        }
        spans
    }

    /// Sends `spans`, again and again while that may succeed.
    async fn deliver(&self, spans: Vec<SpanData>) {
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let mut wait = RETRY_FIRST;
        loop {
            match self.exporter.export(spans.clone()).await {
                Ok(()) => {
                    let rejected = self.last.rejected().min(count);
                    if rejected > 0 {
                        self.lose(rejected, "rejected by the collector");
                    }
                    let sent = count.saturating_sub(rejected);
                    self.progress.sent.fetch_add(sent, Ordering::Relaxed);
                    return;
                }
                Err(error) if self.last.may_succeed_later() => {
                    tracing::warn!(%error, spans = count, "audit traces not sent yet");
                }
                Err(error) => return self.lose(count, &error.to_string()),
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(RETRY_MAX);
        }
    }

    /// Goes on at record `found`.
    fn pass_over(&mut self, found: u64, cause: &str) {
        self.lose(found.saturating_sub(self.follower.next_seq()), cause);
        self.follower.seek(found);
    }

    fn lose(&self, count: u64, cause: &str) {
        self.progress.lost.fetch_add(count, Ordering::Relaxed);
        tracing::error!(count, cause, "audit traces lost");
    }
}
