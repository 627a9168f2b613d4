//! SIGKILL at random moments, of agents and of those who take over what agents left.

use std::time::{Duration, Instant};

use runspan::journal::{FrameKind, JournalReader, list_processes};

use crate::agent::Plan;
use crate::child::Agent;
use crate::random::{Random, trial_seed};
use crate::store::{self, Recorded};
use crate::table::Row;
use crate::{Failed, Suite};

const RATES: [u64; 4] = [5, 100, 1_000, 5_000];

/// Kills agents, one at a time.
pub fn agents(suite: &Suite) -> Vec<Row> {
    RATES.iter().map(|rate| at_rate(suite, *rate)).collect()
}

fn at_rate(suite: &Suite, rate: u64) -> Row {
    let name = format!("kill at {rate} steps/s");
    let mut row = Row::new(&name, "every step whose end had returned, none invented", suite.seed);
    row.injected = "SIGKILL at a random moment".to_owned();
    let (mut lags, mut steps) = (Vec::new(), 0);
    for trial in 0..suite.count(10, 250) {
        let seed = trial_seed(suite.seed, &name, trial);
        let outcome = kill_one(rate, suite.pick(500, 1_500), seed).map(|killed| {
            steps += killed.ended;
            lags.push(killed.lag);
        });
        row.count(seed, outcome);
    }
    lags.sort_unstable();
    let at = |part: usize| lags.get((lags.len() * part / 100).min(lags.len().saturating_sub(1))).copied().unwrap_or(0);
    row.seen = format!(
        "{steps} steps had ended; the worker's lag at the kill, in steps that only shared memory held: median {}, 90 % {}, \
         most {}",
        at(50),
        at(90),
        at(100)
    );
    row
}

struct Killed {
    ended: u64,
    lag: u64,
}

fn kill_one(rate: u64, within_ms: u64, seed: u64) -> Result<Killed, Failed> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    let plan = Plan { rate: Some(rate), ..Plan::endless(store.clone(), seed) };
    let agent = Agent::start(&plan)?;
    std::thread::sleep(Duration::from_micros(Random::of(seed ^ 1).below(within_ms * 1_000)));
    let said = agent.kill()?;
    if said.ended == 0 && !store.join("store.yaml").exists() {
        // Killed before it had come to its first step: there is nothing to lose.
        return Ok(Killed { ended: 0, lag: 0 });
    }
    let spans = said.ended + said.runs.len() as u64;
    let killed = Killed { ended: said.ended, lag: spans.saturating_sub(journaled(&store)?) };
    let found = store::read(&store)?;
    found.check(&[Recorded { seed, first: 0, said, killed: true, may_lack: 0 }])?;
    nothing_left(&store)?;
    Ok(killed)
}

/// Counts the ended spans that a dead process had brought into its journal.
fn journaled(store: &std::path::Path) -> Result<u64, Failed> {
    let (dir, mut ended) = (store.join("journal"), 0);
    for process in list_processes(&dir)? {
        // A reader of this name has never been there, so it begins at the oldest frame.
        let mut reader = JournalReader::open_read_only(&dir, &process.name, "onlooker")?;
        loop {
            let batch = reader.next_batch(4 << 20)?;
            if batch.is_empty() {
                break;
            }
            ended += batch.frames().filter(|frame| frame.kind == FrameKind::Ended).count() as u64;
        }
    }
    Ok(ended)
}

fn nothing_left(store: &std::path::Path) -> Result<(), Failed> {
    match list_processes(&store.join("journal"))?.as_slice() {
        [] => Ok(()),
        left => Err(format!("what {} processes left was taken in and is there still", left.len()).into()),
    }
}

/// Kills who takes over what a killed agent left, twice.
pub fn adopters(suite: &Suite) -> Vec<Row> {
    let name = "kill of who takes over";
    let mut row = Row::new(name, "the same, each step once", suite.seed);
    row.injected = "SIGKILL of the agent in a burst, then twice of `runspan list`".to_owned();
    let (mut usual, mut in_time) = (Duration::from_millis(100), 0);
    for trial in 0..suite.count(4, 100) {
        let seed = trial_seed(suite.seed, name, trial);
        let outcome = kill_adopters(seed, &mut usual).map(|killed| in_time += killed);
        row.count(seed, outcome);
    }
    row.seen = format!("{in_time} of {} were killed before they were done", 2 * row.of);
    vec![row]
}

fn kill_adopters(seed: u64, usual: &mut Duration) -> Result<u64, Failed> {
    let (dir, mut random) = (tempfile::tempdir()?, Random::of(seed));
    let store = dir.path().join("store");
    let agent = Agent::start(&Plan::endless(store.clone(), seed))?;
    agent.wait_for(500 + random.below(1_000))?;
    let said = agent.kill()?;
    let mut in_time = 0;
    for _ in 0..2 {
        let mut adopter = store::command(&store, &["list"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_micros(random.below(usual.as_micros() as u64)));
        in_time += u64::from(adopter.try_wait()?.is_none());
        adopter.kill()?;
        adopter.wait()?;
    }
    let start = Instant::now();
    let found = store::read(&store)?;
    *usual = (*usual + start.elapsed()) / 2;
    found.check(&[Recorded { seed, first: 0, said, killed: true, may_lack: 0 }])?;
    nothing_left(&store)?;
    Ok(in_time)
}
