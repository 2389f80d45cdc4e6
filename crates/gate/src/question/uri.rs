//! URIs of resources: what they name, and whether every reader agrees about that (threat G9).
//!
//! A rule that compares the text of a URI is passed by another spelling of the same URI. [`read`]
//! therefore says whether a text is the one spelling that all readers take alike, and gives the parts
//! in a normal form: RFC 3986 §6.2.2 (case, escapes, dot segments) and §6.2.3 (default port, empty
//! path), the forms of `file` (RFC 8089), and what WHATWG parsers, file systems and servers do
//! besides. The grammar is that of the crate `iri-string`; nothing is decided here.

// Of `core`, which has addresses and no sockets.
use core::net::{Ipv4Addr, Ipv6Addr};

use iri_string::types::UriStr;

use super::path::is_doubtful;

/// Longest URI that is taken apart, bytes (RFC 9110 §4.1 asks for 8,000 at least). A longer one is
/// ambiguous and has no parts.
pub const URI_BYTES_MAX: usize = 8192;

/// Schemes whose URIs name a host in any case and have a default port (WHATWG URL, "special scheme").
const SPECIAL: [(&str, u16); 5] =
    [("http", 80), ("https", 443), ("ws", 80), ("wss", 443), ("ftp", 21)];

/// What a text says as a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriReading {
    /// Whether some reader takes the text for another URI than its bytes say, or for none.
    pub ambiguous: bool,
    /// The parts in normal form. Absent where no one form is normal: the text is no URI (RFC 3986),
    /// or has an escaped separator or percent sign, a control character, or a host or port that
    /// readers read differently.
    pub parts: Option<UriParts>,
}

/// The parts of a URI in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriParts {
    /// The scheme in lower case.
    pub scheme: Box<str>,
    /// The host in lower case, without a dot at its end; empty where there is none, and for `file`
    /// on this machine.
    pub host: Box<str>,
    /// The port, or the default of a known scheme.
    pub port: Option<u16>,
    /// The path, escaped as RFC 3986 §3.3 wants it, without dot segments and empty segments. It keeps
    /// a slash at its end.
    pub path: Box<str>,
    /// The segments of the path, not escaped.
    pub segments: Vec<Box<str>>,
    /// The query as it came, without the question mark.
    pub query: Option<Box<str>>,
}

/// Reads the URI of a resource. With `template`, expressions of RFC 6570 such as `{path}` may stand
/// in its path and query, as in the `ref` of a completion; they are kept as they are.
pub fn read(text: &str, template: bool) -> UriReading {
    let nothing = UriReading { ambiguous: true, parts: None };
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    if trimmed.len() > URI_BYTES_MAX {
        return nothing;
    }
    let shadow = if template { without_expressions(trimmed) } else { Some(trimmed.to_owned()) };
    let Some(uri) = shadow.as_deref().and_then(|shadow| UriStr::new(shadow).ok()) else {
        return nothing;
    };
    let mut reader = UriReader { ambiguous: trimmed != text };
    match reader.parts(uri, trimmed) {
        Some(parts) => UriReading { ambiguous: reader.ambiguous, parts: Some(parts) },
        None => nothing,
    }
}

/// Returns the text with each expression of a template replaced by as many letters, so that the other
/// bytes keep their places; `None` for a brace without its counterpart.
fn without_expressions(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        if before.contains('}') || expression.is_empty() || expression.contains('{') {
            return None;
        }
        out.push_str(before);
        out.extend(std::iter::repeat_n('x', expression.len().saturating_add(2)));
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

struct UriReader {
    ambiguous: bool,
}

/// The end of a URI without one normal form.
type NoForm<T> = Option<T>;

impl UriReader {
    /// Notes that the text is not the normal form where `doubtful` is true.
    fn note(&mut self, doubtful: bool) {
        self.ambiguous |= doubtful;
    }

    /// `text` is the original of `uri`, of the same length.
    fn parts(&mut self, uri: &UriStr, text: &str) -> NoForm<UriParts> {
        let scheme = uri.scheme_str().to_ascii_lowercase();
        self.note(scheme != uri.scheme_str());
        let is_file = scheme == "file";
        let default = SPECIAL.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port);
        // Where the authority, the path and the query stand, to find expressions of a template.
        let after_scheme = scheme.len().saturating_add(1);
        let authority = uri.authority_str();
        let path_at = match authority {
            Some(authority) => after_scheme.saturating_add(2).saturating_add(authority.len()),
            None => after_scheme,
        };
        if text.get(..path_at)?.contains('{') {
            return None;
        }
        let path_end = path_at.saturating_add(uri.path_str().len());
        let path = text.get(path_at..path_end)?;

        let (host, port) = self.authority(uri, &scheme, default)?;
        if authority.is_none() {
            // `file:/x`, `http:x` and `note:/x`: many readers take them for `file:///x` and so on.
            self.note(path.starts_with('/') || is_file);
            if default.is_some() {
                return None;
            }
        }
        self.note((default.is_some() || is_file) && path.is_empty());
        let absolute = path.starts_with('/') || is_file || default.is_some();
        let (mut path, segments) = self.path(path, is_file)?;
        if absolute {
            path.insert(0, '/');
        }
        let query = uri.query_str();
        if let Some(query) = query {
            self.note(is_file || query.is_empty());
            self.escapes(query, b"", is_file)?;
        }
        let query_at = path_end.saturating_add(1);
        let query = query.map(|query| text.get(query_at..query_at.saturating_add(query.len())));
        // Nobody sends a fragment to a server, so it names the same resource.
        self.note(uri.fragment().is_some());
        Some(UriParts {
            scheme: scheme.into(),
            host,
            port: port.or(default),
            path: path.into(),
            segments,
            query: match query {
                Some(query) => Some(query?.into()),
                None => None,
            },
        })
    }

    fn authority(
        &mut self,
        uri: &UriStr,
        scheme: &str,
        default: Option<u16>,
    ) -> NoForm<(Box<str>, Option<u16>)> {
        let Some(authority) = uri.authority_components() else { return Some(("".into(), None)) };
        self.note(authority.userinfo().is_some());
        let host = authority.host().to_ascii_lowercase();
        self.note(host != authority.host());
        let host = match host.strip_suffix('.') {
            Some(host) => {
                self.note(true);
                host
            }
            None => &*host,
        };
        if host.contains('%') || (default.is_some() && host.is_empty()) {
            return None;
        }
        self.address(host, default.is_some())?;
        // `file` on this machine (RFC 8089 §2); on another one, some readers ignore which.
        let is_file = scheme == "file";
        self.note(is_file && !host.is_empty());
        let host = if is_file && host == "localhost" { "" } else { host };
        let port = match authority.port() {
            None => None,
            Some("") => {
                self.note(true);
                None
            }
            Some(port) => {
                self.note(port.len() > 1 && port.starts_with('0'));
                Some(port.parse().ok()?)
            }
        };
        self.note(port.is_some() && (port == default || is_file));
        Some((host.into(), port))
    }

    /// Reads a host that is an address. WHATWG parsers and `inet_aton` take `0x7f.1` and `2130706433`
    /// for 127.0.0.1, where a rule sees a name.
    fn address(&mut self, host: &str, special: bool) -> NoForm<()> {
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = inner.parse().ok()?;
            self.note(address.to_string() != inner || address.to_ipv4_mapped().is_some());
            return Some(());
        }
        let last = host.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        if special && numeric {
            let address: Ipv4Addr = host.parse().ok()?;
            self.note(address.to_string() != host);
        }
        Some(())
    }

    /// Returns the path without its first slash, and its segments.
    fn path(&mut self, path: &str, is_file: bool) -> NoForm<(String, Vec<Box<str>>)> {
        let body = path.strip_prefix('/').unwrap_or(path);
        let mut kept: Vec<(String, Box<str>)> = Vec::new();
        let mut ends_open = false;
        let mut raw = body.split('/').peekable();
        while let Some(segment) = raw.next() {
            let last = raw.peek().is_none();
            // An expression stands for text that nobody knows yet.
            let expression = segment.contains('{');
            let decoded = if expression {
                segment.to_owned()
            } else {
                // Editors on Windows name a folder `file:///c%3A/x`, in this spelling alone.
                let drive = is_file && kept.is_empty() && is_drive(segment);
                self.segment(segment, is_file && !drive)?
            };
            ends_open = last && matches!(&*decoded, "" | "." | "..");
            match &*decoded {
                "" => self.note(!last),
                "." => self.note(true),
                ".." => {
                    self.note(true);
                    kept.pop();
                }
                _ if expression => kept.push((segment.to_owned(), decoded.into())),
                _ => kept.push((escaped(&decoded), decoded.into())),
            }
        }
        let mut path = kept.iter().map(|(text, _)| &**text).collect::<Vec<_>>().join("/");
        if ends_open && !kept.is_empty() {
            path.push('/');
        }
        Some((path, kept.into_iter().map(|(_, segment)| segment).collect()))
    }

    /// Decodes one segment.
    fn segment(&mut self, segment: &str, is_file: bool) -> NoForm<String> {
        let decoded = String::from_utf8(self.escapes(segment, b"/\\%?#;", is_file)?).ok()?;
        // Java servers cut parameters off; Windows trims.
        self.note(segment.contains(';') || decoded.trim() != decoded);
        (!is_doubtful(&decoded)).then_some(decoded)
    }

    /// Decodes the escapes of a segment or query. An escaped control character, or one of `cuts`, has
    /// no normal form: a reader that decodes twice, or too early, finds a separator in it.
    fn escapes(&mut self, text: &str, cuts: &[u8], is_file: bool) -> NoForm<Vec<u8>> {
        let mut parts = text.split('%');
        let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let (hex, rest) = part.split_at_checked(2)?;
            let code = u8::from_str_radix(hex, 16).ok()?;
            if code.is_ascii_control() || cuts.contains(&code) {
                return None;
            }
            let unreserved = code.is_ascii_alphanumeric() || b"-._~".contains(&code);
            // A file system sees no difference between a colon and its escape.
            let same_file = is_file && b"!$&'()*+,=:@".contains(&code);
            self.note(unreserved || same_file || hex.bytes().any(|byte| byte.is_ascii_lowercase()));
            decoded.push(code);
            decoded.extend_from_slice(rest.as_bytes());
        }
        Some(decoded)
    }
}

/// Whether a segment is a drive of Windows with an escaped colon.
fn is_drive(segment: &str) -> bool {
    let letter = segment.strip_suffix("%3A");
    letter.is_some_and(|it| it.len() == 1 && it.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Escapes a segment: everything but `pchar` (RFC 3986 §3.3).
fn escaped(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 0xf] {
                let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> String {
        let Some(parts) = read(text, false).parts else { return "-".to_owned() };
        let port = parts.port.map_or(String::new(), |port| format!(":{port}"));
        let query = parts.query.map_or(String::new(), |query| format!("?{query}"));
        let UriParts { scheme, host, path, segments, .. } = parts;
        format!("{scheme} {host}{port} {path}{query} {}", segments.join("|"))
    }

    #[test]
    fn the_one_spelling_is_not_ambiguous() {
        for (text, expected) in [
            ("file:///etc/passwd", "file  /etc/passwd etc|passwd"),
            ("file:///home/u/", "file  /home/u/ home|u"),
            ("file:///c%3A/x", "file  /c:/x c:|x"),
            ("file:///a/caf%C3%A9%20menu", "file  /a/caf%C3%A9%20menu a|café menu"),
            ("file:///a.b/..c/d..", "file  /a.b/..c/d.. a.b|..c|d.."),
            ("https://example.com/a?next=../b", "https example.com:443 /a?next=../b a"),
            ("https://example.com:8443/", "https example.com:8443 / "),
            ("https://u.example/a%40b", "https u.example:443 /a@b a@b"),
            ("http://127.0.0.1/", "http 127.0.0.1:80 / "),
            ("http://[::1]/", "http [::1]:80 / "),
            ("note:a", "note  a a"),
            ("project://12345/flags", "project 12345 /flags flags"),
            ("config://app", "config app  "),
            ("urn:x:y", "urn  x:y x:y"),
            ("https://h.example/a?to=%2Fb%3Fc%25", "https h.example:443 /a?to=%2Fb%3Fc%25 a"),
        ] {
            assert_eq!(parts(text), expected, "{text}");
            assert!(!read(text, false).ambiguous, "{text}");
        }
    }

    #[test]
    fn another_spelling_is_ambiguous_and_has_the_parts_of_the_one() {
        let etc = "file  /etc/x etc|x";
        for text in [
            "file:///%65tc/x",
            "file:////etc/x",
            "FILE:///etc/x",
            "file://localhost/etc/x",
            "file:/etc/x",
            "file:etc/x",
            "file://LOCALHOST/etc/x",
            " file:///etc/x",
            "file:///etc/x ",
            "\tfile:///etc/x",
            "file:///etc/x\n",
            "\u{a0}file:///etc/x",
            "file:///etc//x",
            "file:///./etc/x",
            "file:///a/../etc/x",
            "file:///../etc/x",
            "file:///etc/%2e/x",
            "file:///etc/y/%2E%2E/x",
            "file://localhost./etc/x",
            "file:///etc/x#y",
            "file://localhost:/etc/x",
        ] {
            assert_eq!(parts(text), etc, "{text:?}");
            assert!(read(text, false).ambiguous, "{text:?}");
        }
        let one = "https h.example:443 /a/b a|b";
        for text in [
            "HTTPS://h.example/a/b",
            "https://H.example/a/b",
            "https://h.example:443/a/b",
            "https://h.example:/a/b",
            "https://h.example:0443/a/b",
            "https://h.example./a/b",
            "https://u@h.example/a/b",
            "https://@h.example/a/b",
            "https://u:p@h.example/a/b",
            "https://h.example//a/b",
            "https://h.example/a/%62",
            "https://h.example/a/b#",
        ] {
            assert_eq!(parts(text), one, "{text:?}");
            assert!(read(text, false).ambiguous, "{text:?}");
        }
        for (text, expected) in [
            ("https://h.example", "https h.example:443 / "),
            ("https://h.example/a?", "https h.example:443 /a? a"),
            ("file:///a?x", "file  /a?x a"),
            ("file://", "file  / "),
            ("file:///a/c%3A/x", "file  /a/c:/x a|c:|x"),
            ("file:///C%3A/x", "file  /C:/x C:|x"),
            ("file:///c%3a/x", "file  /c:/x c:|x"),
            ("https://h.example/a;b/c", "https h.example:443 /a;b/c a;b|c"),
            ("https://h.example/a?x=%61", "https h.example:443 /a?x=%61 a"),
            ("https://h.example/caf%c3%a9", "https h.example:443 /caf%C3%A9 café"),
            ("file://server/share", "file server /share share"),
            ("http://[0:0::1]/", "http [0:0::1]:80 / "),
            ("http://[::ffff:127.0.0.1]/", "http [::ffff:127.0.0.1]:80 / "),
            ("note:/a", "note  /a a"),
            ("https://h.example/a%20", "https h.example:443 /a%20 a "),
        ] {
            assert_eq!(parts(text), expected, "{text:?}");
            assert!(read(text, false).ambiguous, "{text:?}");
        }
    }

    #[test]
    fn what_has_no_one_form_has_no_parts() {
        for text in [
            "",
            " ",
            "x",
            "/etc/x",
            "//h/x",
            "etc/x",
            "file:///a%2fb",
            "file:///a%2Fb",
            "file:///a%5cb",
            "file:///a\\b",
            "file:\\\\etc\\x",
            "file:///%252e%252e/x",
            "file:///a%00",
            "file:///a%0a",
            "file:///e\ttc/x",
            "file:///et\nc/x",
            "file:///a b",
            "file:///%zz",
            "file:///%",
            "file:///%4",
            "file:///é",
            "file:///%EF%BC%85",
            "file:///a%E2%88%95b",
            "file:///e%CC%81",
            "file:///%c0%af",
            "file:///a%E2%80%8Bb",
            "file:///a%3Fb",
            "file:///a%23b",
            "file:///a%3Bb",
            "https:h.example/a",
            "https:/h.example/a",
            "https:///h.example/a",
            "https://%68.example/",
            "https://h\u{ff0e}example/",
            "https://h.example:99999/",
            "https://h.example:8x/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.1/",
            "https://h.example/a?x=%00",
            "https://h.example/a?x=%0D%0A",
            "http://0177.0.0.1/",
            "https://a@b@c/",
            "https://h.example\\@x/",
            "file:///{x}",
        ] {
            let reading = read(text, false);
            assert_eq!((reading.ambiguous, reading.parts), (true, None), "{text:?}");
        }
        assert!(read(&format!("file:///{}", "a".repeat(URI_BYTES_MAX)), false).ambiguous);
    }

    #[test]
    fn a_template_keeps_its_expressions() {
        let reading = read("repo://{owner}/x", true);
        assert_eq!((reading.ambiguous, reading.parts), (true, None));
        let reading = read("repo://o/{path}/b{?q}", true);
        assert!(!reading.ambiguous);
        let parts = reading.parts.unwrap();
        assert_eq!((&*parts.path, parts.segments.len()), ("/{path}/b{?q}", 2));
        for text in ["FILE:///{x}", "file:///%65tc/{x}", "file:///../{x}", "file:////{x}"] {
            assert!(read(text, true).ambiguous, "{text}");
        }
        for text in ["file:///{", "file:///}", "file:///{}", "file:///{a{b}}"] {
            assert_eq!(read(text, true).parts, None, "{text}");
        }
    }
}
