//! Whole run folders from elsewhere.

use std::io;
use std::path::Path;

use super::chain::Chain;
use super::layout::{self, Layout};
use super::{index, run_dir};
use crate::model::{RunId, RunKind, RunSummary};
use crate::store::StoreError;

/// Longest log that is taken in: a run is held to a tenth of it. A sealed one may be a thousandth as long.
const MAX_LOG: u64 = 1 << 30;

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
    let checked = run_dir::check_log(fs, folder, run, &mut chain, MAX_LOG);
    let is_changed = |summary: &RunSummary| {
        checked.is_err() || summary.events_sha256.is_some_and(|hash| chain.hash_of(summary.events) != Some(hash))
    };
    if summary.status.is_open() && is_changed(&summary) {
        let why = "it is under way, and was written to while it was copied; take it when it is over".to_owned();
        return Err(StoreError::Damaged { run, why });
    }
    checked?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RunWriter;
    use crate::store::assembly::RunState;
    use crate::store::files::FilesWriter;

    #[test]
    fn a_log_that_is_too_long_is_read_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let run = RunId::from_parts(1, [1; 10]);
        let summary = RunState::new(run, run.as_trace_id()).summary(crate::model::UnixNanos(1));
        let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        writer.create_run(&summary, &[]).unwrap();
        let folder = layout.find_run(run).unwrap().unwrap();
        let check = |bytes: usize, max_bytes| {
            std::fs::write(folder.join("events.jsonl"), vec![b'x'; bytes]).unwrap();
            run_dir::check_log(layout.fs(), &folder, run, &mut Chain::default(), max_bytes)
        };
        assert!(check(10, 10).is_ok(), "a line that was not finished");
        let StoreError::Damaged { why, .. } = check(11, 10).unwrap_err() else { panic!() };
        assert_eq!(why, "its log is longer than 10 bytes");
    }
}
