//! Whole run folders: from a tar, or from another store.
//!
//! Nothing is trusted. Files are unpacked into a folder of their own in the store, which no reader takes for runs; only names that
//! a run's folder may have are taken, and only plain files. Once all is there and can be read, folders are moved into place.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use runspan::model::{RunId, RunKind, RunStatus, UnixNanos};
use runspan::server::{Importer, Settings};
use runspan::sources::otlp::{Encoding, Signal};
use runspan::store::files::folder::{files_of, runs_of};
use runspan::store::files::layout::Layout;
use runspan::store::files::{FilesReader, adopt_folder, has_replaced, renew_folder, restore_replaced};
use runspan::store::{RunReader, StoreError};
use runspan::with_causes;

use super::super::output::counted;
use super::parac;

/// Files of an archive.
const MAX_FILES: u64 = 1_000_000;
/// Bytes of one file: a run is held to 100 MB, and artifacts may be larger.
const MAX_FILE: u64 = 4 << 30;
/// So much comes out of any archive; beyond, a hundred times what went in.
const FREE_BYTES: u64 = 256 << 20;
const MAX_RATIO: u64 = 100;
/// What a file takes of a disk beside its content, with its folder: empty ones are not free.
const PER_FILE: u64 = 4 << 10;
/// Bytes of an archive between two files: long names, and what else describes the next file. They are held in memory.
const MAX_HEADS: u64 = 1 << 20;

/// How names of folders begin in which an import is under way.
const STAGING: &str = ".import-";

/// Where files are put before anybody sees them; removed at the end, whatever happens.
pub struct Staging {
    layout: Layout,
    dir: PathBuf,
    /// The folder, locked while somebody is at work in it.
    _lock: File,
    runs: BTreeSet<(RunKind, RunId)>,
    /// Folders in the schema of Paracle.
    foreign: Vec<(RunKind, PathBuf)>,
    /// The runs that were made of them.
    told: BTreeSet<RunId>,
    moved: Moved,
    files: u64,
    bytes: u64,
    free_bytes: u64,
}

/// What came of run folders.
#[derive(Debug, Default)]
pub struct Moved {
    pub stored: u64,
    pub duplicate: u64,
    /// Runs that cannot be read, and why.
    pub broken: Vec<String>,
}

impl Staging {
    pub fn new(layout: &Layout) -> io::Result<Self> {
        // A run that an earlier import had moved away is there again before it is asked for.
        restore_replaced(layout).map_err(io::Error::other)?;
        remove_left(layout);
        let dir = layout.root().join(format!("{STAGING}{}", RunId::fresh(UnixNanos::now())));
        fs::create_dir(&dir)?;
        let lock = File::open(&dir)?;
        lock.lock()?;
        Ok(Self {
            layout: layout.clone(),
            dir,
            _lock: lock,
            runs: BTreeSet::new(),
            foreign: Vec::new(),
            told: BTreeSet::new(),
            moved: Moved::default(),
            files: 0,
            bytes: 0,
            free_bytes: FREE_BYTES,
        })
    }

    /// Unpacks an archive. After an error nothing of it may be moved; where it is cut, what is before that is there.
    pub fn unpack(&mut self, reader: impl Read, went_in: impl Fn() -> u64) -> io::Result<()> {
        let of_heads = Cell::new(MAX_HEADS);
        let mut archive = tar::Archive::new(Heads { reader: Ended { reader, has_ended: false }, left: &of_heads });
        let mut last = None;
        let read = self.unpack_all(archive.entries()?, &of_heads, &went_in, &mut last);
        let Err(error) = read else { return Ok(()) };
        if !archive.into_inner().reader.has_ended {
            return Err(error);
        }
        // Folders stand one behind the other: more of the last one may have been to come.
        let cut = match last.filter(|run| self.runs.remove(run)) {
            Some((_, run)) => format!("the archive ends in the middle of run {run}: {error}"),
            None => format!("the archive ends too early: {error}"),
        };
        self.moved.broken.push(format!("{cut}; {} before are whole", counted(self.runs.len() as u64, "run")));
        Ok(())
    }

    fn unpack_all(
        &mut self,
        mut entries: tar::Entries<'_, impl Read>,
        of_heads: &Cell<u64>,
        went_in: &impl Fn() -> u64,
        last: &mut Option<(RunKind, RunId)>,
    ) -> io::Result<()> {
        loop {
            of_heads.set(MAX_HEADS);
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry?;
            // What a file holds has bounds of its own.
            of_heads.set(u64::MAX);
            let path = entry.path()?.into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            if !kind.is_file() {
                return Err(refused(&path, "it is no plain file"));
            }
            *last = place_of(&path).map(|(kind, run, _)| (kind, run));
            self.put(&path, &mut entry, went_in)?;
        }
    }

    /// Copies the run folders of a store, or of a folder like one. Links are not followed.
    pub fn copy(&mut self, given: &Path) -> io::Result<()> {
        // `.parac` itself may be named, or a folder with a store in it.
        let inner = ["", "runs", ".runspan", ".parac/runs"].map(|inner| given.join(inner));
        let has_runs = |root: &&PathBuf| ["agents", "workflows"].iter().any(|kind| root.join(kind).is_dir());
        let Some(root) = inner.iter().find(has_runs) else {
            return Err(io::Error::other("it holds no runs: neither agents/ nor workflows/ is in it"));
        };
        if same_folder(root, self.layout.root()) {
            let why = "it is the store that runs go to; name another with --store";
            return Err(io::Error::other(why));
        }
        let from = Layout::new(root);
        let is_theirs = !from.store_file().exists();
        for kind in [RunKind::Agent, RunKind::Workflow] {
            let folders = from.runs(kind);
            for folder in names_in(&folders)?.into_iter().map(|name| folders.join(name)) {
                if is_foreign(&folder) {
                    self.foreign.push((kind, folder));
                } else if is_theirs && !is_hidden(&folder) && folder.is_dir() && !folder.join("run.yaml").exists() {
                    let why = format!("{} was passed over: it has no {}", folder.display(), parac::METADATA);
                    self.moved.broken.push(why);
                }
            }
            // What is no run's folder is passed over, as readers do.
            for run in runs_of(&from, kind).map_err(io::Error::other)? {
                let folder = from.run(kind, run);
                if is_foreign(&folder) {
                    continue;
                }
                let place = folder.strip_prefix(root).unwrap_or(&folder);
                if let Err(error) = self.copy_run(&from, kind, run, place) {
                    // It costs itself.
                    self.runs.remove(&(kind, run));
                    self.moved.broken.push(format!("run {run}: {error}"));
                }
            }
        }
        Ok(())
    }

    fn copy_run(&mut self, from: &Layout, kind: RunKind, run: RunId, place: &Path) -> io::Result<()> {
        for file in files_of(from, kind, run).map_err(io::Error::other)? {
            self.put(&place.join(&file.name), &mut file.open(from)?, &|| u64::MAX)?;
        }
        Ok(())
    }

    /// Writes one file to its place.
    fn put(&mut self, path: &Path, content: &mut impl Read, went_in: &impl Fn() -> u64) -> io::Result<()> {
        let (kind, run, rest) = place_of(path).ok_or_else(|| refused(path, "a run's folder has no such file"))?;
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(refused(path, &format!("there are more than {MAX_FILES} files")));
        }
        self.take_bytes(PER_FILE, path, went_in)?;
        let folder = Layout::new(&self.dir).run(kind, run);
        let target = folder.join(rest);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        self.runs.insert((kind, run));
        // A name that is there twice is an error, too.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        let mut of_file = 0;
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = content.read(&mut piece)?;
            if read == 0 {
                break;
            }
            of_file += read as u64;
            if of_file > MAX_FILE {
                return Err(refused(path, &format!("it is longer than {MAX_FILE} bytes")));
            }
            self.take_bytes(read as u64, path, went_in)?;
            io::Write::write_all(&mut file, &piece[..read])?;
        }
        file.sync_data()
    }

    /// Counts bytes of the disk that are about to be taken.
    fn take_bytes(&mut self, bytes: u64, path: &Path, went_in: &impl Fn() -> u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.free_bytes.max(went_in().saturating_mul(MAX_RATIO)) {
            return Err(refused(path, &format!("more than {MAX_RATIO} times of what is read comes out of it")));
        }
        Ok(())
    }

    /// Writes the runs that are in the schema of Paracle as runs of ours, still where nobody sees them: only whole ones are
    /// moved to the store. A broken one costs itself.
    pub fn convert(&mut self, settings: &Settings) -> Result<(), String> {
        if self.foreign.is_empty() {
            return Ok(());
        }
        let here = Layout::new(&self.dir);
        here.open_or_create().map_err(|error| with_causes(&error))?;
        // Hashes of secrets, and prices, as in the store that they go to.
        for (from, to) in
            [(self.layout.store_file(), here.store_file()), (self.layout.prices_file(), here.prices_file())]
        {
            match fs::copy(&from, &to) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{} cannot be copied: {error}", from.display())),
            }
        }
        let importer = Importer::open(&here, settings).map_err(|error| with_causes(&error))?;
        let mut told = BTreeSet::new();
        for (kind, folder) in std::mem::take(&mut self.foreign) {
            let taken = parac::read(&folder, kind).and_then(|mut run| {
                let left_out = std::mem::take(&mut run.left_out);
                self.tell(run, &importer, &mut told).map(|()| left_out)
            });
            let of_run = |why: String| format!("run {}: {why}", folder.display());
            match taken {
                Ok(left_out) => self.moved.broken.extend(left_out.into_iter().map(of_run)),
                Err(why) => self.moved.broken.push(of_run(why)),
            }
        }
        let done = importer.finish();
        if done.is_stuck {
            return Err("the runs could not be written".to_owned());
        }
        for (kind, run) in told {
            // Many small ones are written to a pack.
            let folder = match here.unpack(run) {
                Ok((folder, _)) => folder,
                Err(error) => {
                    self.moved.broken.push(format!("run {run}: {}", with_causes(&error)));
                    continue;
                }
            };
            match fs::rename(self.files_of(run).join("artifacts"), folder.join("artifacts")) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.moved.broken.push(format!("run {run}: its artifacts cannot be moved: {error}"));
                    continue;
                }
            }
            self.runs.insert((kind, run));
            self.told.insert(run);
        }
        Ok(())
    }

    /// Tells a run to where it is written, and keeps its files for it.
    fn tell(
        &mut self,
        mut run: parac::Told,
        importer: &Importer,
        told: &mut BTreeSet<(RunKind, RunId)>,
    ) -> Result<(), String> {
        if told.iter().any(|(_, other)| *other == run.run) {
            return Err(format!("its id {} is another's, too", run.run));
        }
        if self.layout.find_run(run.run).map_err(|error| with_causes(&error))?.is_some() {
            // One that was under way when it was imported may have gone on since.
            let known = FilesReader::open(self.layout.root()).and_then(|reader| reader.get_run(run.run));
            if !known.is_ok_and(|known| known.status == RunStatus::Crashed) {
                self.moved.duplicate += 1;
                return Ok(());
            }
        }
        let files = std::mem::take(&mut run.files);
        for (name, path) in files {
            let mut file = parac::open(&path).map_err(|error| format!("{name}: {error}"))?;
            let folder = self.files_of(run.run);
            fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let kept = importer.keep(&folder, &name, &mut file).map_err(|error| with_causes(&error))?;
            run.add_artifact(&kept);
        }
        let trace = run.trace.take().map(|trace| (trace, Encoding::Json));
        for (body, encoding) in [(run.request.encode_to_vec(), Encoding::Protobuf)].into_iter().chain(trace) {
            let said = importer.take(body, Signal::Traces, encoding)?;
            if !said.is_empty() {
                self.moved.broken.push(format!("run {}: {said}", run.run));
            }
        }
        told.insert((run.kind, run.run));
        Ok(())
    }

    /// Where files of a run wait for its folder.
    fn files_of(&self, run: RunId) -> PathBuf {
        self.dir.join("files").join(run.to_string())
    }

    /// Moves a run into the store. One of another schema may take the place of what was known of it while it was under way.
    fn take_in(&self, folder: &Path, run: RunId) -> Result<bool, StoreError> {
        let is_new = adopt_folder(&self.layout, folder, run)?;
        Ok(is_new || (self.told.contains(&run) && renew_folder(&self.layout, folder, run)?))
    }

    /// Moves what is there into the store, run by run.
    pub fn finish(mut self) -> Moved {
        let mut moved = std::mem::take(&mut self.moved);
        for (kind, run) in &self.runs {
            let folder = Layout::new(&self.dir).run(*kind, *run);
            let synced = File::open(&folder).and_then(|folder| folder.sync_all());
            match synced
                .map_err(|error| error.to_string())
                .and_then(|()| self.take_in(&folder, *run).map_err(|error| error.to_string()))
            {
                Ok(true) => moved.stored += 1,
                Ok(false) => moved.duplicate += 1,
                Err(why) => moved.broken.push(why),
            }
        }
        moved
    }
}

/// Lets no more be read than is left: whoever reads an archive holds in memory what stands between two files.
struct Heads<'a, R> {
    reader: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Heads<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match self.left.get().checked_sub(read as u64) {
            Some(left) => self.left.set(left),
            None => {
                let why = format!("more than {MAX_HEADS} bytes describe one file of it; nothing was imported");
                return Err(io::Error::other(why));
            }
        }
        Ok(read)
    }
}

/// Knows whether what it reads has come to its end, or cannot be read further.
struct Ended<R> {
    reader: R,
    has_ended: bool,
}

impl<R: Read> Read for Ended<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        let is_over = match &read {
            Ok(read) => *read == 0 && !buffer.is_empty(),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        };
        self.has_ended |= is_over;
        read
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed is taken for nothing by all readers.
        if !has_replaced(&self.layout, &self.dir) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes what imports left that were killed; nobody has a lock on it. One that has just begun and has none yet fails, and says so.
fn remove_left(layout: &Layout) {
    let root = layout.root();
    for name in names_in(root).unwrap_or_default() {
        let dir = root.join(&name);
        let is_left = name.as_encoded_bytes().starts_with(STAGING.as_bytes())
            && File::open(&dir).is_ok_and(|dir| dir.try_lock().is_ok());
        if is_left && !has_replaced(layout, &dir) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn same_folder(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Tells a run folder in the schema of Paracle.
fn is_foreign(folder: &Path) -> bool {
    folder.join(parac::METADATA).is_file() && !folder.join("run.yaml").exists()
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{} is refused: {why}; nothing was imported", path.display()))
}

fn names_in(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads a path as that of a file in a run's folder: kind, run, and the file's place in the folder.
fn place_of(path: &Path) -> Option<(RunKind, RunId, PathBuf)> {
    let parts: Option<Vec<&str>> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| if let Component::Normal(name) = part { name.to_str() } else { None })
        .collect();
    let (kind, run, rest) = match parts?.as_slice() {
        [kind, run, file @ ("run.yaml" | "events.jsonl" | "events.jsonl.zst" | "events.chain" | "pinned")] => {
            (*kind, *run, PathBuf::from(file))
        }
        [kind, run, "artifacts", file] if !file.starts_with('.') => (*kind, *run, Path::new("artifacts").join(file)),
        _ => return None,
    };
    let kind = match kind {
        "agents" => RunKind::Agent,
        "workflows" => RunKind::Workflow,
        _ => return None,
    };
    // Written as the id is written, so that no two names are one run.
    let id: RunId = run.parse().ok().filter(|id: &RunId| id.to_string() == run)?;
    Some((kind, id, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_runs_folder_are_taken() {
        let run = "01KE9BZH800000000000000001";
        for good in [format!("agents/{run}/run.yaml"), format!("./workflows/{run}/artifacts/a b.txt")] {
            assert!(place_of(Path::new(&good)).is_some(), "{good}");
        }
        for bad in [
            format!("/agents/{run}/run.yaml"),
            format!("agents/{run}/../{run}/run.yaml"),
            format!("../agents/{run}/run.yaml"),
            format!("agents/{run}/artifacts/../../x"),
            format!("agents/{run}/artifacts/.new"),
            format!("agents/{}/run.yaml", run.to_lowercase()),
            "agents/x/run.yaml".to_owned(),
            "store.yaml".to_owned(),
            format!("journal/{run}/lock"),
        ] {
            assert_eq!(place_of(Path::new(&bad)), None, "{bad}");
        }
    }
    #[test]
    fn an_archive_of_which_too_much_comes_out_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.open_or_create().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2 << 20);
        let name = "agents/01KE9BZH800000000000000001/artifacts/zeros";
        archive.append_data(&mut header, name, io::repeat(0).take(2 << 20)).unwrap();
        let archive = archive.into_inner().unwrap();
        let unpacked = |went_in: u64| {
            let mut staging = Staging::new(&layout).unwrap();
            staging.free_bytes = 1 << 20;
            staging.unpack(archive.as_slice(), || went_in).map_err(|error| error.to_string())
        };
        assert_eq!(unpacked(2 << 20), Ok(()));
        let why = "more than 100 times of what is read comes out of it";
        assert_eq!(unpacked(10_000), Err(format!("{name} is refused: {why}; nothing was imported")));
        // Files without a content are no way around it.
        let mut archive = tar::Builder::new(Vec::new());
        for n in 0..300 {
            let name = format!("agents/01KE9BZH800000000000000001/artifacts/{n}");
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            archive.append_data(&mut header, name, io::empty()).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let mut staging = Staging::new(&layout).unwrap();
        staging.free_bytes = 1 << 20;
        let refused = staging.unpack(archive.as_slice(), || 10_000).map_err(|error| error.to_string());
        assert_eq!(
            refused,
            Err(format!("agents/01KE9BZH800000000000000001/artifacts/256 is refused: {why}; nothing was imported"))
        );
        drop(staging);
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.filter_map(|name| name.into_string().ok()).all(|name| !name.starts_with(".import")));
    }
}
