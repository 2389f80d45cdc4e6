//! Answers with two readings: a client's that could answer two questions or holds a look-alike, and a
//! server's in which some reader finds another member of MCP's than rules and redactions see. The
//! rows G11, G12, G17, G19, G20 and G27 of `docs/threats.md`.

use bartizan_gate::evidence::record::Outcome;
use serde_json::{Value, json};

use super::firewall::{Firewall, Received, Reply, Setup, json as answer};
use super::threats_gate::{Conversation, Slot, firewall, legacy, modern, read, request, says};

/// Closes two of the methods by which a server asks a client for something.
const CLOSED: &str = r#"deny contains {"code": "closed", "message": "no"} if {
	input.phase == "answer"
	input.method in {"roots/list", "sampling/createMessage"}
}
"#;

/// Rules that read an answer's members one by one.
const MEMBERS: &str = r#"deny contains {"code": "root", "message": "no"} if {
	some root in input.answer.roots
	root.ambiguous
}

deny contains {"code": "accepts", "message": "no"} if {
	input.answer.action == "accept"
	input.answer.content.key
}
"#;

/// A call that carries `answer` in answer to a question of the server.
fn continuation(answer: &Value) -> Vec<u8> {
    let params = json!({"name": "get_flag", "arguments": {"key": "x"}, "requestState": "s",
        "inputResponses": {"q": answer}});
    let offers = json!({"roots": {}, "elicitation": {}, "sampling": {}});
    modern("tools/call", "get_flag", &params, &offers)
}

/// Answers in which some reader finds another member than rules judge.
fn ambiguous_answers() -> Vec<(&'static str, Value)> {
    let (list, ask) = ("roots/list", "elicitation/create");
    let bad = json!([{"uri": "file:///a/../b"}]);
    vec![
        (list, json!({"Roots": bad})),
        (list, json!({"roots": [], "ROOTS": bad})),
        (list, json!({"roots": [], "roots\u{200b}": bad})),
        (list, json!({"roots": [], "\u{ff52}oots": bad})),
        (list, json!({"roots": [{"uri": "file:///ok", "Uri": "file:///a/../b"}]})),
        (
            list,
            json!({"roots": [{"uri": "file:///ok"}, {"uri": "file:///ok", "ur\u{131}": "x:/../b"}]}),
        ),
        (list, json!({"roots": {"uri": "file:///ok", "URI": "file:///a/../b"}})),
        (ask, json!({"action": "decline", "Action": "accept", "content": {"key": "k"}})),
        (ask, json!({"Action": "accept", "content": {"key": "k"}})),
        (ask, json!({"action": "accept", "content": {}, "Content": {"key": "k"}})),
        (ask, json!({"act\u{131}on": "accept", "content": {"key": "k"}})),
    ]
}

#[test]
fn an_answer_in_two_forms_is_judged_as_each_of_them() {
    // G19: the server knows what it asked, and reads the answer as that.
    let (firewall, slot) = firewall(CLOSED, "");
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    let roots = json!([{"uri": "file:///home/me"}]);
    let text = json!({"type": "text", "text": "t"});
    for answer in [
        json!({"roots": roots}),
        json!({"action": "decline", "roots": roots}),
        json!({"action": "decline", "Roots": roots}),
        json!({"action": "cancel", "role": "assistant", "model": "m", "content": text}),
        json!({"action": "accept", "content": text, "model": "m"}),
        json!({"action": "accept", "content": text, "ROLE": "assistant"}),
        json!({"role": "assistant", "content": text}),
        json!({"content": text, "stopReason": "endTurn"}),
        json!({"content": text}),
        json!({}),
    ] {
        let reply = firewall.send(&continuation(&answer));
        assert_eq!(reply.code(), -31001, "{answer} {}", reply.text());
    }
    assert_eq!(firewall.received().len(), 0);
    for answer in [
        json!({"action": "decline"}),
        json!({"action": "accept", "content": {"roots": "r", "role": "r", "model": "m"}}),
        json!({"action": "accept", "content": {}, "_meta": {"roots": 1}}),
    ] {
        assert_eq!(firewall.send(&continuation(&answer)).status, 200, "{answer}");
        let body = read(&firewall.received().last().unwrap().body);
        assert_eq!(body["params"]["inputResponses"]["q"], answer);
    }
}

#[test]
fn a_redaction_holds_for_each_form_of_an_answer() {
    let rule = r#"redact contains {"code": "p", "pointer": "/result/content/key"} if {
	input.method == "sampling/createMessage"
}
"#;
    let (firewall, slot) = firewall(rule, "");
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    let sent = |answer: Value| {
        firewall.send(&continuation(&answer));
        read(&firewall.received().last().unwrap().body)["params"]["inputResponses"]["q"].clone()
    };
    for other in [json!({"role": "user"}), json!({})] {
        let mut answer = json!({"content": {"key": "1234"}});
        answer.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        assert_eq!(sent(answer.clone())["content"]["key"], "[redacted]", "{answer}");
    }
    let accepted = json!({"action": "accept", "content": {"key": "1234"}});
    assert_eq!(sent(accepted.clone()), accepted);
}

#[test]
fn an_answer_with_a_look_alike_is_refused() {
    // G19, A4: rules read the exact members alone.
    let (firewall, slot) = firewall(MEMBERS, "");
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    for (_, answer) in ambiguous_answers() {
        assert_eq!(firewall.send(&continuation(&answer)).code(), -31001, "{answer}");
    }
    assert_eq!(firewall.received().len(), 0);

    let [mut pipe] = Conversation::with_rules(MEMBERS, ["a"]);
    for (number, (method, answer)) in (100_u32..).zip(ambiguous_answers()) {
        let params =
            json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
        assert!(pipe.server(&request(number, method, params)).is_ok(), "{number} {method}");
        let told = pipe.client(&json!({"jsonrpc": "2.0", "id": number, "result": answer})).unwrap();
        assert_eq!(told["error"]["code"], -31001, "{answer} {told}");
        assert_eq!(pipe.last().outcome, Some(Outcome::Withheld), "{answer}");
    }
}

#[test]
fn answers_stand_under_one_name() {
    // A library that takes names in snake case, too, would find answers that nobody judged.
    let (firewall, slot) = firewall("", "");
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    let answers = json!({"q": {"action": "decline"}});
    for name in ["input_responses", "input-responses", "Input_Responses", "inputResponses"] {
        let mut params = json!({"name": "get_flag", "arguments": {"key": "x"}});
        params[name] = answers.clone();
        let reply = firewall.send(&modern("tools/call", "get_flag", &params, &json!({})));
        let passes = name == "inputResponses";
        assert_eq!(reply.code() == 0, passes, "{name} {}", reply.text());
    }
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn a_question_inside_an_answer_has_no_look_alikes() {
    // G11, G12: what a message of the server asks by itself, it asks by the same names inside.
    let rule = r#"deny contains {"code": "url", "message": "no"} if input.elicitation.mode == "url"
"#;
    let (firewall, slot) = firewall(rule, "");
    let offers = json!({"elicitation": {"form": {}, "url": {}}});
    let params = json!({"name": "get_flag", "arguments": {"key": "x"}});
    let ask = |inside: &Value| {
        says(&slot, inside.to_string());
        firewall.send(&modern("tools/call", "get_flag", &params, &offers))
    };
    let asked = |params: Value| {
        json!({"resultType": "input_required", "requestState": "s",
            "inputRequests": {"a": {"method": "elicitation/create", "params": params}}})
    };
    let form = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    assert_eq!(ask(&asked(form.clone())).json()["result"]["resultType"], "input_required");
    for (name, value) in
        [("Mode", "url"), ("MODE", "url"), ("mode\u{200b}", "url"), ("URL", "http://bad.example/")]
    {
        let mut odd = form.clone();
        odd[name] = value.into();
        assert_eq!(ask(&asked(odd)).code(), -31006, "{name}");
    }
    let mut odd = asked(form);
    odd["input_requests"] = json!({"a": {"method": "sampling/createMessage"}});
    assert_eq!(ask(&odd).code(), -31006);
}

/// A firewall that calls a tool and removes secrets and one value from what it answers.
const REDACTING: &str = r#"redact contains {"code": "s", "what": "secrets"} if input.tool.name == "all"

redact contains {"code": "p", "pointer": "/result/structuredContent/token"} if input.method == "tools/call"
"#;

/// The answer to a call of `tool`, whose result is `result`.
fn told(firewall: &Firewall, slot: &Slot, tool: &str, result: &Value) -> Reply {
    says(slot, result.to_string());
    firewall.ask(legacy("tools/call", &json!({"name": tool})))
}

#[test]
fn a_removed_value_does_not_return_under_another_spelling() {
    // G20: the copy as JSON in a text, and the value itself, under names that some reader takes for
    // those of MCP.
    let (firewall, slot) = firewall(REDACTING, "");
    let copy = json!({"token": "tok-5f1c", "other": "kept"}).to_string();
    let block = |name: &str| json!({"type": "text", name: copy});
    for result in [
        json!({"content": [block("text")]}),
        json!({"content": [block("Text")]}),
        json!({"content": [block("TEXT")]}),
        json!({"content": [block("te\u{ad}xt")]}),
        json!({"Content": [block("text")]}),
        json!({"CONTENT": [block("Text")]}),
        json!({"content": [], "Content": [block("text")]}),
        json!({"content": [{"type": "resource", "resource": {"uri": "x:y", "text": copy}}]}),
        json!({"content": [{"type": "resource", "Resource": {"uri": "x:y", "Text": copy}}]}),
        json!({"content": [], "StructuredContent": {"token": "tok-5f1c", "other": "kept"}}),
        json!({"content": [], "structured_content": {"token": "tok-5f1c", "other": "kept"}}),
        json!({"content": [], "structured-content": {"Token": "tok-5f1c", "other": "kept"}}),
    ] {
        let reply = told(&firewall, &slot, "one", &result);
        assert!(reply.text().contains("kept"), "{result} {}", reply.text());
        assert!(!reply.text().contains("tok-5f1c"), "{result} {}", reply.text());
    }
    // What only looks so to a rule stays as it is.
    let other = json!({"content": [{"type": "text", "text": "a", "Token": "tok-5f1c"}],
        "structuredContent": {"Text": "tok-5f1c", "Type": "image", "Data": "d"}});
    assert_eq!(told(&firewall, &slot, "one", &other).json()["result"], other);
}

#[test]
fn content_that_is_no_text_is_withheld_under_any_spelling() {
    // G27.
    let (firewall, slot) = firewall(REDACTING, "");
    let image = |kind: &str, data: &str| json!({"content": [{kind: "image", data: "QUtJQQ==", "mimeType": "image/png"}]});
    let blob = |resource: &str, name: &str| json!({"content": [{"type": "resource", resource: {"uri": "x:y", name: "QUtJQQ=="}}]});
    for result in [
        image("type", "data"),
        image("type", "Data"),
        image("Type", "data"),
        image("TYPE", "da\u{200b}ta"),
        json!({"content": [{"type": "Image", "data": "QUtJQQ=="}]}),
        json!({"content": [{"type": "text", "text": "a", "Type": "audio", "Data": "QUtJQQ=="}]}),
        blob("resource", "blob"),
        blob("resource", "Blob"),
        blob("Resource", "BLOB"),
        json!({"contents": [{"uri": "x:y", "Blob": "QUtJQQ=="}]}),
    ] {
        let reply = told(&firewall, &slot, "all", &result);
        assert_eq!(reply.code(), -31006, "{result} {}", reply.text());
    }
    // A text beside a type, data of another kind.
    let plain = json!({"content": [{"type": "text", "text": "a"}],
        "structuredContent": {"Type": "image", "Blob": "a", "data": [1]}});
    assert_eq!(told(&firewall, &slot, "all", &plain).json()["result"], plain);
}

#[test]
fn a_removed_object_leaves_neither_its_names_nor_its_numbers() {
    // G20.
    let (firewall, slot) = firewall(REDACTING, "");
    let key = "tok-5f1c-zz-91ab";
    let with = |token: Value, more: Value| {
        let mut result = json!({"content": [], "structuredContent": {"token": token}});
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        result
    };
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    for more in [
        text(&format!("it is {key}")),
        text(&json!({"token": {key: 1}}).to_string()),
        text(&format!("Result: {}", json!({"token": {key: 1}}))),
        json!({"_meta": {"note": [key]}}),
    ] {
        let reply = told(&firewall, &slot, "one", &with(json!({key: 1}), more.clone()));
        assert_eq!(reply.json()["result"]["structuredContent"]["token"], "[redacted]", "{more}");
        assert!(!reply.text().contains(key), "{}", reply.text());
    }
    // No marker can stand for a name.
    for more in [json!({"_meta": {key: 1}}), text(&json!({"other": {key: 1}}).to_string())] {
        let reply = told(&firewall, &slot, "one", &with(json!({key: 1}), more.clone()));
        assert_eq!(reply.code(), -31006, "{more} {}", reply.text());
    }
    // Words of an object's form are no data: they may stand in other objects.
    let words = json!({"createdAt": 1, "description": "d", "address_line_1": "a"});
    let others = json!({"content": [], "_meta": words.clone(), "other": [words.clone()]});
    let reply = told(&firewall, &slot, "one", &with(words.clone(), others)).json();
    assert_eq!(reply["result"]["other"][0], words);

    for number in [
        "123456789012.0",
        "1.23456789012E+11",
        "1.23456789012e11",
        "1234567890120e-1",
        "-123456789012",
    ] {
        for (place, kept) in
            [("number", format!("{{\"n\":{number}}}")), ("text", format!("\"it is {number}, ok\""))]
        {
            says(
                &slot,
                format!(
                    r#"{{"content":[],"structuredContent":{{"token":123456789012}},"x":{kept}}}"#
                ),
            );
            let reply = firewall.ask(legacy("tools/call", &json!({"name": "one"})));
            let x = reply.json()["result"]["x"].to_string();
            assert!(x.contains("[redacted]"), "{place}: {number} {}", reply.text());
            assert!(!reply.text().contains(number.trim_start_matches('-')), "{}", reply.text());
        }
    }
    let near = json!({"n": 123_456_789_013_i64, "t": "1.23456789012e12 and 12345678901"});
    let reply =
        told(&firewall, &slot, "one", &with(json!(123_456_789_012_i64), json!({"x": near})));
    assert_eq!(reply.json()["result"]["x"], near);
}

#[test]
fn a_schema_acts_on_its_reader_under_any_spelling() {
    // G17, G26 under the baseline.
    let slot = Slot::default();
    let says_it = Slot::clone(&slot);
    let baseline = Firewall::with(Setup {
        answer: Box::new(move |received: &Received| {
            let says = says_it.lock().unwrap().clone();
            let id = read(&received.body)["id"].clone();
            answer(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{says}}}"#).as_bytes())
        }),
        ..Setup::default()
    });
    let listed = |tool: &Value| {
        says(&slot, json!({"tools": [tool]}).to_string());
        baseline.ask(legacy("tools/list", &json!({})))
    };
    let plain = json!({"type": "object"});
    let remote =
        json!({"type": "object", "properties": {"a": {"$ref": "http://169.254.169.254/x"}}});
    let header = json!({"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A\r\nB"}}});
    for schema in [&remote, &header] {
        for name in ["input_schema", "output_schema", "input-schema"] {
            let tool = json!({"name": "get_flag", "inputSchema": plain, name: schema});
            assert_eq!(listed(&tool).json()["result"]["tools"], json!([]), "{tool}");
        }
    }
    for name in ["InputSchema", "OutputSchema", "INPUTSCHEMA", "inputSchema\u{200b}", "Annotations"]
    {
        for schema in [&remote, &header, &plain] {
            let both = json!({"name": "get_flag", "inputSchema": plain, name: schema});
            assert_eq!(listed(&both).code(), -31006, "{both}");
            let alone = json!({"name": "get_flag", name: schema});
            assert_eq!(listed(&alone).code(), -31006, "{alone}");
        }
    }
    for keyword in ["$Ref", "$REF", "$schema ", "$Id"] {
        let tool =
            json!({"name": "get_flag", "inputSchema": {keyword: "http://169.254.169.254/x"}});
        assert_eq!(listed(&tool).json()["result"]["tools"], json!([]), "{tool}");
    }
    let shown = json!({"name": "get_flag", "inputSchema": {"type": "object",
        "properties": {"Id": {"type": "string"}, "InputSchema": {"type": "object"}}}});
    assert_eq!(listed(&shown).json()["result"]["tools"], json!([shown]));
}
