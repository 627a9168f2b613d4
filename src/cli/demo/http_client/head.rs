//! The head of a response, line by line.

use super::HttpError;
use super::connection::Timed;
use std::io::{BufRead, BufReader, Read};

/// The status line and all headers together, and the size lines and trailers of a chunked body.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

pub(super) type Headers = Vec<(String, String)>;

pub(super) fn read_head(reader: &mut BufReader<Timed>) -> Result<(u16, Headers), HttpError> {
    let mut left = MAX_HEAD_BYTES;
    let status_line = read_line(reader, &mut left)?;
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok());
    let (Some(_), Some(status)) = (version, status) else {
        return Err(HttpError::Malformed("status line"));
    };
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader, &mut left)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed("header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

pub(super) fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// Reads a line without its end, out of a budget of bytes.
pub(super) fn read_line(reader: &mut BufReader<Timed>, left: &mut usize) -> Result<String, HttpError> {
    let mut line = Vec::new();
    let read = reader.take(*left as u64).read_until(b'\n', &mut line);
    let read = read.map_err(|error| reader.get_ref().blame(error))?;
    *left -= read;
    if line.pop() != Some(b'\n') {
        return Err(if *left == 0 {
            HttpError::TooLarge { part: "head", limit: MAX_HEAD_BYTES }
        } else {
            HttpError::CutOff
        });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| HttpError::Malformed("line not UTF-8"))
}
