//! The file system of a store, with packed runs shown as folders among the others.
//!
//! A folder that is really there, with a run's files in it, goes before a pack. Packed runs can be read and nothing else:
//! whoever opens a file of one to write, makes one, or renames or removes something of it, finds a folder made of it first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Gone;
use super::removal::wait_for;
use super::{Found, LOOKS, Packs, Place, Removal};
use crate::fs::{Access, Entry, Fs, FsFile, Stat, write_whole};
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind, UnixNanos};

const RUN_FILE: &str = "run.yaml";
const EVENTS_FILE: &str = "events.jsonl";
/// One of these makes a folder one of a run.
const SIGNS: [&str; 3] = [RUN_FILE, EVENTS_FILE, "events.jsonl.zst"];

/// A file system with packs.
#[derive(Debug)]
pub(crate) struct PackView {
    inner: Arc<dyn Fs>,
    root: PathBuf,
    packs: Packs,
}

/// What a path in a store means to packs.
enum Meaning<'a> {
    /// The folder of all runs of a kind.
    Runs(RunKind),
    /// A run's folder, or something in it.
    Run(RunId, RunKind, &'a Path),
    Other,
}

pub(crate) fn folder(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Agent => "agents",
        RunKind::Workflow => "workflows",
    }
}

impl PackView {
    /// Shows the packs of the store at `root` on top of a file system.
    pub fn new(inner: Arc<dyn Fs>, root: &Path) -> Self {
        Self { inner, root: root.to_owned(), packs: Packs::new(root.join("packs")) }
    }

    /// Returns the packs.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Returns the file system without packs.
    pub fn inner(&self) -> &dyn Fs {
        &*self.inner
    }

    /// Tells whether a path leads to what a pack has.
    pub fn is_packed(&self, path: &Path) -> io::Result<bool> {
        Ok(matches!(self.packed(path)?, Packed::At(..)))
    }

    /// Tells what is wrong with a run that a pack has, if it cannot be read: the pack, and why.
    pub fn flaw(&self, path: &Path) -> io::Result<Option<(PathBuf, String)>> {
        match self.packed(path)? {
            Packed::At(place, _) => self.packs.flaw_of(self.inner(), &place),
            Packed::NotNow | Packed::Never => Ok(None),
        }
    }

    fn meaning<'a>(&self, path: &'a Path) -> Meaning<'a> {
        let Ok(within) = path.strip_prefix(&self.root) else { return Meaning::Other };
        let mut parts = within.components();
        let first = parts.next().and_then(|part| part.as_os_str().to_str());
        let Some(kind) = RunKind::ALL.iter().copied().find(|kind| first == Some(folder(*kind))) else {
            return Meaning::Other;
        };
        match parts.next().map(|part| part.as_os_str().to_str().and_then(|name| name.parse().ok())) {
            None => Meaning::Runs(kind),
            Some(Some(run)) => Meaning::Run(run, kind, parts.as_path()),
            Some(None) => Meaning::Other,
        }
    }

    fn run_dir(&self, kind: RunKind, run: RunId) -> PathBuf {
        self.root.join(folder(kind)).join(run.to_string())
    }

    /// Tells whether a run has a folder, with files of a run in it.
    pub fn has_folder(&self, kind: RunKind, run: RunId) -> io::Result<bool> {
        let dir = self.run_dir(kind, run);
        if !is_there(self.inner(), &dir)?.is_some_and(|found| found.is_dir) {
            return Ok(false);
        }
        for sign in SIGNS {
            if is_there(self.inner(), &dir.join(sign))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds what a path leads to in a pack, unless the run has a folder.
    fn packed<'a>(&self, path: &'a Path) -> io::Result<Packed<'a>> {
        let Meaning::Run(run, kind, rest) = self.meaning(path) else { return Ok(Packed::Never) };
        match self.packs.find(self.inner(), run)? {
            Found::At(place) if place.entry.kind == kind => match self.has_folder(kind, run)? {
                true => Ok(Packed::NotNow),
                false => Ok(Packed::At(Box::new(place), rest)),
            },
            Found::Buried => Ok(Packed::NotNow),
            Found::At(_) | Found::Nowhere => Ok(Packed::Never),
        }
    }

    /// Asks the file system, and the packs where that has nothing of the name.
    fn or_packed<T>(
        &self,
        path: &Path,
        in_files: impl Fn() -> io::Result<T>,
        in_pack: impl Fn(&Place, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut changes = self.packs.changes();
        let mut found = in_files();
        let mut is_first = true;
        for _ in 0..LOOKS {
            match found {
                Err(error) if is_absent(&error) => {
                    let packed = self.packed(path)?;
                    let now = self.packs.changes();
                    match packed {
                        Packed::At(place, rest) => match in_pack(&place, rest) {
                            // It was rewritten since it was looked where the run is.
                            Err(error)
                                if is_absent(&error) && is_there(self.inner(), &place.pack().path)?.is_none() =>
                            {
                                self.packs.forget();
                                found = Err(error);
                            }
                            found => return found,
                        },
                        // It got its folder back a moment ago, and the pack that had it may have been written anew without it.
                        Packed::NotNow if is_first => (changes, found, is_first) = (now, in_files(), false),
                        _ if now != changes => (changes, found) = (now, in_files()),
                        Packed::NotNow | Packed::Never => return Err(error),
                    }
                }
                found => return found,
            }
        }
        found
    }

    /// Gives a packed run its folder back, if the path is of one.
    pub fn unpack(&self, path: &Path) -> io::Result<bool> {
        for _ in 0..LOOKS {
            let Packed::At(place, _) = self.packed(path)? else { return Ok(false) };
            match self.unpack_from(&place) {
                // The pack was rewritten, or the run has gone out of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.packs.forget(),
                done => return done.map(|()| true),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "its pack is rewritten over and over"))
    }

    fn unpack_from(&self, place: &Place) -> io::Result<()> {
        let (run, kind, fs) = (place.entry.run, place.entry.kind, self.inner());
        // Until its folder is there nobody else removes it, or makes one of it.
        let locked = wait_for(fs, place.pack())?;
        if locked.pack.gone(fs)?.contains_key(&run) || self.has_folder(kind, run)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let body = place.pack().body(fs, place.entry)?;
        let dir = self.run_dir(kind, run);
        // No process of this id has a journal: should we die, whoever cleans up takes it away.
        let making = dir.with_file_name(format!(".new-{run}-{}", RunId::fresh(UnixNanos::now())));
        fs.create_dir(&making)?;
        let made = write_whole(fs, &making.join(EVENTS_FILE), &body.events, true)
            .and_then(|()| write_whole(fs, &making.join(RUN_FILE), &body.yaml, true))
            .and_then(|()| fs.sync_dir(&making))
            .and_then(|()| fs.rename(&making, &dir));
        if let Err(error) = made {
            // Both fail where it is gone.
            let _ = fs.remove_tree(&making);
            let why = format!("what stands at {} is in the way: {error}", dir.display());
            return Err(if is_obstacle(&error) { io::Error::other(why) } else { error });
        }
        dir.parent().map_or(Ok(()), |above| fs.sync_dir(above))?;
        // From here on its folder is what holds, and nobody removes the pack's copy.
        drop(locked);
        self.packs.bury(fs, run, Gone::Unpacked)
    }

    /// Tells whether a run has a folder, whatever its kind.
    pub fn has_any_folder(&self, run: RunId) -> io::Result<bool> {
        RunKind::ALL.iter().try_fold(false, |has, kind| Ok(has || self.has_folder(*kind, run)?))
    }

    /// Removes packed runs; those that have a folder are [`Removal::NotHere`]. `is_dry`: nothing is changed.
    pub fn remove(&self, runs: &[RunId], why: Gone, is_dry: bool) -> IdMap<RunId, Removal> {
        let removed = self.packs.remove(self.inner(), runs, why, |run| self.has_any_folder(run), is_dry);
        if removed.values().any(|removal| matches!(removal, Removal::Done)) && !is_dry {
            // A tombstone does not show in the folder, and who keeps a list of runs looks at that.
            let _ = self.inner().touch(self.packs.dir());
        }
        removed
    }

    /// Before a run's folder goes: a copy in a pack, which it hid, must not come back in its place.
    fn before_it_goes(&self, path: &Path) -> io::Result<()> {
        match self.meaning(path) {
            Meaning::Run(run, _, rest) if rest.as_os_str().is_empty() => {
                self.packs.bury(self.inner(), run, Gone::Unpacked)
            }
            _ => Ok(()),
        }
    }
}

/// What a path leads to in a pack.
enum Packed<'a> {
    At(Box<Place>, &'a Path),
    /// It was in one, or has a folder besides.
    NotNow,
    Never,
}

fn packed_files() -> Vec<Entry> {
    [RUN_FILE, EVENTS_FILE].map(|name| Entry { name: name.to_owned(), is_dir: false }).to_vec()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Tells whether a folder could not get its name because of what has it.
fn is_obstacle(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

fn is_there(fs: &dyn Fs, path: &Path) -> io::Result<Option<Stat>> {
    match fs.stat(path) {
        Err(error) if is_absent(&error) => Ok(None),
        found => found.map(Some),
    }
}

impl Fs for PackView {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self.packed(path)? {
            Packed::At(_, rest) if rest.as_os_str().is_empty() => Err(io::ErrorKind::AlreadyExists.into()),
            Packed::At(..) => {
                self.unpack(path)?;
                self.inner.create_dir(path)
            }
            Packed::NotNow | Packed::Never => self.inner.create_dir(path),
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.unpack(path)?;
        self.inner.create_new(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        if access != Access::Read {
            self.unpack(path)?;
            return self.inner.open(path, access);
        }
        self.or_packed(
            path,
            || self.inner.open(path, access),
            |place, rest| {
                let body = place.pack().body(self.inner(), place.entry)?;
                let stat = self.stat(path)?;
                match rest.to_str() {
                    Some(RUN_FILE) => Ok(Box::new(PackedFile { bytes: body.yaml, stat })),
                    Some(EVENTS_FILE) => Ok(Box::new(PackedFile { bytes: body.events, stat })),
                    _ => Err(io::ErrorKind::NotFound.into()),
                }
            },
        )
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        if let Meaning::Runs(kind) = self.meaning(dir) {
            let mut entries = self.inner.list(dir)?;
            let packed = self.packs.runs(self.inner(), kind)?;
            if !packed.is_empty() {
                // What is no folder hides nothing.
                let folders = entries.iter().filter(|entry| entry.is_dir);
                let folders: IdSet<RunId> = folders.filter_map(|entry| entry.name.parse().ok()).collect();
                let packed = packed.into_iter().filter(|run| !folders.contains(run));
                entries.extend(packed.map(|run| Entry { name: run.to_string(), is_dir: true }));
            }
            return Ok(entries);
        }
        let in_files = || self.inner.list(dir);
        if matches!(self.meaning(dir), Meaning::Run(_, _, rest) if rest.as_os_str().is_empty())
            && let Ok(mut entries) = in_files()
        {
            // A folder without a run's files hides none of them.
            if !entries.iter().any(|entry| SIGNS.contains(&entry.name.as_str())) && self.is_packed(dir)? {
                entries.extend(packed_files());
            }
            return Ok(entries);
        }
        self.or_packed(dir, in_files, |_, rest| match rest.as_os_str().is_empty() {
            true => Ok(packed_files()),
            false => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.or_packed(
            path,
            || self.inner.stat(path),
            |place, rest| {
                let is_dir = rest.as_os_str().is_empty();
                // A damaged entry is there all the same, and says what is the matter when it is read.
                let head = || match place.pack().head(self.inner(), place.entry) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok((0, 0)),
                    head => head.map(|head| (head.yaml_len, head.events_len)),
                };
                let len = match rest.to_str() {
                    _ if is_dir => 0,
                    Some(RUN_FILE) => head()?.0,
                    Some(EVENTS_FILE) => head()?.1,
                    _ => return Err(io::ErrorKind::NotFound.into()),
                };
                let half =
                    |at: usize| place.entry.run.0[at..].iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte));
                // No file has it: the run's own id tells it apart.
                Ok(Stat { is_dir, len: u64::from(len), identity: (half(0), half(8)), is_linked: true, modified: 0 })
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.unpack(from)?;
        self.unpack(to)?;
        self.before_it_goes(from)?;
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.unpack(from)?;
        self.unpack(to)?;
        self.inner.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self.inner.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.stat(path).is_ok() => {
                self.unpack(path)?;
                self.inner.remove_file(path)
            }
            removed => removed,
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.before_it_goes(path)?;
        self.inner.remove_dir(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.unpack(path)?;
        self.before_it_goes(path)?;
        self.inner.remove_tree(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.or_packed(path, || self.inner.sync_dir(path), |_, _| Ok(()))
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        self.inner.touch(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

/// A file of a packed run, in memory.
#[derive(Debug)]
struct PackedFile {
    bytes: Vec<u8>,
    stat: Stat,
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl FsFile for PackedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        read_only()
    }

    fn append(&self, _: &[u8]) -> io::Result<usize> {
        read_only()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.stat)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        read_only()
    }

    /// Nobody writes it, so nobody's lock is in the way.
    fn try_lock(&self, _: bool) -> io::Result<bool> {
        Ok(true)
    }
}
