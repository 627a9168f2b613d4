//! Where the system gives no more, or takes away: descriptors, threads, a disk that may not be written, a store that
//! goes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use runspan::model::{RunStatus, RunSummary};
use runspan::store::RunReader;
use runspan::{Guard, Report, Run};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    Closed, WATCHDOG, agent, assert_accounted, child, ended, is_child, on_own_disk, open, record_in,
    remove_shared_memory_of_user, runs, said, warnings,
};

/// Sets how much of something this process may have.
fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let mut known = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls with valid places.
    let done = unsafe {
        libc::getrlimit(resource, &mut known) == 0
            && libc::setrlimit(resource, &libc::rlimit { rlim_cur: most.min(known.rlim_max), ..known }) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}

/// A number that no descriptor below is free for: with it as the limit nothing can be opened.
fn no_more_descriptors() -> u64 {
    let mut held = Vec::new();
    let first_free = loop {
        let file = fs::File::open("/dev/null").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file) as u64;
        held.push(file);
        let highest = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
        let highest = highest.filter_map(|name| name.to_str()?.parse::<u64>().ok()).max().unwrap_or(0);
        if number + 1 >= highest {
            break number;
        }
    };
    // The gaps below stay filled.
    held.pop();
    std::mem::forget(held);
    first_free
}

const MANY: u64 = 1024;

/// Records some runs, if that is possible here, and accounts for all of them.
fn record_if_possible(store: &Path) -> Option<Report> {
    let closed = Closed::default();
    let (layer, guard) = runspan::builder().store(store).buffer_bytes(64 << 10).build().ok()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(closed.clone()).with(layer), || {
        (0..3).for_each(|_| agent("a", 2));
    });
    // Time enough on a busy machine: what is given up half-way is neither stored nor counted as lost.
    let report = guard.shutdown(Duration::from_secs(2));
    assert_accounted(&report, closed.get());
    Some(report)
}

#[test]
fn a_process_short_of_descriptors_records_or_does_not_and_accounts_for_it() {
    const TEST: &str = "limits::a_process_short_of_descriptors_records_or_does_not_and_accounts_for_it";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| {});
        let (none, mut emitted, mut outcomes) = (no_more_descriptors(), 0, Vec::new());
        // How many files are open at once is a matter of when each thread gets to run: the last number is plenty.
        for more in (0..12).chain([64]) {
            limit(libc::RLIMIT_NOFILE, none + more);
            let report = record_if_possible(&store);
            limit(libc::RLIMIT_NOFILE, MANY);
            outcomes.push(report.as_ref().map(|report| report.stored));
            emitted += report.map_or(0, |report| report.stored + report.pending);
            // What was not stored then is, as soon as the thread that had it has let go of its journal.
            let steps = || runs(&store).iter().map(|run| run.steps_total).sum::<u64>();
            crate::support::wait_until("all steps are there", || steps() == emitted);
        }
        assert_eq!((outcomes.first(), outcomes.last()), (Some(&None), Some(&Some(9))), "{outcomes:?}");
        assert!(fs::read_dir(store.join("journal")).unwrap().next().is_none(), "nothing is left of those that failed");
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

#[test]
fn more_runs_under_way_than_files_may_be_open_are_recorded_and_leave_the_host_its_files() {
    const TEST: &str = "limits::more_runs_under_way_than_files_may_be_open_are_recorded_and_leave_the_host_its_files";
    const RUNS: usize = 200;
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |guard| {
            limit(libc::RLIMIT_NOFILE, no_more_descriptors() + 100);
            let under_way: Vec<Run> = (0..RUNS).map(|n| Run::agent(format!("a{n}")).start()).collect();
            // Each is written to again and again, so that each was put by and opened again.
            for round in 0..3 {
                under_way.iter().for_each(|run| run.tool(&format!("t{round}")).finish());
                guard.flush(WATCHDOG);
                let of_host: Vec<_> = (0..16).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect();
                assert!(of_host.iter().all(Result::is_ok), "{of_host:?}");
            }
            under_way.into_iter().for_each(Run::finish);
        });
        assert_eq!((report.stored, report.pending), (4 * RUNS as u64, 0));
        limit(libc::RLIMIT_NOFILE, MANY);
        let runs = runs(&store);
        let is_whole = |run: &RunSummary| run.status == RunStatus::Success && run.steps_total == 4;
        assert_eq!(runs.iter().filter(|run| is_whole(run)).count(), RUNS);
        for run in &runs {
            let events = open(&store).get_events(run.run_id, 0).unwrap();
            assert_eq!(events.len() as u64, run.events);
        }
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

#[test]
fn init_without_descriptors_or_threads_warns_once() {
    const TEST: &str = "limits::init_without_descriptors_or_threads_warns_once";
    if let Some(store) = is_child(TEST) {
        let case = std::env::var("RUNSPAN_TEST_CASE").unwrap();
        match case.as_str() {
            "descriptors" => limit(libc::RLIMIT_NOFILE, no_more_descriptors()),
            _ => no_more_threads(),
        }
        let guard = runspan::init();
        agent("unrecorded", 2);
        assert_eq!(guard.shutdown(WATCHDOG), Report::default());
        if case == "threads" {
            assert_left_nothing(&store);
            remove_shared_memory_of_user();
        }
        return;
    }
    for (case, why) in [("descriptors", "Too many open files"), ("threads", "no thread for the recorder")] {
        let dir = for_everybody();
        let mut command = child(TEST, &dir.path().join("s"));
        command.env("RUNSPAN_TEST_CASE", case);
        let said = said(command);
        assert_eq!(warnings(&said).len(), 1, "{case}: {said}");
        assert!(said.contains(why) && said.contains("this program is not recorded"), "{case}: {said}");
    }
}

/// A set-up that failed leaves no journal and no shared memory behind.
fn assert_left_nothing(store: &Path) {
    assert!(fs::read_dir(store.join("journal")).unwrap().next().is_none());
    // SAFETY: always succeeds.
    let rings = fs::read_dir(format!("/dev/shm/runspan-{}", unsafe { libc::geteuid() }));
    let of_this_store = |ring: &std::path::PathBuf| {
        let bytes = fs::read(ring).unwrap_or_default();
        let name = store.as_os_str().as_encoded_bytes();
        bytes[..bytes.len().min(4096)].windows(name.len()).any(|part| part == name)
    };
    let rings = rings.into_iter().flatten().map(|ring| ring.unwrap().path());
    assert_eq!(rings.filter(of_this_store).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
}

#[cfg(feature = "forward")]
#[test]
fn a_setting_that_is_refused_leaves_nothing_behind() {
    let dir = crate::support::tempdir();
    let builder = runspan::builder().store(dir.path()).buffer_bytes(64 << 10);
    assert!(builder.forward("http://127.0.0.1:1").forward("no endpoint").build().is_err());
    assert_left_nothing(dir.path());
}

/// A directory that other users may write to as well.
fn for_everybody() -> crate::support::TestDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = crate::support::tempdir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// From here on no thread can be started. The limit does not bind root, so this becomes a user that nobody else is.
fn no_more_threads() {
    // SAFETY: plain system calls.
    unsafe {
        if libc::geteuid() == 0 {
            let user = 1_000_000 + std::process::id();
            assert!(libc::setgid(user) == 0 && libc::setuid(user) == 0);
        }
    }
    limit(libc::RLIMIT_NPROC, 0);
}

#[test]
fn when_descriptors_run_out_recording_waits_and_goes_on_when_there_are_some() {
    const TEST: &str = "limits::when_descriptors_run_out_recording_waits_and_goes_on_when_there_are_some";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |guard| {
            agent("before", 2);
            assert!(guard.flush(WATCHDOG));
            limit(libc::RLIMIT_NOFILE, no_more_descriptors());
            (0..3).for_each(|_| agent("meanwhile", 2));
            assert!(!guard.flush(Duration::from_millis(300)), "new runs need files");
            limit(libc::RLIMIT_NOFILE, MANY);
            agent("after", 2);
            assert!(guard.flush(WATCHDOG));
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (15, 0, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    let said = said(child(TEST, dir.path()));
    assert_eq!(warnings(&said).len(), 1, "{said}");
    assert_eq!(runs(dir.path()).iter().map(|run| run.steps_total).collect::<Vec<_>>(), [3; 5]);
}

fn mount(how: &[&str], dir: &Path) {
    assert!(Command::new("mount").args(how).arg(dir).status().unwrap().success());
}

#[test]
fn a_store_that_turns_read_only_costs_nothing_once_it_can_be_written_again() {
    const TEST: &str = "limits::a_store_that_turns_read_only_costs_nothing_once_it_can_be_written_again";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |guard| {
            agent("before", 2);
            assert!(guard.flush(WATCHDOG));
            mount(&["--bind", store.to_str().unwrap()], &store);
            mount(&["-o", "remount,bind,ro"], &store);
            (0..3).for_each(|_| agent("meanwhile", 2));
            assert!(!guard.flush(Duration::from_millis(300)));
            assert_eq!(runs(&store).len(), 1, "a read-only store is read");
            // Who begins to record now cannot, and says so.
            assert!(runspan::builder().store(&store).service_name("other").build().is_err());
            assert!(Command::new("umount").arg("-l").arg(&store).status().unwrap().success());
            agent("after", 2);
            assert!(guard.flush(WATCHDOG));
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (15, 0, 0), "{report:?}");
        assert_eq!(runs(&store).len(), 5);
        return;
    }
    let dir = crate::support::tempdir();
    let output = ended(on_own_disk(&child(TEST, &dir.path().join("s")), dir.path(), 2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(warnings(&said).len(), 1, "{said}");
}

/// Records before and after something happens to the store, and accounts for all of it.
fn record_around(store: &Path, happens: impl FnOnce(&Guard)) -> Report {
    let closed = Closed::default();
    let (layer, guard) = runspan::builder().store(store).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(closed.clone()).with(layer), || {
        let open =
            tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "open");
        let inside = open.enter();
        agent("step of the open run", 2);
        assert!(guard.flush(WATCHDOG));
        happens(&guard);
        agent("step of the open run", 2);
        drop(inside);
        drop(open);
        for _ in 0..3 {
            agent("after", 2);
            guard.flush(Duration::from_millis(100));
        }
    });
    let report = guard.shutdown(Duration::from_millis(500));
    assert_accounted(&report, closed.get());
    report
}

#[test]
fn a_store_that_is_moved_away_takes_everything_along() {
    const TEST: &str = "limits::a_store_that_is_moved_away_takes_everything_along";
    if let Some(store) = is_child(TEST) {
        let moved = store.with_file_name("moved");
        let report = record_around(&store, |_| fs::rename(&store, &moved).unwrap());
        assert_eq!(report.dropped.len(), 0, "{report:?}");
        assert!(!store.exists(), "no store is made where there is none any more");
        assert_eq!(open(&moved).layout().root(), moved);
        let of_moved = runs(&moved);
        assert_eq!(of_moved.iter().map(|run| run.steps_total).sum::<u64>(), report.stored + report.pending);
        assert!(of_moved.iter().all(|run| run.status == runspan::model::RunStatus::Success), "{of_moved:?}");
        return;
    }
    let dir = crate::support::tempdir();
    let said = said(child(TEST, &dir.path().join("s")));
    assert_eq!(warnings(&said).len(), 1, "{said}");
}

#[test]
fn a_store_that_another_takes_the_place_of_is_not_mixed_with_it() {
    const TEST: &str = "limits::a_store_that_another_takes_the_place_of_is_not_mixed_with_it";
    if let Some(store) = is_child(TEST) {
        let moved = store.with_file_name("moved");
        let report = record_around(&store, |_| {
            fs::rename(&store, &moved).unwrap();
            record_in(&store, |_| agent("other", 1));
        });
        assert_eq!(report.dropped.len(), 0, "{report:?}");
        assert_eq!(runs(&store).iter().map(|run| run.name()).collect::<Vec<_>>(), ["other"]);
        let of_moved = runs(&moved).iter().map(|run| run.steps_total).sum::<u64>();
        assert_eq!(of_moved, report.stored + report.pending);
        return;
    }
    let dir = crate::support::tempdir();
    let said = said(child(TEST, &dir.path().join("s")));
    assert_eq!(warnings(&said).len(), 1, "{said}");
}
