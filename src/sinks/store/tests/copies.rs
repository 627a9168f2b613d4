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

/// Tells records of one run in each of these orders: all at once, each written before the next, and each after all that is known was
/// let go of. Returns what is said of the run in any of them.
fn in_orders<const N: usize>(
    told: &[Record],
    orders: &[[usize; N]],
    says: impl Fn(&[Event], &RunSummary) -> String,
) -> HashSet<String> {
    let mut seen = HashSet::new();
    for order in orders {
        for pause in [None, Some(Duration::ZERO), Some(3 * LATE)] {
            let mut sink = outside_sink();
            for (seq, place) in (1..).zip(order) {
                sink.take(seq, told[*place].clone()).unwrap();
                if let Some(pause) = pause {
                    sink.flush_all().unwrap();
                    sink.flush(Instant::now() + pause).unwrap();
                }
            }
            sink.flush_all().unwrap();
            let run = sink.traces.values().find_map(|trace| trace.first_run).unwrap();
            let events = sink.written_events(run).unwrap();
            let [run] = listed(sink).try_into().unwrap();
            seen.insert(says(&events, &run));
        }
    }
    seen
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
    let orders = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2], [4, 0, 5, 3, 2, 1]];
    let seen = in_orders(&told, &orders, |events, run| {
        let ends = events.iter().filter(|event| event.body.span().is_some() && !event.body.is_step_start()).count();
        let prompt = run.tokens.and_then(|tokens| tokens.prompt);
        let duration = run.duration_ms.unwrap();
        format!("{ends} ends, {prompt:?}, {duration} ms, {:?}, {} steps", run.session_id, run.steps_total)
    });
    assert_eq!(seen, HashSet::from(["2 ends, Some(700), 100 ms, Some(\"s\"), 2 steps".to_owned()]));
}

/// What is sent again as it was is told once, and a copy that gave way: to put a long log in order again is work.
#[test]
fn what_is_sent_again_changes_nothing_once_the_log_is_in_order() {
    let call = |to: u64, event: &str| {
        let mut call = ended(3, 1, 0, "chat", 10, to);
        call.span.events.push(SpanEvent { name: event.to_owned(), ..SpanEvent::default() });
        call
    };
    let mut sink = outside_sink();
    for (seq, copy) in (1..).zip([call(30, "a"), call(20, "b")]) {
        sink.take(seq, copy).unwrap();
        sink.flush_all().unwrap();
    }
    for (seq, copy) in (3..).zip([call(30, "a"), call(20, "b"), call(30, "a"), call(20, "b")]) {
        sink.take(seq, copy).unwrap();
        let run = sink.runs.values().next().unwrap();
        // The winner, joined by the other's event, is not what was sent: that is noticed once.
        assert_eq!(run.unsettled, seq == 3, "{seq}");
        sink.flush_all().unwrap();
    }
}

/// What they have in common is the same in every order, and what they have not, too: one of them counts, always the same.
#[test]
fn of_copies_that_say_as_much_the_same_one_counts_whichever_comes_first() {
    let copies: Vec<Record> = ["one", "another", "a third"]
        .into_iter()
        .map(|name| {
            let mut call = ended(3, 1, 0, "chat", 10, 20);
            call.span.set_attr(names::INPUT_TOKENS, Value::Int(7));
            call.span.set_attr(names::AGENT_NAME, name);
            call
        })
        .collect();
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let seen = in_orders(&copies, &orders, |events, run| {
        let agents = events.iter().filter_map(|event| match &event.body {
            EventBody::LlmCalled(call) => Some(call.agent_id.clone()),
            _ => None,
        });
        format!("{:?}, {} steps", agents.collect::<Vec<_>>(), run.steps_total)
    });
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// One that lacks what another has says less, and what it alone has are its events.
#[test]
fn of_a_copy_that_is_a_part_of_another_nothing_counts_but_its_events() {
    let copies: Vec<Record> = [(true, true, ""), (true, false, "a"), (false, true, "b"), (true, true, "c")]
        .into_iter()
        .zip(1..)
        .map(|((is_named, has_model, event), moment)| {
            let mut call = ended(3, 1, 0, "chat", 10, 20);
            call.span.set_attr(names::INPUT_TOKENS, Value::Int(7));
            if is_named {
                call.span.set_attr(names::AGENT_NAME, "weather");
            }
            if has_model {
                call.span.set_attr(names::REQUEST_MODEL, "m");
            }
            if !event.is_empty() {
                let time_unix_nano = call.span.start_time_unix_nano + moment;
                call.span.events.push(SpanEvent { name: event.to_owned(), time_unix_nano, ..SpanEvent::default() });
            }
            call
        })
        .collect();
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [3, 0, 1, 2]];
    let seen = in_orders(&copies, &orders, |events, _| {
        let told = events.iter().filter_map(|event| match &event.body {
            EventBody::LlmCalled(call) => Some(format!("{:?} {:?}", call.agent_id, call.model)),
            EventBody::Log(log) => Some(log.message.clone()),
            _ => None,
        });
        told.collect::<Vec<_>>().join(", ")
    });
    assert_eq!(seen, HashSet::from([r#"a, b, c, Some("weather") Some("m")"#.to_owned()]));
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

/// What is counted of a run: how often its end was, calls, tokens in and out, nano-dollars.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    runs: usize,
    calls: usize,
    tokens: (u64, u64),
    cost: i64,
}

impl Sum {
    fn add(&mut self, sink: &mut StoreSink<MemoryStore>) {
        for tally in sink.take_tallies() {
            self.runs += usize::from(!tally.is_more);
            self.calls += tally.calls.len();
            for step in tally.calls.iter().chain(&tally.tellers) {
                self.tokens.0 += step.input_tokens.unwrap_or(0);
                self.tokens.1 += step.output_tokens.unwrap_or(0);
            }
            self.cost += tally.costs.iter().filter_map(|step| step.cost).map(|cost| cost.0).sum::<i64>();
        }
    }

    fn of(run: &RunSummary) -> Self {
        let tokens = run.tokens.unwrap_or_default();
        let tokens = (tokens.prompt.unwrap_or(0), tokens.completion.unwrap_or(0));
        Self { runs: 1, calls: run.llm_calls as usize, tokens, cost: run.cost_usd.unwrap_or_default().0 }
    }
}

fn call(id: u8, parent: u8, (input, output): (i64, i64), cost: f64) -> Record {
    let from = u64::from(id) * 10;
    let mut call = ended(1, id, parent, "chat", from, from + 5);
    call.span.set_attr(names::PROVIDER, "openai");
    call.span.set_attr(names::RESPONSE_ID, format!("answer {id}").as_str());
    call.span.set_attr(names::INPUT_TOKENS, input);
    call.span.set_attr(names::OUTPUT_TOKENS, output);
    call.span.set_attr(names::COST_USD, cost);
    call
}

/// Whether the run is at hand still, or was let go of.
#[test]
fn what_comes_to_a_run_that_is_counted_is_counted_when_it_comes() {
    let agent = || ended(1, 1, 0, "invoke_agent", 0, 200);
    // One process, and another whose spans come later.
    let [first, second, third] = [call(2, 1, (100, 10), 0.5), call(3, 1, (30, 3), 0.25), call(4, 1, (7, 0), 0.0)];
    // The first call once more, by the layer below.
    let below = {
        let mut below = call(5, 2, (100, 10), 0.5);
        below.span.set_attr(names::RESPONSE_ID, "answer 2");
        (below.span.start_time_unix_nano, below.span.end_time_unix_nano) =
            (first.span.start_time_unix_nano + 1, first.span.end_time_unix_nano - 1);
        below
    };
    let alone = {
        // An agent that tells the sum of calls which come later.
        let mut agent = agent();
        agent.span.set_attr(names::INPUT_TOKENS, 120);
        agent.span.set_attr(names::OUTPUT_TOKENS, 13);
        agent
    };
    // Of the first call what was told while it was under way, and without any counts.
    let begun = |counts: (i64, i64), cost: f64| {
        let mut begun = call(2, 1, counts, cost);
        begun.span.end_time_unix_nano -= 1;
        begun
    };
    let orders: [Vec<Vec<Record>>; 7] = [
        vec![vec![agent(), begun((100, 4), 0.25)], vec![first.clone()], vec![second.clone()]],
        vec![vec![agent(), begun((0, 0), 0.0)], vec![first.clone(), second.clone()], vec![]],
        vec![vec![agent(), first.clone()], vec![second.clone()], vec![second.clone(), third.clone()]],
        vec![vec![agent(), first.clone()], vec![below.clone()], vec![below.clone(), second.clone()]],
        vec![vec![agent()], vec![first.clone()], vec![], vec![second.clone(), below]],
        vec![vec![agent(), second.clone()], vec![agent(), second.clone()], vec![first.clone(), third]],
        vec![vec![alone], vec![first], vec![second]],
    ];
    for (order, batches) in orders.into_iter().enumerate() {
        // What was counted and is less now is known while the run is at hand.
        let is_less = order == 6;
        for lets_go in [false, !is_less] {
            let mut sink = outside_sink().with_tallies();
            let (mut sum, mut seq) = (Sum::default(), 0);
            for batch in batches.clone() {
                for record in batch {
                    seq += 1;
                    sink.take(seq, record).unwrap();
                }
                sink.flush_all().unwrap();
                sum.add(&mut sink);
                if lets_go {
                    sink.forget_finished(Instant::now() + 2 * LATE);
                }
            }
            sink.tally_rest();
            sum.add(&mut sink);
            let runs = listed(sink);
            assert_eq!(sum, Sum::of(&runs[0]), "order {order}, lets go: {lets_go}");
        }
    }
}
