//! `runspan forward`: how things stand for the targets that spans are forwarded to, and what they refused once more.

use std::collections::HashSet;

use clap::Subcommand;
use runspan::sinks::forwarder::{Reasons, Resending, Resent, RetryError, TargetStatus, Wanted, retry, targets};

use super::output::{DIM, GREEN, Look, RED, YELLOW, count, counted, cut, safe, size};
use super::table::{Cell, Column, Table};
use super::time::age;
use super::{CODE_FAILED, CODE_NO, CODE_USE, Done, Format, Session, Stop, serve, some_of};
use runspan::model::UnixNanos;

/// Dead letters are listed up to here, a target.
const MAX_LETTERS_SHOWN: usize = 10;

/// What `forward` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan forward list
  runspan forward retry --all
  runspan forward retry --target https://user:password@collector.example/v1/traces

Credentials, queries and headers are not in the store: `retry` takes them from --target, else from
RUNSPAN_FORWARD and the OTEL_EXPORTER_OTLP_* variables, else from the configuration of `serve`
(RUNSPAN_CONFIG, runspan.yaml).")]
pub struct Args {
    #[command(subcommand)]
    command: ForwardCommand,
}

#[derive(Debug, Subcommand)]
enum ForwardCommand {
    /// Show what waits for each target, what was sent, refused, not kept and lost, and the dead letters
    List,
    /// Send dead letters again, now, and show what the peer says
    Retry {
        /// Only this dead letter: its id, or a unique beginning of it
        #[arg(conflicts_with = "all")]
        id: Option<String>,
        /// Only those of this target
        #[arg(long, value_name = "URL")]
        target: Option<String>,
        /// All of them, which is what is meant without an ID too
        #[arg(long)]
        all: bool,
    },
}

/// Shows targets, or sends dead letters again.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let root = session.open()?.map(|store| store.layout().root().to_owned());
    match &args.command {
        ForwardCommand::List => {
            let targets = root.map_or(Ok(Vec::new()), |root| targets(&root)).map_err(failed)?;
            list(&targets, session)
        }
        ForwardCommand::Retry { id, target, all: _ } => {
            let configured = serve::targets_of_file(session)?;
            let wanted = Wanted { target: target.as_deref(), letter: id.as_deref(), configured: &configured };
            let mut answers = Vec::new();
            if let Some(root) = root {
                let mut printed = Ok(());
                retry(&root, &wanted, |resent| {
                    if session.format == Format::Table && printed.is_ok() {
                        printed = print_answer(resent, session);
                    }
                    answers.push(resent.clone());
                })?;
                printed?;
            }
            conclude(&answers, id.is_some() || target.is_some(), session)
        }
    }
}

fn failed(error: runspan::Error) -> Stop {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Stop::failed(CODE_FAILED, format!("{error}{cause}")).hint("runspan doctor checks the store")
}

impl From<RetryError> for Stop {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Failed(error) => failed(error),
            RetryError::Ambiguous(ids) => {
                let what = "several dead letters begin like this".to_owned();
                let hint = Some("type more of the id".to_owned());
                Self::Failed { code: CODE_NO, what, more: some_of(&ids), hint }
            }
            RetryError::NotATarget(why) => Self::failed(CODE_USE, why),
            other => Self::failed(CODE_FAILED, other.to_string()),
        }
    }
}

fn list(targets: &[TargetStatus], session: &mut Session<'_>) -> Done {
    if session.format != Format::Table {
        return session.print_data(&targets);
    }
    if targets.is_empty() {
        session.hint("nothing was forwarded from this store; RUNSPAN_FORWARD names OTLP endpoints");
        return Ok(());
    }
    let (look, now) = (session.look, session.now);
    session.print(&render(targets, now, look))?;
    for target in targets {
        session.print(&details(target, &target.label(targets), now, look))?;
    }
    Ok(())
}

fn render(targets: &[TargetStatus], now: UnixNanos, look: Look) -> String {
    let label = |target: &TargetStatus| match target.label(targets) {
        label if target.signal == "metrics" => format!("{label} (metrics)"),
        label => label,
    };
    let labels: Vec<String> = targets.iter().map(label).collect();
    let mut table = Table::new(&[
        Column::new("TARGET", 0).shrinks_to(distinct_width(&labels)),
        Column::new("WAITING", 0).right(),
        Column::new("OLDEST", 2).right(),
        Column::new("RECORDS", 5).right(),
        Column::new("ON DISK", 4).right(),
        Column::new("SENT", 0).right(),
        Column::new("NOT KEPT", 3).right(),
        Column::new("REFUSED", 0).right(),
        Column::new("LOST", 0).right(),
        Column::new("DEAD LETTERS", 1).right(),
    ]);
    let style = |n: u64, style| if n > 0 { style } else { DIM };
    for (target, label) in targets.iter().zip(labels) {
        let (waiting, counts, dead) = (&target.waiting, &target.counts, &target.dead_letters);
        let sum = |reasons: &Reasons| reasons.values().sum::<u64>();
        let (refused, lost) = (sum(&counts.refused), sum(&counts.dropped));
        table.row(vec![
            Cell::new(label),
            Cell::new(count(waiting.spans)).style(style(waiting.spans, YELLOW)),
            Cell::new(waiting.oldest.map(|oldest| age(now, oldest)).unwrap_or_default()),
            Cell::new(count(waiting.records)),
            Cell::new(size(waiting.bytes)),
            Cell::new(count(counts.sent)),
            Cell::new(count(sum(&counts.not_kept))),
            Cell::new(count(refused)).style(style(refused, RED)),
            Cell::new(count(lost)).style(style(lost, RED)),
            Cell::new(count(dead.letters)).style(style(dead.letters, RED)),
        ]);
    }
    table.render(look)
}

/// Returns how many columns texts need so that no two look the same when they are cut, and no fewer than 20.
fn distinct_width(texts: &[String]) -> usize {
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    let is_distinct = |columns: &usize| {
        let cuts: HashSet<_> = texts.iter().map(|text| cut(text, *columns)).collect();
        cuts.len() == texts.len()
    };
    (20..longest).find(is_distinct).unwrap_or(longest.max(20))
}

/// Says what is wrong with a target, if anything: its trouble, reasons, dead letters.
fn details(target: &TargetStatus, label: &str, now: UnixNanos, look: Look) -> String {
    let mut lines = Vec::new();
    if let Some(trouble) = &target.last_trouble {
        lines.push(format!("trouble {} ago: {}", age(now, trouble.time), trouble.reason));
    }
    let counts = &target.counts;
    for (word, reasons) in [("not kept", &counts.not_kept), ("refused", &counts.refused), ("lost", &counts.dropped)] {
        lines.extend(reasons.iter().map(|(reason, n)| format!("{} {word}: {reason}", counted(*n, "span"))));
    }
    if counts.letters_lost > 0 {
        lines.push(format!("{} in dead letters that had to go", counted(counts.letters_lost, "span")));
    }
    if counts.resent > 0 {
        lines.push(format!("{} of dead letters taken when sent again", counted(counts.resent, "span")));
    }
    let dead = &target.dead_letters;
    for reason in &dead.reasons {
        let (letters, spans) = (counted(reason.letters, "dead letter"), counted(reason.spans, "span"));
        lines.push(format!("{letters} with {spans}: {}", reason.reason));
    }
    for letter in dead.list.iter().take(MAX_LETTERS_SHOWN) {
        let when = letter.time.map(|time| format!("{} ago, ", age(now, time))).unwrap_or_default();
        lines.push(format!("  {}  {when}{}: {}", letter.id, counted(letter.spans, "span"), letter.reason));
    }
    if dead.list.len() > MAX_LETTERS_SHOWN {
        lines.push(format!("  and {} more: --json shows all", dead.list.len() - MAX_LETTERS_SHOWN));
    }
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {}\n", look.paint(DIM, &safe(line)))).collect();
    format!("\n{}\n{lines}", safe(label))
}

fn print_answer(resent: &Resent, session: &mut Session<'_>) -> Done {
    let (sign, style, word) = match resent.result {
        Resending::Sent => ("✓", GREEN, "sent"),
        Resending::Partly => ("✓", YELLOW, "sent in part"),
        Resending::Refused => ("✗", RED, "still refused"),
        Resending::Failed => ("✗", RED, "not sent"),
    };
    let message = if resent.message.is_empty() { String::new() } else { format!(": {}", resent.message) };
    let line = format!("{}  {} to {}  {word}{message}", resent.id, counted(resent.spans, "span"), resent.label);
    let sign = session.look.paint(style, sign).into_owned();
    session.print(&format!("{sign} {}\n", safe(&line)))?;
    session.flush()
}

/// Says it all to programs, and decides the exit code.
fn conclude(answers: &[Resent], is_named: bool, session: &mut Session<'_>) -> Done {
    if session.format != Format::Table {
        session.print_data(&answers)?;
    }
    let any = |result| answers.iter().any(|answer| answer.result == result);
    if answers.is_empty() && !is_named {
        session.hint("there are no dead letters");
        return Ok(());
    }
    if answers.is_empty() {
        let stop = Stop::failed(CODE_NO, "no such dead letter");
        return Err(stop.hint("runspan forward list shows those that are there"));
    }
    if any(Resending::Failed) {
        let stop = Stop::failed(CODE_FAILED, "the peer could not be asked; the dead letters stay");
        return Err(stop.hint("try again later; --target gives the URL with its query, headers and credentials"));
    }
    if any(Resending::Refused) {
        let stop = Stop::failed(CODE_NO, "not all of it was taken; what was refused stays");
        return Err(stop.hint("the peer's settings, or --target with the right credentials, may help"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cut_only_as_far_as_they_still_differ() {
        let width = |texts: &[&str]| distinct_width(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(width(&["http://a.example/v1/traces", "http://b.example/v1/traces"]), 20);
        assert_eq!(width(&["http://collector.example:4318/v1/traces", "http://collector.example:4319/v1/traces"]), 30);
        assert_eq!(width(&["http://collector.example (1)", "http://collector.example (2)"]), 28);
        assert_eq!(width(&[]), 20);
    }
}
