//! Writes collected metrics as text for Prometheus.
//!
//! Two forms: 0.0.4, which every version of Prometheus reads, and `OpenMetrics` 1.0. They differ in the
//! name of a counter's family, in the line with the unit, and in the end mark. The translation from
//! OpenTelemetry follows its specification, "Prometheus and `OpenMetrics` Compatibility". No library
//! writes these from OpenTelemetry's data without a second registry (decision 40).

use std::fmt::{Display, Write as _};

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics, ScopeMetrics,
};

use super::catalogue::{family_name, label_name};

/// A form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// The form that the value of a request's `Accept` asks for: `OpenMetrics` if it is named and not
    /// excluded, else 0.0.4.
    pub fn accepted(accept: &str) -> Self {
        let named = accept.split(',').any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            kind.eq_ignore_ascii_case("application/openmetrics-text")
                && !parts.any(|part| part.strip_prefix("q=").is_some_and(is_zero))
        });
        if named { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

fn is_zero(quality: &str) -> bool {
    quality.parse::<f64>().is_ok_and(|quality| quality <= 0.0)
}

/// The samples of one family, each with its labels.
struct Family {
    kind: &'static str,
    /// What follows the family's name in samples of a counter.
    suffix: &'static str,
    lines: Vec<String>,
}

/// `metrics` as text.
pub fn write(metrics: &ResourceMetrics, format: Format) -> String {
    let mut text = String::new();
    for metric in metrics.scope_metrics().flat_map(ScopeMetrics::metrics) {
        let name = family_name(metric.name(), metric.unit());
        let Some(mut family) = family(metric, &name) else { continue };
        // The order of a hash table, which would change from scrape to scrape.
        family.lines.sort_unstable();
        // In 0.0.4 the name of the family is that of its samples.
        let suffix = if format == Format::Prometheus { family.suffix } else { "" };
        let help = escaped(metric.description(), false);
        let mut line = |words: &[&str]| {
            text.push_str(&words.concat());
            text.push('\n');
        };
        line(&["# HELP ", &name, suffix, " ", &help]);
        line(&["# TYPE ", &name, suffix, " ", family.kind]);
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
        if let (Format::OpenMetrics, Some(unit)) = (format, unit) {
            line(&["# UNIT ", &name, " ", unit]);
        }
        for sample in &family.lines {
            line(&[sample]);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn family(metric: &Metric, name: &str) -> Option<Family> {
    match metric.data() {
        AggregatedMetrics::F64(data) => of_kind(data, name),
        AggregatedMetrics::U64(data) => of_kind(data, name),
        AggregatedMetrics::I64(data) => of_kind(data, name),
    }
}

/// `None` for a kind of data that no instrument here makes.
fn of_kind<T: Display + Copy>(data: &MetricData<T>, name: &str) -> Option<Family> {
    match data {
        MetricData::Gauge(gauge) => {
            let points = gauge.data_points();
            let lines =
                points.map(|point| sample(name, "", point.attributes(), None, point.value()));
            Some(Family { kind: "gauge", suffix: "", lines: lines.collect() })
        }
        MetricData::Sum(sum) => {
            let counts = sum.is_monotonic();
            let (kind, suffix) = if counts { ("counter", "_total") } else { ("gauge", "") };
            let points = sum.data_points();
            let lines =
                points.map(|point| sample(name, suffix, point.attributes(), None, point.value()));
            Some(Family { kind, suffix, lines: lines.collect() })
        }
        MetricData::Histogram(histogram) => {
            let lines = histogram.data_points().map(|point| buckets(name, point));
            Some(Family { kind: "histogram", suffix: "", lines: lines.collect() })
        }
        MetricData::ExponentialHistogram(_) => None,
    }
}

/// The samples of one combination of labels, in their order, without the last line's end.
fn buckets<T: Display + Copy>(name: &str, point: &HistogramDataPoint<T>) -> String {
    let mut lines = Vec::new();
    let mut below = 0_u64;
    let bounds = point.bounds().map(bound).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(point.bucket_counts()) {
        below = below.saturating_add(count);
        lines.push(sample(name, "_bucket", point.attributes(), Some(&bound), below));
    }
    lines.push(sample(name, "_sum", point.attributes(), None, point.sum()));
    lines.push(sample(name, "_count", point.attributes(), None, point.count()));
    lines.join("\n")
}

/// A bound as `OpenMetrics` writes it, so that one bound has one name in both forms: always with a point,
/// never with an exponent.
fn bound(bound: f64) -> String {
    let mut text = bound.to_string();
    if !text.contains('.') {
        text.push_str(".0");
    }
    text
}

fn sample<'a>(
    name: &str,
    suffix: &str,
    attributes: impl Iterator<Item = &'a KeyValue>,
    bound: Option<&str>,
    value: impl Display,
) -> String {
    let mut labels: Vec<(String, String)> = attributes
        .map(|pair| (label_name(pair.key.as_str()), escaped(&pair.value.as_str(), true)))
        .collect();
    labels.sort_unstable();
    labels.extend(bound.map(|bound| ("le".to_owned(), bound.to_owned())));
    let labels: Vec<String> =
        labels.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let mut line = format!("{name}{suffix}");
    if !labels.is_empty() {
        line.push('{');
        line.push_str(&labels.join(","));
        line.push('}');
    }
    // Writing to a `String` cannot fail.
    write!(line, " {value}").unwrap_or_default();
    line
}

/// Text in which `\`, LF and, in a label, `"` are escaped.
fn escaped(text: &str, quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { text.replace('"', "\\\"") } else { text }
}
