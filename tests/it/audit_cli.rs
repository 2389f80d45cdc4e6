//! `audit tail`, `query`, `session` and `verify`: what they print, and how they end.

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
    AuditArgs, AuditError, ExportArgs, QueryArgs, RecordFormat, ReportArgs, SessionArgs, TailArgs,
    VerifyArgs, check, export, query, report, run, session, tail,
};
use bartizan_audit::journal::Journal;
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::Colour;
use bartizan_audit::segment;
use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, ClientFacts, DecisionFacts, Event, Finding, OperationFacts,
    ReasonFacts, Target,
};
use bartizan_gate::evidence::step::AuditSink as _;
use clap::Parser;
use serde_json::Value;

use crate::journal::{config, denial, intent, now, outcome};

#[derive(Debug, Parser)]
struct Tail {
    #[command(flatten)]
    args: TailArgs,
}

#[derive(Debug, Parser)]
struct Query {
    #[command(flatten)]
    args: QueryArgs,
}

#[derive(Debug, Parser)]
struct Export {
    #[command(flatten)]
    args: ExportArgs,
}

#[derive(Debug, Parser)]
struct Report {
    #[command(flatten)]
    args: ReportArgs,
}

#[derive(Debug, Parser)]
struct Session {
    #[command(flatten)]
    args: SessionArgs,
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

/// What `audit query` prints.
fn queried(state: &Path, options: &[&str], form: RecordFormat) -> String {
    let arguments = ["query", "--state", state.to_str().unwrap()];
    let args = Query::try_parse_from(arguments.iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    query(&args, form, later(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What `audit export` writes.
fn exported(state: &Path, options: &[&str]) -> String {
    let arguments = ["export", "--state", state.to_str().unwrap()];
    let args = Export::try_parse_from(arguments.iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    export(&args, later(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What `audit report` writes.
fn reported(state: &Path, options: &[&str]) -> String {
    let arguments = ["report", "--state", state.to_str().unwrap()];
    let args = Report::try_parse_from(arguments.iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    report(&args, later(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
        told: None,
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
    let all = journal_bytes(state.path());
    assert_eq!(print(state.path(), &["--from-seq", "1"], RecordFormat::Raw), all);
    assert_eq!(queried(state.path(), &[], RecordFormat::Raw), all);
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    assert!(lines.len() > 10, "the last ten are not all");
    assert_eq!(print(state.path(), &[], RecordFormat::Raw), lines[lines.len() - 10..].concat());
    let limited = queried(state.path(), &["--limit", "3"], RecordFormat::Raw);
    assert_eq!(limited, lines[..3].concat());
    compress_closed(state.path());
    assert_eq!(print(state.path(), &["--from-seq", "1"], RecordFormat::Raw), all);
    assert_eq!(print(state.path(), &[], RecordFormat::Raw), lines[lines.len() - 10..].concat());
    assert_eq!(queried(state.path(), &[], RecordFormat::Raw), all);
}

/// Compresses all segments but the one that is written.
fn compress_closed(state: &Path) {
    let mut segments = segment::list(&journal_directory(state)).unwrap();
    segments.pop();
    assert!(!segments.is_empty());
    for closed in segments {
        segment::compress(&closed.path).unwrap();
    }
}

#[test]
fn each_option_chooses_records() {
    let (state, _journal) = state();
    let cases: [(&[&str], usize); 18] = [
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
        (&["--rule", "wrong-environment"], 1),
        (&["--outcome", "ok"], 4),
        (&["--until", "2027-01-15"], 0),
        (&["--environment", "production"], 0),
    ];
    for (options, expected) in cases {
        let printed = print(state.path(), options, RecordFormat::Raw);
        assert_eq!(printed.lines().count(), expected, "{options:?}");
        if !options.contains(&"-n") {
            assert_eq!(queried(state.path(), options, RecordFormat::Raw), printed, "{options:?}");
        }
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
        &["--state", "x", "--since", "tomorrow"][..],
        &["--state", "x", "--layer", "L8"],
        &["--state", "x", "--decision", "maybe"],
        &["--state", "x", "--pretty", "--json"],
        &["--state", "x", "-n", "5", "--from-seq", "1"],
        &["--records", "--json"],
    ] {
        let arguments = ["tail"].iter().chain(options);
        assert!(Tail::try_parse_from(arguments).is_err(), "{options:?}");
    }
    // What a field can have is said where it cannot have what is wanted.
    for (option, value, known) in [
        ("--finding", "env_pin", "env_pin_violation"),
        ("--effect", "writes", "destructive"),
        ("--event", "deny", "denial"),
        ("--outcome", "fine", "tool_error"),
        ("--layer", "7", "L7"),
    ] {
        let wrong = Tail::try_parse_from(["tail", option, value]).unwrap_err().to_string();
        assert!(wrong.contains(known), "{option}: {wrong}");
    }
}

#[test]
fn pretty_records_are_one_line_each_without_control_characters() {
    let (state, _journal) = state();
    let printed = print(state.path(), &["--from-seq", "1"], RecordFormat::Pretty(Colour::None));
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
    let args = tail_args(state.path(), &["--from-seq", "1"]);
    let ended = tail(&args, RecordFormat::Raw, later(), || false, &mut io::sink());
    let missing = format!("record {first_seq} is missing; the next one is 99");
    assert_eq!(ended.unwrap_err().to_string(), missing);
    let args = ["query", "--state", state.path().to_str().unwrap(), "--count"];
    let args = Query::try_parse_from(args).unwrap().args;
    let ended = query(&args, RecordFormat::Raw, later(), &mut io::sink());
    assert_eq!(ended.unwrap_err().to_string(), missing);
}

#[test]
fn a_journal_without_its_first_records_says_where_it_begins() {
    let (state, _journal) = state();
    let directory = journal_directory(state.path());
    let segments = segment::list(&directory).unwrap();
    let (first, second) = (&segments[0], &segments[1]);
    let text = std::fs::read_to_string(&second.path).unwrap();
    let record: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let begins = format!(
        "the journal begins with record {} at {}",
        second.first_seq,
        record["time"].as_str().unwrap()
    );
    let head = || {
        let args = ["report", "--state", state.path().to_str().unwrap(), "--since", "9999d"];
        let mut out = Vec::new();
        report(&Report::try_parse_from(args).unwrap().args, later(), &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().next().unwrap().to_owned()
    };
    assert!(!head().contains("begins"), "{}", head());
    std::fs::remove_file(&first.path).unwrap();
    assert!(head().ends_with(&begins), "{}", head());
    let binary = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("audit").args(args).arg("--state").arg(state.path());
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert_eq!(binary(&["query", "--count", "--since", "9999d"]), format!("note: {begins}\n"));
    assert_eq!(binary(&["query", "--count", "--since", "2100-01-01"]), "");
    let refused = binary(&["verify"]);
    assert!(refused.contains("record 1 ") && refused.contains("`--remainder`"), "{refused}");
    assert_eq!(binary(&["verify", "--remainder"]), "");
}

/// A record of conversation `s1`, about a write to staging.
fn told(event: Event, call: &str) -> AuditRecord {
    let mut record = AuditRecord { event, ..intent(call) };
    record.session = Some("s1".into());
    record.client =
        Some(ClientFacts { name: "cursor\u{1b}[2J".into(), version: "1.2".into() }.into());
    record.peer = Some("10.0.0.7".into());
    record.operation = Some(
        OperationFacts {
            name: None,
            effect: "write",
            environments: vec!["staging"].into(),
            environment_source: "arguments",
            tags: Vec::<&str>::new().into(),
            pack: None,
        }
        .into(),
    );
    record
}

/// A conversation in a journal with others: one call that was held, granted and sent, one that has
/// not ended.
fn conversation() -> tempfile::TempDir {
    let (state, journal) = state();
    let reason = |code: &str, message: &str| ReasonFacts {
        code: code.into(),
        message: message.into(),
        origin: "rule",
    };
    let decision = DecisionFacts {
        effect: "permit",
        enforced: true,
        reasons: vec![reason("pinned-writes", "writes in staging are open")].into(),
        obligations: vec!["hold:second-pair"].into(),
        policy: "r1".into(),
        engine: "strict",
        told: None,
    };
    let mut hold = told(Event::Hold, "held-call-1").with_finding(Finding::ApprovalRequested);
    hold.decision = Some(decision.clone());
    let mut approval = told(Event::Approval, "held-call-1");
    // An approver answers; this is no part of the conversation.
    approval.session = None;
    approval.approval = Some(
        ApprovalFacts {
            hold: "h1".into(),
            answer: "grant",
            by: Some("alice".into()),
            reason: Some("looked\u{202e} at it".into()),
            scope: None,
        }
        .into(),
    );
    let mut sent = told(Event::Intent, "held-call-1");
    sent.decision = Some(decision);
    let mut ended = AuditRecord { duration_us: Some(5_400), ..outcome("held-call-1") };
    ended.session = Some("s1".into());
    for record in [hold, approval, sent, ended, told(Event::Intent, "open-call-2")] {
        journal.keep(&record).unwrap();
    }
    state
}

#[test]
fn a_call_is_one_line_with_all_that_became_of_it() {
    let state = conversation();
    let form = RecordFormat::Calls(Colour::None);
    let printed = print(state.path(), &["--session", "s1"], form);
    let lines: Vec<&str> = printed.lines().collect();
    let end = "write       staging    agent-1 flags:update_gate";
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines[0].contains(" permit   ok          5.4 ms "), "{printed}");
    assert!(lines[1].contains(" permit   open "), "{printed}");
    assert!(lines[0].ends_with(&format!("{end} held-cal")), "{printed}");
    assert_eq!(queried(state.path(), &["--session", "s1"], form), printed);
    // A filter that only one record of a call passes shows the whole call.
    let granted = print(state.path(), &["--event", "approval"], form);
    assert_eq!(granted.lines().next(), Some(lines[0]));
    let limited = queried(state.path(), &["--limit", "2"], form);
    assert_eq!(limited.lines().count(), 3, "{limited}");
    assert!(limited.ends_with("… there are more than 2; `--limit` shows more of them\n"));
}

#[test]
fn following_joins_what_was_open_with_what_comes() {
    let (state, journal) = state();
    journal.keep(&intent("open-call")).unwrap();
    let args = tail_args(state.path(), &["--follow", "-n", "1", "--principal", "agent-1"]);
    let mut turns = [Event::Outcome, Event::Denial, Event::Hold].into_iter();
    let wait = || match turns.next() {
        Some(Event::Outcome) => journal.keep(&outcome("open-call")).is_ok(),
        Some(event) => journal.keep(&told(event, &format!("{event:?}-1"))).is_ok(),
        None => false,
    };
    let mut out = Vec::new();
    tail(&args, RecordFormat::Calls(Colour::None), later(), wait, &mut out).unwrap();
    let printed = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{printed}");
    for (line, part) in lines.iter().zip(["open", " ok ", "deny", "held"]) {
        assert!(line.contains(part), "{part}: {printed}");
    }
}

/// A call that waits is `held` in every form, and no other call is.
#[test]
fn a_pending_call_is_held_in_every_form() {
    let (state, journal) = state();
    let mut hold = told(Event::Hold, "held-call-9").with_finding(Finding::ApprovalRequested);
    hold.decision = Some(DecisionFacts {
        effect: "permit",
        enforced: true,
        reasons: vec![ReasonFacts {
            code: "second-pair".into(),
            message: "ask".into(),
            origin: "rule",
        }]
        .into(),
        obligations: vec!["hold:second-pair"].into(),
        policy: "r1".into(),
        engine: "strict",
        told: None,
    });
    journal.keep(&hold).unwrap();
    let wanted = ["--decision", "held"];
    let line = print(state.path(), &wanted, RecordFormat::Calls(Colour::None));
    assert!(line.lines().count() == 1 && line.contains(" held "), "{line}");
    assert_eq!(queried(state.path(), &wanted, RecordFormat::Calls(Colour::None)), line);
    let permitted = ["--decision", "permit", "--call", "held-call-9"];
    assert_eq!(queried(state.path(), &permitted, RecordFormat::Raw), "");
    let table = exported(state.path(), &["--format", "csv", "--decision", "held"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 2, "{table}");
    for (column, value) in [
        ("verdict", "held"),
        ("decision", "held"),
        ("codes", "second-pair"),
        ("approval", "pending"),
        ("outcome", ""),
        ("effect", "write"),
    ] {
        let at = rows[0].iter().position(|name| *name == column).unwrap();
        assert_eq!(rows[1][at], value, "{column}: {table}");
    }
}

#[test]
fn calls_are_counted_by_a_field() {
    let state = conversation();
    let text = RecordFormat::Calls(Colour::None);
    let by =
        |field, form| queried(state.path(), &["--method", "tools/call", "--group-by", field], form);
    assert_eq!(by("principal", text), "         6  agent-1\n         1  agent-2\n");
    assert_eq!(
        by("environment", RecordFormat::Raw).lines().last(),
        Some("{\"environment\":\"staging\",\"calls\":2}")
    );
    let count = |form| queried(state.path(), &["--decision", "deny", "--count"], form);
    assert_eq!((&*count(text), &*count(RecordFormat::Raw)), ("1\n", "{\"calls\":1}\n"));
}

/// What `audit session` prints.
fn story(state: &Path, options: &[&str], form: RecordFormat) -> Result<String, AuditError> {
    let arguments = ["session", "--state", state.to_str().unwrap()];
    let args = Session::try_parse_from(arguments.iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    session(&args, form, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_conversation_is_told_as_a_story() {
    let state = conversation();
    let text = RecordFormat::Calls(Colour::None);
    let told = story(state.path(), &["s1"], text).unwrap();
    for part in [
        "conversation s1\n",
        "  principal  agent-1\n",
        "  client     cursor\\u{1b}[2J 1.2\n",
        "  peer       10.0.0.7\n",
        "  server     flags\n",
        "  calls      2: 2 permitted, 0 denied, 1 held\n",
        " update_gate (write, staging): permit by pinned-writes (writes in staging are open); held \
         for second-pair; granted by alice (looked\\u{202e} at it); ok after 5.4 ms; finding \
         approval_requested [call held-call-1]\n",
        " update_gate (write, staging): permit; has not ended [call open-call-2]\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told}");
    assert_eq!(story(state.path(), &["--call", "held-call"], text).unwrap(), told);
    let json = story(state.path(), &["s1"], RecordFormat::Raw).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["calls"][0]["approvals"][0]["by"], "alice", "{json}");
    assert_eq!(json["calls"][0]["outcome"], "ok", "{json}");
    assert_eq!(json["permitted"], 2, "{json}");
    // A call without a conversation is told alone.
    let alone = story(state.path(), &["--call", "c9"], text).unwrap();
    assert!(alone.starts_with("conversation unknown\n"), "{alone}");
    assert!(alone.contains(": deny by wrong-environment (production is outside"), "{alone}");
    let none = story(state.path(), &["s2\u{1b}"], text).unwrap_err().to_string();
    assert_eq!(none, "no record in the journal has the id `s2\\u{1b}`");
}

#[test]
fn the_state_is_found_from_the_configuration_without_its_secrets() {
    let (state, _journal) = state();
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = folder.path().join("bartizan.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let count = |config: &str| {
        let args = ["query", "-c", config, "--count"];
        let args = Query::try_parse_from(args).unwrap().args;
        let mut out = Vec::new();
        query(&args, RecordFormat::Calls(Colour::None), later(), &mut out)?;
        Ok::<_, AuditError>(String::from_utf8(out).unwrap())
    };
    let expected = queried(state.path(), &["--count"], RecordFormat::Calls(Colour::None));
    let named = format!(
        "state: {}\nservers: {{a: {{url: 'https://h/', headers: {{k: '${{env:NOT_SET_HERE}}'}}}}}}\n",
        state.path().display()
    );
    assert_eq!(count(&write(&named)).unwrap(), expected);
    // Relative to the file.
    std::fs::rename(state.path(), folder.path().join("kept")).unwrap();
    assert_eq!(count(&write("state: kept\n")).unwrap(), expected);
    let wrong = count(&write("state: [kept]\n")).unwrap_err();
    assert!(matches!(wrong, AuditError::Configuration(_)), "{wrong}");
    assert!(matches!(count("/nowhere/b.yaml").unwrap_err(), AuditError::Configuration(_)));
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

#[test]
fn a_call_is_one_event_of_ocsf_and_its_finding_another() {
    let (state, _journal) = state();
    let events = json_lines(&exported(state.path(), &["--format", "ocsf", "--server", "other"]));
    let classes: Vec<_> = events.iter().map(|it| it["class_uid"].as_u64().unwrap()).collect();
    assert_eq!(classes, [6003, 2004]);
    let (call, finding) = (&events[0], &events[1]);
    assert_eq!(call["metadata"]["version"], "1.8.0");
    assert_eq!(call["disposition"], "Blocked");
    assert_eq!(call["firewall_rule"]["uid"], "wrong-environment");
    assert_eq!(call["actor"]["user"]["uid"], "agent-2");
    assert_eq!(call["resources"][0]["name"], "x\u{1b}[2J");
    assert_eq!(call["unmapped"]["bartizan"]["maestro"]["layer"], "L7");
    assert_eq!(finding["finding_info"]["types"][0], "env_pin_violation");
    assert_eq!((&finding["severity"], &finding["is_alert"]), (&"High".into(), &true.into()));
    // A call whose outcome is wanted is written with its intent.
    let all = json_lines(&exported(state.path(), &["--format", "ocsf", "--outcome", "ok"]));
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|it| it["status"] == "Success"));
}

#[test]
fn an_export_is_the_same_from_compressed_segments_and_in_every_form() {
    let (state, _journal) = state();
    let forms = ["ocsf", "otlp-json", "opa", "csv"];
    let plain = forms.map(|form| exported(state.path(), &["--format", form]));
    compress_closed(state.path());
    assert_eq!(forms.map(|form| exported(state.path(), &["--format", form])), plain);
    let [ocsf, otlp, opa, csv] = plain;
    // Four calls, and one that was denied, with its finding.
    assert_eq!(json_lines(&ocsf).iter().filter(|it| it["class_uid"] == 6003).count(), 5);
    let spans: Vec<Value> = json_lines(&otlp)
        .iter()
        .flat_map(|it| it["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone())
        .collect();
    let kinds = |kind: u64| spans.iter().filter(|it| it["kind"] == kind).count();
    assert_eq!((kinds(2), kinds(3)), (5, 4), "a denied call has no CLIENT span");
    for span in &spans {
        assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
        assert!(span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    }
    let decisions = json_lines(&opa);
    assert_eq!(decisions.len(), 1, "the others have no decision here");
    assert_eq!(decisions[0]["result"]["effect"], "deny");
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 6);
    assert!(rows[0].starts_with("time,call,seq,session,principal,"), "{}", rows[0]);
    assert!(rows[5].contains(",x\\u{1b}[2J,"), "{}", rows[5]);
    let denied: Vec<_> = rows[0].split(',').zip(rows[5].split(',')).collect();
    for cell in [
        ("call", "c9"),
        ("principal", "agent-2"),
        ("server", "other"),
        ("verdict", "deny"),
        ("decision", "deny"),
        ("enforced", "true"),
        ("codes", "wrong-environment"),
        ("policy", "r1"),
        ("findings", "env_pin_violation"),
        ("layers", "L7"),
    ] {
        assert!(denied.contains(&cell), "{cell:?}: {}", rows[5]);
    }
}

/// A call that is not yet answered is there, and a damaged line is counted and passed over.
#[test]
fn an_export_has_open_calls_and_tells_of_damage() {
    let (state, journal) = state();
    journal.keep(&intent("open-1")).unwrap();
    let events = json_lines(&exported(state.path(), &["--format", "ocsf", "--call", "open-1"]));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["status"], "Unknown");
    let segments = segment::list(&journal_directory(state.path())).unwrap();
    let text = std::fs::read_to_string(&segments[0].path).unwrap();
    std::fs::write(&segments[0].path, text.replacen("\"event\"", "event", 1)).unwrap();
    let file = state.path().join("calls.csv");
    std::fs::write(&file, "").unwrap();
    let all: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, all).unwrap();
    let arguments = ["export", "--state", state.path().to_str().unwrap(), "--format", "csv", "-o"];
    let args = Export::try_parse_from(arguments.iter().copied().chain(file.to_str()));
    let ended = export(&args.unwrap().args, later(), &mut io::empty());
    assert!(matches!(ended, Err(AuditError::Damaged { lines: 1 })), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("\r\n").count(), 7);
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_report_counts_calls_and_says_who_approved_what() {
    let (state, journal) = state();
    let answer = |event, answer, by: &str| {
        let mut record = told(event, "held-call-2");
        record.principal = Some("agent-1".into());
        record.target =
            Some(Target { tool: Some("set_rollout".into()), ..Target::default() }.into());
        record.approval = Some(
            ApprovalFacts {
                hold: "h-1".into(),
                answer,
                by: Some(by.into()),
                reason: Some("looked at it".into()),
                scope: None,
            }
            .into(),
        );
        record
    };
    journal.keep(&told(Event::Hold, "held-call-2")).unwrap();
    let mut late = answer(Event::Approval, "grant", "mallory");
    late.error_type = Some("own-call".into());
    journal.keep(&late).unwrap();
    journal.keep(&answer(Event::HoldState, "refused", "alice")).unwrap();
    let mut repeated = denial("c9").with_finding(Finding::RateLimited);
    repeated.event = Event::Repeated;
    repeated.repeated = Some(40);
    journal.keep(&repeated).unwrap();
    let text = squeezed(&reported(state.path(), &[]));
    for line in [
        "46 calls",
        "41 denied",
        "wrong-environment x\\u{1b}[2J agent-2 1",
        "1 asked; 0 granted, 1 refused, 0 expired, 0 cancelled. 1 answers did not count.",
        "L4 Deployment and Infrastructure 40 ########################################",
        "alice refused agent-1 set_rollout looked at it 1",
        "mallory grant, does not count: own-call agent-1 set_rollout looked at it 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(text.contains("\nL7 Agent Ecosystem env_pin_violation direct "), "{text}");
    // Only what the filters admit.
    let other = reported(state.path(), &["--server", "other"]);
    assert!(squeezed(&other).contains("\n1 calls\n1 denied\n"), "{other}");
    let none = reported(state.path(), &["--since", "2030-01-01"]);
    assert!(squeezed(&none).contains("\n0 calls\n"), "{none}");
    assert!(none.contains("no records from 2030-01-01"), "{none}");
    // A name that nothing has is no server on which nothing happened.
    let arguments = ["report", "--state", state.path().to_str().unwrap(), "--server", "nosuch"];
    let args = Report::try_parse_from(arguments).unwrap().args;
    let wrong = report(&args, later(), &mut Vec::new()).unwrap_err().to_string();
    assert!(wrong.contains("the server `nosuch`; some have: flags, other"), "{wrong}");
}

/// `text` with one space between the words of each line.
fn squeezed(text: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Whatever names are in the records, they stay text, and they cannot fill memory or a page.
#[test]
fn a_report_escapes_and_bounds_what_others_chose() {
    let (state, journal) = state();
    let hostile = "<img src=x onerror=alert(1)>|`[a](b)\u{202e}\u{1b}";
    let mut refused = denial("c10");
    refused.principal = Some(hostile.into());
    refused.target = Some(Target { tool: Some(hostile.into()), ..Target::default() }.into());
    for _ in 0..100 {
        journal.keep(&refused).unwrap();
    }
    for number in 0..5000 {
        refused.principal = Some(format!("agent {number} {}", "x".repeat(400)).into());
        journal.keep(&refused).unwrap();
    }
    let html = reported(state.path(), &["--format", "html"]);
    assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;|`[a](b)\\u{202e}\\u{1b}</td>"));
    assert!(!html.contains("<img") && !html.contains("<script") && !html.contains("\u{202e}"));
    assert!(html.contains("content=\"default-src 'none'; style-src 'sha256-"));
    assert!(!html.contains(" style=") && !html.contains("http:") && !html.contains("https:"));
    let markdown = reported(state.path(), &["--format", "markdown"]);
    assert!(markdown.contains("| \\<img src\\=x onerror\\=alert\\(1\\)\\>\\|\\`\\[a\\]\\(b\\)"));
    let text = reported(state.path(), &[]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    for report in [&html, &markdown, &text] {
        assert!(report.contains(" more of 5101 are not shown; there are so many names that"));
        assert!(report.len() < 200_000, "{}", report.len());
    }
}
