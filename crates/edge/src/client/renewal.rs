//! Begins a legacy session again that its server no longer knows, on behalf of a client on stdio.
//!
//! A server that restarts answers 404 to its old sessions, and an HTTP client would begin a new one
//! (2025-11-25, "Session Management"). A client on stdio has no session ids, so its own
//! `initialize` and `notifications/initialized` are sent again for it. They pass the gate, policy
//! and journal included; only the answer to `initialize` is not sent to the client.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;
use tokio::time::timeout;

use super::remote::{ANY_ANSWER, Remote, status_of};
use crate::Answer;
use crate::upstream::SendContext;
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted, Released};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::protocol::Revision;

impl Remote {
    /// Begins the session again, unless another task has done so since `stale` was in use. `false`
    /// if the server does not accept the client's `initialize` any more.
    pub(super) async fn renew(self: &Arc<Self>, stale: Option<&str>) -> bool {
        let _turn = self.renewing.acquire().await;
        if self.state().session.as_deref() != stale {
            return true;
        }
        let opening = self.state().opening.clone();
        let Some(initialize) = opening.initialize else { return false };
        tracing::info!("the server no longer knows the session; initializing again");
        if !self.initialize(initialize).await {
            return false;
        }
        let Some(initialized) = opening.initialized else { return true };
        let Act::Forward(permitted) = self.client.judge(initialized).await else { return false };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, ANY_ANSWER);
        self.name_revision(&mut headers);
        let taken = self.tell(permitted, &self.with_session(headers)).await;
        self.listen();
        taken
    }

    /// Sends the client's `initialize` again. `true` if the server chooses the same revision as
    /// before; then the new session is kept.
    async fn initialize(self: &Arc<Self>, initialize: Bytes) -> bool {
        let settled = self.client.protocol().revision;
        let Act::Forward(permitted) = self.client.judge_once_more(initialize).await else {
            return false;
        };
        let call = Arc::clone(permitted.call());
        let held = self.state().session.clone();
        let answered = timeout(self.limits.answer_max, self.settle(&call, permitted)).await;
        let failure = match answered.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(named) if named == settled => return true,
            Ok(_) => UpstreamFailure::EndedEarly,
            Err(failure) => failure,
        };
        self.state().session = held;
        self.client.failed_unheard(&call, &failure);
        false
    }

    /// Sends `initialize` and returns the revision that the server chooses.
    async fn settle(
        &self,
        call: &CallId,
        permitted: Permitted,
    ) -> Result<Option<Revision>, UpstreamFailure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, ANY_ANSWER);
        let principal = self.client.principal();
        let context = SendContext { headers, session: None, principal, departure: None };
        let answer = self.upstream.send(permitted, &context).await?;
        let status = status_of(&answer);
        if status >= 300 {
            return Err(UpstreamFailure::Status(status));
        }
        self.state().session = None;
        self.keep_session(&answer);
        let answer = self.answer_kept_back(call, answer).await;
        Ok(answer.and_then(|answer| answer.settles()))
    }

    /// The answer to `call`, not delivered to the client; messages before it are delivered.
    async fn answer_kept_back(&self, call: &CallId, answer: Answer) -> Option<Released> {
        let mut events = match answer {
            Answer::Accepted { .. } => return None,
            Answer::Whole { body, memory, .. } => {
                let released = self.kept_back(call, &body).await;
                drop(memory);
                return released;
            }
            Answer::Stream { events, .. } => events,
        };
        while let Some(Ok(event)) = events.next().await {
            if let Some(duties) = &event.stray {
                self.carry_stray(&event.data, duties).await;
            } else if !event.data.is_empty()
                && let Some(released) = self.kept_back(call, &event.data).await
            {
                return Some(released);
            }
        }
        None
    }

    /// The released answer to `call`; `None` for any other message, which is delivered to the
    /// client.
    async fn kept_back(&self, call: &CallId, raw: &Bytes) -> Option<Released> {
        let act = self.client.answered(call, raw).await;
        if self.client.awaits(call) {
            self.carry(act).await;
            return None;
        }
        match act {
            Act::Deliver(released) => Some(released),
            Act::Forward(_) | Act::Hold(_) | Act::Drop => None,
        }
    }
}
