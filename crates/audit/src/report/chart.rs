//! The charts of a report: inline SVG for a page, and bars of characters for a terminal.
//!
//! They show numbers and names that the program chose; nothing in them comes from a peer.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::evidence::finding::Layer;

use super::view::{Chart, STRENGTHS, short};
use super::{Report, Verdict};

/// Width of a chart, units of its view box.
const WIDTH: u64 = 1000;
/// Height of the timeline's bars.
const HEIGHT: u64 = 160;
/// Room for the numbers beside the timeline.
const LEFT: u64 = 48;
/// Room above the bars, and for the times below them.
const TOP: u64 = 12;
const BOTTOM: u64 = 24;
/// Height of a layer's row, and of its bar.
const ROW: u64 = 28;
const BAR: u64 = 16;
/// Room for the layers' names and for the counts.
const NAMES: u64 = 260;
const COUNTS: u64 = 70;
/// Characters of the longest bar on a terminal.
const CHARS: u64 = 40;

/// The class of a verdict in the style sheet.
pub(super) fn class_of(word: &str) -> &'static str {
    match word {
        "permitted" => "permitted",
        "denied, not enforced" => "observed",
        "waiting" => "held",
        "denied" => "denied",
        "direct" => "direct",
        "related" => "related",
        "control-evidence" => "control",
        _ => "other",
    }
}

/// `chart` as SVG, with its legend.
pub(super) fn svg(report: &Report, chart: Chart) -> String {
    match chart {
        Chart::Timeline => timeline(report),
        Chart::Layers => layers(report),
    }
}

fn legend(words: &[&str]) -> String {
    let one =
        |word: &&str| format!("<li><span class=\"dot {}\"></span>{word}</li>", class_of(word));
    format!("<ul class=\"legend\">{}</ul>\n", words.iter().map(one).collect::<String>())
}

/// `part` of `whole`, scaled to `size`.
fn scaled(part: u64, whole: u64, size: u64) -> u64 {
    part.saturating_mul(size).checked_div(whole).unwrap_or_default()
}

/// A round number that is not below `most`: 1, 2 or 5 times a power of ten.
fn round_up(most: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for times in [1, 2, 5] {
            let number = unit.saturating_mul(times);
            if number >= most {
                return number;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

fn at(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    short(&humantime::format_rfc3339_seconds(time).to_string())
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

fn timeline(report: &Report) -> String {
    let bars = report.timeline.bars();
    let names = Verdict::ALL.map(Verdict::name);
    let most = round_up(bars.iter().map(|(_, counts)| sum(counts)).max().unwrap_or(1).max(1));
    let width = WIDTH.saturating_sub(LEFT);
    let count = u64::try_from(bars.len()).unwrap_or(1).max(1);
    let height = TOP.saturating_add(HEIGHT).saturating_add(BOTTOM);
    let label = format!("{} calls over time, in bars of {}", report.calls, bar_width(report));
    let mut svg = format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">\n"
    );
    let base = TOP.saturating_add(HEIGHT);
    for (part, value) in [(0, 0), (1, most / 2), (2, most)] {
        if part == 1 && most < 2 {
            continue;
        }
        let y = base.saturating_sub(scaled(value, most, HEIGHT));
        let text = y.saturating_add(4);
        let right = LEFT.saturating_sub(8);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{right}\" y=\"{text}\" text-anchor=\"end\">{value}</text>"
        )
        .unwrap_or_default();
    }
    for (number, (begins, counts)) in (0_u64..).zip(&bars) {
        let x = LEFT.saturating_add(scaled(number, count, width));
        let end = LEFT.saturating_add(scaled(number.saturating_add(1), count, width));
        // A bar alone is no wider than one of a dozen.
        let wide = end.saturating_sub(x).saturating_sub(2).clamp(2, WIDTH / 12);
        let mut y = base;
        svg.push_str("<g>");
        write!(svg, "<title>{}", at(*begins)).unwrap_or_default();
        for (name, count) in names.iter().zip(counts).filter(|(_, count)| **count > 0) {
            write!(svg, ", {count} {name}").unwrap_or_default();
        }
        svg.push_str("</title>");
        for (name, count) in names.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let high = scaled(*count, most, HEIGHT).max(2);
            y = y.saturating_sub(high);
            write!(
                svg,
                "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\"/>",
                class_of(name)
            )
            .unwrap_or_default();
        }
        svg.push_str("</g>\n");
    }
    push_times(&mut svg, report, &bars);
    svg.push_str("</svg></figure>\n");
    let used: Vec<&str> = Verdict::ALL
        .into_iter()
        .filter(|verdict| report.verdicts.contains_key(verdict))
        .map(Verdict::name)
        .collect();
    legend(&used) + &svg
}

/// Appends when the first bar begins and the last one ends.
fn push_times(out: &mut String, report: &Report, bars: &[(u64, [u64; 4])]) {
    let y = TOP.saturating_add(HEIGHT).saturating_add(17);
    if let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) {
        write!(out, "<text x=\"{LEFT}\" y=\"{y}\">{}</text>", at(*first)).unwrap_or_default();
        if bars.len() > 1 {
            let end = last.saturating_add(report.timeline.width());
            write!(out, "<text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text>", at(end))
                .unwrap_or_default();
        }
    }
}

fn bar_width(report: &Report) -> String {
    humantime::format_duration(Duration::from_secs(report.timeline.width())).to_string()
}

fn layers(report: &Report) -> String {
    let most = Layer::ALL.iter().map(|it| sum(&report.layer(it.id))).max().unwrap_or(1).max(1);
    let rows = u64::try_from(Layer::ALL.len()).unwrap_or_default();
    let height = rows.saturating_mul(ROW);
    let mut svg = format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Findings by MAESTRO layer and strength\">\n"
    );
    let room = WIDTH.saturating_sub(NAMES).saturating_sub(COUNTS);
    for (number, Layer { id: layer, name }) in (0_u64..).zip(Layer::ALL) {
        let y = number.saturating_mul(ROW);
        let text = y.saturating_add(ROW / 2).saturating_add(4);
        let bar = y.saturating_add(ROW.saturating_sub(BAR) / 2);
        let counts = report.layer(layer);
        write!(svg, "<text x=\"0\" y=\"{text}\">{layer} {name}</text>").unwrap_or_default();
        let mut x = NAMES;
        for (strength, count) in STRENGTHS.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let wide = scaled(count, most, room).max(2);
            let class = class_of(strength);
            write!(
                svg,
                "<g><title>{layer}: {count} {strength}</title><rect class=\"{class}\" x=\"{x}\" \
                 y=\"{bar}\" width=\"{wide}\" height=\"{BAR}\"/></g>"
            )
            .unwrap_or_default();
            x = x.saturating_add(wide);
        }
        let x = x.saturating_add(8);
        writeln!(svg, "<text class=\"count\" x=\"{x}\" y=\"{text}\">{}</text>", sum(&counts))
            .unwrap_or_default();
    }
    svg.push_str("</svg></figure>\n");
    legend(&STRENGTHS) + &svg
}

/// `chart` for a terminal.
pub(super) fn text(report: &Report, chart: Chart) -> String {
    match chart {
        // The table says enough.
        Chart::Timeline => String::new(),
        Chart::Layers => {
            let total = |layer: &str| sum(&report.layer(layer));
            let most = Layer::ALL.iter().map(|layer| total(layer.id)).max().unwrap_or_default();
            let row = |Layer { id: layer, name }: &Layer| {
                let count = total(layer);
                let long = scaled(count, most, CHARS).max(u64::from(count > 0));
                let bar = "#".repeat(usize::try_from(long).unwrap_or_default());
                let row = format!("  {layer:<2} {name:<30} {count:>8} {bar}");
                format!("{}\n", row.trim_end())
            };
            Layer::ALL.iter().map(row).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, round) in [(0, 1), (1, 1), (3, 5), (6, 10), (11, 20), (51, 100), (499, 500)] {
            assert_eq!(round_up(most), round);
        }
        assert!(round_up(u64::MAX) == u64::MAX, "it ends");
        assert_eq!(scaled(1, 0, 100), 0);
    }
}
