//! The assessment as one HTML page: no script, no request, light and dark.
//!
//! The content security policy permits nothing but the page's own style, by its digest. Every text
//! of the server goes through [`escaped`].

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{EFFECTS, effect, environments, or_none, pack, plain, range, score, value};
use crate::aivss::FactorRow;
use crate::assessment::{Assessment, FindingRow, LayerRow, Severity, Subject, ToolRow};

const STYLE: &str = include_str!("page.css");

/// The assessment as a page.
pub fn html(it: &Assessment) -> String {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let mut out = String::new();
    let title = format!("Threat model of {}", escaped(&it.server.address));
    push(
        &mut out,
        &format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>"
        ),
    );
    head(it, &mut out);
    layers(it, &mut out);
    findings(it, &mut out);
    aivss(it, &mut out);
    inventory(it, &mut out);
    push(&mut out, "<section>\n<h2>Not assessed</h2>\n<ul>");
    it.gaps.iter().for_each(|gap| push(&mut out, &format!("<li>{}</li>", escaped(gap))));
    push(&mut out, "</ul>\n</section>");
    push(&mut out, &format!("<footer>Taxonomies: {}</footer>", escaped(it.taxonomy)));
    push(&mut out, "</main>\n</body>\n</html>");
    out
}

/// Writing to a `String` cannot fail.
fn push(out: &mut String, text: &str) {
    writeln!(out, "{text}").unwrap_or_default();
}

/// `text` as the content of an element or of a quoted attribute; invisible characters are escaped as
/// in other reports.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    bartizan_gate::wire::inert::push_markup(&mut out, &or_none(text));
    out
}

fn head(it: &Assessment, out: &mut String) {
    let server = &it.server;
    let count = |list: &str| it.summary.entries.get(list).copied().unwrap_or_default();
    push(out, "<header>\n<p class=\"over\">Threat model of an MCP server</p>");
    push(out, &format!("<h1>{}</h1>\n<dl>", escaped(&server.address)));
    let mut row = |name: &str, value: &str| {
        push(out, &format!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    };
    row("Calls itself", &escaped(&format!("{} {}", server.name, server.version)));
    row("Protocol", &format!("MCP {} over {}", escaped(&server.protocol), server.transport));
    row("Pack", &escaped(&pack(it.pack.as_ref(), count("tool"))));
    row("Capabilities", &escaped(&server.capabilities.join(", ")));
    if !server.instructions.is_empty() {
        row("Instructions", &escaped(&server.instructions));
    }
    push(out, "</dl>\n</header>\n<ul class=\"tiles\">");
    for severity in Severity::ALL.map(Severity::as_str) {
        let count = it.summary.findings.get(severity).copied().unwrap_or_default();
        let class = if count > 0 { severity } else { "none" };
        push(out, &format!("<li class=\"{class}\"><b>{count}</b> {severity} findings</li>"));
    }
    for effect in EFFECTS {
        let count = it.summary.tools.get(effect).copied().unwrap_or_default();
        push(out, &format!("<li><b>{count}</b> {effect} tools</li>"));
    }
    for list in ["resource", "template", "prompt"] {
        push(out, &format!("<li><b>{}</b> {list}s</li>", count(list)));
    }
    push(out, "</ul>");
}

fn layers(it: &Assessment, out: &mut String) {
    push(out, "<section>\n<h2>MAESTRO layers</h2>\n<div class=\"layers\">");
    it.layers.iter().for_each(|layer| self::layer(layer, out));
    push(out, "</div>\n</section>");
}

fn layer(layer: &LayerRow, out: &mut String) {
    let status = layer.status.as_str();
    let class = status.replace(' ', "-");
    push(
        out,
        &format!(
            "<article class=\"{class}\">\n<h3><span>{}</span> {}</h3>",
            layer.layer, layer.name
        ),
    );
    let found: Vec<String> =
        layer.findings.iter().map(|id| format!("<a href=\"#{id}\">{id}</a>")).collect();
    push(
        out,
        &format!("<p><strong>{status}</strong> {}</p>\n<p>{}</p>", found.join(" "), layer.about),
    );
    push(out, "<p class=\"small\">Not certain:</p>\n<ul class=\"small\">");
    layer.not_certain.iter().for_each(|it| push(out, &format!("<li>{it}</li>")));
    push(out, "</ul>\n</article>");
}

fn findings(it: &Assessment, out: &mut String) {
    push(out, "<section>\n<h2>Findings</h2>");
    if it.findings.is_empty() {
        push(out, "<p>None.</p>");
    }
    it.findings.iter().for_each(|finding| self::finding(finding, out));
    push(out, "</section>");
}

fn finding(finding: &FindingRow, out: &mut String) {
    let (id, severity, tags) = (&finding.id, finding.severity.as_str(), finding.tags);
    push(out, &format!("<article class=\"finding {severity}\" id=\"{id}\">"));
    push(
        out,
        &format!(
            "<h3><span class=\"badge\">{severity}</span> {id}: {}</h3>\n<p>{}</p>",
            escaped(finding.title),
            escaped(finding.advice)
        ),
    );
    let ids = [tags.maestro.threats, &super::ids(tags)].concat();
    let ids: Vec<String> = ids.iter().map(|id| format!("<li>{}</li>", escaped(id))).collect();
    let ids = ids.concat();
    push(out, &format!("<ul class=\"ids\">{ids}<li>{}</li></ul>", tags.strength));
    let count = finding.subjects.len();
    // A few are shown at once.
    let open = if count <= 5 { " open" } else { "" };
    push(out, &format!("<details{open}><summary>Seen in {count}</summary>\n<ul>"));
    for Subject { list, name, detail } in &finding.subjects {
        let (name, detail) = (escaped(name), escaped(detail));
        push(out, &format!("<li>{list} <code>{name}</code>: {detail}</li>"));
    }
    push(out, "</ul></details>\n</article>");
}

fn aivss(it: &Assessment, out: &mut String) {
    let aivss = &it.aivss;
    push(
        out,
        &format!(
            "<section>\n<h2>AIVSS</h2>\n<p><strong>{}</strong>. Advice only: no rule reads it.</p>",
            score(aivss)
        ),
    );
    push(out, &format!("<p><code>{}</code></p>", escaped(aivss.formula)));
    push(
        out,
        "<table><thead><tr><th>Factor</th><th>Value</th><th></th><th>Basis</th></tr></thead><tbody>",
    );
    for FactorRow { name, value: known, basis } in &aivss.factors {
        let meter = known.map_or_else(String::new, |value| {
            format!("<meter min=\"0\" low=\"0.4\" high=\"0.9\" max=\"1\" optimum=\"0\" value=\"{value}\">{value}</meter>")
        });
        let (name, basis, value) = (escaped(name), escaped(basis), value(*known));
        push(
            out,
            &format!("<tr><td>{name}</td><td>{value}</td><td>{meter}</td><td>{basis}</td></tr>"),
        );
    }
    let sum = range(aivss.sum, 2);
    push(
        out,
        &format!("<tr><td>Sum</td><td>{sum}</td><td></td><td></td></tr></tbody></table>\n<ul>"),
    );
    aivss.warnings.iter().for_each(|it| push(out, &format!("<li>{}</li>", escaped(it))));
    push(out, "</ul>\n</section>");
}

fn inventory(it: &Assessment, out: &mut String) {
    push(
        out,
        "<section>\n<h2>Inventory</h2>\n<div class=\"wide\"><table><thead><tr><th>Entry</th><th>Effect</th><th>Confidence</th><th>Environment</th><th>Tags and flags</th><th>Description</th></tr></thead><tbody>",
    );
    it.tools.iter().for_each(|tool| self::tool(tool, out));
    for entry in &it.entries {
        let (name, description) = (escaped(&entry.name), escaped(&entry.description));
        let flags = plain(&entry.flags.join(" "));
        push(
            out,
            &format!(
                "<tr><td><code>{name}</code></td><td>{}</td><td></td><td></td><td>{flags}</td><td>{description}</td></tr>",
                entry.list
            ),
        );
    }
    push(out, "</tbody></table></div>\n</section>");
}

fn tool(tool: &ToolRow, out: &mut String) {
    let words: Vec<&str> =
        tool.tags.iter().map(String::as_str).chain(tool.flags.iter().copied()).collect();
    let words = if words.is_empty() { String::new() } else { escaped(&words.join(" ")) };
    let cells = [&effect(tool), &tool.confidence, &environments(tool)].map(|text| escaped(text));
    let [effect, confidence, environments] = cells;
    let (name, description) = (escaped(&tool.name), escaped(&tool.description));
    push(
        out,
        &format!(
            "<tr><td><code>{name}</code></td><td class=\"effect {}\">{effect}</td><td>{confidence}</td><td>{environments}</td><td>{words}</td><td>{description}</td></tr>",
            tool.worst
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let text = "<img src=x onerror='alert(1)'>&\"\u{202e}";
        assert_eq!(
            escaped(text),
            "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;\\u{202e}"
        );
    }
}
