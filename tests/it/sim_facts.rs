//! Deterministic simulation of selections on a server that carries out what it was sent whenever it
//! likes: before it answers, and for a while also after a client has given up. Whatever the policy
//! is told that the session has selected is what the server has selected, whenever the call that
//! was judged by it is carried out: other calls and selections may be sent before (threat H8).
//!
//! `SIM_SEED`, `SIM_SEEDS` and `SIM_STEPS` are those of the other simulations.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::Obligation;
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::Act;
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::question::handles::HandleStore;
use bartizan_gate::question::pack::Pack;
use bartizan_gate::question::readers::FactReader;
use bartizan_gate::session::{
    Arrival, ErrorAnswer, Gate, Protected, RefusalForm, Session, UpstreamFailure,
};
use bartizan_rego::Random;
use bartizan_testing::{ByName, Sink};
use serde_json::{Value, json};

use crate::sim::{config, counts, transport};

const PROJECTS: usize = 3;
const SESSIONS: usize = 3;
/// Each scope with the tool that selects.
const SCOPES: [&str; 3] = ["session", "principal", "server"];

const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "tools": {
    "session": {"effect": "read", "facts": {"session": "/project"}},
    "principal": {"effect": "read", "facts": {"principal": {"at": "/project", "scope": "principal"}}},
    "server": {"effect": "read", "facts": {"server": {"at": "/project", "scope": "server"}}},
    "act": {"effect": "read"}
  }
}"#;

/// `act` passes where the fact that it names has the value that it names.
fn judge(name: &str, request: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    if name != "act" {
        return Some(Vec::new());
    }
    let told = |member| {
        let arguments = request.params.and_then(|params| params.get("arguments"))?;
        arguments.get(member)?.as_str()
    };
    let known = request.facts.get(told("fact")?).map(|value| &**value);
    (known == told("project")).then(Vec::new)
}

/// A selection that the server has got.
#[derive(Clone)]
struct Selection {
    session: usize,
    scope: usize,
    project: usize,
    id: u64,
    call: CallId,
    /// Whether the server has carried it out.
    done: bool,
    /// Since when nobody waits for its answer.
    given_up: Option<Duration>,
}

/// A call that was judged by a fact, and that the server has not carried out yet.
#[derive(Clone)]
struct Pending {
    session: usize,
    scope: usize,
    project: usize,
    id: u64,
    call: CallId,
    given_up: Option<Duration>,
}

struct Simulation {
    seed: u64,
    step: u64,
    random: Random,
    gate: Gate,
    sessions: Vec<Session>,
    uptime: Duration,
    next_id: u64,
    /// What the server has selected, by scope and session. All sessions are one principal's, but
    /// the last, which is another's.
    selected: [[Option<usize>; SESSIONS]; 3],
    /// Those that have no answer yet.
    open: Vec<Selection>,
    pending: Vec<Pending>,
    /// Selections that were refused.
    kept_off: usize,
    passed: usize,
    refused: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let pack = Some(Arc::new(Pack::read(PACK.as_bytes()).unwrap()));
        let facts = Server { pack, ..Server::default() };
        let server = Arc::new(Protected::new(facts, RefusalForm::Error));
        let session = |number: usize| {
            let id = if number + 1 < SESSIONS { "a" } else { "b" };
            let who = Arc::new(Principal { id: id.into(), ..Principal::default() });
            Session::new(who, Arc::clone(&server), transport(seed))
        };
        Self {
            seed,
            step: 0,
            random: Random::new(seed),
            gate: Gate::new(config(64, 4), Arc::new(ByName::new(judge))),
            sessions: (0..SESSIONS).map(session).collect(),
            uptime: Duration::ZERO,
            next_id: 1,
            selected: [[None; SESSIONS]; 3],
            open: Vec::new(),
            pending: Vec::new(),
            kept_off: 0,
            passed: 0,
            refused: 0,
        }
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, wall: UNIX_EPOCH }
    }

    /// The sessions for which the server holds one selection.
    fn shares(scope: usize, session: usize) -> std::ops::Range<usize> {
        match scope {
            0 => session..session + 1,
            1 if session + 1 == SESSIONS => session..SESSIONS,
            1 => 0..SESSIONS - 1,
            _ => 0..SESSIONS,
        }
    }

    fn client(&mut self, session: usize, message: &Value) -> Option<CallId> {
        let arrival = Arrival { raw: message.to_string().into(), ..Arrival::default() };
        let now = self.now();
        let step = self.sessions[session].client_frame(&self.gate, &arrival, now);
        let refuses = self.random.below(16) == 0;
        let sink = if refuses { Sink::refusing() } else { Sink::default() };
        match step.record(&sink) {
            Ok(Act::Forward(permitted)) => Some(Arc::clone(permitted.call())),
            Ok(Act::Deliver(_) | Act::Hold(_) | Act::Drop) => None,
            Err(_) => {
                let open = self.sessions[session].in_flight();
                let (open_ones, pending) = (self.open.iter(), self.pending.iter());
                let known = open_ones.map(|it| &it.call).chain(pending.map(|it| &it.call));
                let known: Vec<_> = known.cloned().collect();
                let ours = open.iter().filter(|call| !known.contains(call));
                for call in ours {
                    self.sessions[session].forget(call);
                }
                None
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.next_id += 1;
        json!({"jsonrpc": "2.0", "id": self.next_id, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}})
    }

    fn select(&mut self) {
        let (session, scope) = (self.random.below(SESSIONS), self.random.below(3));
        let project = self.random.below(PROJECTS);
        let message = self.call(SCOPES[scope], &json!({"project": project.to_string()}));
        if let Some(call) = self.client(session, &message) {
            let id = self.next_id;
            let selection =
                Selection { session, scope, project, id, call, done: false, given_up: None };
            self.open.push(selection);
        } else {
            self.kept_off += 1;
        }
    }

    fn carry_out(&mut self, index: usize) {
        let Selection { session, scope, project, given_up, .. } = self.open[index];
        if given_up.is_some_and(|since| self.uptime >= since + HandleStore::LATE_MAX) {
            self.open.remove(index);
            return;
        }
        self.open[index].done = true;
        for session in Self::shares(scope, session) {
            self.selected[scope][session] = Some(project);
        }
    }

    fn some(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.random.below(self.open.len()))
    }

    fn answer(&mut self) {
        let Some(index) = self.some() else { return };
        let failed = self.random.below(4) == 0;
        let skips = failed && self.random.below(2) == 0;
        if !(self.open[index].done || skips) {
            let count = self.open.len();
            self.carry_out(index);
            if self.open.len() < count {
                return;
            }
        }
        let Selection { session, id, .. } = self.open.remove(index);
        let answer = if self.random.below(8) == 0 {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": "no"}})
        } else {
            json!({"jsonrpc": "2.0", "id": id, "result": {"content": [], "isError": failed}})
        };
        let now = self.now();
        let step = self.sessions[session].server_frame(&self.gate, &answer.to_string().into(), now);
        let sink = if self.random.below(16) == 0 { Sink::refusing() } else { Sink::default() };
        drop(step.record(&sink));
    }

    /// Nobody waits for the answer any more.
    fn give_up(&mut self) {
        let Some(index) = self.some() else { return };
        let Selection { session, id, ref call, given_up, .. } = self.open[index];
        if given_up.is_none() {
            let call = Arc::clone(call);
            self.stop_waiting(session, id, &call);
            self.open[index].given_up = Some(self.uptime);
        }
    }

    fn give_up_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.random.below(self.pending.len());
        let Pending { session, id, ref call, given_up, .. } = self.pending[index];
        if given_up.is_none() {
            let call = Arc::clone(call);
            self.stop_waiting(session, id, &call);
            self.pending[index].given_up = Some(self.uptime);
        }
    }

    fn stop_waiting(&mut self, session: usize, id: u64, call: &CallId) {
        let now = self.now();
        let ended = match self.random.below(5) {
            0 => self.sessions[session].client_gone(call, now),
            1 => self.sessions[session].upstream_failed(call, &UpstreamFailure::TimedOut, now),
            2 => self.sessions[session].upstream_failed(call, &UpstreamFailure::EndedEarly, now),
            3 => {
                let answer =
                    ErrorAnswer { status: 504, challenge_dropped: false, body: "late".into() };
                self.sessions[session].upstream_status(&self.gate, call, answer, now)
            }
            _ => {
                let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
                let told = self.client(session, &cancel);
                told.and_then(|told| self.sessions[session].upstream_accepted(&told, now))
            }
        };
        if let Some(step) = ended {
            drop(step.record(&Sink::default()));
        }
    }

    fn act(&mut self) {
        let (session, scope) = (self.random.below(SESSIONS), self.random.below(3));
        let project = self.random.below(PROJECTS);
        let arguments = json!({"fact": SCOPES[scope], "project": project.to_string()});
        let message = self.call("act", &arguments);
        let id = self.next_id;
        let Some(call) = self.client(session, &message) else {
            self.refused += 1;
            return;
        };
        self.pending.push(Pending { session, scope, project, id, call, given_up: None });
        if self.random.below(4) > 0 {
            self.land(self.pending.len() - 1);
        }
    }

    /// The server carries out a call, and answers it.
    fn land(&mut self, index: usize) {
        let Pending { session, scope, project, id, given_up, .. } = self.pending.remove(index);
        if given_up.is_some_and(|since| self.uptime >= since + FactReader::OWED_FOR) {
            return;
        }
        // The server carries out what it can just before, and only then this call.
        let others: Vec<usize> = (0..self.open.len())
            .filter(|index| !self.open[*index].done && self.open[*index].scope == scope)
            .collect();
        if let Some(other) = others.first() {
            self.carry_out(*other);
        }
        let landed = self.selected[scope][session];
        assert!(
            landed == Some(project),
            "seed {} step {}: judged for {project}, it lands in {landed:?} ({})",
            self.seed,
            self.step,
            SCOPES[scope]
        );
        self.passed += 1;
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
        let now = self.now();
        let step = self.sessions[session].server_frame(&self.gate, &answer.to_string().into(), now);
        drop(step.record(&Sink::default()));
    }

    fn one(&mut self) {
        match self.random.below(100) {
            0..=9 => self.select(),
            10..=14 => {
                if let Some(index) = self.some()
                    && !self.open[index].done
                {
                    self.carry_out(index);
                }
            }
            15..=34 => self.answer(),
            35..=36 => self.give_up(),
            37..=38 => self.give_up_pending(),
            39..=48 if !self.pending.is_empty() => {
                let index = self.random.below(self.pending.len());
                self.land(index);
            }
            39..=95 => self.act(),
            _ => {
                let most = if self.random.below(2) == 0 { 20 } else { 600 };
                self.uptime += Duration::from_secs(self.random.below(most) as u64);
            }
        }
    }
}

fn run(seed: u64, steps: u64) -> [usize; 3] {
    let mut simulation = Simulation::new(seed);
    for step in 0..steps {
        simulation.step = step;
        simulation.one();
    }
    [simulation.passed, simulation.refused, simulation.kept_off]
}

#[test]
fn what_a_session_has_selected_is_known_only_if_the_server_holds_it() {
    let seen = counts(run);
    assert!(seen.iter().all(|count| *count > 100), "passed, refused, selections refused: {seen:?}");
}
