//! Protected servers: what takes a [`Permitted`] message and gives back an
//! [`Answer`].
//!
//! No message but a [`Permitted`] can be sent, and only the gate makes one. Here too is what HTTP
//! messages of either side must be to carry MCP: their media type.

mod http;
mod legacy_sse;

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName};

pub use self::http::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};
pub use self::legacy_sse::{LegacySseLimits, LegacySseUpstream};
use super::Answer;
use super::child::ChildUpstream;
use bartizan_gate::evidence::step::Permitted;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::UpstreamFailure;

/// The session header of the legacy Streamable HTTP transport, as HTTP spells it in lower case.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The header that resumes a legacy stream, as HTTP spells it in lower case.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A protected server.
#[derive(Debug)]
pub enum Upstream {
    /// Behind Streamable HTTP.
    Http(Box<HttpUpstream>),
    /// Behind HTTP+SSE, the transport of 2024-11-05.
    LegacySse(LegacySseUpstream),
    /// A child process.
    Child(ChildUpstream),
}

impl From<HttpUpstream> for Upstream {
    fn from(server: HttpUpstream) -> Self {
        Self::Http(Box::new(server))
    }
}

impl From<LegacySseUpstream> for Upstream {
    fn from(server: LegacySseUpstream) -> Self {
        Self::LegacySse(server)
    }
}

impl From<ChildUpstream> for Upstream {
    fn from(server: ChildUpstream) -> Self {
        Self::Child(server)
    }
}

/// What an upstream may know of the exchange besides the message.
#[derive(Debug, Clone)]
pub struct SendContext {
    /// The client's headers as they came; each upstream takes only those on its allow-list.
    pub headers: HeaderMap,
    /// The legacy session. A Streamable HTTP server minted it; for any other the edge did, and
    /// names it already when it sends `initialize`.
    pub session: Option<Box<str>>,
    /// Who asks.
    pub principal: Arc<Principal>,
}

impl Upstream {
    /// The way over HTTP, whichever transport is spoken on it.
    pub fn http(&self) -> Option<&HttpUpstream> {
        match self {
            Self::Http(server) => Some(server),
            Self::LegacySse(server) => Some(server.http()),
            Self::Child(_) => None,
        }
    }

    /// Whether sessions with it have ids of the server's own. Else whoever sends `initialize`
    /// mints one.
    pub fn mints_sessions(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::LegacySse(_) | Self::Child(_) => false,
        }
    }

    /// Sends `permitted` and waits for the answer, or for the beginning of its stream.
    ///
    /// Dropping the future, or the stream that it gives, lets go of the server at once. There is
    /// no deadline: the caller sets one.
    pub async fn send(
        &self,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        match self {
            Self::Http(server) => server.send(permitted, context).await,
            Self::LegacySse(server) => server.send(permitted, context).await,
            Self::Child(server) => server.send(permitted, context).await,
        }
    }
}

/// The two media types that carry MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/json` in UTF-8.
    Json,
    /// `text/event-stream` in UTF-8.
    EventStream,
}

/// The media type that `headers` name: once, with at most `charset=utf-8` as parameter (P1).
pub fn media(headers: &HeaderMap) -> Option<Media> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    if value == "application/json" {
        return Some(Media::Json);
    }
    let mut parts = value.to_str().ok()?.split(';').map(str::trim_ascii);
    let essence = parts.next()?;
    let parameter = parts.next();
    if parts.next().is_some() || !parameter.is_none_or(is_utf8) {
        return None;
    }
    if essence.eq_ignore_ascii_case("application/json") {
        Some(Media::Json)
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Some(Media::EventStream)
    } else {
        None
    }
}

fn is_utf8(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
}

/// Whether a `Content-Type` of `headers` speaks of JSON, however it is written.
pub(super) fn claims_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_TYPE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("json")))
}
