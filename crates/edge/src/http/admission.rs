//! Admission checks on a request's head, before its body is read (P1 and P12 of
//! docs/strict-profile.md): host, origin, repeated headers, framing, media type.
//!
//! A request that fails a check is refused; nothing is repaired. This prevents request smuggling
//! (two hops reading different requests from the same bytes) and DNS rebinding (a web page calling
//! a local server).

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE,
};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::HttpLimits;
use crate::upstream::{Media, media};
use bartizan_gate::session::DoorRefusal;
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_outbound::is_coded;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The hosts and web origins that a route accepts.
#[derive(Debug)]
pub(super) struct Allowed {
    hosts: Vec<Box<str>>,
    origins: Vec<Box<str>>,
}

impl Allowed {
    pub(super) fn new(hosts: &[String], origins: &[String]) -> Self {
        let lower = |names: &[String]| {
            names.iter().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect()
        };
        Self { hosts: lower(hosts), origins: lower(origins) }
    }

    /// An entry without a port allows every port; if there are no entries, loopback names are
    /// allowed.
    fn allows_host(&self, host: &str) -> bool {
        let Some((name, _)) = split_port(host) else { return false };
        if self.hosts.is_empty() {
            return LOOPBACK.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        }
        self.hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
    }

    /// Whether `origin` equals an entry; if there are no entries, loopback names over http or https
    /// on any port are allowed.
    fn allows_origin(&self, origin: &str) -> bool {
        if !self.origins.is_empty() {
            return self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        }
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        host.and_then(split_port)
            .is_some_and(|(name, _)| LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }
}

/// Host and port of `host[:port]`; `None` if it has another form.
fn split_port(host: &str) -> Option<(&str, Option<&str>)> {
    let (name, port) = if host.starts_with('[') {
        let (name, rest) = host.split_once(']')?;
        let end = name.len().checked_add(1)?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        (host.get(..end)?, port)
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    let digits = port.is_none_or(|port| {
        !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    (digits && plain).then_some((name, port))
}

/// The path of the request target; `None` if it has a query. Routes compare it byte by byte:
/// nothing is decoded or normalised.
pub(super) fn path(uri: &Uri) -> Option<&str> {
    let plain = uri.query().is_none_or(str::is_empty);
    plain.then(|| uri.path())
}

/// Checks everything about a request's head except its path.
pub(super) fn admit(
    parts: &Parts,
    allowed: &Allowed,
    limits: &HttpLimits,
) -> Result<(), DoorRefusal> {
    admit_head(parts, allowed, limits)?;
    match parts.method {
        Method::POST => check_media(&parts.headers),
        Method::GET | Method::DELETE => Ok(()),
        _ => Err(DoorRefusal::MethodNotAllowed),
    }
}

/// Checks host, origin, repeated headers and framing; the caller checks path, method and media
/// type.
pub(super) fn admit_head(
    parts: &Parts,
    allowed: &Allowed,
    limits: &HttpLimits,
) -> Result<(), DoorRefusal> {
    check_size(parts, limits.head_bytes())?;
    check_host(parts, allowed)?;
    check_origin(&parts.headers, allowed)?;
    check_fields(&parts.headers, limits.headers_max)?;
    check_framing(parts)
}

/// The request names exactly one host, which is allowed; if both `Host` and the request target name
/// one, they are equal.
fn check_host(parts: &Parts, allowed: &Allowed) -> Result<(), DoorRefusal> {
    let mut values = parts.headers.get_all(HOST).iter();
    let (header, more) = (values.next(), values.next());
    let header = match header.map(HeaderValue::to_str) {
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return Err(DoorRefusal::Host),
        None => None,
    };
    let authority = parts.uri.authority().map(::http::uri::Authority::as_str);
    let host = match (header, authority) {
        (Some(host), None) => host,
        // HTTP/2 has the pseudo-header `:authority` instead of `Host` (RFC 9113 §8.3.1).
        (None, Some(authority)) if parts.version == Version::HTTP_2 => authority,
        (Some(host), Some(authority)) if host.eq_ignore_ascii_case(authority) => host,
        (Some(_) | None, Some(_)) | (None, None) => return Err(DoorRefusal::Host),
    };
    if more.is_none() && allowed.allows_host(host) { Ok(()) } else { Err(DoorRefusal::Host) }
}

fn check_origin(headers: &HeaderMap, allowed: &Allowed) -> Result<(), DoorRefusal> {
    let mut values = headers.get_all(ORIGIN).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) if origin.to_str().is_ok_and(|text| allowed.allows_origin(text)) => {
            Ok(())
        }
        (Some(_), _) => Err(DoorRefusal::Origin),
    }
}

/// The header list of a request over HTTP/2 has at most `bytes_max` bytes (RFC 9113 §10.5.1: each
/// field counts 32 more). hyper checks the head of one over HTTP/1.
fn check_size(parts: &Parts, bytes_max: usize) -> Result<(), DoorRefusal> {
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len().saturating_add(value.len()).saturating_add(32)
    };
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let bytes = parts.headers.iter().map(field).fold(target, usize::saturating_add);
    if bytes > bytes_max { Err(DoorRefusal::HeadTooLarge) } else { Ok(()) }
}

/// Headers that we or the server act on occur at most once (P11, threat E3), and there are at most
/// `fields_max` fields.
fn check_fields(headers: &HeaderMap, fields_max: usize) -> Result<(), DoorRefusal> {
    if headers.len() > fields_max {
        return Err(DoorRefusal::Header);
    }
    let repeated = headers.len() > headers.keys_len();
    let twice = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    if repeated && headers.keys().any(|name| is_single(name) && twice(name)) {
        return Err(DoorRefusal::Header);
    }
    Ok(())
}

fn is_single(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("mcp-")
        || matches!(
            name,
            "authorization"
                | "content-encoding"
                | "content-length"
                | "expect"
                | "last-event-id"
                | "traceparent"
                | "transfer-encoding"
                | "user-agent"
        )
}

fn check_framing(parts: &Parts) -> Result<(), DoorRefusal> {
    let headers = &parts.headers;
    if headers.contains_key(UPGRADE) || !headers.get_all(CONNECTION).iter().all(nominates_nothing) {
        return Err(DoorRefusal::Framing);
    }
    if headers
        .get(EXPECT)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(DoorRefusal::Header);
    }
    let coding = headers.get(TRANSFER_ENCODING);
    let chunked = coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let both = coding.is_some() && headers.contains_key(CONTENT_LENGTH);
    let odd = coding.is_some() && parts.version != Version::HTTP_11;
    // A GET or DELETE with a body means different things to different hops (threat E10).
    let empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    let bodiless = matches!(parts.method, Method::GET | Method::DELETE);
    let misplaced = bodiless && (coding.is_some() || !empty);
    if chunked && !both && !odd && !misplaced { Ok(()) } else { Err(DoorRefusal::Framing) }
}

/// Whether `Connection` names no header: a header that it names would be removed by the next hop,
/// after we decided on it (threat E5).
fn nominates_nothing(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(|token| {
        token.is_empty()
            || token.eq_ignore_ascii_case(b"close")
            || token.eq_ignore_ascii_case(b"keep-alive")
    })
}

fn check_media(headers: &HeaderMap) -> Result<(), DoorRefusal> {
    if headers.contains_key(CONTENT_TYPE)
        && media(headers) == Some(Media::Json)
        && !is_coded(headers)
    {
        Ok(())
    } else {
        Err(DoorRefusal::MediaType)
    }
}

/// The value of a header; fails with `Header` if it is not visible ASCII.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Result<Option<Box<str>>, DoorRefusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(|text| Some(text.into())).map_err(|_| DoorRefusal::Header)
}

/// The headers that mirror the body (MCP 2026-07-28, streamable-http), for the gate to compare with
/// the body. Fails with `Header` if a value is not visible ASCII.
pub(super) fn routing(headers: &HeaderMap) -> Result<RoutingHeaders, DoorRefusal> {
    let mut routing = RoutingHeaders {
        protocol_version: text(headers, "mcp-protocol-version")?,
        method: text(headers, "mcp-method")?,
        name: text(headers, "mcp-name")?,
        params: Vec::new(),
    };
    for (name, value) in headers {
        if let Some(suffix) = name.as_str().strip_prefix("mcp-param-") {
            let value = value.to_str().map_err(|_| DoorRefusal::Header)?;
            routing.params.push((suffix.into(), value.into()));
        }
    }
    Ok(routing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    fn refusal(
        request: ::http::request::Builder,
        hosts: &[&str],
        origins: &[&str],
    ) -> Option<DoorRefusal> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let allowed = Allowed::new(&own(hosts), &own(origins));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        admit(&parts, &allowed, &HttpLimits::default()).err()
    }

    fn post() -> ::http::request::Builder {
        Request::post("/mcp").header("content-type", "application/json")
    }

    #[test]
    fn hosts() {
        for (host, allowed, expected) in [
            ("localhost", &[][..], true),
            ("LOCALHOST:8080", &[], true),
            ("127.0.0.1:1", &[], true),
            ("[::1]:80", &[], true),
            ("[::1]", &[], true),
            ("localhost.evil.example", &[], false),
            ("evil.example", &[], false),
            ("localhost:", &[], false),
            ("localhost:80x", &[], false),
            ("localhost:80:80", &[], false),
            ("user@localhost", &[], false),
            ("[::1]evil", &[], false),
            ("", &[], false),
            ("mcp.example", &["mcp.example"], true),
            ("mcp.example:99", &["mcp.example"], true),
            ("mcp.example:99", &["mcp.example:98"], false),
            ("mcp.example:98", &["Mcp.Example:98"], true),
            ("localhost", &["mcp.example"], false),
        ] {
            let found = refusal(post().header("host", host), allowed, &[]);
            assert_eq!(found.is_none(), expected, "{host} in {allowed:?}: {found:?}");
        }
        assert_eq!(refusal(post(), &[], &[]), Some(DoorRefusal::Host));
        let twice = post().header("host", "localhost").header("host", "localhost");
        assert_eq!(refusal(twice, &[], &[]), Some(DoorRefusal::Host));
        let absolute = post().uri("http://localhost/mcp").header("host", "127.0.0.1");
        assert_eq!(refusal(absolute, &[], &[]), Some(DoorRefusal::Host));
        let absolute = post().uri("http://localhost/mcp").header("host", "localhost");
        assert_eq!(refusal(absolute, &[], &[]), None);
    }

    #[test]
    fn origins() {
        for (origin, allowed, expected) in [
            ("http://localhost:7070", &[][..], true),
            ("https://LOCALHOST:7070", &[], true),
            ("http://localhost:3000", &[], true),
            ("http://localhost", &[], true),
            ("http://127.0.0.1:7070", &[], true),
            ("ftp://localhost", &[], false),
            ("http://localhost:7070.evil.example", &[], false),
            ("http://localhost:7070/", &[], false),
            ("null", &[], false),
            ("file://", &[], false),
            ("https://app.example", &["https://app.example"], true),
            ("https://app.example:444", &["https://app.example"], false),
            ("http://localhost", &["https://app.example"], false),
        ] {
            let request = post().header("host", "localhost:7070").header("origin", origin);
            let found = refusal(request, &[], allowed);
            assert_eq!(found.is_none(), expected, "{origin} in {allowed:?}: {found:?}");
        }
    }

    #[test]
    fn fields_and_framing() {
        use DoorRefusal::{Framing, Header, MediaType, MethodNotAllowed};
        let with = |name: &str, value: &str| {
            refusal(post().header("host", "localhost").header(name, value), &[], &[])
        };
        assert_eq!(with("connection", "keep-alive, close"), None);
        assert_eq!(with("connection", "close, mcp-protocol-version"), Some(Framing));
        assert_eq!(with("upgrade", "h2c"), Some(Framing));
        assert_eq!(with("expect", "100-Continue"), None);
        assert_eq!(with("expect", "200-ok"), Some(Header));
        assert_eq!(with("transfer-encoding", "chunked"), None);
        assert_eq!(with("transfer-encoding", "gzip, chunked"), Some(Framing));
        assert_eq!(with("content-encoding", "Identity"), None);
        assert_eq!(with("content-encoding", "GZIP"), Some(MediaType));
        assert_eq!(with("content-type", "application/json"), Some(MediaType));
        let both = post()
            .header("host", "localhost")
            .header("transfer-encoding", "chunked")
            .header("content-length", "3");
        assert_eq!(refusal(both, &[], &[]), Some(Framing));
        let twice =
            post().header("host", "localhost").header("mcp-name", "a").header("mcp-name", "a");
        assert_eq!(refusal(twice, &[], &[]), Some(Header));
        let mut many = post().header("host", "localhost");
        for number in 0..100 {
            many = many.header(format!("x-{number}"), "y");
        }
        assert_eq!(refusal(many, &[], &[]), Some(Header));
        let put = Request::put("/mcp").header("host", "localhost");
        assert_eq!(refusal(put, &[], &[]), Some(MethodNotAllowed));
        let get = Request::get("/mcp").header("host", "localhost").header("content-length", "3");
        assert_eq!(refusal(get, &[], &[]), Some(Framing));
        let get = Request::get("/mcp").header("host", "localhost").header("content-length", "0");
        assert_eq!(refusal(get, &[], &[]), None);
    }

    #[test]
    fn media_types() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=utf-7", false),
            ("application/json; charset=utf-16le", false),
            ("application/json; charset=utf-8; charset=utf-7", false),
            ("application/json; profile=x", false),
            ("application/json,text/plain", false),
            ("application/x+json", false),
            ("text/plain", false),
            ("text/event-stream", false),
            ("", false),
        ] {
            let request =
                Request::post("/mcp").header("host", "localhost").header("content-type", value);
            let found = refusal(request, &[], &[]);
            assert_eq!(found.is_none(), expected, "{value}");
        }
        let bare = Request::post("/mcp").header("host", "localhost");
        assert_eq!(refusal(bare, &[], &[]), Some(DoorRefusal::MediaType));
    }

    #[test]
    fn only_a_bare_path_is_a_path() {
        for (uri, expected) in [
            ("/mcp", Some("/mcp")),
            ("/mcp?", Some("/mcp")),
            ("/mcp?a", None),
            ("//mcp", Some("//mcp")),
            ("/%6dcp", Some("/%6dcp")),
            ("/a/../mcp", Some("/a/../mcp")),
            ("http://localhost/mcp", Some("/mcp")),
        ] {
            assert_eq!(path(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
