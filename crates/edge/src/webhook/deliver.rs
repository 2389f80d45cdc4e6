//! Sends what is due to one webhook, and tries again.
//!
//! What is due follows from what is held now and from what was sent: nothing hands anything to the
//! deliverer, so no call waits for it (threat I19), and a receiver that is away leaves nothing behind but one
//! small entry for each held call. Each message has the same `webhook-id` in all attempts, and also
//! after a restart, which tells again of what still waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use tokio::sync::watch;

use super::{Webhook, sign};
use crate::Shared;
use bartizan_approvals::{Approvals, HoldState};
use bartizan_gate::evidence::record::{AuditRecord, Event};
use bartizan_outbound::service::{ServiceCall, ServiceFailure};

/// Attempts to send one message.
const ATTEMPTS_MAX: u32 = 6;
/// The longest pause before a further attempt.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Messages that wait to be sent, and held calls that were told of.
const ENTRIES_MAX: usize = 1000;
/// Least time between two looks at what is held, so that a flood of changes costs little.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How often log and journal say that a webhook fails.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// Size of an answer of a receiver, bytes. Nobody reads it.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is next for one held call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It must be told of.
    Asking,
    /// It was told of.
    Told,
    /// Its end must be told.
    Ending,
    /// Nothing more is sent.
    Done,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    attempts: u32,
    /// No attempt before this uptime.
    not_before: Duration,
    /// Which came first.
    number: u64,
}

/// How an attempt ended.
enum Attempt {
    Taken,
    /// There is nothing to send any more, or nothing that concerns this receiver.
    Needless,
    /// It may be taken later, at the earliest after this time.
    Failed {
        cause: String,
        pause: Option<Duration>,
    },
    /// It will not be taken.
    Rejected(String),
}

/// Tells `webhook` of what is held, for ever. Failures are logged and recorded, at most once a minute.
pub async fn tell(webhook: Arc<Webhook>, approvals: Arc<Approvals>, shared: Shared) {
    let changes = approvals.changes();
    let deliverer = Deliverer {
        webhook,
        approvals,
        shared,
        entries: BTreeMap::new(),
        count: 0,
        trouble: Trouble::default(),
    };
    deliverer.run(changes).await;
}

struct Deliverer {
    webhook: Arc<Webhook>,
    approvals: Arc<Approvals>,
    shared: Shared,
    /// By the id of the held call.
    entries: BTreeMap<Box<str>, Entry>,
    count: u64,
    trouble: Trouble,
}

impl Deliverer {
    async fn run(mut self, mut changes: watch::Receiver<u64>) {
        loop {
            changes.borrow_and_update();
            self.look().await;
            let now = self.shared.clock.uptime();
            match self.next() {
                Some((id, at)) if at <= now => self.attempt(id).await,
                Some((_, at)) => {
                    let due = tokio::time::sleep(at.saturating_sub(now));
                    tokio::select! {
                        () = due => {}
                        end = changes.changed() => if end.is_err() { return },
                    }
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                None => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
            }
        }
    }

    /// Compares what waits with what was sent.
    async fn look(&mut self) {
        let pending = self.approvals.ids(HoldState::Pending);
        self.entries.retain(|id, entry| {
            if pending.contains(id) {
                return true;
            }
            match entry.stage {
                // Perhaps an attempt that failed did reach the receiver.
                Stage::Asking if entry.attempts > 0 => entry.go_on(Stage::Ending),
                Stage::Told => entry.go_on(Stage::Ending),
                Stage::Ending => {}
                Stage::Asking | Stage::Done => return false,
            }
            true
        });
        for id in pending {
            if self.entries.contains_key(&id) {
                continue;
            }
            if self.entries.len() >= ENTRIES_MAX {
                let cause = "too many messages wait";
                self.trouble.note(&self.webhook.name, cause, &self.shared).await;
                return;
            }
            self.count = self.count.saturating_add(1);
            let entry = Entry {
                stage: Stage::Asking,
                attempts: 0,
                not_before: Duration::ZERO,
                number: self.count,
            };
            self.entries.insert(id, entry);
        }
    }

    /// The message that is due first, and when.
    fn next(&self) -> Option<(Box<str>, Duration)> {
        let due = self.entries.iter().filter(|(_, entry)| entry.is_due());
        let first = due.min_by_key(|(_, entry)| (entry.not_before, entry.number));
        first.map(|(id, entry)| (id.clone(), entry.not_before))
    }

    /// Sends the message that is due for the held call `id`, once.
    async fn attempt(&mut self, id: Box<str>) {
        let Some(stage) = self.entries.get(&id).map(|entry| entry.stage) else { return };
        let sent = self.send(&id, stage).await;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        match sent {
            Attempt::Taken => {
                entry.go_on(if stage == Stage::Asking { Stage::Told } else { Stage::Done });
                self.trouble.over(&self.webhook.name, &self.shared).await;
            }
            Attempt::Needless => entry.go_on(Stage::Done),
            Attempt::Rejected(cause) => {
                entry.go_on(Stage::Done);
                self.trouble.note(&self.webhook.name, &cause, &self.shared).await;
            }
            Attempt::Failed { cause, pause } => {
                if entry.attempts >= ATTEMPTS_MAX {
                    entry.go_on(Stage::Done);
                } else {
                    let own = entry.pause(self.webhook.retry_pause);
                    let pause = own.max(pause.unwrap_or_default()).min(PAUSE_MAX);
                    entry.not_before = self.shared.clock.uptime().saturating_add(pause);
                }
                self.trouble.note(&self.webhook.name, &cause, &self.shared).await;
            }
        }
    }

    async fn send(&self, id: &str, stage: Stage) -> Attempt {
        let now = self.shared.now();
        let (webhook, approvals) = (Arc::clone(&self.webhook), Arc::clone(&self.approvals));
        let of: Box<str> = id.into();
        // It may take a while: parameters are searched for secrets.
        let made = tokio::task::spawn_blocking(move || {
            let hold = approvals.get(&of).filter(|hold| webhook.concerns(hold))?;
            let waits = hold.state == HoldState::Pending;
            match stage {
                Stage::Asking if waits => Some(webhook.asking(&hold, now)),
                Stage::Ending if !waits => Some(webhook.ended(&hold)),
                Stage::Asking | Stage::Ending | Stage::Told | Stage::Done => None,
            }
        });
        let Ok(body) = made.await else {
            return Attempt::Rejected("a message cannot be made: a defect of this program".into());
        };
        let Some(body) = body else { return Attempt::Needless };
        let about = if stage == Stage::Asking { "asked" } else { "ended" };
        let unix = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let secret = self.webhook.secret.as_ref();
        let mut headers = sign::headers(secret, &format!("{id}-{about}"), unix.as_secs(), &body);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.call(headers, body).await
    }

    async fn call(&self, headers: HeaderMap, body: Bytes) -> Attempt {
        let call = ServiceCall {
            method: Method::POST,
            target: self.webhook.service.target(),
            headers,
            body,
            wait: Duration::ZERO,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match self.webhook.service.call(call).await {
            Ok(answer) if answer.status.is_success() => Attempt::Taken,
            // What it answers is larger than anybody needs, but it took the message.
            Err(ServiceFailure::TooLarge(_)) => Attempt::Taken,
            Err(failure @ ServiceFailure::Redirected) => Attempt::Rejected(failure.to_string()),
            Err(failure) => Attempt::Failed { cause: failure.to_string(), pause: None },
            Ok(answer) => {
                let cause = format!("it answered with status {}", answer.status.as_u16());
                if may_pass(answer.status) {
                    Attempt::Failed { cause, pause: retry_after(&answer.headers) }
                } else {
                    Attempt::Rejected(cause)
                }
            }
        }
    }
}

impl Entry {
    fn is_due(&self) -> bool {
        matches!(self.stage, Stage::Asking | Stage::Ending)
    }

    fn go_on(&mut self, stage: Stage) {
        (self.stage, self.attempts, self.not_before) = (stage, 0, Duration::ZERO);
    }

    /// The pause after the attempts so far.
    fn pause(&self, first: Duration) -> Duration {
        first.saturating_mul(1_u32.checked_shl(self.attempts.saturating_sub(1)).unwrap_or(u32::MAX))
    }
}

/// Whether a receiver that answers so may take the same message later.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// The seconds of `Retry-After` (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What log and journal say of failures: how many there were, at most once a minute.
#[derive(Debug, Default)]
struct Trouble {
    /// Failures that were not told of yet.
    failures: u64,
    /// When that it fails was last said.
    said: Option<Duration>,
    /// Whether that was the last that was said.
    fails: bool,
}

impl Trouble {
    /// One failure more. `cause` holds no address.
    async fn note(&mut self, webhook: &str, cause: &str, shared: &Shared) {
        self.failures = self.failures.saturating_add(1);
        let now = shared.clock.uptime();
        if self.said.is_some_and(|at| at.saturating_add(SAID_EVERY) > now) {
            return;
        }
        (self.said, self.fails) = (Some(now), true);
        let failures = std::mem::take(&mut self.failures);
        tracing::warn!(
            webhook,
            cause,
            failures,
            "a webhook fails: its receiver is not told of held calls"
        );
        let note =
            format!("`{webhook}` fails: {cause}; failures since the last record: {failures}");
        record(note, shared).await;
    }

    /// A message was taken. That is said once for each time that a failure was.
    async fn over(&mut self, webhook: &str, shared: &Shared) {
        if std::mem::take(&mut self.fails) {
            let failures = std::mem::take(&mut self.failures);
            tracing::info!(webhook, failures, "the webhook works again");
            let note =
                format!("`{webhook}` works again; failures since the last record: {failures}");
            record(note, shared).await;
        }
    }
}

/// Keeps a record with `note`.
async fn record(note: String, shared: &Shared) {
    let mut record = AuditRecord::new(Event::Webhook, shared.now());
    record.note = Some(note.into());
    let sink = Arc::clone(&shared.sink);
    // It may wait for the disk. If it cannot be kept, the journal says so itself.
    drop(tokio::task::spawn_blocking(move || sink.keep(&record)).await);
}
