//! Takes OTLP that stands in files into a store, by the way that requests of a server go.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::body::Held;
use super::budget::Budget;
use super::identity::Identity;
use super::intake::{self, Tally, Threads};
use super::settings::Settings;
use super::traces::Line;
use crate::error::Error;
use crate::journal;
use crate::model::RunId;
use crate::model::outcome::{Counts, Outcome};
use crate::model::run::ArtifactInfo;
use crate::pipeline::worker::STORE_READER;
use crate::pipeline::{Content, Scrubber};
use crate::sources::otlp::{Encoding, Signal};
use crate::store::StoreError;
use crate::store::files::artifacts;
use crate::store::files::layout::Layout;

/// Bytes that one request, and what is made of it, may take: a file may hold a larger one than a server takes.
const MEMORY: usize = 1 << 30;
/// How long the run store may take over what is in the journal at the end; what it does not manage waits there.
const FINISH: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_millis(1);

/// A store that takes export requests in from whoever has read them.
pub struct Importer {
    line: Arc<Line>,
    budget: Arc<Budget>,
    threads: Threads,
    runtime: tokio::runtime::Runtime,
    layout: Layout,
    process: RunId,
    scrubber: Scrubber,
    /// What had become of records, and how many were received, before the first was imported: a server before may have left some.
    before: (Counts, u64),
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").finish_non_exhaustive()
    }
}

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Spans and records of logs, by what became of them.
    pub counts: Counts,
    /// The store could not be written to the end: what is missing in it waits in the journal for the next server or import.
    pub is_stuck: bool,
}

impl Importer {
    /// Opens the store, made if it is not there. Of the settings, those of ports and targets mean nothing here.
    ///
    /// # Errors
    ///
    /// What keeps the store from being opened or written.
    pub fn open(layout: &Layout, settings: &Settings) -> Result<Self, Error> {
        layout.open_or_create()?;
        let identity = Identity::of_import(layout.clone(), settings.durability, settings.journal_bytes)?;
        let process = identity.process;
        let (intake, threads) = intake::start(identity, settings.silence)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Resources)?;
        let store = layout.read()?;
        let scrubber = Scrubber::new(settings.content, store.redaction_key());
        let line = Line::new(intake, settings.bounds, store.store_id, super::maker(layout, settings)?);
        let line = Arc::new(line);
        let before = what_was_left(&line.intake.tally);
        let budget = Budget::new(MEMORY);
        Ok(Self { line, budget, threads, runtime, layout: layout.clone(), process, scrubber, before })
    }

    /// Keeps a file in the folder `artifacts` of `folder`, as one that a program gives to its run is kept: without the secrets
    /// in it, and not at all where the policy is to keep no content. The run is told of it by a span event
    /// [`EVENT_ARTIFACT`](crate::conventions::names::EVENT_ARTIFACT).
    ///
    /// # Errors
    ///
    /// What keeps it from being read or written.
    pub fn keep(&self, folder: &Path, name: &str, content: &mut dyn Read) -> Result<ArtifactInfo, StoreError> {
        if self.scrubber.content() == Content::None {
            return artifacts::describe(name, None, content, &self.scrubber);
        }
        artifacts::keep(self.layout.fs(), folder, name, None, content, &self.scrubber, true)
    }

    /// Takes the body of one export request. Broken spans cost themselves; the text says which, and is empty when nothing is
    /// wrong.
    ///
    /// # Errors
    ///
    /// Why nothing of it was taken.
    pub fn take(&self, body: Vec<u8>, signal: Signal, encoding: Encoding) -> Result<String, String> {
        let until = Instant::now() + FINISH;
        loop {
            let held = Held { bytes: body.clone(), share: self.budget.share() };
            match self.runtime.block_on(self.line.take(held, signal, "", encoding)) {
                Ok(taken) => return Ok(taken.message),
                // The journal is full: the run store takes it in meanwhile.
                Err(refusal) if refusal.problem.retry_after().is_some() && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(refusal) => return Err(refusal.why),
            }
        }
    }

    /// Waits until all of it is in the run store.
    pub fn finish(self) -> Imported {
        let Self { line, threads, runtime, layout, process, before, .. } = self;
        let tally = Arc::clone(&line.intake.tally);
        drop(runtime);
        drop(line);
        threads.finish(Instant::now() + FINISH);
        let (dir, name) = (layout.journal(), process.to_string());
        if tally.runs_ended.load(Ordering::Relaxed) {
            // As long as there is a journal of whoever wrote a run, nobody else goes on with it. What is not read to its end
            // stays, and the next process that opens the store takes it in.
            let readers = journal::readers_in(layout.fs(), &dir, &name).unwrap_or_default();
            let readers: Vec<&str> = readers.iter().map(String::as_str).chain([STORE_READER]).collect();
            let _ = journal::remove_journal(&dir, &name, &readers);
        }
        let received = tally.received.load(Ordering::Relaxed).saturating_sub(before.1);
        let counts = since(&tally.counts(), &before.0, received);
        Imported { counts, is_stuck: tally.store_stuck.load(Ordering::Relaxed) }
    }
}

/// Waits until the store has taken in what a server before had left in the journal, and tells what became of that.
fn what_was_left(tally: &Tally) -> (Counts, u64) {
    let until = Instant::now() + FINISH;
    let is_so = |flag: &AtomicBool| flag.load(Ordering::Acquire);
    // A store that cannot be written is told of at the end; what was left is then counted with what is imported.
    let is_done = || [&tally.has_caught_up, &tally.store_stuck, &tally.store_dead].into_iter().any(is_so);
    while !is_done() && Instant::now() < until {
        std::thread::sleep(POLL);
    }
    (tally.counts(), tally.received.load(Ordering::Relaxed))
}

/// Returns what became of `received` records that came since. Some of those before may have waited for others until now, and were
/// stored then.
fn since(all: &Counts, before: &Counts, received: u64) -> Counts {
    let mut counts = Counts::default();
    for ((outcome, reason), n) in &all.by {
        counts.add(*outcome, reason, n - before.by.get(&(*outcome, *reason)).copied().unwrap_or(0).min(*n));
    }
    let mut above = counts.received.saturating_sub(received);
    for n in counts.by.iter_mut().filter(|((outcome, _), _)| *outcome == Outcome::Stored).map(|(_, n)| n) {
        let taken = above.min(*n);
        (*n, above) = (*n - taken, above - taken);
    }
    counts.received = counts.by.values().sum();
    counts
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
    use crate::server::intake::tests::killed_with;

    #[test]
    fn what_a_killed_server_had_left_is_not_counted_as_imported() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        killed_with(&layout, 3);
        let importer = Importer::open(&layout, &Settings::default()).unwrap();
        let mut span = Span { trace_id: vec![2; 16], span_id: vec![2; 8], end_time_unix_nano: 1, ..Span::default() };
        span.set_attr(crate::conventions::names::OPERATION, "chat");
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let body = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
        for _ in 0..2 {
            importer.take(body.encode_to_vec(), Signal::Traces, Encoding::Protobuf).unwrap();
        }
        let done = importer.finish();
        let [stored, again] = [Outcome::Stored, Outcome::Duplicate].map(|outcome| done.counts.total(outcome));
        assert_eq!((stored, again, done.is_stuck), (1, 1, false));
    }

    #[test]
    fn what_had_waited_since_before_is_not_counted_as_imported() {
        let of = |stored, duplicate| {
            let mut counts = Counts::default();
            counts.add(Outcome::Stored, "", stored);
            counts.add(Outcome::Duplicate, "span", duplicate);
            counts
        };
        assert_eq!(since(&of(10, 3), &of(4, 1), 8), of(6, 2));
        assert_eq!(since(&of(10, 3), &of(4, 1), 5), of(3, 2));
    }
}
