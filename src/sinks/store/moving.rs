//! Steps that came before their parent, which turns out to be of another run: they are that run's, as if they had come
//! behind it.
//!
//! They are copied at once, and taken out of the run to which they came when the copies last: whenever the process dies,
//! each step is in some run.

use super::live::Said;
use super::settle::Told;
use super::{StoreSink, Trace};
use crate::model::event::Event;
use crate::model::id::IdSet;
use crate::model::record::RecordKind;
use crate::model::{RunId, SpanId, TraceId};
use crate::store::{RunWriter, StoreError};

/// Steps that were copied from a run to another.
#[derive(Debug)]
pub(super) struct Move {
    from: RunId,
    trace: TraceId,
    /// The place of the parent in the journal: told again, it copies them again.
    pub(super) seq: u64,
    spans: IdSet<SpanId>,
}

impl Trace {
    /// Notes that a span which does not name its run has come before its parent. Returns the runs of those that have come
    /// before this one so, other than its own.
    pub(super) fn note_child(&mut self, run: RunId, said: &Said, names_run: bool) -> Vec<RunId> {
        let span = &said.record.span;
        if said.record.kind == RecordKind::Event {
            return Vec::new();
        }
        let parent = SpanId::from_bytes(&span.parent_span_id).filter(|_| !names_run);
        if let Some(parent) = parent.filter(|parent| !self.spans.contains_key(parent)) {
            let runs = self.orphans.entry(parent).or_default();
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        if self.orphans.is_empty() {
            return Vec::new();
        }
        let mut runs = SpanId::from_bytes(&span.span_id).and_then(|id| self.orphans.remove(&id)).unwrap_or_default();
        runs.retain(|other| *other != run);
        runs
    }
}

impl<W: RunWriter> StoreSink<W> {
    /// Copies what came before this span, and is below it, from these runs to the span's own.
    pub(super) fn copy_below(
        &mut self,
        seq: u64,
        (trace_id, run): (TraceId, RunId),
        span: SpanId,
        others: &[RunId],
    ) -> Result<(), StoreError> {
        for &other in others {
            let Some(mut told) = self.told_of(other, trace_id)? else { continue };
            let below = told.take_below(span, trace_id);
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
                if is_all {
                    trace.first_run = trace.first_run.map(|first| if first == other { run } else { first });
                    trace.own = trace.own.filter(|own| *own != other);
                }
            }
            self.moves.push(Move { from: other, trace: trace_id, seq, spans });
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
        if self.is_holding {
            return Ok(());
        }
        while let Some(of) = self.moves.pop() {
            if let Err(error) = self.take_out(&of) {
                self.moves.push(of);
                return Err(error);
            }
        }
        Ok(())
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
        if self.traces.get(&trace_id).is_some_and(|trace| trace.released.contains(&run)) {
            match self.open_released(run, trace_id) {
                Err(error) if error.is_closed() => return Ok(None),
                opened => opened?,
            }
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
