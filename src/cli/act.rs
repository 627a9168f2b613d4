//! `runspan resume`, `runspan pause`, `runspan cancel`: what people ask of a run.

use std::io::Read;
use std::time::{Duration, Instant};

use runspan::control::{self, AskError, Asked, Inbox};
use runspan::model::{RunId, RunStatus};
use runspan::recovery;
use runspan::store::RunReader;
use runspan::store::files::FilesReader;
use runspan::store::files::requests::MAX_INPUT;
use serde::Serialize;
use serde_json::Value as Json;

use super::output::{GREEN, YELLOW};
use super::{CODE_FAILED, CODE_NO, CODE_USE, Done, Format, Session, Stop};

/// How long it is waited for that a run does what it was asked, before that is said.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// What `resume` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A run waits when its program says so (`run.wait(..)`), and after `runspan pause`. The answer is any JSON, at most 1 MiB. \
Of two answers one wins; the other ends with 1. Where no process waits for it, the answer is kept until the program goes on with \
the run (`Run::resume`). A secret comes from a file or standard input: arguments can be read by everybody on the machine.

Examples:
  runspan list --status waiting
  runspan resume latest --input '{\"approved\": true}'
  runspan resume 01KE9BZH80BG --input @answer.json
  echo '\"yes\"' | runspan resume 01KE9BZH80BG --input -
  runspan resume latest                             after a pause")]
pub struct ResumeArgs {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
    /// The answer: JSON, @FILE, or - for standard input; a paused run needs none
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: Option<String>,
}

/// What `pause` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A run is held where its program has a boundary: `run.checkpoint()`, or an async function with one of runspan's attributes. \
Until then it goes on. `runspan exec` holds the command itself.

Examples:
  runspan pause latest
  runspan resume latest")]
pub struct PauseArgs {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
}

/// What `cancel` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The run and those that it has started are cancelled from now on. Their programs are told (`run.cancellation()`, \
`run.checkpoint()`) and end as they see fit; the command of `runspan exec` gets SIGTERM, and SIGKILL if that does not end it. A run that \
waits and whose process is dead is ended here.

Examples:
  runspan cancel latest")]
pub struct CancelArgs {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
}

/// One run in the answer of these commands.
#[derive(Debug, Serialize)]
struct Answer {
    run_id: RunId,
    status: RunStatus,
    /// The run has done what it was asked.
    done: bool,
    /// A process that lives has been told.
    heard: bool,
}

/// Answers a run that waits.
pub fn resume(args: &ResumeArgs, session: &mut Session<'_>) -> Done {
    let input = args.input.as_deref().map(|given| read_input(given, session)).transpose()?;
    let reader = session.open_for(&args.id)?;
    let run = recovery::resolve(&reader, &args.id)?.to_string();
    let asked = control::resume(&reader, &run, input)?;
    let answer = wait_for(&reader, &asked, deadline(), |status| status != RunStatus::Waiting)?;
    let run = answer.run_id;
    let text = match &answer {
        Answer { done: true, .. } => format!("run {run} goes on"),
        Answer { heard: true, .. } if let Some(by) = held_by(&reader, run) => {
            format!("the answer is kept: run {run} is held with run {by}, which is paused")
        }
        Answer { heard: true, .. } => format!("the answer is kept: the process of run {run} has not taken it yet"),
        _ => format!(
            "the answer is kept: run {run} has no process now. Its program takes it when it goes on with the run (Run::resume)"
        ),
    };
    say(&answer, &text, session)
}

/// Asks a run to wait.
pub fn pause(args: &PauseArgs, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.id)?;
    let run = recovery::resolve(&reader, &args.id)?.to_string();
    let asked = control::pause(&reader, &run)?;
    let answer = wait_for(&reader, &asked, deadline(), |status| status != RunStatus::Running)?;
    let (run, status) = (answer.run_id, answer.status);
    let is_to_end = Inbox::of(reader.layout(), run).is_cancelled();
    let answer = Answer { done: status == RunStatus::Waiting && !is_to_end, ..answer };
    let text = match status {
        status if status.is_open() && is_to_end => format!("run {run} is asked to end as well, and is not held"),
        RunStatus::Waiting => format!("run {run} is paused; runspan resume {run} lets it go on"),
        RunStatus::Running if let Some(by) = held_by(&reader, run) => {
            format!("run {run} is held with run {by}, which is paused; it stays so when that one goes on")
        }
        RunStatus::Running => {
            format!("run {run} is asked to pause: it will at its next boundary, if its program has any")
        }
        _ => format!("run {run} has ended before it came to a boundary: it is {status}"),
    };
    say(&answer, &text, session)
}

/// Ends a run and those below it.
pub fn cancel(args: &CancelArgs, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.id)?;
    let run = recovery::resolve(&reader, &args.id)?.to_string();
    let asked = control::cancel(&reader, &run)?;
    // One for all of them.
    let until = deadline();
    let ended = |asked: &Asked| wait_for(&reader, asked, until, |status| !status.is_open());
    let answers = asked.iter().map(ended).collect::<Result<Vec<_>, _>>()?;
    if session.format != Format::Table {
        return session.print_data(&answers);
    }
    for answer in &answers {
        let (run, status) = (answer.run_id, answer.status);
        let text = match status {
            RunStatus::Cancelled => format!("run {run} is cancelled"),
            status
                if status.is_open()
                    && let Some(by) = held_by(&reader, run) =>
            {
                format!("run {run} is asked to end, and does when run {by}, which is paused, goes on")
            }
            status if status.is_open() && answer.heard => {
                format!("run {run} is asked to end; its program was told, and has not ended yet")
            }
            status if status.is_open() => format!("run {run} is asked to end, and nobody has heard it yet"),
            _ => format!("run {run} has ended before it was asked: it is {status}"),
        };
        say(answer, &text, session)?;
    }
    Ok(())
}

/// Returns the run that holds one which has not done what it was asked.
fn held_by(reader: &FilesReader, run: RunId) -> Option<RunId> {
    control::held_by(reader, &reader.get_run(run).ok()?)
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits until a run has done what it was asked, or the moment has come.
fn wait_for(
    reader: &FilesReader,
    asked: &Asked,
    until: Instant,
    is_done: impl Fn(RunStatus) -> bool,
) -> Result<Answer, Stop> {
    let mut status = asked.status;
    while asked.is_heard && !is_done(status) && Instant::now() < until {
        std::thread::sleep(POLL);
        status = reader.get_run(asked.run_id)?.status;
    }
    Ok(Answer { run_id: asked.run_id, status, done: is_done(status), heard: asked.is_heard })
}

fn say(answer: &Answer, text: &str, session: &mut Session<'_>) -> Done {
    if session.format != Format::Table {
        return session.print_data(answer);
    }
    let (sign, style) = if answer.done { ("✓", GREEN) } else { ("·", YELLOW) };
    let sign = session.look.paint(style, sign).into_owned();
    let line = format!("{sign} {}\n", session.with_store(text));
    session.print(&line)
}

/// Reads an answer: JSON itself, a file of it, or standard input.
fn read_input(given: &str, session: &Session<'_>) -> Result<Json, Stop> {
    // What was given cannot be read: that is for who gave it to put right.
    let cannot_read = |what: &str, error: std::io::Error| {
        Stop::failed(CODE_USE, format!("cannot read the answer from {what}: {error}"))
    };
    let text = match (given, given.strip_prefix('@')) {
        ("-", _) => bounded(std::io::stdin().lock()).map_err(|error| cannot_read("standard input", error))?,
        (_, Some(file)) => {
            std::fs::File::open(session.cwd.join(file)).and_then(bounded).map_err(|error| cannot_read(file, error))?
        }
        (text, None) => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        let stop = Stop::failed(CODE_USE, format!("the answer is no JSON: {error}"));
        stop.hint("text needs quotes of its own: --input '\"yes\"'")
    })
}

/// Reads no more than an answer may have, and a bit, so that a longer one is seen to be.
fn bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(2 * MAX_INPUT as u64).read_to_string(&mut text)?;
    Ok(text)
}

impl From<AskError> for Stop {
    fn from(error: AskError) -> Self {
        let error = match error {
            AskError::Store(error) => return error.into(),
            error => error,
        };
        let code = match &error {
            error if error.is_negative_answer() => CODE_NO,
            error if error.is_wrong_use() => CODE_USE,
            _ => CODE_FAILED,
        };
        let stop = Self::failed(code, error.to_string());
        match &error {
            AskError::NeedsInput { run, .. } => {
                stop.hint(format!("runspan get {run} --events shows what it needs to know"))
            }
            AskError::TakesNoInput { run } => stop.hint(format!("runspan resume {run} lets it go on")),
            AskError::Held { by, .. } => stop.hint(format!("runspan resume {by} lets both go on")),
            AskError::NotWaiting { .. } => stop.hint("runspan list --status waiting shows the runs that wait"),
            AskError::FromOutside { .. } => stop.hint("end the program itself; one that `exec` runs can be told"),
            _ => stop,
        }
    }
}
