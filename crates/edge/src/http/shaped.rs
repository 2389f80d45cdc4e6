//! What reaches the client of a server's answer beside its messages: header fields, and the fields
//! of events (threat G27).
//!
//! The gate searches messages for secrets, and nothing else. So whatever else passes has a grammar
//! that no secret fits, or is replaced by a constant. Challenges are held by
//! [`challenge`](crate::oauth::challenge) before, because the server's address is known there.

use ::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::ServerEvent;

/// The comment in place of each of the server's.
const COMMENT: &str = "keep-alive";
/// The name in place of a name that MCP does not define. Clients ignore events of such names.
const OTHER: &str = "other";
/// The media type in place of one that is not in [`MEDIA`].
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Digits of a number of seconds, at most: 30 years.
const SECONDS_DIGITS: usize = 9;

/// Media types of bodies that may pass; those of errors and of OAuth pages are shown to people.
const MEDIA: [&str; 13] = [
    "application/javascript",
    "application/json",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "application/xml",
    "image/png",
    "image/svg+xml",
    "text/css",
    "text/event-stream",
    "text/html",
    "text/javascript",
    "text/plain",
    "text/xml",
];
const CHARSETS: [&str; 3] = ["utf-8", "us-ascii", "iso-8859-1"];
const METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
/// Directives of `Cache-Control` without an argument (RFC 9111 §5.2.2; RFC 8246).
const DIRECTIVES: [&str; 8] = [
    "immutable",
    "must-revalidate",
    "must-understand",
    "no-cache",
    "no-store",
    "no-transform",
    "private",
    "public",
];
/// Directives with a number of seconds (RFC 9111 §5.2.2; RFC 5861).
const TIMED: [&str; 4] = ["max-age", "s-maxage", "stale-if-error", "stale-while-revalidate"];

/// Headers of an answer for which there is room at once. hyper keeps the map as long as its
/// connection is open.
const USUAL_HEADERS: usize = 4;

/// The headers of `from` that may reach the client.
pub(super) fn headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    for (name, value) in from {
        if let Some(value) = shaped(name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// `value` as it may reach the client; `None` if the header may not.
fn shaped(name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
    // Held already.
    if *name == WWW_AUTHENTICATE {
        return Some(value.clone());
    }
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    if *name == CONTENT_TYPE {
        return Some(if is_media(text) { value.clone() } else { OCTETS });
    }
    let good = if *name == RETRY_AFTER {
        is_seconds(text) || is_date(text)
    } else if *name == ALLOW {
        text.split(',').all(|method| METHODS.contains(&method.trim()))
    } else if *name == CACHE_CONTROL {
        text.split(',').all(is_directive)
    } else {
        name.as_str() == "mcp-protocol-version" && is_revision(text)
    };
    good.then(|| value.clone())
}

fn is_media(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let known = parts.next().is_some_and(|media| MEDIA.contains(&media));
    let charset = |part: &str| {
        let value = part.strip_prefix("charset=").unwrap_or_default();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        CHARSETS.contains(&bare.unwrap_or(value))
    };
    known && parts.next().is_none_or(charset) && parts.next().is_none()
}

fn is_seconds(text: &str) -> bool {
    (1..=SECONDS_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text` is an `IMF-fixdate` (RFC 9110 §5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn is_date(text: &str) -> bool {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let digits = |text: &str, length: usize| text.len() == length && is_seconds(text);
    let [day, date, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else {
        return false;
    };
    day.strip_suffix(',').is_some_and(|day| DAYS.contains(&day))
        && digits(date, 2)
        && MONTHS.contains(&month)
        && digits(year, 4)
        && time.len() == 8
        && time.split(':').all(|part| digits(part, 2))
}

/// Whether `text` has the form of a revision of MCP, such as `2025-11-25`.
fn is_revision(text: &str) -> bool {
    let form = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(form)
}

fn is_directive(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    match lower.split_once('=') {
        Some((name, seconds)) => TIMED.contains(&name) && is_seconds(seconds),
        None => DIRECTIVES.contains(&&*lower),
    }
}

/// Replaces the name and the comments of a server's event. Its id is sealed elsewhere, where it may
/// pass.
pub(super) fn event(event: &mut ServerEvent) {
    if event.event.as_deref().is_some_and(|name| name != "message") {
        event.event = Some(OTHER.into());
    }
    if event.comment.is_some() {
        event.comment = Some(COMMENT.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_its_grammar_passes() {
        for (name, value, passes) in [
            ("content-type", "application/json", true),
            ("content-type", "text/html; charset=UTF-8", true),
            ("content-type", "text/plain;charset=\"us-ascii\"", true),
            ("retry-after", "120", true),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("retry-after", "AKIAQYLPMN5HFIQR7XYA", false),
            ("retry-after", "1234567890123456", false),
            ("retry-after", "", false),
            ("retry-after", "Sun, 06 Key 1994 08:49:37 GMT", false),
            ("retry-after", "Sun, 06 Nov 1994 08:49:3x GMT", false),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT x", false),
            ("allow", "GET, POST", true),
            ("allow", "GET, ghp_x", false),
            ("cache-control", "no-cache, no-transform", true),
            ("cache-control", "private, max-age=60", true),
            ("cache-control", "max-age=abc", false),
            ("cache-control", "private=\"x-key\"", false),
            ("mcp-protocol-version", "2025-11-25", true),
            ("mcp-protocol-version", "2025-11-25x", false),
            ("mcp-protocol-version", "ghp_x7Kq2L", false),
            ("x-request-id", "1", false),
            ("set-cookie", "a=b", false),
        ] {
            let mut from = HeaderMap::new();
            let name = HeaderName::from_static(name);
            from.insert(&name, HeaderValue::from_static(value));
            let told = headers(&from);
            assert_eq!(told.get(&name).is_some(), passes, "{name}: {value}");
        }
        for value in ["text/ghp_x", "application/json; key=x", "text/html; charset=ghp_x", "x"] {
            let from = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(headers(&from).get(CONTENT_TYPE), Some(&OCTETS), "{value}");
        }
    }
}
