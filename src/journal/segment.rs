//! A segment's bytes: its name, its header, its frames, and the way through them past damage.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Durability, JournalError};
use crate::fs::{Fs, FsFile, read_full};
use crate::model::record::RecordKind;

const MAGIC: &[u8; 8] = b"RSPNJRN1";
const VERSION: u16 = 1;
/// Flag of a segment: commits survive loss of power.
const FLAG_POWER: u16 = 1;
pub(super) const HEADER_BYTES: usize = 80;
/// The most characters of a process name.
pub(super) const NAME_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 32;
/// Where frames may begin.
const ALIGNMENT: usize = 8;
/// A valid frame's number is less than this above the expected one.
const MAX_JUMP: u64 = 1 << 24;
/// How much is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The most bytes of payload in one frame: 16 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A span began: OTLP `ScopeSpans` with one span.
    Started,
    /// Something happened in a span: OTLP `ScopeSpans` with one span.
    Event,
    /// A span ended: OTLP `ScopeSpans` with one span.
    Ended,
    /// OTLP `Resource`, which later frames refer to. Readers get it through them, never by itself.
    Resource,
    /// JSON of the writer, such as counts of dropped records.
    Mark,
    /// A span ended that a process of this store has written to a journal of its own: for targets alone.
    Passing,
    /// An OTLP `ExportMetricsServiceRequest` as it came: for targets alone.
    Metrics,
    /// Written by a later version; to be passed over.
    Unknown(u8),
}

impl FrameKind {
    /// Returns the number in the file.
    pub const fn number(self) -> u8 {
        match self {
            Self::Started => RecordKind::Started as u8,
            Self::Event => RecordKind::Event as u8,
            Self::Ended => RecordKind::Ended as u8,
            Self::Resource => 4,
            Self::Mark => 5,
            Self::Passing => 6,
            Self::Metrics => 7,
            Self::Unknown(kind) => kind,
        }
    }

    /// Returns what a number in the file means.
    pub const fn from_number(kind: u8) -> Self {
        match kind {
            1 => Self::Started,
            2 => Self::Event,
            3 => Self::Ended,
            4 => Self::Resource,
            5 => Self::Mark,
            6 => Self::Passing,
            7 => Self::Metrics,
            other => Self::Unknown(other),
        }
    }

    /// Tells whether it is the end of a span, which is what targets of traces are sent.
    pub const fn is_span_for_targets(self) -> bool {
        matches!(self, Self::Ended | Self::Passing)
    }

    /// Returns which moment of a span the frame tells; `None` when it tells none.
    pub const fn record(self) -> Option<RecordKind> {
        match self {
            Self::Started => Some(RecordKind::Started),
            Self::Event => Some(RecordKind::Event),
            Self::Ended => Some(RecordKind::Ended),
            Self::Resource | Self::Mark | Self::Passing | Self::Metrics | Self::Unknown(_) => None,
        }
    }
}

impl From<RecordKind> for FrameKind {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Started => Self::Started,
            RecordKind::Event => Self::Event,
            RecordKind::Ended => Self::Ended,
        }
    }
}

/// A segment's place in the journal, and its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentKey {
    /// The number of its first frame.
    pub first_seq: u64,
    /// How many segments with this first number were given up before it.
    pub takeover: u32,
}

impl SegmentKey {
    fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".seg")?;
        let (first, takeover) = stem.split_once('.').unwrap_or((stem, "0"));
        let digits = first.len() == 20 && first.bytes().all(|byte| byte.is_ascii_digit());
        let key = Self { first_seq: first.parse().ok()?, takeover: takeover.parse().ok()? };
        // One file, one name: no leading zeros or signs in the second number.
        (digits && key.to_string() == name).then_some(key)
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.takeover {
            0 => write!(f, "{:020}.seg", self.first_seq),
            n => write!(f, "{:020}.{n}.seg", self.first_seq),
        }
    }
}

/// Returns the segments of a journal, in order.
pub(super) fn list(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentKey>, JournalError> {
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::NotFound { path: dir.to_owned() });
        }
        listed => listed.map_err(JournalError::io("list", dir))?,
    };
    let mut keys: Vec<_> = entries.iter().filter_map(|entry| SegmentKey::parse(&entry.name)).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub first_seq: u64,
    pub created_unix_nanos: u64,
    /// The largest `source` of all segments before.
    pub source_before: u64,
    /// What a commit to it survives.
    pub durability: Durability,
}

/// What the first bytes of a segment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFound {
    /// A header of this journal and this file name.
    Good(Header),
    /// Fewer bytes than a header has.
    Short,
    /// Bytes that are no header; the frames behind may be good.
    Damaged,
    /// A header of another journal or another place: no part of this journal.
    Foreign,
}

impl Header {
    pub(super) fn encode(self, process: &str) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let flags = if self.durability == Durability::Power { FLAG_POWER } else { 0 };
        bytes[10..12].copy_from_slice(&flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..48].copy_from_slice(&padded(process));
        bytes[48..56].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.created_unix_nanos.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.source_before.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the segment `key` of `process`.
    ///
    /// # Errors
    ///
    /// [`JournalError::NewerFormat`], and what reading gives.
    pub(super) fn read(
        file: &dyn FsFile,
        path: &Path,
        process: &str,
        key: SegmentKey,
    ) -> Result<HeaderFound, JournalError> {
        let mut bytes = [0; HEADER_BYTES];
        if read_full(file, &mut bytes, 0).map_err(JournalError::io("read", path))? < HEADER_BYTES {
            return Ok(HeaderFound::Short);
        }
        if &bytes[..8] != MAGIC || u32_at(&bytes, 76) != crc32c::crc32c(&bytes[..76]) {
            return Ok(HeaderFound::Damaged);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(JournalError::NewerFormat { path: path.to_owned(), version, supported: VERSION });
        }
        let header = Self {
            first_seq: u64_at(&bytes, 48),
            created_unix_nanos: u64_at(&bytes, 56),
            source_before: u64_at(&bytes, 64),
            durability: match u16::from_le_bytes([bytes[10], bytes[11]]) & FLAG_POWER {
                0 => Durability::Process,
                _ => Durability::Power,
            },
        };
        let ours = bytes[16..48] == padded(process) && header.first_seq == key.first_seq;
        Ok(if ours { HeaderFound::Good(header) } else { HeaderFound::Foreign })
    }
}

fn padded(process: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (into, from) in bytes.iter_mut().zip(process.bytes()) {
        *into = from;
    }
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// Returns the checksum that begins every checksum of frames: that of the process name.
pub(super) fn salt(process: &str) -> u32 {
    crc32c::crc32c(process.as_bytes())
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub len: usize,
    pub kind: FrameKind,
    pub flags: u8,
    pub resource: u32,
    pub seq: u64,
    pub source: u64,
}

impl FrameHeader {
    /// Returns the bytes that the frame takes in a segment.
    pub(super) fn stored_bytes(&self) -> usize {
        (FRAME_HEADER_BYTES + self.len).next_multiple_of(ALIGNMENT)
    }

    /// Appends the frame to `out`; `payload` has `self.len` bytes, at most [`MAX_PAYLOAD_BYTES`].
    pub(super) fn encode(&self, salt: u32, payload: &[u8], out: &mut Vec<u8>) {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[8] = self.kind.number();
        bytes[9] = self.flags;
        bytes[12..16].copy_from_slice(&self.resource.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..].copy_from_slice(&self.source.to_le_bytes());
        let check = header_check(salt, &bytes);
        bytes[10..12].copy_from_slice(&check.to_le_bytes());
        let crc = crc32c::crc32c_append(frame_header_crc(salt, &bytes), payload);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        out.reserve(self.stored_bytes());
        out.extend_from_slice(&bytes);
        out.extend_from_slice(payload);
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Reads a frame's fixed part; `None` when it can't be one.
    fn decode(salt: u32, bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            len: u32_at(bytes, 0) as usize,
            kind: FrameKind::from_number(bytes[8]),
            flags: bytes[9],
            resource: u32_at(bytes, 12),
            seq: u64_at(bytes, 16),
            source: u64_at(bytes, 24),
        };
        let possible = bytes[8] != 0 && header.len <= MAX_PAYLOAD_BYTES;
        (possible && bytes[10..12] == header_check(salt, bytes).to_le_bytes()).then_some(header)
    }
}

fn header_check(salt: u32, bytes: &[u8; FRAME_HEADER_BYTES]) -> u16 {
    let crc = crc32c::crc32c_append(salt, &bytes[..4]);
    let crc = crc32c::crc32c_append(crc, &bytes[8..10]);
    crc32c::crc32c_append(crc, &bytes[12..]) as u16
}

fn frame_header_crc(salt: u32, bytes: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &bytes[..4]), &bytes[8..])
}

/// Bytes of a file around the place that is being read.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Returns the bytes from `offset` on: `want` of them, fewer only at the end of the file.
    fn get(&mut self, file: &dyn FsFile, offset: u64, want: usize) -> io::Result<&[u8]> {
        let held = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + want as u64 > held {
            self.bytes.resize(want.max(CHUNK_BYTES), 0);
            self.start = offset;
            let found = read_full(file, &mut self.bytes, offset);
            // After an error the window must not offer what was never read.
            self.bytes.truncate(*found.as_ref().unwrap_or(&0));
            found?;
        }
        let rest = &self.bytes[(offset - self.start) as usize..];
        Ok(&rest[..want.min(rest.len())])
    }

    /// Is the byte at `offset` held?
    fn holds(&self, offset: u64) -> bool {
        (self.start..self.start + self.bytes.len() as u64).contains(&offset)
    }

    fn forget(&mut self) {
        self.bytes.clear();
    }
}

/// What stands at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A valid frame; the cursor is behind it.
    Frame {
        header: FrameHeader,
        /// Bytes between the last frame and this one that are no frame.
        skipped_bytes: u64,
    },
    /// No valid frame up to the end of the file. The cursor stays, for the file may still grow.
    End,
}

/// A way through the frames of one segment.
#[derive(Debug)]
pub(super) struct SegmentCursor {
    pub key: SegmentKey,
    path: PathBuf,
    file: Box<dyn FsFile>,
    salt: u32,
    /// Where the next frame begins, if all is well.
    pub offset: u64,
    /// The number that the next frame has, if all is well.
    expected: u64,
    /// The resources passed so far.
    pub resources: HashMap<u32, Arc<[u8]>>,
    window: Window,
    /// Where the last frame's payload begins.
    payload_at: u64,
    /// `offset` and `expected` before the last frame.
    before: (u64, u64),
    /// A place and a file length at which nothing valid was found, to not search the same bytes again.
    searched: Option<(u64, u64)>,
}

impl SegmentCursor {
    pub(super) fn new(file: Box<dyn FsFile>, path: PathBuf, process: &str, key: SegmentKey) -> Self {
        Self {
            key,
            path,
            file,
            salt: salt(process),
            offset: HEADER_BYTES as u64,
            expected: key.first_seq,
            resources: HashMap::new(),
            window: Window::default(),
            payload_at: 0,
            before: (HEADER_BYTES as u64, key.first_seq),
            searched: None,
        }
    }

    /// Does the segment still have a name, so that a writer could be writing to it?
    pub(super) fn is_linked(&self) -> Result<bool, JournalError> {
        self.file.stat().map(|found| found.is_linked).map_err(JournalError::io("read", &self.path))
    }

    /// Goes to the next valid frame.
    pub(super) fn step(&mut self) -> Result<Step, JournalError> {
        self.try_step().map_err(JournalError::io("read", &self.path))
    }

    fn try_step(&mut self) -> io::Result<Step> {
        let begin = self.offset;
        if !self.window.holds(begin) && self.file.stat()?.len <= begin {
            return Ok(Step::End);
        }
        if let Some(header) = self.frame_at(begin)? {
            return self.accept(begin, header);
        }
        // The frame may have been read while it was being written. What lies below a length taken before reading has
        // been written whole, so only there can a later valid frame prove that this one is damaged.
        let len = self.file.stat()?.len;
        self.window.forget();
        if self.searched != Some((begin, len)) {
            let mut at = begin;
            while at + FRAME_HEADER_BYTES as u64 <= len {
                if let Some(header) = self.frame_at(at)? {
                    return self.accept(at, header);
                }
                at += ALIGNMENT as u64;
            }
            self.searched = Some((begin, len));
        }
        self.window.forget();
        Ok(Step::End)
    }

    fn accept(&mut self, at: u64, header: FrameHeader) -> io::Result<Step> {
        let skipped_bytes = at - self.offset;
        self.before = (self.offset, self.expected);
        self.payload_at = at + FRAME_HEADER_BYTES as u64;
        self.offset = at + header.stored_bytes() as u64;
        if header.kind == FrameKind::Resource {
            let bytes = Arc::from(self.window.get(&*self.file, self.payload_at, header.len)?);
            self.resources.insert(header.resource, bytes);
        } else {
            self.expected = self.expected.max(header.seq.saturating_add(1));
        }
        Ok(Step::Frame { header, skipped_bytes })
    }

    /// Goes back to before the frame that the last step went to.
    pub(super) fn step_back(&mut self) {
        (self.offset, self.expected) = self.before;
    }

    /// Returns the payload of the frame that the last step went to.
    pub(super) fn payload(&mut self, header: &FrameHeader) -> Result<&[u8], JournalError> {
        let bytes = self.window.get(&*self.file, self.payload_at, header.len);
        bytes.map_err(JournalError::io("read", &self.path))
    }

    /// Returns the valid frame that begins at `offset`, if there is one.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let bytes = self.window.get(&*self.file, offset, FRAME_HEADER_BYTES)?;
        let Some(fixed) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let fixed = *fixed;
        let Some(header) = FrameHeader::decode(self.salt, &fixed) else { return Ok(None) };
        // A number below the expected one belongs to a frame that was passed over as lost, or to a copy.
        let in_order = header.seq.checked_sub(self.expected).is_some_and(|jump| jump < MAX_JUMP);
        if !in_order {
            return Ok(None);
        }
        let bytes = self.window.get(&*self.file, offset, FRAME_HEADER_BYTES + header.len)?;
        let Some(payload) = bytes.get(FRAME_HEADER_BYTES..).filter(|payload| payload.len() == header.len) else {
            return Ok(None);
        };
        let crc = crc32c::crc32c_append(frame_header_crc(self.salt, &fixed), payload);
        Ok((crc == u32_at(&fixed, 4)).then_some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_reads_back_and_others_are_no_segments() {
        for (first_seq, takeover, name) in
            [(1, 0, "00000000000000000001.seg"), (u64::MAX, 12, "18446744073709551615.12.seg")]
        {
            let key = SegmentKey { first_seq, takeover };
            assert_eq!(key.to_string(), name);
            assert_eq!(SegmentKey::parse(name), Some(key));
        }
        for name in [
            "lock",
            "1.seg",
            "00000000000000000001.0.seg",
            "00000000000000000001.01.seg",
            "+0000000000000000001.seg",
            "99999999999999999999.seg",
        ] {
            assert_eq!(SegmentKey::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_bytes_of_format_version_1_stay_as_they_are() {
        let header = Header {
            first_seq: 7,
            created_unix_nanos: 1_767_693_600_000_000_000,
            source_before: 99,
            durability: Durability::Process,
        };
        let mut bytes = header.encode("01KE9BZH80BGEY5ABZ7D0DHDQ1").to_vec();
        let frame = FrameHeader { len: 3, kind: FrameKind::Ended, flags: 0, resource: 1, seq: 7, source: 120 };
        frame.encode(salt("01KE9BZH80BGEY5ABZ7D0DHDQ1"), b"abc", &mut bytes);
        let rows: Vec<String> =
            bytes.chunks(16).map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        insta::assert_snapshot!(rows.join("\n"), @r"
        5253504e4a524e310100000050000000
        30314b4539425a483830424745593541
        425a3744304448445131000000000000
        07000000000000000040bbabf61b8818
        6300000000000000000000008908deb3
        03000000ce9c34170300a18e01000000
        07000000000000007800000000000000
        6162630000000000
        ");
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for number in 0..=u8::MAX {
            assert_eq!(FrameKind::from_number(number).number(), number);
        }
        assert_eq!(FrameKind::from(RecordKind::Ended).record(), Some(RecordKind::Ended));
    }
}
