//! Rules that hold calls where nobody can answer: the start and `check` say so.

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
