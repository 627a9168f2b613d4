//! The operating system's file system.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::io::AsRawFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::{Access, Entry, Fs, FsFile, Stat};
use crate::sources::fork::{Alone, keep_from_children};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl OsFs {
    pub(crate) fn shared() -> Arc<dyn Fs> {
        Arc::new(Self)
    }
}

fn open_with(options: &mut fs::OpenOptions, path: &Path) -> io::Result<Box<dyn FsFile>> {
    // The standard library adds O_CLOEXEC.
    let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    Ok(Box::new(OsFile { alone: OnceLock::new(), file }))
}

fn open_to_read(path: &Path) -> io::Result<Box<dyn FsFile>> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(Box::new(OsFile { alone: OnceLock::new(), file }))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
    }
}

/// An open file of the operating system.
#[derive(Debug)]
struct OsFile {
    /// Set before it is locked: a forked child that lives on must not hold that. Let go of before the file is closed.
    alone: OnceLock<Alone>,
    file: fs::File,
}

fn stat_of(found: &fs::Metadata) -> Stat {
    Stat {
        is_dir: found.is_dir(),
        len: found.len(),
        identity: (found.dev(), found.ino()),
        is_linked: found.nlink() > 0,
        modified: u64::try_from(found.mtime()).unwrap_or(0).saturating_mul(1_000_000_000) + found.mtime_nsec() as u64,
    }
}

impl Fs for OsFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        open_with(fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600), path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => return open_to_read(path),
            Access::ReadWrite => options.write(true),
            Access::Create => options.write(true).create(true),
            Access::Append => options.append(true).create(true),
        };
        open_with(&mut options, path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, is_dir: entry.file_type().is_ok_and(|kind| kind.is_dir()) });
            }
        }
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::symlink_metadata(path).map(|found| stat_of(&found))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.set_modified(std::time::SystemTime::now())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: all zeros is a valid value of this plain C struct.
        let mut stats: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: a path that ends in a zero byte, and a struct to fill; both live through the call.
        match unsafe { libc::statvfs(path.as_ptr(), &mut stats) } {
            0 => Ok((stats.f_bavail as u64).saturating_mul(stats.f_frsize as u64)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl FsFile for OsFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.file, bytes, offset)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.file.metadata().map(|found| stat_of(&found))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        self.alone.get_or_init(|| keep_from_children(self.file.as_raw_fd()));
        let tried = if exclusive { self.file.try_lock() } else { self.file.try_lock_shared() };
        match tried {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
