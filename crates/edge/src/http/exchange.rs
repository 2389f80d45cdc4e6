//! One exchange: a permitted message on its way to the server, and the answer on its way back.
//!
//! An exchange is polled by the client's connection; if that goes away first, it either lets go of
//! the server at once (2026-07-28: a disconnect is a cancellation) or runs on in a tracked task
//! (the legacy eras: it is not), and either way the outcome is recorded. Nothing is sent twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;

use super::gauge::Held;
use super::in_flight::{Begins, Exchange};
use super::reply::{self, ReplyBody};
use super::stream::StreamBody;
use crate::session::Turn;
use crate::upstream::{Media, SESSION_ID, SendContext, claims_json, media};
use crate::{Answer, EventStream};
use bartizan_gate::evidence::step::{Act, Content, Dispatch, Permitted};
use bartizan_gate::session::{ErrorAnswer, UpstreamFailure};
use bartizan_gate::wire::protocol::Era;

impl Exchange {
    /// Sends the message and brings back the answer, whatever becomes of the client meanwhile.
    pub(super) fn attended(
        exchange: &Arc<Self>,
        permitted: Permitted,
        (headers, budget): (HeaderMap, Held),
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        let carrying = Arc::clone(exchange).carry(permitted, headers, budget);
        Attended { carrying: Some(Box::pin(carrying)), exchange: Arc::clone(exchange) }
    }

    /// Sends the message and brings back the answer.
    async fn carry(
        self: Arc<Self>,
        permitted: Permitted,
        headers: HeaderMap,
        budget: Held,
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
            Ok(Answer::Accepted { status, headers }) => self.accepted(status, &headers),
            Ok(Answer::Whole { status, headers, body }) => self.whole(status, &headers, body).await,
            Ok(Answer::Stream { status, headers, events }) => self.stream(status, &headers, events),
            Err(failure) => self.failed(&failure),
        }
    }

    fn accepted(&self, status: u16, headers: &HeaderMap) -> Response<ReplyBody> {
        if self.dispatch == Dispatch::EndSession {
            self.forget_session();
        }
        match self.accept() {
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                let mut headers = reply::headers(headers, self.named(headers));
                headers.remove(CONTENT_TYPE);
                reply::whole(status, headers, Bytes::new())
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn accept(&self) -> Turn {
        self.turn(|session, _, now| session.upstream_accepted(&self.call, now))
    }

    async fn whole(
        self: &Arc<Self>,
        status: u16,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response<ReplyBody> {
        self.note_status(status);
        let turn = if (200..300).contains(&status) {
            self.server_message(&body, false)
        } else {
            self.error(status, headers, body)
        };
        match turn {
            Turn::Act(Act::Deliver(released)) if released.is_own() => reply::own(&released),
            Turn::Act(Act::Deliver(mut released)) => {
                if let Some(permitted) = released.take_back() {
                    self.answer_server(permitted).await;
                }
                if self.awaits() {
                    // Nothing follows a whole body: what it leaves unanswered stays so.
                    drop(self.fail(&UpstreamFailure::EndedEarly));
                }
                // Whose sessions we name ends one whose `initialize` it refuses.
                let refused = self.begins == Begins::Ours && released.content() == Content::Error;
                let session = if refused { None } else { self.begin_session(status, headers) };
                let headers = reply::headers(headers, session);
                reply::whole(status, headers, released.body().clone())
            }
            Turn::Act(Act::Forward(permitted)) => {
                self.answer_server(permitted).await;
                self.unanswered()
            }
            Turn::Act(Act::Drop) => self.unanswered(),
            Turn::Settled => reply::whole(status, reply::headers(headers, None), Bytes::new()),
            Turn::Refused(Some(released)) => reply::own(&released),
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The body was withheld. Whoever asked gets an error; whoever told is only told that it
    /// arrived.
    fn unanswered(&self) -> Response<ReplyBody> {
        if self.awaits() {
            return self.failed(&UpstreamFailure::EndedEarly);
        }
        drop(self.accept());
        reply::bare(StatusCode::ACCEPTED)
    }

    /// An HTTP error: a body that is an answer is judged as one, any other passes as it is. Clients
    /// of both eras read the status, and a probe's body must arrive unchanged.
    fn error(&self, status: u16, headers: &HeaderMap, body: Bytes) -> Turn {
        let answer = ErrorAnswer { status, json: claims_json(headers), body };
        let message = media(headers) == Some(Media::Json);
        self.turn(|session, gate, now| {
            if message {
                session.server_error(gate, &self.call, answer, now)
            } else {
                session.upstream_status(gate, &self.call, answer, now)
            }
        })
    }

    fn stream(
        self: Arc<Self>,
        status: u16,
        headers: &HeaderMap,
        events: EventStream,
    ) -> Response<ReplyBody> {
        // The call of a stream without a question is over once it is open.
        if !self.asks {
            match self.accept() {
                Turn::Act(_) | Turn::Settled => {}
                Turn::Refused(Some(released)) => return reply::own(&released),
                Turn::Refused(None) => return reply::bare(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
        let headers = reply::headers(headers, self.begin_session(status, headers));
        reply::events(status, headers, StreamBody::new(self, events))
    }

    pub(super) fn failed(&self, failure: &UpstreamFailure) -> Response<ReplyBody> {
        match self.fail(failure) {
            Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) => {
                reply::own(&released)
            }
            Turn::Act(Act::Forward(_) | Act::Drop) | Turn::Settled => {
                reply::bare(StatusCode::BAD_GATEWAY)
            }
            Turn::Refused(None) => reply::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Remembers the session that an answer to `initialize` begins, and gives the id that the
    /// client may be told.
    fn begin_session(&self, status: u16, headers: &HeaderMap) -> Option<&str> {
        let success = (200..300).contains(&status);
        let theirs = match self.begins {
            Begins::Ours if success => self.context.session.as_deref()?,
            Begins::Theirs if success => headers.get(SESSION_ID)?.to_str().ok()?,
            Begins::Nothing | Begins::Ours | Begins::Theirs => return self.named(headers),
        };
        if self.legacy.get().is_none() {
            let now = self.uptime();
            let (session, principal) = (&self.session, &self.context.principal);
            let begun = self.route.sessions.begin(theirs, session, principal, now)?;
            return Some(&*self.legacy.get_or_init(|| begun).ours);
        }
        self.named(headers)
    }

    /// The session id of an answer as the client knows it, if it is the session that was asked
    /// in: no other is adopted.
    fn named(&self, headers: &HeaderMap) -> Option<&str> {
        let legacy = self.legacy.get()?;
        headers.get(SESSION_ID).is_some_and(|id| *id == *legacy.theirs).then_some(&*legacy.ours)
    }

    /// 404 says that the server has no such session any more.
    fn note_status(&self, status: u16) {
        if status == 404 && self.era == Era::Legacy {
            self.forget_session();
        }
    }

    fn forget_session(&self) {
        let ours = self.legacy.get().map(|legacy| &*legacy.ours);
        if let Some(session) = ours.and_then(|ours| self.route.sessions.remove(ours)) {
            for call in session.in_flight().iter().filter(|call| **call != self.call) {
                session.client_gone(call);
            }
        }
    }
}

/// An exchange that its client's connection polls, and what becomes of it when that goes away.
struct Attended {
    carrying: Option<Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>>,
    exchange: Arc<Exchange>,
}

impl Future for Attended {
    type Output = Response<ReplyBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(carrying) = &mut self.carrying else { return Poll::Pending };
        let response = std::task::ready!(carrying.as_mut().poll(cx));
        self.carrying = None;
        Poll::Ready(response)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(carrying) = self.carrying.take() else { return };
        if self.exchange.era == Era::Modern || !self.exchange.asks && self.exchange.endless {
            drop(carrying);
            self.exchange.client_gone();
        } else {
            // A response that nobody takes is dropped, and a stream in it decides for itself.
            let unattended = async move { drop(carrying.await) };
            Exchange::run_on(&self.exchange, unattended);
        }
    }
}
