//! Invariants of `bartizan_gate::wire::headers` as a session applies it: the headers of a forwarded
//! message agree with its body. The functions here panic if one is broken.

use std::sync::{Arc, LazyLock};

use bartizan_gate::evidence::step::Act;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Arrival, Gate, Protected, RefusalForm, Session};
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::headers::{decode, encode};
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::Sink;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::stubs::{gate_config, now, policy};

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// A tool whose arguments are mirrored: `/region`, `/count`, `/deep/flag`.
const LISTED: &[u8] = br#"{"jsonrpc":"2.0","id":0,"result":{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"count":{"type":"integer","x-mcp-header":"Count"},"deep":{"type":"object","properties":{"flag":{"type":"boolean","x-mcp-header":"Flag"}}}}}}]}}"#;
const MIRRORED: [(&str, &str); 3] =
    [("region", "/region"), ("count", "/count"), ("flag", "/deep/flag")];

struct Stage {
    gate: Gate,
    server: Arc<Protected>,
    principal: Arc<Principal>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let stage = Stage {
        gate: Gate::new(gate_config(), policy(true)),
        server: Arc::new(Protected::new(Server::default(), RefusalForm::Error)),
        principal: Arc::default(),
    };
    let list = br#"{"jsonrpc":"2.0","id":0,"method":"tools/list"}"#;
    let (mut session, sink) = (stage.session(), Sink::default());
    let arrival = Arrival { raw: Bytes::from_static(list), ..Arrival::default() };
    let step = session.client_frame(&stage.gate, &arrival, now(0));
    assert!(matches!(step.record(&sink), Ok(Act::Forward(_))));
    let step = session.server_frame(&stage.gate, &Bytes::from_static(LISTED), now(1));
    assert!(matches!(step.record(&sink), Ok(Act::Deliver(_))));
    assert!(stage.server.status("t", "").definition.is_some_and(|tool| tool.parameters.len() == 3));
    stage
});

impl Stage {
    fn session(&self) -> Session {
        Session::new(Arc::clone(&self.principal), Arc::clone(&self.server), Transport::Http)
    }
}

/// Header lines, an empty line, a body, as HTTP writes them but with LF. What is forwarded agrees
/// with its headers as a second reader sees both.
pub fn headers(bytes: &[u8]) {
    let Some((headers, body)) = split(bytes) else { return };
    for text in [&headers.protocol_version, &headers.method, &headers.name].into_iter().flatten() {
        assert_eq!(decode(&encode(text)).as_deref(), Some(&**text), "coded and decoded");
    }
    let arrival = Arrival {
        raw: Bytes::copy_from_slice(body),
        headers: Some(headers.clone()),
        ..Arrival::default()
    };
    let step = STAGE.session().client_frame(&STAGE.gate, &arrival, now(0));
    let Ok(Act::Forward(permitted)) = step.record(&Sink::default()) else { return };
    assert_eq!(permitted.body(), body, "the bytes are kept");
    let body: Value = serde_json::from_slice(body).expect("forwarded, so JSON");
    agrees(&headers, &body);
    let told = permitted.routing().name.as_deref();
    assert!(told.is_none() || told == mirrored(&body), "the transport is told another name");
}

/// What the edge makes of a head: visible ASCII, each routing header once (P11).
fn split(bytes: &[u8]) -> Option<(RoutingHeaders, &[u8])> {
    let mut headers = RoutingHeaders::default();
    let mut rest = bytes;
    loop {
        let at = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at(at);
        rest = after.get(1..)?;
        if line.is_empty() {
            return Some((headers, rest));
        }
        let line = std::str::from_utf8(line).ok()?;
        if !line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            return None;
        }
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        let place = match &*name {
            "mcp-protocol-version" => &mut headers.protocol_version,
            "mcp-method" => &mut headers.method,
            "mcp-name" => &mut headers.name,
            other => {
                let suffix: Box<str> = other.strip_prefix("mcp-param-")?.into();
                if headers.params.iter().any(|(known, _)| *known == suffix) {
                    return None;
                }
                headers.params.push((suffix, value.into()));
                continue;
            }
        };
        if place.replace(value.into()).is_some() {
            return None;
        }
    }
}

fn agrees(headers: &RoutingHeaders, body: &Value) {
    let method = body.get("method").and_then(Value::as_str);
    let request = method.is_some() && body.get("id").is_some();
    let meta = body.pointer("/params/_meta").and_then(|meta| meta.get(VERSION));
    let meta = meta.and_then(Value::as_str);
    let version = headers.protocol_version.as_deref();
    if meta.is_some() {
        assert_eq!(meta, version, "revision");
        assert_ne!(method, Some("initialize"), "initialize is legacy");
    } else if request {
        // A legacy request: no header, or one of a legacy revision.
        let legacy = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
        assert!(version.is_none_or(|version| legacy.contains(&version)), "revision {version:?}");
    }
    let modern = request && meta.is_some();
    match headers.method.as_deref() {
        Some(header) => assert_eq!(Some(header), method, "Mcp-Method"),
        None => assert!(!modern, "Mcp-Method is missing"),
    }
    match (headers.name.as_deref(), mirrored(body)) {
        (Some(header), Some(name)) => assert!(means(header, name), "Mcp-Name {header} for {name}"),
        (Some(header), None) => panic!("Mcp-Name {header} for nothing"),
        (None, Some(name)) => assert!(!modern, "Mcp-Name is missing for {name}"),
        (None, None) => {}
    }
    let called = body.pointer("/params/name").and_then(Value::as_str);
    if method != Some("tools/call") || called != Some("t") {
        return;
    }
    for (suffix, value) in &headers.params {
        let Some((_, pointer)) = MIRRORED.iter().find(|(known, _)| *known == &**suffix) else {
            continue;
        };
        let argument = body.pointer(&format!("/params/arguments{pointer}"));
        let text = match argument {
            Some(Value::String(text)) => text.clone(),
            Some(other @ (Value::Bool(_) | Value::Number(_))) => {
                if number_of(value).is_some_and(|number| Some(number) == other.as_i64()) {
                    continue;
                }
                // A number is held against its literal, which this reader may not keep.
                if other.is_f64() {
                    continue;
                }
                other.to_string()
            }
            other => panic!("Mcp-Param-{suffix} {value} for {other:?}"),
        };
        assert!(means(value, &text), "Mcp-Param-{suffix} {value} for {text}");
    }
}

/// Whether the header text stands for `text`: plain, or in the one spelling of its base64.
fn means(header: &str, text: &str) -> bool {
    let sentinel = header.len() >= OPEN.len() + CLOSE.len()
        && header.starts_with(OPEN)
        && header.ends_with(CLOSE);
    if sentinel {
        header == format!("{OPEN}{}{CLOSE}", STANDARD.encode(text))
    } else {
        header == text
    }
}

fn number_of(header: &str) -> Option<i64> {
    decode(header)?.parse().ok()
}

/// What `Mcp-Name` mirrors, by the table of the specification (2026-07-28 and its tasks
/// extension).
fn mirrored(body: &Value) -> Option<&str> {
    let member = match body.get("method")?.as_str()? {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    body.get("params")?.get(member)?.as_str()
}
