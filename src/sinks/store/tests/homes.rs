//! Where steps belong follows from what has come of their trace, and not from its order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::id::is_foreign_run_id;

const NAMED: [RunId; 2] = [RunId([8; 16]), RunId([9; 16])];
const TRACE: TraceId = TraceId([3; 16]);
/// A span that never comes.
const MISSING: u8 = 90;

/// A span: its parent (0: none), the run that it names, and what it does.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u8,
    named: Option<RunId>,
    operation: &'static str,
}

/// Makes a node of three numbers, below one of those before it.
fn node(place: usize, (parent, named, operation): (u8, u8, u8)) -> Node {
    let parent = match parent {
        0 => 0,
        1 => MISSING,
        _ if place == 0 => 0,
        other => 1 + other % place as u8,
    };
    let operation = ["", "", "chat", "invoke_agent", "execute_tool"][usize::from(operation)];
    Node { parent, named: NAMED.get(usize::from(named)).copied(), operation }
}

fn record(place: usize, node: &Node) -> Record {
    let at = place as u64 * 10;
    let mut record = ended(3, place as u8 + 1, node.parent, node.operation, at, 400 - at);
    if let Some(run) = node.named {
        record.span.set_attr(names::RUN_ID, run.to_string());
    }
    record
}

/// Runs that have a span of GenAI, by the names that spans give them, with their spans; `None` is the trace's own.
type Homes = BTreeMap<Option<RunId>, BTreeSet<u8>>;

/// Where all belongs, worked out from the whole.
fn homes(nodes: &[Node]) -> Homes {
    let tops: BTreeSet<Option<RunId>> = nodes.iter().filter(|node| node.parent == 0).map(|node| node.named).collect();
    let home = tops.first().copied().filter(|_| tops.len() == 1).flatten();
    let run_of = |node: &Node| {
        let mut node = *node;
        loop {
            match (node.named, node.parent) {
                (Some(run), _) => return Some(run),
                (None, 0) => return None,
                (None, MISSING) => return home,
                (None, parent) => node = nodes[usize::from(parent) - 1],
            }
        }
    };
    let mut homes = Homes::new();
    for (place, node) in nodes.iter().enumerate() {
        homes.entry(run_of(node)).or_default().insert(place as u8 + 1);
    }
    homes.retain(|_, spans| spans.iter().any(|span| !nodes[usize::from(*span) - 1].operation.is_empty()));
    homes
}

/// Where all of a store is; of what is left of a run from which all that spoke of GenAI went, nothing is said.
fn stored(sink: StoreSink<MemoryStore>, nodes: &[Node]) -> Result<Homes, TestCaseError> {
    let store = sink.into_writer();
    let mut homes = Homes::new();
    for listed in store.list_runs(&Query::default()).unwrap() {
        let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
        let run = run.summary.run_id;
        let spans = store.get_steps(run).unwrap().iter().map(|step| step.span_id.0[0]).collect::<BTreeSet<u8>>();
        if spans.iter().any(|span| !nodes[usize::from(*span) - 1].operation.is_empty()) {
            let name = Some(run).filter(|run| !is_foreign_run_id(*run, TRACE));
            prop_assert_eq!(homes.insert(name, spans), None, "two own runs");
        }
    }
    Ok(homes)
}

/// Behind which turns what happens, a bit each.
#[derive(Clone, Copy, Debug)]
struct Turns {
    /// All is written out.
    cuts: u16,
    /// That lasts.
    lasts: u16,
    /// The process dies, and another goes on.
    dies: u16,
    /// So much time goes by that what is over is forgotten.
    pauses: u16,
}

fn brought(nodes: &[Node], order: &[usize], turns: Turns) -> StoreSink<MemoryStore> {
    let all: Vec<Record> = nodes.iter().enumerate().map(|(place, node)| record(place, node)).collect();
    let mut sink = outside_sink();
    for (turn, place) in order.iter().enumerate() {
        let seq = turn as u64 + 1;
        sink.take(seq, all[*place].clone()).unwrap();
        let is = |set: u16| set & 1 << turn != 0;
        if is(turns.cuts | turns.pauses) { sink.flush_all() } else { sink.flush(Instant::now()) }.unwrap();
        if is(turns.lasts | turns.pauses) {
            sink.finish_moves().unwrap();
            sink.flush_all().unwrap();
        }
        if is(turns.pauses) {
            sink.forget_finished(Instant::now() + 2 * LATE);
        }
        let acknowledged = sink.oldest_held().map_or(seq, |held| held - 1);
        if is(turns.dies) {
            let store = sink.into_writer();
            let known = store.list_runs(&Query::default()).unwrap().into_iter().filter_map(|listed| match listed {
                Listed::Run(run) => Some(run.summary.run_id),
                Listed::Damaged(_) => None,
            });
            let known: Vec<RunId> = known.collect();
            sink = StoreSink::new(store, RunId([7; 16]));
            sink.take_up(&known).unwrap();
            sink.take_from_outside(SILENCE);
            for again in acknowledged as usize..=turn {
                sink.take(again as u64 + 1, all[order[again]].clone()).unwrap();
            }
        }
    }
    sink.close_all(|| Ok(())).unwrap();
    sink.finish_moves().unwrap();
    sink.close_all(|| Ok(())).unwrap();
    assert!(!sink.has_moves());
    sink
}

prop_compose! {
    fn traces()(parts in prop::collection::vec((0u8..8, 0u8..6, 0u8..5), 1..8))
        (order in Just((0..parts.len()).collect::<Vec<usize>>()).prop_shuffle(), parts in Just(parts))
        -> (Vec<Node>, Vec<usize>)
    {
        (parts.into_iter().enumerate().map(|(place, part)| node(place, part)).collect(), order)
    }
}

proptest! {
    #[test]
    fn where_steps_belong_does_not_depend_on_their_order(
        (nodes, order) in traces(), (cuts, lasts, dies, pauses) in any::<(u16, u16, u16, u16)>(), again in any::<bool>(),
        calm in 0u8..4,
    ) {
        let order: Vec<usize> = if again { [&order[..], &order[..]].concat() } else { order };
        let whole = homes(&nodes);
        // What is topmost is known for a minute, where nothing of its run is stored.
        let is_stored = |node: &Node| whole.contains_key(&node.named);
        let waits = nodes.iter().any(|node| node.parent == MISSING && node.named.is_none());
        prop_assume!(!waits || nodes.iter().filter(|node| node.parent == 0).all(is_stored));
        let (dies, pauses) = (if calm & 1 == 0 { dies } else { 0 }, if calm & 2 == 0 { pauses } else { 0 });
        let sink = brought(&nodes, &order, Turns { cuts, lasts, dies, pauses });
        prop_assert_eq!(stored(sink, &nodes)?, whole);
    }
}
