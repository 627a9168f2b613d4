//! Packs on a file system that fails and forgets: what is in them is there, once and whole, whatever happens.

use crate::fs::Access;
use crate::fs::faulty::{End, FaultyFs, Plan};
use crate::model::event::{EventBody, Log};
use crate::model::{Event, EventId, RunId, RunKind, RunStatus, RunSummary, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::files::layout::Layout;
use crate::store::files::verify::{Wanted, verify};
use crate::store::files::{FilesReader, FilesWriter, cleanup};
use crate::store::retention::Policy;
use crate::store::{Listed, Query, RunReader, RunWriter, StoreError};

mod at_once;
mod behind;
pub mod between;
mod edges;
mod full;
mod space;
mod trouble;
mod two;

const BASE: u64 = 1_767_693_600_000;
const WRITER: RunId = RunId([9; 16]);
const RUNS: u8 = 12;

fn run_id(number: u8) -> RunId {
    RunId::from_parts(BASE + u64::from(number), [number; 10])
}

fn layout(fs: &FaultyFs) -> Layout {
    Layout::new_in(fs.shared(), "/store")
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

fn summary(number: u8) -> RunSummary {
    let (run, at) = (run_id(number), UnixNanos::from_millis(BASE + u64::from(number)));
    let kind = if number.is_multiple_of(3) { RunKind::Workflow } else { RunKind::Agent };
    let state = RunState::new(run, run.as_trace_id()).summary(at);
    let (agent_id, workflow_id) = match kind {
        RunKind::Agent => (Some("a".to_owned()), None),
        RunKind::Workflow => (None, Some("w".to_owned())),
    };
    let status = RunStatus::Success;
    RunSummary { kind, agent_id, workflow_id, status, started_at: at, completed_at: Some(at), events: 4, ..state }
}

/// A writer that has written so many runs, all of them in one pack.
fn packed(fs: &FaultyFs, durable: bool, runs: u8) -> FilesWriter {
    layout(fs).open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout(fs), WRITER, durable).with_packs();
    for number in 0..runs {
        writer.create_whole(&summary(number), &mut events(number, 4)).unwrap();
    }
    assert!(!writer.write_held(false).unwrap(), "they wait for others");
    assert!(writer.write_held(true).unwrap());
    writer
}

/// The runs that are there, each whole, with the number of its events.
fn there(fs: &FaultyFs) -> Vec<(u8, usize)> {
    let reader = FilesReader::of(layout(fs)).unwrap();
    let listed = reader.list_runs(&Query::default()).unwrap().into_iter().map(|listed| {
        let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
        let run = reader.get_run(run.summary.run_id).unwrap();
        (run.run_id.0[15], reader.get_events(run.run_id, 0).unwrap().len())
    });
    let mut listed: Vec<(u8, usize)> = listed.filter(|(run, _)| *run < RUNS).collect();
    listed.sort_unstable();
    listed
}

fn all() -> Vec<(u8, usize)> {
    (0..RUNS).map(|number| (number, 4)).collect()
}

fn folders(fs: &FaultyFs) -> usize {
    let of = |kind: &RunKind| fs.shared().list(&layout(fs).runs(*kind)).unwrap().len();
    RunKind::ALL.iter().map(of).sum()
}

/// What is wrong with the store, but that its logs tell of nothing.
fn problems(fs: &FaultyFs) -> Vec<String> {
    let report = verify(&layout(fs), &Wanted::default(), |_, _| {}).unwrap();
    let problems = report.problems.into_iter().map(|problem| problem.what);
    problems.filter(|what| what != "the first event is no run_started").collect()
}

/// What stands beside packs, but for the room that is kept.
fn pack_files(fs: &FaultyFs) -> Vec<String> {
    let names = fs.shared().list(std::path::Path::new("/store/packs")).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name != super::room::NAME).collect()
}

#[test]
fn runs_that_come_whole_are_in_one_file_and_everybody_reads_them() {
    let fs = FaultyFs::new(1);
    let _writer = packed(&fs, false, RUNS);
    assert_eq!((there(&fs), folders(&fs), pack_files(&fs).len()), (all(), 0, 1));
    let reader = FilesReader::of(layout(&fs)).unwrap();
    assert_eq!(reader.resolve(&run_id(3).to_string()).unwrap(), run_id(3));
    assert_eq!(problems(&fs), [""; 0]);
    // And as if none had ever been looked for.
    assert!(matches!(reader.get_run(run_id(99)), Err(StoreError::NotFound { .. })));
}

#[test]
fn few_runs_get_a_folder_each() {
    let fs = FaultyFs::new(1);
    let _writer = packed(&fs, false, 3);
    assert_eq!((there(&fs).len(), folders(&fs)), (3, 3));
}

#[test]
fn who_writes_to_a_packed_run_finds_its_folder() {
    let fs = FaultyFs::new(1);
    let mut writer = packed(&fs, false, RUNS);
    // Told once more, it stays where it is.
    assert_eq!(writer.take_up(run_id(4)).unwrap().unwrap(), events(4, 4));
    writer.append_events(run_id(4), &[]).unwrap();
    writer.update_run(&summary(4)).unwrap();
    assert_eq!(folders(&fs), 0);
    writer.append_events(run_id(4), &events(4, 6)[4..]).unwrap();
    writer.update_run(&RunSummary { events: 6, ..summary(4) }).unwrap();
    cleanup::set_pinned(&layout(&fs), run_id(5), true).unwrap();
    let mut expected = all();
    expected[4].1 = 6;
    assert_eq!((there(&fs), folders(&fs)), (expected, 2));
    // What is removed then does not come back.
    writer.delete_run(run_id(4)).unwrap();
    writer.delete_run(run_id(7)).unwrap();
    let left: Vec<u8> = there(&fs).into_iter().map(|(run, _)| run).collect();
    assert_eq!(left, (0..RUNS).filter(|run| ![4, 7].contains(run)).collect::<Vec<_>>());
    assert_eq!(problems(&fs), [""; 0]);
}

#[test]
fn runs_that_had_a_folder_are_packed_when_nobody_writes_to_them() {
    let fs = FaultyFs::new(1);
    layout(&fs).open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false).with_packs_of_any();
    for number in 0..RUNS {
        let open = RunSummary { status: RunStatus::Running, completed_at: None, events: 2, ..summary(number) };
        writer.create_whole(&open, &mut events(number, 2)).unwrap();
        writer.append_events(run_id(number), &events(number, 4)[2..]).unwrap();
        writer.update_run(&summary(number)).unwrap();
        if number > 0 {
            writer.release_run(run_id(number));
        }
    }
    cleanup::set_pinned(&layout(&fs), run_id(5), true).unwrap();
    assert_eq!(folders(&fs), usize::from(RUNS));
    assert!(writer.write_held(true).unwrap());
    // One is still open here, and one is pinned.
    assert_eq!((there(&fs), folders(&fs), problems(&fs)), (all(), 2, Vec::new()));
}

#[test]
fn a_pack_that_was_cut_off_gives_what_is_left_of_it() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let (path, bytes) = fs.files().into_iter().find(|(path, _)| path.ends_with(".pack")).unwrap();
    let index = 32 * usize::from(RUNS) + 40;
    for end in (0..bytes.len()).step_by(61).chain([bytes.len() - index, bytes.len()]) {
        let cut = fs.copy();
        cut.overwrite(&path, bytes[..end].to_vec());
        let found = there(&cut);
        assert!(found.iter().all(|(_, events)| *events == 4));
        if end + index >= bytes.len() {
            assert_eq!(found, all());
        }
        // Nobody misses what is gone, so it is the pack itself that tells.
        let told = problems(&cut)
            .iter()
            .any(|what| what.starts_with("the pack cannot be read") || what.starts_with("the pack is damaged"));
        assert_eq!(told, end < bytes.len(), "cut at {end} of {}", bytes.len());
    }
}

#[test]
fn a_pack_of_which_all_runs_have_gone_gives_its_space_back_whenever_a_kill_comes() {
    let remove = |crash_at: Option<u64>| {
        let fs = FaultyFs::new(1);
        let mut writer = packed(&fs, true, RUNS);
        (1..RUNS).for_each(|run| writer.delete_run(run_id(run)).unwrap());
        assert_eq!((there(&fs), pack_files(&fs).len()), (vec![(0, 4)], 2), "one is still there");
        let before = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
        let removed = writer.delete_run(run_id(0)).is_ok();
        (fs.count() - before, removed, fs.restart(End::Kill))
    };
    let (steps, ..) = remove(None);
    for step in 1..=steps + 1 {
        let (_, removed, fs) = remove(Some(step));
        assert!(!removed || there(&fs).is_empty(), "step {step}");
        assert_eq!(problems(&fs), [""; 0], "step {step}");
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
        let _ = writer.delete_run(run_id(0));
        assert_eq!(there(&fs), [], "step {step}");
        let (layout, options) = (layout(&fs), cleanup::Options::default());
        cleanup::cleanup(&layout, &Policy::default(), options, UnixNanos::now(), || true).unwrap();
        assert!(pack_files(&fs).iter().all(|name| !name.ends_with(".pack")), "step {step}");
    }
}

#[test]
fn a_damaged_byte_costs_the_run_that_it_is_in() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let (path, bytes) = fs.files().into_iter().find(|(path, _)| path.ends_with(".pack")).unwrap();
    for at in (64..bytes.len()).step_by(17) {
        let harmed = fs.copy();
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x01;
        harmed.overwrite(&path, bytes);
        let reader = FilesReader::of(layout(&harmed)).unwrap();
        let whole = (0..RUNS).filter(|run| match reader.get_events(run_id(*run), 0) {
            Ok(found) => {
                assert_eq!(found, events(*run, 4), "byte {at}");
                true
            }
            Err(_) => false,
        });
        assert!(whole.count() >= usize::from(RUNS) - 1, "byte {at}");
    }
}

/// Says of each entry of a pack that it is compressed.
#[cfg(not(feature = "seal"))]
fn compressed(bytes: &mut [u8], pack: RunId) {
    use super::format::{Codec, ENTRY_HEAD, EntryHead, crc};
    for at in (0..bytes.len() - ENTRY_HEAD).step_by(8) {
        let head = &mut bytes[at..at + ENTRY_HEAD];
        if EntryHead::read(head, pack).is_some() {
            head[25] = Codec::Zstd as u8;
            let sum = crc(&[&pack.0, &head[..44]]);
            head[44..48].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

#[test]
#[cfg(not(feature = "seal"))]
fn without_what_expands_them_packed_runs_are_listed_and_not_damaged() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let (path, mut bytes) = fs.files().into_iter().find(|(path, _)| path.ends_with(".pack")).unwrap();
    let name = std::path::Path::new(&path).file_stem().unwrap().to_str().unwrap();
    compressed(&mut bytes, name.parse().unwrap());
    fs.overwrite(&path, bytes);
    let reader = FilesReader::of(layout(&fs)).unwrap();
    let listed = reader.list_runs(&Query::default()).unwrap();
    let runs = listed.iter().filter(|listed| matches!(listed, Listed::Run(run) if run.summary.events == 4));
    assert_eq!((runs.count(), listed.len()), (usize::from(RUNS), usize::from(RUNS)), "{listed:?}");
    let error = reader.get_run(run_id(0)).unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }) && error.to_string().contains("`seal`"), "{error}");
}

#[test]
fn killed_at_any_step_all_runs_are_there_or_can_be_told_again() {
    let write = |crash_at: Option<u64>, end| {
        let fs = FaultyFs::new(1);
        layout(&fs).open_or_create().unwrap();
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
        // The store itself is on the disk.
        writer.create_whole(&summary(100), &mut events(100, 4)).unwrap();
        let mut writer = writer.with_packs();
        for number in 0..RUNS {
            writer.create_whole(&summary(number), &mut events(number, 4)).unwrap();
        }
        let before = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
        let written = writer.write_held(true).is_ok();
        (fs.count() - before, written, fs.restart(end))
    };
    let (steps, ..) = write(None, End::Kill);
    for end in [End::Kill, End::PowerLoss] {
        for step in 1..=steps + 1 {
            let (_, written, fs) = write(Some(step), end);
            if written {
                assert_eq!(there(&fs), all(), "{end:?} at step {step}");
            }
            // The journal tells it again.
            let mut writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
            for number in 0..RUNS {
                if writer.take_up(run_id(number)).unwrap().is_none() {
                    writer.create_whole(&summary(number), &mut events(number, 4)).unwrap();
                }
            }
            writer.write_held(true).unwrap();
            assert_eq!(there(&fs), all(), "{end:?} at step {step}, told again");
        }
    }
}

#[test]
fn killed_while_a_run_gets_its_folder_back_it_is_there_once_and_whole() {
    let unpack = |crash_at: Option<u64>, end| {
        let fs = FaultyFs::new(1);
        drop(packed(&fs, true, RUNS));
        let before = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
        let path = layout(&fs).run(RunKind::Agent, run_id(4)).join("events.jsonl");
        // Whether it can be opened is of no matter here.
        drop(layout(&fs).fs().open(&path, Access::ReadWrite));
        (fs.count() - before, fs.restart(end))
    };
    let (steps, _) = unpack(None, End::Kill);
    for end in [End::Kill, End::PowerLoss] {
        for step in 1..=steps + 1 {
            let (_, fs) = unpack(Some(step), end);
            assert_eq!(there(&fs), all(), "{end:?} at step {step}");
            let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
            writer.delete_run(run_id(4)).unwrap();
            assert_eq!(there(&fs).len(), usize::from(RUNS) - 1, "{end:?} at step {step}, deleted");
        }
    }
}

#[cfg(feature = "server")]
#[test]
fn runs_under_way_are_found_by_their_last_lines_or_by_their_folders() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    for number in 20..24 {
        let open = RunSummary { status: RunStatus::Running, completed_at: None, ..summary(number) };
        writer.create_whole(&open, &mut events(number, 4)).unwrap();
    }
    // 21 ends, 22 says something that looks like an end, and of 23 no line is left.
    writer.update_run(&summary(21)).unwrap();
    let odd =
        RunSummary { status: RunStatus::Waiting, session_id: Some(r#""status":"success""#.to_owned()), ..summary(22) };
    writer.update_run(&odd).unwrap();
    let log = fs.files().remove("/store/index.log").unwrap();
    let lines = String::from_utf8(log).unwrap();
    let id = run_id(23).to_string();
    let kept: String = lines.split_inclusive('\n').filter(|line| !line.contains(&id)).collect();
    fs.overwrite("/store/index.log", kept.into_bytes());
    let reader = FilesReader::of(layout(&fs)).unwrap();
    assert_eq!(reader.left_by(WRITER).unwrap(), [run_id(20), run_id(22), run_id(23)]);
    assert_eq!(reader.left_by(RunId([8; 16])).unwrap(), []);
}

/// Whoever goes on for a process that died in between has nothing else that leads to them.
#[cfg(feature = "server")]
#[test]
fn runs_whose_writer_died_before_their_line_was_whole_are_found() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    let open = |number| RunSummary { status: RunStatus::Running, completed_at: None, ..summary(number) };
    for number in [20, 22] {
        writer.create_whole(&open(number), &mut events(number, 4)).unwrap();
    }
    writer.create_whole(&summary(21), &mut events(21, 4)).unwrap();
    writer.delete_run(run_id(20)).unwrap();
    writer.create_whole(&open(20), &mut events(20, 4)).unwrap();
    let lines = String::from_utf8(fs.files().remove("/store/index.log").unwrap()).unwrap();
    let line_of = |number| format!("\"run_id\":\"{}\"", run_id(number));
    let is_kept = |line: &&str| ![line_of(20), line_of(21), line_of(3)].iter().any(|of| line.contains(of));
    let is_removal = |line: &str| line.contains(&line_of(20)) && !line.contains("\"status\"");
    // 20 was removed and came again, 21 is over, 3 is packed; of 22 half a line follows one that is whole.
    let mut kept: String = lines.split_inclusive('\n').filter(|line| is_kept(line) || is_removal(line)).collect();
    let half = lines.split_inclusive('\n').rfind(|line| line.contains(&line_of(22))).map(|line| line[..90].to_owned());
    kept.push_str(&half.unwrap());
    fs.overwrite("/store/index.log", kept.into_bytes());
    let reader = FilesReader::of(layout(&fs)).unwrap();
    assert_eq!(reader.left_by(WRITER).unwrap(), [run_id(3), run_id(20), run_id(21), run_id(22)]);
}

#[cfg(feature = "server")]
#[test]
fn a_writer_hears_once_of_each_run_that_another_has_ended() {
    let fs = FaultyFs::new(1);
    drop(packed(&fs, false, RUNS));
    let (mut own, mut other) =
        (FilesWriter::new(layout(&fs), RunId([8; 16]), false), FilesWriter::new(layout(&fs), RunId([7; 16]), false));
    let heard = |writer: &mut FilesWriter, most: usize| {
        let over = writer.over_by_others(most, &|_, run| run != run_id(2)).unwrap();
        assert!(over.iter().all(|(trace, run)| *trace == run.as_trace_id()));
        over.iter().map(|(_, run)| run.0[15]).collect::<Vec<_>>()
    };
    assert_eq!(heard(&mut own, 3), [9, 10, 11], "the latest");
    assert_eq!(heard(&mut own, 3), [0; 0]);
    own.create_whole(&summary(20), &mut events(20, 4)).unwrap();
    other.create_whole(&summary(21), &mut events(21, 4)).unwrap();
    own.create_whole(&summary(22), &mut events(22, 4)).unwrap();
    let open = RunSummary { status: RunStatus::Running, completed_at: None, ..summary(23) };
    other.create_whole(&open, &mut events(23, 4)).unwrap();
    assert!(heard(&mut own, 9).contains(&21));
    own.create_whole(&summary(24), &mut events(24, 4)).unwrap();
    assert_eq!(heard(&mut own, 9), [0; 0], "its own lines it need not read");
    // Half a line of another is read once it is whole.
    let log = fs.files().remove("/store/index.log").unwrap();
    let (mut whole, line) = (log.clone(), log.split_inclusive(|byte| *byte == b'\n').next_back().unwrap());
    whole.extend_from_slice(line);
    fs.overwrite("/store/index.log", whole[..log.len() + 100].to_vec());
    assert_eq!(heard(&mut own, 9), [0; 0]);
    fs.overwrite("/store/index.log", whole);
    assert_eq!(heard(&mut own, 9), [24]);
    // Another log in its place.
    fs.overwrite("/store/index.log", log[..log.len() / 2].to_vec());
    assert!(heard(&mut own, 99).contains(&0));
}
