//! `policy learn`: the draft permits what was seen, nothing else, and is sound.

use std::fs;

use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::session::Mode;
use bartizan_gate::wire::unseen::is_unseen;
use serde_json::{Value, json};

use super::{Bench, CONFIG, World, call, conversation};

fn observed() -> World {
    World { mode: Mode::Observe, inputs: Inputs::None }
}

#[test]
fn the_draft_permits_what_was_seen_and_is_sound() {
    let bench = Bench::new();
    bench.write("bartizan.yaml", CONFIG);
    bench.record("state", &[], &observed(), &conversation());
    let (code, out, err) = bench.run(&["policy", "learn", "--state", "state", "--out", "learned"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("wrote learned/learned_test.rego"), "{out}");

    let (code, out, err) = bench.run(&["policy", "check", "-p", "learned"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("compiled engine"), "{out}");
    let (code, out, err) =
        bench.run(&["policy", "test", "-p", "learned", "--coverage", "--threshold", "100"]);
    assert_eq!(code, 0, "{out}{err}");

    // All that went through passes, but what the gate itself would have refused.
    let (_, report) = bench.json(&[
        "policy",
        "replay",
        "-p",
        "learned",
        "-c",
        "bartizan.yaml",
        "--state",
        "state",
        "--format",
        "json",
    ]);
    assert_eq!(report["verdicts"], json!({"permit": 25}), "{report:#}");
}

#[test]
fn what_was_not_seen_does_not_pass() {
    let bench = Bench::new();
    bench.write("bartizan.yaml", CONFIG);
    let seen = conversation();
    bench.record("state", &[], &observed(), &seen);
    assert_eq!(bench.run(&["policy", "learn", "--state", "state", "--out", "learned"]).0, 0);
    let others: [Value; 5] = [
        call(1, "list_flags", &json!({"environment": "staging"})),
        call(2, "get_flag", &json!({"key": "k", "environment": "production"})),
        call(3, "get_flag", &json!({"key": "k"})),
        call(4, "update_flag", &json!({"key": "k", "environment": "qa"})),
        super::message(5, "resources/read", &json!({"uri": "file:///b"})),
    ];
    bench.record("others", &[], &observed(), &others);
    let (_, report) = bench.json(&[
        "policy",
        "replay",
        "-p",
        "learned",
        "-c",
        "bartizan.yaml",
        "--state",
        "others",
        "--format",
        "json",
    ]);
    assert_eq!(report["verdicts"], json!({"deny": 5}), "{report:#}");
}

#[test]
fn what_needs_a_second_look_says_so() {
    let bench = Bench::new();
    bench.record("state", &[], &observed(), &conversation());
    assert_eq!(bench.run(&["policy", "learn", "--state", "state", "--out", "learned"]).0, 0);
    let rules = fs::read_to_string(bench.path("learned/learned.rego")).unwrap();
    assert!(!rules.contains("METADATA"), "it would be a second annotation of the package");
    let before = |row: &str| {
        let at = rules.lines().position(|line| line.contains(row));
        rules.lines().nth(at.unwrap_or_else(|| panic!("{row}: {rules}")) - 1).unwrap().to_owned()
    };
    let deleted = before("\"delete_flag\"");
    assert!(deleted.contains("REVIEW: the effect is `destructive`."), "{deleted}");
    assert!(deleted.contains("the policy that ran was against 1 of them: "), "{deleted}");
    assert!(before("\"no_such_tool\"").contains("REVIEW: no pack says"), "{rules}");
    assert!(!before("\"get_flag\"").contains("REVIEW"), "{rules}");

    let pack = fs::read(bench.path("learned/flags.pack.json")).unwrap();
    let pack =
        bartizan_gate::question::pack::Pack::read(&pack).unwrap_or_else(|it| panic!("{it:?}"));
    let tools: Vec<&str> = pack.tools.keys().map(AsRef::as_ref).collect();
    assert_eq!(tools, ["no_such_tool"]);

    // Files that exist are not overwritten.
    let (code, _, err) = bench.run(&["policy", "learn", "--state", "state", "--out", "learned"]);
    assert_eq!(code, 1);
    assert!(err.contains("learned/learned.rego: cannot be written"), "{err}");
}

#[test]
fn names_that_a_stranger_chose_stay_names() {
    let bench = Bench::new();
    let name = "x\"}\n# \u{1b}[2J\u{2028}\u{202e}\u{e0041}\npermit := true\n{\"";
    // As the name of a tool this is refused, whatever the mode (P10); as a URI it is recorded.
    let messages = [
        call(1, name, &json!({})),
        call(2, "x\"} # permit := true {\"", &json!({})),
        super::message(3, "resources/read", &json!({"uri": name})),
    ];
    bench.record("state", &[], &observed(), &messages);
    assert_eq!(bench.run(&["policy", "learn", "--state", "state", "--out", "learned"]).0, 0);
    let (code, out, err) = bench.run(&["policy", "check", "-p", "learned"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = bench.run(&["policy", "test", "-p", "learned"]);
    assert_eq!(code, 0, "{out}{err}");
    for file in ["learned.rego", "learned_test.rego", "flags.pack.json"] {
        let text = fs::read_to_string(bench.path("learned").join(file)).unwrap();
        let layout = |c: char| matches!(c, '\n' | '\t');
        assert!(text.chars().all(|c| layout(c) || !is_unseen(c)), "{text:?}");
    }
    bench.record("empty", &[], &observed(), &[]);
    let (code, _, err) = bench.run(&["policy", "learn", "--state", "empty"]);
    assert_eq!(code, 1);
    assert!(err.contains("no message went through"), "{err}");
}
