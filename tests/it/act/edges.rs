//! Waits whose ends meet: recording stops, the code goes on, one branch is held and another waits.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A task that notes whether it was called.
#[derive(Default)]
struct Flag(AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Records with a guard of the test's own.
fn record_with_guard(store: &Path, work: impl FnOnce(runspan::Guard)) {
    let (layer, guard) = runspan::builder().store(store).build().unwrap();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    tracing::subscriber::with_default(subscriber, || work(guard));
}

/// Records a run that ends its topmost step while it waits.
fn leave_waiting(store: &Path) {
    record_in(store, |_| {
        let agent = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent");
        agent.in_scope(|| tracing::info!(event.name = "runspan.waiting", reason = "approval"));
        drop(agent);
        wait_until("it waits", || is_waiting(store));
    });
}

fn pause(run: &Run, store: &Path) {
    wait_until("it runs", || runs(store).iter().any(|run| run.status == RunStatus::Running));
    control::pause(&open(store), &run.id().unwrap().to_string()).unwrap();
}

#[test]
fn an_answer_that_comes_as_recording_ends_is_taken_once() {
    let dir = tempdir();
    let heard = Arc::new(Flag::default());
    record_with_guard(dir.path(), |guard| {
        let run = Run::agent("a").start();
        let waker = Waker::from(Arc::clone(&heard));
        let mut waits = pin!(run.wait("approval", ()));
        let mut poll = || waits.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        wait_until("it waits", || is_waiting(dir.path()));
        answer(dir.path(), json!("yes")).unwrap();
        wait_until("the task is called", || heard.0.load(Ordering::SeqCst));
        guard.shutdown(WATCHDOG);
        assert!(matches!(poll(), Poll::Ready(Err(WaitError::Closed { .. }))));
    });
    assert_eq!(only_run(dir.path()).status, RunStatus::Waiting);
    record_in(dir.path(), |_| {
        let resumed = Run::resume("latest").unwrap();
        assert_eq!(resumed.run.wait_blocking("approval", ()).unwrap(), json!("yes"));
        resumed.run.finish();
    });
    let log = log(dir.path(), only_run(dir.path()).run_id);
    assert_eq!(log.iter().filter(|line| line.starts_with("resumed")).count(), 1, "{log:?}");
}

#[test]
fn a_wait_that_begins_when_recording_has_ended_does_not_wait() {
    let dir = tempdir();
    record_with_guard(dir.path(), |guard| {
        let (run, listening) = (Run::agent("a").start(), Run::agent("b").start());
        let cancellation = listening.cancellation();
        guard.shutdown(WATCHDOG);
        for run in [&run, &listening] {
            assert!(matches!(run.wait_blocking("approval", ()).unwrap_err(), WaitError::NotRecorded { .. }));
            assert_eq!(run.checkpoint_blocking(), Ok(()));
        }
        assert!(!cancellation.is_cancelled());
    });
}

#[test]
fn a_wait_that_another_thread_gives_up_ends() {
    let dir = tempdir();
    let log = record_in_waiting(dir.path(), |run| {
        std::thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let waits = scope.spawn(move || {
                let mut waits = pin!(run.wait("approval", ()));
                assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                begun.send(()).unwrap();
                block_on(waits)
            });
            begins.recv().unwrap();
            run.wait_no_longer();
            // What it waits for now is not the other's.
            assert!(polled_once(run.wait("another", ())).is_pending());
            assert!(matches!(waits.join().unwrap().unwrap_err(), WaitError::NoLonger { .. }));
        });
        let waits_again = || log(dir.path(), run.id().unwrap()).iter().any(|line| line.starts_with("waiting another"));
        wait_until("it waits again", waits_again);
        answer(dir.path(), json!(2)).unwrap();
        assert_eq!(run.wait_blocking("another", ()).unwrap(), json!(2));
    });
    insta::assert_debug_snapshot!(log, @r#"
    [
        "run_started",
        "step_started",
        "waiting approval -",
        "waiting -> running",
        "waiting another -",
        "resumed 2",
        "step_completed",
        "run_completed success",
    ]
    "#);
}

#[test]
fn a_wait_in_one_branch_begins_when_the_pause_that_holds_another_is_over() {
    let dir = tempdir();
    let mut id = None;
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        id = run.id();
        pause(&run, dir.path());
        {
            let mut held = None;
            wait_until("it is held", || {
                let mut checkpoint = Box::pin(run.checkpoint());
                let is_held = checkpoint.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
                held = is_held.then_some(checkpoint);
                is_held
            });
            assert!(matches!(block_on(run.wait("paused", ())).unwrap_err(), WaitError::Waits { .. }));
            let mut waits = pin!(run.wait("approval", ()));
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            wait_until("it is paused", || is_waiting(dir.path()));
            control::resume(&open(dir.path()), "latest", None).unwrap();
            assert_eq!(block_on(held.take().unwrap()), Ok(()));
            assert!(matches!(block_on(run.wait("paused", ())).unwrap_err(), WaitError::Reserved { .. }));
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            wait_until("it waits for the answer", || answer(dir.path(), json!(1)).is_ok());
            assert_eq!(block_on(waits).unwrap(), json!(1));
        }
        run.finish();
    });
    let mut log = log(dir.path(), id.unwrap());
    log[2].truncate("waiting paused".len());
    insta::assert_debug_snapshot!(log, @r#"
    [
        "run_started",
        "step_started",
        "waiting paused",
        "resumed -",
        "waiting approval -",
        "resumed 1",
        "step_completed",
        "run_completed success",
    ]
    "#);
}

#[test]
fn when_the_branch_that_holds_a_pause_is_dropped_another_takes_it_up() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        pause(&run, dir.path());
        {
            let mut first = None;
            wait_until("it is held", || {
                let mut checkpoint = Box::pin(run.checkpoint());
                let is_held = checkpoint.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
                first = is_held.then_some(checkpoint);
                is_held
            });
            let called = Arc::new(Flag::default());
            let mut second = pin!(run.checkpoint());
            assert!(second.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&called)))).is_pending());
            wait_until("it is paused", || is_waiting(dir.path()));
            drop(first);
            assert!(called.0.load(Ordering::SeqCst));
            control::resume(&open(dir.path()), "latest", None).unwrap();
            assert_eq!(block_on(second), Ok(()));
        }
        run.finish();
    });
}

/// The folder of a run's requests.
fn requests(store: &Path, run: RunId) -> std::path::PathBuf {
    let dir = store.join("agents").join(run.to_string()).join("requests");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_request_that_cannot_be_read_keeps_no_answer_from_its_run() {
    let dir = tempdir();
    record_in_waiting(dir.path(), |run| {
        for broken in ["cancel.json", "pause.json", "resume-01KE9BZH80BG00000000000000.json"] {
            std::fs::write(requests(dir.path(), run.id().unwrap()).join(broken), "{").unwrap();
        }
        answer(dir.path(), json!(3)).unwrap();
        assert_eq!(run.wait_blocking("approval", ()).unwrap(), json!(3));
    });
}

#[test]
fn the_end_of_one_run_reaches_a_long_line_of_runs_below_it() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let mut line = vec![Run::agent("a").start()];
        for _ in 0..30 {
            line.push(line.last().unwrap().spawn_agent("a").start());
        }
        wait_until("they run", || runs(dir.path()).len() == 31);
        // As when who asks died before it asked those below.
        let request = r#"{"at":"2026-01-06T10:00:00Z"}"#;
        let folder = requests(dir.path(), line[0].id().unwrap());
        std::fs::write(folder.join("new"), request).unwrap();
        std::fs::rename(folder.join("new"), folder.join("cancel.json")).unwrap();
        let cancellations: Vec<_> = line.iter().map(Run::cancellation).collect();
        wait_until("all are told", || cancellations.iter().all(|each| each.is_cancelled()));
        line.into_iter().rev().for_each(Run::finish);
    });
    assert!(runs(dir.path()).iter().all(|run| run.status == RunStatus::Cancelled));
}

const BELOW: &str = "act::edges::runs_below_one_that_is_over_are_asked_to_end_with_it";

#[test]
fn runs_below_one_that_is_over_are_asked_to_end_with_it() {
    if let Some(store) = is_child(BELOW) {
        record_in(&store, |_| {
            let run = Run::agent("below").start();
            block_on(run.cancellation().cancelled());
            run.finish();
        });
        return;
    }
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("above").start();
        let id = run.id().unwrap().to_string();
        let mut below = child(BELOW, dir.path());
        run.in_scope(|| propagation::to_env(&mut below));
        let mut below = Killed(below.stdout(Stdio::null()).spawn().unwrap());
        wait_until("both are there", || runs(dir.path()).len() == 2);
        run.finish();
        wait_until("one is over", || runs(dir.path()).iter().any(|run| run.status == RunStatus::Success));
        let error = control::cancel(&open(dir.path()), &id).unwrap_err();
        assert!(matches!(error, AskError::Over { status: RunStatus::Success, .. }), "{error:?}");
        assert!(below.0.wait().unwrap().success());
    });
}

#[test]
fn a_run_that_cannot_be_gone_on_with_is_left_to_others() {
    let dir = tempdir();
    leave_waiting(dir.path());
    let before = only_run(dir.path());
    record_in(dir.path(), |_| {
        assert!(matches!(Run::resume("latest").unwrap_err(), ResumeError::NoRoot { .. }));
        assert_eq!(only_run(dir.path()).writer, before.writer);
    });
}

#[test]
fn a_run_that_is_ended_as_it_is_gone_on_with_is_not_kept_from_others() {
    let dir = tempdir();
    leave_waiting(dir.path());
    let requests = requests(dir.path(), only_run(dir.path()).run_id);
    std::fs::create_dir_all(&requests).unwrap();
    // It cannot be read, so that nobody knows that the run is not to end.
    std::fs::write(requests.join("cancel.json"), "{").unwrap();
    record_in(dir.path(), |_| {
        assert!(matches!(Run::resume("latest").unwrap_err(), ResumeError::NoRoot { .. }));
        wait_until("it is nobody's", || only_run(dir.path()).writer.is_none());
        assert!(is_waiting(dir.path()));
        std::fs::remove_file(requests.join("cancel.json")).unwrap();
        assert_eq!(control::cancel(&open(dir.path()), "latest").unwrap()[0].status, RunStatus::Cancelled);
    });
}

#[test]
fn a_wait_that_is_given_up_while_there_is_no_room_to_say_so_is_over_all_the_same() {
    const WAITS: usize = 12;
    let dir = tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).buffer_bytes(1 << 16).build().unwrap();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    tracing::subscriber::with_default(subscriber, || {
        let run = Run::agent("a").start();
        let stands = |status| wait_until("it stands so", || runs(dir.path()).iter().any(|run| run.status == status));
        for _ in 0..WAITS {
            let mut wait = Box::pin(run.wait("approval", ()));
            wait_until("it waits", || polled_once(wait.as_mut()).is_pending() && is_waiting(dir.path()));
            // More than there is room for, in a moment.
            for bytes in std::iter::repeat_n(20_000, 4).chain(std::iter::repeat_n(10, 2_000)) {
                run.event("much", "x".repeat(bytes));
            }
            run.wait_no_longer();
            stands(RunStatus::Running);
        }
        run.finish();
    });
    assert!(guard.shutdown(WATCHDOG).dropped.values().sum::<u64>() > 0, "there was no room");
    let log = log(dir.path(), only_run(dir.path()).run_id);
    assert_eq!(log.iter().filter(|line| *line == "waiting -> running").count(), WAITS, "{log:?}");
}

#[test]
fn who_asks_for_a_pause_while_a_run_pauses_is_served_by_that() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        pause(&run, dir.path());
        let mut held = Box::pin(run.checkpoint());
        wait_until("it is paused", || polled_once(held.as_mut()).is_pending() && is_waiting(dir.path()));
        let requests = requests(dir.path(), run.id().unwrap());
        let other = requests.join("pause.json");
        wait_until("the log has it", || !other.exists());
        std::fs::write(&other, r#"{"id":"other","at":"2026-01-06T10:00:00Z"}"#).unwrap();
        control::resume(&open(dir.path()), "latest", None).unwrap();
        assert_eq!(block_on(held), Ok(()));
        wait_until("nobody is to wait", || !other.exists());
        assert_eq!(run.checkpoint_blocking(), Ok(()));
        run.finish();
    });
}

#[test]
fn a_run_that_is_cancelled_before_it_pauses_keeps_no_request() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        pause(&run, dir.path());
        let id = run.id().unwrap();
        control::cancel(&open(dir.path()), &id.to_string()).unwrap();
        wait_until("it is cancelled", || run.cancellation().is_cancelled());
        wait_until("nobody is to wait", || !requests(dir.path(), id).join("pause.json").exists());
        drop(run);
    });
}
