//! Runs that have crashed behind an answer: which one they are given once more.

use std::process::Stdio;
use std::task::Poll;

use runspan::Run;
use runspan::model::RunStatus;
use serde_json::{Value as Json, json};

use super::{answer, is_waiting, log, polled_once};
use crate::support::{Killed, child, is_child, only_run, record_in, signal, tempdir, wait_until};

const ASKS: &str = "act::again::an_agent_that_asks_and_is_killed";

/// An agent that asks twice, and is killed with the second answer in hand.
#[test]
fn an_agent_that_asks_and_is_killed() {
    let Some(store) = is_child(ASKS) else { return };
    record_in(store.as_ref(), |_| {
        let run = Run::agent("a").start();
        let _ = run.wait_blocking("first", ());
        let _ = run.wait_blocking("second", ());
        signal(std::process::id(), libc::SIGKILL);
    });
}

/// Has a run crash behind its second answer, and returns what the wait for it returns in the next process, if that is there
/// at once, with the line of the log that has the answer.
fn given_again(second: Json) -> (Option<Json>, String) {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = Killed(child(ASKS, &store).stdout(Stdio::null()).spawn().unwrap());
    let waits_for = |reason: &str| {
        wait_until("it waits", || {
            is_waiting(&store) && {
                let told = log(&store, only_run(&store).run_id);
                told.last().is_some_and(|line| line.starts_with(&format!("waiting {reason}")))
            }
        });
    };
    waits_for("first");
    answer(&store, json!("the first answer")).unwrap();
    waits_for("second");
    answer(&store, second).unwrap();
    agent.0.wait().unwrap();
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Crashed);
    let told = log(&store, run.run_id)[5].clone();
    let mut given = None;
    record_in(&store, |_| {
        let resumed = Run::resume("latest").unwrap();
        assert_eq!(resumed.waiting.reason.as_deref(), Some("second"));
        given = match polled_once(resumed.run.wait("second", ())) {
            Poll::Ready(answer) => Some(answer.unwrap()),
            Poll::Pending => None,
        };
        if given.is_none() {
            answer(&store, json!("another")).unwrap();
            assert_eq!(resumed.run.wait_blocking("second", ()).unwrap(), json!("another"));
        }
        resumed.run.finish();
    });
    assert_eq!(only_run(&store).status, RunStatus::Success);
    (given, told)
}

#[test]
fn a_run_that_crashed_behind_its_second_answer_is_given_that_one() {
    let (given, told) = given_again(json!({"n": [1, null]}));
    assert_eq!((given, told.as_str()), (Some(json!({"n": [1, null]})), r#"resumed {"n":[1,null]}"#));
}

#[test]
fn null_is_an_answer_and_given_again_as_such() {
    let (given, told) = given_again(Json::Null);
    assert_eq!((given, told.as_str()), (Some(Json::Null), "resumed null"));
}

#[test]
fn an_answer_too_long_for_the_log_is_asked_for_again_and_the_one_before_is_not_given_in_its_place() {
    let longest = "x".repeat((1 << 20) - 2);
    let (given, told) = given_again(longest.into());
    assert_eq!(given, None);
    assert!(
        told.starts_with(r#"resumed "\"xxx"#) && told.ends_with(r#"x[cut:524320]""#),
        "{}",
        &told[told.len() - 40..]
    );
}
