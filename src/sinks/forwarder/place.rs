//! How far a forwarder is in one journal: what it has looked at, what waits for its run to end, what is gone.
//!
//! The position in the journal stands before the first span that is not done with. Spans behind it may be done all the
//! same: while a run is under way its spans wait, and those of other runs go past them. So that they are not sent
//! again by the next process, a file beside the position says which traces were waiting (see `docs/format.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::ledger::{Counts, Ledger, count};
use super::sampler::{Glance, RemoteTraces, Sampler};
use super::{BATCH_BYTES, is_sent, signal_of};
use crate::fs::{OsFs, read_bytes, replace};
use crate::journal::{self, Batch, FrameKind, JournalError, JournalReader};
use crate::model::TraceId;
use crate::sinks::forward::Signal;
use crate::sinks::keep::Board;

/// Much more than the traces that can wait.
const MAX_HELD_FILE: u64 = 64 << 20;

/// So many traces that were kept early are remembered over the end of the process.
const MAX_KEPT_EARLY: usize = 1 << 12;

/// What a forwarder and the worker of its process both know.
#[derive(Debug)]
pub(super) struct Shared {
    pub journal_dir: PathBuf,
    pub process: String,
    pub name: String,
    signal: Signal,
    progress: Mutex<Progress>,
    pub ledger: Mutex<Ledger>,
}

/// How far a forwarder is.
#[derive(Debug, Default)]
struct Progress {
    /// Every frame up to here was looked at and is done, or waits.
    scanned: u64,
    /// Every frame up to here was taken from the journal.
    taken: u64,
    /// Spans before `scanned` that wait for the end of their run.
    waiting: BTreeMap<u64, Waiting>,
    /// Those of them that are being sent.
    in_flight: BTreeSet<u64>,
    /// Frames before this one are gone.
    floor: u64,
    /// Of this journal, by this forwarder.
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    trace: TraceId,
    /// How many bytes of payload had been looked at before it.
    bytes_before: u64,
}

impl Shared {
    pub fn new(journal_dir: &Path, process: &str, name: &str, ledger: Ledger) -> Self {
        Self {
            journal_dir: journal_dir.to_owned(),
            process: process.to_owned(),
            name: name.to_owned(),
            signal: signal_of(name),
            progress: Mutex::default(),
            ledger: Mutex::new(ledger),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how the target is shown.
    pub fn shown(&self) -> String {
        self.ledger().shown().to_owned()
    }

    /// Returns how the target is spoken to.
    pub fn protocol(&self) -> &'static str {
        self.ledger().protocol()
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what became of the spans of this journal so far.
    pub fn counts(&self) -> Counts {
        self.progress().counts.clone()
    }

    /// Counts spans of this journal, for good.
    fn settle(&self, progress: &mut Progress, counts: &Counts) {
        progress.counts.add(counts);
        let mut ledger = self.ledger();
        ledger.count(counts);
        // What can't be written now is written with the next.
        let _ = ledger.write();
    }

    /// Counts ended spans from frame `from` up to and without `end`.
    fn count_ended(&self, from: u64, end: u64) -> Result<u64, JournalError> {
        let mut reader = JournalReader::open_read_only(&self.journal_dir, &self.process, &self.name)?;
        reader.seek(from);
        let mut ended = 0;
        loop {
            let batch = reader.next_batch(BATCH_BYTES)?;
            if batch.is_empty() {
                return Ok(ended);
            }
            let before = batch.frames().filter(|frame| (from..end).contains(&frame.seq));
            ended += before.filter(|frame| is_sent(frame.kind, self.signal)).count() as u64;
            if batch.last_seq() + 1 >= end {
                return Ok(ended);
            }
        }
    }
}

impl crate::pipeline::worker::Behind for Shared {
    fn give_up_before(&self, first_left: u64) {
        let mut progress = self.progress();
        let from = progress.taken.max(progress.scanned) + 1;
        // Spans that are in the forwarder's hands are its to count.
        let mut lost = self.count_ended(from, first_left).unwrap_or(0);
        let gone: Vec<u64> = progress.waiting.range(..first_left).map(|(seq, _)| *seq).collect();
        for seq in gone.iter().filter(|seq| !progress.in_flight.contains(*seq)).copied().collect::<Vec<_>>() {
            progress.waiting.remove(&seq);
            lost += 1;
        }
        progress.floor = progress.floor.max(first_left);
        if progress.taken <= progress.scanned {
            progress.scanned = progress.scanned.max(first_left.saturating_sub(1));
            progress.taken = progress.scanned;
        }
        let mut counts = Counts::default();
        count(&mut counts.dropped, UPSTREAM_BEHIND, lost);
        self.settle(&mut progress, &counts);
    }
}

/// Why spans at the journals' bound are lost to a target.
pub(super) const UPSTREAM_BEHIND: &str = "upstream_behind";

/// Why spans that the journal gave once and does not give again are lost.
pub(super) const JOURNAL_DAMAGED: &str = "journal_damaged";

/// What is to become of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    Leave(&'static str),
    Wait(TraceId),
    /// It was done with before this process came.
    Done,
}

/// Frames taken from the journal, and what is to become of the spans among them.
pub(super) struct Load {
    batch: Batch,
    /// Place in the batch, number, verdict.
    verdicts: Vec<(usize, u64, Verdict)>,
    /// They waited, and their runs have ended.
    is_due: bool,
}

impl Load {
    /// Returns resource and payload of each span to send, in order.
    pub fn to_send(&self) -> Vec<Outgoing<'_>> {
        let mut wanted = self.verdicts.iter().filter(|(_, _, verdict)| *verdict == Verdict::Send).peekable();
        let mut spans = Vec::new();
        for (place, frame) in self.batch.frames().enumerate() {
            if wanted.next_if(|(wanted, _, _)| *wanted == place).is_some() {
                spans.push(Outgoing { resource: frame.resource.map_or(&[], |bytes| bytes), span: frame.payload });
            }
        }
        spans
    }
}

/// A span to send: an encoded `Resource` and an encoded `ScopeSpans`; or a request of metrics, in place of the span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub resource: &'a [u8],
    pub span: &'a [u8],
}

/// What is chosen to be forwarded.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub sampler: Sampler,
    /// Who knows which runs are kept.
    pub board: Arc<Board>,
    /// Spans wait for their run within so many bytes of the journal.
    pub hold_bytes: u64,
}

/// One journal, read for one target.
pub(super) struct Place {
    pub shared: Arc<Shared>,
    reader: JournalReader,
    /// Reads what waited a second time.
    again: Option<(JournalReader, u64)>,
    choice: Choice,
    remote: RemoteTraces,
    /// Bytes of payload looked at.
    bytes: u64,
    held_file: PathBuf,
    held: Held,
}

/// What the file beside the position says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Held {
    /// Every frame up to here was looked at.
    scanned: u64,
    /// Spans of these traces among them waited, from the frame given on; all others were done with.
    waiting: BTreeMap<TraceId, u64>,
    /// These traces were kept before their run was over.
    kept: BTreeSet<TraceId>,
}

impl Place {
    /// Goes on where the reader's position stands.
    pub fn open(shared: Arc<Shared>, mut choice: Choice) -> Result<Self, JournalError> {
        let (journals, process) = (&shared.journal_dir, &shared.process);
        if journal::has_mark_in(&OsFs, journals, process)? || journal::is_of_command_in(&OsFs, journals, process)? {
            choice.sampler = choice.sampler.of_received();
        }
        let reader = JournalReader::open(&shared.journal_dir, &shared.process, &shared.name)?;
        let held_file = Held::path(&shared.journal_dir, &shared.process, &shared.name);
        let held = if choice.board.is_idle() { Held::default() } else { Held::read(&held_file) };
        for trace in &held.kept {
            choice.board.keep(*trace);
        }
        let mut place =
            Self { shared, reader, again: None, choice, remote: RemoteTraces::default(), bytes: 0, held_file, held };
        let acknowledged = place.reader.acknowledged();
        // From now on decisions are kept for this reader, too.
        place.choice.board.passed(&place.shared.name, acknowledged);
        {
            let mut progress = place.shared.progress();
            (progress.scanned, progress.taken) = (acknowledged, acknowledged);
        }
        if acknowledged > 0 && place.choice.sampler.needs_remote() {
            place.find_remote_traces()?;
        }
        Ok(place)
    }

    /// Learns from what was read before, as far as it is there, which traces came from elsewhere.
    fn find_remote_traces(&mut self) -> Result<(), JournalError> {
        // No reader has this name, so reading begins at the oldest frame.
        let mut reader = JournalReader::open_read_only(&self.shared.journal_dir, &self.shared.process, "oldest")?;
        loop {
            let batch = reader.next_batch(BATCH_BYTES)?;
            if batch.is_empty() || batch.last_seq() > self.reader.acknowledged() {
                return Ok(());
            }
            for frame in batch.frames().filter(|frame| frame.kind == FrameKind::Started) {
                if let Some(span) = Glance::of(frame.payload) {
                    self.remote.note(&span);
                }
            }
        }
    }

    /// Takes the next spans; `None` when there are none now.
    pub fn take(&mut self) -> Result<Option<Load>, JournalError> {
        let is_held_back = self.is_held_back();
        if let Some(load) = self.take_due()? {
            return Ok(Some(load));
        }
        if is_held_back {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        // Held while reading, so that nobody counts as lost what is about to be in hand.
        let mut progress = shared.progress();
        self.reader.seek(progress.scanned + 1);
        let batch = self.reader.next_batch(BATCH_BYTES)?;
        if batch.is_empty() {
            return Ok(None);
        }
        progress.taken = batch.last_seq();
        drop(progress);
        let verdicts = self.judge(&batch);
        Ok(Some(Load { batch, verdicts, is_due: false }))
    }

    fn judge(&mut self, batch: &Batch) -> Vec<(usize, u64, Verdict)> {
        let signal = self.shared.signal;
        if signal == Signal::Metrics {
            let wanted = batch.frames().enumerate().filter(|(_, frame)| is_sent(frame.kind, signal));
            return wanted.map(|(place, frame)| (place, frame.seq, Verdict::Send)).collect();
        }
        let sampler = self.choice.sampler;
        let is_plain = sampler.is_always_on() && self.choice.board.is_idle();
        let mut verdicts = Vec::new();
        for (place, frame) in batch.frames().enumerate() {
            let is_end = is_sent(frame.kind, signal);
            if is_plain || !(is_end || (sampler.needs_remote() && frame.kind == FrameKind::Started)) {
                if is_end {
                    verdicts.push((place, frame.seq, Verdict::Send));
                }
                continue;
            }
            let glance = Glance::of(frame.payload);
            if let Some(glance) = &glance {
                self.remote.note(glance);
            }
            if is_end {
                // One that cannot be judged is left to the peer.
                let verdict = glance.map_or(Verdict::Send, |glance| self.verdict(&glance, frame.seq));
                verdicts.push((place, frame.seq, verdict));
            }
        }
        verdicts
    }

    fn verdict(&self, span: &Glance, seq: u64) -> Verdict {
        if self.held.is_done(seq, span.trace) {
            return Verdict::Done;
        }
        if !self.choice.sampler.takes(span, &self.remote) {
            return Verdict::Leave("sampler");
        }
        match self.choice.board.decide(span.trace, seq) {
            Some(true) => Verdict::Send,
            Some(false) => Verdict::Leave("keep"),
            None => Verdict::Wait(span.trace),
        }
    }

    /// Keeps the trace that has waited longest where the place would be held back too far. Tells whether it is all the
    /// same, because the worker has not said yet what is under way.
    fn is_held_back(&mut self) -> bool {
        let progress = self.shared.progress();
        let Some((seq, oldest)) = progress.waiting.first_key_value() else { return false };
        if self.bytes.saturating_sub(oldest.bytes_before) <= self.choice.hold_bytes {
            return false;
        }
        if !self.choice.board.keep_early(oldest.trace, *seq) {
            return true;
        }
        if self.held.kept.insert(oldest.trace) && self.held.kept.len() > MAX_KEPT_EARLY {
            self.held.kept.pop_first();
        }
        false
    }

    /// Takes again what waited and is decided now.
    fn take_due(&mut self) -> Result<Option<Load>, JournalError> {
        let shared = Arc::clone(&self.shared);
        let mut progress = shared.progress();
        let (mut due, mut left) = (BTreeSet::new(), Vec::new());
        for (seq, waiting) in &progress.waiting {
            match self.choice.board.decide(waiting.trace, *seq) {
                Some(true) => drop(due.insert(*seq)),
                Some(false) => left.push(*seq),
                None => {}
            }
        }
        if !left.is_empty() {
            for seq in &left {
                progress.waiting.remove(seq);
            }
            let mut counts = Counts::default();
            count(&mut counts.not_kept, "keep", left.len() as u64);
            self.shared.settle(&mut progress, &counts);
            self.acknowledge(&progress)?;
        }
        let Some(&first) = due.first() else { return Ok(None) };
        let (mut reader, at) = match self.again.take() {
            Some(again) => again,
            None => (JournalReader::open_read_only(&shared.journal_dir, &shared.process, &shared.name)?, 0),
        };
        if at == 0 || at > first {
            reader.seek(first);
        }
        loop {
            let batch = reader.next_batch(BATCH_BYTES)?;
            let wanted = batch.frames().enumerate().filter(|(_, frame)| due.contains(&frame.seq));
            let verdicts: Vec<_> = wanted.map(|(place, frame)| (place, frame.seq, Verdict::Send)).collect();
            if batch.is_empty() {
                // They could be read once and can't any more.
                let mut counts = Counts::default();
                for seq in &due {
                    let was_there = progress.waiting.remove(seq).is_some();
                    count(&mut counts.dropped, JOURNAL_DAMAGED, u64::from(was_there));
                }
                self.shared.settle(&mut progress, &counts);
                return Ok(None);
            }
            if !verdicts.is_empty() {
                progress.in_flight = verdicts.iter().map(|(_, seq, _)| *seq).collect();
                self.again = Some((reader, batch.last_seq() + 1));
                return Ok(Some(Load { batch, verdicts, is_due: true }));
            }
        }
    }

    /// Notes that the first `done` spans of a load are delivered, or put aside, with `counts` of how; the rest comes
    /// again.
    pub fn settle(&mut self, load: &Load, done: usize, mut counts: Counts) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let mut progress = shared.progress();
        let sent = load.verdicts.iter().filter(|(_, _, verdict)| *verdict == Verdict::Send).map(|(_, seq, _)| *seq);
        let first_undone = sent.clone().nth(done);
        if load.is_due {
            for seq in sent {
                if first_undone.is_none_or(|undone| seq < undone) {
                    progress.waiting.remove(&seq);
                } else if seq < progress.floor && progress.waiting.remove(&seq).is_some() {
                    count(&mut counts.dropped, UPSTREAM_BEHIND, 1);
                }
            }
            progress.in_flight.clear();
            if first_undone.is_some() {
                self.again = None;
            }
        } else {
            let reached = first_undone.map_or(load.batch.last_seq(), |undone| undone - 1);
            let reached = reached.max(progress.floor.saturating_sub(1)).min(load.batch.last_seq());
            for (place, seq, verdict) in load.verdicts.iter().filter(|(_, seq, _)| *seq <= reached) {
                let is_gone = *seq < progress.floor;
                match verdict {
                    Verdict::Send if first_undone.is_some_and(|undone| *seq >= undone) => {
                        count(&mut counts.dropped, UPSTREAM_BEHIND, 1);
                    }
                    Verdict::Wait(_) if is_gone => count(&mut counts.dropped, UPSTREAM_BEHIND, 1),
                    Verdict::Wait(trace) => {
                        let before = load.batch.frames().take(*place).map(|frame| frame.payload.len() as u64);
                        let waiting = Waiting { trace: *trace, bytes_before: self.bytes + before.sum::<u64>() };
                        progress.waiting.insert(*seq, waiting);
                    }
                    Verdict::Leave(reason) => count(&mut counts.not_kept, reason, 1),
                    Verdict::Send | Verdict::Done => {}
                }
            }
            let looked_at = load.batch.frames().filter(|frame| frame.seq <= reached);
            self.bytes += looked_at.map(|frame| frame.payload.len() as u64).sum::<u64>();
            // What was given up behind the load is lost and counted, even where it can still be read.
            progress.scanned = reached.max(progress.floor.saturating_sub(1));
            progress.taken = progress.scanned;
        }
        self.shared.settle(&mut progress, &counts);
        self.acknowledge(&progress)
    }

    /// Makes lasting how far this is.
    fn acknowledge(&mut self, progress: &Progress) -> Result<(), JournalError> {
        let done = progress.waiting.keys().next().map_or(progress.scanned, |first| first - 1);
        if !self.choice.board.is_idle() {
            self.choice.board.passed(&self.shared.name, done);
            self.write_held(progress);
        }
        self.reader.seek(progress.scanned + 1);
        self.reader.acknowledge(done)
    }

    /// Says beside the position what of the spans behind it is done with, if there may be any.
    fn write_held(&mut self, progress: &Progress) {
        let mut held = Held {
            scanned: progress.scanned.max(self.held.scanned),
            waiting: self.held.unread(progress.scanned),
            kept: self.held.kept.clone(),
        };
        // Of each trace, what is done with comes before what waits.
        for (seq, waiting) in &progress.waiting {
            let first = held.waiting.entry(waiting.trace).or_insert(*seq);
            *first = (*first).min(*seq);
        }
        let says_nothing = |held: &Held| held.waiting.is_empty() && held.kept.is_empty();
        if held != self.held && !(says_nothing(&held) && says_nothing(&self.held)) {
            // The worst that comes of a missing file is that spans are sent twice.
            let _ = held.write(&self.held_file);
            self.held = held;
        }
    }

    /// Tells whether nothing is left to do.
    pub fn is_done(&mut self) -> Result<bool, JournalError> {
        let shared = Arc::clone(&self.shared);
        let progress = shared.progress();
        self.reader.seek(progress.scanned + 1);
        let is_end = self.reader.next_batch(1)?.is_empty();
        Ok(is_end && progress.waiting.is_empty())
    }

    /// Gives up all that is not delivered yet. Returns how many spans that is.
    pub fn give_up(&mut self) -> Result<u64, JournalError> {
        let shared = Arc::clone(&self.shared);
        let mut progress = shared.progress();
        self.reader.seek(progress.scanned + 1);
        let mut lost = std::mem::take(&mut progress.waiting).len() as u64;
        loop {
            let batch = self.reader.next_batch(4 * BATCH_BYTES)?;
            if batch.is_empty() {
                break;
            }
            progress.scanned = batch.last_seq();
            for frame in batch.frames().filter(|frame| is_sent(frame.kind, self.shared.signal)) {
                let span = Glance::of(frame.payload);
                let is_done = span.is_some_and(|span| self.held.is_done(frame.seq, span.trace));
                lost += u64::from(!is_done);
            }
        }
        progress.taken = progress.scanned;
        let mut counts = Counts::default();
        count(&mut counts.dropped, UPSTREAM_BEHIND, lost);
        self.shared.settle(&mut progress, &counts);
        self.acknowledge(&progress)?;
        Ok(lost)
    }
}

impl Held {
    /// Returns where it is kept for a reader of a process's journal.
    pub fn path(journal_dir: &Path, process: &str, reader: &str) -> PathBuf {
        journal_dir.join(process).join(format!("{reader}.held"))
    }

    /// Tells whether the span at `seq` of a trace was done with, though it is behind the position.
    pub fn is_done(&self, seq: u64, trace: TraceId) -> bool {
        seq <= self.scanned && self.waiting.get(&trace).is_none_or(|first| seq < *first)
    }

    /// Reads it; what is not there or broken says nothing.
    pub fn read(path: &Path) -> Self {
        let bytes = read_bytes(&OsFs, path, MAX_HELD_FILE).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        replace(&OsFs, path, &serde_json::to_vec(self).map_err(std::io::Error::other)?, false)
    }

    /// Returns what an earlier process left waiting behind frame `scanned`.
    fn unread(&self, scanned: u64) -> BTreeMap<TraceId, u64> {
        if scanned >= self.scanned {
            return BTreeMap::new();
        }
        self.waiting.iter().map(|(trace, first)| (*trace, (*first).max(scanned + 1))).collect()
    }
}
