//! `redact` removes from answers what a rule names and texts in the format of a secret, and nothing
//! else. An answer that cannot be searched is withheld, and no record holds a removed text.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
                _ if !says.trim_start().starts_with('{') => events(&says),
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
fn questions_inside_an_answer_are_redacted_and_a_state_with_a_secret_is_withheld() {
    let token = token();
    let (firewall, slot) = firewall(SECRETS, "");
    let mut result = json!({
        "resultType": "input_required",
        "requestState": "s-1",
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
    let passed = &reply.json()["result"];
    assert_eq!(passed["inputRequests"]["q"]["params"]["message"], "[redacted]");
    assert_eq!(passed["requestState"], "s-1");
    // A marker in its place would break the next request.
    result["requestState"] = format!("state {token}").into();
    *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
    let reply: Reply = firewall.send(&post(body.to_string(), headers));
    assert_eq!(reply.json()["error"]["code"], -31006);
    assert!(!reply.text().contains(&token));
}

#[test]
fn no_part_of_an_answer_carries_a_secret_past_the_search() {
    let token = token();
    let (left, right) = token.split_at(20);
    let escaped = token.replacen('p', "\\u0070", 1);
    let twice = inside(&escaped);
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
    let texts = |texts: &[&str]| {
        let block = |text: &&str| json!({"type": "text", "text": text});
        answer(json!({"content": texts.iter().map(block).collect::<Vec<_>>()}))
    };
    let end = format!("data: {}\n\n", texts(&["end"]));
    let notice = |method: &str, id: Option<&str>, params: Value| {
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if let Some(id) = id {
            message["id"] = id.into();
        }
        format!("data: {message}\n\n{end}")
    };
    let question = json!({"message": "?", "requestedSchema": {"type": "object", "properties": {}}});
    let (firewall, slot) = firewall(SECRETS, "");
    for (what, says) in [
        ("an event's name", format!("event: {token}\n{end}")),
        (
            "the name of an event with a message",
            format!(
                "event: x-{token}\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}}\n\n{end}"
            ),
        ),
        ("a comment", format!(": {token}\n\n{end}")),
        ("a comment in two lines", format!(": a\n: {token}\ndata:\n\n{end}")),
        ("an event's id", format!("id: {token}\ndata:\n\n{end}")),
        ("the id of an event with the answer", format!("id: x/{token}/1\n{end}")),
        ("a field that is none", format!("{token}: x\n{end}")),
        ("a notification's method", notice(&format!("notifications/{token}"), None, json!({}))),
        ("a request's method", notice(&format!("x/{token}"), Some("q-1"), json!({}))),
        ("a request's id", notice("elicitation/create", Some(&token), question.clone())),
        (
            "a request's id, in part",
            notice("elicitation/create", Some(&format!("q:{token}:1")), question),
        ),
        (
            "a progress token",
            notice("notifications/progress", None, json!({"progressToken": token, "progress": 1})),
        ),
        (
            "the id of a cancelled request",
            notice("notifications/cancelled", None, json!({"requestId": token})),
        ),
        ("the name of a member", answer(json!({"content": [], "structuredContent": {&token: 1}}))),
        ("a part of a name", answer(json!({"content": [], "x": [{format!("k {token}"): 1}]}))),
        ("the name of a member of `_meta`", answer(json!({"content": [], "_meta": {&token: 1}}))),
        ("a name beside `result`", {
            let mut message = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}});
            message[&token] = 1.into();
            message.to_string()
        }),
        ("a cursor", answer(json!({"content": [], "nextCursor": token}))),
        ("a task's id", answer(json!({"content": [], "taskId": token}))),
        ("two blocks", texts(&[left, right])),
        (
            "three blocks with text around",
            texts(&[&format!("the key is {left}"), "", &format!("{right} indeed")]),
        ),
        (
            "blocks with an image's caption between",
            answer(json!({"content": [
                {"type": "text", "text": left}, {"type": "resource_link", "uri": "x:y", "name": "n"},
                {"type": "text", "text": right},
            ]})),
        ),
        (
            "two resources",
            answer(
                json!({"contents": [{"uri": "a:b", "text": left}, {"uri": "a:c", "text": right}]}),
            ),
        ),
        (
            "two embedded resources",
            answer(json!({"content": [
                {"type": "resource", "resource": {"uri": "a:b", "text": left}},
                {"type": "resource", "resource": {"uri": "a:c", "text": right}},
            ]})),
        ),
        (
            "two messages of a prompt",
            answer(json!({"messages": [
                {"role": "user", "content": {"type": "text", "text": left}},
                {"role": "user", "content": {"type": "text", "text": right}},
            ]})),
        ),
        (
            "two texts of a list",
            answer(json!({"content": [], "structuredContent": {"key": [left, right]}})),
        ),
        (
            "a resource behind an empty text that nobody shows",
            answer(json!({"content": [
                {"type": "resource", "text": "", "resource": {"uri": "a:b", "text": left}},
                {"type": "text", "text": right},
            ]})),
        ),
        (
            "a resource behind a text that is a number",
            answer(json!({"content": [
                {"type": "text", "text": left},
                {"type": "resource", "text": 5, "resource": {"uri": "a:b", "text": right}},
            ]})),
        ),
        (
            "a resource behind another text",
            answer(json!({"content": [
                {"type": "text", "text": left},
                {"type": "resource", "text": "x", "resource": {"uri": "a:b", "text": right}},
            ]})),
        ),
        (
            "results of tools, whose content is a list",
            answer(json!({"content": [
                {"type": "tool_result", "content": [{"type": "text", "text": left}]},
                {"type": "tool_result", "content": [{"type": "text", "text": right}]},
            ]})),
        ),
        (
            "a text and the result of a tool",
            answer(json!({"content": [
                {"type": "text", "text": left},
                {"type": "tool_result", "content": [{"type": "text", "text": right}]},
            ]})),
        ),
        (
            "messages whose content is a list",
            notice(
                "sampling/createMessage",
                Some("q-2"),
                json!({"maxTokens": 1, "messages": [
                    {"role": "user", "content": [{"type": "text", "text": left}]},
                    {"role": "user", "content": [{"type": "text", "text": right}]},
                ]}),
            ),
        ),
        (
            "lists in a list",
            answer(json!({"content": [], "structuredContent": {"x": [[left], [right]]}})),
        ),
        (
            "the description of a link",
            answer(json!({"content": [
                {"type": "resource_link", "uri": "a:b", "name": "n", "description": left},
                {"type": "text", "text": right},
            ]})),
        ),
        (
            "two members of an object",
            answer(json!({"content": [], "structuredContent": {"a": left, "b": right}})),
        ),
        (
            "one member of two objects",
            answer(json!({"content": [], "structuredContent": {"x": [
                {"n": "some", "half": left}, {"n": "other", "half": right},
            ]}})),
        ),
        (
            "two members of JSON in a text",
            texts(&[&json!({"a": left, "b": {"c": right}}).to_string()]),
        ),
        (
            "a member of the result and one beside it",
            json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [], "a": left}, "b": right})
                .to_string(),
        ),
        ("JSON behind a text", texts(&[&format!("Result: {{\"key\": \"{escaped}\"}}")])),
        (
            "JSON in JSON behind a text",
            texts(&[&format!("Result: \"{{\\\"key\\\": \\\"{twice}\\\"}}\"")]),
        ),
        ("escapes alone", texts(&[&escaped])),
        ("escapes in two blocks", texts(&[escaped.get(..12).unwrap(), escaped.get(12..).unwrap()])),
        (
            "an escape that two blocks share",
            texts(&[escaped.get(..5).unwrap(), escaped.get(5..).unwrap()]),
        ),
        (
            "escapes of escapes beyond what is read",
            texts(&[&format!("x {}", {
                let mut deep = escaped.clone();
                for _ in 0..6 {
                    deep = inside(&deep);
                }
                deep
            })]),
        ),
        (
            "the base of a link",
            answer(
                json!({"content": [{"type": "resource_link", "name": "n", "uri": format!("https://{token}@x.example/")}]}),
            ),
        ),
        (
            "an error's data",
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{{\"code\":1,\"message\":\"m\",\"data\":{{\"{token}\":1}}}}}}"
            ),
        ),
    ] {
        *slot.lock().unwrap() = says;
        let reply = firewall.send(&post(call(), LEGACY));
        let told = format!("{}{}", reply.head, reply.text());
        let read = told.replace("\\u0070", "p").replace("\\\\u0070", "p");
        assert!(!read.contains(&token), "{what}: {told}");
        // Nothing is left to put together.
        let joined: String = read
            .split(['"', '{', '}', '[', ']', ',', ':'])
            .filter(|it| *it == left || *it == right)
            .collect();
        assert!(!joined.contains(&token), "{what}: {told}");
        for id in reply.text().lines().filter_map(|line| line.strip_prefix("id: ")) {
            let sealed = URL_SAFE_NO_PAD.decode(id).unwrap();
            assert!(!String::from_utf8_lossy(&sealed).contains(&token), "{what}: {id}");
        }
        assert!(!journal_text(&firewall.state()).contains(&token), "{what}");
    }
    // What looks alike and is none, passes.
    for text in [r"C:\new\users\temp", r"a \\ b \d+ \\\\\\\\\\\\\\\\\\\\\\\\\\\\", "tab\\tand\\n"] {
        *slot.lock().unwrap() = texts(&[text, "end"]);
        let reply = firewall.send(&post(call(), LEGACY));
        assert_eq!(reply.json()["result"]["content"][0]["text"], text);
    }
}

#[test]
fn a_copy_of_what_a_pointer_names_is_found_wherever_it_stands() {
    let phone = "+49 30 55500001";
    let (firewall, slot) = firewall(&pointer("/result/structuredContent/phone"), "");
    for extra in [
        json!({"content": [{"type": "text", "text": "+49 30 5"}, {"type": "text", "text": "5500001"}]}),
        json!({"content": [{"type": "text", "text": "Result: {\"p\": \"\\u002b49 30 55500001\"}"}]}),
        json!({"content": [], "x": {phone: 1}}),
        json!({"content": [], "nextCursor": phone}),
    ] {
        let mut result = extra.clone();
        result["structuredContent"] = json!({"phone": phone});
        *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
        let reply = firewall.send(&post(call(), LEGACY));
        assert!(!reply.text().contains("5500001"), "{}", reply.text());
    }
}

#[test]
fn no_header_of_a_server_carries_a_secret() {
    let token = token();
    let head = Arc::new(Mutex::new((String::new(), String::new())));
    let says = Arc::clone(&head);
    let firewall = Firewall::with(Setup {
        rego: Some(format!(
            "package mcp\n\npermit contains {{\"message\": \"everything\"}} if true\n\n{SECRETS}\n"
        )),
        answer: Box::new(move |_| {
            let (status, head) = says.lock().unwrap().clone();
            let body = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "no"}});
            answer(&status, &head, body.to_string().as_bytes())
        }),
        ..Setup::default()
    });
    let names = [
        "WWW-Authenticate: Bearer realm=\"TOKEN\"",
        "WWW-Authenticate: Bearer error_description=\"TOKEN\", error=\"e\"",
        "WWW-Authenticate: Bearer scope=\"TOKEN\"",
        "WWW-Authenticate: Bearer error=\"TOKEN\"",
        "WWW-Authenticate: Bearer TOKEN",
        "WWW-Authenticate: Negotiate TOKEN",
        "WWW-Authenticate: TOKEN",
        "Retry-After: TOKEN",
        "MCP-Protocol-Version: TOKEN",
        "Allow: GET, TOKEN",
        "Cache-Control: private=\"TOKEN\"",
        "Cache-Control: TOKEN",
        "X-Request-Id: TOKEN",
        "ETag: \"TOKEN\"",
        "Server-Timing: TOKEN",
        "Mcp-Session-Id: TOKEN",
    ];
    for status in ["200 OK", "401 Unauthorized", "403 Forbidden", "503 Service Unavailable"] {
        for name in names {
            let name = name.replace("TOKEN", &token);
            let json = "Content-Type: application/json\r\n";
            *head.lock().unwrap() = (status.to_owned(), format!("{json}{name}\r\n"));
            let reply = firewall.send(&post(call(), LEGACY));
            let told = format!("{}{}", reply.head, reply.text()).to_lowercase();
            assert!(!told.contains(&token.to_lowercase()), "{status} {name}: {told}");
            let challenges = reply.header("www-authenticate").len();
            assert!(challenges == 0 || reply.status != 200, "{status} {name}");
        }
    }
    let media = format!("Content-Type: text/{token}\r\n");
    *head.lock().unwrap() = ("404 Not Found".to_owned(), media);
    let reply = firewall.send(&post(call(), LEGACY));
    assert!(!reply.head.contains(&token), "{}", reply.head);
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

#[test]
fn a_secret_by_its_name_is_found_in_pieces_and_what_only_looks_like_one_passes() {
    let (firewall, slot) = firewall(SECRETS, "");
    let says = |content: Value| {
        let result = json!({"content": [], "structuredContent": content});
        *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
        firewall.send(&post(call(), LEGACY))
    };
    let (left, right) = ("q8Zr3Lk0", "vT5yWn2Bc7Xd");
    for content in [
        json!({"api_key": [left, right]}),
        json!({"api_key": [[left], [right]]}),
        json!({"apiKeys": [{"text": left}, {"text": right}]}),
        json!({"client-secret": [{"text": ""}, left, {"type": "text", "text": right}]}),
    ] {
        let reply = says(content.clone());
        assert!(!reply.text().contains(left) && !reply.text().contains(right), "{content}");
    }
    // A number that is a secret by its name, wherever it stands under that name.
    let digits = "12345678901234567890";
    for content in [
        r#"{"api_key":DIGITS}"#,
        r#"{"token":-DIGITS}"#,
        r#"{"apiKey":DIGITS.5}"#,
        r#"{"client.secret":DIGITSe3}"#,
        r#"{"password":1.DIGITS}"#,
        r#"{"api_key":"DIGITS"}"#,
        r#"{"API Key":" DIGITS "}"#,
        r#"{"api_keys":[1,DIGITS]}"#,
        r#"{"api_keys":[["DIGITS"],[DIGITS]]}"#,
        r#"{"token":{"value":DIGITS}}"#,
        r#"{"tokens":[{"value":"DIGITS"},{"id":1,"raw_value":DIGITS}]}"#,
        r#"{"a":"{\"api_key\":DIGITS}"}"#,
        r#"{"a":[{"Authorization":DIGITS}]}"#,
    ] {
        let content = content.replace("DIGITS", digits);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[],"structuredContent":{content}}}}}"#
        );
        *slot.lock().unwrap() = body;
        let reply = firewall.send(&post(call(), LEGACY));
        assert!(!reply.text().contains(digits), "{content}: {}", reply.text());
        assert!(reply.text().contains("[redacted]"), "{content}: {}", reply.text());
    }
    // A text under the name of the object around it, too.
    let whole = format!("{left}{right}");
    for content in [
        json!({"api_key": {"value": whole}}),
        json!({"tokens": [{"raw": [whole]}]}),
        json!({"passwords": [[whole]]}),
    ] {
        let reply = says(content.clone());
        assert!(!reply.text().contains(&whole), "{content}: {}", reply.text());
    }
    // A number in a form that its name tells.
    let reply = says(json!({"discord_client_id": 112_358_132_134_558_914_u64}));
    assert!(!reply.text().contains("112358132134558914"), "{}", reply.text());
    for content in [
        json!({"keys": ["checkout-v1", "dark-mode-2", "new-flow-x9"]}),
        json!({"flags": [{"key": "checkout-v1"}, {"key": "dark-mode-2"}, {"key": "new-flow-x9"}]}),
        json!({"authors": ["jdoe1", "asmith2"], "ids": [11_235_813_213_455_891_u64]}),
        json!({"tokens": 4096, "max_tokens": 1_234_567_890, "token": [true, null, false]}),
        json!({"api_key": true, "secret": null, "token": {"id": 11_235_813_213_455_891_u64}}),
        json!({"token_created": 11_235_813_213_455_891_u64, "password": {"min_length": 12}}),
        json!({"commit": "1f0c3a5d7b9e", "blob": "9e107d9d372b", "type": "image"}),
    ] {
        let reply = says(content.clone());
        assert_eq!(reply.json()["result"]["structuredContent"], content);
    }
    // A long text between two halves of nothing costs no more than its ends.
    let long = "the key of the flag, ".repeat(20_000);
    let content = json!({"a": "x", "log": long, "b": "y"});
    assert_eq!(says(content.clone()).json()["result"]["structuredContent"], content);
    // A state that goes back to the server may hold half of one.
    let token = token();
    let (left, right) = token.split_at(20);
    let result = json!({"content": [{"type": "text", "text": left}], "nextCursor": right});
    *slot.lock().unwrap() = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
    assert_eq!(firewall.send(&post(call(), LEGACY)).json()["error"]["code"], -31006);
}

#[test]
fn an_image_is_withheld_wherever_it_stands() {
    let (firewall, slot) = firewall(SECRETS, "");
    let image = json!({"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"});
    let audio = json!({"x": [{"type": "audio", "data": "aGVsbG8="}]});
    let blob = json!({"uri": "a:b", "blob": "aGVsbG8="});
    for content in [&image, &audio, &blob] {
        for result in [
            json!({"content": [], "structuredContent": {"a": content}}),
            json!({"content": [], "structuredContent": content}),
            json!({"content": [{"type": "text", "text": content.to_string()}]}),
            json!({"content": [], "structuredContent": {"a": json!([content]).to_string()}}),
            json!({"content": [], "_meta": {"a": content}}),
        ] {
            *slot.lock().unwrap() =
                json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
            let reply = firewall.send(&post(call(), LEGACY));
            assert_eq!(reply.json()["error"]["code"], -31006, "{result}: {}", reply.text());
        }
    }
}
