//! Server-sent events out of a body.

use super::HttpError;
use super::body::Body;

/// One event.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// The `data` of server-sent events, in order, up to OpenAI's `[DONE]` or the end of the response.
///
/// After an error there are no further events.
#[derive(Debug)]
pub struct Events {
    /// Gone once the stream is over.
    body: Option<Body>,
    /// Bytes that arrived and belong to no event yet.
    pending: Vec<u8>,
}

impl Events {
    pub(super) fn new(body: Body) -> Self {
        Self { body: Some(body), pending: Vec::new() }
    }
}

impl Iterator for Events {
    type Item = Result<String, HttpError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut body = self.body.take()?;
        body.restart_clock();
        loop {
            while let Some(event) = take_event(&mut self.pending) {
                match data_of(&event) {
                    Ok(None) => {}
                    Ok(Some(data)) if data == "[DONE]" => return None,
                    Ok(Some(data)) => {
                        self.body = Some(body);
                        return Some(Ok(data));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            match body.read_some(&mut self.pending) {
                Ok(true) if self.pending.len() <= MAX_EVENT_BYTES => {}
                Ok(true) => {
                    return Some(Err(HttpError::TooLarge { part: "event", limit: MAX_EVENT_BYTES }));
                }
                // What has no blank line behind it is no event.
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Takes the lines up to the first blank one off the front.
fn take_event(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut line_start = 0;
    let mut ends = pending.iter().enumerate();
    let end = ends.find_map(|(at, byte)| {
        if *byte != b'\n' {
            return None;
        }
        let line = pending.get(line_start..at).unwrap_or(&[]);
        line_start = at + 1;
        matches!(line, b"" | b"\r").then_some(at + 1)
    })?;
    let rest = pending.split_off(end);
    Some(std::mem::replace(pending, rest))
}

/// The data lines of an event, joined; none for a comment or an event without data.
fn data_of(event: &[u8]) -> Result<Option<String>, HttpError> {
    let text = std::str::from_utf8(event).map_err(|_| HttpError::Malformed("event not UTF-8"))?;
    let data: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    Ok((!data.is_empty()).then(|| data.join("\n")))
}
