//! Challenges of servers (`WWW-Authenticate`, RFC 9110 §11.6.1): replaces the metadata URL (RFC
//! 9728 §5.1) in them, drops those that would send the client elsewhere, and of the others whatever
//! no client of MCP needs.
//!
//! Pure: bytes in, bytes out.

mod known;

use std::ops::Range;

use ::http::header::WWW_AUTHENTICATE;
use ::http::{HeaderMap, HeaderValue, Uri};

use bartizan_gate::duty::redact::is_split_over;

use known::{Known, known};

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

/// What happens to the metadata's URL after [`hold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// The client gets it as the server wrote it.
    Kept,
    /// [`relabelled`] replaces it.
    Replaced,
}

/// Removes from `headers` each value that cannot be read, or that holds the URL of a foreign site,
/// and from the others what is not of a known form; `own` is the server's address. Returns whether
/// anything was removed.
///
/// A client fetches the metadata's URL by itself, past any policy (threat L6), and other parameters
/// (`authorization_uri`, `error_uri`, `realm`) have been used in the same way. So each URL must be
/// `https`, or `http` to the loopback address of `own`, and have the origin of `own`. A scope is
/// only compared, never fetched (RFC 6749 §3.3): it may be an `https` URL of any site. A scheme or a
/// parameter that is not in [`known::SCHEMES`] says nothing to a client of MCP, and could carry an
/// address without a scheme, or a secret (threat G27). If a secret is split over several values, no
/// challenge keeps a parameter.
pub fn hold(headers: &mut HeaderMap, own: &Uri, metadata: Metadata) -> bool {
    let values: Vec<HeaderValue> = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
    let held = |value: &'_ HeaderValue| {
        let bytes = Some(value.as_bytes()).filter(|bytes| stays_at(bytes, own, metadata))?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    let texts: Vec<Option<String>> = values.iter().map(held).collect();
    let mut read: Vec<Option<Known<'_>>> =
        texts.iter().map(|text| known(text.as_deref()?, own)).collect();
    // Readers put the parameters together as they like, also those of different challenges.
    let parts: Vec<&str> = read.iter().flatten().flat_map(Known::values).collect();
    if is_split_over(&parts) {
        read.iter_mut().flatten().for_each(Known::drop_parameters);
    }
    let whole = read.iter().all(|it| it.as_ref().is_some_and(Known::is_whole));
    if !whole {
        headers.remove(WWW_AUTHENTICATE);
        for (value, known) in values.iter().zip(read) {
            match known {
                Some(known) if known.is_whole() => {
                    headers.append(WWW_AUTHENTICATE, value.clone());
                }
                Some(known) => {
                    let text = known.text();
                    let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
                    value.map(|value| headers.append(WWW_AUTHENTICATE, value));
                }
                None => {}
            }
        }
    }
    !whole
}

/// Whether every URL in the challenges `value` may reach the client; `false` if it cannot be read.
fn stays_at(value: &[u8], own: &Uri, metadata: Metadata) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let printable = |byte: u8| matches!(byte, b' '..=b'~');
    if !text.bytes().all(printable) {
        return false;
    }
    let mut at = 0;
    // The last name before `=`; empty for what is no parameter, such as a scheme.
    let mut name = "";
    while let Some(&byte) = value.get(at) {
        let end = match byte {
            b'"' => end_of_string(value, at),
            b' ' | b',' | b'=' => at.saturating_add(1),
            _ => end_where(value, at, |byte| matches!(byte, b' ' | b',' | b'=' | b'"')),
        };
        let found = text.get(at..end).unwrap_or_default();
        if byte == b'"' && !is_closed_string(found) {
            return false;
        }
        // An unquoted URL may hold `=`, as in its query: it goes on to the next comma.
        let bare = byte != b'"' && looks_like_url(found);
        let end = if bare { end_of_bare(value, at) } else { end };
        let found = text.get(at..end).unwrap_or_default();
        let allowed = match byte {
            b' ' | b',' | b'=' => true,
            _ if start_of_value(value, end).is_some() && !bare && byte != b'"' => {
                name = found;
                true
            }
            _ => is_allowed(std::mem::take(&mut name), found, own, metadata),
        };
        if !allowed {
            return false;
        }
        at = end;
    }
    true
}

/// Whether the parameter `name` may have the value `value`, a bare text or a quoted one.
fn is_allowed(name: &str, value: &str, own: &Uri, metadata: Metadata) -> bool {
    let text = value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(value);
    let start = name.as_bytes().get(..PARAMETER.len());
    if start.is_some_and(|start| start.eq_ignore_ascii_case(PARAMETER)) {
        return metadata == Metadata::Replaced || is_own(text, own);
    }
    let scope = name.eq_ignore_ascii_case("scope");
    text.split(' ').filter(|word| looks_like_url(word)).all(|word| {
        let any_site = || word.parse::<Uri>().is_ok_and(|url| is_plain(word, &url, "https"));
        scope && (any_site() || names_no_site(word)) || is_own(word, own)
    })
}

/// Whether a reader of URLs could take `word` for one. Readers skip punctuation before it, take
/// backslashes for slashes, and need no slashes after some schemes (WHATWG URL).
fn looks_like_url(word: &str) -> bool {
    const SCHEMES: &[&str] =
        &["http", "https", "ws", "wss", "ftp", "file", "javascript", "data", "blob", "vbscript"];
    let bare = word.trim_start_matches(|it: char| !it.is_ascii_alphanumeric());
    let scheme = bare.split_once(':').map(|(scheme, _)| scheme);
    word.contains("//")
        || word.contains('\\')
        || scheme.is_some_and(|scheme| SCHEMES.iter().any(|it| it.eq_ignore_ascii_case(scheme)))
}

/// Whether the scope `word` has the form of a URL that leads to no site: of Microsoft's `api://`, or
/// of a scheme without an authority, which is the name of a resource in scopes (`data:read`).
fn names_no_site(word: &str) -> bool {
    let local = |(scheme, _): (&str, &str)| matches!(scheme, "file" | "data" | "blob");
    word.strip_prefix("api://").is_some_and(is_path)
        || !word.contains(['/', '\\', '.']) && word.split_once(':').is_some_and(local)
}

/// Whether `text` is a path without an empty segment.
fn is_path(text: &str) -> bool {
    !text.contains('\\') && text.split('/').all(|segment| !segment.is_empty())
}

/// Whether `text` is a URL at the origin of `own`.
fn is_own(text: &str, own: &Uri) -> bool {
    let (Ok(url), Some(host)) = (text.parse::<Uri>(), own.host()) else { return false };
    let port = |url: &Uri| {
        let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
        url.port_u16().unwrap_or(default)
    };
    let scheme = own.scheme_str().unwrap_or_default();
    let secure = scheme == "https" || is_loopback(host);
    let same =
        url.host().is_some_and(|it| it.eq_ignore_ascii_case(host)) && port(&url) == port(own);
    secure && same && is_plain(text, &url, scheme)
}

/// Whether `text`, read as `url`, has this scheme and nothing that readers take differently.
fn is_plain(text: &str, url: &Uri, scheme: &str) -> bool {
    let authority = url.authority().map(::http::uri::Authority::as_str).unwrap_or_default();
    let begins = text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let tidy = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    begins
        && text.get(scheme.len()..).is_some_and(|rest| rest.starts_with("://"))
        && !text.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}'])
        && !authority.is_empty()
        && authority.bytes().all(tidy)
}

/// Whether `host` of a URL is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `text` is a quoted string that ends, without escapes: an escape that one reader knows
/// and another does not ends the string in two places.
fn is_closed_string(text: &str) -> bool {
    text.len() >= 2 && text.ends_with('"') && !text.contains('\\')
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

    #[test]
    fn a_challenge_names_no_site_but_its_servers() {
        let own: Uri = "https://up.example/mcp".parse().unwrap();
        let held = |value: &str| stays_at(value.as_bytes(), &own, Metadata::Kept);
        for value in [
            "Bearer",
            "Basic realm=x",
            r#"Bearer realm="x y", error="invalid_token", error_description="Token: expired""#,
            r#"Bearer resource_metadata="https://up.example/.well-known/oauth-protected-resource""#,
            r#"Bearer resource_metadata="HTTPS://UP.example:443/x?a=b", scope="read:flags mcp:tools""#,
            "Bearer resource_metadata=https://up.example/x?a=b, error=e",
            r#"Bearer scope="https://www.googleapis.com/auth/drive openid""#,
        ] {
            assert!(held(value), "{value}");
        }
        for value in [
            r#"Bearer resource_metadata="http://169.254.169.254/latest/meta-data""#,
            r#"Bearer resource_metadata="http://up.example/x""#,
            r#"Bearer resource_metadata="https://up.example:8443/x""#,
            r#"Bearer resource_metadata="https://up.example@evil.example/x""#,
            r#"Bearer resource_metadata="https://up.example.evil.example/x""#,
            r#"Bearer resource_metadata="//evil.example/x""#,
            r#"Bearer resource_metadata="/x""#,
            r#"Bearer resource_metadata="""#,
            r#"Bearer Resource_Metadata = "https://evil.example/""#,
            "Bearer resource_metadata=http://evil.example/x",
            r#"Basic realm=x, Bearer error=e, resource_metadata="https://evil.example/""#,
            r#"DPoP resource_metadata="https://evil.example/""#,
            r#"Bearer resource_metadata="https://up.example/", resource_metadata="https://evil.example/""#,
            r#"Bearer authorization_uri="https://evil.example/""#,
            "Bearer authorization_uri=https://evil.example/?a=b",
            r#"Bearer realm="http://169.254.169.254/""#,
            r#"Bearer realm="http:169.254.169.254""#,
            r#"Bearer realm="see http:\\evil.example""#,
            r#"Bearer realm="a\" , resource_metadata=\"b""#,
            r#"Bearer error_description="go to (https://evil.example)""#,
            r#"Bearer error_uri="javascript:alert(1)""#,
            r#"Bearer scope="http://169.254.169.254/""#,
            r#"Bearer scope="https://a@evil.example/""#,
            "https://evil.example/",
            r#"Bearer realm="open"#,
            "Bearer realm=\"t\tb\"",
            "Bearer realm=\"\u{e9}\"",
        ] {
            assert!(!held(value), "{value}");
        }
        let replaced = |value: &str| stays_at(value.as_bytes(), &own, Metadata::Replaced);
        assert!(replaced(r#"Bearer resource_metadata="http://elsewhere.example/""#));
        assert!(!replaced(r#"Bearer authorization_uri="http://elsewhere.example/""#));
        let local: Uri = "http://127.0.0.1:9000/mcp".parse().unwrap();
        let at_local = |value: &str| stays_at(value.as_bytes(), &local, Metadata::Kept);
        assert!(at_local(r#"Bearer resource_metadata="http://127.0.0.1:9000/x""#));
        assert!(!at_local(r#"Bearer resource_metadata="http://127.0.0.1:9001/x""#));
        let plain: Uri = "http://up.example/mcp".parse().unwrap();
        assert!(!stays_at(
            b"Bearer resource_metadata=\"http://up.example/x\"",
            &plain,
            Metadata::Kept
        ));
    }
}
