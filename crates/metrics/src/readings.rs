//! What is read when somebody collects.

use std::collections::HashMap;

use opentelemetry::{KeyValue, Value};

/// What is not counted from records: sizes, positions, states.
pub trait Source: Send + Sync {
    /// Reads all of it. May read files.
    fn read(&self, into: &mut Readings);
}

/// Values by metric.
#[derive(Debug, Default)]
pub struct Readings(HashMap<&'static str, Vec<(Vec<KeyValue>, f64)>>);

impl Readings {
    /// Adds `value` of the metric `name` for these labels. A name that is not in
    /// [`METRICS`](super::catalogue::METRICS) is shown nowhere.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub fn put(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.put_f64(name, labels, value as f64);
    }

    /// The same for a value that is no whole number.
    pub fn put_f64(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels =
            labels.iter().map(|&(key, text)| KeyValue::new(key, Value::from(text.to_owned())));
        self.0.entry(name).or_default().push((labels.collect(), value));
    }

    /// The values of the metric `name`.
    pub(crate) fn of(&self, name: &str) -> &[(Vec<KeyValue>, f64)] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}
