//! Which run a record is of: told by the id on its span, else by its parent, else by its trace.

use std::time::Instant;

use super::beside::TOLD_BY_SPANS;
use super::homes::Rehomed;
use super::ids::{foreign_run_id, is_foreign_run_id};
use super::live::{EventIds, PendingStart, Said, same_span};
use super::moving::add;
use super::{HeldRecord, MAX_HELD_BYTES, MAX_HELD_RECORDS, StoreSink, Trace};
use crate::conventions::names;
use crate::model::otlp::Span;
use crate::model::outcome::Outcome;
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, SpanId, StepKind, TraceId, UnixNanos};
use crate::pipeline::facts::StepFacts;
use crate::sources::log_step::conversation_of;
use crate::store::assembly::has_remote_parent;
use crate::store::files::layout::Recorded;
use crate::store::{RunWriter, StoreError};

/// A trace that this library began has the moment at which its run began in its id, by the clock of its spans. Of others'
/// ids, which are random, this leaves one in four hundred to be looked for in the store.
const LONGEST_RUN_MS: u64 = 10 * 366 * 24 * 3_600 * 1_000;

/// Tells whether this library may have begun a run that has the bits of its trace, by a step of about that time.
fn may_be_ours(run: RunId, at: UnixNanos) -> bool {
    run.time().millis().abs_diff(at.millis()) <= LONGEST_RUN_MS
}

/// Returns the first other trace that a span names as its cause.
pub(super) fn linked_trace(span: &Span, own: TraceId) -> Option<TraceId> {
    span.links.iter().filter_map(|link| TraceId::from_bytes(&link.trace_id)).find(|trace| *trace != own)
}

/// Returns the run that a record names. An id that is made of the trace says no more than the trace, which may lead to another run here.
fn named_run(said: &Said, trace: TraceId) -> Option<RunId> {
    said.facts.run_id.filter(|run| !is_foreign_run_id(*run, trace))
}

/// Where a record belongs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) run: RunId,
    /// The run was at hand before the record came, and stays there without it.
    is_live: bool,
    /// It is a span that names the run itself.
    is_named: bool,
    /// The parent, where that is of another run.
    outer: Option<SpanId>,
    /// Runs that the span is above of.
    inner: Vec<RunId>,
    /// Other runs that have what came before the span, and may be below it.
    pub(super) orphans: Vec<RunId>,
    /// What becomes of those that wait for a parent.
    rehomed: Option<Rehomed>,
}

/// What becomes of a step that logs alone tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits for spans of the same conversation.
    MayWait,
    /// It has.
    Stands,
}

impl Trace {
    /// Notes what a span says of those above it. Returns its parent where that is known to be of another run, and the runs that
    /// the span turns out to be above of. `awaits`: parents may come behind their children.
    fn note_above(&mut self, run: RunId, said: &Said, awaits: bool) -> (Option<SpanId>, Vec<RunId>) {
        let span = &said.record.span;
        let id = SpanId::from_bytes(&span.span_id);
        let mut inner = id.and_then(|id| self.above.remove(&id)).unwrap_or_default();
        inner.retain(|below| *below != run);
        let Some(parent) = SpanId::from_bytes(&span.parent_span_id) else { return (None, inner) };
        let is_outermost = said.facts.names_run && is_run(&said.facts) && !has_remote_parent(span);
        let known = self.spans.get(&parent);
        if known.is_none() && awaits {
            // What is above one that is above a run is that, too.
            for below in inner.iter().copied().chain(is_outermost.then_some(run)) {
                add(self.above.entry(parent).or_default(), below);
            }
        }
        (known.filter(|other| is_outermost && **other != run).map(|_| parent), inner)
    }

    /// Takes out what was held for a run, and is below a span of another after all, or may be. `takes_orphans`: all that it is to be found out for
    /// where it belongs.
    fn take_held_below(
        &mut self,
        run: RunId,
        (trace, span): (TraceId, SpanId),
        takes_orphans: bool,
    ) -> Vec<HeldRecord> {
        let Some(held) = self.held.get_mut(&run) else { return Vec::new() };
        let is_below = |held: &HeldRecord| {
            let Record { kind, span: told, .. } = &held.said.record;
            let is_of_it = told.parent_span_id == span.0 || *kind == RecordKind::Event && told.span_id == span.0;
            let may_be = takes_orphans && (*kind == RecordKind::Event || !told.parent_span_id.is_empty());
            is_of_it || may_be && named_run(&held.said, trace).is_none()
        };
        if !held.records.iter().any(is_below) {
            return Vec::new();
        }
        let (below, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut held.records).into_iter().partition(is_below);
        held.records = rest;
        held.bytes -=
            below.iter().map(|held| held.said.record.span.about_len() as usize).sum::<usize>().min(held.bytes);
        if held.records.is_empty() {
            self.held.remove(&run);
        }
        for HeldRecord { said, .. } in &below {
            if let Some(span) =
                SpanId::from_bytes(&said.record.span.span_id).filter(|span| self.spans.get(span) == Some(&run))
            {
                self.spans.remove(&span);
            }
        }
        below
    }
}

/// Tells whether a step may be a run by itself.
fn is_run(facts: &StepFacts) -> bool {
    matches!(facts.kind, StepKind::Agent | StepKind::Workflow)
}

impl<W: RunWriter> StoreSink<W> {
    /// Takes one record from its place in the journal.
    ///
    /// Places come in order. One that came before is passed over, until a [`reset`](Self::reset): the frames of a commit
    /// that failed can be read, so the journal may have told it before its writer does.
    pub fn take(&mut self, seq: u64, mut record: Record) -> Result<(), StoreError> {
        if self.taken.is_some_and(|taken| seq <= taken) {
            return Ok(());
        }
        self.taken = Some(seq);
        if record.span.attr(names::LOG_FOR_SPAN).is_some() {
            // Written by us alone, on what goes when the span comes. This one has come.
            record.span.attributes.retain(|attribute| attribute.key != names::LOG_FOR_SPAN);
        }
        self.bring(seq, record, Step::MayWait)
    }

    pub(super) fn bring(&mut self, seq: u64, record: Record, step: Step) -> Result<(), StoreError> {
        self.told = self.told.max(seq);
        let told_bytes = self.told_bytes;
        self.unwritten.0 += 1;
        self.told_bytes += record.span.about_len();
        let ids = (TraceId::from_bytes(&record.span.trace_id), SpanId::from_bytes(&record.span.span_id));
        let (Some(trace_id), Some(span_id)) = ids else {
            self.count(seq, record.kind, Outcome::Rejected, "bad_id");
            return Ok(());
        };
        let told = HeldRecord { seq, told_bytes, said: Said::of(record), since: Instant::now() };
        self.bring_said((trace_id, span_id), told, step)
    }

    /// Brings what was read, for the first time or again.
    fn bring_said(
        &mut self,
        (trace_id, span_id): (TraceId, SpanId),
        told: HeldRecord,
        step: Step,
    ) -> Result<(), StoreError> {
        let seq = told.seq;
        let of_library = self.recall(trace_id, &told.said)?;
        let place = self.place_of(trace_id, span_id, &told.said, of_library)?;
        for below in &place.inner {
            self.note_outer(*below, Some(span_id));
        }
        let span = &told.said.record.span;
        let conversation = conversation_of(span).filter(|_| self.outside.is_some());
        if conversation.is_some_and(|of| self.conversations.has_spans(of, span.end_time_unix_nano)) {
            self.count(seq, told.said.record.kind, Outcome::NotKept, TOLD_BY_SPANS);
            return Ok(());
        }
        if conversation.is_some() && step == Step::MayWait && self.has_room_for(&place, &told) {
            self.hold((trace_id, place.run, span_id), told);
            let held = self.traces.get_mut(&trace_id).and_then(|trace| trace.held.get_mut(&place.run));
            held.into_iter().for_each(|held| held.has_steps_of_logs = true);
            return Ok(());
        }
        let run = if self.is_of_a_run(&place, &told.said)? {
            self.tell(&place, told)?
        } else {
            let run = place.run;
            self.conversations.note_log(&told.said);
            self.hold((trace_id, run, span_id), told);
            run
        };
        if let Some(rehomed) = place.rehomed {
            self.claim_orphans(seq, trace_id, rehomed);
        }
        self.bring_held_below(&place, run)
    }

    /// Opens the runs of which a record may be, where they were let go of. Returns the run that this library began with the trace, where
    /// another process writes it.
    fn recall(&mut self, trace_id: TraceId, said: &Said) -> Result<Option<RunId>, StoreError> {
        let is_new = !self.traces.contains_key(&trace_id);
        self.recall_over(trace_id)?;
        let named = named_run(said, trace_id);
        let at = UnixNanos(said.record.span.start_time_unix_nano);
        let of_library = Some(trace_id.as_run_id()).filter(|run| named.is_none() && may_be_ours(*run, at));
        let mut of_another = None;
        if let Some(run) = of_library.filter(|_| is_new) {
            // A late record of a trace that this library began: its run has the same bits.
            match self.open_run(run, trace_id, None) {
                Err(error) if error.is_closed() => of_another = Some(run),
                opened => opened?,
            }
            self.forget_unbegun(run);
        }
        if let Some(run) = named.filter(|_| self.outside.is_some()) {
            self.recall_own(trace_id, run)?;
        }
        Ok(of_another)
    }

    /// Finds the run of a record, and what this tells of others.
    fn place_of(
        &mut self,
        trace_id: TraceId,
        span_id: SpanId,
        said: &Said,
        of_library: Option<RunId>,
    ) -> Result<Place, StoreError> {
        let (named, record, from_outside) = (named_run(said, trace_id), &said.record, self.outside.is_some());
        let trace = self.traces.entry(trace_id).or_default();
        trace.touched = Some(Instant::now());
        let parent = SpanId::from_bytes(&record.span.parent_span_id);
        let is_span = record.kind != RecordKind::Event;
        let start = record.span.start_time_unix_nano;
        let of_bridge = said.facts.run_id.filter(|_| named.is_none());
        let known = trace.spans.get(&span_id).copied();
        let by_itself = named.or_else(|| known.filter(|_| !is_span || !trace.by_logs.contains(&span_id)));
        let run = by_itself.or_else(|| trace.spans.get(&parent?).copied()).unwrap_or_else(|| {
            if !from_outside {
                let first = known.or(trace.first_run).or(of_library).or(of_bridge);
                return first.unwrap_or_else(|| foreign_run_id(trace_id, start));
            }
            if let Some(first) = trace.first_run.filter(|_| trace.is_shared) {
                return first;
            }
            let own = trace.own_run(trace_id, start, of_library.or(of_bridge));
            if is_span && parent.is_none() { own } else { trace.home().unwrap_or(own) }
        });
        let mut run = self.in_place_of.get(&run).copied().unwrap_or(run);
        trace.first_run.get_or_insert(run);
        let (outer, inner) = trace.note_above(run, said, from_outside);
        let (mut orphans, mut rehomed) = (Vec::new(), None);
        if from_outside {
            orphans = trace.note_child(run, span_id, said, named.is_some());
            // Steps without a name may have to go somewhere.
            trace.own_run(trace_id, start, of_library.or(of_bridge));
            rehomed = if is_span && parent.is_none() { trace.note_top(run) } else { None };
        }
        if is_span || named.is_none() {
            trace.spans.insert(span_id, run);
        }
        if let Some(place) = trace.released.iter().position(|released| *released == run) {
            trace.released.swap_remove(place);
            run = self.open_own_run(run, trace_id)?;
        }
        let is_named = is_span && named == Some(run);
        let is_live = self.runs.get(&run).is_some_and(|live| !live.is_leaving);
        Ok(Place { trace: trace_id, span: span_id, run, is_live, is_named, outer, inner, orphans, rehomed })
    }

    /// Tells whether a record makes or finds a run, and does not wait for one.
    fn is_of_a_run(&mut self, place: &Place, said: &Said) -> Result<bool, StoreError> {
        if said.facts.is_genai || place.is_live {
            return Ok(true);
        }
        // A record of a log alone is no run, whatever is recorded.
        if self.recorded == Recorded::All && said.record.kind != RecordKind::Event {
            return Ok(true);
        }
        let released = self.traces.get(&place.trace).map_or(&[][..], |trace| &trace.released);
        let rehomed = place.rehomed.filter(|of| of.to == place.run).map(|of| of.from);
        if place.orphans.iter().chain(&rehomed).any(|other| self.runs.contains_key(other) || released.contains(other)) {
            return Ok(true);
        }
        // One that was held is brought again below this one, which is no reason to make a run of it.
        if place.is_named { self.open_known(place.run, place.trace) } else { Ok(false) }
    }

    /// Tells a record in its run, which begins with it where there is none yet. Returns the run.
    fn tell(&mut self, place: &Place, told: HeldRecord) -> Result<RunId, StoreError> {
        let seq = told.seq;
        let (mut run, mut logs) = (place.run, Vec::new());
        if !place.is_live {
            let held = self.traces.get_mut(&place.trace).and_then(|trace| trace.held.remove(&run)).unwrap_or_default();
            let mut before = held.records;
            before.append(&mut self.take_held_elsewhere(run));
            if !self.runs.contains_key(&run) {
                run = self.open_own_run(run, place.trace)?;
            }
            // A log may come before any span of its run, and has no place in it then.
            let from_outside = self.outside.is_some();
            let is_log = |held: &mut HeldRecord| from_outside && held.said.record.kind == RecordKind::Event;
            logs.extend(before.extract_if(.., is_log));
            for told in before {
                self.apply(run, told)?;
            }
        }
        self.note_outer(run, place.outer);
        self.apply(run, told)?;
        for told in logs {
            self.apply(run, told)?;
        }
        self.claim_below(seq, place, run);
        self.forget_repeated(run);
        Ok(run)
    }

    /// Brings again what was held for another run and is below a span of this one.
    fn bring_held_below(&mut self, place: &Place, run: RunId) -> Result<(), StoreError> {
        let Some(trace) = self.traces.get_mut(&place.trace) else { return Ok(()) };
        let own = trace.own.filter(|own| *own != run && !place.orphans.contains(own));
        let mut below = Vec::new();
        let rehomed = place.rehomed.map(|of| of.from);
        let others = own.into_iter().chain(place.orphans.iter().copied()).chain(rehomed);
        for other in others.filter(|other| *other != run || rehomed == Some(run)) {
            below.append(&mut trace.take_held_below(other, (place.trace, place.span), rehomed == Some(other)));
        }
        let mut below = below.into_iter();
        while let Some(told) = below.next() {
            let seq = told.seq;
            let Some(span) = SpanId::from_bytes(&told.said.record.span.span_id) else { continue };
            if let Err(error) = self.bring_said((place.trace, span), told, Step::MayWait) {
                // They are told again from the journal, and were not counted.
                self.uncounted.extend(below.map(|held| held.seq).chain([seq]));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes for a run that a span above it is not of it.
    fn note_outer(&mut self, run: RunId, outer: Option<SpanId>) {
        let Some(outer) = outer else { return };
        let run = self.in_place_of.get(&run).copied().unwrap_or(run);
        if let Some(live) = self.runs.get_mut(&run) {
            live.state.note_elsewhere(outer);
            // Nothing may be left to wait for.
            self.dirty.insert(run);
        }
    }

    /// Lets go of a run in the place of another that has had nothing but what that one has.
    fn forget_repeated(&mut self, run: RunId) {
        if self.elsewhere.contains_key(&run) {
            self.forget_unbegun(run);
        }
    }

    /// Notes that the record at a place in the journal tells `records` that were made, itself among them: they share
    /// its outcome.
    pub fn note_told(&mut self, seq: u64, records: u64) {
        if records > 1 {
            self.tells.insert(seq, records);
        }
    }

    /// Returns how many records the one at a place tells, and forgets it.
    pub fn forget_told(&mut self, seq: u64) -> u64 {
        self.tells.remove(&seq).unwrap_or(1)
    }

    /// Counts a record, unless it was counted when it was told before.
    pub(super) fn count(&mut self, seq: u64, kind: RecordKind, outcome: Outcome, reason: &'static str) {
        if seq > self.told_before || self.uncounted.remove(&seq) {
            let records = self.forget_told(seq);
            self.counts.add(outcome, reason, records);
            self.passed_spans += u64::from(kind == RecordKind::Ended && outcome != Outcome::Stored);
        }
    }

    /// Tells whether one more may wait for a run.
    fn has_room_for(&self, place: &Place, told: &HeldRecord) -> bool {
        let held = self.traces.get(&place.trace).and_then(|trace| trace.held.get(&place.run));
        let (records, bytes) = held.map_or((0, 0), |held| (held.records.len(), held.bytes));
        records < MAX_HELD_RECORDS && bytes + told.said.record.span.about_len() as usize <= MAX_HELD_BYTES
    }

    pub(super) fn hold(&mut self, (trace_id, run, span_id): (TraceId, RunId, SpanId), told: HeldRecord) {
        let Some(trace) = self.traces.get_mut(&trace_id) else { return };
        if self.outside.is_some() && named_run(&told.said, trace_id) == Some(run) {
            let traces = self.named.entry(run).or_default();
            if traces.last() != Some(&trace_id) {
                traces.push(trace_id);
            }
        }
        let held = trace.held.entry(run).or_default();
        match told.said.record.kind {
            RecordKind::Started => drop(held.open.insert(span_id)),
            RecordKind::Ended => drop(held.open.remove(&span_id)),
            RecordKind::Event => {}
        }
        held.bytes += told.said.record.span.about_len() as usize;
        held.records.push(told);
        let mut gone = Vec::new();
        let mut reason = "no_genai";
        if held.open.is_empty() && self.outside.is_none() {
            gone.extend(held.records.iter().map(|held| (held.seq, held.said.record.kind)));
            trace.held.remove(&run);
        } else if held.records.len() > MAX_HELD_RECORDS || held.bytes > MAX_HELD_BYTES {
            // What is under way may still come to enclose an agent; what has ended beside it goes.
            reason = "held_limit";
            let (open, mut kept) = (&held.open, 0);
            let from_outside = self.outside.is_some();
            held.records.retain(|HeldRecord { seq, said, .. }| {
                let record = &said.record;
                let span = SpanId::from_bytes(&record.span.span_id);
                // From outside, what came first says nothing: the root comes last.
                let keep = !from_outside
                    && record.kind == RecordKind::Started
                    && kept < MAX_HELD_RECORDS / 2
                    && span.is_some_and(|span| open.contains(&span));
                kept += usize::from(keep);
                if !keep {
                    gone.push((*seq, record.kind));
                }
                keep
            });
            held.bytes = held.records.iter().map(|held| held.said.record.span.about_len() as usize).sum();
        }
        for (seq, kind) in gone {
            self.count(seq, kind, Outcome::NotKept, reason);
        }
    }

    pub(super) fn apply(&mut self, run: RunId, told: HeldRecord) -> Result<(), StoreError> {
        let HeldRecord { seq, said, .. } = told;
        let kind = said.record.kind;
        if let Some((outcome, reason)) = self.put(run, seq, said)? {
            self.count(seq, kind, outcome, reason);
        }
        Ok(())
    }

    /// Puts a record into its run. Returns what became of it.
    pub(super) fn put(
        &mut self,
        run: RunId,
        seq: u64,
        said: Box<Said>,
    ) -> Result<Option<(Outcome, &'static str)>, StoreError> {
        const STORED: Option<(Outcome, &str)> = Some((Outcome::Stored, ""));
        const DUPLICATE: Option<(Outcome, &str)> = Some((Outcome::Duplicate, "span"));
        let (process, from_outside) = (self.process, self.outside.is_some());
        let record = &said.record;
        let Some(span) = SpanId::from_bytes(&record.span.span_id) else { return Ok(None) };
        let is_elsewhere = self.elsewhere.get(&run).is_some_and(|elsewhere| elsewhere.ended.contains(&span));
        if is_elsewhere && record.kind == RecordKind::Ended {
            return Ok(DUPLICATE);
        }
        self.dirty.insert(run);
        if !from_outside && !record.span.links.is_empty() {
            self.find_cause(run, &record.span);
        }
        let Some(live) = self.runs.get_mut(&run) else { return Ok(None) };
        live.touched = Instant::now();
        live.is_leaving = false;
        if from_outside {
            self.conversations.note_stored(&said);
            self.conversations.note_log(&said);
        }
        if from_outside && record.kind == RecordKind::Ended && live.takes_unsorted(record) {
            return Ok(if live.take_unsorted(seq, span, said) { STORED } else { DUPLICATE });
        }
        live.tell_unsorted(process);
        match record.kind {
            RecordKind::Started => {
                if let Some(pending) = live.pending.iter_mut().find(|pending| same_span(&pending.said.record, record)) {
                    // Later facts about the same start; its place in the journal stays the first one's.
                    pending.said = said;
                } else if !live.state.step_progress(span).0 {
                    live.pending.push(PendingStart { seq, said, since: Instant::now() });
                }
            }
            RecordKind::Event if from_outside => {
                live.flush_pending(process, None);
                for event in &record.span.events {
                    live.take_log_or_status(span, event);
                }
            }
            RecordKind::Event => {
                live.flush_pending(process, None);
                for (place, event) in (0..).zip(&record.span.events) {
                    live.note_told(span, event);
                    live.take_span_event(EventIds { process, seq }, place, span, event);
                }
            }
            RecordKind::Ended => {
                let is_named = said.facts.names_run && is_run(&said.facts);
                if !from_outside && is_named && !live.state.step_progress(span).0 && !live.has_pending(span) {
                    // Somebody tells spans of this run when they end.
                    live.state.take_starts_first(false);
                }
                // The start shows what the end knows of the step, since both are written together.
                live.flush_pending_with(process, None, Some(&said));
                if live.state.step_progress(span).1 {
                    if from_outside {
                        self.end_again(run, span, said)?;
                    }
                    return Ok(DUPLICATE);
                }
                live.end_step(live.ids(process, seq, span), span, said, from_outside);
            }
        }
        Ok(STORED)
    }

    /// Tells the end of a step that has ended once more. What the run has of its ends is looked up with the first that comes. Of one
    /// that is gone from the store, or cannot be read, a copy is taken for one that was seen: it most often is.
    fn end_again(&mut self, run: RunId, span: SpanId, said: Box<Said>) -> Result<(), StoreError> {
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        if !live.state.is_for_copies() {
            let written = match live.written_status.map(|_| self.writer.look_at(run)) {
                None => Vec::new(),
                Some(Ok(Some(written))) => written,
                Some(Err(error)) if error.is_out_of_resources() => return Err(error),
                Some(Ok(None) | Err(_)) => return Ok(()),
            };
            live.state.take_digests(written.iter().chain(&live.queue));
        }
        live.end_again(span, said);
        Ok(())
    }

    /// Notes for a run that has not begun which run caused it, by the links of its first span.
    fn find_cause(&mut self, run: RunId, span: &Span) {
        let Some(live) = self.runs.get(&run).filter(|live| !live.state.has_started() && live.above.is_none()) else {
            return;
        };
        let linked = linked_trace(span, live.state.trace_id());
        let cause = linked.and_then(|linked| self.run_that_caused(run, linked));
        if let Some(live) = self.runs.get_mut(&run) {
            live.above = cause;
        }
    }

    /// Returns the run of a trace that another run names as its cause: one that has begun here, else one of this library, which
    /// any process may write.
    pub(super) fn run_that_caused(&mut self, run: RunId, linked: TraceId) -> Option<RunId> {
        // One of this process may be about to begin.
        let is_known = |cause: &RunId| self.outside.is_none() && self.runs.contains_key(cause);
        let begins = || self.traces.get(&linked).and_then(|trace| trace.first_run).filter(is_known);
        let here = self.run_of(linked).or_else(begins).filter(|cause| *cause != run);
        here.or_else(|| {
            let cause = linked.as_run_id();
            let may_be = cause != run && may_be_ours(cause, UnixNanos::now());
            // Whose folder cannot be looked for may not be named.
            (may_be && self.writer.has_run(cause).unwrap_or(false)).then_some(cause)
        })
    }

    /// Tells whether a run of the trace has begun here; where several have, the first one stands for it.
    pub fn has_run_of(&self, trace: TraceId) -> bool {
        self.run_of(trace).is_some()
    }

    pub(super) fn run_of(&self, trace: TraceId) -> Option<RunId> {
        let Some(trace) = self.traces.get(&trace) else {
            let by_name = Some(trace.as_run_id()).filter(|run| self.by_name.contains(run));
            return by_name.or_else(|| self.over.get(&trace).copied());
        };
        let is_live = |run: &RunId| self.runs.get(run).is_some_and(|live| live.state.has_started());
        let has_begun = |run: &RunId| is_live(run) || trace.released.contains(run);
        let first = if self.outside.is_some() { trace.home() } else { trace.first_run };
        first.filter(has_begun).or_else(|| trace.spans.values().copied().filter(has_begun).min())
    }
}
