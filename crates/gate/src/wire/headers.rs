//! Routing headers as they travel (MCP 2026-07-28, Streamable HTTP "Standard Headers"; SEP-2243):
//! their values, the coding of texts in them, and the `_meta` keys that say the same in the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::{Kind, Value};
use super::frame::{Frame, META_PROTOCOL_VERSION};
use super::protocol::{Era, Revision};

/// `_meta` key of what the client offers on each modern request.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The tasks extension, as a client and a server declare it.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// `_meta` key that tags what a subscription brings with the id of its `subscriptions/listen`.
pub const META_SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// `_meta` key of the client's self-description on each modern request.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";

const SENTINEL_OPEN: &str = "=?base64?";
const SENTINEL_CLOSE: &str = "?=";

/// Routing headers of one HTTP request, each already found single by the edge (P11).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutingHeaders {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<Box<str>>,
    /// `Mcp-Method`.
    pub method: Option<Box<str>>,
    /// `Mcp-Name`, undecoded.
    pub name: Option<Box<str>>,
    /// `Mcp-Param-*`: lower-case suffix and undecoded value.
    pub params: Vec<(Box<str>, Box<str>)>,
}

/// The revision that a modern request names in its `_meta`, if it is one: the text may name a
/// revision that nobody knows yet.
pub fn meta_version(frame: &Frame) -> Option<&str> {
    frame.params()?.get("_meta")?.get(META_PROTOCOL_VERSION)?.as_str()
}

/// The era of `text`: a revision that is not known is taken for a later one.
pub fn era_of(text: &str) -> Era {
    Revision::parse(text).map_or(Era::Modern, Revision::era)
}

/// The text of a header value: itself, or what its base64 sentinel holds. The sentinel is
/// case-sensitive; non-canonical base64 is no text at all.
pub fn decode(value: &str) -> Option<Box<str>> {
    let Some(coded) =
        value.strip_prefix(SENTINEL_OPEN).and_then(|rest| rest.strip_suffix(SENTINEL_CLOSE))
    else {
        return Some(value.into());
    };
    let bytes = STANDARD.decode(coded).ok()?;
    String::from_utf8(bytes).ok().map(Into::into)
}

/// `text` as a header value: itself where that is plain, else in the base64 sentinel.
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

/// An argument as a header value; nothing for what cannot be mirrored.
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
