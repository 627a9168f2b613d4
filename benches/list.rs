//! `runspan list` on a store of 10,000 runs, as whole processes.
//!
//! ```sh
//! cargo bench --bench list --features cli
//! ```
//!
//! Method: 10,000 runs of two steps are recorded into a temporary store by the library itself. Each command then runs
//! 15 times with a warm file cache; the median of the wall-clock times is printed, beside the same for a process that
//! only reads the same bytes (`cat index.log`), as the floor in the same run. The promise is under 0.3 s for all 10,000.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tracing_subscriber::layer::SubscriberExt;

const RUNS: usize = 10_000;
const TIMES: usize = 15;
const PROMISE: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    record(dir.path())?;
    let floor = median(|| Command::new("cat").arg(dir.path().join("index.log")).stdout(Stdio::null()).status())?;
    println!("{RUNS} runs, index.log of {} bytes", std::fs::metadata(dir.path().join("index.log"))?.len());
    println!("{:<28} {:>8.1} ms   1.0", "cat index.log", millis(floor));
    let mut slowest = Duration::ZERO;
    for args in
        [&["list"][..], &["list", "--limit", "0"], &["list", "--limit", "0", "--json"], &["list", "--status", "error"]]
    {
        let took = median(|| {
            Command::new(env!("CARGO_BIN_EXE_runspan"))
                .args(args)
                .arg("--store")
                .arg(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        })?;
        slowest = slowest.max(took);
        let ratio = took.as_secs_f64() / floor.as_secs_f64();
        println!("{:<28} {:>8.1} ms   {ratio:.1}", format!("runspan {}", args.join(" ")), millis(took));
    }
    let verdict = if slowest < PROMISE { "kept" } else { "BROKEN" };
    println!("promise of {} ms: {verdict}", PROMISE.as_millis());
    Ok(())
}

fn record(store: &Path) -> Result<(), runspan::Error> {
    let (layer, guard) = runspan::builder().store(store).build()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for n in 0..RUNS {
            let agent = tracing::info_span!(
                "invoke_agent",
                gen_ai.operation.name = "invoke_agent",
                gen_ai.agent.name = "bench"
            );
            agent.in_scope(|| {
                tracing::info_span!(
                    "chat",
                    gen_ai.operation.name = "chat",
                    gen_ai.provider.name = "openai",
                    gen_ai.request.model = "gpt-4o-mini",
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
    assert_eq!(report.stored, 2 * RUNS as u64, "{report:?}");
    Ok(())
}

fn median(mut run: impl FnMut() -> std::io::Result<std::process::ExitStatus>) -> std::io::Result<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let start = Instant::now();
        if !run()?.success() {
            return Err(std::io::Error::other("the command failed"));
        }
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[TIMES / 2])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
