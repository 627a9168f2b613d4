//! Removals on a file system that fails, forgets and fills up, and what they must never take.

#[cfg(feature = "seal")]
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::fs::faulty::{End, FaultyFs, Op, Plan};
use crate::model::event::{EventBody, Log};
use crate::model::{Event, EventId, RunStatus, RunSummary};
use crate::store::assembly::RunState;
#[cfg(feature = "seal")]
use crate::store::files::layout::stat;
#[cfg(feature = "seal")]
use crate::store::files::run_dir;
use crate::store::files::run_dir::LogLock;
use crate::store::files::{FilesReader, FilesWriter};
use crate::store::{Listed, Query, RunReader, RunWriter};

const STORE: &str = "/store";
const BASE: u64 = 1_767_693_600_000;
const WRITER: RunId = RunId([9; 16]);
const NOW: UnixNanos = UnixNanos((BASE + 1_000_000) * 1_000_000);
/// All that can go goes.
const NOTHING_KEPT: Policy = Policy { keep_each: Some(0), max_age: None, max_bytes: Some(0) };

fn run_id(number: u8) -> RunId {
    RunId::from_parts(BASE + u64::from(number), [number; 10])
}

fn layout(fs: &FaultyFs) -> Layout {
    Layout::new_in(fs.shared(), STORE)
}

fn events(number: u8, count: u64) -> Vec<Event> {
    let event = |seq| {
        let body = EventBody::Log(Log { level: None, message: "x".repeat(100), fields: serde_json::Map::new() });
        let mut id = run_id(number).0;
        id[15] = seq as u8;
        let timestamp = UnixNanos(BASE * 1_000_000 + seq);
        Event { seq, event_id: EventId(id), parent_event_id: None, timestamp, step_id: None, body }
    };
    (0..count).map(event).collect()
}

fn summary(number: u8, status: RunStatus) -> RunSummary {
    let (run, at) = (run_id(number), UnixNanos::from_millis(BASE + u64::from(number)));
    let agent_id = Some(format!("agent-{}", number % 2));
    let state = RunState::new(run, run.as_trace_id()).summary(at);
    let (kind, workflow_id) = (RunKind::Agent, None);
    RunSummary { kind, agent_id, workflow_id, status, started_at: at, completed_at: Some(at), events: 4, ..state }
}

/// A store in which 1, 2 and 3 are over; 4 was started by 2 and waits, 5 by 1 and is pinned, 6 is running.
fn store() -> FaultyFs {
    store_of(4)
}

/// The same with so many lines in each log.
fn store_of(lines: u64) -> FaultyFs {
    let fs = FaultyFs::new(1);
    layout(&fs).open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
    for (number, status, parent) in [
        (1, RunStatus::Success, None),
        (2, RunStatus::Error, None),
        (3, RunStatus::Success, Some(2)),
        (4, RunStatus::Waiting, Some(2)),
        (5, RunStatus::Success, Some(1)),
        (6, RunStatus::Running, None),
    ] {
        let parent_run_id = parent.map(run_id);
        let summary = RunSummary { parent_run_id, events: lines, ..summary(number, status) };
        writer.create_run(&summary, &events(number, lines)).unwrap();
    }
    drop(writer);
    set_pinned(&layout(&fs), run_id(5), true).unwrap();
    fs
}

fn clean(fs: &FaultyFs, policy: &Policy) -> Result<Cleaned, StoreError> {
    cleanup(&layout(fs), policy, Options::default(), NOW, || true)
}

fn numbers(runs: impl IntoIterator<Item = RunId>) -> Vec<u8> {
    let mut numbers: Vec<u8> = runs.into_iter().map(|run| run.0[15]).collect();
    numbers.sort_unstable();
    numbers
}

/// The runs that are there, each of them whole, with its parent.
fn left(fs: &FaultyFs) -> Vec<(u8, Option<u8>)> {
    let reader = FilesReader::of(layout(fs)).unwrap();
    let mut left: Vec<(u8, Option<u8>)> = reader
        .list_runs(&Query::default())
        .unwrap()
        .into_iter()
        .map(|listed| {
            let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
            let run = reader.summary(run.summary.run_id).unwrap();
            assert_eq!(reader.get_events(run.run_id, 0).unwrap().len(), 4);
            (run.run_id.0[15], run.parent_run_id.map(|parent| parent.0[15]))
        })
        .collect();
    left.sort_unstable();
    left
}

/// Names that no reader takes for a run.
/// What the runs' files and folders take, in blocks.
fn on_disk(fs: &FaultyFs) -> u64 {
    let files = fs.files().into_iter().filter(|(path, _)| path.contains("/agents/"));
    let files: u64 = files.map(|(_, file)| file.len().div_ceil(4096) as u64 * 4096).sum();
    files + 4096 * fs.shared().list(&layout(fs).runs(RunKind::Agent)).unwrap().len() as u64
}

fn hidden(fs: &FaultyFs) -> usize {
    fs.shared()
        .list(&layout(fs).runs(RunKind::Agent))
        .unwrap()
        .iter()
        .filter(|entry| entry.name.starts_with('.'))
        .count()
}

#[test]
fn what_is_open_or_pinned_stays_and_children_stay_without_the_link() {
    let fs = store();
    let dry =
        cleanup(&layout(&fs), &NOTHING_KEPT, Options { is_dry_run: true, ..Options::default() }, NOW, || true).unwrap();
    assert_eq!(left(&fs).len(), 6);
    let bytes = on_disk(&fs);
    let cleaned = clean(&fs, &NOTHING_KEPT).unwrap();
    assert_eq!(Cleaned { leftovers: 0, ..cleaned.clone() }, dry);
    assert_eq!(numbers(cleaned.removed.iter().map(|run| run.run_id)), [1, 2, 3]);
    // What was said is what the disk has back.
    assert_eq!((cleaned.bytes, cleaned.bytes_left), (bytes - on_disk(&fs), Some(on_disk(&fs))));
    assert_eq!(left(&fs), [(4, None), (5, None), (6, None)]);
    assert_eq!(hidden(&fs), 0);
    let index = String::from_utf8(fs.files()["/store/index.log"].clone()).unwrap();
    assert!((1..4).all(|number| !index.contains(&format!("\"run_id\":\"{}\",\"kind\"", run_id(number)))), "{index}");
    set_pinned(&layout(&fs), run_id(5), false).unwrap();
    assert_eq!(numbers(clean(&fs, &NOTHING_KEPT).unwrap().removed.iter().map(|run| run.run_id)), [5]);
}

#[test]
fn a_cleanup_that_dies_anywhere_is_finished_by_the_next_and_no_run_is_ever_half_there() {
    let died = |crash_at: Option<u64>, end: End| {
        let fs = store();
        let before = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
        let _ = clean(&fs, &NOTHING_KEPT);
        let steps = fs.count() - before;
        let fs = fs.restart(end);
        // Each is there, whole, or it is not.
        let there = left(&fs);
        assert!(there.iter().map(|(run, _)| *run).filter(|run| *run > 3).eq([4, 5, 6]), "{crash_at:?} {end:?}");
        let context = format!("{crash_at:?} {end:?}");
        let again = clean(&fs, &NOTHING_KEPT).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(again.stayed, [], "{context}");
        assert_eq!(left(&fs), [(4, None), (5, None), (6, None)], "{context}");
        assert_eq!(hidden(&fs), 0, "{context}");
        let index = String::from_utf8(fs.files()["/store/index.log"].clone()).unwrap();
        let is_told = |number| index.contains(&format!("\"run_id\":\"{}\",\"kind\"", run_id(number)));
        assert_eq!((1..=6).filter(|number| is_told(*number)).collect::<Vec<_>>(), [4, 5, 6], "{context}");
        steps
    };
    let steps = died(None, End::Kill);
    assert!(steps > 60, "{steps}");
    for end in [End::Kill, End::PowerLoss] {
        for step in 1..=steps {
            died(Some(step), end);
        }
    }
}

#[test]
fn a_run_that_its_writer_still_holds_is_unpinned_all_the_same() {
    let fs = store();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    writer.take_up(run_id(5)).unwrap();
    assert!(set_pinned(&layout(&fs), run_id(5), false).unwrap());
    let reader = FilesReader::of(layout(&fs)).unwrap();
    assert!(!reader.summary(run_id(5)).unwrap().pinned, "though run.yaml could not be written");
    writer.release_run(run_id(5));
    assert_eq!(numbers(clean(&fs, &NOTHING_KEPT).unwrap().removed.iter().map(|run| run.run_id)), [1, 2, 3, 5]);
}

#[test]
fn a_run_whose_metadata_cannot_be_read_stays_and_keeps_no_other_from_going() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("s"));
    layout.open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout.clone(), WRITER, false);
    for number in [1, 2] {
        writer.create_run(&summary(number, RunStatus::Success), &events(number, 4)).unwrap();
        writer.release_run(run_id(number));
    }
    // Its metadata cannot be read, and nothing else tells of it.
    std::fs::remove_file(layout.index_log()).unwrap();
    let metadata = layout.find_run(run_id(1)).unwrap().unwrap().join("run.yaml");
    std::fs::remove_file(&metadata).unwrap();
    std::fs::create_dir(&metadata).unwrap();
    let policy = Policy { max_bytes: Some(1), ..NOTHING_KEPT };
    let cleaned = cleanup(&layout, &policy, Options::default(), NOW, || true).unwrap();
    assert_eq!(numbers(cleaned.removed.iter().map(|run| run.run_id)), [2]);
}

#[test]
fn a_run_that_the_system_does_not_let_go_is_told_apart_from_one_that_is_kept() {
    let fs = store();
    fs.fail_next(Op::Rename, libc::EACCES);
    let cleaned = clean(&fs, &NOTHING_KEPT).unwrap();
    let stayed: Vec<_> = cleaned.stayed.iter().map(|stayed| (stayed.run_id, stayed.is_failure)).collect();
    assert_eq!((stayed, cleaned.removed.len()), (vec![(run_id(1), true)], 2));
}

#[test]
fn a_full_disk_is_emptied() {
    let fs = store();
    let from = fs.count();
    fs.plan(Plan { full: from..u64::MAX, has_room_for_names: true, ..Plan::default() });
    let cleaned = clean(&fs, &NOTHING_KEPT).unwrap();
    assert_eq!(numbers(cleaned.removed.iter().map(|run| run.run_id)), [1, 2, 3]);
    assert!(!fs.files().keys().any(|path| (1..4).any(|number| path.contains(&run_id(number).to_string()))));
    // The links could not be written: as soon as there is room they go, too.
    fs.plan(Plan::default());
    clean(&fs, &NOTHING_KEPT).unwrap();
    assert_eq!((left(&fs), hidden(&fs)), (vec![(4, None), (5, None), (6, None)], 0));
}

#[test]
fn where_there_is_no_room_for_a_name_what_is_derived_makes_some() {
    let fs = store();
    fs.fail_next(Op::Rename, libc::ENOSPC);
    let keep_two = Policy { keep_each: Some(1), ..Policy::default() };
    let cleaned = clean(&fs, &keep_two).unwrap();
    assert_eq!((numbers(cleaned.removed.iter().map(|run| run.run_id)), cleaned.stayed), (vec![1, 2, 3], Vec::new()));
}

#[test]
fn a_run_whose_log_somebody_has_open_stays_and_a_log_that_has_gone_takes_no_line() {
    let fs = store();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    writer.take_up(run_id(2)).unwrap();
    let cleaned = clean(&fs, &NOTHING_KEPT).unwrap();
    assert_eq!(
        cleaned.stayed,
        [Stayed { run_id: run_id(2), why: "a process is writing it".to_owned(), is_failure: false }]
    );
    assert_eq!(left(&fs), [(2, None), (4, Some(2)), (5, None), (6, None)]);
    writer.release_run(run_id(2));
    // Whoever waits for the lock of a run that goes meanwhile gets no log.
    let dir = layout(&fs).find_run(run_id(2)).unwrap().unwrap();
    let lock = LogLock::take(&*fs.shared(), &dir, run_id(2)).unwrap();
    let waits = {
        let fs = fs.clone();
        std::thread::spawn(move || FilesWriter::new(layout(&fs), WRITER, false).take_up(run_id(2)))
    };
    std::thread::sleep(Duration::from_millis(20));
    fs.shared().rename(&dir, &dir.with_file_name(format!("{GONE_PREFIX}{}", run_id(2)))).unwrap();
    drop(lock);
    let waited = waits.join().unwrap();
    assert!(matches!(waited, Err(StoreError::NotFound { .. } | StoreError::InUse { .. }) | Ok(None)), "{waited:?}");
    assert_eq!(fs.files().keys().filter(|path| path.contains(&format!("/{}/", run_id(2)))).count(), 0);
}

#[test]
fn a_pin_holds_while_the_run_is_written_and_after() {
    let fs = store();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    writer.take_up(run_id(6)).unwrap();
    let pinned = |fs: &FaultyFs| FilesReader::of(layout(fs)).unwrap().get_run(run_id(6)).unwrap().pinned;
    assert!(set_pinned(&layout(&fs), run_id(6), true).unwrap());
    assert!(!set_pinned(&layout(&fs), run_id(6), true).unwrap());
    assert!(pinned(&fs));
    writer.update_run(&summary(6, RunStatus::Success)).unwrap();
    drop(writer);
    let (stored, indexed) = FilesReader::of(layout(&fs)).unwrap().stored(run_id(6)).unwrap();
    assert!(stored.pinned && indexed.unwrap().pinned);
    assert!(!numbers(clean(&fs, &NOTHING_KEPT).unwrap().removed.iter().map(|run| run.run_id)).contains(&6));
    assert!(set_pinned(&layout(&fs), run_id(6), false).unwrap());
    assert!(!pinned(&fs));
}

#[test]
fn a_line_of_the_index_that_is_blanked_costs_no_other() {
    let fs = store();
    fs.fail_next(Op::Write, libc::EIO);
    let gone = [run_id(1), run_id(3)].into_iter().collect();
    assert!(index::blank(&*fs.shared(), &layout(&fs).index_log(), &gone, false).is_err());
    let before = fs.files()["/store/index.log"].clone();
    index::blank(&*fs.shared(), &layout(&fs).index_log(), &gone, false).unwrap();
    let after = fs.files()["/store/index.log"].clone();
    assert_eq!(after.len(), before.len());
    assert_eq!(numbers(index::newest(&after).into_keys()), [2, 4, 5, 6]);
}

#[cfg(feature = "seal")]
mod sealing {
    use super::*;
    use crate::store::files::sealed::sealed_file;

    /// Seals every log that may be sealed, and removes nothing.
    fn seal(fs: &FaultyFs) -> Result<Cleaned, StoreError> {
        let options = Options { seal_from: Some(1), ..Options::default() };
        cleanup(&layout(fs), &Policy::default(), options, NOW, || true)
    }

    fn is_there(fs: &FaultyFs, number: u8) -> (bool, bool) {
        let log = run_dir::events_file(&layout(fs).find_run(run_id(number)).unwrap().unwrap());
        let is_there = |path: &Path| stat(&*fs.shared(), path).unwrap().is_some();
        (is_there(&log), is_there(&sealed_file(&log)))
    }

    const ALL: [(u8, Option<u8>); 6] = [(1, None), (2, None), (3, Some(2)), (4, Some(2)), (5, Some(1)), (6, None)];

    #[test]
    fn what_is_over_is_sealed_and_read_as_before() {
        let fs = store();
        let before: u64 =
            fs.files().iter().filter(|(path, _)| path.ends_with(".jsonl")).map(|(_, file)| file.len() as u64).sum();
        let dry = Options { is_dry_run: true, seal_from: Some(1) };
        let dry = cleanup(&layout(&fs), &Policy::default(), dry, NOW, || true).unwrap();
        assert_eq!((dry.sealed, dry.sealed_files.len(), is_there(&fs, 1)), (4, 4, (true, false)));
        let cleaned = seal(&fs).unwrap();
        assert_eq!(cleaned, dry);
        let first = &cleaned.sealed_files[0];
        assert_eq!((first.run_id, first.file.as_str()), (run_id(1), "events.jsonl"));
        assert!(cleaned.sealed_from_bytes < before && cleaned.sealed_to_bytes.unwrap() < cleaned.sealed_from_bytes / 2);
        for (number, is_over) in [(1, true), (2, true), (3, true), (4, false), (5, true), (6, false)] {
            assert_eq!(is_there(&fs, number), (!is_over, is_over), "{number}");
        }
        assert_eq!(left(&fs), ALL);
        assert_eq!(seal(&fs).unwrap().sealed, 0);
        // Removed and pinned like any other.
        assert_eq!(numbers(clean(&fs, &NOTHING_KEPT).unwrap().removed.iter().map(|run| run.run_id)), [1, 2, 3]);
        assert!(set_pinned(&layout(&fs), run_id(5), false).unwrap());
        assert_eq!(left(&fs), [(4, None), (5, None), (6, None)]);
    }

    #[test]
    fn what_fits_once_it_is_sealed_does_not_go_for_its_size() {
        let policy = |max_bytes| Policy { max_bytes: Some(max_bytes), ..Policy::default() };
        let options = Options { seal_from: Some(1), ..Options::default() };
        let tidy = |max_bytes| cleanup(&layout(&store_of(60)), &policy(max_bytes), options, NOW, || true).unwrap();
        let plain = clean(&store_of(60), &policy(u64::MAX)).unwrap().bytes_left.unwrap();
        let sealed = tidy(u64::MAX).bytes_left.unwrap();
        assert!(sealed < plain);
        assert_eq!(tidy(sealed).removed, []);
        assert_eq!(tidy(sealed - 1).removed.len(), 1);
        // And a dry run tells the same.
        for max_bytes in [plain, sealed, sealed - 1, sealed / 2, 0] {
            let dry = Options { is_dry_run: true, ..options };
            let dry = cleanup(&layout(&store_of(60)), &policy(max_bytes), dry, NOW, || true).unwrap();
            assert_eq!(dry, tidy(max_bytes), "{max_bytes} of {plain}, {sealed} sealed");
        }
    }

    #[test]
    fn a_run_that_goes_on_is_plain_again_and_what_was_just_written_is_not_sealed() {
        let fs = store();
        seal(&fs).unwrap();
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
        assert_eq!(writer.take_up(run_id(1)).unwrap().map(|events| events.len()), Some(4));
        assert_eq!(is_there(&fs, 1), (true, false));
        writer.append_events(run_id(1), &events(1, 6)).unwrap();
        // Somebody has it open.
        assert_eq!(seal(&fs).unwrap().sealed, 0);
        let at = NOW;
        writer.update_run(&RunSummary { events: 6, updated_at: at, ..summary(1, RunStatus::Success) }).unwrap();
        drop(writer);
        assert_eq!(seal(&fs).unwrap().sealed, 0, "it may still get what comes late");
        let later = UnixNanos(NOW.0 + 120_000_000_000);
        let options = Options { seal_from: Some(1), ..Options::default() };
        assert_eq!(cleanup(&layout(&fs), &Policy::default(), options, later, || true).unwrap().sealed, 1);
        let reader = FilesReader::of(layout(&fs)).unwrap();
        assert_eq!(reader.get_events(run_id(1), 0).unwrap(), events(1, 6));
        assert_eq!(reader.get_events(run_id(1), 5).unwrap(), events(1, 6)[5..]);
    }

    #[test]
    fn sealing_that_dies_anywhere_loses_nothing_and_is_done_by_the_next() {
        let died = |crash_at: Option<u64>, end: End| {
            let fs = store();
            let before = fs.count();
            fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
            let _ = seal(&fs);
            let steps = fs.count() - before;
            let fs = fs.restart(end);
            let context = format!("{crash_at:?} {end:?}");
            assert_eq!(left(&fs), ALL, "{context}");
            seal(&fs).unwrap();
            assert_eq!(left(&fs), ALL, "{context}");
            assert_eq!(is_there(&fs, 3), (false, true), "{context}");
            let leftovers = fs.files().keys().filter(|path| path.ends_with(".tmp")).count();
            assert_eq!(leftovers, 0, "{context}");
            steps
        };
        let steps = died(None, End::Kill);
        for end in [End::Kill, End::PowerLoss] {
            for step in 1..=steps {
                died(Some(step), end);
            }
        }
    }

    #[test]
    fn unsealing_that_dies_anywhere_loses_nothing() {
        let died = |crash_at: Option<u64>, end: End| {
            let fs = store();
            seal(&fs).unwrap();
            let before = fs.count();
            fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
            let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
            let appended = writer.append_events(run_id(1), &events(1, 5)[4..]).is_ok();
            let steps = fs.count() - before;
            let fs = fs.restart(end);
            let found = FilesReader::of(layout(&fs)).unwrap().get_events(run_id(1), 0);
            let found = found.unwrap_or_else(|error| panic!("{crash_at:?} {end:?}: {error}"));
            assert!(found.len() == 5 || (found.len() == 4 && !appended), "{crash_at:?} {end:?}: {}", found.len());
            assert_eq!(found, events(1, found.len() as u64));
            steps
        };
        let steps = died(None, End::Kill);
        for end in [End::Kill, End::PowerLoss] {
            for step in 1..=steps {
                died(Some(step), end);
            }
        }
    }

    #[test]
    fn a_log_that_is_not_what_it_was_is_left_as_it_is() {
        let fs = store();
        let log = run_dir::events_file(&layout(&fs).find_run(run_id(1)).unwrap().unwrap());
        let path = log.to_str().unwrap();
        let text = String::from_utf8(fs.files()[path].clone()).unwrap();
        for changed in [text.replacen("xxx", "xyx", 1), text.clone() + "{\"seq\":4", text[..text.len() / 2].to_owned()]
        {
            fs.overwrite(path, changed.into_bytes());
            seal(&fs).unwrap();
            assert_eq!((is_there(&fs, 1), is_there(&fs, 2)), ((true, false), (false, true)));
        }
    }
}
