//! How far a reader is: a file of two slots, written in turn.

use std::io;
use std::path::{Path, PathBuf};

use super::{JournalError, POSITIONS, checked_name};
use crate::fs::{Access, Fs, FsFile, read_full, write_full};

const MAGIC: &[u8; 8] = b"RSPNPOS1";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 32;
/// The most characters of a reader's name.
const NAME_MAX: usize = 64;

/// One slot's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    generation: u64,
    seq: u64,
}

impl Slot {
    fn encode(self, process: &str) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..].copy_from_slice(&self.seq.to_le_bytes());
        let crc = checksum(process, &bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(process: &str, bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let known = &bytes[..8] == MAGIC && bytes[8..10] == VERSION.to_le_bytes();
        if !known || bytes[12..16] != checksum(process, bytes).to_le_bytes() {
            return None;
        }
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        Some(Self { generation: number(16)?, seq: number(24)? })
    }
}

fn checksum(process: &str, bytes: &[u8; SLOT_BYTES]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(process.as_bytes()), &bytes[..12]);
    crc32c::crc32c_append(crc, &bytes[16..])
}

fn newest(process: &str, file: &dyn FsFile) -> io::Result<Option<Slot>> {
    let mut bytes = [0; 2 * SLOT_BYTES];
    let found = read_full(file, &mut bytes, 0)?;
    let slots = bytes[..found].as_chunks::<SLOT_BYTES>().0;
    Ok(slots.iter().filter_map(|slot| Slot::decode(process, slot)).max_by_key(|slot| slot.generation))
}

fn path_of(dir: &Path, reader: &str) -> Result<PathBuf, JournalError> {
    Ok(dir.join(POSITIONS).join(checked_name(reader, NAME_MAX)?))
}

/// Returns the last number a reader is done with; `None` when it has no (readable) position.
pub(super) fn stored(fs: &dyn Fs, dir: &Path, process: &str, reader: &str) -> Result<Option<u64>, JournalError> {
    let path = path_of(dir, reader)?;
    match fs.open(&path, Access::Read) {
        Ok(file) => {
            let slot = newest(process, &*file).map_err(JournalError::io("read", &path))?;
            Ok(slot.map(|slot| slot.seq))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("open", &path)(error)),
    }
}

/// Names the readers that have a position, readable or not.
pub(super) fn readers(fs: &dyn Fs, dir: &Path) -> Result<Vec<String>, JournalError> {
    let path = dir.join(POSITIONS);
    match fs.list(&path) {
        Ok(entries) => {
            let names = entries.into_iter().map(|entry| entry.name);
            Ok(names.filter(|name| checked_name(name, NAME_MAX).is_ok()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(JournalError::io("list", &path)(error)),
    }
}

/// Returns the largest number that any reader is done with, 0 without readers.
pub(super) fn furthest(fs: &dyn Fs, dir: &Path, process: &str) -> Result<u64, JournalError> {
    let mut furthest = 0;
    for reader in readers(fs, dir)? {
        furthest = furthest.max(stored(fs, dir, process, &reader)?.unwrap_or(0));
    }
    Ok(furthest)
}

/// A reader's position, held against other readers of the same name.
#[derive(Debug)]
pub(super) struct Position {
    file: Box<dyn FsFile>,
    path: PathBuf,
    process: String,
    slot: Option<Slot>,
}

impl Position {
    pub(super) fn open(fs: &dyn Fs, dir: &Path, process: &str, reader: &str) -> Result<Self, JournalError> {
        let path = path_of(dir, reader)?;
        let positions = dir.join(POSITIONS);
        match fs.create_dir(&positions) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(JournalError::io("create", &positions)(error)),
        }
        let file = fs.open(&path, Access::Create).map_err(JournalError::io("open", &path))?;
        if !file.try_lock(true).map_err(JournalError::io("lock", &path))? {
            return Err(JournalError::Locked { path });
        }
        let slot = newest(process, &*file).map_err(JournalError::io("read", &path))?;
        Ok(Self { file, path, process: process.to_owned(), slot })
    }

    /// The last number the reader is done with; `None` when that is not known.
    pub(super) fn seq(&self) -> Option<u64> {
        self.slot.map(|slot| slot.seq)
    }

    /// Writes a new position in place of the older slot; on an error the old one stays true.
    pub(super) fn store(&mut self, seq: u64) -> Result<(), JournalError> {
        let generation = self.slot.map_or(1, |slot| slot.generation.wrapping_add(1));
        let slot = Slot { generation, seq };
        let offset = (generation % 2) * SLOT_BYTES as u64;
        let written = write_full(&*self.file, &slot.encode(&self.process), offset);
        written.map_err(JournalError::io("write", &self.path))?;
        self.slot = Some(slot);
        Ok(())
    }
}
