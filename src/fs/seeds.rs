//! Runs a check with many seeds, those that failed once first.
//!
//! ```text
//! cargo test --all-features --lib faults                          # 500 seeds a suite
//! RUNSPAN_SEEDS=10000 cargo test --all-features --lib faults      # as many as that
//! RUNSPAN_SEED=77 cargo test --all-features --lib faults          # this one, with every operation told
//! ```
//!
//! A seed that fails is added to `proptest-regressions/faults.txt`, with the name of its suite.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use super::faulty::FaultyFs;

const SEEDS: u64 = 500;

/// How a check is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    pub number: u64,
    /// Tell what was done when it fails.
    pub is_traced: bool,
}

impl Seed {
    /// Notes what is done on a file system, and tells it when the check fails.
    pub fn tells(self, fs: &FaultyFs) -> Tells {
        if self.is_traced {
            fs.trace();
        }
        Tells(self.is_traced.then(|| fs.clone()))
    }
}

/// Tells what was done when the check fails.
pub(crate) struct Tells(Option<FaultyFs>);

impl Drop for Tells {
    fn drop(&mut self) {
        if let Some(fs) = self.0.as_ref().filter(|_| std::thread::panicking()) {
            fs.traced().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Runs a check with the seeds that failed once, then with as many as are wanted.
pub(crate) fn each(suite: &str, check: impl Fn(Seed)) {
    if let Some(number) = number("RUNSPAN_SEED") {
        return check(Seed { number, is_traced: true });
    }
    let wanted = number("RUNSPAN_SEEDS").unwrap_or(SEEDS);
    for number in failed_once(suite).into_iter().chain(1..=wanted) {
        let checked = catch_unwind(AssertUnwindSafe(|| check(Seed { number, is_traced: false })));
        if let Err(why) = checked {
            keep(suite, number);
            eprintln!("{suite}: seed {number} fails; RUNSPAN_SEED={number} tells every operation");
            resume_unwind(why);
        }
    }
}

/// Tells whether more than the usual number of seeds is wanted: then small steps are taken, too.
pub(crate) fn is_thorough() -> bool {
    number("RUNSPAN_SEEDS").is_some_and(|wanted| wanted > SEEDS)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proptest-regressions/faults.txt")
}

fn failed_once(suite: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let of_suite = |line: &str| line.strip_prefix(suite)?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(of_suite).collect()
}

fn keep(suite: &str, number: u64) {
    if failed_once(suite).contains(&number) {
        return;
    }
    // A tree that cannot be written has the number in the output.
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(file()) {
        let _ = writeln!(file, "{suite} {number}");
    }
}
