//! Runs that wait for that of a trace which they name as their cause, as lines of a file: they wait on after a restart.

use std::io;
use std::path::Path;

use crate::fs::{self, Access, Fs, append_full};
use crate::model::{RunId, TraceId};

/// A trace, a space, a run and a line feed.
const LINE_BYTES: u64 = 32 + 1 + 26 + 1;

/// Appends a line.
pub(super) fn note(fs: &dyn Fs, path: &Path, trace: TraceId, run: RunId) -> io::Result<()> {
    // Half a line of one who died in a write ends here.
    let file = match fs.open(path, Access::Append) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dirs(fs, path.parent().unwrap_or(path))?;
            fs.open(path, Access::Append)?
        }
        opened => opened?,
    };
    append_full(&*file, format!("\n{trace} {run}\n").as_bytes())
}

/// Returns the last lines, at most so many, the oldest first. A file that has become much longer loses the others.
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
    let line = |line: &str| {
        let (trace, run) = line.split_once(' ')?;
        Some((trace.parse().ok()?, run.parse().ok()?))
    };
    let all: Vec<(TraceId, RunId)> = text.lines().filter_map(line).collect();
    let last = all[all.len().saturating_sub(most)..].to_vec();
    if all.len() > 2 * most {
        let lines: String = last.iter().map(|(trace, run)| format!("{trace} {run}\n")).collect();
        fs::replace(fs, path, lines.as_bytes(), false)?;
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
        for nth in 1..4 {
            note(&OsFs, &path, link(nth).0, link(nth).1).unwrap();
            append_full(&*OsFs.open(&path, Access::Append).unwrap(), b"00ff broken").unwrap();
        }
        assert_eq!(read(&OsFs, &path, 2).unwrap(), [link(2), link(3)]);
        assert_eq!(read(&OsFs, &path, 9).unwrap(), [link(1), link(2), link(3)]);
        // Much longer than is asked for: the others go.
        assert_eq!(read(&OsFs, &path, 1).unwrap(), [link(3)]);
        assert_eq!(read(&OsFs, &path, 9).unwrap(), [link(3)]);
        std::fs::write(&path, vec![b'\n'; 1 << 16]).unwrap();
        assert_eq!(read(&OsFs, &path, 9).unwrap(), []);
        assert!(!path.exists());
    }
}
