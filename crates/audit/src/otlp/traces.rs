//! Sends spans to a collector.
//!
//! A span needs the first and the last record of its call. After a restart reading therefore begins
//! with the oldest call that had not ended; spans that were already sent are not sent again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;

use super::super::entry::JournalRecord;
use super::super::export::{Batch, Destination, SendOutcome};
use super::super::span::Assembler;
use super::super::tail::Line;
use super::collector::{Collector, CollectorClient, Endpoint};

const ENDPOINT: Endpoint = Endpoint {
    path: "/v1/traces",
    method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
};

/// Assembles spans and sends them to a collector.
pub(super) struct Traces {
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    assembler: Assembler,
    /// Earlier runs sent the spans that end before this sequence number.
    begins: u64,
}

/// A span, and the line of the record that completed it.
#[derive(Debug)]
pub(super) struct MadeSpan {
    span: SpanData,
    line: Bytes,
}

impl Traces {
    /// Sends spans that end at record `begins` or later.
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
}

impl Destination for Traces {
    type Item = MadeSpan;
    const NAME: &'static str = "audit traces";
    const EXPORTER: &'static str = "otlp";
    const CURSOR_FILE: &'static str = "otlp.seq";
    const BATCH_RECORDS_MAX: usize = 512;

    async fn make(&mut self, lines: Vec<Line>) -> Batch<MadeSpan> {
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        let given_up = self.assembler.given_up();
        for Line { seq, bytes } in lines {
            let sent_before = seq < self.begins;
            match JournalRecord::read(&bytes) {
                Ok(entry) => match catch_unwind(AssertUnwindSafe(|| self.assembler.take(entry))) {
                    Ok(spans) if !sent_before => {
                        let line = Bytes::from(bytes);
                        let made = |span| MadeSpan { span, line: line.clone() };
                        items.extend(spans.into_iter().map(made));
                    }
                    Err(_) if !sent_before => lost.push((1, format!("record {seq}: a panic"))),
                    Ok(_) | Err(_) => {}
                },
                Err(_) if sent_before => {}
                Err(cause) => lost.push((1, format!("record {seq}: {cause}"))),
            }
        }
        let given_up = self.assembler.given_up().saturating_sub(given_up);
        if given_up > 0 {
            lost.push((given_up, "too many calls await their outcome".to_owned()));
        }
        Batch { items, lost }
    }

    async fn send(&self, spans: &[MadeSpan]) -> SendOutcome {
        let spans = spans.iter().map(|made| made.span.clone()).collect();
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        self.collector.send(ExportTraceServiceRequest { resource_spans }.encode_to_vec()).await
    }

    fn dead_letter(made: &MadeSpan) -> Vec<u8> {
        made.line.to_vec()
    }

    fn needed_since(&self, next: u64) -> u64 {
        self.assembler.oldest_open().unwrap_or(next).min(next)
    }
}
