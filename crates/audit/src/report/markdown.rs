//! The report as Markdown, with tables as GitHub has them.

use std::fmt::Write as _;

use super::Report;
use super::view::Cell;
use crate::inert;

/// Characters of a cell at most.
const CELL_CHARS_MAX: usize = 200;

/// Characters that mean something in Markdown or in HTML, which Markdown may hold.
const MEANT: &str = "\\`*_{}[]()<>#+-.!|~&$@:\"'=^";

/// Writes `report`; it ends with LF.
pub fn write(report: &Report) -> String {
    let mut out = format!("# Audit report\n\n{}\n\n", report.range());
    let figures = report.figures();
    let names: Vec<&str> = figures.iter().map(|it| it.name).collect();
    let values: Vec<String> = figures.iter().map(|it| it.value.to_string()).collect();
    write!(out, "| {} |\n|{}\n", names.join(" | "), "---:|".repeat(names.len()))
        .unwrap_or_default();
    writeln!(out, "| {} |", values.join(" | ")).unwrap_or_default();
    for section in report.sections() {
        write!(out, "\n## {}\n\n{}\n\n", section.title, section.about).unwrap_or_default();
        let Some(first) = section.rows.first() else {
            out.push_str("None.\n");
            continue;
        };
        let align = |cell: &Cell| if matches!(cell, Cell::Number(_)) { "---:|" } else { "---|" };
        let aligns: String = first.iter().map(align).collect();
        write!(out, "| {} |\n|{aligns}\n", section.head.join(" | ")).unwrap_or_default();
        for row in &section.rows {
            let cells: Vec<String> = row.iter().map(cell).collect();
            writeln!(out, "| {} |", cells.join(" | ")).unwrap_or_default();
        }
        if let Some(note) = &section.note {
            write!(out, "\n{note}\n").unwrap_or_default();
        }
    }
    out
}

/// A cell as text that stays text: each character that means something has a backslash before it.
fn cell(cell: &Cell) -> String {
    let text = match cell {
        Cell::Number(number) => return number.to_string(),
        Cell::Text(text) | Cell::Word(text) | Cell::Whole(text) => text,
    };
    let mut shown = String::new();
    inert::push(&mut shown, text, CELL_CHARS_MAX);
    let mut escaped = String::new();
    for character in shown.chars() {
        if MEANT.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_text() {
        for (text, expected) in [
            ("update_flag", "update\\_flag"),
            ("a|b", "a\\|b"),
            ("[x](javascript:alert(1))", "\\[x\\]\\(javascript\\:alert\\(1\\)\\)"),
            ("<script>", "\\<script\\>"),
            ("a\nb", "a\\\\u\\{a\\}b"),
            ("https://x", "https\\://x"),
        ] {
            assert_eq!(cell(&text.into()), expected);
        }
    }
}
