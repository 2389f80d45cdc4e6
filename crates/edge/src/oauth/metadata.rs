//! Replaces the resource in a protected resource's metadata (RFC 9728 §2).
//!
//! Pure: bytes in, bytes out.

use ::http::Uri;
use bytes::Bytes;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Unreadable, write_string};

/// Largest metadata document of a resource or an issuer, bytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Limits of a metadata document of a resource or an issuer.
pub const DOCUMENT: DocumentLimits = DocumentLimits {
    bytes_max: DOCUMENT_BYTES_MAX,
    depth_max: 16,
    number_chars_max: 64,
    values_max: 8192,
};

/// Why a document is not metadata of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoMetadata {
    /// It is not one strict JSON document within [`DOCUMENT`].
    Unreadable(Unreadable),
    /// It has no string member `resource`, which RFC 9728 §2 requires.
    NoResource,
}

/// `body` with its `resource` replaced by `ours`; every other byte is kept.
///
/// Only a resource that equals or contains `theirs` is replaced. Any other is kept, so that the
/// client can detect that the server's metadata is for another resource (RFC 9728 §3.3). Fails if
/// `body` is not such metadata.
pub fn relabelled(body: Bytes, theirs: &Uri, ours: &str) -> Result<Bytes, NoMetadata> {
    let document = Document::read(body, &DOCUMENT).map_err(NoMetadata::Unreadable)?;
    let resource = document.root().get("resource").filter(|value| value.kind() == Kind::String);
    let resource = resource.ok_or(NoMetadata::NoResource)?;
    if !resource.as_str().is_some_and(|resource| covers(resource, theirs)) {
        return Ok(document.raw().clone());
    }
    let mut text = Vec::new();
    write_string(&mut text, ours);
    Ok(document.splice(&[(resource.span(), text)]))
}

/// Whether `resource` covers `url`: the same origin, and the same path or a parent of it.
fn covers(resource: &str, url: &Uri) -> bool {
    let Ok(resource) = resource.parse::<Uri>() else { return false };
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("https") => Some(443),
            _ => Some(80),
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    let same_origin = resource.scheme() == url.scheme()
        && host(&resource).is_some()
        && host(&resource) == host(url)
        && port(&resource) == port(url);
    let rest = url.path().trim_end_matches('/').strip_prefix(resource.path().trim_end_matches('/'));
    same_origin
        && resource.query().is_none()
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Result<String, NoMetadata> {
        let theirs = Uri::from_static("http://up.example:9000/mcp");
        let told = relabelled(Bytes::copy_from_slice(body.as_bytes()), &theirs, "https://us/f");
        told.map(|told| String::from_utf8(told.to_vec()).unwrap())
    }

    #[test]
    fn only_the_resource_is_replaced() {
        let body = "{ \"x\": [\"http://up.example:9000/mcp\"],\n\t\"resource\" : \"http:\\/\\/up.example:9000/mcp\", \"authorization_servers\":[\"http://up.example:9000\"]}";
        let expected = "{ \"x\": [\"http://up.example:9000/mcp\"],\n\t\"resource\" : \"https://us/f\", \"authorization_servers\":[\"http://up.example:9000\"]}";
        assert_eq!(told(body).unwrap(), expected);
    }

    #[test]
    fn a_foreign_resource_is_not_hidden() {
        for (resource, ours) in [
            ("http://up.example:9000/mcp", true),
            ("http://UP.example:9000/mcp/", true),
            ("http://up.example:9000", true),
            ("http://up.example:9000/", true),
            ("http://up.example:9000/mcp/deeper", false),
            ("http://up.example:9000/mc", false),
            ("http://up.example:9000/mcp?x", false),
            ("http://up.example/mcp", false),
            ("https://up.example:9000/mcp", false),
            ("http://evil.example:9000/mcp", false),
            ("/mcp", false),
            ("", false),
        ] {
            let body = format!("{{\"resource\":\"{resource}\"}}");
            let expected = if ours { "{\"resource\":\"https://us/f\"}" } else { &body };
            assert_eq!(told(&body).unwrap(), expected, "{resource}");
        }
    }

    #[test]
    fn what_is_no_metadata_goes_nowhere() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"resource\":1}",
            "{\"resource\":\"a\",\"resource\":\"b\"}",
            "<html>",
        ] {
            assert!(told(body).is_err(), "{body}");
        }
        let large = format!("{{\"resource\":\"{}\"}}", "x".repeat(DOCUMENT_BYTES_MAX));
        assert_eq!(told(&large), Err(NoMetadata::Unreadable(Unreadable::TooLarge)));
    }
}
