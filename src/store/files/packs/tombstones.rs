//! What has gone from a pack: a file of tombstones beside it, and the lock under which that changes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::format::{self, Gone, Indexed, TOMBSTONE};
use super::pack::Pack;
use crate::fs::{Access, Fs, FsFile, Identity, append_full, read_full};
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
    /// Which file was read, and how far.
    read: Option<(Identity, u64)>,
    graves: Arc<Graves>,
    /// Records that are not as they were written.
    damaged: u64,
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
        let path = self.tombstones_path();
        let found = match fs.stat(&path) {
            // The two go together, the pack first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs.stat(&self.path)?;
                *buried = Buried::default();
                return Ok(Arc::clone(&buried.graves));
            }
            found => found?,
        };
        if buried.read == Some((found.identity, found.len)) {
            return Ok(Arc::clone(&buried.graves));
        }
        if found.len > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("what has gone from it is told in {} bytes", found.len),
            ));
        }
        match fs.open(&path, Access::Read) {
            Ok(file) => buried.take_in(self.id, &*file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs.stat(&self.path)?;
                *buried = Buried::default();
            }
            Err(error) => return Err(error),
        }
        Ok(Arc::clone(&buried.graves))
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
        Ok(Some(Locked { pack: self, _held: file }))
    }
}

impl Buried {
    fn take_in(&mut self, pack: RunId, file: &dyn FsFile) -> io::Result<()> {
        let found = file.stat()?;
        let known = self.read.filter(|(identity, len)| *identity == found.identity && *len <= found.len);
        if known.is_none() {
            *self = Self::default();
        }
        // A record that was torn is read again once it is whole.
        let from = known.map_or(0, |(_, len)| len - len % TOMBSTONE as u64);
        let mut bytes = vec![0; usize::try_from(found.len - from).unwrap_or(0)];
        let read = read_full(file, &mut bytes, from)?;
        let mut records = bytes[..read].chunks_exact(TOMBSTONE);
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
        self.read = Some((found.identity, from + read as u64));
        Ok(())
    }
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
        let (path, now) = (self.pack.tombstones_path(), UnixNanos::now().0);
        let file = fs.open(&path, Access::Append)?;
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
