//! `audit tail` and `audit verify`: what they print, and how they end.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use bartizan::cli::audit::{
    AuditArgs, AuditError, RecordFormat, TailArgs, VerifyArgs, check, run, tail,
};
use bartizan_audit::journal::Journal;
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::Colour;
use bartizan_gate::evidence::record::{DecisionFacts, Finding, ReasonFacts, Target};
use bartizan_gate::evidence::step::AuditSink as _;
use clap::Parser;

use crate::journal::{config, denial, intent, now, outcome};

#[derive(Debug, Parser)]
struct Tail {
    #[command(flatten)]
    args: TailArgs,
}

#[derive(Debug, Parser)]
struct Verify {
    #[command(flatten)]
    args: VerifyArgs,
}

#[derive(Debug, Parser)]
struct Audit {
    #[command(flatten)]
    args: AuditArgs,
}

fn tail_args(state: &Path, options: &[&str]) -> TailArgs {
    let state = ["tail", "--state", state.to_str().unwrap()];
    Tail::try_parse_from(state.iter().chain(options)).unwrap().args
}

fn later() -> SystemTime {
    now(0).wall + Duration::from_hours(1)
}

fn print(state: &Path, options: &[&str], form: RecordFormat) -> String {
    let mut out = Vec::new();
    tail(&tail_args(state, options), form, later(), || false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A state directory with a journal of several segments, and the journal still open.
fn state() -> (tempfile::TempDir, Journal) {
    let state = tempfile::tempdir().unwrap();
    let config = config(&journal_directory(state.path()), 2000);
    let (journal, _) = Journal::open(&config, "boot-1", now(0)).unwrap();
    for n in 0..4 {
        journal.keep(&intent(&format!("c{n}"))).unwrap();
        journal.keep(&outcome(&format!("c{n}"))).unwrap();
    }
    let mut refused = denial("c9").with_finding(Finding::EnvPinViolation);
    refused.server = Some("other".into());
    refused.principal = Some("agent-2".into());
    refused.target = Some(Target { tool: Some("x\u{1b}[2J".into()), ..Target::default() }.into());
    refused.decision = Some(DecisionFacts {
        effect: "deny",
        enforced: true,
        reasons: vec![ReasonFacts {
            code: "wrong-environment".into(),
            message: "production is outside staging".into(),
            origin: "policy",
        }]
        .into(),
        obligations: Vec::<&str>::new().into(),
        policy: "r1".into(),
        engine: "strict",
    });
    journal.keep(&refused).unwrap();
    (state, journal)
}

fn journal_bytes(state: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(journal_directory(state))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    files.sort();
    assert!(files.len() > 1, "the tests mean to cross segments");
    files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn raw_records_are_the_journals_own_bytes() {
    let (state, _journal) = state();
    assert_eq!(print(state.path(), &[], RecordFormat::Raw), journal_bytes(state.path()));
}

#[test]
fn each_option_chooses_records() {
    let (state, _journal) = state();
    let cases: [(&[&str], usize); 14] = [
        (&["--server", "other"], 1),
        (&["--server", "other", "--server", "flags"], 5),
        (&["--tool", "update_gate"], 4),
        (&["--method", "tools/call"], 5),
        (&["--event", "outcome"], 4),
        (&["--decision", "deny"], 1),
        (&["--layer", "L7"], 1),
        (&["--finding", "env_pin_violation"], 1),
        (&["--principal", "agent-2"], 1),
        (&["--call", "c2"], 2),
        (&["--call", "c2", "--event", "intent"], 1),
        (&["-n", "3"], 3),
        (&["-n", "2", "--event", "intent"], 2),
        (&["--since", "30m"], 0),
    ];
    for (options, expected) in cases {
        let printed = print(state.path(), options, RecordFormat::Raw);
        assert_eq!(printed.lines().count(), expected, "{options:?}");
    }
    let all = journal_bytes(state.path());
    let from_five: String = all.split_inclusive('\n').skip(4).collect();
    assert_eq!(print(state.path(), &["--from-seq", "5"], RecordFormat::Raw), from_five);
    assert_eq!(print(state.path(), &["--since", "2h"], RecordFormat::Raw), all);
    assert_eq!(print(state.path(), &["--since", "2027-01-15T08:00:00Z"], RecordFormat::Raw), all);
}

#[test]
fn bad_options_are_refused() {
    for options in [
        &["--state", "x", "--since", "yesterday"][..],
        &["--state", "x", "--layer", "L8"],
        &["--state", "x", "--decision", "maybe"],
        &["--state", "x", "--pretty", "--json"],
        &["--state", "x", "-n", "5", "--from-seq", "1"],
        &["--follow"],
    ] {
        let arguments = ["tail"].iter().chain(options);
        assert!(Tail::try_parse_from(arguments).is_err(), "{options:?}");
    }
}

#[test]
fn pretty_records_are_one_line_each_without_control_characters() {
    let (state, _journal) = state();
    let printed = print(state.path(), &[], RecordFormat::Pretty(Colour::None));
    assert_eq!(printed.lines().count(), journal_bytes(state.path()).lines().count());
    assert!(printed.chars().all(|c| c == '\n' || !c.is_control()), "{printed}");
    let denied = printed.lines().last().unwrap();
    for part in [
        " deny ",
        " other tools/call x\\u{1b}[2J by agent-2 ",
        "[wrong-environment: production is outside staging]",
        " finding env_pin_violation layer L7",
    ] {
        assert!(denied.contains(part), "{part}: {denied}");
    }
}

#[test]
fn following_goes_on_over_rotation() {
    let (state, journal) = state();
    let mut out = Vec::new();
    let mut turns = 0;
    let wait = || {
        turns += 1;
        for n in 0..5 {
            journal.keep(&denial(&format!("t{turns}-{n}"))).unwrap();
        }
        turns < 4
    };
    tail(
        &tail_args(state.path(), &["--follow", "-n", "1"]),
        RecordFormat::Raw,
        later(),
        wait,
        &mut out,
    )
    .unwrap();
    let printed = String::from_utf8(out).unwrap();
    let all = journal_bytes(state.path());
    // The last of what was there, then three turns; the fourth ends it.
    let seen: Vec<&str> = printed.lines().collect();
    let written: Vec<&str> = all.lines().collect();
    let before = written.iter().position(|line| line.contains("\"call\":\"c9\"")).unwrap();
    let after = written.iter().position(|line| line.contains("\"call\":\"t4-0\"")).unwrap();
    let expected: Vec<&str> = written[before..after].to_vec();
    let expected = &expected[..expected.len() - trailing_rotations(&expected)];
    assert_eq!(seen, expected);
}

fn trailing_rotations(lines: &[&str]) -> usize {
    lines.iter().rev().take_while(|line| line.contains("\"event\":\"rotation\"")).count()
}

struct Broken;

impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let (state, _journal) = state();
    let ended =
        tail(&tail_args(state.path(), &["-f"]), RecordFormat::Raw, later(), || true, &mut Broken);
    let Err(AuditError::Output(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_missing_segment_ends_it() {
    let (state, _journal) = state();
    let second = std::fs::read_dir(journal_directory(state.path()))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .max()
        .unwrap();
    let first_seq = second.file_stem().unwrap().to_str().unwrap()[8..].parse::<u64>().unwrap();
    std::fs::rename(&second, second.with_file_name("journal-00000000000000000099.ndjson")).unwrap();
    let args = tail_args(state.path(), &[]);
    let ended = tail(&args, RecordFormat::Raw, later(), || false, &mut io::sink());
    let message = ended.unwrap_err().to_string();
    assert_eq!(message, format!("record {first_seq} is missing; the next one is 99"));
}

#[test]
fn verify_says_what_the_journal_holds() {
    let (state, journal) = state();
    let verify = || {
        let args = ["verify", "--state", state.path().to_str().unwrap()];
        let mut out = Vec::new();
        check(&Verify::try_parse_from(args).unwrap().args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let said = verify();
    assert!(
        said.contains("4 intents, 4 outcomes, 1 denials, 1 starts, 0 recoveries, 0 gaps"),
        "{said}"
    );
    assert!(said.contains("goes on, or did not end in order; 0 calls"), "{said}");
    journal.close(now(9)).unwrap();
    assert!(verify().contains("the last run ended in order"));
}

#[test]
fn the_exit_code_tells_a_damaged_journal() {
    let (state, journal) = state();
    drop(journal);
    let verify = || {
        let args = ["audit", "verify", "--state", state.path().to_str().unwrap()];
        run(&Audit::try_parse_from(args).unwrap().args)
    };
    // `run` prints its summary; the test harness does not catch that.
    assert_eq!(verify(), ExitCode::SUCCESS);
    let file = std::fs::read_dir(journal_directory(state.path()))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .min()
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("agent-1", "agent-9", 1)).unwrap();
    assert_eq!(verify(), ExitCode::FAILURE);
    let args = ["verify", "--state", state.path().to_str().unwrap()];
    let args = Verify::try_parse_from(args).unwrap().args;
    let message = check(&args, &mut io::sink()).unwrap_err().to_string();
    assert!(message.starts_with("record 2 in `"), "{message}");
    assert!(message.contains("journal-00000000000000000001.ndjson"), "{message}");
}
