//! Sealed files: the log of a run that is over, and large files that it produced, compressed with zstd.
//!
//! `NAME.zst` is one zstd frame of the bytes of `NAME`, with their length and a checksum. It is written under another name,
//! brought to the disk, read back and compared, and only then it gets its own name; the plain file goes last. Where both
//! are there the plain one holds. Matches are looked for over the whole file, since each call to a model repeats the
//! conversation before it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::StoreError;
use super::layout::{open_plain, stat};
use crate::fs::{Contents, Fs, FsFile};

/// Returns the name under which a file is sealed.
pub(super) fn sealed_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    PathBuf::from(name)
}

/// Tells whether a file is there in its sealed form alone.
pub(super) fn is_sealed(fs: &dyn Fs, path: &Path) -> Result<bool, StoreError> {
    let is_there = |path: &Path| stat(fs, path).map(|found| found.is_some()).map_err(StoreError::io("read", path));
    Ok(!is_there(path)? && is_there(&sealed_file(path))?)
}

/// An open file, read from its begin.
type Opened = Contents<Box<dyn FsFile>>;

/// A file from its begin to its end, whichever form it is in.
pub(crate) enum Content {
    /// As it is.
    Plain(Opened),
    /// Sealed.
    #[cfg(feature = "seal")]
    Sealed(Box<zstd::stream::read::Decoder<'static, io::BufReader<Opened>>>),
}

impl Content {
    /// Opens a file in the form in which it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] with `NotFound` where there is neither, and [`StoreError::Unsupported`] for a sealed one where
    /// this program was built without what reads it.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Self, StoreError> {
        // One form may take the place of the other between two looks.
        for _ in 0..2 {
            match open_plain(fs, path) {
                Ok(file) => return Ok(Self::Plain(Contents::of(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
            let sealed = sealed_file(path);
            match open_plain(fs, &sealed) {
                Ok(file) => return Self::unsealing(file, &sealed),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", sealed)(error)),
            }
        }
        Err(StoreError::io("read", path)(io::ErrorKind::NotFound.into()))
    }

    #[cfg(feature = "seal")]
    fn unsealing(file: Box<dyn FsFile>, path: &Path) -> Result<Self, StoreError> {
        let decoder = zstd::stream::read::Decoder::new(Contents::of(file)).map_err(StoreError::io("read", path))?;
        Ok(Self::Sealed(Box::new(decoder.single_frame())))
    }

    #[cfg(not(feature = "seal"))]
    fn unsealing(_: Box<dyn FsFile>, _: &Path) -> Result<Self, StoreError> {
        Err(NOT_BUILT_IN)
    }

    /// Tells whether it is read from the sealed form.
    #[cfg(feature = "seal")]
    pub fn is_sealed(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

#[cfg(not(feature = "seal"))]
const NOT_BUILT_IN: StoreError = StoreError::Unsupported {
    what: "read a sealed file",
    why: "this program was built without the feature `seal` of runspan; the command line has it",
};

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(content) => content.read(into),
            #[cfg(feature = "seal")]
            Self::Sealed(content) => content.read(into).map_err(|error| match error.raw_os_error() {
                // What the decoder says is said of what is in the file.
                None if error.kind() != io::ErrorKind::Interrupted => {
                    io::Error::new(io::ErrorKind::InvalidData, format!("it cannot be unsealed: {error}"))
                }
                _ => error,
            }),
        }
    }
}

#[cfg(feature = "seal")]
pub(super) use sealing::{For, measure, pack, seal, unseal};

#[cfg(feature = "seal")]
mod sealing {
    use std::io::{self, Read, Write};
    use std::path::Path;

    use sha2::{Digest, Sha256};
    use zstd::stream::write::Encoder;

    use super::{Content, sealed_file};
    use crate::fs::{Contents, Fs, FsFile, temporary_beside, write_full};
    use crate::model::run::LogHash;
    use crate::store::StoreError;
    use crate::store::files::layout::{open_plain, sync_dir};

    /// Higher levels take several times as long for a few percent.
    const LEVEL: i32 = 3;
    /// Matches are looked for as far back as this many bits count bytes: what any decoder takes, and more than a run has.
    const WINDOW_BITS: u32 = 27;

    /// Writes a file's bytes one behind the other.
    struct Appending<'a> {
        file: &'a dyn FsFile,
        offset: u64,
    }

    impl Write for Appending<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            write_full(self.file, bytes, self.offset)?;
            self.offset += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is sealed, and how.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum For {
        /// A log: each call to a model repeats what was said before, so that matches are looked for over all of it. It is
        /// sealed if that saves anything.
        Log,
        /// A file of any content, in a few megabytes of memory; only where that saves a twentieth at least.
        File,
    }

    impl For {
        fn is_worth_it(self, length: u64, sealed: u64) -> bool {
            match self {
                Self::Log => sealed < length,
                Self::File => sealed <= length / 20 * 19,
            }
        }
    }

    /// Tells how many bytes a file would take in its sealed form, and changes nothing; `None` where it would not be sealed.
    pub fn measure(fs: &dyn Fs, path: &Path, expected: LogHash, what: For) -> Result<Option<u64>, StoreError> {
        let plain = open_plain(fs, path).map_err(StoreError::io("read", path))?;
        let length = plain.stat().map_err(StoreError::io("read", path))?.len;
        let mut plain = Hashed { from: Contents::of(&*plain), digest: Sha256::new() };
        let sealed = compress(&mut plain, length, io::sink(), what).map_err(StoreError::io("read", path))?;
        let is_as_known = LogHash(plain.digest.finalize().into()) == expected;
        Ok(Some(sealed).filter(|sealed| is_as_known && what.is_worth_it(length, *sealed)))
    }

    /// Takes the hash of what is read.
    struct Hashed<R> {
        from: R,
        digest: Sha256,
    }

    impl<R: Read> Read for Hashed<R> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let read = self.from.read(into)?;
            self.digest.update(&into[..read]);
            Ok(read)
        }
    }

    /// Puts the sealed form of a file in its place, if it has these bytes; the caller has its lock. Returns the bytes that
    /// it takes then; `None` where sealing saves nothing.
    pub fn seal(fs: &dyn Fs, path: &Path, expected: LogHash) -> Result<Option<u64>, StoreError> {
        let (sealed, making) = (sealed_file(path), temporary_beside(&sealed_file(path)));
        let made = make(fs, path, &making, expected);
        if !matches!(made, Ok(Some(_))) {
            let _ = fs.remove_file(&making);
            return made;
        }
        let named = fs.rename(&making, &sealed).map_err(StoreError::io("write", &sealed)).and_then(|()| {
            path.parent().map_or(Ok(()), |dir| sync_dir(fs, dir))?;
            // From here on there are two that say the same.
            fs.remove_file(path).map_err(StoreError::io("delete", path))
        });
        if named.is_err() {
            let _ = fs.remove_file(&making);
        }
        named.map(|()| made.ok().flatten())
    }

    fn make(fs: &dyn Fs, path: &Path, making: &Path, expected: LogHash) -> Result<Option<u64>, StoreError> {
        let plain = open_plain(fs, path).map_err(StoreError::io("read", path))?;
        let length = plain.stat().map_err(StoreError::io("read", path))?.len;
        let file = fs.create_new(making).map_err(StoreError::io("create", making))?;
        let appending = Appending { file: &*file, offset: 0 };
        let written = compress(&mut Contents::of(&*plain), length, appending, For::Log);
        let written = written.map_err(StoreError::io("write", making))?;
        if !For::Log.is_worth_it(length, written) {
            return Ok(None);
        }
        file.sync_data().map_err(StoreError::io("sync", making))?;
        drop(file);
        let file = open_plain(fs, making).map_err(StoreError::io("read", making))?;
        let read_back = Content::unsealing(file, making).and_then(|mut content| hash(&mut content, making))?;
        if read_back != expected {
            let why = "what was sealed is not what it should be, and is left as it was".to_owned();
            return Err(StoreError::BadStore { path: path.to_owned(), why });
        }
        Ok(Some(written))
    }

    /// Puts the sealed form of a file of any content in its place, where that saves a twentieth at least; the file has
    /// these bytes. `durable`: it survives loss of power when this returns. Tells whether it did.
    ///
    /// A few megabytes of memory: a recorded program calls this. What has the sealed form's name already is never written to.
    pub fn pack(fs: &dyn Fs, path: &Path, expected: LogHash, durable: bool) -> Result<bool, StoreError> {
        let sealed = sealed_file(path);
        let file = match fs.create_new(&sealed) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(StoreError::io("create", sealed)(error)),
        };
        let packed = pack_into(fs, path, file, &sealed, expected, durable);
        if !matches!(packed, Ok(true)) {
            let _ = fs.remove_file(&sealed);
        }
        packed
    }

    fn pack_into(
        fs: &dyn Fs,
        path: &Path,
        file: Box<dyn FsFile>,
        sealed: &Path,
        expected: LogHash,
        durable: bool,
    ) -> Result<bool, StoreError> {
        let plain = open_plain(fs, path).map_err(StoreError::io("read", path))?;
        let length = plain.stat().map_err(StoreError::io("read", path))?.len;
        let appending = Appending { file: &*file, offset: 0 };
        let written = compress(&mut Contents::of(&*plain), length, appending, For::File);
        if !For::File.is_worth_it(length, written.map_err(StoreError::io("write", sealed))?) {
            return Ok(false);
        }
        if durable {
            file.sync_data().map_err(StoreError::io("sync", sealed))?;
            sealed.parent().map_or(Ok(()), |dir| sync_dir(fs, dir))?;
        }
        drop(file);
        let file = open_plain(fs, sealed).map_err(StoreError::io("read", sealed))?;
        if Content::unsealing(file, sealed).and_then(|mut content| hash(&mut content, sealed))? != expected {
            return Ok(false);
        }
        fs.remove_file(path).map_err(StoreError::io("delete", path)).map(|()| true)
    }

    /// Returns how many bytes were written.
    fn compress(plain: &mut dyn Read, length: u64, to: impl Write, what: For) -> io::Result<u64> {
        let mut encoder = Encoder::new(Counted { to, bytes: 0 }, LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(length))?;
        if what == For::Log {
            encoder.window_log(WINDOW_BITS)?;
            encoder.long_distance_matching(true)?;
        }
        io::copy(plain, &mut encoder)?;
        Ok(encoder.finish()?.bytes)
    }

    /// Counts what is written.
    struct Counted<W> {
        to: W,
        bytes: u64,
    }

    impl<W: Write> Write for Counted<W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.to.write(bytes)?;
            self.bytes += written as u64;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.to.flush()
        }
    }

    fn hash(content: &mut Content, path: &Path) -> Result<LogHash, StoreError> {
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(LogHash(digest.finalize().into())),
                Ok(read) => digest.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
        }
    }

    /// Puts the plain form of a file in the place of the sealed one; the caller has the lock of that.
    pub fn unseal(fs: &dyn Fs, path: &Path, mut content: Content) -> Result<(), StoreError> {
        let making = temporary_beside(path);
        let written = fs.create_new(&making).and_then(|file| {
            io::copy(&mut content, &mut Appending { file: &*file, offset: 0 })?;
            file.sync_data()
        });
        let named = written.and_then(|()| fs.rename(&making, path)).map_err(StoreError::io("write", path));
        if let Err(error) = named {
            let _ = fs.remove_file(&making);
            return Err(error);
        }
        path.parent().map_or(Ok(()), |dir| sync_dir(fs, dir))?;
        let sealed = sealed_file(path);
        fs.remove_file(&sealed).map_err(StoreError::io("delete", sealed))
    }
}

#[cfg(all(test, not(feature = "seal")))]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    #[test]
    fn without_what_opens_it_a_sealed_file_says_which_feature_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(sealed_file(&path), "whatever it is").unwrap();
        assert!(is_sealed(&OsFs, &path).unwrap());
        let error = Content::open(&OsFs, &path).err().unwrap();
        assert!(error.to_string().contains("feature `seal`") && error.is_closed(), "{error}");
    }
}
