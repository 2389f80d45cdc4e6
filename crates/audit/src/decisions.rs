//! Sends decisions to a service that implements OPA's decision log API (Open Policy Agent
//! documentation, "Decision Logs").
//!
//! [`export`](super::export) follows the journal, retries and resumes; this module converts records
//! to events, masks them, and interprets the service's response. Before an event is sent, the
//! policy's rule `data.system.log.mask` says what to remove from it. If the rule cannot be
//! evaluated, also because of a panic, the event is sent without `input` and `result`, and the
//! program's log says so. A panic elsewhere loses one event. `run` starts it.

mod event;
mod mask;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_outbound::service::{Service, ServiceCall};
use bartizan_sync::lock;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entry::JournalRecord;
use super::export::{Batch, Cursor, Destination, Exporter, Repeats, SendOutcome, retry_after};
use super::journal::Journal;
use super::tail::Line;

pub(super) use self::event::EventTemplate;
pub use super::export::Progress;

/// Largest response body that is accepted from the service, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Evaluates the mask rule of the current policy for an event, both as JSON text. `Ok(None)` if the
/// policy has no such rule; the error says why the rule could not be evaluated.
pub type Masker = Box<dyn FnMut(&str) -> Result<Option<String>, String> + Send + Sync>;

/// Where decisions are sent, and with what.
pub struct DecisionLogs {
    /// The service's client; `/logs` is appended to the path of its address.
    pub service: Service,
    /// `labels` of each event; `id` and `version` of this program are added.
    pub labels: BTreeMap<String, String>,
    /// `path` of each event: the rule that decides, with `/` as separator.
    pub path: String,
    /// The state directory, which holds the cursor.
    pub state: PathBuf,
    /// Pause after an upload, so that several decisions share one request.
    pub linger: Duration,
    /// How requests are repeated that the service does not take.
    pub repeats: Repeats,
}

impl fmt::Debug for DecisionLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionLogs").field("linger", &self.linger).finish_non_exhaustive()
    }
}

/// Starts sending, as a task in `tasks`. Begins with the first decision of this run, or, if an
/// earlier run left a cursor, with the first decision that it did not send.
///
/// Cancel `stop` after the last record was kept. The task then sends what is left for at most five
/// seconds and ends; the next start sends the rest.
pub fn start(
    config: DecisionLogs,
    masker: Masker,
    journal: &Journal,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Arc<Progress> {
    let mut labels = config.labels;
    labels.insert("id".to_owned(), journal.boot().to_owned());
    labels.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let (cursor, position) = Cursor::open::<Decisions>(&config.state, journal);
    let decisions = Decisions {
        target: config.service.target_below("/logs"),
        service: config.service,
        template: Arc::new(EventTemplate { labels, path: config.path }),
        masker: Arc::new(Mutex::new(masker)),
    };
    let pace = (config.linger, config.repeats);
    Exporter::new(decisions, journal, cursor, position, pace).start(tasks, stop)
}

/// Converts records to OPA's decision log events and sends them.
struct Decisions {
    service: Service,
    target: PathAndQuery,
    template: Arc<EventTemplate>,
    /// Used by one blocking thread at a time.
    masker: Arc<Mutex<Masker>>,
}

impl Destination for Decisions {
    type Item = Value;
    const NAME: &'static str = "decision logs";
    const EXPORTER: &'static str = "decision_logs";
    const CURSOR_FILE: &'static str = "decision-logs.seq";
    const BATCH_RECORDS_MAX: usize = 256;

    /// Converts `lines` to masked events, on a blocking thread, because masking evaluates policy
    /// and must not delay the threads that serve calls.
    async fn make(&mut self, lines: Vec<Line>) -> Batch<Value> {
        let (template, masker) = (Arc::clone(&self.template), Arc::clone(&self.masker));
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let made =
            tokio::task::spawn_blocking(move || make(&template, &mut **lock(&masker), &lines))
                .await;
        made.unwrap_or_else(|_| Batch {
            items: Vec::new(),
            lost: vec![(count, PANICKED.to_owned())],
        })
    }

    async fn send(&self, events: &[Value]) -> SendOutcome {
        let Some(body) = gzipped(events) else {
            return SendOutcome::Refused("an event cannot be written as JSON".to_owned());
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let call = ServiceCall {
            method: Method::POST,
            target: self.target.clone(),
            headers,
            body,
            wait: Duration::ZERO,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match self.service.call(call).await {
            Ok(answer) if answer.status.is_success() => SendOutcome::taken(),
            Ok(answer) => {
                let status = answer.status;
                let cause = format!("the service answered with status {}", status.as_u16());
                let later =
                    matches!(status.as_u16(), 401 | 403 | 408 | 429) || status.is_server_error();
                if later {
                    SendOutcome::Later { cause, after: retry_after(&answer.headers) }
                } else {
                    SendOutcome::Refused(cause)
                }
            }
            Err(failure) => SendOutcome::later(failure.to_string()),
        }
    }

    fn dead_letter(event: &Value) -> Vec<u8> {
        event.to_string().into_bytes()
    }
}

/// The cause of a loss by a panic.
const PANICKED: &str = "a panic while a record was converted to an event";

/// Converts and masks `lines`. A panic loses the event of one line.
fn make(
    template: &EventTemplate,
    masker: &mut dyn FnMut(&str) -> Result<Option<String>, String>,
    lines: &[Line],
) -> Batch<Value> {
    let (mut items, mut unknown, mut panicked) = (Vec::new(), 0_u64, 0_u64);
    for line in lines {
        match catch_unwind(AssertUnwindSafe(|| masked(template, masker, line))) {
            Ok(Made::Event(event)) => items.push(event),
            Ok(Made::Nothing) => {}
            Ok(Made::Unreadable) => unknown = unknown.saturating_add(1),
            Err(_) => panicked = panicked.saturating_add(1),
        }
    }
    let lost = [(unknown, "records that cannot be parsed"), (panicked, PANICKED)];
    let lost = lost.into_iter().filter(|(count, _)| *count > 0);
    Batch { items, lost: lost.map(|(count, cause)| (count, cause.to_owned())).collect() }
}

/// What one line comes to.
enum Made {
    Event(Value),
    /// Its record is no decision.
    Nothing,
    Unreadable,
}

fn masked(
    template: &EventTemplate,
    masker: &mut dyn FnMut(&str) -> Result<Option<String>, String>,
    line: &Line,
) -> Made {
    let Ok(entry) = JournalRecord::read(&line.bytes) else { return Made::Unreadable };
    let Some(mut event) = template.event(entry) else { return Made::Nothing };
    let text = event.to_string();
    let mask = catch_unwind(AssertUnwindSafe(|| masker(&text)))
        .unwrap_or_else(|_| Err("a panic interrupted its evaluation".to_owned()));
    let done = mask.and_then(|mask| match mask {
        Some(mask) => mask::apply(&mut event, &mask),
        None => Ok(()),
    });
    if let Err(cause) = done {
        tracing::error!(
            cause,
            "the mask rule cannot be evaluated; the decision is sent without input and result"
        );
        mask::strip(&mut event, &cause);
    }
    Made::Event(event)
}

/// `events` as a gzip-compressed JSON array; `None` if they cannot be serialised.
fn gzipped(events: &[Value]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Compressing into memory cannot fail; only the JSON serialiser can.
    serde_json::to_writer(&mut encoder, events).ok()?;
    encoder.flush().ok()?;
    encoder.finish().ok().map(Bytes::from)
}
