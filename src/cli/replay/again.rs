//! `runspan replay ID --exec`: the command of a run once more, with the answers that were recorded.

use std::ffi::OsString;
use std::sync::Arc;

use runspan::Content;
use runspan::model::RunId;
use runspan::replay::{Gap, Recording};
use runspan::store::RunReader;
use runspan::store::files::FilesReader;

use super::report;
use crate::cli::exec::{self, Again, Bounds, OnMiss, Over, Place, Recorded};
use crate::cli::output::{YELLOW, safe};
use crate::cli::{CODE_FAILED, CODE_NO, Done, Format, Session, Stop};

/// What `--exec` takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --exec")]
pub struct Options {
    /// Run the recorded command again, or CMD here and now: models are not asked, their recorded answers are given
    #[arg(long, conflicts_with_all = ["speed", "step", "from", "to", "max_pause", "all"])]
    pub exec: bool,
    /// What is answered to a call that the recording has no answer to
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnMiss::Fail, requires = "exec")]
    on_miss: OnMiss,
    /// Answer from the recording up to this step, it among them, and ask models after it
    #[arg(long, value_name = "STEP", requires = "exec")]
    fork_at: Option<String>,
    /// Ask this model in the place of the one that the program names, where models are asked
    #[arg(long, value_name = "MODEL", requires = "exec")]
    model: Option<String>,
    /// The new run's name [default: that of the recorded one]
    #[arg(long, value_name = "NAME", requires = "exec")]
    name: Option<String>,
    /// How much of prompts and answers is kept: none, redacted, full [default: RUNSPAN_CONTENT, else redacted]
    #[arg(long, value_name = "POLICY", requires = "exec")]
    content: Option<Content>,
    #[command(flatten)]
    bounds: Bounds,
    /// The command to run in the place of the recorded one
    #[arg(last = true, value_name = "CMD", requires = "exec")]
    command: Vec<OsString>,
}

impl Options {
    /// Tells whether bounds are given: only what runs can be held to them.
    pub fn has_bounds(&self) -> bool {
        self.bounds.budget().is_some()
    }
}

/// Runs it, and says how it went beside what was recorded.
pub fn run(options: &Options, reader: &FilesReader, run: RunId, session: &mut Session<'_>) -> Done {
    let recording = Recording::read(reader, run)?;
    check(&recording, session)?;
    let recorded = command(options, &recording, reader)?;
    let mut replay = recording.replay();
    if let Some(step) = &options.fork_at {
        let calls = recording.calls_until(step).ok_or_else(|| {
            Stop::failed(CODE_NO, format!("run {run} has no step {step:?}"))
                .hint(format!("runspan get {run} shows its steps"))
        })?;
        replay = replay.until(calls);
    }
    if options.model.is_some() && options.fork_at.is_none() && options.on_miss != OnMiss::Live {
        return Err(Stop::failed(
            crate::cli::CODE_USE,
            "--model is for models that are asked: with --fork-at or --on-miss live",
        ));
    }
    let replay = Arc::new(replay);
    let input =
        recorded.open_input().map_err(|error| Stop::failed(CODE_FAILED, format!("no room for the input: {error}")))?;
    let again = Again {
        run,
        replay: Arc::clone(&replay),
        on_miss: options.on_miss,
        model: options.model.clone(),
        environment: recorded.environment.clone(),
        input: recorded.input(),
        place: Place { directory: recorded.directory.clone(), input, is_out_taken: session.format != Format::Table },
    };
    let name = options.name.clone().unwrap_or_else(|| recording.run().name().to_owned());
    let args = exec::Args::again(name, recorded.command.clone(), options.content, options.bounds.clone());
    let over = exec::run_again(&args, &again, session)?;
    let told = report::Told {
        recording: &recording,
        replay: &replay,
        over: &over,
        spent: spent(reader, &over),
        has_stubs: options.on_miss == OnMiss::Stub,
    };
    told.print(session)?;
    end(&told)
}

/// Ends with what the answer is: that it diverged, else as the command did.
fn end(told: &report::Told<'_>) -> Done {
    let code = told.over.ended.code();
    match (told.is_diverged(), code) {
        (true, _) => Err(Stop::AnswerIsNo),
        (false, 0) => Ok(()),
        (false, code) => Err(Stop::Exited { code }),
    }
}

/// Says what the recording lacks; one that has no answer at all is not begun with.
fn check(recording: &Recording, session: &mut Session<'_>) -> Result<(), Stop> {
    let run = recording.run().run_id;
    let all = recording.calls().len();
    let label = session.look.paint(YELLOW, "warning:").into_owned();
    let status = recording.run().status;
    if status.is_open() {
        let what = "what it does from now on is not in the recording";
        session.remark(&format!("runspan: {label} run {run} is not over, but {status}: {what}"));
    }
    let gaps: Vec<(String, Gap)> = recording.gaps().map(|(call, gap)| (call.step_id.clone(), gap)).collect();
    if all == 0 {
        return Err(Stop::failed(CODE_NO, format!("run {run} has no model calls: there is nothing to answer with")));
    }
    let listed = gaps.iter().map(|(step, gap)| format!("{step}: {gap}"));
    if gaps.len() == all {
        let what = format!("run {run} cannot be replayed: it has an answer to none of its {all} model calls");
        let mut stop = Stop::failed(CODE_NO, what).hint("record with content: runspan exec --content redacted");
        if let Stop::Failed { more, .. } = &mut stop {
            more.extend(crate::cli::some_of(&listed.collect::<Vec<_>>()));
        }
        return Err(stop);
    }
    for line in crate::cli::some_of(&listed.collect::<Vec<_>>()) {
        session.remark(&format!("runspan: {label} no answer to {}", safe(&line)));
    }
    Ok(())
}

/// Returns what to run: CMD here, else what was recorded, of the run or of one that started it.
fn command(options: &Options, recording: &Recording, reader: &FilesReader) -> Result<Recorded, Stop> {
    if !options.command.is_empty() {
        return Ok(Recorded { command: options.command.clone(), ..Recorded::default() });
    }
    let run = recording.run();
    let above = || {
        let parent = run.parent_run_id?;
        reader.get_run(parent).ok()?;
        Recording::read(reader, parent).ok()?.command().cloned()
    };
    let root = recording.command().cloned().or_else(above);
    let why = match root.as_ref().map(Recorded::of) {
        Some(Ok(recorded)) => match &recorded.directory {
            Some(directory) if !directory.is_dir() => format!("its directory {} is gone", directory.display()),
            _ => return Ok(recorded),
        },
        Some(Err(why)) => why,
        None => "no command is recorded with it, as runspan exec does".to_owned(),
    };
    let id = run.run_id;
    Err(Stop::failed(CODE_NO, format!("run {id} cannot be run again as it was: {why}"))
        .hint(format!("say what to run: runspan replay {id} --exec -- CMD...")))
}

/// Returns what the calls used and cost for which models were asked.
fn spent(reader: &FilesReader, over: &Over) -> report::Spent {
    let fresh = FilesReader::of(reader.layout().clone()).ok();
    let told = fresh.and_then(|reader| {
        let summary = reader.get_run(over.run).ok()?;
        Some((Recording::read(&reader, over.run).ok()?, summary))
    });
    let Some((recording, summary)) = told else { return report::Spent::default() };
    let live = recording.calls().iter().filter(|call| !call.is_replayed());
    let tokens = live.filter_map(|call| call.tokens).reduce(|sum, tokens| sum.plus(tokens));
    report::Spent {
        tokens: tokens.map(|tokens| tokens.with_total()),
        cost: summary.cost_usd,
        unpriced: summary.unpriced_steps,
    }
}
