//! What a model saw, made of a run's events: to call it with the same again when a run goes on.
//!
//! A pure function over events. Content is there as the run's content policy and limits have left it; where something is
//! missing that is said, never an empty text in its place.

use serde_json::{Value as Json, json};

use super::assembly::tool_calls_in;
use crate::conventions::names;
use crate::model::json_text::JsonText;
use crate::model::{Event, EventBody};
use crate::pipeline::scrub::ends_in_a_cut;

/// What a model is to be called with to go on where a run stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// Standing instructions, where they were told apart from the messages.
    pub system_prompt: Option<Json>,
    /// Messages in the shape of `gen_ai.input.messages`, the oldest first: those that the last call was sent, those that it
    /// answered with, and the results of the tools that it asked for.
    pub messages: Vec<Json>,
    /// What is not there as the model saw it; empty where all of it is.
    pub gaps: Vec<Gap>,
}

/// Something that a model saw and that is not there as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// What it was sent: not captured, or removed by policy.
    NoInput,
    /// What it answered, likewise.
    NoOutput,
    /// The result of a tool that it asked for.
    NoToolResult,
    /// Secrets: there are marks in their place.
    Redacted,
    /// The ends of texts that were too long.
    Cut,
}

/// Returns what the last model call of a run saw and answered, and what the tools have answered that it asked for. `agent`: of
/// that agent's calls alone.
///
/// `None` where there was no call.
pub fn conversation(events: &[Event], agent: Option<&str>) -> Option<Conversation> {
    let called = |event: &Event| match &event.body {
        EventBody::LlmCalled(called) if agent.is_none() || called.agent_id.as_deref() == agent => {
            Some((**called).clone())
        }
        _ => None,
    };
    let last = events.iter().rev().find_map(called)?;
    let mut conversation =
        Conversation { system_prompt: last.system_prompt.as_ref().map(JsonText::value), ..Conversation::default() };
    conversation.take(last.messages.as_ref(), Gap::NoInput);
    let before = conversation.messages.len();
    conversation.take(last.output.as_ref(), Gap::NoOutput);
    for call in asked_for(&conversation.messages[before..]) {
        conversation.take_result(events, &call);
    }
    conversation.find_marks();
    Some(conversation)
}

impl Conversation {
    /// Adds messages, or the one that stands for them.
    fn take(&mut self, content: Option<&JsonText>, without: Gap) {
        match content.map(JsonText::value) {
            None | Some(Json::Null) => self.note(without),
            Some(Json::Array(messages)) => self.messages.extend(messages),
            Some(message) => self.messages.push(message),
        }
    }

    fn take_result(&mut self, events: &[Event], call: &str) {
        let result = events.iter().rev().find_map(|event| result_of(event, call));
        let Some(result) = result.filter(|result| !result.is_null()) else { return self.note(Gap::NoToolResult) };
        let part = json!({"type": "tool_call_response", "id": call, "response": result});
        self.messages.push(json!({"role": "tool", "parts": [part]}));
    }

    fn note(&mut self, gap: Gap) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Looks for what scrub and limits have put in the place of content.
    fn find_marks(&mut self) {
        let has = |is_mark: fn(&str) -> bool| {
            self.messages.iter().chain(&self.system_prompt).any(|content| any_text(content, is_mark))
        };
        let found = [(has(is_redacted), Gap::Redacted), (has(ends_in_a_cut), Gap::Cut)];
        found.into_iter().filter(|(is, _)| *is).for_each(|(_, gap)| self.note(gap));
    }
}

/// Tells whether scrub and limits have left a value as it was.
pub(crate) fn is_whole(content: &Json) -> bool {
    !any_text(content, |text| is_redacted(text) || ends_in_a_cut(text))
}

fn is_redacted(text: &str) -> bool {
    text.contains("[redacted:")
}

/// Returns the ids of the tool calls that messages ask for.
fn asked_for(messages: &[Json]) -> Vec<String> {
    tool_calls_in(&Json::Array(messages.to_vec()))
}

/// Returns what a tool answered to a call: its result, or its error.
fn result_of(event: &Event, call: &str) -> Option<Json> {
    let (span, _, _) = event.body.span()?;
    if span.attr_str(names::TOOL_CALL_ID) != Some(call) {
        return None;
    }
    match &event.body {
        EventBody::ToolSucceeded(tool) => tool.result.as_ref().map(JsonText::value),
        EventBody::ToolFailed(tool) => {
            let error = tool.error.as_ref().and_then(|error| error.message.clone());
            tool.result.as_ref().map(JsonText::value).or_else(|| Some(json!({"error": error?})))
        }
        _ => None,
    }
}

/// Looks into all texts of a value; what was told comes from outside, so not by recursion.
fn any_text(content: &Json, wanted: impl Fn(&str) -> bool) -> bool {
    let mut waiting = vec![content];
    while let Some(value) = waiting.pop() {
        match value {
            Json::String(text) if wanted(text) => return true,
            Json::Array(list) => waiting.extend(list),
            Json::Object(map) => waiting.extend(map.values()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::Span;
    use crate::model::{EventId, UnixNanos};
    use crate::pipeline::facts::StepFacts;
    use crate::store::assembly::ended_body;

    fn event(seq: u64, attributes: &[(&str, &str)]) -> Event {
        let mut span = Span { trace_id: vec![1; 16], span_id: vec![seq as u8 + 1; 8], ..Span::default() };
        attributes.iter().for_each(|(key, value)| span.set_attr(key, *value));
        let facts = StepFacts::of(&span, None, None);
        let body = ended_body(span, &facts, *facts.content.clone(), None, None);
        let event_id = EventId::fresh(UnixNanos(1));
        Event { seq, event_id, parent_event_id: None, timestamp: UnixNanos(seq), step_id: None, body }
    }

    fn call(seq: u64, input: &str, output: &str) -> Event {
        let mut attributes = vec![(names::OPERATION, "chat"), (names::RESPONSE_MODEL, "m")];
        attributes.extend((!input.is_empty()).then_some((names::INPUT_MESSAGES, input)));
        attributes.extend((!output.is_empty()).then_some((names::OUTPUT_MESSAGES, output)));
        event(seq, &attributes)
    }

    fn tool(seq: u64, id: &str, result: &str) -> Event {
        let attributes = [(names::OPERATION, "execute_tool"), (names::TOOL_NAME, "t"), (names::TOOL_CALL_ID, id)];
        let result = (!result.is_empty()).then_some((names::TOOL_RESULT, result));
        event(seq, &attributes.into_iter().chain(result).collect::<Vec<_>>())
    }

    const ASKED: &str = r#"[{"role":"user","parts":[{"type":"text","content":"Rain in Paris?"}]}]"#;
    const WANTS: &str = r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"t","arguments":{}},{"type":"tool_call","id":"c2","name":"t","arguments":{}}]}]"#;

    #[test]
    fn a_conversation_goes_on_with_what_the_tools_have_answered() {
        let events = [call(0, "[]", "[]"), call(1, ASKED, WANTS), tool(2, "c2", "dry"), tool(3, "c1", r#"{"mm":3}"#)];
        let conversation = conversation(&events, None).unwrap();
        let told: Vec<String> = conversation.messages.iter().map(Json::to_string).collect();
        insta::assert_debug_snapshot!((told, conversation.gaps), @r#"
        (
            [
                "{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"Rain in Paris?\"}]}",
                "{\"role\":\"assistant\",\"parts\":[{\"type\":\"tool_call\",\"id\":\"c1\",\"name\":\"t\",\"arguments\":{}},{\"type\":\"tool_call\",\"id\":\"c2\",\"name\":\"t\",\"arguments\":{}}]}",
                "{\"role\":\"tool\",\"parts\":[{\"type\":\"tool_call_response\",\"id\":\"c1\",\"response\":{\"mm\":3}}]}",
                "{\"role\":\"tool\",\"parts\":[{\"type\":\"tool_call_response\",\"id\":\"c2\",\"response\":\"dry\"}]}",
            ],
            [],
        )
        "#);
    }

    #[test]
    fn what_is_missing_is_said() {
        let gaps = |events: &[Event]| conversation(events, None).map(|conversation| conversation.gaps);
        assert_eq!(gaps(&[tool(0, "c1", "x")]), None);
        assert_eq!(gaps(&[call(0, "", "")]), Some(vec![Gap::NoInput, Gap::NoOutput]));
        assert_eq!(gaps(&[call(0, ASKED, WANTS), tool(1, "c1", "x")]), Some(vec![Gap::NoToolResult]));
        let marked =
            r#"[{"role":"user","parts":[{"type":"text","content":"my [redacted:key:20:00] and more[cut:70]"}]}]"#;
        assert_eq!(gaps(&[call(0, marked, ASKED)]), Some(vec![Gap::Redacted, Gap::Cut]));
        assert!(conversation(&[call(0, ASKED, WANTS)], Some("somebody else")).is_none());
    }
}
