//! How events are shown: each as its line of the log, a model call with what it saw and what it said.

use std::collections::HashMap;

use anstyle::Style;
use runspan::conventions::names;
use runspan::model::json_text::JsonText;
use runspan::model::otlp::Value;
use runspan::model::{Event, EventBody, StepKind};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::RunTime;
use crate::cli::content::{Message, Part, Said, conversation, plain};
use crate::cli::output::{BLUE, CYAN, DIM, Look, MAGENTA, YELLOW, safe, width, wrapped};
use crate::cli::{Done, Format, Session, events};

/// What was sent to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ModelSaw {
    system: Option<Json>,
    messages: Option<Json>,
    tools: Option<Json>,
    /// Whether not all of it is recorded.
    is_cut: bool,
}

impl ModelSaw {
    /// Reads it off the start or the end of a call.
    fn of(body: &EventBody) -> Option<Self> {
        let is_call = match body {
            EventBody::StepStarted(step) => step.kind == StepKind::Llm,
            EventBody::LlmCalled(_) => true,
            _ => false,
        };
        let (span, ..) = body.span().filter(|_| is_call)?;
        let content = |key| span.attr(key).map(Value::to_json);
        Some(Self {
            system: content(names::SYSTEM_INSTRUCTIONS),
            messages: content(names::INPUT_MESSAGES),
            tools: content(names::TOOL_DEFINITIONS),
            is_cut: span.attr(names::CUT).is_some(),
        })
    }
}

/// Where events are shown.
pub struct Screen<'a> {
    time: RunTime,
    /// What each call saw, by step. Most of it is told only when the call is over.
    calls: HashMap<&'a str, ModelSaw>,
    said: Said<'a>,
    /// Instructions and tools that an agent's last call had.
    standing: HashMap<(Option<&'a str>, &'static str), Json>,
    /// Whether all is shown that a model saw.
    all: bool,
}

/// An event for programs: as it is stored, with when it happened, and what the model saw in the call that begins with it.
#[derive(Serialize)]
struct Line<'a> {
    /// Since the run began.
    at_ms: f64,
    #[serde(flatten)]
    event: &'a Event,
    model_saw: Option<ModelSaw>,
}

impl<'a> Screen<'a> {
    /// Makes it for the events of a run in their order in time.
    pub fn new(log: &'a [Event], time: RunTime, all: bool) -> Self {
        let told = log.iter().filter_map(|event| Some((event.step_id.as_deref()?, ModelSaw::of(&event.body)?)));
        Self { time, calls: told.collect(), said: Said::default(), standing: HashMap::new(), all }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &'a Event, session: &mut Session<'_>) -> Done {
        let is_start = event.body.is_step_start();
        let saw = event.step_id.as_deref().filter(|_| is_start).and_then(|step| self.calls.get(step)).cloned();
        if session.format != Format::Table {
            let at_ms = self.time.of(event).0.saturating_sub(self.time.start.0) as f64 / 1e6;
            session.print_line(&Line { at_ms, event, model_saw: saw })?;
            return session.flush();
        }
        let look = session.look;
        let mut text = events::line_without_talk(event, self.time.of(event), self.time.start, look);
        if let Some(saw) = saw {
            text.push_str(&self.sees(event, &saw, look));
        }
        if let EventBody::LlmCalled(call) = &event.body {
            let output = call.output.as_ref().map(JsonText::value);
            text.push_str(&says(output.as_ref(), call.error.is_some(), look));
            self.remember(event, output.as_ref());
        }
        session.print(&text)?;
        session.flush()
    }

    fn sees(&mut self, event: &'a Event, saw: &ModelSaw, look: Look) -> String {
        let agent = agent_of(&event.body);
        let mut block = Block::new("sees", look);
        if let Some(system) = &saw.system {
            self.standing(agent, "system", system, texts, &mut block);
        }
        match (&saw.messages, saw.messages.as_ref().and_then(conversation)) {
            (_, Some(messages)) => {
                let (known, words) = self.said.before(agent, &messages);
                let known = if self.all { 0 } else { known };
                if let Some(words) = words.filter(|_| known > 0) {
                    block.line("", &safe(&words), DIM);
                }
                messages.iter().skip(known).for_each(|message| block.message(message));
            }
            (Some(other), None) => block.lines("input", &plain(other), Style::new()),
            (None, None) => block.line("", "what was sent is not recorded", YELLOW),
        }
        if let Some(tools) = &saw.tools {
            let text = if self.all { plain } else { tool_list };
            self.standing(agent, "tools", tools, text, &mut block);
        }
        if saw.is_cut {
            block.line("", "not all of it is recorded: it was cut", YELLOW);
        }
        block.out
    }

    /// Shows what holds for all calls of an agent, where it is not as before.
    fn standing(
        &mut self,
        agent: Option<&'a str>,
        name: &'static str,
        content: &Json,
        text: fn(&Json) -> String,
        block: &mut Block,
    ) {
        let before = self.standing.insert((agent, name), content.clone());
        if before.as_ref() == Some(content) && !self.all {
            block.line(name, "as before", DIM);
        } else {
            block.lines(name, &text(content), Style::new());
        }
    }

    /// Notes what was said in a call, which the next one repeats.
    fn remember(&mut self, event: &'a Event, output: Option<&Json>) {
        let Some(step) = event.step_id.as_deref() else { return };
        let messages = self.calls.get(step).and_then(|saw| saw.messages.as_ref()).and_then(conversation);
        let mut told = messages.unwrap_or_default();
        told.extend(output.and_then(conversation).unwrap_or_default());
        self.said.tell(agent_of(&event.body), step, told);
    }
}

fn agent_of(body: &EventBody) -> Option<&str> {
    match body {
        EventBody::StepStarted(step) => step.agent_id.as_deref(),
        EventBody::LlmCalled(call) => call.agent_id.as_deref(),
        _ => None,
    }
}

fn says(output: Option<&Json>, has_failed: bool, look: Look) -> String {
    let mut block = Block::new("says", look);
    match (output, output.and_then(conversation)) {
        (_, Some(messages)) => messages.iter().for_each(|message| block.message(message)),
        (Some(other), None) => block.lines("output", &plain(other), Style::new()),
        // Why there is none stands on the line above.
        (None, None) if has_failed => {}
        (None, None) => block.line("", "what was answered is not recorded", YELLOW),
    }
    block.out
}

/// Writes a part of a message; what is short, on one line.
fn said(part: &Part) -> String {
    const SHORT: usize = 80;
    let line = match part {
        Part::ToolCall { name, arguments, .. } if !arguments.is_string() => format!("calls {name} {arguments}"),
        Part::ToolResult { result, .. } if !result.is_string() => format!("answers {result}"),
        Part::Other(other) if !other.is_string() => other.to_string(),
        other => return other.readable(),
    };
    if line.len() <= SHORT { line } else { part.readable() }
}

/// Reads instructions: a text, or a list of parts.
fn texts(system: &Json) -> String {
    let parts = conversation(&json!({"role": "system", "parts": system})).into_iter().flatten();
    let texts: Vec<String> = parts.flat_map(|message| message.parts).map(|part| part.readable()).collect();
    texts.join("\n")
}

/// Lists tools by what is needed to call them, one a line: `get_weather(city, unit)  Weather of a city`.
fn tool_list(tools: &Json) -> String {
    let Some(list) = tools.as_array() else { return plain(tools) };
    let lines: Vec<String> = list.iter().map(|tool| tool_line(tool).unwrap_or_else(|| tool.to_string())).collect();
    lines.join("\n")
}

fn tool_line(tool: &Json) -> Option<String> {
    let tool = tool.get("function").unwrap_or(tool);
    let name = tool.get("name")?.as_str()?;
    let schema = ["parameters", "input_schema", "inputSchema"].iter().find_map(|key| tool.get(key));
    let fields = schema.and_then(|schema| schema.get("properties")).and_then(Json::as_object);
    let fields: Vec<&str> = fields.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let about = tool.get("description").and_then(Json::as_str).and_then(|text| text.lines().next()).unwrap_or("");
    Some(format!("{name}({})  {about}", fields.join(", ")).trim_end().to_owned())
}

/// What stands below an event's line: who says what, line by line.
struct Block {
    out: String,
    /// What it is, until its first line has said so.
    title: &'static str,
    look: Look,
}

/// Columns before a line: below the event's time; what the block is; who speaks.
const INDENT: usize = 6;
const TITLE: usize = 6;
const LABEL: usize = 11;

impl Block {
    fn new(title: &'static str, look: Look) -> Self {
        Self { out: String::new(), title, look }
    }

    fn message(&mut self, message: &Message) {
        let style = match message.role.as_str() {
            "assistant" | "model" => BLUE,
            "tool" => MAGENTA,
            _ => Style::new(),
        };
        if message.parts.is_empty() {
            self.line(&message.role, "nothing", DIM);
        }
        for (place, part) in message.parts.iter().enumerate() {
            self.lines(if place == 0 { &message.role } else { "" }, &said(part), style);
        }
    }

    /// Writes a text; on a terminal, within its width.
    fn lines(&mut self, label: &str, text: &str, style: Style) {
        let room = self.look.width.saturating_sub(INDENT + TITLE + LABEL);
        for (place, line) in text.trim_end_matches('\n').split('\n').enumerate() {
            let line = safe(line);
            let broken = if self.look.is_terminal { wrapped(&line, room) } else { line.into_owned() };
            for (below, line) in broken.split('\n').enumerate() {
                self.line(if place + below == 0 { label } else { "" }, line, style);
            }
        }
    }

    /// Writes a line of safe text.
    fn line(&mut self, label: &str, line: &str, style: Style) {
        let title = std::mem::take(&mut self.title);
        let label = safe(label);
        let room = LABEL.saturating_sub(width(&label)).max(1);
        let text = format!(
            "{:INDENT$}{}{}{:room$}{}",
            "",
            self.look.paint(CYAN, &format!("{title:<TITLE$}")),
            self.look.paint(DIM, &label),
            "",
            self.look.paint(style, line),
        );
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }
}
