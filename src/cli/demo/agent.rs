//! The demo's agents: a loop of model calls and tools, and the few lines by which it is recorded.
//!
//! Nothing here is special to the demo: the steps are made as any program makes them, around calls to a model over
//! HTTP and around plain functions.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use runspan::{Step, Usage};
use serde_json::{Map, Value as Json, json};

use super::http_client::{HttpError, post_json, post_json_for_events};

/// How long the model may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// An agent that has not come to an answer by then gives up.
const MAX_TURNS: usize = 10;

/// A function that the model may ask for.
pub struct Tool {
    /// The name that the model asks by.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Its one parameter.
    pub parameter: &'static str,
    /// Does the work; the number counts the calls of this tool, from 0.
    pub call: fn(&str, usize) -> Result<String, ToolError>,
}

/// Why a tool has no result.
#[derive(Debug)]
pub struct ToolError(pub &'static str);

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for ToolError {}

/// An agent: a model with instructions and tools.
pub struct Agent<'a> {
    /// Where the model is.
    pub base_url: &'a str,
    /// The model.
    pub model: &'a str,
    /// What it is told beforehand.
    pub instructions: &'a str,
    /// What it may call.
    pub tools: &'a [Tool],
}

/// Why an agent has no answer.
#[derive(Debug)]
pub enum AgentError {
    /// The model could not be asked.
    Http(HttpError),
    /// The model answered with an error.
    Refused(u16),
    /// The answer has not the shape that it should have.
    Malformed,
    /// It asks for tools without end.
    TooManyTurns,
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Refused(status) => write!(f, "the model answered with status {status}"),
            Self::Malformed => f.write_str("the model's answer cannot be read"),
            Self::TooManyTurns => write!(f, "no answer after {MAX_TURNS} turns"),
        }
    }
}

impl Error for AgentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Http(error) => error.source(),
            _ => None,
        }
    }
}

impl From<HttpError> for AgentError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// What the model said.
struct Reply {
    /// The message as it goes back into the conversation.
    message: Json,
    /// What is told beside it.
    about: Map<String, Json>,
}

/// A tool call that the model asked for.
struct Wish {
    id: String,
    name: String,
    argument: String,
}

impl Agent<'_> {
    /// Works on a task until there is an answer. Its calls are steps below `within`: a run, or a step of one.
    pub fn work(&self, within: &Step, task: &str) -> Result<String, AgentError> {
        let mut messages =
            vec![json!({"role": "system", "content": self.instructions}), json!({"role": "user", "content": task})];
        let mut calls = vec![0; self.tools.len()];
        for turn in 0..MAX_TURNS {
            let call = within.llm("openai", self.model);
            // The first answer comes whole, the others in pieces.
            let reply = match self.ask(&messages, turn > 0) {
                Ok(reply) => reply,
                Err(error) => {
                    call.fail(&error);
                    return Err(error);
                }
            };
            call.system_prompt(self.instructions).messages(messages.iter().skip(1).map(parts).collect::<Vec<_>>());
            reply.tell(&call);
            call.finish();
            let wishes = wishes(&reply.message);
            messages.push(reply.message);
            if wishes.is_empty() {
                let answer = messages.last().and_then(|message| message["content"].as_str());
                return answer.map(str::to_owned).ok_or(AgentError::Malformed);
            }
            for wish in wishes {
                let result = self.call_tool(within, &wish, &mut calls);
                messages.push(json!({"role": "tool", "tool_call_id": wish.id, "content": result}));
            }
        }
        Err(AgentError::TooManyTurns)
    }

    /// Calls a tool. A failure is no end: the model is told and may try again.
    fn call_tool(&self, within: &Step, wish: &Wish, calls: &mut [usize]) -> String {
        let step = within.tool(&wish.name);
        step.call_id(&wish.id).input(&wish.argument);
        let Some(place) = self.tools.iter().position(|tool| tool.name == wish.name) else {
            let error = ToolError("there is no such tool");
            step.fail(&error);
            return format!("Error: {error}");
        };
        calls[place] += 1;
        match (self.tools[place].call)(&wish.argument, calls[place] - 1) {
            Ok(result) => {
                step.output(&result);
                step.finish();
                result
            }
            Err(error) => {
                step.fail(&error);
                format!("Error: {error}")
            }
        }
    }

    fn ask(&self, messages: &[Json], stream: bool) -> Result<Reply, AgentError> {
        let url = format!("{}/chat/completions", self.base_url);
        let mut body = json!({"model": self.model, "messages": messages});
        if !self.tools.is_empty() {
            body["tools"] = self.tools.iter().map(declaration).collect();
        }
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            return streamed(post_json_for_events(&url, &[], &body, PATIENCE)?);
        }
        let response = post_json(&url, &[], &body, PATIENCE)?;
        if !response.is_success() {
            return Err(AgentError::Refused(response.status));
        }
        let answer = response.json()?;
        let mut about = Map::new();
        keep_what_is_told(&mut about, &answer);
        Ok(Reply { message: answer["choices"][0]["message"].clone(), about })
    }
}

impl Reply {
    /// Tells the recorder of a call what came of it.
    fn tell(&self, call: &Step) {
        let text = |name| self.about.get(name).and_then(Json::as_str);
        call.output([parts(&self.message)]);
        if let Some(told) = self.about.get("usage") {
            call.usage(usage(told));
        }
        if let Some(id) = text("id") {
            call.response_id(id);
        }
        if let Some(model) = text("model") {
            call.response_model(model);
        }
        if let Some(reason) = text("finish_reason") {
            call.finish_reason(reason);
        }
    }
}

/// Keeps what an answer, or a piece of one, tells beside its text.
fn keep_what_is_told(about: &mut Map<String, Json>, answer: &Json) {
    let reason = ("finish_reason", &answer["choices"][0]["finish_reason"]);
    let told = ["id", "model", "usage"].map(|name| (name, &answer[name]));
    for (name, value) in told.into_iter().chain([reason]).filter(|(_, value)| !value.is_null()) {
        about.insert(name.to_owned(), value.clone());
    }
}

/// Puts the pieces of a streamed answer together.
fn streamed(events: impl Iterator<Item = Result<String, HttpError>>) -> Result<Reply, AgentError> {
    let (mut content, mut calls, mut about) = (String::new(), Vec::<Json>::new(), Map::new());
    for event in events {
        let chunk: Json = serde_json::from_str(&event?).map_err(HttpError::NotJson)?;
        keep_what_is_told(&mut about, &chunk);
        let delta = &chunk["choices"][0]["delta"];
        content.push_str(delta["content"].as_str().unwrap_or(""));
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let place = piece["index"].as_u64().and_then(|place| usize::try_from(place).ok()).unwrap_or(0);
            if place >= calls.len() {
                calls.push(json!({"type": "function", "id": piece["id"], "function": {
                    "name": piece["function"]["name"], "arguments": ""}}));
            }
            let arguments = calls.last_mut().and_then(|call| call.pointer_mut("/function/arguments"));
            if let (Some(Json::String(text)), Some(more)) = (arguments, piece["function"]["arguments"].as_str()) {
                text.push_str(more);
            }
        }
    }
    let message = if calls.is_empty() {
        json!({"role": "assistant", "content": content})
    } else {
        json!({"role": "assistant", "content": null, "tool_calls": calls})
    };
    Ok(Reply { message, about })
}

fn declaration(tool: &Tool) -> Json {
    json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": {
        "type": "object", "properties": {tool.parameter: {"type": "string"}}, "required": [tool.parameter]}}})
}

fn wishes(message: &Json) -> Vec<Wish> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    calls
        .filter_map(|call| {
            Some(Wish {
                id: call["id"].as_str()?.to_owned(),
                name: call["function"]["name"].as_str()?.to_owned(),
                argument: argument(call["function"]["arguments"].as_str()?),
            })
        })
        .collect()
}

/// The tools here take one argument; its name does not matter.
fn argument(arguments: &str) -> String {
    let arguments: Json = serde_json::from_str(arguments).unwrap_or_default();
    let first = arguments.as_object().and_then(|fields| fields.values().next());
    first.and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn usage(told: &Json) -> Usage {
    let count = |value: &Json| value.as_u64();
    Usage {
        input_tokens: count(&told["prompt_tokens"]),
        output_tokens: count(&told["completion_tokens"]),
        cache_read: count(&told["prompt_tokens_details"]["cached_tokens"]),
        reasoning: count(&told["completion_tokens_details"]["reasoning_tokens"]),
        ..Usage::default()
    }
}

/// Translates a message of the API into the shape that is recorded: a role and parts.
fn parts(message: &Json) -> Json {
    let mut parts = Vec::new();
    match (message["role"].as_str(), message["content"].as_str()) {
        (Some("tool"), Some(text)) => {
            parts.push(json!({"type": "tool_call_response", "id": message["tool_call_id"], "response": text}));
        }
        (_, Some(text)) => parts.push(json!({"type": "text", "content": text})),
        (_, None) => {}
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments: Json =
            function["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        parts.push(json!({"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments}));
    }
    json!({"role": message["role"], "parts": parts})
}
