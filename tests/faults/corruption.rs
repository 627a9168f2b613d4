//! Damage to every kind of file of a small store, and to shared memory: every command answers, and costs are where the
//! damage is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;

use crate::agent::{Content, Plan};
use crate::child::{Agent, output, wait_until};
use crate::random::{Random, trial_seed};
use crate::store::{self, Recorded, content_of};
use crate::table::Row;
use crate::{Failed, Suite};

/// A command that has not answered by then hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Bits flipped at a time: many a one, in a time stamp say, goes unnoticed.
const FLIPS: u64 = 8;
/// Where the numbers of the killed agent's steps begin.
const KILLED: u64 = 1_000_000;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    RunFile,
    EventLog,
    IndexLog,
    StoreFile,
    Segment,
    Position,
    Lock,
    Ring,
}

const TARGETS: [(Target, &str, &str); 8] = [
    (Target::RunFile, "run.yaml", "that run alone is damaged"),
    (Target::EventLog, "events.jsonl", "that run alone is damaged"),
    (Target::IndexLog, "index.log", "costs nothing"),
    (Target::StoreFile, "store.yaml", "costs nothing, or every command says so"),
    (Target::Segment, "a journal's segment", "costs records of the killed process alone, alters none"),
    (Target::Position, "a reader's position", "costs nothing"),
    (Target::Lock, "a journal's lock", "costs records of the killed process alone, alters none"),
    (Target::Ring, "shared memory", "costs records of the killed process alone, alters none"),
];

impl Target {
    fn is(self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match self {
            Self::RunFile => name == "run.yaml",
            Self::EventLog => name == "events.jsonl",
            Self::IndexLog => name == "index.log",
            Self::StoreFile => name == "store.yaml",
            Self::Segment => name.ends_with(".seg"),
            Self::Position => path.parent().is_some_and(|dir| dir.ends_with("positions")),
            Self::Lock => name == "lock",
            Self::Ring => name.ends_with(".ring"),
        }
    }

    /// May what the killed process recorded be missing?
    fn is_of_killed(self) -> bool {
        matches!(self, Self::Segment | Self::Lock | Self::Ring)
    }
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    FlipBits,
    Truncate,
    Zero,
    Delete,
}

/// Damages copies of one store, a file at a time.
pub fn damages(suite: &Suite) -> Vec<Row> {
    let promises = TARGETS.map(|(_, words, promise)| (format!("damage to {words}"), promise));
    let mut rows = Vec::new();
    let sample = Sample::make(trial_seed(suite.seed, "corruption", 0));
    for ((target, ..), (name, promised)) in TARGETS.into_iter().zip(promises) {
        let mut row = Row::new(&name, promised, suite.seed);
        row.injected = "8 bits flipped, cut off, zeros, deleted".to_owned();
        for trial in 0..suite.count(4, 100) {
            let seed = trial_seed(suite.seed, &name, trial);
            let outcome = match &sample {
                Ok(sample) => sample.trial(target, trial, seed),
                Err(error) => Err(error.to_string().into()),
            };
            row.count(seed, outcome);
        }
        rows.push(row);
    }
    rows
}

/// A store with the runs of an agent that came to its end and of one that was killed, which nobody has looked at since.
struct Sample {
    dir: tempfile::TempDir,
    seed: u64,
    /// Shared memory that the killed agent left.
    ring: PathBuf,
    /// Run folders of the killed agent, relative to the store.
    of_killed: Vec<PathBuf>,
    /// What every run says, by id, when nothing is damaged.
    sound: BTreeMap<String, Answer>,
}

/// What `runspan get` says of a run.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    whole: Json,
    is_of_killed: bool,
    /// Its steps: by number, and how they stand.
    steps: BTreeMap<u64, (String, Content)>,
}

impl Drop for Sample {
    fn drop(&mut self) {
        // Gone already where the last trial ended well.
        let _ = fs::remove_file(&self.ring);
    }
}

impl Sample {
    fn make(seed: u64) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let store = dir.path().join("store");
        let plan = |first| Plan { first, run_steps: 5, ..Plan::endless(store.clone(), seed) };
        let ended = Agent::start(&Plan { steps: Some(25), ..plan(0) })?.finish()?;
        let before = run_dirs(&store)?;
        let agent = Agent::start(&Plan { run_steps: 400, ..plan(KILLED) })?;
        agent.wait_for(150)?;
        // Something is to be in each place where a killed process leaves things.
        wait_until("a journal has a segment", || {
            files(&store).is_ok_and(|files| files.iter().any(|path| Target::Segment.is(path)))
        })?;
        let killed = agent.kill()?;
        let of_killed: Vec<PathBuf> = run_dirs(&store)?.into_iter().filter(|dir| !before.contains(dir)).collect();
        let ring = ring_of(&store)?;
        let mut sample = Self { dir, seed, ring, of_killed, sound: BTreeMap::new() };
        copy_dir(&store, &sample.pristine())?;
        fs::copy(&sample.ring, sample.dir.path().join("ring"))?;
        let recorded = [(0, ended, false), (KILLED, killed, true)].map(|(first, said, killed)| Recorded {
            seed,
            first,
            said,
            killed,
            may_lack: 0,
        });
        store::read(&store)?.check(&recorded)?;
        sample.sound = sample.answers(&Damage::default())?;
        Ok(sample)
    }

    fn pristine(&self) -> PathBuf {
        self.dir.path().join("pristine")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Makes the store as it was; with `untold` as if the killed process's run store had taken nothing in yet.
    fn restore(&self, untold: bool) -> Result<(), Failed> {
        let store = self.store();
        fs::remove_dir_all(&store)?;
        copy_dir(&self.pristine(), &store)?;
        fs::copy(self.dir.path().join("ring"), &self.ring)?;
        if untold {
            self.of_killed.iter().try_for_each(|dir| fs::remove_dir_all(store.join(dir)))?;
            for position in files(&store)?.into_iter().filter(|path| Target::Position.is(path)) {
                fs::remove_file(position)?;
            }
        }
        Ok(())
    }

    fn trial(&self, target: Target, trial: u64, seed: u64) -> Result<(), Failed> {
        let mut random = Random::of(seed);
        // A position is of use only where something was told, and frames only where nothing was.
        let untold = match target {
            Target::Position => false,
            Target::Segment => true,
            _ => random.below(2) == 0,
        };
        self.restore(untold)?;
        let mut at: Vec<PathBuf> = files(&self.store())?.into_iter().chain([self.ring.clone()]).collect();
        at.retain(|path| target.is(path));
        let path = at.get(random.below(at.len() as u64) as usize).ok_or("no such file")?.clone();
        let harms = [Harm::FlipBits, Harm::Truncate, Harm::Zero, Harm::Delete];
        let harm = harms[(trial % 4) as usize];
        harm.to(&path, &mut random)?;
        let damage = Damage { target: Some(target), run: run_of(&path) };
        self.judge(&damage).map_err(|error| {
            let path = path.strip_prefix(self.dir.path()).unwrap_or(&path).display();
            format!("{harm:?} of {path}{}: {error}", if untold { ", untold" } else { "" }).into()
        })
    }

    fn judge(&self, damage: &Damage) -> Result<(), Failed> {
        let answers = self.answers(damage)?;
        if answers.is_empty() && damage.target == Some(Target::StoreFile) {
            return Ok(());
        }
        for (id, sound) in &self.sound {
            let is_damaged = damage.run.as_ref() == Some(id);
            let may_lack = sound.is_of_killed && damage.target.is_some_and(Target::is_of_killed);
            let Some(answer) = answers.get(id) else {
                if is_damaged || may_lack {
                    continue;
                }
                return Err(format!("run {id} is not there any more").into());
            };
            if is_damaged {
                continue;
            }
            let same = if sound.is_of_killed { answer.steps == sound.steps } else { answer.whole == sound.whole };
            if !same && !may_lack {
                return Err(
                    format!("run {id} has changed: {} steps of {}", answer.steps.len(), sound.steps.len()).into()
                );
            }
            self.is_true(answer)?;
        }
        for (id, answer) in answers.iter().filter(|(id, _)| !self.sound.contains_key(*id)) {
            // Steps whose beginning of a run was lost are a run by another id.
            if !damage.target.is_some_and(Target::is_of_killed) {
                return Err(format!("run {id} was never recorded").into());
            }
            self.is_true(answer)?;
        }
        Ok(())
    }

    /// Checks that no step says what it never said. One whose end was lost may say less.
    fn is_true(&self, answer: &Answer) -> Result<(), Failed> {
        for (status, content) in answer.steps.values() {
            let recorded = Content::of(self.seed, content.n);
            let is_part = status != "success" && content.text == recorded.text && content.tokens.is_none();
            if let Some(difference) = content.difference(&recorded).filter(|_| !is_part) {
                return Err(format!("{difference}; it is {status}").into());
            }
        }
        Ok(())
    }

    /// Asks every command, and returns what is said of each run that can be read.
    fn answers(&self, damage: &Damage) -> Result<BTreeMap<String, Answer>, Failed> {
        let is_refused = |said: &Output| damage.target == Some(Target::StoreFile) && said.status.code() == Some(3);
        let listed = self.ask(&["list", "--limit", "0", "--json"])?;
        if is_refused(&listed) {
            for args in [&["list"][..], &["get", "latest"], &["tail", "latest"]] {
                expect(&self.ask(args)?, &[3], args)?;
            }
            // Without a store it warns of that, and all else may be well.
            expect(&self.ask(&["doctor"])?, &[0, 1], &["doctor"])?;
            return Ok(BTreeMap::new());
        }
        expect(&listed, &[0], &["list"])?;
        expect(&self.ask(&["list"])?, &[0], &["list"])?;
        expect(&self.ask(&["doctor", "--json"])?, &[0, 1], &["doctor"])?;
        let codes: &[i32] = match damage.target {
            None => &[0],
            // A log that ended well is known by its hash.
            Some(Target::EventLog) if !damage.run.as_ref().is_some_and(|run| self.is_of_killed(run)) => &[1],
            Some(_) => &[0, 1],
        };
        expect(&self.ask(&["verify", "--json"])?, codes, &["verify"])?;
        let mut answers = BTreeMap::new();
        let listed: Json = serde_json::from_slice(&listed.stdout)?;
        for id in listed.as_array().into_iter().flatten().filter_map(|run| run["run_id"].as_str()) {
            let is_damaged = damage.run.as_deref() == Some(id);
            let codes: &[i32] = if is_damaged { &[0, 1] } else { &[0] };
            let got = self.ask(&["get", id, "--json"])?;
            expect(&got, codes, &["get", id, "--json"])?;
            if is_damaged {
                for args in [&["get", id][..], &["get", id, "--events"], &["tail", id]] {
                    expect(&self.ask(args)?, codes, args)?;
                }
            }
            if got.status.success() {
                answers.insert(id.to_owned(), answer(&got.stdout, is_damaged)?);
            }
        }
        Ok(answers)
    }

    fn is_of_killed(&self, run: &str) -> bool {
        self.of_killed.iter().any(|dir| dir.ends_with(run))
    }

    fn ask(&self, args: &[&str]) -> Result<Output, Failed> {
        let said = output(&mut store::command(&self.store(), args), ANSWER_LIMIT);
        said.map_err(|error| format!("runspan {}: {error}", args.join(" ")).into())
    }
}

/// What was damaged in a trial.
#[derive(Clone, Debug, Default)]
struct Damage {
    target: Option<Target>,
    /// The run that the file belongs to.
    run: Option<String>,
}

impl Harm {
    fn to(self, path: &Path, random: &mut Random) -> Result<(), Failed> {
        let mut bytes = fs::read(path)?;
        // Shared memory is mostly empty: what is not is what matters.
        let full = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let at = random.below(full as u64) as usize;
        match self {
            Self::FlipBits => {
                for _ in 0..FLIPS {
                    let at = random.below(full as u64) as usize;
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8));
                }
            }
            Self::Truncate => bytes.truncate(at),
            Self::Zero => bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
            Self::Delete => return Ok(fs::remove_file(path)?),
        }
        Ok(fs::write(path, bytes)?)
    }
}

fn answer(json: &[u8], is_damaged: bool) -> Result<Answer, Failed> {
    let whole: Json = serde_json::from_slice(json)?;
    // One that had only begun says so by its status alone.
    let (mut steps, mut is_of_killed) = (BTreeMap::new(), whole["status"] == "crashed");
    for step in whole["steps"].as_array().into_iter().flatten().filter(|step| step["kind"] != "agent") {
        match content_of(step) {
            Ok(content) => {
                is_of_killed |= content.n >= KILLED;
                let status = step["status"].as_str().unwrap_or_default().to_owned();
                steps.insert(content.n, (status, content));
            }
            // Texts carry no checksum in the store: a damaged run may say anything. And the text of a step can be lost
            // with its end.
            Err(_) if is_damaged || step["status"] != "success" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Answer { whole, is_of_killed, steps })
}

fn expect(said: &Output, codes: &[i32], args: &[&str]) -> Result<(), Failed> {
    let stderr = String::from_utf8_lossy(&said.stderr);
    let is_known = said.status.code().is_some_and(|code| codes.contains(&code));
    if is_known && !stderr.contains("panicked at") {
        return Ok(());
    }
    Err(format!("runspan {}: {}, not {codes:?}: {stderr}", args.join(" "), said.status).into())
}

/// Finds the shared memory of the one process that left any.
fn ring_of(store: &Path) -> Result<PathBuf, Failed> {
    let processes = runspan::journal::list_processes(&store.join("journal"))?;
    let process = processes.first().ok_or("the killed agent left no journal")?;
    // SAFETY: always succeeds and touches no memory.
    let user = unsafe { libc::geteuid() };
    let dirs = ["/dev/shm".into(), std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default()];
    let mut paths =
        dirs.iter().map(|dir| Path::new(dir).join(format!("runspan-{user}")).join(format!("{}.ring", process.name)));
    Ok(paths.find(|path| path.exists()).ok_or("the killed agent left no shared memory")?)
}

/// Returns the folders of all runs, relative to the store.
fn run_dirs(store: &Path) -> Result<Vec<PathBuf>, Failed> {
    let logs = files(store)?.into_iter().filter(|path| Target::RunFile.is(path));
    Ok(logs.filter_map(|path| Some(path.parent()?.strip_prefix(store).ok()?.to_owned())).collect())
}

/// Returns the id of the run that a file belongs to.
fn run_of(path: &Path) -> Option<String> {
    let is_of_run = Target::RunFile.is(path) || Target::EventLog.is(path);
    is_of_run.then(|| path.parent()?.file_name()?.to_str().map(str::to_owned))?
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    // The order of a directory is nobody's seed.
    all.sort();
    Ok(all)
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().ok_or("a file without a name")?);
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
