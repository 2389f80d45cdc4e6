//! No value of an argument leaves the program by a side door: journal, decision logs, spans, error
//! bodies, diagnostics. Each case plants a canary in one place of a message and looks for it
//! everywhere.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::failures::Program;
use super::firewall::{
    Client, LEGACY, RecordingUpstream, answer, journal_text, json as body, odd_answer, post, wait,
};

const CANARY: &str = "CANARYq8Zr3Lk0vT5y";

/// Reads every argument with a built-in that does not take it, and says what it gets to nobody.
const RULES: &str = r#"package mcp

permit contains {"code": "all", "message": "everything"} if input.tool.name != "odd"

# bartizan:allow absent-operand
limit contains {"code": "l", "key": "k", "rate": input.tool.arguments.rate} if input.tool.name == "rate"

# bartizan:allow absent-operand
set contains {"pointer": input.tool.arguments.pointer, "value": 1} if input.tool.name == "set"

# bartizan:allow absent-operand
redact contains {"pointer": input.tool.arguments.pointer} if input.tool.name == "redact"

# bartizan:allow absent-operand
hold contains {"message": "m", "ttl": input.tool.arguments.ttl} if input.tool.name == "hold"

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "starts"
	startswith(input.tool.arguments.a, "x")
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "number"
	to_number(input.tool.arguments.a) > 1
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "json"
	json.unmarshal(input.tool.arguments.a)
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "regex"
	regex.match(input.tool.arguments.a, "x")
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "decode"
	base64.decode(input.tool.arguments.a) == "x"
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "hex"
	hex.decode(input.tool.arguments.a) == "x"
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "units"
	units.parse(input.tool.arguments.a) > 1
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "sprintf"
	sprintf("%d", [input.tool.arguments.a]) == "x"
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "semver"
	semver.compare(input.tool.arguments.a, "1.0.0") > 0
}

deny contains {"code": "no", "message": "no"} if {
	input.tool.name == "union"
	union(input.tool.arguments.a) == set() # bartizan:allow absent-operand
}
"#;

/// Messages with the canary in a value of an argument, or in a part of a URI that can carry
/// credentials.
fn messages() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let odd = [
        json!(CANARY),
        json!({"password": CANARY}),
        json!([CANARY]),
        json!({"a": {"b": [null, {"c": CANARY}]}}),
        json!(format!("[{CANARY}(")),
        json!(format!("x\n--> {CANARY}:7:1\nerror: {CANARY}")),
    ];
    let tools = [
        "starts", "number", "json", "regex", "decode", "semver", "hex", "units", "sprintf",
        "union", "get_flag",
    ];
    for tool in tools {
        for value in &odd {
            bodies.push(json!({"method": "tools/call", "params": {"name": tool, "arguments": {"a": value}}}));
        }
    }
    for (tool, argument) in
        [("rate", "rate"), ("set", "pointer"), ("redact", "pointer"), ("hold", "ttl")]
    {
        for value in [CANARY.to_owned(), format!("/{CANARY}~"), format!("/result/{CANARY}~9")] {
            bodies.push(json!({"method": "tools/call", "params": {"name": tool, "arguments": {argument: value}}}));
        }
    }
    for uri in [
        format!("https://user:{CANARY}@host/a"),
        format!("https://{CANARY}@host/a"),
        format!("https://host/a?token={CANARY}"),
        format!("https://host/a?{CANARY}"),
        format!("https://host/a#{CANARY}"),
        format!("https://host/a;k={CANARY}/b"),
        format!("https://u:{CANARY}/x@host/a"),
        format!("https:\\\\u:{CANARY}@host/a"),
        format!("data:text/plain,{CANARY}"),
        format!("u:{CANARY}@host:path"),
    ] {
        for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
            bodies.push(json!({"method": method, "params": {"uri": uri}}));
        }
        bodies.push(json!({"method": "completion/complete", "params": {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "a", "value": CANARY}}}));
    }
    bodies.push(
        json!({"method": "prompts/get", "params": {"name": "p", "arguments": {"a": CANARY}}}),
    );
    bodies.push(json!({"method": "ping", "params": {"_meta": {"x": CANARY, "traceparent": CANARY, "tracestate": CANARY, "baggage": CANARY}}}));
    bodies.push(json!({"method": "logging/setLevel", "params": {"level": CANARY}}));
    bodies.push(json!({"method": "tools/list", "params": {"cursor": CANARY}}));
    bodies.push(
        json!({"method": "tools/call", "params": {"name": CANARY.len(), "arguments": CANARY}}),
    );
    bodies.push(json!({"method": "tools/call", "params": [CANARY]}));
    bodies.push(json!({"method": "ping", "params": CANARY}));
    let mut all: Vec<Vec<u8>> = (1..)
        .zip(bodies)
        .map(|(id, mut message)| {
            message["jsonrpc"] = "2.0".into();
            message["id"] = id.into();
            post(message.to_string(), LEGACY)
        })
        .collect();
    // No message, and headers.
    all.push(post(format!("{{\"a\":{CANARY}}}"), LEGACY));
    all.push(post(format!("[\"{CANARY}\"]"), LEGACY));
    all.push(post(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{CANARY}\"}}"), LEGACY));
    let ping = r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#;
    for name in [
        "Authorization: Bearer ",
        "Cookie: ",
        "User-Agent: ",
        "Traceparent: ",
        "Mcp-Session-Id: ",
        "Last-Event-ID: ",
        "Mcp-Name: ",
        "Mcp-Method: ",
        "Mcp-Param-A: ",
        "X-Anything: ",
        "Origin: http://",
        "MCP-Protocol-Version: ",
        "Content-Encoding: ",
        "Expect: ",
    ] {
        all.push(post(ping, &format!("{name}{CANARY}\r\n")));
    }
    let line = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    };
    all.push(line(&format!("/mcp?token={CANARY}")));
    all.push(line(&format!("/{CANARY}")));
    all.push(line(&format!("/mcp?access_token={CANARY}")));
    all.push(format!("GET /mcp HTTP/1.1\r\nHost: {CANARY}\r\n\r\n").into_bytes());
    all
}

fn decoded(service: &RecordingUpstream) -> String {
    let mut text = String::new();
    for received in service.received() {
        let mut plain = Vec::new();
        if GzDecoder::new(received.body.as_slice()).read_to_end(&mut plain).is_err() {
            plain.clone_from(&received.body);
        }
        text.push_str(&String::from_utf8_lossy(&plain));
    }
    text
}

fn program(folder: &Path, inputs: &str) -> (Program, RecordingUpstream, RecordingUpstream) {
    let server = RecordingUpstream::start(Box::new(|received| body(&odd_answer(&received.body))));
    let services = RecordingUpstream::start(Box::new(|_| {
        answer("200 OK", "Content-Type: application/x-protobuf\r\n", b"")
    }));
    fs::create_dir(folder.join("policy")).unwrap();
    fs::write(folder.join("policy/test.rego"), RULES).unwrap();
    let mut config = String::new();
    write!(
        config,
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\npolicy: {{paths: [{}]}}\n\
         audit: {{inputs: {inputs}, each_refusal: true, decision_logs: {{url: '{}'}}}}\notlp: {{endpoint: '{}'}}\n\
         servers:\n  flags: {{path: /mcp, url: '{}'}}\n",
        folder.join("state").display(),
        folder.join("policy").display(),
        services.url(),
        services.url(),
        server.url(),
    )
    .unwrap();
    (Program::run(folder, "RUST_BACKTRACE=1", &config), services, server)
}

#[test]
fn no_value_of_an_argument_gets_out() {
    let folder = tempfile::tempdir().unwrap();
    let (program, services, _server) = program(folder.path(), "none");
    let (address, _) = program.addresses();
    let all = messages();
    for message in &all {
        let mut client = Client::connect(address);
        client.send(message);
        let reply = client.reply();
        let refused = reply.status >= 400 || reply.text().contains("\"error\"");
        assert!(!refused || !reply.text().contains(CANARY), "{reply:?}");
    }
    let state = folder.path().join("state");
    let decisions = journal_text(&state).matches("\"engine\":\"strict\"").count();
    assert!(decisions > 40, "{decisions}");
    wait("decisions and spans", || {
        let text = decoded(&services);
        let sent = text.matches("decision_id").count() >= decisions;
        (sent && text.contains("bartizan.boot")).then_some(())
    });
    let said = program.said();
    assert_eq!(program.stop(), Some(0));
    // Where a refused request was sent to is recorded on purpose.
    let without_target = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("http");
        record.to_string()
    };
    let journal = journal_text(&state).lines().map(without_target).collect::<Vec<_>>().join("\n");
    for (name, text) in [("journal", journal), ("services", decoded(&services)), ("log", said)] {
        let at = text.find(CANARY);
        let around = at.map(|at| {
            text.get(
                text.floor_char_boundary(at.saturating_sub(600))..text.ceil_char_boundary(at + 60),
            )
        });
        assert_eq!(around, None, "{name}");
    }
}

#[test]
fn secrets_of_known_forms_are_left_out_of_recorded_inputs() {
    let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
    let (left, right) = token.split_at(20);
    let folder = tempfile::tempdir().unwrap();
    let (program, services, _server) = program(folder.path(), "values");
    let (address, _) = program.addresses();
    let call = |id: Value, arguments: Value| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "get_flag", "arguments": arguments}});
    let uri = format!("https://host/{token}");
    for message in [
        call(json!(1), json!({"key": token})),
        call(json!(2), json!({"text": format!("use {token}, please"), "other": "kept"})),
        call(json!(3), json!({"deep": [{"x": {"y": token}}]})),
        call(json!(4), json!({token.as_str(): "x"})),
        call(json!(7), json!({"list": [left, right]})),
        call(json!(8), json!({"one": left, "two": {"three": right}})),
        call(
            json!(9),
            json!({"json": format!("x: {{\"a\":\"{}\"}}", token.replacen('p', "\\u0070", 1))}),
        ),
        call(json!(10), json!({"json": json!([left, right]).to_string()})),
        call(json!(token), json!({})),
        json!({"jsonrpc": "2.0", "id": 5, "method": "resources/read", "params": {"uri": uri}}),
    ] {
        let mut client = Client::connect(address);
        client.send(&post(message.to_string(), LEGACY));
        client.reply();
    }
    wait("decisions", || (decoded(&services).matches("decision_id").count() >= 6).then_some(()));
    assert_eq!(program.stop(), Some(0));
    let journal = journal_text(&folder.path().join("state"));
    assert!(journal.contains("\"other\":\"kept\"") && journal.contains("/tool/arguments/text"));
    for text in [&journal, &decoded(&services)] {
        assert!(!text.contains(&token) && !text.contains(left) && !text.contains(right));
    }
}

#[test]
fn no_text_of_a_record_holds_a_secret_of_a_known_form() {
    let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
    for inputs in ["none", "values"] {
        let folder = tempfile::tempdir().unwrap();
        let (program, services, _server) = program(folder.path(), inputs);
        let (address, _) = program.addresses();
        let messages = [
            json!({"method": "tools/call", "params": {"name": token, "arguments": {}}}),
            json!({"method": "tools/call", "params": {"name": format!("x {token}"), "arguments": {}}}),
            json!({"method": "prompts/get", "params": {"name": token}}),
            json!({"method": "tasks/get", "params": {"taskId": token}}),
            json!({"method": format!("vendor/{token}"), "params": {}}),
            json!({"method": "completion/complete", "params": {"ref": {"type": "ref/prompt", "name": token}, "argument": {"name": token, "value": token}}}),
            // A pointer that a rule computes, which cannot be set, and one that can.
            json!({"method": "tools/call", "params": {"name": "set", "arguments": {"pointer": format!("/{token}/x")}}}),
            json!({"method": "tools/call", "params": {"name": "set", "arguments": {"pointer": format!("/{token}")}}}),
            json!({"method": "tools/call", "params": {"name": "redact", "arguments": {"pointer": format!("/result/{token}")}}}),
            json!({"method": "tools/call", "params": {"name": "get_flag", "arguments": {token.as_str(): {token.as_str(): 1}}}}),
        ];
        for (id, mut message) in (1..).zip(messages) {
            message["jsonrpc"] = "2.0".into();
            message["id"] = id.into();
            let mut client = Client::connect(address);
            client.send(&post(message.to_string(), LEGACY));
            client.reply();
        }
        wait("decisions", || {
            (decoded(&services).matches("decision_id").count() >= 6).then_some(())
        });
        assert_eq!(program.stop(), Some(0));
        let journal = journal_text(&folder.path().join("state"));
        let at = journal.find(&token);
        let around = at.and_then(|at| journal.get(at.saturating_sub(80)..at.saturating_add(9)));
        assert_eq!(around, None, "{inputs}");
        assert!(journal.contains("vendor/***"), "{inputs}");
        assert!(!decoded(&services).contains(&token), "{inputs}");
    }
}
