//! `bartizan approvals`, the real program, against an operators' listener: what it prints, what it
//! sends, and how it ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bartizan_approvals::HoldState;
use serde_json::Value;

use super::{ALICE, BOB, Desk, after, answer, hold};

/// The program with `args`, as an approver with `token`.
fn command(desk: &Desk, token: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    command
        .arg("approvals")
        .args(args)
        .args(["--admin", &format!("http://{}", desk.address)])
        .env("BARTIZAN_APPROVER_TOKEN", token)
        .env_remove("BARTIZAN_CONFIG")
        .stdin(Stdio::null());
    command
}

/// What it prints and its exit code; neither stream holds a token.
fn run(desk: &Desk, token: &str, args: &[&str]) -> (String, String, Option<i32>) {
    ended(command(desk, token, args).output().unwrap())
}

fn ended(output: Output) -> (String, String, Option<i32>) {
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!out.contains(ALICE) && !err.contains(ALICE), "a token is printed: {out}{err}");
    (out, err, output.status.code())
}

fn good(desk: &Desk, args: &[&str]) -> String {
    let (out, err, code) = run(desk, ALICE, args);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    out
}

fn bad(desk: &Desk, token: &str, args: &[&str], code: i32, expected: &str) {
    let (_, err, found) = run(desk, token, args);
    assert_eq!(found, Some(code), "{args:?}: {err}");
    assert!(err.contains(expected), "{args:?}: {err}");
    assert!(err.lines().any(|line| line.starts_with("hint: ")), "{args:?}: no next step: {err}");
}

#[tokio::test]
async fn a_held_call_is_listed_shown_granted_and_refused() {
    let desk = Desk::open();
    assert_eq!(good(&desk, &["list"]), "no call waits for an approval\n");
    let params = r#"{"name":"publish","arguments":{"key":"checkout","n":12345678901234567890}}"#;
    let mut one = desk.ask(&hold("publish", params, 1));
    let id = one.id().to_string();

    let listed = good(&desk, &["list"]);
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "STATE", "LEFT", "SERVER", "CALL", "WHO", "RULE", "ARGUMENTS"]);
    assert_eq!(rows[1].last(), Some(&r#"{"key":"checkout","n":12345678901234567890}"#));
    let json: Value = serde_json::from_str(&good(&desk, &["list", "--json"])).unwrap();
    assert_eq!(json["approvals"][0]["excerpt"], r#"{"key":"checkout","n":12345678901234567890}"#);
    assert_eq!((rows[1][0], rows[1][1]), (&id[..12], "pending"));
    assert!(listed.contains("flags   tools/call publish  agent  review"), "{listed}");

    let shown = good(&desk, &["show", &id[..6]]);
    for expected in [
        &format!("hold        {id}\nstate       pending, "),
        "who         agent (the client calls itself \"tester 1\")\n",
        "server      flags\nreaches     staging\ncall        tools/call publish\n",
        "selected    project 7\neffect      write, go-live\n",
        "rule        review: a second pair of eyes\napprovers   on-call\n",
        "scope       same-tool-15m: this tool for 15m, 5 calls\n",
        "params, 74 bytes:\n{\n  \"arguments\": {\n    \"key\": \"checkout\",\n    \"n\": 12345678901234567890\n",
        "No call of this tool by this principal was granted before.\n",
    ] {
        assert!(shown.contains(expected), "{expected}\nnot in:\n{shown}");
    }

    let granted = good(&desk, &["grant", &id, "--reason", "CH-1042"]);
    assert!(granted.starts_with(&format!("hold        {id}\n")), "it is shown first: {granted}");
    assert!(granted.ends_with(&format!("{id}: tools/call publish is granted\n")), "{granted}");
    assert_eq!(one.decided().await, HoldState::Granted);
    assert_eq!(desk.answers(), [answer("alice", "grant", None)]);

    // The next one is shown against it.
    let params = r#"{"name":"publish","arguments":{"key":"prod","n":12345678901234567890}}"#;
    let other = desk.ask(&hold("publish", params, 1));
    let other_id = other.id().to_string();
    let shown = good(&desk, &["show", &other_id]);
    let differs =
        "Against the last one that was granted:\n  ~ /arguments/key: \"checkout\" -> \"prod\"\n";
    assert!(shown.ends_with(differs), "{shown}");
    let refused = good(&desk, &["refuse", &other_id, "--reason", "not in production"]);
    assert_eq!(refused, format!("{other_id}: tools/call publish is refused\n"));
    assert_eq!(other.state(), HoldState::Refused);
    let ended = good(&desk, &["list", "--state", "ended"]);
    assert_eq!(ended.lines().count(), 2, "the granted one is still open: {ended}");
    let all = good(&desk, &["list", "--state", "all"]);
    assert_eq!(all.lines().count(), 3, "{all}");
    let shown = good(&desk, &["show", &other_id]);
    assert!(shown.contains("state       refused since 20"), "{shown}");
    assert!(shown.contains("refused by alice at 20") && shown.contains(": not in production\n"));
}

/// Names, arguments, client, message and reason are an attacker's: none reaches the terminal as it
/// is, and nothing scrolls what matters away (threat I5).
#[tokio::test]
async fn no_text_of_an_agent_controls_the_terminal_or_hides() {
    let desk = Desk::open();
    let evil =
        "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\u{200b}\u{e0041}\r\n<script>alert(1)</script>";
    let arguments = serde_json::json!({
        "name": evil,
        "arguments": {(evil): evil, "lines": "\n".repeat(10_000), "zz": "rm -rf /"},
    });
    let mut held = hold(evil, &arguments.to_string(), 1);
    held.client = Some(evil.into());
    held.principal = evil.into();
    held.message = evil.into();
    held.environments = vec![evil.into()];
    held.tags = vec![evil.into()];
    held.facts = [(evil.into(), evil.into())].into();
    let waiter = desk.ask(&held.keyed());
    let id = waiter.id().to_string();
    let printed = [
        good(&desk, &["list"]),
        good(&desk, &["show", &id]),
        good(&desk, &["list", "--json"]),
        good(&desk, &["show", &id, "--json"]),
        good(&desk, &["grant", &id, "--reason", evil]),
        good(&desk, &["show", &id]),
        good(&desk, &["show", &id, "--json"]),
    ];
    for text in &printed {
        let unseen =
            text.chars().find(|c| *c != '\n' && bartizan_gate::wire::unseen::is_unseen(*c));
        assert_eq!(unseen, None, "{text:?}");
    }
    let shown = &printed[1];
    assert!(shown.lines().count() < 45, "line ends in texts are no lines: {shown}");
    assert!(shown.contains("\"zz\": \"rm -rf /\"") && shown.contains("(10000 characters)"));
    assert_eq!(printed[0].lines().count(), 2, "{}", printed[0]);
    for json in [&printed[2], &printed[3], &printed[6]] {
        assert!(serde_json::from_str::<Value>(json).is_ok(), "{json}");
    }
    let whole: Value = serde_json::from_str(&printed[3]).unwrap();
    assert_eq!(whole["approval"]["shown"], arguments.to_string(), "JSON means what was sent");
    assert_eq!(desk.sink.lines().iter().filter(|line| line.contains('\u{202e}')).count(), 0);
}

#[tokio::test]
async fn each_failure_has_its_exit_code_and_a_next_step() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let other = desk.ask(&hold("publish", r#"{"n":2}"#, 1));
    let id = waiter.id().to_string();
    let nobody = "nobody-0123456789abcdefghijklmnopqr";
    bad(&desk, "", &["list"], 64, "no token of an approver is given");
    bad(&desk, "a b", &["list"], 1, "this is no approver's token");
    bad(&desk, nobody, &["list"], 1, "this is no approver's token");
    bad(&desk, BOB, &["grant", &id, "--reason", "r"], 1, "this approver may not answer it");
    bad(&desk, ALICE, &["show", "xyz"], 64, "is no id of a held call");
    bad(&desk, ALICE, &["show", "../.."], 64, "is no id of a held call");
    bad(&desk, ALICE, &["show", "abc"], 64, "is no id of a held call");
    bad(&desk, ALICE, &["show", &"0".repeat(32)], 1, "there is no such held call");
    bad(&desk, ALICE, &["show", "00000000"], 1, "no held call has an id that begins so");
    for answer in ["grant", "refuse"] {
        bad(&desk, ALICE, &[answer, &id, "--reason", ""], 64, "an answer needs a reason");
        bad(&desk, ALICE, &[answer, &id, "--reason", " "], 64, "an answer needs a reason");
    }
    bad(&desk, ALICE, &["grant", &id, "--reason", &"r".repeat(2000)], 1, "the reason is too long");
    bad(&desk, ALICE, &["grant", &id, "--reason", "r", "--scope", "all"], 1, "no such scope");
    bad(&desk, ALICE, &["grant", &id, "--reason", "r", "--digest", "0"], 1, "has another digest");
    assert_eq!((waiter.state(), other.state()), (HoldState::Pending, HoldState::Pending));
    good(&desk, &["refuse", &id, "--reason", "r"]);
    bad(&desk, ALICE, &["grant", &id, "--reason", "r"], 1, "it was refused already");
}

#[tokio::test]
async fn the_token_goes_nowhere_unprotected() {
    let desk = Desk::open();
    let to = |admin: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command.args(["approvals", "list", "--admin", admin]).args(more);
        command.env("BARTIZAN_APPROVER_TOKEN", ALICE).env_remove("BARTIZAN_CONFIG");
        ended(command.output().unwrap())
    };
    for (admin, code, expected) in [
        ("http://192.0.2.1:7071", 64, "the token would be sent unprotected"),
        ("http://127.0.0.1.example:7071", 64, "the token would be sent unprotected"),
        ("http://alice@127.0.0.1:7071", 64, "the URL contains credentials"),
        ("ftp://127.0.0.1", 64, "not an absolute http or https URL"),
        ("127.0.0.1:7071", 64, "not an absolute http or https URL"),
        ("http://127.0.0.1:1", 1, "it cannot be reached"),
    ] {
        let (_, err, found) = to(admin, &[]);
        assert_eq!(found, Some(code), "{admin}: {err}");
        assert!(err.contains(expected) && err.contains("hint: "), "{admin}: {err}");
    }
    // A file is read in place of the variable; so is the address in a configuration.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{ALICE}\n")).unwrap();
    let config = folder.path().join("bartizan.yaml");
    // None of the firewall's secrets is needed for its address.
    let text = format!(
        "admin: {}\nservers: {{s: {{url: 'https://s.example/mcp', headers: {{Authorization: 'Bearer ${{env:NOT_SET}}'}}}}}}\napprovals:\n  approvers: [{{id: a, token: '${{file:/nowhere/token}}'}}]\n",
        desk.address
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    command.args(["approvals", "list", "--token-file"]).arg(&token).arg("-c").arg(&config);
    command.env("BARTIZAN_APPROVER_TOKEN", "wrong");
    let (out, err, code) = ended(command.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "no call waits for an approval\n"), "{err}");
    std::fs::write(&config, "admin: 127.0.0.1:0\nservers: {s: {command: x}}\n").unwrap();
    let (_, err, code) = ended(command.output().unwrap());
    assert_eq!(code, Some(64));
    assert!(err.contains("`admin` has port 0"), "{err}");
    let missing = folder.path().join("missing");
    let (_, err, code) =
        to(&format!("http://{}", desk.address), &["--token-file", missing.to_str().unwrap()]);
    assert_eq!(code, Some(64));
    assert!(err.contains("the bearer token cannot be read"), "{err}");
}

/// A program that goes on until it is dropped.
struct Watching(
    Child,
    std::io::Lines<BufReader<std::process::ChildStdout>>,
    std::io::Lines<BufReader<std::process::ChildStderr>>,
);

impl Watching {
    fn start(desk: &Desk, more: &[&str]) -> Self {
        let args: Vec<&str> = ["watch"].iter().chain(more).copied().collect();
        let mut command = command(desk, ALICE, &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self(child, lines, errors)
    }

    fn error(&mut self) -> String {
        self.2.next().unwrap().unwrap()
    }

    fn line(&mut self) -> String {
        self.1.next().unwrap().unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn held_calls_are_told_as_they_come_and_go() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let mut watching = Watching::start(&desk, &[]);
    let line = watching.line();
    assert!(line.starts_with(&format!(
        "held     {id} tools/call publish by agent on flags under review, "
    )));
    let next = desk.ask(&hold("delete", "{}", 1));
    let next_id = next.id().to_string();
    assert!(watching.line().starts_with(&format!("held     {next_id} tools/call delete by agent")));
    good(&desk, &["grant", &id, "--reason", "checked"]);
    let line = watching.line();
    assert!(
        line.starts_with(&format!("granted  {id} tools/call publish: granted by alice at ")),
        "{line}"
    );
    drop(watching);

    let mut watching = Watching::start(&desk, &["--json"]);
    let event: Value = serde_json::from_str(&watching.line()).unwrap();
    assert_eq!(
        (&event["event"], event["approval"]["id"].as_str()),
        (&"held".into(), Some(&*next_id))
    );
    good(&desk, &["refuse", &next_id, "--reason", "no"]);
    let event: Value = serde_json::from_str(&watching.line()).unwrap();
    assert_eq!(
        (&event["event"], &event["approval"]["state"]),
        (&"changed".into(), &"refused".into())
    );
}

/// Each state of a hold is told, also of one that came and went, and after the firewall was away.
#[tokio::test]
async fn every_end_is_told_and_a_firewall_that_was_away_is_found_again() {
    let mut desk = Desk::open();
    let first = desk.ask(&hold("first", "{}", 1));
    let mut watching = Watching::start(&desk, &[]);
    assert!(watching.line().starts_with("held     "));
    let id = first.id().to_string();
    good(&desk, &["grant", &id, "--reason", "checked"]);
    assert!(watching.line().starts_with(&format!("granted  {id} ")));
    first.spend(desk.shared.now()).unwrap();
    assert!(watching.line().starts_with(&format!("spent    {id} ")));

    // Over before anybody can look: one line at least, with how it ended.
    let gone = desk.ask(&hold("gone", "{}", 1));
    let id = gone.id().to_string();
    gone.cancel(desk.shared.now());
    let mut line = watching.line();
    if line.starts_with("held     ") {
        line = watching.line();
    }
    assert!(line.starts_with(&format!("cancelled {id} ")), "{line}");

    // The listener goes, and comes back at its address.
    let late = desk.ask(&hold("late", "{}", 1));
    assert!(watching.line().starts_with(&format!("held     {} ", late.id())));
    desk.close().await;
    let lost = watching.error();
    assert!(lost.contains("trying again until it is back"), "{lost}");
    let id = late.id().to_string();
    late.cancel(desk.shared.now());
    let desk = desk.again();
    assert_eq!(watching.error(), "the firewall is back");
    let line = watching.line();
    assert!(line.starts_with(&format!("cancelled {id} ")), "{line}");
    let other = desk.ask(&hold("other", "{}", 1));
    let id = other.id().to_string();
    assert!(watching.line().starts_with(&format!("held     {id} ")));
    good(&desk, &["refuse", &id, "--reason", "no"]);
    assert!(watching.line().starts_with(&format!("refused  {id} ")));

    // At last, because the clock of the holds is ahead of the program's from then on.
    let over = desk.ask(&hold("over", "{}", 1));
    let id = over.id().to_string();
    assert!(watching.line().starts_with(&format!("held     {id} ")));
    desk.approvals.tick(after(desk.shared.now(), Duration::from_mins(11)));
    assert!(watching.line().starts_with(&format!("expired  {id} ")));
}
