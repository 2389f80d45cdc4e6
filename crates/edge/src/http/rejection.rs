//! Rejected HTTP requests: those refused before their body was a message. The rejection is recorded
//! by the gate before it is sent.

use std::borrow::Cow;
use std::sync::Arc;

use ::http::header::{HOST, ORIGIN};
use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};

use super::RouteState;
use super::connection_state::ConnectionState;
use super::reply::{self, ReplyBody};
use crate::Shared;
use bartizan_gate::evidence::step::{Act, Unrecorded};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{DoorFacts, DoorRefusal, HttpFacts};

/// Length of a session id of HTTP+SSE, hexadecimal digits.
const SESSION_ID_LEN: usize = 32;

/// Why an HTTP request is rejected, and what the client is told.
pub(super) struct Rejection {
    pub(super) why: DoorRefusal,
    pub(super) route: Option<Arc<RouteState>>,
    /// The authenticated caller, if known.
    pub(super) principal: Option<Arc<Principal>>,
    /// A header to add to the response: `Allow` or `WWW-Authenticate`.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    /// Details for the journal only.
    pub(super) note: Option<&'static str>,
}

/// Where a request was sent to, kept for the record of its refusal.
pub(super) struct RequestTarget {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    origin: Option<HeaderValue>,
}

impl RequestTarget {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: parts.headers.get(HOST).cloned(),
            origin: parts.headers.get(ORIGIN).cloned(),
        }
    }

    fn facts(&self) -> HttpFacts {
        let header = |value: &Option<HeaderValue>| {
            value.as_ref().map(|value| {
                let text = String::from_utf8_lossy(value.as_bytes());
                plain_host(&text).into()
            })
        };
        let authority = self.uri.authority().map(|authority| plain_host(authority.as_str()).into());
        HttpFacts {
            method: self.method.as_str().into(),
            host: header(&self.host).or(authority),
            path: self.path().into(),
            origin: header(&self.origin),
        }
    }

    /// The path, without parameters and without the session id in a message path of HTTP+SSE.
    fn path(&self) -> String {
        let path = self.uri.path();
        let (plain, parameters) = path.split_once(';').unwrap_or((path, ""));
        let (before, last) = plain.rsplit_once('/').unwrap_or(("", plain));
        let kept = if is_session_id(last) { format!("{before}/***") } else { plain.to_owned() };
        if parameters.is_empty() { kept } else { format!("{kept};***") }
    }
}

/// Whether `segment` of a path has the form of a session id of HTTP+SSE.
pub(super) fn is_session_id(segment: &str) -> bool {
    segment.len() == SESSION_ID_LEN
        && segment.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `host` without user information.
fn plain_host(host: &str) -> Cow<'_, str> {
    match host.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}").into(),
        None => host.into(),
    }
}

impl Rejection {
    pub(super) fn from(why: DoorRefusal, route: Option<&Arc<RouteState>>) -> Self {
        let principal = route.and_then(|route| route.principal.clone());
        Self { why, route: route.cloned(), principal, header: None, note: None }
    }

    /// Records the rejection of a request to `target`, if a head was read, and gives its response;
    /// 503 if it could not be recorded.
    pub(super) fn refuse(
        &self,
        shared: &Shared,
        peer: &ConnectionState,
        target: Option<&RequestTarget>,
    ) -> Response<ReplyBody> {
        peer.note_refusal();
        let facts = DoorFacts {
            principal: self.principal.as_deref(),
            peer: peer.address(),
            server: self.route.as_ref().map(|route| &*route.server.facts.name),
            target: target.map(RequestTarget::facts),
            note: self.note.map(str::to_owned),
        };
        let step = shared.gate.refuse_at_door(self.why, facts, shared.now());
        match shared.record(step) {
            Ok(Act::Deliver(released)) => {
                let mut response = reply::own(&released);
                if let Some((name, value)) = self.header.clone() {
                    response.headers_mut().insert(name, value);
                }
                let later = matches!(
                    self.why,
                    DoorRefusal::TooMany | DoorRefusal::Closing | DoorRefusal::NoKeys
                );
                if later { reply::retry(response) } else { response }
            }
            Err(Unrecorded { refusal: Some(released), .. }) => reply::own(&released),
            Ok(Act::Forward(_) | Act::Hold(_) | Act::Drop) | Err(_) => {
                reply::bare(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}
