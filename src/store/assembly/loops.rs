//! Calls that tell what they used together with those before them in one loop over tools: what each used itself.
//!
//! The calls of a loop are below one step of the emitter's and come one after the other. It is found out anew with each of them,
//! so that it does not matter in which order they come, or how often.

use std::sync::Arc;

use super::{RunState, Step};
use crate::conventions::providers;
use crate::model::{CostSource, NanoUsd, SpanId, Tokens};
use crate::pipeline::facts::{InLoop, StepFacts, Told};

/// A loop with more calls stays as it is told: its emitter ends one long before.
const MAX_CALLS: usize = 256;
/// How far apart the end of a call and the start of the next may seem to be the wrong way round, in nanoseconds.
const TICK: u64 = 2_000_000;

impl RunState {
    /// Settles the loops that a step which has just come is of, or is around.
    pub(super) fn settle_loops(&mut self, place: usize) {
        let step = &self.steps[place];
        match (step.facts.in_loop, step.parent) {
            (Some(InLoop::Call), Some(parent)) => {
                let calls = self.loops.entry(parent).or_default();
                if calls.len() < MAX_CALLS && !calls.contains(&place) {
                    calls.push(place);
                }
                self.settle_loop(parent);
            }
            (Some(InLoop::Around), _) => self.settle_loop(step.span_id),
            _ => {}
        }
    }

    fn settle_loop(&mut self, around: SpanId) {
        let is_around = |place: &usize| self.steps[*place].facts.in_loop == Some(InLoop::Around);
        let Some(calls) = self.loops.get(&around).filter(|_| self.by_span.get(&around).is_some_and(is_around)) else {
            return;
        };
        let mut calls = calls.clone();
        calls.sort_unstable_by_key(|place| (self.steps[*place].started_at, self.steps[*place].span_id));
        let mut settled: Vec<(usize, Told, Told)> = Vec::with_capacity(calls.len());
        for place in calls {
            let step = &self.steps[place];
            let told = told(&step.facts);
            let start = step.started_at.0.saturating_add(TICK);
            let is_before =
                |(before, ..): &&(usize, Told, Told)| self.steps[*before].ended_at.is_some_and(|end| end.0 <= start);
            let before = settled.iter().filter(is_before).max_by_key(|(before, ..)| self.steps[*before].ended_at);
            let own = before.and_then(|(before, sum, own)| without(step, told, &self.steps[*before], *sum, *own));
            settled.push((place, told, own.unwrap_or(told)));
        }
        for (place, told, own) in settled {
            let facts = &self.steps[place].facts;
            let is_sum = own != told;
            if (facts.tokens, facts.cost, facts.told.is_some()) != (own.tokens, own.cost, is_sum) {
                let facts = Arc::make_mut(&mut self.steps[place].facts);
                (facts.tokens, facts.cost, facts.told) = (own.tokens, own.cost, is_sum.then(|| Box::new(told)));
            }
        }
    }

    /// Returns what a call used itself, where it told the sum of its loop.
    pub(crate) fn own_usage(&self, span: SpanId) -> Option<Told> {
        let facts = &self.steps[*self.by_span.get(&span)?].facts;
        facts.told.as_ref().map(|_| Told { tokens: facts.tokens, cost: facts.cost })
    }
}

fn told(facts: &StepFacts) -> Told {
    facts.told.as_deref().copied().unwrap_or(Told { tokens: facts.tokens, cost: facts.cost })
}

/// Takes off what the call before it told, if that asked for tools and is in there: the conversation that it was asked with was sent once
/// more, and is in what this one used itself, but where the provider counts what it had in its cache apart.
fn without(step: &Step, told: Told, before: &Step, sum: Told, own: Told) -> Option<Told> {
    let goes_on = before.facts.finish_reasons.iter().any(|reason| reason.to_ascii_lowercase().contains("tool"));
    let (tokens, sum_tokens) = (told.tokens?, sum.tokens?);
    let (prompt, completion) = (tokens.prompt?, tokens.completion?);
    let (sum_prompt, sum_completion) = (sum_tokens.prompt?, sum_tokens.completion?);
    let counts_apart = step.facts.provider.as_deref().is_some_and(|name| providers::COUNT_CACHE_APART.contains(&name));
    let least = if counts_apart { 1 } else { own.tokens?.prompt? };
    if !goes_on || prompt < sum_prompt.saturating_add(least) || completion <= sum_completion {
        return None;
    }
    let (prompt, completion) = (prompt - sum_prompt, completion - sum_completion);
    let tokens = Tokens { prompt: Some(prompt), completion: Some(completion), total: None, ..tokens }.with_total();
    let cost = match (told.cost, sum.cost) {
        (Some((cost, CostSource::Computed)), Some((of_sum, CostSource::Computed))) => {
            Some((NanoUsd(cost.0.saturating_sub(of_sum.0)), CostSource::Computed))
        }
        (cost, _) => cost,
    };
    Some(Told { tokens: Some(tokens), cost })
}
