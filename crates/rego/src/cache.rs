//! The decision cache of one policy.
//!
//! A decision is a function of policy, data and input, and the input holds only what the policy
//! reads. A policy that reads only who calls which method or tool, where, and with which effect
//! gets the same input for most calls, so an earlier decision can be returned without an
//! evaluation.
//!
//! Policies that read anything else ([`CACHEABLE_READS`]) have no cache: arguments, times and
//! trace ids differ in every call, so it would have no hits, and the value of an argument, which
//! may be a secret, must not be stored after its call. The PDP in `engines` is the only user.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regorus::Value;

use super::ReadSet;
use bartizan_gate::duty::decision::{Decision, Engine, Origin};
use bartizan_sync::lock;

/// The paths that a policy may read and still have a cache. They hold names, and no number from the
/// message, because `1.0` and `1` compare equal as keys but are different texts. `phase` and the
/// paths after it are absent from a decision's input, or constant in it.
const CACHEABLE_READS: [&str; 20] = [
    // Decisions on answers are not looked up here.
    "input.answer",
    "input.direction",
    "input.elicitation",
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

/// Most decisions in the cache. A further one clears it first.
const DECISIONS_MAX: usize = 256;

/// Largest input that is stored: its strings together, bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Largest input that is stored: its values, member names included.
const VALUES_MAX: usize = 64;

/// The cached decisions of one policy, by input. No panic can leave the map half-updated, so a
/// poisoned lock is safe.
#[derive(Debug, Default)]
pub(super) struct DecisionCache(Mutex<BTreeMap<Value, Arc<Decision>>>);

impl DecisionCache {
    /// An empty cache for a policy that reads `reads`; `None` where it reads a path outside
    /// [`CACHEABLE_READS`].
    pub(super) fn for_policy(reads: &ReadSet) -> Option<Self> {
        let listed = |path: &String| {
            CACHEABLE_READS.iter().any(|known| {
                path.strip_prefix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        reads.paths().iter().all(listed).then(Self::default)
    }

    /// The decision of `engine` on `input`; `None` on a cache miss.
    pub(super) fn get(&self, input: &Value, engine: Engine) -> Option<Decision> {
        let known = lock(&self.0).get(input).cloned();
        known.filter(|known| known.engine == engine).map(|known| (*known).clone())
    }

    /// Stores a decision, unless its input is large or it reports an error: an error such as a
    /// timeout may not happen again.
    pub(super) fn insert(&self, input: Value, decision: &Decision) {
        let is_error = |it: &Origin| !matches!(it, Origin::Rule | Origin::NotApplicable);
        let cacheable = is_small(&input) && has_only_strings(&input["params"]);
        if !cacheable || decision.reasons.iter().any(|reason| is_error(&reason.origin)) {
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

/// Whether a value is undefined, or an object whose members are all strings.
fn has_only_strings(params: &Value) -> bool {
    match params {
        Value::Undefined => true,
        Value::Object(members) => members.values().all(|it| matches!(it, Value::String(_))),
        _ => false,
    }
}

/// Whether an input is within [`TEXT_BYTES_MAX`] and [`VALUES_MAX`], and has no sets.
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
    fn a_policy_that_reads_arguments_or_times_has_no_cache() {
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
            assert_eq!(DecisionCache::for_policy(&reads(body)).is_some(), expected, "{body}");
        }
    }

    #[test]
    fn the_baseline_has_a_cache() {
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
        assert!(DecisionCache::for_policy(&reads).is_some(), "{:?}", reads.paths());
    }

    #[test]
    fn a_hit_needs_the_same_input_and_the_same_engine() {
        let cache = DecisionCache::default();
        let ask = |method: &str| Value::from_json_str(&format!(r#"{{"method":"{method}"}}"#));
        let (one, other) = (ask("a").unwrap(), ask("b").unwrap());
        let compiled = decision(Origin::Rule, Engine::Compiled);
        cache.insert(one.clone(), &compiled);
        assert_eq!(cache.get(&one, Engine::Compiled), Some(compiled));
        assert_eq!(cache.get(&one, Engine::Strict), None, "another engine's decision");
        assert_eq!(cache.get(&other, Engine::Compiled), None);
        cache.insert(other.clone(), &decision(Origin::Indeterminate, Engine::Compiled));
        assert_eq!(cache.get(&other, Engine::Compiled), None, "errors are not stored");
    }

    #[test]
    fn parameters_are_stored_only_where_all_are_strings() {
        let cache = DecisionCache::default();
        let known = decision(Origin::Rule, Engine::Compiled);
        for (params, kept) in [
            (r#"{"url":"https://a"}"#, true),
            (r#"{"url":1}"#, false),
            (r#"{"url":[]}"#, false),
            ("1", false),
        ] {
            let input = Value::from_json_str(&format!(r#"{{"params":{params}}}"#)).unwrap();
            cache.insert(input.clone(), &known);
            assert_eq!(cache.get(&input, Engine::Compiled).is_some(), kept, "{params}");
        }
    }

    #[test]
    fn size_of_cache_and_inputs_is_bounded() {
        let cache = DecisionCache::default();
        let known = decision(Origin::Rule, Engine::Compiled);
        let long = Value::from("x".repeat(TEXT_BYTES_MAX + 1));
        cache.insert(long.clone(), &known);
        assert_eq!(cache.get(&long, Engine::Compiled), None);
        let many = Value::from(vec![Value::Null; VALUES_MAX]);
        cache.insert(many.clone(), &known);
        assert_eq!(cache.get(&many, Engine::Compiled), None);
        for number in 0..=DECISIONS_MAX {
            cache.insert(Value::from(number.to_string()), &known);
            assert!(cache.0.lock().unwrap().len() <= DECISIONS_MAX);
        }
        assert!(cache.get(&Value::from(DECISIONS_MAX.to_string()), Engine::Compiled).is_some());
    }
}
