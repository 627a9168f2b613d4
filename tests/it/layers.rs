//! The layer among other layers: filters, reloading, a second recorder, in any order and on any thread.

use std::path::Path;

use runspan::model::RunSummary;
use runspan::store::RunReader;
use runspan::{Guard, Run};
use tracing::{Dispatch, Level, Subscriber, debug_span, info, info_span, trace_span};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt, registry, reload};

use super::support::{
    Closed, WATCHDOG, agent, assert_accounted, child, is_child, open, outline, runs, said, steps, warnings,
};

fn build(store: &Path) -> (runspan::Layer, Guard) {
    runspan::builder().store(store).build().unwrap()
}

/// A run with spans and events of several levels and targets, made in part by hand.
fn work() {
    let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a").entered();
    debug_span!("debug").in_scope(|| {
        info!("in debug");
        trace_span!("trace").in_scope(|| info_span!("info").in_scope(|| info!("in info")));
    });
    info_span!(target: "noisy", "noise").in_scope(|| info_span!("within").in_scope(|| {}));
    drop(agent);
    let run = Run::agent("by hand").start();
    run.tool("t").finish();
    run.finish();
}

const WHOLE: [&str; 7] = [
    "a agent success",
    "  info task success",
    "  noise task success",
    "    within task success",
    "by-hand agent success",
    "  t tool success",
    "",
];

fn stored(store: &Path) -> Vec<String> {
    let mut runs = runs(store);
    runs.sort_by_key(|run| run.name().to_owned());
    runs.iter().flat_map(|run| outline(&steps(store, run.run_id))).collect()
}

/// Records the work through a subscriber and returns what was stored.
fn through(set_up: impl FnOnce(runspan::Layer) -> Dispatch) -> Vec<String> {
    let dir = crate::support::tempdir();
    let (layer, guard) = build(dir.path());
    tracing::dispatcher::with_default(&set_up(layer), work);
    let report = guard.shutdown(WATCHDOG);
    let stored = stored(dir.path());
    assert_accounted(&report, stored.len() as u64);
    assert_eq!(report.stored, stored.len() as u64);
    stored
}

fn silent<S: Subscriber + for<'a> registry::LookupSpan<'a>>()
-> fmt::Layer<S, fmt::format::DefaultFields, fmt::format::Format, fn() -> std::io::Sink> {
    fmt::layer().with_writer(std::io::sink)
}

#[test]
fn the_order_of_layers_and_boxes_changes_nothing() {
    let whole = &WHOLE[..6];
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer).with(silent()))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(silent()).with(layer))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer.boxed()))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(Some(layer)))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(vec![layer.boxed(), silent().boxed()]))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(silent().and_then(layer)))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(LevelFilter::TRACE).with(layer))), whole);
    assert_eq!(through(|layer| Dispatch::new(registry().with(reload::Layer::new(layer).0))), whole);
}

#[test]
fn a_filter_leaves_out_what_it_leaves_out_and_nothing_below_it() {
    let quiet = || EnvFilter::new("info,noisy=off");
    let without_noise = [
        "a agent success",
        "  info task success",
        "  within task success",
        "by-hand agent success",
        "  t tool success",
    ];
    assert_eq!(through(|layer| Dispatch::new(registry().with(quiet()).with(layer))), without_noise);
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer).with(quiet()))), without_noise);
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer.with_filter(quiet())))), without_noise);
    // Somebody else's filter is somebody else's.
    let others = |layer| Dispatch::new(registry().with(silent().with_filter(quiet())).with(layer));
    assert_eq!(through(others), &WHOLE[..6]);
    let ours = |layer: runspan::Layer| {
        let no_noise = filter_fn(|metadata| metadata.target() != "noisy");
        Dispatch::new(registry().with(silent().with_filter(LevelFilter::ERROR)).with(layer.with_filter(no_noise)))
    };
    assert_eq!(through(ours), without_noise);
    // Without the agent's own span the spans below are no run of an agent.
    let no_agent = filter_fn(|metadata| metadata.name() != "invoke_agent" && *metadata.level() <= Level::INFO);
    assert_eq!(through(|layer| Dispatch::new(registry().with(layer.with_filter(no_agent)))), ["t tool success"]);
}

#[test]
fn a_layer_that_can_be_reloaded_records_and_can_be_taken_away() {
    let dir = crate::support::tempdir();
    let (layer, guard) = build(dir.path());
    let (layer, handle) = reload::Layer::new(Some(layer));
    let closed = Closed::default();
    let subscriber = registry().with(layer).with(closed.clone());
    tracing::subscriber::with_default(subscriber, || {
        agent("before", 1);
        let open = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "open");
        let inside = open.enter();
        let taken = handle.modify(|layer| drop(layer.take()));
        assert!(taken.is_ok());
        drop(inside);
        drop(open);
        agent("after", 1);
    });
    assert_eq!(closed.get(), 5);
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending, report.dropped.len()), (2, 0, 0), "{report:?}");
}

#[test]
fn a_reloaded_filter_holds_from_then_on() {
    let dir = crate::support::tempdir();
    let (layer, guard) = build(dir.path());
    let (filter, handle) = reload::Layer::new(LevelFilter::ERROR);
    tracing::subscriber::with_default(registry().with(layer.with_filter(filter)), || {
        agent("unheard", 1);
        handle.reload(LevelFilter::INFO).unwrap();
        agent("heard", 1);
        let open = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "open");
        open.in_scope(|| {
            handle.reload(LevelFilter::OFF).unwrap();
            agent("unheard", 1);
        });
    });
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending, report.dropped.len()), (3, 0, 0), "{report:?}");
    let mut names: Vec<_> = runs(dir.path()).iter().map(|run| run.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["heard", "open"]);
}

#[test]
fn two_recorders_in_one_subscriber_each_get_everything() {
    let (one, two) = (crate::support::tempdir(), crate::support::tempdir());
    let ((first, first_guard), (second, second_guard)) = (build(one.path()), build(two.path()));
    let closed = Closed::default();
    tracing::subscriber::with_default(registry().with(closed.clone()).with(first).with(second), || {
        work();
        agent("unheard", 1);
    });
    // Two spans below the level that is recorded.
    let made = closed.get() - 2;
    for (guard, dir) in [(first_guard, &one), (second_guard, &two)] {
        let report = guard.shutdown(WATCHDOG);
        assert_eq!((report.stored, report.pending, report.dropped.len()), (made, 0, 0), "{report:?}");
        let stored = stored(dir.path());
        assert_eq!(stored[..4], WHOLE[..4]);
        assert_eq!(
            stored[4..],
            ["by-hand agent success", "  t tool success", "unheard agent success", "  t-2 tool success"]
                .map(|line| line.replace("t-2", "t"))
        );
    }
}

#[test]
fn one_recorder_twice_in_a_subscriber_records_once() {
    let dir = crate::support::tempdir();
    let ((first, first_guard), (second, second_guard)) = (build(dir.path()), build(dir.path()));
    tracing::subscriber::with_default(registry().with(first).with(silent()).with(second), work);
    drop(first_guard);
    let report = second_guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending, report.dropped.len()), (6, 0, 0), "{report:?}");
    assert_eq!(stored(dir.path()), &WHOLE[..6]);
    let logs = |run: &RunSummary| {
        let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
        events.iter().filter(|event| event.body.type_name() == "log").count()
    };
    assert_eq!(runs(dir.path()).iter().map(logs).sum::<usize>(), 2);
}

#[test]
fn two_guards_of_one_store_end_recording_with_the_last() {
    let dir = crate::support::tempdir();
    let ((first, first_guard), (_, second_guard)) = (build(dir.path()), build(dir.path()));
    let closed = Closed::default();
    tracing::subscriber::with_default(registry().with(closed.clone()).with(first), || {
        agent("before", 1);
        let report = first_guard.shutdown(WATCHDOG);
        assert_accounted(&report, 2);
        assert_eq!(report.stored, 2, "what was recorded before is written");
        agent("between", 1);
        let report = second_guard.shutdown(WATCHDOG);
        assert_eq!((report.stored, report.dropped.len()), (4, 0), "{report:?}");
        agent("after", 1);
    });
    assert_eq!((closed.get(), runs(dir.path()).len()), (6, 2));
}

#[test]
fn each_thread_may_have_a_subscriber_of_its_own() {
    let dirs: Vec<_> = (0..3).map(|_| crate::support::tempdir()).collect();
    let (shared, shared_guard) = build(dirs[2].path());
    std::thread::scope(|threads| {
        for dir in &dirs[..2] {
            let shared = shared.clone();
            threads.spawn(move || {
                let (layer, guard) = build(dir.path());
                for _ in 0..50 {
                    tracing::subscriber::with_default(registry().with(layer.clone()), || agent("own", 3));
                    tracing::subscriber::with_default(registry().with(shared.clone()), || agent("shared", 3));
                    // No subscriber at all: heard by nobody.
                    agent("nobody", 3);
                }
                assert_eq!(guard.shutdown(WATCHDOG).stored, 200);
            });
        }
    });
    assert_eq!(shared_guard.shutdown(WATCHDOG).stored, 400);
    for (dir, wanted) in dirs.iter().zip([("own", 50), ("own", 50), ("shared", 100)]) {
        let runs = runs(dir.path());
        assert!(runs.iter().all(|run| run.name() == wanted.0 && run.steps_total == 4));
        assert_eq!(runs.len(), wanted.1);
    }
}

#[test]
fn a_subscriber_that_is_there_already_is_told_and_one_of_ours_is_joined() {
    const TEST: &str = "layers::a_subscriber_that_is_there_already_is_told_and_one_of_ours_is_joined";
    if let Some(store) = is_child(TEST) {
        use tracing_subscriber::util::SubscriberInitExt;
        if std::env::var("RUNSPAN_TEST_CASE").unwrap() == "foreign" {
            registry().with(silent()).init();
            let guard = runspan::init();
            agent("unheard", 1);
            assert_eq!(guard.shutdown(WATCHDOG), runspan::Report::default());
        } else {
            let (first, second) = (runspan::init(), runspan::init());
            agent("heard", 1);
            drop(first);
            agent("heard", 1);
            let report = second.shutdown(WATCHDOG);
            assert_eq!((report.stored, report.dropped.len()), (4, 0), "{report:?}");
            assert_eq!(runs(&store).len(), 2);
        }
        return;
    }
    for (case, warned) in [("foreign", 1), ("ours", 0)] {
        let dir = crate::support::tempdir();
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", case);
        let said = said(command);
        assert_eq!(warnings(&said).len(), warned, "{case}: {said}");
    }
}

#[test]
fn a_guard_that_is_dropped_before_the_first_run_is_named() {
    const TEST: &str = "layers::a_guard_that_is_dropped_before_the_first_run_is_named";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        if std::env::var("RUNSPAN_TEST_CASE").unwrap() == "at once" {
            drop(guard);
            return work();
        }
        work();
        drop(guard);
        return work();
    }
    let warns = |case: &str| {
        let dir = crate::support::tempdir();
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", case);
        let said = said(command);
        warnings(&said).iter().filter(|said| said.contains("let _guard = runspan::init();")).count()
    };
    assert_eq!((warns("at once"), warns("in the end")), (1, 0));
}

#[test]
fn a_filter_that_drops_every_run_is_named() {
    const TEST: &str = "layers::a_filter_that_drops_every_run_is_named";
    if let Some(store) = is_child(TEST) {
        let mine = || EnvFilter::new("my_crate=info");
        let (layer, guard) = build(&store);
        let subscriber = match std::env::var("RUNSPAN_TEST_CASE").unwrap().as_str() {
            "of all layers" => Dispatch::new(registry().with(layer).with(mine())),
            "of ours" => Dispatch::new(registry().with(layer.with_filter(mine()))),
            "of ours beside another" => Dispatch::new(registry().with(silent()).with(layer.with_filter(mine()))),
            "that lets them through" => {
                Dispatch::new(registry().with(layer).with(EnvFilter::new("my_crate=info,runspan=info")))
            }
            _ => Dispatch::new(registry().with(layer)),
        };
        tracing::dispatcher::with_default(&subscriber, || (work(), work()));
        guard.shutdown(WATCHDOG);
        // It is over, and nothing is recorded any more.
        tracing::dispatcher::with_default(&subscriber, work);
        return;
    }
    let warns = |case: &str, level: &str| {
        let dir = crate::support::tempdir();
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", case).env("RUNSPAN_LOG", level);
        let said = said(command);
        warnings(&said).join("\n")
    };
    let told = "runspan: a filter of the tracing subscriber drops spans of the target \"runspan\", and with them runs and \
                steps: let them through, as in RUST_LOG=my_crate=info,runspan=info";
    assert_eq!(warns("of all layers", "info"), told);
    assert_eq!(warns("of ours", "info"), told);
    assert_eq!(warns("of ours beside another", "info"), told);
    assert_eq!(warns("that lets them through", "info"), "");
    assert_eq!(warns("none", "info"), "");
    assert_eq!(warns("none", "error"), "", "that is what was asked for");
}
