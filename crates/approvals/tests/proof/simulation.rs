//! Calls, answers, cancels, crashes, faults of the store and clocks that are set, in every order
//! that a generator of random numbers can think of.
//!
//! A shared store may lose the last batches, and somebody without its key may put back an older record.
//! Replicas that have seen more must notice. So each has read all before that happens, and none is
//! started before one of them has noticed.
//!
//! Half of the schedules have one replica on a store of its own, half have two on a shared one; in a
//! shared one, a step of one replica may fall between the plan and the commit of the other's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bartizan_approvals::limits::MARK_EVERY;
use bartizan_approvals::{AnswerError, Approvals, HoldState, HoldView, NoHold, Waiter};
use bartizan_gate::duty::hold::{Approval, HoldId};
use bartizan_gate::evidence::record::Now;

use crate::calls::{Call, PEOPLE, STEP_MAX_MS, limits, person};
use crate::oracle::{At, Oracle, Yes};
use crate::shelf::{Fault, Shelf};
use crate::{Random, number};

/// Steps of one schedule.
const STEPS: u64 = 250;
/// Rounds of readings in which every replica is to have seen what the others wrote.
const ROUNDS_MAX: usize = 8;
/// Wall time at the beginning, milliseconds since 1970.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// The true time of the world, and the wall clock of one replica.
#[derive(Clone)]
struct Clocks {
    /// Milliseconds.
    truth: Arc<AtomicU64>,
    /// By how much the wall clock is ahead, milliseconds.
    wall_ahead: Arc<AtomicI64>,
    /// When this process started, in true milliseconds.
    started: u64,
}

impl Clocks {
    fn now(&self) -> Now {
        let truth = self.truth.load(Ordering::Relaxed);
        let ahead = self.wall_ahead.load(Ordering::Relaxed);
        let wall = (EPOCH_MS + truth).saturating_add_signed(ahead);
        Now {
            uptime: Duration::from_millis(truth - self.started),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(wall),
        }
    }
}

struct Replica {
    approvals: Arc<Approvals>,
    clocks: Clocks,
    waiters: Vec<(Waiter, Call)>,
    run: u64,
}

/// What a step came to.
enum Event {
    Asked(usize, Call, Result<Waiter, NoHold>),
    Granted(usize, Yes, Result<HoldView, AnswerError>),
    Refused { replica: usize, id: String, who: usize, said: Result<HoldView, AnswerError> },
    Spent { replica: usize, id: String, call: Call, said: Result<Approval, HoldState> },
    Cancelled { replica: usize, id: String, last: bool },
    Nothing,
}

impl Event {
    /// Somebody was told that something is held, granted, refused or may be sent.
    fn is_done(&self) -> bool {
        match self {
            Self::Asked(.., got) => got.is_ok(),
            Self::Granted(.., said) | Self::Refused { said, .. } => said.is_ok(),
            Self::Spent { said, .. } => said.is_ok(),
            Self::Cancelled { .. } | Self::Nothing => false,
        }
    }
}

/// A step that is yet to be done.
type Step = Box<dyn FnOnce() -> Event + Send>;

struct World {
    random: Random,
    shelf: Shelf,
    true_ms: Arc<AtomicU64>,
    replicas: Vec<Replica>,
    oracle: Oracle,
    sent: Vec<HoldId>,
    runs: u64,
    /// True time at which the store last worked for sure.
    stored_ms: u64,
    lost: bool,
    /// The store has gone back, and perhaps nobody has noticed yet.
    gone_back: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let exclusive = random.chance(50);
        let honest = random.chance(60);
        // A replica learns with its next tick how far another one's clock has got.
        let base_slack_ms = if honest || exclusive { 0 } else { 5 * STEP_MAX_MS };
        let mut oracle = Oracle::default();
        (oracle.honest, oracle.exclusive) = (honest, exclusive);
        oracle.base_slack_ms = base_slack_ms;
        let mut world = Self {
            random,
            shelf: Shelf::new(exclusive),
            true_ms: Arc::default(),
            replicas: Vec::new(),
            oracle,
            sent: Vec::new(),
            runs: 0,
            stored_ms: 0,
            lost: false,
            gone_back: false,
        };
        for _ in 0..if exclusive { 1 } else { 2 } {
            let replica = world.start(Arc::default());
            world.replicas.push(replica);
        }
        world
    }

    fn ms(&self) -> u64 {
        self.true_ms.load(Ordering::Relaxed)
    }

    fn start(&mut self, wall_ahead: Arc<AtomicI64>) -> Replica {
        let started = self.ms();
        let clocks = Clocks { truth: Arc::clone(&self.true_ms), wall_ahead, started };
        let clock = clocks.clone();
        let opened =
            Approvals::open(Box::new(self.shelf.again()), limits(), Box::new(move || clock.now()));
        self.runs += 1;
        let approvals = Arc::new(opened.unwrap());
        Replica { approvals, clocks, waiters: Vec::new(), run: self.runs }
    }

    /// One step of the schedule.
    fn step(&mut self) {
        let replica = self.random.below(self.replicas.len());
        match self.random.below(100) {
            0..14 => self.wait(),
            14..17 => self.crash(replica),
            17..19 => self.set_clock(replica),
            19..21 => self.lose_or_find_store(),
            21..25 => self.look(),
            25 => self.go_back(),
            26..29 => {
                let waiters = &mut self.replicas[replica].waiters;
                if !waiters.is_empty() {
                    drop(waiters.swap_remove(self.random.below(waiters.len())));
                }
            }
            _ => self.act(replica),
        }
    }

    /// A step of one replica: perhaps with a fault, perhaps with a step of the other one inside.
    fn act(&mut self, replica: usize) {
        let step = self.choose(replica);
        let other =
            (self.replicas.len() > 1 && self.random.chance(30)).then(|| self.choose(1 - replica));
        let inner = Arc::new(Mutex::new(None));
        if let Some(other) = other {
            let place = Arc::clone(&inner);
            let between = Box::new(move || *place.lock().unwrap() = Some(other()));
            self.shelf.between(between);
        } else if self.random.chance(8) {
            self.fail();
        }
        let event = step();
        let left = self.shelf.not_between();
        let fault = self.shelf.heal() || self.lost;
        let first = inner.lock().unwrap().take();
        let inside = first.is_some();
        if let Some(first) = first {
            self.observe(first, fault, false);
        }
        self.observe(event, fault, inside);
        if let Some(left) = left {
            left();
            let after = inner.lock().unwrap().take();
            self.observe(after.unwrap(), fault, false);
        }
        self.now_stored(fault);
    }

    fn fail(&mut self) {
        let fault = if self.random.chance(50) { Fault::Before } else { Fault::After };
        self.shelf.fail(fault);
    }

    fn choose(&mut self, replica: usize) -> Step {
        let approvals = Arc::clone(&self.replicas[replica].approvals);
        let now = self.replicas[replica].clocks.now();
        match self.random.below(100) {
            0..42 => {
                let call = Call::random(&mut self.random);
                Box::new(move || Event::Asked(replica, call, approvals.ask(&call.hold(), now)))
            }
            42..66 => self.choose_grant(replica),
            66..71 => {
                let Some(id) = self.some_hold() else { return Box::new(|| Event::Nothing) };
                let who = self.random.below(PEOPLE.len());
                Box::new(move || {
                    let said = approvals.refuse(&id, &person(who), "no", now);
                    Event::Refused { replica, id, who, said }
                })
            }
            71..88 => {
                // Mostly one that may be spent.
                let may = |waiter: &Waiter| waiter.state() == HoldState::Granted;
                let waiters = &self.replicas[replica].waiters;
                let granted = waiters.iter().position(|(waiter, _)| may(waiter));
                let chosen = granted.filter(|_| self.random.chance(70));
                let Some((waiter, call, id, _)) = self.some_waiter(replica, chosen) else {
                    return Box::new(|| Event::Nothing);
                };
                Box::new(move || Event::Spent { replica, id, call, said: waiter.spend(now) })
            }
            88..94 => {
                let Some((waiter, _, id, last)) = self.some_waiter(replica, None) else {
                    return Box::new(|| Event::Nothing);
                };
                Box::new(move || {
                    waiter.cancel(now);
                    Event::Cancelled { replica, id, last }
                })
            }
            _ => {
                let sent = self.sent.pop();
                Box::new(move || {
                    if let Some(id) = sent {
                        approvals.settle(&id, now);
                    }
                    Event::Nothing
                })
            }
        }
    }

    fn choose_grant(&mut self, replica: usize) -> Step {
        let approvals = Arc::clone(&self.replicas[replica].approvals);
        let now = self.replicas[replica].clocks.now();
        let Some(id) = self.some_hold() else { return Box::new(|| Event::Nothing) };
        // Mostly the two who may.
        let people = if self.random.chance(70) { 2 } else { PEOPLE.len() };
        let who = self.random.below(people);
        let wider = self.random.chance(40);
        let right = self.random.chance(90);
        let shown = if right { Some(id.clone()) } else { self.some_hold() };
        let seen = shown.and_then(|shown| {
            self.replicas.iter().find_map(|replica| replica.approvals.get(&shown))
        });
        let Some(seen) = seen else { return Box::new(|| Event::Nothing) };
        let right = *seen.id == *id;
        Box::new(move || {
            let scope = wider.then_some("more");
            let said = approvals.grant(&id, &seen.digest, &person(who), "yes", scope, now);
            Event::Granted(replica, Yes { id, who, wider, right }, said)
        })
    }

    /// A hold, more likely one of the last ones.
    fn some_hold(&mut self) -> Option<String> {
        let now = self.ms();
        let young = self.oracle.known.iter().filter(|(_, it)| it.asked_ms + 70_000 > now);
        // Ids are random; in this order a seed finds the same one again.
        let ids: BTreeMap<_, _> = young.map(|(id, it)| (it.number, id)).collect();
        let chosen = (!ids.is_empty()).then(|| self.random.below(ids.len()))?;
        ids.into_values().nth(chosen).cloned()
    }

    /// Takes the chosen waiter, or any: it, its call, its hold, and whether no other of its replica
    /// waits for that.
    fn some_waiter(
        &mut self,
        replica: usize,
        chosen: Option<usize>,
    ) -> Option<(Waiter, Call, String, bool)> {
        let waiters = &mut self.replicas[replica].waiters;
        if waiters.is_empty() {
            return None;
        }
        let chosen = chosen.unwrap_or_else(|| self.random.below(waiters.len()));
        let (waiter, call) = waiters.swap_remove(chosen);
        let last = waiters.iter().all(|(other, _)| other.id() != waiter.id());
        let id = waiter.id().to_string();
        Some((waiter, call, id, last))
    }

    fn observe(&mut self, event: Event, fault: bool, inside: bool) {
        let ms = self.ms();
        let at = |world: &Self, replica: usize| At {
            run: (replica, world.replicas[replica].run),
            ms,
            fault,
            inside,
        };
        // A call attaches to a hold of a store that nobody else writes to without asking it.
        let attaches = self.oracle.exclusive && matches!(event, Event::Asked(..));
        assert!(!self.lost || attaches || !event.is_done(), "done without the store");
        match event {
            Event::Asked(replica, call, got) => {
                let at = at(self, replica);
                let id = got.as_ref().map(|waiter| waiter.id().to_string());
                let view = id.as_ref().ok().and_then(|id| self.replicas[replica].approvals.get(id));
                let through = view.is_some_and(|view| view.granted_through.is_some());
                self.oracle.asked(call, id.as_deref().map_err(|error| **error), through, at);
                if let Ok(waiter) = got {
                    self.replicas[replica].waiters.push((waiter, call));
                }
            }
            Event::Granted(replica, yes, said) => {
                let at = at(self, replica);
                self.oracle.granted(&yes, said.as_ref(), at);
            }
            Event::Refused { replica, id, who, said } => {
                let at = at(self, replica);
                self.oracle.refused(&id, who, said.as_ref().map(|_| ()), at);
            }
            Event::Spent { replica, id, call, said } => {
                let at = at(self, replica);
                match said {
                    Ok(approval) => {
                        let view = self.replicas[replica].approvals.get(&id).unwrap();
                        self.oracle.spent(&id, call, Ok((&approval, &view)), at);
                        self.sent.push(approval.hold);
                    }
                    Err(state) => self.oracle.spent(&id, call, Err(state), at),
                }
            }
            Event::Cancelled { replica, id, last } => {
                if last {
                    let at = at(self, replica);
                    self.oracle.cancelled(&id, at);
                }
            }
            Event::Nothing => {}
        }
    }

    /// The store has the true time of now, if it works.
    fn now_stored(&mut self, fault: bool) {
        if !fault {
            self.stored_ms = self.ms();
        }
    }

    /// Time passes, and each replica notices.
    fn wait(&mut self) {
        let far = self.random.chance(10);
        let most = if far { 5 * STEP_MAX_MS } else { STEP_MAX_MS };
        let passed = self.random.next() % most;
        self.true_ms.fetch_add(passed, Ordering::Relaxed);
        if self.lost && !self.oracle.honest {
            self.oracle.known.values_mut().for_each(|known| known.slack_ms += passed);
        }
        for replica in &self.replicas {
            replica.approvals.tick(replica.clocks.now());
        }
    }

    /// One process ends, perhaps in the middle of a step, and is started again.
    fn crash(&mut self, replica: usize) {
        if self.lost {
            return;
        }
        if std::mem::take(&mut self.gone_back) {
            self.look();
        }
        if self.random.chance(60) {
            let step = self.choose(replica);
            self.fail();
            let event = step();
            let unsaid = match event {
                // Nobody was told.
                Event::Asked(replica, call, _) => {
                    Event::Asked(replica, call, Err(NoHold::Unavailable))
                }
                Event::Granted(replica, yes, _) => {
                    Event::Granted(replica, yes, Err(AnswerError::Unavailable))
                }
                Event::Refused { replica, id, who, .. } => {
                    Event::Refused { replica, id, who, said: Err(AnswerError::Unavailable) }
                }
                Event::Spent { replica, id, call, .. } => {
                    Event::Spent { replica, id, call, said: Err(HoldState::Unknown) }
                }
                event @ (Event::Cancelled { .. } | Event::Nothing) => event,
            };
            self.shelf.heal();
            self.observe(unsaid, true, false);
        }
        let ahead = Arc::clone(&self.replicas[replica].clocks.wall_ahead);
        self.replicas[replica].waiters.clear();
        if self.oracle.exclusive {
            self.shelf.crash();
        }
        let down_ms = if self.random.chance(30) { self.random.next() % 20_000 } else { 0 };
        let behind_ms = self.ms() - self.stored_ms + down_ms + MARK_EVERY.as_millis() as u64;
        self.true_ms.fetch_add(down_ms, Ordering::Relaxed);
        if !self.oracle.honest {
            let slack = behind_ms + STEP_MAX_MS;
            self.oracle.known.values_mut().for_each(|known| known.slack_ms += slack);
        }
        self.replicas[replica] = self.start(ahead);
        self.oracle.count("crash");
        self.look();
    }

    fn set_clock(&mut self, replica: usize) {
        if !self.oracle.honest {
            let to = self.random.below(200_000) as i64 - 100_000;
            self.replicas[replica].clocks.wall_ahead.store(to, Ordering::Relaxed);
        }
    }

    fn lose_or_find_store(&mut self) {
        self.lost = !self.lost;
        self.shelf.lose(self.lost);
        if !self.lost {
            self.look();
        }
    }

    /// The store loses its last batches, or has an old record again.
    fn go_back(&mut self) {
        if self.lost || self.oracle.exclusive || !self.all_have_seen_all() {
            return;
        }
        self.gone_back = true;
        if self.random.chance(50) {
            if self.shelf.roll_back(&mut self.random) {
                self.oracle.rolled_back();
            }
        } else if self.shelf.put_back(&mut self.random) {
            self.oracle.put_back();
        }
        // Who notices first may be unable to write what follows.
        if self.random.chance(30) {
            self.fail();
        }
    }

    /// Every replica reads until none of them has written; whether it came to that.
    ///
    /// One round is not enough. The last replica of a round may write (how far its clock has got, what
    /// has expired), and the others have not read that. If the store loses just this batch, only the
    /// one that wrote it can notice, and another one may act first: what decision 29 names as the price.
    fn all_have_seen_all(&mut self) -> bool {
        (0..ROUNDS_MAX).any(|_| {
            let before = self.shelf.batches();
            self.look();
            self.shelf.batches() == before
        })
    }

    fn look(&mut self) {
        let mut all_complete = true;
        for number in 0..self.replicas.len() {
            let replica = &self.replicas[number];
            replica.approvals.tick(replica.clocks.now());
            let views = replica.approvals.list(&HoldState::ALL);
            let complete = !self.lost && replica.approvals.fault().is_none();
            let run = (number, replica.run);
            all_complete &= complete;
            self.oracle.look(&views, run, self.true_ms.load(Ordering::Relaxed), complete);
        }
        self.oracle.unsettled &= !all_complete;
    }
}

/// One schedule; what happened how often.
fn run(seed: u64, steps: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    for step in 0..steps {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
        if let Err(panic) = done {
            eprintln!("SIM_SEED={seed}, step {step}");
            std::panic::resume_unwind(panic);
        }
    }
    world.oracle.tally
}

#[test]
fn nothing_is_sent_twice_late_or_changed_in_any_order_of_events() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        println!("{:?}", run(seed.parse().unwrap(), STEPS));
        return;
    }
    let steps = number("SIM_STEPS", 50_000);
    let threads = number("SIM_THREADS", 2);
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds =
        move |thread| (0..steps.div_ceil(STEPS)).filter(move |seed| seed % threads == thread);
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || {
                seeds(thread).map(|seed| run(seed, STEPS)).collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in running {
        for (what, times) in thread.join().unwrap().into_iter().flatten() {
            *tally.entry(what).or_default() += times;
        }
    }
    println!("{steps} steps: {tally:?}");
    for what in [
        "held",
        "attached",
        "granted",
        "refused",
        "cancelled",
        "spent",
        "spent through",
        "crash",
        "cooling down",
        "full",
        "rolled back",
        "put back",
    ] {
        assert!(tally.get(what).is_some_and(|times| *times >= steps / 5000), "{what}: {tally:?}");
    }
}
