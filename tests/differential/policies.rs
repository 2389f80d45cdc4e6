//! Evaluates policies on both engines for `opa.py`, which compares the answers with OPA's.
//!
//! Each line of standard input is a JSON object: `modules`, an object of Rego texts by path, `data`,
//! `inputs`, and `entry`, the rule to evaluate. Each line of standard output says what became of
//! it: `refused` with the problems, or `strict` and `compiled`, with one answer for each input: an
//! object with `value` (absent where undefined) or `error`. `compiled` is null where the compiled
//! engine may not run the policy; `obstacles` says why. Where `entry` is an array of rules, the line has
//! `answers` instead, one of the strict engine for each rule. To `{"list": true}` the answer is the
//! capabilities file.

use std::io::{BufRead as _, Write as _};

use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources, capabilities};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        writeln!(out, "{}", judged(&case))?;
        out.flush()?;
    }
    Ok(())
}

fn judged(case: &Value) -> Value {
    if case.get("list").is_some() {
        return capabilities().parse().unwrap_or_default();
    }
    let modules = case["modules"].as_object().into_iter().flatten();
    let modules = modules.map(|(path, text)| Module {
        path: path.clone(),
        text: text.as_str().unwrap_or_default().to_owned(),
    });
    let sources = PolicySources {
        modules: modules.collect(),
        data: Some(case["data"].to_string()),
        revision: "generated".into(),
    };
    let several: Option<Vec<&str>> =
        case["entry"].as_array().map(|all| all.iter().filter_map(Value::as_str).collect());
    let entry = several.as_ref().map_or_else(|| case["entry"].as_str(), |all| all.first().copied());
    let entry = entry.unwrap_or_default().to_owned();
    let entrypoints = Entrypoints { decision: entry.clone(), listing: entry.clone() };
    // A generated policy is small, and this machine may be busy.
    let limits =
        EvalLimits { time_max: std::time::Duration::from_mins(1), ..EvalLimits::default() };
    let policy = match Policy::compile(&sources, &entrypoints, &limits) {
        Ok(policy) => policy,
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return json!({ "refused": problems });
        }
    };
    let inputs = case["inputs"].as_array().cloned().unwrap_or_default();
    let answer = |entry: &str, input: &Value, engine: Engine| match policy.evaluate(
        entry,
        &input.to_string(),
        engine,
    ) {
        Ok(text) if text == "undefined" => json!({}),
        Ok(text) => match serde_json::from_str::<Value>(&text) {
            Ok(value) => json!({ "value": value }),
            Err(error) => json!({ "error": error.to_string() }),
        },
        Err(problem) => json!({ "error": problem.message }),
    };
    if let Some(entries) = several {
        let answers = entries.iter().map(|entry| answer(entry, &json!({}), Engine::Strict));
        return json!({ "answers": answers.collect::<Vec<Value>>() });
    }
    let answers = |engine: Engine| -> Vec<Value> {
        inputs.iter().map(|input| answer(&entry, input, engine)).collect()
    };
    let obstacles = policy.obstacles();
    json!({
        "strict": answers(Engine::Strict),
        "compiled": obstacles.is_empty().then(|| answers(Engine::Compiled)),
        "obstacles": obstacles,
    })
}
