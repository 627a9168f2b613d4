//! Answers as services send them: in one piece, and as streams of events that their clients put together.

use serde_json::{Value as Json, json};

use super::answer::{Answer, Choice, FAILED, Failure};
use super::ask::Format;
use super::conversation::Part;
use crate::model::Tokens;
use crate::model::otlp::base64;

/// What a service says beside the answer.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// The id of the answer.
    pub id: &'a str,
    /// The model that answered.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: u64,
    /// The stream says at its end what was used; other shapes always do.
    pub has_usage: bool,
    /// Vectors as text, and not as lists of numbers.
    pub is_base64: bool,
    /// The stream does not say its end.
    pub is_part: bool,
    /// The class of service that was billed.
    pub tier: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// Makes what a request asks for.
    pub fn of(request: &Json, id: &'a str, model: &'a str, created: u64) -> Self {
        let has_usage = request.pointer("/stream_options/include_usage") == Some(&Json::Bool(true));
        let is_base64 = request.get("encoding_format").and_then(Json::as_str) == Some("base64");
        Self { id, model, created, has_usage, is_base64, is_part: false, tier: None }
    }

    /// Says what the answer was billed as.
    #[must_use]
    pub fn at(self, tier: Option<&'a str>) -> Self {
        Self { tier, ..self }
    }
}

/// Writes an answer in one piece.
pub fn whole(format: Format, answer: &Answer, envelope: &Envelope<'_>) -> Json {
    match format {
        Format::Chat => chat(answer, envelope),
        Format::Responses => response(answer, envelope),
        Format::Messages => message(answer, envelope),
        Format::Embeddings => embeddings(answer, envelope),
    }
}

/// Writes an answer as a stream of server-sent events, each with its blank line.
pub fn events(format: Format, answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    match format {
        Format::Chat => chat_events(answer, envelope),
        Format::Responses => response_events(answer, envelope),
        Format::Messages => message_events(answer, envelope),
        Format::Embeddings => vec![format!("data: {}\n\n", embeddings(answer, envelope))],
    }
}

/// Writes the beginning of an answer as a stream that does not say its end.
pub fn beginning(format: Format, answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    // A stream may begin with an error, and no more is known of it.
    if answer.id.is_none() && answer.choices.is_empty() {
        return Vec::new();
    }
    events(format, answer, &Envelope { is_part: true, ..envelope.clone() })
}

/// Writes a stream that fails, after what it has answered.
pub fn failing(format: Format, failure: &Failure, answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    let mut frames = beginning(format, answer, envelope);
    let (_, error) = self::failure(format, failure);
    frames.push(match format {
        Format::Responses => {
            let error = &error["error"];
            let event = match failed(failure, answer, envelope) {
                Some(response) => json!({"type": "response.failed", "response": response}),
                None => json!({"type": "error", "code": error["code"], "message": error["message"], "param": null}),
            };
            numbered(frames.len(), event)
        }
        Format::Messages => named(&error),
        Format::Chat | Format::Embeddings => format!("data: {error}\n\n"),
    });
    frames
}

/// Writes an answer that says itself that it failed, as OpenAI's responses do; `None` if it does not.
pub fn failed(failure: &Failure, answer: &Answer, envelope: &Envelope<'_>) -> Option<Json> {
    let reason = answer.choices.first()?.finish_reason.as_deref();
    let error = json!({"code": failure.kind, "message": failure.message.as_deref().unwrap_or_default()});
    (reason == Some(FAILED)).then(|| {
        let mut response = response(answer, envelope);
        (response["status"], response["incomplete_details"]) = (FAILED.into(), Json::Null);
        response["error"] = error;
        if answer.tokens.is_none() {
            response["usage"] = Json::Null;
        }
        response
    })
}

/// Writes a failure as a service says it. One without a status is the server's.
pub fn failure(format: Format, failure: &Failure) -> (u16, Json) {
    // What the pass-through itself has said.
    let is_ours = matches!(failure.kind.as_deref(), Some("unreachable" | "disconnected"));
    let status = failure.status.unwrap_or(if is_ours { 502 } else { 500 });
    let kind = failure.kind.as_deref().unwrap_or("server_error");
    let message = failure.message.as_deref().unwrap_or("the call failed when it was recorded");
    (status, error(format, kind, message))
}

/// Writes an error in the shape that clients of a service show to people.
pub fn error(format: Format, kind: &str, message: &str) -> Json {
    match format {
        Format::Messages => json!({"type": "error", "error": {"type": kind, "message": message}}),
        _ => json!({"error": {"message": message, "type": kind, "param": null, "code": kind}}),
    }
}

/// Why a model stops, whatever word a provider has for it.
#[derive(Clone, Copy)]
enum Stopped {
    AtEnd,
    ForTools,
    AtLength,
    ByFilter,
}

fn stopped(choice: &Choice) -> Stopped {
    let word = choice.finish_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|part| word.contains(part));
    let has_tools = choice.message.parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
    if says(&["tool", "function"]) || has_tools {
        Stopped::ForTools
    } else if says(&["length", "max_", "incomplete"]) {
        Stopped::AtLength
    } else if says(&["filter", "safety", "refus"]) {
        Stopped::ByFilter
    } else {
        Stopped::AtEnd
    }
}

/// The words of a text, each with the spaces behind it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

fn halves(text: &str) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len() / 2))
}

fn texts(choice: &Choice) -> String {
    let said = choice.message.parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    said.collect()
}

/// Returns what a model thought as one text.
fn thought(choice: &Choice) -> Option<String> {
    let parts = choice.message.parts.iter();
    let texts: Vec<&str> = parts
        .filter_map(|part| match part {
            Part::Reasoning { text, .. } if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// A tool that is asked for, with a name for the call, its arguments as text.
struct Call<'a> {
    id: String,
    name: &'a str,
    arguments: &'a Json,
}

impl Call<'_> {
    fn text(&self) -> String {
        match self.arguments {
            Json::Null => "{}".to_owned(),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

fn calls<'a>(choice: &'a Choice, answer: &str) -> Vec<Call<'a>> {
    let asked = choice.message.parts.iter().filter_map(|part| match part {
        Part::ToolCall { id, name, arguments } => Some((id, name, arguments)),
        _ => None,
    });
    let named = asked.enumerate().map(|(at, (id, name, arguments))| {
        let id = id.clone().unwrap_or_else(|| format!("call_{answer}_{at}"));
        Call { id, name, arguments }
    });
    named.collect()
}

// ---- chat completions ----

fn chat_base(object: &str, envelope: &Envelope<'_>) -> Json {
    json!({"id": envelope.id, "object": object, "created": envelope.created, "model": envelope.model,
        "service_tier": envelope.tier.unwrap_or("default"), "system_fingerprint": null})
}

fn chat_reason(choice: &Choice) -> &'static str {
    match stopped(choice) {
        Stopped::AtEnd => "stop",
        Stopped::ForTools => "tool_calls",
        Stopped::AtLength => "length",
        Stopped::ByFilter => "content_filter",
    }
}

fn chat_usage(tokens: Option<Tokens>) -> Option<Json> {
    let tokens = tokens?.with_total();
    let count = |count: Option<u64>| count.unwrap_or(0);
    Some(json!({
        "prompt_tokens": count(tokens.prompt), "completion_tokens": count(tokens.completion),
        "total_tokens": count(tokens.total),
        "prompt_tokens_details": {"cached_tokens": count(tokens.cache_read), "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": count(tokens.reasoning), "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}))
}

fn chat(answer: &Answer, envelope: &Envelope<'_>) -> Json {
    let choices = answer.choices.iter().enumerate().map(|(at, choice)| {
        let calls = calls(choice, envelope.id);
        let text = texts(choice);
        let content = if text.is_empty() && !calls.is_empty() { Json::Null } else { text.into() };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if let Some(thought) = thought(choice) {
            message["reasoning_content"] = thought.into();
        }
        if !calls.is_empty() {
            let function = |call: &Call<'_>| json!({"name": call.name, "arguments": call.text()});
            message["tool_calls"] = calls
                .iter()
                .map(|call| json!({"id": call.id, "type": "function", "function": function(call)}))
                .collect();
        }
        json!({"index": at, "message": message, "logprobs": null, "finish_reason": chat_reason(choice)})
    });
    let mut body = chat_base("chat.completion", envelope);
    body["choices"] = choices.collect();
    if let Some(usage) = chat_usage(answer.tokens) {
        body["usage"] = usage;
    }
    body
}

fn chat_deltas(choice: &Choice, answer: &str) -> Vec<Json> {
    let (calls, text) = (calls(choice, answer), texts(choice));
    let content = if text.is_empty() && !calls.is_empty() { Json::Null } else { "".into() };
    let mut deltas = vec![json!({"role": "assistant", "content": content, "refusal": null})];
    deltas.extend(thought(choice).map(|thought| json!({"reasoning_content": thought})));
    deltas.extend(words(&text).map(|word| json!({"content": word})));
    for (at, call) in calls.iter().enumerate() {
        let opening = json!({"index": at, "id": call.id, "type": "function",
            "function": {"name": call.name, "arguments": ""}});
        deltas.push(json!({"tool_calls": [opening]}));
        let arguments = call.text();
        let (first, second) = halves(&arguments);
        for half in [first, second].into_iter().filter(|half| !half.is_empty()) {
            deltas.push(json!({"tool_calls": [{"index": at, "function": {"arguments": half}}]}));
        }
    }
    deltas
}

fn chat_events(answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    let usage = chat_usage(answer.tokens).filter(|_| envelope.has_usage);
    let chunk = |choices: Json, usage: Option<&Json>| {
        let mut chunk = chat_base("chat.completion.chunk", envelope);
        chunk["choices"] = choices;
        if envelope.has_usage {
            chunk["usage"] = usage.cloned().unwrap_or_default();
        }
        format!("data: {chunk}\n\n")
    };
    let mut frames = Vec::new();
    for (at, choice) in answer.choices.iter().enumerate() {
        let piece = |delta: Json, reason: Option<&str>| {
            chunk(json!([{"index": at, "delta": delta, "logprobs": null, "finish_reason": reason}]), None)
        };
        frames.extend(chat_deltas(choice, envelope.id).into_iter().map(|delta| piece(delta, None)));
        if envelope.is_part {
            continue;
        }
        frames.push(piece(json!({}), Some(chat_reason(choice))));
    }
    if !envelope.is_part {
        frames.extend(usage.map(|usage| chunk(json!([]), Some(&usage))));
        frames.push("data: [DONE]\n\n".to_owned());
    }
    frames
}

// ---- responses ----

/// Items in the order in which they were said: a service wants each thought before what came of it. All texts are one message.
fn response_items(answer: &Answer, envelope: &Envelope<'_>) -> Vec<Json> {
    let id = envelope.id;
    let Some(choice) = answer.choices.first() else { return Vec::new() };
    let said = |text: String| {
        json!({"type": "message", "id": format!("msg_{id}"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
    };
    let mut items = Vec::new();
    let (mut calls, mut text) = (calls(choice, id).into_iter(), Some(texts(choice)).filter(|text| !text.is_empty()));
    for (at, part) in choice.message.parts.iter().enumerate() {
        match part {
            Part::Text(_) => items.extend(text.take().map(said)),
            Part::Reasoning { text, seal } => items.push(reasoning(&format!("rs_{id}_{at}"), text, seal.as_ref())),
            Part::ToolCall { .. } => items.extend(calls.next().map(|call| {
                json!({"type": "function_call", "id": format!("fc_{}", call.id), "call_id": call.id,
                    "name": call.name, "arguments": call.text(), "status": "completed"})
            })),
            Part::ToolResult { .. } | Part::Other(_) => {}
        }
    }
    if !envelope.is_part && items.iter().all(|item| item["type"] == "reasoning") {
        items.push(said(String::new()));
    }
    items
}

fn reasoning(id: &str, text: &str, seal: Option<&Json>) -> Json {
    let mut item = json!({"type": "reasoning", "id": id, "summary": []});
    if !text.is_empty() {
        item["summary"] = json!([{"type": "summary_text", "text": text}]);
    }
    for key in ["id", "encrypted_content"] {
        if let Some(seal) = seal.and_then(|seal| seal.get(key)) {
            item[key] = seal.clone();
        }
    }
    item
}

fn response(answer: &Answer, envelope: &Envelope<'_>) -> Json {
    let tokens = answer.tokens.unwrap_or_default().with_total();
    let count = |count: Option<u64>| count.unwrap_or(0);
    let why = match answer.choices.first().map(stopped) {
        Some(Stopped::AtLength) => json!({"reason": "max_output_tokens"}),
        Some(Stopped::ByFilter) => json!({"reason": "content_filter"}),
        _ => Json::Null,
    };
    let status = if why.is_null() { "completed" } else { "incomplete" };
    json!({
        "id": envelope.id, "object": "response", "created_at": envelope.created, "status": status, "error": null,
        "incomplete_details": why, "instructions": null, "max_output_tokens": null, "model": envelope.model,
        "output": response_items(answer, envelope), "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "truncation": "disabled", "metadata": {},
        "service_tier": envelope.tier, "usage": {
            "input_tokens": count(tokens.prompt), "input_tokens_details": {"cached_tokens": count(tokens.cache_read)},
            "output_tokens": count(tokens.completion),
            "output_tokens_details": {"reasoning_tokens": count(tokens.reasoning)},
            "total_tokens": count(tokens.total)}})
}

fn response_events(answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    let whole = response(answer, envelope);
    let mut opening = whole.clone();
    opening["status"] = "in_progress".into();
    opening["incomplete_details"] = Json::Null;
    opening["output"] = json!([]);
    opening["usage"] = Json::Null;
    let mut events = vec![
        json!({"type": "response.created", "response": opening}),
        json!({"type": "response.in_progress", "response": opening}),
    ];
    for (at, item) in response_items(answer, envelope).iter().enumerate() {
        item_events(&mut events, at, item);
    }
    if envelope.is_part {
        // Tools and thoughts are told when they are whole.
        let is_open = |event: &Json| event.pointer("/item/type").is_none_or(|kind| kind == "message");
        let is_done = |event: &Json| event["type"].as_str().is_some_and(|kind| kind.ends_with(".done"));
        while events.last().is_some_and(|event| is_done(event) && is_open(event)) {
            events.pop();
        }
        return events.into_iter().enumerate().map(|(at, event)| numbered(at, event)).collect();
    }
    let last = if whole["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
    events.push(json!({"type": last, "response": whole}));
    events.into_iter().enumerate().map(|(at, event)| numbered(at, event)).collect()
}

fn numbered(at: usize, mut event: Json) -> String {
    event["sequence_number"] = at.into();
    named(&event)
}

/// Writes an event under its own type.
fn named(event: &Json) -> String {
    let kind = event.get("type").and_then(Json::as_str).unwrap_or_default();
    format!("event: {kind}\ndata: {event}\n\n")
}

fn item_events(events: &mut Vec<Json>, at: usize, item: &Json) {
    let id = &item["id"];
    let mut opening = item.clone();
    let empty = match item["type"].as_str() {
        Some("message") => Some(("content", json!([]))),
        Some("function_call") => Some(("arguments", json!(""))),
        _ => Some(("summary", json!([]))),
    };
    if let Some((key, empty)) = empty {
        opening[key] = empty;
    }
    if item.get("status").is_some() {
        opening["status"] = "in_progress".into();
    }
    events.push(json!({"type": "response.output_item.added", "output_index": at, "item": opening}));
    let mut push = |kind: &str, part: &str, more: Json| {
        let mut event = json!({"type": kind, "item_id": id, "output_index": at});
        if !part.is_empty() {
            event[part] = 0.into();
        }
        if let (Some(event), Json::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        events.push(event);
    };
    match item["type"].as_str() {
        Some("message") => {
            let part = &item["content"][0];
            let text = part["text"].as_str().unwrap_or_default();
            let mut empty = part.clone();
            empty["text"] = "".into();
            push("response.content_part.added", "content_index", json!({"part": empty}));
            for word in words(text) {
                push("response.output_text.delta", "content_index", json!({"delta": word, "logprobs": []}));
            }
            push("response.output_text.done", "content_index", json!({"text": text, "logprobs": []}));
            push("response.content_part.done", "content_index", json!({"part": part}));
        }
        Some("function_call") => {
            let arguments = item["arguments"].as_str().unwrap_or_default();
            let (first, second) = halves(arguments);
            for half in [first, second] {
                push("response.function_call_arguments.delta", "", json!({"delta": half}));
            }
            push("response.function_call_arguments.done", "", json!({"name": item["name"], "arguments": arguments}));
        }
        // What it thought is secret.
        _ if item["summary"][0].is_null() => {}
        _ => {
            let part = &item["summary"][0];
            let text = &part["text"];
            push(
                "response.reasoning_summary_part.added",
                "summary_index",
                json!({"part": {"type": "summary_text", "text": ""}}),
            );
            push("response.reasoning_summary_text.delta", "summary_index", json!({"delta": text}));
            push("response.reasoning_summary_text.done", "summary_index", json!({"text": text}));
            push("response.reasoning_summary_part.done", "summary_index", json!({"part": part}));
        }
    }
    events.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}));
}

// ---- messages ----

fn stop_reason(choice: &Choice) -> &'static str {
    match stopped(choice) {
        Stopped::AtEnd => "end_turn",
        Stopped::ForTools => "tool_use",
        Stopped::AtLength => "max_tokens",
        Stopped::ByFilter => "refusal",
    }
}

/// Here cached tokens are no part of the input.
fn message_usage(answer: &Answer, envelope: &Envelope<'_>) -> Json {
    let tokens = answer.tokens.unwrap_or_default();
    let count = |count: Option<u64>| count.unwrap_or(0);
    let cached = count(tokens.cache_read) + count(tokens.cache_write);
    let mut usage = json!({"input_tokens": count(tokens.prompt).saturating_sub(cached),
        "cache_creation_input_tokens": tokens.cache_write, "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": count(tokens.completion)});
    if let Some(written) = tokens.cache_write {
        let hour = answer.cache_write_1h.unwrap_or(0);
        usage["cache_creation"] = json!({"ephemeral_5m_input_tokens": written.saturating_sub(hour),
            "ephemeral_1h_input_tokens": hour});
    }
    if let Some(thought) = tokens.reasoning {
        usage["output_tokens_details"] = json!({"thinking_tokens": thought});
    }
    if let Some(tier) = envelope.tier {
        usage["service_tier"] = tier.into();
    }
    usage
}

fn blocks(answer: &Answer, envelope: &Envelope<'_>) -> Vec<Json> {
    let Some(choice) = answer.choices.first() else { return Vec::new() };
    let mut calls = calls(choice, envelope.id).into_iter();
    let parts = choice.message.parts.iter();
    let block = parts.filter_map(|part| match part {
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::Reasoning { text, seal } => {
            let signature = seal.as_ref().and_then(|seal| seal.get("signature")).cloned();
            Some(json!({"type": "thinking", "thinking": text, "signature": signature.unwrap_or_else(|| "".into())}))
        }
        Part::ToolCall { name, arguments, .. } => {
            let id = calls.next().map(|call| call.id);
            let is_input = arguments.is_object() || (envelope.is_part && arguments.is_string());
            let input = if is_input { arguments.clone() } else { json!({}) };
            Some(json!({"type": "tool_use", "id": id, "name": name, "input": input}))
        }
        Part::Other(other) => {
            (other["type"] == "redacted_thinking" && other["data"].is_string()).then(|| other.clone())
        }
        Part::ToolResult { .. } => None,
    });
    block.collect()
}

fn message(answer: &Answer, envelope: &Envelope<'_>) -> Json {
    json!({"id": envelope.id, "type": "message", "role": "assistant", "model": envelope.model,
        "content": blocks(answer, envelope), "stop_reason": answer.choices.first().map(stop_reason),
        "stop_sequence": null, "usage": message_usage(answer, envelope)})
}

fn message_events(answer: &Answer, envelope: &Envelope<'_>) -> Vec<String> {
    let mut opening = message(answer, envelope);
    let (reason, usage) = (opening["stop_reason"].take(), opening["usage"].clone());
    opening["content"] = json!([]);
    if let Some(usage) = opening["usage"].as_object_mut().filter(|_| !envelope.is_part) {
        usage.insert("output_tokens".to_owned(), 0.into());
        usage.remove("output_tokens_details");
    }
    let mut events = vec![json!({"type": "message_start", "message": opening})];
    let blocks = blocks(answer, envelope);
    for (at, block) in blocks.iter().enumerate() {
        let (empty, deltas) = block_in_pieces(block);
        events.push(json!({"type": "content_block_start", "index": at, "content_block": empty}));
        events.extend(
            deltas.into_iter().map(|delta| json!({"type": "content_block_delta", "index": at, "delta": delta})),
        );
        // Of a text nobody knows whether it was over.
        let is_open = envelope.is_part && at + 1 == blocks.len() && !block["input"].is_object();
        if !is_open {
            events.push(json!({"type": "content_block_stop", "index": at}));
        }
    }
    if envelope.is_part {
        return events.iter().map(named).collect();
    }
    events.push(
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage}),
    );
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named).collect()
}

fn block_in_pieces(block: &Json) -> (Json, Vec<Json>) {
    let mut empty = block.clone();
    let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("tool_use") => {
            empty["input"] = json!({});
            let input = block["input"].as_str().map_or_else(|| block["input"].to_string(), str::to_owned);
            let (first, second) = halves(&input);
            let piece = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
            (empty, vec![piece(first), piece(second)])
        }
        Some("thinking") => {
            (empty["thinking"], empty["signature"]) = ("".into(), "".into());
            let thought = json!({"type": "thinking_delta", "thinking": text("thinking")});
            (empty, vec![thought, json!({"type": "signature_delta", "signature": text("signature")})])
        }
        // It comes whole.
        Some("redacted_thinking") => (empty, Vec::new()),
        _ => {
            empty["text"] = "".into();
            let text = text("text");
            (empty, words(&text).map(|word| json!({"type": "text_delta", "text": word})).collect())
        }
    }
}

// ---- embeddings ----

fn embeddings(answer: &Answer, envelope: &Envelope<'_>) -> Json {
    let data = answer.embeddings.iter().enumerate().map(|(at, vector)| {
        let vector = if envelope.is_base64 { as_base64(vector) } else { as_numbers(vector) };
        json!({"object": "embedding", "index": at, "embedding": vector})
    });
    let used = answer.tokens.and_then(|tokens| tokens.prompt).unwrap_or(0);
    // OpenAI gives them no id; clients do not mind one, and by it nobody takes them for billed.
    json!({"id": envelope.id, "object": "list", "data": data.collect::<Vec<_>>(), "model": envelope.model,
        "usage": {"prompt_tokens": used, "total_tokens": used}})
}

/// Numbers of 32 bits, the lowest byte first, as OpenAI packs them.
fn as_base64(vector: &Json) -> Json {
    let Some(numbers) = vector.as_array() else { return vector.clone() };
    let bytes = numbers.iter().flat_map(|number| (number.as_f64().unwrap_or(0.0) as f32).to_le_bytes());
    base64::encode(&bytes.collect::<Vec<u8>>()).into()
}

fn as_numbers(vector: &Json) -> Json {
    let bytes = vector.as_str().and_then(base64::decode);
    let Some(bytes) = bytes else { return vector.clone() };
    let number = |four: &[u8]| four.try_into().map_or(0.0, f32::from_le_bytes);
    bytes.chunks_exact(4).map(|four| f64::from(number(four))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::conversation::Message;
    use super::*;

    fn answer() -> Answer {
        let parts = vec![
            Part::Text("Let me look.".to_owned()),
            Part::ToolCall {
                id: Some("c1".to_owned()),
                name: "weather".to_owned(),
                arguments: json!({"city": "Bärn"}),
            },
            Part::ToolCall { id: None, name: "time".to_owned(), arguments: Json::Null },
        ];
        let message = Message { role: "assistant".to_owned(), parts };
        Answer {
            id: None,
            model: None,
            choices: vec![Choice { message, finish_reason: Some("tool-calls".to_owned()) }],
            tokens: Some(Tokens {
                prompt: Some(115),
                completion: Some(42),
                cache_read: Some(100),
                cache_write: Some(5),
                ..Tokens::default()
            }),
            cache_write_1h: Some(3),
            service_tier: None,
            embeddings: Vec::new(),
            redacted: 0,
        }
    }

    const ENVELOPE: Envelope<'_> =
        Envelope { id: "id", model: "m", created: 1, has_usage: true, is_base64: false, is_part: false, tier: None };

    #[test]
    fn each_service_says_it_in_its_own_shape() {
        insta::assert_snapshot!(whole(Format::Chat, &answer(), &ENVELOPE), @r#"{"id":"id","object":"chat.completion","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"message":{"role":"assistant","content":"Let me look.","refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bärn\"}"}},{"id":"call_id_1","type":"function","function":{"name":"time","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":115,"completion_tokens":42,"total_tokens":157,"prompt_tokens_details":{"cached_tokens":100,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#);
        insta::assert_snapshot!(whole(Format::Messages, &answer(), &ENVELOPE), @r#"{"id":"id","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Let me look."},{"type":"tool_use","id":"c1","name":"weather","input":{"city":"Bärn"}},{"type":"tool_use","id":"call_id_1","name":"time","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":100,"output_tokens":42,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}"#);
        insta::assert_snapshot!(whole(Format::Responses, &answer(), &ENVELOPE)["output"], @r#"[{"type":"message","id":"msg_id","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Let me look.","annotations":[],"logprobs":[]}]},{"type":"function_call","id":"fc_c1","call_id":"c1","name":"weather","arguments":"{\"city\":\"Bärn\"}","status":"completed"},{"type":"function_call","id":"fc_call_id_1","call_id":"call_id_1","name":"time","arguments":"{}","status":"completed"}]"#);
    }

    /// What was recorded of an answer of blocks or items, as an answer again.
    fn recorded(parts: Vec<Json>) -> Answer {
        let parts = super::super::conversation::parts(&parts.into());
        let message = Message { role: "assistant".to_owned(), parts };
        Answer { choices: vec![Choice { message, finish_reason: None }], ..answer() }
    }

    #[test]
    fn thoughts_are_given_back_with_what_their_service_knows_them_by() {
        let blocks = json!([
            {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"},
            {"type": "redacted_thinking", "data": "EmwK"},
            {"type": "text", "text": "Yes."},
        ]);
        let answer = recorded(super::super::ask::parts(&blocks));
        assert_eq!(whole(Format::Messages, &answer, &ENVELOPE)["content"], blocks);
        let stream = events(Format::Messages, &answer, &ENVELOPE).concat();
        let pieces = ["thinking_delta", "signature_delta", "redacted_thinking", "text_delta"];
        let found = pieces.map(|piece| stream.find(piece));
        assert!(found.is_sorted() && found[0].is_some() && stream.contains(r#""signature":"EqoB""#), "{stream}");
        let secret = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"});
        let told = json!({"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Hm."}]});
        let read = |item: &Json| super::super::ask::item(item).unwrap()["parts"][0].clone();
        let call = json!({"type": "tool_call", "id": "c1", "name": "weather", "arguments": {}});
        let answer = recorded(vec![read(&secret), call, read(&told)]);
        let output = whole(Format::Responses, &answer, &ENVELOPE)["output"].clone();
        assert_eq!((&output[0], &output[1]["type"], &output[2]), (&secret, &"function_call".into(), &told));
        assert_eq!(output[3], Json::Null);
        let stream = events(Format::Responses, &answer, &ENVELOPE).concat();
        assert_eq!(stream.matches("event: response.reasoning_summary_part.added").count(), 1, "{stream}");
        // A model that tells its thoughts whole, and one whose thoughts no service has sealed.
        let whole_thought =
            json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]});
        assert_eq!(read(&whole_thought), json!({"type": "reasoning", "content": "Hm."}));
        assert_eq!(
            whole(Format::Messages, &recorded(vec![read(&whole_thought)]), &ENVELOPE)["content"],
            json!([{"type": "thinking", "thinking": "Hm.", "signature": ""}])
        );
    }

    #[test]
    fn streams_are_events_that_put_together_say_the_same() {
        insta::assert_snapshot!(events(Format::Chat, &answer(), &ENVELOPE).concat(), @r#"
        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"content":"Let "},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"content":"me "},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"content":"look."},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"Bärn\"}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_id_1","type":"function","function":{"name":"time","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[],"usage":{"prompt_tokens":115,"completion_tokens":42,"total_tokens":157,"prompt_tokens_details":{"cached_tokens":100,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

        data: [DONE]
        "#);
        insta::assert_snapshot!(events(Format::Messages, &answer(), &ENVELOPE).concat(), @r#"
        event: message_start
        data: {"type":"message_start","message":{"id":"id","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":100,"output_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Let "}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"me "}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"look."}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: content_block_start
        data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c1","name":"weather","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"Bärn\"}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":1}

        event: content_block_start
        data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"call_id_1","name":"time","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":2}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":100,"output_tokens":42,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}

        event: message_stop
        data: {"type":"message_stop"}
        "#);
        let kinds: Vec<String> = events(Format::Responses, &answer(), &ENVELOPE)
            .iter()
            .filter_map(|frame| frame.lines().next().map(str::to_owned))
            .collect();
        insta::assert_snapshot!(kinds.join("\n"), @r"
        event: response.created
        event: response.in_progress
        event: response.output_item.added
        event: response.content_part.added
        event: response.output_text.delta
        event: response.output_text.delta
        event: response.output_text.delta
        event: response.output_text.done
        event: response.content_part.done
        event: response.output_item.done
        event: response.output_item.added
        event: response.function_call_arguments.delta
        event: response.function_call_arguments.delta
        event: response.function_call_arguments.done
        event: response.output_item.done
        event: response.output_item.added
        event: response.function_call_arguments.delta
        event: response.function_call_arguments.delta
        event: response.function_call_arguments.done
        event: response.output_item.done
        event: response.completed
        ");
    }

    #[test]
    fn what_was_used_is_said_with_all_that_was_recorded_of_it() {
        let mut answer = answer();
        answer.tokens = answer.tokens.map(|tokens| Tokens { reasoning: Some(20), ..tokens });
        let envelope = ENVELOPE.at(Some("priority"));
        insta::assert_snapshot!(whole(Format::Messages, &answer, &envelope)["usage"], @r#"{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":100,"output_tokens":42,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3},"output_tokens_details":{"thinking_tokens":20},"service_tier":"priority"}"#);
        let stream = events(Format::Messages, &answer, &envelope);
        assert!(!stream[0].contains("thinking_tokens") && stream[0].contains(r#""service_tier":"priority""#));
        assert_eq!(whole(Format::Chat, &answer, &envelope)["service_tier"], "priority");
        assert_eq!(whole(Format::Responses, &answer, &envelope)["service_tier"], "priority");
    }

    #[test]
    fn a_stream_that_failed_or_was_left_does_not_say_its_end() {
        let said = |reason: Option<&str>| {
            let mut answer = answer();
            answer.choices[0].finish_reason = reason.map(str::to_owned);
            answer.choices[0].message.parts.truncate(1);
            answer
        };
        let failure = Failure {
            status: Some(200),
            kind: Some("overloaded".to_owned()),
            message: Some("Later".to_owned()),
            answered: None,
        };
        let last = |frames: Vec<String>| frames.iter().rev().take(2).rev().cloned().collect::<String>();
        let of = |format| last(failing(format, &failure, &said(None), &ENVELOPE));
        insta::assert_snapshot!(of(Format::Chat), @r#"
        data: {"id":"id","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"content":"look."},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"error":{"message":"Later","type":"overloaded","param":null,"code":"overloaded"}}
        "#);
        insta::assert_snapshot!(of(Format::Messages), @r#"
        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"look."}}

        event: error
        data: {"type":"error","error":{"type":"overloaded","message":"Later"}}
        "#);
        insta::assert_snapshot!(of(Format::Responses), @r#"
        event: response.output_text.delta
        data: {"type":"response.output_text.delta","item_id":"msg_id","output_index":0,"content_index":0,"delta":"look.","logprobs":[],"sequence_number":6}

        event: error
        data: {"type":"error","code":"overloaded","message":"Later","param":null,"sequence_number":7}
        "#);
        let failed = failing(Format::Responses, &failure, &said(Some("failed")), &ENVELOPE).concat();
        let failed = failed.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let failed: Json = serde_json::from_str(failed).unwrap_or_default();
        insta::assert_snapshot!(json!([failed["type"], failed["response"]["status"], failed["response"]["error"]]), @r#"["response.failed","failed",{"code":"overloaded","message":"Later"}]"#);
        // Nothing but the error is known of a stream that begins with one.
        let nothing = Answer { choices: Vec::new(), ..answer() };
        assert_eq!(failing(Format::Messages, &failure, &nothing, &ENVELOPE).len(), 1);
        // What the model has asked for with half of what it is given, and with all.
        let mut calls = answer();
        calls.choices[0].message.parts.pop();
        insta::assert_snapshot!(last(beginning(Format::Messages, &calls, &ENVELOPE)), @r#"
        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"Bärn\"}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":1}
        "#);
        let Some(Part::ToolCall { arguments, .. }) = calls.choices[0].message.parts.last_mut() else { panic!() };
        *arguments = Json::from(r#"{"ci"#);
        insta::assert_snapshot!(last(beginning(Format::Messages, &calls, &ENVELOPE)), @r#"
        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"ci"}}
        "#);
    }

    #[test]
    fn vectors_are_packed_and_unpacked_as_asked_for() {
        let numbers = json!([0.5, -2.0, 1.25]);
        let text = as_base64(&numbers);
        assert_eq!(text, "AAAAPwAAAMAAAKA/");
        assert_eq!(
            (as_numbers(&text), as_base64(&text), as_numbers(&numbers)),
            (numbers.clone(), text.clone(), numbers)
        );
    }
}
