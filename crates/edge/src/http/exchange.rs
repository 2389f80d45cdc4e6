//! One exchange: sends a permitted message to the server and brings the answer back.
//!
//! The client's connection polls the exchange. If the connection is dropped first, the exchange
//! either drops its request to the server at once (2026-07-28: a disconnect is a cancellation) or
//! goes on in a tracked task (the legacy eras: it is not). Either way the outcome is recorded. No
//! message is sent twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use ::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;

use super::body::BodyMemory;
use super::in_flight::{Exchange, SessionStart};
use super::reply::{self, ReplyBody, Unsaid};
use super::stream::StreamBody;
use crate::session::StepOutcome;
use crate::upstream::{Media, SESSION_ID, SendContext, media};
use crate::{Answer, AnswerMemory, EventStream};
use bartizan_gate::evidence::step::{Act, Content, Dispatch, Permitted, Released};
use bartizan_gate::session::{DutyScope, ErrorAnswer, UpstreamFailure};
use bartizan_gate::wire::protocol::Era;

impl Exchange {
    /// Sends the message and gives the response for the client. Dropping the future means that the
    /// client disconnected. `headers` are the client's; `budget` is the memory reserved for the
    /// body, released once the message was sent.
    pub(super) fn run(
        exchange: &Arc<Self>,
        permitted: Permitted,
        headers: HeaderMap,
        budget: BodyMemory,
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        let forwarding = Arc::clone(exchange).forward(permitted, headers, budget);
        ExchangeFuture { forwarding: Some(Box::pin(forwarding)), exchange: Arc::clone(exchange) }
    }

    /// Sends the message within its timeouts and turns the server's answer into a response.
    async fn forward(
        self: Arc<Self>,
        permitted: Permitted,
        headers: HeaderMap,
        budget: BodyMemory,
    ) -> Response<ReplyBody> {
        let context = SendContext { headers, ..self.context.clone() };
        let sending = self.route.upstream.send(permitted, &context);
        let answer = if self.endless {
            tokio::select! {
                biased;
                answer = sending => answer,
                () = self.closing() => Err(UpstreamFailure::EndedEarly),
            }
        } else {
            tokio::select! {
                biased;
                answered = tokio::time::timeout(self.waits().answer, sending) => {
                    answered.unwrap_or(Err(UpstreamFailure::TimedOut))
                }
                () = self.session.closed().cancelled() => Err(UpstreamFailure::EndedEarly),
            }
        };
        drop(budget);
        match answer {
            // A challenge belongs to an error that it explains.
            Ok(Answer::Accepted { status, mut headers }) => {
                headers.remove(WWW_AUTHENTICATE);
                self.accepted(status, &headers)
            }
            Ok(Answer::Whole { status, headers, body, memory }) => {
                self.whole(status, headers, (body, memory)).await
            }
            Ok(Answer::Stream { status, mut headers, events }) => {
                headers.remove(WWW_AUTHENTICATE);
                self.stream(status, &headers, events)
            }
            Err(failure) => {
                if let UpstreamFailure::Unreachable(_) = failure {
                    // It may come back as another one.
                    self.route.server.advise_listing();
                }
                self.failed(&failure)
            }
        }
    }

    fn accepted(&self, status: u16, headers: &HeaderMap) -> Response<ReplyBody> {
        if self.dispatch == Dispatch::EndSession {
            self.forget_session();
        }
        match self.accept() {
            StepOutcome::Act(Act::Deliver(released)) | StepOutcome::Refused(Some(released)) => {
                reply::own(&released)
            }
            StepOutcome::Act(Act::Forward(_) | Act::Hold(_) | Act::Drop) | StepOutcome::Settled => {
                let mut headers = reply::headers(headers, self.named(headers));
                headers.remove(CONTENT_TYPE);
                reply::whole(status, headers, Bytes::new())
            }
            StepOutcome::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn accept(&self) -> StepOutcome {
        self.step(|session, _, now| session.upstream_accepted(&self.call, now)).at_once()
    }

    async fn whole(
        self: &Arc<Self>,
        status: u16,
        mut headers: HeaderMap,
        (body, memory): (Bytes, AnswerMemory),
    ) -> Response<ReplyBody> {
        self.note_status(status);
        let Ok(counted) = self.count_answer(&body) else {
            let why = "no memory for the answer".to_owned();
            return self.failed(&UpstreamFailure::Unreadable(why));
        };
        let challenge_dropped = self.route.hold_challenges(&mut headers);
        // Elsewhere it asks for nothing.
        if !matches!(status, 401 | 403) {
            headers.remove(WWW_AUTHENTICATE);
        }
        let headers = &headers;
        let outcome = if (200..300).contains(&status) {
            self.server_message(&body, false, None).await
        } else {
            self.error(headers, ErrorAnswer { status, challenge_dropped, body }).await
        };
        drop((memory, counted));
        match outcome {
            StepOutcome::Act(Act::Deliver(released)) if released.is_own() => reply::own(&released),
            StepOutcome::Act(Act::Deliver(mut released)) => {
                if let Some(permitted) = released.take_back() {
                    self.answer_server(permitted).await;
                }
                if self.awaits() {
                    // A whole body is all that the server sends, so the call gets no other answer.
                    match self.fail(&UpstreamFailure::EndedEarly) {
                        StepOutcome::Act(Act::Deliver(missing))
                            if missing.content() == Content::Batch =>
                        {
                            released = released.joined(&missing);
                        }
                        StepOutcome::Act(Act::Deliver(own)) | StepOutcome::Refused(Some(own)) => {
                            return reply::own(&own);
                        }
                        StepOutcome::Act(Act::Forward(_) | Act::Hold(_) | Act::Drop)
                        | StepOutcome::Settled => {}
                        StepOutcome::Refused(None) => {
                            return reply::bare(StatusCode::SERVICE_UNAVAILABLE);
                        }
                    }
                }
                // We minted this session id; a refused `initialize` discards it.
                let refused =
                    self.begins == SessionStart::SelfMinted && released.content() == Content::Error;
                let session = if refused { None } else { self.begin_session(status, headers) };
                let headers = reply::headers(headers, session);
                self.message(status, headers, &released)
            }
            StepOutcome::Act(Act::Forward(permitted)) => {
                self.answer_server(permitted).await;
                self.unanswered()
            }
            StepOutcome::Act(Act::Hold(_) | Act::Drop) => self.unanswered(),
            StepOutcome::Settled => {
                reply::whole(status, reply::headers(headers, None), Bytes::new())
            }
            StepOutcome::Refused(Some(released)) => reply::own(&released),
            StepOutcome::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The response that carries an answer of the server. If the head was sent early, an error names
    /// its request.
    fn message(&self, status: u16, headers: HeaderMap, released: &Released) -> Response<ReplyBody> {
        let mut response = reply::message(status, headers, released);
        let late = self.early.as_ref().is_some_and(|early| early.is_sent());
        if let Some(id) = self.id.as_ref().filter(|_| late)
            && let Some(error) = released.addressed(id)
        {
            response.extensions_mut().insert(Unsaid(error));
        }
        response
    }

    /// The gate withheld the body. A request gets an error; a notification gets only 202.
    fn unanswered(&self) -> Response<ReplyBody> {
        if self.awaits() {
            return self.failed(&UpstreamFailure::EndedEarly);
        }
        drop(self.accept());
        reply::bare(StatusCode::ACCEPTED)
    }

    /// An HTTP error status. A JSON-RPC answer in its body is judged like any other; another body
    /// is replaced, because clients read messages in what nobody could judge. The status and the
    /// challenge tell them what they need: one that probes for the era takes an error that it does
    /// not know for a server of the legacy era.
    async fn error(&self, headers: &HeaderMap, answer: ErrorAnswer) -> StepOutcome {
        let message = media(headers) == Some(Media::Json);
        let taken = self.step(|session, gate, now| {
            if message {
                session.server_error(gate, &self.call, answer, now)
            } else {
                session.upstream_status(gate, &self.call, answer, now)
            }
        });
        taken.durable().await
    }

    fn stream(
        self: Arc<Self>,
        status: u16,
        headers: &HeaderMap,
        mut events: EventStream,
    ) -> Response<ReplyBody> {
        events.charged_to(&self.account());
        // A GET stream answers no request: its call is settled once the stream is open.
        if !self.asks() {
            match self.accept() {
                StepOutcome::Act(_) | StepOutcome::Settled => {}
                StepOutcome::Refused(Some(released)) => return reply::own(&released),
                StepOutcome::Refused(None) => return reply::bare(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
        let headers = reply::headers(headers, self.begin_session(status, headers));
        reply::events(status, headers, StreamBody::new(self, events))
    }

    pub(super) fn failed(&self, failure: &UpstreamFailure) -> Response<ReplyBody> {
        match self.fail(failure) {
            StepOutcome::Act(Act::Deliver(released)) | StepOutcome::Refused(Some(released)) => {
                reply::own(&released)
            }
            StepOutcome::Act(Act::Forward(_) | Act::Hold(_) | Act::Drop) | StepOutcome::Settled => {
                reply::bare(StatusCode::BAD_GATEWAY)
            }
            StepOutcome::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Registers the session that an answer to `initialize` begins. Gives the session id for the
    /// client, or `None` if the answer must not name one.
    fn begin_session(&self, status: u16, headers: &HeaderMap) -> Option<&str> {
        let success = (200..300).contains(&status);
        let theirs = match self.begins {
            SessionStart::SelfMinted if success => self.context.session.as_deref()?,
            SessionStart::ServerMinted if success => headers.get(SESSION_ID)?.to_str().ok()?,
            SessionStart::NoSession | SessionStart::SelfMinted | SessionStart::ServerMinted => {
                return self.named(headers);
            }
        };
        if self.legacy.get().is_none() {
            let now = self.uptime();
            let (session, principal) = (&self.session, &self.context.principal);
            let begun = self.route.sessions.begin(theirs, session, principal, now)?;
            session.set_duty_scope(DutyScope::Session);
            return Some(&*self.legacy.get_or_init(|| begun).public_id);
        }
        self.named(headers)
    }

    /// The client's id for the session that the answer names, if that is the session of the
    /// request; an answer cannot switch the client to another session.
    fn named(&self, headers: &HeaderMap) -> Option<&str> {
        let legacy = self.legacy.get()?;
        headers
            .get(SESSION_ID)
            .is_some_and(|id| *id == *legacy.server_id)
            .then_some(&*legacy.public_id)
    }

    /// A 404 within a session means that the server no longer knows it (2025-11-25, "Session
    /// Management").
    fn note_status(&self, status: u16) {
        if status == 404 && self.era == Era::Legacy {
            self.forget_session();
        }
    }

    fn forget_session(&self) {
        let ours = self.legacy.get().map(|legacy| &*legacy.public_id);
        if let Some(session) = ours.and_then(|ours| self.route.sessions.remove(ours)) {
            for call in session.in_flight().iter().filter(|call| **call != self.call) {
                session.client_gone(call);
            }
        }
    }
}

/// An exchange that the client's connection polls. Dropping it before it is ready means that the
/// client disconnected.
struct ExchangeFuture {
    forwarding: Option<Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>>,
    exchange: Arc<Exchange>,
}

impl Future for ExchangeFuture {
    type Output = Response<ReplyBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(forwarding) = &mut self.forwarding else { return Poll::Pending };
        let response = std::task::ready!(forwarding.as_mut().poll(cx));
        self.forwarding = None;
        Poll::Ready(response)
    }
}

impl Drop for ExchangeFuture {
    fn drop(&mut self) {
        let Some(forwarding) = self.forwarding.take() else { return };
        if self.exchange.era == Era::Modern || !self.exchange.asks() && self.exchange.endless {
            drop(forwarding);
            self.exchange.client_gone();
        } else {
            // The response is dropped; if it holds a stream, [`StreamBody`]'s `drop` decides how
            // that ends.
            let unattended = async move { drop(forwarding.await) };
            Exchange::run_on(&self.exchange, unattended);
        }
    }
}
