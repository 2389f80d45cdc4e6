//! Joins a client with one stream of messages to a server over HTTP: a desktop client on a pipe, or
//! an HTTP+SSE client.
//!
//! Requests run concurrently, each in a POST of its own. Notifications and answers are sent one
//! after the other, before any later message. In the legacy eras the session id that the server
//! minted is kept, its stream of server messages is held open and resumed, a session that the
//! server no longer knows is begun again, and at the end the session is ended. In the modern era
//! the headers that mirror the body are written from it, and a cancellation closes the response
//! stream instead of being sent (revision 2026-07-28, basic/transports/streamable-http).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::Bytes;
use http::header::{ACCEPT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exit::ExitReason;
use super::{Client, Input, MessageFraming};
use crate::child::lines::Lines;
use crate::upstream::{SESSION_ID, SendContext, Upstream};
use crate::{Answer, EventStream, ServerEvent};
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::session::{Gate, ServerState, Session, UpstreamFailure};
use bartizan_gate::wire::document::{Document, DocumentLimits, Kind};
use bartizan_gate::wire::frame::{Frame, Id, write_id};
use bartizan_gate::wire::headers::encode;
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::{ClaimedVersion, Era, Revision};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The `Accept` value of a POST: a JSON body or an event stream.
pub(super) const ANY_ANSWER: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");
const STREAM_ONLY: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Longest session id that is kept, bytes.
const SESSION_ID_MAX: usize = 512;

/// Limits of a client's connection to an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLimits {
    /// Requests of the client in flight at once.
    pub requests_max: usize,
    /// How long the server may take to accept a notification or an answer.
    pub accept_max: Duration,
    /// From sending a request to its whole answer, or to the head of a stream. This limit and the
    /// next do not apply to subscriptions.
    pub answer_max: Duration,
    /// Longest silence on the stream of an answer: no event and no comment.
    pub silence_max: Duration,
    /// How often the broken stream of one request is resumed.
    pub resumes_max: u32,
    /// Pause before a stream is opened again, if its server gives no `retry`.
    pub retry: Duration,
    /// Longest such pause, whatever `retry` the server gives and however often it failed.
    pub retry_max: Duration,
    /// Consecutive failures after which the stream of server messages is not opened again.
    pub stream_failures_max: u32,
    /// How long calls in flight may go on after the client disconnected or shutdown began.
    pub drain_max: Duration,
    /// How long ending the session may take.
    pub end_max: Duration,
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            requests_max: 256,
            accept_max: Duration::from_secs(30),
            answer_max: Duration::from_mins(5),
            silence_max: Duration::from_mins(5),
            resumes_max: 100,
            retry: Duration::from_secs(1),
            retry_max: Duration::from_mins(1),
            stream_failures_max: 10,
            drain_max: Duration::from_secs(25),
            end_max: Duration::from_secs(2),
        }
    }
}

/// A source of the client's messages, in order.
pub(crate) trait MessageSource: Send {
    /// The next message, as the gate's act for it.
    fn next(&mut self, client: &Client) -> impl Future<Output = Input> + Send;

    /// The client's headers that came with the last message; none on a pipe.
    fn headers(&self) -> HeaderMap {
        HeaderMap::new()
    }

    /// The receiver of a challenge to the last message; none on a pipe.
    fn challenged(&mut self) -> Option<Challenged> {
        None
    }
}

/// An HTTP error with which a server asks for other credentials. The receiver must settle its call.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends a challenge to the task that waits for it. Dropped when there will be none.
pub(crate) type Challenged = oneshot::Sender<Challenge>;

impl<R: AsyncRead + Unpin + Send> MessageSource for Lines<R> {
    async fn next(&mut self, client: &Client) -> Input {
        client.next(self).await
    }
}

/// Serves the client until the client or the session ends.
pub(crate) async fn serve<S: MessageSource>(
    client: Arc<Client>,
    mut input: S,
    upstream: Arc<Upstream>,
    limits: RemoteLimits,
) -> ExitReason {
    let remote = Arc::new(Remote {
        client,
        upstream,
        limits,
        tasks: TaskTracker::new(),
        over: CancellationToken::new(),
        lost: CancellationToken::new(),
        state: Mutex::default(),
        renewing: Semaphore::new(1),
    });
    let client = &remote.client;
    let closing = client.shared.closing.clone();
    let reason = tokio::select! {
        reason = remote.pump_up(&mut input) => reason,
        () = closing.cancelled() => ExitReason::Closing,
        () = client.closed().cancelled() => ExitReason::SessionClosed,
        () = client.gone.cancelled() => ExitReason::ClientBroken("it no longer reads".to_owned()),
        () = remote.lost.cancelled() => ExitReason::SessionLost,
    };
    let shutdown = async {
        if reason == ExitReason::Closing {
            std::future::pending::<()>().await;
        } else {
            closing.cancelled().await;
        }
    };
    tokio::select! {
        () = client.idle() => {}
        () = client.gone.cancelled() => {}
        () = sleep(remote.limits.drain_max) => {}
        () = shutdown => {}
    }
    // Closes every stream that is still open.
    remote.over.cancel();
    remote.tasks.close();
    remote.tasks.wait().await;
    let unasked = matches!(reason, ExitReason::Closing | ExitReason::SessionLost);
    let failure = unasked.then(|| UpstreamFailure::Unreachable(reason.to_string()));
    client.close(failure.as_ref(), remote.limits.end_max).await;
    remote.end_session().await;
    reason
}

/// The state of one client's connection to an HTTP server.
pub(super) struct Remote {
    pub(super) client: Arc<Client>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) limits: RemoteLimits,
    /// Tasks of this run: calls, and the stream of server messages.
    tasks: TaskTracker,
    /// Cancelled at the end of the run.
    over: CancellationToken,
    /// Cancelled when the server no longer knows the session of an HTTP+SSE client, whose stream
    /// ends with it.
    lost: CancellationToken,
    state: Mutex<RemoteState>,
    /// One permit, held while a lost session is begun again, so that only one task does it.
    pub(super) renewing: Semaphore,
}

#[derive(Default)]
pub(super) struct RemoteState {
    /// The legacy session that the server minted.
    pub(super) session: Option<Box<str>>,
    /// The client's messages that began it.
    pub(super) opening: Opening,
    /// The headers that came with the client's last message.
    headers: HeaderMap,
    /// Requests in flight, each with the token that cancels it.
    open: BTreeMap<Id, (CallId, CancellationToken)>,
    /// Whether the stream of server messages was opened.
    listening: bool,
}

/// The client's `initialize` and `notifications/initialized`, at most one line long each.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) initialize: Option<Bytes>,
    pub(super) initialized: Option<Bytes>,
}

impl Opening {
    /// Keeps a message that is one of the two.
    fn note(&mut self, role: Option<Role>, body: &Bytes) {
        if role == Some(Role::Handshake) {
            *self = Self { initialize: Some(body.clone()), initialized: None };
        } else if role == Some(Role::Ready) {
            self.initialized = Some(body.clone());
        }
    }
}

/// The position in a stream, from which it can be resumed.
#[derive(Debug, Default)]
struct Position {
    last: Option<Box<str>>,
    retry: Option<Duration>,
}

impl Position {
    fn pass(&mut self, event: &ServerEvent) {
        if let Some(id) = &event.id {
            // An empty id resets the position (WHATWG HTML §9.2.6).
            self.last = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            self.retry = Some(Duration::from_millis(retry));
        }
    }
}

impl Remote {
    pub(super) fn state(&self) -> MutexGuard<'_, RemoteState> {
        // No panic can leave the state half updated, so a poisoned lock is safe.
        lock(&self.state)
    }

    /// Forwards the client's messages to the server.
    async fn pump_up<S: MessageSource>(self: &Arc<Self>, input: &mut S) -> ExitReason {
        loop {
            let act = match input.next(&self.client).await {
                Input::Act(act) => act,
                Input::Closed => return ExitReason::ClientClosed,
                Input::Broken(cause) => return ExitReason::ClientBroken(cause.to_string()),
            };
            let Some(permitted) = self.client.carry(act).await else { continue };
            self.state().headers = input.headers();
            self.send(permitted, input.challenged()).await;
        }
    }

    async fn send(self: &Arc<Self>, permitted: Permitted, challenged: Option<Challenged>) {
        let call = Arc::clone(permitted.call());
        let role = permitted.method().map(|method| method.role);
        let context = self.context(&permitted);
        if !self.client.is_current(&call) {
            // The session was begun again after the call was judged, and holds nothing of what the
            // decision counted on.
            let failure = UpstreamFailure::Unreachable("the server's session began anew".into());
            self.client.failed(&call, &failure).await;
            return;
        }
        self.state().opening.note(role, permitted.body());
        let Some(id) = permitted.id().cloned() else {
            if role == Some(Role::Cancel) {
                self.cancel_request(
                    permitted.frame().and_then(|frame| frame.named_id("requestId")),
                );
                if self.era() == Era::Modern {
                    self.client.accepted(&call).await;
                    return;
                }
            }
            if self.post(permitted, &context, challenged).await && role == Some(Role::Ready) {
                self.listen();
            }
            return;
        };
        if self.tasks.len() > self.limits.requests_max {
            let failure = UpstreamFailure::Unreachable(format!(
                "too many requests at once (`requests_max` {})",
                self.limits.requests_max
            ));
            self.client.failed(&call, &failure).await;
            return;
        }
        let cancel = self.over.child_token();
        self.state().open.insert(id.clone(), (Arc::clone(&call), cancel.clone()));
        let body = permitted.body().clone();
        let remote = Arc::clone(self);
        let exchange = RemoteRequest { remote, call, context, role, id, body, challenged };
        if role == Some(Role::Handshake) {
            // Later messages need the session id of this answer.
            exchange.run(permitted, cancel).await;
        } else {
            self.tasks.spawn(exchange.run(permitted, cancel));
        }
    }

    fn era(&self) -> Era {
        self.client.protocol().era
    }

    /// The headers and the session of a message; in the modern era, with the headers that mirror
    /// the body.
    fn context(&self, permitted: &Permitted) -> SendContext {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, ANY_ANSWER);
        let protocol = permitted.protocol();
        if protocol.era == Era::Modern {
            let named = permitted.frame().and_then(Frame::claimed_version);
            let method = permitted.frame().and_then(|frame| frame.message().method());
            let name = permitted.routing().name.as_deref().map(encode);
            set(
                &mut headers,
                PROTOCOL_VERSION,
                named.map(ClaimedVersion::as_str).or(protocol.revision.map(Revision::as_str)),
            );
            set(&mut headers, METHOD, method);
            set(&mut headers, NAME, name.as_deref());
        } else if permitted.method().is_none_or(|method| method.role != Role::Handshake) {
            self.name_revision(&mut headers);
        }
        self.with_session(headers)
    }

    /// Adds the header `MCP-Protocol-Version` with the session's revision.
    pub(super) fn name_revision(&self, headers: &mut HeaderMap) {
        let revision = self.client.protocol().revision;
        set(headers, PROTOCOL_VERSION, revision.map(Revision::as_str));
    }

    pub(super) fn with_session(&self, own: HeaderMap) -> SendContext {
        let (session, mut headers) = {
            let state = self.state();
            (state.session.clone(), state.headers.clone())
        };
        headers.extend(own);
        SendContext { headers, session, principal: self.client.principal(), departure: None }
    }

    /// Sends a notification or an answer; `true` if the server accepted it.
    pub(super) async fn tell(&self, permitted: Permitted, context: &SendContext) -> bool {
        self.post(permitted, context, None).await
    }

    /// Like [`Remote::tell`]; a challenge goes to `challenged`.
    async fn post(
        &self,
        permitted: Permitted,
        context: &SendContext,
        challenged: Option<Challenged>,
    ) -> bool {
        let call = Arc::clone(permitted.call());
        let sent = timeout(self.limits.accept_max, self.upstream.send(permitted, context)).await;
        match sent.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(answer) if status_of(&answer) < 400 => {
                self.client.accepted(&call).await;
                true
            }
            Ok(answer) => {
                if let Some(answer) = challenge(answer, challenged) {
                    self.note_status(status_of(&answer));
                    let failure = UpstreamFailure::Status(status_of(&answer));
                    self.client.failed(&call, &failure).await;
                }
                false
            }
            Err(failure) => {
                self.client.failed(&call, &failure).await;
                false
            }
        }
    }

    /// A 404 means that the server no longer knows the session (2025-11-25, "Session Management").
    /// An HTTP+SSE client then loses its stream; a client on a pipe stays connected.
    fn note_status(&self, status: u16) {
        let lives_by_it = self.client.form() == MessageFraming::Events && self.era() == Era::Legacy;
        if status == 404 && lives_by_it && self.state().session.is_some() {
            self.lost.cancel();
        }
    }

    /// The client cancels: closes the response stream of its request. In the modern era that is the
    /// cancellation; in the legacy era it has no meaning.
    fn cancel_request(&self, id: Option<Id>) {
        if let Some((_, cancel)) = id.and_then(|id| self.state().open.remove(&id)) {
            cancel.cancel();
        }
    }

    /// Asks for a legacy stream from `position` on. `Ok(None)` where the server has none.
    async fn open_stream(
        &self,
        position: &Position,
    ) -> Result<Option<EventStream>, UpstreamFailure> {
        let act = self.client.act(Session::open_stream).await;
        // The client did not ask for this stream, so a refusal is not delivered.
        let Act::Forward(permitted) = act else { return Ok(None) };
        let call = Arc::clone(permitted.call());
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, STREAM_ONLY);
        self.name_revision(&mut headers);
        set(&mut headers, LAST_EVENT_ID, position.last.as_deref());
        let context = self.with_session(headers);
        let sent = timeout(self.limits.accept_max, self.upstream.send(permitted, &context)).await;
        match sent.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(Answer::Stream { events, .. }) => {
                self.client.accepted(&call).await;
                Ok(Some(events))
            }
            Ok(answer) => {
                let status = status_of(&answer);
                self.note_status(status);
                self.client.failed(&call, &UpstreamFailure::Status(status)).await;
                // A status such as 405 is permanent; 429 and 5xx are temporary.
                let passing = status == 429 || status >= 500;
                if passing { Err(UpstreamFailure::Status(status)) } else { Ok(None) }
            }
            Err(failure) => {
                self.client.failed(&call, &failure).await;
                Err(failure)
            }
        }
    }

    /// Holds the stream of server messages open for the rest of the run.
    pub(super) fn listen(self: &Arc<Self>) {
        if self.era() == Era::Modern || std::mem::replace(&mut self.state().listening, true) {
            return;
        }
        let remote = Arc::clone(self);
        self.tasks.spawn(async move {
            let over = remote.over.clone();
            tokio::select! {
                () = over.cancelled() => {}
                () = remote.follow_server_stream() => {}
            }
        });
    }

    async fn follow_server_stream(&self) {
        let mut position = Position::default();
        let mut session = self.state().session.clone();
        let mut failures = 0_u32;
        while failures < self.limits.stream_failures_max {
            {
                let now = self.state().session.clone();
                if now != session {
                    position = Position::default();
                    session = now;
                }
            }
            let heard = match self.open_stream(&position).await {
                Ok(Some(events)) => self.pass_on(events, &mut position).await,
                Ok(None) => {
                    let mut state = self.state();
                    if state.session == session {
                        state.listening = false;
                        return;
                    }
                    // Another session has begun in the meantime.
                    continue;
                }
                Err(_told) => false,
            };
            failures = if heard { 0 } else { failures.saturating_add(1) };
            sleep(self.pause(&position, failures)).await;
        }
        tracing::warn!("stream of server messages failed too often; not opened again");
    }

    /// Passes the messages of a stream to the client until it ends; `true` if there was any event.
    async fn pass_on(&self, mut events: EventStream, position: &mut Position) -> bool {
        let mut heard = false;
        while let Some(Ok(event)) = events.next().await {
            heard = true;
            position.pass(&event);
            if !event.data.is_empty() {
                let act = self.client.unasked(&event.data).await;
                self.carry(act).await;
            }
        }
        heard
    }

    /// Delivers a message of the server that names no call.
    pub(super) async fn carry_stray(&self, raw: &Bytes, duties: &Duties) {
        let stray =
            |session: &mut Session, gate: &Gate, now| session.server_stray(gate, duties, raw, now);
        let act = self.client.act(stray).await;
        self.carry(act).await;
    }

    /// Delivers a message for the client; sends the gate's refusal of a server's own request to the
    /// server.
    pub(super) async fn carry(&self, act: Act) {
        if let Some(permitted) = self.client.carry(act).await {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, ANY_ANSWER);
            self.name_revision(&mut headers);
            let context = self.with_session(headers);
            self.tell(permitted, &context).await;
        }
    }

    /// Pause before a stream is opened again: the server's `retry`, doubled with each failure,
    /// within limits.
    fn pause(&self, position: &Position, failures: u32) -> Duration {
        let named = position.retry.unwrap_or(self.limits.retry);
        let grown = named.saturating_mul(2_u32.saturating_pow(failures.min(16)));
        grown.clamp(Duration::from_millis(10), self.limits.retry_max)
    }

    /// Keeps the session id that the server minted (2025-11-25, basic/transports, "Session
    /// Management").
    pub(super) fn keep_session(&self, answer: &Answer) {
        let (Answer::Accepted { status, headers }
        | Answer::Whole { status, headers, .. }
        | Answer::Stream { status, headers, .. }) = answer;
        let named = headers.get(SESSION_ID).and_then(|value| value.to_str().ok());
        let named = named.filter(|id| {
            (1..=SESSION_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        });
        if *status >= 300 {
            return;
        }
        // A server that mints ids and gave out none has no session.
        let stateless = named.is_none() && self.upstream.mints_sessions();
        let holds = if stateless { ServerState::Nothing } else { ServerState::Session };
        self.client.set_server_state(holds);
        if let Some(named) = named {
            self.state().session = Some(named.into());
        }
    }

    /// Ends the legacy session.
    async fn end_session(&self) {
        if self.state().session.is_none() {
            return;
        }
        let act = self.client.act(Session::end).await;
        let Act::Forward(permitted) = act else { return };
        let mut headers = HeaderMap::new();
        self.name_revision(&mut headers);
        let context = self.with_session(headers);
        let call = Arc::clone(permitted.call());
        if timeout(self.limits.end_max, self.tell(permitted, &context)).await.is_err() {
            self.client.failed(&call, &UpstreamFailure::TimedOut).await;
        }
    }
}

/// One request of the client in flight.
struct RemoteRequest {
    remote: Arc<Remote>,
    call: CallId,
    context: SendContext,
    role: Option<Role>,
    id: Id,
    body: Bytes,
    challenged: Option<Challenged>,
}

/// Why a request is not answered yet.
enum Unanswered {
    /// It failed.
    Failed(UpstreamFailure),
    /// The server no longer knows the session (404); this is the body of that answer. The server
    /// has not acted on the request.
    Forgotten(Bytes),
}

impl From<UpstreamFailure> for Unanswered {
    fn from(failure: UpstreamFailure) -> Self {
        Self::Failed(failure)
    }
}

impl RemoteRequest {
    /// Sends the request and delivers what comes back, until it is answered or cancelled.
    async fn run(mut self, permitted: Permitted, cancel: CancellationToken) {
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(()),
            result = self.carry_out(permitted) => result,
        };
        let result = match result {
            Err(Unanswered::Forgotten(body)) => tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(()),
                result = self.retry_in_new_session(body, &cancel) => result,
            },
            result => result.map_err(|unanswered| match unanswered {
                Unanswered::Failed(failure) => failure,
                Unanswered::Forgotten(_) => UpstreamFailure::Status(404),
            }),
        };
        {
            // Another call may use the same id by now.
            let mut state = self.remote.state();
            if state.open.get(&self.id).is_some_and(|(call, _)| *call == self.call) {
                state.open.remove(&self.id);
            }
        }
        if let Err(failure) = result {
            self.remote.client.failed(&self.call, &failure).await;
        }
    }

    async fn carry_out(&mut self, permitted: Permitted) -> Result<(), Unanswered> {
        let sent = self.remote.upstream.send(permitted, &self.context);
        let answer = self.within(self.remote.limits.answer_max, sent).await??;
        let Some(answer) = challenge(answer, self.challenged.take()) else { return Ok(()) };
        if self.role == Some(Role::Handshake) {
            self.remote.keep_session(&answer);
        }
        match answer {
            Answer::Accepted { .. } => return Err(UpstreamFailure::EndedEarly.into()),
            Answer::Whole { status: 404, body, .. } if self.in_session() => {
                return Err(Unanswered::Forgotten(body));
            }
            Answer::Whole { status, body, .. } if status >= 400 => {
                self.refused(status, &body).await?;
            }
            Answer::Whole { body, memory, .. } => {
                self.pass_on(&body).await;
                drop(memory);
            }
            Answer::Stream { events, .. } => self.follow(events).await?,
        }
        let waits = self.remote.client.awaits(&self.call);
        if waits { Err(UpstreamFailure::EndedEarly.into()) } else { Ok(()) }
    }

    /// Whether the request was sent in a legacy session.
    fn in_session(&self) -> bool {
        self.context.session.is_some() && self.role != Some(Role::Handshake)
    }

    /// Delivers an HTTP error whose body is a JSON-RPC error; fails with its status otherwise.
    async fn refused(&self, status: u16, body: &Bytes) -> Result<(), UpstreamFailure> {
        let limits = self.remote.client.shared.gate.frame_limits();
        let answer = with_id(body, &self.id, &limits.document);
        let answer = answer.ok_or(UpstreamFailure::Status(status))?;
        self.pass_on(&answer).await;
        Ok(())
    }

    /// Begins a new session and sends the request once more.
    async fn retry_in_new_session(
        &mut self,
        body: Bytes,
        cancel: &CancellationToken,
    ) -> Result<(), UpstreamFailure> {
        let remote = Arc::clone(&self.remote);
        remote.note_status(404);
        let lost = remote.lost.is_cancelled();
        if lost || !remote.renew(self.context.session.as_deref()).await {
            return self.refused(404, &body).await;
        }
        let forgotten = UpstreamFailure::Status(404);
        // The first attempt is recorded as failed; its error is not delivered, because the request
        // is tried again.
        let act = remote.client.judge_again(&self.call, &forgotten, self.body.clone()).await;
        let Some(permitted) = remote.client.carry(act).await else { return Ok(()) };
        self.call = Arc::clone(permitted.call());
        self.context.session.clone_from(&remote.state().session);
        remote.state().open.insert(self.id.clone(), (Arc::clone(&self.call), cancel.clone()));
        match self.carry_out(permitted).await {
            Ok(()) => Ok(()),
            Err(Unanswered::Failed(failure)) => Err(failure),
            Err(Unanswered::Forgotten(body)) => self.refused(404, &body).await,
        }
    }

    /// Waits at most `longest`; without limit for a subscription.
    async fn within<T>(
        &self,
        longest: Duration,
        wait: impl Future<Output = T>,
    ) -> Result<T, UpstreamFailure> {
        if self.role == Some(Role::Listen) {
            return Ok(wait.await);
        }
        timeout(longest, wait).await.map_err(|_elapsed| UpstreamFailure::TimedOut)
    }

    /// Delivers the events of the answer; resumes a legacy stream that breaks.
    async fn follow(&self, mut events: EventStream) -> Result<(), UpstreamFailure> {
        let mut position = Position::default();
        let mut resumes = 0_u32;
        loop {
            let message = next_message(&mut events, &mut position);
            let ended = match self.within(self.remote.limits.silence_max, message).await? {
                Some(Ok(event)) => {
                    match &event.stray {
                        Some(duties) => self.remote.carry_stray(&event.data, duties).await,
                        None => self.pass_on(&event.data).await,
                    }
                    if !self.remote.client.awaits(&self.call) {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(failure)) => failure,
                None => UpstreamFailure::EndedEarly,
            };
            resumes = resumes.saturating_add(1);
            let resumable = position.last.is_some() && self.remote.era() == Era::Legacy;
            if !resumable || resumes > self.remote.limits.resumes_max {
                return Err(ended);
            }
            sleep(self.remote.pause(&position, 0)).await;
            events = match self.remote.open_stream(&position).await {
                Ok(Some(events)) => events,
                Ok(None) | Err(_) => return Err(ended),
            };
        }
    }

    async fn pass_on(&self, raw: &Bytes) {
        let act = self.remote.client.answered(&self.call, raw).await;
        self.remote.carry(act).await;
    }
}

/// The next message of a stream. Comments and events without data are not one, so they do not end a
/// silence: a server can send them for ever (threat K6).
async fn next_message(
    events: &mut EventStream,
    position: &mut Position,
) -> Option<Result<ServerEvent, UpstreamFailure>> {
    loop {
        match events.next().await? {
            Ok(event) => {
                position.pass(&event);
                if !event.data.is_empty() {
                    return Some(Ok(event));
                }
            }
            Err(failure) => return Some(Err(failure)),
        }
    }
}

/// Sends `answer` to `challenged` if it asks for other credentials (RFC 9110 §11.6.1, RFC 6750
/// §3.1). Returns any other answer, and one whose receiver was dropped.
fn challenge(answer: Answer, challenged: Option<Challenged>) -> Option<Answer> {
    let Some(challenged) = challenged else { return Some(answer) };
    match answer {
        Answer::Whole { status, headers, body, memory: _ }
            if status == 401 || status == 403 && headers.contains_key(WWW_AUTHENTICATE) =>
        {
            let untold = challenged.send(Challenge { status, headers, body }).err()?;
            let Challenge { status, headers, body } = untold;
            Some(Answer::whole(status, headers, body))
        }
        Answer::Accepted { .. } | Answer::Whole { .. } | Answer::Stream { .. } => Some(answer),
    }
}

pub(super) fn status_of(answer: &Answer) -> u16 {
    match answer {
        Answer::Accepted { status, .. }
        | Answer::Whole { status, .. }
        | Answer::Stream { status, .. } => *status,
    }
}

/// The JSON-RPC error in the body of an HTTP error, with the id of its request. A stdio client can
/// only match it by the id, and servers write `null` or an id of their own if they did not read the
/// request.
fn with_id(body: &Bytes, id: &Id, limits: &DocumentLimits) -> Option<Bytes> {
    let answer = Document::read(body.clone(), limits).ok()?;
    let named = answer.root().get("id");
    if named.and_then(Id::spelt_by).as_ref() == Some(id) {
        return Some(body.clone());
    }
    answer.root().get("error").filter(|error| error.kind() == Kind::Object)?;
    let mut own = Vec::new();
    write_id(&mut own, id);
    let edit = if let Some(named) = named {
        (named.span(), own)
    } else {
        let inside = answer.root().span().start.saturating_add(1);
        (inside..inside, [b"\"id\":", &*own, b","].concat())
    };
    Some(answer.splice(&[edit]))
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_what_the_last_events_said() {
        let mut position = Position::default();
        let event =
            |id: &str, retry| ServerEvent { id: Some(id.into()), retry, ..ServerEvent::default() };
        position.pass(&event("a", Some(5)));
        position.pass(&ServerEvent::default());
        assert_eq!(position.last.as_deref(), Some("a"));
        assert_eq!(position.retry, Some(Duration::from_millis(5)));
        position.pass(&event("", None));
        assert_eq!(position.last, None);
        assert_eq!(position.retry, Some(Duration::from_millis(5)));
    }

    #[test]
    fn an_error_goes_to_the_client_under_the_id_of_its_request() {
        let cases = [
            (r#"{"id":"a","error":{}}"#, Some(r#"{"id":"a","error":{}}"#)),
            (r#"{"error":{},"id":null}"#, Some(r#"{"error":{},"id":"a"}"#)),
            (r#"{"id": "server-error", "error":{}}"#, Some(r#"{"id": "a", "error":{}}"#)),
            (r#" {"error":{"code":1}}"#, Some(r#" {"id":"a","error":{"code":1}}"#)),
            (r#"{"error":"x"}"#, None),
            (r#"{"id":1,"result":{}}"#, None),
            (r#"{"error":{},"error":{},"id":null}"#, None),
            ("Not Found", None),
            ("", None),
        ];
        for (body, expected) in cases {
            let body = Bytes::from_static(body.as_bytes());
            let answer = with_id(&body, &Id::Text("a".into()), &DocumentLimits::default());
            assert_eq!(answer.as_deref(), expected.map(str::as_bytes), "{body:?}");
        }
    }
}
