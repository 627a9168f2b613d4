//! What benches of whole processes have in common.
#![allow(dead_code, reason = "each bench needs a part of it")]

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
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

/// Runs a command to its end: how long until its first byte of output, how long in all, and the most memory it had, in
/// bytes.
pub fn first_byte(command: &mut Command) -> io::Result<(Duration, Duration, u64)> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().ok_or_else(|| io::Error::other("no output to read from"))?;
    output.read_exact(&mut [0])?;
    let first = start.elapsed();
    io::copy(&mut output, &mut io::sink())?;
    let mut status = 0;
    // SAFETY: zeros are a valid value, and the call fills both; the child was not waited for before.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage), usage)
    };
    if waited < 0 {
        return Err(io::Error::last_os_error());
    }
    if !ExitStatus::from_raw(status).success() {
        return Err(io::Error::other("the command failed"));
    }
    // In KiB, on Linux (getrusage(2)).
    Ok((first, start.elapsed(), usage.ru_maxrss as u64 * 1_024))
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
