//! Sends metrics to a collector.
//!
//! They do not come from the journal, and each request has the totals so far: one that fails is not
//! repeated, because the next one says the same and more.

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use prost::Message as _;

use super::super::export::SendOutcome;
use super::collector::{Collector, CollectorClient, Endpoint};
use super::describe;

const ENDPOINT: Endpoint = Endpoint {
    path: "/v1/metrics",
    method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

/// Sends metrics to a collector.
pub struct MetricsSender {
    collector: Collector,
    resource: ProtoResource,
}

impl std::fmt::Debug for MetricsSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsSender").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl MetricsSender {
    /// Sends with `headers`, of which some may be credentials. `attributes` and the run `boot` describe
    /// this instance as they do for the other signals.
    pub fn new(
        collector: CollectorClient,
        headers: HeaderMap,
        attributes: Vec<(String, String)>,
        boot: &str,
    ) -> Self {
        let resource = (&describe(attributes, boot)).into();
        Self { collector: Collector::new(collector, &ENDPOINT, headers), resource }
    }

    /// Sends `metrics` in one request.
    ///
    /// # Errors
    ///
    /// The collector does not take all of them; the text is the cause.
    pub async fn send(&self, metrics: &ResourceMetrics) -> Result<(), String> {
        let mut request = ExportMetricsServiceRequest::from(metrics);
        for metrics in &mut request.resource_metrics {
            metrics.resource = Some(self.resource.clone());
        }
        match self.collector.send(request.encode_to_vec()).await {
            SendOutcome::Taken { rejected: 0, .. } => Ok(()),
            SendOutcome::Taken { rejected, cause } => {
                Err(format!("the collector rejected {rejected} data points: {cause}"))
            }
            SendOutcome::Later { cause, .. }
            | SendOutcome::Doubtful(cause)
            | SendOutcome::Refused(cause) => Err(cause),
        }
    }
}
