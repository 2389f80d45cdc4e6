//! One child process and the exchanges that share it.
//!
//! Requests go out under our own numbers, and each answer goes to the exchange that asked. An
//! answer to no request is recorded and dropped: a smuggled request would cause one (threat C3).
//! This module decides nothing about content: the gate reads every message again on its way to the
//! client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::Bytes;
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::era::{self, PROBE, ProbeOutcome};
use super::lines::{self, Lines, line_for_child};
use super::numbers::Numbers;
use super::process::{ChildLimits, ChildSpec, LineRate, Process, Program, SpawnError, StopLevel};
use super::relabel::{self, Label, LabelField, Labels};
use crate::Shared;
use crate::duplex::{Destination, Duplex, DuplexLimits, DuplexStream, End, ExchangeTable, Line};
use crate::kept::Account;
use crate::session::{Departure, GoneClient, SessionHandle, StepOutcome};
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Arrival, Protected, Session, UpstreamFailure};
use bartizan_gate::wire::document::Document;
use bartizan_gate::wire::frame::{Frame, Id, Malformed, Message, OuterMembers, Sender};
use bartizan_gate::wire::method::{Method, Role};
use bartizan_gate::wire::protocol::Transport;

/// How long to wait for the exit status of a child that closed its output.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// Progress tokens of task-augmented requests kept for one child.
const LASTING_TOKENS_MAX: usize = 256;

/// What all children of one server share.
pub(super) struct ChildSetup {
    pub(super) spec: ChildSpec,
    pub(super) limits: ChildLimits,
    pub(super) shared: Shared,
    pub(super) server: Arc<Protected>,
}

impl fmt::Debug for ChildSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSetup").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl ChildSetup {
    pub(super) fn uptime(&self) -> Duration {
        self.shared.clock.uptime()
    }
}

/// Whom a child serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildScope {
    /// One legacy session.
    Session,
    /// All requests without a session of one principal (modern era).
    Shared,
}

/// One child with its open exchanges.
pub(super) type Conversation = Duplex<Child>;

/// The child's side of the line: its process, and how its messages are routed.
#[derive(Debug)]
pub(crate) struct Child {
    kind: ChildScope,
    process: Process,
    of: Arc<ChildSetup>,
    principal: Arc<Principal>,
    born: Duration,
    /// Progress tokens that stay valid after their exchange, by our number.
    lasting: Mutex<BTreeMap<i64, Label>>,
    /// The session in which unsolicited output of the child is recorded. No request is ever sent in
    /// it.
    unsolicited: SessionHandle,
    unsolicited_rate: Mutex<LineRate>,
    /// What all requests so far demand of messages that name none.
    duties: Mutex<Arc<Duties>>,
    /// What the child gets as ids.
    numbers: Numbers,
}

/// What is kept for one open exchange.
#[derive(Debug)]
pub(crate) struct ChildExchange {
    labels: Labels,
    /// The client's id, to find the exchange when the client cancels.
    key: Option<Id>,
    /// Decides whether the child is told that the client has gone.
    departure: Option<Arc<dyn Departure>>,
}

impl Duplex<Child> {
    /// Starts a child that runs `program`, and a task that reads its output until it ends. Fails if
    /// the child cannot be started.
    pub(super) fn start(
        kind: ChildScope,
        of: &Arc<ChildSetup>,
        program: Program,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Self>, SpawnError> {
        let ChildSetup { spec, limits, shared, server } = &**of;
        let (process, lines) = Process::spawn(spec, program, limits, shared.clock, &shared.tasks)?;
        let unsolicited = Session::new(Arc::clone(principal), Arc::clone(server), Transport::Stdio);
        let child = Child {
            kind,
            process,
            of: Arc::clone(of),
            principal: Arc::clone(principal),
            born: of.uptime(),
            lasting: Mutex::default(),
            unsolicited: SessionHandle::new(shared, unsolicited),
            unsolicited_rate: Mutex::new(LineRate::new(limits.strays_per_second)),
            duties: Mutex::default(),
            numbers: Numbers::new(),
        };
        let bounds = DuplexLimits {
            exchanges_max: limits.exchanges_max,
            exchange_queue_max: limits.exchange_queue_max,
            exchange_wait_max: limits.exchange_wait_max,
            backlog_max: limits.backlog_max,
        };
        let account = Account::new(shared.gate.memory(), &principal.id);
        let lines = lines.charged_to(&account);
        let conversation = Self::new(child, bounds, shared.clock, account);
        shared.tasks.spawn(Arc::clone(&conversation).listen(lines));
        Ok(conversation)
    }

    /// Whether the child has ended or closed its output.
    pub(super) fn ended(&self) -> bool {
        self.table().has_ended() || self.line.process.exit().is_some()
    }

    /// Whether the child answered something or ran for [`ChildLimits::healthy_after`], so that its
    /// end does not count as a crash loop.
    pub(super) fn was_healthy(&self) -> bool {
        let of = &self.line.of;
        self.table().has_answered()
            || of.uptime().saturating_sub(self.line.born) >= of.limits.healthy_after
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.table().is_busy()
    }

    /// Whether nobody has used the child for [`ChildLimits::idle_max`].
    pub(super) fn is_idle(&self) -> bool {
        self.unused().is_some_and(|unused| unused >= self.line.of.limits.idle_max)
    }

    /// Stops the child.
    pub(super) fn stop(&self) {
        self.line.process.raise(StopLevel::Stop);
    }

    /// Sends a request and returns the stream of messages that belong to it. Fails if the child has
    /// ended, or if too many exchanges are open. `departure`: see [`Departure`].
    pub(super) async fn ask(
        self: &Arc<Self>,
        permitted: &Permitted,
        departure: Option<&Arc<dyn Departure>>,
    ) -> Result<DuplexStream, UpstreamFailure> {
        let request = permitted.frame().map(Frame::document);
        let describe = |number| {
            let wire = self.line.numbers.wire(number);
            let (line, labels) =
                request.and_then(|request| relabel::outbound(request, wire)).ok_or_else(|| {
                    UpstreamFailure::Unreadable("a child process takes no batch".to_owned())
                })?;
            let (key, departure) = (permitted.id().cloned(), departure.cloned());
            Ok((ChildExchange { labels, key, departure }, line))
        };
        let listens = permitted.method().is_some_and(|method| method.role == Role::Listen);
        Arc::make_mut(&mut lock(&self.line.duties)).merge(permitted.duties());
        let (stream, line) = self.open(listens, describe).await?;
        self.write(&line).await?;
        Ok(stream)
    }

    /// Sends a notification or an answer of the client. Fails if the child has ended.
    pub(super) async fn tell(&self, permitted: &Permitted) -> Result<(), UpstreamFailure> {
        let cancels = permitted.method().is_some_and(|method| method.role == Role::Cancel);
        let message = match permitted.frame().filter(|_| cancels) {
            Some(frame) => match self.cancelled(frame) {
                Some(renamed) => renamed,
                // The cancelled request is settled or unknown.
                None => return Ok(()),
            },
            None => permitted.minified(),
        };
        self.touch();
        self.write(&message).await
    }

    /// Queues a message for the child. Fails if the child has ended, or if there is no memory for
    /// the message.
    async fn write(&self, message: &[u8]) -> Result<(), UpstreamFailure> {
        let line = self.account().hold(line_for_child(message)).map_err(|_| no_room_to_send())?;
        match self.line.process.write(line).await {
            Ok(()) => Ok(()),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// The client's cancellation with our number instead of its id; `None` if no open exchange has
    /// that id.
    fn cancelled(&self, frame: &Frame) -> Option<Bytes> {
        let id = frame.named_id("requestId")?;
        let table = self.table();
        let (number, _) = table.iter().rev().find(|(_, open)| open.key.as_ref() == Some(&id))?;
        relabel::cancelled(frame.document(), self.line.numbers.wire(number))
    }

    /// Asks the child which era it speaks. The probe passes the gate and is recorded like a request
    /// of a client.
    pub(super) async fn probe_era(self: &Arc<Self>) -> ProbeOutcome {
        let line = &self.line;
        let (principal, server) = (Arc::clone(&line.principal), Arc::clone(&line.of.server));
        let session = Session::new(principal, server, Transport::Stdio);
        let session = Arc::new(SessionHandle::new(&line.of.shared, session));
        let arrival = Arrival { raw: Bytes::from_static(PROBE), ..Arrival::default() };
        let step = session
            .step(None, |session, gate, now| Some(session.client_frame(gate, &arrival, now)));
        let permitted = match step.durable().await {
            StepOutcome::Act(Act::Forward(permitted)) => permitted,
            StepOutcome::Refused(_) if session.is_closed() => return ProbeOutcome::Silent,
            StepOutcome::Act(Act::Deliver(_) | Act::Hold(_) | Act::Drop)
            | StepOutcome::Settled
            | StepOutcome::Refused(_) => {
                return ProbeOutcome::Forbidden;
            }
        };
        let call = permitted.call();
        let departure: Arc<dyn Departure> = Arc::new(GoneClient::of(&session, call));
        let asked = self.answer_to(&permitted, &departure);
        let answer = timeout(line.of.limits.probe_max, asked).await;
        match answer.unwrap_or(Err(UpstreamFailure::TimedOut)) {
            Ok(body) => {
                drop(session.step(Some(call), |session, gate, now| {
                    Some(session.server_answer(gate, call, &body, now))
                }));
                if session.is_closed() {
                    ProbeOutcome::Silent
                } else {
                    ProbeOutcome::Speaks(era::of_answer(&body, &line.of.limits.frame.document))
                }
            }
            Err(failure) => {
                drop(session.step(Some(call), |session, _, now| {
                    session.upstream_failed(call, &failure, now)
                }));
                ProbeOutcome::Silent
            }
        }
    }

    /// The answer to our own request; messages before it are dropped.
    async fn answer_to(
        self: &Arc<Self>,
        request: &Permitted,
        departure: &Arc<dyn Departure>,
    ) -> Result<Bytes, UpstreamFailure> {
        self.ask(request, Some(departure)).await?.only_answer().await
    }

    /// Reads the child's output until it ends.
    async fn listen(self: Arc<Self>, mut lines: Lines<ChildStdout>) {
        loop {
            match lines.next().await {
                Ok(Some(lines::Line::Whole(line))) => self.deliver(line).await,
                Ok(Some(lines::Line::TooLong | lines::Line::Skipped(_))) => {
                    self.line.process.raise(StopLevel::Kill("it wrote a line longer than allowed"));
                    break;
                }
                Ok(None) => break,
                Err(cause) => {
                    tracing::warn!(%cause, "reading a child's output failed");
                    break;
                }
            }
        }
        self.stop();
        self.end();
    }
}

fn no_room_to_send() -> UpstreamFailure {
    let why = "no memory is left to queue messages of this principal (`limits.kept_bytes`)";
    UpstreamFailure::Unreachable(why.to_owned())
}

impl Line for Child {
    type Exchange = ChildExchange;
    type Message = (Bytes, Result<Frame, Malformed>);

    fn read(&self, line: Bytes) -> Self::Message {
        let frame = Frame::read(line.clone(), Sender::Server, &self.of.limits.frame);
        (line, frame)
    }

    /// Decides which exchange one line belongs to, and puts the client's labels back.
    fn route(
        &self,
        table: &mut ExchangeTable<ChildExchange>,
        (line, frame): Self::Message,
    ) -> Destination {
        let frame = match frame {
            Ok(frame) => frame,
            // Not JSON-RPC: probably a log line on the wrong stream.
            Err(Malformed::Version | Malformed::NotObject) => {
                return Destination::Unsolicited(line);
            }
            Err(_) => return self.unreadable_line(table, line),
        };
        match frame.message() {
            Message::Result { id } => self.answer(table, frame.document(), id, End::Result),
            Message::Error { id: Some(id), code } => {
                self.answer(table, frame.document(), id, End::Error(*code))
            }
            Message::Error { id: None, .. } => match table.only_owed() {
                Some(number) => Destination::Exchange(number, line),
                None => Destination::Unsolicited(line),
            },
            Message::Request { .. } => Destination::Anybody(None, line),
            Message::Notification { method } => {
                let role = Method::named(method).map(|method| method.role);
                self.notice(table, frame.document(), role)
            }
        }
    }

    fn accepts_any_message(_: &ChildExchange) -> bool {
        true
    }

    /// A legacy child may send requests as soon as it is initialized, before the client has opened
    /// the stream for them.
    fn keeps_backlog(&self) -> bool {
        self.kind == ChildScope::Session
    }

    /// Records an unsolicited line and drops it.
    fn unsolicited(&self, line: &Bytes) {
        let (keep, missed) = {
            let mut window = lock(&self.unsolicited_rate);
            window.admit(self.of.uptime())
        };
        if missed > 0 {
            tracing::warn!(
                missed,
                "unsolicited lines of a child were over the limit and not recorded"
            );
        }
        if keep {
            // The line is dropped in any case; a failure to record it is logged by `step`.
            drop(self.unsolicited.step_over(line.len(), None, |session, gate, now| {
                Some(session.server_frame(gate, line, now))
            }));
        }
        if self.unsolicited.is_closed() {
            self.process.raise(StopLevel::Kill("what it wrote could not be judged"));
        }
    }

    /// In the modern era a disconnect cancels the request (revision 2026-07-28,
    /// basic/transports/streamable-http, "Cancellation"); in the legacy eras it does not. On stdio a
    /// notification says so, which policy must permit like any other (basic/patterns/cancellation).
    fn reader_dropped(conversation: &Conversation, number: i64) {
        let child = &conversation.line;
        if child.kind == ChildScope::Session {
            return;
        }
        let departure = conversation.table().give_up(number).and_then(|it| it.departure.clone());
        let Some(departure) = departure else { return };
        let Some(permitted) = departure.cancellation() else { return };
        let wire = child.numbers.wire(number);
        let line = permitted.frame().and_then(|it| relabel::cancelled(it.document(), wire));
        let sent = line.is_some_and(|line| child.process.try_write(line_for_child(&line)).is_ok());
        if !sent {
            tracing::debug!(number, "child's input queue is full; cancellation not sent");
        }
        departure.told(permitted.call(), sent);
    }

    fn duties(&self) -> Arc<Duties> {
        Arc::clone(&lock(&self.duties))
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

    fn answer(
        &self,
        table: &mut ExchangeTable<ChildExchange>,
        document: &Document,
        id: &Id,
        end: End,
    ) -> Destination {
        let Some(number) = self.numbers.number_of(id) else {
            return Destination::Unsolicited(document.raw().clone());
        };
        if let Some(ChildExchange { labels, departure, .. }) = table.take_abandoned(number) {
            let answer = relabel::answer(document, self.numbers.wire(number), &labels.id);
            return match departure {
                Some(departure) => Destination::Late(departure, answer),
                None => Destination::Unsolicited(document.raw().clone()),
            };
        }
        let Some(ChildExchange { labels, .. }) = table.get(number) else {
            return Destination::Unsolicited(document.raw().clone());
        };
        if labels.lasting
            && let Some(token) = &labels.token
        {
            let mut lasting = self.lasting();
            lasting.insert(number, token.clone());
            if lasting.len() > LASTING_TOKENS_MAX {
                lasting.pop_first();
            }
        }
        let answer = relabel::answer(document, self.numbers.wire(number), &labels.id);
        Destination::Answer(number, answer, end)
    }

    fn notice(
        &self,
        table: &ExchangeTable<ChildExchange>,
        document: &Document,
        role: Option<Role>,
    ) -> Destination {
        if role == Some(Role::Progress) {
            let Some(number) = self.numbers.of_wire(relabel::progress_number(document)) else {
                return Destination::Nobody("progress without a token of ours");
            };
            return self.progress(table, document, number);
        }
        if let Some(number) = self.numbers.of_wire(relabel::subscription_number(document)) {
            return tagged(table, document, number, LabelField::Subscription);
        }
        // In a legacy session a child cancels its own requests. A shared child has none, so it can
        // only mean a subscription (revision 2026-07-28, basic/patterns/cancellation).
        if role == Some(Role::Cancel) && self.kind == ChildScope::Shared {
            let Some(number) = self.numbers.of_wire(relabel::cancelled_number(document)) else {
                return Destination::Nobody("cancellation that names no request");
            };
            return tagged(table, document, number, LabelField::Cancelled);
        }
        Destination::Anybody(None, document.raw().clone())
    }

    /// Routes a line that is no frame: to the call that it answers, as far as its id can be read, else
    /// to the only call that waits. The gate withholds and records it there; else it is recorded as
    /// unsolicited.
    fn unreadable_line(&self, table: &ExchangeTable<ChildExchange>, line: Bytes) -> Destination {
        let message = matches!(line.trim_ascii_start().first(), Some(b'{' | b'['));
        let named = OuterMembers::of(&line).answers();
        let named = named.and_then(|id| self.numbers.number_of(&id));
        let named = named.filter(|number| table.get(*number).is_some());
        match named.or_else(|| table.only(false)).filter(|_| message) {
            Some(number) => Destination::Exchange(number, line),
            None => Destination::Unsolicited(line),
        }
    }

    fn progress(
        &self,
        table: &ExchangeTable<ChildExchange>,
        document: &Document,
        number: i64,
    ) -> Destination {
        if let Some(token) = self.lasting().get(&number) {
            let message = relabel::notification(document, LabelField::Progress, token);
            return Destination::Anybody(None, message);
        }
        let Some(token) = table.get(number).and_then(|open| open.labels.token.as_ref()) else {
            return Destination::Nobody("progress of an unknown request");
        };
        Destination::Exchange(number, relabel::notification(document, LabelField::Progress, token))
    }
}

/// Routes a notification that names an exchange by our number.
fn tagged(
    table: &ExchangeTable<ChildExchange>,
    document: &Document,
    number: i64,
    place: LabelField,
) -> Destination {
    match table.get(number) {
        Some(ChildExchange { labels, .. }) => {
            Destination::Exchange(number, relabel::notification(document, place, &labels.id))
        }
        None => Destination::Nobody("notification about an unknown request"),
    }
}
