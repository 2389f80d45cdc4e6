//! Every trap that is known of either engine ends in a denial or a refused policy: never in a
//! permit, a crash or a hang.
//!
//! Each policy here permits everything, so that an error that goes unnoticed shows as a permit.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bartizan_gate::duty::decision::{Effect, Origin};
use bartizan_gate::duty::pdp::Pdp;
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_rego::{Entrypoints, EvalLimits, Policy, RegoPdp, prove};

use super::rego::{Both, RICH, RICH_DATA, Scene, compile, document, sources};

const OPEN: &str = "package mcp\npermit contains {\"message\": \"open\"}\n";

/// No single step may take longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A policy that one call turns into an error: with the first arguments it denies as
/// indeterminate, with the second it permits, on both engines alike.
#[track_caller]
fn errs_on(rego: &str, bad: &str, good: &str) {
    let both = Both::new(&compile(&format!("{OPEN}{rego}"), None).unwrap());
    let scene = Scene::new();
    let start = now();
    let (bad, good) = (document(bad), document(good));
    let denied = both.decide(&scene.call("t", Some(&bad)));
    assert_eq!(denied.effect, Effect::Deny, "{rego}");
    assert_eq!(denied.reasons.first().unwrap().origin, Origin::Indeterminate, "{denied:?}");
    let permitted = both.decide(&scene.call("t", Some(&good)));
    assert_eq!(permitted.effect, Effect::Permit, "{rego}: {permitted:?}");
    assert!(start.elapsed() < PATIENCE, "{rego}");
}

#[expect(clippy::disallowed_methods, reason = "a test of how long something takes")]
fn now() -> Instant {
    Instant::now()
}

/// A policy that is refused, with this in a problem.
#[track_caller]
fn refused(rego: &str, why: &str) {
    let start = now();
    let problems = compile(&format!("{OPEN}{rego}"), None).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|problem| problem.contains(why)), "{why}: {told:#?}");
    assert!(start.elapsed() < PATIENCE, "{rego}");
}

const DENY: &str = "deny contains {\"message\": \"d\"} if ";

/// The tests give the arguments that their rules read.
const ALLOW: &str = "# bartizan:allow absent-operand undefined-comparison\n";

#[test]
fn an_argument_of_the_wrong_type_does_not_slip_by_a_deny_rule() {
    for (condition, bad, good) in [
        ("startswith(input.tool.arguments.key, \"a\")", r#"{"key": ["a"]}"#, r#"{"key": "b"}"#),
        ("endswith(input.tool.arguments.key, \"a\")", r#"{"key": 5}"#, r#"{"key": "b"}"#),
        ("contains(input.tool.arguments.key, \"a\")", r#"{"key": {}}"#, r#"{"key": "b"}"#),
        ("lower(input.tool.arguments.key) == \"prod\"", r#"{"key": null}"#, r#"{"key": "b"}"#),
        ("glob.match(\"a*\", [], input.tool.arguments.key)", r#"{"key": 1}"#, r#"{"key": "b"}"#),
        ("regex.match(\"^a\", input.tool.arguments.key)", r#"{"key": 1}"#, r#"{"key": "b"}"#),
        ("count(input.tool.arguments.list) > 2", r#"{"list": 5}"#, r#"{"list": [1]}"#),
        ("sum(input.tool.arguments.list) > 2", r#"{"list": ["a"]}"#, r#"{"list": [1]}"#),
        ("to_number(input.tool.arguments.n) > 2", r#"{"n": "x"}"#, r#"{"n": "1"}"#),
        ("input.tool.arguments.n + 1 > 2", r#"{"n": "x"}"#, r#"{"n": 1}"#),
        ("input.tool.arguments.n * 2 > 2", r#"{"n": []}"#, r#"{"n": 1}"#),
        ("10 / input.tool.arguments.n > 10", r#"{"n": 0}"#, r#"{"n": 1}"#),
        ("10 % input.tool.arguments.n > 10", r#"{"n": 1.5}"#, r#"{"n": 1}"#),
        ("{d := {\"a\"} - input.tool.arguments.n; d == {\"a\"}}", r#"{"n": ["a"]}"#, "{}"),
        ("{s := {x | some x in input.tool.arguments.l}; s == {1}}", r#"{"l": 1}"#, r#"{"l": [2]}"#),
        ("{some x in input.tool.arguments.l; x == 1}", r#"{"l": "1"}"#, r#"{"l": [2]}"#),
        ("object.keys(input.tool.arguments.o) == {\"a\"}", r#"{"o": ["a"]}"#, r#"{"o": {}}"#),
        (
            "split(input.tool.arguments.key, \"/\")[0] == \"a\"",
            r#"{"key": 1}"#,
            r#"{"key": "b/a"}"#,
        ),
    ] {
        errs_on(&format!("{ALLOW}{DENY}{condition}"), bad, good);
    }
}

/// C1: the work of built-ins is counted before it is done, alike on both engines.
#[test]
fn what_takes_too_many_steps_denies() {
    let short = r#"{"pattern": "a*", "texts": ["b"]}"#;
    let pattern = "a*".repeat(8 << 10);
    let text = "a".repeat(16 << 10);
    let large = format!(r#"{{"pattern": "{pattern}", "texts": ["{text}"]}}"#);
    let many = format!(r#"{{"pattern": "{text}", "texts": [{}]}}"#, vec!["\"a\""; 2_000].join(","));
    for condition in [
        "glob.match(input.tool.arguments.pattern, [], input.tool.arguments.texts[_])",
        "{some text in input.tool.arguments.texts; glob.match(input.tool.arguments.pattern, [], text)}",
        "{some text in input.tool.arguments.texts; startswith(text, input.tool.arguments.pattern)}",
    ] {
        let bad = if condition.contains("startswith") { &many } else { &large };
        errs_on(&format!("{DENY}{condition}"), bad, short);
    }
}

#[test]
fn an_error_counts_wherever_it_happens() {
    let bad = r#"{"key": 1}"#;
    let good = r#"{"key": "b"}"#;
    for rego in [
        // inside `not`, where OPA would find it true
        "deny contains {\"message\": \"d\"} if {not startswith(input.tool.arguments.key, \"b\")}",
        // inside a function, a helper rule, a comprehension, an object of the head
        "deny contains {\"message\": \"d\"} if f(input.tool.arguments.key)\nf(x) if startswith(x, \"a\")",
        "deny contains {\"message\": \"d\"} if h\nh if startswith(input.tool.arguments.key, \"a\")",
        "deny contains {\"message\": \"d\"} if {count([1 | startswith(input.tool.arguments.key, \"a\")]) > 0}",
        "deny contains {\"message\": upper(input.tool.arguments.key)} if input.tool.arguments.key != \"b\"",
        // in another rule than the one that permits, and in a duty
        "permit contains {\"message\": \"p\"} if startswith(input.tool.arguments.key, \"a\")",
        "limit contains {\"key\": lower(input.tool.arguments.key), \"rate\": \"1/m\"}",
        "set contains {\"pointer\": \"/a\", \"value\": upper(input.tool.arguments.key)}",
    ] {
        errs_on(&format!("{ALLOW}{rego}"), bad, good);
    }
}

/// An engine that continued with an undefined value would find that `not x == 1` holds.
#[test]
fn an_assignment_of_nothing_ends_the_body() {
    for body in [
        "x := input.tool.arguments.x; not x == 1",
        "x := lower(input.tool.arguments.x); not x == 1",
        "x := input.tool.arguments.l[_].x; not x == 1",
        "some y in input.tool.arguments.l; x := y.x; not x == 1",
        "x := f(input.tool.arguments); not x == 1",
        "[x | x := input.tool.arguments.x] == [\"a\"]",
        "count({1 | x := input.tool.arguments.x; not x == 1}) == 1",
        "g(input.tool.arguments)",
    ] {
        let rego = format!(
            "package mcp\n{ALLOW}permit contains {{\"message\": \"m\"}} if {{{body}}}\nf(o) := x if {{x := o.x}}\ng(o) if {{x := o.x; not x == 1}}"
        );
        let both = Both::new(&compile(&rego, None).unwrap());
        assert!(both.is_compiled(), "{body}");
        for (arguments, effect) in [
            (r#"{"l": [{"y": 1}]}"#, Effect::Deny),
            (r#"{"x": "a", "l": [{"x": "a"}]}"#, Effect::Permit),
        ] {
            let arguments = document(arguments);
            let decision = both.decide(&Scene::new().call("t", Some(&arguments)));
            assert_eq!(decision.effect, effect, "{body}: {decision:?}");
        }
    }
}

#[test]
fn conflicts_deny() {
    let bad = r#"{"a": true, "b": true, "l": [1, 2]}"#;
    let good = r#"{"l": [1]}"#;
    for rego in [
        "v := 1 if input.tool.arguments.a\nv := 2 if input.tool.arguments.b\ndeny contains {\"message\": \"d\"} if v == 3",
        "f(x) := 1 if x.a\nf(x) := 2 if x.b\ndeny contains {\"message\": \"d\"} if f(input.tool.arguments) == 3",
        "o[k] := v if {some k in [\"x\"]; some v, _ in input.tool.arguments}\ndeny contains {\"message\": \"d\"} if o.x == 3",
        "deny contains {\"message\": \"d\"} if {o := {\"x\": k | some k, _ in input.tool.arguments}; o.x == 3}",
        "v := k if {some k, _ in input.tool.arguments}\ndeny contains {\"message\": \"d\"} if v == 3",
        "v := input.tool.arguments.l[_]\ndeny contains {\"message\": \"d\"} if v == 3",
        "f(l) := l[_]\ndeny contains {\"message\": \"d\"} if f(input.tool.arguments.l) == 3",
    ] {
        errs_on(rego, bad, good);
    }
}

#[test]
fn builtins_that_panic_hang_or_grow_deny() {
    let long = format!(r#"{{"x": "{}"}}"#, "a".repeat(50_000));
    let short = r#"{"x": "a"}"#;
    for (condition, bad, good) in [
        ("units.parse(input.tool.arguments.x) > 5e6", r#"{"x": "1e400000000"}"#, r#"{"x": "1K"}"#),
        (
            "units.parse_bytes(input.tool.arguments.x) > 5e9",
            r#"{"x": "1e400000000"}"#,
            r#"{"x": "1K"}"#,
        ),
        ("to_number(input.tool.arguments.x) > 5", r#"{"x": "1e100000000"}"#, r#"{"x": "1"}"#),
        (
            "count(numbers.range(1, input.tool.arguments.x)) > 5",
            r#"{"x": 50000000}"#,
            r#"{"x": 2}"#,
        ),
        (
            "count(numbers.range_step(5, 9, input.tool.arguments.x)) > 5",
            r#"{"x": -1}"#,
            r#"{"x": 1}"#,
        ),
        ("bits.lsh(1, input.tool.arguments.x) == 5", r#"{"x": 4000000000}"#, r#"{"x": 1}"#),
        (
            "sprintf(input.tool.arguments.x, [1]) == \"b\"",
            r#"{"x": "%1000000000d"}"#,
            r#"{"x": "%d"}"#,
        ),
        ("count(regex.find_n(\"a.*b\", input.tool.arguments.x, -1)) > 5", &long, short),
        ("regex.match(input.tool.arguments.x, \"b\")", r#"{"x": "("}"#, short),
        ("regex.match(input.tool.arguments.x, \"b\")", r#"{"x": "a{1000}{1000}{1000}"}"#, short),
        ("glob.match(input.tool.arguments.x, [], \"b\")", r#"{"x": "[a"}"#, short),
        ("replace(input.tool.arguments.x, \"\", input.tool.arguments.x) == \"b\"", &long, short),
        (
            "json.unmarshal(input.tool.arguments.x) == 1",
            r#"{"x": "{\"a\":1,\"a\":2}"}"#,
            r#"{"x": "2"}"#,
        ),
        (
            "json.unmarshal(input.tool.arguments.x) == 1",
            r#"{"x": "18446744073709551617"}"#,
            r#"{"x": "2"}"#,
        ),
    ] {
        errs_on(&format!("{DENY}{condition}"), bad, good);
    }
    // Expressions on which another engine panics; the correct answer here is a permit.
    for condition in [
        "strings.count(input.tool.arguments.x, \"\") != 2",
        "not object.subset([1], input.tool.arguments.list)",
    ] {
        let both = Both::new(&compile(&format!("{OPEN}{ALLOW}{DENY}{condition}"), None).unwrap());
        let arguments = document(r#"{"x": "a", "list": []}"#);
        assert_eq!(both.decide(&Scene::new().call("t", Some(&arguments))).effect, Effect::Permit);
    }
}

#[test]
fn loops_end_at_a_limit() {
    let list = (0..400).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let arguments = document(&format!(r#"{{"l": [{list}]}}"#));
    let rego = format!(
        "{OPEN}{DENY}{{\n\tsome a in input.tool.arguments.l\n\tsome b in input.tool.arguments.l\n\tsome c in input.tool.arguments.l\n\ta + b + c == 100000\n}}"
    );
    let limits = EvalLimits { time_max: Duration::from_millis(50), ..EvalLimits::default() };
    let policy = Policy::compile(&sources(&rego, None), &Entrypoints::default(), &limits).unwrap();
    let scene = Scene::new();
    let request = scene.call("t", Some(&arguments));
    for pdp in
        [RegoPdp::strict(policy.clone(), 1), RegoPdp::compiled(policy.clone(), 1, 1).unwrap()]
    {
        let start = now();
        assert_eq!(pdp.decide(&request).effect, Effect::Deny);
        assert!(start.elapsed() < PATIENCE);
        // A time-out is no disagreement of the engines, and the next question is answered.
        assert_eq!(pdp.demotion(), None);
        assert_eq!(pdp.decide(&scene.call("t", None)).effect, Effect::Permit);
    }
}

#[test]
fn recursion_is_refused() {
    refused("f(x) := f(x + 1)", "recursion: data.mcp.f -> data.mcp.f");
    refused("f(x) := g(x)\ng(x) := f(x)", "recursion: data.mcp.f -> data.mcp.g -> data.mcp.f");
    refused("a if b\nb if a", "recursion: data.mcp.a -> data.mcp.b -> data.mcp.a");
    refused("a if data.mcp.a", "recursion");
    refused("a if count(data.mcp) > 1", "recursion");
    refused("a if data.mcp[input.x]", "recursion");
    refused("a contains x if {some x in [y | some y in a]}", "recursion");
    refused("a if not data[\"mcp\"][\"a\"]", "recursion");
}

#[test]
fn a_chain_of_rules_fits_a_small_stack_or_is_refused() {
    let chain = |rules: usize| {
        let mut rego = "r0 if input.tool.arguments.x == 1\n".to_owned();
        for rule in 1..rules {
            let needed = rule - 1;
            write!(rego, "r{rule} if {{\n\tsome x in [1]\n\tx == 1\n\tr{needed}\n}}\n").unwrap();
        }
        format!("{rego}deny contains {{\"message\": \"d\"}} if r{}", rules - 1)
    };
    refused(&chain(2_000), "nested deeper than 64");
    let policy = compile(&format!("{OPEN}{}", chain(29)), None).unwrap();
    let asked = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        let arguments = document(r#"{"x": 1}"#);
        Both::new(&policy).decide(&Scene::new().call("t", Some(&arguments))).effect
    });
    assert_eq!(asked.unwrap().join().unwrap(), Effect::Deny);
}

#[test]
fn policies_that_break_the_parser_are_refused() {
    for (open, close) in [("[", "]"), ("{", "}"), ("{\"a\": ", "}")] {
        let nested = format!("x := {}1{}", open.repeat(40), close.repeat(40));
        refused(&nested, "policy.rego:3: brackets nest deeper than 12");
    }
    refused(&format!("x := {}1{}", "abs(".repeat(60), ")".repeat(60)), "brackets nest deeper");
    refused(&format!("x := 1{}", " + 1".repeat(5_000)), "operators, dots and indexes");
    refused(&format!("x := input{}", ".a".repeat(5_000)), "operators, dots and indexes");
    refused("x := 18446744073709551617", "the number `18446744073709551617` has no exact value");
    refused("x := 1e100000000", "has no exact value");
    refused("x := $\"{input.a}\"", "policy.rego:3");
    refused("x := [1", "policy.rego:");
}

#[test]
fn what_has_no_place_in_a_decision_is_refused_on_every_branch() {
    for call in [
        "http.send({\"url\": \"http://x\"})",
        "net.lookup_ip_addr(\"x\")",
        "net.cidr_expand(\"10.0.0.0/8\")",
        "rand.intn(\"x\", 5)",
        "uuid.rfc4122(\"x\")",
        "time.now_ns()",
        "time.parse_ns(\"日本\", \"x\")",
        "opa.runtime()",
        "yaml.unmarshal(\"a\")",
        "crypto.sha256(\"a\")",
        "io.jwt.decode(\"a\")",
        "walk(input, [a, b])",
        "trace(\"a\")",
    ] {
        // Unreached in a helper, in an else branch, inside a comprehension and a negation.
        refused(&format!("x := 1 if {{false; {call}}}"), "policy.rego:3: ");
        refused(
            &format!("x := 1 if {{false}} else := 2 if {{\n\t[1 | {call}]\n}}"),
            "policy.rego:4: ",
        );
        refused(&format!("f(y) if {{\n\tnot {call}\n}}"), "policy.rego:4: ");
    }
    refused("x if startswith(\"a\")", "`startswith` takes 2 arguments, not 1");
    refused("x if startswith(\"a\", \"b\", y)", "`startswith` takes 2 arguments, not 3");
    refused("f(x) := x\ny := f(1, 2)", "`f` takes 1 arguments, not 2");
    refused("f(a, b, c, d, e, g, h, i, j) := a", "more than 8 parameters");
    refused("startswith(x, y) if true", "`startswith` is also the name of a built-in");
    refused("glob if true", "`glob` is also the name of a built-in");
    refused("__number(x) := x", "reserved");
    refused("x := y", "`y` is not defined");
}

#[test]
fn data_may_not_take_the_place_of_a_rule() {
    let rego = format!("{OPEN}deny contains {{\"message\": \"d\"}}");
    for data in [r#"{"mcp": {"deny": []}}"#, r#"{"mcp": {"decision": {}}}"#, r#"{"mcp": 1}"#] {
        let problems = compile(&rego, Some(data)).unwrap_err();
        assert!(problems.iter().any(|it| it.message.contains("the data has a value")), "{data}");
    }
    for data in ["[]", "1", "{\"a\": 1, \"a\": 2}", "{\"a\": 18446744073709551617}", "{"] {
        let problems = compile(&rego, Some(data)).unwrap_err();
        assert!(problems.iter().any(|it| it.file == "data"), "{data}: {problems:?}");
    }
    assert!(compile(&rego, Some(r#"{"mcp": {"settings": {}}, "other": 1}"#)).is_ok());
}

/// Constructs that an engine easily gets wrong. Those that the compiled engine does not have run on
/// the strict engine.
#[test]
fn constructs_that_are_easily_got_wrong_deny_on_both_engines() {
    let mut compiled = 0;
    for (rego, data) in [
        (
            "default f(_) := false\nf(x) if x == 1\ndeny contains {\"message\": \"d\"} if not f(2)",
            None,
        ),
        (
            "default x := [y | some y in [1]]\nx := [2] if input.nothing\ndeny contains {\"message\": \"d\"} if x == [1]",
            None,
        ),
        (
            "deny contains {\"message\": \"d\"} if count(data.lib) == 2",
            Some(r#"{"lib": {"a": 1, "b": 2}}"#),
        ),
        (
            "a.b contains 1\na.b contains 2\ndeny contains {\"message\": \"d\"} if count(a.b) == 2",
            None,
        ),
        ("a.b := 1\na.c := 2\nk := \"c\"\ndeny contains {\"message\": \"d\"} if a[k] == 2", None),
        (
            "p[x] := y if {some x, y in [\"v\"]}\ndeny contains {\"message\": \"d\"} if p[0] == \"v\"",
            None,
        ),
        (
            "r := 1 if {some x in []; x == 1} else := 2\ndeny contains {\"message\": \"d\"} if r == 2",
            None,
        ),
        ("deny contains {\"message\": \"d\"} if {every x in [1] {x == 1}}", None),
        (
            "deny contains {\"message\": \"d\"} if {o := {k: v | some k, v in {\"a\": 1}}; o.a == 1}",
            None,
        ),
        ("deny contains {\"message\": \"d\"} if {[a, _] = [1, 2]; a == 1}", None),
        ("deny contains {\"message\": \"d\"} if {[a, _] := [1, 2]; a == 1}", None),
        ("deny contains {\"message\": \"d\"} if {0, \"a\" in [\"a\"]}", None),
        (
            "deny contains {\"message\": \"d\"} if {x with input as {\"a\": 1}}\nx if input.a == 1",
            None,
        ),
        ("deny contains {\"message\": \"d\"} if {print(\"x\"); true}", None),
        ("f(\"a\") := 1\nf(\"b\") := 2\ndeny contains {\"message\": \"d\"} if f(\"b\") == 2", None),
        (
            "deny contains {\"message\": \"d\"} if {l := [x.a | some x in [{}, {\"a\": 1}]]; l == [1]}",
            None,
        ),
    ] {
        let policy = compile(&format!("{OPEN}{rego}"), data);
        let both = Both::new(&policy.unwrap());
        compiled += usize::from(both.is_compiled());
        assert_eq!(both.decide(&Scene::new().call("t", None)).effect, Effect::Deny, "{rego}");
    }
    assert_eq!(compiled, 9, "constructs that the compiled engine has");
}

#[test]
fn globs_match_as_in_opa() {
    let rego = format!(
        "{OPEN}{DENY}glob.match(input.tool.arguments.p, input.tool.arguments.d, input.tool.arguments.s)"
    );
    let both = Both::new(&compile(&rego, None).unwrap());
    for (arguments, effect) in [
        (r#"{"p": "*", "d": [":"], "s": "q:r"}"#, Effect::Permit),
        (r#"{"p": "b**", "d": ["."], "s": "bx.y"}"#, Effect::Deny),
        (r#"{"p": "b*", "d": [], "s": "bx.y"}"#, Effect::Permit),
        (r#"{"p": "b*", "d": null, "s": "bx.y"}"#, Effect::Deny),
    ] {
        let arguments = document(arguments);
        assert_eq!(both.decide(&Scene::new().call("t", Some(&arguments))).effect, effect);
    }
}

#[test]
fn a_message_never_makes_a_denial_vanish() {
    for message in
        ["sprintf(\"%d of %s\", [\"x\"])", "sprintf(\"%z\", [1])", "sprintf(\"%s\", [1, 2])"]
    {
        let rego = format!("{OPEN}deny contains {{\"message\": {message}}}");
        let both = Both::new(&compile(&rego, None).unwrap());
        let denied = both.decide(&Scene::new().call("t", None));
        assert_eq!(denied.effect, Effect::Deny);
        assert_eq!(denied.reasons.first().unwrap().origin, Origin::Rule, "{denied:?}");
    }
}

#[test]
fn an_answer_of_another_shape_denies() {
    for decision in [
        "true",
        "\"permit\"",
        "{\"effect\": \"permit\"}",
        "{\"effect\": \"allow\", \"reasons\": []}",
        "{\"effect\": \"permit\", \"reasons\": [{\"message\": \"m\"}], \"warn\": []}",
        "{\"effect\": \"permit\", \"reasons\": [{\"message\": \"m\"}], \"redact\": [{\"pointer\": \"/a\"}]}",
        "{\"effect\": \"permit\", \"reasons\": [{\"message\": \"m\"}], \"limit\": [{\"key\": \"k\", \"rate\": \"often\"}]}",
        "{\"effect\": \"permit\", \"reasons\": [{\"message\": \"m\"}]} if false",
    ] {
        let rego = format!("package own\ndecision := {decision}\nlisting := {{\"hide\": []}}");
        let names = Entrypoints {
            decision: "data.own.decision".to_owned(),
            listing: "data.own.listing".to_owned(),
        };
        let policy =
            Policy::compile(&sources(&rego, None), &names, &EvalLimits::default()).unwrap();
        let denied = Both::new(&policy).decide(&Scene::new().call("t", None));
        assert_eq!(denied.effect, Effect::Deny, "{decision}");
        assert_ne!(denied.reasons.first().unwrap().origin, Origin::Rule, "{decision}");
    }
}

#[test]
fn a_number_that_would_hang_a_reader_never_reaches_an_engine() {
    for number in ["1e100000000", "1e400", &"9".repeat(5_000)] {
        let start = now();
        let read =
            Document::read(format!("{{\"n\": {number}}}").into(), &DocumentLimits::default());
        assert!(read.is_err());
        assert!(start.elapsed() < PATIENCE);
    }
}

/// Both engines answer the same, on the combining rules alone and on a rich policy.
fn agree(rego: &str, data: Option<&str>, inputs: u64, seed: u64) {
    let limits = EvalLimits { proof_inputs: inputs, ..EvalLimits::default() };
    let proof = prove(&sources(rego, data), &Entrypoints::default(), &limits, seed).unwrap();
    assert_eq!(proof.reasons, Vec::<String>::new());
    assert_eq!((proof.compiled, proof.inputs), (true, inputs));
}

#[test]
fn engines_agree_on_60_000_inputs_of_a_plain_policy() {
    let rego = "package mcp
permit contains {\"code\": \"reads\", \"message\": \"reads are open\"} if input.operation.effect == \"read\"
deny contains {\"code\": \"environment\", \"message\": msg} if {
	some env in input.operation.environments
	env != input.server.environment # bartizan:allow undefined-comparison
	msg := sprintf(\"%s is outside %s\", [env, input.server.environment])
}
hold contains {\"message\": \"publishing\", \"approvers\": [\"release\"], \"ttl\": \"15m\"} if \"go-live\" in input.operation.tags
hide contains tool.name if {some tool in input.tools; tool.operation.effect == \"destructive\"}
";
    agree(rego, None, 60_000, 1);
}

#[test]
fn engines_agree_on_40_000_inputs_of_a_rich_policy() {
    agree(RICH, Some(RICH_DATA), 40_000, 2);
}
