//! What recording a step costs, in runspan and in other ways to do it.
//!
//! ```sh
//! cargo run --release --manifest-path benches/cost/Cargo.toml
//! ```
//!
//! # Method
//!
//! The same agent is recorded by each recorder: runs of one `invoke_agent` span around model and tool calls, each step
//! a span with 12 attributes and 2 events, and with a text of a given size for its input where one is asked for. Every
//! case is a process of its own. Spans go to an OTLP/HTTP receiver in yet another process on loopback, which decodes and
//! counts them; runspan writes its run store as well, with redaction on and safe against SIGKILL. A case fails when what
//! arrived, or what is in the store, is not what was recorded. Stores are removed when all is measured (8 GB of disk): for minutes
//! after a thousand folders were deleted ext4 looks past each of their inodes whenever it makes a new one, which costs
//! whoever is measured next several times of what a run costs.
//!
//! Times are CPU times of the kernel (`CLOCK_THREAD_CPUTIME_ID`, `CLOCK_PROCESS_CPUTIME_ID`), so that what else runs on
//! the machine is not counted. "thread" is the calling threads from the first run to the last, "process" all threads
//! until everything is stored and sent. Each case runs several times, interleaved with the others; the median is
//! printed. Coefficients come from runs of two lengths and two sizes of text:
//!
//! ```text
//! cost of a run of n steps with k KB of text each = run + n * (step + k * kb)
//! ```

mod cases;
mod clock;
mod sink;
mod work;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};

use cases::{CASES, STORES};
use work::Load;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--sink"] => sink::serve(),
        ["--case", name, load, url] => cases::run(name, load, url),
        [] => compare(CASES, 3, 1),
        ["--quick", names @ ..] => compare(if names.is_empty() { CASES } else { names }, 1, 4),
        _ => Err("usage: runspan-bench-cost [--quick [CASE..]]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The loads of a comparison: what is hot, what is long, what has text, what waits, and four at once.
fn loads(divisor: u64) -> Vec<Load> {
    let load = |runs: u64, steps, text_kb, pause_us, threads| Load {
        runs: (runs / divisor).max(1),
        steps,
        text_kb,
        pause_us,
        threads,
    };
    vec![
        load(2_000, 20, 0, 0, 1),
        load(200, 200, 0, 0, 1),
        load(500, 20, 4, 0, 1),
        load(40, 20, 100, 0, 1),
        load(60, 20, 0, 2_000, 1),
        load(2_000, 20, 0, 0, 4),
    ]
}

fn compare(names: &[&str], times: usize, divisor: u64) -> Result<(), Failed> {
    let me = std::env::current_exe()?;
    println!("cost of recording: {} cores, CPU times, median of {times}", std::thread::available_parallelism()?);
    let loads = loads(divisor);
    let stores = tempfile::tempdir()?;
    let mut measured: BTreeMap<(usize, usize), Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..times {
        for (l, load) in loads.iter().enumerate() {
            for (c, name) in names.iter().enumerate() {
                let (mut receiver, url) = sink::start(&me)?;
                let mut case = Command::new(&me);
                case.args(["--case", name, &load.to_string(), &url]).env(STORES, stores.path());
                let case = case.stderr(Stdio::inherit()).output();
                let _ = receiver.kill();
                let _ = receiver.wait();
                let case = case?;
                let said = String::from_utf8_lossy(&case.stdout).into_owned();
                if !case.status.success() {
                    return Err(format!("{name} at {load}: {} {said}", case.status).into());
                }
                let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                let [thread, process] = numbers[..] else { return Err(format!("{name} said {said:?}").into()) };
                measured.entry((l, c)).or_default().push((thread, process));
            }
        }
    }
    let median = |l: usize, c: usize| {
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = measured[&(l, c)].iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        (of(|both| both.0), of(|both| both.1))
    };
    for (l, load) in loads.iter().enumerate() {
        println!("\n{load}, ns a step{:>30}{:>12}", "thread", "process");
        for (c, name) in names.iter().enumerate() {
            let (thread, process) = median(l, c);
            println!("  {name:<44}{thread:>10.0}{process:>12.0}");
        }
    }
    println!("\ncoefficients, thread / process{:>24}{:>18}{:>20}", "ns a step", "us a run", "ns a KB");
    for (c, name) in names.iter().enumerate() {
        let fit = |pick: fn((f64, f64)) -> f64| {
            let (short, long) = (pick(median(0, c)), pick(median(1, c)));
            // ns a step at 20 and at 200 steps a run: the difference is the run's share.
            let run = (short - long) / (1.0 / 20.0 - 1.0 / 200.0);
            let kb = (pick(median(3, c)) - short) / 100.0;
            (short - run / 20.0, run / 1_000.0, kb)
        };
        let (thread, process) = (fit(|both| both.0), fit(|both| both.1));
        println!(
            "  {name:<34}{:>8.0} / {:>6.0}{:>9.1} / {:>6.1}{:>10.0} / {:>7.0}",
            thread.0, process.0, thread.1, process.1, thread.2, process.2
        );
    }
    Ok(())
}
