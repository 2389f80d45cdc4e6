//! Handles and session facts are learnt from delivered answers, for the principal or the session
//! that got them, and are bounded in number and time. Any other handle or fact is unknown (threats
//! G1, H1 to H6).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan::policy::embedded;
use bartizan_gate::evidence::record::Now;
use bartizan_gate::evidence::step::Act;
use bartizan_gate::memory::{Charge, ENTRY_BYTES};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::handles::{HandleStore, StoreUpdate};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::question::readers::FactReader;
use bartizan_gate::session::{
    Arrival, ErrorAnswer, Gate, GateConfig, Mode, Protected, RefusalForm, ServerState, Session,
    UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources, RegoPdp};
use bartizan_testing::Sink;
use bytes::Bytes;
use serde_json::{Value, json};

const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "tools": {
    "discover": {
      "effect": "read",
      "mints": {"handle": "handle", "operation": "id", "effect": "lane", "ttl": "15m", "scope": "principal"}
    },
    "invoke": {
      "effect": "write",
      "dispatch": {"handle": "/handle", "otherwise": {"effect": "read"}}
    },
    "find": {
      "effect": "read",
      "mints": {"handle": "handle", "operation": "id", "ttl": "15m"}
    },
    "select": {"effect": "read", "facts": {"project": {"at": "/project", "scope": "principal"}}},
    "pick": {"effect": "read", "facts": {"picked": "/project"}},
    "choose": {"effect": "read", "facts": {"shared": {"at": "/project", "scope": "server"}}},
    "session": {
      "effect": "read",
      "dispatch": {
        "values": ["/action"],
        "cases": {"open": {"effect": "read", "facts": {"account": {"at": "/account", "scope": "principal"}}}}
      }
    },
    "act": {"effect": "read"}
  }
}"#;

/// Everything that a pack knows may be done; `act` only in project 7; `select` of 9 selects 8.
const POLICY: &str = r#"package mcp

permit contains {"code": "known", "message": "a pack knows it"} if {
	input.operation.effect != "unknown"
	input.tool.name != "act"
}

permit contains {"code": "begin", "message": "a session begins"} if input.method == "initialize"

permit contains {"code": "project", "message": "in project 7"} if {
	input.tool.name == "act"
	input.session.facts.project == "7"
}

permit contains {"code": "shared", "message": "in project 7 for everyone"} if {
	input.tool.name == "act"
	input.session.facts.shared == "7"
}

permit contains {"code": "picked", "message": "in project 7 of the session"} if {
	input.tool.name == "act"
	input.session.facts.picked == "7"
}

permit contains {"code": "cancel", "message": "a call ends"} if input.method == "notifications/cancelled"

permit contains {"code": "account", "message": "for account a"} if {
	input.tool.name == "act"
	input.session.facts.account == "a"
}

set contains {"pointer": "/project", "value": "8"} if {
	input.tool.name == "select"
	input.tool.arguments.project == "9"
}
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// How the wait for an answer ends without it.
enum End {
    Cancelled,
    Gone,
    Failed(UpstreamFailure),
    Status(u16),
}

/// A server that principals talk to, each in a session of its own.
struct Stage {
    /// The id of the last call.
    id: Cell<u32>,
    gate: Gate,
    server: Arc<Protected>,
    era: Era,
    now: Duration,
}

impl Stage {
    fn of(era: Era) -> Self {
        Self::with(era, POLICY, Mode::Enforce)
    }

    fn with(era: Era, rules: &str, mode: Mode) -> Self {
        let mut modules = embedded::decision();
        modules.push(Module { path: "test.rego".into(), text: rules.into() });
        let sources = PolicySources { modules, data: None, revision: "r".into() };
        let policy =
            Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
        let config = GateConfig {
            mode,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "b".into(),
            digest_key: [7; 32],
        };
        let pack = Pack::read(PACK.as_bytes()).unwrap();
        let facts = Server { pack: Some(Arc::new(pack)), ..Server::default() };
        Self {
            id: Cell::new(0),
            gate: Gate::new(config, Arc::new(RegoPdp::strict(policy, 1))),
            server: Arc::new(Protected::new(facts, RefusalForm::Error)),
            era,
            now: Duration::from_secs(1),
        }
    }

    fn session(&self, principal: &str) -> Session {
        let who = Arc::new(Principal { id: principal.into(), ..Principal::default() });
        Session::new(who, Arc::clone(&self.server), Transport::Stdio)
    }

    fn time(&self) -> Now {
        Now { uptime: self.now, wall: UNIX_EPOCH }
    }

    /// Sends a call in a fresh session: what it came to, and whether it went on.
    fn asks(&self, session: &mut Session, tool: &str, arguments: &Value) -> (String, bool) {
        let mut params = json!({"name": tool, "arguments": arguments});
        if self.era == Era::Modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        self.id.set(self.id.get().saturating_add(1));
        let id = self.id.get();
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let arrival = Arrival { raw: call.to_string().into(), ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, self.time());
        let operation = step.audit_record().operation.clone().unwrap();
        let name = operation.name.clone().unwrap_or_else(|| "-".into());
        let went = matches!(step.record(&Sink::default()).unwrap(), Act::Forward(_));
        (format!("{name} {}", operation.effect), went)
    }

    /// As [`Stage::asks`], for a call that must go on; gives its id.
    fn sends(&self, session: &mut Session, tool: &str, arguments: &Value) -> u32 {
        assert!(self.asks(session, tool, arguments).1, "{tool} {arguments}");
        self.id.get()
    }

    /// The server answers the call `id`, late or not.
    fn answers_to(&self, session: &mut Session, id: u32, answer: &Value) {
        self.answers_if(session, id, answer, true);
    }

    /// As [`Stage::answers_to`]; `kept` says whether that can be recorded.
    fn answers_if(&self, session: &mut Session, id: u32, answer: &Value, kept: bool) {
        let mut message = answer.clone();
        message["jsonrpc"] = "2.0".into();
        message["id"] = id.into();
        let step = session.server_frame(&self.gate, &message.to_string().into(), self.time());
        let sink = if kept { Sink::default() } else { Sink::refusing() };
        assert_eq!(step.record(&sink).is_ok(), kept);
    }

    /// The wait for the answer to the call `id` ends without it.
    fn ends(&self, session: &mut Session, id: u32, how: &End) {
        let call = session.in_flight().last().unwrap().clone();
        let sink = Sink::default();
        let step = match how {
            End::Cancelled => {
                let params = json!({"requestId": id});
                let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
                let arrival = Arrival { raw: cancel.to_string().into(), ..Arrival::default() };
                Some(session.client_frame(&self.gate, &arrival, self.time()))
            }
            End::Gone => session.client_gone(&call, self.time()),
            End::Failed(how) => session.upstream_failed(&call, how, self.time()),
            End::Status(status) => {
                let body = Bytes::from_static(b"no");
                let answer = ErrorAnswer { status: *status, challenge_dropped: false, body };
                session.upstream_status(&self.gate, &call, answer, self.time())
            }
        };
        drop(step.unwrap().record(&sink).unwrap());
    }

    /// A call that is judged and does not go on, because it cannot be recorded.
    fn loses(&self, session: &mut Session, tool: &str, arguments: &Value) {
        let call = json!({"jsonrpc": "2.0", "id": 900, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let arrival = Arrival { raw: call.to_string().into(), ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, self.time());
        let call = session.in_flight().remove(0);
        assert!(step.record(&Sink::refusing()).is_err());
        session.forget(&call);
    }

    /// The client begins anew in `session`.
    fn begins_anew(&self, session: &mut Session) {
        self.id.set(self.id.get().saturating_add(1));
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        let initialize = json!({"jsonrpc": "2.0", "id": self.id.get(), "method": "initialize", "params": params});
        let arrival = Arrival { raw: initialize.to_string().into(), ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, self.time());
        assert!(matches!(step.record(&Sink::default()).unwrap(), Act::Forward(_)));
    }

    /// From here on the server takes batches. Gives a session of `a` for [`Stage::batch`].
    fn takes_batches(&mut self) -> Session {
        let mut server = Protected::new(self.server.facts.clone(), RefusalForm::Error);
        server.batches = true;
        self.server = Arc::new(server);
        let who = Arc::new(Principal { id: "a".into(), ..Principal::default() });
        Session::new(who, Arc::clone(&self.server), Transport::Http)
    }

    /// What becomes of a batch at the uptime `now`.
    fn batch(&self, session: &mut Session, now: Duration, batch: &Value) -> Act {
        let headers = RoutingHeaders {
            protocol_version: Some("2025-03-26".into()),
            ..RoutingHeaders::default()
        };
        let arrival =
            Arrival { raw: batch.to_string().into(), headers: Some(headers), ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, Now { uptime: now, ..self.time() });
        step.record(&Sink::default()).unwrap()
    }

    /// A call in a session of its own.
    fn call(&self, principal: &str, tool: &str, arguments: &Value) -> (String, bool) {
        self.asks(&mut self.session(principal), tool, arguments)
    }

    /// A call that is answered with `answer`: its `result` or `error`.
    fn answered(&self, principal: &str, tool: &str, arguments: &Value, answer: &Value) {
        self.kept(principal, (tool, arguments), answer, true);
    }

    fn kept(&self, principal: &str, call: (&str, &Value), answer: &Value, kept: bool) {
        let mut session = self.session(principal);
        assert!(self.asks(&mut session, call.0, call.1).1, "{call:?}");
        self.answers(&mut session, answer, kept);
    }

    /// As [`Stage::answers_if`], for the last call.
    fn answers(&self, session: &mut Session, answer: &Value, kept: bool) {
        self.answers_if(session, self.id.get(), answer, kept);
    }

    /// Leaves `a` room for one call, and not for the fact that it sets, which is charged when the
    /// call is sent.
    fn room_for_a_call_alone(&self) -> Charge {
        let mut other = self.session("a");
        assert!(self.asks(&mut other, "discover", &json!({})).1);
        let memory = self.gate.memory();
        let call = memory.used_by("a").saturating_sub(ENTRY_BYTES);
        drop(other);
        let rest = call.saturating_add(100).saturating_mul(2);
        memory.count("others", Gate::MEMORY_BYTES_DEFAULT.saturating_sub(rest))
    }

    /// A call that selects `project`, and is answered.
    fn selects(&self, principal: &str, project: &str) {
        self.answered(principal, "select", &json!({"project": project}), &good());
    }

    /// Whether `act` goes on, which the facts decide.
    fn acts(&self, principal: &str) -> bool {
        self.call(principal, "act", &json!({})).1
    }

    fn discovers(&self, principal: &str, handle: &str, id: &str) {
        self.answered(principal, "discover", &json!({}), &hands(handle, id));
    }

    fn invokes(&self, principal: &str, handle: &str) -> (String, bool) {
        self.call(principal, "invoke", &json!({"handle": handle}))
    }
}

fn good() -> Value {
    json!({"result": {"content": []}})
}

/// An answer that makes a task of the call.
fn task() -> Value {
    json!({"result": {"resultType": "task", "task": {"taskId": "t", "status": "working"}}})
}

/// A call in a batch.
fn batched(id: u32, tool: &str, arguments: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// An answer that hands out a handle.
fn hands(handle: &str, id: &str) -> Value {
    json!({"result": {
        "content": [],
        "structuredContent": {"found": [{"deep": {"handle": handle, "id": id, "title": "x"}}]},
    }})
}

fn unknown() -> (String, bool) {
    ("- unknown".to_owned(), false)
}

fn known(name: &str) -> (String, bool) {
    (format!("invoke/{name} read"), true)
}

#[test]
fn a_handle_counts_as_its_operation_only_for_the_principal_that_got_it() {
    for era in [Era::Legacy, Era::Modern] {
        let stage = Stage::of(era);
        assert_eq!(stage.invokes("a", "h-1"), unknown(), "never seen");
        stage.discovers("a", "h-1", "gates.list");
        assert_eq!(stage.invokes("a", "h-1"), known("gates.list"));
        assert_eq!(stage.invokes("b", "h-1"), unknown(), "another principal's");
        assert_eq!(stage.invokes("a", "h-2"), unknown());
        assert_eq!(stage.invokes("a", "H-1"), unknown());
        for odd in
            [json!({"handle": ["h-1"]}), json!({"handle": "h-1", "Handle": "h-2"}), json!({})]
        {
            assert_eq!(stage.call("a", "invoke", &odd), unknown(), "{odd}");
        }
    }
}

#[test]
fn a_handle_is_read_from_structured_content_or_from_text_that_is_json() {
    let stage = Stage::of(Era::Legacy);
    let text = |text: &str| json!({"result": {"content": [{"type": "text", "text": text}]}});
    let answer =
        text(r#"{"operations":[{"handle":"h-1","id":"one"},{"id":"two","handle":"h-2"}]}"#);
    stage.answered("a", "discover", &json!({}), &answer);
    assert_eq!(stage.invokes("a", "h-1"), known("one"));
    assert_eq!(stage.invokes("a", "h-2"), known("two"));
    // Prose around it, another type, half of it, or no object: nothing.
    for odd in [
        text(r#"found {"handle":"h-3","id":"three"}"#),
        text(r#"{"handle":"h-3","handle":"h-3","id":"three"}"#),
        text(r#"{"handle":3,"id":"three"}"#),
        text(r#"{"handle":"h-3"}"#),
        json!({"result": {"content": [], "_meta": {"handle": "h-3", "id": "three"}}}),
    ] {
        stage.answered("a", "discover", &json!({}), &odd);
        assert_eq!(stage.invokes("a", "h-3"), unknown(), "{odd}");
    }
    // The same from a tool that hands out none.
    stage.answered("a", "select", &json!({}), &hands("h-3", "three"));
    assert_eq!(stage.invokes("a", "h-3"), unknown());
}

#[test]
fn what_the_server_says_of_an_operation_may_only_make_it_worse() {
    let stage = Stage::of(Era::Legacy);
    for (lane, effect) in [("read", "read"), ("destructive", "destructive"), ("odd", "unknown")] {
        let found = json!({"handle": lane, "id": "o", "lane": lane});
        let answer = json!({"result": {"content": [], "structuredContent": found}});
        stage.answered("a", "discover", &json!({}), &answer);
        assert_eq!(stage.invokes("a", lane).0, format!("invoke/o {effect}"));
    }
}

#[test]
fn answers_that_failed_or_never_came_teach_nothing() {
    for era in [Era::Legacy, Era::Modern] {
        let stage = Stage::of(era);
        let mut failed = hands("h-1", "x");
        failed["result"]["isError"] = true.into();
        stage.answered("a", "discover", &json!({}), &failed);
        let data = hands("h-1", "x")["result"].clone();
        let error = json!({"error": {"code": -32000, "message": "no", "data": data}});
        stage.answered("a", "discover", &json!({}), &error);
        // It could not be recorded, so the client never got it.
        stage.kept("a", ("discover", &json!({})), &hands("h-1", "x"), false);
        // An answer to nobody's call.
        let mut session = stage.session("a");
        let mut late = hands("h-1", "x");
        late["jsonrpc"] = "2.0".into();
        late["id"] = 1.into();
        let step = session.server_frame(&stage.gate, &late.to_string().into(), stage.time());
        assert!(matches!(step.record(&Sink::default()).unwrap(), Act::Drop));
        assert_eq!(stage.invokes("a", "h-1"), unknown(), "{era:?}");
    }
}

#[test]
fn a_question_or_a_task_in_place_of_the_answer_teaches_nothing() {
    let stage = Stage::of(Era::Modern);
    for kind in ["input_required", "task", "odd"] {
        let mut answer = hands("h-1", "x");
        answer["result"]["resultType"] = kind.into();
        stage.answered("a", "discover", &json!({}), &answer);
        assert_eq!(stage.invokes("a", "h-1"), unknown(), "{kind}");
    }
    let stage = Stage::of(Era::Legacy);
    let mut answer = hands("h-1", "x");
    answer["result"]["task"] = json!({"taskId": "t", "status": "working"});
    stage.answered("a", "discover", &json!({}), &answer);
    assert_eq!(stage.invokes("a", "h-1"), unknown());
}

#[test]
fn an_answer_that_is_withheld_teaches_nothing() {
    // A question inside the answer that the client did not offer to take: withheld whole.
    let stage = Stage::of(Era::Modern);
    let mut answer = hands("h-1", "x");
    answer["result"]["inputRequests"] =
        json!({"q": {"method": "sampling/createMessage", "params": {}}});
    stage.answered("a", "discover", &json!({}), &answer);
    assert_eq!(stage.invokes("a", "h-1"), unknown());
}

#[test]
fn while_observing_what_passes_is_learnt() {
    let stage = Stage::with(Era::Legacy, "package mcp\n", Mode::Observe);
    stage.discovers("a", "h-1", "x");
    assert_eq!(stage.invokes("a", "h-1"), known("x"));
}

#[test]
fn a_handle_given_out_for_two_operations_is_unknown() {
    let stage = Stage::of(Era::Legacy);
    stage.discovers("a", "h-1", "gates.list");
    stage.discovers("a", "h-1", "gates.list");
    assert_eq!(stage.invokes("a", "h-1"), known("gates.list"));
    stage.discovers("a", "h-1", "gates.delete");
    assert_eq!(stage.invokes("a", "h-1"), unknown());
    stage.discovers("a", "h-1", "gates.list");
    assert_eq!(stage.invokes("a", "h-1"), unknown(), "it stays so while it lives");
    let twice = json!([{"handle": "h-2", "id": "x"}, {"handle": "h-2", "id": "y"}]);
    let answer = json!({"result": {"content": [], "structuredContent": {"all": twice}}});
    stage.answered("a", "discover", &json!({}), &answer);
    assert_eq!(stage.invokes("a", "h-2"), unknown());
}

#[test]
fn handles_end_with_their_time() {
    let mut stage = Stage::of(Era::Legacy);
    stage.discovers("a", "h-1", "x");
    stage.now += Duration::from_secs(15 * 60 - 1);
    assert_eq!(stage.invokes("a", "h-1"), known("x"));
    stage.now += Duration::from_secs(1);
    assert_eq!(stage.invokes("a", "h-1"), unknown());
    stage.discovers("a", "h-1", "y");
    assert_eq!(stage.invokes("a", "h-1"), known("y"), "handed out anew");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut stage = Stage::of(Era::Legacy);
    stage.discovers("a", "first", "x");
    stage.now += Duration::from_secs(1);
    for number in 0..HandleStore::HANDLES_MAX {
        stage.discovers("a", &format!("h-{number}"), "x");
    }
    assert_eq!(stage.invokes("a", "first"), unknown(), "the soonest to end goes first");
    let kept =
        (0..HandleStore::HANDLES_MAX).filter(|number| stage.invokes("a", &format!("h-{number}")).1);
    assert_eq!(kept.count(), HandleStore::HANDLES_MAX);

    let many: Vec<Value> = (0..=HandleStore::HANDLES_MAX)
        .map(|number| json!({"handle": format!("m-{number}"), "id": "x"}))
        .collect();
    let answer = json!({"result": {"content": [], "structuredContent": {"all": many}}});
    stage.answered("b", "discover", &json!({}), &answer);
    assert_eq!(stage.invokes("b", &format!("m-{}", HandleStore::HANDLES_MAX)), unknown());
    let long = "x".repeat(StoreUpdate::TEXT_BYTES_MAX + 1);
    stage.discovers("b", "long", &long);
    assert_eq!(stage.invokes("b", "long"), unknown());

    // `a` asks again, so that `b` is the one to be forgotten.
    assert!(stage.invokes("a", "h-0").1);
    for number in 0..HandleStore::PRINCIPALS_MAX - 1 {
        stage.discovers(&format!("p-{number}"), "h", "x");
    }
    assert!(stage.invokes("a", "h-0").1);
    assert_eq!(stage.invokes("b", "m-1"), unknown());
}

#[test]
fn the_policy_page_names_the_bounds() {
    let page = include_str!("../../docs/policy.md");
    let hours = HandleStore::FACT_TTL.as_secs() / 3_600;
    assert_eq!(HandleStore::FACT_TTL, HandleStore::HANDLE_TTL_MAX);
    let said = format!(
        "{} principals for each server, and {} handles and {} facts for each principal and each session. Nothing is kept for longer than {hours} hours",
        HandleStore::PRINCIPALS_MAX,
        HandleStore::HANDLES_MAX,
        HandleStore::FACTS_MAX,
    );
    assert!(page.contains(&said), "{said}");
}

#[test]
fn answers_in_a_batch_teach_as_others_do() {
    let mut stage = Stage::of(Era::Legacy);
    let mut session = stage.takes_batches();
    let select = batched(2, "select", &json!({"project": "7"}));
    let batch = json!([batched(1, "discover", &json!({})), select]);
    let act = stage.batch(&mut session, stage.now, &batch);
    let Act::Forward(permitted) = act else { panic!("refused") };
    let mut found = hands("h-1", "x");
    found["jsonrpc"] = "2.0".into();
    found["id"] = 1.into();
    let answers = json!([found, {"jsonrpc": "2.0", "id": 2, "result": {"content": []}}]);
    let raw = answers.to_string().into();
    let step = session.server_answer(&stage.gate, permitted.call(), &raw, stage.time());
    assert!(matches!(step.record(&Sink::default()).unwrap(), Act::Deliver(_)));
    assert_eq!(stage.invokes("a", "h-1"), known("x"));
    assert!(stage.acts("a"));
}

#[test]
fn a_rule_reads_what_earlier_calls_have_set() {
    let good = good();
    for era in [Era::Legacy, Era::Modern] {
        let mut stage = Stage::of(era);
        assert!(!stage.acts("a"));
        let seven = json!({"project": "7"});
        let mut failed = good.clone();
        failed["result"]["isError"] = true.into();
        stage.answered("a", "select", &seven, &failed);
        assert!(!stage.acts("a"), "it did not succeed");
        let mut session = stage.session("a");
        let id = stage.sends(&mut session, "select", &seven);
        assert!(!stage.acts("a"), "it was not answered");
        stage.answers_to(&mut session, id, &good);
        assert!(stage.acts("a"));
        assert!(!stage.acts("b"), "another principal's");
        stage.answered("a", "select", &json!({"project": 8}), &good);
        assert!(!stage.acts("a"));
        stage.answered("a", "select", &json!({"project": 7}), &good);
        assert!(stage.acts("a"), "a number is as good");
        // It is not known what the last call has set, so the fact is absent.
        for odd in [json!({}), json!({"project": ["7"]})] {
            stage.selects("a", "7");
            assert!(stage.acts("a"));
            stage.answered("a", "select", &odd, &good);
            assert!(!stage.acts("a"), "{odd}");
        }
        // A rule reads `project`, and the server may read `Project`: the call does not go, so the
        // fact stays.
        stage.selects("a", "7");
        assert!(!stage.call("a", "select", &json!({"project": "7", "Project": "6"})).1);
        assert!(stage.acts("a"));
        // The call was sent and is not answered yet; the server may have carried it out already.
        stage.selects("a", "7");
        let id = stage.sends(&mut session, "select", &seven);
        assert!(!stage.acts("a"));
        stage.answers_to(&mut session, id, &good);
        stage.selects("a", "7");
        stage.answered("a", "select", &json!({"project": "8"}), &failed);
        assert!(!stage.acts("a"), "it failed, perhaps half way");
        // What was not answered is open for a while.
        stage.now += HandleStore::LATE_MAX;
        stage.now += HandleStore::FACT_TTL;
        // Two calls overlap: the server may carry them out in any order.
        for first_first in [true, false] {
            stage.selects("a", "7");
            let mut first = stage.session("a");
            let mut second = stage.session("a");
            let one = stage.sends(&mut first, "select", &json!({"project": "8"}));
            let two = stage.sends(&mut second, "select", &seven);
            let mut answers = [(&mut first, one), (&mut second, two)];
            if first_first {
                answers.reverse();
            }
            for (session, id) in answers {
                assert!(!stage.acts("a"));
                stage.answers_to(session, id, &good);
            }
            assert!(!stage.acts("a"), "both are answered, and either may have come last");
            stage.selects("a", "7");
            assert!(stage.acts("a"), "it overlapped with nothing");
        }
        // A rule set the argument: what counts is what the server got.
        stage.selects("a", "7");
        stage.selects("a", "9");
        assert!(!stage.acts("a"));
        stage.selects("a", "7");
        let long = "7".repeat(StoreUpdate::TEXT_BYTES_MAX + 1);
        stage.answered("a", "select", &json!({"project": long}), &good);
        assert!(!stage.acts("a"), "too long to be kept");

        stage.selects("a", "7");
        stage.now += HandleStore::FACT_TTL.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(stage.acts("a"));
        stage.now += Duration::from_secs(1);
        assert!(!stage.acts("a"), "it was long ago");

        stage.answered("a", "session", &json!({"action": "open", "account": "a"}), &good);
        assert!(stage.acts("a"), "a fact of an operation behind a tool");
    }
}

#[test]
fn a_selection_without_an_answer_leaves_the_fact_unknown_until_the_answer_has_come() {
    let good = good();
    let eight = json!({"project": "8"});
    for (how, answered) in [
        (End::Cancelled, false),
        (End::Gone, false),
        (End::Failed(UpstreamFailure::TimedOut), false),
        (End::Failed(UpstreamFailure::EndedEarly), false),
        (End::Failed(UpstreamFailure::Unreachable("closed".into())), false),
        (End::Failed(UpstreamFailure::Unreadable("no JSON".into())), false),
        (End::Failed(UpstreamFailure::Status(302)), false),
        (End::Status(502), false),
        (End::Status(504), false),
        (End::Status(408), false),
        (End::Status(403), true),
        (End::Status(404), true),
    ] {
        let mut stage = Stage::of(Era::Legacy);
        let mut session = stage.session("a");
        stage.selects("a", "7");
        let late = stage.sends(&mut session, "select", &eight);
        stage.ends(&mut session, late, &how);
        assert!(!stage.acts("a"));
        stage.selects("a", "7");
        assert_eq!(stage.acts("a"), answered, "the server may move it to 8 after it was set to 7");
        stage.selects("a", "7");
        assert_eq!(stage.acts("a"), answered, "another selection tells no more");
        // The late answer: from here on nothing is open.
        stage.answers_to(&mut session, late, &good);
        assert_eq!(stage.acts("a"), answered, "the last to be carried out may have been either");
        stage.selects("a", "7");
        assert!(stage.acts("a"));
        // None ever comes.
        let late = stage.sends(&mut session, "select", &eight);
        stage.ends(&mut session, late, &how);
        stage.now += HandleStore::LATE_MAX.checked_sub(Duration::from_secs(1)).unwrap();
        stage.selects("a", "7");
        assert_eq!(stage.acts("a"), answered);
        stage.now += Duration::from_secs(1);
        stage.selects("a", "7");
        assert!(stage.acts("a"), "a server is taken to have given it up");
    }
}

/// Whether `select` of project 8 would go on in `session`; nothing of it stays.
fn may_select(stage: &Stage, session: &mut Session, tool: &str) -> bool {
    let went = stage.asks(session, tool, &json!({"project": "8"})).1;
    if went {
        let call = session.in_flight().last().unwrap().clone();
        session.forget(&call);
    }
    went
}

#[test]
fn nothing_is_selected_beside_a_call_that_was_judged_by_it() {
    let good = good();
    let seven = json!({"project": "7"});
    for (tool, session_sees, principal_sees, others_see) in
        [("pick", true, false, false), ("select", true, true, false), ("choose", true, true, true)]
    {
        let stage = Stage::of(Era::Legacy);
        let mut session = stage.session("a");
        let id = stage.sends(&mut session, tool, &seven);
        stage.answers_to(&mut session, id, &good);
        let act = stage.sends(&mut session, "act", &json!({}));
        let refused = |session: &mut Session, tool| !may_select(&stage, session, tool);
        assert_eq!(refused(&mut session, tool), session_sees, "{tool}");
        assert_eq!(refused(&mut stage.session("a"), tool), principal_sees, "{tool}");
        assert_eq!(refused(&mut stage.session("b"), tool), others_see, "{tool}");
        for other in ["pick", "select", "choose"].iter().filter(|other| **other != tool) {
            assert!(!refused(&mut session, other), "{tool} says nothing of {other}");
        }
        stage.answers_to(&mut session, act, &good);
        assert!(!refused(&mut session, tool) && !refused(&mut stage.session("b"), tool));
    }
}

#[test]
fn a_call_without_an_answer_keeps_others_from_selecting_for_a_while() {
    let good = good();
    for (how, ends) in [
        (End::Cancelled, false),
        (End::Gone, false),
        (End::Failed(UpstreamFailure::TimedOut), false),
        (End::Failed(UpstreamFailure::EndedEarly), false),
        (End::Failed(UpstreamFailure::Unreadable("no JSON".into())), false),
        (End::Status(504), false),
        (End::Status(403), true),
    ] {
        let mut stage = Stage::of(Era::Legacy);
        let mut session = stage.session("a");
        for late in [false, true] {
            stage.selects("a", "7");
            let act = stage.sends(&mut session, "act", &json!({}));
            stage.ends(&mut session, act, &how);
            stage.now += FactReader::OWED_FOR.checked_sub(Duration::from_secs(1)).unwrap();
            assert_eq!(may_select(&stage, &mut session, "select"), ends);
            if late {
                stage.answers_to(&mut session, act, &good);
            } else {
                // Nor does the end of the session end what the server does.
                session = stage.session("a");
                assert_eq!(may_select(&stage, &mut session, "select"), ends);
                stage.now += Duration::from_secs(1);
            }
            assert!(may_select(&stage, &mut session, "select"), "not for ever");
        }
    }
    // One that the server makes a task of.
    let mut stage = Stage::of(Era::Modern);
    stage.selects("a", "7");
    stage.answered("a", "act", &json!({}), &task());
    stage.now += HandleStore::LATE_MAX.checked_sub(Duration::from_secs(1)).unwrap();
    assert!(!may_select(&stage, &mut stage.session("a"), "select"));
    stage.now += Duration::from_secs(1);
    assert!(may_select(&stage, &mut stage.session("a"), "select"));
}

#[test]
fn a_call_that_was_judged_by_no_fact_keeps_nobody_from_selecting() {
    let good = good();
    let all = r#"permit contains {"code": "all", "message": "everything"} if input.method"#;
    let one = r#"permit contains {"code": "x", "message": "x"} if input.session.facts.x == "x""#;
    for (rules, mode, selects) in [
        (format!("package mcp\n{all}"), Mode::Enforce, true),
        (format!("package mcp\n{all}\n{one}"), Mode::Enforce, true),
        (format!("{POLICY}\n{all}"), Mode::Enforce, false),
        (format!("{POLICY}\n{all}"), Mode::Observe, true),
    ] {
        let stage = Stage::with(Era::Legacy, &rules, mode);
        let mut session = stage.session("a");
        // Nothing is known yet.
        let first = stage.sends(&mut session, "act", &json!({}));
        assert!(may_select(&stage, &mut session, "select"));
        stage.answers_to(&mut session, first, &good);
        stage.selects("a", "7");
        stage.sends(&mut session, "act", &json!({}));
        assert_eq!(may_select(&stage, &mut session, "select"), selects, "{mode:?} {rules}");
    }
    // Nor does one that was refused, or that could not be recorded.
    let stage = Stage::of(Era::Legacy);
    let mut session = stage.session("a");
    stage.selects("a", "7");
    assert!(!stage.asks(&mut session, "unheard_of", &json!({})).1);
    stage.loses(&mut session, "act", &json!({}));
    assert!(may_select(&stage, &mut session, "select"));
}

#[test]
fn a_batch_does_not_select_beside_its_own_calls() {
    let mut stage = Stage::of(Era::Legacy);
    let mut session = stage.takes_batches();
    stage.selects("a", "7");
    let call = |id: u32, tool: &str| batched(id, tool, &json!({"project": "8"}));
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 20}});
    let goes = |session: &mut Session, now: Duration, batch: Value| {
        matches!(stage.batch(session, now, &batch), Act::Forward(_))
    };
    let now = stage.now;
    assert!(!goes(&mut session, now, json!([call(1, "act"), call(2, "select")])));
    assert!(!goes(&mut session, now, json!([call(3, "select"), call(4, "act")])));
    assert!(session.in_flight().is_empty());
    stage.selects("a", "7");
    assert!(goes(&mut session, now, json!([call(20, "act"), call(21, "act")])));
    // A cancellation in a batch that is refused ends nothing, so time does not either.
    assert!(!goes(&mut session, now, json!([cancel, call(22, "unheard_of")])));
    let later = now + FactReader::OWED_FOR;
    assert!(!goes(&mut session, later, json!([call(23, "select")])));
}

#[test]
fn a_selection_that_the_server_makes_a_task_of_stays_open() {
    let mut stage = Stage::of(Era::Modern);
    stage.answered("a", "select", &json!({"project": "8"}), &task());
    stage.selects("a", "7");
    assert!(!stage.acts("a"), "the task may end after it");
    stage.now += HandleStore::FACT_TTL;
    stage.selects("a", "7");
    assert!(stage.acts("a"));
}

#[test]
fn a_selection_that_was_never_sent_is_not_open() {
    let stage = Stage::of(Era::Legacy);
    let mut session = stage.session("a");
    stage.loses(&mut session, "select", &json!({"project": "8"}));
    stage.selects("a", "7");
    assert!(stage.acts("a"));
}

#[test]
fn a_process_may_carry_out_what_it_was_told_before_a_new_beginning() {
    for (state, known) in [(ServerState::Session, true), (ServerState::Process, false)] {
        let stage = Stage::of(Era::Legacy);
        let good = good();
        let mut session = stage.session("a");
        session.set_server_state(state);
        stage.sends(&mut session, "pick", &json!({"project": "8"}));
        stage.begins_anew(&mut session);
        let id = stage.sends(&mut session, "pick", &json!({"project": "7"}));
        stage.answers_to(&mut session, id, &good);
        assert_eq!(stage.asks(&mut session, "act", &json!({})).1, known, "{state:?}");
    }
}

#[test]
fn more_open_selections_than_are_counted_leave_the_fact_unknown() {
    let mut stage = Stage::of(Era::Legacy);
    let seven = json!({"project": "7"});
    for _ in 0..=HandleStore::OPEN_MAX {
        let mut session = stage.session("a");
        let id = stage.sends(&mut session, "select", &seven);
        stage.ends(&mut session, id, &End::Gone);
    }
    stage.now += HandleStore::LATE_MAX;
    stage.selects("a", "7");
    assert!(!stage.acts("a"));
    stage.now += HandleStore::FACT_TTL;
    stage.selects("a", "7");
    assert!(stage.acts("a"));
}

#[test]
fn a_principal_whose_selections_are_open_is_forgotten_last() {
    let stage = Stage::of(Era::Legacy);
    let opens = |who: &str| {
        let mut session = stage.session(who);
        let id = stage.sends(&mut session, "select", &json!({"project": "8"}));
        stage.ends(&mut session, id, &End::Gone);
    };
    opens("a");
    for number in 0..HandleStore::PRINCIPALS_MAX {
        stage.selects(&format!("p-{number}"), "7");
    }
    stage.selects("a", "7");
    assert!(!stage.acts("a"), "its first selection is not forgotten");
    assert!(stage.acts("p-255"));
    for number in 0..HandleStore::PRINCIPALS_MAX {
        opens(&format!("q-{number}"));
    }
    stage.selects("a", "7");
    stage.selects("r", "7");
    assert!(!stage.acts("a") && !stage.acts("r"));
}

#[test]
fn a_selection_for_which_there_was_no_room_leaves_facts_unknown() {
    let mut stage = Stage::of(Era::Legacy);
    let full = stage.room_for_a_call_alone();
    assert!(stage.call("a", "select", &json!({"project": "8"})).1);
    drop(full);
    stage.selects("a", "7");
    assert!(!stage.acts("a"), "what was not kept may still be carried out");
    stage.now += HandleStore::FACT_TTL;
    stage.selects("a", "7");
    assert!(stage.acts("a"));
}

#[test]
fn a_handle_of_a_session_is_known_in_that_session_alone() {
    let stage = Stage::of(Era::Legacy);
    let finds = |session: &mut Session, id: &str| {
        assert!(stage.asks(session, "find", &json!({})).1);
        stage.answers(session, &hands("h-1", id), true);
    };
    let (mut a, mut b) = (stage.session("a"), stage.session("a"));
    finds(&mut a, "gates.list");
    let invokes = |session: &mut Session| {
        let asked = stage.asks(session, "invoke", &json!({"handle": "h-1"}));
        let step = session.upstream_failed(
            session.in_flight().first().unwrap_or(&"none".into()),
            &UpstreamFailure::TimedOut,
            stage.time(),
        );
        drop(step);
        asked
    };
    assert_eq!(invokes(&mut a), known("gates.list"));
    assert_eq!(invokes(&mut b), unknown(), "the same principal in another session");
    // The same text stands for another operation there, which disputes nothing here.
    finds(&mut b, "gates.get");
    assert_eq!(invokes(&mut b), known("gates.get"));
    assert_eq!(invokes(&mut a), known("gates.list"));
    // A handle of the principal's with the same text and another meaning: nobody knows.
    stage.discovers("a", "h-1", "gates.delete");
    assert_eq!(invokes(&mut a), unknown());

    // Without a session of the server nothing is kept; a process of one's own is one.
    let stage = Stage::of(Era::Modern);
    let mut none = stage.session("a");
    let mut own = stage.session("a");
    own.set_server_state(ServerState::Process);
    for (session, expected) in [(&mut none, unknown()), (&mut own, known("x"))] {
        assert!(stage.asks(session, "find", &json!({})).1);
        stage.answers(session, &hands("h-2", "x"), true);
        assert_eq!(stage.asks(session, "invoke", &json!({"handle": "h-2"})), expected);
    }
}

#[test]
fn an_answer_from_before_a_new_beginning_teaches_nothing() {
    let stage = Stage::of(Era::Legacy);
    let mut session = stage.session("a");
    let before = stage.sends(&mut session, "find", &json!({}));
    let judged_before = session.in_flight().remove(0);
    assert!(session.is_current(&judged_before));
    stage.begins_anew(&mut session);
    // An edge asks before it sends what was judged by the session that is gone.
    assert!(!session.is_current(&judged_before));
    assert!(session.is_current(session.in_flight().last().unwrap()));
    stage.answers_to(&mut session, before, &hands("h-1", "x"));
    assert_eq!(stage.asks(&mut session, "invoke", &json!({"handle": "h-1"})), unknown());
}

#[test]
fn what_a_server_holds_for_everyone_is_known_to_whom_has_selected_it_last() {
    let good = good();
    for era in [Era::Legacy, Era::Modern] {
        let stage = Stage::of(era);
        let chooses = |who: &str, project: &str| {
            stage.answered(who, "choose", &json!({"project": project}), &good);
        };
        chooses("a", "7");
        assert!(stage.acts("a"));
        assert!(!stage.acts("b"), "it may hold another selection for b's credential");
        chooses("b", "8");
        assert!(!stage.acts("a") && !stage.acts("b"), "b has moved it, for everyone or for itself");
        chooses("b", "7");
        assert!(stage.acts("a") && stage.acts("b"));
        // A call of another that is still open may have moved it already.
        let mut open = stage.session("b");
        let id = stage.sends(&mut open, "choose", &json!({"project": "8"}));
        assert!(!stage.acts("a") && !stage.acts("b"));
        chooses("a", "7");
        assert!(!stage.acts("a"), "b's may be carried out after it");
        stage.answers_to(&mut open, id, &good);
        assert!(!stage.acts("a") && !stage.acts("b"));
        chooses("a", "7");
        assert!(stage.acts("a") && !stage.acts("b"));
    }
}

#[test]
fn what_does_not_fit_into_memory_is_unknown() {
    let stage = Stage::of(Era::Legacy);
    let mut session = stage.session("a");
    assert!(stage.asks(&mut session, "discover", &json!({})).1);
    let full = stage.gate.memory().count("a", Gate::MEMORY_BYTES_DEFAULT);
    stage.answers(&mut session, &hands("h-1", "x"), true);
    drop((full, session));
    assert_eq!(stage.invokes("a", "h-1"), unknown());
    let full = stage.room_for_a_call_alone();
    let mut session = stage.session("a");
    assert!(stage.asks(&mut session, "select", &json!({"project": "7"})).1);
    stage.answers(&mut session, &good(), true);
    drop(full);
    assert!(!stage.acts("a"));
}
