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
    AuditArgs, AuditError, QueryArgs, RecordFormat, SessionArgs, TailArgs, VerifyArgs, check,
    query, run, session, tail,
};
use bartizan_audit::journal::Journal;
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::Colour;
use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, ClientFacts, DecisionFacts, Event, Finding, OperationFacts,
    ReasonFacts, Target,
};
use bartizan_gate::evidence::step::AuditSink as _;
use clap::Parser;

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
    let all = journal_bytes(state.path());
    assert_eq!(print(state.path(), &["--from-seq", "1"], RecordFormat::Raw), all);
    assert_eq!(queried(state.path(), &[], RecordFormat::Raw), all);
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    assert!(lines.len() > 10, "the last ten are not all");
    assert_eq!(print(state.path(), &[], RecordFormat::Raw), lines[lines.len() - 10..].concat());
    let limited = queried(state.path(), &["--limit", "3"], RecordFormat::Raw);
    assert_eq!(limited, lines[..3].concat());
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
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
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
