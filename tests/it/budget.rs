//! Budgets of runs: what counts, when the run's code is told, and how the run ends.

use std::future::{Future, pending};
use std::time::Duration;

use runspan::model::{NanoUsd, RunStatus, RunSummary};
use runspan::store::RunReader;
use runspan::{Bound, Budget, BudgetExceeded, Resumed, Run, Step, Usage, WaitError, current};

use crate::support::{only_run, open, record_in, runs, steps, tempdir};

fn call(at: &Step, tokens: u64) {
    let call = at.llm("openai", "gpt-4o-mini");
    call.usage(Usage::new(tokens, 0));
    call.finish();
}

fn tokens(most: u64) -> Budget {
    Budget { tokens: Some(most), ..Budget::default() }
}

/// Error type, step and message, without the time that was spent.
fn error(run: &RunSummary) -> String {
    let error = run.error.as_ref().expect("an error");
    let (kind, message) = (error.kind.as_deref().unwrap_or(""), error.message.as_deref().unwrap_or(""));
    let (before, after) = message.split_once(" in ").expect("a time");
    let rest = after.split_once(';').map_or("", |(_, rest)| rest);
    format!("{kind} at {}: {before}{rest}", error.step_id.as_deref().unwrap_or(""))
}

#[test]
fn a_run_that_asks_is_stopped_by_what_its_calls_cost() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(Budget { cost_usd: Some(0.0004), ..Budget::default() }).start();
        let mut calls = 0;
        // A million input tokens of this model cost 15 cents.
        while run.check_budget().is_ok() {
            call(&run, 1_000);
            calls += 1;
        }
        assert_eq!((calls, run.spent().cost), (3, NanoUsd(450_000)));
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!((run.status, run.llm_calls), (RunStatus::Error, 3));
    assert_eq!(run.cost_usd, Some(NanoUsd(450_000)), "what counted is what is stored");
    insta::assert_snapshot!(error(&run), @"budget_exceeded at chat-3: over the budget of $0.0004: spent $0.00045, 3,000 tokens, 3 steps");
}

#[test]
fn a_run_that_goes_on_all_the_same_is_recorded_whole_and_ends_over_its_budget() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(Budget { steps: Some(2), ..Budget::default() }).start();
        (0..4).for_each(|_| call(&run, 10));
        run.output("done");
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!((run.status, run.steps_total, run.tokens.unwrap().prompt), (RunStatus::Error, 5, Some(40)));
    insta::assert_snapshot!(error(&run), @"budget_exceeded at chat-3: over the budget of 2 steps: spent $0.000003, 20 tokens, 3 steps");
}

#[test]
fn a_run_that_wants_no_more_ends_well_whatever_its_last_call_took() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(tokens(100)).start();
        call(&run, 500);
        run.finish();
    });
    assert_eq!(only_run(dir.path()).status, RunStatus::Success);
}

#[test]
fn a_run_that_is_left_by_what_it_was_told_is_over_its_budget_and_not_cancelled() {
    fn work() -> Result<(), BudgetExceeded> {
        let run = Run::agent("weather").budget(tokens(100)).start();
        call(&run, 500);
        let inside = run.task("plan");
        inside.in_scope(|| current().check_budget())?;
        run.finish();
        Ok(())
    }
    let dir = tempdir();
    record_in(dir.path(), |_| assert_eq!(work().unwrap_err().bound, Bound::Tokens));
    insta::assert_snapshot!(error(&only_run(dir.path())), @"budget_exceeded at chat: over the budget of 100 tokens: spent $0.000075, 500 tokens, 2 steps");
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(tokens(100)).start();
        call(&run, 500);
        let told = run.check_budget().unwrap_err();
        run.fail(&told);
    });
    insta::assert_snapshot!(error(&only_run(dir.path())), @"budget_exceeded at chat: over the budget of 100 tokens: spent $0.000075, 500 tokens, 1 step");
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(tokens(100)).start();
        call(&run, 500);
        assert!(run.is_over_budget());
        run.fail(&std::io::Error::other("no answer"));
    });
    insta::assert_snapshot!(error(&only_run(dir.path())), @"budget_exceeded at chat: over the budget of 100 tokens: spent $0.000075, 500 tokens, 1 step it ended with: no answer");
}

#[test]
fn what_is_told_twice_counts_once_and_what_others_tell_counts() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::workflow("report").budget(tokens(1_000_000)).start();
        // A framework's span around the client's.
        let outer = run.llm("openai", "gpt-4o-mini");
        outer.in_scope(|| call(&outer, 70));
        outer.usage(Usage::new(70, 0));
        outer.finish();
        assert_eq!(run.spent().tokens, 70);
        for _ in 0..2 {
            let answer = run.llm("openai", "gpt-4o-mini");
            answer.response_id("resp-1").usage(Usage::new(5, 2));
            answer.finish();
        }
        assert_eq!(run.spent().tokens, 77);
        // A plain span of somebody else's code.
        run.in_scope(|| {
            let span = tracing::info_span!("chat", gen_ai.operation.name = "chat", gen_ai.usage.input_tokens = 3);
            span.in_scope(|| {});
        });
        assert_eq!(run.spent().tokens, 80);
        // An agent that sums up its calls, and one whose calls nobody tells.
        let agent = run.agent("writer");
        call(&agent, 10);
        agent.usage(Usage::new(10, 0));
        agent.finish();
        let silent = run.agent("silent");
        silent.usage(Usage::new(4, 0));
        silent.finish();
        assert_eq!(run.spent().tokens, 94);
        // A run of its own, with a budget of its own.
        run.in_scope(|| {
            let below = Run::agent("helper").budget(tokens(5)).start();
            call(&below, 6);
            assert!(below.is_over_budget());
            below.finish();
        });
        assert_eq!((run.spent().tokens, run.is_over_budget()), (100, false));
        run.finish();
    });
    let runs = runs(dir.path());
    let stored = |name| runs.iter().find(|run| run.name() == name).unwrap();
    assert_eq!(stored("report").tokens.unwrap().prompt, Some(92), "the other six tokens are the other run's");
    assert_eq!((stored("report").status, stored("helper").status), (RunStatus::Success, RunStatus::Error));
}

#[tokio::test(flavor = "current_thread")]
async fn work_that_waits_is_dropped_at_the_boundary_that_exceeds_the_budget() {
    let dir = tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    let as_default = tracing::subscriber::set_default(subscriber);
    let run = std::sync::Arc::new(Run::agent("weather").budget(tokens(100)).start());
    let elsewhere = std::sync::Arc::clone(&run);
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let other = tokio::spawn(async move {
        gone.await.unwrap();
        call(&elsewhere, 500);
    });
    let work = async {
        let _open = run.tool("search");
        go.send(()).unwrap();
        // Nothing else would ever wake it.
        pending::<()>().await;
    };
    let told = tokio::time::timeout(Duration::from_secs(30), run.within_budget(work)).await.expect("a wake-up");
    assert_eq!(told.unwrap_err().bound, Bound::Tokens);
    other.await.unwrap();
    let run = std::sync::Arc::into_inner(run).unwrap();
    assert_eq!(run.within_budget(async { 1 }).await.unwrap_err().spent.tokens, 500);
    drop(run);
    drop(as_default);
    guard.shutdown(Duration::from_secs(30));
    let run = only_run(dir.path());
    assert_eq!(run.status, RunStatus::Error);
    let search = steps(dir.path(), run.run_id).into_iter().find(|step| step.step_id == "search").unwrap();
    assert_eq!(search.status.as_str(), "cancelled");
}

#[test]
fn a_checkpoint_of_a_run_over_its_budget_says_so() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(tokens(10)).start();
        assert_eq!(run.checkpoint_blocking(), Ok(()));
        call(&run, 11);
        let Err(WaitError::OverBudget(exceeded)) = run.checkpoint_blocking() else { panic!("nobody is told") };
        assert_eq!(exceeded.bound, Bound::Tokens);
        run.finish();
    });
    assert_eq!(only_run(dir.path()).status, RunStatus::Error);
}

#[test]
fn a_run_below_one_that_is_over_its_budget_is_told_so_too() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::workflow("report").budget(tokens(10)).start();
        run.in_scope(|| {
            let bounded = Run::agent("bounded").budget(tokens(1_000)).start();
            let unbounded = bounded.in_scope(|| Run::agent("unbounded").start());
            assert!(bounded.check_budget().is_ok() && unbounded.check_budget().is_ok());
            call(&unbounded, 11);
            let most = |told: Result<(), BudgetExceeded>| told.unwrap_err().budget.tokens;
            let inside = unbounded.in_scope(|| current().check_budget());
            let told = [bounded.check_budget(), unbounded.check_budget(), inside].map(most);
            assert_eq!(told, [Some(10); 3], "by that of the run around them");
            unbounded.finish();
            bounded.finish();
        });
        run.finish();
    });
    let mut ends: Vec<_> = runs(dir.path()).iter().map(|run| (run.name().to_owned(), run.status)).collect();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("bounded", RunStatus::Error), ("report", RunStatus::Error), ("unbounded", RunStatus::Success)];
    assert_eq!(ends, expected.map(|(name, status)| (name.to_owned(), status)));
}

/// Says something in a span when it is woken, as an executor that logs does.
struct Logs {
    span: std::sync::OnceLock<tracing::Span>,
    wakes: std::sync::atomic::AtomicUsize,
}

impl std::task::Wake for Logs {
    fn wake(self: std::sync::Arc<Self>) {
        self.wakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(parent: self.span.get().expect("a span"), "woken");
    }
}

#[test]
fn an_executor_may_log_into_the_span_that_wakes_it() {
    use std::future::Future;
    use std::sync::Arc;
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(Budget { steps: Some(0), ..Budget::default() }).start();
        let logs = Arc::new(Logs { span: Default::default(), wakes: Default::default() });
        let waker = std::task::Waker::from(Arc::clone(&logs));
        let mut work = std::pin::pin!(run.within_budget(pending::<()>()));
        let mut task = std::task::Context::from_waker(&waker);
        assert!(work.as_mut().poll(&mut task).is_pending());
        let span = run.in_scope(|| tracing::info_span!("plan"));
        logs.span.set(span.clone()).unwrap();
        span.in_scope(|| {});
        assert_eq!(logs.wakes.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(work.as_mut().poll(&mut task).is_ready());
    });
    assert_eq!(only_run(dir.path()).steps_total, 2);
}

#[test]
fn without_a_recorder_time_alone_counts() {
    let run = Run::agent("weather").budget(Budget { wall: Some(Duration::ZERO), ..tokens(1) }).start();
    call(&run, 500);
    assert_eq!(run.check_budget().unwrap_err().bound, Bound::Wall);
    let unbounded = Run::agent("weather").start();
    assert!(unbounded.check_budget().is_ok() && !unbounded.is_over_budget());
}

#[test]
fn a_budget_in_dollars_says_once_what_it_does_not_count() {
    let dir = tempdir();
    let budget = Budget { cost_usd: Some(2.0), tokens: Some(15_000), ..Budget::default() };
    record_in(dir.path(), |_| {
        let run = Run::agent("weather").budget(budget).start();
        for model in ["home-made", "home-made", "gpt-4o-mini", "other"] {
            let call = run.llm("nobody", model);
            call.usage(Usage::new(10, 0));
            call.finish();
            let _ = run.check_budget();
        }
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!((run.status, run.budget), (RunStatus::Success, Some(budget)));
    let logs = |event: &runspan::model::Event| match &event.body {
        runspan::model::EventBody::Log(log) => Some(serde_json::to_string(log).unwrap()),
        _ => None,
    };
    let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
    insta::assert_snapshot!(events.iter().filter_map(logs).collect::<Vec<_>>().join("\n"), @r#"{"level":"WARN","message":"runspan.budget_unpriced","fields":{"gen_ai.request.model":"home-made","runspan.budget":{"cost_usd":2,"tokens":15000}}}"#);
}

/// A run that is dropped while it waits, having taken 70 tokens of 100, and gone on with: what it took, and what became of it.
fn gone_on_with(work: impl FnOnce(Resumed)) -> RunSummary {
    let dir = tempdir();
    let mut id = None;
    record_in(dir.path(), |_| {
        let run = Run::agent("refunds").budget(tokens(100)).start();
        call(&run, 60);
        run.in_scope(|| {
            let below = Run::agent("helper").start();
            call(&below, 10);
            below.finish();
        });
        id = run.id();
        let wait = std::pin::pin!(run.wait("approval", ()));
        assert!(wait.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
    });
    let id = id.unwrap();
    runspan::control::resume(&open(dir.path()), &id.to_string(), Some("yes".into())).unwrap();
    record_in(dir.path(), |_| work(Run::resume(&id.to_string()).unwrap()));
    open(dir.path()).get_run(id).unwrap()
}

#[test]
fn a_run_that_is_gone_on_with_has_its_budget_and_what_it_took() {
    let run = gone_on_with(|Resumed { run, spent, .. }| {
        assert_eq!((spent.tokens, spent.steps, run.spent().tokens), (70, 3, 70));
        run.wait_blocking("approval", ()).unwrap();
        assert!(run.check_budget().is_ok() && run.spent().wall >= spent.wall);
        call(&run, 31);
        assert_eq!(run.check_budget().unwrap_err().bound, Bound::Tokens);
        run.finish();
    });
    insta::assert_snapshot!(error(&run), @"budget_exceeded at chat-2: over the budget of 100 tokens: spent $0.00001515, 101 tokens, 4 steps");
}

#[test]
fn a_run_that_is_gone_on_with_may_be_given_another_budget() {
    let run = gone_on_with(|resumed| {
        let run = resumed.budget(tokens(200)).run;
        run.wait_blocking("approval", ()).unwrap();
        call(&run, 31);
        assert!(run.check_budget().is_ok());
        call(&run, 100);
        assert!(run.is_over_budget());
        run.finish();
    });
    assert_eq!(run.budget, Some(tokens(200)));
    insta::assert_snapshot!(error(&run), @"budget_exceeded at chat-3: over the budget of 200 tokens: spent $0.00003015, 201 tokens, 5 steps");
}
