//! `runspan search`: runs by what was said in them.

use runspan::model::RunSummary;
use runspan::store::files::FilesReader;
use runspan::store::files::database::QueryError;
use runspan::store::files::database::text::{self, FoundRun, Hit, SearchError, Wanted};
use runspan::store::{ListedRun, StoreError};
use serde::Serialize;

use super::filters::Filters;
use super::list::{MIN_PREFIX, tell_unreadable};
use super::numbers::whole;
use super::output::{BOLD, CYAN, DIM, Look, cut, money, run_status, safe};
use super::progress::{Bar, index_failed};
use super::time::{age, whole_duration};
use super::{CODE_USE, Done, Format, Session, Stop};

/// What `search` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan search timeout
  runspan search '\"no such file\" NOT test*' --since 7d
  runspan search 'error:(timeout OR \"rate limit\")' --agent-id code-reviewer --json

A run is found that has all the words, wherever in it they are said. \"…\" is a phrase, word* the beginning of a word; AND, OR, \
NOT and parentheses; input:, output:, arguments:, result:, error: and log: look there alone. See docs/search.md.")]
pub struct Args {
    /// What to look for
    query: String,
    /// How many runs at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = whole::<usize>, allow_hyphen_values = true)]
    limit: usize,
    /// How many places of each run at most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole::<usize>, allow_hyphen_values = true)]
    hits: usize,
    #[command(flatten)]
    filters: Filters,
}

/// A run and where in it something was found.
#[derive(Serialize)]
struct Line {
    run: ListedRun,
    hits: Vec<Hit>,
}

/// Looks for runs and prints them.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    // What is wrong with a query is wrong in an empty store, too.
    text::check(&args.query).map_err(|error| wrong_query(&args.query, &error))?;
    let reader = session.open()?;
    let found = match &reader {
        Some(reader) => search(args, reader, session)?,
        None => Vec::new(),
    };
    match session.format {
        Format::Table => {
            let text: String = found.iter().map(|line| render(line, session.now, session.look)).collect();
            session.print(&text)?;
        }
        _ => session.print_data(&found)?,
    }
    let has_told = reader.as_ref().is_some_and(|reader| tell_unreadable(reader, session));
    if found.is_empty() && !has_told {
        session.hint("no run has that");
    } else if found.len() == args.limit {
        session.hint(&format!("these are the newest {}; --limit 0 shows all", args.limit));
    }
    Ok(())
}

fn search(args: &Args, reader: &FilesReader, session: &mut Session<'_>) -> Result<Vec<Line>, Stop> {
    let layout = reader.layout();
    if !text::is_allowed(layout)? {
        // Whoever has switched it off wants no texts in a second place.
        text::remove(layout).map_err(|error| index_failed(reader, &error))?;
        let what = "texts are not kept for searching here";
        return Err(Stop::failed(CODE_USE, what).hint(format!(
            "{} in the environment, or `search: false` in {}, says so",
            text::SEARCH_VARIABLE,
            layout.store_file().display()
        )));
    }
    let filters = args.filters.query(session.now);
    let wanted = Wanted { query: &args.query, filters: &filters, limit: args.limit, hits: args.hits };
    let mut bar = Bar::new(session);
    let found = text::search(reader, &wanted, &mut |progress| bar.show_index(session, progress));
    bar.end(session);
    let found = found.map_err(|error| match error {
        SearchError::Query(error) => wrong_query(&args.query, &error),
        SearchError::Index(error) => index_failed(reader, &error),
    })?;
    found.into_iter().filter_map(|run| line(reader, run).transpose()).collect()
}

fn wrong_query(query: &str, error: &QueryError) -> Stop {
    Stop::failed(CODE_USE, &error.what).marked(query, error.at).hint("runspan search --help says what can be asked")
}

/// Adds what is known of a run; `None` when it is gone by now.
fn line(reader: &FilesReader, found: FoundRun) -> Result<Option<Line>, Stop> {
    match reader.get_listed(found.run_id) {
        Ok(run) => Ok(Some(Line { run, hits: found.hits })),
        Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn render(line: &Line, now: runspan::model::UnixNanos, look: Look) -> String {
    let mut out = format!("{}\n", head(&line.run.summary, now, look));
    for hit in &line.hits {
        let step = hit.step_id.as_deref().unwrap_or("run");
        let place = format!("  {} {}", safe(step), hit.field);
        let room = look.room().saturating_sub(super::output::width(&place) + 2);
        out.push_str(&format!("{}  {}\n", look.paint(DIM, &place), marked(hit, room, look)));
    }
    out
}

fn head(run: &RunSummary, now: runspan::model::UnixNanos, look: Look) -> String {
    let (sign, style) = run_status(run.status);
    let mut id = run.run_id.to_string();
    if look.room() < 120 {
        id.truncate(MIN_PREFIX.max(16));
    }
    let mut more: Vec<String> = vec![format!("{} ago", age(now, run.started_at))];
    more.extend(run.duration_ms.map(whole_duration));
    more.extend(run.cost_usd.map(money));
    let name = safe(run.name()).into_owned();
    let status = format!("{sign} {}", run.status);
    format!("{id}  {}  {}  {}", look.paint(BOLD, &name), look.paint(style, &status), look.paint(DIM, &more.join("  ")))
}

/// Draws a snippet with what was found in colour, or in brackets where there are no colours.
fn marked(hit: &Hit, room: usize, look: Look) -> String {
    let chars: Vec<char> = hit.snippet.chars().collect();
    let part = |from: usize, to: usize| safe(&chars[from..to].iter().collect::<String>()).into_owned();
    let (mut out, mut used, mut at) = (String::new(), 0, 0);
    let mut add = |text: &str, is_found: bool| {
        let text = if is_found && !look.colour { format!("[{text}]") } else { text.to_owned() };
        let shown = cut(&text, room.saturating_sub(used)).into_owned();
        used += super::output::width(&shown);
        let style = if is_found { CYAN.bold() } else { anstyle::Style::new() };
        out.push_str(&look.paint(style, &shown));
    };
    for &(from, to) in &hit.marks {
        add(&part(at, from), false);
        add(&part(from, to), true);
        at = to;
    }
    add(&part(at, chars.len()), false);
    out
}
