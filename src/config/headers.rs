//! Headers that this program sets: names, and values that may be secrets.

use ::http::{HeaderName, HeaderValue};

use super::form::{Form, Names, by_name, secret};
use super::problem::{Wrong, wrong};
use super::secret::Secret;

/// Headers that the transport sets or that say how a message is framed; not for `headers`.
const TRANSPORT_HEADERS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Header names and values. A value is never part of a problem.
pub(super) fn headers<'f>() -> Form<'f, Vec<(HeaderName, Secret)>> {
    let value = secret().try_map(|value, _| match HeaderValue::from_str(value.expose()) {
        Ok(_) => Ok(value),
        Err(_) => wrong(
            "its value holds a character that no header may hold",
            "is there a line end in the credential?",
        ),
    });
    let pattern = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    by_name(&Names { placeholder: "<header>", pattern, read: header_name }, value)
}

/// A name that a header of ours may have.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    let Ok(name) = text.parse::<HeaderName>() else {
        return wrong("is no name for a header", "see RFC 9110 §5.1");
    };
    if TRANSPORT_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
        return wrong(format!("`{name}` belongs to the transport"), "remove it");
    }
    Ok(name)
}
