//! The journal through its public interface: order of records, faults, crashes, damage.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bartizan_audit::chain::ChainFault;
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::journal::{Journal, JournalConfig, OPEN_LISTED_MAX};
use bartizan_audit::recover::{JournalError, Recovery};
use bartizan_audit::segment::{self, Flush, SegmentDirectory, Store, StoreError};
use bartizan_audit::tail::{JournalReader, ReadError};
use bartizan_audit::verify::{Extent, VerifyError, verify};
use bartizan_gate::evidence::record::{AuditRecord, Event, Finding, Now, Outcome, Target};
use bartizan_gate::evidence::step::AuditSink as _;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

pub(crate) fn now(micros: u64) -> Now {
    let uptime = Duration::from_micros(micros);
    Now { uptime, wall: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + uptime }
}

pub(crate) fn config(directory: &Path, segment_bytes_max: u64) -> JournalConfig {
    JournalConfig { segment_bytes_max, reserve_bytes: 0, ..JournalConfig::new(directory) }
}

pub(crate) fn intent(call: &str) -> AuditRecord {
    let mut record = AuditRecord::new(Event::Intent, now(1));
    record.call = Some(call.into());
    record.principal = Some("agent-1".into());
    record.server = Some("flags".into());
    record.method = Some("tools/call".into());
    record.id = Some("7".into());
    record.target = Some(Target { tool: Some("update_gate".into()), ..Target::default() }.into());
    record
}

pub(crate) fn outcome(call: &str) -> AuditRecord {
    let mut record = AuditRecord::new(Event::Outcome, now(2));
    record.call = Some(call.into());
    record.outcome = Some(Outcome::Ok);
    record
}

pub(crate) fn denial(call: &str) -> AuditRecord {
    let mut record = intent(call).with_finding(Finding::ToolDenied);
    record.event = Event::Denial;
    record
}

fn open(directory: &Path, segment_bytes_max: u64) -> (Journal, Recovery) {
    Journal::open(&config(directory, segment_bytes_max), "boot-1", now(0)).unwrap()
}

fn entries(directory: &Path) -> Vec<JournalRecord> {
    let mut reader = JournalReader::new(directory, 1);
    let lines = reader.read_many(usize::MAX).unwrap();
    lines.iter().map(|line| JournalRecord::read(&line.bytes).unwrap()).collect()
}

fn events(directory: &Path) -> Vec<String> {
    entries(directory).into_iter().map(|entry| entry.event).collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    segment::list(directory).unwrap().into_iter().map(|segment| segment.path).collect()
}

#[test]
fn a_run_in_order_leaves_a_whole_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/journal");
    let (journal, recovery) = open(&path, 1 << 20);
    assert_eq!(recovery, Recovery { first_seq: 1, clean: true, torn: None, settled: 0 });
    journal.keep(&intent("c1")).unwrap();
    journal.keep(&outcome("c1")).unwrap();
    journal.keep(&denial("c2")).unwrap();
    assert_eq!(journal.last_seq(), 4);
    journal.close(now(9)).unwrap();
    let refused = journal.keep(&denial("c3")).unwrap_err();
    assert_eq!(refused.cause, "the journal is closed");
    drop(journal);

    assert_eq!(events(&path), ["start", "intent", "outcome", "denial", "stop"]);
    let summary = verify(&path, Extent::Whole).unwrap();
    assert_eq!((summary.records, summary.last_seq, summary.stopped), (5, 5, true));
    assert!(summary.open.is_empty());

    let text = std::fs::read_to_string(&segments(&path)[0]).unwrap();
    let first = text.lines().next().unwrap();
    let zeros = "0".repeat(64);
    let head = format!(r#"{{"seq":1,"boot":"boot-1","prev":"{zeros}","schema":1,"event":"start","#);
    assert!(first.starts_with(&head), "{first}");
    let denial: serde_json::Value = serde_json::from_str(text.lines().nth(3).unwrap()).unwrap();
    assert_eq!(denial["maestro"]["layer"], "L7", "usable without preprocessing");

    let (journal, recovery) = open(&path, 1 << 20);
    assert_eq!(recovery, Recovery { first_seq: 6, clean: true, torn: None, settled: 0 });
    drop(journal);
    assert_eq!(events(&path)[5..], ["start"]);
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (_journal, _) = open(&path, 1 << 20);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&segments(&path)[0]), 0o600);
    assert_eq!(mode(&path.join("journal.lock")), 0o600);
}

#[test]
fn two_programs_cannot_write_one_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (_journal, _) = open(directory.path(), 1 << 20);
    let second = Journal::open(&config(directory.path(), 1 << 20), "boot-2", now(0));
    let error = second.unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("being written by another program"), "{error}");
}

#[test]
fn a_bad_name_of_a_run_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for boot in ["", "a\"b", "a b", &"x".repeat(65)] {
        let opened = Journal::open(&config(directory.path(), 1), boot, now(0));
        assert!(matches!(opened, Err(JournalError::Config(_))), "{boot}");
    }
}

#[test]
fn segments_rotate_and_list_what_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 4096);
    journal.keep(&intent("long-lived")).unwrap();
    for n in 0..40 {
        journal.keep(&intent(&format!("c{n}"))).unwrap();
        journal.keep(&outcome(&format!("c{n}"))).unwrap();
    }
    drop(journal);
    let files = segments(path);
    assert!(files.len() > 4, "{}", files.len());
    let all = entries(path);
    for (expected, entry) in (1..).zip(&all) {
        assert_eq!(entry.seq, expected);
    }
    let rotations: Vec<&JournalRecord> =
        all.iter().filter(|entry| entry.event == "rotation").collect();
    assert_eq!(rotations.len(), files.len() - 1);
    for rotation in rotations {
        assert!(rotation.open.contains(&"long-lived".to_owned()), "{rotation:?}");
        assert!(path.join(segment::name(rotation.seq)).is_file(), "named by its first record");
    }
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 4096);
    }
    verify(path, Extent::Whole).unwrap();

    // The last segment alone is enough for recovery.
    let (_journal, recovery) = open(path, 4096);
    assert_eq!(recovery.settled, 1);
    let last = entries(path).into_iter().rfind(|entry| entry.event == "outcome").unwrap();
    assert_eq!(
        (last.call.as_deref(), last.outcome.as_deref()),
        (Some("long-lived"), Some("unknown"))
    );
    verify(path, Extent::Whole).unwrap();
}

#[test]
fn more_open_calls_than_a_rotation_lists_are_still_settled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let calls = OPEN_LISTED_MAX + 2500;
    let (journal, _) = open(path, 512 << 10);
    for n in 0..calls {
        journal.keep(&intent(&format!("call-{n:06}"))).unwrap();
    }
    drop(journal);
    let rotations: Vec<JournalRecord> =
        entries(path).into_iter().filter(|entry| entry.event == "rotation").collect();
    assert!(rotations.last().unwrap().open_elided > 0, "the test means to elide");
    let (journal, recovery) = open(path, 1 << 20);
    assert_eq!(recovery.settled, calls);
    drop(journal);
    let summary = verify(path, Extent::Whole).unwrap();
    assert!(summary.open.is_empty());
}

#[test]
fn eight_threads_keep_one_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 16 << 10);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..100 {
                    let call = format!("t{thread}-{n}");
                    journal.keep(&intent(&call)).unwrap();
                    journal.keep(&outcome(&call)).unwrap();
                }
            });
        }
    });
    let summary = verify(path, Extent::Whole).unwrap();
    assert_eq!((summary.intents, summary.outcomes), (800, 800));
    assert_eq!(summary.last_seq, journal.last_seq());
    assert!(summary.open.is_empty());
}

#[test]
fn hostile_text_stays_inside_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let hostile = "x\n{\"seq\":9}\u{1b}[2J\u{202e}\u{2028}\u{e0041}\u{85}\u{7f}";
    let (journal, _) = open(path, 1 << 20);
    let mut record = denial("c1");
    record.target = Some(Target { tool: Some(hostile.into()), ..Target::default() }.into());
    journal.keep(&record).unwrap();
    journal.keep(&denial("c2")).unwrap();
    drop(journal);
    let bytes = std::fs::read(&segments(path)[0]).unwrap();
    let printable = bytes.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte));
    assert!(printable, "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(entries(path)[1].target_name(), Some(hostile), "and means the same");
    verify(path, Extent::Whole).unwrap();
}

/// What a faulty store does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    Nothing,
    /// Takes this many bytes and says so.
    Short(usize),
    /// Takes this many bytes and fails.
    Fail(usize, rustix::io::Errno),
    /// As `Fail`, and cannot cut the piece off either.
    Stuck(usize),
}

/// A store that fails on demand.
struct Faulty {
    directory: SegmentDirectory,
    mishap: Arc<Mutex<Mishap>>,
    free: Arc<Mutex<u64>>,
}

impl Store for Faulty {
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError> {
        let mishap = *self.mishap.lock().unwrap();
        let (taken, error) = match mishap {
            Mishap::Nothing => return self.directory.append(length, line),
            Mishap::Short(taken) => (taken, None),
            Mishap::Fail(taken, error) => (taken, Some(error)),
            Mishap::Stuck(taken) => (taken, Some(rustix::io::Errno::IO)),
        };
        let piece = line.get(..taken).unwrap_or(line);
        if !piece.is_empty() {
            self.directory.append(length, piece)?;
        }
        error.map_or(Ok(piece.len()), |error| Err(StoreError::Io(error.into())))
    }

    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        if matches!(*self.mishap.lock().unwrap(), Mishap::Stuck(_)) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.directory.truncate(length)
    }

    fn begin_segment(&mut self, first_seq: u64) -> std::io::Result<()> {
        if *self.mishap.lock().unwrap() != Mishap::Nothing {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.directory.begin_segment(first_seq)
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        Ok(*self.free.lock().unwrap())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.directory.sync()
    }

    fn flush(&mut self) -> std::io::Result<Arc<dyn Flush>> {
        self.directory.flush()
    }
}

struct Fixture {
    journal: Journal,
    mishap: Arc<Mutex<Mishap>>,
    free: Arc<Mutex<u64>>,
}

fn open_faulty(directory: &Path, config: &JournalConfig) -> Fixture {
    let mishap = Arc::new(Mutex::new(Mishap::Nothing));
    let free = Arc::new(Mutex::new(u64::MAX));
    let shared = (Arc::clone(&mishap), Arc::clone(&free));
    let (journal, _) = Journal::open_through(config, "boot-1", now(0), |directory| {
        Box::new(Faulty { directory, mishap: shared.0, free: shared.1 })
    })
    .unwrap();
    assert_eq!(journal.directory(), directory);
    Fixture { journal, mishap, free }
}

#[test]
fn a_fault_refuses_the_record_and_leaves_a_gap_record() {
    let faults = [
        Mishap::Short(0),
        Mishap::Short(10),
        Mishap::Fail(0, rustix::io::Errno::NOSPC),
        Mishap::Fail(10, rustix::io::Errno::NOSPC),
        Mishap::Fail(100, rustix::io::Errno::IO),
        Mishap::Fail(0, rustix::io::Errno::ROFS),
        Mishap::Stuck(10),
    ];
    for fault in faults {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let fixture = open_faulty(path, &config(path, 1 << 20));
        let journal = &fixture.journal;
        journal.keep(&intent("before")).unwrap();
        *fixture.mishap.lock().unwrap() = fault;
        for n in 0..3 {
            assert!(journal.keep(&intent(&format!("lost-{n}"))).is_err(), "{fault:?}");
        }
        if !matches!(fault, Mishap::Stuck(_)) {
            verify(path, Extent::Whole).unwrap();
        }
        *fixture.mishap.lock().unwrap() = Mishap::Nothing;
        journal.keep(&outcome("before")).unwrap();
        journal.keep(&denial("after")).unwrap();
        assert_eq!(events(path), ["start", "intent", "gap", "outcome", "denial"], "{fault:?}");
        let gap = &entries(path)[2];
        let facts = gap.gap.as_ref().unwrap();
        assert_eq!(facts.refused, 3, "{fault:?}");
        assert_eq!(facts.since, "2027-01-15T08:00:00.000001Z");
        assert!(!facts.cause.is_empty());
        assert_eq!(gap.finding.as_deref(), Some("audit_sink_failure"));
        let summary = verify(path, Extent::Whole).unwrap();
        assert_eq!((summary.gaps, summary.open.len()), (1, 0));
    }
}

#[test]
fn a_fault_while_rotating_loses_nothing_either() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let fixture = open_faulty(path, &config(path, 2048));
    let mut kept = 0;
    for n in 0..60 {
        let fault = match n % 7 {
            3 => Mishap::Fail(17, rustix::io::Errno::NOSPC),
            5 => Mishap::Short(3),
            _ => Mishap::Nothing,
        };
        *fixture.mishap.lock().unwrap() = fault;
        kept += usize::from(fixture.journal.keep(&denial(&format!("c{n}"))).is_ok());
    }
    *fixture.mishap.lock().unwrap() = Mishap::Nothing;
    fixture.journal.close(now(5)).unwrap();
    let all = entries(path);
    assert_eq!(all.iter().filter(|entry| entry.event == "denial").count(), kept);
    let refused: u64 =
        all.iter().filter_map(|entry| entry.gap.as_ref()).map(|gap| gap.refused).sum();
    assert_eq!(usize::try_from(refused).unwrap(), 60 - kept);
    assert!(segments(path).len() > 3);
    verify(path, Extent::Whole).unwrap();
}

#[test]
fn a_record_that_cannot_be_written_is_refused_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 4 << 20);
    let mut large = denial("large");
    large.note = Some("x".repeat(2 << 20).into());
    journal.keep(&large).unwrap();
    let mut early = denial("early");
    early.time = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert!(journal.keep(&early).unwrap_err().cause.contains("before 1970"));
    journal.keep(&denial("small")).unwrap();
    assert_eq!(events(path), ["start", "denial", "gap", "denial"]);
    assert_eq!(entries(path)[2].gap.as_ref().unwrap().refused, 1);
    assert!(entries(path)[1].note.as_ref().unwrap().len() <= 4096, "cut, not refused");
}

#[test]
fn the_last_space_is_for_outcomes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut config = config(path, 1 << 20);
    config.reserve_bytes = 1000;
    let fixture = open_faulty(path, &config);
    let journal = &fixture.journal;
    journal.keep(&intent("c1")).unwrap();
    *fixture.free.lock().unwrap() = 999;
    // Free space is looked at after each mebibyte.
    let mut filler = denial("filler");
    filler.note = Some("x".repeat(4000).into());
    let mut kept = 0;
    while journal.keep(&filler).is_ok() {
        kept += 1;
    }
    assert!(kept >= (1 << 20) / 8000, "{kept}");
    let refused = journal.keep(&intent("c2")).unwrap_err();
    assert_eq!(refused.cause, "less than 1000 bytes of disk are free");
    assert!(journal.keep(&denial("c3")).is_err());
    journal.keep(&outcome("c1")).unwrap();
    *fixture.free.lock().unwrap() = 1000;
    journal.keep(&intent("c4")).unwrap();
    let expected = ["start", "intent", "denial", "outcome", "gap", "intent"];
    let mut found = events(path);
    found.retain(|event| event != "rotation");
    found.dedup();
    assert_eq!(found, expected);
    verify(path, Extent::Whole).unwrap();
}

#[test]
fn a_segment_changed_by_another_program_is_left_as_it_is() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("removed", |file| std::fs::remove_file(file).unwrap()),
        ("cut", |file| {
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap();
        }),
        ("added to", |file| {
            let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
            file.write_all(b"{\"seq\":3}\n").unwrap();
        }),
    ];
    for (name, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (journal, _) = open(path, 1 << 20);
        journal.keep(&intent("c1")).unwrap();
        let file = segments(path)[0].clone();
        change(&file);
        let evidence = std::fs::read(&file).ok();
        let refused = journal.keep(&denial("c2")).unwrap_err();
        assert!(refused.cause.contains("another program"), "{name}: {}", refused.cause);
        journal.keep(&denial("c3")).unwrap();
        assert_eq!(std::fs::read(&file).ok(), evidence, "{name}");
        let fresh = path.join(segment::name(3));
        let text = std::fs::read_to_string(fresh).unwrap();
        let events: Vec<String> =
            text.lines().map(|line| JournalRecord::read(line.as_bytes()).unwrap().event).collect();
        assert_eq!(events, ["rotation", "gap", "denial"], "{name}");
        assert!(matches!(verify(path, Extent::Whole), Err(VerifyError::Damaged(_))), "{name}");
    }
}

/// The files of a journal of a few segments whose program was killed with calls in flight.
fn crashed() -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path(), 3000);
    for n in 0..9 {
        journal.keep(&intent(&format!("c{n}"))).unwrap();
        if n % 3 != 0 {
            journal.keep(&outcome(&format!("c{n}"))).unwrap();
        }
    }
    drop(journal);
    let names = segments(directory.path())
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    (directory, names)
}

#[test]
fn a_journal_cut_at_any_byte_recovers_to_a_record() {
    let (original, names) = crashed();
    let last = std::fs::read(original.path().join(names.last().unwrap())).unwrap();
    assert!(names.len() > 1 && (900..2000).contains(&last.len()), "{} {}", names.len(), last.len());
    // Every byte of the first and the last record, and some of those between.
    let ends = 330..last.len() - 330;
    for cut in (0..=last.len()).filter(|cut| !ends.contains(cut) || cut % 13 == 0) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in &names {
            std::fs::copy(original.path().join(name), path.join(name)).unwrap();
        }
        let kept = &last[..cut];
        std::fs::write(path.join(names.last().unwrap()), kept).unwrap();
        let whole = kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);

        let (journal, recovery) = open(path, 3000);
        assert!(!recovery.clean);
        journal.keep(&denial("next")).unwrap();
        drop(journal);
        let summary =
            verify(path, Extent::Whole).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert!(summary.open.is_empty(), "cut at {cut}: {:?}", summary.open);
        let torn = &last[whole..cut];
        match &recovery.torn {
            None => assert!(torn.is_empty(), "cut at {cut}"),
            Some(aside) => assert_eq!(std::fs::read(&aside.aside).unwrap(), torn, "cut at {cut}"),
        }
        let now_there = std::fs::read(path.join(names.last().unwrap())).unwrap();
        assert!(now_there.starts_with(&last[..whole]), "cut at {cut}: whole records stay");
    }
}

#[test]
fn a_crash_right_after_a_segment_was_begun_is_repaired() {
    let (directory, _) = crashed();
    let path = directory.path();
    let next = entries(path).last().unwrap().seq + 1;
    std::fs::write(path.join(segment::name(next)), b"").unwrap();
    let (journal, recovery) = open(path, 1 << 20);
    assert_eq!((recovery.first_seq, recovery.settled), (next, 3));
    drop(journal);
    verify(path, Extent::Whole).unwrap();
    let first_of_run = &events(path)[usize::try_from(next).unwrap() - 1..];
    assert_eq!(first_of_run[..3], ["rotation", "start", "recovery"]);
}

#[test]
fn settled_calls_keep_what_their_intent_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 1 << 20);
    let mut begun = intent("c1");
    begun.trace_id = Some("0af7651916cd43dd8448eb211c80319c".into());
    journal.keep(&begun).unwrap();
    drop(journal);
    let (_journal, recovery) = open(path, 1 << 20);
    assert_eq!((recovery.clean, recovery.settled), (false, 1));
    assert_eq!(events(path), ["start", "intent", "start", "recovery", "outcome"]);
    let settled = &entries(path)[4];
    assert_eq!(settled.call.as_deref(), Some("c1"));
    assert_eq!(settled.outcome.as_deref(), Some("unknown"));
    assert_eq!(settled.server.as_deref(), Some("flags"));
    assert_eq!(settled.target_name(), Some("update_gate"));
    assert_eq!(settled.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
}

#[test]
fn damage_that_is_no_crash_is_not_repaired() {
    let (directory, names) = crashed();
    let path = directory.path().join(names.last().unwrap());
    let original = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = original.lines().collect();
    let forged = lines[2].replace("\"prev\":\"", "\"prev\":\"f");
    let damaged: [(&str, Vec<&str>); 4] = [
        ("a line is gone", [&lines[..1], &lines[2..]].concat()),
        ("a line is garbage", [&lines[..1], &["garbage"], &lines[2..]].concat()),
        ("the first line is gone", lines[1..].to_vec()),
        ("the last line is chained to another", [&lines[..2], &[forged.as_str()]].concat()),
    ];
    for (name, lines) in damaged {
        let text = lines.join("\n") + "\n";
        std::fs::write(&path, &text).unwrap();
        let opened = Journal::open(&config(directory.path(), 3000), "boot-2", now(0));
        let error = opened.unwrap_err();
        assert!(matches!(error, JournalError::Damaged(_)), "{name}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}: evidence stays");
    }
}

/// Runs the independent verifier: whether it was content, and what it said. `None` where there is
/// no Python; the tests need nothing but Rust.
pub(crate) fn verify_in_python(directory: &Path) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/verify_journal.py");
    let ran = match Command::new("python3").arg(script).arg(directory).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        ran => ran.unwrap(),
    };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some((ran.status.success(), said))
}

/// A journal of three segments that ended in order, as lines of each file.
fn whole() -> (tempfile::TempDir, Vec<(PathBuf, Vec<String>)>) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path(), 1500);
    for n in 0..6 {
        journal.keep(&intent(&format!("c{n}"))).unwrap();
        journal.keep(&outcome(&format!("c{n}"))).unwrap();
    }
    journal.close(now(5)).unwrap();
    drop(journal);
    let files = segments(directory.path())
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text.lines().map(str::to_owned).collect())
        })
        .collect();
    (directory, files)
}

#[test]
fn every_mutation_is_found_at_its_record_by_both_verifiers() {
    type Mutate = fn(&mut Vec<String>, usize);
    // Each is applied to line `at` of the second segment; the last column says at which line the
    // first bad record then is, counted from `at`.
    let mutations: [(&str, Mutate, u64); 9] = [
        ("flip in a value", |l, at| l[at] = l[at].replace("agent-1", "agent-2"), 0),
        ("flip in an event", |l, at| l[at] = l[at].replace("\"schema\":1", "\"schema\":2"), 0),
        ("flip in prev", |l, at| l[at] = flip_prev(&l[at]), 0),
        ("flip in seq", |l, at| l[at] = l[at].replacen("\"seq\":", "\"seq\":9", 1), 0),
        ("break the JSON", |l, at| l[at] = l[at].replacen('{', "[", 1), 0),
        ("delete", |l, at| drop(l.remove(at)), 0),
        ("swap", |l, at| l.swap(at, at + 1), 0),
        ("duplicate", |l, at| l.insert(at, l[at].clone()), 1),
        ("truncate", |l, at| drop(l[at].split_off(40)), 0),
    ];
    let (original, files) = whole();
    assert!(files.len() >= 3, "{}", files.len());
    let summary = verify(original.path(), Extent::Whole).unwrap();
    let records: usize = files.iter().map(|(_, lines)| lines.len()).sum();
    if let Some((content, said)) = verify_in_python(original.path()) {
        assert!(content, "{said}");
        assert_eq!(said.trim(), format!("ok {records} records, head {}", summary.head));
    }

    let (path, lines) = &files[1];
    let first_seq = u64::try_from(files[0].1.len() + 1).unwrap();
    for (name, mutate, later) in mutations {
        // Flips are tried in every line, the other changes only away from the ends of the file.
        let flip = name.starts_with("flip");
        let places = if flip { 0..lines.len() } else { 1..lines.len() - 2 };
        for at in places {
            if name == "flip in a value" && !lines[at].contains("agent-1") {
                continue;
            }
            let mut mutated = lines.clone();
            mutate(&mut mutated, at);
            std::fs::write(path, mutated.join("\n") + "\n").unwrap();
            let expected = first_seq + u64::try_from(at).unwrap() + later;
            check_damage(name, original.path(), path, expected);
        }
    }
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
    verify(original.path(), Extent::Whole).unwrap();
}

fn flip_prev(line: &str) -> String {
    let (before, after) = line.split_once("\"prev\":\"").unwrap();
    let flipped = if after.starts_with('a') { "b" } else { "a" };
    format!("{before}\"prev\":\"{flipped}{}", &after[1..])
}

fn check_damage(name: &str, directory: &Path, path: &Path, seq: u64) {
    let error = verify(directory, Extent::Whole).unwrap_err();
    let VerifyError::Damaged(damage) = &error else { panic!("{name}: {error}") };
    assert_eq!((damage.seq, damage.path.as_path()), (seq, path), "{name}: {error}");
    let file = path.file_name().unwrap().to_str().unwrap();
    if let Some((content, said)) = verify_in_python(directory) {
        assert!(!content && said.starts_with(&format!("bad {seq} {file}: ")), "{name}: {said}");
    }
}

#[test]
fn lines_and_files_moved_between_journals_are_found() {
    let (original, files) = whole();
    let (_other, foreign) = {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), 1500);
        let (journal, _) = Journal::open(&config, "boot-2", now(0)).unwrap();
        for n in 0..6 {
            journal.keep(&intent(&format!("c{n}"))).unwrap();
            journal.keep(&outcome(&format!("c{n}"))).unwrap();
        }
        journal.close(now(5)).unwrap();
        let lines: Vec<Vec<String>> = segments(directory.path())
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())
            .collect();
        (directory, lines)
    };
    let first_seq = u64::try_from(files[0].1.len() + 1).unwrap();

    let mut spliced = files[1].1.clone();
    spliced[2].clone_from(&foreign[1][2]);
    std::fs::write(&files[1].0, spliced.join("\n") + "\n").unwrap();
    check_damage("a foreign line", original.path(), &files[1].0, first_seq + 2);

    std::fs::write(&files[1].0, foreign[1].join("\n") + "\n").unwrap();
    let error = verify(original.path(), Extent::Whole).unwrap_err();
    assert!(matches!(&error, VerifyError::Damaged(d) if d.fault == ChainFault::Changed), "{error}");
    assert!(verify_in_python(original.path()).is_none_or(|(content, _)| !content));

    std::fs::remove_file(&files[1].0).unwrap();
    check_damage("a missing file", original.path(), &files[2].0, first_seq);

    std::fs::write(&files[1].0, files[1].1.join("\n") + "\n").unwrap();
    std::fs::remove_file(&files[0].0).unwrap();
    check_damage("the first file is gone", original.path(), &files[1].0, 1);
    let summary = verify(original.path(), Extent::Remainder).unwrap();
    assert_eq!(summary.first_seq, first_seq);
}

#[test]
fn a_call_that_no_run_settled_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 1 << 20);
    journal.keep(&outcome("never-begun")).unwrap();
    drop(journal);
    check_damage("outcome without intent", path, &segments(path)[0], 2);
}

#[test]
fn a_journal_that_is_not_there_is_not_proven() {
    let directory = tempfile::tempdir().unwrap();
    let error = verify(directory.path(), Extent::Whole).unwrap_err();
    assert!(matches!(error, VerifyError::Empty { .. }), "{error}");
    assert!(verify_in_python(directory.path()).is_none_or(|(content, _)| !content));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_record_says_its_line_is_json_and_says_the_same(
        tool in any::<String>(),
        note in any::<String>(),
        hidden in proptest::collection::vec(any::<String>(), 0..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path(), 1 << 20);
        let mut record = denial("c1");
        record.target = Some(Target { tool: Some(tool.as_str().into()), ..Target::default() }.into());
        record.note = Some(note.clone().into());
        record.hidden = hidden.iter().collect();
        journal.keep(&record).unwrap();
        let text = std::fs::read_to_string(&segments(directory.path())[0]).unwrap();
        prop_assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            prop_assert!(value["seq"].is_u64());
        }
        let all = entries(directory.path());
        prop_assert_eq!(all[1].target_name(), Some(tool.as_str()));
        prop_assert_eq!(all[1].note.as_deref(), Some(note.as_str()));
        prop_assert_eq!(&all[1].hidden, &hidden);
    }
}

#[test]
fn a_reader_follows_over_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, _) = open(path, 2000);
    let mut reader = JournalReader::new(path, 3);
    assert!(reader.read().unwrap().is_none());
    let mut seen = Vec::new();
    for n in 0..30 {
        journal.keep(&denial(&format!("c{n}"))).unwrap();
        while let Some(line) = reader.read().unwrap() {
            seen.push(line.seq);
        }
    }
    let expected: Vec<u64> = (3..=journal.last_seq()).collect();
    assert_eq!(seen, expected);
    reader.seek(10);
    assert_eq!(reader.read().unwrap().unwrap().seq, 10);
}

#[test]
fn a_reader_does_not_hand_out_a_torn_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let fixture = open_faulty(path, &config(path, 1 << 20));
    fixture.journal.keep(&denial("c1")).unwrap();
    *fixture.mishap.lock().unwrap() = Mishap::Stuck(80);
    assert!(fixture.journal.keep(&denial("lost")).is_err());
    let mut reader = JournalReader::new(path, 1);
    assert_eq!(reader.read_many(10).unwrap().len(), 2);
    *fixture.mishap.lock().unwrap() = Mishap::Nothing;
    fixture.journal.keep(&denial("c2")).unwrap();
    let seqs: Vec<u64> = reader.read_many(10).unwrap().iter().map(|line| line.seq).collect();
    assert_eq!(seqs, [3, 4]);
}

#[test]
fn a_reader_says_what_is_missing() {
    let (directory, files) = whole();
    std::fs::remove_file(&files[1].0).unwrap();
    let mut reader = JournalReader::new(directory.path(), 1);
    let error = reader.read_many(usize::MAX).unwrap_err();
    let first = u64::try_from(files[0].1.len() + 1).unwrap();
    let found = first + u64::try_from(files[1].1.len()).unwrap();
    assert!(
        matches!(error, ReadError::Missing { seq, found: f } if seq == first && f == found),
        "{error}"
    );
}

#[tokio::test]
async fn a_follower_lags_and_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (journal, recovery) = open(path, 2000);
    let mut follower = journal.follow(recovery.first_seq);
    for n in 0..30 {
        journal.keep(&denial(&format!("c{n}"))).unwrap();
    }
    let last = journal.last_seq();
    assert_eq!(follower.lag(), last);
    let mut seen = Vec::new();
    while follower.lag() > 0 {
        seen.extend(follower.batch(7).await.unwrap().into_iter().map(|line| line.seq));
    }
    assert_eq!(seen, (1..=last).collect::<Vec<u64>>());
    drop(journal);
    assert!(follower.batch(7).await.unwrap().is_empty(), "the journal is gone");
}

const CHILD: &str = "BARTIZAN_TEST_JOURNAL";

/// Not a test of its own: the writer that the tests below kill or starve. For each call it keeps
/// the intent, says so on standard output (as if it forwarded), and keeps the outcome.
#[test]
#[ignore = "a child of other tests"]
fn child_writer() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let boot = format!("pid-{}", std::process::id());
    let (journal, _) = Journal::open(&config(Path::new(&path), 20_000), &boot, now(0)).unwrap();
    let mut out = std::io::stdout().lock();
    let mut refused = 0;
    for n in 0..100_000 {
        let call = format!("{boot}-{n}");
        match journal.keep(&intent(&call)) {
            Ok(()) => {
                // One write, so that a kill cannot leave half a line.
                out.write_all(format!("forwarded {call}\n").as_bytes()).unwrap();
                out.flush().unwrap();
                if let Err(unkept) = journal.keep(&outcome(&call)) {
                    out.write_all(format!("refused {}\n", unkept.cause).as_bytes()).unwrap();
                    refused += 1;
                }
            }
            Err(unkept) => {
                out.write_all(format!("refused {}\n", unkept.cause).as_bytes()).unwrap();
                refused += 1;
            }
        }
        if refused == 5 {
            let rlimit = rustix::process::Rlimit { current: None, maximum: None };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, rlimit).unwrap();
            for n in 0..10 {
                journal.keep(&denial(&format!("after-{n}"))).unwrap();
            }
            journal.close(now(9)).unwrap();
            return;
        }
    }
}

fn child(path: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "journal::child_writer", "--ignored", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_killed_writer_leaves_a_journal_that_recovers() {
    use std::io::{BufRead as _, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut forwarded = BTreeSet::new();
    for round in 0..12_u32 {
        let mut child = child(path, "").spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        // Each time the writer is killed after a different number of calls, at an arbitrary point.
        let enough = usize::try_from((round * 37) % 150).unwrap() + 1;
        let mut calls = 0;
        for line in said.by_ref() {
            let line = line.unwrap();
            if let Some((_, call)) = line.split_once("forwarded ") {
                forwarded.insert(call.to_owned());
                calls += 1;
                if calls == enough {
                    child.kill().unwrap();
                    break;
                }
            }
        }
        for line in said {
            if let Ok(line) = line
                && let Some((_, call)) = line.split_once("forwarded ")
            {
                forwarded.insert(call.to_owned());
            }
        }
        child.wait().unwrap();
    }
    let (journal, _) = open(path, 20_000);
    drop(journal);
    let summary = verify(path, Extent::Whole).unwrap();
    assert!(summary.open.is_empty(), "{:?}", summary.open);
    assert_eq!(summary.intents, summary.outcomes);
    assert_eq!(summary.recoveries, 12);
    assert!(verify_in_python(path).is_none_or(|(content, _)| content));
    let recorded: BTreeSet<String> = entries(path)
        .into_iter()
        .filter(|entry| entry.event == "intent")
        .filter_map(|entry| entry.call)
        .collect();
    assert!(forwarded.len() > 12, "{}", forwarded.len());
    assert!(forwarded.is_subset(&recorded), "nothing was forwarded without its record");
}

#[test]
fn a_file_size_limit_of_the_system_refuses_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // The limit is met in the middle of a line; the signal that comes with it is ignored.
    let output = child(path, "trap '' XFSZ; ulimit -S -f 21;").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("bytes were written"), "a short write: {said}");
    let summary = verify(path, Extent::Whole).unwrap();
    assert!(summary.gaps >= 1 && summary.stopped);
    let refused: u64 =
        entries(path).iter().filter_map(|entry| entry.gap.as_ref()).map(|gap| gap.refused).sum();
    assert_eq!(refused, 5);
}
