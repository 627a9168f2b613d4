//! The worker: takes records out of the ring, down the pipeline, into the journal, and on to the run store.
//!
//! One thread of our own. It polls, since waking a sleeping thread would cost the caller a system call a step, and it
//! traces nothing, since its own traffic must not come back to it.

mod attend;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prost::Message;

use super::run_ids::RunIds;
use super::window::{Part, Window, start_of};
use super::{Pipeline, facts};
use crate::error::with_causes;
use crate::journal::{FrameKind, JournalReader, JournalWriter, remove_oldest_segments};
use crate::model::id::IdSet;
use crate::model::otlp::{KeyValue, Resource, Span};
use crate::model::outcome::{Counts, LostRecords, Outcome};
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, StepKind, TraceId, UnixNanos, unknown};
use crate::sinks::keep::Board;
use crate::sinks::store::{Claimed, LATE, StoreSink};
use crate::sinks::tally::Tally;
use crate::sources::recorder::{RESOURCE_RECORD, Recorder};
use crate::sources::ring::{DropReason, Ring};
use crate::store::StoreError;
use crate::store::files::FilesWriter;

/// The reader of the journal that is the run store.
pub const STORE_READER: &str = "store";

const BUSY_POLL: Duration = Duration::from_millis(2);
/// A step shows within 100 ms of its start; this is half of that.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// How long records are taken in before runs are written out: they show while their process is busy, too.
const TURN: Duration = Duration::from_millis(30);
const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 512 << 10;
/// How often it is told which runs are under way.
const POST: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// What the worker is asked to do.
pub(crate) enum Command {
    /// Take in all that was recorded before this and answer.
    Flush(Sender<()>),
    /// The same, then end; the answer is what is under way still, which gives up at the moment given.
    Stop(Sender<Option<UnderWay>>, Instant),
    /// Go on with a run that waits and whose process is dead.
    Claim(RunId, Sender<Result<Claimed, StoreError>>),
    /// Let go of such a run, for another process to try.
    Unclaim(RunId),
}

/// What the worker has done so far, for those who ask.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    inner: RwLock<ProgressValues>,
}

/// A moment's values of [`Progress`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgressValues {
    /// Spans stored whole.
    pub stored: u64,
    /// Ended spans that are done with and not stored.
    pub passed: u64,
    /// Ended spans in the journal.
    pub journaled: u64,
    /// Records by outcome.
    pub counts: Counts,
    /// Ended spans that only the ring held and are in the journal, or lost, now.
    pub out_of_ring: u64,
    /// Runs that are not over.
    pub open_runs: usize,
    /// Journal or store cannot be written now.
    pub stuck: bool,
}

impl Progress {
    pub fn get(&self) -> ProgressValues {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, values: ProgressValues) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = values;
    }
}

/// Everything the worker owns.
pub(crate) struct Worker {
    pub recorder: Arc<Recorder>,
    pub pipeline: Pipeline,
    pub journal: JournalWriter,
    pub reader: JournalReader,
    pub sink: StoreSink<FilesWriter>,
    pub resource: Arc<Resource>,
    pub commands: Receiver<Command>,
    pub progress: Arc<Progress>,
    pub store_root: std::path::PathBuf,
    pub process: RunId,
    /// Bound of the journal on disk.
    pub journal_bytes: u64,
    /// Called with each run that is over and each outcome, for metrics.
    pub observer: Box<dyn Observer>,
    /// Readers whose positions keep segments.
    pub readers: Vec<String>,
    /// Those of them that lose their oldest frames when the journal is at its bound.
    pub behind: Vec<Arc<dyn Behind>>,
    /// Where those who choose what is forwarded learn of runs.
    pub board: Arc<Board>,
}

/// A reader of the journal that may be too far behind.
pub(crate) trait Behind: Send + Sync {
    /// Counts what the reader loses because everything before frame `first_left` is about to be removed.
    fn give_up_before(&self, first_left: u64);
}

/// Sees what was recorded as it is recorded; metrics are one.
pub(crate) trait Observer: Send {
    /// A run is over.
    fn run_over(&mut self, run: &Tally);
    /// Records with an outcome.
    fn records(&mut self, outcome: Outcome, reason: &str, n: u64);
    /// Nothing more comes: what was seen is sent on, in the background, until the deadline. `is_all`: every run of this
    /// process is over, and was seen.
    fn finish(&mut self, deadline: Instant, is_all: bool) -> Option<UnderWay>;
}

/// Waits for what was begun, until a moment, and says what became of it.
pub(crate) type UnderWay = Box<dyn FnOnce(Instant) + Send>;

/// Nobody looks.
pub(crate) struct NoObserver;

impl Observer for NoObserver {
    fn run_over(&mut self, _: &Tally) {}
    fn records(&mut self, _: Outcome, _: &str, _: u64) {}
    fn finish(&mut self, _: Instant, _: bool) -> Option<UnderWay> {
        None
    }
}

struct State {
    worker: Worker,
    resource_id: u32,
    /// Position in the ring up to which records are in the journal's buffer.
    taken: u64,
    /// Records that the journal has, on their way to the sink.
    batch: Vec<(u64, Record)>,
    /// Buffers that are used again and again.
    window: Window,
    payload: Vec<u8>,
    /// For those who are sent spans, if anybody is.
    run_ids: RunIds,
    journaled: u64,
    out_of_ring: u64,
    open_runs: usize,
    /// Records lost as far as they are counted, by reason.
    lost: [u64; DropReason::ALL.len()],
    /// Some of them are not noted in their runs yet.
    has_lost: bool,
    known_counts: Counts,
    observed: std::collections::BTreeMap<(Outcome, &'static str), u64>,
    /// The sink failed and must be told again from the journal, not before this moment.
    sink_retry: Option<Instant>,
    journal_retry: Option<Instant>,
    acknowledged: u64,
    committed: u64,
    warned: Warnings,
    housekeeping: Instant,
    /// When the board was told which runs are under way.
    posted: Instant,
    ear: attend::Ear,
}

/// What a turn found in the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// Nothing that could be taken.
    Nothing,
    /// Some, and there may be more.
    More,
    /// Everything.
    All,
}

#[derive(Default)]
struct Warnings {
    store: bool,
    upstream: bool,
    removed: bool,
}

impl Worker {
    /// Runs until told to stop.
    pub fn run(self) {
        let taken = self.recorder.ring().map_or(0, |ring| ring.tail_position());
        let mut state = State {
            resource_id: 0,
            taken,
            batch: Vec::new(),
            window: Window::default(),
            payload: Vec::new(),
            run_ids: RunIds::default(),
            journaled: 0,
            out_of_ring: 0,
            open_runs: 0,
            lost: Default::default(),
            has_lost: false,
            known_counts: Counts::default(),
            observed: std::collections::BTreeMap::new(),
            sink_retry: None,
            journal_retry: None,
            acknowledged: 0,
            committed: 0,
            warned: Warnings::default(),
            housekeeping: Instant::now(),
            posted: Instant::now(),
            ear: attend::Ear::new(&self.store_root),
            worker: self,
        };
        state.work();
    }
}

impl State {
    fn work(&mut self) {
        let mut pause = BUSY_POLL;
        loop {
            let drained = self.drain();
            self.settle();
            self.attend();
            self.prepare_ring();
            match self.worker.commands.try_recv() {
                Ok(Command::Flush(done)) => {
                    self.finish();
                    // The one who asked may have stopped waiting.
                    let _ = done.send(());
                    continue;
                }
                Ok(Command::Claim(run, done)) => {
                    let claimed = self.claim(run);
                    let _ = done.send(claimed);
                    continue;
                }
                Ok(Command::Unclaim(run)) => {
                    self.finish();
                    self.worker.sink.unclaim(run);
                    continue;
                }
                Ok(Command::Stop(done, deadline)) => {
                    self.finish();
                    self.attend();
                    self.forget_resource();
                    self.worker.sink.tally_rest();
                    self.settle();
                    self.worker.recorder.desk().close();
                    let under_way = self.worker.observer.finish(deadline, self.open_runs == 0 && !self.is_stuck());
                    // Nobody waits here for a peer: forwarders need the rest of the time, too.
                    let _ = done.send(under_way);
                    return;
                }
                Err(TryRecvError::Disconnected) => {
                    self.finish();
                    self.worker.recorder.desk().close();
                    return;
                }
                Err(TryRecvError::Empty) => {}
            }
            if self.housekeeping.elapsed() > HOUSEKEEPING {
                self.keep_house();
            }
            self.worker.recorder.clear_wake();
            pause = match drained {
                Drained::More => continue,
                Drained::All => BUSY_POLL,
                Drained::Nothing => (pause * 2).min(IDLE_POLL),
            };
            std::thread::park_timeout(pause);
        }
    }

    /// Takes in all that is in the ring now, and writes everything out.
    fn finish(&mut self) {
        (self.journal_retry, self.sink_retry) = (None, self.sink_retry.map(|_| Instant::now()));
        // What is recorded while this is going on is for the next one.
        let goal = self.worker.recorder.ring().map_or(0, |ring| ring.head_position());
        while self.taken < goal && self.drain() != Drained::Nothing {
            self.settle();
        }
        self.note_lost();
        if self.sink_retry.is_some() {
            self.catch_up();
        }
        if let Err(error) = self.worker.sink.flush_all() {
            self.sink_failed(&with_causes(&error));
        }
        self.open_runs = self.worker.sink.open_runs().len();
        self.posted = self.posted.checked_sub(POST).unwrap_or(self.posted);
        self.settle();
        // Whoever waits for this may be about to record the next burst.
        self.prepare_ring();
    }

    /// Moves records from the ring through the pipeline to journal and sink, those of one turn.
    fn drain(&mut self) -> Drained {
        if self.journal_retry.is_some_and(|at| Instant::now() < at) {
            return Drained::Nothing;
        }
        let recorder = Arc::clone(&self.worker.recorder);
        let Some(ring) = recorder.ring() else { return Drained::Nothing };
        let until = Instant::now() + TURN;
        let mut drained = Drained::Nothing;
        let mut window = std::mem::take(&mut self.window);
        loop {
            window.fill(ring, self.taken, BATCH_RECORDS, BATCH_BYTES);
            if window.is_empty() {
                break;
            }
            drained = Drained::All;
            let took_all = self.take_window(&window);
            self.commit();
            if !took_all {
                break;
            }
            if Instant::now() >= until || self.worker.sink.has_enough() {
                drained = Drained::More;
                break;
            }
        }
        window.shrink_to(2 * BATCH_BYTES);
        self.window = window;
        if self.journal_retry.is_some() { Drained::Nothing } else { drained }
    }

    /// Takes the records of a window in order; `false` when the journal has no room for one now.
    fn take_window(&mut self, window: &Window) -> bool {
        // Ends that were prepared for their starts, and how many records each tells.
        let mut ready: Vec<Option<(Record, u64)>> = std::iter::repeat_with(|| None).take(window.len()).collect();
        // The end that tells its start as well: until it is taken nothing is that it tells.
        let mut tells_all = None;
        for index in 0..window.len() {
            let (taken, bytes) = window.get(index);
            let took = match taken.part {
                Part::Within(end) => match &mut ready[end] {
                    Some((_, tells)) => {
                        *tells += 1;
                        true
                    }
                    None => self.take(taken.next, bytes),
                },
                Part::StartOf(end) => match self.prepare(window.get(end).1) {
                    Some(record) if window.has_nothing_between(index, end) && tells_its_start(&record.span) => {
                        tells_all = Some(end);
                        ready[end] = Some((record, 2));
                        true
                    }
                    Some(record) => {
                        let start = start_of(&record);
                        ready[end] = Some((record, 1));
                        self.put(taken.next, start, 1)
                    }
                    None => self.reject(bytes),
                },
                Part::Whole => match ready[index].take() {
                    Some((record, tells)) => self.put(taken.next, record, tells),
                    None => self.take(taken.next, bytes),
                },
            };
            if !took {
                return false;
            }
            if tells_all.is_none_or(|end| end <= index) {
                self.taken = taken.next;
            }
        }
        true
    }

    /// Takes one record; `false` when the journal has no room for it now.
    fn take(&mut self, position: u64, bytes: &[u8]) -> bool {
        if let Some(resource) = decode_resource(bytes) {
            // It stays in the ring until a record that carries it is in the journal: a crash between loses neither.
            (self.worker.resource, self.resource_id) = (Arc::new(resource), 0);
            return true;
        }
        match self.prepare(bytes) {
            Some(record) => self.put(position, record, 1),
            None => self.reject(bytes),
        }
    }

    /// Decodes a record and takes it down the line.
    fn prepare(&mut self, bytes: &[u8]) -> Option<Record> {
        let record = decode(bytes, &self.worker.resource)?;
        let mut record = self.worker.pipeline.run(record);
        if !self.worker.behind.is_empty() {
            self.run_ids.stamp(&mut record);
        }
        Some(record)
    }

    fn reject(&mut self, bytes: &[u8]) -> bool {
        self.count(Outcome::Rejected, "undecodable", 1);
        self.out_of_ring += u64::from(bytes.first() == Some(&(RecordKind::Ended as u8)));
        true
    }

    /// Appends a record to the journal; `false` when that has no room for it now. `tells`: how many records were made
    /// that this one tells, itself among them.
    fn put(&mut self, position: u64, record: Record, tells: u64) -> bool {
        if self.resource_id == 0 {
            // The resource passed the line with the record: what is written is scrubbed.
            let resource = unknown::encode_resource(&record.resource);
            self.resource_id = self.worker.journal.register_resource(&resource).unwrap_or(0);
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        encode(&record, &mut payload);
        let put = self.append(position, record, &payload, tells);
        if payload.capacity() <= 1 << 20 {
            self.payload = payload;
        }
        put
    }

    fn append(&mut self, position: u64, record: Record, payload: &[u8], tells: u64) -> bool {
        let kind = frame_kind(record.kind);
        loop {
            let mut appended = self.worker.journal.append(kind, self.resource_id, position, payload);
            if matches!(&appended, Err(error) if error.is_buffer_full()) {
                self.commit();
                appended = self.worker.journal.append(kind, self.resource_id, position, payload);
            }
            match appended {
                Ok(seq) => {
                    self.worker.sink.note_told(seq, tells);
                    self.batch.push((seq, record));
                    return true;
                }
                // Room was made at the cost of an upstream that lags behind: the store must not pay for it.
                Err(error) if error.is_full() && self.make_room() => {}
                Err(error) if error.is_temporary() => {
                    self.journal_failed(&error.to_string());
                    return false;
                }
                Err(error) => {
                    // This record can never be written; the next one may.
                    self.journal_failed(&error.to_string());
                    self.journal_retry = None;
                    self.lose(&record, DropReason::Journal, tells);
                    return true;
                }
            }
        }
    }

    /// Gives back the oldest segments of a journal at its bound that the store has taken in, an eighth of the bound at
    /// a time. Tells whether there was anything to give.
    fn make_room(&mut self) -> bool {
        self.commit();
        self.settle();
        let worker = &self.worker;
        let (root, process) = (&worker.store_root, worker.process.to_string());
        let made = give_back_oldest(root, &process, worker.journal_bytes, &worker.behind);
        if made && !std::mem::replace(&mut self.warned.upstream, true) {
            warn_of_bound(&self.worker.store_root);
        }
        // The journal looks for room again with each commit.
        made && self.worker.journal.commit().is_ok()
    }

    /// Has the next records put where there is memory already.
    fn prepare_ring(&mut self) {
        if let Some(ring) = self.worker.recorder.ring() {
            if self.batch.is_empty() {
                self.taken = ring.go_back(self.taken);
            }
            ring.grow_ahead();
        }
    }

    /// Frees a ring in which nothing but a resource is left: no record will want it any more.
    fn forget_resource(&self) {
        if let Some(ring) = self.worker.recorder.ring().filter(|_| self.batch.is_empty()) {
            ring.consume(self.taken);
        }
    }

    fn lose(&mut self, record: &Record, reason: DropReason, tells: u64) {
        let is_end = record.kind == RecordKind::Ended;
        if let Some(ring) = self.worker.recorder.ring() {
            let trace = TraceId::from_bytes(&record.span.trace_id).unwrap_or_default();
            ring.count_lost(reason, is_end, &trace.0);
            // Those that it would have told.
            (1..tells).for_each(|_| ring.count_lost(reason, false, &trace.0));
        }
        self.out_of_ring += u64::from(is_end);
    }

    fn count(&mut self, outcome: Outcome, reason: &'static str, n: u64) {
        self.known_counts.add(outcome, reason, n);
        self.worker.observer.records(outcome, reason, n);
    }

    /// Makes what was taken durable, gives its room in the ring back and hands it to the sink.
    fn commit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.worker.journal.commit() {
            Ok(committed) => self.committed = committed.seq,
            Err(error) if error.is_gone() => {
                // The store was removed under us: these records have nowhere to go.
                self.removed();
            }
            Err(error) => {
                // The frames wait in the journal's buffer, the records in the ring: nothing is lost until it is full.
                self.journal_failed(&error.to_string());
                self.journal_retry = Some(Instant::now() + RETRY);
                return;
            }
        }
        if let Some(ring) = self.worker.recorder.ring() {
            ring.consume(self.taken);
        }
        for (seq, record) in std::mem::take(&mut self.batch) {
            if record.kind == RecordKind::Ended {
                self.journaled += 1;
                self.out_of_ring += 1;
            }
            // While the sink is behind it is told from the journal, in order.
            if self.sink_retry.is_none()
                && let Err(error) = self.worker.sink.take(seq, record)
            {
                self.sink_failed(&with_causes(&error));
            }
        }
    }

    /// Writes runs out, moves the sink's position and publishes what was done.
    fn settle(&mut self) {
        self.note_lost();
        if self.sink_retry.is_some() {
            self.catch_up();
        } else if let Err(error) = self.worker.sink.flush(Instant::now()) {
            self.sink_failed(&with_causes(&error));
        }
        if self.sink_retry.is_none() {
            let done = self.worker.sink.oldest_held().map_or(self.committed, |held| held.saturating_sub(1));
            let worker = &mut self.worker;
            if done > self.acknowledged && worker.reader.acknowledge_handed(done, &worker.journal).is_ok() {
                self.acknowledged = done;
            }
        }
        for run in self.worker.sink.take_tallies() {
            self.worker.observer.run_over(&run);
        }
        let ended = self.worker.sink.take_ended();
        self.close_requests(&ended);
        self.post(&ended);
        self.publish();
    }

    /// Tells those who choose what is forwarded about runs: of ends at once, of what is under way now and then.
    fn post(&mut self, ended: &[crate::model::RunSummary]) {
        let board = &self.worker.board;
        if board.is_idle() {
            return;
        }
        // While the sink is in trouble it may know of an end that it has not told.
        let is_due = self.posted.elapsed() >= POST && self.sink_retry.is_none();
        if is_due {
            self.posted = Instant::now();
        }
        if is_due || !ended.is_empty() {
            let open = is_due.then(|| self.worker.sink.open_traces());
            board.post(ended, open, self.committed);
        }
    }

    /// Tells the observer how the sink's counts have grown.
    fn observe_counts(&mut self) {
        let counts = self.worker.sink.counts().by.clone();
        for (key, n) in counts {
            let seen = self.observed.entry(key).or_default();
            let grown = n - *seen;
            *seen = n;
            if grown > 0 {
                self.worker.observer.records(key.0, key.1, grown);
            }
        }
    }

    fn publish(&mut self) {
        self.observe_counts();
        let mut counts = self.worker.sink.counts().clone();
        for ((outcome, reason), n) in &self.known_counts.by {
            counts.add(*outcome, reason, *n);
        }
        self.worker.progress.set(ProgressValues {
            stored: self.worker.sink.stored_spans(),
            passed: self.worker.sink.passed_spans(),
            journaled: self.journaled,
            counts,
            out_of_ring: self.out_of_ring,
            open_runs: self.open_runs,
            stuck: self.is_stuck(),
        });
    }

    fn is_stuck(&self) -> bool {
        self.journal_retry.is_some() || self.sink_retry.is_some() || self.warned.removed
    }

    /// Tells the sink again from the journal what it has not taken in.
    fn catch_up(&mut self) {
        if self.sink_retry.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if let Err(error) = self.worker.sink.reset() {
            return self.sink_failed(&with_causes(&error));
        }
        self.worker.reader.rewind();
        loop {
            let batch = match self.worker.reader.next_batch(BATCH_BYTES) {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => batch,
                Err(error) => return self.sink_failed(&with_causes(&error)),
            };
            let sink = &mut self.worker.sink;
            let told = records_of(&batch).try_for_each(|(seq, record)| sink.take(seq, record));
            if let Err(error) = told.and_then(|()| self.worker.sink.flush(Instant::now())) {
                return self.sink_failed(&with_causes(&error));
            }
        }
        self.sink_retry = None;
    }

    /// Counts what was lost since the last look, and notes in the runs what they do not know yet.
    fn note_lost(&mut self) {
        let recorder = Arc::clone(&self.worker.recorder);
        let Some(ring) = recorder.ring() else { return };
        let mut has_grown = false;
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            let sum = ring.lost_in_all(reason);
            let grown = sum - std::mem::replace(&mut self.lost[place], sum);
            has_grown |= grown > 0;
            self.count(Outcome::Dropped, reason.as_str(), grown);
        }
        if has_grown || self.has_lost {
            let lost = ring.lost();
            self.has_lost = !lost.is_empty();
            lost.iter().for_each(|lost| self.note_in_run(ring, lost));
        }
    }

    /// Notes what was lost of one trace, and forgets it once that is written.
    fn note_in_run(&mut self, ring: &Ring, lost: &LostRecords) {
        let sink = &mut self.worker.sink;
        if !sink.has_run_of(lost.trace) {
            // Its run may have begun with what is lost, and show with what comes later.
            if UnixNanos::now().millis_since(lost.since) > LATE.as_millis() as u64 {
                ring.give_up_lost(lost);
            }
            return;
        }
        let lost = ring.close_lost(lost);
        if sink.note_lost(&lost) {
            ring.free_lost(&lost);
        }
    }

    fn journal_failed(&mut self, why: &str) {
        self.journal_retry = Some(Instant::now() + RETRY);
        self.warn_of_store(why);
    }

    fn sink_failed(&mut self, why: &str) {
        self.sink_retry = Some(Instant::now() + RETRY);
        self.warn_of_store(why);
    }

    /// Says once that the store cannot be written: a full disk meets journal and runs one after the other.
    fn warn_of_store(&mut self, why: &str) {
        if !std::mem::replace(&mut self.warned.store, true) {
            crate::telemetry::warn(format_args!(
                "cannot write to {}: {why}; what is recorded waits in the journal or in memory and is written when that \
                 works again, and what does not fit is dropped and counted",
                self.worker.store_root.display()
            ));
        }
    }

    fn removed(&mut self) {
        for (seq, record) in std::mem::take(&mut self.batch) {
            let tells = self.worker.sink.forget_told(seq);
            self.lose(&record, DropReason::StoreRemoved, tells);
        }
        if !std::mem::replace(&mut self.warned.removed, true) {
            crate::telemetry::warn(format_args!(
                "the store at {} was removed while it was in use; what is recorded from now on is lost and counted",
                self.worker.store_root.display()
            ));
        }
    }

    fn keep_house(&mut self) {
        self.housekeeping = Instant::now();
        if let Some(ring) = self.worker.recorder.ring() {
            ring.show_life();
        }
        let readers: Vec<&str> = self.worker.readers.iter().map(String::as_str).collect();
        let journal_dir = self.worker.store_root.join("journal");
        // Tried again in two seconds; a full journal is reported where it is written.
        let _ = crate::journal::remove_passed_segments(&journal_dir, &self.worker.process.to_string(), &readers);
    }
}

/// Gives back the oldest segments of a journal at its bound that the run store has taken in, an eighth of the bound, and
/// has those count what they lose who have not. Tells whether there was anything to give.
pub(crate) fn give_back_oldest(
    root: &std::path::Path,
    process: &str,
    journal_bytes: u64,
    behind: &[Arc<dyn Behind>],
) -> bool {
    let tell = |first_left| behind.iter().for_each(|reader| reader.give_up_before(first_left));
    let removed = remove_oldest_segments(&root.join("journal"), process, &[STORE_READER], journal_bytes / 8, tell);
    removed.is_ok_and(|bytes| bytes > 0)
}

/// Says that an upstream loses spans.
pub(crate) fn warn_of_bound(root: &std::path::Path) {
    crate::telemetry::warn(format_args!(
        "the journal in {} has reached its bound: an upstream is too far behind, and the oldest spans are no longer kept \
         for it; runs are stored all the same",
        root.display()
    ));
}

/// Returns the records in a batch of journal frames, with their places.
pub(crate) fn records_of(batch: &crate::journal::Batch) -> impl Iterator<Item = (u64, Record)> + '_ {
    // Those that stand together are of one maker, most often.
    let mut last: Option<(&Arc<[u8]>, Arc<Resource>)> = None;
    batch.frames().filter_map(move |frame| {
        let resource = match (frame.resource, &last) {
            (Some(bytes), Some((of, resource))) if Arc::ptr_eq(bytes, of) => Arc::clone(resource),
            (Some(bytes), _) => {
                let resource = Arc::new(unknown::decode_resource(&bytes[..]).unwrap_or_default());
                last = Some((bytes, Arc::clone(&resource)));
                resource
            }
            (None, _) => Arc::default(),
        };
        let record = decode_payload(record_kind(frame.kind)?, frame.payload, &resource)?;
        Some((frame.seq, record))
    })
}

/// Decodes a record of the ring that tells who makes the records after it.
pub(crate) fn decode_resource(bytes: &[u8]) -> Option<Resource> {
    let (&RESOURCE_RECORD, payload) = bytes.split_first()? else { return None };
    Resource::decode(payload).ok()
}

/// Decodes a record of the ring: its kind, then a `ScopeSpans` with one span.
pub(crate) fn decode(bytes: &[u8], resource: &Arc<Resource>) -> Option<Record> {
    let (kind, payload) = bytes.split_first()?;
    decode_told(RecordKind::from_u8(*kind)?, payload, resource)
}

/// Decodes what a source told: a `ScopeSpans` with one span.
pub(crate) fn decode_told(kind: RecordKind, payload: &[u8], resource: &Arc<Resource>) -> Option<Record> {
    let mut record = decode_payload(kind, payload, resource)?;
    keep_last_of_each(&mut record.span.attributes);
    Some(record)
}

/// A field that is recorded again replaces what it said before: OTLP wants every key once.
fn keep_last_of_each(attributes: &mut Vec<KeyValue>) {
    /// Up to so many are compared with each other, most by their lengths alone.
    const FEW: usize = 24;
    let is_said_before = |place: usize| attributes[..place].iter().any(|other| other.key == attributes[place].key);
    if attributes.len() <= FEW && !(1..attributes.len()).any(is_said_before) {
        return;
    }
    let mut seen: IdSet<&str> = HashSet::with_capacity_and_hasher(attributes.len(), Default::default());
    let kept: Vec<bool> = attributes.iter().rev().map(|attribute| seen.insert(attribute.key.as_str())).collect();
    if kept.contains(&false) {
        let mut kept = kept.into_iter().rev();
        attributes.retain(|_| kept.next().unwrap_or(true));
    }
}

fn decode_payload(kind: RecordKind, payload: &[u8], resource: &Arc<Resource>) -> Option<Record> {
    let (scope, span) = unknown::decode_one(payload)?;
    Some(Record { kind, resource: Arc::clone(resource), scope, span })
}

/// Appends a record as the payload of a journal frame: a `ScopeSpans` with one span.
pub(crate) fn encode(record: &Record, payload: &mut Vec<u8>) {
    unknown::encode_one(&record.scope, &record.span, payload);
}

/// Returns the journal's frame kind of a record.
pub(crate) fn frame_kind(kind: RecordKind) -> FrameKind {
    FrameKind::from_number(kind as u8)
}

/// Tells whether the end of a step may tell its start as well, where nothing else happened between them. What makes or finds a run is
/// told by itself, as where spans of agents have no starts their tellers have none.
fn tells_its_start(span: &Span) -> bool {
    !span.parent_span_id.is_empty()
        && span.links.is_empty()
        && !matches!(facts::kind(span), StepKind::Agent | StepKind::Workflow)
}

fn record_kind(kind: FrameKind) -> Option<RecordKind> {
    kind.record()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conventions::names;
    use crate::model::otlp::{AnyValue, Link, Value};

    #[test]
    fn what_is_recorded_last_under_a_key_stays() {
        let attribute = |key: &str, value: i64| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::Int(value)) }),
        };
        let mut attributes = vec![attribute("a", 1), attribute("b", 2), attribute("a", 3), attribute("c", 4)];
        keep_last_of_each(&mut attributes);
        assert_eq!(attributes, [attribute("b", 2), attribute("a", 3), attribute("c", 4)]);
        // However many there are.
        let mut many: Vec<KeyValue> = (0..40).map(|n| attribute(&format!("{}", n % 30), n)).collect();
        keep_last_of_each(&mut many);
        let expected: Vec<KeyValue> = (10..40).map(|n| attribute(&format!("{}", n % 30), n)).collect();
        assert_eq!(many, expected);
        keep_last_of_each(&mut many);
        assert_eq!(many, expected);
    }

    #[test]
    fn an_end_tells_its_start_where_that_makes_and_finds_no_run() {
        let called = |operation: &str| {
            let mut span = Span { parent_span_id: vec![3; 8], name: "step".to_owned(), ..Span::default() };
            span.set_attr(names::OPERATION, operation);
            span
        };
        assert!(tells_its_start(&called("chat")));
        assert!(tells_its_start(&called("execute_tool")));
        assert!(!tells_its_start(&called("invoke_agent")));
        assert!(!tells_its_start(&called("invoke_workflow")));
        assert!(!tells_its_start(&Span { parent_span_id: Vec::new(), ..called("chat") }));
        assert!(!tells_its_start(&Span { links: vec![Link::default()], ..called("chat") }));
    }
}
