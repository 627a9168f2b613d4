//! The command line: parses, calls the library, prints.
//!
//! One file a command. A command gets a [`Session`], writes what it has to say to its `out`, and answers with what
//! stopped it, if anything did; exit codes are decided here and nowhere else: 0 done, 1 the answer is no, 2 wrong use,
//! 3 the store or a peer failed.

mod act;
mod artifacts;
mod cleanup;
mod compare;
mod completions;
mod content;
mod demo;
mod doctor;
mod events;
mod exec;
mod export;
mod family;
mod filters;
mod forward;
mod get;
mod hints;
mod html;
mod import;
mod limits;
mod list;
mod numbers;
mod output;
mod prices;
mod progress;
mod reindex;
mod replay;
mod search;
mod serve;
mod sql;
mod stats;
mod table;
mod tail;
mod text_diff;
mod time;
mod tree;
mod unpack;
mod variables;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use runspan::model::UnixNanos;
use runspan::sinks::forward::Target;
use runspan::store::StoreError;
use runspan::store::files::FilesReader;
use runspan::store::files::layout::{STORE_VARIABLE, find_store};
use runspan::{Error, recovery};
use serde::Serialize;

use output::{CYAN, Look, RED, YELLOW, is_unsafe, safe};

/// The flight recorder for AI agents: runs, steps, tokens and cost.
#[derive(Debug, Parser)]
#[command(name = "runspan", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  runspan demo                  record a small agent and look at it
  runspan exec -- CMD...        run a command, and record it
  runspan list --since 2h       what ran in the last two hours
  runspan get latest            the newest run, step by step
  runspan tail                  runs as they start and end

An ID is a run id, a unique beginning of one, a trace id, or `latest`.
Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 the store or a peer failed.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// The run store [default: RUNSPAN_STORE, else the nearest .runspan or .parac/runs here or above]
    #[arg(long, global = true, value_name = "PATH")]
    store: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// Short for --format json
    #[arg(long, global = true, conflicts_with = "format")]
    json: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
    /// For stats and sql
    Csv,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command, and record it as a run
    Exec(exec::Args),
    /// Record a small agent and a workflow, and show them
    Demo(demo::Args),
    #[command(flatten)]
    OfRuns(RunsCommand),
    /// Ask in SQL: read-only views of runs, steps and errors
    Sql(sql::Args),
    /// Take OTLP in from any language, and record what it tells
    Serve(serve::Args),
    /// Show what models cost
    Prices(prices::Args),
    /// Show what waits for OTLP endpoints and what they refused; send that again
    Forward(forward::Args),
    /// Check the set-up: store, disk, shared memory, environment
    Doctor(doctor::Args),
    /// Make the store's index.sqlite anew
    Reindex(reindex::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// The same commands under the noun
    #[command(hide = true)]
    Runs {
        #[command(subcommand)]
        command: RunsCommand,
    },
}

/// What is done with runs: `runspan list`, and `runspan runs list` as well.
#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List runs, newest first
    List(list::Args),
    /// Show a run: its steps as a tree, with tokens, cost and time
    Get(get::Args),
    /// Follow runs, or one run's events, as they happen
    Tail(tail::Args),
    /// Show a run again in time, or run its command again on recorded answers
    Replay(replay::Args),
    /// Answer a run that waits, or let a paused one go on
    Resume(act::ResumeArgs),
    /// Have a run wait at its next boundary
    Pause(act::PauseArgs),
    /// End a run and those that it has started
    Cancel(act::CancelArgs),
    /// Find runs by what was said in them
    Search(search::Args),
    /// Add up runs, tokens, cost and time; group errors by what they say
    Stats(stats::Args),
    /// List or write out the files that a run produced
    Artifacts(artifacts::Args),
    /// Compare two runs step by step: structure, inputs and outputs, tokens and cost
    Compare(compare::Args),
    /// Give runs out: as OTLP JSON, as pages to read, as a tar; or send them to an OTLP endpoint
    Export(export::Args),
    /// Take runs in from files and folders: OTLP, Jaeger, tar, other stores, Paracle
    Import(import::Args),
    /// Check the store: every run, the index, the journals
    Verify(verify::Args),
    /// Remove runs that are not to be kept any longer
    Cleanup(cleanup::Args),
    /// Keep runs from being removed
    Pin(cleanup::PinArgs),
    /// Keep runs no longer than others
    Unpin(cleanup::PinArgs),
    /// Give packed runs a folder each
    Unpack(unpack::Args),
}

impl Command {
    /// Tells whether what it prints has the form of rows and columns.
    fn has_rows(&self) -> bool {
        matches!(
            self,
            Self::OfRuns(RunsCommand::Stats(_)) | Self::Runs { command: RunsCommand::Stats(_) } | Self::Sql(_)
        )
    }

    fn run(&self, session: &mut Session<'_>) -> Done {
        match self {
            Self::Exec(args) => exec::run(args, session),
            Self::Demo(args) => demo::run(args, session),
            Self::OfRuns(command) | Self::Runs { command } => command.run(session),
            Self::Sql(args) => sql::run(args, session),
            Self::Serve(args) => serve::run(args, session),
            Self::Prices(args) => prices::run(args, session),
            Self::Forward(args) => forward::run(args, session),
            Self::Doctor(args) => doctor::run(args, session),
            Self::Reindex(args) => reindex::run(args, session),
            Self::Completions(args) => completions::run(args, session),
        }
    }
}

impl RunsCommand {
    fn run(&self, session: &mut Session<'_>) -> Done {
        match self {
            Self::List(args) => list::run(args, session),
            Self::Get(args) => get::run(args, session),
            Self::Tail(args) => tail::run(args, session),
            Self::Replay(args) => replay::run(args, session),
            Self::Resume(args) => act::resume(args, session),
            Self::Pause(args) => act::pause(args, session),
            Self::Cancel(args) => act::cancel(args, session),
            Self::Search(args) => search::run(args, session),
            Self::Stats(args) => stats::run(args, session),
            Self::Artifacts(args) => artifacts::run(args, session),
            Self::Compare(args) => compare::run(args, session),
            Self::Export(args) => export::run(args, session),
            Self::Import(args) => import::run(args, session),
            Self::Verify(args) => verify::run(args, session),
            Self::Cleanup(args) => cleanup::run(args, session),
            Self::Pin(args) => cleanup::pin(args, true, session),
            Self::Unpin(args) => cleanup::pin(args, false, session),
            Self::Unpack(args) => unpack::run(args, session),
        }
    }
}

/// What a command works with.
struct Session<'a> {
    /// `--store`.
    store: Option<PathBuf>,
    format: Format,
    look: Look,
    /// Where the search for a store begins.
    cwd: PathBuf,
    now: UnixNanos,
    /// Whether `out` is the standard output of this process.
    is_stdout: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// Why a command ended before it was done.
#[derive(Debug)]
enum Stop {
    /// Nobody reads what it prints: no reason to complain.
    PipeClosed,
    /// A command that was run has said what there was to say.
    Exited { code: u8 },
    /// The answer is no, and what was printed says why.
    AnswerIsNo,
    /// Something to tell.
    Failed {
        code: u8,
        what: String,
        /// Lines that go with it: candidates.
        more: Vec<String>,
        hint: Option<String>,
    },
}

/// The answer is no.
const CODE_NO: u8 = 1;
/// Wrong use.
const CODE_USE: u8 = 2;
/// The store or a peer failed.
const CODE_FAILED: u8 = 3;

type Done = Result<(), Stop>;

/// Runs the program.
pub fn main() -> ExitCode {
    limits::bear();
    let cwd = std::env::current_dir().unwrap_or_default();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let place = Place { look: Look::detect(), cwd, is_stdout: true };
    ExitCode::from(execute(std::env::args_os(), place, &mut out, &mut err))
}

/// Where the program runs.
struct Place {
    look: Look,
    cwd: PathBuf,
    is_stdout: bool,
}

/// Parses the arguments and runs the command; returns the exit code.
fn execute(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    place: Place,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let Place { look, cwd, is_stdout } = place;
    let parsed = Cli::command().term_width(look.width).try_get_matches_from(args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error, look, out, err),
    };
    let format = if cli.global.json { Format::Json } else { cli.global.format };
    if format == Format::Csv && !cli.command.has_rows() {
        let why = "only stats and sql print csv; other commands have table, json and yaml";
        return print_usage(&Cli::command().error(clap::error::ErrorKind::InvalidValue, why), look, out, err);
    }
    let mut session =
        Session { store: cli.global.store, format, look, cwd, now: UnixNanos::now(), is_stdout, out, err };
    let done = cli.command.run(&mut session);
    match done.and_then(|()| session.flush()) {
        Ok(()) | Err(Stop::PipeClosed) => 0,
        Err(stop) => session.report(&stop),
    }
}

fn print_usage(error: &clap::Error, look: Look, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = error.render();
    let without_secrets =
        |text: String| urls_of(error).fold(text, |text, url| text.replace(url, &Target::shown_url(url)));
    let plain = without_secrets(text.to_string());
    // It repeats arguments, which may be anybody's: by a script, say.
    let text = match plain.chars().any(|c| is_unsafe(c) && c != '\n') {
        true => plain.split('\n').map(safe).collect::<Vec<_>>().join("\n"),
        false if look.colour => without_secrets(text.ansi().to_string()),
        false => plain,
    };
    if error.use_stderr() {
        // There is nobody left to tell if this fails.
        let _ = err.write_all(text.as_bytes());
        return CODE_USE;
    }
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Stop::from_output) {
        Err(Stop::Failed { code, what, .. }) => {
            let _ = writeln!(err, "{} {what}", look.paint(RED, "error:"));
            code
        }
        _ => 0,
    }
}

/// Returns the arguments with URLs that an error repeats: their users, queries and options are nobody's business.
fn urls_of(error: &clap::Error) -> impl Iterator<Item = &str> {
    let is_of_target =
        error.context().any(|(_, value)| matches!(value, ContextValue::String(text) if text.ends_with("<URL>")));
    error.context().filter_map(move |(kind, value)| match value {
        ContextValue::String(text) if text.contains("://") => Some(text.as_str()),
        // The scheme may be what is wrong.
        ContextValue::String(text) if is_of_target && kind == ContextKind::InvalidValue && !text.is_empty() => {
            Some(text)
        }
        _ => None,
    })
}

impl Session<'_> {
    /// Prints text for people as it is.
    fn print(&mut self, text: &str) -> Done {
        self.out.write_all(text.as_bytes()).map_err(Stop::from_output)
    }

    fn flush(&mut self) -> Done {
        self.out.flush().map_err(Stop::from_output)
    }

    /// Prints a value for programs, in the format asked for.
    fn print_data(&mut self, value: &impl Serialize) -> Done {
        let text = match self.format {
            Format::Yaml => output::yaml(value),
            _ => output::json_pretty(value),
        };
        self.print(&text?)
    }

    /// Prints text that only people need.
    fn tell(&mut self, text: &str) -> Done {
        match self.format {
            Format::Table => {
                let text = output::wrapped(text, self.look.width);
                self.print(&format!("{text}\n\n"))?;
                self.flush()
            }
            _ => Ok(()),
        }
    }

    /// Tells people something beside the answer.
    fn remark(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    fn hint(&mut self, text: &str) {
        let label = self.look.paint(CYAN, "hint:").into_owned();
        let line = format!("{label} {}", self.with_store(text));
        self.remark(&line);
    }

    fn report(&mut self, stop: &Stop) -> u8 {
        let (code, what, more, hint) = match stop {
            Stop::PipeClosed => return 0,
            Stop::AnswerIsNo => return CODE_NO,
            Stop::Exited { code } => return *code,
            Stop::Failed { code, what, more, hint } => (code, what, more, hint),
        };
        let label = self.look.paint(RED, "error:").into_owned();
        self.remark(&format!("{label} {}", safe(what)));
        for line in more {
            self.remark(&format!("  {}", safe(line)));
        }
        if let Some(hint) = hint {
            self.hint(&safe(hint));
        }
        *code
    }

    /// Returns the store that is meant, and how it was found.
    fn store_path(&self) -> (PathBuf, FoundBy) {
        let path = find_store(self.store.as_deref(), &self.cwd);
        let found = if self.store.is_some() {
            FoundBy::Flag
        } else if std::env::var_os(STORE_VARIABLE).is_some_and(|path| !path.is_empty()) {
            FoundBy::Variable
        } else if path.is_dir() {
            FoundBy::Search
        } else {
            FoundBy::Nothing
        };
        (path, found)
    }

    /// Opens the store; `None` where nobody named one and none was found.
    fn open(&mut self) -> Result<Option<FilesReader>, Stop> {
        let (path, found) = self.store_path();
        if found == FoundBy::Nothing {
            return Ok(None);
        }
        let (reader, trouble) = open_and_adopt(&path).map_err(|error| match &error {
            StoreError::NoStore { .. } => Stop::from(error).hint(match found {
                FoundBy::Flag => {
                    "check the path given to --store; a program that records makes its store itself".to_owned()
                }
                // Where the runs of another program may be: it is looked for under that name too.
                FoundBy::Search => format!(
                    "nothing was recorded there yet; runs that Paracle wrote are taken in by runspan import {}",
                    path.display()
                ),
                _ => "check RUNSPAN_STORE; a program that records makes its store itself".to_owned(),
            }),
            _ => Stop::from(error),
        })?;
        for trouble in trouble {
            let label = self.look.paint(YELLOW, "warning:").into_owned();
            self.remark(&format!("{label} {}", safe(&trouble)));
        }
        Ok(Some(reader))
    }

    /// Opens the store to look for one run.
    fn open_for(&mut self, id: &str) -> Result<FilesReader, Stop> {
        let opened = self.open()?;
        opened.ok_or_else(|| {
            let what = format!("no run {id:?}: there is no run store in {} or above", self.cwd.display());
            Stop::failed(CODE_NO, what).hint("name one with --store PATH, or record one: runspan demo")
        })
    }
}

/// How a store was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FoundBy {
    Flag,
    Variable,
    Search,
    Nothing,
}

/// Opens the store at `path`; what dead processes left is taken in first. All commands come through here.
fn open_store(path: &Path) -> Result<FilesReader, StoreError> {
    open_and_adopt(path).map(|(reader, _)| reader)
}

/// Does the same, and says what is not shown: it stays for the next who opens the store.
fn open_and_adopt(path: &Path) -> Result<(FilesReader, Vec<String>), StoreError> {
    match recovery::open(path) {
        Ok((reader, Ok(adopted))) => Ok((reader, adopted.warnings())),
        Ok((reader, Err(error))) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Ok((reader, vec![format!("what processes left that ended early is not all shown: {error}{cause}")]))
        }
        Err(Error::Store(error)) => Err(error),
        Err(error) => Err(StoreError::BadStore { path: path.to_owned(), why: error.to_string() }),
    }
}

impl Stop {
    fn failed(code: u8, what: impl Into<String>) -> Self {
        Self::Failed { code, what: what.into(), more: Vec::new(), hint: None }
    }

    fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Failed { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Shows the line of a text that a byte of it is in, with a mark below the place.
    fn marked(mut self, text: &str, at: usize) -> Self {
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (before, behind) = text.split_at(at);
        let begin = before.rfind('\n').map_or(0, |line| line + 1);
        let line = format!(
            "{}{}",
            &before[begin..],
            behind.lines().next().filter(|_| !behind.starts_with('\n')).unwrap_or("")
        );
        let place = output::width(&safe(&before[begin..]));
        if let Self::Failed { more, .. } = &mut self {
            more.extend([line, format!("{}^", " ".repeat(place))]);
        }
        self
    }

    fn from_output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::failed(CODE_FAILED, format!("cannot write to standard output: {error}"))
    }
}

impl From<serde_json::Error> for Stop {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(CODE_FAILED, format!("cannot print the answer: {error}"))
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            error if error.is_negative_answer() => CODE_NO,
            error if error.is_wrong_use() => CODE_USE,
            _ => CODE_FAILED,
        };
        let mut what = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            what = format!("{what}: {cause}");
        }
        let (more, hint) = match &error {
            StoreError::Ambiguous { candidates, .. } => (some_of(candidates), Some("type more of the id".to_owned())),
            StoreError::NotFound { id } if id == "latest" => (Vec::new(), Some("record one: runspan demo".to_owned())),
            StoreError::NotFound { .. } | StoreError::NotAnId { .. } => {
                (Vec::new(), Some("runspan list shows the runs of this store; --store names another".to_owned()))
            }
            StoreError::Damaged { run, .. } => {
                (Vec::new(), Some(format!("its files are kept as they are; runspan verify {run} says more")))
            }
            StoreError::NewerFormat { .. } => (Vec::new(), Some("update runspan, or name another --store".to_owned())),
            StoreError::NoStore { .. } | StoreError::BadStore { .. } | StoreError::Io { .. } => {
                (Vec::new(), Some("runspan doctor checks the store".to_owned()))
            }
            _ => (Vec::new(), None),
        };
        Self::Failed { code, what, more, hint }
    }
}

/// Candidates are listed up to here.
const MAX_CANDIDATES: usize = 20;

fn some_of(candidates: &[impl fmt::Display]) -> Vec<String> {
    let mut lines: Vec<String> = candidates.iter().take(MAX_CANDIDATES).map(ToString::to_string).collect();
    if candidates.len() > MAX_CANDIDATES {
        lines.push(format!("and {} more", candidates.len() - MAX_CANDIDATES));
    }
    lines
}

#[cfg(test)]
mod tests;
