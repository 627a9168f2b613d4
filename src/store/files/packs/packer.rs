//! Collects runs that are over, and writes many to one file.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
#[cfg(feature = "index")]
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "index")]
use super::super::again::Fresh;
use super::super::{cleanup, run_dir::LogLock};
use super::format::{self, Codec, EntryHead, Indexed};
use super::press::{Died, Line, Press, Pressed, Whole};
use super::{Packs, room};
use crate::fs::{Fs, write_full};
use crate::model::id::IdSet;
use crate::model::{Event, RunId, RunSummary, UnixNanos};
use crate::store::StoreError;

/// How long runs wait for others: nobody sees them meanwhile.
const WAIT: Duration = Duration::from_millis(250);
/// Runs are written when they take so many bytes.
const ENOUGH_BYTES: usize = 4 << 20;
/// Fewer runs than these get a folder each: a file would save little, and there would be many.
const FEW: usize = 8;
/// A run that has a folder is packed when nothing was written to it for so long: what comes late makes the folder anew.
const QUIET: Duration = Duration::from_secs(60);
/// Longer runs have a folder of their own.
pub(crate) const MAX_RUN_BYTES: u64 = 1 << 20;
/// Runs that are over and wait to be written together.
pub(crate) struct Packer {
    /// Who writes.
    process: RunId,
    /// Fewer runs than these get a folder each.
    few: usize,
    held: Vec<Held>,
    /// The runs of `held`: of each run that comes it is asked whether it waits already.
    waits: IdSet<RunId>,
    bytes: usize,
    since: Option<Instant>,
    /// Runs with a folder that were let go of, and when; the latest last.
    quiet: VecDeque<(RunId, Instant)>,
    /// So many of them are being taken.
    taking: usize,
    wait: Duration,
    /// Room for a pack, used again and again.
    pack: Vec<u8>,
    press: Press,
    /// The thread that does the same while more comes in, started with the first run.
    line: Option<Line>,
    wants_line: bool,
    /// Who may read soon what that thread has worked off.
    #[cfg(feature = "index")]
    fresh: Arc<Fresh>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// What became of a run that was taken from the thread that makes them ready.
pub(crate) enum Received {
    /// It waits for its pack.
    Waits,
    /// It wants a folder.
    Unfit(Box<Whole>),
}

/// A run that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub summary: RunSummary,
    pub(super) head: EntryHead,
    pub(super) stored: Vec<u8>,
    /// Its folder, which goes when it is in a pack, and the lock that keeps others from writing to it until then.
    pub(super) folder: Option<(PathBuf, LogLock)>,
}

impl Packer {
    pub fn new(process: RunId) -> Self {
        Self {
            process,
            few: FEW,
            held: Vec::new(),
            waits: IdSet::default(),
            bytes: 0,
            since: None,
            quiet: VecDeque::new(),
            taking: 0,
            wait: QUIET,
            pack: Vec::new(),
            press: Press::new(),
            line: None,
            wants_line: false,
            #[cfg(feature = "index")]
            fresh: Arc::default(),
        }
    }

    /// The same, with a thread that makes runs ready: for one to whom many come.
    #[cfg(any(feature = "server", test))]
    pub fn with_line(self, packs: &Packs) -> Self {
        #[cfg(not(feature = "index"))]
        let _ = packs;
        Self {
            wants_line: true,
            #[cfg(feature = "index")]
            fresh: Arc::clone(packs.fresh()),
            ..self
        }
    }

    /// The same, however few runs there are.
    #[cfg(test)]
    pub fn of_any(self) -> Self {
        Self { few: 0, wait: Duration::ZERO, ..self }
    }

    /// Tells whether a run may be in a pack.
    pub fn takes(summary: &RunSummary, bytes: usize) -> bool {
        !summary.status.is_open() && summary.artifacts.is_empty() && !summary.pinned && bytes as u64 <= MAX_RUN_BYTES
    }

    /// Takes the two files of a run; one that waits already is told anew.
    pub fn hold(&mut self, summary: RunSummary, yaml: &[u8], events: &[u8], folder: Option<(PathBuf, LogLock)>) {
        self.take_back(summary.run_id);
        let held = self.press.files(summary, yaml, events, folder);
        self.put_back(held);
    }

    /// Takes a run that has come whole; `false` when it wants a folder.
    pub fn hold_whole(&mut self, summary: &RunSummary, events: &[Event]) -> bool {
        let held = self.press.run(self.process, summary, events);
        let is_held = held.is_some();
        if let Some(held) = held {
            self.take_back(summary.run_id);
            self.put_back(held);
        }
        is_held
    }

    /// Gives a run to the thread that makes it ready; gives it back where there is none. It is not within already.
    pub fn send(&mut self, whole: Box<Whole>) -> Result<(), Box<Whole>> {
        if self.wants_line && self.line.is_none() {
            self.line = Line::start(
                self.process,
                #[cfg(feature = "index")]
                Arc::clone(&self.fresh),
            );
            self.wants_line = self.line.is_some();
        }
        match &mut self.line {
            Some(line) => line.put(whole)?,
            None => return Err(whole),
        }
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Tells whether so many runs are at that thread that one has to be taken from it first.
    pub fn is_line_full(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_full)
    }

    /// Tells whether a run is at that thread.
    pub fn is_in_line(&self, run: RunId) -> bool {
        self.line.as_ref().is_some_and(|line| line.has(run))
    }

    /// Takes one run from that thread, to wait for its pack, or returns it where it wants a folder: `None` when there is none
    /// yet, or where it `waits` none at all.
    ///
    /// After an error all that it had is to be told again, and nothing is given to one any more.
    pub fn receive(&mut self, waits: bool) -> Result<Option<Received>, Died> {
        let Some(line) = &mut self.line else { return Ok(None) };
        match line.next(waits) {
            Ok(Some(Pressed::Ready(held))) => {
                self.take_back(held.summary.run_id);
                self.put_back(*held);
                Ok(Some(Received::Waits))
            }
            Ok(Some(Pressed::Unfit(whole))) => {
                self.settle_since();
                Ok(Some(Received::Unfit(whole)))
            }
            Ok(None) => Ok(None),
            Err(died) => {
                (self.line, self.wants_line) = (None, false);
                self.settle_since();
                Err(died)
            }
        }
    }

    /// Lets a run wait again that was taken back.
    pub fn put_back(&mut self, held: Held) {
        self.bytes += held.stored.len();
        self.since.get_or_insert_with(Instant::now);
        self.waits.insert(held.summary.run_id);
        self.held.push(held);
    }

    /// Tells whether nothing waits, here or at that thread.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.line.as_ref().is_none_or(Line::is_empty)
    }

    fn settle_since(&mut self) {
        if self.is_empty() {
            self.since = None;
        }
    }

    /// Gives a run back that waits, for a folder of its own.
    pub fn take_back(&mut self, run: RunId) -> Option<Held> {
        if !self.waits.remove(&run) {
            return None;
        }
        let at = self.held.iter().position(|held| held.summary.run_id == run)?;
        let held = self.held.swap_remove(at);
        self.bytes -= held.stored.len();
        self.settle_since();
        Some(held)
    }

    /// Returns a run that waits.
    pub fn waiting(&self, run: RunId) -> Option<&Held> {
        if self.waits.contains(&run) { self.held.iter().find(|held| held.summary.run_id == run) } else { None }
    }

    /// Notes that a run is let go of: it may have a folder.
    pub fn note_released(&mut self, run: RunId) {
        self.quiet.push_back((run, Instant::now()));
    }

    /// Returns a run that was let go of long enough ago, once. They come when there are enough of them for a pack.
    pub fn next_quiet(&mut self) -> Option<RunId> {
        let is_due = |(_, since): &&(RunId, Instant)| since.elapsed() >= self.wait;
        if self.taking == 0 && self.quiet.get(self.few.saturating_sub(1)).as_ref().is_some_and(is_due) {
            self.taking = self.quiet.iter().take_while(is_due).count();
        }
        if self.taking == 0 || self.is_full() {
            return None;
        }
        self.taking -= 1;
        self.quiet.pop_front().map(|(run, _)| run)
    }

    /// Tells whether what waits is to be written now.
    pub fn is_due(&self) -> bool {
        self.is_full() || self.since.is_some_and(|since| since.elapsed() >= WAIT)
    }

    /// Tells whether what waits is enough for a file.
    pub fn is_full(&self) -> bool {
        self.bytes >= ENOUGH_BYTES
    }

    /// Tells whether they are so few that each gets a folder.
    pub fn are_few(&self) -> bool {
        self.held.len() < self.few
    }

    /// Returns a run that waits, to be given a folder.
    pub fn any(&self) -> Option<RunId> {
        self.held.first().map(|held| held.summary.run_id)
    }

    /// Lets those wait no longer that have a folder: it stays until there are more.
    pub fn keep_folders(&mut self) {
        let with_folders: Vec<Held> = self.held.extract_if(.., |held| held.folder.is_some()).collect();
        for held in with_folders {
            self.bytes -= held.stored.len();
            self.waits.remove(&held.summary.run_id);
            self.note_released(held.summary.run_id);
        }
        self.settle_since();
    }

    /// Writes all that waits into one pack, and takes folders away that runs had. Returns the summaries of those that are
    /// new; after an error all of it waits still.
    ///
    /// `name` is asked for the right to give the pack its name; where it gives none, there is no pack, and nothing new in one.
    pub fn write<T>(
        &mut self,
        fs: &dyn Fs,
        packs: &Packs,
        durable: bool,
        name: impl FnOnce(&[Held]) -> Result<Option<T>, StoreError>,
    ) -> Result<Vec<RunSummary>, StoreError> {
        let (id, now) = (RunId::fresh(UnixNanos::now()), UnixNanos::now().0);
        let mut bytes = std::mem::take(&mut self.pack);
        bytes.clear();
        bytes.reserve(self.bytes + 128 * (self.held.len() + 1));
        bytes.extend_from_slice(&format::header(id, self.process, now));
        let mut index = Vec::with_capacity(self.held.len());
        for held in &self.held {
            let offset = held.head.write(id, &held.stored, &mut bytes);
            index.push(Indexed { run: held.head.run, kind: held.head.kind, offset, len: held.head.len });
        }
        format::finish(id, &mut index, &mut bytes);
        let mut is_named = true;
        let mut refused = None;
        let may_name = || {
            let turn = name(&self.held).unwrap_or_else(|error| {
                refused = Some(error);
                None
            });
            is_named = turn.is_some();
            turn
        };
        let is_put = put(fs, packs, id, &bytes, durable, may_name);
        if bytes.capacity() <= 2 * ENOUGH_BYTES {
            self.pack = bytes;
        }
        if let Some(error) = refused {
            return Err(error);
        }
        is_put.map_err(StoreError::io("write", packs.dir()))?;
        if !is_named {
            return Ok(Vec::new());
        }
        self.bytes = 0;
        self.since = None;
        self.waits.clear();
        let mut new = Vec::with_capacity(self.held.len());
        for Held { summary, folder, .. } in self.held.drain(..) {
            match folder {
                None => new.push(summary),
                // A folder that stays says the same.
                Some((folder, _lock)) => drop(remove(fs, &folder)),
            }
        }
        Ok(new)
    }
}

/// Takes a folder away whose run is in a pack: out of sight first.
fn remove(fs: &dyn Fs, folder: &Path) -> io::Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let gone = folder.with_file_name(format!("{}{name}", cleanup::GONE_PREFIX));
    fs.rename(folder, &gone)?;
    fs.remove_tree(&gone)
}

/// Makes a pack of these bytes, whole or not at all, if it `may` have its name, which holds until it has it.
pub(super) fn put<T>(
    fs: &dyn Fs,
    packs: &Packs,
    id: RunId,
    bytes: &[u8],
    durable: bool,
    may: impl FnOnce() -> Option<T>,
) -> io::Result<()> {
    let dir = packs.dir();
    let (making, path) = (dir.join(format!(".new-{id}.pack")), dir.join(format!("{id}.pack")));
    let file = match fs.create_new(&making) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            crate::fs::create_dirs(fs, dir)?;
            if durable && let Some(above) = dir.parent() {
                fs.sync_dir(above)?;
            }
            fs.create_new(&making)
        }
        made => made,
    }?;
    // Who finds the file and gets its lock may delete it.
    if !file.try_lock(true)? {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process takes the pack in the making for a left one",
        ));
    }
    let made = write_full(&*file, bytes, 0)
        // Always: after a loss of power a file of zeros would look like damage.
        .and_then(|()| file.sync_data())
        .and_then(|()| match may() {
            Some(_turn) => fs.rename(&making, &path).map(|()| true),
            None => Ok(false),
        });
    if !matches!(made, Ok(true)) {
        let _ = fs.remove_file(&making);
    }
    // It may have got its name in the moment of the last look, by the folder's time.
    packs.forget();
    if !made? {
        return Ok(());
    }
    room::keep(fs, dir, bytes.len() as u64);
    if durable { fs.sync_dir(dir) } else { Ok(()) }
}

impl Held {
    pub fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// Returns the two files of the run.
    pub fn body(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut yaml = match self.head.codec {
            Codec::Stored => self.stored.clone(),
            Codec::Zstd => super::pack::expand(&self.stored, (self.head.yaml_len + self.head.events_len) as usize)?,
        };
        let events = yaml.split_off((self.head.yaml_len as usize).min(yaml.len()));
        Ok((yaml, events))
    }
}
