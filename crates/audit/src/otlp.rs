//! Exports the journal as OpenTelemetry traces: OTLP over HTTP with protobuf.
//!
//! [`export`](super::export) follows the journal, retries and resumes; [`span`](super::span) makes
//! spans of records; this module sends them and interprets the collector's response (OTLP
//! specification, "OTLP/HTTP Response"). A span needs the first and the last record of its call.
//! After a restart reading therefore begins with the oldest call that had not ended; spans that
//! were already sent are not sent again. `run` starts it.
//!
//! Headers from the environment variables `OTEL_EXPORTER_OTLP_TRACES_HEADERS` or
//! `OTEL_EXPORTER_OTLP_HEADERS` are sent in addition to those of the configuration.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

use super::entry::JournalRecord;
use super::export::{Batch, Cursor, Destination, Exporter, SendOutcome};
use super::journal::Journal;
use super::span::Assembler;
use super::tail::Line;

pub use super::export::Progress;

/// Largest response body that is accepted from a collector, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Environment variables with headers; the first one that is set is used (OpenTelemetry, "OTLP
/// Exporter Configuration").
const HEADER_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// Where traces are sent, and with what.
pub struct OtlpConfig {
    /// The collector's client. Its address is the base URL; `/v1/traces` is appended to the path
    /// unless the path already ends with it.
    pub collector: Service,
    /// Headers of each request; some may be credentials.
    pub headers: HeaderMap,
    /// `service.name` of the resource.
    pub service_name: String,
    /// The state directory, which holds the cursor.
    pub state: PathBuf,
    /// Pause after a request, so that several records share one.
    pub linger: Duration,
}

impl OtlpConfig {
    /// The defaults: no headers, service name `bartizan`, at most one request a second.
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

// By hand, because headers may hold secrets.
impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("service_name", &self.service_name)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

/// Starts sending, as a task in `tasks`. Begins with the first record of this run, or, if an
/// earlier run left a cursor, with the first record that it did not send.
///
/// Cancel `stop` after the last record was kept. The task then sends what is left for at most five
/// seconds and ends; the next start sends the rest.
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
    Exporter::new(traces, journal, cursor, position, linger).start(tasks, stop)
}

/// The path and query to send to: the address with `/v1/traces` appended, unless it ends with it.
fn traces_target(collector: &Service) -> PathAndQuery {
    let whole = collector.url().path().trim_end_matches('/').ends_with("/v1/traces");
    collector.target_below(if whole { "" } else { "/v1/traces" })
}

/// Parses headers from a variable's text: comma-separated `name=value` pairs with percent-encoded
/// values (W3C Baggage form, as OpenTelemetry prescribes). Invalid pairs are skipped.
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

/// Assembles spans and sends them to a collector.
struct Traces {
    collector: Service,
    target: PathAndQuery,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    assembler: Assembler,
    /// Earlier runs sent the spans that end before this sequence number.
    begins: u64,
}

impl Destination for Traces {
    type Item = SpanData;
    const NAME: &'static str = "audit traces";
    const CURSOR_FILE: &'static str = "otlp.seq";
    const BATCH_RECORDS_MAX: usize = 512;

    async fn make(&mut self, lines: Vec<Line>) -> Batch<SpanData> {
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        let given_up = self.assembler.given_up();
        for line in &lines {
            let sent_before = line.seq < self.begins;
            match JournalRecord::read(&line.bytes) {
                Ok(entry) => match catch_unwind(AssertUnwindSafe(|| self.assembler.take(entry))) {
                    Ok(spans) if !sent_before => items.extend(spans),
                    Err(_) if !sent_before => {
                        lost.push((1, format!("record {}: a panic", line.seq)));
                    }
                    Ok(_) | Err(_) => {}
                },
                Err(_) if sent_before => {}
                Err(cause) => lost.push((1, format!("record {}: {cause}", line.seq))),
            }
        }
        let given_up = self.assembler.given_up().saturating_sub(given_up);
        if given_up > 0 {
            lost.push((given_up, "too many calls await their outcome".to_owned()));
        }
        Batch { items, lost }
    }

    async fn send(&self, spans: &[SpanData]) -> SendOutcome {
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
            Ok(answer) => outcome_of(answer),
            Err(failure) => SendOutcome::Later(failure.to_string()),
        }
    }

    fn needed_since(&self, next: u64) -> u64 {
        self.assembler.oldest_open().unwrap_or(next).min(next)
    }
}

/// Classifies a collector's response. The OTLP specification lists the status codes that may be
/// retried ("Retryable Response Codes").
fn outcome_of(ServiceAnswer { status, body, .. }: ServiceAnswer) -> SendOutcome {
    if status.is_success() {
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        return SendOutcome::Taken { rejected: u64::try_from(rejected).unwrap_or(0) };
    }
    let cause = format!("the collector answered with status {}", status.as_u16());
    match status.as_u16() {
        429 | 502 | 503 | 504 => SendOutcome::Later(cause),
        413 => SendOutcome::TooLarge,
        _ => SendOutcome::Refused(cause),
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
