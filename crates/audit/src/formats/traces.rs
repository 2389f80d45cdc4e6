//! Spans as OTLP/JSON: what the exporter sends, for a file.
//!
//! One line is one `ExportTraceServiceRequest` with the spans of one run, which collectors read from
//! files (OpenTelemetry specification, "OpenTelemetry Protocol File Exporter"). The messages are those
//! of [`otlp`]; their JSON form is that of the OTLP specification, "JSON Protobuf
//! Encoding": names in camel case, ids in hexadecimal, numbers of 64 bits as text.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Value, json};

use bartizan_gate::wire::hex::hex;

use super::{Convert, push_json};
use crate::calls::Call;
use crate::entry::JournalRecord;
use crate::otlp;
use crate::span::Assembler;

/// Spans of one line.
const SPANS_MAX: usize = 256;

/// The converter.
#[derive(Default)]
pub(super) struct Traces {
    assembler: Assembler,
    /// The run that the spans belong to.
    boot: String,
    spans: Vec<SpanData>,
    /// The newest outcome, until the next record: its call is handed over after it.
    ended: Option<JournalRecord>,
}

impl Convert for Traces {
    /// A request of the server ends before the call that it came with, whose intent says where its
    /// span belongs.
    fn see(&mut self, entry: &JournalRecord) {
        if let Some(ended) = self.ended.take() {
            self.assembler.remember(ended);
        }
        match entry.event.as_str() {
            "intent" => self.assembler.remember(entry.clone()),
            "outcome" => self.ended = Some(entry.clone()),
            _ => {}
        }
    }

    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        for entry in call.records {
            if entry.boot != self.boot {
                self.end(out);
                self.boot.clone_from(&entry.boot);
            }
            self.spans.extend(self.assembler.take(entry));
        }
        if self.spans.len() >= SPANS_MAX {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.spans.is_empty() {
            return;
        }
        let resource = otlp::describe(Vec::new(), &self.boot);
        let spans = std::mem::take(&mut self.spans);
        let resource_spans = group_spans_by_resource_and_scope(spans, &(&resource).into());
        push_json(&request(&ExportTraceServiceRequest { resource_spans }), out);
    }
}

fn request(request: &ExportTraceServiceRequest) -> Value {
    json!({"resourceSpans": request.resource_spans.iter().map(resource_spans).collect::<Vec<_>>()})
}

fn resource_spans(of: &ResourceSpans) -> Value {
    json!({
        "resource": of.resource.as_ref().map_or_else(|| json!({}), resource),
        "scopeSpans": of.scope_spans.iter().map(scope_spans).collect::<Vec<_>>(),
        "schemaUrl": of.schema_url,
    })
}

/// The attributes in the order of their names: the SDK keeps them in none.
fn resource(of: &Resource) -> Value {
    let mut all = of.attributes.clone();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    json!({"attributes": attributes(&all)})
}

fn scope_spans(of: &ScopeSpans) -> Value {
    json!({
        "scope": of.scope.as_ref().map_or_else(|| json!({}), scope),
        "spans": of.spans.iter().map(span).collect::<Vec<_>>(),
        "schemaUrl": of.schema_url,
    })
}

fn scope(of: &InstrumentationScope) -> Value {
    json!({"name": of.name, "version": of.version, "attributes": attributes(&of.attributes)})
}

fn span(of: &Span) -> Value {
    let mut span = json!({
        "traceId": hex(&of.trace_id),
        "spanId": hex(&of.span_id),
        "traceState": of.trace_state,
        "flags": of.flags,
        "name": of.name,
        "kind": of.kind,
        "startTimeUnixNano": of.start_time_unix_nano.to_string(),
        "endTimeUnixNano": of.end_time_unix_nano.to_string(),
        "attributes": attributes(&of.attributes),
        "droppedAttributesCount": of.dropped_attributes_count,
        "events": of.events.iter().map(event).collect::<Vec<_>>(),
        "links": of.links.iter().map(link).collect::<Vec<_>>(),
        "status": of.status.as_ref().map_or_else(
            || json!({}),
            |status| json!({"message": status.message, "code": status.code}),
        ),
    });
    if let Some(span) = span.as_object_mut().filter(|_| !of.parent_span_id.is_empty()) {
        span.insert("parentSpanId".to_owned(), hex(&of.parent_span_id).into());
    }
    span
}

fn event(of: &Event) -> Value {
    json!({
        "timeUnixNano": of.time_unix_nano.to_string(),
        "name": of.name,
        "attributes": attributes(&of.attributes),
    })
}

fn link(of: &Link) -> Value {
    json!({
        "traceId": hex(&of.trace_id),
        "spanId": hex(&of.span_id),
        "traceState": of.trace_state,
        "flags": of.flags,
        "attributes": attributes(&of.attributes),
    })
}

fn attributes(all: &[KeyValue]) -> Vec<Value> {
    let one = |it: &KeyValue| json!({"key": it.key, "value": any(it.value.as_ref())});
    all.iter().map(one).collect()
}

/// A value of the kinds that spans of a journal have: texts, numbers, truth values, and lists of them.
fn any(value: Option<&Any>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(AnyValue::StringValue(text)) => json!({ "stringValue": text }),
        Some(AnyValue::BoolValue(is)) => json!({ "boolValue": is }),
        Some(AnyValue::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(AnyValue::DoubleValue(number)) => json!({ "doubleValue": number }),
        Some(AnyValue::ArrayValue(list)) => {
            let values: Vec<Value> = list.values.iter().map(|it| any(Some(it))).collect();
            json!({"arrayValue": {"values": values}})
        }
        Some(AnyValue::KvlistValue(list)) => {
            json!({"kvlistValue": {"values": attributes(&list.values)}})
        }
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Calls;

    #[test]
    fn a_request_of_the_server_is_in_the_trace_of_the_call_that_it_came_with() {
        let record = |seq, event: &str, call: &str, within: Option<&str>| JournalRecord {
            seq,
            boot: "b".to_owned(),
            event: event.to_owned(),
            time: "2026-11-30T08:00:00.000000Z".to_owned(),
            call: Some(call.to_owned()),
            within: within.map(str::to_owned),
            ..JournalRecord::default()
        };
        let (mut traces, mut calls, mut out) = (Traces::default(), Calls::whole(), Vec::new());
        for entry in [
            record(1, "intent", "outer", None),
            record(2, "intent", "inner", Some("outer")),
            record(3, "outcome", "inner", Some("outer")),
            record(4, "outcome", "outer", None),
        ] {
            traces.see(&entry);
            for call in calls.push(entry, true) {
                traces.call(call, &mut out);
            }
        }
        let ids: Vec<_> = traces.spans.iter().map(|it| it.span_context.trace_id()).collect();
        assert!(ids.len() >= 2 && ids.windows(2).all(|two| two[0] == two[1]), "{ids:?}");
    }
}
