//! Which call a message of the server belongs to: an answer is judged as the one to the request that
//! caused it, however long ago that was cancelled, and a message that names no call as every call of
//! its session demands (threats F4, F12, D5).

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::{Bound, Limit, Obligation, Rate};
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::duty::redact::Redaction;
use bartizan_gate::evidence::record::{CallId, Event, Now, Outcome};
use bartizan_gate::evidence::step::{Act, Step};
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::session::{
    Arrival, DoorFacts, DoorRefusal, ErrorAnswer, Gate, GateConfig, Mode, Protected, Redelivery,
    RefusalForm, ServerState, Session, UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::{ByName, Sink};
use bytes::Bytes;
use serde_json::{Value, json};

/// A secret by its form, which `redact` rules take out.
const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";
const IN_FLIGHT_MAX: usize = 8;

/// `get` must be redacted, `denied` may not pass, and everything else may.
fn judge(name: &str, _: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    let redact = |redaction| Obligation::Redact { code: "secret".into(), redaction };
    match name {
        "get" => Some(vec![
            redact(Redaction::Secrets),
            redact(Redaction::pointer("/result/structuredContent/token")?),
        ]),
        "hourly" => Some(vec![Obligation::Limit(Limit {
            code: "hourly".into(),
            key: "all".into(),
            bound: Bound::Sliding(Rate { count: 1, period: Duration::from_hours(1) }),
            cost: 1,
        })]),
        name => (name != "denied").then(Vec::new),
    }
}

/// One session of one agent, without its edges.
struct Line {
    gate: Gate,
    sink: Sink,
    session: Session,
    uptime: Duration,
}

impl Line {
    fn new(transport: Transport) -> Self {
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: IN_FLIGHT_MAX,
            buckets_max: 8,
            boot: "calls".into(),
            digest_key: [7; 32],
        };
        let policy = ByName { hides: |name| name == "hidden", ..ByName::new(judge) };
        let mut server = Protected::new(Server::default(), RefusalForm::Error);
        server.batches = true;
        let session = Session::new(Arc::<Principal>::default(), Arc::new(server), transport);
        let gate = Gate::new(config, Arc::new(policy));
        Self { gate, sink: Sink::default(), session, uptime: Duration::from_secs(1) }
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, wall: UNIX_EPOCH }
    }

    fn record(&self, step: Step) -> Act {
        step.record(&self.sink).unwrap()
    }

    /// A message of the client: the call under which it is forwarded, or the refusal.
    fn client(&mut self, message: &Value) -> Result<CallId, Value> {
        let arrival = Arrival { raw: message.to_string().into(), ..Arrival::default() };
        let step = self.session.client_frame(&self.gate, &arrival, self.now());
        match self.record(step) {
            Act::Forward(permitted) => Ok(Arc::clone(permitted.call())),
            Act::Deliver(released) => Err(serde_json::from_slice(released.body()).unwrap()),
            Act::Hold(_) | Act::Drop => Err(Value::Null),
        }
    }

    /// What the client gets of a message of the server, in an exchange or outside any.
    fn server(&mut self, within: Option<&CallId>, message: &Value) -> Option<String> {
        self.event(within, message, Redelivery::default())
    }

    fn event(
        &mut self,
        within: Option<&CallId>,
        message: &Value,
        redelivery: Redelivery,
    ) -> Option<String> {
        let raw = message.to_string().into();
        let step = self.session.server_event(&self.gate, within, &raw, redelivery, self.now());
        match self.record(step) {
            Act::Deliver(released) => Some(String::from_utf8(released.body().to_vec()).unwrap()),
            Act::Forward(_) | Act::Hold(_) | Act::Drop => None,
        }
    }

    fn end(&mut self, end: impl FnOnce(&mut Session, Now) -> Option<Step>) {
        let now = self.now();
        let step = end(&mut self.session, now).unwrap();
        drop(self.record(step));
    }

    /// The call of the last record, and whether it says that a message was withheld.
    fn last(&self) -> (CallId, Event) {
        let kept = self.sink.kept();
        let last = kept.last().unwrap();
        (last.call.clone().unwrap(), last.event)
    }
}

fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

fn call(id: impl Into<Value>, tool: &str) -> Value {
    request(id, "tools/call", json!({"name": tool}))
}

fn result(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "result": {
        "content": [{"type": "text", "text": SECRET}], "structuredContent": {"token": "t-1234567"},
        "tools": [{"name": "hidden", "inputSchema": {"type": "object"}}],
    }})
}

fn notice(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn cancel(id: impl Into<Value>) -> Value {
    notice("notifications/cancelled", json!({"requestId": id.into()}))
}

/// `-32600 Request id already used`.
fn is_duplicate(refused: Result<CallId, Value>) -> bool {
    refused.is_err_and(|refusal| {
        let error = &refusal["error"];
        error["code"] == -32600 && error["message"] == "Request id already used"
    })
}

const TRANSPORTS: [Transport; 2] = [Transport::Stdio, Transport::Http];

#[test]
fn a_late_answer_is_withheld_and_recorded_as_that_of_its_own_call() {
    let asks = [call(1, "get"), request(1, "tools/list", json!({})), request(1, "ping", json!({}))];
    for (transport, ask) in TRANSPORTS.into_iter().flat_map(|it| asks.clone().map(|ask| (it, ask)))
    {
        for inside in [false, true] {
            let mut line = Line::new(transport);
            let asked = line.client(&ask).unwrap();
            let told = line.client(&cancel(1)).unwrap();
            assert!(!line.session.awaits(&asked));
            line.end(|session, now| session.upstream_accepted(&told, now));
            // The hole: another request takes the id, and gets the answer.
            assert!(is_duplicate(line.client(&request(1, "ping", json!({})))));
            assert!(is_duplicate(line.client(&request("1", "ping", json!({})))), "reads alike");
            let other = line.client(&request(2, "ping", json!({}))).unwrap();
            let within = inside.then_some(&asked);
            assert_eq!(line.server(within, &result(1)), None, "{transport:?} {ask}");
            assert_eq!(line.last(), (asked.clone(), Event::Drop));
            // Once: what follows is nobody's.
            assert_eq!(line.server(within, &result(1)), None);
            assert_ne!(line.last().0, asked);
            assert!(line.session.awaits(&other));
            assert!(line.server(None, &result(2)).is_some());
        }
    }
}

#[test]
fn an_error_without_an_id_is_that_of_its_exchange_even_late() {
    let mut line = Line::new(Transport::Http);
    let asked = line.client(&call(1, "get")).unwrap();
    line.client(&cancel(1)).unwrap();
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": SECRET}});
    assert_eq!(line.server(Some(&asked), &error), None);
    assert_eq!(line.last(), (asked, Event::Drop));
    assert_eq!(line.server(None, &error), None, "nobody can say whose it is");
}

/// How a request ends.
type End = fn(&mut Line, &CallId);

#[test]
fn an_id_is_used_once_in_a_session_however_its_request_ended() {
    let ends: [End; 6] = [
        |line, _| assert!(line.server(None, &result(1)).is_some()),
        |line, _| drop(line.client(&cancel(1)).unwrap()),
        |line, call| line.end(|session, now| session.client_gone(call, now)),
        |line, call| {
            line.end(|session, now| session.upstream_failed(call, &UpstreamFailure::TimedOut, now));
        },
        |line, call| {
            let failure = UpstreamFailure::Status(502);
            line.end(|session, now| session.upstream_failed(call, &failure, now));
        },
        |line, call| assert!(line.server(Some(call), &json!([])).unwrap().contains("-31006")),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let mut line = Line::new(Transport::Stdio);
        let asked = line.client(&call(1, "get")).unwrap();
        end(&mut line, &asked);
        for id in [json!(1), json!("1")] {
            let ping = request(id, "ping", json!({}));
            assert!(is_duplicate(line.client(&ping)), "end {number}: {ping}");
        }
        let late = line.server(None, &result(1));
        assert_eq!(late, None, "end {number}");
        let named = line.last().0 == asked;
        assert_eq!(named, number != 0, "end {number}: an answer was owed");
        line.client(&request(2, "ping", json!({}))).unwrap();
    }
}

#[test]
fn an_id_that_the_server_never_saw_is_free() {
    let mut line = Line::new(Transport::Stdio);
    assert_eq!(line.client(&call(1, "denied")).unwrap_err()["error"]["code"], -31001);
    line.client(&request(1, "ping", json!({}))).unwrap();
    // A record that is not kept: nothing was sent.
    let arrival = Arrival { raw: call(2, "x").to_string().into(), ..Arrival::default() };
    let step = line.session.client_frame(&line.gate, &arrival, line.now());
    let unrecorded = step.record(&Sink::refusing()).unwrap_err();
    line.session.forget(&unrecorded.call.unwrap());
    line.client(&call(2, "x")).unwrap();
}

#[test]
fn what_names_no_call_is_redacted_as_every_call_of_the_session_demands() {
    let log = notice("notifications/message", json!({"level": "info", "data": SECRET}));
    let ask = |id| request(id, "sampling/createMessage", json!({"systemPrompt": SECRET}));
    let ends: [End; 3] = [
        |_, _| {},
        |line, _| drop(line.client(&cancel(1)).unwrap()),
        |line, _| drop(line.server(None, &result(1)).unwrap()),
    ];
    for end in ends {
        let mut line = Line::new(Transport::Http);
        assert!(line.server(None, &log).unwrap().contains(SECRET), "no call demands anything yet");
        let asked = line.client(&call(1, "get")).unwrap();
        let other = line.client(&request(2, "ping", json!({}))).unwrap();
        end(&mut line, &asked);
        for (number, within) in [None, Some(&asked), Some(&other)].into_iter().enumerate() {
            for message in [log.clone(), ask(number)] {
                let heard = line.server(within, &message).unwrap();
                assert!(!heard.contains(SECRET) && heard.contains("[redacted]"), "{heard}");
            }
        }
    }
}

/// Nothing on a pipe says for which call the server asks.
#[test]
fn a_request_on_a_pipe_belongs_to_the_only_call_that_is_open() {
    let mut line = Line::new(Transport::Stdio);
    line.session.set_server_state(ServerState::Process);
    line.sink.uptime.set(line.uptime).unwrap();
    let asks = |line: &mut Line, id: &str| {
        line.server(None, &request(id, "roots/list", json!({}))).unwrap();
        line.sink.kept().last().unwrap().within.clone()
    };
    assert_eq!(asks(&mut line, "none"), None);
    let first = line.client(&call(1, "put")).unwrap();
    assert_eq!(asks(&mut line, "one"), Some(first.clone()));
    // What the record says decides about no answer: the client's has its own way.
    let roots = json!({"jsonrpc": "2.0", "id": "one", "result": {"roots": []}});
    line.client(&roots).unwrap();
    let answered = line.sink.kept().last().unwrap().clone();
    assert_eq!((answered.event, answered.within), (Event::Outcome, Some(first.clone())));
    let log = notice("notifications/message", json!({"level": "info", "data": "x"}));
    line.server(None, &log).unwrap();
    assert_eq!(line.sink.kept().last().unwrap().within, None, "only a request");

    line.client(&call(2, "put")).unwrap();
    assert_eq!(asks(&mut line, "two"), None, "of which of them?");
    let told = line.client(&cancel(2)).unwrap();
    line.end(|session, now| session.upstream_accepted(&told, now));
    assert_eq!(asks(&mut line, "cancelled"), None, "the server may still be at work on it");
    line.uptime += Duration::from_hours(1);
    assert_eq!(asks(&mut line, "later"), Some(first.clone()));
    assert!(line.server(None, &result(1)).is_some());
    assert_eq!(asks(&mut line, "answered"), None);

    // A line that is not a pipe of this session alone.
    let mut line = Line::new(Transport::Stdio);
    line.sink.uptime.set(line.uptime).unwrap();
    line.client(&call(1, "put")).unwrap();
    assert_eq!(asks(&mut line, "one"), None);
}

#[test]
fn a_session_of_too_many_redactions_hears_nothing_that_names_no_call() {
    let mut line = Line::new(Transport::Stdio);
    line.client(&call(1, "get")).unwrap();
    let log = notice("notifications/message", json!({"level": "info", "data": "x"}));
    assert!(line.server(None, &log).is_some());
    // Another session of the line has used up the table.
    let mut all = Duties::default();
    for number in 0..=Duties::REDACTIONS_MAX {
        all.merge(&duties_of(&format!("/result/{number}")));
    }
    let raw = log.to_string().into();
    let step = line.session.server_stray(&line.gate, &all, &raw, line.now());
    assert!(matches!(line.record(step), Act::Drop));
    assert!(line.server(None, &log).is_none(), "and so it stays");
    assert!(line.server(None, &result(1)).is_some(), "an answer has its own call's");
}

/// What a call demands whose answer must lose the value at `pointer`.
fn duties_of(pointer: &str) -> Duties {
    thread_local! {
        static POINTER: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
    }
    POINTER.with(|it| pointer.clone_into(&mut it.borrow_mut()));
    let judge = |_: &str, _: &AccessRequest<'_>| {
        let redaction = POINTER.with(|it| Redaction::pointer(&it.borrow()))?;
        Some(vec![Obligation::Redact { code: "p".into(), redaction }])
    };
    let mut line = Line::new(Transport::Stdio);
    line.gate.replace_policy(Arc::new(ByName::new(judge)));
    let arrival = Arrival { raw: call(1, "x").to_string().into(), ..Arrival::default() };
    let step = line.session.client_frame(&line.gate, &arrival, line.now());
    let Act::Forward(permitted) = line.record(step) else { panic!("permitted") };
    permitted.duties().clone()
}

#[test]
fn a_token_is_not_given_away_while_progress_may_come() {
    let ask = |id, token: Value| {
        request(id, "tools/call", json!({"name": "x", "_meta": {"progressToken": token}}))
    };
    let progress = notice("notifications/progress", json!({"progressToken": "t", "progress": 1}));
    let refused = |line: &mut Line, id| {
        let refusal = line.client(&ask(id, json!("t"))).unwrap_err();
        assert_eq!(refusal["error"]["message"], "Progress token already in use", "{refusal}");
    };
    let mut line = Line::new(Transport::Stdio);
    line.client(&ask(1, json!("t"))).unwrap();
    assert!(line.server(None, &progress).is_some());
    refused(&mut line, 2);
    line.server(None, &result(1)).unwrap();
    line.client(&ask(3, json!("t"))).expect("the first request was answered");
    line.client(&cancel(3)).unwrap();
    assert_eq!(line.server(None, &progress), None, "of a cancelled call");
    refused(&mut line, 4);
    assert_eq!(line.server(None, &result(3)), None);
    refused(&mut line, 5);
    line.client(&ask(6, json!(7))).unwrap();
    let alike = line.client(&ask(7, json!("7"))).unwrap_err();
    assert_eq!(alike["error"]["code"], -32600);
}

#[test]
fn a_cancellation_of_nothing_in_flight_goes_nowhere() {
    for transport in TRANSPORTS {
        let mut line = Line::new(transport);
        let initialize = request(
            0,
            "initialize",
            json!({"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}),
        );
        line.client(&initialize).unwrap();
        // Before the request, of `initialize`, of an id that reads alike, of no id.
        for nothing in
            [cancel(1), cancel(0), cancel("0"), notice("notifications/cancelled", json!({}))]
        {
            assert_eq!(line.client(&nothing), Err(Value::Null), "{transport:?} {nothing}");
            assert_eq!(line.last().1, Event::Denial);
        }
        let started = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
        let started = json!({"jsonrpc": "2.0", "id": 0, "result": started});
        assert!(line.server(None, &started).is_some(), "it was not cancelled");
        let asked = line.client(&call(1, "get")).unwrap();
        assert_eq!(line.client(&cancel("1")), Err(Value::Null));
        assert!(line.session.awaits(&asked));
        line.client(&cancel(1)).unwrap();
        for twice in [cancel(1), cancel(0)] {
            assert_eq!(line.client(&twice), Err(Value::Null), "{twice}");
        }
        let cancelled = Outcome::Cancelled;
        assert_eq!(line.sink.outcomes().iter().filter(|it| **it == cancelled).count(), 1);
    }
}

#[test]
fn a_server_uses_an_id_once() {
    let ask = |id: Value| request(id, "roots/list", json!({}));
    let pong = |id: Value| json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}});
    let mut line = Line::new(Transport::Stdio);
    line.server(None, &ask(json!(1))).unwrap();
    for again in [json!(1), json!("1")] {
        assert_eq!(line.server(None, &ask(again)), None, "in flight");
    }
    line.client(&pong(json!(1))).unwrap();
    for again in [json!(1), json!("1")] {
        assert_eq!(line.server(None, &ask(again)), None, "answered");
    }
    // The server takes a question back and asks another under its id: the answer to the first is
    // not the answer to the second.
    line.server(None, &ask(json!(2))).unwrap();
    line.server(None, &cancel(2)).unwrap();
    let other = request(2, "sampling/createMessage", json!({"messages": [], "maxTokens": 1}));
    assert_eq!(line.server(None, &other), None);
    assert!(line.client(&pong(json!(2))).is_err());
    line.server(None, &ask(json!(3))).unwrap();
}

#[test]
fn a_cancelled_request_counts_as_one_in_flight_for_a_while() {
    let mut line = Line::new(Transport::Stdio);
    for id in 0..IN_FLIGHT_MAX {
        line.client(&call(id, "x")).unwrap();
        let told = line.client(&cancel(id)).unwrap();
        line.end(|session, now| session.upstream_accepted(&told, now));
    }
    let busy = line.client(&call(100, "x")).unwrap_err();
    assert_eq!(busy["error"]["code"], -31007);
    // The server says that one is over.
    assert_eq!(line.server(None, &result(3)), None);
    let held = line.client(&call(101, "x")).unwrap();
    assert_eq!(line.client(&call(102, "x")).unwrap_err()["error"]["code"], -31007);
    // A full session can be relieved.
    let told = line.client(&cancel(101)).unwrap();
    line.end(|session, now| session.upstream_accepted(&told, now));
    assert!(!line.session.awaits(&held));
    line.uptime += Duration::from_secs(31);
    line.client(&call(103, "x")).expect("nothing is known to be at work any more");
    assert_eq!(line.server(None, &result(5)), None, "and a late answer is still no other's");
    // What failed at the server keeps nothing busy.
    for id in 200..300 {
        let asked = line.client(&call(id, "x")).unwrap();
        let failure = UpstreamFailure::Unreachable("gone".into());
        line.end(|session, now| session.upstream_failed(&asked, &failure, now));
    }
}

#[test]
fn a_session_whose_ids_cannot_be_remembered_takes_no_more() {
    let mut line = Line::new(Transport::Http);
    let mut sent = 0_u32;
    let refusal = loop {
        let id = format!("no order {sent}");
        let asked = match line.client(&request(id.clone(), "ping", json!({}))) {
            Ok(asked) => asked,
            Err(refusal) => break refusal,
        };
        line.server(Some(&asked), &result(id)).unwrap();
        sent += 1;
        line.sink.kept().clear();
    };
    assert_eq!(refusal["error"]["message"], "Too many different request ids");
    assert!((10_000..11_000).contains(&sent), "{sent}");
    assert!(is_duplicate(line.client(&request("no order 0", "ping", json!({})))));
    // A client that counts needs next to nothing.
    let mut line = Line::new(Transport::Http);
    for id in 0..20_000 {
        let asked = line.client(&request(id, "ping", json!({}))).unwrap();
        line.server(Some(&asked), &result(id)).unwrap();
        line.sink.kept().clear();
    }
}

#[test]
fn one_message_of_a_batch_is_cancelled_alone() {
    let mut line = Line::new(Transport::Http);
    let headers =
        RoutingHeaders { protocol_version: Some("2025-03-26".into()), ..RoutingHeaders::default() };
    let batch = |line: &mut Line, messages: &[Value]| {
        let raw = Value::from(messages.to_vec()).to_string().into();
        let arrival = Arrival { raw, headers: Some(headers.clone()), ..Arrival::default() };
        let step = line.session.client_frame(&line.gate, &arrival, line.now());
        line.record(step)
    };
    let Act::Forward(sent) = batch(&mut line, &[call(1, "get"), request(2, "ping", json!({}))])
    else {
        panic!("permitted")
    };
    line.client(&cancel(1)).unwrap();
    assert!(is_duplicate(line.client(&request(1, "ping", json!({})))));
    let answers = json!([result(1), {"jsonrpc": "2.0", "id": 2, "result": {}}]);
    let heard = line.server(Some(sent.call()), &answers).unwrap();
    assert_eq!(heard, r#"[{"id":2,"jsonrpc":"2.0","result":{}}]"#);
    // None of it passes if one of it uses an id again, cancels nothing, or uses an id twice.
    for wrong in [request(1, "ping", json!({})), cancel(1), call(5, "x")] {
        let act = batch(&mut line, &[call(5, "x"), wrong]);
        assert!(matches!(act, Act::Deliver(_)), "{act:?}");
    }
    let act = batch(&mut line, &[call(5, "x"), cancel(5)]);
    assert!(matches!(act, Act::Forward(_)), "{act:?}");
}

#[test]
fn a_resumed_stream_repeats_answers_and_does_not_give_them_to_others() {
    let numbered = Redelivery { numbered: true, resumed: false };
    let resumed = Redelivery { numbered: true, resumed: true };
    let mut line = Line::new(Transport::Http);
    let asked = line.client(&call(1, "get")).unwrap();
    let first = line.event(Some(&asked), &result(1), numbered).unwrap();
    let late = line.client(&call(2, "get")).unwrap();
    line.client(&cancel(2)).unwrap();
    assert!(is_duplicate(line.client(&request(1, "ping", json!({})))));
    assert!(is_duplicate(line.client(&request(2, "ping", json!({})))));
    assert_eq!(line.event(None, &result(1), resumed).unwrap(), first, "as redacted as before");
    assert!(!first.contains(SECRET) && !first.contains("t-1234567"));
    assert_eq!(line.event(None, &result(2), resumed), None);
    assert_eq!(line.last(), (late, Event::Drop));
    // A question that was answered and is repeated is not answered again.
    let ask = request("q", "roots/list", json!({}));
    line.server(None, &ask).unwrap();
    line.client(&json!({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})).unwrap();
    let raw = ask.to_string().into();
    let step = line.session.server_event(&line.gate, None, &raw, resumed, line.now());
    assert!(matches!(line.record(step), Act::Drop));
}

#[test]
fn a_request_that_is_sent_once_more_is_the_same_request() {
    let mut line = Line::new(Transport::Stdio);
    let asked = line.client(&call(1, "get")).unwrap();
    line.end(|session, now| session.upstream_failed(&asked, &UpstreamFailure::Status(404), now));
    // Meanwhile the policy demands less.
    line.gate.replace_policy(Arc::new(ByName::new(|_, _| Some(Vec::new()))));
    let arrival = Arrival { raw: call(1, "get").to_string().into(), ..Arrival::default() };
    let step = line.session.client_frame_again(&line.gate, &arrival, line.now());
    assert!(matches!(line.record(step), Act::Forward(_)));
    let heard = line.server(None, &result(1)).unwrap();
    assert!(!heard.contains(SECRET) && !heard.contains("t-1234567"), "{heard}");
}

#[test]
fn a_request_that_is_sent_once_more_does_not_pay_its_limits_again() {
    let mut line = Line::new(Transport::Stdio);
    let asked = line.client(&call(1, "hourly")).unwrap();
    line.end(|session, now| session.upstream_failed(&asked, &UpstreamFailure::Status(404), now));
    let arrival = Arrival { raw: call(1, "hourly").to_string().into(), ..Arrival::default() };
    let step = line.session.client_frame_again(&line.gate, &arrival, line.now());
    assert!(matches!(line.record(step), Act::Forward(_)));
    assert!(line.server(None, &result(1)).is_some());
    assert_eq!(line.client(&call(2, "hourly")).unwrap_err()["error"]["code"], -31002);
}

#[test]
fn a_request_that_the_server_rejected_may_be_sent_again_and_nothing_else_under_its_id() {
    // A client answers a challenge (401) with the same message and other credentials.
    let challenge = |json: bool| ErrorAnswer {
        status: 401,
        challenge_dropped: false,
        body: if json {
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "who"}})
                .to_string()
                .into()
        } else {
            Bytes::new()
        },
    };
    for json in [false, true] {
        let mut line = Line::new(Transport::Http);
        let asked = line.client(&call(1, "plain")).unwrap();
        let (now, answer) = (line.now(), challenge(json));
        let step = line.session.server_error(&line.gate, &asked, answer, now).unwrap();
        assert!(matches!(line.record(step), Act::Deliver(_)));
        for other in [call(1, "get"), call("1", "plain"), request(1, "ping", json!({}))] {
            assert!(is_duplicate(line.client(&other)), "{other}");
        }
        line.client(&call(1, "plain")).unwrap();
        assert!(is_duplicate(line.client(&call(1, "plain"))), "it is in flight");
        assert!(line.server(None, &result(1)).is_some());
        assert!(is_duplicate(line.client(&call(1, "plain"))), "it was answered");
    }
}

#[test]
fn a_task_that_two_requests_were_given_is_redacted_for_both() {
    let mut line = Line::new(Transport::Stdio);
    for (id, tool) in [(1, "get"), (2, "x")] {
        line.client(&request(id, "tools/call", json!({"name": tool, "task": {}}))).unwrap();
        let task = json!({"jsonrpc": "2.0", "id": id, "result": {"task": {"taskId": "t"}}});
        line.server(None, &task).unwrap();
    }
    line.client(&request(3, "tasks/result", json!({"taskId": "t"}))).unwrap();
    let heard = line.server(None, &result(3)).unwrap();
    assert!(!heard.contains(SECRET) && !heard.contains("t-1234567"), "{heard}");
    // A task of a late answer is nobody's: it was never delivered.
    line.client(&request(4, "tools/call", json!({"name": "get", "task": {}}))).unwrap();
    line.client(&cancel(4)).unwrap();
    let task = json!({"jsonrpc": "2.0", "id": 4, "result": {"task": {"taskId": "u"}}});
    assert_eq!(line.server(None, &task), None);
    let unknown = line.client(&request(5, "tasks/get", json!({"taskId": "u"}))).unwrap_err();
    assert_eq!(unknown["error"]["code"], -32602);
}

#[test]
fn a_client_that_has_gone_cancels_only_if_policy_permits() {
    for permits in [true, false] {
        let mut line = Line::new(Transport::Http);
        let asked = line.client(&call("a", "get")).unwrap();
        if !permits {
            line.gate.replace_policy(Arc::new(ByName::new(|name, _| {
                (name != "notifications/cancelled").then(Vec::new)
            })));
        }
        let step = line.session.withdraw(&line.gate, &asked, line.now()).unwrap();
        match line.record(step) {
            Act::Forward(permitted) => {
                assert!(permits);
                let told: Value = serde_json::from_slice(permitted.body()).unwrap();
                assert_eq!(told, cancel("a"));
            }
            Act::Deliver(_) | Act::Hold(_) | Act::Drop => assert!(!permits),
        }
        let event = if permits { Event::Intent } else { Event::Denial };
        assert_eq!(line.last().1, event);
        assert!(line.session.awaits(&asked), "the edge settles it");
        line.end(|session, now| session.client_gone(&asked, now));
        assert!(line.session.withdraw(&line.gate, &asked, line.now()).is_none());
        assert_eq!(line.server(Some(&asked), &result("a")), None);
    }
}

#[test]
fn a_decision_id_tells_nothing_of_other_calls() {
    let ids = |boot: &str| {
        let mut line = Line::new(Transport::Stdio);
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 1,
            buckets_max: 1,
            boot: boot.into(),
            digest_key: [7; 32],
        };
        line.gate = Gate::new(config, Arc::new(ByName::new(judge)));
        let mut ids = Vec::new();
        for id in 0..500 {
            let refusal = line.client(&call(id, "denied")).unwrap_err();
            ids.push(refusal["error"]["data"]["decision_id"].as_str().unwrap().to_owned());
            assert_eq!(*line.last().0, **ids.last().unwrap(), "the record has it");
            let facts = DoorFacts::default();
            let step = line.gate.refuse_at_door(DoorRefusal::UnknownPath, facts, line.now());
            let Act::Deliver(released) = line.record(step) else { panic!("a refusal") };
            let body: Value = serde_json::from_slice(released.body()).unwrap();
            ids.push(body["error"]["data"]["decision_id"].as_str().unwrap().to_owned());
        }
        ids
    };
    let (one, other) = (ids("one"), ids("other"));
    let hex = |id: &String| id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit());
    assert!(one.iter().chain(&other).all(hex), "{}", one[0]);
    let all: BTreeSet<_> = one.iter().chain(&other).collect();
    assert_eq!(all.len(), one.len() + other.len(), "no id twice, and each run has its own");
    // A counter in disguise would grow, or keep a distance, far more often than half the time.
    let numbers: Vec<u128> = one.iter().map(|id| u128::from_str_radix(id, 16).unwrap()).collect();
    let grows = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((400..600).contains(&grows), "{grows} of 999");
    let steps: BTreeSet<_> = numbers.windows(2).map(|it| it[1].wrapping_sub(it[0])).collect();
    assert_eq!(steps.len(), numbers.len() - 1);
}

#[test]
fn an_unkept_cancellation_frees_no_id() {
    let mut line = Line::new(Transport::Stdio);
    let asked = line.client(&call(1, "get")).unwrap();
    line.sink.refusing.store(true, Ordering::Relaxed);
    let arrival = Arrival { raw: cancel(1).to_string().into(), ..Arrival::default() };
    let step = line.session.client_frame(&line.gate, &arrival, line.now());
    let unrecorded = step.record(&line.sink).unwrap_err();
    line.session.forget(&unrecorded.call.unwrap());
    line.sink.refusing.store(false, Ordering::Relaxed);
    assert!(is_duplicate(line.client(&request(1, "ping", json!({})))));
    assert_eq!(line.server(None, &result(1)), None);
    assert_eq!(line.last(), (asked, Event::Drop));
}
