//! Streamed answers: server-sent events, put together into what an answer in one piece would have said.

use serde_json::{Map, Value as Json, json};

use super::places::Format;

/// Returns the data of the events in a stream, in order. What is no JSON, such as `[DONE]`, is left out.
pub fn read(stream: &[u8]) -> Vec<Json> {
    let text = String::from_utf8_lossy(stream);
    let mut events = Vec::new();
    let mut data = String::new();
    for line in text.lines().chain([""]) {
        if let Some(more) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(more.strip_prefix(' ').unwrap_or(more));
        } else if line.is_empty() && !data.is_empty() {
            events.extend(serde_json::from_str::<Json>(&data).ok().filter(Json::is_object));
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

/// Puts the events of a stream together.
pub fn fold(format: Format, events: &[Json]) -> Folded {
    if let Some(error) = events.iter().find(|event| event.get("error").is_some_and(|error| !error.is_null())) {
        let is_response = error.get("response").is_some();
        if !is_response {
            return Folded { answer: error.clone(), is_complete: true };
        }
    }
    match format {
        Format::Chat | Format::Embeddings => fold_chat(events),
        Format::Responses => fold_responses(events),
        Format::Messages => fold_messages(events),
    }
}

fn text<'a>(value: &'a Json, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Json::as_str)
}

fn index(value: &Json, path: &str) -> Option<usize> {
    /// More choices, calls or blocks than any answer has.
    const MOST: u64 = 4_096;
    let index = value.pointer(path).and_then(Json::as_u64).unwrap_or(0);
    (index < MOST).then(|| usize::try_from(index).ok()).flatten()
}

/// Appends text to a member of an object.
fn append(object: &mut Map<String, Json>, key: &str, more: &str) {
    match object.get_mut(key) {
        Some(Json::String(text)) => text.push_str(more),
        _ => drop(object.insert(key.to_owned(), more.into())),
    }
}

/// Returns the object at a place in a list, which is made as long as needed.
fn at(list: &mut Vec<Map<String, Json>>, index: usize) -> &mut Map<String, Json> {
    if list.len() <= index {
        list.resize_with(index + 1, Map::new);
    }
    &mut list[index]
}

fn fold_chat(events: &[Json]) -> Folded {
    let mut whole = Map::new();
    let mut messages: Vec<Map<String, Json>> = Vec::new();
    let mut calls: Vec<Vec<Map<String, Json>>> = Vec::new();
    let mut reasons: Vec<Json> = Vec::new();
    for event in events {
        for key in ["id", "model", "service_tier", "usage"] {
            if let Some(value) = event.get(key).filter(|value| !value.is_null()) {
                whole.insert(key.to_owned(), value.clone());
            }
        }
        for choice in event.get("choices").and_then(Json::as_array).into_iter().flatten() {
            let Some(place) = index(choice, "/index") else { continue };
            if messages.len() <= place {
                messages.resize_with(place + 1, Map::new);
                calls.resize_with(place + 1, Vec::new);
                reasons.resize(place + 1, Json::Null);
            }
            for key in ["role", "content", "refusal", "reasoning_content"] {
                if let Some(more) = choice.pointer(&format!("/delta/{key}")).and_then(Json::as_str) {
                    append(&mut messages[place], key, more);
                }
            }
            for call in choice.pointer("/delta/tool_calls").and_then(Json::as_array).into_iter().flatten() {
                let Some(number) = index(call, "/index") else { continue };
                let whole = at(&mut calls[place], number);
                if let Some(id) = text(call, "/id") {
                    whole.insert("id".to_owned(), id.into());
                }
                for (path, key) in [("/function/name", "name"), ("/function/arguments", "arguments")] {
                    if let Some(more) = text(call, path) {
                        append(whole, key, more);
                    }
                }
            }
            if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
                reasons[place] = reason.clone();
            }
        }
    }
    let is_complete = !reasons.is_empty() && reasons.iter().all(|reason| !reason.is_null());
    let choices = messages.into_iter().zip(calls).zip(reasons).map(|((mut message, calls), reason)| {
        let calls = calls.into_iter().map(|call| {
            let function = json!({"name": call.get("name"), "arguments": call.get("arguments")});
            json!({"id": call.get("id"), "function": function})
        });
        message.insert("tool_calls".to_owned(), calls.collect());
        json!({"message": message, "finish_reason": reason})
    });
    whole.insert("choices".to_owned(), choices.collect());
    Folded { answer: whole.into(), is_complete }
}

fn fold_responses(events: &[Json]) -> Folded {
    const LAST: &[&str] = &["response.completed", "response.incomplete", "response.failed"];
    let is = |event: &Json, kinds: &[&str]| text(event, "/type").is_some_and(|kind| kinds.contains(&kind));
    if let Some(last) = events.iter().rev().find(|event| is(event, LAST)) {
        return Folded { answer: last.get("response").cloned().unwrap_or_default(), is_complete: true };
    }
    // It broke off: what was done, and the words that came after.
    let first = events.iter().find_map(|event| event.get("response")).cloned();
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
    Folded { answer: answer.into(), is_complete: false }
}

fn fold_messages(events: &[Json]) -> Folded {
    let mut answer = Map::new();
    let mut blocks: Vec<Map<String, Json>> = Vec::new();
    let mut is_complete = false;
    for event in events {
        match text(event, "/type") {
            Some("message_start") => {
                let message = event.get("message").and_then(Json::as_object).cloned();
                answer.extend(message.unwrap_or_default());
            }
            Some("content_block_start") => {
                let block = event.get("content_block").and_then(Json::as_object).cloned();
                if let (Some(place), Some(block)) = (index(event, "/index"), block) {
                    *at(&mut blocks, place) = block;
                }
            }
            Some("content_block_delta") => {
                let Some(place) = index(event, "/index") else { continue };
                let block = at(&mut blocks, place);
                for (path, key) in
                    [("/delta/text", "text"), ("/delta/thinking", "thinking"), ("/delta/partial_json", "partial_json")]
                {
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
                if let Some(usage) = answer.entry("usage").or_insert_with(|| json!({})).as_object_mut() {
                    usage.extend(counts.into_iter().filter(|(_, count)| !count.is_null()));
                }
            }
            Some("message_stop") => is_complete = true,
            _ => {}
        }
    }
    for block in &mut blocks {
        if let Some(Json::String(partial)) = block.remove("partial_json") {
            let input = serde_json::from_str(&partial).unwrap_or(Json::String(partial));
            block.insert("input".to_owned(), input);
        }
    }
    answer.insert("content".to_owned(), blocks.into());
    Folded { answer: answer.into(), is_complete }
}
