//! `runspan reindex`: the database of a store, made anew.

use std::time::Instant;

use runspan::store::files::database;
use serde::Serialize;

use super::bar::Bar;
use super::output::count;
use super::{CODE_FAILED, Done, Format, Session, Stop};

/// What `reindex` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`index.sqlite` is derived from the store and keeps up by itself; deleting it loses nothing. This makes it anew.

Examples:
  runspan reindex
  runspan reindex --store /var/lib/agents/.runspan")]
pub struct Args {}

#[derive(Debug, Serialize)]
struct Report {
    runs: u64,
    seconds: f64,
}

/// Makes the database anew.
pub fn run(_: &Args, session: &mut Session<'_>) -> Done {
    let Some(reader) = session.open()? else {
        return Err(Stop::failed(CODE_FAILED, "there is no run store here").hint("name one with --store PATH"));
    };
    let layout = reader.layout().clone();
    let begun = Instant::now();
    let mut bar = Bar::new(session);
    let runs = database::rebuild(&layout, |reached| bar.show(session, reached.bytes, reached.of));
    bar.end(session);
    let runs = runs.map_err(|error| Stop::failed(CODE_FAILED, format!("{}: {error}", layout.root().display())))?;
    let report = Report { runs, seconds: begun.elapsed().as_secs_f64() };
    match session.format {
        Format::Table => {
            let runs = if runs == 1 { "1 run".to_owned() } else { format!("{} runs", count(runs)) };
            session.print(&format!("{runs} in {:.1} s\n", report.seconds))
        }
        Format::Json | Format::Yaml => session.print_data(&report),
    }
}
