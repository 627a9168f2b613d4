//! What went into a step and came out of it, for reading: conversations as messages, all else as it is.

use std::collections::HashMap;

pub use runspan::replay::conversation::{Message, Part, conversation, plain};
use serde_json::Value as Json;

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
