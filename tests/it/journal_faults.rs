//! Faults of the journal that leave no trace in a file: a panic while a record is written, an
//! outcome that could not be kept in time, a run that ended in order with calls open, and an event
//! that nobody knows.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on should say where"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bartizan_audit::chain::{self, ChainFault};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::journal::Journal;
use bartizan_audit::segment::{self, Flush, SegmentDirectory, Store, StoreError};
use bartizan_audit::tail::JournalReader;
use bartizan_audit::verify::{Extent, VerifyError, verify};
use bartizan_gate::evidence::record::Outcome;
use bartizan_gate::evidence::step::AuditSink as _;

use crate::journal::{config, denial, intent, now, outcome, verify_in_python};

/// Where a store panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Panics {
    Never,
    /// Before anything is written.
    Before,
    /// After this many bytes of the line.
    Within(usize),
    /// After the whole line.
    After,
    /// Before a segment is made.
    NewSegment,
    /// After a segment is made.
    MadeSegment,
    /// When it is asked for the free space.
    Space,
    /// Within the line, and again while the piece is cut off.
    Cut,
}

struct Panicking {
    directory: SegmentDirectory,
    panics: Arc<Mutex<Panics>>,
}

impl Panicking {
    fn set(&self) -> Panics {
        *self.panics.lock().unwrap()
    }
}

impl Store for Panicking {
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError> {
        let panics = self.set();
        let taken = match panics {
            Panics::Before => panic!("before"),
            Panics::Within(taken) => taken,
            Panics::Cut => 10,
            _ => line.len(),
        };
        let written = self.directory.append(length, &line[..taken])?;
        match panics {
            Panics::Within(_) | Panics::After | Panics::Cut => panic!("after {written}"),
            _ => Ok(written),
        }
    }

    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        assert!(self.set() != Panics::Cut, "while it is cut off");
        self.directory.truncate(length)
    }

    fn begin_segment(&mut self, first_seq: u64) -> std::io::Result<()> {
        assert!(self.set() != Panics::NewSegment, "before a segment is made");
        self.directory.begin_segment(first_seq)?;
        assert!(self.set() != Panics::MadeSegment, "after a segment was made");
        Ok(())
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        assert!(self.set() != Panics::Space, "while the space is read");
        self.directory.free_bytes()
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.directory.sync()
    }

    fn flush(&mut self) -> std::io::Result<Arc<dyn Flush>> {
        self.directory.flush()
    }
}

fn open(path: &Path, segment_bytes: u64) -> (Journal, Arc<Mutex<Panics>>) {
    let panics = Arc::new(Mutex::new(Panics::Never));
    let shared = Arc::clone(&panics);
    let settings =
        bartizan_audit::journal::JournalConfig { reserve_bytes: 1, ..config(path, segment_bytes) };
    let (journal, _) = Journal::open_through(&settings, "boot-1", now(0), |directory| {
        Box::new(Panicking { directory, panics: shared })
    })
    .unwrap();
    (journal, panics)
}

fn entries(directory: &Path) -> Vec<JournalRecord> {
    let mut reader = JournalReader::new(directory, 1);
    let lines = reader.read_many(usize::MAX).unwrap();
    lines.iter().map(|line| JournalRecord::read(&line.bytes).unwrap()).collect()
}

fn events(directory: &Path) -> Vec<String> {
    entries(directory).into_iter().map(|entry| entry.event).collect()
}

#[test]
fn a_panic_refuses_one_record_and_no_other() {
    for panics in [Panics::Before, Panics::Within(0), Panics::Within(20), Panics::After] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (journal, set) = open(path, 1 << 20);
        journal.keep(&intent("before")).unwrap();
        *set.lock().unwrap() = panics;
        for _ in 0..2 {
            let unkept = journal.keep(&intent("lost")).unwrap_err();
            assert!(unkept.cause.contains("panic"), "{panics:?} {unkept:?}");
        }
        *set.lock().unwrap() = Panics::Never;
        journal.keep(&outcome("before")).unwrap();
        journal.keep(&denial("after")).unwrap();
        assert_eq!(events(path), ["start", "intent", "gap", "outcome", "denial"], "{panics:?}");
        assert_eq!(entries(path)[2].gap.as_ref().unwrap().refused, 2, "{panics:?}");
        journal.close(now(9)).unwrap();
        let summary = verify(path, Extent::Whole).unwrap();
        assert!(summary.stopped && summary.open.is_empty(), "{panics:?}");
    }
}

#[test]
fn a_panic_around_the_line_refuses_nothing_later_either() {
    for panics in [Panics::NewSegment, Panics::MadeSegment, Panics::Space, Panics::Cut] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // Each record needs a segment of its own, and the space is read before each.
        let (journal, set) = open(path, 600);
        let mut number = 0;
        let mut keep = |outcome: bool| {
            number += 1;
            let kept = journal.keep(&denial(&format!("{outcome} {number}")));
            assert_eq!(kept.is_ok(), outcome, "{panics:?} {kept:?}");
        };
        keep(true);
        *set.lock().unwrap() = panics;
        if panics == Panics::Space {
            // It is read after so many bytes, and always while the last attempt failed.
            while journal.keep(&denial("fills")).is_ok() {}
        }
        keep(false);
        keep(false);
        *set.lock().unwrap() = Panics::Never;
        journal.mend(now(3)).unwrap();
        keep(true);
        keep(true);
        journal.close(now(9)).unwrap();
        drop(journal);
        let summary = verify(path, Extent::Whole).unwrap_or_else(|e| panic!("{panics:?}: {e}"));
        assert_eq!(summary.gaps, 1, "{panics:?}");
        // The next run finds a journal that needs no repair.
        let (_, recovery) = Journal::open(&config(path, 600), "boot-2", now(0)).unwrap();
        assert!(recovery.clean, "{panics:?} {recovery:?}");
    }
}

#[test]
fn an_outcome_that_could_not_be_kept_is_recorded_late_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, set) = open(path, 1 << 20);
    for call in ["ok", "failed", "unknown"] {
        journal.keep(&intent(call)).unwrap();
    }
    *set.lock().unwrap() = Panics::Before;
    journal.keep(&outcome("ok")).unwrap_err();
    let mut failed = outcome("failed");
    failed.outcome = Some(Outcome::UpstreamFailed);
    journal.keep(&failed).unwrap_err();
    // Of a call that nobody opened, nothing is owed.
    journal.keep(&outcome("never begun")).unwrap_err();
    *set.lock().unwrap() = Panics::Never;
    journal.mend(now(3)).unwrap();
    let late: Vec<_> = entries(path)
        .into_iter()
        .filter(|entry| entry.event == "outcome")
        .map(|entry| (entry.call.unwrap(), entry.outcome.unwrap(), entry.note.unwrap()))
        .collect();
    let note = "recorded late: it could not be kept when it happened";
    let expected = [("failed", "upstream_failed", note), ("ok", "ok", note)];
    let shown: Vec<_> =
        late.iter().map(|(call, outcome, note)| (&**call, &**outcome, &**note)).collect();
    assert_eq!(shown, expected);
    // What was never told ends with the run.
    journal.close(now(9)).unwrap();
    let last = &entries(path)[entries(path).len() - 2];
    assert_eq!((last.call.as_deref(), last.outcome.as_deref()), (Some("unknown"), Some("unknown")));
    let summary = verify(path, Extent::Whole).unwrap();
    assert_eq!((summary.intents, summary.outcomes, summary.gaps), (3, 3, 1));
}

/// A journal of one segment that ended in order, as its lines.
fn whole() -> (tempfile::TempDir, PathBuf, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(directory.path(), 1 << 20);
    let (journal, _) = Journal::open(&settings, "boot-1", now(0)).unwrap();
    for call in ["a", "b"] {
        journal.keep(&intent(call)).unwrap();
        journal.keep(&outcome(call)).unwrap();
    }
    journal.close(now(5)).unwrap();
    let path = segment::list(directory.path()).unwrap().remove(0).path;
    let text = std::fs::read_to_string(&path).unwrap();
    (directory, path, text.lines().map(str::to_owned).collect())
}

/// Writes `lines` with numbers and hashes that fit, as somebody could who can write the file.
fn forge(path: &Path, lines: &[String]) {
    let mut prev = String::from_utf8(chain::GENESIS.to_vec()).unwrap();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let (_, rest) = line.split_once(",\"boot\"").unwrap();
        let (before, after) = rest.split_once("\"prev\":\"").unwrap();
        let after = after.split_once('"').unwrap().1;
        let forged = format!("{{\"seq\":{},\"boot\"{before}\"prev\":\"{prev}\"{after}", number + 1);
        prev = String::from_utf8(chain::hash(forged.as_bytes()).to_vec()).unwrap();
        text.push_str(&forged);
        text.push('\n');
    }
    std::fs::write(path, text).unwrap();
}

fn fault(directory: &Path) -> (u64, ChainFault) {
    match verify(directory, Extent::Whole).unwrap_err() {
        VerifyError::Damaged(damage) => (damage.seq, damage.fault),
        other => panic!("{other}"),
    }
}

#[test]
fn a_run_that_ended_in_order_with_calls_open_does_not_verify() {
    let (directory, path, lines) = whole();
    forge(&path, &lines);
    verify(directory.path(), Extent::Whole).expect("a forgery of the same lines is whole");
    for gone in [2, 4] {
        let mut without = lines.clone();
        without.remove(gone);
        forge(&path, &without);
        let call = if gone == 2 { "a" } else { "b" }.to_owned();
        assert_eq!(fault(directory.path()), (5, ChainFault::StoppedWithOpenCall { call }));
        let python = verify_in_python(directory.path());
        assert!(python.as_ref().is_none_or(|(content, _)| !content), "{python:?}");
        // Without the end in order, the call is only open.
        without.pop();
        forge(&path, &without);
        let summary = verify(directory.path(), Extent::Whole).unwrap();
        assert_eq!((summary.open.len(), summary.stopped), (1, false));
    }
}

#[test]
fn a_record_of_an_unknown_event_does_not_verify_wherever_it_is() {
    let (directory, path, lines) = whole();
    for at in [0, 2, lines.len() - 1] {
        for event in ["intents", "Stop", "", "stop ", "\\u0000"] {
            let mut odd = lines.clone();
            let (before, rest) = odd[at].split_once("\"event\":\"").unwrap();
            let after = rest.split_once('"').unwrap().1;
            odd[at] = format!("{before}\"event\":\"{event}\"{after}");
            forge(&path, &odd);
            let (seq, fault) = fault(directory.path());
            let unknown = matches!(fault, ChainFault::UnknownEvent { .. });
            assert!(unknown && seq == u64::try_from(at).unwrap() + 1, "{at} {event}: {fault:?}");
            let python = verify_in_python(directory.path());
            assert!(python.as_ref().is_none_or(|(content, _)| !content), "{python:?}");
        }
    }
}
