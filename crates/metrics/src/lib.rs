//! What the firewall counts and measures.
//!
//! The instruments are OpenTelemetry's, and there is one table of them: [`catalogue`]. What is
//! counted comes from the audit records, as they are kept ([`Metrics::recorded`]), so that no number can
//! say what the journal does not; what is only looked at (sizes, positions, states) is read when
//! somebody collects ([`Source`]). [`text`] writes them as Prometheus reads them.
//!
//! Names that come from agents, servers or computed rules never become labels: [`names`] replaces
//! each one that the configuration, the packs, the locks or the policy do not name by [`OTHER`].

pub mod catalogue;
pub mod names;
pub mod readings;
pub mod recorded;
pub mod text;
mod holds;

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bartizan_sync::lock;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
};

pub use self::names::{Names, OTHER};
pub use self::readings::{Readings, Source};
pub use self::recorded::{Lap, Recorded};

/// Largest number of combinations of labels of one instrument. Measurements of further ones are
/// added to one with the label `otel_metric_overflow="true"` (OpenTelemetry, "Metrics SDK",
/// cardinality limits).
pub const SERIES_MAX: usize = 1_000;

/// The name of the instrumentation scope.
const SCOPE: &str = "bartizan";

/// The instruments of a run.
pub struct Metrics {
    recorded: Recorded,
    readings: Arc<Mutex<Readings>>,
    reader: Arc<ManualReader>,
    source: Mutex<Option<Weak<dyn Source>>>,
    // Dropping it would stop the collection.
    _provider: SdkMeterProvider,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Instruments whose labels hold `names` only. `service` and `about`, its further attributes, say
    /// whose they are.
    pub fn new(names: Names, service: &'static str, about: &[(&'static str, &str)]) -> Self {
        let about = about.iter().map(|&(key, value)| KeyValue::new(key, value.to_owned()));
        let resource =
            Resource::builder_empty().with_service_name(service).with_attributes(about).build();
        let reader = Arc::new(ManualReader::builder().build());
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(SharedReader(Arc::clone(&reader)))
            .with_view(|_: &Instrument| {
                Stream::builder().with_cardinality_limit(SERIES_MAX).build().ok()
            })
            .build();
        let meter = provider.meter(SCOPE);
        let readings = Arc::<Mutex<Readings>>::default();
        observe(&meter, &readings);
        Self {
            recorded: Recorded::new(&meter, names),
            readings,
            reader,
            source: Mutex::new(None),
            _provider: provider,
        }
    }

    /// Reads what is not counted from `source`, as long as it exists.
    pub fn read_from(&self, source: &Arc<dyn Source>) {
        *lock(&self.source) = Some(Arc::downgrade(source));
    }

    /// What is counted from records.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Everything as it is now. It reads files: do not call it where that must not wait.
    pub fn collect(&self) -> ResourceMetrics {
        let source = lock(&self.source).as_ref().and_then(Weak::upgrade);
        let mut fresh = Readings::default();
        if let Some(source) = source {
            source.read(&mut fresh);
        }
        self.recorded.read(&mut fresh);
        *lock(&self.readings) = fresh;
        let mut collected = ResourceMetrics::default();
        // It fails after a shutdown alone, and nobody shuts it down.
        drop(self.reader.collect(&mut collected));
        collected
    }
}

/// Makes an instrument of each row of the catalogue that is read and not counted.
fn observe(meter: &Meter, readings: &Arc<Mutex<Readings>>) {
    for row in catalogue::METRICS {
        let from = Arc::clone(readings);
        let read = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
            for (labels, value) in lock(&from).of(row.name) {
                observer.observe(*value, labels);
            }
        };
        match row.kind {
            catalogue::Kind::Gauge => {
                let made = meter.f64_observable_gauge(row.name).with_unit(row.unit);
                made.with_description(row.help).with_callback(read).build();
            }
            catalogue::Kind::ReadCounter => {
                let made = meter.f64_observable_counter(row.name).with_unit(row.unit);
                made.with_description(row.help).with_callback(read).build();
            }
            catalogue::Kind::Counter | catalogue::Kind::Histogram(_) => {}
        }
    }
}

/// The reader, of which the provider wants one of its own.
#[derive(Debug)]
struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, into: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(into)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
