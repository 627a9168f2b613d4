//! A small blocking HTTP/1.1 client for the demo's agent: JSON out, JSON or server-sent events back.
//!
//! It talks to loopback only and opens a connection for each request. Whatever the peer sends, it stays within its
//! bounds and its timeout.

mod body;
mod connection;
mod error;
mod events;
mod head;

pub use error::HttpError;
pub use events::Events;

use body::{Body, Framing};
use connection::{Target, Timed};
use serde_json::Value;
use std::io::BufReader;
use std::time::Duration;

/// A response that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        head::find_header(&self.headers, name)
    }

    /// Tells whether the status is one of the 200s.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads the body as JSON.
    pub fn json(&self) -> Result<Value, HttpError> {
        serde_json::from_slice(&self.body).map_err(HttpError::NotJson)
    }
}

/// Posts JSON and reads the whole response, of any status, within `timeout`.
pub fn post_json(url: &str, headers: &[(&str, &str)], body: &Value, timeout: Duration) -> Result<Response, HttpError> {
    open(url, headers, body, timeout)?.read_whole()
}

/// Posts JSON and returns the events of the response as they arrive.
///
/// The peer has `timeout` for its first byte and again for each event. A response that is no stream of events, such
/// as an error, is given back as [`HttpError::NotAStream`].
pub fn post_json_for_events(
    url: &str,
    headers: &[(&str, &str)],
    body: &Value,
    timeout: Duration,
) -> Result<Events, HttpError> {
    let opened = open(url, headers, body, timeout)?;
    let media_type = head::find_header(&opened.headers, "content-type").unwrap_or("");
    if opened.status == 200 && media_type.starts_with("text/event-stream") {
        return Ok(Events::new(opened.body));
    }
    Err(HttpError::NotAStream(Box::new(opened.read_whole()?)))
}

/// A response whose head was read.
struct Opened {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Opened {
    fn read_whole(mut self) -> Result<Response, HttpError> {
        let mut body = Vec::new();
        while self.body.read_some(&mut body)? {}
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

fn open(url: &str, headers: &[(&str, &str)], body: &Value, timeout: Duration) -> Result<Opened, HttpError> {
    let target = Target::parse(url)?;
    let request = request_bytes(&target, headers, &body.to_string())?;
    let mut stream = Timed::connect(target.address, timeout)?;
    stream.send(&request)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (status, headers) = head::read_head(&mut reader)?;
        // 100 and its like announce the response that counts.
        if !(100..200).contains(&status) {
            let framing = Framing::of(status, &headers)?;
            return Ok(Opened { status, headers, body: Body::new(reader, framing) });
        }
    }
}

fn request_bytes(target: &Target, headers: &[(&str, &str)], body: &str) -> Result<Vec<u8>, HttpError> {
    let mut request = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        target.path,
        target.host,
        body.len()
    );
    for (name, value) in headers {
        let breaks = |text: &str| text.contains(['\r', '\n', '\0']);
        if name.is_empty() || name.contains([':', ' ']) || breaks(name) || breaks(value) {
            let name = (*name).to_owned();
            return Err(HttpError::Header { name });
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    Ok(request.into_bytes())
}

#[cfg(test)]
mod tests;
