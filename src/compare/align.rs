//! Which step of one run stands beside which of the other.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use serde_json::Value as Json;

use super::Pair;
use super::content::without_call_ids;
use super::tree::Tree;
use crate::model::{StepKind, StepView};

/// Two lists of siblings are compared each with each up to this many pairs, one byte each.
const MAX_CELLS: usize = 1 << 20;

/// What a step is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Item {
    /// Kind and name, as a number.
    key: u32,
    /// Input and output.
    content: u64,
}

/// Aligns the steps of two runs, each by start. Nothing is said yet of what differs in a pair.
///
/// Of N siblings it takes time in proportion to N times the root of `MAX_CELLS`, and as much memory as all steps have names;
/// nothing recurses.
pub fn align(a: &[StepView], b: &[StepView]) -> Vec<Pair> {
    let mut keys = Keys::default();
    let items = (keys.items(a), keys.items(b));
    let trees = (Tree::of(a), Tree::of(b));
    let mut pairs = Vec::with_capacity(a.len().max(b.len()));
    let mut waiting = siblings(&items, &trees.0.roots, &trees.1.roots, 0);
    waiting.reverse();
    while let Some(pair) = waiting.pop() {
        let below = |tree: &Tree, place: Option<usize>| place.map(|at| tree.children[at].clone()).unwrap_or_default();
        let (of_a, of_b) = (below(&trees.0, pair.a), below(&trees.1, pair.b));
        waiting.extend(siblings(&items, &of_a, &of_b, pair.depth + 1).into_iter().rev());
        pairs.push(pair);
    }
    pairs
}

/// Numbers for kinds with names.
#[derive(Debug, Default)]
struct Keys {
    numbers: HashMap<(StepKind, String), u32>,
}

impl Keys {
    fn items(&mut self, steps: &[StepView]) -> Vec<Item> {
        steps.iter().map(|step| Item { key: self.key(step), content: content(step) }).collect()
    }

    fn key(&mut self, step: &StepView) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry((step.kind, name(step).into_owned())).or_insert(next)
    }
}

/// Returns what the step is called in every run: of a model call without the model, of a tool and an agent with its own name, as some
/// emitters call all of their spans the same.
fn name(step: &StepView) -> Cow<'_, str> {
    let base = match step.step_id.rsplit_once('-') {
        Some((base, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => &step.step_id,
    };
    match step.kind {
        StepKind::Llm | StepKind::Embedding | StepKind::Rerank => Cow::Borrowed(base),
        StepKind::Tool | StepKind::Agent => Cow::Owned(format!("{}\0{base}", step.name)),
        _ => Cow::Borrowed(&step.name),
    }
}

fn content(step: &StepView) -> u64 {
    struct Into(DefaultHasher);
    impl io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut into = Into(DefaultHasher::new());
    // A value that is in memory can be written, and hashing does not fail.
    let said = |content: &Option<Json>| content.as_ref().map(|content| without_call_ids(content).into_owned());
    let _ = serde_json::to_writer(&mut into, &(said(&step.input), said(&step.output)));
    step.status.hash(&mut into.0);
    into.0.finish()
}

/// Pairs the children of a pair, in the order in which they are shown.
fn siblings(items: &(Vec<Item>, Vec<Item>), a: &[usize], b: &[usize], depth: usize) -> Vec<Pair> {
    let of_a: Vec<Item> = a.iter().map(|place| items.0[*place]).collect();
    let of_b: Vec<Item> = b.iter().map(|place| items.1[*place]).collect();
    let in_order = in_order(&of_a, &of_b);
    let moved = moved(&of_a, &of_b, &in_order);
    let pair = |a: Option<usize>, b: Option<usize>, is_moved| Pair { a, b, depth, is_moved, differs: Vec::new() };
    let has_moved: Vec<bool> = {
        let mut has_moved = vec![false; a.len()];
        moved.values().for_each(|at| has_moved[*at] = true);
        has_moved
    };
    let mut shown = Vec::with_capacity(a.len().max(b.len()));
    let (mut next_a, mut next_b) = (0, 0);
    for (at_a, at_b) in in_order.into_iter().chain([(a.len(), b.len())]) {
        shown.extend((next_a..at_a).filter(|at| !has_moved[*at]).map(|at| pair(Some(a[at]), None, false)));
        shown.extend((next_b..at_b).map(|at| {
            let from = moved.get(&at).map(|from| a[*from]);
            pair(from, Some(b[at]), from.is_some())
        }));
        if at_a < a.len() && at_b < b.len() {
            shown.push(pair(Some(a[at_a]), Some(b[at_b]), false));
        }
        (next_a, next_b) = (at_a + 1, at_b + 1);
    }
    shown
}

/// Pairs what is left over on both sides and alike, by content first; by place in the second list.
fn moved(a: &[Item], b: &[Item], in_order: &[(usize, usize)]) -> HashMap<usize, usize> {
    fn free(length: usize, taken: impl Iterator<Item = usize>) -> Vec<bool> {
        let mut free = vec![true; length];
        taken.for_each(|at| free[at] = false);
        free
    }
    let mut free_a = free(a.len(), in_order.iter().map(|pair| pair.0));
    let mut free_b = free(b.len(), in_order.iter().map(|pair| pair.1));
    let mut moved = HashMap::new();
    for by_content in [true, false] {
        let like = |item: Item| (item.key, if by_content { item.content } else { 0 });
        let mut waiting: HashMap<(u32, u64), VecDeque<usize>> = HashMap::new();
        for (at, item) in a.iter().enumerate().filter(|(at, _)| free_a[*at]) {
            waiting.entry(like(*item)).or_default().push_back(at);
        }
        for (at, item) in b.iter().enumerate() {
            if !free_b[at] {
                continue;
            }
            if let Some(from) = waiting.get_mut(&like(*item)).and_then(VecDeque::pop_front) {
                (free_a[from], free_b[at]) = (false, false);
                moved.insert(at, from);
            }
        }
    }
    moved
}

/// Pairs as many alike as possible in order, and of those as many as possible that are the same.
fn in_order(a: &[Item], b: &[Item]) -> Vec<(usize, usize)> {
    let before = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[before..], &b[before..]);
    let behind = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (end_a, end_b) = (a.len() - behind, b.len() - behind);
    let mut pairs: Vec<(usize, usize)> = (0..before).map(|at| (at, at)).collect();
    if fits(end_a - before, end_b - before) {
        each_with_each(a, b, (before, before), (end_a, end_b), &mut pairs);
    } else {
        let mut from = (before, before);
        for anchor in anchors(a, b, (before, end_a), (before, end_b)).into_iter().map(Some).chain([None]) {
            in_slices(a, b, from, anchor.unwrap_or((end_a, end_b)), &mut pairs);
            pairs.extend(anchor);
            from = anchor.map_or(from, |(at_a, at_b)| (at_a + 1, at_b + 1));
        }
    }
    pairs.extend((0..behind).map(|at| (end_a + at, end_b + at)));
    pairs
}

fn fits(a: usize, b: usize) -> bool {
    a.saturating_mul(b) <= MAX_CELLS
}

/// Finds what is there once in both, and of that the longest series in order.
fn anchors(a: &[Item], b: &[Item], in_a: (usize, usize), in_b: (usize, usize)) -> Vec<(usize, usize)> {
    let once = |items: &[Item], (from, to): (usize, usize)| {
        let mut places: HashMap<Item, Option<usize>> = HashMap::new();
        for (at, item) in items.iter().enumerate().take(to).skip(from) {
            places.entry(*item).and_modify(|place| *place = None).or_insert(Some(at));
        }
        places
    };
    let of_b = once(b, in_b);
    let mut both: Vec<(usize, usize)> =
        once(a, in_a).into_iter().filter_map(|(item, at)| Some((at?, of_b.get(&item).copied().flatten()?))).collect();
    both.sort_unstable();
    longest_rising(&both)
}

/// Returns the longest series in which both numbers rise; the first ones rise in `pairs`.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // By length: where the series that ends lowest ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        previous.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() { ends.push(at) } else { ends[length] = at }
    }
    let mut series = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        series.push(pairs[at]);
        next = previous[at];
    }
    series.reverse();
    series
}

/// Compares two stretches slice by slice, as many as it takes for each to fit.
fn in_slices(a: &[Item], b: &[Item], from: (usize, usize), to: (usize, usize), pairs: &mut Vec<(usize, usize)>) {
    let (length_a, length_b) = (to.0 - from.0, to.1 - from.1);
    let slices = (1..).find(|n| fits(length_a.div_ceil(*n), length_b.div_ceil(*n))).unwrap_or(1);
    let cut = |slice: usize| (from.0 + length_a * slice / slices, from.1 + length_b * slice / slices);
    for slice in 0..slices {
        each_with_each(a, b, cut(slice), cut(slice + 1), pairs);
    }
}

/// What is best for the rest of both stretches, from a cell on.
#[derive(Clone, Copy)]
enum Best {
    Pair,
    SkipA,
    SkipB,
}

/// Compares each with each, from the end.
fn each_with_each(a: &[Item], b: &[Item], from: (usize, usize), to: (usize, usize), pairs: &mut Vec<(usize, usize)>) {
    let (a, b) = (&a[from.0..to.0], &b[from.1..to.1]);
    if a.is_empty() || b.is_empty() {
        return;
    }
    let mut best = vec![Best::SkipA; a.len() * b.len()];
    // Alike ones, then those that are the same.
    let mut below = vec![(0u32, 0u32); b.len() + 1];
    for (at_a, item) in a.iter().enumerate().rev() {
        let mut row = vec![(0, 0); b.len() + 1];
        for (at_b, other) in b.iter().enumerate().rev() {
            let (skip_a, skip_b) = (below[at_b], row[at_b + 1]);
            let (mut score, mut choice) = if skip_a >= skip_b { (skip_a, Best::SkipA) } else { (skip_b, Best::SkipB) };
            if item.key == other.key {
                let (alike, same) = below[at_b + 1];
                let paired = (alike + 1, same + u32::from(item.content == other.content));
                if paired >= score {
                    (score, choice) = (paired, Best::Pair);
                }
            }
            row[at_b] = score;
            best[at_a * b.len() + at_b] = choice;
        }
        below = row;
    }
    let (mut at_a, mut at_b) = (0, 0);
    while at_a < a.len() && at_b < b.len() {
        match best[at_a * b.len() + at_b] {
            Best::Pair => {
                pairs.push((from.0 + at_a, from.1 + at_b));
                (at_a, at_b) = (at_a + 1, at_b + 1);
            }
            Best::SkipA => at_a += 1,
            Best::SkipB => at_b += 1,
        }
    }
}
