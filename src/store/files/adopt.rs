//! Whole run folders from elsewhere.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::chain::Chain;
use super::layout::{self, Layout};
use super::{cleanup, index, run_dir};
use crate::model::{RunId, RunKind, RunStatus, RunSummary, SpanId};
use crate::store::StoreError;
use crate::store::assembly::RunState;

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
    let summary = check(layout, folder, kind, run)?;
    if layout.find_run(run)?.is_some() {
        return Ok(false);
    }
    place(layout, folder, &summary)
}

/// Puts a run's folder in the place of the one that the store has, where that is what was known of the run before it ended: it
/// has crashed as far as anybody could tell, this one ended otherwise, and has all of its steps. `false` where it is not so; then
/// all stays as it is.
///
/// # Errors
///
/// As [`adopt_folder`], and [`StoreError::InUse`] while a process writes the run.
pub fn renew_folder(layout: &Layout, folder: &Path, kind: RunKind, run: RunId) -> Result<bool, StoreError> {
    let summary = check(layout, folder, kind, run)?;
    if summary.status == RunStatus::Crashed {
        // A packed run stays where it is.
        return Ok(false);
    }
    let (fs, (dir, _)) = (layout.fs(), layout.unpack(run)?);
    let lock = run_dir::LogLock::take(fs, &dir, run)?;
    let known = run_dir::read_summary(fs, &dir, run)?;
    let spans = |dir: &Path| -> Result<HashSet<SpanId>, StoreError> {
        Ok(RunState::read(run, &run_dir::read_events(fs, dir, run, 0)?).spans().collect())
    };
    let is_before = known.status == RunStatus::Crashed && known.kind == kind;
    if !is_before || !spans(&dir)?.is_subset(&spans(folder)?) {
        return Ok(false);
    }
    let is_pinned = cleanup::is_marked(fs, &dir)?;
    let old = dir.with_file_name(format!("{}{run}", cleanup::GONE_PREFIX));
    if layout::stat(fs, &old).map_err(StoreError::io("read", &old))?.is_some() {
        fs.remove_tree(&old).map_err(StoreError::io("delete", &old))?;
    }
    // Killed behind this, the run is told anew by the next import.
    fs.rename(&dir, &old).map_err(StoreError::io("replace", &dir))?;
    let placed = place(layout, folder, &summary);
    if !matches!(placed, Ok(true)) && layout::stat(fs, &dir).is_ok_and(|found| found.is_none()) {
        fs.rename(&old, &dir).map_err(StoreError::io("restore", &dir))?;
        return placed;
    }
    drop(lock);
    // What cannot be deleted now the next cleanup takes away.
    let _ = fs.remove_tree(&old);
    if is_pinned {
        cleanup::set_pinned(layout, run, true)?;
    }
    placed
}

/// Reads what a folder says of its run, if that can be read and is whole.
fn check(layout: &Layout, folder: &Path, kind: RunKind, run: RunId) -> Result<RunSummary, StoreError> {
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
    Ok(summary)
}

/// Gives a folder its name in the store, and its line; `false` where that is taken.
fn place(layout: &Layout, folder: &Path, summary: &RunSummary) -> Result<bool, StoreError> {
    let (fs, kind) = (layout.fs(), summary.kind);
    let place = layout.run(kind, summary.run_id);
    match fs.rename(folder, &place) {
        Ok(()) => {}
        // Another import was faster.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
            return Ok(false);
        }
        Err(error) => return Err(StoreError::io("create", place)(error)),
    }
    layout::sync_dir(fs, &layout.runs(kind))?;
    index::IndexLog::default().append(fs, &layout.index_log(), summary, true)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RunWriter;
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
