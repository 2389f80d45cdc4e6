//! The report as one page that needs nothing else: no script, no other file, no network.
//!
//! A policy in the page allows its own style sheet by digest and nothing else, so a text that became
//! markup could load and run nothing; and every text is escaped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::Report;
use super::chart::{class_of, svg};
use super::view::{Cell, Section};
use crate::inert;

const STYLE: &str = include_str!("style.css");

/// Characters of a cell at most.
const CELL_CHARS_MAX: usize = 400;

/// Writes `report`; it ends with LF.
pub fn write(report: &Report) -> String {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Bartizan audit report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    out.push_str("<header>\n<h1>Audit report</h1>\n<p>");
    push_escaped(&mut out, &report.range());
    out.push_str("</p>\n</header>\n<main>\n<ul class=\"figures\">\n");
    for figure in report.figures() {
        let class = if figure.alarming { " class=\"alarming\"" } else { "" };
        let (value, name) = (grouped(figure.value), figure.name);
        writeln!(out, "<li{class}><strong>{value}</strong>{name}</li>").unwrap_or_default();
    }
    out.push_str("</ul>\n");
    for section in report.sections() {
        push_section(&mut out, report, &section);
    }
    write!(
        out,
        "</main>\n<footer><p>Made by Bartizan {} from the audit journal.</p></footer>\n\
         </body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
    .unwrap_or_default();
    out
}

fn push_section(out: &mut String, report: &Report, section: &Section) {
    write!(out, "<section>\n<h2>{}</h2>\n<p class=\"about\">", section.title).unwrap_or_default();
    push_escaped(out, &section.about.replace('`', ""));
    out.push_str("</p>\n");
    if let Some(chart) = section.chart {
        out.push_str(&svg(report, chart));
    }
    if section.rows.is_empty() {
        out.push_str("<p>None.</p>\n</section>\n");
        return;
    }
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for (at, head) in section.head.iter().enumerate() {
        let first = section.rows.first().and_then(|row| row.get(at));
        let class = first.map_or("", class_attribute);
        write!(out, "<th scope=\"col\"{class}>{head}</th>").unwrap_or_default();
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &section.rows {
        out.push_str("<tr>");
        for cell in row {
            write!(out, "<td{}>", class_attribute(cell)).unwrap_or_default();
            match cell {
                Cell::Number(number) => out.push_str(&grouped(*number)),
                Cell::Text(text) | Cell::Whole(text) => push_escaped(out, text),
                Cell::Word(word) => {
                    write!(out, "<span class=\"dot {}\"></span>", class_of(word))
                        .unwrap_or_default();
                    push_escaped(out, word);
                }
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if let Some(note) = &section.note {
        out.push_str("<p class=\"note\">");
        push_escaped(out, note);
        out.push_str("</p>\n");
    }
    out.push_str("</section>\n");
}

fn class_attribute(cell: &Cell) -> &'static str {
    match cell {
        Cell::Number(_) => " class=\"number\"",
        Cell::Word(_) => " class=\"word\"",
        Cell::Whole(_) => " class=\"whole\"",
        Cell::Text(_) => "",
    }
}

/// Appends `text`, as text: what means something in HTML as a reference, and what is not seen as
/// `\u{…}`.
fn push_escaped(out: &mut String, text: &str) {
    let mut shown = String::new();
    inert::push(&mut shown, text, CELL_CHARS_MAX);
    inert::push_markup(out, &shown);
}

/// `number` with a thin space between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at) % 3 == 0 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_markup() {
        let mut out = String::new();
        push_escaped(&mut out, "<img src=x onerror='a(\"&\")'>\u{202e}\n");
        assert_eq!(out, "&lt;img src=x onerror=&#39;a(&quot;&amp;&quot;)&#39;&gt;\\u{202e}\\u{a}");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(999), "999");
    }
}
