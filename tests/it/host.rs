//! The host program is not harmed: whatever runtime it has, however it ends, and wherever it makes its spans.

use std::path::Path;
use std::time::Duration;

use runspan::model::{RunStatus, StepStatus};
use runspan::{Guard, Report};
use tracing::instrument::WithSubscriber;
use tracing::{Dispatch, Instrument, Span, info, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    Closed, Killed, WATCHDOG, agent, assert_accounted, child, ended, is_child, only_run, outline, record_in, runs,
    said, signal, steps, tool, wait_until,
};

/// A recorder of its own, the subscriber to record with, and a count of what was made.
fn recorder(builder: runspan::Builder) -> (Dispatch, Guard, Closed) {
    let closed = Closed::default();
    let (layer, guard) = builder.build().unwrap();
    (Dispatch::new(tracing_subscriber::registry().with(closed.clone()).with(layer)), guard, closed)
}

fn recording<T>(dispatch: &Dispatch, work: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(dispatch, work)
}

fn multi_thread(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).build().unwrap()
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Records inside a runtime, from tasks as well, and shuts down in it.
async fn shut_down_in_task(dispatch: Dispatch, guard: Guard, limit: Duration) -> Report {
    let task = async {
        agent("outer", 1);
        tokio::task::yield_now().await;
        agent("outer", 1);
    };
    tokio::spawn(task.with_subscriber(dispatch)).await.unwrap();
    shut_down(guard, limit)
}

/// Shuts down when the store has everything, so that the limit is for upstreams alone.
fn shut_down(guard: Guard, limit: Duration) -> Report {
    assert!(guard.flush(WATCHDOG));
    guard.shutdown(limit)
}

type Shutdown = fn(Dispatch, Guard, Duration) -> Report;

/// Every way to shut down; each has made 4 spans before.
const FLAVOURS: [(&str, Shutdown); 9] = [
    ("no runtime", |dispatch, guard, limit| {
        recording(&dispatch, || (0..2).for_each(|_| agent("plain", 1)));
        shut_down(guard, limit)
    }),
    ("current thread", |dispatch, guard, limit| current_thread().block_on(shut_down_in_task(dispatch, guard, limit))),
    ("one worker", |dispatch, guard, limit| {
        let runtime = multi_thread(1);
        runtime.block_on(async { tokio::spawn(shut_down_in_task(dispatch, guard, limit)).await.unwrap() })
    }),
    ("four workers", |dispatch, guard, limit| multi_thread(4).block_on(shut_down_in_task(dispatch, guard, limit))),
    ("local set", |dispatch, guard, limit| {
        let local = tokio::task::LocalSet::new();
        let shutdown = async move {
            let spans = async { (0..2).for_each(|_| agent("local", 1)) };
            tokio::task::spawn_local(spans.with_subscriber(dispatch)).await.unwrap();
            shut_down(guard, limit)
        };
        local.block_on(&current_thread(), shutdown)
    }),
    ("spawn_blocking", |dispatch, guard, limit| {
        let shutdown = move || {
            recording(&dispatch, || (0..2).for_each(|_| agent("blocking", 1)));
            shut_down(guard, limit)
        };
        multi_thread(1).block_on(async { tokio::task::spawn_blocking(shutdown).await.unwrap() })
    }),
    ("after the runtime", |dispatch, guard, limit| {
        let runtime = multi_thread(2);
        let spans = || async { agent("task", 1) }.with_subscriber(dispatch.clone());
        runtime.block_on(async {
            tokio::spawn(spans()).await.unwrap();
            tokio::spawn(spans()).await.unwrap();
        });
        drop(runtime);
        shut_down(guard, limit)
    }),
    ("panic hook", |dispatch, guard, limit| {
        let (tell, told) = std::sync::mpsc::channel();
        let guard = std::sync::Mutex::new(Some(guard));
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |_| {
            let guard = guard.lock().unwrap().take();
            tell.send(shut_down(guard.unwrap(), limit)).unwrap();
        }));
        recording(&dispatch, || (0..2).for_each(|_| agent("panics", 1)));
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
        std::panic::set_hook(before);
        told.recv().unwrap()
    }),
    ("another guard before", |dispatch, guard, limit| {
        recording(&dispatch, || (0..2).for_each(|_| agent("two", 1)));
        std::thread::spawn(move || shut_down(guard, limit)).join().unwrap()
    }),
];

/// Shuts down in every way and returns what the reports said.
fn shut_down_in_every_way(
    store: &Path,
    limit: Duration,
    set_up: impl Fn(runspan::Builder) -> runspan::Builder,
) -> Vec<Report> {
    let mut reports = Vec::new();
    for (name, shut_down_so) in FLAVOURS {
        println!("{name}");
        let builder = set_up(runspan::builder().store(store.join(name)));
        let other = (name == "another guard before").then(|| builder.clone());
        let (dispatch, guard, closed) = recorder(builder);
        if let Some(other) = other {
            let (_, guard) = other.build().unwrap();
            drop(guard);
        }
        reports.push(shut_down_so(dispatch, guard, limit));
        assert_eq!(closed.get(), 4, "{name}");
        let stored: u64 = runs(&store.join(name)).iter().map(|run| run.steps_total).sum();
        assert_eq!(stored, 4, "{name}");
    }
    reports
}

#[test]
fn a_shutdown_returns_on_every_runtime() {
    const TEST: &str = "host::a_shutdown_returns_on_every_runtime";
    if let Some(store) = is_child(TEST) {
        let reports = shut_down_in_every_way(&store, WATCHDOG, |builder| builder);
        for report in reports {
            assert_eq!((report.stored, report.pending, report.dropped.len()), (4, 0, 0), "{report:?}");
        }
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

#[cfg(feature = "forward")]
#[test]
fn a_shutdown_returns_when_the_upstream_takes_connections_and_says_nothing() {
    const TEST: &str = "host::a_shutdown_returns_when_the_upstream_takes_connections_and_says_nothing";
    if let Some(store) = is_child(TEST) {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let taken = std::thread::spawn(move || silent.incoming().collect::<Vec<_>>());
        for scheme in ["http", "grpc"] {
            let url = format!("{scheme}://127.0.0.1:{port}");
            let limit = Duration::from_millis(100);
            let reports = shut_down_in_every_way(&store.join(scheme), limit, |builder| builder.forward(url.clone()));
            for report in reports {
                assert_eq!((report.stored, report.exported), (4, 0), "{report:?}");
            }
        }
        assert!(!taken.is_finished());
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

/// Ends this process.
type End = fn(Guard);

/// Every way to end.
const ENDS: [(&str, End); 8] = [
    ("exit", |guard| {
        std::mem::forget(guard);
        std::process::exit(0)
    }),
    ("exit with the guard in a static", |guard| {
        static GUARD: std::sync::Mutex<Option<Guard>> = std::sync::Mutex::new(None);
        *GUARD.lock().unwrap() = Some(guard);
        std::process::exit(0)
    }),
    ("_exit", |guard| {
        std::mem::forget(guard);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }),
    ("return from main", std::mem::forget),
    ("abort", |_guard| std::process::abort()),
    ("panic = abort", |_guard| {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
        panic!("on purpose")
    }),
    ("terminated", |_guard| {
        signal(std::process::id(), libc::SIGTERM);
        std::thread::sleep(WATCHDOG);
    }),
    ("segmentation fault", |_guard| {
        // The standard library takes the first one for a stack overflow that it is not, and steps aside.
        loop {
            signal(std::process::id(), libc::SIGSEGV);
        }
    }),
];

#[test]
fn however_a_process_ends_its_steps_are_there() {
    const TEST: &str = "host::however_a_process_ends_its_steps_are_there";
    if let Some(store) = is_child(TEST) {
        let wanted = std::env::var("RUNSPAN_TEST_CASE").unwrap();
        let end = ENDS.iter().find(|(name, _)| *name == wanted).unwrap().1;
        let (dispatch, guard, _) = recorder(runspan::builder().store(store));
        // Left open, as they are when the process goes.
        let open = std::mem::ManuallyDrop::new(recording(&dispatch, || {
            let span = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a");
            span.in_scope(|| (0..50).for_each(|_| tool("done")));
            span
        }));
        let _in_run = open.enter();
        return end(guard);
    }
    for (name, _) in ENDS {
        let dir = crate::support::tempdir();
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", name);
        ended(command);
        let run = only_run(dir.path());
        assert_eq!((run.status, run.dropped), (RunStatus::Crashed, 0), "{name}");
        let steps = steps(dir.path(), run.run_id);
        let done = steps.iter().filter(|step| step.status == StepStatus::Success).count();
        assert_eq!((steps.len(), done), (51, 50), "{name}");
    }
}

/// Forks, runs `work` in the child, and returns the child's number.
fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child does what a forked child may do here and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        work();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0);
    pid
}

fn exit_status(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of ours.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

#[test]
fn a_forked_child_may_exit_exec_fork_and_record_on_its_own() {
    const TEST: &str = "host::a_forked_child_may_exit_exec_fork_and_record_on_its_own";
    if let Some(store) = is_child(TEST) {
        let (dispatch, guard, closed) = recorder(runspan::builder().store(&store));
        let guard = std::cell::Cell::new(Some(guard));
        let report = recording(&dispatch, || {
            let open = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "parent");
            let _in_open = open.enter();
            // Threads that are in the middle of recording when the process forks.
            let stop = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|threads| {
                for _ in 0..2 {
                    threads.spawn(|| {
                        recording(&dispatch, || {
                            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                                agent("busy", 2);
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        })
                    });
                }
                let children = [
                    fork(|| {
                        agent("in the child", 3);
                        drop(guard.take());
                    }),
                    fork(|| {
                        let inner = fork(|| agent("in the grandchild", 3));
                        assert_eq!(exit_status(inner), 0);
                    }),
                    fork(|| {
                        let program = c"/bin/true";
                        // SAFETY: a valid path and a list of arguments that ends with null.
                        unsafe { libc::execv(program.as_ptr(), [program.as_ptr(), std::ptr::null()].as_ptr()) };
                    }),
                    fork(|| {
                        // It has a recorder of its own, which has nothing to do with the parent's.
                        let (dispatch, guard, _) = recorder(runspan::builder().store(&store));
                        recording(&dispatch, || agent("child", 3));
                        assert_eq!(guard.shutdown(WATCHDOG).stored, 4);
                    }),
                ];
                children.into_iter().for_each(|pid| assert_eq!(exit_status(pid), 0));
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            drop(_in_open);
            drop(open);
            guard.take().unwrap().shutdown(WATCHDOG)
        });
        assert_eq!(report.dropped.len(), 0, "{report:?}");
        assert_accounted(&report, closed.get());
        println!("\nstored {}", report.stored);
        return;
    }
    let dir = crate::support::tempdir();
    let output = ended(child(TEST, dir.path()));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stored: u64 = text.lines().find_map(|line| line.strip_prefix("stored ")?.parse().ok()).unwrap();
    let runs = runs(dir.path());
    let (of_children, of_parent): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.name() == "child");
    assert_eq!(of_children.iter().map(|run| run.steps_total).collect::<Vec<_>>(), [4]);
    assert!(of_parent.iter().all(|run| run.status == RunStatus::Success && !run.name().starts_with("in the")));
    assert_eq!(of_parent.iter().map(|run| run.steps_total).sum::<u64>(), stored);
}

#[test]
fn a_forked_child_that_outlives_its_parent_does_not_keep_the_parents_runs() {
    const TEST: &str = "host::a_forked_child_that_outlives_its_parent_does_not_keep_the_parents_runs";
    if let Some(store) = is_child(TEST) {
        let (dispatch, _guard, _) = recorder(runspan::builder().store(&store));
        recording(&dispatch, || {
            let open = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "parent");
            open.in_scope(|| tool("t"));
            fork(|| {
                println!("\nchild {}", std::process::id());
                std::thread::sleep(WATCHDOG * 2);
            });
            std::thread::sleep(WATCHDOG);
        });
        return;
    }
    use std::io::BufRead;
    let dir = crate::support::tempdir();
    let mut parent = Killed(child(TEST, dir.path()).spawn().unwrap());
    let mut lines = std::io::BufReader::new(parent.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let forked: u32 = lines.find_map(|line| line.strip_prefix("child ")?.parse().ok()).unwrap();
    parent.kill();
    let shown = only_run(dir.path());
    signal(forked, libc::SIGKILL);
    assert_eq!((shown.status, shown.steps_total), (RunStatus::Crashed, 2));
}

/// Makes spans when it is dropped, and when it is shown.
struct Chatty(&'static str);

impl std::fmt::Display for Chatty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info_span!("in display").in_scope(|| info!(value = ?1, "shown"));
        f.write_str(self.0)
    }
}

impl Drop for Chatty {
    fn drop(&mut self) {
        info_span!("in drop").in_scope(|| info!("dropped"));
    }
}

thread_local! {
    static LAST: std::cell::RefCell<Option<(Span, Chatty)>> = const { std::cell::RefCell::new(None) };
}

/// Spans where few expect them.
const PLACES: [(&str, fn()); 10] = [
    ("in display", || {
        let _chatty = info_span!("outer", value = %Chatty("new")).entered();
        let late = info_span!("late", value = tracing::field::Empty);
        late.record("value", tracing::field::display(Chatty("late")));
        info!(parent: &late, value = %Chatty("event"), "event");
    }),
    ("entered here and closed there", || {
        let span = info_span!("crosses");
        let inside = span.enter();
        let other = span.clone();
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let there = dispatch.clone();
        std::thread::spawn(move || recording(&there, || other.in_scope(|| drop(other.clone())))).join().unwrap();
        drop(inside);
        std::thread::spawn(move || recording(&dispatch, || drop(span))).join().unwrap();
    }),
    ("in futures that are dropped midway", || {
        let never = |name: &'static str| {
            let inner = async { std::future::pending::<()>().await }.instrument(info_span!("inner"));
            inner.instrument(info_span!("cancelled", name))
        };
        current_thread().block_on(async {
            let mut dropped = Box::pin(never("dropped"));
            assert!(futures::poll!(&mut dropped).is_pending());
            drop(dropped);
            tokio::select! {
                biased;
                () = never("select") => unreachable!(),
                () = std::future::ready(()) => {}
            }
            let task = tokio::spawn(never("abort").with_current_subscriber());
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            // Never polled at all.
            drop(never("never"));
        });
    }),
    ("ten thousand deep, entered", || {
        let mut inside = Vec::new();
        for _ in 0..10_000 {
            inside.push(info_span!("deep").entered());
        }
        while inside.pop().is_some() {}
    }),
    ("ten thousand deep, told at the end only", || {
        let mut spans = vec![info_span!("top")];
        for _ in 0..10_000 {
            spans.push(info_span!(parent: &spans[spans.len() - 1], "below"));
        }
        spans[10_000].in_scope(|| {});
        while spans.pop().is_some() {}
    }),
    ("closed while entered twice", || {
        let span = info_span!("twice");
        let (first, second) = (span.clone().entered(), span.clone().entered());
        drop(span);
        drop(first);
        drop(second);
    }),
    ("following each other in a circle", || {
        let (a, b) = (info_span!("a"), info_span!("b"));
        a.follows_from(&b);
        b.follows_from(&a);
        a.follows_from(&a);
        a.follows_from(None::<tracing::Id>);
        for _ in 0..1000 {
            a.follows_from(&b);
        }
    }),
    ("closed by unwinding through many", || {
        let unwound = std::panic::catch_unwind(|| {
            let _outer = info_span!("outer").entered();
            let _chatty = Chatty("unwinding");
            let _inner = info_span!("inner").entered();
            panic!("on purpose");
        });
        assert!(unwound.is_err());
    }),
    ("begun on many threads at once", || {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        for _ in 0..200 {
            let span = info_span!("shared");
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(|| {
                        start.wait();
                        recording(&dispatch, || span.in_scope(|| info_span!("below").in_scope(|| {})));
                    });
                }
            });
        }
    }),
    ("on hundreds of threads", || {
        let (run, dispatch) = (Span::current(), tracing::dispatcher::get_default(Clone::clone));
        std::thread::scope(|threads| {
            for _ in 0..400 {
                threads.spawn(|| {
                    recording(&dispatch, || info_span!(parent: &run, "thread").in_scope(|| info!("there")));
                });
            }
        });
    }),
];

#[test]
fn spans_made_in_odd_places_are_all_accounted_for() {
    const TEST: &str = "host::spans_made_in_odd_places_are_all_accounted_for";
    if let Some(store) = is_child(TEST) {
        for (name, make) in PLACES {
            println!("{name}");
            let (dispatch, guard, closed) = recorder(runspan::builder().store(store.join(name)));
            recording(&dispatch, || {
                let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = name);
                run.in_scope(make);
            });
            let report = guard.shutdown(WATCHDOG);
            assert_eq!((report.pending, report.dropped.len()), (0, 0), "{name}: {report:?}");
            assert_accounted(&report, closed.get());
            let runs = runs(&store.join(name));
            let [run] = &runs[..] else { panic!("{name}: {runs:?}") };
            assert_eq!((run.status, run.steps_total), (RunStatus::Success, closed.get()), "{name}");
            assert_eq!(steps(&store.join(name), run.run_id).len() as u64, run.steps_total, "{name}");
        }
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

#[test]
fn a_leaked_span_ends_with_its_process() {
    const TEST: &str = "host::a_leaked_span_ends_with_its_process";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |_| {
            let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "leaky");
            run.in_scope(|| std::mem::forget(info_span!("leaked").entered()));
        });
        // The run's span is held by the leaked one below it, so neither has ended.
        assert_eq!((report.stored, report.pending, report.dropped.len()), (0, 0, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    let run = only_run(dir.path());
    assert_eq!(outline(&steps(dir.path(), run.run_id)), ["leaky agent crashed", "  leaked task crashed"]);
}

#[test]
fn a_program_hears_its_own_spans_as_it_would_without_us() {
    const TEST: &str = "host::a_program_hears_its_own_spans_as_it_would_without_us";
    if let Some(store) = is_child(TEST) {
        use tracing_subscriber::util::SubscriberInitExt;
        let closed = Closed::default();
        let (layer, guard) = runspan::builder().store(&store).build().unwrap();
        tracing_subscriber::registry().with(closed.clone()).with(layer).init();
        assert!(guard.flush(WATCHDOG), "the worker is at work");
        {
            let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "global");
            let _in_run = run.enter();
            info!(value = %Chatty("event"), "a value that makes a span while the event is handed out");
            let parent = run.clone();
            let keep = move || LAST.set(Some((info_span!(parent: &parent, "kept by the thread"), Chatty("x"))));
            std::thread::spawn(keep).join().unwrap();
        }
        // The agent, in display, in its drop, kept by the thread, and in the drop at the thread's end, which is no run.
        assert_eq!(closed.get(), 5);
        assert_eq!(guard.shutdown(WATCHDOG).stored, 4);
        assert_eq!(only_run(&store).status, RunStatus::Success);
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
}

#[test]
fn a_program_that_drops_its_guard_at_once_goes_on_and_does_not_grow() {
    const TEST: &str = "host::a_program_that_drops_its_guard_at_once_goes_on_and_does_not_grow";
    if let Some(store) = is_child(TEST) {
        let (dispatch, guard, closed) = recorder(runspan::builder().store(&store));
        drop(guard);
        let before = memory();
        recording(&dispatch, || (0..100_000).for_each(|_| agent("unheard", 1)));
        assert_eq!(closed.get(), 200_000);
        let grown = memory().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes");
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    assert!(runs(dir.path()).is_empty());
}

/// The process's own memory in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn a_stopped_host_keeps_its_runs_until_it_is_killed() {
    const TEST: &str = "host::a_stopped_host_keeps_its_runs_until_it_is_killed";
    if let Some(store) = is_child(TEST) {
        let (dispatch, _guard, _) = recorder(runspan::builder().store(&store));
        recording(&dispatch, || {
            let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "stopped");
            let _in_run = run.enter();
            loop {
                tool("t");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    let dir = crate::support::tempdir();
    let mut host = Killed(child(TEST, dir.path()).spawn().unwrap());
    wait_until("a run shows", || dir.path().join("store.yaml").exists() && runs(dir.path()).len() == 1);
    signal(host.0.id(), libc::SIGSTOP);
    // All its threads stand still when this returns.
    // SAFETY: a plain system call on a child of ours.
    unsafe { libc::waitpid(host.0.id() as libc::pid_t, std::ptr::null_mut(), libc::WUNTRACED) };
    let stopped = only_run(dir.path());
    assert_eq!((stopped.status, only_run(dir.path()).steps_total), (RunStatus::Running, stopped.steps_total));
    host.kill();
    let killed = only_run(dir.path());
    assert_eq!(killed.status, RunStatus::Crashed);
    assert!(killed.steps_total >= stopped.steps_total);
    let steps = steps(dir.path(), killed.run_id);
    assert_eq!(steps.len() as u64, killed.steps_total);
}

#[cfg(feature = "cli")]
#[test]
fn a_run_ten_thousand_deep_is_shown() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let mut inside =
            vec![info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a").entered()];
        (0..10_000).for_each(|_| inside.push(info_span!("deep").entered()));
        while inside.pop().is_some() {}
    });
    for arguments in [&["list"][..], &["get", "latest"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(arguments).arg("--store").arg(dir.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = ended(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {:?} {error}", output.status);
    }
}
