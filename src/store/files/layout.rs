//! Where things lie in a store on files, and how a store is found and made.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::{FORMAT, StoreError};
use super::packs::{Gone, MayHaveMoved, PackView, Packs, Removal, folder};
use super::yaml::{from_yaml, to_yaml};
use crate::fs::{self, Access, Contents, Fs, FsFile, OsFs, Stat};
use crate::model::id::IdMap;
use crate::model::{RunId, RunKind, UnixNanos};

/// The directory that a store has where nobody names one.
pub const DEFAULT_NAME: &str = ".runspan";
/// The environment variable that names a store.
pub const STORE_VARIABLE: &str = "RUNSPAN_STORE";
const STORE_FILE: &str = "store.yaml";
const MAX_STORE_FILE: u64 = 64 << 10;
/// Most files that are read whole are smaller than this.
const USUAL_FILE: usize = 4 << 10;
/// The whole published table is under 1 MB.
const MAX_PRICES: u64 = 16 << 20;

const STORE_README: &str = "\
# A runspan store

This folder holds recorded runs of AI agents. runspan wrote it; `runspan list --store <this folder>` shows what is in it.

- `agents/<run id>/` and `workflows/<run id>/`: one folder a run. `run.yaml` says what it was, how it ended, its tokens
  and cost; `events.jsonl` is the log of everything that happened, one JSON object a line; `artifacts/` holds files.
  A long log of a run that is over is `events.jsonl.zst`: `zstdcat` shows it. `events.chain` tells whether it was changed.
- `packs/`: many small runs that are over, in one file each. `runspan unpack <run id>` makes a folder of one.
- `index.log`: one line for each start and each change of a run, so that lists need not open every folder.
- `journal/`: what processes have recorded and readers have not taken in yet. Do not delete it while one is running.
- `metrics/`: what processes have counted and not sent yet, if there is any.
- `index.sqlite`, `text.sqlite`: derived from all this, for lists, sums and searches. They may be deleted.
- `store.yaml`: the format's version and this store's id.

A run's folder may be copied, archived or deleted as a whole. Prompts and answers may be in here: share with care.
";

/// The paths of one store, and the file system that it is on.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    fs: Arc<PackView>,
    #[cfg_attr(not(feature = "index"), expect(dead_code, reason = "a database alone asks"))]
    is_of_the_system: bool,
}

/// The content of `store.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreFile {
    /// Version of the stored format.
    pub format: u64,
    /// Names the store on spans that are forwarded.
    #[serde(default)]
    pub store_id: String,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
    /// Marks what is redacted: 32 random bytes in hex. It never leaves the store, so whoever has the marks alone cannot
    /// check guesses.
    #[serde(default)]
    pub redaction_key: String,
    /// Whether the texts of runs may be kept a second time, to be searched: in `text.sqlite`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub search: bool,
    /// Which traces are stored as runs.
    #[serde(default, skip_serializing_if = "Recorded::is_default")]
    pub record: Recorded,
    /// Which runs are kept, as the user has written it; see [`Settings::read`](crate::store::retention::Settings::read).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<serde_json::Value>,
}

/// Which traces are stored as runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorded {
    /// Those with a span of GenAI.
    #[default]
    GenAi,
    /// All of them.
    All,
}

impl Recorded {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_yes(yes: &bool) -> bool {
    *yes
}

impl StoreFile {
    /// Returns the key of redaction marks; a store without one has a key made of its id.
    pub fn redaction_key(&self) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let secret = if self.redaction_key.is_empty() { &self.store_id } else { &self.redaction_key };
        Sha256::new_with_prefix(b"runspan redaction ").chain_update(secret).finalize().into()
    }
}

impl Layout {
    /// Names the store at `root`, there or not.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { is_of_the_system: true, ..Self::new_in(OsFs::shared(), root) }
    }

    /// Names a store on another file system.
    pub fn new_in(fs: Arc<dyn Fs>, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { fs: Arc::new(PackView::new(fs, &root)), root, is_of_the_system: false }
    }

    /// Returns the file system that the store is on.
    pub(crate) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// Tells whether its paths are those of the operating system, so that others can open them too.
    #[cfg(feature = "index")]
    pub(crate) fn is_of_the_system(&self) -> bool {
        self.is_of_the_system
    }

    /// Returns the same, to keep.
    pub(crate) fn shared_fs(&self) -> Arc<dyn Fs> {
        self.fs.clone()
    }

    /// Gives a run that is in a pack its folder. Returns the folder, and whether it was in a pack.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], and what the file system says.
    pub fn unpack(&self, run: RunId) -> Result<(PathBuf, bool), StoreError> {
        let dir = self.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
        let was_packed = self.fs.unpack(&dir).map_err(StoreError::io("unpack", &dir))?;
        Ok((dir, was_packed))
    }

    /// Tells whether a run's folder is one that is shown in place of what a pack has.
    pub(super) fn is_packed(&self, dir: &Path) -> io::Result<bool> {
        self.fs.is_packed(dir)
    }

    /// Removes packed runs; those that have a folder stay. `is_dry`: it is told what would become of them.
    pub(super) fn remove_packed(&self, runs: &[RunId], why: Gone, is_dry: bool) -> IdMap<RunId, Removal> {
        self.fs.remove(runs, why, is_dry)
    }

    /// Tells what is wrong with a packed run, by its folder, if it cannot be read: the pack, and why.
    pub(super) fn flaw_in_pack(&self, dir: &Path) -> io::Result<Option<(PathBuf, String)>> {
        self.fs.flaw(dir)
    }

    /// Tells whether a run has a folder of its own.
    pub(super) fn has_folder(&self, run: RunId) -> io::Result<bool> {
        self.fs.has_any_folder(run)
    }

    /// Returns the logs that this process has written just now.
    #[cfg(all(test, feature = "index"))]
    pub(crate) fn fresh(&self) -> &super::again::Fresh {
        self.packs().0.fresh()
    }

    /// Returns the packs, and the file system that they are on.
    pub(super) fn packs(&self) -> (&Packs, &dyn Fs) {
        (self.fs.packs(), self.fs.inner())
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of all runs of a kind.
    pub fn runs(&self, kind: RunKind) -> PathBuf {
        self.root.join(folder(kind))
    }

    /// Returns the folder of a run of a kind. Ids are ULIDs by type, so the path cannot lead out of the store.
    pub fn run(&self, kind: RunKind, run: RunId) -> PathBuf {
        self.runs(kind).join(run.to_string())
    }

    /// Finds a run's folder, whatever its kind.
    ///
    /// # Errors
    ///
    /// When it cannot be found out whether there is one.
    pub fn find_run(&self, run: RunId) -> Result<Option<PathBuf>, StoreError> {
        let (packs, fs) = self.packs();
        let mut is_first = true;
        loop {
            let changes = packs.changes();
            let mut in_the_way = None;
            for kind in RunKind::ALL {
                let dir = self.run(*kind, run);
                match stat(fs, &dir).map_err(StoreError::io("read", &dir))? {
                    Some(found) if found.is_dir => return Ok(Some(dir)),
                    Some(_) => in_the_way = Some(*kind),
                    None => {}
                }
            }
            // Looked for once, whatever its kind.
            match packs.kind_of(fs, run, changes).map_err(StoreError::io("read", packs.dir()))? {
                Ok(kind) if Some(kind) == in_the_way => {
                    // A link would lead somewhere else.
                    let why = "what stands in the place of its folder is none, and hides what a pack has: move it away";
                    return Err(StoreError::Damaged { run, why: why.to_owned() });
                }
                Ok(kind) => return Ok(Some(self.run(kind, run))),
                // Somebody may have made a folder of it since it was looked for one.
                Err(MayHaveMoved(true)) if is_first => is_first = false,
                Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the log of all runs' summaries.
    pub fn index_log(&self) -> PathBuf {
        self.root.join("index.log")
    }

    /// Returns the folder of the journals.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Returns the file of runs that wait for those which they name as their cause.
    pub(super) fn links(&self) -> PathBuf {
        self.journal().join("links")
    }

    /// Returns the file whose lock is had by who gives runs their names.
    pub(super) fn naming(&self) -> PathBuf {
        self.root.join("runs-lock")
    }

    /// Returns the file of the user's own prices, which go before the table's.
    pub fn prices_file(&self) -> PathBuf {
        self.root.join("prices.json")
    }

    /// Returns the user's own prices as text; `None` when there are none.
    pub fn own_prices(&self) -> Result<Option<String>, StoreError> {
        let path = self.prices_file();
        match read_bounded(self.fs(), &path, MAX_PRICES) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", path)(error)),
        }
    }

    /// Keeps the user's own prices, or none from now on. What is priced already stays as it is.
    pub fn set_own_prices(&self, json: Option<&str>) -> Result<(), StoreError> {
        let path = self.prices_file();
        match json {
            Some(json) => replace(self.fs(), &path, json.as_bytes(), false),
            None => match self.fs.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
                _ => Ok(()),
            },
        }
    }

    /// Returns the store's own file.
    pub fn store_file(&self) -> PathBuf {
        self.root.join(STORE_FILE)
    }

    /// Reads the store's own file and refuses a later format.
    pub fn read(&self) -> Result<StoreFile, StoreError> {
        let path = self.store_file();
        let text = match read_bounded(self.fs(), &path, MAX_STORE_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NoStore { path: self.root.clone() });
            }
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let bad = |why: String| StoreError::BadStore { path: path.clone(), why };
        // Only the version at first: a later format may look different in all else.
        let version: Version = from_yaml(&text).map_err(bad)?;
        if version.format > u64::from(FORMAT) {
            return Err(StoreError::NewerFormat { path: self.root.clone(), found: version.format });
        }
        from_yaml(&text).map_err(bad)
    }

    /// Opens the store, made if it is not there.
    pub fn open_or_create(&self) -> Result<StoreFile, StoreError> {
        match self.read() {
            Err(StoreError::NoStore { .. }) => self.create(),
            read => read,
        }
    }

    fn create(&self) -> Result<StoreFile, StoreError> {
        for dir in [self.root.clone(), self.runs(RunKind::Agent), self.runs(RunKind::Workflow), self.journal()] {
            make_dir(self.fs(), &dir)?;
        }
        let now = UnixNanos::now();
        let mut random = [0; 32];
        crate::model::id::fill_random(&mut random);
        let file = StoreFile {
            format: u64::from(FORMAT),
            store_id: RunId::fresh(now).to_string(),
            created_at: now.rfc3339_millis(),
            redaction_key: crate::model::hex(&random),
            search: true,
            record: Recorded::default(),
            retention: None,
        };
        // What is checked in by accident leaks prompts: the store ignores itself.
        write_new(self.fs(), &self.root.join(".gitignore"), b"*\n")?;
        write_new(self.fs(), &self.root.join("README.md"), STORE_README.as_bytes())?;
        let text = to_yaml(&file).map_err(|why| StoreError::BadStore { path: self.store_file(), why })?;
        // Another process may make the same store now: the first one's file stays, and both read it.
        publish_new(self.fs(), &self.store_file(), text.as_bytes())?;
        self.read()
    }
}

/// Finds the store that a command or a program means: the one given, `RUNSPAN_STORE`, the nearest ancestor of
/// `from` with `.runspan` or `.parac/runs`, else `.runspan` in `from`.
pub fn find_store(given: Option<&Path>, from: &Path) -> PathBuf {
    if let Some(path) = given {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os(STORE_VARIABLE).filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    from.ancestors()
        .flat_map(|dir| [dir.join(DEFAULT_NAME), dir.join(".parac").join("runs")])
        .find(|dir| dir.is_dir())
        .unwrap_or_else(|| from.join(DEFAULT_NAME))
}

/// Makes a directory and those above it.
pub(super) fn make_dir(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    fs::create_dirs(fs, dir).map_err(StoreError::io("create", dir))
}

/// Makes a directory; `false` when there is one already.
pub(super) fn make_new_dir(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    match fs.create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(fs, dir).map(|()| true),
        Err(error) => Err(StoreError::io("create", dir)(error)),
    }
}

/// Brings names made and deleted in a directory to the disk.
pub(super) fn sync_dir(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    fs.sync_dir(dir).map_err(StoreError::io("sync", dir))
}

/// Writes a file that is not there yet; one that is stays as it is.
fn write_new(fs: &dyn Fs, path: &Path, content: &[u8]) -> Result<(), StoreError> {
    match fs.create_new(path) {
        Ok(file) => fs::write_full(&*file, content, 0).map_err(StoreError::io("write", path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("create", path)(error)),
    }
}

/// Writes a file whole or not at all, unless one is there already.
fn publish_new(fs: &dyn Fs, path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = fs::temporary_beside(path);
    let file = fs.create_new(&temporary).map_err(StoreError::io("create", &temporary))?;
    let written = fs::write_full(&*file, content, 0).and_then(|()| file.sync_data());
    let linked = written.and_then(|()| match fs.hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // No hard links here: a rename may replace the other process's file by ours, which loses only an id.
        Err(_) => fs.rename(&temporary, path),
        linked => linked,
    });
    let _ = fs.remove_file(&temporary);
    linked.map_err(StoreError::io("write", path))
}

/// Replaces a file, whole or not at all. `durable`: survives loss of power as well.
pub(super) fn replace(fs: &dyn Fs, path: &Path, content: &[u8], durable: bool) -> Result<(), StoreError> {
    fs::replace(fs, path, content, durable).map_err(StoreError::io("write", path))
}

/// Returns what stands at a path; `None` when nothing does.
pub(super) fn stat(fs: &dyn Fs, path: &Path) -> io::Result<Option<Stat>> {
    match fs.stat(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether `dir` is a directory itself and not a link to one.
pub(super) fn is_plain_dir(fs: &dyn Fs, dir: &Path) -> io::Result<bool> {
    Ok(stat(fs, dir)?.is_some_and(|found| found.is_dir))
}

/// Opens a file for reading; a link, a pipe or a directory is refused and never waited for.
pub(super) fn open_plain(fs: &dyn Fs, path: &Path) -> io::Result<Box<dyn FsFile>> {
    fs.open(path, Access::Read)
}

/// Reads a file of at most `limit` bytes as text.
pub(super) fn read_bounded(fs: &dyn Fs, path: &Path, limit: u64) -> io::Result<String> {
    let file = open_plain(fs, path)?;
    // Else it grows from 32 bytes on, with a call to the system for each size.
    let mut text = String::with_capacity(USUAL_FILE);
    let read = Contents::of(&*file).take(limit + 1).read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_store_is_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        assert!(matches!(layout.read(), Err(StoreError::NoStore { .. })));
        let made = layout.open_or_create().unwrap();
        assert_eq!(layout.open_or_create().unwrap(), made);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(layout.root().into()), 0o700);
        assert_eq!(mode(layout.store_file()), 0o600);
        assert_eq!(mode(layout.runs(RunKind::Agent)), 0o700);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_store_where_no_directory_can_be_made_is_an_error_and_not_an_abort() {
        for place in ["/proc/runspan", "/proc/self/store/below", "/sys/kernel/runspan"] {
            assert!(Layout::new(place).open_or_create().is_err(), "{place}");
        }
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let text = "format: 2\nsomething: {new: true}\n";
        fs::write(layout.store_file(), text).unwrap();
        let error = layout.open_or_create().unwrap_err().to_string();
        assert!(error.contains("format 2; this version reads up to 1"), "{error}");
        assert_eq!(fs::read_to_string(layout.store_file()).unwrap(), text);
    }

    #[test]
    fn the_nearest_store_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(find_store(Some(Path::new("given")), &deep), Path::new("given"));
        if std::env::var_os(STORE_VARIABLE).is_none() {
            assert_eq!(find_store(None, &deep), deep.join(".runspan"));
            fs::create_dir_all(dir.path().join(".parac/runs")).unwrap();
            assert_eq!(find_store(None, &deep), dir.path().join(".parac/runs"));
            fs::create_dir(dir.path().join("a/.runspan")).unwrap();
            assert_eq!(find_store(None, &deep), dir.path().join("a/.runspan"));
        }
    }
}
