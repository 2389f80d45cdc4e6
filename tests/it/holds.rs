//! Requests that a rule holds: nothing reaches the server before a person has approved exactly that
//! (threats I1, I4, I8, I9).

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::{Bound, HoldRule, Limit, Obligation, Rate};
use bartizan_gate::evidence::record::{CallId, Event, Now};
use bartizan_gate::evidence::step::{Act, Step};
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::question::hold::{Approval, GrantScope, Hold, HoldEnd, HoldId, HoldKey};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::{
    Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, ServerState, Session, UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::{ByName, Sink};
use serde_json::{Value, json};

fn hold(code: &str) -> Obligation {
    asks(code, "release", 2)
}

fn asks(code: &str, group: &str, quorum: u32) -> Obligation {
    Obligation::Hold(HoldRule {
        code: code.into(),
        message: "a second pair of eyes".into(),
        tell: None,
        approvers: vec![group.into()],
        ttl: None,
        quorum,
        scopes: vec![GrantScope { code: "hour".into(), lasts: Duration::from_hours(1), count: 5 }],
    })
}

/// `publish` is held by one rule and `drop` by two; the policy refuses what was approved in jest.
fn judge(name: &str, request: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    let approved = request.approval.is_some();
    let jest = request.approval.is_some_and(|approval| &*approval.reason == "jest");
    let rate = Rate { count: 1, period: Duration::from_hours(1) };
    let limit = Obligation::Limit(Limit {
        code: "calls".into(),
        key: "all".into(),
        bound: Bound::Bucket { rate, burst: 1 },
        cost: 1,
    });
    let single = Obligation::Limit(Limit {
        code: "single".into(),
        key: "all".into(),
        bound: Bound::InFlight(1),
        cost: 1,
    });
    let set = Obligation::Set { pointer: "/reviewed".into(), value: "true".into() };
    match name {
        _ if jest => None,
        // At most one approved call an hour, and one at once.
        "budgeted" if approved => Some(vec![hold("publish"), limit]),
        "publish" | "budgeted" | "resources/read" => Some(vec![hold("publish")]),
        "counted" => Some(vec![hold("publish"), limit]),
        "single" => Some(vec![hold("publish"), single]),
        "edited" => Some(vec![hold("publish"), set]),
        "drop" => Some(vec![hold("one"), hold("two")]),
        // Two rules with one code that ask different people.
        "shared" => Some(vec![hold("one"), asks("one", "owners", 2)]),
        // Once somebody has approved, the rule asks others, or more of them.
        "others" => Some(vec![asks("one", if approved { "owners" } else { "release" }, 2)]),
        "more" => Some(vec![asks("one", "release", if approved { 3 } else { 2 })]),
        _ => Some(Vec::new()),
    }
}

/// One session of one agent, without its edges.
struct Line {
    gate: Gate,
    sink: Sink,
    session: Session,
    now: Now,
}

impl Line {
    fn new() -> Self {
        Self::with(Mode::Enforce, RefusalForm::Error, Transport::Http)
    }

    fn with(mode: Mode, form: RefusalForm, transport: Transport) -> Self {
        Self::before(Server::default(), mode, form, transport)
    }

    fn before(server: Server, mode: Mode, form: RefusalForm, transport: Transport) -> Self {
        let config = GateConfig {
            mode,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "holds".into(),
            digest_key: [7; 32],
        };
        let facts = Server { name: "flags".into(), ..server };
        let mut server = Protected::new(facts, form);
        server.batches = true;
        let principal = Principal { id: "agent".into(), ..Principal::default() };
        let session = Session::new(Arc::new(principal), Arc::new(server), transport);
        let gate = Gate::new(config, Arc::new(ByName::new(judge)));
        let now = Now { uptime: Duration::from_secs(1), wall: UNIX_EPOCH };
        Self { gate, sink: Sink::default(), session, now }
    }

    /// Another instance: with a digest key of its own, and these keys of seals.
    fn instance(digest_key: [u8; 32], seals: &[[u8; 32]]) -> Self {
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "another".into(),
            digest_key,
        };
        let gate = Gate::new(config, Arc::new(ByName::new(judge))).sealing(seals);
        Self { gate, ..Self::new() }
    }

    fn did(&self, step: Step) -> Did {
        match step.record(&self.sink).unwrap() {
            Act::Forward(permitted) => Did::Sent(serde_json::from_slice(permitted.body()).unwrap()),
            Act::Deliver(released) => Did::Told(serde_json::from_slice(released.body()).unwrap()),
            Act::Hold(hold) => Did::Held(hold),
            Act::Drop => Did::Nothing,
        }
    }

    fn sends(&mut self, message: &Value) -> Did {
        self.arrives(message, true)
    }

    fn arrives(&mut self, message: &Value, may_wait: bool) -> Did {
        let step = self.session.client_frame(&self.gate, &arrival(message, may_wait), self.now);
        self.did(step)
    }

    /// What becomes of a request that waited as `call`, with these approvals.
    fn approved(&mut self, message: &Value, call: &CallId, approvals: &[Approval]) -> Option<Did> {
        let arrival = arrival(message, true);
        let places = self.session.reserve(&self.gate, call, self.now)?.unwrap();
        let granted = (approvals, places.as_ref());
        let step =
            self.session.client_frame_approved(&self.gate, &arrival, call, granted, self.now)?;
        Some(self.did(step))
    }

    fn ends(&mut self, call: &CallId, end: HoldEnd) -> Option<Value> {
        let step = self.session.hold_ended(&self.gate, call, end, self.now)?;
        Some(self.did(step).told())
    }

    fn events(&self) -> Vec<Event> {
        self.sink.events()
    }

    fn codes(&self) -> Vec<String> {
        let kept = self.sink.kept();
        let reasons = &kept.last().unwrap().decision.as_ref().unwrap().reasons;
        reasons.iter().map(|reason| reason.code.to_string()).collect()
    }
}

fn arrival(message: &Value, may_wait: bool) -> Arrival {
    Arrival { raw: message.to_string().into(), may_wait, ..Arrival::default() }
}

/// What the gate did with a message.
#[derive(Debug)]
enum Did {
    Sent(Value),
    Told(Value),
    Held(Box<Hold>),
    Nothing,
}

impl Did {
    fn held(self) -> Box<Hold> {
        let Self::Held(hold) = self else { panic!("{self:?}") };
        hold
    }

    fn told(self) -> Value {
        let Self::Told(message) = self else { panic!("{self:?}") };
        message
    }

    fn sent(self) -> Value {
        let Self::Sent(message) = self else { panic!("{self:?}") };
        message
    }
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The same call by a client of revision 2026-07-28, with a further member of `params`.
fn modern(id: u64, tool: &str, further: Option<(&str, Value)>) -> Value {
    let mut call = call(id, tool, json!({"env": "production"}));
    call["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "agent", "version": "1"},
    });
    if let Some((name, value)) = further {
        call["params"][name] = value;
    }
    call
}

fn grant(hold: &Hold) -> Approval {
    Approval {
        hold: HoldId("0123456789abcdef0123456789abcdef".into()),
        key: hold.key,
        groups: hold.approvers.clone(),
        quorum: hold.quorum,
        approvers: vec!["ada".into()],
        reason: "checked".into(),
        scope: None,
        granted_unix_ms: 0,
    }
}

fn pending() -> HoldEnd {
    let hold = HoldId("0123456789abcdef0123456789abcdef".into());
    HoldEnd::Pending { hold, retry_after: Duration::from_secs(1), state: None, page: None }
}

#[test]
fn a_held_call_passes_only_with_the_approval_of_exactly_that_call() {
    let mut line = Line::new();
    let message = call(1, "publish", json!({"env": "production", "note": "a\u{202e}b"}));
    let hold = line.sends(&message).held();
    assert_eq!(
        (&*hold.principal, &*hold.server, &*hold.method, hold.target.as_deref()),
        ("agent", "flags", "tools/call", Some("publish"))
    );
    assert_eq!((&*hold.code, &*hold.revision, hold.quorum), ("publish", "test", 2));
    assert_eq!(*hold.approvers, [Box::from("release")]);
    let shown: Value = serde_json::from_slice(&hold.shown).unwrap();
    assert_eq!(shown, message["params"]);
    assert_eq!(line.events(), [Event::Hold]);

    // Approvals of something else: the call is held anew, and nothing is sent.
    let mut foreign = grant(&hold);
    foreign.key = HoldKey([7; 32]);
    let again = line.approved(&message, &hold.call, &[foreign]).unwrap().held();
    assert_eq!((again.key, &again.call), (hold.key, &hold.call));

    let sent = line.approved(&message, &hold.call, &[grant(&hold)]).unwrap().sent();
    assert_eq!(sent, message);
    assert_eq!(line.events(), [Event::Hold, Event::Hold, Event::Intent]);
    {
        let kept = line.sink.kept();
        let decision = kept.last().unwrap().decision.as_ref().unwrap();
        assert!(decision.obligations.iter().any(|it| *it == "hold:publish"), "{decision:?}");
        let calls: Vec<_> = kept.iter().map(|record| record.call.clone()).collect();
        assert!(calls.iter().all(|call| *call == calls[0]), "one call has one name: {calls:?}");
    }
    // It no longer waits, so nothing passes a second time.
    assert!(line.approved(&message, &hold.call, &[grant(&hold)]).is_none());
    assert!(line.ends(&hold.call, HoldEnd::Refused).is_none());
}

#[test]
fn each_changed_byte_of_what_is_sent_makes_another_hold() {
    let first = Line::new().sends(&call(1, "publish", json!({"env": "staging"}))).held();
    let mut other = vec![
        call(1, "publish", json!({"env": "production"})),
        call(1, "publish", json!({"env": "staging", "more": null})),
        call(1, "publish", json!({"env": ["staging"]})),
        call(1, "edited", json!({"env": "staging"})),
    ];
    // Members of `_meta` that are the protocol's own in name or place alone reach the server, too.
    for meta in [
        json!({"vendor/dry-run": false}),
        json!({"io.modelcontextprotocol/dry-run": false}),
        json!({"io.modelcontextprotocol/": {"env": "production"}}),
        json!({"io.modelcontextprotocol/related-task": {"taskId": "t"}}),
        json!({"baggage": "env=production"}),
        json!({"traceparent": "env=production"}),
        json!({"traceparent": {"env": "production"}}),
        json!({"tracestate": ["env=production"]}),
        json!({"tracestate": "x".repeat(513)}),
    ] {
        let mut message = call(1, "publish", json!({"env": "staging"}));
        message["params"]["_meta"] = meta;
        other.push(message);
    }
    for message in other {
        let hold = Line::new().sends(&message).held();
        assert_ne!(hold.key, first.key, "{message}");
        let mut line = Line::new();
        let call = line.sends(&message).held().call;
        let answer = line.approved(&message, &call, &[grant(&first)]).unwrap();
        answer.held();
    }
    // What differs with each attempt does not count: id, progress token, trace, the protocol's own.
    let mut same = call(7, "publish", json!({"env": "staging"}));
    same["params"]["_meta"] = json!({
        "progressToken": 5,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "tracestate": "vendor=00f067aa0ba902b7",
    });
    assert_eq!(Line::new().sends(&same).held().key, first.key);
}

#[test]
fn what_a_person_sees_is_what_is_sent() {
    let mut line = Line::new();
    let message = call(1, "edited", json!({"env": "staging"}));
    let hold = line.sends(&message).held();
    let sent = line.approved(&message, &hold.call, &[grant(&hold)]).unwrap().sent();
    let shown: Value = serde_json::from_slice(&hold.shown).unwrap();
    assert_eq!(shown, sent["params"]);
    assert_eq!(shown["arguments"]["reviewed"], true);
}

#[test]
fn the_policy_is_asked_again_with_the_approval() {
    let mut line = Line::new();
    let message = call(1, "publish", json!({}));
    let hold = line.sends(&message).held();
    let mut approval = grant(&hold);
    approval.reason = "jest".into();
    let told = line.approved(&message, &hold.call, &[approval]).unwrap().told();
    assert_eq!(told["error"]["code"], -31001);
    let denial = line.sink.kept().pop().unwrap();
    assert_eq!(denial.event, Event::Denial);
    let used = denial.approval.as_ref().unwrap();
    assert_eq!((used.answer, used.reason.as_deref()), ("spent", Some("jest")));
}

#[test]
fn each_record_of_a_call_names_the_grant_that_it_has_used() {
    let mut line = Line::new();
    let message = call(1, "publish", json!({}));
    let hold = line.sends(&message).held();
    line.approved(&message, &hold.call, &[grant(&hold)]).unwrap().sent();
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}});
    let step = line.session.server_frame(&line.gate, &answer.to_string().into(), line.now);
    line.did(step).told();
    let named: Vec<_> = line
        .sink
        .kept()
        .iter()
        .map(|record| (record.event, record.approval.as_ref().map(|it| it.hold.to_string())))
        .collect();
    let id = || Some(grant(&hold).hold.0.to_string());
    assert_eq!(
        named,
        [(Event::Hold, None), (Event::Intent, id()), (Event::Outcome, id())],
        "{named:?}"
    );
}

#[test]
fn each_rule_that_holds_needs_an_approval_of_its_own() {
    let mut line = Line::new();
    let message = call(1, "drop", json!({}));
    let one = line.sends(&message).held();
    let asked: Vec<_> = one.all().map(|hold| (&*hold.code, hold.key)).collect();
    let first = grant(&one);
    let two = line.approved(&message, &one.call, std::slice::from_ref(&first)).unwrap().held();
    assert_eq!((&*one.code, &*two.code), ("one", "two"));
    assert_eq!(asked, [("one", one.key), ("two", two.key)], "both at once");
    assert!(two.also.is_empty());
    assert_ne!(one.key, two.key);
    // The first approval twice is no second one.
    let again = line.approved(&message, &one.call, &[first.clone(), first.clone()]).unwrap();
    assert_eq!(again.held().key, two.key);
    line.approved(&message, &one.call, &[first, grant(&two)]).unwrap().sent();
}

#[test]
fn an_approval_of_some_people_is_none_of_others() {
    for tool in ["shared", "others", "more"] {
        let mut line = Line::new();
        let message = call(1, tool, json!({}));
        let one = line.sends(&message).held();
        let first = grant(&one);
        let two = line.approved(&message, &one.call, std::slice::from_ref(&first)).unwrap().held();
        assert_ne!((&one.approvers, one.quorum), (&two.approvers, two.quorum), "{tool}");
        assert!(one.also.is_empty(), "{tool}: one key is one hold at a time");
        line.approved(&message, &one.call, &[first, grant(&two)]).unwrap().sent();
    }
}

/// Where `publish` lands is what `select` has selected, which no argument says.
const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "tools": {
    "select": {"effect": "read", "facts": {"project": "/project"}},
    "publish": {"effect": "write"}
  }
}"#;

#[test]
fn what_was_selected_is_part_of_what_is_approved() {
    let pack = Some(Arc::new(Pack::read(PACK.as_bytes()).unwrap()));
    let server = Server { pack, ..Server::default() };
    let mut line = Line::before(server, Mode::Enforce, RefusalForm::Error, Transport::Stdio);
    line.session.set_server_state(ServerState::Process);
    let select = |line: &mut Line, id: u64, project: &str| {
        line.sends(&call(id, "select", json!({"project": project}))).sent();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
        let step = line.session.server_frame(&line.gate, &answer.to_string().into(), line.now);
        assert!(matches!(line.did(step), Did::Told(_)));
    };
    let selected = |hold: &Hold| hold.facts.get("project").map(ToString::to_string);
    select(&mut line, 1, "7");
    let message = call(2, "publish", json!({}));
    let hold = line.sends(&message).held();
    assert_eq!((selected(&hold).as_deref(), &*hold.effect), (Some("7"), "write"));

    // The person has seen project 7; meanwhile the agent selects another one.
    select(&mut line, 3, "8");
    let first = grant(&hold);
    let other = line.approved(&message, &hold.call, std::slice::from_ref(&first)).unwrap().held();
    assert_eq!(selected(&other).as_deref(), Some("8"));
    assert_ne!(other.key, hold.key);
    select(&mut line, 4, "7");
    line.approved(&message, &hold.call, &[first]).unwrap().sent();
}

#[test]
fn without_anybody_to_ask_it_is_refused() {
    for form in [RefusalForm::Error, RefusalForm::ToolResult] {
        let mut line = Line::with(Mode::Enforce, form, Transport::Http);
        let told = line.arrives(&call(1, "publish", json!({})), false).told();
        if form == RefusalForm::Error {
            assert_eq!(told["error"]["code"], -31004, "{told}");
        } else {
            assert_eq!(told["result"]["isError"], true, "{told}");
        }
        assert_eq!(line.events(), [Event::Denial]);
    }
    // A notification and a message of a batch cannot wait.
    let mut line = Line::new();
    let mut message = call(1, "publish", json!({}));
    message.as_object_mut().unwrap().remove("id");
    assert!(matches!(line.sends(&message), Did::Told(_)));
    let batch = json!([call(1, "publish", json!({})), call(2, "other", json!({}))]);
    let told = line.sends(&batch).told();
    assert_eq!(told[0]["error"]["code"], -31004, "{told}");
    assert!(line.events().iter().all(|event| *event == Event::Denial));
}

#[test]
fn observe_mode_holds_nothing() {
    let mut line = Line::with(Mode::Observe, RefusalForm::Error, Transport::Http);
    line.sends(&call(1, "publish", json!({}))).sent();
    assert_eq!(line.events(), [Event::Intent]);
}

#[test]
fn the_id_and_the_token_of_a_held_request_are_taken() {
    let mut line = Line::new();
    let mut message = call(1, "publish", json!({}));
    message["params"]["_meta"] = json!({"progressToken": "t"});
    let hold = line.sends(&message).held();
    for id in [json!(1), json!("1")] {
        let mut second = call(1, "other", json!({}));
        second["id"] = id;
        assert_eq!(line.sends(&second).told()["error"]["message"], "Request id already used");
    }
    let mut second = call(2, "other", json!({}));
    second["params"]["_meta"] = json!({"progressToken": "t"});
    assert_eq!(line.sends(&second).told()["error"]["message"], "Progress token already in use");
    // They are free for the request itself.
    line.approved(&message, &hold.call, &[grant(&hold)]).unwrap().sent();
}

#[test]
fn held_requests_count_as_requests_in_flight() {
    let mut line = Line::new();
    for id in 0..8 {
        line.sends(&call(id, "publish", json!({"id": id}))).held();
    }
    assert_eq!(line.sends(&call(8, "other", json!({}))).told()["error"]["code"], -31007);
}

#[test]
fn a_cancellation_ends_the_hold_and_the_server_hears_of_neither() {
    let mut line = Line::new();
    let message = call(1, "publish", json!({}));
    let hold = line.sends(&message).held();
    let cancelled = |id| {
        let params = json!({"requestId": id});
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
    };
    assert!(line.session.is_held(&hold.call));
    assert!(matches!(line.sends(&cancelled(1)), Did::Nothing));
    assert!(!line.session.is_held(&hold.call));
    assert!(line.approved(&message, &hold.call, &[grant(&hold)]).is_none());
    assert_eq!(line.events(), [Event::Hold, Event::Drop]);
    assert_eq!(line.codes(), ["approval-cancelled", "publish", "by-name"]);
    // A second one names nothing.
    assert!(!matches!(line.sends(&cancelled(1)), Did::Sent(_)));
}

#[test]
fn a_request_whose_client_has_gone_no_longer_waits() {
    let mut line = Line::new();
    let message = call(1, "publish", json!({}));
    let hold = line.sends(&message).held();
    assert!(line.session.awaits(&hold.call) && line.session.in_flight().contains(&hold.call));
    let step = line.session.client_gone(&hold.call, line.now).unwrap();
    assert!(matches!(line.did(step), Did::Nothing));
    assert!(line.approved(&message, &hold.call, &[grant(&hold)]).is_none());
    assert!(!line.session.awaits(&hold.call) && line.session.in_flight().is_empty());
    // At the end of a server each request gets its answer, held ones too.
    let hold = line.sends(&call(2, "publish", json!({}))).held();
    let failure = UpstreamFailure::Unreachable("gone".into());
    let step = line.session.upstream_failed(&hold.call, &failure, line.now).unwrap();
    assert_eq!(line.did(step).told()["id"], 2);
}

#[test]
fn a_message_of_the_server_is_no_answer_to_a_held_request() {
    let mut line = Line::with(Mode::Enforce, RefusalForm::Error, Transport::Stdio);
    let hold = line.sends(&call(1, "publish", json!({}))).held();
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}});
    let step = line.session.server_frame(&line.gate, &answer.to_string().into(), line.now);
    assert!(matches!(line.did(step), Did::Nothing));
    assert!(line.session.is_held(&hold.call));
}

#[test]
fn a_call_pays_its_limits_once() {
    let mut line = Line::new();
    let message = call(1, "counted", json!({}));
    let hold = line.sends(&message).held();
    line.approved(&message, &hold.call, &[grant(&hold)]).unwrap().sent();
    let told = line.sends(&call(2, "counted", json!({}))).told();
    assert_eq!(told["error"]["code"], -31002, "a flood reaches no approver: {told}");
}

#[test]
fn a_limit_that_comes_with_the_approval_counts_what_was_approved() {
    let mut line = Line::new();
    let asks = |id| call(id, "budgeted", json!({}));
    let hold = line.sends(&asks(1)).held();
    line.approved(&asks(1), &hold.call, &[grant(&hold)]).unwrap().sent();
    let hold = line.sends(&asks(2)).held();
    let told = line.approved(&asks(2), &hold.call, &[grant(&hold)]).unwrap().told();
    assert_eq!(told["error"]["code"], -31002, "{told}");
}

#[test]
fn a_client_that_is_told_to_call_again_pays_once() {
    let mut line = Line::new();
    let (asks, second) = (|id| call(id, "counted", json!({})), Duration::from_secs(1));
    let mut hold = line.sends(&asks(1)).held();
    for id in 2..5 {
        line.now.uptime += second;
        line.ends(&hold.call, pending()).unwrap();
        hold = line.sends(&asks(id)).held();
        // What one attempt has paid is used by one call, and by the same call alone.
        for other in [asks(10 * id), call(10 * id + 1, "counted", json!({"a": 1}))] {
            assert_eq!(line.sends(&other).told()["error"]["code"], -31002);
        }
    }
    line.approved(&asks(4), &hold.call, &[grant(&hold)]).unwrap().sent();
    assert_eq!(line.sends(&asks(5)).told()["error"]["code"], -31002, "a new call pays");
}

#[test]
fn calling_again_without_a_pause_is_not_free() {
    let mut line = Line::new();
    let asks = |id| call(id, "counted", json!({}));
    let hold = line.sends(&asks(1)).held();
    line.ends(&hold.call, pending()).unwrap();
    let hold = line.sends(&asks(2)).held();
    line.ends(&hold.call, pending()).unwrap();
    assert_eq!(line.sends(&asks(3)).told()["error"]["code"], -31002);
    // A client that gives up leaves nothing.
    let mut line = Line::new();
    let hold = line.sends(&asks(1)).held();
    drop(line.session.client_gone(&hold.call, line.now));
    assert_eq!(line.sends(&asks(2)).told()["error"]["code"], -31002);
}

#[test]
fn a_held_call_has_its_place_before_its_grant_is_spent() {
    let mut line = Line::new();
    let asks = |id| call(id, "single", json!({}));
    let (one, two) = (line.sends(&asks(1)).held(), line.sends(&asks(2)).held());
    let place = line.session.reserve(&line.gate, &one.call, line.now).unwrap().unwrap();
    assert!(line.session.reserve(&line.gate, &two.call, line.now).unwrap().is_err());
    let told = line.sends(&call(3, "single", json!({}))).told();
    assert_eq!(told["error"]["code"], -31002, "nobody takes a reserved place: {told}");
    let (granted, arrival) = ([grant(&one)], arrival(&asks(1), true));
    let granted = (&granted[..], place.as_ref());
    let step =
        line.session.client_frame_approved(&line.gate, &arrival, &one.call, granted, line.now);
    line.did(step.unwrap()).sent();
    drop(place);
    // The place is the call's now, and is given back once.
    assert!(line.session.reserve(&line.gate, &two.call, line.now).unwrap().is_err());
    line.session.forget(&one.call);
    let place = line.session.reserve(&line.gate, &two.call, line.now).unwrap().unwrap();
    assert!(place.is_some());
    assert!(line.session.reserve(&line.gate, &two.call, line.now).unwrap().is_err());
    assert!(line.ends(&two.call, HoldEnd::Cancelled).is_some());
    assert!(line.session.reserve(&line.gate, &two.call, line.now).is_none(), "it no longer waits");
}

#[test]
fn a_client_is_told_how_a_hold_ended_in_the_form_that_it_can_use() {
    let mut line = Line::new();
    let hold = line.sends(&call(1, "publish", json!({}))).held();
    let told = line.ends(&hold.call, pending()).unwrap();
    assert_eq!(told["result"]["isError"], true);
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Call again with the same arguments"), "{text}");
    assert_eq!(line.codes(), ["approval-pending", "publish", "by-name"]);

    let read = json!({"jsonrpc": "2.0", "id": 2, "method": "resources/read",
        "params": {"uri": "file:///a"}});
    let hold = line.sends(&read).held();
    let told = line.ends(&hold.call, pending()).unwrap();
    assert_eq!(told["error"]["code"], -31004);
    let data = &told["error"]["data"];
    assert_eq!(data["approval_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(data["retry_after_ms"], 1000);

    let cooling = HoldEnd::CoolingDown { retry_after: Duration::from_mins(1) };
    for (id, end) in (3..).zip([HoldEnd::Refused, HoldEnd::Expired, HoldEnd::Full, cooling]) {
        let hold = line.sends(&call(id, "publish", json!({}))).held();
        let told = line.ends(&hold.call, end.clone()).unwrap();
        assert_eq!((&told["error"]["code"], &told["id"]), (&json!(-31004), &json!(id)), "{end:?}");
    }
}

#[test]
fn a_client_of_2026_calls_again_with_a_state_that_the_server_never_sees() {
    let mut line = Line::new();
    let hold = line.sends(&modern(1, "publish", None)).held();
    let told = line.ends(&hold.call, pending()).unwrap();
    assert_eq!(told["result"]["resultType"], "input_required", "{told}");
    let state = told["result"]["requestState"].clone();

    let again = modern(2, "publish", Some(("requestState", state.clone())));
    let second = line.sends(&again).held();
    assert_eq!(second.key, hold.key, "the same call attaches to the same hold");
    let sent = line.approved(&again, &second.call, &[grant(&second)]).unwrap().sent();
    assert_eq!(sent, modern(2, "publish", None));

    // The server's own state comes back with the same call, whatever is in it.
    for (id, own) in (30..).step_by(2).zip(["s", "", "a.b.c.d", "bartizan-hold", "é\"\\\n"]) {
        let first = modern(id, "publish", Some(("requestState", json!(own))));
        let hold = line.sends(&first).held();
        let told = line.ends(&hold.call, pending()).unwrap();
        let nested = told["result"]["requestState"].clone();
        let again = modern(id + 1, "publish", Some(("requestState", nested.clone())));
        let second = line.sends(&again).held();
        assert_eq!(second.key, hold.key, "{own:?}");
        let sent = line.approved(&again, &second.call, &[grant(&second)]).unwrap().sent();
        assert_eq!(sent["params"]["requestState"], json!(own));
        let changed = json!(format!("{}x", nested.as_str().unwrap()));
        let told = line.sends(&modern(id + 1000, "other", Some(("requestState", changed)))).told();
        assert_eq!(told["error"]["code"], -32602, "{told}");
    }

    // Another's state, a changed one and an old one are refused; a server's own passes.
    let text = state.as_str().unwrap();
    let mut broken = vec![text.replace("bartizan-hold.0", "bartizan-hold.1"), format!("{text}0")];
    broken.extend(["bartizan-hold.".to_owned(), "bartizan-hold.a.b.c.d".to_owned()]);
    for (id, state) in (10..).zip(broken) {
        let told = line.sends(&modern(id, "other", Some(("requestState", json!(state))))).told();
        assert_eq!(told["error"]["code"], -32602, "{told}");
    }
    let late = Now { wall: UNIX_EPOCH + Duration::from_hours(72), ..line.now };
    line.now = late;
    let told = line.sends(&modern(20, "other", Some(("requestState", state)))).told();
    assert_eq!(told["error"]["code"], -32602, "{told}");
    let own = modern(21, "other", Some(("requestState", json!("server's"))));
    assert_eq!(line.sends(&own).sent(), own);
}

#[test]
fn a_call_begun_at_one_instance_goes_on_at_another_with_the_same_key() {
    let (old, new) = ([1; 32], [2; 32]);
    let begun = |line: &mut Line, id| {
        let hold = line.sends(&modern(id, "publish", Some(("requestState", json!("own"))))).held();
        let told = line.ends(&hold.call, pending()).unwrap();
        (hold, told["result"]["requestState"].clone())
    };
    let (hold, state) = begun(&mut Line::instance([3; 32], &[old]), 1);
    // The key is changed: the new one opens everywhere before it seals anywhere.
    for seals in [&[old][..], &[old, new], &[new, old]] {
        let mut other = Line::instance([4; 32], seals);
        let again = modern(2, "publish", Some(("requestState", state.clone())));
        let second = other.sends(&again).held();
        assert_eq!(second.key, hold.key, "the same hold, wherever it is asked for");
        let sent = other.approved(&again, &second.call, &[grant(&second)]).unwrap().sent();
        assert_eq!(sent["params"]["requestState"], "own");
    }
    let again = modern(3, "publish", Some(("requestState", state.clone())));
    for mut stranger in [Line::instance([3; 32], &[new]), Line::instance([4; 32], &[]), Line::new()]
    {
        let told = stranger.sends(&again).told();
        assert_eq!(told["error"]["code"], -32602, "{told}");
    }
    let (_, state) = begun(&mut Line::instance([3; 32], &[new, old]), 4);
    let again = modern(5, "publish", Some(("requestState", state)));
    let told = Line::instance([3; 32], &[old]).sends(&again).told();
    assert_eq!(told["error"]["code"], -32602, "the first key seals: {told}");
}

const PAGE: &str = "https://desk.example/console#hold=0123456789abcdef0123456789abcdef";

/// That nobody has answered yet, and where approvers do.
fn pending_at() -> HoldEnd {
    let HoldEnd::Pending { hold, retry_after, state, .. } = pending() else { panic!() };
    HoldEnd::Pending { hold, retry_after, state, page: Some(PAGE.into()) }
}

/// A modern call of a client that declares `capabilities`.
fn declaring(id: u64, capabilities: Value, further: &[(&str, Value)]) -> Value {
    let mut call = modern(id, "publish", None);
    call["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    for (name, value) in further {
        call["params"][*name] = value.clone();
    }
    call
}

#[test]
fn a_client_that_opens_urls_is_asked_once_to_show_the_page() {
    let url = json!({"elicitation": {"url": {}}});
    for (id, capabilities, asked) in [
        (1, url.clone(), true),
        (2, json!({"elicitation": {"form": {}, "url": {}}}), true),
        (3, json!({"elicitation": {"form": {}}}), false),
        (4, json!({"elicitation": {}}), false),
        (5, json!({}), false),
    ] {
        let mut line = Line::new();
        let hold = line.sends(&declaring(id, capabilities, &[])).held();
        assert_eq!(line.session.opens_pages(&hold.call), asked, "{id}");
        let told = line.ends(&hold.call, pending_at()).unwrap();
        let result = &told["result"];
        assert_eq!(result["resultType"], "input_required", "{told}");
        assert!(result["requestState"].is_string(), "{told}");
        let request = &result["inputRequests"]["bartizan-approval"];
        assert_eq!(result["inputRequests"].is_object(), asked, "{told}");
        if asked {
            assert_eq!(request["method"], "elicitation/create");
            assert_eq!(
                (&request["params"]["mode"], &request["params"]["url"]),
                (&json!("url"), &json!(PAGE))
            );
            assert_eq!(request["params"]["elicitationId"], "0123456789abcdef0123456789abcdef");
            assert!(request["params"]["message"].as_str().unwrap().contains("approves nothing"));
        }
    }
    // Not again with each leg, and never without a page.
    let mut line = Line::new();
    let hold = line.sends(&declaring(1, url.clone(), &[])).held();
    let state = line.ends(&hold.call, pending_at()).unwrap()["result"]["requestState"].clone();
    let hold = line.sends(&declaring(2, url.clone(), &[("requestState", state)])).held();
    assert!(!line.session.opens_pages(&hold.call));
    let told = line.ends(&hold.call, pending_at()).unwrap();
    assert!(told["result"]["requestState"].is_string(), "{told}");
    assert!(told["result"]["inputRequests"].is_null(), "{told}");
    let hold = line.sends(&declaring(3, url, &[])).held();
    let told = line.ends(&hold.call, pending()).unwrap();
    assert!(told["result"]["inputRequests"].is_null(), "{told}");

    // Who cannot be asked reads where it is.
    let mut line = Line::new();
    let hold = line.sends(&call(4, "publish", json!({}))).held();
    let told = line.ends(&hold.call, pending_at()).unwrap();
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains(PAGE) && text.contains("Call again with the same arguments"), "{text}");
    let read = json!({"jsonrpc": "2.0", "id": 5, "method": "resources/read",
        "params": {"uri": "file:///a"}});
    let hold = line.sends(&read).held();
    let told = line.ends(&hold.call, pending_at()).unwrap();
    assert_eq!(told["error"]["data"]["approval_url"], PAGE, "{told}");
}

#[test]
fn what_a_client_answers_to_the_page_grants_nothing_and_reaches_no_server() {
    let url = json!({"elicitation": {"url": {}}});
    let own = json!({"theirs": {"action": "accept", "content": {"x": 1.0}}});
    // What the held request carries of the server's own.
    for carried in [
        vec![],
        vec![("requestState", json!("theirs"))],
        vec![("inputResponses", own.clone())],
        vec![("inputResponses", own.clone()), ("requestState", json!("a.b:c"))],
    ] {
        for (action, declines) in [("accept", false), ("decline", true), ("cancel", true)] {
            let mut line = Line::new();
            let first = declaring(1, url.clone(), &carried);
            let hold = line.sends(&first).held();
            let told = line.ends(&hold.call, pending_at()).unwrap();
            // The client sends the same request, without what it has sent to the server before.
            let state = told["result"]["requestState"].clone();
            let answer =
                json!({"bartizan-approval": {"action": action}, "other": {"action": action}});
            let leg = [("inputResponses", answer), ("requestState", state)];
            let again = declaring(2, url.clone(), &leg);
            let second = line.sends(&again).held();
            assert_eq!(second.key, hold.key, "{carried:?}");
            let declined = line.session.declined(&second.call).map(|hold| hold.0.to_string());
            let id = "0123456789abcdef0123456789abcdef".to_owned();
            assert_eq!(declined, declines.then_some(id), "{action}");
            let sent = line.approved(&again, &second.call, &[grant(&second)]).unwrap().sent();
            assert_eq!(sent, declaring(2, url.clone(), &carried));
        }
    }
    // Without our state it is not our answer, whatever it is called.
    let mut line = Line::new();
    let forged = json!({"bartizan-approval": {"action": "decline"}});
    let hold = line.sends(&declaring(1, url.clone(), &[("inputResponses", forged)])).held();
    assert_eq!(line.session.declined(&hold.call), None);
    // More than a state holds: the client is told to begin anew, and nothing is lost unseen.
    let many = json!({"theirs": {"action": "accept", "content": {"x": "y".repeat(64 << 10)}}});
    let hold = line.sends(&declaring(2, url, &[("inputResponses", many)])).held();
    let told = line.ends(&hold.call, pending_at()).unwrap();
    assert_eq!(told["result"]["isError"], true, "{told}");
}

#[test]
fn progress_is_that_of_a_held_request_which_asked_and_grows_without_end() {
    let told = |line: &Line, call: &CallId, count: u32| {
        let hold = HoldId("0123456789abcdef0123456789abcdef".into());
        let told = line.session.hold_progress(call, &hold, count.try_into().unwrap())?;
        let told: Value = serde_json::from_slice(told.body()).unwrap();
        assert_eq!(told["method"], "notifications/progress");
        assert!(told["params"]["message"].as_str().unwrap().ends_with(&*hold.0), "{told}");
        Some((
            told["params"]["progressToken"].clone(),
            told["params"]["progress"].as_f64().unwrap(),
        ))
    };
    for token in [json!(0), json!(-7), json!("1"), json!("\"},\u{2028}"), json!("")] {
        let mut line = Line::new();
        let mut message = call(1, "publish", json!({}));
        message["params"]["_meta"] = json!({"progressToken": token});
        let held = line.sends(&message).held().call;
        let mut last = f64::NEG_INFINITY;
        for count in (1..5_000).chain([1 << 20, u32::MAX - 1, u32::MAX]) {
            let (seen, value) = told(&line, &held, count).unwrap();
            assert_eq!(seen, token);
            assert!(last < value && value < 0.0, "{count}: {value} after {last}");
            last = value;
        }
        assert_eq!(told(&line, &"another call".into(), 1), None);
        line.ends(&held, HoldEnd::Refused).unwrap();
        assert_eq!(told(&line, &held, 1), None, "it is over");
    }
    let mut line = Line::new();
    let held = line.sends(&call(1, "publish", json!({}))).held().call;
    assert_eq!(told(&line, &held, 1), None, "it did not ask");
}
