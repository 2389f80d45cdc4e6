//! A built-in has the value that it has in OPA, or fails, which denies.
//!
//! The calls and OPA's answers are in `policies/opa_builtins.json`: `opa` is the value in OPA, `error`
//! says that the call fails here. `tests/differential/calls.py` asks OPA about each of them and
//! compares generated calls besides.

use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicyProblem, PolicySources};
use serde_json::Value;

fn policy(rules: &str) -> Result<Policy, Vec<PolicyProblem>> {
    let sources = PolicySources {
        modules: vec![Module {
            path: "p.rego".to_owned(),
            text: format!("package p\n\n{rules}\n"),
        }],
        data: None,
        revision: "r1".into(),
    };
    let entry = || "data.p.x".to_owned();
    let entrypoints = Entrypoints { decision: entry(), listing: entry() };
    Policy::compile(&sources, &entrypoints, &EvalLimits::default())
}

#[test]
fn a_built_in_has_opas_value_or_fails() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("policies/opa_builtins.json")).unwrap();
    let (mut values, mut errors) = (0, 0);
    for case in &cases {
        let call = case["call"].as_str().unwrap();
        let expected = case.get("opa").filter(|_| case.get("error").is_none());
        let policy = match policy(&format!("x := {call}")) {
            Ok(policy) => policy,
            Err(problems) => {
                assert!(expected.is_none(), "{call}: {problems:?}");
                errors += 1;
                continue;
            }
        };
        let mut engines = vec![Engine::Strict];
        if policy.obstacles().is_empty() {
            engines.push(Engine::Compiled);
        }
        for engine in engines {
            match (policy.evaluate("data.p.x", "{}", engine), expected) {
                (Ok(answer), Some(expected)) => assert_eq!(answer, expected.to_string(), "{call}"),
                (Err(_), None) => errors += 1,
                (answer, _) => panic!("{call}: {answer:?}, in OPA {expected:?}"),
            }
        }
        values += usize::from(expected.is_some());
    }
    assert!(values >= 90 && errors >= 40, "{values} {errors}");
}

#[test]
fn a_constant_pattern_that_cannot_be_run_as_in_opa_does_not_load() {
    for (call, why) in [
        (r#"regex.match(`(?x)a b`, "a")"#, "RE2 refuses"),
        (r#"regex.match(`\h`, "a")"#, "RE2 refuses"),
        (r#"regex.match(`[a--c]`, "a")"#, "RE2 refuses"),
        (r#"regex.match(`[`, "a")"#, "RE2 refuses"),
        (r#"regex.match("\\p{Lowercase}", "a")"#, "as RE2 would"),
        (r#"regex.find_n(`\p{scx=Greek}`, "a", 1)"#, "as RE2 would"),
        (r#"regex.split(`a**`, "a")"#, "RE2 refuses"),
        (r#"regex.replace("a", `(?R)a`, "b")"#, "RE2 refuses"),
        (r#"regex.find_all_string_submatch_n(`(a){0}`, "a", 1)"#, "as RE2 would"),
    ] {
        let problems = policy(&format!("y := 1\n\nx := {call}")).unwrap_err();
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(why) && text.contains("p.rego:5:"), "{call}: {text}");
    }
    // A pattern that no policy writes fails the evaluation.
    let policy = policy(r#"x := regex.match(input.p, "a")"#).unwrap();
    let input = r#"{"p": "(?x)a"}"#;
    assert!(policy.evaluate("data.p.x", input, Engine::Strict).is_err());
}
