//! Conversations as messages, whatever shape they were told in.

use serde_json::Value as Json;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `user`, `assistant`, `tool`, ...
    pub role: String,
    /// What is said.
    pub parts: Vec<Part>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thought on the way.
    Reasoning {
        /// As far as it is said: services keep most of it secret.
        text: String,
        /// By what a service knows it for its own when it gets it back: Anthropic's `signature`, OpenAI's `id` and
        /// `encrypted_content`.
        seal: Option<Json>,
    },
    /// The model asks for a tool.
    ToolCall {
        /// How the provider names this call.
        id: Option<String>,
        /// The tool.
        name: String,
        /// What it is given.
        arguments: Json,
    },
    /// What a tool answered.
    ToolResult {
        /// The call that it answers.
        id: Option<String>,
        /// The answer.
        result: Json,
    },
    /// Anything else.
    Other(Json),
}

impl Part {
    /// Writes it as text of one or many lines.
    pub fn readable(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Reasoning { text, .. } if text.is_empty() => "(reasoning, kept secret)".to_owned(),
            Self::Reasoning { text, .. } => format!("(reasoning) {text}"),
            Self::ToolCall { name, arguments, .. } => format!("calls {name} {}", plain(arguments)),
            Self::ToolResult { result, .. } => format!("answers {}", plain(result)),
            Self::Other(other) if other["type"] == "redacted_thinking" => "(reasoning, kept secret)".to_owned(),
            Self::Other(other) => plain(other),
        }
    }
}

/// Reads a content as a conversation; `None` when it is none.
///
/// The shapes are those of the GenAI conventions (`parts`), of the providers (`content`, `tool_calls`), and of frameworks
/// that write the latter in their own spelling (`tool-call`, `toolName`).
pub fn conversation(content: &Json) -> Option<Vec<Message>> {
    match content {
        Json::Array(messages) if !messages.is_empty() => messages.iter().map(message).collect(),
        Json::Object(_) => message(content).map(|one| vec![one]),
        _ => None,
    }
}

/// Members by which a call of a tool is named.
const CALL_IDS: &[&str] = &["id", "call_id", "tool_call_id", "tool_use_id", "toolCallId"];

fn message(message: &Json) -> Option<Message> {
    let role = message.get("role")?.as_str()?.to_owned();
    let mut parts = match message.get("parts").or_else(|| message.get("content")) {
        // What a tool said, as OpenAI has it: a message of its own.
        Some(Json::String(text)) if role == "tool" && message.get("tool_call_id").is_some() => {
            let id = member(message, &["tool_call_id"]).map(str::to_owned);
            vec![Part::ToolResult { id, result: unfolded(&Json::from(text.as_str())) }]
        }
        parts => self::parts(parts.unwrap_or(&Json::Null)),
    };
    let asked = message.get("tool_calls").and_then(Json::as_array).into_iter().flatten();
    parts.extend(asked.map(|call| tool_call(call).unwrap_or_else(|| Part::Other(call.clone()))));
    Some(Message { role, parts })
}

/// Reads what one message says: a text, or a list of parts.
pub fn parts(content: &Json) -> Vec<Part> {
    match content {
        Json::Array(parts) => parts.iter().map(part).collect(),
        Json::String(text) => vec![Part::Text(text.clone())],
        Json::Null => Vec::new(),
        other => vec![part(other)],
    }
}

fn member<'a>(object: &'a Json, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| object.get(key)?.as_str())
}

fn part(part: &Json) -> Part {
    let text = |keys: &[&str]| member(part, keys).map(str::to_owned);
    let result = || ["response", "result", "output", "content"].iter().find_map(|key| part.get(key));
    let known = match part.get("type").and_then(Json::as_str) {
        Some("text" | "input_text" | "output_text") => text(&["content", "text"]).map(Part::Text),
        Some("reasoning" | "thinking") => {
            text(&["content", "text", "thinking"]).map(|text| Part::Reasoning { text, seal: seal(part) })
        }
        Some("tool_call" | "tool_use" | "function_call" | "tool-call") => tool_call(part),
        Some("tool_call_response" | "tool_result" | "function_call_output" | "tool-result") => {
            result().map(|result| Part::ToolResult { id: text(CALL_IDS), result: unwrapped(result) })
        }
        // Some list what is asked for without a word of what it is.
        None if part.get("toolName").is_some() => tool_call(part),
        _ => part.as_str().map(|text| Part::Text(text.to_owned())),
    };
    known.unwrap_or_else(|| Part::Other(part.clone()))
}

/// Members of a thought by which a service knows it for its own.
pub(super) const SEALS: &[&str] = &["signature", "id", "encrypted_content"];

/// Returns those that a thought has.
fn seal(thought: &Json) -> Option<Json> {
    let seals = SEALS.iter().filter_map(|key| Some(((*key).to_owned(), Json::from(member(thought, &[key])?))));
    Some(seals.collect::<serde_json::Map<_, _>>()).filter(|seals| !seals.is_empty()).map(Json::Object)
}

fn tool_call(call: &Json) -> Option<Part> {
    let function = call.get("function").unwrap_or(call);
    let name = member(function, &["name", "toolName"])?.to_owned();
    let arguments = ["arguments", "input", "args"].iter().find_map(|key| function.get(key));
    let id = member(call, CALL_IDS).map(str::to_owned);
    Some(Part::ToolCall { id, name, arguments: arguments.map_or(Json::Null, unfolded) })
}

/// Returns a result out of what says of which type it is.
fn unwrapped(result: &Json) -> Json {
    let typed = result.as_object().filter(|object| object.len() == 2 && object.contains_key("type"));
    unfolded(typed.and_then(|object| object.get("value")).unwrap_or(result))
}

/// Returns what stands in a text that is itself JSON.
pub(super) fn unfolded(value: &Json) -> Json {
    let folded = value.as_str().filter(|text| text.trim_start().starts_with(['{', '[']));
    folded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| value.clone())
}

/// Writes a value as text: a text as it is, structure as JSON on lines of its own.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        // Values in memory can be written.
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}
