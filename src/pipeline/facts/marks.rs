//! By what a call can be known where another instrumentation tells it as well.

use serde_json::Value as Json;

use super::StepContent;
use crate::conventions::dialects::{REPORTS, RUN_BY_OTHERS, TASKS};
use crate::model::StepKind;
use crate::model::json_text::JsonText;
use crate::model::otlp::{Scope, Value};

/// Of a longer answer nobody looks for what it says.
const MAX_ANSWER: usize = 64 << 10;
/// So many messages from the end are looked at for the user's last.
const MAX_MESSAGES: usize = 64;
/// Calls of tools that one answer asks for, of which note is taken.
const MAX_ASKED: usize = 16;
/// Types of what Anthropic's answers are made of besides text; some instrumentations write each as the JSON that it is.
const NO_TEXT: &[&str] = &["thinking", "redacted_thinking", "tool_use", "server_tool_use", TOOL_RESULT];
/// What Anthropic is told of a tool in the user's name.
const TOOL_RESULT: &str = "tool_result";

/// By what a call of a model or a tool can be known. These are checksums (CRC-32C): nobody reads them, they are only compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Who told it: the name of the scope.
    pub scope: u32,
    /// That is a program of its own, which others run and tell of ([`RUN_BY_OTHERS`]).
    pub is_run_by_others: bool,
    /// Whether it is no call, but a record of a log that reports one ([`REPORTS`]).
    pub is_report: bool,
    /// What was asked, as it is written.
    pub input: Option<u32>,
    /// What was asked last, in words, by whoever is the user.
    pub question: Option<u32>,
    /// The ids of the calls of tools whose results follow that in the user's name.
    pub results: Vec<u32>,
    /// Whether results of tools follow that, in whoever's name.
    pub has_results: bool,
    /// What was answered in words.
    pub text: Option<u32>,
    /// The ids of the tool calls that were answered.
    pub asked: Vec<u32>,
    /// The execution of a graph's node that it was made in ([`TASKS`]).
    pub task: Option<u32>,
}

impl Marks {
    /// Reads them of a call; of other steps nobody asks.
    pub(super) fn of<'a>(
        attr: impl Fn(&'static str) -> Option<&'a Value>,
        kind: StepKind,
        scope: Option<&Scope>,
        content: &StepContent,
    ) -> Option<Box<Self>> {
        let name = scope.map_or("", |scope| scope.name.as_str());
        let is_run_by_others = RUN_BY_OTHERS.iter().any(|start| name.starts_with(start));
        let mut marks = Self { scope: crc32c::crc32c(name.as_bytes()), is_run_by_others, ..Self::default() };
        match kind {
            StepKind::Tool => return Some(Box::new(marks)),
            StepKind::Llm => (),
            _ => return None,
        }
        let says = |(key, word): &(&'static str, &str)| attr(key).and_then(Value::as_str) == Some(word);
        marks.is_report = REPORTS.iter().any(says);
        marks.input = content.input.as_ref().map(|input| crc32c::crc32c(input.as_str().as_bytes()));
        if let Some(input) = content.input.as_ref() {
            marks.read_question(input.as_str());
        }
        marks.task = TASKS.iter().find_map(|(key, member)| task(attr(key)?.as_str()?, member));
        if let Some(output) = content.output.as_ref().filter(|output| output.as_str().len() <= MAX_ANSWER) {
            marks.read(output);
        }
        Some(Box::new(marks))
    }

    /// Reads the last of a list of messages that is the user's, and what tools gave since. The others are not read: a conversation may
    /// be long.
    fn read_question(&mut self, messages: &str) {
        const ROLE: &str = "\"role\"";
        let role_at = |at: usize| {
            let value = messages[at + ROLE.len()..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
            value.split('"').next()
        };
        let message_at = |at: usize| {
            let begin = messages[..at].trim_end().strip_suffix('{')?.len();
            serde_json::Deserializer::from_str(messages.get(begin..)?).into_iter::<Json>().next()?.ok()
        };
        for (at, _) in messages.rmatch_indices(ROLE).take(MAX_MESSAGES) {
            match role_at(at) {
                Some("user") => (),
                role => {
                    self.has_results |= role == Some("tool");
                    continue;
                }
            }
            let Some(message) = message_at(at) else { return };
            let mut said = Said::default();
            said.add_message(&message);
            self.has_results |= said.has_results;
            self.results.extend(said.results);
            self.results.truncate(MAX_ASKED);
            self.question = sum_of(&said.text);
            // What a tool gave is no user's word, in whoever's name it is told.
            if self.question.is_some() || !said.has_results {
                return;
            }
        }
    }

    /// Tells whether what was asked last, with what tools gave since, may be the same; nothing where one does not say it.
    pub fn may_ask_the_same(&self, other: &Self) -> Option<bool> {
        let is_same = self.question? == other.question?;
        // Not all layers tell results in the user's name, and of others the ids are not always told.
        let lacks = |one: &Self, other: &Self| !one.results.is_empty() && !other.has_results;
        let are_told = !self.results.is_empty() && !other.results.is_empty();
        let are_others = are_told && !self.results.iter().any(|id| other.results.contains(id));
        Some(is_same && !are_others && !lacks(self, other) && !lacks(other, self))
    }

    /// Reads an answer, a list of messages.
    fn read(&mut self, output: &JsonText) {
        let mut said = Said::default();
        let output = output.value();
        for message in output.as_array().map_or(std::slice::from_ref(&output), Vec::as_slice) {
            said.add_message(message);
        }
        self.text = sum_of(&said.text);
        self.asked = said.asked;
    }
}

/// What messages say.
#[derive(Default)]
struct Said {
    text: String,
    /// The ids of the tool calls that are asked for.
    asked: Vec<u32>,
    /// Whether they tell what a tool gave, and the ids of its calls.
    has_results: bool,
    results: Vec<u32>,
}

/// Tells whether an answer, a list of messages, has more in it than one token says: several words, or a call of a tool.
pub fn says_more(output: &str) -> bool {
    let Some(Json::Array(messages)) =
        Some(output).filter(|output| output.len() <= MAX_ANSWER).and_then(|output| serde_json::from_str(output).ok())
    else {
        return false;
    };
    let mut said = Said::default();
    messages.iter().for_each(|message| said.add_message(message));
    said.text.split_whitespace().nth(1).is_some() || !said.asked.is_empty()
}

fn sum_of(text: &str) -> Option<u32> {
    let text = text.trim();
    (!text.is_empty()).then(|| crc32c::crc32c(text.as_bytes()))
}

fn parts_of(message: &Json) -> Option<&Json> {
    message.get("parts").or_else(|| message.get("content"))
}

impl Said {
    /// Adds what a message has of words.
    fn add_message(&mut self, message: &Json) {
        match parts_of(message) {
            Some(Json::String(said)) => self.add_text(said),
            Some(Json::Array(parts)) => {
                for part in parts {
                    let member = |key| part.get(key).and_then(Json::as_str);
                    match member("type") {
                        Some("text") => self.add_text(member("content").or(member("text")).unwrap_or_default()),
                        Some("tool_call") => self.add_asked(member("id")),
                        Some("tool_call_response" | TOOL_RESULT) => self.add_result(part),
                        _ => (),
                    }
                }
            }
            _ => (),
        }
    }

    /// Adds what was said, taken out of what some write it down in: a block as JSON, or the list of all of them.
    fn add_text(&mut self, said: &str) {
        let may_be_block = said.starts_with(['{', '[']) && said.contains("\"type\"");
        let blocks = Some(said).filter(|_| may_be_block).and_then(|said| serde_json::from_str::<Json>(said).ok());
        let blocks = blocks.map(|blocks| if let Json::Array(blocks) = blocks { blocks } else { vec![blocks] });
        match blocks.filter(|blocks| !blocks.is_empty() && blocks.iter().all(is_block)) {
            Some(blocks) => blocks.iter().for_each(|block| self.add_block(block)),
            None => self.text.push_str(said),
        }
    }

    fn add_block(&mut self, block: &Json) {
        let member = |key| block.get(key).and_then(Json::as_str);
        match member("type") {
            Some("text") => self.text.push_str(member("text").unwrap_or_default()),
            Some("tool_use") => self.add_asked(member("id")),
            Some(TOOL_RESULT) => self.add_result(block),
            _ => (),
        }
    }

    fn add_result(&mut self, result: &Json) {
        self.has_results = true;
        let id = ["id", "tool_use_id"].iter().find_map(|key| result.get(key)?.as_str());
        if self.results.len() < MAX_ASKED {
            self.results.extend(id.map(|id| crc32c::crc32c(id.as_bytes())));
        }
    }

    fn add_asked(&mut self, id: Option<&str>) {
        if self.asked.len() < MAX_ASKED {
            self.asked.extend(id.map(|id| crc32c::crc32c(id.as_bytes())));
        }
    }
}

/// Tells whether it is a block of a message of Anthropic's, and not what a program wants to have as JSON.
fn is_block(block: &Json) -> bool {
    let member = |key| block.get(key).and_then(Json::as_str);
    match member("type") {
        Some("text") => member("text").is_some(),
        Some(kind) => NO_TEXT.contains(&kind),
        None => false,
    }
}

/// Returns what stands for a task: the whole value, or a member of the JSON that it is, which is not read for it.
fn task(value: &str, member: &str) -> Option<u32> {
    let value = match member {
        "" => value.trim_matches('"'),
        _ => {
            let (_, behind) = value.split_once(&format!("\"{member}\""))?;
            let behind = behind.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
            behind.split_once('"')?.0
        }
    };
    (!value.is_empty()).then(|| crc32c::crc32c(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(attributes: &[(&'static str, Value)], output: &str) -> Marks {
        let attr = |key| attributes.iter().find(|(own, _)| *own == key).map(|(_, value)| value);
        let content = StepContent { output: Some(JsonText::of(&output.into())), ..StepContent::default() };
        *Marks::of(attr, StepKind::Llm, None, &content).unwrap()
    }

    fn sum(text: &str) -> Option<u32> {
        Some(crc32c::crc32c(text.as_bytes()))
    }

    #[test]
    fn an_answer_is_known_by_its_words_however_they_are_written() {
        for output in [
            r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"Hm."},{"type":"text","content":"It is sunny."}]}]"#,
            r#"{"role":"assistant","content":"It is sunny."}"#,
            r#"[{"role":"assistant","content":[{"type":"thinking","thinking":"Hm."},{"type":"text","text":"It is "},{"type":"text","text":"sunny.\n"}]}]"#,
            r#"[{"role":"assistant","parts":[{"type":"text","content":"{\"type\":\"thinking\",\"thinking\":\"Hm.\"}"},{"type":"text","content":"{\"type\":\"text\",\"text\":\"It is sunny.\"}"}]}]"#,
            r#"[{"role":"assistant","parts":[{"type":"text","content":"[{\"type\":\"thinking\",\"thinking\":\"Hm.\"},{\"type\":\"text\",\"text\":\"It is sunny.\"},{\"type\":\"tool_use\",\"id\":\"a\"}]"}]}]"#,
        ] {
            assert_eq!(marks(&[], output).text, sum("It is sunny."), "{output}");
        }
        for output in ["[]", "{}", "It is sunny.", r#"[{"role":"assistant","parts":[{"type":"text","content":" "}]}]"#]
        {
            assert_eq!(marks(&[], output).text, None, "{output}");
        }
        let json = r#"{"type":"object"}"#;
        let output =
            serde_json::json!([{"parts": [{"type": "text", "content": json}, {"type": "tool_call", "id": "call_1"}]}]);
        let said = marks(&[], &output.to_string());
        assert_eq!((said.text, said.asked), (sum(json), vec![crc32c::crc32c(b"call_1")]));
        // The blocks of Anthropic's, all in one text (`@traceloop/instrumentation-anthropic` 0.22.6).
        let blocks = r#"[{"type":"text","text":"Hm."},{"type":"tool_use","id":"call_1","name":"f","input":{}}]"#;
        let said = marks(&[], &serde_json::json!([{"parts": [{"type": "text", "content": blocks}]}]).to_string());
        assert_eq!((said.text, said.asked), (sum("Hm."), vec![crc32c::crc32c(b"call_1")]));
        for json in ["[]", r#"[{"type":"object"}]"#, r#"[{"type":"text","text":"a"},{"type":"object"}]"#] {
            let output = serde_json::json!([{"parts": [{"type": "text", "content": json}]}]);
            assert_eq!(marks(&[], &output.to_string()).text, sum(json), "{json}");
        }
    }

    fn asked(messages: &str) -> Marks {
        let mut marks = Marks::default();
        marks.read_question(messages);
        marks
    }

    #[test]
    fn what_tools_gave_since_a_question_tells_calls_apart() {
        let with = |more: &str| asked(&format!(r#"[{{"role":"user","content":"Hi"}}{more}]"#));
        let gave = |id: &str| {
            with(&format!(r#",{{"role":"user","content":"[{{\"type\":\"tool_result\",\"tool_use_id\":\"{id}\"}}]"}}"#))
        };
        let (none, tool) = (with(""), with(r#",{"role":"tool","parts":[{"type":"text","content":"18"}]}"#));
        for (one, other, is_same) in [
            (&gave("a"), &gave("a"), true),
            (&gave("a"), &gave("b"), false),
            // Other layers have it of the tool, and without an id.
            (&gave("a"), &tool, true),
            (&gave("a"), &none, false),
            (&tool, &none, true),
        ] {
            assert_eq!(
                [one.may_ask_the_same(other), other.may_ask_the_same(one)],
                [Some(is_same); 2],
                "{one:?} {other:?}"
            );
        }
        assert_eq!(gave("a").may_ask_the_same(&asked("[]")), None);
    }

    #[test]
    fn a_question_is_what_the_user_said_last() {
        for messages in [
            r#"[{"role":"system","parts":[]},{"role":"user","parts":[{"type":"text","content":"Hi"}]},{"role":"user","parts":[{"type":"text","content":"Is it \"role\" or {?"}]},{"role":"tool","parts":[]}]"#,
            r#"[ { "role" : "user", "content" : "Is it \"role\" or {? " } ]"#,
            // What a tool gave, in the user's name.
            r#"[{"role":"user","content":"Is it \"role\" or {?"},{"role":"user","content":"[{\"type\":\"tool_result\",\"content\":\"18\"}]"}]"#,
            r#"[{"role":"user","content":"Is it \"role\" or {?"},{"role":"user","parts":[{"type":"tool_call_response","response":"18"}]}]"#,
        ] {
            assert_eq!(asked(messages).question, sum("Is it \"role\" or {?"), "{messages}");
        }
        for messages in
            ["", "[]", r#"[{"role":"user"}]"#, r#"[{"role":"user","parts":["#, r#""role":"user""#, "{\"role\":"]
        {
            assert_eq!(asked(messages).question, None, "{messages}");
        }
    }

    #[test]
    fn a_task_is_known_wherever_it_is_told() {
        for (key, value) in [
            ("metadata", r#"{"thread_id": "t", "langgraph_checkpoint_ns": "model:1", "checkpoint_ns": "model:1"}"#),
            ("metadata", r#"{"langgraph_checkpoint_ns":"model:1"}"#),
            ("traceloop.association.properties.langgraph_checkpoint_ns", "model:1"),
            ("langfuse.observation.metadata.langgraph_checkpoint_ns", r#""model:1""#),
        ] {
            assert_eq!(marks(&[(key, value.into())], "").task, sum("model:1"), "{key} {value}");
        }
        for value in ["", "{}", r#"{"langgraph_checkpoint_ns": ""}"#, r#"{"langgraph_checkpoint_ns": null}"#] {
            assert_eq!(marks(&[("metadata", value.into())], "").task, None, "{value}");
        }
    }
}
