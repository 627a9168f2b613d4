//! Stores that are damaged in one place, and what is said of it.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::model::event::{EventBody, Log, RunStarted};
use crate::model::run::ArtifactInfo;
use crate::model::{Event, EventId, RunSummary, UnixNanos};
use crate::store::RunWriter;
use crate::store::assembly::{DROPPED_LOG, RunState};
use crate::store::files::packs::tests::between::{Between, When};
use crate::store::files::{FilesReader, FilesWriter, cleanup};
use insta::assert_snapshot;

const BASE: u64 = 1_767_693_600_000;

/// A store with runs of a process that has ended.
struct Store {
    _dir: tempfile::TempDir,
    layout: Layout,
    writer: FilesWriter,
}

fn run_id(number: u8) -> RunId {
    RunId::from_parts(BASE, [number; 10])
}

fn event(number: u8, seq: u64, body: EventBody) -> Event {
    let mut id = [number; 10];
    id[9] = seq as u8;
    let cause = (seq > 0).then(|| event_id(number, 0));
    let timestamp = UnixNanos::from_millis(BASE + seq);
    Event { seq, event_id: EventId::from_parts(BASE, id), parent_event_id: cause, timestamp, step_id: None, body }
}

fn event_id(number: u8, seq: u8) -> EventId {
    let mut id = [number; 10];
    id[9] = seq;
    EventId::from_parts(BASE, id)
}

/// A run that was cancelled, with so many lines of log between its start and its end.
pub(super) fn events(number: u8, lines: u64) -> Vec<Event> {
    let run = run_id(number);
    let start = RunStarted {
        kind: RunKind::Workflow,
        name: "unknown".to_owned(),
        trace_id: run.as_trace_id(),
        parent_run_id: None,
        session_id: None,
        user_id: None,
        tags: Vec::new(),
        input: None,
    };
    let mut events = vec![event(number, 0, EventBody::RunStarted(Box::new(start)))];
    for seq in 1..=lines {
        let message = format!("line {seq} of run {number}");
        events.push(event(number, seq, EventBody::Log(Log { level: None, message, fields: Default::default() })));
    }
    let change = crate::model::event::StatusChanged {
        from: RunStatus::Running,
        to: RunStatus::Cancelled,
        reason: Some("enough".to_owned()),
    };
    events.push(event(number, lines + 1, EventBody::StatusChanged(change)));
    events
}

fn summary_of(number: u8, events: &[Event]) -> RunSummary {
    RunState::read(run_id(number), events).summary(UnixNanos::from_millis(BASE + 500))
}

impl Store {
    fn new(runs: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        let mut store = Self { _dir: dir, layout, writer };
        for number in 1..=runs {
            store.record(number, &events(number, 3));
        }
        store.writer = FilesWriter::new(store.layout.clone(), RunId([9; 16]), false);
        store
    }

    fn record(&mut self, number: u8, events: &[Event]) {
        let summary = summary_of(number, events);
        self.writer.create_run(&summary, events).unwrap();
        self.writer.update_run(&summary).unwrap();
        self.writer.release_run(run_id(number));
    }

    fn file(&self, number: u8, name: &str) -> PathBuf {
        self.layout.run(RunKind::Workflow, run_id(number)).join(name)
    }

    fn change(&self, number: u8, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.file(number, name);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    }

    fn verify(&self) -> Report {
        verify(&self.layout, &Wanted::default(), |_, _| {}).unwrap()
    }

    /// What is wrong, a line each, and what a repair does about it.
    fn told(&self) -> String {
        let report = self.verify();
        let place = |problem: &Problem| match problem.line {
            Some(line) => format!("{}:{line}", problem.file),
            None => problem.file.clone(),
        };
        let mut told: String =
            report.problems.iter().map(|problem| format!("{}: {}\n", place(problem), problem.what)).collect();
        for repaired in repair(&self.layout, &report) {
            let outcome = if repaired.is_repaired { "repaired" } else { "not repaired" };
            told.push_str(&format!("{outcome}: {}\n", repaired.what));
        }
        let left = self.verify().problems.len();
        if left > 0 {
            told.push_str(&format!("{left} left\n"));
        }
        (1..=9).fold(told, |told, number| told.replace(&run_id(number).to_string(), &format!("RUN{number}")))
    }
}

#[test]
fn a_store_that_nobody_touched_is_whole_and_a_named_run_is_checked_alone() {
    let store = Store::new(4);
    let report = store.verify();
    assert_eq!((report.ok, report.runs, report.events, report.problems.len()), (true, 4, 20, 0));
    store.change(2, "events.jsonl", |text| text.replace("line 2", "line 3\"{"));
    let wanted = |number| Wanted { runs: Some(vec![run_id(number)]), ..Wanted::default() };
    let of = |number| verify(&store.layout, &wanted(number), |_, _| {}).unwrap();
    assert_eq!((of(1).ok, of(2).ok, of(2).damaged), (true, false, 1));
    let unknown = verify(&store.layout, &wanted(77), |_, _| {});
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
    assert_eq!((store.verify().runs, store.verify().damaged), (4, 1));
}

#[test]
fn a_run_whose_folder_has_lost_all_of_it_is_not_whole() {
    let store = Store::new(3);
    for name in ["run.yaml", "events.jsonl"] {
        fs::remove_file(store.file(2, name)).unwrap();
    }
    assert_snapshot!(store.told(), @r"
    workflows/RUN2/events.jsonl: it is missing, and so is run.yaml
    not repaired: it cannot be repaired without making something up
    1 left
    ");
    let report = store.verify();
    assert_eq!((report.ok, report.runs, report.damaged), (false, 3, 1));
    // As it says.
    fs::remove_dir_all(store.layout.run(RunKind::Workflow, run_id(2))).unwrap();
    assert_snapshot!(store.told(), @r"
    index.log: it tells of run RUN2, which is nowhere
    repaired: it says now that the run was removed
    ");
    // A folder that has artifacts alone, of a run of which nobody was told, is one that begins.
    fs::create_dir_all(store.layout.run(RunKind::Workflow, run_id(7)).join("artifacts")).unwrap();
    assert_snapshot!(store.told(), @"");
}

#[test]
fn the_first_bad_record_of_each_damaged_run_is_named() {
    let store = Store::new(9);
    store.change(1, "events.jsonl", |text| text.replacen("\"seq\":2", "\"seq\":7", 1));
    store.change(2, "events.jsonl", |text| {
        text.lines().filter(|line| !line.contains("line 2")).map(|line| format!("{line}\n")).collect()
    });
    let own = event_id(3, 1).to_string();
    store.change(3, "events.jsonl", |text| text.replace(&event_id(3, 3).to_string(), &own));
    store.change(4, "events.jsonl", |text| text.replacen("2026-01-06T10:00:00.002", "2026-13-06T10:00:00.002", 1));
    store.change(5, "events.jsonl", |text| {
        let cause = format!("\"parent_event_id\":\"{}\"", event_id(5, 0));
        text.replacen(&cause, &format!("\"parent_event_id\":\"{}\"", event_id(5, 99)), 1)
    });
    store.change(6, "events.jsonl", |text| text[..text.trim_end().rfind('\n').unwrap() + 1].to_owned());
    fs::remove_file(store.file(7, "events.jsonl")).unwrap();
    store.change(8, "events.jsonl", |text| text.replace("run_started", "run_begun"));
    store.change(9, "run.yaml", |text| text.replace("\nstatus: cancelled", "\nstatus: done"));
    assert_snapshot!(store.told(), @r#"
    workflows/RUN1/events.jsonl:3: seq 7 where 2 should be
    workflows/RUN2/events.jsonl:3: seq 3 where 2 should be
    workflows/RUN3/events.jsonl:4: event_id 01KE9BZH800C1G60R30C1G60R1 is that of line 2
    workflows/RUN4/events.jsonl:3: not an RFC 3339 time: "2026-13-06T10:00:00.002000000Z" at line 1 column 153
    workflows/RUN5/events.jsonl:2: parent_event_id 01KE9BZH800M2GA1850M2GA1B3 is no event of this run
    workflows/RUN6/events.jsonl:5: the log ends here, and run.yaml counts 5 lines: the rest is lost
    workflows/RUN7/events.jsonl: it is missing
    workflows/RUN8/events.jsonl:1: the first event is no run_started
    workflows/RUN9/run.yaml: line 12 column 9: unknown variant `done`, expected one of pending, running, waiting, completed, success, error, failed, timeout, cancelled, crashed
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    repaired: run.yaml is made anew of 5 events, and its line in index.log
    8 left
    "#);
}

#[test]
fn what_follows_from_something_whole_is_repaired() {
    let mut store = Store::new(6);
    // A writer died in a line.
    store.change(1, "events.jsonl", |text| text + "{\"seq\":5,\"event");
    fs::remove_file(store.file(2, "run.yaml")).unwrap();
    store.change(3, "run.yaml", |text| text.replace("events: 5", "events: 4").replace("dropped: 0", "dropped: 7"));
    // Written by a process that died between the two.
    let mut more = events(4, 3);
    let fields = serde_json::from_str(r#"{"count":3,"reason":"full"}"#).unwrap();
    let lost = Log { level: None, message: DROPPED_LOG.to_owned(), fields };
    more.push(event(4, 5, EventBody::Log(lost)));
    store.writer.take_up(run_id(4)).unwrap();
    store.writer.append_events(run_id(4), &more[5..]).unwrap();
    store.writer.release_run(run_id(4));
    let index = fs::read_to_string(store.layout.index_log()).unwrap();
    let without = |number: u8| move |line: &&str| !line.contains(&run_id(number).to_string());
    let lines = index.lines().filter(without(5)).map(|line| format!("{line}\n")).collect::<String>();
    fs::write(store.layout.index_log(), lines.replacen("cancelled", "canc\"elled", 1)).unwrap();
    assert_snapshot!(store.told(), @r"
    index.log:1: it cannot be read: unknown variant `canc`, expected one of `pending`, `running`, `waiting`, `completed`, `success`, `error`, `failed`, `timeout`, `cancelled`, `crashed` at line 1 column 253
    workflows/RUN1/events.jsonl:6: 15 bytes behind the last whole line: a write that was not finished
    workflows/RUN2/run.yaml: it is missing
    workflows/RUN3/run.yaml: it differs from what the events add up to: events is 4 and should be 5, dropped is 7 and should be 0
    index.log: its last line of this run is not what run.yaml says: events is 5 and should be 4, dropped is 0 and should be 7
    workflows/RUN4/run.yaml: it differs from what the events add up to: events is 5 and should be 6, dropped is 0 and should be 3
    index.log: there is no line of this run
    repaired: what stood behind its 5 lines is cut off
    repaired: a line that nobody can read is blank now
    repaired: run.yaml is made anew of 5 events, and its line in index.log
    repaired: run.yaml is made anew of 5 events, and its line in index.log
    repaired: run.yaml is made anew of 6 events, and its line in index.log
    repaired: the line is appended
    repaired: the line is appended
    ");
    let reader = FilesReader::of(store.layout.clone()).unwrap();
    assert_eq!(reader.stored(run_id(2)).unwrap().0.events, 5);
    assert_eq!(reader.stored(run_id(4)).unwrap().0.dropped, 3);
}

#[test]
fn an_index_that_has_gone_is_no_damage_of_runs_and_is_made_anew() {
    let mut store = Store::new(3);
    fs::remove_file(store.layout.index_log()).unwrap();
    let report = store.verify();
    assert_eq!((report.ok, report.runs, report.damaged), (false, 3, 0));
    assert_snapshot!(store.told(), @r"
    index.log: it is missing: 3 runs have no line in it
    repaired: it is made anew, with a line of each of 3 runs
    ");
    assert_eq!(fs::read_to_string(store.layout.index_log()).unwrap().lines().count(), 3);
    // A run is under way, and its writer has died.
    let open = &events(4, 1)[..2];
    store.record(4, open);
    fs::remove_file(store.layout.index_log()).unwrap();
    assert_snapshot!(store.told(), @r"
    index.log: it is missing: 4 runs have no line in it
    repaired: it is made anew, with a line of each of 4 runs
    ");
}

#[test]
fn of_a_damaged_log_no_summary_is_made() {
    let store = Store::new(1);
    store.change(1, "events.jsonl", |text| text.replacen("\"seq\":2", "\"seq\":7", 1));
    store.change(1, "run.yaml", |_| "[".to_owned());
    let todo: Vec<String> = store.verify().problems.into_iter().map(|problem| problem.todo).collect();
    assert_snapshot!(todo.join("\n"), @r"
    the lines before it can be read; restore the file from a copy if there is one
    it cannot be made anew: the log that it is made of is damaged as well; restore it from a copy if there is one
    ");
    assert!(repair(&store.layout, &store.verify()).iter().all(|repaired| !repaired.is_repaired));
}

#[test]
fn a_run_that_another_version_added_up_is_whole_and_one_that_was_edited_is_not() {
    let mut store = Store::new(1);
    let events = events(2, 3);
    let theirs = RunSummary { errors: 3, provider: Some("p".to_owned()), ..summary_of(2, &events) };
    store.writer.create_run(&theirs, &events).unwrap();
    store.writer.release_run(run_id(2));
    let report = store.verify();
    assert_eq!((report.ok, report.problems), (true, Vec::new()));
    assert_eq!(
        report.notes[0],
        "1 run was added up by another version, whose rules are others; run.yaml and index.log say the same"
    );
    store.change(2, "run.yaml", |text| text.replace("errors: 3", "errors: 0"));
    assert_eq!(store.verify().damaged, 1);
}

#[test]
fn files_are_held_against_what_the_log_says_of_them() {
    let mut store = Store::new(0);
    for (number, content) in [(1, Some("hello")), (2, Some("hell")), (3, Some("jello")), (4, None), (5, None)] {
        let info = ArtifactInfo {
            name: "a.txt".to_owned(),
            media_type: None,
            bytes: 5,
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned(),
            content: None,
        };
        let mut events = events(number, 1);
        events[1].body = EventBody::Artifact(info);
        store.record(number, &events);
        // The last one only told of a file, as others do.
        if number < 5 {
            fs::create_dir(store.file(number, "artifacts")).unwrap();
        }
        if let Some(content) = content {
            fs::write(store.file(number, "artifacts/a.txt"), content).unwrap();
        }
    }
    assert_snapshot!(store.told(), @r"
    workflows/RUN2/artifacts/a.txt: it has 4 bytes, and the log says 5
    workflows/RUN3/artifacts/a.txt: its SHA-256 is 187c9bceeb919e1b3e6d20fa50ecabf7d9d50b5343e8f9a3d912abb13929102e, and the log says 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    workflows/RUN4/artifacts/a.txt: it is missing
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    3 left
    ");
}

#[test]
fn a_run_that_a_living_process_writes_is_not_damaged_and_not_touched() {
    let mut store = Store::new(1);
    let mut events = events(2, 3);
    events.pop();
    let journal = store.layout.journal().join(RunId([9; 16]).to_string());
    fs::create_dir(&journal).unwrap();
    let lock = fs::File::create(journal.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let summary = summary_of(2, &events[..2]);
    store.writer.create_run(&summary, &events).unwrap();
    store.change(2, "events.jsonl", |text| text + "{\"seq\":4,");
    fs::write(store.layout.index_log(), "").unwrap();
    let before = fs::read(store.file(2, "events.jsonl")).unwrap();
    let report = store.verify();
    assert_eq!((report.being_written, report.damaged), (1, 1), "{:?}", report.problems);
    // The other run is of the same process, which may go on with it any moment.
    assert_eq!(
        store.told(),
        "index.log: there is no line of this run\nnot repaired: process 09144GJ289144GJ289144GJ289, which wrote the run, is alive: try again when it has ended\n1 left\n"
    );
    assert_eq!(fs::read(store.file(2, "events.jsonl")).unwrap(), before);
    // What it has written once stays damaged.
    store.change(2, "events.jsonl", |text| text.replacen("\"seq\":1", "\"seq\":3", 1));
    assert_eq!(store.verify().damaged, 2);
    drop(lock);
}

/// Checks a store of two runs time and again; each time something is done to it one step later. Nothing of it is damage.
fn nothing_is_damaged_while(is_packed: bool, done: impl Fn(&Layout) + Sync) {
    for step in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        writer = if is_packed { writer.with_packs_of_any() } else { writer };
        for number in 1..=2 {
            let mut events = events(number, 3);
            writer.create_whole(&summary_of(number, &events), &mut events).unwrap();
            if !is_packed {
                writer.release_run(run_id(number));
            }
        }
        writer.write_held(true).unwrap();
        drop(writer);
        let (others, done) = (layout.clone(), &done);
        let is_done = std::thread::scope(|scope| {
            let (send, come) = std::sync::mpsc::channel::<()>();
            let (tell, told) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                if come.recv().is_ok() {
                    done(&others);
                    let _ = tell.send(());
                }
            });
            let between = Between::new(crate::fs::OsFs::shared(), When::Asked(step), move || {
                send.send(()).unwrap();
                told.recv().unwrap();
            });
            let between = std::sync::Arc::new(between);
            let looked = Layout::new_in(std::sync::Arc::clone(&between) as _, layout.root());
            let report = verify(&looked, &Wanted::default(), |_, _| {}).unwrap();
            assert_eq!(report.problems, [], "at step {step}");
            between.is_done()
        });
        if !is_done {
            assert!(step > 20, "{step} steps");
            return;
        }
    }
}

#[test]
fn a_run_that_is_removed_while_it_is_looked_at_is_not_damaged() {
    let policy = crate::store::retention::Policy { keep_each: Some(0), max_age: None, max_bytes: None };
    for is_packed in [false, true] {
        nothing_is_damaged_while(is_packed, |layout| {
            let now = UnixNanos::from_millis(BASE + 1_000);
            let removed = cleanup::cleanup(layout, &policy, cleanup::Options::default(), now, || true).unwrap();
            assert_eq!(removed.removed.len(), 2);
        });
    }
}

#[test]
fn a_run_that_moves_while_it_is_looked_at_is_not_damaged() {
    nothing_is_damaged_while(true, |layout| {
        for number in 1..=2 {
            layout.unpack(run_id(number)).unwrap();
        }
    });
}

#[test]
fn a_run_whose_log_is_taken_up_meanwhile_is_not_repaired() {
    let store = Store::new(1);
    store.change(1, "run.yaml", |text| text.replace("dropped: 0", "dropped: 7"));
    let report = store.verify();
    let mut other = FilesWriter::new(store.layout.clone(), RunId([8; 16]), false);
    other.take_up(run_id(1)).unwrap();
    let before = fs::read(store.file(1, "run.yaml")).unwrap();
    let repaired = repair(&store.layout, &report);
    assert!(repaired.iter().all(|repaired| repaired.what.starts_with("a process is writing the run")), "{repaired:?}");
    assert_eq!(fs::read(store.file(1, "run.yaml")).unwrap(), before);
    drop(other);
    assert!(repair(&store.layout, &report).iter().any(|repaired| repaired.is_repaired));
}

#[cfg(feature = "index")]
#[test]
fn a_database_that_says_something_else_is_made_anew() {
    let store = Store::new(3);
    crate::store::files::database::rebuild(&store.layout, |_| {}).unwrap();
    assert!(store.verify().ok);
    let path = crate::store::files::database::path(&store.layout);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE summaries SET json = replace(json, 'cancelled', 'success')", []).unwrap();
    drop(connection);
    assert_snapshot!(store.told(), @r"
    index.sqlite: what it says of run RUN1 is not what index.log says
    repaired: it is made anew with 3 runs
    ");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    assert!(!store.verify().ok);
    repair(&store.layout, &store.verify());
    assert!(store.verify().ok);
}

#[test]
fn damaged_frames_of_a_journal_are_told_with_their_place() {
    use crate::journal::{FrameKind, JournalWriter, Options};
    let store = Store::new(0);
    let options = Options { segment_bytes: 1 << 10, ..Options::default() };
    let mut writer = JournalWriter::create(&store.layout.journal(), "p", options).unwrap();
    for number in 0..40u64 {
        writer.append(FrameKind::Mark, 0, number, &[number as u8; 100]).unwrap();
        writer.commit().unwrap();
    }
    drop(writer);
    assert_eq!((store.verify().ok, store.verify().frames), (true, 40));
    let mut segments: Vec<PathBuf> =
        fs::read_dir(store.layout.journal().join("p")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    let mut bytes = fs::read(&segments[0]).unwrap();
    bytes[80 + 136 + 50] ^= 1;
    fs::write(&segments[0], bytes).unwrap();
    let last = segments.last().unwrap();
    let torn = fs::metadata(last).unwrap().len() - 5;
    fs::File::options().write(true).open(last).unwrap().set_len(torn).unwrap();
    fs::remove_file(&segments[2]).unwrap();
    assert_snapshot!(store.told(), @r"
    journal/p/00000000000000000001.seg: at byte 216: frame 2 cannot be read
    journal/p/00000000000000000007.seg: at byte 896: frames 13 to 18 cannot be read
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    2 left
    ");
}

/// What somebody does to a log who knows how lines are numbered.
#[derive(Clone, Debug)]
enum Tamper {
    Edit(usize),
    Delete(usize),
    Swap(usize, usize),
    Insert(usize),
}

/// Does it, and returns the first line that is another one then.
fn tampered(lines: &mut Vec<String>, tamper: &Tamper, is_renumbered: bool) -> usize {
    let first = match *tamper {
        Tamper::Edit(at) => {
            lines[at] = lines[at].replacen(" of run ", " of ruin ", 1);
            at
        }
        Tamper::Delete(at) => {
            lines.remove(at);
            at
        }
        Tamper::Swap(a, b) => {
            lines.swap(a, b);
            a.min(b)
        }
        Tamper::Insert(at) => {
            let forged = event_id(77, at as u8).to_string();
            let old = event_id(1, at as u8).to_string();
            lines.insert(at, lines[at].replacen(&old, &forged, 1));
            at
        }
    };
    if is_renumbered {
        for (seq, line) in lines.iter_mut().enumerate() {
            let rest = line.split_once(",").unwrap().1.to_owned();
            *line = format!("{{\"seq\":{seq},{rest}");
        }
    }
    first
}

#[test]
fn each_edit_deletion_swap_and_insertion_is_named_by_its_line() {
    use proptest::prelude::*;
    const LINES: u64 = 12;
    let mut store = Store::new(0);
    store.record(1, &events(1, LINES));
    let path = store.file(1, "events.jsonl");
    let original = fs::read_to_string(&path).unwrap();
    // The lines between the first and the last one.
    let line = 1..LINES as usize + 1;
    let tamper = prop_oneof![
        line.clone().prop_map(Tamper::Edit),
        line.clone().prop_map(Tamper::Delete),
        (line.clone(), line.clone()).prop_filter("others", |(a, b)| a != b).prop_map(|(a, b)| Tamper::Swap(a, b)),
        line.prop_map(Tamper::Insert),
    ];
    proptest!(ProptestConfig::with_cases(400), |(tamper in tamper, is_renumbered: bool)| {
        let mut lines: Vec<String> = original.lines().map(str::to_owned).collect();
        let first = tampered(&mut lines, &tamper, is_renumbered);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let report = store.verify();
        let named = report.problems.first().map(|problem| (problem.file.ends_with("events.jsonl"), problem.line));
        prop_assert_eq!(named, Some((true, Some(first as u64 + 1))), "{:?}", report.problems);
        // And nobody makes it look right.
        repair(&store.layout, &report);
        prop_assert!(!store.verify().ok);
    });
    fs::write(&path, &original).unwrap();
    assert!(store.verify().ok);
}

#[test]
fn what_was_cut_off_with_all_that_tells_of_it_a_checkpoint_knows() {
    let mut store = Store::new(0);
    (1..4).for_each(|number| store.record(number, &events(number, 3)));
    let heads = store.verify().heads;
    assert_eq!(
        heads.iter().map(|head| (head.run_id, head.events)).collect::<Vec<_>>(),
        [(run_id(1), 5), (run_id(2), 5), (run_id(3), 5)]
    );
    // The lines, and all that is said of them.
    let earlier = &events(1, 3)[..3];
    for (number, events) in [(1, earlier.to_vec()), (2, events(2, 4))] {
        store.writer.delete_run(run_id(number)).unwrap();
        store.record(number, &events);
    }
    store.writer.delete_run(run_id(3)).unwrap();
    let alone = store.verify();
    assert_eq!((alone.ok, alone.notes.last().map(String::as_str)), (true, Some(UNKNOWN)));
    let report = verify(&store.layout, &Wanted { runs: None, against: heads }, |_, _| {}).unwrap();
    let told: Vec<String> =
        report.problems.iter().map(|problem| format!("{:?} {}", problem.line, problem.what)).collect();
    assert_eq!(
        told,
        [
            "Some(4) the log ends here, and the checkpoint counts 5 lines: the rest is lost",
            "None one of the first 5 lines is not as the checkpoint knows it; which one cannot be told, since events.chain has gone or was changed as well",
        ]
    );
    assert_eq!(
        report.notes,
        ["1 run was in the checkpoint and is not in this store: removed, by retention or by somebody"]
    );
}

#[test]
fn without_the_chain_a_change_is_known_and_not_its_line_and_the_index_knows_what_run_yaml_knew() {
    let store = Store::new(2);
    store.change(1, "events.jsonl", |text| text.replacen("line 2", "line 9", 1));
    fs::remove_file(store.file(1, "events.chain")).unwrap();
    // run.yaml has gone with it, and is not made anew of what was changed.
    store.change(2, "events.jsonl", |text| text.replacen("line 2", "line 9", 1));
    fs::remove_file(store.file(2, "run.yaml")).unwrap();
    assert_snapshot!(store.told(), @r"
    workflows/RUN1/events.jsonl: one of the first 5 lines is not as run.yaml knows it; which one cannot be told, since events.chain has gone or was changed as well
    workflows/RUN2/events.jsonl:3: this is not the line that was written here: its hash is another
    workflows/RUN2/run.yaml: it is missing
    not repaired: it cannot be repaired without making something up
    not repaired: it cannot be repaired without making something up
    not repaired: its log is damaged, so what the events add up to is not known
    3 left
    ");
}

#[test]
fn each_byte_of_a_log_that_flips_is_named_by_its_line() {
    let mut store = Store::new(0);
    store.record(1, &events(1, 4));
    let path = store.file(1, "events.jsonl");
    let original = fs::read(&path).unwrap();
    let wanted = Wanted { runs: Some(vec![run_id(1)]), ..Wanted::default() };
    let mut line = 1;
    for at in 0..original.len() {
        let mut bytes = original.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let report = verify(&store.layout, &wanted, |_, _| {}).unwrap();
        let named = report.problems.first().map(|problem| (problem.file.ends_with("events.jsonl"), problem.line));
        assert_eq!(named, Some((true, Some(line))), "byte {at}: {:?}", report.problems);
        line += u64::from(original[at] == b'\n');
    }
}

#[test]
fn each_byte_of_run_yaml_and_of_the_index_that_says_something_else_is_noticed() {
    let mut store = Store::new(0);
    store.record(1, &events(1, 4));
    for path in [store.file(1, "run.yaml"), store.layout.index_log()] {
        let original = fs::read(&path).unwrap();
        let said = |bytes: &[u8]| match path.extension().is_some_and(|extension| extension == "yaml") {
            true => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| crate::store::files::yaml::from_yaml::<RunSummary>(text).ok()),
            false => serde_json::from_slice::<RunSummary>(bytes).ok(),
        };
        for at in 0..original.len() {
            let mut bytes = original.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            // A comment, a quote in the place of another, a member that nobody knows say nothing.
            assert!(
                said(&bytes) == said(&original) || !store.verify().ok,
                "byte {at} of {}: {}",
                path.display(),
                String::from_utf8_lossy(&bytes)
            );
        }
        fs::write(&path, original).unwrap();
    }
}
