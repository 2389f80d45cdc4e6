//! Responses to clients: a status, the headers of an allow-list, and a body.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection_state::RequestGuard;
use super::shaped;
use super::stalls::StreamWatch;
use crate::upstream::SESSION_ID;
use bartizan_gate::evidence::step::Released;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_TRANSFORM: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
const SOON: HeaderValue = HeaderValue::from_static("1");
const ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE");

/// Largest piece of a body that is handed to HTTP/2 at once, bytes. h2 keeps a piece whole as soon
/// as the client takes its first byte.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// Added to a response: what stands for it where only a message can be sent, and no status.
#[derive(Debug, Clone)]
pub(super) struct Unsaid(pub(super) Bytes);

/// A response body, polled by hyper.
#[derive(Debug)]
pub(super) enum ReplyBody {
    /// A body of known length, sent with `Content-Length`.
    Whole(Bytes),
    /// A stream of events, each sent when it comes.
    Events(Box<dyn Events>),
    /// A body of an HTTP/2 stream, whose progress is watched.
    Watched(Box<WatchedBody>),
}

/// A stream of events for the client.
pub(super) trait Events: fmt::Debug + Send {
    /// Keeps `busy` until this body is dropped, so that its connection does not count as idle.
    fn hold(&mut self, busy: RequestGuard);

    /// The next bytes to send; `None` at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Self::Events(events) => events.poll_chunk(cx).map(|chunk| {
                let chunk = chunk?;
                Some(Ok(Frame::data(chunk)))
            }),
            Self::Watched(body) => body.poll_piece(cx).map(|piece| piece.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Events(_) => false,
            Self::Watched(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => {
                SizeHint::with_exact(u64::try_from(body.len()).unwrap_or(u64::MAX))
            }
            Self::Events(_) => SizeHint::default(),
            Self::Watched(body) => body.body.size_hint(),
        }
    }
}

/// A body of an HTTP/2 stream, in pieces, whose progress is watched.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: ReplyBody,
    watch: Arc<StreamWatch>,
    _busy: RequestGuard,
}

impl WatchedBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let piece = if let ReplyBody::Whole(body) = &mut self.body
            && body.len() > PIECE_BYTES
        {
            Poll::Ready(Some(Frame::data(body.split_to(PIECE_BYTES))))
        } else {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            frame.map(|frame| frame.map(|Ok(frame)| frame))
        };
        self.watch.polled(piece.is_ready());
        piece
    }
}

/// `response` with `busy` held by its stream of events, if it is one; over HTTP/2 by any body, whose
/// progress is watched.
pub(super) fn held(mut response: Response<ReplyBody>, busy: RequestGuard) -> Response<ReplyBody> {
    if let Some(watch) = StreamWatch::of_body() {
        return response
            .map(|body| ReplyBody::Watched(Box::new(WatchedBody { body, watch, _busy: busy })));
    }
    if let ReplyBody::Events(events) = response.body_mut() {
        events.hold(busy);
    }
    response
}

/// The response that carries a refusal of the gate, with its HTTP status.
pub(super) fn own(released: &Released) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(released.body().clone()));
    *response.status_mut() = status(released.status().code());
    if !released.body().is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, METHODS);
    }
    if let Some(seconds) = released.retry_after() {
        // RFC 9110, 10.2.3. Clients of MCP read it nowhere, whatever reads HTTP may.
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// A response without headers and body.
pub(super) fn bare(code: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Bytes::new()));
    *response.status_mut() = code;
    response
}

/// A response with a whole body.
pub(super) fn whole(code: u16, headers: HeaderMap, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(body));
    *response.status_mut() = status(code);
    *response.headers_mut() = headers;
    response
}

/// The response that carries an answer of the server under its status. What the gate read or wrote
/// is JSON, whatever the server called it.
pub(super) fn message(
    code: u16,
    mut headers: HeaderMap,
    released: &Released,
) -> Response<ReplyBody> {
    if !released.body().is_empty() && code >= 400 {
        headers.insert(CONTENT_TYPE, JSON);
    }
    let mut response = whole(code, headers, released.body().clone());
    if let Some(error) = released.unsaid() {
        response.extensions_mut().insert(Unsaid(error.clone()));
    }
    response
}

/// A response with a stream of events.
pub(super) fn events(
    code: u16,
    mut headers: HeaderMap,
    body: impl Events + 'static,
) -> Response<ReplyBody> {
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.entry(CACHE_CONTROL).or_insert(NO_TRANSFORM);
    // Tells proxies not to buffer the events (MCP 2026-07-28, streamable-http).
    headers.insert(ACCEL, HeaderValue::from_static("no"));
    let mut response = Response::new(ReplyBody::Events(Box::new(body)));
    *response.status_mut() = status(code);
    *response.headers_mut() = headers;
    response
}

/// Says when to come again: there is no room now.
pub(super) fn retry(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    response.headers_mut().insert(RETRY_AFTER, SOON);
    response
}

/// Adds `Connection: close`: after ambiguous framing nobody knows where the next request begins.
pub(super) fn last(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The server's headers that may reach the client (P13), each in its own grammar, and `session` as
/// the session id. `Location` and cookies are not on the allow-list.
pub(super) fn headers(from: &HeaderMap, session: Option<&str>) -> HeaderMap {
    let mut headers = shaped::headers(from);
    if let Some(Ok(session)) = session.map(HeaderValue::from_str) {
        headers.insert(SESSION_ID, session);
    }
    headers
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY)
}
