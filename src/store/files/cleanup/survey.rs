//! Which runs there are, who started whom, and what they take.

use std::io;
use std::path::Path;

use super::super::artifacts::COMPRESSED_FROM;
use super::super::index::{self, Lead};
use super::super::layout::{Layout, stat};
use super::super::{run_dir, run_ids};
use super::pin::is_marked;
use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind, UnixNanos};
use crate::store::StoreError;
use crate::store::retention::Candidate;

/// What a file takes on the disk is a multiple of this, and so is a folder: most file systems have blocks of this size.
const BLOCK: u64 = 4096;

/// Returns what a file of so many bytes takes on the disk.
pub(super) fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// All runs of a store, and who started whom.
#[derive(Default)]
pub(super) struct Survey {
    pub candidates: Vec<Candidate>,
    pub children: IdMap<RunId, Vec<RunId>>,
    /// Runs that are over.
    pub over: Vec<Over>,
    /// Bytes that packed runs take.
    pub packed: IdMap<RunId, u64>,
    /// Runs of which a line of `index.log` tells.
    pub told: IdSet<RunId>,
    /// Those of them that are nowhere.
    pub nowhere: IdSet<RunId>,
    /// Bytes on the disk that sealing would give of a run, in a dry run.
    pub sealing_gives: IdMap<RunId, u64>,
}

/// A run that is over.
#[cfg_attr(not(feature = "seal"), expect(dead_code, reason = "only who seals asks"))]
pub(super) struct Over {
    pub run: RunId,
    /// When it was written last.
    pub written_at: UnixNanos,
    /// Files that it produced and that are large.
    pub has_large: bool,
}

impl Survey {
    pub fn take(layout: &Layout, with_bytes: bool) -> Result<Self, StoreError> {
        let (packs, inner) = layout.packs();
        let fs = layout.fs();
        // First: what comes meanwhile is for the next time.
        let mut runs = Vec::new();
        for kind in RunKind::ALL {
            runs.extend(run_ids(fs, &layout.runs(*kind))?.into_iter().map(|run| (*kind, run)));
        }
        let (mut indexed, told) = index::leads(fs, &layout.index_log())?;
        let packed = packs.bytes(inner).map_err(StoreError::io("read", packs.dir()))?;
        let mut survey = Self { packed, ..Self::default() };
        for (kind, run) in runs {
            let lead = indexed.remove(&run);
            match survey.look(layout, kind, run, lead, with_bytes) {
                Err(error) if error.is_out_of_resources() => return Err(error),
                // One run that cannot be read, perhaps another user's, does not keep all others.
                Err(_) => survey.add_damaged(kind, run, 0),
                Ok(()) => {}
            }
        }
        let there: IdSet<RunId> = survey.candidates.iter().map(|run| run.run_id).collect();
        let is_nowhere = |run: &&RunId| !there.contains(*run) && matches!(layout.find_run(**run), Ok(None));
        survey.nowhere = told.iter().filter(is_nowhere).copied().collect();
        survey.told = told;
        Ok(survey)
    }

    fn look(
        &mut self,
        layout: &Layout,
        kind: RunKind,
        run: RunId,
        lead: Option<Lead>,
        with_bytes: bool,
    ) -> Result<(), StoreError> {
        let (fs, dir) = (layout.fs(), layout.run(kind, run));
        let packed = match self.packed.get(&run).copied() {
            // A folder goes before it.
            Some(bytes) if layout.is_packed(&dir).unwrap_or(false) => Some(bytes),
            Some(_) => {
                self.packed.remove(&run);
                None
            }
            None => None,
        };
        let bytes = match packed {
            _ if !with_bytes => 0,
            Some(bytes) => bytes,
            None => tree_bytes(fs, &dir)?,
        };
        // A line may be an old one; a run that is over does not become open again by itself.
        let lead = match lead.filter(|lead| !lead.is_open) {
            Some(lead) => lead,
            // Nothing but artifacts yet: the run's first lines are about to be written.
            None if !run_dir::is_begun(fs, &dir)? => return Ok(()),
            None => match run_dir::read_summary(fs, &dir, run) {
                Ok(summary) => Lead::from(summary),
                Err(StoreError::Damaged { .. }) => {
                    self.add_damaged(kind, run, bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        self.add(lead, bytes, is_marked(fs, &dir)?);
        if packed.is_some() {
            // It is compressed where it is.
            self.over.pop_if(|over| over.run == run);
        }
        Ok(())
    }

    fn add(&mut self, run: Lead, bytes: u64, is_pinned: bool) {
        let is_over = !run.is_open;
        if let Some(parent) = run.parent_run_id {
            self.children.entry(parent).or_default().push(run.run_id);
        }
        if is_over {
            let has_large = run.largest_artifact > COMPRESSED_FROM;
            self.over.push(Over { run: run.run_id, written_at: run.updated_at, has_large });
        }
        self.candidates.push(Candidate {
            run_id: run.run_id,
            kind: run.kind,
            name: run.name,
            started_at: run.started_at,
            ended_at: run.ended_at,
            bytes,
            // What its own files say is asked when it is to go.
            is_removable: is_over && !is_pinned,
        });
    }

    /// Adds a run that cannot be read: it takes room, and stays.
    fn add_damaged(&mut self, kind: RunKind, run_id: RunId, bytes: u64) {
        let at = run_id.time();
        let name = "".into();
        self.candidates.push(Candidate {
            run_id,
            kind,
            name,
            started_at: at,
            ended_at: at,
            bytes,
            is_removable: false,
        });
    }
}

/// Returns the bytes that a folder with all that is in it takes on the disk, in whole blocks; what goes away meanwhile takes
/// none.
pub(super) fn tree_bytes(fs: &dyn Fs, dir: &Path) -> Result<u64, StoreError> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("read", dir)(error)),
    };
    let mut bytes = BLOCK;
    for entry in entries {
        let path = dir.join(&entry.name);
        bytes += match entry.is_dir {
            true => tree_bytes(fs, &path)?,
            false => stat(fs, &path).map_err(StoreError::io("read", &path))?.map_or(0, |found| on_disk(found.len)),
        };
    }
    Ok(bytes)
}
