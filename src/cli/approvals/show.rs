//! Held calls as text for a terminal. All of what others wrote is escaped.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::held::{Answered, Held, Listed, One};
use bartizan_approvals::parameters::Parameters;
use bartizan_audit::inert;

/// Characters of one text in a table.
const CELL_CHARS_MAX: usize = 40;
/// Characters of one text elsewhere: more than any of them has.
const TEXT_CHARS_MAX: usize = 1 << 20;
/// Characters of an id in a table: enough to tell held calls apart, and to name one.
const ID_CHARS: usize = 12;

/// Least characters of arguments in a table, where the terminal is narrow.
const ARGUMENTS_CHARS_MIN: usize = 16;

const COLUMNS: [&str; 8] = ["ID", "STATE", "LEFT", "SERVER", "CALL", "WHO", "RULE", "ARGUMENTS"];

/// A table of held calls in `state`. The arguments, which stand last, are cut so that a line has at
/// most `columns` characters, if that is known.
pub(super) fn table(listed: &Listed, state: &str, columns: Option<usize>) -> String {
    if listed.approvals.is_empty() {
        return match state {
            "pending" => "no call waits for an approval\n".to_owned(),
            "all" => "no call was held\n".to_owned(),
            "ended" => "no held call has ended\n".to_owned(),
            other => format!("no held call is {other}\n"),
        };
    }
    let rows: Vec<[String; 8]> = listed.approvals.iter().map(row).collect();
    let mut widths = COLUMNS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let heads = COLUMNS.map(str::to_owned);
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        let [cells @ .., arguments] = row;
        for (cell, width) in cells.iter().zip(widths) {
            write!(line, "{cell:<width$}  ").unwrap_or_default();
        }
        let left = columns.map_or(usize::MAX, |all| all.saturating_sub(line.chars().count()));
        line.push_str(&cut(arguments, left.max(ARGUMENTS_CHARS_MIN)));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if listed.more > 0 {
        writeln!(out, "… and {} more", listed.more).unwrap_or_default();
    }
    out
}

/// `text`, of which what does not fit into `chars_max` characters is cut.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept = text.trim_end_matches('…').chars().take(chars_max.saturating_sub(1));
    kept.chain(['…']).collect()
}

fn row(held: &Held) -> [String; 8] {
    let id: String = held.id.chars().take(ID_CHARS).collect();
    [
        cell(&id),
        cell(&held.state),
        if held.state == "pending" || held.state == "granted" { left(held) } else { String::new() },
        cell(&held.server),
        called(held, CELL_CHARS_MAX),
        cell(&held.principal),
        cell(&held.code),
        inert::escaped(&held.excerpt).replace('\n', " "),
    ]
}

/// One held call whole.
pub(super) fn whole(page: &One) -> String {
    let held = &page.approval;
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        writeln!(out, "{key:<11} {value}").unwrap_or_default();
    };
    line("hold", &text(&held.id));
    line("state", &state(held));
    line("asked", &asked(held));
    line("who", &who(held));
    line("server", &text(&held.server));
    line("reaches", &listed(&held.environments, "no environment is known"));
    line("call", &called(held, TEXT_CHARS_MAX));
    if !held.facts.is_empty() {
        let facts = held.facts.iter().map(|(name, value)| format!("{name} {value}"));
        line("selected", &listed(&facts.collect::<Vec<_>>(), ""));
    }
    line("effect", &effect(held));
    line("rule", &format!("{}: {}", text(&held.code), text(&held.message)));
    line("approvers", &approvers(held));
    for answer in &held.answers {
        line("", &answered_by(answer));
    }
    if let Some(other) = &held.granted_through {
        line("", &format!("granted by the scope that came with {}", text(other)));
    }
    for scope in &held.scopes {
        let lasts = time(scope.lasts_ms);
        let what = format!("{}: this tool for {lasts}, {} calls", text(&scope.code), scope.count);
        line("scope", &what);
    }
    line("policy", &text(&held.revision));
    if let Some(definition) = &held.definition {
        line("definition", &text(definition));
    }
    line("decision", &text(&held.call));
    line("digest", &text(&held.digest));
    out.push('\n');
    push_parameters(&mut out, held);
    out
}

fn push_parameters(out: &mut String, held: &Held) {
    let Some(params) = &held.shown else { return };
    writeln!(out, "params, {} bytes:", held.bytes).unwrap_or_default();
    let Some(now) = Parameters::read(params) else {
        // Not JSON: whatever it is, it is shown and cannot control the terminal.
        writeln!(out, "{}", text(params)).unwrap_or_default();
        return;
    };
    out.push_str(&now.pretty());
    out.push('\n');
    match held.previous.as_deref().and_then(Parameters::read) {
        None => out.push_str("No call of this tool by this principal was granted before.\n"),
        Some(before) => {
            let differences = now.differences(&before);
            if differences.is_empty() {
                out.push_str("The same as the last one that was granted.\n");
            } else {
                out.push_str("Against the last one that was granted:\n");
                out.push_str(&differences);
            }
        }
    }
}

/// What a hold is after an answer.
pub(super) fn answered(held: &Held) -> String {
    let grants = held.answers.iter().filter(|answer| answer.verdict == "grant").count();
    let (id, call) = (text(&held.id), called(held, TEXT_CHARS_MAX));
    match held.state.as_str() {
        "pending" => {
            format!("{id}: {grants} of {} approvers have granted {call}\n", held.quorum)
        }
        state => format!("{id}: {} is {}\n", call, text(state)),
    }
}

/// One line about a held call that has come.
pub(super) fn come(held: &Held) -> String {
    format!(
        "held     {} {} by {} on {} under {}, {} left\n",
        text(&held.id),
        called(held, CELL_CHARS_MAX),
        cell(&held.principal),
        cell(&held.server),
        cell(&held.code),
        left(held)
    )
}

/// One line about what has become of a held call.
pub(super) fn gone(held: &Held) -> String {
    let mut line =
        format!("{:<8} {} {}", text(&held.state), text(&held.id), called(held, CELL_CHARS_MAX));
    if let Some(answer) = held.answers.last() {
        write!(line, ": {}", answered_by(answer)).unwrap_or_default();
    }
    line.push('\n');
    line
}

fn state(held: &Held) -> String {
    match held.state.as_str() {
        "pending" => format!("pending, {} left", left(held)),
        "granted" => format!("granted, not sent yet, {} left", left(held)),
        other => format!("{} since {}", text(other), moment(held.changed_unix_ms)),
    }
}

fn asked(held: &Held) -> String {
    let at = moment(held.asked_unix_ms);
    match held.waiting {
        0 => format!("{at}; no call waits for it now"),
        1 => format!("{at}; 1 call waits for it"),
        calls => format!("{at}; {calls} calls wait for it"),
    }
}

fn who(held: &Held) -> String {
    let principal = text(&held.principal);
    match &held.client {
        None => principal,
        // What a client calls itself proves nothing.
        Some(client) => format!("{principal} (the client calls itself \"{}\")", text(client)),
    }
}

fn effect(held: &Held) -> String {
    let effect = text(&held.effect);
    if held.tags.is_empty() { effect } else { format!("{effect}, {}", listed(&held.tags, "")) }
}

fn approvers(held: &Held) -> String {
    let groups = listed(&held.approvers, "any approver");
    if held.quorum > 1 { format!("{groups}; {} must grant it", held.quorum) } else { groups }
}

fn answered_by(answer: &Answered) -> String {
    let verdict = if answer.verdict == "grant" { "granted" } else { "refused" };
    let scope = answer.scope.as_ref().map(|code| format!(" ({})", text(code)));
    let (by, at) = (text(&answer.by), moment(answer.unix_ms));
    format!("{verdict} by {by}{} at {at}: {}", scope.unwrap_or_default(), text(&answer.reason))
}

/// Method and target.
fn called(held: &Held, chars_max: usize) -> String {
    let mut out = String::new();
    inert::push(&mut out, &held.method, chars_max);
    if let Some(target) = &held.target {
        out.push(' ');
        inert::push(&mut out, target, chars_max);
    }
    out
}

fn listed(texts: &[String], none: &str) -> String {
    if texts.is_empty() {
        return none.to_owned();
    }
    texts.iter().map(|one| text(one)).collect::<Vec<_>>().join(", ")
}

/// The time until it expires.
fn left(held: &Held) -> String {
    time(held.expires_in_ms)
}

/// A time in whole seconds, such as `14m 3s`.
fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}

/// A time in UTC.
fn moment(unix_ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(at).to_string()
}

fn cell(of: &str) -> String {
    let mut out = String::new();
    inert::push(&mut out, of, CELL_CHARS_MAX);
    out
}

fn text(of: &str) -> String {
    let mut out = String::new();
    inert::push(&mut out, of, TEXT_CHARS_MAX);
    out
}
