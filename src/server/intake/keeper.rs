//! Takes what is in the journal into the run store, and gives it up there once it lasts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::io::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::super::identity::{AtEnd, is_served};
use super::{Bell, RETRY, Tally};
use crate::error::with_causes;
use crate::journal::{Durability, JournalReader};
use crate::model::outcome::Outcome;
use crate::pipeline::worker::{Observer, UnderWay, records_of};
use crate::sinks::keep::Board;
use crate::sinks::store::StoreSink;
use crate::store::StoreError;
use crate::store::files::FilesWriter;
use crate::store::files::layout::Layout;
use crate::telemetry::warn;

/// The store takes so many bytes of the journal at a time.
const BATCH_BYTES: usize = 1 << 20;
/// How long the store sleeps when nothing comes: runs become due with time, too.
const IDLE: Duration = Duration::from_millis(50);
/// The store lags when so many frames wait for it: a tenth of a second of its work, or more.
const LAGS: u64 = 4096;
/// How often it is told which runs are under way.
const POST: Duration = Duration::from_millis(100);
/// How long the last metrics may take.
const LAST_METRICS: Duration = Duration::from_secs(2);
/// So often in a row it is begun again at once where another process was faster to make runs: each time it is known of more of them.
const OVERTAKEN: u32 = 100;
/// How often what is written is brought to the disk, and the journal gives it up.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// The same where steps are in two runs.
const SOON: Duration = Duration::from_millis(200);

/// Takes what is in the journal into the run store.
pub(super) struct Keeper {
    pub(super) reader: JournalReader,
    pub(super) sink: StoreSink<FilesWriter>,
    pub(super) disk: Disk,
    pub(super) tally: Arc<Tally>,
    pub(super) bell: Arc<Bell>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) root: PathBuf,
    pub(super) process: String,
    pub(super) durability: Durability,
    /// Up to here the sink was told.
    pub(super) told: u64,
    /// What a server before has left in the journal: up to where it was counted as received, and up to where it goes.
    pub(super) left: (u64, u64),
    /// Up to here runs are written; brought to the disk before the journal gives it up.
    pub(super) done: u64,
    /// The store failed, and is told again from the journal at this moment.
    pub(super) retry: Option<Instant>,
    /// How often in a row another process was faster.
    pub(super) overtaken: u32,
    pub(super) housekeeping: Instant,
    pub(super) warned: bool,
    /// Whose positions keep segments.
    pub(super) readers: Vec<String>,
    pub(super) board: Arc<Board>,
    /// When the board was told which runs are under way.
    pub(super) posted: Instant,
    pub(super) observers: Vec<Box<dyn Observer>>,
    /// What the observers know of the sink's counts.
    pub(super) observed: BTreeMap<(Outcome, &'static str), u64>,
    pub(super) layout: Layout,
    pub(super) at_end: AtEnd,
}

impl Keeper {
    pub(super) fn work(mut self) {
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let took = self.turn(stopping);
            let since = self.housekeeping.elapsed();
            let is_due = since > HOUSEKEEPING || (since > SOON && self.sink.has_moves());
            if is_due || self.tally.wants_room.swap(false, Ordering::Relaxed) {
                self.keep_house();
            }
            if stopping && !took {
                let is_over = match self.at_end {
                    AtEnd::LeftOpen => false,
                    AtEnd::Over => true,
                    AtEnd::OverBesideServer => is_served(&self.layout, &self.process),
                };
                if is_over && self.retry.is_none() && !self.end_runs() {
                    continue;
                }
                self.keep_house();
                // Whoever goes on does not know which these are.
                if self.retry.is_none()
                    && let Err(error) = self.sink.delete_left(None)
                {
                    self.failed(&with_causes(&error));
                }
                self.sink.tally_rest();
                self.tell_observers();
                let until = Instant::now() + LAST_METRICS;
                let under_way: Vec<UnderWay> =
                    self.observers.iter_mut().filter_map(|observer| observer.finish(until, true)).collect();
                under_way.into_iter().for_each(|last| last(until));
                return;
            }
            if !took {
                self.bell.wait(IDLE);
            }
        }
    }

    /// Ends the runs that are still under way: nothing more of them will come. `false` where another process was faster to make one, and it is
    /// to be done again.
    fn end_runs(&mut self) -> bool {
        let (disk, durability, mut has_failed) = (&mut self.disk, self.durability, false);
        let closed = self.sink.close_all(|| match durability {
            Durability::Process => Ok(()),
            Durability::Power => disk.sync_now().inspect_err(|_| has_failed = true),
        });
        if let Err(error) = closed {
            if has_failed {
                self.sink.distrust_disk();
            }
            return !self.is_overtaken_by(&error);
        }
        self.tally.runs_ended.store(true, Ordering::Relaxed);
        self.done = self.told;
        if self.durability == Durability::Process {
            self.acknowledge();
        }
        self.tell_observers();
        self.publish();
        true
    }

    /// Takes an error of the run store: where another process was faster to make a run, it is told anew at once, and finds that one. Else the
    /// store has failed.
    fn is_overtaken_by(&mut self, error: &StoreError) -> bool {
        if !error.is_overtaken() || self.overtaken >= OVERTAKEN {
            self.failed(&with_causes(error));
            return false;
        }
        self.overtaken += 1;
        self.retry = Some(Instant::now());
        true
    }

    /// Takes one batch; was there anything, or is it to be done again? `all`: whatever waits for more to come is written too.
    fn turn(&mut self, all: bool) -> bool {
        if self.retry.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        if self.retry.take().is_some() {
            if let Err(error) = self.sink.reset() {
                self.failed(&with_causes(&error));
                return false;
            }
            self.reader.rewind();
        }
        let batch = match self.reader.next_batch_up_to(self.tally.committed.last(), BATCH_BYTES) {
            Ok(batch) => batch,
            Err(error) => {
                self.failed(&with_causes(&error));
                return false;
            }
        };
        let told = records_of(&batch).try_for_each(|(seq, record)| {
            if seq > self.left.0 && seq <= self.left.1 {
                // It is counted here what becomes of it.
                self.left.0 = seq;
                self.tally.received.fetch_add(1, Ordering::Relaxed);
                self.tally.journaled.fetch_add(1, Ordering::Relaxed);
            }
            self.sink.take(seq, record)
        });
        let is_last = all && batch.is_empty();
        let written = told.and_then(|()| if is_last { self.sink.flush_all() } else { self.sink.flush(Instant::now()) });
        if let Err(error) = written {
            return self.is_overtaken_by(&error);
        }
        self.overtaken = 0;
        self.tally.store_stuck.store(false, Ordering::Relaxed);
        self.warned = false;
        self.told = self.told.max(batch.last_seq());
        let waiting = self.tally.committed.last().saturating_sub(self.told);
        self.tally.store_lags.store(waiting > LAGS, Ordering::Relaxed);
        if !self.sink.is_holding() {
            self.done = self.sink.oldest_held().map_or(batch.last_seq(), |held| held.saturating_sub(1));
        }
        if self.durability == Durability::Process {
            self.finish_moves();
            self.acknowledge();
        }
        self.post();
        self.tell_observers();
        self.publish();
        let is_any = !batch.is_empty();
        if !is_any {
            self.tally.has_caught_up.store(true, Ordering::Release);
        }
        self.reader.reuse(batch);
        is_any
    }

    /// Takes steps out of runs that were copied to others, where those last.
    fn finish_moves(&mut self) {
        if let Err(error) = self.sink.finish_moves() {
            self.failed(&with_causes(&error));
        }
    }

    fn acknowledge(&mut self) {
        if let Err(error) = self.reader.acknowledge(self.done) {
            self.failed(&with_causes(&error));
        }
    }

    /// Tells those who choose what is forwarded about runs: of ends at once, of what is under way now and then.
    fn post(&mut self) {
        let ended = self.sink.take_ended();
        let is_due = self.posted.elapsed() >= POST;
        if self.board.is_idle() || (!is_due && ended.is_empty()) {
            return;
        }
        if is_due {
            self.posted = Instant::now();
        }
        let open = is_due.then(|| self.sink.open_traces());
        self.board.post(&ended, open, self.told);
    }

    /// Tells of runs that are over, and how counts have grown.
    fn tell_observers(&mut self) {
        if self.observers.is_empty() {
            return;
        }
        for run in self.sink.take_tallies() {
            self.observers.iter_mut().for_each(|observer| observer.run_over(&run));
        }
        let mut counts = self.sink.counts().clone();
        for ((outcome, reason), n) in &self.tally.counts.lock().unwrap_or_else(PoisonError::into_inner).1.by {
            counts.add(*outcome, reason, *n);
        }
        for ((outcome, reason), n) in counts.by {
            let seen = self.observed.entry((outcome, reason)).or_default();
            let grown = n.saturating_sub(std::mem::replace(seen, n));
            if grown > 0 {
                self.observers.iter_mut().for_each(|observer| observer.records(outcome, reason, grown));
            }
        }
    }

    fn publish(&self) {
        self.tally.counts.lock().unwrap_or_else(PoisonError::into_inner).0 = self.sink.counts().clone();
    }

    fn failed(&mut self, why: &str) {
        self.retry = Some(Instant::now() + RETRY);
        self.tally.store_stuck.store(true, Ordering::Relaxed);
        if !std::mem::replace(&mut self.warned, true) {
            warn(format_args!(
                "cannot write runs to {}: {why}; what was acknowledged waits in the journal",
                self.root.display()
            ));
        }
    }

    fn keep_house(&mut self) {
        self.housekeeping = Instant::now();
        if (self.done > self.reader.acknowledged() || self.sink.has_moves()) && self.retry.is_none() {
            match self.disk.sync() {
                Ok(true) => {
                    self.finish_moves();
                    self.acknowledge();
                }
                Ok(false) => {}
                Err(error) => {
                    // That the next sync works says nothing about what was written before this one.
                    self.sink.distrust_disk();
                    self.failed(&error.to_string());
                }
            }
        }
        let journal = self.root.join("journal");
        let readers: Vec<&str> = self.readers.iter().map(String::as_str).collect();
        // Tried again in two seconds; a full journal is reported where it is written.
        let _ = crate::journal::remove_passed_segments(&journal, &self.process, &readers);
    }
}

/// The file system of the store. It is open all the time: what goes wrong before somebody opens it, others may have been
/// told of, and it is not told again.
pub(super) struct Disk {
    root: PathBuf,
    dir: Option<File>,
}

impl Disk {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { dir: File::open(&root).ok(), root }
    }

    /// Brings everything written to the disk: one call for thousands of runs. `false` where it cannot be asked for now.
    fn sync(&mut self) -> io::Result<bool> {
        if self.dir.is_none() {
            self.dir = File::open(&self.root).ok();
        }
        let Some(dir) = &self.dir else { return Ok(false) };
        // SAFETY: a plain system call on an open directory.
        match unsafe { libc::syncfs(dir.as_raw_fd()) } {
            0 => Ok(true),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The same, where it is needed before anything else may be done.
    fn sync_now(&mut self) -> Result<(), StoreError> {
        let synced =
            self.sync().and_then(|is_synced| is_synced.then_some(()).ok_or_else(|| io::ErrorKind::NotFound.into()));
        synced.map_err(StoreError::io("sync", &self.root))
    }
}
