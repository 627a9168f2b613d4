//! What a client asks, in one type for all endpoints.

use serde_json::Value;
use std::fmt;

/// A request header whose value is the HTTP status to fail with, such as `429`.
pub const FAIL_HEADER: &str = "x-demo-fail";
/// The start of a model name whose rest is the HTTP status to fail with, such as `fail-500`.
const FAIL_MODEL: &str = "fail-";
/// The widest embedding that is made.
const MAX_DIMENSIONS: u64 = 4096;
/// How wide embeddings are where the client does not say.
const DEFAULT_DIMENSIONS: u64 = 8;

/// The part of the API that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// Finds the endpoint at a path.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/responses" => Some(Self::Responses),
            "/v1/embeddings" => Some(Self::Embeddings),
            _ => None,
        }
    }
}

/// A request to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// The model, as the client named it.
    pub model: String,
    /// The tools the model may call; none where the client forbids calls.
    pub tools: Vec<Tool>,
    /// The conversation so far; for embeddings each text is a turn of the user.
    pub turns: Vec<Turn>,
    /// Whether the answer shall come in pieces.
    pub stream: bool,
    /// Whether a streamed chat shall end with a chunk that holds the usage.
    pub include_usage: bool,
    /// How wide an embedding shall be.
    pub dimensions: usize,
    /// The HTTP status the client wants to fail with.
    pub fail: Option<u16>,
}

/// A tool that the client offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The name to call it by.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
}

/// One entry of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A system or developer message.
    Instructions(String),
    /// What the user said.
    User(String),
    /// What the model said.
    Assistant(String),
    /// A tool call the model asked for.
    ToolCall {
        /// What its result refers to.
        id: String,
        /// The tool.
        name: String,
        /// The arguments, as JSON text.
        arguments: String,
    },
    /// What a tool call gave.
    ToolResult {
        /// The call it answers.
        id: String,
        /// The result as text.
        text: String,
    },
}

/// Why a body is not a request.
#[derive(Debug)]
pub enum AskError {
    /// It is not JSON.
    NotJson(serde_json::Error),
    /// A field is missing or has the wrong type.
    Field(&'static str),
}

impl fmt::Display for AskError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(out, "the body is not JSON: {error}"),
            Self::Field(name) => write!(out, "the field `{name}` is missing or malformed"),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotJson(error) => Some(error),
            Self::Field(_) => None,
        }
    }
}

impl Ask {
    /// Reads the body of a request; `fail_header` is the value of [`FAIL_HEADER`].
    pub fn read(endpoint: Endpoint, fail_header: Option<&str>, body: &[u8]) -> Result<Self, AskError> {
        let body: Value = serde_json::from_slice(body).map_err(AskError::NotJson)?;
        let model = body["model"].as_str().ok_or(AskError::Field("model"))?;
        let turns = match endpoint {
            Endpoint::Chat => chat_turns(&body)?,
            Endpoint::Responses => response_turns(&body)?,
            Endpoint::Embeddings => embedded_texts(&body)?,
        };
        Ok(Self {
            endpoint,
            model: model.to_owned(),
            tools: offered_tools(&body)?,
            turns,
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"] == true,
            dimensions: dimensions(&body)?,
            fail: fail_header
                .or(model.strip_prefix(FAIL_MODEL))
                .and_then(|status| status.parse().ok())
                .filter(|status| (400..600).contains(status)),
        })
    }

    /// Returns what the user said last.
    pub fn user_text(&self) -> &str {
        let said = self.turns.iter().rev().find_map(|turn| match turn {
            Turn::User(text) => Some(text.as_str()),
            _ => None,
        });
        said.unwrap_or("")
    }

    /// Returns the turns that followed the last word of the user.
    pub fn since_user(&self) -> &[Turn] {
        let said = |turn: &Turn| matches!(turn, Turn::User(_));
        let start = self.turns.iter().rposition(said).map_or(0, |at| at + 1);
        self.turns.get(start..).unwrap_or(&[])
    }
}

fn chat_turns(body: &Value) -> Result<Vec<Turn>, AskError> {
    let messages = body["messages"].as_array();
    let mut turns = Vec::new();
    for message in messages.ok_or(AskError::Field("messages"))? {
        let text = text_of(&message["content"]);
        match message["role"].as_str() {
            Some("system" | "developer") => turns.push(Turn::Instructions(text)),
            Some("user") => turns.push(Turn::User(text)),
            Some("tool") => turns.push(Turn::ToolResult { id: string(message, "tool_call_id")?, text }),
            Some("assistant") => push_assistant(&mut turns, text, message)?,
            _ => return Err(AskError::Field("role")),
        }
    }
    Ok(turns)
}

fn push_assistant(turns: &mut Vec<Turn>, text: String, message: &Value) -> Result<(), AskError> {
    if !text.is_empty() {
        turns.push(Turn::Assistant(text));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        turns.push(Turn::ToolCall {
            id: string(call, "id")?,
            name: string(&call["function"], "name")?,
            arguments: string(&call["function"], "arguments")?,
        });
    }
    Ok(())
}

fn response_turns(body: &Value) -> Result<Vec<Turn>, AskError> {
    let mut turns = Vec::new();
    if let Some(text) = body["instructions"].as_str() {
        turns.push(Turn::Instructions(text.to_owned()));
    }
    match &body["input"] {
        Value::String(text) => turns.push(Turn::User(text.clone())),
        Value::Array(items) => {
            for item in items {
                turns.extend(response_turn(item)?);
            }
        }
        _ => return Err(AskError::Field("input")),
    }
    Ok(turns)
}

fn response_turn(item: &Value) -> Result<Option<Turn>, AskError> {
    let text = text_of(&item["content"]);
    let turn = match (item["type"].as_str(), item["role"].as_str()) {
        (Some("function_call"), _) => Turn::ToolCall {
            id: string(item, "call_id")?,
            name: string(item, "name")?,
            arguments: string(item, "arguments")?,
        },
        (Some("function_call_output"), _) => {
            Turn::ToolResult { id: string(item, "call_id")?, text: text_of(&item["output"]) }
        }
        (_, Some("system" | "developer")) => Turn::Instructions(text),
        (_, Some("user")) => Turn::User(text),
        (_, Some("assistant")) => Turn::Assistant(text),
        // Items that say nothing to this model, such as reasoning handed back.
        (Some(_), None) => return Ok(None),
        _ => return Err(AskError::Field("role")),
    };
    Ok(Some(turn))
}

fn embedded_texts(body: &Value) -> Result<Vec<Turn>, AskError> {
    let texts = match &body["input"] {
        Value::String(text) => vec![Turn::User(text.clone())],
        Value::Array(texts) => {
            texts.iter().filter_map(|text| text.as_str()).map(|text| Turn::User(text.to_owned())).collect()
        }
        _ => Vec::new(),
    };
    if texts.is_empty() {
        return Err(AskError::Field("input"));
    }
    Ok(texts)
}

fn offered_tools(body: &Value) -> Result<Vec<Tool>, AskError> {
    if body["tool_choice"] == "none" {
        return Ok(Vec::new());
    }
    let mut tools = Vec::new();
    for tool in body["tools"].as_array().into_iter().flatten() {
        // Chat completions nest what the responses API has in the tool itself.
        let function = tool.get("function").unwrap_or(tool);
        tools.push(Tool {
            name: string(function, "name")?,
            description: function["description"].as_str().unwrap_or("").to_owned(),
            parameters: function["parameters"].clone(),
        });
    }
    Ok(tools)
}

fn dimensions(body: &Value) -> Result<usize, AskError> {
    let wanted = match &body["dimensions"] {
        Value::Null => DEFAULT_DIMENSIONS,
        given => given.as_u64().unwrap_or(0),
    };
    let known = Some(wanted).filter(|wanted| (1..=MAX_DIMENSIONS).contains(wanted));
    known.and_then(|wanted| usize::try_from(wanted).ok()).ok_or(AskError::Field("dimensions"))
}

/// The text of a message, which is one string or several parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn string(object: &Value, field: &'static str) -> Result<String, AskError> {
    let text = object[field].as_str().ok_or(AskError::Field(field))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(endpoint: Endpoint, body: &Value) -> Result<Ask, String> {
        Ask::read(endpoint, None, body.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn round_trip() -> Vec<Turn> {
        vec![
            Turn::Instructions("Be brief.".to_owned()),
            Turn::User("Weather in Bern?".to_owned()),
            Turn::ToolCall {
                id: "call_1".to_owned(),
                name: "get_weather".to_owned(),
                arguments: r#"{"city":"Bern"}"#.to_owned(),
            },
            Turn::ToolResult { id: "call_1".to_owned(), text: "snow".to_owned() },
        ]
    }

    fn asked(endpoint: Endpoint) -> Ask {
        Ask {
            endpoint,
            model: "gpt-4o-mini".to_owned(),
            tools: vec![Tool {
                name: "get_weather".to_owned(),
                description: "Tells the weather".to_owned(),
                parameters: json!({"type": "object"}),
            }],
            turns: round_trip(),
            stream: true,
            include_usage: endpoint == Endpoint::Chat,
            dimensions: 8,
            fail: None,
        }
    }

    #[test]
    fn a_chat_is_read_with_its_tools_and_turns() {
        let body = json!({
            "model": "gpt-4o-mini", "stream": true, "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {
                "name": "get_weather", "description": "Tells the weather", "parameters": {"type": "object"}}}],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Bern?"}]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
                    "function": {"name": "get_weather", "arguments": r#"{"city":"Bern"}"#}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "snow"}]
        });
        assert_eq!(read(Endpoint::Chat, &body), Ok(asked(Endpoint::Chat)));
    }

    #[test]
    fn the_responses_api_is_read_into_the_same_turns() {
        let body = json!({
            "model": "gpt-4o-mini", "stream": true, "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "get_weather", "description": "Tells the weather",
                "parameters": {"type": "object"}}],
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Weather in Bern?"}]},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": r#"{"city":"Bern"}"#},
                {"type": "function_call_output", "call_id": "call_1", "output": "snow"}]
        });
        assert_eq!(read(Endpoint::Responses, &body), Ok(asked(Endpoint::Responses)));
    }

    #[test]
    fn tools_that_may_not_be_called_are_not_offered() {
        let body = json!({"model": "m", "messages": [], "tool_choice": "none",
            "tools": [{"type": "function", "function": {"name": "get_weather"}}]});
        assert_eq!(read(Endpoint::Chat, &body).map(|ask| ask.tools), Ok(Vec::new()));
    }

    #[test]
    fn a_failure_is_ordered_by_model_name_or_header() {
        let fail = |model: &str, header| {
            let body = json!({"model": model, "messages": []}).to_string();
            Ask::read(Endpoint::Chat, header, body.as_bytes()).map_or(None, |ask| ask.fail)
        };
        assert_eq!(fail("fail-429", None), Some(429));
        assert_eq!(fail("gpt-4o", Some("500")), Some(500));
        assert_eq!(fail("gpt-4o", Some("200")), None);
        assert_eq!(fail("fail-often", None), None);
    }

    #[test]
    fn a_malformed_body_names_its_field() {
        let field = |name: &str| Err(format!("the field `{name}` is missing or malformed"));
        let chat = |body| read(Endpoint::Chat, &body);
        assert_eq!(chat(json!([])), field("model"));
        assert_eq!(chat(json!({"model": "m"})), field("messages"));
        assert_eq!(chat(json!({"model": "m", "messages": [{"role": "x"}]})), field("role"));
        assert_eq!(read(Endpoint::Embeddings, &json!({"model": "m", "input": []})), field("input"));
        let wide = json!({"model": "m", "input": "a", "dimensions": 5000});
        assert_eq!(read(Endpoint::Embeddings, &wide), field("dimensions"));
    }
}
