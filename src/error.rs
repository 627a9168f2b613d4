//! Why the recorder could not be set up.

use std::fmt;
use std::path::PathBuf;

use crate::journal::JournalError;
use crate::store::StoreError;

/// Why the recorder could not be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The store cannot be used.
    Store(StoreError),
    /// The journal in the store cannot be written.
    Journal(JournalError),
    /// There is no memory for the ring, or no thread for the worker.
    Resources(std::io::Error),
    /// What a dead process had in shared memory cannot be read, so its records cannot be taken over yet.
    SharedMemory {
        /// The file in memory.
        path: PathBuf,
        /// What is in the way.
        source: std::io::Error,
    },
    /// A port cannot be opened.
    Listen {
        /// What it is for.
        name: &'static str,
        /// Its address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting does not say what it must.
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What was asked for needs a feature that this build does not have.
    MissingFeature {
        /// The feature to turn on.
        feature: &'static str,
        /// What needs it.
        what: &'static str,
    },
    /// A subscriber is installed already; use [`Builder::build`](crate::Builder::build) and add the layer to it.
    SubscriberInstalled,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Resources(_) => f.write_str("no memory or no thread for the recorder"),
            Self::SharedMemory { path, .. } => {
                write!(f, "cannot read what a process that ended early had in shared memory, {}", path.display())
            }
            Self::Listen { name, address, .. } => write!(f, "cannot listen on {address} for {name}"),
            Self::Setting { name, why } => write!(f, "{name}: {why}"),
            Self::MissingFeature { feature, what } => {
                write!(f, "{what} needs the feature {feature:?} of the runspan crate")
            }
            Self::SubscriberInstalled => {
                f.write_str("a tracing subscriber is installed already: add the layer of `builder().build()` to it")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Journal(error) => error.source(),
            Self::Resources(error) | Self::SharedMemory { source: error, .. } | Self::Listen { source: error, .. } => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// Says an error with its causes in one line, leaving out those that its own text tells.
///
/// ```
/// let error = std::io::Error::other("no such peer");
/// assert_eq!(runspan::with_causes(&error), "no such peer");
/// ```
pub fn with_causes(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
