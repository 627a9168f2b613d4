//! Several processes at one store, living and dead, and stores that are copied, moved and linked under them.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runspan::model::{RunStatus, StepStatus};
use runspan::store::RunReader;
use tracing::info_span;

use super::support::{
    Killed, WATCHDOG, agent, child, ended, is_child, only_run, open, record_in, remove_shared_memory_of_user, runs,
    said, signal, steps, tool, wait_until,
};

/// Ends steps for ever and says so of each.
fn endless_agent() {
    let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "endless");
    let _in_agent = agent.enter();
    println!();
    for n in 1u64.. {
        tool("t");
        println!("ended {n}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Hears what an endless agent says.
struct Endless {
    process: Killed,
    /// The last step that it said had ended.
    said: u64,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Endless {
    fn start(test: &str, store: &Path) -> Self {
        let mut process = Killed(child(test, store).spawn().unwrap());
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        Self { process, said: 0, lines }
    }

    /// Waits until the end of a step has returned.
    fn wait_for(&mut self, step: u64) {
        while self.said < step {
            let line = self.lines.next().expect("it goes on for ever").unwrap();
            self.hear(&line);
        }
    }

    fn hear(&mut self, line: &str) {
        self.said = line.strip_prefix("ended ").and_then(|step| step.parse().ok()).unwrap_or(self.said);
    }

    /// Kills it and returns how many steps it said had ended.
    fn kill(mut self) -> u64 {
        self.process.kill();
        while let Some(Ok(line)) = self.lines.next() {
            self.hear(&line);
        }
        self.said
    }
}

/// Returns how many steps of the store's one run ended well, and how the run stands.
fn ended_steps(store: &Path) -> (RunStatus, u64) {
    let run = only_run(store);
    let steps = steps(store, run.run_id);
    (run.status, steps.iter().filter(|step| step.status == StepStatus::Success).count() as u64)
}

fn assert_nothing_lost(store: &Path, said: u64) {
    let (status, ended) = ended_steps(store);
    assert_eq!(status, RunStatus::Crashed);
    // One more may have ended without having been able to say so.
    assert!(ended == said || ended == said + 1, "said {said}, stored {ended}");
}

/// Copies as `cp -r` does: one file after the other, while they change.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map_while(Result::ok) {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_dir(&path, &copy),
            // What is gone meanwhile is not copied.
            _ => drop(fs::copy(&path, &copy)),
        }
    }
}

/// The shared memory of the processes that have a journal in a store, as far as it is in `/dev/shm`.
fn rings(store: &Path) -> Vec<PathBuf> {
    // SAFETY: always succeeds.
    let dir = PathBuf::from(format!("/dev/shm/runspan-{}", unsafe { libc::geteuid() }));
    let journals = fs::read_dir(store.join("journal")).into_iter().flatten().map_while(Result::ok);
    let rings = journals.map(|journal| dir.join(journal.file_name()).with_extension("ring"));
    rings.filter(|ring| ring.exists()).collect()
}

#[test]
fn a_copy_taken_while_running_shows_a_beginning_and_takes_nothing_from_the_original() {
    const TEST: &str = "processes::a_copy_taken_while_running_shows_a_beginning_and_takes_nothing_from_the_original";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    let dir = crate::support::tempdir();
    let (store, copy) = (dir.path().join("s"), dir.path().join("copy"));
    let mut original = Endless::start(TEST, &store);
    original.wait_for(500);
    wait_until("the run is stored", || runs(&store).len() == 1);
    copy_dir(&store, &copy);
    let rings = rings(&store);
    let (status, of_copy) = ended_steps(&copy);
    assert_eq!(status, RunStatus::Crashed, "nobody goes on with the copy");
    assert!(rings.iter().all(|ring| ring.exists()), "the original's memory is taken: {rings:?}");
    original.wait_for(2_000);
    let said = original.kill();
    // Whoever looks first.
    assert_eq!(ended_steps(&copy), (RunStatus::Crashed, of_copy));
    assert!(of_copy <= said);
    assert_nothing_lost(&store, said);
}

#[test]
fn a_copy_that_is_opened_first_takes_nothing_from_a_dead_original() {
    const TEST: &str = "processes::a_copy_that_is_opened_first_takes_nothing_from_a_dead_original";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    for n in [300, 1_000, 2_500] {
        let dir = crate::support::tempdir();
        let (store, copy) = (dir.path().join("s"), dir.path().join("copy"));
        let mut original = Endless::start(TEST, &store);
        original.wait_for(n);
        copy_dir(&store, &copy);
        original.wait_for(n + 500);
        let said = original.kill();
        open(&copy);
        assert_nothing_lost(&store, said);
    }
}

#[test]
fn a_store_that_was_moved_after_a_crash_has_everything() {
    const TEST: &str = "processes::a_store_that_was_moved_after_a_crash_has_everything";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    let dir = crate::support::tempdir();
    let (store, moved) = (dir.path().join("s"), dir.path().join("elsewhere/moved"));
    let mut original = Endless::start(TEST, &store);
    original.wait_for(1_000);
    let said = original.kill();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::rename(&store, &moved).unwrap();
    assert_nothing_lost(&moved, said);
}

#[test]
fn a_store_behind_a_link_is_the_store() {
    const TEST: &str = "processes::a_store_behind_a_link_is_the_store";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    let dir = crate::support::tempdir();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(record_in(&link, |_| agent("through the link", 2)).stored, 3);
    fs::rename(real.join("agents"), dir.path().join("first")).unwrap();
    fs::create_dir(real.join("agents")).unwrap();
    fs::remove_file(real.join("index.log")).unwrap();
    let mut killed = Endless::start(TEST, &link);
    killed.wait_for(500);
    let said = killed.kill();
    assert_nothing_lost(&real, said);
    assert_eq!(runs(&link), runs(&real));
}

#[test]
fn a_relative_store_stays_where_it_was_when_the_program_goes_elsewhere() {
    const TEST: &str = "processes::a_relative_store_stays_where_it_was_when_the_program_goes_elsewhere";
    if let Some(dir) = is_child(TEST) {
        std::env::set_current_dir(&dir).unwrap();
        let report = record_in(Path::new("here/s"), |guard| {
            agent("before", 2);
            assert!(guard.flush(WATCHDOG));
            std::env::set_current_dir(dir.join("there")).unwrap();
            for _ in 0..3 {
                agent("after", 2);
                assert!(guard.flush(WATCHDOG));
            }
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (12, 0, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    fs::create_dir(dir.path().join("there")).unwrap();
    said(child(TEST, dir.path()));
    assert_eq!(runs(&dir.path().join("here/s")).len(), 4);
    assert!(fs::read_dir(dir.path().join("there")).unwrap().next().is_none());
}

/// Becomes somebody else, for good. No other user has this number.
fn become_somebody() {
    // SAFETY: plain system calls.
    let done = unsafe { libc::setgid(54_321) == 0 && libc::setuid(54_321) == 0 };
    assert!(done, "{}", std::io::Error::last_os_error());
}

fn owners(dir: &Path) -> HashSet<u32> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = entries
        .flat_map(|path| if path.is_dir() { owners(&path) } else { HashSet::from([path.metadata().unwrap().uid()]) });
    below.chain([dir.metadata().unwrap().uid()]).collect()
}

#[test]
fn who_looks_at_another_users_store_leaves_it_to_them() {
    const TEST: &str = "processes::who_looks_at_another_users_store_leaves_it_to_them";
    if let Some(store) = is_child(TEST) {
        become_somebody();
        if std::env::var("RUNSPAN_TEST_CASE").as_deref() == Ok("look") {
            println!("\nended {}", ended_steps(&store).1);
            remove_shared_memory_of_user();
        } else {
            record_in(&store, |_| endless_agent());
        }
        return;
    }
    // SAFETY: always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        // Only root can become somebody else.
        return;
    }
    let dir = crate::support::tempdir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let store = dir.path().join("s");
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(54_321), Some(54_321)).unwrap();
    let mut theirs = Endless::start(TEST, &store);
    theirs.wait_for(1_000);
    wait_until("the run is stored", || runs(&store).len() == 1);
    let said = theirs.kill();
    let status = only_run(&store).status;
    assert_eq!(status, RunStatus::Crashed);
    assert_eq!(owners(&store), HashSet::from([54_321]));
    let mut look = child(TEST, &store);
    look.env("RUNSPAN_TEST_CASE", "look");
    let output = ended(look);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen: Option<u64> = text.lines().find_map(|line| line.strip_prefix("ended ")?.parse().ok());
    assert!(seen == Some(said) || seen == Some(said + 1), "said {said}, seen {seen:?}: {output:?}");
}

const RUNS: usize = 10;
const STEPS: usize = 30;

#[test]
fn twenty_processes_record_die_and_look_at_one_store_at_once() {
    const TEST: &str = "processes::twenty_processes_record_die_and_look_at_one_store_at_once";
    if let Some(store) = is_child(TEST) {
        use tracing_subscriber::layer::SubscriberExt;
        let case = std::env::var("RUNSPAN_TEST_CASE").unwrap();
        if case == "looks" {
            let mut seen = 0;
            // SAFETY: always succeeds.
            let parent = || unsafe { libc::getppid() };
            let started_by = parent();
            // Who started it may fail, and be gone.
            while !store.join("done").exists() && parent() == started_by {
                let runs = runs(&store);
                let ids: HashSet<_> = runs.iter().map(|run| run.run_id).collect();
                assert_eq!(ids.len(), runs.len(), "a run shows once");
                assert!(runs.len() >= seen, "a run that was there is gone");
                seen = runs.len();
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        let (layer, guard) = runspan::builder().store(&store).buffer_bytes(1 << 20).build().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            (0..RUNS).for_each(|_| agent("ends", STEPS));
            if case == "dies" {
                let dying =
                    info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "dies");
                let _in_run = dying.enter();
                (0..STEPS).for_each(|_| tool("t"));
                signal(std::process::id(), libc::SIGKILL);
            }
        });
        let report = guard.shutdown(WATCHDOG);
        assert_eq!((report.stored, report.pending), ((RUNS * (STEPS + 1)) as u64, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    // There from the start, so that lookers find it.
    record_in(dir.path(), |_| {});
    let start = |case: &str| {
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", case);
        std::thread::spawn(move || ended(command))
    };
    let lookers: Vec<_> = (0..3).map(|_| start("looks")).collect();
    // Those who begin to record take over what others left as well.
    let (mut ending, mut dying) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        dying.push(start("dies"));
        ending.push(start("ends"));
    }
    ending.push(start("ends"));
    for process in dying {
        let output = process.join().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{output:?}");
    }
    let good = |process: std::thread::JoinHandle<std::process::Output>| {
        let output = process.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    ending.into_iter().for_each(good);
    fs::write(dir.path().join("done"), "").unwrap();
    lookers.into_iter().for_each(good);

    let all = runs(dir.path());
    let (died, ended): (Vec<_>, Vec<_>) = all.iter().partition(|run| run.name() == "dies");
    assert_eq!((ended.len(), died.len()), (17 * RUNS, 8));
    assert!(ended.iter().all(|run| run.status == RunStatus::Success && run.steps_total == STEPS as u64 + 1));
    assert!(died.iter().all(|run| run.status == RunStatus::Crashed && run.steps_total == STEPS as u64 + 1));
    let store = open(dir.path());
    let events: Vec<_> = all.iter().flat_map(|run| store.get_events(run.run_id, 0).unwrap()).collect();
    let ids: HashSet<_> = events.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), events.len(), "an event is told once");
    for run in died {
        let steps = steps(dir.path(), run.run_id);
        assert_eq!(steps.iter().filter(|step| step.status == StepStatus::Success).count(), STEPS);
    }
    assert!(fs::read_dir(dir.path().join("journal")).unwrap().next().is_none(), "the journals are taken over");
}

#[test]
fn a_run_has_one_writer_and_who_else_names_it_writes_another() {
    const TEST: &str = "processes::a_run_has_one_writer_and_who_else_names_it_writes_another";
    const RUN: &str = "01KE9BZH80BGEY5ABZ7D0DHDQ1";
    if let Some(store) = is_child(TEST) {
        let case = std::env::var("RUNSPAN_TEST_CASE").unwrap();
        let report = record_in(&store, |guard| {
            let run = info_span!(
                "invoke_agent",
                gen_ai.operation.name = "invoke_agent",
                gen_ai.agent.name = case,
                runspan.run.id = RUN
            );
            let _in_run = run.enter();
            for n in 0..20 {
                tool("t");
                assert!(guard.flush(WATCHDOG));
                // Both are in the middle of it at once.
                fs::write(store.join(format!("{case}-{n}")), "").unwrap();
                let is_there = |other: &str| case == "alone" || store.join(format!("{other}-{n}")).exists();
                wait_until("the other one is as far", || is_there("first") && is_there("second"));
            }
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (21, 0, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {});
    let start = |case: &str| {
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", case);
        std::thread::spawn(move || ended(command))
    };
    for case in [vec!["first", "second"], vec!["alone"]] {
        for process in case.into_iter().map(start).collect::<Vec<_>>() {
            let output = process.join().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
    let all = runs(dir.path());
    let named = RUN.parse().unwrap();
    let (first, other): (Vec<_>, Vec<_>) = all.iter().partition(|run| run.run_id == named);
    // The one that came when both were gone went on with it.
    assert_eq!(first.iter().map(|run| run.steps_total).collect::<Vec<_>>(), [42]);
    assert_eq!(other.iter().map(|run| (run.steps_total, run.parent_run_id)).collect::<Vec<_>>(), [(21, Some(named))]);
    assert!(all.iter().all(|run| run.status == RunStatus::Success && run.dropped == 0), "{all:?}");
    for run in &all {
        assert_eq!(steps(dir.path(), run.run_id).len() as u64, run.steps_total);
    }
}
