//! `runspan verify`: is everything that is stored as it was written?

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use runspan::model::RunId;
use runspan::recovery;
use runspan::store::files::verify::{self, Head, Problem, Repaired, Report, Wanted};
use serde::Serialize;

use super::output::{DIM, GREEN, RED, YELLOW, count, counted, safe, size, wrapped};
use super::progress::Bar;
use super::{CODE_FAILED, CODE_NO, CODE_USE, Done, Format, Session, Stop};

/// What is wrong stands so far in.
const INDENT: usize = 2;

/// What `verify` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without an ID the whole store is checked: each run, index.log, index.sqlite, the journals. A run that a process is \
writing is not damaged for it.

--repair puts right what follows from something whole: an unfinished last line, a run.yaml behind its log or gone, \
what the index lacks, a removed run that is there again, a pack of which all runs can be read. It never makes up what is lost, \
and leaves alone what a process writes. Of runs that index.log names and that are nowhere it notes that they were removed.

Each line's hash follows from the line and the one before, and the last one is in run.yaml: an edit, a deletion, an \
insertion or another order is named. Whoever can write all of the store can cut a run's end off and make all that tells \
of it fit; a checkpoint that is kept elsewhere knows.

Exit codes: 0 nothing is damaged, 1 something is, 3 the store cannot be read.

Examples:
  runspan verify
  runspan verify latest 01KE9BZH80BG
  runspan verify --repair
  runspan verify --checkpoint-to /elsewhere/today.jsonl
  runspan verify --against /elsewhere/yesterday.jsonl
  runspan verify --json | jq '.problems[] | {run_id, file, line, what}'")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`; several, or none for the whole store
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Put right what can be
    #[arg(long)]
    repair: bool,
    /// Write how the logs are into a new file, to be kept elsewhere: a line a run
    #[arg(long, value_name = "FILE")]
    checkpoint_to: Option<PathBuf>,
    /// Hold the logs against what such a file says
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    report: Report,
    repaired: Vec<Repaired>,
    seconds: f64,
}

/// Checks, repairs if asked to, and says what was found.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let begun = Instant::now();
    let Some(reader) = session.open()? else {
        return Err(Stop::failed(CODE_FAILED, "there is no run store here").hint("name one with --store PATH"));
    };
    let runs = args.ids.iter().map(|id| recovery::resolve(&reader, id)).collect::<Result<Vec<RunId>, _>>()?;
    let against = args.against.as_deref().map(read_checkpoint).transpose()?.unwrap_or_default();
    let wanted = Wanted { runs: (!runs.is_empty()).then_some(runs), against };
    let check = |session: &mut Session<'_>| {
        let mut bar = Bar::new(session);
        let checked =
            verify::verify(reader.layout(), &wanted, |done, of| bar.show(session, "runs", done as u64, of as u64));
        bar.end(session);
        checked
    };
    let mut report = check(session)?;
    let mut repaired = Vec::new();
    if args.repair && !report.ok {
        repaired = verify::repair(reader.layout(), &report);
        report = check(session)?;
    }
    if let Some(path) = &args.checkpoint_to {
        write_checkpoint(path, &report)?;
    }
    let unwritten = reader.unwritten_runs().len();
    if unwritten > 0 {
        let what = "runs have more than is in their files: who may write here takes it in";
        report.notes.push(format!("{unwritten} {what}"));
    }
    let answer = Answer { report, repaired, seconds: begun.elapsed().as_secs_f64() };
    match session.format {
        Format::Table => print_table(&answer, session)?,
        _ => session.print_data(&answer)?,
    }
    match answer.report {
        Report { ok: true, .. } => Ok(()),
        Report { damaged: 0, .. } => Err(Stop::failed(CODE_NO, "not everything in the store is as it was written")),
        Report { damaged, runs, .. } => {
            let are = if damaged == 1 { "is" } else { "are" };
            Err(Stop::failed(CODE_NO, format!("{} of {} runs {are} damaged", count(damaged), count(runs))))
        }
    }
}

/// A line of it has some 140 bytes.
const MAX_CHECKPOINT: u64 = 1 << 30;

fn read_checkpoint(path: &Path) -> Result<Vec<Head>, Stop> {
    let wrong = |why: String| Stop::failed(CODE_USE, format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let lines = BufReader::new(file.take(MAX_CHECKPOINT)).lines();
    let head = |(at, line): (usize, std::io::Result<String>)| {
        let of_line = |why: String| wrong(format!("line {}: {why}", at + 1));
        serde_json::from_str(&line.map_err(|error| of_line(error.to_string()))?)
            .map_err(|error| of_line(error.to_string()))
    };
    lines.enumerate().map(head).collect()
}

fn write_checkpoint(path: &Path, report: &Report) -> Done {
    let failed = |error: std::io::Error| Stop::failed(CODE_FAILED, format!("cannot write {}: {error}", path.display()));
    // What is there may be the only one that knows.
    let file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
    let mut file = BufWriter::new(file);
    for head in &report.heads {
        writeln!(file, "{}", serde_json::to_string(head)?).map_err(failed)?;
    }
    file.flush().map_err(failed)
}

fn print_table(answer: &Answer, session: &mut Session<'_>) -> Done {
    let (look, report) = (session.look, &answer.report);
    for repaired in &answer.repaired {
        let (sign, style) = if repaired.is_repaired { ("✓", GREEN) } else { ("!", YELLOW) };
        let place = place_of(&repaired.file, repaired.run_id);
        session.print(&format!("{} {}: {}\n", look.paint(style, sign), safe(&place), safe(&repaired.what)))?;
    }
    for problem in &report.problems {
        let text = problem_text(problem, session);
        session.print(&text)?;
    }
    for note in &report.notes {
        let mut lines = wrapped(&safe(note), look.width.saturating_sub(INDENT));
        lines = lines.replace('\n', &format!("\n{:INDENT$}", ""));
        session.print(&format!("{} {}\n", look.paint(YELLOW, "!"), look.paint(DIM, &lines)))?;
    }
    let (sign, style) = if report.ok { ("✓", GREEN) } else { ("✗", RED) };
    let mut parts = vec![counted(report.runs, "run")];
    if report.damaged > 0 {
        parts.push(format!("{} damaged", count(report.damaged)));
    }
    if report.being_written > 0 {
        parts.push(format!("{} being written", count(report.being_written)));
    }
    parts.push(format!("{} events ({})", count(report.events), size(report.bytes)));
    if report.frames > 0 {
        parts.push(format!("{} frames of journals", count(report.frames)));
    }
    session.print(&format!("{} {} in {:.1} s\n", look.paint(style, sign), parts.join(", "), answer.seconds))
}

/// Names a file, with the run where it is one of all runs.
fn place_of(file: &str, run: Option<RunId>) -> String {
    let run = run.map(|run| run.to_string()).filter(|run| !file.contains(run.as_str()));
    run.map_or_else(|| file.to_owned(), |run| format!("{file}, run {run}"))
}

fn problem_text(problem: &Problem, session: &Session<'_>) -> String {
    let look = session.look;
    let file = place_of(&problem.file, problem.run_id);
    let place = match problem.line {
        Some(line) => format!("{file} line {line}"),
        None => file,
    };
    let mut text = format!("{} {}\n", look.paint(RED, "✗"), safe(&place));
    for (style, said) in [(Default::default(), &problem.what), (DIM, &problem.todo)] {
        for line in wrapped(&safe(said), look.width.saturating_sub(INDENT)).lines() {
            text.push_str(&format!("  {}\n", look.paint(style, line)));
        }
    }
    text
}
