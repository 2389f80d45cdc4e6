//! Converts journal records to OpenTelemetry spans.
//!
//! Names follow the OpenTelemetry conventions for MCP and generative AI (in development; read at
//! `open-telemetry/semantic-conventions-genai` commit 0393513c). Attributes that these do not
//! define begin with `bartizan.`. Each call is one SERVER span; a CLIENT span below it means that
//! the call was forwarded, so a refused call has none. Spans are made from records alone, so no
//! sampler can drop one. The ids are digests of run and call, so a span that is sent twice has the
//! same id. Names and values are cut to a maximum length here, because OpenTelemetry sets none.
//! Sending is in [`otlp`](super::otlp).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest as _, Sha256};

use bartizan_gate::wire::method::{Action, Method};

use super::entry::{DecisionRecord, JournalRecord};

/// Where the names of attributes come from. These conventions have no released version, so it names
/// the commit.
const CONVENTIONS: &str =
    "https://github.com/open-telemetry/semantic-conventions-genai/tree/0393513c/model";

/// Largest number of calls without outcome that are remembered; one more discards the oldest.
const OPEN_MAX: usize = 65_536;

/// Longest attribute value, characters.
const VALUE_CHARS_MAX: usize = 1024;

/// Longest method or target in a span's name, characters.
const NAME_CHARS_MAX: usize = 128;

/// Largest number of elements of a list attribute.
const LIST_MAX: usize = 32;

/// Makes spans from records that arrive in the order of the journal.
#[derive(Debug)]
pub struct Assembler {
    scope: InstrumentationScope,
    open: BTreeMap<String, JournalRecord>,
    /// The `seq` of each open intent, with its call id.
    order: BTreeMap<u64, String>,
    given_up: u64,
}

impl Default for Assembler {
    fn default() -> Self {
        let scope = InstrumentationScope::builder("bartizan.audit")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(CONVENTIONS)
            .build();
        Self { scope, open: BTreeMap::new(), order: BTreeMap::new(), given_up: 0 }
    }
}

impl Assembler {
    /// Takes the next record and returns the spans that it completes.
    pub fn take(&mut self, entry: JournalRecord) -> Vec<SpanData> {
        match (entry.event.as_str(), &entry.call) {
            ("intent", Some(call)) => {
                self.order.insert(entry.seq, call.clone());
                if let Some(before) = self.open.insert(call.clone(), entry) {
                    self.order.remove(&before.seq);
                }
                self.give_up_oldest();
                Vec::new()
            }
            ("outcome", Some(call)) => {
                let intent = self.open.remove(call);
                if let Some(intent) = &intent {
                    self.order.remove(&intent.seq);
                }
                self.ended(intent.as_ref(), &entry)
            }
            ("denial" | "drop" | "repeated", _) => vec![self.server_span(&entry, &entry)],
            _ => Vec::new(),
        }
    }

    /// The sequence number of the oldest intent without outcome.
    pub fn oldest_open(&self) -> Option<u64> {
        self.order.keys().next().copied()
    }

    /// How many calls were discarded because more than [`OPEN_MAX`] had no outcome.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn give_up_oldest(&mut self) {
        if self.open.len() > OPEN_MAX
            && let Some((_, call)) = self.order.pop_first()
        {
            self.open.remove(&call);
            self.given_up = self.given_up.saturating_add(1);
        }
    }

    fn ended(&self, intent: Option<&JournalRecord>, outcome: &JournalRecord) -> Vec<SpanData> {
        let server = self.server_span(intent.unwrap_or(outcome), outcome);
        // Recovery recorded this outcome after a crash. When the call began is not known, and the
        // run that crashed may already have sent the CLIENT span.
        let Some(intent) = intent else { return vec![server] };
        let client = Self::client_span(intent, outcome, &server);
        vec![server, client]
    }

    /// The call as the client saw it: from the first byte of the request to the end of the
    /// response.
    fn server_span(&self, first: &JournalRecord, last: &JournalRecord) -> SpanData {
        let caller = parent(first).or_else(|| parent(last));
        let key = match &first.call {
            // The call is that of a refusal with a span of its own.
            Some(call) if first.event == "repeated" => format!("{call}/{}", first.seq),
            Some(call) => call.clone(),
            None => first.seq.to_string(),
        };
        let trace_id =
            caller.map_or_else(|| TraceId::from_bytes(digest("trace", first, &key)), |p| p.0);
        // A message that was withheld may belong to a call that has a span of its own.
        let span_key = if first.event == "drop" { format!("{key}\n{}", first.seq) } else { key };
        let end = time(last);
        let start = match (first.seq == last.seq, last.duration_us, first.duration_us) {
            (_, Some(micros), _) => back(end, micros),
            (false, None, Some(micros)) => back(time(first), micros),
            (_, None, _) => time(first),
        };
        // The duration is of a monotonic clock and the times are of the wall clock, so they differ by
        // a little: nothing of a call comes before the call.
        let start = start.min(time(first)).min(end);
        let mut attributes = Attributes::default();
        attributes.audit(first, last);
        attributes.call(first, last);
        let transport = first.protocol.as_ref().map(|protocol| protocol.transport.as_str());
        let transport = match transport {
            Some("http") => Some("tcp"),
            Some("stdio") => Some("pipe"),
            other => other,
        };
        attributes.text("network.transport", transport);
        attributes.sender(first);
        SpanData {
            span_context: context(trace_id, SpanId::from_bytes(digest("server", first, &span_key))),
            parent_span_id: caller.map_or(SpanId::INVALID, |parent| parent.1),
            parent_span_is_remote: caller.is_some(),
            span_kind: SpanKind::Server,
            name: name(first),
            start_time: start,
            end_time: end,
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: decided(first, last),
            links: SpanLinks::default(),
            status: status(last),
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// The forwarded call: from the intent's record to the end of the response.
    fn client_span(intent: &JournalRecord, outcome: &JournalRecord, server: &SpanData) -> SpanData {
        let key = intent.call.as_deref().unwrap_or_default();
        let mut attributes = Attributes::default();
        attributes.call(intent, outcome);
        let end = time(outcome);
        SpanData {
            span_context: context(
                server.span_context.trace_id(),
                SpanId::from_bytes(digest("client", intent, key)),
            ),
            parent_span_id: server.span_context.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            start_time: time(intent).min(end),
            end_time: end,
            attributes: attributes.0,
            events: SpanEvents::default(),
            ..server.clone()
        }
    }
}

/// The decision, as the event of the span that it was taken in.
fn decided(first: &JournalRecord, last: &JournalRecord) -> SpanEvents {
    let mut events = SpanEvents::default();
    let taken = [first, last].into_iter().find(|record| record.decision.is_some());
    if let Some((record, decision)) = taken.and_then(|it| Some((it, it.decision.as_ref()?))) {
        let mut attributes = Attributes::default();
        attributes.decision(decision);
        events.events.push(Event::new("bartizan.decision", time(record), attributes.0, 0));
    }
    events
}

/// `{method} {target}`. A resource's URI is left out, as the convention requires.
fn name(entry: &JournalRecord) -> Cow<'static, str> {
    let method = cut(entry.method.as_deref().unwrap_or("_OTHER"), NAME_CHARS_MAX);
    let target = entry.target.as_ref();
    let target = target.and_then(|target| target.tool.as_deref().or(target.prompt.as_deref()));
    match target {
        Some(target) => format!("{method} {}", cut(target, NAME_CHARS_MAX)).into(),
        None => method.into(),
    }
}

/// `error.type` of a span that ended with an error.
fn error_type(entry: &JournalRecord) -> Option<&str> {
    let given = entry.error_type.as_deref();
    if matches!(entry.event.as_str(), "denial" | "drop" | "repeated") {
        return Some(given.unwrap_or("refused"));
    }
    match entry.outcome.as_deref() {
        Some("ok" | "accepted") | None => given,
        Some("error") => Some(given.unwrap_or("_OTHER")),
        Some(outcome) => Some(given.unwrap_or(outcome)),
    }
}

fn status(entry: &JournalRecord) -> Status {
    let Some(class) = error_type(entry) else { return Status::Unset };
    let reason = entry.decision.as_ref().and_then(|decision| decision.reasons.first());
    let description = reason.map_or(class, |reason| reason.code.as_str());
    Status::error(cut(description, NAME_CHARS_MAX))
}

/// Attributes in order of importance: a limit on their number drops the last ones.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Adds the decision and its classification.
    fn audit(&mut self, first: &JournalRecord, last: &JournalRecord) {
        self.text("bartizan.event", Some(&last.event));
        self.text("bartizan.call", first.call.as_deref());
        self.number("bartizan.repeated", last.repeated);
        self.text("bartizan.boot", Some(&first.boot));
        self.number("bartizan.seq", Some(last.seq));
        let decision = first.decision.as_ref().or(last.decision.as_ref());
        if let Some(decision) = decision {
            self.decision(decision);
        }
        self.text("bartizan.outcome", last.outcome.as_deref());
        // The finding of the last record takes precedence over that of the first.
        let tagged = if last.finding.is_some() { last } else { first };
        self.text("bartizan.finding", tagged.finding.as_deref());
        if let Some(maestro) = &tagged.maestro {
            self.text("maestro.layer", Some(&maestro.layer));
            self.text("maestro.layer.name", Some(&maestro.layer_name));
            self.list("maestro.threats", maestro.threats.iter().map(String::as_str));
        }
        if let Some(owasp) = &tagged.owasp {
            self.list("owasp.mcp", owasp.mcp.iter().map(String::as_str));
            self.list("owasp.asi", owasp.asi.iter().map(String::as_str));
        }
        if let Some(mitre) = &tagged.mitre {
            self.list("mitre.atlas", mitre.atlas.iter().map(String::as_str));
        }
        self.text("bartizan.finding.strength", tagged.strength.as_deref());
        self.text("taxonomy.version", tagged.taxonomy.as_deref());
        if let Some(operation) = &first.operation {
            self.text("bartizan.operation.name", operation.name.as_deref());
            self.text("bartizan.operation.effect", Some(&operation.effect));
            self.list(
                "bartizan.operation.environments",
                operation.environments.iter().map(String::as_str),
            );
        }
        if !last.hidden.is_empty() {
            let listed = u64::try_from(last.hidden.len()).unwrap_or(u64::MAX);
            self.number("bartizan.hidden.count", Some(listed.saturating_add(last.hidden_more)));
        }
    }

    /// Adds what was decided and why.
    fn decision(&mut self, decision: &DecisionRecord) {
        self.text("bartizan.decision.effect", Some(&decision.effect));
        self.0.push(KeyValue::new("bartizan.decision.enforced", decision.enforced));
        self.list("bartizan.decision.codes", decision.reasons.iter().map(|r| r.code.as_str()));
        self.list("bartizan.decision.reasons", decision.reasons.iter().map(|r| r.message.as_str()));
        self.list("bartizan.decision.obligations", decision.obligations.iter().map(String::as_str));
        self.text("bartizan.policy.revision", Some(&decision.policy));
        self.text("bartizan.policy.engine", Some(&decision.engine));
    }

    /// Adds who called, for a SERVER span.
    fn sender(&mut self, first: &JournalRecord) {
        self.text("bartizan.principal", first.principal.as_deref());
        self.text("mcp.session.id", first.session.as_deref());
        self.text("client.address", first.peer.as_deref());
        if let Some(client) = &first.client {
            self.text("bartizan.client.name", Some(&client.name));
            self.text("bartizan.client.version", Some(&client.version));
        }
        if let Some(identity) = &first.identity {
            self.text("bartizan.identity.issuer", Some(&identity.issuer));
            self.text("bartizan.identity.subject", identity.subject.as_deref());
            self.text("bartizan.identity.client_id", identity.client_id.as_deref());
        }
    }

    /// Adds method, target and protocol.
    fn call(&mut self, first: &JournalRecord, last: &JournalRecord) {
        self.text("mcp.method.name", first.method.as_deref());
        self.text("error.type", error_type(last));
        // A class of failure or an HTTP status is none: JSON-RPC codes of errors are negative.
        let code = last.error_type.as_deref().filter(|code| code.starts_with('-'));
        self.text("rpc.response.status_code", code);
        self.text("bartizan.server", first.server.as_deref());
        self.text("bartizan.direction", first.direction.as_deref());
        if let Some(target) = &first.target {
            self.text("gen_ai.tool.name", target.tool.as_deref());
            self.text("gen_ai.prompt.name", target.prompt.as_deref());
            self.text("mcp.resource.uri", target.uri.as_deref());
        }
        let method = first.method.as_deref().and_then(Method::named);
        if method.is_some_and(|method| method.action == Action::CallTool) {
            self.text("gen_ai.operation.name", Some("execute_tool"));
        }
        // The convention defines the id as text, not as JSON.
        let id = first
            .id
            .as_deref()
            .map(|id| serde_json::from_str::<String>(id).map_or(Cow::Borrowed(id), Cow::Owned));
        self.text("jsonrpc.request.id", id.as_deref());
        let revision = first.protocol.as_ref().and_then(|protocol| protocol.revision.as_deref());
        self.text("mcp.protocol.version", revision);
    }

    fn text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, cut(value, VALUE_CHARS_MAX)));
        }
    }

    fn number(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }

    fn list<'a>(&mut self, key: &'static str, values: impl Iterator<Item = &'a str>) {
        let values: Vec<StringValue> =
            values.take(LIST_MAX).map(|value| cut(value, VALUE_CHARS_MAX).into()).collect();
        if !values.is_empty() {
            self.0.push(KeyValue::new(key, Value::Array(Array::String(values))));
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// The caller's trace and span ids, if both are valid (W3C Trace Context, sections 3.2.2.3 and
/// 3.2.2.4).
fn parent(entry: &JournalRecord) -> Option<(TraceId, SpanId)> {
    let lower_hex =
        |text: &&str| text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    let trace = entry.trace_id.as_deref().filter(|text| text.len() == 32).filter(lower_hex)?;
    let span = entry.parent_span_id.as_deref().filter(|text| text.len() == 16).filter(lower_hex)?;
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    Some((trace, span))
}

/// Always sampled; the sampled flag of the caller is ignored.
fn context(trace_id: TraceId, span_id: SpanId) -> SpanContext {
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// The first `N` bytes of a digest of `what`, the run and the call `key`: the same each time.
fn digest<const N: usize>(what: &str, entry: &JournalRecord, key: &str) -> [u8; N] {
    let digest = Sha256::digest(format!("{what}\n{}\n{key}", entry.boot));
    let mut id = [0; N];
    for (to, from) in id.iter_mut().zip(digest) {
        *to = from;
    }
    id
}

fn time(entry: &JournalRecord) -> SystemTime {
    humantime::parse_rfc3339(&entry.time).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn back(time: SystemTime, micros: u64) -> SystemTime {
    time.checked_sub(Duration::from_micros(micros)).unwrap_or(SystemTime::UNIX_EPOCH)
}
