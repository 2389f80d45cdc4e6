//! The journal: keeps records, in order, or says that it cannot.
//!
//! `keep` returns after one `write(2)` of the whole line: the record survives the program, not
//! the machine. A record that could not be kept is refused, and so is
//! the act that hung on it; the torn piece is cut off, every later call tries again, and the first
//! record kept after that is a `gap` that says how many were refused. The journal never deletes,
//! never rewrites a whole line, and never waits for a reader.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::sync::watch;

use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
use bartizan_gate::evidence::step::{AuditSink, Unkept};

use super::recover::{self, JournalError, Recovery, at};
use super::segment::{self, Directory, Store};
use super::tail::Follower;
use super::writer::{Writer, encode};

pub use super::writer::{JournalConfig, OPEN_CALLS_MAX, OPEN_LISTED_MAX};

/// Memory that a thread keeps for its next record, bytes.
const BODY_BYTES_KEPT: usize = 1 << 16;

/// The one writer of a journal directory.
#[derive(Debug)]
pub struct Journal {
    writer: Mutex<Writer>,
    head: watch::Sender<u64>,
    directory: PathBuf,
    boot: Box<str>,
    first_seq: u64,
    /// Held while the program writes; the system lets it go with the program.
    _lock: File,
}

impl Journal {
    /// Opens the journal, repairs what a crash left, settles its open calls, and records `start`.
    ///
    /// `boot` names this run: 1 to 64 letters, digits, `-` and `_`.
    pub fn open(
        config: &JournalConfig,
        boot: &str,
        now: Now,
    ) -> Result<(Self, Recovery), JournalError> {
        Self::open_through(config, boot, now, |directory| Box::new(directory))
    }

    /// As [`Journal::open`], writing through the store that `wrap` makes of the directory. For
    /// tests that inject faults.
    pub fn open_through(
        config: &JournalConfig,
        boot: &str,
        now: Now,
        wrap: impl FnOnce(Directory) -> Box<dyn Store>,
    ) -> Result<(Self, Recovery), JournalError> {
        let named = boot.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !named || !(1..=64).contains(&boot.len()) {
            return Err(JournalError::Config(
                "the name of a run is 1 to 64 letters, digits, `-` and `_`",
            ));
        }
        let path = config.directory.as_path();
        Directory::create(path).map_err(at("create", path))?;
        let Some(lock) = segment::lock(path).map_err(at("lock", path))? else {
            return Err(JournalError::Locked { directory: path.to_owned() });
        };
        let survey = recover::survey(path)?;
        let first_seq = survey.segment.as_ref().map(|(segment, _)| segment.first_seq);
        let store = Directory::open(path, first_seq).map_err(at("open", path))?;
        let mut recovery = Recovery {
            first_seq: survey.chain.next_seq,
            clean: survey.clean && survey.torn.is_none() && survey.open.is_empty(),
            torn: survey.torn.clone(),
            settled: 0,
        };
        let mut writer = Writer::new(config, boot, &survey, wrap(store));
        writer.keep_own(&AuditRecord::new(Event::Start, now)).map_err(JournalError::Unkept)?;
        recovery.settled =
            writer.settle(&recovery, survey.open, now).map_err(JournalError::Unkept)?;
        let journal = Self {
            head: watch::Sender::new(writer.last_seq()),
            writer: Mutex::new(writer),
            directory: path.to_owned(),
            boot: boot.into(),
            first_seq: recovery.first_seq,
            _lock: lock,
        };
        Ok((journal, recovery))
    }

    /// Records `stop`, forces everything onto the disk, and refuses every later record.
    pub fn close(&self, now: Now) -> Result<(), Unkept> {
        let record = AuditRecord::new(Event::Stop, now);
        let kept = match self.writer.lock() {
            Ok(mut writer) => writer.close(&record),
            Err(_) => Err(PANICKED.to_owned()),
        };
        self.announce(kept)
    }

    /// Whether records can be kept: after refusals, tries to record the gap that they left.
    pub fn mend(&self, now: Now) -> Result<(), Unkept> {
        let mended = match self.writer.lock() {
            Ok(mut writer) => writer.mend(now),
            Err(_) => Err(PANICKED.to_owned()),
        };
        self.announce(mended)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of this run.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Sequence number of the first record of this run.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Sequence number of the last record kept.
    pub fn last_seq(&self) -> u64 {
        *self.head.borrow()
    }

    /// Follows the journal from `from_seq` on. A follower reads the files and may lag as it likes;
    /// the writer never waits for it.
    pub fn follow(&self, from_seq: u64) -> Follower {
        Follower::new(&self.directory, from_seq, self.head.subscribe())
    }

    fn keep_encoded(&self, record: &AuditRecord, body: &mut Vec<u8>) -> Result<(), Unkept> {
        body.clear();
        body.shrink_to(BODY_BYTES_KEPT);
        let encoded = encode(record, body);
        let kept = match self.writer.lock() {
            Ok(mut writer) => writer.keep(record, encoded.map(|()| body.as_slice())),
            Err(_) => Err(PANICKED.to_owned()),
        };
        self.announce(kept)
    }

    fn announce(&self, kept: Result<u64, String>) -> Result<(), Unkept> {
        let seq = kept.map_err(|cause| Unkept { cause })?;
        // Two threads may come here in the other order than they wrote.
        self.head.send_if_modified(|head| {
            let newer = seq > *head;
            *head = seq.max(*head);
            newer
        });
        Ok(())
    }
}

const PANICKED: &str = "an earlier record panicked while it was written; restart";

impl AuditSink for Journal {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        thread_local! {
            static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BODY.with_borrow_mut(|body| self.keep_encoded(record, body))
    }
}
