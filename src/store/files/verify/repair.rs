//! Puts right what follows from something whole.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::super::cleanup;
use super::super::layout::Layout;
use super::super::packs::{Gone, Removal};
use super::super::run_dir::{self, EventLog};
use super::super::{index, run_ids, writer_is_alive};
use super::index::Lines;
use super::{Cure, Problem, Report, presence, run};
use crate::error::with_causes;
use crate::model::id::IdSet;
use crate::model::{RunId, RunKind, RunSummary, UnixNanos};
use crate::store::StoreError;
use crate::store::assembly::RunState;

/// What became of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The run, if it is one's.
    pub run_id: Option<RunId>,
    /// The file, within the store.
    pub file: String,
    /// Is it right now?
    pub is_repaired: bool,
    /// What was done, or why nothing was.
    pub what: String,
}

/// Puts right what a [`Report`] tells of, as far as that follows from something whole; each problem is answered.
///
/// A run that a process writes, or has not been taken over from a dead one, is left alone. What is lost is never made up:
/// a line that cannot be read stays, and so does a `run.yaml` that vouches for more than there is.
///
/// What cannot be written is told like anything else that is not repaired.
pub fn repair(layout: &Layout, report: &Report) -> Vec<Repaired> {
    let mut done = Vec::with_capacity(report.problems.len());
    for problem in in_order(&report.problems) {
        let outcome = match (problem.cure, problem.run_id) {
            (None, _) => Err("it cannot be repaired without making something up".to_owned()),
            (Some(Cure::Database), _) => rebuild_database(layout),
            (Some(Cure::UnreadLines), _) => blank_unread(layout),
            (Some(Cure::Pack(pack)), _) => rewrite(layout, pack),
            (Some(Cure::Nowhere), _) => note_removed(layout),
            (Some(Cure::Index), _) => write_index(layout),
            (Some(Cure::Orphan), _) => remove_orphan(layout, &problem.file),
            (Some(Cure::Bury), Some(run)) => bury(layout, run),
            (Some(Cure::EmptyFolder), _) => remove_empty(layout, &problem.file),
            (Some(cure), Some(run)) => repair_run(layout, run, cure, report),
            (Some(_), None) => Err("it belongs to no run".to_owned()),
        };
        let (is_repaired, what) = match outcome {
            Ok(what) => (true, what),
            Err(why) => (false, why),
        };
        done.push(Repaired { run_id: problem.run_id, file: problem.file.clone(), is_repaired, what });
    }
    done
}

/// Sorts by what depends on what: a summary is made of a log, a line of the index of a summary.
fn in_order(problems: &[Problem]) -> Vec<&Problem> {
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_key(|problem| match problem.cure {
        Some(Cure::CutLog | Cure::Bury | Cure::EmptyFolder) | None => 0,
        Some(Cure::Summary | Cure::UnreadLines | Cure::Pack(_)) => 1,
        Some(Cure::IndexLine | Cure::Index | Cure::Nowhere) => 2,
        Some(Cure::Database | Cure::Orphan) => 3,
    });
    ordered
}

type Outcome = Result<String, String>;

fn repair_run(layout: &Layout, run: RunId, cure: Cure, report: &Report) -> Outcome {
    let found = layout.find_run(run).map_err(told)?;
    let dir = found.ok_or_else(|| "the run has gone meanwhile".to_owned())?;
    let kind = RunKind::ALL.iter().copied().find(|kind| layout.run(*kind, run) == dir).unwrap_or(RunKind::Agent);
    if run::is_being_written(layout, kind, run).map_err(told)? {
        return Err("a process is writing the run: try again when that has ended".to_owned());
    }
    if run_dir::is_newer(layout.fs(), &dir).map_err(told)? {
        return Err("a newer runspan wrote the run: let that repair it".to_owned());
    }
    let stored = run_dir::read_summary(layout.fs(), &dir, run);
    if let Ok(Some(writer)) = stored.as_ref().map(|summary| summary.writer)
        && writer_is_alive(layout, writer)
    {
        return Err(format!("process {writer}, which wrote the run, is alive: try again when it has ended"));
    }
    let is_bad_log = |problem: &&Problem| problem.cure.is_none() && problem.is_of_log();
    let of_run = report.problems.iter().filter(|problem| problem.run_id == Some(run));
    if cure != Cure::IndexLine && of_run.filter(is_bad_log).count() > 0 {
        return Err("its log is damaged, so what the events add up to is not known".to_owned());
    }
    match cure {
        Cure::CutLog => cut_log(layout, &dir, run, stored.map_or(0, |summary| summary.events)),
        Cure::Summary => rebuild_summary(layout, &dir, run, stored.ok()),
        Cure::IndexLine => append_line(layout, &stored.map_err(told)?).map(|()| "the line is appended".to_owned()),
        // They are no run's.
        _ => Err("it belongs to no run".to_owned()),
    }
}

/// Writes a pack anew with the runs that are in it, but for those that `index.log` says were removed.
fn rewrite(layout: &Layout, pack: RunId) -> Outcome {
    let (packs, fs) = layout.packs();
    let lines = Lines::read(layout, &mut Vec::new()).map_err(told)?;
    let process = RunId::fresh(UnixNanos::now());
    match packs.rewrite(fs, process, pack, lines.removed()) {
        Ok(runs) => Ok(format!("the pack is written anew with {runs} runs")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(format!("the pack cannot be written anew while a run in it is damaged: {error}"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("the pack has gone meanwhile".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Lets `index.log` say of runs that are nowhere that they were removed.
fn note_removed(layout: &Layout) -> Outcome {
    let nowhere = presence::nowhere(layout).map_err(told)?;
    index::blank(layout.fs(), &layout.index_log(), &nowhere, false).map_err(told)?;
    Ok(match nowhere.len() {
        1 => "it says now that the run was removed".to_owned(),
        runs => format!("it says now that {runs} runs were removed"),
    })
}

/// Deletes tombstones without a pack, if all that they say is known without them: should the pack come back, that tells what
/// was removed from it.
fn remove_orphan(layout: &Layout, file: &str) -> Outcome {
    let (packs, fs) = layout.packs();
    let lines = Lines::read(layout, &mut Vec::new()).map_err(told)?;
    let is_told = |run| Ok(lines.removed().contains(&run) || layout.has_folder(run)?);
    match packs.remove_orphan(fs, &layout.root().join(file), is_told) {
        Ok(true) => Ok("it has gone: index.log says of all runs in it that they were removed".to_owned()),
        Ok(false) => Err(
            "it stays: it names runs of which index.log does not say that they were removed; delete it where the pack \
                 was taken away on purpose"
                .to_owned(),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("it has gone meanwhile".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn bury(layout: &Layout, run: RunId) -> Outcome {
    match layout.remove_packed(&[run], Gone::Deleted, false).remove(&run) {
        Some(Removal::Done) => Ok("the run is removed again".to_owned()),
        Some(Removal::Failed(error)) => Err(error.to_string()),
        Some(Removal::NotHere) | None => Err("it is in no pack any more".to_owned()),
    }
}

fn remove_empty(layout: &Layout, file: &str) -> Outcome {
    // Not through the packs, which have a run of that name.
    let removed = layout.packs().1.remove_dir(&layout.root().join(file));
    removed.map(|()| "the empty folder is gone".to_owned()).map_err(|error| error.to_string())
}

fn blank_unread(layout: &Layout) -> Outcome {
    let blanked = index::blank(layout.fs(), &layout.index_log(), &Default::default(), true).map_err(told)?;
    Ok(match blanked {
        1 => "a line that nobody can read is blank now".to_owned(),
        blanked => format!("{blanked} lines that nobody can read are blank now"),
    })
}

fn cut_log(layout: &Layout, dir: &Path, run: RunId, vouched: u64) -> Outcome {
    let (_, events) = EventLog::open(layout.fs(), dir, run, vouched, true).map_err(told)?;
    Ok(format!("what stood behind its {} lines is cut off", events.len()))
}

fn rebuild_summary(layout: &Layout, dir: &Path, run: RunId, before: Option<RunSummary>) -> Outcome {
    // Its lock is held until both are written.
    // A first line is needed in any case, so that no log is made where there is none.
    let (mut log, events) = EventLog::open(layout.fs(), dir, run, 1, true).map_err(told)?;
    let state = RunState::read(run, &events);
    if !state.has_started() {
        return Err("its log has no run_started, so nobody knows what it was".to_owned());
    }
    let told_now = state.summary(UnixNanos::now());
    let pinned = cleanup::is_marked(layout.fs(), dir).map_err(told)?;
    let told_now = RunSummary { pinned, ..told_now };
    let summary = match before {
        Some(before) => RunSummary {
            writer: before.writer,
            parent_run_id: before.parent_run_id.and(told_now.parent_run_id),
            ..told_now
        },
        None => told_now,
    };
    let summary = RunSummary { events_sha256: log.hash_for(&summary), ..summary };
    if !summary.status.is_open() {
        log.write_chain(layout.fs(), dir, &mut Vec::new());
    }
    run_dir::write_summary(layout.fs(), dir, &summary, true).map_err(told)?;
    append_line(layout, &summary)?;
    Ok(format!("run.yaml is made anew of {} events, and its line in index.log", events.len()))
}

fn append_line(layout: &Layout, summary: &RunSummary) -> Result<(), String> {
    index::IndexLog::default().append(layout.fs(), &layout.index_log(), summary, true).map_err(told)
}

/// Appends the line of each run that has none, but of those that a process writes, which does.
fn write_index(layout: &Layout) -> Outcome {
    let lines = Lines::read(layout, &mut Vec::new()).map_err(told)?;
    let has_line: IdSet<RunId> = lines.runs().chain(lines.removed().iter().copied()).collect();
    let (mut log, mut appended, mut unread) = (index::IndexLog::default(), 0u64, 0u64);
    for kind in RunKind::ALL {
        for run in run_ids(layout.fs(), &layout.runs(*kind)).map_err(told)? {
            if has_line.contains(&run) {
                continue;
            }
            match run_dir::read_summary(layout.fs(), &layout.run(*kind, run), run) {
                Ok(_) if run::is_being_written(layout, *kind, run).map_err(told)? => {}
                Ok(summary) => {
                    log.append(layout.fs(), &layout.index_log(), &summary, true).map_err(told)?;
                    appended += 1;
                }
                // What is wrong with it is told of the run.
                Err(_) => unread += 1,
            }
        }
    }
    let left = if unread > 0 { format!("; {unread} more cannot be read") } else { String::new() };
    Ok(format!("it is made anew, with a line of each of {appended} runs{left}"))
}

#[cfg(feature = "index")]
fn rebuild_database(layout: &Layout) -> Outcome {
    let runs = super::super::database::rebuild(layout, |_| {}).map_err(|error| error.to_string())?;
    Ok(format!("it is made anew with {runs} runs"))
}

#[cfg(not(feature = "index"))]
fn rebuild_database(_: &Layout) -> Outcome {
    Err("this program was built without the feature index".to_owned())
}

fn told(error: StoreError) -> String {
    with_causes(&error)
}
