//! The file system of a store, with packed runs shown as folders among the others.
//!
//! A folder that is really there goes before a pack. Packed runs can be read and nothing else: whoever opens a file of
//! one to write, makes one, or renames or removes something of it, finds a folder made of it first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Gone;
use super::{Packs, Place};
use crate::fs::{Access, Entry, Fs, FsFile, Stat, write_whole};
use crate::model::{RunId, RunKind, UnixNanos};

const RUN_FILE: &str = "run.yaml";
const EVENTS_FILE: &str = "events.jsonl";
/// How often another process that notes something in the same place is waited for.
const TRIES: u32 = 200;

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
        Ok(self.packed(path)?.is_some())
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

    /// Finds what a path leads to in a pack, unless the run has a folder.
    fn packed<'a>(&self, path: &'a Path) -> io::Result<Option<(Place, &'a Path)>> {
        let Meaning::Run(run, kind, rest) = self.meaning(path) else { return Ok(None) };
        let Some(place) = self.packs.find(self.inner(), run)?.filter(|place| place.entry.kind == kind) else {
            return Ok(None);
        };
        match self.inner.stat(&self.run_dir(kind, run)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some((place, rest))),
            found => found.map(|_| None),
        }
    }

    /// Asks the file system, and the packs where that has nothing of the name.
    fn or_packed<T>(
        &self,
        path: &Path,
        found: io::Result<T>,
        packed: impl FnOnce(&Place, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.packed(path)? {
                Some((place, rest)) => packed(&place, rest),
                None => Err(error),
            },
            found => found,
        }
    }

    /// Gives a packed run its folder back, if the path is of one.
    pub fn unpack(&self, path: &Path) -> io::Result<bool> {
        let Some((place, _)) = self.packed(path)? else { return Ok(false) };
        let body = place.pack().body(self.inner(), place.entry)?;
        let (run, fs) = (place.entry.run, self.inner());
        let dir = self.run_dir(place.entry.kind, run);
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
            // Another was faster.
            return if fs.stat(&dir).is_ok() { Ok(true) } else { Err(error) };
        }
        dir.parent().map_or(Ok(()), |above| fs.sync_dir(above))?;
        self.bury(run, Gone::Unpacked)?;
        Ok(true)
    }

    fn bury(&self, run: RunId, why: Gone) -> io::Result<()> {
        for _ in 0..TRIES {
            match self.packs.bury(self.inner(), run, why) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                done => return done,
            }
        }
        self.packs.bury(self.inner(), run, why)
    }

    /// Before a run's folder goes: a copy in a pack, which it hid, must not come back in its place.
    fn before_it_goes(&self, path: &Path) -> io::Result<()> {
        match self.meaning(path) {
            Meaning::Run(run, _, rest) if rest.as_os_str().is_empty() => self.bury(run, Gone::Unpacked),
            _ => Ok(()),
        }
    }
}

impl Fs for PackView {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self.packed(path)? {
            Some((_, rest)) if rest.as_os_str().is_empty() => Err(io::ErrorKind::AlreadyExists.into()),
            Some(_) => {
                self.unpack(path)?;
                self.inner.create_dir(path)
            }
            None => self.inner.create_dir(path),
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
        self.or_packed(path, self.inner.open(path, access), |place, rest| {
            let body = place.pack().body(self.inner(), place.entry)?;
            let stat = self.stat(path)?;
            match rest.to_str() {
                Some(RUN_FILE) => Ok(Box::new(PackedFile { bytes: body.yaml, stat })),
                Some(EVENTS_FILE) => Ok(Box::new(PackedFile { bytes: body.events, stat })),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        if let Meaning::Runs(kind) = self.meaning(dir) {
            let mut entries = self.inner.list(dir)?;
            let packed = self.packs.runs(self.inner(), kind)?;
            if !packed.is_empty() {
                let folders: crate::model::id::IdSet<RunId> =
                    entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
                let packed = packed.into_iter().filter(|run| !folders.contains(run));
                entries.extend(packed.map(|run| Entry { name: run.to_string(), is_dir: true }));
            }
            return Ok(entries);
        }
        self.or_packed(dir, self.inner.list(dir), |_, rest| match rest.as_os_str().is_empty() {
            true => Ok([RUN_FILE, EVENTS_FILE].map(|name| Entry { name: name.to_owned(), is_dir: false }).to_vec()),
            false => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.or_packed(path, self.inner.stat(path), |place, rest| {
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
        })
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
        self.or_packed(path, self.inner.sync_dir(path), |_, _| Ok(()))
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
