//! Several processes at the same runs: each removal happens once, and whoever was told that something holds can rely on it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::store::files::cleanup::{Options, cleanup, set_pinned};

/// Long after all runs have ended.
const NOW: UnixNanos = UnixNanos((BASE + 10_000_000) * 1_000_000);

fn run(number: u16) -> RunId {
    let [high, low] = number.to_be_bytes();
    RunId::from_parts(BASE + u64::from(number), [high, 0, 0, 0, 0, 0, 0, 0, 1, low])
}

fn told(number: u16) -> (RunSummary, Vec<Event>) {
    let (id, of_few) = (run(number), (number % 200) as u8);
    let events: Vec<Event> = events(of_few, 4)
        .into_iter()
        .map(|event| {
            let mut event_id = id.0;
            event_id[14] = event.seq as u8;
            Event { event_id: EventId(event_id), ..event }
        })
        .collect();
    (RunSummary { run_id: id, trace_id: id.as_trace_id(), ..summary(of_few) }, events)
}

/// A store with so many runs in packs, and behind them so many in folders.
fn store(packed: u16, in_folders: u16) -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("s"));
    layout.open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout.clone(), WRITER, false).with_packs_of_any();
    for number in 0..packed {
        let (summary, events) = told(number);
        writer.create_run(&summary, &events).unwrap();
        if number % 40 == 39 {
            writer.write_held(true).unwrap();
        }
    }
    writer.write_held(true).unwrap();
    let mut writer = FilesWriter::new(layout.clone(), WRITER, false);
    for number in packed..packed + in_folders {
        let (summary, events) = told(number);
        writer.create_run(&summary, &events).unwrap();
    }
    (dir, layout)
}

fn nothing_kept() -> Policy {
    Policy { max_age: Some(Duration::from_secs(1)), ..Policy::default() }
}

#[test]
fn of_cleanups_at_once_and_what_comes_late_each_removal_is_counted_once() {
    let (_dir, layout) = store(200, 40);
    let counted: Mutex<BTreeMap<RunId, u32>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            // Each is a process of its own, as far as files go.
            let (layout, counted) = (Layout::new(layout.root()), &counted);
            scope.spawn(move || {
                let cleaned = cleanup(&layout, &nothing_kept(), Options::default(), NOW, || true).unwrap();
                assert!(cleaned.stayed.iter().all(|stayed| !stayed.is_failure), "{:?}", cleaned.stayed);
                let mut counted = counted.lock().unwrap();
                cleaned.removed.iter().for_each(|run| *counted.entry(run.run_id).or_default() += 1);
            });
        }
        let layout = Layout::new(layout.root());
        scope.spawn(move || {
            let mut late = FilesWriter::new(layout, WRITER, false);
            for number in (0..240).rev().step_by(7) {
                let (summary, mut events) = told(number);
                let mut more = events[3].clone();
                (more.seq, more.event_id.0[14]) = (4, 9);
                events.push(more);
                if let Ok(Some(_)) = late.take_up(run(number)) {
                    // It may go before this comes to it, which is said.
                    let _ = late.append_events(run(number), &events[4..]);
                    let _ = late.update_run(&RunSummary { events: 5, ..summary });
                }
                late.release_run(run(number));
            }
        });
    });
    let counted = counted.into_inner().unwrap();
    let reader = FilesReader::of(layout.clone()).unwrap();
    for number in 0..240 {
        let times = counted.get(&run(number)).copied().unwrap_or(0);
        let is_there = reader.get_run(run(number)).is_ok();
        assert_eq!(times, u32::from(!is_there), "run {number} was counted {times} times; it is there: {is_there}");
    }
    let rest = cleanup(&layout, &nothing_kept(), Options::default(), NOW, || true).unwrap();
    assert_eq!(rest.removed.len() + counted.len(), 240);
    let report = verify(&layout, &Wanted::default(), |_, _| {}).unwrap();
    assert_eq!((report.runs, report.problems), (0, Vec::new()));
    assert_eq!(std::fs::read_dir(layout.root().join("packs")).unwrap().count(), 0);
}

#[test]
fn a_run_that_is_pinned_while_it_is_removed_is_there_or_its_removal_is_named() {
    let (_dir, layout) = store(120, 120);
    let outcomes = std::thread::scope(|scope| {
        let other = Layout::new(layout.root());
        let cleaning = scope.spawn(move || cleanup(&other, &nothing_kept(), Options::default(), NOW, || true).unwrap());
        let pinned: Vec<(u16, Result<bool, StoreError>)> =
            (0..240).rev().map(|number| (number, set_pinned(&layout, run(number), true))).collect();
        cleaning.join().unwrap();
        pinned
    });
    let reader = FilesReader::of(layout.clone()).unwrap();
    for (number, outcome) in outcomes {
        match outcome {
            Ok(_) => assert!(reader.get_run(run(number)).is_ok_and(|run| run.pinned), "run {number}"),
            Err(StoreError::NotFound { .. } | StoreError::RemovedMeanwhile { .. }) => {}
            Err(error) => panic!("run {number}: {}", crate::error::with_causes(&error)),
        }
    }
}
