//! Runs below others, by the links of their spans and by the ids that they bear.

use super::*;

#[test]
fn a_link_names_the_run_that_caused_this_one_whichever_comes_first() {
    let linked = || {
        let mut record = ended(4, 1, 0, "invoke_agent", 50, 60);
        record.span.links =
            vec![crate::model::otlp::Link { trace_id: vec![3; 16], span_id: vec![1; 8], ..Default::default() }];
        record
    };
    let cause = || ended(3, 1, 0, "invoke_agent", 0, 100);
    for order in [[cause(), linked()], [linked(), cause()]] {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip(order) {
            sink.take(seq, record).unwrap();
            sink.flush(Instant::now()).unwrap();
        }
        sink.flush_all().unwrap();
        let runs = listed(sink);
        // The newest first.
        assert_eq!((runs[0].parent_run_id, runs[1].parent_run_id), (Some(runs[1].run_id), None));
    }
}

/// The one that waits is over and let go of when another process takes the other's spans.
#[test]
fn a_link_is_waited_for_by_the_process_that_comes_next() {
    let store = MemoryStore::default();
    let outside = || {
        let mut sink = StoreSink::new(store.clone(), RunId([7; 16]));
        sink.take_from_outside(LATE);
        sink
    };
    let mut linked = ended(4, 1, 0, "invoke_agent", 50, 60);
    linked.span.links =
        vec![crate::model::otlp::Link { trace_id: vec![3; 16], span_id: vec![1; 8], ..Default::default() }];
    for (seq, record) in [(1, linked), (2, ended(3, 1, 0, "invoke_agent", 0, 100))] {
        let mut sink = outside();
        sink.take(seq, record).unwrap();
        sink.flush_all().unwrap();
    }
    let runs = listed(outside());
    assert_eq!((runs.len(), runs[0].parent_run_id, runs[1].parent_run_id), (2, Some(runs[1].run_id), None));
}

#[test]
fn a_link_names_the_run_that_caused_a_run_of_this_process_where_it_was_there_before() {
    let store = MemoryStore::default();
    let begun = |trace| Record { kind: RecordKind::Started, ..ended(trace, 1, 0, "invoke_agent", 0, 0) };
    let linked = |trace: u8, to: TraceId| {
        let mut record = begun(trace);
        record.span.links =
            vec![crate::model::otlp::Link { trace_id: to.0.to_vec(), span_id: vec![1; 8], ..Default::default() }];
        record
    };
    // One that this process began, and one of another process, of which the store alone knows.
    let other = RunId::fresh(UnixNanos::now());
    let summary = RunState::new(other, other.as_trace_id()).summary(UnixNanos::now());
    store.clone().create_run(&summary, &[]).unwrap();
    let unknown = RunId::fresh(UnixNanos::now());
    let mut sink = StoreSink::new(store, RunId([7; 16]));
    sink.take(1, begun(3)).unwrap();
    sink.take(2, linked(4, TraceId([3; 16]))).unwrap();
    sink.take(3, linked(5, other.as_trace_id())).unwrap();
    sink.take(4, linked(6, unknown.as_trace_id())).unwrap();
    sink.flush_all().unwrap();
    let ours = sink.run_of(TraceId([3; 16]));
    let runs = listed(sink);
    let parent = |trace| runs.iter().find(|run| run.trace_id == TraceId([trace; 16])).map(|run| run.parent_run_id);
    assert!(ours.is_some());
    assert_eq!((parent(4), parent(5), parent(6)), (Some(ours), Some(Some(other)), Some(None)));
}

#[test]
fn a_link_to_a_trace_without_a_run_names_none() {
    let mut sink = outside_sink();
    let mut record = ended(4, 1, 0, "invoke_agent", 50, 60);
    record.span.links = vec![crate::model::otlp::Link { trace_id: vec![3; 16], ..Default::default() }];
    sink.take(1, record).unwrap();
    sink.take(2, ended(3, 1, 0, "", 0, 100)).unwrap();
    sink.flush_all().unwrap();
    let runs = listed(sink);
    assert_eq!((runs.len(), runs[0].parent_run_id), (1, None));
}

#[test]
fn another_trace_of_a_run_is_below_the_step_that_names_the_run_whichever_comes_first() {
    let run = RunId::from_parts(1_767_693_600_000, [9; 10]);
    let ended = |trace: u8, id: u8, parent: u8, operation: &str, to: u64| {
        let mut span = Span {
            trace_id: vec![trace; 16],
            span_id: vec![id; 8],
            parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
            name: format!("s{id}"),
            start_time_unix_nano: 1_767_693_600_000_000_000 + u64::from(id) * 1_000_000,
            end_time_unix_nano: 1_767_693_600_000_000_000 + to * 1_000_000,
            ..Span::default()
        };
        span.set_attr(names::OPERATION, operation);
        Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span }
    };
    let by_process = |mut record: Record| {
        let value = Some(Value::from(run.to_string()).into());
        let attributes = vec![KeyValue { key: names::RUN_ID.to_owned(), value }];
        record.resource = Arc::new(crate::model::otlp::Resource { attributes, dropped_attributes_count: 0 });
        record
    };
    let mut root = ended(1, 1, 0, "invoke_workflow", 90);
    root.span.set_attr(names::RUN_ID, run.to_string());
    let mut agent = by_process(ended(2, 2, 0, "invoke_agent", 50));
    agent.span.status = Some(crate::model::otlp::Status { code: 2, message: "no".to_owned() });
    // In the run's own trace, below a step that never came.
    let lost = by_process(ended(1, 4, 9, "execute_tool", 50));
    let call = by_process(ended(2, 3, 2, "chat", 40));
    let records = [root, agent, call, lost];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
        sink.take_from_outside(SILENCE);
        for (seq, place) in (1..).zip(order) {
            sink.take(seq, records[place].clone()).unwrap();
        }
        sink.flush_all().unwrap();
        assert_eq!(sink.open_runs(), [run], "a step waits for its parent");
        sink.close_all(|| Ok(())).unwrap();
        let store = sink.into_writer();
        let summary = store.get_run(run).unwrap();
        assert_eq!((summary.status, summary.errors, summary.steps_total), (RunStatus::Success, 1, 4), "{order:?}");
        let steps = store.get_steps(run).unwrap();
        let parents: Vec<_> =
            steps.iter().map(|step| (step.span_id.0[0], step.parent_span_id.map(|id| id.0[0]))).collect();
        assert_eq!(parents, [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(9))], "{order:?}");
    }
}
