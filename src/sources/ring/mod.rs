//! The ring: bounded shared memory between the threads that record and the one worker.
//!
//! A caller copies an encoded record in and returns; it takes no lock and makes no system call. The memory is a
//! file in tmpfs, so what a caller has put in outlives the process: the next process that opens the store reads the
//! ring of a dead one. Each part of the file is allocated before its first use, so a tmpfs that fills up cannot fault
//! the host; it has mode 0600 in a directory of mode 0700, since records in it are not scrubbed yet.
//!
//! # Layout
//!
//! Version 2, little endian. A header of 20480 bytes, then `capacity` bytes of data, a power of two:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `RSPNRING` |
//! | 8 | 4 | version, 2 |
//! | 12 | 4 | length of the header |
//! | 16 | 8 | capacity |
//! | 24 | 16 | the writing process's id, a ULID |
//! | 40 | 1 | the content policy under which the records are to be scrubbed: 0 none, 1 redacted, 2 full |
//! | 64 | 8 | head: where the next record is reserved |
//! | 128 | 8 | tail: up to where the worker has consumed |
//! | 192 | 8 × 8 | lost ends of spans, by [`DropReason`] |
//! | 256 | 8 × 8 | lost starts and events of spans, by reason |
//! | 320 | 8 × 8 | lost records that found no place in the table, by reason |
//! | 384 | 8 × 8 | lost records of traces of which no run is known, by reason |
//! | 448 | 2 × 8 | `moving` and `moved`, see [`lost`] |
//! | 512 | 8 | records put in, the lost ones not included |
//! | 520 | 8 | the process's last sign of life, nanoseconds since 1970, a few seconds old while it lives |
//! | 528 | 2 × 16 | device and inode of the store and of the directory it is in |
//! | 576 | 8 | how many bytes of the data have memory, from their beginning; 0 for all of them |
//! | 1024 | 2 + n | length and path of the lock file that the process holds while it lives |
//! | 4096 | 256 × 64 | what is lost, by trace: the table in [`lost`] |
//!
//! Version 1 has a header of 4096 bytes with 0 at offset 12, and none of what stands from 192 on but the path at 1024.
//! Such rings are read.
//!
//! The process also holds an exclusive `flock` on this file while it lives, which tells others that the ring is in use
//! where they do not see its store. Where the file lies and how it is found stands in [`files`].
//!
//! Positions only grow; a position modulo the capacity is the place. A record is a word, the commit word, and its
//! bytes, padded with zeros to 8: `length u32 | crc32c u32`. It is 0 until the bytes are in place.
//!
//! # Operation
//!
//! A writer reserves by moving the head with compare-and-swap, copies the bytes, then stores the commit word with
//! release ordering. The worker reads from the tail while commit words are not 0, and before it moves the tail on it
//! fills what it consumed with zeros, so a reserved place always begins with 0. Full means the record is lost and
//! counted, by reason and by trace; nobody waits.
//!
//! The file has its whole length from the start, and memory only as far as it was ever needed. A worker that has
//! consumed all there is moves head and tail on to the next multiple of the capacity, to the beginning of the data, so
//! that one that keeps up uses an eighth of the room over and over. A writer that comes to a place without memory
//! has it allocated first, some hundred records' worth at once; where there is none, the ring is full.
//!
//! # Recovery
//!
//! A process killed between reservation and commit leaves a hole of zeros, perhaps with bytes in it. A reader of a
//! dead ring goes on in steps of 8 until a commit word fits its bytes. Only records whose call had not returned can
//! be lost so. A reader of a dead ring writes nothing into it.

pub mod files;
pub mod lost;

use std::fs::File;
use std::io;
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use super::fork::Alone;
use crate::model::{RunId, UnixNanos};
use files::Identities;
pub use files::Left;

const MAGIC: &[u8; 8] = b"RSPNRING";
const HEADER: usize = TABLE_AT + lost::TABLE_BYTES;
const HEADER_BYTES_AT: usize = 12;
const CAPACITY_AT: usize = 16;
const PROCESS_AT: usize = 24;
const POLICY_AT: usize = 40;
const HEAD_AT: usize = 64;
const TAIL_AT: usize = 128;
const LOST_ENDS_AT: usize = 192;
const LOST_OTHERS_AT: usize = 256;
const NOT_NOTED_AT: usize = 320;
const GIVEN_UP_AT: usize = 384;
const MOVING_AT: usize = 448;
const MOVED_AT: usize = 456;
const PUSHED_AT: usize = 512;
const LIFE_AT: usize = 520;
const IDENTITIES_AT: usize = 528;
const ALLOCATED_AT: usize = 576;
const OWNER_AT: usize = 1024;
const TABLE_AT: usize = 4096;
const MAX_OWNER: usize = TABLE_AT - OWNER_AT - 2;
const WORD: u64 = 8;

/// Default size of the data area in bytes; one record may take fifteen sixteenths of it.
pub const DEFAULT_CAPACITY: u64 = 16 << 20;
const MIN_CAPACITY: u64 = 64 << 10;
const MAX_CAPACITY: u64 = 1 << 30;
/// Memory of a ring that nothing was put into yet: half a millisecond of the start of a process a MiB.
const FIRST_BYTES: u64 = 1 << 20;
/// Memory that is added when it runs out.
const MORE_BYTES: u64 = 256 << 10;

/// Why a record was lost. The number stands in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// The worker was further behind than the ring is large.
    QueueFull = 0,
    /// The record alone is larger than fifteen sixteenths of the ring.
    TooLarge = 1,
    /// The recorder had been shut down.
    ShutDown = 2,
    /// The journal could never have taken it.
    Journal = 3,
    /// The store was removed while it was in use.
    StoreRemoved = 4,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::QueueFull, Self::TooLarge, Self::ShutDown, Self::Journal, Self::StoreRemoved];

    /// Returns the word used in counts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::ShutDown => "shut_down",
            Self::Journal => "journal",
            Self::StoreRemoved => "store_removed",
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u64 == number)
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Versions of the layout that are read; the last one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// Returns the version of a header that begins so; `None` when it is no ring or one of a later version.
    fn of(head: &[u8; 40]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let all = [Self::V1, Self::V2].into_iter().zip(1..);
        all.filter(|_| head[..8] == *MAGIC).find(|(_, number)| *number == word(8)).map(|(version, _)| version)
    }

    const fn header_bytes(self) -> usize {
        match self {
            Self::V1 => 4096,
            Self::V2 => HEADER,
        }
    }

    /// Returns what a ring of this version begins with.
    fn header(self, process: RunId, capacity: u64) -> [u8; 40] {
        let (number, header_bytes): (u32, u32) = match self {
            Self::V1 => (1, 0),
            Self::V2 => (2, HEADER as u32),
        };
        let mut head = [0; 40];
        head[..8].copy_from_slice(MAGIC);
        head[8..HEADER_BYTES_AT].copy_from_slice(&number.to_le_bytes());
        head[HEADER_BYTES_AT..CAPACITY_AT].copy_from_slice(&header_bytes.to_le_bytes());
        head[CAPACITY_AT..PROCESS_AT].copy_from_slice(&capacity.to_le_bytes());
        head[PROCESS_AT..].copy_from_slice(&process.0);
        head
    }
}

/// A mapped ring; shared by all recording threads and the worker.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    version: Version,
    capacity: u64,
    mapped: usize,
    path: Option<PathBuf>,
    /// The file of a ring that is written to and may need more memory.
    file: Option<File>,
    /// Somebody is adding memory.
    growing: AtomicBool,
    /// There was no memory to add the last time; tried again when the worker has gone back to the beginning.
    no_room: AtomicBool,
    /// Locked while the process that made the ring lives.
    _lock: Option<(Alone, File)>,
}

// SAFETY: all shared state behind `base` is accessed through atomics, or as bytes that the reservation protocol gives
// to one thread at a time.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Maps the pages of the data that have memory now, from a place on: a caller's first lap would else be one page
    /// fault after the other, a quarter of what a step costs it.
    fn populate(&self, from: u64) {
        const PAGE: u64 = 4096;
        let (from, to) = (from / PAGE * PAGE, self.allocated());
        #[cfg(target_os = "linux")]
        // SAFETY: a hint on our own mapping, from the beginning of a page on: the header is whole pages. A kernel that
        // does not know it leaves the faults to the callers.
        unsafe {
            let begin = self.base.as_ptr().add(self.version.header_bytes() + from as usize);
            libc::madvise(begin.cast(), to.saturating_sub(from) as usize, libc::MADV_POPULATE_WRITE);
        }
    }

    /// Makes a ring that does not outlive the process.
    fn in_plain_memory(process: RunId, capacity: u64) -> io::Result<Self> {
        let ring = Self::map(None, Version::V2, capacity, libc::PROT_READ | libc::PROT_WRITE)?;
        ring.begin(process, capacity);
        Ok(ring)
    }

    /// Makes a ring in a file that is large enough, with memory for `allocated` bytes of data.
    fn of_file(file: File, process: RunId, capacity: u64, allocated: u64) -> io::Result<Self> {
        let mut ring = Self::map(Some(&file), Version::V2, capacity, libc::PROT_READ | libc::PROT_WRITE)?;
        ring.file = Some(file);
        ring.begin(process, allocated);
        Ok(ring)
    }

    fn map(file: Option<&File>, version: Version, capacity: u64, access: libc::c_int) -> io::Result<Self> {
        let mapped = version.header_bytes() + capacity as usize;
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a fresh mapping of a length that the file has, or of no file; the result is checked.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mapping at address 0"))?;
        let (growing, no_room) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { base, version, capacity, mapped, path: None, file: None, growing, no_room, _lock: None })
    }

    fn begin(&self, process: RunId, allocated: u64) {
        self.show_life();
        self.word(ALLOCATED_AT).store(allocated, Ordering::Relaxed);
        let head = Version::V2.header(process, self.capacity);
        // SAFETY: the mapping is at least a header long, and nobody else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), self.base.as_ptr(), head.len()) };
    }

    /// Notes that the process lives, now and then.
    pub fn show_life(&self) {
        self.word(LIFE_AT).store(UnixNanos::now().0, Ordering::Relaxed);
    }

    fn last_sign_of_life(&self) -> UnixNanos {
        UnixNanos(self.word(LIFE_AT).load(Ordering::Relaxed))
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

    /// Returns how many bytes of the data have memory.
    fn allocated(&self) -> u64 {
        match (self.version, self.word(ALLOCATED_AT).load(Ordering::Acquire)) {
            (Version::V1, _) | (_, 0) => self.capacity,
            (_, bytes) => bytes.min(self.capacity),
        }
    }

    /// Tells whether the data from a position on have memory, for so many bytes.
    fn has_memory(&self, position: u64, size: u64) -> bool {
        let allocated = self.allocated();
        (position & (self.capacity - 1)) + size <= allocated || allocated == self.capacity
    }

    /// Adds memory for `size` bytes at a position; `false` when there is none.
    fn grow(&self, position: u64, size: u64) -> bool {
        while !self.has_memory(position, size) {
            if self.no_room.load(Ordering::Relaxed) {
                return false;
            }
            if self.growing.swap(true, Ordering::Acquire) {
                // Whoever does it is in one system call.
                std::thread::yield_now();
                continue;
            }
            let allocated = self.allocated();
            let wanted = (position & (self.capacity - 1)) + size;
            let wanted = wanted.next_multiple_of(MORE_BYTES).clamp(allocated, self.capacity);
            let length = self.version.header_bytes() as u64 + wanted;
            match self.file.as_ref().map(|file| files::allocate(file, length)) {
                Some(Ok(())) => self.word(ALLOCATED_AT).store(wanted, Ordering::Release),
                _ => self.no_room.store(true, Ordering::Relaxed),
            }
            self.growing.store(false, Ordering::Release);
        }
        true
    }

    /// Has memory at hand for what comes next, before a caller has to see to it.
    pub fn grow_ahead(&self) {
        let head = self.head().load(Ordering::Relaxed);
        let (allocated, place) = (self.allocated(), head & (self.capacity - 1));
        let is_near = allocated < self.capacity && place + MORE_BYTES > allocated;
        if is_near && self.grow(head, MORE_BYTES) {
            self.populate(allocated);
        }
    }

    fn commit_word(&self, position: u64) -> &AtomicU64 {
        self.word(self.data_at(position))
    }

    /// Returns the offset of a position.
    fn data_at(&self, position: u64) -> usize {
        self.version.header_bytes() + (position & (self.capacity - 1)) as usize
    }

    /// Notes which lock file the process holds, and where that is.
    fn write_owner(&self, lock_file: &Path, identities: Identities) {
        use std::os::unix::ffi::OsStrExt;
        let path = lock_file.as_os_str().as_bytes();
        if path.len() > MAX_OWNER {
            return;
        }
        for (nth, word) in [identities.store, identities.parent].into_iter().flatten().enumerate() {
            self.word(IDENTITIES_AT + 8 * nth).store(word, Ordering::Relaxed);
        }
        let length = (path.len() as u16).to_le_bytes();
        // SAFETY: inside the header by the check above; only the process that made the ring writes here, once.
        unsafe {
            let at = self.base.as_ptr().add(OWNER_AT);
            std::ptr::copy_nonoverlapping(path.as_ptr(), at.add(2), path.len());
            std::ptr::copy_nonoverlapping(length.as_ptr(), at, 2);
        }
    }

    /// Returns the lock file of the process and which directories its store was in; `None` where that is not noted.
    fn owner(&self) -> Option<(PathBuf, Identities)> {
        use std::os::unix::ffi::OsStringExt;
        let mut length = [0; 2];
        self.read_bytes(OWNER_AT, &mut length);
        let length = usize::from(u16::from_le_bytes(length));
        if length == 0 || length > MAX_OWNER || self.version == Version::V1 {
            return None;
        }
        let mut path = vec![0; length];
        self.read_bytes(OWNER_AT + 2, &mut path);
        let word = |nth: usize| self.word(IDENTITIES_AT + 8 * nth).load(Ordering::Relaxed);
        let identities = Identities { store: [word(0), word(1)], parent: [word(2), word(3)] };
        Some((PathBuf::from(std::ffi::OsString::from_vec(path)), identities))
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
        (self.capacity / 16 * 15 - WORD) as usize
    }

    /// Returns how many bytes wait for the worker.
    pub fn waiting(&self) -> u64 {
        self.head().load(Ordering::Relaxed).saturating_sub(self.tail().load(Ordering::Relaxed))
    }

    /// Tells whether the worker should be woken rather than waited for.
    pub fn is_half_full(&self) -> bool {
        self.waiting() > self.capacity / 2
    }

    fn lost_word(&self, reason: DropReason, is_end: bool) -> &AtomicU64 {
        self.word(if is_end { LOST_ENDS_AT } else { LOST_OTHERS_AT } + 8 * reason as usize)
    }

    /// Returns how many ends of spans were lost for `reason`.
    pub fn lost_ends(&self, reason: DropReason) -> u64 {
        self.lost_word(reason, true).load(Ordering::Acquire)
    }

    /// Returns how many records were lost for `reason`, ends of spans and all others.
    pub fn lost_in_all(&self, reason: DropReason) -> u64 {
        self.lost_ends(reason) + self.lost_word(reason, false).load(Ordering::Acquire)
    }

    /// Returns how many records were put in.
    pub fn pushed(&self) -> u64 {
        self.word(PUSHED_AT).load(Ordering::Relaxed)
    }

    /// Puts the parts of one record in, one after the other; when this returns `Ok`, the record outlives the process.
    ///
    /// # Errors
    ///
    /// Why there is no place for it; the caller counts what is lost by that ([`Ring::count_lost`]).
    pub fn push(&self, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.push_leaving(0, parts)
    }

    /// Puts a record in that leaves the last sixteenth of the room to records that may not.
    pub fn push_modestly(&self, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.push_leaving(self.capacity / 16, parts)
    }

    fn push_leaving(&self, left: u64, parts: &[&[u8]]) -> Result<(), DropReason> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 || length > self.max_record() {
            return Err(DropReason::TooLarge);
        }
        let size = frame_size(length);
        let mut head = self.head().load(Ordering::Relaxed);
        loop {
            // Acquire: the zeros that the worker left are seen before the place is written.
            let tail = self.tail().load(Ordering::Acquire);
            if (head + size + left).saturating_sub(tail) > self.capacity {
                // The head may be stale; a full ring is decided on the newest.
                let newest = self.head().load(Ordering::Relaxed);
                if newest == head {
                    return Err(DropReason::QueueFull);
                }
                head = newest;
                continue;
            }
            if !self.has_memory(head, size) && !self.grow(head, size) {
                return Err(DropReason::QueueFull);
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
            let data = self.base.as_ptr().add(self.version.header_bytes());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(start), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), data, bytes.len() - first);
        }
    }

    fn copy_out(&self, position: u64, out: &mut [u8]) {
        let start = (position & (self.capacity - 1)) as usize;
        let first = out.len().min(self.capacity as usize - start);
        let (front, back) = out.split_at_mut(first);
        self.read_bytes(self.version.header_bytes() + start, front);
        self.read_bytes(self.version.header_bytes(), back);
    }

    fn clear(&self, from: u64, to: u64) {
        let start = (from & (self.capacity - 1)) as usize;
        let length = (to - from) as usize;
        let first = length.min(self.capacity as usize - start);
        // SAFETY: the places are consumed, so they belong to the worker until the tail moves.
        unsafe {
            let data = self.base.as_ptr().add(self.version.header_bytes());
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

    /// Goes on at the beginning of the data if everything before `position` is consumed and nothing is behind it;
    /// returns where the worker reads on.
    pub fn go_back(&self, position: u64) -> u64 {
        // A writer that looks between the two moves sees a ring that is full but for what is before the place: enough for
        // any record that is not huge.
        let is_far = position & (self.capacity - 1) >= self.capacity / 8;
        if self.tail().load(Ordering::Relaxed) != position || !is_far && !self.no_room.load(Ordering::Relaxed) {
            return position;
        }
        let next = (position | (self.capacity - 1)) + 1;
        match self.head().compare_exchange(position, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                self.tail().store(next, Ordering::Release);
                self.no_room.store(false, Ordering::Relaxed);
                next
            }
            Err(_) => position,
        }
    }

    /// Reads the records of a dead process from `position` on, over holes, without changing anything.
    ///
    /// Returns each record with the position behind it, and how many holes there were.
    pub fn salvage(&self, position: u64) -> (Vec<(u64, Vec<u8>)>, u64) {
        // Relaxed loads, since the memory is mapped for reading only; who wrote it is dead.
        let tail = self.tail().load(Ordering::Relaxed);
        let head = self.head().load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // A damaged header must not send the loop around for ages.
        if head < tail || head - tail > self.capacity || !head.is_multiple_of(8) || !tail.is_multiple_of(8) {
            return (Vec::new(), 1);
        }
        let (mut at, mut found, mut holes, mut in_hole) = (position.max(tail).min(head), Vec::new(), 0, false);
        while at < head {
            if !self.has_memory(at, WORD) {
                // It died while it went back to the beginning. To read here would need memory.
                at = (at | (self.capacity - 1)) + 1;
                continue;
            }
            let commit = self.commit_word(at).load(Ordering::Relaxed);
            let (length, crc) = ((commit & u64::from(u32::MAX)) as usize, (commit >> 32) as u32);
            let size = frame_size(length);
            if length > 0 && length <= self.max_record() && at + size <= head && self.has_memory(at, size) {
                let mut bytes = vec![0; length];
                self.copy_out(at + WORD, &mut bytes);
                if crc32c::crc32c(&bytes) == crc {
                    at += size;
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
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

/// Returns how much memory a ring has from the start: whoever makes it larger than it is by default wants to have it
/// when a burst comes, and not to wait for it then.
fn first_bytes(capacity: u64) -> u64 {
    if capacity > DEFAULT_CAPACITY { capacity } else { capacity.min(FIRST_BYTES) }
}

fn frame_size(length: usize) -> u64 {
    (length as u64 + WORD).next_multiple_of(WORD)
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
    fn a_full_ring_refuses_and_goes_on() {
        let (_dir, _, ring) = ring(MIN_CAPACITY);
        let record = [7u8; 1000];
        let pushed = (0..1000).filter(|_| ring.push(&[&record]).is_ok()).count();
        assert_eq!(pushed as u64, MIN_CAPACITY / 1008);
        assert_eq!(ring.push(&[&record]), Err(DropReason::QueueFull));
        assert_eq!(ring.pushed(), pushed as u64);
        assert_eq!(drain(&ring).len(), pushed);
        assert_eq!(ring.push(&[&record]), Ok(()));
        assert_eq!(ring.push(&[&vec![0; MIN_CAPACITY as usize]]), Err(DropReason::TooLarge));
    }

    fn memory_of(ring: &Ring) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(ring.path.as_ref().unwrap()).unwrap().blocks() * 512
    }

    #[test]
    fn memory_is_added_as_far_as_it_is_needed_and_a_worker_that_keeps_up_needs_little() {
        const CAPACITY: u64 = 8 << 20;
        let (_dir, _, ring) = ring(CAPACITY);
        assert_eq!(ring.allocated(), FIRST_BYTES);
        let record = |n: u64| n.to_le_bytes().repeat(500);
        let mut position = 0;
        for n in 0..5000 {
            ring.push(&[&record(n)]).unwrap();
            if n % 50 == 49 {
                let out = drain(&ring);
                assert_eq!(out, (n - 49..=n).map(record).collect::<Vec<_>>());
                position = ring.go_back(ring.tail_position());
                ring.grow_ahead();
            }
        }
        assert!(position > 2 * CAPACITY);
        assert!(ring.allocated() <= CAPACITY / 8 + 3 * MORE_BYTES, "{}", ring.allocated());
        assert_eq!(ring.go_back(position + 8), position + 8);
        let taken = (0..).take_while(|n| ring.push(&[&record(*n)]).is_ok()).count() as u64;
        assert_eq!((taken, ring.allocated()), (CAPACITY / 4008, CAPACITY));
        // Something waits: it has to stay where it is.
        assert_eq!(ring.go_back(position), position);
        assert_eq!(drain(&ring), (0..taken).map(record).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_that_gets_no_more_memory_is_full_until_its_worker_has_gone_back() {
        const CAPACITY: u64 = 8 << 20;
        let (_dir, _, mut ring) = ring(CAPACITY);
        // A file that cannot be written to gets no memory.
        ring.file = Some(File::open(ring.path.as_ref().unwrap()).unwrap());
        let record = [7; 4000];
        for _ in 0..3 {
            let taken = (0..).take_while(|_| ring.push(&[&record]).is_ok()).count() as u64;
            assert_eq!((taken, ring.push(&[&record])), (FIRST_BYTES / 4008, Err(DropReason::QueueFull)));
            assert_eq!(drain(&ring).len() as u64, taken);
            assert_eq!(ring.go_back(ring.tail_position()) % CAPACITY, 0);
        }
    }

    #[test]
    fn what_was_recorded_while_the_worker_died_going_back_is_found_without_more_memory() {
        const CAPACITY: u64 = 8 << 20;
        let (_dir, process, ring) = ring(CAPACITY);
        while ring.head_position() < CAPACITY / 8 {
            ring.push(&[&[7; 1000]]).unwrap();
        }
        drain(&ring);
        let behind = ring.tail_position();
        assert_eq!(ring.go_back(behind), CAPACITY);
        ring.tail().store(behind, Ordering::Release);
        ring.push(&[b"after it"]).unwrap();
        let (path, memory) = (ring.path.clone().unwrap(), memory_of(&ring));
        let dead = files::reopened(&path, process).unwrap();
        assert_eq!(dead.salvage(behind), (vec![(CAPACITY + 16, b"after it".to_vec())], 1));
        assert_eq!(memory_of(&ring), memory);
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
            ring.go_back(ring.tail_position());
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
        let ring = files::reopened(&path, process).unwrap();
        let (found, holes) = ring.salvage(0);
        let texts: Vec<&[u8]> = found.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!((texts, holes), (vec![b"first".as_slice(), b"second"], 1));
        let (rest, _) = ring.salvage(found[0].0);
        assert_eq!(rest.len(), 1);
        assert!(files::reopened(&path, RunId::fresh(UnixNanos::now())).is_err());
    }

    #[test]
    fn a_ring_of_version_1_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let process = RunId::fresh(UnixNanos::now());
        let path = dir.path().join("ring");
        let (text, capacity) = (b"from an older process", MIN_CAPACITY);
        let mut bytes = Version::V1.header(process, capacity).to_vec();
        bytes.resize(4096 + capacity as usize, 0);
        bytes[POLICY_AT] = 2;
        bytes[HEAD_AT..HEAD_AT + 8].copy_from_slice(&frame_size(text.len()).to_le_bytes());
        // What version 1 counted as dropped stood here; how many of them had been noted is not known.
        bytes[192..200].copy_from_slice(&7u64.to_le_bytes());
        let commit = text.len() as u64 | u64::from(crc32c::crc32c(text)) << 32;
        bytes[4096..4104].copy_from_slice(&commit.to_le_bytes());
        bytes[4104..4104 + text.len()].copy_from_slice(text);
        std::fs::write(&path, bytes).unwrap();
        let ring = files::reopened(&path, process).unwrap();
        assert_eq!(ring.salvage(0), (vec![(frame_size(text.len()), text.to_vec())], 0));
        assert_eq!((ring.policy(), ring.lost(), ring.owner()), (2, Vec::new(), None));
        assert!(DropReason::ALL.iter().all(|reason| ring.lost_of_no_run(*reason) == 0));
    }
}
