//! What a killed process leaves: every step whose end had returned, its open steps, and no invention.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use runspan::model::{RunStatus, StepStatus};
use runspan::store::RunReader;
use tracing::info_span;

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
        let dir = tempfile::tempdir().unwrap();
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
        let dir = tempfile::tempdir().unwrap();
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
    let dir = tempfile::tempdir().unwrap();
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
    let dir = tempfile::tempdir().unwrap();
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
