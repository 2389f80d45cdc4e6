//! `audit` and `otlp`: the journal, and where decisions and spans are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::HeaderName;

use super::form::{bytes, flag, texts_by_name, time, url, word};
use super::headers::headers;
use super::remote::{RemoteConfig, RemoteKeys};
use super::secret::Secret;
use super::section::{Section, section};
use bartizan_gate::duty::pdp::Inputs;

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Size at which a new file begins, bytes (`segment_bytes`).
    pub segment_bytes: u64,
    /// How long refusals of one kind are counted before their number is recorded
    /// (`repeat_interval`); absent if each is recorded (`each_refusal`).
    pub repeat_interval: Option<Duration>,
    /// Size of all files together at which calls are refused, bytes (`bytes`).
    pub bytes: u64,
    /// What records keep of the policy's input (`inputs`).
    pub inputs: Inputs,
    /// Where decisions are sent, if anywhere (`decision_logs`).
    pub decision_logs: Option<DecisionLogsConfig>,
}

/// A service that takes OPA's decision logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogsConfig {
    /// The way to it; `/logs` is added to its address.
    pub remote: RemoteConfig,
    /// Labels of each event (`labels`), beside `id` and `version`.
    pub labels: BTreeMap<String, String>,
}

/// Where spans go: OTLP over HTTP.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// The way to the collector, whose address (`endpoint`) is such as `http://127.0.0.1:4318`.
    pub remote: RemoteConfig,
    /// Headers for it (`headers`).
    pub headers: Vec<(HeaderName, Secret)>,
}

impl AuditConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let inputs = [("none", Inputs::None), ("facts", Inputs::Facts), ("values", Inputs::Values)];
        Self {
            segment_bytes: s
                .key(
                    "segment_bytes",
                    bytes(64 << 10..=16 << 30),
                    "Size at which the journal begins a new file.",
                )
                .or(64 << 20),
            repeat_interval: repeats(s),
            bytes: s
                .key(
                    "bytes",
                    bytes(1 << 20..=1 << 50),
                    "Size of all files of the journal together. When it is reached, new calls are \
                     refused until files are moved elsewhere.",
                )
                .or(16 << 30),
            inputs: s
                .key(
                    "inputs",
                    word(inputs),
                    "What a record keeps of the policy's input, for `policy replay`: `none`; \
                     `facts`, what the firewall itself knows; `values`, arguments and parameters \
                     too, but those whose names are of secrets. See [audit.md](audit.md#inputs).",
                )
                .or(Inputs::None),
            decision_logs: s
                .key(
                    "decision_logs",
                    section(DecisionLogsConfig::read),
                    "A service that takes OPA's decision logs.",
                )
                .optional("none"),
        }
    }
}

/// How long refusals are counted; absent if each is recorded.
fn repeats(s: &mut Section<'_>) -> Option<Duration> {
    let interval = s
        .key(
            "repeat_interval",
            time(Duration::from_millis(10)..=Duration::from_hours(1)),
            "Refusals of one kind by one caller are recorded once, then counted for this time. \
             See [audit.md](audit.md#refusals-that-repeat).",
        )
        .or(Duration::from_secs(10));
    let each =
        s.key("each_refusal", flag(), "Records each refusal, however many there are.").or(false);
    (!each).then_some(interval)
}

impl DecisionLogsConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let url = s
            .key(
                "url",
                url(),
                "Where decisions go: a service that takes OPA's decision logs; `/logs` is added. \
                 See [audit.md](audit.md#decision-logs). Without `decision_logs` none are sent.",
            )
            .required("write where decisions go, like `https://control.example.com`");
        let labels = s
            .key("labels", texts_by_name(), "Names and texts for `labels` of each event.")
            .optional("none")
            .unwrap_or_default();
        let keys = RemoteKeys {
            timeout_means: "Time for one upload.",
            timeout: Duration::from_secs(10),
            only: None,
        };
        let remote = RemoteConfig::read(s, url, &keys)?;
        let labels = labels.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Some(Self { remote, labels })
    }
}

impl OtlpConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let endpoint = s
            .key(
                "endpoint",
                url(),
                "Where spans go: base URL of an OpenTelemetry collector that takes OTLP over \
                 HTTP. Without `otlp` none are sent.",
            )
            .required("write where spans go, like `http://127.0.0.1:4318`");
        let headers = s
            .key(
                "headers",
                headers(),
                "Headers for it. The variable `OTEL_EXPORTER_OTLP_HEADERS` adds others.",
            )
            .optional("none")
            .unwrap_or_default();
        let keys = RemoteKeys {
            timeout_means: "Time for one request.",
            timeout: Duration::from_secs(10),
            only: None,
        };
        Some(Self { remote: RemoteConfig::read(s, endpoint, &keys)?, headers })
    }
}
