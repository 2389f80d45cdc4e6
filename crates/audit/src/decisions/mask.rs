//! Applies masks: what a policy removes from an event or replaces in it.
//!
//! The format is OPA's (Open Policy Agent documentation, "Masking Sensitive Data";
//! `data.system.log.mask`): a set of paths to remove, such as `/input/principal/claims`, or of
//! objects with `op` (`remove` or `upsert`), `path` and `value`. A path that does not exist changes
//! nothing. A mask in any other format is an error, and the event then loses `input` and `result`.
//! Evaluating the rule is the caller's job.

use serde_json::{Map, Value};

/// One change to an event.
#[derive(Debug)]
struct MaskRule {
    path: Vec<String>,
    /// The new value; `None` removes the old one.
    value: Option<Value>,
}

/// Applies `mask`, JSON text, to `event`: all rules, or none if any rule is invalid.
///
/// # Errors
///
/// What is wrong with the mask.
pub(super) fn apply(event: &mut Value, mask: &str) -> Result<(), String> {
    let mask: Value = serde_json::from_str(mask).map_err(|error| error.to_string())?;
    let Value::Array(written) = mask else { return Err("the mask is not a set".to_owned()) };
    let rules: Result<Vec<MaskRule>, String> = written.into_iter().map(rule).collect();
    for rule in rules? {
        let pointer = format!("/{}", rule.path.join("/"));
        let (done, list) = match rule.value {
            None => (remove(event, &rule.path), "erased"),
            Some(value) => (upsert(event, &rule.path, value), "masked"),
        };
        if done {
            note(event, list, pointer);
        }
    }
    Ok(())
}

/// Removes everything that a mask could have removed, and notes `cause` in the event.
pub(super) fn strip(event: &mut Value, cause: &str) {
    for name in ["input", "result"] {
        if remove(event, &[name.to_owned()]) {
            note(event, "erased", format!("/{name}"));
        }
    }
    if let Some(members) = event.as_object_mut() {
        let error = serde_json::json!({"code": "mask_error", "message": cause});
        members.insert("error".to_owned(), error);
    }
}

fn rule(written: Value) -> Result<MaskRule, String> {
    match written {
        Value::String(path) => Ok(MaskRule { path: self::path(&path)?, value: None }),
        Value::Object(mut members) => {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            let path = text(members.get("path")).ok_or("a mask has no `path`")?;
            let path = self::path(&path)?;
            match text(members.get("op")).as_deref() {
                Some("remove") => Ok(MaskRule { path, value: None }),
                Some("upsert") => {
                    let value = members.remove("value").unwrap_or(Value::Null);
                    Ok(MaskRule { path, value: Some(value) })
                }
                _ => Err("a mask's `op` is neither `remove` nor `upsert`".to_owned()),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err("a mask is neither a path nor an object".to_owned())
        }
    }
}

fn path(written: &str) -> Result<Vec<String>, String> {
    let rest = written.strip_prefix('/').ok_or("a mask's path does not begin with `/`")?;
    let path: Vec<String> = rest.split('/').map(str::to_owned).collect();
    match path.first().map(String::as_str) {
        // The policy engine allows no non-deterministic built-ins, so `nd_builtin_cache` is always
        // absent.
        Some("input" | "result" | "nd_builtin_cache") => Ok(path),
        _ => Err("a mask's path is outside of `/input` and `/result`".to_owned()),
    }
}

/// Removes the value at `path`; `false` if there is none.
fn remove(event: &mut Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(event, |value, name| child(value, name));
    match parent {
        Some(Value::Object(members)) => members.remove(last).is_some(),
        Some(Value::Array(elements)) => match last.parse::<usize>() {
            Ok(at) if at < elements.len() => {
                elements.remove(at);
                true
            }
            Ok(_) | Err(_) => false,
        },
        _ => false,
    }
}

/// Sets the value at `path` and creates missing objects on the way; `false` if a value of another
/// kind is in the way, or if the event has no `input` or `result`.
fn upsert(event: &mut Value, path: &[String], value: Value) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let root = path.first().map(String::as_str).unwrap_or_default();
    if event.get(root).is_none() {
        return false;
    }
    let parent = parents.iter().try_fold(event, |value, name| {
        if let Some(members) = value.as_object_mut() {
            members.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
        }
        child(value, name)
    });
    match parent {
        Some(Value::Object(members)) => {
            members.insert(last.clone(), value);
            true
        }
        Some(Value::Array(elements)) => {
            let element = last.parse::<usize>().ok().and_then(|at| elements.get_mut(at));
            element.map(|element| *element = value).is_some()
        }
        _ => false,
    }
}

fn child<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(members) => members.get_mut(name),
        Value::Array(elements) => elements.get_mut(name.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Adds `pointer` to the event's list `erased` or `masked`.
fn note(event: &mut Value, list: &str, pointer: String) {
    if let Some(members) = event.as_object_mut()
        && let Value::Array(done) = members.entry(list).or_insert_with(|| Value::Array(Vec::new()))
    {
        done.push(pointer.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn masks_do_what_opas_do() {
        for (mask, expected) in [
            (json!([]), json!({"input": {"a": {"b": 1}, "l": [1, 2]}, "result": {"e": 1}})),
            (
                json!(["/input/a/b", "/input/gone", "/input/a/b/c"]),
                json!({"input": {"a": {}, "l": [1, 2]}, "result": {"e": 1}, "erased": ["/input/a/b"]}),
            ),
            (json!(["/input"]), json!({"result": {"e": 1}, "erased": ["/input"]})),
            (
                json!([{"op": "remove", "path": "/input/l/0"}]),
                json!({"input": {"a": {"b": 1}, "l": [2]}, "result": {"e": 1}, "erased": ["/input/l/0"]}),
            ),
            (
                json!([{"op": "upsert", "path": "/input/a/b", "value": "***"}, {"op": "upsert", "path": "/input/x/y", "value": 2}]),
                json!({"input": {"a": {"b": "***"}, "l": [1, 2], "x": {"y": 2}}, "result": {"e": 1}, "masked": ["/input/a/b", "/input/x/y"]}),
            ),
            (
                json!([{"op": "upsert", "path": "/result", "value": "hidden"}, {"op": "upsert", "path": "/input/l/1/z", "value": 0}]),
                json!({"input": {"a": {"b": 1}, "l": [1, 2]}, "result": "hidden", "masked": ["/result"]}),
            ),
        ] {
            let mut event = json!({"input": {"a": {"b": 1}, "l": [1, 2]}, "result": {"e": 1}});
            apply(&mut event, &mask.to_string()).unwrap();
            assert_eq!(event, expected, "{mask}");
        }
    }

    #[test]
    fn a_mask_in_error_changes_nothing_by_itself() {
        for mask in [
            "{}",
            "[1]",
            "[\"input\"]",
            "[\"/labels/id\"]",
            "[\"/\"]",
            "undefined",
            r#"["/input/a", {"path": "/input/b"}]"#,
            r#"[{"op": "copy", "path": "/input"}]"#,
        ] {
            let whole = json!({"input": {"a": 1}});
            let mut event = whole.clone();
            assert!(apply(&mut event, mask).is_err(), "{mask}");
            assert_eq!(event, whole, "{mask}");
        }
    }
}
