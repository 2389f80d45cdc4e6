//! Builds the document `input`, version 1 (`docs/policy.md`, "`input`, version 1").
//!
//! The values come from the gate's parse of the message, never from a second parser (see `value`).
//! Only members that the policy reads are built. `schema` lists the same fields for the JSON
//! Schema; a test compares the two.

use std::collections::BTreeMap;

use regorus::Value;

use super::reads::ReadSet;
use super::value::{self, Input, Pointer, convert, json};
use bartizan_gate::duty::pdp::ListEntry;
use bartizan_gate::question::access::{
    AccessRequest, Action, Principal, Resource, Server, WallTime,
};
use bartizan_gate::question::operation::Operation;
use bartizan_gate::question::pack::BaselineRate;
use bartizan_gate::question::status::{DefinitionStatus, Drift};
use bartizan_gate::question::uri::{self, UriParts};
use bartizan_gate::wire::document::{self, Document, DocumentLimits, Kind};
use bartizan_gate::wire::protocol::{Direction, Revision};

/// The value of `input.version`.
pub(super) const VERSION: u64 = 1;

/// The whole input of a request as JSON text. The tests of the documentation use it. Where a number
/// has no exact value, it is `null`, and the member `lossy` lists its RFC 6901 pointer.
pub fn input_json(request: &AccessRequest<'_>) -> String {
    let Input { value, inexact } = of_request(request, &ReadSet::everything());
    let value = match value {
        Value::Object(members) if !inexact.is_empty() => {
            let mut members = (*members).clone();
            let pointers: Vec<Value> = inexact.into_iter().map(Value::from).collect();
            members.insert(Value::from("lossy"), Value::from(pointers));
            members.into_value()
        }
        other => other,
    };
    json(&value)
}

/// The input of a decision on one message, with `phase` as `call`, or as `answer` for the client's
/// answer to a request of the server.
pub(super) fn of_request(request: &AccessRequest<'_>, reads: &ReadSet) -> Input {
    let mut inexact = Vec::new();
    let mut fields = Fields::new(reads);
    fields.question(request, &mut inexact);
    let phase = if is_answer(request) { "answer" } else { "call" };
    fields.put("phase", |_| Some(Value::from(phase)));
    Input { value: fields.finish(), inexact }
}

/// Whether the message is the client's answer to a request of the server.
pub(super) fn is_answer(request: &AccessRequest<'_>) -> bool {
    matches!(request.resource, Resource::Answer { .. })
}

/// The RFC 6901 pointer, below `input`, of the first number that the policy reads and that has no
/// exact value, where [`of_request`] would report one.
pub(super) fn first_inexact(request: &AccessRequest<'_>, reads: &ReadSet) -> Option<String> {
    let find = |path: &[&'static str], value: Option<document::Value<'_>>| {
        let read = path.iter().try_fold(reads, |reads, name| reads.member(name))?;
        Some(value::first_inexact(value?, read)?.pointer(path))
    };
    find(&["params"], request.params).or_else(|| match request.resource {
        Resource::Tool { arguments, .. } => find(&["tool", "arguments"], arguments),
        Resource::Prompt { arguments, .. } => find(&["prompt", "arguments"], arguments),
        Resource::Uris(uris) => find(&["resources", "uris"], Some(uris)),
        Resource::Answer { result, .. } => {
            let content = result.and_then(|result| result.get("content"));
            find(&["answer", "content"], content).or_else(|| find(&["answer", "result"], result))
        }
        Resource::Uri(_) | Resource::Task { .. } | Resource::Whole => None,
    })
}

/// The input of a listing, with `phase` as `list`: the request and the entries of one page, as
/// `tools` for tools and `entries` for other lists.
pub(super) fn of_listing(
    request: &AccessRequest<'_>,
    entries: &[ListEntry<'_>],
    reads: &ReadSet,
) -> Input {
    let mut inexact = Vec::new();
    let mut fields = Fields::new(reads);
    fields.question(request, &mut inexact);
    fields.put("phase", |_| Some(Value::from("list")));
    let name = if request.action == Action::ListTools { "tools" } else { "entries" };
    let whole = reads.reads_listed_definitions();
    fields.put(name, |reads| {
        Some(Value::from(entries.iter().map(|it| entry(it, whole, reads)).collect::<Vec<_>>()))
    });
    Input { value: fields.finish(), inexact }
}

/// Builds one object with the members that the policy reads.
struct Fields<'r> {
    reads: &'r ReadSet,
    members: BTreeMap<Value, Value>,
}

impl<'r> Fields<'r> {
    fn new(reads: &'r ReadSet) -> Self {
        Self { reads, members: BTreeMap::new() }
    }

    /// Adds a member if the policy reads it and `value` returns one. Where the policy reads only
    /// the names of the members, the member's value is null.
    fn put(&mut self, name: &str, value: impl FnOnce(&ReadSet) -> Option<Value>) {
        if let Some(reads) = self.reads.member(name) {
            if let Some(value) = value(reads) {
                self.members.insert(Value::from(name), value);
            }
        } else if self.reads.reads_names() && value(&ReadSet::default()).is_some() {
            self.members.insert(Value::from(name), Value::Null);
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.put(name, |_| Some(Value::from(text)));
    }

    fn optional(&mut self, name: &str, text: Option<&str>) {
        self.put(name, |_| text.map(Value::from));
    }

    fn finish(self) -> Value {
        Value::from(self.members)
    }

    /// Adds the members that decisions and listings share.
    fn question(&mut self, request: &AccessRequest<'_>, inexact: &mut Vec<String>) {
        self.put("version", |_| Some(Value::from(VERSION)));
        self.text("direction", request.direction.as_str());
        self.text("method", request.method);
        self.optional("trace_id", request.trace_id);
        self.put("principal", |reads| Some(principal(request.principal, reads)));
        self.put("client", |reads| {
            let client = request.client?;
            let mut fields = Fields::new(reads);
            fields.text("name", &client.name);
            fields.text("version", &client.version);
            Some(fields.finish())
        });
        self.put("server", |reads| Some(server(request.server, reads)));
        self.put("protocol", |reads| {
            let protocol = request.protocol;
            let mut fields = Fields::new(reads);
            fields.optional("revision", protocol.revision.map(Revision::as_str));
            fields.text("era", protocol.era.as_str());
            fields.text("transport", protocol.transport.as_str());
            Some(fields.finish())
        });
        self.put("operation", |reads| Some(operation(&request.operation, reads)));
        self.put("session", |reads| {
            let mut fields = Fields::new(reads);
            fields.put("facts", |reads| Some(map(&request.facts, reads)));
            Some(fields.finish())
        });
        self.put("approval", |reads| {
            let approval = request.approval?;
            let mut fields = Fields::new(reads);
            fields.text("hold", &approval.hold.0);
            fields.put("approvers", |_| Some(strings(&approval.approvers)));
            fields.text("reason", &approval.reason);
            fields.optional("scope", approval.scope.as_deref());
            fields.put("granted_unix_ms", |_| Some(Value::from(approval.granted_unix_ms)));
            Some(fields.finish())
        });
        self.put("time", |reads| Some(time(request.time, reads)));
        self.put("params", |reads| {
            Some(convert(request.params?, reads, &mut Pointer::at(&["params"]), inexact))
        });
        self.put("elicitation", |reads| elicitation(request, reads));
        self.resource(request, inexact);
    }

    fn resource(&mut self, request: &AccessRequest<'_>, inexact: &mut Vec<String>) {
        match request.resource {
            Resource::Tool { name, arguments, definition, status } => self.put("tool", |reads| {
                let mut fields = Fields::new(reads);
                fields.text("name", name);
                fields.optional("definition_digest", definition);
                fields.status(status);
                fields.put("definition", |reads| listed(status.text?, reads));
                fields.arguments("tool", arguments, inexact);
                Some(fields.finish())
            }),
            Resource::Prompt { name, arguments } => self.put("prompt", |reads| {
                let mut fields = Fields::new(reads);
                fields.text("name", name);
                fields.arguments("prompt", arguments, inexact);
                Some(fields.finish())
            }),
            Resource::Uri(text) => self.put("resource", |reads| {
                let mut fields = Fields::new(reads);
                fields.text("uri", text);
                let template = request.action == Action::Complete;
                let reading = uri::read(text, template);
                fields.put("ambiguous", |_| Some(Value::Bool(reading.ambiguous)));
                fields.put("parsed", |reads| reading.parts.map(|parts| uri_parts(&parts, reads)));
                Some(fields.finish())
            }),
            Resource::Task { id, origin } => self.put("task", |reads| {
                let mut fields = Fields::new(reads);
                fields.text("id", id);
                if let Some(origin) = origin {
                    fields.text("method", &origin.method);
                    fields.optional("tool", origin.tool.as_deref());
                    fields.put("operation", |reads| Some(operation(&origin.operation, reads)));
                }
                Some(fields.finish())
            }),
            Resource::Uris(uris) => self.put("resources", |reads| {
                let mut fields = Fields::new(reads);
                fields.put("uris", |reads| {
                    Some(convert(uris, reads, &mut Pointer::at(&["resources", "uris"]), inexact))
                });
                Some(fields.finish())
            }),
            Resource::Answer { result, error } => self.put("answer", |reads| {
                let mut fields = Fields::new(reads);
                fields.text("outcome", if result.is_some() { "result" } else { "error" });
                fields.put("error_code", |_| error.map(Value::from));
                if let Some(result) = result {
                    fields.answer(result, inexact);
                }
                Some(fields.finish())
            }),
            Resource::Whole => {}
        }
    }

    /// Adds what an answer says, as the request's method gives it its form, and all of it as
    /// `result`.
    fn answer(&mut self, result: document::Value<'_>, inexact: &mut Vec<String>) {
        self.optional("action", result.get("action").and_then(document::Value::as_str));
        for (name, value) in [("content", result.get("content")), ("result", Some(result))] {
            self.put(name, |reads| {
                Some(convert(value?, reads, &mut Pointer::at(&["answer", name]), inexact))
            });
        }
        self.put("roots", |reads| {
            let roots = result.get("roots")?;
            let listed = roots.kind() == Kind::Array;
            let each: Vec<Value> = roots.elements().map(|root| root_of(root, reads)).collect();
            // What is no list has no root that a rule could judge.
            Some(Value::from(if listed { each } else { vec![root_of(roots, reads)] }))
        });
    }

    fn status(&mut self, status: DefinitionStatus<'_>) {
        self.optional("drift", status.drift.map(Drift::as_str));
        self.put("flags", |_| (!status.flags.is_empty()).then(|| flags(status.flags)));
    }

    /// Adds `arguments`, an empty object where the message has none, so that a rule need not test
    /// for their absence.
    fn arguments(
        &mut self,
        of: &str,
        arguments: Option<document::Value<'_>>,
        inexact: &mut Vec<String>,
    ) {
        self.put("arguments", |reads| {
            Some(match arguments.filter(|arguments| arguments.kind() != Kind::Null) {
                Some(it) => convert(it, reads, &mut Pointer::at(&[of, "arguments"]), inexact),
                None => Value::new_object(),
            })
        });
    }
}

/// One of the client's roots. One without a URI is ambiguous.
fn root_of(root: document::Value<'_>, reads: &ReadSet) -> Value {
    let uri = root.get("uri").and_then(document::Value::as_str);
    let mut fields = Fields::new(reads);
    fields.text("uri", uri.unwrap_or_default());
    fields.put("ambiguous", |_| {
        Some(Value::Bool(uri.is_none_or(|uri| uri::read(uri, false).ambiguous)))
    });
    fields.finish()
}

/// An array of texts.
pub(super) fn strings<'a>(texts: impl IntoIterator<Item = &'a Box<str>>) -> Value {
    Value::from(texts.into_iter().map(|text| Value::from(&**text)).collect::<Vec<_>>())
}

/// The flags of a definition.
pub(super) fn flags(flags: &[&'static str]) -> Value {
    Value::from(flags.iter().map(|flag| Value::from(*flag)).collect::<Vec<_>>())
}

/// An object with texts as values.
pub(super) fn map(texts: &BTreeMap<Box<str>, Box<str>>, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    for (name, text) in texts {
        fields.text(name, text);
    }
    fields.finish()
}

fn principal(principal: &Principal, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    fields.text("id", &principal.id);
    fields.text("kind", &principal.kind);
    fields.put("groups", |_| Some(strings(&principal.groups)));
    fields.put("claims", |reads| Some(map(&principal.claims, reads)));
    fields.finish()
}

fn server(server: &Server, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    fields.text("name", &server.name);
    fields.optional("environment", server.environment.as_deref());
    fields.put("labels", |reads| Some(map(&server.labels, reads)));
    fields.put("rates", |_| server.pack.as_deref().map(|pack| rates(&pack.rates)));
    fields.finish()
}

/// The vendor's rate limits by effect. They are built whole: a rule indexes them by an effect that
/// it reads from elsewhere, so its text does not show which ones it reads.
pub(super) fn rates(rates: &BTreeMap<Box<str>, BaselineRate>) -> Value {
    let rates = rates.iter().map(|(effect, baseline)| (Value::from(&**effect), rate(baseline)));
    Value::from(rates.collect::<BTreeMap<_, _>>())
}

/// The vendor's rate limit for one effect.
pub(super) fn rate(baseline: &BaselineRate) -> Value {
    Value::from(BTreeMap::from([
        (Value::from("rate"), Value::from(&*baseline.rate)),
        (Value::from("burst"), Value::from(u64::from(baseline.burst))),
    ]))
}

/// What a call does.
pub(super) fn operation(operation: &Operation, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    fields.optional("name", operation.name.as_deref());
    fields.text("effect", operation.effect.as_str());
    fields.put("environments", |_| Some(strings(&operation.environments)));
    fields.text("environment_source", operation.environment_source.as_str());
    fields.put("tags", |_| Some(strings(&operation.tags)));
    fields.optional("pack", operation.pack.as_deref());
    fields.finish()
}

/// Where a server sends the client's user, on `elicitation/create`. A form is what has no mode (MCP
/// 2025-06-18); a mode or a URL that is no string is empty, and means neither.
fn elicitation(request: &AccessRequest<'_>, reads: &ReadSet) -> Option<Value> {
    let asks = request.action == Action::Elicit && request.direction == Direction::ToClient;
    if !asks {
        return None;
    }
    let member = |name| request.params.and_then(|params| params.get(name));
    let text = |name| member(name).map(|value| value.as_str().unwrap_or_default());
    let mut fields = Fields::new(reads);
    fields.text("mode", text("mode").unwrap_or("form"));
    let url = text("url").unwrap_or_default();
    fields.text("url", url);
    if !url.is_empty() {
        let reading = uri::read(url, false);
        fields.put("ambiguous", |_| Some(Value::Bool(reading.ambiguous)));
        fields.put("parsed", |reads| reading.parts.map(|parts| uri_parts(&parts, reads)));
    }
    Some(fields.finish())
}

fn uri_parts(parts: &UriParts, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    fields.text("scheme", &parts.scheme);
    fields.text("host", &parts.host);
    fields.put("port", |_| parts.port.map(|port| Value::from(u64::from(port))));
    fields.text("path", &parts.path);
    fields.put("segments", |_| Some(strings(&parts.segments)));
    fields.optional("query", parts.query.as_deref());
    fields.finish()
}

/// A called tool's definition, read again from its text; it was read by the same rules before.
fn listed(text: &str, reads: &ReadSet) -> Option<Value> {
    let raw = bytes::Bytes::copy_from_slice(text.as_bytes());
    let document = Document::read(raw, &DocumentLimits::default()).ok()?;
    Some(definition(document.root(), reads))
}

/// A definition. A number in it without an exact value is null, and denies nothing: bounds in
/// schemas are often so large.
pub(super) fn definition(value: document::Value<'_>, reads: &ReadSet) -> Value {
    convert(value, reads, &mut Pointer::root(), &mut Vec::new())
}

/// An entry of a list. `whole`: with its definition.
pub(super) fn entry(entry: &ListEntry<'_>, whole: bool, reads: &ReadSet) -> Value {
    let mut fields = Fields::new(reads);
    fields.text("name", entry.name);
    fields.text("definition_digest", entry.digest);
    fields.put("definition", |reads| {
        entry.definition.filter(|_| whole).map(|value| definition(value, reads))
    });
    fields.status(entry.status);
    fields.put("operation", |reads| entry.operation.as_ref().map(|it| operation(it, reads)));
    fields.finish()
}

/// `input.time`, in UTC. `weekday` is the English name, as OPA's `time.weekday` returns it.
fn time(time: WallTime, reads: &ReadSet) -> Value {
    let civil = Civil::of(time);
    let mut fields = Fields::new(reads);
    fields.put("unix_ms", |_| Some(Value::from(time.unix_ms)));
    fields.put("rfc3339", |_| Some(Value::from(civil.rfc3339())));
    fields.text("weekday", civil.weekday());
    fields.put("hour", |_| Some(Value::from(civil.hour)));
    fields.finish()
}

/// A time in the proleptic Gregorian calendar, UTC. `days` counts from 1970-01-01.
struct Civil {
    days: u64,
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u64,
}

impl Civil {
    /// Splits a Unix time into its fields: Howard Hinnant's `civil_from_days`, which counts years
    /// from 1 March so that the leap day is the last day of a year.
    fn of(time: WallTime) -> Self {
        let days = time.unix_ms / 86_400_000;
        let in_day = time.unix_ms % 86_400_000;
        let shifted = days.saturating_add(719_468);
        let era = shifted / 146_097;
        let in_era = shifted % 146_097;
        let leap_free = in_era
            .saturating_sub(in_era / 1_460)
            .saturating_add(in_era / 36_524)
            .saturating_sub(in_era / 146_096);
        let year_of_era = leap_free / 365;
        let before_year = year_of_era
            .saturating_mul(365)
            .saturating_add(year_of_era / 4)
            .saturating_sub(year_of_era / 100);
        let day_of_year = in_era.saturating_sub(before_year);
        let from_march = day_of_year.saturating_mul(5).saturating_add(2) / 153;
        let before_month = from_march.saturating_mul(153).saturating_add(2) / 5;
        let (month, next_year) = if from_march < 10 {
            (from_march.saturating_add(3), 0)
        } else {
            (from_march.saturating_sub(9), 1)
        };
        Self {
            days,
            year: era.saturating_mul(400).saturating_add(year_of_era).saturating_add(next_year),
            month,
            day: day_of_year.saturating_sub(before_month).saturating_add(1),
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1_000 % 60,
            millisecond: in_day % 1_000,
        }
    }

    fn rfc3339(&self) -> String {
        let Self { year, month, day, hour, minute, second, millisecond, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
    }

    fn weekday(&self) -> &'static str {
        match self.days % 7 {
            0 => "Thursday",
            1 => "Friday",
            2 => "Saturday",
            3 => "Sunday",
            4 => "Monday",
            5 => "Tuesday",
            _ => "Wednesday",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_read_as_utc() {
        for (unix_ms, text, weekday) in [
            (0, "1970-01-01T00:00:00.000Z", "Thursday"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z", "Monday"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "Tuesday"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z", "Friday"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z", "Tuesday"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "Monday"),
        ] {
            let civil = Civil::of(WallTime { unix_ms });
            assert_eq!(civil.rfc3339(), text);
            assert_eq!(civil.weekday(), weekday, "{text}");
        }
    }
}
