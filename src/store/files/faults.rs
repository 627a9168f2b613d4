//! The files store over a file system that fails, forgets, tears and rots.

use std::path::Path;

use super::cleanup::{Options, cleanup};
use super::layout::Layout;
use super::{FilesReader, FilesWriter, run_dir};
use crate::fs::faulty::{Dice, End, FaultyFs, Op, Plan};
use crate::fs::seeds::{self, Seed};
use crate::model::event::{EventBody, Log};
use crate::model::{Event, EventId, RunId, RunKind, RunStatus, RunSummary, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::retention::Policy;
use crate::store::{DamagedRun, Listed, Query, RunReader, RunWriter, StoreError};

const STORE: &str = "/store";
const BASE: u64 = 1_767_693_600_000;
const WRITER: RunId = RunId([9; 16]);
/// Operations that a life may take, about.
const SPAN_OF_LIFE: u64 = 100;

fn run_id(number: u8) -> RunId {
    RunId::from_parts(BASE, [number; 10])
}

fn event(number: u8, seq: u64) -> Event {
    // Lines of all lengths, over several sectors.
    let message = "x".repeat((seq as usize * 131 + usize::from(number) * 17) % 700);
    let body = EventBody::Log(Log { level: None, message, fields: serde_json::Map::new() });
    let mut id = run_id(number).0;
    id[14..].copy_from_slice(&(seq as u16).to_be_bytes());
    let timestamp = UnixNanos(BASE * 1_000_000 + seq);
    Event { seq, event_id: EventId(id), parent_event_id: None, timestamp, step_id: None, body }
}

fn events(number: u8, seqs: std::ops::Range<u64>) -> Vec<Event> {
    seqs.map(|seq| event(number, seq)).collect()
}

fn summary(number: u8, events: u64) -> RunSummary {
    let run = run_id(number);
    let at = UnixNanos::from_millis(BASE);
    let status = if events.is_multiple_of(3) { RunStatus::Running } else { RunStatus::Success };
    RunSummary {
        events,
        status,
        started_at: at,
        user_id: Some("u".repeat(events as usize * 31 % 200)),
        ..RunState::new(run, run.as_trace_id()).summary(at)
    }
}

fn hash_of_lines(number: u8, count: u64) -> String {
    hash_of(&events(number, 0..count))
}

fn hash_of(events: &[Event]) -> String {
    use sha2::{Digest, Sha256};
    let mut lines = Vec::new();
    run_dir::lines_of(run_id(1), events, &Default::default(), 0, &mut lines).unwrap();
    crate::model::hex(&Sha256::digest(&lines))
}

fn layout(fs: &FaultyFs) -> Layout {
    Layout::new_in(fs.shared(), STORE)
}

/// What is known of a run.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Calls to make it that did not fail, and those that did.
    is_made: bool,
    may_be_made: bool,
    /// So many events were acknowledged, and so many more were given.
    events: u64,
    given: u64,
    /// What its summary counted when it was acknowledged, and what others that were given counted.
    counted: u64,
    may_be_counted: Vec<u64>,
    is_deleted: bool,
    may_be_deleted: bool,
    /// The power failed, and nobody had promised anything.
    is_excused: bool,
}

struct World {
    fs: FaultyFs,
    dice: Dice,
    durable: bool,
    known: Vec<Known>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let fs = FaultyFs::new(dice.roll());
        layout(&fs).open_or_create().unwrap();
        let durable = !dice.one_in(3);
        Self { fs, dice, durable, known: Vec::new() }
    }

    fn live(&mut self) {
        let plan = Plan::any(&mut self.dice, self.fs.count() + 1, SPAN_OF_LIFE);
        self.fs.plan(plan);
        let mut writer = FilesWriter::new(layout(&self.fs), WRITER, self.durable);
        // Whoever takes over begins like this.
        for place in 0..if self.dice.one_in(2) { self.known.len() } else { 0 } {
            self.known[place].take_up(place as u8 + 1, &mut writer);
        }
        for _ in 0..self.dice.below(16) {
            self.act(&mut writer);
            if self.fs.is_dead() {
                return;
            }
        }
    }

    fn act(&mut self, writer: &mut FilesWriter) {
        if self.known.is_empty() || self.dice.one_in(5) {
            self.known.push(Known::default());
        }
        if cfg!(feature = "seal") && self.dice.one_in(12) {
            // Whatever keeps it from being done, runs are as they were.
            let options = Options { seal_from: Some(1), ..Options::default() };
            let later = UnixNanos::from_millis(BASE + 600_000);
            let _ = cleanup(&layout(&self.fs), &Policy::default(), options, later, || true);
            return;
        }
        if self.dice.one_in(3) {
            writer.put_all_by();
        }
        let place = self.dice.below(self.known.len() as u64) as usize;
        let (number, more) = (place as u8 + 1, self.dice.below(4));
        let known = &mut self.known[place];
        if known.is_excused || known.is_deleted || known.may_be_deleted {
            return;
        }
        if !known.is_made {
            known.may_be_made = true;
            // Told again, it is told the same.
            known.given = if known.given == 0 { more + 1 } else { known.given };
            known.counted = known.given;
            if writer.create_run(&summary(number, known.given), &events(number, 0..known.given)).is_ok() {
                (known.is_made, known.events) = (true, known.given);
            }
            return;
        }
        match self.dice.below(10) {
            0..5 => {
                known.given = known.given.max(known.events + more);
                if writer.append_events(run_id(number), &events(number, known.events..known.given)).is_ok() {
                    known.events = known.given;
                }
            }
            5..7 if known.given == known.events => {
                known.may_be_counted.push(known.events);
                if writer.update_run(&summary(number, known.events)).is_ok() {
                    known.counted = known.events;
                    known.may_be_counted.clear();
                }
            }
            7 => writer.release_run(run_id(number)),
            8 => known.take_up(number, writer),
            9 if self.dice.one_in(4) => {
                known.may_be_deleted = true;
                known.is_deleted = writer.delete_run(run_id(number)).is_ok();
            }
            _ => {}
        }
    }

    fn restart(&mut self) {
        let end = self.dice.one_of(&[End::Kill, End::PowerLoss]);
        self.fs = self.fs.restart(end);
        for known in &mut self.known {
            known.is_excused |= end == End::PowerLoss && !self.durable;
            // Deleting is not promised to last: it is done again.
            known.is_deleted &= end == End::Kill;
        }
        self.check();
    }

    fn check(&self) {
        // Before its first run the store itself may be gone with the power.
        layout(&self.fs).open_or_create().unwrap();
        let reader = FilesReader::of(layout(&self.fs)).unwrap();
        let listed = reader.list_runs(&Query::default()).unwrap();
        for (number, known) in (1..).zip(&self.known) {
            let run = run_id(number);
            let listed = listed.iter().find_map(|listed| match listed {
                Listed::Run(listed) if listed.summary.run_id == run => Some(Ok(&listed.summary)),
                Listed::Damaged(damaged) if damaged.run_id == run => Some(Err(damaged)),
                _ => None,
            });
            known.check(number, &reader, listed);
        }
        for listed in listed {
            let (Listed::Run(listed), mut known) = (listed, (1..).zip(&self.known)) else { continue };
            assert!(known.any(|(number, _)| run_id(number) == listed.summary.run_id), "invented: {listed:?}");
        }
    }
}

impl Known {
    fn take_up(&mut self, number: u8, writer: &mut FilesWriter) {
        if !self.is_made || self.is_excused || self.may_be_deleted {
            return;
        }
        if let Ok(taken) = writer.take_up(run_id(number)) {
            let taken = taken.expect("it is there").len() as u64;
            self.check_count(number, taken);
            (self.events, self.given) = (taken, taken);
        }
    }

    fn check_count(&self, number: u8, found: u64) {
        let (events, given) = (self.events, self.given);
        assert!((events..=given).contains(&found), "run {number}: {found} events where {events} to {given} should be");
    }

    fn check(&self, number: u8, reader: &FilesReader, listed: Option<Result<&RunSummary, &DamagedRun>>) {
        let run = run_id(number);
        if self.is_excused {
            // Whatever is left of it, it is read without a panic, and nothing is made up.
            if let Ok(found) = reader.get_events(run, 0) {
                assert!(found.iter().zip(0..).all(|(found, seq)| *found == event(number, seq)), "run {number}");
            }
            return;
        }
        let listed = match listed {
            None if self.is_deleted || self.may_be_deleted || !self.is_made => return,
            Some(Ok(listed)) if !self.is_deleted && self.may_be_made => listed,
            other => panic!("run {number}: {self:?}: {other:?}"),
        };
        let found = reader.get_events(run, 0).unwrap_or_else(|error| panic!("run {number}: {error}: {self:?}"));
        self.check_count(number, found.len() as u64);
        // Made whole, or not at all.
        assert!(self.is_made || found.len() as u64 == self.given, "run {number}: half made");
        assert_eq!(found, events(number, 0..found.len() as u64), "run {number}");
        let (stored, indexed) = reader.stored(run).unwrap();
        let counted: Vec<u64> = [self.counted].into_iter().chain(self.may_be_counted.iter().copied()).collect();
        let is_one = counted.iter().any(|count| {
            let expected = summary(number, *count);
            RunSummary { writer: stored.writer, events_sha256: stored.events_sha256, ..expected } == stored
        });
        assert!(is_one, "run {number}: {stored:?} where one of {counted:?} should be counted");
        assert_eq!(RunSummary { steps: None, ..stored.clone() }, *listed, "run {number}");
        assert!(stored.events <= found.len() as u64, "run {number}");
        // Where a hash is known it is that of so many lines.
        let hash = stored.events_sha256.map(|hash| hash.to_string());
        assert!(hash.is_none_or(|hash| hash == hash_of_lines(number, stored.events)), "run {number}: {stored:?}");
        if self.may_be_counted.is_empty()
            && let Some(indexed) = indexed
        {
            assert_eq!(indexed, RunSummary { steps: None, ..stored.clone() }, "run {number}: index.log");
        }
    }
}

fn lives(seed: Seed) {
    let mut world = World::new(seed.number);
    let _tells = seed.tells(&world.fs);
    for _ in 0..=world.dice.below(5) {
        world.live();
        world.restart();
    }
}

#[test]
fn runs_are_what_was_acknowledged_after_faults_of_any_kind() {
    seeds::each("store", lives);
}

/// A store with one run of so many events, and its path.
fn one_run(count: u64) -> (FaultyFs, FilesReader, String) {
    let fs = FaultyFs::new(1);
    layout(&fs).open_or_create().unwrap();
    FilesWriter::new(layout(&fs), WRITER, true).create_run(&summary(1, count), &events(1, 0..count)).unwrap();
    let reader = FilesReader::of(layout(&fs)).unwrap();
    let dir = layout(&fs).run(RunKind::Workflow, run_id(1)).to_str().unwrap().to_owned();
    (fs, reader, dir)
}

#[test]
fn running_out_of_descriptors_is_no_damage_and_makes_nobody_the_writer() {
    let (fs, reader, _) = one_run(3);
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
        fs.fail_next(Op::Open, code);
        assert!(reader.get_run(run_id(1)).unwrap_err().is_out_of_resources());
        fs.fail_next(Op::Open, code);
        assert!(reader.list_runs(&Query::default()).unwrap_err().is_out_of_resources());
    }
    // The run of another process that lives, or was not taken over yet.
    fs.shared().create_dir(&layout(&fs).journal().join(WRITER.to_string())).unwrap();
    let mut other = FilesWriter::new(layout(&fs), RunId([8; 16]), false);
    fs.fail_next(Op::Open, libc::EMFILE);
    assert!(other.take_up(run_id(1)).unwrap_err().is_out_of_resources());
    assert!(matches!(other.take_up(run_id(1)), Err(StoreError::InUse { .. })));
    // What the disk cannot give back is damaged, and costs that run.
    fs.fail_next(Op::Open, libc::EIO);
    assert!(matches!(reader.get_run(run_id(1)), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_log_is_read_up_to_where_the_power_failed_and_no_line_fewer_than_there_were() {
    let (fs, reader, dir) = one_run(3);
    let whole = fs.files()[&format!("{dir}/events.jsonl")].clone();
    let count = |bytes: Vec<u8>| {
        fs.overwrite(&format!("{dir}/events.jsonl"), bytes);
        reader.get_events(run_id(1), 0).map(|events| events.len()).map_err(|error| error.to_string())
    };
    let lines = |seqs| {
        let mut lines = Vec::new();
        run_dir::lines_of(run_id(1), &events(1, seqs), &Default::default(), 0, &mut lines).unwrap();
        lines
    };
    let (mut later, border) = (lines(3..9), (whole.len() / 512 + 1) * 512);
    assert_eq!(count([&whole[..], &later].concat()), Ok(9));
    // The rest of the sector in which the log ended is missing, and the next one is there.
    later[..border - whole.len()].fill(0);
    assert_eq!(count([&whole[..], &later].concat()), Ok(3));
    // One sector in the middle.
    let mut later = lines(3..9);
    let sector = border - whole.len()..border - whole.len() + 512;
    let whole_before = later[..sector.start].iter().filter(|byte| **byte == b'\n').count();
    later[sector].fill(0);
    assert_eq!(count([&whole[..], &later].concat()), Ok(3 + whole_before));
    // Zeros elsewhere are no such thing, and lines that run.yaml counts are lost.
    let mut later = lines(3..9);
    later[5..9].fill(0);
    assert!(count([&whole[..], &later].concat()).unwrap_err().contains("damaged: events.jsonl line 4: "));
    let run = run_id(1);
    assert_eq!(count(lines(0..2)), Err(format!("run {run} is damaged: events.jsonl ends after 2 of 3 lines")));
    assert_eq!(count(vec![0; 1024]), Err(format!("run {run} is damaged: events.jsonl ends after 0 of 3 lines")));
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    assert!(writer.take_up(run).unwrap_err().is_closed(), "nobody goes on with it");
}

#[test]
fn a_list_does_not_believe_a_line_of_the_index_that_was_not_the_last() {
    let (fs, reader, _) = one_run(3);
    let index = fs.files()["/store/index.log"].clone();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, false);
    writer.update_run(&RunSummary { status: RunStatus::Error, ..summary(1, 3) }).unwrap();
    fs.overwrite("/store/index.log", index);
    let count = |status| reader.list_runs(&Query { status: Some(status), ..Query::default() }).unwrap().len();
    assert_eq!((count(RunStatus::Running), count(RunStatus::Error)), (0, 1));
}

#[test]
fn what_a_killed_writer_left_beside_a_run_is_cleared_away() {
    let (fs, _, dir) = one_run(3);
    let left = fs.files().len();
    let writer = || FilesWriter::new(layout(&fs), WRITER, false);
    fs.shared().create_new(&Path::new(&dir).join(".run.yaml.01M8EJTXZJG5X1RS41B3BKH9CF.tmp")).unwrap();
    assert_eq!(fs.files().len(), left + 1);
    writer().take_up(run_id(1)).unwrap();
    assert_eq!(fs.files().len(), left);
}

#[test]
fn a_batch_that_failed_never_mixes_with_the_one_in_its_place() {
    for (seed, step) in (0..100).flat_map(|seed| (1..5).map(move |step| (seed, step))) {
        let fs = FaultyFs::new(seed);
        layout(&fs).open_or_create().unwrap();
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
        writer.create_run(&summary(1, 3), &events(1, 0..3)).unwrap();
        fs.fail_next(Op::SyncData, libc::EIO);
        writer.append_events(run_id(1), &events(1, 3..9)).unwrap_err();
        // Told again after a reset, the same records may make other events.
        let others: Vec<Event> = (3..9).map(|seq| Event { seq, ..event(2, seq + 3) }).collect();
        fs.plan(Plan { crash_at: Some(fs.count() + step), ..Plan::default() });
        let appended = writer.append_events(run_id(1), &others);
        let reader = FilesReader::of(layout(&fs.restart(End::PowerLoss))).unwrap();
        let found = reader.get_events(run_id(1), 0).unwrap_or_else(|error| panic!("seed {seed}, {step}: {error}"));
        let is_of = |batch: &[Event]| batch.starts_with(&found[3..]);
        assert!(found.starts_with(&events(1, 0..3)), "seed {seed}, {step}");
        assert!(is_of(&others) || (appended.is_err() && is_of(&events(1, 3..9))), "seed {seed}, {step}: {found:?}");
    }
}

#[test]
fn a_log_made_anew_with_fewer_lines_is_whole_whenever_its_writer_dies() {
    let shorter = events(1, 0..3);
    let mut other = events(1, 0..5);
    other.swap(1, 3);
    (1..).zip(&mut other[1..]).for_each(|(seq, event)| event.seq = seq);
    let made = |anew: &[Event], crash_at: Option<u64>, end: End| {
        let (fs, _, _) = one_run(5);
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
        writer.take_up(run_id(1)).unwrap();
        let before = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| before + step), ..Plan::default() });
        let replaced = writer.replace_events(run_id(1), anew).is_ok();
        let steps = fs.count() - before;
        let fs = fs.restart(end);
        let reader = FilesReader::of(layout(&fs)).unwrap();
        let found = reader.get_events(run_id(1), 0).unwrap_or_else(|error| panic!("{crash_at:?} {end:?}: {error}"));
        assert!(found == anew || (!replaced && found == events(1, 0..5)), "{crash_at:?} {end:?}: {found:?}");
        // What is said of it holds.
        let stored = reader.stored(run_id(1)).unwrap().0;
        let hash = stored.events_sha256.map(|hash| hash.to_string());
        let right = hash_of(&found[..stored.events as usize]);
        assert!(hash.is_none_or(|hash| hash == right), "{crash_at:?} {end:?}");
        steps
    };
    for anew in [&shorter, &other] {
        let steps = made(anew, None, End::Kill);
        for end in [End::Kill, End::PowerLoss] {
            for step in 1..=steps {
                made(anew, Some(step), end);
            }
        }
    }
}
