//! What benches of whole processes have in common.
#![allow(dead_code, reason = "each bench needs a part of it")]

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

/// Returns the CPU time, of user and system, of all commands that have ended.
pub fn cpu_seconds_of_children() -> f64 {
    // SAFETY: zeros are a valid value, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
