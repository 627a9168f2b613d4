//! What benches of whole processes have in common.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How often a command runs for a median.
const TIMES: usize = 15;

/// Returns how long a command took by the wall clock; one that fails is an error.
pub fn once(mut run: impl FnMut() -> io::Result<ExitStatus>) -> io::Result<Duration> {
    let start = Instant::now();
    if !run()?.success() {
        return Err(io::Error::other("the command failed"));
    }
    Ok(start.elapsed())
}

/// Returns the median of 15 times.
pub fn median(mut run: impl FnMut() -> io::Result<ExitStatus>) -> io::Result<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        times.push(once(&mut run)?);
    }
    times.sort();
    Ok(times[TIMES / 2])
}
