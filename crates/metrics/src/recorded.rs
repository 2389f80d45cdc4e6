//! What is counted from audit records, as they are kept.
//!
//! A record says what was decided or done, and when the step that made it began. So whoever keeps
//! records knows the durations, too, and no other part of the program has to count anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::record::{AuditRecord, Event, Finding, Outcome};
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, StringValue};

use super::catalogue::{self, Kind, Metric};
use super::holds::Waiting;
use super::names::{KnownServer, Names};
use super::readings::Readings;

/// The clock around the keeping of one record, as uptime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    /// Just before it was kept: the step had decided.
    pub decided: Duration,
    /// Just after.
    pub kept: Duration,
}

/// The instruments that count records.
#[derive(Debug)]
pub struct Recorded {
    names: Names,
    waiting: Waiting,
    decisions: Counter<u64>,
    findings: Counter<u64>,
    calls: Histogram<f64>,
    deciding: Histogram<f64>,
    hop: Histogram<f64>,
    holding: Histogram<f64>,
    limits_taken: Counter<u64>,
    limits_refused: Counter<u64>,
    upstream_failures: Counter<u64>,
    reloads: Counter<u64>,
    /// By event, in the order of [`Event::ALL`]. Each record is counted here, so it is counted cheaply.
    records: [AtomicU64; Event::ALL.len()],
    unkept: Counter<u64>,
    writing: Histogram<f64>,
    /// Unix times in µs; 0 for never.
    loaded: AtomicU64,
    rejected: AtomicU64,
}

impl Recorded {
    pub(crate) fn new(meter: &Meter, names: Names) -> Self {
        let unkept = counter(meter, &catalogue::UNKEPT);
        // So that the series exists before the first refusal, and an alert sees it grow.
        unkept.add(0, &[]);
        Self {
            names,
            waiting: Waiting::default(),
            decisions: counter(meter, &catalogue::DECISIONS),
            findings: counter(meter, &catalogue::FINDINGS),
            calls: histogram(meter, &catalogue::CALLS),
            deciding: histogram(meter, &catalogue::DECIDING),
            hop: histogram(meter, &catalogue::HOP),
            holding: histogram(meter, &catalogue::HOLDING),
            limits_taken: counter(meter, &catalogue::LIMITS_TAKEN),
            limits_refused: counter(meter, &catalogue::LIMITS_REFUSED),
            upstream_failures: counter(meter, &catalogue::UPSTREAM_FAILURES),
            reloads: counter(meter, &catalogue::RELOADS),
            records: [const { AtomicU64::new(0) }; Event::ALL.len()],
            unkept,
            writing: histogram(meter, &catalogue::WRITING),
            loaded: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    /// Counts `record`, which was kept.
    pub fn kept(&self, record: &AuditRecord, lap: Lap) {
        let mut counts = Event::ALL.iter().zip(&self.records);
        if let Some((_, count)) = counts.find(|(event, _)| **event == record.event) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.writing.record(seconds(lap.kept.saturating_sub(lap.decided)), &[]);
        let server = self.server(record);
        // Its parts were counted when they came.
        if record.event == Event::Repeated {
            return;
        }
        if record.event == Event::Policy {
            self.policy(record);
        }
        self.finding(record, server);
        self.decided(record, server);
        self.durations(record, server, lap);
    }

    /// Counts `record`, a refusal that is only counted in the journal.
    pub fn counted(&self, record: &AuditRecord) {
        let server = self.server(record);
        self.finding(record, server);
        self.decided(record, server);
    }

    /// Counts a record that could not be kept.
    pub fn unkept(&self) {
        self.unkept.add(1, &[]);
    }

    /// A policy decides since `at`.
    pub fn policy_loaded(&self, at: SystemTime) {
        self.names.policy_changed();
        self.loaded.store(unix_us(at), Ordering::Relaxed);
        self.reloads.add(1, &[KeyValue::new("result", "loaded")]);
    }

    fn policy(&self, record: &AuditRecord) {
        match record.finding {
            Some(Finding::PolicyReload) => self.policy_loaded(record.time),
            Some(Finding::PolicyReloadRejected) => {
                self.rejected.store(unix_us(record.time), Ordering::Relaxed);
                self.reloads.add(1, &[KeyValue::new("result", "rejected")]);
            }
            _ => {}
        }
    }

    fn server(&self, record: &AuditRecord) -> Option<&KnownServer> {
        record.server.as_deref().and_then(|name| self.names.server(name))
    }

    fn finding(&self, record: &AuditRecord, server: Option<&KnownServer>) {
        let Some(finding) = record.finding else { return };
        let layer = finding.tags().maestro.layer;
        let mut labels =
            vec![KeyValue::new("finding", finding.as_str()), KeyValue::new("maestro_layer", layer)];
        labels.extend(server.map(|server| label("server", &server.name)));
        self.findings.add(1, &labels);
    }

    fn decided(&self, record: &AuditRecord, server: Option<&KnownServer>) {
        let Some(decision) = &record.decision else { return };
        if matches!(record.event, Event::Policy | Event::Approval) {
            return;
        }
        let effect = if record.event == Event::Hold { "hold" } else { decision.effect };
        let mut labels = Vec::with_capacity(6);
        labels.push(KeyValue::new("effect", effect));
        labels.push(KeyValue::new("enforced", if decision.enforced { "true" } else { "false" }));
        if let Some(reason) = decision.reasons.first() {
            labels.push(KeyValue::new("reason", self.names.reason(reason)));
        }
        labels.extend(server.map(|server| label("server", &server.name)));
        if let Some(method) = &record.method {
            labels.push(KeyValue::new("method", Names::method(method)));
        }
        if let Some(operation) = &record.operation {
            labels.push(KeyValue::new("operation_effect", operation.effect));
        }
        self.decisions.add(1, &labels);
        self.limits(record, server);
    }

    fn limits(&self, record: &AuditRecord, server: Option<&KnownServer>) {
        let Some(decision) = &record.decision else { return };
        let of = |code: &str| {
            let mut labels = vec![KeyValue::new("limit", self.names.code(code))];
            labels.extend(server.map(|server| label("server", &server.name)));
            labels
        };
        let refused = decision.reasons.iter().filter(|reason| reason.origin == "limited");
        for reason in refused {
            self.limits_refused.add(1, &of(&reason.code));
        }
        if record.event == Event::Intent {
            let taken = decision.obligations.iter().filter_map(|kind| kind.strip_prefix("limit:"));
            for code in taken {
                self.limits_taken.add(1, &of(code));
            }
        }
    }

    fn durations(&self, record: &AuditRecord, server: Option<&KnownServer>, lap: Lap) {
        let began = Duration::from_micros(record.uptime_us);
        let (decided, kept) = (lap.decided.saturating_sub(began), lap.kept.saturating_sub(began));
        match (record.event, &record.call) {
            (Event::Hold, Some(call)) => self.waiting.begins(call, began),
            (Event::Intent | Event::Denial | Event::Drop, Some(call)) => {
                if let Some(waited) = self.waiting.ends(call, began) {
                    self.held(record, server, waited);
                }
            }
            _ => {}
        }
        let leg = if record.event == Event::Outcome {
            "answer"
        } else if matches!(record.event, Event::Intent | Event::Denial | Event::Hold) {
            "request"
        } else {
            return;
        };
        let effect = record.decision.as_ref().map(|decision| decision.effect);
        let effect = if record.event == Event::Hold { Some("hold") } else { effect };
        if let Some(effect) = effect.filter(|_| leg == "request") {
            self.deciding.record(seconds(decided), &[KeyValue::new("effect", effect)]);
        }
        self.hop.record(seconds(kept), &[KeyValue::new("leg", leg)]);
        self.call(record, server, kept);
    }

    /// How long `record`'s held call has waited.
    fn held(&self, record: &AuditRecord, server: Option<&KnownServer>, waited: Duration) {
        let end: StringValue = if record.event == Event::Intent {
            "granted".into()
        } else {
            let reason = record.decision.as_ref().and_then(|decision| decision.reasons.first());
            reason.map_or_else(|| "dropped".into(), |reason| self.names.reason(reason))
        };
        let mut labels = vec![KeyValue::new("end", end)];
        labels.extend(server.map(|server| label("server", &server.name)));
        self.holding.record(seconds(waited), &labels);
    }

    /// The whole of a client's request, if `record` ends one.
    fn call(&self, record: &AuditRecord, server: Option<&KnownServer>, last_step: Duration) {
        if record.event == Event::Outcome {
            self.health(record, server);
        }
        let Some(method) = record.method.as_deref() else { return };
        let ends = match (record.event, &record.outcome) {
            (Event::Denial, _) => true,
            // Of a notification.
            (Event::Outcome, Some(Outcome::Accepted)) => false,
            (event, _) => event == Event::Outcome,
        };
        // A request of the server is no operation of it, and a message without an id is none.
        if !ends || record.id.is_none() || record.direction == Some("to_client") {
            return;
        }
        let mut labels = Vec::with_capacity(4);
        labels.extend(server.map(|server| label("server", &server.name)));
        labels.push(KeyValue::new("mcp.method.name", Names::method(method)));
        let tool = record.target.as_ref().and_then(|target| target.tool.as_deref());
        if let (Some(tool), Some(server)) = (tool, server) {
            labels.push(KeyValue::new("gen_ai.tool.name", server.tool(tool)));
        }
        let error = match (&record.error_type, record.event) {
            (Some(error), _) => Some(Names::error(error)),
            (None, Event::Denial) => Some("denied".into()),
            (None, _) => None,
        };
        labels.extend(error.map(|error| KeyValue::new("error.type", error)));
        let before = Duration::from_micros(record.duration_us.unwrap_or_default());
        self.calls.record(seconds(before.saturating_add(last_step)), &labels);
    }

    fn health(&self, record: &AuditRecord, server: Option<&KnownServer>) {
        let (Some(server), Some(outcome)) = (server, &record.outcome) else { return };
        match outcome {
            Outcome::UpstreamFailed => {
                server.answered(false);
                self.upstream_failures.add(1, &[label("server", &server.name)]);
            }
            Outcome::Ok | Outcome::ToolError | Outcome::Error | Outcome::Accepted => {
                server.answered(true);
            }
            // They say nothing about the server.
            Outcome::Withheld | Outcome::Cancelled | Outcome::NotSent | Outcome::Unknown => {}
        }
    }

    /// What records say about states.
    pub(crate) fn read(&self, into: &mut Readings) {
        let known = self.names.servers().filter_map(|server| Some((server, server.is_up()?)));
        for (server, is_up) in known {
            let labels = [("server", server.name.as_str())];
            into.put("bartizan.upstream.up", &labels, u64::from(is_up));
        }
        for (event, count) in Event::ALL.iter().zip(&self.records) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                into.put(catalogue::RECORDS.name, &[("event", event.as_str())], count);
            }
        }
        let times = [
            ("bartizan.policy.loaded.time", &self.loaded),
            ("bartizan.policy.rejected.time", &self.rejected),
        ];
        for (name, time) in times {
            let time = time.load(Ordering::Relaxed);
            if time > 0 {
                into.put_f64(name, &[], seconds(Duration::from_micros(time)));
            }
        }
    }
}

fn label(key: &'static str, value: &StringValue) -> KeyValue {
    KeyValue::new(key, value.clone())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn unix_us(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn counter(meter: &Meter, row: &Metric) -> Counter<u64> {
    meter.u64_counter(row.name).with_unit(row.unit).with_description(row.help).build()
}

fn histogram(meter: &Meter, row: &Metric) -> Histogram<f64> {
    let bounds = match row.kind {
        Kind::Histogram(bounds) => bounds.to_vec(),
        Kind::Counter | Kind::ReadCounter | Kind::Gauge => Vec::new(),
    };
    meter
        .f64_histogram(row.name)
        .with_unit(row.unit)
        .with_description(row.help)
        .with_boundaries(bounds)
        .build()
}
