//! Checks one run: its log line by line, and all that is said of it elsewhere against the log.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::super::artifacts;
use super::super::chain::{self, Chain};
use super::super::layout::{Layout, is_plain_dir, stat};
use super::super::requests;
use super::super::run_dir::{self, Line, LogReader};
use super::super::sealed::is_sealed;
use super::super::sums::Sums;
use super::super::writer_is_alive;
use super::index::Lines;
use super::{Cure, Head, Problem, RunCheck, Verdict};
use crate::model::event::EventBody;
use crate::model::id::IdMap;
use crate::model::run::{ArtifactContent, ArtifactInfo, LogHash};
use crate::model::{Event, EventId, RunId, RunKind, RunSummary};
use crate::store::StoreError;
use crate::store::assembly::RunState;

/// How often a run is looked at again that is being written just now, and how long in between.
pub(super) const LOOKS: u32 = 5;
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Problems of one run that are told; the first of each kind says most.
const MAX_PROBLEMS: usize = 20;

/// Somebody who knows how a log was.
struct Voucher {
    by: &'static str,
    /// So many lines it had, at least.
    events: u64,
    /// Their hash.
    sha256: Option<LogHash>,
}

/// What the log says, read up to its end or to the first line that is not as it should be.
struct Log {
    state: RunState,
    lines: u64,
    bytes: u64,
    /// The first line that is not as it should be, and why not.
    bad: Option<(Option<u64>, String)>,
    /// Bytes behind the last whole line.
    torn: u64,
    chain: Chain,
    /// Hashes of the first so many lines, of those that were asked for and are there.
    hashes: BTreeMap<u64, LogHash>,
    artifacts: Vec<ArtifactInfo>,
}

/// Checks a run; `lines` are those of `index.log`, and `against` is how its log was once.
///
/// What is only so because a process is writing at this moment is no damage.
pub(super) fn check(
    layout: &Layout,
    kind: RunKind,
    run: RunId,
    lines: &Lines,
    against: Option<&Head>,
) -> Result<RunCheck, StoreError> {
    let dir = layout.run(kind, run);
    let once = || {
        for _ in 1..LOOKS {
            match (Look { layout, dir: dir.clone(), run, problems: Vec::new() }).check(lines, against) {
                // It has gone while it was looked at, or stands elsewhere now.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                checked => return checked,
            }
            if !run_dir::is_begun(layout.fs(), &dir)? {
                return Ok(RunCheck::new(run));
            }
        }
        Look { layout, dir: dir.clone(), run, problems: Vec::new() }.check(lines, against)
    };
    let mut check = once()?;
    for _ in 1..LOOKS {
        if check.problems.is_empty() || !is_being_written(layout, kind, run)? {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        check = once()?;
    }
    if !check.problems.is_empty() && is_being_written(layout, kind, run)? {
        // Behind for a moment, as any writer is; what it has written once stays damaged.
        check.problems.retain(|problem| !problem.is_of_the_moment);
        check.verdict = Verdict::BeingWritten;
    }
    if !check.problems.is_empty() {
        check.verdict = Verdict::Damaged;
    }
    Ok(check)
}

/// Tells whether a process that lives writes the run, or another has its log open to.
pub(super) fn is_being_written(layout: &Layout, kind: RunKind, run: RunId) -> Result<bool, StoreError> {
    let dir = layout.run(kind, run);
    let is_open = match run_dir::read_summary(layout.fs(), &dir, run) {
        Ok(summary) => summary.status.is_open() && summary.writer.is_some_and(|writer| writer_is_alive(layout, writer)),
        Err(StoreError::Damaged { .. }) => false,
        Err(error) => return Err(error),
    };
    Ok(is_open || run_dir::is_locked(layout.fs(), &dir))
}

/// One look at a run.
struct Look<'a> {
    layout: &'a Layout,
    dir: PathBuf,
    run: RunId,
    problems: Vec<Problem>,
}

impl Look<'_> {
    fn check(mut self, lines: &Lines, against: Option<&Head>) -> Result<RunCheck, StoreError> {
        let fs = self.layout.fs();
        let mut check = RunCheck::new(self.run);
        // Nothing but artifacts yet, or gone meanwhile, unless there once was more: who removes a run takes its folder away first.
        if !run_dir::is_begun(fs, &self.dir)? {
            let stands = is_plain_dir(fs, &self.dir).map_err(StoreError::io("read", &self.dir))?;
            if stands && !lines.removed().contains(&self.run) && lines.of(self.layout, self.run)?.is_some() {
                self.find(run_dir::LOG, None, "it is missing, and so is run.yaml", TODO_GONE, None);
                check.problems = self.problems;
            }
            return Ok(check);
        }
        if let Some((pack, why)) = self.layout.flaw_in_pack(&self.dir).map_err(StoreError::io("read", &self.dir))? {
            let todo = "its events are lost with it, and no other run: put the pack back from a copy. Where there is none but the run is \
                        elsewhere, move the pack away once runspan unpack has made folders of its other runs, let runspan verify --repair note \
                        what has gone, and import the run again";
            let problem = Problem::of_file(self.layout, &pack, why, todo, None);
            check.problems = vec![Problem { run_id: Some(self.run), ..problem }];
            return Ok(check);
        }
        self.check_requests()?;
        // Before the log, which is written first.
        let summary = match run_dir::read_summary(fs, &self.dir, self.run) {
            Ok(summary) => Some(summary),
            Err(_) if !run_dir::has_summary(fs, &self.dir)? => {
                self.find("run.yaml", None, "it is missing", TODO_REBUILD, Some(Cure::Summary));
                None
            }
            Err(StoreError::Damaged { why, .. }) => {
                // The file is named beside it; the parser begins with a word of its own.
                let why = why.strip_prefix("run.yaml: ").unwrap_or(&why);
                let why = why.strip_prefix("error: ").unwrap_or(why).to_owned();
                if run_dir::is_newer(fs, &self.dir)? {
                    self.find("run.yaml", None, why, TODO_NEWER, None);
                    check.problems = self.problems;
                    return Ok(check);
                }
                self.find("run.yaml", None, why, TODO_REBUILD, Some(Cure::Summary));
                None
            }
            Err(error) => return Err(error),
        };
        let is_copied = match &summary {
            Some(summary) => self.check_index(summary, lines)?,
            None => false,
        };
        let log = self.read_log(&self.vouchers(summary.as_ref(), lines, against)?)?;
        if log.as_ref().is_none_or(|log| log.bad.is_some()) {
            for problem in self.problems.iter_mut().filter(|problem| problem.cure == Some(Cure::Summary)) {
                problem.todo = TODO_BOTH.to_owned();
            }
        }
        if let Some(log) = &log {
            (check.events, check.bytes, check.sha256) = (log.lines, log.bytes, Some(log.chain.head()));
            if let Some((line, why)) = &log.bad {
                self.find(self.log_name(), *line, why.clone(), TODO_BAD_LINE, None);
            } else {
                self.check_end(log);
                if let Some(summary) = &summary {
                    check.has_other_rules = self.check_summary(summary, log, is_copied)?;
                }
            }
            self.check_artifacts(&log.artifacts)?;
        }
        if let Some(summary) = &summary {
            check.status = Some(summary.status);
            check.has_no_hash = summary.events_sha256.is_none() && !summary.status.is_open();
            check.has_unknown_parent = match summary.parent_run_id {
                Some(parent) => self.layout.find_run(parent)?.is_none(),
                None => false,
            };
        }
        // What is wrong with the log comes first: it is what holds. What is derived comes last.
        self.problems.sort_by_key(|problem| (!problem.is_of_log(), problem.cure == Some(Cure::IndexLine)));
        // What can be put right is told however much else there is.
        let mut room = MAX_PROBLEMS;
        self.problems.retain(|problem| {
            let is_told = problem.cure.is_some() || room > 0;
            room -= usize::from(is_told && problem.cure.is_none());
            is_told
        });
        check.problems = self.problems;
        Ok(check)
    }

    /// Returns who knows how the log was.
    fn vouchers(
        &self,
        summary: Option<&RunSummary>,
        lines: &Lines,
        against: Option<&Head>,
    ) -> Result<Vec<Voucher>, StoreError> {
        let of = |by, summary: &RunSummary| Voucher { by, events: summary.events, sha256: summary.events_sha256 };
        // Where run.yaml has gone the copy of it knows.
        let own = match summary {
            Some(summary) => Some(of("run.yaml", summary)),
            None => lines.of(self.layout, self.run)?.map(|indexed| of("index.log", &indexed)),
        };
        let theirs =
            against.map(|head| Voucher { by: "the checkpoint", events: head.events, sha256: Some(head.sha256) });
        Ok(own.into_iter().chain(theirs).collect())
    }

    /// Returns the name that the log has.
    fn log_name(&self) -> &'static str {
        let is_sealed = is_sealed(self.layout.fs(), &run_dir::events_file(&self.dir)).unwrap_or(false);
        if is_sealed { run_dir::SEALED_LOG } else { run_dir::LOG }
    }

    fn find(&mut self, file: &str, line: Option<u64>, what: impl Into<String>, todo: &str, cure: Option<Cure>) {
        let file = self.dir.join(file);
        let file = file.strip_prefix(self.layout.root()).unwrap_or(&file).display().to_string();
        let (run_id, what, todo) = (Some(self.run), what.into(), todo.to_owned());
        self.problems.push(Problem { run_id, file, line, what, todo, cure, is_of_the_moment: false });
    }

    /// The same of what a writer changes in a moment.
    fn find_now(&mut self, file: &str, line: Option<u64>, what: impl Into<String>, todo: &str, cure: Option<Cure>) {
        self.find(file, line, what, todo, cure);
        if let Some(problem) = self.problems.last_mut() {
            problem.is_of_the_moment = true;
        }
    }

    /// Reads the log; `None` when there is none that can be opened, which is told.
    fn read_log(&mut self, vouchers: &[Voucher]) -> Result<Option<Log>, StoreError> {
        let mut lines = match LogReader::open(self.layout.fs(), &self.dir, self.run) {
            Ok(lines) => lines,
            Err(error @ StoreError::Unsupported { .. }) => {
                self.find(run_dir::LOG, None, error.to_string(), "check it with the command line of runspan", None);
                return Ok(None);
            }
            Err(StoreError::Damaged { why, .. }) => {
                let why = match why.strip_prefix(run_dir::LOG) {
                    Some(rest) => format!("it{rest}"),
                    None => why,
                };
                self.find(run_dir::LOG, None, why, "its events are lost; restore the file from a copy", None);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let state = RunState::new(self.run, self.run.as_trace_id());
        let chain = Chain::default();
        let mut log = Log {
            state,
            lines: 0,
            bytes: 0,
            bad: None,
            torn: 0,
            chain,
            hashes: BTreeMap::new(),
            artifacts: Vec::new(),
        };
        let mut wanted: Vec<u64> = vouchers.iter().map(|voucher| voucher.events).collect();
        wanted.push(0);
        let mut seen: IdMap<EventId, u64> = HashMap::default();
        // Causes that stand behind what they caused, if anywhere: the first line that names each.
        let mut awaited: IdMap<EventId, u64> = HashMap::default();
        let bad = loop {
            if wanted.contains(&log.lines) {
                log.hashes.insert(log.lines, log.chain.head());
            }
            let number = log.lines + 1;
            match lines.next_line()? {
                Line::Event(event) => {
                    if let Some(why) = self.check_event(&event, number, &mut seen, &mut awaited) {
                        break Some((number, why));
                    }
                    if let EventBody::Artifact(artifact) = &event.body {
                        log.artifacts.push(artifact.clone());
                    }
                    log.state.apply(&event, false);
                    log.chain.add(lines.line());
                    (log.lines, log.bytes) = (number, lines.whole_bytes());
                }
                Line::Bad(why) => break Some((number, why)),
                Line::End { torn } => {
                    log.torn = torn;
                    break None;
                }
            }
        };
        let bad = bad.or_else(|| {
            let (cause, line) = awaited.into_iter().min_by_key(|(_, line)| *line)?;
            Some((line, format!("parent_event_id {cause} is no event of this run")))
        });
        log.bad = bad.map(|(line, why)| (Some(line), why));
        self.check_hashes(vouchers, &mut log);
        Ok(Some(log))
    }

    /// Holds the log against what is known of it from elsewhere: how many lines it had, and their hash.
    fn check_hashes(&self, vouchers: &[Voucher], log: &mut Log) {
        let found = vouchers.iter().filter_map(|voucher| self.check_hash(voucher, log));
        let found: Vec<(Option<u64>, String)> = found.collect();
        // Of all that is wrong the first line; where none can be named, what is known of one goes before.
        log.bad = log.bad.take().into_iter().chain(found).min_by_key(|(line, _)| line.unwrap_or(u64::MAX));
    }

    fn check_hash(&self, voucher: &Voucher, log: &Log) -> Option<(Option<u64>, String)> {
        let Voucher { by, events, sha256 } = voucher;
        let shorter = (log.lines < *events && log.bad.is_none()).then(|| {
            let lost = format!("the log ends here, and {by} counts {events} lines: the rest is lost");
            (Some(log.lines + 1), lost)
        });
        let (Some(expected), false) = (*sha256, log.hashes.get(events).copied() == *sha256) else { return shorter };
        if log.chain.head() == expected {
            // It is the count beside it that was changed.
            return None;
        }
        let marks = chain::read_marks(self.layout.fs(), &self.dir, *events, expected);
        let changed =
            marks.as_ref().and_then(|marks| marks.iter().zip(log.chain.marks()).position(|(was, is)| was != is));
        match changed {
            Some(place) => Some((
                Some(place as u64 + 1),
                "this is not the line that was written here: its hash is another".to_owned(),
            )),
            None if log.hashes.contains_key(events) => {
                let what = "which one cannot be told, since events.chain has gone or was changed as well";
                Some((None, format!("one of the first {events} lines is not as {by} knows it; {what}")))
            }
            None => shorter,
        }
    }

    /// Tells what is wrong with one event, if anything is.
    fn check_event(
        &self,
        event: &Event,
        line: u64,
        seen: &mut IdMap<EventId, u64>,
        awaited: &mut IdMap<EventId, u64>,
    ) -> Option<String> {
        if event.seq + 1 != line {
            return Some(format!("seq {} where {} should be", event.seq, line - 1));
        }
        if let Some(first) = seen.insert(event.event_id, line) {
            return Some(format!("event_id {} is that of line {first}", event.event_id));
        }
        let is_start = matches!(event.body, EventBody::RunStarted(_));
        if is_start != (line == 1) {
            let what = if is_start { "a second run_started" } else { "the first event is no run_started" };
            return Some(what.to_owned());
        }
        awaited.remove(&event.event_id);
        match event.parent_event_id {
            Some(cause) if !seen.contains_key(&cause) => {
                awaited.entry(cause).or_insert(line);
            }
            _ => {}
        }
        None
    }

    fn check_end(&mut self, log: &Log) {
        if log.torn > 0 {
            let what = format!("{} bytes behind the last whole line: a write that was not finished", log.torn);
            let todo = "readers leave them out; runspan verify --repair cuts them off";
            self.find_now(run_dir::LOG, Some(log.lines + 1), what, todo, Some(Cure::CutLog));
        }
    }

    /// Holds what `run.yaml` says against what the events add up to. Of a run under way it may be behind.
    ///
    /// `is_copied`: `index.log` says the same. Where two say so, and it is only a matter of how things are added up, another
    /// version added them up: that is no damage, and `true`.
    fn check_summary(&mut self, summary: &RunSummary, log: &Log, is_copied: bool) -> Result<bool, StoreError> {
        if summary.status.is_open() {
            return Ok(false);
        }
        let path = run_dir::run_file(&self.dir);
        match Sums::of(summary, &log.state, is_copied).map_err(|why| StoreError::BadStore { path, why })? {
            Sums::AreRight => Ok(false),
            Sums::OfOtherRules => Ok(true),
            Sums::AreWrong(right) => {
                let what = format!("it differs from what the events add up to: {}", difference(summary, &right));
                self.find_now("run.yaml", None, what, TODO_REBUILD, Some(Cure::Summary));
                Ok(false)
            }
        }
    }

    /// Holds `index.log` against `run.yaml`, of which it has a copy; tells whether they say the same.
    fn check_index(&mut self, summary: &RunSummary, lines: &Lines) -> Result<bool, StoreError> {
        const TODO: &str = "lists of many runs show it as it was; runspan verify --repair appends the line";
        let lean = RunSummary { steps: None, ..summary.clone() };
        let mut indexed = lines.of(self.layout, self.run)?;
        if indexed.as_ref() != Some(&lean) {
            indexed = lines.newer(self.layout, self.run)?.or(indexed);
        }
        if indexed.is_none() && lines.removed().contains(&self.run) {
            return self.find_back().map(|()| false);
        }
        let what = match indexed {
            // Told once, of all of them.
            None if lines.is_missing => return Ok(false),
            None => "there is no line of this run".to_owned(),
            Some(indexed) if indexed != lean => {
                format!("its last line of this run is not what run.yaml says: {}", difference(&indexed, &lean))
            }
            Some(_) => return Ok(true),
        };
        self.problems.push(Problem {
            run_id: Some(self.run),
            file: "index.log".to_owned(),
            line: None,
            what,
            todo: TODO.to_owned(),
            cure: Some(Cure::IndexLine),
            is_of_the_moment: true,
        });
        Ok(false)
    }

    /// Notes that the run was removed and is there again.
    fn find_back(&mut self) -> Result<(), StoreError> {
        let is_packed = self.layout.is_packed(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        let (todo, cure) = match is_packed {
            true => (
                "what told so beside its pack has gone or was changed: runspan verify --repair takes the run out again",
                Cure::Bury,
            ),
            false => (
                "somebody has put its folder back: runspan verify --repair notes that it is there, or delete the folder",
                Cure::IndexLine,
            ),
        };
        let what = "it says that this run was removed, and the run is there".to_owned();
        let problem = Problem::of_file(self.layout, &self.layout.index_log(), what, todo, Some(cure));
        self.problems.push(Problem { run_id: Some(self.run), ..problem });
        Ok(())
    }

    /// Finds what stands where requests to the run are looked for, and is not followed.
    fn check_requests(&mut self) -> Result<(), StoreError> {
        let path = self.dir.join(requests::FOLDER);
        let found = stat(self.layout.fs(), &path).map_err(StoreError::io("read", &path))?;
        if found.is_some_and(|found| !found.is_dir) {
            let what = "it is no folder: what is asked of the run is not seen";
            self.find(requests::FOLDER, None, what, "move it away; links are not followed", None);
        }
        Ok(())
    }

    fn check_artifacts(&mut self, artifacts: &[ArtifactInfo]) -> Result<(), StoreError> {
        let folder = self.dir.join("artifacts");
        // By name: a file is read once, however often the log tells of it; what it says last holds.
        let kept: BTreeMap<&str, &ArtifactInfo> =
            artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact)).collect();
        // Who tells of files from outside keeps none here.
        if !is_plain_dir(self.layout.fs(), &folder).map_err(StoreError::io("read", &folder))? {
            return Ok(());
        }
        for artifact in kept.into_values().filter(|artifact| artifact.content != Some(ArtifactContent::Nothing)) {
            if let Some(what) = artifacts::flaw_of(self.layout.fs(), &self.dir, artifact)? {
                let file = format!("artifacts/{}", artifact.name);
                self.find(&file, None, what, "restore the file from a copy; the log says what it was", None);
            }
        }
        Ok(())
    }
}

const TODO_NEWER: &str = "a newer runspan wrote it: let that look at it";
const TODO_REBUILD: &str = "the log is whole: runspan verify --repair makes run.yaml anew of it";
const TODO_BOTH: &str =
    "it cannot be made anew: the log that it is made of is damaged as well; restore it from a copy if there is one";
const TODO_GONE: &str = "index.log knows of the run, and its folder has nothing of it: put the files back from a copy. Where there is none, \
                         move the folder away, and runspan verify --repair notes that the run has gone";
const TODO_BAD_LINE: &str = "the lines before it can be read; restore the file from a copy if there is one";

/// Names the first members in which a summary differs from the right one.
fn difference(said: &RunSummary, right: &RunSummary) -> String {
    const SHOWN: usize = 3;
    const LONGEST: usize = 80;
    let members = |summary: &RunSummary| match serde_json::to_value(summary) {
        Ok(Json::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (said, right) = (members(said), members(right));
    let keys = right.keys().chain(said.keys().filter(|key| !right.contains_key(*key)));
    let shown = |value: Option<&Json>| {
        let text = value.map_or("nothing".to_owned(), Json::to_string);
        match text.char_indices().nth(LONGEST) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    };
    let differing: Vec<String> = keys
        .filter(|key| said.get(*key) != right.get(*key))
        .map(|key| format!("{key} is {} and should be {}", shown(said.get(key)), shown(right.get(key))))
        .collect();
    let more = differing.len().saturating_sub(SHOWN);
    let mut text = differing[..differing.len().min(SHOWN)].join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    text
}
