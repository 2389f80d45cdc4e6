//! What is counted from records, and how it is written.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unnecessary_wraps,
    reason = "tests; a field of a record takes what they return"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::record::{
    AuditRecord, DecisionFacts, Event, Finding, Now, OperationFacts, Outcome, ReasonFacts, Target,
};
use bartizan_metrics::catalogue::{self, METRICS};
use bartizan_metrics::names::REASONS_MAX;
use bartizan_metrics::text::{self, Format};
use bartizan_metrics::{Lap, Metrics, Names, Readings, SERIES_MAX, Source};

const AT: u64 = 1_000_000;

fn metrics() -> Metrics {
    let servers = [("flags".into(), vec!["get_flag".into(), "kill_flag".into()])];
    let codes = |code: &str| ["reads", "no-kill", "each-minute"].contains(&code);
    Metrics::new(Names::new(servers, Box::new(codes)), "test", &[])
}

fn record(event: Event) -> AuditRecord {
    let now = Now { uptime: Duration::from_micros(AT), wall: SystemTime::UNIX_EPOCH };
    let mut record = AuditRecord::new(event, now);
    record.call = Some("c1".into());
    record.server = Some("flags".into());
    record.direction = Some("to_server");
    record.method = Some("tools/call".into());
    record.id = Some("1".into());
    record
}

fn target(tool: &str) -> Option<Arc<Target>> {
    Some(Arc::new(Target { tool: Some(tool.into()), ..Target::default() }))
}

fn decision(effect: &'static str, code: &str, origin: &'static str) -> Option<DecisionFacts> {
    let reason = ReasonFacts { code: code.into(), message: "why".into(), origin };
    Some(DecisionFacts {
        effect,
        enforced: true,
        reasons: vec![reason].into(),
        obligations: vec!["limit:each-minute"].into(),
        policy: "r1".into(),
        engine: "compiled",
        told: None,
    })
}

/// Kept `us` after the step had begun; deciding took half of it.
fn lap(us: u64) -> Lap {
    Lap { decided: Duration::from_micros(AT + us / 2), kept: Duration::from_micros(AT + us) }
}

fn written(metrics: &Metrics) -> String {
    text::write(&metrics.collect(), Format::Prometheus)
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
}

#[test]
fn a_call_is_counted_with_its_decision_and_its_durations() {
    let metrics = metrics();
    let mut intent = record(Event::Intent);
    intent.target = target("get_flag");
    intent.decision = decision("permit", "reads", "rule");
    intent.operation = Some(Arc::new(OperationFacts {
        name: None,
        effect: "read",
        environments: Vec::<String>::new().into(),
        environment_source: "none",
        tags: Vec::<String>::new().into(),
        pack: None,
    }));
    metrics.recorded().kept(&intent, lap(400));
    let mut outcome = record(Event::Outcome);
    outcome.target = target("get_flag");
    outcome.outcome = Some(Outcome::Ok);
    outcome.duration_us = Some(30_000);
    metrics.recorded().kept(&outcome, lap(80));

    let text = written(&metrics);
    has(
        &text,
        "bartizan_decisions_total{effect=\"permit\",enforced=\"true\",method=\"tools/call\",operation_effect=\"read\",reason=\"reads\",server=\"flags\"} 1",
    );
    has(&text, "bartizan_limit_taken_total{limit=\"each-minute\",server=\"flags\"} 1");
    has(&text, "bartizan_decision_duration_seconds_bucket{effect=\"permit\",le=\"0.0001\"} 0");
    has(&text, "bartizan_decision_duration_seconds_bucket{effect=\"permit\",le=\"0.00025\"} 1");
    has(&text, "bartizan_hop_duration_seconds_bucket{leg=\"request\",le=\"0.0005\"} 1");
    has(&text, "bartizan_hop_duration_seconds_sum{leg=\"answer\"} 0.00008");
    let labels = "gen_ai_tool_name=\"get_flag\",mcp_method_name=\"tools/call\",server=\"flags\"";
    has(&text, &format!("mcp_server_operation_duration_seconds_bucket{{{labels},le=\"0.02\"}} 0"));
    has(&text, &format!("mcp_server_operation_duration_seconds_bucket{{{labels},le=\"0.05\"}} 1"));
    has(&text, &format!("mcp_server_operation_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1"));
    has(&text, &format!("mcp_server_operation_duration_seconds_sum{{{labels}}} 0.03008"));
    has(&text, "bartizan_upstream_up{server=\"flags\"} 1");
    has(&text, "bartizan_journal_records_total{event=\"intent\"} 1");
    has(&text, "bartizan_journal_refused_total 0");
    has(&text, "# TYPE bartizan_decisions_total counter");
    has(&text, "# TYPE mcp_server_operation_duration_seconds histogram");
}

#[test]
fn names_that_strangers_chose_are_no_labels() {
    let metrics = metrics();
    let mut denial = record(Event::Denial);
    denial.target = target("sk-live-0123456789");
    denial.method = Some("secret/method".into());
    denial.server = Some("unconfigured-name".into());
    denial.principal = Some("some-principal".into());
    denial.decision = decision("deny", "computed-of-arguments", "rule");
    metrics.recorded().kept(&denial, lap(10));
    let mut outcome = record(Event::Outcome);
    outcome.target = target("rm_rf");
    outcome.outcome = Some(Outcome::Error);
    outcome.error_type = Some("-12345678".into());
    metrics.recorded().kept(&outcome, lap(10));
    let text = written(&metrics);
    for name in [
        "sk-live",
        "secret/method",
        "unconfigured",
        "some-principal",
        "computed-of",
        "rm_rf",
        "12345678",
    ] {
        assert!(!text.contains(name), "{name}:\n{text}");
    }
    has(
        &text,
        "bartizan_decisions_total{effect=\"deny\",enforced=\"true\",method=\"_OTHER\",reason=\"_OTHER\"} 1",
    );
    has(
        &text,
        "mcp_server_operation_duration_seconds_count{error_type=\"_OTHER\",gen_ai_tool_name=\"_OTHER\",mcp_method_name=\"tools/call\",server=\"flags\"} 1",
    );
}

#[test]
fn a_held_call_is_timed_until_it_goes_on() {
    let metrics = metrics();
    let mut hold = record(Event::Hold);
    hold.decision = decision("permit", "no-kill", "rule");
    metrics.recorded().kept(&hold, lap(10));
    let mut intent = record(Event::Intent);
    intent.uptime_us = AT + 20_000_000;
    intent.decision = decision("permit", "no-kill", "rule");
    let now = Duration::from_micros(intent.uptime_us);
    metrics.recorded().kept(&intent, Lap { decided: now, kept: now });
    // Another call that was not held.
    intent.call = Some("c2".into());
    metrics.recorded().kept(&intent, Lap { decided: now, kept: now });
    let text = written(&metrics);
    has(&text, "bartizan_hold_duration_seconds_sum{end=\"granted\",server=\"flags\"} 20");
    has(&text, "bartizan_hold_duration_seconds_count{end=\"granted\",server=\"flags\"} 1");
    assert!(text.contains("effect=\"hold\""), "{text}");
}

#[test]
fn refusals_count_whether_each_is_recorded_or_not() {
    let metrics = metrics();
    let mut denial = record(Event::Denial);
    denial.decision = decision("deny", "each-minute", "limited");
    let denial = denial.with_finding(Finding::RateLimited);
    metrics.recorded().kept(&denial, lap(10));
    metrics.recorded().counted(&denial);
    // It stands for those that were counted.
    let mut repeated = denial.clone();
    repeated.event = Event::Repeated;
    repeated.repeated = Some(1);
    metrics.recorded().kept(&repeated, lap(10));
    metrics.recorded().unkept();
    let text = written(&metrics);
    has(&text, "bartizan_limit_refused_total{limit=\"each-minute\",server=\"flags\"} 2");
    has(
        &text,
        "bartizan_findings_total{finding=\"rate_limited\",maestro_layer=\"L4\",server=\"flags\"} 2",
    );
    has(&text, "bartizan_journal_refused_total 1");
}

#[test]
fn series_are_bounded() {
    let metrics = Metrics::new(Names::new([], Box::new(|_: &str| true)), "test", &[]);
    for number in 0..2 * SERIES_MAX {
        let mut denial = record(Event::Denial);
        // The code of a program's own check is taken as it is; a bug might make many.
        denial.decision = decision("deny", &format!("code-{number}"), "protocol");
        metrics.recorded().counted(&denial);
    }
    let text = written(&metrics);
    let series = text.lines().filter(|line| line.starts_with("bartizan_decisions_total{")).count();
    assert!(series <= SERIES_MAX + 1, "{series}");
    has(&text, &format!("bartizan_decisions_total{{otel_metric_overflow=\"true\"}} {SERIES_MAX}"));
}

#[test]
fn codes_of_a_policy_are_bounded_and_forgotten_with_it() {
    let metrics = Metrics::new(Names::new([], Box::new(|_: &str| true)), "test", &[]);
    let count = |code: String| {
        let mut denial = record(Event::Denial);
        denial.decision = decision("deny", &code, "rule");
        metrics.recorded().counted(&denial);
    };
    (0..2 * REASONS_MAX).for_each(|number| count(format!("rule-{number}")));
    let text = written(&metrics);
    let series = text.lines().filter(|line| line.starts_with("bartizan_decisions_total{")).count();
    assert!((REASONS_MAX..=REASONS_MAX + 1).contains(&series), "{series}");
    assert!(text.contains("reason=\"_OTHER\""), "{text}");
    metrics.recorded().policy_loaded(SystemTime::UNIX_EPOCH);
    count("next-policy".into());
    assert!(written(&metrics).contains("reason=\"next-policy\""));
}

struct Fixed;

impl Source for Fixed {
    fn read(&self, into: &mut Readings) {
        for row in METRICS {
            let labels: Vec<_> = row.labels.iter().map(|label| (*label, "a\"b\\c\nd")).collect();
            into.put(row.name, &labels, 3);
        }
        into.put("unlisted", &[], 1);
    }
}

#[test]
fn both_forms_name_each_metric_that_is_read() {
    let metrics = metrics();
    let source: Arc<dyn Source> = Arc::new(Fixed);
    metrics.read_from(&source);
    let collected = metrics.collect();
    let classic = text::write(&collected, Format::Prometheus);
    let open = text::write(&collected, Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n") && !classic.contains("# EOF"));
    for row in METRICS {
        let counted = matches!(row.kind, catalogue::Kind::Counter | catalogue::Kind::Histogram(_));
        if counted {
            continue;
        }
        let name = row.prometheus_name();
        has(&classic, &format!("# TYPE {name} {}", row.prometheus_type()));
        let family = name.strip_suffix("_total").unwrap_or(&name);
        has(&open, &format!("# TYPE {family} {}", row.prometheus_type()));
        let labels: Vec<String> =
            row.labels.iter().map(|label| format!("{label}=\"a\\\"b\\\\c\\nd\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        if labels.matches('=').count() <= 1 {
            has(&classic, &format!("{name}{labels} 3"));
            has(&open, &format!("{name}{labels} 3"));
        }
    }
    assert!(open.contains("# UNIT bartizan_journal_size_bytes bytes\n"), "{open}");
    assert!(!classic.contains("unlisted"));
    drop(source);
    assert!(!written(&metrics).contains("bartizan_journal_size_bytes 3"), "its source is gone");
}

#[test]
fn accept_chooses_the_form() {
    for (accept, format) in [
        ("", Format::Prometheus),
        ("*/*", Format::Prometheus),
        ("text/plain;version=0.0.4", Format::Prometheus),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.3", Format::OpenMetrics),
        ("application/openmetrics-text; q=0, text/plain", Format::Prometheus),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}

#[test]
fn the_catalogue_is_well_formed() {
    let mut names: Vec<String> = METRICS.iter().map(catalogue::Metric::prometheus_name).collect();
    for (name, row) in names.iter().zip(METRICS) {
        assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
        assert_eq!(catalogue::named(row.name), Some(row));
        if let catalogue::Kind::Histogram(bounds) = row.kind {
            assert!(bounds.is_sorted(), "{name}");
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), METRICS.len());
}
