//! The journal: appends audit records in order, or reports that it cannot.
//!
//! `keep` returns after one `write(2)` of the whole line, so the record survives a crash of the
//! program, but not of the machine. Where the configuration says so, the act that the record
//! precedes waits besides until the line is on the disk (`commit`). If a record cannot be written,
//! `keep` returns an error and the gate refuses the act that the record describes. A partly written
//! line is cut off, every later call tries again, and the first record that is written after that is
//! a `gap` record with the number of refused records. A panic while a record is written is such a
//! fault, too ([decision 22](../../../docs/decisions/0022-a-panic-in-the-journal.md)). The journal
//! never deletes a record ([`retention`](super::retention) removes whole files, if the operator says
//! so), never rewrites a whole line, and never waits for a reader.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::{Bounded, lock};
use tokio::sync::watch;
use tokio::time::timeout_at;

use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
use bartizan_gate::evidence::step::{AuditSink, Flushed, Position, Unkept};

use super::checkpoint::CheckpointMember;
use super::commit::{CLOSED, Committer};
use super::durability::Durability;
use super::encode::Encoder;
use super::recover::{self, JournalError, Recovery, at};
use super::segment::{self, SegmentDirectory, Store, caught};
use super::tail::Follower;
use super::writer::{Missed, Said, Writer};

pub use super::commit::FLUSH_WAIT_MAX;
pub use super::writer::{JournalConfig, OPEN_CALLS_MAX, OPEN_LISTED_MAX};

/// How long a record waits at most for its turn to be written, so that its caller is refused within a
/// second while a write hangs.
pub const WRITE_WAIT_MAX: Duration = Duration::from_millis(900);

/// Why a record is not written.
const HANGS: &str = "the disk takes too long to write the journal";

/// The right to write the journal in a directory. The operating system ends it with the value, or with
/// the program.
#[derive(Debug)]
pub struct JournalLock {
    directory: PathBuf,
    /// The locked lock file.
    _file: File,
}

impl JournalLock {
    /// Takes it for `directory`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`JournalError::Locked`] if another program has it; the directory or its lock file cannot be
    /// created or opened.
    pub fn take(directory: &Path) -> Result<Self, JournalError> {
        SegmentDirectory::create(directory).map_err(at("create", directory))?;
        match segment::lock(directory).map_err(at("lock", directory))? {
            Some(file) => Ok(Self { directory: directory.to_owned(), _file: file }),
            None => Err(JournalError::Locked { directory: directory.to_owned() }),
        }
    }
}

/// The only writer of a journal directory; shared by all threads.
#[derive(Debug)]
pub struct Journal {
    writer: Bounded<Writer>,
    /// What could not be handed to the writer, which hangs.
    missed: Mutex<Missed>,
    committer: Arc<Committer>,
    head: watch::Sender<u64>,
    /// Beside the writer, whose lock may be held for as long as the disk takes.
    open_calls: AtomicUsize,
    boot: Box<str>,
    first_seq: u64,
    /// Held as long as the journal is.
    lock: JournalLock,
}

impl Journal {
    /// Opens the journal, repairs what a crash left behind, records an unknown outcome for every
    /// call that is still open, and records `start`.
    ///
    /// `boot` identifies this run: 1 to 64 letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, another program writes to it, the last segment is damaged in a
    /// way that a crash does not explain, or the first records cannot be written.
    pub fn open(
        config: &JournalConfig,
        boot: &str,
        now: Now,
    ) -> Result<(Self, Recovery), JournalError> {
        Self::open_through(config, boot, now, |directory| Box::new(directory))
    }

    /// Like [`Journal::open`], in the directory of `lock`.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    pub fn open_locked(
        lock: JournalLock,
        config: &JournalConfig,
        boot: &str,
        now: Now,
    ) -> Result<(Self, Recovery), JournalError> {
        Self::open_with(lock, config, boot, now, |directory| Box::new(directory))
    }

    /// Like [`Journal::open`], but writes through the store that `wrap` makes of the directory.
    /// Tests inject faults with it.
    pub fn open_through(
        config: &JournalConfig,
        boot: &str,
        now: Now,
        wrap: impl FnOnce(SegmentDirectory) -> Box<dyn Store>,
    ) -> Result<(Self, Recovery), JournalError> {
        let lock = JournalLock::take(&config.directory)?;
        Self::open_with(lock, config, boot, now, wrap)
    }

    fn open_with(
        lock: JournalLock,
        config: &JournalConfig,
        boot: &str,
        now: Now,
        wrap: impl FnOnce(SegmentDirectory) -> Box<dyn Store>,
    ) -> Result<(Self, Recovery), JournalError> {
        let named = boot.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !named || !(1..=64).contains(&boot.len()) {
            return Err(JournalError::Config(
                "the name of a run is 1 to 64 letters, digits, `-` and `_`",
            ));
        }
        let path = lock.directory.as_path();
        let survey = recover::survey(path)?;
        // A run that was killed may have closed a file before the kernel had written all of it to
        // the disk.
        segment::flush_newest(path).map_err(at("flush", path))?;
        let first_seq = survey.segment.as_ref().map(|(segment, _)| segment.first_seq);
        let store = SegmentDirectory::open(path, first_seq).map_err(at("open", path))?;
        let mut recovery = Recovery {
            first_seq: survey.chain.next_seq,
            clean: survey.clean && survey.torn.is_none() && survey.open.is_empty(),
            torn: survey.torn.clone(),
            settled: 0,
        };
        let mut store = wrap(store);
        let committer = Arc::new(Committer::default());
        if first_seq.is_some() {
            committer.began(store.flush().map_err(at("open", path))?, survey.chain.next_seq);
        }
        if config.durability.any() {
            committer.start().map_err(at("start a thread for", path))?;
        }
        let mut writer = Writer::new(config, boot, &survey, store, Arc::clone(&committer));
        let mut start = AuditRecord::new(Event::Start, now);
        start.program.clone_from(&config.program);
        writer.keep_own(&start).map_err(JournalError::Unkept)?;
        recovery.settled =
            writer.settle(&recovery, survey.open, now).map_err(JournalError::Unkept)?;
        let journal = Self {
            head: watch::Sender::new(writer.last_seq()),
            open_calls: AtomicUsize::new(writer.open_calls()),
            writer: Bounded::new(writer),
            missed: Mutex::default(),
            committer,
            boot: boot.into(),
            first_seq: recovery.first_seq,
            lock,
        };
        Ok((journal, recovery))
    }

    /// Records `stop`, flushes the file to the disk, and refuses every later record.
    ///
    /// # Errors
    ///
    /// `stop` could not be written or flushed.
    pub fn close(&self, now: Now) -> Result<(), Unkept> {
        let record = AuditRecord::new(Event::Stop, now);
        self.write(|writer| writer.close(&record))
    }

    /// Tries to write again after refusals, by recording the gap that they left.
    ///
    /// # Errors
    ///
    /// Records can still not be written.
    pub fn mend(&self, now: Now) -> Result<(), Unkept> {
        if let Some(cause) = self.committer.skips() {
            return Err(Unkept { cause });
        }
        self.write(|writer| writer.mend(now))?;
        self.committer.recover(self.last_seq()).map_err(|cause| Unkept { cause })
    }

    /// Whether a record would get its turn to be written.
    ///
    /// # Errors
    ///
    /// A write hangs.
    pub fn responds(&self) -> Result<(), Unkept> {
        self.writer.with(WRITE_WAIT_MAX, |_| ()).ok_or_else(hangs)
    }

    /// Records `checkpoint`, and returns the sequence number of its record.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn checkpoint(
        &self,
        checkpoint: &CheckpointMember,
        now: Now,
    ) -> Result<u64, Unkept> {
        let mut seq = 0;
        self.write(|writer| {
            seq = writer.keep_checkpoint(checkpoint, now)?;
            Ok(seq)
        })?;
        Ok(seq)
    }

    /// The journal's directory.
    pub fn directory(&self) -> &Path {
        &self.lock.directory
    }

    /// The identifier of this run, `boot` in its records.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Sequence number of the first record of this run.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Sequence number of the last record written.
    pub fn last_seq(&self) -> u64 {
        *self.head.borrow()
    }

    /// Number of calls that have an intent and not all of their outcomes.
    pub fn open_calls(&self) -> usize {
        self.open_calls.load(Ordering::Relaxed)
    }

    /// The same as [`Journal::last_seq`], for whoever waits for the next ones.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// A reader that follows the journal from `from_seq` on. It reads the files and may lag behind
    /// by any amount; the writer never waits for it.
    pub fn follow(&self, from_seq: u64) -> Follower {
        Follower::new(&self.lock.directory, from_seq, self.head.subscribe())
    }

    /// Keeps `record`. Returns its sequence number if the act must wait that it precedes.
    fn keep_encoded(
        &self,
        record: &AuditRecord,
        encoder: &mut Encoder,
    ) -> Result<Option<u64>, Unkept> {
        let body = encoder.encode(record);
        let mut position = None;
        let kept = self.try_write(|writer| {
            let durability = writer.durability_of(record);
            let seq = writer.keep(record, body)?;
            position = Some(seq).filter(|_| durability == Durability::Durable);
            Ok(seq)
        });
        if let Some(kept) = kept {
            return kept.map(|()| position);
        }
        lock(&self.missed).count(record);
        Err(hangs())
    }

    fn write(&self, what: impl FnOnce(&mut Writer) -> Result<u64, String>) -> Result<(), Unkept> {
        self.try_write(what).unwrap_or_else(|| Err(hangs()))
    }

    /// Runs `what` when it is this record's turn, and logs afterwards; `None` if a write hangs. A
    /// panic refuses this record alone.
    fn try_write(
        &self,
        what: impl FnOnce(&mut Writer) -> Result<u64, String>,
    ) -> Option<Result<(), Unkept>> {
        let (kept, said) = self.writer.with(WRITE_WAIT_MAX, |writer| {
            let missed = std::mem::take(&mut *lock(&self.missed));
            writer.missed(missed, HANGS);
            let kept = caught(|| what(writer));
            self.open_calls.store(writer.open_calls(), Ordering::Relaxed);
            (kept, std::mem::take(&mut writer.said))
        })?;
        said.into_iter().for_each(Said::log);
        Some(self.announce(kept))
    }

    fn announce(&self, kept: Result<u64, String>) -> Result<(), Unkept> {
        let seq = kept.map_err(|cause| Unkept { cause })?;
        // Two threads may arrive here in another order than they wrote in, so the head only ever
        // grows.
        self.head.send_if_modified(|head| {
            let newer = seq > *head;
            *head = seq.max(*head);
            newer
        });
        Ok(())
    }
}

fn closed() -> Unkept {
    Unkept { cause: CLOSED.to_owned() }
}

fn hangs() -> Unkept {
    Unkept { cause: HANGS.to_owned() }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

impl AuditSink for Journal {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        self.keep_before_act(record).map(drop)
    }

    fn keep_before_act(&self, record: &AuditRecord) -> Result<Option<Position>, Unkept> {
        thread_local! {
            static ENCODER: RefCell<Encoder> = const { RefCell::new(Encoder::new()) };
        }
        let kept = ENCODER.with_borrow_mut(|encoder| self.keep_encoded(record, encoder));
        Ok(kept?.map(Position))
    }

    fn durable(&self, Position(position): Position) -> Flushed<'_> {
        // Before the future is polled: the flush may begin.
        let (mut wait, joined) = self.committer.wait(position);
        Box::pin(async move {
            let mut until = self.committer.patience(joined);
            loop {
                // What has been flushed meanwhile is, however late it is noticed.
                let ends = until.as_ref().copied().unwrap_or(joined);
                match (timeout_at(ends, &mut wait).await, until) {
                    (Ok(Ok(flushed)), _) => return flushed.map_err(|cause| Unkept { cause }),
                    (Ok(Err(_stopped)), _) => return Err(closed()),
                    (Err(_elapsed), Err(cause)) => return Err(Unkept { cause }),
                    (Err(_elapsed), Ok(_)) => until = self.committer.patience(joined),
                }
            }
        })
    }
}
