//! The bridge where the system gives it no more: of memory, as `ulimit -v` has it, or of descriptors, as `ulimit -n` has it,
//! while it is sent more than it can store.
//!
//! Without memory it may die, as every program does; without descriptors it may not. Whatever it does, what it has acknowledged
//! is in the store when the next server has been there.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::load::{DRAIN, DRAINS, agree};
use crate::random::{Random, trial_seed};
use crate::sender::Protocol;
use crate::serve::{Batch, Ledger, Load, Server, status_of};
use crate::table::Row;
use crate::{Failed, Suite, child::wait_until};

/// What there is no more of, and how much of it beside what the server has when it is ready.
#[derive(Clone, Copy, Debug)]
enum Scarce {
    /// Address space, in MiB.
    Memory(u64),
    /// Numbers of descriptors.
    Descriptors(u64),
}

const MEMORY: [Scarce; 4] = [Scarce::Memory(8), Scarce::Memory(96), Scarce::Memory(32), Scarce::Memory(256)];
const DESCRIPTORS: [Scarce; 3] = [Scarce::Descriptors(4), Scarce::Descriptors(1), Scarce::Descriptors(12)];

/// Both limits, under load.
pub fn limits(suite: &Suite) -> Vec<Row> {
    let rows = [
        ("no more memory for the bridge", "ulimit -v of 8 to 256 MiB more than it has", &MEMORY[..], (2, 40)),
        ("no more descriptors for the bridge", "ulimit -n of 1 to 12 more than it has", &DESCRIPTORS, (2, 30)),
    ];
    let row = |(name, injected, ways, (reduced, full)): (&str, &str, &[Scarce], (u64, u64))| {
        let promised = "every acknowledged span, once; without memory it may die, without descriptors it goes on";
        let mut row = Row::new(name, promised, suite.seed);
        row.injected = format!("{injected}, under load of 8 clients");
        let (mut spans, mut died) = (0, 0);
        for (trial, scarce) in (0..suite.count(reduced, full)).zip(ways.iter().cycle()) {
            let seed = trial_seed(suite.seed, name, trial);
            let outcome = self::trial(*scarce, seed, suite.pick(1_500, 10_000)).map(|(taken, has_died)| {
                (spans, died) = (spans + taken, died + u64::from(has_died));
            });
            row.count(seed, outcome.map_err(|error| format!("{scarce:?}: {error}").into()));
        }
        row.seen = format!("{spans} spans acknowledged, died {died} times");
        row
    };
    rows.into_iter().map(row).collect()
}

fn trial(scarce: Scarce, seed: u64, within_ms: u64) -> Result<(u64, bool), Failed> {
    let (dir, mut random) = (tempfile::tempdir()?, Random::of(seed ^ 1));
    let (store, mut ledger, mut has_died) = (dir.path().join("store"), Ledger::default(), false);
    let (protocol, batch) = match random.below(2) {
        0 => (Protocol::Grpc, Batch::Traces(50)),
        _ => (Protocol::Http, Batch::Halves),
    };
    let load = Load { seed, clients: 8, protocol, batch, rate: None };
    // Before and while clients come, or in the middle of their work.
    let wait = Duration::from_millis(if random.below(2) == 0 { 0 } else { random.below(within_ms / 2) });
    let lasting = Duration::from_millis(within_ms / 2 + random.below(within_ms / 2));
    let mut server = Server::start(&store, &DRAINS)?;
    let (pid, monitor) = (server.child().id() as i32, server.monitor()?);
    let mut outcome = Ok(());
    let work = || {
        std::thread::sleep(wait);
        outcome = scarce.limit(pid);
        std::thread::sleep(lasting);
    };
    let end = |mut server: Server| {
        if has_ended(server.child(), scarce)? {
            has_died = true;
            return Ok(());
        }
        if matches!(scarce, Scarce::Descriptors(_)) {
            set_limit(pid, libc::RLIMIT_NOFILE, 1 << 10)?;
            wait_until("it is ready again", || status_of(monitor, "/readyz").is_ok_and(|code| code == 200))?;
        }
        server.signal(libc::SIGTERM);
        match server.over(DRAIN) {
            // Its end takes memory, too.
            Err(error) if matches!(scarce, Scarce::Memory(_)) && error.to_string().contains("signal: 6") => {
                has_died = true;
                Ok(())
            }
            ended => ended,
        }
    };
    load.on(server, &mut ledger, work, end)?;
    outcome?;
    // Whoever comes next goes on with what was acknowledged.
    Server::start(&store, &DRAINS)?.end(DRAIN)?;
    agree(&store, seed, &ledger)?;
    Ok((ledger.spans(), has_died))
}

/// Tells whether a server has ended, as it may: by no memory.
fn has_ended(child: &mut Child, scarce: Scarce) -> Result<bool, Failed> {
    use std::os::unix::process::ExitStatusExt;
    match (child.try_wait()?, scarce) {
        (None, _) => Ok(false),
        (Some(status), Scarce::Memory(_)) if status.signal() == Some(libc::SIGABRT) => Ok(true),
        (Some(status), _) => Err(format!("it ended with {status}").into()),
    }
}

impl Scarce {
    /// Gives a process no more than so much beside what it has.
    fn limit(self, pid: i32) -> Result<(), Failed> {
        match self {
            Self::Memory(mib) => {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).ok_or("no VmSize")?;
                let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
                set_limit(pid, libc::RLIMIT_AS, (kib << 10) + (mib << 20))
            }
            Self::Descriptors(more) => {
                let numbers = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))?;
                let highest = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok()).max();
                set_limit(pid, libc::RLIMIT_NOFILE, highest.unwrap_or_default() + 1 + more)
            }
        }
    }
}

fn set_limit(pid: i32, resource: libc::__rlimit_resource_t, most: u64) -> Result<(), Failed> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits live as long as the calls, of which the second changes a child of ours.
    let done = unsafe {
        libc::prlimit(pid, resource, std::ptr::null(), &raw mut limits) == 0 && {
            limits.rlim_cur = most.min(limits.rlim_max);
            libc::prlimit(pid, resource, &raw const limits, std::ptr::null_mut()) == 0
        }
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
