//! `runspan tail`: runs, or one run's events, as they happen.
//!
//! It follows the files that writers append to: `index.log` for all runs, `events.jsonl` for one. A look at a file that
//! has not grown costs one system call, so looking often is cheap.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use runspan::model::{Event, EventBody, EventId, RunId, RunStatus, RunSummary, UnixNanos};
use runspan::recovery;
use runspan::store::files::FilesReader;
use runspan::store::{Listed, Query, RunReader, StoreError};

use super::output::{DIM, Look, YELLOW, count, error_text, json_line, money, run_status, safe, says_nothing};
use super::time::{clock, whole_duration};
use super::{CODE_FAILED, CODE_NO, Done, Format, Session, Stop, events, open_store};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How often runs that say nothing are asked whether their process is still there.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Asking takes no more than this part of the time.
const ASK_SHARE: u32 = 20;
/// So many runs are remembered as shown, and all that are under way.
const MAX_SHOWN: usize = 10_000;
/// Read at one go.
const CHUNK: u64 = 16 << 20;

/// What `tail` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan tail                  a line when a run starts, changes or ends
  runspan tail latest           the newest run's events, until it has ended
  runspan tail --json | jq .status

It ends with the run that it follows, with Ctrl-C, or when nobody reads its output.")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`; without it, all runs
    id: Option<String>,
}

/// Follows until there is nothing more to come.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    match &args.id {
        Some(id) => {
            let reader = session.open_for(id)?;
            let run = recovery::resolve(&reader, id)?;
            RunTail::new(run, reader).follow(session)
        }
        None => {
            let reader = wait_for_store(session)?;
            StoreTail::new(reader)?.follow(session)
        }
    }
}

/// Returns the store; waits for the program that makes it.
fn wait_for_store(session: &mut Session<'_>) -> Result<FilesReader, Stop> {
    let mut is_told = false;
    loop {
        let (path, _) = session.store_path();
        match open_store(&path) {
            Err(StoreError::NoStore { path }) => {
                if !is_told {
                    session.hint(&format!("no store at {} yet; waiting for it", safe(&path.display().to_string())));
                    is_told = true;
                }
            }
            opened => return Ok(opened?),
        }
        session.pause()?;
    }
}

impl Session<'_> {
    /// Waits a moment; ends the command when nobody reads its output any more.
    pub(super) fn pause(&mut self) -> Done {
        self.pause_for(LOOK_EVERY)
    }

    /// Waits for so long; ends the command likewise.
    pub(super) fn pause_for(&mut self, length: Duration) -> Done {
        let begun = Instant::now();
        loop {
            self.flush()?;
            if self.is_stdout && is_output_closed() {
                return Err(Stop::PipeClosed);
            }
            let left = length.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Prints a value for programs, in JSON on a line of its own.
    pub(super) fn print_line(&mut self, value: &impl serde::Serialize) -> Done {
        let line = match self.format {
            Format::Yaml => super::output::yaml(value).map(|text| format!("---\n{text}")),
            _ => json_line(value),
        };
        self.print(&line?)
    }
}

/// Tells whether the reader of a pipe has gone; writing would tell too, but there may be nothing to write for long.
fn is_output_closed() -> bool {
    let mut wanted = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
    // SAFETY: one pollfd that lives through the call; no time to wait.
    let ready = unsafe { libc::poll(&mut wanted, 1, 0) };
    ready > 0 && wanted.revents & (libc::POLLERR | libc::POLLNVAL) != 0
}

/// Follows the whole lines of a file that others append to.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    /// Where the first line begins that has not been read.
    offset: u64,
    /// Device and number of the file that this is a place in: another may have been put in its place.
    file: Option<(u64, u64)>,
}

/// What a look at a file found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// These bytes are new: whole lines, perhaps none.
    Lines(Vec<u8>),
    /// The file is not there.
    Gone,
}

impl Follower {
    fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, file: None }
    }

    /// Passes over what is there.
    fn skip_to_end(&mut self) {
        let found = std::fs::metadata(&self.path).ok();
        self.offset = found.as_ref().map_or(0, std::fs::Metadata::len);
        self.file = found.map(|meta| (meta.dev(), meta.ino()));
    }

    /// Goes back to the beginning of a file that was written anew; tells whether nothing is new in it.
    fn begin_in(&mut self, found: &std::fs::Metadata) -> bool {
        let file = Some((found.dev(), found.ino()));
        if found.len() < self.offset || (self.file.is_some() && self.file != file) {
            self.offset = 0;
        }
        self.file = file;
        found.len() == self.offset
    }

    /// Reads the lines that are new. What has no line break yet is left for later: its writer is in the middle of it.
    fn look(&mut self) -> io::Result<Found> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Gone),
            Err(error) => return Err(error),
        };
        if self.begin_in(&found) {
            return Ok(Found::Lines(Vec::new()));
        }
        let mut file = File::open(&self.path)?;
        if self.begin_in(&file.metadata()?) {
            return Ok(Found::Lines(Vec::new()));
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let (mut bytes, mut chunk) = (Vec::new(), CHUNK);
        loop {
            let read = file.by_ref().take(chunk).read_to_end(&mut bytes)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
                bytes.truncate(last + 1);
                self.offset += bytes.len() as u64;
                return Ok(Found::Lines(bytes));
            }
            if (read as u64) < chunk {
                return Ok(Found::Lines(Vec::new()));
            }
            // A line longer than a chunk.
            chunk = chunk.saturating_mul(2);
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Decides when it is time to ask again for what no file tells.
#[derive(Debug)]
struct Clock {
    next: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { next: Instant::now() }
    }

    /// Runs `ask` when it is time; what takes long is asked less often.
    fn when_due<T>(&mut self, ask: impl FnOnce() -> T) -> Option<T> {
        let begun = Instant::now();
        if begun < self.next {
            return None;
        }
        let answer = ask();
        self.next = Instant::now() + ASK_EVERY.max(begun.elapsed() * ASK_SHARE);
        Some(answer)
    }
}

/// The events that were shown of a run. Its log may be written anew, in another order, with more at any place in it.
#[derive(Debug, Default)]
struct Shown {
    ids: HashSet<EventId>,
    is_started: bool,
    /// How many.
    seq: u64,
}

impl Shown {
    /// Returns an event that was not shown, as the next one: what is shown is append-only, numbered from 0 without a gap.
    fn take(&mut self, event: Event) -> Option<Event> {
        // That a run has begun is told with another id when another step turns out to be its first.
        let is_start = matches!(event.body, EventBody::RunStarted(_));
        if !self.ids.insert(event.event_id) || is_start && std::mem::replace(&mut self.is_started, true) {
            return None;
        }
        let seq = self.seq;
        self.seq += 1;
        Some(Event { seq, ..event })
    }
}

/// One run's events.
struct RunTail {
    run: RunId,
    reader: FilesReader,
    follower: Option<Follower>,
    start: Option<UnixNanos>,
    shown: Shown,
    is_over: bool,
    clock: Clock,
}

impl RunTail {
    fn new(run: RunId, reader: FilesReader) -> Self {
        Self { run, reader, follower: None, start: None, shown: Shown::default(), is_over: false, clock: Clock::new() }
    }

    fn follow(&mut self, session: &mut Session<'_>) -> Done {
        loop {
            let progress = self.print_new(session)?;
            if self.is_over {
                return Ok(());
            }
            if progress {
                continue;
            }
            let (reader, run) = (&mut self.reader, self.run);
            // Opening takes over what dead processes left, so a crash is noticed here at the latest.
            let asked = self.clock.when_due(|| {
                *reader = open_store(reader.layout().root())?;
                reader.get_run(run)
            });
            match asked {
                Some(Ok(summary)) => {
                    self.print_unwritten(session)?;
                    if summary.status.is_open() {
                        continue;
                    }
                    while self.print_new(session)? {}
                    // Of a log that is sealed there is nothing to follow.
                    self.print_rest(session)?;
                    if !self.is_over {
                        session.remark(&format!("run {run} is over: {}", summary.status));
                    }
                    return Ok(());
                }
                Some(Err(error)) => return Err(error.into()),
                None => session.pause()?,
            }
        }
    }

    /// Prints what a dead process left of the run where it could not be written into the files.
    fn print_unwritten(&mut self, session: &mut Session<'_>) -> Done {
        if !self.reader.unwritten_runs().contains(&self.run) {
            return Ok(());
        }
        while self.print_new(session)? {}
        self.print_rest(session)
    }

    /// Prints what is not shown yet of all that the store has.
    fn print_rest(&mut self, session: &mut Session<'_>) -> Done {
        for event in self.reader.get_events(self.run, 0)? {
            self.print_unshown(event, session)?;
        }
        Ok(())
    }

    /// Prints what is new; tells whether anything was.
    fn print_new(&mut self, session: &mut Session<'_>) -> Result<bool, Stop> {
        let run = self.run;
        let follower = match &mut self.follower {
            Some(follower) => follower,
            None => {
                // Without a folder it may be that only a dead process's memory has it: the reader knows.
                let Some(dir) = self.reader.layout().find_run(run)? else { return Ok(false) };
                self.follower.insert(Follower::new(dir.join("events.jsonl")))
            }
        };
        let first = self.shown.seq;
        let bytes = match follower.look() {
            Ok(Found::Lines(bytes)) => bytes,
            Ok(Found::Gone) if first == 0 && self.reader.layout().find_run(run)?.is_some() => Vec::new(),
            Ok(Found::Gone) => {
                // It may have gone into a pack, or have been sealed.
                self.reader = open_store(self.reader.layout().root())?;
                if let Err(StoreError::NotFound { .. }) = self.reader.get_run(run) {
                    return Err(Stop::failed(CODE_NO, format!("run {run} was deleted while it was followed")));
                }
                self.print_rest(session)?;
                return Ok(self.shown.seq > first);
            }
            Err(error) => return Err(Stop::failed(CODE_FAILED, format!("cannot read the log of run {run}: {error}"))),
        };
        for (line, number) in lines(&bytes).zip(1_u64..) {
            let event: Event = serde_json::from_slice(line).map_err(|error| StoreError::Damaged {
                run,
                why: format!("events.jsonl line {}: {error}", first + number),
            })?;
            self.print_unshown(event, session)?;
        }
        Ok(self.shown.seq > first)
    }

    fn print_unshown(&mut self, event: Event, session: &mut Session<'_>) -> Done {
        self.shown.take(event).map_or(Ok(()), |event| self.print_event(&event, session))
    }

    fn print_event(&mut self, event: &Event, session: &mut Session<'_>) -> Done {
        self.is_over = match &event.body {
            EventBody::RunCompleted(_) => true,
            EventBody::StatusChanged(change) => !change.to.is_open() && change.to != RunStatus::Cancelled,
            _ => self.is_over,
        };
        if session.format != Format::Table {
            return session.print_line(event);
        }
        let start = *self.start.get_or_insert(event.timestamp);
        let look = session.look;
        session.print(&events::line(event, start, look))
    }
}

/// All runs of a store.
struct StoreTail {
    reader: FilesReader,
    follower: Follower,
    /// What was shown last, of each run that is under way and of those that ended of late.
    shown: HashMap<RunId, (RunStatus, String)>,
    clock: Clock,
}

impl StoreTail {
    fn new(reader: FilesReader) -> Result<Self, Stop> {
        let mut follower = Follower::new(reader.layout().index_log());
        follower.skip_to_end();
        let mut tail = Self { reader, follower, shown: HashMap::new(), clock: Clock::new() };
        // What is over by now is no news.
        for summary in tail.unwritten() {
            if !summary.status.is_open() {
                tail.shown.insert(summary.run_id, (summary.status, summary.name().to_owned()));
            }
        }
        Ok(tail)
    }

    /// Returns the runs of which dead processes left something that no line of the index tells.
    fn unwritten(&self) -> Vec<RunSummary> {
        let runs = self.reader.unwritten_runs();
        runs.into_iter().filter_map(|run| self.reader.get_run(run).ok()).collect()
    }

    fn follow(&mut self, session: &mut Session<'_>) -> Done {
        for status in [RunStatus::Waiting, RunStatus::Running] {
            let query = Query { status: Some(status), ..Query::default() };
            for run in self.reader.list_runs(&query)?.iter().rev() {
                if let Listed::Run(run) = run {
                    self.print_change(&run.summary, session)?;
                }
            }
        }
        loop {
            let bytes = match self.follower.look() {
                Ok(Found::Lines(bytes)) => bytes,
                // Nothing has run yet, or the store was removed and may come back.
                Ok(Found::Gone) => Vec::new(),
                Err(error) => return Err(Stop::failed(CODE_FAILED, format!("cannot follow the store: {error}"))),
            };
            for line in lines(&bytes) {
                // A line that cannot be read costs itself, as everywhere.
                if let Ok(summary) = serde_json::from_slice::<RunSummary>(line) {
                    self.print_change(&summary, session)?;
                }
            }
            self.ask_the_silent(session)?;
            session.pause()?;
        }
    }

    /// Looks for runs whose process died or whose folder was removed: neither writes a line.
    fn ask_the_silent(&mut self, session: &mut Session<'_>) -> Done {
        let (reader, shown) = (&mut self.reader, &self.shown);
        let asked = self.clock.when_due(|| {
            if let Ok(opened) = open_store(reader.layout().root()) {
                *reader = opened;
            }
            let open = shown.iter().filter(|(_, (status, _))| status.is_open());
            open.map(|(run, _)| (*run, reader.get_run(*run))).collect::<Vec<_>>()
        });
        let Some(asked) = asked else { return Ok(()) };
        for summary in self.unwritten() {
            self.print_change(&summary, session)?;
        }
        for (run, answer) in asked {
            match answer {
                Ok(summary) => self.print_change(&summary, session)?,
                Err(StoreError::NotFound { .. }) => {
                    if let Some((_, name)) = self.shown.remove(&run)
                        && session.format == Format::Table
                    {
                        let look = session.look;
                        let text = format!("{}  - deleted    {}  {}\n", clock(UnixNanos::now()), run, safe(&name));
                        session.print(&look.paint(YELLOW, &text))?;
                    }
                }
                // Damaged or not readable just now: `list` says so.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn print_change(&mut self, summary: &RunSummary, session: &mut Session<'_>) -> Done {
        let shown = (summary.status, summary.name().to_owned());
        if self.shown.len() >= MAX_SHOWN {
            self.shown.retain(|_, (status, _)| status.is_open());
        }
        let known = self.shown.insert(summary.run_id, shown.clone());
        if known.as_ref() == Some(&shown) {
            return Ok(());
        }
        if session.format != Format::Table {
            return session.print_line(summary);
        }
        let look = session.look;
        session.print(&run_line(summary, look))
    }
}

fn run_line(summary: &RunSummary, look: Look) -> String {
    let (sign, style) = run_status(summary.status);
    let mut words: Vec<String> = Vec::new();
    words.extend(summary.duration_ms.map(whole_duration));
    words.extend(summary.tokens.and_then(|tokens| tokens.with_total().total).map(|n| format!("{} tokens", count(n))));
    words.extend(summary.cost_usd.map(money));
    let cancelled = summary.status == RunStatus::Cancelled;
    words.extend(summary.error.as_ref().filter(|error| !(cancelled && says_nothing(error))).map(error_text));
    let status = format!("{:<9}", summary.status);
    let line = format!(
        "{}  {} {}  {}  {} {}  {}",
        look.paint(DIM, &clock(summary.updated_at)),
        look.paint(style, sign),
        look.paint(style, &status),
        summary.run_id,
        look.paint(DIM, summary.kind.as_str()),
        safe(summary.name()),
        look.paint(DIM, &safe(&words.join("  "))),
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use runspan::model::event::Output;
    use std::io::Write;

    #[test]
    fn of_a_log_that_is_written_anew_each_event_is_shown_once() {
        let event = |id: u64, body: EventBody| Event {
            seq: 0,
            event_id: EventId::from_parts(id, [0; 10]),
            parent_event_id: None,
            timestamp: UnixNanos(1),
            step_id: None,
            body,
        };
        let started = || serde_json::json!({"kind": "agent", "name": "a", "trace_id": "1".repeat(32), "tags": []});
        let start = |id| event(id, EventBody::RunStarted(serde_json::from_value(started()).unwrap()));
        let output = |id| event(id, EventBody::Output(Output { data: id.into() }));
        let mut shown = Shown::default();
        // A child comes before the root, which then is told before it.
        let before = [start(1), output(2), output(3)];
        let anew = [start(4), output(5), output(2), output(3), output(6)];
        let told: Vec<_> = before.into_iter().chain(anew).filter_map(|event| shown.take(event)).collect();
        let told: Vec<_> = told.iter().map(|event| (event.seq, event.event_id.0[5])).collect();
        assert_eq!(told, [(0, 1), (1, 2), (2, 3), (3, 5), (4, 6)]);
    }

    #[test]
    fn half_a_line_waits_for_its_other_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(path.clone());
        assert_eq!(follower.look().unwrap(), Found::Gone);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(follower.look().unwrap(), Found::Lines(b"one\n".to_vec()));
        assert_eq!(follower.look().unwrap(), Found::Lines(Vec::new()));
        file.write_all(b"o\nthree\n").unwrap();
        assert_eq!(follower.look().unwrap(), Found::Lines(b"two\nthree\n".to_vec()));
        std::fs::write(&path, b"new\n").unwrap();
        assert_eq!(follower.look().unwrap(), Found::Lines(b"new\n".to_vec()));
        // Another one in its place, and longer: who takes a run up may write its log anew.
        std::fs::write(dir.path().join("other"), b"first\nsecond\n").unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(follower.look().unwrap(), Found::Lines(b"first\nsecond\n".to_vec()));
        assert_eq!(follower.look().unwrap(), Found::Lines(Vec::new()));
    }
}
