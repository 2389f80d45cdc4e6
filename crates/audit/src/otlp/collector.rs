//! Sends one request to a collector, over HTTP or gRPC, and interprets the response (OTLP
//! specification, "OTLP/HTTP Response" and "OTLP/gRPC Response").

use std::io::{self, Write as _};
use std::time::Duration;

use bartizan_outbound::grpc::{GrpcAnswer, GrpcCall, GrpcService};
use bartizan_outbound::service::{Service, ServiceAnswer, ServiceCall};
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde::Deserialize;

use super::super::entry;
use super::super::export::{SendOutcome, delay_asked, retry_after};
use super::retry_info;

/// Largest response body that is accepted from a collector, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Longest message of a collector that is kept, characters.
const MESSAGE_CHARS_MAX: usize = 512;

/// How requests to a collector are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With gzip, which every collector must take (OTLP specification, "OTLP/HTTP Request" and
    /// "OTLP/gRPC").
    Gzip,
}

/// A collector's client.
#[derive(Debug)]
pub struct CollectorClient {
    transport: CollectorTransport,
    compression: Compression,
}

/// How a collector is reached.
#[derive(Debug)]
pub enum CollectorTransport {
    /// OTLP over HTTP.
    Http(Service),
    /// OTLP over gRPC.
    Grpc(GrpcService),
}

impl CollectorClient {
    /// A client whose requests are compressed as `compression` says.
    pub fn new(transport: CollectorTransport, compression: Compression) -> Self {
        Self { transport, compression }
    }
}

/// Where one signal goes.
pub(super) struct Endpoint {
    /// For HTTP; appended to the path of the address unless that ends with it.
    pub(super) path: &'static str,
    /// For gRPC.
    pub(super) method: &'static str,
}

/// A collector's client for one signal.
pub(super) struct Collector {
    client: CollectorClient,
    target: PathAndQuery,
    headers: HeaderMap,
}

impl Collector {
    /// A client that sends to `endpoint`.
    pub(super) fn new(
        client: CollectorClient,
        endpoint: &Endpoint,
        mut headers: HeaderMap,
    ) -> Self {
        let target = match &client.transport {
            CollectorTransport::Http(service) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                if client.compression == Compression::Gzip {
                    headers.insert(CONTENT_ENCODING, GZIP);
                }
                target(service, endpoint.path)
            }
            CollectorTransport::Grpc(_) => PathAndQuery::from_static(endpoint.method),
        };
        Self { client, target, headers }
    }

    /// Sends `body`, a request in protobuf.
    pub(super) async fn send(&self, body: Vec<u8>) -> SendOutcome {
        let (headers, bytes_max) = (self.headers.clone(), ANSWER_BYTES_MAX);
        let (body, encoding) = match self.client.compression {
            Compression::None => (Bytes::from(body), None),
            Compression::Gzip => match gzipped(body).await {
                Ok(body) => (body, Some(GZIP)),
                Err(error) => return SendOutcome::later(format!("cannot be compressed: {error}")),
            },
        };
        let outcome = match &self.client.transport {
            CollectorTransport::Http(service) => {
                let call = ServiceCall {
                    method: Method::POST,
                    target: self.target.clone(),
                    headers,
                    body,
                    wait: Duration::ZERO,
                    bytes_max,
                };
                service.call(call).await.map(|answer| outcome_of(&answer))
            }
            CollectorTransport::Grpc(service) => {
                let (method, message) = (self.target.clone(), body);
                let call = GrpcCall { method, headers, message, encoding, bytes_max };
                service.call(call).await.map(grpc_outcome_of)
            }
        };
        outcome.unwrap_or_else(|failure| SendOutcome::later(failure.to_string()))
    }
}

/// `body`, compressed on a blocking thread: a request with log records can be megabytes, and must
/// not delay the threads that serve calls.
async fn gzipped(body: Vec<u8>) -> io::Result<Bytes> {
    let compressed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(&body)?;
        encoder.finish()
    });
    compressed.await.map_err(io::Error::other).flatten().map(Bytes::from)
}

/// The path and query to send to: the address with `path` appended, unless it ends with it.
fn target(service: &Service, path: &str) -> PathAndQuery {
    let whole = service.url().path().trim_end_matches('/').ends_with(path);
    service.target_below(if whole { "" } else { path })
}

/// Classifies a collector's response.
///
/// The OTLP specification lists the status codes that may be retried ("Retryable Response Codes").
/// A collector that does not know us, or has nothing at this path, would say the same of every
/// record: nothing is given up, and it is asked again until somebody has corrected that. So would
/// one that does not take our media type or compression (415). What is left is due to the records
/// (400, 413 and other 4xx), or may be (500 and other 5xx).
fn outcome_of(answer: &ServiceAnswer) -> SendOutcome {
    if answer.status.is_success() {
        return accepted(answer);
    }
    let cause = format!("the collector answered with status {}", answer.status.as_u16());
    match answer.status.as_u16() {
        401 | 403 | 404 | 405 | 407 | 408 | 415 | 429 | 502 | 503 | 504 => {
            SendOutcome::Later { cause, after: retry_after(&answer.headers) }
        }
        500.. => SendOutcome::Doubtful(cause),
        _ => SendOutcome::Refused(cause),
    }
}

/// Classifies a collector's response over gRPC.
///
/// The OTLP specification lists the codes that may be retried ("Failures"), and says that
/// `RESOURCE_EXHAUSTED` may be only with a `RetryInfo`: without one it stands for a message that is
/// too large. Some servers say `OUT_OF_RANGE` of such a message, so that one is retried, but not for
/// ever, unless it comes with a `RetryInfo`. As with HTTP, a collector that does not know us is
/// asked again, and a failure of its own (`UNKNOWN`, `INTERNAL`, as 500) is doubtful.
fn grpc_outcome_of(answer: GrpcAnswer) -> SendOutcome {
    let GrpcAnswer { code, message, details, body } = answer;
    if code == 0 {
        return protobuf(body);
    }
    let cause = format!("the collector answered with gRPC status {code}: {message}");
    let asked = retry_info::find(details);
    let after = asked.and_then(|asked| asked.delay).map(delay_asked);
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, PERMISSION_DENIED, ABORTED, UNIMPLEMENTED, UNAVAILABLE,
        // DATA_LOSS, UNAUTHENTICATED.
        1 | 4 | 7 | 10 | 12 | 14 | 15 | 16 => SendOutcome::Later { cause, after },
        // RESOURCE_EXHAUSTED, OUT_OF_RANGE.
        8 | 11 if asked.is_some() => SendOutcome::Later { cause, after },
        // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED, FAILED_PRECONDITION.
        3 | 5 | 6 | 8 | 9 => SendOutcome::Refused(cause),
        _ => SendOutcome::Doubtful(cause),
    }
}

/// A response with partial success in JSON. It has one of the numbers, by the signal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonResponse {
    partial_success: JsonPartialSuccess,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonPartialSuccess {
    rejected_spans: Option<JsonNumber>,
    rejected_log_records: Option<JsonNumber>,
    rejected_data_points: Option<JsonNumber>,
    error_message: String,
}

/// A 64-bit integer of protobuf in JSON: a text, or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum JsonNumber {
    Number(i64),
    Text(String),
}

impl JsonNumber {
    fn value(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

/// What a collector that accepted a request says of a part of it. The responses for log records
/// and metrics have the same fields of protobuf as that for spans.
fn accepted(answer: &ServiceAnswer) -> SendOutcome {
    let is_json = answer
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return protobuf(answer.body.clone());
    }
    let response: JsonResponse = entry::read(&answer.body).unwrap_or_default();
    let partial = response.partial_success;
    let number = partial.rejected_spans.or(partial.rejected_log_records);
    let number = number.or(partial.rejected_data_points);
    taken(number.map_or(0, |number| number.value()), &partial.error_message)
}

/// What a response in protobuf says of a part of the request.
fn protobuf(body: Bytes) -> SendOutcome {
    let response = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let partial = response.partial_success.unwrap_or_default();
    taken(partial.rejected_spans, &partial.error_message)
}

fn taken(rejected: i64, message: &str) -> SendOutcome {
    SendOutcome::Taken {
        rejected: u64::try_from(rejected).unwrap_or(0),
        cause: message.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use bartizan_outbound::address::Address;
    use bartizan_outbound::service::{Credentials, ServiceConfig};
    use http::StatusCode;
    use http::header::RETRY_AFTER;

    use super::*;

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
            assert_eq!(target(&collector.unwrap(), "/v1/traces"), whole, "{base}");
        }
    }

    fn answer(status: u16, kind: &str, body: &[u8]) -> ServiceAnswer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        let status = StatusCode::from_u16(status).unwrap();
        ServiceAnswer { status, headers, body: Bytes::copy_from_slice(body) }
    }

    #[test]
    fn partial_success_is_read_in_both_encodings() {
        let taken = |rejected, cause: &str| SendOutcome::Taken { rejected, cause: cause.into() };
        let json = "application/json; charset=utf-8";
        for (kind, body, expected) in [
            (json, &b"{}"[..], taken(0, "")),
            (
                json,
                br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"no"}}"#,
                taken(2, "no"),
            ),
            (json, br#"{"partialSuccess":{"rejectedLogRecords":3,"other":1}}"#, taken(3, "")),
            (json, br#"{"partialSuccess":{"rejectedDataPoints":"4"}}"#, taken(4, "")),
            (json, br#"{"partialSuccess":{"rejectedSpans":-1}}"#, taken(0, "")),
            (json, b"not JSON", taken(0, "")),
            ("application/x-protobuf", &[0x0a, 0x06, 0x08, 2, 0x12, 2, b'n', b'o'], taken(2, "no")),
            ("application/x-protobuf", &[0xff], taken(0, "")),
        ] {
            assert_eq!(outcome_of(&answer(200, kind, body)), expected, "{kind}");
        }
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        let cause = |status| format!("the collector answered with status {status}");
        for status in [401, 403, 404, 405, 407, 408, 415, 429, 502, 503, 504] {
            let after = Some(Duration::from_secs(3));
            let expected = SendOutcome::Later { cause: cause(status), after };
            assert_eq!(outcome_of(&answer(status, "text/plain", b"")), expected);
        }
        for status in [400, 411, 413, 422, 431] {
            let expected = SendOutcome::Refused(cause(status));
            assert_eq!(outcome_of(&answer(status, "text/plain", b"")), expected);
        }
        for status in [500, 501, 505, 507] {
            let expected = SendOutcome::Doubtful(cause(status));
            assert_eq!(outcome_of(&answer(status, "text/plain", b"")), expected);
        }
    }

    #[test]
    fn a_grpc_status_says_whose_fault_it_is() {
        // A `google.rpc.Status` with one detail, a `google.rpc.RetryInfo` of 2 s and 1 ns.
        let asked = b"\x1a\x32\x0a\x28type.googleapis.com/google.rpc.RetryInfo\
                      \x12\x06\x0a\x04\x08\x02\x10\x01";
        for (details, delay) in
            [(&b""[..], None), (asked, Some(Duration::new(2, 1))), (b"\xff", None)]
        {
            for code in 1..=17 {
                let cause = format!("the collector answered with gRPC status {code}: no");
                let expected = match code {
                    1 | 4 | 7 | 10 | 12 | 14 | 15 | 16 => {
                        SendOutcome::Later { cause, after: delay }
                    }
                    8 | 11 if delay.is_some() => SendOutcome::Later { cause, after: delay },
                    3 | 5 | 6 | 8 | 9 => SendOutcome::Refused(cause),
                    _ => SendOutcome::Doubtful(cause),
                };
                let (message, details) = ("no".to_owned(), Bytes::copy_from_slice(details));
                let answer = GrpcAnswer { code, message, details, body: Bytes::new() };
                assert_eq!(grpc_outcome_of(answer), expected, "{code} {delay:?}");
            }
        }
    }
}
