//! Runs that the store holds, taken up again where their log stops.

use std::collections::HashSet;

use super::ids::run_id_in_place_of;
use super::live::{Forgotten, LiveRun};
use super::settle::told_parent;
use super::{Elsewhere, StoreSink};
use crate::conventions::names;
use crate::model::event::EventBody;
use crate::model::id::IdMap;
use crate::model::{EventId, RunId, SpanId, TraceId, UnixNanos};
use crate::sinks::tally::Notes;
use crate::store::assembly::RunState;
use crate::store::{RunWriter, StoreError};

impl<W: RunWriter> StoreSink<W> {
    /// Takes forgotten runs up again: all of them, or the next reset goes on with it.
    pub(super) fn recall_forgotten(&mut self) -> Result<(), StoreError> {
        let mut forgotten: Vec<(RunId, Forgotten)> = self.forgotten.iter().map(|(run, was)| (*run, *was)).collect();
        forgotten.sort_unstable_by_key(|(run, _)| *run);
        for (run, was) in &forgotten {
            self.take_up(&[*run])?;
            let Some(live) = self.runs.get_mut(run).filter(|live| live.state.has_started()) else { continue };
            if was.is_unpublished {
                // Its log may have been written and what is made of it not: nothing that is told again shows that.
                live.stale_summary = true;
                self.dirty.insert(*run);
            }
            // All of it was written before the trouble began, and it was not counted yet.
            if was.is_uncounted && live.counted.take().is_some() {
                self.dirty.insert(*run);
            }
            if was.is_uncounted && live.notes.is_none() {
                let mut notes = Notes::default();
                self.writer.take_up(*run)?.unwrap_or_default().iter().for_each(|event| notes.note(event));
                live.notes = Some(Box::new(notes));
                self.dirty.insert(*run);
            }
        }
        self.forgotten.clear();
        Ok(())
    }

    /// Takes runs up that the store holds, so that records find them through their parents and traces.
    pub fn take_up(&mut self, runs: &[RunId]) -> Result<(), StoreError> {
        for &run in runs {
            if !self.runs.contains_key(&run) {
                match self.open_run(run, run.as_trace_id(), None) {
                    // Another process was faster: our records get a run of their own when they are told.
                    Err(error) if error.is_closed() => {}
                    opened => opened?,
                }
                self.forget_unbegun(run);
            }
        }
        Ok(())
    }

    /// Notes what there is of a run that another process writes. What cannot be read is told again in the run of our own.
    fn look_elsewhere(&mut self, run: RunId, own: RunId, trace: TraceId) {
        let Ok(Some(events)) = self.writer.look_at(run) else { return };
        let mut state = RunState::new(run, trace);
        events.iter().for_each(|event| state.apply(event, false));
        let ended = state.spans().filter(|span| state.step_progress(*span).1).collect();
        self.elsewhere.insert(own, Elsewhere { run, trace, ended });
    }

    /// Lets go of a run of which the store has nothing and nothing waits to be written: whoever tells of it knows its trace.
    pub(super) fn forget_unbegun(&mut self, run: RunId) {
        if self.runs.get(&run).is_some_and(|live| !live.state.has_started() && live.has_nothing_to_write()) {
            self.runs.remove(&run);
            self.writer.release_run(run);
        }
    }

    /// Opens a run, or where that cannot be gone on with, a run of our own in its place, and tells which.
    pub(super) fn open_own_run(&mut self, run: RunId, trace_id: TraceId) -> Result<RunId, StoreError> {
        // It may be one of our own that stands in the place of another already.
        let in_place_of = self.elsewhere.get(&run).map(|elsewhere| elsewhere.run);
        match self.open_run(run, trace_id, in_place_of) {
            Err(error) if error.is_closed() => {
                let own = run_id_in_place_of(run, self.process);
                self.open_run(own, trace_id, Some(run))?;
                self.in_place_of.insert(run, own);
                let trace = self.traces.entry(trace_id).or_default();
                trace.is_shared = true;
                trace.first_run = trace.first_run.map(|first| if first == run { own } else { first });
                if self.outside.is_some() && !self.elsewhere.contains_key(&own) {
                    self.look_elsewhere(run, own, trace_id);
                }
                Ok(own)
            }
            opened => opened.map(|()| run),
        }
    }

    pub(super) fn open_run(
        &mut self,
        run: RunId,
        trace_id: TraceId,
        in_place_of: Option<RunId>,
    ) -> Result<(), StoreError> {
        let mut state = RunState::new(run, trace_id);
        // Made for good by the first flush, when the first step tells name and kind; here only what is there is read.
        let (mut known, mut told) = (HashSet::default(), IdMap::<EventId, HashSet<UnixNanos>>::default());
        let mut notes = self.tallies.as_ref().map(|_| Box::<Notes>::default());
        let mut logs = Vec::new();
        let written = self.writer.take_up(run)?.unwrap_or_default();
        // Its own steps do not say so, and it would be lost when they are told once more.
        let stands_for = |parent: &RunId| run_id_in_place_of(*parent, self.process) == run;
        let in_place_of = in_place_of.or_else(|| told_parent(&written).filter(stands_for));
        let has_lines = !written.is_empty();
        if self.outside.is_some() && !written.is_empty() {
            // Whatever it is opened for may have come before.
            state = state.for_copies();
        }
        for event in written {
            state.apply(&event, false);
            if let Some(notes) = &mut notes {
                notes.note(&event);
            }
            known.insert(event.event_id);
            if let EventBody::Log(log) = &event.body {
                logs.extend(log.fields.get(names::LOG_OF_SPAN).and_then(|span| span.as_str()?.parse::<SpanId>().ok()));
            }
            // What the root says of its run has no step, but the start of its step as its cause.
            match (event.parent_event_id, event.body.span()) {
                (Some(start), None) => drop(told.entry(start).or_default().insert(event.timestamp)),
                (Some(start), Some(_)) if !event.body.is_step_start() => drop(told.remove(&start)),
                _ => {}
            }
        }
        state.take_starts_first(self.outside.is_none());
        // Logs of spans that have not come may be all there is: what comes is written behind them, and told of to those who list runs.
        let has_logs_alone = has_lines && !state.has_started();
        let written_status = has_lines.then(|| state.status());
        if state.has_started() {
            self.note_taken_up(run, &state, &logs);
        }
        let by_span = self.outside.is_some();
        // How what was written stands is not known.
        let unsettled = by_span && written_status.is_some();
        let is_told_again = self.told <= self.again_up_to && self.told > 0;
        let stale_summary = (self.is_distrustful || is_told_again) && state.has_started();
        if stale_summary {
            self.dirty.insert(run);
        }
        let live = LiveRun {
            known,
            told,
            written_status,
            stale_summary: stale_summary || has_logs_alone,
            by_span,
            unsettled,
            notes,
            ..LiveRun::new(state, in_place_of)
        };
        // One that was over when it was let go of is counted.
        let mut live = live;
        if live.is_over()
            && let Some(mut notes) = live.notes.take()
            && by_span
        {
            live.counted = Some(Box::new(notes.counted(&live.state)));
            live.notes = Some(notes);
        }
        self.runs.insert(run, live);
        Ok(())
    }

    /// Takes a run up again that was let go of.
    pub(super) fn open_released(&mut self, run: RunId, trace_id: TraceId) -> Result<(), StoreError> {
        self.open_run(run, trace_id, None)?;
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.released.retain(|released| *released != run);
        }
        Ok(())
    }

    /// Has the metadata of runs that records up to this place belong to written once more: who told them before may have died
    /// in the middle of that.
    #[cfg(feature = "server")]
    pub(crate) fn write_again_up_to(&mut self, seq: u64) {
        self.again_up_to = seq;
    }
}
