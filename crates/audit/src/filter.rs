//! Selects records by their fields: for `bartizan audit tail`, `audit query` and the console.
//!
//! A [`Field`] is something by which records can be chosen and counted; there is no other list of
//! them. A record is selected if it has one of the wanted values of every field of which some are
//! wanted. [`Matcher`] does this for lines of a journal: it looks for the bytes of the wanted values
//! first, and parses only the lines that have them.

use bartizan_gate::evidence::finding::Layer;
use bartizan_gate::evidence::record::{Event, Finding, Outcome};
use memchr::memchr;
use memchr::memmem::{Finder, find};

use super::entry::{DecisionRecord, JournalRecord};

/// The decision about a call of which an approver is asked, while no answer has decided.
pub const HELD: &str = "held";

/// Digits that suffice to name a call by the beginning of its id.
pub const CALL_DIGITS_MIN: usize = 8;

/// A field by which records can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the member of the record, which docs/audit.md describes")]
pub enum Field {
    Call,
    Session,
    Environment,
    /// Codes of rules that decided or made a duty of the call, and the firewall's own codes.
    Rule,
    Finding,
    Layer,
    Tool,
    Principal,
    Peer,
    /// The name by which a client calls itself.
    Client,
    Server,
    Method,
    Event,
    Decision,
    Effect,
    Outcome,
}

impl Field {
    /// All of them; those whose values few records have in common first.
    pub const ALL: [Self; 16] = [
        Self::Call,
        Self::Session,
        Self::Environment,
        Self::Rule,
        Self::Finding,
        Self::Layer,
        Self::Tool,
        Self::Principal,
        Self::Peer,
        Self::Client,
        Self::Server,
        Self::Method,
        Self::Event,
        Self::Decision,
        Self::Effect,
        Self::Outcome,
    ];

    /// Its name in options, queries and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Session => "session",
            Self::Environment => "environment",
            Self::Rule => "rule",
            Self::Finding => "finding",
            Self::Layer => "layer",
            Self::Tool => "tool",
            Self::Principal => "principal",
            Self::Peer => "peer",
            Self::Client => "client",
            Self::Server => "server",
            Self::Method => "method",
            Self::Event => "event",
            Self::Decision => "decision",
            Self::Effect => "effect",
            Self::Outcome => "outcome",
        }
    }

    /// The field with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// All values that a record can have, where that is known; `None` for names that others choose.
    pub fn known(self) -> Option<Vec<&'static str>> {
        let known: &[&str] = match self {
            Self::Event => return Some(Event::ALL.iter().map(|event| event.as_str()).collect()),
            Self::Layer => return Some(Layer::ALL.iter().map(|layer| layer.id).collect()),
            Self::Finding => return Some(Finding::ALL.iter().map(|it| it.as_str()).collect()),
            Self::Decision => &["permit", "deny", HELD],
            Self::Effect => &["read", "write", "destructive", "exec", "unknown"],
            Self::Outcome => return Some(Outcome::ALL.iter().map(Outcome::as_str).collect()),
            Self::Call
            | Self::Session
            | Self::Environment
            | Self::Rule
            | Self::Tool
            | Self::Principal
            | Self::Peer
            | Self::Client
            | Self::Server
            | Self::Method => return None,
        };
        Some(known.to_vec())
    }

    /// Whether `check` is true of one of the values that `entry` has; it may have none.
    pub fn any(self, entry: &JournalRecord, check: &mut dyn FnMut(&str) -> bool) -> bool {
        let one = match self {
            Self::Environment => {
                let mut all = entry.operation.iter().flat_map(|it| &it.environments);
                return all.any(|environment| check(environment));
            }
            Self::Rule => {
                let mut all = entry.decision.iter().flat_map(DecisionRecord::codes);
                return all.any(check);
            }
            Self::Call => entry.call.as_deref(),
            Self::Session => entry.session.as_deref(),
            Self::Finding => entry.finding.as_deref(),
            Self::Layer => entry.maestro.as_ref().map(|maestro| maestro.layer.as_str()),
            Self::Tool => entry.target.as_ref().and_then(|target| target.tool.as_deref()),
            Self::Principal => entry.principal.as_deref(),
            Self::Peer => entry.peer.as_deref(),
            Self::Client => entry.client.as_ref().map(|client| client.name.as_str()),
            Self::Server => entry.server.as_deref(),
            Self::Method => entry.method.as_deref(),
            Self::Event => Some(entry.event.as_str()),
            // Permitted on a condition that is not met yet.
            Self::Decision if entry.event == Event::Hold.as_str() => Some(HELD),
            Self::Decision => entry.decision.as_ref().map(|it| it.effect.as_str()),
            Self::Effect => entry.operation.as_ref().map(|it| it.effect.as_str()),
            Self::Outcome => entry.outcome.as_deref(),
        };
        one.is_some_and(check)
    }

    /// Whether a record with the value `found` is meant by `wanted`.
    fn meant(self, wanted: &str, found: &str) -> bool {
        let by_beginning = self == Self::Call && wanted.len() >= CALL_DIGITS_MIN;
        wanted == found || (by_beginning && found.starts_with(wanted))
    }

    /// Bytes that are in every line whose record has this value; `None` if it is not known how the
    /// journal writes it.
    fn bytes_of(self, value: &str) -> Option<Vec<u8>> {
        let plain = |c: u8| (b' '..0x7f).contains(&c) && c != b'"' && c != b'\\';
        if !value.bytes().all(plain) {
            return None;
        }
        let text = match self {
            Self::Call if value.len() >= CALL_DIGITS_MIN => format!("\"call\":\"{value}"),
            // An entry of a list.
            Self::Environment => format!("\"{value}\""),
            // `"code":"value"`, or the end of a duty, `"hold:value"`.
            Self::Rule => format!("{value}\""),
            Self::Client => format!("\"name\":\"{value}\""),
            Self::Decision if value == HELD => format!("\"event\":\"{}\"", Event::Hold.as_str()),
            Self::Decision => format!("\"effect\":\"{value}\""),
            Self::Call
            | Self::Session
            | Self::Finding
            | Self::Layer
            | Self::Tool
            | Self::Principal
            | Self::Peer
            | Self::Server
            | Self::Method
            | Self::Event
            | Self::Effect
            | Self::Outcome => format!("\"{}\":\"{value}\"", self.name()),
        };
        Some(text.into_bytes())
    }
}

/// The wanted values by field, and times. Without any, every record is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Each field of which values are wanted, with these values: at least one.
    wanted: Vec<(Field, Vec<String>)>,
    /// Earliest time, in the form in which records hold it: RFC 3339 in UTC with microseconds.
    pub since: Option<String>,
    /// The time from which on records are not selected, in the same form.
    pub until: Option<String>,
}

impl Filter {
    /// Wants records with `value`, or with another one that is wanted of this field.
    pub fn want(&mut self, field: Field, value: impl Into<String>) {
        match self.wanted.iter_mut().find(|(known, _)| *known == field) {
            Some((_, values)) => values.push(value.into()),
            None => self.wanted.push((field, vec![value.into()])),
        }
    }

    /// The same, with what [`want`](Self::want) adds.
    #[must_use]
    pub fn and(mut self, field: Field, value: impl Into<String>) -> Self {
        self.want(field, value);
        self
    }

    /// Only records of the time from `since` on and before `until`, where these are given.
    #[must_use]
    pub fn within(mut self, since: Option<String>, until: Option<String>) -> Self {
        (self.since, self.until) = (since, until);
        self
    }

    /// Whether every record is selected.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `entry` is selected.
    pub fn admits(&self, entry: &JournalRecord) -> bool {
        self.covers(entry.time.as_bytes())
            && self.wanted.iter().all(|(field, values)| {
                field
                    .any(entry, &mut |found| values.iter().any(|wanted| field.meant(wanted, found)))
            })
    }

    /// Whether `time` is in the range. All times are RFC 3339 in UTC with microseconds, so
    /// comparing the texts compares the times.
    fn covers(&self, time: &[u8]) -> bool {
        self.since.as_ref().is_none_or(|since| time >= since.as_bytes())
            && self.until.as_ref().is_none_or(|until| time < until.as_bytes())
    }
}

/// A [`Filter`], made ready for many lines.
#[derive(Debug)]
pub struct Matcher {
    filter: Filter,
    /// Of each group, a line that is selected has at least one.
    needles: Vec<Vec<Finder<'static>>>,
}

impl Matcher {
    /// Makes `filter` ready.
    pub fn new(filter: &Filter) -> Self {
        let mut wanted = filter.wanted.clone();
        wanted.sort_by_key(|(field, _)| *field);
        let needles = wanted.iter().filter_map(|(field, values)| {
            let needle = |value: &String| {
                field.bytes_of(value).map(|bytes| Finder::new(&bytes).into_owned())
            };
            values.iter().map(needle).collect::<Option<Vec<_>>>()
        });
        Self { needles: needles.collect(), filter: filter.clone() }
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether the record of `line` may be selected; a wrong `true` is possible, a wrong `false` not.
    pub fn may_admit(&self, line: &[u8]) -> bool {
        let timed = self.filter.since.is_some() || self.filter.until.is_some();
        let in_time = !timed || time_of(line).is_none_or(|time| self.filter.covers(time));
        let has_one =
            |group: &Vec<Finder<'_>>| group.iter().any(|needle| needle.find(line).is_some());
        in_time && self.needles.iter().all(has_one)
    }

    /// The record of `line`, if it is selected.
    ///
    /// # Errors
    ///
    /// The line is no record: the JSON parser's message.
    pub fn read(&self, line: &[u8]) -> Result<Option<JournalRecord>, String> {
        if !self.may_admit(line) {
            return Ok(None);
        }
        let entry = JournalRecord::read(line)?;
        Ok(self.filter.admits(&entry).then_some(entry))
    }
}

/// The time of the record of `line`, as it is written there. The journal writes quotes inside of
/// texts as `\"`, and `time` and `call` before all objects whose names others choose.
pub fn time_of(line: &[u8]) -> Option<&[u8]> {
    text_of(line, b",\"time\":\"")
}

/// The call of the record of `line`, in the same way.
pub fn call_of(line: &[u8]) -> Option<&[u8]> {
    text_of(line, b",\"call\":\"")
}

/// The text after the first `name` in `line`.
fn text_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.get(find(line, name)?.saturating_add(name.len())..)?;
    rest.get(..memchr(b'"', rest)?)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{OperationRecord, ReasonRecord};
    use super::*;

    #[test]
    fn a_rule_decides_or_makes_a_duty_of_a_call() {
        let reason = |code: &str| ReasonRecord { code: code.to_owned(), ..ReasonRecord::default() };
        let decision = DecisionRecord {
            effect: "permit".to_owned(),
            reasons: vec![reason("open"), reason("a:b")],
            obligations: vec!["hold:second-pair".to_owned(), "redact".to_owned()],
            ..DecisionRecord::default()
        };
        let operation = OperationRecord {
            effect: "write".to_owned(),
            environments: vec!["staging".to_owned(), "production".to_owned()],
            ..OperationRecord::default()
        };
        let entry = JournalRecord {
            decision: Some(decision),
            operation: Some(operation),
            ..JournalRecord::default()
        };
        for (rule, found) in [
            ("open", true),
            ("a:b", true),
            ("second-pair", true),
            ("redact", true),
            ("hold:second-pair", false),
            ("b", false),
            ("", false),
        ] {
            let filter = Filter::default().and(Field::Rule, rule);
            assert_eq!(filter.admits(&entry), found, "{rule}");
        }
        for (field, value, found) in [
            (Field::Effect, "write", true),
            (Field::Effect, "read", false),
            (Field::Environment, "production", true),
            (Field::Environment, "prod", false),
        ] {
            let filter = Filter::default().and(field, value);
            assert_eq!(filter.admits(&entry), found, "{value}");
            assert!(!filter.admits(&JournalRecord::default()), "there is no operation");
        }
    }

    #[test]
    fn every_question_must_be_answered() {
        let entry = JournalRecord {
            event: "denial".to_owned(),
            time: "2026-11-20T08:00:00.000000Z".to_owned(),
            server: Some("flags".to_owned()),
            call: Some("0123456789abcdef".to_owned()),
            ..JournalRecord::default()
        };
        let any = Filter::default;
        let at = |since: &str, until: &str| Filter {
            since: Some(since.to_owned()),
            until: Some(until.to_owned()),
            ..Filter::default()
        };
        let before = "2026-11-20T07:59:59.999999Z";
        let exact = "2026-11-20T08:00:00.000000Z";
        let after = "2026-11-20T08:00:00.000001Z";
        let cases = [
            (any(), true),
            (any().and(Field::Server, "other").and(Field::Server, "flags"), true),
            (any().and(Field::Server, "other"), false),
            (any().and(Field::Server, "flags").and(Field::Tool, "delete"), false),
            (any().and(Field::Call, "01234567"), true),
            (any().and(Field::Call, "0123456"), false),
            (at(exact, after).and(Field::Event, "denial"), true),
            (at(before, exact), false),
            (at(after, after), false),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.admits(&entry), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_held_call_is_neither_permitted_nor_denied() {
        let line = LINE.replace("\"event\":\"outcome\"", "\"event\":\"hold\"");
        let line = line.replace("\"effect\":\"deny\"", "\"effect\":\"permit\"");
        for (value, found) in [(HELD, true), ("permit", false), ("deny", false)] {
            let matcher = Matcher::new(&Filter::default().and(Field::Decision, value));
            assert_eq!(matcher.read(line.as_bytes()).unwrap().is_some(), found, "{value}");
        }
    }

    /// A line with every field, as the journal writes it.
    const LINE: &str = "{\"seq\":4,\"boot\":\"b\",\"prev\":\"\",\"schema\":1,\"event\":\"outcome\",\
        \"time\":\"2026-11-20T08:00:00.000000Z\",\"uptime_us\":1,\"call\":\"0123456789abcdef\",\
        \"principal\":\"agent-1\",\"session\":\"5e\",\"client\":{\"name\":\"cursor\",\"version\":\"1\"},\
        \"peer\":\"10.0.0.1\",\"server\":\"flags\",\"method\":\"tools/call\",\
        \"target\":{\"tool\":\"say \\\"hi\\\"\"},\"operation\":{\"effect\":\"write\",\
        \"environments\":[\"staging\",\"*\"],\"environment_source\":\"arguments\",\"tags\":[]},\
        \"decision\":{\"effect\":\"deny\",\"enforced\":true,\"reasons\":[{\"code\":\"no\",\
        \"message\":\"m\",\"origin\":\"rule\"}],\"obligations\":[\"hold:pair\"],\"policy\":\"p\",\
        \"engine\":\"strict\"},\"outcome\":\"ok\",\"finding\":\"tool_denied\",\
        \"maestro\":{\"layer\":\"L7\",\"layer.name\":\"Agent Ecosystem\",\"threats\":[]}}";

    #[test]
    fn the_bytes_of_a_line_rule_out_no_record_that_is_wanted() {
        let entry = JournalRecord::read(LINE.as_bytes()).unwrap();
        for field in Field::ALL {
            let mut values = Vec::new();
            field.any(&entry, &mut |value| {
                values.push(value.to_owned());
                false
            });
            assert!(!values.is_empty(), "the line shows {field:?}");
            for value in values {
                let matcher = Matcher::new(&Filter::default().and(field, &*value));
                assert!(matcher.may_admit(LINE.as_bytes()), "{field:?} {value}");
                assert!(matcher.read(LINE.as_bytes()).unwrap().is_some(), "{field:?} {value}");
            }
            let other = Matcher::new(&Filter::default().and(field, "zz-other"));
            assert!(!other.may_admit(LINE.as_bytes()), "{field:?}");
        }
        assert_eq!(time_of(LINE.as_bytes()).unwrap(), entry.time.as_bytes());
        assert_eq!(call_of(LINE.as_bytes()).unwrap(), b"0123456789abcdef");
    }

    #[test]
    fn a_closed_field_has_the_values_that_records_have() {
        let layers = Field::Layer.known().unwrap();
        assert!(Finding::ALL.iter().all(|it| layers.contains(&it.tags().maestro.layer)));
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Some(field));
        }
    }
}
