//! What has gone from packs gives its space back, and does not come back.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::store::files::cleanup::{Cleaned, Options, cleanup};

/// Long after all runs have ended.
pub(super) const NOW: UnixNanos = UnixNanos((BASE + 10_000_000) * 1_000_000);

/// What lets the runs go whose number is smaller, and no other.
pub(super) fn before(number: u8) -> Policy {
    let at = BASE + u64::from(number);
    Policy { max_age: Some(Duration::from_millis(NOW.millis() - at + 1)), ..Policy::default() }
}

pub(super) fn clean_at(fs: &FaultyFs, policy: &Policy, is_dry_run: bool) -> Cleaned {
    cleanup(&layout(fs), policy, Options { is_dry_run, ..Options::default() }, NOW, || true).unwrap()
}

pub(super) fn clean(fs: &FaultyFs, policy: &Policy) -> Cleaned {
    clean_at(fs, policy, false)
}

/// Writes a pack with these runs.
pub(super) fn write_pack(fs: &FaultyFs, numbers: impl IntoIterator<Item = u8>) {
    let mut writer = FilesWriter::new(layout(fs), WRITER, true).with_packs_of_any();
    numbers.into_iter().for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
    assert!(writer.write_held(true).unwrap());
}

pub(super) fn store() -> FaultyFs {
    let fs = FaultyFs::new(1);
    layout(&fs).open_or_create().unwrap();
    fs
}

/// The runs that are there, by what lists say and by what each says itself.
pub(super) fn runs(fs: &FaultyFs) -> Vec<u8> {
    let reader = FilesReader::of(layout(fs)).unwrap();
    let listed = reader.list_runs(&Query::default()).unwrap().into_iter().map(|listed| {
        let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
        assert_eq!(reader.get_events(run.summary.run_id, 0).unwrap().len() as u64, run.summary.events);
        run.summary.run_id.0[15]
    });
    let mut listed: Vec<u8> = listed.collect();
    listed.sort_unstable();
    listed
}

pub(super) fn pack_bytes(fs: &FaultyFs) -> u64 {
    let files = fs.files();
    let packs = files.iter().filter(|(path, _)| path.starts_with("/store/packs/") && path.ends_with(".pack"));
    packs.map(|(_, bytes)| bytes.len() as u64).sum()
}

pub(super) fn file_ending(fs: &FaultyFs, end: &str) -> Option<(String, Vec<u8>)> {
    fs.files().into_iter().find(|(path, _)| path.ends_with(end))
}

#[test]
fn a_pack_is_written_anew_once_more_than_half_of_it_has_gone_whenever_a_kill_comes() {
    let tidy = |crash_at: Option<u64>, end| {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        // Half of it may go and nothing is written anew.
        let cleaned = clean(&fs, &before(RUNS / 2 - 1));
        assert_eq!((cleaned.removed.len(), cleaned.packs_rewritten), (usize::from(RUNS) / 2 - 1, 0));
        assert!(cleaned.packs_pending_bytes > 0);
        let from = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| from + step), ..Plan::default() });
        let before = pack_bytes(&fs);
        let done = cleanup(&layout(&fs), &super::space::before(8), Options::default(), NOW, || true);
        if let (None, Ok(cleaned)) = (crash_at, &done) {
            assert_eq!((cleaned.packs_rewritten, cleaned.packs_written, cleaned.packs_pending_bytes), (1, 1, 0));
            assert_eq!(cleaned.packs_freed_bytes, before - pack_bytes(&fs));
        }
        (fs.count() - from, done.is_ok(), fs.restart(end))
    };
    let (steps, ..) = tidy(None, End::Kill);
    for end in [End::Kill, End::PowerLoss] {
        for step in (1..=steps + 1).step_by(5) {
            let (_, _, fs) = tidy(Some(step), end);
            let left = runs(&fs);
            let at_least: Vec<u8> = (8..RUNS).collect();
            assert!(
                left.ends_with(&at_least) && left.iter().all(|run| *run >= RUNS / 2 - 1),
                "{end:?} {step}: {left:?}"
            );
            // An end of index.log that the disk has not is no matter of packs.
            let is_torn = |what: &String| end == End::PowerLoss && what.starts_with("it cannot be read");
            let told = |fs: &FaultyFs| problems(fs).into_iter().filter(|what| !is_torn(what)).collect::<Vec<_>>();
            let not_left: Vec<String> = told(&fs).into_iter().filter(|what| !what.starts_with("it was left")).collect();
            assert_eq!(not_left, [""; 0], "{end:?} {step}");
            clean(&fs, &before(8));
            assert_eq!((runs(&fs), told(&fs)), (at_least, Vec::new()), "{end:?} {step}, cleaned");
            let files = pack_files(&fs);
            assert_eq!(files.iter().filter(|name| name.ends_with(".pack") && !name.starts_with('.')).count(), 1);
            let left_over = |name: &&String| name.starts_with(".gone") || name.ends_with(".del");
            assert_eq!(files.iter().filter(left_over).count(), 0, "{end:?} {step}: {files:?}");
        }
    }
}

#[test]
fn small_packs_are_joined_whenever_a_kill_comes() {
    let join = |crash_at: Option<u64>, end| {
        let fs = store();
        (0..8).for_each(|pack| write_pack(&fs, [pack, 8 + pack]));
        let from = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| from + step), ..Plan::default() });
        let done = cleanup(&layout(&fs), &Policy::default(), Options::default(), NOW, || true);
        if let (None, Ok(cleaned)) = (crash_at, &done) {
            assert_eq!((cleaned.packs_rewritten, cleaned.packs_written), (8, 1));
        }
        (fs.count() - from, fs.restart(end))
    };
    let (steps, _) = join(None, End::Kill);
    for end in [End::Kill, End::PowerLoss] {
        for step in (1..=steps + 1).step_by(17) {
            let (_, fs) = join(Some(step), end);
            assert_eq!(runs(&fs), (0..16).collect::<Vec<u8>>(), "{end:?} {step}");
            // In several packs or not, what is removed is.
            clean(&fs, &before(12));
            assert_eq!((runs(&fs), problems(&fs)), ((12..16).collect(), Vec::new()), "{end:?} {step}, cleaned");
        }
    }
}

#[test]
fn who_has_a_list_of_packs_goes_on_when_they_are_written_anew() {
    let fs = store();
    (0..10).for_each(|pack| write_pack(&fs, 8 * pack..8 * pack + 8));
    let (others, reader) = (layout(&fs), FilesReader::of(layout(&fs)).unwrap());
    let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
    assert_eq!(reader.get_run(run_id(63)).unwrap().events, 4);
    assert!(writer.take_up(run_id(62)).unwrap().is_some());
    let (packs, inner) = others.packs();
    let stale = packs.now(inner).unwrap();
    assert_eq!(clean(&fs, &before(20)).packs_rewritten, 10);
    // The list from before: what is asked of it is asked anew.
    packs.known.lock().unwrap().packs = stale;
    assert!(matches!(packs.find(inner, run_id(3)).unwrap(), super::super::Found::Nowhere));
    for number in 20..80 {
        assert_eq!(reader.get_events(run_id(number), 0).unwrap(), events(number, 4));
    }
    assert!(reader.get_run(run_id(19)).is_err());
    writer.append_events(run_id(62), &events(62, 6)[4..]).unwrap();
    writer.update_run(&RunSummary { events: 6, ..summary(62) }).unwrap();
    assert_eq!((runs(&fs), folders(&fs)), ((20..80).collect(), 1));
}

#[test]
fn a_removed_run_gets_no_folder_first_and_all_runs_of_a_pack_go_with_one_write() {
    let steps = |of: u8, going: u8| {
        let fs = store();
        write_pack(&fs, 0..of);
        let from = fs.count();
        fs.trace();
        assert_eq!(clean(&fs, &before(going)).removed.len(), usize::from(going));
        let traced = fs.traced();
        assert!(!traced.iter().any(|step| step.contains("Make") && step.contains("agents/")), "{traced:#?}");
        let of_tombstones = |step: &&String| step.contains("open Append") && step.ends_with(".del");
        assert_eq!(traced.iter().filter(of_tombstones).count(), usize::from(going < of));
        fs.count() - from
    };
    // So many more operations a run, and no more for there being more runs.
    let each = |few: u8, many: u8| (steps(many + 20, many) - steps(few + 20, few)) / u64::from(many - few);
    assert!(each(10, 40) <= each(5, 20) * 3 / 2, "{} and {}", each(10, 40), each(5, 20));
}

#[test]
fn a_dry_run_tells_what_the_real_one_then_gives_in_bytes_of_the_disk() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    write_pack(&fs, 20..32);
    let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
    (40..44).for_each(|number| writer.create_whole(&summary(number), &mut events(number, 4)).unwrap());
    drop(writer);
    for policy in [
        before(3),
        before(8),
        Policy { max_bytes: Some(40_000), ..Policy::default() },
        Policy { keep_each: Some(1), ..Policy::default() },
        before(200),
    ] {
        let dry = clean_at(&fs, &policy, true);
        let (packs, on_disk) = (pack_bytes(&fs), folders(&fs) as u64);
        let real = clean(&fs, &policy);
        assert_eq!(dry, real, "{policy:?}");
        assert_eq!(real.packs_freed_bytes, packs - pack_bytes(&fs), "{policy:?}");
        // A folder with a log, metadata and marks.
        let of_folders: u64 = real.removed.iter().filter(|run| run.bytes >= 4096).map(|run| run.bytes).sum();
        assert_eq!(of_folders, (on_disk - folders(&fs) as u64) * 4 * 4096, "{policy:?}");
    }
    assert_eq!((runs(&fs), pack_bytes(&fs)), (Vec::new(), 0));
}

#[test]
fn a_bound_on_bytes_holds_in_whatever_order_runs_came() {
    let fs = store();
    // The oldest and the newest stand together.
    (0..4).for_each(|pack| write_pack(&fs, (0..12).map(|nth| 4 * nth + pack)));
    let all = pack_bytes(&fs);
    for share in [80, 60, 40] {
        let most = all * share / 100;
        let cleaned = clean(&fs, &Policy { max_bytes: Some(most), ..Policy::default() });
        assert!(pack_bytes(&fs) <= most + 400, "{share} %: {} of {most}; {cleaned:?}", pack_bytes(&fs));
        let left = runs(&fs);
        assert_eq!(left, (48 - left.len() as u8..48).collect::<Vec<_>>(), "the newest stay");
    }
    assert_eq!(problems(&fs), [""; 0]);
}

#[test]
fn a_full_disk_loses_its_runs_and_gets_its_space_back() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let from = fs.count();
    fs.plan(Plan { full: from..u64::MAX, has_room_for_names: true, ..Plan::default() });
    let cleaned = clean(&fs, &before(200));
    assert_eq!((cleaned.removed.len(), cleaned.stayed.len(), runs(&fs).len()), (usize::from(RUNS), 0, 0));
    fs.plan(Plan::default());
    clean(&fs, &before(200));
    assert_eq!((pack_files(&fs).len(), problems(&fs)), (0, Vec::new()));
}

#[test]
fn a_run_that_got_a_folder_for_what_came_late_is_packed_again_and_its_old_copy_goes() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let mut writer = FilesWriter::new(layout(&fs), WRITER, true);
    for number in 0..7 {
        writer.take_up(run_id(number)).unwrap();
        writer.append_events(run_id(number), &events(number, 6)[4..]).unwrap();
        writer.update_run(&RunSummary { events: 6, ..summary(number) }).unwrap();
    }
    // Who has it open keeps it.
    (1..7).for_each(|number| writer.release_run(run_id(number)));
    assert_eq!(folders(&fs), 7);
    let cleaned = clean(&fs, &Policy::default());
    assert_eq!((cleaned.packed_again, cleaned.packs_rewritten, folders(&fs)), (6, 1, 1));
    let expected: Vec<(u8, usize)> = (0..RUNS).map(|number| (number, if number < 7 { 6 } else { 4 })).collect();
    assert_eq!((there(&fs), problems(&fs)), (expected.clone(), Vec::new()));
    drop(writer);
    // The pack that was written anew knows of it still.
    assert_eq!((clean(&fs, &Policy::default()).packed_again, folders(&fs)), (1, 0));
    assert_eq!((there(&fs), problems(&fs)), (expected, Vec::new()));
}

#[test]
fn tombstones_that_were_changed_or_taken_away_are_told_of_and_repaired() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    clean(&fs, &before(3));
    let left: Vec<u8> = (3..RUNS).collect();
    assert_eq!((runs(&fs), problems(&fs)), (left.clone(), Vec::new()));
    let (path, bytes) = file_ending(&fs, ".del").unwrap();
    for bit in (0..bytes.len() * 8).step_by(7) {
        let harmed = fs.copy();
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        harmed.overwrite(&path, bytes);
        let told = problems(&harmed);
        assert!(told[..].iter().any(|what| what.contains("of it is not as written")), "bit {bit}: {told:?}");
        if bit % 5 == 0 {
            mend(&harmed);
            assert_eq!((runs(&harmed), problems(&harmed)), (left.clone(), Vec::new()), "bit {bit}");
        }
    }
    let gone = fs.copy();
    gone.shared().remove_file(Path::new(&path)).unwrap();
    assert_eq!(runs(&gone).len(), usize::from(RUNS), "nobody knows better");
    assert_eq!(problems(&gone), ["it says that this run was removed, and the run is there"; 3]);
    mend(&gone);
    assert_eq!((runs(&gone), problems(&gone)), (left, Vec::new()));
}

/// Repairs what can be, and says so of each.
fn mend(fs: &FaultyFs) -> Vec<String> {
    let report = verify(&layout(fs), &Wanted::default(), |_, _| {}).unwrap();
    let done = crate::store::files::verify::repair(&layout(fs), &report).into_iter();
    done.filter(|done| !done.file.ends_with("events.jsonl"))
        .map(|done| format!("{}: {}", done.is_repaired, done.what))
        .collect()
}

#[test]
fn what_is_missing_left_or_in_the_way_is_told_of() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let (path, bytes) = file_ending(&fs, ".pack").unwrap();
    let dir = Path::new("/store/packs");
    // A pack is missing, and with it what its tombstones are of.
    let lost = fs.copy();
    clean(&lost, &before(2));
    lost.shared().remove_file(Path::new(&path)).unwrap();
    assert_eq!(
        problems(&lost),
        [
            "it tells what was removed from a pack, and that pack is missing".to_owned(),
            format!("it tells of 10 runs that are nowhere, the first of them {}", run_id(2)),
        ]
    );
    clean(&lost, &Policy::default());
    assert_eq!(problems(&lost).len(), 2, "no cleanup makes that good");
    let back = lost.copy();
    assert_eq!(
        mend(&lost),
        [
            "true: it says now that 10 runs were removed",
            "true: it has gone: index.log says of all runs in it that they were removed",
        ]
    );
    assert_eq!((problems(&lost), pack_files(&lost).len()), (Vec::new(), 0));
    // Tombstones that alone tell of a removal stay.
    let mut log = back.files().remove("/store/index.log").unwrap();
    log.drain(..log.iter().position(|byte| *byte == b'\n').unwrap());
    back.overwrite("/store/index.log", log);
    assert!(mend(&back).iter().any(|done| done.starts_with("false: it stays")), "{:?}", pack_files(&back));
    assert_eq!(pack_files(&back).len(), 1);
    // What a dead process left.
    let left = fs.copy();
    let making = dir.join(format!(".new-{}.pack", run_id(99)));
    let file = left.shared().create_new(&making).unwrap();
    file.write_at(&bytes[..500], 0).unwrap();
    assert!(file.try_lock(true).unwrap());
    assert_eq!(problems(&left), [""; 0], "it is being written");
    let writer = |fs: &FaultyFs| FilesWriter::new(layout(fs), run_id(98), false).with_packs();
    writer(&left);
    assert_eq!(pack_files(&left).len(), 2, "nor taken away");
    drop(file);
    assert_eq!(problems(&left), [""; 0], "nothing is damaged");
    let notes = verify(&layout(&left), &Wanted::default(), |_, _| {}).unwrap().notes;
    let told = format!("packs/.new-{}.pack was left by a process that died while it wrote a pack", run_id(99));
    assert!(notes.iter().any(|note| note.starts_with(&told)), "{notes:?}");
    let also = left.copy();
    assert_eq!(clean(&also, &Policy::default()).leftovers, 1);
    writer(&left);
    for fs in [&left, &also] {
        assert_eq!((pack_files(fs).len(), runs(fs).len()), (1, 12));
    }
    // What stands in the place of a folder.
    for (is_dir, what) in [
        (true, "it is an empty folder in the place of a run that a pack has"),
        (false, "it is no folder, and hides a run that a pack has"),
    ] {
        let hidden = fs.copy();
        let place = layout(&hidden).run(RunKind::Agent, run_id(4));
        let made =
            if is_dir { hidden.shared().create_dir(&place) } else { hidden.shared().create_new(&place).map(drop) };
        made.unwrap();
        let reader = FilesReader::of(layout(&hidden)).unwrap();
        assert!(problems(&hidden).iter().any(|told| told == what), "{:?}", problems(&hidden));
        if is_dir {
            // It hides nothing.
            assert_eq!(runs(&hidden).len(), 12);
            assert_eq!(mend(&hidden), ["true: the empty folder is gone"]);
            assert_eq!(problems(&hidden), [""; 0]);
        } else {
            let error = reader.get_run(run_id(4)).unwrap_err().to_string();
            assert!(error.ends_with("hides what a pack has: move it away"), "{error}");
            assert_eq!(reader.list_runs(&Query::default()).unwrap().len(), 12, "it is listed as damaged");
        }
    }
}

#[test]
fn a_flipped_byte_in_a_pack_is_told_as_what_it_is_and_repaired_where_nothing_is_lost() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let (path, bytes) = file_ending(&fs, ".pack").unwrap();
    let name = path.rsplit('/').next().unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    // In the head, in the heads and the bodies of entries, behind them, and in the end.
    let (id, dir) = (name.strip_suffix(".pack").unwrap().parse().unwrap(), Path::new("/store/packs"));
    let entries = super::super::Pack::open(&*fs.shared(), dir, id).unwrap().entries(&*fs.shared()).unwrap();
    let ends = entries.iter().map(|entry| (entry.offset + 48 + u64::from(entry.len)) as usize);
    let between = ends.filter(|end| !end.is_multiple_of(8));
    let within = entries.iter().flat_map(|entry| [entry.offset as usize + 10, entry.offset as usize + 60]);
    let end = (bytes.len() - 60..bytes.len()).step_by(3);
    for at in [5, 20].into_iter().chain(within).chain(between).chain(end) {
        let harmed = fs.copy();
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        harmed.overwrite(&path, changed);
        let report = verify(&layout(&harmed), &Wanted::default(), |_, _| {}).unwrap();
        let told: Vec<_> = report.problems.iter().filter(|problem| problem.file.ends_with(name)).collect();
        assert_eq!(told.len(), 1, "byte {at}: {told:?}");
        let is_of_run = told[0].run_id.is_some();
        assert_eq!((is_of_run, report.damaged), (!told[0].is_repairable(), 12), "byte {at}");
        kinds.insert(told[0].what.replace(name, "PACK").chars().filter(|c| !c.is_numeric()).collect::<String>());
        if !is_of_run {
            mend(&harmed);
            assert_eq!((runs(&harmed).len(), problems(&harmed)), (12, Vec::new()), "byte {at}");
        }
    }
    insta::assert_debug_snapshot!(kinds, @r#"
    {
        "byte  belongs to no run and is not as written",
        "its content in packs/PACK is damaged",
        "its entry in packs/PACK is damaged",
        "the pack is damaged: its end is missing or damaged, and with it runs may be gone",
        "the pack is damaged: its first bytes are damaged; all runs in it are there",
    }
    "#);
}
