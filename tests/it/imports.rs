//! Packages that are split over files, and the imports that reach them.
//!
//! The engine underneath evaluates a whole package module by module and forgets the later ones, so
//! a `deny` that uses an import could be lost. These cases show that none is.

use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources};

const FIRST: &str = "package org\n\nbad contains \"a\" if input.method == \"a\"\n";
const SECOND: &str =
    "package org\n\nbad contains \"b\" if flagged\n\nflagged if input.method == \"b\"\n";

fn policy(rule: &str, files: [(&str, &str); 2]) -> Result<Policy, String> {
    let rule = format!(
        "package mcp\n\nimport data.org\nimport data.org as firm\n\n{rule}\n\n\
         decision := {{\"effect\": \"deny\", \"reasons\": deny}} if {{\n\tcount(deny) > 0\n}} else := \
         {{\"effect\": \"permit\", \"reasons\": [{{\"message\": \"ok\"}}]}}\n\nlisting := {{\"hide\": []}}\n"
    );
    let mut modules: Vec<Module> = files
        .into_iter()
        .map(|(path, text)| Module { path: path.to_owned(), text: text.to_owned() })
        .collect();
    modules.push(Module { path: "m.rego".to_owned(), text: rule });
    let sources = PolicySources { modules, data: None, revision: "r".into() };
    Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).map_err(|problems| {
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
    })
}

#[test]
fn a_rule_of_a_split_package_is_seen_through_every_import() {
    for through in ["org", "firm", "data.org"] {
        let rule = format!("deny contains {{\"message\": x}} if some x in {through}.bad");
        for files in
            [[("a.rego", FIRST), ("b.rego", SECOND)], [("a.rego", SECOND), ("b.rego", FIRST)]]
        {
            let policy = policy(&rule, files).unwrap();
            for engine in [Engine::Strict, Engine::Compiled] {
                for method in ["a", "b"] {
                    let input = format!("{{\"method\":\"{method}\"}}");
                    let decision = policy.evaluate("data.mcp.decision", &input, engine).unwrap();
                    assert!(
                        decision.contains("\"deny\"") && decision.contains(method),
                        "{through} {method} {engine:?}: {decision}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_reference_to_a_whole_package_is_refused() {
    for body in
        ["m := data.org; some x in m.bad", "some x in data.org[y]", "m := firm; some x in m.bad"]
    {
        let rule = format!("deny contains {{\"message\": x}} if {{ {body} }}");
        let refused = policy(&rule, [("a.rego", FIRST), ("b.rego", SECOND)]).unwrap_err();
        assert!(refused.contains("a whole package"), "{body}: {refused}");
    }
}
