//! Packs: many small runs that are over, in one file.
//!
//! The format is specified in `docs/format.md`, and why it is so in ADR 0039. [`Packs`] knows which packs there are and
//! finds runs in them; [`PackView`] shows them as folders among the folders of runs, so that whoever reads a run need
//! not know, and makes a folder of one when somebody writes to it; [`Packer`] collects runs and writes packs; [`tidy`]
//! gives back the space of what has gone from them.

mod format;
mod pack;
mod packer;
mod press;
mod removal;
mod room;
#[cfg(test)]
pub(super) mod tests;
mod tidy;
mod tombstones;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "index")]
use super::again::Fresh;
use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind};
pub(super) use format::Gone;
use format::{EntryHead, Indexed};
use pack::Pack;
pub(super) use packer::{Held, MAX_RUN_BYTES, Packer, Received};
pub(super) use press::{Died, Whole};
pub(super) use removal::Removal;
pub(super) use tidy::Tidying;
pub(super) use view::{PackView, folder};

/// A folder that changed less long ago than this may change again without its time showing it.
const GRAIN: Duration = Duration::from_millis(50);

/// It is not looked at more often than this while nobody can tell.
const LOOK: Duration = Duration::from_millis(5);
/// How often it is looked anew for what has moved.
const LOOKS: usize = 16;
/// How long another process that changes the same pack is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether that is done.
const WAIT: Duration = Duration::from_millis(2);
/// Indexes of the latest packs are kept in memory up to so many bytes: it is they that are asked most.
const KEPT_INDEX_BYTES: usize = 4 << 20;

/// The packs of one store.
#[derive(Debug)]
pub(crate) struct Packs {
    dir: PathBuf,
    known: Mutex<Known>,
    /// What was packed just now.
    #[cfg(feature = "index")]
    fresh: Arc<Fresh>,
}

#[derive(Debug, Default)]
struct Known {
    /// The latest first.
    packs: Arc<Vec<Pack>>,
    /// What cannot be read as a pack, and why.
    unreadable: Vec<(RunId, String)>,
    /// The folder's identity, modification and the moment of the look.
    looked: Option<(Stamp, Instant)>,
    /// How often it was found that there are others.
    changes: u64,
}

/// How a folder stands, as far as its owner can tell without reading it.
type Stamp = (crate::fs::Identity, u64);

/// A run in a pack.
#[derive(Clone, Debug)]
struct Place {
    packs: Arc<Vec<Pack>>,
    at: usize,
    entry: Indexed,
}

impl Place {
    fn pack(&self) -> &Pack {
        &self.packs[self.at]
    }
}

/// What is not as it was written of a pack, besides its runs.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub id: RunId,
    pub path: PathBuf,
    /// How many tombstones.
    pub tombstones: u64,
    /// The first byte that belongs to nothing.
    pub stray: Option<u64>,
}

/// Whether a run that is in no pack may have left one a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MayHaveMoved(pub bool);

/// What packs know of a run.
#[derive(Clone, Debug)]
enum Found {
    At(Place),
    /// One had it.
    Buried,
    Nowhere,
}

impl Packs {
    /// Names the packs in a folder, there or not.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            known: Mutex::default(),
            #[cfg(feature = "index")]
            fresh: Arc::default(),
        }
    }

    /// Returns the logs that were packed just now, for who reads them next.
    #[cfg(feature = "index")]
    pub fn fresh(&self) -> &Arc<Fresh> {
        &self.fresh
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the packs that there are now, the latest first.
    ///
    /// # Errors
    ///
    /// What the file system says; `NotFound` where packs are rewritten each time that it is looked.
    fn now(&self, fs: &dyn Fs) -> io::Result<Arc<Vec<Pack>>> {
        for _ in 1..LOOKS {
            match self.look(fs) {
                // One that was seen by its name has been rewritten, and the new one may have come behind the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                looked => return looked,
            }
        }
        self.look(fs)
    }

    fn look(&self, fs: &dyn Fs) -> io::Result<Arc<Vec<Pack>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match fs.stat(&self.dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let changes = known.changes + u64::from(!known.packs.is_empty());
                *known = Known { changes, ..Known::default() };
                return Ok(Arc::clone(&known.packs));
            }
            Err(error) => return Err(error),
        };
        let stamp = (found.identity, found.modified);
        match known.looked {
            Some((looked, at)) if looked == stamp && (at.elapsed() < LOOK || is_settled(stamp.1, at.elapsed())) => {}
            _ => {
                let at = Instant::now();
                known.look(fs, &self.dir)?;
                known.looked = Some((stamp, at));
            }
        }
        Ok(Arc::clone(&known.packs))
    }

    /// Looks again the next time, whatever the folder's time says.
    pub fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).looked = None;
    }

    /// Asks the packs that there are; anew where one of them turns out to have been rewritten since the look.
    fn ask<T>(&self, fs: &dyn Fs, question: impl Fn(&Arc<Vec<Pack>>) -> io::Result<T>) -> io::Result<T> {
        for _ in 0..LOOKS {
            match question(&self.now(fs)?) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget(),
                answer => return answer,
            }
        }
        question(&self.now(fs)?)
    }

    /// Finds a run that is in a pack and not deleted there.
    fn find(&self, fs: &dyn Fs, run: RunId) -> io::Result<Found> {
        self.ask(fs, |packs| {
            let mut is_buried = false;
            for (at, pack) in packs.iter().enumerate() {
                let Some(entry) = pack.find(fs, run)? else { continue };
                if !pack.gone(fs)?.contains_key(&run) {
                    return Ok(Found::At(Place { packs: Arc::clone(packs), at, entry }));
                }
                is_buried = true;
            }
            Ok(if is_buried { Found::Buried } else { Found::Nowhere })
        })
    }

    /// Returns the kind of a run that is in a pack. Without one, whether it may have got a folder since the packs
    /// [changed](Self::changes) so often: one had it, or there are others.
    pub fn kind_of(&self, fs: &dyn Fs, run: RunId, changes: u64) -> io::Result<Result<RunKind, MayHaveMoved>> {
        Ok(match self.find(fs, run)? {
            Found::At(place) => Ok(place.entry.kind),
            Found::Buried => Err(MayHaveMoved(true)),
            Found::Nowhere => Err(MayHaveMoved(self.changes() != changes)),
        })
    }

    /// Returns how often it was found that there are other packs than before. Who looks for a run among the folders first, and then here,
    /// misses one that is unpacked in between: it has left its pack by then, and that may be gone.
    pub fn changes(&self) -> u64 {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).changes
    }

    /// Returns the runs of the latest packs: all that were made within the time for which what is written may not last.
    #[cfg(feature = "server")]
    pub fn latest_runs(&self, fs: &dyn Fs) -> io::Result<Vec<RunId>> {
        const LATEST_MS: u64 = 10_000;
        let at = |pack: &Pack| pack.id.time().millis();
        self.ask(fs, |packs| {
            let last = packs.first().map_or(0, at);
            let mut runs = Vec::new();
            for pack in packs.iter().take_while(|pack| at(pack) + LATEST_MS >= last) {
                runs.extend(pack.living(fs)?.into_iter().map(|entry| entry.run));
            }
            Ok(runs)
        })
    }

    /// Returns the runs of a kind.
    pub fn runs(&self, fs: &dyn Fs, kind: RunKind) -> io::Result<Vec<RunId>> {
        self.ask(fs, |packs| {
            let (mut seen, mut runs) = (IdSet::default(), Vec::new());
            for pack in packs.iter() {
                let living = pack.living(fs)?.into_iter();
                runs.extend(living.filter(|entry| seen.insert(entry.run) && entry.kind == kind).map(|entry| entry.run));
            }
            Ok(runs)
        })
    }

    /// Returns the bytes that each packed run takes on the disk.
    pub fn bytes(&self, fs: &dyn Fs) -> io::Result<IdMap<RunId, u64>> {
        self.ask(fs, |packs| {
            let mut bytes = IdMap::default();
            for pack in packs.iter() {
                for entry in pack.living(fs)? {
                    // The latest of several holds.
                    bytes.entry(entry.run).or_insert(EntryHead::footprint(entry.len));
                }
            }
            Ok(bytes)
        })
    }

    /// Returns the runs of which a tombstone says that they are not in a pack any more, and that are in none.
    pub fn buried(&self, fs: &dyn Fs) -> io::Result<IdMap<RunId, Gone>> {
        self.ask(fs, |packs| {
            let (mut living, mut buried) = (IdSet::default(), IdMap::default());
            for pack in packs.iter() {
                living.extend(pack.living(fs)?.iter().map(|entry| entry.run));
                for (run, why) in pack.gone(fs)?.iter() {
                    buried.entry(*run).or_insert(*why);
                }
            }
            buried.retain(|run, _| !living.contains(run));
            Ok(buried)
        })
    }

    /// Returns the packs that cannot be read, or not whole, and why. Of one that can be read in part its id is told, too.
    pub fn unreadable(&self, fs: &dyn Fs) -> io::Result<Vec<(PathBuf, Option<RunId>, String)>> {
        let packs = self.now(fs)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(id, why): &(RunId, String)| (self.dir.join(format!("{id}.pack")), None, why.clone());
        let flawed = packs.iter().filter_map(|pack| Some((pack.path.clone(), Some(pack.id), pack.flaw?.to_owned())));
        Ok(known.unreadable.iter().map(of).chain(flawed).collect())
    }

    /// Returns what is not as it was written of each pack, besides its runs.
    pub fn damage(&self, fs: &dyn Fs) -> io::Result<Vec<Damage>> {
        self.ask(fs, |packs| {
            let of = |pack: &Pack| {
                let stray = if pack.flaw.is_none() { pack.stray_byte(fs)? } else { None };
                let tombstones = pack.damaged_tombstones(fs)?;
                Ok(Damage { id: pack.id, path: pack.path.clone(), tombstones, stray })
            };
            packs.iter().map(of).collect()
        })
    }

    /// Returns the files of tombstones whose packs are missing.
    pub fn orphans(&self, fs: &dyn Fs) -> io::Result<Vec<PathBuf>> {
        let names: Vec<String> = match fs.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?.into_iter().map(|entry| entry.name).collect(),
        };
        let is_there = |name: &str| names.iter().any(|other| other == name);
        let ids = names.iter().filter_map(|name| name.strip_suffix(".del"));
        let lost = ids.filter(|id| !is_there(&format!("{id}.pack")) && !is_there(&format!(".gone-{id}.pack")));
        // It may have gone a moment ago, with its pack.
        let lost = lost.map(|id| self.dir.join(format!("{id}.del")));
        Ok(lost.filter(|path| fs.stat(path).is_ok()).collect())
    }

    /// Deletes a file of tombstones whose pack is missing, if `is_told` holds of each run that it names: then nothing is known
    /// by it alone. Tells whether it has gone.
    pub fn remove_orphan(
        &self,
        fs: &dyn Fs,
        path: &Path,
        is_told: impl Fn(RunId) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let id = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        let Some(id) = id.filter(|_| path.parent() == Some(self.dir())) else { return Ok(false) };
        let Some(named) = tombstones::named_by(fs, path, id)? else { return Ok(false) };
        for run in named {
            if !is_told(run)? {
                return Ok(false);
            }
        }
        // The pack may have been put back.
        if !self.orphans(fs)?.iter().any(|orphan| orphan == path) {
            return Ok(false);
        }
        fs.remove_file(path).map(|()| true)
    }

    /// Tells what is wrong with the run that a place leads to, if it cannot be read.
    fn flaw_of(&self, fs: &dyn Fs, place: &Place) -> io::Result<Option<(PathBuf, String)>> {
        match place.pack().body(fs, place.entry) {
            Err(error) if is_of_the_file(&error) => Ok(Some((place.pack().path.clone(), error.to_string()))),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            read => read.map(|_| None),
        }
    }
}

impl Known {
    /// Reads what the folder has.
    ///
    /// # Errors
    ///
    /// `NotFound` where a pack has gone since the folder was read, besides what the file system says.
    fn look(&mut self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        let names = fs.list(dir)?.into_iter().map(|entry| entry.name);
        let mut ids: Vec<RunId> = names.filter_map(|name| name.strip_suffix(".pack")?.parse().ok()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        // A pack never changes under its name.
        let mut before: IdMap<RunId, Pack> = self.packs.iter().map(|pack| (pack.id, pack.clone())).collect();
        let mut packs = Vec::with_capacity(ids.len());
        self.unreadable.clear();
        for id in ids {
            match before.remove(&id).map_or_else(|| Pack::open(fs, dir, id), Ok) {
                // What has gone from it has to be known, too.
                Ok(pack) => match pack.gone(fs) {
                    Err(error) if is_of_the_file(&error) => self.unreadable.push((id, error.to_string())),
                    gone => {
                        gone?;
                        packs.push(pack);
                    }
                },
                // It costs what is in it, and verify tells.
                Err(error) if is_of_the_file(&error) => self.unreadable.push((id, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        let mut room = KEPT_INDEX_BYTES;
        for pack in &mut packs {
            pack.keep_index(fs, &mut room)?;
        }
        self.changes += u64::from(!self.packs.iter().map(|pack| pack.id).eq(packs.iter().map(|pack| pack.id)));
        self.packs = Arc::new(packs);
        Ok(())
    }
}

/// Tells what is wrong with one file, and stays so: damage, a link, a folder, another user's. What the system lacks at a time is not
/// among it: runs must not be missed for that.
fn is_of_the_file(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, PermissionDenied};
    matches!(error.kind(), InvalidData | IsADirectory | NotADirectory | PermissionDenied)
        || error.raw_os_error() == Some(libc::ELOOP)
}

/// Tells whether a folder that was looked at so long ago had been left alone long enough then.
fn is_settled(modified: u64, since_look: Duration) -> bool {
    let now = crate::model::UnixNanos::now().0;
    let looked = now.saturating_sub(since_look.as_nanos() as u64);
    looked.saturating_sub(modified) > GRAIN.as_nanos() as u64
}
