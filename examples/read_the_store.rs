//! Reading a store from code: the list of runs, the steps of one, its log.

use std::error::Error;
use std::path::{Path, PathBuf};

use runspan::store::{Listed, Query, RunReader};
use runspan::{Run, Usage};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let own = || std::env::temp_dir().join(format!("runspan-read-the-store-{}", std::process::id()));
    let store = std::env::var_os("RUNSPAN_STORE").map_or_else(own, PathBuf::from);
    record(&store)?;

    // Opens the store as the commands do: what a dead process left is taken in first.
    let (reader, _) = runspan::recovery::open(&store)?;
    for listed in reader.list_runs(&Query { limit: 10, ..Query::default() })? {
        match listed {
            Listed::Run(run) => println!("{} {} {}", run.summary.run_id, run.summary.name(), run.summary.status),
            Listed::Damaged(run) => println!("{} damaged: {}", run.run_id, run.error),
        }
    }

    let latest = reader.resolve("latest")?;
    for step in reader.get_steps(latest)? {
        let tokens = step.tokens.and_then(|tokens| tokens.total).map_or_else(String::new, |n| format!("{n} tokens"));
        let cost = step.cost_usd.map_or_else(String::new, |cost| format!("${cost}"));
        println!("  {} {} {} {tokens} {cost}", step.step_id, step.kind, step.status);
    }
    for event in reader.get_events(latest, 0)? {
        println!("  {:>2} {}", event.seq, event.body.type_name());
    }
    Ok(())
}

fn record(store: &Path) -> Result<(), Box<dyn Error>> {
    let guard = runspan::builder().store(store).init()?;
    let run = Run::agent("weather").start();
    let call = run.llm("openai", "gpt-4o-mini");
    call.usage(Usage::new(120, 18));
    call.finish();
    let tool = run.tool("get_weather");
    tool.input(json!({"city": "Paris"})).output(21.5);
    tool.finish();
    run.finish();
    // Everything recorded is in the store when the guard is gone.
    drop(guard);
    Ok(())
}
