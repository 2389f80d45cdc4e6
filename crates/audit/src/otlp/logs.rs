//! Sends each record of the journal to a collector as a log record.
//!
//! The body is the record itself, as its line in the journal, so that what a collector keeps can be
//! verified like the journal. The attributes are those of spans, and bounded like them. A record
//! about a call names the call's trace and SERVER span.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::transform::common::tonic::{Attributes, ResourceAttributesWithSchema};
use opentelemetry_sdk::Resource;
use prost::Message as _;

use super::super::entry::JournalRecord;
use super::super::export::{Batch, Destination, SendOutcome};
use super::super::span::{Assembler, attributes_of, scope, time};
use super::super::tail::Line;
use super::collector::{Collector, CollectorClient, Endpoint};

const ENDPOINT: Endpoint = Endpoint {
    path: "/v1/logs",
    method: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
};

/// Makes log records and sends them to a collector.
pub(super) struct Logs {
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    /// Knows which span a record belongs to.
    assembler: Assembler,
    /// Earlier runs sent the records before this sequence number.
    begins: u64,
}

impl Logs {
    /// Sends the records from `begins` on.
    pub(super) fn new(
        collector: CollectorClient,
        headers: HeaderMap,
        resource: &Resource,
        begins: u64,
    ) -> Self {
        Self {
            collector: Collector::new(collector, &ENDPOINT, headers),
            resource: resource.into(),
            assembler: Assembler::default(),
            begins,
        }
    }

    fn log_record(&mut self, entry: JournalRecord, line: &[u8]) -> LogRecord {
        let (severity, severity_text) = severity(&entry);
        let nanos = time(&entry).duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let span = self.assembler.span_of(&entry);
        let (trace_id, span_id) = span.map_or_else(Default::default, |(trace, span)| {
            (trace.to_bytes().to_vec(), span.to_bytes().to_vec())
        });
        let attributes = Attributes::from(attributes_of(&entry)).0;
        let event_name = format!("bartizan.{}", entry.event);
        self.assembler.remember(entry);
        // A line of the journal is UTF-8.
        let body = String::from_utf8_lossy(line).into_owned();
        LogRecord {
            time_unix_nano: nanos,
            observed_time_unix_nano: nanos,
            severity_number: i32::from(severity),
            severity_text: severity_text.to_owned(),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
            attributes,
            trace_id,
            span_id,
            event_name,
            ..LogRecord::default()
        }
    }
}

/// How much a record matters to somebody who looks for trouble: what failed, what was refused or is
/// a finding, and the rest.
fn severity(entry: &JournalRecord) -> (SeverityNumber, &'static str) {
    let failed = matches!(entry.event.as_str(), "gap" | "recovery")
        || matches!(entry.outcome.as_deref(), Some("upstream_failed" | "unknown" | "withheld"));
    let refused = matches!(entry.event.as_str(), "denial" | "drop" | "repeated");
    let found = entry.finding.is_some() && entry.strength.as_deref() != Some("control-evidence");
    match (failed, refused || found) {
        (true, _) => (SeverityNumber::Error, "ERROR"),
        (false, true) => (SeverityNumber::Warn, "WARN"),
        (false, false) => (SeverityNumber::Info, "INFO"),
    }
}

impl Destination for Logs {
    type Item = LogRecord;
    const NAME: &'static str = "audit logs";
    const EXPORTER: &'static str = "otlp_logs";
    const CURSOR_FILE: &'static str = "otlp-logs.seq";
    const BATCH_RECORDS_MAX: usize = 256;

    async fn make(&mut self, lines: Vec<Line>) -> Batch<LogRecord> {
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        for Line { seq, bytes } in lines {
            let made = JournalRecord::read(&bytes).and_then(|entry| {
                catch_unwind(AssertUnwindSafe(|| self.log_record(entry, &bytes)))
                    .map_err(|_| "a panic".to_owned())
            });
            match made {
                Ok(record) if seq >= self.begins => items.push(record),
                Err(cause) if seq >= self.begins => {
                    lost.push((1, format!("record {seq}: {cause}")));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Batch { items, lost }
    }

    async fn send(&self, records: &[LogRecord]) -> SendOutcome {
        let scope = scope();
        let schema_url = scope.schema_url().unwrap_or_default().to_owned();
        let logs = ScopeLogs {
            schema_url,
            scope: Some((scope, None).into()),
            log_records: records.to_vec(),
        };
        let resource = ProtoResource {
            attributes: self.resource.attributes.0.clone(),
            ..ProtoResource::default()
        };
        let resource_logs = vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![logs],
            schema_url: self.resource.schema_url.clone().unwrap_or_default(),
        }];
        self.collector.send(ExportLogsServiceRequest { resource_logs }.encode_to_vec()).await
    }

    fn dead_letter(record: &LogRecord) -> Vec<u8> {
        // The body is the line.
        match record.body.as_ref().and_then(|body| body.value.as_ref()) {
            Some(any_value::Value::StringValue(line)) => line.clone().into_bytes(),
            _ => b"null".to_vec(),
        }
    }

    fn needed_since(&self, next: u64) -> u64 {
        self.assembler.oldest_open().unwrap_or(next).min(next)
    }
}
