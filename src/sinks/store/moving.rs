//! Steps that came before their parent, which turns out to be of another run: they are that run's, as if they had come
//! behind it.
//!
//! They are copied at once, and taken out of the run to which they came when the copies last: whenever the process dies,
//! each step is in some run.

use super::live::{LiveRun, Said};
use super::settle::Told;
use super::telling::Place;
use super::{HeldRecord, StoreSink, Trace};
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

/// What came before a span, and is below it, in another run than the span's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    from: RunId,
    to: RunId,
    trace: TraceId,
    /// The place of the span in the journal.
    pub(super) seq: u64,
    span: SpanId,
    /// It is above all of its trace that waits for a parent, unless that comes.
    is_topmost: bool,
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
        state.above().for_each(|parent| add(self.above.entry(parent).or_default(), run));
    }

    /// Notes that something of a run waits for a span.
    pub(super) fn note_orphan(&mut self, span: SpanId, run: RunId) {
        add(self.orphans.entry(span).or_default(), run);
    }
}

/// Adds a run to some, unless it is among them.
pub(super) fn add(runs: &mut Vec<RunId>, run: RunId) {
    if !runs.contains(&run) {
        runs.push(run);
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

    /// Takes out what was held for a run in whatever traces.
    pub(super) fn take_held_elsewhere(&mut self, run: RunId) -> Vec<HeldRecord> {
        let traces = self.named.remove(&run).unwrap_or_default();
        let held = traces.iter().filter_map(|trace| self.traces.get_mut(trace)?.held.remove(&run));
        held.flat_map(|held| held.records).collect()
    }

    /// Opens a run that a plain span names, if it is in the store, and nobody else's.
    pub(super) fn open_known(&mut self, run: RunId, trace_id: TraceId) -> Result<bool, StoreError> {
        if self.outside.is_none() || !self.writer.has_run(run).unwrap_or(false) {
            return Ok(false);
        }
        match self.open_run(run, trace_id, None) {
            Err(error) if error.is_closed() => return Ok(false),
            opened => opened?,
        }
        self.forget_unbegun(run);
        Ok(self.runs.contains_key(&run))
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

    /// Notes that what came before a span, and is below it, is of its run, and not of those to which it went.
    pub(super) fn claim_below(&mut self, seq: u64, place: &Place, to: RunId) {
        let Place { trace, span, is_topmost, .. } = *place;
        self.claims.extend(place.orphans.iter().map(|&from| Claim { from, to, trace, seq, span, is_topmost }));
    }

    /// Copies what is claimed to the runs that claim it: what is told of a run is read once, however many claim a part of it.
    pub(super) fn copy_claimed(&mut self) -> Result<(), StoreError> {
        let mut claims = std::mem::take(&mut self.claims);
        claims.sort_by_key(|claim| claim.from);
        for claims in claims.chunk_by(|one, other| one.from == other.from) {
            self.copy_from(claims)?;
        }
        Ok(())
    }

    fn copy_from(&mut self, claims: &[Claim]) -> Result<(), StoreError> {
        let Some(&Claim { from, trace: trace_id, .. }) = claims.first() else { return Ok(()) };
        let Some(mut told) = self.told_of(from, trace_id)? else { return Ok(()) };
        for of in self.moves.iter().filter(|of| of.from == from) {
            told.leave_out(&of.spans);
        }
        let mut children = told.children(trace_id);
        let mut below: Vec<_> =
            claims.iter().map(|claim| told.take_below(&mut children, claim.span, trace_id)).collect();
        let is_topmost = |claim: &Claim| claim.is_topmost && is_foreign_run_id(from, trace_id);
        if let Some(place) = claims.iter().position(is_topmost) {
            below[place].append(&mut told.take_orphans(trace_id));
        }
        let is_all = told.is_empty();
        for (claim, below) in claims.iter().zip(below).filter(|(_, below)| !below.is_empty()) {
            self.copy(claim, below, is_all)?;
        }
        Ok(())
    }

    #[expect(clippy::vec_box, reason = "they are large, and move on without being copied")]
    fn copy(&mut self, claim: &Claim, below: Vec<Box<Said>>, is_all: bool) -> Result<(), StoreError> {
        let Claim { from, to, trace: trace_id, seq, .. } = *claim;
        if !self.runs.contains_key(&to) {
            self.open_released(to, trace_id)?;
        }
        // What was counted with the one run is not counted with the other.
        let is_counted = self.runs.get(&from).is_some_and(|live| live.counted.is_some());
        let notes = self.runs.get_mut(&to).filter(|_| is_counted).and_then(|live| live.notes.take());
        let mut spans = IdSet::default();
        let mut parents = Vec::new();
        for said in below {
            spans.extend(SpanId::from_bytes(&said.record.span.span_id));
            parents.extend(SpanId::from_bytes(&said.record.span.parent_span_id));
            self.put(to, seq, said)?;
        }
        if let Some((notes, live)) = notes.zip(self.runs.get_mut(&to)) {
            live.notes = Some(notes);
        }
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.spans.extend(spans.iter().map(|span| (*span, to)));
            // Parents of theirs may still come.
            for parent in parents {
                if trace.orphans.contains_key(&parent) {
                    trace.note_orphan(parent, to);
                }
            }
            if is_all {
                trace.first_run = trace.first_run.map(|first| if first == from { to } else { first });
                trace.own = trace.own.filter(|own| *own != from);
            }
        }
        self.moves.push(Move { from, to, trace: trace_id, seq, spans });
        Ok(())
    }

    /// Tells whether steps are in two runs that are to be in one.
    pub(crate) fn has_moves(&self) -> bool {
        !self.moves.is_empty() || !self.claims.is_empty()
    }

    /// Takes steps that were copied to another run out of the one to which they came: when what was
    /// [flushed](Self::flush) lasts, and before that is acknowledged.
    pub(crate) fn finish_moves(&mut self) -> Result<(), StoreError> {
        if self.is_holding || self.moves.is_empty() {
            return Ok(());
        }
        // Steps of a new run may be waiting for more.
        let is_written = |of: &Move| self.runs.get(&of.to).is_none_or(LiveRun::has_written_all);
        let (mut moves, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moves).into_iter().partition(is_written);
        self.moves = waiting;
        moves.sort_by_key(|of| of.from);
        let mut done = 0;
        for of_run in moves.chunk_by(|one, other| one.from == other.from) {
            if let Err(error) = self.take_out(of_run) {
                self.moves.extend(moves.drain(done..));
                return Err(error);
            }
            done += of_run.len();
        }
        Ok(())
    }

    /// Takes steps out of the run to which they came.
    fn take_out(&mut self, moves: &[Move]) -> Result<(), StoreError> {
        let Some(&Move { from: run, trace, .. }) = moves.first() else { return Ok(()) };
        let Some(mut told) = self.told_of(run, trace)? else { return Ok(()) };
        moves.iter().for_each(|of| told.leave_out(&of.spans));
        if !told.is_empty() {
            return self.tell_once_more(run, told);
        }
        if self.runs.get(&run).is_some_and(|live| live.written_status.is_some()) {
            self.writer.release_run(run);
            self.writer.delete_run(run)?;
        }
        if self.runs.remove(&run).is_none() {
            return Ok(());
        }
        self.dirty.remove(&run);
        self.finished.retain(|finished| *finished != run);
        if self.over.get(&trace) == Some(&run) {
            self.over.remove(&trace);
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
