//! Sends the journal on as OpenTelemetry traces: OTLP over HTTP, in protobuf.
//!
//! How records are followed, tried again and resumed after a restart is in [`export`](super::export);
//! here is what records become ([`span`](super::span)) and what an answer of a collector means
//! (OTLP specification, "OTLP/HTTP Response"). A span needs the records of the beginning and of the end of
//! its call, so the place where reading begins after a restart is that of the oldest call that had
//! not ended; spans that were sent before are then not sent again.
//!
//! Headers in the variables `OTEL_EXPORTER_OTLP_TRACES_HEADERS` or `OTEL_EXPORTER_OTLP_HEADERS` are
//! sent beside those of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bartizan_outbound::service::{Service, ServiceAnswer, ServiceCall};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entry::Entry;
use super::export::{Answer, Cursor, Destination, Exporter, Made};
use super::journal::Journal;
use super::span::Assembler;
use super::tail::Line;

pub use super::export::Progress;

/// Longest answer of a collector, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Variables with headers; the first that is set is read (OTLP exporter specification).
const HEADER_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// Where traces go.
pub struct OtlpConfig {
    /// The way to the collector. Its address is the base URL; `/v1/traces` is added to the path
    /// unless it ends so.
    pub collector: Service,
    /// Headers of each request, credentials among them.
    pub headers: HeaderMap,
    /// `service.name` of the resource.
    pub service_name: String,
    /// The state directory.
    pub state: PathBuf,
    /// Pause after a request, so that records gather into one.
    pub linger: Duration,
}

impl OtlpConfig {
    /// The defaults: no headers, the service is called `bartizan`, one request a second.
    pub fn new(collector: Service, state: PathBuf) -> Self {
        Self {
            collector,
            headers: HeaderMap::new(),
            service_name: "bartizan".to_owned(),
            state,
            linger: Duration::from_secs(1),
        }
    }
}

// Headers hold secrets.
impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("service_name", &self.service_name)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

/// Starts sending, as a task in `tasks`: the records of this run, or where an earlier run has sent
/// to the collector, all since. Cancel `stop` once the last record was kept: what is left is sent
/// for up to five seconds, then the task ends, and the next start goes on.
pub fn start(
    config: OtlpConfig,
    journal: &Journal,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Arc<Progress> {
    let OtlpConfig { collector, mut headers, service_name, state, linger } = config;
    let variable = HEADER_VARIABLES.iter().find_map(|name| std::env::var(name).ok());
    headers.extend(headers_in(variable.as_deref().unwrap_or_default()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let resource = Resource::builder_empty()
        .with_service_name(service_name)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", journal.boot().to_owned()))
        .build();
    let (cursor, position) = Cursor::open::<Traces>(&state, journal);
    let traces = Traces {
        target: traces_target(&collector),
        collector,
        headers,
        resource: (&resource).into(),
        assembler: Assembler::default(),
        begins: position.next,
    };
    Exporter::new(traces, journal, (cursor, position), linger).start(tasks, stop)
}

/// The path of the address with `/v1/traces` behind it, unless it is there.
fn traces_target(collector: &Service) -> PathAndQuery {
    let whole = collector.url().path().trim_end_matches('/').ends_with("/v1/traces");
    collector.target_below(if whole { "" } else { "/v1/traces" })
}

/// The headers in a variable's text: `name=value`, with commas between them, values
/// percent-encoded. What is no header is left out.
fn headers_in(text: &str) -> HeaderMap {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let headers = pairs.filter_map(|(name, value)| {
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    });
    headers.collect()
}

/// A collector of traces.
struct Traces {
    collector: Service,
    target: PathAndQuery,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    assembler: Assembler,
    /// Spans that records before this one completed were sent by an earlier run.
    begins: u64,
}

impl Destination for Traces {
    type Item = SpanData;
    const NAME: &'static str = "audit traces";
    const CURSOR_FILE: &'static str = "otlp.seq";
    const BATCH_RECORDS_MAX: usize = 512;

    async fn make(&mut self, lines: Vec<Line>) -> Made<SpanData> {
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        let given_up = self.assembler.given_up();
        for line in &lines {
            let sent_before = line.seq < self.begins;
            match Entry::read(&line.bytes) {
                Ok(entry) => {
                    let spans = self.assembler.take(entry);
                    if !sent_before {
                        items.extend(spans);
                    }
                }
                Err(_) if sent_before => {}
                Err(cause) => lost.push((1, format!("record {}: {cause}", line.seq))),
            }
        }
        let given_up = self.assembler.given_up().saturating_sub(given_up);
        if given_up > 0 {
            lost.push((given_up, "too many calls await their outcome".to_owned()));
        }
        Made { items, lost }
    }

    async fn send(&self, spans: &[SpanData]) -> Answer {
        let resource_spans = group_spans_by_resource_and_scope(spans.to_vec(), &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let call = ServiceCall {
            method: Method::POST,
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: Bytes::from(body),
            wait: Duration::ZERO,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match self.collector.call(call).await {
            Ok(answer) => judged(answer),
            Err(failure) => Answer::Later(failure.to_string()),
        }
    }

    fn needed_since(&self, next: u64) -> u64 {
        self.assembler.oldest_open().unwrap_or(next).min(next)
    }
}

/// What a collector's answer means. Only some failures may be tried again ("Retryable Response
/// Codes").
fn judged(ServiceAnswer { status, body, .. }: ServiceAnswer) -> Answer {
    if status.is_success() {
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        return Answer::Taken { rejected: u64::try_from(rejected).unwrap_or(0) };
    }
    let cause = format!("the collector answered with status {}", status.as_u16());
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later(cause),
        413 => Answer::TooLarge,
        _ => Answer::Refused(cause),
    }
}

#[cfg(test)]
mod tests {
    use bartizan_outbound::address::Address;
    use bartizan_outbound::service::{Credentials, ServiceConfig};

    use super::*;

    #[test]
    fn headers_of_a_variable() {
        let headers = headers_in("a=b, api-key = x%20y%3D=1 ,no,=v,bad name=v,c=%0a,d=%ff,e=");
        let found: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(found, [("a", "b"), ("api-key", "x y==1"), ("e", "")]);
        assert!(!format!("{headers:?}").contains("x y"), "may be credentials");
    }

    #[test]
    fn the_path_is_added_once() {
        for (base, whole) in [
            ("", "/v1/traces"),
            ("/", "/v1/traces"),
            ("/otlp/?a=b", "/otlp/v1/traces?a=b"),
            ("/v1/traces", "/v1/traces"),
            ("/x/v1/traces/", "/x/v1/traces"),
        ] {
            let address = Address::parse(&format!("http://localhost{base}")).unwrap();
            let collector = Service::new(ServiceConfig {
                address,
                ca_pem: None,
                credentials: Credentials::None,
                timeout: Duration::from_secs(1),
            });
            assert_eq!(traces_target(&collector.unwrap()), whole, "{base}");
        }
    }
}
