//! Converts a record with a decision to an event of OPA's decision logs (Open Policy Agent
//! documentation, "Decision Logs", "Decision Log Events").
//!
//! The policy input that the record holds becomes `input`. Without it (`audit.inputs: none`),
//! `input` is built from the facts that every record has. Members of the input that are not
//! available are listed in `erased`, so that nobody takes them for absent. `result` is the
//! firewall's decision with its obligations.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::entry::{JournalRecord, TargetRecord};

/// The members that all events have in common.
pub(crate) struct EventTemplate {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) path: String,
}

/// The name under which events report the policy's revision; there is always one policy.
const BUNDLE: &str = "policy";

impl EventTemplate {
    /// The event of a record; `None` for a record without a decision on a message.
    pub(crate) fn event(&self, entry: JournalRecord) -> Option<Value> {
        if !matches!(entry.event.as_str(), "intent" | "denial" | "notice" | "drop" | "repeated") {
            return None;
        }
        let decision = entry.decision.as_ref()?;
        let call = entry.call.clone()?;
        let reasons = decision.reasons.iter().map(|reason| {
            json!({"code": reason.code, "message": reason.message, "origin": reason.origin})
        });
        let result = json!({
            "effect": decision.effect,
            "reasons": reasons.collect::<Vec<_>>(),
            "obligations": decision.obligations,
        });
        let custom = json!({
            "seq": entry.seq,
            "boot": entry.boot,
            "event": entry.event,
            "enforced": decision.enforced,
            "engine": decision.engine,
            "finding": entry.finding,
            "repeated": entry.repeated,
        });
        let mut event = json!({
            "labels": self.labels,
            "decision_id": call,
            "bundles": {BUNDLE: {"revision": decision.policy}},
            "path": self.path,
            "result": result,
            "timestamp": entry.time,
            "custom": {"bartizan": custom},
        });
        let trace_id = entry.trace_id.clone();
        let (input, left_out) = input(entry);
        let members = event.as_object_mut()?;
        members.insert("input".to_owned(), input);
        let erased: Vec<String> = left_out.iter().map(|it| format!("/input{it}")).collect();
        if !erased.is_empty() {
            members.insert("erased".to_owned(), erased.into());
        }
        if let Some(trace_id) = trace_id {
            members.insert("trace_id".to_owned(), trace_id.into());
        }
        Some(event)
    }
}

/// The input as far as the record holds it, and JSON pointers to the members that it does not hold.
fn input(entry: JournalRecord) -> (Value, Vec<String>) {
    if let Some(input) = entry.input {
        return (input, entry.input_left_out);
    }
    let mut known = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            known.insert(name.to_owned(), value);
        }
    };
    put("version", Some(Value::from(1)));
    put("phase", Some(Value::from("call")));
    put("direction", entry.direction.map(Value::from));
    put("method", entry.method.map(Value::from));
    put("principal", entry.principal.map(|id| json!({ "id": id })));
    put("server", entry.server.map(|name| json!({ "name": name })));
    put("time", Some(json!({"rfc3339": entry.time})));
    put("trace_id", entry.trace_id.map(Value::from));
    put(
        "protocol",
        entry.protocol.map(|protocol| {
            present(json!({
                "revision": protocol.revision,
                "era": protocol.era,
                "transport": protocol.transport,
            }))
        }),
    );
    put(
        "operation",
        entry.operation.map(|operation| {
            present(json!({
                "name": operation.name,
                "effect": operation.effect,
                "environments": operation.environments,
                "environment_source": operation.environment_source,
                "tags": operation.tags,
                "pack": operation.pack,
            }))
        }),
    );
    let mut left_out: Vec<&str> = vec![
        "/client",
        "/elicitation",
        "/params",
        "/session",
        "/principal/kind",
        "/principal/groups",
        "/principal/claims",
        "/server/environment",
        "/server/labels",
        "/server/rates",
        "/time/hour",
        "/time/unix_ms",
        "/time/weekday",
    ];
    match target(entry.target.unwrap_or_default()) {
        Some((name, value, lacks)) => {
            put(name, Some(value));
            left_out.extend(lacks);
        }
        None => left_out.push("/resources"),
    }
    (Value::Object(known), left_out.into_iter().map(str::to_owned).collect())
}

/// The member of the input for the target, and JSON pointers to what is not known of it.
fn target(target: TargetRecord) -> Option<(&'static str, Value, &'static [&'static str])> {
    if let Some(name) = target.tool {
        let flags = (!target.flags.is_empty()).then_some(target.flags);
        let tool = present(json!({
            "name": name,
            "definition_digest": target.definition,
            "drift": target.drift,
            "flags": flags,
        }));
        return Some(("tool", tool, &["/tool/arguments", "/tool/definition"]));
    }
    if let Some(name) = target.prompt {
        return Some(("prompt", json!({ "name": name }), &["/prompt/arguments"]));
    }
    if let Some(uri) = target.uri {
        return Some(("resource", json!({ "uri": uri }), &["/resource/ambiguous"]));
    }
    let lacks: &[&str] = &["/task/method", "/task/tool", "/task/operation"];
    target.task.map(|id| ("task", json!({ "id": id }), lacks))
}

/// `object` without its `null` members.
fn present(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}
