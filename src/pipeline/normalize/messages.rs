//! Messages out of what emitters write in pieces: under numbered keys, in an attribute a part, or in events.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::source::{shaped, structured};
use crate::conventions::dialects::{HIDDEN, MESSAGE_EVENTS, Said, Shape, Side, Source};
use crate::model::otlp::{Span, SpanEvent, Value};

/// Makes plain text the one message it is; what has a structure already is left alone.
pub(super) fn of_text(value: Value, role: &str) -> Value {
    match value.to_json() {
        Json::String(text) => json!([message(role, vec![text_part(&text)])]).to_string().into(),
        _ => value,
    }
}

/// Puts together an answer that has an attribute for each sort of what it says, in the order given. Where nothing
/// wants messages, an answer that is nothing but text stays the text it is.
pub(super) fn of_parts(span: &Span, parts: &[(Said, &'static str)], wants_messages: bool) -> Option<Value> {
    let found =
        |&(said, key): &(Said, &'static str)| Some((said, shaped(span, &Source::Key(key), Shape::Text)?.into_owned()));
    let found: Vec<(Said, Value)> = parts.iter().filter_map(found).collect();
    match &found[..] {
        [] => None,
        [(Said::Text, text)] if !wants_messages => Some(text.clone()),
        _ => {
            let parts = found.into_iter().flat_map(|(said, value)| parts_of(said, &value)).collect();
            Some(json!([message("assistant", parts)]).to_string().into())
        }
    }
}

fn parts_of(said: Said, value: &Value) -> Vec<Json> {
    let text = || value.as_str().map_or_else(|| value.to_json().to_string(), str::to_owned);
    match said {
        Said::Reasoning => vec![json!({"type": "reasoning", "content": text()})],
        Said::Text => match structured(value) {
            // The texts of several answers, or of one.
            Json::Array(texts) if texts.iter().all(Json::is_string) => {
                texts.iter().filter_map(Json::as_str).filter(|text| !text.is_empty()).map(text_part).collect()
            }
            _ => vec![text_part(&text())],
        },
        Said::ToolCalls => match structured(value) {
            Json::Array(calls) => calls.iter().map(call_part).collect(),
            other => vec![call_part(&other)],
        },
    }
}

/// Writes a call of a tool as the standard does, whichever of the usual names it bears.
pub fn call_part(call: &Json) -> Json {
    let function = call.get("function").unwrap_or(call);
    let member = |of: &Json, keys: &[&str]| keys.iter().find_map(|key| of.get(key)).cloned();
    let arguments = match member(function, &["arguments", "input", "args"]) {
        Some(Json::String(text)) => Some(structured(&Value::String(text))),
        other => other,
    };
    json!({
        "type": "tool_call",
        "id": member(call, &["id", "toolCallId", "toolUseId"]),
        "name": member(function, &["name", "toolName"]),
        "arguments": arguments,
    })
}

/// Writes a message as the standard does.
pub(crate) fn message(role: impl Into<Json>, parts: Vec<Json>) -> Json {
    let role: Json = role.into();
    json!({"role": role, "parts": parts})
}

/// Writes a text as a part of a message.
pub(crate) fn text_part(text: &str) -> Json {
    json!({"type": "text", "content": text})
}

/// A message whose pieces stand in attributes of their own.
#[derive(Default)]
struct Pieces {
    role: Option<String>,
    finish_reason: Option<String>,
    texts: Vec<String>,
    calls: BTreeMap<u32, Call>,
}

/// A tool call in such a message.
#[derive(Default)]
struct Call {
    id: Option<String>,
    name: Option<String>,
    arguments: Option<Json>,
}

/// Messages put together of attributes, as JSON.
pub(super) struct Gathered {
    pub messages: Json,
    /// Of each something is known that was said.
    pub is_whole: bool,
}

/// Puts together `PREFIX.0.role`, `PREFIX.0.content`, `PREFIX.0.tool_calls.0.name`, ...; the names below the index are
/// Traceloop's and, with `message.`, `tool_call.` and `function.` between, OpenInference's.
pub(super) fn indexed(span: &Span, prefix: &str) -> Option<Gathered> {
    let mut messages: BTreeMap<u32, Pieces> = BTreeMap::new();
    for attribute in &span.attributes {
        let Some((index, rest)) = index_after(&attribute.key, prefix) else { continue };
        let Some(value) = attribute.value.as_ref().and_then(|value| value.value.as_ref()) else { continue };
        let pieces = messages.entry(index).or_default();
        let rest = rest.strip_prefix("message.").unwrap_or(rest);
        let text = || value.as_str().map_or_else(|| value.to_json().to_string(), str::to_owned);
        if let Some((call, field)) = index_after(rest, "tool_calls") {
            let call = pieces.calls.entry(call).or_default();
            match field.strip_prefix("tool_call.").unwrap_or(field) {
                "id" => call.id = Some(text()),
                "name" | "function.name" => call.name = Some(text()),
                "arguments" | "function.arguments" => call.arguments = Some(value.to_json()),
                _ => {}
            }
        } else if index_after(rest, "contents").is_some_and(|(_, field)| field == "message_content.text") {
            pieces.texts.push(text());
        } else {
            match rest {
                "role" => pieces.role = Some(text()),
                "content" => pieces.texts.push(text()),
                "finish_reason" => pieces.finish_reason = Some(text()),
                _ => {}
            }
        }
    }
    let messages: Vec<Json> = messages.into_values().map(Pieces::into_message).collect();
    // Who says of messages no more than whose they are leaves what they say to another place.
    let is_whole = messages.iter().all(says);
    messages.iter().any(says).then_some(Gathered { messages: Json::Array(messages), is_whole })
}

impl Pieces {
    fn into_message(self) -> Json {
        let texts = self.texts.iter().map(|text| text_part(text));
        let calls = self.calls.into_values().map(
            |Call { id, name, arguments }| json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments}),
        );
        let mut message = message(self.role.as_deref().unwrap_or("user"), texts.chain(calls).collect());
        if let Some(reason) = self.finish_reason {
            message["finish_reason"] = reason.into();
        }
        message
    }
}

/// Splits `PREFIX.N.REST` into the number and the rest.
fn index_after<'a>(key: &'a str, prefix: &str) -> Option<(u32, &'a str)> {
    let (index, rest) = key.strip_prefix(prefix)?.strip_prefix('.')?.split_once('.')?;
    Some((index.parse().ok()?, rest))
}

/// Puts together the messages that stand in span events of their own, as the standard had it until 1.36.
pub(super) fn of_events(events: &[SpanEvent], side: Side) -> Option<Json> {
    let told_as = |event: &SpanEvent| MESSAGE_EVENTS.iter().find(|(name, ..)| *name == event.name);
    let mut told: Vec<_> = events.iter().filter_map(|event| Some((event, told_as(event)?))).collect();
    // Those that came as records of logs need not have come in the order in which they were told.
    told.sort_by_key(|(event, _)| event.time_unix_nano);
    let messages: Vec<Told> = told
        .into_iter()
        .map(|(event, (_, of, role))| {
            let message = event_message(event, role);
            Told { of: *of, role, says: says(&message), message }
        })
        .collect();
    let sides = sides_of(&messages);
    let messages = messages.into_iter().zip(sides).filter(|(told, of)| *of == side && (told.of == side || told.says));
    let messages: Vec<Json> = messages.map(|(told, _)| told.message).collect();
    (!messages.is_empty()).then_some(Json::Array(messages))
}

/// A message of a call, and as what it was told.
struct Told {
    of: Side,
    role: &'static str,
    /// Whether it is known what it says.
    says: bool,
    message: Json,
}

/// Tells whether more is known of a message than who said it.
fn says(message: &Json) -> bool {
    message["parts"].as_array().is_some_and(|parts| !parts.is_empty())
}

/// Returns on which side each of the messages of a call is, of which is known as what each was told: what stands before the last one of
/// another than the model is what was said before, and an answer told as any other word of the model is all there is where no
/// choice stands behind that. Where there is no answer so, the last choices are it: of an agent that was stopped when a tool had
/// answered, or where the order is not that in which it was said.
fn sides_of(told: &[Told]) -> Vec<Side> {
    let last_in = told.iter().rposition(|told| told.of == Side::In && told.role != "assistant");
    let behind = last_in.map_or(0, |place| place + 1);
    let is_choice = |told: &Told| told.of == Side::Out;
    let has_choice = told[behind..].iter().any(is_choice);
    let has_answer = has_choice || told[behind..].iter().any(|told| told.says);
    let end = told.iter().rposition(is_choice).map_or(0, |place| place + 1);
    let start = told[..end].iter().rposition(|told| !is_choice(told)).map_or(0, |place| place + 1);
    let side = |(place, told): (usize, &Told)| match (place >= behind, has_choice) {
        (true, false) => Side::Out,
        (true, true) => told.of,
        (false, _) if !has_answer && (start..end).contains(&place) => Side::Out,
        (false, _) => Side::In,
    };
    told.iter().enumerate().map(side).collect()
}

/// Reads what a tool was given, or what it returned, out of events, by their names: of one message that is all what the tool said, of
/// several the messages.
pub(super) fn of_tool(events: &[SpanEvent], side: Side) -> Option<Value> {
    let message = |event: &SpanEvent| {
        let (_, _, role) = MESSAGE_EVENTS.iter().find(|(name, of, _)| *name == event.name && *of == side)?;
        Some(event_message(event, role))
    };
    let messages: Vec<Json> = events.iter().filter_map(message).collect();
    // That there was a message says nothing.
    messages.iter().find(|message| says(message))?;
    let content = |message: &Json| {
        let [part] = message["parts"].as_array()?.as_slice() else { return None };
        let said = part.get("response").or_else(|| part.get("content")).unwrap_or(part);
        Some(said.as_str().map_or_else(|| said.to_string(), str::to_owned))
    };
    let alone = if let [message] = &messages[..] { content(message) } else { None };
    Some(alone.unwrap_or_else(|| Json::Array(messages).to_string()).into())
}

/// Puts together the messages that stand in one attribute as a list of such events.
pub(super) fn of_list(list: &Value, side: Side) -> Option<Value> {
    let Json::Array(items) = structured(list) else { return None };
    let told_as = |item: &Json| {
        let name = item.get("event.name").and_then(Json::as_str)?;
        MESSAGE_EVENTS.iter().find(|(event, ..)| *event == name)
    };
    let told = items.iter().filter_map(|item| Some((item, told_as(item)?)));
    let told = told.map(|(item, (_, of, role))| {
        let message = message_of(role, |name| item.get(name).cloned());
        Told { of: *of, role, says: says(&message), message }
    });
    let told: Vec<Told> = told.collect();
    let sides = sides_of(&told);
    let messages: Vec<Json> =
        told.into_iter().zip(sides).filter(|(_, of)| *of == side).map(|(told, _)| told.message).collect();
    (!messages.is_empty()).then(|| Json::Array(messages).to_string().into())
}

fn event_message(event: &SpanEvent, role: &str) -> Json {
    // Of a log that was written as text, the body has all of the fields. Azure's clients have the same in an attribute.
    let body = event.attr("body").or_else(|| event.attr("gen_ai.event.content")).map(structured);
    message_of(role, |name| {
        event.attr(name).map(Value::to_json).or_else(|| body.as_ref().and_then(|body| body.get(name).cloned()))
    })
}

/// Makes a message of what an event tells. A choice has its message as one value; the other events have the fields of a message.
fn message_of(role: &str, told: impl Fn(&str) -> Option<Json>) -> Json {
    let inner = told("message");
    let field = |name: &str| inner.as_ref().and_then(|inner| inner.get(name).cloned()).or_else(|| told(name));
    // Strands' choice has the content alone.
    let content = field("content").or_else(|| inner.clone().filter(|inner| inner.is_string() || inner.is_array()));
    let (mut parts, mut said_by) = (Vec::new(), None);
    match content {
        Some(Json::String(text)) if role == "tool" && !HIDDEN.contains(&text.as_str()) => {
            parts.push(json!({"type": "tool_call_response", "id": field("id"), "response": text}));
        }
        // In its place stands a word that it was left out.
        Some(Json::String(text)) if HIDDEN.contains(&text.as_str()) => {}
        Some(Json::String(text)) => parts.push(text_part(&text)),
        Some(Json::Array(content)) => parts.extend(content.into_iter().map(part_of_block)),
        Some(Json::Null) | None => {}
        Some(Json::Object(mut content)) if content.get("parts").is_some_and(Json::is_array) => {
            said_by = content.get("role").and_then(Json::as_str).map(str::to_owned);
            if let Some(Json::Array(own)) = content.remove("parts") {
                parts.extend(own.into_iter().map(part_of_gemini));
            }
        }
        Some(other) => parts.push(text_part(&other.to_string())),
    }
    if let Some(Json::Array(calls)) = field("tool_calls") {
        parts.extend(calls.iter().map(call_part));
    }
    let own = field("role").and_then(|role| role.as_str().map(str::to_owned));
    let answers = parts.iter().any(|part| part["type"] == "tool_call_response");
    let own = own.or_else(|| said_by.map(|by| role_of_gemini(by, answers)));
    let own = own.map(|own| in_small_letters(&own).map_or(own, str::to_owned));
    // Who asks for tools is the model, whatever Koog says.
    let asks = parts.iter().any(|part| part["type"] == "tool_call");
    let role = own.filter(|own| !(asks && own == "tool")).unwrap_or_else(|| role.to_owned());
    let mut message = message(role, parts);
    if let Some(reason) = field("finish_reason") {
        message["finish_reason"] = reason;
    }
    message
}

/// Returns the standard's word for who said a content of Gemini's, where what a tool gave comes from the user.
fn role_of_gemini(role: String, answers: bool) -> String {
    match role.as_str() {
        "model" => "assistant".to_owned(),
        "user" | "function" if answers => "tool".to_owned(),
        _ => role,
    }
}

/// Writes a part of a content of Gemini's, as ADK for Go (2.2) logs it, as the standard does; any other stays as it is.
fn part_of_gemini(part: Json) -> Json {
    if let Some(text) = part["text"].as_str() {
        return if part["thought"] == true { json!({"type": "reasoning", "content": text}) } else { text_part(text) };
    }
    if let Some(call) = part.get("functionCall") {
        return call_part(call);
    }
    if let Some(result) = part.get("functionResponse") {
        return json!({"type": "tool_call_response", "id": result["id"], "response": result["response"]});
    }
    part
}

/// Writes a block of a message as Bedrock has it, and Strands, as the standard does; any other stays as it is.
fn part_of_block(block: Json) -> Json {
    let Some(members) = block.as_object() else { return block };
    if let (1, Some(Json::String(text))) = (members.len(), members.get("text")) {
        return text_part(text);
    }
    if let Some(result) = members.get("toolResult") {
        return json!({"type": "tool_call_response", "id": result["toolUseId"], "response": result["content"]});
    }
    if let Some(part) = reasoning_of(&block) {
        return part;
    }
    match members.get("toolUse").or_else(|| Some(&block).filter(|block| block["type"] == "toolUse")) {
        Some(call) => call_part(call),
        None => block,
    }
}

/// Writes what a model thought, a block as Bedrock has it, as the standard does.
fn reasoning_of(block: &Json) -> Option<Json> {
    let text = block.get("reasoningContent")?.get("reasoningText")?.get("text")?.as_str()?;
    Some(json!({"type": "reasoning", "content": text}))
}

/// Writes messages, as JSON, once more where such a block is a text of them, as OpenLLMetry has it; everything else stays as it is, digit
/// by digit.
pub(super) fn with_reasoning(messages: &Value) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        parts: Vec<&'a RawValue>,
    }
    let text = messages.as_str().filter(|text| text.contains("reasoningContent"))?;
    let list: Vec<Message<'_>> = serde_json::from_str(text).ok()?;
    let (mut written, mut end) = (String::new(), 0);
    for part in list.iter().flat_map(|message| &message.parts) {
        let Some(reasoning) = reasoning_in(part.get()) else { continue };
        // It is a part of the text that it was read from.
        let start = (part.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        written.push_str(text.get(end..start)?);
        written.push_str(&reasoning.to_string());
        end = start + part.get().len();
    }
    (end > 0).then(|| format!("{written}{}", text.get(end..).unwrap_or_default()).into())
}

/// Reads a part of a message that is text, if that is such a block.
fn reasoning_in(part: &str) -> Option<Json> {
    let part: Json = part.contains("reasoningContent").then(|| serde_json::from_str(part).ok())??;
    let text = part.get("content").filter(|_| part["type"] == "text")?.as_str()?;
    reasoning_of(&serde_json::from_str(text).ok()?)
}

/// Roles as the standard has them.
const ROLES: &[&str] = &["system", "user", "assistant", "tool", "developer"];

/// Returns the standard's word for a role that is written in other letters.
fn in_small_letters(role: &str) -> Option<&'static str> {
    ROLES.iter().copied().find(|known| known.eq_ignore_ascii_case(role) && *known != role)
}

/// Writes messages, as JSON, once more where a role is not in small letters; everything else stays as it is, digit by digit.
pub(super) fn with_small_roles(messages: &Value) -> Option<Value> {
    let text = messages.as_str()?;
    // A long text is not parsed for nothing.
    let is_likely = text.split("\"role\"").skip(1).any(|rest| {
        let word = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '"'));
        word.starts_with(|c: char| c.is_ascii_uppercase())
    });
    let list = is_likely.then(|| serde_json::from_str::<Vec<Box<RawValue>>>(text).ok()).flatten()?;
    let mut is_changed = false;
    let written: Vec<String> = list
        .iter()
        .map(|message| {
            let written = with_small_role(message.get());
            is_changed |= written.is_some();
            written.unwrap_or_else(|| message.get().to_owned())
        })
        .collect();
    is_changed.then(|| format!("[{}]", written.join(",")).into())
}

/// Writes one message so, if its role is in other letters: between what stands before the role and behind it.
fn with_small_role(message: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Role<'a> {
        #[serde(borrow)]
        role: &'a RawValue,
    }
    let Role { role } = serde_json::from_str(message).ok()?;
    let word = in_small_letters(role.get().strip_prefix('"')?.strip_suffix('"')?)?;
    // It is a part of the text that it was read from.
    let start = (role.get().as_ptr() as usize).checked_sub(message.as_ptr() as usize)?;
    let (before, behind) = (message.get(..start)?, message.get(start + role.get().len()..)?);
    Some(format!("{before}\"{word}\"{behind}"))
}

/// Tells whether messages say why one of them ended.
pub(super) fn tell_reason(messages: &str) -> bool {
    messages.split("\"finish_reason\"").skip(1).any(|behind| {
        let value = behind.trim_start().strip_prefix(':').unwrap_or(behind).trim_start();
        !value.starts_with("\"\"") && !value.starts_with("null")
    })
}

/// Returns why messages ended, as far as they say.
pub(super) fn reasons(messages: &Value) -> Vec<String> {
    let Json::Array(messages) = messages.to_json() else { return Vec::new() };
    let reason = |message: &Json| message.get("finish_reason")?.as_str().map(str::to_owned);
    messages.iter().filter_map(reason).filter(|reason| !reason.is_empty()).collect()
}

/// Tells whether messages, as JSON, have nothing in them.
pub(super) fn are_empty(messages: &Value) -> bool {
    let Json::Array(messages) = messages.to_json() else { return false };
    let is_none = |part: Option<&Json>| match part {
        None | Some(Json::Null) => true,
        Some(Json::Array(parts)) => parts.is_empty(),
        Some(Json::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    let has_nothing = |message: &Json| {
        message.is_object() && ["parts", "content", "tool_calls"].iter().all(|name| is_none(message.get(name)))
    };
    messages.iter().all(has_nothing)
}
