//! P5 for what stands inside messages: a client's answers to a server, and a server's requests that
//! its own messages carry. [`Frame::read`](super::Frame::read) checks the message around them.

use super::{check_params, is_look_alike};
use crate::wire::document::{Kind, Value};

/// Members of a client's answer that decide what it says (MCP 2026-07-28, schema `ElicitResult`,
/// `ListRootsResult`, `CreateMessageResult`).
const ANSWER: &[&str] = &["action", "content", "roots", "role", "model"];
/// Members of one of a client's roots that decide which folder it is.
const ROOT: &[&str] = &["uri"];

/// Whether some reader finds in a client's answer another member than the one that rules judge.
pub fn is_ambiguous_answer(result: Value<'_>) -> bool {
    let roots = result.get("roots");
    // Rules judge what is no list as one root.
    let single = roots.filter(|roots| roots.kind() == Kind::Object);
    let mut each = roots.into_iter().flat_map(Value::elements).chain(single);
    imitates(result, ANSWER) || each.any(|root| imitates(root, ROOT))
}

/// Whether the names and types of `params` let all readers find the same request in them, as those
/// of a message of its own must.
pub fn is_readable_request(method: &str, params: Option<Value<'_>>) -> bool {
    check_params(method, params).is_ok()
}

fn imitates(object: Value<'_>, known: &[&str]) -> bool {
    object.members().any(|(name, _)| name.as_str().is_some_and(|it| is_look_alike(it, known)))
}
