//! One run's folder: `run.yaml` and `events.jsonl`.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::{FORMAT, StoreError};
use super::chain::Chain;
use super::layout::{read_bounded, replace, stat};
#[cfg(feature = "seal")]
use super::sealed;
use super::sealed::{Content, is_sealed, sealed_file};
use super::yaml::{from_yaml, to_yaml};
use crate::conventions::names;
use crate::fs::{Access, Contents, Fs, FsFile, Identity, temporary_beside, write_again, write_full, write_whole};
use crate::journal::lock;
use crate::model::id::IdSet;
use crate::model::run::LogHash;
use crate::model::{Event, EventId, RunId, RunSummary};
use crate::sources::encode::cut;
use crate::sources::fork::hold_off;
use serde_json::Value as Json;

/// The name of a run's log.
pub(super) const LOG: &str = "events.jsonl";
/// Its name when it is sealed.
pub(super) const SEALED_LOG: &str = "events.jsonl.zst";
/// `run.yaml` is small; what is larger is not ours.
const MAX_RUN_FILE: u64 = 8 << 20;
/// Longest line of the log that is read; records are bounded far below.
const MAX_LINE: usize = 256 << 20;
/// A run's folder is held to 100 MB. Bodies are cut from a little before, so that what still comes fits.
const MAX_RUN_BYTES: u64 = 100_000_000 - 8_000_000;
/// What a disk writes whole or not at all, in bytes; where it writes more at once, a multiple of it.
const SECTOR: u64 = 512;
/// What is left of a text in a run that has reached its bound.
const CUT_TEXT: usize = 256;
/// What went in or came out, as JSON, is cut as one text where it is longer with all its texts cut.
const MAX_CUT_CONTENT: usize = 16 << 10;

/// Returns the path of a run's metadata.
pub(super) fn run_file(dir: &Path) -> PathBuf {
    dir.join("run.yaml")
}

/// Returns the path of a run's log.
pub(super) fn events_file(dir: &Path) -> PathBuf {
    dir.join(LOG)
}

/// Tells whether a run's folder holds more than artifacts.
pub(super) fn is_begun(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    Ok(has_summary(fs, dir)? || is_there(fs, &events_file(dir))? || is_there(fs, &sealed_file(&events_file(dir)))?)
}

/// Tells whether a run's folder has metadata.
pub(super) fn has_summary(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    is_there(fs, &run_file(dir))
}

fn is_there(fs: &dyn Fs, path: &Path) -> Result<bool, StoreError> {
    Ok(stat(fs, path).map_err(StoreError::io("read", path))?.is_some())
}

/// Reads a run's metadata.
pub(super) fn read_summary(fs: &dyn Fs, dir: &Path, run: RunId) -> Result<RunSummary, StoreError> {
    let path = run_file(dir);
    let damaged = |why: String| StoreError::Damaged { run, why: format!("run.yaml: {why}") };
    let text = read_bounded(fs, &path, MAX_RUN_FILE).map_err(|error| {
        if is_damage(&error) { damaged(error.to_string()) } else { StoreError::io("read", &path)(error) }
    })?;
    // What is newer may look otherwise, too.
    let parsed = from_yaml::<RunSummary>(&text);
    let told = parsed.as_ref().map_or_else(|_| format_of(&text), |summary| Some(summary.format));
    if let Some(format) = told.filter(|format| *format > FORMAT) {
        return Err(damaged(format!("format {format} is newer than {FORMAT}: use a newer runspan")));
    }
    let summary = parsed.map_err(damaged)?;
    if summary.run_id != run {
        return Err(damaged(format!("it says it is run {}", summary.run_id)));
    }
    Ok(summary)
}

/// Returns the format that a text says it has; `None` where it says nothing that can be read.
fn format_of(text: &str) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    from_yaml::<Head>(text).ok().map(|head| head.format)
}

/// Tells whether a run was written by a version that knows more than this one, which must not write anything of it anew.
pub(super) fn is_newer(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    let path = run_file(dir);
    match read_bounded(fs, &path, MAX_RUN_FILE) {
        Ok(text) => Ok(format_of(&text).is_some_and(|format| format > FORMAT)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => Ok(false),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Tells whether somebody who writes holds the lock of a run's log. Where that cannot be seen, nobody does.
pub(super) fn is_locked(fs: &dyn Fs, dir: &Path) -> bool {
    let is_held = |path: &Path| {
        let tried = fs.open(path, Access::Read).and_then(|file| file.try_lock(false));
        matches!(tried, Ok(false))
    };
    is_held(&events_file(dir)) || is_held(&sealed_file(&events_file(dir)))
}

fn missing(run: RunId) -> StoreError {
    StoreError::Damaged { run, why: "events.jsonl is missing".to_owned() }
}

/// Tells whether an error says something of what is on the disk, and not of the moment or of who asks.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | InvalidData | IsADirectory | NotADirectory)
        || matches!(error.raw_os_error(), Some(libc::EIO | libc::ELOOP))
}

/// Returns how many lines a run's log has to have at least, by what its metadata says.
fn lines_vouched(fs: &dyn Fs, dir: &Path, run: RunId) -> Result<u64, StoreError> {
    match read_summary(fs, dir, run) {
        Ok(summary) => Ok(summary.events),
        Err(StoreError::Damaged { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Replaces a run's metadata.
pub(super) fn write_summary(fs: &dyn Fs, dir: &Path, summary: &RunSummary, durable: bool) -> Result<(), StoreError> {
    let path = run_file(dir);
    let text = to_yaml(summary).map_err(|why| StoreError::BadStore { path: path.clone(), why })?;
    replace(fs, &path, text.as_bytes(), durable)
}

/// Lets a run's metadata vouch for nothing that a log of so many other lines would not hold: a count, or a hash.
pub(super) fn vouch_for_less(fs: &dyn Fs, dir: &Path, run: RunId, lines: u64, durable: bool) -> Result<(), StoreError> {
    match read_summary(fs, dir, run) {
        Ok(summary) if summary.events > lines || summary.events_sha256.is_some() => {
            let less = RunSummary { events: summary.events.min(lines), events_sha256: None, ..summary };
            write_summary(fs, dir, &less, durable)
        }
        // What cannot be read counts nothing.
        Ok(_) | Err(StoreError::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a run's metadata in a folder that nobody sees yet, so that nothing has to be replaced.
pub(super) fn write_first_summary(
    fs: &dyn Fs,
    dir: &Path,
    summary: &RunSummary,
    durable: bool,
) -> Result<(), StoreError> {
    let path = run_file(dir);
    let text = to_yaml(summary).map_err(|why| StoreError::BadStore { path: path.clone(), why })?;
    write_whole(fs, &path, text.as_bytes(), durable).map_err(StoreError::io("write", path))
}

/// Removes what writers left that died before a temporary file got its name; for the one who has the log's lock.
pub(super) fn remove_leftovers(fs: &dyn Fs, dir: &Path) {
    let entries = fs.list(dir).unwrap_or_default();
    let is_left = |name: &str| name.starts_with('.') && name.ends_with(".tmp");
    for entry in entries.iter().filter(|entry| !entry.is_dir && is_left(&entry.name)) {
        // It harms nobody; the next to take the run up tries again.
        let _ = fs.remove_file(&dir.join(&entry.name));
    }
}

/// Reads a run's events from `from_seq` on. A torn end is left out: its writer died in it, or is in it now.
pub(super) fn read_events(fs: &dyn Fs, dir: &Path, run: RunId, from_seq: u64) -> Result<Vec<Event>, StoreError> {
    // Before the log, which is written first.
    let vouched = lines_vouched(fs, dir, run)?;
    read_lines(fs, dir, run, vouched, |event| (event.seq >= from_seq).then_some(event))
}

/// Goes through a run's events, with one in memory at a time.
pub(super) fn each_event(fs: &dyn Fs, dir: &Path, run: RunId, mut take: impl FnMut(Event)) -> Result<(), StoreError> {
    let vouched = lines_vouched(fs, dir, run)?;
    let keep = |event| {
        take(event);
        None
    };
    read_lines(fs, dir, run, vouched, keep).map(drop)
}

/// Reads all events of a run whose metadata counted so many.
pub(super) fn read_vouched(fs: &dyn Fs, dir: &Path, run: RunId, vouched: u64) -> Result<Vec<Event>, StoreError> {
    read_lines(fs, dir, run, vouched, Some)
}

/// Reads the lines of a run that has no folder yet, all of which were given.
pub(super) fn read_given(lines: &[u8], dir: &Path, run: RunId, vouched: u64) -> Result<Vec<Event>, StoreError> {
    scan(&mut LogReader::of(lines, &events_file(dir)), run, vouched, None, Some).map(|(events, _)| events)
}

fn read_lines(
    fs: &dyn Fs,
    dir: &Path,
    run: RunId,
    vouched: u64,
    keep: impl FnMut(Event) -> Option<Event>,
) -> Result<Vec<Event>, StoreError> {
    let mut lines = LogReader::open(fs, dir, run)?;
    let scanned = scan(&mut lines, run, vouched, None, keep);
    scanned.map(|(events, _)| events)
}

/// Reads a run's whole log, whose writer is dead: its events, and the length of their lines in bytes. None is none.
///
/// `chain` takes the lines in.
pub(super) fn read_log(
    fs: &dyn Fs,
    dir: &Path,
    run: RunId,
    chain: Option<&mut Chain>,
) -> Result<(Vec<Event>, u64), StoreError> {
    let vouched = lines_vouched(fs, dir, run)?;
    if vouched == 0 && !is_there(fs, &events_file(dir))? && !is_there(fs, &sealed_file(&events_file(dir)))? {
        return Ok((Vec::new(), 0));
    }
    scan(&mut LogReader::open(fs, dir, run)?, run, vouched, chain, Some)
}

/// Goes through the log of a run that comes from elsewhere, with one line in memory at a time; `chain` takes its lines in, `take` its
/// events.
///
/// # Errors
///
/// [`StoreError::Damaged`] also where it is longer than `max_bytes`, unsealed.
pub(super) fn check_log(
    fs: &dyn Fs,
    dir: &Path,
    run: RunId,
    chain: &mut Chain,
    max_bytes: u64,
    mut take: impl FnMut(&Event),
) -> Result<(), StoreError> {
    let vouched = lines_vouched(fs, dir, run)?;
    let path = events_file(dir);
    let content = LogReader::open(fs, dir, run)?.lines.into_inner().take(max_bytes + 1);
    let mut lines = LogReader::of(content, &path);
    let keep = |event| {
        take(&event);
        None::<()>
    };
    let scanned = scan(&mut lines, run, vouched, Some(chain), keep);
    if lines.lines.get_ref().limit() == 0 {
        return Err(StoreError::Damaged { run, why: format!("its log is longer than {max_bytes} bytes") });
    }
    scanned.map(drop)
}

/// Reads lines until the end or a torn one; returns what `keep` kept and the length of the whole lines in bytes.
///
/// `vouched`: so many lines have been whole once, so that fewer are damage. `chain` takes the lines in.
fn scan<T, R: io::Read>(
    lines: &mut LogReader<R>,
    run: RunId,
    vouched: u64,
    mut chain: Option<&mut Chain>,
    mut keep: impl FnMut(Event) -> Option<T>,
) -> Result<(Vec<T>, u64), StoreError> {
    let (mut kept, mut seq) = (Vec::new(), 0);
    let damaged =
        |seq: u64, why: String| StoreError::Damaged { run, why: format!("events.jsonl line {}: {why}", seq + 1) };
    loop {
        match lines.next_line()? {
            Line::Event(event) if event.seq == seq => {
                if let Some(chain) = &mut chain {
                    chain.add(lines.line());
                }
                seq += 1;
                kept.extend(keep(*event));
            }
            Line::Event(event) => return Err(damaged(seq, format!("seq {} where {seq} should be", event.seq))),
            Line::Bad(why) => return Err(damaged(seq, why)),
            Line::End { .. } if seq < vouched => {
                return Err(StoreError::Damaged {
                    run,
                    why: format!("events.jsonl ends after {seq} of {vouched} lines"),
                });
            }
            Line::End { .. } => return Ok((kept, lines.whole_bytes())),
        }
    }
}

/// What stands next in a log.
pub(super) enum Line {
    /// A whole line.
    Event(Box<Event>),
    /// A line that is no event, and why not.
    Bad(String),
    /// The end of the whole lines, and so many bytes behind it.
    End {
        /// Of a write that was not finished.
        torn: u64,
    },
}

/// Reads a log line by line, one in memory at a time.
pub(super) struct LogReader<R> {
    lines: BufReader<R>,
    path: PathBuf,
    line: Vec<u8>,
    whole: u64,
}

impl LogReader<Content> {
    /// Opens a run's log, sealed or not.
    pub fn open(fs: &dyn Fs, dir: &Path, run: RunId) -> Result<Self, StoreError> {
        let path = events_file(dir);
        match Content::open(fs, &path) {
            Ok(content) => Ok(Self::of(content, &path)),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(missing(run)),
            Err(StoreError::Io { source, .. }) if is_damage(&source) => {
                Err(StoreError::Damaged { run, why: source.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    /// Tells whether the log is sealed.
    #[cfg(feature = "seal")]
    pub fn is_sealed(&self) -> bool {
        self.lines.get_ref().is_sealed()
    }
}

impl<R: io::Read> LogReader<R> {
    fn of(content: R, path: &Path) -> Self {
        Self { lines: BufReader::with_capacity(1 << 16, content), path: path.to_owned(), line: Vec::new(), whole: 0 }
    }

    /// Returns the length of the whole lines so far, in bytes.
    pub fn whole_bytes(&self) -> u64 {
        self.whole
    }

    /// Returns the line that was read last, with its line feed.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Goes to the next line. What is behind one that is bad is not asked for.
    pub fn next_line(&mut self) -> Result<Line, StoreError> {
        self.line.clear();
        // One byte more than fits, so that what is longer is seen without taking it all in.
        let read = match self.lines.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.line) {
            Ok(read) => read as u64,
            Err(error) if is_damage(&error) => return Ok(Line::Bad(error.to_string())),
            Err(error) => return Err(StoreError::io("read", &self.path)(error)),
        };
        if self.line.len() > MAX_LINE {
            return Ok(Line::Bad(format!("longer than {MAX_LINE} bytes")));
        }
        if self.line.last() != Some(&b'\n') {
            return Ok(Line::End { torn: read });
        }
        match Event::from_line(&self.line) {
            Ok(event) => {
                self.whole += read;
                Ok(Line::Event(Box::new(event)))
            }
            Err(_) if has_hole(&self.line, self.whole) => {
                let behind = io::copy(&mut self.lines, &mut io::sink()).unwrap_or(0);
                Ok(Line::End { torn: read + behind })
            }
            Err(error) => Ok(Line::Bad(error.to_string())),
        }
    }
}

/// Tells whether a line, which begins at `offset`, has a place in it that was never written.
///
/// Of writes that loss of power interrupts the disk may have a later sector and not an earlier one, or that as it was at an
/// earlier moment: it then reads as zeros up to its end. JSON has no zeros.
fn has_hole(line: &[u8], offset: u64) -> bool {
    let is_last_of_sector = |at: usize| (offset + at as u64 + 1).is_multiple_of(SECTOR);
    line.iter().enumerate().any(|(at, byte)| *byte == 0 && is_last_of_sector(at))
}

/// The lock of a run's log, for who changes something else of the run.
#[derive(Debug)]
pub(super) struct LogLock {
    _held: Box<dyn FsFile>,
}

impl LogLock {
    /// Takes the lock, without waiting for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] while another has it, [`StoreError::Damaged`] where there is no log.
    pub fn take(fs: &dyn Fs, dir: &Path, run: RunId) -> Result<Self, StoreError> {
        let path = events_file(dir);
        let path = if is_sealed(fs, &path)? { sealed_file(&path) } else { path };
        let _held_off = hold_off();
        let file = fs.open(&path, Access::ReadWrite).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(run),
            _ => StoreError::io("open", &path)(error),
        })?;
        if matches!(file.try_lock(true), Ok(false)) {
            return Err(StoreError::InUse { run });
        }
        check_named(fs, &*file, &path, run)?;
        Ok(Self { _held: file })
    }

    /// Puts the sealed form in the place of the log, if its lines are as many as its metadata counts and have that hash, or
    /// none is known. Returns the bytes before and after; `None` where it is left as it is.
    #[cfg(feature = "seal")]
    pub fn seal(&self, fs: &dyn Fs, dir: &Path, summary: &RunSummary) -> Result<Option<(u64, u64)>, StoreError> {
        let Some((length, content)) = sealable(fs, dir, summary)? else { return Ok(None) };
        Ok(sealed::seal(fs, &events_file(dir), content)?.map(|sealed| (length, sealed)))
    }
}

/// Tells what [`LogLock::seal`] would return, and changes nothing.
#[cfg(feature = "seal")]
pub(super) fn measure_sealed(fs: &dyn Fs, dir: &Path, summary: &RunSummary) -> Result<Option<(u64, u64)>, StoreError> {
    let Some((length, content)) = sealable(fs, dir, summary)? else { return Ok(None) };
    Ok(sealed::measure(fs, &events_file(dir), content, sealed::For::Log)?.map(|sealed| (length, sealed)))
}

/// Returns the length and the hash of a log that is plain and as `run.yaml` knows it. What is not as it should be stays as it
/// is, for who looks into it.
#[cfg(feature = "seal")]
fn sealable(fs: &dyn Fs, dir: &Path, summary: &RunSummary) -> Result<Option<(u64, LogHash)>, StoreError> {
    let path = events_file(dir);
    let (mut lines, mut chain) = (LogReader::open(fs, dir, summary.run_id)?, Chain::default());
    if lines.is_sealed() {
        return Ok(None);
    }
    scan(&mut lines, summary.run_id, summary.events, Some(&mut chain), |_| None::<()>)?;
    let length = stat(fs, &path).map_err(StoreError::io("read", &path))?.map_or(0, |found| found.len);
    let is_as_known = summary.events_sha256.is_none_or(|known| chain.hash_of(summary.events) == Some(known));
    let is_whole = length == lines.whole_bytes() && chain.hash_of(summary.events).is_some();
    Ok((is_whole && is_as_known).then(|| (length, chain.head())))
}

/// Refuses a log that is not the one of that name any more: its run was removed, or the log made anew, before the lock
/// was had.
fn check_named(fs: &dyn Fs, file: &dyn FsFile, path: &Path, run: RunId) -> Result<(), StoreError> {
    let held = file.stat().map_err(StoreError::io("read", path))?.identity;
    match stat(fs, path).map_err(StoreError::io("read", path))? {
        Some(named) if named.identity == held => Ok(()),
        Some(_) => Err(StoreError::InUse { run }),
        None => Err(StoreError::NotFound { id: run.to_string() }),
    }
}

/// A run's log, open for its one writer.
#[derive(Debug)]
pub(super) struct EventLog {
    path: PathBuf,
    run: RunId,
    /// Locked: a run has one writer. `None` while the log is put by.
    file: Option<Box<dyn FsFile>>,
    /// Which file it is.
    identity: Option<Identity>,
    /// Length of the whole lines: what is beyond after a failed write is cut off before the next.
    length: u64,
    /// What was there when the log was taken up again; told again after a crash, these are passed over.
    known: IdSet<EventId>,
    suspect: bool,
    /// The links of the whole lines.
    chain: Chain,
}

impl EventLog {
    /// Makes the log of a run that is new, in a folder that this process has just made under a name of its own: nobody else puts
    /// anything there, or has its lock.
    pub fn create(fs: &dyn Fs, dir: &Path, run: RunId) -> Result<Self, StoreError> {
        let path = events_file(dir);
        let _held_off = hold_off();
        let file = fs.create_new(&path).map_err(StoreError::io("create", &path))?;
        // Where there are no locks, ids that are never given twice have to do.
        if matches!(file.try_lock(true), Ok(false)) {
            return Err(StoreError::InUse { run });
        }
        Ok(Self::begin(path, run, file))
    }

    fn begin(path: PathBuf, run: RunId, file: Box<dyn FsFile>) -> Self {
        let (known, chain) = (IdSet::default(), Chain::default());
        Self { path, run, file: Some(file), identity: None, length: 0, known, suspect: false, chain }
    }

    /// Opens a run's log, made if it is not there, in its folder, which is. Cuts a torn last line off and hands back what is there; with
    /// `durable` all of it is on the disk then, whoever wrote it.
    ///
    /// `vouched`: so many lines there have to be at least. Fails with [`StoreError::InUse`] while another process has it
    /// open.
    pub fn open(
        fs: &dyn Fs,
        dir: &Path,
        run: RunId,
        vouched: u64,
        durable: bool,
    ) -> Result<(Self, Vec<Event>), StoreError> {
        let path = events_file(dir);
        let access = if vouched == 0 { Access::Create } else { Access::ReadWrite };
        unseal(fs, &path, run)?;
        let file = match open_locked(fs, &path, run, "open", access) {
            // It was sealed while its lock was waited for.
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) if is_sealed(fs, &path)? => {
                unseal(fs, &path, run)?;
                open_locked(fs, &path, run, "open", access)
            }
            opened => opened,
        }?;
        let mut chain = Chain::default();
        let mut lines = LogReader::of(Contents::of(&*file), &path);
        let (events, length) = scan(&mut lines, run, vouched, Some(&mut chain), Some)?;
        drop(lines);
        file.set_len(length).map_err(StoreError::io("truncate", &path))?;
        if durable {
            write_again(&*file, length).map_err(StoreError::io("sync", &path))?;
        }
        let known = events.iter().map(|event| event.event_id).collect();
        let file = Some(file);
        Ok((Self { path, run, file, identity: None, length, known, suspect: false, chain }, events))
    }

    /// Makes a run's log anew: a whole file takes the place of the one that is there, which the caller has open.
    ///
    /// The new one is on the disk before it does, durable or not: what it replaces may be long since.
    pub fn replace(
        fs: &dyn Fs,
        dir: &Path,
        run: RunId,
        events: &[Event],
        durable: bool,
        lines: &mut Vec<u8>,
    ) -> Result<Self, StoreError> {
        let path = events_file(dir);
        let making = temporary_beside(&path);
        let file = open_locked(fs, &making, run, "create", Access::Create)?;
        let mut log = Self::begin(making.clone(), run, file);
        let renamed = log.append(events, true, lines).and_then(|()| {
            fs.rename(&making, &path).map_err(StoreError::io("write", &path))?;
            if durable { fs.sync_dir(dir).map_err(StoreError::io("sync", dir)) } else { Ok(()) }
        });
        if let Err(error) = renamed {
            let _ = fs.remove_file(&making);
            return Err(error);
        }
        log.moved_to(dir);
        log.known = events.iter().map(|event| event.event_id).collect();
        Ok(log)
    }

    /// Closes the file, and lets go of its lock, until [`wake`](Self::wake): a process may have more runs under way than it may have
    /// files open. What they are the writer's own says `run.yaml`. One with what a failed write has left stays open.
    pub fn put_by(&mut self) {
        if self.suspect {
            return;
        }
        if let Some(Ok(found)) = self.file.as_ref().map(|file| file.stat())
            && found.len == self.length
        {
            (self.file, self.identity) = (None, Some(found.identity));
        }
    }

    /// Tells whether the file is closed.
    pub fn is_put_by(&self) -> bool {
        self.file.is_none()
    }

    /// Opens the file again, if it is closed. `false` when it is not as it was left: the log has to be read anew.
    pub fn wake(&mut self, fs: &dyn Fs) -> Result<bool, StoreError> {
        if self.file.is_some() {
            return Ok(true);
        }
        let file = match open_locked(fs, &self.path, self.run, "open", Access::ReadWrite) {
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => return Ok(false),
            opened => opened?,
        };
        let found = file.stat().map_err(StoreError::io("read", &self.path))?;
        if found.len != self.length || self.identity != Some(found.identity) {
            return Ok(false);
        }
        self.file = Some(file);
        Ok(true)
    }

    fn file(&self) -> io::Result<&dyn FsFile> {
        self.file.as_deref().ok_or_else(|| io::Error::other("the log is put by"))
    }

    /// Tells the log that its folder has another name now; the open file is the same.
    pub fn moved_to(&mut self, dir: &Path) {
        self.path = events_file(dir);
    }

    /// Appends events that are not there yet, all in one write. `lines` is room to write them in.
    ///
    /// After an error none of them is there. They are written anew when they are told again, so that a sync which works
    /// then is one of theirs.
    pub fn append(&mut self, events: &[Event], durable: bool, lines: &mut Vec<u8>) -> Result<(), StoreError> {
        if self.suspect {
            self.cut(durable).map_err(StoreError::io("truncate", &self.path))?;
            self.suspect = false;
        }
        lines_of(self.run, events, &self.known, self.length, lines)?;
        self.append_lines(lines, durable)
    }

    /// Appends whole lines, all in one write.
    pub fn append_lines(&mut self, lines: &[u8], durable: bool) -> Result<(), StoreError> {
        let file = self.file().map_err(StoreError::io("write", &self.path))?;
        let written = write_full(file, lines, self.length);
        match written.and_then(|()| if durable { file.sync_data() } else { Ok(()) }) {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.chain.add(lines);
                Ok(())
            }
            Err(error) => {
                // Nobody is to see what is not there for good; the next to append makes sure of it.
                let is_cut = file.set_len(self.length).is_ok();
                self.suspect = durable || !is_cut;
                Err(StoreError::io("write", &self.path)(error))
            }
        }
    }

    /// Returns how many whole lines it has.
    pub fn lines(&self) -> u64 {
        self.chain.lines()
    }

    /// Returns the hash of the log for its metadata: of as many lines as that counts, if there are as many, and of a run
    /// that is not under way. Until then its lines may still be put in another order.
    pub fn hash_for(&self, summary: &RunSummary) -> Option<LogHash> {
        self.chain.hash_for(summary)
    }

    /// Writes what names the first line that is changed, should one be. `room` is room to write it in.
    pub fn write_chain(&mut self, fs: &dyn Fs, dir: &Path, room: &mut Vec<u8>) {
        // Nothing depends on it: the next to write it writes all of it.
        let _ = self.chain.write(fs, dir, room);
    }

    /// Cuts off what stands behind the whole lines; with `durable` from the disk too, where parts of it and of what is
    /// written next could else come to stand side by side.
    fn cut(&self, durable: bool) -> io::Result<()> {
        let file = self.file()?;
        file.set_len(self.length)?;
        if durable { file.sync_data() } else { Ok(()) }
    }
}

/// Puts into `lines` the events that are not known, as the lines behind `length` bytes of log.
pub(super) fn lines_of(
    run: RunId,
    events: &[Event],
    known: &IdSet<EventId>,
    length: u64,
    lines: &mut Vec<u8>,
) -> Result<(), StoreError> {
    lines.clear();
    for event in events.iter().filter(|event| !known.contains(&event.event_id)) {
        let fits = length + (lines.len() as u64) < MAX_RUN_BYTES;
        let written = if fits { event.write_line(lines) } else { write_cut(lines, event) };
        written.map_err(|error| StoreError::Damaged { run, why: format!("event {}: {error}", event.seq) })?;
        lines.push(b'\n');
    }
    Ok(())
}

/// Makes a log plain again that is sealed, for who goes on with it.
#[cfg(feature = "seal")]
fn unseal(fs: &dyn Fs, path: &Path, run: RunId) -> Result<(), StoreError> {
    if !is_sealed(fs, path)? {
        return Ok(());
    }
    // One at a time; whoever waited finds it done.
    let file = match open_locked(fs, &sealed_file(path), run, "open", Access::ReadWrite) {
        Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) if !is_sealed(fs, path)? => return Ok(()),
        opened => opened?,
    };
    let unsealed = match is_sealed(fs, path)? {
        true => sealed::unseal(fs, path, Content::open(fs, path)?),
        false => Ok(()),
    };
    drop(file);
    unsealed
}

#[cfg(not(feature = "seal"))]
fn unseal(fs: &dyn Fs, path: &Path, _: RunId) -> Result<(), StoreError> {
    // Says what is missing.
    if is_sealed(fs, path)? { Content::open(fs, path).map(|_| ()) } else { Ok(()) }
}

/// Opens a log and takes its lock, for this process and none of the children that it forks, not even one that is forked
/// at this moment.
fn open_locked(
    fs: &dyn Fs,
    path: &Path,
    run: RunId,
    action: &'static str,
    access: Access,
) -> Result<Box<dyn FsFile>, StoreError> {
    // Where there are no locks, ids that are never given twice have to do.
    let is_held = |file: &dyn FsFile| matches!(file.try_lock(true), Ok(false));
    let (file, mut held) = {
        let _held_off = hold_off();
        let file = fs.open(path, access).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if access != Access::Create => missing(run),
            _ => StoreError::io(action, path)(error),
        })?;
        let held = is_held(&*file);
        (file, held)
    };
    let until = Instant::now() + lock::PATIENCE;
    while held {
        if Instant::now() >= until {
            return Err(StoreError::InUse { run });
        }
        std::thread::sleep(lock::POLL);
        held = is_held(&*file);
    }
    check_named(fs, &*file, path, run)?;
    Ok(file)
}

/// Writes an event of a run that has reached its bound and goes on all the same: long texts are cut, and of a step's
/// span stays what says which step it is, how it ended and what it cost, and what went in and came out, cut likewise. Some
/// 1.3 KB a step remain, both lines together, and its short texts.
fn write_cut(out: &mut Vec<u8>, event: &Event) -> serde_json::Result<()> {
    let mut value = serde_json::to_value(event)?;
    let mut content = Vec::new();
    if let Some(data) = value.get_mut("data").filter(|data| data.get("span").is_some_and(Json::is_object)) {
        for part in ["resource", "scope"] {
            data[part] = Json::Null;
        }
        content = strip_span(&mut data["span"]);
    }
    shorten(&mut value);
    content.iter_mut().for_each(shorten_content);
    if let Some(Json::Array(kept)) = value.pointer_mut("/data/span/attributes") {
        kept.append(&mut content);
    }
    serde_json::to_writer(out, &value)
}

fn shorten(value: &mut Json) {
    match value {
        Json::String(text) if text.len() > CUT_TEXT * 2 => *text = cut(text, CUT_TEXT),
        Json::Array(list) => list.iter_mut().for_each(shorten),
        Json::Object(map) => map.values_mut().for_each(shorten),
        _ => {}
    }
}

/// Cuts long texts of an attribute; of one that is JSON, those in it, so that it can be read as before.
fn shorten_content(attribute: &mut Json) {
    if let Some(Json::String(text)) = attribute.pointer_mut("/value/stringValue")
        && text.len() > CUT_TEXT * 2
        && let Ok(mut inner @ (Json::Array(_) | Json::Object(_))) = serde_json::from_str(text)
    {
        shorten(&mut inner);
        let shortened = inner.to_string();
        if shortened.len() <= MAX_CUT_CONTENT {
            *text = shortened;
            return;
        }
    }
    shorten(attribute);
}

/// Leaves out attributes, events and links, and counts them as OTLP does. Returns the attributes that stay besides, which
/// hold what went in and came out.
fn strip_span(span: &mut Json) -> Vec<Json> {
    let left_out = |span: &Json, count: &str, of: &str| {
        let before = span.get(count).and_then(Json::as_u64).unwrap_or(0);
        before + span.get(of).and_then(Json::as_array).map_or(0, |list| list.len() as u64)
    };
    let is_of = |attribute: &Json, names: &[&str]| {
        attribute.get("key").and_then(Json::as_str).is_some_and(|key| names.contains(&key))
    };
    let (events, links) =
        (left_out(span, "droppedEventsCount", "events"), left_out(span, "droppedLinksCount", "links"));
    let attributes = left_out(span, "droppedAttributesCount", "attributes");
    let Some(map) = span.as_object_mut() else { return Vec::new() };
    let mut kept: Vec<Json> = match map.remove("attributes") {
        Some(Json::Array(list)) => list,
        _ => Vec::new(),
    };
    let all = kept.len();
    // Of one that was cut before, and is written once more.
    kept.retain(|attribute| !is_of(attribute, &[names::CUT]));
    let marks = all - kept.len();
    let (content, mut kept): (Vec<Json>, Vec<Json>) =
        kept.into_iter().partition(|attribute| is_of(attribute, names::TELL_CONTENT));
    kept.retain(|attribute| is_of(attribute, names::TELL_WHICH) || is_of(attribute, names::TELL_OUTCOME));
    let attributes = attributes - (kept.len() + content.len() + marks) as u64;
    kept.push(serde_json::json!({"key": names::CUT, "value": {"stringValue": names::CUT_RUN}}));
    map.insert("attributes".to_owned(), Json::Array(kept));
    for (list, count, left_out) in [
        ("", "droppedAttributesCount", attributes),
        ("events", "droppedEventsCount", events),
        ("links", "droppedLinksCount", links),
    ] {
        map.remove(list);
        if left_out > 0 {
            map.insert(count.to_owned(), left_out.into());
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::json_text::JsonText;
    use crate::model::otlp::{Resource, Span, SpanEvent};
    use crate::model::{EventId, UnixNanos};
    use crate::pipeline::facts::{Marks, StepFacts};
    use crate::store::assembly::{RunState, ended_body};

    #[test]
    fn a_run_at_its_bound_keeps_which_steps_there_were_and_what_they_cost() {
        let mut span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "chat".to_owned(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            events: vec![SpanEvent::default(); 2],
            ..Span::default()
        };
        span.set_attr(names::OPERATION, "chat");
        span.set_attr(names::PROVIDER, "openai");
        span.set_attr(names::RESPONSE_MODEL, "gpt-4o");
        span.set_attr(names::INPUT_TOKENS, 100);
        span.set_attr(names::OUTPUT_TOKENS, 10);
        span.set_attr(names::COST_USD, 0.25);
        span.set_attr("of.my.own", "x");
        let said = |text: &str| serde_json::json!([{"role": "user", "parts": [{"type": "text", "content": text}]}]);
        span.set_attr(names::INPUT_MESSAGES, said(&"y".repeat(10_000)).to_string());
        span.set_attr(names::OUTPUT_MESSAGES, said("short").to_string());
        span.set_attr(names::SYSTEM_INSTRUCTIONS, "z".repeat(1_000));
        let facts = StepFacts::of(&span, None, None);
        let body = ended_body(span, &facts, *facts.content.clone(), Some(Default::default()), Some(Default::default()));
        let id = EventId::fresh(UnixNanos(1));
        let event = Event { seq: 0, event_id: id, parent_event_id: None, timestamp: UnixNanos(9), step_id: None, body };
        let mut line = Vec::new();
        write_cut(&mut line, &event).unwrap();
        assert!(line.len() < 3_000, "{} bytes", line.len());
        let read: Event = serde_json::from_slice(&line).unwrap();
        let (span, resource, _) = read.body.span().unwrap();
        assert_eq!(resource, None::<&Resource>);
        assert_eq!((span.dropped_attributes_count, span.dropped_events_count), (1, 2));
        let kept = StepFacts::of(span, None, None);
        let cut_input = said(&format!("{}[cut:9744]", "y".repeat(256)));
        assert_eq!(kept.content.input.as_ref().map(JsonText::value), Some(cut_input.clone()));
        assert_eq!(kept.content.output.as_ref().map(JsonText::value), Some(said("short")));
        let told = serde_json::to_value(&read).unwrap();
        assert_eq!((&told["data"]["messages"], &told["data"]["output"]), (&cut_input, &said("short")));
        assert_eq!(told["data"]["system_prompt"], format!("{}[cut:744]", "z".repeat(256)));
        let without_content = |facts: &StepFacts| {
            // Nor can it be known by its input any more.
            let marks = facts.marks.clone().map(|marks| Box::new(Marks { input: None, question: None, ..*marks }));
            StepFacts { content: Box::default(), marks, ..facts.clone() }
        };
        assert_eq!(without_content(&kept), without_content(&facts));
        // Made again of its span, as when the log is put in order, and cut once more, it is the same.
        let body = ended_body(span.clone(), &kept, *kept.content.clone(), None, None);
        let mut again = Vec::new();
        write_cut(&mut again, &Event { body, ..read.clone() }).unwrap();
        let value = |line: &[u8]| serde_json::from_slice::<Json>(line).unwrap();
        assert_eq!(value(&again), value(&line));
        // Both add up to the same.
        let mut state = RunState::new(RunId([1; 16]), RunId([1; 16]).as_trace_id());
        state.apply(&read, false);
        assert_eq!(state.next_seq(), 1);
    }
}
