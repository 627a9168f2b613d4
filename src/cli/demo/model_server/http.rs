//! The server's half of HTTP/1.1: reading requests within bounds, writing answers.

use super::reply::Reply;
use std::io::{self, BufRead, Read, Write};

/// The request line and all headers together, and each line of a chunked body.
const MAX_HEAD_BYTES: u64 = 64 * 1024;
/// The body of a request.
const MAX_BODY_BYTES: u64 = 8 * 1024 * 1024;

/// A request that was read whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path without its query.
    pub(super) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Why there is no request to answer.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The peer closed, or stayed silent, between two requests.
    Closed,
    /// The bytes are not a request this server takes; it says so and closes.
    Refused { status: u16, reason: &'static str },
    /// The connection failed.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn bad(reason: &'static str) -> ReadError {
    ReadError::Refused { status: 400, reason }
}

fn too_large(reason: &'static str) -> ReadError {
    ReadError::Refused { status: 413, reason }
}

impl Request {
    /// Returns the value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Tells whether the client wants to send another request on this connection.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.says("connection", "close")
    }

    fn says(&self, header: &str, word: &str) -> bool {
        self.header(header).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }
}

/// Reads the next request; `out` is told to go on where the client waits for that before it sends the body.
pub(super) fn read_request(reader: &mut impl BufRead, out: &mut impl Write) -> Result<Request, ReadError> {
    let mut request = read_head(reader)?;
    if request.says("expect", "100-continue") {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = read_body(reader, &request)?;
    Ok(request)
}

fn read_head(reader: &mut impl BufRead) -> Result<Request, ReadError> {
    let mut left = MAX_HEAD_BYTES;
    let first = match read_line(reader, &mut left) {
        Ok(Some(line)) => line,
        Ok(None) => return Err(ReadError::Closed),
        Err(ReadError::Io(error)) if is_timeout(&error) => return Err(ReadError::Closed),
        Err(error) => return Err(error),
    };
    let mut request = parse_request_line(&first)?;
    loop {
        let line = read_line(reader, &mut left)?.ok_or(bad("the head of the request is cut off"))?;
        if line.is_empty() {
            return Ok(request);
        }
        let (name, value) = line.split_once(':').ok_or(bad("a header has no colon"))?;
        let name = name.to_ascii_lowercase();
        request.headers.push((name, value.trim().to_owned()));
    }
}

fn parse_request_line(line: &str) -> Result<Request, ReadError> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("the request line is malformed"));
    };
    if version != "HTTP/1.1" {
        return Err(ReadError::Refused { status: 505, reason: "only HTTP/1.1 is spoken here" });
    }
    if !target.starts_with('/') {
        return Err(bad("the request target is not a path"));
    }
    let path = target.split(['?', '#']).next().unwrap_or(target);
    Ok(Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() })
}

fn read_body(reader: &mut impl BufRead, request: &Request) -> Result<Vec<u8>, ReadError> {
    match (request.header("transfer-encoding"), request.header("content-length")) {
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => read_chunked(reader),
        (Some(_), _) => Err(bad("the length of the body is ambiguous")),
        (None, Some(length)) => read_sized(reader, length),
        (None, None) => Ok(Vec::new()),
    }
}

fn read_sized(reader: &mut impl BufRead, length: &str) -> Result<Vec<u8>, ReadError> {
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("the content length is not a number"));
    }
    let length = length.parse().unwrap_or(u64::MAX);
    let mut body = Vec::new();
    read_exactly(reader, length, &mut body)?;
    Ok(body)
}

fn read_chunked(reader: &mut impl BufRead) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    let mut left = MAX_HEAD_BYTES;
    loop {
        // The budget for size lines grows with the data, so that small chunks are fine and endless lines are not.
        left = left.saturating_add(16).min(MAX_HEAD_BYTES);
        let line = read_line(reader, &mut left)?.ok_or(bad("the body is cut off"))?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| bad("a chunk has no proper size"))?;
        if size == 0 {
            break;
        }
        read_exactly(reader, size, &mut body)?;
        if read_line(reader, &mut left)?.is_none_or(|rest| !rest.is_empty()) {
            return Err(bad("a chunk is longer than its size"));
        }
    }
    // Trailers are allowed and say nothing of use here.
    while read_line(reader, &mut left)?.is_some_and(|line| !line.is_empty()) {}
    Ok(body)
}

fn read_exactly(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> Result<(), ReadError> {
    let taken = body.len() as u64;
    if length > MAX_BODY_BYTES - taken.min(MAX_BODY_BYTES) {
        return Err(too_large("the body is larger than 8 MiB"));
    }
    if reader.take(length).read_to_end(body)? as u64 != length {
        return Err(bad("the body is cut off"));
    }
    Ok(())
}

/// Reads a line without its end, out of a budget of bytes; nothing at the end of the stream.
fn read_line(reader: &mut impl BufRead, left: &mut u64) -> Result<Option<String>, ReadError> {
    let mut line = Vec::new();
    let read = reader.take(*left).read_until(b'\n', &mut line)? as u64;
    if read == 0 && *left > 0 {
        return Ok(None);
    }
    *left -= read;
    if line.pop() != Some(b'\n') {
        return Err(if *left == 0 {
            too_large("the head of the request is larger than 64 KiB")
        } else {
            bad("a line is cut off")
        });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = String::from_utf8(line).map_err(|_| bad("a line is not text"))?;
    Ok(Some(text))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Reply {
    fn head(&self, framing: &str, keeps_alive: bool) -> String {
        let (media_type, request_id) = match self {
            Self::Whole { request_id, .. } => ("application/json", request_id.as_deref()),
            Self::Streamed { request_id, .. } => ("text/event-stream", Some(request_id.as_str())),
        };
        let status = self.status();
        let mut head = format!("HTTP/1.1 {status} {}\r\ncontent-type: {media_type}\r\n{framing}\r\n", phrase(status));
        if let Some(id) = request_id {
            head.push_str(&format!("x-request-id: {id}\r\n"));
        }
        if status == 429 {
            head.push_str("retry-after: 0\r\n");
        }
        if !keeps_alive {
            head.push_str("connection: close\r\n");
        }
        head.push_str("\r\n");
        head
    }

    /// Writes the head and the JSON document in one piece.
    pub(super) fn write_whole(&self, out: &mut impl Write, keeps_alive: bool) -> io::Result<()> {
        let body = match self {
            Self::Whole { body, .. } => body.to_string(),
            Self::Streamed { frames, .. } => frames.concat(),
        };
        let framing = format!("content-length: {}", body.len());
        let whole = self.head(&framing, keeps_alive) + &body;
        out.write_all(whole.as_bytes())?;
        out.flush()
    }

    /// Writes the head of a stream, whose chunks follow.
    pub(super) fn write_stream_head(&self, out: &mut impl Write, keeps_alive: bool) -> io::Result<()> {
        out.write_all(self.head("transfer-encoding: chunked", keeps_alive).as_bytes())
    }
}

/// Writes one chunk of a stream at once.
pub(super) fn write_chunk(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
    out.flush()
}

/// Writes the mark that ends a stream.
pub(super) fn write_last_chunk(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Scripted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request that `bytes` hold, or the status and reason of the refusal; 0 where there is nothing to refuse.
    fn read(bytes: &[u8]) -> Result<Request, (u16, &'static str)> {
        match read_request(&mut &bytes[..], &mut Vec::new()) {
            Ok(request) => Ok(request),
            Err(ReadError::Refused { status, reason }) => Err((status, reason)),
            Err(ReadError::Closed) => Err((0, "closed")),
            Err(ReadError::Io(_)) => Err((0, "failed")),
        }
    }

    fn posted(headers: &[(&str, &str)], body: &str) -> Request {
        Request {
            method: "POST".to_owned(),
            path: "/v1/x".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_sized_body_is_read_and_the_query_left_out() {
        assert_eq!(
            read(b"POST /v1/x?a=b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdef"),
            Ok(posted(&[("content-length", "3")], "abc"))
        );
    }

    #[test]
    fn a_chunked_body_is_joined_and_its_trailers_skipped() {
        let bytes = b"POST /v1/x HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n\
                      3;note=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(read(bytes), Ok(posted(&[("transfer-encoding", "Chunked")], "abc0123456789")));
    }

    #[test]
    fn many_small_chunks_are_within_the_bounds() {
        let mut bytes = b"POST /v1/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..40_000 {
            bytes.extend_from_slice(b"1\r\na\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let request = read(&bytes);
        assert_eq!(request, Ok(posted(&[("transfer-encoding", "chunked")], &"a".repeat(40_000))));
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let cases: [(&[u8], (u16, &str)); 9] = [
            (b"\x16\x03\x01\n", (400, "the request line is malformed")),
            (b"\xff\xfe\n", (400, "a line is not text")),
            (b"GET", (400, "a line is cut off")),
            (b"GET / HTTP/1.0\r\n\r\n", (505, "only HTTP/1.1 is spoken here")),
            (b"GET x HTTP/1.1\r\n\r\n", (400, "the request target is not a path")),
            (b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", (400, "a header has no colon")),
            (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", (400, "the content length is not a number")),
            (b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc", (400, "the body is cut off")),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", (400, "a chunk has no proper size")),
        ];
        for (bytes, refusal) in cases {
            assert_eq!(read(bytes), Err(refusal), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_peer_that_closes_between_requests_is_no_error() {
        assert_eq!(read(b""), Err((0, "closed")));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_read() {
        let long_head = [b"GET /".to_vec(), vec![b'a'; 70_000]].concat();
        let refusal = (413, "the head of the request is larger than 64 KiB");
        assert_eq!(read(&long_head), Err(refusal));
        let refusal = (413, "the body is larger than 8 MiB");
        for length in ["8388609", "99999999999999999999999999"] {
            let head = format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\n");
            assert_eq!(read(head.as_bytes()), Err(refusal));
        }
        let chunk = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        assert_eq!(read(chunk), Err(refusal));
    }

    #[test]
    fn a_client_that_waits_is_told_to_go_on() {
        let bytes = b"POST /v1/x HTTP/1.1\r\nexpect: 100-continue\r\n\r\n";
        let mut out = Vec::new();
        let request = read_request(&mut &bytes[..], &mut out);
        assert!(matches!(request, Ok(request) if request.path == "/v1/x"));
        assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn an_answer_states_its_length_and_its_end() {
        let mut out = Vec::new();
        let reply =
            Reply::Whole { status: 200, request_id: Some("req-1".to_owned()), body: serde_json::json!({"a": 1}) };
        assert!(reply.write_whole(&mut out, false).is_ok());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\
             x-request-id: req-1\r\nconnection: close\r\n\r\n{\"a\":1}"
        );
    }
}
