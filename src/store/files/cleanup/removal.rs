//! Takes runs away, in steps that whoever comes next can go on with.

use std::io;
use std::path::{Path, PathBuf};

use super::super::layout::{Layout, stat, sync_dir};
use super::super::packs::{Gone, Removal};
use super::super::run_dir::{self, LogLock};
use super::super::{chain, index, writer_is_alive};
use super::pin::is_marked;
use super::survey::{Survey, tree_bytes};
use super::{BATCH, Cleaned, Emptied, GONE_PREFIX, Job, NEW_PREFIX, Removed, Stayed, ignore_missing};
use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind, RunSummary, UnixNanos};
use crate::store::StoreError;
use crate::store::retention::{Candidate, Policy, Reason, plan};

/// Removes what a policy does not keep of the runs that are left.
pub(super) fn remove(
    policy: &Policy,
    job: &Job<'_>,
    survey: &Survey,
    go_on: &mut dyn FnMut() -> bool,
    cleaned: &mut Cleaned,
    emptied: &mut Vec<Emptied>,
) -> Result<(), StoreError> {
    let done: IdSet<RunId> = cleaned.removed.iter().map(|run| run.run_id).collect();
    let left: Vec<Candidate> = survey.candidates.iter().filter(|run| !done.contains(&run.run_id)).cloned().collect();
    let of_run: IdMap<RunId, &Candidate> = left.iter().map(|run| (run.run_id, run)).collect();
    // What was tried and stayed is told once.
    cleaned.stayed.clear();
    let planned = plan(policy, &left, job.now);
    let is_packed = |run: &RunId| survey.packed.contains_key(run);
    let planned = planned.iter().filter_map(|(run, reason)| Some((*of_run.get(run)?, *reason)));
    let (packed, mut folders): (Vec<_>, Vec<_>) = planned.partition(|(run, _)| is_packed(&run.run_id));
    // All of a pack at once: where nothing of it is left, that needs no room on the disk.
    if !packed.is_empty() && go_on() {
        let elsewhere = remove_packed(job, &packed, survey, cleaned, emptied)?;
        folders.extend(packed.into_iter().filter(|(run, _)| elsewhere.contains(&run.run_id)));
    }
    for batch in folders.chunks(BATCH) {
        if !go_on() {
            break;
        }
        remove_batch(job, batch, survey, cleaned, emptied)?;
    }
    cleaned.removed.sort_by_key(|run| (run.started_at, run.run_id));
    Ok(())
}

/// Removes packed runs; returns those that have a folder by now.
fn remove_packed(
    job: &Job<'_>,
    runs: &[(&Candidate, Reason)],
    survey: &Survey,
    cleaned: &mut Cleaned,
    emptied: &mut Vec<Emptied>,
) -> Result<IdSet<RunId>, StoreError> {
    let ids: Vec<RunId> = runs.iter().map(|(run, _)| run.run_id).collect();
    let mut removals = job.layout.remove_packed(&ids, Gone::Retention, job.is_dry_run);
    let mut elsewhere = IdSet::default();
    for (run, reason) in runs {
        let run_id = run.run_id;
        match removals.remove(&run_id) {
            Some(Removal::Done) => {
                let bytes = survey.packed.get(&run_id).copied().unwrap_or(0);
                cleaned.removed.push(removed(run, bytes, *reason));
                // What is left of it the next cleanup takes away.
                if !job.is_dry_run && unlink_children(job.layout, run_id, &survey.children).unwrap_or(false) {
                    emptied.push(Emptied { run: run_id, folder: None });
                }
            }
            // Somebody else has removed it, or it got its folder back.
            Some(Removal::NotHere) | None => {
                if job.layout.find_run(run_id)?.is_some() {
                    elsewhere.insert(run_id);
                }
            }
            Some(Removal::Failed(error)) => {
                use io::ErrorKind::{InvalidData, WouldBlock};
                let is_failure = !matches!(error.kind(), InvalidData | WouldBlock);
                cleaned.stayed.push(Stayed { run_id, why: error.to_string(), is_failure });
            }
        }
    }
    Ok(elsewhere)
}

fn removed(run: &Candidate, bytes: u64, reason: Reason) -> Removed {
    let Candidate { run_id, kind, started_at, .. } = *run;
    Removed { run_id, kind, name: run.name.to_string(), started_at, bytes, reason }
}

/// Takes runs out of sight, then their files away.
fn remove_batch(
    job: &Job<'_>,
    batch: &[(&Candidate, Reason)],
    survey: &Survey,
    cleaned: &mut Cleaned,
    emptied: &mut Vec<Emptied>,
) -> Result<(), StoreError> {
    let layout = job.layout;
    let (mut hidden, mut parents) = (Vec::new(), Vec::new());
    for (run, reason) in batch {
        let run_id = run.run_id;
        match hide(layout, run_id, job.is_dry_run) {
            // Another was faster.
            Err(_) if matches!(layout.find_run(run_id), Ok(None)) => {}
            Err(error) => {
                let is_failure = !matches!(error, StoreError::Damaged { .. });
                cleaned.stayed.push(Stayed { run_id, why: crate::error::with_causes(&error), is_failure });
            }
            Ok(Hid::Gone) => {}
            Ok(Hid::Not(why)) => cleaned.stayed.push(Stayed { run_id, why, is_failure: false }),
            Ok(Hid::As { dir, bytes }) => {
                let would_give = survey.sealing_gives.get(&run_id).copied().unwrap_or(0);
                cleaned.removed.push(removed(run, bytes.saturating_sub(would_give), *reason));
                parents.extend(dir.parent().map(Path::to_owned));
                hidden.push((run_id, dir));
            }
        }
    }
    if job.is_dry_run {
        return Ok(());
    }
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        // Before their files go: else half of a run may be there again after a loss of power.
        sync_dir(layout.fs(), &parent)?;
    }
    for (run, dir) in hidden {
        // It is out of sight; what is left of it the next cleanup takes away.
        if let Ok(true) = empty(layout, run, &dir, &survey.children) {
            emptied.push(Emptied { run, folder: Some(dir) });
        }
    }
    Ok(())
}

/// What became of a run that is to go out of sight.
enum Hid {
    /// It stands under this name now.
    As { dir: PathBuf, bytes: u64 },
    /// Somebody else has removed it.
    Gone,
    /// It stays, and why.
    Not(String),
}

fn hide(layout: &Layout, run: RunId, is_dry_run: bool) -> Result<Hid, StoreError> {
    let fs = layout.fs();
    let Some(dir) = layout.find_run(run)? else { return Ok(Hid::Gone) };
    let lock = match is_dry_run {
        // It changes nothing, and leaves no lock.
        true if run_dir::is_locked(fs, &dir) => Err(StoreError::InUse { run }),
        true => Ok(None),
        false => LogLock::take(fs, &dir, run).map(Some),
    };
    let _lock = match lock {
        Ok(lock) => lock,
        Err(StoreError::InUse { .. }) => return Ok(Hid::Not("a process is writing it".to_owned())),
        Err(error) => return Err(error),
    };
    // The list of all runs may be behind.
    let summary = run_dir::read_summary(fs, &dir, run)?;
    if summary.status.is_open() {
        return Ok(Hid::Not(format!("it is {}", summary.status)));
    }
    if is_marked(fs, &dir)? {
        return Ok(Hid::Not("it is pinned".to_owned()));
    }
    let bytes = tree_bytes(fs, &dir)?;
    if is_dry_run {
        return Ok(Hid::As { dir, bytes });
    }
    let gone = dir.with_file_name(format!("{GONE_PREFIX}{run}"));
    if stat(fs, &gone).map_err(StoreError::io("read", &gone))?.is_some() {
        // Of a run of the same id that was removed before.
        fs.remove_tree(&gone).map_err(StoreError::io("delete", &gone))?;
    }
    match fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir)) {
        // A longer name may want a block of its own. What is derived gives one back.
        Err(error) if error.is_out_of_space() => {
            ignore_missing(fs.remove_file(&chain::chain_file(&dir))).map_err(StoreError::io("delete", &dir))?;
            fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir))
        }
        renamed => renamed,
    }?;
    if is_marked(fs, &gone)? {
        // Pinned in between: who did that was told that it holds.
        fs.rename(&gone, &dir).map_err(StoreError::io("restore", &dir))?;
        return Ok(Hid::Not("it is pinned".to_owned()));
    }
    Ok(Hid::As { dir: gone, bytes })
}

/// Takes away the files of a run that is out of sight, and links to it; tells whether all of that is done.
fn empty(layout: &Layout, run: RunId, gone: &Path, children: &IdMap<RunId, Vec<RunId>>) -> Result<bool, StoreError> {
    let fs = layout.fs();
    for entry in fs.list(gone).map_err(StoreError::io("read", gone))? {
        let path = gone.join(&entry.name);
        let removed = if entry.is_dir { fs.remove_tree(&path) } else { fs.remove_file(&path) };
        ignore_missing(removed).map_err(StoreError::io("delete", path))?;
    }
    unlink_children(layout, run, children)
}

/// Takes away the links to a run; tells whether all are.
fn unlink_children(layout: &Layout, run: RunId, children: &IdMap<RunId, Vec<RunId>>) -> Result<bool, StoreError> {
    let Some(children) = children.get(&run) else { return Ok(true) };
    // It may be in a pack, and its folder on the way out.
    if layout.find_run(run)?.is_some() {
        return Ok(true);
    }
    for child in children {
        if !unlink_child(layout, *child, run)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the link to its parent from a run; `false` while a process is writing it, which would put it back.
fn unlink_child(layout: &Layout, child: RunId, parent: RunId) -> Result<bool, StoreError> {
    let fs = layout.fs();
    let Some(dir) = layout.find_run(child)? else { return Ok(true) };
    let _lock = match LogLock::take(fs, &dir, child) {
        Ok(lock) => lock,
        Err(StoreError::InUse { .. }) => return Ok(false),
        // It is damaged, and stays as it is.
        Err(StoreError::Damaged { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    let summary = match run_dir::read_summary(fs, &dir, child) {
        Ok(summary) if summary.parent_run_id == Some(parent) => summary,
        Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    if summary.status.is_open() && summary.writer.is_some_and(|writer| writer_is_alive(layout, writer)) {
        return Ok(false);
    }
    republish(layout, &dir, &RunSummary { parent_run_id: None, ..summary })?;
    Ok(true)
}

/// Writes a run's summary and its line in the log of all runs; the caller has the lock of its log.
pub(super) fn republish(layout: &Layout, dir: &Path, summary: &RunSummary) -> Result<(), StoreError> {
    run_dir::write_summary(layout.fs(), dir, summary, true)?;
    index::IndexLog::default().append(layout.fs(), &layout.index_log(), summary, true)
}

/// Goes on with what earlier removals left, and takes away folders of runs whose making was interrupted for good.
///
/// Returns how many these were, and the runs of which other things alone tell.
pub(super) fn sweep(layout: &Layout, survey: &Survey) -> Result<(u64, Vec<Emptied>), StoreError> {
    let children = &survey.children;
    let fs = layout.fs();
    let (mut swept, mut emptied) = (0, Vec::new());
    for kind in RunKind::ALL {
        let dir = layout.runs(*kind);
        let entries = match fs.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("read", dir)(error)),
        };
        if entries.iter().any(|entry| entry.name.starts_with(GONE_PREFIX)) {
            // Who gave them that name may have died before it was on the disk.
            sync_dir(fs, &dir)?;
        }
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let path = dir.join(&entry.name);
            let is_swept = match (entry.name.strip_prefix(GONE_PREFIX), entry.name.strip_prefix(NEW_PREFIX)) {
                (Some(run), _) => match run.parse() {
                    // Another may be at it; what it leaves is there the next time.
                    Ok(run) => {
                        let is_empty = empty(layout, run, &path, children).unwrap_or(false);
                        emptied.extend(is_empty.then_some(Emptied { run, folder: Some(path) }));
                        is_empty
                    }
                    Err(_) => false,
                },
                (_, Some(making)) if is_abandoned(layout, making) => remove_making(fs, &dir, making).is_ok(),
                _ => false,
            };
            swept += u64::from(is_swept);
        }
    }
    for run in left_by_packs(layout, survey)? {
        if unlink_children(layout, run, children).unwrap_or(false) {
            emptied.push(Emptied { run, folder: None });
        }
    }
    Ok((swept, emptied))
}

/// Takes away a folder in which a run was being made. Under another name first: whoever makes it all the same finds it gone and begins anew, and
/// does not give the run's name to half of it.
fn remove_making(fs: &dyn Fs, runs: &Path, making: &str) -> io::Result<()> {
    let run = making.split_once('-').map_or(making, |(run, _)| run);
    let gone = runs.join(format!("{NEW_PREFIX}{run}-{}", RunId::fresh(UnixNanos::now())));
    fs.rename(&runs.join(format!("{NEW_PREFIX}{making}")), &gone)?;
    fs.remove_tree(&gone)
}

/// Returns the runs that were removed from packs and of which `index.log` tells still: who removed them died over it.
fn left_by_packs(layout: &Layout, survey: &Survey) -> Result<Vec<RunId>, StoreError> {
    let (packs, fs) = layout.packs();
    let read = || Ok((packs.buried(fs)?, packs.hidden(fs)?));
    let (buried, hidden) = read().map_err(StoreError::io("read", packs.dir()))?;
    let removed = buried.into_iter().filter(|(_, why)| *why != Gone::Unpacked).map(|(run, _)| run);
    let mut left: Vec<RunId> = removed.chain(hidden).filter(|run| survey.nowhere.contains(run)).collect();
    left.sort_unstable();
    left.dedup();
    Ok(left)
}

/// Tells whether nobody goes on making a run: its process has no journal any more.
fn is_abandoned(layout: &Layout, making: &str) -> bool {
    let process = making.split_once('-').and_then(|(_, process)| process.parse::<RunId>().ok());
    let journal = process.map(|process| layout.journal().join(process.to_string()));
    journal.is_some_and(|journal| matches!(stat(layout.fs(), &journal), Ok(None)))
}
