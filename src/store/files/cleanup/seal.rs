//! Seals what is large and has been over for a while.

use std::path::Path;

use super::super::artifacts::COMPRESSED_FROM;
use super::super::layout::{Layout, stat};
use super::super::run_dir::{self, LogLock};
use super::super::{artifacts, sealed};
use super::survey::{Over, Survey, tree_bytes};
use super::{Cleaned, Job, QUIET, ignore_missing};
use crate::fs::Fs;
use crate::model::id::IdSet;
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
    let mut sealed: IdSet<RunId> = IdSet::default();
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
        let before = cleaned.sealed;
        match seal_run(layout, *run, &dir, is_long, job.is_dry_run, cleaned) {
            // The others would fare no better.
            Err(error) if error.is_out_of_space() => break,
            // What cannot be sealed stays as it is, and a later look tries again.
            Ok(()) | Err(_) => {}
        }
        if cleaned.sealed > before {
            sealed.insert(*run);
        }
    }
    if !job.is_dry_run {
        for candidate in survey.candidates.iter_mut().filter(|candidate| sealed.contains(&candidate.run_id)) {
            candidate.bytes = tree_bytes(layout.fs(), &layout.run(candidate.kind, candidate.run_id))?;
        }
    }
    Ok(())
}

/// Seals the log of a run if `is_long`, and large files that it produced.
fn seal_run(
    layout: &Layout,
    run: RunId,
    dir: &Path,
    is_long: bool,
    is_dry_run: bool,
    cleaned: &mut Cleaned,
) -> Result<(), StoreError> {
    let fs = layout.fs();
    let lock = if is_dry_run { None } else { Some(LogLock::take(fs, dir, run)?) };
    let summary = run_dir::read_summary(fs, dir, run)?;
    if summary.status.is_open() {
        return Ok(());
    }
    let Some(lock) = lock else {
        let log = run_dir::events_file(dir);
        if is_long && let Some(found) = stat(fs, &log).map_err(StoreError::io("read", log))? {
            cleaned.add_sealed(found.len, None);
        }
        plain_and_large(fs, dir, &summary)?.iter().for_each(|artifact| cleaned.add_sealed(artifact.bytes, None));
        return Ok(());
    };
    run_dir::remove_leftovers(fs, dir);
    if is_long && let Some((before, after)) = lock.seal(fs, dir, &summary)? {
        cleaned.add_sealed(before, Some(after));
    }
    for artifact in plain_and_large(fs, dir, &summary)? {
        let Some(path) = artifacts::path_of(dir, &artifact.name) else { continue };
        let sealed = sealed::sealed_file(&path);
        // Left by one who died over it, unless the run has a file of that name.
        let is_own = summary.artifacts.iter().any(|other| path.with_file_name(&other.name) == sealed);
        if !is_own && summary.artifacts_total.is_none() {
            ignore_missing(fs.remove_file(&sealed)).map_err(StoreError::io("delete", &sealed))?;
        }
        if let Some(after) = artifacts::compress_large(fs, &path, artifact, true)? {
            cleaned.add_sealed(artifact.bytes, Some(after));
        }
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
