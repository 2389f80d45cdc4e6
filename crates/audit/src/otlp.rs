//! Exports the journal to OpenTelemetry: OTLP over HTTP with protobuf, or over gRPC.
//!
//! [`export`](super::export) follows the journal, retries and resumes; [`collector`] sends one
//! request and interprets the response; [`traces`] makes spans of records, [`logs`] log records.
//! Each of the two has a cursor of its own. [`metrics`] sends totals, which are not of the journal.
//! `run` starts them, with what the configuration and the environment say.

mod collector;
mod logs;
mod metrics;
mod retry_info;
mod traces;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::export::{Cursor, Destination as _, Exporter};
use super::journal::Journal;

pub use self::collector::{CollectorClient, CollectorTransport, Compression};
pub use self::metrics::MetricsSender;
pub use super::export::{Progress, Repeats};

/// What is sent to a collector of the journal's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A span for each call and for each hold.
    Traces,
    /// A log record for each record of the journal.
    Logs,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 2] = [Self::Traces, Self::Logs];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    /// The name of its export in metrics and dead letters.
    pub fn exporter(self) -> &'static str {
        match self {
            Self::Traces => traces::Traces::EXPORTER,
            Self::Logs => logs::Logs::EXPORTER,
        }
    }
}

/// Where one signal is sent, and with what.
pub struct OtlpConfig {
    /// What is sent.
    pub signal: Signal,
    /// The collector's client. Over HTTP its address is the base URL; `/v1/traces` or `/v1/logs` is
    /// appended to the path unless the path already ends with it.
    pub collector: CollectorClient,
    /// Headers of each request; some may be credentials.
    pub headers: HeaderMap,
    /// Attributes of the resource, by name. `service.name` is `bartizan` without one here;
    /// `service.version` and `service.instance.id` have values of their own, too.
    pub resource: Vec<(String, String)>,
    /// The state directory, which holds the cursor and the dead-letter file.
    pub state: PathBuf,
    /// Pause after a request, so that several records share one.
    pub linger: Duration,
    /// How requests are repeated that the collector does not take.
    pub repeats: Repeats,
}

impl OtlpConfig {
    /// The defaults: no headers and attributes, at most one request a second.
    pub fn new(signal: Signal, collector: CollectorClient, state: PathBuf) -> Self {
        Self {
            signal,
            collector,
            headers: HeaderMap::new(),
            resource: Vec::new(),
            state,
            linger: Duration::from_secs(1),
            repeats: Repeats::default(),
        }
    }
}

// By hand, because headers may hold secrets.
impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("signal", &self.signal)
            .field("resource", &self.resource)
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
    let OtlpConfig { signal, collector, headers, resource, state, linger, repeats } = config;
    let pace = (linger, repeats);
    let resource = describe(resource, journal.boot());
    match signal {
        Signal::Traces => {
            let (cursor, position) = Cursor::open::<traces::Traces>(&state, journal);
            let traces = traces::Traces::new(collector, headers, &resource, position.next);
            Exporter::new(traces, journal, cursor, position, pace).start(tasks, stop)
        }
        Signal::Logs => {
            let (cursor, position) = Cursor::open::<logs::Logs>(&state, journal);
            let logs = logs::Logs::new(collector, headers, &resource, position.next);
            Exporter::new(logs, journal, cursor, position, pace).start(tasks, stop)
        }
    }
}

/// The resource: what the program knows of itself, and `attributes`, which win.
pub(super) fn describe(attributes: Vec<(String, String)>, boot: &str) -> Resource {
    let attributes = attributes.into_iter().map(|(name, text)| KeyValue::new(name, text));
    Resource::builder_empty()
        .with_service_name("bartizan")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", boot.to_owned()))
        .with_attributes(attributes)
        .build()
}
