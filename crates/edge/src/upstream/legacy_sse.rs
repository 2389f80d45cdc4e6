//! A protected server over HTTP+SSE, the transport of 2024-11-05.
//!
//! One GET opens a stream; its first event names where messages are posted, and all answers come
//! on the stream. A session is that stream: it begins with `initialize`, ends with it, and is
//! never resumed or opened again, because nothing could tell what was lost. Towards the rest of
//! the program this server looks like one of Streamable HTTP whose sessions the edge names.
//! Address, credentials, headers and bounds are those of [`HttpUpstream`].

mod endpoint;
mod conversation;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Uri};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::conversation::Conversation;
use super::{HttpUpstream, SESSION_ID, SendContext};
use crate::clock::Clock;
use crate::duplex::{Answered, End};
use crate::seats::{Seats, Unannounced, mint};
use crate::sse::SseBody;
use crate::{Answer, EventStream};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, FrameLimits};
use bartizan_gate::wire::method::Role;
use bartizan_sync::lock;

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
    sessions: Mutex<Seats<Arc<Conversation>>>,
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
        self.inner.sessions().iter().filter(|session| !session.has_ended()).count()
    }
}

impl Drop for LegacySseUpstream {
    fn drop(&mut self) {
        for session in self.inner.sessions().iter() {
            session.stop();
        }
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, Seats<Arc<Conversation>>> {
        lock(&self.sessions)
    }

    async fn message(
        self: &Arc<Self>,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let initialize = permitted.method().is_some_and(|method| method.role == Role::Handshake);
        let headers = self.http.headers(&permitted, &context.headers, None);
        match (&context.session, self.session(context)) {
            (_, Some(session)) => Ok(self.say(&session, permitted, headers).await?.0),
            (_, None) if initialize => self.initialize(permitted, headers, context).await,
            (Some(_), None) => Ok(Answer::bare(404)),
            (None, None) => Ok(Answer::bare(400)),
        }
    }

    /// The session that `context` names, if it lives and is this principal's.
    fn session(&self, context: &SendContext) -> Option<Arc<Conversation>> {
        let sessions = self.sessions();
        let session = sessions.get(context.session.as_deref()?, &context.principal)?;
        (!session.has_ended()).then(|| Arc::clone(session))
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
            None => mint().ok_or_else(no_randomness)?,
        };
        let opening = timeout(self.limits.open_max, self.open(headers.clone()));
        let (events, endpoint) = match opening.await.unwrap_or(Err(UpstreamFailure::TimedOut))? {
            Opened::Stream(events, endpoint) => (events, endpoint),
            Opened::Turned(answer) => return Ok(answer),
        };
        let session = Conversation::of(endpoint, self.limits, self.clock);
        {
            let mut sessions = self.sessions();
            if sessions.is_taken(&name) {
                // Another principal's: it does not exist for this one.
                return Ok(Answer::bare(404));
            }
            if sessions.len() >= self.limits.sessions_max {
                return Err(UpstreamFailure::Unreachable(format!(
                    "too many sessions (`sessions_max` {})",
                    self.limits.sessions_max
                )));
            }
            let owner = Arc::clone(&context.principal);
            sessions.begin(name.clone(), owner, Arc::clone(&session));
        }
        self.tasks.spawn(listen(
            Arc::downgrade(self),
            name.clone(),
            Arc::clone(&session).listen(*events, self.closing.clone()),
        ));
        let fresh = Unannounced::new(name, |name| self.forget(name));
        let (mut answer, end) = self.say(&session, permitted, headers).await?;
        let begun = match &answer {
            Answer::Whole { status, .. } => *status < 300 && !matches!(end, Some(End::Error(_))),
            Answer::Stream { .. } => true,
            Answer::Accepted { .. } => false,
        };
        if begun
            && let Some(name) = fresh.announce()
            && let (Ok(value), None) = (HeaderValue::from_str(&name), &context.session)
        {
            answer.headers_mut().insert(SESSION_ID, value);
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
        session: &Arc<Conversation>,
        permitted: Permitted,
        headers: HeaderMap,
    ) -> Result<(Answer, Option<End>), UpstreamFailure> {
        session.touch();
        let Some(id) = permitted.id() else {
            if permitted.method().is_some_and(|method| method.role == Role::Cancel) {
                let cancelled = permitted.frame().and_then(|frame| frame.named_id("requestId"));
                session.cancelled(cancelled.as_ref());
            }
            return match self.post(session, permitted.body().clone(), headers).await? {
                Answer::Accepted { .. } => Ok((Answer::accepted(202), None)),
                turned @ (Answer::Whole { .. } | Answer::Stream { .. }) => Ok((turned, None)),
            };
        };
        let token = permitted.frame().and_then(Frame::progress_token);
        let stream = session.ask(id, token).await?;
        // The answer may come before the POST is over, and the POST goes on if nobody waits: to go
        // away is no cancellation in the legacy eras.
        let (inner, session, number) = (Arc::clone(self), Arc::clone(session), stream.number());
        self.tasks.spawn(async move {
            let outcome = inner.post(&session, permitted.body().clone(), headers).await;
            if let Some(number) = number {
                session.posted(number, outcome).await;
            }
        });
        Ok(match stream.answer(false, self.limits.whole_wait).await? {
            Answered::Whole(body, end) => (Answer::json(200, body), Some(end)),
            Answered::Stream(stream) => (Answer::stream(stream), None),
            Answered::Turned(answer) => (answer, None),
        })
    }

    async fn post(
        &self,
        session: &Conversation,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<Answer, UpstreamFailure> {
        let posting = self.http.post_legacy(session.line.endpoint.clone(), headers, body);
        let posted = timeout(self.limits.accept_max, posting).await;
        posted.unwrap_or(Err(UpstreamFailure::TimedOut))
    }

    fn open_stream(&self, context: &SendContext) -> Answer {
        if context.session.is_none() {
            return Answer::bare(405);
        }
        let Some(session) = self.session(context) else { return Answer::bare(404) };
        session.hear().map_or_else(|| Answer::bare(409), Answer::stream)
    }

    fn end_session(&self, context: &SendContext) -> Answer {
        let Some(name) = context.session.as_deref() else { return Answer::bare(405) };
        if self.session(context).is_none() {
            return Answer::bare(404);
        }
        self.forget(name);
        Answer::accepted(204)
    }

    /// Ends a session and its stream.
    fn forget(&self, name: &str) {
        if let Some(session) = self.sessions().forget(name) {
            session.stop();
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

fn no_randomness() -> UpstreamFailure {
    UpstreamFailure::Unreachable("no randomness for the name of a session".to_owned())
}
