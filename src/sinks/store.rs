//! The reader of the journal that makes runs of records and writes them to the run store.
//!
//! A record finds its run by the id on its span, else through its parent, else through its trace. Spans above the
//! first GenAI span of a run are held, within bounds, until there is one; a trace without any is not kept.
//!
//! Everything here may be told again after a crash: events have ids made from the record's place in the journal, and
//! a run that is there is taken up where its log stops.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::event::{EventBody, Log};
use crate::model::id::{IdMap, IdSet};
use crate::model::otlp::{KeyValue, Span, Value};
use crate::model::outcome::{Counts, LostRecords, Outcome};
use crate::model::record::{Record, RecordKind};
use crate::model::{Event, EventId, RunId, RunStatus, RunSummary, SpanId, TraceId, UnixNanos};
use crate::pipeline::cost::Pricer;
use crate::pipeline::facts::StepFacts;
use crate::sinks::tally::{Notes, Tally};
use crate::store::assembly::{DROPPED_LOG, RunState, status_body};
use crate::store::{RunWriter, StoreError};

/// How long a start waits for late facts: many emitters name the model or the tool only after the span began.
const START_GRACE: Duration = Duration::from_millis(20);
/// Spans held for one run before its first GenAI span.
const MAX_HELD_RECORDS: usize = 256;
/// Bytes held for one run before its first GenAI span, about.
const MAX_HELD_BYTES: usize = 4 << 20;
/// How far behind the journal goes on for the sake of records held, in bytes of spans: a span that is open as long as
/// its process, with no GenAI span in its run, must not keep the whole journal.
const MAX_BEHIND_BYTES: u64 = 32 << 20;
/// After how long without a span a run of another's program, whose root never came, is taken for over.
pub const SILENCE: Duration = Duration::from_secs(600);
/// Traces of runs that are over that are remembered for what comes late: some 5 MB.
pub(crate) const TRACES_AT_HAND: usize = 65_536;
/// Runs that wait for that of a trace they name as their cause.
const LINKS_AWAITED: usize = 4_096;
/// How long a finished trace is held with its spans for late ones.
pub(crate) const LATE: Duration = Duration::from_secs(60);
/// Finished runs whose steps are kept at hand for late spans; of older ones the log is read again when one comes.
const FINISHED_AT_HAND: usize = 8;
/// Finished runs of this library that are remembered by their names alone, for what was lost of them.
const FINISHED_BY_NAME: usize = 4096;
/// Records and bytes of spans that are taken in, about, before they are written out: what waits is in memory.
const ENOUGH_RECORDS: usize = 512;
const ENOUGH_BYTES: u64 = 1 << 20;
/// Ended steps of a new run, about, that wait for those just behind them, their bytes, and how long the first may wait: then
/// they are told, however many are still to come.
const UNSORTED_RECORDS: usize = 16_384;
const UNSORTED_BYTES: u64 = 16 << 20;
const UNSORTED_AGE: Duration = Duration::from_secs(1);
/// In place of a place in the journal: events of the crash of a process, and of what it lost. No journal gets so long.
const CRASH_PLACE: u64 = u64::MAX;
const LOST_PLACE: u64 = u64::MAX - 1;

mod asked;
mod ids;
mod live;
mod outside;
mod settle;

pub(crate) use asked::{Claimed, Standing};
pub use ids::foreign_run_id;
use ids::{event_id, is_foreign_run_id, run_id_in_place_of};
use live::{EventIds, Forgotten, LiveRun, PendingStart, same_span};

/// How often it is looked for runs that have fallen silent.
const LOOK: Duration = Duration::from_millis(200);

/// Makes runs of records.
#[derive(Debug)]
pub struct StoreSink<W> {
    writer: W,
    /// The process whose journal is read: part of every event id.
    process: RunId,
    traces: IdMap<TraceId, Trace>,
    runs: IdMap<RunId, LiveRun>,
    /// Runs that another process writes, or that are damaged, and ours in their place.
    in_place_of: IdMap<RunId, RunId>,
    /// Runs with something to write.
    dirty: IdSet<RunId>,
    /// Runs that were here when a reset began, until it is done.
    forgotten: IdMap<RunId, Forgotten>,
    /// Runs that are over, the latest last.
    finished: VecDeque<RunId>,
    /// Runs that were over and are in the store alone, of traces that nothing else is known of.
    by_name: VecDeque<RunId>,
    forgotten_at: Instant,
    /// When it was looked for runs from outside that have fallen silent.
    looked_at: Instant,
    ended_runs: Vec<RunSummary>,
    /// Runs that are over; `None` when nobody counts them.
    tallies: Option<Vec<Tally>>,
    counts: Counts,
    /// The last place in the journal that was told.
    told: u64,
    /// The same since the last reset.
    taken: Option<u64>,
    /// Bytes of all spans told, about.
    told_bytes: u64,
    /// Records taken since they were last written out, and `told_bytes` then.
    unwritten: (usize, u64),
    /// Up to here everything was told before and counted, but for those in `uncounted`.
    told_before: u64,
    uncounted: IdSet<u64>,
    /// Records by place that tell others too, and how many in all.
    tells: IdMap<u64, u64>,
    stored_spans: u64,
    passed_spans: u64,
    /// Spans come from outside: ended, in any order, and nobody says when the last one has come. After so long without
    /// one their run is over.
    outside: Option<Duration>,
    /// Prices calls of which logs tell more than their spans did.
    pricer: Pricer,
    /// Runs that are over and let go of, by trace: what still comes finds them.
    over: IdMap<TraceId, RunId>,
    /// The traces of `over`, the latest last.
    over_since: VecDeque<TraceId>,
    /// Runs that name a trace as their cause of which no run is known yet.
    awaiting_links: IdMap<TraceId, Vec<RunId>>,
    /// The disk may have lost what was written: what is taken up is written once more.
    is_distrustful: bool,
    /// So is what records up to this place belong to.
    again_up_to: u64,
    /// The writer holds runs back, to write them with others.
    is_holding: bool,
}

#[derive(Debug, Default)]
struct Trace {
    spans: IdMap<SpanId, RunId>,
    /// The first run: where a span goes whose parent is not known.
    first_run: Option<RunId>,
    /// Runs that are over and in the store alone.
    released: Vec<RunId>,
    held: IdMap<RunId, Held>,
    touched: Option<Instant>,
}

/// Records of a trace that has shown no GenAI span yet.
#[derive(Debug, Default)]
struct Held {
    records: Vec<HeldRecord>,
    open: IdSet<SpanId>,
    bytes: usize,
}

#[derive(Debug)]
struct HeldRecord {
    seq: u64,
    /// How many bytes had been told before it.
    told_bytes: u64,
    record: Record,
}

impl<W: RunWriter> StoreSink<W> {
    /// Makes the sink for the journal of `process`.
    pub fn new(writer: W, process: RunId) -> Self {
        Self {
            writer,
            process,
            traces: HashMap::default(),
            runs: HashMap::default(),
            in_place_of: HashMap::default(),
            dirty: HashSet::default(),
            forgotten: HashMap::default(),
            finished: VecDeque::new(),
            by_name: VecDeque::new(),
            forgotten_at: Instant::now(),
            looked_at: Instant::now(),
            ended_runs: Vec::new(),
            tallies: None,
            counts: Counts::default(),
            told: 0,
            taken: None,
            told_bytes: 0,
            unwritten: (0, 0),
            told_before: 0,
            uncounted: HashSet::default(),
            tells: HashMap::default(),
            stored_spans: 0,
            passed_spans: 0,
            outside: None,
            pricer: Pricer::new(),
            over: HashMap::default(),
            over_since: VecDeque::new(),
            awaiting_links: HashMap::default(),
            is_distrustful: false,
            again_up_to: 0,
            is_holding: false,
        }
    }

    /// Prices with another pricer what logs tell, one with the user's own prices say.
    #[must_use]
    pub fn with_pricer(self, pricer: Pricer) -> Self {
        Self { pricer, ..self }
    }

    /// Adds each run up when it is over.
    pub(crate) fn with_tallies(mut self) -> Self {
        self.tallies = Some(Vec::new());
        self
    }

    /// Returns what runs that are over since the last call add up to.
    pub(crate) fn take_tallies(&mut self) -> Vec<Tally> {
        self.tallies.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds up those runs, too, that have ended and a step of which has not: nobody will go on with them.
    pub(crate) fn tally_rest(&mut self) {
        let Some(tallies) = &mut self.tallies else { return };
        let ended = self.runs.values_mut().filter(|live| live.state.has_started() && !live.state.status().is_open());
        tallies.extend(ended.filter_map(LiveRun::tally));
    }

    /// Returns how many ended spans are done with and not stored: told before, not kept, broken.
    pub fn passed_spans(&self) -> u64 {
        self.passed_spans
    }

    /// Returns the writer, with what it has written.
    pub fn into_writer(self) -> W {
        self.writer
    }

    /// Returns a run's events as they are written.
    pub fn written_events(&mut self, run: RunId) -> Result<Vec<Event>, StoreError> {
        Ok(self.writer.take_up(run)?.unwrap_or_default())
    }

    /// Returns what became of the records so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the runs that are under way.
    pub fn open_runs(&self) -> Vec<RunId> {
        let open = |live: &LiveRun| live.state.has_started() && live.state.status().is_open();
        self.runs.iter().filter(|(_, live)| open(live)).map(|(run, _)| *run).collect()
    }

    /// Returns the runs that were under way when their process died, those too whose crash is noted and not all of
    /// whose steps are closed; sorted.
    pub fn unclosed_runs(&self) -> Vec<RunId> {
        let ended = |state: &RunState| matches!(state.status(), RunStatus::Crashed | RunStatus::Cancelled);
        let crashed = |state: &RunState| ended(state) && !state.open_spans().is_empty();
        let unclosed = |state: &RunState| state.has_started() && (state.status().is_open() || crashed(state));
        let mut runs: Vec<RunId> =
            self.runs.iter().filter(|(_, live)| unclosed(&live.state)).map(|(run, _)| *run).collect();
        runs.sort_unstable();
        runs
    }

    /// Returns the traces that have a run under way, or may still turn out to have one.
    pub fn open_traces(&self) -> HashSet<TraceId> {
        let open = self.runs.values().filter(|live| !live.state.has_started() || live.state.status().is_open());
        let held = self.traces.iter().filter(|(_, trace)| !trace.held.is_empty());
        open.map(|live| live.state.trace_id()).chain(held.map(|(trace, _)| *trace)).collect()
    }

    /// Returns how many spans were stored whole.
    pub fn stored_spans(&self) -> u64 {
        self.stored_spans
    }

    /// Returns the summaries of runs that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<RunSummary> {
        std::mem::take(&mut self.ended_runs)
    }

    /// Tells whether runs are held back, to be written with others: until they are, nothing that was told since they began
    /// to be may be acknowledged.
    pub fn is_holding(&self) -> bool {
        self.is_holding
    }

    /// Returns the oldest place in the journal that is still needed: what is before may be acknowledged.
    ///
    /// Records held from long before are in memory only; what they tell of has not shown yet when the process dies.
    pub fn oldest_held(&self) -> Option<u64> {
        let held = self.traces.values().flat_map(|trace| trace.held.values());
        let held = held.filter_map(|held| held.records.iter().find(|held| !self.is_far_behind(held)));
        let held = held.map(|held| held.seq);
        let waiting = self.dirty.iter().filter_map(|run| self.runs.get(run));
        let pending = waiting.clone().flat_map(|run| run.pending.iter().map(|start| start.seq));
        let unsorted = waiting.filter_map(|run| run.unsorted.first()).map(|first| first.seq);
        held.chain(pending).chain(unsorted).min()
    }

    fn is_far_behind(&self, held: &HeldRecord) -> bool {
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

    fn forget_traces(&mut self) {
        (self.told_before, self.taken) = (self.told, None);
        self.finished.clear();
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
                        && let Some(span_id) = SpanId::from_bytes(&held.record.span.span_id)
                    {
                        let trace = self.traces.entry(trace_id).or_default();
                        trace.touched = Some(Instant::now());
                        trace.spans.insert(span_id, run);
                        trace.first_run.get_or_insert(run);
                        self.hold(trace_id, run, span_id, held);
                    }
                }
            }
        }
    }

    /// Takes forgotten runs up again: all of them, or the next reset goes on with it.
    fn recall_forgotten(&mut self) -> Result<(), StoreError> {
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

    /// Lets every run here say again what it is, with the next flush, whether that has changed or not.
    pub(crate) fn republish(&mut self) {
        for (run, live) in self.runs.iter_mut().filter(|(_, live)| live.state.has_started()) {
            live.stale_summary = true;
            self.dirty.insert(*run);
        }
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

    /// Lets go of a run of which the store has nothing: whoever tells of it knows its trace.
    fn forget_unbegun(&mut self, run: RunId) {
        if self.runs.get(&run).is_some_and(|live| !live.state.has_started()) {
            self.runs.remove(&run);
            self.writer.release_run(run);
        }
    }

    /// Takes one record from its place in the journal.
    ///
    /// Places come in order. One that came before is passed over, until a [`reset`](Self::reset): the frames of a commit
    /// that failed can be read, so the journal may have told it before its writer does.
    pub fn take(&mut self, seq: u64, record: Record) -> Result<(), StoreError> {
        if self.taken.is_some_and(|taken| seq <= taken) {
            return Ok(());
        }
        self.taken = Some(seq);
        self.bring_to_its_run(seq, record)
    }

    fn bring_to_its_run(&mut self, seq: u64, record: Record) -> Result<(), StoreError> {
        self.told = self.told.max(seq);
        let told_bytes = self.told_bytes;
        self.unwritten.0 += 1;
        self.told_bytes += size_of(&record.span);
        let ids = (TraceId::from_bytes(&record.span.trace_id), SpanId::from_bytes(&record.span.span_id));
        let (Some(trace_id), Some(span_id)) = ids else {
            self.count(seq, record.kind, Outcome::Rejected, "bad_id");
            return Ok(());
        };
        let facts = StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope));
        let mut of_trace = None;
        self.recall_over(trace_id);
        // An id that is made of the trace says no more than the trace, which may lead to another run here.
        let of_maker = facts.run_id.filter(|run| !is_foreign_run_id(*run, trace_id));
        if !self.traces.contains_key(&trace_id) && of_maker.is_none() {
            // A late record of a trace that this library began: its run has the same bits.
            let run = trace_id.as_run_id();
            match self.open_run(run, trace_id, None) {
                Err(error) if error.is_closed() => of_trace = Some(run),
                opened => opened?,
            }
            self.forget_unbegun(run);
        }
        let trace = self.traces.entry(trace_id).or_default();
        trace.touched = Some(Instant::now());
        let parent = SpanId::from_bytes(&record.span.parent_span_id);
        let run = of_maker
            .or_else(|| trace.spans.get(&span_id).copied())
            .or_else(|| trace.spans.get(&parent?).copied())
            .or(trace.first_run)
            .or(of_trace)
            .or(facts.run_id)
            .unwrap_or_else(|| foreign_run_id(trace_id, record.span.start_time_unix_nano));
        let mut run = self.in_place_of.get(&run).copied().unwrap_or(run);
        trace.spans.insert(span_id, run);
        trace.first_run.get_or_insert(run);
        if let Some(place) = trace.released.iter().position(|released| *released == run) {
            trace.released.swap_remove(place);
            run = self.open_own_run(run, trace_id)?;
        }
        if self.runs.contains_key(&run) {
            return self.apply(run, seq, record, facts);
        }
        let Some(trace) = self.traces.get_mut(&trace_id) else { return Ok(()) };
        if facts.is_genai {
            let held = trace.held.remove(&run).unwrap_or_default();
            let run = self.open_own_run(run, trace_id)?;
            // A log may come before any span of its run, and has no place in it then.
            let from_outside = self.outside.is_some();
            let is_log = |held: &HeldRecord| from_outside && held.record.kind == RecordKind::Event;
            let (logs, spans): (Vec<_>, Vec<_>) = held.records.into_iter().partition(is_log);
            for HeldRecord { seq, record, .. } in spans {
                let facts = StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope));
                self.apply(run, seq, record, facts)?;
            }
            self.apply(run, seq, record, facts)?;
            for HeldRecord { seq, record, .. } in logs {
                let facts = StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope));
                self.apply(run, seq, record, facts)?;
            }
            return Ok(());
        }
        self.hold(trace_id, run, span_id, HeldRecord { seq, told_bytes, record });
        Ok(())
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
    fn count(&mut self, seq: u64, kind: RecordKind, outcome: Outcome, reason: &'static str) {
        if seq > self.told_before || self.uncounted.remove(&seq) {
            let records = self.forget_told(seq);
            self.counts.add(outcome, reason, records);
            self.passed_spans += u64::from(kind == RecordKind::Ended && outcome != Outcome::Stored);
        }
    }

    fn hold(&mut self, trace_id: TraceId, run: RunId, span_id: SpanId, told: HeldRecord) {
        let Some(trace) = self.traces.get_mut(&trace_id) else { return };
        let held = trace.held.entry(run).or_default();
        match told.record.kind {
            RecordKind::Started => drop(held.open.insert(span_id)),
            RecordKind::Ended => drop(held.open.remove(&span_id)),
            RecordKind::Event => {}
        }
        held.bytes += size_of(&told.record.span) as usize;
        held.records.push(told);
        let mut gone = Vec::new();
        let mut reason = "no_genai";
        if held.open.is_empty() && self.outside.is_none() {
            gone.extend(held.records.iter().map(|held| (held.seq, held.record.kind)));
            trace.held.remove(&run);
        } else if held.records.len() > MAX_HELD_RECORDS || held.bytes > MAX_HELD_BYTES {
            // What is under way may still come to enclose an agent; what has ended beside it goes.
            reason = "held_limit";
            let (open, mut kept) = (&held.open, 0);
            let from_outside = self.outside.is_some();
            held.records.retain(|HeldRecord { seq, record, .. }| {
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
            held.bytes = held.records.iter().map(|held| size_of(&held.record.span) as usize).sum();
        }
        for (seq, kind) in gone {
            self.count(seq, kind, Outcome::NotKept, reason);
        }
    }

    /// Opens a run, or where that cannot be gone on with, a run of our own in its place, and tells which.
    fn open_own_run(&mut self, run: RunId, trace_id: TraceId) -> Result<RunId, StoreError> {
        match self.open_run(run, trace_id, None) {
            Err(error) if error.is_closed() => {
                let own = run_id_in_place_of(run, self.process);
                self.open_run(own, trace_id, Some(run))?;
                self.in_place_of.insert(run, own);
                Ok(own)
            }
            opened => opened.map(|()| run),
        }
    }

    fn open_run(&mut self, run: RunId, trace_id: TraceId, in_place_of: Option<RunId>) -> Result<(), StoreError> {
        let mut state = RunState::new(run, trace_id);
        // Made for good by the first flush, when the first step tells name and kind; here only what is there is read.
        let (mut known, mut told) = (HashSet::default(), IdMap::<EventId, HashSet<UnixNanos>>::default());
        let mut notes = self.tallies.as_ref().map(|_| Box::<Notes>::default());
        for event in self.writer.take_up(run)?.unwrap_or_default() {
            state.apply(&event, false);
            if let Some(notes) = &mut notes {
                notes.note(&event);
            }
            known.insert(event.event_id);
            // What the root says of its run has no step, but the start of its step as its cause.
            match (event.parent_event_id, event.body.span()) {
                (Some(start), None) => drop(told.entry(start).or_default().insert(event.timestamp)),
                (Some(start), Some(_)) if !event.body.is_step_start() => drop(told.remove(&start)),
                _ => {}
            }
        }
        let written_status = state.has_started().then(|| state.status());
        if state.has_started() {
            let trace = self.traces.entry(state.trace_id()).or_default();
            trace.spans.extend(state.spans().map(|span| (span, run)));
            trace.first_run.get_or_insert(run);
            trace.touched = Some(Instant::now());
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
            stale_summary,
            by_span,
            unsettled,
            notes,
            ..LiveRun::new(state, in_place_of)
        };
        // One that was over when it was let go of is counted.
        let live = if live.is_over() { LiveRun { notes: None, ..live } } else { live };
        self.runs.insert(run, live);
        Ok(())
    }

    fn apply(&mut self, run: RunId, seq: u64, record: Record, facts: StepFacts) -> Result<(), StoreError> {
        let (process, from_outside) = (self.process, self.outside.is_some());
        self.dirty.insert(run);
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        live.touched = Instant::now();
        let Some(span) = SpanId::from_bytes(&record.span.span_id) else { return Ok(()) };
        if from_outside && record.kind == RecordKind::Ended && live.takes_unsorted(&record) {
            let is_new = live.take_unsorted(seq, span, record, facts);
            let (outcome, reason) = if is_new { (Outcome::Stored, "") } else { (Outcome::Duplicate, "span") };
            self.count(seq, RecordKind::Ended, outcome, reason);
            return Ok(());
        }
        live.tell_unsorted(process);
        match record.kind {
            RecordKind::Started => {
                if let Some(pending) = live.pending.iter_mut().find(|pending| same_span(&pending.record, &record)) {
                    // Later facts about the same start; its place in the journal stays the first one's.
                    (pending.record, pending.facts) = (record, facts);
                } else if !live.state.step_progress(span).0 {
                    live.pending.push(PendingStart { seq, record, facts, since: Instant::now() });
                }
                self.count(seq, RecordKind::Started, Outcome::Stored, "");
            }
            RecordKind::Event if from_outside => {
                live.flush_pending(process, None);
                for event in &record.span.events {
                    live.take_log_or_status(span, event);
                }
                self.count(seq, RecordKind::Event, Outcome::Stored, "");
            }
            RecordKind::Event => {
                live.flush_pending(process, None);
                for (place, event) in (0..).zip(&record.span.events) {
                    live.note_told(span, event);
                    live.take_span_event(EventIds { process, seq }, place, span, event);
                }
                self.count(seq, RecordKind::Event, Outcome::Stored, "");
            }
            RecordKind::Ended => {
                // The start shows what the end knows of the step, since both are written together.
                live.flush_pending_with(process, None, Some((&record, &facts)));
                if live.state.step_progress(span).1 {
                    self.count(seq, RecordKind::Ended, Outcome::Duplicate, "span");
                    return Ok(());
                }
                live.end_step(live.ids(process, seq, span), span, record, facts, from_outside);
                self.count(seq, RecordKind::Ended, Outcome::Stored, "");
            }
        }
        Ok(())
    }

    /// Takes a run up again that was let go of.
    fn open_released(&mut self, run: RunId, trace_id: TraceId) -> Result<(), StoreError> {
        self.open_run(run, trace_id, None)?;
        if let Some(trace) = self.traces.get_mut(&trace_id) {
            trace.released.retain(|released| *released != run);
        }
        Ok(())
    }

    /// Tells whether a run of the trace has begun here; where several have, the first one stands for it.
    pub fn has_run_of(&self, trace: TraceId) -> bool {
        self.run_of(trace).is_some()
    }

    fn run_of(&self, trace: TraceId) -> Option<RunId> {
        let Some(trace) = self.traces.get(&trace) else {
            let by_name = Some(trace.as_run_id()).filter(|run| self.by_name.contains(run));
            return by_name.or_else(|| self.over.get(&trace).copied());
        };
        let is_live = |run: &RunId| self.runs.get(run).is_some_and(|live| live.state.has_started());
        let has_begun = |run: &RunId| is_live(run) || trace.released.contains(run);
        trace.first_run.filter(has_begun).or_else(|| trace.spans.values().copied().filter(has_begun).min())
    }

    /// Notes in the log of their run that records were lost. Tells whether the note is written: until then it may have
    /// to be told again, and however often that happens it is noted once.
    pub fn note_lost(&mut self, lost: &LostRecords) -> bool {
        let id = event_id(self.process, LOST_PLACE, lost.mark, lost.since);
        let Some(run) = self.run_of(lost.trace) else { return false };
        if !self.runs.contains_key(&run) && self.open_released(run, lost.trace).is_err() {
            return false;
        }
        let Some(live) = self.runs.get_mut(&run) else { return false };
        if live.known.contains(&id) {
            return true;
        }
        if live.queue.iter().all(|event| event.event_id != id) {
            let mut fields = serde_json::Map::new();
            fields.insert("count".to_owned(), lost.count.into());
            fields.insert("reason".to_owned(), lost.reason.into());
            let body = EventBody::Log(Log { level: Some("WARN".to_owned()), message: DROPPED_LOG.to_owned(), fields });
            let cause = live.state.start_event();
            live.push(id, cause, lost.since, None, body);
            live.stale_summary = true;
            self.dirty.insert(run);
        }
        false
    }

    /// Notes in each of the runs that its process died. Returns those that were under way, and so have crashed.
    ///
    /// A run that waits for an answer goes on waiting: it needs no process for that.
    pub fn note_crash(&mut self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        let process = self.process;
        let mut crashed = Vec::new();
        self.take_up(runs)?;
        for &run in runs {
            let Some(live) = self.runs.get_mut(&run) else { continue };
            live.flush_pending(process, None);
            if !live.state.has_started() || live.state.status() == RunStatus::Waiting {
                continue;
            }
            if live.state.status() == RunStatus::Running {
                let now = live.state.last_time();
                // The same id whoever notes it, however often.
                let id = event_id(process, CRASH_PLACE, 0, now);
                let cause = live.state.start_event();
                let reason = "the process ended while the run was under way";
                live.push(id, cause, now, None, status_body(RunStatus::Running, RunStatus::Crashed, reason));
                live.stale_summary = true;
            }
            if !live.state.open_spans().is_empty() {
                crashed.push(run);
            }
        }
        Ok(crashed)
    }

    /// Returns the open steps of a run, innermost first, and the run's last moment.
    pub fn open_spans(&self, run: RunId) -> (Vec<SpanId>, UnixNanos) {
        let Some(live) = self.runs.get(&run) else { return (Vec::new(), UnixNanos::default()) };
        let mut spans = live.state.open_spans();
        spans.reverse();
        (spans, live.state.last_time())
    }

    /// Tells whether so much was taken in that it should be written out before more comes.
    pub fn has_enough(&self) -> bool {
        self.unwritten.0 >= ENOUGH_RECORDS || self.told_bytes - self.unwritten.1 >= ENOUGH_BYTES
    }

    /// Writes out what is ready: starts whose grace is over, events, summaries that changed.
    ///
    /// On an error everything unwritten stays queued and the next flush tries again.
    pub fn flush(&mut self, now: Instant) -> Result<(), StoreError> {
        self.flush_due(now, false)
    }

    /// `all`: long logs are put in order, too, although more may come.
    fn flush_due(&mut self, now: Instant, all: bool) -> Result<(), StoreError> {
        let process = self.process;
        let mut first_error = None;
        self.unwritten = (0, self.told_bytes);
        let dirty = std::mem::take(&mut self.dirty);
        for run in dirty {
            let Some(live) = self.runs.get_mut(&run) else { continue };
            if !all && live.is_fresh(now) {
                self.dirty.insert(run);
                continue;
            }
            live.flush_pending(process, Some(now));
            self.tell_new(run);
            let Some(live) = self.runs.get_mut(&run) else { continue };
            if self.outside.is_some() {
                live.complete();
            }
            let is_new = live.written_status.is_none();
            match self.write(run, now, all) {
                Ok(ended) => self.ended_runs.extend(ended),
                // One run's trouble must not keep the others from being written.
                Err(error) => drop(first_error.get_or_insert(error)),
            }
            if is_new {
                self.tell_linked(run);
            }
            let Some(live) = self.runs.get_mut(&run) else { continue };
            if !live.is_clean() {
                self.dirty.insert(run);
            } else if live.is_over() {
                if let Some(tallies) = &mut self.tallies {
                    tallies.extend(live.tally());
                }
                self.finished.push_back(run);
            }
        }
        self.release_finished();
        match self.writer.write_held(all) {
            Ok(is_all) => self.is_holding = !is_all,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
        if let Some(silence) = self.outside.filter(|_| now.saturating_duration_since(self.looked_at) > LOOK) {
            self.looked_at = now;
            self.end_silent(|live| now.saturating_duration_since(live.touched) >= silence);
            self.give_up_held(now, silence);
        }
        if now.saturating_duration_since(self.forgotten_at) > LATE / 4 {
            self.forgotten_at = now;
            self.forget_finished(now);
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Lets go of the steps of runs that are over, but for the latest: a process that makes thousands of short runs
    /// must not hold them all.
    fn release_finished(&mut self) {
        while self.finished.len() > FINISHED_AT_HAND {
            let Some(run) = self.finished.pop_front() else { return };
            // What came late may have made it dirty, or put it at the end of the line again.
            if self.finished.contains(&run)
                || !self.runs.get(&run).is_some_and(|live| live.is_clean() && live.is_over())
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
            if is_alone && trace.held.is_empty() && trace.released.is_empty() && trace_id.as_run_id() == run {
                // The name of the trace leads to the run in the store.
                self.traces.remove(&trace_id);
                self.by_name.push_back(run);
                self.by_name.drain(..self.by_name.len().saturating_sub(FINISHED_BY_NAME));
                continue;
            }
            trace.released.push(run);
            if trace.spans.values().all(|of| *of == run) {
                trace.spans = HashMap::default();
            }
        }
    }

    /// Lets go of runs and traces that have been over for a while.
    fn forget_finished(&mut self, now: Instant) {
        let over =
            |live: &LiveRun| live.is_clean() && live.is_over() && now.saturating_duration_since(live.touched) > LATE;
        let gone: Vec<RunId> = self.runs.iter().filter(|(_, live)| over(live)).map(|(run, _)| *run).collect();
        for run in gone {
            if let Some(live) = self.runs.remove(&run).filter(|live| live.by_span) {
                self.remember_over(live.state.trace_id(), run);
            }
            self.writer.release_run(run);
        }
        let released = |own: &RunId| self.traces.values().any(|trace| trace.released.contains(own));
        self.in_place_of.retain(|_, own| self.runs.contains_key(own) || released(own));
        self.traces.retain(|_, trace| {
            let recent = trace.touched.is_some_and(|touched| now.saturating_duration_since(touched) <= LATE);
            recent || !trace.held.is_empty() || trace.spans.values().any(|run| self.runs.contains_key(run))
        });
    }

    /// Writes out everything, grace or not; for the end of the process.
    pub fn flush_all(&mut self) -> Result<(), StoreError> {
        let process = self.process;
        for live in self.runs.values_mut() {
            live.flush_pending(process, None);
        }
        self.dirty.extend(self.runs.keys());
        self.flush_due(Instant::now(), true)?;
        // Runs that have found their parents meanwhile.
        if self.dirty.is_empty() { Ok(()) } else { self.flush_due(Instant::now(), true) }
    }

    /// Writes what is queued of a run, and the whole of its log in order where that is due.
    fn write(&mut self, run: RunId, now: Instant, all: bool) -> Result<Option<RunSummary>, StoreError> {
        let is_due = |live: &LiveRun| live.is_to_settle(now, all);
        let Some(live) = self.runs.get(&run) else { return Ok(None) };
        // Of a run that nobody has seen yet the log is put in order first, and written once.
        if live.written_status.is_none() && is_due(live) {
            self.settle(run)?;
        }
        let Some(live) = self.runs.get_mut(&run) else { return Ok(None) };
        let ended = live.write(run, &mut self.writer, &mut self.stored_spans)?;
        if !is_due(live) {
            return Ok(ended);
        }
        self.settle(run)?;
        let Some(live) = self.runs.get_mut(&run) else { return Ok(ended) };
        let again = live.write(run, &mut self.writer, &mut self.stored_spans)?;
        Ok(again.or_else(|| ended.map(|_| live.state.summary(UnixNanos::now()))))
    }

    /// Holds a run until that of the trace that it names as its cause has begun.
    fn await_link(&mut self, trace: TraceId, run: RunId) {
        if self.awaiting_links.len() < LINKS_AWAITED || self.awaiting_links.contains_key(&trace) {
            let waiting = self.awaiting_links.entry(trace).or_default();
            if waiting.len() < LINKS_AWAITED && !waiting.contains(&run) {
                waiting.push(run);
            }
        }
    }

    /// Looks again at the runs that wait for this one, which has just begun.
    fn tell_linked(&mut self, run: RunId) {
        let Some(trace) = self.runs.get(&run).map(|live| live.state.trace_id()) else { return };
        for waiting in self.awaiting_links.remove(&trace).unwrap_or_default() {
            if !self.runs.contains_key(&waiting) {
                // What cannot be opened now stays without its parent.
                let _ = self.open_run(waiting, waiting.as_trace_id(), None);
            }
            if let Some(live) = self.runs.get_mut(&waiting).filter(|live| live.state.has_started()) {
                live.unsettled = true;
                self.dirty.insert(waiting);
            }
        }
    }

    /// Has the metadata of runs that records up to this place belong to written once more: who told them before may have died
    /// in the middle of that.
    #[cfg(feature = "server")]
    pub(crate) fn write_again_up_to(&mut self, seq: u64) {
        self.again_up_to = seq;
    }

    /// Remembers a run that is let go of.
    pub(crate) fn remember_over(&mut self, trace: TraceId, run: RunId) {
        if self.over.insert(trace, run).is_none() {
            self.over_since.push_back(trace);
        }
        while self.over_since.len() > TRACES_AT_HAND {
            let Some(trace) = self.over_since.pop_front() else { return };
            self.over.remove(&trace);
        }
    }

    /// Makes the trace of a run that was let go of known again.
    fn recall_over(&mut self, trace_id: TraceId) {
        if self.traces.contains_key(&trace_id) {
            return;
        }
        if let Some(run) = self.over.get(&trace_id).copied() {
            let trace = Trace { first_run: Some(run), released: vec![run], ..Trace::default() };
            self.traces.insert(trace_id, trace);
        }
    }
}

#[cfg(any(feature = "server", test))]
impl StoreSink<crate::store::files::FilesWriter> {
    /// Takes note that a sync of the whole disk failed: of what was written since the last one that worked nobody knows what
    /// is there. What is told again after a [`reset`](Self::reset) is written once more, and from now on each run is
    /// brought to the disk by itself.
    pub(crate) fn distrust_disk(&mut self) {
        self.writer.make_durable();
        self.is_distrustful = true;
    }
}

/// Returns about how many bytes a span takes in the journal: bounds need no more, and the exact length is not cheap.
fn size_of(span: &Span) -> u64 {
    let texts = |attributes: &[KeyValue]| -> usize {
        let length = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::String(text)) => text.len(),
            Some(Value::Bytes(bytes)) => bytes.len(),
            Some(nested @ (Value::Array(_) | Value::KvList(_))) => nested.encoded_len(),
            Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => 0,
        };
        attributes.iter().map(|attribute| 16 + attribute.key.len() + length(attribute)).sum()
    };
    let events: usize = span.events.iter().map(|event| 32 + event.name.len() + texts(&event.attributes)).sum();
    let links: usize = span.links.iter().map(|link| 64 + texts(&link.attributes)).sum();
    (96 + span.name.len() + texts(&span.attributes) + events + links) as u64
}

#[cfg(test)]
mod tests;
