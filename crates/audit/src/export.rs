//! Sends what the journal holds on to a service, each record at least once.
//!
//! An [`Exporter`] is a task of its own. It follows the journal by reading its files, so it cannot
//! block or slow a call, and while the service is away it only falls behind. After each batch that
//! the service took, the place in the journal is saved in a file of the state directory
//! ([`Cursor`]); after a restart the exporter goes on from there, so what comes twice is at most
//! the last batch. Every loss is counted and logged.
//!
//! What the records become, and what an answer of the service means, is said by a
//! [`Destination`]: `otlp` makes spans, `decisions` makes events of OPA's decision logs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::journal::Journal;
use super::tail::{Follower, Line, ReadError};

/// First wait before a request is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait before a request is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time to send what is left once the program ends.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What became of the items so far.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Progress {
    /// Items (spans, or events of decision logs) that the service took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Items, and records that could not be made into items, that the service will not get.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Where records go, and as what.
pub(super) trait Destination: Send + Sync + 'static {
    /// What is sent in place of records.
    type Item: Send + Sync;
    /// What the items are called in the log.
    const NAME: &'static str;
    /// The cursor's file below the state directory.
    const CURSOR_FILE: &'static str;
    /// Records read for one request.
    const BATCH_RECORDS_MAX: usize;

    /// What `lines` become. Losses are counted by the caller.
    fn make(&mut self, lines: Vec<Line>) -> impl Future<Output = Made<Self::Item>> + Send;

    /// Sends `items` in one request, and says what the answer means.
    fn send(&self, items: &[Self::Item]) -> impl Future<Output = Answer> + Send;

    /// The oldest record that items of records from `next` on need, if it is older than `next`:
    /// after a restart reading begins there.
    fn needed_since(&self, next: u64) -> u64 {
        next
    }
}

/// What records became.
pub(super) struct Made<T> {
    /// To be sent, in the order of the journal.
    pub(super) items: Vec<T>,
    /// How many items there will never be, with the cause.
    pub(super) lost: Vec<(u64, String)>,
}

/// What a request came to.
pub(super) enum Answer {
    /// The service has the items, but for so many that it rejected.
    Taken { rejected: u64 },
    /// The same request may succeed later.
    Later(String),
    /// The items may pass one by one.
    TooLarge,
    /// The service will not take these items.
    Refused(String),
}

/// A place in the journal, as far as a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The first record of which the service has nothing yet.
    pub(super) next: u64,
    /// Where reading begins: `next`, or an older record that later ones need.
    pub(super) read_from: u64,
}

impl Position {
    fn at(seq: u64) -> Self {
        Self { next: seq, read_from: seq }
    }
}

/// The file that says how far a service is: `next`, and `read_from` where that is another.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    path: PathBuf,
}

impl Cursor {
    /// The cursor of `D` in the directory `state`, and the place from which to go on. Without a
    /// cursor that fits the journal, that is where this run began.
    pub(super) fn open<D: Destination>(state: &Path, journal: &Journal) -> (Self, Position) {
        let cursor = Self { path: state.join(D::CURSOR_FILE) };
        let what = D::NAME;
        match cursor.load() {
            Ok(Some(position)) if position.next <= journal.last_seq().saturating_add(1) => {
                return (cursor, position);
            }
            Ok(Some(Position { next, .. })) => {
                tracing::warn!(what, next, "the cursor is beyond the journal; begins anew");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(what, %error, "the cursor cannot be read; begins anew"),
        }
        // Saved before anything is sent: whatever becomes of the first request, the next start
        // must not begin after this one.
        let position = Position::at(journal.first_seq());
        if let Err(error) = cursor.save(position) {
            tracing::warn!(what, %error, "the cursor cannot be saved; the next start begins anew");
        }
        (cursor, position)
    }

    fn load(&self) -> io::Result<Option<Position>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let position = match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(next)), None, None) => Some(Position::at(next)),
            (Some(Ok(next)), Some(Ok(read_from)), None) if read_from <= next => {
                Some(Position { next, read_from })
            }
            _ => None,
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it holds no place");
        position.map(Some).ok_or_else(wrong)
    }

    /// Replaces the file as a whole: a crash leaves the old place or the new one.
    fn save(&self, position: Position) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        let Position { next, read_from } = position;
        if next == read_from {
            writeln!(file, "{next}")?;
        } else {
            writeln!(file, "{next} {read_from}")?;
        }
        file.sync_data()?;
        fs::rename(fresh, &self.path)
    }
}

/// Reads records, makes items, sends them.
pub(super) struct Exporter<D> {
    destination: D,
    follower: Follower,
    cursor: Cursor,
    /// Records before this one were sent by an earlier run; they are read for what later ones
    /// need.
    begins: u64,
    /// Pause after a request, so that records gather into one; none where enough are waiting.
    linger: Duration,
    progress: Arc<Progress>,
}

impl<D> fmt::Debug for Exporter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl<D: Destination> Exporter<D> {
    /// Sends to `destination` what `journal` holds from `position` on.
    pub(super) fn new(
        destination: D,
        journal: &Journal,
        (cursor, position): (Cursor, Position),
        linger: Duration,
    ) -> Self {
        Self {
            destination,
            follower: journal.follow(position.read_from),
            cursor,
            begins: position.next,
            linger,
            progress: Arc::default(),
        }
    }

    /// Starts sending, as a task in `tasks`. Cancel `stop` once the last record was kept: what is
    /// left is sent for up to five seconds, then the task ends, and the next start goes on.
    pub(super) fn start(mut self, tasks: &TaskTracker, stop: CancellationToken) -> Arc<Progress> {
        let progress = Arc::clone(&self.progress);
        tasks.spawn(async move {
            let out_of_time = async {
                stop.cancelled().await;
                tokio::time::sleep(DRAIN_MAX).await;
            };
            tokio::select! {
                () = self.run(&stop) => {}
                () = out_of_time => {
                    let records = self.follower.lag();
                    tracing::warn!(what = D::NAME, records, "left for the next start");
                }
            }
        });
        progress
    }

    /// Until the journal is gone, or `stop` is cancelled and everything was sent.
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
                Ok(lines) => self.pass_on(expected, lines).await,
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

    /// Sends what `lines` become, and saves that it was.
    async fn pass_on(&mut self, expected: u64, lines: Vec<Line>) {
        if let Some(first) = lines.first() {
            self.lose_records(expected, first.seq, "records are missing from the journal");
        }
        let made = self.destination.make(lines).await;
        for (count, cause) in made.lost {
            self.lose(count, &cause);
        }
        self.deliver(made.items).await;
        let next = self.follower.next_seq();
        if next < self.begins {
            return;
        }
        let position = Position { next, read_from: self.destination.needed_since(next) };
        let cursor = self.cursor.clone();
        let saved = tokio::task::spawn_blocking(move || cursor.save(position)).await;
        if let Err(error) = saved.map_err(io::Error::other).flatten() {
            tracing::warn!(what = D::NAME, %error, "the cursor cannot be saved; may be sent twice");
        }
    }

    /// Sends `items`, again and again while that may succeed; those that are too large together
    /// are sent by halves.
    async fn deliver(&self, items: Vec<D::Item>) {
        let mut left = vec![items.as_slice()];
        while let Some(items) = left.pop() {
            if items.is_empty() {
                continue;
            }
            let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
            let mut wait = RETRY_FIRST;
            loop {
                match self.destination.send(items).await {
                    Answer::Taken { rejected } => {
                        let rejected = rejected.min(count);
                        if rejected > 0 {
                            self.lose(rejected, "rejected by the service");
                        }
                        let sent = count.saturating_sub(rejected);
                        self.progress.sent.fetch_add(sent, Ordering::Relaxed);
                        break;
                    }
                    Answer::TooLarge if count > 1 => {
                        let (first, second) = items.split_at(items.len() / 2);
                        left.extend([second, first]);
                        break;
                    }
                    Answer::TooLarge => {
                        self.lose(count, "too large for the service");
                        break;
                    }
                    Answer::Refused(cause) => {
                        self.lose(count, &cause);
                        break;
                    }
                    Answer::Later(cause) => {
                        tracing::warn!(what = D::NAME, cause, count, "not sent yet");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(RETRY_MAX);
            }
        }
    }

    /// Counts the records from `expected` to before `found`, but for those that an earlier run
    /// sent.
    fn lose_records(&self, expected: u64, found: u64, cause: &str) {
        let count = found.saturating_sub(expected.max(self.begins));
        if count > 0 {
            self.lose(count, cause);
        }
    }

    fn lose(&self, count: u64, cause: &str) {
        self.progress.lost.fetch_add(count, Ordering::Relaxed);
        tracing::error!(what = D::NAME, count, cause, "lost on the way to the service");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_its_place_and_reads_the_form_with_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let cursor = Cursor { path: folder.path().join("otlp.seq") };
        assert_eq!(cursor.load().unwrap(), None);
        for position in [Position::at(7), Position { next: 9, read_from: 3 }] {
            cursor.save(position).unwrap();
            assert_eq!(cursor.load().unwrap(), Some(position));
        }
        fs::write(&cursor.path, "12\n").unwrap();
        assert_eq!(cursor.load().unwrap(), Some(Position::at(12)));
        for text in ["", "x", "1 2", "3 2 1", "-1", "3 x"] {
            fs::write(&cursor.path, text).unwrap();
            assert!(cursor.load().is_err(), "{text}");
        }
    }
}
