//! What reaches the client in the body of a server's HTTP error: a JSON-RPC answer that was judged,
//! or an error of the firewall's own.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::firewall::{Firewall, LEGACY, Received, Setup, answer, post, wait};

/// Hides a tool, and lets no server ask the user.
const RULES: &str = r#"package mcp

permit contains {"code": "a", "message": "everything"} if true

hide contains "secret_tool" if true

deny contains {"code": "d", "message": "no asking"} if {
	input.direction == "to_client"
	input.method == "elicitation/create"
}
"#;

/// What no client may see.
const SECRETS: [&str; 2] = ["secret_tool", "evil.example"];

/// What the upstream says: status, headers, body. `ID` stands for the request's id.
type Slot = Arc<Mutex<(String, String, String)>>;

fn firewall(server: &str) -> (Firewall, Slot) {
    let slot: Slot = Arc::default();
    let says = Arc::clone(&slot);
    let firewall = Firewall::with(Setup {
        rego: Some(RULES.to_owned()),
        server: server.to_owned(),
        answer: Box::new(move |received: &Received| {
            let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
            let (status, headers, says) = says.lock().unwrap().clone();
            answer(&status, &headers, says.replace("ID", &body["id"].to_string()).as_bytes())
        }),
        ..Setup::default()
    });
    (firewall, slot)
}

fn set(slot: &Slot, status: &str, media: &str, body: &str) {
    let headers = format!("Content-Type: {media}\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n");
    *slot.lock().unwrap() = (status.to_owned(), headers, body.to_owned());
}

fn assert_clean(text: &str, what: &str) {
    assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{what}: {text}");
}

/// Answers with what a rule takes out or refuses, by method.
fn answers() -> [(&'static str, Value, String); 2] {
    let list = r#"{"tools":[{"name":"secret_tool","inputSchema":{"type":"object"}}]}"#;
    let asks = r#"{"inputRequests":{"a":{"method":"elicitation/create","params":{"mode":"url","url":"http://evil.example/","message":"x"}}}}"#;
    let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
    [
        ("tools/list", json!({}), result(list)),
        ("tools/call", json!({"name": "t", "arguments": {}}), result(asks)),
    ]
}

/// How a message is written in a body.
type Form<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn no_error_status_carries_a_message_that_nobody_judged() {
    let (firewall, slot) = firewall("");
    let json = "application/json";
    let forms: [(&str, Form<'_>); 12] = [
        ("text/plain", &str::to_owned),
        ("text/html", &str::to_owned),
        ("application/problem+json", &str::to_owned),
        ("application/json; charset=utf-16", &str::to_owned),
        ("application/json; charset=utf-8; a=b", &str::to_owned),
        ("application/jsonl", &str::to_owned),
        ("text/event-stream", &|body| format!("data: {body}\n\n")),
        (json, &|body| format!("[{body}]")),
        (json, &|body| format!("{body}\n{body}")),
        (json, &|body| body.replace("\"jsonrpc\":\"2.0\",", "")),
        (json, &|body| body.replace("\"result\"", "\"Result\"")),
        (json, &|body| body.replace("\"result\"", "\"method\":\"x\",\"params\"")),
    ];
    let mut id = 0;
    for (method, params, body) in answers() {
        for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Oops"] {
            for (media, form) in &forms {
                id += 1;
                let body = form(&body);
                let what = format!("{method} {status} {media} {body}");
                set(&slot, status, media, &body);
                let asks = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
                let reply = firewall.ask(asks.to_string());
                assert_clean(reply.text(), &what);
                let (number, _) = status.split_once(' ').unwrap();
                assert_eq!(reply.status.to_string(), number, "{what}");
                assert_eq!(reply.header("content-type"), [json], "{what}");
                assert_eq!((reply.code(), &reply.json()["id"]), (-31006, &json!(id)), "{what}");
                assert_eq!(
                    reply.header("www-authenticate").len(),
                    usize::from(reply.status == 401)
                );
                let outcome = wait("the outcome", || {
                    let outcomes = firewall.records("event", "outcome");
                    let text = id.to_string();
                    outcomes.into_iter().find(|it| it["id"] == text)
                });
                assert_eq!(outcome["error.type"], number, "{what}");
                let sent = body.replace("ID", &id.to_string());
                assert_eq!(outcome["bytes"], sent.len(), "{what}");
                assert!(outcome["digest"].is_string(), "{what}");
                let note = outcome["note"].as_str().unwrap();
                assert!(note.contains("no JSON-RPC answer"), "{what}: {note}");
            }
        }
        // As a message, it is judged.
        for status in ["400 Bad Request", "500 Oops"] {
            id += 1;
            set(&slot, status, json, &body);
            let asks = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            assert_clean(firewall.ask(asks.to_string()).text(), status);
        }
    }
    // What is judged and permitted passes as it is, and silence stays silence.
    for body in [r#"{ "jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no"}}"#, ""] {
        id += 1;
        set(&slot, "400 Bad Request", json, body);
        let asks = json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
        let reply = firewall.ask(asks.to_string());
        assert_eq!((reply.status, reply.text()), (400, body));
    }
}

#[test]
fn a_batch_gets_an_error_for_each_request() {
    let (firewall, slot) = firewall("    batches: true\n");
    let [(_, _, list), _] = answers();
    let batch = |id: u32| {
        json!([
            {"jsonrpc": "2.0", "id": id, "method": "tools/list"},
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "id": id + 1, "method": "ping"},
        ])
    };
    let old = LEGACY.replace("2025-11-25", "2025-03-26");
    for (id, media) in [(1, "text/plain"), (3, "application/json")] {
        let body = format!("[{}]", list.replace("ID", &id.to_string()));
        set(&slot, "401 Unauthorized", media, &body);
        let reply = firewall.send(&post(batch(id).to_string(), &old));
        assert_clean(reply.text(), media);
        assert_eq!((reply.status, reply.header("www-authenticate").len()), (401, 1), "{media}");
        let told = reply.json();
        let ids: Vec<_> = told.as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
        assert_eq!(ids, [json!(id), json!(id + 1)], "{media}");
    }
}

#[test]
fn requests_without_an_answer_carry_no_body_of_the_server() {
    let (firewall, slot) = firewall("");
    let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let get = format!(
        "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{LEGACY}\r\n"
    );
    let delete = get.replacen("GET", "DELETE", 1);
    let [(_, _, list), (_, _, asks)] = answers();
    for request in [post(told, LEGACY), get.into_bytes(), delete.into_bytes()] {
        let what = String::from_utf8_lossy(&request).into_owned();
        for (media, body) in [
            ("text/plain", &list),
            ("application/json", &asks),
            ("application/json", &format!("[{list}]")),
            ("text/event-stream", &format!("data: {asks}\n\n")),
        ] {
            set(&slot, "405 No", media, &body.replace("ID", "1"));
            let reply = firewall.send(&request);
            assert_clean(&format!("{}{}", reply.head, reply.text()), &what);
            set(&slot, "405 No", media, &body.replace("ID", "null"));
            assert_clean(firewall.send(&request).text(), &what);
        }
    }
}
