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
use crate::model::outcome::{Counts, LostRecords};
use crate::model::{Event, RunId, RunStatus, RunSummary, SpanId, TraceId, UnixNanos};
use crate::pipeline::cost::Pricer;
use crate::sinks::tally::Tally;
use crate::store::assembly::{DROPPED_LOG, RunState, status_body};
use crate::store::files::layout::Recorded;
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
/// Traces of runs that are over that are remembered for what comes late, some 25 MB: those of over a minute at 40,000 spans
/// a second in traces of ten.
pub(crate) const TRACES_AT_HAND: usize = 262_144;
/// Runs that wait for that of a trace they name as their cause, at most.
const LINKS_AWAITED: usize = 4_096;
/// How long a finished trace is held with its spans for late ones.
pub(crate) const LATE: Duration = Duration::from_secs(60);
/// How long parents are waited for of steps that all lie within a span without a parent, which has ended.
const WITHIN: Duration = Duration::from_secs(10);
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
mod awaited;
mod beside;
mod homes;
mod ids;
mod letting_go;
mod live;
mod moving;
mod outside;
mod settle;
mod taking_up;
mod telling;

pub(crate) use asked::{Claimed, Standing};
use awaited::Awaited;
use beside::Conversations;
use ids::event_id;
pub use ids::foreign_run_id;
use live::{EventIds, Forgotten, LiveRun, Said};
use moving::{Claim, Move};

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
    /// What was there of them, by those in their place.
    elsewhere: IdMap<RunId, Elsewhere>,
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
    /// Which traces become runs.
    recorded: Recorded,
    /// Prices calls of which logs tell more than their spans did.
    pricer: Pricer,
    /// Runs that are over and let go of, by trace: what still comes finds them.
    over: IdMap<TraceId, RunId>,
    /// Further ones of the same traces.
    over_beside: IdMap<TraceId, Vec<RunId>>,
    /// The traces of `over`, the latest last.
    over_since: VecDeque<TraceId>,
    /// Runs that name a trace as their cause of which no run is known yet.
    awaiting_links: Awaited,
    /// Runs that were caused by one of a trace, by that.
    caused: Awaited,
    /// So often it was noted what waits, since that was written as a whole.
    noted_links: usize,
    /// The disk may have lost what was written: what is taken up is written once more.
    is_distrustful: bool,
    /// So is what records up to this place belong to.
    again_up_to: u64,
    /// The writer holds runs back, to write them with others.
    is_holding: bool,
    conversations: Conversations,
    /// Steps that are to be in another run.
    claims: Vec<Claim>,
    /// Steps that are in two runs.
    moves: Vec<Move>,
    /// Runs that spans name which are held, with their traces: whichever of these shows that there is such a run, it has them all.
    named: IdMap<RunId, Vec<TraceId>>,
}

/// A run that another process writes.
#[derive(Debug)]
struct Elsewhere {
    run: RunId,
    trace: TraceId,
    /// Its steps that had ended when it was looked at: they are not told in another run once more.
    ended: IdSet<SpanId>,
}

#[derive(Debug, Default)]
struct Trace {
    spans: IdMap<SpanId, RunId>,
    /// Spans above those that name their run, before they have come, and these runs: who does not name such a run itself is
    /// above it, and not of it.
    above: IdMap<SpanId, Vec<RunId>>,
    /// The run of what names none, and is below nothing.
    own: Option<RunId>,
    /// Runs that have a topmost step.
    tops: Vec<RunId>,
    /// Parents that have not come, of spans which do not name their run, with the runs to which those went.
    orphans: IdMap<SpanId, Vec<RunId>>,
    /// Spans that logs alone have told of: those did not know better than the trace whose run they are.
    by_logs: IdSet<SpanId>,
    /// The first run: of a process that records itself, what names none and whose parent is not known goes there.
    first_run: Option<RunId>,
    /// It was looked for runs of it that are over.
    is_recalled: bool,
    /// Another process writes its run, or the store cannot be written there, and ours stands in its place.
    is_shared: bool,
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
    /// There may be some that wait for spans of their conversation.
    has_steps_of_logs: bool,
}

#[derive(Debug)]
struct HeldRecord {
    seq: u64,
    /// How many bytes had been told before it.
    told_bytes: u64,
    said: Box<Said>,
    since: Instant,
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
            elsewhere: HashMap::default(),
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
            recorded: Recorded::default(),
            pricer: Pricer::new(),
            over: HashMap::default(),
            over_beside: HashMap::default(),
            over_since: VecDeque::new(),
            awaiting_links: Awaited::default(),
            caused: Awaited::default(),
            noted_links: 0,
            is_distrustful: false,
            again_up_to: 0,
            is_holding: false,
            conversations: Conversations::default(),
            claims: Vec::new(),
            moves: Vec::new(),
            named: HashMap::default(),
        }
    }

    /// Prices with another pricer what logs tell, one with the user's own prices say.
    #[must_use]
    pub fn with_pricer(self, pricer: Pricer) -> Self {
        Self { pricer, ..self }
    }

    /// Makes runs of the traces that a store is to have.
    #[must_use]
    pub fn recording(self, recorded: Recorded) -> Self {
        Self { recorded, ..self }
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

    /// Lets every run here say again what it is, with the next flush, whether that has changed or not.
    pub(crate) fn republish(&mut self) {
        for (run, live) in self.runs.iter_mut().filter(|(_, live)| live.state.has_started()) {
            live.stale_summary = true;
            self.dirty.insert(*run);
        }
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
        self.copy_claimed()?;
        let process = self.process;
        let mut first_error = None;
        self.unwritten = (0, self.told_bytes);
        let dirty = std::mem::take(&mut self.dirty);
        let in_motion = self.in_motion();
        for run in dirty {
            let Some(live) = self.runs.get_mut(&run) else { continue };
            if !all && live.is_fresh(now) {
                self.dirty.insert(run);
                continue;
            }
            live.flush_pending(process, Some(now));
            self.tell_new(run);
            let Some(live) = self.runs.get_mut(&run) else { continue };
            if self.outside.is_some() && !in_motion.contains(&run) {
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
                // At once: many may end together, and each has its log open.
                self.release_finished();
            }
        }
        self.release_finished();
        match self.writer.write_held(all) {
            Ok(is_all) => self.is_holding = !is_all,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
        if let Some(silence) = self.outside.filter(|_| now.saturating_duration_since(self.looked_at) > LOOK) {
            self.looked_at = now;
            // What only logs tell of is not waited for as long.
            self.end_silent(|live| {
                let quiet = now.saturating_duration_since(live.touched);
                quiet >= silence
                    || quiet >= WITHIN && live.state.awaits_within()
                    || quiet >= LATE && live.state.awaits_only(&live.calls_of_logs)
            });
            if let Err(error) = self.give_up_held(now, silence).and_then(|()| self.delete_left(Some(now))) {
                first_error.get_or_insert(error);
            }
        }
        if now.saturating_duration_since(self.forgotten_at) > LATE / 4 {
            self.forgotten_at = now;
            self.forget_finished(now);
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Writes out everything, grace or not; for the end of the process.
    pub fn flush_all(&mut self) -> Result<(), StoreError> {
        let process = self.process;
        if self.outside.is_some() {
            // Nobody may come who would wait for longer.
            self.let_steps_of_logs_stand(Instant::now(), Duration::ZERO)?;
        }
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

    /// Holds a run until that of the trace that it names as its cause has begun. Of too many that wait, the first wait no longer.
    fn await_link(&mut self, trace: TraceId, run: RunId) {
        if self.awaiting_links.add(trace, run) {
            self.note_link(trace, Some(run));
        }
    }

    /// Notes for the next process what waits, or waits no more; of what cannot be noted that does not know.
    fn note_link(&mut self, trace: TraceId, run: Option<RunId>) {
        if self.outside.is_none() {
            return;
        }
        let _ = self.writer.note_link(trace, run);
        self.noted_links += 1;
        if self.noted_links > 2 * LINKS_AWAITED {
            let _ = self.writer.replace_links(&self.awaiting_links.all());
            self.noted_links = 0;
        }
    }

    /// Looks again at the runs that wait for this one, which has just begun.
    fn tell_linked(&mut self, run: RunId) {
        let Some(trace) = self.runs.get(&run).map(|live| live.state.trace_id()) else { return };
        let waiting = self.awaiting_links.take(trace);
        if !waiting.is_empty() {
            self.note_link(trace, None);
        }
        self.look_for_causes(waiting);
    }

    /// Looks again which run caused each of these.
    fn look_for_causes(&mut self, runs: Vec<RunId>) {
        for run in runs {
            if !self.runs.contains_key(&run) {
                // What cannot be opened now stays without its parent.
                let _ = self.open_run(run, run.as_trace_id(), None);
            }
            if let Some(live) = self.runs.get_mut(&run).filter(|live| live.state.has_started()) {
                live.unsettled = true;
                self.dirty.insert(run);
            }
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

#[cfg(test)]
mod tests;
