//! What Jaeger's query API answers (`/api/traces`), as an OTLP request.

use std::collections::HashMap;

use runspan::model::otlp::{
    KeyValue, Link, Resource, ResourceSpans, STATUS_ERROR, Scope, ScopeSpans, Span, SpanEvent, Status, TracesData,
    Value,
};
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Trace {
    spans: Vec<Json>,
    processes: HashMap<String, Process>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Process {
    service_name: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JaegerSpan {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(default)]
    operation_name: String,
    #[serde(default)]
    references: Vec<Reference>,
    /// Microseconds.
    start_time: u64,
    /// Microseconds.
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    logs: Vec<Log>,
    #[serde(default, rename = "processID")]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default, rename = "type")]
    kind: String,
    value: Json,
}

#[derive(Deserialize)]
struct Log {
    timestamp: u64,
    #[serde(default)]
    fields: Vec<Tag>,
}

/// Makes a request of the member `data` of an answer; also says which spans are broken.
pub fn request(data: Json) -> Result<(TracesData, Vec<String>), String> {
    let traces: Vec<Trace> =
        serde_json::from_value(data).map_err(|error| format!("it is no answer of Jaeger's API: {error}"))?;
    let (mut request, mut broken) = (TracesData::default(), Vec::new());
    for trace in traces {
        let mut of_process: HashMap<String, Vec<(Scope, Span)>> = HashMap::new();
        for (place, span) in trace.spans.into_iter().enumerate() {
            match serde_json::from_value::<JaegerSpan>(span).map_err(|error| error.to_string()).and_then(told) {
                Ok((process, scope, span)) => of_process.entry(process).or_default().push((scope, span)),
                Err(why) => broken.push(format!("span {place} of a trace: {why}")),
            }
        }
        for (id, spans) in of_process {
            let resource = trace.processes.get(&id).map(resource).unwrap_or_default();
            let scope_spans = spans.into_iter().map(|(scope, span)| ScopeSpans {
                scope: Some(scope),
                spans: vec![span],
                ..Default::default()
            });
            let scope_spans = scope_spans.collect();
            request.resource_spans.push(ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() });
        }
    }
    Ok((request, broken))
}

fn resource(process: &Process) -> Resource {
    let mut attributes = vec![attribute("service.name", Value::from(process.service_name.as_str()))];
    attributes.extend(process.tags.iter().map(|tag| attribute(&tag.key, value(tag))));
    Resource { attributes, ..Default::default() }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value.into()) }
}

/// Jaeger knows more types than its JSON: the tag says which.
fn value(tag: &Tag) -> Value {
    let text = || tag.value.as_str().map_or_else(|| tag.value.to_string(), str::to_owned);
    match (tag.kind.as_str(), &tag.value) {
        (_, Json::Bool(flag)) => Value::Bool(*flag),
        ("int64", other) => other.as_i64().or_else(|| text().parse().ok()).map_or_else(|| text().into(), Value::Int),
        ("float64", other) => {
            other.as_f64().or_else(|| text().parse().ok()).map_or_else(|| text().into(), Value::Double)
        }
        ("bool", _) => text().parse().map_or_else(|_| text().into(), Value::Bool),
        _ => text().into(),
    }
}

/// Reads an id: Jaeger leaves zeros at the beginning out.
fn id(text: &str, bytes: usize) -> Result<Vec<u8>, String> {
    let digits = format!("{text:0>width$}", width = bytes * 2);
    let is_hex = digits.len() == bytes * 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex {
        return Err(format!("{text:?} is no id of {bytes} bytes"));
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).map_err(|error| error.to_string());
    (0..bytes).map(byte).collect()
}

fn told(span: JaegerSpan) -> Result<(String, Scope, Span), String> {
    let nanos = |micros: u64| micros.saturating_mul(1_000);
    let mut told = Span {
        trace_id: id(&span.trace_id, 16)?,
        span_id: id(&span.span_id, 8)?,
        name: span.operation_name,
        start_time_unix_nano: nanos(span.start_time),
        end_time_unix_nano: nanos(span.start_time.saturating_add(span.duration)),
        ..Span::default()
    };
    for reference in &span.references {
        let (trace_id, span_id) = (id(&reference.trace_id, 16)?, id(&reference.span_id, 8)?);
        if reference.ref_type == "CHILD_OF" && trace_id == told.trace_id && told.parent_span_id.is_empty() {
            told.parent_span_id = span_id;
        } else {
            told.links.push(Link { trace_id, span_id, ..Default::default() });
        }
    }
    let (mut scope, mut status) = (Scope::default(), Status::default());
    for tag in &span.tags {
        let text = tag.value.as_str().unwrap_or_default();
        match tag.key.as_str() {
            "otel.scope.name" | "otel.library.name" => scope.name = text.to_owned(),
            "otel.scope.version" | "otel.library.version" => scope.version = text.to_owned(),
            "otel.status_code" => status.code = if text == "ERROR" { STATUS_ERROR } else { 1 },
            "otel.status_description" => status.message = text.to_owned(),
            "error" if tag.value == Json::Bool(true) || text == "true" => status.code = STATUS_ERROR,
            "span.kind" => told.kind = kind(text),
            key => told.attributes.push(attribute(key, value(tag))),
        }
    }
    told.status = (status != Status::default()).then_some(status);
    told.events = span.logs.iter().map(event).collect();
    Ok((span.process_id, scope, told))
}

fn kind(word: &str) -> i32 {
    let kinds = ["internal", "server", "client", "producer", "consumer"];
    kinds.iter().position(|kind| *kind == word).map_or(0, |at| at as i32 + 1)
}

fn event(log: &Log) -> SpanEvent {
    let name = log.fields.iter().find(|field| field.key == "event").and_then(|field| field.value.as_str());
    SpanEvent {
        time_unix_nano: log.timestamp.saturating_mul(1_000),
        name: name.unwrap_or("log").to_owned(),
        attributes: log
            .fields
            .iter()
            .filter(|field| field.key != "event")
            .map(|field| attribute(&field.key, value(field)))
            .collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_of_jaeger_is_the_spans_that_were_sent_to_it() {
        let data = json!([{"traceID": "ab", "processes": {"p1": {"serviceName": "agent", "tags": [
            {"key": "host", "type": "string", "value": "h"}]}},
            "spans": [{"traceID": "ab", "spanID": "2", "operationName": "chat", "processID": "p1", "startTime": 5, "duration": 3,
                "references": [{"refType": "CHILD_OF", "traceID": "ab", "spanID": "1"},
                    {"refType": "FOLLOWS_FROM", "traceID": "cd", "spanID": "3"}],
                "tags": [{"key": "gen_ai.usage.input_tokens", "type": "int64", "value": 7},
                    {"key": "span.kind", "type": "string", "value": "client"},
                    {"key": "otel.scope.name", "type": "string", "value": "lib"},
                    {"key": "error", "type": "bool", "value": true},
                    {"key": "otel.status_description", "type": "string", "value": "boom"}],
                "logs": [{"timestamp": 6, "fields": [{"key": "event", "type": "string", "value": "exception"},
                    {"key": "exception.type", "type": "string", "value": "E"}]}]},
              {"traceID": "xyz", "spanID": "2", "startTime": 5}]}]);
        let (request, broken) = request(data).unwrap();
        assert_eq!(broken, ["span 1 of a trace: \"xyz\" is no id of 16 bytes"]);
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"resourceSpans": [{
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}},
                    {"key": "host", "value": {"stringValue": "h"}}]},
                "scopeSpans": [{"scope": {"name": "lib"}, "spans": [{
                    "traceId": "000000000000000000000000000000ab", "spanId": "0000000000000002",
                    "parentSpanId": "0000000000000001", "name": "chat", "kind": 3,
                    "startTimeUnixNano": "5000", "endTimeUnixNano": "8000",
                    "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}}],
                    "events": [{"timeUnixNano": "6000", "name": "exception",
                        "attributes": [{"key": "exception.type", "value": {"stringValue": "E"}}]}],
                    "links": [{"traceId": "000000000000000000000000000000cd", "spanId": "0000000000000003"}],
                    "status": {"message": "boom", "code": 2}}]}]}]})
        );
    }
}
