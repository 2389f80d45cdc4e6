//! A client with one stream of messages, a server on HTTP: what a desktop client needs to reach a
//! remote server, and what a client of HTTP+SSE gets.
//!
//! Requests run at once, each a POST of its own; notifications and answers go out one after the
//! other, before anything that follows them. In the legacy era the session that the server minted
//! is kept, its stream of server messages is held open and resumed, it is begun again where the
//! server has forgotten it, and it is ended at the end.
//! In the modern era the headers that mirror the body are written from it, and a cancellation
//! closes the response stream instead of being sent (revision 2026-07-28, streamable-http).

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
use super::{Client, Form, Input};
use crate::child::lines::Lines;
use crate::upstream::{SESSION_ID, SendContext, Upstream};
use crate::{Answer, EventStream, ServerEvent};
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::session::{Session, UpstreamFailure};
use bartizan_gate::wire::document::{Document, DocumentLimits, Kind};
use bartizan_gate::wire::frame::{Id, write_id};
use bartizan_gate::wire::headers::{encode, meta_version};
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::{Era, Revision};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What a POST can take: either form of an answer.
pub(super) const ANY_ANSWER: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");
const STREAM_ONLY: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Longest session id that is kept, bytes.
const SESSION_ID_MAX: usize = 512;

/// Bounds on a client's way to an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLimits {
    /// Requests of the client in flight at once.
    pub requests_max: usize,
    /// How long a notification or an answer may take to be accepted.
    pub accept_max: Duration,
    /// From a request sent to its whole answer, or to the head of a stream. Subscriptions are
    /// exempt from this and the next.
    pub answer_max: Duration,
    /// Silence on the stream of an answer: no event and no comment.
    pub silence_max: Duration,
    /// How often a stream that broke off is resumed for one request.
    pub resumes_max: u32,
    /// Pause before a stream is opened again, where its server names none.
    pub retry: Duration,
    /// The longest pause, whatever a server names and however often it failed.
    pub retry_max: Duration,
    /// Failures in a row after which the stream of server messages is given up.
    pub stream_failures_max: u32,
    /// How long calls in flight may go on once the client has gone or we are closing.
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

/// Where the client's messages come from, one after the other.
pub(crate) trait Source: Send {
    /// The next message and what is to be done about it.
    fn next(&mut self, client: &Client) -> impl Future<Output = Input> + Send;

    /// The client's headers that came with it; none on a pipe.
    fn headers(&self) -> HeaderMap {
        HeaderMap::new()
    }

    /// Who is told where the server asks for credentials instead; on a pipe, nobody.
    fn challenged(&mut self) -> Option<Challenged> {
        None
    }
}

/// An HTTP error by which a server asks for other credentials. Its call is not settled.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Who waits to hear of a challenge. Dropped once there will be none.
pub(crate) type Challenged = oneshot::Sender<Challenge>;

impl<R: AsyncRead + Unpin + Send> Source for Lines<R> {
    async fn next(&mut self, client: &Client) -> Input {
        client.next(self).await
    }
}

/// Serves the client until one of the two ends.
pub(crate) async fn serve<S: Source>(
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
    let hurry = async {
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
        () = hurry => {}
    }
    // Lets go of every stream that is still open.
    remote.over.cancel();
    remote.tasks.close();
    remote.tasks.wait().await;
    let unasked = matches!(reason, ExitReason::Closing | ExitReason::SessionLost);
    let failure = unasked.then(|| UpstreamFailure::Unreachable(reason.to_string()));
    client.close(failure.as_ref(), remote.limits.end_max).await;
    remote.end_session().await;
    reason
}

/// The way to one HTTP server.
pub(super) struct Remote {
    pub(super) client: Arc<Client>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) limits: RemoteLimits,
    /// The calls and the stream of server messages of this run.
    tasks: TaskTracker,
    /// Cancelled at the end of the run.
    over: CancellationToken,
    /// Cancelled once the server no longer knows the session of a client that lives by it.
    lost: CancellationToken,
    state: Mutex<State>,
    /// One permit, held while a forgotten session is begun again, so that it is done once.
    pub(super) renewing: Semaphore,
}

#[derive(Default)]
pub(super) struct State {
    /// The legacy session that the server minted.
    pub(super) session: Option<Box<str>>,
    /// How the client began it.
    pub(super) opening: Opening,
    /// The headers that came with the client's last message.
    headers: HeaderMap,
    /// Requests in flight, and what lets go of each.
    open: BTreeMap<Id, (CallId, CancellationToken)>,
    /// Whether the stream of server messages was asked for.
    listening: bool,
}

/// How the client began its session; each at most one line long.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) initialize: Option<Bytes>,
    pub(super) initialized: Option<Bytes>,
}

impl Opening {
    /// Remembers a message if it is part of the beginning.
    fn note(&mut self, role: Option<Role>, body: &Bytes) {
        if role == Some(Role::Handshake) {
            *self = Self { initialize: Some(body.clone()), initialized: None };
        } else if role == Some(Role::Ready) {
            self.initialized = Some(body.clone());
        }
    }
}

/// Where a stream stands: what is needed to resume it.
#[derive(Debug, Default)]
struct Position {
    last: Option<Box<str>>,
    retry: Option<Duration>,
}

impl Position {
    fn pass(&mut self, event: &ServerEvent) {
        if let Some(id) = &event.id {
            // An empty id forgets the position (WHATWG HTML §9.2.6).
            self.last = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            self.retry = Some(Duration::from_millis(retry));
        }
    }
}

impl Remote {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No panic can leave the state half updated, so a poisoned lock is safe.
        lock(&self.state)
    }

    /// Carries the client's messages to the server.
    async fn pump_up<S: Source>(self: &Arc<Self>, input: &mut S) -> ExitReason {
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
        self.state().opening.note(role, permitted.body());
        let Some(id) = permitted.id().cloned() else {
            if role == Some(Role::Cancel) {
                self.let_go(permitted.frame().and_then(|frame| frame.named_id("requestId")));
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
        let exchange = Exchange { remote, call, context, role, id, body, challenged };
        if role == Some(Role::Handshake) {
            // What follows needs the session that this answer names.
            exchange.run(permitted, cancel).await;
        } else {
            self.tasks.spawn(exchange.run(permitted, cancel));
        }
    }

    fn era(&self) -> Era {
        self.client.protocol().era
    }

    /// What goes with a message: in the modern era the headers that mirror the body.
    fn context(&self, permitted: &Permitted) -> SendContext {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, ANY_ANSWER);
        let protocol = permitted.protocol();
        if protocol.era == Era::Modern {
            let named = permitted.frame().and_then(meta_version);
            let method = permitted.frame().and_then(|frame| frame.message().method());
            let name = permitted.routing().name.as_deref().map(encode);
            set(&mut headers, PROTOCOL_VERSION, named.or(protocol.revision.map(Revision::as_str)));
            set(&mut headers, METHOD, method);
            set(&mut headers, NAME, name.as_deref());
        } else if permitted.method().is_none_or(|method| method.role != Role::Handshake) {
            self.name_revision(&mut headers);
        }
        self.with_session(headers)
    }

    /// Names the revision that the session has settled on.
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
        SendContext { headers, session, principal: self.client.principal() }
    }

    /// Sends what is not answered, and says whether it was taken.
    pub(super) async fn tell(&self, permitted: Permitted, context: &SendContext) -> bool {
        self.post(permitted, context, None).await
    }

    /// Like [`Remote::tell`], for a message whose sender may be `challenged`.
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

    /// 404 says that the server has no such session any more (2025-03-26, "Session Management").
    /// Whose session is its stream then loses the stream; a pipe stays.
    fn note_status(&self, status: u16) {
        let lives_by_it = self.client.form() == Form::Events && self.era() == Era::Legacy;
        if status == 404 && lives_by_it && self.state().session.is_some() {
            self.lost.cancel();
        }
    }

    /// The client cancels: its request's response stream is closed, which in the modern era is
    /// the whole cancellation and in the legacy era means nothing.
    fn let_go(&self, id: Option<Id>) {
        if let Some((_, cancel)) = id.and_then(|id| self.state().open.remove(&id)) {
            cancel.cancel();
        }
    }

    /// Asks for a legacy stream from `position` on. `Ok(None)` where the server has none.
    async fn open_stream(
        &self,
        position: &Position,
    ) -> Result<Option<EventStream>, UpstreamFailure> {
        let act = self.client.act(Session::open_stream);
        // A refusal of this is nothing that the client asked for.
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
                // 405 and its like will not change; 429 and 5xx may.
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
                () = remote.hear() => {}
            }
        });
    }

    async fn hear(&self) {
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
                    // Another session has begun meanwhile.
                    continue;
                }
                Err(_told) => false,
            };
            failures = if heard { 0 } else { failures.saturating_add(1) };
            sleep(self.pause(&position, failures)).await;
        }
        tracing::warn!("the server's own messages can no longer be heard");
    }

    /// Passes on the messages of a stream until it ends, and says whether there was any event.
    async fn pass_on(&self, mut events: EventStream, position: &mut Position) -> bool {
        let mut heard = false;
        while let Some(Ok(event)) = events.next().await {
            heard = true;
            position.pass(&event);
            if !event.data.is_empty() {
                let raw = &event.data;
                let act =
                    self.client.act(|session, gate, now| session.server_frame(gate, raw, now));
                self.carry(act).await;
            }
        }
        heard
    }

    /// Gives what there is to the client; our refusal of the server's own request goes back.
    pub(super) async fn carry(&self, act: Act) {
        if let Some(permitted) = self.client.carry(act).await {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, ANY_ANSWER);
            self.name_revision(&mut headers);
            let context = self.with_session(headers);
            self.tell(permitted, &context).await;
        }
    }

    /// How long to wait before a stream is opened again: what the server asked for, doubled with
    /// each failure, within bounds.
    fn pause(&self, position: &Position, failures: u32) -> Duration {
        let named = position.retry.unwrap_or(self.limits.retry);
        let grown = named.saturating_mul(2_u32.saturating_pow(failures.min(16)));
        grown.clamp(Duration::from_millis(10), self.limits.retry_max)
    }

    /// Keeps the session that the server minted (mcp transports, "Session Management").
    pub(super) fn keep_session(&self, answer: &Answer) {
        let (Answer::Accepted { status, headers }
        | Answer::Whole { status, headers, .. }
        | Answer::Stream { status, headers, .. }) = answer;
        let named = headers.get(SESSION_ID).and_then(|value| value.to_str().ok());
        let named = named.filter(|id| {
            (1..=SESSION_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        });
        if *status < 300
            && let Some(named) = named
        {
            self.state().session = Some(named.into());
        }
    }

    /// Ends the legacy session.
    async fn end_session(&self) {
        if self.state().session.is_none() {
            return;
        }
        let act = self.client.act(Session::end);
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

/// One request of the client on its way.
struct Exchange {
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
    /// It will not be.
    Failed(UpstreamFailure),
    /// The server has forgotten the session (404) and says so with this body. It has not acted.
    Forgotten(Bytes),
}

impl From<UpstreamFailure> for Unanswered {
    fn from(failure: UpstreamFailure) -> Self {
        Self::Failed(failure)
    }
}

impl Exchange {
    /// Sends the request and passes on what comes back, until it is answered or let go of.
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
                result = self.begin_again(body, &cancel) => result,
            },
            result => result.map_err(|unanswered| match unanswered {
                Unanswered::Failed(failure) => failure,
                Unanswered::Forgotten(_) => UpstreamFailure::Status(404),
            }),
        };
        {
            // The id may be in use again by now, for another call.
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
        let answer = self.patient(self.remote.limits.answer_max, sent).await??;
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
            Answer::Whole { body, .. } => self.pass_on(&body).await,
            Answer::Stream { events, .. } => self.follow(events).await?,
        }
        let waits = self.remote.client.awaits(&self.call);
        if waits { Err(UpstreamFailure::EndedEarly.into()) } else { Ok(()) }
    }

    /// Whether the request named a legacy session.
    fn in_session(&self) -> bool {
        self.context.session.is_some() && self.role != Some(Role::Handshake)
    }

    /// Passes on an HTTP error, where its body says in JSON-RPC what is wrong.
    async fn refused(&self, status: u16, body: &Bytes) -> Result<(), UpstreamFailure> {
        let limits = self.remote.client.shared.gate.frame_limits();
        let answer = under_id(body, &self.id, &limits.document);
        let answer = answer.ok_or(UpstreamFailure::Status(status))?;
        self.pass_on(&answer).await;
        Ok(())
    }

    /// Sends the request once more, in a new session.
    async fn begin_again(
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
        // The first attempt is recorded; what it would tell the client is not true any more.
        let act = remote.client.judge_again(&self.call, &forgotten, self.body.clone());
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

    /// Waits at most `longest`, unless the request is one that stays open.
    async fn patient<T>(
        &self,
        longest: Duration,
        wait: impl Future<Output = T>,
    ) -> Result<T, UpstreamFailure> {
        if self.role == Some(Role::Listen) {
            return Ok(wait.await);
        }
        timeout(longest, wait).await.map_err(|_elapsed| UpstreamFailure::TimedOut)
    }

    /// Passes on the events of the answer; where the legacy stream breaks off, resumes it.
    async fn follow(&self, mut events: EventStream) -> Result<(), UpstreamFailure> {
        let mut position = Position::default();
        let mut resumes = 0_u32;
        loop {
            let ended = match self.patient(self.remote.limits.silence_max, events.next()).await? {
                Some(Ok(event)) => {
                    position.pass(&event);
                    if !event.data.is_empty() {
                        self.pass_on(&event.data).await;
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
        let act = self.remote.client.answered(&self.call, raw);
        self.remote.carry(act).await;
    }
}

/// Tells whoever is `challenged` if `answer` asks for other credentials (RFC 9110 §11.6.1, RFC 6750
/// §3.1). Every other answer comes back, and one that nobody waits for any more.
fn challenge(answer: Answer, challenged: Option<Challenged>) -> Option<Answer> {
    let Some(challenged) = challenged else { return Some(answer) };
    match answer {
        Answer::Whole { status, headers, body }
            if status == 401 || status == 403 && headers.contains_key(WWW_AUTHENTICATE) =>
        {
            let untold = challenged.send(Challenge { status, headers, body }).err()?;
            let Challenge { status, headers, body } = untold;
            Some(Answer::Whole { status, headers, body })
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

/// The JSON-RPC error that came with an HTTP error, under the id of the request that it answers. A
/// stdio client has nothing else to tell by what was refused, and servers write `null` or a word
/// of their own where they did not read that far.
fn under_id(body: &Bytes, id: &Id, limits: &DocumentLimits) -> Option<Bytes> {
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
            let answer = under_id(&body, &Id::Text("a".into()), &DocumentLimits::default());
            assert_eq!(answer.as_deref(), expected.map(str::as_bytes), "{body:?}");
        }
    }
}
