//! The ring: bounded shared memory between the threads that record and the one worker.
//!
//! A caller copies an encoded record in and returns; it takes no lock and makes no system call. The memory is a
//! file in tmpfs, so what a caller has put in outlives the process: the next process that opens the store reads the
//! ring of a dead one. The file is allocated in full before use, so a tmpfs that fills up later cannot fault the
//! host, and has mode 0600 in a directory of mode 0700, since records in it are not scrubbed yet.
//!
//! # Layout
//!
//! Little endian. A header of 4096 bytes, then `capacity` bytes of data, a power of two:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `RSPNRING` |
//! | 8 | 4 | version, 1 |
//! | 16 | 8 | capacity |
//! | 24 | 16 | the writing process's id, a ULID |
//! | 40 | 1 | the content policy under which the records are to be scrubbed: 0 none, 1 redacted, 2 full |
//! | 64 | 8 | head: where the next record is reserved |
//! | 128 | 8 | tail: up to where the worker has consumed |
//! | 192 | 8 × 8 | dropped records, by [`DropReason`] |
//! | 256 | 8 | records put in, the dropped ones not included |
//! | 1024 | 2 + n | length and path of the lock file that the process holds while it lives |
//!
//! The process also holds an exclusive `flock` on this file while it lives, which tells others that the ring is in use
//! where they do not see its store.
//!
//! Positions only grow; a position modulo the capacity is the place. A record is a word, the commit word, and its
//! bytes, padded with zeros to 8: `length u32 | crc32c u32`. It is 0 until the bytes are in place.
//!
//! # Operation
//!
//! A writer reserves by moving the head with compare-and-swap, copies the bytes, then stores the commit word with
//! release ordering. The worker reads from the tail while commit words are not 0, and before it moves the tail on it
//! fills what it consumed with zeros, so a reserved place always begins with 0. Full means the record is dropped and
//! counted; nobody waits.
//!
//! # Recovery
//!
//! A process killed between reservation and commit leaves a hole of zeros, perhaps with bytes in it. A reader of a
//! dead ring goes on in steps of 8 until a commit word fits its bytes. Only records whose call had not returned can
//! be lost so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fork::{Alone, keep_from_children};
use crate::model::RunId;

const MAGIC: &[u8; 8] = b"RSPNRING";
const VERSION: u32 = 1;
const HEADER: usize = 4096;
const CAPACITY_AT: usize = 16;
const PROCESS_AT: usize = 24;
const POLICY_AT: usize = 40;
const HEAD_AT: usize = 64;
const TAIL_AT: usize = 128;
const DROPPED_AT: usize = 192;
const PUSHED_AT: usize = 256;
const OWNER_AT: usize = 1024;
const MAX_OWNER: usize = HEADER - OWNER_AT - 2;
const WORD: u64 = 8;

/// Default size of the data area in bytes; one record may take half of it.
pub const DEFAULT_CAPACITY: u64 = 16 << 20;
const MIN_CAPACITY: u64 = 64 << 10;

/// Why a record did not get into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// The worker was further behind than the ring is large.
    QueueFull = 0,
    /// The record alone is larger than half the ring.
    TooLarge = 1,
    /// The recorder had been shut down.
    ShutDown = 2,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::TooLarge, Self::ShutDown];

    /// Returns the word used in counts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::ShutDown => "shut_down",
        }
    }
}

/// A mapped ring; shared by all recording threads and the worker.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    capacity: u64,
    mapped: usize,
    path: Option<PathBuf>,
    /// Locked while the process that made the ring lives.
    _lock: Option<(Alone, File)>,
}

// SAFETY: all shared state behind `base` is accessed through atomics, or as bytes that the reservation protocol gives
// to one thread at a time.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Creates the ring of `process` in tmpfs; in plain memory, which does not outlive the process, where there is no
    /// tmpfs or no room in it. Fails only when there is no memory either.
    pub fn create(process: RunId, capacity: u64) -> io::Result<Self> {
        let capacity = capacity.clamp(MIN_CAPACITY, 1 << 30).next_power_of_two();
        for dir in tmpfs_dirs() {
            if let Ok(ring) = Self::create_in(&dir, process, capacity) {
                ring.populate();
                return Ok(ring);
            }
        }
        let ring = Self::map(None, capacity)?;
        ring.write_header(process);
        Ok(ring)
    }

    /// Maps all pages now, a millisecond or so for the default size: the callers' first lap through the ring would
    /// else be one page fault after the other, a quarter of what a step costs them.
    fn populate(&self) {
        #[cfg(target_os = "linux")]
        // SAFETY: a hint on our own mapping. A kernel that does not know it leaves the faults to the callers.
        unsafe {
            libc::madvise(self.base.as_ptr().cast(), self.mapped, libc::MADV_POPULATE_WRITE);
        }
    }

    /// Creates the ring as a file in `dir`.
    pub fn create_in(dir: &Path, process: RunId, capacity: u64) -> io::Result<Self> {
        let dir = private_dir(dir)?;
        let path = dir.join(format!("{process}.ring"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let mut made = allocate(&file, HEADER as u64 + capacity)
            .and_then(|()| Self::map(Some(&file), capacity))
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        made.write_header(process);
        made.path = Some(path);
        // Tells others that the ring is in use, whatever they can see of the store.
        // Somebody who only asks whether it is in use holds the lock for microseconds.
        for _ in 0..4 {
            if lock(&file) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        made._lock = Some((keep_from_children(file.as_raw_fd()), file));
        Ok(made)
    }

    /// Opens the ring that a dead process left, if there is one of this user. `journal_lock` is the lock of the process's
    /// journal, which the caller holds.
    ///
    /// A journal may be a copy: then the ring belongs to the original, which lives perhaps, and whoever opens that needs
    /// what is in it.
    pub fn open_dead(process: RunId, journal_lock: &Path) -> io::Result<Option<Self>> {
        for dir in tmpfs_dirs() {
            let path = dir.join(user_dir()).join(format!("{process}.ring"));
            match Self::open_file(&path, process) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if is_unfinished(&path) => {
                    // Its process died before it could put anything in.
                    fs::remove_file(&path)?;
                }
                Ok(ring) => return Ok(Some(ring).filter(|ring| ring.belongs_to(journal_lock))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Tells whether the ring is of the journal with this lock, and not of one that it was copied from.
    fn belongs_to(&self, journal_lock: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        match self.owner().as_deref().map(identity) {
            Some(Some(owner)) => identity(journal_lock) == Some(owner),
            // The journal was moved to where it is now, or the original of a copy was removed; a process that lives on
            // without it has its ring still.
            _ => self.path.as_ref().is_some_and(|path| File::open(path).is_ok_and(|file| lock(&file))),
        }
    }

    /// Tells whether the process that made the ring is dead, and nobody has taken in yet what it left.
    pub fn is_left_behind(process: RunId) -> bool {
        let path = |dir: PathBuf| dir.join(user_dir()).join(format!("{process}.ring"));
        tmpfs_dirs().into_iter().any(|dir| File::open(path(dir)).is_ok_and(|file| is_free(&file)))
    }

    fn open_file(path: &Path, process: RunId) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let meta = file.metadata()?;
        let not_a_ring = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        if !meta.is_file() || meta.uid() != user() {
            return Err(not_a_ring("not a file of this user"));
        }
        let capacity = meta.len().saturating_sub(HEADER as u64);
        if !capacity.is_power_of_two() || !(MIN_CAPACITY..=1 << 30).contains(&capacity) {
            return Err(not_a_ring("not the size of a ring"));
        }
        let mut ring = Self::map(Some(&file), capacity)?;
        let mut head = [0; 40];
        ring.read_bytes(0, &mut head);
        let expected = ring.header(process);
        if head != expected {
            return Err(not_a_ring("not a ring of this version and process"));
        }
        ring.path = Some(path.to_owned());
        Ok(ring)
    }

    fn map(file: Option<&File>, capacity: u64) -> io::Result<Self> {
        let mapped = HEADER + capacity as usize;
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a fresh mapping of a length that the file has, or of no file; the result is checked.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mapping at address 0"))?;
        Ok(Self { base, capacity, mapped, path: None, _lock: None })
    }

    fn header(&self, process: RunId) -> [u8; 40] {
        let mut head = [0; 40];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[CAPACITY_AT..PROCESS_AT].copy_from_slice(&self.capacity.to_le_bytes());
        head[PROCESS_AT..].copy_from_slice(&process.0);
        head
    }

    fn write_header(&self, process: RunId) {
        let head = self.header(process);
        // SAFETY: the mapping is at least a header long, and nobody else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), self.base.as_ptr(), head.len()) };
    }

    fn read_bytes(&self, at: usize, out: &mut [u8]) {
        debug_assert!(at + out.len() <= self.mapped);
        // SAFETY: within the mapping by the callers' arithmetic.
        unsafe { std::ptr::copy_nonoverlapping(self.base.as_ptr().add(at), out.as_mut_ptr(), out.len()) };
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= self.mapped);
        // SAFETY: aligned (the mapping is page aligned, offsets are multiples of 8), inside the mapping, and only ever
        // accessed as an atomic while it may be a commit word.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast::<u64>()) }
    }

    fn head(&self) -> &AtomicU64 {
        self.word(HEAD_AT)
    }

    fn tail(&self) -> &AtomicU64 {
        self.word(TAIL_AT)
    }

    fn commit_word(&self, position: u64) -> &AtomicU64 {
        self.word(HEADER + (position & (self.capacity - 1)) as usize)
    }

    /// Notes which lock file the process holds; a ring whose lock file is gone belongs to nobody any more.
    pub fn set_owner(&self, lock_file: &Path) {
        use std::os::unix::ffi::OsStrExt;
        let path = lock_file.as_os_str().as_bytes();
        if path.len() <= MAX_OWNER {
            let length = (path.len() as u16).to_le_bytes();
            // SAFETY: inside the header by the check above; only the process that made the ring writes here, once.
            unsafe {
                let at = self.base.as_ptr().add(OWNER_AT);
                std::ptr::copy_nonoverlapping(path.as_ptr(), at.add(2), path.len());
                std::ptr::copy_nonoverlapping(length.as_ptr(), at, 2);
            }
        }
    }

    fn owner(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let mut length = [0; 2];
        self.read_bytes(OWNER_AT, &mut length);
        let length = usize::from(u16::from_le_bytes(length));
        if length == 0 || length > MAX_OWNER {
            return None;
        }
        let mut path = vec![0; length];
        self.read_bytes(OWNER_AT + 2, &mut path);
        Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
    }

    /// Removes this user's rings whose store was deleted: nobody will ever read them.
    pub fn remove_orphans() {
        for dir in tmpfs_dirs() {
            let Ok(entries) = fs::read_dir(dir.join(user_dir())) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let process = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
                let Some(ring) = process.and_then(|process| Self::open_file(&path, process).ok()) else { continue };
                let is_free = File::open(&path).is_ok_and(|file| lock(&file));
                if is_free && ring.owner().is_some_and(|lock| lock.is_absolute() && !lock.exists()) {
                    ring.unlink();
                }
            }
        }
    }

    /// Notes the content policy of the process, for whoever reads the ring after its death.
    pub fn set_policy(&self, policy: u8) {
        // SAFETY: inside the header, and only ever this one byte.
        unsafe { std::sync::atomic::AtomicU8::from_ptr(self.base.as_ptr().add(POLICY_AT)) }
            .store(policy, Ordering::Relaxed);
    }

    /// Returns the content policy of the process.
    pub fn policy(&self) -> u8 {
        // SAFETY: as above.
        unsafe { std::sync::atomic::AtomicU8::from_ptr(self.base.as_ptr().add(POLICY_AT)) }.load(Ordering::Relaxed)
    }

    /// Tells whether the ring outlives the process.
    pub fn is_durable(&self) -> bool {
        self.path.is_some()
    }

    /// Returns the largest record that fits, in bytes.
    pub fn max_record(&self) -> usize {
        (self.capacity / 2 - WORD) as usize
    }

    /// Returns how many bytes wait for the worker.
    pub fn waiting(&self) -> u64 {
        self.head().load(Ordering::Relaxed).saturating_sub(self.tail().load(Ordering::Relaxed))
    }

    /// Tells whether the worker should be woken rather than waited for.
    pub fn is_half_full(&self) -> bool {
        self.waiting() > self.capacity / 2
    }

    /// Counts records that never got in.
    pub fn count_dropped(&self, reason: DropReason, n: u64) {
        self.word(DROPPED_AT + 8 * reason as usize).fetch_add(n, Ordering::Relaxed);
    }

    /// Returns how many records were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.word(DROPPED_AT + 8 * reason as usize).load(Ordering::Relaxed)
    }

    /// Returns how many records were put in.
    pub fn pushed(&self) -> u64 {
        self.word(PUSHED_AT).load(Ordering::Relaxed)
    }

    /// Puts the parts of one record in, one after the other; when this returns `Ok`, the record outlives the process.
    pub fn push(&self, parts: &[&[u8]]) -> Result<(), DropReason> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 || length > self.max_record() {
            self.count_dropped(DropReason::TooLarge, 1);
            return Err(DropReason::TooLarge);
        }
        let size = frame_size(length);
        let mut head = self.head().load(Ordering::Relaxed);
        loop {
            // Acquire: the zeros that the worker left are seen before the place is written.
            let tail = self.tail().load(Ordering::Acquire);
            if (head + size).saturating_sub(tail) > self.capacity {
                // The head may be stale; a full ring is decided on the newest.
                let newest = self.head().load(Ordering::Relaxed);
                if newest == head {
                    self.count_dropped(DropReason::QueueFull, 1);
                    return Err(DropReason::QueueFull);
                }
                head = newest;
                continue;
            }
            match self.head().compare_exchange_weak(head, head + size, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(newest) => head = newest,
            }
        }
        let mut crc = 0;
        let mut at = head + WORD;
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
            self.copy_in(at, part);
            at += part.len() as u64;
        }
        let commit = length as u64 | u64::from(crc) << 32;
        self.word(PUSHED_AT).fetch_add(1, Ordering::Relaxed);
        self.commit_word(head).store(commit, Ordering::Release);
        Ok(())
    }

    fn copy_in(&self, position: u64, bytes: &[u8]) {
        let start = (position & (self.capacity - 1)) as usize;
        let first = bytes.len().min(self.capacity as usize - start);
        // SAFETY: the place is reserved for this thread, and both parts end inside the data area.
        unsafe {
            let data = self.base.as_ptr().add(HEADER);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(start), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), data, bytes.len() - first);
        }
    }

    fn copy_out(&self, position: u64, out: &mut [u8]) {
        let start = (position & (self.capacity - 1)) as usize;
        let first = out.len().min(self.capacity as usize - start);
        let (front, back) = out.split_at_mut(first);
        self.read_bytes(HEADER + start, front);
        self.read_bytes(HEADER, back);
    }

    fn clear(&self, from: u64, to: u64) {
        let start = (from & (self.capacity - 1)) as usize;
        let length = (to - from) as usize;
        let first = length.min(self.capacity as usize - start);
        // SAFETY: the places are consumed, so they belong to the worker until the tail moves.
        unsafe {
            let data = self.base.as_ptr().add(HEADER);
            std::ptr::write_bytes(data.add(start), 0, first);
            std::ptr::write_bytes(data, 0, length - first);
        }
    }

    /// Reads the committed record at `position`, appends it to `out` and returns the position behind it.
    ///
    /// `None`: nothing is committed there yet. Only the worker calls this; [`Ring::consume`] gives the place back.
    pub fn read(&self, position: u64, out: &mut Vec<u8>) -> Option<u64> {
        if position >= self.head().load(Ordering::Acquire) {
            return None;
        }
        let commit = self.commit_word(position).load(Ordering::Acquire);
        let length = (commit & u64::from(u32::MAX)) as usize;
        if commit == 0 || length > self.max_record() {
            return None;
        }
        let start = out.len();
        out.resize(start + length, 0);
        self.copy_out(position + WORD, &mut out[start..]);
        Some(position + frame_size(length))
    }

    /// Returns where the next record will be reserved.
    pub fn head_position(&self) -> u64 {
        self.head().load(Ordering::Acquire)
    }

    /// Returns where the worker has got to.
    pub fn tail_position(&self) -> u64 {
        self.tail().load(Ordering::Acquire)
    }

    /// Gives everything before `position` back to the writers.
    pub fn consume(&self, position: u64) {
        let tail = self.tail().load(Ordering::Relaxed);
        if position > tail {
            self.clear(tail, position);
            self.tail().store(position, Ordering::Release);
        }
    }

    /// Reads the records of a dead process from `position` on, over holes, without changing anything.
    ///
    /// Returns each record with the position behind it, and how many holes there were.
    pub fn salvage(&self, position: u64) -> (Vec<(u64, Vec<u8>)>, u64) {
        let tail = self.tail().load(Ordering::Acquire);
        let head = self.head().load(Ordering::Acquire);
        // A damaged header must not send the loop around for ages.
        if head < tail || head - tail > self.capacity || !head.is_multiple_of(8) || !tail.is_multiple_of(8) {
            return (Vec::new(), 1);
        }
        let (mut at, mut found, mut holes, mut in_hole) = (position.max(tail).min(head), Vec::new(), 0, false);
        while at < head {
            let commit = self.commit_word(at).load(Ordering::Acquire);
            let (length, crc) = ((commit & u64::from(u32::MAX)) as usize, (commit >> 32) as u32);
            if length > 0 && length <= self.max_record() && at + frame_size(length) <= head {
                let mut bytes = vec![0; length];
                self.copy_out(at + WORD, &mut bytes);
                if crc32c::crc32c(&bytes) == crc {
                    at += frame_size(length);
                    found.push((at, bytes));
                    in_hole = false;
                    continue;
                }
            }
            holes += u64::from(!in_hole);
            in_hole = true;
            at += WORD;
        }
        (found, holes)
    }

    /// Removes the file; the mapping stays usable until dropped.
    pub fn unlink(&self) {
        if let Some(path) = &self.path {
            // Already gone is as good.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

fn frame_size(length: usize) -> u64 {
    (length as u64 + WORD).next_multiple_of(WORD)
}

/// Directories in memory, best first. `/dev/shm` is tmpfs on Linux; a runtime directory is tmpfs under systemd.
fn tmpfs_dirs() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    [Some(PathBuf::from("/dev/shm")), runtime].into_iter().flatten().filter(|dir| is_tmpfs(dir)).collect()
}

#[cfg(target_os = "linux")]
fn is_tmpfs(dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return false };
    // SAFETY: statfs is plain data, and zeros are a valid value of it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a valid path and a valid place for the answer.
    let known = unsafe { libc::statfs(path.as_ptr(), &mut stat) } == 0;
    // The types of both differ between platforms.
    #[allow(clippy::unnecessary_cast, reason = "needed on other platforms than this one")]
    let is_tmpfs = stat.f_type as i64 == libc::TMPFS_MAGIC as i64;
    known && is_tmpfs
}

#[cfg(not(target_os = "linux"))]
fn is_tmpfs(_: &Path) -> bool {
    false
}

/// Tells whether a file of this user is a ring that never came into use.
fn is_unfinished(path: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) else { return false };
    let is_own = file.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == user());
    let mut magic = [0; MAGIC.len()];
    is_own && (file.read_exact_at(&mut magic, 0).is_err() || magic == [0; MAGIC.len()])
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

fn user_dir() -> String {
    format!("runspan-{}", user())
}

/// Makes the user's own directory, and refuses one that somebody else has put there.
fn private_dir(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.join(user_dir());
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

/// Allocates every page now, so that writing can never meet a full tmpfs.
#[cfg(target_os = "linux")]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: a plain system call on an open file.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;
    use std::sync::Arc;

    fn ring(capacity: u64) -> (tempfile::TempDir, RunId, Ring) {
        let dir = tempfile::tempdir().unwrap();
        let process = RunId::fresh(UnixNanos::now());
        let ring = Ring::create_in(dir.path(), process, capacity).unwrap();
        (dir, process, ring)
    }

    fn drain(ring: &Ring) -> Vec<Vec<u8>> {
        let (mut at, mut all) = (ring.tail_position(), Vec::new());
        let mut out = Vec::new();
        while let Some(next) = ring.read(at, &mut out) {
            all.push(std::mem::take(&mut out));
            at = next;
        }
        ring.consume(at);
        all
    }

    #[test]
    fn records_come_out_as_they_went_in_over_many_laps() {
        let (_dir, _, ring) = ring(MIN_CAPACITY);
        for lap in 0..200u32 {
            let records: Vec<Vec<u8>> = (1..20).map(|n| vec![(lap + n) as u8; 97 * n as usize]).collect();
            for record in &records {
                ring.push(&[&record[..1], &record[1..]]).unwrap();
            }
            assert_eq!(drain(&ring), records);
        }
    }

    #[test]
    fn a_full_ring_drops_and_counts_and_goes_on() {
        let (_dir, _, ring) = ring(MIN_CAPACITY);
        let record = [7u8; 1000];
        let pushed = (0..1000).filter(|_| ring.push(&[&record]).is_ok()).count();
        assert_eq!(pushed as u64, MIN_CAPACITY / 1008);
        assert_eq!(ring.dropped(DropReason::QueueFull), 1000 - pushed as u64);
        assert_eq!(ring.pushed(), pushed as u64);
        assert_eq!(drain(&ring).len(), pushed);
        assert_eq!(ring.push(&[&record]), Ok(()));
        assert_eq!(ring.push(&[&vec![0; MIN_CAPACITY as usize]]), Err(DropReason::TooLarge));
    }

    #[test]
    fn many_writers_and_one_reader_lose_nothing_that_was_taken() {
        let (_dir, _, ring) = ring(MIN_CAPACITY);
        let ring = Arc::new(ring);
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let ring = Arc::clone(&ring);
                std::thread::spawn(move || {
                    let mut taken = 0;
                    for n in 0..20_000u64 {
                        let bytes = [writer.to_le_bytes(), n.to_le_bytes()].concat();
                        let fill = vec![writer as u8 + 1; (n % 300) as usize];
                        taken += u64::from(ring.push(&[&bytes, &fill]).is_ok());
                    }
                    taken
                })
            })
            .collect();
        let mut seen = [0u64; 4];
        let mut last = [None; 4];
        let mut check = |record: &[u8]| {
            let writer = u64::from_le_bytes(record[..8].try_into().unwrap()) as usize;
            let n = u64::from_le_bytes(record[8..16].try_into().unwrap());
            assert!(record[16..].iter().all(|byte| *byte == writer as u8 + 1));
            assert!(last[writer] < Some(n), "order within one writer");
            last[writer] = Some(n);
            seen[writer] += 1;
        };
        while writers.iter().any(|writer| !writer.is_finished()) {
            drain(&ring).iter().for_each(|record| check(record));
        }
        drain(&ring).iter().for_each(|record| check(record));
        let taken: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(seen.to_vec(), taken);
    }

    #[test]
    fn a_hole_costs_only_itself() {
        let (_dir, process, ring) = ring(MIN_CAPACITY);
        ring.push(&[b"first"]).unwrap();
        // A writer that died between reservation and commit, with half its bytes in place.
        let at = ring.head().fetch_add(frame_size(100), Ordering::Relaxed);
        ring.copy_in(at + WORD, &[0xee; 50]);
        ring.push(&[b"second"]).unwrap();
        let path = ring.path.clone().unwrap();
        drop(ring);
        let ring = Ring::open_file(&path, process).unwrap();
        let (found, holes) = ring.salvage(0);
        let texts: Vec<&[u8]> = found.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!((texts, holes), (vec![b"first".as_slice(), b"second"], 1));
        let (rest, _) = ring.salvage(found[0].0);
        assert_eq!(rest.len(), 1);
        assert!(Ring::open_file(&path, RunId::fresh(UnixNanos::now())).is_err());
    }

    #[test]
    fn a_ring_whose_making_was_interrupted_is_none() {
        for length in [0, HEADER as u64, HEADER as u64 + MIN_CAPACITY] {
            let Some(dir) = tmpfs_dirs().into_iter().next() else { return };
            let process = RunId::fresh(UnixNanos::now());
            let path = private_dir(&dir).unwrap().join(format!("{process}.ring"));
            File::create(&path).unwrap().set_len(length).unwrap();
            assert!(Ring::is_left_behind(process));
            assert!(Ring::open_dead(process, Path::new("lock")).unwrap().is_none());
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_file_is_private() {
        let (_dir, _, ring) = ring(MIN_CAPACITY);
        let path = ring.path.clone().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        ring.unlink();
        assert!(!path.exists());
    }
}
