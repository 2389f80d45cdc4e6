//! One open stream of an HTTP+SSE server, and the exchanges that share it.
//!
//! An answer goes to the exchange that asked under its id, progress to the one whose token it
//! carries. Decides nothing about content: the gate reads every message again on its way to the
//! client.

use std::sync::{Arc, OnceLock};

use ::http::Uri;
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::LegacySseLimits;
use crate::clock::Clock;
use crate::duplex::{DRAIN_STEP, Duplex, DuplexLimits, DuplexStream, End, Line, Route, Table};
use crate::sse::SseBody;
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, Id, Message, Sender};
use bartizan_gate::wire::method::{Method, Role};

/// One session with the server: as long as its stream is open.
pub(super) type Conversation = Duplex<SseLine>;

/// The server's stream, and where messages are posted.
#[derive(Debug)]
pub(crate) struct SseLine {
    limits: LegacySseLimits,
    /// Where messages are posted.
    pub(super) endpoint: Uri,
    stop: CancellationToken,
    /// Why the stream is over.
    ended: OnceLock<UpstreamFailure>,
}

/// What is remembered of one open exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: Id,
    token: Option<Id>,
    /// The client waits no more, as far as it says.
    cancelled: bool,
}

impl Duplex<SseLine> {
    /// A session whose messages are posted to `endpoint`. [`Duplex::listen`] reads its stream.
    pub(super) fn of(endpoint: Uri, limits: LegacySseLimits, clock: Clock) -> Arc<Self> {
        let (stop, ended) = (CancellationToken::new(), OnceLock::new());
        let bounds = DuplexLimits {
            exchanges_max: limits.exchanges_max,
            exchange_queue_max: limits.exchange_queue_max,
            exchange_wait_max: limits.exchange_wait_max,
            backlog_max: limits.backlog_max,
        };
        Self::new(SseLine { limits, endpoint, stop, ended }, bounds, clock)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.line.stop.is_cancelled() || self.table().has_ended()
    }

    /// Lets go of the server.
    pub(super) fn stop(&self) {
        self.line.stop.cancel();
    }

    /// Makes room for the answer to a request of this id, and for what comes under its progress
    /// token.
    pub(super) async fn ask(
        self: &Arc<Self>,
        id: &Id,
        token: Option<Id>,
    ) -> Result<DuplexStream, UpstreamFailure> {
        // An earlier request of this id is over: ids in use at once differ (the gate's rule).
        self.table().retain(|open| open.id != *id);
        let exchange = Exchange { id: id.clone(), token, cancelled: false };
        let (stream, ()) = self.open(false, |_| Ok((exchange, ()))).await?;
        Ok(stream)
    }

    /// The client cancels the call of this id: whoever reads its answer may be gone.
    pub(super) fn cancelled(&self, id: Option<&Id>) {
        for (_, open) in self.table().iter_mut() {
            open.cancelled |= id == Some(&open.id);
        }
    }

    /// Reads the server's stream until it ends, nobody uses it any more, or `closing` and all
    /// calls are over.
    pub(super) async fn listen(self: Arc<Self>, mut events: SseBody, closing: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = self.line.stop.cancelled() => UpstreamFailure::Unreachable("the session is over".into()),
            () = self.drained(&closing) => UpstreamFailure::Unreachable("closing".into()),
            () = self.idle() => UpstreamFailure::Unreachable("the session was idle".into()),
            failure = self.read(&mut events) => failure,
        };
        self.stop();
        // Before the readers are woken, who ask for it.
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
                // What follows would go elsewhere, if this were believed (threat F3).
                Some("endpoint") => {
                    tracing::warn!("server names a second endpoint; its session is ended");
                    let why = "a second `endpoint` event".to_owned();
                    return UpstreamFailure::Unreadable(why);
                }
                Some(name) => tracing::debug!(name, "event of an unknown name dropped"),
                // Comments and ids say nothing here: 2024-11-05 resumes no stream.
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
            tracing::debug!("calls of a session did not end in time");
        }
    }

    /// Waits until nobody has used the session for `idle_max`.
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
    type Exchange = Exchange;
    type Message = (Bytes, Option<Frame>);

    fn read(&self, data: Bytes) -> Self::Message {
        let frame = Frame::read(data.clone(), Sender::Server, &self.limits.frame).ok();
        (data, frame)
    }

    fn route(&self, table: &mut Table<Exchange>, (data, frame): Self::Message) -> Route {
        let Some(frame) = frame else { return unreadable(table, data) };
        let (id, end) = match frame.message() {
            Message::Result { id } => (id, End::Result),
            Message::Error { id: Some(id), code } => (id, End::Error(*code)),
            Message::Error { id: None, .. } => return unreadable(table, data),
            Message::Notification { method }
                if Method::named(method).is_some_and(|method| method.role == Role::Progress) =>
            {
                let token = frame.named_id("progressToken");
                let owner = |open: &Exchange| token.is_some() && open.token == token;
                let number = table.iter().find(|(_, open)| owner(open)).map(|(number, _)| number);
                return Route::Anybody(number, data);
            }
            Message::Notification { .. } | Message::Request { .. } => {
                return Route::Anybody(None, data);
            }
        };
        match table.iter().find(|(_, open)| open.id == *id) {
            Some((number, _)) => Route::Answer(number, data, end),
            // Answers nothing that was asked: the gate withholds and records it.
            None => Route::Anybody(None, data),
        }
    }

    fn hears_anything(exchange: &Exchange) -> bool {
        !exchange.cancelled
    }

    fn keeps_backlog(&self) -> bool {
        true
    }

    /// Every message goes to the client if to anybody, and the gate records it there.
    fn stray(&self, _: &Bytes) {}

    /// To go away is no cancellation in the legacy eras.
    fn abandoned(_: &Conversation, _: i64) {}

    async fn failure(&self, _: bool) -> UpstreamFailure {
        self.ended.get().cloned().unwrap_or(UpstreamFailure::EndedEarly)
    }
}

/// What is no frame, or answers nobody by name. If exactly one call is read it must be meant for
/// that one, and the gate withholds and records it there; else the stream of server messages gets it.
fn unreadable(table: &Table<Exchange>, data: Bytes) -> Route {
    match table.only(true) {
        Some(number) => Route::Exchange(number, data),
        None => Route::Stream(data),
    }
}
