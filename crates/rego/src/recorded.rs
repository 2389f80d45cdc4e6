//! The input of a request, as a journal record keeps it (`docs/audit.md`, "Inputs").
//!
//! Values that a client wrote can be secrets. They are kept only where `audit.inputs` says so, and
//! never in a member whose name is usual for secrets. A value that is not kept is `null` in the
//! record, and its RFC 6901 pointer is listed, so a reader can tell it from a `null` that was sent.
//! The PDP in `engines` calls it; the gate writes the record.

use serde_json::Value;

use super::input;
use super::reads::ReadSet;
use super::value::{INEXACT_MAX, push_pointer_name};
use bartizan_gate::duty::pdp::{Inputs, RecordedInput};
use bartizan_gate::question::access::{AccessRequest, Resource};

/// The parts of the input that peers write, in this or an earlier call, as RFC 6901 pointers.
pub(super) const CLIENT_WRITTEN: [&str; 9] = [
    "/tool/arguments",
    "/prompt/arguments",
    "/params",
    "/resources/uris",
    "/session/facts",
    "/answer/content",
    "/answer/result",
    "/answer/roots",
    "/elicitation",
];

/// Parts of the names of members that hold secrets. A name is compared in lower case, with only its
/// letters and digits.
const SECRET_NAMES: [&str; 14] = [
    "accesskey",
    "apikey",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "sessionid",
    "signature",
    "token",
];

/// Largest part that is kept, bytes of JSON. The size of a record is bounded.
const PART_BYTES_MAX: usize = 32 << 10;

/// Most pointers that are listed for one part. Where there would be more, the whole part is left
/// out.
const LEFT_OUT_MAX: usize = 32;

/// The input of `request` as its record keeps it; `None` where `inputs` says to keep none.
pub(super) fn recorded_input(request: &AccessRequest<'_>, inputs: Inputs) -> Option<RecordedInput> {
    if inputs == Inputs::None {
        return None;
    }
    let built = input::of_request(request, &ReadSet::everything());
    let mut input = serde_json::to_value(&built.value).ok()?;
    let mut left_out = Vec::new();
    // What has a place of its own is kept there alone, so that one mask covers it.
    for member in shown_elsewhere(request).iter().filter(|_| inputs == Inputs::Values) {
        let pointer = format!("/params/{member}");
        if let Some(value) = input.pointer_mut(&pointer) {
            *value = Value::Null;
            left_out.push(pointer);
        }
    }
    for part in CLIENT_WRITTEN {
        let Some(value) = input.pointer_mut(part) else { continue };
        let in_part = |pointer: &&String| pointer.starts_with(part);
        // At this bound the list of pointers may be incomplete, so the whole part is left out.
        let mut pointers: Vec<String> = built.inexact.iter().filter(in_part).cloned().collect();
        let mut whole = inputs == Inputs::Facts || pointers.len() >= INEXACT_MAX;
        if !whole {
            remove_secrets(value, &mut part.to_owned(), &mut pointers);
            whole = pointers.len() > LEFT_OUT_MAX || size(value) > PART_BYTES_MAX;
        }
        if !whole {
            left_out.extend(pointers);
        } else if value.as_object().is_none_or(|members| !members.is_empty()) {
            *value = Value::Null;
            left_out.push(part.to_owned());
        }
    }
    Some(RecordedInput { input, left_out })
}

/// The members of `params` that another part of the input holds.
fn shown_elsewhere(request: &AccessRequest<'_>) -> &'static [&'static str] {
    match request.resource {
        Resource::Tool { .. } | Resource::Prompt { .. } => &["arguments"],
        Resource::Uri(_) => &["uri", "ref", "notifications"],
        Resource::Uris(_) => &["notifications"],
        Resource::Task { .. } | Resource::Answer { .. } | Resource::Whole => &[],
    }
}

fn size(value: &Value) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len())
}

/// Replaces the values of members with secret names by null, and adds their pointers to
/// `left_out`. The recursion is as deep as the message, which the strict reader bounds.
fn remove_secrets(value: &mut Value, at: &mut String, left_out: &mut Vec<String>) {
    let length = at.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                push_pointer_name(at, name);
                if is_secret_name(name) {
                    *member = Value::Null;
                    left_out.push(at.clone());
                } else {
                    remove_secrets(member, at, left_out);
                }
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                remove_secrets(item, at, left_out);
                at.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_names_are_recognised_in_any_spelling() {
        for name in ["token", "API-Key", "api_key", "X-Auth-Token", "clientSecret", "DB.PASSWORD"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["key", "environment", "author", "name", "flagKey"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
