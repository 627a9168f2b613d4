//! Packs: many small runs that are over, in one file.
//!
//! The format is specified in `docs/format.md`, and why it is so in ADR 0039. [`Packs`] knows which packs there are and
//! finds runs in them; [`PackView`] shows them as folders among the folders of runs, so that whoever reads a run need
//! not know, and makes a folder of one when somebody writes to it; [`Packer`] collects runs and writes packs.

mod format;
mod pack;
#[cfg_attr(not(any(feature = "server", test)), expect(dead_code, reason = "servers alone write packs"))]
mod packer;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind};
use format::Indexed;
use pack::Pack;
pub(super) use packer::{MAX_RUN_BYTES, Packer};
pub(super) use view::{PackView, folder};

/// A folder that changed less long ago than this may change again without its time showing it.
const GRAIN: Duration = Duration::from_millis(50);

/// It is not looked at more often than this while nobody can tell.
const LOOK: Duration = Duration::from_millis(5);
/// Indexes of the latest packs are kept in memory up to so many bytes: it is they that are asked most.
const KEPT_INDEX_BYTES: usize = 4 << 20;

/// The packs of one store.
#[derive(Debug)]
pub(crate) struct Packs {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The latest first.
    packs: Arc<Vec<Pack>>,
    /// What cannot be read as a pack, and why.
    unreadable: Vec<(RunId, String)>,
    /// The folder's identity, modification and the moment of the look.
    looked: Option<(Stamp, Instant)>,
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

impl Packs {
    /// Names the packs in a folder, there or not.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, known: Mutex::default() }
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the packs that there are now, the latest first.
    fn now(&self, fs: &dyn Fs) -> io::Result<Arc<Vec<Pack>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match fs.stat(&self.dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *known = Known::default();
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
    fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).looked = None;
    }

    /// Finds a run that is in a pack and not deleted there.
    fn find(&self, fs: &dyn Fs, run: RunId) -> io::Result<Option<Place>> {
        for _ in 0..2 {
            match self.find_in(self.now(fs)?, fs, run) {
                // It has been rewritten since the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget(),
                found => return found,
            }
        }
        self.find_in(self.now(fs)?, fs, run)
    }

    /// Returns the kind of a run that is in a pack.
    pub fn kind_of(&self, fs: &dyn Fs, run: RunId) -> io::Result<Option<RunKind>> {
        Ok(self.find(fs, run)?.map(|place| place.entry.kind))
    }

    fn find_in(&self, packs: Arc<Vec<Pack>>, fs: &dyn Fs, run: RunId) -> io::Result<Option<Place>> {
        for (at, pack) in packs.iter().enumerate() {
            if let Some(entry) = pack.find(fs, run)?
                && !pack.gone(fs)?.contains(&run)
            {
                return Ok(Some(Place { packs, at, entry }));
            }
        }
        Ok(None)
    }

    /// Returns the runs of a kind.
    fn runs(&self, fs: &dyn Fs, kind: RunKind) -> io::Result<Vec<RunId>> {
        let (mut seen, mut runs) = (IdSet::default(), Vec::new());
        for pack in self.now(fs)?.iter() {
            let gone: IdSet<RunId> = pack.gone(fs)?.into_iter().collect();
            let entries = pack.entries(fs)?.into_iter().filter(|entry| !gone.contains(&entry.run));
            runs.extend(entries.filter(|entry| seen.insert(entry.run) && entry.kind == kind).map(|entry| entry.run));
        }
        Ok(runs)
    }

    /// Returns the bytes that each packed run takes on the disk.
    pub fn bytes(&self, fs: &dyn Fs) -> io::Result<IdMap<RunId, u64>> {
        let mut bytes = IdMap::default();
        for pack in self.now(fs)?.iter() {
            let entries = pack.entries(fs)?.into_iter();
            bytes.extend(entries.map(|entry| (entry.run, u64::from(entry.len) + format::ENTRY_HEAD as u64)));
        }
        Ok(bytes)
    }

    /// Lets a run go out of all packs that have it.
    fn bury(&self, fs: &dyn Fs, run: RunId, why: format::Gone) -> io::Result<()> {
        for pack in self.now(fs)?.iter() {
            if pack.find(fs, run)?.is_some() && !pack.gone(fs)?.contains(&run) {
                pack.bury(fs, run, why)?;
            }
        }
        Ok(())
    }

    /// Takes away packs that are empty: who made the last run go may have died in the middle of it.
    pub fn sweep(&self, fs: &dyn Fs) -> io::Result<()> {
        self.now(fs)?.iter().try_for_each(|pack| pack.sweep(fs))
    }

    /// Returns the packs that cannot be read, or not whole, and why.
    pub fn unreadable(&self, fs: &dyn Fs) -> io::Result<Vec<(PathBuf, String)>> {
        let cut = self.now(fs)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(id, why): &(RunId, String)| (self.dir.join(format!("{id}.pack")), why.clone());
        // A pack gets its name when it is whole.
        let cut = cut.iter().filter(|pack| !pack.is_whole).map(|pack| (pack.path.clone(), CUT.to_owned()));
        Ok(known.unreadable.iter().map(of).chain(cut).collect())
    }
}

/// What is wrong with a pack that was whole once.
const CUT: &str = "its end is missing or damaged, and with it runs may be gone";

impl Known {
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
                // Rewritten meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It costs what is in it, and verify tells.
                Err(error) if is_of_the_file(&error) => self.unreadable.push((id, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        let mut room = KEPT_INDEX_BYTES;
        for pack in &mut packs {
            pack.keep_index(fs, &mut room)?;
        }
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
