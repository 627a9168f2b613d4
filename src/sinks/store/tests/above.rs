//! Runs that a span names which stands below others: a handler of requests, say.

use super::*;

const RUN: RunId = RunId([9; 16]);

fn naming(mut record: Record) -> Record {
    record.span.set_attr(names::RUN_ID, RUN.to_string());
    record
}

/// A run below a handler and what stands between them, with a call; and something plain beside it.
fn below_a_handler() -> Vec<Record> {
    vec![
        ended(3, 1, 0, "", 0, 100),
        ended(3, 2, 1, "", 10, 90),
        naming(ended(3, 3, 2, "invoke_agent", 20, 60)),
        naming(ended(3, 4, 3, "chat", 30, 40)),
        ended(3, 5, 2, "", 70, 80),
    ]
}

fn told(runs: &[RunSummary]) -> Vec<(RunStatus, RunKind, u64, u64)> {
    let mut told: Vec<_> = runs.iter().map(|run| (run.status, run.kind, run.steps_total, run.llm_calls)).collect();
    told.sort_by_key(|(_, _, steps, _)| *steps);
    told
}

#[test]
fn a_run_of_this_process_below_a_plain_span_ends() {
    let [handler, _, agent, call, _] = below_a_handler().try_into().unwrap();
    let agent = Record { span: Span { parent_span_id: handler.span.span_id.clone(), ..agent.span }, ..agent };
    let start = |record: &Record| {
        let span = Span { end_time_unix_nano: 0, ..record.span.clone() };
        Record { kind: RecordKind::Started, span, ..record.clone() }
    };
    // One that is not recorded, being of a level that is left out, is none of the run either.
    for is_recorded in [true, false] {
        let mut all = vec![start(&handler), start(&agent), start(&call), call.clone(), agent.clone(), handler.clone()];
        if !is_recorded {
            all.retain(|record| record.span.span_id != handler.span.span_id);
        }
        let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
        for (seq, record) in (1..).zip(all) {
            sink.take(seq, record).unwrap();
            sink.flush(Instant::now()).unwrap();
        }
        sink.flush_all().unwrap();
        assert_eq!((sink.open_runs(), sink.oldest_held()), (vec![], None));
        assert_eq!(told(&listed(sink)), [(RunStatus::Success, RunKind::Agent, 2, 1)]);
    }
}

#[test]
fn a_run_of_an_exporter_whose_steps_name_it_waits_for_the_topmost() {
    let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
    for (seq, (place, above)) in (1..).zip([(2, 1), (1, 0)]) {
        sink.take(seq, naming(ended(3, place, above, "invoke_agent", u64::from(place), 60))).unwrap();
        sink.flush_all().unwrap();
        assert_eq!(sink.open_runs().len(), usize::from(place == 2));
    }
}

proptest! {
    #[test]
    fn what_is_above_a_span_that_names_its_run_is_not_of_it(
        order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(), cuts in any::<[bool; 5]>(),
    ) {
        let all = below_a_handler();
        let mut sink = outside_sink();
        for (seq, place) in (1..).zip(&order) {
            sink.take(seq, all[*place].clone()).unwrap();
            if cuts[*place] {
                sink.flush_all().unwrap();
            }
        }
        sink.flush_all().unwrap();
        sink.finish_moves().unwrap();
        prop_assert_eq!(sink.open_runs(), vec![]);
        sink.flush_all().unwrap();
        sink.delete_left(None).unwrap();
        let runs = listed(sink);
        prop_assert_eq!(told(&runs), vec![(RunStatus::Success, RunKind::Agent, 2, 1)]);
    }

    /// As an export names the run on each of its spans.
    #[test]
    fn what_names_a_run_is_of_it_wherever_it_stands(order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
        let all: Vec<Record> = below_a_handler().into_iter().map(naming).collect();
        let mut sink = outside_sink();
        for (seq, place) in (1..).zip(&order) {
            sink.take(seq, all[*place].clone()).unwrap();
            sink.flush_all().unwrap();
        }
        prop_assert_eq!(sink.open_runs(), vec![]);
        let runs = listed(sink);
        prop_assert_eq!(told(&runs), vec![(RunStatus::Success, RunKind::Workflow, 5, 1)]);
    }
}

/// A sub-agent that names the run comes before all that it is below.
#[test]
fn what_stands_between_two_agents_of_a_run_is_of_it_whichever_comes_first() {
    for (between, tools) in [("execute_tool", 1), ("", 0)] {
        let all = [
            ended(3, 1, 0, "", 0, 100),
            naming(ended(3, 2, 1, "invoke_agent", 10, 90)),
            ended(3, 3, 2, between, 20, 80),
            ended(3, 4, 3, "", 25, 75),
            naming(ended(3, 5, 4, "invoke_agent", 30, 70)),
        ];
        for order in [[4, 3, 2, 1, 0], [0, 1, 2, 3, 4], [1, 3, 2, 4, 0], [4, 1, 3, 2, 0], [1, 2, 3, 4, 0]] {
            let mut sink = outside_sink();
            for (seq, place) in (1..).zip(order) {
                sink.take(seq, all[place].clone()).unwrap();
                sink.flush_all().unwrap();
            }
            // What came before the agent that it is below was of the trace's own run until then. Nothing of that stays that is no run.
            sink.finish_moves().unwrap();
            assert_eq!(sink.open_runs(), [], "{order:?}");
            sink.flush_all().unwrap();
            sink.delete_left(None).unwrap();
            let runs = listed(sink);
            assert_eq!(told(&runs), [(RunStatus::Success, RunKind::Agent, 4, 0)], "{order:?}");
            assert_eq!(runs[0].tool_calls, tools);
        }
    }
}

#[test]
fn a_log_of_a_call_that_has_not_come_is_of_the_calls_run() {
    let call = naming(ended(3, 4, 3, "chat", 30, 40));
    let mut log = Record { kind: RecordKind::Event, ..ended(3, 4, 0, "", 35, 35) };
    log.span.events = vec![SpanEvent { time_unix_nano: 1, name: "note".to_owned(), ..SpanEvent::default() }];
    let [handler, between, agent, _, _] = below_a_handler().try_into().unwrap();
    let mut sink = outside_sink();
    for (seq, record) in (1..).zip([agent, log, call, between, handler]) {
        sink.take(seq, record).unwrap();
    }
    sink.flush_all().unwrap();
    assert_eq!((sink.open_runs(), told(&listed(sink))), (vec![], vec![(RunStatus::Success, RunKind::Agent, 2, 1)]));
}

#[test]
fn a_start_that_was_lost_keeps_no_run_of_this_process_from_ending() {
    let [_, _, agent, call, _] = below_a_handler().try_into().unwrap();
    let start = Record { kind: RecordKind::Started, ..agent.clone() };
    let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
    for (seq, record) in (1..).zip([start, call, agent]) {
        sink.take(seq, record).unwrap();
        sink.flush_all().unwrap();
    }
    assert_eq!((sink.open_runs(), told(&listed(sink))), (vec![], vec![(RunStatus::Success, RunKind::Agent, 2, 1)]));
}

#[test]
fn what_is_above_two_runs_is_counted_whatever_names_it() {
    let mut root = ended(3, 9, 0, "", 0, 100);
    root.span.set_attr(names::RUN_ID, RunId([8; 16]).to_string());
    let mut sink = outside_sink();
    for (seq, record) in (1..).zip([naming(ended(3, 1, 9, "invoke_agent", 10, 20)), ended(3, 2, 9, "", 30, 40), root]) {
        sink.take(seq, record).unwrap();
        sink.flush_all().unwrap();
    }
    sink.close_all(|| Ok(())).unwrap();
    let counted = |outcome| sink.counts().by.iter().filter(|((of, _), _)| *of == outcome).map(|(_, n)| n).sum::<u64>();
    assert_eq!((counted(Outcome::Stored), counted(Outcome::NotKept)), (1, 2));
}

/// What one of them held is given up, and not what the others do.
#[test]
fn a_run_that_spans_of_several_traces_name_has_those_of_each_that_is_still_held() {
    let mut sink = outside_sink();
    for (seq, trace) in [(1, 3), (2, 4)] {
        sink.take(seq, naming(ended(trace, trace, 0, "", 0, 100))).unwrap();
    }
    sink.flush_all().unwrap();
    let now = Instant::now() + 2 * LATE;
    sink.traces.get_mut(&TraceId([4; 16])).unwrap().touched = Some(now);
    sink.give_up_held(now, SILENCE).unwrap();
    sink.take(3, naming(ended(5, 1, 0, "invoke_agent", 10, 20))).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(listed(sink).iter().map(|run| run.steps_total).collect::<Vec<_>>(), [2]);
}
