//! Spans that come more than once, and differ.

use super::*;

#[test]
fn a_span_of_a_new_run_that_comes_twice_is_counted_once() {
    let mut sink = outside_sink();
    for seq in 0..2 {
        sink.take(seq, ended(1, 1, 0, "chat", 0, 1)).unwrap();
    }
    sink.flush_all().unwrap();
    let runs = listed(sink);
    assert_eq!(runs.iter().map(|run| run.steps_total).collect::<Vec<_>>(), [1]);
}

/// Who sends a span while it is under way sends it again when it is whole; whichever comes first, together or long after.
#[test]
fn of_copies_of_a_span_that_differ_the_one_that_says_more_counts_whichever_comes_first() {
    let call = |to: u64, prompt: Option<i64>| {
        let mut call = ended(3, 2, 1, "chat", 10, to);
        if let Some(prompt) = prompt {
            call.span.set_attr(names::INPUT_TOKENS, Value::Int(prompt));
            call.span.set_attr(names::OUTPUT_TOKENS, Value::Int(1));
        }
        call
    };
    let root = |to: u64, session: Option<&str>| {
        let mut root = ended(3, 1, 0, "invoke_agent", 0, to);
        if let Some(session) = session {
            root.span.set_attr(names::CONVERSATION_ID, session);
        }
        root
    };
    let told =
        [call(10, None), call(20, None), call(20, Some(7)), call(20, Some(700)), root(0, None), root(100, Some("s"))];
    let mut seen = HashSet::new();
    for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2], [4, 0, 5, 3, 2, 1]] {
        // All at once, each written before the next, and each after all that is known was let go of.
        for pause in [None, Some(Duration::ZERO), Some(3 * LATE)] {
            let mut sink = outside_sink();
            for (seq, place) in (1..).zip(order) {
                sink.take(seq, told[place].clone()).unwrap();
                if let Some(pause) = pause {
                    sink.flush_all().unwrap();
                    sink.flush(Instant::now() + pause).unwrap();
                }
            }
            sink.flush_all().unwrap();
            let run = sink.traces.values().find_map(|trace| trace.first_run).unwrap();
            let events = sink.written_events(run).unwrap();
            let ends = events.iter().filter(|event| event.body.span().is_some() && !event.body.is_step_start()).count();
            let [run] = listed(sink).try_into().unwrap();
            let prompt = run.tokens.and_then(|tokens| tokens.prompt);
            let duration = run.duration_ms.unwrap();
            seen.insert(format!(
                "{ends} ends, {prompt:?}, {duration} ms, {:?}, {} steps",
                run.session_id, run.steps_total
            ));
        }
    }
    assert_eq!(seen, HashSet::from(["2 ends, Some(700), 100 ms, Some(\"s\"), 2 steps".to_owned()]));
}

#[test]
fn a_copy_that_ends_later_and_knows_less_gives_way_and_events_of_one_that_gives_way_stay() {
    let call = |to: u64, prompt: Option<i64>, event: &str| {
        let mut call = ended(3, 1, 0, "chat", 10, to);
        if let Some(prompt) = prompt {
            call.span.set_attr(names::INPUT_TOKENS, Value::Int(prompt));
        }
        if !event.is_empty() {
            call.span.events.push(SpanEvent { name: event.to_owned(), ..SpanEvent::default() });
        }
        call
    };
    for is_flushed in [false, true] {
        let mut sink = outside_sink();
        for (seq, copy) in (1..).zip([call(20, Some(7), "a"), call(21, None, ""), call(20, Some(8), "b")]) {
            sink.take(seq, copy).unwrap();
            if is_flushed {
                sink.flush_all().unwrap();
            }
        }
        sink.flush_all().unwrap();
        let run = *sink.runs.keys().next().unwrap();
        let events = sink.written_events(run).unwrap();
        let logs = events.iter().filter_map(|event| match &event.body {
            EventBody::Log(log) => Some(log.message.clone()),
            _ => None,
        });
        let mut logs: Vec<String> = logs.collect();
        logs.sort_unstable();
        assert_eq!(logs, ["a", "b"], "{is_flushed}");
        assert_eq!(listed(sink)[0].tokens.and_then(|tokens| tokens.prompt), Some(8), "{is_flushed}");
    }
}
