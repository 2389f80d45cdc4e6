//! The page on which people answer held calls, read the journal and look at servers, at `/console`.
//!
//! A few files, as they are in `console/`: nothing is built, and nothing is loaded from elsewhere.
//! They hold nothing of any call. The page asks for an approver's token, keeps it for as long as it is
//! open, and calls [`super::api`] with it. Its policy (Content Security Policy, Trusted Types) lets
//! only these files run, and lets no text become markup: all that it shows was written by agents.

use ::http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;

use super::reply::{self, Body};

/// Path, media type and content of each file.
const FILES: [(&str, &str, &str); 7] = [
    ("/console", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("/console/app.js", SCRIPT, include_str!("console/app.js")),
    ("/console/audit.js", SCRIPT, include_str!("console/audit.js")),
    ("/console/calls.js", SCRIPT, include_str!("console/calls.js")),
    ("/console/servers.js", SCRIPT, include_str!("console/servers.js")),
    ("/console/text.js", SCRIPT, include_str!("console/text.js")),
    ("/console/style.css", "text/css; charset=utf-8", include_str!("console/style.css")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page may do: run and look like its own files say, and ask this listener.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The answer to a request for a file of the page; `None` if `path` is none of them.
pub(super) fn answer(method: &Method, path: &str) -> Option<Response<Body>> {
    let (_, media, content) = FILES.into_iter().find(|(known, _, _)| *known == path)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = reply::json(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let mut response = reply::json(StatusCode::OK, Bytes::from_static(content.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    Some(response)
}
