//! Removes runs from a store: what a [`plan`](crate::store::retention::plan) says, and what an earlier removal left.
//!
//! A run goes in steps that may end anywhere. Under the lock of its log its folder gets a name that no reader takes for a
//! run, which needs no room on a disk that is full; that is the moment it is gone. Then its files go, then the links that
//! its children have to it, its lines in the log of all runs, and the empty folder last: as long as that is there, the next
//! to clean up goes on. A run in a pack goes with its tombstone, which is what is left of it until the others are done. A run
//! that is open or pinned, whose metadata cannot be read, or whose log another process has open, stays.

mod pin;
mod removal;
#[cfg(feature = "seal")]
mod seal;
mod space;
mod survey;

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::index;
use super::layout::Layout;
use crate::model::id::IdSet;
use crate::model::{RunId, RunKind, UnixNanos};
use crate::store::StoreError;
use crate::store::retention::{Policy, Reason};
pub use pin::set_pinned;
pub(super) use pin::{is_marked, mark_folder, unmark_folder};
#[cfg(feature = "seal")]
use seal::seal;
use survey::Survey;

/// Folders on the way out are named so, with the run's id behind it.
pub(super) const GONE_PREFIX: &str = ".deleted-";
/// Folders in the making, with the ids of run and process behind it.
const NEW_PREFIX: &str = ".new-";
/// A run that was written less than so long ago may still get what comes late.
const QUIET: std::time::Duration = std::time::Duration::from_secs(60);
/// So many runs are taken out of sight, with one sync for all, before their files go.
const BATCH: usize = 64;

/// What to do beyond removing what a policy says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Tell what would be done, and change nothing.
    pub is_dry_run: bool,
    /// Seal logs of runs that are over from so many bytes on, and files over 10 MB that they produced; `None`: none. Without the feature `seal` none is.
    pub seal_from: Option<u64>,
}

/// A run that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The run.
    pub run_id: RunId,
    /// What it was an execution of.
    pub kind: RunKind,
    /// Of which agent or workflow.
    pub name: String,
    /// When it began.
    pub started_at: UnixNanos,
    /// Bytes that it takes on the disk: of its files and its folder in blocks of 4 KiB, or of its part of a pack.
    pub bytes: u64,
    /// Why it goes.
    pub reason: Reason,
}

/// A run that should have gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stayed {
    /// The run.
    pub run_id: RunId,
    /// Why it is still there.
    pub why: String,
    /// It stayed for a failure, and not because it is pinned, open or being written.
    #[serde(skip)]
    pub is_failure: bool,
}

/// A file that was sealed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// Whose it is.
    pub run_id: RunId,
    /// The file, in the run's folder, by its name before.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of its sealed form.
    pub sealed_bytes: u64,
}

#[cfg(feature = "seal")]
impl Sealed {
    /// Returns what the disk has back, in whole blocks.
    fn blocks_gained(&self) -> u64 {
        survey::on_disk(self.bytes).saturating_sub(survey::on_disk(self.sealed_bytes))
    }
}

#[cfg(feature = "seal")]
impl Cleaned {
    fn add_sealed(&mut self, file: Sealed) {
        self.sealed += 1;
        self.sealed_from_bytes += file.bytes;
        self.sealed_to_bytes = Some(self.sealed_to_bytes.unwrap_or(0) + file.sealed_bytes);
        self.sealed_files.push(file);
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// What went, the oldest first.
    pub removed: Vec<Removed>,
    /// Their bytes.
    pub bytes: u64,
    /// What should have gone and did not.
    pub stayed: Vec<Stayed>,
    /// Runs that are left.
    pub runs_left: u64,
    /// Their bytes; only where a policy asks for them.
    pub bytes_left: Option<u64>,
    /// Logs and large files that were sealed, or would be.
    pub sealed: u64,
    /// Bytes that these took before.
    pub sealed_from_bytes: u64,
    /// Bytes that they take sealed; `None` where none is.
    pub sealed_to_bytes: Option<u64>,
    /// Each of them. To say so a dry run compresses them as well, and keeps nothing of it.
    pub sealed_files: Vec<Sealed>,
    /// Folders and packs of an earlier removal, or whose making was interrupted, that went as well.
    pub leftovers: u64,
    /// Packs that were written anew without what has gone from them, joined, or deleted since nothing was left.
    pub packs_rewritten: u64,
    /// Packs in their place.
    pub packs_written: u64,
    /// Bytes that the file system got back by it.
    pub packs_freed_bytes: u64,
    /// Bytes of removed runs that packs still have: a pack is written anew once more than half of it has gone.
    pub packs_pending_bytes: u64,
    /// Runs with a folder that were put into a pack again.
    pub packed_again: u64,
}

/// Removes what a policy does not keep. `go_on` is asked before each 64 runs, each log that is sealed and each pack; told `false`
/// it stops, and what is left is left for the next time.
///
/// # Errors
///
/// When the store cannot be read. A run that cannot be removed is told in [`Cleaned::stayed`].
pub fn cleanup(
    layout: &Layout,
    policy: &Policy,
    options: Options,
    now: UnixNanos,
    mut go_on: impl FnMut() -> bool,
) -> Result<Cleaned, StoreError> {
    layout.read()?;
    if !options.is_dry_run {
        // What cannot be given back now stays where it is, for the next.
        let _ = super::restore_replaced(layout);
    }
    let job = Job { layout, is_dry_run: options.is_dry_run, now };
    let mut cleaned = Cleaned::default();
    let mut survey = Survey::take(layout, policy.max_bytes.is_some())?;
    let mut emptied = Vec::new();
    if !job.is_dry_run {
        (cleaned.leftovers, emptied) = removal::sweep(layout, &survey)?;
    }
    // What is sealed takes less, so that is done before runs go for the size of all.
    let seals_first = options.seal_from.is_some() && policy.max_bytes.is_some();
    let first = Policy { max_bytes: policy.max_bytes.filter(|_| !seals_first), ..*policy };
    let mut removed = removal::remove(&first, &job, &survey, &mut go_on, &mut cleaned, &mut emptied);
    if let Some(from) = options.seal_from.filter(|_| removed.is_ok()) {
        removed = seal(&job, &mut survey, from, &mut go_on, &mut cleaned);
    }
    if seals_first && removed.is_ok() {
        removed = removal::remove(policy, &job, &survey, &mut go_on, &mut cleaned, &mut emptied);
    }
    // Also where something failed: what went before is to be gone as a whole.
    let forgotten = forget(layout, emptied);
    removed?;
    cleaned.bytes = cleaned.removed.iter().map(|run| run.bytes).sum();
    cleaned.runs_left = survey.candidates.len().saturating_sub(cleaned.removed.len()) as u64;
    let all: u64 = survey.candidates.iter().map(|run| run.bytes).sum();
    let left = all.saturating_sub(cleaned.bytes);
    cleaned.bytes_left = policy.max_bytes.map(|_| left);
    survey.told.retain(|run| !forgotten.contains(run));
    space::give_back(&job, &survey, policy.max_bytes.map(|most| (most, left)), &mut go_on, &mut cleaned)?;
    Ok(cleaned)
}

/// A run of which nothing is left but what else tells of it, and its folder, which is empty.
struct Emptied {
    run: RunId,
    folder: Option<PathBuf>,
}

/// What is worked with.
struct Job<'a> {
    layout: &'a Layout,
    is_dry_run: bool,
    now: UnixNanos,
}

/// Takes away what else tells of runs whose files have gone, and their folders last: until then the next cleanup knows
/// what is left to do. Returns the runs of which nothing tells any more.
fn forget(layout: &Layout, emptied: Vec<Emptied>) -> IdSet<RunId> {
    if emptied.is_empty() {
        return IdSet::default();
    }
    let fs = layout.fs();
    // One of these ids may have been recorded anew.
    let is_there = |run: &RunId| !matches!(layout.find_run(*run), Ok(None));
    let gone: IdSet<RunId> = emptied.iter().map(|emptied| emptied.run).filter(|run| !is_there(run)).collect();
    // The index knows the log by the bytes before the place that it has read up to: with a line of blanks at the end,
    // none of them change. On a full disk it may have to begin anew.
    let _ = index::pad(fs, &layout.index_log());
    #[cfg(feature = "index")]
    super::database::catch_up(layout);
    if index::blank(fs, &layout.index_log(), &gone, false).is_err() {
        return IdSet::default();
    }
    for folder in emptied.into_iter().filter_map(|emptied| emptied.folder) {
        // It is no harm where it stays: the next cleanup takes it away.
        let _ = fs.remove_dir(&folder);
    }
    gone
}

#[cfg(not(feature = "seal"))]
fn seal(_: &Job<'_>, _: &mut Survey, _: u64, _: &mut dyn FnMut() -> bool, _: &mut Cleaned) -> Result<(), StoreError> {
    Ok(())
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
