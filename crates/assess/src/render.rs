//! Writes an assessment for readers.
//!
//! Names and descriptions are an attacker's text. In every form they are one line, with invisible
//! characters escaped, and cannot become markup.

mod html;
mod markdown;
mod text;

pub use self::html::html;
pub use self::markdown::markdown;
pub use self::text::text;

use bartizan_gate::evidence::finding::{Maestro, Tags};
use bartizan_gate::wire::inert;

use crate::aivss::{Aivss, Range};
use crate::assessment::{Chosen, PackRow, Summary, ToolRow};

/// Characters of one text at most; it was shortened before.
const CHARS_MAX: usize = 1_000;

/// `text` on one line, with invisible characters escaped.
fn plain(text: &str) -> String {
    let mut out = String::new();
    inert::push(&mut out, text, CHARS_MAX);
    out
}

/// `text`, or a mark that there is none.
fn or_none(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { plain(text) }
}

/// The effects, in the order of reports.
const EFFECTS: [&str; 5] = ["read", "write", "destructive", "exec", "unknown"];

/// How many tools have each effect.
fn effects(summary: &Summary) -> String {
    let count = |effect| summary.tools.get(effect).copied().unwrap_or_default();
    let counts = EFFECTS.map(|effect| format!("{} {effect}", count(effect)));
    counts.join(", ")
}

/// What a finding is about in MAESTRO: its threats, or its layer where no threat is named.
fn threats(tags: &Tags) -> String {
    let Maestro { layer, threats, .. } = tags.maestro;
    if threats.is_empty() { layer.to_owned() } else { threats.join(", ") }
}

/// The ids of a finding in the lists that have ids.
fn ids(tags: &Tags) -> Vec<&'static str> {
    [tags.owasp.mcp, tags.owasp.asi, tags.mitre.atlas].concat()
}

/// A value that may be between bounds.
fn range(range: Range, decimals: usize) -> String {
    let Range { low, high } = range;
    let (low, high) = (format!("{low:.decimals$}"), format!("{high:.decimals$}"));
    if low == high { low } else { format!("{low} to {high}") }
}

/// A factor's value.
fn value(value: Option<f64>) -> String {
    value.map_or_else(|| "not certain".to_owned(), |value| format!("{value:.2}"))
}

/// The score in one line.
fn score(aivss: &Aivss) -> String {
    let version = aivss.version;
    match (aivss.cvss, aivss.score) {
        (Some(cvss), Some(score)) => {
            format!("AIVSS {version}: {} (CVSS {cvss:.1})", range(score, 1))
        }
        _ => format!("AIVSS {version}: no score without a CVSS score (--cvss)"),
    }
}

/// Where the environments of a tool are named.
fn environments(tool: &ToolRow) -> String {
    let at: Vec<String> = tool.environments.iter().map(|place| plain(&place.at)).collect();
    match (tool.environments_source, at.is_empty()) {
        ("hint", _) => format!("{} (hint)", at.join(", ")),
        ("pack", true) => "no argument".to_owned(),
        (_, true) => "not certain".to_owned(),
        (_, false) => at.join(", "),
    }
}

/// The effect of a tool, with what hints say if no pack describes it.
fn effect(tool: &ToolRow) -> String {
    match (tool.source, tool.hinted) {
        ("pack", _) if tool.worst != tool.effect => {
            format!("{} (annotation: {})", tool.effect, tool.worst)
        }
        ("pack", _) | (_, None) => tool.effect.to_owned(),
        (_, Some(hinted)) => format!("{} (looks like {hinted})", tool.effect),
    }
}

/// The pack in one line.
fn pack(pack: Option<&PackRow>, tools: usize) -> String {
    let Some(pack) = pack else { return "none: no tool is reviewed".to_owned() };
    let chosen = match pack.chosen {
        Chosen::Named => "named by the user",
        Chosen::Found => "found by the server's names",
    };
    format!("{}, {chosen}: describes {} of {tools} tools", plain(&pack.name), pack.known)
}
