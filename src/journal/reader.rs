//! Takes frames out of a journal, at the pace of one reader.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::position::{self, Position};
use super::segment::{self, FrameKind, Header, HeaderFound, SegmentCursor, SegmentKey, Step};
use super::{JournalError, process_dir};
use crate::fs::{Access, Fs, OsFs};

/// A reader with its own position in one journal.
///
/// [`next_batch`](Self::next_batch) moves on in memory only. [`acknowledge`](Self::acknowledge) makes it lasting: what
/// is not acknowledged comes again, after [`rewind`](Self::rewind) or when a reader of the same name is opened next, so
/// dropping a batch or dying with one loses nothing, and effects must be idempotent. "Refused" frames are put aside by
/// the caller and acknowledged like the others.
///
/// A reader needs no help from the writer and never blocks it: it also reads the segment that is being written, up to
/// the last complete frame. It works the same on the journal of a dead process.
#[derive(Debug)]
pub struct JournalReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    process: String,
    /// `None` when read-only.
    position: Option<Position>,
    acknowledged: u64,
    /// The number of the next frame to hand out.
    next: u64,
    cursor: Option<SegmentCursor>,
    /// Segments whose header was looked at, and whether they are part of this journal.
    known: BTreeMap<SegmentKey, bool>,
    /// Room of a batch that was given back, for the next one.
    spare: Batch,
}

/// One frame, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds. Unknown kinds are to be passed over.
    pub kind: FrameKind,
    /// As written.
    pub flags: u8,
    /// Its number.
    pub seq: u64,
    /// The writer's own position, opaque here.
    pub source: u64,
    /// The id by which it refers to its resource; 0 for none.
    pub resource_id: u32,
    /// The OTLP `Resource`. `None` for id 0, and when the resource's own frame is damaged.
    pub resource: Option<&'a Arc<[u8]>>,
    /// What the writer appended.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Did the frame have a resource that cannot be read any more?
    pub fn has_lost_resource(&self) -> bool {
        self.resource_id != 0 && self.resource.is_none()
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads hold prompts and answers, which do not belong into messages.
        write!(f, "Frame({:?} seq={} source={} {} bytes)", self.kind, self.seq, self.source, self.payload.len())
    }
}

/// A larger batch, of one large frame, is not kept for its room.
const MAX_SPARE: usize = 4 << 20;

#[derive(Debug)]
struct Stored {
    header: segment::FrameHeader,
    resource: Option<Arc<[u8]>>,
    payload: Range<usize>,
}

/// Frames in order, and what was missing between them.
#[derive(Debug, Default)]
pub struct Batch {
    frames: Vec<Stored>,
    payloads: Vec<u8>,
    damaged: u64,
    removed: u64,
    last_seq: u64,
}

impl Batch {
    /// Returns the frames, in the order of their numbers.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.frames.iter().map(|stored| Frame {
            kind: stored.header.kind,
            flags: stored.header.flags,
            seq: stored.header.seq,
            source: stored.header.source,
            resource_id: stored.header.resource,
            resource: stored.resource.as_ref(),
            payload: &self.payloads[stored.payload.clone()],
        })
    }

    /// Returns how many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Are there no frames? Counts of lost ones may be there even so.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns how many frames before the last one of this batch could not be read. They are counted again when the
    /// batch comes again, so add them up when it is acknowledged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Returns how many frames had been removed before this reader came to them.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Returns the number to acknowledge when this batch is done with, damaged frames included.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn push(&mut self, header: segment::FrameHeader, resource: Option<Arc<[u8]>>, payload: &[u8]) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        self.frames.push(Stored { header, resource, payload: start..self.payloads.len() });
    }
}

impl JournalReader {
    /// Opens the reader named `reader` of a process's journal, at its stored position; a new reader, or one whose
    /// position cannot be read, begins at the oldest segment.
    ///
    /// # Errors
    ///
    /// [`JournalError::NotFound`] without such a journal, [`JournalError::Locked`] when a reader of this name is open
    /// anywhere, [`JournalError::BadName`], and what the file system says.
    pub fn open(journal_dir: &Path, process: &str, reader: &str) -> Result<Self, JournalError> {
        Self::open_in(OsFs::shared(), journal_dir, process, reader)
    }

    /// Like [`open`](Self::open), on another file system.
    pub fn open_in(fs: Arc<dyn Fs>, journal_dir: &Path, process: &str, reader: &str) -> Result<Self, JournalError> {
        let dir = process_dir(journal_dir, process)?;
        segment::list(&*fs, &dir)?;
        let position = Position::open(&*fs, &dir, process, reader)?;
        let stored = position.seq();
        Ok(Self::starting_at(fs, dir, process, stored, Some(position)))
    }

    /// Opens a journal to look at what `reader` has not acknowledged yet. Nothing is written or locked.
    ///
    /// # Errors
    ///
    /// Like [`open`](Self::open), but never [`JournalError::Locked`].
    pub fn open_read_only(journal_dir: &Path, process: &str, reader: &str) -> Result<Self, JournalError> {
        Self::open_read_only_in(OsFs::shared(), journal_dir, process, reader)
    }

    /// Like [`open_read_only`](Self::open_read_only), on another file system.
    pub fn open_read_only_in(
        fs: Arc<dyn Fs>,
        journal_dir: &Path,
        process: &str,
        reader: &str,
    ) -> Result<Self, JournalError> {
        let dir = process_dir(journal_dir, process)?;
        segment::list(&*fs, &dir)?;
        let stored = position::stored(&*fs, &dir, process, reader)?;
        Ok(Self::starting_at(fs, dir, process, stored, None))
    }

    fn starting_at(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        process: &str,
        stored: Option<u64>,
        position: Option<Position>,
    ) -> Self {
        let acknowledged = stored.unwrap_or(0);
        Self {
            fs,
            dir,
            process: process.to_owned(),
            position,
            acknowledged,
            next: acknowledged.saturating_add(1),
            cursor: None,
            known: BTreeMap::new(),
            spare: Batch::default(),
        }
    }

    /// Returns the last number that was acknowledged, 0 for none.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Takes the next frames: at least one if there is one, then as many as fit into `max_bytes` of payload.
    ///
    /// An empty batch means that nothing is there yet.
    ///
    /// # Errors
    ///
    /// [`JournalError::NewerFormat`], [`JournalError::NotFound`] when the journal was removed, and what the file
    /// system says. After an error the same frames are tried again by the next call; none is passed over.
    pub fn next_batch(&mut self, max_bytes: usize) -> Result<Batch, JournalError> {
        let begin = self.next;
        let mut batch = Batch { last_seq: begin - 1, ..std::mem::take(&mut self.spare) };
        let filled = self.fill(&mut batch, max_bytes);
        if let Err(error) = filled {
            // Frames already in the batch are lost with it, so go back to before it.
            self.go_to(begin);
            return Err(error);
        }
        Ok(batch)
    }

    /// The same for who knows what was committed: where that was all read, the disk is not asked. Who waits looks twenty times a second.
    pub fn next_batch_up_to(&mut self, committed: u64, max_bytes: usize) -> Result<Batch, JournalError> {
        if self.next > committed {
            return Ok(Batch { last_seq: self.next - 1, ..Batch::default() });
        }
        self.next_batch(max_bytes)
    }

    /// Takes back a batch that is done with: the next one uses its room. One of a megabyte that grows anew each time costs its pages.
    pub fn reuse(&mut self, batch: Batch) {
        let Batch { mut frames, mut payloads, .. } = batch;
        if payloads.capacity() <= MAX_SPARE {
            frames.clear();
            payloads.clear();
            self.spare = Batch { frames, payloads, ..Batch::default() };
        }
    }

    fn fill(&mut self, batch: &mut Batch, max_bytes: usize) -> Result<(), JournalError> {
        // Listed before anything is read: a segment that is not the last one here gets no more frames.
        let keys = self.segments()?;
        if self.cursor.as_ref().map(SegmentCursor::is_linked).transpose()? == Some(false) {
            // Removed after all readers passed, or given up by its writer: find the place by number again.
            self.cursor = None;
        }
        loop {
            let Some(cursor) = &mut self.cursor else {
                if self.enter_segment(&keys, None, batch)? {
                    continue;
                }
                return Ok(());
            };
            let after = keys.iter().find(|key| **key > cursor.key);
            let limit = after.map_or(u64::MAX, |key| key.first_seq);
            let (header, skipped_bytes) = match cursor.step()? {
                Step::Frame { header, skipped_bytes } if header.seq < limit => (header, skipped_bytes),
                Step::Frame { .. } | Step::End => {
                    let passed = cursor.key;
                    if after.is_some() && self.enter_segment(&keys, Some(passed), batch)? {
                        continue;
                    }
                    return Ok(());
                }
            };
            let is_numbered = header.kind != FrameKind::Resource;
            if is_numbered && !batch.is_empty() && batch.payloads.len() + header.len > max_bytes {
                cursor.step_back();
                return Ok(());
            }
            if skipped_bytes > 0 && header.seq == self.next {
                // No number is missing here: it was a resource frame.
                batch.damaged += 1;
            }
            if !is_numbered || header.seq < self.next {
                continue;
            }
            let resource = cursor.resources.get(&header.resource).cloned();
            batch.push(header, resource, cursor.payload(&header)?);
            batch.damaged += header.seq - self.next;
            self.move_to(header.seq.saturating_add(1), batch);
        }
    }

    fn move_to(&mut self, next: u64, batch: &mut Batch) {
        self.next = next;
        batch.last_seq = next - 1;
    }

    /// Puts the cursor at the begin of the segment, after `passed`, in which the next frame is or should be; `false`
    /// when there is none.
    fn enter_segment(
        &mut self,
        keys: &[SegmentKey],
        passed: Option<SegmentKey>,
        batch: &mut Batch,
    ) -> Result<bool, JournalError> {
        let later: Vec<_> = keys.iter().copied().filter(|key| passed.is_none_or(|passed| *key > passed)).collect();
        let Some(first_later) = later.first() else { return Ok(false) };
        let aim = self.next.max(first_later.first_seq);
        let Some(key) = later.iter().copied().rfind(|key| key.first_seq <= aim) else { return Ok(false) };
        let path = key.path(&self.dir);
        let file = match self.fs.open(&path, Access::Read) {
            // Deleted since the listing; the next call lists again.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(JournalError::io("open", &path))?,
        };
        if key.first_seq > self.next {
            let missing = key.first_seq - self.next;
            if keys.first().is_some_and(|oldest| oldest.first_seq == key.first_seq) {
                // What was removed before a new reader came was not meant for it.
                batch.removed += if self.next == 1 { 0 } else { missing };
            } else {
                batch.damaged += missing;
            }
            self.move_to(key.first_seq, batch);
        }
        self.cursor = Some(SegmentCursor::new(file, path, &self.process, key));
        Ok(true)
    }

    /// Lists the segments that are part of this journal.
    fn segments(&mut self) -> Result<Vec<SegmentKey>, JournalError> {
        let mut keys = segment::list(&*self.fs, &self.dir)?;
        self.known.retain(|key, _| keys.binary_search(key).is_ok());
        let mut checked = Vec::with_capacity(keys.len());
        for key in keys.drain(..) {
            if self.is_ours(key)? {
                checked.push(key);
            }
        }
        Ok(checked)
    }

    fn is_ours(&mut self, key: SegmentKey) -> Result<bool, JournalError> {
        if let Some(ours) = self.known.get(&key) {
            return Ok(*ours);
        }
        let path = key.path(&self.dir);
        let file = match self.fs.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(JournalError::io("open", &path))?,
        };
        let found = Header::read(&*file, &path, &self.process, key)?;
        let ours = found != HeaderFound::Foreign;
        if found != HeaderFound::Short {
            self.known.insert(key, ours);
        }
        Ok(ours)
    }

    /// Makes it lasting that everything up to frame `seq` is done with. A number already acknowledged changes nothing.
    ///
    /// The position survives the death of the process at once. It is not synced to the disk: after a loss of power an
    /// older one may be found, and frames come again.
    ///
    /// # Errors
    ///
    /// [`JournalError::NotDelivered`] for a number that no batch reached, [`JournalError::ReadOnly`], and what the file
    /// system says; the former position then stays.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), JournalError> {
        let position = self.position.as_mut().ok_or(JournalError::ReadOnly)?;
        if seq >= self.next {
            return Err(JournalError::NotDelivered { seq, delivered: self.next - 1 });
        }
        if seq > self.acknowledged {
            position.store(seq)?;
            self.acknowledged = seq;
        }
        Ok(())
    }

    /// Makes it lasting that everything up to frame `seq` is done with, for a reader that beside batches is handed
    /// frames by the writer itself, in the same process, once they are committed.
    ///
    /// # Errors
    ///
    /// As [`acknowledge`](Self::acknowledge); a number that the writer has not committed counts as not delivered.
    pub fn acknowledge_handed(&mut self, seq: u64, writer: &super::JournalWriter) -> Result<(), JournalError> {
        if seq > writer.committed_seq() {
            return Err(JournalError::NotDelivered { seq, delivered: writer.committed_seq() });
        }
        if seq >= self.next {
            self.go_to(seq.saturating_add(1));
        }
        self.acknowledge(seq)
    }

    /// Goes back to behind the last acknowledged frame: the answer "later".
    pub fn rewind(&mut self) {
        self.go_to(self.acknowledged.saturating_add(1));
    }

    /// Goes to frame `seq`, or to the first one that is not acknowledged if that is later: for a reader that is done
    /// with some frames and not yet with others before them.
    pub fn seek(&mut self, seq: u64) {
        let next = seq.max(self.acknowledged.saturating_add(1));
        if next != self.next {
            self.go_to(next);
        }
    }

    fn go_to(&mut self, next: u64) {
        self.next = next;
        self.cursor = None;
    }
}
