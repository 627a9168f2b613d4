//! The bytes of a pack, as `docs/format.md` specifies them.

use crate::model::{RunId, RunKind};

pub const HEADER: usize = 64;
pub const ENTRY_HEAD: usize = 48;
pub const INDEX_ENTRY: usize = 32;
pub const TRAILER: usize = 40;
/// Entries and the index begin at multiples of this.
const ALIGN: usize = 8;
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"RSPNPCK1";
const ENTRY_MAGIC: &[u8; 4] = b"RPKE";
const TRAILER_MAGIC: &[u8; 4] = b"RPKT";
/// Most that an entry may expand to.
pub const MAX_EXPANDED: u64 = 16 << 20;

/// How a body is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Stored = 0,
    Zstd = 1,
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    pub run: RunId,
    pub kind: RunKind,
    pub codec: Codec,
    /// Bytes of the body as stored.
    pub len: u32,
    /// Bytes of `run.yaml` and of `events.jsonl` before compression.
    pub yaml_len: u32,
    pub events_len: u32,
    pub body_crc: u32,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub run: RunId,
    pub kind: RunKind,
    pub offset: u64,
    pub len: u32,
}

/// What the end of a pack says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub index_offset: u64,
    pub entries: u32,
    pub index_crc: u32,
}

/// CRC-32C over one after the other.
pub fn crc(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

fn kind_of(byte: u8) -> Option<RunKind> {
    match byte {
        1 => Some(RunKind::Agent),
        2 => Some(RunKind::Workflow),
        _ => None,
    }
}

fn byte_of(kind: RunKind) -> u8 {
    match kind {
        RunKind::Agent => 1,
        RunKind::Workflow => 2,
    }
}

/// Reads an integer at a place that is there.
fn int<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut int = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        int.copy_from_slice(found);
    }
    int
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(int(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(int(bytes, at))
}

/// Encodes the head of a pack.
pub fn header(pack: RunId, process: RunId, now: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(HEADER as u32).to_le_bytes());
    bytes[16..32].copy_from_slice(&pack.0);
    bytes[32..48].copy_from_slice(&process.0);
    bytes[48..56].copy_from_slice(&now.to_le_bytes());
    let sum = crc(&[&bytes[..60]]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Why the head of a pack cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    Damaged,
    Newer(u16),
    OfAnother,
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged => f.write_str("it does not begin as a pack does"),
            Self::Newer(version) => write!(f, "it has version {version}, and this program reads up to {VERSION}"),
            Self::OfAnother => f.write_str("it says that it is another pack"),
        }
    }
}

/// Reads the head of a pack; returns where the first entry begins.
pub fn read_header(bytes: &[u8], pack: RunId) -> Result<u64, HeaderError> {
    if bytes.len() < HEADER || &bytes[..8] != MAGIC || u32_at(bytes, 60) != crc(&[&bytes[..60]]) {
        return Err(HeaderError::Damaged);
    }
    let version = u16::from_le_bytes(int(bytes, 8));
    if version > VERSION {
        return Err(HeaderError::Newer(version));
    }
    if bytes[16..32] != pack.0 {
        return Err(HeaderError::OfAnother);
    }
    Ok(u64::from(u32_at(bytes, 12)))
}

impl EntryHead {
    /// Appends an entry, at the next multiple of 8.
    pub fn write(&self, pack: RunId, body: &[u8], to: &mut Vec<u8>) -> u64 {
        to.resize(to.len().next_multiple_of(ALIGN), 0);
        let offset = to.len();
        to.extend_from_slice(ENTRY_MAGIC);
        to.extend_from_slice(&self.len.to_le_bytes());
        to.extend_from_slice(&self.run.0);
        to.extend_from_slice(&[byte_of(self.kind), self.codec as u8, 0, 0]);
        to.extend_from_slice(&self.yaml_len.to_le_bytes());
        to.extend_from_slice(&self.events_len.to_le_bytes());
        to.extend_from_slice(&crc(&[&pack.0, body]).to_le_bytes());
        to.extend_from_slice(&[0; 4]);
        let sum = crc(&[&pack.0, &to[offset..]]);
        to.extend_from_slice(&sum.to_le_bytes());
        to.extend_from_slice(body);
        offset as u64
    }

    /// Returns the bytes of a file that an entry with so long a body takes, its place in the index included.
    pub fn footprint(len: u32) -> u64 {
        aligned(ENTRY_HEAD as u64 + u64::from(len)) + INDEX_ENTRY as u64
    }

    /// Reads the head of an entry; `None` where there is none.
    pub fn read(bytes: &[u8], pack: RunId) -> Option<Self> {
        let head = bytes.get(..ENTRY_HEAD)?;
        if &head[..4] != ENTRY_MAGIC || u32_at(head, 44) != crc(&[&pack.0, &head[..44]]) {
            return None;
        }
        let codec = match head[25] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            _ => return None,
        };
        Some(Self {
            run: RunId(int(head, 8)),
            kind: kind_of(head[24])?,
            codec,
            len: u32_at(head, 4),
            yaml_len: u32_at(head, 28),
            events_len: u32_at(head, 32),
            body_crc: u32_at(head, 36),
        })
    }
}

/// Appends the index, sorted by run, and the trailer.
pub fn finish(pack: RunId, index: &mut [Indexed], to: &mut Vec<u8>) {
    index.sort_unstable_by_key(|entry| entry.run);
    to.resize(to.len().next_multiple_of(ALIGN), 0);
    let index_offset = to.len();
    for entry in index.iter() {
        to.extend_from_slice(&entry.run.0);
        to.extend_from_slice(&entry.offset.to_le_bytes());
        to.extend_from_slice(&entry.len.to_le_bytes());
        to.extend_from_slice(&[byte_of(entry.kind), 0, 0, 0]);
    }
    let (index_crc, begin) = (crc(&[&pack.0, &to[index_offset..]]), to.len());
    to.extend_from_slice(&(index_offset as u64).to_le_bytes());
    to.extend_from_slice(&(index.len() as u32).to_le_bytes());
    to.extend_from_slice(&index_crc.to_le_bytes());
    to.extend_from_slice(&((begin + TRAILER) as u64).to_le_bytes());
    to.extend_from_slice(&VERSION.to_le_bytes());
    to.extend_from_slice(&[0; 6]);
    let sum = crc(&[&pack.0, &to[begin..]]);
    to.extend_from_slice(&sum.to_le_bytes());
    to.extend_from_slice(TRAILER_MAGIC);
}

impl Trailer {
    /// Reads the last bytes of a file of this length; `None` where they are no trailer of the pack.
    pub fn read(bytes: &[u8], pack: RunId, file_len: u64) -> Option<Self> {
        let bytes = bytes.get(..TRAILER)?;
        let trailer = Self { index_offset: u64_at(bytes, 0), entries: u32_at(bytes, 8), index_crc: u32_at(bytes, 12) };
        let is_good = &bytes[36..] == TRAILER_MAGIC
            && u32_at(bytes, 32) == crc(&[&pack.0, &bytes[..32]])
            && u64_at(bytes, 16) == file_len
            && u16::from_le_bytes(int(bytes, 24)) <= VERSION;
        let index_len = u64::from(trailer.entries) * INDEX_ENTRY as u64;
        let end = trailer.index_offset.checked_add(index_len).and_then(|end| end.checked_add(TRAILER as u64));
        let fits = end == Some(file_len);
        (is_good && fits).then_some(trailer)
    }
}

impl Indexed {
    /// Reads one entry of an index.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        /// No file is longer.
        const LAST: u64 = i64::MAX as u64 / 2;
        let bytes = bytes.get(..INDEX_ENTRY)?;
        let (offset, len) = (u64_at(bytes, 16), u32_at(bytes, 24));
        let kind = kind_of(bytes[28])?;
        (offset <= LAST).then_some(Self { run: RunId(int(bytes, 0)), kind, offset, len })
    }
}

/// Returns the first place at which an entry may stand from `offset` on.
pub fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN as u64)
}

/// Tombstones of a pack: records of this length, the first of which is the head.
pub const TOMBSTONE: usize = 32;

/// Why a run is not in a pack any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Somebody deleted it.
    Deleted = 1,
    /// It has a folder again.
    Unpacked = 2,
    /// It was not to be kept.
    Retention = 3,
}

impl Gone {
    fn read(number: u16) -> Self {
        match number {
            2 => Self::Unpacked,
            3 => Self::Retention,
            // Whatever a later version calls it: it is not there any more.
            _ => Self::Deleted,
        }
    }
}

/// Encodes the head of a pack's tombstones.
pub fn tombstones_head(pack: RunId, now: u64) -> [u8; TOMBSTONE] {
    let mut bytes = [0; TOMBSTONE];
    bytes[..16].copy_from_slice(&pack.0);
    bytes[16..24].copy_from_slice(&now.to_le_bytes());
    bytes[24..26].copy_from_slice(&VERSION.to_le_bytes());
    let sum = crc(&[b"RSPNPDL1", &pack.0, &bytes[..28]]);
    bytes[28..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Encodes a tombstone.
pub fn tombstone(pack: RunId, run: RunId, now: u64, why: Gone) -> [u8; TOMBSTONE] {
    let mut bytes = [0; TOMBSTONE];
    bytes[..16].copy_from_slice(&run.0);
    bytes[16..24].copy_from_slice(&now.to_le_bytes());
    bytes[24..26].copy_from_slice(&(why as u16).to_le_bytes());
    let sum = crc(&[&pack.0, &bytes[..28]]);
    bytes[28..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Tells whether these bytes are the head of a pack's tombstones.
pub fn is_tombstones_head(bytes: &[u8], pack: RunId) -> bool {
    bytes.len() >= TOMBSTONE && bytes[..16] == pack.0 && u32_at(bytes, 28) == crc(&[b"RSPNPDL1", &pack.0, &bytes[..28]])
}

/// Reads a tombstone: whose it is and why, and whether it is as it was written. A damaged one counts for the run that it names:
/// what was removed must not come back for a flipped bit.
pub fn read_tombstone(bytes: &[u8], pack: RunId) -> (RunId, Gone, bool) {
    let is_good = u32_at(bytes, 28) == crc(&[&pack.0, bytes.get(..28).unwrap_or_default()]);
    (RunId(int(bytes, 0)), Gone::read(u16::from_le_bytes(int(bytes, 24))), is_good)
}
