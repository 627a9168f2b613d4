//! What is let go of: runs that are over, their traces, and what is in memory when it is begun again from the journal.

use std::collections::HashMap;
use std::time::Instant;

use super::ids::is_foreign_run_id;
use super::live::LiveRun;
use super::moving::add;
use super::{FINISHED_AT_HAND, FINISHED_BY_NAME, HeldRecord, LATE, MAX_BEHIND_BYTES, StoreSink, TRACES_AT_HAND, Trace};
use crate::model::id::IdSet;
use crate::model::{RunId, SpanId, TraceId};
use crate::store::{RunWriter, StoreError};

/// Runs that are at hand, beyond which those wait no longer from which all that spoke of GenAI was moved.
const LEFT_AT_HAND: usize = 4_096;

impl<W: RunWriter> StoreSink<W> {
    /// Returns the oldest place in the journal that is still needed: what is before may be acknowledged.
    ///
    /// Records held from long before are in memory only; what they tell of has not shown yet when the process dies.
    pub fn oldest_held(&self) -> Option<u64> {
        // What was held for another run before stands behind what came later.
        let held = self.traces.values().flat_map(|trace| trace.held.values()).flat_map(|held| &held.records);
        let held = held.filter(|held| !self.is_far_behind(held)).map(|held| held.seq);
        let waiting = self.dirty.iter().filter_map(|run| self.runs.get(run));
        let pending = waiting.clone().flat_map(|run| run.pending.iter().map(|start| start.seq));
        let unsorted = waiting.filter_map(|run| run.unsorted.first()).map(|first| first.seq);
        let moves = self.moves.iter().map(|of| of.seq).chain(self.claims.iter().map(|claim| claim.seq));
        held.chain(pending).chain(unsorted).chain(moves).min()
    }

    pub(super) fn is_far_behind(&self, held: &HeldRecord) -> bool {
        self.told_bytes - held.told_bytes > MAX_BEHIND_BYTES
    }

    /// Forgets what is in memory, to begin again from the journal with what the store holds.
    pub fn reset(&mut self) -> Result<(), StoreError> {
        for (run, live) in self.runs.drain() {
            self.writer.release_run(run);
            self.forgotten.entry(run).or_default().add(&live);
        }
        self.forget_traces();
        self.recall_forgotten()
    }

    pub(super) fn forget_traces(&mut self) {
        (self.told_before, self.taken) = (self.told, None);
        self.finished.clear();
        // Who told of them is told again.
        self.moves.clear();
        self.claims.clear();
        self.named.clear();
        for (trace_id, trace) in std::mem::take(&mut self.traces) {
            if !trace.released.is_empty() {
                let kept = Trace {
                    first_run: trace.first_run,
                    released: trace.released,
                    touched: trace.touched,
                    ..Trace::default()
                };
                self.traces.insert(trace_id, kept);
            }
            for (run, held) in trace.held {
                for held in held.records {
                    self.uncounted.insert(held.seq);
                    // The journal may not have it any more.
                    if self.is_far_behind(&held)
                        && let Some(span_id) = SpanId::from_bytes(&held.said.record.span.span_id)
                    {
                        let trace = self.traces.entry(trace_id).or_default();
                        trace.touched = Some(Instant::now());
                        trace.spans.insert(span_id, run);
                        trace.first_run.get_or_insert(run);
                        self.hold((trace_id, run, span_id), held);
                    }
                }
            }
        }
    }

    /// Lets go of the steps of runs that are over, but for the latest: a process that makes thousands of short runs
    /// must not hold them all.
    pub(super) fn release_finished(&mut self) {
        while self.finished.len() > FINISHED_AT_HAND {
            let Some(run) = self.finished.pop_front() else { return };
            // What came late may have made it dirty, or put it at the end of the line again. One that is to be deleted waits for that.
            let waits = self.runs.len() < LEFT_AT_HAND;
            if self.finished.contains(&run)
                || !self
                    .runs
                    .get(&run)
                    .is_some_and(|live| live.is_clean() && live.is_over() && !(live.is_left && waits))
            {
                continue;
            }
            let Some(live) = self.runs.remove(&run) else { continue };
            self.writer.release_run(run);
            let trace_id = live.state.trace_id();
            if live.by_span {
                self.remember_over(trace_id, run);
            }
            let Some(trace) = self.traces.get_mut(&trace_id) else { continue };
            let is_alone = trace.spans.values().all(|of| *of == run) && trace.first_run == Some(run);
            if is_alone && trace.held.is_empty() && trace.released.is_empty() {
                if live.by_span {
                    // It is remembered, in far less room.
                    self.traces.remove(&trace_id);
                    continue;
                }
                if trace_id.as_run_id() == run {
                    // The name of the trace leads to the run in the store.
                    self.traces.remove(&trace_id);
                    self.by_name.push_back(run);
                    self.by_name.drain(..self.by_name.len().saturating_sub(FINISHED_BY_NAME));
                    continue;
                }
            }
            trace.released.push(run);
            // Of another run's spans nothing but this tells that they are.
            let is_own = !live.by_span || is_foreign_run_id(run, trace_id);
            if is_own && trace.spans.values().all(|of| *of == run) {
                trace.spans = HashMap::default();
            }
        }
    }

    /// Lets go of runs and traces that have been over for a while.
    pub(super) fn forget_finished(&mut self, now: Instant) {
        // One that is to be deleted is not forgotten before.
        let stays = |live: &LiveRun| live.is_left && self.outside.is_some();
        let is_late = |live: &LiveRun| now.saturating_duration_since(live.touched) > LATE;
        let over = |live: &LiveRun| live.is_clean() && live.is_over() && is_late(live) && !stays(live);
        let gone: Vec<RunId> = self.runs.iter().filter(|(_, live)| over(live)).map(|(run, _)| *run).collect();
        for run in gone {
            if let Some(live) = self.runs.remove(&run).filter(|live| live.by_span) {
                let trace_id = live.state.trace_id();
                self.remember_over(trace_id, run);
                // Others of its trace may be under way.
                if let Some(trace) = self.traces.get_mut(&trace_id) {
                    add(&mut trace.released, run);
                }
            }
            self.writer.release_run(run);
        }
        self.traces.retain(|_, trace| {
            let recent = trace.touched.is_some_and(|touched| now.saturating_duration_since(touched) <= LATE);
            recent || !trace.held.is_empty() || trace.spans.values().any(|run| self.runs.contains_key(run))
        });
        self.elsewhere.retain(|_, elsewhere| self.traces.contains_key(&elsewhere.trace));
        let released: IdSet<RunId> = self.traces.values().flat_map(|trace| &trace.released).copied().collect();
        self.in_place_of
            .retain(|_, own| self.runs.contains_key(own) || self.elsewhere.contains_key(own) || released.contains(own));
    }

    /// Remembers a run that is let go of.
    fn remember_over(&mut self, trace: TraceId, run: RunId) {
        match self.over.get(&trace) {
            None => {
                self.over.insert(trace, run);
                self.over_since.push_back(trace);
            }
            Some(known) if *known == run => {}
            Some(_) => add(self.over_beside.entry(trace).or_default(), run),
        }
        while self.over_since.len() > TRACES_AT_HAND {
            let Some(trace) = self.over_since.pop_front() else { return };
            self.over.remove(&trace);
            self.over_beside.remove(&trace);
        }
    }

    /// Forgets a run that is not there any more.
    pub(super) fn forget_over(&mut self, trace: TraceId, run: RunId) {
        let is_first = self.over.get(&trace) == Some(&run);
        let beside = self.over_beside.get_mut(&trace);
        let next = beside.and_then(|beside| {
            beside.retain(|other| *other != run);
            if is_first { beside.pop() } else { None }
        });
        match next {
            Some(next) => drop(self.over.insert(trace, next)),
            // Its place in the order goes by itself.
            None if is_first => drop(self.over.remove(&trace)),
            None => {}
        }
    }

    /// Makes the trace of runs that were let go of known again, or that another process has written.
    pub(super) fn recall_over(&mut self, trace_id: TraceId) -> Result<(), StoreError> {
        if self.traces.get(&trace_id).is_some_and(|trace| trace.is_recalled || self.outside.is_none()) {
            return Ok(());
        }
        if self.outside.is_some() && !self.over.contains_key(&trace_id) {
            match self.hear_of_others() {
                // That passes, and who tells of this trace tells of it again.
                Err(error) if error.is_out_of_resources() => return Err(error),
                // What cannot be read keeps nobody's spans from being stored: a late one may get a run of its own.
                heard => drop(heard),
            }
        }
        let beside = self.over_beside.get(&trace_id).into_iter().flatten();
        let mut over: Vec<RunId> = self.over.get(&trace_id).into_iter().chain(beside).copied().collect();
        over.retain(|run| !self.runs.contains_key(run));
        if over.is_empty() && self.outside.is_none() {
            return Ok(());
        }
        let trace = self.traces.entry(trace_id).or_default();
        trace.is_recalled = true;
        let is_own = |run: &RunId| is_foreign_run_id(*run, trace_id);
        let is_one = trace.spans.is_empty() && over.len() <= 1 && over.iter().all(is_own);
        for run in &over {
            trace.first_run.get_or_insert(*run);
            add(&mut trace.released, *run);
        }
        if is_one {
            return Ok(());
        }
        // Only what they tell shows which of them has what.
        let opened = self.open_all(&over, trace_id);
        if opened.is_ok() {
            self.check_homes(trace_id);
        } else if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.is_recalled = false;
        }
        opened
    }

    fn open_all(&mut self, runs: &[RunId], trace_id: TraceId) -> Result<(), StoreError> {
        for run in runs {
            match self.open_released(*run, trace_id) {
                // It is in other hands.
                Err(error) if error.is_closed() => {}
                opened => opened?,
            }
            self.forget_unbegun(*run);
            // What nothing comes to is let go of, too.
            self.dirty.insert(*run);
        }
        Ok(())
    }

    /// Remembers the runs from outside that others have written and that are over, and those that a process of this name has:
    /// what comes late for one of them belongs to it, whoever takes it in.
    pub(crate) fn hear_of_others(&mut self) -> Result<(), StoreError> {
        let is_foreign = |trace, run| is_foreign_run_id(run, trace);
        for (trace, run) in self.writer.over_by_others(TRACES_AT_HAND, &is_foreign)? {
            self.remember_over(trace, run);
        }
        Ok(())
    }
}
