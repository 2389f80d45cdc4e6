//! The table of all metrics. Instruments are made from it, and `docs/metrics.md` is compared with it.
//!
//! Names and units are OpenTelemetry's; [`Metric::prometheus_name`] gives the name that Prometheus sees.
//! `mcp.server.operation.duration` and its attributes follow OpenTelemetry's conventions for MCP.

/// What an instrument measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows, and is counted from records.
    Counter,
    /// It only grows, and is read when somebody collects.
    ReadCounter,
    /// It goes up and down, and is read when somebody collects.
    Gauge,
    /// Durations, counted from records in buckets with these upper bounds, seconds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name in OpenTelemetry.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit in the code of UCUM: `s`, `By`, or a word in braces.
    pub unit: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// Bounds of the conventions for MCP, seconds: for calls as their client sees them.
const CALL: &[f64] =
    &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds for what this program does itself, seconds; the bounds of the conventions begin where this
/// should have ended.
const OWN: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];
/// Bounds for how long people think, seconds.
const PEOPLE: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0];

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric { name, kind, unit, help, labels }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    metric(name, Kind::Gauge, unit, help, labels)
}

/// Decisions about messages.
pub const DECISIONS: Metric = metric(
    "bartizan.decisions",
    Kind::Counter,
    "{decision}",
    "Decisions about messages; refusals that the journal only counts are in it.",
    &["effect", "enforced", "reason", "server", "method", "operation_effect"],
);
/// Findings of records.
pub const FINDINGS: Metric = metric(
    "bartizan.findings",
    Kind::Counter,
    "{finding}",
    "Security findings of audit records, with the layer of MAESTRO.",
    &["finding", "maestro_layer", "server"],
);
/// Whole calls.
pub const CALLS: Metric = metric(
    "mcp.server.operation.duration",
    Kind::Histogram(CALL),
    "s",
    "From the arrival of a client's request to the end of its answer's last step, refused ones included.",
    &["server", "mcp.method.name", "gen_ai.tool.name", "error.type"],
);
/// Deciding.
pub const DECIDING: Metric = metric(
    "bartizan.decision.duration",
    Kind::Histogram(OWN),
    "s",
    "From the moment a message has been read to its decision: parsing, policy and duties.",
    &["effect"],
);
/// What the program adds.
pub const HOP: Metric = metric(
    "bartizan.hop.duration",
    Kind::Histogram(OWN),
    "s",
    "What the firewall adds to a message on one leg: decision or check, and its audit record.",
    &["leg"],
);
/// Waiting for people.
pub const HOLDING: Metric = metric(
    "bartizan.hold.duration",
    Kind::Histogram(PEOPLE),
    "s",
    "How long a held call waited, by how that ended.",
    &["end", "server"],
);
/// Limits from which permitted calls took.
pub const LIMITS_TAKEN: Metric = metric(
    "bartizan.limit.taken",
    Kind::Counter,
    "{call}",
    "Permitted calls that a rate limit counted, by the limit's code.",
    &["limit", "server"],
);
/// Limits that refused.
pub const LIMITS_REFUSED: Metric = metric(
    "bartizan.limit.refused",
    Kind::Counter,
    "{call}",
    "Calls that a rate limit refused, by the limit's code.",
    &["limit", "server"],
);
/// Failures of servers.
pub const UPSTREAM_FAILURES: Metric = metric(
    "bartizan.upstream.failures",
    Kind::Counter,
    "{call}",
    "Forwarded requests that failed because the server could not be reached, broke off, or was late.",
    &["server"],
);
/// Loads of policies.
pub const RELOADS: Metric = metric(
    "bartizan.policy.reloads",
    Kind::Counter,
    "{reload}",
    "Policies that were loaded or rejected.",
    &["result"],
);
/// Records of the journal.
pub const RECORDS: Metric = metric(
    "bartizan.journal.records",
    Kind::ReadCounter,
    "{record}",
    "Audit records that were kept, by event.",
    &["event"],
);
/// Records that were not kept.
pub const UNKEPT: Metric = metric(
    "bartizan.journal.refused",
    Kind::Counter,
    "{record}",
    "Audit records that could not be kept, so that what they describe was refused.",
    &[],
);
/// Writing.
pub const WRITING: Metric = metric(
    "bartizan.journal.write.duration",
    Kind::Histogram(OWN),
    "s",
    "How long the journal took to keep one record.",
    &[],
);

/// Every metric, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    DECISIONS,
    FINDINGS,
    CALLS,
    DECIDING,
    HOP,
    HOLDING,
    gauge("bartizan.holds", "{call}", "Held calls by state.", &["state"]),
    LIMITS_TAKEN,
    LIMITS_REFUSED,
    gauge("bartizan.journal.seq", "1", "Number of the last audit record.", &[]),
    gauge("bartizan.journal.size", "By", "Size of the journal's files.", &[]),
    gauge("bartizan.journal.free", "By", "Free space where the journal is.", &[]),
    RECORDS,
    UNKEPT,
    WRITING,
    gauge("bartizan.exporter.lag", "{record}", "Records that are not yet exported.", &["exporter"]),
    gauge(
        "bartizan.exporter.lag.time",
        "s",
        "Since when records wait for their export; 0 if none does.",
        &["exporter"],
    ),
    metric(
        "bartizan.exporter.sent",
        Kind::ReadCounter,
        "{item}",
        "Spans, log records or decisions that the service accepted.",
        &["exporter"],
    ),
    metric(
        "bartizan.exporter.lost",
        Kind::ReadCounter,
        "{item}",
        "What the service refused for good, or could not be converted.",
        &["exporter"],
    ),
    metric(
        "bartizan.exporter.dead_letters",
        Kind::ReadCounter,
        "{item}",
        "What was written to the dead-letter file because the service refused it.",
        &["exporter"],
    ),
    gauge("bartizan.calls", "{call}", "Calls that were forwarded and have no outcome yet.", &[]),
    gauge("bartizan.sessions", "{session}", "Sessions that are open.", &["server"]),
    gauge("bartizan.connections", "{connection}", "Connections of agents.", &[]),
    gauge("bartizan.requests", "{request}", "HTTP requests of agents in progress.", &[]),
    gauge("bartizan.streams", "{stream}", "Streams to agents that are open.", &[]),
    gauge("bartizan.memory.used", "By", "Bytes that are held for agents, by table.", &["table"]),
    gauge("bartizan.memory.limit", "By", "Most bytes that the table may hold.", &["table"]),
    gauge(
        "bartizan.policy.info",
        "1",
        "1; the label names the policy that decides.",
        &["revision"],
    ),
    gauge("bartizan.policy.loaded.time", "s", "When a policy was loaded last, Unix time.", &[]),
    gauge("bartizan.policy.rejected.time", "s", "When a policy was rejected last, Unix time.", &[]),
    RELOADS,
    gauge(
        "bartizan.upstream.up",
        "1",
        "1 if the last forwarded request got an answer, 0 if the server failed.",
        &["server"],
    ),
    UPSTREAM_FAILURES,
    gauge("bartizan.ready", "1", "1 if calls can be served, as `/readyz` says.", &[]),
    gauge("bartizan.build.info", "1", "1; the labels name version and mode.", &["version", "mode"]),
    gauge("process.start.time", "s", "When the process started, Unix time.", &[]),
    metric("process.cpu", Kind::ReadCounter, "s", "Processor time of the process.", &[]),
    gauge("process.resident.memory", "By", "Resident memory of the process.", &[]),
    gauge("process.open.fds", "{descriptor}", "Open file descriptors.", &[]),
    gauge("process.max.fds", "{descriptor}", "Most file descriptors that may be open.", &[]),
];

/// The row with the OpenTelemetry name `name`.
pub fn named(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The name of a family of samples in Prometheus, without a counter's `_total` (OpenTelemetry,
/// "Prometheus and `OpenMetrics` Compatibility": other characters become `_`, the unit follows).
pub fn family_name(name: &str, unit: &str) -> String {
    let mut family = label_name(name);
    let word = match unit {
        "s" => "seconds",
        "By" => "bytes",
        _ => "",
    };
    if !word.is_empty() && !family.ends_with(word) {
        family.push('_');
        family.push_str(word);
    }
    family
}

/// The name of a label in Prometheus.
pub fn label_name(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

impl Metric {
    /// The name that queries use: of a counter with `_total`, of a histogram without `_bucket`,
    /// `_sum` and `_count`.
    pub fn prometheus_name(&self) -> String {
        let family = family_name(self.name, self.unit);
        match self.kind {
            Kind::Counter | Kind::ReadCounter => family + "_total",
            Kind::Gauge | Kind::Histogram(_) => family,
        }
    }

    /// Its type in Prometheus.
    pub fn prometheus_type(&self) -> &'static str {
        match self.kind {
            Kind::Counter | Kind::ReadCounter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}
