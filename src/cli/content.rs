//! What went into a step and came out of it, for reading: conversations as messages, all else as it is.

use std::collections::HashMap;

use serde_json::Value as Json;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks: `user`, `assistant`, `tool`, ...
    pub role: String,
    /// What is said.
    pub parts: Vec<Part>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thought on the way.
    Reasoning(String),
    /// The model asks for a tool.
    ToolCall {
        /// The tool.
        name: String,
        /// What it is given.
        arguments: Json,
    },
    /// What a tool answered.
    ToolResult(Json),
    /// Anything else.
    Other(Json),
}

impl Part {
    /// Writes it as text of one or many lines.
    pub fn readable(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Reasoning(text) => format!("(reasoning) {text}"),
            Self::ToolCall { name, arguments } => format!("calls {name} {}", plain(arguments)),
            Self::ToolResult(result) => format!("answers {}", plain(result)),
            Self::Other(other) => plain(other),
        }
    }
}

/// Reads a content as a conversation; `None` when it is none.
///
/// The shapes are those of the GenAI conventions (`parts`), and of the providers (`content`, `tool_calls`).
pub fn conversation(content: &Json) -> Option<Vec<Message>> {
    match content {
        Json::Array(messages) if !messages.is_empty() => messages.iter().map(message).collect(),
        Json::Object(_) => message(content).map(|one| vec![one]),
        _ => None,
    }
}

fn message(message: &Json) -> Option<Message> {
    let role = message.get("role")?.as_str()?.to_owned();
    let mut parts = match message.get("parts").or_else(|| message.get("content")) {
        Some(Json::Array(parts)) => parts.iter().map(part).collect(),
        Some(Json::String(text)) => vec![Part::Text(text.clone())],
        Some(Json::Null) | None => Vec::new(),
        Some(other) => vec![Part::Other(other.clone())],
    };
    let asked = message.get("tool_calls").and_then(Json::as_array).into_iter().flatten();
    parts
        .extend(asked.map(|call| tool_call(call.get("function").unwrap_or(call)).unwrap_or(Part::Other(call.clone()))));
    Some(Message { role, parts })
}

fn part(part: &Json) -> Part {
    let text = |keys: &[&str]| keys.iter().find_map(|key| part.get(key)?.as_str()).map(str::to_owned);
    let result = || ["response", "result", "content"].iter().find_map(|key| part.get(key)).cloned();
    let known = match part.get("type").and_then(Json::as_str) {
        Some("text" | "input_text" | "output_text") => text(&["content", "text"]).map(Part::Text),
        Some("reasoning" | "thinking") => text(&["content", "text", "thinking"]).map(Part::Reasoning),
        Some("tool_call" | "tool_use" | "function_call") => tool_call(part),
        Some("tool_call_response" | "tool_result" | "function_call_output") => {
            result().or_else(|| part.get("output").cloned()).map(|result| Part::ToolResult(unfolded(&result)))
        }
        _ => part.as_str().map(|text| Part::Text(text.to_owned())),
    };
    known.unwrap_or_else(|| Part::Other(part.clone()))
}

fn tool_call(call: &Json) -> Option<Part> {
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = ["arguments", "input", "args"].iter().find_map(|key| call.get(key));
    Some(Part::ToolCall { name, arguments: arguments.map_or(Json::Null, unfolded) })
}

/// Returns what stands in a text that is itself JSON.
fn unfolded(value: &Json) -> Json {
    let folded = value.as_str().filter(|text| text.trim_start().starts_with(['{', '[']));
    folded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| value.clone())
}

/// What calls have said so far, by agent: each call repeats the whole conversation.
#[derive(Default)]
pub struct Said<'a> {
    by_agent: HashMap<Option<&'a str>, (&'a str, Vec<Message>)>,
}

impl<'a> Said<'a> {
    /// Returns with how many messages a call repeats what is known of its agent, in words, and how many they are.
    pub fn before(&self, agent: Option<&str>, messages: &[Message]) -> (usize, Option<String>) {
        let Some((step, told)) = self.by_agent.get(&agent) else { return (0, None) };
        match told.iter().zip(messages).take_while(|(told, message)| told == message).count() {
            0 => (0, None),
            1 => (1, Some(format!("1 message as before, in {step}"))),
            n => (n, Some(format!("{n} messages as before, up to {step}"))),
        }
    }

    /// Notes what an agent's call was sent and answered.
    pub fn tell(&mut self, agent: Option<&'a str>, step: &'a str, messages: Vec<Message>) {
        self.by_agent.insert(agent, (step, messages));
    }
}

/// Writes a content as text of many lines.
pub fn readable(content: &Json) -> String {
    let Some(messages) = conversation(content) else { return plain(content) };
    let mut out = String::new();
    for message in messages {
        out.push_str(&format!("[{}]\n", message.role));
        for part in message.parts {
            out.push_str(part.readable().trim_end_matches('\n'));
            out.push('\n');
        }
    }
    out
}

/// Writes a value as text: a text as it is, structure as JSON on lines of its own.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        // Values in memory can be written.
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conversations_of_several_shapes_read_alike() {
        let standard = json!([
            {"role": "user", "parts": [{"type": "text", "content": "Weather in Bonn?"}]},
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "look"},
                {"type": "tool_call", "id": "1", "name": "weather", "arguments": "{\"city\":\"Bonn\"}"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "rain"}]},
        ]);
        let of_provider = json!([
            {"role": "user", "content": "Weather in Bonn?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "look"}],
                "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": "{\"city\":\"Bonn\"}"}}]},
            {"role": "tool", "content": [{"type": "tool_result", "content": "rain"}]},
        ]);
        assert_eq!(readable(&standard), readable(&of_provider));
        assert_eq!(
            readable(&standard),
            "[user]\nWeather in Bonn?\n[assistant]\n(reasoning) look\ncalls weather {\n  \"city\": \"Bonn\"\n}\n\
             [tool]\nanswers rain\n"
        );
        assert_eq!(readable(&json!({"a": [1]})), "{\n  \"a\": [\n    1\n  ]\n}");
        assert_eq!(conversation(&json!([{"role": 1}])), None);
    }
}
