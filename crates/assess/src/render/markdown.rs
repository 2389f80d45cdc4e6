//! The assessment as Markdown, for an issue or a wiki.
//!
//! A server's text stands in code spans only: they hold no links and no markup.

use std::fmt::Write as _;

use super::{
    effect, effects, environments, ids, or_none, pack, plain, range, score, threats, value,
};
use crate::assessment::{Assessment, FindingRow, Severity};

/// The assessment as GitHub-flavoured Markdown.
pub fn markdown(it: &Assessment) -> String {
    let mut out = String::new();
    head(it, &mut out);
    layers(it, &mut out);
    out.push_str("\n## Findings\n");
    if it.findings.is_empty() {
        out.push_str("\nNone.\n");
    }
    it.findings.iter().for_each(|finding| self::finding(finding, &mut out));
    aivss(it, &mut out);
    inventory(it, &mut out);
    out.push_str("\n## Not assessed\n\n");
    it.gaps.iter().for_each(|gap| line(&mut out, &format!("- {}", code(gap))));
    line(&mut out, &format!("\nTaxonomies: `{}`", it.taxonomy));
    out
}

/// Writing to a `String` cannot fail.
fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").unwrap_or_default();
}

/// `text` as a code span that may stand in a table: a fence longer than any run of backticks in it,
/// and pipes escaped (GFM, tables).
fn code(text: &str) -> String {
    let text = or_none(text);
    let mut longest = 0_usize;
    let mut run = 0_usize;
    for c in text.chars() {
        run = if c == '`' { run.saturating_add(1) } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest.saturating_add(1));
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{}{space}{fence}", text.replace('|', "\\|"))
}

fn head(it: &Assessment, out: &mut String) {
    let server = &it.server;
    let count = |list: &str| it.summary.entries.get(list).copied().unwrap_or_default();
    line(out, "# Threat model of an MCP server\n");
    line(out, "| | |\n|---|---|");
    let mut row = |name: &str, value: &str| line(out, &format!("| {name} | {value} |"));
    row("Address", &code(&server.address));
    row("Calls itself", &format!("{} {}", code(&server.name), code(&server.version)));
    row("Protocol", &code(&server.protocol));
    row("Pack", &code(&pack(it.pack.as_ref(), count("tool"))));
    let tools = effects(&it.summary);
    row("Tools", &format!("{}: {}", count("tool"), tools));
    let others = ["resource", "template", "prompt"].map(|list| format!("{} {list}s", count(list)));
    row("Other entries", &others.join(", "));
    let findings = Severity::ALL.map(Severity::as_str).map(|severity| {
        format!("{} {severity}", it.summary.findings.get(severity).copied().unwrap_or_default())
    });
    row("Findings", &findings.join(", "));
    row("Score", &score(&it.aivss));
}

fn layers(it: &Assessment, out: &mut String) {
    out.push_str(
        "\n## MAESTRO layers\n\n| Layer | Status | Findings | Not certain |\n|---|---|---|---|\n",
    );
    for layer in &it.layers {
        let unknown = layer.not_certain.join("<br>");
        let (status, found) = (layer.status.as_str(), layer.findings.join(", "));
        line(out, &format!("| {} {} | {status} | {found} | {unknown} |", layer.layer, layer.name));
    }
}

fn finding(finding: &FindingRow, out: &mut String) {
    let tags = finding.tags;
    let severity = finding.severity.as_str();
    line(out, &format!("\n### {} ({severity}): {}\n", finding.id, finding.title));
    line(out, &format!("{}\n", finding.advice));
    let (threats, ids) = (threats(tags), ids(tags));
    line(out, &format!("{threats}; {} ({})\n", ids.join(", "), tags.strength));
    for subject in &finding.subjects {
        let detail = code(&subject.detail);
        line(out, &format!("- {} {}: {detail}", subject.list, code(&subject.name)));
    }
}

fn aivss(it: &Assessment, out: &mut String) {
    let score = &it.aivss;
    line(out, &format!("\n## AIVSS\n\n{}. Advice only.\n", self::score(score)));
    line(out, &format!("`{}`\n\n| Factor | Value | Basis |\n|---|---|---|", score.formula));
    for factor in &score.factors {
        line(out, &format!("| {} | {} | {} |", factor.name, value(factor.value), factor.basis));
    }
    line(out, &format!("| Sum | {} | |\n", range(score.sum, 2)));
    score.warnings.iter().for_each(|warning| line(out, &format!("- {warning}")));
}

fn inventory(it: &Assessment, out: &mut String) {
    out.push_str("\n## Inventory\n\n| Entry | Effect | Confidence | Environment | Flags | Description |\n|---|---|---|---|---|---|\n");
    for tool in &it.tools {
        let flags = tool.flags.join(" ");
        let environments = code(&environments(tool));
        let (name, description) = (code(&tool.name), code(&tool.description));
        let (effect, confidence) = (effect(tool), code(&tool.confidence));
        line(
            out,
            &format!(
                "| {name} | {effect} | {confidence} | {environments} | {flags} | {description} |"
            ),
        );
    }
    for entry in &it.entries {
        let flags = entry.flags.join(" ");
        let (name, description) = (code(&entry.name), code(&entry.description));
        line(out, &format!("| {name} | {} | | | {flags} | {description} |", plain(entry.list)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_text_stays_a_code_span() {
        assert_eq!(code("a|b"), r"`a\|b`");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`x`"), "`` `x` ``");
        assert_eq!(code("a\nb\u{202e}"), r"`a\\u{a}b\\u{202e}`".replace(r"\\", r"\"));
        assert_eq!(code(""), "`-`");
    }
}
