//! `runspan replay`: a run, again.

mod again;
mod play;
mod report;

use runspan::store::RunReader;

use super::{Done, Session};

/// What `replay` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan replay latest                       as fast as it happened
  runspan replay latest --speed 10            ten times as fast
  runspan replay latest --step --from chat-2  event by event, from the second model call on
  runspan replay latest --json | jq .model_saw

On a terminal it takes the time that the run took; where another program reads it, none, unless --speed is given.")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
    #[command(flatten)]
    play: play::Play,
    #[command(flatten)]
    again: again::Options,
}

/// Shows the run again.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.id)?;
    let run = reader.resolve(&args.id)?;
    if args.again.exec {
        return again::run(&args.again, &reader, run, session);
    }
    play::run(&args.play, &reader, run, session)
}
