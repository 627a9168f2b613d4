//! What a killed process leaves: every step whose end had returned, its open steps, and no invention.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use runspan::model::{EventBody, RunStatus, StepStatus};
use runspan::store::RunReader;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use super::support::{Killed, WATCHDOG, child, is_child, only_run, open, outline, record_in, runs, steps, wait_until};

/// Ends a step and then says so, for ever; whoever hears it knows that the end had returned.
fn endless_agent() {
    let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "endless");
    let _in_agent = agent.enter();
    for n in 0.. {
        info_span!("execute_tool", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = format!("tool{n}"))
            .in_scope(|| {});
        println!("ended {n}");
    }
}

#[test]
fn kill_nine_loses_nothing_that_had_returned() {
    if let Some(store) = is_child("crash::kill_nine_loses_nothing_that_had_returned") {
        record_in(&store, |_| endless_agent());
        return;
    }
    for round in 0..12 {
        let dir = crate::support::tempdir();
        let mut command = child("crash::kill_nine_loses_nothing_that_had_returned", dir.path());
        let mut agent = Killed(command.spawn().unwrap());
        let mut said = BufReader::new(agent.0.stdout.take().unwrap()).lines();
        let mut last = None;
        let wanted = [1, 2, 40, 400][round % 4];
        while last.is_none_or(|n| n < wanted) {
            let line = said.next().unwrap().unwrap();
            last = line.strip_prefix("ended ").and_then(|n| n.parse::<u64>().ok()).or(last);
        }
        agent.kill();
        // What it had said before the end came is in the pipe still.
        last = said.map_while(Result::ok).filter_map(|l| l.strip_prefix("ended ")?.parse().ok()).last().or(last);

        let run = only_run(dir.path());
        assert_eq!(run.status, RunStatus::Crashed);
        let steps = steps(dir.path(), run.run_id);
        let ended = steps.iter().filter(|step| step.status == StepStatus::Success).count() as u64;
        let said = last.unwrap() + 1;
        // One more may have ended without having been able to say so.
        assert!(ended == said || ended == said + 1, "said {said}, stored {ended}");
        assert_eq!(steps[0].step_id, "endless");
        assert_eq!(steps[0].status, StepStatus::Crashed);
        assert!(std::fs::read_dir(dir.path().join("journal")).unwrap().next().is_none(), "the journal is taken over");
    }
}

#[test]
fn who_looks_while_another_takes_over_sees_everything() {
    const TEST: &str = "crash::who_looks_while_another_takes_over_sees_everything";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    for _ in 0..5 {
        let dir = crate::support::tempdir();
        let mut agent = Killed(child(TEST, dir.path()).spawn().unwrap());
        let said = BufReader::new(agent.0.stdout.take().unwrap()).lines();
        assert!(said.map_while(Result::ok).any(|line| line == "ended 1500"));
        agent.kill();
        let seen: Vec<_> = std::thread::scope(|threads| {
            let look = || {
                let run = only_run(dir.path());
                (run.status, run.steps_total)
            };
            let lookers: Vec<_> = (0..4).map(|_| threads.spawn(look)).collect();
            lookers.into_iter().map(|looker| looker.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|seen| *seen == seen_last(dir.path())), "{seen:?}");
    }

    fn seen_last(store: &std::path::Path) -> (RunStatus, u64) {
        let run = only_run(store);
        assert!(run.status == RunStatus::Crashed && run.steps_total > 1500);
        (run.status, run.steps_total)
    }
}

#[test]
fn what_a_killed_process_lost_is_counted_in_its_run() {
    const TEST: &str = "crash::what_a_killed_process_lost_is_counted_in_its_run";
    const LINES: u64 = 30_000;
    if let Some(store) = is_child(TEST) {
        let (layer, guard) = runspan::builder().store(&store).buffer_bytes(64 << 10).build().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "flood");
            let _in_agent = agent.enter();
            assert!(guard.flush(WATCHDOG));
            (0..LINES).for_each(|n| tracing::info!(n, "line"));
            // Before anybody could note what the last of them cost.
            // SAFETY: a plain system call, on this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        });
        return;
    }
    for _ in 0..3 {
        let dir = crate::support::tempdir();
        let mut agent = Killed(child(TEST, dir.path()).spawn().unwrap());
        assert!(!agent.0.wait().unwrap().success());
        let (store, adopted) = runspan::recovery::open(dir.path()).unwrap();
        let adopted = adopted.unwrap();
        assert_eq!((adopted.processes, adopted.dropped.len(), adopted.torn), (1, 0, 0));
        let run = only_run(dir.path());
        let events = store.get_events(run.run_id, 0).unwrap();
        let is_line =
            |event: &&runspan::model::Event| matches!(&event.body, EventBody::Log(log) if log.message == "line");
        let stored = events.iter().filter(is_line).count() as u64;
        assert_eq!((run.status, stored + run.dropped), (RunStatus::Crashed, LINES));
        assert!(run.dropped > 0 && stored > 0, "{stored} stored");
    }
}

#[test]
fn shared_memory_is_found_without_the_variable_that_led_to_it() {
    const TEST: &str = "crash::shared_memory_is_found_without_the_variable_that_led_to_it";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    let Ok(runtime) = tempfile::tempdir_in("/dev/shm") else { return };
    let dir = crate::support::tempdir();
    let mut agent = Killed(child(TEST, dir.path()).spawn().unwrap());
    let said = BufReader::new(agent.0.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "ended 1500"));
    agent.kill();
    // As if there had been no room but in a runtime directory, which this process knows nothing of.
    let journal = std::fs::read_dir(dir.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let noted = std::fs::read_to_string(journal.join("ring")).unwrap();
    let (ring, moved) = (std::path::PathBuf::from(noted.trim_end()), runtime.path().join("ring"));
    std::fs::rename(&ring, &moved).unwrap();
    std::fs::write(journal.join("ring"), format!("{}\n", moved.display())).unwrap();
    let (_, adopted) = runspan::recovery::open(dir.path()).unwrap();
    assert!(adopted.unwrap().salvaged > 0);
    assert!(only_run(dir.path()).steps_total > 1500);
    assert!(!moved.exists() && !journal.exists(), "both are taken over");
}

/// Runs something with a directory mounted read-only, as only this thread and its children see it; `None` where that
/// is not permitted.
#[cfg(all(target_os = "linux", feature = "cli"))]
fn with_read_only<T: Send>(dir: &std::path::Path, look: impl FnOnce() -> T + Send) -> Option<T> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(dir.as_os_str().as_bytes()).unwrap();
    let mount = |from: *const libc::c_char, to: *const libc::c_char, flags| {
        // SAFETY: paths that end in a zero byte and live through the call, or none; no data.
        unsafe { libc::mount(from, to, std::ptr::null(), flags, std::ptr::null()) == 0 }
    };
    let mounted = || {
        // SAFETY: gives this thread, which ends with the test, a view of its own of what is mounted.
        let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        let (path, none) = (path.as_ptr(), std::ptr::null());
        own && mount(none, c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE)
            && mount(path, path, libc::MS_BIND)
            && mount(none, path, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY)
    };
    std::thread::scope(|threads| threads.spawn(|| mounted().then(look)).join().unwrap())
}

/// What commands print of a store and its newest run, but for when it was written.
#[cfg(feature = "cli")]
fn printed(store: &std::path::Path) -> Vec<String> {
    let commands: [&[&str]; 5] = [
        &["list", "--json"],
        &["get", "latest", "--json"],
        &["get", "latest", "--events", "--json"],
        &["tail", "latest", "--json"],
        &["list", "--status", "crashed", "--json"],
    ];
    let print = |args: &&[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
        let output = command.args(*args).arg("--store").arg(store).env("NO_COLOR", "1").output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
        let text = String::from_utf8(output.stdout).unwrap();
        let steady = |line: &&str| !line.contains("\"updated_at\"");
        // The age of a run goes on while this is done.
        text.lines()
            .filter(steady)
            .map(|line| line.split(" ago").next().unwrap_or_default().to_owned() + "\n")
            .collect()
    };
    commands.iter().map(print).collect()
}

#[cfg(all(target_os = "linux", feature = "cli"))]
#[test]
fn a_read_only_store_shows_what_a_killed_process_recorded() {
    const TEST: &str = "crash::a_read_only_store_shows_what_a_killed_process_recorded";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |_| endless_agent());
        return;
    }
    let dir = crate::support::tempdir();
    let mut agent = Killed(child(TEST, dir.path()).spawn().unwrap());
    let said = BufReader::new(agent.0.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "ended 1500"));
    agent.kill();
    let look = || {
        let (store, adopted) = runspan::recovery::open(dir.path()).unwrap();
        let adopted = adopted.unwrap();
        assert_eq!((adopted.processes, adopted.viewed, adopted.missing), (0, 1, Vec::new()));
        let run = store.get_run(store.resolve("latest").unwrap()).unwrap();
        assert!(run.steps_total > 1500 && run.status == RunStatus::Crashed);
        printed(dir.path())
    };
    let Some(looked) = with_read_only(dir.path(), look) else { return };
    let (_, adopted) = runspan::recovery::open(dir.path()).unwrap();
    assert_eq!(adopted.unwrap().processes, 1);
    for (looked, taken) in looked.iter().zip(printed(dir.path())) {
        let differing = looked.lines().zip(taken.lines()).find(|(looked, taken)| looked != taken);
        assert!(*looked == taken, "{} and {} bytes; {differing:#?}", looked.len(), taken.len());
    }
}

#[test]
fn a_run_shows_while_it_runs_and_ends_with_its_process() {
    if let Some(store) = is_child("crash::a_run_shows_while_it_runs_and_ends_with_its_process") {
        record_in(&store, |_| {
            let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "slow");
            let _in_agent = agent.enter();
            let call = info_span!("chat", gen_ai.operation.name = "chat", gen_ai.request.model = "gpt-4o");
            let _in_call = call.enter();
            std::thread::sleep(WATCHDOG);
        });
        return;
    }
    let dir = crate::support::tempdir();
    let mut command = child("crash::a_run_shows_while_it_runs_and_ends_with_its_process", dir.path());
    let mut agent = Killed(command.spawn().unwrap());
    wait_until("the open step shows", || {
        dir.path().join("store.yaml").exists() && runs(dir.path()).first().is_some_and(|run| run.steps_total == 2)
    });
    let run = only_run(dir.path());
    assert_eq!(run.status, RunStatus::Running);
    assert_eq!(outline(&steps(dir.path(), run.run_id)), ["slow agent running", "  chat llm running"]);
    agent.kill();
    let run = only_run(dir.path());
    assert_eq!((run.status, run.error.unwrap().step_id.as_deref()), (RunStatus::Crashed, Some("chat")));
    assert_eq!(outline(&steps(dir.path(), run.run_id)), ["slow agent crashed", "  chat llm crashed"]);
    // Again: nothing changes.
    let again = only_run(dir.path());
    assert_eq!(again.events, run.events);
    let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
    let types: Vec<&str> = events.iter().map(|event| event.body.type_name()).collect();
    assert_eq!(
        types,
        ["run_started", "step_started", "step_started", "status_changed", "llm_called", "step_failed", "run_completed"]
    );
}

#[test]
fn processes_record_into_one_store_at_once() {
    const TEST: &str = "crash::processes_record_into_one_store_at_once";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |_| {
            for n in 0..50 {
                let name = format!("agent-{}-{n}", std::process::id());
                let span = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = name);
                let _in_agent = span.enter();
                info_span!("execute_tool", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = "t")
                    .in_scope(|| {});
            }
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (100, 0, 0));
        return;
    }
    let dir = crate::support::tempdir();
    let children: Vec<_> = (0..4).map(|_| Killed(child(TEST, dir.path()).spawn().unwrap())).collect();
    // A reader at work all the while.
    let reader = std::thread::spawn({
        let store = dir.path().to_owned();
        move || {
            for _ in 0..20 {
                if store.join("store.yaml").exists() {
                    runs(&store);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    for mut child in children {
        assert!(child.0.wait().unwrap().success());
    }
    reader.join().unwrap();
    let runs = runs(dir.path());
    assert_eq!(runs.len(), 200);
    assert!(runs.iter().all(|run| run.status == RunStatus::Success && run.steps_total == 2));
}
