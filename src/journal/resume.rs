//! The mark on a journal whose process is not the one that its records tell of.
//!
//! When an agent's process dies, its runs have crashed. When a bridge dies, the agents that send to it go on: its runs are
//! not over, and the next bridge goes on with its journal, under its name.

use std::io;
use std::path::Path;

use super::{JournalError, process_dir};
use crate::fs::{Access, Fs, OsFs};

/// The file in the directory of such a journal.
const MARK: &str = "bridge";

/// Marks a journal: whoever finds it when its process has died takes in what it holds and leaves the rest to the next
/// bridge.
///
/// # Errors
///
/// [`JournalError::BadName`], and what the file system says.
pub fn mark_resumable(journal_dir: &Path, process: &str) -> Result<(), JournalError> {
    mark_resumable_in(&OsFs, journal_dir, process)
}

/// Like [`mark_resumable`], on another file system.
pub(crate) fn mark_resumable_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<(), JournalError> {
    let dir = process_dir(journal_dir, process)?;
    let path = dir.join(MARK);
    fs.open(&path, Access::Create).map(drop).map_err(JournalError::io("create", &path))?;
    // Without it the runs of what is acknowledged next would be taken for crashed after a loss of power.
    fs.sync_dir(&dir).map_err(JournalError::io("sync", &dir))
}

/// Tells whether a journal has the mark.
pub fn is_resumable(journal_dir: &Path, process: &str) -> bool {
    is_resumable_in(&OsFs, journal_dir, process)
}

/// Like [`is_resumable`], on another file system.
pub(crate) fn is_resumable_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> bool {
    process_dir(journal_dir, process).is_ok_and(|dir| match fs.stat(&dir.join(MARK)) {
        Ok(_) => true,
        // Who may not even look must not take its runs for crashed.
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    })
}
