//! A disk that gets full under an agent, and has room again.

use std::path::Path;
use std::process::Command;

use crate::agent::{Disk, Plan};
use crate::child::{Agent, WATCHDOG, clean, output};
use crate::random::{Random, trial_seed};
use crate::store::{self, Recorded};
use crate::table::Row;
use crate::{Failed, Suite};

/// Steps before the disk is full, while it is, and after.
const BEFORE: u64 = 60;
const AFTER: u64 = 60;

/// How a disk gets full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A small file system of its own, full to the last byte.
    FileSystem,
    /// The kernel refuses to make any file longer: RLIMIT_FSIZE 0.
    Limit,
}

/// All of it.
pub fn full(suite: &Suite) -> Vec<Row> {
    let mut rows = Vec::new();
    for floods in [false, true] {
        for way in [Way::FileSystem, Way::Limit] {
            rows.push(one_way(suite, way, floods));
        }
    }
    rows
}

fn one_way(suite: &Suite, way: Way, floods: bool) -> Row {
    let (name, injected) = match way {
        Way::FileSystem => ("disk full", "a tmpfs of 32 MiB filled to the last byte"),
        Way::Limit => ("no file may grow", "RLIMIT_FSIZE 0"),
    };
    let promised = if floods {
        "the agent goes on; one warning; losses counted exactly; the rest is stored"
    } else {
        "the agent goes on; one warning; with room again everything is stored"
    };
    let name = if floods { format!("{name}, and a flood") } else { name.to_owned() };
    let mut row = Row::new(&name, promised, suite.seed);
    row.injected = format!("{injected}, for {} steps", during(floods));
    let mut seen = Vec::new();
    for trial in 0..suite.count(2, 20) {
        let seed = trial_seed(suite.seed, &name, trial);
        let outcome = match way {
            Way::Limit => trial_in_temporary(seed, floods),
            Way::FileSystem => match in_small_file_system(seed, floods) {
                Err(error) if error.to_string() == NO_MOUNT => {
                    row.skipped = Some("no file system can be mounted here".to_owned());
                    return row;
                }
                outcome => outcome,
            },
        };
        row.count(seed, outcome.map(|said| seen.push(said)));
    }
    row.seen = seen.join("; ");
    row
}

const fn during(floods: bool) -> u64 {
    if floods { 8_000 } else { 1_000 }
}

fn trial_in_temporary(seed: u64, floods: bool) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    trial(dir.path(), seed, floods, false)
}

pub const NO_MOUNT: &str = "no mount";

fn in_small_file_system(seed: u64, floods: bool) -> Result<String, Failed> {
    in_namespace(32, &["--disk"], &[&seed.to_string(), &floods.to_string()])
}

/// Has this program do something with a file system of its own, in a mount namespace that goes with its process: its
/// arguments are `first`, the folder, and `rest`. Returns what it says.
pub fn in_namespace(mib: u64, first: &[&str], rest: &[&str]) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    let at = dir.path().display();
    let mounted = format!("mount -t tmpfs -o size={mib}m none '{at}' || exit 77; exec \"$0\" \"$@\"");
    let mut command: Command = clean("unshare");
    command.args(["-rm", "sh", "-c", &mounted]).arg(std::env::current_exe()?).args(first).arg(dir.path()).args(rest);
    let said = match output(&mut command, WATCHDOG) {
        Ok(said) if !matches!(said.status.code(), Some(77)) => said,
        _ => return Err(NO_MOUNT.into()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match said.status.success() {
        true => Ok(text(&said.stdout)),
        false if text(&said.stderr).starts_with("unshare:") => Err(NO_MOUNT.into()),
        false => Err(text(&said.stderr).into()),
    }
}

/// What runs inside of the namespace.
pub fn inside(dir: &str, seed: &str, floods: &str) -> Result<(), Failed> {
    println!("{}", trial(Path::new(dir), seed.parse()?, floods.parse()?, true)?);
    Ok(())
}

fn trial(dir: &Path, seed: u64, floods: bool, has_ballast: bool) -> Result<String, Failed> {
    let store = dir.join("store");
    let disk = Disk {
        ballast: has_ballast.then(|| dir.join("ballast")),
        full_after: BEFORE,
        room_after: BEFORE + during(floods),
    };
    let plan = Plan {
        steps: Some(BEFORE + during(floods) + AFTER),
        rate: (!floods).then(|| 800 + Random::of(seed).below(800)),
        buffer_bytes: floods.then_some(1 << 20),
        disk: Some(disk),
        ..Plan::endless(store.clone(), seed)
    };
    let said = Agent::start(&plan)?.finish()?;
    let told = said.reported()?.clone();
    if !said.status.success() || Some(told.made) != plan.steps.map(|steps| steps + steps.div_ceil(plan.run_steps)) {
        return Err(format!("the agent did not go on: {}, {told:?}", said.status).into());
    }
    let found = store::read(&store)?;
    let warnings = said.warnings().len();
    let recorded = Recorded { seed, first: 0, said: said.clone(), killed: false, may_lack: told.dropped() };
    found.check(&[recorded])?;
    if told.stored + told.dropped() != told.made || told.pending != 0 {
        return Err(format!("the report does not add up: {told:?}").into());
    }
    if found.spans() != told.stored {
        return Err(format!("{} spans are there, {} were reported as stored", found.spans(), told.stored).into());
    }
    if !floods && told.dropped() > 0 {
        return Err(format!("there was room in memory, and yet: {told:?}").into());
    }
    if floods && told.dropped_for("queue_full") == 0 {
        return Err(format!("nothing was lost, so this was no flood: {told:?}").into());
    }
    if warnings != 1 {
        return Err(format!("{warnings} warnings: {}", said.stderr).into());
    }
    let lost = if floods { format!("{} of {} dropped, ", told.dropped(), told.made) } else { String::new() };
    Ok(format!("{lost}slowest step {} µs", told.slowest_us))
}
