//! What may stand in a record: no message makes one that does not fit, and a step that fails
//! half-way leaves the truth behind.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bartizan_audit::inert;
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_audit::journal_directory;
use bartizan_audit::segment::list;
use bartizan_audit::verify::{Extent, verify};
use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, DecisionFacts, ENVIRONMENTS_MAX, Event, FLAGS_MAX, Finding,
    HIDDEN_MAX, KeptInput, LEFT_OUT_MAX, LinkFacts, Now, OBLIGATIONS_MAX, OperationFacts, Outcome,
    PLACES_MAX, PlaceFacts, ProtocolFacts, REASONS_MAX, RECORD_BYTES_MAX, ReasonFacts,
    RedactionFacts, ServerAddress, TAGS_MAX, Target, UpstreamFacts,
};
use bartizan_gate::evidence::step::{AuditSink, Unkept};
use bartizan_gate::evidence::text::Listed;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::headers::RoutingHeaders;
use bartizan_gate::wire::protocol::Transport;
use bartizan_testing::ByName;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::{prop_assert, prop_assert_eq};
use serde_json::{Value, json};

use super::firewall::{Firewall, LEGACY, Received, Setup, call, json as answer, post};

const PERMIT: &str =
    "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"everything\"} if true\n";

/// A record of which every member applies and is made of `text`, and every list is over-full.
fn maximal(text: &str, input: Value) -> AuditRecord {
    let many = |count: usize| vec![text; count + 7];
    let reason = ReasonFacts { code: text.into(), message: text.into(), origin: "header_mismatch" };
    let place = PlaceFacts { pointer: text.into(), rule: "a-rule-with-a-rather-long-name" };
    let now = Now { uptime: Duration::MAX, wall: SystemTime::UNIX_EPOCH };
    AuditRecord {
        call: Some("c".repeat(64).into()),
        principal: Some(text.into()),
        peer: Some(text.into()),
        server: Some(text.into()),
        direction: Some("to_server"),
        protocol: Some(ProtocolFacts {
            revision: Some("2025-11-25"),
            era: "legacy",
            transport: "stdio",
        }),
        method: Some(text.into()),
        id: Some(text.into()),
        target: Some(
            Target {
                tool: Some(text.into()),
                prompt: Some(text.into()),
                uri: Some(text.into()),
                task: Some(text.into()),
                definition: Some(text.into()),
                locked: Some(text.into()),
                drift: Some(text.into()),
                flags: many(FLAGS_MAX).into(),
            }
            .into(),
        ),
        operation: Some(
            OperationFacts {
                name: Some(text.into()),
                effect: "destructive",
                environments: many(ENVIRONMENTS_MAX).into(),
                environment_source: "unreadable",
                tags: many(TAGS_MAX).into(),
                pack: Some(text.into()),
            }
            .into(),
        ),
        decision: Some(DecisionFacts {
            effect: "permit",
            enforced: false,
            reasons: vec![reason; REASONS_MAX + 7].into(),
            obligations: many(OBLIGATIONS_MAX).into(),
            policy: text.into(),
            engine: "compiled",
            told: Some(Box::new(text.into())),
        }),
        outcome: Some(Outcome::UpstreamFailed),
        error_type: Some(text.into()),
        hidden: many(HIDDEN_MAX).into(),
        redacted: Some(Box::new(RedactionFacts {
            count: usize::MAX,
            places: vec![place; PLACES_MAX + 7].into(),
        })),
        bytes: Some(u64::MAX),
        digest: Some(text.into()),
        duration_us: Some(u64::MAX),
        upstream: Some(
            UpstreamFacts {
                start_us: u64::MAX,
                duration_us: u64::MAX,
                at: Some(ServerAddress { address: text.into(), port: u16::MAX }),
            }
            .into(),
        ),
        within: Some("c".repeat(64).into()),
        link: Some(LinkFacts { trace_id: text.into(), span_id: text.into() }.into()),
        trace_id: Some(text.into()),
        parent_span_id: Some(text.into()),
        input: Some(KeptInput::from(input)),
        input_left_out: many(LEFT_OUT_MAX).into(),
        repeated: Some(u64::MAX),
        since: Some(SystemTime::UNIX_EPOCH),
        approval: Some(
            ApprovalFacts {
                hold: text.into(),
                answer: "refuse",
                by: Some(text.into()),
                reason: Some(text.into()),
                scope: Some(text.into()),
            }
            .into(),
        ),
        note: Some(text.into()),
        ..AuditRecord::new(Event::Outcome, now).with_finding(Finding::RateLimited)
    }
}

fn written(record: &AuditRecord) -> usize {
    let mut line = Vec::new();
    inert::write_json(record, &mut line).unwrap();
    line.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_record_is_no_larger_than_the_sum_of_its_limits(
        unit in any::<String>(),
        odd in any::<char>(),
        times in 0_usize..20_000,
        members in 0_usize..40,
    ) {
        let text = format!("{unit}{odd}").repeat(times);
        let inner: Value = (0..members)
            .map(|n| (format!("{odd}{n}"), json!(odd.to_string().repeat(5000))))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let members: serde_json::Map<_, _> =
            (0..members).map(|n| (format!("{n}{odd}"), inner.clone())).collect();
        let record = maximal(&text, members.into());
        let size = written(&record);
        prop_assert!(size <= RECORD_BYTES_MAX, "{} of {}", size, RECORD_BYTES_MAX);
    }

    #[test]
    fn the_journal_writes_any_text_as_declared(text in any::<String>()) {
        let record = maximal(&text, json!({text.clone(): text.clone()}));
        prop_assert_eq!(journalled(std::slice::from_ref(&record)), [declared(&record)]);
    }
}

#[test]
fn characters_that_are_written_longest_fit_too() {
    for worst in ["\u{7f}", "\u{0}", "\u{e0041}", "\"", "\\", "\u{202e}", "é", "x"] {
        let text = worst.repeat(10_000);
        let input = json!({"client": {"name": text}, "params": {worst: text}});
        let size = written(&maximal(&text, input));
        assert!(size <= RECORD_BYTES_MAX, "{worst:?}: {size} of {RECORD_BYTES_MAX}");
    }
}

/// What the journal wrote of `records`, without its own members.
fn journalled(records: &[AuditRecord]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let now = Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
    let (journal, _) = Journal::open(&JournalConfig::new(folder.path()), "boot", now).unwrap();
    for record in records {
        journal.keep(record).unwrap();
    }
    drop(journal);
    let files = list(folder.path()).unwrap();
    let text: String =
        files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect();
    let own = text.lines().filter(|line| !line.contains(r#""event":"rotation""#)).skip(1);
    let record = |line: &str| format!("{{\"schema\"{}", line.split_once(r#","schema""#).unwrap().1);
    own.map(record).collect()
}

/// What serde writes of a record, with every invisible character escaped.
fn declared(record: &AuditRecord) -> String {
    let mut line = Vec::new();
    inert::write_json(record, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

/// Functions that each take one member out of a record.
const WITHOUT: &[fn(&mut AuditRecord)] = &[
    |record| record.call = None,
    |record| record.principal = None,
    |record| record.peer = None,
    |record| record.server = None,
    |record| record.direction = None,
    |record| record.protocol = None,
    |record| record.protocol.iter_mut().for_each(|it| it.revision = None),
    |record| record.method = None,
    |record| record.id = None,
    |record| record.target = None,
    |record| record.target = Some(Target::default().into()),
    |record| {
        record.target = Some(Target { drift: Some("none".into()), ..Target::default() }.into());
    },
    |record| record.operation = None,
    |record| {
        record.operation = Some(
            OperationFacts {
                name: None,
                effect: "read",
                environments: Listed::default(),
                environment_source: "none",
                tags: Listed::default(),
                pack: None,
            }
            .into(),
        );
    },
    |record| record.decision = None,
    |record| {
        record.decision = Some(DecisionFacts {
            effect: "deny",
            enforced: true,
            reasons: Listed::default(),
            obligations: Listed::default(),
            policy: "".into(),
            engine: "none",
            told: None,
        });
    },
    |record| record.outcome = None,
    |record| record.error_type = None,
    |record| record.hidden = Listed::default(),
    |record| record.redacted = None,
    |record| {
        record.redacted = Some(Box::new(RedactionFacts { count: 0, places: Listed::default() }));
    },
    |record| record.bytes = None,
    |record| record.digest = None,
    |record| record.duration_us = None,
    |record| record.upstream = None,
    |record| record.within = None,
    |record| record.link = None,
    |record| record.trace_id = None,
    |record| record.parent_span_id = None,
    |record| {
        record.finding = None;
        record.tags = None;
        record.taxonomy = None;
    },
    |record| record.input = None,
    |record| record.input_left_out = Listed::default(),
    |record| record.repeated = None,
    |record| record.since = None,
    |record| record.note = None,
];

#[test]
fn the_journal_writes_what_the_schema_declares() {
    let micros = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
    let whole = maximal("x\u{e9}\"\\\n\u{202e}", json!({"a": ["\u{7f}", 1.5, null]}));
    let mut records = vec![whole.clone(), maximal("plain", json!("i"))];
    for without in WITHOUT {
        let mut record = whole.clone();
        without(&mut record);
        records.push(record);
        let mut record = whole.clone();
        // All but this one.
        let this: *const fn(&mut AuditRecord) = without;
        WITHOUT.iter().filter(|it| !std::ptr::eq(*it, this)).for_each(|it| it(&mut record));
        records.push(record);
    }
    for outcome in Outcome::ALL {
        records.push(AuditRecord { outcome: Some(outcome), ..whole.clone() });
    }
    for finding in Finding::ALL {
        records.push(whole.clone().with_finding(*finding));
    }
    for event in ["intent", "denial", "outcome", "notice", "drop", "repeated", "policy"] {
        let event = Event::named(event).unwrap();
        let time = micros(1_796_000_000_000_001);
        records.push(AuditRecord { event, time, uptime_us: 0, ..whole.clone() });
    }
    // Seconds that change, and do not.
    for time in [0, 1, 999_999, 1_000_000, 1_000_010, 253_402_300_799_999_999] {
        let (time, since) = (micros(time), Some(micros(time / 2)));
        records.push(AuditRecord { time, since, ..whole.clone() });
    }
    let kept = journalled(&records);
    assert_eq!(kept.len(), records.len());
    for (kept, record) in kept.iter().zip(&records) {
        assert_eq!(*kept, declared(record));
    }
}

/// Checks that the journal is whole, that nothing was refused for its size, and that every intent
/// has its outcome.
fn assert_kept(firewall: &mut Firewall) -> Vec<Value> {
    let records = firewall.journal();
    firewall.stop();
    let summary = verify(&journal_directory(&firewall.state()), Extent::Whole).unwrap();
    assert_eq!((summary.gaps, summary.open.len()), (0, 0), "{summary:?}");
    records
}

/// A name of `bytes` bytes in each place of a message that a record mentions.
fn long_messages(long: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |value: &Value| post(value.to_string(), LEGACY);
    let asks = |method: &str, params: Value| {
        text(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
    };
    let modern = |method: &str, mut params: Value| {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": long, "version": long},
            "traceparent": long, "tracestate": long, "baggage": long,
        });
        let head = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n");
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        post(body.to_string(), &head)
    };
    vec![
        ("tool", asks("tools/call", json!({"name": long, "arguments": {}}))),
        ("argument", asks("tools/call", json!({"name": "get_flag", "arguments": {"key": long}}))),
        ("member", asks("tools/call", json!({"name": "get_flag", "arguments": {long: 1}}))),
        (
            "environment",
            asks(
                "tools/call",
                json!({"name": "set_flag", "arguments": {"key": "x", "environment": long}}),
            ),
        ),
        ("prompt", asks("prompts/get", json!({"name": long, "arguments": {long: long}}))),
        ("uri", asks("resources/read", json!({"uri": format!("https://u:{long}@h/?{long}")}))),
        ("task", asks("tasks/get", json!({"taskId": long}))),
        ("method", asks(long, json!({}))),
        ("id", text(&json!({"jsonrpc": "2.0", "id": long, "method": "ping"}))),
        (
            "client",
            asks(
                "initialize",
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": long, "version": long}}),
            ),
        ),
        (
            "revision",
            asks(
                "initialize",
                json!({"protocolVersion": long, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}),
            ),
        ),
        (
            "cancelled",
            text(
                &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": long, "reason": long}}),
            ),
        ),
        ("modern client", modern("ping", json!({}))),
        ("modern list", modern("tools/list", json!({"cursor": long}))),
    ]
}

#[test]
fn no_message_makes_a_record_that_does_not_fit() {
    // 250 reasons take their time, so a few messages have to do.
    for (rules, messages) in [(PERMIT.to_owned(), usize::MAX), (deny_with_long_reasons(), 2)] {
        for long in ["x".repeat(1_100_000), "\u{7f}".repeat(170_000), "\u{e0041}".repeat(20_000)] {
            let mut firewall = Firewall::with(Setup {
                rego: Some(rules.clone()),
                top: "audit: {inputs: values, each_refusal: true}\n".to_owned(),
                ..Setup::default()
            });
            for (place, message) in long_messages(&long).into_iter().take(messages) {
                let before = firewall.journal().len();
                let reply = firewall.send(&message);
                assert!(!reply.text().contains("-31003") && reply.status < 500, "{place}");
                assert!(firewall.journal().len() > before, "{place}: no record");
            }
            let records = assert_kept(&mut firewall);
            let largest = records.iter().map(|record| record.to_string().len()).max().unwrap();
            assert!(largest < 64 << 10, "{largest}");
        }
    }
}

/// 256 reasons of 4,000 bytes each.
fn deny_with_long_reasons() -> String {
    format!(
        "package mcp\n\ndeny contains {{\"code\": code, \"message\": \"{}\"}} if {{\n\tsome n in \
         numbers.range(1, 250)\n\tcode := sprintf(\"c%d\", [n])\n}}\n",
        "m".repeat(4000)
    )
}

#[test]
fn a_long_list_of_hidden_names_leaves_an_outcome() {
    let entries = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"name": format!("tool_{n:06}"), "inputSchema": {}})).collect()
    };
    let tools = entries(5000);
    let mut firewall = Firewall::with(Setup {
        rego: Some(format!("{PERMIT}\nhide contains tool.name if some tool in input.tools\n")),
        answer: Box::new(move |received: &Received| {
            let asked: Value = serde_json::from_reader(&received.body[..]).unwrap_or_default();
            let list = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": tools}});
            answer(list.to_string().as_bytes())
        }),
        ..Setup::default()
    });
    let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let reply = firewall.ask(list);
    assert_eq!(reply.json()["result"]["tools"], json!([]), "{reply:?}");
    let outcome = firewall.record("event", "outcome", 1);
    let kept = outcome["hidden"].as_array().unwrap().len();
    assert_eq!(kept, HIDDEN_MAX);
    assert_eq!(outcome["hidden_more"], 5000 - HIDDEN_MAX);
    assert_kept(&mut firewall);
}

#[test]
fn a_cut_text_says_how_much_is_missing() {
    let mut firewall = Firewall::with(Setup { rego: Some(PERMIT.to_owned()), ..Setup::default() });
    firewall.ask(call(7, &"t".repeat(3000), "{}"));
    let records = assert_kept(&mut firewall);
    let tool = records.iter().find_map(|record| record["target"]["tool"].as_str()).unwrap();
    let (start, mark) = tool.split_once("…(+").unwrap();
    assert!(mark.starts_with(&format!("{} bytes, sha256:", 3000 - start.len())), "{tool}");
}

/// Keeps records until the given number, then fails: by an error or by a panic.
struct Failing {
    kept: Mutex<Vec<AuditRecord>>,
    left: AtomicUsize,
    panics: bool,
}

impl AuditSink for Failing {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        let ends = record.event == Event::Outcome;
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err() && !ends {
            assert!(!self.panics, "the test says so");
            return Err(Unkept { cause: "full".to_owned() });
        }
        self.kept.lock().unwrap().push(record.clone());
        Ok(())
    }
}

#[test]
fn a_batch_of_which_a_record_fails_leaves_each_call_with_its_outcome() {
    for panics in [false, true] {
        for left in 0..3 {
            let sink = Failing { kept: Mutex::default(), left: left.into(), panics };
            let config = GateConfig {
                mode: Mode::Enforce,
                frame: FrameLimits::default(),
                in_flight_max: 8,
                buckets_max: 8,
                boot: "b".into(),
                digest_key: [7; 32],
            };
            let gate = Gate::new(config, Arc::new(ByName::new(|_, _| Some(Vec::new()))));
            let mut protected = Protected::new(Server::default(), RefusalForm::Error);
            protected.batches = true;
            let principal = Arc::new(Principal::default());
            let mut session = Session::new(principal, Arc::new(protected), Transport::Http);
            let one = |id: usize| call(id, "get_flag", "{}");
            let raw = format!("[{},{},{}]", one(1), one(2), one(3));
            let headers = RoutingHeaders {
                protocol_version: Some("2025-03-26".into()),
                ..RoutingHeaders::default()
            };
            let arrival = Arrival { raw: raw.into(), headers: Some(headers), ..Arrival::default() };
            let now = Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
            let failed = session.client_frame(&gate, &arrival, now).record(&sink).unwrap_err();
            assert_eq!(failed.panicked, panics);
            session.forget(&failed.call.unwrap());
            assert!(session.in_flight().is_empty());
            let kept = sink.kept.lock().unwrap();
            let of = |event: Event| {
                let records = kept.iter().filter(|record| record.event == event);
                records.map(|record| record.call.clone().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!((of(Event::Intent).len(), of(Event::Intent)), (left, of(Event::Outcome)));
            assert!(kept.iter().all(|record| matches!(
                (&record.event, &record.outcome),
                (Event::Intent, None) | (Event::Outcome, Some(Outcome::NotSent))
            )));
        }
    }
}
