//! What the scripted model says: rules over the request.

use super::ask::{Ask, Turn};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// What the model answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A text.
    Text(String),
    /// The wish to have tools called, all at once.
    Calls(Vec<ToolCall>),
    /// No answer but an error with this HTTP status.
    Failure(u16),
}

/// A tool call the model asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

type Rule = Box<dyn Fn(&Ask) -> Option<Said> + Send + Sync>;

/// Decides what the model says, and how fast.
///
/// It is a list of rules over the request, of which the first one that answers wins. No rule remembers anything, so
/// equal requests get equal answers, whoever else is asking.
pub struct Script {
    rules: Vec<Rule>,
    latency: Duration,
    chunk_gap: Duration,
}

impl Script {
    /// Makes the script of the demo.
    ///
    /// 1. A request that orders a failure, by its model (`fail-429`) or the header `x-demo-fail`, gets it.
    /// 2. A tool whose call gave an error is asked for once more.
    /// 3. Tools that the user's text mentions are called, one after the other; if none is, the first tool is.
    /// 4. Otherwise the answer is a text that quotes the last result.
    pub fn demo() -> Self {
        Self {
            rules: vec![Box::new(fail_as_ordered), Box::new(retry_failed_tool), Box::new(call_next_tool)],
            latency: Duration::ZERO,
            chunk_gap: Duration::ZERO,
        }
    }

    /// Puts a rule before all others.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(&Ask) -> Option<Said> + Send + Sync + 'static) -> Self {
        self.rules.insert(0, Box::new(rule));
        self
    }

    /// Sets how long the model thinks before it answers.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets how long a stream rests after each piece.
    #[must_use]
    pub fn chunk_gap(mut self, gap: Duration) -> Self {
        self.chunk_gap = gap;
        self
    }

    /// Answers a request.
    pub fn say(&self, ask: &Ask) -> Said {
        let said = self.rules.iter().find_map(|rule| rule(ask));
        said.unwrap_or_else(|| Said::Text(closing_words(ask)))
    }

    pub(super) fn latency_of_answers(&self) -> Duration {
        self.latency
    }

    pub(super) fn gap_between_chunks(&self) -> Duration {
        self.chunk_gap
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Script")
            .field("rules", &self.rules.len())
            .field("latency", &self.latency)
            .field("chunk_gap", &self.chunk_gap)
            .finish()
    }
}

fn fail_as_ordered(ask: &Ask) -> Option<Said> {
    ask.fail.map(Said::Failure)
}

fn retry_failed_tool(ask: &Ask) -> Option<Said> {
    let Some(Turn::ToolResult { id: failed, text }) = ask.turns.last() else {
        return None;
    };
    if !says_error(text) {
        return None;
    }
    let calls = calls_since_user(ask);
    let (_, name, arguments) = calls.iter().find(|(id, ..)| id == failed)?;
    if calls.iter().filter(|(_, other, _)| other == name).count() > 1 {
        return None;
    }
    Some(Said::Calls(vec![ToolCall {
        name: (*name).to_owned(),
        arguments: serde_json::from_str(arguments).unwrap_or(Value::Null),
    }]))
}

/// Tells whether a word of the text is an error, such as `error` or `IoError`; `0 errors` is good news.
fn says_error(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut words = text.split(|letter: char| !letter.is_alphanumeric());
    words.any(|word| word.ends_with("error"))
}

fn call_next_tool(ask: &Ask) -> Option<Said> {
    let calls = calls_since_user(ask);
    let user = ask.user_text().to_lowercase();
    let mentioned = |name: &str| {
        let mut words = name.split(|letter: char| !letter.is_alphanumeric());
        words.any(|word| word.len() > 3 && user.contains(&word.to_lowercase()))
    };
    let called = |name: &str| calls.iter().any(|(_, other, _)| *other == name);
    let mut left = ask.tools.iter().filter(|tool| !called(&tool.name));
    let tool = left.find(|tool| mentioned(&tool.name)).or_else(|| ask.tools.first().filter(|_| calls.is_empty()))?;
    Some(Said::Calls(vec![ToolCall {
        name: tool.name.clone(),
        arguments: arguments(&tool.parameters, ask.user_text()),
    }]))
}

/// Id, name and arguments of every tool call that the user's last words led to.
fn calls_since_user(ask: &Ask) -> Vec<(&str, &str, &str)> {
    let mut calls = Vec::new();
    for turn in ask.since_user() {
        if let Turn::ToolCall { id, name, arguments } = turn {
            calls.push((id.as_str(), name.as_str(), arguments.as_str()));
        }
    }
    calls
}

fn closing_words(ask: &Ask) -> String {
    match ask.turns.last() {
        Some(Turn::ToolResult { text, .. }) if says_error(text) => {
            format!("The tool failed twice, so this is left open: {}", cut(text))
        }
        Some(Turn::ToolResult { text, .. }) => format!("This is what I found: {}", cut(text)),
        _ => format!("You asked: {}", cut(ask.user_text())),
    }
}

/// The first 200 characters, so that an answer stays shorter than what it quotes.
fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Values for parameters by their names; what is not listed gets a value by its type.
const ARGUMENTS: [(&str, &str); 9] = [
    ("city", "Bern"),
    ("location", "Bern"),
    ("country", "Switzerland"),
    ("path", "src/main.rs"),
    ("file", "src/main.rs"),
    ("command", "cargo test"),
    ("language", "en"),
    ("currency", "CHF"),
    ("url", "https://example.com/"),
];

/// Fills the required parameters of a JSON Schema; all of them where it does not say which are.
fn arguments(schema: &Value, user: &str) -> Value {
    let Some(properties) = schema["properties"].as_object() else {
        return json!({});
    };
    let required = schema["required"].as_array();
    let wanted = |name: &str| required.is_none_or(|names| names.iter().any(|known| known == name));
    let filled: Map<String, Value> = properties
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, schema)| (name.clone(), argument(name, schema, user)))
        .collect();
    Value::Object(filled)
}

fn argument(name: &str, schema: &Value, user: &str) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    // Of several types, as in `["string", "null"]`, the first is taken.
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    match kind {
        Some("integer" | "number") => json!(7),
        Some("boolean") => json!(true),
        Some("array") => json!([argument(name, &schema["items"], user)]),
        Some("object") => arguments(schema, user),
        _ => {
            let listed = ARGUMENTS.iter().find(|(known, _)| *known == name);
            listed.map_or_else(|| json!(cut(user)), |(_, value)| json!(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Endpoint;
    use super::*;

    /// What the demo says to a chat with the tools `get_weather(city)` and `read_file(path)`.
    fn say(messages: Value) -> Said {
        let tool = |name: &str, parameter: &str| {
            json!({"type": "function", "function": {"name": name, "parameters": {
                "type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}}})
        };
        let body = json!({"model": "gpt-4o-mini", "messages": messages,
            "tools": [tool("get_weather", "city"), tool("read_file", "path")]});
        let ask = Ask::read(Endpoint::Chat, None, body.to_string().as_bytes());
        ask.map_or(Said::Failure(400), |ask| Script::demo().say(&ask))
    }

    fn calls(name: &str, arguments: Value) -> Said {
        let name = name.to_owned();
        Said::Calls(vec![ToolCall { name, arguments }])
    }

    fn called(id: &str, name: &str, arguments: &str) -> Value {
        json!({"role": "assistant", "tool_calls": [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]})
    }

    #[test]
    fn the_first_tool_is_called_when_the_user_mentions_none() {
        let said = say(json!([{"role": "user", "content": "Hello"}]));
        assert_eq!(said, calls("get_weather", json!({"city": "Bern"})));
    }

    #[test]
    fn tools_that_the_user_mentions_are_called_one_after_the_other() {
        let user = json!({"role": "user", "content": "Read the file, then tell the weather."});
        let weather = called("call_1", "get_weather", r#"{"city":"Bern"}"#);
        let snow = json!({"role": "tool", "tool_call_id": "call_1", "content": "snow"});
        assert_eq!(say(json!([user, weather, snow])), calls("read_file", json!({"path": "src/main.rs"})));
    }

    #[test]
    fn a_result_is_quoted_in_the_answer() {
        let user = json!({"role": "user", "content": "What is the weather?"});
        let weather = called("call_1", "get_weather", r#"{"city":"Bern"}"#);
        let snow = json!({"role": "tool", "tool_call_id": "call_1", "content": "snow"});
        assert_eq!(say(json!([user, weather, snow])), Said::Text("This is what I found: snow".to_owned()));
    }

    #[test]
    fn a_tool_that_failed_is_asked_for_once_more_and_no_oftener() {
        let user = json!({"role": "user", "content": "What is the weather?"});
        let first = called("call_1", "get_weather", r#"{"city":"Thun"}"#);
        let failed = json!({"role": "tool", "tool_call_id": "call_1", "content": "Error: no answer"});
        assert_eq!(say(json!([user, first, failed])), calls("get_weather", json!({"city": "Thun"})));
        let second = called("call_2", "get_weather", r#"{"city":"Thun"}"#);
        let again = json!({"role": "tool", "tool_call_id": "call_2", "content": "Error: no answer"});
        let open = "The tool failed twice, so this is left open: Error: no answer";
        assert_eq!(say(json!([user, first, failed, second, again])), Said::Text(open.to_owned()));
    }

    #[test]
    fn an_error_is_told_from_the_absence_of_errors() {
        let texts = ["Error: no answer", "boom error", "ToolError(timeout)", "0 errors", "terrors"];
        assert_eq!(texts.map(says_error), [true, true, true, false, false]);
    }

    #[test]
    fn arguments_fit_their_schema() {
        let schema = json!({"type": "object", "required": ["city", "days", "unit", "query", "tags", "dry"],
            "properties": {
                "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["celsius", "kelvin"]},
                "query": {"type": ["string", "null"]}, "tags": {"type": "array", "items": {"type": "number"}},
                "dry": {"type": "boolean"}, "extra": {"type": "string"}}});
        assert_eq!(
            arguments(&schema, "find it"),
            json!({"city": "Bern", "days": 7, "unit": "celsius", "query": "find it", "tags": [7], "dry": true})
        );
    }

    #[test]
    fn an_added_rule_goes_first() {
        let script = Script::demo().rule(|ask| Some(Said::Text(ask.model.clone())));
        let body = br#"{"model": "fail-500", "messages": []}"#;
        let said = Ask::read(Endpoint::Chat, None, body).map(|ask| script.say(&ask));
        assert!(matches!(said, Ok(Said::Text(text)) if text == "fail-500"));
    }
}
