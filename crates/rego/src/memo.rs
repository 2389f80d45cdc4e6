//! Decisions that were made already.
//!
//! A decision is a function of policy, data and input, and the input holds only what the policy
//! reads. Where that is who calls what, where, and with which effect, most calls ask what an
//! earlier one asked, and its answer stands: the engine would say the same again.
//!
//! Only for policies that read nothing else ([`READS`]). What is different in every call (arguments,
//! times, traces) would find nothing here, and no value of an argument is kept longer than its
//! call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regorus::Value;

use super::ReadSet;
use bartizan_gate::duty::decision::{Decision, Engine, Origin};
use bartizan_sync::lock;

/// What a policy may read for its decisions to be kept: names, and no number of the message, since
/// two that are equal may be written differently. `phase` and below are not in the input of a
/// decision, or the same in all.
const READS: [&str; 18] = [
    "input.direction",
    "input.method",
    "input.operation",
    "input.params.mode",
    "input.params.url",
    "input.principal.groups",
    "input.principal.id",
    "input.principal.kind",
    "input.protocol",
    "input.resource.ambiguous",
    "input.server",
    "input.tool.drift",
    "input.tool.flags",
    "input.tool.name",
    "input.phase",
    "input.version",
    "input.tools",
    "input.entries",
];

/// Decisions kept; one more, and all are forgotten.
const DECISIONS_MAX: usize = 256;

/// Texts of an input that is kept, bytes together.
const TEXT_BYTES_MAX: usize = 1024;

/// Values of an input that is kept.
const VALUES_MAX: usize = 64;

/// The decisions of one policy.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<BTreeMap<Value, Arc<Decision>>>);

impl Memo {
    /// A memo for a policy that reads `reads`, if its decisions come again.
    pub(super) fn for_policy(reads: &ReadSet) -> Option<Self> {
        let listed = |path: &String| {
            READS.iter().any(|known| {
                path.strip_prefix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        reads.paths().iter().all(listed).then(Self::default)
    }

    /// What `engine` decided about `input`.
    pub(super) fn find(&self, input: &Value, engine: Engine) -> Option<Decision> {
        let known = lock(&self.0).get(input).cloned();
        known.filter(|known| known.engine == engine).map(|known| (*known).clone())
    }

    /// Remembers what was decided about `input`. Trouble is not remembered: it may pass.
    pub(super) fn keep(&self, input: Value, decision: &Decision) {
        let troubled = |it: &Origin| !matches!(it, Origin::Rule | Origin::NotApplicable);
        let kept = is_small(&input) && has_texts_alone(&input["params"]);
        if !kept || decision.reasons.iter().any(|reason| troubled(&reason.origin)) {
            return;
        }
        let decision = Arc::new(decision.clone());
        let mut known = lock(&self.0);
        if known.len() >= DECISIONS_MAX {
            known.clear();
        }
        known.insert(input, decision);
    }
}

/// Whether an object has no member but texts, or is not there.
fn has_texts_alone(params: &Value) -> bool {
    match params {
        Value::Undefined => true,
        Value::Object(members) => members.values().all(|it| matches!(it, Value::String(_))),
        _ => false,
    }
}

/// Whether keeping `input` costs little.
fn is_small(input: &Value) -> bool {
    let (mut values, mut bytes) = (0_usize, 0_usize);
    let mut todo = vec![input];
    while let Some(value) = todo.pop() {
        values = values.saturating_add(1);
        match value {
            Value::String(text) => bytes = bytes.saturating_add(text.len()),
            Value::Array(items) => todo.extend(items.iter()),
            Value::Object(members) => todo.extend(members.iter().flat_map(|(name, it)| [name, it])),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::Set(_) | Value::Undefined => return false,
        }
        if bytes > TEXT_BYTES_MAX || values.saturating_add(todo.len()) > VALUES_MAX {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_gate::duty::decision::{Effect, Reason};

    fn reads(paths: &str) -> ReadSet {
        let body = format!("package p\nx if {{{paths}}}");
        let mut engine = regorus::Engine::new();
        engine.add_policy("p.rego".to_owned(), body).unwrap();
        crate::reachable::reads(engine.get_modules(), &[&"data.p.x".to_owned()])
    }

    fn decision(origin: Origin, engine: Engine) -> Decision {
        let reason = Reason { code: "c".into(), message: "m".into(), origin };
        Decision {
            effect: Effect::Permit,
            reasons: vec![reason],
            obligations: Vec::new(),
            revision: "r".into(),
            engine,
        }
    }

    #[test]
    fn only_for_policies_whose_questions_come_again() {
        for (body, expected) in [
            ("input.method; input.operation.effect; input.server.name; input.tool.name", true),
            ("input.principal.id; input.principal.groups", true),
            ("input.params.url; input.params.mode", true),
            ("input.params.message", false),
            ("input.principal.claims.level", false),
            ("input.principal", false),
            ("input.tool.arguments.key", false),
            ("\"k\" in object.keys(input.tool.arguments)", false),
            ("input.tool", false),
            ("input.tool.namespace", false),
            ("input.time.hour", false),
            ("input.trace_id", false),
            ("input.resource.uri", false),
            ("input", false),
        ] {
            assert_eq!(Memo::for_policy(&reads(body)).is_some(), expected, "{body}");
        }
    }

    #[test]
    fn the_baseline_is_one_of_them() {
        let mut engine = regorus::Engine::new();
        for (name, text) in [
            ("decision", include_str!("../../../policies/mcp/decision.rego")),
            ("definitions", include_str!("../../../policies/baseline/definitions.rego")),
            ("limits", include_str!("../../../policies/baseline/limits.rego")),
            ("protocol", include_str!("../../../policies/baseline/protocol.rego")),
            ("tools", include_str!("../../../policies/baseline/tools.rego")),
        ] {
            engine.add_policy(name.to_owned(), text.to_owned()).unwrap();
        }
        let reads =
            crate::reachable::reads(engine.get_modules(), &[&"data.mcp.decision".to_owned()]);
        assert!(Memo::for_policy(&reads).is_some(), "{:?}", reads.paths());
    }

    #[test]
    fn an_answer_is_the_one_to_this_question_and_of_this_engine() {
        let memo = Memo::default();
        let ask = |method: &str| Value::from_json_str(&format!(r#"{{"method":"{method}"}}"#));
        let (one, other) = (ask("a").unwrap(), ask("b").unwrap());
        let compiled = decision(Origin::Rule, Engine::Compiled);
        memo.keep(one.clone(), &compiled);
        assert_eq!(memo.find(&one, Engine::Compiled), Some(compiled));
        assert_eq!(memo.find(&one, Engine::Strict), None, "that engine was not asked");
        assert_eq!(memo.find(&other, Engine::Compiled), None);
        memo.keep(other.clone(), &decision(Origin::Indeterminate, Engine::Compiled));
        assert_eq!(memo.find(&other, Engine::Compiled), None, "trouble may pass");
    }

    #[test]
    fn what_a_message_says_is_kept_where_it_is_text() {
        let memo = Memo::default();
        let known = decision(Origin::Rule, Engine::Compiled);
        for (params, kept) in [
            (r#"{"url":"https://a"}"#, true),
            (r#"{"url":1}"#, false),
            (r#"{"url":[]}"#, false),
            ("1", false),
        ] {
            let input = Value::from_json_str(&format!(r#"{{"params":{params}}}"#)).unwrap();
            memo.keep(input.clone(), &known);
            assert_eq!(memo.find(&input, Engine::Compiled).is_some(), kept, "{params}");
        }
    }

    #[test]
    fn it_stays_small() {
        let memo = Memo::default();
        let known = decision(Origin::Rule, Engine::Compiled);
        let long = Value::from("x".repeat(TEXT_BYTES_MAX + 1));
        memo.keep(long.clone(), &known);
        assert_eq!(memo.find(&long, Engine::Compiled), None);
        let many = Value::from(vec![Value::Null; VALUES_MAX]);
        memo.keep(many.clone(), &known);
        assert_eq!(memo.find(&many, Engine::Compiled), None);
        for number in 0..=DECISIONS_MAX {
            memo.keep(Value::from(number.to_string()), &known);
            assert!(memo.0.lock().unwrap().len() <= DECISIONS_MAX);
        }
        assert!(memo.find(&Value::from(DECISIONS_MAX.to_string()), Engine::Compiled).is_some());
    }
}
