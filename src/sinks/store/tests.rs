use super::*;
use crate::conventions::names;
use crate::model::otlp::{KeyValue, Span, SpanEvent, Value};
use crate::model::outcome::Outcome;
use crate::model::record::{Record, RecordKind};
use crate::model::{EventId, RunKind};
use crate::store::memory::MemoryStore;
use crate::store::{Listed, Query, RunReader};
use proptest::prelude::*;
use std::sync::Arc;

/// A span of a generated trace: its parent's place, and what it is.
#[derive(Clone, Debug)]
struct Node {
    parent: Option<usize>,
    kind: u8,
}

fn traces() -> impl Strategy<Value = Vec<Vec<Node>>> {
    let node = (0usize..1000, 0u8..4);
    let trace = prop::collection::vec(node, 1..12).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate();
        nodes
            .map(|(place, (above, kind))| Node { parent: (place > 0).then(|| above % place.max(1)), kind })
            .collect::<Vec<_>>()
    });
    prop::collection::vec(trace, 1..5)
}

fn record(trace: usize, place: usize, node: &Node, kind: RecordKind) -> Record {
    let id = |place: usize| (place as u64 + 1).to_be_bytes().to_vec();
    let at = 1_767_693_600_000_000_000 + (trace * 1_000_000 + place * 1_000) as u64;
    let mut span = Span {
        trace_id: [vec![1, 2, 3, 4, 5, 6, 7], vec![trace as u8 + 1; 9]].concat(),
        span_id: id(place),
        parent_span_id: node.parent.map(id).unwrap_or_default(),
        name: "step".to_owned(),
        start_time_unix_nano: at,
        end_time_unix_nano: if kind == RecordKind::Ended { at + 500_000_000 - place as u64 } else { 0 },
        ..Span::default()
    };
    match node.kind {
        0 => {}
        1 => span.set_attr(names::OPERATION, "invoke_agent"),
        2 => span.set_attr(names::OPERATION, "execute_tool"),
        _ => {
            span.set_attr(names::OPERATION, "chat");
            span.set_attr(names::INPUT_TOKENS, 10);
            span.set_attr(names::OUTPUT_TOKENS, place as i64);
        }
    }
    if kind != RecordKind::Started {
        // What the root says, but for its lines of log, has no step.
        let name = if node.kind == 2 { names::EVENT_EVALUATION } else { "note" };
        span.events = vec![SpanEvent { time_unix_nano: at, name: name.to_owned(), ..SpanEvent::default() }];
    }
    Record { kind, resource: Arc::default(), scope: Default::default(), span }
}

/// All records as a program makes them: parents begin before and end after their children; traces interleave.
fn records(traces: &[Vec<Node>]) -> Vec<Record> {
    let of_trace = |(trace, nodes): (usize, &Vec<Node>)| {
        let starts = nodes.iter().enumerate().flat_map(move |(place, node)| {
            [RecordKind::Started, RecordKind::Event].map(|kind| record(trace, place, node, kind))
        });
        let ends = nodes.iter().enumerate().rev();
        let ends = ends.map(move |(place, node)| record(trace, place, node, RecordKind::Ended));
        starts.chain(ends).collect::<Vec<_>>().into_iter()
    };
    let mut queues: Vec<_> = traces.iter().enumerate().map(of_trace).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(queues.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// What a reader sees: each run's summary and its events, without what depends on the moment of writing.
fn seen(store: &MemoryStore) -> Vec<String> {
    let listed = store.list_runs(&Query::default()).unwrap();
    listed
        .into_iter()
        .flat_map(|listed| {
            let Listed::Run(run) = listed else { panic!("damaged") };
            let summary = RunSummary { updated_at: UnixNanos::default(), events: 0, ..run.summary };
            let events = store.get_events(summary.run_id, 0).unwrap();
            let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
            assert_eq!(seqs, (0..events.len() as u64).collect::<Vec<_>>(), "no gap");
            let ids: HashSet<EventId> = events.iter().map(|event| event.event_id).collect();
            assert_eq!(ids.len(), events.len(), "no event twice");
            let mut lines: Vec<String> = events
                .iter()
                .map(|event| format!("{} {:?} {}", event.event_id, event.step_id, event.body.type_name()))
                .collect();
            lines.sort();
            lines.insert(0, serde_json::to_string(&summary).unwrap());
            lines
        })
        .collect()
}

#[test]
fn a_span_open_for_ever_does_not_keep_the_journal() {
    let store = MemoryStore::default();
    let mut sink = StoreSink::new(store.clone(), RunId([7; 16]));
    let plain = Node { parent: None, kind: 0 };
    let agent = Node { parent: None, kind: 1 };
    sink.take(1, record(0, 0, &plain, RecordKind::Started)).unwrap();
    assert_eq!(sink.oldest_held(), Some(1));
    let mut large = record(1, 0, &agent, RecordKind::Started);
    large.span.set_attr("text", "x".repeat(1 << 20));
    for seq in 2..40 {
        sink.take(seq, large.clone()).unwrap();
    }
    sink.flush_all().unwrap();
    assert_eq!(sink.oldest_held(), None);
    // It is still there for the first GenAI span below it, also after the store could not be written for a while.
    sink.reset().unwrap();
    sink.take(40, record(0, 1, &Node { parent: Some(0), kind: 3 }, RecordKind::Ended)).unwrap();
    sink.take(41, record(0, 0, &plain, RecordKind::Ended)).unwrap();
    sink.flush_all().unwrap();
    let steps: Vec<u64> = store
        .list_runs(&Query::default())
        .unwrap()
        .into_iter()
        .map(|listed| if let Listed::Run(run) = listed { run.summary.steps_total } else { panic!("damaged") })
        .collect();
    assert_eq!(steps.iter().copied().max(), Some(2));
    assert_eq!(sink.counts().received, 41);
}

#[test]
fn an_end_tells_the_events_that_were_not_told() {
    let node = Node { parent: None, kind: 1 };
    let event = |at: u64| SpanEvent { time_unix_nano: at, name: format!("at {at}"), ..SpanEvent::default() };
    let with = |kind: RecordKind, at: &[u64]| {
        let mut record = record(0, 0, &node, kind);
        record.span.events = at.iter().copied().map(event).collect();
        record
    };
    let lines_of = |told: &[&[u64]], end: &[u64]| {
        let store = MemoryStore::default();
        let mut sink = StoreSink::new(store.clone(), RunId([7; 16]));
        let events = told.iter().map(|at| with(RecordKind::Event, at));
        let records = [with(RecordKind::Started, &[])].into_iter().chain(events).chain([with(RecordKind::Ended, end)]);
        for (seq, record) in (1..).zip(records) {
            sink.take(seq, record).unwrap();
        }
        sink.flush_all().unwrap();
        let run = sink.runs.keys().next().copied().unwrap();
        let log = |event: Event| if let EventBody::Log(log) = event.body { Some(log.message) } else { None };
        store.get_events(run, 0).unwrap().into_iter().filter_map(log).collect::<Vec<_>>()
    };
    assert_eq!(lines_of(&[], &[5, 6]), ["at 5", "at 6"], "a source that tells them with the end");
    assert_eq!(lines_of(&[&[5], &[6]], &[5, 6]), ["at 5", "at 6"], "one that told them all");
    assert_eq!(lines_of(&[&[6]], &[5, 6]), ["at 6", "at 5"], "one whose first was left to the end");
    assert_eq!(lines_of(&[&[5], &[6]], &[5]), ["at 5", "at 6"], "one whose end has not all of them");
    assert_eq!(lines_of(&[&[5]], &[7]), ["at 5"], "another source of the span");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However often the sink dies and is told again from an earlier place, the store ends up the same, and every
    /// record is counted once.
    #[test]
    fn told_again_after_any_crash_the_store_is_the_same(
        traces in traces(),
        crashes in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0, any::<bool>()), 0..4),
    ) {
        let records = records(&traces);
        let process = RunId([7; 16]);
        let whole = MemoryStore::default();
        let mut sink = StoreSink::new(whole.clone(), process);
        for (seq, record) in (1..).zip(&records) {
            sink.take(seq, record.clone()).unwrap();
            sink.flush(Instant::now() + START_GRACE * 2).unwrap();
        }
        sink.flush_all().unwrap();
        prop_assert_eq!(sink.counts().received, records.len() as u64);

        let broken = MemoryStore::default();
        let mut sink = StoreSink::new(broken.clone(), process);
        let (mut from, mut acknowledged) = (0, 0);
        for (until, _, in_process) in &crashes {
            let until = from.max((*until * records.len() as f64) as usize);
            for (place, record) in records.iter().enumerate().take(until).skip(from) {
                sink.take(place as u64 + 1, record.clone()).unwrap();
            }
            sink.flush(Instant::now() + START_GRACE * 2).unwrap();
            acknowledged = sink.oldest_held().map_or(until as u64, |held| held - 1).max(acknowledged);
            if *in_process {
                sink.reset().unwrap();
            } else {
                // Another process takes over, with what the store says of the dead one's runs.
                let known: Vec<RunId> = sink.runs.keys().copied().collect();
                sink = StoreSink::new(broken.clone(), process);
                sink.take_up(&known).unwrap();
            }
            from = acknowledged as usize;
        }
        for (place, record) in records.iter().enumerate().skip(from) {
            sink.take(place as u64 + 1, record.clone()).unwrap();
        }
        sink.flush_all().unwrap();
        prop_assert_eq!(seen(&broken), seen(&whole));
    }
}

/// A span: its number and its parent's, its operation, from when to when in ms, and attributes.
type Spoken<'a> = (u8, u8, &'a str, u64, u64, &'a [(&'a str, &'a str)]);

/// Stores a run of spans that came ended, and returns it with a line a step.
fn stored(spans: &[Spoken<'_>]) -> (RunSummary, Vec<String>) {
    let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
    sink.take_from_outside(SILENCE);
    for (seq, (id, parent, operation, from, to, more)) in (1..).zip(spans) {
        let mut span = Span {
            trace_id: vec![3; 16],
            span_id: vec![*id; 8],
            parent_span_id: if *parent == 0 { Vec::new() } else { vec![*parent; 8] },
            name: format!("s{id}"),
            start_time_unix_nano: 1_767_693_600_000_000_000 + from * 1_000_000,
            end_time_unix_nano: 1_767_693_600_000_000_000 + to * 1_000_000,
            ..Span::default()
        };
        span.set_attr(names::OPERATION, *operation);
        for (key, value) in *more {
            span.set_attr(key, if *value == "true" { Value::Bool(true) } else { Value::from(*value) });
        }
        let record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
        sink.take(seq, record).unwrap();
    }
    sink.flush_all().unwrap();
    let store = sink.into_writer();
    let mut listed = store.list_runs(&Query::default()).unwrap();
    assert_eq!(listed.len(), 1);
    let Some(Listed::Run(run)) = listed.pop() else { panic!("damaged") };
    let steps = store.get_steps(run.summary.run_id).unwrap();
    let line = |step: &crate::model::StepView| {
        let copy = step.duplicate_of.as_ref().map(|of| format!(" copy of {of}")).unwrap_or_default();
        let agent = step.agent_id.as_ref().map(|agent| format!(" of {agent}")).unwrap_or_default();
        format!("{} {} {}{agent}{copy}", step.name, step.kind, step.status)
    };
    (run.summary, steps.iter().map(line).collect())
}

#[test]
fn a_tool_fails_with_the_step_below_it_that_bears_the_id_of_the_call() {
    let call = [(names::TOOL_NAME, "get_weather"), (names::TOOL_CALL_ID, "c-1")];
    let failed = [(names::TOOL_CALL_ID, "c-1"), (names::ERROR_TYPE, "Down")];
    let other = [(names::TOOL_CALL_ID, "c-2"), (names::ERROR_TYPE, "Down")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 20, &call),
        (3, 2, "work", 11, 19, &failed),
        (4, 1, "execute_tool", 30, 40, &[(names::TOOL_NAME, "other")]),
        (5, 4, "work", 31, 39, &other),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 tool error
    s3 task error
    s4 tool success
    s5 task error
    ");
    assert_eq!((run.status, run.errors, run.tool_calls), (RunStatus::Success, 2, 2));
}

#[test]
fn a_tool_within_one_of_its_name_is_the_same_call_unless_a_model_was_asked_in_between() {
    let tool = [(names::TOOL_NAME, "invoke")];
    let told: [Spoken<'_>; 6] = [
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 90, &tool),
        (3, 2, "work", 11, 89, &[]),
        (4, 3, "work", 12, 88, &[]),
        (5, 4, "execute_tool", 30, 40, &tool),
        // Of an agent that is a tool, and that no span is of.
        (6, 4, "chat", 20, 29, &[]),
    ];
    assert_eq!(stored(&told[..5]).0.tool_calls, 1);
    assert_eq!(stored(&told).0.tool_calls, 2);
}

#[test]
fn a_step_belongs_to_the_agent_that_it_names_else_to_that_of_the_step_above_it() {
    let agent = |name| [(names::AGENT_NAME, name)];
    let (_, steps) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 1, "invoke_agent", 10, 90, &agent("writer")),
        (3, 2, "work", 11, 89, &[]),
        (4, 3, "chat", 12, 20, &[]),
        (5, 3, "execute_tool", 21, 80, &[]),
        (6, 5, "invoke_agent", 22, 70, &agent("critic")),
        (7, 6, "chat", 23, 30, &[]),
        // It says itself whose it is.
        (8, 6, "chat", 31, 32, &agent("judge")),
        // An agent without a name is neither of those above it.
        (9, 6, "invoke_agent", 40, 60, &[]),
        (10, 9, "chat", 41, 50, &[]),
        // In a circle, and below nothing.
        (11, 12, "chat", 91, 92, &[]),
        (12, 11, "chat", 91, 92, &[]),
        (13, 99, "chat", 93, 94, &[]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 workflow success
    s2 agent success of writer
    s3 task success of writer
    s4 llm success of writer
    s5 tool success of writer
    s6 agent success of critic
    s7 llm success of critic
    s8 llm success of judge
    s9 agent success
    s10 llm success
    s12 llm success
    s11 llm success
    s13 llm success
    ");
}

#[test]
fn a_tool_call_that_two_layers_tell_is_one() {
    let named = [(names::TOOL_NAME, "get_weather")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 20, &named),
        (3, 2, "work", 11, 19, &[]),
        (4, 3, "execute_tool", 12, 18, &named),
        (5, 4, "execute_tool", 13, 17, &[(names::TOOL_NAME, "another")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 tool success
    s3 task success
    s4 tool success copy of get_weather
    s5 tool success
    ");
    assert_eq!(run.tool_calls, 2);
}

#[test]
fn a_step_that_took_no_time_reports_the_call_before_it() {
    let model = [(names::REQUEST_MODEL, "gpt-4o")];
    let used = [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, "37")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &model),
        (3, 1, "chat", 25, 25, &used),
        (4, 1, "chat", 30, 40, &model),
        (5, 1, "chat", 45, 50, &used),
        (6, 1, "chat", 60, 60, &[(names::REQUEST_MODEL, "o3"), (names::INPUT_TOKENS, "1")]),
        (7, 1, "chat", 70, 80, &[(names::REQUEST_MODEL, "o1"), (names::ERROR_TYPE, "429")]),
        (8, 1, "chat", 90, 90, &[(names::REQUEST_MODEL, "o1"), (names::INPUT_TOKENS, "1")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success copy of chat-2
    s3 llm success
    s4 llm success
    s5 llm success
    s6 llm success
    s7 llm error
    s8 llm success
    ");
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (6, Some(424)));
}

#[test]
fn of_two_layers_that_disagree_the_one_that_spoke_to_the_server_counts() {
    let tokens = |n| [(names::RESPONSE_ID, "r-1"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, n)];
    let wire = [&tokens("37")[..], &[(names::HTTP_METHOD, "POST")]].concat();
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &tokens("38")),
        (3, 1, "chat", 11, 19, &wire),
    ]);
    assert_eq!(steps[1], "s2 llm success copy of chat-2");
    assert_eq!(run.tokens.and_then(|tokens| tokens.completion), Some(37));
}

/// A span as it comes from outside: trace, span, parent, operation, from and to in ms.
fn ended(trace: u8, id: u8, parent: u8, operation: &str, from: u64, to: u64) -> Record {
    let mut span = Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: format!("s{id}"),
        start_time_unix_nano: 1_767_693_600_000_000_000 + from * 1_000_000,
        end_time_unix_nano: 1_767_693_600_000_000_000 + to * 1_000_000,
        ..Span::default()
    };
    if !operation.is_empty() {
        span.set_attr(names::OPERATION, operation);
    }
    Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span }
}

fn outside_sink() -> StoreSink<MemoryStore> {
    let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
    sink.take_from_outside(SILENCE);
    sink
}

fn listed(sink: StoreSink<MemoryStore>) -> Vec<RunSummary> {
    let run = |listed| match listed {
        Listed::Run(run) => run.summary,
        Listed::Damaged(run) => panic!("damaged: {run:?}"),
    };
    sink.into_writer().list_runs(&Query::default()).unwrap().into_iter().map(run).collect()
}

/// A run whose spans come one after the other without a pause.
#[test]
fn a_run_whose_spans_never_cease_is_written_when_enough_of_them_wait() {
    let written = |sink: &StoreSink<MemoryStore>| {
        let is_waiting = |live: &LiveRun| (!live.unsorted.is_empty(), live.written_status.is_some());
        sink.runs.values().map(is_waiting).collect::<Vec<_>>()
    };
    let span = |seq: u64, bytes: usize| {
        let mut record = ended(1, 1, 0, "chat", 0, 1);
        record.span.span_id = (seq + 1).to_be_bytes().to_vec();
        record.span.set_attr("long", "x".repeat(bytes));
        record
    };
    let flushed = |records: u64, bytes: usize, age: Duration| {
        let mut sink = outside_sink();
        let now = Instant::now();
        (0..records).for_each(|seq| sink.take(seq, span(seq, bytes)).unwrap());
        // The last one came just now, by this clock.
        sink.runs.values_mut().for_each(|live| live.touched = now + age);
        sink.flush(now + age).unwrap();
        (written(&sink), sink.oldest_held().is_some())
    };
    let waits = (vec![(true, false)], true);
    let is_told = (vec![(false, true)], false);
    assert_eq!(flushed(2, 10, Duration::ZERO), waits);
    assert_eq!(flushed(2, 10, UNSORTED_AGE * 2), is_told);
    assert_eq!(flushed(2, UNSORTED_BYTES as usize, Duration::ZERO), is_told);
    assert_eq!(flushed(UNSORTED_RECORDS as u64, 0, Duration::ZERO), is_told);
}

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

#[test]
fn what_went_into_a_step_stands_beside_its_start_once_and_whole_in_its_end() {
    let mut sink = outside_sink();
    let mut call = ended(3, 1, 0, "chat", 0, 100);
    call.span.set_attr(names::INPUT_MESSAGES, "the prompt");
    sink.take(1, call).unwrap();
    sink.flush_all().unwrap();
    let run = sink.runs.keys().copied().next().unwrap();
    let events = sink.written_events(run).unwrap();
    let lines = events.iter().filter(|event| event.step_id.is_some()).map(|event| {
        let mut line = Vec::new();
        event.write_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let attributes = line["data"]["span"]["attributes"].as_array().unwrap();
        let keys: Vec<&str> = attributes.iter().filter_map(|attribute| attribute["key"].as_str()).collect();
        let [input, messages] = ["input", "messages"].map(|part| line["data"][part].as_str().unwrap_or("none"));
        format!("{}: input {input}, messages {messages}, attributes {}", line["type"], keys.join(" "))
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    "step_started": input the prompt, messages none, attributes gen_ai.operation.name
    "llm_called": input none, messages the prompt, attributes gen_ai.operation.name gen_ai.input.messages
    "#);
}

#[test]
fn a_span_that_comes_long_after_its_run_was_over_is_a_step_of_it() {
    let mut sink = outside_sink();
    sink.take(1, ended(3, 1, 0, "invoke_agent", 0, 100)).unwrap();
    sink.flush(Instant::now()).unwrap();
    // Long enough for everything to be let go of.
    sink.flush(Instant::now() + 3 * LATE).unwrap();
    assert!(sink.traces.is_empty() && sink.runs.is_empty());
    sink.take(2, ended(3, 2, 1, "chat", 10, 20)).unwrap();
    sink.flush_all().unwrap();
    let runs = listed(sink);
    assert_eq!(runs.iter().map(|run| (run.steps_total, run.llm_calls)).collect::<Vec<_>>(), [(2, 1)]);
}

#[test]
fn of_runs_that_are_over_little_is_held_however_fast_they_come() {
    let mut sink = outside_sink();
    for trace in 1..=100 {
        sink.take(trace.into(), ended(trace, 1, 0, "invoke_agent", 0, 100)).unwrap();
    }
    sink.flush_all().unwrap();
    assert_eq!((sink.traces.len(), sink.runs.len()), (FINISHED_AT_HAND, FINISHED_AT_HAND));
    for trace in 1..=100 {
        sink.take(100 + u64::from(trace), ended(trace, 2, 1, "chat", 10, 20)).unwrap();
    }
    sink.flush_all().unwrap();
    assert_eq!(sink.traces.len(), FINISHED_AT_HAND);
    let runs = listed(sink);
    assert_eq!((runs.len(), runs.iter().map(|run| run.steps_total).sum::<u64>()), (100, 200));
}

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
fn a_root_that_comes_after_its_run_was_given_up_settles_it_after_all() {
    let mut sink = outside_sink();
    sink.take(1, ended(3, 2, 1, "chat", 10, 20)).unwrap();
    sink.flush(Instant::now() + 2 * SILENCE).unwrap();
    sink.take(2, ended(3, 1, 0, "invoke_agent", 0, 100)).unwrap();
    sink.flush_all().unwrap();
    let late = listed(sink);
    let mut sink = outside_sink();
    sink.take(1, ended(3, 1, 0, "invoke_agent", 0, 100)).unwrap();
    sink.take(2, ended(3, 2, 1, "chat", 10, 20)).unwrap();
    sink.flush_all().unwrap();
    let same = |runs: Vec<RunSummary>| {
        let RunSummary { status, steps_total, duration_ms, agent_id, events, .. } = runs.into_iter().next().unwrap();
        (status, steps_total, duration_ms, agent_id, events)
    };
    assert_eq!(same(late), same(listed(sink)));
}

#[test]
fn a_trace_without_genai_is_a_run_where_the_store_records_all() {
    let runs = |recorded| {
        let mut sink = outside_sink().recording(recorded);
        let mut log = ended(2, 1, 0, "", 0, 0);
        log.kind = RecordKind::Event;
        let child_first = [ended(1, 2, 1, "", 10, 20), log, ended(1, 1, 0, "", 0, 30)];
        (1..).zip(child_first).for_each(|(seq, record)| sink.take(seq, record).unwrap());
        sink.flush_all().unwrap();
        let told = |run: RunSummary| (run.kind, run.status, run.duration_ms, run.steps_total);
        listed(sink).into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(runs(Recorded::GenAi), []);
    assert_eq!(runs(Recorded::All), [(RunKind::Workflow, RunStatus::Success, Some(30), 2)]);
}

#[test]
fn a_workflow_has_its_totals_from_the_start_and_an_agent_has_none() {
    let totals = |operation| {
        let mut sink = outside_sink();
        sink.take(1, ended(1, 2, 1, operation, 0, 1)).unwrap();
        sink.flush_all().unwrap();
        let run = serde_json::to_value(listed(sink).swap_remove(0)).unwrap();
        ["total_duration_ms", "total_cost_usd"].map(|key| run.get(key).map(ToString::to_string))
    };
    assert_eq!(totals("chat"), [Some("null".to_owned()), Some("null".to_owned())]);
    assert_eq!(totals("invoke_agent"), [None, None]);
}

#[test]
fn a_log_whose_span_does_not_come_stands_for_itself() {
    let mut sink = outside_sink();
    let told = |seq: u8, name: &str, more: &[(&str, &str)]| {
        let mut record = ended(3, seq, 0, "", 0, 0);
        let mut event = SpanEvent {
            time_unix_nano: record.span.start_time_unix_nano,
            name: name.to_owned(),
            ..SpanEvent::default()
        };
        let mut facts = Span::default();
        facts.set_attr("conversation.id", "c-1");
        more.iter().for_each(|(key, value)| facts.set_attr(key, *value));
        event.attributes = facts.attributes;
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let used = [("event.kind", "response.completed"), ("input_token_count", "211"), ("model", "gpt-4o")];
    sink.take(1, told(1, "codex.conversation_starts", &[])).unwrap();
    sink.take(2, told(2, "codex.sse_event", &used)).unwrap();
    sink.take(3, told(3, "codex.user_prompt", &[])).unwrap();
    sink.flush(Instant::now()).unwrap();
    assert!(sink.runs.is_empty());
    sink.flush(Instant::now() + 2 * LATE).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(sink.counts().total(Outcome::NotKept), 1);
    let runs = listed(sink);
    assert_eq!((runs.len(), runs[0].name(), runs[0].llm_calls), (1, "codex", 1));
    assert_eq!(runs[0].tokens.and_then(|tokens| tokens.prompt), Some(211));
}

/// A step that a log alone tells, of conversation `c-1`.
fn of_log(id: i64, name: &str) -> Record {
    let mut facts = Span::default();
    facts.set_attr("conversation.id", "c-1");
    facts.set_attr("event.kind", "response.completed");
    facts.set_attr("input_token_count", id);
    let end = 1_767_693_600_000_000_000;
    let span = crate::sources::log_step::step_of(name.to_owned(), end, facts.attributes).unwrap();
    let mut record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
    crate::pipeline::normalize::normalize(&mut record);
    record
}

#[test]
fn what_logs_tell_beside_the_spans_of_a_conversation_is_not_told_twice() {
    let of_span = || {
        let mut record = ended(3, 2, 0, "invoke_agent", 0, 9);
        record.span.set_attr(names::CONVERSATION_ID, "c-1");
        record
    };
    let placed = || {
        let mut record = ended(4, 3, 0, "", 0, 0);
        let mut facts = Span::default();
        facts.set_attr("conversation.id", "c-1");
        let event =
            SpanEvent { name: "codex.api_request".to_owned(), attributes: facts.attributes, ..SpanEvent::default() };
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let call = || of_log(211, "codex.sse_event");
    // After how long what is stored: calls of models, by logs and by spans, and what is not kept.
    let told = |records: Vec<Record>, after: Duration| {
        let mut sink = outside_sink();
        let now = Instant::now();
        for (seq, record) in (1..).zip(records) {
            sink.take(seq, record).unwrap();
        }
        sink.flush(now + after).unwrap();
        let stored: u64 = sink.counts().total(Outcome::Stored);
        let left_out: u64 = sink.counts().total(Outcome::NotKept);
        (stored, left_out)
    };
    let (short, long) = (Duration::from_secs(7), LATE * 2);
    assert_eq!(told(vec![call()], Duration::ZERO), (0, 0));
    assert_eq!(told(vec![call()], short), (1, 0));
    // In any order.
    assert_eq!(told(vec![call(), of_span()], short), (1, 1));
    assert_eq!(told(vec![of_span(), call()], short), (1, 1));
    // Spans are on their way, and do not come.
    assert_eq!(told(vec![placed(), call()], short), (0, 0));
    assert_eq!(told(vec![placed(), call()], long), (1, 1));
    // In a run that is there already, as that of `exec`, too.
    let in_run = |mut record: Record| {
        record.span.set_attr(names::RUN_ID, RunId::from_parts(1_767_693_600_000, [9; 10]).to_string());
        record
    };
    assert_eq!(
        told(vec![in_run(ended(5, 5, 0, "invoke_workflow", 0, 9)), in_run(call()), in_run(of_span())], short),
        (2, 1)
    );
    // Spans of another time of the conversation tell nothing of it: what was not sampled, or sent no spans, is told by logs alone.
    let of_another_time = || {
        let mut record = ended(3, 2, 0, "invoke_agent", 5_000, 9_000);
        record.span.set_attr(names::CONVERSATION_ID, "c-1");
        record
    };
    assert_eq!(told(vec![of_another_time(), call()], short), (2, 0));
    // The end of the process is as good as a wait, whatever is on its way.
    let mut sink = outside_sink();
    sink.take(1, placed()).unwrap();
    sink.take(2, call()).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(listed(sink).iter().map(|run| run.llm_calls).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_call_that_names_no_model_has_that_of_the_layer_around_it() {
    let mut sink = outside_sink();
    let mut inner = ended(3, 4, 3, "chat", 3, 4);
    inner.span.set_attr(names::INPUT_TOKENS, 211);
    inner.span.set_attr(names::OUTPUT_TOKENS, 37);
    let mut outer = ended(3, 2, 1, "chat", 2, 5);
    outer.span.set_attr(names::REQUEST_MODEL, "gpt-5-mini");
    sink.take(1, inner).unwrap();
    sink.take(2, ended(3, 3, 2, "receive", 2, 5)).unwrap();
    sink.take(3, outer).unwrap();
    sink.take(4, ended(3, 1, 0, "invoke_agent", 0, 9)).unwrap();
    sink.flush_all().unwrap();
    let runs = listed(sink);
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(211)));
    assert_eq!(run.cost_usd.map(|cost| cost.0), Some(211 * 250 + 37 * 2_000));
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
        sink.close_all().unwrap();
        let store = sink.into_writer();
        let summary = store.get_run(run).unwrap();
        assert_eq!((summary.status, summary.errors, summary.steps_total), (RunStatus::Success, 1, 4), "{order:?}");
        let steps = store.get_steps(run).unwrap();
        let parents: Vec<_> =
            steps.iter().map(|step| (step.span_id.0[0], step.parent_span_id.map(|id| id.0[0]))).collect();
        assert_eq!(parents, [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(9))], "{order:?}");
    }
}

#[test]
fn a_call_that_was_seen_on_its_way_is_that_of_the_program_in_whose_time_it_began() {
    const MODEL: (&str, &str) = (names::REQUEST_MODEL, "m");
    const RELAYED: (&str, &str) = (names::RELAYED, "true");
    let (run, steps) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 9, "chat", 0, 50, &[MODEL]),
        (3, 9, "chat", 10, 60, &[MODEL]),
        // Tried again by the program's SDK.
        (4, 1, "chat", 12, 20, &[MODEL, RELAYED, (names::ERROR_TYPE, "429"), (names::STEP_STATUS, "error")]),
        (5, 1, "chat", 22, 40, &[MODEL, RELAYED, (names::RESPONSE_ID, "a")]),
        (6, 1, "chat", 25, 45, &[MODEL, RELAYED, (names::RESPONSE_ID, "b")]),
        // Of no step of the program: another model, another time, another answer.
        (7, 1, "chat", 25, 45, &[(names::REQUEST_MODEL, "n"), RELAYED]),
        (8, 1, "chat", 61, 62, &[MODEL, RELAYED]),
        (10, 9, "chat", 70, 90, &[MODEL, (names::RESPONSE_ID, "c")]),
        (11, 1, "chat", 75, 80, &[MODEL, RELAYED, (names::RESPONSE_ID, "d")]),
    ]);
    assert_eq!((run.llm_calls, run.errors), (6, 0));
    insta::assert_snapshot!(steps.join("\n"), @r"
    s1 workflow success
    s2 llm success
    s3 llm success
    s4 llm error copy of chat-2
    s5 llm success copy of chat-2
    s6 llm success copy of chat
    s7 llm success
    s8 llm success
    s10 llm success
    s11 llm success
    ");
}

/// A server whose store fails begins again from its journal: what waits for a pack then is told once more.
#[test]
fn runs_that_wait_for_a_pack_are_told_again_and_come_into_one_however_often_the_store_fails() {
    use crate::fs::faulty::{FaultyFs, Plan};
    use crate::store::files::layout::Layout;
    use crate::store::files::{FilesReader, FilesWriter};
    let fs = FaultyFs::new(1);
    let layout = Layout::new_in(fs.shared(), "/store");
    layout.open_or_create().unwrap();
    let process = RunId([7; 16]);
    let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), process, false).with_packs(), process);
    sink.take_from_outside(SILENCE);
    let tell = |sink: &mut StoreSink<FilesWriter>| {
        (1..=40).try_for_each(|n| sink.take(n.into(), ended(n, 1, 0, "chat", 0, 1)))?;
        sink.flush_all()
    };
    for _ in 0..3 {
        fs.plan(Plan { full: fs.count()..u64::MAX, ..Plan::default() });
        assert!(tell(&mut sink).is_err());
        sink.reset().unwrap();
    }
    fs.plan(Plan::default());
    tell(&mut sink).unwrap();
    let in_folders: usize = RunKind::ALL.iter().map(|kind| fs.shared().list(&layout.runs(*kind)).unwrap().len()).sum();
    let runs = FilesReader::of(layout.clone()).unwrap().stored_runs().unwrap();
    assert_eq!((runs.len(), in_folders), (40, 0));
}

/// What others have ended is read from the log of all runs when a trace comes that nothing is known of.
#[test]
fn a_log_of_all_runs_that_cannot_be_read_keeps_no_span_from_being_stored() {
    use crate::fs::faulty::{FaultyFs, Op};
    use crate::store::files::layout::Layout;
    use crate::store::files::{FilesReader, FilesWriter};
    let fs = FaultyFs::new(1);
    let layout = Layout::new_in(fs.shared(), "/store");
    layout.open_or_create().unwrap();
    let sink_of = |process: u8| {
        let writer = FilesWriter::new(layout.clone(), RunId([process; 16]), false);
        let mut sink = StoreSink::new(writer, RunId([process; 16]));
        sink.take_from_outside(SILENCE);
        sink
    };
    let mut other = sink_of(8);
    other.take(1, ended(1, 1, 0, "chat", 0, 1)).unwrap();
    other.flush_all().unwrap();
    drop(other);
    let mut sink = sink_of(7);
    // That the system has no descriptors left passes, and the span is told again.
    fs.fail_next(Op::Open, libc::EMFILE);
    assert!(sink.take(1, ended(2, 1, 0, "chat", 0, 1)).unwrap_err().is_out_of_resources());
    sink.reset().unwrap();
    fs.fail_next(Op::Open, libc::EIO);
    sink.take(1, ended(2, 1, 0, "chat", 0, 1)).unwrap();
    sink.flush_all().unwrap();
    // And what could not be read then is read later: what comes late for the other's run is a step of it.
    sink.take(2, ended(3, 1, 0, "chat", 0, 1)).unwrap();
    sink.take(3, ended(1, 2, 1, "chat", 5, 6)).unwrap();
    sink.flush_all().unwrap();
    let mut steps: Vec<u64> =
        FilesReader::of(layout).unwrap().stored_runs().unwrap().iter().map(|run| run.steps_total).collect();
    steps.sort_unstable();
    assert_eq!(steps, [1, 1, 2]);
}

#[test]
fn a_call_that_two_layers_tell_beside_each_other_is_one_where_they_used_the_same() {
    let used = |n| [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, n)];
    let answered = [&used("37")[..], &[(names::RESPONSE_ID, "r-1")]].concat();
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        // LangChain, and OpenAI's client below it.
        (2, 1, "chat", 10, 20, &used("37")),
        (3, 1, "chat", 11, 19, &answered),
        // Another use, and another time.
        (4, 1, "chat", 12, 18, &used("38")),
        (5, 1, "chat", 30, 40, &used("37")),
        // Two requests of one client.
        (6, 1, "chat", 50, 60, &[&used("37")[..], &[(names::HTTP_METHOD, "POST")]].concat()),
        (7, 1, "chat", 51, 59, &[&used("37")[..], &[(names::RESPONSE_ID, "r-2")]].concat()),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success copy of chat-2
    s3 llm success
    s4 llm success
    s5 llm success
    s6 llm success
    s7 llm success
    ");
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (5, Some(1_055)));
}

#[test]
fn what_repeats_what_the_call_beside_it_used_is_not_added() {
    let used = |n| [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, n), (names::OUTPUT_TOKENS, "37")];
    // AG2: a report of each call, of one that has no span, and of what was used otherwise.
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &used("211")),
        (3, 1, "record_usage", 21, 22, &used("211")),
        (4, 1, "record_usage", 23, 24, &used("211")),
        (5, 1, "record_usage", 25, 26, &used("9")),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(431)));
    // What another agent used altogether.
    let all = [(names::INPUT_TOKENS, "220"), (names::OUTPUT_TOKENS, "74")];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 50, &[]),
        (3, 2, "invoke_agent", 11, 49, &[]),
        (4, 3, "chat", 12, 20, &used("211")),
        (5, 3, "chat", 30, 40, &used("9")),
        (6, 1, "record_usage", 51, 52, &all),
        (7, 1, "record_usage", 53, 54, &all),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (2, Some(440)));
    // Two layers tell of the call, and a report repeats it once.
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &used("211")),
        (3, 1, "chat", 11, 19, &[&used("211")[..], &[(names::RESPONSE_ID, "r-1")]].concat()),
        (4, 1, "record_usage", 21, 22, &used("211")),
        (5, 1, "record_usage", 23, 24, &used("211")),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(422)));
    // Of sums alone nobody knows whether they are of the same, and what lies around a call repeats that anyway.
    let sum = |n| [(names::TOTAL_TOKENS, n)];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &sum("100")),
        (3, 1, "record_usage", 21, 22, &sum("5000")),
    ]);
    assert_eq!(run.tokens.and_then(|tokens| tokens.total), Some(5_100));
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "work", 9, 21, &used("211")),
        (3, 2, "chat", 10, 20, &used("211")),
        (4, 1, "record_usage", 31, 32, &used("211")),
    ]);
    assert_eq!(run.tokens.and_then(|tokens| tokens.prompt), Some(211));
}

#[test]
fn who_asks_for_an_answer_again_adds_nothing_to_what_the_call_used() {
    let used = [("gen_ai.usage.input_tokens", "1000"), ("gen_ai.usage.output_tokens", "100")];
    let first = [used[0], used[1], (names::RESPONSE_ID, "a")];
    let other = [("gen_ai.usage.input_tokens", "900"), used[1], (names::RESPONSE_ID, "b")];
    let told: [Spoken<'_>; 5] = [
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 1, 2, &first),
        (3, 1, "fetch_response", 3, 4, &first),
        (4, 1, "fetch_response", 5, 6, &first),
        // Of an answer whose call nobody tells of.
        (5, 1, "fetch_response", 7, 8, &other),
    ];
    let prompt = |run: RunSummary| run.tokens.and_then(|tokens| tokens.prompt);
    assert_eq!(prompt(stored(&told[..4]).0), Some(1_000));
    assert_eq!(prompt(stored(&told).0), Some(1_900));
}

#[test]
fn a_call_that_is_around_another_and_of_which_nobody_knows_the_price_is_unpriced() {
    let used = [("gen_ai.usage.input_tokens", "1000"), ("gen_ai.usage.output_tokens", "100")];
    let priced = [used[0], used[1], (names::COST_USD, "0.5")];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &used),
        (3, 2, "execute_tool", 20, 80, &[]),
        (4, 3, "chat", 30, 40, &priced),
    ]);
    assert_eq!((run.cost_usd, run.unpriced_steps), (crate::model::NanoUsd::from_usd(0.5), 1));
}

#[test]
fn the_error_of_a_run_is_that_of_the_innermost_step_that_says_why() {
    let why = [(names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")];
    // The request below a call has failed without a word.
    let (run, _) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 1, "invoke_agent", 10, 90, &[(names::ERROR_TYPE, "Failed")]),
        (3, 2, "chat", 20, 80, &why),
        (4, 3, "work", 30, 70, &[(names::ERROR_TYPE, "")]),
    ]);
    let error = run.error.unwrap();
    assert_eq!((error.kind.as_deref(), error.message.as_deref()), (Some("Down"), Some("no more")));
    assert_eq!(error.step_id.as_deref(), Some("chat"));
}

#[test]
fn what_other_models_failed_at_inside_a_call_was_tried_and_what_it_used_is_billed() {
    let used =
        |model, prompt| [(names::REQUEST_MODEL, model), (names::INPUT_TOKENS, prompt), (names::OUTPUT_TOKENS, "5")];
    let answered = [used("claude-sonnet-4-5", "100").as_slice(), &[(names::RESPONSE_ID, "r")]].concat();
    let rejected = [used("gpt-4o-mini", "30").as_slice(), &[(names::ERROR_TYPE, "_OTHER")]].concat();
    let down = [(names::REQUEST_MODEL, "gpt-4o"), (names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")];
    // Pydantic AI's `FallbackModel`.
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &answered),
        (3, 2, "chat", 11, 20, &down),
        (4, 2, "chat", 21, 40, &rejected),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success
    s3 llm error
    s4 llm error
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Success, 3, 2));
    assert_eq!(run.tokens.unwrap().prompt, Some(130));

    // None has answered: what was asked of is one of those.
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &[(names::REQUEST_MODEL, "fallback:gpt-4o,claude"), (names::ERROR_TYPE, "Group")]),
        (3, 2, "chat", 11, 20, &down),
        (4, 2, "chat", 21, 40, &[(names::REQUEST_MODEL, "claude"), (names::ERROR_TYPE, "Down")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm error copy of chat-3
    s3 llm error
    s4 llm error
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Error, 2, 2));
}

#[test]
fn a_try_inside_a_call_of_the_same_model_is_no_other_call_and_has_failed() {
    let model = |model| (names::REQUEST_MODEL, model);
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &[model("gpt-4o"), (names::INPUT_TOKENS, "100")]),
        (3, 2, "chat", 11, 20, &[model("gpt-4o-2024-08-06"), (names::ERROR_TYPE, "Down")]),
        // A layer that tells no model.
        (4, 2, "chat", 21, 30, &[(names::ERROR_TYPE, "Down")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success
    s3 llm error copy of chat
    s4 llm error copy of chat
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Success, 1, 2));
}

#[test]
fn of_two_layers_that_tell_of_a_failure_the_one_that_says_why_counts() {
    let model = (names::REQUEST_MODEL, "m");
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &[model, (names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")]),
        // Mistral's own client.
        (3, 2, "chat", 11, 19, &[model, (names::ERROR_TYPE, "_OTHER"), (names::HTTP_METHOD, "POST")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm error
    s3 llm error copy of chat
    ");
    assert_eq!((run.llm_calls, run.errors), (1, 1));
}

#[test]
fn a_run_ends_like_its_last_call_where_the_root_says_that_all_is_well() {
    const FAILED: &[(&str, &str)] = &[(names::ERROR_TYPE, "UserError")];
    const GIVEN_UP: &[(&str, &str)] = &[(names::ERROR_TYPE, "asyncio.exceptions.CancelledError")];
    const LATE: &[(&str, &str)] = &[(names::ERROR_TYPE, "APITimeoutError")];
    let ended = |call, agent, more: &[Spoken<'static>]| {
        let mut told: Vec<Spoken<'_>> = vec![
            (1, 0, "invoke_workflow", 0, 100, &[]),
            (2, 1, "invoke_agent", 5, 50, agent),
            (3, 2, "chat", 10, 20, call),
        ];
        told.extend_from_slice(more);
        stored(&told).0.status
    };
    assert_eq!(ended(&[], &[], &[]), RunStatus::Success);
    assert_eq!(ended(FAILED, &[], &[]), RunStatus::Error);
    assert_eq!(ended(GIVEN_UP, &[], &[]), RunStatus::Cancelled);
    assert_eq!(ended(LATE, &[], &[]), RunStatus::Timeout);
    // An agent that failed without a failed call: its root knows what became of it.
    assert_eq!(ended(&[], FAILED, &[]), RunStatus::Success);
}

#[test]
fn a_failure_that_a_step_beside_the_call_tells_again_is_one() {
    let own = [(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "500 no more")];
    let told = [(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "ApiError: 500 no more")];
    let (run, _) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        // OpenLIT's LangChain and LangGraph.
        (2, 1, "invoke_agent", 10, 90, &told),
        (3, 2, "chat", 20, 80, &own),
        (7, 3, "POST", 30, 70, &[(names::ERROR_TYPE, "")]),
        (4, 1, "node", 15, 85, &told),
        // At another time, and something else.
        (5, 1, "node", 91, 92, &told),
        (6, 1, "node", 15, 85, &[(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "lost")]),
        // An agent beside it that has failed for itself.
        (8, 1, "invoke_agent", 15, 85, &told),
    ]);
    assert_eq!(run.errors, 4);
}

#[test]
fn a_plain_step_that_gives_no_reason_has_failed_for_the_call_within_its_time() {
    let down = [(names::ERROR_TYPE, "InternalServerError"), (names::ERROR_MESSAGE, "500 no more")];
    let silent = [(names::ERROR_TYPE, "ProxyException")];
    // FastAPI's own spans around LiteLLM's proxy.
    let (run, _) = stored(&[
        (1, 0, "request", 0, 100, &[(names::ERROR_TYPE, "500")]),
        (2, 1, "dependencies", 10, 19, &[]),
        (3, 2, "chat", 20, 80, &down),
        (4, 1, "endpoint", 19, 90, &silent),
        // At another time.
        (5, 1, "endpoint", 91, 92, &silent),
    ]);
    assert_eq!((run.status, run.errors), (RunStatus::Error, 2));
    let error = run.error.unwrap();
    assert_eq!((error.kind.as_deref(), error.message.as_deref()), (Some("InternalServerError"), Some("500 no more")));
}

#[test]
fn a_log_that_is_sent_again_is_told_once_also_where_its_span_never_comes() {
    let log = || {
        let mut record = ended(1, 9, 1, "", 0, 0);
        let time_unix_nano = record.span.start_time_unix_nano;
        let event = SpanEvent { time_unix_nano, name: "asked".to_owned(), ..SpanEvent::default() };
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let logs = |told: Vec<Record>, flushes: bool| {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip(told) {
            sink.take(seq, record).unwrap();
            if flushes {
                sink.flush_all().unwrap();
            }
        }
        sink.flush_all().unwrap();
        let run = sink.runs.keys().next().copied().unwrap();
        let store = sink.into_writer();
        let events = store.get_events(run, 0).unwrap();
        // A store that passes over what it has says nothing of what it was given.
        assert_eq!(store.get_run(run).unwrap().events, events.len() as u64);
        events.iter().filter(|event| event.body.type_name() == "log").count()
    };
    let agent = || ended(1, 1, 0, "invoke_agent", 0, 30);
    for flushes in [false, true] {
        assert_eq!(logs(vec![agent(), log(), log()], flushes), 1);
        assert_eq!(logs(vec![log(), agent(), log()], flushes), 1);
        assert_eq!(logs(vec![ended(1, 2, 1, "chat", 10, 20), log(), log(), agent()], flushes), 1);
    }
}
