mod above;
mod copies;
mod ends;
mod homes;
mod layers;
mod links;
mod logs;
mod loops;
mod moving;
#[cfg(feature = "server")]
mod orders;

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

#[test]
fn who_made_a_span_of_a_run_at_its_bound_stays_unknown_when_the_log_is_put_in_order() {
    let mut sink = outside_sink();
    let mut cut = ended(1, 2, 1, "chat", 1, 2);
    cut.span.set_attr(names::CUT, names::CUT_RUN);
    sink.take(1, ended(1, 1, 0, "invoke_agent", 0, 3)).unwrap();
    sink.take(2, cut).unwrap();
    sink.flush_all().unwrap();
    let run = sink.runs.keys().next().copied().unwrap();
    let ends = sink.into_writer().get_events(run, 0).unwrap().into_iter().filter_map(|event| {
        let is_end = !event.body.is_step_start();
        event.body.span().filter(|_| is_end).map(|(_, resource, scope)| (resource.is_some(), scope.is_some()))
    });
    assert_eq!(ends.collect::<Vec<_>>(), [(false, false), (true, true)]);
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

/// A sender that was not answered in time sends again what it sent.
#[test]
fn what_is_told_again_of_a_run_that_is_gone_or_damaged_changes_nothing() {
    use crate::store::files::layout::Layout;
    use crate::store::files::{FilesReader, FilesWriter};
    let process = RunId([7; 16]);
    for is_gone in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), process, false), process);
        sink.take_from_outside(SILENCE);
        let spans = || [ended(1, 2, 1, "chat", 1, 2), ended(1, 1, 0, "invoke_agent", 0, 3)];
        (1..).zip(spans()).for_each(|(seq, record)| sink.take(seq, record).unwrap());
        sink.flush_all().unwrap();
        let folder = std::fs::read_dir(layout.runs(RunKind::Agent)).unwrap().next().unwrap().unwrap().path();
        if is_gone {
            std::fs::remove_dir_all(&folder).unwrap();
        } else {
            std::fs::write(
                folder.join("events.jsonl"),
                "what is this
",
            )
            .unwrap();
        }
        (3..).zip(spans()).for_each(|(seq, record)| sink.take(seq, record).unwrap());
        sink.flush_all().unwrap();
        let listed = FilesReader::of(layout.clone()).unwrap().list_runs(&Query::default()).unwrap();
        assert_eq!((listed.len(), folder.exists()), (usize::from(!is_gone), !is_gone));
        assert_eq!(sink.counts().total(Outcome::Duplicate), 2);
    }
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
