//! Runs that started runs: who is above a run and who is below, in whichever processes they ran.
//!
//! A parent is what a run says; anybody may have said it, so a parent may be missing and a run its own ancestor. Every run
//! is told once, and nothing here recurses.

use super::{Listed, Query, RunReader, StoreError};
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunSummary};

/// Runs by who started them.
#[derive(Debug, Default)]
pub struct Tree {
    runs: IdMap<RunId, RunSummary>,
    /// By their start.
    children: IdMap<RunId, Vec<RunId>>,
}

impl Tree {
    /// Takes the runs, newest first.
    pub fn of(runs: Vec<RunSummary>) -> Self {
        let mut tree = Self { runs: IdMap::default(), children: IdMap::default() };
        for run in runs.into_iter().rev() {
            if let Some(parent) = run.parent_run_id {
                tree.children.entry(parent).or_default().push(run.run_id);
            }
            tree.runs.insert(run.run_id, run);
        }
        tree
    }

    /// Reads the runs that may be below one, as they stand, and itself.
    ///
    /// # Errors
    ///
    /// As [`RunReader::list_runs`]. A run that cannot be read is left out.
    pub fn read(reader: &impl RunReader, run: RunId) -> Result<Self, StoreError> {
        // None below it began before it.
        let listed = reader.list_runs(&Query { since: Some(run.time()), ..Query::default() })?;
        let runs = listed.into_iter().filter_map(|listed| match listed {
            Listed::Run(run) => Some(run.summary),
            Listed::Damaged(_) => None,
        });
        Ok(Self::of(runs.collect()))
    }

    /// Leaves out runs, and with them what is below those alone.
    #[must_use]
    pub fn without(mut self, is_left_out: impl Fn(&RunSummary) -> bool) -> Self {
        self.runs.retain(|_, run| !is_left_out(run));
        for children in self.children.values_mut() {
            children.retain(|child| self.runs.contains_key(child));
        }
        self
    }

    /// Returns a run.
    pub fn get(&self, run: RunId) -> Option<&RunSummary> {
        self.runs.get(&run)
    }

    /// Returns a run, if it is there, and then all below it, each above its children.
    pub fn from(&self, run: RunId) -> impl Iterator<Item = &RunSummary> {
        self.below(run).into_iter().filter_map(|(run, _)| self.get(run))
    }

    /// Returns the topmost run above one, and whose child that says it is if that is not there. In a circle, the run itself
    /// is topmost.
    pub fn top_of(&self, run: RunId) -> (RunId, Option<RunId>) {
        let mut seen = IdSet::default();
        let mut top = run;
        while seen.insert(top) {
            match self.runs.get(&top).and_then(|summary| summary.parent_run_id) {
                Some(parent) if self.runs.contains_key(&parent) => top = parent,
                missing => return (top, missing),
            }
        }
        (run, None)
    }

    /// Returns a run and all below it, each above its children, and how deep each is.
    pub fn below(&self, top: RunId) -> Vec<(RunId, usize)> {
        let (mut found, mut seen, mut waiting) = (Vec::new(), IdSet::default(), vec![(top, 0)]);
        while let Some((run, depth)) = waiting.pop() {
            if !seen.insert(run) {
                continue;
            }
            found.push((run, depth));
            let children = self.children.get(&run).into_iter().flatten().rev();
            waiting.extend(children.map(|child| (*child, depth + 1)));
        }
        found
    }
}
