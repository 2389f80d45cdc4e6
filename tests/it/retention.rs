//! Old files of the journal in a whole firewall: they are compressed and removed, and what is left
//! verifies.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::net::TcpListener;
use std::path::Path;

use bartizan_audit::journal::Journal;
use bartizan_audit::journal_directory;
use bartizan_audit::segment::{self, Segment};
use bartizan_audit::tail::JournalReader;
use bartizan_audit::verify::{Extent, Source, VerifyOptions, verify, verify_with};
use bartizan_gate::evidence::step::AuditSink as _;
use serde_json::Value;

use super::failures::Program;
use super::firewall::{Client, Firewall, LEGACY, Setup, call, post, wait};
use super::journal::{config, denial, now};

/// A firewall that records each refusal, with these settings of `audit`, and others at the top.
fn firewall(audit: &str, top: &str) -> Firewall {
    let audit = format!(
        "audit: {{each_refusal: true, segment_bytes: 64KiB, checkpoints: {{interval: 100ms}}, {audit}}}\n"
    );
    Firewall::with(Setup { top: audit + top, ..Setup::default() })
}

fn segments(firewall: &Firewall) -> Vec<Segment> {
    segment::list(&journal_directory(&firewall.state())).unwrap()
}

/// Sends refused calls until the journal in `state` has at least so many records.
fn fill(client: &mut Client, state: &Path, upto: u64) {
    for number in 1.. {
        client.send(&post(call(number, "no_such_tool", "{}"), LEGACY));
        client.reply();
        if number % 50 == 0 && records(state).last().unwrap()["seq"].as_u64() >= Some(upto) {
            break;
        }
    }
}

/// All records, of compressed files, too.
fn records(state: &Path) -> Vec<Value> {
    let mut reader = JournalReader::new(&journal_directory(state), 1);
    let lines = reader.read_many(usize::MAX).unwrap();
    lines.iter().map(|line| serde_json::from_slice(&line.bytes).unwrap()).collect()
}

fn readiness(firewall: &Firewall) -> String {
    let mut client = Client::connect(firewall.admin());
    client.send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    client.reply().text().to_owned()
}

fn of_event(state: &Path, event: &str) -> Vec<Value> {
    records(state).into_iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn closed_files_are_compressed_and_the_journal_is_as_whole_as_before() {
    let mut firewall = firewall("compress_after: 1s", "");
    fill(&mut firewall.client(), &firewall.state(), 400);
    wait("all closed files compressed", || {
        let segments = segments(&firewall);
        let (newest, closed) = segments.split_last()?;
        let done = closed.iter().all(Segment::is_compressed) && !newest.is_compressed();
        (closed.len() >= 3 && done).then_some(())
    });
    let before = records(&firewall.state()).len();
    firewall.stop();
    let directory = journal_directory(&firewall.state());
    let summary = verify(&directory, Extent::Whole).unwrap();
    assert!(summary.stopped && summary.records >= u64::try_from(before).unwrap());
    let key = std::fs::read_to_string(firewall.state().join("checkpoint.pub")).unwrap();
    let options =
        VerifyOptions { keys: vec![key.trim().parse().unwrap()], ..VerifyOptions::default() };
    let summary = verify_with(Source::Directory(&directory), &options).unwrap();
    assert!(summary.checkpoints > 0 && summary.proven.is_some());
}

#[test]
fn old_files_are_removed_with_a_record_and_the_rest_verifies() {
    let mut firewall = firewall("compress_after: off, retention: {bytes: 128KiB}", "");
    fill(&mut firewall.client(), &firewall.state(), 600);
    let removed = wait("removed files", || {
        let notes = of_event(&firewall.state(), "retention");
        (segments(&firewall)[0].first_seq > 1).then_some(())?;
        notes.last().cloned()
    });
    let note = removed["note"].as_str().unwrap();
    assert!(note.contains("by `audit.retention.bytes`"), "{note}");
    firewall.stop();
    let directory = journal_directory(&firewall.state());
    let oldest = segment::list(&directory).unwrap()[0].first_seq;
    assert!(verify(&directory, Extent::Whole).is_err());
    let summary = verify(&directory, Extent::Remainder).unwrap();
    assert_eq!((summary.first_seq, summary.stopped), (oldest, true));
}

/// The address of a collector that takes connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("otlp: {{endpoint: 'http://{address}'}}\n"))
}

#[test]
fn what_a_collector_has_not_got_stays_unless_it_may_go() {
    let (_listener, otlp) = silent();
    let retention = "compress_after: off, retention: {bytes: 128KiB";
    let kept = firewall(&format!("{retention}}}"), &otlp);
    fill(&mut kept.client(), &kept.state(), 500);
    let told =
        wait("a word of it", || Some(readiness(&kept)).filter(|it| it.contains("retention")));
    assert!(told.contains("not all sent or signed"), "{told}");
    assert_eq!(segments(&kept)[0].first_seq, 1);
    assert!(of_event(&kept.state(), "retention").is_empty());

    let (_listener, otlp) = silent();
    let gone = firewall(&format!("{retention}, unsent: remove}}"), &otlp);
    fill(&mut gone.client(), &gone.state(), 500);
    wait("removed files", || (segments(&gone)[0].first_seq > 1).then_some(()));
}

/// A file that cannot be removed is recorded once, keeps the later ones, and goes when it can.
#[test]
fn a_file_that_cannot_be_removed_is_recorded_once() {
    let firewall = firewall("compress_after: off, retention: {bytes: 192KiB}", "");
    let directory = journal_directory(&firewall.state());
    let first = directory.join(segment::name(1));
    fill(&mut firewall.client(), &firewall.state(), 100);
    let second = segments(&firewall)[1].first_seq;
    // Nobody reads the first one any more once all records are signed.
    wait("a checkpoint", || {
        (records(&firewall.state()).last()?["event"] == "checkpoint").then_some(())
    });
    std::fs::rename(&first, directory.join("kept")).unwrap();
    std::fs::create_dir(&first).unwrap();
    let removals = || {
        let mut reader = JournalReader::new(&directory, second);
        let lines = reader.read_many(usize::MAX).unwrap();
        let is_removal = |line: &&bartizan_audit::tail::Line| {
            String::from_utf8_lossy(&line.bytes).contains("\"event\":\"retention\"")
        };
        lines.iter().filter(is_removal).count()
    };
    let mut client = firewall.client();
    while removals() == 0 {
        client.send(&post(call(1, "no_such_tool", "{}"), LEGACY));
        client.reply();
    }
    let told = wait("a word of it", || {
        Some(readiness(&firewall)).filter(|it| it.contains("cannot be removed"))
    });
    // Several looks later.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(removals(), 1, "{told}");
    assert!(segments(&firewall).iter().any(|segment| segment.first_seq == second));
    std::fs::remove_dir(&first).unwrap();
    wait("its end", || (!readiness(&firewall).contains("cannot be removed")).then_some(()));
}

/// Nothing is cut off a compressed file: its bytes are not those of its lines.
#[test]
fn a_compressed_newest_file_with_a_torn_line_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    let settings = config(&directory, 1 << 20);
    let (journal, _) = Journal::open(&settings, "boot-1", now(0)).unwrap();
    for number in 0..50 {
        journal.keep(&denial(&format!("call-{number}"))).unwrap();
    }
    drop(journal);
    let newest = segment::list(&directory).unwrap().pop().unwrap().path;
    let torn = std::fs::read_to_string(&newest).unwrap() + "{\"seq\":52,";
    std::fs::write(&newest, torn).unwrap();
    segment::compress(&newest).unwrap();
    let newest = segment::list(&directory).unwrap().pop().unwrap().path;
    let before = std::fs::read(&newest).unwrap();
    assert!(Journal::open(&settings, "boot-2", now(1)).is_err());
    assert_eq!(std::fs::read(&newest).unwrap(), before);
}

/// Killed and started again, also where a copy has every file compressed, the newest, too.
#[test]
fn a_start_after_a_crash_reads_compressed_files() {
    let upstream = Firewall::start();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\n\
         audit: {{each_refusal: true, segment_bytes: 64KiB, compress_after: 1s}}\n\
         servers:\n  flags: {{path: /mcp, url: 'http://{}/mcp'}}\n",
        state.display(),
        upstream.address()
    );
    let directory = journal_directory(&state);
    for round in 1..=3 {
        let program = Program::run(folder.path(), "", &config);
        let (address, _) = program.addresses();
        fill(&mut Client::connect(address), &state, round * 150);
        drop(program);
        let summary = verify(&directory, Extent::Whole).unwrap();
        assert!(!summary.stopped && summary.recoveries == round - 1, "{summary:?}");
        for segment in segment::list(&directory).unwrap() {
            if !segment.is_compressed() && round == 2 {
                segment::compress(&segment.path).unwrap();
            }
        }
    }
    assert!(segment::list(&directory).unwrap().len() >= 4);
}
