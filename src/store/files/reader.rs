//! Reads runs: their folders, the log of all runs, and what dead processes left beside both.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "index")]
use super::again;
use super::artifacts::{self, ArtifactReader, StoredArtifact};
#[cfg(feature = "index")]
use super::database;
use super::layout::Layout;
use super::overlay::Overlay;
use super::{cleanup, index, run_dir, run_ids, writer_is_alive};
use crate::error::with_causes;
use crate::model::run::ArtifactInfo;
use crate::model::{Event, RunId, RunKind, RunSummary, StepView, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::{
    Capabilities, DamagedRun, Listed, ListedRun, Query, RunReader, StoreError, newest_first, resolve_among,
};

/// Up to this many listed runs have their `run.yaml` read as well, so that a damaged one shows as damaged and none is shown
/// by a line of `index.log` that is not its last.
const CHECKED_RUNS: usize = 200;

/// Of the steps that so many events of a run tell of first, an outline has what went in and came out.
const FIRST_EVENTS: u64 = 100;

/// Reads a store.
#[derive(Clone, Debug)]
pub struct FilesReader {
    layout: Layout,
    /// What dead processes left and nobody could write into the files.
    pub(super) overlay: Arc<Overlay>,
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

    /// Returns the runs that a query asks for as they were summed up last: what one that is under way has used may be more by now.
    /// No log is read for it, so that it may be asked often, however long the runs are. Damaged runs are left out.
    ///
    /// # Errors
    ///
    /// As [`RunReader::list_runs`].
    pub fn list_summed_up(&self, query: &Query) -> Result<Vec<RunSummary>, StoreError> {
        Ok(query.select(self.asked_for(query)?.0))
    }

    /// Tells whether the log of all runs tells of any that were not removed by a command: where a store has none of them, their files
    /// were taken away.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn tells_of_runs(&self) -> Result<bool, StoreError> {
        Ok(!index::read(self.layout.fs(), &self.layout.index_log())?.is_empty())
    }

    /// Returns the files of many runs that cannot be read, or not whole, and why: what is in them is missing wherever runs are looked
    /// for.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn unreadable_packs(&self) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let (packs, fs) = self.layout.packs();
        let unreadable = packs.unreadable(fs).map_err(StoreError::io("read", packs.dir()))?;
        Ok(unreadable.into_iter().map(|(path, _, why)| (path, why)).collect())
    }

    /// Returns the last summary that was written of each run, newest first; damaged ones are left out.
    pub(crate) fn stored_runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        self.summaries().map(|(runs, _)| runs)
    }

    /// Returns the runs of a writer that are under way, as the files have them, and those that were the last it did: it died before it
    /// wrote their lines, so nothing else tells whoever goes on for it that they are there.
    #[cfg(feature = "server")]
    pub(crate) fn left_by(&self, writer: RunId) -> Result<Vec<RunId>, StoreError> {
        let (packs, fs) = self.layout.packs();
        let latest = packs.latest_runs(fs).map_err(StoreError::io("read", packs.dir()))?;
        let mut untold: crate::model::id::IdSet<RunId> = latest.into_iter().collect();
        for kind in RunKind::ALL {
            untold.extend(run_ids(fs, &self.layout.runs(*kind))?);
        }
        let open = index::open_of_writer(fs, &self.layout.index_log(), writer, &mut untold)?;
        let is_its = |run: &RunId| self.summary(*run).is_ok_and(|summary| summary.writer == Some(writer));
        let mut left: Vec<RunId> = open.into_iter().chain(untold.into_iter().filter(is_its)).collect();
        left.sort_unstable();
        Ok(left)
    }

    pub(super) fn summary(&self, run: RunId) -> Result<RunSummary, StoreError> {
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
    pub(super) fn summaries(&self) -> Result<(Vec<RunSummary>, Vec<DamagedRun>), StoreError> {
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
        runs.sort_by(newest_first);
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
            let is_begun = |dir: &std::path::Path| run_dir::is_begun(self.layout.fs(), dir).unwrap_or(true);
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
        let Some(again) = &self.again else { return Ok(Arc::new(self.read_log_of(known)?)) };
        let is_laid = self.overlay.has(known.run_id);
        let events = match self.layout.packs().0.fresh().take(known).filter(|_| !is_laid) {
            Some(written) => written,
            None => Arc::new(self.read_log_of(known)?),
        };
        again.put(known, &events);
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
                crate::store::one_of(id, found.collect())
            }
            resolved => resolved,
        }
    }
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
