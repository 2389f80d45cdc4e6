//! Takes a session's steps, for every transport.
//!
//! A [`SessionHandle`] holds a session under its lock, with the gate, the journal and the clock
//! that its steps need. [`SessionHandle::step`] locks the session, asks the gate, keeps the record,
//! and only then returns the act. If the record cannot be kept there is no act, and the gate
//! forgets the call. Where the act must wait until the record is on the disk, it is had from
//! [`Taken::durable`], which waits without any lock, so that the steps of other calls go on.
//!
//! The records of a session stand in the journal in the order of its steps (threat M23). Two
//! connections may use one session on two threads: what ends a call on one of them while the other
//! still writes that the call goes on waits until that is written.
//!
//! A step over a large message is taken where it delays no other task ([`super::aside`]), and
//! so is the wait for a session that is in such a step. Where limits are counted in a store that other
//! instances share, any step may wait for that, and so any wait for a session is of that kind.
//!
//! A panic inside a step leaves the session in an unknown state, so the handle closes it (fail
//! closed): every call in flight is recorded as failed and its client gets a refusal, every later
//! step is refused, and [`SessionHandle::closed`] tells the edge to close both connections. Other
//! sessions go on.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LockResult, Mutex, MutexGuard, PoisonError, TryLockError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::aside::{self, Aside, Turn, Weight};
use super::clock::Clock;
use bartizan_gate::duty::limit::{Exceeded, Places};
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{
    Act, AuditSink, Begun, Permitted, Released, Step, Unkept, Unrecorded, Waits,
};
use bartizan_gate::memory::MemoryBudget;
use bartizan_gate::question::hold::HoldId;
use bartizan_gate::session::{DutyScope, Gate, ServerState, Session, UpstreamFailure};
use bartizan_gate::wire::protocol::Protocol;

/// The outcome of one step.
#[must_use]
#[derive(Debug)]
pub(super) enum StepOutcome {
    /// The act; its record is kept.
    Act(Act),
    /// Nothing to do: the call was settled before.
    Settled,
    /// No act, because its record was not kept or the session is closed; with the refusal for the
    /// client, if it waits for an answer.
    Refused(Option<Released>),
}

impl StepOutcome {
    /// The act, for an edge that cannot express the other outcomes in an HTTP status.
    pub(super) fn into_act(self) -> Act {
        match self {
            Self::Act(act) => act,
            Self::Settled | Self::Refused(None) => Act::Drop,
            Self::Refused(Some(refusal)) => Act::Deliver(refusal),
        }
    }

    /// The message for the client, if any.
    fn into_released(self) -> Option<Released> {
        match self.into_act() {
            Act::Deliver(released) => Some(released),
            Act::Forward(_) | Act::Hold(_) | Act::Drop => None,
        }
    }
}

/// A step that was taken, whose records are written. Its act may have to wait until they are on the
/// disk.
///
/// Dropping it before means that whoever waited has gone: a message that was to be sent to the
/// server is not, and its call is settled so.
#[must_use]
#[derive(Debug)]
pub(super) struct Taken<'s> {
    session: &'s SessionHandle,
    state: TakenState,
}

#[derive(Debug)]
enum TakenState {
    Ready(StepOutcome),
    Waits(Option<Box<Waits>>),
}

impl Taken<'_> {
    /// Waits until the records are on the disk, where the act must wait for that.
    pub(super) async fn durable(mut self) -> StepOutcome {
        let session = self.session;
        let TakenState::Waits(waits) = &mut self.state else { return self.at_once() };
        let is_open = |call: &CallId| session.is_open(call);
        match Waits::act(waits, &*session.sink, &is_open).await {
            // Its client has cancelled it meanwhile.
            Ok(Act::Drop) => StepOutcome::Settled,
            Ok(act) => StepOutcome::Act(act),
            Err(cause) => self.refused(cause),
        }
    }

    /// The outcome, for a step whose act is the gate's own word, which waits for nothing. Any other
    /// that would have to wait is refused.
    pub(super) fn at_once(mut self) -> StepOutcome {
        match &mut self.state {
            TakenState::Ready(outcome) => std::mem::replace(outcome, StepOutcome::Settled),
            TakenState::Waits(_) => self.refused(Unkept { cause: "it could not wait".to_owned() }),
        }
    }

    fn refused(&mut self, cause: Unkept) -> StepOutcome {
        let TakenState::Waits(waits) = &mut self.state else { return StepOutcome::Settled };
        let Some(waits) = waits.take() else { return StepOutcome::Settled };
        self.session.not_durable(*waits, cause)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let TakenState::Waits(waits) = &mut self.state else { return };
        if let Some(waits) = waits.take() {
            self.session.abandoned(*waits);
        }
    }
}

/// Decides what a server on stdio is told of a request whose client has disconnected, and records
/// what the server still answers. Over HTTP the closed response stream says it; on stdio only a
/// message can, and the gate permits each message.
pub trait Departure: fmt::Debug + Send + Sync {
    /// The client's `notifications/cancelled`; `None` if it may not be sent.
    fn cancellation(&self) -> Option<Permitted>;

    /// Settles `call`, that notification: whether it was `sent`.
    fn told(&self, call: &CallId, sent: bool);

    /// Records the late answer `message` to the request, which nobody waits for.
    fn answered(&self, message: &Bytes);
}

/// A client that may disconnect before the answer to one of its calls.
#[derive(Debug)]
pub(super) struct GoneClient {
    session: Arc<SessionHandle>,
    call: CallId,
}

impl GoneClient {
    /// The client of `call` in `session`.
    pub(super) fn of(session: &Arc<SessionHandle>, call: &CallId) -> Self {
        Self { session: Arc::clone(session), call: Arc::clone(call) }
    }
}

impl Departure for GoneClient {
    fn cancellation(&self) -> Option<Permitted> {
        let step =
            self.session.step(None, |session, gate, now| session.withdraw(gate, &self.call, now));
        match step.at_once().into_act() {
            Act::Forward(permitted) => Some(permitted),
            // A refusal has nobody to go to.
            Act::Deliver(_) | Act::Hold(_) | Act::Drop => None,
        }
    }

    fn told(&self, call: &CallId, sent: bool) {
        drop(self.session.step(Some(call), |session, _, now| {
            if sent {
                session.upstream_accepted(call, now)
            } else {
                let why = "the child's input queue is full".to_owned();
                session.upstream_failed(call, &UpstreamFailure::Unreachable(why), now)
            }
        }));
    }

    fn answered(&self, message: &Bytes) {
        drop(self.session.step_over(message.len(), None, |session, gate, now| {
            // A call that is still in flight has a reader, or will have one.
            let over = !session.awaits(&self.call);
            over.then(|| session.server_answer(gate, &self.call, message, now))
        }));
    }
}

/// A session with everything that its steps need.
pub(super) struct SessionHandle {
    gate: Arc<Gate>,
    sink: Arc<dyn AuditSink>,
    clock: Clock,
    aside: Arc<Aside>,
    /// Whose session it is, and with which server.
    principal: Box<str>,
    server: Box<str>,
    /// Locked from the gate's step until its records are kept, and before `state`; not across an
    /// `await`.
    order: Mutex<()>,
    /// Locked for the gate's step only: not while a record is kept, and not across an `await`.
    state: Mutex<SessionState>,
    closed: CancellationToken,
    /// Requests of the session that wait for approval.
    holding: AtomicUsize,
    /// Notified after each step while one does: the step may have cancelled it.
    held_changed: Notify,
    /// Steps over large messages, waiting or in progress.
    large: AtomicUsize,
    /// Notified after each of them.
    large_over: Notify,
}

#[expect(clippy::large_enum_variant, reason = "nearly every session is open all its life")]
enum SessionState {
    Open(Session),
    Closed {
        protocol: Protocol,
        /// Refusals for the calls that waited when the session was closed, until each has been
        /// delivered.
        refusals: HashMap<CallId, Released>,
    },
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl SessionHandle {
    /// A handle for `session` that uses the gate and the journal of `shared`.
    pub(super) fn new(shared: &Shared, session: Session) -> Self {
        Self {
            gate: Arc::clone(&shared.gate),
            sink: Arc::clone(&shared.sink),
            clock: shared.clock,
            aside: Arc::clone(&shared.aside),
            principal: session.principal().id.clone(),
            server: session.server_name().into(),
            order: Mutex::new(()),
            state: Mutex::new(SessionState::Open(session)),
            closed: CancellationToken::new(),
            holding: AtomicUsize::new(0),
            held_changed: Notify::new(),
            large: AtomicUsize::new(0),
            large_over: Notify::new(),
        }
    }

    /// The memory that the gate charges.
    pub(super) fn memory(&self) -> &Arc<MemoryBudget> {
        self.gate.memory()
    }

    /// Waits until no step over a large message is going on, and for a turn to take a step over a
    /// message of this size or weight. A step without this wait is right, too; it may hold up a
    /// thread.
    pub(super) async fn turn(&self, weight: impl Into<Weight>) -> Turn {
        while self.large.load(Ordering::Relaxed) > 0 {
            let over = self.large_over.notified();
            if self.large.load(Ordering::Relaxed) > 0 {
                over.await;
            }
        }
        self.aside.turn(weight.into()).await
    }

    /// How the message `raw` of the client is treated.
    pub(super) fn weight(&self, raw: &[u8]) -> Weight {
        self.aside.weight(raw, (&self.principal, &self.server), self.clock.uptime())
    }

    /// Like [`SessionHandle::step`], over a message that has this turn, or is of this size or weight.
    pub(super) fn step_over(
        &self,
        turn: impl Into<Turn>,
        call: Option<&CallId>,
        take: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step> + Send,
    ) -> Taken<'_> {
        let turn = turn.into();
        let weight = turn.weight;
        let take = |session: &mut Session, gate: &Gate, now| {
            // Reading it is a system call, and no step works longer than it takes.
            let before = weight.is_measured().then(|| self.clock.worked());
            let step = take(session, gate, now);
            let took = self.clock.uptime().saturating_sub(now.uptime);
            if let Some(before) = before.filter(|_| took >= aside::SLOW) {
                let worked = self.clock.worked().saturating_sub(before);
                self.aside.took(weight, worked, now.uptime);
            }
            step
        };
        if !weight.is_long() {
            return self.step(call, take);
        }
        self.large.fetch_add(1, Ordering::Relaxed);
        let outcome = aside::run(turn, || self.step(call, take));
        self.large.fetch_sub(1, Ordering::Relaxed);
        self.large_over.notify_waiters();
        outcome
    }

    /// Takes one step and keeps its record. `call` is the call in flight that the step is about, if
    /// any: if the session is closed, the refusal of this call is returned.
    pub(super) fn step(
        &self,
        call: Option<&CallId>,
        take: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
    ) -> Taken<'_> {
        Taken { session: self, state: self.taken(call, take) }
    }

    fn taken(
        &self,
        call: Option<&CallId>,
        take: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
    ) -> TakenState {
        // Before the clock is read, so that later records have later times.
        let _order = self.waited(&self.order).unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let taken = {
            let mut state = self.lock();
            let SessionState::Open(session) = &mut *state else {
                return TakenState::Ready(state.refused(call));
            };
            match caught(|| take(session, &self.gate, now)) {
                Some(taken) => taken,
                None => return TakenState::Ready(self.close(&mut state, call)),
            }
        };
        self.tell_held();
        let Some(step) = taken else { return TakenState::Ready(StepOutcome::Settled) };
        aside::end_turn();
        match step.begin(&*self.sink) {
            Ok(Begun::Act(act)) => TakenState::Ready(StepOutcome::Act(act)),
            Ok(Begun::Waits(waits)) => TakenState::Waits(Some(waits)),
            Err(unrecorded) => TakenState::Ready(self.unrecorded(call, unrecorded)),
        }
    }

    /// The outcome of a step that does not happen.
    fn unrecorded(&self, call: Option<&CallId>, unrecorded: Unrecorded) -> StepOutcome {
        let Unrecorded { cause, call: named, refusal, panicked } = unrecorded;
        let cause = cause.cause;
        tracing::error!(call = named.as_deref(), cause, "audit record not kept; refusing");
        if let Some(named) = &named {
            self.with(|session| session.forget(named));
        }
        if panicked {
            return self.close(&mut self.lock(), call.or(named.as_ref()));
        }
        StepOutcome::Refused(refusal)
    }

    /// The outcome of a step whose records did not get to the disk, because of `cause`.
    fn not_durable(&self, waits: Waits, cause: Unkept) -> StepOutcome {
        let _order = self.waited(&self.order).unwrap_or_else(PoisonError::into_inner);
        let is_open = |call: &CallId| self.is_open(call);
        let refused = waits.refused(cause, self.clock.now(), &*self.sink, &is_open);
        let outcome = refused.map_or(StepOutcome::Settled, |it| self.unrecorded(None, it));
        self.tell_held();
        outcome
    }

    /// Settles the call of a step whose act nobody waits for any more: it does not happen.
    fn abandoned(&self, waits: Waits) {
        let _order = self.waited(&self.order).unwrap_or_else(PoisonError::into_inner);
        let cause = Unkept { cause: "its client has disconnected".to_owned() };
        let is_open = |call: &CallId| self.is_open(call);
        let refused = waits.refused(cause, self.clock.now(), &*self.sink, &is_open);
        if let Some(call) = refused.and_then(|refused| refused.call) {
            self.with(|session| session.forget(&call));
        }
        self.tell_held();
    }

    /// Tells requests that wait for approval that a step was taken: it may have cancelled one.
    fn tell_held(&self) {
        if self.holding.load(Ordering::Relaxed) > 0 {
            self.held_changed.notify_waiters();
        }
    }

    /// Settles `call`: its client has disconnected.
    pub(super) fn client_gone(&self, call: &CallId) {
        drop(self.step(Some(call), |session, _, now| session.client_gone(call, now)));
    }

    /// Settles every call in flight and returns the messages for the client. With `failure`, the
    /// calls failed at the server; without it, the client has disconnected. All are recorded before
    /// the first message is returned.
    pub(super) fn settle_all(&self, failure: Option<&UpstreamFailure>) -> Vec<Released> {
        let calls = self.in_flight();
        let settle = |call: &CallId| {
            let outcome = self.step(Some(call), |session, _, now| match failure {
                Some(failure) => session.upstream_failed(call, failure, now),
                None => session.client_gone(call, now),
            });
            outcome.at_once().into_released()
        };
        let mut told: Vec<Released> = calls.iter().filter_map(settle).collect();
        if let SessionState::Closed { refusals, .. } = &mut *self.lock() {
            told.extend(refusals.drain().map(|(_, refusal)| refusal));
        }
        told
    }

    /// Says what the server holds for the session.
    pub(super) fn set_server_state(&self, state: ServerState) {
        self.with(|session| session.set_server_state(state));
    }

    /// Says whose calls a message may concern that names none.
    pub(super) fn set_duty_scope(&self, scope: DutyScope) {
        self.with(|session| session.set_duty_scope(scope));
    }

    /// Notified after each step while a request waits for approval.
    pub(super) fn held_changed(&self) -> Notified<'_> {
        self.held_changed.notified()
    }

    /// Whether the request of `call` still waits for approval.
    pub(super) fn is_held(&self, call: &CallId) -> bool {
        self.with(|session| session.is_held(call)).unwrap_or(false)
    }

    /// Takes the places that the held request of `call` needs to be in flight: see
    /// [`Session::reserve`].
    pub(super) fn reserve(&self, call: &CallId) -> Option<Result<Option<Places>, Exceeded>> {
        let now = self.clock.now();
        self.with(|session| session.reserve(&self.gate, call, now)).flatten()
    }

    /// What the client of `call` is told while it waits: see [`Session::hold_progress`].
    pub(super) fn hold_progress(
        &self,
        call: &CallId,
        hold: &HoldId,
        count: NonZeroU32,
    ) -> Option<Released> {
        self.with(|session| session.hold_progress(call, hold, count)).flatten()
    }

    /// Whether the client of a held request can be shown a page: see [`Session::opens_pages`].
    pub(super) fn opens_pages(&self, call: &CallId) -> bool {
        self.with(|session| session.opens_pages(call)).unwrap_or(false)
    }

    /// Whether the client of a held request takes a task: see [`Session::takes_task`].
    pub(super) fn takes_task(&self, call: &CallId) -> bool {
        self.with(|session| session.takes_task(call)).unwrap_or(false)
    }

    /// The hold whose page the client would not open: see [`Session::declined`].
    pub(super) fn hold_declined(&self, call: &CallId) -> Option<HoldId> {
        self.with(|session| session.declined(call).cloned()).flatten()
    }

    /// Whether the outcome of `call` is recorded: no step is going on that has not kept its records.
    fn is_over(&self, call: &CallId) -> bool {
        let _order = self.waited(&self.order).unwrap_or_else(PoisonError::into_inner);
        !self.awaits(call)
    }

    /// Waits until the outcome of `call` is recorded, or the session is closed. For calls that were
    /// held.
    pub(super) async fn over(&self, call: &CallId) {
        let _counted = Counted::of(self);
        loop {
            let mut changed = std::pin::pin!(self.held_changed.notified());
            changed.as_mut().enable();
            if self.is_over(call) {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = self.closed.cancelled() => return,
            }
        }
    }

    /// Whether `call` was judged by what is known of the server's session as it is now.
    pub(super) fn is_current(&self, call: &CallId) -> bool {
        self.with(|session| session.is_current(call)).unwrap_or(true)
    }

    /// The protocol that the session speaks, as far as it is known.
    pub(super) fn protocol(&self) -> Protocol {
        match &*self.lock() {
            SessionState::Open(session) => session.protocol(),
            SessionState::Closed { protocol, .. } => *protocol,
        }
    }

    /// Whether the client still waits for the answer to `call`.
    pub(super) fn awaits(&self, call: &CallId) -> bool {
        match &*self.lock() {
            SessionState::Open(session) => session.awaits(call),
            SessionState::Closed { refusals, .. } => refusals.contains_key(call),
        }
    }

    /// Whether the record of `call`'s intent has no outcome yet.
    fn is_open(&self, call: &CallId) -> bool {
        self.with(|session| session.is_open(call)).unwrap_or(false)
    }

    /// Calls not settled yet, oldest first.
    pub(super) fn in_flight(&self) -> Vec<CallId> {
        self.with(|session| session.in_flight()).unwrap_or_default()
    }

    /// Calls that wait for an answer, oldest first.
    pub(super) fn waiting(&self) -> Vec<CallId> {
        let waiting = |session: &mut Session| {
            let mut calls = session.in_flight();
            calls.retain(|call| session.awaits(call));
            calls
        };
        self.with(waiting).unwrap_or_default()
    }

    /// Whether a panic closed the session.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Cancelled once a panic has closed the session.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Locks `mutex` of this session. While a step over a large message goes on, or one that may wait
    /// for a store that is slow, the wait delays no other task.
    fn waited<'a, T>(&self, mutex: &'a Mutex<T>) -> LockResult<MutexGuard<'a, T>> {
        match mutex.try_lock() {
            Ok(locked) => Ok(locked),
            Err(TryLockError::WouldBlock)
                if self.gate.waits_for_a_store() || self.large.load(Ordering::Relaxed) > 0 =>
            {
                aside::long(|| mutex.lock())
            }
            Err(TryLockError::WouldBlock) => wait_for(mutex),
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.waited(&self.state).unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            drop(self.close(&mut state, None));
            self.state.clear_poison();
            state
        })
    }

    /// Runs `what` on an open session, for work that needs no record; `None` if the session is
    /// closed.
    fn with<T>(&self, what: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut state = self.lock();
        let SessionState::Open(session) = &mut *state else { return None };
        let done = caught(|| what(session));
        if done.is_none() {
            drop(self.close(&mut state, None));
        }
        done
    }

    /// Closes the session after a panic in a step about `call`. The panic's message is not logged:
    /// it may contain what a peer sent.
    fn close(&self, state: &mut SessionState, call: Option<&CallId>) -> StepOutcome {
        if let SessionState::Open(session) = state {
            let named = call.map(|call| &**call);
            tracing::error!(call = named, "a step of the gate panicked; its session is closed");
            let record = || session.interrupted(&self.gate, self.clock.now()).record(&*self.sink);
            drop(caught(record));
            let calls = caught(|| session.in_flight()).unwrap_or_default();
            let refusal = |call: CallId| {
                let refusal = caught(|| self.given_up(session, &call)).flatten()?;
                Some((call, refusal))
            };
            let refusals = calls.into_iter().filter_map(refusal).collect();
            *state = SessionState::Closed { protocol: session.protocol(), refusals };
            self.closed.cancel();
        }
        state.refused(call)
    }

    /// Records that `call` failed because its session was closed, and returns its refusal.
    fn given_up(&self, session: &mut Session, call: &CallId) -> Option<Released> {
        let failure = UpstreamFailure::Unreadable("an internal error closed the session".into());
        let step = session.upstream_failed(call, &failure, self.clock.now())?;
        match step.record(&*self.sink) {
            Ok(Act::Deliver(refusal)) => Some(refusal),
            Ok(Act::Forward(_) | Act::Hold(_) | Act::Drop) => None,
            Err(unrecorded) => unrecorded.refusal,
        }
    }
}

/// Turns that others get before a wait for a session is taken for a long one.
const YIELDS: usize = 64;

/// Locks `mutex`. A step is short, so the wait is, too; but the disk may hang while its record is
/// written, and then the other tasks of this thread go on.
fn wait_for<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
    for _ in 0..YIELDS {
        std::thread::yield_now();
        match mutex.try_lock() {
            Ok(locked) => return Ok(locked),
            Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    aside::wait(|| mutex.lock())
}

/// Counts a request of a session that is or was held, so that its steps tell of changes.
pub(super) struct Counted<'a>(&'a SessionHandle);

impl<'a> Counted<'a> {
    pub(super) fn of(session: &'a SessionHandle) -> Self {
        session.holding.fetch_add(1, Ordering::Relaxed);
        Self(session)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SessionState {
    /// The refusal of `call` in a closed session.
    fn refused(&mut self, call: Option<&CallId>) -> StepOutcome {
        match self {
            Self::Open(_) => StepOutcome::Refused(None),
            Self::Closed { refusals, .. } => {
                StepOutcome::Refused(call.and_then(|call| refusals.remove(call)))
            }
        }
    }
}

/// The result of `run`; `None` if it panicked. After a panic the session is only closed, so
/// half-updated state is not used.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};

    use super::*;
    use bartizan_gate::evidence::record::AuditRecord;
    use bartizan_gate::evidence::step::Unkept;
    use bartizan_gate::question::access::{Principal, Server};
    use bartizan_gate::session::{Protected, RefusalForm};
    use bartizan_gate::wire::protocol::Transport;

    /// Keeps records, or panics.
    #[derive(Default)]
    struct Sink {
        kept: Mutex<Vec<AuditRecord>>,
        panicking: AtomicBool,
    }

    impl AuditSink for Sink {
        fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
            assert!(!self.panicking.load(Ordering::Relaxed), "secret");
            self.kept.lock().unwrap().push(record.clone());
            Ok(())
        }
    }

    fn handle() -> (SessionHandle, Arc<Sink>) {
        let sink = Arc::new(Sink::default());
        let shared = Shared { sink: Arc::<Sink>::clone(&sink), ..Shared::for_tests() };
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        let session = Session::new(Arc::new(Principal::default()), server, Transport::Http);
        (SessionHandle::new(&shared, session), sink)
    }

    #[test]
    fn a_step_that_waits_makes_its_like_no_slower_and_one_that_works_does() {
        let (handle, _) = handle();
        let judged_aside = |raw: &[u8], step: &(dyn Fn() + Sync)| {
            let weight = handle.weight(raw);
            drop(handle.step_over(weight, None, |_, _, _| {
                step();
                None
            }));
            handle.weight(raw).is_long()
        };
        let waits = || std::thread::sleep(3 * aside::SLOW);
        assert!(!judged_aside(b"{\"name\":\"waits\"}", &waits));
        let works = || {
            let until = handle.clock.worked() + 3 * aside::SLOW;
            while handle.clock.worked() < until {}
        };
        assert!(judged_aside(b"{\"name\":\"works\"}", &works));
    }

    /// A call in flight.
    fn open(handle: &SessionHandle) -> CallId {
        let outcome = handle.step(None, |session, gate, now| Some(session.open_stream(gate, now)));
        let outcome = outcome.at_once();
        let StepOutcome::Act(Act::Forward(permitted)) = outcome else { panic!("{outcome:?}") };
        Arc::clone(permitted.call())
    }

    /// Each event logged, as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Visit for Log {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_panic_in_a_step_closes_the_session_and_refuses_whoever_waits() {
        let log = Log::default();
        // While a process has one dispatcher, tracing asks that of the thread which meets a call
        // site first; in a test run that is often another thread, which has none.
        let _second = tracing::Dispatch::new(Log::default());
        let (handle, sink) = handle();
        let (one, two) = (open(&handle), open(&handle));
        let outcome = tracing::subscriber::with_default(log.clone(), || {
            handle.step(Some(&one), |_, _, _| panic!("secret")).at_once()
        });
        assert!(matches!(outcome, StepOutcome::Refused(Some(_))), "{outcome:?}");
        assert!(handle.is_closed() && handle.in_flight().is_empty());
        let told = [format!("call={one:?}"), "message=".to_owned()];
        let log = log.0.lock().unwrap().clone();
        assert_eq!(log.len(), 2, "one event: {log:?}");
        assert!(log.iter().all(|text| told.iter().any(|told| text.starts_with(told))), "{log:?}");

        let step = handle.step(None, |session, gate, now| Some(session.open_stream(gate, now)));
        let step = step.at_once();
        assert!(matches!(step, StepOutcome::Refused(None)), "{step:?}");
        assert!(!handle.awaits(&one) && handle.awaits(&two), "the other was not told yet");
        assert_eq!(handle.settle_all(None).len(), 1);
        assert!(!handle.awaits(&two));
        assert_eq!(handle.settle_all(None).len(), 0, "told once");
        let outcomes: Vec<_> =
            sink.kept.lock().unwrap().iter().map(|record| record.outcome.clone()).collect();
        assert_eq!(outcomes.iter().flatten().count(), 2, "both calls are recorded as failed");
    }

    #[test]
    fn a_panic_while_a_record_is_kept_is_no_act_and_no_call() {
        let (handle, sink) = handle();
        sink.panicking.store(true, Ordering::Relaxed);
        let step = handle.step(None, |session, gate, now| Some(session.open_stream(gate, now)));
        let step = step.at_once();
        assert!(matches!(step, StepOutcome::Refused(None)), "{step:?}");
        sink.panicking.store(false, Ordering::Relaxed);
        assert!(handle.is_closed());
        assert_eq!(handle.settle_all(None).len(), 0);
        assert_eq!(sink.kept.lock().unwrap().len(), 0, "what never happened has no outcome");
    }

    #[test]
    fn a_poisoned_lock_closes_the_session() {
        let (handle, _) = handle();
        let one = open(&handle);
        let poisoned = catch_unwind(AssertUnwindSafe(|| {
            let _state = handle.state.lock().unwrap();
            panic!("while it is locked");
        }));
        assert!(poisoned.is_err() && handle.state.is_poisoned());
        let outcome =
            handle.step(Some(&one), |_, _, _| panic!("no step in a closed session")).at_once();
        assert!(matches!(outcome, StepOutcome::Refused(Some(_))), "{outcome:?}");
        assert!(handle.is_closed());
    }
}
