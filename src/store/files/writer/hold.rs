//! Which runs of a writer wait for others, to be written into one pack with them.

use std::path::{Path, PathBuf};

use super::super::chain;
use super::super::layout::{self, Layout};
use super::super::naming::Turn;
use super::super::packs::{self, Held, Packer, Received};
use super::super::run_dir::{self, LogLock};
use super::{EventLog, FilesWriter};
use crate::model::{Event, RunId, RunSummary};
use crate::store::{RunWriter, StoreError};

impl FilesWriter {
    pub(super) fn is_packed(&self, dir: &Path) -> Result<bool, StoreError> {
        self.layout.is_packed(dir).map_err(StoreError::io("read", dir))
    }

    /// Returns what the metadata of a run in a pack says, if that is this: told once more, it stays there.
    pub(super) fn said(&self, summary: &RunSummary) -> Result<Option<RunSummary>, StoreError> {
        let (run, dir) = (summary.run_id, self.layout.run(summary.kind, summary.run_id));
        if self.open.contains_key(&run) || !self.is_packed(&dir)? {
            return Ok(None);
        }
        let said = run_dir::read_summary(self.layout.fs(), &dir, run)?;
        Ok(says(&said, summary).then_some(said))
    }

    /// Returns a run that waits for its pack and has no folder.
    pub(super) fn waiting(&self, run: RunId) -> Option<&Held> {
        self.packer.as_ref()?.waiting(run).filter(|held| !held.has_folder())
    }

    /// Returns the events of a run that waits: it gets a folder when something is to be written, and not for being asked
    /// after. A server that begins again from its journal asks after all that wait.
    pub(super) fn events_of(&self, held: &Held) -> Result<Vec<Event>, StoreError> {
        let RunSummary { run_id, kind, events, .. } = held.summary;
        let dir = self.layout.run(kind, run_id);
        let (_, lines) = held.body().map_err(StoreError::io("read", &dir))?;
        run_dir::read_given(&lines, &dir, run_id, events)
    }

    /// Takes a run that has come whole for the next pack; tells whether that may be.
    pub(super) fn hold(&mut self, summary: &RunSummary, events: &[Event]) -> bool {
        let packer = self.packer.as_mut().filter(|_| Packer::takes(summary, 0));
        let is_held = packer.is_some_and(|packer| packer.hold_whole(summary, events));
        if is_held {
            self.note_lines(summary.run_id, events.len() as u64);
        }
        is_held
    }

    /// Has a run that has come whole, and is not here already, made ready for the next pack while others come; gives its
    /// events back where that may not be.
    pub(super) fn hold_behind(&mut self, summary: &RunSummary, events: &mut Vec<Event>) -> Result<bool, StoreError> {
        while self.receive(self.packer.as_ref().is_some_and(Packer::is_line_full))? {}
        let Some(packer) = self.packer.as_mut().filter(|_| Packer::takes(summary, 0)) else { return Ok(false) };
        let lines = events.len() as u64;
        let whole = Box::new(packs::Whole { summary: summary.clone(), events: std::mem::take(events) });
        match packer.send(whole) {
            Ok(()) => {
                self.note_lines(summary.run_id, lines);
                Ok(true)
            }
            Err(unsent) => {
                *events = unsent.events;
                Ok(false)
            }
        }
    }

    /// Waits until a run that is being made ready waits for its pack, or has its folder.
    pub(super) fn catch_up(&mut self, run: RunId) -> Result<(), StoreError> {
        while self.packer.as_ref().is_some_and(|packer| packer.is_in_line(run)) {
            self.receive(true)?;
        }
        self.place_unfit(|whole| whole.summary.run_id == run)
    }

    /// Takes a run that was made ready; tells whether there was one.
    fn receive(&mut self, waits: bool) -> Result<bool, StoreError> {
        let Some(packer) = &mut self.packer else { return Ok(false) };
        match packer.receive(waits) {
            Ok(None) => Ok(false),
            Ok(Some(Received::Waits)) => Ok(true),
            Ok(Some(Received::Unfit(whole))) => {
                self.unfit.push(*whole);
                Ok(true)
            }
            Err(died) => {
                self.has_lost = true;
                Err(died.told(self.layout.packs().0.dir()))
            }
        }
    }

    /// Gives folders to those of the runs that are in no pack; where there is none now, one waits on, and the others do
    /// not for it.
    fn place_unfit(&mut self, is_asked: impl Fn(&packs::Whole) -> bool) -> Result<(), StoreError> {
        let mut placed = Ok(());
        for whole in std::mem::take(&mut self.unfit) {
            let outcome = if is_asked(&whole) { self.place_whole(&whole).map(|()| true) } else { Ok(false) };
            if !matches!(outcome, Ok(true)) {
                self.unfit.push(whole);
            }
            placed = placed.and(outcome.map(drop));
        }
        placed
    }

    fn place_whole(&mut self, whole: &packs::Whole) -> Result<(), StoreError> {
        let packs::Whole { summary, events } = whole;
        self.check_place()?;
        let is_known = self.lines_of.contains_key(&summary.run_id);
        match self.layout.find_run(summary.run_id)? {
            None => self.make_run(summary, events)?,
            // It was made, and what failed came behind that.
            Some(dir) => {
                self.create_run(summary, events)?;
                self.publish(&dir, summary, Some(self.writer))?;
            }
        }
        // It was let go of while it was made ready, or will be.
        self.close(summary.run_id);
        if !is_known {
            self.lines_of.remove(&summary.run_id);
        }
        Ok(())
    }

    /// Makes a folder of a run that waits for its pack, so that it can be gone on with.
    pub(super) fn let_go(&mut self, run: RunId) -> Result<(), StoreError> {
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
        if matches!(written, Err(StoreError::Overtaken { .. })) {
            self.lines_of.remove(&run);
        } else if written.is_err() {
            // Where nothing can be said of it now, it waits on; a folder that it has all the same holds before its copy in a pack.
            if self.layout.has_folder(run).unwrap_or(false) {
                // What failed came behind its folder: another of that name would be in the way of it.
                self.unlisted.push(held.summary);
            } else if let Some(packer) = &mut self.packer {
                packer.put_back(held);
            }
        }
        written
    }

    /// Takes runs for the next pack that have a folder and that nobody has written to for a while.
    fn hold_quiet(&mut self) {
        while let Some(run) = self.packer.as_mut().and_then(Packer::next_quiet) {
            // One that cannot be read now keeps its folder.
            let _ = self.hold_folder(run);
        }
    }

    fn hold_folder(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(dir) = self.layout.find_run(run)?.filter(|_| !self.open.contains_key(&run)) else { return Ok(()) };
        if let Some((summary, yaml, lines, lock)) = whole_folder(&self.layout, &dir, run)?
            && summary.writer == Some(self.writer)
            && let Some(packer) = &mut self.packer
        {
            packer.hold(summary, yaml.as_bytes(), lines.as_bytes(), Some((dir, lock)));
        }
        Ok(())
    }

    /// Writes what waits for a pack, if it is time or `all` is to be written; tells whether nothing waits any more.
    pub(super) fn write_what_waits(&mut self, all: bool) -> Result<bool, StoreError> {
        self.list([])?;
        self.hold_quiet();
        if std::mem::take(&mut self.has_lost) {
            return Err(packs::Died.told(self.layout.packs().0.dir()));
        }
        while self.receive(false)? {}
        let waits = self.packer.as_ref().is_some_and(|packer| !packer.is_empty());
        let is_due = waits && (all || self.packer.as_ref().is_some_and(Packer::is_due));
        while is_due && self.receive(true)? {}
        let placed = self.place_unfit(|_| true);
        // One run that has no folder keeps no other from its pack.
        let written = if is_due { self.write_pack() } else { Ok(!waits) };
        placed.and(written)
    }

    /// Writes all that waits for a pack; tells whether nothing waits any more.
    fn write_pack(&mut self) -> Result<bool, StoreError> {
        self.check_place()?;
        if let Some(packer) = self.packer.as_mut().filter(|packer| packer.are_few()) {
            packer.keep_folders();
        }
        while let Some(run) = self.packer.as_ref().filter(|packer| packer.are_few()).and_then(Packer::any) {
            // Who told of it goes on with it, or has let go of it before.
            let is_known = self.lines_of.contains_key(&run);
            self.let_go(run)?;
            self.close(run);
            if !is_known {
                self.lines_of.remove(&run);
            }
        }
        if self.packer.as_ref().is_none_or(Packer::is_empty) {
            return Ok(true);
        }
        let mut overtaken = None;
        let runs = loop {
            match self.put_pack() {
                Err(StoreError::Overtaken { run }) => {
                    overtaken.get_or_insert(run);
                }
                put => break put?,
            }
        };
        // They wait no longer: what fails from here on says nothing about them, and who tells them again finds them here.
        self.unlisted.extend(runs);
        self.root()?;
        self.list([])?;
        // The others are in the pack; who told of this one tells of it anew.
        overtaken.map_or(Ok(true), |run| Err(StoreError::Overtaken { run }))
    }

    /// Writes all that waits into a pack, and returns what is new in it. Those that another process has made meanwhile wait no longer; then no
    /// pack is written.
    fn put_pack(&mut self) -> Result<Vec<RunSummary>, StoreError> {
        let (layout, writer, durable) = (self.layout.clone(), self.writer, self.durable);
        let (packs, fs) = layout.packs();
        let mut is_after_others = self.is_after_others;
        let Some(packer) = self.packer.as_mut().filter(|packer| !packer.is_empty()) else { return Ok(Vec::new()) };
        let mut overtaken = Vec::new();
        let name = |held: &[Held]| {
            let turn = Turn::take(fs, &layout.naming(), writer)?;
            if turn.is_after_others {
                is_after_others = true;
                packs.forget();
            }
            for held in held.iter().filter(|held| is_after_others && !held.has_folder()) {
                if layout.find_run(held.summary.run_id)?.is_some() {
                    overtaken.push(held.summary.run_id);
                }
            }
            Ok(overtaken.is_empty().then_some(turn))
        };
        let put = packer.write(fs, packs, durable, name);
        if let Some(run) = overtaken.first().copied() {
            for run in overtaken {
                packer.take_back(run);
                self.lines_of.remove(&run);
            }
            self.note_others();
            return Err(StoreError::Overtaken { run });
        }
        if is_after_others {
            self.note_others();
        }
        let new = put?;
        // All that waited was looked for.
        self.is_after_others = false;
        Ok(new)
    }
}

/// Tells whether metadata says what is to be said, but for who says it and when.
pub(super) fn says(said: &RunSummary, summary: &RunSummary) -> bool {
    let RunSummary { writer, events_sha256, updated_at, .. } = *said;
    *said == RunSummary { writer, events_sha256, updated_at, ..summary.clone() }
}

/// Reads a run's folder, under the lock of its log, if it may go into a pack: over, small, with nothing but a log and metadata that
/// fit each other.
pub(in super::super) fn whole_folder(layout: &Layout, dir: &Path, run: RunId) -> Result<Option<Whole>, StoreError> {
    let (all_packs, fs) = layout.packs();
    if layout.is_packed(dir).map_err(StoreError::io("read", dir))? {
        return Ok(None);
    }
    let entries = fs.list(dir).map_err(StoreError::io("read", dir))?;
    // Artifacts, a pin, a sealed log: whatever else is there needs a folder.
    let is_plain = |name: &str| ["run.yaml", "events.jsonl", "events.chain"].contains(&name);
    if !entries.iter().all(|entry| is_plain(&entry.name)) {
        return Ok(None);
    }
    let lock = LogLock::take(fs, dir, run)?;
    let summary = run_dir::read_summary(fs, dir, run)?;
    if !Packer::takes(&summary, 0) {
        return Ok(None);
    }
    let read =
        |path: PathBuf| layout::read_bounded(fs, &path, packs::MAX_RUN_BYTES).map_err(StoreError::io("read", path));
    let (yaml, lines) = (read(run_dir::run_file(dir))?, read(run_dir::events_file(dir))?);
    // What is not as it should be stays as it is, for who looks into it.
    let is_whole = summary.events_sha256 == Some(chain::hash_of(lines.as_bytes()))
        && lines.lines().count() as u64 == summary.events;
    if !is_whole || !Packer::takes(&summary, yaml.len() + lines.len()) {
        return Ok(None);
    }
    // A copy from before, of which whoever made the folder had no time to say that it is none any more.
    all_packs.bury_copies(fs, run).map_err(StoreError::io("write", all_packs.dir()))?;
    Ok(Some((summary, yaml, lines, lock)))
}

/// A run's summary, the two files of its folder, and the lock of its log.
type Whole = (RunSummary, String, String, LogLock);
