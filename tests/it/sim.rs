//! Deterministic simulation of one session: interleaved frames of both sides, limits, reloads,
//! refusing sinks, failures and disconnects, checked against a model after each step.
//!
//! `SIM_SEED` replays one seed, `SIM_SEEDS` and `SIM_STEPS` widen the sweep. Every failure names
//! its seed and step.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bartizan_gate::duty::decision::{Bound, HoldRule, Limit, Obligation, PolicyRevision, Rate};
use bartizan_gate::evidence::record::{CallId, Event, Now, Outcome};
use bartizan_gate::evidence::step::{Act, Step};
use bartizan_gate::question::access::{AccessRequest, Principal, Resource, Server};
use bartizan_gate::session::{
    Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session, UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::{Direction, Transport};
use bartizan_rego::Random;
use bartizan_testing::{ByName, Sink};
use bytes::Bytes;

use crate::invariants::stubs::proof_is_true;

const LIMIT_BURST: u32 = 3;
const LIMIT_PER_SECOND: u32 = 2;
const IN_FLIGHT_MAX: usize = 24;
/// Calls of `busy` in flight at once.
const BUSY_MAX: u32 = 3;

/// Decides by the tool's name, so that the model knows what must happen.
fn judge(name: &str, request: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    if let Resource::Answer { result: Some(result), .. } = request.resource {
        return result.get("denied").is_none().then(Vec::new);
    }
    match name {
        "limited" => Some(vec![Obligation::Limit(Limit {
            code: "limited".into(),
            key: request.principal.id.clone(),
            bound: Bound::Bucket {
                rate: Rate { count: LIMIT_PER_SECOND, period: Duration::from_secs(1) },
                burst: LIMIT_BURST,
            },
            cost: 1,
        })]),
        "busy" => Some(vec![busy()]),
        "held" => Some(vec![Obligation::Hold(HoldRule {
            code: "held".into(),
            message: "held".into(),
            tell: None,
            approvers: Vec::new(),
            ttl: None,
            quorum: 1,
            scopes: Vec::new(),
        })]),
        "sampling/createMessage" => None,
        name => (!name.contains("denied")).then(Vec::new),
    }
}

fn busy() -> Obligation {
    let (code, key) = ("busy".into(), "all".into());
    Obligation::Limit(Limit { code, key, bound: Bound::InFlight(BUSY_MAX), cost: 1 })
}

fn policy(revision: PolicyRevision) -> Arc<ByName> {
    Arc::new(ByName { revision, judge, hides: |name| name.contains("hidden") })
}

struct Simulation {
    seed: u64,
    step: u64,
    random: Random,
    gate: Gate,
    sink: Sink,
    session: Session,
    now: Now,
    /// Ids in flight, by the model, with the call that carries each.
    in_flight: BTreeMap<u64, CallId>,
    /// Server requests that the client has not answered.
    asked: BTreeSet<u64>,
    /// Ids of server requests that were delivered.
    asked_ever: BTreeSet<u64>,
    /// When requests ended that still count as in flight.
    cancelled: Vec<Duration>,
    limited_at: Vec<Duration>,
    /// The ids of all calls of `busy`.
    busy: BTreeSet<u64>,
    next_id: u64,
    revision: u64,
    acts: usize,
    transcript: u64,
}

impl Simulation {
    fn below(&mut self, bound: usize) -> u64 {
        self.random.below(bound) as u64
    }

    fn new(seed: u64) -> Self {
        let gate = Gate::new(config(IN_FLIGHT_MAX, 64), policy("rev-0".into()));
        let principal = Principal { id: "agent".into(), ..Principal::default() };
        let server = Server { name: "sim".into(), ..Server::default() };
        let server = Protected::new(server, RefusalForm::Error);
        let session = Session::new(Arc::new(principal), Arc::new(server), Transport::Stdio);
        Self {
            seed,
            step: 0,
            random: Random::new(seed),
            gate,
            sink: Sink::default(),
            session,
            now: Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH },
            in_flight: BTreeMap::new(),
            asked: BTreeSet::new(),
            asked_ever: BTreeSet::new(),
            cancelled: Vec::new(),
            limited_at: Vec::new(),
            busy: BTreeSet::new(),
            next_id: 0,
            revision: 0,
            acts: 0,
            transcript: 0,
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {} step {}: {what}", self.seed, self.step)
    }

    /// Takes the act out of a step and checks that its record was kept for it.
    fn take(&mut self, step: Step) -> Option<Act> {
        let before = self.sink.kept().len();
        match step.record(&self.sink) {
            Ok(act) => {
                let kept = self.sink.kept().len();
                assert!(
                    kept > before,
                    "seed {} step {}: an act without a record",
                    self.seed,
                    self.step
                );
                self.acts += 1;
                self.note(&act);
                Some(act)
            }
            Err(unrecorded) => {
                if !self.sink.refusing.load(Ordering::Relaxed) {
                    self.fail("a record was lost though the sink kept records");
                }
                if let Some(call) = unrecorded.call {
                    self.session.forget(&call);
                    self.in_flight.retain(|_, flying| *flying != call);
                }
                None
            }
        }
    }

    fn note(&mut self, act: &Act) {
        proof_is_true(act);
        let (tag, body) = match act {
            Act::Forward(permitted) => (1_u64, permitted.body().clone()),
            Act::Deliver(released) => (2, released.body().clone()),
            Act::Hold(_) | Act::Drop => (3, Bytes::new()),
        };
        for byte in tag.to_le_bytes().into_iter().chain(body) {
            self.transcript = (self.transcript ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn client(&mut self, text: String) -> (Option<Act>, Bytes) {
        let raw = Bytes::from(text);
        let arrival = Arrival { raw: raw.clone(), ..Arrival::default() };
        let step = self.session.client_frame(&self.gate, &arrival, self.now);
        (self.take(step), raw)
    }

    fn server(&mut self, text: String) -> Option<Act> {
        let step = self.session.server_frame(&self.gate, &text.into(), self.now);
        self.take(step)
    }

    fn call_tool(&mut self) {
        let tools = ["open", "open", "limited", "limited", "busy", "busy", "held", "denied"];
        let tool = *self.random.pick(&tools).unwrap();
        let duplicate = self.random.below(6) == 0 && !self.in_flight.is_empty();
        let id = if duplicate {
            *self.in_flight.keys().next().unwrap()
        } else {
            self.next_id += 1;
            self.next_id
        };
        let full = self.is_full();
        let text = format!(
            "{{ \"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{{\"n\":1e2}}}}}}"
        );
        let (act, raw) = self.client(text);
        match act {
            Some(Act::Forward(permitted)) => {
                if duplicate || full || matches!(tool, "held" | "denied") {
                    self.fail("forwarded what must not pass");
                }
                assert_eq!(permitted.body(), &raw, "seed {}: not byte for byte", self.seed);
                if tool == "limited" {
                    self.limited_at.push(self.now.uptime);
                    self.check_limit();
                }
                self.in_flight.insert(id, permitted.call().clone());
                if tool == "busy" {
                    self.busy.insert(id);
                    self.check_busy();
                }
            }
            Some(Act::Deliver(released)) => {
                if tool == "open" && !duplicate && !full {
                    self.fail("refused what must pass");
                }
                let body = String::from_utf8(released.body().to_vec()).unwrap();
                assert!(body.contains(&format!("\"id\":{id}")) && body.contains("\"error\""));
                assert!(!body.contains("by-name"), "a refusal names a rule: {body}");
            }
            Some(Act::Hold(_) | Act::Drop) => self.fail("a request was dropped without an answer"),
            None => {}
        }
    }

    /// Never more calls in flight than the limit permits.
    fn check_busy(&self) {
        let busy = self.in_flight.keys().filter(|id| self.busy.contains(id)).count();
        if busy > BUSY_MAX as usize {
            self.fail(&format!("{busy} calls of `busy` in flight"));
        }
    }

    /// Once everything is over, every place is free: none was lost.
    fn check_places(&self) {
        let Obligation::Limit(limit) = busy() else { panic!("not a limit") };
        let later = self.now.uptime + Duration::from_mins(1);
        let take = || self.gate.limits().spend(std::iter::once(&limit), later);
        let held: Vec<_> = (0..=BUSY_MAX).map(|_| take()).collect();
        let free = held.iter().filter(|place| place.is_ok()).count();
        assert_eq!(free, BUSY_MAX as usize, "seed {}: places lost", self.seed);
    }

    /// Never more than burst + rate × window, whatever the clock did.
    fn check_limit(&self) {
        let last = *self.limited_at.last().unwrap();
        for (index, start) in self.limited_at.iter().enumerate() {
            let window = last.saturating_sub(*start).as_secs_f64();
            let spent = (self.limited_at.len() - index) as f64;
            let allowed = f64::from(LIMIT_BURST) + window * f64::from(LIMIT_PER_SECOND) + 1e-6;
            if spent > allowed {
                self.fail(&format!("{spent} calls in {window} s"));
            }
        }
    }

    fn malformed(&mut self) {
        let text = match self.random.below(40) {
            0 => " ".repeat((4 << 20) + 1),
            1..=9 => "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}".into(),
            10..=19 => "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]".into(),
            20..=29 => {
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"Method\":\"ping\",\"method\":\"ping\"}".into()
            }
            _ => "{".into(),
        };
        match self.client(text).0 {
            Some(Act::Deliver(_)) | None => {}
            Some(Act::Forward(_) | Act::Hold(_) | Act::Drop) => {
                self.fail("a malformed frame was not refused")
            }
        }
    }

    fn is_full(&mut self) -> bool {
        let now = self.now.uptime;
        self.cancelled.retain(|end| now.saturating_sub(*end) < Duration::from_secs(30));
        self.session.in_flight().len() + self.cancelled.len() >= IN_FLIGHT_MAX
    }

    fn notify(&mut self) {
        let denied = self.random.below(3) == 0;
        let method = if denied { "notifications/denied" } else { "notifications/initialized" };
        let full = self.is_full();
        let act = self.client(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}")).0;
        match act {
            Some(Act::Forward(permitted)) => {
                if denied || full {
                    self.fail("a denied notification was forwarded");
                }
                let call = permitted.call().clone();
                self.settle(|session, now| session.upstream_accepted(&call, now));
            }
            Some(Act::Deliver(_)) => self.fail("a notification was answered on stdio"),
            Some(Act::Hold(_) | Act::Drop) | None => {}
        }
    }

    fn settle(&mut self, close: impl FnOnce(&mut Session, Now) -> Option<Step>) {
        if let Some(step) = close(&mut self.session, self.now) {
            drop(self.take(step));
        }
    }

    fn cancel(&mut self) {
        let Some((id, _)) = self.in_flight.iter().next().map(|(id, call)| (*id, call.clone()))
        else {
            return;
        };
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id}}}}}"
        );
        if let Some(Act::Forward(permitted)) = self.client(text).0 {
            self.in_flight.remove(&id);
            self.cancelled.push(self.now.uptime);
            let call = permitted.call().clone();
            self.settle(|session, now| session.upstream_accepted(&call, now));
        } else if self.sink.refusing.load(Ordering::Relaxed) {
            // The cancellation was not recorded and not sent, but its request counts as ended.
            self.in_flight.remove(&id);
            self.cancelled.push(self.now.uptime);
        }
    }

    fn answer(&mut self) {
        let known = self.random.below(4) != 0 && !self.in_flight.is_empty();
        let id = if known {
            let index = self.random.below(self.in_flight.len());
            *self.in_flight.keys().nth(index).unwrap()
        } else {
            self.next_id + 1000
        };
        let asks = self.random.below(4) == 0;
        let text = match self.random.below(3) {
            // A legacy client offers nothing on its request, so nothing may be asked in the answer.
            _ if asks => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"inputRequests\":{{\"a\":{{\"method\":\"roots/list\"}}}}}}}}"
            ),
            0 => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-1,\"message\":\"x\"}}}}"
            ),
            _ => format!("{{\"jsonrpc\":\"2.0\", \"id\":{id},\"result\":{{\"content\":[]}}}}"),
        };
        match self.server(text.clone()) {
            Some(Act::Deliver(released)) => {
                if !known {
                    self.fail("an answer that nobody asked for was delivered");
                }
                assert_eq!(released.is_own(), asks, "a question inside an answer");
                assert!(asks || released.body() == text.as_bytes());
                self.in_flight.remove(&id);
            }
            Some(Act::Hold(_) | Act::Drop) if known => self.fail("an awaited answer was dropped"),
            Some(Act::Forward(_)) => self.fail("an answer went back to the server"),
            Some(Act::Hold(_) | Act::Drop) => {}
            None => {
                self.in_flight.remove(&id);
            }
        }
    }

    fn server_request(&mut self) {
        let id = if self.random.below(4) == 0 { self.below(8) } else { self.step };
        let method = *self.random.pick(&["roots/list", "sampling/createMessage", "ping"]).unwrap();
        let known = self.asked.contains(&id);
        let used = self.asked_ever.contains(&id);
        let text =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{}}}}");
        match self.server(text) {
            Some(Act::Deliver(_)) => {
                if used || method == "sampling/createMessage" {
                    self.fail("a server request passed that must not");
                }
                self.asked.insert(id);
                self.asked_ever.insert(id);
            }
            Some(Act::Forward(permitted)) => {
                let fits = !used && self.asked.len() < IN_FLIGHT_MAX;
                if method != "sampling/createMessage" && fits {
                    self.fail("a permitted server request was refused");
                }
                assert!(permitted.body().windows(7).any(|part| part == b"\"error\""));
            }
            Some(Act::Hold(_) | Act::Drop) if !known => self.fail("a server request vanished"),
            Some(Act::Hold(_) | Act::Drop) | None => {}
        }
    }

    fn client_answer(&mut self) {
        let index = self.below(8);
        let id = self.asked.iter().nth(index as usize).copied().unwrap_or(index);
        let outstanding = self.asked.remove(&id);
        let denied = self.random.below(4) == 0;
        let result = if denied { "{\"denied\":true}" } else { "{}" };
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
        let act = self.client(text.clone()).0;
        match act {
            Some(Act::Forward(_)) if !outstanding => self.fail("a forged answer was forwarded"),
            Some(Act::Forward(permitted)) if (permitted.body() == text.as_bytes()) == denied => {
                self.fail("an answer passed, or not, against the policy")
            }
            Some(Act::Hold(_) | Act::Drop) if outstanding => {
                self.fail("an awaited answer was dropped")
            }
            Some(Act::Deliver(_)) => self.fail("an answer was answered"),
            Some(Act::Forward(_) | Act::Hold(_) | Act::Drop) | None => {}
        }
    }

    fn fail_upstream(&mut self) {
        let Some((id, call)) = self.in_flight.iter().next().map(|(id, call)| (*id, call.clone()))
        else {
            return;
        };
        if !self.session.awaits(&call) {
            self.fail("the session lost a call that the model knows");
        }
        self.in_flight.remove(&id);
        if self.random.below(2) == 0 {
            self.cancelled.push(self.now.uptime);
            self.settle(|session, now| session.client_gone(&call, now));
        } else {
            let failure = UpstreamFailure::EndedEarly;
            self.settle(|session, now| session.upstream_failed(&call, &failure, now));
        }
    }

    fn tick(&mut self) {
        let jump = if self.random.below(50) == 0 { 3_600_000 } else { self.below(400) };
        self.now.uptime += Duration::from_millis(jump);
        // The wall clock may jump in any direction; only the time in records may show it.
        let wall = self.below(1 << 40);
        self.now.wall = SystemTime::UNIX_EPOCH + Duration::from_millis(wall);
    }

    fn one(&mut self) {
        match self.random.below(100) {
            0..=34 => self.call_tool(),
            35..=40 => self.malformed(),
            41..=48 => self.notify(),
            49..=52 => self.cancel(),
            53..=72 => self.answer(),
            73..=79 => self.server_request(),
            80..=85 => self.client_answer(),
            86..=88 => self.fail_upstream(),
            89..=94 => self.tick(),
            95..=96 => {
                self.revision += 1;
                let revision = format!("rev-{}", self.revision).into();
                self.gate.replace_policy(policy(revision));
            }
            97 => self.sink.refusing.store(true, Ordering::Relaxed),
            _ => self.sink.refusing.store(false, Ordering::Relaxed),
        }
        for (id, call) in &self.in_flight {
            if !self.session.awaits(call) {
                self.fail(&format!("id {id} is in flight by the model only"));
            }
        }
        if self.session.in_flight().len() > IN_FLIGHT_MAX {
            self.fail("more in flight than the limit");
        }
    }

    fn finish(mut self) -> u64 {
        self.sink.refusing.store(false, Ordering::Relaxed);
        for call in self.session.in_flight() {
            let failure = UpstreamFailure::Unreachable("gone".into());
            self.settle(|session, now| session.upstream_failed(&call, &failure, now));
        }
        assert!(self.session.in_flight().is_empty(), "seed {}: tables not empty", self.seed);
        self.check_places();
        self.check_records();
        self.transcript
    }

    /// Every kept intent towards the server has its permit and at most one outcome.
    fn check_records(&self) {
        let kept = self.sink.kept();
        let mut open = BTreeSet::new();
        for record in kept.iter() {
            let call = record.call.clone().expect("every record of a session names its call");
            match record.event {
                Event::Intent => {
                    let decision = record.decision.as_ref();
                    assert!(decision.is_none_or(|decision| decision.effect == "permit"));
                    assert!(open.insert(call), "seed {}: two intents of one call", self.seed);
                    assert!(record.outcome.is_none());
                }
                Event::Outcome => {
                    // A record refused by the sink may have taken the intent with it.
                    open.remove(&call);
                    assert_ne!(record.outcome, Some(Outcome::Unknown));
                }
                Event::Denial => {
                    let decision = record.decision.as_ref().expect("a denial says why");
                    assert_eq!(decision.effect, "deny");
                    assert!(!decision.reasons.is_empty());
                    assert!(decision.policy.starts_with("rev-"));
                }
                Event::Notice | Event::Drop => {}
                other => panic!("seed {}: unexpected {other:?}", self.seed),
            }
            assert_eq!(record.principal.as_deref(), Some("agent"));
            if record.direction == Some(Direction::ToServer.as_str()) {
                assert_eq!(record.server.as_deref(), Some("sim"));
            }
        }
    }
}

/// The number in an environment variable.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The configuration of a gate.
pub(crate) fn config(in_flight_max: usize, buckets_max: usize) -> GateConfig {
    GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max,
        buckets_max,
        boot: "sim".into(),
        digest_key: [7; 32],
    }
}

/// Each transport in turn.
pub(crate) fn transport(seed: u64) -> Transport {
    if seed.is_multiple_of(2) { Transport::Stdio } else { Transport::Http }
}

/// What `run` counts with all seeds; it gets a seed and a number of steps.
pub(crate) fn counts(run: fn(u64, u64) -> [usize; 3]) -> [usize; 3] {
    let steps = number("SIM_STEPS", 1500);
    let seeds = match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..number("SIM_SEEDS", 32)).collect(),
    };
    let mut seen = [0; 3];
    for seed in seeds {
        for (all, one) in seen.iter_mut().zip(run(seed, steps)) {
            *all += one;
        }
    }
    seen
}

fn run(seed: u64, steps: u64) -> u64 {
    let mut simulation = Simulation::new(seed);
    for step in 0..steps {
        simulation.step = step;
        simulation.one();
    }
    simulation.finish()
}

#[test]
fn a_session_keeps_its_invariants_under_any_interleaving() {
    let steps = number("SIM_STEPS", 1500);
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().expect("SIM_SEED is a number"), steps);
        return;
    }
    for seed in 0..number("SIM_SEEDS", 96) {
        run(seed, steps);
    }
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    for seed in [1, 42, 1000] {
        assert_eq!(run(seed, 800), run(seed, 800));
    }
    assert_ne!(run(1, 800), run(2, 800));
}
