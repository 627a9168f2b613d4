//! Steps as a tree, whatever was sent: parents may be missing, and a step may be its own ancestor.

use std::collections::HashMap;

use crate::model::{SpanId, StepView};

/// Every step once, below its parent; siblings by start.
#[derive(Debug)]
pub(super) struct Tree {
    pub roots: Vec<usize>,
    pub children: Vec<Vec<usize>>,
}

impl Tree {
    /// Puts steps, given by start, below their parents. Steps whose parent is not there are roots; of a circle, the first
    /// step is.
    pub fn of(steps: &[StepView]) -> Self {
        let mut by_span: HashMap<SpanId, usize> = HashMap::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            by_span.entry(step.span_id).or_insert(place);
        }
        let parent_of = |place: usize| {
            let parent = steps[place].parent_span_id.and_then(|parent| by_span.get(&parent).copied());
            parent.filter(|parent| *parent != place)
        };
        let mut tree = Self { roots: Vec::new(), children: vec![Vec::new(); steps.len()] };
        for place in 0..steps.len() {
            match parent_of(place) {
                Some(parent) => tree.children[parent].push(place),
                None => tree.roots.push(place),
            }
        }
        tree.cut_circles(&parent_of);
        tree
    }

    fn cut_circles(&mut self, parent_of: &impl Fn(usize) -> Option<usize>) {
        let mut seen = vec![false; self.children.len()];
        let mut waiting = self.roots.clone();
        for first in 0..seen.len() {
            while let Some(place) = waiting.pop() {
                seen[place] = true;
                waiting.extend(&self.children[place]);
            }
            if !seen[first]
                && let Some(parent) = parent_of(first)
            {
                self.children[parent].retain(|child| *child != first);
                self.roots.push(first);
                waiting.push(first);
            }
        }
        self.roots.sort_unstable();
    }
}
