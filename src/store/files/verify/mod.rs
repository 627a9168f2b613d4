//! Checks a store: whether everything in it can be read, and whether what is said twice is said the same.
//!
//! Each run is checked for itself: every line of its log, `run.yaml` against what the events add up to, the files that it
//! produced. Then what is derived is held against the runs: `index.log`, `index.sqlite`. Journals are checked frame by
//! frame. Nothing is changed but by [`repair`], which makes anew what follows from something whole, and never makes up
//! what is lost.

mod index;
mod packs;
mod presence;
mod repair;
mod run;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{run_dir, run_ids};
use crate::journal;
use crate::model::id::{IdMap, IdSet};
use crate::model::run::LogHash;
use crate::model::{RunId, RunKind, RunStatus};
use crate::store::StoreError;

pub use repair::{Repaired, repair};

/// So many runs are checked at a time, at most: each takes the memory of its steps and of one line.
const MAX_THREADS: usize = 8;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The run, if it is one's.
    pub run_id: Option<RunId>,
    /// The file, within the store.
    pub file: String,
    /// The line, from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub todo: String,
    /// What would put it right.
    #[serde(skip)]
    cure: Option<Cure>,
    /// A writer at work leaves it so for a moment.
    #[serde(skip)]
    is_of_the_moment: bool,
}

/// What puts a problem right without making anything up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cure {
    /// Cut an unfinished line off.
    CutLog,
    /// Make `run.yaml` of the events.
    Summary,
    /// Put spaces in the place of lines of `index.log` that nobody can read.
    UnreadLines,
    /// Append the run's line to `index.log`.
    IndexLine,
    /// Append the line of each run to `index.log`.
    Index,
    /// Take a removed run out of its pack again.
    Bury,
    /// Write a pack anew.
    Pack(RunId),
    /// Delete tombstones whose pack is missing.
    Orphan,
    /// Take away an empty folder that stands where a packed run's would.
    EmptyFolder,
    /// Let `index.log` say that runs which are nowhere were removed.
    Nowhere,
    /// Make `index.sqlite` anew.
    #[cfg_attr(not(feature = "index"), expect(dead_code, reason = "there is no database then"))]
    Database,
}

impl Problem {
    /// A problem of no run, with a file of the store.
    fn of_file(layout: &Layout, path: &Path, what: String, todo: &str, cure: Option<Cure>) -> Self {
        let (file, todo) = (within(layout, path), todo.to_owned());
        Self { run_id: None, file, line: None, what, todo, cure, is_of_the_moment: false }
    }

    /// Tells whether [`repair`] can put it right.
    pub fn is_repairable(&self) -> bool {
        self.cure.is_some()
    }

    fn is_of_log(&self) -> bool {
        // Files that a run produced may be named so, too; those stand a folder deeper.
        let mut parts = self.file.rsplit('/');
        let is_log = matches!(parts.next(), Some(run_dir::LOG | run_dir::SEALED_LOG));
        is_log && parts.next().is_none_or(|folder| folder != "artifacts")
    }
}

/// How a run was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A process that lives writes it, and what there is of it is as it should be.
    BeingWritten,
    /// Not as it should be.
    Damaged,
}

/// What was found of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCheck {
    /// The run.
    pub run_id: RunId,
    /// How it was found.
    pub verdict: Verdict,
    /// Its status, if that can be read.
    pub status: Option<RunStatus>,
    /// Whole lines of its log.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, the log first.
    pub problems: Vec<Problem>,
    /// The run that started it is not in this store.
    pub has_unknown_parent: bool,
    /// Another version added it up by other rules.
    pub has_other_rules: bool,
    /// SHA-256 of the lines that were read.
    pub sha256: Option<LogHash>,
    /// It is over, and no hash of its log is known.
    pub has_no_hash: bool,
}

/// How the log of a run is, to be kept elsewhere: a line of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The run.
    pub run_id: RunId,
    /// Lines of its log.
    pub events: u64,
    /// SHA-256 of these lines.
    pub sha256: LogHash,
}

/// What is checked.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These runs; `None`: the whole store.
    pub runs: Option<Vec<RunId>>,
    /// How logs were once, by what was kept elsewhere.
    pub against: Vec<Head>,
}

impl RunCheck {
    fn new(run_id: RunId) -> Self {
        Self {
            run_id,
            verdict: Verdict::Ok,
            status: None,
            events: 0,
            bytes: 0,
            problems: Vec::new(),
            has_unknown_parent: false,
            has_other_rules: false,
            sha256: None,
            has_no_hash: false,
        }
    }
}

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Is nothing damaged?
    pub ok: bool,
    /// Runs that were checked.
    pub runs: u64,
    /// Those of them that are damaged.
    pub damaged: u64,
    /// Those that a process is writing.
    pub being_written: u64,
    /// Lines of their logs.
    pub events: u64,
    /// Bytes of these lines.
    pub bytes: u64,
    /// Frames of journals.
    pub frames: u64,
    /// What is wrong: the first bad record of each damaged run first of that run's.
    pub problems: Vec<Problem>,
    /// What cannot be known, and what is no damage and worth a word.
    pub notes: Vec<String>,
    /// The logs of the runs that are as they should be, by run.
    #[serde(skip)]
    pub heads: Vec<Head>,
}

impl Report {
    fn add(&mut self, check: RunCheck) {
        self.runs += 1;
        self.events += check.events;
        self.bytes += check.bytes;
        match check.verdict {
            Verdict::Ok => {}
            Verdict::BeingWritten => self.being_written += 1,
            Verdict::Damaged => self.damaged += 1,
        }
        if let Some(sha256) = check.sha256.filter(|_| check.verdict != Verdict::Damaged) {
            self.heads.push(Head { run_id: check.run_id, events: check.events, sha256 });
        }
        self.problems.extend(check.problems);
    }
}

/// Checks a store, or some runs. `progress` is told how many runs of how many are done.
///
/// # Errors
///
/// When the store cannot be read, or a run that is named is not there. What is damaged is in the report.
pub fn verify(layout: &Layout, wanted: &Wanted, mut progress: impl FnMut(usize, usize)) -> Result<Report, StoreError> {
    layout.read()?;
    let mut report = Report::default();
    let runs = match &wanted.runs {
        Some(runs) => named(layout, runs)?,
        None => all(layout, &mut report)?,
    };
    let lines = index::Lines::read(layout, &mut report.problems)?;
    let against: IdMap<RunId, &Head> = wanted.against.iter().map(|head| (head.run_id, head)).collect();
    let mut checks = Vec::with_capacity(runs.len());
    check_each(layout, &runs, &lines, &against, |check| {
        checks.push(check?);
        progress(checks.len(), runs.len());
        Ok(())
    })?;
    look_again(layout, &runs, &against, &mut checks)?;
    // Whoever came first: the report is the same.
    checks.sort_by_key(|check| check.run_id);
    report.notes = notes(&checks, wanted);
    index::check_presence(layout, &lines, &checks, &mut report);
    checks.into_iter().for_each(|check| report.add(check));
    if wanted.runs.is_none() {
        index::check_database(layout, &mut report)?;
        packs::check(layout, &mut report)?;
        presence::check(layout, &runs, &lines, &mut report)?;
        check_journals(layout, &mut report)?;
    }
    report.ok = report.problems.is_empty();
    Ok(report)
}

/// Looks at the runs again that seem damaged, until two looks find the same: one that is removed, packed, unpacked, sealed or
/// adopted while it is looked at is not as it should be for a moment, and what two places say of it differs.
fn look_again(
    layout: &Layout,
    runs: &[(RunKind, RunId)],
    against: &IdMap<RunId, &Head>,
    checks: &mut [RunCheck],
) -> Result<(), StoreError> {
    for _ in 1..run::LOOKS {
        let damaged = checks.iter_mut().filter(|check| check.verdict == Verdict::Damaged);
        let mut damaged: IdMap<RunId, &mut RunCheck> = damaged.map(|check| (check.run_id, check)).collect();
        if damaged.is_empty() {
            break;
        }
        if is_anybody_at_work(layout) {
            // A line of the index to come, say.
            std::thread::sleep(run::BETWEEN_LOOKS);
        }
        let runs: Vec<(RunKind, RunId)> = runs.iter().filter(|(_, run)| damaged.contains_key(run)).copied().collect();
        let lines = index::Lines::read(layout, &mut Vec::new())?;
        let mut is_same = true;
        check_each(layout, &runs, &lines, against, |check| {
            let check = check?;
            if let Some(before) = damaged.get_mut(&check.run_id) {
                is_same &= before.problems == check.problems;
                **before = check;
            }
            Ok(())
        })?;
        if is_same {
            break;
        }
    }
    Ok(())
}

/// Tells whether a process that lives writes to the store.
fn is_anybody_at_work(layout: &Layout) -> bool {
    let processes = journal::list_processes_in(layout.fs(), &layout.journal());
    processes.is_ok_and(|processes| processes.iter().any(|process| process.alive))
}

/// Says what cannot be known, and what is no damage.
fn notes(checks: &[RunCheck], wanted: &Wanted) -> Vec<String> {
    let count = |is: fn(&RunCheck) -> bool| checks.iter().filter(|check| is(check)).count();
    let checked: IdSet<RunId> = checks.iter().map(|check| check.run_id).collect();
    let is_gone = |head: &&Head| wanted.runs.is_none() && !checked.contains(&head.run_id);
    let gone = wanted.against.iter().filter(is_gone).count();
    let mut notes = Vec::new();
    for (runs, what) in [
        (count(|check| check.has_unknown_parent), "started by a run that is not in this store"),
        (
            count(|check| check.has_other_rules),
            "added up by another version, whose rules are others; run.yaml and index.log say the same",
        ),
        (
            count(|check| check.has_no_hash),
            "recorded without a hash of its log: a change that leaves a line readable cannot be known",
        ),
        (gone, "in the checkpoint and is not in this store: removed, by retention or by somebody"),
    ] {
        if runs > 0 {
            let are = if runs == 1 { "run was" } else { "runs were" };
            notes.push(format!("{runs} {are} {what}"));
        }
    }
    if wanted.against.is_empty() && !checks.is_empty() {
        notes.push(UNKNOWN.to_owned());
    }
    notes
}

/// What nobody can know who has the store alone.
const UNKNOWN: &str = "only a checkpoint that is kept elsewhere can tell whether the end of a log, or a whole run, was taken away \
                       or put back with all that tells of it (verify --checkpoint-to)";

fn named(layout: &Layout, runs: &[RunId]) -> Result<Vec<(RunKind, RunId)>, StoreError> {
    let place = |run: &RunId| {
        let dir = layout.find_run(*run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
        let kind = RunKind::ALL.iter().find(|kind| layout.run(**kind, *run) == dir);
        Ok((kind.copied().unwrap_or(RunKind::Agent), *run))
    };
    runs.iter().map(place).collect()
}

fn all(layout: &Layout, report: &mut Report) -> Result<Vec<(RunKind, RunId)>, StoreError> {
    let mut runs: Vec<(RunKind, RunId)> = Vec::new();
    for kind in RunKind::ALL {
        runs.extend(run_ids(layout.fs(), &layout.runs(*kind))?.into_iter().map(|run| (*kind, run)));
    }
    runs.sort_by_key(|(_, run)| *run);
    for pair in runs.windows(2).filter(|pair| pair[0].1 == pair[1].1) {
        report.problems.push(Problem {
            run_id: Some(pair[1].1),
            file: within(layout, &layout.run(pair[1].0, pair[1].1)),
            line: None,
            what: "it is there twice, under agents and under workflows".to_owned(),
            todo: "readers take the one under agents; move the other away".to_owned(),
            cure: None,
            is_of_the_moment: false,
        });
    }
    Ok(runs)
}

/// Checks runs on a few threads; `found` gets them in any order, on this one.
fn check_each(
    layout: &Layout,
    runs: &[(RunKind, RunId)],
    lines: &index::Lines,
    against: &IdMap<RunId, &Head>,
    mut found: impl FnMut(Result<RunCheck, StoreError>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS).min(runs.len().max(1));
    let next = AtomicUsize::new(0);
    // A bound, so that who checks does not run ahead of who listens.
    let (tell, told) = mpsc::sync_channel(2 * MAX_THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                while let Some((kind, run)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let check = run::check(layout, *kind, *run, lines, against.get(run).copied());
                    // Nobody listens any more after an error.
                    if tell.send(check).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for check in told {
            found(check)?;
        }
        Ok(())
    })
}

fn check_journals(layout: &Layout, report: &mut Report) -> Result<(), StoreError> {
    let bad = |error: journal::JournalError| StoreError::BadStore { path: layout.journal(), why: error.to_string() };
    for process in journal::list_processes_in(layout.fs(), &layout.journal()).map_err(bad)? {
        let checked = match journal::check_in(layout.fs(), &layout.journal(), &process.name) {
            Ok(checked) => checked,
            // Its readers are done with it.
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(bad(error)),
        };
        report.frames += checked.frames;
        for damage in checked.damage {
            report.problems.push(Problem {
                run_id: None,
                file: within(layout, &damage.path),
                line: None,
                what: format!("at byte {}: {}", damage.offset, damage.what),
                todo: "what these frames told is lost; readers step over them, and the journal goes when all have"
                    .to_owned(),
                cure: None,
                is_of_the_moment: false,
            });
        }
    }
    Ok(())
}

fn within(layout: &Layout, path: &Path) -> String {
    path.strip_prefix(layout.root()).unwrap_or(path).display().to_string()
}
