//! What texts a run has, and at which step each was first told.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value as Json;

use crate::model::json_text::JsonText;
use crate::model::{Event, EventBody};

/// A longer word is no word: a picture, a key, a hash.
const MAX_WORD: usize = 256;
/// Longest text of one field of a step, in bytes.
const MAX_TEXT: usize = 4 << 20;
/// Stands between two texts of a field, so that no phrase is found that nobody said. No text has it.
pub(super) const BORDER: char = '\u{f8ff}';

/// What a step says, or a run besides its steps.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub step: Option<String>,
    pub kind: Option<String>,
    /// By the place of the field in [`FIELDS`](super::FIELDS).
    pub fields: [Field; 6],
}

impl Row {
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|field| field.0.len()).sum()
    }
}

/// The texts of one field.
#[derive(Debug, Default)]
pub(super) struct Field(pub String);

impl Field {
    pub fn text(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }

    fn push(&mut self, text: &str) {
        if self.0.len() >= MAX_TEXT {
            return;
        }
        if !self.0.is_empty() {
            self.0.extend([' ', BORDER, ' ']);
        }
        let begin = self.0.len();
        for word in text.split_whitespace() {
            if word.len() > MAX_WORD && word.is_ascii() && !word.contains(['.', ',', '"']) {
                continue;
            }
            if self.0.len() + word.len() >= MAX_TEXT {
                break;
            }
            if self.0.len() > begin {
                self.0.push(' ');
            }
            self.0.push_str(&spaced(word));
        }
    }
}

/// Puts blanks around the characters that are words of their own, and in place of those that mean something here.
pub(in super::super) fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_word_of_its_own(c) {
            out.extend([' ', c, ' ']);
        } else if c.is_control() || c == BORDER {
            out.push(' ');
        } else {
            out.push(c);
        }
    }
    out
}

/// Tells whether a character is of a script that has no blanks between words: Han and kana.
pub(super) fn is_word_of_its_own(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
}

/// Gathers the texts of a run, each where it is first told.
pub(super) fn rows_of(events: &[Event]) -> Vec<Row> {
    let mut gathered = Gathered::default();
    for event in events {
        gathered.take(event);
    }
    gathered.rows.retain(|row| row.bytes() > 0);
    gathered.rows
}

#[derive(Default)]
struct Gathered {
    rows: Vec<Row>,
    by_step: HashMap<Option<String>, usize>,
    told: HashSet<u64>,
}

const INPUT: usize = 0;

const OUTPUT: usize = 1;

const ARGUMENTS: usize = 2;

const RESULT: usize = 3;

const ERROR: usize = 4;

const LOG: usize = 5;

fn given(content: &Option<JsonText>) -> Option<Cow<'static, Json>> {
    content.as_ref().map(|content| Cow::Owned(content.value()))
}

impl Gathered {
    fn take(&mut self, event: &Event) {
        let step = &event.step_id;
        let mut add = |kind: Option<&str>, texts: &[(usize, Option<Cow<'_, Json>>)]| {
            let row = self.row(step, kind);
            for (field, value) in texts {
                if let Some(value) = value {
                    self.add(row, *field, value);
                }
            }
            row
        };
        let error = match &event.body {
            EventBody::RunStarted(run) => {
                add(None, &[(INPUT, given(&run.input))]);
                None
            }
            EventBody::Input(input) => {
                add(None, &[(INPUT, Some(Cow::Borrowed(&input.data)))]);
                None
            }
            EventBody::ContextAssembled(context) => {
                add(None, &[(INPUT, Some(Cow::Borrowed(&context.context)))]);
                None
            }
            EventBody::Waiting(waiting) => {
                let reason = waiting.reason.clone().map(Json::String);
                add(None, &[(OUTPUT, reason.map(Cow::Owned)), (OUTPUT, waiting.payload.as_ref().map(Cow::Borrowed))]);
                None
            }
            EventBody::Resumed(resumed) => {
                add(None, &[(INPUT, resumed.input.as_ref().map(Cow::Borrowed))]);
                None
            }
            EventBody::Output(output) => {
                add(None, &[(OUTPUT, Some(Cow::Borrowed(&output.data)))]);
                None
            }
            EventBody::Score(score) => {
                let said = |text: &Option<String>| text.clone().map(|text| Cow::Owned(Json::String(text)));
                add(None, &[(LOG, said(&score.label)), (LOG, said(&score.explanation))]);
                None
            }
            EventBody::Log(log) => {
                let said = (Json::String(log.message.clone()), Json::Object(log.fields.clone()));
                add(None, &[(LOG, Some(Cow::Owned(said.0))), (LOG, Some(Cow::Owned(said.1)))]);
                None
            }
            EventBody::LlmCalled(call) => {
                add(
                    Some("llm"),
                    &[
                        (INPUT, given(&call.system_prompt)),
                        (INPUT, given(&call.messages)),
                        (OUTPUT, given(&call.output)),
                    ],
                );
                call.error.as_ref()
            }
            EventBody::ToolRequested(tool) => {
                add(Some("tool"), &[(ARGUMENTS, given(&tool.tool_args))]);
                None
            }
            EventBody::ToolSucceeded(tool) => {
                add(Some("tool"), &[(ARGUMENTS, given(&tool.tool_args)), (RESULT, given(&tool.result))]);
                tool.error.as_ref()
            }
            EventBody::ToolFailed(tool) => {
                add(Some("tool"), &[(ARGUMENTS, given(&tool.tool_args)), (RESULT, given(&tool.result))]);
                tool.error.as_ref()
            }
            EventBody::StepStarted(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, given(&step.input))]);
                None
            }
            EventBody::StepCompleted(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, given(&step.input)), (OUTPUT, given(&step.output))]);
                step.error.as_ref()
            }
            EventBody::StepFailed(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, given(&step.input)), (OUTPUT, given(&step.output))]);
                step.error.as_ref()
            }
            _ => None,
        };
        if let Some(error) = error {
            let row = self.row(step, None);
            // Each failure is one of its own, whoever said the same before.
            for text in [&error.kind, &error.message].into_iter().flatten() {
                self.rows[row].fields[ERROR].push(text);
            }
        }
    }

    fn row(&mut self, step: &Option<String>, kind: Option<&str>) -> usize {
        let row = match self.by_step.get(step) {
            Some(row) => *row,
            None => {
                self.rows.push(Row { step: step.clone(), ..Row::default() });
                self.by_step.insert(step.clone(), self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        if let Some(kind) = kind {
            self.rows[row].kind.get_or_insert_with(|| kind.to_owned());
        }
        row
    }

    /// Adds the texts in a value, but for those that only say which part it is.
    fn add(&mut self, row: usize, field: usize, value: &Json) {
        match value {
            Json::String(text) => {
                // Arguments of tools often come as JSON in a text.
                let is_json = text.starts_with(['{', '[']);
                match is_json.then(|| serde_json::from_str::<Json>(text).ok()).flatten() {
                    Some(inner) => self.add(row, field, &inner),
                    None => self.add_text(row, field, text),
                }
            }
            Json::Number(number) => self.add_text(row, field, &number.to_string()),
            Json::Array(list) => list.iter().for_each(|value| self.add(row, field, value)),
            Json::Object(map) => {
                let says = |key: &&String| !matches!(key.as_str(), "type" | "role" | "id" | "tool_call_id");
                for (_, value) in map.iter().filter(|(key, _)| says(key)) {
                    self.add(row, field, value);
                }
            }
            Json::Null | Json::Bool(_) => {}
        }
    }

    fn add_text(&mut self, row: usize, field: usize, text: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        if !text.trim().is_empty() && self.told.insert(hasher.finish()) {
            self.rows[row].fields[field].push(text);
        }
    }
}
