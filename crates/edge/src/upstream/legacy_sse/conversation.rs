//! One session with an HTTP+SSE server: its open stream, and the exchanges that share it.
//!
//! An answer goes to the exchange whose request has its id, progress to the exchange whose token it
//! carries. This module decides nothing about content: the gate reads every message again on its
//! way to the client.

use std::sync::{Arc, OnceLock};

use ::http::Uri;
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::LegacySseLimits;
use crate::clock::Clock;
use crate::duplex::{
    DRAIN_STEP, Destination, Duplex, DuplexLimits, DuplexStream, End, ExchangeTable, Line,
};
use crate::kept::Account;
use crate::sse::SseBody;
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, Id, Message, Sender};
use bartizan_gate::wire::method::{Method, Role};

/// One session with the server; it lasts as long as its stream.
pub(super) type Conversation = Duplex<SseLine>;

/// The server's side of the line: the address for messages, and how messages are routed.
#[derive(Debug)]
pub(crate) struct SseLine {
    limits: LegacySseLimits,
    /// The address for messages.
    pub(super) endpoint: Uri,
    stop: CancellationToken,
    /// Why the stream ended.
    ended: OnceLock<UpstreamFailure>,
}

/// What is kept for one open exchange.
#[derive(Debug)]
pub(crate) struct SseExchange {
    id: Id,
    token: Option<Id>,
    /// The client has cancelled the request.
    cancelled: bool,
}

impl Duplex<SseLine> {
    /// A session whose messages are posted to `endpoint`. The caller runs `listen` to read its
    /// stream. Its messages are charged to `account`.
    pub(super) fn of(
        endpoint: Uri,
        limits: LegacySseLimits,
        clock: Clock,
        account: Account,
    ) -> Arc<Self> {
        let (stop, ended) = (CancellationToken::new(), OnceLock::new());
        let bounds = DuplexLimits {
            exchanges_max: limits.exchanges_max,
            exchange_queue_max: limits.exchange_queue_max,
            exchange_wait_max: limits.exchange_wait_max,
            backlog_max: limits.backlog_max,
        };
        Self::new(SseLine { limits, endpoint, stop, ended }, bounds, clock, account)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.line.stop.is_cancelled() || self.table().has_ended()
    }

    /// Closes the stream.
    pub(super) fn stop(&self) {
        self.line.stop.cancel();
    }

    /// Opens an exchange for a request with this id and progress token.
    pub(super) async fn ask(
        self: &Arc<Self>,
        id: &Id,
        token: Option<Id>,
    ) -> Result<DuplexStream, UpstreamFailure> {
        // The gate refuses an id that is in use, so an earlier request with this id is settled.
        self.table().retain(|open| open.id != *id);
        let exchange = SseExchange { id: id.clone(), token, cancelled: false };
        let (stream, ()) = self.open(false, |_| Ok((exchange, ()))).await?;
        Ok(stream)
    }

    /// Marks the exchange with this id as cancelled: its reader may be gone.
    pub(super) fn cancelled(&self, id: Option<&Id>) {
        for (_, open) in self.table().iter_mut() {
            open.cancelled |= id == Some(&open.id);
        }
    }

    /// Reads the server's stream until it ends, is stopped, is idle, or `closing` is cancelled and
    /// all calls have ended.
    pub(super) async fn listen(self: Arc<Self>, mut events: SseBody, closing: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = self.line.stop.cancelled() => UpstreamFailure::Unreachable("the session is over".into()),
            () = self.drained(&closing) => UpstreamFailure::Unreachable("closing".into()),
            () = self.idle() => UpstreamFailure::Unreachable("the session was idle".into()),
            failure = self.read(&mut events) => failure,
        };
        self.stop();
        // Set before `end` wakes the readers, which ask for this reason.
        self.line.ended.get_or_init(|| ended);
        self.end();
    }

    async fn read(&self, events: &mut SseBody) -> UpstreamFailure {
        loop {
            let event = match events.next().await {
                Some(Ok(event)) => event,
                Some(Err(failure)) => return failure,
                None => return UpstreamFailure::EndedEarly,
            };
            match event.event.as_deref() {
                // A second endpoint would redirect all later messages (threat F3).
                Some("endpoint") => {
                    tracing::warn!("server sent a second `endpoint` event; closing its session");
                    let why = "a second `endpoint` event".to_owned();
                    return UpstreamFailure::Unreadable(why);
                }
                Some(name) => tracing::debug!(name, "event of an unknown name dropped"),
                // Comments and ids are ignored: 2024-11-05 resumes no stream.
                None if event.data.is_empty() => {}
                None => self.deliver(event.data).await,
            }
        }
    }

    async fn drained(&self, closing: &CancellationToken) {
        closing.cancelled().await;
        let over = async {
            while self.table().is_busy() {
                sleep(DRAIN_STEP).await;
            }
        };
        if timeout(self.line.limits.drain_max, over).await.is_err() {
            tracing::debug!("calls of an HTTP+SSE session did not end within `drain_max`");
        }
    }

    /// Waits until the session has been unused for [`LegacySseLimits::idle_max`].
    async fn idle(&self) {
        loop {
            let unused = self.unused().unwrap_or_default();
            let left = self.line.limits.idle_max.saturating_sub(unused);
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

impl Line for SseLine {
    type Exchange = SseExchange;
    type Message = (Bytes, Option<Frame>);

    fn read(&self, data: Bytes) -> Self::Message {
        let frame = Frame::read(data.clone(), Sender::Server, &self.limits.frame).ok();
        (data, frame)
    }

    fn route(
        &self,
        table: &mut ExchangeTable<SseExchange>,
        (data, frame): Self::Message,
    ) -> Destination {
        let Some(frame) = frame else { return unreadable(table, data) };
        let (id, end) = match frame.message() {
            Message::Result { id } => (id, End::Result),
            Message::Error { id: Some(id), code } => (id, End::Error(*code)),
            Message::Error { id: None, .. } => {
                return match table.only_owed() {
                    Some(number) => Destination::Exchange(number, data),
                    None => Destination::Stream(data),
                };
            }
            Message::Notification { method }
                if Method::named(method).is_some_and(|method| method.role == Role::Progress) =>
            {
                let token = frame.named_id("progressToken");
                let owner = |open: &SseExchange| token.is_some() && open.token == token;
                let number = table.iter().find(|(_, open)| owner(open)).map(|(number, _)| number);
                return Destination::Anybody(number, data);
            }
            Message::Notification { .. } | Message::Request { .. } => {
                return Destination::Anybody(None, data);
            }
        };
        let number = table.iter().find(|(_, open)| open.id == *id).map(|(number, _)| number);
        match number.filter(|number| table.take_abandoned(*number).is_none()) {
            Some(number) => Destination::Answer(number, data, end),
            // Nobody waits for it; the gate withholds and records it.
            None => Destination::Anybody(None, data),
        }
    }

    fn accepts_any_message(exchange: &SseExchange) -> bool {
        !exchange.cancelled
    }

    fn keeps_backlog(&self) -> bool {
        true
    }

    /// `route` returns no unsolicited message: each goes to a reader, and the gate records it
    /// there.
    fn unsolicited(&self, _: &Bytes) {}

    /// A disconnect is no cancellation in the legacy eras.
    fn reader_dropped(_: &Conversation, _: i64) {}

    async fn failure(&self, _: bool) -> UpstreamFailure {
        self.ended.get().cloned().unwrap_or(UpstreamFailure::EndedEarly)
    }
}

/// Routes a message that is no frame. If exactly one call has a reader,
/// the message is sent there, and the gate withholds and records it; else it goes to the stream of
/// server messages.
fn unreadable(table: &ExchangeTable<SseExchange>, data: Bytes) -> Destination {
    match table.only(true) {
        Some(number) => Destination::Exchange(number, data),
        None => Destination::Stream(data),
    }
}
