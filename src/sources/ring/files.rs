//! Where rings lie: files in memory, found by who reads them after their process, and removed when nobody will.
//!
//! The process writes the path of its ring beside the lock of its journal, in a file `ring`: the path and a line
//! feed, or the line feed alone where it has none. Whoever takes over may run without the variables that led to it.
//! The path is not trusted: the file there must be a regular one of the journal's user, in tmpfs, reached without a link in the
//! last place, with the header of that process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HEADER, MAGIC, MAX_CAPACITY, MIN_CAPACITY, Ring, Version, first_bytes};
use crate::model::{RunId, UnixNanos};
use crate::sources::fork::{hold_off, keep_from_children};

/// The file beside a journal's lock that says where the ring is.
const PLACE: &str = "ring";
const MAX_PLACE: u64 = 4096;
/// How long the ring of a dead process whose store is gone waits for it to come back, while there is room: it may have
/// been renamed.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What there is of the ring of a process that is dead.
#[derive(Debug)]
pub enum Left {
    /// Nothing: it had none, somebody has taken it over, or the machine was started anew.
    Nothing,
    /// A file into which the process died before it could put anything.
    Unfinished(PathBuf),
    /// The ring.
    Ring(Ring),
    /// There is one that this process cannot read.
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What is in the way.
        why: io::Error,
    },
}

/// What a file turned out to be.
#[derive(Debug)]
enum Opened {
    Unfinished,
    Ring(Ring),
}

impl Ring {
    /// Creates the ring of `process` in tmpfs; in plain memory, which does not outlive the process, where there is no
    /// tmpfs or no room in it. Fails only when there is no memory either.
    pub fn create(process: RunId, capacity: u64) -> io::Result<Self> {
        let capacity = capacity.clamp(MIN_CAPACITY, MAX_CAPACITY).next_power_of_two();
        for dir in tmpfs_dirs() {
            let mut made = Self::create_in(&dir, process, capacity);
            if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
                // The living go before what is most likely nobody's any more.
                remove_orphans_in(&dir.join(user_dir(user())), UnixNanos::now(), Duration::ZERO);
                made = Self::create_in(&dir, process, capacity);
            }
            if let Ok(ring) = made {
                ring.populate(0);
                return Ok(ring);
            }
        }
        Self::in_plain_memory(process, capacity)
    }

    /// Creates the ring as a file in `dir`.
    pub fn create_in(dir: &Path, process: RunId, capacity: u64) -> io::Result<Self> {
        let path = private_dir(dir)?.join(file_name(process));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Opened again to be locked: a lock belongs to the open file, and the one that is mapped stays open in a forked
        // child.
        let first = first_bytes(capacity);
        let (mut made, file) = file
            .set_len(HEADER as u64 + capacity)
            .and_then(|()| allocate(&file, HEADER as u64 + first))
            .and_then(|()| Ok((Self::of_file(file, process, capacity, first)?, open_plainly(&path)?)))
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        made.path = Some(path);
        // Tells others that the ring is in use, whatever they can see of the store.
        let alone = keep_from_children(file.as_raw_fd());
        // Somebody who only asks whether it is in use holds the lock for microseconds.
        for _ in 0..4 {
            if lock(&file) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        made._lock = Some((alone, file));
        Ok(made)
    }

    /// Notes who the ring belongs to: writes its path into the directory of the process's journal, for whoever takes
    /// over, and the path of the journal's lock into the ring, which belongs to nobody any more when that is gone.
    ///
    /// # Errors
    ///
    /// What the file system says to the first; the ring is then found only where rings lie by default.
    pub fn set_owner(&self, journal: &Path) -> io::Result<()> {
        let journal = std::path::absolute(journal)?;
        self.write_owner(&journal.join("lock"), identities(&journal));
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(journal.join(PLACE))?;
        file.write_all(&[path.as_os_str().as_bytes(), b"\n"].concat())
    }

    /// Finds what a dead process left in shared memory, to be read only: by the path that it wrote into its journal's
    /// directory, else where rings lie by default.
    ///
    /// A journal may be a copy: then the ring belongs to the original, which lives perhaps, and whoever opens that needs
    /// what is in it.
    pub fn find(journal: &Path, process: RunId) -> Left {
        // Who may read another user's store may read what belongs to it.
        let owner = fs::metadata(journal).map_or_else(|_| user(), |found| found.uid());
        for path in places(journal, process) {
            match open(&path, process, owner) {
                Ok(Opened::Ring(ring)) if !ring.belongs_to(journal) => {}
                Ok(Opened::Ring(ring)) => return Left::Ring(ring),
                Ok(Opened::Unfinished) => return Left::Unfinished(path),
                Err(error) if is_absent(&error) => {}
                Err(why) => return Left::Unreadable { path, why },
            }
        }
        Left::Nothing
    }

    /// Tells whether the ring is of this journal, and not of one that it was copied from.
    fn belongs_to(&self, journal: &Path) -> bool {
        match self.owner().map(|(lock, _)| identity(&lock)) {
            Some(owner) if owner != [0, 0] => identity(&journal.join("lock")) == owner,
            // The journal was moved to where it is now, or the original of a copy was removed; a process that lives on
            // without it has its ring still.
            _ => self.path.as_ref().is_some_and(|path| open_plainly(path).is_ok_and(|file| is_free(&file))),
        }
    }

    /// Tells whether the process that made the ring is dead, and nobody has taken in yet what it left.
    pub fn is_left_behind(journal: &Path, process: RunId) -> bool {
        places(journal, process).into_iter().any(|path| open_plainly(&path).is_ok_and(|file| is_free(&file)))
    }

    /// Removes this user's rings that nobody will ever read: the process is dead, its store was deleted and not merely
    /// unmounted, and the process is dead for so long that it was hardly renamed.
    pub fn remove_orphans() {
        for dir in tmpfs_dirs() {
            remove_orphans_in(&dir.join(user_dir(user())), UnixNanos::now(), ORPHAN_AGE);
        }
    }

    fn is_orphan(&self, now: UnixNanos, min_age: Duration) -> bool {
        let Some((lock, identities)) = self.owner() else { return false };
        let age = now.0.saturating_sub(self.last_sign_of_life().0);
        u128::from(age) > min_age.as_nanos() && lock.is_absolute() && is_deleted(&lock, identities)
    }

    /// Removes the file; the mapping stays usable until dropped.
    pub fn unlink(&self) {
        if let Some(path) = &self.path {
            // Already gone is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// A directory's device and inode; zeros where there is none.
pub(super) type Identity = [u64; 2];

/// Which directories a store and its parent are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identities {
    pub store: Identity,
    pub parent: Identity,
}

fn identity(dir: &Path) -> Identity {
    fs::metadata(dir).map_or([0, 0], |found| [found.dev(), found.ino()])
}

/// Looks at the store of a journal's directory.
fn identities(journal: &Path) -> Identities {
    let store = journal.ancestors().nth(2);
    let of = |dir: Option<&Path>| dir.map_or([0, 0], identity);
    Identities { store: of(store), parent: of(store.and_then(Path::parent)) }
}

/// Tells whether a journal is gone for good: removed from a store that is there, or together with the store from a
/// directory that is there. Where another directory stands in either's place, as under an unmounted disk or in another
/// container, nothing is known of it.
fn is_deleted(lock: &Path, then: Identities) -> bool {
    let Some((journal, store)) = lock.parent().zip(lock.ancestors().nth(3)) else { return false };
    let is_gone = |path: &Path| fs::symlink_metadata(path).is_err_and(|error| is_absent(&error));
    let now = identities(journal);
    let same = |then: Identity, now: Identity| then == now && then != [0, 0];
    if is_gone(store) { same(then.parent, now.parent) } else { same(then.store, now.store) && is_gone(journal) }
}

fn remove_orphans_in(dir: &Path, now: UnixNanos, min_age: Duration) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let process = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        // A child that is forked while the lock is held here would hold it as long as it lives.
        let _held_off = hold_off();
        let Some((process, file)) = process.zip(open_plainly(&path).ok()) else { continue };
        let Ok(Opened::Ring(ring)) = read(&file, &path, process, user()) else { continue };
        if lock(&file) && ring.is_orphan(now, min_age) {
            ring.unlink();
        }
    }
}

/// Returns where the ring of a process may be.
fn places(journal: &Path, process: RunId) -> Vec<PathBuf> {
    if let Some(noted) = noted_place(journal) {
        return noted.into_iter().collect();
    }
    // Earlier versions noted none, and a process may have died before it could. Then it is where this user, or the one
    // who recorded, would put it.
    let owner = fs::metadata(journal).map_or_else(|_| user(), |found| found.uid());
    let by_default = Some(PathBuf::from(format!("/run/user/{owner}"))).filter(|dir| is_tmpfs(dir));
    let dirs = tmpfs_dirs().into_iter().chain(by_default);
    dirs.map(|dir| dir.join(user_dir(owner)).join(file_name(process))).collect()
}

/// Reads the place that the process itself has noted; `Some(None)` says that it has none.
fn noted_place(journal: &Path) -> Option<Option<PathBuf>> {
    let mut bytes = Vec::new();
    open_plainly(&journal.join(PLACE)).ok()?.take(MAX_PLACE + 1).read_to_end(&mut bytes).ok()?;
    // Without the line feed it was never finished, and nothing was put into the ring yet.
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes.strip_suffix(b"\n")?.to_vec()));
    Some(Some(path).filter(|path| path.is_absolute()))
}

/// Opens a file that may be anything, without waiting and without following a link.
fn open_plainly(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Opens the ring of a process at a path that is not trusted.
fn open(path: &Path, process: RunId, owner: u32) -> io::Result<Opened> {
    let file = open_plainly(path)?;
    if is_in_tmpfs(&file) { read(&file, path, process, owner) } else { Err(not_a_ring("not in shared memory")) }
}

fn read(file: &File, path: &Path, process: RunId, owner: u32) -> io::Result<Opened> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(not_a_ring("not a file"));
    }
    if meta.uid() != owner {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it belongs to user {}", meta.uid())));
    }
    let mut head = [0; 40];
    if file.read_exact_at(&mut head, 0).is_err() || head[..MAGIC.len()] == [0; MAGIC.len()] {
        return Ok(Opened::Unfinished);
    }
    let version = Version::of(&head).ok_or_else(|| not_a_ring("not a ring, or one of a newer version"))?;
    let capacity = meta.len().saturating_sub(version.header_bytes() as u64);
    if !capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
        return Err(not_a_ring("not the size of a ring"));
    }
    if head != version.header(process, capacity) {
        return Err(not_a_ring("the ring of another process"));
    }
    let mut ring = Ring::map(Some(file), version, capacity, libc::PROT_READ)?;
    ring.path = Some(path.to_owned());
    Ok(Opened::Ring(ring))
}

fn not_a_ring(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn file_name(process: RunId) -> String {
    format!("{process}.ring")
}

/// Directories in memory, best first. `/dev/shm` is tmpfs on Linux; a runtime directory is tmpfs under systemd.
fn tmpfs_dirs() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    [Some(PathBuf::from("/dev/shm")), runtime].into_iter().flatten().filter(|dir| is_tmpfs(dir)).collect()
}

#[cfg(target_os = "linux")]
fn is_tmpfs(dir: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return false };
    // SAFETY: a valid path and a valid place for the answer.
    says_tmpfs(|stat| unsafe { libc::statfs(path.as_ptr(), stat) })
}

#[cfg(target_os = "linux")]
fn is_in_tmpfs(file: &File) -> bool {
    // SAFETY: an open file and a valid place for the answer.
    says_tmpfs(|stat| unsafe { libc::fstatfs(file.as_raw_fd(), stat) })
}

#[cfg(target_os = "linux")]
fn says_tmpfs(ask: impl FnOnce(&mut libc::statfs) -> libc::c_int) -> bool {
    // SAFETY: statfs is plain data, and zeros are a valid value of it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    let known = ask(&mut stat) == 0;
    // The types of both differ between platforms.
    #[allow(clippy::unnecessary_cast, reason = "needed on other platforms than this one")]
    let is_tmpfs = stat.f_type as i64 == libc::TMPFS_MAGIC as i64;
    known && is_tmpfs
}

#[cfg(not(target_os = "linux"))]
fn is_tmpfs(_: &Path) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn is_in_tmpfs(_: &File) -> bool {
    false
}

/// Takes the lock of a ring's file; it goes with the last descriptor.
fn lock(file: &File) -> bool {
    // SAFETY: a plain system call on an open file.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Tells whether nobody holds the lock; any number may ask at once.
fn is_free(file: &File) -> bool {
    // SAFETY: a plain system call on an open file; closing it lets the lock go again.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) == 0 }
}

fn user() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

fn user_dir(user: u32) -> String {
    format!("runspan-{user}")
}

/// Makes the user's own directory, and refuses one that somebody else has put there.
fn private_dir(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.join(user_dir(user()));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(&dir)?;
    if meta.is_dir() && meta.uid() == user() && meta.mode() & 0o077 == 0 {
        Ok(dir)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not private to this user", dir.display())))
    }
}

/// Allocates every page up to a length now, so that writing can never meet a full tmpfs.
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, length: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: a plain system call on an open file.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(_: &File, _: u64) -> io::Result<()> {
    // No file system in memory is known there, so the ring of a process is never in a file.
    Ok(())
}

/// Opens a ring wherever it lies.
#[cfg(test)]
pub(super) fn reopened(path: &Path, process: RunId) -> io::Result<Ring> {
    match read(&open_plainly(path)?, path, process, user())? {
        Opened::Ring(ring) => Ok(ring),
        Opened::Unfinished => Err(not_a_ring("unfinished")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory in memory, the directory of a journal, and a process.
    fn place() -> Option<(tempfile::TempDir, tempfile::TempDir, PathBuf, RunId)> {
        let memory = tempfile::tempdir_in(tmpfs_dirs().into_iter().next()?).unwrap();
        let above = tempfile::tempdir().unwrap();
        let process = RunId::fresh(UnixNanos::now());
        let journal = above.path().join("store/journal").join(process.to_string());
        fs::create_dir_all(&journal).unwrap();
        Some((memory, above, journal, process))
    }

    fn found(journal: &Path, process: RunId) -> String {
        match Ring::find(journal, process) {
            Left::Nothing => "nothing".to_owned(),
            Left::Unfinished(_) => "unfinished".to_owned(),
            Left::Ring(ring) => format!("{} bytes waiting", ring.waiting()),
            Left::Unreadable { why, .. } => why.to_string(),
        }
    }

    #[test]
    fn a_ring_is_found_where_its_process_noted_it() {
        let Some((memory, _above, journal, process)) = place() else { return };
        let ring = Ring::create_in(memory.path(), process, MIN_CAPACITY).unwrap();
        ring.push(&[b"record"]).unwrap();
        assert_eq!(found(&journal, process), "nothing", "it is not where rings lie by default");
        ring.set_owner(&journal).unwrap();
        assert!(!Ring::is_left_behind(&journal, process), "its process lives");
        drop(ring);
        assert!(Ring::is_left_behind(&journal, process));
        assert_eq!(found(&journal, process), "16 bytes waiting");
        let path = noted_place(&journal).unwrap().unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(Ring::find(&journal, process), Left::Ring(ring) if ring.salvage(0).0.len() == 1));
        assert!(fs::read(&path).unwrap() == before, "who looks changes nothing");
        fs::remove_file(&path).unwrap();
        assert_eq!(found(&journal, process), "nothing");
    }

    #[test]
    fn a_process_without_shared_memory_notes_that_it_has_none() {
        let Some((_memory, _above, journal, process)) = place() else { return };
        Ring::in_plain_memory(process, MIN_CAPACITY).unwrap().set_owner(&journal).unwrap();
        assert_eq!((fs::read(journal.join(PLACE)).unwrap(), places(&journal, process)), (b"\n".to_vec(), Vec::new()));
    }

    #[test]
    fn a_noted_place_is_not_followed_to_what_is_not_the_ring() {
        let Some((memory, above, journal, process)) = place() else { return };
        let ring = Ring::create_in(memory.path(), process, MIN_CAPACITY).unwrap();
        let path = ring.path.clone().unwrap();
        let note = |path: &Path| fs::write(journal.join(PLACE), [path.as_os_str().as_bytes(), b"\n"].concat()).unwrap();
        let link = memory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        note(&link);
        assert!(found(&journal, process).contains("symbolic link"), "{}", found(&journal, process));
        let pipe = memory.path().join("pipe");
        let name = std::ffi::CString::new(pipe.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends in a zero byte and lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        note(&pipe);
        assert_eq!(found(&journal, process), "not a file");
        let on_disk = above.path().join("copy");
        fs::copy(&path, &on_disk).unwrap();
        note(&on_disk);
        let is_disk = !is_in_tmpfs(&File::open(&on_disk).unwrap());
        assert_eq!(found(&journal, process), if is_disk { "not in shared memory" } else { "0 bytes waiting" });
        note(&path);
        assert_eq!(found(&journal, RunId::fresh(UnixNanos::now())), "the ring of another process");
        fs::write(&path, [b"RSPNRING".as_slice(), &[99, 0, 0, 0], &[0; 4096]].concat()).unwrap();
        assert_eq!(found(&journal, process), "not a ring, or one of a newer version");
        fs::write(&path, b"").unwrap();
        assert_eq!(found(&journal, process), "unfinished");
        if user() == 0 {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            assert_eq!(found(&journal, process), "it belongs to user 4711");
        }
    }

    #[test]
    fn a_ring_whose_making_was_interrupted_is_none() {
        let Some((_memory, _above, journal, process)) = place() else { return };
        for length in [0, HEADER as u64, HEADER as u64 + MIN_CAPACITY] {
            let path = private_dir(&tmpfs_dirs()[0]).unwrap().join(file_name(process));
            File::create(&path).unwrap().set_len(length).unwrap();
            assert!(Ring::is_left_behind(&journal, process));
            assert_eq!(found(&journal, process), "unfinished");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn only_the_ring_of_a_store_that_was_deleted_long_ago_is_an_orphan() {
        let Some((memory, above, journal, process)) = place() else { return };
        let lock = journal.join("lock");
        fs::write(&lock, b"").unwrap();
        let ring = Ring::create_in(memory.path(), process, MIN_CAPACITY).unwrap();
        ring.set_owner(&journal).unwrap();
        let path = ring.path.clone().unwrap();
        let later = UnixNanos(UnixNanos::now().0 + ORPHAN_AGE.as_nanos() as u64 + 1_000_000_000);
        let rings = memory.path().join(user_dir(user()));
        let is_kept = |now: UnixNanos| {
            remove_orphans_in(&rings, now, ORPHAN_AGE);
            path.exists()
        };
        let (store, away) = (above.path().join("store"), above.path().join("away"));
        fs::rename(&store, &away).unwrap();
        assert!(is_kept(later), "its process lives");
        fs::rename(&away, &store).unwrap();
        drop(ring);
        assert!(is_kept(later), "its journal is there");
        // Unmounted: the directory that the store was in is there, and is another one.
        fs::rename(above.path(), above.path().with_extension("away")).unwrap();
        assert!(is_kept(later), "nothing is where the store was");
        fs::create_dir(above.path()).unwrap();
        assert!(is_kept(later), "another directory is where the store was");
        fs::create_dir_all(&store).unwrap();
        assert!(is_kept(later), "another store is where the store was");
        fs::remove_dir_all(above.path()).unwrap();
        fs::rename(above.path().with_extension("away"), above.path()).unwrap();
        fs::remove_dir_all(&store).unwrap();
        assert!(is_kept(UnixNanos::now()), "it may have been renamed");
        assert!(!is_kept(later));
    }

    /// Runs something where `/dev/shm` is a fresh tmpfs of so many bytes; `None` where that is not permitted.
    #[cfg(target_os = "linux")]
    fn with_memory_of<T: Send>(bytes: u64, work: impl FnOnce() -> T + Send) -> Option<T> {
        let mounted = || {
            let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
            let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
            // SAFETY: plain system calls with texts that end in a zero byte; the view of what is mounted is this
            // thread's own, and goes with it.
            unsafe {
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
                    && libc::mount(tmpfs, c"/dev/shm".as_ptr(), tmpfs, 0, options.as_ptr().cast()) == 0
            }
        };
        std::thread::scope(|threads| threads.spawn(|| mounted().then(work)).join().unwrap())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_there_is_no_room_the_ring_of_a_deleted_store_gives_way() {
        with_memory_of(3 << 20, || {
            let above = tempfile::tempdir().unwrap();
            let new = || {
                let ring = Ring::create(RunId::fresh(UnixNanos::now()), 1 << 20).unwrap();
                ring.path.is_some().then_some(ring)
            };
            let kept = new().unwrap();
            let journal = above.path().join("store/journal/p");
            fs::create_dir_all(&journal).unwrap();
            let orphan = new().unwrap();
            orphan.set_owner(&journal).unwrap();
            let path = orphan.path.clone().unwrap();
            drop(orphan);
            assert!(new().is_none() && path.exists(), "its store is there");
            fs::remove_dir_all(above.path().join("store")).unwrap();
            assert!(new().is_some() && !path.exists());
            assert!(kept.path.as_ref().unwrap().exists());
        });
    }

    #[test]
    fn the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::create_in(dir.path(), RunId::fresh(UnixNanos::now()), MIN_CAPACITY).unwrap();
        let path = ring.path.clone().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        ring.unlink();
        assert!(!path.exists());
    }
}
