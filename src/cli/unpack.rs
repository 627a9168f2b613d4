//! `runspan unpack`: gives packed runs a folder each.

use runspan::recovery;
use serde::Serialize;

use super::{Done, Format, Session};

/// Arguments of `runspan unpack`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`runspan serve` keeps many small runs that are over in one file. All commands read them there; a folder is for who wants
the files: run.yaml and events.jsonl, byte for byte. A run that has one already keeps it.

Examples:
  runspan unpack latest
  runspan unpack 01KE9BZH80BG --json")]
pub struct Args {
    /// Run ids, their beginnings, trace ids, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Serialize)]
struct Unpacked {
    run_id: String,
    /// Its folder.
    folder: String,
    /// Was it in a pack?
    changed: bool,
}

/// Makes a folder of each run.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.ids[0])?;
    let mut answers = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        let run = recovery::resolve(&reader, id)?;
        let (folder, changed) = reader.layout().unpack(run)?;
        answers.push(Unpacked { run_id: run.to_string(), folder: folder.display().to_string(), changed });
    }
    match session.format {
        // A path a line, for who goes on with them.
        Format::Table => {
            session.print(&answers.iter().map(|answer| format!("{}\n", answer.folder)).collect::<String>())
        }
        _ => session.print_data(&answers),
    }
}
