//! Replay: a record gives the same verdict as its message, or the record is not judged.

use std::path::PathBuf;

use bartizan::policy::recorded::{Known, Verdict};
use bartizan::policy::replay::{Replay, Report, Source, replay};
use bartizan_gate::duty::pdp::Inputs;
use serde_json::{Value, json};

use super::{Bench, CONFIG, call, compile, conversation, known, world};

fn replayed(bench: &Bench, policy: &[PathBuf], known: Known, state: &str) -> Report {
    let work = Replay { candidate: compile(policy), against: None, known, workers: 2 };
    replay(&work, &[Source::State(bench.path(state))]).unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn replay_gives_the_same_verdicts_from_records_as_from_messages() {
    let bench = Bench::new();
    let messages = conversation();
    for (state, inputs) in
        [("none", Inputs::None), ("facts", Inputs::Facts), ("values", Inputs::Values)]
    {
        bench.record(state, &[], &world(inputs), &messages);
        let report = replayed(&bench, &[], known(), state);
        assert_eq!(report.changes_all(), 0, "{state}: {:?}", report.changes);
        assert_eq!(report.other_reasons, 0, "{state}");
        // The gate itself refuses what asks about a task that nobody made.
        assert_eq!(report.unjudged_all(), 1, "{state}: {:?}", report.unjudged);
        assert_eq!(report.judged, 25, "{state}");
        assert!(report.verdicts[&Verdict::Deny] > 3, "{state}: {:?}", report.verdicts);
        // Those over the limit were permitted by the policy.
        assert!(report.verdicts[&Verdict::Permit] > 15, "{state}: {:?}", report.verdicts);
    }
}

#[test]
fn without_a_configuration_nothing_is_guessed_about_servers() {
    let bench = Bench::new();
    bench.record("state", &[], &world(Inputs::None), &conversation());
    let report = replayed(&bench, &[], Known::default(), "state");
    assert_eq!(report.judged, 0);
    assert!(report.unjudged.keys().any(|why| why.contains("reads `/server/rates`")));
    // With the facts recorded, no configuration is needed.
    bench.record("facts", &[], &world(Inputs::Facts), &conversation());
    assert_eq!(replayed(&bench, &[], Known::default(), "facts").judged, 25);
}

#[test]
fn a_configuration_tells_nothing_of_those_who_come_with_a_token() {
    let bench = Bench::new();
    let policy = [bench.write(
        "p.rego",
        "package mcp\npermit contains {\"code\": \"t\", \"message\": \"m\"} if \"testers\" in input.principal.groups\n",
    )];
    bench.record("state", &policy, &world(Inputs::None), &[call(1, "t", &json!({}))]);
    assert_eq!(replayed(&bench, &policy, known(), "state").judged, 1);
    let by_token = Known { by_token: ["flags".to_owned()].into(), ..known() };
    let report = replayed(&bench, &policy, by_token, "state");
    assert_eq!((report.judged, report.unjudged_all()), (0, 1));
}

/// Rules that read what a journal does not hold, in every way that a rule can.
const READERS: [&str; 9] = [
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if input.tool.arguments.key == \"prod-x\"",
    "deny contains {\"code\": input.tool.arguments.key, \"message\": \"m\"} if input.direction == \"to_server\"",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if prod\nprod if startswith(input.tool.arguments.key, \"prod-\")",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if prod(input.tool)\nprod(tool) if tool.arguments.key == \"prod-x\"",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if count([1 | input.tool.arguments.key == \"prod-x\"]) > 0",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if not input.tool.arguments.key",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if \"token\" in object.keys(input.tool.arguments)",
    "deny contains {\"code\": \"d\", \"message\": \"m\"} if {some name in [\"arguments\"]; input.tool[name].key == \"prod-x\"}",
    "limit contains {\"code\": \"l\", \"key\": input.tool.arguments.key, \"rate\": \"9/m\"} if input.tool",
];

#[test]
fn a_rule_that_reads_what_is_not_recorded_gives_no_verdict() {
    let bench = Bench::new();
    let tool_calls = conversation().iter().filter(|it| it["method"] == "tools/call").count();
    let open = "permit contains {\"code\": \"open\", \"message\": \"open\"} if true # bartizan:allow absent-operand";
    for (at, rules) in READERS.iter().enumerate() {
        let text = format!("package mcp\n{open}\n{rules}\n");
        let policy = [bench.write(&format!("p{at}.rego"), &text)];
        let state = format!("none-{at}");
        bench.record(&state, &policy, &world(Inputs::None), &conversation());
        let report = replayed(&bench, &policy, known(), &state);
        assert_eq!(report.changes_all(), 0, "{rules}: {:?}", report.changes);
        let unknown: u64 = report
            .unjudged
            .iter()
            .filter(|(why, _)| why.contains("p.rego") || why.contains(&format!("p{at}.rego:")))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(unknown, u64::try_from(tool_calls).unwrap(), "{rules}: {:?}", report.unjudged);
        // With the values recorded they are all judged, but for the one whose name is a secret's.
        let state = format!("values-{at}");
        bench.record(&state, &policy, &world(Inputs::Values), &conversation());
        let report = replayed(&bench, &policy, known(), &state);
        assert_eq!(report.changes_all(), 0, "{rules}: {:?}", report.changes);
        assert!(report.unjudged_all() <= 2, "{rules}: {:?}", report.unjudged);
    }
}

#[test]
fn a_rule_about_one_tool_leaves_the_others_judged() {
    let bench = Bench::new();
    let text = "package mcp
permit contains {\"code\": \"open\", \"message\": \"open\"} if true
deny contains {\"code\": \"d\", \"message\": \"m\"} if {
	input.tool.name in {\"delete_flag\", \"replace_flag\"}
	input.operation.effect == \"destructive\"
	input.tool.arguments.key == \"checkout\"
}
";
    let policy = [bench.write("one.rego", text)];
    bench.record("state", &policy, &world(Inputs::None), &conversation());
    let report = replayed(&bench, &policy, known(), "state");
    assert_eq!(report.changes_all(), 0);
    let why = report.unjudged.keys().find(|why| why.contains("one.rego:3")).unwrap();
    assert!(why.ends_with("reads `/tool/arguments`, which is not recorded"), "{why}");
    assert_eq!(report.unjudged[why], 1);
}

#[test]
fn secrets_are_not_in_the_record_and_never_judged() {
    let bench = Bench::new();
    let policy = [bench.write(
        "p.rego",
        "package mcp\npermit contains {\"code\": \"t\", \"message\": \"m\"} if input.tool.arguments.auth.api_token == \"s3cret\"\n",
    )];
    let messages = [call(1, "t", &json!({"auth": {"api_token": "s3cret"}, "key": "k3y"}))];
    bench.record("state", &policy, &world(Inputs::Values), &messages);
    let (_, line, _) = bench.run(&["audit", "tail", "--state", "state", "--event", "intent"]);
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["input"]["tool"]["arguments"]["key"], "k3y");
    assert_eq!(record["input"]["tool"]["arguments"]["auth"]["api_token"], Value::Null);
    let left_out = json!(["/params/arguments", "/tool/arguments/auth/api_token"]);
    assert_eq!(record["input_left_out"], left_out);
    assert!(!line.contains("s3cret"), "{line}");
    let report = replayed(&bench, &policy, known(), "state");
    assert_eq!((report.judged, report.unjudged_all()), (0, 1), "{:?}", report.unjudged);
    // What the client writes is not in the facts, and what the firewall knows is.
    bench.record("facts", &policy, &world(Inputs::Facts), &messages);
    let (_, line, _) = bench.run(&["audit", "tail", "--state", "facts", "--event", "intent"]);
    assert!(!line.contains("k3y"), "{line}");
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["input_left_out"], json!(["/tool/arguments", "/params"]));
    assert_eq!(record["input"]["server"]["environment"], "staging");
    // And nothing at all unless it was asked for.
    bench.record("none", &policy, &world(Inputs::None), &messages);
    let (_, line, _) = bench.run(&["audit", "tail", "--state", "none", "--event", "intent"]);
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record.get("input"), None);
}

#[test]
fn changed_verdicts_are_counted_listed_and_fail_a_build() {
    let bench = Bench::new();
    bench.write("bartizan.yaml", CONFIG);
    bench.record("state", &[], &world(Inputs::None), &conversation());
    bench.write(
        "new/new.rego",
        "package mcp
permit contains {\"code\": \"deletes\", \"message\": \"m\"} if input.tool.name == \"delete_flag\"
permit contains {\"code\": \"known\", \"message\": \"m\"} if input.operation.effect in {\"read\", \"write\"}
deny contains {\"code\": \"no-prompts\", \"message\": \"m\"} if input.method == \"prompts/get\"
hold contains {\"code\": \"ask\", \"message\": \"m\"} if input.method == \"resources/read\"
",
    );
    let base =
        ["policy", "replay", "-p", "new", "-c", "bartizan.yaml", "--state", "state"].to_vec();
    let with = |more: &[&'static str]| [base.clone(), more.to_vec()].concat();
    let (code, report) = bench.json(&with(&["--format", "json"]));
    assert_eq!(code, 0);
    let change = |before: &str, after: &str| {
        let rows = report["changed"].as_array().unwrap().iter();
        let row = rows.filter(|row| row["before"] == before && row["after"] == after);
        row.map(|row| row["count"].as_u64().unwrap()).sum::<u64>()
    };
    // delete_flag; update_flag at production, and where none is named.
    assert_eq!(change("deny", "permit"), 3, "{report:#}");
    assert_eq!(change("permit", "deny"), 1, "{report:#}");
    assert_eq!(change("permit", "hold"), 1, "{report:#}");
    assert_eq!((report["opened"].as_u64(), report["closed"].as_u64()), (Some(3), Some(2)));
    let deleted =
        report["changes"].as_array().unwrap().iter().find(|it| it["target"] == "delete_flag");
    let deleted = deleted.unwrap();
    assert_eq!(deleted["principal"], "agent-7");
    assert_eq!(deleted["server"], "flags");
    assert_eq!(deleted["before"]["codes"], json!(["absent-environment"]));
    assert_eq!(deleted["after"]["codes"], json!(["deletes"]));
    assert_eq!(deleted["call"].as_str().unwrap().len(), 32);
    let line = deleted["line"].as_u64().unwrap().to_string();
    let (_, record, _) = bench.run(&[
        "audit",
        "tail",
        "--state",
        "state",
        "--from-seq",
        &line,
        "--tool",
        "delete_flag",
    ]);
    assert!(record.contains(deleted["call"].as_str().unwrap()), "{record}");

    for (fail_on, expected) in [("changed", 1), ("opened", 1), ("closed", 1), ("unjudged", 1)] {
        assert_eq!(bench.run(&with(&["--fail-on", fail_on])).0, expected, "{fail_on}");
    }
    let same = ["policy", "replay", "-c", "bartizan.yaml", "--state", "state"].to_vec();
    for fail_on in ["changed", "opened", "closed"] {
        let (code, out, err) = bench.run(&[same.clone(), vec!["--fail-on", fail_on]].concat());
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("changed     0\n"), "{out}");
    }
    let (_, out, _) = bench.run(&with(&[]));
    assert!(
        out.contains(
            " agent-7 flags tools/call delete_flag: deny [absent-environment] -> permit [deletes]"
        ),
        "{out}"
    );
}

#[test]
fn files_of_inputs_and_decision_logs_are_replayed() {
    let bench = Bench::new();
    let input = |tool: &str, key: &str| {
        json!({
            "method": "tools/call", "direction": "to_server", "principal": {"id": "a"},
            "server": {"name": "s"}, "operation": {"effect": "read", "environments": [], "tags": []},
            "tool": {"name": tool, "arguments": {"key": key}},
        })
    };
    let event = |input: &Value, effect: &str, erased: &Value| {
        json!({
            "decision_id": "d-1", "timestamp": "2026-11-20T12:48:15.006348Z", "path": "mcp/decision",
            "bundles": {"policy": {"revision": "r-1"}}, "input": input, "erased": erased,
            "result": {"effect": effect, "reasons": [{"code": "c", "message": "m"}]},
        })
    };
    bench.write(
        "old.rego",
        "package mcp\npermit contains {\"code\": \"all\", \"message\": \"m\"} if true\n",
    );
    bench.write(
        "new.rego",
        "package mcp\npermit contains {\"code\": \"k\", \"message\": \"m\"} if input.tool.arguments.key == \"k\"\n",
    );
    let inputs = [input("t", "k"), input("u", "other")].map(|it| it.to_string()).join("\n");
    bench.write("inputs.jsonl", &(inputs + "\n\n"));
    let base = ["policy", "replay", "-p", "new.rego", "--format", "json"].to_vec();
    let with = |more: &[&'static str]| [base.clone(), more.to_vec()].concat();
    let (_, report) = bench.json(&with(&["inputs.jsonl"]));
    assert_eq!(
        (&report["incomparable"], &report["verdicts"]),
        (&json!(2), &json!({"deny": 1, "permit": 1}))
    );
    let (code, report) =
        bench.json(&with(&["inputs.jsonl", "--against", "old.rego", "--fail-on", "closed"]));
    assert_eq!(code, 1);
    assert_eq!(report["changes"][0]["target"], "u");
    assert_eq!(report["changes"][0]["line"], 2);
    assert_eq!(report["changes"][0]["before"]["codes"], json!(["all"]));

    let masked = event(&input("t", "k"), "permit", &json!(["/input/tool/arguments/key"]));
    let log = [
        event(&input("t", "k"), "permit", &json!([])),
        event(&input("t", "other"), "permit", &json!([])),
        masked,
    ];
    bench.write("log.jsonl", &log.map(|it| it.to_string()).join("\n"));
    let (_, report) = bench.json(&with(&["log.jsonl"]));
    assert_eq!((&report["judged"], &report["same"]), (&json!(2), &json!(1)), "{report:#}");
    assert_eq!(
        report["changes"][0]["before"],
        json!({"verdict": "permit", "codes": ["c"], "policy": "r-1"})
    );
    assert_eq!(report["unjudged"][0]["count"], 1);

    bench.write("bad.jsonl", "{\"method\": \"ping\"}\n{\"method\": 1, \"method\": 2}\n");
    let (code, _, err) = bench.run(&with(&["bad.jsonl"]));
    assert_eq!(code, 1);
    assert!(err.starts_with("error: bad.jsonl:2: not strict JSON"), "{err}");
}
