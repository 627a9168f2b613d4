//! Who uses a database, so that nobody deletes it under them.
//!
//! SQLite does not survive that the file, or what it puts beside it, goes away and another comes in its place: the pages of
//! one get into the other. So whoever has one open holds its lock with others, and whoever deletes one holds it alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that is held is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long who opens a database waits for one who deletes it, which takes no longer than that.
const MOMENT: Duration = Duration::from_secs(1);

/// Held while a database is open; `None` where no lock can be had, in a store that this process may not write.
#[derive(Debug)]
pub(super) struct Using(#[expect(dead_code, reason = "it is held")] Option<File>);

impl Using {
    /// Nobody else sees it.
    pub(super) const ALONE: Self = Self(None);

    /// Waits until nobody deletes the database.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let Some(file) = open(database)? else { return Ok(Self::ALONE) };
        wait(|| file.try_lock_shared(), MOMENT)?;
        Ok(Self(Some(file)))
    }

    /// Waits until nobody has the database open, and keeps it so while the value lives; fails when that takes longer than `patience`.
    pub(super) fn none(database: &Path, patience: Duration) -> io::Result<Self> {
        let Some(file) = open(database)? else { return Ok(Self::ALONE) };
        wait(|| file.try_lock(), patience)?;
        Ok(Self(Some(file)))
    }
}

/// Returns where the lock of a database is. It stays: a lock that is deleted keeps out only who had it open.
fn lock_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

fn open(database: &Path) -> io::Result<Option<File>> {
    let path = lock_of(database);
    // For reading, too: NFS gives a lock with others to nobody else.
    match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path) {
        Ok(file) => Ok(Some(file)),
        // Who may not write the store deletes nothing in it.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(File::open(path).ok())
        }
        Err(error) => Err(error),
    }
}

fn wait(lock: impl Fn() -> Result<(), TryLockError>, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is using it"));
            }
            // Where there are no locks.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
}
