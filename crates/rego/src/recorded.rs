//! The input of a question, as a record may keep it.
//!
//! What a client wrote can hold a secret, so it is kept only where the configuration says so, and
//! never under a name that secrets go by. What is not kept stands as `null` and its pointer is
//! named: a reader can tell what was there from what was left out, and need not guess.

use serde_json::Value;

use super::input;
use super::reads::ReadSet;
use super::value::LOSSY_MAX;
use bartizan_gate::duty::pdp::{Inputs, RecordedInput};
use bartizan_gate::question::access::AccessRequest;

/// What clients write, now or in an earlier call: the members of the input that can hold a secret.
const WRITTEN: [&str; 5] =
    ["/tool/arguments", "/prompt/arguments", "/params", "/resources/uris", "/session/facts"];

/// Parts of names that secrets go by; a name is compared in lower case, letters and digits alone.
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

/// Size of one kept argument or parameter list as JSON, bytes: a record has a bound.
const WRITTEN_BYTES_MAX: usize = 32 << 10;

/// Pointers of one written part; where there would be more, the whole part is left out.
const LEFT_OUT_MAX: usize = 32;

/// The input of `request` as its record keeps it, if it is to.
pub(super) fn recorded_input(request: &AccessRequest<'_>, inputs: Inputs) -> Option<RecordedInput> {
    if inputs == Inputs::None {
        return None;
    }
    let asked = input::of_request(request, &ReadSet::everything());
    let mut input = serde_json::to_value(&asked.value).ok()?;
    let mut left_out = Vec::new();
    for part in WRITTEN {
        let Some(value) = input.pointer_mut(part) else { continue };
        let below = |pointer: &&String| pointer.starts_with(part);
        let lossy: Vec<String> = asked.lossy.iter().filter(below).cloned().collect();
        // At the bound, further ones were not written down.
        let mut secret = lossy;
        let mut whole = inputs == Inputs::Facts || secret.len() >= LOSSY_MAX;
        if !whole {
            strip(value, &mut part.to_owned(), &mut secret);
            whole = secret.len() > LEFT_OUT_MAX || size(value) > WRITTEN_BYTES_MAX;
        }
        if !whole {
            left_out.extend(secret);
        } else if value.as_object().is_none_or(|members| !members.is_empty()) {
            *value = Value::Null;
            left_out.push(part.to_owned());
        }
    }
    Some(RecordedInput { input, left_out })
}

fn size(value: &Value) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len())
}

/// Takes out what stands under a name of secrets. The recursion is as deep as the message, which
/// its reader bounds.
fn strip(value: &mut Value, at: &mut String, left_out: &mut Vec<String>) {
    let length = at.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                if is_secret_name(name) {
                    *member = Value::Null;
                    left_out.push(at.clone());
                } else {
                    strip(member, at, left_out);
                }
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                strip(item, at, left_out);
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
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in ["token", "API-Key", "api_key", "X-Auth-Token", "clientSecret", "DB.PASSWORD"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["key", "environment", "author", "name", "flagKey"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
