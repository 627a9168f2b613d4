//! The connection: where it goes, and how long it may take.

use super::HttpError;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What is written under one look at the clock.
const PIECE_BYTES: usize = 64 * 1024;

/// Where a URL points to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// As the URL has it.
    pub(super) host: String,
    pub(super) path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, HttpError> {
        let refuse = |reason| HttpError::Url { url: url.to_owned(), reason };
        let rest = url.strip_prefix("http://").ok_or(refuse("it does not start with http://"))?;
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if url.contains(|letter: char| letter.is_ascii_control() || letter == ' ') {
            return Err(refuse("it has a space or a control character"));
        }
        let address = match host.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            None => host.parse().ok(),
        };
        let address = address.ok_or(refuse("its host is not an IP address or localhost, with a port"))?;
        if !address.ip().is_loopback() {
            return Err(refuse("it is not on loopback"));
        }
        Ok(Self { address, host: host.to_owned(), path: path.to_owned() })
    }
}

/// A connection with a deadline for all that is read and written.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    timeout: Duration,
    deadline: Instant,
}

impl Timed {
    /// Connects, and starts the clock.
    pub(super) fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, HttpError> {
        let deadline = Instant::now() + timeout;
        // A timeout of zero is refused by the system; the least one has run out all the same.
        let timeout_of_system = timeout.max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, timeout_of_system) {
            Ok(stream) => Ok(Self { stream, timeout, deadline }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(HttpError::Timeout { after: timeout }),
            Err(source) => Err(HttpError::Connect { address, source }),
        }
    }

    pub(super) fn restart_clock(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    /// Sends a request, and goes on to read where the peer stopped reading: it may have answered why.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<(), HttpError> {
        for piece in request.chunks(PIECE_BYTES) {
            match self.send_piece(piece) {
                Ok(()) => {}
                Err(error) if is_hang_up(&error) => return Ok(()),
                Err(error) => return Err(self.blame(error)),
            }
        }
        Ok(())
    }

    fn send_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(piece)
    }

    /// Turns an I/O error into ours.
    pub(super) fn blame(&self, error: io::Error) -> HttpError {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpError::Timeout { after: self.timeout },
            _ if is_hang_up(&error) => HttpError::CutOff,
            _ => HttpError::Io(error),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into)
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}
