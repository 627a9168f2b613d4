//! Checking, pinning and removing runs while others record, and where there is no room.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use runspan::model::{RunStatus, UnixNanos};
use runspan::store::files::cleanup::{Cleaned, Options, cleanup, set_pinned};
use runspan::store::files::verify::{Report, Wanted, verify};
use runspan::store::retention::Policy;

use super::support::{
    Killed, WATCHDOG, agent, child, ended, is_child, on_own_disk, open, record_in, runs, tempdir, wait_until, warnings,
};

/// All that can go goes.
const NOTHING_KEPT: Policy = Policy { keep_each: Some(0), max_age: None, max_bytes: None };

fn clean(store: &Path) -> Cleaned {
    let reader = open(store);
    cleanup(reader.layout(), &NOTHING_KEPT, Options::default(), UnixNanos::now(), || true).unwrap()
}

fn check(store: &Path) -> Report {
    verify(open(store).layout(), &Wanted::default(), |_, _| {}).unwrap()
}

/// Records for as long as it lives: a run that does not end, and others that do.
fn record_for_ever(store: &Path) {
    record_in(store, |guard| {
        let outer = runspan::Run::agent("outer").start();
        assert!(guard.flush(WATCHDOG));
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let others = std::thread::spawn(move || {
            // In a thread of their own they are no steps of the first.
            tracing::dispatcher::with_default(&dispatch, || {
                for _ in 0..100_000 {
                    let run = runspan::Run::agent("short").start();
                    run.tool("t").finish();
                    run.finish();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        });
        others.join().unwrap();
        outer.finish();
    });
}

#[test]
fn while_a_process_records_its_runs_are_whole_and_what_is_open_is_never_removed() {
    const TEST: &str = "keep::while_a_process_records_its_runs_are_whole_and_what_is_open_is_never_removed";
    if let Some(store) = is_child(TEST) {
        return record_for_ever(&store);
    }
    let dir = tempdir();
    let mut recording = Killed(child(TEST, dir.path()).spawn().unwrap());
    let is_open = |name: &str| {
        let found = runs(dir.path());
        found.iter().any(|run| run.name() == name && run.status == RunStatus::Running)
    };
    wait_until("it records", || dir.path().join("store.yaml").exists() && is_open("outer"));
    let mut removed = 0;
    wait_until("runs that it is done with go", || {
        let report = check(dir.path());
        assert_eq!(report.problems, [], "{report:#?}");
        removed += clean(dir.path()).removed.len();
        assert!(is_open("outer"));
        removed > 20
    });
    // Pinned by another process while it is written, and so for good.
    let outer = runs(dir.path()).into_iter().find(|run| run.name() == "outer").unwrap().run_id;
    assert!(set_pinned(open(dir.path()).layout(), outer, true).unwrap());
    recording.kill();
    let left = runs(dir.path());
    let crashed = left.iter().find(|run| run.run_id == outer).unwrap();
    assert_eq!((crashed.status, crashed.pinned), (RunStatus::Crashed, true));
    assert_eq!(check(dir.path()).problems, []);
    clean(dir.path());
    assert_eq!(runs(dir.path()).iter().map(|run| run.run_id).collect::<Vec<_>>(), [outer]);
    assert_eq!(check(dir.path()).problems, []);
    set_pinned(open(dir.path()).layout(), outer, false).unwrap();
    clean(dir.path());
    assert_eq!(runs(dir.path()), []);
}

#[test]
fn a_disk_without_a_free_byte_has_room_again_after_a_cleanup() {
    const TEST: &str = "keep::a_disk_without_a_free_byte_has_room_again_after_a_cleanup";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |_| (0..8).for_each(|_| agent("a", 20)));
        assert_eq!(report.pending, 0);
        let before = runs(&store).len();
        let filler = store.with_file_name("filler");
        let fill = || {
            let mut file = fs::File::options().append(true).create(true).open(&filler).unwrap();
            let mut written = 0;
            for size in [64 << 10, 4 << 10, 1] {
                while file.write_all(&vec![1; size]).is_ok() {
                    written += size;
                }
            }
            written
        };
        fill();
        assert_eq!(fill(), 0);
        let cleaned = clean(&store);
        assert_eq!((before, cleaned.removed.len(), cleaned.stayed.len()), (8, 8, 0), "{cleaned:?}");
        assert_eq!(runs(&store), []);
        // The system has it back.
        assert!(fill() as u64 >= cleaned.bytes / 2, "{cleaned:?}");
        return;
    }
    let dir = tempdir();
    let output = ended(on_own_disk(&child(TEST, &dir.path().join("s")), dir.path(), 2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(warnings(&said), Vec::<&str>::new(), "{said}");
}
