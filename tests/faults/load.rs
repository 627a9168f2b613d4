//! The bridge under load: killed, asked to end, sent more than it can store, with a target that hangs.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::random::{Random, trial_seed};
use crate::sender::Protocol;
use crate::serve::{Batch, Ledger, Load, Server, stored};
use crate::store;
use crate::table::Row;
use crate::{Failed, Suite};

const CLIENTS: u64 = 8;
const WAYS: [(Protocol, Batch, &str); 4] = [
    (Protocol::Grpc, Batch::Traces(50), "gRPC, 500 spans a request"),
    (Protocol::Grpc, Batch::Halves, "gRPC, 10 spans a request"),
    (Protocol::Http, Batch::Traces(50), "HTTP, 500 spans a request"),
    (Protocol::Http, Batch::Halves, "HTTP, 10 spans a request"),
];
/// What the server may take of memory, in KiB, whatever it is sent.
const MEMORY_KIB: u64 = 256 << 10;
/// How long a server may go on storing what it has acknowledged.
pub const DRAIN: Duration = Duration::from_secs(150);
pub const DRAINS: [&str; 2] = ["--drain", "140"];
/// The same after minutes of more than it can store, when a journal of a GiB is full.
const LONG_DRAIN: Duration = Duration::from_secs(900);
const LONG_DRAINS: [&str; 2] = ["--drain", "880"];

/// Kills the server under load, again and again on one store.
pub fn kills(suite: &Suite) -> Vec<Row> {
    let row = |(protocol, batch, words): (Protocol, Batch, &str)| {
        let name = format!("kill of the bridge: {words}");
        let mut row = Row::new(&name, "every acknowledged span, once; list, get and verify agree", suite.seed);
        let (kills, mut spans) = (suite.count(3, 10), 0);
        row.injected = format!("SIGKILL under load, {kills} times on one store; what was unheard is sent again");
        for trial in 0..suite.count(1, 10) {
            let seed = trial_seed(suite.seed, &name, trial);
            let load = Load { seed, clients: CLIENTS, protocol, batch, rate: None };
            row.count(seed, kill(load, kills, suite.pick(400, 1_500)).map(|taken| spans += taken));
        }
        row.seen = format!("{spans} spans acknowledged");
        row
    };
    WAYS.into_iter().map(row).collect()
}

fn kill(load: Load, kills: u64, within_ms: u64) -> Result<u64, Failed> {
    let (dir, mut random) = (tempfile::tempdir()?, Random::of(load.seed ^ 1));
    let store = dir.path().join("store");
    let mut ledger = Ledger::default();
    for _ in 0..kills {
        let moment = Duration::from_micros(100_000 + random.below(within_ms * 1_000));
        load.on(Server::start(&store, &[])?, &mut ledger, || std::thread::sleep(moment), Server::kill)?;
    }
    // Whoever comes next goes on with what was acknowledged.
    Server::start(&store, &DRAINS)?.end(DRAIN)?;
    agree(&store, load.seed, &ledger)?;
    Ok(ledger.spans())
}

/// Asks the server to end under load.
pub fn ends(suite: &Suite) -> Vec<Row> {
    let name = "end of the bridge";
    let mut row = Row::new(name, "exit code 0, and every acknowledged span in the store, once", suite.seed);
    row.injected = format!("SIGTERM under load of {CLIENTS} clients");
    let mut spans = 0;
    for (trial, (protocol, batch, _)) in (0..suite.count(4, 100)).zip(WAYS.into_iter().cycle()) {
        let seed = trial_seed(suite.seed, name, trial);
        let load = Load { seed, clients: CLIENTS, protocol, batch, rate: None };
        row.count(seed, end(load, suite.pick(400, 1_500)).map(|taken| spans += taken));
    }
    row.seen = format!("{spans} spans acknowledged");
    vec![row]
}

fn end(load: Load, within_ms: u64) -> Result<u64, Failed> {
    let (dir, mut random) = (tempfile::tempdir()?, Random::of(load.seed ^ 1));
    let (store, mut ledger) = (dir.path().join("store"), Ledger::default());
    let moment = Duration::from_micros(100_000 + random.below(within_ms * 1_000));
    let server = Server::start(&store, &DRAINS)?;
    load.on(server, &mut ledger, || std::thread::sleep(moment), |server| server.end(DRAIN))?;
    agree(&store, load.seed, &ledger)?;
    Ok(ledger.spans())
}

/// Sends more than the server can store, while a target of it hangs.
pub fn overloads(suite: &Suite) -> Vec<Row> {
    let name = "bridge overloaded";
    let mut row = Row::new(name, "senders told to slow down; under 256 MiB; every acknowledged span, once", suite.seed);
    let lasting = Duration::from_secs(suite.pick(8, 300));
    row.injected = format!("twice what it stores, for {} s; a target that takes and never answers", lasting.as_secs());
    for (protocol, batch, _) in [WAYS[0], WAYS[2]].into_iter().take(suite.pick(1, 2)) {
        let seed = trial_seed(suite.seed, name, row.of);
        let load = Load { seed, clients: 8, protocol, batch, rate: None };
        let outcome = overload(load, lasting, suite).map(|seen| row.seen.push_str(&seen));
        row.count(seed, outcome);
    }
    vec![row]
}

fn overload(mut load: Load, lasting: Duration, suite: &Suite) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    let hung = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", hung.local_addr()?);
    // What waits for the store may take so much disk: reached within the reduced time, too.
    let journal = suite.pick("2", "1024");
    let flags = |journal| [&["--forward", &url, "--journal", journal][..], &LONG_DRAINS].concat();
    // On a machine with other work a short flood may be stored as it comes, and then says nothing of what more there could be.
    let floods = [1, 2, 4].map(|longer| Duration::from_secs(longer * suite.pick(2, 20)));
    let mut rates = floods.iter().enumerate().map(|(flood, lasting)| {
        sustainable(load, &dir.path().join(format!("flood-{flood}")), &flags("1024"), *lasting)
    });
    let stored = rates.find_map(Result::transpose).ok_or("three floods were stored as they came")??;
    load.rate = Some(2.0 * stored);
    let (store, mut ledger, mut peak) = (dir.path().join("store"), Ledger::default(), 0);
    let server = Server::start(&store, &flags(journal))?;
    let end = |server: Server| {
        peak = server.peak_kib()?;
        server.end(LONG_DRAIN)
    };
    load.on(server, &mut ledger, || std::thread::sleep(lasting), end)?;
    agree(&store, load.seed, &ledger)?;
    let seen = format!(
        "{} spans acknowledged of {:.0} a second ({stored:.0} are stored), {} requests put off, peak {} MiB; ",
        ledger.spans(),
        2.0 * stored,
        ledger.put_off,
        peak >> 10
    );
    if ledger.put_off == 0 {
        return Err(format!("nobody was told to slow down: {seen}").into());
    }
    if peak > MEMORY_KIB {
        return Err(format!("too much memory: {seen}").into());
    }
    Ok(seen)
}

/// Returns how many spans are stored in a second, in a store that is thrown away: of those that a flood has left to be
/// stored, when nobody sends any more. While it lasts there are fewer, as who sends takes the processors.
///
/// `None` where it left nothing.
fn sustainable(load: Load, store: &Path, flags: &[&str], lasting: Duration) -> Result<Option<f64>, Failed> {
    let server = Server::start(store, flags)?;
    let monitor = server.monitor()?;
    let (mut ledger, mut kept) = (Ledger::default(), None);
    let keep = |server: Server| {
        kept = Some(server);
        Ok(())
    };
    load.on(server, &mut ledger, || std::thread::sleep(lasting), keep)?;
    let server = kept.ok_or("the server was not kept")?;
    let rate = stored_in_a_second(monitor, lasting);
    server.kill()?;
    rate
}

/// Measures until a second is over in which nothing was stored, or `longest`; `None` where nothing was.
fn stored_in_a_second(monitor: SocketAddr, longest: Duration) -> Result<Option<f64>, Failed> {
    let (before, start) = (stored(monitor)?, Instant::now());
    let (mut last, mut lasted) = (before, Duration::ZERO);
    while start.elapsed() < longest && start.elapsed() < lasted + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(20));
        let now = stored(monitor)?;
        if now > last {
            (last, lasted) = (now, start.elapsed());
        }
    }
    Ok((last > before).then(|| (last - before) as f64 / lasted.as_secs_f64()))
}

/// Checks what `list`, `get` and `verify` say against what was acknowledged, and against each other.
pub fn agree(store: &Path, seed: u64, ledger: &Ledger) -> Result<(), Failed> {
    let found = store::read(store)?;
    ledger.check(&found, seed)?;
    let verified = store::runspan(store, &["verify", "--json"])?;
    if !verified.status.success() {
        let report: Json = serde_json::from_slice(&verified.stdout)?;
        return Err(format!("runspan verify: {}", report["problems"]).into());
    }
    let mut listed: Vec<Json> = json(store, &["list", "--kind", "agent", "--limit", "0", "--json"])?;
    if listed.len() != found.runs.len() {
        return Err(format!("{} runs of agents are listed, and {} are there", listed.len(), found.runs.len()).into());
    }
    listed.truncate(5);
    for run in listed {
        let id = run["run_id"].as_str().unwrap_or_default();
        let shown: Json = json(store, &["get", id, "--json"])?;
        let steps = shown["steps"].as_array().map(Vec::len).unwrap_or_default() as u64;
        if run["steps_total"].as_u64() != Some(steps) || shown["status"] != run["status"] {
            return Err(format!("run {id} has {steps} steps, and {} in the list", run["steps_total"]).into());
        }
    }
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(store: &Path, args: &[&str]) -> Result<T, Failed> {
    let output = store::runspan(store, args)?;
    if !output.status.success() {
        return Err(format!("runspan {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
