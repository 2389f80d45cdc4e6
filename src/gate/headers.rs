//! Routing headers against the body (rule P11; MCP 2026-07-28, Streamable HTTP "Server
//! Validation"; SEP-2243 extends the duty to any intermediary that reads the body).
//!
//! Every present `Mcp-*` header must say what the body says, in any era. A decision is never
//! taken on a header: after this check they are forgotten.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::access::{Era, Revision, RoutingHeaders};
use super::document::{Kind, Value};
use super::frame::{Frame, META_PROTOCOL_VERSION, Message};
use super::method::{Method, Subject};

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

/// Headers and body do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMismatch {
    /// A header disagrees with the body, or is missing where the era demands it.
    Header {
        /// The header, as the specification spells it.
        name: Box<str>,
    },
    /// The header names a modern revision and the request carries no revision in `_meta`.
    NoMeta,
}

fn mismatch(header: &str) -> HeaderMismatch {
    HeaderMismatch::Header { name: header.into() }
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

/// The member of `params` that `Mcp-Name` mirrors for `method`.
pub fn mirrored_name<'a>(frame: &'a Frame, method: &Method) -> Option<&'a str> {
    if !method.mirrored {
        return None;
    }
    let member = match method.subject {
        Subject::Tool | Subject::Prompt => "name",
        Subject::Uri => "uri",
        Subject::Task => "taskId",
        Subject::Whole | Subject::Reference | Subject::Subscriptions => return None,
    };
    frame.params()?.get(member)?.as_str()
}

/// Checks `headers` against `frame`. `parameters` are the `x-mcp-header` annotations of the
/// called tool as last listed, `(lower-case suffix, pointer below arguments)`; headers for which
/// there is none are left to the upstream, which knows its schema. A modern call must mirror each
/// annotated argument that it carries.
pub fn check(
    frame: &Frame,
    headers: &RoutingHeaders,
    era: Era,
    method: Option<&Method>,
    parameters: &[(Box<str>, Box<str>)],
) -> Result<(), HeaderMismatch> {
    check_version(frame, headers)?;
    let name = frame.message().method();
    let is_request = matches!(frame.message(), Message::Request { .. });
    // The header rules for notifications are undefined in 2026-07-28: what is present must
    // match, nothing need be present.
    let required = is_request && era == Era::Modern;
    match &headers.method {
        Some(header) if Some(&**header) != name => return Err(mismatch("Mcp-Method")),
        None if required => return Err(mismatch("Mcp-Method")),
        Some(_) | None => {}
    }
    let mirrored = method.and_then(|method| mirrored_name(frame, method));
    match (&headers.name, mirrored) {
        (Some(header), Some(body)) if decode(header).as_deref() == Some(body) => {}
        (None, Some(_)) if !required => {}
        (None, None) => {}
        (Some(_) | None, Some(_)) | (Some(_), None) => return Err(mismatch("Mcp-Name")),
    }
    check_parameters(frame, headers, required, parameters)
}

/// Header and `_meta` must name the same revision.
fn check_version(frame: &Frame, headers: &RoutingHeaders) -> Result<(), HeaderMismatch> {
    const HEADER: &str = "MCP-Protocol-Version";
    let header = headers.protocol_version.as_deref();
    match (meta_version(frame), header) {
        (Some(meta), Some(header)) if meta == header => {}
        (Some(_), _) => return Err(mismatch(HEADER)),
        (None, Some(header)) => {
            // Only a request must carry `_meta`; a modern header on a request without it would
            // be read as legacy by one server and refused by another.
            let request = matches!(frame.message(), Message::Request { .. });
            if request && era_of(header) == Era::Modern {
                return Err(HeaderMismatch::NoMeta);
            }
        }
        (None, None) => {}
    }
    Ok(())
}

fn check_parameters(
    frame: &Frame,
    headers: &RoutingHeaders,
    required: bool,
    parameters: &[(Box<str>, Box<str>)],
) -> Result<(), HeaderMismatch> {
    let arguments = frame.params().and_then(|params| params.get("arguments"));
    for (suffix, header) in &headers.params {
        let Some((_, pointer)) = parameters.iter().find(|(name, _)| name == suffix) else {
            continue;
        };
        let argument = arguments.and_then(|arguments| arguments.pointer(pointer));
        if !argument.is_some_and(|argument| says(header, argument)) {
            return Err(mismatch(&format!("Mcp-Param-{suffix}")));
        }
    }
    for (suffix, pointer) in parameters.iter().filter(|_| required) {
        let argument = arguments.and_then(|arguments| arguments.pointer(pointer));
        let mirrored = argument.and_then(encode_argument).is_some();
        if mirrored && !headers.params.iter().any(|(name, _)| name == suffix) {
            return Err(mismatch(&format!("Mcp-Param-{suffix}")));
        }
    }
    Ok(())
}

/// Whether the header text says what the argument is (strings, integers and booleans only).
fn says(header: &str, argument: Value<'_>) -> bool {
    let Some(text) = decode(header) else { return false };
    match argument.kind() {
        Kind::String => argument.as_str() == Some(&*text),
        Kind::Bool => {
            argument.as_bool().map(|flag| if flag { "true" } else { "false" }) == Some(&*text)
        }
        Kind::Number => {
            argument.as_number() == Some(&*text)
                || argument.as_i64().is_some_and(|number| text.parse() == Ok(number))
        }
        Kind::Null | Kind::Array | Kind::Object => false,
    }
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
