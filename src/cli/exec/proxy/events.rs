//! Streamed answers: server-sent events, put together into what an answer in one piece would have said.

use std::borrow::Cow;
use std::collections::BTreeMap;

use runspan::model::Tokens;
use serde_json::{Map, Value as Json, json};

use super::json;
use super::places::Format;

/// The events of a stream.
#[derive(Default)]
struct Events {
    /// Their data, in order.
    data: Vec<Json>,
    /// The stream said `[DONE]`.
    are_done: bool,
}

/// Tells whether a text is a stream, by the data of its first event.
pub fn is_stream(text: &[u8]) -> bool {
    let text = lines_of(text);
    let lines = text.split(['\n', '\r']).skip_while(|line| !line.starts_with("data:"));
    let data = lines.map_while(|line| line.strip_prefix("data:")).collect::<Vec<_>>().join("\n");
    data.trim() == "[DONE]" || json::read(data.as_bytes()).is_ok()
}

/// Returns text whose lines end with one of two characters: with either or both of them they do in streams.
fn lines_of(stream: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(stream);
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n")) } else { text }
}

/// Reads the events of a stream. What is no JSON is left out.
fn read(stream: &[u8]) -> Events {
    let text = lines_of(stream);
    let mut events = Events::default();
    let mut data = String::new();
    for line in text.split(['\n', '\r']).chain([""]) {
        if let Some(more) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(more.strip_prefix(' ').unwrap_or(more));
        } else if line.is_empty() && !data.is_empty() {
            events.are_done |= data == "[DONE]";
            events.data.extend(json::read(data.as_bytes()).ok().filter(Json::is_object));
            data.clear();
        }
    }
    events
}

/// What a stream came to.
pub struct Folded {
    /// The answer, as far as it came.
    pub answer: Json,
    /// The stream said that it was over.
    pub is_complete: bool,
}

/// Puts the events of a stream together. One that ends in an error keeps what was told before, with the error in it.
pub fn fold(format: Format, stream: &[u8]) -> Folded {
    let events = read(stream);
    let mut folded = match format {
        Format::Chat | Format::Embeddings => fold_chat(&events.data),
        Format::Responses => fold_responses(&events.data),
        Format::Messages => fold_messages(&events.data),
    };
    folded.is_complete |= events.are_done;
    if let Some(error) = events.data.iter().find_map(error) {
        if !folded.answer.is_object() {
            folded.answer = json!({});
        }
        folded.answer["error"] = error;
        folded.is_complete = true;
    }
    folded
}

/// Returns the error that an event is: in a member of its own, or the event itself is one.
fn error(event: &Json) -> Option<Json> {
    let own = event.get("error").filter(|error| !error.is_null()).cloned();
    own.or_else(|| (text(event, "/type") == Some("error")).then(|| event.clone()))
}

fn text<'a>(value: &'a Json, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Json::as_str)
}

/// Returns the place that a peer names. Any will do: only those that are named take memory.
fn index(value: &Json) -> u64 {
    value.get("index").and_then(Json::as_u64).unwrap_or(0)
}

/// Appends text to a member of an object.
fn append(object: &mut Map<String, Json>, key: &str, more: &str) {
    match object.get_mut(key) {
        Some(Json::String(text)) => text.push_str(more),
        _ => drop(object.insert(key.to_owned(), more.into())),
    }
}

/// One of the answers of a chat, as far as it came.
#[derive(Default)]
struct Choice {
    message: Map<String, Json>,
    calls: BTreeMap<u64, Map<String, Json>>,
    reason: Json,
}

impl Choice {
    fn add(&mut self, piece: &Json) {
        // Some say with each piece who speaks, Ollama say.
        if let Some(role) = text(piece, "/delta/role") {
            self.message.insert("role".to_owned(), role.into());
        }
        for key in ["content", "refusal", "reasoning_content", "reasoning"] {
            if let Some(more) = piece.pointer(&format!("/delta/{key}")).and_then(Json::as_str) {
                append(&mut self.message, key, more);
            }
        }
        for call in piece.pointer("/delta/tool_calls").and_then(Json::as_array).into_iter().flatten() {
            let whole = self.calls.entry(index(call)).or_default();
            if let Some(id) = text(call, "/id") {
                whole.insert("id".to_owned(), id.into());
            }
            for (path, key) in [("/function/name", "name"), ("/function/arguments", "arguments")] {
                if let Some(more) = text(call, path) {
                    append(whole, key, more);
                }
            }
        }
        if let Some(reason) = piece.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.reason = reason.clone();
        }
    }

    fn into_whole(mut self) -> Json {
        let calls = self.calls.into_values().map(|call| {
            let function = json!({"name": call.get("name"), "arguments": call.get("arguments")});
            json!({"id": call.get("id"), "function": function})
        });
        self.message.insert("tool_calls".to_owned(), calls.collect());
        json!({"message": self.message, "finish_reason": self.reason})
    }
}

fn fold_chat(events: &[Json]) -> Folded {
    let mut whole = Map::new();
    let mut choices: BTreeMap<u64, Choice> = BTreeMap::new();
    for event in events {
        for key in ["id", "model", "service_tier", "usage"] {
            if let Some(value) = event.get(key).filter(|value| !value.is_null()) {
                whole.insert(key.to_owned(), value.clone());
            }
        }
        if let Some(usage) = usage_elsewhere(event) {
            whole.insert("usage".to_owned(), usage.clone());
        }
        for piece in event.get("choices").and_then(Json::as_array).into_iter().flatten() {
            choices.entry(index(piece)).or_default().add(piece);
        }
    }
    let is_complete = !choices.is_empty() && choices.values().all(|choice| !choice.reason.is_null());
    whole.insert("choices".to_owned(), choices.into_values().map(Choice::into_whole).collect());
    Folded { answer: whole.into(), is_complete }
}

/// Returns what a call used where a piece does not say it beside the choices: Groq has it among its own, Moonshot in the last
/// choice.
fn usage_elsewhere(event: &Json) -> Option<&Json> {
    let is_there = |usage: &&Json| usage.is_object();
    if event.get("usage").is_some_and(Json::is_object) {
        return None;
    }
    let choices = event.get("choices").and_then(Json::as_array).into_iter().flatten();
    let of_choice = choices.filter_map(|choice| choice.get("usage")).find(is_there);
    event.pointer("/x_groq/usage").filter(is_there).or(of_choice)
}

fn fold_responses(events: &[Json]) -> Folded {
    const LAST: &[&str] = &["response.completed", "response.incomplete", "response.failed"];
    let is = |event: &Json, kinds: &[&str]| text(event, "/type").is_some_and(|kind| kinds.contains(&kind));
    let last = events.iter().rev().find(|event| is(event, LAST)).and_then(|last| last.get("response"));
    let is_failed = last.is_some_and(|last| text(last, "/status") == Some("failed"));
    if let Some(last) = last.filter(|last| !is_failed || last.pointer("/output/0").is_some()) {
        return Folded { answer: last.clone(), is_complete: true };
    }
    // It broke off, or failed and does not repeat what it had said: what was done, and the words that came after.
    let first = last.or_else(|| events.iter().find_map(|event| event.get("response"))).cloned();
    let mut answer = first.and_then(|first| first.as_object().cloned()).unwrap_or_default();
    let done = events.iter().filter(|event| is(event, &["response.output_item.done"]));
    let mut output: Vec<Json> = done.filter_map(|event| event.get("item")).cloned().collect();
    let open = events.iter().rposition(|event| is(event, &["response.output_item.done"])).map_or(0, |place| place + 1);
    let words = events.iter().skip(open).filter(|event| is(event, &["response.output_text.delta"]));
    let words: String = words.filter_map(|event| text(event, "/delta")).collect();
    if !words.is_empty() {
        output
            .push(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}]}));
    }
    answer.insert("output".to_owned(), output.into());
    Folded { answer: answer.into(), is_complete: is_failed }
}

fn fold_messages(events: &[Json]) -> Folded {
    let mut answer = Map::new();
    let mut blocks: BTreeMap<u64, Map<String, Json>> = BTreeMap::new();
    let (mut is_complete, mut is_counted) = (false, false);
    for event in events {
        match text(event, "/type") {
            Some("message_start") => {
                let message = event.get("message").and_then(Json::as_object).cloned();
                answer.extend(message.unwrap_or_default());
            }
            Some("content_block_start") => {
                let block = event.get("content_block").and_then(Json::as_object).cloned();
                if let Some(block) = block {
                    blocks.insert(index(event), block);
                }
            }
            Some("content_block_delta") => {
                let block = blocks.entry(index(event)).or_default();
                for (path, key) in [
                    ("/delta/text", "text"),
                    ("/delta/thinking", "thinking"),
                    ("/delta/signature", "signature"),
                    ("/delta/partial_json", "partial_json"),
                ] {
                    if let Some(more) = text(event, path) {
                        append(block, key, more);
                    }
                }
            }
            Some("message_delta") => {
                if let Some(reason) = event.pointer("/delta/stop_reason") {
                    answer.insert("stop_reason".to_owned(), reason.clone());
                }
                // Counts so far, each of which takes the place of what was said before.
                let counts = event.get("usage").and_then(Json::as_object).cloned().unwrap_or_default();
                is_counted |= counts.get("output_tokens").is_some_and(Json::is_number);
                if let Some(usage) = answer.entry("usage").or_insert_with(|| json!({})).as_object_mut() {
                    usage.extend(counts.into_iter().filter(|(_, count)| !count.is_null()));
                }
            }
            Some("message_stop") => is_complete = true,
            _ => {}
        }
    }
    if let Some(usage) = answer.get_mut("usage").filter(|_| !is_complete && !is_counted) {
        forget_beginning(usage);
    }
    for block in blocks.values_mut() {
        // A tool that takes nothing is called with nothing said, and the block began with that.
        if let Some(Json::String(partial)) = block.remove("partial_json").filter(|partial| *partial != "") {
            let input = json::read(partial.as_bytes()).unwrap_or(Json::String(partial));
            block.insert("input".to_owned(), input);
        }
    }
    answer.insert("content".to_owned(), blocks.into_values().map(Json::from).collect());
    Folded { answer: answer.into(), is_complete }
}

/// Forgets what a stream says at its beginning that has come out: a few tokens, whatever comes of it.
fn forget_beginning(usage: &mut Json) {
    let Some(usage) = usage.as_object_mut() else { return };
    let is_beginning = |count: &Json| count.as_f64().is_some_and(|count| count <= Tokens::BEGINNING as f64);
    if usage.get("output_tokens").is_some_and(is_beginning) {
        usage.remove("output_tokens");
        usage.remove("output_tokens_details");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(format: Format, events: &[Json]) -> (String, bool) {
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let folded = fold(format, stream.as_bytes());
        (folded.answer.to_string(), folded.is_complete)
    }

    #[test]
    fn places_take_memory_only_when_they_are_named() {
        let events: Vec<Json> = (0..4_096)
            .map(|n| {
                let calls = json!([{"index": u64::MAX - n, "id": "c"}]);
                json!({"choices": [{"index": n * 1_000, "delta": {"tool_calls": calls}, "finish_reason": "stop"}]})
            })
            .collect();
        let (answer, is_complete) = folded(Format::Chat, &events);
        assert!(is_complete && answer.len() < 1 << 20, "{} bytes", answer.len());
        let block = json!({"type": "content_block_delta", "index": 1_u64 << 40, "delta": {"text": "Hi"}});
        assert_eq!(folded(Format::Messages, &[block]).0, r#"{"content":[{"text":"Hi"}]}"#);
    }

    #[test]
    fn a_stream_that_ends_in_an_error_keeps_what_was_told_before() {
        let usage = json!({"input_tokens": 10, "output_tokens": 1});
        let overloaded = [
            json!({"type": "message_start", "message": {"id": "m1", "model": "claude", "usage": usage}}),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ];
        insta::assert_snapshot!(folded(Format::Messages, &overloaded).0, @r#"{"id":"m1","model":"claude","usage":{"input_tokens":10},"content":[],"error":{"type":"overloaded_error","message":"Overloaded"}}"#);
        let failed = [
            json!({"type": "response.created", "response": {"id": "r1", "model": "gpt-5", "status": "in_progress"}}),
            json!({"type": "error", "code": "server_error", "message": "It failed", "param": null}),
        ];
        insta::assert_snapshot!(folded(Format::Responses, &failed).0, @r#"{"id":"r1","model":"gpt-5","status":"in_progress","output":[],"error":{"type":"error","code":"server_error","message":"It failed","param":null}}"#);
        let chat = [
            json!({"id": "c1", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}),
            json!({"error": {"code": "overloaded", "message": "Later"}}),
        ];
        insta::assert_snapshot!(folded(Format::Chat, &chat).0, @r#"{"id":"c1","model":"gpt-4o","choices":[{"message":{"content":"Hel","tool_calls":[]},"finish_reason":null}],"error":{"code":"overloaded","message":"Later"}}"#);
    }

    #[test]
    fn what_a_stream_has_used_is_said_at_its_end_and_not_at_its_beginning() {
        let begun = |out: u64| {
            let usage =
                json!({"input_tokens": 10, "output_tokens": out, "output_tokens_details": {"thinking_tokens": 0}});
            json!({"type": "message_start", "message": {"usage": usage}})
        };
        let counted = json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}});
        let stop = json!({"type": "message_stop"});
        let used = |events: &[Json]| {
            let answer: Json = serde_json::from_str(&folded(Format::Messages, events).0).unwrap();
            answer["usage"]["output_tokens"].as_u64()
        };
        assert_eq!(used(&[begun(1)]), None);
        assert_eq!(used(&[begun(8)]), None);
        // Nobody begins with as many: it is what was used.
        assert_eq!(used(&[begun(9)]), Some(9));
        assert_eq!(used(&[begun(1), counted.clone()]), Some(1));
        assert_eq!(used(&[begun(1), counted, stop.clone()]), Some(1));
        assert_eq!(used(&[begun(1), stop]), Some(1));
    }

    #[test]
    fn a_tool_that_is_given_nothing_is_given_what_its_block_began_with() {
        let tool = json!({"type": "tool_use", "id": "t1", "name": "now", "input": {}});
        let call = [
            json!({"type": "content_block_start", "index": 0, "content_block": tool}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        ];
        insta::assert_snapshot!(folded(Format::Messages, &call).0, @r#"{"content":[{"type":"tool_use","id":"t1","name":"now","input":{}}]}"#);
    }

    #[test]
    fn a_thought_has_its_signature() {
        let thought = |delta: Json| json!({"type": "content_block_delta", "index": 0, "delta": delta});
        let answer = [
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
            thought(json!({"type": "thinking_delta", "thinking": "Hm."})),
            thought(json!({"type": "signature_delta", "signature": "EqoB"})),
        ];
        insta::assert_snapshot!(folded(Format::Messages, &answer).0, @r#"{"content":[{"type":"thinking","thinking":"Hm.","signature":"EqoB"}]}"#);
    }

    #[test]
    fn who_speaks_is_said_once_or_with_each_piece() {
        let piece = |text: &str| {
            let delta = json!({"role": "assistant", "content": text, "reasoning": "hm "});
            json!({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]})
        };
        insta::assert_snapshot!(folded(Format::Chat, &[piece("Hel"), piece("lo")]).0, @r#"{"choices":[{"message":{"role":"assistant","content":"Hello","reasoning":"hm hm ","tool_calls":[]},"finish_reason":"stop"}]}"#);
    }

    #[test]
    fn what_a_stream_used_is_found_where_each_service_says_it() {
        let usage = json!({"prompt_tokens": 100, "cached_tokens": 40});
        let of_groq = json!({"choices": [], "x_groq": {"id": "req", "usage": usage}});
        let of_moonshot = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]});
        for last in [of_groq, of_moonshot] {
            let piece = json!({"choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": null});
            let answer: Json = serde_json::from_str(&folded(Format::Chat, &[piece, last]).0).unwrap();
            assert_eq!(answer["usage"], usage);
        }
    }

    #[test]
    fn lines_end_in_each_of_three_ways() {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": "Hel"}}]});
        let last = json!({"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]});
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                "event: a{end}data: {piece}{end}{end}event: a{end}data: {{\"a\":{end}data: 1}}{end}{end}data: {last}{end}{end}"
            );
            let folded = fold(Format::Chat, stream.as_bytes());
            assert_eq!(folded.answer["choices"][0]["message"]["content"], "Hello", "{end:?}");
            assert_eq!(read(stream.as_bytes()).data.len(), 3, "{end:?}");
        }
    }

    #[test]
    fn a_stream_is_whole_when_it_says_so() {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": "Hel"}}]});
        assert!(!folded(Format::Chat, std::slice::from_ref(&piece)).1);
        assert!(fold(Format::Chat, format!("data: {piece}\n\ndata: [DONE]\n\n").as_bytes()).is_complete);
        let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        assert!(folded(Format::Chat, &[piece, last]).1);
    }
}
