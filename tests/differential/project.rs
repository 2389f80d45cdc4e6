//! What a reader makes of a document, as one digest that readers in other languages can compute.

use bartizan_gate::wire::document::{Kind, Value};
use bartizan_gate::wire::frame::Frame;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use sha2::{Digest as _, Sha256};

#[path = "../../fuzz/src/reading.rs"]
#[expect(dead_code, unreachable_pub, reason = "only the comparison with a second reader is used")]
mod reading;

/// The readings of one line: three of the gate's, two of other readers in Rust.
pub(crate) const COLUMNS: [&str; 5] =
    ["gate:value", "gate:literal", "gate:call", "serde_json:value", "rmcp:call"];

/// Refused.
const NONE: &str = "-";

/// Digests; `-` where a reader refuses.
pub(crate) struct Reading([String; 5]);

impl Reading {
    pub(crate) fn refused() -> Self {
        Self([NONE; 5].map(str::to_owned))
    }

    /// The gate's reading of `frame`, and what two readers make of the bytes that would go on.
    pub(crate) fn of(frame: &Frame, forwarded: &[u8]) -> Self {
        let root = frame.document().root();
        let value = digest(|out| tree(root, number_value, out));
        let literal = digest(|out| tree(root, number_literal, out));
        let call = digest(|out| call(root, out));
        // This reader rounds a float to a neighbour of the nearest (it says so): its tree is held
        // against ours within that.
        let serde = match serde_json::from_slice::<serde_json::Value>(forwarded) {
            Ok(second) if reading::agrees(root, &second) => value.clone(),
            Ok(_) => "other".to_owned(),
            Err(_) => NONE.to_owned(),
        };
        let rmcp = rmcp(forwarded).map_or_else(
            || NONE.to_owned(),
            |message| {
                let (arguments, message) = (&message["params"]["arguments"], &message);
                let same_arguments =
                    root.get("params").and_then(|params| params.get("arguments")).is_none_or(
                        |ours| ours.kind() == Kind::Null || reading::agrees(ours, arguments),
                    );
                let text = |at: &str| message.pointer(at).and_then(serde_json::Value::as_str);
                let same = same_arguments || !is_call(root);
                let same = same && text("/method") == root.get("method").and_then(Value::as_str);
                let id = root.get("id").filter(|id| id.kind() != Kind::Null);
                let same = same && id.is_none_or(|id| reading::agrees(id, &message["id"]));
                let name = root.get("params").and_then(|params| params.get("name"));
                let same = same
                    && (!is_call(root) || text("/params/name") == name.and_then(Value::as_str));
                if same { call.clone() } else { "other".to_owned() }
            },
        );
        Self([value, literal, call, serde, rmcp])
    }

    pub(crate) fn line(&self) -> String {
        self.0.join("\t")
    }
}

/// The typed model of the official SDK, written out again: what it has kept is what it believes.
fn rmcp(forwarded: &[u8]) -> Option<serde_json::Value> {
    if let Ok(message) = serde_json::from_slice::<ClientJsonRpcMessage>(forwarded) {
        return serde_json::to_value(message).ok();
    }
    serde_json::from_slice::<ServerJsonRpcMessage>(forwarded)
        .ok()
        .and_then(|message| serde_json::to_value(message).ok())
}

/// Whether name and arguments decide what the message does.
fn is_call(root: Value<'_>) -> bool {
    matches!(root.get("method").and_then(Value::as_str), Some("tools/call" | "prompts/get"))
}

/// Method and id, and for a call its name and arguments; absent and null are one.
fn call(root: Value<'_>, out: &mut Vec<u8>) {
    let mut part = |value: Option<Value<'_>>| match value {
        Some(value) => tree(value, number_value, out),
        None => out.push(b'n'),
    };
    part(root.get("method"));
    part(root.get("id"));
    if is_call(root) {
        let params = root.get("params");
        part(params.and_then(|params| params.get("name")));
        part(params.and_then(|params| params.get("arguments")));
    }
}

/// One spelling for one tree: members sorted by the bytes of their names.
fn tree(value: Value<'_>, number: fn(&str, &mut Vec<u8>), out: &mut Vec<u8>) {
    match value.kind() {
        Kind::Null => out.push(b'n'),
        Kind::Bool => out.push(if value.as_bool() == Some(true) { b't' } else { b'f' }),
        Kind::Number => number(value.as_number().unwrap(), out),
        Kind::String => text(value.as_str().unwrap(), out),
        Kind::Array => {
            out.push(b'[');
            value.elements().for_each(|element| tree(element, number, out));
            out.push(b']');
        }
        Kind::Object => {
            let name = |member: Value<'_>| member.as_str().unwrap().to_owned();
            let mut members: Vec<_> =
                value.members().map(|(key, value)| (name(key), value)).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            out.push(b'{');
            for (name, value) in members {
                text(&name, out);
                tree(value, number, out);
            }
            out.push(b'}');
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("s{}:", text.len()).as_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The nearest binary64, both zeros alike.
fn number_value(literal: &str, out: &mut Vec<u8>) {
    let number = literal.parse::<f64>().unwrap() + 0.0;
    out.extend_from_slice(format!("d{:016x}", number.to_bits()).as_bytes());
}

fn number_literal(literal: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("l{literal};").as_bytes());
}

fn digest(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    Sha256::digest(&out)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
