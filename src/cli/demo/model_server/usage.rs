//! What a call costs in tokens: a function of the request and the answer, so that it can be foretold.

use super::ask::{Ask, Endpoint, Turn};
use super::script::Said;
use super::wire;

/// About how many characters make a token.
const CHARS_PER_TOKEN: usize = 4;
/// What a message or a tool costs besides its text.
const TOKENS_PER_ENTRY: u64 = 4;
/// What a reasoning model thinks at least.
const LEAST_REASONING: u64 = 16;

/// The tokens billed for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All tokens of the prompt, cached ones included.
    pub input: u64,
    /// The tokens of the prompt that an earlier call of the conversation had sent already.
    pub cached: u64,
    /// All tokens of the answer, reasoning included.
    pub output: u64,
    /// The tokens of the answer that were thought and not said.
    pub reasoning: u64,
}

impl Tokens {
    /// Counts the tokens of a call.
    ///
    /// A conversation that holds an answer of the model was sent before up to that answer: this part counts as
    /// cached, and is as long as the whole input of the call that gave the answer.
    pub fn billed(ask: &Ask, said: &Said) -> Self {
        let answer = match said {
            Said::Failure(_) => return Self::default(),
            Said::Text(text) => text_tokens(text),
            Said::Calls(calls) => {
                calls.iter().map(|call| text_tokens(&call.name) + text_tokens(&call.arguments.to_string())).sum()
            }
        };
        if ask.endpoint == Endpoint::Embeddings {
            return Self { input: turn_tokens(&ask.turns), ..Self::default() };
        }
        let tools = tool_tokens(ask);
        let sent_before = sent_before(&ask.turns);
        let reasoning = if wire::model(&ask.model).reasons { LEAST_REASONING + 2 * answer } else { 0 };
        Self {
            input: tools + turn_tokens(&ask.turns),
            cached: sent_before.map_or(0, |turns| tools + turn_tokens(turns)),
            output: answer + reasoning,
            reasoning,
        }
    }
}

/// The turns that the call before this one had sent, if there was one.
fn sent_before(turns: &[Turn]) -> Option<&[Turn]> {
    let by_model = |turn: &Turn| matches!(turn, Turn::Assistant(_) | Turn::ToolCall { .. });
    let last = turns.iter().rposition(by_model)?;
    let before = turns.get(..last)?;
    // Text and calls of one answer stand side by side.
    let start = before.iter().rposition(|turn| !by_model(turn))?;
    turns.get(..=start)
}

fn tool_tokens(ask: &Ask) -> u64 {
    let of_tool = |tool: &super::Tool| {
        let parameters = tool.parameters.to_string();
        let texts = [&tool.name, &tool.description, &parameters];
        TOKENS_PER_ENTRY + texts.map(|text| text_tokens(text)).iter().sum::<u64>()
    };
    ask.tools.iter().map(of_tool).sum()
}

fn turn_tokens(turns: &[Turn]) -> u64 {
    let of_turn = |turn: &Turn| {
        TOKENS_PER_ENTRY
            + match turn {
                Turn::Instructions(text) | Turn::User(text) | Turn::Assistant(text) => text_tokens(text),
                Turn::ToolCall { name, arguments, .. } => text_tokens(name) + text_tokens(arguments),
                Turn::ToolResult { text, .. } => text_tokens(text),
            }
    };
    turns.iter().map(of_turn).sum()
}

fn text_tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(CHARS_PER_TOKEN) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn billed(model: &str, messages: serde_json::Value) -> Tokens {
        let body = json!({"model": model, "messages": messages}).to_string();
        let ask = Ask::read(Endpoint::Chat, None, body.as_bytes());
        ask.map_or(Tokens::default(), |ask| Tokens::billed(&ask, &Said::Text("12345".to_owned())))
    }

    fn tokens(input: u64, cached: u64, output: u64, reasoning: u64) -> Tokens {
        Tokens { input, cached, output, reasoning }
    }

    #[test]
    fn four_characters_make_a_token() {
        let messages = json!([{"role": "user", "content": "12345678"}]);
        assert_eq!(billed("gpt-4o-mini", messages), tokens(6, 0, 2, 0));
    }

    #[test]
    fn what_the_call_before_had_sent_is_cached() {
        let messages = json!([
            {"role": "user", "content": "12345678"}, {"role": "assistant", "content": "1234"},
            {"role": "user", "content": "1234"}]);
        assert_eq!(billed("gpt-4o-mini", messages), tokens(16, 6, 2, 0));
    }

    #[test]
    fn a_reasoning_model_thinks_before_it_speaks() {
        let messages = json!([{"role": "user", "content": "12345678"}]);
        assert_eq!(billed("gpt-5-mini", messages), tokens(6, 0, 22, 20));
    }
}
