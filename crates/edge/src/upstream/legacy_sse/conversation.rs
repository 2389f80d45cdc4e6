//! One open stream of an HTTP+SSE server, and the exchanges that share it.
//!
//! An answer goes to the exchange that asked under its id, progress to the one whose token it
//! carries. What belongs to no exchange goes to the oldest one that is read, else to the stream of
//! server messages, else it waits; so one call's messages keep their order. Decides nothing about
//! content: the gate reads every message again on its way to the client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::LegacySseLimits;
use crate::clock::Clock;
use crate::sse::SseBody;
use crate::{Answer, ServerEvent};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::frame::{Frame, Id, Message, Sender};
use bartizan_gate::wire::method::{Method, Role};

/// How often a draining conversation looks whether its calls are over.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// One message for the reader of an exchange.
#[derive(Debug)]
struct Item {
    data: Bytes,
    /// Set on the answer.
    end: Option<End>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a result.
    Result,
    /// With an error.
    Error,
}

#[derive(Debug)]
struct Exchange {
    id: Id,
    token: Option<Id>,
    to: mpsc::Sender<Item>,
    /// The client waits no more, as far as it says.
    cancelled: bool,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Oldest first.
    exchanges: BTreeMap<u64, Exchange>,
    stream: Option<mpsc::Sender<Item>>,
    /// What the server said before anybody could hear it.
    backlog: VecDeque<Bytes>,
    /// When somebody last spoke, by uptime.
    used: Duration,
    ended: Option<UpstreamFailure>,
}

/// One session with the server: as long as its stream is open.
#[derive(Debug)]
pub(super) struct Conversation {
    limits: LegacySseLimits,
    clock: Clock,
    stop: CancellationToken,
    state: Mutex<State>,
}

/// Where one message goes.
struct Delivery {
    to: mpsc::Sender<Item>,
    item: Item,
    number: Option<u64>,
}

impl Conversation {
    pub(super) fn new(limits: LegacySseLimits, clock: Clock) -> Arc<Self> {
        let state = State { used: clock.uptime(), ..State::default() };
        Arc::new(Self { limits, clock, stop: CancellationToken::new(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the tables whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.stop.is_cancelled() || self.state().ended.is_some()
    }

    /// Lets go of the server.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Somebody spoke.
    pub(super) fn touch(&self) {
        self.state().used = self.clock.uptime();
    }

    /// Makes room for the answer to a request of this id, and for what comes under its progress
    /// token.
    pub(super) fn open(
        self: &Arc<Self>,
        id: &Id,
        token: Option<Id>,
    ) -> Result<LegacySseStream, UpstreamFailure> {
        let (to, from) = mpsc::channel(self.limits.exchange_queue_max);
        let mut state = self.state();
        if state.exchanges.len() >= self.limits.exchanges_max {
            state.exchanges.retain(|_, open| !open.to.is_closed());
        }
        if state.exchanges.len() >= self.limits.exchanges_max {
            return Err(UpstreamFailure::Unreachable(format!(
                "too many calls at once in one session (`exchanges_max` {})",
                self.limits.exchanges_max
            )));
        }
        if let Some(failure) = &state.ended {
            return Err(failure.clone());
        }
        let number = state.next;
        state.next = number.saturating_add(1);
        state.used = self.clock.uptime();
        // An earlier request of this id is over: ids in use at once differ (the gate's rule).
        state.exchanges.retain(|_, open| open.id != *id);
        state.exchanges.insert(number, Exchange { id: id.clone(), token, to, cancelled: false });
        drop(state);
        Ok(LegacySseStream::new(Arc::clone(self), from, true))
    }

    /// The client cancels the call of this id: whoever reads its answer may be gone.
    pub(super) fn cancelled(&self, id: Option<&Id>) {
        for open in self.state().exchanges.values_mut() {
            open.cancelled |= id == Some(&open.id);
        }
    }

    /// Opens the stream of server messages; `None` where one is open already (threat F7).
    pub(super) fn hear(self: &Arc<Self>) -> Option<LegacySseStream> {
        let room = self.limits.backlog_max.saturating_add(self.limits.exchange_queue_max);
        let (to, from) = mpsc::channel(room);
        let mut state = self.state();
        let open = state.stream.as_ref().is_some_and(|open| !open.is_closed());
        if open || state.ended.is_some() {
            return None;
        }
        for data in state.backlog.drain(..) {
            if to.try_send(Item { data, end: None }).is_err() {
                tracing::debug!("no room for a message kept for the stream");
            }
        }
        state.used = self.clock.uptime();
        state.stream = Some(to);
        drop(state);
        Some(LegacySseStream::new(Arc::clone(self), from, false))
    }

    /// Reads the server's stream until it ends, nobody uses it any more, or `closing` and all
    /// calls are over.
    pub(super) async fn listen(self: Arc<Self>, mut events: SseBody, closing: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => UpstreamFailure::Unreachable("the session is over".into()),
            () = self.drained(&closing) => UpstreamFailure::Unreachable("closing".into()),
            () = self.unused() => UpstreamFailure::Unreachable("the session was idle".into()),
            failure = self.read(&mut events) => failure,
        };
        self.stop.cancel();
        let mut state = self.state();
        state.ended = Some(ended);
        // Their readers find the end and ask why.
        state.exchanges.clear();
        state.stream = None;
        state.backlog.clear();
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
            while self.is_busy() {
                sleep(DRAIN_STEP).await;
            }
        };
        if timeout(self.limits.drain_max, over).await.is_err() {
            tracing::debug!("calls of a session did not end in time");
        }
    }

    async fn unused(&self) {
        loop {
            let left = {
                let state = self.state();
                let mut heard = state.exchanges.values().map(|open| &open.to).chain(&state.stream);
                let since = self.clock.uptime().saturating_sub(state.used);
                if heard.any(|to| !to.is_closed()) {
                    self.limits.idle_max
                } else {
                    self.limits.idle_max.saturating_sub(since)
                }
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    fn is_busy(&self) -> bool {
        self.state().exchanges.values().any(|open| !open.to.is_closed())
    }

    /// Hands one message to whom it belongs, waiting a bounded time for a slow reader.
    async fn deliver(&self, data: Bytes) {
        let Some(Delivery { to, item, number }) = self.route(data) else { return };
        match timeout(self.limits.exchange_wait_max, to.send(item)).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => tracing::debug!("the reader of an exchange is gone"),
            Err(_elapsed) => {
                tracing::warn!("the reader of an exchange is too slow; giving it up");
                let mut state = self.state();
                match number {
                    Some(number) => drop(state.exchanges.remove(&number)),
                    None => state.stream = None,
                }
            }
        }
    }

    fn route(&self, data: Bytes) -> Option<Delivery> {
        let mut state = self.state();
        let Ok(frame) = Frame::read(data.clone(), Sender::Server, &self.limits.frame) else {
            return state.unreadable(data);
        };
        let number = match frame.message() {
            Message::Result { id } | Message::Error { id: Some(id), .. } => {
                let failed = matches!(frame.message(), Message::Error { .. });
                let end = if failed { End::Error } else { End::Result };
                let found = state.exchanges.iter().find(|(_, open)| open.id == *id);
                if let Some(number) = found.map(|(number, _)| *number) {
                    let open = state.exchanges.remove(&number)?;
                    state.used = self.clock.uptime();
                    return Some(Delivery {
                        to: open.to,
                        item: Item { data, end: Some(end) },
                        number: None,
                    });
                }
                // Answers nothing that was asked: the gate withholds and records it.
                None
            }
            Message::Error { id: None, .. } => return state.unreadable(data),
            Message::Notification { method }
                if Method::named(method).is_some_and(|method| method.role == Role::Progress) =>
            {
                let token = frame.named_id("progressToken");
                let owner = |open: &Exchange| token.is_some() && open.token == token;
                state.exchanges.iter().find(|(_, open)| owner(open)).map(|(number, _)| *number)
            }
            Message::Notification { .. } | Message::Request { .. } => None,
        };
        state.general(number, data, self.limits.backlog_max)
    }
}

impl State {
    /// The way of a message that is no answer: to exchange `number` if that is read, else to the
    /// stream of server messages, else to a call that waits. Nothing tells which of these caused
    /// it.
    fn general(
        &mut self,
        number: Option<u64>,
        data: Bytes,
        backlog_max: usize,
    ) -> Option<Delivery> {
        let read = |(number, open): (&u64, &Exchange)| {
            (!open.to.is_closed()).then(|| (*number, open.to.clone()))
        };
        let named = number.and_then(|number| self.exchanges.get_key_value(&number)).and_then(read);
        let item = |data| Item { data, end: None };
        if let (None, Some(to)) = (&named, self.stream.as_ref().filter(|open| !open.is_closed())) {
            return Some(Delivery { to: to.clone(), item: item(data), number: None });
        }
        let mut waiting = self.exchanges.iter().filter(|(_, open)| !open.cancelled);
        if let Some((number, to)) = named.or_else(|| waiting.find_map(read)) {
            return Some(Delivery { to, item: item(data), number: Some(number) });
        }
        if self.backlog.len() >= backlog_max {
            self.backlog.pop_front();
            tracing::debug!("oldest message that nobody heard is dropped");
        }
        self.backlog.push_back(data);
        None
    }

    /// What is no frame, or answers nobody by name. If exactly one call waits it must be meant for
    /// that one, and the gate withholds and records it there; else it goes where a message goes
    /// that belongs to no call.
    fn unreadable(&mut self, data: Bytes) -> Option<Delivery> {
        let item = Item { data, end: None };
        let mut waiting = self.exchanges.iter().filter(|(_, open)| !open.to.is_closed());
        if let (Some((number, open)), None) = (waiting.next(), waiting.next()) {
            return Some(Delivery { to: open.to.clone(), item, number: Some(*number) });
        }
        let Some(to) = self.stream.as_ref().filter(|open| !open.is_closed()) else {
            tracing::warn!("server wrote an unreadable message; dropped");
            return None;
        };
        Some(Delivery { to: to.clone(), item, number: None })
    }
}

/// The messages of one server's stream that belong to one exchange, or to no exchange.
#[derive(Debug)]
pub struct LegacySseStream {
    conversation: Arc<Conversation>,
    from: mpsc::Receiver<Item>,
    /// An answer is owed.
    asks: bool,
    /// The request on its way; absent once it is taken.
    posting: Option<JoinHandle<Result<Answer, UpstreamFailure>>>,
    peeked: Option<Item>,
    done: bool,
}

/// What comes first in an exchange.
pub(super) enum First {
    /// A message, and how the exchange ended where it is the answer.
    Message { end: Option<End> },
    /// The request was taken.
    Accepted,
    /// The request was answered with a status, not with a message.
    Turned(Box<Answer>),
    /// There will be no answer.
    Failed(UpstreamFailure),
}

impl LegacySseStream {
    fn new(conversation: Arc<Conversation>, from: mpsc::Receiver<Item>, asks: bool) -> Self {
        Self { conversation, from, asks, posting: None, peeked: None, done: false }
    }

    /// The request is on its way.
    pub(super) fn posting(&mut self, posting: JoinHandle<Result<Answer, UpstreamFailure>>) {
        self.posting = Some(posting);
    }

    /// Waits for the first message or for the request to be taken. A message stays to be read.
    pub(super) async fn first(&mut self) -> First {
        if self.peeked.is_none() {
            let posted = tokio::select! {
                biased;
                item = self.from.recv() => {
                    self.peeked = item;
                    None
                }
                posted = posted(&mut self.posting) => Some(posted),
            };
            match posted {
                Some(Ok(Answer::Accepted { .. })) => return First::Accepted,
                Some(Ok(answer)) => return First::Turned(Box::new(answer)),
                Some(Err(failure)) => return First::Failed(failure),
                None => {}
            }
        }
        match &self.peeked {
            Some(Item { end, .. }) => First::Message { end: *end },
            None => First::Failed(self.failure()),
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
                First::Accepted => {}
                First::Message { .. } => {
                    let item = self.peeked.take()?;
                    self.done = item.end.is_some();
                    return Some(Ok(ServerEvent { data: item.data, ..ServerEvent::default() }));
                }
                First::Turned(answer) => match *answer {
                    Answer::Whole { status, .. } => break UpstreamFailure::Status(status),
                    Answer::Accepted { .. } | Answer::Stream { .. } => {
                        break UpstreamFailure::EndedEarly;
                    }
                },
                First::Failed(failure) => break failure,
            }
        };
        self.done = true;
        self.asks.then_some(Err(failure))
    }

    fn failure(&self) -> UpstreamFailure {
        self.conversation.state().ended.clone().unwrap_or(UpstreamFailure::EndedEarly)
    }
}

/// What came of the request, once.
async fn posted(
    posting: &mut Option<JoinHandle<Result<Answer, UpstreamFailure>>>,
) -> Result<Answer, UpstreamFailure> {
    let Some(running) = posting else { return std::future::pending().await };
    let outcome = running.await;
    *posting = None;
    outcome.unwrap_or_else(|broken| Err(UpstreamFailure::Unreachable(broken.to_string())))
}
