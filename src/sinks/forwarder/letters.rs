//! Dead letters: what a peer refused for good, kept to be looked at and sent again.
//!
//! A letter is a file of its own, `<ULID>.letter`, made whole or not at all, so that several processes may write and
//! remove them without a lock. Its format is specified in `docs/format.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fs::{OsFs, create_dirs, read_bytes, replace};
use crate::model::{RunId, UnixNanos};

const MAGIC: &[u8; 8] = b"RSPNDLT1";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
const ENDING: &str = "letter";
/// The letters of one target take at most this much; beyond it the oldest go.
pub const MAX_BYTES: u64 = 64 << 20;
/// So many letters a target may have; beyond it the oldest go.
pub const MAX_LETTERS: usize = 10_000;
/// The longest description that is read.
const MAX_ABOUT_BYTES: usize = 64 << 10;

/// What is told of a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// When it was refused.
    pub time: UnixNanos,
    /// Who refused it: the endpoint without credentials and query.
    pub target: String,
    /// What the peer said.
    pub reason: String,
    /// The process whose journal it is from.
    pub process: String,
}

/// A refused export request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What is told of it.
    pub about: About,
    /// How many spans it has.
    pub spans: u64,
    /// The OTLP `ExportTraceServiceRequest`, as it was sent.
    pub request: Vec<u8>,
}

/// A letter in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name: a ULID, which sorts by time.
    pub id: RunId,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it says, or why it can't be read.
    pub letter: Result<Letter, String>,
}

impl Letter {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let about = serde_json::to_vec(&self.about).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + about.len() + self.request.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&u32::try_from(about.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.request.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend_from_slice(&self.spans.to_le_bytes());
        bytes.extend_from_slice(&about);
        bytes.extend_from_slice(&self.request);
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Err("cut off") };
        let number = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
        if &header[..8] != MAGIC {
            return Err("not a dead letter");
        }
        if u16::from_le_bytes([header[8], header[9]]) != VERSION {
            return Err("written by a newer runspan");
        }
        if number(12) != checksum(bytes) {
            return Err("damaged");
        }
        let (about, request) = (number(16) as usize, number(20) as usize);
        if about > MAX_ABOUT_BYTES || about.checked_add(request) != Some(body.len()) {
            return Err("damaged");
        }
        let (about, request) = body.split_at(about);
        let about = serde_json::from_slice(about).map_err(|_| "damaged")?;
        let spans = u64::from(number(24)) | u64::from(number(28)) << 32;
        Ok(Self { about, spans, request: request.to_vec() })
    }
}

/// Of everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let (before, after) = (&bytes[..12.min(bytes.len())], bytes.get(16..).unwrap_or_default());
    crc32c::crc32c_append(crc32c::crc32c(before), after)
}

/// The letters of one target.
#[derive(Clone, Debug)]
pub struct Letters {
    dir: PathBuf,
    max_bytes: u64,
    max_letters: usize,
}

impl Letters {
    /// Those in `dir`, which need not be there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_bytes: MAX_BYTES, max_letters: MAX_LETTERS }
    }

    /// Sets other bounds.
    #[cfg(test)]
    fn bounded(self, max_bytes: u64, max_letters: usize) -> Self {
        Self { max_bytes, max_letters, ..self }
    }

    /// Returns where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps a letter. Where that goes beyond the bounds, the oldest letters go; returns how many spans were in them.
    pub fn put(&self, letter: &Letter) -> io::Result<u64> {
        let bytes = letter.encode()?;
        create_dirs(&OsFs, &self.dir)?;
        let present = self.sizes()?;
        // Names sort in the order of writing, within a millisecond too.
        let newest = present.last().map_or(0, |(id, _)| id.time().millis() + 1);
        let name = RunId::fresh(UnixNanos::now().max(UnixNanos::from_millis(newest)));
        let lost = self.make_room(present, bytes.len() as u64)?;
        replace(&OsFs, &self.path(name), &bytes, false)?;
        Ok(lost)
    }

    fn make_room(&self, present: Vec<(RunId, u64)>, bytes: u64) -> io::Result<u64> {
        let mut total: u64 = present.iter().map(|(_, bytes)| bytes).sum();
        let (mut count, mut lost) = (present.len(), 0);
        for (id, size) in present {
            if total + bytes <= self.max_bytes && count < self.max_letters {
                break;
            }
            lost += self.read(id).map_or(0, |letter| letter.spans);
            self.remove(id)?;
            (total, count) = (total - size, count - 1);
        }
        Ok(lost)
    }

    /// Returns ids and sizes, oldest first.
    fn sizes(&self) -> io::Result<Vec<(RunId, u64)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found: Vec<(RunId, u64)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name();
                let id = name.to_str()?.strip_suffix(ENDING)?.strip_suffix('.')?.parse().ok()?;
                Some((id, entry.metadata().ok()?.len()))
            })
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Returns all letters, oldest first.
    pub fn list(&self) -> io::Result<impl Iterator<Item = Found> + '_> {
        Ok(self.sizes()?.into_iter().map(|(id, bytes)| Found { id, bytes, letter: self.read(id) }))
    }

    fn read(&self, id: RunId) -> Result<Letter, String> {
        let bytes =
            read_bytes(&OsFs, &self.path(id), self.max_bytes.max(MAX_BYTES)).map_err(|error| error.to_string())?;
        Letter::decode(&bytes).map_err(str::to_owned)
    }

    /// Removes a letter; one that is gone already is no error.
    pub fn remove(&self, id: RunId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn path(&self, id: RunId) -> PathBuf {
        self.dir.join(format!("{id}.{ENDING}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn letter(spans: u64, bytes: usize) -> Letter {
        let about = About {
            time: UnixNanos(1_767_693_600_000_000_000),
            target: "http://h/v1/traces".to_owned(),
            reason: "HTTP 400: no".to_owned(),
            process: "01M82V6NTA6Q8F0ZZ02R2NA1MW".to_owned(),
        };
        Letter { about, spans, request: vec![7; bytes] }
    }

    #[test]
    fn a_letter_comes_back_as_it_was_and_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let letters = Letters::new(dir.path().join("dead"));
        assert_eq!(letters.list().unwrap().count(), 0);
        assert_eq!(letters.put(&letter(3, 100)).unwrap(), 0);
        let found: Vec<Found> = letters.list().unwrap().collect();
        assert_eq!((found.len(), found[0].letter.clone()), (1, Ok(letter(3, 100))));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(letters.dir()), mode(&letters.path(found[0].id))), (0o700, 0o600));
        letters.remove(found[0].id).unwrap();
        letters.remove(found[0].id).unwrap();
        assert_eq!(letters.list().unwrap().count(), 0);
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let bytes = letter(2, 3).encode().unwrap();
        assert_eq!(&bytes[..12], b"RSPNDLT1\x01\0\0\0");
        assert_eq!(bytes[12..16], crc32c::crc32c(&[&bytes[..12], &bytes[16..]].concat()).to_le_bytes());
        assert_eq!(bytes[16..32], [134, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            String::from_utf8_lossy(&bytes[32..166]),
            "{\"time\":\"2026-01-06T10:00:00.000000000Z\",\"target\":\"http://h/v1/traces\",\"reason\":\"HTTP 400: no\",\
             \"process\":\"01M82V6NTA6Q8F0ZZ02R2NA1MW\"}"
        );
        assert_eq!(bytes[166..], [7; 3]);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = letter(2, 40).encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Letter::decode(&bytes[..end]).is_err(), "cut to {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Letter::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn beyond_the_bounds_the_oldest_go_and_their_spans_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let one = letter(1, 100).encode().unwrap().len() as u64;
        let letters = Letters::new(dir.path()).bounded(3 * one, 10);
        let put = |spans| letters.put(&letter(spans, 100)).unwrap();
        assert_eq!([1, 2, 3, 4].map(put), [0, 0, 0, 1]);
        assert_eq!(letters.clone().bounded(3 * one, 2).put(&letter(5, 100)).unwrap(), 2 + 3);
        let left: Vec<u64> = letters.list().unwrap().map(|found| found.letter.unwrap().spans).collect();
        assert_eq!(left, [4, 5]);
    }
}
