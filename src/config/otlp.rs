//! `otlp`: where spans, log records and metrics are sent, and what they say about this instance.
//!
//! The environment variables of OpenTelemetry ("OpenTelemetry Environment Variable Specification",
//! "OTLP Exporter Configuration") fill in what the file leaves out. They switch nothing on: without
//! `otlp` in the file nothing is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bartizan_audit::otlp::{Compression, Signal};

use ::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::form::{one_or_more, parse_url, texts_by_name, time, url, word};
use super::headers::{header_name, headers};
use super::limits::STEP_TIMES;
use super::remote::{CredentialsConfig, RemoteConfig, RemoteKeys, is_protected};
use super::secret::Secret;
use super::section::Section;

/// Largest number of attributes that describe this instance; further ones are left out.
const RESOURCE_ATTRIBUTES_MAX: usize = 64;

/// Longest value of one of them, characters; longer ones are cut.
const RESOURCE_CHARS_MAX: usize = 1024;

/// Variables with headers, for all signals; the first one that is set is used.
const HEADER_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// Variables that a pod fills from Kubernetes' downward API, and the attributes that they give.
/// `deploy/kubernetes` sets them.
const POD_VARIABLES: [(&str, &str); 4] = [
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("NODE_NAME", "k8s.node.name"),
];

/// Where spans and log records go.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// The way to the collector, whose address (`endpoint`) is such as `http://127.0.0.1:4318`.
    pub remote: RemoteConfig,
    /// What it speaks (`protocol`).
    pub protocol: OtlpProtocol,
    /// How requests are compressed (`compression`).
    pub compression: Compression,
    /// What is sent of the journal (`signals`), each once.
    pub signals: Vec<Signal>,
    /// How often metrics are sent (`metrics_interval`), if they are (`signals`).
    pub metrics: Option<Duration>,
    /// Headers for it (`headers`), and those of the environment.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Attributes of the resource, by name (`resource`), and those of the environment.
    pub resource: BTreeMap<String, String>,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over HTTP, in protobuf.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

impl OtlpConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let written = s
            .key(
                "endpoint",
                url(),
                "Where they go: base URL of an OpenTelemetry collector that takes OTLP. \
                 Without `otlp` nothing is sent. The variable `OTEL_EXPORTER_OTLP_ENDPOINT` \
                 stands for it.",
            )
            .optional("the variable's");
        let endpoint = if s.has("endpoint") { written } else { endpoint_of_environment(s) };
        let mut headers = s
            .key(
                "headers",
                headers(),
                "Headers for it. The variable `OTEL_EXPORTER_OTLP_HEADERS` adds others.",
            )
            .optional("none")
            .unwrap_or_default();
        let protocol = protocol(s);
        let compression = compression(s);
        let signals = s
            .key(
                "signals",
                one_or_more(word([
                    (Signal::Traces.as_str(), Some(Signal::Traces)),
                    (Signal::Logs.as_str(), Some(Signal::Logs)),
                    ("metrics", None),
                ])),
                "What is sent: `traces`, a span for each call and each hold; `logs`, a log record for \
                 each record of the journal, with the record itself as body; `metrics`, those of \
                 [metrics.md](metrics.md).",
            )
            .or(vec![Some(Signal::Traces)]);
        let metrics_interval = metrics_interval(s);
        let resource = s
            .key(
                "resource",
                texts_by_name(),
                "Names and texts that say which instance this is, like `deployment.environment.name`; \
                 `service.name` is `bartizan` without it. See \
                 [audit.md](audit.md#which-instance-it-was).",
            )
            .optional("none")
            .unwrap_or_default();
        let keys = RemoteKeys {
            timeout_means: "Time for one request.",
            timeout: Duration::from_secs(10),
            only: None,
        };
        let mut remote = RemoteConfig::read(s, endpoint, &keys)?;
        complete(&mut remote, s);
        add_headers(&mut headers, s);
        let resource = resource_of(resource, &|name| s.variable(name));
        check_path(s, &remote, protocol, &signals);
        let metrics = signals.contains(&None).then_some(metrics_interval);
        if metrics.is_none() && s.has("metrics_interval") {
            let what = "does nothing: `signals` has no `metrics`";
            s.idle("metrics_interval", what, "add `metrics` to `signals`, or remove it");
        }
        let mut once = Vec::new();
        for signal in signals.into_iter().flatten() {
            if !once.contains(&signal) {
                once.push(signal);
            }
        }
        Some(Self { remote, protocol, compression, signals: once, metrics, headers, resource })
    }
}

/// Reports an address that takes one signal alone, where others are sent to it.
fn check_path(
    s: &Section<'_>,
    remote: &RemoteConfig,
    protocol: OtlpProtocol,
    signals: &[Option<Signal>],
) {
    let path = remote.url.path().trim_end_matches('/');
    for (end, only) in
        [("traces", Some(Signal::Traces)), ("logs", Some(Signal::Logs)), ("metrics", None)]
    {
        let whole = protocol == OtlpProtocol::Http && path.ends_with(&format!("/v1/{end}"));
        if whole && signals.iter().any(|it| *it != only) {
            let hint = format!("write the base URL, without `/v1/{end}`");
            s.problem("endpoint", format!("takes {end} alone"), hint);
        }
    }
}

/// How often metrics are sent.
fn metrics_interval(s: &mut Section<'_>) -> Duration {
    let range = Duration::from_secs(1)..=Duration::from_hours(1);
    let written = s
        .key(
            "metrics_interval",
            time(range.clone()),
            "How often metrics are sent. The variable `OTEL_METRIC_EXPORT_INTERVAL`, ms, stands for it.",
        )
        .or(Duration::from_mins(1));
    let variable = s.variable("OTEL_METRIC_EXPORT_INTERVAL");
    let variable = variable.and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
    variable.filter(|it| range.contains(it) && !s.has("metrics_interval")).unwrap_or(written)
}

/// What the collector speaks.
fn protocol(s: &mut Section<'_>) -> OtlpProtocol {
    let protocols = [("http", OtlpProtocol::Http), ("grpc", OtlpProtocol::Grpc)];
    let protocol = s
        .key(
            "protocol",
            word(protocols),
            "What the collector speaks: `http`, OTLP over HTTP with protobuf; `grpc`, usually at \
             port 4317.",
        )
        .or(OtlpProtocol::Http);
    match s.variable("OTEL_EXPORTER_OTLP_PROTOCOL").as_deref() {
        Some("grpc") if !s.has("protocol") => OtlpProtocol::Grpc,
        _ => protocol,
    }
}

/// How requests are compressed.
fn compression(s: &mut Section<'_>) -> Compression {
    let written = s
        .key(
            "compression",
            word([("gzip", Compression::Gzip), ("none", Compression::None)]),
            "How requests are compressed: `gzip` or `none`. The variable \
             `OTEL_EXPORTER_OTLP_COMPRESSION` stands for it.",
        )
        .or(Compression::None);
    match s.variable("OTEL_EXPORTER_OTLP_COMPRESSION").as_deref() {
        Some("gzip") if !s.has("compression") => Compression::Gzip,
        _ => written,
    }
}

/// The collector's address where the file has none; reports that there is none, or a wrong one.
fn endpoint_of_environment(s: &Section<'_>) -> Option<::http::Uri> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    match s.variable(NAME).map(|text| parse_url(&text)) {
        Some(Ok(url)) => Some(url),
        Some(Err(_)) => {
            s.problem_here(format!("`{NAME}` is no http or https URL"), "correct the variable");
            None
        }
        None => {
            s.problem_here(
                "`endpoint` is missing",
                "write where they go, like `http://127.0.0.1:4318`",
            );
            None
        }
    }
}

/// Fills in what the environment says of the way to the collector, where the file says nothing.
fn complete(remote: &mut RemoteConfig, s: &Section<'_>) {
    let path = |name| s.variable(name).map(PathBuf::from);
    // OpenTelemetry's specification: a value that cannot be read counts as unset.
    let timeout =
        s.variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|text| text.trim().parse().ok());
    let timeout = timeout.map(Duration::from_millis).filter(|it| STEP_TIMES.contains(it));
    if let Some(timeout) = timeout.filter(|_| !s.has("timeout")) {
        remote.timeout = timeout;
    }
    if !s.has("ca_file") {
        remote.ca_file = path("OTEL_EXPORTER_OTLP_CERTIFICATE");
    }
    let (cert, key) =
        (path("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"), path("OTEL_EXPORTER_OTLP_CLIENT_KEY"));
    if let (false, Some(cert), Some(key)) = (s.has("credentials"), cert, key)
        && is_protected(&remote.url)
    {
        remote.credentials = Some(CredentialsConfig::ClientTls { cert, key });
    }
}

/// Adds the headers of the environment that the file does not set.
fn add_headers(headers: &mut Vec<(HeaderName, Secret)>, s: &Section<'_>) {
    let variable = HEADER_VARIABLES.iter().find_map(|name| s.variable(name));
    for (name, value) in pairs(variable.as_deref().unwrap_or_default()) {
        let Ok(name) = header_name(&name) else { continue };
        let is_new = headers.iter().all(|(written, _)| *written != name);
        if is_new && HeaderValue::from_str(&value).is_ok() {
            headers.push((name, Secret::new(value)));
        }
    }
}

/// Attributes of this instance. What the file says wins over `OTEL_SERVICE_NAME`, that over
/// `OTEL_RESOURCE_ATTRIBUTES`, and that over what Kubernetes says.
fn resource_of(
    written: BTreeMap<Box<str>, Box<str>>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let listed = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let service = variable("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name));
    let pod = POD_VARIABLES
        .iter()
        .filter_map(|(name, attribute)| Some(((*attribute).to_owned(), variable(name)?)));
    let written = written.into_iter().map(|(name, text)| (name.into(), text.into()));
    let mut resource = BTreeMap::new();
    for (name, value) in written.chain(service).chain(pairs(&listed)).chain(pod) {
        let is_room = resource.len() < RESOURCE_ATTRIBUTES_MAX;
        if !name.is_empty() && is_room && !resource.contains_key(&name) {
            resource.insert(name, value.chars().take(RESOURCE_CHARS_MAX).collect());
        }
    }
    resource
}

/// The pairs of a variable's text: comma-separated `name=value` with percent-encoded values (W3C
/// Baggage form, as OpenTelemetry prescribes). Invalid pairs are skipped.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(',').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_variable() {
        let found: Vec<_> = pairs("a=b, api-key = x%20y%3D=1 ,no,c=%0a,d=%ff,e=").collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("a", "b"), pair("api-key", "x y==1"), pair("c", "\n"), pair("e", "")];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_instance_has_a_bounded_number_of_attributes() {
        let many: Vec<String> = (0..200).map(|n| format!("a{n}={}", "x".repeat(2000))).collect();
        let many = many.join(",");
        let variable = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| many.clone());
        let resource = resource_of(BTreeMap::from([("mine".into(), "1".into())]), &variable);
        assert_eq!(resource.len(), RESOURCE_ATTRIBUTES_MAX);
        assert_eq!(resource.get("mine").map(String::as_str), Some("1"));
        assert!(resource.values().all(|value| value.len() <= RESOURCE_CHARS_MAX));
    }
}
