//! A run that starts another process, whose run is linked to it: two runs, one trace.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use runspan::store::files::FilesReader;
use runspan::store::{Listed, Query, RunReader};
use runspan::{Run, propagation};

/// Tells the child that it is one, and where the store is.
const CHILD: &str = "TWO_PROCESSES_STORE";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var_os(CHILD) {
        Some(store) => child(PathBuf::from(store)),
        None => parent(),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let store = store();
    let guard = runspan::builder().store(&store).init()?;
    let run = Run::workflow("dispatch").start();
    let step = run.task("call worker");
    let mut command = Command::new(std::env::current_exe()?);
    // The current span is what the child's run will be under.
    let status = step.in_scope(|| propagation::to_env(&mut command).env(CHILD, &store).status())?;
    step.output(status.to_string());
    step.finish();
    run.finish();
    drop(guard);

    for listed in FilesReader::open(&store)?.list_runs(&Query::default())? {
        if let Listed::Run(run) = listed {
            let run = run.summary;
            let parent = run.parent_run_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
            println!("{:<8} run {} trace {} parent {parent}", run.name(), run.run_id, run.trace_id);
        }
    }
    Ok(())
}

fn child(store: PathBuf) -> Result<(), Box<dyn Error>> {
    // Nothing to be said here: the recorder reads `TRACEPARENT` and `BAGGAGE` itself.
    let _guard = runspan::builder().store(store).init()?;
    let run = Run::agent("worker").start();
    run.tool("work").finish();
    run.finish();
    Ok(())
}

/// The store that `RUNSPAN_STORE` names, else one of this example's own.
fn store() -> PathBuf {
    let own = || std::env::temp_dir().join(format!("runspan-two-processes-{}", std::process::id()));
    std::env::var_os("RUNSPAN_STORE").map_or_else(own, PathBuf::from)
}
