//! What a process has counted and where it stands, on disk: so that each run is in one request, whoever dies.
//!
//! A request is written down before it is sent, in one step with the runs that are in it. Who finds it after a crash
//! sends it again as it is, which under cumulative temporality changes nothing at a peer that has it already, and
//! counts anew only the runs that are in none. The files are specified in `docs/format.md`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use prost::Message;

use super::export::Waiting;
use crate::fs::{Access, Fs, FsFile, append_full, create_dirs, read_bytes, replace};
use crate::journal::lock::{PATIENCE, POLL};
use crate::model::RunId;
use crate::model::id::IdSet;
use crate::model::otlp::Resource;

const MAGIC: &[u8; 8] = b"RSPNMET1";
const HEADER_BYTES: usize = 12;
const FORMAT: u32 = 1;
/// Many times what the most series that may be asked for take.
const MAX_STATE_BYTES: u64 = 1 << 30;
/// As many runs as a store is ever going to have.
const MAX_RUNS_BYTES: u64 = 4 << 30;
/// A line of `runs`: a run's id and a line feed.
const LINE_BYTES: usize = 27;

const LOCK: &str = "lock";
const STATE: &str = "state";
const RUNS: &str = "runs";

/// The content of `state`.
#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// Whose metrics they are; scrubbed.
    #[prost(message, optional, tag = "2")]
    resource: Option<Resource>,
    /// So many bytes of `runs` name runs that are in a request.
    #[prost(uint64, tag = "3")]
    runs_bytes: u64,
    /// Encoded requests that the peer has not taken, the oldest first.
    #[prost(bytes = "vec", repeated, tag = "4")]
    requests: Vec<Vec<u8>>,
    /// All runs of the process are in a request, those too that `runs` does not name.
    #[prost(bool, tag = "5")]
    is_complete: bool,
}

impl State {
    fn encode_whole(&self) -> Vec<u8> {
        let body = self.encode_to_vec();
        let crc = crc32c::crc32c_append(crc32c::crc32c(MAGIC), &body);
        [MAGIC.as_slice(), &crc.to_le_bytes(), &body].concat()
    }

    fn decode_whole(bytes: &[u8]) -> io::Result<Self> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "damaged");
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(broken)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(MAGIC), body);
        if header[..8] != MAGIC[..] || header[8..] != crc.to_le_bytes() {
            return Err(broken());
        }
        let state = Self::decode(body).map_err(|_| broken())?;
        match state.format {
            FORMAT => Ok(state),
            newer => {
                let why = format!("format {newer}; this version reads {FORMAT}");
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
        }
    }
}

/// The ledger of one process for one peer, held against others.
#[derive(Debug)]
pub(super) struct Ledger {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Free when its process is dead.
    _lock: Box<dyn FsFile>,
    runs: Box<dyn FsFile>,
    /// Bytes of whole lines in `runs`.
    written: u64,
    /// Counted, and not in `runs` yet because that could not be written.
    unwritten: Vec<RunId>,
    state: State,
}

impl Ledger {
    /// Begins the ledger of this process.
    pub fn create(fs: Arc<dyn Fs>, dir: PathBuf, resource: &Resource) -> io::Result<Self> {
        create_dirs(&*fs, &dir)?;
        let lock = own_lock(&*fs, &dir)?;
        let runs = fs.open(&dir.join(RUNS), Access::Append)?;
        let state = State { format: FORMAT, resource: Some(resource.clone()), ..State::default() };
        let ledger = Self { fs, dir, _lock: lock, runs, written: 0, unwritten: Vec::new(), state };
        ledger.write_state()?;
        Ok(ledger)
    }

    /// Takes that of a dead process; `None` when it is not dead, or somebody else has it.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it says nothing that could be believed, `Unsupported` when it is a later version's.
    pub fn take_over(fs: Arc<dyn Fs>, dir: PathBuf) -> io::Result<Option<Self>> {
        let Some(lock) = locked_file(&*fs, &dir)? else { return Ok(None) };
        let state = State::decode_whole(&read_bytes(&*fs, &dir.join(STATE), MAX_STATE_BYTES)?)?;
        let runs = fs.open(&dir.join(RUNS), Access::Append)?;
        let written = state.runs_bytes;
        Ok(Some(Self { fs, dir, _lock: lock, runs, written, unwritten: Vec::new(), state }))
    }

    /// Notes runs that were counted. They are vouched for by the request that has them.
    pub fn note(&mut self, runs: Vec<RunId>) {
        self.unwritten.extend(runs);
        if self.unwritten.is_empty() {
            return;
        }
        let lines: String = self.unwritten.iter().map(|run| format!("{run}\n")).collect();
        if append_full(&*self.runs, lines.as_bytes()).is_ok() {
            self.written += lines.len() as u64;
            self.unwritten.clear();
        } else {
            // Half a line would make the next one unreadable. Where that fails, too, the next state does not vouch for it.
            let _ = self.runs.set_len(self.written);
        }
    }

    /// Writes down what is about to be sent; with it all runs noted so far are in a request.
    ///
    /// On an error what was there before stays, and holds.
    pub fn write_ahead<'a>(&mut self, waiting: impl Iterator<Item = &'a Waiting>) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            return Err(io::Error::other("the list of runs cannot be written"));
        }
        let before = std::mem::replace(&mut self.state.runs_bytes, self.written);
        self.settle(waiting).inspect_err(|_| self.state.runs_bytes = before)
    }

    /// Writes down what is left to send.
    pub fn settle<'a>(&mut self, waiting: impl Iterator<Item = &'a Waiting>) -> io::Result<()> {
        let requests = waiting.map(|waiting| waiting.request.clone()).collect();
        let before = std::mem::replace(&mut self.state.requests, requests);
        self.write_state().inspect_err(|_| self.state.requests = before)
    }

    /// Adds the request of all the runs that were in none.
    pub fn complete(&mut self, waiting: Vec<Waiting>) -> io::Result<()> {
        let (requests, was) = (self.state.requests.len(), self.state.is_complete);
        self.state.requests.extend(waiting.into_iter().map(|waiting| waiting.request));
        self.state.is_complete = true;
        self.write_state().inspect_err(|_| {
            self.state.requests.truncate(requests);
            self.state.is_complete = was;
        })
    }

    /// Tells whether all runs of the process are in a request.
    pub fn is_complete(&self) -> bool {
        self.state.is_complete
    }

    /// Returns whose metrics they are.
    pub fn resource(&self) -> Resource {
        self.state.resource.clone().unwrap_or_default()
    }

    /// Returns the encoded requests that the peer has not taken, the oldest first.
    pub fn requests(&self) -> &[Vec<u8>] {
        &self.state.requests
    }

    /// Returns the runs that are in a request.
    pub fn runs(&self) -> io::Result<IdSet<RunId>> {
        let mut bytes = read_bytes(&*self.fs, &self.dir.join(RUNS), MAX_RUNS_BYTES)?;
        bytes.truncate(usize::try_from(self.state.runs_bytes).unwrap_or(usize::MAX));
        let lines = bytes.chunks_exact(LINE_BYTES);
        Ok(lines.filter_map(|line| std::str::from_utf8(&line[..LINE_BYTES - 1]).ok()?.parse().ok()).collect())
    }

    /// Deletes it: nothing is left to do for anybody.
    pub fn remove(self) -> io::Result<()> {
        remove(&*self.fs, &self.dir)
    }

    fn write_state(&self) -> io::Result<()> {
        replace(&*self.fs, &self.dir.join(STATE), &self.state.encode_whole(), false)
    }
}

/// Locks the ledger that a process is making; who looks whether it is dead has the lock for a moment.
fn own_lock(fs: &dyn Fs, dir: &Path) -> io::Result<Box<dyn FsFile>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match locked_file(fs, dir)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= until => return Err(io::ErrorKind::WouldBlock.into()),
            None => std::thread::sleep(POLL),
        }
    }
}

/// Deletes a ledger, the lock last: who finds the rest of it and can lock that goes on. The caller holds the lock.
pub(super) fn remove(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    for entry in fs.list(dir)?.into_iter().filter(|entry| entry.name != LOCK) {
        fs.remove_file(&dir.join(entry.name))?;
    }
    fs.remove_file(&dir.join(LOCK))?;
    fs.remove_dir(dir)?;
    // As long as other processes have theirs, these stay.
    let mut above = dir.ancestors().skip(1).take(2);
    let _ = above.try_for_each(|above| fs.remove_dir(above));
    Ok(())
}

/// Locks a ledger; `None` when somebody else has it, or it was removed meanwhile.
pub(super) fn locked_file(fs: &dyn Fs, dir: &Path) -> io::Result<Option<Box<dyn FsFile>>> {
    let path = dir.join(LOCK);
    let file = match fs.open(&path, Access::Create) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let is_ours = file.try_lock(true)? && file.stat()?.is_linked;
    Ok(is_ours.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    fn run(n: u8) -> RunId {
        RunId([n; 16])
    }

    fn waiting(byte: u8) -> Waiting {
        Waiting { request: vec![byte; 5], points: 1 }
    }

    fn create(dir: &Path) -> Ledger {
        Ledger::create(OsFs::shared(), dir.join("m/t/p"), &Resource::default()).unwrap()
    }

    fn take_over(dir: &Path) -> io::Result<Option<Ledger>> {
        Ledger::take_over(OsFs::shared(), dir.join("m/t/p"))
    }

    #[test]
    fn only_runs_of_a_request_that_was_written_down_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = create(dir.path());
        ledger.note(vec![run(1), run(2)]);
        ledger.write_ahead([waiting(7)].iter()).unwrap();
        ledger.note(vec![run(3)]);
        assert!(take_over(dir.path()).unwrap().is_none(), "its process lives");
        drop(ledger);
        let mut left = take_over(dir.path()).unwrap().unwrap();
        assert_eq!(left.runs().unwrap(), [run(1), run(2)].into_iter().collect());
        assert_eq!((left.requests(), left.is_complete()), ([vec![7; 5]].as_slice(), false));
        left.complete(vec![waiting(8)]).unwrap();
        drop(left);
        let left = take_over(dir.path()).unwrap().unwrap();
        assert_eq!((left.requests(), left.is_complete()), ([vec![7; 5], vec![8; 5]].as_slice(), true));
        left.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_state_that_is_damaged_or_newer_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = create(dir.path());
        ledger.write_ahead([waiting(7)].iter()).unwrap();
        let newer = State { format: 2, ..ledger.state.clone() }.encode_whole();
        drop(ledger);
        let path = dir.path().join("m/t/p/state");
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(take_over(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "bit {bit}");
        }
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(take_over(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "cut to {end}");
        }
        std::fs::write(&path, &newer).unwrap();
        assert_eq!(take_over(dir.path()).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
