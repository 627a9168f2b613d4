//! Runs that wait for that of a trace which they name as their cause.

use std::collections::VecDeque;

use super::LINKS_AWAITED;
use crate::model::id::IdMap;
use crate::model::{RunId, TraceId};

/// Who waits, by the trace that they wait for.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    waiting: IdMap<TraceId, Vec<RunId>>,
    /// The traces, the first one that was waited for first; some may have been found.
    since: VecDeque<TraceId>,
    runs: usize,
}

impl Awaited {
    /// Adds a run; `false` when it waits already. Of too many the first wait no longer: a cause that is recorded elsewhere never
    /// comes.
    pub(super) fn add(&mut self, trace: TraceId, run: RunId) -> bool {
        if self.waiting.get(&trace).is_some_and(|runs| runs.contains(&run)) {
            return false;
        }
        while self.runs >= LINKS_AWAITED
            && let Some(first) = self.since.pop_front()
        {
            self.runs -= self.waiting.remove(&first).map_or(0, |runs| runs.len());
        }
        if !self.waiting.contains_key(&trace) {
            self.since.push_back(trace);
        }
        self.waiting.entry(trace).or_default().push(run);
        self.runs += 1;
        true
    }

    /// Takes those that wait for a trace.
    pub(super) fn take(&mut self, trace: TraceId) -> Vec<RunId> {
        let runs = self.waiting.remove(&trace).unwrap_or_default();
        self.runs -= runs.len();
        if !runs.is_empty() && self.since.len() > 2 * LINKS_AWAITED {
            self.since.retain(|trace| self.waiting.contains_key(trace));
        }
        runs
    }

    /// Returns all that wait, the first ones first.
    pub(super) fn all(&self) -> Vec<(TraceId, RunId)> {
        let of = |trace: &TraceId| {
            self.waiting.get(trace).into_iter().flatten().map(|run| (*trace, *run)).collect::<Vec<_>>()
        };
        self.since.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_the_first_wait_no_longer() {
        let mut awaited = Awaited::default();
        let trace = |nth: usize| TraceId((nth as u128).to_be_bytes());
        let run = RunId([1; 16]);
        assert!(awaited.add(trace(1), run) && !awaited.add(trace(1), run));
        assert_eq!(awaited.take(trace(1)), [run]);
        assert_eq!(awaited.take(trace(1)), []);
        for nth in 0..3 * LINKS_AWAITED {
            awaited.add(trace(nth), run);
            if nth % 2 == 0 {
                awaited.take(trace(nth));
            }
        }
        assert_eq!(awaited.all().len(), LINKS_AWAITED);
        assert_eq!(awaited.take(trace(LINKS_AWAITED - 1)), []);
        assert_eq!(awaited.take(trace(3 * LINKS_AWAITED - 1)), [run]);
        assert!(awaited.since.len() <= 3 * LINKS_AWAITED);
    }
}
