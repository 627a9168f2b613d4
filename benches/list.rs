//! `runspan list` and `get` on a store of 100,000 runs, as whole processes.
//!
//! ```sh
//! cargo bench --bench list --features cli            # 100,000 runs, 1.2 GB of temporary disk
//! cargo bench --bench list --features cli -- 10000   # fewer
//! ```
//!
//! Method: runs of two steps are recorded into a temporary store by the library itself, and `runspan reindex` makes the
//! database, and says how long runs and steps took. Each command then runs 15 times with a warm file cache; the median of the wall-clock times is printed,
//! beside the same for a process that only reads the log of all runs (`cat index.log`), as the floor in the same run.
//! "Catching up" is the first `list` after a tenth more runs were recorded. The promises: the newest 50 within 50 ms,
//! a filtered list within 100 ms, one run within 20 ms; of a run with 50,000 steps, the first line of `get` within 300 ms
//! (the median of 5, with the most memory that it had).

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{first_byte, median, once};
use tracing_subscriber::layer::SubscriberExt;

const RUNS: usize = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo itself passes `--bench`.
    let runs = std::env::args().skip(1).find(|word| word != "--bench").map_or(Ok(RUNS), |word| word.parse())?;
    let dir = tempfile::tempdir()?;
    record(dir.path(), runs)?;
    let runspan = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(args).env("RUNSPAN_STORE", dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let floor = median(|| Command::new("cat").arg(dir.path().join("index.log")).stdout(Stdio::null()).status())?;
    println!("{runs} runs, index.log of {} bytes", std::fs::metadata(dir.path().join("index.log"))?.len());
    let show = |name: &str, took: Duration, promise: Option<u64>| {
        let ratio = took.as_secs_f64() / floor.as_secs_f64();
        let is_kept = promise.is_none_or(|promise| took <= Duration::from_millis(promise));
        let verdict = match promise {
            Some(promise) if is_kept => format!("within {promise} ms"),
            Some(promise) => format!("BROKEN: more than {promise} ms"),
            None => String::new(),
        };
        println!("{name:<44} {:>8.1} ms {ratio:>6.1}   {verdict}", millis(took));
        is_kept
    };
    show("cat index.log", floor, None);
    let time = |args: &[&str]| once(|| runspan(args).status());
    let report = runspan(&["reindex", "--json"]).stdout(Stdio::piped()).output()?;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout)?;
    let seconds = |name: &str| Duration::from_secs_f64(report[name].as_f64().unwrap_or_default());
    show("runspan reindex, the runs", seconds("seconds"), None);
    show("runspan reindex, their steps", seconds("steps_seconds"), None);
    println!("index.sqlite of {} bytes", std::fs::metadata(dir.path().join("index.sqlite"))?.len());
    let mut is_kept = true;
    for (args, promise) in [
        (&["list"][..], Some(50)),
        (&["list", "--status", "error"], Some(100)),
        (&["list", "--agent-id", "agent-7", "--sort", "cost"], Some(100)),
        (&["list", "--model", "gpt-4o", "--since", "1h", "--sort", "tokens"], Some(100)),
        (&["get", "latest"], Some(20)),
        (&["list", "--limit", "0", "--json"], None),
    ] {
        let took = median(|| runspan(args).status())?;
        is_kept &= show(&format!("runspan {}", args.join(" ")), took, promise);
    }
    is_kept &= long_run(&runspan)?;
    record(dir.path(), runs / 10)?;
    show(&format!("runspan list, catching up on {}", runs / 10), time(&["list"])?, None);
    if is_kept { Ok(()) } else { Err("a promise is broken".into()) }
}

/// A run of 50,000 steps in a store of its own.
fn long_run(runspan: &dyn Fn(&[&str]) -> Command) -> Result<bool, Box<dyn std::error::Error>> {
    const STEPS: usize = 50_000;
    const PROMISE: Duration = Duration::from_millis(300);
    let dir = tempfile::tempdir()?;
    record_run(dir.path(), STEPS)?;
    let mut get = runspan(&["get", "latest"]);
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(first_byte(get.env("RUNSPAN_STORE", dir.path()))?);
    }
    times.sort();
    let (first, whole, memory) = times[times.len() / 2];
    let verdict = if first <= PROMISE { "within 300 ms" } else { "BROKEN: more than 300 ms" };
    println!(
        "runspan get of {STEPS} steps: first line {:.1} ms, all {:.0} ms, {:.0} MiB   {verdict}",
        millis(first),
        millis(whole),
        memory as f64 / f64::from(1 << 20)
    );
    Ok(first <= PROMISE)
}

fn record_run(store: &Path, steps: usize) -> Result<(), runspan::Error> {
    let (layer, guard) = runspan::builder().store(store).build()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let run = runspan::Run::agent("long").start();
        for n in 0..steps / 2 {
            let call = run.llm("openai", "gpt-4o-mini");
            call.input(format!("question {n}"));
            call.output(format!("answer {n}"));
            call.usage(runspan::Usage::new(100, 20));
            call.finish();
            run.tool("look_up").finish();
            if n % 500 == 0 {
                guard.flush(Duration::from_secs(60));
            }
        }
        run.finish();
    });
    let report = guard.shutdown(Duration::from_secs(120));
    assert_eq!(report.stored, steps as u64 + 1, "{report:?}");
    Ok(())
}

fn record(store: &Path, runs: usize) -> Result<(), runspan::Error> {
    let (layer, guard) = runspan::builder().store(store).build()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for n in 0..runs {
            let agent = tracing::info_span!(
                "invoke_agent",
                gen_ai.operation.name = "invoke_agent",
                gen_ai.agent.name = format!("agent-{}", n % 100)
            );
            agent.in_scope(|| {
                tracing::info_span!(
                    "chat",
                    gen_ai.operation.name = "chat",
                    gen_ai.provider.name = "openai",
                    gen_ai.request.model = if n % 10 == 0 { "gpt-4o" } else { "gpt-4o-mini" },
                    gen_ai.usage.input_tokens = n as i64,
                    gen_ai.usage.output_tokens = 20
                )
                .in_scope(|| {});
            });
            // Recording is not what is measured: the ring must not overflow.
            if n % 500 == 0 {
                guard.flush(Duration::from_secs(60));
            }
        }
    });
    let report = guard.shutdown(Duration::from_secs(120));
    assert_eq!(report.stored, 2 * runs as u64, "{report:?}");
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
