//! What is done with journals from outside: adopting a dead one, and removing what is no longer needed.

use std::io;
use std::path::Path;

use super::lock::{self, LOCK, Lock};
use super::segment::{self, FrameKind, Header, HeaderFound, SegmentCursor, SegmentKey, Step};
use super::{Durability, GONE_PREFIX, JournalError, NEW_PREFIX, POSITIONS, checked_name, position, process_dir};
use crate::fs::{Access, Fs, OsFs, write_again};

/// What was found in the journal of a dead process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last number given; the adopter's first frame gets the next one.
    pub last_seq: u64,
    /// The largest `source` of all frames that were committed, 0 for none.
    pub last_source: u64,
    /// Bytes of an unfinished write that were cut off.
    pub cut_bytes: u64,
    /// Frames in the last segment that cannot be read, though others behind them can.
    pub damaged_frames: u64,
    /// What the frames were promised to survive; of an adopted journal, what new ones are.
    pub durability: Durability,
}

/// A journal in a journal directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessJournal {
    /// The process name.
    pub name: String,
    /// Is its lock held? If not, its writer is dead and it can be adopted.
    pub alive: bool,
}

/// What one segment holds.
struct Scanned {
    header: HeaderFound,
    /// The last frame's number; the one before the segment's first when it has none.
    last_seq: u64,
    has_frames: bool,
    last_source: u64,
    damaged_frames: u64,
    /// Behind the last valid frame.
    end: u64,
}

/// Goes through a segment up to the number `below`, where the segment after it begins: what stands there at or above
/// it is the remnant of a failed write, which no reader gets.
fn scan(fs: &dyn Fs, dir: &Path, process: &str, key: SegmentKey, below: u64) -> Result<Scanned, JournalError> {
    let path = key.path(dir);
    let file = fs.open(&path, Access::Read).map_err(JournalError::io("open", &path))?;
    let header = Header::read(&*file, &path, process, key)?;
    let mut found = Scanned {
        header,
        last_seq: key.first_seq.saturating_sub(1),
        has_frames: false,
        last_source: if let HeaderFound::Good(header) = header { header.source_before } else { 0 },
        damaged_frames: 0,
        end: 0,
    };
    if matches!(header, HeaderFound::Foreign) {
        return Ok(found);
    }
    let mut cursor = SegmentCursor::new(file, path, process, key);
    found.end = cursor.offset;
    loop {
        match cursor.step()? {
            Step::Frame { header, .. } if header.seq >= below => return Ok(found),
            Step::Frame { header, skipped_bytes } => {
                let missing = header.seq.saturating_sub(found.last_seq.saturating_add(1));
                if header.kind != FrameKind::Resource {
                    found.damaged_frames += missing;
                    found.last_seq = header.seq;
                    found.has_frames = true;
                }
                if skipped_bytes > 0 && missing == 0 {
                    found.damaged_frames += 1;
                }
                found.last_source = found.last_source.max(header.source);
                found.end = cursor.offset;
            }
            Step::End => return Ok(found),
        }
    }
}

/// Finds where the writer of a journal stopped, as [`JournalWriter::reopen`](super::JournalWriter::reopen) does, without
/// changing or locking anything.
///
/// # Errors
///
/// [`JournalError::NotFound`], [`JournalError::NewerFormat`], [`JournalError::BadName`], and what the file system says.
pub fn look_at_end(journal_dir: &Path, process: &str) -> Result<Recovered, JournalError> {
    look_at_end_in(&OsFs, journal_dir, process)
}

/// Like [`look_at_end`], on another file system.
pub fn look_at_end_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<Recovered, JournalError> {
    find_end(fs, &process_dir(journal_dir, process)?, process, false)
}

/// Finds where a dead writer stopped. With `cut`, what stands behind is cut off; that takes the lock.
fn find_end(fs: &dyn Fs, dir: &Path, process: &str, cut: bool) -> Result<Recovered, JournalError> {
    let last_seq = position::furthest(fs, dir, process)?;
    // Without a segment nobody can say what was promised: it may be what loss of power left of a journal that was removed.
    let mut recovered = Recovered { last_seq, durability: Durability::Power, ..Recovered::default() };
    // Whether this is the last segment with anything in it: only there can a write have been torn.
    let mut is_last = true;
    let mut below = u64::MAX;
    for key in segment::list(fs, dir)?.into_iter().rev() {
        let found = scan(fs, dir, process, key, below)?;
        if found.header == HeaderFound::Foreign {
            continue;
        }
        below = key.first_seq;
        recovered.last_seq = recovered.last_seq.max(found.last_seq);
        recovered.last_source = recovered.last_source.max(found.last_source);
        recovered.damaged_frames += found.damaged_frames;
        let has_header = matches!(found.header, HeaderFound::Good(_));
        let is_empty = !has_header && !found.has_frames;
        if is_last && cut {
            let keep = match found.header {
                HeaderFound::Short if is_empty => 0,
                // Not one frame proves that these bytes are ours to cut.
                _ if is_empty => u64::MAX,
                _ => found.end,
            };
            recovered.cut_bytes += cut_to(fs, &key.path(dir), keep)?;
        }
        is_last &= is_empty;
        recovered.durability = match found.header {
            HeaderFound::Good(header) => header.durability,
            // Nobody can say any more, so it has to be the more that may have been promised.
            _ if found.has_frames => Durability::Power,
            _ => recovered.durability,
        };
        // A good header vouches for everything before it; a damaged one does not know the largest source.
        if has_header {
            break;
        }
    }
    Ok(recovered)
}

/// Cuts a file to at most `keep` bytes; returns how many went.
fn cut_to(fs: &dyn Fs, path: &Path, keep: u64) -> Result<u64, JournalError> {
    let len = fs.stat(path).map_err(JournalError::io("read", path))?.len;
    if len <= keep {
        return Ok(0);
    }
    let file = fs.open(path, Access::ReadWrite).map_err(JournalError::io("open", path))?;
    file.set_len(keep).map_err(JournalError::io("cut", path))?;
    Ok(len - keep)
}

/// Brings the journal of a dead writer in order; the caller holds its lock.
pub(super) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    process: &str,
    durability: Durability,
) -> Result<Recovered, JournalError> {
    let mut recovered = find_end(fs, dir, process, true)?;
    recovered.durability = recovered.durability.max(durability);
    if recovered.durability == Durability::Power {
        // The writer may have died between writing and syncing, or after a sync that failed, and what is found now is
        // taken as committed.
        if let Some(key) = segment::list(fs, dir)?.last() {
            let path = key.path(dir);
            let file = fs.open(&path, Access::ReadWrite).map_err(JournalError::io("open", &path))?;
            let found = file.stat().map_err(JournalError::io("read", &path))?;
            write_again(&*file, found.len).map_err(JournalError::io("sync", &path))?;
        }
        fs.sync_dir(dir).map_err(JournalError::io("sync", dir))?;
    }
    Ok(recovered)
}

/// Returns the journals in `journal_dir`, sorted by name; none when there is no such directory.
///
/// What creating and removing left half done, when it was interrupted, is deleted on the way.
///
/// # Errors
///
/// What the file system says.
pub fn list_processes(journal_dir: &Path) -> Result<Vec<ProcessJournal>, JournalError> {
    list_processes_in(&OsFs, journal_dir)
}

/// Like [`list_processes`], on another file system.
pub fn list_processes_in(fs: &dyn Fs, journal_dir: &Path) -> Result<Vec<ProcessJournal>, JournalError> {
    let entries = match fs.list(journal_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io("list", journal_dir)(error)),
    };
    let mut journals = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let dir = journal_dir.join(&entry.name);
        if entry.name.starts_with(NEW_PREFIX) || entry.name.starts_with(GONE_PREFIX) {
            // Best effort: a read-only store is listed all the same.
            let _ = remove_leftover(fs, &dir);
        } else if checked_name(&entry.name, segment::NAME_BYTES).is_ok() {
            journals.push(ProcessJournal { alive: is_alive(fs, &dir), name: entry.name });
        }
    }
    journals.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(journals)
}

/// Names the readers that a journal has positions of.
///
/// # Errors
///
/// [`JournalError::BadName`], and what the file system says: without an answer nobody may take it for unread.
pub(crate) fn readers_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<Vec<String>, JournalError> {
    position::readers(fs, &process_dir(journal_dir, process)?)
}

/// Is there a writer? Where that cannot be found out, perhaps because the files are another user's, hands off.
fn is_alive(fs: &dyn Fs, dir: &Path) -> bool {
    lock::is_held(fs, dir).unwrap_or(true)
}

/// Deletes the sealed segments of a journal that all of `readers` have passed, oldest first, and returns how many
/// bytes that gave back. The last segment always stays. Without readers nothing is deleted.
///
/// It may run beside the writer and the readers. A reader that is not named may find frames removed, and counts them.
///
/// # Errors
///
/// [`JournalError::NotFound`], [`JournalError::BadName`], and what the file system says.
pub fn remove_passed_segments(journal_dir: &Path, process: &str, readers: &[&str]) -> Result<u64, JournalError> {
    remove_passed_segments_in(&OsFs, journal_dir, process, readers)
}

/// Like [`remove_passed_segments`], on another file system.
pub fn remove_passed_segments_in(
    fs: &dyn Fs,
    journal_dir: &Path,
    process: &str,
    readers: &[&str],
) -> Result<u64, JournalError> {
    remove_segments(fs, journal_dir, process, readers, u64::MAX, |_| {})
}

/// The same, but stops once `enough` bytes were given back: for a journal at its bound, whose slowest reader has to
/// lose its oldest frames so that the others go on. `told` gets the number of the first frame that is left, before
/// anything is removed and only if something is, so that readers which are not named can count what they lose: those
/// frames and no others go, however far the named ones come meanwhile.
///
/// # Errors
///
/// As [`remove_passed_segments`].
pub fn remove_oldest_segments(
    journal_dir: &Path,
    process: &str,
    readers: &[&str],
    enough: u64,
    told: impl FnOnce(u64),
) -> Result<u64, JournalError> {
    remove_segments(&OsFs, journal_dir, process, readers, enough, told)
}

fn remove_segments(
    fs: &dyn Fs,
    journal_dir: &Path,
    process: &str,
    readers: &[&str],
    enough: u64,
    told: impl FnOnce(u64),
) -> Result<u64, JournalError> {
    let dir = process_dir(journal_dir, process)?;
    let removables = removable_segments(fs, &dir, process, readers, enough)?;
    if let Some(last) = removables.last() {
        told(last.next_seq);
    }
    let mut freed_bytes = 0;
    for removable in removables {
        let path = removable.key.path(&dir);
        match fs.remove_file(&path) {
            Ok(()) => freed_bytes += removable.bytes,
            // Another process had the same idea.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(JournalError::io("remove", &path)(error)),
        }
    }
    Ok(freed_bytes)
}

/// Returns about how many bytes of a journal a reader has not done yet that is done up to frame `acknowledged`, where
/// `last` is the last one: of the segment that it is in, its share by numbers.
///
/// # Errors
///
/// As [`remove_passed_segments`].
#[cfg(feature = "server")]
pub(crate) fn behind(journal_dir: &Path, process: &str, acknowledged: u64, last: u64) -> Result<u64, JournalError> {
    let dir = process_dir(journal_dir, process)?;
    let keys = segment::list(&OsFs, &dir)?;
    let mut bytes = 0;
    for (place, key) in keys.iter().enumerate() {
        let end = keys.get(place + 1).map_or(last + 1, |next| next.first_seq).max(key.first_seq);
        let (frames, left) = (end - key.first_seq, end.saturating_sub(key.first_seq.max(acknowledged + 1)));
        let length = if left == 0 { 0 } else { OsFs.stat(&key.path(&dir)).map_or(0, |found| found.len) };
        bytes += (u128::from(length) * u128::from(left) / u128::from(frames.max(1))) as u64;
    }
    Ok(bytes)
}

/// A segment that may go.
struct Removable {
    key: SegmentKey,
    bytes: u64,
    /// The first number of the segment behind it.
    next_seq: u64,
}

fn removable_segments(
    fs: &dyn Fs,
    dir: &Path,
    process: &str,
    readers: &[&str],
    enough: u64,
) -> Result<Vec<Removable>, JournalError> {
    let mut passed = None;
    for reader in readers {
        let seq = position::stored(fs, dir, process, reader)?.unwrap_or(0);
        passed = Some(passed.unwrap_or(seq).min(seq));
    }
    let keys = segment::list(fs, dir)?;
    let Some(passed) = passed else { return Ok(Vec::new()) };
    // A foreign file says nothing about where its neighbour ends.
    let mut own = Vec::with_capacity(keys.len());
    for key in keys {
        if !is_foreign(fs, dir, process, key)? {
            own.push(key);
        }
    }
    let (mut removable, mut total) = (Vec::new(), 0);
    for pair in own.windows(2) {
        let (key, next_seq) = (pair[0], pair[1].first_seq);
        if passed.saturating_add(1) < next_seq || total >= enough {
            break;
        }
        let bytes = fs.stat(&key.path(dir)).map_or(0, |found| found.len);
        total += bytes;
        removable.push(Removable { key, bytes, next_seq });
    }
    Ok(removable)
}

fn is_foreign(fs: &dyn Fs, dir: &Path, process: &str, key: SegmentKey) -> Result<bool, JournalError> {
    let path = key.path(dir);
    match fs.open(&path, Access::Read) {
        Ok(file) => Ok(Header::read(&*file, &path, process, key)? == HeaderFound::Foreign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(JournalError::io("open", &path)(error)),
    }
}

/// Removes the journal of a dead process that all of `readers` have read to its end.
///
/// After a crash in the middle it is gone for everybody; [`list_processes`] deletes the rest.
///
/// # Errors
///
/// [`JournalError::Locked`] when its writer lives, [`JournalError::NotPassed`] when a reader has something left,
/// [`JournalError::NotFound`], [`JournalError::NewerFormat`], and what the file system says.
pub fn remove_journal(journal_dir: &Path, process: &str, readers: &[&str]) -> Result<(), JournalError> {
    remove_journal_in(&OsFs, journal_dir, process, readers)
}

/// Like [`remove_journal`], on another file system.
pub fn remove_journal_in(fs: &dyn Fs, journal_dir: &Path, process: &str, readers: &[&str]) -> Result<(), JournalError> {
    let dir = process_dir(journal_dir, process)?;
    segment::list(fs, &dir)?;
    let _lock = Lock::adopt(fs, &dir)?;
    let last_seq = find_end(fs, &dir, process, false)?.last_seq;
    for reader in readers {
        let position = position::stored(fs, &dir, process, reader)?.unwrap_or(0);
        if position < last_seq {
            return Err(JournalError::NotPassed { reader: (*reader).to_owned(), position, last_seq });
        }
    }
    // One rename takes it from everybody's sight, so nobody ever finds half a journal.
    let gone = journal_dir.join(format!("{GONE_PREFIX}{process}"));
    fs.rename(&dir, &gone).map_err(JournalError::io("rename", &dir))?;
    delete_dir(fs, &gone)
}

/// Deletes what an interrupted creation or removal left, unless somebody is still at it.
fn remove_leftover(fs: &dyn Fs, dir: &Path) -> Result<(), JournalError> {
    let path = dir.join(LOCK);
    match fs.open(&path, Access::Read) {
        Ok(file) => {
            if file.try_lock(true).map_err(JournalError::io("lock", &path))? {
                delete_dir(fs, dir)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => delete_dir(fs, dir),
        Err(error) => Err(JournalError::io("open", &path)(error)),
    }
}

/// Deletes a journal's directory and the files that belong to it, the lock last.
fn delete_dir(fs: &dyn Fs, dir: &Path) -> Result<(), JournalError> {
    let positions = dir.join(POSITIONS);
    for (dir, names) in [(positions.as_path(), list_or_empty(fs, &positions)?), (dir, list_or_empty(fs, dir)?)] {
        for name in names.iter().filter(|name| *name != LOCK) {
            let path = dir.join(name);
            ignore_missing(fs.remove_file(&path)).map_err(JournalError::io("remove", &path))?;
        }
    }
    ignore_missing(fs.remove_dir(&positions)).map_err(JournalError::io("remove", &positions))?;
    let lock = dir.join(LOCK);
    ignore_missing(fs.remove_file(&lock)).map_err(JournalError::io("remove", &lock))?;
    ignore_missing(fs.remove_dir(dir)).map_err(JournalError::io("remove", dir))
}

/// Returns the names of a directory's files, its directories left out.
fn list_or_empty(fs: &dyn Fs, dir: &Path) -> Result<Vec<String>, JournalError> {
    match fs.list(dir) {
        Ok(entries) => Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(JournalError::io("list", dir)(error)),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
