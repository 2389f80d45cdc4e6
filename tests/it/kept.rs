//! What is kept for strangers between two messages is charged, by principal and in total, and what
//! does not fit is refused or forgotten (threats K4, K10).

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan::config::Config;
use bartizan_edge::http::{H2_CONNECTION_BYTES, HttpLimits, LONG_HEAD_BYTES};
use bartizan_edge::kept::FREE_BYTES;
use bartizan_gate::duty::limit::BUCKET_BYTES;
use bartizan_gate::evidence::record::{CallId, Event, Now};
use bartizan_gate::evidence::repeats::Repeats;
use bartizan_gate::evidence::step::{Act, Step};
use bartizan_gate::memory::MemoryBudget;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{
    Arrival, Gate, GateConfig, Mode, Protected, Redelivery, RefusalForm, Session, UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::{ByName, Sink};
use serde_json::{Value, json};

const KEPT_BYTES: usize = 512 << 10;
/// An arriving answer of at most so many bytes is not counted.
const SMALL_ANSWER_BYTES: usize = 16 << 10;

/// A gate whose policy permits everything, and a server.
struct Stage {
    gate: Gate,
    sink: Sink,
    server: Arc<Protected>,
}

impl Stage {
    fn new() -> Self {
        Self::keeping(KEPT_BYTES)
    }

    fn keeping(bytes: usize) -> Self {
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 256,
            buckets_max: 8,
            boot: "kept".into(),
            digest_key: [7; 32],
        };
        let policy = ByName::new(|_, _| Some(Vec::new()));
        let gate = Gate::new(config, Arc::new(policy)).keeping(bytes);
        let mut server = Protected::new(Server::default(), RefusalForm::Error);
        server.batches = true;
        Self { gate, sink: Sink::default(), server: Arc::new(server) }
    }

    fn memory(&self) -> &Arc<MemoryBudget> {
        self.gate.memory()
    }

    fn session(&self, principal: &str) -> Session {
        let who = Arc::new(Principal { id: principal.into(), ..Principal::default() });
        Session::new(who, Arc::clone(&self.server), Transport::Http)
    }

    fn act(&self, step: Step) -> Act {
        let act = step.record(&self.sink).unwrap();
        assert!(self.memory().used() <= self.memory().bytes_max(), "more than the budget");
        act
    }

    /// Whether a message of the client is forwarded: its call, or the code in the record of its
    /// refusal.
    fn client(&self, session: &mut Session, message: Value) -> Result<CallId, String> {
        self.sent(session, message, None)
    }

    fn sent(
        &self,
        session: &mut Session,
        message: Value,
        headers: Option<RoutingHeaders>,
    ) -> Result<CallId, String> {
        let arrival = Arrival { raw: message.to_string().into(), headers, ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, now());
        match self.act(step) {
            Act::Forward(permitted) => Ok(Arc::clone(permitted.call())),
            Act::Deliver(_) | Act::Hold(_) | Act::Drop => Err(self.reason().0),
        }
    }

    /// Records the end of a call.
    fn settled(&self, step: Option<Step>) {
        drop(step.map(|step| self.act(step)));
    }

    /// Whether a message of the server is delivered.
    fn server(&self, session: &mut Session, within: Option<&CallId>, message: Value) -> bool {
        let event = Redelivery { numbered: true, resumed: false };
        let raw = message.to_string().into();
        let step = session.server_event(&self.gate, within, &raw, event, now());
        matches!(self.act(step), Act::Deliver(released) if !released.is_own())
    }

    /// Code and message of the first reason of the last record.
    fn reason(&self) -> (String, String) {
        let kept = self.sink.kept();
        let decision = kept.last().unwrap().decision.as_ref().unwrap();
        let reason = &decision.reasons[0];
        (reason.code.to_string(), reason.message.to_string())
    }
}

fn now() -> Now {
    Now { uptime: Duration::from_secs(1), wall: UNIX_EPOCH }
}

/// A long text that differs by `number`.
fn long(number: usize) -> String {
    format!("{number:0>250}")
}

fn request(id: &str, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn call(number: usize) -> Value {
    let params =
        json!({"name": "x", "_meta": {"progressToken": format!("p{}", long(number))}, "task": {}});
    request(&long(number), "tools/call", params)
}

fn answer(number: usize) -> Value {
    json!({"jsonrpc": "2.0", "id": long(number), "result": {"content": []}})
}

fn task(number: usize, task: usize) -> Value {
    let task = json!({"taskId": format!("t{}", long(task)), "status": "working"});
    json!({"jsonrpc": "2.0", "id": long(number), "result": {"task": task}})
}

fn ask(number: usize) -> Value {
    request(&long(number), "ping", json!({}))
}

fn settings(number: usize) -> Value {
    let protocol = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let uris: Vec<String> = (0..64).map(|uri| format!("file:///{uri}/{}", long(number))).collect();
    request(
        &long(number),
        "subscriptions/listen",
        json!({"_meta": protocol, "notifications": {"resourceSubscriptions": uris}}),
    )
}

/// Fills every table of one session as far as it goes; returns whether memory was refused.
fn fill(stage: &Stage, session: &mut Session, first: usize) -> bool {
    let mut full = false;
    let mut refused = |outcome: &Result<CallId, String>| {
        full |= outcome.as_ref().is_err_and(|code| code == "memory-spent");
    };
    for number in first..first + 24 {
        // Answered: remembered for a redelivery, with a task and its token, and the id is used.
        let sent = stage.client(session, call(number));
        refused(&sent);
        if let Ok(sent) = sent {
            stage.server(session, Some(&sent), task(number, number));
        }
        let sent = stage.client(session, call(number + 1000));
        refused(&sent);
        if let Ok(sent) = sent {
            stage.server(session, Some(&sent), answer(number + 1000));
        }
        // Cancelled: its late answer is expected, and its token is remembered.
        let sent = stage.client(session, call(number + 2000));
        refused(&sent);
        if sent.is_ok() {
            let params = json!({"requestId": long(number + 2000)});
            let cancel =
                json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
            let told = stage.client(session, cancel).expect("a cancellation is never refused");
            stage.settled(session.upstream_accepted(&told, now()));
        }
        // Timed out.
        let sent = stage.client(session, call(number + 3000));
        refused(&sent);
        if let Ok(sent) = sent {
            stage.settled(session.upstream_failed(&sent, &UpstreamFailure::TimedOut, now()));
        }
        // Open.
        refused(&stage.client(session, call(number + 4000)));
        // Requests of the server: open, and answered with a task of the client.
        stage.server(session, None, ask(number + 5000));
        if stage.server(session, None, ask(number + 6000)) {
            drop(stage.client(session, task(number + 6000, number)));
        }
    }
    full
}

#[test]
fn every_table_filled_at_once_stays_within_the_budget() {
    let stage = Stage::new();
    let memory = Arc::clone(stage.memory());
    let mut sessions = Vec::new();
    let mut spent = 0;
    // Far more sessions than fit, of three principals, in both eras.
    for number in 0..8 {
        for principal in ["a", "b", "c"] {
            let mut session = stage.session(principal);
            let first = number * 10_000;
            spent += usize::from(fill(&stage, &mut session, first));
            sessions.push(session);
            let mut modern = stage.session(principal);
            let headers = RoutingHeaders {
                protocol_version: Some("2026-07-28".into()),
                method: Some("subscriptions/listen".into()),
                ..RoutingHeaders::default()
            };
            let listens = stage.sent(&mut modern, settings(first), Some(headers));
            assert!(listens.is_ok() || listens == Err("memory-spent".to_owned()), "{listens:?}");
            sessions.push(modern);
        }
    }
    assert!(spent > 8, "{spent}");
    let used = memory.used();
    assert!(used > KEPT_BYTES / 2 && used <= KEPT_BYTES, "{used}");
    for owner in ["a", "b", "c"] {
        let own = memory.used_by(owner);
        assert!(own > KEPT_BYTES / 10 && own <= KEPT_BYTES / 2, "{owner} {own}");
    }
    // Who comes later is served.
    let mut late = stage.session("late");
    stage.client(&mut late, call(0)).unwrap();
    drop((sessions, late));
    let tasks = memory.used();
    drop(stage);
    assert_eq!(memory.used(), 0, "after the sessions {tasks}: everything is given back");
}

#[test]
fn the_record_of_a_refusal_for_memory_names_the_limit() {
    let stage = Stage::keeping(16 << 10);
    let mut session = stage.session("a");
    let mut open = Vec::new();
    let refused = loop {
        match stage.client(&mut session, call(open.len())) {
            Ok(call) => open.push(call),
            Err(code) => break code,
        }
    };
    assert!(open.len() >= 2 && refused == "memory-spent", "{} {refused}", open.len());
    assert!(stage.reason().1.starts_with("limits.kept_bytes: "), "{:?}", stage.reason());
    assert_eq!(stage.sink.kept().last().unwrap().event, Event::Denial);
    // Another session of the same principal has no more; another principal has.
    let mut other = stage.session("a");
    assert_eq!(stage.client(&mut other, call(0)), Err("memory-spent".to_owned()));
    stage.client(&mut stage.session("b"), call(0)).unwrap();
    // A request of the server is refused for the same reason, and does not reach the client.
    assert!(!stage.server(&mut session, None, ask(7)));
    assert!(stage.reason().1.starts_with("limits.kept_bytes: "), "{:?}", stage.reason());
    // A notification is kept until the server has it, so it counts, too.
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(stage.client(&mut session, note), Err("memory-spent".to_owned()));
    // A batch counts each of its messages, and is refused as a whole: nothing of it stays.
    let before = stage.memory().used();
    let mut batch = stage.session("b");
    let many: Vec<Value> = (0..20).map(call).collect();
    assert!(stage.client(&mut batch, json!(many)).is_err());
    drop(batch);
    assert_eq!(stage.memory().used(), before);
    // An answer makes room, except for what is remembered of it.
    let first = open.remove(0);
    let step = session.upstream_failed(&first, &UpstreamFailure::EndedEarly, now());
    stage.settled(step);
    drop(session);
    assert_eq!(stage.memory().used_by("a"), 0);
    stage.client(&mut other, call(1)).unwrap();
}

#[test]
fn a_session_that_counts_its_ids_costs_no_more_the_longer_it_lives() {
    let stage = Stage::keeping(64 << 10);
    let mut session = stage.session("a");
    let mut used = Vec::new();
    for id in 0..2000 {
        let message =
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "x"}});
        let sent = stage.client(&mut session, message).unwrap();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}).to_string();
        let step = session.server_answer(&stage.gate, &sent, &answer.into(), now());
        drop(stage.act(step));
        used.push(stage.memory().used());
    }
    assert_eq!(used[0], used[1999]);
    assert!(used[0] < 100, "one run of ids: {}", used[0]);
}

#[test]
fn all_bounds_together_fit_the_memory_of_the_manifest() {
    let text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:1\nstate: s\n\
                servers: {a: {path: /a, command: [x]}, b: {path: /b, url: \"http://localhost\"}}\n";
    let config = Config::parse(text, std::path::Path::new("."), &|_| None).unwrap();
    let (limits, http) = (&config.limits, HttpLimits::default());
    let bytes = |count: u64| usize::try_from(count).unwrap();
    let small = FREE_BYTES
        * (2 * limits.requests + 2 * limits.children * config.servers.len() + limits.connections)
        + SMALL_ANSWER_BYTES * limits.requests;
    let second = limits.connections.div_ceil(8);
    let bounds = [
        ("kept", limits.kept_bytes),
        // Of requests, of answers that arrive, of answers that wait.
        ("bodies", 3 * bytes(limits.bodies_bytes)),
        ("heads that are not complete", bytes(http.head_budget_bytes)),
        ("what is below the size from which it is counted", small),
        ("buffers of connections", (limits.connections - second) * LONG_HEAD_BYTES),
        ("connections over HTTP/2", second * H2_CONNECTION_BYTES),
        ("buckets", limits.buckets * BUCKET_BYTES),
        ("keys in flight", 4096 * BUCKET_BYTES),
        ("counted refusals", Repeats::BYTES_MAX),
        ("callers, notices", 2 * 4096 * 128),
        // The program, its policies and its threads: CONTRIBUTING's figure for an idle one.
        ("idle", 20 << 20),
    ];
    let all: usize = bounds.iter().map(|(_, bytes)| bytes).sum();
    let manifest = include_str!("../../deploy/kubernetes/base/deployment.yaml");
    let limit = manifest.split("limits: {memory: ").nth(1).unwrap();
    let limit: usize = limit.split("Mi").next().unwrap().parse().unwrap();
    assert!(all <= limit << 20, "{} MiB of {limit}: {bounds:?}", all >> 20);
    assert!(limits.sessions * 4096 <= limits.kept_bytes / 2, "one principal may fill its sessions");
}
