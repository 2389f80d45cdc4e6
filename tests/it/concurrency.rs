//! Limits of calls in flight, in whole sessions: a call gives its place back however it ends, and
//! one that the server may still carry out counts a while longer.

#![expect(
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::{Bound, Limit, Obligation};
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Act, Step};
use bartizan_gate::question::access::{AccessRequest, Principal, Resource, Server};
use bartizan_gate::session::{
    Arrival, ErrorAnswer, Gate, GateConfig, Mode, Protected, Redelivery, RefusalForm, Session,
    UpstreamFailure,
};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::{ByName, Sink};
use serde_json::{Value, json};

/// One call of `one` and two of `two` may be in flight, none of `none`; other calls are free.
fn judge(name: &str, request: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    let most = match (name, request.resource) {
        // The client's answer to a request of the server is no request.
        (_, Resource::Answer { .. })
        | ("one" | "sampling/createMessage" | "notifications/message", _) => 1,
        ("two", _) => 2,
        ("none" | "notifications/none", _) => 0,
        ("denied", _) => return None,
        _ => return Some(Vec::new()),
    };
    Some(vec![Obligation::Limit(Limit {
        code: "busy".into(),
        key: request.principal.id.clone(),
        bound: Bound::InFlight(most),
        cost: 1,
    })])
}

/// A gate and its sessions, without their edges.
struct Stage {
    gate: Gate,
    sink: Sink,
    uptime: Duration,
}

impl Stage {
    fn new(mode: Mode) -> Self {
        let config = GateConfig {
            mode,
            frame: FrameLimits::default(),
            in_flight_max: 16,
            buckets_max: 8,
            boot: "concurrency".into(),
            digest_key: [7; 32],
        };
        let gate = Gate::new(config, Arc::new(ByName::new(judge)));
        Self { gate, sink: Sink::default(), uptime: Duration::from_secs(100) }
    }

    fn session(transport: Transport, form: RefusalForm) -> Session {
        let mut server = Protected::new(Server::default(), form);
        server.batches = true;
        Session::new(Arc::<Principal>::default(), Arc::new(server), transport)
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, wall: UNIX_EPOCH }
    }

    fn record(&self, step: Step) -> Act {
        step.record(&self.sink).unwrap()
    }

    fn client(&self, session: &mut Session, message: &Value) -> Result<CallId, Value> {
        let arrival = Arrival { raw: message.to_string().into(), ..Arrival::default() };
        let step = session.client_frame(&self.gate, &arrival, self.now());
        match self.record(step) {
            Act::Forward(permitted) => Ok(Arc::clone(permitted.call())),
            Act::Deliver(released) => Err(serde_json::from_slice(released.body()).unwrap()),
            Act::Hold(_) | Act::Drop => Err(Value::Null),
        }
    }

    fn server(&self, session: &mut Session, within: Option<&CallId>, message: &Value) -> bool {
        let raw = message.to_string().into();
        let redelivery = Redelivery { numbered: true, ..Redelivery::default() };
        let step = session.server_event(&self.gate, within, &raw, redelivery, self.now());
        matches!(self.record(step), Act::Deliver(_))
    }

    /// Whether a call of `one` passes in another session: `Ok`, or the refusal.
    fn probe(&self) -> Result<(), Value> {
        let mut other = Self::session(Transport::Http, RefusalForm::Error);
        let asked = self.client(&mut other, &call(1, "one"))?;
        other.forget(&asked);
        Ok(())
    }
}

fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

fn call(id: impl Into<Value>, tool: &str) -> Value {
    request(id, "tools/call", json!({"name": tool}))
}

fn result(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "result": {"content": []}})
}

fn notice(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn cancel(id: impl Into<Value>) -> Value {
    notice("notifications/cancelled", json!({"requestId": id.into()}))
}

/// For how long a call counts for whose answer nobody waits.
const OWED: Duration = Duration::from_secs(30);

const TRANSPORTS: [Transport; 2] = [Transport::Stdio, Transport::Http];

/// How a call ends.
type End = fn(&Stage, &mut Session, &CallId);

fn fail(stage: &Stage, session: &mut Session, call: &CallId, failure: UpstreamFailure) {
    let step = session.upstream_failed(call, &failure, stage.now()).unwrap();
    drop(stage.record(step));
}

#[test]
fn a_call_that_is_over_gives_its_place_back_however_it_ended() {
    let ends: [(&str, End); 9] = [
        ("answered", |stage, session, _| assert!(stage.server(session, None, &result(1)))),
        ("an error", |stage, session, call| {
            let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m"}});
            assert!(stage.server(session, Some(call), &error));
        }),
        ("an error without id", |stage, session, call| {
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "m"}});
            assert!(stage.server(session, Some(call), &error));
        }),
        ("withheld", |stage, session, call| {
            let broken = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": 1, "a": "\u{0}"}, "x": [[]]});
            let _ = stage.server(session, Some(call), &broken);
        }),
        ("unreachable", |stage, session, call| {
            fail(stage, session, call, UpstreamFailure::Unreachable("gone".into()));
        }),
        ("no answer", |stage, session, call| {
            fail(stage, session, call, UpstreamFailure::EndedEarly);
        }),
        ("an HTTP error", |stage, session, call| {
            let answer = ErrorAnswer { status: 500, challenge_dropped: false, body: "oops".into() };
            let step = session.upstream_status(&stage.gate, call, answer, stage.now()).unwrap();
            drop(stage.record(step));
        }),
        ("not recorded", |_, session, call| session.forget(call)),
        ("its session ended", |_, session, _| {
            *session = Stage::session(Transport::Stdio, RefusalForm::Error);
        }),
    ];
    for (how, end) in ends {
        for transport in TRANSPORTS {
            let stage = Stage::new(Mode::Enforce);
            let mut session = Stage::session(transport, RefusalForm::Error);
            let asked = stage.client(&mut session, &call(1, "one")).unwrap();
            stage.probe().expect_err(how);
            end(&stage, &mut session, &asked);
            assert_eq!(stage.probe(), Ok(()), "{how} {transport:?}");
            drop(session);
            assert_eq!(stage.probe(), Ok(()), "{how} {transport:?}");
        }
    }
}

#[test]
fn a_call_that_the_server_may_still_carry_out_counts_a_while_longer() {
    let ends: [(&str, End); 3] = [
        ("cancelled", |stage, session, _| {
            let told = stage.client(session, &cancel(1)).unwrap();
            drop(session.upstream_accepted(&told, stage.now()));
        }),
        ("disconnected", |stage, session, call| {
            drop(stage.record(session.client_gone(call, stage.now()).unwrap()));
        }),
        ("timed out", |stage, session, call| fail(stage, session, call, UpstreamFailure::TimedOut)),
    ];
    for (how, end) in ends {
        for (transport, rest) in
            TRANSPORTS.into_iter().flat_map(|it| [0, 1, 2].map(|rest| (it, rest)))
        {
            let mut stage = Stage::new(Mode::Enforce);
            let mut session = Stage::session(transport, RefusalForm::Error);
            let asked = stage.client(&mut session, &call(1, "one")).unwrap();
            end(&stage, &mut session, &asked);
            let refused = stage.probe().expect_err(how);
            assert_eq!(refused["error"]["data"]["retry_after_ms"], 30_000, "{how} {refused}");
            match rest {
                // The late answer says that the server is done.
                0 => {
                    assert!(!stage.server(&mut session, None, &result(1)));
                    assert_eq!(stage.probe(), Ok(()), "{how} {transport:?}");
                }
                // The session may end, or live on.
                1 => drop(session),
                _ => {}
            }
            if rest > 0 {
                stage.uptime += OWED.saturating_sub(Duration::from_nanos(1));
                let refused = stage.probe().expect_err(how);
                assert_eq!(refused["error"]["data"]["retry_after_ms"], 1, "rounded up: {refused}");
                stage.uptime += Duration::from_nanos(1);
                assert_eq!(stage.probe(), Ok(()), "{how} {transport:?}");
            }
        }
    }
}

#[test]
fn cancelling_without_end_lifts_no_limit() {
    let stage = Stage::new(Mode::Enforce);
    let mut session = Stage::session(Transport::Stdio, RefusalForm::Error);
    let mut sent = 0;
    for id in 0..100 {
        if stage.client(&mut session, &call(id, "two")).is_ok() {
            sent += 1;
            let told = stage.client(&mut session, &cancel(id)).unwrap();
            drop(session.upstream_accepted(&told, stage.now()));
        }
    }
    assert_eq!(sent, 2);
}

#[test]
fn the_refusal_says_that_calls_are_in_flight() {
    let stage = Stage::new(Mode::Enforce);
    for form in [RefusalForm::Error, RefusalForm::ToolResult] {
        let mut session = Stage::session(Transport::Http, form);
        let asked = stage.client(&mut session, &call(1, "one")).unwrap();
        let refused = stage.client(&mut session, &call(2, "one")).unwrap_err();
        let text = if form == RefusalForm::Error {
            assert_eq!(refused["error"]["code"], -31002);
            assert!(refused["error"]["data"].get("retry_after_ms").is_none(), "{refused}");
            refused["error"]["message"].as_str().unwrap()
        } else {
            assert_eq!(refused["result"]["isError"], true);
            refused["result"]["content"][0]["text"].as_str().unwrap()
        };
        let expected = "Too many calls at once; try again when one has its answer";
        assert!(text.starts_with(expected), "{text}");
        let kept = stage.sink.kept();
        let reasons =
            serde_json::to_value(kept.last().unwrap()).unwrap()["decision"]["reasons"].clone();
        drop(kept);
        assert_eq!(
            (&reasons[0]["code"], &reasons[0]["origin"]),
            (&json!("busy"), &json!("limited"))
        );
        session.forget(&asked);
        // 0 is none at all, and nothing to wait for.
        let refused = stage.client(&mut session, &call(3, "none")).unwrap_err().to_string();
        assert!(refused.contains("A limit never permits this call; do not try again"), "{refused}");
        assert!(!refused.contains("retry_after"), "{refused}");
    }
}

#[test]
fn messages_that_are_no_requests_are_not_in_flight() {
    let stage = Stage::new(Mode::Enforce);
    let mut session = Stage::session(Transport::Stdio, RefusalForm::Error);
    for _ in 0..3 {
        assert!(stage.server(
            &mut session,
            None,
            &notice("notifications/message", json!({"level": "info", "data": 1}))
        ));
    }
    assert!(
        !stage.server(&mut session, None, &notice("notifications/none", json!({}))),
        "0 is none"
    );
    assert_eq!(
        stage.client(&mut session, &notice("notifications/none", json!({}))),
        Err(Value::Null)
    );
}

#[test]
fn a_request_of_the_server_is_in_flight_until_its_answer() {
    let stage = Stage::new(Mode::Enforce);
    let mut session = Stage::session(Transport::Stdio, RefusalForm::Error);
    let ask =
        |id: &str| request(id, "sampling/createMessage", json!({"messages": [], "maxTokens": 1}));
    assert!(stage.server(&mut session, None, &ask("s1")));
    assert!(!stage.server(&mut session, None, &ask("s2")));
    // The answer is judged as well, while the request is in flight.
    let answer = json!({"jsonrpc": "2.0", "id": "s1", "result": {"role": "assistant", "content": {"type": "text", "text": "t"}, "model": "m"}});
    stage.client(&mut session, &answer).unwrap();
    assert!(stage.server(&mut session, None, &ask("s3")));
    let _ = stage.server(&mut session, None, &cancel("s3"));
    assert!(stage.server(&mut session, None, &ask("s4")));
    drop(session);
    let mut session = Stage::session(Transport::Stdio, RefusalForm::Error);
    assert!(stage.server(&mut session, None, &ask("s1")), "a session that is gone asks nobody");
}

#[test]
fn a_refused_batch_holds_no_place_and_cancels_nothing() {
    let stage = Stage::new(Mode::Enforce);
    let mut session = Stage::session(Transport::Http, RefusalForm::Error);
    session_of_batches(&stage, &mut session);
    let refused =
        stage.client(&mut session, &json!([call(1, "two"), call(2, "two"), call(3, "denied")]));
    refused.unwrap_err();
    let first = stage.client(&mut session, &call(4, "one")).unwrap();
    // A batch that would cancel the call in flight, but is refused: the call holds its place on.
    stage.client(&mut session, &json!([cancel(4), call(5, "denied")])).unwrap_err();
    let refused = stage.probe().unwrap_err();
    assert!(refused["error"]["data"].get("retry_after_ms").is_none(), "{refused}");
    assert!(stage.server(&mut session, Some(&first), &result(4)));
    assert_eq!(stage.probe(), Ok(()));
    // One that passes holds a place for each of its calls.
    let both = stage.client(&mut session, &json!([call(6, "two"), call(7, "two")])).unwrap();
    stage.client(&mut session, &call(8, "two")).unwrap_err();
    assert!(stage.server(&mut session, Some(&both), &json!([result(6), result(7)])));
    stage.client(&mut session, &call(9, "two")).unwrap();
}

/// Batches exist in one revision alone.
fn session_of_batches(stage: &Stage, session: &mut Session) {
    let initialize = request(
        0,
        "initialize",
        json!({"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}),
    );
    let asked = stage.client(session, &initialize).unwrap();
    let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-03-26",
        "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}});
    assert!(stage.server(session, Some(&asked), &answer));
}

#[test]
fn while_observing_calls_hold_places_and_none_is_refused() {
    let stage = Stage::new(Mode::Observe);
    let mut session = Stage::session(Transport::Stdio, RefusalForm::Error);
    let limited = || {
        let kept = serde_json::to_value(&*stage.sink.kept()).unwrap();
        let records = kept.as_array().unwrap();
        records.iter().filter(|record| record["finding"] == "rate_limited").count()
    };
    stage.client(&mut session, &call(1, "one")).unwrap();
    assert_eq!(limited(), 0);
    stage.client(&mut session, &call(2, "one")).unwrap();
    assert_eq!(limited(), 1);
    assert!(stage.server(&mut session, None, &result(1)));
    stage.client(&mut session, &call(3, "one")).unwrap();
    assert_eq!(limited(), 1);
}
