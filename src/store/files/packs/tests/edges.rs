//! What a change may break without anybody noticing: copies, notes and looks that matter only when something else happens in
//! the same moment.

use std::path::Path;
use std::sync::Arc;

use super::super::view::PackView;
use super::super::{Found, Gone, Pack, Tidying};
use super::between::{Between, When};
use super::space::{before, clean, clean_at, file_ending, pack_bytes, runs, store, write_pack};
use super::trouble::{packs, remove, rewrite_pack_of, with_two_copies};
use super::*;
use crate::fs::Fs;
use crate::model::id::IdSet;

/// Tidies up with nobody's tombstones needed but those of `told`; `in_folders` have folders. Returns how many packs were written
/// anew.
fn tidy(fs: &FaultyFs, told: &[u8], in_folders: &[u8]) -> u64 {
    tidy_while(&mut || true, fs, told, in_folders)
}

fn tidy_while(go_on: &mut dyn FnMut() -> bool, fs: &FaultyFs, told: &[u8], in_folders: &[u8]) -> u64 {
    let (nothing, told) = (IdSet::default(), told.iter().map(|run| run_id(*run)).collect());
    let tidying = Tidying { going: &nothing, told: &told, room: None, is_dry: false };
    let has_folder = |run: RunId| Ok(in_folders.iter().any(|number| run_id(*number) == run));
    packs().tidy(&*fs.shared(), WRITER, tidying, go_on, has_folder).unwrap().rewritten
}

/// A store with one pack, out of which the first eight of twelve runs have gone.
fn with_a_third_left() -> FaultyFs {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let gone: Vec<RunId> = (0..8).map(run_id).collect();
    assert!(remove(&*fs.shared(), &packs(), &gone, || {}).iter().all(|removed| removed == "Done"));
    fs
}

/// The runs that packs have, each as often as it is there.
fn packed_runs(fs: &FaultyFs) -> Vec<u8> {
    let shared = fs.shared();
    let in_packs = packs().now(&*shared).unwrap();
    let living = in_packs.iter().flat_map(|pack| pack.living(&*shared).unwrap());
    let mut runs: Vec<u8> = living.map(|entry| entry.run.0[15]).collect();
    runs.sort_unstable();
    runs
}

#[test]
fn of_several_copies_of_a_run_the_latest_is_kept() {
    let fs = with_two_copies();
    let cleaned = clean(&fs, &Policy::default());
    assert_eq!((cleaned.packs_rewritten, cleaned.packs_written), (1, 0));
    assert_eq!(packed_runs(&fs), (0..RUNS).collect::<Vec<_>>());
}

#[test]
fn a_pack_whose_tombstones_are_needed_is_left_alone() {
    let fs = with_a_third_left();
    assert_eq!(tidy(&fs, &[3], &[]), 0, "of run 3 something tells still");
    assert!(matches!(packs().find(&*fs.shared(), run_id(3)).unwrap(), Found::Buried));
    assert_eq!(tidy_while(&mut || false, &fs, &[], &[]), 0, "it was to end");
    // It has a folder: nothing needs to know that it has gone from here.
    assert_eq!(tidy(&fs.copy(), &[3], &[3]), 1);
    assert_eq!(tidy(&fs, &[9], &[]), 1);
}

#[test]
fn a_copy_of_a_run_that_has_a_folder_does_not_move_into_the_new_pack() {
    let fs = with_a_third_left();
    assert_eq!(tidy(&fs, &[], &[9]), 1);
    assert_eq!(packed_runs(&fs), [8, 10, 11]);
}

#[test]
fn a_dry_run_tells_of_packs_that_are_joined_what_the_real_one_gives() {
    let fs = store();
    (0..9).for_each(|pack| write_pack(&fs, [pack, 9 + pack]));
    for policy in [before(4), Policy::default()] {
        let (copy, all) = (fs.copy(), pack_bytes(&fs));
        let dry = clean_at(&copy, &policy, true);
        assert_eq!(dry, clean(&copy, &policy));
        assert_eq!((dry.packs_rewritten, dry.packs_written), (9, 1));
        assert_eq!(dry.packs_freed_bytes, all - pack_bytes(&copy));
    }
}

#[test]
fn a_pack_for_which_a_full_disk_has_no_room_keeps_no_other_from_being_written_anew() {
    let fs = store();
    write_pack(&fs, 0..100);
    write_pack(&fs, 100..110);
    let gone: Vec<RunId> = (0..51).chain(100..109).map(run_id).collect();
    assert!(remove(&*fs.shared(), &packs(), &gone, || {}).iter().all(|removed| removed == "Done"));
    fs.set_free(Some(4096));
    assert_eq!(tidy(&fs, &[], &[]), 1);
    assert_eq!(packed_runs(&fs), (51..100).chain(109..110).collect::<Vec<_>>());
    fs.set_free(None);
    assert_eq!(tidy(&fs, &[], &[]), 1);
}

#[test]
fn a_pack_that_has_gone_with_its_tombstones_is_missed_by_who_knows_it() {
    let fs = with_a_third_left();
    let (shared, reader) = (fs.shared(), packs());
    let known: Vec<Pack> = reader.now(&*shared).unwrap().to_vec();
    known[0].gone(&*shared).unwrap();
    for end in [".pack", ".del"] {
        shared.remove_file(Path::new(&file_ending(&fs, end).unwrap().0)).unwrap();
    }
    assert_eq!(known[0].gone(&*shared).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn who_took_an_older_copy_away_and_not_the_latest_has_not_removed_the_run() {
    let fs = with_two_copies();
    let (shared, packs) = (fs.shared(), packs());
    let take_the_latest = || {
        let latest = super::trouble::packs().now(&*shared).unwrap()[0].clone();
        let gone = latest.path.with_file_name(format!(".gone-{}.pack", latest.id));
        shared.rename(&latest.path, &gone).unwrap();
    };
    assert_eq!(remove(&*shared, &packs, &[run_id(5)], take_the_latest), ["NotHere"]);
}

#[test]
fn a_run_that_got_its_folder_has_a_tombstone_in_each_pack() {
    let fs = with_two_copies();
    let shared = fs.shared();
    let path = layout(&fs).run(RunKind::Agent, run_id(5));
    assert!(PackView::new(shared.clone(), Path::new("/store")).unpack(&path).unwrap());
    for pack in packs().now(&*shared).unwrap().iter() {
        assert_eq!(pack.gone(&*shared).unwrap().get(&run_id(5)), Some(&Gone::Unpacked));
    }
}

#[test]
fn behind_a_damaged_entry_of_a_pack_without_an_end_the_others_are_found() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let (path, mut bytes) = file_ending(&fs, ".pack").unwrap();
    let id = Path::new(&path).file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let pack = Pack::open(&*fs.shared(), Path::new("/store/packs"), id).unwrap();
    let entries = pack.entries(&*fs.shared()).unwrap();
    bytes.truncate(bytes.len() - 10);
    for harmed in &entries {
        let (copy, mut bytes) = (fs.copy(), bytes.clone());
        bytes[harmed.offset as usize + 20] ^= 1;
        copy.overwrite(&path, bytes);
        let expected: Vec<u8> = (0..RUNS).filter(|run| run_id(*run) != harmed.run).collect();
        assert_eq!(packed_runs(&copy), expected, "{harmed:?}");
    }
}

#[test]
fn lines_for_which_there_was_no_room_are_written_before_anything_else_is() {
    let lines = |fs: &FaultyFs| {
        let log = String::from_utf8(fs.files().remove("/store/index.log").unwrap_or_default()).unwrap();
        (0..RUNS).filter(|run| log.contains(&run_id(*run).to_string())).count()
    };
    for step in 1.. {
        let fs = store();
        let mut writer = FilesWriter::new(layout(&fs), WRITER, true).with_packs();
        (0..RUNS).for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
        let full = fs.count() + step;
        fs.plan(Plan { full: full..full + 1, ..Plan::default() });
        let (is_written, count) = (writer.write_held(true).is_ok(), fs.count());
        // Nobody tells them again: they are in a pack, and nothing is left to be written but their lines.
        let is_in_pack = packed_runs(&fs).len() == usize::from(RUNS);
        assert!(writer.write_held(true).unwrap(), "step {step}");
        assert_eq!(lines(&fs), usize::from(RUNS), "step {step}: {is_written}, {is_in_pack}");
        if count < full {
            break;
        }
    }
}

#[test]
fn a_run_whose_pack_is_rewritten_before_it_is_opened_is_read_and_gets_its_folder() {
    for gets_folder in [false, true] {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        let other = fs.clone();
        let between = Between::new(fs.shared(), When::OpensPack, move || rewrite_pack_of(&*other.shared(), run_id(5)));
        let between = Arc::new(between);
        let view = PackView::new(Arc::clone(&between) as Arc<dyn Fs>, Path::new("/store"));
        let dir = layout(&fs).run(RunKind::Agent, run_id(5));
        // It is known where the run is: nothing is opened for that.
        let then = between.then.lock().unwrap().take();
        assert!(view.is_packed(&dir).unwrap());
        *between.then.lock().unwrap() = then;
        if gets_folder {
            assert!(view.unpack(&dir).unwrap());
            assert_eq!(folders(&fs), 1);
        } else {
            view.open(&dir.join("run.yaml"), Access::Read).unwrap();
        }
        assert!(between.then.lock().unwrap().is_none());
        assert_eq!(runs(&fs).len(), usize::from(RUNS));
    }
}

#[test]
fn packs_are_asked_anew_where_one_turns_out_to_have_been_rewritten() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let (shared, reader, asked) = (fs.shared(), packs(), std::cell::Cell::new(0));
    let ids = |packs: &[Pack]| packs.iter().map(|pack| pack.id).collect::<Vec<_>>();
    let found = reader.ask(&*shared, |known| {
        asked.set(asked.get() + 1);
        if asked.get() == 1 {
            rewrite_pack_of(&*shared, run_id(5));
            return Err(std::io::ErrorKind::NotFound.into());
        }
        Ok(ids(known))
    });
    assert_eq!(found.unwrap(), ids(&packs().now(&*shared).unwrap()));
    // But not for ever.
    let never = reader.ask(&*shared, |_| Err::<(), _>(std::io::ErrorKind::NotFound.into()));
    assert_eq!(never.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_run_that_is_in_another_pack_is_not_told_of_as_gone() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let gone = [run_id(4), run_id(5)];
    assert_eq!(remove(&*fs.shared(), &packs(), &gone, || {}), ["Done", "Done"]);
    write_pack(&fs, [4, 20]);
    let buried: Vec<RunId> = packs().buried(&*fs.shared()).unwrap().into_keys().collect();
    assert_eq!(buried, [run_id(5)]);
}

#[test]
fn tombstones_whose_pack_is_put_back_meanwhile_stay() {
    let fs = with_a_third_left();
    let shared = fs.shared();
    let (pack, tombstones) = (file_ending(&fs, ".pack").unwrap().0, file_ending(&fs, ".del").unwrap().0);
    let (pack, aside) = (Path::new(&pack), Path::new("/store/packs/aside"));
    shared.rename(pack, aside).unwrap();
    let put_back = |_| {
        let _ = shared.rename(aside, pack);
        Ok(true)
    };
    assert!(!packs().remove_orphan(&*shared, Path::new(&tombstones), put_back).unwrap());
    assert_eq!(runs(&fs), [8, 9, 10, 11]);
    shared.rename(pack, aside).unwrap();
    assert!(packs().remove_orphan(&*shared, Path::new(&tombstones), |_| Ok(true)).unwrap());
}

/// Somebody makes a folder of it, and the pack may be written anew without it, while it is looked for.
#[test]
fn a_run_that_is_unpacked_while_it_is_looked_for_is_found() {
    for is_rewritten in [false, true] {
        for step in 0.. {
            let fs = store();
            write_pack(&fs, 0..RUNS);
            let other = fs.clone();
            let unpacked = move || {
                layout(&other).unpack(run_id(5)).unwrap();
                if is_rewritten {
                    rewrite_pack_of(&*other.shared(), run_id(4));
                }
            };
            let between = Arc::new(Between::new(fs.shared(), When::Asked(step), unpacked));
            let looked = Layout::new_in(Arc::clone(&between) as Arc<dyn Fs>, Path::new("/store"));
            let dir = looked.run(RunKind::Agent, run_id(5));
            let found = (
                looked.find_run(run_id(5)).unwrap().is_some(),
                looked.fs().stat(&dir.join("run.yaml")).is_ok(),
                FilesReader::of(looked).unwrap().get_events(run_id(5), 0).map(|events| events.len()).ok(),
            );
            assert_eq!(found, (true, true, Some(4)), "rewritten {is_rewritten}, step {step}");
            if !between.is_done() {
                assert!(step > 5);
                break;
            }
        }
    }
}

/// Each of both comes to each of its steps before the other goes on to its end.
#[test]
fn a_run_that_is_unpacked_while_a_cleanup_looks_for_what_was_left_is_whole() {
    use std::sync::mpsc::channel;
    let nothing_goes = Policy { keep_each: None, max_age: None, max_bytes: None };
    let mut met = 0;
    for (unpacking, cleaning) in (0..8).flat_map(|one| (0..8).map(move |other| (one, other))) {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        let (stops, stopped) = channel();
        let (goes, go_on) = channel();
        let (ends, ended) = channel();
        std::thread::scope(|scope| {
            let other = fs.clone();
            let stops_now = stops.clone();
            let waits = move || {
                stops_now.send(()).unwrap();
                let _ = go_on.recv();
            };
            scope.spawn(move || {
                let between = Between::new(other.shared(), When::Changed(unpacking), waits);
                Layout::new_in(Arc::new(between), Path::new("/store")).unpack(run_id(5)).unwrap();
                // Where it did not come so far.
                let _ = stops.send(());
                let _ = ends.send(());
            });
            stopped.recv().unwrap();
            let lets_go = move || {
                let _ = goes.send(());
                let _ = ended.recv();
            };
            let between = Arc::new(Between::new(fs.shared(), When::Changed(cleaning), lets_go));
            let cleaned = Layout::new_in(Arc::clone(&between) as Arc<dyn Fs>, Path::new("/store"));
            cleanup::cleanup(&cleaned, &nothing_goes, cleanup::Options::default(), super::space::NOW, || true).unwrap();
            met += u64::from(between.is_done());
        });
        assert_eq!(there(&fs), all(), "unpacking stops at {unpacking}, cleaning at {cleaning}");
        // The cleanup may have put it into a pack again.
        assert!(folders(&fs) <= 1, "unpacking stops at {unpacking}, cleaning at {cleaning}");
        assert!(problems(&fs).is_empty(), "unpacking stops at {unpacking}, cleaning at {cleaning}");
    }
    assert!(met >= 8, "{met}");
}
