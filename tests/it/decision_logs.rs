//! Decision logs, as a service for OPA's decision logs receives them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bartizan_audit::decisions::{DecisionLogs, Masker, Progress, start};
use bartizan_audit::journal::Journal;
use bartizan_audit::otlp::Repeats;
use bartizan_gate::evidence::record::{AuditRecord, DecisionFacts, ReasonFacts};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bundles::rig::Sidecar;
use crate::firewall::{LEGACY, Received, RecordingUpstream, answer, call, post, wait};
use crate::journal::{config, denial, intent, now, outcome};

/// The events of one upload.
fn events(received: &Received) -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(received.body.as_slice()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All events that arrived.
fn all(service: &RecordingUpstream) -> Vec<Value> {
    service.received().iter().flat_map(events).collect()
}

/// Takes everything.
fn service() -> RecordingUpstream {
    RecordingUpstream::start(Box::new(|_| answer("200 OK", "", b"{}")))
}

const POLICY: &str = r#"package mcp

permit contains {"code": "all", "message": "everything passes"} if input.tool.name != "drop_flag"
"#;

/// Starts with `mask` as the policy's `system.log` and these lines below `audit`.
fn sidecar(folder: &Path, mask: &str, audit: &str) -> Sidecar {
    let policies = folder.join("policies");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("rules.rego"), POLICY).unwrap();
    if !mask.is_empty() {
        fs::write(policies.join("mask.rego"), format!("package system.log\n\n{mask}\n")).unwrap();
    }
    let top = format!("policy: {{paths: [{}]}}\naudit: {{{audit}}}\n", policies.display());
    Sidecar::with(&folder.join("state"), &top)
}

fn send(sidecar: &Sidecar, tool: &str, arguments: &str) {
    let mut client = sidecar.client();
    client.send(&post(call(1, tool, arguments), LEGACY));
    client.reply();
}

#[test]
fn a_decision_is_logged_as_opa_would() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let credentials = "credentials: {bearer: t0ken}, labels: {region: eu}";
    let logs = format!("decision_logs: {{url: '{}', {credentials}}}", service.url());
    let sidecar = sidecar(folder.path(), "", &logs);
    send(&sidecar, "update_flag", r#"{"key":"checkout"}"#);
    send(&sidecar, "drop_flag", r#"{"key":"checkout"}"#);
    let found = wait("two events", || Some(all(&service)).filter(|all| all.len() >= 2));
    let received = service.received();
    assert!(received[0].head.starts_with("post /mcp/logs http/1.1\r\n"), "{}", received[0].head);
    assert_eq!(received[0].header("content-type"), ["application/json"]);
    assert_eq!(received[0].header("content-encoding"), ["gzip"]);
    assert_eq!(received[0].header("authorization"), ["bearer t0ken"]);

    let records = sidecar.records("event", "intent");
    let event = &found[0];
    assert_eq!(event["decision_id"], records[0]["call"]);
    assert_eq!(event["timestamp"], records[0]["time"]);
    assert_eq!(event["path"], "mcp/decision");
    assert_eq!(event["bundles"]["policy"]["revision"], records[0]["decision"]["policy"]);
    assert_eq!(event["labels"]["id"], records[0]["boot"]);
    assert_eq!(event["labels"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(event["labels"]["region"], "eu");
    assert_eq!(event["result"]["effect"], "permit");
    assert_eq!(event["result"]["reasons"][0]["code"], "all");
    assert_eq!(event["input"]["method"], "tools/call");
    assert_eq!(event["input"]["tool"], json!({"name": "update_flag"}));
    assert_eq!(event["input"]["principal"]["id"], "agent");
    assert_eq!(event["input"]["operation"]["effect"], "unknown");
    // What a record does not hold is named, not guessed.
    let erased: BTreeSet<&str> =
        event["erased"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(erased.contains("/input/tool/arguments"), "{erased:?}");
    assert_eq!(event["custom"]["bartizan"]["event"], "intent");
    assert_eq!(found[1]["result"]["effect"], "deny");
    assert_eq!(found[1]["custom"]["bartizan"]["finding"], "tool_denied");
}

#[test]
fn the_policy_says_what_is_masked() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let mask = r#"mask contains "/input/tool/arguments/pin"

mask contains {"op": "upsert", "path": "/input/principal/id", "value": "somebody"} if {
	input.input.tool.name == "update_flag"
}"#;
    let audit = format!("inputs: values, decision_logs: {{url: '{}'}}", service.url());
    let sidecar = sidecar(folder.path(), mask, &audit);
    send(&sidecar, "update_flag", r#"{"key":"checkout","pin":"0000","password":"hunter2"}"#);
    send(&sidecar, "other", r#"{"key":"a"}"#);
    let found = wait("two events", || Some(all(&service)).filter(|all| all.len() >= 2));
    let input = &found[0]["input"];
    assert_eq!(input["tool"]["arguments"], json!({"key": "checkout", "password": null}));
    assert_eq!(input["principal"]["id"], "somebody");
    assert_eq!(found[0]["masked"], json!(["/input/principal/id"]));
    let erased = found[0]["erased"].to_string();
    for pointer in ["/input/tool/arguments/pin", "/input/tool/arguments/password"] {
        assert!(erased.contains(pointer), "{erased}");
    }
    assert_eq!(found[1]["input"]["principal"]["id"], "agent");
    assert!(found[1].get("masked").is_none());
    for received in service.received() {
        let text: Vec<String> = events(&received).iter().map(Value::to_string).collect();
        assert!(!text.concat().contains("0000") && !text.concat().contains("hunter2"));
    }
}

/// If the policy's mask fails, the event is sent without what the mask could have removed.
#[test]
fn a_mask_in_error_takes_input_and_result_with_it() {
    for (mask, expected) in [
        (r#"mask contains "/labels/id""#, "outside of"),
        ("mask contains x if x := startswith(input.input.tool.name, 1)", "startswith"),
        ("mask := 7", "not a set"),
    ] {
        let service = service();
        let folder = tempfile::tempdir().unwrap();
        let audit = format!("inputs: values, decision_logs: {{url: '{}'}}", service.url());
        let sidecar = sidecar(folder.path(), mask, &audit);
        send(&sidecar, "update_flag", r#"{"key":"checkout"}"#);
        let found = wait("an event", || Some(all(&service)).filter(|all| !all.is_empty()));
        assert!(found[0].get("input").is_none() && found[0].get("result").is_none(), "{mask}");
        assert_eq!(found[0]["erased"].as_array().unwrap().last().unwrap(), "/result");
        assert!(found[0]["decision_id"].is_string());
        let said = found[0]["error"]["message"].as_str().unwrap();
        assert!(said.contains(expected), "{mask}: {said}");
    }
}

/// While the service is away calls go on; when it is back it gets everything, also after a restart.
#[test]
fn nothing_is_lost_while_the_service_is_away() {
    let away = Arc::new(AtomicBool::new(true));
    let gone = Arc::clone(&away);
    let service = RecordingUpstream::start(Box::new(move |_| {
        let gone = gone.load(Ordering::Relaxed);
        if gone { Vec::new() } else { answer("204 No Content", "", b"") }
    }));
    let folder = tempfile::tempdir().unwrap();
    let audit = format!("decision_logs: {{url: '{}'}}", service.url());
    let first = sidecar(folder.path(), "", &audit);
    let from = folder.path().join("state/decision-logs.seq");
    assert!(from.exists(), "where it begins is known before anything could be sent");
    for _ in 0..20 {
        send(&first, "update_flag", "{}");
    }
    wait("a try", || (!service.received().is_empty()).then_some(()));
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let calls = |sidecar: &Sidecar| -> Vec<String> {
        let records = sidecar.records("event", "intent");
        records.iter().map(|record| record["call"].as_str().unwrap().to_owned()).collect()
    };
    expected.extend(calls(&first));
    first.stop();
    let tries = service.received().len();
    away.store(false, Ordering::Relaxed);
    let second = sidecar(folder.path(), "", &audit);
    send(&second, "update_flag", "{}");
    expected.extend(calls(&second));
    assert_eq!(expected.len(), 21);
    let taken = || -> BTreeSet<String> {
        let received = service.received();
        let taken = received.iter().skip(tries).flat_map(events);
        taken.map(|event| event["decision_id"].as_str().unwrap().to_owned()).collect()
    };
    wait("every decision", || (taken() == expected).then_some(()));
    second.stop();
    // Events that the service has accepted are not sent again.
    let sent = service.received().len();
    let third = sidecar(folder.path(), "", &audit);
    send(&third, "drop_flag", "{}");
    wait("one more", || (service.received().len() > sent).then_some(()));
    let more: Vec<Value> = service.received().iter().skip(sent).flat_map(events).collect();
    assert!(more.iter().all(|event| event["result"]["effect"] == "deny"), "{more:?}");
}

fn decided(record: AuditRecord) -> AuditRecord {
    let decision = DecisionFacts {
        effect: "permit",
        enforced: true,
        reasons: Vec::<ReasonFacts>::new().into(),
        obligations: Vec::<&str>::new().into(),
        policy: "sha256:0".into(),
        engine: "strict",
        told: None,
    };
    AuditRecord { decision: Some(decision), ..record }
}

/// Sends the decisions of a journal with `count` calls; what they came to.
async fn ship(service: &RecordingUpstream, count: u64) -> Arc<Progress> {
    ship_masked(service, count, Box::new(|_| Ok(None))).await
}

async fn ship_masked(service: &RecordingUpstream, count: u64, masker: Masker) -> Arc<Progress> {
    let folder = tempfile::tempdir().unwrap();
    let settings = config(&folder.path().join("journal"), 1 << 20);
    let (journal, _) = Journal::open(&settings, "boot-1", now(0)).unwrap();
    let way = ServiceConfig {
        address: Address::parse(&service.url()).unwrap(),
        ca_pem: None,
        credentials: Credentials::None,
        timeout: Duration::from_secs(10),
    };
    let logs = DecisionLogs {
        service: Service::new(way).unwrap(),
        labels: BTreeMap::new(),
        path: "mcp/decision".to_owned(),
        state: folder.path().to_owned(),
        linger: Duration::from_millis(10),
        repeats: Repeats::default(),
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    for n in 0..count {
        journal.keep(&decided(intent(&format!("c{n}")))).unwrap();
        // Neither is a decision of its own.
        journal.keep(&outcome(&format!("c{n}"))).unwrap();
        journal.keep(&denial(&format!("d{n}"))).unwrap();
    }
    let progress = start(logs, masker, &journal, &tasks, stop.clone());
    journal.close(now(9)).unwrap();
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await.unwrap();
    progress
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_too_large_are_halved() {
    let service = RecordingUpstream::start(Box::new(|received| {
        let status = if events(received).len() > 3 { "413 Payload Too Large" } else { "200 OK" };
        answer(status, "", b"")
    }));
    let progress = ship(&service, 10).await;
    assert_eq!((progress.sent(), progress.lost()), (10, 0));
    let received = service.received();
    let taken = received.iter().map(events).filter(|events| events.len() <= 3);
    let taken: Vec<Value> = taken.flatten().collect();
    let ids: Vec<&str> = taken.iter().map(|event| event["decision_id"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    assert_eq!(ids, expected, "in order, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_is_counted() {
    let service = RecordingUpstream::start(Box::new(|_| answer("400 Bad Request", "", b"")));
    let progress = ship(&service, 3).await;
    assert_eq!((progress.sent(), progress.lost()), (0, 3));
    let sizes: Vec<usize> = service.received().iter().map(|it| events(it).len()).collect();
    assert_eq!(sizes, [3, 1, 2, 1, 1], "halved until each was refused alone, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_mask_costs_one_decision_its_input_and_no_later_one() {
    let service = service();
    let masker = |event: &str| {
        assert!(!event.contains("\"c1\""), "the mask of one decision panics");
        Ok(None)
    };
    let progress = ship_masked(&service, 4, Box::new(masker)).await;
    assert_eq!((progress.sent(), progress.lost()), (4, 0));
    for event in all(&service) {
        let id = event["decision_id"].as_str().unwrap();
        assert_eq!(event["result"].is_null(), id == "c1", "{event}");
    }
}
