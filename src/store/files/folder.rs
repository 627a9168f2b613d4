//! A run's folder as a set of files, for whoever takes it elsewhere: packed runs have one too.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::layout::{self, Layout};
use super::{requests, run_ids};
use crate::fs::Contents;
use crate::model::{RunId, RunKind};
use crate::store::StoreError;

/// One file of a run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFile {
    /// Its place in the folder: `run.yaml`, `artifacts/plan.md`.
    pub name: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    path: PathBuf,
}

impl FolderFile {
    /// Opens it for reading; no more is read than the length that was told.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(&self, layout: &Layout) -> io::Result<impl Read + use<>> {
        Ok(Contents::of(layout::open_plain(layout.fs(), &self.path)?).take(self.bytes))
    }
}

/// Returns all runs of a kind, in any order.
///
/// # Errors
///
/// [`StoreError::Io`] when the store cannot be read.
pub fn runs_of(layout: &Layout, kind: RunKind) -> Result<Vec<RunId>, StoreError> {
    run_ids(layout.fs(), &layout.runs(kind))
}

/// Returns the files of a run's folder, by name: plain ones, and those of folders in it. What is half made, and what the run was
/// asked, is no part of it.
///
/// # Errors
///
/// [`StoreError::Io`] when the folder cannot be read, or holds a folder where none belongs.
pub fn files_of(layout: &Layout, kind: RunKind, run: RunId) -> Result<Vec<FolderFile>, StoreError> {
    let mut files = Vec::new();
    // One whose first step was no agent's lies where runs without an agent do.
    let dir = layout.find_run(run)?.unwrap_or_else(|| layout.run(kind, run));
    gather(layout, &dir, Path::new(""), &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn gather(layout: &Layout, dir: &Path, place: &Path, files: &mut Vec<FolderFile>) -> Result<(), StoreError> {
    let is_top = place.as_os_str().is_empty();
    for entry in layout.fs().list(dir).map_err(StoreError::io("read", dir))? {
        if entry.name.starts_with('.') || (is_top && entry.name == requests::FOLDER) {
            continue;
        }
        let (path, name) = (dir.join(&entry.name), place.join(&entry.name));
        let found = layout.fs().stat(&path).map_err(StoreError::io("read", &path))?;
        if found.is_dir && is_top {
            gather(layout, &path, &name, files)?;
        } else if found.is_dir {
            return Err(StoreError::io("read", path)(io::Error::other("a folder has no place there")));
        } else {
            // What is no plain file is refused when it is opened.
            files.push(FolderFile { name, bytes: found.len, path });
        }
    }
    Ok(())
}
