//! The bridge started and ended over and over on one store, in every way in which somebody may end it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::child::wait;
use crate::load::agree;
use crate::random::{Random, trial_seed};
use crate::sender::Protocol;
use crate::serve::{Batch, Ledger, Load, Server};
use crate::store;
use crate::table::Row;
use crate::{Failed, Suite};

/// What `--drain` is by default, and some time for a loaded machine.
const DEADLINE: Duration = Duration::from_secs(10 + 10);
/// How soon it must be over where nobody wants to wait.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long the last server may go on storing.
const DRAIN: Duration = Duration::from_secs(150);

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As a supervisor does.
    Term,
    /// By somebody who does not want to wait.
    InterruptTwice,
    /// The terminal is closed.
    HangUp,
    /// Who read its output is gone, and it goes on; then as a supervisor does.
    Pipe,
    /// Nobody has ever read its output.
    Deaf,
    /// Before it is ready: while it takes in what others left, or makes its index.
    Early,
    /// Without a word.
    Kill,
    /// The index is gone when the next one starts, which makes it anew; then as a supervisor does.
    NoIndex,
}

const WAYS: [Way; 8] =
    [Way::Term, Way::InterruptTwice, Way::HangUp, Way::Pipe, Way::Deaf, Way::Early, Way::Kill, Way::NoIndex];

/// All of it.
pub fn restarts(suite: &Suite) -> Vec<Row> {
    let name = "restart storm of the bridge";
    let promised = "SIGTERM: exit 0 in time; a second SIGINT at once; no lock stays; every acknowledged span, once";
    let mut row = Row::new(name, promised, suite.seed);
    row.injected = "SIGTERM, SIGINT twice, SIGHUP, SIGPIPE, closed output, SIGKILL, before it is ready".to_owned();
    let seed = trial_seed(suite.seed, name, 0);
    match storm(seed, suite.count(24, 1_000), &mut row) {
        Ok(spans) => row.seen = format!("{spans} spans acknowledged, 10 a trace, {CLIENTS} clients, on one store"),
        Err(error) => row.count(seed, Err::<(), _>(error)),
    }
    vec![row]
}

const CLIENTS: u64 = 2;

fn storm(seed: u64, rounds: u64, row: &mut Row) -> Result<u64, Failed> {
    let (dir, mut random, mut ledger) = (tempfile::tempdir()?, Random::of(seed), Ledger::default());
    let store = dir.path().join("store");
    for round in 0..rounds {
        // Each way early on, then any.
        let way = WAYS.get(round as usize).copied().or_else(|| random.pick(&WAYS)).unwrap_or(Way::Term);
        let ended = one(way, &store, &mut random, &mut ledger, seed);
        row.count(seed, ended.map_err(|error| format!("round {round}, {way:?}: {error}").into()));
    }
    Server::start(&store, &["--drain", "150"])?.end(DRAIN)?;
    agree(&store, seed, &ledger)?;
    Ok(ledger.spans())
}

/// Starts a server, sends to it, and ends it in one way.
fn one(way: Way, store: &Path, random: &mut Random, ledger: &mut Ledger, seed: u64) -> Result<(), Failed> {
    match way {
        Way::Early => return early(store, Duration::from_micros(random.below(120_000))),
        Way::NoIndex => drop(std::fs::remove_file(store.join("index.sqlite"))),
        _ => {}
    }
    let server = if way == Way::Deaf { Server::deaf(store)? } else { Server::start(store, &[])? };
    let protocol = if random.below(2) == 0 { Protocol::Grpc } else { Protocol::Http };
    let load = Load { seed, clients: CLIENTS, protocol, batch: Batch::Halves, rate: Some(200.0) };
    let moment = Duration::from_micros(random.below(200_000));
    load.on(server, ledger, || std::thread::sleep(moment), |server| end(way, server))
}

fn end(way: Way, mut server: Server) -> Result<(), Failed> {
    match way {
        Way::Kill => server.kill(),
        Way::InterruptTwice => {
            server.signal(libc::SIGINT);
            // Two that come before it has seen the first are one to the system.
            std::thread::sleep(Duration::from_millis(100));
            server.signal(libc::SIGINT);
            server.over(AT_ONCE)
        }
        Way::HangUp => {
            server.signal(libc::SIGHUP);
            let status = wait(server.child(), AT_ONCE)?;
            match status.signal() {
                Some(libc::SIGHUP) => Ok(()),
                _ => Err(format!("it ended with {status}").into()),
            }
        }
        Way::Pipe => {
            server.signal(libc::SIGPIPE);
            std::thread::sleep(Duration::from_millis(50));
            server.end(DEADLINE)
        }
        Way::Term | Way::Deaf | Way::NoIndex | Way::Early => server.end(DEADLINE),
    }
}

/// Ends a server a moment after it was begun, wherever it is by then.
fn early(store: &Path, moment: Duration) -> Result<(), Failed> {
    let mut child = store::command(store, &["serve", "--otlp-grpc", "0", "--otlp-http", "0", "--http", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    std::thread::sleep(moment);
    // SAFETY: a plain system call on a child that was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = wait(&mut child, DEADLINE)?;
    // Until it listens to the signal, the system ends it.
    match (status.code(), status.signal()) {
        (Some(0), _) | (_, Some(libc::SIGTERM)) => Ok(()),
        _ => Err(format!("it ended with {status} after {:?}", begun.elapsed()).into()),
    }
}
