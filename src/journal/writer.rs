//! Appends to a journal: collects frames, and writes them in groups.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::{self, Lock};
use super::recovery::{self, Recovered};
use super::segment::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind, HEADER_BYTES, Header, SegmentKey};
use super::{Durability, JournalError, MAX_PAYLOAD_BYTES, NEW_PREFIX, process_dir};
use crate::fs::{Fs, FsFile, OsFs, sync_way_to, write_full};
use crate::model::id::IdMap;
use crate::model::time::UnixNanos;
use crate::sources::fork;

/// How often the making of a journal is tried again when who clears leftovers away came between; 2 ms lie between two.
const CREATE_ATTEMPTS: u32 = 50;

/// How a journal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a commit survives. Default: [`Durability::Process`].
    pub durability: Durability,
    /// A segment is closed before it gets larger than this; also the bound on what waits for a commit. In bytes.
    /// Default: 16 MiB. At most a quarter of `max_bytes` is used, so that there are segments to remove.
    pub segment_bytes: u64,
    /// The bound on all segments together, in bytes. Default: 1 GiB.
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { durability: Durability::Process, segment_bytes: 16 << 20, max_bytes: 1 << 30 }
    }
}

/// What a commit reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Every frame up to this number is as durable as the options say; 0 when there is none yet.
    pub seq: u64,
}

/// A share in the lock of a journal.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Hold {
    _lock: Arc<Lock>,
}

/// The one writer of a journal.
///
/// [`append`](Self::append) only collects in memory; [`commit`](Self::commit) writes. Dropping a writer drops what was
/// not committed and frees the lock; the journal stays, and is adopted by [`reopen`](Self::reopen).
#[derive(Debug)]
pub struct JournalWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    process: String,
    salt: u32,
    options: Options,
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "it is held, and shared by servers alone"))]
    lock: Arc<Lock>,
    /// Of a server's.
    _serving: Vec<Lock>,
    /// How often the process had forked when this was made.
    generation: u32,
    /// `None` when the next commit begins a new one.
    segment: Option<OpenSegment>,
    pending: Pending,
    resources: Resources,
    next_seq: u64,
    committed_seq: u64,
    /// The largest `source` committed.
    committed_source: u64,
    /// Bytes of the segments that are closed, as last measured.
    closed_bytes: u64,
    /// The disk was looked at since the last commit, so another look will not find more room.
    measured: bool,
    given_up: u64,
}

#[derive(Debug)]
struct OpenSegment {
    file: Box<dyn FsFile>,
    path: PathBuf,
    /// The committed length in bytes; 0 before the first commit.
    len: u64,
    /// The resources that stand in it.
    resources: HashSet<u32>,
}

/// Frames that wait for a commit.
#[derive(Debug, Default)]
struct Pending {
    /// Encoded; the same in whichever segment they end up.
    bytes: Vec<u8>,
    first_seq: u64,
    source: u64,
    /// The resources that they refer to.
    resources: Vec<(u32, Arc<[u8]>)>,
}

impl JournalWriter {
    /// Makes the journal of a new process. `journal_dir` is made when it is missing; its parent must exist.
    ///
    /// # Errors
    ///
    /// [`JournalError::Exists`] when there is a journal of that name, [`JournalError::BadName`], and what the file
    /// system says.
    pub fn create(journal_dir: &Path, process: &str, options: Options) -> Result<Self, JournalError> {
        Self::create_in(OsFs::shared(), journal_dir, process, options)
    }

    /// Like [`create`](Self::create), on another file system.
    pub fn create_in(
        fs: Arc<dyn Fs>,
        journal_dir: &Path,
        process: &str,
        options: Options,
    ) -> Result<Self, JournalError> {
        let dir = process_dir(journal_dir, process)?;
        make_dir(&*fs, journal_dir)?;
        if fs.stat(&dir).is_ok() {
            return Err(JournalError::Exists { path: dir });
        }
        // Somebody who cleans up may take the directory away before it is locked; that cannot go on for ever.
        let mut lock = name_locked_dir(&*fs, journal_dir, process, 0, &dir);
        for attempt in 1..=CREATE_ATTEMPTS {
            if !matches!(&lock, Err(error) if error.is_gone() || error.is_locked()) {
                break;
            }
            std::thread::sleep(lock::POLL);
            lock = name_locked_dir(&*fs, journal_dir, process, attempt, &dir);
        }
        let lock = lock?;
        if options.durability == Durability::Power {
            // Others may have made the directories above a moment ago, and not for keeps.
            sync_way_to(&*fs, &dir).map_err(|(path, error)| JournalError::io("sync", &path)(error))?;
        }
        Ok(Self::new(fs, dir, process, options, lock, Recovered::default(), 0))
    }

    /// Adopts the journal of a dead process: takes its lock, cuts the torn tail, and goes on behind it, with the
    /// durability that it was written with if that is the higher one.
    ///
    /// # Errors
    ///
    /// [`JournalError::Locked`] when its writer lives, [`JournalError::NotFound`], [`JournalError::NewerFormat`] (and
    /// nothing was changed), and what the file system says.
    pub fn reopen(journal_dir: &Path, process: &str, options: Options) -> Result<(Self, Recovered), JournalError> {
        Self::reopen_in(OsFs::shared(), journal_dir, process, options)
    }

    /// Like [`reopen`](Self::reopen), on another file system.
    pub fn reopen_in(
        fs: Arc<dyn Fs>,
        journal_dir: &Path,
        process: &str,
        options: Options,
    ) -> Result<(Self, Recovered), JournalError> {
        let dir = process_dir(journal_dir, process)?;
        let lock = Lock::adopt(&*fs, &dir)?;
        let recovered = recovery::recover(&*fs, &dir, process, options.durability)?;
        let options = Options { durability: recovered.durability, ..options };
        let closed_bytes = segments_bytes(&*fs, &dir)?;
        let writer = Self::new(fs, dir, process, options, lock, recovered, closed_bytes);
        Ok((writer, recovered))
    }

    /// Keeps others from taking the journal over for as long as what is returned lives: whoever reads it to its end is not done
    /// when its writer is.
    #[cfg(feature = "server")]
    pub(crate) fn hold(&self) -> Hold {
        Hold { _lock: Arc::clone(&self.lock) }
    }

    /// Lets others see, for as long as this lives, that a server is at work on the journal, or an import that `imports` into that of a
    /// server before.
    ///
    /// # Errors
    ///
    /// What the file system says.
    #[cfg(feature = "server")]
    pub(crate) fn serve(&mut self, imports: bool) -> Result<(), JournalError> {
        // Who sees the second must see the first.
        for name in [lock::IMPORTING].iter().filter(|_| imports).chain([&lock::SERVING]) {
            self._serving.push(Lock::serve(&*self.fs, &self.dir, name)?);
        }
        Ok(())
    }

    fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        process: &str,
        mut options: Options,
        lock: Lock,
        recovered: Recovered,
        closed_bytes: u64,
    ) -> Self {
        options.segment_bytes = options.segment_bytes.min(options.max_bytes / 4);
        Self {
            fs,
            dir,
            process: process.to_owned(),
            salt: segment::salt(process),
            options,
            lock: Arc::new(lock),
            _serving: Vec::new(),
            generation: fork::generation(),
            segment: None,
            pending: Pending::default(),
            resources: Resources::default(),
            next_seq: recovered.last_seq + 1,
            committed_seq: recovered.last_seq,
            committed_source: recovered.last_source,
            closed_bytes,
            measured: false,
            given_up: 0,
        }
    }

    /// Returns the name of the process this journal is for.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Returns the number of the last frame that is committed, 0 for none.
    pub fn committed_seq(&self) -> u64 {
        self.committed_seq
    }

    /// Returns the bytes that wait for a commit.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes.len()
    }

    /// Returns how many segments were given up after a failed write or sync.
    pub fn given_up_segments(&self) -> u64 {
        self.given_up
    }

    /// Tells which resource frames can refer to by the returned id, an OTLP `Resource`.
    ///
    /// The same bytes get the same id, at the price of a hash. Up to 1024 resources and 16 MiB are remembered; beyond,
    /// the one used least recently is forgotten, so a caller with many registers before each use instead of keeping
    /// ids.
    ///
    /// # Errors
    ///
    /// [`JournalError::PayloadTooLarge`].
    pub fn register_resource(&mut self, resource: &[u8]) -> Result<u32, JournalError> {
        check_size(resource)?;
        Ok(self.resources.register(resource))
    }

    /// Adds a frame to the next commit and returns its number.
    ///
    /// `resource` is an id from [`register_resource`](Self::register_resource) or 0, `source` the caller's own
    /// position, of which recovery returns the largest.
    ///
    /// # Errors
    ///
    /// Nothing is added then, and no number is used up: [`JournalError::Full`] when the journal has reached
    /// `max_bytes`; [`JournalError::BufferFull`] when a commit is due; [`JournalError::PayloadTooLarge`],
    /// [`JournalError::UnknownResource`], [`JournalError::BadKind`]; [`JournalError::Forked`] in a forked child.
    pub fn append(&mut self, kind: FrameKind, resource: u32, source: u64, payload: &[u8]) -> Result<u64, JournalError> {
        self.check_fork()?;
        check_size(payload)?;
        if matches!(kind.number(), 0 | 4) {
            return Err(JournalError::BadKind { kind: kind.number() });
        }
        let resource_bytes = match resource {
            0 => None,
            id => Some(self.resources.get(id).ok_or(JournalError::UnknownResource { resource })?),
        };
        let frame = FrameHeader { len: payload.len(), kind, flags: 0, resource, seq: self.next_seq, source };
        self.check_room(&frame, resource_bytes.as_deref())?;
        if self.pending.bytes.is_empty() {
            self.pending.first_seq = self.next_seq;
        }
        if let Some(bytes) = resource_bytes {
            self.pending.refer(resource, bytes);
        }
        frame.encode(self.salt, payload, &mut self.pending.bytes);
        self.pending.source = self.pending.source.max(source);
        self.next_seq += 1;
        Ok(frame.seq)
    }

    /// Tells whether the journal is below its bound: whether it takes a small frame.
    pub fn has_room(&mut self) -> bool {
        let seq = self.next_seq;
        self.check_room(&FrameHeader { len: 0, kind: FrameKind::Ended, flags: 0, resource: 0, seq, source: 0 }, None)
            .is_ok()
    }

    fn check_fork(&self) -> Result<(), JournalError> {
        if self.generation == fork::generation() { Ok(()) } else { Err(JournalError::Forked) }
    }

    fn check_room(&mut self, frame: &FrameHeader, resource: Option<&[u8]>) -> Result<(), JournalError> {
        // The resource may have to be written too: at the most once more, when a new segment begins.
        let added = frame.stored_bytes() + resource.map_or(0, |bytes| bytes.len() + FRAME_HEADER_BYTES + 8);
        let waiting = self.pending.stored_bytes();
        let buffer_bytes = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX);
        // A frame larger than the bound passes alone, into a segment of its own.
        if waiting > 0 && waiting + added > buffer_bytes {
            return Err(JournalError::BufferFull { buffered_bytes: waiting, max_bytes: buffer_bytes });
        }
        let wanted = (HEADER_BYTES + waiting + added) as u64;
        if self.stored_bytes() + wanted > self.options.max_bytes && !self.measured {
            // Segments may have been removed since. Looked up once a commit, for a full journal should cost little.
            self.measured = true;
            let open_bytes = self.segment.as_ref().map_or(0, |segment| segment.len);
            self.closed_bytes = segments_bytes(&*self.fs, &self.dir)?.saturating_sub(open_bytes);
        }
        let bytes = self.stored_bytes() + wanted;
        if bytes > self.options.max_bytes {
            return Err(JournalError::Full { bytes, max_bytes: self.options.max_bytes });
        }
        Ok(())
    }

    fn stored_bytes(&self) -> u64 {
        self.closed_bytes + self.segment.as_ref().map_or(0, |segment| segment.len)
    }

    /// Writes everything appended so far, and with [`Durability::Power`] brings it to the disk.
    ///
    /// # Errors
    ///
    /// No frame is dropped: all that were not committed before wait on, with their numbers, for the next call, and
    /// more can be appended until [`JournalError::BufferFull`]. A commit that failed has been tried in a second, fresh
    /// segment already, unless space ran out. Whether a frame of a failed commit is on the disk is unknown; readers get
    /// it once in any case, if they go on from where they were.
    pub fn commit(&mut self) -> Result<Committed, JournalError> {
        self.check_fork()?;
        self.measured = false;
        if !self.pending.bytes.is_empty() {
            match self.write_pending() {
                // A fresh segment often works where an old one does not, but not on a full disk.
                Err(error) if !error.is_out_of_space() => self.write_pending()?,
                written => written?,
            }
        }
        Ok(Committed { seq: self.committed_seq })
    }

    fn write_pending(&mut self) -> Result<(), JournalError> {
        let mut segment = self.segment_for_pending()?;
        let is_new = segment.len == 0;
        let mut prelude = Vec::new();
        if is_new {
            let header = Header {
                first_seq: self.pending.first_seq,
                created_unix_nanos: UnixNanos::now().0,
                source_before: self.committed_source,
                durability: self.options.durability,
            };
            prelude.extend_from_slice(&header.encode(&self.process));
        }
        self.pending.encode_resources(self.salt, &segment.resources, &mut prelude);
        let written = self.write_to(&segment, prelude);
        match written {
            Ok(len) => {
                segment.len = len;
                segment.resources.extend(self.pending.resources.iter().map(|(id, _)| *id));
                self.segment = Some(segment);
                self.committed_seq = self.next_seq - 1;
                self.committed_source = self.committed_source.max(self.pending.source);
                self.pending.clear();
                Ok(())
            }
            Err(error) => {
                self.give_up(&segment);
                Err(error)
            }
        }
    }

    /// Writes `prelude` and the pending frames behind the segment's end; returns the new length.
    fn write_to(&self, segment: &OpenSegment, mut prelude: Vec<u8>) -> Result<u64, JournalError> {
        let OpenSegment { file, path, len, .. } = segment;
        let bytes = if prelude.is_empty() {
            &self.pending.bytes
        } else {
            // Rare and once a segment: a copy is cheaper than a second write.
            prelude.extend_from_slice(&self.pending.bytes);
            &prelude
        };
        write_full(&**file, bytes, *len).map_err(JournalError::io("write", path))?;
        if self.options.durability == Durability::Power {
            file.sync_data().map_err(JournalError::io("sync", path))?;
            if *len == 0 {
                self.fs.sync_dir(&self.dir).map_err(JournalError::io("sync", &self.dir))?;
            }
        }
        // A file without a name takes every write and keeps none.
        if !file.stat().map_err(JournalError::io("read", path))?.is_linked {
            return Err(JournalError::Removed { path: path.clone() });
        }
        Ok(len + bytes.len() as u64)
    }

    /// Returns the segment for the pending frames: the open one while they fit, else a new and empty one.
    fn segment_for_pending(&mut self) -> Result<OpenSegment, JournalError> {
        if let Some(open) = self.segment.take() {
            if open.len + self.pending.stored_bytes() as u64 <= self.options.segment_bytes {
                return Ok(open);
            }
            self.closed_bytes += open.len;
        }
        let first_seq = self.pending.first_seq;
        let existing = segment::list(&*self.fs, &self.dir)?;
        // Above all of the same number, not the first free one: an earlier one may have been removed already.
        let same = existing.iter().rfind(|key| key.first_seq == first_seq);
        let key = SegmentKey { first_seq, takeover: same.map_or(0, |key| key.takeover.saturating_add(1)) };
        let path = key.path(&self.dir);
        let file = self.fs.create_new(&path).map_err(JournalError::io("create", &path))?;
        Ok(OpenSegment { file, path, len: 0, resources: HashSet::new() })
    }

    /// Leaves a segment whose write or sync failed, never to write to it again.
    fn give_up(&mut self, segment: &OpenSegment) {
        self.given_up += 1;
        self.closed_bytes += segment.len;
        // Both only tidy up: what stays behind the good length is a remnant for every reader, once the frames stand
        // in the next segment.
        let _ = segment.file.set_len(segment.len);
        if segment.len == 0 {
            let _ = self.fs.remove_file(&segment.path);
        }
    }
}

impl Pending {
    /// Bytes that a commit may write, but for a segment header.
    fn stored_bytes(&self) -> usize {
        let resources = self.resources.iter().map(|(_, bytes)| bytes.len() + FRAME_HEADER_BYTES + 8);
        self.bytes.len() + resources.sum::<usize>()
    }

    fn refer(&mut self, id: u32, bytes: Arc<[u8]>) {
        if self.resources.iter().all(|(known, _)| *known != id) {
            self.resources.push((id, bytes));
        }
    }

    fn encode_resources(&self, salt: u32, written: &HashSet<u32>, out: &mut Vec<u8>) {
        for (id, bytes) in self.resources.iter().filter(|(id, _)| !written.contains(id)) {
            let frame = FrameHeader {
                len: bytes.len(),
                kind: FrameKind::Resource,
                flags: 0,
                resource: *id,
                seq: self.first_seq,
                source: 0,
            };
            frame.encode(salt, bytes, out);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        // One giant batch must not hold its memory for ever.
        self.bytes.shrink_to(1 << 20);
        self.resources.clear();
        self.source = 0;
    }
}

/// The resources that were registered, the most recently used ones.
#[derive(Debug, Default)]
struct Resources {
    by_bytes: IdMap<Arc<[u8]>, u32>,
    by_id: IdMap<u32, (Arc<[u8]>, u64)>,
    bytes: usize,
    last_id: u32,
    clock: u64,
}

impl Resources {
    const MAX: usize = 1024;
    const MAX_BYTES: usize = 16 << 20;

    fn register(&mut self, resource: &[u8]) -> u32 {
        if let Some(id) = self.by_bytes.get(resource).copied() {
            self.touch(id);
            return id;
        }
        while self.by_id.len() >= Self::MAX || (self.bytes > 0 && self.bytes + resource.len() > Self::MAX_BYTES) {
            self.forget_oldest();
        }
        let bytes: Arc<[u8]> = Arc::from(resource);
        // After four billion registrations ids repeat; those of a segment are long forgotten by then.
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.clock += 1;
        self.bytes += resource.len();
        self.by_bytes.insert(bytes.clone(), self.last_id);
        self.by_id.insert(self.last_id, (bytes, self.clock));
        self.last_id
    }

    fn get(&mut self, id: u32) -> Option<Arc<[u8]>> {
        self.touch(id);
        self.by_id.get(&id).map(|(bytes, _)| bytes.clone())
    }

    fn touch(&mut self, id: u32) {
        self.clock += 1;
        if let Some((_, used)) = self.by_id.get_mut(&id) {
            *used = self.clock;
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_id.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
        if let Some((bytes, _)) = oldest.and_then(|id| self.by_id.remove(&id)) {
            self.bytes -= bytes.len();
            self.by_bytes.remove(&bytes);
        }
    }
}

fn check_size(payload: &[u8]) -> Result<(), JournalError> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(JournalError::PayloadTooLarge { bytes: payload.len(), max_bytes: MAX_PAYLOAD_BYTES });
    }
    Ok(())
}

/// Makes a directory unless it is there.
fn make_dir(fs: &dyn Fs, path: &Path) -> Result<(), JournalError> {
    match fs.create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(JournalError::io("create", path)(error)),
    }
}

/// Makes a directory that has its lock held from the moment it has its name. Each attempt makes one of its own: what an
/// earlier one made may be in the hands of who is clearing it away.
fn name_locked_dir(
    fs: &dyn Fs,
    journal_dir: &Path,
    process: &str,
    attempt: u32,
    dir: &Path,
) -> Result<Lock, JournalError> {
    let new_dir = journal_dir.join(format!("{NEW_PREFIX}{process}-{attempt}"));
    make_dir(fs, &new_dir)?;
    let lock = Lock::create(fs, &new_dir)?;
    fs.rename(&new_dir, dir).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            JournalError::Exists { path: dir.to_owned() }
        }
        _ => JournalError::io("rename", &new_dir)(error),
    })?;
    Ok(lock)
}

/// Returns the bytes of all segments.
fn segments_bytes(fs: &dyn Fs, dir: &Path) -> Result<u64, JournalError> {
    let mut sum = 0;
    for key in segment::list(fs, dir)? {
        let path = key.path(dir);
        sum += match fs.stat(&path) {
            Ok(found) => found.len,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(JournalError::io("read", &path)(error)),
        };
    }
    Ok(sum)
}
