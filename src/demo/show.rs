//! What the demo prints: plain text, a line an attempt, nothing that a terminal would obey.

use std::io::{self, Write};

use serde_json::Value;

use super::{Judged, Summary};

/// `text` with every character escaped that a terminal or an eye could be fooled by: controls,
/// bidirectional overrides (UAX #9), zero-width and other invisible ones.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let invisible = matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        );
        if character.is_control() || invisible {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Says what is about to be seen.
pub(super) fn opening(out: &mut dyn Write, server: &str, firewall: &str) -> io::Result<()> {
    writeln!(out, "A flag service listens at {server}.")?;
    writeln!(out, "Bartizan stands in front of it at {firewall}, pinned to staging.")?;
    writeln!(out, "An agent that is given Bartizan's address now tries its luck.\n")?;
    writeln!(
        out,
        "{:>3}  {:<6}  {:<44}  {:<8}  {:<34}  reached the server",
        "", "era", "attempt", "verdict", "rule"
    )?;
    out.flush()
}

/// One attempt and what came of it.
pub(super) fn attempt(out: &mut dyn Write, number: usize, judged: &Judged) -> io::Result<()> {
    writeln!(
        out,
        "{number:>3}  {:<6}  {:<44}  {:<8}  {:<34}  {}",
        judged.era,
        judged.what,
        judged.verdict,
        escaped(&judged.rule),
        judged.reached_text(),
    )?;
    if let Some(fault) = &judged.fault {
        writeln!(out, "     NOT AS EXPECTED: {}", escaped(fault))?;
    }
    out.flush()
}

/// The audit records, a line each.
pub(super) fn records(
    out: &mut dyn Write,
    lines: &[String],
    pretty: fn(&str) -> String,
) -> io::Result<()> {
    writeln!(out, "\nThe audit journal of all this:\n")?;
    for line in lines {
        writeln!(out, "  {}", escaped(pretty(line).trim_end()))?;
    }
    Ok(())
}

/// What it came to.
pub(super) fn summary(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    writeln!(out, "\nSummary")?;
    writeln!(
        out,
        "  {} attempts: {} passed, {} refused, {} not as expected",
        summary.attempts, summary.passed, summary.refused, summary.faults
    )?;
    writeln!(
        out,
        "  {} messages reached the flag service, {}",
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
    match &summary.chain {
        Ok(chain) => writeln!(out, "  audit: {} records, {}", summary.records, escaped(chain))?,
        Err(fault) => {
            writeln!(
                out,
                "  audit: {} records, NOT VERIFIED: {}",
                summary.records,
                escaped(fault)
            )?;
        }
    }
    out.flush()
}

/// How another client can join in.
pub(super) fn invitation(out: &mut dyn Write, url: &str, state: &str) -> io::Result<()> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#;
    let snippet = serde_json::json!({"mcpServers": {"flags": {"type": "http", "url": url}}});
    writeln!(out, "\nStill serving until Ctrl-C. The journal is under {}.\n", escaped(state))?;
    writeln!(out, "  curl -s {url} \\\n    -H 'content-type: application/json' \\")?;
    writeln!(out, "    -H 'accept: application/json, text/event-stream' \\\n    -d '{body}'\n")?;
    writeln!(out, "  For a client's configuration:\n\n  {snippet}\n")?;
    out.flush()
}

/// The plainest reading of a record: used until something better is handed in.
pub fn plain(line: &str) -> String {
    let Ok(line) = serde_json::from_str::<Value>(line) else {
        return line.to_owned();
    };
    let record = super::journal::body(&line);
    let word = |value: Option<&Value>| {
        let value = value.unwrap_or(&Value::Null);
        value.as_str().map_or_else(
            || if value.is_null() { String::new() } else { value.to_string() },
            str::to_owned,
        )
    };
    let reasons = super::journal::codes(record);
    format!(
        "{:>4}  {:<8}  {:<12}  {:<14}  {:<6}  {}",
        word(line.get("seq")),
        word(record.get("event")),
        word(record.get("method")),
        word(record.pointer("/target/tool")),
        word(record.pointer("/decision/effect")),
        if reasons.is_empty() { word(record.get("outcome")) } else { reasons.join(", ") },
    )
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_shown_can_steer_a_terminal() {
        for (text, shown) in [
            ("plain ü 語", "plain ü 語"),
            ("a\u{1b}[31mred", "a\\u{1b}[31mred"),
            ("line\nline", "line\\u{a}line"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt", "\\u{202e}txt"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("\u{feff}bom \u{e0041}tag", "\\u{feff}bom \\u{e0041}tag"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }
}
