//! Replaces the metadata URL (RFC 9728 §5.1) in a `WWW-Authenticate` challenge (RFC 9110 §11.6.1).
//!
//! Pure: bytes in, bytes out.

use std::ops::Range;

/// The parameter that holds the metadata's URL (RFC 9728 §5.1).
const PARAMETER: &[u8] = b"resource_metadata";

/// `value` with the URL of each `resource_metadata` replaced by `ours`, and the first URL that was
/// there; every other byte is kept. `None` if there is no such parameter.
pub fn relabelled(value: &[u8], ours: &str) -> Option<(Vec<u8>, String)> {
    let spans = parameters(value);
    let first = value.get(spans.first()?.clone())?;
    let first = String::from_utf8_lossy(unquoted(first)).into_owned();
    let mut out = Vec::with_capacity(value.len().saturating_add(ours.len()));
    let mut kept_to = 0;
    for span in spans {
        out.extend_from_slice(value.get(kept_to..span.start)?);
        out.push(b'"');
        out.extend_from_slice(ours.as_bytes());
        out.push(b'"');
        kept_to = span.end;
    }
    out.extend_from_slice(value.get(kept_to..)?);
    Some((out, first))
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// The spans of the values of `resource_metadata`, quotes included. The name inside a quoted string
/// does not count.
fn parameters(value: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        if byte == b'"' {
            at = end_of_string(value, at);
        } else if is_token(byte) {
            let end = end_of_token(value, at);
            let found = value.get(at..end).unwrap_or_default();
            at = end;
            let named = found.eq_ignore_ascii_case(PARAMETER);
            if let (true, Some(start)) = (named, start_of_value(value, end)) {
                at = match value.get(start) {
                    Some(b'"') => end_of_string(value, start),
                    _ => end_of_bare(value, start),
                };
                spans.push(start..at);
            }
        } else {
            at = at.saturating_add(1);
        }
    }
    spans
}

/// Where the value begins, after a name that ends at `at`: behind `=`, with optional white space on
/// both sides.
fn start_of_value(value: &[u8], at: usize) -> Option<usize> {
    let rest = value.get(at..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b"=")?.trim_ascii_start();
    value.len().checked_sub(rest.len())
}

/// Where the quoted string that begins at `at` ends; the end of `value` if it is not closed.
fn end_of_string(value: &[u8], at: usize) -> usize {
    let mut at = at.saturating_add(1);
    while let Some(&byte) = value.get(at) {
        at = at.saturating_add(1);
        match byte {
            b'"' => return at,
            b'\\' => at = at.saturating_add(1),
            _ => {}
        }
    }
    value.len()
}

fn end_of_token(value: &[u8], at: usize) -> usize {
    end_where(value, at, |byte| !is_token(byte))
}

/// The end of an unquoted value. An unquoted URL is not a valid token, but some servers send it.
fn end_of_bare(value: &[u8], at: usize) -> usize {
    end_where(value, at, |byte| byte == b',' || byte.is_ascii_whitespace())
}

fn end_where(value: &[u8], at: usize, ends: impl Fn(u8) -> bool) -> usize {
    let rest = value.get(at..).unwrap_or_default();
    let length = rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len());
    at.saturating_add(length)
}

/// Whether `byte` may be in a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_of_the_metadata_is_replaced() {
        for (value, expected, first) in [
            (
                r#"Bearer resource_metadata="http://up/x", scope="a b""#,
                r#"Bearer resource_metadata="OURS", scope="a b""#,
                "http://up/x",
            ),
            (
                r#"Bearer realm="resource_metadata=\"no\"", Resource_Metadata = "http://up/x""#,
                r#"Bearer realm="resource_metadata=\"no\"", Resource_Metadata = "OURS""#,
                "http://up/x",
            ),
            (
                "Basic realm=x, Bearer error=e,resource_metadata=http://up/x, DPoP algs=\"ES256\"",
                "Basic realm=x, Bearer error=e,resource_metadata=\"OURS\", DPoP algs=\"ES256\"",
                "http://up/x",
            ),
            (
                r#"Bearer resource_metadata="http://up/1", DPoP resource_metadata="http://up/2""#,
                r#"Bearer resource_metadata="OURS", DPoP resource_metadata="OURS""#,
                "http://up/1",
            ),
            (
                r#"Bearer resource_metadata="http://up"#,
                r#"Bearer resource_metadata="OURS""#,
                "\"http://up",
            ),
        ] {
            let (found, named) = relabelled(value.as_bytes(), "OURS").unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), expected);
            assert_eq!(named, first);
        }
        for value in [
            "",
            "Bearer",
            r#"Bearer x_resource_metadata="y""#,
            r#"Bearer realm="resource_metadata=y"#,
            "Bearer resource_metadata",
        ] {
            assert_eq!(relabelled(value.as_bytes(), "OURS"), None, "{value}");
        }
    }
}
