//! Whole run folders from elsewhere.

use std::io;
use std::path::Path;

use super::chain::Chain;
use super::layout::{self, Layout};
use super::{index, run_dir};
use crate::model::{RunId, RunKind, RunSummary};
use crate::store::StoreError;

/// Moves a run's folder, which nobody writes, into a store on the same file system; `false` when the store has the run, which
/// then stays as it is.
///
/// # Errors
///
/// [`StoreError::Damaged`] when the folder is not that of a run that can be read, and what the system refuses. Nothing was moved
/// then.
pub fn adopt_folder(layout: &Layout, folder: &Path, kind: RunKind, run: RunId) -> Result<bool, StoreError> {
    let fs = layout.fs();
    let summary: RunSummary = run_dir::read_summary(fs, folder, run)?;
    if summary.kind != kind {
        let why = format!("run.yaml says it is of kind {}", summary.kind);
        return Err(StoreError::Damaged { run, why });
    }
    let mut chain = Chain::default();
    run_dir::read_log(fs, folder, run, Some(&mut chain))?;
    if summary.events_sha256.is_some_and(|hash| chain.hash_of(summary.events) != Some(hash)) {
        let why = "its log was changed since it was written: the hash in run.yaml is another".to_owned();
        return Err(StoreError::Damaged { run, why });
    }
    if layout.find_run(run)?.is_some() {
        return Ok(false);
    }
    let place = layout.run(kind, run);
    match fs.rename(folder, &place) {
        Ok(()) => {}
        // Another import was faster.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
            return Ok(false);
        }
        Err(error) => return Err(StoreError::io("create", place)(error)),
    }
    layout::sync_dir(fs, &layout.runs(kind))?;
    index::IndexLog::default().append(fs, &layout.index_log(), &summary, true)?;
    Ok(true)
}
