//! What happened in a time, for people: `bartizan audit report`.
//!
//! [`Report::read`] reads the journal once and counts; [`sections`](view) says what a report has, and
//! [`text`], [`markdown`] and [`html`] write it. Names are chosen by others, so each table counts a
//! bounded number of them ([`count`]) and says how many calls the rest had; texts that peers sent are
//! escaped wherever they are written.

mod chart;
mod count;
pub mod html;
pub mod markdown;
pub mod text;
mod view;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use self::count::{Timeline, Top};
use super::beginning::Beginning;
use super::calls::{Call, Calls};
use super::entry::JournalRecord;
use super::filter::Filter;
use super::formats::each;
use super::pretty;
use super::tail::ReadError;

/// Events of the program that a report lists; the rest is counted.
const EVENTS_MAX: usize = 100;
/// Findings that are told apart; there are about twenty.
const FINDINGS_MAX: usize = 200;
/// Characters of a name that are kept.
const NAME_CHARS_MAX: usize = 120;

/// What stands for a name that a record does not have.
const NONE: &str = "-";

/// What was decided of a call, in the order in which a report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Verdict {
    Permitted,
    /// It was denied, and let through in observe mode.
    Observed,
    /// It waits for an approval.
    Held,
    Denied,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Permitted, Self::Observed, Self::Held, Self::Denied];

    fn name(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Observed => "denied, not enforced",
            Self::Held => "waiting",
            Self::Denied => "denied",
        }
    }
}

/// A finding and how often it was made.
#[derive(Debug, Default)]
struct FindingCount {
    layer: String,
    layer_name: String,
    threats: Vec<String>,
    strength: String,
    count: u64,
    last: String,
}

/// What approvers did.
#[derive(Debug, Default)]
struct Holds {
    asked: u64,
    granted: u64,
    refused: u64,
    expired: u64,
    cancelled: u64,
    /// Answers that did not count.
    invalid: u64,
    /// By approver, answer, principal, tool and reason.
    answers: Top<[String; 5]>,
}

/// An event of the program itself.
#[derive(Debug)]
struct ProgramEvent {
    time: String,
    event: String,
    text: String,
}

/// Events of the program itself, of which the first are kept.
#[derive(Debug, Default)]
struct ProgramEvents {
    kept: Vec<ProgramEvent>,
    more: u64,
}

impl ProgramEvents {
    fn push(&mut self, record: &JournalRecord, text: String) {
        if self.kept.len() >= EVENTS_MAX {
            self.more = self.more.saturating_add(1);
            return;
        }
        let (time, event) = (record.time.clone(), record.event.clone());
        self.kept.push(ProgramEvent { time, event, text });
    }
}

/// What happened in a time.
#[derive(Debug, Default)]
pub struct Report {
    since: Option<String>,
    until: Option<String>,
    first: Option<String>,
    last: Option<String>,
    /// Where the journal begins, if earlier records are gone that the report would be about.
    beginning: Option<Beginning>,
    calls: u64,
    verdicts: BTreeMap<Verdict, u64>,
    /// Calls over time, by verdict.
    timeline: Timeline<4>,
    /// By effect, environment and verdict.
    operations: Top<(String, String, Verdict)>,
    findings: BTreeMap<String, FindingCount>,
    /// Denied calls, by rule, tool and principal.
    denied: Top<[String; 3]>,
    /// By principal, and whether they were denied.
    principals: Top<(String, bool)>,
    holds: Holds,
    /// Calls over a limit, by limit, principal and tool.
    limited: Top<[String; 3]>,
    /// Tools that are not as the lock has them, or have what people do not see: by server, tool and
    /// what it is.
    drift: Top<[String; 3]>,
    /// Calls that did not end well, by server and how they ended.
    failures: Top<[String; 2]>,
    /// Starts, stops, policies, recoveries.
    changes: ProgramEvents,
    /// Gaps, and services that failed.
    sinks: ProgramEvents,
    unreadable: u64,
}

impl Report {
    /// Reads the calls with a record that `filter` admits.
    ///
    /// # Errors
    ///
    /// As [`Scan::run`](super::scan::Scan::run).
    pub fn read(directory: &Path, filter: &Filter) -> Result<Self, ReadError> {
        let (since, until) = (filter.since.clone(), filter.until.clone());
        let beginning = Beginning::read(directory)?;
        let beginning = beginning.filter(|it| it.is_after(since.as_deref()));
        let mut report = Self { since, until, beginning, ..Self::default() };
        let mut calls = Calls::whole();
        let unreadable = each(directory, filter, false, |entry, wanted| {
            for call in calls.push(entry, wanted) {
                report.add(&call);
            }
            ControlFlow::Continue(())
        })?;
        for call in calls.finish() {
            report.add(&call);
        }
        report.unreadable = unreadable;
        Ok(report)
    }

    /// Lines of the journal that are no records; the report is about the others.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn add(&mut self, call: &Call) {
        for record in &call.records {
            let time = &record.time;
            if self.first.as_ref().is_none_or(|first| time < first) {
                self.first = Some(time.clone());
            }
            if self.last.as_ref().is_none_or(|last| time > last) {
                self.last = Some(time.clone());
            }
            self.add_finding(record);
            self.add_approval(record);
            self.add_program(record);
        }
        if let Some(verdict) = verdict(call) {
            self.add_call(call, verdict);
        }
    }

    fn add_call(&mut self, call: &Call, verdict: Verdict) {
        let (Some(first), Some(decided)) = (call.records.first(), call.decided()) else { return };
        let times = call.records.last().and_then(|it| it.repeated).unwrap_or(1);
        self.calls = self.calls.saturating_add(times);
        let count = self.verdicts.entry(verdict).or_default();
        *count = count.saturating_add(times);
        let seconds = humantime::parse_rfc3339(&first.time).ok();
        let seconds = seconds.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
        let kind = Verdict::ALL.iter().position(|it| *it == verdict).unwrap_or_default();
        self.timeline.add(seconds.map_or(0, |it| it.as_secs()), kind, times);
        let operation = call.operation();
        let effect = operation.map_or(NONE, |it| it.effect.as_str());
        let environments = operation.map(|it| it.environments.as_slice()).unwrap_or_default();
        let environments = environments.iter().map(String::as_str);
        let none = if environments.len() == 0 { Some(NONE) } else { None };
        for environment in environments.chain(none) {
            self.operations.add((name(effect), name(environment), verdict), times);
        }
        let principal = || name(decided.principal.as_deref().unwrap_or(NONE));
        let denied = matches!(verdict, Verdict::Denied | Verdict::Observed);
        self.principals.add((principal(), denied), times);
        if denied {
            let rule = decided.reason().or(decided.error_type.as_deref()).unwrap_or(NONE);
            self.denied.add([name(rule), subject(decided), principal()], times);
        }
        let limited = call.records.iter().any(|it| it.finding.as_deref() == Some("rate_limited"));
        if limited {
            let rule = decided.reason().unwrap_or(NONE);
            self.limited.add([name(rule), subject(decided), principal()], times);
        }
        if let Some(ended) = call.with("outcome") {
            let outcome = ended.outcome.as_deref().unwrap_or(NONE);
            if !matches!(outcome, "ok" | "accepted") {
                let server = name(ended.server.as_deref().unwrap_or(NONE));
                self.failures.add([server, name(&pretty::outcome(ended))], 1);
            }
        }
    }

    fn add_finding(&mut self, record: &JournalRecord) {
        let Some(finding) = &record.finding else { return };
        let times = record.repeated.unwrap_or(1);
        if !self.findings.contains_key(finding) && self.findings.len() >= FINDINGS_MAX {
            return;
        }
        let known = self.findings.entry(finding.clone()).or_default();
        known.count = known.count.saturating_add(times);
        known.last = record.time.clone().max(std::mem::take(&mut known.last));
        if let Some(maestro) = &record.maestro {
            known.layer.clone_from(&maestro.layer);
            known.layer_name.clone_from(&maestro.layer_name);
            known.threats.clone_from(&maestro.threats);
        }
        known.strength = record.strength.clone().unwrap_or_default();
        let of_tool = matches!(
            finding.as_str(),
            "tool_definition_drift" | "hidden_unicode_tool_description" | "unsafe_tool_schema"
        );
        if !of_tool {
            return;
        }
        // The note says it after a colon.
        let note = record.note.as_deref().unwrap_or(finding);
        let what = note.rsplit_once(": ").map_or(note, |(_, what)| what);
        let server = record.server.as_deref().unwrap_or(NONE);
        self.drift.add([name(server), subject(record), name(what)], times);
    }

    fn add_approval(&mut self, record: &JournalRecord) {
        let holds = &mut self.holds;
        if record.event == "hold" {
            holds.asked = holds.asked.saturating_add(1);
        }
        let Some(approval) = &record.approval else { return };
        let count = match (record.event.as_str(), approval.answer.as_str()) {
            ("approval", _) if record.error_type.is_some() => &mut holds.invalid,
            ("hold_state", "granted") => &mut holds.granted,
            ("hold_state", "refused") => &mut holds.refused,
            ("hold_state", "expired") => &mut holds.expired,
            ("hold_state", "cancelled") => &mut holds.cancelled,
            _ => return,
        };
        *count = count.saturating_add(1);
        let by = approval.by.as_deref().unwrap_or(NONE);
        let principal = record.principal.as_deref().unwrap_or(NONE);
        let answer = match &record.error_type {
            Some(why) => format!("{}, does not count: {why}", approval.answer),
            None => approval.answer.clone(),
        };
        let reason = approval.reason.as_deref().unwrap_or_default();
        let key = [name(by), name(&answer), name(principal), subject(record), name(reason)];
        holds.answers.add(key, 1);
    }

    fn add_program(&mut self, record: &JournalRecord) {
        let note = record.note.clone().unwrap_or_default();
        match record.event.as_str() {
            "start" => {
                let text = record.program.as_ref().map(|program| {
                    format!(
                        "version {}, {} mode, on {}",
                        program.version, program.mode, program.host
                    )
                });
                self.changes.push(record, text.unwrap_or(note));
            }
            "policy" => {
                let revision = record.decision.as_ref().map(|it| it.policy.as_str());
                let text = [revision.unwrap_or_default(), &note];
                let text = text.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>();
                self.changes.push(record, text.join(": "));
            }
            "stop" | "recovery" | "retention" => self.changes.push(record, note),
            "gap" => {
                let text = record.gap.as_ref().map(|gap| {
                    format!("{} records refused since {}: {}", gap.refused, gap.since, gap.cause)
                });
                self.sinks.push(record, text.unwrap_or(note));
            }
            "store" | "webhook" => self.sinks.push(record, note),
            _ => {}
        }
    }
}

/// What was decided of `call`; `None` if it is none: a record of the program, a message that asks
/// nothing, or an answer to a hold that came alone.
fn verdict(call: &Call) -> Option<Verdict> {
    let has = |event: &str| call.with(event).is_some();
    if has("denial") || has("drop") || has("repeated") {
        return Some(Verdict::Denied);
    }
    match (call.with("intent"), call.with("hold")) {
        (Some(intent), _) if intent.is_only_observed() => Some(Verdict::Observed),
        (Some(_), _) => Some(Verdict::Permitted),
        (None, Some(_)) => Some(Verdict::Held),
        (None, None) => has("outcome").then_some(Verdict::Permitted),
    }
}

/// The target of `record`, or its method.
fn subject(record: &JournalRecord) -> String {
    let http = record.http.as_ref().map(|http| http.method.as_str());
    name(record.target_name().or(record.method.as_deref()).or(http).unwrap_or(NONE))
}

/// The beginning of `text`.
fn name(text: &str) -> String {
    let mut short: String = text.chars().take(NAME_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
