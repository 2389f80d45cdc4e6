//! Tells one conversation as a story: who spoke to whom, and then each call in one line.
//!
//! For people as text, where all text from peers is escaped and cut; for programs as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::calls::Call;
use super::entry::JournalRecord;
use super::inert;
use super::pretty::{Colour, duration, outcome, push_part, verdict};

/// Characters shown of one text that a peer sent.
const TEXT_CHARS_MAX: usize = 200;

/// A conversation.
#[derive(Debug, Clone, Copy)]
pub struct Story<'a> {
    /// The id of the conversation; `None` for a call that belongs to none.
    pub session: Option<&'a str>,
    /// Its calls, oldest first.
    pub calls: &'a [Call],
    /// Whether there are more calls than these.
    pub more: bool,
}

impl Story<'_> {
    fn records(&self) -> impl Iterator<Item = &JournalRecord> {
        self.calls.iter().flat_map(|call| &call.records)
    }

    /// All values that `of` finds, each once.
    fn all(&self, of: impl Fn(&JournalRecord) -> Option<String>) -> Vec<String> {
        self.records().filter_map(of).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What is said of the conversation as a whole, by name.
    fn facts(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![
            ("principal", self.all(|it| it.principal.clone())),
            ("identity", self.all(identity)),
            (
                "client",
                self.all(|it| {
                    let client = it.client.as_ref()?;
                    Some(format!("{} {}", client.name, client.version))
                }),
            ),
            ("peer", self.all(|it| it.peer.clone())),
            ("server", self.all(|it| it.server.clone())),
            (
                "protocol",
                self.all(|it| {
                    let protocol = it.protocol.as_ref()?;
                    Some(format!("{} {}", protocol.revision.as_ref()?, protocol.transport))
                }),
            ),
        ]
    }

    /// The times of its first and last record.
    fn times(&self) -> Option<(&str, &str)> {
        let first = self.records().map(|it| it.time.as_str()).min()?;
        Some((first, self.records().map(|it| it.time.as_str()).max()?))
    }

    /// How many calls were permitted, denied and held.
    fn counts(&self) -> [(&'static str, usize); 3] {
        let number = |of: &dyn Fn(&Call) -> bool| self.calls.iter().filter(|call| of(call)).count();
        [
            ("permitted", number(&|call| matches!(verdict(call).0, "permit" | "(deny)"))),
            ("denied", number(&|call| verdict(call).0 == "deny")),
            ("held", number(&|call| call.with("hold").is_some())),
        ]
    }

    /// As text, each line with its LF.
    pub fn text(&self, colour: Colour) -> String {
        let mut out = String::new();
        push_part(&mut out, "conversation ", Some(self.session.unwrap_or("unknown")));
        out.push('\n');
        for (name, values) in self.facts() {
            if !values.is_empty() {
                write!(out, "  {name:<10} ").unwrap_or_default();
                inert::push(&mut out, &values.join(", "), TEXT_CHARS_MAX);
                out.push('\n');
            }
        }
        if let Some((first, last)) = self.times() {
            out.push_str("  time       ");
            inert::push(&mut out, first, 40);
            out.push_str(" to ");
            inert::push(&mut out, last, 40);
            out.push('\n');
        }
        write!(out, "  calls      {}", self.calls.len()).unwrap_or_default();
        for (number, (name, count)) in self.counts().into_iter().enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            write!(out, "{before}{count} {name}").unwrap_or_default();
        }
        out.push_str(if self.more { "; there are more calls\n\n" } else { "\n\n" });
        for call in self.calls {
            out.push_str(&line(call, colour));
            out.push('\n');
        }
        out
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let facts = self.facts().into_iter();
        let mut all: serde_json::Map<String, Value> =
            facts.map(|(name, values)| (name.to_owned(), values.into())).collect();
        all.insert("session".to_owned(), self.session.into());
        if let Some((first, last)) = self.times() {
            all.insert("began".to_owned(), first.into());
            all.insert("last".to_owned(), last.into());
        }
        for (name, count) in self.counts() {
            all.insert(name.to_owned(), count.into());
        }
        all.insert("more".to_owned(), self.more.into());
        all.insert("calls".to_owned(), self.calls.iter().map(call_json).collect());
        Value::Object(all)
    }
}

fn identity(entry: &JournalRecord) -> Option<String> {
    let identity = entry.identity.as_ref()?;
    let mut text = identity.issuer.clone();
    for (name, value) in [("subject", &identity.subject), ("client", &identity.client_id)] {
        if let Some(value) = value {
            write!(text, " {name} {value}").unwrap_or_default();
        }
    }
    Some(text)
}

/// `call` as one line without LF: when, what, what was decided and why, how it ended.
fn line(call: &Call, colour: Colour) -> String {
    let (Some(first), Some(decided)) = (call.records.first(), call.decided()) else {
        return String::new();
    };
    let mut out = String::new();
    inert::push(&mut out, first.time.get(11..23).unwrap_or(&first.time), 40);
    let tool = decided.target.as_ref().and_then(|target| target.tool.as_deref());
    if tool.is_none() {
        push_part(&mut out, " ", decided.method.as_deref());
    }
    push_part(&mut out, " ", decided.target_name());
    let operation = call.operation();
    if let Some(operation) = operation {
        push_part(&mut out, " (", Some(&operation.effect));
        push_part(
            &mut out,
            ", ",
            (!operation.environments.is_empty())
                .then(|| operation.environments.join(", "))
                .as_deref(),
        );
        out.push(')');
    }
    let (word, start) = verdict(call);
    match colour {
        Colour::Ansi => push_part(&mut out, &format!(": {start}"), Some(word)),
        Colour::None => push_part(&mut out, ": ", Some(word)),
    }
    if colour == Colour::Ansi {
        out.push_str("\u{1b}[0m");
    }
    if let Some(reason) = decided.decision.as_ref().and_then(|it| it.reasons.first()) {
        push_part(&mut out, " by ", Some(&reason.code));
        push_part(&mut out, " (", Some(&reason.message));
        out.push(')');
    }
    push_holds(&mut out, call);
    push_end(&mut out, call);
    push_part(&mut out, " [call ", decided.call.as_deref());
    if decided.call.is_some() {
        out.push(']');
    }
    out
}

/// For what the call was held, and who answered what.
fn push_holds(out: &mut String, call: &Call) {
    if let Some(decision) = call.with("hold").and_then(|hold| hold.decision.as_ref()) {
        let holds = decision.obligations.iter().filter_map(|it| it.strip_prefix("hold:"));
        push_part(out, "; held for ", Some(&holds.collect::<Vec<_>>().join(", ")));
    }
    for entry in &call.records {
        let Some(approval) = &entry.approval else { continue };
        let answer = match approval.answer.as_str() {
            "grant" => "granted",
            "refuse" => "refused",
            "expired" => "expired",
            // In the records of the call itself; told where no answer was.
            _ if call.with("approval").is_some() || entry.event == "outcome" => continue,
            _ => "with a grant",
        };
        push_part(out, "; ", Some(answer));
        push_part(out, " by ", approval.by.as_deref());
        push_part(out, " (", approval.reason.as_deref());
        if approval.reason.is_some() {
            out.push(')');
        }
        push_part(out, ", which does not count: ", entry.error_type.as_deref());
    }
}

/// How it ended, and what was found.
fn push_end(out: &mut String, call: &Call) {
    match call.with("outcome") {
        Some(ended) => {
            push_part(out, "; ", Some(&outcome(ended)));
            push_part(out, " after ", ended.duration_us.map(duration).as_deref());
        }
        None if call.with("intent").is_some() => out.push_str("; has not ended"),
        None => {}
    }
    for entry in &call.records {
        if let Some(redacted) = &entry.redacted {
            write!(out, "; {} places redacted", redacted.count).unwrap_or_default();
        }
        let hidden = u64::try_from(entry.hidden.len()).unwrap_or(u64::MAX);
        let hidden = hidden.saturating_add(entry.hidden_more);
        if hidden > 0 {
            write!(out, "; {hidden} entries hidden").unwrap_or_default();
        }
        if let Some(repeated) = entry.repeated {
            write!(out, "; {repeated} times more").unwrap_or_default();
        }
    }
    let findings: BTreeSet<&str> =
        call.records.iter().filter_map(|it| it.finding.as_deref()).collect();
    for finding in findings {
        push_part(out, "; finding ", Some(finding));
    }
    let note = call.records.iter().find_map(|it| it.note.as_deref());
    push_part(out, "; ", note);
}

fn call_json(call: &Call) -> Value {
    let (Some(first), Some(decided)) = (call.records.first(), call.decided()) else {
        return Value::Null;
    };
    let operation = call.operation();
    let decision = decided.decision.as_ref();
    let reasons: Vec<Value> = decision
        .iter()
        .flat_map(|it| &it.reasons)
        .map(|it| json!({"code": it.code, "message": it.message, "origin": it.origin}))
        .collect();
    let approvals = call.records.iter().filter_map(|it| {
        let approval = it.approval.as_ref()?;
        let told = json!({"hold": approval.hold, "answer": approval.answer, "by": approval.by,
            "reason": approval.reason, "time": it.time});
        (it.event == "approval").then_some(told)
    });
    let ended = call.with("outcome");
    let findings: BTreeSet<&str> =
        call.records.iter().filter_map(|it| it.finding.as_deref()).collect();
    json!({
        "call": decided.call,
        "time": first.time,
        "method": decided.method,
        "target": decided.target_name(),
        "effect": operation.map(|it| &it.effect),
        "environments": operation.map(|it| &it.environments),
        "verdict": verdict(call).0,
        "enforced": decision.map(|it| it.enforced),
        "reasons": reasons,
        "held": call.with("hold").is_some(),
        "approvals": approvals.collect::<Vec<_>>(),
        "outcome": ended.and_then(|it| it.outcome.as_ref()),
        "error": ended.and_then(|it| it.error_type.as_ref()),
        "duration_us": ended.and_then(|it| it.duration_us),
        "redacted": call.records.iter().filter_map(|it| it.redacted.as_ref()).map(|it| it.count).sum::<u64>(),
        "findings": findings,
        "seqs": call.records.iter().map(|it| it.seq).collect::<Vec<_>>(),
    })
}
