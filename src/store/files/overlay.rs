//! What dead processes left, laid over the files of a store for a reader who may not write there.
//!
//! It is kept in the form in which it would have been written, summaries as `run.yaml` has them and events as lines of
//! `events.jsonl`, so that a reader gets what it would get from the files. Only what the files lack is held.

use std::collections::BTreeMap;
use std::fmt;

use super::super::{RunWriter, StoreError};
use super::chain::Chain;
use super::layout::Layout;
use super::run_dir;
use super::yaml::{from_yaml, to_yaml};
#[cfg(feature = "server")]
use crate::model::TraceId;
use crate::model::id::{IdMap, IdSet};
use crate::model::{Event, EventId, RunId, RunSummary};

/// Runs of which the files hold less than was recorded.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    runs: BTreeMap<RunId, Laid>,
}

#[derive(Default)]
struct Laid {
    /// `None`: what the files say still holds.
    summary: Option<RunSummary>,
    /// What would stand behind the log.
    lines: Vec<u8>,
    /// It would stand in place of the log.
    is_whole: bool,
}

impl fmt::Debug for Laid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Prompts and answers do not belong into messages.
        write!(f, "Laid({} bytes of events)", self.lines.len())
    }
}

impl Overlay {
    /// Adds what another process left. Each run has one writer, so no run is in both.
    pub fn extend(&mut self, other: Self) {
        self.runs.extend(other.runs);
    }

    /// Tells whether the files lack nothing.
    #[cfg(feature = "index")]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Tells whether the files lack something of the run.
    pub fn has(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// Returns the runs of which the files lack something.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.keys().copied()
    }

    /// Returns the run's summary, where another holds than that in the files.
    pub fn summary(&self, run: RunId) -> Option<&RunSummary> {
        self.runs.get(&run)?.summary.as_ref()
    }

    /// Returns all summaries that go before those in the files.
    pub fn summaries(&self) -> impl Iterator<Item = &RunSummary> {
        self.runs.values().filter_map(|laid| laid.summary.as_ref())
    }

    /// Adds to a run's events in the files what they lack.
    ///
    /// Somebody else may just be writing the same events there.
    pub fn complete(&self, run: RunId, mut events: Vec<Event>) -> Result<Vec<Event>, StoreError> {
        let Some(laid) = self.runs.get(&run) else { return Ok(events) };
        if laid.is_whole {
            events.clear();
        }
        let known: IdSet<EventId> = events.iter().map(|event| event.event_id).collect();
        for line in laid.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event = Event::from_line(line).map_err(|error| StoreError::Damaged { run, why: error.to_string() })?;
            if !known.contains(&event.event_id) {
                events.push(Event { seq: events.len() as u64, ..event });
            }
        }
        Ok(events)
    }
}

/// Writes the runs of one dead process into an [`Overlay`], as a `FilesWriter` would into the files.
#[derive(Debug)]
pub(crate) struct OverlayWriter {
    layout: Layout,
    process: RunId,
    overlay: Overlay,
    /// What is in the logs of the runs taken up, and how long they are.
    logs: IdMap<RunId, Log>,
    /// What it has heard of others.
    #[cfg(feature = "server")]
    index: super::index::IndexLog,
}

#[derive(Debug, Default)]
struct Log {
    known: IdSet<EventId>,
    length: u64,
    chain: Chain,
}

impl OverlayWriter {
    pub fn new(layout: Layout, process: RunId) -> Self {
        Self {
            layout,
            process,
            overlay: Overlay::default(),
            logs: IdMap::default(),
            #[cfg(feature = "server")]
            index: Default::default(),
        }
    }

    pub fn into_overlay(self) -> Overlay {
        self.overlay
    }

    fn is_there(&self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.overlay.has(run) || self.layout.find_run(run)?.is_some())
    }

    /// Tells whether the files have a summary of the run.
    fn is_begun(&self, run: RunId) -> Result<bool, StoreError> {
        match self.layout.find_run(run)? {
            Some(dir) => run_dir::has_summary(self.layout.fs(), &dir),
            None => Ok(false),
        }
    }

    /// Reads a run's events, those in the files and those laid over them.
    fn read(&self, run: RunId) -> Result<(Vec<Event>, Log), StoreError> {
        let mut chain = Chain::default();
        let (in_files, length) = match self.layout.find_run(run)? {
            Some(dir) => run_dir::read_log(self.layout.fs(), &dir, run, Some(&mut chain))?,
            None => Default::default(),
        };
        let laid = self.overlay.runs.get(&run);
        if let Some(laid) = laid {
            if laid.is_whole {
                chain = Chain::default();
            }
            chain.add(&laid.lines);
        }
        let length = length + laid.map_or(0, |laid| laid.lines.len()) as u64;
        let events = self.overlay.complete(run, in_files)?;
        let known = events.iter().map(|event| event.event_id).collect();
        Ok((events, Log { known, length, chain }))
    }

    fn lay(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        let run = summary.run_id;
        let events_sha256 = self.logs.get(&run).and_then(|log| log.chain.hash_for(summary));
        let signed = RunSummary { writer: Some(self.process), events_sha256, ..summary.clone() };
        // Moments in `run.yaml` are cut to milliseconds, here as there.
        let written = to_yaml(&signed).and_then(|text| from_yaml(&text));
        let written: RunSummary = written.map_err(|why| StoreError::Damaged { run, why })?;
        let dir = self.layout.find_run(run)?;
        let fs = self.layout.fs();
        let pinned = dir.as_deref().is_some_and(|dir| super::cleanup::is_marked(fs, dir).unwrap_or(false));
        let stored = dir.and_then(|dir| run_dir::read_summary(fs, &dir, run).ok());
        let written = RunSummary { pinned, ..written };
        // What the files say already needs nobody to lay it over them.
        let is_known = stored.is_some_and(|stored| RunSummary { updated_at: written.updated_at, ..stored } == written);
        if is_known && !self.overlay.has(run) {
            return Ok(());
        }
        self.overlay.runs.entry(run).or_default().summary = Some(written);
        Ok(())
    }
}

impl RunWriter for OverlayWriter {
    fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
        let run = summary.run_id;
        let is_new = self.overlay.summary(run).is_none() && !self.is_begun(run)?;
        if is_new {
            self.overlay.runs.entry(run).or_default();
        }
        self.append_events(run, events)?;
        if is_new { self.lay(summary) } else { Ok(()) }
    }

    fn has_run(&mut self, run: RunId) -> Result<bool, StoreError> {
        self.is_there(run)
    }

    fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        if !self.is_there(run)? {
            return Ok(None);
        }
        let (events, log) = self.read(run)?;
        self.logs.insert(run, log);
        Ok(Some(events))
    }

    fn look_at(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        if self.is_there(run)? { self.read(run).map(|(events, _)| Some(events)) } else { Ok(None) }
    }

    #[cfg(feature = "server")]
    fn over_by_others(
        &mut self,
        most: usize,
        is_wanted: &dyn Fn(TraceId, RunId) -> bool,
    ) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        self.index.over_by_others(self.layout.fs(), &self.layout.index_log(), self.process, most, is_wanted)
    }

    fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        if !self.is_there(run)? {
            return Err(StoreError::NotFound { id: run.to_string() });
        }
        if !self.logs.contains_key(&run) {
            let (_, log) = self.read(run)?;
            self.logs.insert(run, log);
        }
        let log = self.logs.entry(run).or_default();
        let mut lines = Vec::new();
        run_dir::lines_of(run, events, &log.known, log.length, &mut lines)?;
        log.length += lines.len() as u64;
        log.known.extend(events.iter().map(|event| event.event_id));
        log.chain.add(&lines);
        if !lines.is_empty() {
            self.overlay.runs.entry(run).or_default().lines.extend(lines);
        }
        Ok(())
    }

    fn replace_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        if !self.is_there(run)? {
            return Err(StoreError::NotFound { id: run.to_string() });
        }
        let mut lines = Vec::new();
        run_dir::lines_of(run, events, &IdSet::default(), 0, &mut lines)?;
        let known = events.iter().map(|event| event.event_id).collect();
        let mut chain = Chain::default();
        chain.add(&lines);
        self.logs.insert(run, Log { known, length: lines.len() as u64, chain });
        let laid = self.overlay.runs.entry(run).or_default();
        (laid.lines, laid.is_whole) = (lines, true);
        Ok(())
    }

    fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        if !self.is_there(summary.run_id)? {
            return Err(StoreError::NotFound { id: summary.run_id.to_string() });
        }
        self.lay(summary)
    }

    fn delete_run(&mut self, run: RunId) -> Result<(), StoreError> {
        // Only what is laid over the files is this writer's to take away.
        self.release_run(run);
        self.overlay.runs.remove(&run);
        Ok(())
    }

    fn release_run(&mut self, run: RunId) {
        self.logs.remove(&run);
    }
}
