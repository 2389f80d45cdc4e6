//! A journal on a disk that flushes, hangs or fails as the test says.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_audit::segment::{Flush, SegmentDirectory, Store, StoreError};
use bartizan_audit::tail::JournalReader;
use bartizan_gate::evidence::record::{AuditRecord, Event, Outcome};
use bartizan_gate::evidence::step::{AuditSink, Flushed, Position, Unkept};
use bartizan_testing::Sink;

use crate::http_edge::rig::soon;
use crate::journal::now;

/// What the disk does with a flush or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Works,
    /// Nothing, until the test says something else.
    Hangs,
    Fails(rustix::io::Errno),
}

#[derive(Debug)]
struct State {
    flush: Does,
    write: Does,
    /// Flushes or writes that hang.
    hanging: usize,
    /// Lines written, and how many of them are on the disk.
    lines: Vec<String>,
    on_disk: usize,
    flushes: usize,
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

impl Disk {
    pub(crate) fn flush(&self, does: Does) {
        self.state.lock().unwrap().flush = does;
        self.changed.notify_all();
    }

    pub(crate) fn write(&self, does: Does) {
        self.state.lock().unwrap().write = does;
        self.changed.notify_all();
    }

    /// Waits until a flush or a write hangs.
    pub(crate) fn until_hanging(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.hanging == 0).unwrap());
    }

    /// How many records of `event` are on the disk.
    pub(crate) fn on_disk(&self, event: &str) -> usize {
        let state = self.state.lock().unwrap();
        let event = format!(r#""event":"{event}""#);
        state.lines.iter().take(state.on_disk).filter(|line| line.contains(&event)).count()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.state.lock().unwrap().flushes
    }

    /// Lets everything that hangs go on when the value is dropped, so that a test that fails ends.
    pub(crate) fn released(self: &Arc<Self>) -> Released {
        Released(Arc::clone(self))
    }

    fn done(&self, which: impl Fn(&State) -> Does) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.hanging += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| which(state) == Does::Hangs).unwrap();
        state.hanging -= 1;
        match which(&state) {
            Does::Fails(error) => Err(error.into()),
            Does::Works | Does::Hangs => Ok(()),
        }
    }
}

/// See [`Disk::released`].
pub(crate) struct Released(Arc<Disk>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.flush(Does::Works);
        self.0.write(Does::Works);
    }
}

struct OnDisk {
    directory: SegmentDirectory,
    disk: Arc<Disk>,
}

struct FlushOnDisk {
    inner: Arc<dyn Flush>,
    disk: Arc<Disk>,
    failed: AtomicBool,
}

impl Flush for FlushOnDisk {
    fn flush(&self) -> io::Result<()> {
        assert!(!self.failed.load(Ordering::SeqCst), "a flush that failed was tried again");
        let written = {
            let mut state = self.disk.state.lock().unwrap();
            state.flushes += 1;
            state.lines.len()
        };
        self.disk
            .done(|state| state.flush)
            .inspect_err(|_| self.failed.store(true, Ordering::SeqCst))?;
        self.inner.flush()?;
        let mut state = self.disk.state.lock().unwrap();
        state.on_disk = state.on_disk.max(written);
        Ok(())
    }
}

impl Store for OnDisk {
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError> {
        self.disk.done(|state| state.write).map_err(StoreError::Io)?;
        let written = self.directory.append(length, line)?;
        let line = String::from_utf8_lossy(line).into_owned();
        self.disk.state.lock().unwrap().lines.push(line);
        Ok(written)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.directory.truncate(length)
    }

    fn begin_segment(&mut self, first_seq: u64) -> io::Result<()> {
        self.directory.begin_segment(first_seq)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.directory.free_bytes()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.directory.sync()
    }

    fn flush(&mut self) -> io::Result<Arc<dyn Flush>> {
        let inner = self.directory.flush()?;
        let disk = Arc::clone(&self.disk);
        Ok(Arc::new(FlushOnDisk { inner, disk, failed: AtomicBool::new(false) }))
    }
}

/// A journal on a disk, and in memory, too, where tests wait for records.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) journal: Arc<Journal>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) seen: Arc<Sink>,
    directory: tempfile::TempDir,
}

impl Kept {
    /// A journal in which every act waits for the disk.
    pub(crate) fn durable() -> Arc<Self> {
        Self::with(Durabilities::all(Durability::Durable))
    }

    pub(crate) fn with(durability: Durabilities) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let state = State {
            flush: Does::Works,
            write: Does::Works,
            hanging: 0,
            lines: Vec::new(),
            on_disk: 0,
            flushes: 0,
        };
        let disk = Arc::new(Disk { state: Mutex::new(state), changed: Condvar::new() });
        let settings = JournalConfig {
            durability,
            reserve_bytes: 0,
            ..JournalConfig::new(directory.path().join("journal"))
        };
        let shared = Arc::clone(&disk);
        let (journal, _) = Journal::open_through(&settings, "boot-1", now(0), |directory| {
            Box::new(OnDisk { directory, disk: shared })
        })
        .unwrap();
        Arc::new(Self { journal: Arc::new(journal), disk, seen: Arc::default(), directory })
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("journal")
    }

    pub(crate) fn records(&self) -> Vec<JournalRecord> {
        records(&self.path())
    }

    /// Waits for the record of an `outcome`.
    pub(crate) async fn outcome(&self, outcome: Outcome) {
        self.seen.outcome(outcome).await;
    }

    /// Waits until records are kept again.
    pub(crate) async fn mended(&self) {
        soon("the journal to recover", async {
            while self.journal.mend(now(9)).is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub(crate) fn records(directory: &Path) -> Vec<JournalRecord> {
    let mut reader = JournalReader::new(directory, 1);
    let lines = reader.read_many(usize::MAX).unwrap();
    lines.iter().map(|line| JournalRecord::read(&line.bytes).unwrap()).collect()
}

impl AuditSink for Kept {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        self.keep_before_act(record).map(drop)
    }

    fn keep_before_act(&self, record: &AuditRecord) -> Result<Option<Position>, Unkept> {
        let kept = self.journal.keep_before_act(record)?;
        self.seen.keep(record)?;
        Ok(kept)
    }

    fn durable(&self, position: Position) -> Flushed<'_> {
        self.journal.durable(position)
    }
}

/// Whether `records` hold one outcome for each intent.
pub(crate) fn settled_once(records: &[JournalRecord]) -> bool {
    let of = |event: Event| -> Vec<_> {
        let named = |record: &&JournalRecord| record.event == event.as_str();
        let mut calls: Vec<_> = records.iter().filter(named).map(|it| it.call.clone()).collect();
        calls.sort();
        calls
    };
    of(Event::Intent) == of(Event::Outcome)
}
