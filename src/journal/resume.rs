//! The mark on a journal whose process is not the one that its records tell of.
//!
//! When an agent's process dies, its runs have crashed. When a bridge dies, the agents that send to it go on: its runs are
//! not over, and the next bridge goes on with its journal, under its name.

use std::io;
use std::path::Path;

use super::{JournalError, process_dir};

/// The file in the directory of such a journal.
const MARK: &str = "bridge";

/// Marks a journal: whoever finds it when its process has died takes in what it holds and leaves the rest to the next
/// bridge.
///
/// # Errors
///
/// [`JournalError::BadName`], and what the file system says.
pub fn mark_resumable(journal_dir: &Path, process: &str) -> Result<(), JournalError> {
    let path = process_dir(journal_dir, process)?.join(MARK);
    std::fs::write(&path, b"").map_err(JournalError::io("create", &path))
}

/// Tells whether a journal has the mark.
pub fn is_resumable(journal_dir: &Path, process: &str) -> bool {
    process_dir(journal_dir, process).is_ok_and(|dir| match dir.join(MARK).try_exists() {
        Ok(exists) => exists,
        // Who may not even look must not take its runs for crashed.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}
