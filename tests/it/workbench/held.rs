//! Rules that hold calls where nobody can answer: the start and `check` say so.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::Bench;
use crate::failures::Program;

const TOKEN: &str = "0123456789abcdef-of-alice-0123456789";
const PERMIT: &str =
    "permit contains {\"code\": \"p\", \"message\": \"m\"} if input.tool.name == \"t\"\n";
const HOLD: &str =
    "hold contains {\"code\": \"h\", \"message\": \"m\"} if input.tool.name == \"t\"\n";

/// Each policy by name: its text, the line of the first rule that holds, and further configuration.
const POLICIES: [(&str, &str, Option<u64>, &str); 5] = [
    ("a member of the set", "PERMITHOLDHOLD", Some(4), ""),
    (
        "a set of its own",
        "hold := {{\"code\": \"h\", \"message\": \"m\"}} if input.tool.name == \"t\"\nPERMIT",
        Some(3),
        "",
    ),
    (
        "a decision of its own",
        "default decision := {\"effect\": \"deny\"}\n\ndecision := {\"effect\": \"permit\", \"hold\": [{\"code\": \"h\", \"message\": \"m\"}]} if input.tool.name == \"t\"\n",
        Some(5),
        "  entrypoint: data.own.decision\n",
    ),
    ("nothing that holds", "PERMIT", None, ""),
    ("observed", "PERMITHOLD", None, "mode: observe\n"),
];

fn configuration(bench: &Bench, further: &str, approvers: bool) -> String {
    let folder = bench.folder.path().display();
    let approvals = if approvers {
        format!("approvals:\n  approvers: [{{id: alice, token: {TOKEN}}}]\n")
    } else {
        String::new()
    };
    format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {folder}/state\nservers:\n  flags: {{path: /mcp, url: 'http://127.0.0.1:9/mcp'}}\n{approvals}policy:\n  paths: ['{folder}/policy']\n{further}"
    )
}

fn policy(bench: &Bench, text: &str) {
    let package = if text.contains("decision") { "own" } else { "mcp" };
    let text = text.replace("PERMIT", PERMIT).replace("HOLD", HOLD);
    bench.write("policy/p.rego", &format!("package {package}\n\n{text}"));
}

#[test]
fn check_tells_of_rules_that_hold_calls_where_nobody_can_answer() {
    for (name, text, line, further) in POLICIES {
        for approvers in [false, true] {
            let bench = Bench::new();
            policy(&bench, text);
            bench.write("bartizan.yaml", &configuration(&bench, further, approvers));
            let (code, out, err) = bench.run(&["check", "-c", "bartizan.yaml"]);
            assert_eq!(code, 0, "{name}: {out}{err}");
            let told: Vec<_> = out.lines().filter(|it| it.contains("nobody can answer")).collect();
            match line.filter(|_| !approvers) {
                Some(line) => {
                    assert_eq!(told.len(), 1, "{name}: {out}");
                    assert!(told[0].contains(&format!("p.rego:{line}: ")), "{name}: {out}");
                    assert!(told[0].contains("`approvals.approvers`"), "{name}: {out}");
                }
                None => assert!(told.is_empty(), "{name}, {approvers}: {out}"),
            }
        }
    }
}

#[test]
fn the_log_says_it_once_at_the_start() {
    for approvers in [false, true] {
        let bench = Bench::new();
        policy(&bench, "PERMITHOLDHOLD");
        let program = Program::run(bench.folder.path(), "", &configuration(&bench, "", approvers));
        program.addresses();
        let said = program.said();
        let told: Vec<Value> = said
            .lines()
            .filter(|line| line.contains("unanswered-hold"))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(told.len(), usize::from(!approvers), "{said}");
        for line in told {
            let fields = &line["fields"];
            assert_eq!((&line["level"], &fields["line"]), (&"WARN".into(), &4.into()), "{line}");
            assert!(fields["file"].as_str().unwrap().ends_with("p.rego"), "{line}");
            assert!(fields["hint"].as_str().unwrap().contains("`approvals.approvers`"), "{line}");
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// A policy with `held`, the members of a `hold` element beside code and message, checked with
/// `approvals`: the lines that say that nobody can grant.
fn ungrantable(held: &str, approvals: &str) -> Vec<String> {
    let bench = Bench::new();
    let rule = HOLD.replace("\"m\"}", &format!("\"m\"{held}}}"));
    bench.write("policy/p.rego", &format!("package mcp\n\n{PERMIT}{rule}"));
    let text = configuration(&bench, "", false) + approvals;
    bench.write("bartizan.yaml", &text);
    let (code, out, err) = bench.run(&["check", "-c", "bartizan.yaml"]);
    assert_eq!(code, 0, "{held}: {out}{err}");
    let told = out.lines().filter(|it| it.contains("nobody can grant"));
    told.map(str::to_owned).collect()
}

#[test]
fn check_tells_of_holds_that_no_configured_approver_can_grant() {
    let alice = format!("{{id: alice, groups: on-call, token: {TOKEN}}}");
    let bob = format!("{{id: bob, groups: [leads, on-call], token: {TOKEN}-bob}}");
    let agent = format!("{{id: Agent, groups: on-call, token: {TOKEN}-agent}}");
    let two = format!("approvals:\n  approvers: [{alice}, {bob}]\n");
    let own = format!("approvals:\n  approvers: [{agent}]\n");
    let chat = format!(
        "approvals:\n  public_url: https://a.example\n  approvers: [{alice}]\n  webhooks: [{{name: chat, template: slack, url: 'https://c.example/x', groups: chat, callback: {{approver: chat}}}}]\n"
    );
    let people = format!(
        "{chat}  oidc: {{issuer: 'https://i.example', client_id: c, groups: {{people: x}}}}\n"
    );
    for (held, approvals, said) in [
        ("", &two, None),
        (", \"quorum\": 2", &two, None),
        (", \"approvers\": [\"leads\"]", &two, None),
        (", \"approvers\": [input.server.name]", &two, None),
        (", \"approvers\": [\"oncall\"]", &two, Some("no approver is in `oncall`")),
        (", \"approvers\": [\"leads\"], \"quorum\": 2", &two, Some("takes 2 of the approvers")),
        (", \"quorum\": 3", &two, Some("and 2 can")),
        ("", &own, Some("`agent` is the principal")),
        (", \"approvers\": [\"chat\"]", &chat, None),
        (", \"approvers\": [\"people\"]", &chat, Some("no approver is in `people`")),
        (", \"approvers\": [\"people\"], \"quorum\": 7", &people, None),
        (", \"quorum\": 7", &people, None),
    ] {
        let told = ungrantable(held, approvals);
        assert_eq!(told.len(), usize::from(said.is_some()), "{held} {approvals}: {told:?}");
        if let (Some(line), Some(said)) = (told.first(), said) {
            assert!(line.contains("p.rego:4: ") && line.contains(said), "{held}: {line}");
            assert!(line.contains("or add approvers"), "{line}");
        }
    }
}

#[test]
fn check_tells_of_duties_that_the_firewall_cannot_read() {
    let bench = Bench::new();
    policy(
        &bench,
        "PERMITlimit contains {\"code\": \"c\", \"key\": \"k\", \"rate\": \"10 per minute\"} if true\n",
    );
    bench.write("bartizan.yaml", &configuration(&bench, "", true));
    let (code, out, _) = bench.run(&["check", "-c", "bartizan.yaml"]);
    let told: Vec<_> = out.lines().filter(|it| it.contains("is denied, because")).collect();
    assert_eq!((code, told.len()), (0, 1), "{out}");
    assert!(told[0].contains("p.rego:4: ") && told[0].contains("`rate` is not a rate"), "{out}");
    assert!(told[0].contains("\"rate\": \"10/m\""), "the next step: {out}");
}

/// A wrong token is one line of the log, without the token, and a flood of them is a bounded number.
#[test]
fn the_log_says_that_somebody_came_without_a_right_token() {
    let bench = Bench::new();
    policy(&bench, "PERMIT");
    let program = Program::run(bench.folder.path(), "", &configuration(&bench, "", true));
    let (_, admin) = program.addresses();
    let wrong = "wrong-0123456789abcdef-of-mallory";
    let ask = || {
        let mut stream = TcpStream::connect(admin).unwrap();
        let request = format!(
            "GET /approvals HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nAuthorization: Bearer {wrong}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask().starts_with("HTTP/1.1 401"));
    while !ask().starts_with("HTTP/1.1 429") {}
    for _ in 0..20 {
        ask();
    }
    let said = program.said();
    let told = said.lines().filter(|line| line.contains("came from no approver")).count();
    assert!((1..=25).contains(&told), "{told}: {said}");
    assert!(!said.contains(wrong), "{said}");
    assert_eq!(program.stop(), Some(0));
}
