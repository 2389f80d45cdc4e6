//! The service: calls ask, people answer, and each change is in the store before anybody acts on it.
//!
//! Two locks, in this order. `writer` is held while a change is planned, stored and taken, so
//! that changes come one after another; a store may flush to a disk meanwhile. `inner` is held
//! for moments only, so whoever only looks never waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bartizan_gate::duty::hold::{Hold, HoldId};
use bartizan_gate::evidence::record::Now;
use bartizan_sync::lock;
use tokio::sync::watch;

use crate::clock::wall_ms;
use crate::ledger::{AnswerError, Approver, Given, Ledger, Plan};
use crate::limits::{ApprovalLimits, MARK_EVERY, NoHold, millis};
use crate::record::{HoldRecord, HoldState, Record};
use crate::store::embedded::OpenError;
use crate::store::{Batch, CommitError, Delta, Lasting, Mark, Store, StoreError, Version, Write};
use crate::view::HoldView;

mod tasks;
mod waiter;

pub use tasks::{NewTask, TaskView};
pub use waiter::Waiter;

/// How often a change is planned anew because another replica was faster, at most.
const CONFLICTS_MAX: usize = 16;
/// Conflicts one after another after which the whole store is read again.
const CONFLICTS_BEFORE_DOUBT: usize = 2;
/// How often it is written down what the time has brought about.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked what other replicas have written.
const TICK_EVERY_SHARED: Duration = Duration::from_millis(250);
/// Bits of an id, in bytes.
const ID_BYTES: usize = 16;

/// Both clocks, now.
pub type Clock = Box<dyn Fn() -> Now + Send + Sync>;

/// Is told of each hold that got into a state other than pending, once for each state, by the process
/// that has stored it. It may wait for a disk; it must not ask [`Approvals`] for a change.
pub type Witness = Box<dyn Fn(&HoldView) + Send + Sync>;

/// The holds of this program.
pub struct Approvals {
    store: Box<dyn Store>,
    clock: Clock,
    writer: Mutex<Writer>,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    losses: watch::Sender<u64>,
    witness: OnceLock<Witness>,
}

/// What only the one who changes something needs.
#[derive(Debug)]
struct Writer {
    /// The last batch of the store that the ledger has.
    cursor: Version,
    /// Whether a batch may have been stored without the ledger knowing.
    in_doubt: bool,
    /// The clock as the store has it at least, milliseconds.
    mark_ms: u64,
    /// Whether all that is open must end, because a record was put back.
    gone_back: bool,
    /// Whether a batch was stored that a killed program loses.
    loose: bool,
}

struct Inner {
    ledger: Ledger,
    waiting: BTreeMap<Box<str>, Waiting>,
    /// Holds that got into another state when the store was opened, until there is a witness.
    unwitnessed: Vec<HoldView>,
    /// Why the store failed at the last attempt.
    fault: Option<StoreError>,
}

/// The calls that wait for one hold.
struct Waiting {
    calls: usize,
    /// Tells them that something has changed.
    bell: watch::Sender<()>,
}

/// Why a change was not made.
enum Failed<E> {
    /// It is not right.
    Wrong(E),
    /// The store did not take it.
    Store,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").finish_non_exhaustive()
    }
}

impl Approvals {
    /// Opens the holds in `store`.
    ///
    /// In a store that only this process uses, a spent hold whose call has no known end becomes
    /// unknown, and if the wall clock is behind the store's, every open hold is over.
    ///
    /// If a store that is shared is away, it begins without holds and gets them as soon as the store
    /// is back: until then no hold is made, and nothing is granted.
    ///
    /// # Errors
    ///
    /// The store belongs to this process alone, and cannot be read or written.
    pub fn open(
        store: Box<dyn Store>,
        limits: ApprovalLimits,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let failed = |error: StoreError| OpenError::Fault(error.cause);
        let now = clock();
        let exclusive = store.is_exclusive();
        let mut inherited = Vec::new();
        let (mut delta, fault) = match store.changes_since(0) {
            Ok(delta) => (delta, None),
            Err(error) if exclusive => return Err(failed(error)),
            Err(error) => {
                tracing::error!(cause = %error, "the store of holds is away: no call is held, and nothing is granted");
                (Delta::default(), Some(error))
            }
        };
        if exclusive {
            let wall_ms = wall_ms(now);
            let set_back = wall_ms < delta.mark_ms;
            let ledger = Ledger::new(limits.clone(), delta, now);
            let plan = ledger.inherit(set_back, wall_ms);
            inherited = moved(&ledger, &plan.writes);
            if !plan.outcome.is_empty() || set_back {
                tracing::warn!(
                    unknown = plan.outcome.len(),
                    clock_set_back = set_back,
                    "holds were left behind: for the unknown ones nobody knows whether the server got the call"
                );
            }
            let mark = if set_back { Mark::Set(wall_ms) } else { Mark::Raise(wall_ms) };
            let batch = Batch { writes: plan.writes, mark, lasting: Lasting::Now, anew: false };
            store.commit(&batch).map_err(|error| match error {
                CommitError::Fault(error) => failed(error),
                CommitError::Conflict => failed(StoreError::new("another process writes to it")),
            })?;
            delta = store.changes_since(0).map_err(failed)?;
        }
        let writer = Writer {
            cursor: delta.cursor,
            in_doubt: fault.is_some(),
            mark_ms: delta.mark_ms,
            gone_back: false,
            loose: false,
        };
        let ledger = Ledger::new(limits, delta, now);
        let mut inner = Inner { ledger, waiting: BTreeMap::new(), unwitnessed: Vec::new(), fault };
        inner.unwitnessed = inner.summaries(&inherited, now);
        Ok(Self {
            store,
            clock,
            writer: Mutex::new(writer),
            inner: Mutex::new(inner),
            changes: watch::Sender::new(0),
            losses: watch::Sender::new(0),
            witness: OnceLock::new(),
        })
    }

    /// Tells `witness` of each hold that gets into another state from now on, and of those that did
    /// when the store was opened. Only the first witness counts.
    ///
    /// It is told after the store has the state, so a process that is killed between the two never
    /// tells it.
    pub fn set_witness(&self, witness: Witness) {
        let writer = lock(&self.writer);
        let earlier = std::mem::take(&mut lock(&self.inner).unwitnessed);
        let witness = self.witness.get_or_init(|| witness);
        earlier.iter().for_each(witness);
        drop(writer);
    }

    /// Holds a call: it attaches to the open hold of the same key, uses a wider grant, or gets a new
    /// hold. That is in the store before this returns. It may wait for the disk.
    ///
    /// # Errors
    ///
    /// The call gets no hold and must not pass.
    pub fn ask(self: &Arc<Self>, hold: &Hold, now: Now) -> Result<Waiter, NoHold> {
        let fresh = fresh_id().ok_or(NoHold::Unavailable)?;
        let mut writer = lock(&self.writer);
        let asked = self.change(&mut writer, now, |ledger, at_ms| ledger.ask(hold, &fresh, at_ms));
        let got = asked.map_err(|failed| match failed {
            Failed::Wrong(no_hold) => no_hold,
            Failed::Store => NoHold::Unavailable,
        })?;
        let mut inner = lock(&self.inner);
        let waiting = inner
            .waiting
            .entry(got.id.clone())
            .or_insert_with(|| Waiting { calls: 0, bell: watch::Sender::new(()) });
        waiting.calls = waiting.calls.saturating_add(1);
        let bell = waiting.bell.subscribe();
        let left = got.expires_ms.saturating_sub(inner.ledger.time(now));
        let expires_unix_ms = wall_ms(now).saturating_add(left);
        drop(inner);
        drop(writer);
        Ok(Waiter::new(Arc::clone(self), HoldId::new(&got.id), hold.key, expires_unix_ms, bell))
    }

    /// The holds that are in one of `states`, those that were asked first first.
    pub fn list(&self, states: &[HoldState]) -> Vec<HoldView> {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let holds = inner.in_states(states, now);
        holds.into_iter().map(|hold| inner.view(hold, now)).collect()
    }

    /// The same without the parameters of the calls, and `max` at most: of those that are pending the
    /// ones that were asked first, else the ones that were asked last. With `before`, the id of a hold,
    /// only those that were asked before it; none if it is not known any more. Holds that got into their
    /// state before `since_ms` (milliseconds since 1970) are no part of it. Also how many more there are.
    pub fn summaries(
        &self,
        states: &[HoldState],
        since_ms: u64,
        max: usize,
        before: Option<&str>,
    ) -> (Vec<HoldView>, usize) {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let mut holds = inner.in_states(states, now);
        holds.retain(|hold| hold.changed_ms >= since_ms);
        if let Some(before) = before {
            let end = inner.ledger.hold(before).map(asked_order);
            holds.retain(|hold| end.is_some_and(|end| asked_order(hold) < end));
        }
        let more = holds.len().saturating_sub(max);
        if *states == [HoldState::Pending] {
            holds.truncate(max);
        } else {
            holds.drain(..more);
        }
        (holds.into_iter().map(|hold| inner.summary(hold, now)).collect(), more)
    }

    /// How many holds are in each state.
    pub fn counts(&self) -> [(HoldState, usize); HoldState::ALL.len()] {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let ledger = &inner.ledger;
        let at_ms = ledger.time(now);
        let mut counts = HoldState::ALL.map(|state| (state, 0_usize));
        for hold in ledger.holds() {
            let state = ledger.state(hold, at_ms);
            if let Some((_, count)) = counts.iter_mut().find(|(other, _)| *other == state) {
                *count = count.saturating_add(1);
            }
        }
        counts
    }

    /// The ids of the holds in `state`. It costs little: no hold is copied.
    pub fn ids(&self, state: HoldState) -> BTreeSet<Box<str>> {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        let ledger = &inner.ledger;
        let found = ledger.holds().filter(|hold| ledger.state(hold, at_ms) == state);
        found.map(|hold| hold.asked.id.clone()).collect()
    }

    /// How many holds were granted under another policy than `revision`, and not used. No call can use
    /// them while `revision` decides: the same call has another key.
    pub fn worthless_grants(&self, revision: &str) -> usize {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        let worthless = |hold: &&HoldRecord| {
            inner.ledger.state(hold, at_ms) == HoldState::Granted
                && *hold.asked.subject.revision != *revision
        };
        inner.ledger.open_holds().filter(worthless).count()
    }

    /// The hold `id`.
    pub fn get(&self, id: &str) -> Option<HoldView> {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        inner.ledger.hold(id).map(|hold| inner.view(hold, now))
    }

    /// The approver `by` says yes to the hold `id`, of which he saw what has the digest `digest`
    /// ([`HoldView::digest`]), and chooses the wider grant `scope` if any. It may wait for the disk.
    ///
    /// # Errors
    ///
    /// The answer does nothing.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that was said")]
    pub fn grant(
        &self,
        id: &str,
        digest: &str,
        by: &Approver,
        reason: &str,
        scope: Option<&str>,
        now: Now,
    ) -> Result<HoldView, AnswerError> {
        let given = Given { id, by, reason };
        let mut writer = lock(&self.writer);
        let view = self.answer(&mut writer, id, now, |ledger, at_ms| {
            ledger.grant(given, digest, scope, at_ms)
        })?;
        if view.scope.is_some() {
            self.use_wider_grants(&mut writer, now);
        }
        Ok(view)
    }

    /// The approver `by` says no to the hold `id`, which ends it. It may wait for the disk.
    ///
    /// # Errors
    ///
    /// The answer does nothing.
    pub fn refuse(
        &self,
        id: &str,
        by: &Approver,
        reason: &str,
        now: Now,
    ) -> Result<HoldView, AnswerError> {
        let given = Given { id, by, reason };
        let mut writer = lock(&self.writer);
        self.answer(&mut writer, id, now, |ledger, at_ms| ledger.refuse(given, at_ms))
    }

    /// Whether [`Self::grant`] with the same values would do something now. It changes nothing, and
    /// does not wait for the disk: somebody else may be faster.
    ///
    /// # Errors
    ///
    /// The answer would do nothing.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that was said")]
    pub fn may_grant(
        &self,
        id: &str,
        digest: &str,
        by: &Approver,
        reason: &str,
        scope: Option<&str>,
        now: Now,
    ) -> Result<(), AnswerError> {
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        inner.ledger.grant(Given { id, by, reason }, digest, scope, at_ms).map(drop)
    }

    /// The same for [`Self::refuse`].
    ///
    /// # Errors
    ///
    /// The answer would do nothing.
    pub fn may_refuse(
        &self,
        id: &str,
        by: &Approver,
        reason: &str,
        now: Now,
    ) -> Result<(), AnswerError> {
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        inner.ledger.refuse(Given { id, by, reason }, at_ms).map(drop)
    }

    /// Says that the end of the call that was sent under the hold `id` is known: its outcome is
    /// recorded. A hold of which nobody says so becomes [`HoldState::Unknown`] when the program is
    /// started again, or after [`crate::limits::SETTLE_WITHIN`]. It does not flush to the disk, but
    /// may wait for somebody who does; the next tick does.
    pub fn settle(&self, id: &HoldId, now: Now) {
        let id = id.to_string();
        let mut writer = lock(&self.writer);
        // If it fails, the hold becomes unknown: that is what unknown means.
        drop(self.change(&mut writer, now, |ledger, _| Ok::<_, ()>(ledger.settle(&id))));
    }

    /// A number that grows with each change of a hold.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How often all that was open has ended, because the store had lost what was written, or somebody
    /// had put back what was there before.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Writes down what the time has brought about, what was not flushed to the disk yet, and how far
    /// the clock has got; of a store that
    /// is shared, takes what other replicas have written. Somebody should call it about every
    /// second. It may wait for the disk.
    pub fn tick(&self, now: Now) {
        let mut writer = lock(&self.writer);
        let Ok(()) = self.change(&mut writer, now, |_, _| Ok::<_, ()>(Plan::nothing(()))) else {
            return;
        };
        let (at_ms, open) = {
            let inner = lock(&self.inner);
            (inner.ledger.time(now), inner.ledger.has_open())
        };
        let late = open && writer.mark_ms.saturating_add(millis(MARK_EVERY)) <= at_ms;
        if late || writer.loose {
            drop(self.commit::<_, ()>(&mut writer, &Plan::nothing(()), at_ms));
        }
    }

    /// Calls [`Self::tick`] every second, and four times each second if the store is shared, on a
    /// thread that may wait; for a task of the program. It never ends.
    pub async fn tend(self: Arc<Self>) {
        let every = if self.store.is_exclusive() { TICK_EVERY } else { TICK_EVERY_SHARED };
        loop {
            tokio::time::sleep(every).await;
            self.tick_aside().await;
        }
    }

    /// Why the store failed at the last attempt, if it did. Nothing is granted meanwhile.
    pub fn fault(&self) -> Option<StoreError> {
        lock(&self.inner).fault.clone()
    }

    /// A tick on a thread that may wait.
    async fn tick_aside(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let ticked = tokio::task::spawn_blocking(move || this.tick((this.clock)())).await;
        if ticked.is_err() {
            tracing::error!("the holds' clock did not get on: a defect of this program");
        }
    }

    /// The state of the hold `id` now, and how long it lasts at most.
    fn standing(&self, id: &str) -> (HoldState, u64) {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        match inner.ledger.hold(id) {
            Some(hold) => {
                (inner.ledger.state(hold, at_ms), hold.asked.expires_ms.saturating_sub(at_ms))
            }
            None => (HoldState::Unknown, 0),
        }
    }

    /// Whether the store has the state that the hold `id` is in now.
    fn is_written(&self, id: &str, state: HoldState) -> bool {
        lock(&self.inner).ledger.hold(id).is_none_or(|hold| hold.state == state)
    }

    /// Spends the hold `id`; what was granted.
    fn spend(&self, id: &str, now: Now) -> Result<HoldRecord, HoldState> {
        let mut writer = lock(&self.writer);
        let spent = self.change(&mut writer, now, |ledger, at_ms| ledger.spend(id, at_ms));
        spent.map_err(|failed| match failed {
            Failed::Wrong(state) => state,
            // Perhaps it is spent in the store by now.
            Failed::Store => HoldState::Unknown,
        })
    }

    /// One call less waits for the hold `id`, because it was cancelled.
    fn cancel(&self, id: &str, now: Now) {
        let mut writer = lock(&self.writer);
        let mut inner = lock(&self.inner);
        if !inner.leave(id) || inner.ledger.tasks_waiting(id, None) > 0 {
            return;
        }
        drop(inner);
        let done =
            self.change(&mut writer, now, |ledger, at_ms| Ok::<_, ()>(ledger.cancel(id, at_ms)));
        if done.is_err() {
            lock(&self.inner).ledger.remember_cancelled(id);
            self.tell(None);
        }
    }

    /// One call less waits for the hold `id`, which stays.
    fn detach(&self, id: &str) {
        lock(&self.inner).leave(id);
    }

    fn answer(
        &self,
        writer: &mut Writer,
        id: &str,
        now: Now,
        plan: impl Fn(&Ledger, u64) -> Result<Plan<()>, AnswerError>,
    ) -> Result<HoldView, AnswerError> {
        self.change(writer, now, plan).map_err(|failed| match failed {
            Failed::Wrong(error) => error,
            Failed::Store => AnswerError::Unavailable,
        })?;
        let inner = lock(&self.inner);
        let hold = inner.ledger.hold(id).ok_or(AnswerError::Unknown)?;
        Ok(inner.view(hold, now))
    }

    /// Grants the pending holds that a wider grant covers, one after another.
    fn use_wider_grants(&self, writer: &mut Writer, now: Now) {
        loop {
            let next =
                self.change(writer, now, |ledger, at_ms| ledger.use_wider_grants(at_ms).ok_or(()));
            if next.is_err() {
                return;
            }
        }
    }

    /// Makes one change: plans it, has it stored, takes it, and wakes those whom it concerns. If
    /// another replica was faster, it is planned again from what that one wrote.
    fn change<T, E>(
        &self,
        writer: &mut Writer,
        now: Now,
        plan: impl Fn(&Ledger, u64) -> Result<Plan<T>, E>,
    ) -> Result<T, Failed<E>> {
        let mut conflicts = 0_usize;
        while conflicts <= CONFLICTS_MAX {
            self.refresh(writer, now)?;
            let (at_ms, due) = {
                let mut inner = lock(&self.inner);
                let at_ms = inner.ledger.advance(now);
                (at_ms, inner.ledger.due(at_ms))
            };
            // Until nothing is due: each batch leaves less.
            let done = if let Some(due) = due {
                self.commit(writer, &due, at_ms)?
            } else {
                let plan = plan(&lock(&self.inner).ledger, at_ms).map_err(Failed::Wrong)?;
                if plan.writes.is_empty() || self.commit(writer, &plan, at_ms)? {
                    return Ok(plan.outcome);
                }
                false
            };
            conflicts = conflicts.saturating_add(usize::from(!done));
            // Nobody is faster time after time. A record of the store is gone or another one than the
            // ledger's, and what is new in the store does not say so: all of it is read again.
            writer.in_doubt |= conflicts >= CONFLICTS_BEFORE_DOUBT && !done;
        }
        Err(Failed::Store)
    }

    /// Has a plan stored and takes it; `false` if another replica was faster.
    fn commit<T, E>(
        &self,
        writer: &mut Writer,
        plan: &Plan<T>,
        at_ms: u64,
    ) -> Result<bool, Failed<E>> {
        // Until the ledger has it: a panic on the way leaves the store to be read again.
        let doubt = std::mem::replace(&mut writer.in_doubt, true);
        match self.store.commit(&plan.batch(at_ms)) {
            Ok(version) => {
                writer.loose = plan.lasting == Lasting::Later;
                if self.store.is_exclusive() {
                    writer.cursor = version;
                }
                writer.mark_ms = writer.mark_ms.max(at_ms);
                let moved = self.apply(&plan.writes, version);
                writer.in_doubt = doubt;
                if let Some(witness) = self.witness.get() {
                    moved.iter().for_each(witness);
                }
                if !plan.writes.is_empty() {
                    self.tell(Some(&plan.writes));
                }
                Ok(true)
            }
            Err(CommitError::Conflict) => {
                writer.in_doubt = doubt || self.store.is_exclusive();
                Ok(false)
            }
            Err(CommitError::Fault(error)) => {
                self.failed(error);
                Err(Failed::Store)
            }
        }
    }

    /// Takes what the store has taken. Returns the holds that got into another state, if there is a
    /// witness.
    fn apply(&self, writes: &[Write], version: Version) -> Vec<HoldView> {
        let mut inner = lock(&self.inner);
        let ids = moved(&inner.ledger, writes);
        inner.ledger.apply(writes, version);
        inner.recovered();
        if self.witness.get().is_none() {
            return Vec::new();
        }
        inner.summaries(&ids, (self.clock)())
    }

    /// Takes what the store has and the ledger does not. If the store has lost something, or has a
    /// record that is older than what was seen, all that is open is over before anything else.
    fn refresh<E>(&self, writer: &mut Writer, now: Now) -> Result<(), Failed<E>> {
        for _ in 0..=CONFLICTS_MAX {
            if !self.take_news(writer, now)? || self.end_all(writer, now)? {
                return Ok(());
            }
        }
        Err(Failed::Store)
    }

    /// Ends all that is open, because the store has lost batches; `false` if another replica was
    /// faster.
    fn end_all<E>(&self, writer: &mut Writer, now: Now) -> Result<bool, Failed<E>> {
        tracing::error!(
            "the store of holds has lost what was written, or somebody has put back what was there before: it is not known which grants were used, so all open holds are over"
        );
        let (mut plan, at_ms) = {
            let mut inner = lock(&self.inner);
            let at_ms = inner.ledger.advance(now);
            (inner.ledger.inherit(true, at_ms), at_ms)
        };
        plan.anew = true;
        // Until it is known to be written, the store is read again each time.
        writer.in_doubt = true;
        let done = self.commit(writer, &plan, at_ms)?;
        writer.in_doubt = !done;
        if done {
            writer.gone_back = false;
            lock(&self.inner).ledger.set_all_over(false);
            self.losses.send_modify(|number| *number = number.wrapping_add(1));
        }
        Ok(done)
    }

    /// Takes what the store has and the ledger does not; whether the store has lost something.
    fn take_news<E>(&self, writer: &mut Writer, now: Now) -> Result<bool, Failed<E>> {
        if !writer.in_doubt && self.store.is_exclusive() {
            return Ok(false);
        }
        let from = if writer.in_doubt { 0 } else { writer.cursor };
        let delta = match self.store.changes_since(from) {
            Ok(delta) => delta,
            Err(error) => {
                self.failed(error);
                return Err(Failed::Store);
            }
        };
        writer.in_doubt = true;
        writer.cursor = delta.cursor;
        writer.mark_ms = writer.mark_ms.max(delta.mark_ms);
        let rolled_back = delta.rolled_back;
        let news = delta.whole || !delta.records.is_empty() || !delta.removed.is_empty();
        let mut inner = lock(&self.inner);
        let gone_back = inner.ledger.take(delta, now);
        // A store that says so itself says it until somebody has ended all.
        writer.gone_back |= gone_back && !rolled_back;
        let all_over = rolled_back || writer.gone_back;
        inner.ledger.set_all_over(all_over);
        inner.recovered();
        drop(inner);
        writer.in_doubt = false;
        if news {
            self.tell(None);
        }
        Ok(all_over)
    }

    fn failed(&self, error: StoreError) {
        let mut inner = lock(&self.inner);
        if inner.fault.is_none() {
            tracing::error!(cause = %error, "the store of holds failed: holds wait, and nothing is granted");
        }
        inner.fault = Some(error);
    }

    /// Wakes those who wait for one of the holds that were written, or all of them, and those who
    /// watch; each looks what has become of its hold.
    fn tell(&self, written: Option<&[Write]>) {
        let inner = lock(&self.inner);
        match written {
            Some(writes) => writes.iter().filter_map(hold_written).for_each(|id| {
                if let Some(waiting) = inner.waiting.get(id) {
                    waiting.bell.send_replace(());
                }
            }),
            None => inner.waiting.values().for_each(|waiting| waiting.bell.send_replace(())),
        }
        drop(inner);
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }
}

/// The ids of the holds that `writes` bring into another state than `ledger` has, pending excepted.
fn moved(ledger: &Ledger, writes: &[Write]) -> Vec<Box<str>> {
    let moved = writes.iter().filter_map(|write| match write {
        Write::Put { record: Record::Hold(hold), .. } => {
            let before = ledger.hold(&hold.asked.id).map_or(HoldState::Pending, |old| old.state);
            (hold.state != before).then(|| hold.asked.id.clone())
        }
        Write::Put { .. } | Write::Remove { .. } => None,
    });
    moved.collect()
}

/// The hold that is put by `write`.
fn hold_written(write: &Write) -> Option<&str> {
    match write {
        Write::Put { record: Record::Hold(hold), .. } => Some(&hold.asked.id),
        Write::Put { .. } | Write::Remove { .. } => None,
    }
}

impl Inner {
    fn summaries(&self, ids: &[Box<str>], now: Now) -> Vec<HoldView> {
        let holds = ids.iter().filter_map(|id| self.ledger.hold(id));
        // The stored state: a hold that was granted just before its end was granted first.
        holds.map(|hold| HoldView { state: hold.state, ..self.summary(hold, now) }).collect()
    }

    fn in_states(&self, states: &[HoldState], now: Now) -> Vec<&HoldRecord> {
        let at_ms = self.ledger.time(now);
        let is_in = |hold: &&HoldRecord| states.contains(&self.ledger.state(hold, at_ms));
        let mut holds: Vec<&HoldRecord> = self.ledger.holds().filter(is_in).collect();
        holds.sort_by(|one, other| asked_order(one).cmp(&asked_order(other)));
        holds
    }

    /// How many calls wait for the hold `id`, in this process or as tasks.
    fn waiting_for(&self, id: &str) -> usize {
        let here = self.waiting.get(id).map_or(0, |waiting| waiting.calls);
        here.saturating_add(self.ledger.tasks_waiting(id, None))
    }

    fn summary(&self, hold: &HoldRecord, now: Now) -> HoldView {
        let waiting = self.waiting_for(&hold.asked.id);
        HoldView::summary(&self.ledger, hold, waiting, now)
    }

    fn view(&self, hold: &HoldRecord, now: Now) -> HoldView {
        let waiting = self.waiting_for(&hold.asked.id);
        HoldView::new(&self.ledger, hold, waiting, now)
    }

    /// One call less waits for the hold `id`; whether it was the last one.
    fn leave(&mut self, id: &str) -> bool {
        let Some(waiting) = self.waiting.get_mut(id) else { return true };
        waiting.calls = waiting.calls.saturating_sub(1);
        let last = waiting.calls == 0;
        if last {
            self.waiting.remove(id);
        }
        last
    }

    fn recovered(&mut self) {
        if self.fault.take().is_some() {
            tracing::info!("the store of holds works again");
        }
    }
}

/// Holds in the order in which they were asked.
fn asked_order(hold: &HoldRecord) -> (u64, &str) {
    (hold.asked.at_ms, &hold.asked.id)
}

/// A new id: 128 random bits, hexadecimal.
fn fresh_id() -> Option<Box<str>> {
    let mut bits = [0; ID_BYTES];
    getrandom::fill(&mut bits).ok()?;
    Some(bartizan_gate::wire::hex::hex(&bits).into())
}

#[cfg(test)]
pub(crate) mod made;

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests;
