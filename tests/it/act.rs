//! Runs that wait, go on in other processes, pause, and end when they are asked to.

mod again;
#[cfg(feature = "cli")]
mod commands;
mod edges;
mod stop;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on;
use runspan::control::{self, AskError};
use runspan::model::{EventBody, RunId, RunStatus};
use runspan::store::RunReader;
use runspan::{Content, ResumeError, Run, WaitError, propagation};
use serde_json::{Value as Json, json};

use super::support::{
    Killed, WATCHDOG, child, is_child, only_run, open, outline, record_in, runs, said, signal, steps, tempdir,
    wait_until,
};

/// One line an event: its type, and what those say that belong to this.
fn log(store: &Path, run: RunId) -> Vec<String> {
    let events = open(store).get_events(run, 0).unwrap();
    assert!(events.iter().enumerate().all(|(place, event)| event.seq == place as u64), "{events:#?}");
    let line = |body: &EventBody| match body {
        EventBody::Waiting(waiting) => {
            format!("waiting {} {}", waiting.reason.as_deref().unwrap_or("-"), text(&waiting.payload))
        }
        EventBody::Resumed(resumed) if resumed.is_null => "resumed null".to_owned(),
        EventBody::Resumed(resumed) => format!("resumed {}", text(&resumed.input)),
        EventBody::StatusChanged(change) => format!("{} -> {}", change.from, change.to),
        EventBody::RunCompleted(completed) => format!("run_completed {}", completed.status),
        other => other.type_name().to_owned(),
    };
    events.iter().map(|event| line(&event.body)).collect()
}

fn text(value: &Option<Json>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), Json::to_string)
}

/// Starts an agent as a process, and waits until it waits.
fn waiting_child(test: &str, store: &Path) -> Killed {
    let child = Killed(child(test, store).stdout(Stdio::null()).spawn().unwrap());
    wait_until("it waits", || is_waiting(store));
    child
}

fn is_waiting(store: &Path) -> bool {
    store.join("store.yaml").exists() && runs(store).iter().any(|run| run.status == RunStatus::Waiting)
}

fn answer(store: &Path, input: Json) -> Result<control::Asked, AskError> {
    control::resume(&open(store), "latest", Some(input))
}

const AGENT: &str = "act::an_agent_that_asks_a_human_is_killed_answered_and_goes_on_in_another_process";

#[test]
fn an_agent_that_asks_a_human_is_killed_answered_and_goes_on_in_another_process() {
    if is_child(AGENT).is_some() {
        return super::ask_a_human::work(std::env::var("RUN").ok()).unwrap();
    }
    let dir = tempdir();
    let store = dir.path().join("store");
    waiting_child(AGENT, &store).kill();
    let run = only_run(&store);
    assert_eq!((run.status, run.completed_at), (RunStatus::Waiting, None));
    let asked = answer(&store, json!("yes")).unwrap();
    assert_eq!((asked.run_id, asked.status, asked.is_heard), (run.run_id, RunStatus::Waiting, false));

    let mut next = child(AGENT, &store);
    next.env("RUN", run.run_id.to_string());
    said(next);
    let after = only_run(&store);
    assert_eq!((after.run_id, after.trace_id, after.status), (run.run_id, run.trace_id, RunStatus::Success));
    assert!(after.writer != run.writer && after.started_at.millis() == run.started_at.millis());
    insta::assert_debug_snapshot!(log(&store, run.run_id), @r#"
    [
        "run_started",
        "input",
        "step_started",
        "step_started",
        "llm_called",
        "waiting approval {\"refund_usd\":40,\"order\":\"A-1001\"}",
        "resumed \"yes\"",
        "tool_requested",
        "tool_succeeded",
        "step_completed",
        "output",
        "run_completed success",
    ]
    "#);
    insta::assert_debug_snapshot!(outline(&steps(&store, run.run_id)), @r#"
    [
        "refunds agent success",
        "  chat llm success",
        "  refund tool success",
    ]
    "#);
    assert!(
        !leftover_inputs(&store, run.run_id),
        "the answer is in the log, as content policy allows, and nowhere else"
    );
}

/// Tells whether an answer still stands in a file of its own.
fn leftover_inputs(store: &Path, run: RunId) -> bool {
    let dir = store.join("agents").join(run.to_string()).join("requests");
    let files = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    files.into_iter().any(|text| text.contains("input"))
}

#[test]
fn an_agent_that_lives_is_answered_from_another_process() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = waiting_child(AGENT, &store);
    let asked = answer(&store, json!({"ok": [1, 2.5, null]})).unwrap();
    assert!(asked.is_heard);
    assert!(agent.0.wait().unwrap().success());
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Success);
    assert!(log(&store, run.run_id).contains(&r#"resumed {"ok":[1,2.5,null]}"#.to_owned()));
    assert!(!leftover_inputs(&store, run.run_id));
}

#[test]
fn a_run_is_gone_on_with_before_it_is_answered() {
    let dir = tempdir();
    let store = dir.path().join("store");
    waiting_child(AGENT, &store).kill();
    let run = only_run(&store);
    let mut next = child(AGENT, &store);
    let mut next = Killed(next.env("RUN", run.run_id.to_string()).stdout(Stdio::null()).spawn().unwrap());
    wait_until("the next process has it", || only_run(&store).writer != run.writer);
    // Of two processes that go on with it one does.
    record_in(&store, |_| {
        let error = Run::resume(&run.run_id.to_string()).unwrap_err();
        assert!(matches!(&error, ResumeError::Store(error) if error.is_closed()), "{error:?}");
    });
    answer(&store, json!("no")).unwrap();
    assert!(next.0.wait().unwrap().success());
    assert_eq!(only_run(&store).status, RunStatus::Success);
}

#[test]
fn of_many_answers_at_once_one_is_taken_and_the_others_are_told() {
    let dir = tempdir();
    let answers = record_in_waiting(dir.path(), |run| {
        let at_once = std::sync::Barrier::new(8);
        let (store, at_once) = (dir.path(), &at_once);
        let ask = move |n: usize| {
            let reader = open(store);
            at_once.wait();
            (n, control::resume(&reader, "latest", Some(json!(n))))
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
            let told: Vec<_> = asking.into_iter().map(|asked| asked.join().unwrap()).collect();
            let won: Vec<usize> = told.iter().filter(|(_, asked)| asked.is_ok()).map(|(n, _)| *n).collect();
            assert_eq!(won.len(), 1, "{told:?}");
            for (_, lost) in told.iter().filter(|(_, asked)| asked.is_err()) {
                let lost = lost.as_ref().unwrap_err();
                assert!(matches!(lost, AskError::Answered { .. } | AskError::NotWaiting { .. }), "{lost:?}");
                assert!(lost.is_negative_answer());
            }
            assert_eq!(block_on(run.wait("approval", ())).unwrap(), json!(won[0]));
        });
    });
    assert_eq!(answers.iter().filter(|line| line.starts_with("resumed")).count(), 1, "{answers:?}");
}

/// Records a run that waits, and calls `work` with it once the store says so. Returns its log.
fn record_in_waiting(store: &Path, work: impl FnOnce(&Run)) -> Vec<String> {
    let mut id = None;
    record_in(store, |_| {
        let run = Run::agent("a").start();
        id = run.id();
        assert!(polled_once(run.wait("approval", ())).is_pending());
        wait_until("it waits", || is_waiting(store));
        work(&run);
        run.finish();
    });
    log(store, id.unwrap())
}

fn polled_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_answer_whose_bringer_died_before_it_rang_is_found() {
    let dir = tempdir();
    record_in_waiting(dir.path(), |run| {
        let events = open(dir.path()).get_events(run.id().unwrap(), 0).unwrap();
        let wait = events.iter().find(|event| matches!(event.body, EventBody::Waiting(_))).unwrap().event_id;
        // Whole, as it comes to stand there by its link, and nobody rings.
        let requests = dir.path().join("agents").join(run.id().unwrap().to_string()).join("requests");
        std::fs::create_dir(&requests).unwrap();
        let resume = r#"{"at":"2026-01-06T10:00:00Z","input":7}"#;
        std::fs::write(requests.join("new"), resume).unwrap();
        let mut wait_on = pin!(run.wait("approval", ()));
        let mut poll = || wait_on.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        // Until the worker has looked for the sake of this wait.
        std::thread::sleep(std::time::Duration::from_millis(200));
        std::fs::rename(requests.join("new"), requests.join(format!("resume-{wait}.json"))).unwrap();
        let mut told = None;
        wait_until("it is found", || match poll() {
            Poll::Ready(answer) => {
                told = Some(answer.unwrap());
                true
            }
            Poll::Pending => false,
        });
        assert_eq!(told, Some(json!(7)));
    });
}

#[test]
fn an_answer_that_was_heard_and_not_taken_is_the_next_processes() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = waiting_child(AGENT, &store);
    // It lives, and cannot take it.
    signal(agent.0.id(), libc::SIGSTOP);
    assert!(answer(&store, json!("yes")).unwrap().is_heard);
    agent.kill();
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Waiting);
    let mut next = child(AGENT, &store);
    next.env("RUN", run.run_id.to_string());
    said(next);
    let told = log(&store, run.run_id);
    assert_eq!(told.iter().filter(|line| line.starts_with("resumed")).collect::<Vec<_>>(), [r#"resumed "yes""#]);
}

#[test]
fn tasks_that_no_longer_wait_are_not_remembered() {
    struct Counted;
    impl std::task::Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        let cancellation = run.cancellation();
        let task = Arc::new(Counted);
        for _ in 0..100 {
            let waker = Waker::from(Arc::clone(&task));
            let mut cancelled = pin!(cancellation.cancelled());
            assert!(cancelled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&task), 1);
        run.finish();
    });
}

const TAKEN: &str = "act::killed_with_the_answer_in_hand_the_run_has_it_and_its_next_process_is_given_it_again";

#[test]
fn killed_with_the_answer_in_hand_the_run_has_it_and_its_next_process_is_given_it_again() {
    if let Some(store) = is_child(TAKEN) {
        let content = if std::env::var_os("CONTENT").is_some() { Content::None } else { Content::Redacted };
        let (layer, _guard) = runspan::builder().store(store).content(content).build().unwrap();
        let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
        return tracing::subscriber::with_default(subscriber, || {
            let run = Run::agent("a").start();
            if std::env::var_os("NO_QUESTION").is_none() {
                let _ = run.wait_blocking("approval", ());
            }
            let _open = run.tool("refund");
            signal(std::process::id(), libc::SIGKILL);
        });
    }
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = waiting_child(TAKEN, &store);
    answer(&store, json!("secret")).unwrap();
    agent.0.wait().unwrap();
    agent.kill();
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Crashed);
    assert!(!leftover_inputs(&store, run.run_id));
    assert!(matches!(answer(&store, json!(1)).unwrap_err(), AskError::NotWaiting { status: RunStatus::Crashed, .. }));
    // Twice: the first that goes on with it dies, too, before it takes the answer.
    record_in(&store, |_| {
        let resumed = Run::resume("latest").unwrap();
        assert!(matches!(Run::resume("latest").unwrap_err(), ResumeError::Held { .. }));
        drop(resumed);
    });
    assert_eq!(only_run(&store).status, RunStatus::Waiting);
    record_in(&store, |_| {
        let resumed = Run::resume("latest").unwrap();
        assert_eq!(resumed.waiting.reason.as_deref(), Some("approval"));
        assert_eq!(resumed.run.wait_blocking("approval", ()).unwrap(), json!("secret"));
        resumed.run.tool("refund").finish();
        resumed.run.finish();
    });
    insta::assert_debug_snapshot!(log(&store, run.run_id), @r#"
    [
        "run_started",
        "step_started",
        "waiting approval -",
        "resumed \"secret\"",
        "tool_requested",
        "running -> crashed",
        "tool_failed",
        "step_failed",
        "run_completed crashed",
        "crashed -> waiting",
        "resumed \"secret\"",
        "tool_requested",
        "tool_succeeded",
        "step_completed",
        "run_completed success",
    ]
    "#);
    let after = only_run(&store);
    assert_eq!((after.status, after.error), (RunStatus::Success, None));
    insta::assert_debug_snapshot!(outline(&steps(&store, run.run_id)), @r#"
    [
        "a agent success",
        "  refund tool crashed",
        "  refund-2 tool success",
    ]
    "#);
    assert!(matches!(answer(&store, json!(1)).unwrap_err(), AskError::NotWaiting { status: RunStatus::Success, .. }));
}

#[test]
fn an_answer_that_the_log_does_not_have_is_asked_for_again() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = child(TAKEN, &store);
    let mut agent = Killed(agent.env("CONTENT", "none").stdout(Stdio::null()).spawn().unwrap());
    wait_until("it waits", || is_waiting(&store));
    answer(&store, json!("yes")).unwrap();
    agent.0.wait().unwrap();
    agent.kill();
    record_in(&store, |_| {
        let resumed = Run::resume("latest").unwrap();
        let mut wait = pin!(resumed.run.wait("approval", ()));
        assert!(polled_once(wait.as_mut()).is_pending());
        let unanswered = control::resume(&open(&store), "latest", None).unwrap_err();
        assert!(
            matches!(unanswered, AskError::NeedsInput { ref reason, .. } if reason == "approval"),
            "{unanswered:?}"
        );
        answer(&store, json!("once more")).unwrap();
        assert_eq!(block_on(wait).unwrap(), json!("once more"));
    });
}

#[test]
fn a_run_that_crashed_without_an_answer_is_not_gone_on_with() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = Killed(child(TAKEN, &store).env("NO_QUESTION", "1").stdout(Stdio::null()).spawn().unwrap());
    agent.0.wait().unwrap();
    agent.kill();
    record_in(&store, |_| {
        let error = Run::resume("latest").unwrap_err();
        assert!(matches!(error, ResumeError::NotWaiting { status: RunStatus::Crashed, .. }), "{error:?}");
    });
}

#[test]
fn a_run_that_is_dropped_while_it_waits_stays_so_and_goes_on_in_this_process_or_the_next() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        let open_step = run.tool("left open");
        let id = run.id().unwrap();
        assert!(polled_once(run.wait("approval", json!({"n": 1}))).is_pending());
        drop(open_step);
        // Below another run's span as well.
        let spawned = run.spawn_agent("b").start();
        let below = spawned.id().unwrap();
        assert!(polled_once(spawned.wait("approval", ())).is_pending());
        drop(spawned);
        drop(run);
        wait_until("both wait", || {
            runs(dir.path()).len() == 2 && runs(dir.path()).iter().all(|run| run.status == RunStatus::Waiting)
        });
        control::cancel(&open(dir.path()), &below.to_string()).unwrap();
        wait_until("one is cancelled", || runs(dir.path()).iter().any(|run| run.status == RunStatus::Cancelled));
        wait_until("it waits", || is_waiting(dir.path()));
        let resumed = Run::resume(&id.to_string()).unwrap();
        assert_eq!((resumed.run.id(), resumed.waiting.reason.as_deref()), (Some(id), Some("approval")));
        assert!(matches!(Run::resume(&id.to_string()).unwrap_err(), ResumeError::Held { run } if run == id));
    });
    let stands = || runs(dir.path()).iter().find(|run| run.name() == "a").map(|run| (run.run_id, run.status)).unwrap();
    let (id, status) = stands();
    assert_eq!(status, RunStatus::Waiting);
    record_in(dir.path(), |_| {
        let resumed = Run::resume(&id.to_string()).unwrap();
        control::resume(&open(dir.path()), &id.to_string(), Some(json!(2))).unwrap();
        assert_eq!(resumed.run.wait_blocking("approval", ()).unwrap(), json!(2));
        resumed.run.finish();
    });
    assert_eq!(stands().1, RunStatus::Success);
}

#[test]
fn one_answer_at_a_time_and_a_run_may_go_on_without() {
    let dir = tempdir();
    let log = record_in_waiting(dir.path(), |run| {
        let mut first = pin!(run.wait("approval", ()));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let second = block_on(run.wait("another", ())).unwrap_err();
        assert!(matches!(&second, WaitError::Waits { reason, .. } if reason == "approval"), "{second:?}");
        run.wait_no_longer();
        wait_until("it runs", || !is_waiting(dir.path()));
        assert!(matches!(answer(dir.path(), json!(1)).unwrap_err(), AskError::NotWaiting { .. }));
    });
    insta::assert_debug_snapshot!(log, @r#"
    [
        "run_started",
        "step_started",
        "waiting approval -",
        "waiting -> running",
        "step_completed",
        "run_completed success",
    ]
    "#);
}

#[test]
fn the_answer_is_what_was_given_whatever_content_is_kept() {
    let dir = tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).content(Content::None).build().unwrap();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    tracing::subscriber::with_default(subscriber, || {
        let run = Run::agent("a").start();
        assert!(polled_once(run.wait("approval", json!({"card": "4111"}))).is_pending());
        wait_until("it waits", || is_waiting(dir.path()));
        answer(dir.path(), json!("my password")).unwrap();
        assert_eq!(run.wait_blocking("approval", ()).unwrap(), json!("my password"));
        run.finish();
    });
    guard.shutdown(WATCHDOG);
    let run = only_run(dir.path());
    assert_eq!(log(dir.path(), run.run_id)[2..4], ["waiting approval -", "resumed -"]);
    assert!(!leftover_inputs(dir.path(), run.run_id));
}

#[test]
fn a_run_that_nobody_records_does_not_wait() {
    fn is_for_any_thread(_: impl Send) {}
    let run = Run::agent("a").start();
    is_for_any_thread((run.wait("approval", ()), run.checkpoint(), run.cancellation().cancelled()));
    assert!(matches!(run.wait_blocking("approval", ()).unwrap_err(), WaitError::NotRecorded { .. }));
    assert_eq!(run.checkpoint_blocking(), Ok(()));
    assert!(!run.cancellation().is_cancelled());
    assert!(matches!(Run::resume("latest").unwrap_err(), ResumeError::NotRecorded));
    run.finish();
}

#[test]
fn recording_that_ends_leaves_the_run_waiting() {
    let dir = tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    tracing::subscriber::with_default(subscriber, || {
        let run = Run::agent("a").start();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| run.wait_blocking("approval", ()));
            wait_until("it waits", || is_waiting(dir.path()));
            guard.shutdown(WATCHDOG);
            assert!(matches!(waits.join().unwrap().unwrap_err(), WaitError::Closed { .. }));
        });
    });
    assert_eq!(only_run(dir.path()).status, RunStatus::Waiting);
}
