//! The file operations that the journal and the files store need, as a trait.
//!
//! [`OsFs`] is the operating system's file system. Tests put another in its place that makes trouble (`faulty`), and hold
//! what is written over it to the promises of `docs/adr/0020-faults-and-what-survives-them.md`.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::model::{RunId, UnixNanos};

#[cfg(test)]
pub(crate) mod faulty;
mod limit;
mod os;
#[cfg(test)]
pub(crate) mod seeds;

pub(crate) use limit::{BearFileLimit, descriptors};
pub use os::OsFs;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading. What is no regular file is refused, and never waited for.
    Read,
    /// For reading and writing.
    ReadWrite,
    /// For reading and writing; an empty file is made when there is none.
    Create,
    /// For reading, and for [`FsFile::append`]; an empty file is made when there is none.
    Append,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last part of its path.
    pub name: String,
    /// Is it a directory itself?
    pub is_dir: bool,
}

/// Tells files apart: device and inode.
pub type Identity = (u64, u64);

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Is it a directory itself, and not a link to one?
    pub is_dir: bool,
    /// Size in bytes.
    pub len: u64,
    /// Which one it is.
    pub identity: Identity,
    /// Does it still have a name?
    pub is_linked: bool,
    /// When it was changed last, in nanoseconds since 1970; some clocks of file systems are coarse.
    pub modified: u64,
}

/// A file system.
///
/// Whatever it creates belongs to the user alone (at most 0700 and 0600), is not inherited over `exec`, and symbolic
/// links in the last place of a path are not followed. Each call is at most a few calls to the system, and none is
/// tried again: an operation whose failure leaves something undecided, above all a sync, is the caller's to judge.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Makes a directory; fails with `AlreadyExists` when something of that name is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file and opens it for reading and writing; fails with `AlreadyExists` when there is one.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>>;
    /// Returns what is in a directory, in any order; names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Returns what stands at a path.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Gives a file or a directory another name, in place of a file or an empty directory that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails with `AlreadyExists` when something has it.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Deletes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Deletes a directory with all that is in it. After an error some of it may be gone.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Brings names made and deleted in a directory to the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Lets a directory say that it was changed now.
    fn touch(&self, path: &Path) -> io::Result<()>;
    /// Returns how many bytes can still be written to the disk that a directory is on.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait FsFile: fmt::Debug + Send + Sync {
    /// Reads at an offset; fewer bytes than asked for are no error, 0 means the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset and returns how many bytes were taken.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Writes at the end, wherever others have moved it, and returns how many bytes were taken.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Brings content and size to the disk.
    ///
    /// Once this has failed, what was written before may be lost even if a later call works: the system tells of a page
    /// that it could not write once and then forgets it. Only what is written again is brought to the disk by the next.
    fn sync_data(&self) -> io::Result<()>;
    /// Returns what is known of the file.
    fn stat(&self) -> io::Result<Stat>;
    /// Cuts or extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes a lock that lasts until the file is closed; `false` when another open file holds one against it.
    fn try_lock(&self, exclusive: bool) -> io::Result<bool>;
}

/// Tells whether the disk is full, or the quota used up, or the file as large as it may get.
pub(crate) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Reads up to `into.len()` bytes at an offset, fewer only at the end of the file.
pub(crate) fn read_full(file: &dyn FsFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
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
pub(crate) fn write_full(file: &dyn FsFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all(bytes, |rest, done| file.write_at(rest, offset + done as u64))
}

/// Writes all bytes at the end. What others append meanwhile may come to stand between two parts.
pub(crate) fn append_full(file: &dyn FsFile, bytes: &[u8]) -> io::Result<()> {
    write_all(bytes, |rest, _| file.append(rest))
}

fn write_all(bytes: &[u8], mut write: impl FnMut(&[u8], usize) -> io::Result<usize>) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write(&bytes[done..], done) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads an open file, borrowed or owned, from its begin to its end.
#[derive(Debug)]
pub(crate) struct Contents<F> {
    file: F,
    offset: u64,
}

impl<'a, F: Deref<Target = dyn FsFile + 'a>> Contents<F> {
    pub fn of(file: F) -> Self {
        Self::behind(file, 0)
    }

    /// Reads from an offset on.
    pub fn behind(file: F, offset: u64) -> Self {
        Self { file, offset }
    }
}

impl<'a, F: Deref<Target = dyn FsFile + 'a>> io::Read for Contents<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Makes a file with its content. `durable`: that survives loss of power.
pub(crate) fn write_whole(fs: &dyn Fs, path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let file = fs.create_new(path)?;
    write_full(&*file, content, 0)?;
    if durable { file.sync_data() } else { Ok(()) }
}

/// Replaces a file, whole or not at all. `durable`: survives loss of power as well.
pub(crate) fn replace(fs: &dyn Fs, path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let replaced = write_whole(fs, &temporary, content, durable).and_then(|()| {
        fs.rename(&temporary, path)?;
        match path.parent() {
            Some(dir) if durable => fs.sync_dir(dir),
            _ => Ok(()),
        }
    });
    if replaced.is_err() {
        let _ = fs.remove_file(&temporary);
    }
    replaced
}

/// Names a file beside another that no reader takes for anything.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or(OsStr::new("file")).to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.{}.tmp", RunId::fresh(UnixNanos::now())))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bytes(fs: &dyn Fs, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path, Access::Read)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(Contents::of(&*file), limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Makes a directory and those above it that are missing.
pub(crate) fn create_dirs(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    match fs.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) else { return Err(error) };
            create_dirs(fs, above)?;
            // Not from the start again: in `/proc`, say, a name cannot be made below a directory that is there.
            or_there(fs, dir, fs.create_dir(dir))
        }
        made => or_there(fs, dir, made),
    }
}

/// Takes a directory that was there already for one that was made; a link to one is as good.
fn or_there(fs: &dyn Fs, dir: &Path, made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs.stat(&dir.join(".")).is_ok_and(|found| found.is_dir) { Ok(()) } else { Err(error) }
        }
        made => made,
    }
}

/// Brings the names to the disk by which a directory is reached, wherever they may have been made a moment ago.
///
/// Directories above that this user may not read, or whose file system knows no such thing, are not of our making.
pub(crate) fn sync_way_to(fs: &dyn Fs, dir: &Path) -> Result<(), (PathBuf, io::Error)> {
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs.sync_dir(above) {
            Err(error) if is_not_ours(&error) => break,
            synced => synced.map_err(|error| (above.to_owned(), error))?,
        }
    }
    Ok(())
}

fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported)
}

/// Brings the first `len` bytes of a file to the disk that somebody else wrote, who may have died over it.
///
/// They are written once more: a sync that failed under the other leaves bytes that can be read and that no later sync
/// brings to the disk.
pub(crate) fn write_again(file: &dyn FsFile, len: u64) -> io::Result<()> {
    let (mut chunk, mut offset) = (vec![0; 1 << 16], 0);
    while offset < len {
        let wanted = chunk.len().min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        let read = read_full(file, &mut chunk[..wanted], offset)?;
        if read == 0 {
            break;
        }
        write_full(file, &chunk[..read], offset)?;
        offset += read as u64;
    }
    file.sync_data()
}
