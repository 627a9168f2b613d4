//! What can go wrong with a request.

use super::Response;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why there is no response, or no further event.
#[derive(Debug)]
pub enum HttpError {
    /// The URL is not `http://HOST:PORT/PATH` on loopback.
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header would break the request apart.
    Header {
        /// The name of the header.
        name: String,
    },
    /// Nobody took the connection.
    Connect {
        /// The address that was tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The peer took longer than it was given.
    Timeout {
        /// What it was given.
        after: Duration,
    },
    /// The connection failed.
    Io(io::Error),
    /// The peer sent something that is not HTTP, or events that are not text.
    Malformed(&'static str),
    /// The connection ended before the response did.
    CutOff,
    /// The peer sent more than is taken.
    TooLarge {
        /// The part that is too large.
        part: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// The body is not JSON.
    NotJson(serde_json::Error),
    /// A stream was asked for and the peer answered otherwise.
    NotAStream(Box<Response>),
}

impl HttpError {
    /// Tells whether the peer was too slow.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, reason } => write!(out, "cannot ask {url:?}: {reason}"),
            Self::Header { name } => write!(out, "header {name:?} has a line break or a colon"),
            Self::Connect { address, .. } => write!(out, "cannot connect to {address}"),
            Self::Timeout { after } => write!(out, "no answer within {after:?}"),
            Self::Io(_) => write!(out, "the connection failed"),
            Self::Malformed(what) => write!(out, "malformed response: {what}"),
            Self::CutOff => write!(out, "the connection ended before the response did"),
            Self::TooLarge { part, limit } => write!(out, "the {part} is over {limit} bytes"),
            Self::NotJson(_) => write!(out, "the body is not JSON"),
            Self::NotAStream(response) => {
                write!(out, "status {} instead of a stream", response.status)
            }
        }
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { source, .. } | Self::Io(source) => Some(source),
            Self::NotJson(source) => Some(source),
            _ => None,
        }
    }
}
