//! A protected server over HTTP+SSE, the transport of revision 2024-11-05.
//!
//! One GET opens a stream. Its first event names the address for messages, and all answers come on
//! the stream. The stream is the session: it begins with `initialize`, and it is never resumed or
//! opened again, because messages lost in between could not be detected. For the rest of the
//! program this server looks like a Streamable HTTP server whose session ids the edge mints.
//! Address, credentials, headers and limits are those of [`HttpUpstream`].

mod endpoint;
mod conversation;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Uri};
use bytes::Bytes;
use tokio::time::timeout;

use self::conversation::Conversation;
use super::{HttpUpstream, SESSION_ID, SendContext};
use crate::duplex::{End, ExchangeAnswer};
use crate::kept::{Account, no_room};
use crate::registry::{SessionRegistry, Unannounced, mint};
use crate::sse::SseBody;
use crate::{Answer, EventStream, Shared};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, FrameLimits};
use bartizan_gate::wire::method::Role;
use bartizan_sync::lock;

/// Limits of sessions with an HTTP+SSE server.
#[derive(Debug, Clone, Copy)]
pub struct LegacySseLimits {
    /// Sessions at once, each a connection of its own.
    pub sessions_max: usize,
    /// Limits for parsing a message to find out which exchange it belongs to.
    pub frame: FrameLimits,
    /// From requesting the stream to its `endpoint` event.
    pub open_max: Duration,
    /// How long the server may take to accept a posted message.
    pub accept_max: Duration,
    /// Requests of one session that wait for their answers.
    pub exchanges_max: usize,
    /// Messages queued for the reader of one exchange.
    pub exchange_queue_max: usize,
    /// How long a message waits for a slow reader before its exchange is closed.
    pub exchange_wait_max: Duration,
    /// Messages kept while the stream of server messages is not open.
    pub backlog_max: usize,
    /// How long to wait for a whole answer before the response becomes an event stream.
    pub whole_wait: Duration,
    /// How long a session is kept that nobody uses or reads.
    pub idle_max: Duration,
    /// How long calls in flight may go on after shutdown began.
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
    inner: Arc<SseClient>,
}

struct SseClient {
    http: HttpUpstream,
    limits: LegacySseLimits,
    shared: Shared,
    sessions: Mutex<SessionRegistry<Arc<Conversation>>>,
}

impl fmt::Debug for LegacySseUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacySseUpstream")
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

impl LegacySseUpstream {
    /// A server whose stream is at the address of `http`. Connects to nothing yet. Tasks are
    /// tracked in `shared`; after shutdown begins, calls in flight may finish within
    /// [`LegacySseLimits::drain_max`]. Messages that wait are charged to the gate's memory.
    pub fn new(http: HttpUpstream, limits: LegacySseLimits, shared: Shared) -> Self {
        let sessions = Mutex::default();
        Self { inner: Arc::new(SseClient { http, limits, shared, sessions }) }
    }

    /// Sends one permitted message. As a Streamable HTTP server would, it answers an unknown
    /// session with 404, a second stream of server messages with 409, and a request outside a
    /// session with 400.
    ///
    /// An `initialize` opens the session that `context` names, whose id the caller must have
    /// minted; if it names none, one is minted and put into the answer's headers. Fails if the
    /// server cannot be reached or its answer not be read.
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

    /// The HTTP connection to it.
    pub fn http(&self) -> &HttpUpstream {
        &self.inner.http
    }

    /// Number of open sessions.
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

impl SseClient {
    fn sessions(&self) -> MutexGuard<'_, SessionRegistry<Arc<Conversation>>> {
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

    /// The session that `context` names, if it is open and belongs to this principal.
    fn session(&self, context: &SendContext) -> Option<Arc<Conversation>> {
        let sessions = self.sessions();
        let session = sessions.get(context.session.as_deref()?, &context.principal)?;
        (!session.has_ended()).then(|| Arc::clone(session))
    }

    /// Begins a session. If the server refuses or the client disconnects, the session is discarded.
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
        let account = Account::new(self.shared.gate.memory(), &context.principal.id);
        let opening = timeout(self.limits.open_max, self.open(headers.clone(), &account));
        let (events, endpoint) = match opening.await.unwrap_or(Err(UpstreamFailure::TimedOut))? {
            Opened::Stream(events, endpoint) => (events, endpoint),
            Opened::Status(answer) => return Ok(answer),
        };
        let session = Conversation::of(endpoint, self.limits, self.shared.clock, account.clone());
        {
            let mut sessions = self.sessions();
            if sessions.is_taken(&name) {
                // The session belongs to another principal, so for this one it does not exist.
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
        self.shared.tasks.spawn(listen(
            Arc::downgrade(self),
            name.clone(),
            Arc::clone(&session).listen(*events, self.shared.closing.clone()),
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

    /// Opens the server's stream and reads its `endpoint` event (2024-11-05, basic/transports).
    async fn open(&self, headers: HeaderMap, account: &Account) -> Result<Opened, UpstreamFailure> {
        if self.shared.closing.is_cancelled() {
            return Err(UpstreamFailure::Unreachable("closing".to_owned()));
        }
        let mut events = match self.http.open_legacy(headers).await? {
            Answer::Stream { events: EventStream::Sse(events), .. } => events,
            // An error status, such as a challenge, which the client must see.
            answer @ Answer::Whole { status: 400.., .. } => return Ok(Opened::Status(answer)),
            Answer::Stream { .. } | Answer::Whole { .. } | Answer::Accepted { .. } => {
                return Err(UpstreamFailure::Unreadable("no event stream".to_owned()));
            }
        };
        events.charge_to(account);
        let unreadable = |why: &str| {
            tracing::warn!(why, "cannot open a session with an HTTP+SSE server");
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
                _ => return Err(unreadable("its first event is not `endpoint`")),
            }
        }
    }

    /// Posts a message and waits for its answer on the stream, or for the beginning of the answer's
    /// stream. A whole answer comes with how it ended.
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
        // The answer may come before the POST has ended, and the POST goes on without a reader: in
        // the legacy eras a disconnect is no cancellation.
        let (inner, session, number) = (Arc::clone(self), Arc::clone(session), stream.number());
        // The memory of the request's body is given back while the POST goes on.
        let body = session.account().hold(permitted.body().clone()).map_err(|_| no_room())?;
        drop(permitted);
        self.shared.tasks.spawn(async move {
            let outcome = inner.post(&session, body, headers).await;
            if let Some(number) = number {
                session.posted(number, outcome).await;
            }
        });
        Ok(match stream.answer(false, self.limits.whole_wait).await? {
            ExchangeAnswer::Whole(body, end) => (Answer::json(200, body), Some(end)),
            ExchangeAnswer::Stream(stream) => (Answer::stream(stream), None),
            ExchangeAnswer::Status(answer) => (answer, None),
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
        session.open_server_stream().map_or_else(|| Answer::bare(409), Answer::stream)
    }

    fn end_session(&self, context: &SendContext) -> Answer {
        let Some(name) = context.session.as_deref() else { return Answer::bare(405) };
        if self.session(context).is_none() {
            return Answer::bare(404);
        }
        self.forget(name);
        Answer::accepted(204)
    }

    /// Removes a session and closes its stream.
    fn forget(&self, name: &str) {
        if let Some(session) = self.sessions().forget(name) {
            session.stop();
        }
    }
}

/// The outcome of requesting the stream.
enum Opened {
    /// The stream, and the address for messages.
    Stream(Box<SseBody>, Uri),
    /// The server answered with an error status.
    Status(Answer),
}

/// Reads the stream to its end, then removes the session.
async fn listen(inner: Weak<SseClient>, name: Box<str>, listening: impl Future<Output = ()>) {
    listening.await;
    if let Some(inner) = inner.upgrade() {
        inner.forget(&name);
    }
}

fn no_randomness() -> UpstreamFailure {
    UpstreamFailure::Unreachable("the system gives no randomness for a session id".to_owned())
}
