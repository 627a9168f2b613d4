//! What a request to a model says, in the canonical words.

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::conversation::SEALS;
use crate::conventions::names;
use crate::model::hex;
use crate::model::otlp::{Span, Value};
use crate::pipeline::normalize::messages::{message, text_part};

/// Reads a call of a tool, as chat completions have it.
pub use crate::pipeline::normalize::messages::call_part;

/// A kind of call that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's messages.
    Messages,
}

impl Format {
    /// Returns the word of the conventions for what such a call does.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Chat | Self::Responses | Self::Messages => "chat",
        }
    }
}

/// Settings of a request that have a canonical name.
const SETTINGS: &[(&str, &str)] = &[
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("max_completion_tokens", "gen_ai.request.max_tokens"),
    ("max_output_tokens", "gen_ai.request.max_tokens"),
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("seed", "gen_ai.request.seed"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
];

/// The conversation, where the service keeps it.
pub(super) const PREVIOUS: &str = "gen_ai.request.previous_response.id";

/// Writes what a request says.
pub fn write(format: Format, request: &Json, span: &mut Span) {
    if let Some(model) = request.get("model").and_then(Json::as_str) {
        span.set_attr(names::REQUEST_MODEL, model);
    }
    for (key, name) in SETTINGS {
        let Some(Json::Number(number)) = request.get(key) else { continue };
        if let Some(whole) = number.as_i64() {
            span.set_attr(name, whole);
        } else if let Some(number) = number.as_f64() {
            span.set_attr(name, Value::Double(number));
        }
    }
    if request.get("stream") == Some(&Json::Bool(true)) {
        span.set_attr(names::REQUEST_STREAM, Value::Bool(true));
    }
    if let Some(shape) = response_format(format, request) {
        span.set_attr(names::RESPONSE_FORMAT, shape.to_string());
    }
    if let Some(choice) = tool_choice(request) {
        span.set_attr(names::TOOL_CHOICE, choice.to_string());
    }
    if let Some(tools) = request.get("tools").filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty())) {
        span.set_attr(names::TOOL_DEFINITIONS, tools.to_string());
    }
    let (system, messages) = match format {
        Format::Chat => (None, chat(request)),
        Format::Responses => {
            if let Some(id) = request.get("previous_response_id").and_then(Json::as_str) {
                span.set_attr(PREVIOUS, id);
            }
            (request.get("instructions"), responses(request))
        }
        Format::Messages => (request.get("system"), anthropic(request)),
        Format::Embeddings => {
            if let Some(input) = request.get("input") {
                span.set_attr(names::INPUT, input.as_str().map_or_else(|| input.to_string(), str::to_owned));
            }
            return;
        }
    };
    if let Some(system) = system.filter(|system| !system.is_null()) {
        span.set_attr(names::SYSTEM_INSTRUCTIONS, Json::from(parts(system)).to_string());
    }
    if !messages.is_empty() {
        span.set_attr(names::INPUT_MESSAGES, Json::from(messages).to_string());
    }
}

/// Returns the shape that an answer is to have; none where that is any text, as without a word of it.
fn response_format(format: Format, request: &Json) -> Option<Json> {
    let path = match format {
        Format::Chat => "/response_format",
        Format::Responses => "/text/format",
        Format::Messages => "/output_config/format",
        Format::Embeddings => return None,
    };
    let shape = request.pointer(path).or_else(|| request.get("output_format")).filter(|shape| !shape.is_null())?;
    (shape.get("type").and_then(Json::as_str) != Some("text")).then(|| shape.clone())
}

/// Returns which tools may or must be called; none where the model decides, as without a word of it.
fn tool_choice(request: &Json) -> Option<Json> {
    let choice = request.get("tool_choice").filter(|choice| !choice.is_null())?;
    let word = choice.get("type").unwrap_or(choice).as_str();
    let says_more = choice.as_object().is_some_and(|choice| choice.len() > 1);
    (word != Some("auto") || says_more).then(|| choice.clone())
}

fn list<'a>(value: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    value.get(key).and_then(Json::as_array).into_iter().flatten()
}

/// Reads arguments, which some send as text.
pub fn arguments(given: Option<&Json>) -> Json {
    match given {
        Some(Json::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Some(other) => other.clone(),
        None => Json::Null,
    }
}

/// Reads content: a text, or a list of blocks. Of pictures and files it is kept where they are, or how long and of which hash.
pub fn parts(content: &Json) -> Vec<Json> {
    match content {
        Json::String(text) => vec![text_part(text)],
        Json::Array(blocks) => blocks.iter().map(part).collect(),
        Json::Null => Vec::new(),
        other => vec![text_part(&other.to_string())],
    }
}

fn part(block: &Json) -> Json {
    let kind = block.get("type").and_then(Json::as_str).unwrap_or("text");
    let text = |key: &str| block.get(key).and_then(Json::as_str);
    match kind {
        "text" | "input_text" | "output_text" => json!({"type": "text", "content": text("text")}),
        "refusal" => json!({"type": "text", "content": text("refusal")}),
        "summary_text" | "reasoning_text" => json!({"type": "text", "content": text("text")}),
        "thinking" => reasoning(text("thinking").unwrap_or_default(), block),
        // A secret that is given back as it came.
        "redacted_thinking" => json!({"type": kind, "data": text("data")}),
        "tool_use" => {
            json!({"type": "tool_call", "id": text("id"), "name": text("name"), "arguments": block.get("input")})
        }
        "tool_result" => {
            json!({"type": "tool_call_response", "id": text("tool_use_id"), "response": response(block.get("content"))})
        }
        kind => media(block).unwrap_or_else(|| json!({"type": kind})),
    }
}

/// Writes a thought with that by which its service knows it for its own: without, a model that is asked on refuses it.
fn reasoning(said: &str, thought: &Json) -> Json {
    let mut part = json!({"type": "reasoning", "content": said});
    for key in SEALS {
        if let Some(seal) = thought.get(*key).and_then(Json::as_str).filter(|seal| !seal.is_empty()) {
            part[*key] = seal.into();
        }
    }
    part
}

/// Reads a picture, a sound or a file, however it is sent: where it is, or how long and of which hash.
pub(super) fn media(block: &Json) -> Option<Json> {
    let text = |paths: &[&str]| paths.iter().find_map(|path| block.pointer(path).and_then(Json::as_str));
    let kind = text(&["/modality", "/type"]).unwrap_or_default();
    let address = text(&["/image_url/url", "/image_url", "/source/url", "/file_url", "/uri"]);
    if let Some(address) = address.filter(|address| !address.starts_with("data:")) {
        return Some(json!({"type": "uri", "modality": kind, "uri": address}));
    }
    let inline = address.or_else(|| text(&["/source/data", "/input_audio/data", "/file/file_data", "/file_data"]));
    let inline = inline.or_else(|| text(&["/content"]).filter(|_| block.get("type") == Some(&"blob".into())));
    if let Some(inline) = inline {
        let (head, data) = inline.split_once("base64,").unwrap_or(("", inline));
        let told = text(&["/source/media_type", "/input_audio/format", "/mime_type"]);
        let mime = told.or_else(|| head.strip_prefix("data:")?.strip_suffix(';')).filter(|mime| !mime.is_empty());
        let bytes = decoded(data);
        let hash = hex(&Sha256::digest(&bytes));
        return Some(
            json!({"type": "blob", "modality": kind, "mime_type": mime, "bytes": bytes.len(), "sha256": hash}),
        );
    }
    let file = text(&["/source/file_id", "/file/file_id", "/file_id"])?;
    Some(json!({"type": "file", "modality": kind, "file_id": file}))
}

/// Decodes base64, of either alphabet; what is none stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return text.as_bytes().to_vec(),
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

/// What a tool answered: its text where it is nothing else.
fn response(content: Option<&Json>) -> Json {
    let Some(Json::Array(blocks)) = content else { return content.cloned().unwrap_or_default() };
    let texts: Option<Vec<&str>> = blocks.iter().map(|block| block.get("text").and_then(Json::as_str)).collect();
    texts.map_or_else(|| Json::from(parts(&Json::from(blocks.clone()))), |texts| texts.join("\n").into())
}

fn chat(request: &Json) -> Vec<Json> {
    let read = |given: &Json| {
        let role = given.get("role").cloned().unwrap_or_default();
        let content = given.get("content").cloned().unwrap_or_default();
        if role == "tool" {
            let id = given.get("tool_call_id");
            let part = json!({"type": "tool_call_response", "id": id, "response": response(Some(&content))});
            return message(role, vec![part]);
        }
        let mut parts = parts(&content);
        parts.extend(list(given, "tool_calls").map(call_part));
        message(role, parts)
    };
    list(request, "messages").map(read).collect()
}

fn responses(request: &Json) -> Vec<Json> {
    if let Some(text @ Json::String(_)) = request.get("input") {
        return vec![message("user", parts(text))];
    }
    list(request, "input").filter_map(item).collect()
}

/// Reads an item of a response's input or output.
pub fn item(item: &Json) -> Option<Json> {
    let assistant = Json::from("assistant");
    match item.get("type").and_then(Json::as_str).unwrap_or("message") {
        "message" => {
            let role = item.get("role").cloned().unwrap_or(assistant);
            Some(message(role, parts(item.get("content").unwrap_or(&Json::Null))))
        }
        "function_call" => {
            let (id, name) = (item.get("call_id"), item.get("name"));
            let arguments = arguments(item.get("arguments"));
            let part = json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments});
            Some(message(assistant, vec![part]))
        }
        "function_call_output" => {
            let response = response(item.get("output"));
            let part = json!({"type": "tool_call_response", "id": item.get("call_id"), "response": response});
            Some(message("tool", vec![part]))
        }
        "reasoning" => {
            let said = ["summary", "content"].map(|key| parts(item.get(key).unwrap_or(&Json::Null)));
            // Of a thought that is told whole there is no summary, and most often it is kept secret.
            let texts: Vec<&str> = said.iter().flatten().filter_map(|part| part.get("content")?.as_str()).collect();
            Some(message(assistant, vec![reasoning(&texts.join("\n"), item)]))
        }
        kind => Some(message(assistant, vec![json!({"type": kind})])),
    }
}

fn anthropic(request: &Json) -> Vec<Json> {
    let read = |given: &Json| {
        let role = given.get("role").cloned().unwrap_or_default();
        message(role, parts(given.get("content").unwrap_or(&Json::Null)))
    };
    list(request, "messages").map(read).collect()
}
