//! The demo's output: plain text, one line for each attempt, without control characters.

use std::io::{self, Write};
use std::path::Path;

use super::agent::Seen;
use super::{AttemptReport, DemoSummary};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::inert;
use bartizan_audit::pretty::{self, Colour};

/// Most characters of one foreign text that are shown.
const TEXT_CHARS_MAX: usize = 400;

/// `text` with control and invisible characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::new();
    inert::push(&mut shown, text, TEXT_CHARS_MAX);
    shown
}

/// Prints the introduction and the table's head.
pub(super) fn opening(
    out: &mut dyn Write,
    title: &str,
    server: &str,
    firewall: &str,
) -> io::Result<()> {
    writeln!(out, "{title} listens at {server}.")?;
    writeln!(out, "Bartizan stands in front of it at {firewall}, pinned to staging.")?;
    writeln!(out, "An agent that is given Bartizan's address now tries its luck.\n")?;
    writeln!(
        out,
        "{:>3}  {:<6}  {:<44}  {:<8}  {:<34}  reached the server",
        "", "era", "attempt", "verdict", "rule"
    )?;
    out.flush()
}

/// Prints one attempt and its result.
pub(super) fn attempt(
    out: &mut dyn Write,
    number: usize,
    report: &AttemptReport,
) -> io::Result<()> {
    writeln!(
        out,
        "{number:>3}  {:<6}  {:<44}  {:<8}  {:<34}  {}",
        report.era,
        report.what,
        report.verdict,
        escaped(&report.rule),
        report.reached_text(),
    )?;
    if let Some(fault) = &report.fault {
        writeln!(out, "     NOT AS EXPECTED: {}", escaped(fault))?;
    }
    out.flush()
}

/// Says that a call waits for a person, and the command with which that person grants it.
pub(super) fn asked(out: &mut dyn Write, command: &str) -> io::Result<()> {
    writeln!(out, "     held: it waits for your answer, 4 minutes at most. In another terminal:")?;
    writeln!(out, "       {command}")?;
    out.flush()
}

/// Says why a call that waited for a person did not pass, if it did not.
pub(super) fn answer_of_person(out: &mut dyn Write, seen: &Seen) -> io::Result<()> {
    if let Seen::Refusal { text, .. } | Seen::Failure(text) = seen {
        writeln!(out, "     it did not pass, and the demo goes on: {}", escaped(text))?;
    }
    out.flush()
}

/// Says that a call is held, and the command that answers it, which the demo runs.
pub(super) fn answered(out: &mut dyn Write, command: &str) -> io::Result<()> {
    writeln!(out, "     held: it waits, until the demo runs this:\n       {command}")?;
    out.flush()
}

/// Where a person answers held calls, and that one waits.
pub(super) fn console(out: &mut dyn Write, admin: &str, token_file: &Path) -> io::Result<()> {
    writeln!(out, "  A call waits for your approval, 4 minutes at most: {admin}/console")?;
    writeln!(out, "  The page asks for a token; it is in {}\n", token_file.display())?;
    out.flush()
}

/// Says what became of the call that waited.
pub(super) fn became(out: &mut dyn Write, seen: &Seen) -> io::Result<()> {
    match seen {
        Seen::Answer(_) => writeln!(out, "  The call that waited has passed.")?,
        Seen::Refusal { text, .. } | Seen::Failure(text) => {
            writeln!(out, "  The call that waited did not pass: {}", escaped(text))?;
        }
    }
    out.flush()
}

/// Prints the audit records, one line each.
pub(super) fn records(out: &mut dyn Write, records: &[JournalRecord]) -> io::Result<()> {
    writeln!(out, "\nThe audit journal of all this:\n")?;
    for entry in records {
        writeln!(out, "{}", pretty::line(entry, Colour::None))?;
    }
    Ok(())
}

/// Prints the summary.
pub(super) fn summary(out: &mut dyn Write, summary: &DemoSummary) -> io::Result<()> {
    writeln!(out, "\nSummary")?;
    writeln!(
        out,
        "  {} attempts: {} passed, {} refused, {} not as expected",
        summary.attempts, summary.passed, summary.refused, summary.faults
    )?;
    writeln!(
        out,
        "  {} messages reached the server, {}",
        summary.reached,
        if summary.altered == 0 {
            "each byte for byte as the agent sent it".to_owned()
        } else {
            format!("{} of them ALTERED on the way", summary.altered)
        }
    )?;
    writeln!(
        out,
        "  production: {}",
        if summary.production_unchanged { "unchanged" } else { "CHANGED" }
    )?;
    match &summary.journal {
        Ok(whole) => writeln!(
            out,
            "  audit: {} records ({} intents, {} denials, {} outcomes), chain verified, head {}",
            whole.records, whole.intents, whole.denials, whole.outcomes, whole.head
        )?,
        Err(fault) => writeln!(out, "  audit: NOT VERIFIED: {}", escaped(fault))?,
    }
    let verdict = if summary.is_as_expected() { "all as expected" } else { "NOT AS EXPECTED" };
    writeln!(out, "  {verdict}")?;
    out.flush()
}

/// How another client can join in.
pub(super) fn invitation(out: &mut dyn Write, url: &str, journal: &Path) -> io::Result<()> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#;
    let snippet = serde_json::json!({"mcpServers": {"flags": {"type": "http", "url": url}}});
    writeln!(
        out,
        "\nStill serving until Ctrl-C; the journal is in {}\n",
        escaped(&journal.to_string_lossy())
    )?;
    writeln!(out, "  curl -s {url} \\\n    -H 'content-type: application/json' \\")?;
    writeln!(out, "    -H 'accept: application/json, text/event-stream' \\\n    -d '{body}'\n")?;
    writeln!(out, "  For a client's configuration:\n\n  {snippet}\n")?;
    out.flush()
}
