//! `runspan list`: the runs of a store.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use runspan::model::{NanoUsd, RunId, RunKind, RunStatus, UnixNanos};
use runspan::store::{Listed, ListedRun, Query, RunReader, Sort};

use super::output::{DIM, Look, RED, YELLOW, count, money, run_status};
use super::table::{Cell, Column, Table};
use super::time::{When, age, parse_when, whole_duration};
use super::{Done, Format, Session, Stop};

/// From this width on, ids are shown whole.
const WIDE: usize = 140;
/// Shorter beginnings of ids would soon be those of other runs: ten characters are the time, two are random.
pub const MIN_PREFIX: usize = 12;

/// What `list` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan list --status error --since 24h
  runspan list --agent-id code-reviewer --sort cost --limit 10
  runspan list --json | jq '.[] | select(.cost_usd > 0.1).run_id'")]
pub struct Args {
    /// Only agents, or only workflows
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Option<RunKind>,
    /// Only runs of this agent
    #[arg(long, value_name = "NAME")]
    agent_id: Option<String>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    workflow_id: Option<String>,
    /// Only runs of this status; completed, failed and pending are understood too
    #[arg(long, value_name = "STATUS", value_parser = statuses())]
    status: Option<RunStatus>,
    /// Only runs of this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only runs that used this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only runs that began at or after this time: RFC 3339, or 90s, 15m, 2h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    since: Option<When>,
    /// Only runs that began before this time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<When>,
    /// Only runs that cost at least this many dollars
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    min_cost: Option<NanoUsd>,
    /// The order: newest, dearest, longest or most tokens first
    #[arg(long, value_name = "ORDER", default_value = "started", value_parser = orders())]
    sort: Sort,
    /// How many at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

fn kinds() -> impl TypedValueParser<Value = RunKind> {
    PossibleValuesParser::new(RunKind::ALL.iter().map(|kind| kind.as_str())).try_map(|word| word.parse::<RunKind>())
}

fn statuses() -> impl TypedValueParser<Value = RunStatus> {
    let words = RunStatus::ALL.iter().map(|status| {
        let value = PossibleValue::new(status.as_str());
        match status {
            RunStatus::Success => value.alias("completed"),
            RunStatus::Error => value.alias("failed"),
            RunStatus::Running => value.alias("pending"),
            _ => value,
        }
    });
    PossibleValuesParser::new(words).try_map(|word| word.parse::<RunStatus>())
}

fn orders() -> impl TypedValueParser<Value = Sort> {
    PossibleValuesParser::new(["started", "cost", "duration", "tokens"]).map(|word| match word.as_str() {
        "cost" => Sort::Cost,
        "duration" => Sort::Duration,
        "tokens" => Sort::Tokens,
        _ => Sort::Started,
    })
}

fn parse_usd(text: &str) -> Result<NanoUsd, String> {
    let usd: f64 = text.trim_start_matches('$').parse().map_err(|_| "expected dollars, such as 0.25".to_owned())?;
    NanoUsd::from_usd(usd).filter(|amount| amount.0 >= 0).ok_or_else(|| "expected dollars, such as 0.25".to_owned())
}

impl Args {
    /// Returns what is asked for.
    pub fn query(&self, now: UnixNanos) -> Query {
        Query {
            kind: self.kind,
            agent_id: self.agent_id.clone(),
            workflow_id: self.workflow_id.clone(),
            status: self.status,
            session_id: self.session.clone(),
            model: self.model.clone(),
            since: self.since.map(|when| when.resolve(now)),
            until: self.until.map(|when| when.resolve(now)),
            min_cost: self.min_cost,
            sort: self.sort,
            limit: self.limit,
        }
    }
}

/// Prints the runs.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let query = args.query(session.now);
    let runs = match session.open()? {
        Some(reader) => reader.list_runs(&query).map_err(Stop::from)?,
        None => Vec::new(),
    };
    match session.format {
        Format::Table if runs.is_empty() => {}
        Format::Table => session.print(&render(&runs, session.now, session.look))?,
        Format::Json | Format::Yaml => session.print_data(&runs)?,
    }
    if runs.is_empty() {
        let plain = Query { limit: query.limit, sort: query.sort, ..Query::default() };
        if query == plain {
            session.hint("no runs yet; `runspan demo` records a few to look at");
        } else {
            session.hint("no run is like that; `runspan list` shows the newest of all");
        }
    }
    Ok(())
}

/// Draws the table.
fn render(runs: &[Listed], now: UnixNanos, look: Look) -> String {
    let id_columns = if look.width >= WIDE { 26 } else { unique_prefix(runs) };
    let mut table = Table::new(&[
        Column::new("RUN", 0),
        Column::new("KIND", 8),
        Column::new("NAME", 0).shrinks_to(12),
        Column::new("STATUS", 0),
        Column::new("AGE", 3).right(),
        Column::new("TIME", 2).right(),
        Column::new("STEPS", 7).right(),
        Column::new("TOKENS", 6).right(),
        Column::new("COST", 1).right(),
        Column::new("MODEL", 9).shrinks_to(8),
        Column::new("OPEN STEP", 5).shrinks_to(10),
    ]);
    for run in runs {
        table.row(match run {
            Listed::Run(run) => row(run, id_columns, now),
            Listed::Damaged(run) => vec![
                Cell::new(short(run.run_id, id_columns)),
                Cell::default(),
                Cell::new(&run.error).style(DIM),
                Cell::new("! damaged").style(RED),
            ],
        });
    }
    table.render(look)
}

fn row(run: &ListedRun, id_columns: usize, now: UnixNanos) -> Vec<Cell> {
    let summary = &run.summary;
    let (sign, style) = run_status(summary.status);
    let time = match summary.duration_ms {
        Some(ms) => whole_duration(ms),
        None if summary.status.is_open() => whole_duration(now.millis_since(summary.started_at)),
        None => String::new(),
    };
    // A sum that is not complete is a lower bound.
    let bound = if summary.unpriced_steps > 0 { "≥" } else { "" };
    let cost = summary.cost_usd.map(|cost| format!("{bound}{}", money(cost))).unwrap_or_default();
    let total = summary.tokens.and_then(|tokens| tokens.with_total().total);
    let open = match run.open_steps.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        // The last one begun is the innermost.
        [others @ .., last] => format!("{last} (+{})", others.len()),
    };
    vec![
        Cell::new(short(summary.run_id, id_columns)),
        Cell::new(summary.kind.as_str()).style(DIM),
        Cell::new(summary.name()),
        Cell::new(format!("{sign} {}", summary.status)).style(style),
        Cell::new(age(now, summary.started_at)),
        Cell::new(time),
        Cell::new(summary.steps_total.to_string()),
        Cell::new(total.map(count).unwrap_or_default()),
        Cell::new(cost),
        Cell::new(summary.model.as_deref().unwrap_or_default()).style(DIM),
        Cell::new(open).style(YELLOW),
    ]
}

fn short(run: RunId, columns: usize) -> String {
    let mut text = run.to_string();
    text.truncate(columns);
    text
}

/// Returns how many characters tell the listed runs apart.
fn unique_prefix(runs: &[Listed]) -> usize {
    let mut ids: Vec<String> = runs
        .iter()
        .map(|run| match run {
            Listed::Run(run) => run.summary.run_id.to_string(),
            Listed::Damaged(run) => run.run_id.to_string(),
        })
        .collect();
    ids.sort_unstable();
    let shared = ids.windows(2).map(|pair| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count());
    shared.max().map_or(MIN_PREFIX, |shared| (shared + 1).clamp(MIN_PREFIX, 26))
}
