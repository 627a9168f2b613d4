//! Runs that are made ready for their pack by a thread of its own, while the writer is asked for other things.

use super::*;

fn writer(fs: &FaultyFs) -> FilesWriter {
    layout(fs).open_or_create().unwrap();
    FilesWriter::new(layout(fs), WRITER, true).with_packs()
}

/// A run whose log is longer than a pack takes.
fn long(number: u8) -> (RunSummary, Vec<Event>) {
    const LINES: u64 = 12_000;
    (RunSummary { events: LINES, ..summary(number) }, events(number, LINES))
}

#[test]
fn a_run_that_turns_out_too_long_for_a_pack_has_a_folder_behind_it_and_others_have_their_pack() {
    let fs = FaultyFs::new(1);
    let mut writer = writer(&fs);
    for number in 0..RUNS {
        let (summary, mut events) = if number == 5 { long(5) } else { (summary(number), events(number, 4)) };
        writer.create_whole(&summary, &mut events).unwrap();
    }
    assert!(writer.write_held(true).unwrap());
    let expected: Vec<(u8, usize)> = (0..RUNS).map(|run| (run, if run == 5 { 12_000 } else { 4 })).collect();
    assert_eq!((there(&fs), folders(&fs)), (expected, 1));
}

#[test]
fn a_run_whose_folder_cannot_be_made_then_is_not_said_to_be_written_whoever_was_told_of_it_and_waits_on() {
    // Asked for by itself, for another one that is behind it, or not at all.
    for asked in [Some(5), Some(6), None] {
        let fs = FaultyFs::new(1);
        let mut writer = writer(&fs);
        let (first, told) = long(5);
        writer.create_whole(&first, &mut told.clone()).unwrap();
        writer.create_whole(&summary(6), &mut events(6, 4)).unwrap();
        fs.plan(Plan { full: 0..u64::MAX, ..Plan::default() });
        // Not everybody who asks passes the error on.
        let _ = asked.map(|run| writer.take_up(run_id(run)));
        writer.write_held(true).unwrap_err();
        fs.plan(Plan::default());
        // Who asks for another one has no part in it.
        assert_eq!(writer.take_up(run_id(6)).unwrap().map(|events| events.len()), Some(4), "{asked:?}");
        assert_eq!(writer.take_up(run_id(5)).unwrap().map(|events| events.len()), Some(12_000), "{asked:?}");
        assert!(writer.write_held(true).unwrap(), "{asked:?}");
        assert_eq!(there(&fs), [(5, 12_000), (6, 4)], "{asked:?}");
    }
}

#[test]
fn who_asks_for_a_run_that_is_being_made_ready_waits_for_it() {
    type Ask = fn(&mut FilesWriter);
    let asks: [(&str, Ask, usize); 6] = [
        ("take up", |writer| assert_eq!(writer.take_up(run_id(3)).unwrap().unwrap().len(), 4), 4),
        ("append", |writer| writer.append_events(run_id(3), &events(3, 6)).unwrap(), 6),
        ("replace", |writer| writer.replace_events(run_id(3), &events(3, 2)).unwrap(), 2),
        ("update", |writer| writer.update_run(&summary(3)).unwrap(), 4),
        ("tell again", |writer| writer.create_run(&summary(3), &events(3, 4)).unwrap(), 4),
        ("delete", |writer| writer.delete_run(run_id(3)).unwrap(), 0),
    ];
    for (name, ask, lines) in asks {
        let fs = FaultyFs::new(1);
        let mut writer = writer(&fs);
        for number in 0..RUNS {
            writer.create_whole(&summary(number), &mut events(number, 4)).unwrap();
        }
        // Twice as long for what is asked at once.
        writer.create_whole(&summary(3), &mut events(3, 4)).unwrap();
        ask(&mut writer);
        assert!(writer.write_held(true).unwrap(), "{name}");
        let of = |run| if run == 3 { lines } else { 4 };
        let expected: Vec<(u8, usize)> = (0..RUNS).map(|run| (run, of(run))).filter(|(_, lines)| *lines > 0).collect();
        assert_eq!(there(&fs), expected, "{name}");
    }
}

#[test]
fn a_run_that_has_no_folder_keeps_no_other_from_its_pack() {
    let fs = FaultyFs::new(1);
    let mut writer = writer(&fs);
    for number in 0..RUNS {
        let (summary, mut events) = if number == 5 { long(5) } else { (summary(number), events(number, 4)) };
        writer.create_whole(&summary, &mut events).unwrap();
    }
    // It is there, and another process writes it.
    let theirs = RunId([8; 16]);
    FilesWriter::new(layout(&fs), theirs, true).create_run(&summary(5), &events(5, 4)).unwrap();
    let journal = layout(&fs).journal().join(theirs.to_string());
    fs.shared().create_dir(layout(&fs).journal().as_path()).ok();
    fs.shared().create_dir(&journal).unwrap();
    writer.write_held(true).unwrap_err();
    let is_pack = |path: &String| path.starts_with("/store/packs/") && path.ends_with(".pack");
    assert_eq!(fs.files().keys().filter(|path| is_pack(path)).count(), 1);
    assert_eq!(there(&fs).len(), usize::from(RUNS));
}
