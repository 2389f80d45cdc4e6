//! Formats a record as one line for people.
//!
//! For terminals only; programs should read the JSON lines. All text from peers is escaped and cut
//! to a maximum length, so that neither a tool's name nor an upstream's error can control the
//! terminal.

use std::fmt::Write as _;

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

fn push_verdict(out: &mut String, entry: &JournalRecord, colour: Colour) {
    const RED: &str = "\u{1b}[31m";
    const GREEN: &str = "\u{1b}[32m";
    const YELLOW: &str = "\u{1b}[33m";
    const DIM: &str = "\u{1b}[2m";
    let not_enforced = entry
        .decision
        .as_ref()
        .is_some_and(|decision| decision.effect == "deny" && !decision.enforced);
    let (word, start) = match entry.event.as_str() {
        "intent" if not_enforced => ("would deny", YELLOW),
        "intent" => ("permit", GREEN),
        "denial" => ("deny", RED),
        "outcome" => (entry.outcome.as_deref().unwrap_or("outcome"), DIM),
        "gap" | "recovery" | "drop" => (entry.event.as_str(), YELLOW),
        other => (other, DIM),
    };
    let mut shown = String::new();
    inert::push(&mut shown, word, 20);
    match colour {
        Colour::Ansi => write!(out, "{start}{shown:<10}\u{1b}[0m").unwrap_or_default(),
        Colour::None => write!(out, "{shown:<10}").unwrap_or_default(),
    }
}

fn push_part(out: &mut String, before: &str, part: Option<&str>) {
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
    use super::super::entry::{ReasonRecord, TargetRecord};
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
