//! The family of a run: those above it and below, as a tree or as a list.

use runspan::control;
use runspan::model::{
    CostSource, NanoUsd, RunId, RunKind, RunStatus, RunSummary, SpanId, StepKind, StepStatus, StepView, Tokens,
    UnixNanos,
};
use runspan::store::files::FilesReader;
use runspan::store::files::family::{Family, Member};
use serde::Serialize;

use super::list::MIN_PREFIX;
use super::output::{BOLD, DIM, count, counted, money};
use super::tree::{self, TimeLine};
use super::{Done, Format, Session};

/// Runs of a family that are shown.
const LIMIT: usize = 1_000;

/// A family as data.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// The run that was asked for.
    run_id: RunId,
    /// The topmost one says that it was started by this run, which is not in the store.
    missing_parent: Option<RunId>,
    left_out: usize,
    /// What all that are shown cost.
    cost_usd: Option<NanoUsd>,
    runs: Vec<Row<'a>>,
}

/// One run of it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    run_id: RunId,
    parent_run_id: Option<RunId>,
    depth: usize,
    kind: RunKind,
    name: &'a str,
    status: RunStatus,
    started_at: UnixNanos,
    duration_ms: Option<u64>,
    tokens: Option<Tokens>,
    cost_usd: Option<NanoUsd>,
    cost_source: Option<CostSource>,
    steps_total: u64,
    errors: u64,
    open_steps: &'a [String],
}

/// Prints the family of a run.
pub fn show(reader: &FilesReader, run: RunId, session: &mut Session<'_>) -> Done {
    let family = reader.family(run, LIMIT)?;
    if session.format != Format::Table {
        let (runs, cost_usd) = (family.members.iter().map(row).collect(), cost_of(&family));
        let Family { missing_parent, left_out, .. } = family;
        return session.print_data(&Answer { run_id: run, missing_parent, left_out, cost_usd, runs });
    }
    let text = render(&family, run, reader, session);
    session.print(&text)
}

fn row(member: &Member) -> Row<'_> {
    let run = &member.run.summary;
    Row {
        run_id: run.run_id,
        parent_run_id: run.parent_run_id,
        depth: member.depth,
        kind: run.kind,
        name: run.name(),
        status: run.status,
        started_at: run.started_at,
        duration_ms: run.duration_ms,
        tokens: run.tokens,
        cost_usd: run.cost_usd,
        cost_source: run.cost_source,
        steps_total: run.steps_total,
        errors: run.errors,
        open_steps: &member.run.open_steps,
    }
}

/// Adds up what is known; `None` where nothing is.
fn cost_of(family: &Family) -> Option<NanoUsd> {
    family.members.iter().filter_map(|member| member.run.summary.cost_usd).reduce(|sum, cost| sum + cost)
}

fn render(family: &Family, asked: RunId, reader: &FilesReader, session: &Session<'_>) -> String {
    let (look, runs) = (session.look, &family.members);
    let is_held = |run: &RunSummary| control::held_by(reader, run).is_some();
    let views = runs.iter().map(|member| &member.run.summary).map(|run| view(run, asked, is_held(run)));
    let views: Vec<StepView> = views.collect();
    let from = views.iter().map(|view| view.started_at).min().unwrap_or(session.now);
    let end = |view: &StepView| match view.duration_ms {
        Some(ms) => UnixNanos(view.started_at.0.saturating_add((ms * 1e6) as u64)),
        None => session.now,
    };
    let to = views.iter().map(end).max().unwrap_or(from).max(from);
    let mut out = tree::render_of("RUN", &views, TimeLine { from, to }, look);
    let cost = cost_of(family).map(|cost| format!(", {}", money(cost))).unwrap_or_default();
    out.push_str(&format!("\n{}\n", look.paint(BOLD, &format!("{}{cost}", counted(runs.len() as u64, "run")))));
    if let Some(parent) = family.missing_parent {
        let text = format!("the topmost was started by run {parent}, which is not in this store");
        out.push_str(&format!("{}\n", look.paint(DIM, &text)));
    }
    if family.left_out > 0 {
        let text = format!("and {} more that are not shown", count(family.left_out as u64));
        out.push_str(&format!("{}\n", look.paint(DIM, &text)));
    }
    out
}

/// Shows a run as the tree shows steps.
fn view(run: &RunSummary, asked: RunId, is_held: bool) -> StepView {
    let id: String = run.run_id.to_string().chars().take(MIN_PREFIX).collect();
    let waits = if run.status == RunStatus::Waiting { " waiting" } else { "" };
    let held = if is_held { " held" } else { "" };
    let mark = if run.run_id == asked { " ←" } else { "" };
    StepView {
        step_id: format!("{} {id}{waits}{held}{mark}", run.name()),
        span_id: stand_in(run.run_id),
        parent_span_id: run.parent_run_id.map(stand_in),
        kind: match run.kind {
            RunKind::Agent => StepKind::Agent,
            RunKind::Workflow => StepKind::Workflow,
        },
        name: run.name().to_owned(),
        agent_id: run.agent_id.clone(),
        status: match run.status {
            RunStatus::Running | RunStatus::Waiting => StepStatus::Running,
            RunStatus::Success => StepStatus::Success,
            RunStatus::Error => StepStatus::Error,
            RunStatus::Timeout => StepStatus::Timeout,
            RunStatus::Cancelled => StepStatus::Cancelled,
            RunStatus::Crashed => StepStatus::Crashed,
        },
        started_at: run.started_at,
        duration_ms: run.duration_ms.map(|ms| ms as f64),
        provider: run.provider.clone(),
        model: None,
        tokens: run.tokens,
        cost_usd: run.cost_usd,
        cost_source: run.cost_source,
        error: run.error.clone(),
        input: None,
        output: None,
        duplicate_of: None,
    }
}

/// Names a run in a tree of spans: by the random bits of its id.
fn stand_in(run: RunId) -> SpanId {
    let mut bits = [0; 8];
    bits.copy_from_slice(&run.0[8..]);
    SpanId(bits)
}
