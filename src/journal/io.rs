//! The file operations a journal needs, as a trait, so that tests can put trouble between it and the disk.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::io::AsRawFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::sources::fork::{Alone, keep_from_children};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
    /// For reading and writing; an empty file is made when there is none.
    Create,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last part of its path.
    pub name: String,
    /// Is it a directory itself?
    pub is_dir: bool,
}

/// A file system.
///
/// Whatever it creates belongs to the user alone (0700 and 0600, whatever the umask), is not inherited over `exec`,
/// and symbolic links in the last place of a path are not followed.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Makes a directory; fails with `AlreadyExists` when there is one.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file and opens it for reading and writing; fails with `AlreadyExists` when there is one.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>>;
    /// Returns what is in a directory, in any order; names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Returns a file's size in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Returns which file stands at a path, to compare with [`FsFile::identity`].
    fn identity(&self, path: &Path) -> io::Result<Identity>;
    /// Gives a file or a directory another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Deletes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Brings names made and deleted in a directory to the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait FsFile: fmt::Debug + Send + Sync {
    /// Reads at an offset; fewer bytes than asked for are no error, 0 means the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset and returns how many bytes were taken.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Brings content and size to the disk.
    fn sync_data(&self) -> io::Result<()>;
    /// Returns the size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes a lock that lasts until the file is closed; `false` when another open file holds one against it.
    fn try_lock(&self, exclusive: bool) -> io::Result<bool>;
    /// Returns which file this is.
    fn identity(&self) -> io::Result<Identity>;
    /// Does the file still have a name?
    fn is_linked(&self) -> io::Result<bool>;
}

/// Tells files apart: device and inode.
pub type Identity = (u64, u64);

/// Reads up to `into.len()` bytes at an offset, fewer only at the end of the file.
pub(super) fn read_full(file: &dyn FsFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes at an offset; one call to the system unless that is interrupted or takes only a part.
pub(super) fn write_full(file: &dyn FsFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdFs;

impl StdFs {
    pub(super) fn shared() -> Arc<dyn Fs> {
        Arc::new(Self)
    }
}

fn open_with(options: &mut fs::OpenOptions, path: &Path) -> io::Result<Box<dyn FsFile>> {
    // The standard library adds O_CLOEXEC.
    let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    Ok(Box::new(StdFile { alone: OnceLock::new(), file }))
}

/// An open file of the operating system.
#[derive(Debug)]
struct StdFile {
    /// Set before it is locked: a forked child that lives on must not hold that. Let go of before the file is closed.
    alone: OnceLock<Alone>,
    file: fs::File,
}

fn for_user_only(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

impl Fs for StdFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        // A umask that takes from the user too would lock us out of our own directory.
        for_user_only(path, 0o700)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let file = open_with(fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600), path)?;
        for_user_only(path, 0o600)?;
        Ok(file)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        if access == Access::Create {
            match self.create_new(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
        open_with(fs::OpenOptions::new().read(true).write(access != Access::Read), path)
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

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::symlink_metadata(path)?.len())
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        let found = fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

impl FsFile for StdFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.file, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
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

    fn identity(&self) -> io::Result<Identity> {
        let found = self.file.metadata()?;
        Ok((found.dev(), found.ino()))
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }
}
