//! `index.log`: one line for each start and each change of a run.
//!
//! A line is a run's summary as JSON, without `steps`; the last line of a run is the one that holds. Writers append
//! whole lines with one write each, which the operating system keeps apart. A line that cannot be read costs itself:
//! the run's own `run.yaml` is read instead.

#[cfg(feature = "server")]
use std::collections::VecDeque;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::super::StoreError;
use super::layout::{open_plain, sync_dir};
use crate::fs::{Access, Contents, Fs, FsFile, append_full, read_full, write_full};
#[cfg(feature = "server")]
use crate::model::TraceId;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind, RunStatus, RunSummary, UnixNanos};

/// More than a reader compares, which is 256.
const PAD_BYTES: usize = 300;
/// How each line of this version begins; the id follows.
const BEGIN: &str = "{\"format\":1,\"run_id\":\"";
/// What stands behind the id of a run that was removed.
const REMOVED: &str = "\",\"removed\":true}";
/// About the length of a line.
const LINE_BYTES: usize = 768;
/// Room for lines is kept up to this many bytes.
const MAX_SPARE_BYTES: usize = 64 << 10;
/// Longer than any line.
const HALF_BYTES: u64 = 1 << 20;

/// The end of `index.log`, open for this process's lines.
#[derive(Debug, Default)]
pub(super) struct IndexLog {
    file: Option<Box<dyn FsFile>>,
    /// Room for the lines of one write, used again and again: a run that ends has the allocator busy enough.
    lines: Vec<u8>,
    /// Up to here lines are this process's own, or have been read for what others say.
    #[cfg(feature = "server")]
    heard: u64,
}

impl IndexLog {
    /// Appends a run's summary. `durable`: survives loss of power as well.
    pub fn append(&mut self, fs: &dyn Fs, path: &Path, summary: &RunSummary, durable: bool) -> Result<(), StoreError> {
        self.append_all(fs, path, std::slice::from_ref(summary), durable)
    }

    /// Appends the summaries of runs, all in one write.
    pub fn append_all(
        &mut self,
        fs: &dyn Fs,
        path: &Path,
        summaries: &[RunSummary],
        durable: bool,
    ) -> Result<(), StoreError> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        let appended = self.append_in(fs, path, summaries, durable, &mut lines);
        if lines.capacity() <= MAX_SPARE_BYTES {
            self.lines = lines;
        }
        appended
    }

    fn append_in(
        &mut self,
        fs: &dyn Fs,
        path: &Path,
        summaries: &[RunSummary],
        durable: bool,
        line: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        line.reserve(LINE_BYTES * summaries.len());
        for summary in summaries {
            let lean = RunSummary { steps: None, ..summary.clone() };
            serde_json::to_writer(&mut *line, &lean)
                .map_err(|error| StoreError::BadStore { path: path.to_owned(), why: error.to_string() })?;
            line.push(b'\n');
        }
        let mut size = self.size();
        if size.is_none() {
            self.file = Some(fs.open(path, Access::Append).map_err(StoreError::io("open", path))?);
            size = self.size();
            if let Some(dir) = path.parent().filter(|_| durable) {
                sync_dir(fs, dir)?;
            }
        }
        let Some(file) = self.file.as_deref() else { return Ok(()) };
        // An empty line costs nothing, where it is not known.
        let is_behind_half = !size.is_some_and(|size| ends_a_line(file, size));
        if is_behind_half {
            // A process that died in a write leaves half a line; ours must not become its other half.
            line.insert(0, b'\n');
        }
        let before = size.unwrap_or_default();
        let mut appended = append_full(file, line);
        if appended.is_ok() && is_behind_half {
            // What stays of it is taken for damage.
            let _ = blank_half(fs, path, before);
        }
        if durable {
            appended = appended.and_then(|()| file.sync_data());
        }
        #[cfg(feature = "server")]
        if before == self.heard && self.size() == Some(before + line.len() as u64) {
            // Nobody has come in between.
            self.heard = before + line.len() as u64;
        }
        if appended.is_err() {
            // Opened anew, so that its name is brought to the disk as well, if that was what failed.
            self.file = None;
            // What stays of it is taken for damage.
            let _ = blank_torn(fs, path, before, line);
        }
        appended.map_err(StoreError::io("write", path))
    }

    /// Returns traces and runs that are over by the lines that others have appended since the last time, at most so many, the
    /// latest last; a run may be there twice. What a process of the `own` name has written is this one's, too.
    #[cfg(feature = "server")]
    pub fn over_by_others(
        &mut self,
        fs: &dyn Fs,
        path: &Path,
        own: RunId,
        most: usize,
        is_wanted: &dyn Fn(TraceId, RunId) -> bool,
    ) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        let mut over = VecDeque::new();
        let size = match self.size() {
            Some(size) => size,
            None => match fs.stat(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(over.into()),
                found => found.map_err(StoreError::io("read", path))?.len,
            },
        };
        if size == self.heard {
            return Ok(over.into());
        }
        if size < self.heard {
            // Another log than that which was read.
            self.heard = 0;
        }
        let read = || StoreError::io("read", path);
        let file = open_plain(fs, path).map_err(read())?;
        let mut lines = BufReader::with_capacity(1 << 16, Contents::behind(&*file, self.heard));
        let mut line = Vec::new();
        // Behind the last line feed somebody is writing.
        loop {
            match lines.read_until(b'\n', &mut line) {
                Ok(_) if line.last() == Some(&b'\n') => {}
                // What was read before is told; the next time begins here.
                Err(error) if over.is_empty() => return Err(read()(error)),
                Ok(_) | Err(_) => return Ok(over.into()),
            }
            self.heard += line.len() as u64;
            if says_over(&line)
                && let Some((trace, run)) = quick_trace(&line)
                && (is_wanted(trace, run) || is_by(&line, own))
            {
                over.push_back((trace, run));
                if over.len() > most {
                    over.pop_front();
                }
            }
            line.clear();
        }
    }

    /// Returns the size of the open file; `None` when there is none, or none by this name any more.
    fn size(&self) -> Option<u64> {
        let found = self.file.as_ref()?.stat().ok()?;
        found.is_linked.then_some(found.len)
    }
}

fn ends_a_line(file: &dyn FsFile, size: u64) -> bool {
    let mut byte = [0];
    size == 0 || (read_full(file, &mut byte, size - 1).is_ok() && byte == [b'\n'])
}

/// Puts spaces in the place of the beginning of a line of which a full disk, say, took no more: of `lines`, which were to stand from
/// `from` to the end of the file, unless somebody else has written there. It takes no room, and no reader has read what has no line
/// feed behind it.
fn blank_torn(fs: &dyn Fs, path: &Path, from: u64, lines: &[u8]) -> io::Result<()> {
    let file = fs.open(path, Access::ReadWrite)?;
    let len = usize::try_from(file.stat()?.len.saturating_sub(from)).unwrap_or(usize::MAX);
    let Some(begun) = lines.get(..len).filter(|begun| begun.len() < lines.len()) else { return Ok(()) };
    let mut there = vec![0; len];
    read_full(&*file, &mut there, from)?;
    let whole = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if there == begun { write_full(&*file, &vec![b' '; len - whole], from + whole as u64) } else { Ok(()) }
}

/// Puts spaces in the place of half a line, the one in which `at` is or ends, if a process has died in it. One that was still being
/// written then is whole by now: whoever asks has appended a line feed since, and writes do not overlap.
fn blank_half(fs: &dyn Fs, path: &Path, at: u64) -> io::Result<()> {
    let file = fs.open(path, Access::ReadWrite)?;
    let from = at.saturating_sub(HALF_BYTES);
    let mut bytes = vec![0; usize::try_from(at - from).unwrap_or_default()];
    let read = read_full(&*file, &mut bytes, from)?;
    let begin = match bytes[..read].iter().rposition(|byte| *byte == b'\n') {
        Some(end) => from + end as u64 + 1,
        None if from == 0 => 0,
        // Longer than any line.
        None => return Ok(()),
    };
    let mut line = Vec::new();
    BufReader::with_capacity(1 << 12, Contents::behind(&*file, begin)).take(HALF_BYTES).read_until(b'\n', &mut line)?;
    let is_half = line.pop() == Some(b'\n') && !line.trim_ascii().is_empty() && is_unread(&line);
    if is_half { write_full(&*file, &vec![b' '; line.len()], begin) } else { Ok(()) }
}

/// Tells whether a line says nothing: neither what a run is, nor that it was removed.
fn is_unread(line: &[u8]) -> bool {
    removed_in(line).is_none() && serde_json::from_slice::<RunSummary>(line).is_err()
}

/// Reads the last summary of each run.
pub(super) fn read(fs: &dyn Fs, path: &Path) -> Result<HashMap<RunId, RunSummary>, StoreError> {
    let mut bytes = Vec::new();
    let read = open_plain(fs, path).and_then(|file| Contents::of(&*file).read_to_end(&mut bytes));
    let bytes = match read.map(|_| bytes) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    Ok(newest(&bytes))
}

/// Returns the last summary of each run that lines tell of.
pub(super) fn newest(lines: &[u8]) -> HashMap<RunId, RunSummary> {
    let mut newest: HashMap<RunId, RunSummary> = HashMap::new();
    // From the end: of the several lines of a run only the last is parsed whole.
    for line in lines.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Some(run) = run_of(line) else { continue };
        if let std::collections::hash_map::Entry::Vacant(place) = newest.entry(run)
            && let Ok(summary) = serde_json::from_slice(line)
        {
            place.insert(summary);
        }
    }
    newest
}

/// Appends a line of blanks that is longer than what a reader remembers of the bytes before its place, so that none of
/// those change when lines of runs become blank.
pub(super) fn pad(fs: &dyn Fs, path: &Path) -> Result<(), StoreError> {
    let mut line = vec![b' '; PAD_BYTES];
    // Half a line of one who died in a write ends here.
    (line[0], line[PAD_BYTES - 1]) = (b'\n', b'\n');
    let file = fs.open(path, Access::Append).map_err(StoreError::io("open", path))?;
    let before = file.stat().map_err(StoreError::io("read", path))?.len;
    append_full(&*file, &line).map_err(StoreError::io("write", path))?;
    if !ends_a_line(&*file, before) {
        let _ = blank_half(fs, path, before);
    }
    Ok(())
}

/// Puts in the place of all lines of runs that have gone that they were removed, and spaces in that of lines that cannot be
/// read if `or_unread`.
///
/// It takes no room, keeps every other line where it is, and may be interrupted: a line of which a part is another is one
/// that cannot be read. Nothing of a run is left but its id, so that it is noticed when the run comes back. Returns how many
/// lines these were.
pub(super) fn blank(fs: &dyn Fs, path: &Path, gone: &IdSet<RunId>, or_unread: bool) -> Result<u64, StoreError> {
    let file = match fs.open(path, Access::ReadWrite) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut lines = BufReader::with_capacity(1 << 16, Contents::of(&*file));
    let (mut line, mut offset, mut blanked) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(StoreError::io("read", path))? as u64;
        // Behind the last line feed somebody is writing.
        if line.pop() != Some(b'\n') {
            if blanked > 0 {
                file.sync_data().map_err(StoreError::io("sync", path))?;
            }
            return Ok(blanked);
        }
        let is_unread = || or_unread && is_unread(&line);
        let of_gone = run_of(&line).filter(|run| gone.contains(run) && removed_in(&line).is_none());
        if !line.trim_ascii().is_empty() && (of_gone.is_some() || is_unread()) {
            // No line of ours is shorter than the mark. Whose it is stays in front: whoever goes on with this finds it by that.
            let mark = of_gone.map(removed_mark).filter(|mark| mark.len() <= line.len()).unwrap_or_default();
            let (head, rest) = line.split_at_mut(mark.len());
            head.copy_from_slice(mark.as_bytes());
            rest.fill(b' ');
            write_full(&*file, &line, offset).map_err(StoreError::io("write", path))?;
            blanked += 1;
        }
        offset += read;
    }
}

/// What stands in the place of a line of a run that was removed; spaces follow.
fn removed_mark(run: RunId) -> String {
    format!("{BEGIN}{run}{REMOVED}")
}

/// Returns the run of which a line says that it was removed.
pub(super) fn removed_in(line: &[u8]) -> Option<RunId> {
    let behind = line.get(BEGIN.len() + 26..)?;
    quick_id(line).filter(|_| behind.trim_ascii_end() == REMOVED.as_bytes())
}

/// Reads whose line it is.
fn run_of(line: &[u8]) -> Option<RunId> {
    quick_id(line).or_else(|| serde_json::from_slice::<Key>(line).ok().map(|key| key.run_id))
}

#[derive(Deserialize)]
struct Key {
    run_id: RunId,
}

/// What has to be known of each run to say whether it goes: a server that has a bound of memory looks at all of them.
#[derive(Debug)]
pub(super) struct Lead {
    pub run_id: RunId,
    pub kind: RunKind,
    /// Of the agent or workflow.
    pub name: Arc<str>,
    pub parent_run_id: Option<RunId>,
    pub is_open: bool,
    pub started_at: UnixNanos,
    /// When it ended, or was last written.
    pub ended_at: UnixNanos,
    pub updated_at: UnixNanos,
    /// Bytes of the largest file that it produced.
    pub largest_artifact: u64,
}

/// The names of agents and workflows, each of them once.
type Names = HashSet<Arc<str>>;

/// What of a line says so.
#[derive(Deserialize)]
struct LeadLine {
    run_id: RunId,
    kind: RunKind,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    workflow_id: Option<String>,
    #[serde(default)]
    parent_run_id: Option<RunId>,
    status: RunStatus,
    started_at: UnixNanos,
    #[serde(default)]
    completed_at: Option<UnixNanos>,
    updated_at: UnixNanos,
    #[serde(default)]
    artifacts: Vec<Length>,
}

/// A file that a run produced.
#[derive(Deserialize)]
struct Length {
    bytes: u64,
}

impl LeadLine {
    fn lead(self, names: &mut Names) -> Lead {
        let name = self.agent_id.or(self.workflow_id).unwrap_or_default();
        let name = names.get(name.as_str()).cloned().unwrap_or_else(|| {
            let name = Arc::<str>::from(name);
            names.insert(Arc::clone(&name));
            name
        });
        Lead {
            run_id: self.run_id,
            kind: self.kind,
            name,
            parent_run_id: self.parent_run_id,
            is_open: self.status.is_open(),
            started_at: self.started_at,
            ended_at: self.completed_at.unwrap_or(self.updated_at),
            updated_at: self.updated_at,
            largest_artifact: self.artifacts.iter().map(|artifact| artifact.bytes).max().unwrap_or_default(),
        }
    }
}

impl From<RunSummary> for Lead {
    fn from(run: RunSummary) -> Self {
        Self {
            run_id: run.run_id,
            kind: run.kind,
            name: run.agent_id.or(run.workflow_id).unwrap_or_default().into(),
            parent_run_id: run.parent_run_id,
            is_open: run.status.is_open(),
            started_at: run.started_at,
            ended_at: run.completed_at.unwrap_or(run.updated_at),
            updated_at: run.updated_at,
            largest_artifact: run.artifacts.iter().map(|artifact| artifact.bytes).max().unwrap_or_default(),
        }
    }
}

/// Reads the last line of each run, with one line in memory at a time. Returns also of which runs any line tells, readable or
/// not. What is appended meanwhile is for the next time: under load a slow thread would never come to the end.
pub(super) fn leads(fs: &dyn Fs, path: &Path) -> Result<(IdMap<RunId, Lead>, IdSet<RunId>), StoreError> {
    let (mut leads, mut told, mut names) = (IdMap::default(), IdSet::default(), Names::new());
    let file = match open_plain(fs, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((leads, told)),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let length = file.stat().map_err(StoreError::io("read", path))?.len;
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 16, Contents::of(&*file)).take(length), Vec::new());
    while lines.read_until(b'\n', &mut line).map_err(StoreError::io("read", path))? > 0 {
        match serde_json::from_slice::<LeadLine>(&line) {
            Ok(lead) => {
                told.insert(lead.run_id);
                leads.insert(lead.run_id, lead.lead(&mut names));
            }
            Err(_) => told.extend(quick_id(&line).filter(|_| removed_in(line.trim_ascii_end()).is_none())),
        }
        line.clear();
    }
    Ok((leads, told))
}

/// Returns the runs of a writer that are under way by their last lines, without parsing those of runs that are over. Takes
/// the runs that have a line out of `untold`: not so one that says that a run was removed, which may have come again, nor half a
/// line of who died in it.
#[cfg(feature = "server")]
pub(super) fn open_of_writer(
    fs: &dyn Fs,
    path: &Path,
    writer: RunId,
    untold: &mut IdSet<RunId>,
) -> Result<IdSet<RunId>, StoreError> {
    let mut open = IdSet::default();
    let file = match open_plain(fs, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(open),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 16, Contents::of(&*file)), Vec::new());
    while lines.read_until(b'\n', &mut line).map_err(StoreError::io("read", path))? > 0 {
        let is_over = says_over(&line) && line.ends_with(b"\n");
        // Nobody asks about most of them.
        if is_over && !(open.is_empty() && untold.is_empty()) {
            if let Some(run) = run_of(&line) {
                untold.remove(&run);
                open.remove(&run);
            }
        } else if !is_over && let Ok(summary) = serde_json::from_slice::<RunSummary>(&line) {
            untold.remove(&summary.run_id);
            open.remove(&summary.run_id);
            if summary.status.is_open() && summary.writer == Some(writer) {
                open.insert(summary.run_id);
            }
        }
        line.clear();
    }
    Ok(open)
}

/// Returns trace and run of a line as this version writes it.
#[cfg(feature = "server")]
fn quick_trace(line: &[u8]) -> Option<(TraceId, RunId)> {
    const TRACE: &[u8] = b"\"trace_id\":\"";
    // Within a text these quotes would have backslashes before them.
    let at = memchr::memmem::find(line, TRACE)?;
    let trace = line.get(at + TRACE.len()..)?.get(..32)?;
    Some((std::str::from_utf8(trace).ok()?.parse().ok()?, quick_id(line)?))
}

/// Tells whether a line as this version writes it is of a writer.
#[cfg(feature = "server")]
fn is_by(line: &[u8], writer: RunId) -> bool {
    let by_writer = format!("\"writer\":\"{writer}\"");
    memchr::memmem::rfind(line, by_writer.as_bytes()).is_some()
}

/// Tells whether a line as this version writes it is of a run that is over; of another line that is not known.
#[cfg(feature = "server")]
fn says_over(line: &[u8]) -> bool {
    // Within a text these quotes would have backslashes before them.
    const STATUS: &[u8] = b"\"status\":\"";
    let status = memchr::memmem::find(line, STATUS).map(|at| &line[at + STATUS.len()..]);
    let is_open =
        |word: &[u8]| [&b"running\""[..], b"waiting\"", b"pending\""].iter().any(|open| word.starts_with(open));
    status.is_some_and(|word| !is_open(word))
}

/// Returns the last line of each run that can be read, without parsing more than has to be.
#[cfg(feature = "index")]
pub(super) fn last_lines(lines: &[u8]) -> HashMap<RunId, &[u8]> {
    let mut last: HashMap<RunId, &[u8]> = HashMap::new();
    for line in lines.rsplit(|byte| *byte == b'\n') {
        if let Some(run) = quick_id(line)
            && removed_in(line).is_none()
            && let std::collections::hash_map::Entry::Vacant(place) = last.entry(run)
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
        {
            place.insert(line);
        }
    }
    last
}

/// Reads the id from a line as this version writes it, without parsing the rest.
pub(super) fn quick_id(line: &[u8]) -> Option<RunId> {
    let rest = line.strip_prefix(BEGIN.as_bytes())?;
    std::str::from_utf8(rest.get(..26)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    #[test]
    fn half_a_line_of_who_died_in_it_is_blank_behind_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        let run = RunId([7; 16]);
        let summary = crate::store::assembly::RunState::new(run, run.as_trace_id()).summary(UnixNanos(0));
        let mut line = serde_json::to_string(&RunSummary { steps: None, ..summary.clone() }).unwrap();
        line.push('\n');
        let half = &line[..line.len() / 2];
        let behind = |there: &str| {
            std::fs::write(&path, there).unwrap();
            IndexLog::default().append(&OsFs, &path, &summary, true).unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        let blanks = " ".repeat(half.len());
        assert_eq!(behind(half), format!("{blanks}\n{line}"));
        assert_eq!(behind(&format!("{line}{half}")), format!("{line}{blanks}\n{line}"));
        // What only lacks its end is whole with it, and what stands there otherwise is damage.
        assert_eq!(behind(line.trim_end()), format!("{line}{line}"));
        assert_eq!(behind(&format!("{half}\n{line}")), format!("{half}\n{line}{line}"));
        std::fs::write(&path, format!("{line}{half}")).unwrap();
        pad(&OsFs, &path).unwrap();
        let padded = std::fs::read_to_string(&path).unwrap();
        assert_eq!(padded.trim_end_matches([' ', '\n']), line.trim_end());
    }

    #[test]
    fn what_a_full_disk_leaves_of_a_line_is_blank() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        let left = |there: &str, lines: &str| {
            std::fs::write(&path, format!("one\n{there}")).unwrap();
            blank_torn(&OsFs, &path, 4, lines.as_bytes()).unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(left("tw", "two\nthree\n"), "one\n  ");
        assert_eq!(left("two\nth", "two\nthree\n"), "one\ntwo\n  ");
        assert_eq!(left("\ntw", "\ntwo\n"), "one\n\n  ");
        assert_eq!(left("two\n", "two\n"), "one\ntwo\n");
        assert_eq!(left("", "two\n"), "one\n");
        // Somebody else has written behind it, or there alone.
        assert_eq!(left("tw\nfour\n", "two\n"), "one\ntw\nfour\n");
        assert_eq!(left("th", "two\n"), "one\nth");
    }
}
