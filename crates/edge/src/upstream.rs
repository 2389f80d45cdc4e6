//! Protected servers: each takes a [`Permitted`] message and returns an [`Answer`]. The HTTP
//! listener and `client::remote` call it.
//!
//! Only a [`Permitted`] message can be sent, and only the gate makes one. This module also defines
//! the media types and content codings in which HTTP messages of either side may carry MCP.

mod http;
mod legacy_sse;

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName};

pub use self::http::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};
pub use self::legacy_sse::{LegacySseLimits, LegacySseUpstream};
use super::Answer;
use super::child::ChildUpstream;
pub use super::session::Departure;
use bartizan_gate::evidence::step::Permitted;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::UpstreamFailure;

/// The session header of the legacy Streamable HTTP transport (2025-11-25, "Session Management"),
/// in lower case.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The header that resumes a legacy stream (WHATWG HTML §9.2.4), in lower case.
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

/// What an upstream knows of an exchange besides the message.
#[derive(Debug, Clone)]
pub struct SendContext {
    /// The client's headers, unfiltered; each upstream forwards only those on its allow-list.
    pub headers: HeaderMap,
    /// The legacy session id. A Streamable HTTP server minted it; for other servers the edge mints
    /// it before it sends `initialize`.
    pub session: Option<Box<str>>,
    /// The caller.
    pub principal: Arc<Principal>,
    /// Asked if the client disconnects before the answer; `None` where nothing need be sent then.
    pub departure: Option<Arc<dyn Departure>>,
}

impl Upstream {
    /// The HTTP server, whichever MCP transport it speaks; `None` for a child process.
    pub fn http(&self) -> Option<&HttpUpstream> {
        match self {
            Self::Http(server) => Some(server),
            Self::LegacySse(server) => Some(server.http()),
            Self::Child(_) => None,
        }
    }

    /// Whether the server mints its session ids. If not, the sender of `initialize` mints one.
    pub fn mints_sessions(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::LegacySse(_) | Self::Child(_) => false,
        }
    }

    /// Sends `permitted` and waits for the answer, or for the beginning of its stream.
    ///
    /// Dropping the future, or the stream that it returns, closes the request to the server at
    /// once. There is no timeout: the caller sets one. Fails if the server cannot be reached or its
    /// answer not be read.
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

/// The media type of `headers`: one `Content-Type`, with at most the parameter `charset=utf-8`
/// (P1); `None` otherwise.
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
