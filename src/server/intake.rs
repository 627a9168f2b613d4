//! Where acknowledged spans go: one thread appends to the journal, by group commit, and one takes them from there into
//! the run store.
//!
//! A request waits for its own commit and for nothing else. While one commit is on its way to the disk, the requests
//! that come meanwhile wait together for the next one. The store reads the journal at its own pace, as it does after a
//! crash: there is no other way in. When the journal is at its bound, requests are told to come again later.

mod committer;
mod keeper;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::committer::Committer;
use self::keeper::{Disk, Keeper};
use super::identity::Identity;
use super::upstreams::Outlets;
use crate::error::Error;
use crate::journal::{FrameKind, MAX_PAYLOAD_BYTES};
use crate::model::UnixNanos;
use crate::model::outcome::Counts;
use crate::priority;
use crate::telemetry::warn;

/// After so long what has failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Records that are ready for the journal.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    frames: Vec<Frame>,
    /// One behind the other.
    payloads: Vec<u8>,
    /// What the resources of the frames take in memory, each counted once.
    pub resource_bytes: usize,
    /// They came from outside, and are counted as received when they are in the journal.
    pub is_received: bool,
    /// What came with them and gets no further, by what became of it: counted when they are taken, since who is refused comes
    /// again with all of it.
    pub aside: Counts,
}

#[derive(Debug)]
struct Frame {
    kind: FrameKind,
    /// An encoded OTLP `Resource`.
    resource: Arc<[u8]>,
    /// Where its payload ends.
    end: usize,
}

impl Prepared {
    /// Makes room for about so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        Self { payloads: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds a record, of which `write` appends the payload. `false` where that or its resource fits into no frame, and the record is
    /// left out.
    pub fn add(&mut self, kind: FrameKind, resource: Arc<[u8]>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let begin = self.payloads.len();
        write(&mut self.payloads);
        if self.payloads.len() - begin > MAX_PAYLOAD_BYTES || resource.len() > MAX_PAYLOAD_BYTES {
            self.payloads.truncate(begin);
            return false;
        }
        self.frames.push(Frame { kind, resource, end: self.payloads.len() });
        true
    }

    fn records(&self) -> impl Iterator<Item = (FrameKind, &[u8], &[u8])> {
        let mut begin = 0;
        self.frames.iter().map(move |frame| {
            let payload = &self.payloads[std::mem::replace(&mut begin, frame.end)..frame.end];
            (frame.kind, &*frame.resource, payload)
        })
    }

    fn spans(&self) -> u64 {
        self.frames.iter().filter(|frame| frame.kind != FrameKind::Metrics).count() as u64
    }

    /// Returns what it takes in memory.
    pub fn bytes_in_memory(&self) -> usize {
        self.payloads.len() + self.frames.len() * size_of::<Frame>() + self.resource_bytes
    }

    fn bytes(&self) -> usize {
        self.payloads.len() + self.frames.iter().map(|frame| frame.resource.len()).sum::<usize>()
    }
}

/// Why records were not acknowledged. All of them pass: the sender is told to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The journal is at its bound.
    Full,
    /// The journal cannot be written now.
    Unwritable,
    /// The server is about to end.
    Ending,
}

struct Job {
    records: Prepared,
    done: oneshot::Sender<Result<(), Refused>>,
}

/// When what was written to the journal: enough to tell how long the oldest of it has waited.
#[derive(Debug, Default)]
pub(super) struct Committed {
    last: AtomicU64,
    /// Frames up to a number, and when the first behind the entry before was written; thinned out where there are many.
    moments: Mutex<VecDeque<(u64, UnixNanos)>>,
}

impl Committed {
    /// Moments further apart than this are told apart.
    const STEP_MS: u64 = 250;
    const MOST: usize = 4096;

    /// Notes that frames up to `seq` were written at `now`.
    pub fn note(&self, seq: u64, now: UnixNanos) {
        self.last.store(seq, Ordering::Relaxed);
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        match moments.back_mut() {
            Some((last, since)) if *last >= seq || now.millis_since(*since) < Self::STEP_MS => *last = seq.max(*last),
            _ => moments.push_back((seq, now)),
        }
        if moments.len() > Self::MOST {
            // Of two neighbours the older one says for both since when.
            let pairs: Vec<_> = moments.drain(..).collect();
            moments.extend(pairs.chunks(2).filter_map(|pair| Some((pair.last()?.0, pair.first()?.1))));
        }
    }

    /// Returns the number of the last frame.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Returns when the first frame behind `seq` was written, not before it.
    pub fn oldest_after(&self, seq: u64) -> Option<UnixNanos> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.iter().find(|(last, _)| *last > seq).map(|(_, since)| *since)
    }
}

/// What has become of records, for those who ask.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Spans in requests that were taken, broken ones too, and those that have come into the journal otherwise: with a request that
    /// was refused midway, or by a server before.
    pub received: AtomicU64,
    /// How far the journal is.
    pub committed: Committed,
    /// Spans in acknowledged requests.
    pub journaled: AtomicU64,
    /// The journal cannot be written, or is full.
    pub journal_stuck: AtomicBool,
    /// The run store cannot be written.
    pub store_stuck: AtomicBool,
    /// Nobody else will go on with this process's runs: all of them were ended.
    pub runs_ended: AtomicBool,
    /// It has read all there was, once at least.
    pub has_caught_up: AtomicBool,
    /// More waits for it than comes between two looks.
    pub store_lags: AtomicBool,
    /// The threads that write them are there no more, as they should never be.
    pub journal_dead: AtomicBool,
    pub store_dead: AtomicBool,
    /// The journal is full, and wants the run store to be done with what it has.
    wants_room: AtomicBool,
    /// By outcome, as the store has them, and what was rejected before.
    counts: Mutex<(Counts, Counts)>,
    /// Requests that were refused whole, by reason.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Counts a request that was refused whole.
    pub fn refuse(&self, reason: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// Returns how many requests were refused whole, by reason.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what became of records, as far as the store has them.
    pub fn counts(&self) -> Counts {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = counts.0.clone();
        for ((outcome, reason), n) in &counts.1.by {
            all.add(*outcome, reason, *n);
        }
        all
    }

    /// Counts spans that came and got no further.
    fn count_aside(&self, aside: &Counts) {
        let n: u64 = aside.by.values().sum();
        if n == 0 {
            return;
        }
        self.received.fetch_add(n, Ordering::Relaxed);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for ((outcome, reason), n) in &aside.by {
            counts.1.add(*outcome, reason, *n);
        }
    }
}

/// Tells the store's thread that there is something to read.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(rung, limit, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// The way into the journal, for requests.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    jobs: Sender<Job>,
    pub tally: Arc<Tally>,
}

impl Intake {
    /// Appends records and waits until they are as durable as was asked for.
    pub async fn append(&self, records: Prepared) -> Result<(), Refused> {
        if records.frames.is_empty() {
            self.tally.count_aside(&records.aside);
            return Ok(());
        }
        let n = records.spans();
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { records, done }).map_err(|_| Refused::Ending)?;
        let answer = answer.await.unwrap_or(Err(Refused::Ending));
        if answer.is_ok() {
            self.tally.journaled.fetch_add(n, Ordering::Relaxed);
        }
        answer
    }
}

/// The two threads behind the intake.
#[derive(Debug)]
pub(super) struct Threads {
    journal: JoinHandle<()>,
    store: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// Starts both threads.
///
/// # Errors
///
/// When the system gives no thread.
pub(super) fn start(identity: Identity, silence: Duration) -> Result<(Intake, Threads), Error> {
    let Identity { layout, process, journal, reader, mut sink, durability, at_end, outlets } = identity;
    let Outlets { readers, behind, board, observers, journal_bytes } = outlets;
    if !observers.is_empty() {
        sink = sink.with_tallies();
    }
    sink.take_from_outside(silence);
    let (jobs, queue) = mpsc::channel();
    let tally = Arc::new(Tally::default());
    let left_up_to = journal.committed_seq();
    // What is there from before has waited since it was written last, at least.
    tally.committed.note(journal.committed_seq(), journal_time(layout.root(), &process.to_string()));
    let (bell, stop) = (Arc::new(Bell::default()), Arc::new(AtomicBool::new(false)));
    let root = layout.root().to_owned();
    let committer = Committer {
        journal,
        bell: Arc::clone(&bell),
        tally: Arc::clone(&tally),
        root: root.clone(),
        process: process.to_string(),
        journal_bytes,
        behind,
        uncommitted: 0,
        warned: false,
        warned_of_bound: false,
    };
    let keeper = Keeper {
        reader,
        sink,
        disk: Disk::new(root.clone()),
        tally: Arc::clone(&tally),
        bell: Arc::clone(&bell),
        stop: Arc::clone(&stop),
        root,
        process: process.to_string(),
        retry: None,
        overtaken: 0,
        durability,
        told: 0,
        left: (0, left_up_to),
        done: 0,
        housekeeping: Instant::now(),
        warned: false,
        readers,
        board,
        posted: Instant::now(),
        observers,
        observed: BTreeMap::new(),
        layout,
        at_end,
    };
    let hold = committer.journal.hold();
    let journal = spawn("journal", &tally, |tally| &tally.journal_dead, move || committer.work(&queue))?;
    let store = spawn(
        "store",
        &tally,
        |tally| &tally.store_dead,
        move || {
            priority::lower(priority::STORE);
            keeper.work();
            drop(hold);
        },
    )?;
    Ok((Intake { jobs, tally }, Threads { journal, store, stop, bell }))
}

/// Starts a thread; should it die at its work, that is told once, and noted.
fn spawn(
    name: &'static str,
    tally: &Arc<Tally>,
    dead: fn(&Tally) -> &AtomicBool,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    struct Dies {
        name: &'static str,
        tally: Arc<Tally>,
        dead: fn(&Tally) -> &AtomicBool,
    }
    impl Drop for Dies {
        fn drop(&mut self) {
            if std::thread::panicking() {
                (self.dead)(&self.tally).store(true, Ordering::Relaxed);
                warn(format_args!("the thread of the {} has died, which is a bug: start the server again", self.name));
            }
        }
    }
    let dies = Dies { name, tally: Arc::clone(tally), dead };
    let work = move || {
        let _dies = dies;
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::Resources)
}

impl Threads {
    /// Waits until everything acknowledged is in the store, but not longer than to the deadline: the rest waits in the
    /// journal. The last [`Intake`] must be gone.
    pub fn finish(self, deadline: Instant) {
        let until = |thread: &JoinHandle<()>| {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        until(&self.journal);
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        until(&self.store);
    }
}

/// Returns when a journal was written last.
fn journal_time(root: &std::path::Path, process: &str) -> UnixNanos {
    let segments = std::fs::read_dir(root.join("journal").join(process)).into_iter().flatten().filter_map(Result::ok);
    let segments = segments.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg"));
    let modified = segments.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or_else(UnixNanos::now, |since| UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::conventions::names;
    use crate::journal::{Durability, JournalWriter};
    use crate::model::otlp::Span;
    use crate::model::outcome::Outcome;
    use crate::model::record::{Record, RecordKind};
    use crate::pipeline::worker::{Observer, UnderWay, encode};
    use crate::sinks::store::SILENCE;
    use crate::store::files::layout::Layout;

    /// A server that was killed, with so many spans in its journal.
    pub fn killed_with(layout: &Layout, spans: u8) {
        let mut server = Identity::take(layout.clone(), Durability::Process, 1 << 26).unwrap();
        for id in 1..=spans {
            let mut span = Span {
                trace_id: vec![1; 16],
                span_id: vec![id; 8],
                name: "chat".to_owned(),
                start_time_unix_nano: 1_767_693_600_000_000_000,
                end_time_unix_nano: 1_767_693_600_000_000_001,
                ..Span::default()
            };
            span.set_attr(names::OPERATION, "chat");
            let record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
            let mut payload = Vec::new();
            encode(&record, &mut payload);
            let resource = server.journal.register_resource(&[]).unwrap();
            server.journal.append(FrameKind::Ended, resource, 0, &payload).unwrap();
        }
        server.journal.commit().unwrap();
    }

    /// Ends when it is told to.
    struct EndsLate(Receiver<()>);

    impl Observer for EndsLate {
        fn run_over(&mut self, _: &crate::sinks::tally::Tally) {}
        fn records(&mut self, _: Outcome, _: &str, _: u64) {}
        fn finish(&mut self, _: Instant, _: bool) -> Option<UnderWay> {
            let _ = self.0.recv();
            None
        }
    }

    /// It would have the journal, and wait in vain for the place in it.
    #[test]
    fn as_long_as_a_store_is_written_to_its_end_nobody_takes_the_journal_over() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        let mut identity = Identity::take(layout.clone(), Durability::Process, 1 << 26).unwrap();
        let (end, told) = mpsc::channel();
        identity.outlets.observers.push(Box::new(EndsLate(told)));
        let process = identity.process;
        let (intake, threads) = start(identity, SILENCE).unwrap();
        drop(intake);
        threads.finish(Instant::now() + Duration::from_millis(100));
        let again =
            || JournalWriter::reopen(&layout.journal(), &process.to_string(), crate::journal::Options::default());
        assert!(again().unwrap_err().is_locked());
        end.send(()).unwrap();
        let next = Identity::take(layout.clone(), Durability::Process, 1 << 26).unwrap();
        assert_eq!(next.process, process, "it waits for who was at it");
    }

    /// Of what is told again from the journal of a server that was killed it is counted what becomes of it, and so that it came.
    #[test]
    fn what_a_server_before_left_in_the_journal_is_counted_as_received() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        killed_with(&layout, 3);
        let taken = || Identity::take(layout.clone(), Durability::Process, 1 << 26).unwrap();
        let (intake, threads) = start(taken(), SILENCE).unwrap();
        let tally = Arc::clone(&intake.tally);
        drop(intake);
        threads.finish(Instant::now() + Duration::from_secs(20));
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        assert_eq!((of(&tally.received), of(&tally.journaled), tally.counts().total(Outcome::Stored)), (3, 3, 3));
    }

    /// A sender that is told to come again comes with all of it: what counted each time would never add up.
    #[test]
    fn of_a_request_that_is_refused_midway_is_received_what_the_journal_has() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        let Identity { process, journal, .. } = Identity::take(layout.clone(), Durability::Process, 1 << 20).unwrap();
        let tally = Arc::new(Tally::default());
        let mut committer = Committer {
            journal,
            bell: Arc::default(),
            tally: Arc::clone(&tally),
            root: layout.root().to_owned(),
            process: process.to_string(),
            journal_bytes: 1 << 20,
            behind: Vec::new(),
            uncommitted: 0,
            warned: true,
            warned_of_bound: false,
        };
        // What is told over and over would be packed.
        let mut noise = 1u64;
        let mut word = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        };
        let mut sent = |frames: u64| {
            let mut records = Prepared { is_received: true, ..Prepared::default() };
            for _ in 0..frames {
                assert!(records.add(FrameKind::Ended, Arc::default(), |payload| {
                    payload.extend((0..8 << 10).flat_map(|_| word()))
                }));
            }
            records.add(FrameKind::Passing, Arc::default(), |_| {});
            records.aside.add(Outcome::Rejected, "undecodable", 3);
            let (done, mut answer) = oneshot::channel();
            committer.commit(vec![Job { records, done }]);
            let said = answer.try_recv().unwrap();
            let received = tally.received.load(Ordering::Relaxed);
            (said, received, tally.counts().total(Outcome::Rejected), tally.committed.last())
        };
        assert_eq!(sent(2), (Ok(()), 5, 3, 3));
        let (said, received, rejected, in_journal) = sent(64);
        assert!(in_journal > 3 && in_journal < 64, "{in_journal}");
        assert_eq!((said, received, rejected), (Err(Refused::Full), in_journal + 2, 3));
        assert_eq!(sent(64), (Err(Refused::Full), received, 3, in_journal));
    }

    #[test]
    fn a_thread_that_dies_at_its_work_is_noted_and_one_that_is_done_is_not() {
        let tally = Arc::new(Tally::default());
        spawn("journal", &tally, |tally| &tally.journal_dead, || {}).unwrap().join().unwrap();
        spawn("store", &tally, |tally| &tally.store_dead, || panic!("a bug")).unwrap().join().unwrap_err();
        let dead = [&tally.journal_dead, &tally.store_dead].map(|dead| dead.load(Ordering::Relaxed));
        assert_eq!(dead, [false, true]);
    }
}
