//! What Rego means is what OPA says, on both engines: `not` with an absent operand, heads, `every`,
//! and which variables are refused as unsafe.
//!
//! The expectations are in `policies/opa_meaning.json`, with the data `DATA` of
//! `tests/differential/opa.py`, which asks OPA itself about each of them and compares generated
//! policies besides.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use bartizan_gate::duty::decision::{Effect, Engine};
use bartizan_gate::duty::pdp::Pdp as _;
use bartizan_rego::{
    Entrypoints, EvalLimits, Module, Policy, PolicyProblem, PolicySources, RegoPdp, capabilities,
    code_of,
};
use serde_json::{Value, json};

use crate::rego::{Scene, compile, document};

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("policies/opa_meaning.json")).unwrap()
}

fn policy(rules: &str) -> Result<Policy, Vec<PolicyProblem>> {
    let sources = PolicySources {
        modules: vec![Module {
            path: "p.rego".to_owned(),
            text: format!("package p\n\n{rules}\n"),
        }],
        data: Some(
            r#"{"m": {"a": "b", "prod": "a"}, "l": ["a", "prod"], "n": {"a": 1}}"#.to_owned(),
        ),
        revision: "r1".into(),
    };
    let entry = || "data.p.x".to_owned();
    let entrypoints = Entrypoints { decision: entry(), listing: entry() };
    Policy::compile(&sources, &entrypoints, &EvalLimits::default())
}

#[test]
fn both_engines_mean_what_opa_means() {
    let mut on_both = 0;
    let answered = |case: &&Value| case.get("unsafe").or(case.get("conflict")).is_none();
    for case in cases().iter().filter(answered) {
        let rules = case["rules"].as_str().unwrap();
        let policy = policy(rules).unwrap();
        let input = case["input"].to_string();
        let expected = case.get("value").map_or("undefined".to_owned(), ToString::to_string);
        let strict = policy.evaluate("data.p.x", &input, Engine::Strict).unwrap();
        assert_eq!(strict, expected, "{rules}");
        if policy.obstacles().is_empty() {
            let compiled = policy.evaluate("data.p.x", &input, Engine::Compiled).unwrap();
            assert_eq!(compiled, expected, "{rules}");
            on_both += 1;
        }
    }
    assert!(on_both >= 70, "{on_both}");
}

/// Two values for one rule, function or key are an error, which denies, and never undefined.
#[test]
fn two_values_are_an_error_wherever_they_come_from() {
    let mut refused = 0;
    for case in cases().iter().filter(|case| case.get("conflict").is_some()) {
        let rules = case["rules"].as_str().unwrap();
        let policy = policy(rules).unwrap();
        let input = case["input"].to_string();
        let error = policy.evaluate("data.p.x", &input, Engine::Strict).unwrap_err().to_string();
        assert!(error.contains("multiple"), "{rules}: {error}");
        // The compiled engine gives no value, and so leaves the answer to the strict one.
        let compiled = policy.evaluate("data.p.x", &input, Engine::Compiled);
        assert!(compiled.is_err(), "{rules}: {compiled:?}");
        refused += 1;
    }
    assert!(refused >= 10, "{refused}");
}

/// No built-in has a value where an argument is absent, whichever argument that is. The list is that
/// of `bartizan policy capabilities`.
#[test]
fn a_call_with_an_absent_argument_has_no_value() {
    let listed: Value = serde_json::from_str(&capabilities()).unwrap();
    let mut called = 0;
    for builtin in listed["builtins"].as_array().unwrap() {
        let name = builtin["name"].as_str().unwrap();
        // `print`, and what the syntax for operators is called: the golden cases have these.
        if builtin.get("infix").is_some() || name == "print" || name.starts_with("internal.") {
            continue;
        }
        let arity = builtin["decl"]["args"].as_array().map_or(0, Vec::len);
        for absent in 0..arity {
            let arguments: Vec<&str> =
                (0..arity).map(|at| if at == absent { "input.absent" } else { "1" }).collect();
            let rules = format!("x := {name}({})", arguments.join(", "));
            let policy = policy(&rules).unwrap();
            let mut engines = vec![Engine::Strict];
            engines.extend(policy.obstacles().is_empty().then_some(Engine::Compiled));
            for engine in engines {
                let value = policy.evaluate("data.p.x", "{}", engine).unwrap();
                assert_eq!(value, "undefined", "{engine:?}: {rules}");
                called += 1;
            }
        }
    }
    assert!(called >= 250, "{called}");
}

#[test]
fn what_regorus_reads_otherwise_is_refused() {
    for (rules, message) in [
        ("x := print(\"a\")", "`print` is used as a value"),
        ("x if not print(\"a\")", "`print` is used as a value"),
        ("x if {\n\ty := [print(e) | some e in [1]]\n\ty\n}", "`print` is used as a value"),
        ("x if {\n\tprint(data.l[_])\n\tinput.a\n}", "`print` gives it no value"),
        ("x if {\n\tprint(data.l[i])\n\tinput.l[i]\n}", "`print` gives it no value"),
        ("x := 1 if { input.a } { input.b }", "a second body after one head"),
        ("x if not a\n\na.b := input.b", "an object above rules"),
        ("x := a\n\na.b if input.b", "an object above rules"),
        ("x := a[input.k]\n\na.b.c := input.b", "an object above rules"),
        ("x if every e in a { e }\n\na.b := input.b\n\na.c := 1", "an object above rules"),
        ("x if not data.p.a\n\na[k] contains 1 if some k in input.l", "an object above rules"),
        ("x if count(a) == 0\n\na[k].b := 1 if some k in input.l", "an object above rules"),
        (
            "x if not s[input.b]\n\ns contains f(1)\n\nf(n) := 1 if n == 2 else := 3",
            "a lookup in a set",
        ),
        (
            "x if not s.b\n\ns contains f(1)\n\nf(n) := n if n == 2\n\ndefault f(_) := 3",
            "a lookup in a set",
        ),
        (
            "x if {\n\tv := [data.l[k], {e | some e in data.l; e != k}]\n\tdata.m[k]\n\tv\n}",
            "nothing here gives it a value",
        ),
        (
            "x := 1 if {\n\tv := f([input.a, i][0])\n\tdata.l[i]\n\tnot v\n}\n\nf(n) := n",
            "nothing before this expression gives it a value",
        ),
    ] {
        let problems = policy(rules).unwrap_err();
        let problem = problems.first().unwrap();
        assert!(problem.message.contains(message), "{rules}: {problem}");
        assert!(problem.line.is_some() && problem.hint.is_some(), "{rules}: {problem}");
    }
    for (rules, value) in [
        ("x if {\n\tsome e in data.l\n\tprint(e, input.absent)\n}", "true"),
        ("x := a\n\na[k] := 1 if some k in input.l", "{}"),
        ("x := a\n\na.b contains input.b", r#"{"b":[]}"#),
        ("x := a\n\ndefault a.b := 7", r#"{"b":7}"#),
        ("x := a[input.k]\n\na[\"b\"] := input.b", "undefined"),
        ("x if not a.b\n\na.b := input.b", "true"),
        ("x if not a[1]\n\na[k] contains 1 if some k in input.l", "true"),
        ("x := v if {\n\ti := 1\n\tv := [1, i][0]\n}", "1"),
        ("x if 3 in s\n\ns contains f(1)\n\nf(n) := 1 if n == 2 else := 3", "true"),
        ("x if s[3]\n\ns contains v if v := f(1)\n\nf(n) := 1 if n == 2 else := 3", "true"),
        ("x := [e | e := s[_]]\n\ns contains f(1)\n\nf(n) := 1 if n == 2 else := 3", "[3]"),
    ] {
        let policy = policy(rules).unwrap();
        let found = policy.evaluate("data.p.x", "{}", Engine::Strict).unwrap();
        assert_eq!(found, value, "{rules}");
    }
}

#[test]
fn a_variable_that_opa_calls_unsafe_is_refused_by_name_and_line() {
    let mut refused = 0;
    for case in cases().iter().filter(|case| case.get("unsafe").is_some()) {
        let rules = case["rules"].as_str().unwrap();
        let name = case["unsafe"].as_str().unwrap();
        let problems = policy(rules).unwrap_err();
        let problem = problems.first().unwrap();
        assert!(problem.message.contains(&format!("`{name}`")), "{rules}: {problem}");
        let lines: Vec<&str> = rules.lines().collect();
        let line = usize::try_from(problem.line.unwrap()).unwrap();
        assert!(lines[line - 3].contains(name), "{rules}: {problem}");
        assert!(problem.hint.is_some(), "{rules}");
        refused += 1;
    }
    assert!(refused >= 15, "{refused}");
    let problems = policy("x if not startswith(input.path, data.l[_])").unwrap_err();
    assert_eq!(code_of(&problems[0]), "unsafe-variable");
    assert!(problems[0].hint.as_ref().unwrap().contains("every"), "{}", problems[0]);
}

#[test]
fn what_opa_accepts_is_not_refused() {
    for rules in [
        "x if {\n\tsome i\n\tdata.l[i] == \"a\"\n\tnot input.seen[i]\n}",
        "x if {\n\tnot input.seen[i]\n\tdata.l[i] == \"a\"\n}",
        "x if not startswith(lower(data.l[_]), \"z\")",
        "x if {\n\t[a, b] = data.l\n\tnot a == b\n}",
        "x if {\n\t{\"k\": k} = input.o\n\tnot k == 1\n}",
        "x contains [i, e] if {\n\te := data.l[i]\n\tnot e in {\"z\"}\n}",
        "x := {k: v | some k, v in data.m; not v == \"z\"}",
        "x if count([1 | some e in data.l; not f(e)]) == 2\n\nf(e) if e == \"z\"",
        "x if {\n\tsome e in data.l\n\tevery f in data.l { not f == concat(\"\", [e, \"z\"]) }\n}",
        "x if not f with f as g\n\nf if input.a\n\ng := false",
    ] {
        assert_eq!(policy(rules).err(), None, "{rules}");
    }
}

/// The places in errors are the author's, although operands move.
#[test]
fn an_error_names_the_authors_line() {
    let rules = "x if {\n\tinput.a\n\tnot startswith(\n\t\tinput.b,\n\t\t\"c\",\n\t)\n\tlower(input.a) == \"a\"\n}";
    let policy = policy(rules).unwrap();
    for (input, line) in [(r#"{"a": "a", "b": 1}"#, 5), (r#"{"a": 1, "b": "b"}"#, 9)] {
        let error = policy.evaluate("data.p.x", input, Engine::Strict).unwrap_err().to_string();
        assert!(error.contains(&format!("p.rego:{line}: ")), "{error}");
    }
}

#[test]
fn a_restriction_that_an_absent_argument_undoes_keeps_the_policy_from_running() {
    let deny = "package mcp\ndeny contains {\"code\": \"d\", \"message\": \"m\"} if";
    let problems =
        compile(&format!("{deny} not startswith(input.tool.arguments.env, \"dev\")"), None);
    let problems = problems.unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(code_of(&problems[0]), "absent-operand");
    assert_eq!((problems[0].file.as_str(), problems[0].line), ("policy.rego", Some(2)));
    assert!(problems[0].message.contains("input.tool.arguments.env"), "{}", problems[0]);

    // What the hint says denies where the argument is absent.
    let permit = "permit contains {\"code\": \"p\", \"message\": \"m\"} if input.tool.name";
    for condition in [
        "not dev\ndev if startswith(input.tool.arguments.env, \"dev\")",
        "not startswith(object.get(input.tool.arguments, \"env\", \"\"), \"dev\")",
    ] {
        let policy = compile(&format!("{deny} {condition}\n{permit}"), None).unwrap();
        let pdp = RegoPdp::compiled(policy, 1, 1).unwrap();
        for (arguments, denied) in [(json!({}), true), (json!({"env": "dev-1"}), false)] {
            let arguments = document(&arguments.to_string());
            let scene = Scene::new();
            let decision = pdp.decide(&scene.call("t", Some(&arguments)));
            let expected = if denied { Effect::Deny } else { Effect::Permit };
            assert_eq!(decision.effect, expected, "{condition}");
        }
        assert_eq!(pdp.demotion(), None, "{condition}");
    }
}
