//! Every policy that the documents show is at least as strict as the baseline: the baseline's own
//! tests pass with it, and by itself it permits nothing that the baseline refuses.

use std::collections::BTreeMap;
use std::path::Path;

use bartizan_rego::{
    Entrypoints, EvalLimits, Module, Policy, PolicySources, RuleQuery, lint, run_tests,
};
use serde_json::{Value, json};

use super::fence::fences;
use super::{root, text_of};

/// The pages with policies, and how many each has. A new one is compared, too, once it is counted.
const POLICIES: &[(&str, usize)] =
    &[("README.md", 1), ("docs/approvals.md", 1), ("docs/oauth.md", 1), ("docs/policy.md", 6)];

/// The Rego files of a directory; `tests` says whether those with tests count.
fn modules(directory: &str, tests: bool) -> Vec<Module> {
    let entries = std::fs::read_dir(root().join(directory)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let rego = |path: &Path| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        path.extension().is_some_and(|it| it == "rego") && (tests || !stem.ends_with("_test"))
    };
    paths.retain(|path| rego(path));
    let read = |path: &Path| Module {
        path: path.display().to_string(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(|path| read(path)).collect()
}

fn sources(modules: Vec<Module>) -> PolicySources {
    PolicySources { modules, data: None, revision: "r1".into() }
}

/// The policies in the documents, and the checked-in examples that go with the baseline.
fn examples() -> Vec<Module> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut examples = modules("policies/examples/read-only", false);
    examples.extend(modules("policies/examples/review-rollouts", false));
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|it| it.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let pages = pages.map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()));
    for page in pages.chain(["README.md".to_owned()]) {
        for fence in fences(&page, &text_of(&page)) {
            if fence.language == "rego" && fence.body.lines().any(|line| line == "package mcp") {
                *found.entry(page.clone()).or_default() += 1;
                examples.push(Module { path: fence.place, text: fence.body });
            }
        }
    }
    let counted = POLICIES.iter().map(|(page, count)| ((*page).to_owned(), *count)).collect();
    assert_eq!(found, counted, "a page gained or lost a policy");
    examples
}

const TO_SERVER: &[&str] = &["to_server"];
const TO_CLIENT: &[&str] = &["to_client"];
const BOTH: &[&str] = &["to_server", "to_client"];

/// Inputs of every kind that the baseline tells apart.
fn inputs() -> Vec<Value> {
    let server = |pin: &Value| json!({"name": "flags", "environment": pin, "labels": {}});
    let principal = json!({
        "id": "agent-1", "kind": "agent", "claims": {}, "groups": ["flag-operators"],
    });
    let mut inputs = Vec::new();
    // What the gate asks about: a method on the side that may not send it is refused before.
    for (method, directions, effects) in [
        ("tools/call", BOTH, ["read", "write", "destructive", "exec", "unknown"].as_slice()),
        ("resources/read", TO_SERVER, &["read"]),
        ("resources/subscribe", TO_SERVER, &["read"]),
        ("subscriptions/listen", TO_SERVER, &["read"]),
        ("prompts/get", TO_SERVER, &["read"]),
        ("elicitation/create", TO_CLIENT, &["write"]),
        ("sampling/createMessage", TO_CLIENT, &["exec"]),
        ("roots/list", TO_CLIENT, &["read"]),
        ("vendor/reindex", BOTH, &["unknown"]),
    ] {
        for direction in directions {
            for effect in effects {
                for source in ["arguments", "absent", "unmapped", "unreadable", "none"] {
                    for environments in
                        [json!([]), json!(["staging"]), json!(["production"]), json!(["*"])]
                    {
                        for tags in [
                            json!([]),
                            json!(["credential-read"]),
                            json!(["approval-control"]),
                            json!(["session-state"]),
                            json!(["go-live"]),
                        ] {
                            let mut input = json!({
                                "version": 1, "phase": "call", "method": method,
                                "direction": direction, "principal": principal,
                                "server": server(&json!("staging")),
                                "operation": {
                                    "effect": effect, "environments": environments,
                                    "environment_source": source, "tags": tags,
                                },
                                "session": {"facts": {}},
                            });
                            match method {
                                "tools/call" => {
                                    input["tool"] = json!({"name": "some_tool", "arguments": {}});
                                }
                                "prompts/get" => {
                                    input["prompt"] = json!({"name": "p", "arguments": {}});
                                }
                                "elicitation/create" => {
                                    input["params"] = json!({"mode": "url", "url": "http://a"});
                                    input["elicitation"] = json!({
                                        "mode": "url", "url": "http://a",
                                        "parsed": {"scheme": "http", "host": "a"},
                                    });
                                }
                                _ => {
                                    input["resource"] = json!({"uri": "a:b", "ambiguous": true});
                                }
                            }
                            inputs.push(input);
                        }
                    }
                }
            }
        }
    }
    let call = inputs.iter().find(|input| input["method"] == "tools/call").unwrap().clone();
    for (member, value) in [
        ("drift", json!("changed")),
        ("drift", json!("added")),
        ("drift", json!("unlocked")),
        ("flags", json!(["bidi"])),
        ("flags", json!(["twin"])),
    ] {
        let mut input = call.clone();
        input["tool"][member] = value;
        inputs.push(input);
    }
    // A server without a pin.
    let unpinned: Vec<Value> = inputs.clone().into_iter().step_by(7).collect();
    inputs.extend(unpinned.into_iter().map(|mut input| {
        input["server"] = json!({"name": "flags", "labels": {}});
        input
    }));
    inputs
}

fn permits(query: &mut RuleQuery, input: &Value) -> bool {
    let text = query.evaluate(&input.to_string());
    let text = text.unwrap_or_else(|error| panic!("{error}: {input}")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["effect"] == "permit"
}

fn compile(modules: Vec<Module>) -> RuleQuery {
    let compiled =
        Policy::compile(&sources(modules), &Entrypoints::default(), &EvalLimits::default());
    let policy = compiled.unwrap_or_else(|problems| panic!("{problems:#?}"));
    RuleQuery::new(&policy, "data.mcp.decision").unwrap()
}

#[test]
fn no_example_permits_what_the_baseline_refuses() {
    // G25.
    let decision = modules("policies/mcp", false);
    let mut baseline = compile([decision.clone(), modules("policies/baseline", false)].concat());
    let inputs = inputs();
    let refused: Vec<&Value> =
        inputs.iter().filter(|input| !permits(&mut baseline, input)).collect();
    assert!(refused.len() > 1_000 && refused.len() < inputs.len(), "{}", refused.len());
    for example in examples() {
        let place = example.path.clone();
        // The example in the repository is made for use with the baseline; the others stand alone.
        let with_baseline = place.contains("policies/examples");
        let base = if with_baseline { modules("policies/baseline", false) } else { Vec::new() };
        let mut policy = compile([decision.clone(), base, vec![example]].concat());
        let opened = refused.iter().find(|input| permits(&mut policy, input));
        assert!(opened.is_none(), "{place} permits {opened:#?}");
    }
}

#[test]
fn the_baselines_tests_pass_with_every_example() {
    let decision = modules("policies/mcp", false);
    for example in examples() {
        let place = example.path.clone();
        let together =
            [decision.clone(), modules("policies/baseline", true), vec![example]].concat();
        let outcomes = run_tests(&sources(together), &EvalLimits::default()).unwrap();
        assert!(outcomes.len() > 50, "{place}");
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
        assert!(failed.is_empty(), "{place}: {failed:#?}");
    }
}

#[test]
fn no_example_is_a_trap() {
    let decision = modules("policies/mcp", false);
    for example in examples() {
        let place = example.path.clone();
        let together = sources([decision.clone(), vec![example]].concat());
        let found = lint(&together, &EvalLimits::default(), &|path| path == place);
        let found = found.unwrap_or_else(|problems| panic!("{place}: {problems:#?}"));
        assert!(found.is_empty(), "{found:#?}");
    }
}
