//! Checks routing headers against the body (P11; MCP 2026-07-28, Streamable HTTP "Server
//! Validation"; SEP-2243 demands it of any intermediary that reads the body).
//!
//! Every `Mcp-*` header that is present must agree with the body, in any era. No decision is taken
//! on a header: `session` calls this check first, and then uses the body alone.

use crate::wire::document::{Kind, Value};
use crate::wire::frame::{Frame, Message};
use crate::wire::headers::{RoutingHeaders, decode, encode_argument};
use crate::wire::method::{Method, Subject};
use crate::wire::protocol::{ClaimedVersion, Era};

/// A routing header and the body disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMismatch {
    /// A header disagrees with the body, or is missing where the era requires it.
    Header {
        /// The name of the header, as the specification spells it.
        name: Box<str>,
    },
    /// `MCP-Protocol-Version` names a modern revision, and the request has none in `_meta`.
    NoMeta,
}

fn mismatch(header: &str) -> HeaderMismatch {
    HeaderMismatch::Header { name: header.into() }
}

/// Returns the value in `params` that `Mcp-Name` mirrors for `method`, where it mirrors one.
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

/// Checks `headers` against `frame`. `parameters` are the `x-mcp-header` annotations of the called
/// tool as last listed, `(lower-case suffix, RFC 6901 pointer below arguments)`. A modern call must
/// mirror each annotated argument that it carries. A header without an annotation is not checked
/// here, and `session` does not forward it.
///
/// # Errors
///
/// The first header that disagrees with the body or is missing.
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
    // MCP 2026-07-28 does not define header rules for notifications: a header that is present must
    // match, none is required.
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

/// Checks that `MCP-Protocol-Version` and `_meta` name the same revision.
fn check_version(frame: &Frame, headers: &RoutingHeaders) -> Result<(), HeaderMismatch> {
    const HEADER: &str = "MCP-Protocol-Version";
    let header = match headers.protocol_version.as_deref().map(ClaimedVersion::parse) {
        Some(None) => return Err(mismatch(HEADER)),
        Some(claimed) => claimed,
        None => None,
    };
    match (frame.claimed_version(), header) {
        (Some(meta), Some(header)) if meta == header => {}
        (Some(_), _) => return Err(mismatch(HEADER)),
        (None, Some(header)) => {
            // Only a request must carry `_meta`. One server would read a request with a modern
            // header and no `_meta` as legacy, another would refuse it.
            let request = matches!(frame.message(), Message::Request { .. });
            if request && header.era() == Era::Modern {
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

/// Whether a header value equals an argument; only strings, numbers and booleans can be mirrored.
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
