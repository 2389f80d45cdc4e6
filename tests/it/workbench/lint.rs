//! `policy check`: every trap is found, with its place and code, and no more than those.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bartizan_rego::TRAPS;
use serde_json::Value;

use super::Bench;

/// A policy's rules, and the traps in it: code and line. The rules begin at line 3.
const CASES: &[(&str, &[(&str, u64)])] = &[
    ("permit contains {\"code\": \"a\", \"message\": \"m\"} if input.tool.name == \"x\"", &[]),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if input.tool.argumnets.key == \"x\"",
        &[("unknown-input", 3)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if input.operation.efect == \"x\"",
        &[("unknown-input", 3)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if input.tool.arguments.any.thing == \"x\"",
        &[],
    ),
    (
        "hide contains tool.name if {\n\tsome tool in input.tools\n\ttool.operation.effect == \"exec\"\n}",
        &[],
    ),
    (
        "hide contains input.tools[i].nam if {\n\tinput.tools[i].operation.effect == \"exec\"\n}",
        &[("unknown-input", 3)],
    ),
    ("permit := true", &[("not-a-set", 3)]),
    ("deny if input.method == \"x\"", &[("not-a-set", 3)]),
    ("deny contains \"no\" if input.method == \"x\"", &[]),
    ("deny contains {\"message\": \"m\"} if input.method == \"x\"", &[("no-reason", 3)]),
    (
        "limit contains {\"key\": \"k\", \"rate\": \"1/m\", \"code\": \"c\"} if input.method == \"x\"",
        &[],
    ),
    (
        "limit contains {\"key\": \"k\", \"rate\": \"10 per minute\", \"code\": \"c\"} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "limit contains {\"code\": \"c\", \"rate\": \"1/m\"} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "limit contains {\n\t\"code\": \"c\",\n\t\"key\": input.principal.id,\n\t\"rate\": sprintf(\"%d/m\", [2]),\n\t\"windw\": \"fixed\",\n} if input.method == \"x\"",
        &[("wrong-element", 4)],
    ),
    (
        "limit contains {\n\t\"code\": \"c\",\n\t\"key\": input.principal.id,\n\t\"rate\": sprintf(\"%d/m\", [2]),\n} if input.method == \"x\"",
        &[],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"ttl\": \"30 min\"} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"quorum\": 0} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"quorum\": -1} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"approvers\": \"on-call\"} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"scopes\": [{\"lasts\": \"15m\", \"count\": 3}]} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"scopes\": [{\"code\": \"s\", \"lasts\": \"15m\", \"count\": 3, \"tool\": \"x\"}]} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"approver\": [\"on-call\"]} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "hold contains {\"code\": \"c\", \"message\": \"m\", \"approvers\": [\"on-call\", input.server.name], \"ttl\": \"2h\", \"quorum\": 2, \"scopes\": [{\"code\": \"s\", \"lasts\": \"15m\", \"count\": 3}]} if input.method == \"x\"",
        &[],
    ),
    (
        "set contains {\"pointer\": \"a\", \"value\": 1} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "redact contains {\"code\": \"c\", \"what\": \"names\"} if input.method == \"x\"",
        &[("wrong-element", 3)],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if {\n\tsome env in input.operation.environments\n\tstartswith(env, \"stag\")\n}",
        &[("substring-match", 5)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if contains(input.tool.arguments.environment, \"prod\")",
        &[("substring-match", 3)],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if regex.match(`get_.*`, input.tool.name)",
        &[("substring-match", 3)],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if regex.match(`^get_[a-z]+$`, input.tool.name)",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if startswith(input.tool.arguments.key, \"prod-\")",
        &[],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if not input.tool.arguments.environment == \"production\"",
        &[("undefined-negation", 3)],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if safe\n\nsafe if not input.server.environment == \"production\"",
        &[("undefined-negation", 5)],
    ),
    // Undefined where the environment is, so nothing is permitted then.
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if safe\n\nsafe if not input.server.environment in {\"production\"}",
        &[],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if not \"go-live\" in input.operation.tags",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not input.tool.arguments.confirm == true",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if input.tool.arguments.environment != \"staging\"",
        &[("undefined-comparison", 3)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if input.operation.effect != \"read\"",
        &[],
    ),
    // A restriction must not disappear because the client leaves something out.
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not startswith(input.tool.arguments.env, \"dev\")",
        &[("absent-operand", 3)],
    ),
    (
        "hold contains {\"code\": \"a\", \"message\": \"m\"} if {\n\tenv := input.tool.arguments.env\n\tnot env in {\"dev\"}\n}",
        &[("absent-operand", 5)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if {\n\targuments := input.tool.arguments\n\tnot startswith(lower(arguments.env), \"dev\")\n}",
        &[("absent-operand", 5)],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": \"k\", \"rate\": \"1/m\"} if outside\n\noutside if not count(input.tool.arguments.list) < 3",
        &[("absent-operand", 5)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if outside(input.tool.arguments)\n\noutside(arguments) if not startswith(arguments.env, \"dev\")",
        &[("absent-operand", 3)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not input.tool.name in data.tools[input.principal.id]",
        &[("absent-operand", 3)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not known[input.tool.arguments.env]\n\nknown contains \"dev\"",
        &[("absent-operand", 3)],
    ),
    (
        "redact contains {\"code\": \"a\", \"what\": \"secrets\"} if every e in input.tool.arguments.list { e != \"dev\" }",
        &[("absent-operand", 3)],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if not outside\n\noutside if not startswith(input.tool.arguments.env, \"dev\")",
        &[("absent-operand", 5)],
    ),
    (
        "hide contains tool.name if {\n\tsome tool in input.tools\n\tnot tool.drift in {\"none\"}\n}",
        &[("absent-operand", 5)],
    ),
    // It is there, has a default, or its absence is what is asked for.
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if {\n\tis_string(input.tool.arguments.team)\n\tnot startswith(input.tool.arguments.team, \"dev\")\n}",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if {\n\t\"team\" in object.keys(input.tool.arguments)\n\tnot startswith(input.tool.arguments.team, \"dev\")\n}",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not startswith(object.get(input.tool.arguments, \"team\", \"\"), \"dev\")",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not allowed\n\nallowed if startswith(input.tool.arguments.team, \"dev\")",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if not startswith(input.tool.name, \"get_\") # bartizan:allow substring-match",
        &[],
    ),
    (
        "permit contains {\"code\": \"a\", \"message\": \"m\"} if not startswith(input.tool.arguments.key, \"prod\")",
        &[],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if {\n\t# The argument is optional. bartizan:allow absent-operand\n\tnot startswith(input.tool.arguments.env, \"dev\")\n}",
        &[("substring-match", 5)],
    ),
    (
        "deny contains {\"code\": \"a\", \"message\": \"m\"} if {\n\tsome name, value in input.tool.arguments\n\tstartswith(name, \"env\")\n\tvalue == \"production\"\n}",
        &[("computed-name", 5)],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": object.get(input, [\"client\", \"name\"], \"\"), \"rate\": \"1/m\"}",
        &[("unstable-key", 3)],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": object.get(input, [\"tool\", \"name\"], \"\"), \"rate\": \"1/m\"}",
        &[],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": key, \"rate\": \"1/m\"} if key := sprintf(\"%v\", [input.session])",
        &[("unstable-key", 3)],
    ),
    (
        "limit contains rule if {\n\trule := {\"code\": \"a\", \"key\": who, \"concurrent\": 1}\n\tsome who in [at(input.principal.id)]\n}\n\nat(id) := concat(\"\", [id, today])\n\ntoday := input.time.weekday",
        &[("unstable-key", 4)],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": json.marshal([x | some x in [input.tool.arguments]]), \"rate\": \"1/m\"} if input.tool",
        &[("unstable-key", 3)],
    ),
    (
        "import input.protocol as spoken\n\nlimit contains {\"code\": \"a\", \"key\": spoken.era, \"rate\": \"1/m\"}",
        &[("unstable-key", 5)],
    ),
    (
        "limit contains {\"code\": \"a\", \"key\": concat(\"/\", [input.principal.id, input.server.name, input.method]), \"rate\": \"1/m\"} if input.session.facts.project == \"p\"",
        &[],
    ),
    (
        "# bartizan:allow unstable-key\nlimit contains {\"code\": \"a\", \"key\": input.time.weekday, \"rate\": \"1/m\"}",
        &[],
    ),
    ("# bartizan:allow not-a-set\npermit := true", &[]),
    (
        "permit contains {\"message\": \"m\"} if input.method == \"x\" # bartizan:allow no-reason",
        &[],
    ),
    ("# bartizan:allow substring-match\npermit := true", &[("unused-allow", 3), ("not-a-set", 4)]),
];

fn found(report: &Value) -> Vec<(String, u64)> {
    let problems = report["problems"].as_array().unwrap().iter();
    let found = problems.map(|it| {
        assert!(!it["hint"].as_str().unwrap().is_empty(), "{it}");
        (it["code"].as_str().unwrap().to_owned(), it["line"].as_u64().unwrap())
    });
    found.collect()
}

#[test]
fn traps_are_found_and_what_is_sound_is_left_alone() {
    for (rules, expected) in CASES {
        let bench = Bench::new();
        bench.write("p.rego", &format!("package mcp\n\n{rules}\n"));
        let (code, report) = bench.json(&["policy", "check", "-p", "p.rego", "--format", "json"]);
        let expected: Vec<(String, u64)> =
            expected.iter().map(|(code, line)| ((*code).to_owned(), *line)).collect();
        assert_eq!(found(&report), expected, "{rules}\n{report:#}");
        assert_eq!(code, i32::from(!expected.is_empty()), "{rules}");
    }
}

#[test]
fn every_trap_has_a_case() {
    let cases = CASES.iter().flat_map(|(_, found)| found.iter().map(|(code, _)| *code));
    assert_eq!(cases.collect::<BTreeSet<_>>(), BTreeSet::from(TRAPS));
}

#[test]
fn what_keeps_a_policy_from_running_has_a_code_too() {
    for (rules, code, line) in [
        ("x if http.send({\"method\": \"get\", \"url\": \"u\"})", "forbidden-builtin", 3),
        ("x if time.now_ns() > 0", "forbidden-builtin", 3),
        ("x if nothing.like(1)", "unknown-function", 3),
        ("f(a) := f(a)", "recursion", 3),
        ("x if y == 1", "undefined-name", 3),
    ] {
        let bench = Bench::new();
        bench.write("p.rego", &format!("package mcp\n\n{rules}\n"));
        let (exit, report) = bench.json(&["policy", "check", "-p", "p.rego", "--format", "json"]);
        assert_eq!(exit, 1);
        assert!(found(&report).contains(&(code.to_owned(), line)), "{rules}\n{report:#}");
    }
}

#[test]
fn a_person_is_told_the_place_and_the_next_step() {
    let bench = Bench::new();
    bench.write("p.rego", "package mcp\n\npermit := true\n");
    let (code, out, _) = bench.run(&["policy", "check", "-p", "p.rego"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("p.rego:3: not-a-set: `permit` is a complete rule here, not a set, so it is not combined with others\n  hint: write `permit contains "), "{out}");
}

/// What ships has no traps, in the policies and in the examples.
#[test]
fn what_ships_has_no_traps() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let bench = Bench::new();
    let paths: [Option<PathBuf>; 5] = [
        None,
        Some(policies.join("baseline")),
        Some(policies.join("examples/open")),
        Some(policies.join("examples/read-only")),
        Some(policies.join("examples/review-rollouts")),
    ];
    for path in paths {
        let mut args = vec!["policy", "check", "--format", "json"];
        let path = path.map(|path| path.to_str().unwrap().to_owned());
        if let Some(path) = &path {
            args.extend(["-p", path.as_str()]);
        }
        let (code, report) = bench.json(&args);
        assert_eq!((code, found(&report)), (0, Vec::new()), "{path:?}");
    }
}
