//! `runspan stats`: what the runs of a store took, how they ended, and why they failed.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use runspan::model::{ErrorInfo, NanoUsd, Tokens};
use runspan::store::files::database::{By, Counted, Depth, ErrorGroup, Group, Percentiles, Stats, ask_whole};

use super::filters::Filters;
use super::list::tell_unreadable;
use super::numbers::whole;
use super::output::{BOLD, CYAN, DIM, Look, RED, YELLOW, count, csv, cut, error_text, money, safe, wrapped_behind};
use super::progress::{Bar, index_failed};
use super::table::{Cell, Column, Table};
use super::time::duration;
use super::{Done, Format, Session, get};

/// What `stats` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan stats --since 7d
  runspan stats --by model --since 24h
  runspan stats --by tool --agent-id code-reviewer
  runspan stats --by day --format csv > days.csv

Costs are exact sums; a step without a price is counted and not guessed. What a tool caused is an estimate: docs/stats.md.")]
pub struct Args {
    /// Add up apart: runs by agent, workflow, day, hour, session or tag; calls by model, provider or tool
    #[arg(long, value_name = "WHAT", value_parser = bys())]
    by: Option<By>,
    /// How many groups at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = whole::<usize>, allow_hyphen_values = true)]
    limit: usize,
    #[command(flatten)]
    filters: Filters,
}

fn bys() -> impl TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::ALL.iter().map(|by| by.as_str()))
        .try_map(|word| By::ALL.iter().find(|by| by.as_str() == word).copied().ok_or("no such group"))
}

/// Adds up and prints.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open()?;
    let mut stats = match &reader {
        Some(reader) => {
            let query = args.filters.query_of_sums(session.now);
            let mut bar = Bar::new(session);
            let mut show = |progress| bar.show_index(session, progress);
            let stats = ask_whole(reader, Depth::Steps, &mut show, |index| index.stats(&query, args.by));
            bar.end(session);
            stats.map_err(|error| index_failed(reader, &error))?
        }
        None => Stats::empty(args.by),
    };
    let others = other_calls(&stats);
    let left_out = cut_groups(&mut stats, args.by, args.limit);
    match session.format {
        Format::Table => session.print(&render(&stats, others, &session.store_flag(), session.look))?,
        Format::Csv => session.print(&as_csv(&stats))?,
        _ => session.print_data(&stats)?,
    }
    let has_told = reader.as_ref().is_some_and(|reader| tell_unreadable(reader, session));
    if stats.total.runs == 0 && session.format == Format::Table && !has_told {
        session.hint("no run is like that; `runspan list` shows the newest of all");
    }
    if left_out > 0 {
        session.hint(&format!("{} groups are left out; --limit 0 shows all", count(left_out as u64)));
    }
    if stats.damaged_runs > 0 {
        let runs = if stats.damaged_runs == 1 { "1 run".to_owned() } else { format!("{} runs", stats.damaged_runs) };
        session.hint(&format!("{runs} could not be read whole; `runspan verify` names them"));
    }
    Ok(())
}

/// Counts the calls of groups that are of no language models, so that groups add up to what is said of all.
fn other_calls(stats: &Stats) -> u64 {
    match stats.of {
        Counted::ModelCalls => stats.groups.iter().map(|group| group.count.saturating_sub(group.llm_calls)).sum(),
        Counted::Runs | Counted::ToolCalls => 0,
    }
}

/// Leaves the dearest groups, or the newest days and hours. Returns how many went.
fn cut_groups(stats: &mut Stats, by: Option<By>, limit: usize) -> usize {
    let excess = if limit == 0 { 0 } else { stats.groups.len().saturating_sub(limit) };
    if by.is_some_and(By::is_of_time) {
        stats.groups.drain(..excess);
    } else {
        stats.groups.truncate(stats.groups.len() - excess);
    }
    excess
}

/// Draws everything.
fn render(stats: &Stats, others: u64, store: &str, look: Look) -> String {
    let mut out = summary(&stats.total, others, look);
    if let Some(by) = stats.by {
        out.push('\n');
        out.push_str(&groups(stats, by, look));
    }
    if !stats.errors.is_empty() {
        out.push('\n');
        // Who asked for groups wants to see these.
        let kinds = if stats.by.is_some() { 3 } else { 10 };
        out.push_str(&errors(&stats.errors, kinds, store, look));
    }
    out
}

/// Writes the sums of all. `others`: calls of models that are no language models, where these are known.
fn summary(total: &Group, others: u64, look: Look) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            let value = wrapped_behind(14, &value, look.width);
            out.push_str(&format!("{}  {value}\n", look.paint(DIM, &format!("{name:<12}"))));
        }
    };
    let some = |number: u64, what: &str| if number > 0 { format!(", {} {what}", count(number)) } else { String::new() };
    let open = some(total.cancelled, "cancelled") + &some(total.open, "under way");
    let rate = total.success_rate.map(|rate| format!(", {} succeeded", percent(rate))).unwrap_or_default();
    field("runs", format!("{}{rate}{open}", count(total.runs)));
    let others = some(others, "of embeddings or ranks");
    field("calls", format!("{} of models{others}, {} of tools", count(total.llm_calls), count(total.tool_calls)));
    field("failures", if total.errors > 0 { count(total.errors) } else { String::new() });
    field("tokens", total.tokens.map(get::tokens_in_words).unwrap_or_default());
    field("cost", cost(total));
    field("took", total.duration_ms.map(percentiles_in_words).unwrap_or_default());
    field("first token", total.time_to_first_token_ms.map(percentiles_in_words).unwrap_or_default());
    out
}

fn percentiles_in_words(percentiles: Percentiles) -> String {
    let Percentiles { p50, p90, p99 } = percentiles;
    format!("p50 {}, p90 {}, p99 {}", duration(p50), duration(p90), duration(p99))
}

/// A sum that is not complete is a lower bound.
fn cost(group: &Group) -> String {
    let bound = if group.unpriced_steps > 0 { "≥" } else { "" };
    let missing = match group.unpriced_steps {
        0 => String::new(),
        1 => ", and 1 step without a price".to_owned(),
        n => format!(", and {} steps without a price", count(n)),
    };
    match group.cost_usd {
        Some(cost) => format!("{bound}{}{missing}", money(cost)),
        None if group.unpriced_steps > 0 => format!("unknown{missing}"),
        None => String::new(),
    }
}

fn percent(rate: f64) -> String {
    // Nothing but all is all.
    let shown = if rate < 1.0 { (rate * 1e3).floor() / 10.0 } else { 100.0 };
    format!("{shown} %")
}

fn groups(stats: &Stats, by: &str, look: Look) -> String {
    let title: &'static str = By::ALL.iter().find(|known| known.as_str() == by).map_or("GROUP", |by| match by {
        By::Agent => "AGENT",
        By::Workflow => "WORKFLOW",
        By::Model => "MODEL",
        By::Provider => "PROVIDER",
        By::Tool => "TOOL",
        By::Day => "DAY",
        By::Hour => "HOUR",
        By::Session => "SESSION",
        By::Tag => "TAG",
    });
    let counted = if stats.of == Counted::Runs { "RUNS" } else { "CALLS" };
    let mut table = Table::new(&[
        Column::new(title, 0).shrinks_to(24),
        Column::new("", 6),
        Column::new(counted, 0).right(),
        Column::new("OK", 1).right(),
        Column::new("ERRORS", 4).right(),
        Column::new("IN", 3).right(),
        Column::new("OUT", 3).right(),
        Column::new("COST", 0).right(),
        Column::new("CAUSED", 2).right(),
        Column::new("P50", 2).right(),
        Column::new("P90", 5).right(),
        Column::new("P99", 4).right(),
        Column::new("1ST TOKEN", 7).right(),
    ]);
    let weigh = weight(&stats.groups);
    let heaviest = stats.groups.iter().map(weigh).max().unwrap_or(0);
    for group in &stats.groups {
        let bound = if group.unpriced_steps > 0 { "≥" } else { "" };
        let tokens = |part: fn(Tokens) -> Option<u64>| group.tokens.and_then(part).map(count).unwrap_or_default();
        let time = |of: fn(Percentiles) -> f64| group.duration_ms.map(of).map(duration).unwrap_or_default();
        let rate = group.success_rate.map(percent).unwrap_or_default();
        table.row(vec![
            Cell::new(group.key.as_deref().unwrap_or("(none)")).style(if group.key.is_some() { BOLD } else { DIM }),
            Cell::new(bar(weigh(group), heaviest)).style(CYAN),
            Cell::new(count(group.count)),
            Cell::new(rate).style(if group.success_rate.is_some_and(|rate| rate < 0.9) { YELLOW } else { DIM }),
            Cell::new(if group.errors > 0 { count(group.errors) } else { String::new() }).style(RED),
            Cell::new(tokens(|tokens| tokens.prompt)),
            Cell::new(tokens(|tokens| tokens.completion)),
            Cell::new(group.cost_usd.map(|cost| format!("{bound}{}", money(cost))).unwrap_or_default()),
            Cell::new(group.caused_cost_usd.map(|cost| format!("~{}", money(cost))).unwrap_or_default()),
            Cell::new(time(|times| times.p50)),
            Cell::new(time(|times| times.p90)),
            Cell::new(time(|times| times.p99)),
            Cell::new(group.time_to_first_token_ms.map(|times| duration(times.p50)).unwrap_or_default()).style(DIM),
        ]);
    }
    table.render(look)
}

/// Chooses what bars show: what groups cost, else what they caused, else how many there are.
fn weight(groups: &[Group]) -> fn(&Group) -> u64 {
    let nanos = |cost: Option<NanoUsd>| cost.map_or(0, |cost| u64::try_from(cost.0).unwrap_or(0));
    if groups.iter().any(|group| nanos(group.cost_usd) > 0) {
        |group| group.cost_usd.map_or(0, |cost| u64::try_from(cost.0).unwrap_or(0))
    } else if groups.iter().any(|group| nanos(group.caused_cost_usd) > 0) {
        |group| group.caused_cost_usd.map_or(0, |cost| u64::try_from(cost.0).unwrap_or(0))
    } else {
        |group| group.count
    }
}

/// Draws a length in eighths of a column.
fn bar(value: u64, of: u64) -> String {
    const COLUMNS: u128 = 12;
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (u128::from(value) * COLUMNS * 8).checked_div(u128::from(of)).unwrap_or(0);
    // Little is not nothing.
    let eighths = if value > 0 { eighths.max(1) } else { 0 };
    let whole = usize::try_from(eighths / 8).unwrap_or(0);
    format!("{}{}", "█".repeat(whole), EIGHTHS[usize::try_from(eighths % 8).unwrap_or(0)])
}

fn errors(errors: &[ErrorGroup], shown: usize, store: &str, look: Look) -> String {
    let mut out = format!("{}\n", look.paint(BOLD, "FAILURES"));
    for error in errors.iter().take(shown) {
        let runs = if error.runs == 1 { "1 run".to_owned() } else { format!("{} runs", count(error.runs)) };
        let head = format!("{}×", count(error.count));
        let said = ErrorInfo { kind: error.kind.clone(), message: error.pattern.clone(), step_id: None };
        let text = error_text(&said);
        let room = look.room().saturating_sub(head.len() + runs.len() + 6);
        let text = safe(&text).into_owned();
        out.push_str(&format!("{}  {}  {}\n", look.paint(RED, &head), cut(&text, room), look.paint(DIM, &runs)));
        let newest = format!("    newest: runspan get {}{store}  (in {})", error.newest.run_id, error.newest.step_id);
        out.push_str(&look.paint(DIM, &safe(&newest)));
        out.push('\n');
        if let Some(good) = error.compare_with {
            out.push_str(&look.paint(DIM, &format!("    went well: runspan get {good}{store}")));
            out.push('\n');
        }
    }
    let more = match errors.len().saturating_sub(shown) {
        0 => return out,
        1 => "1 more kind".to_owned(),
        more => format!("{more} more kinds"),
    };
    out.push_str(&look.paint(DIM, &format!("and {more}: `runspan stats{store}` shows ten, --json all\n")));
    out
}

/// One line a group; without groups, the total.
fn as_csv(stats: &Stats) -> String {
    let columns = [
        stats.by.unwrap_or("key"),
        "runs",
        "count",
        "success",
        "open",
        "cancelled",
        "success_rate",
        "llm_calls",
        "tool_calls",
        "errors",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cost_usd",
        "unpriced_steps",
        "duration_ms_p50",
        "duration_ms_p90",
        "duration_ms_p99",
        "time_to_first_token_ms_p50",
        "time_to_first_token_ms_p90",
        "time_to_first_token_ms_p99",
        "caused_tokens",
        "caused_cost_usd",
    ];
    let total = [stats.total.clone()];
    let groups = if stats.by.is_some() { &stats.groups[..] } else { &total };
    csv(&columns, groups.iter().map(csv_row))
}

fn csv_row(group: &Group) -> Vec<String> {
    fn shown<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let tokens = group.tokens.unwrap_or_default();
    let (took, first) = (group.duration_ms, group.time_to_first_token_ms);
    vec![
        group.key.clone().unwrap_or_default(),
        group.runs.to_string(),
        group.count.to_string(),
        group.success.to_string(),
        group.open.to_string(),
        group.cancelled.to_string(),
        shown(group.success_rate),
        group.llm_calls.to_string(),
        group.tool_calls.to_string(),
        group.errors.to_string(),
        shown(tokens.prompt),
        shown(tokens.completion),
        shown(tokens.total),
        shown(tokens.cache_read),
        shown(tokens.cache_write),
        shown(tokens.reasoning),
        shown(group.cost_usd),
        group.unpriced_steps.to_string(),
        shown(took.map(|times| times.p50)),
        shown(took.map(|times| times.p90)),
        shown(took.map(|times| times.p99)),
        shown(first.map(|times| times.p50)),
        shown(first.map(|times| times.p90)),
        shown(first.map(|times| times.p99)),
        shown(group.caused_tokens),
        shown(group.caused_cost_usd),
    ]
}
