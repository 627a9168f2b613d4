//! What a run adds up to: every part of a bill counts once, whoever tells it.

use runspan::model::RunSummary;
use runspan::{Run, Usage};

use crate::support::{only_run, record_in, steps};

/// Total tokens, cost, steps without a price, model calls.
type Totals = (Option<u64>, Option<String>, u64, u64);

fn recorded(work: impl FnOnce(&Run)) -> (RunSummary, Vec<Option<String>>) {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("billed").start();
        work(&run);
        run.finish();
    });
    let run = only_run(dir.path());
    let copies = steps(dir.path(), run.run_id).into_iter().skip(1).map(|step| step.duplicate_of).collect();
    (run, copies)
}

fn totals(work: impl FnOnce(&Run)) -> Totals {
    let (run, _) = recorded(work);
    let tokens = run.tokens.and_then(|tokens| tokens.total);
    (tokens, run.cost_usd.map(|cost| cost.to_string()), run.unpriced_steps, run.llm_calls)
}

fn is(tokens: u64, cost: &str, unpriced: u64, calls: u64) -> Totals {
    (Some(tokens), Some(cost.to_owned()), unpriced, calls)
}

const USED: Usage =
    Usage { input_tokens: Some(1000), output_tokens: Some(100), cache_read: None, cache_write: None, reasoning: None };

#[test]
fn one_call_told_by_three_layers_counts_once() {
    for (middle_knows, plain_between) in [(true, false), (false, false), (true, true), (false, true)] {
        let (run, copies) = recorded(|run| {
            let outer = run.llm("openai", "gpt-4o");
            let between = plain_between.then(|| outer.task("request"));
            let middle = between.as_ref().unwrap_or(&outer).llm("openai", "gpt-4o");
            let inner = middle.llm("openai", "gpt-4o");
            outer.usage(USED);
            if middle_knows {
                middle.usage(USED);
            }
            inner.usage(USED);
            inner.finish();
            middle.finish();
            between.into_iter().for_each(runspan::Step::finish);
            outer.finish();
        });
        assert_eq!(run.tokens.and_then(|tokens| tokens.total), Some(1100));
        assert_eq!((run.cost_usd.map(|cost| cost.to_string()).as_deref(), run.llm_calls), (Some("0.0035"), 1));
        let copy = || Some("chat".to_owned());
        let expected = if plain_between { vec![None, None, copy(), copy()] } else { vec![None, copy(), copy()] };
        assert_eq!(copies, expected);
    }
}

#[test]
fn of_two_layers_the_one_that_can_be_priced_counts() {
    for answer in [None, Some("resp-1")] {
        let told = totals(|run| {
            let outer = run.llm("some-framework", "fast");
            let inner = outer.llm("openai", "gpt-4o");
            for call in [&outer, &inner] {
                call.usage(USED);
                answer.map(|id| call.response_id(id));
            }
            inner.finish();
            outer.finish();
        });
        assert_eq!(told, is(1100, "0.0035", 0, 1));
    }
}

#[test]
fn calls_beside_each_other_inside_one_are_calls_of_their_own() {
    let told = totals(|run| {
        let outer = run.llm("some-framework", "fast");
        for _ in 0..2 {
            let inner = outer.llm("openai", "gpt-4o");
            inner.usage(USED);
            inner.finish();
        }
        outer.finish();
    });
    assert_eq!(told, is(2200, "0.007", 0, 2));
    // A tool that asks a model is no layer.
    let told = totals(|run| {
        let outer = run.llm("openai", "gpt-4o");
        let tool = outer.tool("ask");
        let inner = tool.llm("openai", "gpt-4o");
        outer.usage(USED);
        inner.usage(USED);
        inner.finish();
        tool.finish();
        outer.finish();
    });
    assert_eq!(told, is(2200, "0.007", 0, 2));
}

#[test]
fn what_an_agent_says_counts_where_nothing_below_says_it() {
    let told = totals(|run| {
        run.usage(USED);
        run.llm("openai", "gpt-4o").finish();
    });
    assert_eq!(told, (Some(1100), None, 1, 1));
    let told = totals(|run| {
        run.usage(Usage::new(9, 9)).cost_usd(9.0);
        let call = run.llm("openai", "gpt-4o");
        call.usage(USED);
        call.finish();
        run.llm("openai", "gpt-4o").fail(&std::io::Error::other("busy"));
    });
    assert_eq!(told, is(1100, "0.0035", 0, 2));
    let told = totals(|run| {
        run.usage(USED).cost_usd(0.5);
        run.llm("openai", "gpt-4o").finish();
    });
    assert_eq!(told, is(1100, "0.5", 0, 1));
}

#[test]
fn the_cost_of_a_tool_counts() {
    let told = totals(|run| {
        let call = run.llm("openai", "gpt-4o");
        call.usage(USED);
        call.finish();
        let tool = run.tool("paid_search");
        tool.cost_usd(0.5);
        tool.finish();
    });
    assert_eq!(told, is(1100, "0.5035", 0, 1));
    let told = totals(|run| {
        run.usage(USED);
        let tool = run.tool("paid_search");
        tool.cost_usd(0.5);
        tool.finish();
    });
    assert_eq!(told, is(1100, "0.5", 1, 0));
}

#[test]
fn a_number_at_the_end_of_a_name_is_the_emitters_own() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        for name in ["x-4294967295", "x", "x", "x-2", "x-4294967295", "y", "y-18446744073709551615", "y"] {
            run.tool(name).finish();
        }
        run.finish();
    });
    let run = only_run(dir.path());
    let names: Vec<String> = steps(dir.path(), run.run_id).into_iter().skip(1).map(|step| step.step_id).collect();
    assert_eq!(names, ["x-4294967295", "x", "x-2", "x-2-2", "x-4294967295-2", "y", "y-18446744073709551615", "y-2"]);
}
