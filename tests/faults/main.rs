//! The recorder and the bridge under faults, end to end: agents in processes of their own, the `runspan` binary, real
//! kills, full disks, dead upstreams, damaged files, and more load than can be taken.
//!
//! ```sh
//! cargo test --features cli --test faults                          # some two minutes at most, reduced counts
//! RUNSPAN_FAULTS=full cargo test --release --features cli --test faults
//! RUNSPAN_FAULTS_SEED=7 cargo test --features cli --test faults -- kill    # that scenario, and so by several names
//! ```
//!
//! # Method
//!
//! What was acknowledged is what an agent said on a pipe after the end of a step had returned to it, or what the server
//! answered to a request with success; what it holds is decided by a seed and the step's number, so that every text can be checked. Against that stands what the store holds
//! after `runspan list` has opened it, and what an upstream has taken. A trial holds when nothing acknowledged is
//! missing, nothing is there that was not recorded, and every text and count is as it was. All moments and places come
//! from a seed that is printed; a failed trial names its own. Loss of power is not injected here: the order of writes and
//! syncs is tested where the journal and the store are, on a file system that forgets what was not synced.
//!
//! It prints a table and fails when a line of it does not hold.

mod agent;
mod archives;
mod bridge_disk;
mod child;
mod cleanup_disk;
mod corruption;
mod disk;
mod fuzz;
mod kill;
mod load;
mod outage;
mod random;
mod scarce;
#[path = "../../benches/support/sender.rs"]
mod sender;
mod serve;
mod store;
mod storm;
mod table;
mod upstream;

use std::process::ExitCode;
use std::time::Instant;

use table::{Row, render};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How much is done, and by which seed.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    seed: u64,
    is_full: bool,
}

impl Suite {
    /// Returns how many trials a scenario has.
    fn count(&self, reduced: u64, full: u64) -> u64 {
        self.pick(reduced, full)
    }

    fn pick<T>(&self, reduced: T, full: T) -> T {
        if self.is_full { full } else { reduced }
    }
}

type Scenario = fn(&Suite) -> Vec<Row>;

const SCENARIOS: [(&str, Scenario); 16] = [
    ("kill", kill::agents),
    ("kill-adopter", kill::adopters),
    ("disk", disk::full),
    ("outage", outage::outages),
    ("burst", outage::bursts),
    ("corruption", corruption::damages),
    ("serve-kill", load::kills),
    ("serve-end", load::ends),
    ("serve-overload", load::overloads),
    ("serve-scarce", scarce::limits),
    ("serve-disk", bridge_disk::full),
    ("cleanup-disk", cleanup_disk::full),
    ("serve-storm", storm::restarts),
    ("serve-fuzz", fuzz::requests),
    ("import-fuzz", archives::imports),
    ("power", power),
];

/// Nothing here can take the power away: the line says where that is tested.
fn power(suite: &Suite) -> Vec<Row> {
    let mut row = Row::new("loss of power", "with durability `power`: everything acknowledged", suite.seed);
    row.injected = "nothing here".to_owned();
    row.skipped = Some(
        "the order of writes and syncs, and what a failed sync means, are tested on file systems that fail, in src/journal"
            .to_owned(),
    );
    vec![row]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--agent", plan] => serde_json::from_str(plan).map_err(Failed::from).and_then(|plan| agent::run(&plan)),
        ["--disk", dir, seed, floods] => disk::inside(dir, seed, floods),
        ["--bridge-disk", dir, seed] => bridge_disk::inside(dir, seed),
        ["--cleanup-disk", dir, seed] => cleanup_disk::inside(dir, seed),
        words => suite(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios that are asked for: those of these names or with these words in them, or all.
fn suite(words: &[&str]) -> Result<(), Failed> {
    let seed = match std::env::var("RUNSPAN_FAULTS_SEED") {
        Ok(seed) => seed.parse().map_err(|_| format!("RUNSPAN_FAULTS_SEED: {seed:?} is not a number"))?,
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64 % 1_000_000,
    };
    let is_full = match std::env::var("RUNSPAN_FAULTS").as_deref() {
        Ok("full") => true,
        Ok("reduced" | "") | Err(_) => false,
        Ok(other) => return Err(format!("RUNSPAN_FAULTS: {other:?} is neither full nor reduced").into()),
    };
    let suite = Suite { seed, is_full };
    // Options of the usual test harness mean nothing here.
    let wanted: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    println!("faults: seed {seed}, {} counts", suite.pick("reduced", "full"));
    let (start, mut rows) = (Instant::now(), Vec::new());
    // A whole name is that scenario alone: `kill` is also a part of two others.
    let is_named = |name: &str, word: &str| {
        if SCENARIOS.iter().any(|(other, _)| *other == word) { name == word } else { name.contains(word) }
    };
    for (name, scenario) in SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|word| is_named(name, word)) {
            let begun = Instant::now();
            let found = scenario(&suite);
            // At once: what comes behind it may take an hour.
            println!("{name}: {:.0} s\n{}", begun.elapsed().as_secs_f64(), render(&found));
            rows.extend(found);
        }
    }
    println!("\nall of them:\n{}\n{:.0} s in all", render(&rows), start.elapsed().as_secs_f64());
    let broken: Vec<&Row> = rows.iter().filter(|row| !row.is_kept()).collect();
    for row in &broken {
        println!("\n{}:", row.scenario);
        row.failures.iter().take(5).for_each(|failure| println!("  {failure}"));
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("BROKEN: {} of {} lines", broken.len(), rows.len()).into()) }
}
