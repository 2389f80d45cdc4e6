//! Converts journal records to OpenTelemetry spans.
//!
//! Names follow the OpenTelemetry conventions for MCP and generative AI (in development; read at
//! `open-telemetry/semantic-conventions-genai` commit 0393513c). Attributes that these do not
//! define begin with `bartizan.`. Each call is one SERVER span; a CLIENT span below it means that
//! the call was forwarded, so a refused call has none. The CLIENT span lasts from the forwarding to
//! the end of the answer, so the rest of the SERVER span is the firewall's own time. A hold is a span
//! below the SERVER span of its call. A request of the server is below the CLIENT span of the call in
//! whose answer stream the server sent it, where that is known.
//!
//! Spans are made from records alone, so no sampler can drop one. The ids are digests of run and
//! call, so a span that is sent twice has the same id. Names and values are cut to a maximum length
//! here, because OpenTelemetry sets none. Sending is in [`otlp`](super::otlp).

mod attributes;
mod bounded;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::trace;
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::entry::JournalRecord;
use attributes::{Attributes, cut};
use bounded::Bounded;

/// Where the names of attributes come from. These conventions have no released version, so it names
/// the commit.
const CONVENTIONS: &str =
    "https://github.com/open-telemetry/semantic-conventions-genai/tree/0393513c/model";

/// Largest number of calls without outcome that are remembered; one more discards the oldest.
const OPEN_MAX: usize = 65_536;

/// Largest number of holds that are remembered, of those that have not ended and of those that
/// have. A hold that is not remembered is a span that names no parent.
const HOLDS_MAX: usize = 4096;

/// Longest method or target in a span's name, characters.
const NAME_CHARS_MAX: usize = 128;

/// Makes spans from records that arrive in the order of the journal.
#[derive(Debug)]
pub struct Assembler {
    scope: InstrumentationScope,
    /// The intents without outcome, by call.
    open: Bounded<JournalRecord>,
    /// The records of holds, by the call that was held.
    holds: Bounded<JournalRecord>,
    /// The ids of holds that have ended.
    ended_holds: Bounded<()>,
    given_up: u64,
}

impl Default for Assembler {
    fn default() -> Self {
        Self {
            scope: scope(),
            open: Bounded::new(OPEN_MAX),
            holds: Bounded::new(HOLDS_MAX),
            ended_holds: Bounded::new(HOLDS_MAX),
            given_up: 0,
        }
    }
}

/// What made a span or a log record.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("bartizan.audit")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(CONVENTIONS)
        .build()
}

/// The attributes of one record alone.
pub(super) fn attributes_of(entry: &JournalRecord) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    attributes.audit(entry, entry);
    if entry.method.is_some() {
        attributes.call(entry, entry);
        attributes.transport(entry);
    }
    attributes.sender(entry);
    attributes.approval(entry);
    attributes.0
}

/// The place of a span among others.
struct Place {
    trace_id: TraceId,
    parent: SpanId,
    is_remote: bool,
    links: Vec<(TraceId, SpanId)>,
}

impl Assembler {
    /// Takes the next record and returns the spans that it completes.
    pub fn take(&mut self, entry: JournalRecord) -> Vec<SpanData> {
        match (entry.event.as_str(), &entry.call) {
            ("outcome", Some(call)) => {
                let intent = self.open.remove(call);
                self.ended(intent.as_ref(), &entry)
            }
            ("hold_state", Some(_)) => self.hold_span(&entry).into_iter().collect(),
            ("denial" | "drop" | "repeated", _) => vec![self.server_span(&entry, &entry)],
            _ => {
                self.remember(entry);
                Vec::new()
            }
        }
    }

    /// Keeps what later records need of `entry`.
    pub(super) fn remember(&mut self, entry: JournalRecord) {
        let Some(call) = entry.call.clone() else { return };
        // The policy input can be large, and no span has it.
        let entry = JournalRecord { input: None, ..entry };
        match entry.event.as_str() {
            "intent" => {
                let discarded = self.open.insert(&call, entry.seq, entry);
                self.given_up = self.given_up.saturating_add(u64::from(discarded));
            }
            "outcome" => drop(self.open.remove(&call)),
            "hold" => drop(self.holds.insert(&call, entry.seq, entry)),
            _ => {}
        }
    }

    /// The trace, and the SERVER span, that `entry` belongs to; `None` if it is about no call. To be
    /// asked before the record is taken or remembered.
    pub(super) fn span_of(&self, entry: &JournalRecord) -> Option<(TraceId, SpanId)> {
        let call = entry.call.as_deref()?;
        let first = match entry.event.as_str() {
            "outcome" => self.open.get(call),
            "hold_state" | "approval" => Some(self.holds.get(call)?),
            "policy" | "start" | "stop" | "rotation" | "gap" | "recovery" => return None,
            _ => None,
        };
        let first = first.unwrap_or(entry);
        Some((self.place(first, entry).trace_id, server_id(first)))
    }

    /// The sequence number of the oldest intent without outcome.
    pub fn oldest_open(&self) -> Option<u64> {
        self.open.oldest()
    }

    /// How many calls were discarded because more than [`OPEN_MAX`] had no outcome.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn ended(&self, intent: Option<&JournalRecord>, outcome: &JournalRecord) -> Vec<SpanData> {
        let server = self.server_span(intent.unwrap_or(outcome), outcome);
        // Recovery recorded this outcome after a crash. When the call began is not known, and the
        // run that crashed may already have sent the CLIENT span.
        let Some(intent) = intent else { return vec![server] };
        if outcome.outcome.as_deref() == Some("not_sent") {
            return vec![server];
        }
        let client = Self::client_span(intent, outcome, &server);
        vec![server, client]
    }

    /// The call as the client saw it: from the first byte of the request to the end of the
    /// response.
    fn server_span(&self, first: &JournalRecord, last: &JournalRecord) -> SpanData {
        let place = self.place(first, last);
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
        attributes.transport(first);
        attributes.sender(first);
        SpanData {
            span_context: context(place.trace_id, server_id(first)),
            parent_span_id: place.parent,
            parent_span_is_remote: place.is_remote,
            span_kind: SpanKind::Server,
            name: name(first),
            start_time: start,
            end_time: end,
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: decided(first, last),
            links: links(&place.links),
            status: status(last),
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// The forwarded call: from its forwarding to the end of the response.
    fn client_span(intent: &JournalRecord, outcome: &JournalRecord, server: &SpanData) -> SpanData {
        let key = intent.call.as_deref().unwrap_or_default();
        let mut attributes = Attributes::default();
        attributes.call(intent, outcome);
        let upstream = outcome.upstream.as_ref();
        if let Some(upstream) = upstream {
            attributes.text("server.address", upstream.address.as_deref());
            attributes.number("server.port", upstream.port.map(u64::from));
        }
        let end = time(outcome);
        // Without `upstream` it is not known when the call was forwarded, only when it was permitted.
        let sent = upstream.map_or_else(|| time(intent), |it| back(end, it.duration_us));
        SpanData {
            span_context: context(
                server.span_context.trace_id(),
                SpanId::from_bytes(digest("client", intent, key)),
            ),
            parent_span_id: server.span_context.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            start_time: sent.max(server.start_time).min(end),
            end_time: end,
            attributes: attributes.0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            ..server.clone()
        }
    }

    /// A hold, from the question to what became of it; `None` if it has not ended, or has ended
    /// before.
    fn hold_span(&mut self, state: &JournalRecord) -> Option<SpanData> {
        let approval = state.approval.as_ref()?;
        if !ENDS_OF_HOLDS.contains(&approval.answer.as_str())
            || self.ended_holds.get(&approval.hold).is_some()
        {
            return None;
        }
        self.ended_holds.insert(&approval.hold, state.seq, ());
        let held = state.call.as_deref().and_then(|call| self.holds.get(call));
        let place = self.place(held.unwrap_or(state), state);
        // Only the record of the hold names the run that the ids of its call are made of.
        let parent = held.map(server_id);
        let mut attributes = Attributes::default();
        attributes.hold(state);
        attributes.call(held.unwrap_or(state), state);
        let end = time(state);
        let since = state.since.as_deref().or(held.map(|held| held.time.as_str()));
        let start = since.and_then(|since| humantime::parse_rfc3339(since).ok()).unwrap_or(end);
        let id = digest("hold", held.unwrap_or(state), &approval.hold);
        Some(SpanData {
            span_context: context(place.trace_id, SpanId::from_bytes(id)),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: format!("hold {}", name(held.unwrap_or(state))).into(),
            start_time: start.min(end),
            end_time: end,
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        })
    }

    /// Where the span of a call belongs. A request of the server belongs to the call that it came
    /// with, whatever trace context the server gives it: that one becomes a link (`CoSAI`, "MCP
    /// Security", 3.3.2: it must not replace the client's).
    fn place(&self, first: &JournalRecord, last: &JournalRecord) -> Place {
        let caller = parent(first).or_else(|| parent(last));
        let mut links: Vec<_> = link(first).or_else(|| link(last)).into_iter().collect();
        let within = first.within.as_deref().and_then(|call| self.open.get(call));
        let Some(within) = within else {
            let (trace_id, parent) = caller.unwrap_or_else(|| (own_trace(first), SpanId::INVALID));
            return Place { trace_id, parent, is_remote: caller.is_some(), links };
        };
        links.extend(caller);
        let trace_id = parent(within).map_or_else(|| own_trace(within), |(trace_id, _)| trace_id);
        let client = digest("client", within, within.call.as_deref().unwrap_or_default());
        Place { trace_id, parent: SpanId::from_bytes(client), is_remote: false, links }
    }
}

/// States of a hold in which nobody waits for an answer of an approver any more.
const ENDS_OF_HOLDS: [&str; 5] = ["granted", "refused", "expired", "cancelled", "unknown"];

/// What names the call of a record in the digests of ids.
fn key(first: &JournalRecord) -> String {
    match &first.call {
        // The call is that of a refusal with a span of its own.
        Some(call) if first.event == "repeated" => format!("{call}/{}", first.seq),
        Some(call) => call.clone(),
        None => first.seq.to_string(),
    }
}

/// The id of the SERVER span of the call that begins with `first`.
fn server_id(first: &JournalRecord) -> SpanId {
    SpanId::from_bytes(digest("server", first, &span_key(first)))
}

/// The trace of a call whose caller names none.
fn own_trace(first: &JournalRecord) -> TraceId {
    TraceId::from_bytes(digest("trace", first, &key(first)))
}

/// What names the SERVER span of a record in the digest of its id. A message that was withheld may
/// belong to a call that has a span of its own.
fn span_key(first: &JournalRecord) -> String {
    match (first.event.as_str(), key(first)) {
        ("drop", key) => format!("{key}\n{}", first.seq),
        (_, key) => key,
    }
}

fn links(contexts: &[(TraceId, SpanId)]) -> SpanLinks {
    let mut links = SpanLinks::default();
    let remote = |(trace, span): &(TraceId, SpanId)| {
        let context =
            SpanContext::new(*trace, *span, TraceFlags::default(), true, TraceState::NONE);
        Link::new(context, Vec::new(), 0)
    };
    links.links.extend(contexts.iter().map(remote));
    links
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
pub(super) fn error_type(entry: &JournalRecord) -> Option<&str> {
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

/// The caller's trace and span ids, if both are valid.
fn parent(entry: &JournalRecord) -> Option<(TraceId, SpanId)> {
    ids(entry.trace_id.as_deref()?, entry.parent_span_id.as_deref()?)
}

/// The trace and span ids of the HTTP request, if both are valid.
fn link(entry: &JournalRecord) -> Option<(TraceId, SpanId)> {
    let link = entry.link.as_ref()?;
    ids(&link.trace_id, &link.span_id)
}

/// Valid ids (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).
fn ids(trace: &str, span: &str) -> Option<(TraceId, SpanId)> {
    let lower_hex = |text: &str, digits: usize| {
        text.len() == digits
            && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    if !lower_hex(trace, 32) || !lower_hex(span, 16) {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    Some((trace, span))
}

/// Always sampled; the sampled flag of the caller is ignored.
fn context(trace_id: TraceId, span_id: SpanId) -> SpanContext {
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// An id of the run of `entry`: the same each time.
fn digest<const N: usize>(what: &str, entry: &JournalRecord, key: &str) -> [u8; N] {
    trace::id(what, &entry.boot, key)
}

/// The time of a record.
pub(super) fn time(entry: &JournalRecord) -> SystemTime {
    humantime::parse_rfc3339(&entry.time).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn back(time: SystemTime, micros: u64) -> SystemTime {
    time.checked_sub(Duration::from_micros(micros)).unwrap_or(SystemTime::UNIX_EPOCH)
}
