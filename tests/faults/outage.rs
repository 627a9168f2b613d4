//! Upstreams that are dead, refuse, break off, come back and die again, over several processes; and bursts meanwhile.

use std::path::Path;
use std::time::Duration;

use crate::agent::{Content, Plan, Told, agent_name};
use crate::child::{Agent, Said, wait_until};
use crate::random::{Random, trial_seed};
use crate::store::{self, Recorded};
use crate::table::Row;
use crate::upstream::{Mood, Upstream};
use crate::{Failed, Suite};

/// No two agents of a trial share the numbers of their steps.
const APART: u64 = 1_000_000;
/// So many short processes may be needed to send what others left.
const AFTERMATH: u64 = 5;

/// Outages over the lives of several processes.
pub fn outages(suite: &Suite) -> Vec<Row> {
    let name = "upstream down";
    let mut row = Row::new(name, "every span arrives at least once, and is stored once", suite.seed);
    row.injected =
        "dead, 503, or broken off, over 4 processes, one of them killed; back midway, and gone again".to_owned();
    let (mut spans, mut repeated) = (0, 0);
    for trial in 0..suite.count(2, 30) {
        let seed = trial_seed(suite.seed, name, trial);
        let outcome = outage(seed).map(|arrived| {
            spans += arrived.0;
            repeated += arrived.1;
        });
        row.count(seed, outcome);
    }
    row.seen = format!("{spans} spans, {repeated} of them told more than once");
    vec![row]
}

fn outage(seed: u64) -> Result<(u64, u64), Failed> {
    let (dir, mut random) = (tempfile::tempdir()?, Random::of(seed));
    let store = dir.path().join("store");
    let mut bad = || random.pick(&Mood::BAD).unwrap_or(Mood::Dead);
    let upstream = Upstream::start(Mood::Dead)?;
    let plan = |place: u64| Plan {
        first: place * APART,
        forward: Some(upstream.url()),
        shutdown_ms: 300,
        ..Plan::endless(store.clone(), seed)
    };
    // Dead from its start for its whole life.
    let mut agents = vec![(Agent::start(&Plan { steps: Some(300), ..plan(0) })?.finish()?, false)];
    // Out of order in some way, and the agent is killed.
    upstream.become_(bad())?;
    let killed = Agent::start(&Plan { rate: Some(1_000), ..plan(1) })?;
    std::thread::sleep(Duration::from_millis(100 + seed % 500));
    agents.push((killed.kill()?, true));
    // Back in the middle of a life, and gone again.
    upstream.become_(bad())?;
    let long = Agent::start(&Plan { rate: Some(500), ..plan(2) })?;
    long.wait_for(200)?;
    upstream.become_(Mood::Well)?;
    let before = upstream.arrived().spans();
    wait_until("spans arrive after an outage", || upstream.arrived().spans() > before)?;
    upstream.become_(bad())?;
    long.wait_for(long.ended() + 150)?;
    agents.push((long.finish()?, false));
    // And in the end all is well.
    upstream.become_(Mood::Well)?;
    for place in 3..4 + AFTERMATH {
        let last = Plan { steps: Some(20), shutdown_ms: 60_000, ..plan(place) };
        agents.push((Agent::start(&last)?.finish()?, false));
        if missing(&upstream, seed, &agents)?.is_none() {
            break;
        }
    }
    if let Some(missing) = missing(&upstream, seed, &agents)? {
        return Err(missing.into());
    }
    let recorded: Vec<Recorded> = (0..)
        .zip(&agents)
        .map(|(place, (said, killed))| Recorded {
            seed,
            first: place * APART,
            said: said.clone(),
            killed: *killed,
            may_lack: 0,
        })
        .collect();
    store::read(&store)?.check(&recorded)?;
    let arrived = upstream.arrived();
    Ok((arrived.spans(), arrived.repeated()))
}

/// Names the first span that has not arrived; fails over one that nobody recorded, or that is not as it was.
fn missing(upstream: &Upstream, seed: u64, agents: &[(Said, bool)]) -> Result<Option<String>, Failed> {
    let arrived = upstream.arrived();
    if arrived.contradictions > 0 {
        return Err(format!("{} spans were told again with something else in them", arrived.contradictions).into());
    }
    for (n, (content, _)) in &arrived.steps {
        let of = agents.get((n / APART) as usize);
        let is_known = of.is_some_and(|(said, killed)| *n < said.ended + u64::from(*killed));
        if !is_known {
            return Err(format!("step {n} arrived, which nobody recorded").into());
        }
        if let Some(difference) = content.difference(&Content::of(seed, *n)) {
            return Err(format!("as it arrived, {difference}").into());
        }
    }
    let mut lacking = Vec::new();
    for (place, (said, _)) in (0..).zip(agents) {
        lacking.extend(
            (place * APART..said.ended).filter(|n| !arrived.steps.contains_key(n)).map(|n| format!("step {n}")),
        );
        lacking.extend(said.runs.iter().map(|run| agent_name(*run)).filter(|name| !arrived.runs.contains_key(name)));
    }
    Ok(lacking.first().map(|first| format!("{} spans have not arrived, {first} the first", lacking.len())))
}

/// How much a burst outgrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burst {
    /// Nothing.
    Within,
    /// The shared memory between the agent and the worker.
    BeyondMemory,
    /// The journal, in which spans wait for their upstream.
    BeyondJournal,
}

/// Bursts while the upstream is dead: within all bounds, and beyond each of them.
pub fn bursts(suite: &Suite) -> Vec<Row> {
    let steps = suite.pick(20_000, 1_000_000);
    let bursts = [
        (
            Burst::Within,
            "burst, upstream dead",
            "in bursts of 10,000, as fast as they go; shared memory 16 MiB, journal 4 GiB",
            "none dropped; all arrives later",
        ),
        (
            Burst::BeyondMemory,
            "burst beyond shared memory",
            "without a pause; shared memory 1 MiB, journal 4 GiB",
            "every drop counted, exactly; all else stored, and arrives",
        ),
        (
            Burst::BeyondJournal,
            "burst beyond the journal",
            "in bursts of 10,000; shared memory 16 MiB, journal 4 MiB",
            "all stored; what is given up for the upstream counted, exactly",
        ),
    ];
    let one = |(burst, name, injected, promised)| {
        let mut row = Row::new(name, promised, suite.seed);
        row.injected = format!("{steps} steps {injected}");
        let seed = trial_seed(suite.seed, name, 0);
        let outcome = do_burst(seed, steps, burst).map(|seen| row.seen = seen);
        row.count(seed, outcome);
        row
    };
    bursts.into_iter().map(one).collect()
}

fn do_burst(seed: u64, steps: u64, burst: Burst) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    let upstream = Upstream::start(Mood::Dead)?;
    let plan = Plan {
        steps: Some(steps),
        run_steps: 1_000,
        forward: Some(upstream.url()),
        buffer_bytes: (burst == Burst::BeyondMemory).then_some(1 << 20),
        journal_bytes: Some(if burst == Burst::BeyondJournal { 4 << 20 } else { 4 << 30 }),
        flush_every: (burst != Burst::BeyondMemory).then_some(10_000),
        lingers: true,
        shutdown_ms: 600_000,
        ..Plan::endless(store.clone(), seed)
    };
    let agent = Agent::start(&plan)?;
    agent.wait_for(steps)?;
    // The worker is to have met the bounds with the upstream still dead.
    std::thread::sleep(Duration::from_secs(1));
    upstream.become_(Mood::Well)?;
    let said = agent.finish()?;
    let told = said.reported()?.clone();
    let recorded = Recorded { seed, first: 0, said, killed: false, may_lack: told.dropped() };
    check_burst(&told, &upstream, &store, recorded, burst)
}

fn check_burst(
    told: &Told,
    upstream: &Upstream,
    store: &Path,
    recorded: Recorded,
    burst: Burst,
) -> Result<String, Failed> {
    let (unsent, arrived) = (told.dropped_for("upstream_behind"), upstream.arrived());
    let lost = told.dropped() - unsent;
    let expected = (burst == Burst::BeyondMemory, burst == Burst::BeyondJournal);
    if (lost > 0, unsent > 0) != expected {
        return Err(format!("dropped where there was room, or nothing beyond the bound: {told:?}").into());
    }
    if told.stored + lost != told.made || told.pending != 0 {
        return Err(format!("the report does not add up: {told:?}").into());
    }
    if arrived.spans() + unsent != told.stored || arrived.spans() != told.exported {
        return Err(format!("{} spans arrived: {told:?}", arrived.spans()).into());
    }
    let found = store::read(store)?;
    if found.spans() != told.stored {
        return Err(format!("{} spans are stored: {told:?}", found.spans()).into());
    }
    found.check(&[Recorded { may_lack: lost, ..recorded }])?;
    for (n, (content, _)) in &arrived.steps {
        if found.ended.get(n) != Some(content) {
            return Err(format!("step {n} arrived and is not stored, or not so").into());
        }
    }
    Ok(format!(
        "{} made, {} stored, {lost} dropped before the store, {} arrived, {unsent} given up for the upstream",
        told.made,
        told.stored,
        arrived.spans()
    ))
}
