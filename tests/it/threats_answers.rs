//! Answers with two readings: a client's that could answer two questions or holds a look-alike, and a
//! server's in which some reader finds another member of MCP's than rules and redactions see. The
//! rows G11, G12, G17, G19, G20 and G27 of `docs/threats.md`.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use bartizan_gate::evidence::record::Outcome;
use serde_json::{Value, json};

use super::threats_gate::{Conversation, firewall, modern, read, request, says};

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
