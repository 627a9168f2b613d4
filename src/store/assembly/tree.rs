//! What stands above and below each step, in time that grows with the steps alone, however deep they are, and where broken input makes
//! circles of parents.

use std::collections::HashSet;

use super::{RunState, Step};
use crate::model::id::IdSet;
use crate::model::{SpanId, StepKind};

impl RunState {
    pub(super) fn ancestors(&self, step: &Step) -> IdSet<SpanId> {
        let mut above = HashSet::default();
        let mut parent = step.parent;
        // `insert` ends the walk when broken input makes a circle.
        while let Some(span) = parent.filter(|span| above.insert(*span)) {
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
        above
    }

    /// Returns how deep each step is, by place.
    pub(super) fn depths(&self) -> Vec<u32> {
        self.downwards(|above: Option<&u32>, _| above.map_or(0, |depth| depth.saturating_add(1)))
    }

    /// Returns the agent that each step is or belongs to, by place: the one that it names, else that of the step above it.
    pub(super) fn agents(&self) -> Vec<Option<&str>> {
        self.downwards(|above, step| match &step.facts.agent_name {
            Some(agent) => Some(agent.as_str()),
            // One without a name is none of those above it.
            None if step.facts.kind == StepKind::Agent => None,
            None => above.copied().flatten(),
        })
    }

    /// Works out something of each step from that of the step above it, by place.
    pub(super) fn downwards<'a, T>(&'a self, of: impl Fn(Option<&T>, &'a Step) -> T) -> Vec<T>
    where
        T: Clone + Default,
    {
        let above = |place: usize| self.steps[place].parent.and_then(|parent| self.by_span.get(&parent)).copied();
        let mut found: Vec<Option<T>> = vec![None; self.steps.len()];
        let mut way = Vec::new();
        for place in 0..found.len() {
            let mut next = Some(place);
            // A step that is on its way already is in a circle of broken input, and as good as a root.
            while let Some(step) = next.filter(|step| found[*step].is_none()) {
                found[step] = Some(T::default());
                way.push(step);
                next = above(step);
            }
            while let Some(step) = way.pop() {
                found[step] = Some(of(above(step).and_then(|above| found[above].as_ref()), &self.steps[step]));
            }
        }
        found.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Adds up, for each step by place, what all steps below it have; `None` where none has anything.
    pub(super) fn sums_below<T: Copy>(&self, own: &[Option<T>], plus: impl Fn(T, T) -> T) -> Vec<Option<T>> {
        let depths = self.depths();
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        order.sort_unstable_by_key(|place| std::cmp::Reverse((depths[*place], *place)));
        let mut below: Vec<Option<T>> = vec![None; self.steps.len()];
        for place in order {
            let sum = both(own.get(place).copied().flatten(), below[place], &plus);
            if let Some(above) = self.above_in(&depths, place) {
                below[above] = both(below[above], sum, &plus);
            }
        }
        below
    }

    /// Returns the place of the step above one. In a circle of parents one of them is topmost.
    pub(super) fn above_in(&self, depths: &[u32], place: usize) -> Option<usize> {
        let above = self.steps[place].parent.and_then(|parent| self.by_span.get(&parent)).copied();
        above.filter(|above| depths[*above] < depths[place])
    }

    /// Returns where each step stands among all.
    pub(super) fn tree(&self) -> Tree {
        let count = self.steps.len();
        let depths = self.depths();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_unstable_by_key(|place| (depths[*place], *place));
        let above = |place: usize| self.above_in(&depths, place);
        let mut tree = Tree { first: vec![0; count], sizes: vec![1; count], tops: (0..count).collect() };
        for &place in order.iter().rev() {
            if let Some(above) = above(place) {
                tree.sizes[above] += tree.sizes[place];
            }
        }
        let (mut next, mut within) = (0, vec![0; count]);
        for place in order {
            let size = tree.sizes[place];
            let free = match above(place) {
                Some(above) => {
                    tree.tops[place] = tree.tops[above];
                    &mut within[above]
                }
                None => &mut next,
            };
            tree.first[place] = *free;
            *free += size;
            within[place] = tree.first[place] + 1;
        }
        tree
    }
}

/// Where steps stand among each other, by place.
#[derive(Debug)]
pub(super) struct Tree {
    /// The number of each in a walk over all, from the top down.
    pub(super) first: Vec<usize>,
    /// How many there are with all below each.
    pub(super) sizes: Vec<usize>,
    /// The topmost above each, or itself.
    pub(super) tops: Vec<usize>,
}

impl Tree {
    /// Tells whether one is below another.
    pub(super) fn is_below(&self, below: usize, above: usize) -> bool {
        self.first[below] > self.first[above] && self.first[below] < self.first[above] + self.sizes[above]
    }
}

/// Returns what two have together, or what one has.
pub(super) fn both<T>(one: Option<T>, other: Option<T>, plus: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(plus(one, other)),
        (one, other) => one.or(other),
    }
}
