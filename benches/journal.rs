//! What keeping one record costs: encoding, SHA-256, one `write(2)`. And how many calls a second pass
//! that wait for the disk, beside what one flush of that disk takes.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a bench that cannot go on should say where"
)]

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_gate::evidence::record::{
    AuditRecord, DecisionFacts, Event, Now, OperationFacts, Outcome, ProtocolFacts, ReasonFacts,
    Target,
};
use bartizan_gate::evidence::step::AuditSink as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

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
        told: None,
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

/// Calls that wait at once.
const CALLERS: u64 = 64;

/// Where files are on a disk; temporary files may be in memory.
const ON_DISK: &str = env!("CARGO_TARGET_TMPDIR");

/// `calls` calls by [`CALLERS`] at once, each with an intent and an outcome that it waits for.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
async fn calls(journal: &Arc<Journal>, calls: u64) -> Duration {
    let callers = tokio_util::task::TaskTracker::new();
    let begun = Instant::now();
    for caller in 0..CALLERS {
        let journal = Arc::clone(journal);
        callers.spawn(async move {
            let name = format!("01JD3R8W4V0Q2N6K7M9P5T1XYZ-{caller:06}");
            let intent = AuditRecord { call: Some(name.as_str().into()), ..intent() };
            let mut outcome = AuditRecord::new(Event::Outcome, now());
            outcome.call = Some(name.as_str().into());
            outcome.outcome = Some(Outcome::Ok);
            for _ in 0..calls.div_ceil(CALLERS) {
                for record in [&intent, &outcome] {
                    if let Some(position) = journal.keep_before_act(record).unwrap() {
                        journal.durable(position).await.unwrap();
                    }
                }
            }
        });
    }
    callers.close();
    callers.wait().await;
    begun.elapsed()
}

fn durable(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(ON_DISK).unwrap();
    let mut file = File::create(directory.path().join("flushed")).unwrap();
    criterion.bench_function("disk/1 KiB and fdatasync", |bencher| {
        bencher.iter(|| {
            file.write_all(&[b'x'; 1024]).unwrap();
            file.sync_data().unwrap();
        });
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("journal/a call of 64 at once");
    group.throughput(Throughput::Elements(1));
    for (name, durability) in [("durable", Durability::Durable), ("written", Durability::Written)] {
        let config = JournalConfig {
            durability: Durabilities::all(durability),
            ..JournalConfig::new(directory.path().join(name))
        };
        let (journal, _) = Journal::open(&config, "bench", now()).unwrap();
        let journal = Arc::new(journal);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                // Each caller makes whole calls, so a few more than asked for may be made.
                let made = count.div_ceil(CALLERS).saturating_mul(CALLERS);
                let took = runtime.block_on(calls(&journal, count));
                took.mul_f64(
                    Duration::from_nanos(count).div_duration_f64(Duration::from_nanos(made)),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, keep, durable);
criterion_main!(benches);
