//! Steps that come before the one that says whose they are.

use super::*;

const RUN: RunId = RunId([9; 16]);
const OTHER: RunId = RunId([8; 16]);

fn naming(run: RunId, mut record: Record) -> Record {
    record.span.set_attr(names::RUN_ID, run.to_string());
    record
}

/// A run whose root alone names it: below it something plain with a call, a tool, and an agent with a call.
fn named_by_its_root() -> Vec<Record> {
    vec![
        naming(RUN, ended(3, 1, 0, "invoke_agent", 0, 100)),
        ended(3, 2, 1, "", 10, 30),
        ended(3, 3, 2, "chat", 15, 25),
        ended(3, 4, 1, "execute_tool", 40, 50),
        ended(3, 5, 1, "invoke_agent", 60, 90),
        ended(3, 6, 5, "chat", 70, 80),
        log_of(3, 20),
        log_of(1, 5),
    ]
}

/// A log of a span at a moment.
fn log_of(span: u8, at: u64) -> Record {
    let mut log = Record { kind: RecordKind::Event, ..ended(3, span, 0, "", at, at) };
    let attributes = vec![
        KeyValue { key: names::EVENT_LEVEL.to_owned(), value: Some(Value::from("INFO").into()) },
        KeyValue { key: "a".to_owned(), value: Some(Value::from("1").into()) },
        KeyValue { key: "b".to_owned(), value: Some(Value::from("2").into()) },
    ];
    let time_unix_nano = log.span.end_time_unix_nano;
    log.span.events = vec![SpanEvent { time_unix_nano, name: "note".to_owned(), attributes, ..SpanEvent::default() }];
    log
}

/// Two runs below something plain, each named by its agent alone.
fn named_by_two_agents() -> Vec<Record> {
    vec![
        naming(RUN, ended(3, 1, 9, "invoke_agent", 0, 100)),
        ended(3, 2, 1, "chat", 15, 25),
        naming(OTHER, ended(3, 3, 9, "invoke_agent", 110, 200)),
        ended(3, 4, 3, "chat", 120, 130),
        ended(3, 5, 3, "execute_tool", 140, 150),
    ]
}

/// Tells what a store has: runs, what they count, and their steps.
fn told(sink: StoreSink<MemoryStore>) -> Vec<(RunId, RunStatus, u64, u64, Vec<String>)> {
    let store = sink.into_writer();
    let runs = store.list_runs(&Query::default()).unwrap().into_iter().map(|listed| match listed {
        Listed::Run(run) => {
            let steps = store.get_steps(run.summary.run_id).unwrap();
            let steps = steps.iter().map(|step| format!("{} {}", step.name, step.step_id)).collect();
            (run.summary.run_id, run.summary.status, run.summary.llm_calls, run.summary.events, steps)
        }
        Listed::Damaged(run) => panic!("damaged: {run:?}"),
    });
    let mut runs: Vec<_> = runs.collect();
    runs.sort();
    runs
}

/// What came of records in this order: `cuts` says behind which all is written out, `lasts` behind which that lasts, and `dies`
/// behind which the process dies and another goes on.
fn brought(all: &[Record], order: &[usize], cuts: u8, lasts: u8, dies: u8) -> StoreSink<MemoryStore> {
    let mut sink = outside_sink();
    for (turn, place) in order.iter().enumerate() {
        let seq = turn as u64 + 1;
        sink.take(seq, all[*place].clone()).unwrap();
        let is = |set: u8| set & 1 << turn != 0;
        if is(cuts) { sink.flush_all() } else { sink.flush(Instant::now()) }.unwrap();
        if is(lasts) {
            sink.finish_moves().unwrap();
        }
        let acknowledged = sink.oldest_held().map_or(seq, |held| held - 1);
        if is(dies) {
            let mut open: Vec<RunId> = sink.runs.keys().copied().collect();
            open.sort_unstable();
            let store = sink.into_writer();
            sink = StoreSink::new(store, RunId([7; 16]));
            sink.take_up(&open).unwrap();
            sink.take_from_outside(SILENCE);
            for again in acknowledged as usize..=turn {
                sink.take(again as u64 + 1, all[order[again]].clone()).unwrap();
            }
        }
    }
    sink.close_all(|| Ok(())).unwrap();
    assert!(!sink.has_moves());
    sink
}

proptest! {
    #[test]
    fn a_run_that_its_root_alone_names_is_one_in_whatever_order_it_comes(
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(), cuts: u8, lasts: u8, dies: u8,
    ) {
        let all = named_by_its_root();
        let plain = told(brought(&all, &[0, 1, 2, 3, 4, 5, 6, 7], 0, 0, 0));
        prop_assert_eq!((plain.len(), plain[0].0, plain[0].1, plain[0].2), (1, RUN, RunStatus::Success, 2));
        prop_assert_eq!(told(brought(&all, &order, cuts, lasts, dies)), plain);
    }

    #[test]
    fn steps_of_two_runs_of_a_trace_are_of_the_one_they_are_below(
        order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(), cuts: u8, lasts: u8, dies: u8,
    ) {
        let all = named_by_two_agents();
        let plain = told(brought(&all, &[0, 1, 2, 3, 4], 0, 0, 0));
        prop_assert_eq!(plain.iter().map(|run| (run.0, run.2)).collect::<Vec<_>>(), vec![(OTHER, 1), (RUN, 1)]);
        prop_assert_eq!(told(brought(&all, &order, cuts, lasts, dies)), plain);
    }
}

/// What came is stored once, whichever run has it at last.
#[test]
fn a_step_that_is_moved_is_counted_once() {
    let sink = brought(&named_by_its_root(), &[6, 7, 5, 4, 3, 2, 1, 0], 0xff, 0, 0);
    assert_eq!((sink.counts().total(Outcome::Stored), sink.counts().total(Outcome::Duplicate)), (8, 0));
}

/// A step whose parent never comes is of the run that the trace's topmost span names, and so is what another trace has of that run,
/// whichever comes first.
#[test]
fn what_waits_in_vain_is_of_the_run_that_the_topmost_span_names() {
    let root = || naming(RUN, ended(3, 1, 0, "", 0, 100));
    let lost = || ended(3, 4, 9, "chat", 40, 50);
    let plain = || naming(RUN, ended(4, 5, 0, "", 10, 20));
    let orders = [[plain(), lost(), root()], [root(), lost(), plain()], [lost(), root(), plain()]];
    for (records, dies) in orders.into_iter().flat_map(|order| [(order.clone(), false), (order, true)]) {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip(records) {
            sink.take(seq, record).unwrap();
            sink.flush_all().unwrap();
            sink.finish_moves().unwrap();
            if dies && sink.oldest_held().is_none() {
                // The next server knows of no run that is over.
                let open = sink.open_runs();
                sink = StoreSink::new(sink.into_writer(), RunId([7; 16]));
                sink.take_up(&open).unwrap();
                sink.take_from_outside(SILENCE);
            }
        }
        sink.close_all(|| Ok(())).unwrap();
        let told: Vec<_> = told(sink).into_iter().map(|run| (run.0, run.2, run.4.len())).collect();
        assert_eq!(told, [(RUN, 1, 3)]);
    }
}

/// What has come just now waits in memory for what is behind it.
#[test]
fn steps_stay_where_they_are_until_the_copies_are_written() {
    let all = named_by_its_root();
    let mut sink = outside_sink();
    sink.take(1, all[3].clone()).unwrap();
    sink.flush_all().unwrap();
    let own = *sink.runs.keys().next().unwrap();
    sink.take(2, all[0].clone()).unwrap();
    sink.flush(Instant::now()).unwrap();
    sink.finish_moves().unwrap();
    assert!(sink.has_moves() && sink.runs.contains_key(&own));
    assert_eq!(told(sink).iter().map(|run| run.0).collect::<Vec<_>>(), [own]);
}

/// Of two runs that claim steps of one, neither has the other's, though that has not lost them yet.
#[test]
fn two_topmost_spans_that_name_their_runs_have_each_its_own() {
    let calls = || [ended(3, 2, 1, "chat", 5, 10), ended(3, 4, 3, "chat", 5, 10)];
    let agents =
        || [naming(RUN, ended(3, 1, 0, "invoke_agent", 0, 20)), naming(OTHER, ended(3, 3, 0, "invoke_agent", 0, 20))];
    for (turned, together) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut sink, mut agents) = (outside_sink(), agents());
        agents[..].rotate_left(usize::from(turned));
        for (seq, record) in (1..).zip(calls().into_iter().chain(agents)) {
            sink.take(seq, record).unwrap();
            if !together || seq == 2 {
                sink.flush_all().unwrap();
            }
        }
        sink.close_all(|| Ok(())).unwrap();
        let told: Vec<_> = told(sink).into_iter().map(|run| (run.0, run.2, run.4.len())).collect();
        assert_eq!(told, [(OTHER, 1, 2), (RUN, 1, 2)], "turned {turned}, together {together}");
    }
}

/// Until the copies last, the run to which steps came is there, and what says so is not acknowledged.
#[test]
fn steps_are_in_both_runs_until_the_copies_last() {
    let all = named_by_its_root();
    let mut sink = outside_sink();
    for (seq, place) in [(1, 3), (2, 0)] {
        sink.take(seq, all[place].clone()).unwrap();
        sink.flush_all().unwrap();
    }
    assert_eq!((sink.has_moves(), sink.oldest_held(), sink.runs.len()), (true, Some(2), 2), "copied");
    sink.finish_moves().unwrap();
    sink.flush_all().unwrap();
    assert_eq!((sink.has_moves(), sink.oldest_held()), (false, None));
    assert_eq!(told(sink).len(), 1);
}

/// What waits for a parent is asked of one trace, though its run has several.
#[test]
fn steps_of_another_trace_of_the_run_stay_where_they_are() {
    let all = [
        naming(RUN, ended(3, 1, 0, "invoke_agent", 0, 300)),
        ended(3, 2, 90, "chat", 10, 20),
        naming(RUN, ended(4, 3, 0, "invoke_agent", 30, 200)),
        ended(4, 4, 3, "chat", 40, 60),
        ended(4, 6, 4, "execute_tool", 45, 50),
        ended(3, 5, 0, "invoke_agent", 210, 280),
    ];
    for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 1, 4, 3, 2, 5], [5, 0, 1, 2, 3, 4]] {
        let mut sink = outside_sink();
        for (seq, place) in (1..).zip(order) {
            sink.take(seq, all[place].clone()).unwrap();
            sink.flush_all().unwrap();
            sink.finish_moves().unwrap();
        }
        sink.close_all(|| Ok(())).unwrap();
        let mut told: Vec<_> = told(sink).into_iter().map(|run| (run.0 == RUN, run.2, run.4.len())).collect();
        told.sort_unstable();
        assert_eq!(told, [(false, 1, 2), (true, 1, 4)], "{order:?}");
    }
}

/// The trace's run is damaged, and another stands in its place: that is where all goes, over restarts too.
#[test]
fn what_waits_for_a_parent_stays_in_the_run_in_the_place_of_another() {
    use crate::store::files::layout::Layout;
    use crate::store::files::{FilesReader, FilesWriter};
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("store"));
    layout.open_or_create().unwrap();
    let process = RunId([7; 16]);
    let goes_on = |records: &[Record], taken_up: &[RunId]| {
        let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), process, false), process);
        sink.take_up(taken_up).unwrap();
        sink.take_from_outside(SILENCE);
        for (seq, record) in (1..).zip(records) {
            sink.take(seq, record.clone()).unwrap();
            sink.flush_all().unwrap();
            sink.finish_moves().unwrap();
        }
    };
    goes_on(&[ended(3, 1, 0, "invoke_agent", 0, 100)], &[]);
    let first = std::fs::read_dir(layout.runs(RunKind::Agent)).unwrap().next().unwrap().unwrap().path();
    std::fs::write(first.join("events.jsonl"), "what is this\n").unwrap();
    let damaged: RunId = first.file_name().unwrap().to_str().unwrap().parse().unwrap();
    goes_on(&[ended(3, 3, 90, "chat", 10, 20), ended(3, 4, 90, "chat", 30, 40)], &[damaged]);
    let listed = || FilesReader::of(layout.clone()).unwrap().list_runs(&Query::default()).unwrap();
    let ours = || {
        listed().into_iter().find_map(|listed| match listed {
            Listed::Run(run) if run.summary.run_id != damaged => Some((run.summary.run_id, run.summary.steps_total)),
            _ => None,
        })
    };
    let (own, steps) = ours().unwrap();
    assert_eq!(steps, 2);
    goes_on(&[ended(3, 5, 91, "chat", 50, 60)], &[own]);
    assert_eq!(ours(), Some((own, 3)));
}
