//! Loops over tools whose calls tell sums, as Spring AI 1 does.

use super::*;
use crate::model::otlp::Scope;
use crate::model::{NanoUsd, Tokens};

/// A step: its number and its parent's, from when in seconds (it takes most of one), and attributes; of calls also what was told of
/// input and output.
type Spoken = (u8, u8, u64, &'static [(&'static str, &'static str)], Option<(i64, i64)>);

const AROUND: &[(&str, &str)] = &[("spring.ai.kind", "advisor"), (names::OPERATION, "framework")];
const ASKS: &[(&str, &str)] =
    &[(names::OPERATION, "chat"), (names::PROVIDER, "openai"), (names::FINISH_REASONS, r#"["TOOL_CALLS"]"#)];
const ENDS: &[(&str, &str)] =
    &[(names::OPERATION, "chat"), (names::PROVIDER, "openai"), (names::FINISH_REASONS, r#"["STOP"]"#)];

/// Two loops below one advisor, of which the first has three calls.
const LOOPS: [Spoken; 6] = [
    (9, 0, 0, AROUND, None),
    (1, 9, 1, ASKS, Some((237, 23))),
    (2, 9, 2, ASKS, Some((511, 49))),
    (3, 9, 3, ENDS, Some((822, 78))),
    (4, 9, 4, ASKS, Some((900, 90))),
    (5, 9, 5, ENDS, Some((1900, 190))),
];

/// Stores them as they come, and returns what the run used and each step did.
fn used(version: &str, spans: impl IntoIterator<Item = Spoken>) -> (Tokens, Vec<(u64, u64, NanoUsd)>) {
    let mut sink = outside_sink();
    for (seq, (id, parent, from, more, told)) in (1..).zip(spans) {
        let mut record = ended(3, id, parent, "work", from, from);
        let span = &mut record.span;
        span.start_time_unix_nano = 1_767_693_600_000_000_000 + from * 1_000_000_000;
        span.end_time_unix_nano = span.start_time_unix_nano + 900_000_000;
        more.iter().for_each(|(key, value)| span.set_attr(key, *value));
        if let Some((input, output)) = told {
            span.set_attr(names::INPUT_TOKENS, input);
            span.set_attr(names::OUTPUT_TOKENS, output);
            span.set_attr(names::COST_USD, (input + 4 * output) as f64 / 1e6);
            span.set_attr(names::COST_SOURCE, "computed");
        }
        record.scope =
            Scope { name: "org.springframework.boot".to_owned(), version: version.to_owned(), ..Scope::default() };
        sink.take(seq, record).unwrap();
    }
    sink.flush_all().unwrap();
    let store = sink.into_writer();
    let Some(Listed::Run(run)) = store.list_runs(&Query::default()).unwrap().pop() else { panic!("damaged") };
    let steps = store.get_steps(run.summary.run_id).unwrap().into_iter().filter_map(|step| {
        let tokens = step.tokens?;
        Some((tokens.prompt?, tokens.completion?, step.cost_usd.unwrap_or_default()))
    });
    let mut steps: Vec<_> = steps.collect();
    steps.sort_unstable();
    (run.summary.tokens.unwrap_or_default(), steps)
}

/// In the order in which they are told, each later one first, sent again, from the middle.
fn orders() -> [Vec<Spoken>; 4] {
    let again = [&LOOPS[1..], &LOOPS[..], &LOOPS[2..4]].concat();
    let turned = [&LOOPS[3..], &LOOPS[..3]].concat();
    [LOOPS.to_vec(), LOOPS.iter().rev().copied().collect(), again, turned]
}

#[test]
fn each_call_of_a_loop_has_what_it_used_whatever_comes_first() {
    for spans in orders() {
        let (whole, steps) = used("3.5.8", spans);
        let cost = |input: i64, output: i64| NanoUsd((input + 4 * output) * 1_000);
        let own = [(237, 23), (274, 26), (311, 29), (900, 90), (1_000, 100)];
        assert_eq!(steps, own.map(|(input, output)| (input, output, cost(input as i64, output as i64))));
        assert_eq!((whole.prompt, whole.completion), (Some(2_722), Some(268)));
    }
}

#[test]
fn calls_that_tell_their_own_stay_as_they_are() {
    // Spring AI 2.
    assert_eq!(used("4.0.7", LOOPS).0.prompt, Some(4_370));
    // Below a step of the program.
    let own = LOOPS.map(|(id, parent, from, more, told)| {
        let more = if id == 9 { &[(names::OPERATION, "invoke_workflow")] } else { more };
        (id, parent, from, more, told)
    });
    assert_eq!(used("3.5.8", own).0.prompt, Some(4_370));
    // The conversation so far, which had been asked once, and a tool's result; of Anthropic most of the input was in the cache.
    let next =
        |asks, ends| used("3.5.8", [LOOPS[0], (1, 9, 1, asks, Some((237, 23))), (2, 9, 2, ends, Some((290, 49)))]).0;
    const ANTHROPIC: &[(&str, &str)] =
        &[(names::OPERATION, "chat"), (names::PROVIDER, "anthropic"), (names::FINISH_REASONS, r#"["tool_use"]"#)];
    assert_eq!(next(ASKS, ENDS).prompt, Some(527));
    assert_eq!(next(ANTHROPIC, ANTHROPIC).prompt, Some(290));
}
