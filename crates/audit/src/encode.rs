//! Writes a record as JSON, straight into the buffer of its line.
//!
//! The journal writes two records for each call, so this does what serde's derived code does without
//! its detours: names of members are written with their punctuation, nothing is collected first,
//! and the time is formatted once a second. The declaration of
//! [`AuditRecord`] stays the schema; a test holds what is written here to what serde writes of it,
//! byte for byte, with every invisible character escaped ([`inert`]).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, ClientFacts, DecisionFacts, Finding, HttpFacts, IdentityFacts,
    KeptInput, LinkFacts, OperationFacts, Outcome, ProgramFacts, ProtocolFacts, ReasonFacts,
    RedactionFacts, ServerAddress, Tags, Target, UpstreamFacts,
};
use bartizan_gate::evidence::text::{Listed, Text, is_plain};

use super::inert;

/// Buffer that an encoder keeps allocated for its next record, bytes.
const BODY_BYTES_KEPT: usize = 1 << 16;

/// Size of a time up to its seconds, `2026-11-30T07:15:02Z`, bytes.
const SECOND_BYTES: usize = 20;

/// What a thread keeps from record to record: the buffer, and the second that it formatted last.
#[derive(Debug)]
pub(super) struct Encoder {
    body: Vec<u8>,
    second: FormattedSecond,
}

impl Encoder {
    /// An encoder without a buffer.
    pub(super) const fn new() -> Self {
        Self { body: Vec::new(), second: FormattedSecond { of: None, text: [0; SECOND_BYTES] } }
    }

    /// Writes `record` as one JSON object.
    ///
    /// # Errors
    ///
    /// A time is before 1970 or after 9999, which RFC 3339 as used here cannot express, or the
    /// policy input cannot be serialised.
    pub(super) fn encode(&mut self, record: &AuditRecord) -> Result<&[u8], String> {
        self.body.clear();
        self.body.shrink_to(BODY_BYTES_KEPT);
        let mut out = Out { body: &mut self.body, second: &mut self.second };
        out.record(record)?;
        Ok(&self.body)
    }
}

/// A second, as RFC 3339 has it, and the number of it since 1970.
#[derive(Debug)]
struct FormattedSecond {
    of: Option<u64>,
    text: [u8; SECOND_BYTES],
}

/// Where a record is written. Every function appends.
struct Out<'a> {
    body: &'a mut Vec<u8>,
    second: &'a mut FormattedSecond,
}

impl Out<'_> {
    fn record(&mut self, record: &AuditRecord) -> Result<(), String> {
        self.raw("{\"schema\":");
        self.number(u64::from(record.schema));
        self.member(",\"event\":", record.event.as_str());
        self.raw(",\"time\":");
        self.time(record.time)?;
        self.raw(",\"uptime_us\":");
        self.number(record.uptime_us);
        if let Some(call) = &record.call {
            self.raw(",\"call\":");
            self.text(call);
        }
        self.maybe(",\"principal\":", record.principal.as_deref());
        self.maybe(",\"session\":", record.session.as_deref());
        self.sender(record);
        self.maybe(",\"server\":", record.server.as_deref());
        self.maybe(",\"direction\":", record.direction);
        if let Some(protocol) = &record.protocol {
            self.protocol(protocol);
        }
        self.maybe(",\"method\":", record.method.as_deref());
        self.maybe(",\"id\":", record.id.as_deref());
        if let Some(target) = &record.target {
            self.target(target);
        }
        if let Some(operation) = &record.operation {
            self.operation(operation);
        }
        if let Some(decision) = &record.decision {
            self.decision(decision);
        }
        self.maybe(",\"outcome\":", record.outcome.as_ref().map(Outcome::as_str));
        self.maybe(",\"error.type\":", record.error_type.as_deref());
        self.texts((",\"hidden\":", ",\"hidden_more\":", false), &record.hidden);
        if let Some(redacted) = &record.redacted {
            self.redacted(redacted);
        }
        self.maybe_number(",\"bytes\":", record.bytes);
        self.maybe(",\"digest\":", record.digest.as_deref());
        self.maybe_number(",\"duration_us\":", record.duration_us);
        if let Some(upstream) = record.upstream.as_deref() {
            self.upstream(upstream);
        }
        self.maybe(",\"within\":", record.within.as_deref());
        self.trace(record);
        self.rest(record)?;
        self.raw("}");
        Ok(())
    }

    /// The server's part of a call.
    fn upstream(&mut self, upstream: &UpstreamFacts) {
        let UpstreamFacts { start_us, duration_us, at } = upstream;
        self.raw(",\"upstream\":{\"start_us\":");
        self.number(*start_us);
        self.raw(",\"duration_us\":");
        self.number(*duration_us);
        if let Some(ServerAddress { address, port }) = at {
            self.member(",\"address\":", address);
            self.raw(",\"port\":");
            self.number(u64::from(*port));
        }
        self.raw("}");
    }

    /// The trace contexts.
    fn trace(&mut self, record: &AuditRecord) {
        self.maybe(",\"trace_id\":", record.trace_id.as_deref());
        self.maybe(",\"parent_span_id\":", record.parent_span_id.as_deref());
        if let Some(LinkFacts { trace_id, span_id }) = record.link.as_deref() {
            self.member(",\"link\":{\"trace_id\":", trace_id);
            self.member(",\"span_id\":", span_id);
            self.raw("}");
        }
    }

    /// What few records have.
    fn rest(&mut self, record: &AuditRecord) -> Result<(), String> {
        self.maybe(",\"finding\":", record.finding.map(Finding::as_str));
        if let Some(tags) = record.tags {
            self.tags(tags);
        }
        self.maybe(",\"taxonomy\":", record.taxonomy);
        if let Some(input) = &record.input {
            self.raw(",\"input\":");
            self.input(input)?;
        }
        let left_out = (",\"input_left_out\":", ",\"input_left_out_more\":", false);
        self.texts(left_out, &record.input_left_out);
        self.maybe_number(",\"repeated\":", record.repeated);
        if let Some(since) = record.since {
            self.raw(",\"since\":");
            self.time(since)?;
        }
        if let Some(approval) = &record.approval {
            self.approval(approval);
        }
        if let Some(program) = &record.program {
            let ProgramFacts { version, host, mode, configuration } = &**program;
            self.member(",\"program\":{\"version\":", version);
            self.member(",\"host\":", host);
            self.member(",\"mode\":", mode);
            self.maybe(",\"configuration\":", configuration.as_deref());
            self.raw("}");
        }
        self.maybe(",\"note\":", record.note.as_deref());
        Ok(())
    }

    /// Who sent a message, as far as it is known.
    fn sender(&mut self, record: &AuditRecord) {
        if let Some(IdentityFacts { issuer, subject, client_id }) = record.identity.as_deref() {
            self.member(",\"identity\":{\"issuer\":", issuer);
            self.maybe(",\"subject\":", subject.as_deref());
            self.maybe(",\"client_id\":", client_id.as_deref());
            self.raw("}");
        }
        if let Some(ClientFacts { name, version }) = record.client.as_deref() {
            self.member(",\"client\":{\"name\":", name);
            self.member(",\"version\":", version);
            self.raw("}");
        }
        self.maybe(",\"peer\":", record.peer.as_deref());
        if let Some(HttpFacts { method, host, path, origin }) = record.http.as_deref() {
            self.member(",\"http\":{\"method\":", method);
            self.maybe(",\"host\":", host.as_deref());
            self.member(",\"path\":", path);
            self.maybe(",\"origin\":", origin.as_deref());
            self.raw("}");
        }
    }

    fn approval(&mut self, approval: &ApprovalFacts) {
        let ApprovalFacts { hold, answer, by, reason, scope } = approval;
        self.member(",\"approval\":{\"hold\":", hold);
        self.member(",\"answer\":", answer);
        self.maybe(",\"by\":", by.as_deref());
        self.maybe(",\"reason\":", reason.as_deref());
        self.maybe(",\"scope\":", scope.as_deref());
        self.raw("}");
    }

    fn protocol(&mut self, protocol: &ProtocolFacts) {
        let ProtocolFacts { revision, era, transport } = protocol;
        self.raw(",\"protocol\":{");
        if let Some(revision) = revision {
            self.member("\"revision\":", revision);
            self.raw(",");
        }
        self.member("\"era\":", era);
        self.member(",\"transport\":", transport);
        self.raw("}");
    }

    fn target(&mut self, target: &Target) {
        let Target { tool, prompt, uri, task, definition, locked, drift, flags } = target;
        self.raw(",\"target\":");
        let from = self.body.len();
        self.maybe(",\"tool\":", tool.as_deref());
        self.maybe(",\"prompt\":", prompt.as_deref());
        self.maybe(",\"uri\":", uri.as_deref());
        self.maybe(",\"task\":", task.as_deref());
        self.maybe(",\"definition\":", definition.as_deref());
        self.maybe(",\"locked\":", locked.as_deref());
        self.maybe(",\"drift\":", drift.as_deref());
        self.texts((",\"flags\":", ",\"flags_more\":", false), flags);
        self.close(from);
    }

    fn operation(&mut self, operation: &OperationFacts) {
        let OperationFacts { name, effect, environments, environment_source, tags, pack } =
            operation;
        self.raw(",\"operation\":{");
        if let Some(name) = name {
            self.member("\"name\":", name);
            self.raw(",");
        }
        self.member("\"effect\":", effect);
        self.texts((",\"environments\":", ",\"environments_more\":", true), environments);
        self.member(",\"environment_source\":", environment_source);
        self.texts((",\"tags\":", ",\"tags_more\":", true), tags);
        self.maybe(",\"pack\":", pack.as_deref());
        self.raw("}");
    }

    fn decision(&mut self, decision: &DecisionFacts) {
        let DecisionFacts { effect, enforced, reasons, obligations, policy, engine, told } =
            decision;
        self.member(",\"decision\":{\"effect\":", effect);
        self.raw(if *enforced { ",\"enforced\":true" } else { ",\"enforced\":false" });
        self.raw(",\"reasons\":[");
        for (index, ReasonFacts { code, message, origin }) in reasons.iter().enumerate() {
            self.raw(if index == 0 { "{\"code\":" } else { ",{\"code\":" });
            self.text(code);
            self.member(",\"message\":", message);
            self.member(",\"origin\":", origin);
            self.raw("}");
        }
        self.raw("]");
        self.more(",\"reasons_more\":", reasons.more());
        self.texts((",\"obligations\":", ",\"obligations_more\":", true), obligations);
        self.member(",\"policy\":", policy);
        self.member(",\"engine\":", engine);
        self.maybe(",\"told\":", told.as_deref().map(|told| &**told));
        self.raw("}");
    }

    fn redacted(&mut self, redacted: &RedactionFacts) {
        self.raw(",\"redacted\":{\"count\":");
        self.number(u64::try_from(redacted.count).unwrap_or(u64::MAX));
        self.raw(",\"places\":[");
        for (index, place) in redacted.places.iter().enumerate() {
            self.raw(if index == 0 { "{\"pointer\":" } else { ",{\"pointer\":" });
            self.text(&place.pointer);
            self.member(",\"rule\":", place.rule);
            self.raw("}");
        }
        self.raw("]");
        self.more(",\"places_more\":", redacted.places.more());
        self.raw("}");
    }

    fn tags(&mut self, Tags { strength, maestro, owasp, mitre }: &Tags) {
        self.member(",\"strength\":", strength);
        self.member(",\"maestro\":{\"layer\":", maestro.layer);
        self.member(",\"layer.name\":", maestro.layer_name);
        self.raw(",\"threats\":");
        self.list(maestro.threats.iter().copied());
        self.raw("},\"owasp\":{\"mcp\":");
        self.list(owasp.mcp.iter().copied());
        self.raw(",\"asi\":");
        self.list(owasp.asi.iter().copied());
        self.raw("},\"mitre\":{\"atlas\":");
        self.list(mitre.atlas.iter().copied());
        self.raw("}");
    }

    fn input(&mut self, input: &KeptInput) -> Result<(), String> {
        inert::write_json(input, self.body)
            .map_err(|error| format!("cannot write it as JSON: {error}"))
    }

    /// A list under its name, and how many entries it does not keep; `empty` says whether an empty
    /// list is written.
    fn texts<K, const MAX: usize>(
        &mut self,
        (name, more, empty): (&str, &str, bool),
        list: &Listed<Text<K>, MAX>,
    ) {
        if empty || !list.is_empty() {
            self.raw(name);
            self.list(list.iter().map(|text| &**text));
        }
        self.more(more, list.more());
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        self.raw("[");
        for (index, text) in texts.enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.text(text);
        }
        self.raw("]");
    }

    fn more(&mut self, name: &str, count: u64) {
        self.maybe_number(name, Some(count).filter(|count| *count > 0));
    }

    /// Makes an object of the members that were written from `from` on, each with a comma before
    /// it.
    fn close(&mut self, from: usize) {
        match self.body.get_mut(from) {
            Some(comma) => *comma = b'{',
            None => self.raw("{"),
        }
        self.raw("}");
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.member(name, text);
        }
    }

    fn maybe_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.raw(name);
            self.number(number);
        }
    }

    fn member(&mut self, name: &str, text: &str) {
        self.raw(name);
        self.text(text);
    }

    /// A text as a string of JSON.
    fn text(&mut self, text: &str) {
        if text.bytes().all(is_plain) {
            self.raw("\"");
            self.raw(text);
            self.raw("\"");
        } else {
            // Writing a text to a vector cannot fail.
            inert::write_json(text, self.body).unwrap_or_default();
        }
    }

    /// What is JSON already.
    fn raw(&mut self, json: &str) {
        self.body.extend_from_slice(json.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.raw(itoa::Buffer::new().format(number));
    }

    /// A time in RFC 3339, UTC, microseconds.
    fn time(&mut self, time: SystemTime) -> Result<(), String> {
        let since =
            time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "a time is before 1970")?;
        if self.second.of != Some(since.as_secs()) {
            self.second.format(since)?;
        }
        self.raw("\"");
        let [second @ .., _] = &self.second.text;
        self.body.extend_from_slice(second);
        self.raw(".");
        // A leading 1 keeps the zeros of the fraction.
        let mut digits = itoa::Buffer::new();
        let micros = digits.format(since.subsec_micros().saturating_add(1_000_000));
        self.raw(micros.get(1..).unwrap_or_default());
        self.raw("Z\"");
        Ok(())
    }
}

const TOO_LATE: &str = "a time is after 9999";

impl FormattedSecond {
    fn format(&mut self, since: Duration) -> Result<(), &'static str> {
        self.of = None;
        let second = Duration::from_secs(since.as_secs());
        let second = SystemTime::UNIX_EPOCH.checked_add(second).ok_or(TOO_LATE)?;
        // Formatting fails from the year 10000 on.
        let mut text = String::new();
        write!(text, "{}", humantime::format_rfc3339_seconds(second)).map_err(|_| TOO_LATE)?;
        self.text = text.as_bytes().try_into().map_err(|_| TOO_LATE)?;
        self.of = Some(since.as_secs());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_humantime_writes_it() {
        let mut encoder = Encoder::new();
        for micros in [0, 1, 999_999, 1_000_000, 1_796_000_000_000_123, 253_402_300_799_999_999] {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap();
            let mut out = Out { body: &mut encoder.body, second: &mut encoder.second };
            out.body.clear();
            out.time(time).unwrap();
            let expected = format!("\"{}\"", humantime::format_rfc3339_micros(time));
            assert_eq!(String::from_utf8_lossy(out.body), expected);
        }
        let late = SystemTime::UNIX_EPOCH.checked_add(Duration::from_hours(70_389_528)).unwrap();
        let early = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_micros(1)).unwrap();
        for time in [late, early] {
            let mut out = Out { body: &mut encoder.body, second: &mut encoder.second };
            assert!(out.time(time).is_err());
        }
    }
}
