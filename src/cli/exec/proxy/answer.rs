//! What the answer of a model says, in the canonical words.

use runspan::conventions::names;
use runspan::model::otlp::{AnyValue, ArrayValue, Span, Value};
use runspan::pipeline::normalize::write_answered;
use runspan::replay::ask::{call_part, item, parts};
use serde_json::{Value as Json, json};

use super::places::Format;

/// Writes what an answer says.
pub fn write(format: Format, answer: &Json, span: &mut Span) {
    for (key, name) in [("id", names::RESPONSE_ID), ("model", names::RESPONSE_MODEL)] {
        if let Some(text) = answer.get(key).and_then(Json::as_str) {
            span.set_attr(name, text);
        }
    }
    match format {
        Format::Chat => chat(answer, span),
        Format::Responses => responses(answer, span),
        Format::Messages => messages(answer, span),
        Format::Embeddings => embeddings(answer, span),
    }
    if let Some(usage) = answer.get("usage") {
        write_answered(span, usage);
    }
}

/// Returns type and message of an error, if that is what an answer is.
pub fn error(answer: &Json) -> Option<(String, String)> {
    let error = answer.get("error").filter(|error| !error.is_null())?;
    let text = |key: &str| error.get(key).and_then(Json::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let kind = text("code").or_else(|| text("type")).unwrap_or_else(|| names::ERROR_TYPE_OTHER.to_owned());
    Some((kind, text("message").or_else(|| error.as_str().map(str::to_owned)).unwrap_or_default()))
}

fn put_reasons(span: &mut Span, reasons: Vec<&str>) {
    if reasons.is_empty() {
        return;
    }
    let values = reasons.into_iter().map(|reason| AnyValue { value: Some(Value::from(reason)) });
    span.set_attr(names::FINISH_REASONS, Value::Array(ArrayValue { values: values.collect() }));
}

fn put_output(span: &mut Span, messages: Vec<Json>) {
    if !messages.is_empty() {
        span.set_attr(names::OUTPUT_MESSAGES, Json::from(messages).to_string());
    }
}

/// Some services say what a call cost.
fn put_cost(span: &mut Span, usage: &Json) {
    if let Some(cost) = usage.get("cost").and_then(Json::as_f64) {
        span.set_attr(names::COST_USD, Value::Double(cost));
    }
}

fn put_tier(span: &mut Span, answer: &Json) {
    if let Some(tier) = answer.get("service_tier").and_then(Json::as_str) {
        span.set_attr(names::OPENAI_SERVICE_TIER, tier);
    }
}

fn list<'a>(value: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    value.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn chat(answer: &Json, span: &mut Span) {
    let mut output = Vec::new();
    for choice in list(answer, "choices") {
        let Some(message) = choice.get("message") else { continue };
        let text = |key: &str| message.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let reasoning =
            text("reasoning_content").or(text("reasoning")).map(|text| json!({"type": "reasoning", "content": text}));
        let mut said: Vec<Json> = reasoning.into_iter().collect();
        said.extend(text("content").or(text("refusal")).map(|text| json!({"type": "text", "content": text})));
        said.extend(list(message, "tool_calls").map(call_part));
        let role = message.get("role").and_then(Json::as_str).unwrap_or("assistant");
        output.push(json!({"role": role, "parts": said, "finish_reason": choice.get("finish_reason")}));
    }
    put_output(span, output);
    put_reasons(span, list(answer, "choices").filter_map(|choice| choice.get("finish_reason")?.as_str()).collect());
    put_tier(span, answer);
    if let Some(usage) = answer.get("usage") {
        put_cost(span, usage);
    }
}

fn responses(answer: &Json, span: &mut Span) {
    let said: Vec<Json> = list(answer, "output").filter_map(item).collect();
    // One answer, however many items it has.
    let parts: Vec<Json> = said.iter().flat_map(|message| list(message, "parts").cloned()).collect();
    let reason = answer.pointer("/incomplete_details/reason").or_else(|| answer.get("status")).and_then(Json::as_str);
    // One that broke off has none.
    let reason = reason.filter(|reason| !matches!(*reason, "in_progress" | "queued"));
    let reason = reason.map(|reason| if reason == "completed" { "stop" } else { reason });
    if !parts.is_empty() {
        put_output(span, vec![json!({"role": "assistant", "parts": parts, "finish_reason": reason})]);
    }
    put_reasons(span, reason.into_iter().collect());
    put_tier(span, answer);
}

fn messages(answer: &Json, span: &mut Span) {
    let said = parts(answer.get("content").unwrap_or(&Json::Null));
    let reason = answer.get("stop_reason").and_then(Json::as_str);
    if !said.is_empty() {
        put_output(span, vec![json!({"role": "assistant", "parts": said, "finish_reason": reason})]);
    }
    put_reasons(span, reason.into_iter().collect());
    // Not only a tier: `batch` is one of its words.
    if let Some(tier) = answer.pointer("/usage/service_tier").and_then(Json::as_str) {
        span.set_attr(names::SERVICE_TIER, tier);
    }
}

/// Vectors are kept up to so many bytes of a call: they are for replay, and nobody reads them.
const MOST_OF_VECTORS: usize = 256 << 10;

fn embeddings(answer: &Json, span: &mut Span) {
    let vectors: Vec<&Json> = list(answer, "data").filter_map(|data| data.get("embedding")).collect();
    if !vectors.is_empty() {
        let text = Json::from_iter(vectors.into_iter().cloned()).to_string();
        if text.len() <= MOST_OF_VECTORS {
            span.set_attr(names::EMBEDDINGS, text);
        } else {
            span.set_attr(names::CUT, "answer");
        }
    }
}
