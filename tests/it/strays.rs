//! Messages of a server that name no call: a secret of any call of the session, or of the principal
//! where there is no session, is taken out of each of them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::firewall::{Firewall, LEGACY, Received, Setup, answer, events, json as whole, post};

/// A token of a known form, in parts, so that no scanner takes this file for a leak.
fn token() -> String {
    ["gh", "p_x7Kq2Lm9Zt4Vb8Nc1", "Rf6Hj3Wd5Ys0Pg2Aa1B"].concat()
}

/// Only calls of the tool `t` demand a redaction.
const RULES: &str = r#"package mcp

permit contains {"code": "a", "message": "everything"} if true

redact contains {"code": "s", "what": "secrets"} if input.tool.name == "t"
"#;

/// The header by which the server names session `number`; empty for none.
type Naming = fn(usize) -> String;

type Slot = Arc<Mutex<Vec<u8>>>;

/// A firewall whose server begins sessions as `naming` says and answers all else with the slot.
fn firewall(naming: Naming) -> (Firewall, Slot) {
    let slot: Slot = Arc::default();
    let (says, begun) = (Arc::clone(&slot), AtomicUsize::new(0));
    let firewall = Firewall::with(Setup {
        rego: Some(RULES.to_owned()),
        server: String::new(),
        answer: Box::new(move |received: &Received| {
            let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
            if body["method"] != "initialize" {
                return says.lock().unwrap().clone();
            }
            let named = naming(begun.fetch_add(1, Ordering::Relaxed));
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"logging": {}},
                "serverInfo": {"name": "s", "version": "1"}});
            let told = json!({"jsonrpc": "2.0", "id": body["id"], "result": result}).to_string();
            let headers = format!("Content-Type: application/json\r\n{named}");
            answer("200 OK", &headers, told.as_bytes())
        }),
        ..Setup::default()
    });
    (firewall, slot)
}

/// Begins a session: the headers of its messages.
fn begin(firewall: &Firewall) -> String {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"}});
    let asks = json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params});
    let reply = firewall.ask(asks.to_string());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let named = reply.header("mcp-session-id");
    let named = named.first().map(|id| format!("Mcp-Session-Id: {id}\r\n"));
    format!("{LEGACY}{}", named.unwrap_or_default())
}

fn request(id: u32, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn bare(method: &str, headers: &str) -> Vec<u8> {
    format!(
        "{method} /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// What names no call, with the token in it, in each form in which a server may send it.
fn strays() -> Vec<Vec<u8>> {
    let token = token();
    let json_type = "Content-Type: application/json\r\n";
    let params = json!({"level": "info", "data": token});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": token}});
    let error = error.to_string();
    vec![
        events(&format!("data: {note}\n\n")),
        events(&format!("data: {error}\n\n")),
        whole(error.as_bytes()),
        answer("400 No", json_type, error.as_bytes()),
        answer("405 No", json_type, error.as_bytes()),
        answer("400 No", json_type, format!("{{\"a\":\"{token}\"}}").as_bytes()),
        answer("400 No", "Content-Type: text/plain\r\n", token.as_bytes()),
    ]
}

#[test]
fn a_message_that_names_no_call_is_redacted_with_and_without_a_session() {
    let namings: [(&str, Naming); 3] = [
        ("a session each", |number| format!("Mcp-Session-Id: s-{number}\r\n")),
        ("no session", |_| String::new()),
        ("one id for all", |_| "Mcp-Session-Id: s\r\n".to_owned()),
    ];
    let token = token();
    for (name, naming) in namings {
        let (firewall, slot) = firewall(naming);
        for round in 0..2 {
            let headers = begin(&firewall);
            let content = json!({"content": [{"type": "text", "text": token}]});
            let result = json!({"jsonrpc": "2.0", "id": 1, "result": content}).to_string();
            *slot.lock().unwrap() = whole(result.as_bytes());
            let call = request(1, "tools/call", &json!({"name": "t", "arguments": {}}));
            let reply = firewall.send(&post(call, &headers));
            assert!(reply.text().contains("[redacted]"), "{name}: {}", reply.text());
            let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
            for (number, stray) in strays().into_iter().enumerate() {
                *slot.lock().unwrap() = stray;
                let id = 10 + u32::try_from(number).unwrap();
                let ping = request(id, "ping", &json!({}));
                let other = request(100 + id, "tools/call", &json!({"name": "u", "arguments": {}}));
                let mut asks =
                    vec![post(ping, &headers), post(other, &headers), post(told, &headers)];
                asks.push(bare("GET", &headers));
                // Answered with success, it would end the session.
                if number > 2 {
                    asks.push(bare("DELETE", &headers));
                }
                for asked in asks {
                    let reply = firewall.send(&asked);
                    let asked = String::from_utf8_lossy(&asked).into_owned();
                    let heard = format!("{}{}", reply.head, reply.text());
                    assert!(!heard.contains(&token), "{name} {round} {number} {asked}: {heard}");
                }
            }
        }
    }
}

#[test]
fn without_a_demand_a_message_that_names_no_call_passes_as_it_is() {
    let (firewall, slot) = firewall(|_| String::new());
    let headers = begin(&firewall);
    let [note, ..] = &strays()[..] else { return };
    slot.lock().unwrap().clone_from(note);
    let reply = firewall.send(&bare("GET", &headers));
    assert!(reply.text().contains(&token()), "{}", reply.text());
}
