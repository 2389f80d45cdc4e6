//! What the reader of one exchange, or of the stream of server messages, reads.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{Answer, ServerEvent};
use bartizan_gate::session::UpstreamFailure;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a result.
    Result,
    /// With an error of this code.
    Error(i64),
}

/// What the reader of an exchange is given.
#[derive(Debug)]
pub(super) enum Item {
    /// A message of the server; the answer if it says how the exchange ended.
    Message(Bytes, Option<End>),
    /// How the server took the request itself.
    Posted(Box<Result<Answer, UpstreamFailure>>),
}

/// The line that a stream reads from.
pub(super) trait Owner: fmt::Debug + Send + Sync {
    /// Why there is no answer.
    fn failure(&self) -> Pin<Box<dyn Future<Output = UpstreamFailure> + Send + '_>>;

    /// The reader of exchange `number` is gone before its answer.
    fn abandoned(&self, number: i64);
}

/// The messages that belong to one exchange, or to no exchange.
#[derive(Debug)]
pub struct DuplexStream {
    owner: Arc<dyn Owner>,
    from: mpsc::Receiver<Item>,
    /// The exchange; absent for the stream of server messages.
    number: Option<i64>,
    /// A message that was looked at and not read yet.
    peeked: Option<(Bytes, Option<End>)>,
    done: bool,
}

/// What comes first in an exchange.
enum First {
    /// A message, which stays to be read; the answer if it says how the exchange ended.
    Message(Option<End>),
    /// The request was taken.
    Taken,
    /// The request was answered with a status, not with a message.
    Turned(Answer),
    /// There will be no answer.
    Failed(UpstreamFailure),
}

/// The answer of an exchange.
#[derive(Debug)]
pub(crate) enum Answered {
    /// It came first, and soon.
    Whole(Bytes, End),
    /// Something comes before it, or it takes long.
    Stream(DuplexStream),
    /// The request was answered with a status, not with a message.
    Turned(Answer),
}

impl DuplexStream {
    pub(super) fn new(
        owner: Arc<dyn Owner>,
        from: mpsc::Receiver<Item>,
        number: Option<i64>,
    ) -> Self {
        Self { owner, from, number, peeked: None, done: false }
    }

    /// The number of the exchange; absent for the stream of server messages.
    pub(crate) fn number(&self) -> Option<i64> {
        self.number
    }

    /// Waits for the answer: at most `whole_wait` after the request was taken, then it is given as
    /// a stream. `taken`: that was before now.
    pub(crate) async fn answer(
        mut self,
        taken: bool,
        whole_wait: Duration,
    ) -> Result<Answered, UpstreamFailure> {
        let mut first = if taken { First::Taken } else { self.first().await };
        if matches!(first, First::Taken) {
            first = timeout(whole_wait, self.first()).await.unwrap_or(First::Taken);
        }
        match first {
            First::Message(Some(end)) => match self.next().await {
                Some(event) => Ok(Answered::Whole(event?.data, end)),
                None => Err(UpstreamFailure::EndedEarly),
            },
            First::Message(None) | First::Taken => Ok(Answered::Stream(self)),
            First::Turned(answer) => Ok(Answered::Turned(answer)),
            First::Failed(failure) => Err(failure),
        }
    }

    /// The answer alone; what comes before it is dropped.
    pub(crate) async fn only_answer(mut self) -> Result<Bytes, UpstreamFailure> {
        loop {
            let event = self.next().await.unwrap_or(Err(UpstreamFailure::EndedEarly))?;
            if self.done {
                return Ok(event.data);
            }
        }
    }

    /// The next message; `None` at the end: after the answer, or when the stream of server
    /// messages is over. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        if self.done {
            return None;
        }
        let failure = loop {
            match self.first().await {
                First::Taken => {}
                First::Message(end) => {
                    let (data, _) = self.peeked.take()?;
                    self.done = end.is_some();
                    return Some(Ok(ServerEvent { data, ..ServerEvent::default() }));
                }
                First::Turned(Answer::Whole { status, .. }) => {
                    break UpstreamFailure::Status(status);
                }
                First::Turned(Answer::Accepted { .. } | Answer::Stream { .. }) => {
                    break UpstreamFailure::EndedEarly;
                }
                First::Failed(failure) => break failure,
            }
        };
        self.done = true;
        self.number.is_some().then_some(Err(failure))
    }

    /// Waits for what comes first. A message stays to be read.
    async fn first(&mut self) -> First {
        if let Some((_, end)) = &self.peeked {
            return First::Message(*end);
        }
        match self.from.recv().await {
            Some(Item::Message(data, end)) => {
                self.peeked = Some((data, end));
                First::Message(end)
            }
            Some(Item::Posted(outcome)) => match *outcome {
                Ok(Answer::Accepted { .. }) => First::Taken,
                Ok(answer) => First::Turned(answer),
                Err(failure) => First::Failed(failure),
            },
            None => First::Failed(self.owner.failure().await),
        }
    }
}

impl Drop for DuplexStream {
    fn drop(&mut self) {
        let answered = self.done || self.peeked.as_ref().is_some_and(|(_, end)| end.is_some());
        if let Some(number) = self.number.filter(|_| !answered) {
            self.owner.abandoned(number);
        }
    }
}
