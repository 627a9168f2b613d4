//! Looks at every frame of a journal, for `runspan verify`.

use std::path::{Path, PathBuf};

use super::segment::{self, FrameKind, Header, HeaderFound, SegmentCursor, SegmentKey, Step};
use super::{JournalError, process_dir};
use crate::fs::{Access, Fs};

/// What was found in one journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Frames whose checksums are right.
    pub frames: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Places where no frame can be read, in order.
    pub damage: Vec<Damage>,
}

/// A place in a segment where no frame can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What is there, or is not.
    pub what: String,
}

/// Checks the frames of a journal, with their checksums and numbers, and changes nothing.
///
/// A torn end of the last segment is no damage: its writer died in a write, or is in it now.
///
/// # Errors
///
/// [`JournalError::NotFound`], [`JournalError::NewerFormat`], [`JournalError::BadName`], and what the file system says.
pub fn check_in(fs: &dyn Fs, journal_dir: &Path, process: &str) -> Result<Checked, JournalError> {
    let dir = process_dir(journal_dir, process)?;
    let keys = segment::list(fs, &dir)?;
    let mut checked = Checked::default();
    // The number that the next segment has to begin with; nobody knows that of the oldest.
    let mut expected = None;
    for (place, key) in keys.iter().enumerate() {
        let next = keys.get(place + 1).map(|next| next.first_seq);
        match check_segment(fs, &dir, process, *key, next, &mut checked) {
            Ok(Some(last)) => {
                if let Some(missing) = expected.filter(|expected| *expected < key.first_seq) {
                    let what = format!("frames {missing} to {} are missing before it", key.first_seq - 1);
                    checked.damage.push(Damage { path: key.path(&dir), offset: 0, what });
                }
                expected = Some(last + 1);
            }
            Ok(None) => {}
            // All its readers have passed it meanwhile.
            Err(error) if error.is_gone() => expected = None,
            Err(error) => return Err(error),
        }
    }
    Ok(checked)
}

/// Checks one segment, whose frames count up to the first number of the `next` one. Returns the last number that counts;
/// `None` for a segment that is no part of the journal.
fn check_segment(
    fs: &dyn Fs,
    dir: &Path,
    process: &str,
    key: SegmentKey,
    next: Option<u64>,
    checked: &mut Checked,
) -> Result<Option<u64>, JournalError> {
    let path = key.path(dir);
    let file = fs.open(&path, Access::Read).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => JournalError::NotFound { path: path.clone() },
        _ => JournalError::io("open", &path)(error),
    })?;
    checked.bytes += file.stat().map_err(JournalError::io("read", &path))?.len;
    let header = Header::read(&*file, &path, process, key)?;
    match header {
        HeaderFound::Foreign => return Ok(None),
        HeaderFound::Damaged => {
            let what = "its header is damaged, which costs nothing but itself".to_owned();
            checked.damage.push(Damage { path: path.clone(), offset: 0, what });
        }
        HeaderFound::Good(_) | HeaderFound::Short => {}
    }
    let mut cursor = SegmentCursor::new(file, path.clone(), process, key);
    let mut last = key.first_seq.saturating_sub(1);
    loop {
        let offset = cursor.offset;
        let Step::Frame { header, skipped_bytes } = cursor.step()? else { break };
        let is_numbered = header.kind != FrameKind::Resource;
        if is_numbered && next.is_some_and(|next| header.seq >= next) {
            // What a failed write left: these frames stand in the next segment.
            return Ok(Some(last));
        }
        checked.frames += 1;
        let missing = header.seq.saturating_sub(last + 1);
        if skipped_bytes > 0 || (is_numbered && missing > 0) {
            let what = match missing {
                0 => format!("{skipped_bytes} bytes are no frame"),
                1 => format!("frame {} cannot be read", last + 1),
                _ => format!("frames {} to {} cannot be read", last + 1, header.seq - 1),
            };
            checked.damage.push(Damage { path: path.clone(), offset, what });
        }
        if is_numbered {
            last = header.seq;
        }
    }
    if let Some(next) = next.filter(|next| last + 1 < *next) {
        let what = format!("frames {} to {} cannot be read", last + 1, next - 1);
        checked.damage.push(Damage { path, offset: cursor.offset, what });
        last = next - 1;
    }
    Ok(Some(last))
}
