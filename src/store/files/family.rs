//! The family of a run: who is above it and who is below, in whichever processes they ran.

use super::FilesReader;
use crate::model::RunId;
use crate::store::family::Tree;
use crate::store::{ListedRun, StoreError};

/// A run and all that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// From the topmost one down, each above those that it started, these by their start.
    pub members: Vec<Member>,
    /// The topmost one says that it was started by this run, which the store does not have.
    pub missing_parent: Option<RunId>,
    /// Runs below that are not told, beyond the limit.
    pub left_out: usize,
}

/// One run of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The run, with live totals while it is open.
    pub run: ListedRun,
    /// How many are above it.
    pub depth: usize,
}

impl FilesReader {
    /// Returns the family of a run, at most `limit` of its runs: those above it up to the topmost one, and all below that.
    ///
    /// # Errors
    ///
    /// As [`RunReader::list_runs`](crate::store::RunReader::list_runs). A run that cannot be read is left out.
    pub fn family(&self, run: RunId, limit: usize) -> Result<Family, StoreError> {
        let tree = Tree::of(self.stored_runs()?);
        let (top, missing_parent) = tree.top_of(run);
        let below = tree.below(top);
        let left_out = below.len().saturating_sub(limit);
        let mut members = Vec::with_capacity(below.len() - left_out);
        for (run, depth) in below.into_iter().take(limit) {
            match self.get_listed(run) {
                Ok(run) => members.push(Member { run, depth }),
                Err(error) if error.is_negative_answer() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Family { members, missing_parent, left_out })
    }

    /// Returns the runs below one that are not over, the nearest first, each with the one that started it.
    pub(crate) fn open_below(&self, run: RunId) -> Result<Vec<(RunId, RunId)>, StoreError> {
        let tree = Tree::of(self.stored_runs()?);
        let mut below = tree.below(run);
        below.sort_by_key(|(_, depth)| *depth);
        let open = below.into_iter().skip(1).filter_map(|(run, _)| {
            let summary = tree.get(run).filter(|summary| summary.status.is_open())?;
            Some((run, summary.parent_run_id?))
        });
        Ok(open.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RunSummary, UnixNanos};
    use crate::store::RunWriter;
    use crate::store::assembly::RunState;
    use crate::store::files::FilesWriter;
    use crate::store::files::layout::Layout;

    fn id(n: u8) -> RunId {
        RunId::from_parts(u64::from(n), [n; 10])
    }

    /// A store of runs, each with its parent.
    fn store(runs: &[(u8, Option<u8>)]) -> (tempfile::TempDir, FilesReader) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.open_or_create().unwrap();
        let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        for (n, parent) in runs {
            let summary = RunState::new(id(*n), id(*n).as_trace_id()).summary(UnixNanos(1));
            let parent_run_id = parent.map(id);
            writer.create_run(&RunSummary { parent_run_id, started_at: id(*n).time(), ..summary }, &[]).unwrap();
        }
        (dir, FilesReader::of(layout).unwrap())
    }

    fn outline(family: &Family) -> Vec<(RunId, usize)> {
        family.members.iter().map(|member| (member.run.summary.run_id, member.depth)).collect()
    }

    #[test]
    fn a_family_is_the_same_from_every_member_and_within_its_limit() {
        let (_dir, reader) = store(&[(1, None), (2, Some(1)), (3, Some(1)), (4, Some(2)), (5, None), (6, Some(77))]);
        for n in 1..=4 {
            let family = reader.family(id(n), 10).unwrap();
            assert_eq!(outline(&family), [(id(1), 0), (id(2), 1), (id(4), 2), (id(3), 1)]);
            assert_eq!((family.missing_parent, family.left_out), (None, 0));
        }
        let cut = reader.family(id(4), 3).unwrap();
        assert_eq!((outline(&cut).len(), cut.left_out), (3, 1));
        let orphan = reader.family(id(6), 10).unwrap();
        assert_eq!((outline(&orphan), orphan.missing_parent), (vec![(id(6), 0)], Some(id(77))));
    }

    #[test]
    fn a_run_that_is_its_own_ancestor_is_told_once() {
        let (_dir, reader) = store(&[(1, Some(3)), (2, Some(1)), (3, Some(2)), (4, Some(4))]);
        assert_eq!(outline(&reader.family(id(2), 10).unwrap()), [(id(2), 0), (id(3), 1), (id(1), 2)]);
        assert_eq!(outline(&reader.family(id(4), 10).unwrap()), [(id(4), 0)]);
        let below: Vec<RunId> = reader.open_below(id(2)).unwrap().into_iter().map(|(run, _)| run).collect();
        assert_eq!(below, [id(3), id(1)]);
    }
}
