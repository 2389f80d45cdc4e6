//! One child and the exchanges that share it.
//!
//! Requests go out under our own numbers and each answer comes back to the exchange that asked.
//! What a child says of its own accord goes to the stream of server messages if one is open, else
//! to the oldest open exchange. An answer to nothing that was asked is recorded and dropped: it is
//! what a smuggled request would cause (C3). Decides nothing about content; the gate reads every message
//! again on its way to the client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::era::{self, Asked, PROBE};
use super::lines::{Line, Lines, line_for_child};
use super::process::{ChildLimits, ChildSpec, Process, SpawnError, Window, Wish};
use super::relabel::{self, Labels, Place};
use crate::{ServerEvent, Shared};
use bartizan_gate::evidence::step::{Act, Permitted, Step};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Arrival, Protected, Session, UpstreamFailure};
use bartizan_gate::wire::document::Document;
use bartizan_gate::wire::frame::{Frame, Id, Malformed, Message, Sender};
use bartizan_gate::wire::method::{Method, Role};
use bartizan_gate::wire::protocol::Transport;

/// How long the exit status of a child that closed its output is waited for.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// Tokens of task-augmented requests remembered for one child.
const LASTING_TOKENS_MAX: usize = 256;

/// Numbers of exchanges that were given up, remembered for one child: its late answer is no news.
const GIVEN_UP_MAX: usize = 256;

/// What all children of one server have in common.
pub(super) struct Common {
    pub(super) spec: ChildSpec,
    pub(super) limits: ChildLimits,
    pub(super) shared: Shared,
    pub(super) server: Arc<Protected>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Common {
    pub(super) fn uptime(&self) -> Duration {
        self.shared.clock.uptime()
    }
}

/// Whom a child serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One legacy session.
    Session,
    /// All requests without a session of one principal (modern era).
    Shared,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a result.
    Result,
    /// With an error of this code.
    Error(i64),
}

/// What comes first in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// The answer.
    Answer(End),
    /// Something else.
    Other,
    /// Nothing: the child ended, or the exchange was given up.
    Nothing,
}

/// One message for the reader of an exchange.
#[derive(Debug)]
struct Item {
    event: ServerEvent,
    /// Set on the answer.
    end: Option<End>,
}

/// One open exchange.
#[derive(Debug)]
struct Exchange {
    labels: Labels,
    /// The client's id, for finding it when the client cancels.
    key: Option<Id>,
    to: mpsc::Sender<Item>,
    /// `subscriptions/listen`, which stays open until somebody ends it.
    listens: bool,
}

#[derive(Debug)]
struct State {
    next: i64,
    exchanges: BTreeMap<i64, Exchange>,
    /// Tokens that outlive their exchange, by our number.
    lasting: BTreeMap<i64, relabel::Label>,
    /// Exchanges that were given up before their answer.
    given_up: BTreeSet<i64>,
    stream: Option<mpsc::Sender<Item>>,
    /// What the child said before anybody could hear it.
    backlog: VecDeque<Bytes>,
    used: Duration,
    answered: bool,
    ended: bool,
}

/// One child in conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    kind: Kind,
    process: Process,
    of: Arc<Common>,
    principal: Arc<Principal>,
    born: Duration,
    state: Mutex<State>,
    strays: Mutex<Strays>,
}

/// What a child writes to nobody: a conversation in which nothing is ever asked judges it, so that
/// it is recorded.
#[derive(Debug)]
struct Strays {
    session: Session,
    window: Window,
}

/// Where one message goes.
struct Delivery {
    to: mpsc::Sender<Item>,
    item: Item,
    number: Option<i64>,
}

impl Conversation {
    /// Starts a child and listens to it until it ends.
    pub(super) fn start(
        kind: Kind,
        of: &Arc<Common>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Self>, SpawnError> {
        let Common { spec, limits, shared, server } = &**of;
        let (process, lines) = Process::spawn(spec, limits, shared.clock, &shared.tasks)?;
        let now = of.uptime();
        let state = State {
            next: 1,
            exchanges: BTreeMap::new(),
            lasting: BTreeMap::new(),
            given_up: BTreeSet::new(),
            stream: None,
            backlog: VecDeque::new(),
            used: now,
            answered: false,
            ended: false,
        };
        let strays = Strays {
            session: Session::new(Arc::clone(principal), Arc::clone(server), Transport::Stdio),
            window: Window::new(limits.strays_per_second),
        };
        let conversation = Arc::new(Self {
            kind,
            process,
            of: Arc::clone(of),
            principal: Arc::clone(principal),
            born: now,
            state: Mutex::new(state),
            strays: Mutex::new(strays),
        });
        shared.tasks.spawn(Arc::clone(&conversation).listen(lines));
        Ok(conversation)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the tables whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the child can no longer be spoken to.
    pub(super) fn ended(&self) -> bool {
        self.state().ended || self.process.exit().is_some()
    }

    /// Whether the child did its work for a while, so that its end is news and not a habit.
    pub(super) fn was_healthy(&self) -> bool {
        self.state().answered
            || self.of.uptime().saturating_sub(self.born) >= self.of.limits.healthy_after
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.state().exchanges.values().any(|open| !open.listens && !open.to.is_closed())
    }

    /// Whether nobody has been there for `idle_max`.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let heard = state.exchanges.values().map(|open| &open.to).chain(state.stream.as_ref());
        let unheard = heard.into_iter().all(mpsc::Sender::is_closed);
        unheard && self.of.uptime().saturating_sub(state.used) >= self.of.limits.idle_max
    }

    /// Ends the child in order.
    pub(super) fn stop(&self) {
        self.process.wish(Wish::Stop);
    }

    /// Why the child does not answer.
    async fn failure(&self) -> UpstreamFailure {
        if !self.ended() {
            return UpstreamFailure::EndedEarly;
        }
        match timeout(EXIT_WAIT, self.process.exited()).await {
            Ok(exit) => UpstreamFailure::Unreachable(format!("child process ended: {exit}")),
            Err(_elapsed) => {
                UpstreamFailure::Unreachable("child process closed its output".to_owned())
            }
        }
    }

    /// Sends a request and gives the messages that belong to it.
    pub(super) async fn ask(
        self: &Arc<Self>,
        permitted: &Permitted,
    ) -> Result<ChildStream, UpstreamFailure> {
        let (line, stream) = self.open(permitted)?;
        if self.process.write(line_for_child(&line)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(stream)
    }

    /// Makes room for an exchange and gives its request under our number.
    fn open(
        self: &Arc<Self>,
        permitted: &Permitted,
    ) -> Result<(Bytes, ChildStream), UpstreamFailure> {
        let (to, from) = mpsc::channel(self.of.limits.exchange_queue_max);
        let mut state = self.state();
        if state.exchanges.len() >= self.of.limits.exchanges_max {
            state.forget_unheard();
        }
        if state.exchanges.len() >= self.of.limits.exchanges_max {
            return Err(UpstreamFailure::Unreachable(format!(
                "too many calls at once with one child process (`exchanges_max` {})",
                self.of.limits.exchanges_max
            )));
        }
        let number = state.next;
        let request = permitted.frame().map(Frame::document);
        let (line, labels) =
            request.and_then(|request| relabel::outbound(request, number)).ok_or_else(|| {
                UpstreamFailure::Unreadable("a child process takes no batch".to_owned())
            })?;
        let key = permitted.id().cloned();
        let listens = permitted.method().is_some_and(|method| method.role == Role::Listen);
        state.next = number.saturating_add(1);
        state.used = self.of.uptime();
        if !state.ended {
            state.exchanges.insert(number, Exchange { labels, key, to, listens });
        }
        drop(state);
        let child = Arc::clone(self);
        Ok((line, ChildStream { child, from, number: Some(number), peeked: None, done: false }))
    }

    /// Sends a notification or an answer of the client.
    pub(super) async fn tell(&self, permitted: &Permitted) -> Result<(), UpstreamFailure> {
        let cancels = permitted.method().is_some_and(|method| method.role == Role::Cancel);
        let message = match permitted.frame().filter(|_| cancels) {
            Some(frame) => match self.cancelled(frame) {
                Some(renamed) => renamed,
                // What it cancels is over, or never was.
                None => return Ok(()),
            },
            None => permitted.minified(),
        };
        self.state().used = self.of.uptime();
        match self.process.write(line_for_child(&message)).await {
            Ok(()) => Ok(()),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// The client's cancel under our number.
    fn cancelled(&self, frame: &Frame) -> Option<Bytes> {
        let id = frame.named_id("requestId")?;
        let state = self.state();
        let (number, _) =
            state.exchanges.iter().rev().find(|(_, open)| open.key.as_ref() == Some(&id))?;
        relabel::cancelled(frame.document(), *number)
    }

    /// Asks the child which era it speaks. The question is judged and recorded like a client's.
    pub(super) async fn asked_era(self: &Arc<Self>) -> Asked {
        let Shared { gate, .. } = &self.of.shared;
        let (principal, server) = (Arc::clone(&self.principal), Arc::clone(&self.of.server));
        let mut session = Session::new(principal, server, Transport::Stdio);
        let now = || self.of.shared.now();
        let keep = |step: Option<Step>| step.map(|step| self.of.shared.record(step));
        let arrival = Arrival { raw: Bytes::from_static(PROBE), ..Arrival::default() };
        let asked = keep(Some(session.client_frame(gate, &arrival, now())));
        let Some(Ok(Act::Forward(permitted))) = asked else { return Asked::Forbidden };
        let call = permitted.call();
        let answer = timeout(self.of.limits.probe_max, self.answer_to(&permitted)).await;
        match answer.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(body) => {
                drop(keep(Some(session.server_answer(gate, call, &body, now()))));
                Asked::Speaks(era::of_answer(&body, &self.of.limits.frame.document))
            }
            Err(failure) => {
                drop(keep(session.upstream_failed(call, &failure, now())));
                Asked::Silent
            }
        }
    }

    /// The answer to a request of our own, and nothing that comes before it.
    async fn answer_to(self: &Arc<Self>, request: &Permitted) -> Result<Bytes, UpstreamFailure> {
        let mut stream = self.ask(request).await?;
        loop {
            let first = stream.first().await;
            let event = stream.next().await.unwrap_or(Err(UpstreamFailure::EndedEarly))?;
            if matches!(first, First::Answer(_)) {
                return Ok(event.data);
            }
        }
    }

    /// Opens the stream of server messages; `None` where one is open already (F7).
    pub(super) fn hear(self: &Arc<Self>) -> Option<ChildStream> {
        let room = self.of.limits.backlog_max.saturating_add(self.of.limits.exchange_queue_max);
        let (to, from) = mpsc::channel(room);
        let mut state = self.state();
        if state.ended || state.stream.as_ref().is_some_and(|open| !open.is_closed()) {
            return None;
        }
        for data in state.backlog.drain(..) {
            if to.try_send(Item { event: message(data), end: None }).is_err() {
                tracing::debug!("no room for a message kept for the stream");
            }
        }
        state.used = self.of.uptime();
        state.stream = Some(to);
        drop(state);
        let child = Arc::clone(self);
        Some(ChildStream { child, from, number: None, peeked: None, done: false })
    }

    /// The reader of an exchange is gone before its answer. In the modern era that is a cancel
    /// (mcp transports, "closing the response stream"); in the legacy era it is not.
    fn abandon(&self, number: i64) {
        if self.kind == Kind::Session {
            return;
        }
        if !self.state().give_up(number) {
            return;
        }
        if self.process.try_write(relabel::cancel_line(number)).is_err() {
            tracing::debug!(number, "no room to tell the child of a cancel");
        }
    }

    /// Reads the child's output until it ends.
    async fn listen(self: Arc<Self>, mut lines: Lines<ChildStdout>) {
        loop {
            match lines.next().await {
                Ok(Some(Line::Whole(line))) => self.deliver(line).await,
                Ok(Some(Line::TooLong)) => {
                    self.process.wish(Wish::Kill("it wrote a line longer than allowed"));
                    break;
                }
                Ok(None) => break,
                Err(cause) => {
                    tracing::debug!(%cause, "child's output broke");
                    break;
                }
            }
        }
        self.stop();
        let mut state = self.state();
        state.ended = true;
        // Their readers find the end and ask why.
        state.exchanges.clear();
        state.stream = None;
        state.backlog.clear();
    }

    /// Hands one line to whom it belongs, waiting a bounded time for a slow reader.
    async fn deliver(&self, line: Bytes) {
        let Some(Delivery { to, item, number }) = self.route(line) else { return };
        match timeout(self.of.limits.exchange_wait_max, to.send(item)).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => tracing::debug!("the reader of an exchange is gone"),
            Err(_elapsed) => {
                tracing::warn!("the reader of an exchange is too slow; giving it up");
                let mut state = self.state();
                match number {
                    Some(number) => drop(state.give_up(number)),
                    None => state.stream = None,
                }
            }
        }
    }

    /// Whose one line is, put under the client's labels.
    fn route(&self, line: Bytes) -> Option<Delivery> {
        let frame = match Frame::read(line.clone(), Sender::Server, &self.of.limits.frame) {
            Ok(frame) => frame,
            // No JSON-RPC at all: a log on the wrong stream.
            Err(Malformed::Version | Malformed::NotObject) => return self.stray(&line),
            Err(_) => return self.unreadable(line),
        };
        match frame.message() {
            Message::Result { id } => self.answer(frame.document(), id, End::Result),
            Message::Error { id: Some(id), code } => {
                self.answer(frame.document(), id, End::Error(*code))
            }
            Message::Error { id: None, .. } => self.unreadable(line),
            Message::Request { .. } => self.unasked(line),
            Message::Notification { method } => {
                let role = Method::named(method).map(|method| method.role);
                self.notice(frame.document(), role)
            }
        }
    }

    fn answer(&self, document: &Document, id: &Id, end: End) -> Option<Delivery> {
        let mut state = self.state();
        let asked = match id {
            Id::Number(number) => state.exchanges.remove(number).map(|open| (*number, open)),
            Id::Text(_) => None,
        };
        let Some((number, open)) = asked else {
            if matches!(id, Id::Number(number) if state.given_up.remove(number)) {
                return dropped("the answer of an exchange that was given up");
            }
            drop(state);
            return self.stray(document.raw());
        };
        state.answered = true;
        state.used = self.of.uptime();
        if open.labels.lasting
            && let Some(token) = open.labels.token
        {
            state.lasting.insert(number, token);
            if state.lasting.len() > LASTING_TOKENS_MAX {
                state.lasting.pop_first();
            }
        }
        let event = message(relabel::answer(document, number, &open.labels.id));
        Some(Delivery { to: open.to, item: Item { event, end: Some(end) }, number: None })
    }

    fn notice(&self, document: &Document, role: Option<Role>) -> Option<Delivery> {
        if role == Some(Role::Progress) {
            let Some(number) = relabel::progress_number(document) else {
                return dropped("progress without a token of ours");
            };
            return self.progress(document, number);
        }
        if let Some(number) = relabel::subscription_number(document) {
            return self.tagged(document, number, Place::Subscription);
        }
        // In a session a child cancels its own requests; a shared child has none, and can only
        // mean a subscription (revision 2026-07-28, basic/patterns/cancellation).
        if role == Some(Role::Cancel) && self.kind == Kind::Shared {
            let number = relabel::cancelled_number(document);
            return self.tagged(document, number?, Place::Cancelled);
        }
        self.unasked(document.raw().clone())
    }

    fn progress(&self, document: &Document, number: i64) -> Option<Delivery> {
        let mut state = self.state();
        if let Some(token) = state.lasting.get(&number).cloned() {
            return state.general(relabel::notification(document, Place::Progress, &token), self);
        }
        let open = state.exchanges.get(&number);
        let Some((to, token)) = open.and_then(|open| Some((&open.to, open.labels.token.as_ref()?)))
        else {
            return dropped("progress of nothing that was asked");
        };
        let event = message(relabel::notification(document, Place::Progress, token));
        Some(Delivery { to: to.clone(), item: Item { event, end: None }, number: Some(number) })
    }

    /// A notification that names an exchange by its number.
    fn tagged(&self, document: &Document, number: i64, place: Place) -> Option<Delivery> {
        let state = self.state();
        let Some(open) = state.exchanges.get(&number) else {
            return dropped("notification about nothing that was asked");
        };
        let event = message(relabel::notification(document, place, &open.labels.id));
        let to = open.to.clone();
        Some(Delivery { to, item: Item { event, end: None }, number: Some(number) })
    }

    /// What the child says of its own accord.
    fn unasked(&self, line: Bytes) -> Option<Delivery> {
        self.state().general(line, self)
    }

    /// What is no frame, or answers nobody by name. If exactly one call waits it must be meant
    /// for that one, and the gate withholds and records it there; else it ends here.
    fn unreadable(&self, line: Bytes) -> Option<Delivery> {
        if !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return self.stray(&line);
        }
        let state = self.state();
        let mut waiting = state.exchanges.iter().filter(|(_, open)| !open.listens);
        let (Some((number, open)), None) = (waiting.next(), waiting.next()) else {
            drop(waiting);
            drop(state);
            return self.stray(&line);
        };
        let to = open.to.clone();
        Some(Delivery { to, item: Item { event: message(line), end: None }, number: Some(*number) })
    }

    /// Records a line that is for nobody, and drops it.
    fn stray(&self, line: &Bytes) -> Option<Delivery> {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        let (keep, missed) = strays.window.admit(self.of.uptime());
        if missed > 0 {
            tracing::warn!(missed, "lines of a child for nobody were not recorded");
        }
        if keep {
            let Shared { gate, .. } = &self.of.shared;
            let step = strays.session.server_frame(gate, line, self.of.shared.now());
            // Dropped either way; that it could not be recorded is logged.
            drop(self.of.shared.record(step));
        }
        None
    }
}

impl State {
    /// Closes an exchange before its answer; `false` where there is none.
    fn give_up(&mut self, number: i64) -> bool {
        let open = self.exchanges.remove(&number).is_some();
        if open {
            self.given_up.insert(number);
            if self.given_up.len() > GIVEN_UP_MAX {
                self.given_up.pop_first();
            }
        }
        open
    }

    /// Gives up the exchanges whose reader is gone.
    fn forget_unheard(&mut self) {
        let unheard = self.exchanges.iter().filter(|(_, open)| open.to.is_closed());
        for number in unheard.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.give_up(number);
        }
    }

    /// The oldest exchange that somebody still reads.
    fn oldest(&self) -> Option<(i64, &mpsc::Sender<Item>)> {
        let open = self.exchanges.iter().find(|(_, open)| !open.to.is_closed());
        open.map(|(number, open)| (*number, &open.to))
    }

    /// The way of a message that belongs to no exchange.
    fn general(&mut self, data: Bytes, of: &Conversation) -> Option<Delivery> {
        let item = |data| Item { event: message(data), end: None };
        if let Some(to) = self.stream.as_ref().filter(|open| !open.is_closed()) {
            return Some(Delivery { to: to.clone(), item: item(data), number: None });
        }
        if let Some((number, to)) = self.oldest() {
            return Some(Delivery { to: to.clone(), item: item(data), number: Some(number) });
        }
        if of.kind == Kind::Shared {
            return dropped("child said something that nobody waits for");
        }
        // A legacy child may ask as soon as it is initialized, before the client has opened the
        // stream to hear it.
        if self.backlog.len() >= of.of.limits.backlog_max {
            self.backlog.pop_front();
            tracing::debug!("oldest message that nobody heard is dropped");
        }
        self.backlog.push_back(data);
        None
    }
}

fn dropped(why: &'static str) -> Option<Delivery> {
    tracing::debug!(why, "message of a child dropped");
    None
}

fn message(data: Bytes) -> ServerEvent {
    ServerEvent { data, ..ServerEvent::default() }
}

/// The messages of a child that belong to one exchange, or to no exchange.
#[derive(Debug)]
pub struct ChildStream {
    child: Arc<Conversation>,
    from: mpsc::Receiver<Item>,
    /// Our number of the exchange; absent for the stream of server messages.
    number: Option<i64>,
    peeked: Option<Item>,
    done: bool,
}

impl ChildStream {
    /// The next message; `None` at the end: after the answer, or when the stream of server
    /// messages is over. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        if self.done {
            return None;
        }
        let item = match self.peeked.take() {
            Some(item) => Some(item),
            None => self.from.recv().await,
        };
        let Some(item) = item else {
            let failure = match self.number {
                Some(_) => Some(Err(self.failure().await)),
                None => None,
            };
            self.done = true;
            return failure;
        };
        self.done = item.end.is_some();
        Some(Ok(item.event))
    }

    /// Why there is no answer.
    pub(super) async fn failure(&self) -> UpstreamFailure {
        self.child.failure().await
    }

    /// Waits for the first message and says what it is; it stays to be read.
    pub(super) async fn first(&mut self) -> First {
        if self.peeked.is_none() {
            self.peeked = self.from.recv().await;
        }
        match &self.peeked {
            Some(Item { end: Some(end), .. }) => First::Answer(*end),
            Some(Item { end: None, .. }) => First::Other,
            None => First::Nothing,
        }
    }
}

impl Drop for ChildStream {
    fn drop(&mut self) {
        let answered = self.done || self.peeked.as_ref().is_some_and(|item| item.end.is_some());
        if let Some(number) = self.number.filter(|_| !answered) {
            self.child.abandon(number);
        }
    }
}
