//! Steps that came before their parent, which turns out to be of another run: they are that run's, as if they had come
//! behind it.
//!
//! They are copied at once, and taken out of the run to which they came when the copies last: whenever the process dies,
//! each step is in some run.

use std::time::Instant;

use super::homes::Rehomed;
use super::ids::run_id_in_place_of;
use super::live::{LiveRun, Said};
use super::settle::Told;
use super::telling::Place;
use super::{HeldRecord, LATE, StoreSink, Trace};
use crate::model::event::Event;
use crate::model::id::{IdMap, IdSet, is_foreign_run_id};
use crate::model::record::RecordKind;
use crate::model::{RunId, SpanId, TraceId};
use crate::store::assembly::RunState;
use crate::store::files::layout::Recorded;
use crate::store::{RunWriter, StoreError};

/// In place of a place in the journal: what is moved was found in the store. That goes on behind nothing until it is done: who takes the runs up
/// again finds it by what is told again of their trace.
const FOUND_PLACE: u64 = 1;

/// Steps that were copied from a run to another.
#[derive(Clone, Debug)]
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
    /// `None` for all that waits for a parent which has not come.
    span: Option<SpanId>,
}

impl Trace {
    /// Notes that a span which does not name its run has come before its parent, or a log before its span. Returns the runs of those
    /// that have come before this span so, other than its own.
    pub(super) fn note_child(&mut self, run: RunId, span: SpanId, said: &Said, names_run: bool) -> Vec<RunId> {
        if said.record.kind == RecordKind::Event {
            if !self.spans.contains_key(&span) {
                if !names_run {
                    self.by_logs.insert(span);
                }
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
        state.awaited(state.trace_id()).for_each(|parent| self.note_orphan(parent, run));
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
        let Place { trace, span, .. } = *place;
        let others = place.orphans.iter().filter(|from| **from != to);
        self.claims.extend(others.map(|&from| Claim { from, to, trace, seq, span: Some(span) }));
    }

    /// Notes that what waits for a parent is of another run.
    pub(super) fn claim_orphans(&mut self, seq: u64, trace: TraceId, Rehomed { from, to }: Rehomed) {
        self.claims.push(Claim { from, to, trace, seq, span: None });
    }

    /// Notes what a run tells that is taken up, of steps that are in two runs and of those that wait for others: whoever moved some may have died
    /// midway.
    pub(super) fn note_taken_up(&mut self, run: RunId, state: &RunState, logs: &[SpanId]) {
        let trace_id = state.trace_id();
        let trace = self.traces.entry(trace_id).or_default();
        let mut shared: IdMap<RunId, IdSet<SpanId>> = IdMap::default();
        // What is on its way to another run is that one's, and only still here.
        let leaving: Vec<&Move> = self.moves.iter().filter(|of| of.from == run).collect();
        let is_leaving = |span: &SpanId| leaving.iter().any(|of| of.spans.contains(span));
        for span in state.spans_of(trace_id).filter(|span| !is_leaving(span)) {
            if let Some(other) = trace.spans.insert(span, run).filter(|other| *other != run) {
                shared.entry(other).or_default().insert(span);
            }
        }
        trace.first_run.get_or_insert(run);
        trace.touched = Some(Instant::now());
        trace.note_waiting(run, state, logs);
        if self.outside.is_none() {
            return;
        }
        trace.note_runs_below(run, state);
        trace.is_shared |= run == run_id_in_place_of(trace_id.as_run_id(), self.process);
        if trace.is_shared {
            return;
        }
        if is_foreign_run_id(run, trace_id) {
            trace.own.get_or_insert(run);
        }
        let seq = FOUND_PLACE;
        let claim = |from: RunId, to: RunId, span| Claim { from, to, trace: trace_id, seq, span };
        let is_whole = trace.is_recalled;
        // What has come to others, and waits for steps of this run; and what has come to this one.
        for span in state.spans_of(trace_id).filter(|span| !trace.by_logs.contains(span)) {
            let waiting = trace.orphans.remove(&span).unwrap_or_default();
            self.claims
                .extend(waiting.into_iter().filter(|from| *from != run).map(|from| claim(from, run, Some(span))));
        }
        for parent in state.awaited(trace_id).filter(|parent| !trace.by_logs.contains(parent)) {
            let to = trace.spans.get(&parent).copied().filter(|to| *to != run);
            self.claims.extend(to.map(|to| claim(run, to, Some(parent))));
        }
        let rehomed = if state.has_topmost(trace_id) { trace.note_top(run) } else { None };
        let waits = state.awaited(trace_id).next().is_some();
        match rehomed {
            // What is topmost is known when all runs of the trace are.
            _ if !is_whole => {}
            Some(Rehomed { from, to }) => self.claims.push(claim(from, to, None)),
            None => {
                let to = trace.home().filter(|to| *to != run && waits);
                self.claims.extend(to.map(|to| claim(run, to, None)));
            }
        }
        for (other, spans) in shared {
            self.share_out((run, state), other, spans, trace_id);
        }
    }

    /// Notes that all runs of a trace are known: those to which what waits for a parent went may not be where that belongs.
    pub(super) fn check_homes(&mut self, trace_id: TraceId) {
        let Some(trace) = self.traces.get(&trace_id) else { return };
        let Some(to) = trace.home().filter(|_| !trace.is_shared) else { return };
        let runs: IdSet<RunId> = trace.spans.values().copied().filter(|run| *run != to).collect();
        let waits = |run: &RunId| self.runs.get(run).is_some_and(|live| live.state.awaited(trace_id).next().is_some());
        let found = runs.into_iter().filter(waits);
        let claim = |from| Claim { from, to, trace: trace_id, seq: FOUND_PLACE, span: None };
        self.claims.extend(found.map(claim));
    }

    /// Takes steps that are in two runs out of one of them: it is that of their parents which has them.
    fn share_out(
        &mut self,
        (run, state): (RunId, &RunState),
        other: RunId,
        mut spans: IdSet<SpanId>,
        trace_id: TraceId,
    ) {
        let Some(beside) = self.runs.get(&other).map(|live| &live.state) else { return };
        let parents = spans.iter().filter_map(|span| state.parent_of(*span)).filter(|parent| !spans.contains(parent));
        let is_in = |state: &RunState, parent: &SpanId| state.step_progress(*parent).0;
        let (mut here, mut there) = (false, false);
        parents.for_each(|parent| (here, there) = (here || is_in(state, &parent), there || is_in(beside, &parent)));
        let is_named = |run: RunId| !is_foreign_run_id(run, trace_id);
        let is_ours = match (here, there) {
            (true, false) => true,
            (false, true) => false,
            _ if is_named(run) != is_named(other) => is_named(run),
            _ => run < other,
        };
        let ((from, told), (to, kept)) =
            if is_ours { ((other, beside), (run, state)) } else { ((run, state), (other, beside)) };
        // What has only begun there says less.
        spans.retain(|span| kept.step_progress(*span).1 || !told.step_progress(*span).1);
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.spans.extend(spans.iter().map(|span| (*span, to)));
        }
        let is_known = |of: &Move| of.from == from && of.to == to && spans.iter().all(|span| of.spans.contains(span));
        if !self.moves.iter().any(is_known) {
            self.move_out(Move { from, to, trace: trace_id, seq: FOUND_PLACE, spans });
        }
    }

    /// Copies what is claimed to the runs that claim it: what is told of a run is read once, however many claim a part of it.
    pub(super) fn copy_claimed(&mut self) -> Result<(), StoreError> {
        let mut claims = std::mem::take(&mut self.claims);
        let place = |claim: &Claim| (claim.from, claim.trace.0);
        claims.sort_by_key(place);
        for claims in claims.chunk_by_mut(|one, other| place(one) == place(other)) {
            self.copy_from(claims)?;
        }
        Ok(())
    }

    fn copy_from(&mut self, claims: &mut [Claim]) -> Result<(), StoreError> {
        let Some(&Claim { from, trace: trace_id, .. }) = claims.first() else { return Ok(()) };
        let Some(mut told) = self.told_of(from, trace_id)? else { return Ok(()) };
        for of in self.moves.iter().filter(|of| of.from == from) {
            told.leave_out(&of.spans);
        }
        let mut children = told.children(trace_id);
        let mut below: Vec<_> = claims.iter().map(|_| Vec::new()).collect();
        let trace = self.traces.get(&trace_id);
        for (claim, below) in claims.iter_mut().zip(&mut below) {
            let Some(span) = claim.span else { continue };
            // The span may have gone on to another run since, with what is below something else.
            let to = trace.and_then(|trace| trace.spans.get(&span));
            claim.to = to.map_or(claim.to, |to| self.in_place_of.get(to).copied().unwrap_or(*to));
            if claim.to != from {
                *below = told.take_below(&mut children, span, trace_id);
            }
        }
        // What is below a span that has come is that one's, whatever waits beside.
        if let Some(place) = claims.iter().rposition(|claim| claim.span.is_none())
            && let Some(trace) = self.traces.get(&trace_id)
        {
            let is_by_logs = |span: SpanId| trace.by_logs.contains(&span);
            let is_known = |span| trace.spans.contains_key(&span) && !is_by_logs(span);
            // More may have become known since.
            claims[place].to = trace.home().unwrap_or(claims[place].to);
            if claims[place].to != from {
                below[place] = told.take_orphans(&mut children, trace_id, is_known, is_by_logs);
            }
        }
        let is_all = told.is_empty();
        if let Some(live) = self.runs.get_mut(&from) {
            live.is_leaving = is_all;
        }
        for (claim, below) in claims.iter().zip(below).filter(|(_, below)| !below.is_empty()) {
            self.copy(claim, below, is_all)?;
        }
        Ok(())
    }

    #[expect(clippy::vec_box, reason = "they are large, and move on without being copied")]
    fn copy(&mut self, claim: &Claim, below: Vec<Box<Said>>, is_all: bool) -> Result<(), StoreError> {
        let Claim { from, mut to, trace: trace_id, seq, .. } = *claim;
        if !self.runs.contains_key(&to) {
            to = self.open_own_run(to, trace_id)?;
            if let Some(trace) = self.traces.get_mut(&trace_id) {
                trace.released.retain(|released| *released != to);
            }
        }
        if to == from {
            // It stands in the place of the other.
            return Ok(());
        }
        // What was counted with the one run is not counted with the other.
        let is_counted = self.runs.get(&from).is_some_and(|live| live.counted.is_some());
        let notes = self.runs.get_mut(&to).filter(|_| is_counted).and_then(|live| live.notes.take());
        let mut spans = IdSet::default();
        let mut awaited = Vec::new();
        for said in below {
            let span = SpanId::from_bytes(&said.record.span.span_id);
            spans.extend(span);
            // Parents of theirs may still come, and spans of logs.
            let is_log = said.record.kind == RecordKind::Event;
            awaited.extend(if is_log { span } else { SpanId::from_bytes(&said.record.span.parent_span_id) });
            self.put(to, seq, said)?;
        }
        if let Some((notes, live)) = notes.zip(self.runs.get_mut(&to)) {
            live.notes = Some(notes);
        }
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.spans.extend(spans.iter().map(|span| (*span, to)));
            for span in awaited.into_iter().filter(|span| trace.orphans.contains_key(span)).collect::<Vec<_>>() {
                trace.note_orphan(span, to);
            }
            if is_all {
                trace.first_run = trace.first_run.map(|first| if first == from { to } else { first });
                trace.tops.retain(|top| *top != from);
            }
        }
        self.move_out(Move { from, to, trace: trace_id, seq, spans });
        Ok(())
    }

    /// Notes steps to be taken out of a run, which may just have been about to come out of the other.
    fn move_out(&mut self, of: Move) {
        for back in self.moves.iter_mut().filter(|back| back.from == of.to) {
            back.spans.retain(|span| !of.spans.contains(span));
        }
        self.moves.push(of);
    }

    /// Tells whether steps are in two runs that are to be in one.
    pub(crate) fn has_moves(&self) -> bool {
        !self.moves.is_empty() || !self.claims.is_empty()
    }

    /// Returns the runs that steps are to be taken out of, and those that have them, where the journal may tell neither. They are not over before
    /// that: who goes on for a server that is killed in between learns of it by those that are under way.
    pub(super) fn in_motion(&self) -> IdSet<RunId> {
        let found = |of: &Move| (of.seq == FOUND_PLACE).then_some(of.to);
        self.moves.iter().flat_map(|of| [Some(of.from), found(of)]).flatten().collect()
    }

    /// Takes steps that were copied to another run out of the one to which they came: when what was
    /// [flushed](Self::flush) lasts, and before that is acknowledged.
    pub(crate) fn finish_moves(&mut self) -> Result<(), StoreError> {
        if self.is_holding || self.moves.is_empty() {
            return Ok(());
        }
        // Steps of a new run may be waiting for more.
        let is_written = |of: &Move| self.runs.get(&of.to).is_none_or(LiveRun::has_written_all);
        let mut moves: Vec<Move> = self.moves.iter().filter(|of| is_written(of)).cloned().collect();
        moves.sort_by_key(|of| (of.from, of.trace.0));
        for of_run in moves.chunk_by(|one, other| (one.from, one.trace.0) == (other.from, other.trace.0)) {
            // Until they are out they are known to be on their way.
            self.take_out(of_run)?;
            // Nothing keeps them from being over.
            self.dirty.extend(of_run.iter().map(|of| of.to).filter(|to| self.runs.contains_key(to)));
            let is_done =
                |of: &Move| of_run.iter().any(|done| done.from == of.from && done.to == of.to && done.seq == of.seq);
            self.moves.retain(|of| !is_done(of));
        }
        Ok(())
    }

    /// Takes steps out of the run to which they came.
    fn take_out(&mut self, moves: &[Move]) -> Result<(), StoreError> {
        let Some(&Move { from: run, trace, .. }) = moves.first() else { return Ok(()) };
        let Some(mut told) = self.told_of(run, trace)? else { return Ok(()) };
        moves.iter().for_each(|of| told.leave_out(&of.spans));
        let is_left = self.recorded == Recorded::GenAi && !told.has_genai();
        // Who pinned it wants these steps kept, whatever becomes of it.
        let is_pinned = moves.iter().try_fold(false, |is_pinned, of| Ok(self.hand_on_pin(run, of.to)? || is_pinned))?;
        if !told.is_empty() {
            let was_left = self.runs.get_mut(&run).is_some_and(|live| std::mem::replace(&mut live.is_left, is_left));
            if is_left && is_pinned && !was_left {
                // What it was pinned for has gone. Who pins it from now on wants what is left.
                self.writer.drop_pin(run)?;
            }
            return self.tell_once_more(run, told);
        }
        self.delete(run, trace)
    }

    /// Keeps a run from retention as another is, since this has steps of that. Tells whether it is.
    fn hand_on_pin(&mut self, from: RunId, to: RunId) -> Result<bool, StoreError> {
        let is_written = self.runs.get(&from).is_some_and(|live| live.written_status.is_some());
        let is_pinned = is_written && self.writer.hand_on_pin(from, to)?;
        if is_pinned && let Some(live) = self.runs.get_mut(&to) {
            live.stale_summary = true;
            self.dirty.insert(to);
        }
        Ok(is_pinned)
    }

    /// Deletes a run from which all that spoke of GenAI was moved: what is left would have made none. One that somebody has pinned since stays.
    /// It goes when nothing has come to it for a while; without `now` at once.
    pub(crate) fn delete_left(&mut self, now: Option<Instant>) -> Result<(), StoreError> {
        let is_late = |live: &LiveRun| now.is_none_or(|now| now.saturating_duration_since(live.touched) >= LATE);
        let is_due = |live: &LiveRun| live.is_left && is_late(live);
        let left =
            self.runs.iter().filter(|(_, live)| is_due(live) && live.has_written_all() && !live.state.has_genai());
        let left: Vec<_> = left.map(|(run, live)| (*run, live.state.trace_id())).collect();
        for (run, trace) in left {
            if self.writer.is_pinned(run)? {
                self.runs.get_mut(&run).into_iter().for_each(|live| live.is_left = false);
            } else {
                self.delete(run, trace)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, run: RunId, trace: TraceId) -> Result<(), StoreError> {
        if self.runs.get(&run).is_some_and(|live| live.written_status.is_some()) {
            self.writer.release_run(run);
            self.writer.delete_run(run)?;
        }
        if self.runs.remove(&run).is_none() {
            return Ok(());
        }
        self.dirty.remove(&run);
        self.finished.retain(|finished| *finished != run);
        self.forget_over(trace, run);
        let caused = self.caused.take(trace);
        self.look_for_causes(caused);
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
