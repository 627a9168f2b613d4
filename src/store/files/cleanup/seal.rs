//! Seals what is large and has been over for a while.

use std::path::Path;

use super::super::artifacts::COMPRESSED_FROM;
use super::super::layout::stat;
use super::super::run_dir::{self, LogLock};
use super::super::{artifacts, sealed};
use super::survey::{Over, Survey, tree_bytes};
use super::{Cleaned, Job, QUIET, Sealed, ignore_missing};
use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunSummary};
use crate::store::StoreError;

/// Seals logs and files from a length on.
pub(super) fn seal(
    job: &Job<'_>,
    survey: &mut Survey,
    from: u64,
    go_on: &mut dyn FnMut() -> bool,
    cleaned: &mut Cleaned,
) -> Result<(), StoreError> {
    let layout = job.layout;
    let gone: IdSet<RunId> = cleaned.removed.iter().map(|run| run.run_id).collect();
    let quiet = QUIET.as_nanos() as u64;
    let mut sealed: IdMap<RunId, u64> = IdMap::default();
    for Over { run, has_large, .. } in survey
        .over
        .iter()
        .filter(|over| !gone.contains(&over.run) && job.now.0.saturating_sub(over.written_at.0) >= quiet)
    {
        if !go_on() {
            break;
        }
        let Some(dir) = layout.find_run(*run)? else { continue };
        let log = run_dir::events_file(&dir);
        let plain = stat(layout.fs(), &log).map_err(StoreError::io("read", &log))?;
        let is_long = plain.is_some_and(|found| found.len >= from.max(1));
        if !is_long && !has_large {
            continue;
        }
        let before = cleaned.sealed_files.len();
        match seal_run(job, *run, &dir, is_long, cleaned) {
            // The others would fare no better.
            Err(error) if error.is_out_of_space() => break,
            // What cannot be sealed stays as it is, and a later look tries again.
            Ok(()) | Err(_) => {}
        }
        let gained: u64 = cleaned.sealed_files[before..].iter().map(Sealed::blocks_gained).sum();
        if cleaned.sealed_files.len() > before {
            sealed.insert(*run, gained);
        }
    }
    for candidate in &mut survey.candidates {
        let Some(gained) = sealed.get(&candidate.run_id) else { continue };
        candidate.bytes = match job.is_dry_run {
            // Where sizes were not asked for it has none.
            true => candidate.bytes.saturating_sub(*gained),
            false => tree_bytes(layout.fs(), &layout.run(candidate.kind, candidate.run_id))?,
        };
    }
    if job.is_dry_run {
        survey.sealing_gives = sealed;
    }
    Ok(())
}

/// Seals the log of a run if `is_long`, and large files that it produced.
fn seal_run(job: &Job<'_>, run: RunId, dir: &Path, is_long: bool, cleaned: &mut Cleaned) -> Result<(), StoreError> {
    let fs = job.layout.fs();
    let lock = match job.is_dry_run {
        // It changes nothing, and leaves no lock.
        true if run_dir::is_locked(fs, dir) => return Err(StoreError::InUse { run }),
        true => None,
        false => Some(LogLock::take(fs, dir, run)?),
    };
    let summary = run_dir::read_summary(fs, dir, run)?;
    if summary.status.is_open() {
        return Ok(());
    }
    if lock.is_some() {
        run_dir::remove_leftovers(fs, dir);
    }
    let mut add = |path: &Path, sealed: Option<(u64, u64)>| {
        let Some((bytes, sealed_bytes)) = sealed else { return };
        let file = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
        cleaned.add_sealed(Sealed { run_id: run, file, bytes, sealed_bytes });
    };
    if is_long {
        let sealed = match &lock {
            Some(lock) => lock.seal(fs, dir, &summary),
            None => run_dir::measure_sealed(fs, dir, &summary),
        };
        add(&run_dir::events_file(dir), sealed?);
    }
    for artifact in plain_and_large(fs, dir, &summary)? {
        let Some(path) = artifacts::path_of(dir, &artifact.name) else { continue };
        let sealed = sealed::sealed_file(&path);
        // Left by one who died over it, unless the run has a file of that name.
        let is_own = summary.artifacts.iter().any(|other| path.with_file_name(&other.name) == sealed);
        let is_left = !is_own && summary.artifacts_total.is_none();
        let after = match &lock {
            Some(_) => {
                if is_left {
                    ignore_missing(fs.remove_file(&sealed)).map_err(StoreError::io("delete", &sealed))?;
                }
                artifacts::compress_large(fs, &path, artifact, true)?
            }
            None if !is_left && stat(fs, &sealed).map_err(StoreError::io("read", &sealed))?.is_some() => None,
            None => artifacts::measure_compressed(fs, &path, artifact)?,
        };
        add(&path, after.map(|after| (artifact.bytes, after)));
    }
    Ok(())
}

/// Returns the large files of a run that are there as they are.
fn plain_and_large<'a>(
    fs: &dyn Fs,
    dir: &Path,
    summary: &'a RunSummary,
) -> Result<Vec<&'a crate::model::run::ArtifactInfo>, StoreError> {
    let mut found = Vec::new();
    for artifact in summary.artifacts.iter().filter(|artifact| artifact.bytes > COMPRESSED_FROM) {
        if artifacts::find(fs, dir, artifact.clone())?.stored == artifacts::Form::Plain {
            found.push(artifact);
        }
    }
    Ok(found)
}
