//! `redact` removes from answers what a rule names and texts in the format of a secret, and nothing
//! else. An answer that cannot be searched is withheld, and no record holds a removed text.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::firewall::{
    Firewall, LEGACY, Received, Reply, Setup, answer, events, journal_text, json as whole, post,
};

/// A token of a known form, in parts, so that no scanner takes this file for a leak.
fn token() -> String {
    ["gh", "p_x7Kq2Lm9Zt4Vb8Nc1", "Rf6Hj3Wd5Ys0Pg2Aa1B"].concat()
}

/// A firewall with `rules` beside a permit for everything. Its upstream answers with what the slot
/// holds, in which `ID` stands for the request's id: an event stream if it begins like one, an
/// HTTP answer of another status if it begins with a digit.
fn firewall(rules: &str, top: &str) -> (Firewall, Arc<Mutex<String>>) {
    let slot = Arc::new(Mutex::new(String::new()));
    let says = Arc::clone(&slot);
    let rego = format!(
        "package mcp\n\npermit contains {{\"message\": \"everything\"}} if true\n\n{rules}\n"
    );
    let setup = Setup {
        rego: Some(rego),
        top: top.to_owned(),
        answer: Box::new(move |received: &Received| {
            let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
            let says = says.lock().unwrap().replace("ID", &body["id"].to_string());
            match says.split_once(' ') {
                Some(("500", body)) => answer(
                    "500 Internal Server Error",
                    "Content-Type: text/plain\r\n",
                    body.as_bytes(),
                ),
                _ if says.starts_with("data:") || says.starts_with("id:") => events(&says),
                _ => whole(says.as_bytes()),
            }
        }),
        ..Setup::default()
    };
    (Firewall::with(setup), slot)
}

const SECRETS: &str = r#"redact contains {"code": "s", "what": "secrets"} if true"#;

fn pointer(pointer: &str) -> String {
    format!(r#"redact contains {{"code": "p", "pointer": "{pointer}"}} if true"#)
}

fn call() -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "get_flag", "arguments": {"key": "x"}}})
    .to_string()
}

/// JSON text as it stands inside a JSON string.
fn inside(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned()
}

#[test]
fn no_bound_leaves_a_copy_behind() {
    // A bound that is exceeded withholds; nothing is skipped in silence.
    let (firewall, slot) = firewall(&pointer("/result/structuredContent/people/*/phone"), "");
    let answer = |people: usize, repeats: usize| {
        let phone = |number: usize| format!("+49 30 5550{number:04}");
        let list: Vec<_> = (0..people).map(|number| json!({"phone": phone(number)})).collect();
        let text: Vec<_> = (0..people).map(phone).collect();
        let blocks: Vec<_> =
            (0..repeats).map(|_| json!({"type": "text", "text": text.join(", ")})).collect();
        let result = json!({"structuredContent": {"people": list}, "content": blocks});
        format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#)
    };
    for (people, repeats, passes) in
        [(64, 1, true), (65, 1, false), (1, 1022, true), (1, 1024, false)]
    {
        *slot.lock().unwrap() = answer(people, repeats);
        let reply = firewall.send(&post(call(), LEGACY));
        assert!(!reply.text().contains("+49 30"), "{people} {repeats}");
        let withheld = reply.json()["error"]["code"] == -31006;
        assert_eq!(withheld, !passes, "{people} {repeats}: {}", reply.text());
    }
    // One text with as many copies as an answer may have places, and one more.
    for (copies, passes) in [(1022, true), (1024, false), (1025, false)] {
        let text = "+49 30 55500000,".repeat(copies);
        let result = json!({"structuredContent": {"people": [{"phone": "+49 30 55500000"}]},
            "content": [{"type": "text", "text": text}]});
        *slot.lock().unwrap() = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
        let reply = firewall.send(&post(call(), LEGACY));
        assert!(!reply.text().contains("+49 30"), "{copies}");
        assert_eq!(reply.json()["error"]["code"] == -31006, !passes, "{copies}");
    }
    // A number has copies too, in texts and as a number.
    let result = r#"{"structuredContent":{"people":[{"phone":493055500000}],"n":493055500000,"m":4930},"content":[{"type":"text","text":"call 493055500000 now"}]}"#;
    *slot.lock().unwrap() = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
    let reply = firewall.send(&post(call(), LEGACY));
    assert!(!reply.text().contains("4930555"), "{}", reply.text());
    assert_eq!(reply.json()["result"]["structuredContent"]["m"], 4930);
}

#[test]
fn json_that_only_others_read_is_not_passed_unsearched() {
    let (firewall, slot) = firewall(SECRETS, "");
    let escaped = token().replacen('g', "\\u0067", 1);
    let deep = format!("{}{{\"k\":\"{escaped}\"}}{}", "[".repeat(70), "]".repeat(70));
    for text in [
        format!("{{\"k\":\"{escaped}\",\"k\":1}}"),
        format!("{{\"k\":\"{escaped}\",\"n\":1e400}}"),
        format!("{{\"k\":\"{escaped}\",\"__proto__\":1}}"),
        format!("{{\"k\":\"{escaped}\",\"s\":\"\\ud800\"}}"),
        deep,
    ] {
        let result = json!({"content": [{"type": "text", "text": text}]});
        *slot.lock().unwrap() = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
        let reply = firewall.send(&post(call(), LEGACY));
        assert_eq!(reply.json()["error"]["code"], -31006, "{text}: {}", reply.text());
    }
}

#[test]
fn only_what_must_go_changes() {
    let token = token();
    let escaped = format!("\\u0067{}", token.strip_prefix('g').unwrap());
    let copy = inside(r#"{"key": "ka", "n": 12345 }"#);
    let without = inside(r#"{"key": "[redacted]", "n": 12345 }"#);
    let deep = inside(&format!(r#"{{"a":"{}"}}"#, inside(&format!(r#"["é{token}\n"]"#))));
    let deep_without = inside(&format!(r#"{{"a":"{}"}}"#, inside(r#"["é[redacted]\n"]"#)));
    let (half, rest) = token.split_at(11);
    let secrets = SECRETS.to_owned();
    for (what, rules, result, expected) in [
        (
            "white space, order and unknown members stay",
            &secrets,
            format!(r#"{{ "x" :1.50, "structuredContent":{{"k":"a {token} b"}} ,"content":[ ]}}"#),
            r#"{ "x" :1.50, "structuredContent":{"k":"a [redacted] b"} ,"content":[ ]}"#.to_owned(),
        ),
        (
            "a token spelled with an escape",
            &secrets,
            format!(r#"{{"content":[{{"type":"text","text":"\n{escaped}\t."}}]}}"#),
            r#"{"content":[{"type":"text","text":"\n[redacted]\t."}]}"#.to_owned(),
        ),
        (
            "a secret known by the name before it",
            &secrets,
            format!(r#"{{"structuredContent":{{"api_key":"{}"}}}}"#, "q8Zr3Lk0vT5yWn2Bc7Xd"),
            r#"{"structuredContent":{"api_key":"[redacted]"}}"#.to_owned(),
        ),
        (
            "JSON in JSON in a text",
            &secrets,
            format!(r#"{{"content":[{{"type":"text","text":"{deep}"}}]}}"#),
            format!(r#"{{"content":[{{"type":"text","text":"{deep_without}"}}]}}"#),
        ),
        (
            "split over two blocks",
            &secrets,
            format!(
                r#"{{"content":[{{"type":"text","text":"a{half}"}},{{"type":"text","text":"{rest} b"}}]}}"#
            )
            .replace("\"a", "\"a "),
            r#"{"content":[{"type":"text","text":"a [redacted]"},{"type":"text","text":"[redacted] b"}]}"#
                .to_owned(),
        ),
        (
            "a read resource",
            &secrets,
            format!(r#"{{"contents":[{{"uri":"x://y","text":"{token}"}}]}}"#),
            r#"{"contents":[{"uri":"x://y","text":"[redacted]"}]}"#.to_owned(),
        ),
        (
            "a place, its copy in a text that is JSON, and in one that is not",
            &pointer("/result/structuredContent/key"),
            format!(
                r#"{{"structuredContent":{{"key":"ka"}},"content":[{{"text":"{copy}"}},{{"text":"ka"}}]}}"#
            ),
            format!(
                r#"{{"structuredContent":{{"key":"[redacted]"}},"content":[{{"text":"{without}"}},{{"text":"ka"}}]}}"#
            ),
        ),
        (
            "a long enough text goes wherever it stands",
            &pointer("/result/structuredContent/key"),
            r#"{"structuredContent":{"key":"plain-but-private"},"content":[{"text":"It is plain-but-private."}]}"#
                .to_owned(),
            r#"{"structuredContent":{"key":"[redacted]"},"content":[{"text":"It is [redacted]."}]}"#.to_owned(),
        ),
        (
            "each element, and a value that is no text",
            &pointer("/result/structuredContent/all/*/k~1ey"),
            r#"{"structuredContent":{"all":[{"k/ey":1 },{"other":2},{"k/ey":{"a":[true]}}]}}"#.to_owned(),
            r#"{"structuredContent":{"all":[{"k/ey":"[redacted]" },{"other":2},{"k/ey":"[redacted]"}]}}"#
                .to_owned(),
        ),
        (
            "a place inside a text",
            &pointer("/result/content/*/text/key"),
            format!(r#"{{"content":[{{"type":"text","text":"{copy}"}}]}}"#),
            format!(r#"{{"content":[{{"type":"text","text":"{without}"}}]}}"#),
        ),
        (
            "nothing to take out",
            &secrets,
            r#"{"content":[ {"type":"text","text":"on"} ]}"#.to_owned(),
            r#"{"content":[ {"type":"text","text":"on"} ]}"#.to_owned(),
        ),
    ] {
        let (firewall, slot) = firewall(rules, "");
        *slot.lock().unwrap() = format!(r#"{{"jsonrpc":"2.0", "id":ID,"result":{result}}}"#);
        let reply = firewall.ask(call());
        let expected = format!(r#"{{"jsonrpc":"2.0", "id":7,"result":{expected}}}"#);
        assert_eq!(reply.text(), expected, "{what}");
        // The same as an event of a stream.
        *slot.lock().unwrap() = format!("data: {{\"jsonrpc\":\"2.0\", \"id\":ID,\"result\":{result}}}\n\n");
        let reply = firewall.ask(call());
        assert!(reply.text().contains(&format!("data: {expected}\n")), "{what}: {}", reply.text());
        let outcome = firewall.record("event", "outcome", 2);
        let changed = !expected.contains("\"on\"");
        assert_eq!(outcome["redacted"].is_object(), changed, "{what}: {outcome}");
        assert_eq!(outcome["bytes"], expected.len(), "{what}");
        assert!(!journal_text(&firewall.state()).contains(&token), "{what}");
    }
}

#[test]
fn what_cannot_be_redacted_is_withheld() {
    let token = token();
    let many: Vec<String> = (0..1100).map(|_| token.clone()).collect();
    let mut nested = json!([token]);
    for _ in 0..6 {
        nested = json!([nested.to_string()]);
    }
    let words = "adafruit adobe airtable algolia alibaba asana atlassian beamer bitbucket bittrex \
        cloudflare codecov coinbase confluent contentful databricks datadog discord doppler droneci \
        dropbox facebook fastly finicity finnhub flickr freshbooks gitter heroku hubspot intercom ";
    let wide = words.repeat(3_000_000 / words.len());
    let secrets = SECRETS.to_owned();
    for (what, rules, result) in [
        (
            "an image",
            &secrets,
            json!({"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}),
        ),
        ("a blob", &secrets, json!({"contents": [{"uri": "x://y", "blob": "AAAA"}]})),
        (
            "an embedded blob",
            &secrets,
            json!({"content": [{"type": "resource", "resource": {"uri": "x://y", "blob": "AA"}}]}),
        ),
        ("a name", &secrets, json!({"structuredContent": {token.clone(): 1}})),
        ("too many", &secrets, json!({"content": many})),
        ("too much to search", &secrets, json!({"content": [{"type": "text", "text": wide}]})),
        ("too deep", &secrets, json!({"structuredContent": nested})),
        (
            "a text that a pointer leads into",
            &pointer("/result/content/0/text/key"),
            json!({"content": [{"type": "text", "text": "key: value"}]}),
        ),
    ] {
        let (firewall, slot) = firewall(rules, "");
        *slot.lock().unwrap() = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
        let reply = firewall.ask(call());
        assert_eq!((reply.status, reply.code()), (200, -31006), "{what}: {}", reply.text());
        assert!(!reply.text().contains(&token), "{what}");
        let outcome = firewall.record("event", "outcome", 1);
        assert_eq!(outcome["outcome"], "withheld", "{what}");
        assert!(outcome["note"].is_string(), "{what}");
    }
    // What is no JSON-RPC at all.
    let (firewall, slot) = firewall(SECRETS, "");
    *slot.lock().unwrap() = format!("500 failed with {token}");
    let reply = firewall.ask(call());
    assert_eq!(reply.code(), -31006);
    assert!(!reply.text().contains(&token));
}

#[test]
fn errors_notices_and_requests_of_the_server_are_redacted_too() {
    let token = token();
    let (firewall, slot) = firewall(SECRETS, "");
    *slot.lock().unwrap() = format!(
        r#"{{"jsonrpc":"2.0","id":ID,"error":{{"code":-32000,"message":"no {token}","data":["{token}"]}}}}"#
    );
    let error = &firewall.ask(call()).json()["error"];
    assert_eq!(*error, json!({"code": -32000, "message": "no [redacted]", "data": ["[redacted]"]}));
    *slot.lock().unwrap() = format!(
        "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"{token}\"}}}}\n\n\
         data: {{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"elicitation/create\",\"params\":{{\"message\":\"is it {token}?\",\"requestedSchema\":{{}}}}}}\n\n\
         data: {{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{{\"content\":[]}}}}\n\n"
    );
    let reply = firewall.ask(call());
    assert!(reply.text().contains("\"data\":\"[redacted]\""), "{}", reply.text());
    assert!(reply.text().contains("is it [redacted]?"), "{}", reply.text());
    assert!(!reply.text().contains(&token));
}

#[test]
fn a_duty_follows_the_task_that_the_call_began() {
    let token = token();
    // Only the call is redacted: what asks about the task has no duty of its own.
    let rules =
        r#"redact contains {"code": "s", "what": "secrets"} if input.method == "tools/call""#;
    let place = r#"redact contains {"code": "p", "pointer": "/result/structuredContent/n"} if input.method == "tools/call""#;
    let (firewall, slot) = firewall(&format!("{rules}\n\n{place}"), "");
    let ask = |method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        firewall.send(&post(body.to_string(), LEGACY))
    };
    let says = |result: Value| {
        *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
    };
    says(json!({"task": {"taskId": "t-1", "status": "working", "ttl": 60000}}));
    ask("tools/call", json!({"name": "get_flag", "arguments": {}, "task": {"ttl": 60000}}));
    says(json!({"content": [{"type": "text", "text": token}], "structuredContent": {"n": 5}}));
    let reply = ask("tasks/result", json!({"taskId": "t-1"})).json();
    assert_eq!(reply["result"]["content"][0]["text"], "[redacted]");
    assert_eq!(reply["result"]["structuredContent"]["n"], "[redacted]");

    let modern = |method: &str, name: &str, params: Value| {
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":
                {"extensions": {"io.modelcontextprotocol/tasks": {}}},
        });
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let headers = format!(
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\nMcp-Name: {name}\r\n"
        );
        firewall.send(&post(body.to_string(), &headers)).json()
    };
    says(json!({"resultType": "task", "taskId": "t-2", "status": "working", "ttlMs": null}));
    modern("tools/call", "get_flag", json!({"name": "get_flag", "arguments": {}}));
    let inner =
        json!({"content": [{"type": "text", "text": token}], "structuredContent": {"n": 5}});
    says(
        json!({"resultType": "complete", "taskId": "t-2", "status": "completed", "result": inner}),
    );
    let reply = modern("tasks/get", "t-2", json!({"taskId": "t-2"}));
    assert_eq!(reply["result"]["result"]["content"][0]["text"], "[redacted]");
    assert_eq!(reply["result"]["result"]["structuredContent"]["n"], "[redacted]");
    assert_eq!(reply["result"]["taskId"], "t-2");
}

#[test]
fn questions_inside_an_answer_are_redacted_and_its_state_is_not() {
    let token = token();
    let (firewall, slot) = firewall(SECRETS, "");
    let result = json!({
        "resultType": "input_required",
        "requestState": token,
        "inputRequests": {"q": {"method": "elicitation/create", "params": {
            "mode": "form", "message": token, "requestedSchema": {"type": "object", "properties": {}},
        }}},
    });
    *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "get_flag", "arguments": {}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        },
    }});
    let headers =
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: get_flag\r\n";
    let reply: Reply = firewall.send(&post(body.to_string(), headers));
    let result = &reply.json()["result"];
    assert_eq!(result["inputRequests"]["q"]["params"]["message"], "[redacted]");
    assert_eq!(result["requestState"], token);
}

#[test]
fn observing_records_what_would_go_and_takes_nothing_out() {
    let token = token();
    let (firewall, slot) = firewall(SECRETS, "mode: observe\n");
    let body = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": token}]}});
    *slot.lock().unwrap() = body.to_string();
    assert_eq!(firewall.ask(call()).text(), body.to_string());
    let outcome = firewall.record("event", "outcome", 1);
    assert_eq!(
        outcome["redacted"],
        json!({"count": 1, "places": [{"pointer": "/result/content/0/text", "rule": "github-pat"}]})
    );
    assert_eq!(outcome["finding"], "response_secret_leak");
}
