//! A file system on which somebody else does something between two steps.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::fs::{Access, Entry, Fs, FsFile, Stat};

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A folder has been read, and what is in it not yet.
    Listed,
    /// A pack is about to be opened.
    OpensPack,
    /// So many files and folders were asked for.
    Asked(u64),
    /// So many were made, renamed or removed; a folder with what is in it is removed piece by piece.
    Changed(u64),
}

/// A file system on which something is done, once.
pub struct Between<'a> {
    pub fs: Arc<dyn Fs>,
    pub when: When,
    asked: AtomicU64,
    changed: AtomicU64,
    pub then: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl<'a> Between<'a> {
    pub fn new(fs: Arc<dyn Fs>, when: When, then: impl FnOnce() + Send + 'a) -> Self {
        let (asked, changed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { fs, when, asked, changed, then: Mutex::new(Some(Box::new(then))) }
    }

    /// Tells whether it has been done.
    pub fn is_done(&self) -> bool {
        self.then.lock().unwrap().is_none()
    }

    fn ask(&self) {
        self.come_to(When::Asked(self.asked.fetch_add(1, Ordering::Relaxed)));
    }

    fn change(&self) {
        self.come_to(When::Changed(self.changed.fetch_add(1, Ordering::Relaxed)));
    }

    fn come_to(&self, when: When) {
        let then = if self.when == when { self.then.lock().unwrap().take() } else { None };
        if let Some(then) = then {
            then();
        }
    }
}

impl std::fmt::Debug for Between<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fs.fmt(f)
    }
}

impl Fs for Between<'_> {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.ask();
        let listed = self.fs.list(dir);
        self.come_to(When::Listed);
        listed
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        self.ask();
        if path.extension().is_some_and(|end| end == "pack") {
            self.come_to(When::OpensPack);
        }
        self.fs.open(path, access)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change();
        self.fs.create_dir(path)
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.change();
        self.fs.create_new(path)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.ask();
        self.fs.stat(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change();
        self.fs.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change();
        self.fs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change();
        self.fs.remove_dir(path)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        if !matches!(self.when, When::Changed(_)) {
            return self.fs.remove_tree(path);
        }
        for entry in self.fs.list(path)? {
            let path = path.join(&entry.name);
            if entry.is_dir { self.remove_tree(&path) } else { self.remove_file(&path) }?;
        }
        self.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.sync_dir(path)
    }
    fn touch(&self, path: &Path) -> io::Result<()> {
        self.fs.touch(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.fs.free_bytes(dir)
    }
}
