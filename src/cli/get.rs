//! `runspan get`: one run, as a tree of steps or as its log.

use runspan::control;
use runspan::model::event::Waiting;
use runspan::model::run::ArtifactContent;
use runspan::model::{RunStatus, RunSummary, StepView, Tokens, UnixNanos};
use runspan::recovery;
use runspan::store::RunReader;
use runspan::store::assembly::RunState;
use runspan::store::files::FilesReader;
use serde_json::Value as Json;

use super::output::{
    BOLD, DIM, Look, RED, YELLOW, count, counted, cut, error_text, gist, money, run_status, safe, says_nothing,
};
use super::time::{age, calendar, whole_duration};
use super::tree::{self, TimeLine};
use super::{Done, Format, Session, Stop, events, family};

/// What `get` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan get latest
  runspan get 01KE9BZH80BG --events
  runspan get 01KE9BZH80BG --tree
  runspan get latest --json | jq '.steps[] | {step_id, cost_usd}'")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
    /// The run's log instead of its steps
    #[arg(long)]
    events: bool,
    /// The runs that it belongs to: those that started it, and those that they and it have started
    #[arg(long, conflicts_with = "events")]
    tree: bool,
}

/// Prints the run.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.id)?;
    if args.tree {
        return family::show(&reader, recovery::resolve(&reader, &args.id)?, session);
    }
    show(&reader, args, session)
}

fn show(reader: &FilesReader, args: &Args, session: &mut Session<'_>) -> Done {
    let run = recovery::resolve(reader, &args.id)?;
    if args.events {
        let log = reader.get_events(run, 0)?;
        if session.format != Format::Table {
            return session.print_data(&log);
        }
        let start = log.first().map_or(session.now, |event| event.timestamp);
        let look = session.look;
        return session.print(&log.iter().map(|event| events::line(event, start, look)).collect::<String>());
    }
    let summary = reader.get_run(run)?;
    if session.format != Format::Table {
        let mut value = as_json(&summary, reader.get_steps(run)?)?;
        if let (Some((waiting, _)), Some(fields)) = (waits_for(reader, &summary)?, value.as_object_mut()) {
            fields.insert("waiting".to_owned(), serde_json::to_value(waiting)?);
        }
        if let (Some(by), Some(fields)) = (control::held_by(reader, &summary), value.as_object_mut()) {
            fields.insert("held_by".to_owned(), by.to_string().into());
        }
        return session.print_data(&value);
    }
    // What is known at once is shown at once: the log of a long run takes a while.
    session.print(&header(&summary, session.now, session.look))?;
    session.flush()?;
    if let Some((waiting, since)) = waits_for(reader, &summary)? {
        let reason = waiting.reason.as_deref().unwrap_or("an answer").to_owned();
        let asked = waiting.payload.as_ref().filter(|_| reason != Waiting::PAUSED);
        let asked = asked.map(|payload| format!(" {}", gist(payload))).unwrap_or_default();
        let mut out = String::new();
        field(&mut out, "waits", &format!("{reason}{asked}"), YELLOW, session.look);
        if let Some(since) = since {
            field(&mut out, "since", &ago(since, session.now), Default::default(), session.look);
        }
        session.print(&out)?;
    }
    if let Some(by) = control::held_by(reader, &summary) {
        let mut out = String::new();
        field(&mut out, "held", &format!("with run {by}, which is paused"), YELLOW, session.look);
        session.print(&out)?;
    }
    session.print(&below(&summary, &reader.get_outline(run)?, session.now, session.look))
}

/// Returns what a run waits for, and since when.
fn waits_for(reader: &FilesReader, summary: &RunSummary) -> Result<Option<(Waiting, Option<UnixNanos>)>, Stop> {
    if summary.status != RunStatus::Waiting {
        return Ok(None);
    }
    let events = reader.get_events(summary.run_id, 0)?;
    let state = RunState::read(summary.run_id, &events);
    Ok(state.waits_for(&events).cloned().map(|waiting| (waiting, state.waits_since())))
}

/// Joins a run's fields and its steps, as the contract has it.
pub fn as_json(summary: &RunSummary, steps: Vec<StepView>) -> Result<Json, Stop> {
    let mut value = serde_json::to_value(RunSummary { steps: None, ..summary.clone() })?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("steps".to_owned(), serde_json::to_value(steps)?);
    }
    Ok(value)
}

/// Draws a run: what it was and what it took, then its steps.
pub fn render(summary: &RunSummary, steps: &[StepView], now: UnixNanos, look: Look) -> String {
    header(summary, now, look) + &below(summary, steps, now, look)
}

fn below(summary: &RunSummary, steps: &[StepView], now: UnixNanos, look: Look) -> String {
    let mut out = String::new();
    for (name, content) in contents(steps) {
        field(&mut out, name, &gist(content), Default::default(), look);
    }
    out.push('\n');
    out.push_str(&tree::render(steps, time_line(summary, steps, now), look));
    out
}

fn header(summary: &RunSummary, now: UnixNanos, look: Look) -> String {
    let (sign, style) = run_status(summary.status);
    let name = safe(summary.name());
    let status = format!("{sign} {}", summary.status);
    let mut out = format!("{}  {}\n", look.paint(BOLD, &name), look.paint(style, &status));
    out.push_str(&look.paint(DIM, &format!("{} {}", summary.kind, summary.run_id)));
    out.push('\n');
    field(&mut out, "started", &ago(summary.started_at, now), Default::default(), look);
    let took = match summary.duration_ms {
        Some(ms) => whole_duration(ms),
        None => format!("{} so far", whole_duration(now.millis_since(summary.started_at))),
    };
    let took = match summary.waited_ms {
        0 => took,
        waited => format!("{took}, {} of it waiting", whole_duration(waited)),
    };
    field(&mut out, "took", &took, Default::default(), look);
    field(&mut out, "steps", &work(summary), Default::default(), look);
    if let Some(tokens) = summary.tokens {
        field(&mut out, "tokens", &tokens_in_words(tokens), Default::default(), look);
    }
    if let Some(cost) = cost_in_words(summary) {
        field(&mut out, "cost", &cost, Default::default(), look);
    }
    if let Some(budget) = &summary.budget {
        // Unless another bound is there, nothing stops such a run.
        let is_blind = budget.cost_usd.is_some() && summary.unpriced_steps > 0;
        let (blind, style) =
            if is_blind { ("; calls without a price do not count in it", YELLOW) } else { ("", Default::default()) };
        field(&mut out, "budget", &format!("{budget}{blind}"), style, look);
    }
    let models = if summary.models.is_empty() { summary.model.clone() } else { Some(summary.models.join(", ")) };
    let optional = [
        ("model", models),
        ("session", summary.session_id.clone()),
        ("user", summary.user_id.clone()),
        ("parent", summary.parent_run_id.map(|run| run.to_string())),
        ("replays", summary.replay_of.map(|run| run.to_string())),
        ("tags", Some(summary.tags.join(", ")).filter(|tags| !tags.is_empty())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            field(&mut out, name, &value, Default::default(), look);
        }
    }
    for artifact in &summary.artifacts {
        let content = match artifact.content {
            Some(ArtifactContent::Nothing) => ", not kept",
            Some(ArtifactContent::Redacted) => ", redacted",
            None => "",
        };
        let shown = format!("{} ({} bytes{content})", artifact.name, artifact.bytes);
        field(&mut out, "artifact", &shown, Default::default(), look);
    }
    if let Some(total) = summary.artifacts_total {
        let left_out = count(total.saturating_sub(summary.artifacts.len() as u64));
        field(&mut out, "artifact", &format!("and {left_out} more: see `--events`"), Default::default(), look);
    }
    if summary.dropped > 0 {
        let lost = format!("{} records of this run were not kept", count(summary.dropped));
        field(&mut out, "dropped", &lost, YELLOW, look);
    }
    let cancelled = summary.status == RunStatus::Cancelled;
    if let Some(error) = summary.error.as_ref().filter(|error| !(cancelled && says_nothing(error))) {
        let place = error.step_id.as_ref().map(|step| format!(" (in {step})")).unwrap_or_default();
        field(&mut out, "error", &format!("{}{place}", error_text(error)), RED, look);
    }
    out
}

fn ago(then: UnixNanos, now: UnixNanos) -> String {
    format!("{}, {} ago", calendar(then), age(now, then))
}

fn field(out: &mut String, name: &str, value: &str, style: anstyle::Style, look: Look) {
    let value = safe(value);
    let shown = cut(&value, look.room().saturating_sub(10));
    out.push_str(&look.paint(DIM, &format!("{name:<8}")));
    out.push_str("  ");
    out.push_str(&look.paint(style, &shown));
    out.push('\n');
}

pub fn work(summary: &RunSummary) -> String {
    let parts = [(summary.llm_calls, "model call"), (summary.tool_calls, "tool call"), (summary.errors, "failure")];
    let parts: Vec<String> = parts.iter().filter(|part| part.0 > 0).map(|part| counted(part.0, part.1)).collect();
    let separator = if parts.is_empty() { "" } else { ": " };
    format!("{}{separator}{}", count(summary.steps_total), parts.join(", "))
}

/// `12,000 in (8,000 from cache), 900 out`.
pub fn tokens_in_words(tokens: Tokens) -> String {
    let part = |number: Option<u64>, word: &str| number.filter(|n| *n > 0).map(|n| format!("{} {word}", count(n)));
    let join = |parts: [Option<String>; 2]| {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let cached = join([part(tokens.cache_read, "from cache"), part(tokens.cache_write, "to cache")]);
    let reasoning = join([part(tokens.reasoning, "reasoning"), None]);
    let mut words = Vec::new();
    words.extend(tokens.prompt.map(|n| format!("{} in{cached}", count(n))));
    words.extend(tokens.completion.map(|n| format!("{} out{reasoning}", count(n))));
    if words.is_empty() {
        words.extend(tokens.total.map(|n| format!("{} in all", count(n))));
    }
    words.join(", ")
}

pub fn cost_in_words(summary: &RunSummary) -> Option<String> {
    let missing = match summary.unpriced_steps {
        0 => None,
        1 => Some("1 step without a price".to_owned()),
        n => Some(format!("{n} steps without a price")),
    };
    match (summary.cost_usd, missing) {
        (Some(cost), missing) => {
            let source = summary.cost_source.map(|source| format!(" {source}")).unwrap_or_default();
            let rest = missing.map(|missing| format!(", and {missing}")).unwrap_or_default();
            Some(format!("{}{source}{rest}", money(cost)))
        }
        (None, Some(missing)) => Some(format!("unknown: {missing}")),
        (None, None) => None,
    }
}

/// What went into the first step and what came out of it.
fn contents(steps: &[StepView]) -> impl Iterator<Item = (&'static str, &Json)> {
    let root = steps.first();
    let input = root.and_then(|root| root.input.as_ref()).map(|content| ("input", content));
    let output = root.and_then(|root| root.output.as_ref()).map(|content| ("output", content));
    input.into_iter().chain(output)
}

pub fn time_line(summary: &RunSummary, steps: &[StepView], now: UnixNanos) -> TimeLine {
    let from = summary.started_at;
    if summary.status.is_open() {
        return TimeLine { from, to: now.max(from) };
    }
    if let Some(to) = summary.completed_at {
        return TimeLine { from, to: to.max(from) };
    }
    let ends = steps.iter().map(|step| {
        let length = step.duration_ms.unwrap_or(0.0) * 1e6;
        UnixNanos(step.started_at.0.saturating_add(length as u64))
    });
    let to = ends.max().or(summary.completed_at).unwrap_or(from);
    TimeLine { from, to: to.max(from) }
}
