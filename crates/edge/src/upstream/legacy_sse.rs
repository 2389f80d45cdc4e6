//! A protected server over HTTP+SSE, the transport of 2024-11-05.
//!
//! One GET opens a stream; its first event names where messages are posted, and all answers come
//! on the stream. A session is that stream: it begins with `initialize`, ends with it, and is
//! never resumed or opened again, because nothing could tell what was lost. Towards the rest of
//! the program this server looks like one of Streamable HTTP whose sessions the edge names.
//! Address, credentials, headers and bounds are those of [`HttpUpstream`].

mod endpoint;
mod conversation;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Uri};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::conversation::LegacySseStream;
use self::conversation::{Conversation, End, First};
use super::{HttpUpstream, SESSION_ID, SendContext};
use crate::clock::Clock;
use crate::sse::SseBody;
use crate::{Answer, EventStream};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, FrameLimits};
use bartizan_gate::wire::method::Role;

/// Bounds on sessions with an HTTP+SSE server.
#[derive(Debug, Clone, Copy)]
pub struct LegacySseLimits {
    /// Sessions at once, each a connection of its own.
    pub sessions_max: usize,
    /// How one message is read to see whose it is.
    pub frame: FrameLimits,
    /// From the stream asked for to its `endpoint` event.
    pub open_max: Duration,
    /// For a posted message to be taken.
    pub accept_max: Duration,
    /// Requests of one session that wait for their answers.
    pub exchanges_max: usize,
    /// Messages waiting for the reader of one exchange.
    pub exchange_queue_max: usize,
    /// How long a message waits for a slow reader before its exchange is given up.
    pub exchange_wait_max: Duration,
    /// Messages kept while nobody can hear them.
    pub backlog_max: usize,
    /// How long an answer is waited for before it is given as a stream.
    pub whole_wait: Duration,
    /// Silence after which a session that nobody listens to is ended.
    pub idle_max: Duration,
    /// How long calls in flight may go on once we are closing.
    pub drain_max: Duration,
}

impl Default for LegacySseLimits {
    fn default() -> Self {
        Self {
            sessions_max: 8192,
            frame: FrameLimits::default(),
            open_max: Duration::from_secs(15),
            accept_max: Duration::from_secs(30),
            exchanges_max: 256,
            exchange_queue_max: 16,
            exchange_wait_max: Duration::from_secs(30),
            backlog_max: 64,
            whole_wait: Duration::from_secs(1),
            idle_max: Duration::from_hours(1),
            drain_max: Duration::from_secs(25),
        }
    }
}

/// An HTTP+SSE server and the sessions with it.
pub struct LegacySseUpstream {
    inner: Arc<Inner>,
}

struct Inner {
    http: HttpUpstream,
    limits: LegacySseLimits,
    clock: Clock,
    tasks: TaskTracker,
    closing: CancellationToken,
    sessions: Mutex<HashMap<Box<str>, Seat>>,
}

/// A session, and whose it is.
#[derive(Clone)]
struct Seat {
    principal: Box<str>,
    endpoint: Uri,
    conversation: Arc<Conversation>,
}

impl fmt::Debug for LegacySseUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacySseUpstream")
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

impl LegacySseUpstream {
    /// Sessions with `http`, whose address is that of the stream. Connects to nothing yet. Tasks
    /// are tracked in `tasks`; once `closing` is cancelled, calls in flight may end.
    pub fn new(
        http: HttpUpstream,
        limits: LegacySseLimits,
        clock: Clock,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let sessions = Mutex::default();
        Self { inner: Arc::new(Inner { http, limits, clock, tasks, closing, sessions }) }
    }

    /// Sends one permitted message. An unknown session is answered with 404, a second stream with
    /// 409, a request outside a session with 400, as a Streamable HTTP server would.
    ///
    /// An `initialize` opens the session that `context` names, which the caller must have minted;
    /// where it names none, one is minted and named in the answer's headers.
    pub async fn send(
        &self,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let inner = &self.inner;
        match permitted.dispatch() {
            Dispatch::Message => inner.message(permitted, context).await,
            Dispatch::OpenStream => Ok(inner.open_stream(context)),
            Dispatch::EndSession => Ok(inner.end_session(context)),
        }
    }

    /// The way to it.
    pub fn http(&self) -> &HttpUpstream {
        &self.inner.http
    }

    /// Sessions alive now.
    pub fn sessions(&self) -> usize {
        self.inner.sessions().values().filter(|seat| !seat.conversation.has_ended()).count()
    }
}

impl Drop for LegacySseUpstream {
    fn drop(&mut self) {
        for seat in self.inner.sessions().values() {
            seat.conversation.stop();
        }
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Seat>> {
        // Every change leaves it whole.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn message(
        self: &Arc<Self>,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let initialize = permitted.method().is_some_and(|method| method.role == Role::Handshake);
        let headers = self.http.headers(&permitted, &context.headers, None);
        match (&context.session, self.seat(context)) {
            (_, Some(seat)) => Ok(self.say(&seat, permitted, headers).await?.0),
            (_, None) if initialize => self.initialize(permitted, headers, context).await,
            (Some(_), None) => Ok(bare(404)),
            (None, None) => Ok(bare(400)),
        }
    }

    /// The session that `context` names, if it lives and is this principal's.
    fn seat(&self, context: &SendContext) -> Option<Seat> {
        let name = context.session.as_deref()?;
        let sessions = self.sessions();
        let seat = sessions.get(name).filter(|seat| *seat.principal == *context.principal.id)?;
        (!seat.conversation.has_ended()).then(|| seat.clone())
    }

    /// A new session. Where the server refuses, or the client does not wait, there is none.
    async fn initialize(
        self: &Arc<Self>,
        permitted: Permitted,
        headers: HeaderMap,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let name = match &context.session {
            Some(name) => name.clone(),
            None => session_name()?,
        };
        let opening = timeout(self.limits.open_max, self.open(headers.clone()));
        let (events, endpoint) = match opening.await.unwrap_or(Err(UpstreamFailure::TimedOut))? {
            Opened::Stream(events, endpoint) => (events, endpoint),
            Opened::Turned(answer) => return Ok(answer),
        };
        let conversation = Conversation::new(self.limits, self.clock);
        let seat = Seat {
            principal: context.principal.id.clone(),
            endpoint,
            conversation: Arc::clone(&conversation),
        };
        {
            let mut sessions = self.sessions();
            if sessions.contains_key(&name) {
                // Another principal's: it does not exist for this one.
                return Ok(bare(404));
            }
            if sessions.len() >= self.limits.sessions_max {
                return Err(UpstreamFailure::Unreachable(format!(
                    "too many sessions (`sessions_max` {})",
                    self.limits.sessions_max
                )));
            }
            sessions.insert(name.clone(), seat.clone());
        }
        self.tasks.spawn(listen(
            Arc::downgrade(self),
            name.clone(),
            conversation.listen(*events, self.closing.clone()),
        ));
        let mut fresh = Fresh { inner: self, name: Some(name) };
        let (mut answer, end) = self.say(&seat, permitted, headers).await?;
        let begun = match &answer {
            Answer::Whole { status, .. } => *status < 300 && end != Some(End::Error),
            Answer::Stream { .. } => true,
            Answer::Accepted { .. } => false,
        };
        if begun
            && let Some(name) = fresh.name.take()
            && let (Ok(value), None) = (HeaderValue::from_str(&name), &context.session)
            && let Answer::Whole { headers, .. } | Answer::Stream { headers, .. } = &mut answer
        {
            headers.insert(SESSION_ID, value);
        }
        Ok(answer)
    }

    /// Opens the server's stream and reads where messages go (2024-11-05, basic/transports).
    async fn open(&self, headers: HeaderMap) -> Result<Opened, UpstreamFailure> {
        if self.closing.is_cancelled() {
            return Err(UpstreamFailure::Unreachable("closing".to_owned()));
        }
        let mut events = match self.http.open_legacy(headers).await? {
            Answer::Stream { events: EventStream::Sse(events), .. } => events,
            // A challenge, or whatever else the client must hear of.
            answer @ Answer::Whole { status: 400.., .. } => return Ok(Opened::Turned(answer)),
            Answer::Stream { .. } | Answer::Whole { .. } | Answer::Accepted { .. } => {
                return Err(UpstreamFailure::Unreadable("no event stream".to_owned()));
            }
        };
        let unreadable = |why: &str| {
            tracing::warn!(why, "no session with an HTTP+SSE server");
            UpstreamFailure::Unreadable(why.to_owned())
        };
        loop {
            let event = events.next().await.unwrap_or(Err(UpstreamFailure::EndedEarly))?;
            match event.event.as_deref() {
                Some("endpoint") => {
                    let address = self.http.address();
                    let endpoint = endpoint::resolve(address, &event.data).map_err(unreadable)?;
                    return Ok(Opened::Stream(events, endpoint));
                }
                None if event.data.is_empty() => {}
                _ => return Err(unreadable("its first event is no `endpoint`")),
            }
        }
    }

    /// Posts a message and waits for its answer on the stream, or for the beginning of it; and how
    /// it ended, where the answer is whole.
    async fn say(
        self: &Arc<Self>,
        seat: &Seat,
        permitted: Permitted,
        headers: HeaderMap,
    ) -> Result<(Answer, Option<End>), UpstreamFailure> {
        seat.conversation.touch();
        let Some(id) = permitted.id() else {
            if permitted.method().is_some_and(|method| method.role == Role::Cancel) {
                let cancelled = permitted.frame().and_then(|frame| frame.named_id("requestId"));
                seat.conversation.cancelled(cancelled.as_ref());
            }
            return match self.post(seat, permitted.body().clone(), headers).await? {
                Answer::Accepted { .. } => Ok((accepted(202), None)),
                turned @ (Answer::Whole { .. } | Answer::Stream { .. }) => Ok((turned, None)),
            };
        };
        let token = permitted.frame().and_then(Frame::progress_token);
        let mut stream = seat.conversation.open(id, token)?;
        // The answer may come before the POST is over, and the POST goes on if nobody waits: to go
        // away is no cancellation in the legacy eras.
        let posting = {
            let (inner, seat, body) = (Arc::clone(self), seat.clone(), permitted.body().clone());
            self.tasks.spawn(async move { inner.post(&seat, body, headers).await })
        };
        stream.posting(posting);
        let mut first = stream.first().await;
        if matches!(first, First::Accepted) {
            let soon = timeout(self.limits.whole_wait, stream.first()).await;
            first = soon.unwrap_or(First::Accepted);
        }
        match first {
            First::Message { end: Some(end) } => match stream.next().await {
                Some(event) => Ok((whole(event?.data), Some(end))),
                None => Err(UpstreamFailure::EndedEarly),
            },
            First::Message { end: None } | First::Accepted => Ok((streamed(stream), None)),
            First::Turned(answer) => Ok((*answer, None)),
            First::Failed(failure) => Err(failure),
        }
    }

    async fn post(
        &self,
        seat: &Seat,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<Answer, UpstreamFailure> {
        let posting = self.http.post_legacy(seat.endpoint.clone(), headers, body);
        let posted = timeout(self.limits.accept_max, posting).await;
        posted.unwrap_or(Err(UpstreamFailure::TimedOut))
    }

    fn open_stream(&self, context: &SendContext) -> Answer {
        if context.session.is_none() {
            return bare(405);
        }
        let Some(seat) = self.seat(context) else { return bare(404) };
        seat.conversation.hear().map_or_else(|| bare(409), streamed)
    }

    fn end_session(&self, context: &SendContext) -> Answer {
        let Some(name) = context.session.as_deref() else { return bare(405) };
        if self.seat(context).is_none() {
            return bare(404);
        }
        self.forget(name);
        accepted(204)
    }

    /// Ends a session and its stream.
    fn forget(&self, name: &str) {
        if let Some(seat) = self.sessions().remove(name) {
            seat.conversation.stop();
        }
    }
}

/// What came of asking for a stream.
enum Opened {
    /// The stream, and where messages are posted.
    Stream(Box<SseBody>, Uri),
    /// The server answered with an error.
    Turned(Answer),
}

/// Listens, then forgets the session.
async fn listen(inner: Weak<Inner>, name: Box<str>, listening: impl Future<Output = ()>) {
    listening.await;
    if let Some(inner) = inner.upgrade() {
        inner.forget(&name);
    }
}

/// A session that nobody has been told of yet.
struct Fresh<'a> {
    inner: &'a Inner,
    name: Option<Box<str>>,
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.inner.forget(name);
        }
    }
}

fn streamed(stream: LegacySseStream) -> Answer {
    let events = EventStream::LegacySse(Box::new(stream));
    Answer::Stream { status: 200, headers: HeaderMap::new(), events }
}

fn whole(body: Bytes) -> Answer {
    let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer::Whole { status: 200, headers: HeaderMap::from_iter([json]), body }
}

fn accepted(status: u16) -> Answer {
    Answer::Accepted { status, headers: HeaderMap::new() }
}

/// An answer that says nothing but its status.
fn bare(status: u16) -> Answer {
    Answer::Whole { status, headers: HeaderMap::new(), body: Bytes::new() }
}

/// 128 random bits: what nobody guesses (threat F7).
fn session_name() -> Result<Box<str>, UpstreamFailure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|cause| UpstreamFailure::Unreachable(format!("no randomness: {cause}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)).into())
}
