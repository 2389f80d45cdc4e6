//! The receiving end: what the reader of one exchange, or of the stream of server messages, reads.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::kept::{Account, no_room};
use crate::{Answer, ServerEvent};
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::session::UpstreamFailure;

/// How the server answered an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a result.
    Result,
    /// With an error of this code.
    Error(i64),
}

/// An item in the queue of an exchange's reader.
#[derive(Debug)]
pub(super) enum Item {
    /// A message of the server. It is the answer if the second field says how the exchange ended.
    Message(Bytes, Option<End>),
    /// A message of the server that names no exchange.
    Stray(Bytes),
    /// How the server answered the POST that carried the request.
    Posted(Box<Result<Answer, UpstreamFailure>>),
}

impl Item {
    /// The item with its message charged; the failure in its place if there is no room. The second
    /// value says which.
    pub(super) fn charged(self, account: &Account) -> (Self, bool) {
        let held = match self {
            Self::Message(data, end) => account.hold(data).map(|data| Self::Message(data, end)),
            Self::Stray(data) => account.hold(data).map(Self::Stray),
            Self::Posted(outcome) => Ok(Self::Posted(outcome)),
        };
        match held {
            Ok(item) => (item, true),
            Err(_) => (Self::Posted(Box::new(Err(no_room()))), false),
        }
    }
}

/// The line that a stream reads from, without its type.
pub(super) trait Owner: fmt::Debug + Send + Sync {
    /// Why the exchange gets no answer.
    fn failure(&self) -> Pin<Box<dyn Future<Output = UpstreamFailure> + Send + '_>>;

    /// The reader of exchange `number` was dropped before its answer.
    fn reader_dropped(&self, number: i64);

    /// What all calls on the line demand of messages that name none.
    fn duties(&self) -> Arc<Duties>;
}

/// The messages that belong to one exchange, or to no exchange.
#[derive(Debug)]
pub struct DuplexStream {
    owner: Arc<dyn Owner>,
    from: mpsc::Receiver<Item>,
    /// The exchange's number; `None` for the stream of server messages.
    number: Option<i64>,
    /// A message that was received and not yet returned by `next`.
    peeked: Option<Peeked>,
    done: bool,
}

/// A message that was received.
#[derive(Debug)]
struct Peeked {
    data: Bytes,
    end: Option<End>,
    stray: bool,
}

/// The next item of an exchange.
enum FirstItem {
    /// A message, which stays in `peeked`. It is the answer if the field says how the exchange
    /// ended.
    Message(Option<End>),
    /// The server accepted the request (202).
    Taken,
    /// The request was answered with a status, not with a message.
    Status(Answer),
    /// There will be no answer, for this reason.
    Failed(UpstreamFailure),
}

/// The answer of an exchange, or what comes before it.
#[derive(Debug)]
pub(crate) enum ExchangeAnswer {
    /// The answer, which came first and within the wait.
    Whole(Bytes, End),
    /// Another message came first, or the wait was over.
    Stream(DuplexStream),
    /// The request was answered with a status, not with a message.
    Status(Answer),
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

    /// Waits for the answer, at most `whole_wait` after the server accepted the request; then gives
    /// a stream. `taken`: the server has accepted it already. Fails if there will be no answer.
    pub(crate) async fn answer(
        mut self,
        taken: bool,
        whole_wait: Duration,
    ) -> Result<ExchangeAnswer, UpstreamFailure> {
        let mut first = if taken { FirstItem::Taken } else { self.first().await };
        if matches!(first, FirstItem::Taken) {
            first = timeout(whole_wait, self.first()).await.unwrap_or(FirstItem::Taken);
        }
        match first {
            FirstItem::Message(Some(end)) => match self.next().await {
                Some(event) => Ok(ExchangeAnswer::Whole(event?.data, end)),
                None => Err(UpstreamFailure::EndedEarly),
            },
            FirstItem::Message(None) | FirstItem::Taken => Ok(ExchangeAnswer::Stream(self)),
            FirstItem::Status(answer) => Ok(ExchangeAnswer::Status(answer)),
            FirstItem::Failed(failure) => Err(failure),
        }
    }

    /// The answer; messages before it are dropped.
    pub(crate) async fn only_answer(mut self) -> Result<Bytes, UpstreamFailure> {
        loop {
            let event = self.next().await.unwrap_or(Err(UpstreamFailure::EndedEarly))?;
            if self.done {
                return Ok(event.data);
            }
        }
    }

    /// The next message; `None` after the answer, or when the stream of server messages has ended.
    /// Cancel-safe: dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        if self.done {
            return None;
        }
        let failure = loop {
            match self.first().await {
                FirstItem::Taken => {}
                FirstItem::Message(end) => {
                    let Peeked { data, stray, .. } = self.peeked.take()?;
                    self.done = end.is_some();
                    let stray = stray.then(|| self.owner.duties());
                    return Some(Ok(ServerEvent { data, stray, ..ServerEvent::default() }));
                }
                FirstItem::Status(Answer::Whole { status, .. }) => {
                    break UpstreamFailure::Status(status);
                }
                FirstItem::Status(Answer::Accepted { .. } | Answer::Stream { .. }) => {
                    break UpstreamFailure::EndedEarly;
                }
                FirstItem::Failed(failure) => break failure,
            }
        };
        self.done = true;
        self.number.is_some().then_some(Err(failure))
    }

    /// Waits for the next item without consuming a message.
    async fn first(&mut self) -> FirstItem {
        if let Some(Peeked { end, .. }) = &self.peeked {
            return FirstItem::Message(*end);
        }
        match self.from.recv().await {
            Some(Item::Message(data, end)) => {
                self.peeked = Some(Peeked { data, end, stray: false });
                FirstItem::Message(end)
            }
            Some(Item::Stray(data)) => {
                self.peeked = Some(Peeked { data, end: None, stray: true });
                FirstItem::Message(None)
            }
            Some(Item::Posted(outcome)) => match *outcome {
                Ok(Answer::Accepted { .. }) => FirstItem::Taken,
                Ok(answer) => FirstItem::Status(answer),
                Err(failure) => FirstItem::Failed(failure),
            },
            None => FirstItem::Failed(self.owner.failure().await),
        }
    }
}

impl Drop for DuplexStream {
    fn drop(&mut self) {
        let answered = self.done || self.peeked.as_ref().is_some_and(|it| it.end.is_some());
        if let Some(number) = self.number.filter(|_| !answered) {
            self.owner.reader_dropped(number);
        }
    }
}
