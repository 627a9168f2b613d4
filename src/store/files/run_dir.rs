//! One run's folder: `run.yaml` and `events.jsonl`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::super::{FORMAT, StoreError};
use super::layout::{append_private, from_yaml, make_dir, open_plain, read_bounded, replace, to_yaml};
use crate::model::{Event, EventId, RunId, RunSummary};
use crate::sources::encode::cut;

/// `run.yaml` is small; what is larger is not ours.
const MAX_RUN_FILE: u64 = 8 << 20;
/// Longest line of the log that is read; records are bounded far below.
const MAX_LINE: usize = 256 << 20;
/// A run's folder is held to 100 MB. Bodies are cut from a little before, so that what still comes fits.
const MAX_RUN_BYTES: u64 = 100_000_000 - 8_000_000;
/// What is left of a text in a run that has reached its bound.
const CUT_TEXT: usize = 256;

/// Returns the path of a run's metadata.
pub(super) fn run_file(dir: &Path) -> PathBuf {
    dir.join("run.yaml")
}

/// Returns the path of a run's log.
pub(super) fn events_file(dir: &Path) -> PathBuf {
    dir.join("events.jsonl")
}

/// Tells whether a run's folder holds more than artifacts.
pub(super) fn is_begun(dir: &Path) -> bool {
    run_file(dir).exists() || events_file(dir).exists()
}

/// Reads a run's metadata.
pub(super) fn read_summary(dir: &Path, run: RunId) -> Result<RunSummary, StoreError> {
    let path = run_file(dir);
    let damaged = |why: String| StoreError::Damaged { run, why: format!("run.yaml: {why}") };
    let text = read_bounded(&path, MAX_RUN_FILE).map_err(|error| damaged(error.to_string()))?;
    let summary: RunSummary = from_yaml(&text).map_err(damaged)?;
    if summary.format > FORMAT {
        return Err(damaged(format!("format {} is newer than {FORMAT}", summary.format)));
    }
    if summary.run_id != run {
        return Err(damaged(format!("it says it is run {}", summary.run_id)));
    }
    Ok(summary)
}

/// Replaces a run's metadata.
pub(super) fn write_summary(dir: &Path, summary: &RunSummary, durable: bool) -> Result<(), StoreError> {
    let path = run_file(dir);
    let text = to_yaml(summary).map_err(|why| StoreError::BadStore { path: path.clone(), why })?;
    replace(&path, text.as_bytes(), durable)
}

/// Reads a run's events from `from_seq` on. A torn last line is left out: its writer died in it, or is in it now.
pub(super) fn read_events(dir: &Path, run: RunId, from_seq: u64) -> Result<Vec<Event>, StoreError> {
    let path = events_file(dir);
    let file = match open_plain(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Damaged { run, why: "events.jsonl is missing".to_owned() });
        }
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    scan(file, run, |event, _| if event.seq >= from_seq { Some(event) } else { None }).map(|(events, _)| events)
}

/// Reads lines until the end or a torn one; returns what `keep` kept and the length of the whole lines in bytes.
fn scan<T>(file: File, run: RunId, mut keep: impl FnMut(Event, u64) -> Option<T>) -> Result<(Vec<T>, u64), StoreError> {
    let damaged =
        |seq: u64, why: String| StoreError::Damaged { run, why: format!("events.jsonl line {}: {why}", seq + 1) };
    let mut lines = BufReader::with_capacity(1 << 16, file);
    let (mut kept, mut line, mut seq, mut whole) = (Vec::new(), Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(|error| damaged(seq, error.to_string()))?;
        if line.last() != Some(&b'\n') {
            return Ok((kept, whole));
        }
        if read > MAX_LINE {
            return Err(damaged(seq, format!("longer than {MAX_LINE} bytes")));
        }
        let event: Event = serde_json::from_slice(&line).map_err(|error| damaged(seq, error.to_string()))?;
        if event.seq != seq {
            return Err(damaged(seq, format!("seq {} where {seq} should be", event.seq)));
        }
        whole += read as u64;
        seq += 1;
        kept.extend(keep(event, whole));
    }
}

/// A run's log, open for its one writer.
#[derive(Debug)]
pub(super) struct EventLog {
    path: PathBuf,
    run: RunId,
    file: File,
    /// Length of the whole lines: what is beyond after a failed write is cut off before the next.
    length: u64,
    /// What was there when the log was taken up again; told again after a crash, these are passed over.
    known: HashSet<EventId>,
    suspect: bool,
}

impl EventLog {
    /// Opens a run's log, made if it is not there. Cuts a torn last line off and hands back what is there.
    pub fn open(dir: &Path, run: RunId) -> Result<(Self, Vec<Event>), StoreError> {
        make_dir(dir)?;
        let path = events_file(dir);
        let file = append_private(&path).map_err(StoreError::io("open", &path))?;
        let reading = open_plain(&path).map_err(StoreError::io("read", &path))?;
        let (events, length) = scan(reading, run, |event, _| Some(event))?;
        file.set_len(length).map_err(StoreError::io("truncate", &path))?;
        let known = events.iter().map(|event| event.event_id).collect();
        Ok((Self { path, run, file, length, known, suspect: false }, events))
    }

    /// Tells the log that its folder has another name now; the open file is the same.
    pub fn moved_to(&mut self, dir: &Path) {
        self.path = events_file(dir);
    }

    /// Appends events that are not there yet, all in one write.
    pub fn append(&mut self, events: &[Event], durable: bool) -> Result<(), StoreError> {
        if self.suspect {
            self.file.set_len(self.length).map_err(StoreError::io("truncate", &self.path))?;
            self.suspect = false;
        }
        let mut lines = Vec::with_capacity(events.len() * 1024);
        for event in events.iter().filter(|event| !self.known.contains(&event.event_id)) {
            let start = lines.len();
            let fits = self.length + (start as u64) < MAX_RUN_BYTES;
            let written = if fits { serde_json::to_writer(&mut lines, event) } else { write_cut(&mut lines, event) };
            if let Err(error) = written {
                lines.truncate(start);
                return Err(StoreError::Damaged { run: self.run, why: format!("event {}: {error}", event.seq) });
            }
            lines.push(b'\n');
        }
        let written = self.file.write_all(&lines).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.suspect = self.file.set_len(self.length).is_err();
                Err(StoreError::io("write", &self.path)(error))
            }
        }
    }
}

/// Writes an event with its long texts cut: the run has reached its bound and goes on all the same.
fn write_cut(out: &mut Vec<u8>, event: &Event) -> serde_json::Result<()> {
    fn shorten(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.len() > CUT_TEXT * 2 => *text = cut(text, CUT_TEXT),
            serde_json::Value::Array(list) => list.iter_mut().for_each(shorten),
            serde_json::Value::Object(map) => map.values_mut().for_each(shorten),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(event)?;
    shorten(&mut value);
    serde_json::to_writer(out, &value)
}
