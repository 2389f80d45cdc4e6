//! Sends the journal's records to a service, each record at least once.
//!
//! An [`Exporter`] is a task of its own. It follows the journal by reading its files, so it cannot
//! block or slow a call; while the service is unavailable it only lags behind. After each batch
//! that the service accepted, the position in the journal is saved in a file of the state directory
//! ([`Cursor`]). After a restart the exporter resumes from there, so at most the last batch is sent
//! twice. Every loss is counted and logged. A panic loses the records at which it happened, never
//! later ones.
//!
//! Items that the service refuses for good are written to the dead-letter file
//! ([`dead_letter`](super::dead_letter)). Where it refuses a request of several items, the halves
//! are sent separately, so that one item which it cannot take stops none of the others.
//!
//! A [`Destination`] converts records and interprets the service's responses: `otlp` makes spans,
//! `decisions` makes events of OPA's decision logs. Nothing here deletes or changes a record.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bartizan_sync::caught;
use http::HeaderMap;
use http::header::{DATE, HeaderName, RETRY_AFTER};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dead_letter::{DeadLetters, Refusal};
use super::journal::Journal;
use super::segment;
use super::tail::{Follower, Line, ReadError};

/// First delay before a request is retried, and the shortest that a service can ask for.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest delay before a request is retried.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest delay that a service can ask for (`Retry-After`, `RetryInfo`).
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);
/// How often a request is repeated whose failure may be due to its items: about 90 s.
const DOUBTFUL_REPEATS_MAX: u32 = 8;
/// Time to send the remaining records when the program ends.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How requests are repeated that a service does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// The pause before the first repetition; it doubles with each. Half a second by default.
    pub pause_first: Duration,
    /// The longest of these pauses. 30 s by default.
    pub pause_max: Duration,
    /// How often a request is repeated whose failure may be due to its items. By default 8 times,
    /// which takes about 90 s.
    pub doubtful_max: u32,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { pause_first: RETRY_FIRST, pause_max: RETRY_MAX, doubtful_max: DOUBTFUL_REPEATS_MAX }
    }
}

/// Counts of the items that were sent and lost so far.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    lost: AtomicU64,
    dead_letters: AtomicU64,
    next: AtomicU64,
    needed: AtomicU64,
}

impl Progress {
    /// Items (spans, or events of decision logs) that the service accepted.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sequence number of the first record that is not settled yet.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Sequence number of the first record that is still to be read, at the next start at the latest.
    pub fn needed(&self) -> u64 {
        self.needed.load(Ordering::Relaxed)
    }

    /// Items that were sent or lost.
    fn settled(&self) -> u64 {
        self.sent().saturating_add(self.lost())
    }

    /// Items that were written to the dead-letter file because the service refused them, or a part
    /// of the request that they were in.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// Items that the service will never receive, and records that could not be converted to items.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A service, and how records are converted for it.
pub(super) trait Destination: Send + Sync + 'static {
    /// What one or several records are converted to: a span or an event.
    type Item: Send + Sync;
    /// The name of this export in log messages.
    const NAME: &'static str;
    /// The name of this export in metrics and dead letters.
    const EXPORTER: &'static str;
    /// The file name of the cursor in the state directory.
    const CURSOR_FILE: &'static str;
    /// The largest number of records that are converted for one request.
    const BATCH_RECORDS_MAX: usize;

    /// Converts `lines`. The caller counts and logs the losses.
    fn make(&mut self, lines: Vec<Line>) -> impl Future<Output = Batch<Self::Item>> + Send;

    /// Sends `items` in one request, and classifies the response.
    fn send(&self, items: &[Self::Item]) -> impl Future<Output = SendOutcome> + Send;

    /// `item` as JSON for the dead-letter file.
    fn dead_letter(item: &Self::Item) -> Vec<u8>;

    /// The sequence number from which reading must begin after a restart so that items of records
    /// from `next` on are complete, if that is before `next`.
    fn needed_since(&self, next: u64) -> u64 {
        next
    }
}

/// Items made from one batch of records.
pub(super) struct Batch<T> {
    /// Items to send, in the order of the journal.
    pub(super) items: Vec<T>,
    /// Numbers of items that can never be made, each with its cause.
    pub(super) lost: Vec<(u64, String)>,
}

/// The result of sending one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendOutcome {
    /// The service accepted the items, except for `rejected` of them; `cause` says why.
    Taken { rejected: u64, cause: String },
    /// A temporary failure: retry the same request later.
    Later {
        /// Why.
        cause: String,
        /// The delay that the service asks for.
        after: Option<Duration>,
    },
    /// A failure of the service that the items may be the cause of: retry some times, then treat
    /// it as refused. The text is the cause.
    Doubtful(String),
    /// A permanent failure. The text is the cause.
    Refused(String),
}

impl SendOutcome {
    /// The service accepted all items.
    pub(super) fn taken() -> Self {
        Self::Taken { rejected: 0, cause: String::new() }
    }

    /// A temporary failure, without a delay that the service asks for.
    pub(super) fn later(cause: impl Into<String>) -> Self {
        Self::Later { cause: cause.into(), after: None }
    }
}

/// The delay that a response asks for: `Retry-After`, as seconds or as a date (RFC 9110, section
/// 10.2.3), at most ten minutes. A date counts from the response's own `Date`, so that the
/// clocks need not agree.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?.trim();
    let delay = if let Ok(seconds) = asked.parse() {
        Duration::from_secs(seconds)
    } else {
        let now = httpdate::parse_http_date(text(DATE)?).ok()?;
        let until = httpdate::parse_http_date(asked).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(delay_asked(delay))
}

/// The delay that is kept where a service asks for `delay`: at most ten minutes.
pub(super) fn delay_asked(delay: Duration) -> Duration {
    delay.min(RETRY_AFTER_MAX)
}

/// What became of one request, with its repetitions.
enum Settled {
    /// Its items are sent or counted as lost.
    Done,
    /// Its halves must be sent separately.
    Halve,
}

/// How far the journal has been sent, as sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExportPosition {
    /// The first record of which nothing was sent yet.
    pub(super) next: u64,
    /// Where reading begins after a restart: `next`, or an older record that an item still needs.
    pub(super) read_from: u64,
}

impl ExportPosition {
    fn at(seq: u64) -> Self {
        Self { next: seq, read_from: seq }
    }
}

/// The file with the [`ExportPosition`]: `next`, followed by `read_from` where the two differ.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    path: PathBuf,
}

impl Cursor {
    /// Opens the cursor of `D` in the directory `state`, and returns the position to resume from.
    /// Without a readable cursor that fits the journal, that is the first record of this run.
    pub(super) fn open<D: Destination>(state: &Path, journal: &Journal) -> (Self, ExportPosition) {
        let cursor = Self { path: state.join(D::CURSOR_FILE) };
        let what = D::NAME;
        match cursor.load() {
            Ok(Some(position)) if position.next <= journal.last_seq().saturating_add(1) => {
                return (cursor, position);
            }
            Ok(Some(ExportPosition { next, .. })) => {
                tracing::warn!(
                    what,
                    next,
                    "the cursor is beyond the end of the journal; export begins with this run"
                );
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(what, %error, "the cursor cannot be read; export begins with this run");
            }
        }
        // Save the position before the first request: if the program ends before that request
        // succeeds, the next start must still begin here and not with its own first record.
        let position = ExportPosition::at(journal.first_seq());
        if let Err(error) = cursor.save(position) {
            tracing::warn!(what, %error, "the cursor cannot be saved; the next start begins with its own first record");
        }
        (cursor, position)
    }

    /// The dead-letter file, which is beside the cursor.
    fn dead_letters(&self) -> DeadLetters {
        DeadLetters::of(self.path.parent().unwrap_or(Path::new("")))
    }

    fn load(&self) -> io::Result<Option<ExportPosition>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let position = match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(next)), None, None) => Some(ExportPosition::at(next)),
            (Some(Ok(next)), Some(Ok(read_from)), None) if read_from <= next => {
                Some(ExportPosition { next, read_from })
            }
            _ => None,
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it does not hold a position");
        position.map(Some).ok_or_else(wrong)
    }

    /// Writes a new file and renames it over the old one, so that a crash leaves either the old or
    /// the new position.
    fn save(&self, position: ExportPosition) -> io::Result<()> {
        let ExportPosition { next, read_from } = position;
        let text =
            if next == read_from { format!("{next}\n") } else { format!("{next} {read_from}\n") };
        segment::replace(&self.path, &text)
    }
}

/// Reads records, converts them, and sends the items.
pub(super) struct Exporter<D> {
    destination: D,
    follower: Follower,
    cursor: Cursor,
    dead_letters: DeadLetters,
    /// Earlier runs sent the records before this sequence number. They are read only because later
    /// items need them.
    begins: u64,
    /// Pause after a request, so that several records share one; skipped while a full batch is
    /// waiting.
    linger: Duration,
    repeats: Repeats,
    progress: Arc<Progress>,
}

impl<D> fmt::Debug for Exporter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl<D: Destination> Exporter<D> {
    /// Prepares to send the records of `journal` from `position` on to `destination`.
    pub(super) fn new(
        destination: D,
        journal: &Journal,
        cursor: Cursor,
        position: ExportPosition,
        (linger, repeats): (Duration, Repeats),
    ) -> Self {
        Self {
            destination,
            follower: journal.follow(position.read_from),
            dead_letters: cursor.dead_letters(),
            cursor,
            begins: position.next,
            linger,
            repeats,
            progress: Arc::default(),
        }
    }

    /// Starts sending, as a task in `tasks`, and returns the counts, which the task updates.
    ///
    /// Cancel `stop` after the last record was kept. The task then sends what is left for at most
    /// [`DRAIN_MAX`] and ends; the next start sends the rest.
    pub(super) fn start(mut self, tasks: &TaskTracker, stop: CancellationToken) -> Arc<Progress> {
        let progress = Arc::clone(&self.progress);
        progress.next.store(self.begins, Ordering::Relaxed);
        progress.needed.store(self.follower.next_seq(), Ordering::Relaxed);
        tasks.spawn(async move {
            let out_of_time = async {
                stop.cancelled().await;
                tokio::time::sleep(DRAIN_MAX).await;
            };
            let sending = async {
                while caught(self.run(&stop)).await.is_err() {
                    tracing::error!(what = D::NAME, "the export was interrupted by a panic and goes on");
                    tokio::time::sleep(RETRY_FIRST).await;
                }
            };
            tokio::select! {
                () = sending => {}
                () = out_of_time => {
                    let records = self.follower.lag();
                    tracing::warn!(what = D::NAME, records, "records not sent before the end; the next start sends them");
                }
            }
        });
        progress
    }

    /// Runs until the journal is dropped, or until `stop` is cancelled and all records were sent.
    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            if stop.is_cancelled() && self.follower.lag() == 0 {
                return;
            }
            let expected = self.follower.next_seq();
            let read = tokio::select! {
                biased;
                read = self.follower.batch(D::BATCH_RECORDS_MAX) => read,
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
            };
            match read {
                Ok(lines) if lines.is_empty() => return,
                Ok(lines) => self.send_records(expected, lines).await,
                Err(ReadError::Io { path, source }) => {
                    tracing::warn!(path = %path.display(), error = %source, "cannot read the journal");
                    tokio::time::sleep(RETRY_FIRST).await;
                }
                Err(ReadError::Missing { found, .. }) => {
                    self.lose_records(expected, found, "records are missing from the journal");
                    self.follower.seek(found);
                }
                Err(ReadError::Unreadable { seq, .. }) => {
                    let next = seq.saturating_add(1);
                    self.lose_records(expected, next, "a record cannot be read");
                    self.follower.seek(next);
                }
            }
            let behind = usize::try_from(self.follower.lag()).unwrap_or(usize::MAX);
            if behind < D::BATCH_RECORDS_MAX {
                tokio::select! {
                    () = tokio::time::sleep(self.linger) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Converts and sends `lines`, then saves the new position. `expected` is the sequence number
    /// that the first of them should have.
    async fn send_records(&mut self, expected: u64, lines: Vec<Line>) {
        if let Some(first) = lines.first() {
            self.lose_records(expected, first.seq, "records are missing from the journal");
        }
        let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
        let records = count(lines.len());
        let Ok(made) = caught(self.destination.make(lines)).await else {
            return self.lose(records, "a panic while records were converted");
        };
        for (count, cause) in made.lost {
            self.lose(count, &cause);
        }
        let items = count(made.items.len());
        let before = self.progress.settled();
        if caught(self.deliver(made.items)).await.is_err() {
            let settled = self.progress.settled().saturating_sub(before);
            self.lose(items.saturating_sub(settled), "a panic while they were sent");
        }
        let next = self.follower.next_seq();
        if next < self.begins {
            return;
        }
        self.progress.next.store(next, Ordering::Relaxed);
        let position = ExportPosition { next, read_from: self.destination.needed_since(next) };
        let cursor = self.cursor.clone();
        let saved = tokio::task::spawn_blocking(move || cursor.save(position)).await;
        match saved.map_err(io::Error::other).flatten() {
            Ok(()) => self.progress.needed.store(position.read_from, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(what = D::NAME, %error, "the cursor cannot be saved; a restart may send records twice");
            }
        }
    }

    /// Sends `items`. If the service refuses a request for good, sends the two halves of its items
    /// separately, until it is known which items it refuses.
    async fn deliver(&self, items: Vec<D::Item>) {
        let mut left = vec![items.as_slice()];
        let mut doubts = 0;
        while let Some(items) = left.pop() {
            if let Settled::Halve = self.settle(items, &mut doubts).await {
                let (first, second) = items.split_at(items.len() / 2);
                left.extend([second, first]);
            }
        }
    }

    /// Sends `items` in one request and retries temporary failures. `doubts` counts the failures
    /// that may be due to the items.
    async fn settle(&self, items: &[D::Item], doubts: &mut u32) -> Settled {
        if items.is_empty() {
            return Settled::Done;
        }
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let mut wait = self.repeats.pause_first;
        loop {
            let (cause, after) = match self.destination.send(items).await {
                SendOutcome::Taken { rejected, cause } => {
                    let rejected = rejected.min(count);
                    if rejected > 0 {
                        let cause = format!("rejected by the service: {cause}");
                        self.park(items, &cause, Some(rejected)).await;
                        self.lose(rejected, &cause);
                    } else if !cause.is_empty() {
                        tracing::warn!(what = D::NAME, cause, "the service accepted it and warns");
                    }
                    let sent = count.saturating_sub(rejected);
                    self.progress.sent.fetch_add(sent, Ordering::Relaxed);
                    return Settled::Done;
                }
                SendOutcome::Doubtful(cause) if *doubts < self.repeats.doubtful_max => {
                    *doubts = doubts.saturating_add(1);
                    (cause, None)
                }
                SendOutcome::Refused(_) | SendOutcome::Doubtful(_) if count > 1 => {
                    return Settled::Halve;
                }
                SendOutcome::Refused(cause) | SendOutcome::Doubtful(cause) => {
                    self.park(items, &cause, None).await;
                    self.lose(count, &cause);
                    return Settled::Done;
                }
                SendOutcome::Later { cause, after } => (cause, after),
            };
            let pause = after.map_or(wait, |after| after.max(RETRY_FIRST));
            let again_in_ms = pause.as_millis();
            tracing::warn!(what = D::NAME, cause, count, %again_in_ms, "cannot be sent; will be retried");
            tokio::time::sleep(pause).await;
            wait = wait.saturating_mul(2).min(self.repeats.pause_max);
        }
    }

    /// Writes `items` to the dead-letter file.
    async fn park(&self, items: &[D::Item], cause: &str, rejected: Option<u64>) {
        let items: Vec<Vec<u8>> = items.iter().map(D::dead_letter).collect();
        let refusal = Refusal { exporter: D::EXPORTER, cause: cause.to_owned(), rejected };
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let file = self.dead_letters.clone();
        let written = tokio::task::spawn_blocking(move || file.append(&refusal, &items)).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(written) => {
                self.progress.dead_letters.fetch_add(written, Ordering::Relaxed);
                if written < count {
                    let left_out = count.saturating_sub(written);
                    tracing::error!(what = D::NAME, left_out, "the dead-letter file is full");
                }
            }
            Err(error) => {
                tracing::error!(what = D::NAME, %error, "the dead-letter file cannot be written");
            }
        }
    }

    /// Counts the records from `expected` up to but not including `found` as lost, except those
    /// that an earlier run sent.
    fn lose_records(&self, expected: u64, found: u64, cause: &str) {
        let count = found.saturating_sub(expected.max(self.begins));
        if count > 0 {
            self.lose(count, cause);
        }
    }

    fn lose(&self, count: u64, cause: &str) {
        self.progress.lost.fetch_add(count, Ordering::Relaxed);
        tracing::error!(what = D::NAME, count, cause, "not sent to the service and lost for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics at the sequence numbers of its lines: 2 while it converts, 4 while it sends.
    struct Panics(Arc<std::sync::Mutex<Vec<u64>>>);

    impl Destination for Panics {
        type Item = u64;
        const NAME: &'static str = "a test";
        const EXPORTER: &'static str = "test";
        const CURSOR_FILE: &'static str = "test.seq";
        const BATCH_RECORDS_MAX: usize = 1;

        async fn make(&mut self, lines: Vec<Line>) -> Batch<u64> {
            let items: Vec<u64> = lines.iter().map(|line| line.seq).collect();
            assert!(!items.contains(&2), "while it converts");
            Batch { items, lost: Vec::new() }
        }

        async fn send(&self, items: &[u64]) -> SendOutcome {
            assert!(!items.contains(&4), "while it sends");
            bartizan_sync::lock(&self.0).extend(items);
            SendOutcome::taken()
        }

        fn dead_letter(item: &u64) -> Vec<u8> {
            item.to_string().into_bytes()
        }
    }

    #[tokio::test]
    async fn a_panic_loses_its_record_and_no_later_one() {
        use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
        use bartizan_gate::evidence::step::AuditSink as _;

        let folder = tempfile::tempdir().unwrap();
        let now = Now { uptime: Duration::ZERO, wall: std::time::UNIX_EPOCH };
        let config = super::super::journal::JournalConfig::new(folder.path().join("journal"));
        let (journal, _) = Journal::open(&config, "boot-1", now).unwrap();
        let sent = Arc::default();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (cursor, position) = Cursor::open::<Panics>(folder.path(), &journal);
        let pace = (Duration::ZERO, Repeats::default());
        let exporter = Exporter::new(Panics(Arc::clone(&sent)), &journal, cursor, position, pace);
        let progress = exporter.start(&tasks, stop.clone());
        for _ in 0..6 {
            journal.keep(&AuditRecord::new(Event::Policy, now)).unwrap();
        }
        journal.close(now).unwrap();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        let sent = bartizan_sync::lock(&sent).clone();
        assert_eq!(progress.lost(), 2, "{sent:?}");
        assert_eq!(progress.sent(), u64::try_from(sent.len()).unwrap());
        assert!(sent.contains(&3) && sent.contains(&6), "{sent:?}");
        assert!(!sent.contains(&2) && !sent.contains(&4), "{sent:?}");
    }

    #[test]
    fn a_service_says_when_to_try_again() {
        let date = "Mon, 30 Nov 2026 20:00:00 GMT";
        for (asked, date, expected) in [
            ("7", None, Some(7)),
            (" 7 ", None, Some(7)),
            ("99999999999999", None, Some(600)),
            ("Mon, 30 Nov 2026 20:01:30 GMT", Some(date), Some(90)),
            ("Mon, 30 Nov 2026 19:00:00 GMT", Some(date), Some(0)),
            ("Tue, 01 Dec 2026 20:00:00 GMT", Some(date), Some(600)),
            ("Mon, 30 Nov 2026 20:01:30 GMT", None, None),
            ("-1", Some(date), None),
            ("soon", Some(date), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{asked}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_cursor_keeps_its_place_and_reads_the_form_with_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let cursor = Cursor { path: folder.path().join("otlp.seq") };
        assert_eq!(cursor.load().unwrap(), None);
        for position in [ExportPosition::at(7), ExportPosition { next: 9, read_from: 3 }] {
            cursor.save(position).unwrap();
            assert_eq!(cursor.load().unwrap(), Some(position));
        }
        fs::write(&cursor.path, "12\n").unwrap();
        assert_eq!(cursor.load().unwrap(), Some(ExportPosition::at(12)));
        for text in ["", "x", "1 2", "3 2 1", "-1", "3 x"] {
            fs::write(&cursor.path, text).unwrap();
            assert!(cursor.load().is_err(), "{text}");
        }
    }
}
