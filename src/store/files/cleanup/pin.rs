//! Which runs retention never takes.

use std::io;
use std::path::{Path, PathBuf};

use super::super::layout::{Layout, stat, sync_dir};
use super::super::run_dir::{self, LogLock};
use super::super::writer_is_alive;
use super::ignore_missing;
use super::removal::republish;
use crate::fs::Fs;
use crate::model::{RunId, RunSummary};
use crate::store::StoreError;

/// Keeps a run from retention, or no longer. Returns whether that changes anything.
///
/// It holds for a run that is being written as well: a file in its folder says so, and `run.yaml` the next time that it is
/// written.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::RemovedMeanwhile`], and what the file system says.
pub fn set_pinned(layout: &Layout, run: RunId, is_pinned: bool) -> Result<bool, StoreError> {
    /// Whoever removes it finds the mark, and gives the folder its name back.
    const LOOKS: usize = 8;
    let mut dir = layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
    for look in 1.. {
        let marked = mark(layout, run, &dir, is_pinned);
        let Some(now) = layout.find_run(run)? else { break };
        match marked {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && look < LOOKS => dir = now,
            marked => return marked,
        }
    }
    Err(StoreError::RemovedMeanwhile { run })
}

fn mark(layout: &Layout, run: RunId, dir: &Path, is_pinned: bool) -> Result<bool, StoreError> {
    let fs = layout.fs();
    let was_marked = is_marked(fs, dir)?;
    match is_pinned {
        true if !was_marked => mark_folder(fs, dir)?,
        false if was_marked => unmark_folder(fs, dir)?,
        _ => {}
    }
    sync_dir(fs, dir)?;
    let told = tell_pinned(layout, run, dir, is_pinned);
    match told {
        Ok(changed) => Ok(changed || was_marked != is_pinned),
        // The mark is what holds.
        Err(StoreError::InUse { .. } | StoreError::Damaged { .. }) => Ok(was_marked != is_pinned),
        Err(error) => Err(error),
    }
}

/// Lets `run.yaml` and `index.log` say whether a run is pinned, unless its writer will.
fn tell_pinned(layout: &Layout, run: RunId, dir: &Path, is_pinned: bool) -> Result<bool, StoreError> {
    let _lock = LogLock::take(layout.fs(), dir, run)?;
    let summary = run_dir::read_summary(layout.fs(), dir, run)?;
    let is_written = summary.status.is_open() && summary.writer.is_some_and(|writer| writer_is_alive(layout, writer));
    if summary.pinned == is_pinned || is_written {
        return Ok(false);
    }
    republish(layout, dir, &RunSummary { pinned: is_pinned, ..summary }).map(|()| true)
}

/// Sets the mark in a folder that is about to become a run's.
pub(in super::super) fn mark_folder(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    let mark = pin_file(dir);
    match fs.create_new(&mark) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io("create", &mark)(error)),
        _ => sync_dir(fs, dir),
    }
}

/// Takes the mark out of a run's folder, if it is there.
pub(in super::super) fn unmark_folder(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    let mark = pin_file(dir);
    ignore_missing(fs.remove_file(&mark)).map_err(StoreError::io("delete", &mark))
}

/// Returns the path of the file that says that a run is pinned.
fn pin_file(dir: &Path) -> PathBuf {
    dir.join("pinned")
}

/// Tells whether a file in its folder says that the run is pinned.
pub(in super::super) fn is_marked(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    let path = pin_file(dir);
    Ok(stat(fs, &path).map_err(StoreError::io("read", path))?.is_some())
}
