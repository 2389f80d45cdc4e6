//! Deterministic simulation of a client and a server that cancel, repeat and reuse whatever they
//! can, on one session. Each message of the server carries the number of the call that caused it and
//! a secret, so that for each delivered byte the model knows which call's duties must hold.
//!
//! `SIM_SEED`, `SIM_SEEDS` and `SIM_STEPS` are those of the other simulation.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::single_match_else,
    clippy::unnecessary_wraps,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::Obligation;
use bartizan_gate::duty::redact::Redaction;
use bartizan_gate::evidence::record::{CallId, Event, Now};
use bartizan_gate::evidence::step::{Act, Released, Step};
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::session::{
    Arrival, Gate, Protected, Redelivery, RefusalForm, Session, UpstreamFailure,
};
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::Random;
use bartizan_testing::{ByName, Sink};
use serde_json::{Value, json};

use crate::sim::{config, counts, transport};

const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";
const IN_FLIGHT_MAX: usize = 12;

/// `guarded` must be redacted; nothing else need be.
fn judge(name: &str, _: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    let redact = Obligation::Redact { code: "secret".into(), redaction: Redaction::Secrets };
    Some(if name == "guarded" { vec![redact] } else { Vec::new() })
}

/// How a call stands, as the client and the server know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Answered,
    Ended,
}

/// A request that reached the server.
struct Sent {
    call: CallId,
    id: Value,
    token: Option<Value>,
    guarded: bool,
    lists: bool,
    state: State,
    /// Whether a late answer was recorded as this call's.
    late: bool,
}

struct Simulation {
    seed: u64,
    step: u64,
    random: Random,
    gate: Gate,
    sink: Sink,
    session: Session,
    transport: Transport,
    uptime: Duration,
    /// What reached the server, in order: a call's number is its place.
    sent: Vec<Sent>,
    /// Ids used, as text: `1` and `"1"` are one.
    used: BTreeSet<String>,
    /// Ids of the server's questions that were delivered, each with whether it is open.
    asked: BTreeMap<u64, bool>,
    /// Late answers that were withheld, and messages that were redacted: the run must have some.
    withheld: usize,
    redacted: usize,
    reuses: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let policy = ByName { hides: |name| name == "hidden", ..ByName::new(judge) };
        let transport = transport(seed);
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        Self {
            seed,
            step: 0,
            random: Random::new(seed),
            gate: Gate::new(config(IN_FLIGHT_MAX, 4), Arc::new(policy)),
            sink: Sink::default(),
            session: Session::new(Arc::<Principal>::default(), server, transport),
            transport,
            uptime: Duration::ZERO,
            sent: Vec::new(),
            used: BTreeSet::new(),
            asked: BTreeMap::new(),
            withheld: 0,
            redacted: 0,
            reuses: 0,
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {} step {}: {what}", self.seed, self.step)
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, wall: UNIX_EPOCH }
    }

    fn take(&mut self, step: Step) -> Act {
        step.record(&self.sink).unwrap()
    }

    fn client(&mut self, message: &Value) -> Option<CallId> {
        let arrival = Arrival { raw: message.to_string().into(), ..Arrival::default() };
        let step = self.session.client_frame(&self.gate, &arrival, self.now());
        match self.take(step) {
            Act::Forward(permitted) => Some(Arc::clone(permitted.call())),
            Act::Deliver(_) | Act::Hold(_) | Act::Drop => None,
        }
    }

    /// A recent call, or sometimes any.
    fn some_call(&mut self) -> Option<usize> {
        let count = self.sent.len();
        let window = if self.random.below(8) == 0 { count } else { count.min(16) };
        (window > 0).then(|| count - 1 - self.random.below(window))
    }

    fn spelt(id: &Value) -> String {
        id.as_str().map_or_else(|| id.to_string(), ToOwned::to_owned)
    }

    /// A request, under a new id or one that was used.
    fn call(&mut self) {
        let number = self.sent.len();
        let reused = if self.random.below(3) == 0 { self.some_call() } else { None };
        let mut id = match self.random.below(3) {
            0 => json!(number),
            1 => json!(number.to_string()),
            _ => json!(format!("id-{number}")),
        };
        if let Some(other) = reused {
            id = self.sent[other].id.clone();
            if self.random.below(3) == 0 {
                let text = Self::spelt(&id);
                id = if id.is_string() {
                    text.parse::<u64>().map_or(id, Value::from)
                } else {
                    text.into()
                };
            }
        }
        let token = match self.random.below(4) {
            0 => Some(id.clone()),
            1 => self.some_call().and_then(|other| self.sent[other].token.clone()),
            _ => None,
        };
        let (guarded, lists) = match self.random.below(4) {
            0 => (false, true),
            1 => (true, false),
            _ => (false, false),
        };
        let name = if guarded { "guarded" } else { "plain" };
        let meta =
            token.as_ref().map_or_else(|| json!({}), |token| json!({"progressToken": token}));
        let message = if lists {
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": {"_meta": meta}})
        } else {
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "_meta": meta}})
        };
        let Some(call) = self.client(&message) else {
            self.reuses += usize::from(reused.is_some());
            return;
        };
        if !self.used.insert(Self::spelt(&id)) {
            self.fail(&format!("{id} reached the server twice"));
        }
        if let Some(token) = &token {
            let same = |it: &&Sent| it.token.as_ref().map(Self::spelt) == Some(Self::spelt(token));
            if self.sent.iter().filter(same).any(|it| it.state != State::Answered) {
                self.fail(&format!("token {token} may still be another call's"));
            }
        }
        self.sent.push(Sent { call, id, token, guarded, lists, state: State::Open, late: false });
    }

    /// The client ends a call without its answer, or tries to.
    fn end(&mut self) {
        let Some(number) = self.some_call() else { return };
        let (call, id) = (Arc::clone(&self.sent[number].call), self.sent[number].id.clone());
        let open = self.sent[number].state == State::Open;
        let now = self.now();
        let step = match self.random.below(6) {
            0 => self.session.client_gone(&call, now),
            1 => self.session.upstream_failed(&call, &UpstreamFailure::TimedOut, now),
            2 => self.session.upstream_failed(&call, &UpstreamFailure::EndedEarly, now),
            _ => {
                let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
                let told = self.client(&cancel);
                assert_eq!(told.is_some(), open, "seed {}: {cancel}", self.seed);
                told.and_then(|told| self.session.upstream_accepted(&told, now))
            }
        };
        if let Some(step) = step {
            drop(self.take(step));
        }
        if open {
            self.sent[number].state = State::Ended;
        }
        if self.session.awaits(&call) {
            self.fail("an ended call still waits");
        }
    }

    /// The server answers a call, whatever has become of it.
    fn answer(&mut self) {
        let Some(number) = self.some_call() else { return };
        let Sent { ref call, ref id, guarded, lists, state, late, .. } = self.sent[number];
        let text = format!("call {number} {SECRET}");
        let result = json!({"content": [{"type": "text", "text": text}],
            "tools": [{"name": "hidden", "inputSchema": {"type": "object"}}]});
        let failed = !lists && self.random.below(4) == 0;
        let answer = if failed {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": text}})
        } else {
            json!({"jsonrpc": "2.0", "id": id, "result": result})
        };
        let call = Arc::clone(call);
        let within =
            (self.transport == Transport::Http && self.random.below(2) == 0).then_some(&call);
        let resumed = within.is_none() && self.random.below(2) == 0;
        let redelivery = Redelivery { numbered: self.random.below(2) == 0, resumed };
        let delivered = self.server(within, &answer, redelivery);
        let (last, event) = {
            let kept = self.sink.kept();
            let last = kept.last().unwrap();
            (last.call.clone(), last.event)
        };
        match delivered {
            Some(released) => {
                let body = String::from_utf8(released.body().to_vec()).unwrap();
                // An answer again, on a resumed stream, is the only one that may come twice.
                let again = state == State::Answered && resumed;
                if state != State::Open && !again {
                    self.fail(&format!("call {number} is {state:?}: {body}"));
                }
                if last.as_ref() != Some(&call) && state == State::Open {
                    self.fail("recorded as another call's answer");
                }
                if body.contains(SECRET) == guarded {
                    self.fail(&format!("call {number}, guarded: {guarded}: {body}"));
                }
                if lists && body.contains("hidden") {
                    self.fail(&format!("the list of call {number} is not filtered: {body}"));
                }
                self.redacted += usize::from(guarded);
                self.sent[number].state = State::Answered;
            }
            None => {
                if state == State::Open {
                    self.fail(&format!("the answer to call {number} was not delivered"));
                }
                assert_eq!(event, Event::Drop);
                let recent = self.sent.len() - number <= 16;
                if state == State::Ended && !late && recent && last.as_ref() != Some(&call) {
                    self.fail(&format!("the late answer to call {number} is not recorded as its"));
                }
                self.withheld += usize::from(state == State::Ended);
                self.sent[number].late = true;
            }
        }
    }

    fn server(
        &mut self,
        within: Option<&CallId>,
        message: &Value,
        redelivery: Redelivery,
    ) -> Option<Released> {
        let raw = message.to_string().into();
        let step = self.session.server_event(&self.gate, within, &raw, redelivery, self.now());
        match self.take(step) {
            Act::Deliver(released) => Some(released),
            Act::Forward(_) | Act::Hold(_) | Act::Drop => None,
        }
    }

    /// The server says something about a call without naming it, or progress under its token.
    fn speak(&mut self) {
        let Some(number) = self.some_call() else { return };
        let text = format!("call {number} {SECRET}");
        let kind = self.random.below(3);
        let id = if self.random.below(4) == 0 { self.random.below(8) as u64 } else { self.step };
        let message = match (kind, &self.sent[number].token) {
            (0, Some(token)) => json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1, "message": text}}),
            (1, _) => json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create",
                "params": {"message": text}}),
            _ => json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": text}}),
        };
        let progress = kind == 0 && self.sent[number].token.is_some();
        let other = self.some_call().map(|other| Arc::clone(&self.sent[other].call));
        let within =
            other.filter(|_| self.transport == Transport::Http && self.random.below(2) == 0);
        let Some(released) = self.server(within.as_ref(), &message, Redelivery::default()) else {
            return;
        };
        let body = String::from_utf8(released.body().to_vec()).unwrap();
        // Nobody can tell which call it is about, so each that ever was may have caused it.
        let demanded = self.sent.iter().any(|it| it.guarded);
        if demanded && body.contains(SECRET) {
            self.fail(&format!("a secret of some call: {body}"));
        }
        if progress && self.sent[number].state != State::Open {
            let spelt = self.sent[number].token.as_ref().map(Self::spelt);
            let same = |it: &&Sent| it.token.as_ref().map(Self::spelt) == spelt;
            // A token may be used again once its request was answered, and only then.
            let heir = self.sent.iter().filter(same).any(|it| it.state == State::Open);
            if !heir || self.sent[number].state == State::Ended {
                self.fail(&format!("progress of call {number}, which is over: {body}"));
            }
        }
        if kind == 1 && !progress && self.asked.insert(id, true).is_some() {
            self.fail(&format!("the server's id {id} was delivered twice"));
        }
    }

    /// The client answers a question, or what it takes for one.
    fn client_answer(&mut self) {
        let index = self.random.below(self.asked.len().max(1));
        let Some((&id, &open)) = self.asked.iter().nth(index) else { return };
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"action": "decline"}});
        let passed = self.client(&answer).is_some();
        assert_eq!(passed, open, "seed {} step {}: question {id}", self.seed, self.step);
        self.asked.insert(id, false);
    }

    fn one(&mut self) {
        match self.random.below(100) {
            0..=34 => self.call(),
            35..=54 => self.end(),
            55..=79 => self.answer(),
            80..=89 => self.speak(),
            90..=94 => self.client_answer(),
            _ => self.uptime += Duration::from_secs(self.random.below(20) as u64),
        }
        let open = self.sent.iter().rev().take(64).filter(|it| it.state == State::Open);
        for sent in open {
            if !self.session.awaits(&sent.call) {
                self.fail(&format!("{} is open by the model only", sent.id));
            }
        }
        if self.session.in_flight().len() > IN_FLIGHT_MAX {
            self.fail("more in flight than the limit");
        }
    }
}

fn run(seed: u64, steps: u64) -> [usize; 3] {
    let mut simulation = Simulation::new(seed);
    for step in 0..steps {
        simulation.step = 100 + step;
        simulation.one();
        if simulation.sink.kept().len() > 1000 {
            simulation.sink.kept().clear();
        }
    }
    [simulation.withheld, simulation.redacted, simulation.reuses]
}

#[test]
fn every_byte_is_judged_under_the_duties_of_the_call_that_caused_it() {
    let seen = counts(run);
    assert!(seen.iter().all(|count| *count > 10), "late, redacted, refused ids: {seen:?}");
}
