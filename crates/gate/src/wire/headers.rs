//! Routing headers (MCP 2026-07-28, Streamable HTTP "Standard Headers"; SEP-2243): their values,
//! the encoding of texts in them, and the `_meta` keys that hold the same in the body. The check of
//! headers against the body is in `question::routing`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::{Kind, Value};

/// `_meta` key of the protocol revision on each modern request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key of the client's capabilities on each modern request.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Name under which a client and a server declare the tasks extension.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// `_meta` key of a subscription's notifications: the id of its `subscriptions/listen`.
pub const META_SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// `_meta` key of the client's self-description on each modern request.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The member of a result's `_meta` that holds the server's self-description.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

const SENTINEL_OPEN: &str = "=?base64?";
const SENTINEL_CLOSE: &str = "?=";

/// The routing headers of one HTTP request. The edge has checked that each occurs once (P11).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutingHeaders {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<Box<str>>,
    /// `Mcp-Method`.
    pub method: Option<Box<str>>,
    /// `Mcp-Name`, not decoded.
    pub name: Option<Box<str>>,
    /// `Mcp-Param-*`: lower-case suffix, and value that is not decoded.
    pub params: Vec<(Box<str>, Box<str>)>,
}

/// Decodes a header value: the text itself, or the content of its base64 sentinel
/// (`=?base64?…?=`, case-sensitive). `None` for base64 that is not canonical or not UTF-8.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    let Some(coded) =
        value.strip_prefix(SENTINEL_OPEN).and_then(|rest| rest.strip_suffix(SENTINEL_CLOSE))
    else {
        return Some(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(coded).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Encodes `text` as a header value: the text itself if it is printable ASCII, else in the base64
/// sentinel.
pub fn encode(text: &str) -> Box<str> {
    let plain = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.starts_with("=?");
    if plain {
        return text.into();
    }
    format!("{SENTINEL_OPEN}{}{SENTINEL_CLOSE}", STANDARD.encode(text)).into()
}

/// Encodes an argument as a header value; `None` for `null`, arrays and objects.
pub fn encode_argument(argument: Value<'_>) -> Option<Box<str>> {
    match argument.kind() {
        Kind::String => argument.as_str().map(encode),
        Kind::Bool => argument.as_bool().map(|flag| if flag { "true" } else { "false" }.into()),
        Kind::Number => argument.as_number().map(Into::into),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinel_is_exact_and_canonical() {
        let cases: [(&str, Option<&str>); 7] = [
            ("plain", Some("plain")),
            ("=?base64?aMOp?=", Some("hé")),
            ("=?BASE64?aMOp?=", Some("=?BASE64?aMOp?=")),
            ("=?base64?aMO?=", None),
            ("=?base64?aMOp", Some("=?base64?aMOp")),
            ("=?base64?!!!!?=", None),
            ("=?base64?aGk=?=", Some("hi")),
        ];
        for (value, expected) in cases {
            assert_eq!(decode(value).as_deref(), expected, "{value}");
        }
        for text in ["plain", "hé", " lead", "=?base64?x?=", "a\nb", ""] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
    }
}
