//! `runspan list`: the runs of a store.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use runspan::control;
use runspan::model::{RunId, UnixNanos};
use runspan::store::files::FilesReader;
use runspan::store::{Listed, ListedRun, Query, RunReader, Sort, StoreError};

use super::filters::Filters;
use super::numbers::whole;
use super::output::{DIM, Look, RED, YELLOW, count, money, run_status, safe};
use super::table::{Cell, Column, Table};
use super::time::{age, whole_duration};
use super::{CODE_USE, Done, Format, Session, Stop, open_store};

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
  runspan list --watch --limit 20
  runspan list --json | jq '.[] | select(.cost_usd > 0.1).run_id'")]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Keep the table on the terminal current, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Which runs, in which order, and how many.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    #[command(flatten)]
    filters: Filters,
    /// The order: newest, dearest, longest or most tokens first
    #[arg(long, value_name = "ORDER", default_value = "started", value_parser = orders())]
    sort: Sort,
    /// How many at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = whole::<usize>, allow_hyphen_values = true)]
    limit: usize,
}

fn orders() -> impl TypedValueParser<Value = Sort> {
    PossibleValuesParser::new(["started", "cost", "duration", "tokens"]).map(|word| match word.as_str() {
        "cost" => Sort::Cost,
        "duration" => Sort::Duration,
        "tokens" => Sort::Tokens,
        _ => Sort::Started,
    })
}

impl Chosen {
    /// Returns what is asked for.
    pub fn query(&self, now: UnixNanos) -> Query {
        Query { sort: self.sort, limit: self.limit, ..self.filters.query(now) }
    }
}

/// Prints the runs.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    if args.watch {
        return watch(args, session);
    }
    let query = args.chosen.query(session.now);
    let reader = session.open()?;
    let runs = match &reader {
        Some(reader) => reader.list_runs(&query).map_err(Stop::from)?,
        None => Vec::new(),
    };
    match session.format {
        Format::Table if runs.is_empty() => {}
        Format::Table => {
            let held = reader.as_ref().map(|reader| held(reader, &runs)).unwrap_or_default();
            session.print(&render(&runs, &held, session.now, session.look))?;
            tell_damaged(&runs, session);
        }
        _ => session.print_data(&runs)?,
    }
    let has_told = reader.as_ref().is_some_and(|reader| tell_unreadable(reader, session));
    if runs.is_empty() && !has_told {
        // Reads the whole log, so it is asked only where all of it has led to nothing.
        let were_some = || reader.as_ref().is_some_and(|reader| reader.tells_of_runs().unwrap_or(false));
        let plain = Query { limit: query.limit, sort: query.sort, ..Query::default() };
        if query == plain && were_some() {
            session.hint("no run is here, though the store's log tells of some: `runspan verify` says what is missing");
        } else if query == plain {
            session.hint("no runs yet; `runspan demo` records a few to look at");
        } else {
            session.hint("no run is like that; `runspan list` shows the newest of all");
        }
    }
    Ok(())
}

/// Says of files of many runs that they cannot be read: no line stands for what is missing. Tells whether there is one.
pub(super) fn tell_unreadable(reader: &FilesReader, session: &mut Session<'_>) -> bool {
    // What cannot be looked for now is told by whoever needs it.
    let packs = reader.unreadable_packs().unwrap_or_default();
    let Some((path, why)) = packs.first() else { return false };
    let others = if packs.len() > 1 { format!(", nor can {} others", packs.len() - 1) } else { String::new() };
    session.remark(&safe(&format!("{} cannot be read: {why}{others}", path.display())));
    session.hint("runs are missing here; `runspan verify` says what is lost and what can be repaired");
    true
}

/// Says why runs are damaged, which has no room in a table.
fn tell_damaged(runs: &[Listed], session: &mut Session<'_>) {
    /// More are as good as none.
    const MOST: usize = 5;
    let damaged = runs.iter().filter_map(|run| match run {
        Listed::Damaged(run) => Some(run),
        Listed::Run(_) => None,
    });
    for run in damaged.clone().take(MOST) {
        session.remark(&safe(&format!("run {} is damaged: {}", run.run_id, run.error)));
    }
    if damaged.count() > 0 {
        session.hint("runspan verify says what can be repaired");
    }
}

/// Draws the runs again whenever something has changed.
fn watch(args: &Args, session: &mut Session<'_>) -> Done {
    if !session.look.is_terminal || session.format != Format::Table {
        return Err(Stop::failed(CODE_USE, "--watch draws a table on a terminal again and again, and this is none")
            .hint("runspan tail prints a line for each change, with --json an object"));
    }
    // What it has to warn of is told once.
    session.open()?;
    let mut screen = Screen::default();
    loop {
        session.now = UnixNanos::now();
        let (path, _) = session.store_path();
        let (runs, held) = match open_store(&path) {
            Ok(reader) => {
                let runs = reader.list_runs(&args.chosen.query(session.now))?;
                let held = held(&reader, &runs);
                (runs, held)
            }
            // The program that makes it may come.
            Err(StoreError::NoStore { .. }) => Default::default(),
            Err(error) => return Err(error.into()),
        };
        let text =
            if runs.is_empty() { "no runs\n".to_owned() } else { render(&runs, &held, session.now, session.look) };
        let height = terminal_size::terminal_size().map_or(DEFAULT_HEIGHT, |(_, height)| usize::from(height.0));
        if let Some(frame) = screen.draw(&text, height) {
            session.print(&frame)?;
        }
        let log = || std::fs::metadata(path.join("index.log")).map_or(0, |log| log.len());
        let (seen, until) = (log(), Instant::now() + AT_LEAST_EVERY);
        while log() == seen && Instant::now() < until {
            session.pause()?;
        }
    }
}

/// Lines where nothing tells how many a terminal has.
const DEFAULT_HEIGHT: usize = 24;
/// Runs under way grow without a line of the index, and ages do so by themselves.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// What stands on the terminal.
#[derive(Debug, Default)]
struct Screen {
    shown: Vec<String>,
}

impl Screen {
    /// Returns what has to be written for a text to stand there, as far as there is room; `None` if it does already.
    fn draw(&mut self, text: &str, height: usize) -> Option<String> {
        // The cursor stands in the last line.
        let lines: Vec<String> = text.lines().take(height.saturating_sub(1).max(2)).map(str::to_owned).collect();
        if lines == self.shown {
            return None;
        }
        let begin = if self.shown.is_empty() { "\x1b[2J\x1b[H" } else { "\x1b[H" };
        // Over what is there, so that nothing flickers.
        let lines_over: String = lines.iter().map(|line| format!("{line}\x1b[K\r\n")).collect();
        self.shown = lines;
        Some(format!("{begin}{lines_over}\x1b[J"))
    }
}

/// Returns the runs that are held with a run above them.
fn held(reader: &FilesReader, runs: &[Listed]) -> HashSet<RunId> {
    let runs = runs.iter().filter_map(|run| match run {
        Listed::Run(run) => Some(&run.summary),
        Listed::Damaged(_) => None,
    });
    runs.filter(|run| control::held_by(reader, run).is_some()).map(|run| run.run_id).collect()
}

/// Draws the table.
fn render(runs: &[Listed], held: &HashSet<RunId>, now: UnixNanos, look: Look) -> String {
    let id_columns = if look.room() >= WIDE { 26 } else { unique_prefix(runs) };
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
            Listed::Run(run) => row(run, held.contains(&run.summary.run_id), id_columns, now),
            Listed::Damaged(run) => vec![
                Cell::new(short(run.run_id, id_columns)),
                Cell::default(),
                Cell::default(),
                Cell::new("! damaged").style(RED),
            ],
        });
    }
    table.render(look)
}

fn row(run: &ListedRun, is_held: bool, id_columns: usize, now: UnixNanos) -> Vec<Cell> {
    let summary = &run.summary;
    let words = [(is_held, ", held"), (summary.pinned, ", pinned")];
    let words: String = words.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
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
        Cell::new(format!("{sign} {}{words}", summary.status)).style(style),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_written_over_and_only_when_it_changes() {
        let mut screen = Screen::default();
        assert_eq!(
            screen.draw("RUN\none\ntwo\n", 24).as_deref(),
            Some("\x1b[2J\x1b[HRUN\x1b[K\r\none\x1b[K\r\ntwo\x1b[K\r\n\x1b[J")
        );
        assert_eq!(screen.draw("RUN\none\ntwo\n", 24), None);
        assert_eq!(
            screen.draw("RUN\nnew\none\ntwo\n", 4).as_deref(),
            Some("\x1b[HRUN\x1b[K\r\nnew\x1b[K\r\none\x1b[K\r\n\x1b[J")
        );
    }
}
