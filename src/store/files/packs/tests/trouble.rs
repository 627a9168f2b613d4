//! Trouble between two steps: loss of power, a sync that fails, and another process that rewrites a pack.

use std::cell::Cell;
use std::path::Path;

use super::super::removal::Removal;
use super::super::{Found, Gone, Packs};
use super::between::{Between, When};
use super::space::{before, clean, runs, store, write_pack};
use super::*;
use crate::fs::Fs;
use crate::fs::faulty::Op;
use crate::model::id::IdSet;
use crate::store::files::cleanup::{Options, cleanup};

pub(super) fn packs() -> Packs {
    Packs::new("/store/packs".into())
}

/// Lets runs go out of their packs; `meanwhile` is done once, when the first of them is about to.
pub(super) fn remove(fs: &dyn Fs, packs: &Packs, of: &[RunId], meanwhile: impl Fn()) -> Vec<String> {
    let is_first = Cell::new(true);
    let is_elsewhere = |_| {
        if is_first.replace(false) {
            meanwhile();
        }
        Ok(false)
    };
    let removed = packs.remove(fs, of, Gone::Deleted, is_elsewhere, false);
    of.iter().map(|run| format!("{:?}", removed[run])).collect()
}

/// Writes the pack with a run anew, as another process.
pub(super) fn rewrite_pack_of(fs: &dyn Fs, run: RunId) {
    let others = packs();
    let Found::At(place) = others.find(fs, run).unwrap() else { panic!("no pack has it") };
    others.rewrite(fs, WRITER, place.pack().id, &IdSet::default()).unwrap();
}

#[test]
fn what_was_removed_stays_so_when_the_power_fails_on_a_file_system_that_keeps_names_in_no_order() {
    let mut orphans = 0;
    for seed in 0..2 {
        let tidy = |crash_at: Option<u64>| {
            let fs = FaultyFs::new(seed);
            layout(&fs).open_or_create().unwrap();
            (0..3).for_each(|pack| write_pack(&fs, (0..RUNS / 3).map(|nth| 3 * nth + pack)));
            // Of each pack half has gone for good.
            clean(&fs, &before(RUNS / 2));
            // Half of these packs, and all of the last one, go without their folder being synced.
            let from = fs.count();
            fs.plan(Plan { crash_at: crash_at.map(|step| from + step), ..Plan::default() });
            let _ = cleanup(&layout(&fs), &before(RUNS - 3), Options::default(), super::space::NOW, || true);
            (fs.count() - from, fs.restart(End::PowerLossInDisorder))
        };
        let (steps, _) = tidy(None);
        for step in 1..=steps + 1 {
            let (_, fs) = tidy(Some(step));
            let in_packs = packs().bytes(&*fs.shared()).unwrap();
            let back: Vec<u8> = in_packs.keys().map(|run| run.0[15]).filter(|run| *run < RUNS / 2).collect();
            assert_eq!(back, [0; 0], "seed {seed}, step {step}: {:?}", pack_files(&fs));
            let left = in_packs.keys().filter(|run| run.0[15] >= RUNS - 3).count();
            assert_eq!(left, 3, "seed {seed}, step {step}");
            orphans += packs().orphans(&*fs.shared()).unwrap().len();
        }
    }
    assert_eq!(orphans, 0, "tombstones without a pack");
}

#[test]
fn a_tombstone_that_was_taken_back_hides_no_run_from_who_has_read_it_and_loses_none() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    clean(&fs, &before(1));
    let (path, told) = fs.files().into_iter().find(|(path, _)| path.ends_with(".del")).unwrap();
    let (shared, reader, other) = (fs.shared(), packs(), packs());
    let locked = |run: u8| {
        let Found::At(place) = other.find(&*shared, run_id(run)).unwrap() else { panic!("run {run}") };
        place.pack().clone()
    };
    // Another process writes that run 5 has gone, and cannot bring that to the disk; it is read before it is taken back.
    let mut unsynced = told.clone();
    unsynced.extend(super::super::format::tombstone(locked(5).id, run_id(5), 7, Gone::Deleted));
    let file = shared.open(Path::new(&path), Access::ReadWrite).unwrap();
    file.write_at(&unsynced, 0).unwrap();
    assert!(matches!(reader.find(&*shared, run_id(5)).unwrap(), Found::Buried));
    file.set_len(told.len() as u64).unwrap();
    // And then one that holds, of the same length.
    let pack = locked(6);
    super::super::removal::wait_for(&*shared, &pack).unwrap().bury(&*shared, &[run_id(6)], Gone::Deleted).unwrap();
    assert!(matches!(reader.find(&*shared, run_id(6)).unwrap(), Found::Buried));
    assert!(matches!(reader.find(&*shared, run_id(5)).unwrap(), Found::At(_)));
}

#[test]
fn a_failed_sync_takes_a_tombstone_back_and_who_rewrites_the_pack_keeps_the_run() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    clean(&fs, &before(1));
    let (shared, other) = (fs.shared(), packs());
    fs.fail_next(Op::SyncData, libc::EIO);
    assert!(remove(&*shared, &other, &[run_id(5)], || {})[0].starts_with("Failed"));
    assert_eq!(runs(&fs), (1..RUNS).collect::<Vec<_>>());
    // What was read under the lock is as if nobody had read before.
    let Found::At(place) = other.find(&*shared, run_id(5)).unwrap() else { panic!() };
    let pack = place.pack().clone();
    let mut stale = (*pack.gone(&*shared).unwrap()).clone();
    stale.insert(run_id(5), Gone::Deleted);
    pack.buried.lock().unwrap().pretend(stale);
    assert!(pack.gone(&*shared).unwrap().contains_key(&run_id(5)));
    other.rewrite(&*shared, WRITER, pack.id, &IdSet::default()).unwrap();
    assert_eq!(runs(&fs), (1..RUNS).collect::<Vec<_>>());
}

#[test]
fn a_run_whose_pack_is_rewritten_while_it_is_removed_goes_from_the_new_one() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    // Ids of one millisecond stand in no order.
    std::thread::sleep(std::time::Duration::from_millis(2));
    write_pack(&fs, 20..32);
    let (shared, packs) = (fs.shared(), packs());
    let of = [run_id(4), run_id(24)];
    let removed = remove(&*shared, &packs, &of, || rewrite_pack_of(&*shared, run_id(24)));
    assert_eq!(removed, ["Done", "Done"]);
    assert_eq!(runs(&fs), (0..RUNS).chain(20..32).filter(|run| ![4, 24].contains(run)).collect::<Vec<_>>());
}

#[test]
fn a_run_whose_pack_goes_while_it_is_removed_is_not_counted_as_removed() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    // Ids of one millisecond stand in no order.
    std::thread::sleep(std::time::Duration::from_millis(2));
    write_pack(&fs, 20..32);
    let (shared, packs) = (fs.shared(), packs());
    let take_away = || {
        let removed = super::super::Packs::new("/store/packs".into()).remove(
            &*shared,
            &(20..32).map(run_id).collect::<Vec<_>>(),
            Gone::Deleted,
            |_| Ok(false),
            false,
        );
        assert!(removed.values().all(|removal| matches!(removal, Removal::Done)));
    };
    assert_eq!(remove(&*shared, &packs, &[run_id(4), run_id(24)], take_away), ["Done", "NotHere"]);
}

/// A store with two copies of each run: who wrote the pack anew was killed before the old one went.
pub(super) fn with_two_copies() -> FaultyFs {
    for step in 1.. {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        fs.plan(Plan { crash_at: Some(fs.count() + step), ..Plan::default() });
        let (packs, shared) = (packs(), fs.shared());
        let id = packs.find(&*shared, run_id(5)).ok().and_then(|found| match found {
            Found::At(place) => Some(place.pack().id),
            _ => None,
        });
        let _ = id.map(|id| packs.rewrite(&*shared, WRITER, id, &IdSet::default()));
        let fs = fs.restart(End::Kill);
        if pack_files(&fs).iter().filter(|name| !name.starts_with('.')).count() == 2 {
            return fs;
        }
    }
    unreachable!()
}

#[test]
fn a_run_whose_older_copy_cannot_be_taken_away_has_not_gone() {
    let fs = with_two_copies();
    let (shared, packs) = (fs.shared(), packs());
    fs.fail_next(Op::SyncData, libc::EIO);
    let removed = remove(&*shared, &packs, &[run_id(5)], || {});
    assert!(removed[0].starts_with("Failed"), "{removed:?}");
    assert_eq!(runs(&fs), (0..RUNS).collect::<Vec<_>>());
    assert_eq!(remove(&*shared, &packs, &[run_id(5)], || {}), ["Done"]);
    assert_eq!(runs(&fs), (0..RUNS).filter(|run| *run != 5).collect::<Vec<_>>());
}

#[test]
fn runs_that_wait_for_a_pack_are_written_and_listed_once_there_is_room_again_wherever_there_was_none() {
    let lines = |fs: &FaultyFs| {
        let log = String::from_utf8(fs.files().remove("/store/index.log").unwrap()).unwrap();
        let listed: std::collections::BTreeSet<u8> = log
            .lines()
            .filter_map(|line| crate::store::files::index::quick_id(line.as_bytes()))
            .map(|run| run.0[15])
            .collect();
        listed.into_iter().collect::<Vec<_>>()
    };
    // Few get a folder each, many a pack.
    for of in [3, RUNS] {
        let write = |full_at: Option<u64>, is_restarted: bool| {
            let fs = store();
            let mut writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
            (0..of).for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
            let from = fs.count();
            let full = full_at.map_or(0..0, |step| from + step..from + step + 1);
            fs.plan(Plan { full, ..Plan::default() });
            let written = writer.write_held(true);
            let steps = fs.count() - from;
            fs.plan(Plan::default());
            if written.is_err() {
                if is_restarted {
                    writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
                }
                // They are told again, and each of them may have gone on.
                for number in 0..of {
                    if writer.take_up(run_id(number)).unwrap().is_none() {
                        writer.create_whole(&summary(number), &mut events(number, 4)).unwrap();
                    }
                    writer.update_run(&summary(number)).unwrap();
                }
                writer.write_held(true).unwrap();
            }
            (steps, fs)
        };
        let (steps, _) = write(None, false);
        for (step, is_restarted) in (1..=steps).flat_map(|step| [(step, false), (step, true)]) {
            let (_, fs) = write(Some(step), is_restarted);
            let expected: Vec<u8> = (0..of).collect();
            assert_eq!(runs(&fs), expected, "{of} runs, step {step}, {is_restarted}");
            assert_eq!(lines(&fs), expected, "{of} runs, step {step}, {is_restarted}");
            // Half of a line stays, and is told of.
            let told = problems(&fs).into_iter().filter(|what| !what.starts_with("it cannot be read: EOF"));
            assert_eq!(told.count(), 0, "{of} runs, step {step}, {is_restarted}: {:?}", problems(&fs));
        }
    }
}

#[test]
fn a_run_that_waits_for_a_pack_is_not_lost_where_its_folder_cannot_be_made_nor_asked_after() {
    let write = |fails_from: u64| {
        let fs = store();
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
        (0..RUNS).for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
        let from = fs.count();
        fs.plan(Plan { rough: from + fails_from..u64::MAX, one_in: 1, ..Plan::default() });
        let written = writer.append_events(run_id(0), &events(0, 5)[4..]);
        let steps = fs.count() - from;
        fs.plan(Plan::default());
        if written.is_err() {
            let _ = writer.write_held(true);
        }
        writer.write_held(true).unwrap();
        (steps, written.is_err(), fs)
    };
    let (steps, has_failed, _) = write(u64::MAX / 2);
    assert!(!has_failed && steps > 5);
    for step in 1..=steps {
        let (_, has_failed, fs) = write(step);
        assert!(has_failed, "step {step}");
        // Its fifth line may have come, and what failed was behind it.
        let found: Vec<_> = there(&fs).into_iter().map(|(run, lines)| (run, lines.min(4))).collect();
        assert_eq!(found, all(), "step {step}");
    }
}

#[test]
fn a_run_that_was_deleted_is_taken_out_of_the_log_of_all_runs_however_often_that_fails() {
    for number in [2, 40] {
        let fs = store();
        let mut writer = packed(&fs, true, RUNS);
        let open = RunSummary { status: RunStatus::Running, completed_at: None, ..summary(40) };
        writer.create_whole(&open, &mut events(40, 4)).unwrap();
        let from = fs.count();
        fs.plan(Plan { full: from..from + 60, has_room_for_names: true, ..Plan::default() });
        let _ = writer.delete_run(run_id(number));
        fs.plan(Plan::default());
        writer.delete_run(run_id(number)).unwrap();
        assert!(!runs(&fs).contains(&number));
        assert_eq!(problems(&fs), [""; 0], "run {number}");
    }
}

#[test]
fn a_run_whose_pack_is_rewritten_between_two_glances_is_found_in_the_new_one() {
    for knows_the_old in [false, true] {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        let reader = packs();
        if knows_the_old {
            assert!(matches!(reader.find(&*fs.shared(), run_id(5)).unwrap(), Found::At(_)));
            // Another pack: the folder is read anew.
            write_pack(&fs, RUNS..2 * RUNS);
        }
        let between = Between::new(fs.shared(), When::Listed, || rewrite_pack_of(&*fs.shared(), run_id(5)));
        assert!(matches!(reader.find(&between, run_id(5)).unwrap(), Found::At(_)), "{knows_the_old}");
    }
}

#[test]
fn a_run_of_a_pack_that_is_told_again_by_the_same_writer_gets_no_other_line() {
    let fs = store();
    let mut writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
    (0..RUNS).for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
    assert!(writer.write_held(true).unwrap());
    let before = fs.files().remove("/store/index.log").unwrap().len();
    (0..RUNS).for_each(|number| writer.update_run(&summary(number)).unwrap());
    assert_eq!(fs.files().remove("/store/index.log").unwrap().len(), before);
}
