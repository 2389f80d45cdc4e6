//! Calls as comma-separated values (RFC 4180): a header, then one line for each call.
//!
//! Spreadsheets take a cell that begins with `=`, `+`, `-`, `@` or a control character for a formula,
//! and names in records are chosen by others. Such a cell gets an apostrophe before it, unless it is
//! a number. Characters that are not seen, line ends among them, are written as `\u{…}`, so every call
//! is one line.

use std::borrow::Cow;

use super::Convert;
use crate::calls::Call;
use crate::entry::JournalRecord;
use crate::filter::HELD;
use crate::inert;
use crate::pretty;

/// The columns, as the header names them. A column that is added comes last.
pub const COLUMNS: [&str; 31] = [
    "time",
    "call",
    "seq",
    "session",
    "principal",
    "client",
    "peer",
    "server",
    "direction",
    "method",
    "target",
    "operation",
    "effect",
    "environments",
    "environment_source",
    "verdict",
    "decision",
    "enforced",
    "codes",
    "policy",
    "approval",
    "approved_by",
    "outcome",
    "error",
    "findings",
    "layers",
    "duration_us",
    "request_bytes",
    "answer_bytes",
    "repeated",
    "trace_id",
];

/// Characters with which a formula begins in some program: those of ASCII, and their wide forms, which
/// some programs take for them.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Characters at which some program splits a line into cells. A tab is escaped.
const SEPARATORS: [char; 3] = [',', ';', '|'];

/// The answer of approvers to a call that waits for one.
const PENDING: &str = "pending";

/// Characters of a cell at most.
const CELL_CHARS_MAX: usize = 4096;

/// The converter.
pub(super) struct Table;

impl Convert for Table {
    fn begin(&mut self, out: &mut Vec<u8>) {
        push_line(&COLUMNS.map(Cow::Borrowed), out);
    }

    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        // What stands alone and is no call: the program's own records, and late answers to a hold.
        let is_call = call.records.iter().any(|record| {
            record.call.is_some() && !matches!(record.event.as_str(), "approval" | "hold_state")
        });
        if is_call {
            push_line(&cells(&call), out);
        }
    }
}

/// The values of `call` in the order of [`COLUMNS`].
fn cells(call: &Call) -> [Cow<'_, str>; COLUMNS.len()] {
    let records = &call.records;
    let any = |of: &dyn Fn(&JournalRecord) -> Option<String>| -> Cow<'_, str> {
        records.iter().find_map(of).unwrap_or_default().into()
    };
    let all = |of: &dyn Fn(&JournalRecord) -> Option<&str>| -> Cow<'_, str> {
        let mut values: Vec<&str> = Vec::new();
        for value in records.iter().filter_map(of) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values.join(";").into()
    };
    let decided = call.decided().and_then(|it| it.decision.as_ref());
    let decision = |of: &dyn Fn(&crate::entry::DecisionRecord) -> String| -> Cow<'_, str> {
        decided.map(of).unwrap_or_default().into()
    };
    let is_held = decided.is_some() && call.decided().is_some_and(|it| it.event == "hold");
    let is_pending = is_held && !call.has_ended() && records.iter().all(|it| it.approval.is_none());
    let operation = call.operation();
    let operation =
        |of: &dyn Fn(&crate::entry::OperationRecord) -> Option<String>| -> Cow<'_, str> {
            operation.and_then(of).unwrap_or_default().into()
        };
    let number = |value: Option<u64>| -> Cow<'_, str> {
        value.map(|value| value.to_string()).unwrap_or_default().into()
    };
    let (first, last) = (records.first(), records.last());
    [
        any(&|it| Some(it.time.clone())),
        any(&|it| it.call.clone()),
        number(first.map(|it| it.seq)),
        any(&|it| it.session.clone()),
        any(&|it| it.principal.clone()),
        any(&|it| it.client.as_ref().map(|client| format!("{} {}", client.name, client.version))),
        any(&|it| it.peer.clone()),
        any(&|it| it.server.clone()),
        any(&|it| it.direction.clone()),
        any(&|it| it.method.clone()),
        any(&|it| it.target_name().map(str::to_owned)),
        operation(&|it| it.name.clone()),
        operation(&|it| Some(it.effect.clone())),
        operation(&|it| Some(it.environments.join(";"))),
        operation(&|it| Some(it.environment_source.clone())),
        pretty::verdict(call).0.into(),
        if is_held { HELD.into() } else { decision(&|it| it.effect.clone()) },
        decision(&|it| it.enforced.to_string()),
        decision(&|it| it.reasons.iter().map(|it| &*it.code).collect::<Vec<_>>().join(";")),
        decision(&|it| it.policy.clone()),
        if is_pending { PENDING.into() } else { all(&|it| Some(&*it.approval.as_ref()?.answer)) },
        all(&|it| it.approval.as_ref()?.by.as_deref()),
        all(&|it| it.outcome.as_deref()),
        any(&|it| it.error_type.clone()),
        all(&|it| it.finding.as_deref()),
        all(&|it| it.maestro.as_ref().map(|it| &*it.layer)),
        number(last.and_then(|it| it.duration_us)),
        number(first.and_then(|it| it.bytes)),
        number(call.with("outcome").and_then(|it| it.bytes)),
        number(last.and_then(|it| it.repeated)),
        any(&|it| it.trace_id.clone()),
    ]
}

fn push_line(cells: &[Cow<'_, str>], out: &mut Vec<u8>) {
    for (number, cell) in cells.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        push_cell(cell, out);
    }
    out.extend(b"\r\n");
}

fn push_cell(cell: &str, out: &mut Vec<u8>) {
    let is_number = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
    };
    let mut inert = String::new();
    inert::push(&mut inert, cell, CELL_CHARS_MAX);
    let mut text = String::new();
    // In some countries a program splits lines at another character, also between quotation marks,
    // so what follows one may become a cell.
    let mut begins = !is_number(cell);
    for c in inert.chars() {
        if begins && FORMULA.contains(&c) {
            text.push('\'');
        }
        begins = SEPARATORS.contains(&c) || (begins && matches!(c, ' ' | '"' | '\''));
        text.push(c);
    }
    if text.contains(['"', ',', ';', '\'', ' ']) {
        out.push(b'"');
        out.extend(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_stays_on_its_line() {
        for (cell, expected) in [
            ("", ""),
            ("update_flag", "update_flag"),
            ("-31003", "-31003"),
            ("=1+1", "\"'=1+1\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("-2+3", "\"'-2+3\""),
            ("-", "\"'-\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("＝1", "\"'＝1\""),
            ("\t=1", "\\u{9}=1"),
            ("a;=1+1", "\"a;'=1+1\""),
            ("a, \"-1|@x;b-c", "\"a, \"\"'-1|'@x;b-c\""),
            (";;  ＝1", "\";;  '＝1\""),
            (" =1", "\" '=1\""),
            ("a-b=c@d", "a-b=c@d"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("say \"hi\", you", "\"say \"\"hi\"\", you\""),
            ("\u{202e}x", "\\u{202e}x"),
        ] {
            let mut out = Vec::new();
            push_cell(cell, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{cell}");
        }
    }
}
