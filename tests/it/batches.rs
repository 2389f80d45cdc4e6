//! Batches (rule P7): refused unless a server's configuration lets MCP 2025-03-26 have them; then
//! each message is judged alone, and all reach the server or none.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "tests")]

use serde_json::{Value, json};

use super::firewall::{Firewall, LEGACY, Received, Reply, Setup, answer, call, events, json, post};

const RULES: &str = r#"package mcp

permit contains {"code": "all", "message": "everything"} if true

deny contains {"code": "no-delete", "message": "no"} if input.tool.name == "delete_flag"

limit contains {"code": "few", "key": "all", "rate": "1/h", "burst": 2} if input.tool.name == "rare"
"#;

const BATCH: &str = "MCP-Protocol-Version: 2025-03-26\r\n";

/// Answers every request of a batch, in reverse order, and a single request as such.
fn answers(received: &Received) -> Vec<u8> {
    let one = |message: &Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": {}});
    let asked: Value = serde_json::from_reader(&received.body[..]).unwrap_or_default();
    let Some(messages) = asked.as_array() else { return json(one(&asked).to_string().as_bytes()) };
    let asks = |message: &&Value| message.get("id").is_some();
    let all: Vec<Value> = messages.iter().rev().filter(asks).map(one).collect();
    if all.is_empty() {
        return answer("202 Accepted", "", b"");
    }
    json(Value::from(all).to_string().as_bytes())
}

fn firewall(server: &str, says: fn(&Received) -> Vec<u8>) -> Firewall {
    Firewall::with(Setup {
        rego: Some(RULES.to_owned()),
        server: server.to_owned(),
        answer: Box::new(says),
        ..Setup::default()
    })
}

fn allowing(says: fn(&Received) -> Vec<u8>) -> Firewall {
    firewall("    batches: true\n", says)
}

fn batch(messages: &[&str]) -> String {
    format!("[{}]", messages.join(" ,\n "))
}

fn send(firewall: &Firewall, body: &str) -> Reply {
    firewall.send(&post(body, BATCH))
}

/// Code of each answer, by id.
fn codes(reply: &Reply) -> Vec<(Value, i64)> {
    let answers = reply.json();
    let code = |it: &Value| (it["id"].clone(), it["error"]["code"].as_i64().unwrap_or_default());
    answers.as_array().unwrap_or_else(|| panic!("{reply:?}")).iter().map(code).collect()
}

#[test]
fn batches_are_refused_unless_the_configuration_permits_them() {
    let body = batch(&[&call(1, "get_flag", "{}")]);
    let refuses = |firewall: Firewall, headers: &str| {
        let reply = firewall.send(&post(&body, headers));
        assert_eq!((reply.status, reply.code()), (400, -32600), "{headers}: {reply:?}");
        assert_eq!(firewall.received().len(), 0, "{headers}");
        firewall.record("event", "denial", 1);
    };
    refuses(firewall("", answers), BATCH);
    refuses(firewall("    batches: false\n", answers), BATCH);
    refuses(allowing(answers), "MCP-Protocol-Version: 2025-06-18\r\n");
    refuses(allowing(answers), LEGACY);
    refuses(
        allowing(answers),
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: get_flag\r\n",
    );
}

#[test]
fn a_batch_that_may_pass_passes_byte_for_byte_and_each_call_is_recorded() {
    let firewall = allowing(answers);
    let body = batch(&[
        &call(1, "get_flag", r#"{"key" :  "a"}"#),
        r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
        &call(r#""b""#, "set_flag", "{}"),
    ]);
    let reply = send(&firewall, &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(codes(&reply), [(json!("b"), 0), (json!(1), 0)]);
    let [received] = &firewall.received()[..] else { panic!("one message goes up") };
    assert_eq!(received.body, body.as_bytes());
    for tool in ["get_flag", "set_flag"] {
        let of_tool = |event: &str| {
            let mut records = firewall.records("event", event);
            records.retain(|record| record["target"]["tool"] == tool);
            records
        };
        assert_eq!(of_tool("intent").len(), 1, "{tool}");
        assert_eq!(of_tool("outcome").len(), 1, "{tool}");
    }
}

#[test]
fn a_batch_of_notifications_is_accepted_without_an_answer() {
    let firewall = allowing(answers);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let reply = send(&firewall, &batch(&[told, told]));
    assert_eq!((reply.status, reply.text()), (202, ""));
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn one_refused_message_stops_the_whole_batch() {
    let get = call(1, "get_flag", "{}");
    let asks_initialize = r#"{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}"#;
    let modern = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_flag","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    for (second, expected) in [
        (call(2, "delete_flag", "{}"), -31001),
        (asks_initialize.to_owned(), -32600),
        (modern.to_owned(), -32600),
        (call(1, "get_flag", "{}"), -32600),
    ] {
        let firewall = allowing(answers);
        let reply = send(&firewall, &batch(&[&get, &second]));
        let codes = codes(&reply);
        assert_eq!(firewall.received().len(), 0, "{second}");
        assert_eq!(codes.len(), 2, "{second}: {codes:?}");
        assert_eq!(codes[0], (json!(1), -31008), "{second}");
        assert_eq!(codes[1].1, expected, "{second}: {codes:?}");
        firewall.record("event", "denial", 2);
        assert!(firewall.records("event", "intent").is_empty(), "{second}");
    }
}

#[test]
fn an_unreadable_message_stops_the_whole_batch() {
    let get = call(1, "get_flag", "{}");
    for second in [
        "[]".to_owned(),
        format!("[{get}]"),
        "1".to_owned(),
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a","name":"b"}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","Method":"x","params":{"name":"a"}}"#
            .to_owned(),
    ] {
        let firewall = allowing(answers);
        let reply = send(&firewall, &batch(&[&get, &second]));
        assert_ne!(reply.status, 202, "{second}");
        assert!(reply.text().contains("error"), "{second}: {reply:?}");
        assert_eq!(firewall.received().len(), 0, "{second}");
    }
}

#[test]
fn an_empty_or_endless_batch_is_refused() {
    let get = call(1, "get_flag", "{}");
    for body in ["[]".to_owned(), batch(&vec![&*get; 65])] {
        let firewall = allowing(answers);
        let reply = send(&firewall, &body);
        assert_eq!((reply.status, reply.code()), (400, -32600), "{reply:?}");
        assert_eq!(firewall.received().len(), 0);
    }
}

#[test]
fn each_message_of_a_batch_counts_against_rate_limits() {
    let firewall = allowing(answers);
    let rare = |id: u8| call(id, "rare", "{}");
    assert_eq!(send(&firewall, &batch(&[&rare(1), &rare(2)])).status, 200);
    let reply = send(&firewall, &batch(&[&rare(3), &call(4, "get_flag", "{}")]));
    assert_eq!(codes(&reply), [(json!(3), -31002), (json!(4), -31008)]);
    assert_eq!(firewall.received().len(), 1);
}

/// The first of two calls is answered; one that nobody made is answered besides.
fn half(_: &Received) -> Vec<u8> {
    let all = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":9,"result":{}}]"#;
    json(all.as_bytes())
}

#[test]
fn the_client_gets_the_answers_to_what_it_asked_and_no_others() {
    let firewall = allowing(half);
    let reply = send(&firewall, &batch(&[&call(1, "get_flag", "{}"), &call(2, "get_flag", "{}")]));
    let ids: Vec<_> = codes(&reply).into_iter().map(|(id, _)| id).collect();
    assert!(ids.contains(&json!(1)) && !ids.contains(&json!(9)), "{reply:?}");
    // The other one gets an error in the same array.
    assert_eq!(codes(&reply), [(json!(1), 0), (json!(2), -31005)], "{reply:?}");
    firewall.record("event", "outcome", 2);
}

/// What a server answers to three requests, and the code that each of them gets.
type PartialAnswer = (fn(&Received) -> Vec<u8>, [i64; 3]);

#[test]
fn each_request_of_a_batch_gets_an_answer_whatever_the_server_leaves_out() {
    let asked = || {
        batch(&[
            &call(1, "get_flag", "{}"),
            &call(2, "get_flag", "{}"),
            NOTE,
            &call(3, "get_flag", "{}"),
        ])
    };
    let cases: [PartialAnswer; 5] = [
        (|_| json(br#" [ {"jsonrpc":"2.0","id":2,"result":{}} ] "#), [-31005, 0, -31005]),
        (|_| json(br#"{"jsonrpc":"2.0","id":3,"result":{}}"#), [-31005, -31005, 0]),
        (|_| json(br#"[{"jsonrpc":"2.0","id":9,"result":{}}]"#), [-31005; 3]),
        (
            |_| {
                json(br#"[{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}]"#)
            },
            [-31005; 3],
        ),
        (|_| answer("202 Accepted", "", b""), [-31005; 3]),
    ];
    for (says, expected) in cases {
        let firewall = allowing(says);
        let reply = send(&firewall, &asked());
        for (id, code) in (1..).zip(expected) {
            let told: Vec<i64> =
                codes(&reply).into_iter().filter(|it| it.0 == json!(id)).map(|it| it.1).collect();
            assert_eq!(told, [code], "{id}: {reply:?}");
        }
        firewall.record("event", "outcome", 4);
    }
}

const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;

/// Each call is answered in an event of its own.
fn streamed(_: &Received) -> Vec<u8> {
    events(concat!(
        "data: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n\n",
        "data: [{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}]\n\n",
    ))
}

#[test]
fn answers_may_come_one_by_one_in_a_stream() {
    let firewall = allowing(streamed);
    let reply = send(&firewall, &batch(&[&call(1, "get_flag", "{}"), &call(2, "get_flag", "{}")]));
    let text = reply.text();
    assert!(text.contains("\"id\":1") && text.contains("\"id\":2"), "{text}");
    assert!(!text.contains("error"), "{text}");
    firewall.record("event", "outcome", 2);
}
