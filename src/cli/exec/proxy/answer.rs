//! What the answer of a model says, in the canonical words.

use std::borrow::Cow;

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
        put_cost(span, usage);
        write_answered(span, &with_compaction(usage));
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

/// Some services say what a call cost: OpenRouter in whichever form it answers, and Perplexity.
fn put_cost(span: &mut Span, usage: &Json) {
    let dollars = |path: &str| usage.pointer(path).and_then(Json::as_f64);
    // With a key of one's own the cost is OpenRouter's fee, and whose key it is pays the model's provider besides.
    let is_own_key = usage.get("is_byok") == Some(&Json::Bool(true));
    let of_provider = if is_own_key { dollars("/cost_details/upstream_inference_cost") } else { Some(0.0) };
    let cost = dollars("/cost/total_cost").or_else(|| Some(dollars("/cost")? + of_provider?));
    if let Some(cost) = cost {
        span.set_attr(names::COST_USD, Value::Double(cost));
    }
}

/// Adds what Anthropic's compaction of a conversation used: it is billed, and told beside the counts of the answer.
///
/// Source: Anthropic's documentation of compaction, `usage.iterations`.
fn with_compaction(usage: &Json) -> Cow<'_, Json> {
    let mut sum = Cow::Borrowed(usage);
    for iteration in list(usage, "iterations").filter(|iteration| is_kind(iteration, "compaction")) {
        for path in COUNTS {
            let Some(more) = iteration.pointer(path).and_then(Json::as_u64) else { continue };
            let before = sum.pointer(path).and_then(Json::as_u64).unwrap_or(0);
            put_count(sum.to_mut(), path, before.saturating_add(more));
        }
    }
    sum
}

/// What Anthropic counts of an iteration.
const COUNTS: &[&str] = &[
    "/input_tokens",
    "/output_tokens",
    "/cache_read_input_tokens",
    "/cache_creation_input_tokens",
    "/cache_creation/ephemeral_1h_input_tokens",
];

fn put_count(usage: &mut Json, path: &str, count: u64) {
    let (above, key) = path.rsplit_once('/').unwrap_or(("", path));
    if !above.is_empty() && usage.pointer(above).is_none_or(Json::is_null) {
        put_member(usage, above.trim_start_matches('/'), json!({}));
    }
    if let Some(object) = usage.pointer_mut(above) {
        put_member(object, key, count.into());
    }
}

fn put_member(object: &mut Json, key: &str, value: Json) {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

fn is_kind(value: &Json, kind: &str) -> bool {
    value.get("type").and_then(Json::as_str) == Some(kind)
}

/// Counts the tools of OpenAI's that are billed by the call and stand in the answer alone. Of what is done on the web only
/// searches are: opening a page is not.
///
/// Source: OpenAI's prices of built-in tools.
fn put_searches(span: &mut Span, answer: &Json) {
    let is_billed = |call: &&Json| {
        let action = call.pointer("/action/type").and_then(Json::as_str);
        call.get("status").and_then(Json::as_str) != Some("failed") && action.is_none_or(|action| action == "search")
    };
    for (kind, name) in [("web_search_call", names::WEB_SEARCHES), ("file_search_call", names::STORAGE_SEARCHES)] {
        let calls = list(answer, "output").filter(|item| is_kind(item, kind)).filter(is_billed).count();
        if let Some(calls) = i64::try_from(calls).ok().filter(|calls| *calls > 0) {
            span.set_attr(name, calls);
        }
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
    put_searches(span, answer);
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
    for key in ["speed", "inference_geo"] {
        if let Some(word) = answer.get("usage").and_then(|usage| usage.get(key)?.as_str()) {
            span.set_attr(&format!("{}{key}", names::PRICE_PREFIX), word);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runspan::model::record::{Record, RecordKind};
    use runspan::pipeline::cost::Pricer;

    use super::*;

    /// Returns what an answer says that its call used, and what that cost: input, of it cached, output, of it reasoning, and
    /// dollars.
    fn billed(provider: &str, format: Format, answer: &Json) -> String {
        let mut span = Span { start_time_unix_nano: 1_790_000_000_000_000_000, ..Span::default() };
        span.end_time_unix_nano = span.start_time_unix_nano + 1;
        span.set_attr(names::OPERATION, format.operation());
        span.set_attr(names::PROVIDER, provider);
        write(format, answer, &mut span);
        let mut record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
        Pricer::new().price(&mut record);
        let number =
            |name: &str| record.span.attr(name).and_then(Value::as_f64).map_or("-".to_owned(), |n| n.to_string());
        let counts = [
            names::INPUT_TOKENS,
            names::CACHE_READ_TOKENS,
            names::OUTPUT_TOKENS,
            names::REASONING_TOKENS,
            names::COST_USD,
        ];
        counts.map(number).join(" ")
    }

    #[test]
    fn what_a_service_says_that_a_call_cost_is_what_it_cost_in_every_form() {
        let of = |format, usage: Json| billed("openrouter", format, &json!({"model": "openai/gpt-4o", "usage": usage}));
        let chat = json!({"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.5});
        assert_eq!(of(Format::Chat, chat), "100 - 10 - 0.5");
        let messages = json!({"input_tokens": 100, "output_tokens": 10, "cost": 0.5, "is_byok": false,
            "cost_details": {"upstream_inference_cost": 0.5}});
        assert_eq!(of(Format::Messages, messages), "100 - 10 - 0.5");
        assert_eq!(
            of(Format::Responses, json!({"input_tokens": 100, "output_tokens": 10, "cost": 0.5})),
            "100 - 10 - 0.5"
        );
        assert_eq!(of(Format::Embeddings, json!({"prompt_tokens": 8, "total_tokens": 8, "cost": 0.5})), "8 - - - 0.5");
        let own_key = json!({"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.25, "is_byok": true,
            "cost_details": {"upstream_inference_cost": 0.5}});
        assert_eq!(of(Format::Chat, own_key), "100 - 10 - 0.75");
        let usage = json!({"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29, "reasoning_tokens": 95,
            "cost": {"request_cost": 0.006, "total_cost": 0.75}});
        let answer = json!({"model": "sonar-deep-research", "usage": usage});
        assert_eq!(billed("perplexity", Format::Chat, &answer), "19 - 105 95 0.75");
    }

    #[test]
    fn a_count_may_be_written_with_a_point_or_an_exponent() {
        let usage: Json =
            serde_json::from_str(r#"{"prompt_tokens": 100.0, "completion_tokens": 1e1, "total_tokens": 110.5}"#)
                .unwrap();
        assert_eq!(billed("openai", Format::Chat, &json!({"model": "m", "usage": usage})), "100 - 10 - -");
    }

    #[test]
    fn cached_tokens_are_known_by_the_names_of_each_service() {
        let of = |provider, usage: Json| billed(provider, Format::Chat, &json!({"model": "m", "usage": usage}));
        let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
            "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36});
        assert_eq!(of("deepseek", usage), "100 64 10 - -");
        let usage =
            json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "num_cached_tokens": 50});
        assert_eq!(of("mistral_ai", usage), "100 50 10 - -");
    }

    #[test]
    fn compaction_is_billed_beside_the_answer() {
        let iterations = json!([
            {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500, "cache_read_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 0}},
            {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
        ]);
        let usage = json!({"input_tokens": 23_000, "output_tokens": 1_000, "cache_creation": null,
            "iterations": iterations});
        let answer = json!({"model": "claude-opus-4-6", "usage": usage});
        // 203,000 of input at $5, 5 read from the cache at $0.50, and 4,500 of output at $25 a million.
        assert_eq!(billed("anthropic", Format::Messages, &answer), "203005 5 4500 - 1.1275025");
    }

    #[test]
    fn searches_are_billed_by_the_call() {
        let search =
            |action: &str| json!({"type": "web_search_call", "status": "completed", "action": {"type": action}});
        let usage = json!({"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100});
        let of = |output: Json| {
            billed("openai", Format::Responses, &json!({"model": "gpt-5", "usage": usage, "output": output}))
        };
        assert_eq!(of(json!([])), "1000 - 100 - 0.00225");
        assert_eq!(of(json!([search("search"), search("open_page"), search("search")])), "1000 - 100 - 0.02225");
        assert_eq!(of(json!([{"type": "file_search_call", "status": "completed"}])), "1000 - 100 - 0.00475");
    }

    #[test]
    fn under_circumstances_that_the_table_has_no_rates_for_a_call_has_no_cost() {
        let of = |more: &[(&str, &str)]| {
            let mut usage = json!({"input_tokens": 100, "output_tokens": 100, "service_tier": "standard"});
            more.iter().for_each(|(key, word)| usage[*key] = (*word).into());
            billed("anthropic", Format::Messages, &json!({"model": "claude-opus-4-6", "usage": usage}))
        };
        assert_eq!(of(&[("speed", "standard"), ("inference_geo", "global")]), "100 - 100 - 0.003");
        assert_eq!(of(&[("speed", "fast")]), "100 - 100 - -");
        assert_eq!(of(&[("inference_geo", "us")]), "100 - 100 - -");
    }
}
