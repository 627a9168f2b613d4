//! A disk without a byte to spare, and a store of packs on it: runs go all the same, and the disk gets its space back.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::bridge_disk::fill;
use crate::disk::{NO_MOUNT, in_namespace};
use crate::random::trial_seed;
use crate::sender::Protocol;
use crate::serve::{Batch, Ledger, Load, Server};
use crate::store::runspan;
use crate::table::Row;
use crate::{Failed, Suite};

const DRAIN: Duration = Duration::from_secs(60);
const MIB: u64 = 192;

/// All of it.
pub fn full(suite: &Suite) -> Vec<Row> {
    let promised = "single runs go out of packs, packs give their space back, all others are there and whole";
    let mut row = Row::new("cleanup on a full disk", promised, suite.seed);
    row.injected = format!("a tmpfs of {MIB} MiB filled to the last byte");
    let mut seen = Vec::new();
    for trial in 0..suite.count(1, 10) {
        let seed = trial_seed(suite.seed, "cleanup on a full disk", trial);
        let outcome = in_namespace(MIB, &["--cleanup-disk"], &[&seed.to_string()]);
        if matches!(&outcome, Err(error) if error.to_string() == NO_MOUNT) {
            row.skipped = Some("no file system can be mounted here".to_owned());
            break;
        }
        row.count(seed, outcome.map(|said| seen.push(said)));
    }
    row.seen = seen.join("; ");
    vec![row]
}

/// What runs inside of the namespace.
pub fn inside(dir: &str, seed: &str) -> Result<(), Failed> {
    println!("{}", trial(Path::new(dir), seed.parse()?)?);
    Ok(())
}

fn trial(dir: &Path, seed: u64) -> Result<String, Failed> {
    let store = dir.join("store");
    let server = Server::start(&store, &["--drain", "60"])?;
    let load = Load { seed, clients: 2, protocol: Protocol::Grpc, batch: Batch::Traces(8), rate: Some(3_000.0) };
    load.on(server, &mut Ledger::default(), || std::thread::sleep(Duration::from_secs(3)), |server| server.end(DRAIN))?;
    let mut left = runs(&store)?;
    let (before, packs) = (left.len(), bytes_of_packs(&store)?);
    fill(&dir.join("ballast"))?;
    let all = json(&store, &["cleanup", "--dry-run", "--json"])?["bytes_left"].as_u64().ok_or("no size is told")?;
    // One out of a pack, which keeps the others; then most of each.
    for most in [all - 1, all / 8] {
        let cleaned = json(&store, &["cleanup", "--max-bytes", &most.to_string(), "--json"])?;
        let removed = cleaned["removed"].as_array().ok_or("nothing is told")?;
        if removed.is_empty() || cleaned["stayed"] != serde_json::json!([]) {
            return Err(format!("{} of {before} runs went, and {} stayed", removed.len(), cleaned["stayed"]).into());
        }
        for run in removed {
            left.remove(&run["run_id"].to_string());
        }
        if runs(&store)? != left {
            return Err("others are there than those that were to be kept".into());
        }
    }
    let packs_left = bytes_of_packs(&store)?;
    if packs_left > packs / 2 {
        return Err(format!("packs take {packs_left} of {packs} bytes still").into());
    }
    let verified = runspan(&store, &["verify"])?;
    if !verified.status.success() {
        return Err(String::from_utf8_lossy(&verified.stdout).into_owned().into());
    }
    Ok(format!("{before} runs, packs of {} KiB; {} left, {} KiB", packs >> 10, left.len(), packs_left >> 10))
}

fn json(store: &Path, args: &[&str]) -> Result<serde_json::Value, Failed> {
    let said = runspan(store, args)?;
    if !said.status.success() {
        return Err(format!("{args:?}: {}", String::from_utf8_lossy(&said.stderr)).into());
    }
    Ok(serde_json::from_slice(&said.stdout)?)
}

/// The runs that are listed.
fn runs(store: &Path) -> Result<BTreeSet<String>, Failed> {
    let listed = json(store, &["list", "--limit", "0", "--json"])?;
    let runs = listed.as_array().ok_or("no list")?;
    Ok(runs.iter().map(|run| run["run_id"].to_string()).collect())
}

fn bytes_of_packs(store: &Path) -> Result<u64, Failed> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(store.join("packs"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "pack") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
