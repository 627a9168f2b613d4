//! Memory while steps wait for a dead upstream, and what `runspan::init()` adds to the start of a process.
//!
//! ```sh
//! cargo bench --bench memory --features cli              # 1,000,000 steps, 4 GB of temporary disk
//! cargo bench --bench memory --features cli -- 100000    # fewer
//! ```
//!
//! # Method
//!
//! **Memory.** A process of its own records runs of 20 steps, with redaction, the run store and forwarding on, to an
//! endpoint where nobody listens, in bursts of 5,000 steps as fast as they go; after each burst it waits until all of it
//! is in the store, so that nothing is dropped. After every 1,000 steps it reads `/proc/self/status`. "Added" is the
//! largest value seen, less the one before the recorder was set up, `RssAnon` (the heap), `RssShmem` (the ring between
//! callers and worker) and `RssFile` (pages of the program's own file, which all its processes share) apart. The price
//! table of a provider is what a process holds more when its model calls name that provider, and not one that no table
//! knows: of 5 processes each that record 400 steps, run by run, the medians. The bench fails when the steps in the store,
//! or those that wait, are not those recorded.
//!
//! **Start.** The time from `spawn` to a line on a pipe, and the CPU time of the process up to there, all threads: of a
//! process that does nothing, and of those that call `init` first. 50 of each, in turn; medians.
//!
//! The promises: at most 16 MiB, heap and ring together, besides prices; at most 5 ms, wall and CPU.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use runspan::store::files::FilesReader;
use runspan::store::{Listed, Query, RunReader};
use tracing_subscriber::layer::SubscriberExt;

const STEPS: u64 = 1_000_000;
const RUN_STEPS: u64 = 20;
const BURST: u64 = 5_000;
const SAMPLE: u64 = 1_000;
const STARTS: usize = 50;
const MEMORY_PROMISE_KIB: i64 = 16 << 10;
const START_PROMISE: Duration = Duration::from_millis(5);

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // Cargo itself passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked for; tells whether the promises are kept.
fn run(words: &[&str]) -> Result<bool, Failed> {
    match words {
        ["--waiting", store, url, steps, burst, provider] => {
            waiting(Path::new(store), url, steps.parse()?, burst.parse()?, provider).map(|()| true)
        }
        ["--start", how] => start(how).map(|()| true),
        [] => all(STEPS),
        [steps] => all(steps.parse()?),
        _ => Err("usage: memory [STEPS]".into()),
    }
}

/// Measures everything; tells whether the promises are kept.
fn all(steps: u64) -> Result<bool, Failed> {
    let steps = steps.next_multiple_of(RUN_STEPS);
    println!("{} cores, {}", std::thread::available_parallelism()?, profile());
    println!(
        "\nmemory, {steps} steps in runs of {RUN_STEPS}, bursts of {BURST}, upstream dead, redaction on, defaults but"
    );
    println!("for the bound of the journal, 16 GiB, so that all of them wait");
    let waiting = measure(steps, BURST, "openai")?;
    let table = |provider| -> Result<i64, Failed> {
        let few: Result<Vec<Measured>, Failed> = (0..5).map(|_| measure(400, RUN_STEPS, provider)).collect();
        let mut added: Vec<i64> = few?.iter().map(|measured| measured.added("RssAnon")).collect();
        added.sort_unstable();
        Ok(added[added.len() / 2])
    };
    let prices = table("openai")? - table("nobody")?;
    println!("\n{:<12}{:>12}{:>12}{:>12}{:>12}   KiB", "", "before", "set up", "most", "added");
    for name in ["RssAnon", "RssShmem", "RssFile"] {
        let (before, ready, most) = (waiting.before[name], waiting.ready[name], waiting.most[name]);
        println!("{name:<12}{before:>12}{ready:>12}{most:>12}{:>12}", most - before);
    }
    println!("{:<12}{:>48}   the provider's table, in RssAnon", "prices", prices);
    println!("RssAnon after each tenth of the steps: {:?}", waiting.tenths);
    let added = waiting.added("RssAnon") + waiting.added("RssShmem") - prices.max(0);
    let is_small = added <= MEMORY_PROMISE_KIB;
    println!("promise of {MEMORY_PROMISE_KIB} KiB besides prices: {}, {added} KiB", verdict(is_small));
    Ok(starts()? && is_small)
}

fn verdict(is_kept: bool) -> &'static str {
    if is_kept { "kept" } else { "BROKEN" }
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "a debug build: figures mean nothing" } else { "release build" }
}

/// Kinds of memory by their names in `/proc`, in KiB.
type Memory = BTreeMap<String, i64>;

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Measured {
    before: Memory,
    /// When the recorder had been set up.
    ready: Memory,
    most: Memory,
    /// `RssAnon` after each tenth of the steps.
    tenths: Vec<i64>,
}

impl Measured {
    fn added(&self, name: &str) -> i64 {
        self.most.get(name).unwrap_or(&0) - self.before.get(name).unwrap_or(&0)
    }
}

fn memory() -> Result<Memory, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kib = rest.trim().strip_suffix(" kB")?.parse().ok()?;
        name.starts_with("Rss").then(|| (name.to_owned(), kib))
    };
    Ok(status.lines().filter_map(parse).collect())
}

/// Makes a call of this program without the settings of whoever runs it.
fn this_program() -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(|name| name.starts_with("RUNSPAN_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    Ok(command)
}

/// Lets a process record and checks what it left.
fn measure(steps: u64, burst: u64, provider: &str) -> Result<Measured, Failed> {
    let dir = tempfile::tempdir()?;
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let output = this_program()?
        .arg("--waiting")
        .arg(dir.path())
        .args([&format!("http://127.0.0.1:{port}"), &steps.to_string(), &burst.to_string(), provider])
        .output()?;
    if !output.status.success() {
        return Err(format!("recording: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let runs = FilesReader::open(dir.path())?.list_runs(&Query::default())?;
    let stored: u64 = runs.iter().map(|run| if let Listed::Run(run) = run { run.summary.steps_total } else { 0 }).sum();
    let made = steps + steps / RUN_STEPS;
    if stored != made {
        return Err(format!("{stored} spans are in the store, {made} were recorded").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Records; for the child process.
fn waiting(store: &Path, url: &str, steps: u64, burst: u64, provider: &str) -> Result<(), Failed> {
    let mut measured = Measured { before: memory()?, ..Measured::default() };
    let (layer, guard) = runspan::builder().store(store).forward(url).journal_bytes(16 << 30).build()?;
    measured.ready = memory()?;
    let work = || -> Result<(), Failed> {
        for run in 0..steps / RUN_STEPS {
            record_run(run, provider);
            let done = (run + 1) * RUN_STEPS;
            if done.is_multiple_of(SAMPLE) || done == steps {
                for (name, kib) in memory()? {
                    if name == "RssAnon" && done * 10 / steps > measured.tenths.len() as u64 {
                        measured.tenths.push(kib);
                    }
                    let most = measured.most.entry(name).or_default();
                    *most = kib.max(*most);
                }
            }
            if done.is_multiple_of(burst) && !guard.flush(Duration::from_secs(120)) {
                return Err("the store cannot be written".into());
            }
        }
        Ok(())
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work)?;
    let report = guard.shutdown(Duration::from_secs(5));
    let made = steps + steps / RUN_STEPS;
    if (report.stored, report.pending, report.dropped.len()) != (made, made, 0) {
        return Err(format!("of {made} spans: {report:?}").into());
    }
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn record_run(run: u64, provider: &str) {
    let agent =
        tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "bench");
    let _in_agent = agent.enter();
    for step in 0..RUN_STEPS {
        tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = provider,
            gen_ai.request.model = "gpt-4o-mini",
            gen_ai.request.temperature = 0.2f64,
            gen_ai.usage.input_tokens = 170 + step as i64,
            gen_ai.usage.output_tokens = 18i64,
            gen_ai.input.messages = "What is the weather in Paris, and which train do I take?",
            server.address = "api.openai.com",
            run = run as i64,
        )
        .in_scope(|| tracing::info!(chunks = 12i64, "read the answer"));
    }
}

/// Times the starts; tells whether the promise is kept.
fn starts() -> Result<bool, Failed> {
    let dir = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("http://127.0.0.1:{port}");
    let cases = [
        ("an empty process", "empty", false, false),
        ("init, store there", "init", false, false),
        ("init, store there, forwarding", "init", false, true),
        ("init, store made", "init", true, false),
    ];
    let mut times = vec![Vec::new(); cases.len()];
    for round in 0..STARTS {
        for (times, (_, how, is_new, forwards)) in times.iter_mut().zip(cases) {
            let store = dir.path().join(if is_new { format!("store-{round}") } else { "store".to_owned() });
            times.push(time_start(how, &store, forwards.then_some(url.as_str()))?);
        }
    }
    println!("\nstart, median of {STARTS}{:>28}{:>12}{:>12}{:>12}   ms", "wall", "added", "CPU", "added");
    let medians: Vec<(Duration, Duration)> = times.into_iter().map(median).collect();
    let (empty_wall, empty_cpu) = medians[0];
    let mut is_kept = true;
    for ((name, ..), (wall, cpu)) in cases.iter().zip(&medians) {
        let added = (wall.saturating_sub(empty_wall), cpu.saturating_sub(empty_cpu));
        is_kept &= added.0 <= START_PROMISE && added.1 <= START_PROMISE;
        let shown = [*wall, added.0, *cpu, added.1].map(|time| format!("{:>12.2}", time.as_secs_f64() * 1e3));
        println!("{name:<37}{}", shown.concat());
    }
    println!("promise of {} ms: {}", START_PROMISE.as_millis(), verdict(is_kept));
    Ok(is_kept)
}

fn median(mut times: Vec<(Duration, Duration)>) -> (Duration, Duration) {
    let middle = times.len() / 2;
    times.sort_by_key(|both| both.0);
    let wall = times[middle].0;
    times.sort_by_key(|both| both.1);
    (wall, times[middle].1)
}

/// Starts a process; returns how long it took to say that it is ready, and its CPU time up to there.
fn time_start(how: &str, store: &Path, forward: Option<&str>) -> Result<(Duration, Duration), Failed> {
    let mut command = this_program()?;
    command.args(["--start", how]).env("RUNSPAN_STORE", store).stdout(Stdio::piped());
    if let Some(url) = forward {
        command.env("RUNSPAN_FORWARD", url).stderr(Stdio::null());
    }
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
    let wall = begun.elapsed();
    drop(child.stdin.take());
    if !child.wait()?.success() {
        return Err(format!("a process that starts with {how} failed").into());
    }
    Ok((wall, Duration::from_nanos(line.trim().parse()?)))
}

/// Starts; for the child process.
fn start(how: &str) -> Result<(), Failed> {
    let guard = (how == "init").then(runspan::init);
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    println!("{}", time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
    std::io::stdout().flush()?;
    // It is not to compete with the next one for the processor before it was timed.
    std::io::stdin().read_line(&mut String::new())?;
    drop(guard);
    Ok(())
}
