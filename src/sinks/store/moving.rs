//! Steps that came before their parent, which turns out to be of another run: they are that run's, as if they had come
//! behind it.
//!
//! They are copied at once, and taken out of the run to which they came when the copies last: whenever the process dies,
//! each step is in some run.

use super::live::Said;
use super::settle::Told;
use super::{StoreSink, Trace};
use crate::model::event::Event;
use crate::model::id::{IdSet, is_foreign_run_id};
use crate::model::record::RecordKind;
use crate::model::{RunId, SpanId, TraceId};
use crate::store::assembly::RunState;
use crate::store::{RunWriter, StoreError};

/// Steps that were copied from a run to another.
#[derive(Debug)]
pub(super) struct Move {
    from: RunId,
    to: RunId,
    trace: TraceId,
    /// The place of the parent in the journal: told again, it copies them again.
    pub(super) seq: u64,
    spans: IdSet<SpanId>,
}

impl Trace {
    /// Notes that a span which does not name its run has come before its parent, or a log before its span. Returns the runs of those
    /// that have come before this span so, other than its own.
    pub(super) fn note_child(&mut self, run: RunId, span: SpanId, said: &Said, names_run: bool) -> Vec<RunId> {
        if said.record.kind == RecordKind::Event {
            if !names_run && !self.spans.contains_key(&span) {
                self.by_logs.insert(span);
                self.note_orphan(span, run);
            }
            return Vec::new();
        }
        self.by_logs.remove(&span);
        let parent = SpanId::from_bytes(&said.record.span.parent_span_id).filter(|_| !names_run);
        if let Some(parent) = parent.filter(|parent| !self.spans.contains_key(parent) || self.by_logs.contains(parent))
        {
            self.note_orphan(parent, run);
        }
        if self.orphans.is_empty() {
            return Vec::new();
        }
        let mut runs = self.orphans.remove(&span).unwrap_or_default();
        runs.retain(|other| *other != run);
        runs
    }

    /// Notes what a run that is taken up waits for: parents of its steps, and spans of its logs.
    pub(super) fn note_waiting(&mut self, run: RunId, state: &RunState, logs: &[SpanId]) {
        state.awaited().for_each(|parent| self.note_orphan(parent, run));
        for span in logs.iter().filter(|span| !state.step_progress(**span).0) {
            if !self.spans.contains_key(span) {
                self.spans.insert(*span, run);
                self.by_logs.insert(*span);
            }
            self.note_orphan(*span, run);
        }
    }

    /// Notes what stands above a run that is taken up, and is not of it.
    pub(super) fn note_runs_below(&mut self, run: RunId, state: &RunState) {
        for parent in state.above() {
            let runs = self.above.entry(parent).or_default();
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
    }

    /// Notes that something of a run waits for a span.
    pub(super) fn note_orphan(&mut self, span: SpanId, run: RunId) {
        let runs = self.orphans.entry(span).or_default();
        if !runs.contains(&run) {
            runs.push(run);
        }
    }
}

impl<W: RunWriter> StoreSink<W> {
    /// Returns the run of a trace of which nothing has come that is topmost, where a topmost span names another: that is above all of
    /// it, unless parents of it still come.
    pub(super) fn run_of_orphans(&self, trace_id: TraceId, run: RunId) -> Option<RunId> {
        let trace = self.traces.get(&trace_id)?;
        let first = trace.first_run.filter(|first| *first != run && is_foreign_run_id(*first, trace_id))?;
        let is_waiting = self.runs.get(&first).is_some_and(|live| !live.has_topmost());
        (is_waiting || trace.held.contains_key(&first)).then_some(first)
    }

    /// Opens the trace's own run where it was let go of: what a span that names another run has below it may be there.
    pub(super) fn recall_own(&mut self, trace_id: TraceId, run: RunId) -> Result<(), StoreError> {
        let Some(trace) = self.traces.get(&trace_id) else { return Ok(()) };
        let own = trace.released.iter().copied().find(|own| *own != run && is_foreign_run_id(*own, trace_id));
        match own.map(|own| self.open_released(own, trace_id)) {
            Some(Err(error)) if !error.is_closed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies what came before this span, and is below it, from these runs to the span's own.
    pub(super) fn copy_below(
        &mut self,
        seq: u64,
        (trace_id, run): (TraceId, RunId),
        (span, is_topmost): (SpanId, bool),
        others: &[RunId],
    ) -> Result<(), StoreError> {
        for &other in others {
            let Some(mut told) = self.told_of(other, trace_id)? else { continue };
            let mut below = told.take_below(span, trace_id);
            if is_topmost && is_foreign_run_id(other, trace_id) {
                below.extend(told.take_orphans(trace_id));
            }
            if below.is_empty() {
                continue;
            }
            let is_all = told.is_empty();
            // What was counted with the one run is not counted with the other.
            let is_counted = self.runs.get(&other).is_some_and(|live| live.counted.is_some());
            let live = self.runs.get_mut(&run).filter(|_| is_counted);
            let notes = live.and_then(|live| live.notes.take());
            let mut spans = IdSet::default();
            for said in below {
                spans.extend(SpanId::from_bytes(&said.record.span.span_id));
                self.put(run, seq, said)?;
            }
            if let Some((notes, live)) = notes.zip(self.runs.get_mut(&run)) {
                live.notes = Some(notes);
            }
            if let Some(trace) = self.traces.get_mut(&trace_id) {
                trace.spans.extend(spans.iter().map(|span| (*span, run)));
                // Parents of theirs may still come.
                for runs in trace.orphans.values_mut().filter(|runs| runs.contains(&other)) {
                    if !runs.contains(&run) {
                        runs.push(run);
                    }
                }
                if is_all {
                    trace.first_run = trace.first_run.map(|first| if first == other { run } else { first });
                    trace.own = trace.own.filter(|own| *own != other);
                }
            }
            self.moves.push(Move { from: other, to: run, trace: trace_id, seq, spans });
        }
        Ok(())
    }

    /// Tells whether steps are in two runs that are to be in one.
    pub(crate) fn has_moves(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Takes steps that were copied to another run out of the one to which they came: when what was
    /// [flushed](Self::flush) lasts, and before that is acknowledged.
    pub(crate) fn finish_moves(&mut self) -> Result<(), StoreError> {
        if self.is_holding || self.moves.is_empty() {
            return Ok(());
        }
        let mut moves = std::mem::take(&mut self.moves).into_iter();
        let mut result = Ok(());
        for of in moves.by_ref() {
            // Steps of a new run may be waiting for more.
            let is_written = self.runs.get(&of.to).is_none_or(|live| live.has_written_all());
            result = if is_written { self.take_out(&of) } else { Ok(()) };
            if !is_written || result.is_err() {
                self.moves.push(of);
            }
            if result.is_err() {
                break;
            }
        }
        self.moves.extend(moves);
        result
    }

    fn take_out(&mut self, of: &Move) -> Result<(), StoreError> {
        let run = of.from;
        let Some(mut told) = self.told_of(run, of.trace)? else { return Ok(()) };
        told.leave_out(&of.spans);
        if !told.is_empty() {
            return self.tell_once_more(run, told);
        }
        let Some(live) = self.runs.remove(&run) else { return Ok(()) };
        self.dirty.remove(&run);
        self.finished.retain(|finished| *finished != run);
        self.over.retain(|_, over| *over != run);
        self.writer.release_run(run);
        if live.written_status.is_some() {
            self.writer.delete_run(run)?;
        }
        for (below, live) in &mut self.runs {
            if live.state.parent_run_id() == Some(run) {
                live.unsettled = true;
                self.dirty.insert(*below);
            }
        }
        Ok(())
    }

    /// Returns what a run tells so far; `None` of one that is not there, or another process writes.
    fn told_of(&mut self, run: RunId, trace_id: TraceId) -> Result<Option<Told>, StoreError> {
        if self.elsewhere.contains_key(&run) {
            return Ok(None);
        }
        if !self.runs.contains_key(&run) {
            // It may have been over, and let go of.
            match self.open_released(run, trace_id) {
                Err(error) if error.is_closed() => return Ok(None),
                opened => opened?,
            }
            self.forget_unbegun(run);
        }
        let process = self.process;
        let Some(live) = self.runs.get_mut(&run) else { return Ok(None) };
        live.flush_pending(process, None);
        live.tell_unsorted(process);
        let mut events: Vec<Event> = match live.written_status {
            Some(_) => self.writer.take_up(run)?.unwrap_or_default(),
            None => Vec::new(),
        };
        events.extend(self.runs.get(&run).into_iter().flat_map(|live| live.queue.iter().cloned()));
        Ok(Some(Told::of(events)))
    }
}
