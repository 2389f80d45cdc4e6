//! One child and the exchanges that share it.
//!
//! Requests go out under our own numbers and each answer comes back to the exchange that asked. An
//! answer to nothing that was asked is recorded and dropped: it is what a smuggled request would
//! cause (C3). Decides nothing about content: the gate reads every message again on its way to the
//! client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::Bytes;
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::era::{self, Asked, PROBE};
use super::lines::{self, Lines, line_for_child};
use super::process::{ChildLimits, ChildSpec, Process, SpawnError, Window, Wish};
use super::relabel::{self, Label, Labels, Place};
use crate::Shared;
use crate::duplex::{Duplex, DuplexLimits, DuplexStream, End, Line, Route, Table};
use crate::session::{SessionHandle, Turn};
use bartizan_gate::evidence::step::{Act, Permitted};
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

/// One child in conversation.
pub(super) type Conversation = Duplex<Child>;

/// A child's pipes.
#[derive(Debug)]
pub(crate) struct Child {
    kind: Kind,
    process: Process,
    of: Arc<Common>,
    principal: Arc<Principal>,
    born: Duration,
    /// Progress tokens that outlive their exchange, by our number.
    lasting: Mutex<BTreeMap<i64, Label>>,
    /// Judges what the child writes to nobody, so that it is recorded. Nothing is ever asked in
    /// this session.
    strays: SessionHandle,
    strays_window: Mutex<Window>,
}

/// What is remembered of one open exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    labels: Labels,
    /// The client's id, for finding it when the client cancels.
    key: Option<Id>,
}

impl Duplex<Child> {
    /// Starts a child and listens to it until it ends.
    pub(super) fn start(
        kind: Kind,
        of: &Arc<Common>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Self>, SpawnError> {
        let Common { spec, limits, shared, server } = &**of;
        let (process, lines) = Process::spawn(spec, limits, shared.clock, &shared.tasks)?;
        let strays = Session::new(Arc::clone(principal), Arc::clone(server), Transport::Stdio);
        let child = Child {
            kind,
            process,
            of: Arc::clone(of),
            principal: Arc::clone(principal),
            born: of.uptime(),
            lasting: Mutex::default(),
            strays: SessionHandle::new(shared, strays),
            strays_window: Mutex::new(Window::new(limits.strays_per_second)),
        };
        let bounds = DuplexLimits {
            exchanges_max: limits.exchanges_max,
            exchange_queue_max: limits.exchange_queue_max,
            exchange_wait_max: limits.exchange_wait_max,
            backlog_max: limits.backlog_max,
        };
        let conversation = Self::new(child, bounds, shared.clock);
        shared.tasks.spawn(Arc::clone(&conversation).listen(lines));
        Ok(conversation)
    }

    /// Whether the child can no longer be spoken to.
    pub(super) fn ended(&self) -> bool {
        self.table().has_ended() || self.line.process.exit().is_some()
    }

    /// Whether the child did its work for a while, so that its end is news and not a habit.
    pub(super) fn was_healthy(&self) -> bool {
        let of = &self.line.of;
        self.table().has_answered()
            || of.uptime().saturating_sub(self.line.born) >= of.limits.healthy_after
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.table().is_busy()
    }

    /// Whether nobody has been there for `idle_max`.
    pub(super) fn is_idle(&self) -> bool {
        self.unused().is_some_and(|unused| unused >= self.line.of.limits.idle_max)
    }

    /// Ends the child in order.
    pub(super) fn stop(&self) {
        self.line.process.wish(Wish::Stop);
    }

    /// Sends a request and gives the messages that belong to it.
    pub(super) async fn ask(
        self: &Arc<Self>,
        permitted: &Permitted,
    ) -> Result<DuplexStream, UpstreamFailure> {
        let request = permitted.frame().map(Frame::document);
        let describe = |number| {
            let (line, labels) =
                request.and_then(|request| relabel::outbound(request, number)).ok_or_else(
                    || UpstreamFailure::Unreadable("a child process takes no batch".to_owned()),
                )?;
            Ok((Exchange { labels, key: permitted.id().cloned() }, line))
        };
        let listens = permitted.method().is_some_and(|method| method.role == Role::Listen);
        let (stream, line) = self.open(listens, describe).await?;
        if self.line.process.write(line_for_child(&line)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(stream)
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
        self.touch();
        match self.line.process.write(line_for_child(&message)).await {
            Ok(()) => Ok(()),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// The client's cancel under our number.
    fn cancelled(&self, frame: &Frame) -> Option<Bytes> {
        let id = frame.named_id("requestId")?;
        let table = self.table();
        let (number, _) = table.iter().rev().find(|(_, open)| open.key.as_ref() == Some(&id))?;
        relabel::cancelled(frame.document(), number)
    }

    /// Asks the child which era it speaks. The question is judged and recorded like a client's.
    pub(super) async fn asked_era(self: &Arc<Self>) -> Asked {
        let line = &self.line;
        let (principal, server) = (Arc::clone(&line.principal), Arc::clone(&line.of.server));
        let session = Session::new(principal, server, Transport::Stdio);
        let session = SessionHandle::new(&line.of.shared, session);
        let arrival = Arrival { raw: Bytes::from_static(PROBE), ..Arrival::default() };
        let asked = session
            .step(None, |session, gate, now| Some(session.client_frame(gate, &arrival, now)));
        let permitted = match asked {
            Turn::Act(Act::Forward(permitted)) => permitted,
            Turn::Refused(_) if session.is_closed() => return Asked::Silent,
            Turn::Act(Act::Deliver(_) | Act::Drop) | Turn::Settled | Turn::Refused(_) => {
                return Asked::Forbidden;
            }
        };
        let call = permitted.call();
        let answer = timeout(line.of.limits.probe_max, self.answer_to(&permitted)).await;
        match answer.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(body) => {
                drop(session.step(Some(call), |session, gate, now| {
                    Some(session.server_answer(gate, call, &body, now))
                }));
                if session.is_closed() {
                    Asked::Silent
                } else {
                    Asked::Speaks(era::of_answer(&body, &line.of.limits.frame.document))
                }
            }
            Err(failure) => {
                drop(session.step(Some(call), |session, _, now| {
                    session.upstream_failed(call, &failure, now)
                }));
                Asked::Silent
            }
        }
    }

    /// The answer to a request of our own, and nothing that comes before it.
    async fn answer_to(self: &Arc<Self>, request: &Permitted) -> Result<Bytes, UpstreamFailure> {
        self.ask(request).await?.only_answer().await
    }

    /// Reads the child's output until it ends.
    async fn listen(self: Arc<Self>, mut lines: Lines<ChildStdout>) {
        loop {
            match lines.next().await {
                Ok(Some(lines::Line::Whole(line))) => self.deliver(line).await,
                Ok(Some(lines::Line::TooLong)) => {
                    self.line.process.wish(Wish::Kill("it wrote a line longer than allowed"));
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
        self.end();
    }
}

impl Line for Child {
    type Exchange = Exchange;
    type Message = (Bytes, Result<Frame, Malformed>);

    fn read(&self, line: Bytes) -> Self::Message {
        let frame = Frame::read(line.clone(), Sender::Server, &self.of.limits.frame);
        (line, frame)
    }

    /// Whose one line is, put under the client's labels.
    fn route(&self, table: &mut Table<Exchange>, (line, frame): Self::Message) -> Route {
        let frame = match frame {
            Ok(frame) => frame,
            // No JSON-RPC at all: a log on the wrong stream.
            Err(Malformed::Version | Malformed::NotObject) => return Route::Stray(line),
            Err(_) => return unreadable_line(table, line),
        };
        match frame.message() {
            Message::Result { id } => self.answer(table, frame.document(), id, End::Result),
            Message::Error { id: Some(id), code } => {
                self.answer(table, frame.document(), id, End::Error(*code))
            }
            Message::Error { id: None, .. } => unreadable_line(table, line),
            Message::Request { .. } => Route::Anybody(None, line),
            Message::Notification { method } => {
                let role = Method::named(method).map(|method| method.role);
                self.notice(table, frame.document(), role)
            }
        }
    }

    fn hears_anything(_: &Exchange) -> bool {
        true
    }

    /// A legacy child may ask as soon as it is initialized, before the client has opened the stream
    /// to hear it.
    fn keeps_backlog(&self) -> bool {
        self.kind == Kind::Session
    }

    /// Records a line that is for nobody, and drops it.
    fn stray(&self, line: &Bytes) {
        let (keep, missed) = {
            let mut window = lock(&self.strays_window);
            window.admit(self.of.uptime())
        };
        if missed > 0 {
            tracing::warn!(missed, "lines of a child for nobody were not recorded");
        }
        if keep {
            // Dropped either way; that it could not be recorded is logged.
            drop(
                self.strays
                    .step(None, |session, gate, now| Some(session.server_frame(gate, line, now))),
            );
        }
        if self.strays.is_closed() {
            self.process.wish(Wish::Kill("what it wrote could not be judged"));
        }
    }

    /// In the modern era this is a cancel (mcp transports, "closing the response stream"); in the
    /// legacy era it is not.
    fn abandoned(conversation: &Conversation, number: i64) {
        let child = &conversation.line;
        if child.kind == Kind::Session || !conversation.table().give_up(number) {
            return;
        }
        if child.process.try_write(relabel::cancel_line(number)).is_err() {
            tracing::debug!(number, "no room to tell the child of a cancel");
        }
    }

    async fn failure(&self, ended: bool) -> UpstreamFailure {
        if !ended && self.process.exit().is_none() {
            return UpstreamFailure::EndedEarly;
        }
        match timeout(EXIT_WAIT, self.process.exited()).await {
            Ok(exit) => UpstreamFailure::Unreachable(format!("child process ended: {exit}")),
            Err(_elapsed) => {
                UpstreamFailure::Unreachable("child process closed its output".to_owned())
            }
        }
    }
}

impl Child {
    fn lasting(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Label>> {
        lock(&self.lasting)
    }

    fn answer(&self, table: &mut Table<Exchange>, document: &Document, id: &Id, end: End) -> Route {
        let Id::Number(number) = id else { return Route::Stray(document.raw().clone()) };
        let Some(Exchange { labels, .. }) = table.get(*number) else {
            if table.was_given_up(*number) {
                return Route::Nobody("the answer of an exchange that was given up");
            }
            return Route::Stray(document.raw().clone());
        };
        if labels.lasting
            && let Some(token) = &labels.token
        {
            let mut lasting = self.lasting();
            lasting.insert(*number, token.clone());
            if lasting.len() > LASTING_TOKENS_MAX {
                lasting.pop_first();
            }
        }
        Route::Answer(*number, relabel::answer(document, *number, &labels.id), end)
    }

    fn notice(&self, table: &Table<Exchange>, document: &Document, role: Option<Role>) -> Route {
        if role == Some(Role::Progress) {
            let Some(number) = relabel::progress_number(document) else {
                return Route::Nobody("progress without a token of ours");
            };
            return self.progress(table, document, number);
        }
        if let Some(number) = relabel::subscription_number(document) {
            return tagged(table, document, number, Place::Subscription);
        }
        // In a session a child cancels its own requests; a shared child has none, and can only
        // mean a subscription (revision 2026-07-28, basic/patterns/cancellation).
        if role == Some(Role::Cancel) && self.kind == Kind::Shared {
            let Some(number) = relabel::cancelled_number(document) else {
                return Route::Nobody("a cancel of nothing");
            };
            return tagged(table, document, number, Place::Cancelled);
        }
        Route::Anybody(None, document.raw().clone())
    }

    fn progress(&self, table: &Table<Exchange>, document: &Document, number: i64) -> Route {
        if let Some(token) = self.lasting().get(&number) {
            let message = relabel::notification(document, Place::Progress, token);
            return Route::Anybody(None, message);
        }
        let Some(token) = table.get(number).and_then(|open| open.labels.token.as_ref()) else {
            return Route::Nobody("progress of nothing that was asked");
        };
        Route::Exchange(number, relabel::notification(document, Place::Progress, token))
    }
}

/// A notification that names an exchange by its number.
fn tagged(table: &Table<Exchange>, document: &Document, number: i64, place: Place) -> Route {
    match table.get(number) {
        Some(Exchange { labels, .. }) => {
            Route::Exchange(number, relabel::notification(document, place, &labels.id))
        }
        None => Route::Nobody("notification about nothing that was asked"),
    }
}

/// What is no frame, or answers nobody by name. If exactly one call waits it must be meant for that
/// one, and the gate withholds and records it there; else it is recorded as said to nobody.
fn unreadable_line(table: &Table<Exchange>, line: Bytes) -> Route {
    let message = matches!(line.trim_ascii_start().first(), Some(b'{' | b'['));
    match table.only(false).filter(|_| message) {
        Some(number) => Route::Exchange(number, line),
        None => Route::Stray(line),
    }
}
