//! One process at a time gives runs their names in a store.
//!
//! A run is there once its folder has its name, or a pack with it has. Several processes may get spans of one trace, which make a run of
//! the same id: a server and an import, say. Each looks whether it is there before it makes it, and what it has made may wait for a pack. So
//! who is about to give a name takes a turn, and looks again where another has had one since.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::StoreError;
use crate::fs::{self, Access, Fs, FsFile, read_full, write_full};
use crate::model::RunId;
use crate::sources::fork::{HeldOff, hold_off};

/// A turn takes as long as a rename and a few looks. Who waits for longer goes on without one: whoever has it does not run.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// The right to give names, until it is dropped.
pub(super) struct Turn {
    /// The file first: a child that is forked in between would hold on to the lock.
    _file: Option<Box<dyn FsFile>>,
    _held_off: HeldOff,
    /// Another process may have had a turn since the last one of this writer.
    pub is_after_others: bool,
}

impl Turn {
    /// Takes a turn for a writer. `path`: the file whose lock it is, and which says who had the last one.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn take(fs: &dyn Fs, path: &Path, writer: RunId) -> Result<Self, StoreError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let held_off = hold_off();
            let file = match open(fs, path) {
                // Who may not open it is another user; what can be known without it is.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
                opened => Some(opened.map_err(StoreError::io("open", path))?),
            };
            // Where there are no locks, the looks have to do.
            if !file.as_ref().is_some_and(|file| matches!(file.try_lock(true), Ok(false))) {
                let is_after_others = !file.as_ref().is_some_and(|file| was_last(&**file, writer));
                return Ok(Self { _file: file, _held_off: held_off, is_after_others });
            }
            drop((file, held_off));
            if Instant::now() >= until {
                return Ok(Self { _file: None, _held_off: hold_off(), is_after_others: true });
            }
            std::thread::sleep(POLL);
        }
    }
}

fn open(fs: &dyn Fs, path: &Path) -> io::Result<Box<dyn FsFile>> {
    match fs.open(path, Access::Create) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dirs(fs, path.parent().unwrap_or(path))?;
            fs.open(path, Access::Create)
        }
        opened => opened,
    }
}

/// Tells whether a writer had the last turn, and notes that it has this one. What cannot be noted leaves another's name there, or half of one.
fn was_last(file: &dyn FsFile, writer: RunId) -> bool {
    let mut last = [0; 16];
    let is_read = matches!(read_full(file, &mut last, 0), Ok(16));
    let was_last = is_read && last == writer.0;
    if !was_last {
        let _ = write_full(file, &writer.0, 0);
    }
    was_last
}
