//! The body of a response, piece by piece.

use super::HttpError;
use super::connection::Timed;
use super::head::{MAX_HEAD_BYTES, find_header, read_line};
use std::io::{BufRead, BufReader};

/// A whole body, and everything that a stream delivers.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How a body says where it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes.
    Sized(usize),
    /// After a chunk of no bytes; so many are left of the current one.
    Chunked(usize),
    /// With the connection.
    ToEnd,
    /// It has ended.
    Over,
}

impl Framing {
    pub(super) fn of(status: u16, headers: &[(String, String)]) -> Result<Self, HttpError> {
        if matches!(status, 204 | 304) {
            return Ok(Self::Over);
        }
        if let Some(coding) = find_header(headers, "transfer-encoding") {
            let known = coding.eq_ignore_ascii_case("chunked");
            return known.then_some(Self::Chunked(0)).ok_or(HttpError::Malformed("transfer encoding not known"));
        }
        match find_header(headers, "content-length") {
            Some(length) => length.parse().map(Self::Sized).map_err(|_| HttpError::Malformed("content length")),
            None => Ok(Self::ToEnd),
        }
    }
}

/// A body that is read piece by piece.
#[derive(Debug)]
pub(super) struct Body {
    reader: BufReader<Timed>,
    framing: Framing,
    /// How many more bytes are taken.
    left: usize,
}

impl Body {
    pub(super) fn new(reader: BufReader<Timed>, framing: Framing) -> Self {
        Self { reader, framing, left: MAX_BODY_BYTES }
    }

    /// Gives the peer its whole time anew.
    pub(super) fn restart_clock(&mut self) {
        self.reader.get_mut().restart_clock();
    }

    /// Appends what arrives next; false when the body is over.
    pub(super) fn read_some(&mut self, into: &mut Vec<u8>) -> Result<bool, HttpError> {
        if self.framing == Framing::Chunked(0) && !self.open_chunk()? {
            self.framing = Framing::Over;
        }
        let wanted = match self.framing {
            Framing::Over | Framing::Sized(0) => return Ok(false),
            Framing::Sized(size) | Framing::Chunked(size) => size,
            Framing::ToEnd => usize::MAX,
        };
        let arrived = match self.reader.fill_buf() {
            Ok(arrived) => arrived.get(..wanted).unwrap_or(arrived),
            Err(error) => return Err(self.reader.get_ref().blame(error)),
        };
        let taken = arrived.len();
        if taken == 0 {
            let is_end = self.framing == Framing::ToEnd;
            return if is_end { Ok(false) } else { Err(HttpError::CutOff) };
        }
        if taken > self.left {
            return Err(HttpError::TooLarge { part: "body", limit: MAX_BODY_BYTES });
        }
        into.extend_from_slice(arrived);
        self.reader.consume(taken);
        self.left -= taken;
        self.settle(taken)?;
        Ok(true)
    }

    /// Reads the size of the next chunk; false at the last one, whose trailers are read too.
    fn open_chunk(&mut self) -> Result<bool, HttpError> {
        let mut left = MAX_HEAD_BYTES;
        let line = read_line(&mut self.reader, &mut left)?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(digits, 16);
        let size = size.map_err(|_| HttpError::Malformed("chunk size"))?;
        self.framing = Framing::Chunked(size);
        if size == 0 {
            while !read_line(&mut self.reader, &mut left)?.is_empty() {}
        }
        Ok(size > 0)
    }

    /// Notes how much of the body is done.
    fn settle(&mut self, taken: usize) -> Result<(), HttpError> {
        match &mut self.framing {
            Framing::Sized(size) => *size -= taken,
            Framing::Chunked(size) => {
                *size -= taken;
                let mut left = MAX_HEAD_BYTES;
                if *size == 0 && !read_line(&mut self.reader, &mut left)?.is_empty() {
                    return Err(HttpError::Malformed("chunk longer than its size"));
                }
            }
            Framing::ToEnd | Framing::Over => {}
        }
        Ok(())
    }
}
