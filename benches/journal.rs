//! What keeping one record costs: encoding, SHA-256, one `write(2)`.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a bench that cannot go on should say where"
)]

use std::time::{Duration, SystemTime};

use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_gate::evidence::record::{
    AuditRecord, DecisionFacts, Event, Now, OperationFacts, Outcome, ProtocolFacts, ReasonFacts,
    Target,
};
use bartizan_gate::evidence::step::AuditSink as _;
use criterion::{Criterion, criterion_group, criterion_main};

fn now() -> Now {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    Now { uptime: Duration::from_secs(1), wall }
}

/// An intent of a tool call with every field that it can have.
fn intent() -> AuditRecord {
    let mut record = AuditRecord::new(Event::Intent, now());
    record.call = Some("01JD3R8W4V0Q2N6K7M9P5T1XYZ-000001".into());
    record.principal = Some("agent-1".into());
    record.server = Some("flags".into());
    record.direction = Some("to_server");
    record.protocol =
        Some(ProtocolFacts { revision: Some("2025-11-25"), era: "legacy", transport: "http" });
    record.method = Some("tools/call".into());
    record.id = Some("7".into());
    record.target = Some(Target { tool: Some("update_gate".into()), ..Target::default() }.into());
    record.operation = Some(
        OperationFacts {
            effect: "write",
            environments: vec!["staging"].into(),
            name: None,
            environment_source: "arguments",
            tags: vec!["go-live"].into(),
            pack: Some("flags".into()),
        }
        .into(),
    );
    record.decision = Some(DecisionFacts {
        effect: "permit",
        enforced: true,
        reasons: vec![ReasonFacts {
            code: "staging".into(),
            message: "writes to staging are open".into(),
            origin: "policy",
        }]
        .into(),
        obligations: vec!["limit:writes"].into(),
        policy: "sha256:0af7651916cd43dd8448eb211c80319c".into(),
        engine: "compiled",
    });
    record.bytes = Some(1024);
    record.digest = Some(format!("hmac-sha256:{}", "0".repeat(64)).into());
    record.duration_us = Some(40);
    record
}

fn keep(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig::new(directory.path());
    let (journal, _) = Journal::open(&config, "bench", now()).unwrap();
    let intent = intent();
    let mut outcome = AuditRecord::new(Event::Outcome, now());
    outcome.call.clone_from(&intent.call);
    outcome.outcome = Some(Outcome::Ok);
    outcome.duration_us = Some(900);
    criterion.bench_function("journal/keep intent and outcome", |bencher| {
        bencher.iter(|| {
            journal.keep(&intent).unwrap();
            journal.keep(&outcome).unwrap();
        });
    });
    let mut denial = intent.clone();
    denial.event = Event::Denial;
    criterion.bench_function("journal/keep denial", |bencher| {
        bencher.iter(|| journal.keep(&denial).unwrap());
    });
}

criterion_group!(benches, keep);
criterion_main!(benches);
