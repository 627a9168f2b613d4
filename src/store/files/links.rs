//! Runs that wait for that of a trace which they name as their cause, as lines of a file: they wait on after a restart.

use std::io;
use std::path::Path;

use crate::fs::{self, Access, Fs, append_full};
use crate::model::{RunId, TraceId};

/// A trace, a space, a run, a line feed before and one behind.
const LINE_BYTES: u64 = 1 + 32 + 1 + 26 + 1;
/// In place of a run: none waits for the trace any more.
const FOUND: &str = "found";

/// Appends a line.
pub(super) fn note(fs: &dyn Fs, path: &Path, trace: TraceId, run: Option<RunId>) -> io::Result<()> {
    let file = match fs.open(path, Access::Append) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dirs(fs, path.parent().unwrap_or(path))?;
            fs.open(path, Access::Append)?
        }
        opened => opened?,
    };
    let run = run.map_or_else(|| FOUND.to_owned(), |run| run.to_string());
    // Half a line of one who died in a write ends here.
    append_full(&*file, format!("\n{trace} {run}\n").as_bytes())
}

/// Has these lines alone stand there.
pub(super) fn write(fs: &dyn Fs, path: &Path, links: &[(TraceId, RunId)]) -> io::Result<()> {
    let lines: String = links.iter().map(|(trace, run)| format!("{trace} {run}\n")).collect();
    fs::replace(fs, path, lines.as_bytes(), false)
}

/// Returns the runs that wait, at most so many of the last ones, the oldest first.
///
/// A line that is none is passed over: what it said is lost, and nothing else.
pub(super) fn read(fs: &dyn Fs, path: &Path, most: usize) -> io::Result<Vec<(TraceId, RunId)>> {
    let longest = 8 * LINE_BYTES * most as u64;
    let bytes = match fs::read_bytes(fs, path, longest) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // Whoever wrote so much, it was not this.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            fs.remove_file(path)?;
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut waiting: Vec<(TraceId, RunId)> = Vec::new();
    let mut lines = 0;
    for (trace, run) in text.lines().filter_map(|line| line.split_once(' ')) {
        let Ok(trace) = trace.parse::<TraceId>() else { continue };
        lines += 1;
        match run.parse() {
            Ok(run) => waiting.push((trace, run)),
            Err(_) if run == FOUND => waiting.retain(|(waited_for, _)| *waited_for != trace),
            Err(_) => {}
        }
    }
    let last = waiting[waiting.len().saturating_sub(most)..].to_vec();
    // Seldom: what another process appends at this moment is lost with it.
    if lines > 4 * most {
        write(fs, path, &last)?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    #[test]
    fn the_last_lines_are_kept_whatever_stands_between_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("links");
        let link = |nth: u8| (TraceId([nth; 16]), RunId([nth; 16]));
        assert_eq!(read(&OsFs, &path, 2).unwrap(), []);
        for nth in 1..5 {
            note(&OsFs, &path, link(nth).0, Some(link(nth).1)).unwrap();
            append_full(&*OsFs.open(&path, Access::Append).unwrap(), b"00ff broken").unwrap();
        }
        note(&OsFs, &path, link(2).0, None).unwrap();
        assert_eq!(read(&OsFs, &path, 9).unwrap(), [link(1), link(3), link(4)]);
        assert_eq!(read(&OsFs, &path, 2).unwrap(), [link(3), link(4)]);
        // Much longer than is asked for: the others go.
        assert_eq!(read(&OsFs, &path, 1).unwrap(), [link(4)]);
        assert_eq!(read(&OsFs, &path, 9).unwrap(), [link(4)]);
        std::fs::write(&path, vec![b'\n'; 1 << 16]).unwrap();
        assert_eq!(read(&OsFs, &path, 9).unwrap(), []);
        assert!(!path.exists());
    }
}
