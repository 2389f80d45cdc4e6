//! The report for a terminal: plain text, one line a row.

use std::fmt::Write as _;

use super::view::{Cell, Section};
use super::{Report, chart};
use crate::inert;

/// Characters of a column at most, unless it is the last one.
const COLUMN_CHARS_MAX: usize = 40;
/// Characters of a line of prose.
const LINE_CHARS: usize = 96;

/// Writes `report`; it ends with LF.
pub fn write(report: &Report) -> String {
    let mut out = format!("Audit report, {}\n\n", report.range());
    for figure in report.figures() {
        writeln!(out, "{:>10}  {}", figure.value, figure.name).unwrap_or_default();
    }
    for section in report.sections() {
        write!(out, "\n{}\n{}\n", section.title, "-".repeat(section.title.len()))
            .unwrap_or_default();
        push_wrapped(&mut out, &section.about);
        if let Some(chart) = section.chart {
            out.push_str(&chart::text(report, chart));
        }
        push_table(&mut out, &section);
        if let Some(note) = &section.note {
            push_wrapped(&mut out, note);
        }
    }
    out
}

/// Appends `text` in lines of at most [`LINE_CHARS`].
fn push_wrapped(out: &mut String, text: &str) {
    let mut width = 0_usize;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if width > 0 && width.saturating_add(wide) >= LINE_CHARS {
            out.push('\n');
            width = 0;
        }
        if width > 0 {
            out.push(' ');
        }
        out.push_str(word);
        width = width.saturating_add(wide).saturating_add(1);
    }
    out.push('\n');
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) | Cell::Word(text) | Cell::Whole(text) => {
            let mut shown = String::new();
            inert::push(&mut shown, text, 200);
            shown
        }
    }
}

fn push_table(out: &mut String, section: &Section) {
    if section.rows.is_empty() {
        out.push_str("  none\n");
        return;
    }
    let rows: Vec<Vec<String>> =
        section.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let width = |at: usize| {
        let longest = rows.iter().filter_map(|row| row.get(at)).map(|it| it.chars().count()).max();
        let head = section.head.get(at).map_or(0, |it| it.chars().count());
        let is_last = at.saturating_add(1) == section.head.len();
        let most = if is_last { usize::MAX } else { COLUMN_CHARS_MAX.max(head) };
        longest.unwrap_or_default().clamp(head, most)
    };
    let widths: Vec<usize> = (0..section.head.len()).map(width).collect();
    let head: Vec<String> = section.head.iter().map(|it| (*it).to_owned()).collect();
    let numbers = section.rows.first();
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::from(" ");
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_number = numbers
                .and_then(|row| row.get(at))
                .is_some_and(|cell| matches!(cell, Cell::Number(_)));
            let mut cell = cell.clone();
            if cell.chars().count() > *width {
                cell = cell.chars().take(width.saturating_sub(1)).chain(['…']).collect();
            }
            line.push(' ');
            if is_number {
                write!(line, "{cell:>width$}").unwrap_or_default();
            } else {
                write!(line, "{cell:<width$}").unwrap_or_default();
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
