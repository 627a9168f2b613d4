//! Checks whether the runs are there of which `index.log` tells.

use super::super::cleanup;
use super::super::layout::{Layout, stat};
use super::super::packs::Gone;
use super::index::Lines;
use super::{Cure, Problem, Report};
use crate::model::id::IdSet;
use crate::model::{RunId, RunKind};
use crate::store::StoreError;

/// Finds runs that are nowhere, and that nobody has removed as it should be done.
pub(super) fn check(
    layout: &Layout,
    runs: &[(RunKind, RunId)],
    lines: &Lines,
    report: &mut Report,
) -> Result<(), StoreError> {
    let there: IdSet<RunId> = runs.iter().map(|(_, run)| *run).collect();
    let missing = |lines: &Lines| -> Result<Vec<RunId>, StoreError> {
        let mut missing: Vec<RunId> = lines.runs().filter(|run| !there.contains(run)).collect();
        if !missing.is_empty() {
            let on_the_way = on_the_way_out(layout)?;
            missing.retain(|run| !on_the_way.contains(run));
        }
        for at in (0..missing.len()).rev() {
            if layout.find_run(missing[at])?.is_some() || is_hidden(layout, missing[at])? {
                missing.swap_remove(at);
            }
        }
        missing.sort_unstable();
        Ok(missing)
    };
    if missing(lines)?.is_empty() {
        return Ok(());
    }
    // A run that was just removed has lost its line by now.
    let missing = missing(&Lines::read(layout, &mut Vec::new())?)?;
    if let Some(first) = missing.first() {
        let what = match missing.len() {
            1 => format!("it tells of run {first}, which is nowhere"),
            runs => format!("it tells of {runs} runs that are nowhere, the first of them {first}"),
        };
        let todo = "their folders, or a pack with them, have gone: put them back from a copy. Where that was meant, runspan \
                    verify --repair notes that they were removed";
        report.problems.push(Problem::of_file(layout, &layout.index_log(), what, todo, Some(Cure::Nowhere)));
    }
    Ok(())
}

/// Returns the runs that are nowhere and of which `index.log` tells.
pub(super) fn nowhere(layout: &Layout) -> Result<IdSet<RunId>, StoreError> {
    let mut nowhere = IdSet::default();
    for run in Lines::read(layout, &mut Vec::new())?.runs() {
        if layout.find_run(run)?.is_none() && !is_hidden(layout, run)? {
            nowhere.insert(run);
        }
    }
    Ok(nowhere)
}

/// Tells whether a run is being removed.
pub(super) fn is_going(layout: &Layout, run: Option<RunId>) -> Result<bool, StoreError> {
    let Some(run) = run else { return Ok(false) };
    Ok(layout.find_run(run)?.is_none() && (is_hidden(layout, run)? || on_the_way_out(layout)?.contains(&run)))
}

/// Returns the runs that were removed from packs.
fn on_the_way_out(layout: &Layout) -> Result<IdSet<RunId>, StoreError> {
    let (packs, fs) = layout.packs();
    let read = || Ok((packs.buried(fs)?, packs.hidden(fs)?));
    let (buried, hidden) = read().map_err(StoreError::io("read", packs.dir()))?;
    let removed = buried.into_iter().filter(|(_, why)| *why != Gone::Unpacked).map(|(run, _)| run);
    Ok(removed.chain(hidden).collect())
}

/// Tells whether a run's folder is on the way out.
fn is_hidden(layout: &Layout, run: RunId) -> Result<bool, StoreError> {
    for kind in RunKind::ALL {
        let path = layout.runs(*kind).join(format!("{}{run}", cleanup::GONE_PREFIX));
        if stat(layout.fs(), &path).map_err(StoreError::io("read", &path))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
