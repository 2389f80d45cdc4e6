//! The assessment as text for a terminal.

use std::fmt::Write as _;

use super::{
    effect, effects, environments, ids, or_none, pack, plain, range, score, threats, value,
};
use crate::assessment::{Assessment, FindingRow, Severity};

/// Subjects of one finding that are listed; JSON has all of them.
const SUBJECTS_MAX: usize = 12;

/// The assessment as text.
pub fn text(it: &Assessment) -> String {
    let mut out = String::new();
    head(it, &mut out);
    layers(it, &mut out);
    out.push_str("\nFindings\n");
    if it.findings.is_empty() {
        out.push_str("  none\n");
    }
    it.findings.iter().for_each(|finding| self::finding(finding, &mut out));
    aivss(it, &mut out);
    inventory(it, &mut out);
    out.push_str("\nNot assessed\n");
    it.gaps.iter().for_each(|gap| line(&mut out, &format!("  - {}", plain(gap))));
    line(&mut out, &format!("\nTaxonomies: {}", it.taxonomy));
    out
}

/// Writing to a `String` cannot fail.
fn line(out: &mut String, text: &str) {
    writeln!(out, "{}", text.trim_end()).unwrap_or_default();
}

fn head(it: &Assessment, out: &mut String) {
    let server = &it.server;
    let counts = |list: &str| it.summary.entries.get(list).copied().unwrap_or_default();
    let tools = effects(&it.summary);
    let severities = Severity::ALL.map(Severity::as_str).map(|severity| {
        format!("{} {severity}", it.summary.findings.get(severity).copied().unwrap_or_default())
    });
    line(out, &format!("Threat model of {}", plain(&server.address)));
    line(
        out,
        &format!(
            "  calls itself  {} {}, MCP {}",
            or_none(&server.name),
            plain(&server.version),
            or_none(&server.protocol)
        ),
    );
    line(out, &format!("  pack          {}", pack(it.pack.as_ref(), counts("tool"))));
    line(out, &format!("  tools         {}: {}", counts("tool"), tools));
    line(
        out,
        &format!(
            "  other         {} resources, {} templates, {} prompts",
            counts("resource"),
            counts("template"),
            counts("prompt")
        ),
    );
    line(out, &format!("  findings      {}", severities.join(", ")));
    line(out, &format!("  score         {}", score(&it.aivss)));
}

fn layers(it: &Assessment, out: &mut String) {
    out.push_str("\nMAESTRO layers\n");
    for layer in &it.layers {
        let status = layer.status.as_str();
        let found = layer.findings.join(" ");
        line(out, &format!("  {:<2} {:<30} {status:<14} {found}", layer.layer, layer.name));
        for unknown in &layer.not_certain {
            line(out, &format!("       ? {unknown}"));
        }
    }
}

fn finding(finding: &FindingRow, out: &mut String) {
    let tags = finding.tags;
    line(out, &format!("  {:<4}{:<7} {}", finding.id, finding.severity.as_str(), finding.title));
    line(out, &format!("              {}", threats(tags)));
    line(out, &format!("              {} ({})", ids(tags).join(" "), tags.strength));
    for subject in finding.subjects.iter().take(SUBJECTS_MAX) {
        let detail = plain(&subject.detail);
        line(out, &format!("              {} {}: {detail}", subject.list, or_none(&subject.name)));
    }
    let more = finding.subjects.len().saturating_sub(SUBJECTS_MAX);
    if more > 0 {
        line(out, &format!("              and {more} more"));
    }
    line(out, &format!("            > {}", finding.advice));
}

fn aivss(it: &Assessment, out: &mut String) {
    let score = &it.aivss;
    line(out, &format!("\n{} (advice only)", self::score(score)));
    line(out, &format!("  {}", score.formula));
    for factor in &score.factors {
        let value = value(factor.value);
        line(out, &format!("  {value:<12} {:<30} {}", factor.name, factor.basis));
    }
    line(out, &format!("  {:<12} sum of the factors", range(score.sum, 2)));
    if let Some(aars) = score.aars {
        line(out, &format!("  {:<12} AARS", range(aars, 2)));
    }
    for warning in &score.warnings {
        line(out, &format!("  warning: {warning}"));
    }
}

fn inventory(it: &Assessment, out: &mut String) {
    out.push_str("\nTools: effect, confidence, environment\n");
    if it.tools.is_empty() {
        out.push_str("  none\n");
    }
    for tool in &it.tools {
        let flags = match tool.flags.as_slice() {
            [] => String::new(),
            flags => format!("  flags: {}", flags.join(" ")),
        };
        line(
            out,
            &format!(
                "  {}: {}, {}, {}{flags}",
                or_none(&tool.name),
                effect(tool),
                plain(&tool.confidence),
                environments(tool)
            ),
        );
    }
    for entry in &it.entries {
        line(out, &format!("  {} {}", entry.list, or_none(&entry.name)));
    }
}
