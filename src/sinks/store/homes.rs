//! Which run what names none belongs to.
//!
//! It is its parent's. A step without a parent is of the trace's own run. One whose parent has not come stands below whatever is topmost,
//! where a trace has one topmost step and that names its run; else it is of the trace's own run, too. So where a step belongs follows from what
//! has come of its trace, in whatever order that was: what is learned later moves what came before.
//!
//! Not so where another process writes the trace's run: all that names none goes into the run that stands in the place of it.

use super::Trace;
use super::ids::{foreign_run_id, is_foreign_run_id};
use crate::model::{RunId, TraceId};

/// What waits for its parent belongs to another run than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rehomed {
    pub(super) from: RunId,
    pub(super) to: RunId,
}

impl Trace {
    /// Returns the run of what names none and has no parent. `told` is its id where somebody knows it: who has handed the trace on, or the store.
    pub(super) fn own_run(&mut self, trace: TraceId, start_unix_nano: u64, told: Option<RunId>) -> RunId {
        if let Some(own) = self.own {
            return own;
        }
        let known = self.released.iter().chain(&self.first_run).copied().find(|run| is_foreign_run_id(*run, trace));
        *self.own.insert(known.or(told).unwrap_or_else(|| foreign_run_id(trace, start_unix_nano)))
    }

    /// Returns the run of what names none and waits for its parent; `None` while the trace has no run.
    pub(super) fn home(&self) -> Option<RunId> {
        if self.is_shared {
            return self.first_run;
        }
        match self.tops[..] {
            [run] => Some(run),
            _ => self.own,
        }
    }

    /// Notes that a run has a topmost step. Returns what becomes of steps that wait for their parents.
    pub(super) fn note_top(&mut self, run: RunId) -> Option<Rehomed> {
        if self.is_shared || self.tops.contains(&run) {
            return None;
        }
        let before = self.home();
        self.tops.push(run);
        let (from, to) = before.zip(self.home()).filter(|(from, to)| from != to)?;
        let waits = self.held.contains_key(&from) || self.orphans.values().any(|runs| runs.contains(&from));
        waits.then_some(Rehomed { from, to })
    }
}
