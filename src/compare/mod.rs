//! Two runs side by side: their step trees aligned, and what differs in each pair.
//!
//! The rule, from the outside in:
//!
//! - The topmost steps of both runs are aligned, then the children of each pair, and so on. Two steps are alike when they
//!   are of one kind and one name: that of the span, and of a model call that of the operation, for spans of model calls are
//!   mostly named by the model, which may be what was changed.
//! - Of siblings, by start, as many as possible are paired in order; of the ways to do so the one with the most pairs whose
//!   input and output are the same. So a call that was left out shows as that call, and not as the last one.
//! - What is left over on both sides and alike has changed its place. All else was removed or added, with all below it.
//!
//! Time and memory are bounded, see [`align`]: where siblings are very many, the pairing may miss some that
//! would fit; it is the same each time, and of two equal lists it is complete.

mod align;
mod content;
mod tree;

use crate::model::{RunSummary, StepView};

pub use align::align;

/// One step of the first run beside one of the second, or one that stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Place of the step among those of the first run; `None`: it was added.
    pub a: Option<usize>,
    /// Place of the step among those of the second run; `None`: it was removed.
    pub b: Option<usize>,
    /// How many steps are above it.
    pub depth: usize,
    /// It stands elsewhere among its siblings; shown where it is in the second run.
    pub is_moved: bool,
    /// What is not the same. Durations and the ids that providers give tool calls are others each time, and do not count.
    pub differs: Vec<Aspect>,
}

/// What may differ in a pair of steps, or in two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Kind or name; of runs only, for steps that differ in it are not paired.
    Name,
    /// How it ended.
    Status,
    /// Who served the model.
    Provider,
    /// The model.
    Model,
    /// What went in: messages, arguments of a tool.
    Input,
    /// What came out: messages, the result of a tool.
    Output,
    /// Type or message of the error.
    Error,
    /// Tokens.
    Tokens,
    /// What it cost.
    Cost,
}

/// By what runs are equal or not. Durations are part of none: they always differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Which steps there are, in which order, on which model, and how they ended.
    Structure,
    /// What went in and came out, errors among it.
    Io,
    /// Tokens and cost.
    Cost,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Structure, Self::Io, Self::Cost];

    /// Returns the word used in flags and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Io => "io",
            Self::Cost => "cost",
        }
    }
}

impl Aspect {
    /// Returns the word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Status => "status",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Input => "input",
            Self::Output => "output",
            Self::Error => "error",
            Self::Tokens => "tokens",
            Self::Cost => "cost_usd",
        }
    }

    /// Returns what it is a difference of.
    pub const fn measure(self) -> Measure {
        match self {
            Self::Name | Self::Status | Self::Provider | Self::Model => Measure::Structure,
            Self::Input | Self::Output | Self::Error => Measure::Io,
            Self::Tokens | Self::Cost => Measure::Cost,
        }
    }
}

/// A run and its steps, by start.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The run.
    pub run: &'a RunSummary,
    /// Its steps.
    pub steps: &'a [StepView],
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// All steps of both runs, each once, from the top down.
    pub pairs: Vec<Pair>,
    /// What differs in the runs themselves.
    pub differs: Vec<Aspect>,
}

impl Comparison {
    /// Compares two runs.
    pub fn of(a: Side<'_>, b: Side<'_>) -> Self {
        let mut pairs = align(a.steps, b.steps);
        for pair in &mut pairs {
            if let (Some(of_a), Some(of_b)) = (pair.a, pair.b) {
                pair.differs = steps_differ(&a.steps[of_a], &b.steps[of_b]);
            }
        }
        Self { pairs, differs: runs_differ(a.run, b.run) }
    }

    /// Counts the differences of a kind: a step that is not in both runs or not in its place is one of structure.
    pub fn count(&self, measure: Measure) -> usize {
        let aspects = self.differs.iter().chain(self.pairs.iter().flat_map(|pair| &pair.differs));
        let places = self.pairs.iter().filter(|pair| measure == Measure::Structure && !pair.is_in_place());
        aspects.filter(|aspect| aspect.measure() == measure).count() + places.count()
    }

    /// Tells whether the runs are equal by some measures.
    pub fn is_equal(&self, by: &[Measure]) -> bool {
        by.iter().all(|measure| self.count(*measure) == 0)
    }
}

impl Pair {
    /// Tells whether the step is in both runs, at the same place.
    pub fn is_in_place(&self) -> bool {
        self.a.is_some() && self.b.is_some() && !self.is_moved
    }

    /// Tells whether nothing is to be said of it.
    pub fn is_same(&self) -> bool {
        self.is_in_place() && self.differs.is_empty()
    }
}

fn steps_differ(a: &StepView, b: &StepView) -> Vec<Aspect> {
    listed([
        (Aspect::Status, a.status != b.status),
        (Aspect::Provider, a.provider != b.provider),
        (Aspect::Model, a.model != b.model),
        (Aspect::Input, !content::is_same(a.input.as_ref(), b.input.as_ref())),
        (Aspect::Output, !content::is_same(a.output.as_ref(), b.output.as_ref())),
        (Aspect::Error, a.error != b.error),
        (Aspect::Tokens, a.tokens != b.tokens),
        (Aspect::Cost, a.cost_usd != b.cost_usd),
    ])
}

/// What steps say already is not said again.
fn runs_differ(a: &RunSummary, b: &RunSummary) -> Vec<Aspect> {
    listed([
        (Aspect::Name, (a.kind, a.name()) != (b.kind, b.name())),
        (Aspect::Status, a.status != b.status),
        (Aspect::Tokens, a.tokens != b.tokens),
        (Aspect::Cost, a.cost_usd != b.cost_usd),
    ])
}

fn listed<const N: usize>(found: [(Aspect, bool); N]) -> Vec<Aspect> {
    found.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect).collect()
}

#[cfg(test)]
mod tests;
