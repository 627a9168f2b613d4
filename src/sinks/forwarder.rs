//! The reader of the journals that sends what they hold to one OTLP peer.
//!
//! It has its own place in the journal, so a peer that is down costs disk and nothing else. Only ended spans are
//! sent. What the peer refuses for good is put aside in a dead-letter file and counted; what it cannot take now is
//! tried again, without end. It also goes on with the journals of dead processes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender as Channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use sha2::{Digest, Sha256};

use super::forward::retry::Backoff;
use super::forward::{Blame, Sender, Sent, Target, request_from_parts};
use crate::journal::{Batch, FrameKind, JournalReader, list_processes};
use crate::telemetry::{Forwarding, warn};

/// Requests stay far below what servers take by default: gRPC libraries 4 MiB.
const BATCH_BYTES: usize = 1 << 20;
const POLL: Duration = Duration::from_millis(200);
const ADOPT_EVERY: Duration = Duration::from_secs(10);
/// How long one send may take while the process runs.
const SEND_LIMIT: Duration = Duration::from_secs(15);

/// One peer's forwarder at work.
pub(crate) struct Forwarder {
    stop: Channel<Instant>,
    thread: Option<JoinHandle<Tally>>,
    shown: String,
    counted: mpsc::Receiver<Tally>,
}

/// What a forwarder has done.
#[derive(Clone, Debug, Default)]
struct Tally {
    sent: u64,
    refused: BTreeMap<&'static str, u64>,
    /// Spans that wait in this process's own journal; counted at the end.
    waiting: u64,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarder({})", self.shown)
    }
}

/// Returns the name under which a peer's place in a journal is kept.
pub(crate) fn reader_name(target: &Target) -> String {
    let digest = Sha256::digest(target.endpoint.as_bytes());
    let short: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("forward-{short}")
}

impl Forwarder {
    /// Starts sending the journal of `process`, and of dead processes, to `target`.
    pub fn start(target: Target, journal_dir: PathBuf, process: String) -> Result<Self, crate::Error> {
        let (shown, name) = (target.shown().to_owned(), reader_name(&target));
        // The position is there from the start: nobody may take the journal for read before this reader has.
        let own = JournalReader::open(&journal_dir, &process, &name)?;
        let sender =
            Sender::new(target).map_err(|error| crate::Error::Setting { name: "forward", why: error.to_string() })?;
        let (stop, stopped) = mpsc::channel();
        let (count, counted) = mpsc::channel();
        let mut work = Work {
            sender,
            name,
            dead_letters: journal_dir.with_file_name("dead-letters"),
            journal_dir,
            process,
            tally: Tally::default(),
            attempt: 0,
            not_before: Instant::now(),
            warned: false,
            adopted: Instant::now().checked_sub(ADOPT_EVERY).unwrap_or_else(Instant::now),
        };
        let thread = std::thread::Builder::new()
            .name("runspan-forward".to_owned())
            .spawn(move || {
                work.run(own, &stopped);
                // The one who asked may have gone on at its deadline.
                let _ = count.send(work.tally.clone());
                work.tally
            })
            .map_err(crate::Error::Resources)?;
        Ok(Self { stop, thread: Some(thread), shown, counted })
    }
}

impl Forwarding for Forwarder {
    fn stop(mut self: Box<Self>, deadline: Instant) -> (u64, u64, BTreeMap<&'static str, u64>) {
        // It may have ended by itself, over a panic of a library; then there is nothing to stop.
        let _ = self.stop.send(deadline);
        // A little longer than the deadline, since a send that is under way ends exactly there.
        let limit = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(250);
        match self.counted.recv_timeout(limit) {
            Ok(tally) => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
                (tally.sent, tally.waiting, tally.refused)
            }
            // Stuck in a system call: the thread is left behind, and what it had counted is not known.
            Err(_) => (0, 0, BTreeMap::new()),
        }
    }
}

struct Work {
    sender: Sender,
    name: String,
    dead_letters: PathBuf,
    journal_dir: PathBuf,
    process: String,
    tally: Tally,
    attempt: u32,
    not_before: Instant,
    warned: bool,
    adopted: Instant,
}

/// What became of one round with one journal.
enum Round {
    /// Nothing was there.
    Empty,
    /// Something was sent or put aside.
    Moved,
    /// The peer cannot take anything now.
    Later,
}

impl Work {
    fn run(&mut self, mut own: JournalReader, stopped: &Receiver<Instant>) {
        loop {
            let wait = match self.round(&mut own, Instant::now() + SEND_LIMIT) {
                Round::Moved => Duration::ZERO,
                Round::Empty => {
                    if self.adopted.elapsed() >= ADOPT_EVERY {
                        self.send_of_the_dead(Instant::now() + SEND_LIMIT);
                    }
                    POLL
                }
                Round::Later => self.not_before.saturating_duration_since(Instant::now()).min(POLL),
            };
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(deadline) => {
                    self.drain(&mut own, deadline);
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tally.waiting = count_waiting(&mut own);
    }

    /// Sends what is left until the deadline, of dead processes too: the runs that crashed have been closed by now. A
    /// peer that asked for patience gets one more try.
    fn drain(&mut self, own: &mut JournalReader, deadline: Instant) {
        self.not_before = Instant::now();
        while Instant::now() < deadline && matches!(self.round(own, deadline), Round::Moved) {}
        self.send_of_the_dead(deadline);
    }

    fn send_of_the_dead(&mut self, deadline: Instant) {
        self.adopted = Instant::now();
        // The report tells what became of this process's own steps.
        let of_own = self.tally.clone();
        for dead in list_processes(&self.journal_dir).unwrap_or_default() {
            if dead.alive || dead.name == self.process {
                continue;
            }
            // Only what this peer was meant to get: a place of its name was made when the process lived.
            let position = self.journal_dir.join(&dead.name).join("positions").join(&self.name);
            if !position.exists() {
                continue;
            }
            // Somebody else may be at it, or have removed it.
            let Ok(mut reader) = JournalReader::open(&self.journal_dir, &dead.name, &self.name) else { continue };
            while Instant::now() < deadline && matches!(self.round(&mut reader, deadline), Round::Moved) {}
        }
        self.tally = of_own;
    }

    /// Takes one batch of a journal and sends it.
    fn round(&mut self, reader: &mut JournalReader, deadline: Instant) -> Round {
        if Instant::now() < self.not_before {
            return Round::Later;
        }
        let batch = match reader.next_batch(BATCH_BYTES) {
            Ok(batch) => batch,
            Err(error) => {
                self.trouble(&error.to_string(), None);
                return Round::Later;
            }
        };
        if batch.is_empty() && batch.damaged() == 0 && batch.removed() == 0 {
            return Round::Empty;
        }
        let places: Vec<usize> = batch
            .frames()
            .enumerate()
            .filter(|(_, frame)| frame.kind == FrameKind::Ended)
            .map(|(place, _)| place)
            .collect();
        if !self.send(&batch, &places, deadline) {
            reader.rewind();
            return Round::Later;
        }
        match reader.acknowledge(batch.last_seq()) {
            Ok(()) => {
                // Given up at the journal's bound while the peer was behind. Frames: starts and events among them.
                if batch.removed() > 0 {
                    *self.tally.refused.entry("upstream_behind").or_default() += batch.removed();
                }
                Round::Moved
            }
            Err(error) => {
                // It was delivered and will be again: at least once is the promise.
                self.trouble(&error.to_string(), None);
                Round::Later
            }
        }
    }

    /// Sends some frames of a batch; `false` when they must wait.
    fn send(&mut self, batch: &Batch, places: &[usize], deadline: Instant) -> bool {
        if places.is_empty() {
            return true;
        }
        let spans = places.len() as u64;
        match self.sender.send(request(batch, places), spans, deadline) {
            Sent::Accepted => {
                self.tally.sent += spans;
                (self.attempt, self.warned) = (0, false);
                true
            }
            Sent::Partial { rejected, message } => {
                self.tally.sent += spans - rejected.min(spans);
                if rejected > 0 {
                    *self.tally.refused.entry("rejected_by_peer").or_default() += rejected;
                    warn(format_args!("{} rejected {rejected} spans: {message}", self.sender.target().shown()));
                }
                true
            }
            Sent::Later { after, reason } => {
                self.trouble(&reason, after);
                false
            }
            Sent::TooLarge { reason } if places.len() == 1 => self.put_aside(batch, places, &reason),
            Sent::TooLarge { .. } => {
                let (front, back) = places.split_at(places.len() / 2);
                self.send(batch, front, deadline) && self.send(batch, back, deadline)
            }
            // Credentials, or the wrong address: the spans are good, so they wait for somebody to mend that.
            Sent::Refused { reason, blame: Blame::Settings } => {
                self.trouble(&reason, Some(Duration::from_secs(30)));
                false
            }
            Sent::Refused { reason, .. } => self.put_aside(batch, places, &reason),
        }
    }

    fn put_aside(&mut self, batch: &Batch, places: &[usize], reason: &str) -> bool {
        let spans = places.len() as u64;
        *self.tally.refused.entry("refused_by_peer").or_default() += spans;
        let path = self.dead_letters.join(format!("{}.jsonl", self.name));
        let kept = write_dead_letter(&path, self.sender.target().shown(), reason, &request(batch, places));
        match kept {
            Ok(()) => warn(format_args!(
                "{} refused {spans} spans for good ({reason}); they are kept in {}",
                self.sender.target().shown(),
                path.display()
            )),
            Err(error) => warn(format_args!(
                "{} refused {spans} spans for good ({reason}), and they could not be kept in {}: {error}",
                self.sender.target().shown(),
                path.display()
            )),
        }
        true
    }

    fn trouble(&mut self, reason: &str, asked: Option<Duration>) {
        let mut random = [0; 8];
        crate::model::id::fill_random(&mut random);
        let delay = Backoff::default().delay(self.attempt, u64::from_le_bytes(random), asked);
        self.attempt = self.attempt.saturating_add(1);
        self.not_before = Instant::now() + delay;
        if !std::mem::replace(&mut self.warned, true) {
            warn(format_args!(
                "cannot forward to {}: {reason}; spans wait in the journal and are sent when that works again",
                self.sender.target().shown()
            ));
        }
    }
}

/// Builds one export request of some frames, grouped by resource, without decoding a span.
fn request(batch: &Batch, places: &[usize]) -> Vec<u8> {
    let mut groups: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
    let mut places = places.iter().copied().peekable();
    for (place, frame) in batch.frames().enumerate() {
        if places.next_if_eq(&place).is_none() {
            continue;
        }
        let resource: &[u8] = frame.resource.map_or(&[], |bytes| bytes);
        match groups.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, spans)) => spans.push(frame.payload),
            None => groups.push((resource, vec![frame.payload])),
        }
    }
    let parts: Vec<(&[u8], &[&[u8]])> = groups.iter().map(|(resource, spans)| (*resource, spans.as_slice())).collect();
    request_from_parts(&parts)
}

/// Counts the ended spans that a reader has not acknowledged.
fn count_waiting(reader: &mut JournalReader) -> u64 {
    reader.rewind();
    let mut waiting = 0;
    while let Ok(batch) = reader.next_batch(4 << 20) {
        if batch.is_empty() {
            break;
        }
        waiting += batch.frames().filter(|frame| frame.kind == FrameKind::Ended).count() as u64;
    }
    waiting
}

/// Appends a refused request as one line: when, by whom, why, and the request as OTLP JSON.
fn write_dead_letter(path: &Path, peer: &str, reason: &str, request: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let traces = crate::model::otlp::TracesData::decode(request).map_err(std::io::Error::other)?;
    let letter = serde_json::json!({
        "time": crate::model::UnixNanos::now(),
        "peer": peer,
        "reason": reason,
        "request": traces,
    });
    let mut line = serde_json::to_vec(&letter).map_err(std::io::Error::other)?;
    line.push(b'\n');
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(&line)
}
