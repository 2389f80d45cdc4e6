//! Requests that wait for a person's approval.
//!
//! The gate holds a request; this module asks the approval service for all approvals that it needs,
//! waits until all are there, spends the grants, and hands the same bytes to the gate again. A grant
//! is spent before the gate is asked, and durably, so that no second call passes by it, whatever
//! happens afterwards. A spent grant cannot be given back, so the call has its places in limits of
//! calls in flight before: where none is free, it waits for one.
//!
//! While it waits, a client that asked for progress gets some: clients give up after a time without
//! any, and some begin to count anew with each.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use crate::Shared;
use crate::aside;
use crate::clock::Clock;
use crate::own_tasks::{self, AsTask};
use crate::session::{Counted, SessionHandle, StepOutcome};
use bartizan_approvals::{Approvals, HoldState, HoldView, NewTask, NoHold, Waiter};
use bartizan_gate::duty::limit::Places;
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Released};
use bartizan_gate::question::hold::{Approval, Hold, HoldEnd, HoldId};
use bartizan_gate::session::{Arrival, Gate};
use bartizan_gate::wire::protocol::Era;

/// When a client that was told "pending" should call again. Its call waits again then, so asking
/// often costs little.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a granted call looks for a place among the calls in flight.
const PLACE_EVERY: Duration = Duration::from_millis(100);

/// The approval service, and how long an answer is held open for it.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Holds and grants.
    pub approvals: Arc<Approvals>,
    /// How long the answer to a held request is kept open. After that its client is told to call
    /// again.
    pub wait: Duration,
    /// How often a client that asked for progress is told that its request waits: at once, and then
    /// after each such time. `None`: never.
    pub progress: Option<Duration>,
    /// The address of the page where approvers answer, up to the hold's id, if clients are told it.
    pub page: Option<Box<str>>,
    /// Whether clients that declare the tasks extension wait as tasks. The gate must find them:
    /// [`Holding::serve_tasks`].
    pub tasks: bool,
}

impl Holding {
    /// Holds in `approvals`, with answers held open for `wait`; clients are told nothing meanwhile.
    pub fn new(approvals: Arc<Approvals>, wait: Duration) -> Self {
        Self { approvals, wait, progress: None, page: None, tasks: false }
    }

    /// Has `gate` answer requests about the tasks of these holds, if there may be any.
    pub fn serve_tasks(&self, gate: &Gate) {
        if self.tasks {
            own_tasks::serve(gate, &self.approvals, self.page.as_deref());
        }
    }

    fn page_of(&self, hold: &HoldId) -> Option<Box<str>> {
        Some(format!("{}{hold}", self.page.as_deref()?).into())
    }
}

/// A request of the client that the gate holds.
pub(crate) struct HeldRequest<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) session: &'a SessionHandle,
    pub(crate) arrival: &'a Arrival,
    /// Until when the client may be waited for, as uptime: the expiry of its token.
    pub(crate) until: Option<Duration>,
    /// Sends a notification to its client, unless that does not read: it can do without.
    pub(crate) tell: &'a (dyn Fn(&Released) + Send + Sync),
    /// What it may become.
    pub(crate) as_task: AsTask<'a>,
}

/// The progress that a client is told of.
struct Progress {
    /// `None`: it gets none.
    every: Option<Duration>,
    /// The number of the next notification. It goes on from hold to hold of one request.
    next: NonZeroU32,
}

/// How one wait ended.
enum Ended {
    /// All are granted, and the call has its places in limits of calls in flight.
    Granted(Option<Places>),
    /// One of them is not granted.
    Decided(HoldState),
    /// The client was kept waiting as long as is allowed, or the program is stopping.
    Over,
    /// The client cancelled the request.
    Withdrawn,
}

impl HeldRequest<'_> {
    /// Waits for the approval of `hold`, and for that of any further one that another rule demands.
    /// The outcome is that of any step of a client's message, except that nothing is held any more.
    /// The grants that were spent must be kept until the outcome of the call is recorded. Dropping
    /// the future means that the client has disconnected.
    pub(crate) async fn settle(self, hold: Box<Hold>) -> (StepOutcome, Option<SpentGrants>) {
        let Some(holding) = &self.shared.holding else {
            return (self.end(&hold.call, &HoldEnd::Unavailable), None);
        };
        let _counted = Counted::of(self.session);
        let mut spent = SpentGrants {
            approvals: Arc::clone(&holding.approvals),
            clock: self.shared.clock,
            granted: Vec::new(),
        };
        let outcome = self.decide(hold, holding, &mut spent).await;
        (outcome, Some(spent))
    }

    async fn decide(
        &self,
        hold: Box<Hold>,
        holding: &Holding,
        grants: &mut SpentGrants,
    ) -> StepOutcome {
        let (approvals, call) = (Arc::clone(&grants.approvals), Arc::clone(&hold.call));
        let deadline = self.deadline(holding.wait);
        let mut progress = Progress { every: holding.progress, next: NonZeroU32::MIN };
        let mut becomes_task = self.becomes_task(holding, &call);
        let mut left = hold.apart();
        loop {
            let mut asked = match self.ask(&approvals, &call, &left) {
                Ok(asked) => asked,
                Err(end) => return self.end(&call, &end),
            };
            // Its user should see the page now, and not when the wait is over.
            let page = self.opens_page(holding, &asked);
            // A grant that is used is worth something to this attempt alone: it waits on, too.
            let used = !grants.granted.is_empty();
            let ended = if page || becomes_task && !used && asked.is_open() {
                Ended::Over
            } else {
                self.wait(&mut asked.waiters, &call, deadline, &mut progress).await
            };
            // From here on a disconnect no longer ends the holds, but still the call.
            let places = std::mem::take(&mut asked.waiters);
            let mut reserved = None;
            let again = match ended {
                Ended::Over => {
                    let as_task = becomes_task && !page;
                    if let Some(outcome) = self.over(holding, &call, &left, places, as_task) {
                        return outcome;
                    }
                    // There is no room for a task, so it waits as any other.
                    becomes_task = false;
                    asked.waits_on();
                    continue;
                }
                Ended::Withdrawn => {
                    self.cancel(places);
                    return StepOutcome::Settled;
                }
                Ended::Granted(free) => {
                    reserved = free;
                    self.spend(places, left, grants)
                }
                // Another call with the same bytes has used a grant: this one needs its own.
                Ended::Decided(HoldState::Spent) => Ok(left),
                Ended::Decided(state) => {
                    // The call does not pass, so nobody need look at its other holds.
                    self.cancel(places);
                    Err(state)
                }
            };
            match again {
                Ok(again) if again.is_empty() => {}
                Ok(again) => {
                    asked.waits_on();
                    left = again;
                    continue;
                }
                Err(state) => return self.end(&call, &end_of(state)),
            }
            let outcome = self.judge_again(&call, &grants.granted, reserved).await;
            asked.waits_on();
            let StepOutcome::Act(Act::Hold(next)) = outcome else { return outcome };
            left = next.apart();
        }
    }

    /// Judges the request of `call` once more, with what was granted and reserved for it.
    async fn judge_again(
        &self,
        call: &CallId,
        granted: &[Approval],
        reserved: Option<Places>,
    ) -> StepOutcome {
        let turn = self.session.turn(self.session.weight(&self.arrival.raw)).await;
        let taken = self.session.step_over(turn, Some(call), |session, gate, now| {
            let granted = (granted, reserved.as_ref());
            session.client_frame_approved(gate, self.arrival, call, granted, now)
        });
        taken.durable().await
    }

    /// Answers a request whose client is kept waiting no longer; `places` are the waiters of `holds`.
    /// `None` if it should be answered with a task, and there is no room for one.
    fn over(
        &self,
        holding: &Holding,
        call: &CallId,
        holds: &[Hold],
        places: Vec<Waiter>,
        as_task: bool,
    ) -> Option<StepOutcome> {
        let outcome = if as_task {
            self.wait_as_task(holding, call, holds, &places)?
        } else {
            self.end(call, &pending(&places, holding))
        };
        // The client has cancelled the call meanwhile.
        if matches!(outcome, StepOutcome::Settled) {
            self.cancel(places);
        }
        Some(outcome)
    }

    /// Whether the request becomes a task, or waits on as one, instead of keeping its client waiting.
    fn becomes_task(&self, holding: &Holding, call: &CallId) -> bool {
        match self.as_task {
            AsTask::Never => false,
            AsTask::Offered => holding.tasks && self.session.takes_task(call),
            AsTask::Made(_) => true,
        }
    }

    /// Answers with a task that waits for `holds`, whose waiters are `places`. `None` if there is no
    /// room for one.
    fn wait_as_task(
        &self,
        holding: &Holding,
        call: &CallId,
        holds: &[Hold],
        places: &[Waiter],
    ) -> Option<StepOutcome> {
        let first = holds.first()?;
        let what = match &first.target {
            Some(target) => format!("{} {target}", first.method),
            None => first.method.to_string(),
        };
        let task = NewTask {
            principal: &first.principal,
            server: &first.server,
            what: &what,
            holds: places.iter().map(|place| place.id().0.clone()).collect(),
        };
        if let AsTask::Made(making) = self.as_task {
            making.waits(&task);
            return Some(self.end(call, &pending(places, holding)));
        }
        let (approvals, now) = (&holding.approvals, self.shared.now());
        let made = aside::long(|| approvals.make_task(&task, now)).ok()?;
        let name = made.id.clone();
        let made = own_tasks::seen(made, holding.page.as_deref());
        let outcome = self
            .session
            .step(Some(call), |session, gate, now| session.waits_as(gate, call, &made, now))
            .at_once();
        if !matches!(outcome, StepOutcome::Act(_)) {
            // Its client has cancelled the call meanwhile, or is not told of the task.
            own_tasks::cancel(self.shared, &name);
        }
        Some(outcome)
    }

    /// Spends the grants of all `holds`, whose waiters are `places`. Returns the holds that need
    /// another grant, because another call with the same bytes was faster.
    fn spend(
        &self,
        places: Vec<Waiter>,
        holds: Vec<Hold>,
        grants: &mut SpentGrants,
    ) -> Result<Vec<Hold>, HoldState> {
        let now = self.shared.now();
        // One may be over since it was granted: then none is used up.
        match places.iter().map(Waiter::state).find(|state| !state.is_open()) {
            Some(HoldState::Spent) => return Ok(holds),
            Some(state) => {
                self.cancel(places);
                return Err(state);
            }
            None => {}
        }
        let mut again = Vec::new();
        let mut waiting = places.into_iter();
        for hold in holds {
            let Some(place) = waiting.next().filter(|_| again.is_empty()) else {
                again.push(hold);
                continue;
            };
            match aside::long(|| place.spend(now)) {
                Ok(approval) => grants.granted.push(approval),
                Err(HoldState::Spent) => again.push(hold),
                Err(state) => {
                    self.cancel(waiting.collect());
                    return Err(state);
                }
            }
        }
        Ok(again)
    }

    /// Takes the call out of the holds at `places`, which ends those that no other call waits for.
    fn cancel(&self, places: Vec<Waiter>) {
        let now = self.shared.now();
        aside::long(|| places.into_iter().for_each(|place| place.cancel(now)));
    }

    /// The uptime at which the wait ends.
    fn deadline(&self, wait: Duration) -> Duration {
        let end = self.shared.clock.uptime().saturating_add(wait);
        self.until.map_or(end, |until| until.min(end))
    }

    /// Asks for all `holds` of `call`, so that approvers see all of them at once. If its client has
    /// declined to open their page, they are over.
    fn ask<'h>(
        &'h self,
        approvals: &Arc<Approvals>,
        call: &CallId,
        holds: &[Hold],
    ) -> Result<Asked<'h>, HoldEnd> {
        if let Some(declined) = self.session.hold_declined(call) {
            self.withdraw(approvals, holds, &declined);
            return Err(HoldEnd::Cancelled);
        }
        self.ask_all(approvals, call, holds)
    }

    fn ask_all<'h>(
        &'h self,
        approvals: &Arc<Approvals>,
        call: &CallId,
        holds: &[Hold],
    ) -> Result<Asked<'h>, HoldEnd> {
        let now = self.shared.now();
        let mut asked =
            Asked { request: self, call: Arc::clone(call), waiters: Vec::new(), over: false };
        for hold in holds {
            match aside::long(|| approvals.ask(hold, now)) {
                Ok(waiter) => asked.waiters.push(waiter),
                Err(error) => {
                    asked.gives_up();
                    return Err(match error {
                        NoHold::Full(_) => HoldEnd::Full,
                        NoHold::CoolingDown { retry_after } => HoldEnd::CoolingDown { retry_after },
                        NoHold::Unavailable => HoldEnd::Unavailable,
                    });
                }
            }
        }
        Ok(asked)
    }

    async fn wait(
        &self,
        waiters: &mut [Waiter],
        call: &CallId,
        deadline: Duration,
        progress: &mut Progress,
    ) -> Ended {
        let holds: Vec<HoldId> = waiters.iter().map(|waiter| waiter.id().clone()).collect();
        let mut decided = pin!(all_decided(waiters));
        let left = deadline.saturating_sub(self.shared.clock.uptime());
        let mut over = pin!(sleep(left));
        let mut tell = pin!(sleep(Duration::ZERO));
        let mut granted = false;
        loop {
            let mut changed = pin!(self.session.held_changed());
            changed.as_mut().enable();
            if !self.session.is_held(call) {
                return Ended::Withdrawn;
            }
            if granted && let Some(ended) = self.place(call, &holds) {
                return ended;
            }
            tokio::select! {
                biased;
                state = decided.as_mut(), if !granted => {
                    if state != HoldState::Granted {
                        return Ended::Decided(state);
                    }
                    granted = true;
                }
                () = changed => {}
                () = sleep(PLACE_EVERY), if granted => {}
                () = over.as_mut() => return Ended::Over,
                () = self.shared.closing.cancelled() => return Ended::Over,
                () = self.session.closed().cancelled() => return Ended::Withdrawn,
                () = tell.as_mut(), if progress.every.is_some() => {
                    self.tell_progress(call, &holds, progress);
                    tell.set(sleep(progress.every.unwrap_or_default()));
                }
            }
        }
    }

    /// How the wait of a call ends whose `holds` are granted; `None` while no place is free for it.
    fn place(&self, call: &CallId, holds: &[HoldId]) -> Option<Ended> {
        let approvals = &self.shared.holding.as_ref()?.approvals;
        let states = holds.iter().filter_map(|hold| Some(approvals.get(&hold.0)?.state));
        // A grant may be used by another call with the same bytes, or expire.
        if let Some(state) = states.into_iter().find(|state| *state != HoldState::Granted) {
            return Some(Ended::Decided(state));
        }
        match self.session.reserve(call) {
            None => Some(Ended::Withdrawn),
            Some(reserved) => reserved.ok().map(Ended::Granted),
        }
    }

    /// Whether the client is asked to open the page of the hold, which makes it call again.
    fn opens_page(&self, holding: &Holding, asked: &Asked<'_>) -> bool {
        holding.page.is_some() && asked.is_open() && self.session.opens_pages(&asked.call)
    }

    /// The client would not open the page of the hold `declined`: its call waits no longer. That ends
    /// its holds, if no other call waits for them.
    fn withdraw(&self, approvals: &Arc<Approvals>, holds: &[Hold], declined: &HoldId) {
        let same = |view: &HoldView| {
            let mut keys = holds.iter().map(|hold| hold.key.to_string());
            view.state.is_open() && keys.any(|key| *view.key == *key)
        };
        if approvals.get(&declined.0).as_ref().is_some_and(same)
            && let Some(hold) = holds.first()
            && let Ok(asked) = self.ask_all(approvals, &hold.call, holds)
        {
            asked.cancel();
        }
    }

    /// Tells the client of the first hold that nobody has answered.
    fn tell_progress(&self, call: &CallId, holds: &[HoldId], progress: &mut Progress) {
        let state =
            |hold: &HoldId| Some(self.shared.holding.as_ref()?.approvals.get(&hold.0)?.state);
        let waits = |hold: &&HoldId| state(hold) == Some(HoldState::Pending);
        let Some(hold) = holds.iter().find(waits).or(holds.first()) else { return };
        match self.session.hold_progress(call, hold, progress.next) {
            Some(told) => {
                progress.next = progress.next.saturating_add(1);
                (self.tell)(&told);
            }
            // It did not ask for any.
            None => progress.every = None,
        }
    }

    /// Ends the request without passing it on.
    fn end(&self, call: &CallId, end: &HoldEnd) -> StepOutcome {
        self.session
            .step(Some(call), |session, gate, now| session.hold_ended(gate, call, end.clone(), now))
            .at_once()
    }
}

/// Grants that were spent on one call. Dropping them says that the end of the call is known, so that
/// it does not count as one of which nobody knows whether the server got it.
#[derive(Debug)]
pub(crate) struct SpentGrants {
    approvals: Arc<Approvals>,
    clock: Clock,
    granted: Vec<Approval>,
}

impl Drop for SpentGrants {
    fn drop(&mut self) {
        if self.granted.is_empty() {
            return;
        }
        // Somebody else's change may be on its way to the disk.
        aside::long(|| {
            for approval in &self.granted {
                self.approvals.settle(&approval.hold, self.clock.now());
            }
        });
    }
}

/// Holds that were asked for. If they are dropped while their call is held, the client has
/// disconnected.
struct Asked<'h> {
    request: &'h HeldRequest<'h>,
    call: CallId,
    /// One for each hold, until all are decided.
    waiters: Vec<Waiter>,
    /// Whether the call has gone on, or waits for other holds.
    over: bool,
}

impl Asked<'_> {
    /// Whether nobody has answered one of the holds.
    fn is_open(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.state() == HoldState::Pending)
    }

    fn waits_on(&mut self) {
        self.over = true;
    }

    /// The call cannot have all its holds. What was granted stays for the next attempt.
    fn gives_up(mut self) {
        self.over = true;
        let mut places = std::mem::take(&mut self.waiters);
        places.retain(|place| place.state() == HoldState::Pending);
        self.request.cancel(places);
    }

    /// The call needs no hold any more.
    fn cancel(mut self) {
        self.over = true;
        self.request.cancel(std::mem::take(&mut self.waiters));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let HeldRequest { session, .. } = self.request;
        if self.over {
            return;
        }
        // Not if the client has cancelled the call before it went.
        let held = session.is_held(&self.call);
        let modern = session.protocol().era == Era::Modern;
        if held {
            session.client_gone(&self.call);
        }
        // A disconnect is a cancellation in the modern era alone (MCP 2026-07-28, streamable HTTP,
        // "Cancellation"). In the others the holds stay, and the same call, made again, finds them.
        if modern || !held {
            self.request.cancel(std::mem::take(&mut self.waiters));
        }
    }
}

/// Waits until all holds are granted, or one of them has ended otherwise.
async fn all_decided(waiters: &mut [Waiter]) -> HoldState {
    let mut open: Vec<_> = waiters.iter_mut().map(|waiter| Box::pin(waiter.decided())).collect();
    poll_fn(move |context| {
        let mut ended = None;
        open.retain_mut(|waiting| match waiting.as_mut().poll(context) {
            Poll::Ready(HoldState::Granted) => false,
            Poll::Ready(state) => {
                ended.get_or_insert(state);
                false
            }
            Poll::Pending => true,
        });
        match ended {
            Some(state) => Poll::Ready(state),
            None if open.is_empty() => Poll::Ready(HoldState::Granted),
            None => Poll::Pending,
        }
    })
    .await
}

/// The client is told of the first hold that nobody has answered.
fn pending(places: &[Waiter], holding: &Holding) -> HoldEnd {
    let waits = |place: &&Waiter| place.state() == HoldState::Pending;
    let Some(place) = places.iter().find(waits).or(places.first()) else {
        return HoldEnd::Unavailable;
    };
    let (hold, page) = (place.id().clone(), holding.page_of(place.id()));
    HoldEnd::Pending { hold, retry_after: RETRY_AFTER, state: None, page }
}

fn end_of(state: HoldState) -> HoldEnd {
    match state {
        HoldState::Refused => HoldEnd::Refused,
        HoldState::Expired => HoldEnd::Expired,
        HoldState::Cancelled => HoldEnd::Cancelled,
        HoldState::Pending | HoldState::Granted | HoldState::Spent | HoldState::Unknown => {
            HoldEnd::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::session::SessionHandle;
    use bartizan_approvals::store::memory::MemoryStore;
    use bartizan_approvals::{ApprovalLimits, Approver};
    use bartizan_gate::duty::decision::{HoldRule, Obligation};
    use bartizan_gate::evidence::record::{AuditRecord, Event};
    use bartizan_gate::question::access::{AccessRequest, Principal, Server};
    use bartizan_gate::session::{Gate, GateConfig, Mode, Protected, RefusalForm, Session};
    use bartizan_gate::wire::frame::FrameLimits;
    use bartizan_gate::wire::protocol::Transport;
    use bartizan_testing::{ByName, Sink};

    /// A session with a held call.
    struct Held {
        shared: Shared,
        session: SessionHandle,
        sink: Arc<Sink>,
        arrival: Arrival,
        hold: Box<Hold>,
    }

    #[expect(clippy::unnecessary_wraps, reason = "a judge may deny")]
    fn ask(_: &str, _: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
        Some(vec![Obligation::Hold(HoldRule {
            code: "ask".into(),
            message: "ask".into(),
            tell: None,
            approvers: Vec::new(),
            ttl: None,
            quorum: 1,
            scopes: Vec::new(),
        })])
    }

    fn held() -> Held {
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "test".into(),
            digest_key: [7; 32],
        };
        let sink = Arc::<Sink>::default();
        let mut shared = Shared::for_tests();
        shared.gate = Arc::new(Gate::new(config, Arc::new(ByName::new(ask))));
        shared.sink = Arc::<Sink>::clone(&sink);
        let clock = shared.clock;
        let store = Box::new(MemoryStore::new());
        let now = Box::new(move || clock.now());
        let approvals = Approvals::open(store, ApprovalLimits::default(), now).unwrap();
        let wait = Duration::from_mins(5);
        let approvals = Arc::new(approvals);
        shared.holding = Some(Holding::new(approvals, wait));
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        let session = Session::new(Arc::new(Principal::default()), server, Transport::Http);
        let session = SessionHandle::new(&shared, session);
        // Large, so that it waits for a turn before it is judged.
        let text = "x".repeat(aside::LARGE_BYTES);
        let raw = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"a":"{text}"}}}}}}"#
        );
        let arrival = Arrival { raw: raw.into(), may_wait: true, ..Arrival::default() };
        let outcome = session
            .step(None, |session, gate, now| Some(session.client_frame(gate, &arrival, now)))
            .at_once();
        let StepOutcome::Act(Act::Hold(hold)) = outcome else { panic!("{outcome:?}") };
        Held { shared, session, sink, arrival, hold }
    }

    impl Held {
        fn request(&self) -> HeldRequest<'_> {
            let Self { shared, session, arrival, .. } = self;
            let as_task = AsTask::Never;
            HeldRequest { shared, session, arrival, until: None, tell: &|_| {}, as_task }
        }

        fn approvals(&self) -> Arc<Approvals> {
            Arc::clone(&self.shared.holding.as_ref().unwrap().approvals)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_goes_between_grant_and_judgement_leaves_nothing_held() {
        let scene = held();
        let approvals = scene.approvals();
        let mut settling = Box::pin(scene.request().settle(scene.hold.clone()));
        let mut once =
            async || poll_fn(|context| Poll::Ready(settling.as_mut().poll(context))).await;
        assert!(once().await.is_pending());
        let turns = crate::processors().saturating_sub(1).max(1);
        let mut taken = Vec::new();
        for _ in 0..turns {
            taken.push(scene.shared.aside.turn(aside::LARGE_BYTES.into()).await);
        }
        let [hold] = &*approvals.list(&[HoldState::Pending]) else { panic!("one hold") };
        let ada = Approver { id: "ada".into(), groups: Vec::new() };
        let now = scene.shared.now();
        approvals.grant(&hold.id, &hold.digest, &ada, "checked", None, now).unwrap();
        assert!(once().await.is_pending(), "it waits for a turn");
        assert_eq!(approvals.get(&hold.id).unwrap().state, HoldState::Spent);
        drop(settling);
        assert!(!scene.session.is_held(&scene.hold.call));
        assert_eq!(scene.sink.events(), [Event::Hold, Event::Drop]);
    }

    static DROP_COMES: AtomicBool = AtomicBool::new(false);
    static DROP_MAY_GO: AtomicBool = AtomicBool::new(false);

    /// Keeps the record that ends a held call back until the test lets it go.
    fn keep_back(record: &AuditRecord) {
        if record.event == Event::Drop {
            DROP_COMES.store(true, Ordering::SeqCst);
            while !DROP_MAY_GO.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_is_over_only_when_its_end_is_recorded() {
        let scene = held();
        scene.sink.before.set(keep_back).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| scene.session.client_gone(&scene.hold.call));
            while !DROP_COMES.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let waited = threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(scene.session.over(&scene.hold.call));
                scene.sink.events()
            });
            // Long enough for it to say too early that the call is over.
            for _ in 0..50 {
                if waited.is_finished() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            DROP_MAY_GO.store(true, Ordering::SeqCst);
            assert_eq!(waited.join().unwrap(), [Event::Hold, Event::Drop]);
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hold_does_not_outlive_a_cancel_before_a_disconnect() {
        let scene = held();
        let approvals = scene.approvals();
        let mut settling = Box::pin(scene.request().settle(scene.hold.clone()));
        let polled = poll_fn(|context| Poll::Ready(settling.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        let arrival = Arrival { raw: cancel.into(), ..Arrival::default() };
        drop(
            scene
                .session
                .step(None, |session, gate, now| Some(session.client_frame(gate, &arrival, now))),
        );
        assert!(!scene.session.is_held(&scene.hold.call));
        drop(settling);
        let [hold] = &*approvals.list(&HoldState::ALL) else { panic!("one hold") };
        assert_eq!(hold.state, HoldState::Cancelled);
    }
}
