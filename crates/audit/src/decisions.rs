//! Sends decisions on to a service that takes OPA's decision logs.
//!
//! A task of its own follows the journal by reading its files, so it cannot block or slow a call,
//! and while the service is away it only falls behind. How far it came is kept in the state
//! directory after each upload that was taken: after a restart it goes on there, so each decision
//! is sent at least once as long as the journal has it. Before an event is sent the policy is
//! asked what to take out of it (`data.system.log.mask`); where it cannot say, the event goes
//! without input and result. Every loss is counted and logged.

mod event;
mod mask;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entry::Entry;
use super::journal::Journal;
use super::tail::{Follower, Line, ReadError};
use bartizan_outbound::service::{Service, ServiceCall};

/// Records read for one upload.
const BATCH_RECORDS_MAX: usize = 256;
/// First wait before an upload is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait before an upload is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time to send what is left once the program ends.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Longest answer of the service, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The file below the state directory that says how far the service is.
const CURSOR_FILE: &str = "decision-logs.seq";

/// Asks the policy that answers now what to take out of an event, which is JSON text. It answers
/// with JSON text, or with nothing where it has no rule for that.
pub type Masker = Box<dyn FnMut(&str) -> Result<Option<String>, String> + Send + Sync>;

/// Where decisions go.
pub struct DecisionLogs {
    /// The way to the service.
    pub service: Service,
    /// Its address; `/logs` is added to the path.
    pub url: Uri,
    /// `labels` of each event, beside `id` and `version`.
    pub labels: BTreeMap<String, String>,
    /// `path` of each event: the rule that decides, with `/`.
    pub path: String,
    /// The state directory.
    pub state: PathBuf,
    /// Pause after each upload, so that decisions gather into one.
    pub linger: Duration,
}

impl fmt::Debug for DecisionLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionLogs").field("linger", &self.linger).finish_non_exhaustive()
    }
}

/// What became of the decisions so far.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    lost: AtomicU64,
    stripped: AtomicU64,
}

impl Progress {
    /// Events that the service took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Records that it will not get.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Events that were made to go without input and result, because no mask could be had.
    pub fn stripped(&self) -> u64 {
        self.stripped.load(Ordering::Relaxed)
    }
}

/// Starts sending, as a task in `tasks`. Cancel `stop` once the last record was kept: what is left
/// is sent for up to five seconds, then the task ends, and the next start goes on.
pub fn start(
    config: DecisionLogs,
    masker: Masker,
    journal: &Journal,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    let cursor = Cursor { path: config.state.join(CURSOR_FILE) };
    let known = cursor.load().filter(|next| *next <= journal.last_seq().saturating_add(1));
    let from = known.unwrap_or_else(|| {
        // Whatever becomes of the first upload, the next start must not begin behind this one.
        let from = journal.first_seq();
        if let Err(error) = cursor.save(from) {
            tracing::warn!(%error, "decision logs may begin anew with the next start");
        }
        from
    });
    let mut labels = config.labels;
    labels.insert("id".to_owned(), journal.boot().to_owned());
    labels.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let mut sender = Sender {
        service: config.service,
        url: logs_url(&config.url),
        form: Arc::new(event::Form { labels, path: config.path }),
        masker: Some(masker),
        follower: journal.follow(from),
        cursor,
        progress: Arc::clone(&progress),
        linger: config.linger,
    };
    tasks.spawn(async move {
        let out_of_time = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            () = sender.run(&stop) => {}
            () = out_of_time => {
                let records = sender.follower.lag();
                tracing::warn!(records, "decision logs left for the next start");
            }
        }
    });
    progress
}

/// `url` with `/logs` behind its path.
fn logs_url(url: &Uri) -> Uri {
    let mut parts = url.clone().into_parts();
    let path = format!("{}/logs", url.path().trim_end_matches('/'));
    let whole = url.query().map_or(path.clone(), |query| format!("{path}?{query}"));
    parts.path_and_query = whole.parse().ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// How far the service is, on disk. Losing it repeats events, so it is not forced onto the disk.
struct Cursor {
    path: PathBuf,
}

impl Cursor {
    /// The next record to send.
    fn load(&self) -> Option<u64> {
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }

    fn save(&self, next: u64) -> io::Result<()> {
        let fresh: &Path = &self.path.with_extension("new");
        fs::write(fresh, format!("{next}\n"))?;
        fs::rename(fresh, &self.path)
    }
}

/// What an upload came to.
enum Upload {
    Taken,
    Later(String),
    TooLarge,
    Refused(String),
}

/// Reads records, makes events, sends them.
struct Sender {
    service: Service,
    url: Uri,
    form: Arc<event::Form>,
    /// Absent while it is at work on another thread.
    masker: Option<Masker>,
    follower: Follower,
    cursor: Cursor,
    progress: Arc<Progress>,
    linger: Duration,
}

impl Sender {
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
                    let events = self.events(lines).await;
                    self.deliver(events).await;
                    if let Err(error) = self.cursor.save(self.follower.next_seq()) {
                        tracing::warn!(%error, "decision logs may be sent twice");
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

    /// The events in `lines`, masked, away from the threads that serve calls.
    async fn events(&mut self, lines: Vec<Line>) -> Vec<Value> {
        let (form, masker) = (Arc::clone(&self.form), self.masker.take());
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let made = tokio::task::spawn_blocking(move || make(&form, masker, &lines)).await;
        let Ok(Made { events, lost, stripped, masker }) = made else {
            self.lose(count, "a panic while events were made");
            return Vec::new();
        };
        self.masker = masker;
        self.progress.stripped.fetch_add(stripped, Ordering::Relaxed);
        if lost > 0 {
            self.lose(lost, "records of no known form");
        }
        events
    }

    /// Sends `events`, again and again while that may succeed; those that are too large together
    /// are sent by halves.
    async fn deliver(&self, events: Vec<Value>) {
        let mut left = vec![events];
        while let Some(mut events) = left.pop() {
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            let Some(body) = gzipped(&events) else { continue };
            let mut wait = RETRY_FIRST;
            loop {
                match self.upload(body.clone()).await {
                    Upload::Taken => {
                        self.progress.sent.fetch_add(count, Ordering::Relaxed);
                        break;
                    }
                    Upload::TooLarge if count > 1 => {
                        let half = events.split_off(events.len() / 2);
                        left.extend([half, events]);
                        break;
                    }
                    Upload::TooLarge => {
                        self.lose(count, "too large for the service");
                        break;
                    }
                    Upload::Refused(cause) => {
                        self.lose(count, &cause);
                        break;
                    }
                    Upload::Later(cause) => {
                        tracing::warn!(cause, events = count, "decision logs not sent yet");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(RETRY_MAX);
            }
        }
    }

    async fn upload(&self, body: Bytes) -> Upload {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let call = ServiceCall {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body,
            wait: Duration::ZERO,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match self.service.call(call).await.map(|answer| answer.status) {
            Ok(status) if status.is_success() => Upload::Taken,
            Ok(StatusCode::PAYLOAD_TOO_LARGE) => Upload::TooLarge,
            Ok(status) => {
                let cause = format!("the service answered with status {}", status.as_u16());
                let later =
                    matches!(status.as_u16(), 401 | 403 | 408 | 429) || status.is_server_error();
                if later { Upload::Later(cause) } else { Upload::Refused(cause) }
            }
            Err(failure) => Upload::Later(failure.to_string()),
        }
    }

    /// Goes on at record `found`.
    fn pass_over(&mut self, found: u64, cause: &str) {
        self.lose(found.saturating_sub(self.follower.next_seq()), cause);
        self.follower.seek(found);
    }

    fn lose(&self, count: u64, cause: &str) {
        self.progress.lost.fetch_add(count, Ordering::Relaxed);
        tracing::error!(count, cause, "decision logs lost");
    }
}

/// What records came to.
struct Made {
    events: Vec<Value>,
    lost: u64,
    stripped: u64,
    masker: Option<Masker>,
}

fn make(form: &event::Form, mut masker: Option<Masker>, lines: &[Line]) -> Made {
    let (mut events, mut lost, mut stripped) = (Vec::new(), 0_u64, 0_u64);
    for line in lines {
        let Ok(entry) = Entry::read(&line.bytes) else {
            lost = lost.saturating_add(1);
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
            stripped = stripped.saturating_add(1);
        }
        events.push(event);
    }
    Made { events, lost, stripped, masker }
}

/// A gzipped JSON array; nothing where there are no events.
fn gzipped(events: &[Value]) -> Option<Bytes> {
    if events.is_empty() {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    serde_json::to_writer(&mut encoder, events).ok()?;
    encoder.flush().ok()?;
    encoder.finish().ok().map(Bytes::from)
}
