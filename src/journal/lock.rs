//! The lock that says whether a journal's writer lives.
//!
//! It is an exclusive `flock` on the file `lock`, held through a descriptor for the life of the process. The kernel
//! drops it when the process ends in any way, so a stale lock cannot exist and no process id is ever asked.
//!
//! The lock belongs to the open file, which `fork` shares with the child. A child that held on to it would make its
//! dead parent look alive, so the handler of `fork` takes the file from it (see `sources::fork`), and `exec` closes
//! it. The writer itself refuses to work in a child. Nothing here ever unlocks by `LOCK_UN`, which would take the lock
//! from the parent too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::JournalError;
use crate::fs::{Access, Fs, FsFile};

pub(super) const LOCK: &str = "lock";
/// What a server holds as well for as long as it serves: a command that takes in what a dead one left holds the other alone.
#[cfg(feature = "server")]
pub(super) const SERVING: &str = "serving";
/// What an import holds beside that while it goes on with the journal of a server before: a server that starts waits for it.
#[cfg(feature = "server")]
pub(super) const IMPORTING: &str = "importing";
/// How long a lock is waited for. Somebody who only asks whether the writer lives holds it for microseconds; so does,
/// after it was let go of, a program that is being started meanwhile, until its `exec`.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
pub(crate) const POLL: Duration = Duration::from_millis(2);

/// The writer's lock; dropping it closes the file and so frees it.
#[derive(Debug)]
pub(super) struct Lock {
    _held: Box<dyn FsFile>,
}

impl Lock {
    /// Makes the lock file in a directory that is still unknown to others, and takes the lock.
    pub(super) fn create(fs: &dyn Fs, dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(LOCK);
        let file = fs.create_new(&path).map_err(JournalError::io("create", &path))?;
        Self::take(fs, &path, file)
    }

    /// Takes the lock of a dead writer.
    ///
    /// # Errors
    ///
    /// [`JournalError::Locked`] when the writer lives, [`JournalError::NotFound`] when there is no such journal (any
    /// more).
    pub(super) fn adopt(fs: &dyn Fs, dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(LOCK);
        let open = || match fs.open(&path, Access::Create) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(JournalError::NotFound { path: dir.to_owned() })
            }
            opened => opened.map_err(JournalError::io("open", &path)),
        };
        Self::take_patiently(fs, &path, open)
    }

    fn take_patiently(
        fs: &dyn Fs,
        path: &Path,
        open: impl Fn() -> Result<Box<dyn FsFile>, JournalError>,
    ) -> Result<Self, JournalError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Self::take(fs, path, open()?) {
                Err(JournalError::Locked { .. }) if Instant::now() < until => std::thread::sleep(POLL),
                taken => return taken,
            }
        }
    }

    /// Takes the lock that says that a server, or an import, is at work on the journal in a directory.
    #[cfg(feature = "server")]
    pub(super) fn serve(fs: &dyn Fs, dir: &Path, name: &str) -> Result<Self, JournalError> {
        let path = dir.join(name);
        let open = || fs.open(&path, Access::Create).map_err(JournalError::io("create", &path));
        Self::take_patiently(fs, &path, open)
    }

    fn take(fs: &dyn Fs, path: &Path, file: Box<dyn FsFile>) -> Result<Self, JournalError> {
        if !file.try_lock(true).map_err(JournalError::io("lock", path))? {
            return Err(JournalError::Locked { path: path.to_owned() });
        }
        // The journal may have been removed between opening and locking; then this is the lock of nothing.
        let same = match (file.stat(), fs.stat(path)) {
            (Ok(held), Ok(named)) => held.identity == named.identity,
            _ => false,
        };
        if same { Ok(Self { _held: file }) } else { Err(JournalError::NotFound { path: path.to_owned() }) }
    }
}

/// Is the lock in `dir` held? A directory without a lock file has no living writer.
pub(crate) fn is_held(fs: &dyn Fs, dir: &Path) -> Result<bool, JournalError> {
    is_file_held(fs, dir.join(LOCK))
}

/// Is a server at work on the journal in `dir`?
#[cfg(feature = "server")]
pub(super) fn is_served(fs: &dyn Fs, dir: &Path) -> Result<bool, JournalError> {
    is_file_held(fs, dir.join(SERVING))
}

/// Tells whether an import goes on with the journal in a directory.
#[cfg(feature = "server")]
pub(super) fn is_imported_into(fs: &dyn Fs, dir: &Path) -> Result<bool, JournalError> {
    is_file_held(fs, dir.join(IMPORTING))
}

fn is_file_held(fs: &dyn Fs, path: PathBuf) -> Result<bool, JournalError> {
    match fs.open(&path, Access::Read) {
        Ok(file) => Ok(!file.try_lock(false).map_err(JournalError::io("lock", &path))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(JournalError::io("open", &path)(error)),
    }
}
