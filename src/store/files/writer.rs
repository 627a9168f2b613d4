//! The writer of one process's runs.

mod hold;

pub(super) use hold::whole_folder;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::layout::{self, Layout};
use super::naming::Turn;
use super::run_dir::{self, EventLog};
use super::{cleanup, index, links, packs};
use crate::fs::{Identity, sync_way_to};
use crate::model::id::{IdMap, IdSet};
use crate::model::{Event, RunId, RunKind, RunSummary, TraceId};
use crate::store::{RunWriter, StoreError};

/// Room for lines is kept up to this many bytes: one huge prompt must not stay in memory.
const MAX_SPARE_LINES: usize = 1 << 20;

/// So many runs are remembered whose lines are written.
const MAX_LISTED: usize = 65_536;

/// So many runs are remembered of which the store has nothing, and for so long: little beside the time for which a run waits for its pack.
const MOST_NEW: usize = 4096;
const A_MOMENT: Duration = Duration::from_millis(50);

/// Logs of runs have so many files open at most, and an eighth of what the process may have.
const MOST_AWAKE: usize = 256;
const LEAST_AWAKE: usize = 8;

/// Returns how many logs may have their files open at a time.
fn most_awake() -> usize {
    let allowed = crate::fs::descriptors().map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX));
    (allowed / 8).clamp(LEAST_AWAKE, MOST_AWAKE)
}

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
    /// Those whose logs have their files open, as they were opened, and others since let go of.
    awake: VecDeque<RunId>,
    index: index::IndexLog,
    /// Runs that are there and whose lines could not be written to the log of all runs.
    unlisted: Vec<RunSummary>,
    /// Runs of packs whose lines this writer has written, the latest: told again, they need no other.
    listed: IdSet<RunId>,
    /// Room for the lines of one write, used again and again.
    lines: Vec<u8>,
    /// Runs that come whole wait here for others; `None`: each gets a folder.
    packer: Option<packs::Packer>,
    /// Runs that were looked for and are not there, and when.
    new: IdMap<RunId, Instant>,
    /// So many lines a run had when this writer read or wrote it last.
    lines_of: IdMap<RunId, u64>,
    /// Another process has given runs their names since those that wait were looked for.
    is_after_others: bool,
    /// When the store was seen in its place last, for who only looks.
    seen: Option<Instant>,
    /// Runs that are in no pack, being long, and have no folder yet.
    unfit: Vec<packs::Whole>,
    /// Runs were lost that wait for their pack. Said with the next look at what waits, whoever was told of it before: until
    /// then nothing of them may be acknowledged.
    has_lost: bool,
}

#[derive(Debug)]
struct OpenRun {
    dir: PathBuf,
    log: EventLog,
    /// It is over: who removes, seals or packs runs that are knows by the lock of its log alone that this process has it.
    is_over: bool,
    /// It was asked for since it was looked at for one to put by.
    is_used: bool,
}

impl OpenRun {
    fn new(dir: PathBuf, log: EventLog, is_over: bool) -> Self {
        Self { dir, log, is_over, is_used: true }
    }
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
            awake: VecDeque::new(),
            index: Default::default(),
            unlisted: Vec::new(),
            listed: IdSet::default(),
            lines: Vec::new(),
            packer: None,
            new: IdMap::default(),
            lines_of: IdMap::default(),
            is_after_others: true,
            seen: None,
            unfit: Vec::new(),
            has_lost: false,
        }
    }

    /// Writes small runs that come whole into packs, many to a file. They are there once
    /// [`write_held`](RunWriter::write_held) says so. What a dead writer left of a pack goes.
    #[cfg(any(feature = "server", test))]
    #[must_use]
    pub(crate) fn with_packs(self) -> Self {
        let (packs, fs) = self.layout.packs();
        packs.remove_unfinished(fs);
        let packer = Some(packs::Packer::new(self.writer).with_line(packs));
        Self { packer, ..self }
    }

    /// The same, however few runs there are.
    #[cfg(test)]
    pub(crate) fn with_packs_of_any(self) -> Self {
        let packer = Some(packs::Packer::new(self.writer).with_line(self.layout.packs().0).of_any());
        Self { packer, ..self }
    }

    /// Closes the files of all logs, as those are that have not been written to for long.
    #[cfg(test)]
    pub(super) fn put_all_by(&mut self) {
        self.open.values_mut().for_each(|open| open.log.put_by());
    }

    /// Brings what is written to the disk from now on, and each run that is gone on with as it stands.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn make_durable(&mut self) {
        (self.durable, self.is_rooted) = (true, false);
        self.open.clear();
        self.index = Default::default();
    }

    /// Notes that the store has nothing of a run, as was found a moment ago.
    fn note_new(&mut self, run: RunId) {
        if self.packer.is_some() {
            if self.new.len() >= MOST_NEW {
                self.new.clear();
            }
            self.new.insert(run, Instant::now());
        }
    }

    /// Tells whether the store has nothing of a run.
    ///
    /// Of one that was looked for a moment ago it is known: it waits longer than that for its pack, in which nobody looks either.
    fn is_new(&mut self, run: RunId) -> Result<bool, StoreError> {
        match self.new.remove(&run) {
            Some(looked) if looked.elapsed() < A_MOMENT => Ok(true),
            _ => Ok(self.layout.find_run(run)?.is_none()),
        }
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
        self.catch_up(run)?;
        let waited = self.waiting(run).is_some();
        self.let_go(run)?;
        if waited {
            // Its lines are read, so that those told again are passed over.
            self.open.remove(&run);
        }
        if !self.open.contains_key(&run) {
            self.check_place()?;
            let dir = self.layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
            self.open_again(dir, run)?;
        }
        self.wake(run)?;
        match self.open.entry(run) {
            Entry::Occupied(entry) => {
                let open = entry.into_mut();
                open.is_used = true;
                Ok(open)
            }
            Entry::Vacant(_) => Err(StoreError::NotFound { id: run.to_string() }),
        }
    }

    /// Opens the log of a run that was put by.
    fn wake(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(open) = self.open.get_mut(&run).filter(|open| open.log.is_put_by()) else { return Ok(()) };
        if open.log.wake(self.layout.fs())? {
            self.note_awake(run);
            return Ok(());
        }
        // Somebody has changed it, or it stands elsewhere.
        self.open.remove(&run);
        let dir = self.layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
        self.open_again(dir, run)
    }

    /// Opens the log of a run of which this writer knows how many lines it has.
    fn open_again(&mut self, dir: PathBuf, run: RunId) -> Result<(), StoreError> {
        let lines = self.open_in(dir, run)?.len() as u64;
        self.check_lines(run, lines).inspect_err(|_| drop(self.open.remove(&run)))
    }

    /// Refuses a run that another has gone on with since this writer read or wrote it last: what is to come behind its lines would come
    /// behind those of the other.
    fn check_lines(&mut self, run: RunId, lines: u64) -> Result<(), StoreError> {
        match self.lines_of.insert(run, lines) {
            Some(known) if known != lines => {
                self.lines_of.remove(&run);
                Err(StoreError::Overtaken { run })
            }
            _ => Ok(()),
        }
    }

    /// Notes how many lines a run has, as this writer has just written them.
    fn note_lines(&mut self, run: RunId, lines: u64) {
        self.lines_of.insert(run, lines);
    }

    /// Closes the log of a run.
    fn close(&mut self, run: RunId) {
        if self.open.remove(&run).is_some()
            && let Some(packer) = &mut self.packer
        {
            packer.note_released(run);
        }
    }

    /// Takes a turn at giving names.
    fn take_turn(&mut self) -> Result<Turn, StoreError> {
        let turn = Turn::take(self.layout.fs(), &self.layout.naming(), self.writer)?;
        if turn.is_after_others {
            self.note_others();
        }
        Ok(turn)
    }

    /// Notes that what was found not to be there may be there now.
    fn note_others(&mut self) {
        self.is_after_others = true;
        self.new.clear();
        self.layout.packs().0.forget();
    }

    /// Notes that a log has its file open, and puts by those of runs under way that were not asked for in a while: more runs may be
    /// under way than a process may have files open, and its host needs some, too.
    fn note_awake(&mut self, run: RunId) {
        self.awake.retain(|other| *other != run);
        self.awake.push_back(run);
        // Asked each time: it may be changed while the process runs.
        let most = most_awake();
        if self.awake.len() <= most {
            return;
        }
        let open = &self.open;
        self.awake.retain(|run| open.get(run).is_some_and(|open| !open.log.is_put_by()));
        // Who was asked for has one more turn.
        for _ in 0..2 * self.awake.len() {
            let Some(oldest) = (if self.awake.len() > most { self.awake.pop_front() } else { None }) else { return };
            let Some(open) = self.open.get_mut(&oldest) else { continue };
            if oldest != run && !open.is_over && !std::mem::take(&mut open.is_used) {
                open.log.put_by();
            }
            if !open.log.is_put_by() {
                self.awake.push_back(oldest);
            }
        }
    }

    /// Opens the log of a run that is there, and returns its events.
    fn open_in(&mut self, dir: PathBuf, run: RunId) -> Result<Vec<Event>, StoreError> {
        let (vouched, is_over) = check_writer(&self.layout, self.writer, &dir, run)?;
        let (log, events) = EventLog::open(self.layout.fs(), &dir, run, vouched, self.durable)?;
        run_dir::remove_leftovers(self.layout.fs(), &dir);
        if self.durable {
            // Whoever made it may have died, or failed, before all its names were on the disk.
            self.sync_names(&dir)?;
        }
        self.open.insert(run, OpenRun::new(dir, log, is_over));
        self.note_awake(run);
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
            log.write_chain(fs, making, &mut self.lines);
        }
        run_dir::write_first_summary(fs, making, &signed, self.durable)?;
        if self.durable {
            layout::sync_dir(fs, making)?;
        }
        let turn = self.take_turn()?;
        if self.is_after_others && layout.find_run(signed.run_id)?.is_some() {
            drop(turn);
            fs.remove_tree(making).map_err(StoreError::io("delete", making))?;
            return Err(StoreError::Overtaken { run: signed.run_id });
        }
        // What waits was not looked for just now.
        self.is_after_others &= self.packer.is_some();
        fs.rename(making, &dir).map_err(StoreError::io("create", &dir))?;
        // One that takes no turns may have made one of the same id in the folder of another kind, and readers see one of them.
        let others = RunKind::ALL.iter().filter(|kind| **kind != signed.kind);
        for other in others.map(|kind| layout.run(*kind, signed.run_id)) {
            if layout::stat(fs, &other).map_err(StoreError::io("read", &other))?.is_some() {
                let gone = dir.with_file_name(format!("{}{}", cleanup::GONE_PREFIX, signed.run_id));
                let undone = fs.rename(&dir, &gone).and_then(|()| fs.remove_tree(&gone));
                undone.map_err(StoreError::io("delete", &dir))?;
                return Err(StoreError::Overtaken { run: signed.run_id });
            }
        }
        drop(turn);
        if let Some(parent) = dir.parent().filter(|_| self.durable) {
            layout::sync_dir(fs, parent)?;
        }
        self.root()?;
        // A log that is open does not know what this call has put into it: what is told again after an error would stand
        // there twice. So it is kept only once nothing can fail.
        self.index.append(fs, &layout.index_log(), &signed, self.durable)?;
        log.moved_to(&dir);
        self.note_lines(signed.run_id, log.lines());
        self.open.insert(signed.run_id, OpenRun::new(dir, log, !signed.status.is_open()));
        self.note_awake(signed.run_id);
        Ok(())
    }

    /// Takes out of the log of all runs what it says of one that has gone.
    fn tell_removed(&mut self, run: RunId) -> Result<(), StoreError> {
        self.unlisted.retain(|unlisted| unlisted.run_id != run);
        self.listed.remove(&run);
        let (fs, log) = (self.layout.fs(), self.layout.index_log());
        // The index knows the log by the bytes before the place that it has read up to.
        index::pad(fs, &log)?;
        index::blank(fs, &log, &[run].into_iter().collect(), false).map(drop)
    }

    /// Appends lines of runs to the log of all runs. What there is no room for now comes before the next.
    fn list(&mut self, runs: impl IntoIterator<Item = RunSummary>) -> Result<(), StoreError> {
        self.unlisted.extend(runs);
        if self.unlisted.is_empty() {
            return Ok(());
        }
        self.index.append_all(self.layout.fs(), &self.layout.index_log(), &self.unlisted, self.durable)?;
        if self.listed.len() + self.unlisted.len() > MAX_LISTED {
            self.listed.clear();
        }
        self.listed.extend(self.unlisted.drain(..).map(|run| run.run_id));
        Ok(())
    }

    /// Refuses a run that was not there and that another process has made since.
    fn check_ours(&self, dir: &Path, run: RunId) -> Result<(), StoreError> {
        match run_dir::read_summary(self.layout.fs(), dir, run) {
            Ok(RunSummary { writer: Some(theirs), .. }) if theirs != self.writer => Err(StoreError::Overtaken { run }),
            // What cannot be read is told of when it is opened.
            _ => Ok(()),
        }
    }

    fn publish(&mut self, dir: &Path, summary: &RunSummary, writer: Option<RunId>) -> Result<(), StoreError> {
        let pinned = cleanup::is_marked(self.layout.fs(), dir)?;
        let mut signed = RunSummary { writer, pinned, ..summary.clone() };
        if let Some(open) = self.open.get_mut(&summary.run_id) {
            open.is_over = !summary.status.is_open();
            signed.events_sha256 = open.log.hash_for(summary);
            if !summary.status.is_open() {
                open.log.write_chain(self.layout.fs(), dir, &mut self.lines);
            }
        }
        run_dir::write_summary(self.layout.fs(), dir, &signed, self.durable)?;
        // The last line of a run is the one that holds.
        self.unlisted.retain(|unlisted| unlisted.run_id != summary.run_id);
        self.index.append(self.layout.fs(), &self.layout.index_log(), &signed, self.durable)
    }
}

impl RunWriter for FilesWriter {
    fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
        self.catch_up(summary.run_id)?;
        match self.layout.find_run(summary.run_id)? {
            // Looked at again when it is written.
            None if self.hold(summary, events) => Ok(()),
            None => self.check_place().and_then(|()| self.make_run(summary, events)),
            Some(dir) => {
                self.check_place()?;
                if run_dir::has_summary(self.layout.fs(), &dir)? {
                    self.check_ours(&dir, summary.run_id)?;
                    return self.append_events(summary.run_id, events);
                }
                // The folder alone may be there already: an artifact can be kept before the run's first line is written.
                // Its summary must not speak of lines that are not there yet.
                self.publish(&dir, &RunSummary { events: 0, ..summary.clone() }, Some(self.writer))?;
                self.append_events(summary.run_id, events)?;
                self.publish(&dir, summary, Some(self.writer))
            }
        }
    }

    fn create_whole(&mut self, summary: &RunSummary, events: &mut Vec<Event>) -> Result<(), StoreError> {
        self.catch_up(summary.run_id)?;
        if self.packer.is_some() && self.is_new(summary.run_id)? && self.hold_behind(summary, events)? {
            return Ok(());
        }
        self.create_run(summary, events)
    }

    fn has_run(&mut self, run: RunId) -> Result<bool, StoreError> {
        self.catch_up(run)?;
        Ok(self.waiting(run).is_some() || self.layout.find_run(run)?.is_some())
    }

    fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        // Where the store is not in its place no run is there, which says nothing. Each write looks anew.
        if self.packer.is_none() || self.seen.is_none_or(|seen| seen.elapsed() >= A_MOMENT) {
            self.check_place()?;
            self.seen = Some(Instant::now());
        }
        self.catch_up(run)?;
        if let Some(held) = self.waiting(run) {
            return self.events_of(held).map(Some);
        }
        self.let_go(run)?;
        let Some(dir) = self.layout.find_run(run)? else {
            self.note_new(run);
            return Ok(None);
        };
        // Its lock is ours perhaps, from before.
        self.open.remove(&run);
        if self.is_packed(&dir)? {
            // It gets its folder back when something is to be written.
            let (vouched, _) = check_writer(&self.layout, self.writer, &dir, run)?;
            let events = run_dir::read_vouched(self.layout.fs(), &dir, run, vouched)?;
            return self.check_lines(run, events.len() as u64).map(|()| Some(events));
        }
        let events = self.open_in(dir, run)?;
        self.check_lines(run, events.len() as u64).map(|()| Some(events))
    }

    fn look_at(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        self.catch_up(run)?;
        if let Some(held) = self.waiting(run) {
            return self.events_of(held).map(Some);
        }
        let Some(dir) = self.layout.find_run(run)? else { return Ok(None) };
        run_dir::read_events(self.layout.fs(), &dir, run, 0).map(Some)
    }

    #[cfg(feature = "server")]
    fn over_by_others(
        &mut self,
        most: usize,
        is_wanted: &dyn Fn(TraceId, RunId) -> bool,
    ) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        self.index.over_by_others(self.layout.fs(), &self.layout.index_log(), self.writer, most, is_wanted)
    }

    fn note_link(&mut self, trace: TraceId, run: Option<RunId>) -> Result<(), StoreError> {
        let path = self.layout.links();
        links::note(self.layout.fs(), &path, trace, run).map_err(StoreError::io("write", path))
    }

    fn noted_links(&mut self, most: usize) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        let path = self.layout.links();
        links::read(self.layout.fs(), &path, most).map_err(StoreError::io("read", path))
    }

    fn replace_links(&mut self, links: &[(TraceId, RunId)]) -> Result<(), StoreError> {
        let path = self.layout.links();
        links::write(self.layout.fs(), &path, links).map_err(StoreError::io("write", path))
    }

    fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        self.catch_up(run)?;
        if events.is_empty() && self.waiting(run).is_some() {
            return Ok(());
        }
        if events.is_empty()
            && !self.open.contains_key(&run)
            && let Some(dir) = self.layout.find_run(run)?
            && self.is_packed(&dir)?
        {
            return Ok(());
        }
        let (durable, mut lines) = (self.durable, std::mem::take(&mut self.lines));
        let appended =
            self.open(run).and_then(|run| run.log.append(events, durable, &mut lines).map(|()| run.log.lines()));
        let appended = appended.map(|lines| self.note_lines(run, lines));
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
            Ok(open.log.lines())
        });
        let replaced = replaced.map(|lines| self.note_lines(run, lines));
        if lines.capacity() <= MAX_SPARE_LINES {
            self.lines = lines;
        }
        replaced
    }

    fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        self.check_place()?;
        self.catch_up(summary.run_id)?;
        if self.waiting(summary.run_id).is_some_and(|held| hold::says(&held.summary, summary)) {
            return Ok(());
        }
        if let Some(said) = self.said(summary)? {
            // Who told it before may have had no time, or no room, for its line.
            return if self.listed.contains(&said.run_id) { Ok(()) } else { self.list([said]) };
        }
        let dir = self.open(summary.run_id)?.dir.clone();
        self.publish(&dir, summary, Some(self.writer))
    }

    fn delete_run(&mut self, run: RunId) -> Result<(), StoreError> {
        self.catch_up(run)?;
        self.let_go(run)?;
        self.open.remove(&run);
        self.lines_of.remove(&run);
        self.check_place()?;
        let Some(dir) = self.layout.find_run(run)? else {
            // It may have gone before, and its lines could not be taken out.
            let (_, told) = index::leads(self.layout.fs(), &self.layout.index_log())?;
            return if told.contains(&run) { self.tell_removed(run) } else { Ok(()) };
        };
        if self.is_packed(&dir)? {
            return match self.layout.remove_packed(&[run], packs::Gone::Deleted, false).remove(&run) {
                Some(packs::Removal::Failed(error)) => Err(StoreError::io("delete", &dir)(error)),
                _ => self.tell_removed(run),
            };
        }
        // First out of sight under a name that no reader takes for a run, then away. By that name those know it who find its lines in the log
        // of all runs meanwhile: the next cleanup goes on where this process dies.
        let gone = dir.with_file_name(format!("{}{run}", cleanup::GONE_PREFIX));
        let layout = self.layout.clone();
        let fs = layout.fs();
        if layout::stat(fs, &gone).map_err(StoreError::io("read", &gone))?.is_some() {
            // Of a run of the same id that was removed before.
            fs.remove_tree(&gone).map_err(StoreError::io("delete", &gone))?;
        }
        fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir))?;
        if let Some(parent) = dir.parent().filter(|_| self.durable) {
            // Before its files go: else half of it may be there again after a loss of power.
            layout::sync_dir(fs, parent)?;
        }
        self.tell_removed(run)?;
        fs.remove_tree(&gone).map_err(StoreError::io("delete", &gone))
    }

    fn hand_on_pin(&mut self, from: RunId, to: RunId) -> Result<bool, StoreError> {
        if !self.is_pinned(from)? {
            return Ok(false);
        }
        let dir = self.open(to)?.dir.clone();
        cleanup::mark_folder(self.layout.fs(), &dir)?;
        Ok(true)
    }

    fn is_pinned(&self, run: RunId) -> Result<bool, StoreError> {
        // One in a pack is not pinned: it would have a folder.
        self.layout.find_run(run)?.map_or(Ok(false), |dir| cleanup::is_marked(self.layout.fs(), &dir))
    }

    fn drop_pin(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(dir) = self.layout.find_run(run)? else { return Ok(()) };
        cleanup::unmark_folder(self.layout.fs(), &dir)?;
        if self.durable { layout::sync_dir(self.layout.fs(), &dir) } else { Ok(()) }
    }

    fn disown_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        let Some(open) = self.open.get(&summary.run_id) else { return Ok(()) };
        let dir = open.dir.clone();
        self.publish(&dir, summary, None)
    }

    fn release_run(&mut self, run: RunId) {
        self.lines_of.remove(&run);
        self.close(run);
    }

    fn write_held(&mut self, all: bool) -> Result<bool, StoreError> {
        self.write_what_waits(all)
    }
}

/// Refuses a run of another process that lives, or that nobody has taken over yet.
///
/// One that is done with it may be gone on with: a run that waits for an answer gets it in another process. Of two
/// that want to at once, the lock on the log lets one.
///
/// Returns how many lines the run's log has to have at least, and whether the run is over.
fn check_writer(layout: &Layout, writer: RunId, dir: &Path, run: RunId) -> Result<(u64, bool), StoreError> {
    // A run that cannot be read belongs to nobody, and says so when its log is opened.
    let summary = match run_dir::read_summary(layout.fs(), dir, run) {
        Ok(summary) => summary,
        Err(error @ StoreError::Damaged { .. }) if run_dir::is_newer(layout.fs(), dir)? => return Err(error),
        Err(StoreError::Damaged { .. }) => return Ok((0, true)),
        Err(error) => return Err(error),
    };
    let known = (summary.events, !summary.status.is_open());
    let Some(theirs) = summary.writer.filter(|id| *id != writer) else { return Ok(known) };
    let journal = layout.journal().join(theirs.to_string());
    match layout::stat(layout.fs(), &journal).map_err(StoreError::io("read", journal))? {
        Some(_) => Err(StoreError::InUse { run }),
        None => Ok(known),
    }
}

/// Returns which directory a store is; a link to one is followed.
fn identity(layout: &Layout) -> std::io::Result<Identity> {
    layout.fs().stat(&layout.root().join(".")).map(|found| found.identity)
}

#[cfg(test)]
mod tests;
