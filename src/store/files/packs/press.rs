//! Makes of a run what a pack holds of it: its lines, their hash and its metadata, compressed. That is two fifths of what
//! the run store has to do for a span, so a writer of many runs has it done by a thread of its own.

use std::path::{Path, PathBuf};
#[cfg(feature = "index")]
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

#[cfg(feature = "index")]
use super::super::again::Fresh;
use super::super::run_dir::{self, LogLock};
use super::super::{chain, yaml};
use super::format::{Codec, EntryHead};
use super::packer::{Held, Packer};
use crate::model::id::IdMap;
use crate::model::{Event, RunId, RunSummary};
use crate::store::StoreError;

/// More than this costs several times the time for a few percent.
#[cfg(feature = "seal")]
const LEVEL: i32 = 1;
/// So much may lie at the thread, about, in bytes of spans: some batches of the journal, three or four times that in memory.
const MAX_BEHIND: u64 = 4 << 20;

/// Makes runs ready for a pack, one by one.
pub(super) struct Press {
    /// Room for lines, for all that is compressed, and for that compressed: used again and again.
    lines: Vec<u8>,
    plain: Vec<u8>,
    #[cfg(feature = "seal")]
    compressed: Vec<u8>,
    #[cfg(feature = "seal")]
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl Press {
    pub fn new() -> Self {
        Self {
            lines: Vec::new(),
            plain: Vec::new(),
            #[cfg(feature = "seal")]
            compressed: Vec::new(),
            #[cfg(feature = "seal")]
            compressor: zstd::bulk::Compressor::new(LEVEL).ok(),
        }
    }

    /// Makes a run ready that `writer` writes; `None`: it wants a folder, being long, or what is wrong with it is said there.
    pub fn run(&mut self, writer: RunId, summary: &RunSummary, events: &[Event]) -> Option<Held> {
        let mut lines = std::mem::take(&mut self.lines);
        let held = run_dir::lines_of(summary.run_id, events, &Default::default(), 0, &mut lines)
            .ok()
            .and_then(|()| self.run_of_lines(writer, summary, events.len(), &lines));
        if lines.capacity() as u64 <= super::MAX_RUN_BYTES {
            self.lines = lines;
        }
        held
    }

    fn run_of_lines(&mut self, writer: RunId, summary: &RunSummary, events: usize, lines: &[u8]) -> Option<Held> {
        if !Packer::takes(summary, lines.len()) {
            return None;
        }
        let events_sha256 = (events as u64 == summary.events).then(|| chain::hash_of(lines));
        let signed = RunSummary { writer: Some(writer), events_sha256, ..summary.clone() };
        let yaml = yaml::to_yaml(&signed).ok()?;
        let is_small = Packer::takes(&signed, yaml.len() + lines.len());
        is_small.then(|| self.files(signed, yaml.as_bytes(), lines, None))
    }

    /// Makes the two files of a run ready.
    pub fn files(
        &mut self,
        summary: RunSummary,
        yaml: &[u8],
        events: &[u8],
        folder: Option<(PathBuf, LogLock)>,
    ) -> Held {
        self.plain.clear();
        self.plain.extend_from_slice(yaml);
        self.plain.extend_from_slice(events);
        let (codec, stored) = self.compress();
        let head = EntryHead {
            run: summary.run_id,
            kind: summary.kind,
            codec,
            len: stored.len() as u32,
            yaml_len: yaml.len() as u32,
            events_len: events.len() as u32,
            body_crc: 0,
        };
        Held { summary, head, stored, folder }
    }

    /// Compresses what is in `plain`; no longer than that, and in no more memory than it takes.
    #[cfg(feature = "seal")]
    fn compress(&mut self) -> (Codec, Vec<u8>) {
        self.compressed.clear();
        self.compressed.reserve(self.plain.len());
        let compressor = self.compressor.as_mut();
        let length =
            compressor.and_then(|compressor| compressor.compress_to_buffer(&self.plain, &mut self.compressed).ok());
        match length.filter(|length| *length < self.plain.len()) {
            Some(length) => (Codec::Zstd, self.compressed[..length].to_vec()),
            None => (Codec::Stored, self.plain.clone()),
        }
    }

    #[cfg(not(feature = "seal"))]
    fn compress(&mut self) -> (Codec, Vec<u8>) {
        (Codec::Stored, self.plain.clone())
    }
}

/// A run that has come whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub summary: RunSummary,
    pub events: Vec<Event>,
}

impl Whole {
    /// About how many bytes it is, in spans.
    fn bytes(&self) -> u64 {
        self.events.iter().map(|event| event.body.span().map_or(256, |(span, _, _)| span.about_len())).sum()
    }
}

/// What became of a run.
pub(crate) enum Pressed {
    /// It is ready.
    Ready(Box<Held>),
    /// It wants a folder.
    Unfit(Box<Whole>),
}

/// A press on a thread of its own. Runs come out in the order in which they went in.
pub(super) struct Line {
    jobs: Option<Sender<Box<Whole>>>,
    done: Receiver<Pressed>,
    thread: Option<JoinHandle<()>>,
    /// What has not come out, with its bytes, and theirs together.
    within: IdMap<RunId, u64>,
    bytes: u64,
}

impl Line {
    /// Starts the thread; `None` where there is none to be had, or only one processor.
    pub fn start(writer: RunId, #[cfg(feature = "index")] fresh: Arc<Fresh>) -> Option<Self> {
        if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
            return None;
        }
        let ((jobs, wanted), (made, done)) = (channel::<Box<Whole>>(), channel());
        let work = move || {
            let mut press = Press::new();
            for whole in wanted {
                let pressed = match press.run(writer, &whole.summary, &whole.events) {
                    Some(held) => {
                        #[cfg(feature = "index")]
                        fresh.offer(&held.summary, whole.events, u64::from(held.head.events_len));
                        Pressed::Ready(Box::new(held))
                    }
                    None => Pressed::Unfit(whole),
                };
                if made.send(pressed).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pack".to_owned()).spawn(work).ok()?;
        Some(Self { jobs: Some(jobs), done, thread: Some(thread), within: IdMap::default(), bytes: 0 })
    }

    /// Tells whether a run has not come out.
    pub fn has(&self, run: RunId) -> bool {
        self.within.contains_key(&run)
    }

    pub fn is_empty(&self) -> bool {
        self.within.is_empty()
    }

    /// Tells whether so much lies here that something has to come out first.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BEHIND
    }

    /// Puts a run in that is not within; gives it back when the thread has died.
    pub fn put(&mut self, whole: Box<Whole>) -> Result<(), Box<Whole>> {
        let (run, bytes) = (whole.summary.run_id, whole.bytes());
        match &self.jobs {
            Some(jobs) => jobs.send(whole).map_err(|unsent| unsent.0)?,
            None => return Err(whole),
        }
        self.within.insert(run, bytes);
        self.bytes += bytes;
        Ok(())
    }

    /// Takes the next one out; `None` when there is none yet, or where it `waits` none at all.
    ///
    /// When the thread has died, all that was within is lost, which the error says.
    pub fn next(&mut self, waits: bool) -> Result<Option<Pressed>, Died> {
        if self.within.is_empty() {
            return Ok(None);
        }
        let pressed = match waits {
            true => self.done.recv().map_err(|_| Died)?,
            false => match self.done.try_recv() {
                Ok(pressed) => pressed,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(Died),
            },
        };
        let run = match &pressed {
            Pressed::Ready(held) => held.summary.run_id,
            Pressed::Unfit(whole) => whole.summary.run_id,
        };
        self.bytes -= self.within.remove(&run).unwrap_or_default();
        Ok(Some(pressed))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It has said what it died of.
            let _ = thread.join();
        }
    }
}

/// The thread of a press has died.
#[derive(Debug)]
pub(crate) struct Died;

impl Died {
    pub fn told(self, packs: &Path) -> StoreError {
        StoreError::io("write", packs)(std::io::Error::other("the thread that makes runs ready for packs has died"))
    }
}
