//! Clocks that jump, and computers that sleep: the wall clock moves, the monotonic one does not.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};

use runspan::model::{RunStatus, StepStatus, UnixNanos};
use runspan::store::{Query, RunReader};
use tracing::{info, info_span};

use super::support::{WATCHDOG, agent, child, ended, is_child, open, record_in, runs, said, signal, steps, tool};

/// By how many seconds this process's wall clock is wrong.
static WRONG_BY: AtomicI64 = AtomicI64::new(0);

/// Stands before the C library's function of this name, so that a child can set a clock that is nobody else's.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the system call that the C library would make, with the caller's arguments.
    let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) };
    if answer == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the call has just filled it in.
        unsafe { (*into).tv_sec += WRONG_BY.load(Ordering::Relaxed) };
    }
    answer as libc::c_int
}

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// An hour back (the end of summer time, done wrong), a laptop that slept, years wrong both ways, before 1970, and
/// after the last moment that 64 bits of nanoseconds can say.
const JUMPS: [i64; 7] = [-HOUR, 8 * HOUR, -10 * YEAR, 400 * 24 * HOUR, -100 * YEAR, 600 * YEAR, 0];

fn jump(to: i64) {
    WRONG_BY.store(to, Ordering::Relaxed);
}

#[test]
fn a_clock_that_jumps_moves_steps_and_never_stretches_them() {
    const TEST: &str = "clock::a_clock_that_jumps_moves_steps_and_never_stretches_them";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |guard| {
            for to in JUMPS {
                jump(0);
                let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a");
                let _in_run = run.enter();
                tool("before");
                info_span!("across").in_scope(|| {
                    info!("before");
                    jump(to);
                    info!("after");
                });
                tool("after");
                assert!(guard.flush(WATCHDOG), "{to}");
                agent("begun then", 1);
            }
        });
        assert_eq!((report.stored, report.pending, report.dropped.len()), (42, 0, 0), "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    let store = open(dir.path());
    let all = runs(dir.path());
    assert_eq!(all.len(), JUMPS.len());
    let mut ids = HashSet::new();
    for run in &all {
        assert_eq!((run.status, run.steps_total), (RunStatus::Success, 6));
        // From the earliest start to the latest end as the clock said: a computer that slept had the run open.
        let length = run.completed_at.unwrap().millis_since(run.started_at);
        assert!(run.duration_ms.unwrap().abs_diff(length) <= 1, "{run:?}");
        let steps = steps(dir.path(), run.run_id);
        let sane = |length: f64| (0.0..WATCHDOG.as_secs_f64() * 1e3).contains(&length);
        assert!(steps.iter().all(|step| step.duration_ms.is_some_and(sane)), "{steps:?}");
        // The log is in the order in which things happened, whatever their clocks say.
        let events = store.get_events(run.run_id, 0).unwrap();
        let named = |event: &&runspan::model::Event| event.body.is_step_start();
        let begun: Vec<_> = events.iter().filter(named).filter_map(|event| event.step_id.as_deref()).collect();
        assert_eq!(begun, ["a", "before", "across", "after", "begun-then", "t"]);
        ids.extend(events.iter().map(|event| event.event_id));
    }
    let events: usize = all.iter().map(|run| store.get_events(run.run_id, 0).unwrap().len()).sum();
    assert_eq!(ids.len(), events);
}

#[test]
fn runs_begun_while_the_clock_is_wrong_are_listed_and_found() {
    const TEST: &str = "clock::runs_begun_while_the_clock_is_wrong_are_listed_and_found";
    if let Some(store) = is_child(TEST) {
        for (place, to) in JUMPS.into_iter().enumerate() {
            jump(to);
            assert_eq!(record_in(&store, |_| agent(&format!("a{place}"), 1)).stored, 2);
            assert_eq!(runs(&store).len(), place + 1);
        }
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    let store = open(dir.path());
    let all = runs(dir.path());
    let names: Vec<&str> = all.iter().map(|run| run.name()).collect();
    assert_eq!(names, ["a5", "a3", "a1", "a6", "a0", "a2", "a4"]);
    for run in &all {
        assert_eq!(store.resolve(&run.run_id.to_string()).unwrap(), run.run_id);
        assert!(run.duration_ms.unwrap() < WATCHDOG.as_millis() as u64, "{run:?}");
    }
    let ids: HashSet<_> = all.iter().map(|run| run.run_id).collect();
    assert_eq!(ids.len(), all.len());
    let now = UnixNanos::now();
    assert_eq!(store.list_runs(&Query { until: Some(now), ..Query::default() }).unwrap().len(), 4);
}

#[test]
fn a_run_that_is_killed_after_a_jump_is_closed_by_what_the_clock_said() {
    const TEST: &str = "clock::a_run_that_is_killed_after_a_jump_is_closed_by_what_the_clock_said";
    if let Some(store) = is_child(TEST) {
        let to: i64 = std::env::var("RUNSPAN_TEST_CASE").unwrap().parse().unwrap();
        record_in(&store, |guard| {
            let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a");
            let _in_run = run.enter();
            tool("before");
            jump(to);
            tool("after");
            guard.flush(WATCHDOG);
            info_span!("open").in_scope(|| signal(std::process::id(), libc::SIGKILL));
        });
        return;
    }
    for to in JUMPS {
        let dir = crate::support::tempdir();
        let mut command = child(TEST, dir.path());
        command.env("RUNSPAN_TEST_CASE", to.to_string());
        ended(command);
        let runs = runs(dir.path());
        assert_eq!((runs.len(), runs[0].status), (1, RunStatus::Crashed), "{to}");
        let steps = steps(dir.path(), runs[0].run_id);
        let statuses: Vec<_> = steps.iter().map(|step| (step.step_id.as_str(), step.status)).collect();
        let [crashed, success] = [StepStatus::Crashed, StepStatus::Success];
        let mut wanted = vec![("a", crashed), ("before", success), ("after", success), ("open", crashed)];
        wanted.sort();
        let mut found = statuses.clone();
        found.sort();
        assert_eq!(found, wanted, "{to}");
        // Nobody measured how long the open steps took; what the wall clock says of the run is all there is.
        let length = runs[0].duration_ms.unwrap();
        assert!(length <= to.unsigned_abs() * 1000 + WATCHDOG.as_millis() as u64, "{to}: {length} ms");
    }
}
