//! What has gone from a pack: a file of tombstones beside it, and the lock under which that changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::format::{self, Gone, Indexed, TOMBSTONE};
use super::pack::Pack;
use super::room;
use crate::fs::{Access, Fs, FsFile, Identity, Stat, append_full, read_full};
use crate::model::id::IdMap;
use crate::model::{RunId, UnixNanos};
use crate::sources::fork::hold_off;

/// Far more than the runs of a pack need.
const LONGEST: u64 = 64 << 20;

/// The runs that a file of tombstones names, and why.
pub(crate) type Graves = IdMap<RunId, Gone>;

/// What is known of a file of tombstones.
#[derive(Debug, Default)]
pub struct Buried {
    /// What was read.
    read: Option<ReadUpTo>,
    graves: Arc<Graves>,
    /// Records that are not as they were written.
    damaged: u64,
}

/// Which file of tombstones was read, and how far. What another could not bring to the disk it takes back, so that other
/// bytes may stand there later.
#[derive(Clone, Copy, Debug)]
struct ReadUpTo {
    identity: Identity,
    len: u64,
    modified: u64,
    /// The last of its records that was whole.
    last: [u8; TOMBSTONE],
}

impl ReadUpTo {
    /// Where the record stands that is not known yet, or was torn and may be whole by now.
    fn next(&self) -> u64 {
        self.len - self.len % TOMBSTONE as u64
    }

    /// Tells whether nothing has been done to the file since.
    fn is_all(&self, found: &Stat) -> bool {
        (self.identity, self.len, self.modified) == (found.identity, found.len, found.modified)
    }

    /// Tells whether what was read stands in the file still, and more may behind it.
    fn is_begin_of(&self, file: &dyn FsFile, found: &Stat) -> io::Result<bool> {
        let Some(at) = self.next().checked_sub(TOMBSTONE as u64) else { return Ok(false) };
        let mut last = [0; TOMBSTONE];
        // Each has the moment at which it was written.
        Ok(self.identity == found.identity
            && self.len <= found.len
            && read_full(file, &mut last, at)? == TOMBSTONE
            && last == self.last)
    }
}

impl Pack {
    pub(super) fn tombstones_path(&self) -> PathBuf {
        self.path.with_extension("del")
    }

    /// Returns the runs that are not in it any more. Only what has been added since the last time is read.
    ///
    /// # Errors
    ///
    /// `NotFound` where the pack itself has gone: what is in it has to be looked for anew.
    pub fn gone(&self, fs: &dyn Fs) -> io::Result<Arc<Graves>> {
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read_tombstones(fs, &mut buried) {
            // The two go together, the pack first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs.stat(&self.path)?;
                *buried = Buried::default();
            }
            read => read?,
        }
        Ok(Arc::clone(&buried.graves))
    }

    fn read_tombstones(&self, fs: &dyn Fs, buried: &mut Buried) -> io::Result<()> {
        let path = self.tombstones_path();
        let found = fs.stat(&path)?;
        if buried.read.is_some_and(|read| read.is_all(&found)) {
            return Ok(());
        }
        if found.len > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("what has gone from it is told in {} bytes", found.len),
            ));
        }
        buried.take_in(self.id, &*fs.open(&path, Access::Read)?)
    }

    /// Tells how many tombstones of it are not as they were written.
    pub fn damaged_tombstones(&self, fs: &dyn Fs) -> io::Result<u64> {
        // From the begin: what was read in good order may have changed since.
        *self.buried.lock().unwrap_or_else(PoisonError::into_inner) = Buried::default();
        self.gone(fs)?;
        Ok(self.buried.lock().unwrap_or_else(PoisonError::into_inner).damaged)
    }

    /// Returns the entries that are in it still.
    pub fn living(&self, fs: &dyn Fs) -> io::Result<Vec<Indexed>> {
        let gone = self.gone(fs)?;
        Ok(self.entries(fs)?.into_iter().filter(|entry| !gone.contains_key(&entry.run)).collect())
    }

    /// Takes the lock under which runs go out of it; `None` while another has it.
    ///
    /// # Errors
    ///
    /// `NotFound` where the pack has gone, besides what the file system says.
    pub fn lock(&self, fs: &dyn Fs) -> io::Result<Option<Locked<'_>>> {
        let _held_off = hold_off();
        let file = fs.open(&self.path, Access::Read)?;
        if !file.try_lock(true)? {
            return Ok(None);
        }
        // Who had the lock before may have taken it away.
        if fs.stat(&self.path)?.identity != file.stat()?.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What is done under it is done for good: it goes by what stands in the file, and by nothing that was read before.
        *self.buried.lock().unwrap_or_else(PoisonError::into_inner) = Buried::default();
        Ok(Some(Locked { pack: self, _held: file }))
    }
}

impl Buried {
    /// Knows what does not stand in the file, as if that had stood there and been taken back without a trace.
    #[cfg(test)]
    pub(super) fn pretend(&mut self, graves: Graves) {
        self.graves = Arc::new(graves);
    }

    fn take_in(&mut self, pack: RunId, file: &dyn FsFile) -> io::Result<()> {
        let found = file.stat()?;
        let known = match self.read {
            Some(read) if read.is_begin_of(file, &found)? => Some(read),
            _ => None,
        };
        if known.is_none() {
            *self = Self::default();
        }
        let from = known.map_or(0, |read| read.next());
        let mut bytes = vec![0; usize::try_from(found.len - from).unwrap_or(0)];
        let read = read_full(file, &mut bytes, from)?;
        let mut records = bytes[..read].chunks_exact(TOMBSTONE);
        let last = records.clone().next_back().and_then(|record| record.try_into().ok());
        if from == 0
            && let Some(head) = records.next()
        {
            self.damaged += u64::from(!format::is_tombstones_head(head, pack));
        }
        let graves = Arc::make_mut(&mut self.graves);
        for record in records {
            let (run, why, is_good) = format::read_tombstone(record, pack);
            self.damaged += u64::from(!is_good);
            graves.insert(run, why);
        }
        self.read = last.or(known.map(|read| read.last)).map(|last| ReadUpTo {
            identity: found.identity,
            len: from + read as u64,
            modified: found.modified,
            last,
        });
        Ok(())
    }
}

/// Returns the runs that a file of tombstones names whose pack is missing; `None` where some of them are not as they were
/// written.
pub(super) fn named_by(fs: &dyn Fs, path: &Path, pack: RunId) -> io::Result<Option<Vec<RunId>>> {
    let mut buried = Buried::default();
    buried.take_in(pack, &*fs.open(path, Access::Read)?)?;
    Ok((buried.damaged == 0).then(|| buried.graves.keys().copied().collect()))
}

/// A pack of which nobody else lets runs go.
#[derive(Debug)]
pub struct Locked<'a> {
    pub pack: &'a Pack,
    _held: Box<dyn FsFile>,
}

impl Locked<'_> {
    /// Notes that runs are not in it any more, all with one write: they are not once this returns, whatever happens.
    pub fn bury(&self, fs: &dyn Fs, runs: &[RunId], why: Gone) -> io::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let path = self.pack.tombstones_path();
        let need = ((runs.len() + 1) * TOMBSTONE) as u64;
        let dir = path.parent().unwrap_or(Path::new(""));
        room::with_room(fs, dir, need, || self.append(fs, &path, runs, why))
    }

    fn append(&self, fs: &dyn Fs, path: &Path, runs: &[RunId], why: Gone) -> io::Result<()> {
        let now = UnixNanos::now().0;
        let file = fs.open(path, Access::Append)?;
        let len = file.stat()?.len;
        // A record that was torn says nothing, and the next begins where one may.
        let whole = len - len % TOMBSTONE as u64;
        if whole != len {
            file.set_len(whole)?;
        }
        let mut records = Vec::with_capacity((runs.len() + 1) * TOMBSTONE);
        if whole == 0 {
            records.extend_from_slice(&format::tombstones_head(self.pack.id, now));
        }
        for run in runs {
            records.extend_from_slice(&format::tombstone(self.pack.id, *run, now, why));
        }
        if let Err(error) = append_full(&*file, &records).and_then(|()| file.sync_data()) {
            // All of them or none: what this says is counted.
            let _ = file.set_len(whole);
            return Err(error);
        }
        if whole == 0 {
            path.parent().map_or(Ok(()), |dir| fs.sync_dir(dir))?;
        }
        Ok(())
    }

    /// Takes the pack out of sight, with all that is in it. What is left has a name that no reader takes for a pack.
    pub fn hide(&self, fs: &dyn Fs) -> io::Result<()> {
        fs.rename(&self.pack.path, &self.pack.path.with_file_name(format!(".gone-{}.pack", self.pack.id)))
    }
}
