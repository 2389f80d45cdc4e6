//! Keep-alive comments: bytes for a client whose answer takes long, or whose stream is quiet.
//!
//! Proxies and load balancers cut a connection on which nothing is sent, many of them after a
//! minute. So every event stream gets a comment when nothing was written to it for the interval, and
//! an answer that takes longer than the interval becomes an event stream: its head is sent, then
//! comments, then the answer as an event. [`Attended`] does this for any request, whatever it waits
//! for: its turn, the server, a decision. A comment is no message, so nothing is recorded for it.
//!
//! The head is sent early only where [`EarlyHead`] allows it: the client takes event streams, and
//! the gate has forwarded or holds a request whose answer says nothing in its head that matters. What
//! the server's head says later is lost: the status (its JSON-RPC error is sent), challenges,
//! `Retry-After`, `MCP-Protocol-Version`.
//!
//! A request that waits for approval may get progress in place of comments ([`EarlyHead::tell`]); the
//! first notification sends the head.
//!
//! No timer is set for what is ready at once, and one timer for each request that has to wait.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::ACCEPT;
use ::http::{HeaderMap, Method, Request, Response};
use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::connection_state::{ConnectionState, RequestGuard};
use super::reply::{self, Events, PIECE_BYTES, ReplyBody, Unsaid};
use crate::kept::FREE_BYTES;
use crate::{ServerEvent, sse};
use bartizan_gate::evidence::step::Released;

/// The comment, which readers of event streams ignore (WHATWG HTML §9.2.6).
pub(super) const COMMENT: &[u8] = b": keep-alive\n\n";

/// Measures for how long nothing was written.
#[derive(Debug)]
pub(super) struct Silence {
    /// `None`: nobody asks.
    interval: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer measures a silence that is over.
    broken: bool,
}

impl Silence {
    /// A silence of `interval` at a time; none ever with `None`.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self { interval, timer: None, broken: false }
    }

    /// Something was written. The next silence begins with the next [`Silence::poll`].
    pub(super) fn broken(&mut self) {
        self.broken = true;
    }

    /// Ready after each interval of silence.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(interval) = self.interval else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(interval)));
        if std::mem::take(&mut self.broken) {
            timer.as_mut().set(sleep(interval));
        }
        ready!(timer.as_mut().poll(cx));
        self.broken = true;
        Poll::Ready(())
    }

    /// A comment after each interval of silence.
    pub(super) fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.poll(cx).map(|()| Bytes::from_static(COMMENT))
    }
}

/// Whether the head of the answer to one POST may be sent before the answer, and whether it was.
#[derive(Debug, Default)]
pub(super) struct EarlyHead {
    allowed: AtomicBool,
    sent: AtomicBool,
    /// The next notification, until the client takes it; a later one replaces it.
    told: Mutex<Option<Bytes>>,
}

impl EarlyHead {
    /// For `request`, if its client can read an event stream as the answer.
    pub(super) fn of(request: &Request<Incoming>) -> Option<Arc<Self>> {
        let takes = *request.method() == Method::POST && takes_events(request.headers());
        takes.then(Arc::default)
    }

    /// Allows it. To be called once the gate has permitted, or holds, a request whose answer has an
    /// id and says nothing in its head that matters.
    pub(super) fn allow(&self) {
        self.allowed.store(true, Ordering::Relaxed);
    }

    fn is_allowed(&self) -> bool {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Has a notification sent to the client before the answer. For the handling of the request alone,
    /// whose caller looks for it.
    pub(super) fn tell(&self, told: &Released) {
        self.keep(told.body());
    }

    fn keep(&self, message: &Bytes) {
        let data = message.clone();
        let mut event = BytesMut::new();
        sse::write(&ServerEvent { data, ..ServerEvent::default() }, &mut event);
        *lock(&self.told) = Some(event.freeze());
    }

    fn take_told(&self) -> Option<Bytes> {
        lock(&self.told).take()
    }

    /// Whether a notification waits and may be sent.
    fn tells(&self) -> bool {
        self.is_allowed() && lock(&self.told).is_some()
    }

    /// Whether it was sent, so that the response goes on as a part of its body.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Whether `Accept` names event streams. A client that takes anything (`*/*`) may not know them.
fn takes_events(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|ranges| ranges.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim_ascii);
        let named = parts.next().is_some_and(|it| it.eq_ignore_ascii_case("text/event-stream"));
        named && !parts.any(is_weight_zero)
    })
}

/// Whether `parameter` is `q=0`, in any form (RFC 9110 §12.4.2): not acceptable.
fn is_weight_zero(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| weight.bytes().all(|byte| matches!(byte, b'0' | b'.')))
}

/// The whole handling of one request.
pub(super) type Handling = Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>;

/// The handling of one request, until its response, or until the head is sent early. Dropping it
/// means that the client disconnected.
pub(super) struct Attended {
    /// `None` once it has given its response.
    handling: Option<Handling>,
    /// `None` if the head is never sent early.
    early: Option<Arc<EarlyHead>>,
    silence: Silence,
    peer: Arc<ConnectionState>,
}

impl Attended {
    /// The `handling` of a request that came on the connection `peer`; its head may be sent `early`,
    /// after `interval`.
    pub(super) fn new(
        handling: Handling,
        (early, interval): (Option<Arc<EarlyHead>>, Option<Duration>),
        peer: Arc<ConnectionState>,
    ) -> Self {
        Self { handling: Some(handling), early, silence: Silence::new(interval), peer }
    }

    /// A response that begins with comments and goes on with that of `handling`.
    fn begun(&self, early: Arc<EarlyHead>, handling: Handling) -> Response<ReplyBody> {
        early.sent.store(true, Ordering::Relaxed);
        let silence = Silence::new(self.silence.interval);
        let answer = LateAnswer::Awaited(handling);
        let body = LateBody { answer, early, silence, first: true, busy: None };
        let response = reply::events(200, HeaderMap::with_capacity(3), body);
        let last = !self.peer.is_http2() && self.peer.takes_no_more();
        let response = if last { reply::last(response) } else { response };
        reply::held(response, self.peer.begin())
    }
}

impl Future for Attended {
    type Output = Response<ReplyBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(mut handling) = this.handling.take() else { return Poll::Pending };
        if let Poll::Ready(response) = handling.as_mut().poll(cx) {
            return Poll::Ready(response);
        }
        if let Some(early) = &this.early {
            let mut due = early.tells();
            while !due && this.silence.poll(cx).is_ready() {
                due = early.is_allowed();
            }
            if due {
                return Poll::Ready(this.begun(Arc::clone(early), handling));
            }
        }
        this.handling = Some(handling);
        Poll::Pending
    }
}

/// The response whose head was sent early, as the rest of a stream of events.
enum LateAnswer {
    /// It is not there yet.
    Awaited(Handling),
    /// A whole message, of which this is left to be written.
    Message { begun: bool, rest: Bytes },
    /// A stream, which goes through.
    Stream(ReplyBody),
    /// All was written.
    Over,
}

impl LateAnswer {
    /// `response` as the rest of the stream.
    fn of(response: Response<ReplyBody>) -> Self {
        let (mut parts, body) = response.into_parts();
        match body {
            ReplyBody::Whole(body) => {
                let unsaid = parts.extensions.remove().map(|Unsaid(error)| error);
                let body = unsaid.or_else(|| (!body.is_empty()).then_some(body));
                // Without a message the call was settled before: the client waits for nothing.
                body.map_or(Self::Over, |rest| Self::Message { begun: false, rest })
            }
            body @ (ReplyBody::Events(_) | ReplyBody::Watched(_)) => Self::Stream(body),
        }
    }
}

/// The body of a response whose head was sent early; hyper polls it. Dropping it drops the handling:
/// the client disconnected.
struct LateBody {
    answer: LateAnswer,
    early: Arc<EarlyHead>,
    silence: Silence,
    /// Nothing was written yet.
    first: bool,
    busy: Option<RequestGuard>,
}

impl fmt::Debug for LateBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateBody").finish_non_exhaustive()
    }
}

impl Events for LateBody {
    fn hold(&mut self, busy: RequestGuard) {
        self.busy = Some(busy);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let LateAnswer::Awaited(handling) = &mut self.answer {
            match handling.as_mut().poll(cx) {
                Poll::Ready(response) => self.answer = LateAnswer::of(response),
                Poll::Pending => {
                    let first = std::mem::take(&mut self.first);
                    if let Some(told) = self.early.take_told() {
                        self.silence.broken();
                        return Poll::Ready(Some(told));
                    }
                    if first {
                        return Poll::Ready(Some(Bytes::from_static(COMMENT)));
                    }
                    return self.silence.poll_comment(cx).map(Some);
                }
            }
        }
        match &mut self.answer {
            LateAnswer::Awaited(_) => Poll::Pending,
            LateAnswer::Message { begun, rest } => {
                let (chunk, over) = next_piece(begun, rest);
                if over {
                    self.answer = LateAnswer::Over;
                }
                Poll::Ready(Some(chunk))
            }
            LateAnswer::Stream(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let chunk = frame.and_then(|Ok(frame)| frame.into_data().ok());
                Poll::Ready(chunk)
            }
            LateAnswer::Over => Poll::Ready(None),
        }
    }
}

/// The next bytes of the event that carries the message `rest`, and whether they are its last. A
/// message of some size goes in pieces: it is not copied, and a client over HTTP/2 that reads slowly
/// is seen to read.
fn next_piece(begun: &mut bool, rest: &mut Bytes) -> (Bytes, bool) {
    const FIELD: &[u8] = b"data: ";
    const END: &[u8] = b"\n\n";
    if !*begun && rest.len() <= FREE_BYTES {
        let text = one_line(std::mem::take(rest));
        return ([FIELD, &*text, END].concat().into(), true);
    }
    if !std::mem::replace(begun, true) {
        return (Bytes::from_static(FIELD), false);
    }
    if rest.is_empty() {
        return (Bytes::from_static(END), true);
    }
    (one_line(rest.split_to(rest.len().min(PIECE_BYTES))), false)
}

/// `json`, or a piece of it, without line ends, which would end the field. In JSON they stand
/// between values only, where a space means the same (RFC 8259 §2).
fn one_line(json: Bytes) -> Bytes {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(is_end) {
        return json;
    }
    json.iter().map(|byte| if is_end(byte) { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_that_name_event_streams_take_them() {
        for (accept, takes) in [
            (&["application/json, text/event-stream"][..], true),
            (&["application/json", "Text/Event-Stream;q=0.5"], true),
            (&["text/event-stream ; charset=utf-8"], true),
            (&["application/json,text/event-stream;q=0"], false),
            (&["application/json, text/event-stream; Q=0.000"], false),
            (&["application/json"], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["text/event-streams"], false),
            (&[], false),
        ] {
            let headers = accept.iter().map(|value| (ACCEPT, value.parse().unwrap()));
            assert_eq!(takes_events(&headers.collect()), takes, "{accept:?}");
        }
    }

    #[test]
    fn a_notification_waits_for_leave_and_gives_way_to_the_next() {
        let message = |id: u32| Bytes::from(format!("{{\"id\":{id}}}"));
        let early = EarlyHead::default();
        early.keep(&message(1));
        assert!(!early.tells(), "the head may not be sent");
        early.allow();
        assert!(early.tells());
        early.keep(&message(2));
        let told = early.take_told().unwrap();
        assert!(told.starts_with(b"data: {") && told.ends_with(b"}\n\n"), "{told:?}");
        assert!(String::from_utf8_lossy(&told).contains("\"id\":2"), "{told:?}");
        assert!(early.take_told().is_none() && !early.tells(), "the first is gone");
    }

    #[test]
    fn a_message_becomes_one_data_line_whatever_its_size() {
        let long = format!("[1,\r\n{}\n\r2]", "3,".repeat(100_000));
        for text in ["{}", "{\n  \"a\": 1\r\n}\r\n", &long] {
            let (mut begun, mut rest) = (false, Bytes::from(text.to_owned()));
            let mut written = Vec::new();
            loop {
                let (chunk, over) = next_piece(&mut begun, &mut rest);
                assert!(chunk.len() <= PIECE_BYTES, "{}", chunk.len());
                written.extend_from_slice(&chunk);
                if over {
                    break;
                }
            }
            let expected = format!("data: {}\n\n", text.replace(['\r', '\n'], " "));
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_write_begins_the_silence_anew() {
        /// Polls once; when the silence will have lasted long enough.
        async fn end(silence: &mut Silence) -> Option<tokio::time::Instant> {
            let told = std::future::poll_fn(|cx| Poll::Ready(silence.poll(cx))).await;
            assert!(told.is_pending());
            silence.timer.as_ref().map(|timer| timer.deadline())
        }
        let mut silence = Silence::new(Some(Duration::from_hours(1)));
        assert!(silence.timer.is_none(), "nobody has waited yet");
        let first = end(&mut silence).await;
        assert_eq!(end(&mut silence).await, first);
        silence.broken();
        assert!(end(&mut silence).await > first);
        let mut never = Silence::new(None);
        assert_eq!(end(&mut never).await, None);
    }
}
