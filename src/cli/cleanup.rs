//! `runspan cleanup`: retention now. `runspan pin` and `runspan unpin`: which runs it never takes.

use std::time::Duration;

use clap::ValueEnum;
use runspan::recovery;
use runspan::store::files::cleanup::{self, Cleaned, Options};
use runspan::store::retention::{self, Policy, Settings};
use serde::Serialize;

use super::numbers::whole;
use super::output::{DIM, GREEN, YELLOW, count, counted, safe, size, wrapped_behind};
use super::table::{Cell, Column, Table};
use super::time::calendar;
use super::{CODE_FAILED, CODE_USE, Done, Format, Session, Stop};

/// What `cleanup` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is kept is what store.yaml says under retention, `mode: full` and `max_bytes: 10GiB` where it says nothing; a flag \
here goes before what stands there, each before its own member: for what no flag speaks of, store.yaml still does. --keep goes before \
--mode.

A run goes if any one of these lets it go: it is not among the last N of its agent or workflow by start (--keep, --mode), or it \
ended longer ago than --older-than; then, of those that are left, the oldest by start go until the rest has no more \
than --max-bytes. So --keep 3 --older-than 30d removes also one of the last 3 when that is older than 30 days, and no flag keeps what another removes. \
Runs that stay in any case count among the last N, and with their bytes.

Runs that are running, waiting or pinned, and those whose run.yaml cannot be read, are never removed. A run whose \
parent is removed stays, without the link. Servers and recorders do the same by themselves about once an hour, unless \
store.yaml says `automatic: false`.

Sizes are bytes on the disk, in blocks of 4 KiB. What has gone from a pack of `runspan serve` is given back when that is more than \
half of the pack, or --max-bytes asks for it; small packs are joined.

Large logs of runs that are over, and large files that they produced, are sealed: compressed, and read as before. A run that goes on is unsealed by itself. --dry-run compresses them, too, \
so that it can say what comes of it, and keeps nothing: it takes as long.

Examples:
  runspan cleanup --dry-run
  runspan cleanup --mode lite
  runspan cleanup --keep 3 --older-than 30d
  runspan cleanup --max-bytes 500MB")]
pub struct Args {
    /// Keep the last 10 runs of each agent and workflow, the last 50, or all
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Keep the last N runs of each agent and workflow
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_hyphen_values = true)]
    keep: Option<u64>,
    /// Remove runs that ended longer ago: 90s, 15m, 2h, 7d, 4w
    #[arg(long, value_name = "AGE", value_parser = age, allow_hyphen_values = true)]
    older_than: Option<Duration>,
    /// Remove the oldest runs until all of them have no more bytes on the disk: 500MB, 10GiB
    #[arg(long, value_name = "SIZE", value_parser = bytes, allow_hyphen_values = true)]
    max_bytes: Option<u64>,
    /// Seal logs of runs that have been over for a minute from so many bytes on; none: seal none [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = seal_from, allow_hyphen_values = true)]
    seal_from: Option<SealFrom>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `pin` and `unpin` take.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A pinned run is never removed by retention, however old it is and however large the store.

Examples:
  runspan pin latest
  runspan unpin 01KE9BZH80BG")]
pub struct PinArgs {
    /// Run ids, their beginnings, trace ids, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Lite,
    Standard,
    Full,
}

fn age(text: &str) -> Result<Duration, String> {
    retention::parse_age(text).map_err(|error| error.to_string())
}

/// From where on logs are sealed.
#[derive(Clone, Copy, Debug)]
struct SealFrom(Option<u64>);

fn seal_from(text: &str) -> Result<SealFrom, String> {
    if text == "none" { Ok(SealFrom(None)) } else { bytes(text).map(|bytes| SealFrom(Some(bytes))) }
}

fn bytes(text: &str) -> Result<u64, String> {
    retention::parse_bytes(text).map_err(|error| error.to_string())
}

#[derive(Debug, Serialize)]
struct Answer {
    dry_run: bool,
    #[serde(flatten)]
    cleaned: Cleaned,
}

#[derive(Debug, Serialize)]
struct Pinned {
    run_id: String,
    pinned: bool,
    changed: bool,
}

/// Removes what is not kept.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let Some(reader) = session.open()? else {
        return Err(Stop::failed(CODE_FAILED, "there is no run store here").hint("name one with --store PATH"));
    };
    let layout = reader.layout();
    let settings = Settings::read(layout.read()?.retention.as_ref());
    let settings = settings.map_err(|error| {
        Stop::failed(CODE_USE, format!("{}: {error}", layout.store_file().display())).hint("nothing was removed")
    })?;
    let policy = policy(args, settings.policy);
    let seal_from = args.seal_from.map_or(settings.seal_from, |SealFrom(given)| given);
    let options = Options { is_dry_run: args.dry_run, seal_from };
    let cleaned = cleanup::cleanup(layout, &policy, options, session.now, || true)?;
    let answer = Answer { dry_run: args.dry_run, cleaned };
    match session.format {
        Format::Table => print_table(&answer, session)?,
        _ => session.print_data(&answer)?,
    }
    match answer.cleaned.stayed.iter().filter(|stayed| stayed.is_failure).count() as u64 {
        0 => Ok(()),
        failed => Err(Stop::failed(CODE_FAILED, format!("{} could not be removed", counted(failed, "run")))),
    }
}

/// Puts what the flags say before what the store says.
fn policy(args: &Args, stored: Policy) -> Policy {
    let keep_each = match args.mode {
        Some(Mode::Lite) => retention::Mode::Lite.keep_each(),
        Some(Mode::Standard) => retention::Mode::Standard.keep_each(),
        Some(Mode::Full) => None,
        None => stored.keep_each,
    };
    Policy {
        keep_each: args.keep.or(keep_each),
        max_age: args.older_than.or(stored.max_age),
        max_bytes: args.max_bytes.or(stored.max_bytes),
    }
}

fn print_table(answer: &Answer, session: &mut Session<'_>) -> Done {
    let (look, cleaned) = (session.look, &answer.cleaned);
    if !cleaned.removed.is_empty() {
        let mut table = Table::new(&[
            Column::new("RUN", 0),
            Column::new("NAME", 0).shrinks_to(8),
            Column::new("STARTED", 2),
            Column::new("SIZE", 0).right(),
            Column::new("FOR", 1),
        ]);
        for run in &cleaned.removed {
            table.row(vec![
                Cell::new(run.run_id.to_string()),
                Cell::new(&run.name),
                Cell::new(calendar(run.started_at)),
                Cell::new(size(run.bytes)),
                Cell::new(run.reason.to_string()),
            ]);
        }
        let table = table.render(look);
        session.print(&table)?;
    }
    for stayed in &cleaned.stayed {
        let sign = look.paint(YELLOW, "!").into_owned();
        let text = format!("{} stays: {}", stayed.run_id, safe(&stayed.why));
        session.print(&format!("{sign} {}\n", wrapped_behind(2, &text, look.width)))?;
    }
    let done = if answer.dry_run { "would be removed" } else { "removed" };
    let mut text = format!("{} {done} ({})", counted(cleaned.removed.len() as u64, "run"), size(cleaned.bytes));
    text.push_str(&match cleaned.bytes_left {
        Some(bytes) => format!(", {} left ({})", counted(cleaned.runs_left, "run"), size(bytes)),
        None => format!(", {} left", counted(cleaned.runs_left, "run")),
    });
    let sign = look.paint(GREEN, "✓").into_owned();
    session.print(&format!("{sign} {}\n", wrapped_behind(2, &text, look.width)))?;
    if answer.dry_run && !cleaned.sealed_files.is_empty() {
        let columns = [
            Column::new("RUN", 0),
            Column::new("WOULD BE SEALED", 0).shrinks_to(8),
            Column::new("SIZE", 0).right(),
            Column::new("SEALED", 0).right(),
        ];
        let mut table = Table::new(&columns);
        for sealed in &cleaned.sealed_files {
            table.row(vec![
                Cell::new(sealed.run_id.to_string()),
                Cell::new(&sealed.file),
                Cell::new(size(sealed.bytes)),
                Cell::new(size(sealed.sealed_bytes)),
            ]);
        }
        let table = table.render(look);
        session.print(&table)?;
    }
    if let Some(after) = cleaned.sealed_to_bytes {
        let logs = if cleaned.sealed == 1 { "1 file".to_owned() } else { format!("{} files", count(cleaned.sealed)) };
        let (before, after) = (size(cleaned.sealed_from_bytes), size(after));
        let text = match answer.dry_run {
            false => format!("{logs} sealed ({before}, now {after})"),
            true => format!("{logs} would be sealed ({before}, then {after})"),
        };
        session.print(&format!("{sign} {}\n", wrapped_behind(2, &text, look.width)))?;
    }
    if let Some(text) = packs_text(answer) {
        session.print(&format!("  {}\n", look.paint(DIM, &wrapped_behind(2, &text, look.width))))?;
    }
    if cleaned.leftovers > 0 {
        let what =
            format!("{} that an earlier removal had left are gone as well", counted(cleaned.leftovers, "folder"));
        session.print(&format!("  {}\n", look.paint(DIM, &wrapped_behind(2, &what, look.width))))?;
    }
    Ok(())
}

/// Says what became of packs.
fn packs_text(answer: &Answer) -> Option<String> {
    let cleaned = &answer.cleaned;
    let mut parts = Vec::new();
    if cleaned.packs_rewritten > 0 {
        let (is, gives) = if answer.dry_run { (" would be", "giving") } else { ("", "which gave") };
        parts.push(format!(
            "{}{is} written anew as {}, {gives} {} back",
            counted(cleaned.packs_rewritten, "pack"),
            count(cleaned.packs_written),
            size(cleaned.packs_freed_bytes)
        ));
    }
    if cleaned.packs_pending_bytes > 0 {
        let pending = size(cleaned.packs_pending_bytes);
        parts.push(format!("{pending} of what has gone stay in packs until more than half of one has"));
    }
    if cleaned.packed_again > 0 {
        parts.push(format!("{} packed again", counted(cleaned.packed_again, "run")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Pins runs, or lets go of them.
pub fn pin(args: &PinArgs, is_pinned: bool, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.ids[0])?;
    let mut answers = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        let run = recovery::resolve(&reader, id)?;
        let changed = cleanup::set_pinned(reader.layout(), run, is_pinned)?;
        answers.push(Pinned { run_id: run.to_string(), pinned: is_pinned, changed });
    }
    match session.format {
        Format::Table => {
            let line = |answer: &Pinned| {
                let words = match (is_pinned, answer.changed) {
                    (true, true) => "is pinned",
                    (true, false) => "is already pinned",
                    (false, true) => "is no longer pinned",
                    (false, false) => "was not pinned",
                };
                format!("{} {words}\n", answer.run_id)
            };
            session.print(&answers.iter().map(line).collect::<String>())
        }
        _ => session.print_data(&answers),
    }
}
