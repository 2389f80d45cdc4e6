//! Resolves the `endpoint` event of an HTTP+SSE server: the address for messages, limited to the
//! server's own origin.
//!
//! A client that accepted any address would post all later messages, credentials included, to
//! whoever wrote it (threat F3). So the origin is compared before anything is sent. The
//! specification: "the server MUST send an `endpoint` event containing a URI" (2024-11-05,
//! basic/transports).

use ::http::Uri;
use ::http::uri::Scheme;

/// Longest address that is accepted, bytes.
const ADDRESS_MAX: usize = 2048;

/// The request target that `address` names, resolved against `base`, an absolute URL (RFC 3986
/// §5.2, without dot segments). The error says why it is refused.
pub(super) fn resolve(base: &Uri, address: &[u8]) -> Result<Uri, &'static str> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(byte);
    if address.is_empty() || address.len() > ADDRESS_MAX || !address.iter().all(plain) {
        return Err("its `endpoint` is no plain URI");
    }
    let text = std::str::from_utf8(address).map_err(|_| "its `endpoint` is no plain URI")?;
    if text.starts_with("//") {
        return Err("its `endpoint` is on another origin");
    }
    let first = text.split(['/', '?']).next().unwrap_or_default();
    let target = if first.contains(':') {
        own_target(base, text)?
    } else if text.starts_with('/') {
        text.to_owned()
    } else if text.starts_with('?') {
        format!("{}{text}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{text}")
    };
    let path = target.split('?').next().unwrap_or_default();
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("its `endpoint` has dot segments");
    }
    target.parse().map_err(|_| "its `endpoint` is no plain URI")
}

/// Path and query of an absolute address, if its origin is that of `base` (RFC 6454 §4).
fn own_target(base: &Uri, text: &str) -> Result<String, &'static str> {
    let absolute: Uri = text.parse().map_err(|_| "its `endpoint` is no plain URI")?;
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    let user = absolute.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let same = absolute.scheme() == base.scheme()
        && host(&absolute).is_some()
        && host(&absolute) == host(base)
        && port(&absolute) == port(base);
    if user || !same {
        return Err("its `endpoint` is on another origin");
    }
    Ok(absolute.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
}

fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_own_origin() {
        let base: Uri = "http://Tools.example:80/a/sse?key=1".parse().unwrap();
        for (address, expected) in [
            ("/messages?session_id=1", Some("/messages?session_id=1")),
            ("messages/1", Some("/a/messages/1")),
            ("?sessionId=1", Some("/a/sse?sessionId=1")),
            ("http://tools.example/m", Some("/m")),
            ("HTTP://TOOLS.EXAMPLE:80/m?x=http://evil.example", Some("/m?x=http://evil.example")),
            ("http://tools.example", Some("/")),
            ("/m?next=http://evil.example/", Some("/m?next=http://evil.example/")),
            ("http://tools.example:81/m", None),
            ("https://tools.example/m", None),
            ("http://evil.example/m", None),
            ("http://tools.example@evil.example/m", None),
            ("http://evil.example@tools.example/m", None),
            ("http://tools.example.evil.example/m", None),
            ("//evil.example/m", None),
            ("//tools.example/m", None),
            ("\\\\evil.example/m", None),
            ("/\\evil.example/m", None),
            ("http:evil.example/m", None),
            ("javascript:alert(1)", None),
            ("evil.example:80/m", None),
            ("/a/../b", None),
            ("../b", None),
            ("/m#fragment", None),
            ("/m x", None),
            ("/m\u{e9}", None),
            ("/m\r\nHost: evil.example", None),
            ("", None),
        ] {
            let found = resolve(&base, address.as_bytes()).ok().map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{address:?}");
        }
        let long = format!("/{}", "a".repeat(ADDRESS_MAX));
        assert!(resolve(&base, long.as_bytes()).is_err());
    }
}
