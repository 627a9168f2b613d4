//! One event as one line.

use runspan::model::event::Waiting;
use runspan::model::json_text::JsonText;
use runspan::model::{ErrorInfo, Event, EventBody, StepKind, StepStatus, UnixNanos};
use serde_json::Value as Json;

use super::output::{DIM, GREEN, Look, RED, YELLOW, cut, error_text, gist, money, safe, says_nothing, tokens, width};
use super::time::{duration, whole_duration};
use anstyle::Style;

/// Draws an event: its place, its time since `start`, its type, its step and what it says.
pub fn line(event: &Event, start: UnixNanos, look: Look) -> String {
    let mut words = detail(&event.body);
    words.extend(said(&event.body).map(Word::Text));
    drawn(event, event.timestamp, start, &words, look)
}

/// Draws an event whose conversation is shown elsewhere, as one that happened at a moment.
pub fn line_without_talk(event: &Event, at: UnixNanos, start: UnixNanos, look: Look) -> String {
    drawn(event, at, start, &detail(&event.body), look)
}

/// A word of what an event says.
#[derive(Debug)]
enum Word {
    /// What may be cut where there is little room.
    Text(String),
    /// A number: tokens, money, a time. Cut, it would say something else.
    Fact(String),
}

impl Word {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Fact(text) => text,
        }
    }
}

/// Joins words within so many columns: texts are cut so that the facts have room.
fn fitted(words: &[Word], room: usize) -> String {
    const GAP: &str = "  ";
    let is_fact = |word: &&Word| matches!(word, Word::Fact(_));
    let facts: usize = words.iter().filter(is_fact).map(|word| width(&safe(word.text())) + GAP.len()).sum();
    let mut left = room.saturating_sub(facts);
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let text = safe(word.text());
        let shown = match word {
            Word::Fact(_) => text.into_owned(),
            // Less says nothing.
            Word::Text(_) if left < 2 && width(&text) > left => continue,
            Word::Text(_) => cut(&text, left).into_owned(),
        };
        if !is_fact(&word) {
            left = left.saturating_sub(width(&shown) + GAP.len());
        }
        out.push(shown);
    }
    cut(&out.join(GAP), room).into_owned()
}

fn drawn(event: &Event, at: UnixNanos, start: UnixNanos, detail: &[Word], look: Look) -> String {
    let since = (at.0.saturating_sub(start.0)) as f64 / 1e9;
    let step = event.step_id.as_deref().unwrap_or("-");
    let head = format!("{:>4}  {since:>+9.3}s  ", event.seq);
    let kind = format!("{:<17}", safe(event.body.type_name()));
    let narrow = look.room() < 100;
    let step = if narrow { format!("  {:<12}", cut(&safe(step), 12)) } else { format!("  {:<16}", safe(step)) };
    let used = width(&head) + width(&kind) + width(&step) + 2;
    let room = look.room().saturating_sub(used);
    let text =
        format!("{}{}{step}  {}", look.paint(DIM, &head), look.paint(style(&event.body), &kind), fitted(detail, room));
    format!("{}\n", text.trim_end())
}

fn style(body: &EventBody) -> Style {
    match body {
        EventBody::RunCompleted(run) if run.error.is_some() => RED,
        EventBody::LlmCalled(call) if call.error.is_some() => RED,
        EventBody::ToolFailed(_) | EventBody::StepFailed(_) => RED,
        EventBody::RunCompleted(_) | EventBody::LlmCalled(_) => GREEN,
        EventBody::ToolSucceeded(_) | EventBody::StepCompleted(_) => GREEN,
        EventBody::StatusChanged(_) | EventBody::Waiting(_) => YELLOW,
        _ => Style::new(),
    }
}

/// Words that are being collected.
#[derive(Default)]
struct Words(Vec<Word>);

impl Words {
    fn push(&mut self, text: String) {
        self.0.push(Word::Text(text));
    }

    fn extend(&mut self, texts: impl IntoIterator<Item = String>) {
        self.0.extend(texts.into_iter().map(Word::Text));
    }

    fn facts(&mut self, facts: impl IntoIterator<Item = String>) {
        self.0.extend(facts.into_iter().map(Word::Fact));
    }
}

/// Says in a few words what happened; not safe to print as it is.
fn detail(body: &EventBody) -> Vec<Word> {
    let mut words = Words::default();
    match body {
        EventBody::RunStarted(run) => {
            words.push(format!("{} {}", run.kind, run.name));
            words.extend(run.input.as_ref().map(given));
        }
        EventBody::RunCompleted(run) => {
            words.push(run.status.to_string());
            words.facts(run.totals.duration_ms.map(whole_duration));
            words.facts(run.totals.tokens.map(|used| tokens(Some(used))));
            words.facts(run.totals.cost_usd.map(money));
            words.extend(run.error.as_ref().filter(|error| !says_nothing(error)).map(error_text));
        }
        EventBody::StatusChanged(change) => {
            words.push(format!("{} → {}", change.from, change.to));
            words.extend(change.reason.clone());
        }
        EventBody::Input(input) => words.extend([input.tool.clone(), quoted(&input.data)]),
        EventBody::ContextAssembled(assembled) => words.push(quoted(&assembled.context)),
        EventBody::StepStarted(step) => {
            words.push(format!("{} {}", step.kind, step.name));
            words.extend(step.input.as_ref().filter(|_| step.kind != StepKind::Llm).map(given));
        }
        EventBody::ToolRequested(tool) => words.extend(tool.tool_args.as_ref().map(|given| given.as_str().to_owned())),
        EventBody::LlmCalled(call) => {
            words.extend(call.model.clone());
            words.facts(call.tokens.map(|used| tokens(Some(used))));
            words.facts(call.cost_usd.map(money));
            words.facts(call.duration_ms.map(duration));
            words.extend(error(call.error.as_ref(), call.status));
        }
        EventBody::ToolSucceeded(tool) => {
            words.facts(tool.duration_ms.map(duration));
            words.extend(tool.result.as_ref().map(given));
        }
        EventBody::ToolFailed(tool) => {
            words.facts(tool.duration_ms.map(duration));
            words.extend(error(tool.error.as_ref(), tool.status));
        }
        EventBody::StepCompleted(step) => {
            words.facts(step.duration_ms.map(duration));
            words.extend(step.output.as_ref().map(given));
        }
        EventBody::StepFailed(step) => {
            words.facts(step.duration_ms.map(duration));
            words.extend(error(step.error.as_ref(), step.status));
        }
        EventBody::Waiting(waiting) => {
            words.extend(waiting.reason.clone());
            // That of a pause is the request for it, and says nothing.
            let is_pause = waiting.reason.as_deref() == Some(Waiting::PAUSED);
            words.extend(waiting.payload.as_ref().filter(|_| !is_pause).map(quoted));
        }
        EventBody::Resumed(resumed) => {
            words.extend(resumed.input.as_ref().or(resumed.is_null.then_some(&Json::Null)).map(quoted))
        }
        EventBody::Output(output) => words.push(quoted(&output.data)),
        EventBody::Artifact(file) => words.push(format!("{} {} bytes", file.name, file.bytes)),
        EventBody::Score(score) => {
            words.push(score.name.clone());
            words.extend(score.value.map(|value| value.to_string()));
            words.extend(score.label.clone());
        }
        EventBody::Log(log) => words.extend(log.level.clone().into_iter().chain([log.message.clone()])),
        EventBody::Unknown { data, .. } => words.push(data.to_string()),
        _ => {}
    }
    words.0
}

/// Says what went to a model and what it answered.
fn said(body: &EventBody) -> Option<String> {
    match body {
        EventBody::StepStarted(step) if step.kind == StepKind::Llm => step.input.as_ref().map(given),
        EventBody::LlmCalled(call) if call.error.is_none() => call.output.as_ref().map(given),
        _ => None,
    }
}

fn given(content: &JsonText) -> String {
    quoted(&content.value())
}

fn quoted(content: &Json) -> String {
    let gist = gist(content);
    if matches!(content, Json::String(_) | Json::Array(_)) { format!("“{gist}”") } else { gist }
}

/// Says why a step failed, or at least how it ended.
fn error(error: Option<&ErrorInfo>, status: StepStatus) -> Option<String> {
    error.map(|error| if says_nothing(error) { status.to_string() } else { error_text(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_waits_for_is_said_with_the_question() {
        let said = |reason: &str, payload| {
            let waiting = Waiting { reason: Some(reason.to_owned()), payload: Some(payload) };
            fitted(&detail(&EventBody::Waiting(waiting)), 80)
        };
        insta::assert_snapshot!(said("approval", serde_json::json!({"refund_usd": 40})), @r#"approval  {"refund_usd":40}"#);
        insta::assert_snapshot!(said("paused", serde_json::json!({"request": "01KE9"})), @"paused");
    }

    #[test]
    fn where_there_is_little_room_texts_are_cut_and_numbers_stay() {
        let text = |text: &str| Word::Text(text.to_owned());
        let fact = |text: &str| Word::Fact(text.to_owned());
        let words = [text("gpt-4o-mini-2024-07-18"), fact("96+7"), fact("$0.000019"), fact("127ms"), text("“Sunny.”")];
        let rows = [80, 60, 40, 30, 24, 10].map(|room| fitted(&words, room));
        insta::assert_snapshot!(rows.join("\n"), @r"
        gpt-4o-mini-2024-07-18  96+7  $0.000019  127ms  “Sunny.”
        gpt-4o-mini-2024-07-18  96+7  $0.000019  127ms  “Sunny.”
        gpt-4o-mini-202…  96+7  $0.000019  127ms
        gpt-4…  96+7  $0.000019  127ms
        96+7  $0.000019  127ms
        96+7  $0.…
        ");
    }
}
