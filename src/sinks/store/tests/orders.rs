//! Large trees with many runs that spans name, in a store of files, among other traces, and with servers that are killed in the middle of
//! what they write: where all belongs does not depend on how it came.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::fs::faulty::{End, FaultyFs, Plan};
use crate::model::id::is_foreign_run_id;
use crate::store::files::layout::Layout;
use crate::store::files::{FilesReader, FilesWriter};

const PROCESS: RunId = RunId([7; 16]);
const TRACE: TraceId = TraceId([3; 16]);

/// A span: its parent (0: none), the run that it names (0: none), what it does, and whether a log tells of it.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u8,
    named: u8,
    operation: &'static str,
    has_log: bool,
}

/// What happens behind a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    Flush(u64),
    FlushAll,
    Others,
    /// At the latest in the operation on files which is so many behind.
    Dies(u64),
}

fn run_named(nth: u8) -> RunId {
    RunId([100 + nth; 16])
}

fn record(place: usize, node: &Node) -> Record {
    let at = place as u64 * 5;
    let mut record = ended(3, place as u8 + 1, node.parent, node.operation, at, 800 - at);
    if node.named > 0 {
        record.span.set_attr(names::RUN_ID, run_named(node.named).to_string());
    }
    record
}

fn log(place: usize) -> Record {
    let mut log = Record { kind: RecordKind::Event, ..ended(3, place as u8 + 1, 0, "", 35, 35) };
    log.span.events = vec![SpanEvent { time_unix_nano: 1, name: "note".to_owned(), ..SpanEvent::default() }];
    log
}

type Homes = BTreeMap<u8, BTreeSet<u8>>;

fn homes(nodes: &[Node]) -> Homes {
    let mut homes = Homes::new();
    for (place, node) in nodes.iter().enumerate() {
        let mut of = node;
        while of.named == 0 && of.parent > 0 {
            of = &nodes[usize::from(of.parent) - 1];
        }
        homes.entry(of.named).or_default().insert(place as u8 + 1);
    }
    homes.retain(|_, spans| spans.iter().any(|span| !nodes[usize::from(*span) - 1].operation.is_empty()));
    homes
}

fn stored(layout: &Layout, nodes: &[Node]) -> Homes {
    let mut homes = Homes::new();
    let reader = FilesReader::of(layout.clone()).unwrap();
    for listed in reader.list_runs(&Query { limit: 0, ..Query::default() }).unwrap() {
        let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
        if run.summary.trace_id != TRACE {
            continue;
        }
        let run = run.summary.run_id;
        let spans = reader.get_steps(run).unwrap().iter().map(|step| step.span_id.0[0]).collect::<BTreeSet<u8>>();
        if spans.iter().any(|span| !nodes[usize::from(*span) - 1].operation.is_empty()) {
            let name = if is_foreign_run_id(run, TRACE) { 0 } else { run.0[0] - 100 };
            if let Some(other) = homes.insert(name, spans) {
                // Two of the trace's own.
                homes.insert(200, other);
            }
        }
    }
    homes
}

fn sink_on(layout: &Layout) -> StoreSink<FilesWriter> {
    StoreSink::new(FilesWriter::new(layout.clone(), PROCESS, false).with_packs_of_any(), PROCESS)
}

struct Server {
    fs: FaultyFs,
    layout: Layout,
    sink: StoreSink<FilesWriter>,
    journal: Vec<Record>,
    acknowledged: u64,
    others: u64,
}

impl Server {
    /// Takes a record, and with it what has come to it since: tells whether it lives.
    fn take(&mut self, record: Record) -> bool {
        self.journal.push(record.clone());
        self.works(|server| server.sink.take(server.journal.len() as u64, record))
    }

    fn works(&mut self, does: impl FnOnce(&mut Self) -> Result<(), crate::store::StoreError>) -> bool {
        let done = does(self);
        assert!(done.is_ok() || self.fs.is_dead(), "{done:?}");
        !self.fs.is_dead()
    }

    fn flush(&mut self, after_ms: Option<u64>, finishes: bool) -> bool {
        let lives = self.works(|server| match after_ms {
            None => server.sink.flush_all(),
            Some(ms) => server.sink.flush(Instant::now() + Duration::from_millis(ms)),
        });
        if lives && !self.sink.is_holding() && finishes {
            let done = self.sink.oldest_held().map_or(self.journal.len() as u64, |held| held - 1);
            if !self.works(|server| server.sink.finish_moves()) {
                return false;
            }
            self.acknowledged = self.acknowledged.max(done);
        }
        lives
    }

    fn dies(&mut self) {
        self.fs = self.fs.restart(End::Kill);
        self.layout = Layout::new_in(self.fs.shared(), "/store");
        self.sink = sink_on(&self.layout);
        let open = FilesReader::of(self.layout.clone()).unwrap().left_by(PROCESS).unwrap();
        self.sink.take_up(&open).unwrap();
        self.sink.hear_of_others().unwrap();
        self.sink.write_again_up_to(self.journal.len() as u64);
        self.sink.take_from_outside(SILENCE);
        for again in self.acknowledged as usize..self.journal.len() {
            self.sink.take(again as u64 + 1, self.journal[again].clone()).unwrap();
        }
    }

    fn others(&mut self) {
        for _ in 0..12 {
            self.others += 1;
            for (span, parent, operation) in [(1, 0, "invoke_agent"), (2, 1, "chat")] {
                let mut record = ended(9, span, parent, operation, 0, 9);
                record.span.trace_id[..8].copy_from_slice(&self.others.to_be_bytes());
                self.take(record);
            }
        }
    }
}

/// Brings the spans, and behind them logs, by their places in an order of them all.
fn brought(nodes: &[Node], steps: &[(usize, Then, bool)]) -> Layout {
    let mut all: Vec<Record> = nodes.iter().enumerate().map(|(place, node)| record(place, node)).collect();
    all.extend(nodes.iter().enumerate().filter(|(_, node)| node.has_log).map(|(place, _)| log(place)));
    let fs = FaultyFs::new(1);
    let layout = Layout::new_in(fs.shared(), "/store");
    layout.open_or_create().unwrap();
    let mut sink = sink_on(&layout);
    sink.take_from_outside(SILENCE);
    let mut server = Server { fs, layout, sink, journal: Vec::new(), acknowledged: 0, others: 0 };
    for (place, then, finishes) in steps {
        if let Then::Dies(at) = then {
            server.fs.plan(Plan { crash_at: Some(server.fs.count() + at), ..Plan::default() });
        }
        let lives = server.take(all[*place].clone());
        match then {
            Then::Nothing => continue,
            Then::Flush(ms) => drop(server.flush(Some(*ms), *finishes)),
            Then::FlushAll => drop(server.flush(None, *finishes)),
            Then::Others => {
                server.others();
                server.flush(Some(1_000), *finishes);
            }
            Then::Dies(_) => {
                if lives && server.flush(Some(0), *finishes) {
                    server.flush(Some(1_000), *finishes);
                }
                server.dies();
                server.flush(Some(0), *finishes);
            }
        }
    }
    for _ in 0..3 {
        server.flush(Some(3_000), true);
    }
    for _ in 0..2 {
        server.sink.close_all(|| Ok(())).unwrap();
        server.sink.finish_moves().unwrap();
    }
    server.layout
}

fn then(word: u8) -> Then {
    match word {
        0..=3 => Then::Nothing,
        4 | 5 => Then::Flush(0),
        6 | 7 => Then::Flush(1_000),
        8 => Then::Flush(11_000),
        9 => Then::FlushAll,
        10 | 11 => Then::Others,
        _ => Then::Dies(2 + u64::from(word - 12) * 3),
    }
}

prop_compose! {
    fn trees()(parts in prop::collection::vec((0u8..6, 0u8..24, 0u8..5, 0u8..6), 1..30), logs in any::<bool>()) -> Vec<Node> {
        parts.into_iter().enumerate().map(|(place, (parent, named, operation, log))| Node {
            parent: if place == 0 { 0 } else { (place as u8).saturating_sub(parent).max(1) },
            named: if place == 0 { named.min(1) } else if named < 8 { named } else { 0 },
            operation: ["", "chat", "invoke_agent", "execute_tool", "chat"][usize::from(operation)],
            has_log: logs && log == 0,
        }).collect()
    }
}

prop_compose! {
    fn schedules()(nodes in trees())
        (order in Just((0..nodes.len() + nodes.iter().filter(|node| node.has_log).count()).collect::<Vec<usize>>()).prop_shuffle(),
         words in prop::collection::vec((0u8..32, any::<bool>()), nodes.len() * 2), all_finish in any::<bool>(), nodes in Just(nodes))
        -> (Vec<Node>, Vec<(usize, Then, bool)>)
    {
        let steps = order.into_iter().zip(words).map(|(place, (word, finishes))| (place, then(word), finishes || all_finish));
        let steps = steps.collect();
        (nodes, steps)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn large_trees_are_where_they_belong((nodes, steps) in schedules()) {
        let layout = brought(&nodes, &steps);
        prop_assert_eq!(stored(&layout, &nodes), homes(&nodes));
    }
}

/// One that a process left in the middle of a move, when the next one learned in one go where it and what is above it belong.
#[test]
fn what_is_below_a_span_that_moves_on_goes_with_it() {
    let node = |parent, named, operation| Node { parent, named, operation, has_log: false };
    let nodes = [
        node(0, 1, "invoke_agent"),
        node(1, 5, "invoke_agent"),
        node(2, 0, "chat"),
        node(3, 0, ""),
        node(4, 0, "chat"),
        node(3, 0, "invoke_agent"),
    ];
    let then = [Then::Nothing, Then::Nothing, Then::Nothing, Then::Dies(8), Then::Flush(0), Then::Dies(14)];
    // In which order it goes over the runs is not the same each time.
    for ops in (6..40).flat_map(|ops| [ops; 3]) {
        let turn = |(place, then): (usize, Then)| match then {
            Then::Dies(14) => (place, Then::Dies(ops), true),
            then => (place, then, true),
        };
        let steps: Vec<_> = [4, 2, 0, 1, 3, 5].into_iter().zip(then).map(turn).collect();
        assert_eq!(stored(&brought(&nodes, &steps), &nodes), homes(&nodes), "dies in operation {ops}");
    }
}

fn begun() -> (FaultyFs, Layout, StoreSink<FilesWriter>) {
    let fs = FaultyFs::new(1);
    let layout = Layout::new_in(fs.shared(), "/store");
    layout.open_or_create().unwrap();
    let mut sink = sink_on(&layout);
    sink.take_from_outside(SILENCE);
    (fs, layout, sink)
}

/// Takes up what another has left: what is open, as a server does.
fn goes_on(fs: &FaultyFs) -> (Layout, StoreSink<FilesWriter>) {
    let layout = Layout::new_in(fs.shared(), "/store");
    let mut sink = sink_on(&layout);
    sink.take_up(&FilesReader::of(layout.clone()).unwrap().left_by(PROCESS).unwrap()).unwrap();
    sink.hear_of_others().unwrap();
    sink.take_from_outside(SILENCE);
    (layout, sink)
}

const CALL_AND_ITS_AGENT: [Node; 3] = [
    Node { parent: 0, named: 1, operation: "invoke_agent", has_log: false },
    Node { parent: 1, named: 0, operation: "chat", has_log: false },
    Node { parent: 2, named: 0, operation: "execute_tool", has_log: false },
];

/// What is acknowledged is on the disk; that alone says to which run it belongs, and that is not acknowledged yet.
#[test]
fn a_step_that_moves_when_all_is_closed_outlives_a_loss_of_power() {
    let nodes = CALL_AND_ITS_AGENT;
    for at in 1..320 {
        let (fs, _, mut sink) = begun();
        sink.take(1, record(1, &nodes[1])).unwrap();
        sink.take(2, record(2, &nodes[2])).unwrap();
        sink.flush_all().unwrap();
        fs.bring_to_disk();
        fs.plan(Plan { crash_at: Some(fs.count() + at), ..Plan::default() });
        let closed = sink.take(3, record(0, &nodes[0])).and_then(|()| {
            sink.close_all(|| {
                fs.bring_to_disk();
                Ok(())
            })
        });
        assert!(closed.is_ok() || fs.is_dead(), "{closed:?}");
        let fs = fs.restart(End::PowerLossInDisorder);
        let (layout, mut sink) = goes_on(&fs);
        sink.take(3, record(0, &nodes[0])).unwrap();
        sink.close_all(|| Ok(())).unwrap();
        // Half of the one that was about to go may be there again.
        let steps = FilesReader::of(layout).unwrap().get_steps(run_named(1)).unwrap();
        assert_eq!(steps.len(), nodes.len(), "dies in operation {at}");
    }
}

/// Nothing in the journal leads to steps of which a server learns at its start that they are in two runs: the run that they
/// leave is not over before they have.
#[test]
fn steps_found_in_two_runs_leave_one_of_them_however_often_the_server_is_killed() {
    for (is_first_over, kills) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let nodes = CALL_AND_ITS_AGENT;
        let (fs, _, mut sink) = begun();
        for (seq, place) in [(1, 1), (2, 2), (3, 0)] {
            // One of the runs is under way.
            let kind = if is_first_over && place == 0 { RecordKind::Started } else { RecordKind::Ended };
            sink.take(seq, Record { kind, ..record(place, &nodes[place]) }).unwrap();
            sink.flush_all().unwrap();
        }
        assert!(sink.has_moves());
        if is_first_over {
            // Who left them so knew nothing of their being in two.
            sink.moves.clear();
            sink.end_silent(|live| live.state.run_id() != run_named(1));
            sink.flush_all().unwrap();
        }
        let mut fs = fs.restart(End::Kill);
        for _ in 0..kills {
            let (_, mut sink) = goes_on(&fs);
            sink.flush(Instant::now() + 2 * SILENCE).unwrap();
            sink.flush(Instant::now() + 2 * SILENCE + Duration::from_secs(1)).unwrap();
            fs = fs.restart(End::Kill);
        }
        let (layout, mut sink) = goes_on(&fs);
        sink.flush_all().unwrap();
        sink.finish_moves().unwrap();
        sink.flush_all().unwrap();
        assert_eq!(stored(&layout, &nodes), homes(&nodes), "first over {is_first_over}, {kills} kills");
    }
}

/// The runs that are listed, and which of them are pinned.
fn pins(layout: &Layout) -> Vec<(RunId, bool)> {
    let listed = FilesReader::of(layout.clone()).unwrap().list_runs(&Query::default()).unwrap();
    let pins = listed.iter().map(|listed| match listed {
        Listed::Run(run) => (run.summary.run_id, run.summary.pinned),
        Listed::Damaged(run) => panic!("damaged: {run:?}"),
    });
    let mut pins: Vec<_> = pins.collect();
    pins.sort_unstable();
    pins
}

/// Something plain, which stays where the steps were.
const PLAIN: Node = Node { parent: 0, named: 0, operation: "", has_log: false };

fn take_in(sink: &mut StoreSink<FilesWriter>, nodes: &[Node], from: u64, places: &[usize]) {
    for (seq, place) in (from..).zip(places) {
        sink.take(seq, record(*place, &nodes[*place])).unwrap();
    }
    sink.flush_all().unwrap();
    sink.finish_moves().unwrap();
    sink.flush_all().unwrap();
}

/// Whoever pinned a run wants its steps kept, whichever run turns out to have them.
#[test]
fn a_run_that_has_the_steps_of_a_pinned_one_is_pinned() {
    use crate::store::files::cleanup::set_pinned;
    for goes_whole in [true, false] {
        let nodes = [&CALL_AND_ITS_AGENT[..], &[PLAIN]].concat();
        let (_, layout, mut sink) = begun();
        take_in(&mut sink, &nodes, 1, if goes_whole { &[1, 2] } else { &[1, 2, 3] });
        let own = *sink.runs.keys().next().unwrap();
        set_pinned(&layout, own, true).unwrap();
        take_in(&mut sink, &nodes, 8, &[0]);
        let mut left = vec![(run_named(1), true)];
        left.extend((!goes_whole).then_some((own, false)));
        left.sort_unstable();
        assert_eq!(pins(&layout), left, "goes whole: {goes_whole}");
        sink.delete_left(None).unwrap();
        assert_eq!(pins(&layout), [(run_named(1), true)], "goes whole: {goes_whole}");
    }
}

#[test]
fn each_run_that_has_steps_of_a_pinned_one_is_pinned() {
    use crate::store::files::cleanup::set_pinned;
    let second = [
        Node { parent: 0, named: 2, operation: "invoke_agent", has_log: false },
        Node { parent: 4, named: 0, operation: "chat", has_log: false },
    ];
    let nodes = [&CALL_AND_ITS_AGENT[..], &second].concat();
    let (_, layout, mut sink) = begun();
    take_in(&mut sink, &nodes, 1, &[1, 2, 4]);
    let own = *sink.runs.keys().next().unwrap();
    set_pinned(&layout, own, true).unwrap();
    take_in(&mut sink, &nodes, 8, &[0]);
    take_in(&mut sink, &nodes, 9, &[3]);
    assert_eq!(pins(&layout), [(run_named(1), true), (run_named(2), true)]);
}

/// It was set on what was left by then.
#[test]
fn a_pin_set_on_what_is_left_stays_when_more_of_it_leaves() {
    use crate::store::files::cleanup::set_pinned;
    let later = [
        Node { parent: 0, named: 2, operation: "invoke_agent", has_log: false },
        Node { parent: 5, named: 0, operation: "", has_log: false },
    ];
    let nodes = [&CALL_AND_ITS_AGENT[..], &[PLAIN], &later].concat();
    let (_, layout, mut sink) = begun();
    take_in(&mut sink, &nodes, 1, &[1, 2, 3, 5]);
    let own = *sink.runs.keys().next().unwrap();
    take_in(&mut sink, &nodes, 8, &[0]);
    set_pinned(&layout, own, true).unwrap();
    take_in(&mut sink, &nodes, 9, &[4]);
    sink.delete_left(None).unwrap();
    let mut left = vec![(run_named(1), false), (run_named(2), true), (own, true)];
    left.sort_unstable();
    assert_eq!(pins(&layout), left);
}

#[test]
fn what_is_left_of_a_run_is_not_forgotten_before_it_is_deleted() {
    let nodes = [&CALL_AND_ITS_AGENT[..], &[PLAIN]].concat();
    let (_, layout, mut sink) = begun();
    take_in(&mut sink, &nodes, 1, &[1, 2, 3]);
    take_in(&mut sink, &nodes, 8, &[0]);
    sink.forget_finished(Instant::now() + 2 * LATE);
    sink.delete_left(None).unwrap();
    assert_eq!(pins(&layout), [(run_named(1), false)]);
}

#[test]
fn what_is_left_of_a_run_stays_where_it_is_pinned_and_goes_with_the_server_else() {
    use crate::store::files::cleanup::set_pinned;
    let nodes = [&CALL_AND_ITS_AGENT[..], &[PLAIN]].concat();
    for is_pinned in [true, false] {
        let (_, layout, mut sink) = begun();
        take_in(&mut sink, &nodes, 1, &[1, 2, 3]);
        let own = *sink.runs.keys().next().unwrap();
        take_in(&mut sink, &nodes, 8, &[0]);
        set_pinned(&layout, own, is_pinned).unwrap();
        sink.close_all(|| Ok(())).unwrap();
        let mut left = vec![(run_named(1), false)];
        left.extend(is_pinned.then_some((own, true)));
        left.sort_unstable();
        assert_eq!(pins(&layout), left);
    }
}
