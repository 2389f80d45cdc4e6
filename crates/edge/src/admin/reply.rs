//! Answers of the operators' listener: JSON, with headers that keep browsers from doing more with it
//! than reading it.

use ::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use ::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use serde::Serialize;

/// Each answer's body.
pub(super) type Body = Full<Bytes>;

/// Headers of each answer: it runs nothing, loads nothing, stands in no frame, is taken for nothing
/// else, and is kept nowhere.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    ),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// An answer with a JSON text, or with an empty body.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Sends a browser to `location`, which may hold a secret.
pub(super) fn see_other(mut location: HeaderValue) -> Response<Body> {
    location.set_sensitive(true);
    let mut response = json(StatusCode::SEE_OTHER, Bytes::new());
    response.headers_mut().insert(LOCATION, location);
    response
}

/// An answer with `value` as JSON.
pub(super) fn of(value: &impl Serialize) -> Response<Body> {
    // Values of our own types can always be written.
    json(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default().into())
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// A stable identifier.
    pub(super) code: &'static str,
    /// For a person; a text of the program.
    pub(super) message: &'static str,
    /// What to do next, likewise.
    pub(super) hint: &'static str,
    /// What else its answer says.
    pub(super) and: And,
}

/// A header of the answer to a request that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum And {
    Nothing,
    /// The client may come again in a second.
    Later,
    /// How to authenticate (RFC 9110 §11.6.1).
    Challenge,
    /// The method that the path takes (RFC 9110 §10.2.1).
    Allow(&'static str),
}

/// [`Problem`] as JSON.
#[derive(Debug, Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    hint: &'a str,
}

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: Error<'a>,
}

impl And {
    /// The header.
    pub(super) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Nothing => return None,
            Self::Later => (RETRY_AFTER, "1"),
            Self::Challenge => (WWW_AUTHENTICATE, "Bearer realm=\"bartizan approvals\""),
            Self::Allow(methods) => (ALLOW, methods),
        };
        Some((name, HeaderValue::from_static(value)))
    }
}

impl Problem {
    pub(super) const fn new(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        hint: &'static str,
    ) -> Self {
        Self { status, code, message, hint, and: And::Nothing }
    }

    pub(super) const fn and(self, and: And) -> Self {
        Self { and, ..self }
    }

    /// The answer that says so.
    pub(super) fn response(self) -> Response<Body> {
        let Self { status, code, message, hint, and } = self;
        let mut response = of(&ErrorBody { error: Error { code, message, hint } });
        *response.status_mut() = status;
        response.headers_mut().extend(and.header());
        response
    }
}
