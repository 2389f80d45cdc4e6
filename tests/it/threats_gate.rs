//! Rows of `docs/threats.md` about what messages mean (section G): tasks, questions inside answers,
//! subscriptions, progress, lists. Each case says what the upstream received, what the client got
//! and, for a refusal, what the journal says.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bartizan::policy::embedded;
use bartizan_gate::evidence::record::{AuditRecord, Event, Now, Outcome};
use bartizan_gate::evidence::step::Act;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources, RegoPdp};
use bartizan_testing::Sink;
use serde_json::{Value, json};

use super::firewall::{Firewall, Received, Reply, Setup, events, json as answer, post};

pub(super) const PERMIT: &str =
    "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"everything\"} if true\n";

/// What the upstream answers with: the result, JSON, or a whole event stream.
pub(super) type Slot = Arc<Mutex<String>>;

/// A firewall with `rules` beside a permit for everything. Its upstream answers each request with
/// what the slot holds: a `result`, or an event stream in which `ID` stands for the request's id.
pub(super) fn firewall(rules: &str, top: &str) -> (Firewall, Slot) {
    let slot = Slot::default();
    let says = Arc::clone(&slot);
    let setup = Setup {
        rego: Some(format!("{PERMIT}\n{rules}")),
        top: top.to_owned(),
        answer: Box::new(move |received: &Received| {
            let says = says.lock().unwrap().clone();
            let body: Value = read(&received.body);
            let id = body["id"].to_string();
            if says.starts_with("data:") {
                return events(&says.replace("ID", &id));
            }
            answer(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{says}}}"#).as_bytes())
        }),
        ..Setup::default()
    };
    (Firewall::with(setup), slot)
}

/// A message of our own making, or nothing of it.
pub(super) fn read(body: &[u8]) -> Value {
    serde_json::from_reader(body).unwrap_or_default()
}

pub(super) fn says(slot: &Slot, text: impl Into<String>) {
    *slot.lock().unwrap() = text.into();
}

/// A request of the modern era from a client that offers `capabilities`.
pub(super) fn modern(method: &str, name: &str, params: &Value, capabilities: &Value) -> Vec<u8> {
    let mut params = params.clone();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let name = if name.is_empty() { String::new() } else { format!("Mcp-Name: {name}\r\n") };
    let headers = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}");
    post(body.to_string(), &headers)
}

fn call_tool(capabilities: &Value) -> Vec<u8> {
    let params = json!({"name": "get_flag", "arguments": {"key": "x"}});
    modern("tools/call", "get_flag", &params, capabilities)
}

fn tasks() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}})
}

fn about_task(method: &str, id: &str) -> Vec<u8> {
    modern(method, id, &json!({"taskId": id}), &tasks())
}

pub(super) fn legacy(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string()
}

/// The messages of an event stream.
pub(super) fn messages(reply: &Reply) -> Vec<Value> {
    let data = reply.text().lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|text| !text.is_empty()).map(|text| serde_json::from_str(text).unwrap()).collect()
}

#[test]
fn a_task_belongs_to_the_principal_that_created_it() {
    // G13 m-tasks: an id that nobody was seen to be given is unknown, in either era.
    let (firewall, slot) = firewall("", "");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let reply = firewall.send(&about_task(method, "t-1"));
        assert_eq!((reply.status, reply.code()), (200, -32602), "{method}");
    }
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let reply = firewall.ask(legacy(method, &json!({"taskId": "t-1"})));
        assert_eq!((reply.status, reply.code()), (200, -32602), "{method}");
    }
    // Who does not speak of tasks is told that first, as the extension has it.
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let reply = firewall.send(&modern(method, "t-1", &json!({"taskId": "t-1"}), &json!({})));
        assert_eq!((reply.status, reply.code()), (400, -32021), "{method}");
        let required = &reply.json()["error"]["data"]["requiredCapabilities"];
        assert_eq!(*required, tasks(), "{method}");
    }
    // What the revision does not define tells nothing about tasks.
    let reply = firewall.send(&modern("tasks/result", "", &json!({"taskId": "t-1"}), &tasks()));
    assert_eq!((reply.status, reply.code()), (404, -32601));
    let listen = json!({"notifications": {"taskIds": ["t-1"]}});
    let reply = firewall.send(&modern("subscriptions/listen", "", &listen, &tasks()));
    assert_eq!(reply.code(), -32602);
    assert_eq!(firewall.received().len(), 0);
    let denial = firewall.record("event", "denial", 1);
    assert_eq!(denial["target"]["task"], "t-1");
    assert_eq!(denial["decision"]["reasons"][0]["code"], "unknown-task");

    says(&slot, r#"{"resultType":"task","taskId":"t-1","status":"working","ttlMs":null}"#);
    assert_eq!(firewall.send(&call_tool(&tasks())).json()["result"]["taskId"], "t-1");
    says(&slot, r#"{"resultType":"complete","taskId":"t-1","status":"working"}"#);
    assert_eq!(firewall.send(&about_task("tasks/get", "t-1")).json()["result"]["taskId"], "t-1");
    assert_eq!(firewall.send(&about_task("tasks/cancel", "t-2")).code(), -32602);
    assert_eq!(firewall.received().len(), 2);
}

#[test]
fn tasks_of_2025_11_25_are_remembered_too() {
    let (firewall, slot) = firewall("", "");
    let call = json!({"name": "get_flag", "arguments": {}, "task": {"ttl": 60000}});
    says(&slot, r#"{"task":{"taskId":"t-1","status":"working","ttl":60000}}"#);
    firewall.ask(legacy("tools/call", &call));
    says(&slot, r#"{"content":[{"type":"text","text":"done"}]}"#);
    let reply = firewall.ask(legacy("tasks/result", &json!({"taskId": "t-1"})));
    assert_eq!(reply.json()["result"]["content"][0]["text"], "done");
    // A list shows what is this principal's alone.
    says(&slot, r#"{"tasks":[{"taskId":"t-0"}, {"taskId":"t-1"}],"nextCursor":"c"}"#);
    let reply = firewall.ask(legacy("tasks/list", &json!({})));
    assert_eq!(reply.json()["result"], json!({"tasks": [{"taskId": "t-1"}], "nextCursor": "c"}));
    assert_eq!(firewall.record("event", "outcome", 3)["hidden"], json!(["t-0"]));
}

#[test]
fn rules_about_a_task_know_what_made_it() {
    let rules = "deny contains {\"code\": \"no-undo\", \"message\": \"no\"} if {\n\tinput.method == \"tasks/cancel\"\n\tinput.task.tool == \"get_flag\"\n\tinput.task.method == \"tools/call\"\n\tinput.task.operation.effect == \"read\"\n}\n";
    let (firewall, slot) = firewall(rules, "");
    says(&slot, r#"{"resultType":"task","taskId":"t-1","status":"working"}"#);
    firewall.send(&call_tool(&tasks()));
    let reply = firewall.send(&about_task("tasks/cancel", "t-1"));
    assert_eq!(reply.code(), -31001, "{}", reply.text());
    assert_eq!(firewall.received().len(), 1);
}

/// Answers to a call, and whether they pass: `(row, capabilities, method, result, passes)`.
fn results() -> Vec<(&'static str, Value, &'static str, Value, bool)> {
    let ask = |method: &str, params: Value| {
        json!({"resultType": "input_required", "requestState": "s",
            "inputRequests": {"a": {"method": method, "params": params}}})
    };
    let sample = || ask("sampling/createMessage", json!({"messages": [], "maxTokens": 1}));
    let sampling = || json!({"sampling": {}});
    let form = |field: &str| {
        let schema = json!({"type": "object", "properties": {field: {"type": "string"}}});
        ask("elicitation/create", json!({"message": "m", "requestedSchema": schema}))
    };
    let url =
        |url: &str| ask("elicitation/create", json!({"mode": "url", "url": url, "message": "m"}));
    let both = || json!({"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}});
    let call = "tools/call";
    vec![
        ("s2c-input-declared", both(), call, sample(), true),
        ("s2c-input-roots", both(), call, ask("roots/list", json!({})), true),
        ("s2c-input-undeclared", json!({}), call, sample(), false),
        ("s2c-input-other", sampling(), call, ask("roots/list", json!({})), false),
        ("s2c-input-tool", both(), call, ask("tools/call", json!({"name": "x"})), false),
        ("s2c-input-params", both(), call, ask("roots/list", json!([])), false),
        (
            "s2c-input-array",
            both(),
            call,
            json!({"resultType": "input_required", "inputRequests": []}),
            false,
        ),
        (
            "s2c-input-look-alike",
            both(),
            call,
            json!({"resultType": "input_required",
            "inputRequests": {"a": {"method": "roots/list", "Method": "sampling/createMessage"}}}),
            false,
        ),
        (
            "s2c-input-look-alike-members",
            both(),
            call,
            json!({"resultType": "complete", "InputRequests": {}}),
            false,
        ),
        (
            "s2c-input-in-complete",
            json!({}),
            call,
            json!({"inputRequests": {"a": {"method": "roots/list"}}}),
            false,
        ),
        ("s2c-elicit-form", both(), call, form("name"), true),
        ("s2c-elicit-secret", both(), call, form("password"), false),
        ("s2c-elicit-url", both(), call, url("https://ok.example/x"), true),
        ("s2c-elicit-url-http", both(), call, url("http://ok.example/x"), false),
        ("s2c-elicit-url-script", both(), call, url("javascript:alert(1)"), false),
        (
            "s2c-elicit-url-undeclared",
            json!({"elicitation": {}}),
            call,
            url("https://ok.example/x"),
            false,
        ),
        ("s2c-elicit-mode", both(), call, ask("elicitation/create", json!({"mode": "x"})), false),
        ("result-type-read", both(), "resources/read", sample(), true),
        ("result-type-prompt", both(), "prompts/get", sample(), true),
        ("result-type-misplaced", both(), "completion/complete", sample(), false),
        (
            "result-type-list",
            both(),
            "tools/list",
            json!({"resultType": "input_required", "tools": []}),
            false,
        ),
        ("result-type-task", tasks(), call, json!({"resultType": "task", "taskId": "t"}), true),
        (
            "result-type-task-undeclared",
            both(),
            call,
            json!({"resultType": "task", "taskId": "t"}),
            false,
        ),
        ("result-type-task-no-id", tasks(), call, json!({"resultType": "task"}), false),
        (
            "result-type-task-list",
            tasks(),
            "tools/list",
            json!({"resultType": "task", "taskId": "t"}),
            false,
        ),
        ("result-type-unknown", both(), call, json!({"resultType": "streaming"}), false),
        ("result-type-form", both(), call, json!({"resultType": 1}), false),
        (
            "result-type-complete",
            json!({}),
            call,
            json!({"resultType": "complete", "content": []}),
            true,
        ),
        ("result-type-absent", json!({}), call, json!({"content": []}), true),
        ("result-type-vendor", json!({}), "vendor/x", json!({"resultType": "streaming"}), true),
        (
            "s2c-list-twins",
            json!({}),
            "tools/list",
            json!({"tools": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}),
            false,
        ),
        (
            "s2c-list-prompt-twins",
            json!({}),
            "prompts/list",
            json!({"prompts": [{"name": "a"}, {"name": "a"}]}),
            false,
        ),
        (
            "s2c-list-resource-twins",
            json!({}),
            "resources/list",
            json!({"resources": [{"uri": "a:"}, {"uri": "a:"}]}),
            true,
        ),
    ]
}

/// A rule on field names and one on URLs, as a policy may have for sampling and elicitation.
const ELICITATION: &str = r#"deny contains {"code": "secrets", "message": "no secrets in forms"} if {
	input.direction == "to_client"
	input.method == "elicitation/create"
	some name in object.keys(input.params.requestedSchema.properties)
	name in {"password", "token"}
}

deny contains {"code": "plain-url", "message": "https only"} if {
	input.method == "elicitation/create"
	input.params.mode == "url"
	not startswith(object.get(input.params, "url", ""), "https://")
}
"#;

#[test]
fn what_an_answer_holds_is_judged() {
    // G6, G11, G12: a refused question withholds its answer, whole.
    let (firewall, slot) = firewall(ELICITATION, "");
    for (row, capabilities, method, result, passes) in results() {
        let (name, params) = match method {
            "tools/call" => ("get_flag", json!({"name": "get_flag"})),
            "prompts/get" => ("p", json!({"name": "p"})),
            "resources/read" => ("a:", json!({"uri": "a:"})),
            "completion/complete" => ("", json!({"ref": {"type": "ref/prompt", "name": "p"}})),
            _ => ("", json!({})),
        };
        says(&slot, result.to_string());
        let before = firewall.records("event", "outcome").len();
        let reply = firewall.send(&modern(method, name, &params, &capabilities));
        if passes {
            assert_eq!(reply.json()["result"], result, "{row}: {}", reply.text());
        } else {
            assert_eq!(reply.code(), -31006, "{row}: {}", reply.text());
            let outcome = firewall.record("event", "outcome", before + 1);
            assert_eq!(outcome["outcome"], "withheld", "{row}");
            assert!(outcome["note"].is_string(), "{row}: {outcome}");
        }
    }
    let refused = firewall.records("direction", "to_client");
    let codes: Vec<_> = refused
        .iter()
        .filter(|record| record["event"] == "denial")
        .filter_map(|record| record["decision"]["reasons"][0]["code"].as_str())
        .collect();
    assert!(codes.contains(&"secrets") && codes.contains(&"plain-url"), "{codes:?}");
    assert!(refused.iter().any(|record| record["event"] == "notice"
        && record["method"] == "sampling/createMessage"
        && record["decision"]["effect"] == "permit"));
}

#[test]
fn observing_withholds_no_answer_for_what_it_holds() {
    let (firewall, slot) = firewall("", "mode: observe\n");
    let result =
        json!({"resultType": "input_required", "inputRequests": {"a": {"method": "roots/list"}}});
    says(&slot, result.to_string());
    let reply = firewall.send(&call_tool(&json!({})));
    assert_eq!(reply.json()["result"], result);
    let denial = firewall.record("event", "denial", 1);
    assert_eq!(denial["decision"]["enforced"], false);
    firewall.send(&about_task("tasks/get", "t-1"));
    assert_eq!(firewall.received().len(), 2);
}

#[test]
fn a_continuation_is_a_request_like_any_other() {
    // G14 call-mrtr-delete, pol-publish-requeststate: a state and responses approve nothing.
    let rules = "deny contains {\"code\": \"delete\", \"message\": \"no\"} if input.tool.name == \"delete_flag\"\n";
    let (firewall, slot) = firewall(rules, "");
    let state = |name: &str| {
        let params = json!({"name": name, "arguments": {}, "requestState": "s",
            "inputResponses": {"a": {"action": "accept"}}});
        modern("tools/call", name, &params, &json!({"elicitation": {}}))
    };
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    assert_eq!(firewall.send(&state("delete_flag")).code(), -31001);
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(firewall.send(&state("get_flag")).status, 200);
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn rules_see_every_parameter_that_a_server_acts_on() {
    // G18: a task, metadata, answers and a state change what a call does.
    let rules = r#"deny contains {"code": "task", "message": "no"} if input.params.task.ttl > 1000

deny contains {"code": "meta", "message": "no"} if input.params._meta["vendor/mode"] == "admin"

deny contains {"code": "state", "message": "no"} if input.params.requestState == "bad"

deny contains {"code": "response", "message": "no"} if {
	some response in input.params.inputResponses
	response.content.account == "root"
}

deny contains {"code": "context", "message": "no"} if input.params.context.arguments.owner == "root"

# bartizan:allow absent-operand
deny contains {"code": "unknown", "message": "no"} if input.params.dryRun == false
"#;
    let (firewall, slot) = firewall(rules, "");
    says(&slot, r#"{"content":[]}"#);
    let call = || json!({"name": "get_flag", "arguments": {"key": "x"}});
    let read_uri = || json!({"uri": "file:///a"});
    let with = |mut params: Value, name: &str, value: Value| {
        params[name] = value;
        params
    };
    let response = json!({"a": {"action": "accept", "content": {"account": "root"}}});
    let reference = json!({"ref": {"type": "ref/prompt", "name": "p"},
        "argument": {"name": "a", "value": "v"}});
    let context = json!({"arguments": {"owner": "root"}});
    for (code, method, params) in [
        ("task", "tools/call", with(call(), "task", json!({"ttl": 60000}))),
        ("meta", "tools/call", with(call(), "_meta", json!({"vendor/mode": "admin"}))),
        ("meta", "resources/read", with(read_uri(), "_meta", json!({"vendor/mode": "admin"}))),
        ("state", "tools/call", with(call(), "requestState", "bad".into())),
        ("state", "prompts/get", with(json!({"name": "p"}), "requestState", "bad".into())),
        ("response", "tools/call", with(call(), "inputResponses", response.clone())),
        ("response", "resources/read", with(read_uri(), "inputResponses", response)),
        ("context", "completion/complete", with(reference, "context", context)),
        ("unknown", "tools/call", with(call(), "dryRun", false.into())),
    ] {
        let before = firewall.records("event", "denial").len();
        let reply = firewall.ask(legacy(method, &params));
        assert_eq!(reply.code(), -31001, "{code} {method}: {}", reply.text());
        let denial = firewall.record("event", "denial", before + 1);
        assert_eq!(denial["decision"]["reasons"][0]["code"], code, "{method}");
    }
    for (name, value) in
        [("task", json!([])), ("inputResponses", json!("x")), ("requestState", json!({}))]
    {
        let reply = firewall.ask(legacy("tools/call", &with(call(), name, value)));
        assert_eq!((reply.status, reply.code()), (400, -32602), "{name}");
    }
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(
        firewall.ask(legacy("tools/call", &with(call(), "task", json!({"ttl": 5})))).code(),
        0
    );
}

/// A policy about what clients answer, beside a permit for everything.
const ANSWERS: &str = r#"deny contains {"code": "root", "message": "no"} if {
	some root in input.answer.roots
	startswith(root.uri, "file:///home/me/private")
}

deny contains {"code": "account", "message": "no"} if input.answer.content.account == "root"

deny contains {"code": "model", "message": "no"} if {
	input.method == "sampling/createMessage"
	input.answer.result.model == "other"
}

deny contains {"code": "error", "message": "no"} if input.answer.error_code == -7

redact contains {"code": "s", "what": "secrets"} if input.phase == "answer"

redact contains {"code": "p", "pointer": "/result/content/pin"} if input.phase == "answer"
"#;

/// A token of a known form, in parts, so that no scanner takes this file for a leak.
fn token() -> String {
    ["gh", "p_x7Kq2Lm9Zt4Vb8Nc1", "Rf6Hj3Wd5Ys0Pg2Aa1B"].concat()
}

/// Answers of a client, and what the server gets: `(code of the refusal, method, answer, passes)`.
fn answers() -> Vec<(&'static str, &'static str, Value, Value)> {
    let accept = |content: Value| json!({"result": {"action": "accept", "content": content}});
    let roots = |uri: &str| json!({"result": {"roots": [{"uri": "file:///ok"}, {"uri": uri}]}});
    let model = |model: &str| json!({"result": {"role": "assistant", "model": model, "content": {"type": "text", "text": "t"}}});
    let error = |code: i64| json!({"error": {"code": code, "message": "m"}});
    let (ask, list, sample) = ("elicitation/create", "roots/list", "sampling/createMessage");
    let same = Value::Null;
    vec![
        ("", ask, accept(json!({"account": "me"})), same.clone()),
        ("", ask, json!({"result": {"action": "decline"}}), same.clone()),
        ("account", ask, accept(json!({"account": "root"})), same.clone()),
        (
            "",
            ask,
            accept(json!({"key": format!("it is {}", token()), "pin": "1234"})),
            accept(json!({"key": "it is [redacted]", "pin": "[redacted]"})),
        ),
        ("denied", ask, accept(json!({token(): "x"})), same.clone()),
        ("", list, roots("file:///home/me/work"), same.clone()),
        ("root", list, roots("file:///home/me/private/x"), same.clone()),
        ("", sample, model("mine"), same.clone()),
        ("model", sample, model("other"), same.clone()),
        ("", sample, error(-1), same.clone()),
        ("error", sample, error(-7), same),
    ]
}

#[test]
fn what_a_client_answers_is_judged() {
    // G19: an answer is a question to policy, and a refused one is an error to the server.
    let [mut pipe] = Conversation::with_rules(ANSWERS, ["a"]);
    for (number, (code, method, mut answer, changed)) in (100_u32..).zip(answers()) {
        let params = json!({"message": "m", "messages": [], "maxTokens": 1,
            "requestedSchema": {"type": "object", "properties": {}}});
        assert!(pipe.server(&request(number, method, params)).is_ok(), "{number} {method}");
        answer["jsonrpc"] = "2.0".into();
        answer["id"] = number.into();
        let sent = pipe.client(&answer).unwrap();
        let outcome = pipe.last();
        assert_eq!(outcome.event, Event::Outcome);
        if code.is_empty() {
            for (name, value) in changed.as_object().into_iter().flatten() {
                answer[name] = value.clone();
            }
            assert_eq!(sent, answer);
            assert_ne!(outcome.outcome, Some(Outcome::Withheld));
            let redacted = outcome.redacted.map(|it| it.count);
            assert_eq!(redacted, changed.is_object().then_some(2), "{answer}");
        } else {
            assert_eq!(sent["id"], number, "{sent}");
            assert_eq!(sent["error"]["code"], -31001, "{sent}");
            assert_eq!(outcome.outcome, Some(Outcome::Withheld));
            let reasons = outcome.decision.unwrap().reasons;
            assert_eq!(&*reasons[0].code, code, "{answer}");
        }
        // Once answered, it is answered.
        assert!(pipe.client(&answer).is_err());
    }
}

#[test]
fn what_a_continuation_answers_is_judged_too() {
    let (firewall, slot) = firewall(ANSWERS, "");
    says(&slot, r#"{"resultType":"complete","content":[]}"#);
    for (code, method, answer, changed) in answers() {
        let Some(answer) = answer.get("result") else { continue };
        let params = json!({"name": "get_flag", "arguments": {"key": "x"}, "requestState": "s",
            "inputResponses": {"first": {"action": "decline"}, "a/b": answer}});
        let before = firewall.received().len();
        let reply = firewall.send(&modern("tools/call", "get_flag", &params, &json!({})));
        if code.is_empty() {
            let received = firewall.received();
            let body: Value = read(&received[before].body);
            let expected = changed.get("result").unwrap_or(answer);
            assert_eq!(body["params"]["inputResponses"]["a/b"], *expected, "{method}");
            assert_eq!(body["params"]["arguments"], params["arguments"]);
        } else {
            assert_eq!(reply.code(), -31001, "{code}: {}", reply.text());
            assert_eq!(firewall.received().len(), before);
        }
    }
    let many: serde_json::Map<String, Value> =
        (0..65).map(|number| (number.to_string(), json!({"action": "decline"}))).collect();
    let params = json!({"name": "get_flag", "arguments": {"key": "x"}, "inputResponses": many});
    let reply = firewall.send(&modern("tools/call", "get_flag", &params, &json!({})));
    assert_eq!(reply.code(), -31001);
}

#[test]
fn the_baseline_lets_clients_answer_and_keeps_secrets_out_of_forms() {
    let baseline = Firewall::start();
    let response = |answer: Value| {
        let params =
            json!({"name": "get_flag", "arguments": {"key": "x"}, "inputResponses": {"a": answer}});
        modern("tools/call", "get_flag", &params, &json!({}))
    };
    for answer in [
        json!({"action": "accept", "content": {"account": "me"}}),
        json!({"roots": [{"uri": "file:///home/me/my%20work"}]}),
        json!({"role": "assistant", "model": "m", "content": {"type": "image", "data": "aa"}}),
    ] {
        assert_eq!(baseline.send(&response(answer.clone())).status, 200, "{answer}");
        let body: Value = read(&baseline.received().last().unwrap().body);
        assert_eq!(body["params"]["inputResponses"]["a"], answer);
    }
    let secret = json!({"action": "accept", "content": {"key": token()}});
    assert_eq!(baseline.send(&response(secret)).status, 200);
    let body: Value = read(&baseline.received().last().unwrap().body);
    assert_eq!(body["params"]["inputResponses"]["a"]["content"]["key"], "[redacted]");
    for root in ["file:///home/me/../other", "file:///home/%2e%2e/other"] {
        let reply = baseline.send(&response(json!({"roots": [{"uri": root}]})));
        assert_eq!(reply.code(), -31001, "{root}");
    }
    assert_eq!(baseline.send(&response(json!({"roots": [{}]}))).code(), -31001);
    assert_eq!(baseline.send(&response(json!({"roots": {"uri": "file:///a/.."}}))).code(), -31001);
}

#[test]
fn an_envelope_has_no_member_that_nobody_looks_at() {
    // G20: what stands beside `result` is searched like the result.
    let rules = "redact contains {\"code\": \"s\", \"what\": \"secrets\"} if true\n\n\
        redact contains {\"code\": \"p\", \"pointer\": \"/result/pin\"} if true\n";
    let (firewall, slot) = firewall(rules, "");
    let call = || legacy("tools/call", &json!({"name": "get_flag"}));
    for (extra, passes) in [
        (json!({"extra": token()}), true),
        (json!({"_meta": {"deep": [token()]}}), true),
        (json!({"x": "the pin is 12345678"}), true),
        (json!({token(): 1}), false),
        (json!({"inputRequests": {"a": {"method": "roots/list"}}}), false),
    ] {
        let mut answer = json!({"jsonrpc": "2.0", "id": "ID", "result": {"pin": "12345678"}});
        let mut note = json!({"jsonrpc": "2.0", "method": "notifications/x"});
        for (name, value) in extra.as_object().unwrap() {
            answer[name] = value.clone();
            // A copy is one of its own message.
            note[name] = if name == "x" { Value::Null } else { value.clone() };
        }
        let stream = format!("data: {note}\n\ndata: {answer}\n\n").replace("\"ID\"", "ID");
        says(&slot, stream);
        let reply = firewall.ask(call());
        let told = messages(&reply);
        assert!(!reply.text().contains(&token()) && !reply.text().contains("12345678"), "{extra}");
        assert_eq!(told.last().unwrap()["result"].is_object(), passes, "{}", reply.text());
        assert_eq!(told.len(), if passes { 2 } else { 1 }, "{}", reply.text());
    }
}

#[test]
fn a_task_result_is_judged_like_the_answer_itself() {
    // The answer of `tasks/get` carries questions and a result: they are held to the same.
    let (firewall, slot) = firewall(ELICITATION, "");
    says(&slot, r#"{"resultType":"task","taskId":"t-1","status":"working"}"#);
    firewall.send(&call_tool(&tasks()));
    let asks = |method: &str| {
        json!({"taskId": "t-1", "status": "input_required",
            "inputRequests": {"a": {"method": method, "params": {"message": "m"}}}})
    };
    for (result, passes) in [
        (json!({"taskId": "t-1", "status": "completed", "result": {"content": []}}), true),
        (
            json!({"taskId": "t-1", "status": "completed",
            "result": {"resultType": "input_required", "inputRequests": {}}}),
            false,
        ),
        (asks("elicitation/create"), true),
        (asks("sampling/createMessage"), false),
    ] {
        says(&slot, result.to_string());
        let mut offers = tasks();
        offers["elicitation"] = json!({});
        let reply = firewall.send(&modern("tasks/get", "t-1", &json!({"taskId": "t-1"}), &offers));
        if passes {
            assert_eq!(reply.json()["result"], result);
        } else {
            assert_eq!(reply.code(), -31006, "{}", reply.text());
        }
    }
}

fn listen(uris: &[&str], more: &Value) -> Vec<u8> {
    let mut filter = more.clone();
    filter["resourceSubscriptions"] = json!(uris);
    modern("subscriptions/listen", "", &json!({"notifications": filter}), &tasks())
}

#[test]
fn subscribing_needs_a_permit_for_each_resource() {
    // G9: a rule about a URI holds however the URI is named.
    let rules = "deny contains {\"code\": \"private\", \"message\": \"no\"} if startswith(input.resource.uri, \"file:///private\")\n\ndeny contains {\"code\": \"many\", \"message\": \"no\"} if count(input.resources.uris) > 3\n";
    let (firewall, slot) = firewall(rules, "");
    says(&slot, "{}");
    for (row, uris) in [
        ("m-resources-listen", &["file:///private/a"][..]),
        ("m-resources-listen-second", &["file:///a", "file:///private/a"]),
        ("m-resources-listen-many", &["a:", "b:", "c:", "d:"]),
    ] {
        let reply = firewall.send(&listen(uris, &json!({})));
        assert_eq!((reply.status, reply.code()), (200, -31001), "{row}");
    }
    for method in ["resources/subscribe", "resources/read"] {
        let reply = firewall.ask(legacy(method, &json!({"uri": "file:///private/a"})));
        assert_eq!(reply.code(), -31001, "{method}");
    }
    let reference = json!({"ref": {"type": "ref/resource", "uri": "file:///private/{x}"}});
    assert_eq!(firewall.ask(legacy("completion/complete", &reference)).code(), -31001);
    let both = json!({"ref": {"type": "ref/prompt", "name": "p", "uri": "file:///a"}});
    assert_eq!(firewall.ask(legacy("completion/complete", &both)).code(), -32602);
    let look_alike = json!({"ResourceSubscriptions": ["file:///private/a"]});
    assert_eq!(firewall.send(&listen(&["file:///a"], &look_alike)).code(), -32600);
    assert_eq!(firewall.received().len(), 0);
    let all: Vec<String> = (0..300).map(|number| format!("a:{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (open, _) = self::firewall("", "");
    assert_eq!(open.send(&listen(&all, &json!({}))).code(), -31001);
    assert_eq!(open.received().len(), 0);
    let denial = open.record("event", "denial", 1);
    assert_eq!(denial["decision"]["reasons"][0]["code"], "too_many_uris");
}

#[test]
fn a_method_of_another_revision_is_refused_and_its_subject_is_known() {
    // G9, D9: what a message acts on does not depend on the revision that it claims.
    let (firewall, slot) = firewall("", "");
    says(&slot, "{}");
    let uri = json!({"uri": "file:///private/a"});
    let listen = json!({"notifications": {"resourceSubscriptions": ["file:///private/a"]}});
    let none = json!({});
    for (method, params) in [
        ("resources/subscribe", &uri),
        ("resources/unsubscribe", &uri),
        ("initialize", &none),
        ("ping", &none),
        ("logging/setLevel", &none),
        ("tasks/list", &none),
        // The other direction's.
        ("sampling/createMessage", &none),
        ("elicitation/create", &none),
        ("roots/list", &none),
    ] {
        let reply = firewall.send(&modern(method, "", params, &json!({})));
        assert_eq!((reply.status, reply.code()), (404, -32601), "{method}");
    }
    for (method, params) in [
        ("subscriptions/listen", &listen),
        ("server/discover", &none),
        ("tasks/update", &json!({"taskId": "t"})),
        ("sampling/createMessage", &none),
        ("elicitation/create", &none),
    ] {
        let reply = firewall.ask(legacy(method, params));
        assert_eq!((reply.status, reply.code()), (200, -32601), "{method}");
    }
    // So it is with revisions that nobody knows yet, and with old ones.
    let mut params = uri.clone();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2099-01-01".into();
    let headers = "MCP-Protocol-Version: 2099-01-01\r\nMcp-Method: resources/subscribe\r\n";
    let reply = firewall.send(&post(legacy("resources/subscribe", &params), headers));
    assert_eq!((reply.status, reply.code()), (404, -32601));
    let old = "MCP-Protocol-Version: 2025-06-18\r\n";
    let reply = firewall.send(&post(legacy("tasks/get", &json!({"taskId": "t"})), old));
    assert_eq!(reply.code(), -32601);
    for notice in ["notifications/message", "notifications/resources/updated"] {
        let notice = json!({"jsonrpc": "2.0", "method": notice, "params": uri});
        assert_eq!(firewall.ask(notice.to_string()).status, 403, "{notice}");
    }
    assert_eq!(firewall.received().len(), 0);
    let denials = firewall.records("event", "denial");
    assert_eq!(denials[0]["target"]["uri"], "file:///private/a");
    assert!(denials.iter().all(|it| it["decision"]["reasons"][0]["code"] == "unknown-method"));
    // What MCP does not define in any revision is the policy's to decide.
    assert_eq!(firewall.ask(legacy("vendor/reindex", &none)).code(), 0);
    assert_eq!(firewall.send(&modern("vendor/reindex", "", &none, &none)).code(), 0);
    assert_eq!(firewall.received().len(), 2);
}

#[test]
fn a_claim_of_the_revision_has_one_reading() {
    // E2: what is absent to one reader and a claim to another is refused, on every transport.
    let (firewall, slot) = firewall("", "");
    says(&slot, r#"{"content":[]}"#);
    let call = |meta: &Value| {
        let params = json!({"name": "get_flag", "arguments": {"key": "x"}, "_meta": meta});
        legacy("tools/call", &params)
    };
    let version = |version: Value| json!({"io.modelcontextprotocol/protocolVersion": version});
    let mut bad = vec![json!([]), json!("x"), json!(5), json!(true)];
    bad.extend([json!(5), json!(null), json!(true), json!({}), json!([])].map(version));
    let texts = ["", " ", " 2026-07-28", "2026-07-28 ", "2026-07-28\0", "2026\u{2010}07-28"];
    bad.extend(texts.map(|text| version(text.into())));
    // Legacy revisions are not named there.
    bad.extend(["2025-11-25", "2024-11-05"].map(|text| version(text.into())));
    bad.push(version("x".repeat(65).into()));
    bad.push(json!({"io.modelcontextprotocol/ProtocolVersion": "2026-07-28"}));
    bad.push(json!({"io.modelcontextprotocol/protocolVersion\0": "2026-07-28"}));
    for (key, value) in [
        ("io.modelcontextprotocol/clientCapabilities", json!([])),
        ("io.modelcontextprotocol/clientInfo", json!("x")),
        ("progressToken", json!(1.5)),
        ("progressToken", json!({})),
    ] {
        let mut meta = version("2026-07-28".into());
        meta[key] = value;
        bad.push(meta);
    }
    let [mut pipe] = Conversation::with_one_server(["a"]);
    for meta in &bad {
        for headers in [
            "",
            "MCP-Protocol-Version: 2025-11-25\r\n",
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: get_flag\r\n",
        ] {
            let reply = firewall.send(&post(call(meta), headers));
            assert_eq!(reply.status, 400, "{meta} {headers}: {}", reply.text());
            assert!([-32602, -32600].contains(&reply.code()), "{meta}: {}", reply.text());
        }
        let told = pipe.client(&read(call(meta).as_bytes()));
        assert!(told.is_err_and(|told| told["error"].is_object()), "{meta}");
    }
    for header in ["2026-07-28 x", "2026\u{2010}07-28", "\"2026-07-28\""] {
        let headers = format!("MCP-Protocol-Version: {header}\r\n");
        let reply = firewall.send(&post(call(&json!({})), &headers));
        assert_eq!(reply.status, 400, "{header}: {}", reply.text());
    }
    assert_eq!(firewall.received().len(), 0);
    for meta in [json!(null), json!({}), json!({"progressToken": 7, "vendor/x": 5})] {
        assert_eq!(firewall.ask(call(&meta)).code(), 0, "{meta}");
    }
    let answered = firewall.received().len();
    assert_eq!(answered, 3);
}

#[test]
fn a_pipe_reads_each_request_by_its_own_claim() {
    // E2: a request without a claim is legacy to a server that reads each by itself.
    let [mut pipe] = Conversation::with_one_server(["a"]);
    let call = |id: u32, meta: Value| {
        request(id, "tools/call", json!({"name": "get_flag", "arguments": {}, "_meta": meta}))
    };
    let modern = || json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    // A message that is refused says nothing about the conversation.
    let handshake = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "_meta": modern(),
        "clientInfo": {"name": "c", "version": "1"}});
    let refused = pipe.client(&request(1, "initialize", handshake.clone())).unwrap_err();
    assert_eq!(refused["error"]["code"], -32601);
    let sampling = request(1, "sampling/createMessage", json!({"messages": [], "maxTokens": 1}));
    assert!(pipe.server(&sampling).is_ok(), "the conversation is legacy still");
    assert!(pipe.client(&call(2, modern())).is_ok());
    for meta in [json!({}), json!(null)] {
        let refused = pipe.client(&call(3, meta)).unwrap_err();
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    // A client that probed may fall back.
    let mut handshake = handshake;
    handshake["_meta"] = json!({});
    assert!(pipe.client(&request(4, "initialize", handshake)).is_ok());
    assert!(pipe.client(&call(5, json!({}))).is_ok());
}

#[test]
fn a_server_sends_what_the_negotiated_revision_has() {
    let [mut pipe] = Conversation::with_one_server(["a"]);
    let begin = |revision: &str| {
        json!({"protocolVersion": revision, "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"}, "serverInfo": {"name": "s", "version": "1"}})
    };
    assert!(pipe.client(&request(1, "initialize", begin("2025-03-26"))).is_ok());
    assert!(pipe.server(&result(1, begin("2025-03-26"))).is_ok());
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    let refused = pipe.server(&request(9, "elicitation/create", params)).unwrap_err();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(9), &json!(-32601)));
    let ended = notice("notifications/elicitation/complete", json!({"elicitationId": "e"}));
    assert_eq!(pipe.server(&ended).unwrap_err(), Value::Null);
    assert!(pipe.server(&request(10, "roots/list", json!({}))).is_ok());
    assert!(pipe.server(&notice("notifications/vendor", json!({}))).is_ok());
}

#[test]
fn the_end_of_an_elicitation_passes_only_to_whom_was_asked() {
    let [mut asked, mut other] = Conversation::with_one_server(["a", "b"]);
    let begin = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "c", "version": "1"}, "serverInfo": {"name": "s", "version": "1"}});
    for pipe in [&mut asked, &mut other] {
        assert!(pipe.client(&request(1, "initialize", begin.clone())).is_ok());
        assert!(pipe.server(&result(1, begin.clone())).is_ok());
    }
    let ended =
        |id: Value| notice("notifications/elicitation/complete", json!({"elicitationId": id}));
    assert!(asked.server(&ended(json!("e-1"))).is_err(), "nobody was asked yet");
    let question = json!({"mode": "url", "elicitationId": "e-1", "url": "https://up.example/", "message": "m"});
    assert!(asked.server(&request(9, "elicitation/create", question)).is_ok());
    assert!(asked.server(&ended(json!("e-1"))).is_ok());
    for id in [json!("e-2"), json!(1), json!(null), json!(["e-1"]), json!("E-1")] {
        assert!(asked.server(&ended(id.clone())).is_err(), "{id}");
    }
    assert!(asked.server(&notice("notifications/elicitation/complete", json!({}))).is_err());
    assert!(other.server(&ended(json!("e-1"))).is_err(), "another session was asked");
    // An error may ask, too (-32042).
    let call = request(2, "tools/call", json!({"name": "get_flag", "arguments": {}}));
    assert!(asked.client(&call).is_ok());
    let error = json!({"jsonrpc": "2.0", "id": 2, "error": {"code": -32042, "message": "m", "data": {
        "elicitations": [{"mode": "url", "elicitationId": "e-3", "url": "https://up.example/", "message": "m"}]}}});
    assert!(asked.server(&error).is_ok());
    assert!(asked.server(&ended(json!("e-3"))).is_ok());
    assert!(other.server(&ended(json!("e-3"))).is_err());
}

#[test]
fn a_subscription_brings_what_was_asked_for() {
    let (firewall, slot) = firewall("", "");
    says(&slot, r#"{"resultType":"task","taskId":"t-1","status":"working"}"#);
    firewall.send(&call_tool(&tasks()));
    let news = |method: &str, mut params: Value, tag: Value| {
        if !tag.is_null() {
            params["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": tag});
        }
        json!({"jsonrpc": "2.0", "method": method, "params": params})
    };
    let updated =
        |uri: &str, tag: Value| news("notifications/resources/updated", json!({"uri": uri}), tag);
    let task = |id: &str, more: Value| {
        let mut params = json!({"taskId": id, "status": "working"});
        if let Value::Object(more) = more {
            params.as_object_mut().unwrap().extend(more);
        }
        news("notifications/tasks", params, json!(7))
    };
    let stream = [
        (news("notifications/subscriptions/acknowledged", json!({}), json!(7)), true),
        (updated("file:///a", json!(7)), true),
        (updated("file:///a/b", json!("7")), true),
        (updated("file:///a", Value::Null), true),
        (updated("file:///b", json!(7)), false),
        (updated("file:///a", json!(8)), false),
        (news("notifications/tools/list_changed", json!({}), json!(9)), false),
        (task("t-1", json!({})), true),
        (task("t-1", json!({"result": {"content": []}})), true),
        (task("t-1", json!({"inputRequests": {"a": {"method": "roots/list"}}})), false),
        (task("t-2", json!({})), false),
        (
            news("notifications/progress", json!({"progressToken": 1, "progress": 1}), Value::Null),
            false,
        ),
    ];
    let mut text =
        stream.iter().map(|(event, _)| format!("data: {event}\n\n")).collect::<Vec<_>>().concat();
    text.push_str("data: {\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{}}\n\n");
    says(&slot, text);
    let reply = firewall.send(&listen(&["file:///a"], &json!({"taskIds": ["t-1"]})));
    let mut expected: Vec<Value> =
        stream.iter().filter(|(_, passes)| *passes).map(|(event, _)| event.clone()).collect();
    expected.push(json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    assert_eq!(messages(&reply), expected);
}

#[test]
fn resource_updates_pass_only_on_subscription_streams_in_the_modern_era() {
    let (firewall, slot) = firewall("", "");
    let updated =
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:"}}"#;
    let end = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    says(&slot, format!("data: {updated}\n\ndata: {end}\n\n"));
    assert_eq!(messages(&firewall.send(&call_tool(&json!({})))).len(), 1);
    // In the legacy era servers tell of it on any stream.
    let reply = firewall.ask(legacy("tools/call", &json!({"name": "get_flag"})));
    assert_eq!(messages(&reply).len(), 2);
}

#[test]
fn progress_passes_only_for_a_request_in_flight() {
    // F4 sse-progress-foreign.
    let (firewall, slot) = firewall("", "");
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    let tokens = ["\"mine\"", "\"other\"", "1", "null"];
    let mut text = tokens
        .iter()
        .map(|token| format!("data: {}\n\n", progress(token)))
        .collect::<Vec<_>>()
        .concat();
    text.push_str("data: {\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"content\":[]}}\n\n");
    says(&slot, text);
    let params = json!({"name": "get_flag", "_meta": {"progressToken": "mine"}});
    for reply in [
        firewall.ask(legacy("tools/call", &params)),
        firewall.send(&modern("tools/call", "get_flag", &params, &json!({}))),
    ] {
        let got = messages(&reply);
        assert_eq!(got.len(), 2, "{}", reply.text());
        assert_eq!(got[0]["params"]["progressToken"], "mine");
    }
    let drops = firewall.records("method", "notifications/progress");
    let refused = drops.iter().filter(|record| record["event"] == "denial");
    assert_eq!(refused.count(), 6);
}

#[test]
fn a_filtered_list_is_not_kept_for_long() {
    let (firewall, slot) = firewall("hide contains \"delete_flag\"\n", "");
    let page = |ttl: &str, tools: &str| {
        format!(r#"{{"ttlMs":{ttl},"cacheScope":"public","tools":[{tools}]}}"#)
    };
    let some = r#"{"name":"get_flag"},{"name":"delete_flag"}"#;
    for (ttl, tools, expected) in [
        ("3600000", some, "60000"),
        ("36e5", some, "60000"),
        ("500", some, "500"),
        ("60000", some, "60000"),
        ("3600000", r#"{"name":"get_flag"}"#, "3600000"),
    ] {
        says(&slot, page(ttl, tools));
        let reply = firewall.send(&modern("tools/list", "", &json!({}), &json!({})));
        let expected = page(expected, r#"{"name":"get_flag"}"#).replace("public", "private");
        assert!(reply.text().contains(&expected), "{ttl}: {}", reply.text());
    }
}

#[test]
fn resource_uris_reach_rules_as_they_were_sent() {
    // G9 m-resources, G10 m-completion-leak: what a rule closes stays closed.
    let rules = "deny contains {\"code\": \"local\", \"message\": \"no\"} if {\n\tsome prefix in [\"file:\", \"http://169.254.\"]\n\tstartswith(input.resource.uri, prefix)\n}\n\ndeny contains {\"code\": \"completion\", \"message\": \"no\"} if input.method == \"completion/complete\"\n";
    let (firewall, slot) = firewall(rules, "");
    says(&slot, r#"{"contents":[]}"#);
    for uri in
        ["file:///..%2f..%2fetc/passwd", "file:///etc/passwd", "http://169.254.169.254/latest"]
    {
        for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
            let reply = firewall.ask(legacy(method, &json!({"uri": uri})));
            assert_eq!(reply.code(), -31001, "{method} {uri}");
        }
    }
    let complete =
        json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}});
    assert_eq!(firewall.ask(legacy("completion/complete", &complete)).code(), -31001);
    assert_eq!(firewall.received().len(), 0);
    let reply = firewall.ask(legacy("resources/read", &json!({"uri": "note:\u{41}"})));
    assert_eq!(reply.json()["result"]["contents"], json!([]));
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn a_uri_that_a_server_may_take_for_another_is_refused_by_the_baseline() {
    // G9 m-resources-canonical: a rule about a path must mean the path that is opened.
    let firewall = Firewall::start();
    let read = |uri: &str| firewall.ask(legacy("resources/read", &json!({"uri": uri})));
    for uri in [
        "file:///docs/../etc/passwd",
        "file:///docs/./a",
        "file:///docs/..",
        "file:///docs/%2e%2E/etc/passwd",
        "file:///docs/..%2f..%2Fetc/passwd",
        "file:///docs%5c..%5Cetc",
        "file:///docs\\..\\etc",
        "file:///docs/%252e%252e/etc",
        "file:///docs/a%00.txt",
        "file:///docs/a\n",
        "file:///docs/%zz",
        "file:///docs/%",
        // A fragment stays with the client, so it is another spelling.
        "https://example.com/a?next=../b#..%2f",
    ] {
        assert_eq!(read(uri).code(), -31001, "{uri}");
    }
    assert_eq!(firewall.received().len(), 0);
    let denial = firewall.record("event", "denial", 1);
    assert_eq!(denial["decision"]["reasons"][0]["code"], "ambiguous-uri");
    let plain = [
        "file:///docs/a.b/..c/d..",
        "file:///docs/caf%C3%A9%20menu",
        "https://example.com/a?next=../b",
        "note:a",
    ];
    for uri in plain {
        assert_eq!(read(uri).status, 200, "{uri}");
    }
    assert_eq!(firewall.received().len(), plain.len());
}

#[test]
fn nested_tools_and_odd_names_are_unknown_to_the_pack() {
    // G1 meta-*, G2: no name but the exact one has a pack's effect; the baseline refuses the rest.
    let firewall = Firewall::start();
    for (name, arguments) in [
        ("call_tool", json!({"name": "delete_flag"})),
        ("execute", json!({"code": "delete_flag()"})),
        ("batch_call", json!({"calls": [{"name": "delete_flag"}]})),
        ("flags__get_flag", json!({"key": "x"})),
        ("flags.get_flag", json!({"key": "x"})),
    ] {
        let reply =
            firewall.ask(legacy("tools/call", &json!({"name": name, "arguments": arguments})));
        assert_eq!((reply.status, reply.code()), (200, -31001), "{name}");
    }
    assert_eq!(firewall.received().len(), 0);
    let last = firewall.record("event", "denial", 5);
    assert_eq!(last["decision"]["reasons"][0]["code"], "unknown-tool");
}

#[test]
fn what_a_client_says_of_itself_is_no_identity() {
    // G15 seq-rate-clientinfo: a new name is no new bucket.
    let rules = "limit contains {\"code\": \"calls\", \"key\": input.principal.id, \"rate\": \"1/h\", \"burst\": 1} if input.method == \"tools/call\"\n";
    let (firewall, slot) = firewall(rules, "");
    says(&slot, r#"{"content":[]}"#);
    let call = |client: &str| {
        let params = json!({"name": "get_flag", "_meta": {"io.modelcontextprotocol/clientInfo": {"name": client, "version": "1"}}});
        firewall.send(&modern("tools/call", "get_flag", &params, &json!({})))
    };
    assert_eq!(call("one").status, 200);
    assert_eq!(call("two").code(), -31002);
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn references_in_schemas_are_never_followed() {
    // G17 s2c-schema: definitions are read as data; nothing is fetched, nothing recurses.
    let (firewall, slot) = firewall("", "");
    let upstream_alone = json!({"tools": [
        {"name": "a", "inputSchema": {"$ref": "http://169.254.169.254/latest"}},
        {"name": "b", "inputSchema": {"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}},
        {"name": "c", "inputSchema": {"type": "object", "properties": {"k": {"type": "string", "x-mcp-header": "A\r\nX-Evil: 1"}}}},
    ]});
    says(&slot, upstream_alone.to_string());
    let reply = firewall.send(&modern("tools/list", "", &json!({}), &json!({})));
    assert_eq!(reply.json()["result"], upstream_alone);
    assert_eq!(firewall.received().len(), 1);
    // A header name that is none never becomes a header.
    let params = json!({"name": "c", "arguments": {"k": "v"}});
    says(&slot, r#"{"content":[]}"#);
    firewall.send(&modern("tools/call", "c", &params, &json!({})));
    assert!(!firewall.received().last().unwrap().head.contains("evil"));
}

#[test]
fn a_schema_that_acts_on_its_reader_is_flagged_and_hidden() {
    // G17: a validator fetches what a reference names; a client writes what a header is called.
    let slot = Slot::default();
    let says_it = Arc::clone(&slot);
    let baseline = Firewall::with(Setup {
        answer: Box::new(move |received: &Received| {
            let body: Value = read(&received.body);
            let says = says_it.lock().unwrap().clone();
            answer(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{says}}}"#, body["id"]).as_bytes())
        }),
        ..Setup::default()
    });
    let key = |schema: Value| json!({"type": "object", "properties": {"key": schema}});
    let hidden = json!([
        {"name": "list_flags", "inputSchema": key(json!({"$ref": "https://evil.example/s.json"}))},
        {"name": "get_audit_log", "inputSchema": {"type": "object"},
            "outputSchema": {"$schema": "https://evil.example/meta"}},
        {"name": "get_x", "inputSchema": key(json!({"type": "string", "x-mcp-header": "A\r\nX-Evil: 1"}))},
    ]);
    let shown = json!({"name": "get_flag", "inputSchema": key(json!({"$ref": "#/$defs/k"}))});
    let mut tools = hidden.as_array().unwrap().clone();
    tools.push(shown.clone());
    says(&slot, json!({"tools": tools}).to_string());
    assert_eq!(
        baseline.ask(legacy("tools/list", &json!({}))).json()["result"]["tools"],
        json!([shown])
    );
    let notices = baseline.records("finding", "unsafe_tool_schema");
    assert_eq!(notices.len(), 3, "{notices:?}");
    let received = baseline.received().len();
    for tool in hidden.as_array().unwrap() {
        let before = baseline.records("event", "denial").len();
        let call = json!({"name": tool["name"], "arguments": {"key": "x"}});
        assert_eq!(baseline.ask(legacy("tools/call", &call)).code(), -32602, "{tool}");
        let denial = baseline.record("event", "denial", before + 1);
        let reasons = denial["decision"]["reasons"].to_string();
        assert!(reasons.contains("unsafe-schema") && !reasons.contains("hidden-text"), "{denial}");
    }
    assert_eq!(baseline.received().len(), received);
}

#[test]
fn rules_see_definitions_with_their_schemas() {
    let rules = r#"deny contains {"code": "typed", "message": "no"} if {
	input.tool.definition.inputSchema.properties.key.type == "integer"
	startswith(input.tool.definition_digest, "sha256:")
}

hide contains tool.name if {
	some tool in input.tools
	tool.definition.annotations.destructiveHint == true
}

hide contains entry.name if {
	some entry in input.entries
	entry.definition.mimeType == "text/html"
}
"#;
    let (firewall, slot) = firewall(rules, "");
    let tools = json!({"tools": [
        {"name": "a", "inputSchema": {"properties": {"key": {"type": "integer"}}}},
        {"name": "b", "inputSchema": {"properties": {"key": {"type": "string"}}}},
        {"name": "c", "inputSchema": {}, "annotations": {"destructiveHint": true}},
    ]});
    let call = |name: &str| legacy("tools/call", &json!({"name": name}));
    says(&slot, tools.to_string());
    assert_eq!(firewall.ask(call("a")).code(), 0, "not listed yet");
    let shown = firewall.ask(legacy("tools/list", &json!({}))).json();
    assert_eq!(shown["result"]["tools"].as_array().unwrap().len(), 2);
    assert_eq!(firewall.ask(call("a")).code(), -31001);
    assert_eq!(firewall.ask(call("b")).code(), 0);
    let resources = json!({"resources": [{"uri": "a:", "mimeType": "text/html"}, {"uri": "b:"}]});
    says(&slot, resources.to_string());
    let shown = firewall.ask(legacy("resources/list", &json!({}))).json();
    assert_eq!(shown["result"]["resources"], json!([{"uri": "b:"}]));
}

#[test]
fn users_are_sent_only_to_https_addresses() {
    // G12 s2c-elicit-url under the baseline, as a question of its own and inside an answer.
    let slot = Slot::default();
    let says_it = Arc::clone(&slot);
    let firewall = Firewall::with(Setup {
        answer: Box::new(move |received: &Received| {
            let body: Value = read(&received.body);
            let text = says_it.lock().unwrap().replace("ID", &body["id"].to_string());
            if text.starts_with("data:") { events(&text) } else { answer(text.as_bytes()) }
        }),
        ..Setup::default()
    });
    let params =
        json!({"mode": "url", "url": "http://pay.example/", "message": "m", "elicitationId": "e"});
    let end = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    let ask = json!({"jsonrpc": "2.0", "id": 99, "method": "elicitation/create", "params": params});
    says(&slot, format!("data: {ask}\n\ndata: {end}\n\n"));
    let call = json!({"name": "get_flag", "arguments": {"key": "x"}});
    let reply = firewall.ask(legacy("tools/call", &call));
    assert_eq!(messages(&reply).len(), 1, "{}", reply.text());
    // The server is told: its question is refused.
    let refusal: Value = read(&firewall.received()[1].body);
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(99), &json!(-31001)));
    let inside = json!({"resultType": "input_required",
        "inputRequests": {"a": {"method": "elicitation/create", "params": params}}});
    says(&slot, format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{inside}}}"#));
    let reply = firewall.send(&call_tool(&json!({"elicitation": {"url": {}}})));
    assert_eq!(reply.code(), -31006, "{}", reply.text());
    for denial in firewall.records("event", "denial") {
        assert_eq!(denial["decision"]["reasons"][0]["code"], "elicitation-url");
    }
}

/// Messages in which a server asks the client for something where the revision of the call knows
/// no such place: `(row, what the upstream sends)`.
fn misplaced_questions() -> Vec<(&'static str, Value)> {
    let url = |url: &str| json!({"mode": "url", "url": url, "message": "m", "elicitationId": "e"});
    let ask = |method: &str, params: Value| json!({"a": {"method": method, "params": params}});
    let sample = || ask("sampling/createMessage", json!({"messages": [], "maxTokens": 1}));
    let form = json!({"message": "your API key?", "requestedSchema":
        {"type": "object", "properties": {"key": {"type": "string"}}}});
    let result = |result: Value| json!({"result": result});
    let error =
        |code: i64, data: Value| json!({"error": {"code": code, "message": "m", "data": data}});
    let required = |elicitations: Value| error(-32042, json!({"elicitations": elicitations}));
    vec![
        ("sampling", result(json!({"resultType": "input_required", "inputRequests": sample()}))),
        ("form", result(json!({"content": [], "inputRequests": ask("elicitation/create", form)}))),
        ("roots", result(json!({"content": [], "inputRequests": ask("roots/list", json!({}))}))),
        (
            "url",
            result(json!({"inputRequests":
                ask("elicitation/create", url("http://169.254.169.254/"))})),
        ),
        ("array", result(json!({"content": [], "inputRequests": [sample()]}))),
        ("look-alike", result(json!({"content": [], "InputRequests": sample()}))),
        ("in-task", result(json!({"task": {"taskId": "t", "inputRequests": sample()}}))),
        ("in-task-look-alike", result(json!({"Task": {"taskId": "t", "inputRequests": sample()}}))),
        ("in-task-twice", result(json!({"task": {}, "task\u{200b}": {"inputRequests": sample()}}))),
        ("in-task-folded", result(json!({"tas\u{212a}": {"InputRequests": sample()}}))),
        ("in-result-look-alike", result(json!({"RESULT": {"inputRequests": sample()}}))),
        ("in-error-task", error(-32000, json!({"TASK": {"inputRequests": sample()}}))),
        ("in-result", result(json!({"result": {"content": [], "inputRequests": sample()}}))),
        ("in-error", error(-32000, json!({"inputRequests": sample()}))),
        ("url-error-http", required(json!([url("http://pay.example/")]))),
        ("url-error-script", required(json!([url("javascript:alert(1)")]))),
        (
            "url-error-second",
            required(json!([url("https://pay.example/"), url("http://pay.example/")])),
        ),
        ("url-error-no-mode", required(json!([{"url": "http://pay.example/", "message": "m"}]))),
        ("url-error-mode", required(json!([{"mode": "Url", "url": "http://pay.example/"}]))),
        ("url-error-object", required(json!({"a": url("http://pay.example/")}))),
        ("url-error-bare", json!({"error": {"code": -32042, "message": "m"}})),
        (
            "url-error-look-alike",
            error(-32042, json!({"elicitations": [], "Elicitations": [url("http://x.example/")]})),
        ),
        (
            "url-error-other-code",
            error(-32000, json!({"elicitations": [url("http://pay.example/")]})),
        ),
    ]
}

#[test]
fn what_a_legacy_answer_asks_is_judged_too() {
    // G11, G12: a client acts on what it reads, whatever its revision defines.
    let slot = Slot::default();
    let says_it = Arc::clone(&slot);
    let firewall = Firewall::with(Setup {
        answer: Box::new(move |received: &Received| {
            let body: Value = read(&received.body);
            let text = says_it.lock().unwrap().replace("\"ID\"", &body["id"].to_string());
            if text.starts_with('{') { answer(text.as_bytes()) } else { events(&text) }
        }),
        ..Setup::default()
    });
    let call = || legacy("tools/call", &json!({"name": "get_flag", "arguments": {"key": "x"}}));
    let mut seen = 0;
    for (row, mut sent) in misplaced_questions() {
        sent["jsonrpc"] = "2.0".into();
        sent["id"] = "ID".into();
        for text in [sent.to_string(), format!("event: x\nid: 1\ndata: {sent}\n\n")] {
            says(&slot, text.clone());
            let reply = firewall.ask(call());
            let whole = text.starts_with('{');
            let told = if whole { vec![reply.json()] } else { messages(&reply) };
            // The server named its event, not the one that takes its place.
            assert!(!reply.text().contains("event:"), "{row}: {}", reply.text());
            assert_eq!(told.len(), 1, "{row}: {}", reply.text());
            assert_eq!(told[0]["error"]["code"], -31006, "{row}: {}", reply.text());
            seen += 1;
            let outcome = firewall.record("event", "outcome", seen);
            assert_eq!(outcome["outcome"], "withheld", "{row}");
            assert!(outcome["note"].is_string(), "{row}: {outcome}");
        }
    }
    let refused = firewall.records("event", "denial");
    assert!(refused.iter().any(|it| it["decision"]["reasons"][0]["code"] == "elicitation-url"));
    // What 2025-11-25 defines passes if it may, byte for byte.
    let required = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32042, "message": "m",
        "data": {"elicitations": [{"mode": "url", "url": "https://pay.example/", "message": "m",
            "elicitationId": "e"}]}}});
    says(&slot, required.to_string());
    assert_eq!(firewall.ask(call()).json(), required);
    // So it is in notifications and requests of the server.
    let asks =
        json!({"level": "info", "data": "x", "inputRequests": {"a": {"method": "roots/list"}}});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": asks});
    let end = r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[]}}"#;
    says(&slot, format!("data: {note}\n\ndata: {end}\n\n"));
    assert_eq!(messages(&firewall.ask(call())).len(), 1);
    let task = json!({"Task": {"inputRequests": {"a": {"method": "roots/list"}}}});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": task});
    says(&slot, format!("data: {note}\n\ndata: {end}\n\n"));
    assert_eq!(messages(&firewall.ask(call())).len(), 1);
}

/// One conversation over standard input and output, without its edges.
pub(super) struct Conversation {
    gate: Arc<Gate>,
    session: Session,
    sink: Sink,
}

impl Conversation {
    /// Conversations of these principals with one server, under a permit for everything.
    fn with_one_server<const N: usize>(principals: [&str; N]) -> [Self; N] {
        Self::with_rules("", principals)
    }

    /// As [`Conversation::with_one_server`], with `rules` beside the permit.
    pub(super) fn with_rules<const N: usize>(rules: &str, principals: [&str; N]) -> [Self; N] {
        let mut modules = embedded::decision();
        modules.push(Module { path: "open.rego".into(), text: format!("{PERMIT}\n{rules}") });
        let sources = PolicySources { modules, data: None, revision: "open".into() };
        let policy =
            Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 8,
            buckets_max: 8,
            boot: "b".into(),
            digest_key: [7; 32],
        };
        let gate = Arc::new(Gate::new(config, Arc::new(RegoPdp::strict(policy, 1))));
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        principals.map(|id| {
            let who = Arc::new(Principal { id: id.into(), ..Principal::default() });
            let session = Session::new(who, Arc::clone(&server), Transport::Stdio);
            Self { gate: Arc::clone(&gate), session, sink: Sink::default() }
        })
    }

    /// The last record.
    pub(super) fn last(&self) -> AuditRecord {
        self.sink.kept().last().unwrap().clone()
    }

    const NOW: Now = Now { uptime: Duration::from_secs(1), wall: UNIX_EPOCH };

    /// What the server gets of a message of the client, or the client of its refusal.
    pub(super) fn client(&mut self, message: &Value) -> Result<Value, Value> {
        let arrival = Arrival { raw: message.to_string().into(), ..Arrival::default() };
        let step = self.session.client_frame(&self.gate, &arrival, Self::NOW);
        match step.record(&self.sink).unwrap() {
            Act::Forward(permitted) => Ok(read(permitted.body())),
            Act::Deliver(released) => Err(read(released.body())),
            Act::Hold(_) | Act::Drop => Err(Value::Null),
        }
    }

    /// What the client gets of a message of the server, or the server of its refusal.
    pub(super) fn server(&mut self, message: &Value) -> Result<Value, Value> {
        let step = self.session.server_frame(&self.gate, &message.to_string().into(), Self::NOW);
        match step.record(&self.sink).unwrap() {
            Act::Deliver(released) => Ok(read(released.body())),
            Act::Forward(permitted) => Err(read(permitted.body())),
            Act::Hold(_) | Act::Drop => Err(Value::Null),
        }
    }
}

pub(super) fn request(id: u32, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn result(id: u32, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn notice(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

#[test]
fn a_task_of_another_principal_is_unknown() {
    // G13 seq-task-foreign.
    let [mut one, mut other] = Conversation::with_one_server(["one", "other"]);
    one.client(&request(1, "tools/call", json!({"name": "x", "task": {}}))).unwrap();
    one.server(&result(1, json!({"task": {"taskId": "t"}}))).unwrap();
    for (id, method) in [(2, "tasks/get"), (3, "tasks/result"), (4, "tasks/cancel")] {
        let refusal = other.client(&request(1, method, json!({"taskId": "t"}))).unwrap_err();
        assert_eq!(refusal["error"]["code"], -32602, "{method}");
        one.client(&request(id, method, json!({"taskId": "t"}))).unwrap();
        one.server(&result(id, json!({}))).unwrap();
    }
    let status = notice("notifications/tasks/status", json!({"taskId": "t", "status": "working"}));
    one.server(&status).unwrap();
    other.server(&status).unwrap_err();
    other.client(&request(1, "tasks/list", json!({}))).unwrap();
    let page = other.server(&result(1, json!({"tasks": [{"taskId": "t"}]}))).unwrap();
    assert_eq!(page["result"]["tasks"], json!([]));
    // A server that gives one id to two principals gives neither the other's task.
    other.client(&request(2, "tools/call", json!({"name": "x", "task": {}}))).unwrap();
    let answer = other.server(&result(2, json!({"task": {"taskId": "t"}}))).unwrap();
    assert_eq!(answer["error"]["code"], -31006);
}

#[test]
fn a_server_may_name_only_tasks_that_the_client_runs_for_it() {
    let [mut one] = Conversation::with_one_server(["one"]);
    let get = |id| request(id, "tasks/get", json!({"taskId": "c"}));
    let refusal = one.server(&get(1)).unwrap_err();
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(1), &json!(-32602)));
    let status = notice("notifications/tasks/status", json!({"taskId": "c", "status": "working"}));
    one.client(&status).unwrap_err();
    let ask = json!({"messages": [], "maxTokens": 1, "task": {}});
    one.server(&request(2, "sampling/createMessage", ask)).unwrap();
    one.client(&result(2, json!({"task": {"taskId": "c"}}))).unwrap();
    one.server(&get(3)).unwrap();
    one.client(&status).unwrap();
    // The client's own tasks are none of the server's.
    assert_eq!(one.client(&get(4)).unwrap_err()["error"]["code"], -32602);
}

#[test]
fn a_token_lives_as_long_as_its_request_or_its_task() {
    let [mut one] = Conversation::with_one_server(["one"]);
    let progress = notice("notifications/progress", json!({"progressToken": 5, "progress": 1}));
    let call = |id, more: Value| {
        request(id, "tools/call", json!({"name": "x", "_meta": {"progressToken": 5}, "task": more}))
    };
    one.server(&progress).unwrap_err();
    one.client(&call(1, Value::Null)).unwrap();
    one.server(&progress).unwrap();
    one.server(&result(1, json!({"content": []}))).unwrap();
    one.server(&progress).unwrap_err();
    one.client(&call(2, json!({}))).unwrap();
    one.server(&result(2, json!({"task": {"taskId": "t"}}))).unwrap();
    one.server(&progress).unwrap();
}
