//! `index.log`: one line for each start and each change of a run.
//!
//! A line is a run's summary as JSON, without `steps`; the last line of a run is the one that holds. Writers append
//! whole lines with one write each, which the operating system keeps apart. A line that cannot be read costs itself:
//! the run's own `run.yaml` is read instead.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Deserialize;

use super::super::StoreError;
use super::layout::{append_private, open_plain};
use crate::model::{RunId, RunSummary};

/// Appends a run's summary.
pub(super) fn append(path: &Path, summary: &RunSummary) -> Result<(), StoreError> {
    let lean = RunSummary { steps: None, ..summary.clone() };
    let mut line = serde_json::to_vec(&lean)
        .map_err(|error| StoreError::BadStore { path: path.to_owned(), why: error.to_string() })?;
    line.push(b'\n');
    let mut file = append_private(path).map_err(StoreError::io("open", path))?;
    end_torn_line(path, &mut line);
    file.write_all(&line).map_err(StoreError::io("write", path))
}

/// A process that died in a write leaves half a line; ours must not become its other half.
fn end_torn_line(path: &Path, line: &mut Vec<u8>) {
    use std::io::{Seek, SeekFrom};
    let last = fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    });
    if matches!(last, Ok(byte) if byte != b'\n') {
        line.insert(0, b'\n');
    }
}

/// Reads the last summary of each run.
pub(super) fn read(path: &Path) -> Result<HashMap<RunId, RunSummary>, StoreError> {
    let mut bytes = Vec::new();
    let read = open_plain(path).and_then(|mut file| file.read_to_end(&mut bytes));
    let bytes = match read.map(|_| bytes) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    #[derive(Deserialize)]
    struct Key {
        run_id: RunId,
    }
    let mut newest: HashMap<RunId, RunSummary> = HashMap::new();
    // From the end: of the several lines of a run only the last is parsed whole.
    for line in bytes.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let known = quick_id(line).or_else(|| serde_json::from_slice::<Key>(line).ok().map(|key| key.run_id));
        let Some(run) = known else { continue };
        if let std::collections::hash_map::Entry::Vacant(place) = newest.entry(run)
            && let Ok(summary) = serde_json::from_slice(line)
        {
            place.insert(summary);
        }
    }
    Ok(newest)
}

/// Reads the id from a line as this version writes it, without parsing the rest.
fn quick_id(line: &[u8]) -> Option<RunId> {
    let rest = line.strip_prefix(b"{\"format\":1,\"run_id\":\"")?;
    std::str::from_utf8(rest.get(..26)?).ok()?.parse().ok()
}
