//! The hash chain over a run's log: what it was is known up to the end of each line.
//!
//! SHA-256 of the log up to the end of line n is a link: it follows from the link before and from the line. The last one is
//! in `run.yaml` as `events_sha256`, for as many lines as that counts; it is what `sha256sum events.jsonl` prints. The
//! first 8 bytes of each stand in `events.chain`, a line for each line of the log, so that the first one that was changed
//! can be named. That file is written when the run is over, and nothing depends on it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::StoreError;
use super::layout::read_bounded;
use crate::fs::{Access, Fs, write_full};
use crate::model::run::LogHash;
use crate::model::{RunStatus, RunSummary};

/// Bytes of a line of `events.chain`: 16 hex digits and a line feed.
const MARK_LINE: u64 = 17;
/// What is longer than this for the lines of a run of 100 MB is not ours.
const MAX_CHAIN_FILE: u64 = 64 << 20;

/// Returns the path of the links of a run's log.
pub(super) fn chain_file(dir: &Path) -> PathBuf {
    dir.join("events.chain")
}

/// The links of a log so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    digest: Sha256,
    /// The first bytes of each link.
    marks: Vec<u64>,
    /// So many of them are in the file.
    written: usize,
}

impl Chain {
    /// Adds whole lines, each with its line feed.
    pub fn add(&mut self, lines: &[u8]) {
        // At once: growing by steps took as long as a third of the hash, as each large step has the allocator tidy up.
        self.marks.reserve(memchr::memchr_iter(b'\n', lines).count());
        let mut rest = lines;
        while !rest.is_empty() {
            // Of long texts, looking at each byte by itself took half as long as the hash.
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(end);
            self.digest.update(line);
            self.marks.push(mark_of(self.head()));
            rest = behind;
        }
    }

    /// Returns how many lines there are.
    pub fn lines(&self) -> u64 {
        self.marks.len() as u64
    }

    /// Returns the hash that the metadata of a run has.
    pub fn hash_for(&self, summary: &RunSummary) -> Option<LogHash> {
        self.hash_of(summary.events).filter(|_| summary.status != RunStatus::Running)
    }

    /// Returns the hash of so many lines, if that is how many there are: of more or fewer nothing is known.
    pub fn hash_of(&self, lines: u64) -> Option<LogHash> {
        (self.marks.len() as u64 == lines).then(|| self.head())
    }

    /// Returns the last link.
    pub fn head(&self) -> LogHash {
        LogHash(self.digest.clone().finalize().into())
    }

    /// Returns the marks of the lines.
    pub fn marks(&self) -> &[u64] {
        &self.marks
    }

    /// Writes the marks that are not in the file yet.
    ///
    /// It is not brought to the disk: whoever reads it holds it against `run.yaml` first. `text` is room to write in.
    pub fn write(&mut self, fs: &dyn Fs, dir: &Path, text: &mut Vec<u8>) -> Result<(), StoreError> {
        if self.written == self.marks.len() {
            return Ok(());
        }
        let path = chain_file(dir);
        text.clear();
        for mark in &self.marks[self.written..] {
            text.extend(mark_line(*mark));
        }
        let begin = self.written as u64 * MARK_LINE;
        let end = begin + text.len() as u64;
        let written = fs.open(&path, Access::Create).and_then(|file| {
            write_full(&*file, text, begin)?;
            // Of a log that was longer; a new file is as long as what was written, and to look costs less than to set it.
            if file.stat()?.len > end { file.set_len(end) } else { Ok(()) }
        });
        written.map_err(StoreError::io("write", path))?;
        self.written = self.marks.len();
        Ok(())
    }
}

/// Returns the line of a mark.
fn mark_line(mark: u64) -> [u8; MARK_LINE as usize] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [b'\n'; MARK_LINE as usize];
    for (place, digit) in line[..16].iter_mut().enumerate() {
        *digit = DIGITS[(mark >> (60 - 4 * place)) as usize & 15];
    }
    line
}

/// Returns the hash of whole lines: the last link, without those before it.
pub(super) fn hash_of(lines: &[u8]) -> LogHash {
    LogHash(Sha256::digest(lines).into())
}

/// Returns the mark of a link.
pub(super) fn mark_of(link: LogHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = link.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Reads the marks of a log that had so many lines and this last link; `None` when there are none, or others.
pub(super) fn read_marks(fs: &dyn Fs, dir: &Path, lines: u64, head: LogHash) -> Option<Vec<u64>> {
    let text = read_bounded(fs, &chain_file(dir), MAX_CHAIN_FILE).ok()?;
    let marks: Vec<u64> = text
        .lines()
        .take(usize::try_from(lines).unwrap_or(usize::MAX))
        .map(|line| u64::from_str_radix(line, 16).ok())
        .collect::<Option<_>>()?;
    let is_whole = marks.len() as u64 == lines && marks.last().is_none_or(|last| *last == mark_of(head));
    is_whole.then_some(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    #[test]
    fn a_link_is_the_hash_of_all_before_and_the_file_has_the_first_digits_of_each() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = Chain::default();
        chain.add(b"one\ntwo\n");
        chain.write(&OsFs, dir.path(), &mut Vec::new()).unwrap();
        chain.add(b"three\n");
        chain.write(&OsFs, dir.path(), &mut Vec::new()).unwrap();
        // As `printf 'one\ntwo\nthree\n' | sha256sum` has it.
        assert_eq!(chain.head().to_string(), "b6285c57e8797db5d4c51c80d6f11938afda9b11c6a003549709189e9b4b92a2");
        let text = std::fs::read_to_string(chain_file(dir.path())).unwrap();
        assert_eq!(text, "2c8b08da5ce60398\nc3f9c8c283a2b1f2\nb6285c57e8797db5\n");
        assert_eq!(read_marks(&OsFs, dir.path(), 3, chain.head()).as_deref(), Some(chain.marks()));
        // That of a log which was longer is cut.
        std::fs::write(chain_file(dir.path()), "x".repeat(200)).unwrap();
        let mut anew = Chain::default();
        anew.add(b"one\ntwo\nthree\n");
        anew.write(&OsFs, dir.path(), &mut b"what was written last".to_vec()).unwrap();
        assert_eq!(std::fs::read_to_string(chain_file(dir.path())).unwrap(), text);
        assert_eq!(read_marks(&OsFs, dir.path(), 2, chain.head()), None);
        assert_eq!(read_marks(&OsFs, dir.path(), 4, chain.head()), None);
    }
}
