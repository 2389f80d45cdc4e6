//! The policy input that a record keeps, within a limit.
//!
//! A value is kept as it is or left out; it is never cut, because a replay would then judge another
//! value. What is too large is left out with its whole part, largest parts first, and so is a text
//! that holds a secret of a known form.

use serde::Serialize;
use serde_json::Value;

use super::super::mask;
use super::super::text::{Listed, Pointer, Text, written_bytes};
use super::LEFT_OUT_MAX;
use crate::duty::pdp::RecordedInput;
use crate::duty::redact;

/// Largest policy input in a record, bytes as the journal writes them.
pub(super) const INPUT_BYTES_MAX: usize = 256 << 10;

/// Largest member of the input, bytes as the journal writes them.
const MEMBER_BYTES_MAX: usize = 64 << 10;

/// Largest member of such a member, bytes as the journal writes them.
const PART_BYTES_MAX: usize = 32 << 10;

/// Work spent on searching one part for secrets, bytes, counted as `redact` counts them; a part that
/// needs more is left out.
const SEARCH_BYTES_MAX: usize = 8 << 20;

/// A policy input of at most 256 KiB as JSON text, without secrets of known forms.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct KeptInput(Value);

impl From<Value> for KeptInput {
    /// `input`, or `null` if it is too large.
    fn from(input: Value) -> Self {
        Self::of(RecordedInput { input, left_out: Vec::new() }).0
    }
}

/// The pointers to what was left out.
type LeftOut = Listed<Text<Pointer>, LEFT_OUT_MAX>;

impl KeptInput {
    /// What a record keeps of `recorded`, and the pointers to everything that was left out.
    pub(super) fn of(recorded: RecordedInput) -> (Self, LeftOut) {
        let RecordedInput { mut input, mut left_out } = recorded;
        let mut found = Vec::new();
        if let Value::Object(members) = &mut input {
            for (name, member) in members {
                let mut at = String::new();
                push_name(&mut at, name);
                let within = |pointer: &&String| pointer.starts_with(&at) && !is_listable(pointer);
                if left_out.iter().any(|pointer| within(&pointer)) {
                    *member = Value::Null;
                    found.push(at);
                } else {
                    keep_part(member, &at, 0, &mut found);
                }
            }
        }
        // What stands below a part that was left out is not listed again.
        let below = |pointer: &String| {
            let rest = |part: &String| pointer.strip_prefix(part.as_str());
            found.iter().filter_map(rest).any(|rest| rest.starts_with('/'))
        };
        left_out.retain(|pointer| !below(pointer));
        left_out.append(&mut found);
        let listable = left_out.len() <= LEFT_OUT_MAX && left_out.iter().all(|it| is_listable(it));
        if written(&input) > INPUT_BYTES_MAX || !listable {
            // A pointer that cannot be listed would make a reader take the null for the value.
            return (Self(Value::Null), Listed::from(vec![""]));
        }
        (Self(input), left_out.iter().collect())
    }

    /// The input; `null` where parts were left out.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

/// Leaves out of one part what is too large or secret; in a member of the input, first of its own
/// members.
fn keep_part(part: &mut Value, at: &str, depth: usize, left_out: &mut Vec<String>) {
    let before = left_out.len();
    let bytes_max = match part {
        Value::Object(members) if depth == 0 => {
            for (name, member) in members {
                let mut at = at.to_owned();
                push_name(&mut at, name);
                keep_part(member, &at, 1, left_out);
            }
            MEMBER_BYTES_MAX
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => PART_BYTES_MAX,
    };
    let mut kept = written(part) <= bytes_max;
    if kept && bytes_max == PART_BYTES_MAX {
        leave_secrets_out(part, at, left_out);
    }
    kept &= left_out.iter().skip(before).all(|pointer| is_listable(pointer));
    if !kept {
        *part = Value::Null;
        left_out.truncate(before);
        left_out.push(at.to_owned());
    }
}

/// Whether a record can list this pointer as it is.
fn is_listable(pointer: &str) -> bool {
    Text::<Pointer>::new(pointer) == *pointer
}

/// Replaces each text that holds a secret of a known form, whole or in part, by null; the search is
/// that of `redact`. All of `part` goes if it cannot be searched, or has a secret in a name.
fn leave_secrets_out(part: &mut Value, at: &str, left_out: &mut Vec<String>) {
    let Ok(pointers) = redact::secret_places(&part.to_string(), SEARCH_BYTES_MAX) else {
        *part = Value::Null;
        left_out.push(at.to_owned());
        return;
    };
    let mut found: Vec<String> =
        pointers.iter().map(|pointer| format!("{at}{}", null_at(part, pointer))).collect();
    leave_uris_out(part, &mut at.to_owned(), &mut found);
    found.sort();
    found.dedup();
    left_out.append(&mut found);
}

/// Replaces by null the value that `pointer` leads to, or the string that it leads into, and returns
/// the pointer to that.
fn null_at<'p>(value: &mut Value, pointer: &'p str) -> &'p str {
    let ends = pointer.match_indices('/').map(|(at, _)| at).skip(1).chain([pointer.len()]);
    for end in std::iter::once(0).chain(ends) {
        let here = pointer.get(..end).unwrap_or_default();
        if let Some(found) = value.pointer_mut(here)
            && !found.is_object()
            && !found.is_array()
        {
            *found = Value::Null;
            return here;
        }
    }
    *value = Value::Null;
    ""
}

/// Replaces by null each URI of a resource with parts that can carry credentials. The recursion is
/// as deep as the message, which the strict reader bounds.
fn leave_uris_out(value: &mut Value, at: &mut String, left_out: &mut Vec<String>) {
    let length = at.len();
    match value {
        Value::String(text) if is_secretive_uri(at, text) => {
            *value = Value::Null;
            left_out.push(at.clone());
        }
        Value::Object(members) => {
            for (name, member) in members {
                push_name(at, name);
                leave_uris_out(member, at, left_out);
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                leave_uris_out(item, at, left_out);
                at.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether the text at `at` is the URI of a resource, and has parts that can carry credentials.
fn is_secretive_uri(at: &str, text: &str) -> bool {
    let names = at == "/resource/uri" || at == "/params/uri" || at.starts_with("/resources/uris/");
    names && mask::uri(text) != text
}

/// Appends a reference token of RFC 6901.
fn push_name(at: &mut String, name: &str) {
    at.push('/');
    at.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

/// Size of `value` as compact JSON text as the journal writes it, bytes, at most.
fn written(value: &Value) -> usize {
    let text = |text: &str| text.chars().map(written_bytes).fold(2, usize::saturating_add);
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(string) => text(string),
        Value::Array(items) => {
            items.iter().map(|item| written(item).saturating_add(1)).fold(2, usize::saturating_add)
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| text(name).saturating_add(written(member)).saturating_add(2))
            .fold(2, usize::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(input: Value, left_out: &[&str]) -> (Value, Vec<String>) {
        let left_out = left_out.iter().map(|&pointer| pointer.to_owned()).collect();
        let (kept, left_out) = KeptInput::of(RecordedInput { input, left_out });
        (kept.0, left_out.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_small_input_is_kept_whole() {
        let input = json!({"method": "tools/call", "tool": {"name": "t", "arguments": null}});
        let left_out = ["/tool/arguments"];
        assert_eq!(kept(input.clone(), &left_out), (input, vec!["/tool/arguments".to_owned()]));
    }

    #[test]
    fn what_is_too_large_is_left_out_and_listed() {
        let long = "\u{7f}".repeat(PART_BYTES_MAX / 6 + 1);
        let input = json!({"client": {"name": long, "version": "1"}, "method": "m"});
        let expected = json!({"client": {"name": null, "version": "1"}, "method": "m"});
        assert_eq!(kept(input, &[]), (expected, vec!["/client/name".to_owned()]));
        let many: Vec<_> = (0..20).map(|n| (format!("m{n}"), json!("x".repeat(30_000)))).collect();
        let input = json!({"principal": many.into_iter().collect::<serde_json::Map<_, _>>()});
        let (expected, left_out) = (json!({"principal": null}), vec!["/principal".to_owned()]);
        assert_eq!(kept(input, &["/principal/m3/x"]), (expected, left_out));
        let name = "n".repeat(1000);
        let large = "x".repeat(PART_BYTES_MAX);
        let input = json!({"a": {name.as_str(): large}, "b": {"c": "d"}});
        let expected = json!({"a": null, "b": {"c": "d"}});
        assert_eq!(kept(input, &[]), (expected.clone(), vec!["/a".to_owned()]));
        let input = json!({"a": {name.as_str(): null}, "b": {"c": "d"}});
        assert_eq!(kept(input, &[&format!("/a/{name}")]), (expected, vec!["/a".to_owned()]));
    }

    #[test]
    fn secrets_of_known_forms_are_left_out() {
        let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
        let input = json!({"tool": {"arguments": {"note": ["a", token], "b": 1}}});
        let expected = json!({"tool": {"arguments": {"note": ["a", null], "b": 1}}});
        assert_eq!(kept(input, &[]), (expected, vec!["/tool/arguments/note/1".to_owned()]));
        let input = json!({"tool": {"arguments": {token.as_str(): 1}}});
        let expected = json!({"tool": {"arguments": null}});
        assert_eq!(kept(input, &[]), (expected, vec!["/tool/arguments".to_owned()]));
    }

    #[test]
    fn a_secret_that_is_split_or_escaped_is_left_out() {
        let (left, right) = (["gh", "p_x7Kq2Lm9Zt4Vb8N"].concat(), "c1Rf6Hj3Wd5Ys0Pg2Aa1B");
        let escaped = format!("x: {{\"a\":\"gh\\u0070_x7Kq2Lm9Zt4Vb8N{right}\"}}");
        let inner = json!({"k": [left, right]}).to_string();
        for (arguments, at) in [
            (json!({"l": [left, right]}), &["/l/0", "/l/1"][..]),
            (json!({"a": left, "b": {"c": right}}), &["/a", "/b/c"]),
            (json!({"l": escaped}), &["/l"]),
            (json!({"l": inner}), &["/l"]),
        ] {
            let input = json!({"tool": {"arguments": arguments, "name": "t"}});
            let (kept, left_out) = kept(input, &[]);
            let expected: Vec<_> = at.iter().map(|at| format!("/tool/arguments{at}")).collect();
            assert_eq!(left_out, expected);
            assert!(expected.iter().all(|at| kept.pointer(at).unwrap().is_null()));
        }
    }
}
