//! OpenAI's shapes: an answer as the JSON and the events that its clients read.

use super::ask::{Ask, Endpoint, Turn};
use super::reply::Reply;
use super::script::{Said, ToolCall};
use super::usage::Tokens;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is known of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model<'a> {
    /// The dated name that answers carry.
    pub(super) dated: &'a str,
    /// Whether it bills reasoning.
    pub(super) reasons: bool,
}

const MODELS: [(&str, &str, bool); 8] = [
    ("gpt-4o", "gpt-4o-2024-08-06", false),
    ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", false),
    ("gpt-4.1", "gpt-4.1-2025-04-14", false),
    ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", false),
    ("gpt-5", "gpt-5-2025-08-07", true),
    ("gpt-5-mini", "gpt-5-mini-2025-08-07", true),
    ("o3", "o3-2025-04-16", true),
    ("o4-mini", "o4-mini-2025-04-16", true),
];

/// Looks a model up; one that is not listed goes by its own name.
pub(super) fn model(name: &str) -> Model<'_> {
    let known = |row: &&(&str, &str, bool)| row.0 == name || row.1 == name;
    let row = MODELS.iter().find(known);
    let (dated, reasons) = row.map_or((name, false), |(_, dated, reasons)| (*dated, *reasons));
    Model { dated, reasons }
}

/// Makes ids that no other answer of this server has, nor, in practice, one of another server.
#[derive(Debug)]
pub(super) struct Ids {
    start: u128,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { start: since_epoch().as_nanos(), next: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}{number:06}", self.start)
    }
}

fn since_epoch() -> std::time::Duration {
    // A clock before 1970 is wrong anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Puts an answer into the shape that its endpoint promises.
pub(super) fn reply(ask: &Ask, said: &Said, tokens: Tokens, ids: &Ids) -> Reply {
    if let Said::Failure(status) = said {
        return Reply::error(*status, failure_message(*status));
    }
    let id = ids.next();
    let answer = Answer { ask, said, tokens, id: &id, created: since_epoch().as_secs() };
    let request_id = format!("req_{id}");
    let frames = match (ask.endpoint, ask.stream) {
        (Endpoint::Chat, true) => answer.chat_events(),
        (Endpoint::Responses, true) => answer.response_events(),
        (endpoint, _) => {
            let body = match endpoint {
                Endpoint::Chat => answer.chat(),
                Endpoint::Responses => answer.response(),
                Endpoint::Embeddings => answer.embeddings(),
            };
            return Reply::Whole { status: 200, request_id: Some(request_id), body };
        }
    };
    Reply::Streamed { request_id, frames }
}

fn failure_message(status: u16) -> &'static str {
    match status {
        401 => "the API key is not accepted, as ordered",
        429 => "the rate limit is reached, as ordered",
        _ => "the model failed, as ordered",
    }
}

/// An answer with all that its shapes need.
struct Answer<'a> {
    ask: &'a Ask,
    said: &'a Said,
    tokens: Tokens,
    id: &'a str,
    created: u64,
}

impl Answer<'_> {
    fn text(&self) -> Option<&str> {
        match self.said {
            Said::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The tool calls, each with its own id.
    fn calls(&self) -> impl Iterator<Item = (String, &ToolCall)> {
        let calls: &[ToolCall] = match self.said {
            Said::Calls(calls) => calls,
            _ => &[],
        };
        let id_of = |at: usize| format!("call_{}{at:02}", self.id);
        let numbered = calls.iter().enumerate();
        numbered.map(move |(at, call)| (id_of(at), call))
    }

    fn chat(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text(), "refusal": null});
        let calls: Vec<Value> = self.calls().map(chat_call).collect();
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        let choice = json!({"index": 0, "message": message, "logprobs": null,
            "finish_reason": self.finish_reason()});
        let mut body = self.chat_base("chat.completion");
        body["choices"] = json!([choice]);
        body["usage"] = self.chat_usage();
        body
    }

    fn chat_events(&self) -> Vec<String> {
        let mut deltas = vec![json!({"role": "assistant", "content": self.text().map(|_| ""), "refusal": null})];
        deltas.extend(words(self.text().unwrap_or("")).map(|word| json!({"content": word})));
        for (at, call) in self.calls().enumerate() {
            deltas.extend(chat_call_deltas(at, call));
        }
        let mut chunks: Vec<Value> = deltas.into_iter().map(|delta| self.chat_chunk(delta, None)).collect();
        chunks.push(self.chat_chunk(json!({}), Some(self.finish_reason())));
        if self.ask.include_usage {
            let mut last = self.chat_base("chat.completion.chunk");
            last["choices"] = json!([]);
            last["usage"] = self.chat_usage();
            chunks.push(last);
        }
        let mut frames: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        frames.push("data: [DONE]\n\n".to_owned());
        frames
    }

    fn chat_chunk(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        let mut chunk = self.chat_base("chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]);
        if self.ask.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn chat_base(&self, object: &str) -> Value {
        json!({"id": format!("chatcmpl-{}", self.id), "object": object, "created": self.created,
            "model": model(&self.ask.model).dated, "service_tier": "default", "system_fingerprint": "fp_scripted"})
    }

    fn finish_reason(&self) -> &'static str {
        match self.said {
            Said::Calls(_) => "tool_calls",
            _ => "stop",
        }
    }

    fn chat_usage(&self) -> Value {
        let tokens = self.tokens;
        json!({
            "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
            "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
    }

    fn response(&self) -> Value {
        let tokens = self.tokens;
        json!({
            "id": format!("resp_{}", self.id), "object": "response", "created_at": self.created,
            "status": "completed", "error": null, "incomplete_details": null, "instructions": null,
            "max_output_tokens": null, "model": model(&self.ask.model).dated, "output": self.response_items(),
            "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
            "store": false, "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
            "tools": [], "top_p": 1.0, "truncation": "disabled", "metadata": {},
            "usage": {
                "input_tokens": tokens.input, "input_tokens_details": {"cached_tokens": tokens.cached},
                "output_tokens": tokens.output, "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
                "total_tokens": tokens.input + tokens.output}})
    }

    fn response_items(&self) -> Vec<Value> {
        let message = self.text().map(|text| {
            json!({"type": "message", "id": format!("msg_{}", self.id), "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
        });
        let calls = self.calls().map(|(id, call)| {
            json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": call.name,
                "arguments": call.arguments.to_string(), "status": "completed"})
        });
        message.into_iter().chain(calls).collect()
    }

    fn response_events(&self) -> Vec<String> {
        let whole = self.response();
        let mut opening = whole.clone();
        opening["status"] = json!("in_progress");
        opening["output"] = json!([]);
        opening["usage"] = Value::Null;
        let mut events = vec![
            json!({"type": "response.created", "response": opening}),
            json!({"type": "response.in_progress", "response": opening}),
        ];
        for (at, item) in self.response_items().into_iter().enumerate() {
            events.extend(item_events(at, item));
        }
        events.push(json!({"type": "response.completed", "response": whole}));
        events.into_iter().enumerate().map(|(at, event)| response_frame(at, event)).collect()
    }

    fn embeddings(&self) -> Value {
        let texts = self.ask.turns.iter().filter_map(|turn| match turn {
            Turn::User(text) => Some(text),
            _ => None,
        });
        let data: Vec<Value> = texts
            .enumerate()
            .map(|(at, text)| {
                json!({"object": "embedding", "index": at, "embedding": embedding(text, self.ask.dimensions)})
            })
            .collect();
        json!({"object": "list", "data": data, "model": model(&self.ask.model).dated,
            "usage": {"prompt_tokens": self.tokens.input, "total_tokens": self.tokens.input}})
    }
}

fn chat_call((id, call): (String, &ToolCall)) -> Value {
    json!({"id": id, "type": "function",
        "function": {"name": call.name, "arguments": call.arguments.to_string()}})
}

/// A call opens with its id and name; its arguments follow in two halves.
fn chat_call_deltas(at: usize, (id, call): (String, &ToolCall)) -> Vec<Value> {
    let (first, second) = halves(&call.arguments.to_string());
    let part = |function: Value| json!({"tool_calls": [{"index": at, "function": function}]});
    let mut opening = part(json!({"name": call.name, "arguments": ""}));
    opening["tool_calls"][0]["id"] = json!(id);
    opening["tool_calls"][0]["type"] = json!("function");
    vec![opening, part(json!({"arguments": first})), part(json!({"arguments": second}))]
}

fn item_events(at: usize, item: Value) -> Vec<Value> {
    let id = &item["id"];
    let mut opening = item.clone();
    opening["status"] = json!("in_progress");
    let mut inner = Vec::new();
    if item["type"] == "message" {
        opening["content"] = json!([]);
        let part = &item["content"][0];
        let place = json!({"item_id": id, "output_index": at, "content_index": 0});
        let empty = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        inner.push(event("response.content_part.added", &place, "part", &empty));
        for word in words(part["text"].as_str().unwrap_or("")) {
            inner.push(event("response.output_text.delta", &place, "delta", &json!(word)));
        }
        inner.push(event("response.output_text.done", &place, "text", &part["text"]));
        inner.push(event("response.content_part.done", &place, "part", part));
    } else {
        opening["arguments"] = json!("");
        let (first, second) = halves(item["arguments"].as_str().unwrap_or(""));
        let place = json!({"item_id": id, "output_index": at});
        for half in [first, second] {
            inner.push(event("response.function_call_arguments.delta", &place, "delta", &json!(half)));
        }
        inner.push(event("response.function_call_arguments.done", &place, "arguments", &item["arguments"]));
    }
    let place = json!({"output_index": at});
    let added = event("response.output_item.added", &place, "item", &opening);
    let done = event("response.output_item.done", &place, "item", &item);
    [vec![added], inner, vec![done]].concat()
}

fn event(kind: &str, place: &Value, field: &str, value: &Value) -> Value {
    let mut event = place.clone();
    event["type"] = json!(kind);
    event[field] = value.clone();
    event
}

fn response_frame(at: usize, mut event: Value) -> String {
    event["sequence_number"] = json!(at);
    let kind = event["type"].as_str().unwrap_or_default();
    format!("event: {kind}\ndata: {event}\n\n")
}

/// The words of a text, each with the spaces behind it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

fn halves(text: &str) -> (String, String) {
    let middle = text.chars().count() / 2;
    (text.chars().take(middle).collect(), text.chars().skip(middle).collect())
}

/// A vector that equal texts share; FNV-1a stirs the bytes.
fn embedding(text: &str, dimensions: usize) -> Vec<f64> {
    let stir = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, stir);
    let mut vector = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        hash = stir(hash, 1);
        let byte = (hash >> 56) as u8;
        vector.push(f64::from(byte) / 128.0 - 1.0);
    }
    vector
}
