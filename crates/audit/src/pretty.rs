//! Formats a record, or a call with all its records, as one line for people.
//!
//! For terminals only; programs should read the JSON lines. All text from peers is escaped and cut
//! to a maximum length, so that neither a tool's name nor an upstream's error can control the
//! terminal.

use std::fmt::Write as _;

use super::calls::Call;
use super::checkpoint::CheckpointMember;
use super::entry::{ApprovalRecord, DecisionRecord, JournalRecord};
use super::inert;

/// Characters shown of one text that a peer sent.
const TEXT_CHARS_MAX: usize = 200;

/// Reasons, and hidden names, that are shown of one record.
const SHOWN_MAX: usize = 5;

/// Whether to use ANSI colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// ANSI escape sequences for colour.
    Ansi,
    /// Plain text.
    None,
}

/// `entry` as one line, without LF.
pub fn line(entry: &JournalRecord, colour: Colour) -> String {
    let mut out = String::new();
    inert::push(&mut out, &entry.time, 40);
    // Writing to a `String` cannot fail.
    write!(out, " {:>6} ", entry.seq).unwrap_or_default();
    push_verdict(&mut out, entry, colour);
    for part in [&entry.server, &entry.method] {
        push_part(&mut out, " ", part.as_deref());
    }
    push_part(&mut out, " ", entry.target_name());
    push_part(&mut out, " by ", entry.principal.as_deref());
    push_part(&mut out, " from ", entry.peer.as_deref());
    if let Some(repeated) = entry.repeated {
        write!(out, " {repeated} times more").unwrap_or_default();
        push_part(&mut out, " since ", entry.since.as_deref());
    }
    if let Some(decision) = &entry.decision {
        push_reasons(&mut out, decision);
    }
    if let Some(approval) = &entry.approval {
        push_approval(&mut out, approval);
    }
    push_part(&mut out, " error ", entry.error_type.as_deref());
    push_part(&mut out, " finding ", entry.finding.as_deref());
    push_part(&mut out, " layer ", entry.maestro.as_ref().map(|maestro| maestro.layer.as_str()));
    if !entry.hidden.is_empty() {
        let listed = u64::try_from(entry.hidden.len()).unwrap_or(u64::MAX);
        let hidden = listed.saturating_add(entry.hidden_more);
        write!(out, " hides {hidden}:").unwrap_or_default();
        push_some(&mut out, entry.hidden.iter().map(String::as_str));
    }
    if let Some(gap) = &entry.gap {
        write!(out, " refused {} records", gap.refused).unwrap_or_default();
        push_part(&mut out, " since ", Some(&gap.since));
        push_part(&mut out, ": ", Some(&gap.cause));
    }
    if let Some(checkpoint) = entry.checkpoint.as_ref().and_then(CheckpointMember::unchecked) {
        write!(out, " signs the records 1 to {}", checkpoint.size).unwrap_or_default();
        push_part(&mut out, " as ", Some(&checkpoint.origin));
    }
    push_part(&mut out, " ", entry.note.as_deref());
    push_part(&mut out, " call ", entry.call.as_deref());
    if let Some(micros) = entry.duration_us {
        write!(out, " {micros} µs").unwrap_or_default();
    }
    out
}

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const DIM: &str = "\u{1b}[2m";

fn push_verdict(out: &mut String, entry: &JournalRecord, colour: Colour) {
    let not_enforced = entry.is_only_observed();
    let (word, start) = match entry.event.as_str() {
        "intent" if not_enforced => ("would deny", YELLOW),
        "intent" => ("permit", GREEN),
        "denial" => ("deny", RED),
        "outcome" => (entry.outcome.as_deref().unwrap_or("outcome"), DIM),
        "gap" | "recovery" | "drop" => (entry.event.as_str(), YELLOW),
        other => (other, DIM),
    };
    push_word(out, word, 10, start, colour);
}

/// `word` in a column of so many characters, with the colour that `start` begins.
fn push_word(out: &mut String, word: &str, width: usize, start: &str, colour: Colour) {
    let mut shown = String::new();
    inert::push(&mut shown, word, 20);
    match colour {
        Colour::Ansi => write!(out, "{start}{shown:<width$}\u{1b}[0m").unwrap_or_default(),
        Colour::None => write!(out, "{shown:<width$}").unwrap_or_default(),
    }
}

/// Widths of the columns of [`call_line`], characters. With them and the longest short names, a line
/// fits on a terminal of 100 columns.
const VERDICT_WIDTH: usize = 8;
const END_WIDTH: usize = 18;
const EFFECT_WIDTH: usize = 11;
const ENVIRONMENT_WIDTH: usize = 10;
/// Digits of a call's id that are shown; `--call` takes them.
const CALL_DIGITS: usize = super::filter::CALL_DIGITS_MIN;

/// `call` as one line, without LF: time, verdict, how it ended and after how long (or the code of
/// the rule that denied it), effect, environment, who called, on which server, what, and the first
/// digits of its id.
pub fn call_line(call: &Call, colour: Colour) -> String {
    let (Some(first), Some(decided)) = (call.records.first(), call.decided()) else {
        return String::new();
    };
    let mut out = String::new();
    push_cell(&mut out, &short_time(&first.time), 14);
    let (word, start) = verdict(call);
    push_word(&mut out, word, VERDICT_WIDTH, start, colour);
    out.push(' ');
    push_cell(&mut out, &end(call), END_WIDTH);
    let operation = call.operation();
    let effect = operation.map_or("-", |it| it.effect.as_str());
    push_cell(&mut out, effect, EFFECT_WIDTH);
    let environments = operation.map(|it| it.environments.join(",")).unwrap_or_default();
    let environments = if environments.is_empty() { "-".to_owned() } else { environments };
    push_cell(&mut out, &environments, ENVIRONMENT_WIDTH);
    let sender = decided.principal.as_deref().or(decided.peer.as_deref());
    inert::push(&mut out, sender.unwrap_or("-"), TEXT_CHARS_MAX);
    push_part(&mut out, " ", decided.server.as_deref());
    out.push(if decided.server.is_some() { ':' } else { ' ' });
    push_subject(&mut out, decided);
    if word == "(deny)" {
        push_part(&mut out, " ", decided.reason());
    }
    if let Some(id) = &decided.call {
        let digits: String = id.chars().take(CALL_DIGITS).collect();
        push_part(&mut out, " ", Some(&digits));
    }
    push_part(&mut out, " ", decided.note.as_deref());
    out
}

/// `text` in a column of so many characters, cut if it is longer, and a space.
fn push_cell(out: &mut String, text: &str, width: usize) {
    let mut shown = String::new();
    inert::push(&mut shown, text, TEXT_CHARS_MAX);
    if shown.chars().count() > width {
        shown = shown.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    write!(out, "{shown:<width$} ").unwrap_or_default();
}

/// Month, day and time of day of a time as records have it.
fn short_time(time: &str) -> String {
    match (time.get(5..10), time.get(11..19)) {
        (Some(day), Some(clock)) => format!("{day} {clock}"),
        _ => time.to_owned(),
    }
}

/// The tool that was called; of other methods the method, and what it is about.
fn push_subject(out: &mut String, entry: &JournalRecord) {
    let tool = entry.target.as_ref().and_then(|target| target.tool.as_deref());
    match (tool, &entry.method, entry.target_name()) {
        (Some(tool), ..) => inert::push(out, tool, TEXT_CHARS_MAX),
        (None, Some(method), target) => {
            inert::push(out, method, TEXT_CHARS_MAX);
            push_part(out, " ", target);
        }
        (None, None, _) => out.push('-'),
    }
}

/// The word for what was decided, and the colour for it.
pub(super) fn verdict(call: &Call) -> (&str, &'static str) {
    let observed = JournalRecord::is_only_observed;
    let last = call.records.last().map_or("", |it| it.event.as_str());
    match last {
        "denial" => return ("deny", RED),
        "intent" | "outcome" | "approval" | "hold" | "hold_state" | "repeated" => {}
        "drop" | "gap" | "recovery" => return (last, YELLOW),
        _ => return (last, DIM),
    }
    match (call.with("denial"), call.with("intent"), call.with("hold")) {
        (Some(_), ..) => ("deny", RED),
        (_, Some(intent), _) if observed(intent) => ("(deny)", YELLOW),
        (_, Some(_), _) => ("permit", GREEN),
        (_, _, Some(_)) => ("held", YELLOW),
        _ => (last, DIM),
    }
}

/// How the call ended and after how long, or why it was denied.
fn end(call: &Call) -> String {
    let code = || call.decided().and_then(JournalRecord::reason).unwrap_or_default().to_owned();
    if call.with("denial").is_some() {
        return code();
    }
    if let Some(ended) = call.with("outcome") {
        let duration = ended.duration_us.map(duration).unwrap_or_default();
        let outcome = outcome(ended);
        let width = END_WIDTH.saturating_sub(outcome.chars().count().saturating_add(1));
        return format!("{outcome} {duration:>width$}");
    }
    let Some(last) = call.records.last() else { return String::new() };
    match (last.event.as_str(), &last.approval, last.repeated) {
        ("approval" | "hold_state", Some(approval), _) => match &approval.by {
            Some(by) => format!("{} by {by}", approval.answer),
            None => approval.answer.clone(),
        },
        ("repeated", _, Some(repeated)) => format!("{repeated} times more"),
        ("intent", ..) => "open".to_owned(),
        ("hold" | "drop", ..) => code(),
        _ => last.error_type.clone().unwrap_or_default(),
    }
}

/// The outcome, with the code of the error if that says more.
pub(super) fn outcome(entry: &JournalRecord) -> String {
    let outcome = entry.outcome.as_deref().unwrap_or_default();
    match &entry.error_type {
        Some(code) if outcome == "error" => format!("{outcome} {code}"),
        _ => outcome.to_owned(),
    }
}

/// A duration in µs for people, in at most seven characters up to a day.
pub(super) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        100_000..10_000_000 => format!("{} ms", micros / 1_000),
        10_000_000..600_000_000 => format!("{} s", micros / 1_000_000),
        _ => format!("{} min", micros / 60_000_000),
    }
}

pub(super) fn push_part(out: &mut String, before: &str, part: Option<&str>) {
    if let Some(part) = part {
        out.push_str(before);
        inert::push(out, part, TEXT_CHARS_MAX);
    }
}

fn push_reasons(out: &mut String, decision: &DecisionRecord) {
    for reason in decision.reasons.iter().take(SHOWN_MAX) {
        push_part(out, " [", Some(&reason.code));
        push_part(out, ": ", Some(&reason.message));
        out.push(']');
    }
    if decision.reasons.len() > SHOWN_MAX {
        out.push_str(" […]");
    }
}

fn push_approval(out: &mut String, approval: &ApprovalRecord) {
    push_part(out, " hold ", Some(&approval.hold));
    push_part(out, ": ", Some(&approval.answer));
    push_part(out, " by ", approval.by.as_deref());
    push_part(out, " for ", approval.scope.as_deref());
    push_part(out, ": ", approval.reason.as_deref());
}

fn push_some<'a>(out: &mut String, texts: impl Iterator<Item = &'a str>) {
    let mut shown = 0;
    for text in texts {
        if shown == SHOWN_MAX {
            out.push_str(" …");
            return;
        }
        push_part(out, " ", Some(text));
        shown = shown.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{OperationRecord, ReasonRecord, TargetRecord};
    use super::*;

    fn denial() -> JournalRecord {
        JournalRecord {
            seq: 12,
            event: "denial".to_owned(),
            time: "2026-11-20T08:00:00.000000Z".to_owned(),
            server: Some("flags".to_owned()),
            method: Some("tools/call".to_owned()),
            principal: Some("agent-1".to_owned()),
            target: Some(TargetRecord {
                tool: Some("delete\u{1b}[2J\u{202e}".to_owned()),
                ..TargetRecord::default()
            }),
            decision: Some(DecisionRecord {
                effect: "deny".to_owned(),
                enforced: true,
                reasons: vec![ReasonRecord {
                    code: "destructive".to_owned(),
                    message: "not\nhere".to_owned(),
                    origin: "policy".to_owned(),
                }],
                ..DecisionRecord::default()
            }),
            call: Some("c1".to_owned()),
            ..JournalRecord::default()
        }
    }

    #[test]
    fn a_denial_reads_well_and_cannot_steer_the_terminal() {
        assert_eq!(
            line(&denial(), Colour::None),
            "2026-11-20T08:00:00.000000Z     12 deny       flags tools/call \
             delete\\u{1b}[2J\\u{202e} by agent-1 [destructive: not\\u{a}here] call c1"
        );
    }

    fn call(records: &[JournalRecord]) -> Call {
        Call { records: records.to_vec() }
    }

    fn allowed() -> (JournalRecord, JournalRecord) {
        let mut intent = denial();
        intent.event = "intent".to_owned();
        intent.call = Some("0123456789abcdef".to_owned());
        intent.target.as_mut().unwrap().tool = Some("update_flag".to_owned());
        intent.operation = Some(OperationRecord {
            effect: "write".to_owned(),
            environments: vec!["staging".to_owned()],
            ..OperationRecord::default()
        });
        let mut outcome = intent.clone();
        outcome.event = "outcome".to_owned();
        outcome.decision = None;
        outcome.outcome = Some("ok".to_owned());
        outcome.duration_us = Some(2_940);
        (intent, outcome)
    }

    #[test]
    fn a_call_is_one_line_on_a_terminal_of_100_columns() {
        let (mut intent, outcome) = allowed();
        intent.decision.as_mut().unwrap().effect = "permit".to_owned();
        let end = "write       staging    agent-1 flags:update_flag 01234567";
        let line = |records: &[JournalRecord]| call_line(&call(records), Colour::None);
        let permitted = line(&[intent.clone(), outcome.clone()]);
        assert_eq!(permitted, format!("11-20 08:00:00 permit   ok          2.9 ms {end}"));
        assert!(permitted.chars().count() <= 100);
        let open = line(&[intent.clone()]);
        assert_eq!(open, format!("11-20 08:00:00 permit   open               {end}"));
        let mut denied = intent.clone();
        denied.event = "denial".to_owned();
        denied.decision.as_mut().unwrap().reasons[0].code = "a-code-that-is-very-long".to_owned();
        let denied = line(&[denied]);
        assert_eq!(denied, format!("11-20 08:00:00 deny     a-code-that-is-ve… {end}"));
        let decision = intent.decision.as_mut().unwrap();
        (decision.effect, decision.enforced) = ("deny".to_owned(), false);
        let observed = line(&[intent, outcome]);
        assert!(observed.contains(" (deny)   ok "), "{observed}");
        assert!(observed.contains(" agent-1 flags:update_flag destructive 01234567"), "{observed}");
    }

    #[test]
    fn a_call_that_was_held_says_how_that_ended() {
        let (intent, outcome) = allowed();
        let mut hold = intent.clone();
        hold.event = "hold".to_owned();
        let mut approval = intent.clone();
        approval.event = "approval".to_owned();
        approval.approval = Some(ApprovalRecord {
            answer: "grant".to_owned(),
            by: Some("alice".to_owned()),
            ..ApprovalRecord::default()
        });
        let mut refused = intent.clone();
        refused.event = "denial".to_owned();
        for (records, expected) in [
            (vec![hold.clone()], " held     destructive "),
            (vec![approval.clone()], " approval grant by alice "),
            (vec![hold.clone(), approval.clone()], " held     grant by alice "),
            (vec![hold.clone(), approval, intent, outcome], " permit   ok  "),
            (vec![hold, refused], " deny     destructive "),
        ] {
            let line = call_line(&call(&records), Colour::None);
            assert!(line.contains(expected), "{expected}: {line}");
        }
    }

    #[test]
    fn a_call_cannot_steer_the_terminal() {
        let mut entry = denial();
        for text in [&mut entry.principal, &mut entry.server, &mut entry.call, &mut entry.note] {
            *text = Some("\u{1b}[2J\u{202e}\n".to_owned());
        }
        for text in [&mut entry.time, &mut entry.event] {
            *text = "\u{1b}]0;x\u{7}".to_owned();
        }
        entry.decision.as_mut().unwrap().reasons[0].code = "\u{1b}c".to_owned();
        let line = call_line(&call(&[entry]), Colour::None);
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
    }

    #[test]
    fn durations_are_short() {
        for (micros, expected) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (99_999, "99.9 ms"),
            (9_999_999, "9999 ms"),
            (599_999_999, "599 s"),
            (86_400_000_000, "1440 min"),
        ] {
            assert_eq!(duration(micros), expected);
        }
    }

    #[test]
    fn colour_is_ours_alone() {
        let coloured = line(&denial(), Colour::Ansi);
        assert_eq!(coloured.matches('\u{1b}').count(), 2, "{coloured:?}");
        assert!(coloured.contains("\u{1b}[31mdeny      \u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn an_answer_of_an_approver_says_who_and_why() {
        let mut entry = denial();
        entry.event = "approval".to_owned();
        entry.decision = None;
        entry.approval = Some(ApprovalRecord {
            hold: "3f2a".to_owned(),
            answer: "grant".to_owned(),
            by: Some("alice\u{202e}".to_owned()),
            reason: Some("checked\u{1b}[2J".to_owned()),
            scope: Some("same-tool-15m".to_owned()),
        });
        assert_eq!(
            line(&entry, Colour::None),
            "2026-11-20T08:00:00.000000Z     12 approval   flags tools/call \
             delete\\u{1b}[2J\\u{202e} by agent-1 hold 3f2a: grant by alice\\u{202e} for \
             same-tool-15m: checked\\u{1b}[2J call c1"
        );
    }

    #[test]
    fn what_is_not_enforced_says_so() {
        let mut entry = denial();
        entry.event = "intent".to_owned();
        entry.decision.as_mut().unwrap().enforced = false;
        assert!(line(&entry, Colour::None).contains(" would deny "));
    }
}
