//! The marks on a journal whose process is not the one that its records tell of.
//!
//! When an agent's process dies, its runs have crashed. When a bridge dies, the agents that send to it go on: its runs are
//! not over, and the next bridge goes on with its journal, under its name. A receiver that was there for one command alone
//! takes spans as a bridge does, in any order, and its run has crashed when it dies.

use std::io;
use std::path::Path;

#[cfg(feature = "server")]
use super::lock;
use super::{JournalError, process_dir};
use crate::fs::{Access, Fs, OsFs, read_bytes, replace};
use crate::model::UnixNanos;

/// The file in the directory of a bridge's journal.
const BRIDGE: &str = "bridge";
/// The file in the directory of the journal of a command's receiver.
const COMMAND: &str = "command";

/// The file that says how far a dead process's journal was taken in, and when.
const TAKEN: &str = "taken";

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
    mark(fs, journal_dir, process, BRIDGE)
}

/// Marks a journal: its spans come from outside, and all its runs have crashed when its process has died.
///
/// # Errors
///
/// As [`mark_resumable`].
#[cfg(feature = "server")]
pub(crate) fn mark_command(journal_dir: &Path, process: &str) -> Result<(), JournalError> {
    mark(&OsFs, journal_dir, process, COMMAND)
}

fn mark(fs: &dyn Fs, journal_dir: &Path, process: &str, name: &str) -> Result<(), JournalError> {
    // Nothing is acknowledged before the first segment, whose name comes to the disk together with this one.
    let path = process_dir(journal_dir, process)?.join(name);
    fs.open(&path, Access::Create).map(drop).map_err(JournalError::io("create", &path))
}

/// Tells whether a journal has the mark.
pub fn is_resumable(journal_dir: &Path, process: &str) -> bool {
    is_resumable_in(&OsFs, journal_dir, process)
}

/// Like [`is_resumable`], on another file system.
pub(crate) fn is_resumable_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> bool {
    // Who may not even look must not take its runs for crashed.
    process_dir(journal_dir, process).is_ok() && has_mark_in(fs, journal_dir, process).unwrap_or(true)
}

/// Tells the same, or that it cannot be told.
pub(crate) fn has_mark_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<bool, JournalError> {
    is_marked(fs, journal_dir, process, BRIDGE)
}

/// Tells whether a server is at work on a journal: whoever else holds its lock takes in what a dead one left.
#[cfg(feature = "server")]
pub(crate) fn is_served(journal_dir: &Path, process: &str) -> bool {
    // Where that cannot be seen it is left alone.
    process_dir(journal_dir, process).is_ok_and(|dir| lock::is_served(&OsFs, &dir).unwrap_or(true))
}

/// Tells whether an import goes on with a journal, and will let go of it.
#[cfg(feature = "server")]
pub(crate) fn is_imported_into(journal_dir: &Path, process: &str) -> bool {
    process_dir(journal_dir, process).is_ok_and(|dir| lock::is_imported_into(&OsFs, &dir).unwrap_or(false))
}

/// Tells whether a journal is that of a command's receiver, or that it cannot be told.
pub(crate) fn is_of_command_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<bool, JournalError> {
    is_marked(fs, journal_dir, process, COMMAND)
}

/// How a dead process's journal was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenIn {
    /// The store has all of it that can be had now, as of a moment: a run may go on when the next bridge does, or end by its
    /// silence.
    Until(UnixNanos),
    /// The store has all of it, and every run in it is over: who keeps the journal is an upstream.
    Whole,
}

/// Notes that the store has what a dead process's journal holds, up to frame `seq`: whoever comes next need not take it in
/// again.
pub(crate) fn note_taken_in(
    fs: &dyn Fs,
    journal_dir: &Path,
    process: &str,
    seq: u64,
    how: TakenIn,
) -> Result<(), JournalError> {
    let path = process_dir(journal_dir, process)?.join(TAKEN);
    // At no moment: a version that does not know of it takes everything in once more.
    let at = match how {
        TakenIn::Until(at) => at.0,
        TakenIn::Whole => 0,
    };
    replace(fs, &path, format!("{seq} {at}\n").as_bytes(), false).map_err(JournalError::io("write", &path))
}

/// Returns what was noted; what cannot be read says nothing.
pub(crate) fn taken_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Option<(u64, TakenIn)> {
    /// Two numbers.
    const MAX_BYTES: u64 = 64;
    let path = process_dir(journal_dir, process).ok()?.join(TAKEN);
    let text = String::from_utf8(read_bytes(fs, &path, MAX_BYTES).ok()?).ok()?;
    let (seq, at) = text.strip_suffix('\n')?.split_once(' ')?;
    let how = match at.parse().ok()? {
        0 => TakenIn::Whole,
        at => TakenIn::Until(UnixNanos(at)),
    };
    Some((seq.parse().ok()?, how))
}

fn is_marked(fs: &dyn Fs, journal_dir: &Path, process: &str, name: &str) -> Result<bool, JournalError> {
    let path = process_dir(journal_dir, process)?.join(name);
    match fs.stat(&path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(JournalError::io("read", &path)(error)),
    }
}
