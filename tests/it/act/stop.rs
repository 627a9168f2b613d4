//! Runs that end and pause when they are asked to.

use super::*;

/// Waits for a run to end as it was asked to, as an agent in a loop does.
fn until_cancelled(run: &Run) {
    let cancellation = run.cancellation();
    wait_until("it is told", || cancellation.is_cancelled());
    block_on(cancellation.cancelled());
    assert!(matches!(run.checkpoint_blocking(), Err(WaitError::Cancelled { .. })));
    assert!(matches!(run.wait_blocking("approval", ()), Err(WaitError::Cancelled { .. })));
}

const BELOW: &str = "act::stop::a_cancelled_run_takes_those_it_has_started_along_in_every_process";

#[test]
fn a_cancelled_run_takes_those_it_has_started_along_in_every_process() {
    if let Some(store) = is_child(BELOW) {
        record_in(&store, |_| {
            let run = Run::agent("elsewhere").start();
            until_cancelled(&run);
        });
        return;
    }
    let dir = tempdir();
    let store = dir.path();
    record_in(store, |_| {
        let run = Run::workflow("above").start();
        let here = run.spawn_agent("here").start();
        let grandchild = here.spawn_agent("below").start();
        let mut elsewhere = child(BELOW, store);
        run.in_scope(|| propagation::to_env(&mut elsewhere));
        let mut elsewhere = Killed(elsewhere.stdout(Stdio::null()).spawn().unwrap());
        let other = Run::agent("other").start();
        wait_until("all of them run", || runs(store).len() == 5);
        let id = run.id().unwrap().to_string();
        let asked = control::cancel(&open(store), &id).unwrap();
        assert_eq!((asked.len(), asked[0].run_id), (4, run.id().unwrap()));
        until_cancelled(&run);
        until_cancelled(&here);
        until_cancelled(&grandchild);
        // One that begins only now learns it from its parent.
        let late = here.spawn_agent("late").start();
        until_cancelled(&late);
        assert!(elsewhere.0.wait().unwrap().success());
        assert!(!other.cancellation().is_cancelled());
        // However its code ends, it is cancelled.
        run.finish();
        other.finish();
        let error = control::cancel(&open(store), &id).unwrap_err();
        assert!(matches!(error, AskError::Over { status: RunStatus::Cancelled, .. }), "{error:?}");
    });
    let mut ended: Vec<String> = runs(store).iter().map(|run| format!("{} {}", run.name(), run.status)).collect();
    ended.sort();
    insta::assert_debug_snapshot!(ended, @r#"
    [
        "above cancelled",
        "below cancelled",
        "elsewhere cancelled",
        "here cancelled",
        "late cancelled",
        "other success",
    ]
    "#);
}

#[test]
fn a_run_that_waits_and_whose_process_is_dead_is_cancelled_by_who_asks() {
    let dir = tempdir();
    let store = dir.path().join("store");
    waiting_child(AGENT, &store).kill();
    let asked = control::cancel(&open(&store), "latest").unwrap();
    assert_eq!((asked[0].status, asked[0].is_heard), (RunStatus::Cancelled, false));
    let run = only_run(&store);
    assert_eq!(log(&store, run.run_id)[6..], ["waiting -> cancelled", "step_failed", "run_completed cancelled"]);
    insta::assert_debug_snapshot!(outline(&steps(&store, run.run_id)), @r#"
    [
        "refunds agent cancelled",
        "  chat llm success",
    ]
    "#);
    let error = control::resume(&open(&store), "latest", Some(json!(1))).unwrap_err();
    assert!(matches!(error, AskError::NotWaiting { status: RunStatus::Cancelled, .. }), "{error:?}");
}

#[test]
fn a_run_that_waits_and_whose_topmost_step_has_ended_is_cancelled_whoever_lives() {
    for lives in [true, false] {
        let dir = tempdir();
        let cancel = || control::cancel(&open(dir.path()), "latest").unwrap();
        record_in(dir.path(), |_| {
            let agent = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent");
            agent.in_scope(|| tracing::info!(event.name = "runspan.waiting", reason = "approval"));
            drop(agent);
            wait_until("it waits", || is_waiting(dir.path()));
            if lives {
                assert!(cancel()[0].is_heard);
                wait_until("it is cancelled", || !is_waiting(dir.path()));
            }
        });
        if !lives {
            assert_eq!(cancel()[0].status, RunStatus::Cancelled);
        }
        let run = only_run(dir.path());
        let error = run.error.as_ref().unwrap();
        let (kind, message) = (error.kind.as_deref(), error.message.as_deref());
        assert_eq!((kind, message), (Some("cancelled"), Some("it was asked to end")));
        let log = log(dir.path(), run.run_id);
        assert_eq!(log[log.len() - 2..], ["waiting -> cancelled", "run_completed cancelled"], "{log:?}");
    }
}

const KILLED: &str = "act::stop::a_run_that_was_asked_to_end_and_is_killed_over_it_is_cancelled";

#[test]
fn a_run_that_was_asked_to_end_and_is_killed_over_it_is_cancelled() {
    if let Some(store) = is_child(KILLED) {
        record_in(&store, |_| {
            let run = Run::agent("stubborn").start();
            let _open = run.tool("endless");
            std::thread::park();
        });
        return;
    }
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut stubborn = Killed(child(KILLED, &store).stdout(Stdio::null()).spawn().unwrap());
    wait_until("it runs", || store.join("store.yaml").exists() && runs(&store).len() == 1);
    // It cannot hear, so the request is there when it dies.
    signal(stubborn.0.id(), libc::SIGSTOP);
    let asked = control::cancel(&open(&store), "latest").unwrap();
    assert_eq!((asked[0].status, asked[0].is_heard), (RunStatus::Running, true));
    stubborn.kill();
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Cancelled);
    assert_eq!(outline(&steps(&store, run.run_id)), ["stubborn agent crashed", "  endless tool crashed"]);
    assert_eq!(log(&store, run.run_id).last().unwrap(), "run_completed cancelled");
}

#[test]
fn a_run_that_is_asked_to_pause_waits_at_its_next_boundary_in_every_branch() {
    let dir = tempdir();
    let store = dir.path();
    let mut id = None;
    record_in(store, |_| {
        let run = Run::agent("a").start();
        id = run.id();
        wait_until("it runs", || runs(store).len() == 1);
        assert!(matches!(control::resume(&open(store), "latest", None).unwrap_err(), AskError::NotWaiting { .. }));
        let asked = control::pause(&open(store), "latest").unwrap();
        assert_eq!((asked.status, asked.is_heard), (RunStatus::Running, true));
        let branch = || {
            wait_until("it is held", || polled_once(run.checkpoint()).is_pending());
            run.checkpoint_blocking()
        };
        std::thread::scope(|scope| {
            let branches = [scope.spawn(branch), scope.spawn(branch)];
            wait_until("it is paused", || is_waiting(store));
            let error = control::pause(&open(store), "latest").unwrap_err();
            assert!(matches!(error, AskError::NotRunning { status: RunStatus::Waiting, .. }), "{error:?}");
            control::resume(&open(store), "latest", None).unwrap();
            for branch in branches {
                assert_eq!(branch.join().unwrap(), Ok(()));
            }
        });
        assert_eq!(run.checkpoint_blocking(), Ok(()));
        run.finish();
    });
    let mut log = log(store, id.unwrap());
    log[2].truncate("waiting paused {\"request\":".len());
    insta::assert_debug_snapshot!(log, @r#"
    [
        "run_started",
        "step_started",
        "waiting paused {\"request\":",
        "resumed -",
        "step_completed",
        "run_completed success",
    ]
    "#);
    let left: Vec<_> =
        std::fs::read_dir(store.join("agents").join(id.unwrap().to_string()).join("requests")).unwrap().collect();
    assert_eq!(left.len(), 1, "the pause is served: {left:?}");
}

#[cfg(feature = "macros")]
mod by_attribute {
    use super::*;

    #[runspan::tool]
    async fn look_up() -> u32 {
        7
    }

    #[runspan::agent(name = "held")]
    async fn held(store: &Path) -> u32 {
        wait_until("it runs", || runs(store).len() == 1);
        control::pause(&open(store), "latest").unwrap();
        // The pause is heard a moment later; a function that began before was at no boundary.
        wait_until("it is held", || !polled_once(look_up()).is_ready());
        let (reader, resumed) = (open(store), std::cell::Cell::new(false));
        let mut call = pin!(look_up());
        std::future::poll_fn(|cx| {
            let polled = call.as_mut().poll(cx);
            if polled.is_pending() && !resumed.get() && is_waiting(store) {
                control::resume(&reader, "latest", None).unwrap();
                resumed.set(true);
            }
            polled
        })
        .await
    }

    #[test]
    fn an_asynchronous_function_with_an_attribute_is_held_before_it_begins() {
        let dir = tempdir();
        record_in(dir.path(), |_| assert_eq!(spun(held(dir.path())), 7));
        let run = only_run(dir.path());
        assert_eq!(run.status, RunStatus::Success);
        let log = log(dir.path(), run.run_id);
        assert_eq!(
            log.iter().filter(|line| line.starts_with("waiting paused") || *line == "resumed -").count(),
            2,
            "{log:?}"
        );
    }

    #[runspan::agent(name = "asks")]
    async fn asks() -> Json {
        runspan::current().wait("approval", json!({"n": 1})).await.unwrap()
    }

    #[test]
    fn an_agent_by_attribute_waits_too_and_is_left_waiting_when_it_is_dropped() {
        let dir = tempdir();
        record_in(dir.path(), |_| {
            assert!(polled_once(asks()).is_pending());
        });
        assert_eq!(only_run(dir.path()).status, RunStatus::Waiting);
        let report = record_in(dir.path(), |_| {
            let resumed = Run::resume("latest").unwrap();
            answer(dir.path(), json!("yes")).unwrap();
            let answer = resumed.run.in_scope(|| spun(async { runspan::current().wait("approval", ()).await }));
            assert_eq!(answer.unwrap(), json!("yes"));
            resumed.run.finish();
        });
        let run = only_run(dir.path());
        assert_eq!((run.status, run.steps_total), (RunStatus::Success, 1));
        // A span that one process begins and another ends is one.
        assert_eq!((report.stored, report.pending, report.dropped.len()), (1, 0, 0));
    }

    /// Polls until the end, woken or not.
    fn spun<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let mut output = None;
        wait_until("it ends", || match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => {
                output = Some(done);
                true
            }
            Poll::Pending => false,
        });
        output.unwrap()
    }
}
