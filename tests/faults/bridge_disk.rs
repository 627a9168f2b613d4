//! A disk that gets full under the bridge while clients send, and has room again, a few times over.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::child::wait_until;
use crate::disk::{NO_MOUNT, in_namespace};
use crate::load::agree;
use crate::random::{Random, trial_seed};
use crate::sender::Protocol;
use crate::serve::{Batch, Ledger, Load, Server, status_of};
use crate::table::Row;
use crate::{Failed, Suite};

const DRAIN: Duration = Duration::from_secs(150);
/// So often it gets full in a trial.
const TIMES: u64 = 3;
const MIB: u64 = 128;

/// All of it.
pub fn full(suite: &Suite) -> Vec<Row> {
    vec![one_way(suite, true), one_way(suite, false)]
}

fn one_way(suite: &Suite, has_ballast: bool) -> Row {
    let (name, injected) = match has_ballast {
        true => ("disk full under the bridge", format!("a tmpfs of {MIB} MiB filled to the last byte")),
        false => ("no file of the bridge may grow", "RLIMIT_FSIZE 0".to_owned()),
    };
    let promised =
        "senders told to come again, not ready; with room it goes on by itself; every acknowledged span, once";
    let mut row = Row::new(name, promised, suite.seed);
    row.injected = format!("{injected}, {TIMES} times under load");
    let mut seen = Vec::new();
    for trial in 0..suite.count(1, 20) {
        let seed = trial_seed(suite.seed, name, trial);
        let outcome = match has_ballast {
            true => in_namespace(MIB, &["--bridge-disk"], &[&seed.to_string()]),
            false => tempfile::tempdir().map_err(Failed::from).and_then(|dir| self::trial(dir.path(), seed, false)),
        };
        if matches!(&outcome, Err(error) if error.to_string() == NO_MOUNT) {
            row.skipped = Some("no file system can be mounted here".to_owned());
            return row;
        }
        row.count(seed, outcome.map(|said| seen.push(said)));
    }
    row.seen = seen.join("; ");
    row
}

/// What runs inside of the namespace.
pub fn inside(dir: &str, seed: &str) -> Result<(), Failed> {
    println!("{}", trial(Path::new(dir), seed.parse()?, true)?);
    Ok(())
}

/// Makes the disk full, or not any more.
type Switch = Box<dyn Fn(bool) -> Result<(), Failed>>;

fn trial(dir: &Path, seed: u64, has_ballast: bool) -> Result<String, Failed> {
    let (store, mut ledger, mut random) = (dir.join("store"), Ledger::default(), Random::of(seed ^ 1));
    let mut server = Server::start(&store, &["--drain", "150"])?;
    let (pid, monitor) = (server.child().id(), server.monitor()?);
    let fill: Switch = if has_ballast { ballast(dir) } else { limit(pid as i32) };
    let protocol = if random.below(2) == 0 { Protocol::Grpc } else { Protocol::Http };
    let load = Load { seed, clients: 4, protocol, batch: Batch::Halves, rate: Some(2_000.0) };
    let mut outcome = Ok(());
    let mut times = || -> Result<(), Failed> {
        for _ in 0..TIMES {
            std::thread::sleep(Duration::from_millis(200 + random.below(800)));
            fill(true)?;
            wait_until("it is not ready", || status_of(monitor, "/readyz").is_ok_and(|code| code == 503))?;
            std::thread::sleep(Duration::from_millis(200 + random.below(1_500)));
            if status_of(monitor, "/healthz")? != 200 {
                return Err("it is not alive on a full disk".into());
            }
            fill(false)?;
            wait_until("it is ready", || status_of(monitor, "/readyz").is_ok_and(|code| code == 200))?;
        }
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    };
    load.on(server, &mut ledger, || outcome = times(), |server| server.end(DRAIN))?;
    outcome?;
    agree(&store, seed, &ledger)?;
    if ledger.put_off == 0 {
        return Err("nobody was told to come again".into());
    }
    Ok(format!("{} spans acknowledged, {} requests put off", ledger.spans(), ledger.put_off))
}

fn ballast(dir: &Path) -> Switch {
    let path = dir.join("ballast");
    Box::new(move |fills| {
        if !fills {
            return Ok(std::fs::remove_file(&path)?);
        }
        fill(&path)
    })
}

/// Takes all the room that a disk has.
pub fn fill(path: &Path) -> Result<(), Failed> {
    let (mut file, block) = (std::fs::File::create(path)?, [0; 4096]);
    while file.write(&block).is_ok_and(|written| written > 0) {}
    Ok(())
}

fn limit(pid: i32) -> Switch {
    Box::new(move |fills| {
        let bytes = if fills { 0 } else { libc::RLIM_INFINITY };
        let limits = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limits live as long as the call, which changes a child of ours.
        match unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limits, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    })
}
