//! The run store on files: a folder a run, readable with nothing but a pager.
//!
//! The layout and the formats are specified in `docs/format.md`. [`FilesWriter`] is one process's writer; any number
//! of them and of [`FilesReader`]s may be at work in one store, and no reader ever holds a writer up.

mod adopt;
#[cfg(feature = "index")]
mod again;
pub mod artifacts;
mod chain;
pub mod cleanup;
#[cfg(feature = "index")]
pub mod database;
pub mod family;
#[cfg(test)]
mod faults;
pub mod folder;
mod index;
pub mod layout;
mod overlay;
mod packs;
pub mod requests;
pub(crate) mod retainer;
mod run_dir;
pub(crate) mod sealed;
pub mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assembly::RunState;
use super::{Capabilities, DamagedRun, Listed, ListedRun, Query, RunReader, RunWriter, StoreError, resolve_among};
use crate::error::with_causes;
use crate::fs::{Fs, Identity, sync_way_to};
use crate::journal::lock;
use crate::model::id::IdMap;
use crate::model::run::ArtifactInfo;
use crate::model::{Event, RunId, RunKind, RunSummary, StepView, UnixNanos};
pub use adopt::adopt_folder;
use artifacts::{ArtifactReader, StoredArtifact};
use layout::Layout;
pub(crate) use overlay::{Overlay, OverlayWriter};
use run_dir::EventLog;

/// Up to this many listed runs have their `run.yaml` read as well, so that a damaged one shows as damaged and none is shown
/// by a line of `index.log` that is not its last.
const CHECKED_RUNS: usize = 200;

/// Of the steps that so many events of a run tell of first, an outline has what went in and came out.
const FIRST_EVENTS: u64 = 100;

/// Room for lines is kept up to this many bytes: one huge prompt must not stay in memory.
const MAX_SPARE_LINES: usize = 1 << 20;

/// Runs by their traces, the latest last.
#[cfg(feature = "server")]
pub(crate) type RunsByTrace = Vec<(crate::model::TraceId, RunId)>;

/// Writes the runs of one process.
#[derive(Debug)]
pub struct FilesWriter {
    layout: Layout,
    writer: RunId,
    durable: bool,
    /// Which directory the store is; `None` where that could not be seen.
    place: Option<Identity>,
    /// The names that lead to the folders of runs are on the disk; looked after before the first one of a durable run.
    is_rooted: bool,
    open: IdMap<RunId, OpenRun>,
    index: index::IndexLog,
    /// Room for the lines of one write, used again and again.
    lines: Vec<u8>,
    /// Runs that come whole wait here for others; `None`: each gets a folder.
    packer: Option<packs::Packer>,
}

#[derive(Debug)]
struct OpenRun {
    dir: PathBuf,
    log: EventLog,
}

impl FilesWriter {
    /// Makes the writer of a process. `durable`: what is written survives loss of power as well.
    pub fn new(layout: Layout, writer: RunId, durable: bool) -> Self {
        let place = identity(&layout).ok();
        Self {
            layout,
            writer,
            durable,
            place,
            is_rooted: !durable,
            open: IdMap::default(),
            index: Default::default(),
            lines: Vec::new(),
            packer: None,
        }
    }

    /// Writes small runs that come whole into packs, many to a file. They are there once
    /// [`write_held`](RunWriter::write_held) says so.
    #[cfg(any(feature = "server", test))]
    #[must_use]
    pub(crate) fn with_packs(self) -> Self {
        let packer = Some(packs::Packer::new(self.writer));
        Self { packer, ..self }
    }

    /// The same, however few runs there are.
    #[cfg(test)]
    pub(crate) fn with_packs_of_any(self) -> Self {
        let packer = Some(packs::Packer::new(self.writer).of_any());
        Self { packer, ..self }
    }

    /// Brings what is written to the disk from now on, and each run that is gone on with as it stands.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn make_durable(&mut self) {
        (self.durable, self.is_rooted) = (true, false);
        self.open.clear();
        self.index = Default::default();
    }

    /// Refuses when the store is not where it was: it was moved or unmounted, and what stands in its place, if anything,
    /// is another one.
    fn check_place(&self) -> Result<(), StoreError> {
        let is_there = |place| identity(&self.layout).is_ok_and(|now| now == place);
        match self.place {
            Some(place) if !is_there(place) => Err(StoreError::NoStore { path: self.layout.root().to_owned() }),
            _ => Ok(()),
        }
    }

    fn open(&mut self, run: RunId) -> Result<&mut OpenRun, StoreError> {
        use std::collections::hash_map::Entry;
        self.let_go(run)?;
        if !self.open.contains_key(&run) {
            self.check_place()?;
            let dir = self.layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
            self.open_in(dir, run)?;
        }
        match self.open.entry(run) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(_) => Err(StoreError::NotFound { id: run.to_string() }),
        }
    }

    /// Opens the log of a run that is there, and returns its events.
    fn open_in(&mut self, dir: PathBuf, run: RunId) -> Result<Vec<Event>, StoreError> {
        let vouched = check_writer(&self.layout, self.writer, &dir, run)?;
        let (log, events) = EventLog::open(self.layout.fs(), &dir, run, vouched, self.durable)?;
        run_dir::remove_leftovers(self.layout.fs(), &dir);
        if self.durable {
            // Whoever made it may have died, or failed, before all its names were on the disk.
            self.sync_names(&dir)?;
        }
        self.open.insert(run, OpenRun { dir, log });
        Ok(events)
    }

    /// Brings the names in a run's folder to the disk, and all that lead to it.
    fn sync_names(&mut self, dir: &Path) -> Result<(), StoreError> {
        layout::sync_dir(self.layout.fs(), dir)?;
        if let Some(parent) = dir.parent() {
            layout::sync_dir(self.layout.fs(), parent)?;
        }
        self.root()
    }

    /// Brings the names of the store itself to the disk, once.
    fn root(&mut self) -> Result<(), StoreError> {
        if !self.is_rooted {
            let runs = self.layout.runs(RunKind::Agent);
            sync_way_to(self.layout.fs(), &runs).map_err(|(path, error)| StoreError::io("sync", path)(error))?;
            self.is_rooted = true;
        }
        Ok(())
    }

    /// Makes a run's folder under a name that no reader takes for a run, then moves it into place: whoever sees it
    /// sees it whole.
    fn make_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
        let dir = self.layout.run(summary.kind, summary.run_id);
        let making = self.make_dir(&dir, summary.run_id)?;
        let signed = RunSummary { writer: Some(self.writer), ..summary.clone() };
        let layout = self.layout.clone();
        let fs = layout.fs();
        let mut log = EventLog::create(fs, &making, summary.run_id)?;
        log.append(events, self.durable, &mut self.lines)?;
        self.place_run(dir, &making, signed, log)
    }

    fn is_packed(&self, dir: &Path) -> Result<bool, StoreError> {
        self.layout.is_packed(dir).map_err(StoreError::io("read", dir))
    }

    /// Tells whether a run is in a pack and its metadata says this already: told once more, it stays there.
    fn is_said(&self, summary: &RunSummary) -> Result<bool, StoreError> {
        let (run, dir) = (summary.run_id, self.layout.run(summary.kind, summary.run_id));
        if self.open.contains_key(&run) || !self.is_packed(&dir)? {
            return Ok(false);
        }
        let said = run_dir::read_summary(self.layout.fs(), &dir, run)?;
        let RunSummary { writer, events_sha256, updated_at, .. } = said.clone();
        Ok(said == RunSummary { writer, events_sha256, updated_at, ..summary.clone() })
    }

    /// Takes a run that has come whole for the next pack; tells whether that may be.
    fn hold(&mut self, summary: &RunSummary, events: &[Event]) -> Result<bool, StoreError> {
        let Some(packer) = self.packer.as_mut().filter(|_| packs::Packer::takes(summary, 0)) else { return Ok(false) };
        run_dir::lines_of(summary.run_id, events, &Default::default(), 0, &mut self.lines)?;
        let is_all = events.len() as u64 == summary.events;
        let events_sha256 = is_all.then(|| chain::hash_of(&self.lines));
        let signed = RunSummary { writer: Some(self.writer), events_sha256, ..summary.clone() };
        let yaml = layout::to_yaml(&signed)
            .map_err(|why| StoreError::BadStore { path: self.layout.packs().0.dir().to_owned(), why })?;
        let is_small = packs::Packer::takes(&signed, yaml.len() + self.lines.len());
        if is_small {
            packer.hold(signed, yaml.as_bytes(), &self.lines, None);
        }
        Ok(is_small)
    }

    /// Makes a folder of a run that waits for its pack, so that it can be gone on with.
    fn let_go(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(held) = self.packer.as_mut().and_then(|packer| packer.take_back(run)) else { return Ok(()) };
        if held.has_folder() {
            return Ok(());
        }
        let dir = self.layout.run(held.summary.kind, run);
        let written = held.body().map_err(StoreError::io("write", &dir)).and_then(|(_, lines)| {
            let (making, layout) = (self.make_dir(&dir, run)?, self.layout.clone());
            let mut log = EventLog::create(layout.fs(), &making, run)?;
            log.append_lines(&lines, self.durable)?;
            self.place_run(dir, &making, held.summary.clone(), log)
        });
        if let (Err(_), Some(packer)) = (&written, &mut self.packer) {
            packer.put_back(held);
        }
        written
    }

    /// Takes runs for the next pack that have a folder and that nobody has written to for a while.
    fn hold_quiet(&mut self) {
        while let Some(run) = self.packer.as_mut().and_then(packs::Packer::next_quiet) {
            // One that cannot be read now keeps its folder.
            let _ = self.hold_folder(run);
        }
    }

    fn hold_folder(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(dir) = self.layout.find_run(run)?.filter(|_| !self.open.contains_key(&run)) else { return Ok(()) };
        if self.is_packed(&dir)? {
            return Ok(());
        }
        let fs = self.layout.packs().1;
        let entries = fs.list(&dir).map_err(StoreError::io("read", &dir))?;
        // Artifacts, a pin, a sealed log: whatever else is there needs a folder.
        let is_plain = |name: &str| ["run.yaml", "events.jsonl", "events.chain"].contains(&name);
        if !entries.iter().all(|entry| is_plain(&entry.name)) {
            return Ok(());
        }
        let lock = run_dir::LogLock::take(fs, &dir, run)?;
        let summary = run_dir::read_summary(fs, &dir, run)?;
        let read =
            |path: PathBuf| layout::read_bounded(fs, &path, packs::MAX_RUN_BYTES).map_err(StoreError::io("read", path));
        if !packs::Packer::takes(&summary, 0) || summary.writer != Some(self.writer) {
            return Ok(());
        }
        let (yaml, lines) = (read(run_dir::run_file(&dir))?, read(run_dir::events_file(&dir))?);
        // What is not as it should be stays as it is, for who looks into it.
        let is_whole = summary.events_sha256 == Some(chain::hash_of(lines.as_bytes()))
            && lines.lines().count() as u64 == summary.events;
        if is_whole
            && packs::Packer::takes(&summary, yaml.len() + lines.len())
            && let Some(packer) = &mut self.packer
        {
            packer.hold(summary, yaml.as_bytes(), lines.as_bytes(), Some((dir, lock)));
        }
        Ok(())
    }

    /// Makes the folder in which a run is made.
    fn make_dir(&self, dir: &Path, run: RunId) -> Result<PathBuf, StoreError> {
        // Somebody else may be making a run of the same id.
        let making = dir.with_file_name(format!(".new-{run}-{}", self.writer));
        let fs = self.layout.fs();
        if !layout::make_new_dir(fs, &making)? {
            // Left by one who died over it.
            fs.remove_tree(&making).map_err(StoreError::io("delete", &making))?;
            layout::make_dir(fs, &making)?;
        }
        Ok(making)
    }

    /// Gives a run its metadata and its name.
    fn place_run(
        &mut self,
        dir: PathBuf,
        making: &Path,
        signed: RunSummary,
        mut log: EventLog,
    ) -> Result<(), StoreError> {
        let layout = self.layout.clone();
        let fs = layout.fs();
        let signed = RunSummary { events_sha256: log.hash_for(&signed), ..signed };
        if !signed.status.is_open() {
            log.write_chain(fs, making);
        }
        run_dir::write_first_summary(fs, making, &signed, self.durable)?;
        if self.durable {
            layout::sync_dir(fs, making)?;
        }
        fs.rename(making, &dir).map_err(StoreError::io("create", &dir))?;
        if let Some(parent) = dir.parent().filter(|_| self.durable) {
            layout::sync_dir(fs, parent)?;
        }
        self.root()?;
        // A log that is open does not know what this call has put into it: what is told again after an error would stand
        // there twice. So it is kept only once nothing can fail.
        self.index.append(fs, &layout.index_log(), &signed, self.durable)?;
        log.moved_to(&dir);
        self.open.insert(signed.run_id, OpenRun { dir, log });
        Ok(())
    }

    fn publish(&mut self, dir: &Path, summary: &RunSummary) -> Result<(), StoreError> {
        let pinned = cleanup::is_marked(self.layout.fs(), dir)?;
        let mut signed = RunSummary { writer: Some(self.writer), pinned, ..summary.clone() };
        if let Some(open) = self.open.get_mut(&summary.run_id) {
            signed.events_sha256 = open.log.hash_for(summary);
            if !summary.status.is_open() {
                open.log.write_chain(self.layout.fs(), dir);
            }
        }
        run_dir::write_summary(self.layout.fs(), dir, &signed, self.durable)?;
        self.index.append(self.layout.fs(), &self.layout.index_log(), &signed, self.durable)
    }
}

impl RunWriter for FilesWriter {
    fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
        match self.layout.find_run(summary.run_id)? {
            // Looked at again when it is written.
            None if self.hold(summary, events)? => Ok(()),
            None => self.check_place().and_then(|()| self.make_run(summary, events)),
            Some(dir) => {
                self.check_place()?;
                if run_dir::has_summary(self.layout.fs(), &dir)? {
                    return self.append_events(summary.run_id, events);
                }
                // The folder alone may be there already: an artifact can be kept before the run's first line is written.
                // Its summary must not speak of lines that are not there yet.
                self.publish(&dir, &RunSummary { events: 0, ..summary.clone() })?;
                self.append_events(summary.run_id, events)?;
                self.publish(&dir, summary)
            }
        }
    }

    fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        self.check_place()?;
        self.let_go(run)?;
        let Some(dir) = self.layout.find_run(run)? else { return Ok(None) };
        // Its lock is ours perhaps, from before.
        self.open.remove(&run);
        if self.is_packed(&dir)? {
            // It gets its folder back when something is to be written.
            let vouched = check_writer(&self.layout, self.writer, &dir, run)?;
            return run_dir::read_vouched(self.layout.fs(), &dir, run, vouched).map(Some);
        }
        self.open_in(dir, run).map(Some)
    }

    fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty()
            && !self.open.contains_key(&run)
            && let Some(dir) = self.layout.find_run(run)?
            && self.is_packed(&dir)?
        {
            return Ok(());
        }
        let (durable, mut lines) = (self.durable, std::mem::take(&mut self.lines));
        let appended = self.open(run).and_then(|run| run.log.append(events, durable, &mut lines));
        if lines.capacity() <= MAX_SPARE_LINES {
            self.lines = lines;
        }
        appended
    }

    fn replace_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        let (durable, mut lines) = (self.durable, std::mem::take(&mut self.lines));
        let fs = self.layout.clone();
        let replaced = self.open(run).and_then(|open| {
            // Else who dies behind this leaves a log that seems to have lost lines.
            run_dir::vouch_for_less(fs.fs(), &open.dir, run, events.len() as u64, durable)?;
            open.log = EventLog::replace(fs.fs(), &open.dir, run, events, durable, &mut lines)?;
            Ok(())
        });
        if lines.capacity() <= MAX_SPARE_LINES {
            self.lines = lines;
        }
        replaced
    }

    fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        self.check_place()?;
        if self.is_said(summary)? {
            return Ok(());
        }
        let dir = self.open(summary.run_id)?.dir.clone();
        self.publish(&dir, summary)
    }

    fn delete_run(&mut self, run: RunId) -> Result<(), StoreError> {
        self.let_go(run)?;
        self.open.remove(&run);
        self.check_place()?;
        let Some(dir) = self.layout.find_run(run)? else { return Ok(()) };
        // First out of sight under a name that no reader takes for a run, then away.
        let gone = dir.with_file_name(format!("{}{run}", cleanup::GONE_PREFIX));
        let fs = self.layout.fs();
        fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir))?;
        if let Some(parent) = dir.parent().filter(|_| self.durable) {
            // Before its files go: else half of it may be there again after a loss of power.
            layout::sync_dir(fs, parent)?;
        }
        fs.remove_tree(&gone).map_err(StoreError::io("delete", &gone))
    }

    fn release_run(&mut self, run: RunId) {
        if self.open.remove(&run).is_some()
            && let Some(packer) = &mut self.packer
        {
            packer.note_released(run);
        }
    }

    fn write_held(&mut self, all: bool) -> Result<bool, StoreError> {
        self.hold_quiet();
        let Some(packer) = self.packer.as_mut().filter(|packer| !packer.is_empty()) else { return Ok(true) };
        if !all && !packer.is_due() {
            return Ok(false);
        }
        self.check_place()?;
        if let Some(packer) = self.packer.as_mut().filter(|packer| packer.are_few()) {
            packer.keep_folders();
        }
        while let Some(run) = self.packer.as_ref().filter(|packer| packer.are_few()).and_then(packs::Packer::any) {
            self.let_go(run)?;
            self.open.remove(&run);
        }
        let Some(packer) = self.packer.as_mut().filter(|packer| !packer.is_empty()) else { return Ok(true) };
        let layout = self.layout.clone();
        let (packs, fs) = layout.packs();
        let runs = packer.write(fs, packs, self.durable).map_err(StoreError::io("write", packs.dir()))?;
        self.root()?;
        self.index.append_all(layout.fs(), &layout.index_log(), &runs, self.durable)?;
        Ok(true)
    }
}

/// Reads a store.
#[derive(Clone, Debug)]
pub struct FilesReader {
    layout: Layout,
    /// What dead processes left and nobody could write into the files.
    overlay: Arc<Overlay>,
    /// What was read and will be read once more.
    #[cfg(feature = "index")]
    again: Option<Arc<again::Again>>,
}

impl FilesReader {
    /// Opens the store at `path` for reading; it must be there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::of(Layout::new(path))
    }

    /// Opens a store for reading; it must be there.
    pub fn of(layout: Layout) -> Result<Self, StoreError> {
        layout.read()?;
        Ok(Self {
            layout,
            overlay: Arc::default(),
            #[cfg(feature = "index")]
            again: None,
        })
    }

    /// Keeps logs that are read, within bounds, until they are read a second time.
    #[cfg(feature = "index")]
    #[must_use]
    pub(crate) fn for_two(self) -> Self {
        Self { again: Some(Arc::default()), ..self }
    }

    /// Shows what is laid over the files as if it were in them.
    #[must_use]
    pub(crate) fn with(self, overlay: Overlay) -> Self {
        Self { overlay: Arc::new(overlay), ..self }
    }

    /// Returns the runs of which dead processes left something that could not be written into the files; this reader
    /// shows it all the same. See [`recovery::open`](crate::recovery::open).
    pub fn unwritten_runs(&self) -> Vec<RunId> {
        self.overlay.runs().collect()
    }

    /// Returns the store's paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns what `run.yaml` and the last line of `index.log` say of a run.
    #[cfg(test)]
    pub(crate) fn stored(&self, run: RunId) -> Result<(RunSummary, Option<RunSummary>), StoreError> {
        let indexed = index::read(self.layout.fs(), &self.layout.index_log())?.remove(&run);
        Ok((run_dir::read_summary(self.layout.fs(), &self.dir(run)?, run)?, indexed))
    }

    /// Returns the files that a run says it produced, and in which form each is in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Damaged`], and what the file system says.
    pub fn artifacts(&self, run: RunId) -> Result<Vec<StoredArtifact>, StoreError> {
        let summary = self.get_run(run)?;
        let told = match summary.artifacts_total {
            None => summary.artifacts,
            // The log has all of them.
            Some(_) => {
                let events = self.get_events(run, 0)?.into_iter();
                let artifact = |event: Event| match event.body {
                    crate::model::EventBody::Artifact(artifact) => Some(artifact),
                    _ => None,
                };
                events.filter_map(artifact).collect()
            }
        };
        let dir = self.layout.find_run(run)?.unwrap_or_default();
        told.into_iter().map(|info| artifacts::find(self.layout.fs(), &dir, info)).collect()
    }

    /// Opens a file that a run produced. What it gives is to be held against the size and the hash that the run says.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] where it is not there, and what the file system says.
    pub fn open_artifact(&self, run: RunId, info: &ArtifactInfo) -> Result<ArtifactReader, StoreError> {
        ArtifactReader::open(self.layout.fs(), &self.dir(run)?, info)
    }

    fn dir(&self, run: RunId) -> Result<PathBuf, StoreError> {
        self.layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })
    }

    /// Returns the last summary that was written of each run, newest first; damaged ones are left out.
    pub(crate) fn stored_runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        self.summaries().map(|(runs, _)| runs)
    }

    /// Returns the runs of a writer that are under way, as the files have them, and traces of at most so many of those that are
    /// over, the latest last.
    #[cfg(feature = "server")]
    pub(crate) fn runs_of_writer(&self, writer: RunId, most: usize) -> Result<(Vec<RunId>, RunsByTrace), StoreError> {
        let (_, fs) = self.layout.packs();
        let mut untold = crate::model::id::IdSet::default();
        for kind in RunKind::ALL {
            // What is packed is over.
            untold.extend(run_ids(fs, &self.layout.runs(*kind))?);
        }
        let index::OfWriter { open, over } = index::of_writer(fs, &self.layout.index_log(), writer, most, &mut untold)?;
        // Its writer died before it wrote the line.
        let is_open = |run: &RunId| {
            self.summary(*run).is_ok_and(|summary| summary.status.is_open() && summary.writer == Some(writer))
        };
        let mut open: Vec<RunId> = open.into_iter().chain(untold.into_iter().filter(is_open)).collect();
        open.sort_unstable();
        Ok((open, over.into()))
    }

    fn summary(&self, run: RunId) -> Result<RunSummary, StoreError> {
        match self.overlay.summary(run) {
            Some(summary) => Ok(summary.clone()),
            None => {
                let (fs, dir) = (self.layout.fs(), self.dir(run)?);
                let summary = run_dir::read_summary(fs, &dir, run)?;
                // The mark is what holds; the file says it once it is written again.
                Ok(RunSummary { pinned: cleanup::is_marked(fs, &dir)?, ..summary })
            }
        }
    }

    /// Returns every run's last summary, newest first, and the runs that cannot be read.
    fn summaries(&self) -> Result<(Vec<RunSummary>, Vec<DamagedRun>), StoreError> {
        let fs = self.layout.fs();
        let mut indexed = index::read(fs, &self.layout.index_log())?;
        let (mut runs, mut damaged) = (Vec::with_capacity(indexed.len()), Vec::new());
        for kind in RunKind::ALL {
            for run in run_ids(fs, &self.layout.runs(*kind))? {
                match indexed.remove(&run) {
                    Some(summary) => runs.push(summary),
                    // Nothing but artifacts yet: the run's first lines are about to be written.
                    None if !run_dir::is_begun(fs, &self.layout.run(*kind, run))? => {}
                    None => match run_dir::read_summary(fs, &self.layout.run(*kind, run), run) {
                        Ok(summary) => runs.push(summary),
                        Err(error) => damaged.push(damaged_run(run, error)?),
                    },
                }
            }
        }
        Ok(self.overlaid(runs, damaged))
    }

    /// Lays what dead processes left over what the files say, newest first.
    fn overlaid(&self, mut runs: Vec<RunSummary>, mut damaged: Vec<DamagedRun>) -> (Vec<RunSummary>, Vec<DamagedRun>) {
        let is_laid = |run: RunId| self.overlay.summary(run).is_some();
        runs.retain(|summary| !is_laid(summary.run_id));
        damaged.retain(|run| !is_laid(run.run_id));
        runs.extend(self.overlay.summaries().map(|summary| RunSummary { steps: None, ..summary.clone() }));
        runs.sort_by(|a, b| b.started_at.cmp(&a.started_at).then(b.run_id.cmp(&a.run_id)));
        (runs, damaged)
    }

    /// Returns the runs that may answer a query, newest first, and those that cannot be read.
    fn asked_for(&self, query: &Query) -> Result<(Vec<RunSummary>, Vec<DamagedRun>), StoreError> {
        #[cfg(feature = "index")]
        if let Some(found) = self.in_database(|database| database.find(query, self.overlay.summaries().count())) {
            return Ok(found);
        }
        // Without a database everything is looked at.
        let _ = query;
        self.summaries()
    }

    /// Returns the runs that an id, or the beginning of one, may mean, newest first, and those that cannot be read.
    fn named(&self, id: &str) -> Result<(Vec<RunSummary>, Vec<DamagedRun>), StoreError> {
        #[cfg(feature = "index")]
        if let Some(found) = self.in_database(|database| database.named(id)) {
            return Ok(found);
        }
        let _ = id;
        self.summaries()
    }

    /// Asks the database, once it has taken in all there is; `None` where it has not, or there is none.
    #[cfg(feature = "index")]
    fn in_database(
        &self,
        ask: impl Fn(&database::Database) -> Result<database::Found, database::DatabaseError>,
    ) -> Option<(Vec<RunSummary>, Vec<DamagedRun>)> {
        if !database::is_wanted(&self.layout) {
            return None;
        }
        let found = database::ask(&self.layout, ask)?;
        let (mut runs, mut damaged) = (found.runs, Vec::new());
        for run in found.unread {
            let is_begun = |dir: &Path| run_dir::is_begun(self.layout.fs(), dir).unwrap_or(true);
            // Gone meanwhile, or its first lines are about to be written.
            let Some(dir) = self.layout.find_run(run).ok().flatten().filter(|dir| is_begun(dir)) else { continue };
            match run_dir::read_summary(self.layout.fs(), &dir, run) {
                Ok(summary) => runs.push(summary),
                // One that cannot be read now may be all right: the walk over the store says what is the matter.
                Err(error) => damaged.push(damaged_run(run, error).ok()?),
            }
        }
        Some(self.overlaid(runs, damaged))
    }

    /// Puts in the place of what `index.log` says of runs what their own files say, of which that is a copy. Those that
    /// cannot be read are damaged. `are_live`: of those under way more is known already.
    fn checked(
        &self,
        runs: Vec<RunSummary>,
        are_live: bool,
        damaged: &mut Vec<DamagedRun>,
    ) -> Result<Vec<RunSummary>, StoreError> {
        let mut checked = Vec::with_capacity(runs.len());
        for listed in runs {
            match self.summary(listed.run_id) {
                Ok(stored) if are_live && stored.status.is_open() => checked.push(listed),
                Ok(stored) => checked.push(RunSummary { steps: None, ..stored }),
                // What was not built in says nothing of the run, of which this is all that can be known here.
                Err(StoreError::Unsupported { .. }) => checked.push(listed),
                Err(error) => damaged.push(damaged_run(listed.run_id, error)?),
            }
        }
        Ok(checked)
    }

    /// Returns a run as a list has it.
    ///
    /// # Errors
    ///
    /// As [`RunReader::get_run`].
    pub fn get_listed(&self, run: RunId) -> Result<ListedRun, StoreError> {
        let listed = self.live(self.summary(run)?)?;
        Ok(ListedRun { summary: RunSummary { steps: None, ..listed.summary }, ..listed })
    }

    /// Takes in a run's events one by one, so that a long log is not in memory; `with_content` tells of which to keep what
    /// went in and came out.
    fn fold(&self, run: RunId, mut with_content: impl FnMut(&Event) -> bool) -> Result<RunState, StoreError> {
        let mut state = RunState::new(run, run.as_trace_id());
        let mut take = |event: &Event| {
            let with_content = with_content(event);
            state.apply(event, with_content);
        };
        if self.overlay.has(run) {
            self.get_events(run, 0)?.iter().for_each(take);
        } else {
            run_dir::each_event(self.layout.fs(), &self.dir(run)?, run, |event| take(&event))?;
        }
        Ok(state)
    }

    /// Reads the state of a run as of now; see [`fold`](Self::fold).
    fn state(&self, run: RunId, with_content: impl FnMut(&Event) -> bool) -> Result<RunState, StoreError> {
        let summary = self.summary(run)?;
        let mut state = self.fold(run, with_content)?;
        if summary.status.is_open() && summary.writer.is_some_and(|writer| self.is_dead(writer)) {
            state.crash();
        }
        Ok(state)
    }

    /// Adds what is only known while the run runs.
    fn live(&self, summary: RunSummary) -> Result<ListedRun, StoreError> {
        if !summary.status.is_open() {
            return Ok(ListedRun { summary, open_steps: Vec::new() });
        }
        let run = summary.run_id;
        let mut state = self.fold(run, |_| false)?;
        if !state.has_started() {
            return Ok(ListedRun { summary, open_steps: Vec::new() });
        }
        if summary.writer.is_some_and(|writer| self.is_dead(writer)) {
            // Nobody may write here, or its journal would have been taken in by now: shown, not stored.
            state.crash();
        }
        let live = RunSummary { writer: summary.writer, pinned: summary.pinned, ..state.summary(UnixNanos::now()) };
        let open_steps = state.open_steps();
        Ok(ListedRun { summary: live, open_steps })
    }

    /// Reads the events of a run of which a summary is known.
    #[cfg(feature = "index")]
    pub(crate) fn read_events(&self, known: &RunSummary) -> Result<Arc<Vec<Event>>, StoreError> {
        if let Some(events) = self.again.as_ref().and_then(|again| again.take(known)) {
            return Ok(events);
        }
        let events = Arc::new(self.read_log_of(known)?);
        if let Some(again) = &self.again {
            again.put(known, &events);
        }
        Ok(events)
    }

    #[cfg(feature = "index")]
    fn read_log_of(&self, known: &RunSummary) -> Result<Vec<Event>, StoreError> {
        let run = known.run_id;
        if self.overlay.has(run) {
            return self.get_events(run, 0);
        }
        // Its metadata is not read at first: that takes longer than the log of a small run.
        match run_dir::read_vouched(self.layout.fs(), &self.dir(run)?, run, known.events) {
            // It may count fewer lines by now.
            Err(StoreError::Damaged { .. }) => self.get_events(run, 0),
            read => read,
        }
    }

    /// Reads a run of which a summary is known: as it stands, its state and its events.
    #[cfg(feature = "index")]
    pub(crate) fn read_run(&self, known: &RunSummary) -> Result<(RunSummary, RunState, Arc<Vec<Event>>), StoreError> {
        let run = known.run_id;
        let events = self.read_events(known)?;
        let mut state = RunState::read(run, &events);
        if !known.status.is_open() || !state.has_started() {
            return Ok((known.clone(), state, events));
        }
        if known.writer.is_some_and(|writer| self.is_dead(writer)) {
            state.crash();
        }
        let live = RunSummary { writer: known.writer, pinned: known.pinned, ..state.summary(UnixNanos::now()) };
        Ok((RunSummary { steps: None, ..live }, state, events))
    }

    /// Tells whether a run of this writer that is under way has crashed: a bridge's agents may outlive it.
    pub(crate) fn is_dead(&self, writer: RunId) -> bool {
        !writer_is_alive(&self.layout, writer)
            && !crate::journal::is_resumable_in(self.layout.fs(), &self.layout.journal(), &writer.to_string())
    }
}

impl RunReader for FilesReader {
    fn capabilities(&self) -> Capabilities {
        Capabilities { search: cfg!(feature = "index"), durable: true }
    }

    fn get_run(&self, run: RunId) -> Result<RunSummary, StoreError> {
        Ok(self.live(self.summary(run)?)?.summary)
    }

    fn list_runs(&self, query: &Query) -> Result<Vec<Listed>, StoreError> {
        let (mut runs, mut damaged) = self.asked_for(query)?;
        let is_checked = runs.len() <= CHECKED_RUNS;
        if is_checked {
            runs = self.checked(runs, false, &mut damaged)?;
        }
        // A run that is under way may have moved on from its last line; its live state decides.
        let (mut current, mut open_steps) = (Vec::with_capacity(runs.len()), HashMap::new());
        for summary in runs {
            if !summary.status.is_open() {
                current.push(summary);
                continue;
            }
            let run = summary.run_id;
            match self.live(summary) {
                Ok(live) => {
                    open_steps.insert(run, live.open_steps);
                    current.push(RunSummary { steps: None, ..live.summary });
                }
                Err(error) => damaged.push(damaged_run(run, error)?),
            }
        }
        let mut selected = query.select(current);
        if !is_checked && selected.len() <= CHECKED_RUNS {
            selected = query.select(self.checked(selected, true, &mut damaged)?);
        }
        let listed = selected.into_iter().map(|summary| {
            let open_steps = open_steps.remove(&summary.run_id).unwrap_or_default();
            Listed::Run(Box::new(ListedRun { summary, open_steps }))
        });
        let mut listed: Vec<Listed> = listed.collect();
        // A damaged run's fields are unknown, so no filter can speak for or against it.
        damaged.sort_by_key(|run| std::cmp::Reverse(run.run_id));
        listed.extend(damaged.into_iter().map(Listed::Damaged));
        Ok(listed)
    }

    fn get_events(&self, run: RunId, from_seq: u64) -> Result<Vec<Event>, StoreError> {
        if !self.overlay.has(run) {
            return run_dir::read_events(self.layout.fs(), &self.dir(run)?, run, from_seq);
        }
        let in_files = match self.layout.find_run(run)? {
            Some(dir) => run_dir::read_log(self.layout.fs(), &dir, run, None)?.0,
            None => Vec::new(),
        };
        let mut events = self.overlay.complete(run, in_files)?;
        events.retain(|event| event.seq >= from_seq);
        Ok(events)
    }

    fn get_steps(&self, run: RunId) -> Result<Vec<StepView>, StoreError> {
        Ok(self.state(run, |_| true)?.step_views())
    }

    fn get_outline(&self, run: RunId) -> Result<Vec<StepView>, StoreError> {
        // The parent of a root may be elsewhere; the first of all steps tends to be one.
        let mut first = std::collections::HashSet::new();
        let with_content = |event: &Event| {
            let Some((span, ..)) = event.body.span() else { return false };
            if event.seq < FIRST_EVENTS {
                first.insert(span.span_id.clone());
            }
            span.parent_span_id.is_empty() || first.contains(&span.span_id)
        };
        Ok(self.state(run, with_content)?.step_views())
    }

    #[cfg(feature = "index")]
    fn search(&self, text: &str, query: &Query) -> Result<Vec<Listed>, StoreError> {
        use database::text;
        if !text::is_allowed(&self.layout)? {
            return Err(StoreError::Unsupported { what: "search", why: "it is switched off for this store" });
        }
        let wanted = text::Wanted { query: text, filters: query, limit: query.limit, hits: 0 };
        let found = text::search(self, &wanted, &mut |_| {}).map_err(|error| match error {
            text::SearchError::Query(error) => StoreError::BadQuery { what: error.what, at: error.at },
            text::SearchError::Index(error) => {
                StoreError::BadStore { path: text::path(&self.layout), why: error.to_string() }
            }
        })?;
        let listed = found.into_iter().map(|found| match self.get_listed(found.run_id) {
            Ok(run) => Ok(Listed::Run(Box::new(run))),
            Err(error) => damaged_run(found.run_id, error).map(Listed::Damaged),
        });
        listed.collect()
    }

    #[cfg(not(feature = "index"))]
    fn search(&self, _: &str, _: &Query) -> Result<Vec<Listed>, StoreError> {
        Err(StoreError::Unsupported { what: "search", why: "the feature `index` is not built in" })
    }

    fn resolve(&self, id: &str) -> Result<RunId, StoreError> {
        if let Ok(run) = id.parse::<RunId>() {
            let is_there = self.overlay.has(run) || self.layout.find_run(run)?.is_some();
            return is_there.then_some(run).ok_or_else(|| StoreError::NotFound { id: id.to_owned() });
        }
        let (runs, damaged) = self.named(id)?;
        match resolve_among(id, runs.iter()) {
            Err(StoreError::NotFound { .. }) => {
                let wanted = id.to_ascii_uppercase();
                let found = damaged.iter().map(|run| run.run_id).filter(|run| run.to_string().starts_with(&wanted));
                super::one_of(id, found.collect())
            }
            resolved => resolved,
        }
    }
}

/// Refuses a run of another process that lives, or that nobody has taken over yet.
///
/// One that is done with it may be gone on with: a run that waits for an answer gets it in another process. Of two
/// that want to at once, the lock on the log lets one.
///
/// Returns how many lines the run's log has to have at least.
fn check_writer(layout: &Layout, writer: RunId, dir: &Path, run: RunId) -> Result<u64, StoreError> {
    // A run that cannot be read belongs to nobody, and says so when its log is opened.
    let summary = match run_dir::read_summary(layout.fs(), dir, run) {
        Ok(summary) => summary,
        Err(StoreError::Damaged { .. }) => return Ok(0),
        Err(error) => return Err(error),
    };
    let Some(theirs) = summary.writer.filter(|id| *id != writer) else { return Ok(summary.events) };
    let journal = layout.journal().join(theirs.to_string());
    match layout::stat(layout.fs(), &journal).map_err(StoreError::io("read", journal))? {
        Some(_) => Err(StoreError::InUse { run }),
        None => Ok(summary.events),
    }
}

/// Returns which directory a store is; a link to one is followed.
fn identity(layout: &Layout) -> std::io::Result<Identity> {
    layout.fs().stat(&layout.root().join(".")).map(|found| found.identity)
}

/// Shows a run that cannot be read as such, unless the trouble is that of the whole process.
fn damaged_run(run: RunId, error: StoreError) -> Result<DamagedRun, StoreError> {
    let error = match error {
        StoreError::Damaged { why, .. } => why,
        exhausted if exhausted.is_out_of_resources() => return Err(exhausted),
        other => with_causes(&other),
    };
    Ok(DamagedRun { run_id: run, status: "damaged", error })
}

/// Lists the runs in a folder; what is not named by a ULID, and links, are no runs.
fn run_ids(fs: &dyn Fs, dir: &Path) -> Result<Vec<RunId>, StoreError> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", dir)(error)),
    };
    Ok(entries.into_iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok()).collect())
}

/// Tells whether the process that writes a run still holds the lock of its journal.
fn writer_is_alive(layout: &Layout, writer: RunId) -> bool {
    lock::is_held(layout.fs(), &layout.journal().join(writer.to_string())).unwrap_or(false)
}
