//! Names of members that a rule puts together or describes: `policy check` and the log say that
//! their look-alikes are not found, and are right.

use std::path::Path;

use serde_json::{Value, json};

use super::Bench;
use crate::failures::Program;

/// The lines of a policy that say of themselves that they have such a name.
const POLICY: &str = include_str!("../policies/names.rego");
const LIBRARY: &str = "package lib\n\nis_listed(name) if name in {\"environment\", \"env\"}\n";

fn check(bench: &Bench) -> (i32, Vec<Value>) {
    let (code, report) = bench.json(&["policy", "check", "-p", "p", "--format", "json"]);
    (code, report.get("problems").and_then(Value::as_array).unwrap().clone())
}

#[test]
fn a_name_that_a_rule_does_not_write_is_told_with_its_place() {
    let bench = Bench::new();
    bench.write("p/names.rego", POLICY);
    bench.write("p/lib.rego", LIBRARY);
    let (code, problems) = check(&bench);
    let told = problems.iter().filter(|it| it["code"] == "computed-name");
    let told: Vec<u64> = told.map(|it| it["line"].as_u64().unwrap()).collect();
    let lines = (1_u64..).zip(POLICY.lines());
    let meant: Vec<u64> =
        lines.filter(|(_, line)| line.ends_with("#!")).map(|(at, _)| at).collect();
    let differ = |one: &[u64], other: &[u64]| -> Vec<String> {
        let lines = one.iter().filter(|line| !other.contains(line));
        lines
            .map(|line| POLICY.lines().nth(usize::try_from(*line).unwrap() - 1).unwrap().to_owned())
            .collect()
    };
    let (missed, needless) = (differ(&meant, &told), differ(&told, &meant));
    assert!(missed.is_empty() && needless.is_empty(), "missed {missed:#?}, needless {needless:#?}");
    assert!(meant.len() >= 40, "{}", meant.len());
    assert_eq!((code, problems.len()), (1, told.len()), "{problems:#?}");
    for problem in &problems {
        let (message, hint) = (problem["message"].as_str().unwrap(), problem["hint"].to_string());
        assert_eq!(problem["file"], "p/names.rego");
        assert!(message.contains("not found") || message.contains("denied before"), "{message}");
        assert!(hint.contains("lower(name)") && hint.contains("bartizan:allow"), "{hint}");
    }
    // Each names the construct.
    let text = problems.iter().map(ToString::to_string).collect::<String>();
    for construct in ["concat(", "sprintf(", "startswith(name", "regex.match(", "json.unmarshal("] {
        assert!(text.contains(construct), "{construct}: {text}");
    }
}

/// What a decision about these arguments is.
fn decided(bench: &Bench, arguments: &Value) -> Value {
    let call = json!({"name": "deploy", "arguments": arguments});
    let input = json!({
        "version": 1, "phase": "call", "direction": "to_server", "method": "tools/call",
        "tool": call, "params": call,
    });
    bench.write("input.json", &input.to_string());
    let (code, decision) = bench.json(&["policy", "eval", "-p", "p", "-i", "input.json"]);
    assert_eq!(code, 0);
    decision
}

#[test]
fn a_look_alike_of_such_a_name_is_not_found_and_one_of_a_written_name_is() {
    let other = json!({"Environment": "production"});
    let both = json!({"environment": "staging", "Environment": "production"});
    for (condition, told) in [
        ("input.tool.arguments[concat(\"\", [\"env\", \"ironment\"])] == \"production\"", true),
        (
            "some name, value in input.tool.arguments\n\tstartswith(name, \"env\")\n\tvalue == \"production\"",
            true,
        ),
        (
            "some name, value in input.tool.arguments\n\tregex.match(\"^environ\", name)\n\tvalue == \"production\"",
            true,
        ),
        (
            "some name, value in input.tool.arguments\n\treplace(name, \"_\", \"\") == \"env\"\n\tvalue == \"production\"",
            true,
        ),
        // As the hint says.
        (
            "some name in {\"environment\", \"env\"}\n\tinput.tool.arguments[name] == \"production\"",
            false,
        ),
        (
            "some name, value in input.tool.arguments\n\tlower(name) == \"environment\"\n\tvalue == \"production\"",
            false,
        ),
    ] {
        let bench = Bench::new();
        let permit = "permit contains {\"code\": \"p\", \"message\": \"m\"} if input.tool.name == \"deploy\"";
        let deny = format!(
            "deny contains {{\"code\": \"d\", \"message\": \"m\"}} if {{\n\t{condition}\n}}"
        );
        bench.write("p/p.rego", &format!("package mcp\n\n{permit}\n\n{deny}\n"));
        let (_, problems) = check(&bench);
        assert_eq!(!problems.is_empty(), told, "{condition}: {problems:#?}");
        for arguments in [&other, &both] {
            let effect = &decided(&bench, arguments)["effect"];
            assert_eq!(effect, if told { "permit" } else { "deny" }, "{condition}: {arguments}");
        }
    }
}

/// A policy that has such a name runs, and the log says it when the policy is loaded.
#[test]
fn the_log_warns_of_such_a_name_when_a_policy_is_loaded() {
    let bench = Bench::new();
    let rule = "package mcp\n\ndeny contains {\"code\": \"d\", \"message\": \"m\"} if {\n\tsome name, value in input.tool.arguments\n\tstartswith(name, \"env\")\n\tvalue == \"production\"\n}\n";
    bench.write("policy/p.rego", rule);
    let folder: &Path = bench.folder.path();
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {folder}/state\nservers:\n  flags: {{path: /mcp, url: 'http://127.0.0.1:9/mcp'}}\npolicy: {{paths: ['{folder}/policy']}}\n",
        folder = folder.display(),
    );
    let program = Program::run(folder, "", &config);
    program.addresses();
    let said = program.said();
    let line = said.lines().find(|line| line.contains("policy warning"));
    let line: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{said}"))).unwrap();
    let fields = &line["fields"];
    assert_eq!(
        (&line["level"], &fields["code"]),
        (&json!("WARN"), &json!("computed-name")),
        "{line}"
    );
    assert_eq!(fields["line"], 5, "{line}");
    assert!(fields["file"].as_str().unwrap().ends_with("p.rego"), "{line}");
    assert!(fields["what"].as_str().unwrap().contains("startswith(name, \"env\")"), "{line}");
    assert!(fields["hint"].as_str().unwrap().contains("lower(name)"), "{line}");
    assert_eq!(program.stop(), Some(0));
}
