//! `runspan replay`: a run, again.

mod again;
mod as_test;
mod play;
mod report;

use std::path::PathBuf;

use runspan::recovery;
use runspan::replay::Recording;

use super::{CODE_USE, Done, Session, Stop};

/// What `replay` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan replay latest                       as fast as it happened
  runspan replay latest --speed 10            ten times as fast
  runspan replay latest --step --from chat-2  event by event, from the second model call on
  runspan replay latest --json | jq .model_saw
  runspan replay latest --exec                its command once more, on recorded answers; nothing is asked
  runspan replay latest --exec -- ./agent.sh  another command on them, from any language
  runspan replay latest --exec --fork-at chat-2 --model gpt-5
  runspan replay latest --as-test             as a test of an agent in Rust

On a terminal it takes the time that the run took; where another program reads it, none, unless --speed is given.

With --exec, what the command prints is its own, and how it went is told on standard error, or with --json on standard \
output. Exit codes: 1 when anything diverged, and when the run cannot be replayed; 2 wrong use; 3 the store or the port \
failed; else the command's own.")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
    #[command(flatten)]
    play: play::Play,
    #[command(flatten)]
    again: again::Options,
    /// Write what was asked and answered as a test of an agent in Rust [default: tests/ of the package here]
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath, num_args = 0..=1, conflicts_with = "exec", help_heading = "As a test")]
    as_test: Option<Option<PathBuf>>,
}

/// Shows the run again.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    if args.again.has_bounds() && !args.again.exec {
        return Err(Stop::failed(CODE_USE, "--budget-* hold what runs to its bounds: with --exec"));
    }
    let reader = session.open_for(&args.id)?;
    let run = recovery::resolve(&reader, &args.id)?;
    if args.again.exec {
        return again::run(&args.again, &reader, run, session);
    }
    if let Some(path) = &args.as_test {
        let place = as_test::place(path, &session.cwd)?;
        return as_test::run(&place, &Recording::read(&reader, run)?, session);
    }
    play::run(&args.play, &reader, run, session)
}
