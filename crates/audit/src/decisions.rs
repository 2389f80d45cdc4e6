//! Sends decisions on to a service that takes OPA's decision logs.
//!
//! How records are followed, tried again and resumed after a restart is in [`export`](super::export);
//! here is what records become and what an answer of the service means. Before an event is sent the
//! policy is asked what to take out of it (`data.system.log.mask`); where it cannot say, the event
//! goes without input and result, and the log says so.

mod event;
mod mask;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bartizan_outbound::service::{Service, ServiceCall};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entry::Entry;
use super::export::{Answer, Cursor, Destination, Exporter, Made};
use super::journal::Journal;
use super::tail::Line;

pub use super::export::Progress;

/// Longest answer of the service, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Asks the policy that answers now what to take out of an event, which is JSON text. It answers
/// with JSON text, or with nothing where it has no rule for that.
pub type Masker = Box<dyn FnMut(&str) -> Result<Option<String>, String> + Send + Sync>;

/// Where decisions go.
pub struct DecisionLogs {
    /// The way to the service; `/logs` is added to its path.
    pub service: Service,
    /// `labels` of each event, beside `id` and `version`.
    pub labels: BTreeMap<String, String>,
    /// `path` of each event: the rule that decides, with `/`.
    pub path: String,
    /// The state directory.
    pub state: PathBuf,
    /// Pause after an upload, so that decisions gather into one.
    pub linger: Duration,
}

impl fmt::Debug for DecisionLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionLogs").field("linger", &self.linger).finish_non_exhaustive()
    }
}

/// Starts sending, as a task in `tasks`: the decisions of this run, or where an earlier run has
/// sent to the service, all since. Cancel `stop` once the last record was kept: what is left is
/// sent for up to five seconds, then the task ends, and the next start goes on.
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
    let place = Cursor::open::<Decisions>(&config.state, journal);
    let decisions = Decisions {
        target: config.service.target_below("/logs"),
        service: config.service,
        form: Arc::new(event::Form { labels, path: config.path }),
        masker: Some(masker),
    };
    Exporter::new(decisions, journal, place, config.linger).start(tasks, stop)
}

/// A service that takes decision logs.
struct Decisions {
    service: Service,
    target: PathAndQuery,
    form: Arc<event::Form>,
    /// Absent while it is at work on another thread.
    masker: Option<Masker>,
}

impl Destination for Decisions {
    type Item = Value;
    const NAME: &'static str = "decision logs";
    const CURSOR_FILE: &'static str = "decision-logs.seq";
    const BATCH_RECORDS_MAX: usize = 256;

    /// The events in `lines`, masked, away from the threads that serve calls.
    async fn make(&mut self, lines: Vec<Line>) -> Made<Value> {
        let (form, masker) = (Arc::clone(&self.form), self.masker.take());
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let made = tokio::task::spawn_blocking(move || make(&form, masker, &lines)).await;
        let Ok((made, masker)) = made else {
            let cause = "a panic while events were made".to_owned();
            return Made { items: Vec::new(), lost: vec![(count, cause)] };
        };
        self.masker = masker;
        made
    }

    async fn send(&self, events: &[Value]) -> Answer {
        let Some(body) = gzipped(events) else {
            return Answer::Refused("an event cannot be written as JSON".to_owned());
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
        match self.service.call(call).await.map(|answer| answer.status) {
            Ok(status) if status.is_success() => Answer::Taken { rejected: 0 },
            Ok(StatusCode::PAYLOAD_TOO_LARGE) => Answer::TooLarge,
            Ok(status) => {
                let cause = format!("the service answered with status {}", status.as_u16());
                let later =
                    matches!(status.as_u16(), 401 | 403 | 408 | 429) || status.is_server_error();
                if later { Answer::Later(cause) } else { Answer::Refused(cause) }
            }
            Err(failure) => Answer::Later(failure.to_string()),
        }
    }
}

/// What records became, and the masker back.
fn make(
    form: &event::Form,
    mut masker: Option<Masker>,
    lines: &[Line],
) -> (Made<Value>, Option<Masker>) {
    let (mut items, mut unknown) = (Vec::new(), 0_u64);
    for line in lines {
        let Ok(entry) = Entry::read(&line.bytes) else {
            unknown = unknown.saturating_add(1);
            continue;
        };
        let Some(mut event) = form.event(entry) else { continue };
        let mask = match &mut masker {
            Some(masker) => masker(&event.to_string()),
            None => Err("the mask was lost in a panic".to_owned()),
        };
        let done = mask.and_then(|mask| match mask {
            Some(mask) => mask::apply(&mut event, &mask),
            None => Ok(()),
        });
        if let Err(cause) = done {
            tracing::error!(cause, "no mask; the decision is logged without input and result");
            mask::strip(&mut event, &cause);
        }
        items.push(event);
    }
    let lost = (unknown > 0).then(|| (unknown, "records of no known form".to_owned()));
    (Made { items, lost: lost.into_iter().collect() }, masker)
}

/// A gzipped JSON array.
fn gzipped(events: &[Value]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    serde_json::to_writer(&mut encoder, events).ok()?;
    encoder.flush().ok()?;
    encoder.finish().ok().map(Bytes::from)
}
