//! What is said at the end: what the run came to, and how to look at it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use runspan::conventions::names;
use runspan::model::run::ChildStep;
use runspan::model::{RunId, RunStatus, RunSummary, StepStatus, UnixNanos};
use runspan::store::family::Tree;
use runspan::store::files::FilesReader;
use runspan::store::{Query, RunReader};

use crate::cli::output::{BOLD, CYAN, DIM, count, counted, money, run_status};
use crate::cli::{Session, open_store};

/// What stands in the log of a run whose command told nothing of what it did. `left`: variables that were left as they are,
/// by which it may have made calls.
pub fn why_empty(left: &[&str]) -> String {
    let left = match left {
        [] => String::new(),
        [variable] => format!(" ({variable} was left as it is)"),
        variables => format!(" ({} were left as they are)", variables.join(", ")),
    };
    format!("the command sent no OpenTelemetry spans and made no model calls that were seen{left}")
}

/// What to do about it.
const WHAT_TO_DO: &str = "`runspan exec --help` says what is";

/// Says in one line what a run came to; in two where it is empty, but for calls that were refused.
pub fn say(store: &Path, run: RunId, refused: u64, why_empty: &str, session: &mut Session<'_>) {
    let look = session.look;
    let told = open_store(store).and_then(|reader| Ok((reader.get_run(run)?, below(&reader, run))));
    let (summary, below) = match told {
        Ok(told) => told,
        Err(error) => return super::warn(session, &format!("the run cannot be read: {error}")),
    };
    let command = format!("runspan get {run}{}", session.store_flag());
    let counts = look.paint(BOLD, &counts(&summary, &below)).into_owned();
    let (_, style) = run_status(summary.status);
    let status = match summary.status {
        RunStatus::Success => String::new(),
        status => format!("{}: ", look.paint(style, status.as_str())),
    };
    let label = look.paint(DIM, "runspan:").into_owned();
    let command = look.paint(CYAN, &command).into_owned();
    session.remark(&format!("{label} {status}{counts} · {command}"));
    if summary.steps_total <= 1 && below.is_empty() && refused == 0 {
        session.remark(&format!("{label} it is empty: {why_empty}; {WHAT_TO_DO}"));
    }
}

/// Says which calls of a run, and of those below it, have no price.
pub fn unpriced(store: &Path, run: RunId) -> Option<String> {
    let reader = open_store(store).ok()?;
    let tree = Tree::read(&reader, run).ok()?;
    let (mut calls, mut models) = (0, Vec::new());
    for run in tree.from(run).filter(|run| run.unpriced_steps > 0) {
        calls += run.unpriced_steps;
        models.extend(run.models.iter().chain(run.model.iter().filter(|_| run.models.is_empty())).cloned());
    }
    let models = if models.len() == 1 { format!(" of {}", models.concat()) } else { String::new() };
    (calls > 0).then(|| format!("{} without a price{models}", counted(calls, "call")))
}

/// Tells whether the command began runs itself.
pub fn has_runs_below(store: &Path, run: RunId) -> bool {
    open_store(store).is_ok_and(|reader| !below(&reader, run).is_empty())
}

/// When a run was: from its start to its end, if it has one.
pub type During = (UnixNanos, Option<UnixNanos>);

/// The runs that are begun below one, and when they were.
pub struct Below {
    store: PathBuf,
    run: RunId,
    /// Those that were read: their logs may be long.
    known: Mutex<HashMap<RunId, During>>,
}

impl Below {
    pub fn new(store: PathBuf, run: RunId) -> Self {
        Self { store, run, known: Mutex::default() }
    }

    /// Returns when each was.
    pub fn times(&self) -> Vec<During> {
        let Ok(reader) = FilesReader::open(&self.store) else { return Vec::new() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = |run: &RunSummary| match known.get(&run.run_id) {
            Some(during) if during.1.is_some() => *during,
            begun => {
                // One whose process has died is over, though nobody has said so yet.
                let live = run.status.is_open().then(|| reader.get_run(run.run_id).ok()).flatten();
                let run = live.as_ref().unwrap_or(run);
                match begun {
                    Some(during) if run.status.is_open() => *during,
                    _ => {
                        let during = during(&reader, run);
                        known.insert(run.run_id, during);
                        during
                    }
                }
            }
        };
        // Asked with every few calls: what the command's own run has used so far is not read for it.
        let since = Query { since: Some(self.run.time()), ..Query::default() };
        let tree = Tree::of(reader.list_summed_up(&since).unwrap_or_default());
        tree.from(self.run).filter(|below| below.run_id != self.run).map(&mut times).collect()
    }
}

/// Reads when a run was, by its topmost step: its metadata knows milliseconds, and calls may be nearer to it than one.
fn during(reader: &FilesReader, run: &RunSummary) -> During {
    let root = reader.get_outline(run.run_id).ok().and_then(|steps| steps.into_iter().next());
    let start = root.as_ref().map_or(run.started_at, |root| root.started_at);
    if run.status.is_open() {
        return (start, None);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast to an integer saturates")]
    let end = |ms: f64| UnixNanos(start.0.saturating_add((ms * 1e6).round() as u64));
    (start, root.and_then(|root| root.duration_ms).map(end).or(run.completed_at))
}

/// Returns the runs that were begun below one: by the command itself, with the library, and by what that began. What cannot
/// be read is not there.
fn below(reader: &FilesReader, run: RunId) -> Vec<RunSummary> {
    let tree = Tree::read(reader, run).unwrap_or_default();
    tree.from(run).filter(|below| below.run_id != run).cloned().collect()
}

/// Returns what runs add up to: `2 model calls, 1 tool call, 1,310 tokens, $0.0042`.
fn counts(own: &RunSummary, below: &[RunSummary]) -> String {
    let all = || below.iter().chain([own]);
    let sum = |of: &dyn Fn(&RunSummary) -> u64| all().map(of).sum::<u64>();
    let some = |number: u64, one: &str, many: &str| {
        (number > 0).then(|| format!("{} {}", count(number), if number == 1 { one } else { many }))
    };
    let total = |run: &RunSummary| run.tokens.and_then(|tokens| tokens.with_total().total);
    let tokens = all().any(|run| total(run).is_some()).then(|| sum(&|run| total(run).unwrap_or_default()));
    let was_stopped = own.error.as_ref().is_some_and(|error| error.kind.as_deref() == Some(names::BUDGET_EXCEEDED));
    // The command is counted where no step below it failed.
    let has_failed = |step: &ChildStep| !matches!(step.status, StepStatus::Success | StepStatus::Running);
    let is_counted = || !own.steps.iter().flatten().any(has_failed);
    let is_own = own.steps_total == 1 || (was_stopped && is_counted());
    let unpriced = sum(&|run| run.unpriced_steps);
    let cost = all().filter_map(|run| run.cost_usd).reduce(|sum, cost| sum + cost);
    let parts = [
        some(below.len() as u64, "run of its own", "runs of its own"),
        Some(
            some(sum(&|run| run.llm_calls), "model call", "model calls").unwrap_or_else(|| "no model calls".to_owned()),
        ),
        some(sum(&|run| run.tool_calls), "tool call", "tool calls"),
        // That the command itself failed is its status, and that it was stopped.
        some(sum(&|run| run.errors).saturating_sub(u64::from(is_own)), "failure", "failures"),
        tokens.map(|tokens| format!("{} tokens", count(tokens))),
        cost.map(|cost| if unpriced > 0 { format!("{} and {unpriced} unpriced", money(cost)) } else { money(cost) }),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
