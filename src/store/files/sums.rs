//! Whether `run.yaml` says of a run what its events add up to.

use super::yaml::{from_yaml, to_yaml};
use crate::model::RunSummary;
use crate::store::assembly::RunState;

/// What a run's metadata is beside its log.
pub(super) enum Sums {
    /// It says what the events add up to.
    AreRight,
    /// It is another version's: things are counted alike, and added up in another way. No damage.
    OfOtherRules,
    /// It says otherwise, and this would be right. The hash of the log is that which it had.
    AreWrong(Box<RunSummary>),
}

impl Sums {
    /// Holds what a run's metadata says, when it is over, against the events, all of which `state` has taken in.
    ///
    /// `is_copied`: `index.log` says the same. Where only one of the two does, it is no matter of versions.
    pub(super) fn of(summary: &RunSummary, state: &RunState, is_copied: bool) -> Result<Self, String> {
        let told = state.summary(summary.updated_at);
        let told = RunSummary {
            writer: summary.writer,
            pinned: summary.pinned,
            events_sha256: summary.events_sha256,
            // Its parent may have been removed, which takes the link away.
            parent_run_id: summary.parent_run_id.and(told.parent_run_id),
            ..told
        };
        // Moments are cut to milliseconds there.
        let told: RunSummary = to_yaml(&told).and_then(|text| from_yaml(&text))?;
        if told == *summary {
            return Ok(Self::AreRight);
        }
        let counted =
            |run: &RunSummary| (run.events, run.dropped, run.trace_id, run.artifacts.clone(), run.status.is_open());
        // Steps stand in run.yaml alone.
        let is_lean_other = RunSummary { steps: None, ..told.clone() } != RunSummary { steps: None, ..summary.clone() };
        if is_copied && is_lean_other && counted(&told) == counted(summary) {
            return Ok(Self::OfOtherRules);
        }
        Ok(Self::AreWrong(Box::new(told)))
    }
}
