//! What of an input or output says something of the run: providers name each tool call anew each time.

use std::borrow::Cow;

use serde_json::Value as Json;

/// Members of messages and of their parts that are such names.
const CALL_IDS: [&str; 4] = ["id", "call_id", "tool_call_id", "tool_use_id"];
/// Members that hold parts.
const PARTS: [&str; 3] = ["parts", "content", "tool_calls"];

/// Tells whether two contents are the same but for the ids of tool calls.
pub(super) fn is_same(a: Option<&Json>, b: Option<&Json>) -> bool {
    a == b || matches!((a, b), (Some(a), Some(b)) if without_call_ids(a) == without_call_ids(b))
}

/// Leaves ids of tool calls out of a conversation. Whatever is none comes back as it is.
pub(super) fn without_call_ids(content: &Json) -> Cow<'_, Json> {
    let is_message = |message: &Json| message.get("role").is_some_and(Json::is_string);
    match content {
        Json::Array(messages) if !messages.is_empty() && messages.iter().all(is_message) => {
            Cow::Owned(Json::Array(messages.iter().map(named_less).collect()))
        }
        Json::Object(_) if is_message(content) => Cow::Owned(named_less(content)),
        other => Cow::Borrowed(other),
    }
}

/// Copies a message, or a part of one: what stands deeper, arguments and results, belongs to the tools.
fn named_less(message: &Json) -> Json {
    let Json::Object(members) = message else { return message.clone() };
    let kept = members.iter().filter(|(key, _)| !CALL_IDS.contains(&key.as_str()));
    let copied = kept.map(|(key, value)| {
        let value = match value {
            Json::Array(parts) if PARTS.contains(&key.as_str()) => Json::Array(parts.iter().map(named_less).collect()),
            other => other.clone(),
        };
        (key.clone(), value)
    });
    Json::Object(copied.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_of_tool_calls_are_no_difference_and_those_in_arguments_are() {
        let asks = |id: &str, argument: &str| {
            json!([{"role": "assistant", "parts": [{"type": "tool_call", "id": id, "name": "find",
                "arguments": {"id": argument}}]}])
        };
        assert!(is_same(Some(&asks("call_1", "x")), Some(&asks("call_2", "x"))));
        assert!(!is_same(Some(&asks("call_1", "x")), Some(&asks("call_1", "y"))));
        let of_provider = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "rain"});
        assert!(is_same(Some(&of_provider("1")), Some(&of_provider("2"))));
        assert!(!is_same(Some(&json!({"id": 1})), Some(&json!({"id": 2}))));
        assert!(!is_same(None, Some(&Json::Null)));
    }
}
