//! What can go wrong with a journal.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal operation failed.
#[derive(Debug)]
pub enum JournalError {
    /// The operating system refused.
    Io {
        /// What was tried, as a verb: `write`, `sync`, `open`.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process or reader name that could not be a file name everywhere.
    BadName {
        /// The name.
        name: String,
        /// The most characters it may have.
        max: usize,
    },
    /// There is a journal of this process already.
    Exists {
        /// Its directory.
        path: PathBuf,
    },
    /// There is no journal of this process.
    NotFound {
        /// Where it would be.
        path: PathBuf,
    },
    /// Somebody else holds the lock: a living writer, or a reader of the same name.
    Locked {
        /// The locked file.
        path: PathBuf,
    },
    /// Written by a newer runspan; nothing was changed.
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        version: u16,
        /// The newest version understood here.
        supported: u16,
    },
    /// The segments have reached the bound; room comes when readers have passed and segments are removed.
    Full {
        /// Bytes on disk and waiting.
        bytes: u64,
        /// The bound in bytes.
        max_bytes: u64,
    },
    /// Too many frames wait for a commit; commit first.
    BufferFull {
        /// Bytes waiting.
        buffered_bytes: usize,
        /// The bound in bytes.
        max_bytes: usize,
    },
    /// The payload is larger than a frame can be.
    PayloadTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The bound in bytes.
        max_bytes: usize,
    },
    /// A kind that cannot be appended: 0, or a resource, which is registered instead.
    BadKind {
        /// The kind's number.
        kind: u8,
    },
    /// The resource was never registered, or so long ago that it was forgotten; register it again.
    UnknownResource {
        /// The id that was given.
        resource: u32,
    },
    /// The files were deleted under the writer.
    Removed {
        /// The segment that is no longer in its directory.
        path: PathBuf,
    },
    /// This process is a forked child; the journal belongs to its parent.
    Forked,
    /// A reader acknowledged what it had not been given.
    NotDelivered {
        /// The number it acknowledged.
        seq: u64,
        /// The last number it was given.
        delivered: u64,
    },
    /// The reader was opened read-only and has no position to move.
    ReadOnly,
    /// A journal was to be removed that a reader has not read to its end.
    NotPassed {
        /// The reader.
        reader: String,
        /// The last number it is done with.
        position: u64,
        /// The journal's last number.
        last_seq: u64,
    },
}

impl JournalError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Is the disk full, the quota used up, or the file as large as it may get?
    pub fn is_out_of_space(&self) -> bool {
        self.cause().is_some_and(crate::fs::is_out_of_space)
    }

    /// Has the journal reached its own bound?
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Would a commit make room?
    pub fn is_buffer_full(&self) -> bool {
        matches!(self, Self::BufferFull { .. })
    }

    /// Does somebody else hold it?
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    /// Is the journal, or the directory it was in, gone?
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Removed { .. })
            || self.cause().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Does it take a newer runspan to read this?
    pub fn is_newer_format(&self) -> bool {
        matches!(self, Self::NewerFormat { .. })
    }

    /// May the same call work later, without anything being changed by the caller?
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Locked { .. } | Self::Full { .. } | Self::BufferFull { .. })
            && !self.is_gone()
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, source } => write!(f, "cannot {operation} {}: {source}", path.display()),
            Self::BadName { name, max } => {
                write!(f, "{name:?} is not a name of 1 to {max} letters, digits, '_' and '-'")
            }
            Self::Exists { path } => write!(f, "there is a journal already at {}", path.display()),
            Self::NotFound { path } => write!(f, "no journal at {}", path.display()),
            Self::Locked { path } => write!(f, "{} is locked by another", path.display()),
            Self::NewerFormat { path, version, supported } => write!(
                f,
                "{} has format version {version}, newer than {supported}; read it with a newer runspan",
                path.display()
            ),
            Self::Full { bytes, max_bytes } => write!(f, "the journal is full: {bytes} of {max_bytes} bytes"),
            Self::BufferFull { buffered_bytes, max_bytes } => {
                write!(f, "{buffered_bytes} bytes wait for a commit, at most {max_bytes} may")
            }
            Self::PayloadTooLarge { bytes, max_bytes } => {
                write!(f, "a payload of {bytes} bytes, at most {max_bytes} fit into a frame")
            }
            Self::BadKind { kind } => write!(f, "frames of kind {kind} are not appended"),
            Self::UnknownResource { resource } => write!(f, "resource {resource} is not registered"),
            Self::Removed { path } => write!(f, "{} was deleted while in use", path.display()),
            Self::Forked => f.write_str("the journal belongs to the process that this one was forked from"),
            Self::NotDelivered { seq, delivered } => {
                write!(f, "frame {seq} acknowledged, but frames were given up to {delivered} only")
            }
            Self::ReadOnly => f.write_str("the reader was opened read-only"),
            Self::NotPassed { reader, position, last_seq } => {
                write!(f, "reader {reader} is at frame {position} of {last_seq}")
            }
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().map(|cause| cause as _)
    }
}
