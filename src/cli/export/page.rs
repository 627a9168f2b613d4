//! A run as a page: what it was and took, its steps in time, and what was said in each.

use std::collections::HashMap;

use runspan::model::{EventBody, RunId, RunStatus, RunSummary, StepKind, StepStatus, StepView, UnixNanos};
use runspan::store::RunReader;
use serde_json::Value as Json;

use super::super::content::{Message, Part, Said, conversation, plain};
use super::super::output::{count, error_text, money, step_status, tokens};
use super::super::time::{calendar, duration, whole_duration};
use super::super::tree::{Place, arrange};
use super::super::{Stop, get, html, output};
use html::text;

/// Steps that are drawn; a browser takes no more with ease.
const MAX_STEPS: usize = 3_000;
/// Of one text so many bytes are shown.
const MAX_TEXT: usize = 100_000;

/// Draws a run.
pub fn of(reader: &impl RunReader, run: RunId, now: UnixNanos) -> Result<String, Stop> {
    let (summary, steps) = (reader.get_run(run)?, reader.get_steps(run)?);
    let instructions = reader.get_events(run, 0)?.into_iter().filter_map(|event| match event.body {
        EventBody::LlmCalled(call) => Some((event.step_id?, call.system_prompt?.value())),
        _ => None,
    });
    let instructions = instructions.collect();
    let page = Page { summary: &summary, steps: &steps, places: arrange(&steps), instructions, now };
    Ok(html::page(&format!("{} {}", summary.name(), summary.status), &page.body()))
}

struct Page<'a> {
    summary: &'a RunSummary,
    steps: &'a [StepView],
    places: Vec<Place>,
    /// Standing instructions by step.
    instructions: HashMap<String, Json>,
    now: UnixNanos,
}

impl Page<'_> {
    fn body(&self) -> String {
        let mut out = self.head();
        if self.places.len() > MAX_STEPS {
            let total = count(self.places.len() as u64);
            out.push_str(&format!("<p class=\"warn\">The first {MAX_STEPS} of {total} steps are shown.</p>\n"));
        }
        self.waterfall(&mut out);
        out.push_str("<h2>What was said and done</h2>\n");
        let mut before = Said::default();
        for place in self.places.iter().take(MAX_STEPS) {
            self.step(&mut out, place.step, &mut before);
        }
        out
    }

    fn head(&self) -> String {
        let run = self.summary;
        let class = match run.status {
            RunStatus::Success => "good",
            RunStatus::Running | RunStatus::Waiting | RunStatus::Cancelled => "warn",
            _ => "bad",
        };
        let mut out = format!(
            "<header><h1>{} <span class=\"{class}\">{} {}</span></h1>\n<div class=\"soft\">{} <code>{}</code></div>\n",
            text(run.name()),
            output::run_status(run.status).0,
            run.status,
            run.kind,
            run.run_id
        );
        let took = run.duration_ms.map_or_else(
            || format!("{} so far", whole_duration(self.now.millis_since(run.started_at))),
            whole_duration,
        );
        let models = if run.models.is_empty() { run.model.clone() } else { Some(run.models.join(", ")) };
        let facts = [
            ("started", Some(calendar(run.started_at))),
            ("took", Some(took)),
            ("steps", Some(get::work(run))),
            ("tokens", run.tokens.map(get::tokens_in_words)),
            ("cost", get::cost_in_words(run)),
            ("model", models),
            ("session", run.session_id.clone()),
            ("user", run.user_id.clone()),
            ("tags", Some(run.tags.join(", ")).filter(|tags| !tags.is_empty())),
            ("trace", Some(run.trace_id.to_string())),
        ];
        out.push_str("<dl class=\"facts\">\n");
        for (name, value) in facts {
            if let Some(value) = value {
                out.push_str(&format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", text(&value)));
            }
        }
        out.push_str("</dl>\n");
        if let Some(error) = &run.error {
            out.push_str(&format!("<div class=\"error\">{}</div>\n", text(&error_text(error))));
        }
        out.push_str("</header>\n");
        out
    }

    fn waterfall(&self, out: &mut String) {
        let line = get::time_line(self.summary, self.steps, self.now);
        let length = (line.to.0.saturating_sub(line.from.0)).max(1) as f64;
        out.push_str(
            "<h2>Steps</h2>\n<table class=\"tree\">\n<tr><th>step</th><th class=\"time\"></th><th class=\"n\">tokens</th>\
             <th class=\"n\">cost</th><th class=\"n\">time</th></tr>\n",
        );
        for place in self.places.iter().take(MAX_STEPS) {
            let step = &self.steps[place.step];
            let (sign, _) = step_status(step.status);
            let left = step.started_at.0.saturating_sub(line.from.0) as f64 / length * 100.0;
            let took = step.duration_ms.map_or(100.0 - left, |ms| ms * 1e6 / length * 100.0);
            out.push_str(&format!(
                "<tr><td style=\"padding-left:{indent}rem\"><a href=\"#s{at}\"><span class=\"{sign_class}\">{sign}</span> \
                 <span class=\"kind {kind}\">{kind}</span> {name}</a></td><td><div class=\"bar\"><i class=\"{bar}\" \
                 style=\"left:{left:.2}%;width:{width:.2}%\"></i></div></td><td class=\"n\">{tokens}</td>\
                 <td class=\"n\">{cost}</td><td class=\"n\">{time}</td></tr>\n",
                indent = place.depth.min(12) as f64 * 1.2 + 0.5,
                at = place.step,
                sign_class = class_of(step.status),
                kind = step.kind,
                name = text(&step.step_id),
                bar = if class_of(step.status) == "bad" { "failed" } else { step.kind.as_str() },
                left = left.clamp(0.0, 100.0),
                width = took.clamp(0.0, 100.0 - left.clamp(0.0, 100.0)),
                tokens = tokens(step.tokens),
                cost = step.cost_usd.map(money).unwrap_or_default(),
                time = step.duration_ms.map(duration).unwrap_or_default(),
            ));
        }
        out.push_str("</table>\n");
    }

    fn step<'s>(&'s self, out: &mut String, at: usize, before: &mut Said<'s>) {
        let step = &self.steps[at];
        let kind = step.kind;
        out.push_str(&format!(
            "<section class=\"step\" id=\"s{at}\"><h3><span class=\"{}\">{}</span> <span class=\"kind {kind}\">{kind}</span> {}</h3>\n",
            class_of(step.status),
            step_status(step.status).0,
            text(&step.step_id)
        ));
        let facts: Vec<String> = [
            step.provider.clone(),
            step.model.clone(),
            step.duration_ms.map(duration),
            Some(tokens(step.tokens)).filter(|tokens| !tokens.is_empty()).map(|tokens| format!("{tokens} tokens")),
            step.cost_usd.map(money),
            step.duplicate_of.as_ref().map(|of| format!("the same call as {of}, counted there")),
        ]
        .into_iter()
        .flatten()
        .collect();
        out.push_str(&format!("<div class=\"soft\">{}</div>\n", text(&facts.join(" · "))));
        if let Some(error) = &step.error {
            out.push_str(&format!("<div class=\"error\">{}</div>\n", text(&error_text(error))));
        }
        if let Some(instructions) = self.instructions.get(&step.step_id) {
            let shown = text(&held(&super::super::content::readable(instructions)));
            out.push_str(&format!("<details><summary>instructions</summary><pre>{shown}</pre></details>\n"));
        }
        if kind == StepKind::Llm {
            self.said(out, step, before);
        } else {
            let names = if kind == StepKind::Tool { ("arguments", "result") } else { ("input", "output") };
            content(out, names.0, step.input.as_ref());
            content(out, names.1, step.output.as_ref());
        }
        out.push_str("</section>\n");
    }

    /// Draws what was said in a model call. What an earlier call of the same agent has shown already is not shown again: each
    /// call repeats the whole conversation.
    fn said<'s>(&self, out: &mut String, step: &'s StepView, before: &mut Said<'s>) {
        let agent = step.agent_id.as_deref();
        let mut told = Vec::new();
        match step.input.as_ref().and_then(conversation) {
            Some(messages) => {
                let (known, words) = before.before(agent, &messages);
                if let Some(words) = words {
                    out.push_str(&format!("<div class=\"soft\">{}</div>\n", text(&words)));
                }
                messages.iter().skip(known).for_each(|one| message(out, one));
                told = messages;
            }
            None => content(out, "input", step.input.as_ref()),
        }
        match step.output.as_ref().and_then(conversation) {
            Some(messages) => {
                messages.iter().for_each(|one| message(out, one));
                told.extend(messages);
            }
            None => content(out, "output", step.output.as_ref()),
        }
        before.tell(agent, &step.step_id, told);
    }
}

fn class_of(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Success => "good",
        StepStatus::Running | StepStatus::Cancelled => "warn",
        StepStatus::Error | StepStatus::Timeout | StepStatus::Crashed => "bad",
    }
}

/// Cuts a text that is too long to be read.
fn held(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}\n… {} more bytes", &text[..end], text.len() - end)
}

fn content(out: &mut String, name: &str, content: Option<&Json>) {
    let Some(content) = content else { return };
    if let Some(messages) = conversation(content) {
        out.push_str(&format!("<div class=\"role\">{name}</div>\n"));
        return messages.iter().for_each(|one| message(out, one));
    }
    out.push_str(&format!("<div class=\"role\">{name}</div><pre>{}</pre>\n", text(&held(&plain(content)))));
}

fn message(out: &mut String, message: &Message) {
    // A class is one of ours, or none.
    let class = ["user", "assistant", "tool", "system"].into_iter().find(|role| *role == message.role).unwrap_or("");
    out.push_str(&format!("<div class=\"message {class}\"><div class=\"role\">{}</div>\n", text(&message.role)));
    for part in &message.parts {
        match part {
            Part::Text(said) => out.push_str(&format!("<pre class=\"said\">{}</pre>\n", text(&held(said)))),
            Part::Reasoning { text: said, .. } => {
                let said = if said.is_empty() { "kept secret" } else { said };
                let said = text(&held(said));
                out.push_str(&format!("<details><summary>reasoning</summary><pre>{said}</pre></details>\n"));
            }
            Part::ToolCall { name, arguments, .. } => out.push_str(&format!(
                "<div><span class=\"kind tool\">calls</span> <code>{}</code><pre>{}</pre></div>\n",
                text(name),
                text(&held(&plain(arguments)))
            )),
            Part::ToolResult { result, .. } => out.push_str(&format!(
                "<div><span class=\"kind tool\">answers</span><pre>{}</pre></div>\n",
                text(&held(&plain(result)))
            )),
            Part::Other(other) => out.push_str(&format!("<pre>{}</pre>\n", text(&held(&plain(other))))),
        }
    }
    out.push_str("</div>\n");
}
