//! `runspan reindex`: the database of a store, made anew.

use std::time::Instant;

use runspan::store::files::database::{self, Depth, Progress, text};
use serde::Serialize;

use super::output::counted;
use super::progress::Bar;
use super::{CODE_FAILED, Done, Format, Session, Stop};

/// What `reindex` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`index.sqlite` is derived from the store and keeps up by itself; deleting it loses nothing. This makes it anew, and \
text.sqlite if somebody has searched.

Examples:
  runspan reindex
  runspan reindex --store /var/lib/agents/.runspan")]
pub struct Args {}

#[derive(Debug, Serialize)]
struct Report {
    runs: u64,
    seconds: f64,
    steps: u64,
    steps_seconds: f64,
}

/// Makes the database anew.
pub fn run(_: &Args, session: &mut Session<'_>) -> Done {
    let Some(reader) = session.open()? else {
        return Err(Stop::failed(CODE_FAILED, "there is no run store here").hint("name one with --store PATH"));
    };
    let layout = reader.layout().clone();
    let mut bar = Bar::new(session);
    let begun = Instant::now();
    let runs = database::rebuild(&layout, |reached| bar.show_index(session, Progress::Runs(reached)));
    let runs = runs.map_err(|error| {
        bar.end(session);
        Stop::failed(CODE_FAILED, format!("{}: {error}", layout.root().display()))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    // Only where somebody has searched.
    let has_texts = text::path(&layout).exists();
    let mut read = || {
        let index = database::whole(&reader, Depth::Steps, &mut |progress| bar.show_index(session, progress))?;
        if has_texts && text::is_allowed(&layout)? {
            text::rebuild(&index, &reader, &mut |progress| bar.show_index(session, progress))?;
        }
        index.steps()
    };
    let steps = read();
    bar.end(session);
    let steps = steps.map_err(|error| Stop::failed(CODE_FAILED, format!("{}: {error}", layout.root().display())))?;
    let report = Report { runs, seconds, steps, steps_seconds: begun.elapsed().as_secs_f64() };
    match session.format {
        Format::Table => session.print(&format!(
            "{} in {:.1} s\n{} in {:.1} s\n",
            counted(runs, "run"),
            report.seconds,
            counted(steps, "step"),
            report.steps_seconds,
        )),
        _ => session.print_data(&report),
    }
}
