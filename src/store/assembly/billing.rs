//! What a run's steps add up to: which of them tell one call, which is billed, which failure is which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{RunState, Step, is_failure};
use crate::conventions::names;
use crate::model::id::{IdMap, IdSet};
use crate::model::{CostSource, NanoUsd, SpanId, StepKind, StepStatus, Tokens, UnixNanos};
use crate::pipeline::facts::StepFacts;

/// How far above a call other layers' words for it are looked for, and how far back among answers that have one id.
const MAX_LAYERS: usize = 32;

/// Calls that are under way at once, of which one may be that which was passed on.
const MAX_AT_ONCE: usize = 256;

/// How far apart two layers may put one moment: in JavaScript a span's start is a whole millisecond, and its end has more digits.
const TICK: u64 = 2_000_000;

/// What was asked for: provider and model.
pub(super) type Asked<'a> = (Option<&'a str>, Option<&'a str>);

/// The places of the steps that make up a run's totals.
#[derive(Debug)]
pub(super) struct Counted {
    /// Calls, each once.
    pub(super) calls: Vec<usize>,
    /// Steps whose tokens are summed.
    pub(super) tokens: Vec<usize>,
    /// Steps whose costs are summed.
    pub(super) costs: Vec<usize>,
}

/// A program's own calls of one model, of which each may be one that was passed on.
#[derive(Default)]
struct Candidates {
    /// Those that have not begun yet, the next one last.
    to_come: Vec<usize>,
    /// Those that have, by start.
    under_way: Vec<usize>,
}

/// A run's totals over counted steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Bill {
    pub(super) tokens: Option<Tokens>,
    pub(super) cost: Option<NanoUsd>,
    pub(super) source: Option<CostSource>,
    pub(super) unpriced: u64,
    pub(super) llm_calls: u64,
    pub(super) models: Vec<(String, Option<String>, NanoUsd)>,
}

impl Counted {
    /// Returns all of them by start, each once.
    pub(super) fn all(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.calls.iter().chain(&self.tokens).chain(&self.costs).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Which ended steps count, each part of a bill once.
#[derive(Debug)]
pub struct Billing {
    /// Calls of models.
    pub calls: Vec<SpanId>,
    /// Steps that are none, and whose tokens count.
    pub tellers: Vec<SpanId>,
    /// Steps whose costs are summed.
    pub costs: Vec<SpanId>,
}

/// What a run's steps add up to, as they are now.
#[derive(Debug)]
pub(super) struct Sums {
    /// As [`RunState::duplicates`] has them.
    pub(super) copies: HashMap<usize, usize>,
    pub(super) counted: Counted,
    pub(super) bill: Bill,
    pub(super) tool_calls: u64,
    /// The places of the failures, each once.
    pub(super) failures: Vec<usize>,
}

impl Sums {
    fn of(run: &RunState) -> Self {
        let copies = run.duplicates();
        let counted = run.counted(&copies);
        let (tool_calls, failures) = (run.tool_calls(&copies), run.failures(&copies));
        Self { bill: run.bill(&counted), tool_calls, failures, copies, counted }
    }
}

impl RunState {
    /// Returns what the steps add up to. Several ask for it when a run ends, and it takes a look at every step.
    pub(super) fn sums(&self) -> &Sums {
        self.sums.get_or_init(|| Arc::new(Sums::of(self)))
    }

    /// Finds steps that tell a call another step tells: the same answer id, or a model call around a model call.
    /// Returns for each such step the place of the one that counts.
    pub(super) fn duplicates(&self) -> HashMap<usize, usize> {
        let calls = || self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
        let mut copies = HashMap::new();
        // Of each the step that counts, and whether one of those that tell of it was passed on.
        let mut by_answer: IdMap<&str, Vec<(usize, bool)>> = IdMap::default();
        for (place, step) in calls() {
            let Some(answer) = step.facts.response_id.as_deref() else { continue };
            let told = by_answer.entry(answer).or_default();
            let is_relayed = step.facts.is_relayed;
            // What was passed on is told once for each request, whatever ids a server gives: some give all answers one.
            let is_its_own = |(first, is_passed_on): &(usize, bool)| {
                is_relayed && *is_passed_on || are_two_answers(&self.steps[*first], step)
            };
            match told.iter_mut().rev().take(MAX_LAYERS).find(|first| !is_its_own(first)) {
                None => told.push((place, is_relayed)),
                Some((first, is_passed_on)) => {
                    *is_passed_on |= is_relayed;
                    // The one that knows more of the bill counts.
                    if outranks(step, &self.steps[*first]) {
                        copies.insert(std::mem::replace(first, place), place);
                    } else {
                        copies.insert(place, *first);
                    }
                }
            }
        }
        for (call, report) in self.reported(&copies) {
            copies.insert(call, report);
        }
        let relayed = self.relayed(&copies);
        copies.extend(relayed.iter().copied());
        for (copy, of) in self.unanswered_in_the_end(&relayed) {
            copies.remove(&of);
            copies.insert(copy, of);
        }
        let around = self.around_calls();
        for (copy, of) in self.within(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.beside(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.unanswered(&copies, &around) {
            copies.insert(copy, of);
        }
        copies.extend(self.told_too_early(&copies));
        // Of steps that broken input puts around each other, none is the outer one.
        let circles = std::cell::OnceCell::new();
        let is_in_circle = |place: usize, around: &[usize]| {
            !around.is_empty() && circles.get_or_init(|| self.circles()).contains(&place)
        };
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool) {
            if let Some(outer) = self.tool_around(step).filter(|outer| !is_in_circle(place, &[*outer])) {
                copies.insert(place, outer);
            }
        }
        // Layers that tell one call: the one that knows most of the bill counts, the outermost of those that know
        // the same. Calls beside each other inside one are calls of their own. What is around a copy is around the one that counts
        // for it.
        let nested: Vec<(usize, Vec<usize>)> = calls()
            .map(|(place, step)| (place, self.calls_around(step)))
            .map(|(place, around)| (place, if is_in_circle(place, &around) { Vec::new() } else { around }))
            .map(|(place, around)| (settled(&copies, place), around))
            .map(|(place, around)| {
                let is_other = |outer: &usize| *outer != place && !copies.contains_key(outer);
                (place, around.into_iter().filter(is_other).collect())
            })
            .collect();
        let mut known_better: HashMap<usize, usize> = HashMap::default();
        for &(place, ref around) in &nested {
            for &outer in around {
                let best = known_better.get(&outer).copied().unwrap_or(outer);
                if knows_more(&self.steps[place], &self.steps[best]) {
                    known_better.insert(outer, place);
                }
            }
        }
        for (place, around) in nested {
            let same = |outer: &&usize| {
                !known_better.contains_key(outer) && !knows_more(&self.steps[place], &self.steps[**outer])
            };
            let of = known_better.get(&place).or_else(|| around.iter().rfind(same));
            // One that is around the copy may be inside of what counts for it.
            if let Some(&of) = of.filter(|of| settled(&copies, **of) != place) {
                copies.insert(place, of);
            }
        }
        for (call, last_try) in self.tried(&copies, |place| is_in_circle(place, &[place])) {
            copies.insert(call, last_try);
        }
        copies.iter().map(|(&copy, &of)| (copy, settled(&copies, of))).collect()
    }

    /// Finds calls that failed because every model that was tried inside them did, and of which nothing else is told: what
    /// was asked for is that which was tried last.
    fn tried(&self, copies: &HashMap<usize, usize>, is_in_circle: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed && is_failure(step.status));
        for (place, step) in calls.filter(|(place, _)| !copies.contains_key(place)) {
            let above = self.layers_above(step).find(|outer| self.steps[*outer].facts.kind == step.facts.kind);
            let is_told = |facts: &StepFacts| facts.tokens.is_some() || facts.cost.is_some();
            let Some(outer) = above.filter(|outer| !copies.contains_key(outer)) else { continue };
            let call = &self.steps[outer];
            if !is_failure(call.status) || is_told(&call.facts) || !is_other_try(call, step) || is_in_circle(place) {
                continue;
            }
            let key = |place: &usize| (self.steps[*place].ended_at, self.steps[*place].span_id);
            let latest = last.entry(outer).or_insert(place);
            if key(latest) < key(&place) {
                *latest = place;
            }
        }
        last.into_iter().collect()
    }

    /// Finds calls of which a step beside them tells what they used: a step that took no time is no call of its own but
    /// a report of the one before it, for the same model.
    pub(super) fn reported(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let is_report = |step: &Step| step.ended_at == Some(step.started_at) && step.facts.tokens.is_some();
        let calls = || {
            let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
            calls.filter(|(place, _)| !copies.contains_key(place))
        };
        let mut taken = HashSet::new();
        let mut reports: Vec<(usize, &Step)> = calls().filter(|(_, step)| is_report(step)).collect();
        reports.sort_by_key(|(_, step)| (step.started_at, step.span_id));
        let call_before = |report: &Step, taken: &HashSet<usize>| {
            let of = calls().filter(|(place, call)| {
                call.parent == report.parent
                    && call.facts.kind == report.facts.kind
                    && asked(&call.facts) == asked(&report.facts)
                    && call.facts.tokens.is_none()
                    && call.facts.response_id.is_none()
                    && !is_failure(call.status)
                    && call.ended_at.is_some_and(|end| end <= report.started_at)
                    && !taken.contains(place)
            });
            of.max_by_key(|(_, call)| (call.ended_at, call.span_id)).map(|(place, _)| place)
        };
        let mut found = Vec::new();
        for (place, report) in reports {
            if let Some(call) = call_before(report, &taken) {
                taken.insert(call);
                found.push((call, place));
            }
        }
        found
    }

    /// Finds calls that were told by who passed them on and by the program, too, without a word in common: the same model
    /// was asked within the time of the program's own step. What the program tried again is one call.
    pub(super) fn relayed(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let is_own = |step: &Step| !step.facts.is_relayed;
        self.joined(copies, |facts| facts.is_relayed, is_own, |_| None, |_, _| true, 0)
    }

    /// Finds calls whose request began after a layer's step for them had ended, as that of a stream which is read later may:
    /// they used the same, and no other is known of the layer's.
    fn told_too_early(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let of: HashSet<usize> = copies.values().copied().collect();
        let is_request =
            |step: &Step| step.facts.is_at_wire || step.facts.is_relayed || step.facts.response_id.is_some();
        let is_alone =
            |place: &usize| !copies.contains_key(place) && (!of.contains(place) || is_request(&self.steps[*place]));
        let used = |step: &Step| {
            step.facts.tokens.filter(|tokens| tokens.prompt.is_some() && tokens.completion.is_some()).map(counts)
        };
        let mut own: IdMap<_, Vec<usize>> = IdMap::default();
        let mut passed_on = Vec::new();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed) {
            match used(step).filter(|_| is_alone(&place)) {
                Some(_) if is_request(step) => passed_on.push(place),
                Some(used) => own.entry((step.facts.kind, used[..2].to_vec())).or_default().push(place),
                None => {}
            }
        }
        passed_on.sort_by_key(|place| (self.steps[*place].started_at, self.steps[*place].span_id));
        let mut found = Vec::new();
        for place in passed_on {
            let wire = &self.steps[place];
            let key = (wire.facts.kind, used(wire).map(|used| used[..2].to_vec()).unwrap_or_default());
            let Some(candidates) = own.get_mut(&key) else { continue };
            let is_before = |own: &Step| {
                let Some(end) = own.ended_at.filter(|end| *end <= wire.started_at) else { return false };
                // Another layer's beside it did no more than begin to ask, or the request follows at once.
                let took = wire.ended_at.map_or(0, |end| end.0.saturating_sub(wire.started_at.0));
                let is_brief = end.0.saturating_sub(own.started_at.0) <= took / 4;
                let is_next = wire.started_at.0.saturating_sub(end.0) <= TICK;
                let is_beside = wire.facts.is_relayed || (own.parent == wire.parent && (is_brief || is_next));
                is_beside && may_be_one(&own.facts, &wire.facts)
            };
            let before = candidates.iter().rev().take(MAX_AT_ONCE).copied().filter(|own| is_before(&self.steps[*own]));
            let Some(last) = before.max_by_key(|own| (self.steps[*own].ended_at, self.steps[*own].span_id)) else {
                continue;
            };
            candidates.retain(|own| *own != last);
            let own = &self.steps[last];
            found.push(if rank(own) > rank(wire) { (place, last) } else { (last, place) });
        }
        found
    }

    /// Finds steps of the program's own that say nothing of an answer, nor that they failed, while each request that was passed
    /// on for them did: then the last of those says how the call ended.
    fn unanswered_in_the_end(&self, relayed: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for &(place, own) in relayed.iter().filter(|(place, _)| is_failure(self.steps[*place].status)) {
            let key = |place: usize| (self.steps[place].ended_at, self.steps[place].span_id);
            let latest = last.entry(own).or_insert(place);
            if key(*latest) < key(place) {
                *latest = place;
            }
        }
        // One that was answered after all is told by what was passed on last, or tells that.
        for &(copy, of) in relayed.iter().filter(|(copy, _)| !is_failure(self.steps[*copy].status)) {
            last.remove(&copy);
            last.remove(&of);
        }
        let says_nothing = |step: &Step| {
            let facts = &step.facts;
            let is_told = facts.tokens.is_some() || facts.response_id.is_some() || !facts.finish_reasons.is_empty();
            step.status == StepStatus::Success && !is_told
        };
        last.into_iter().filter(|(own, _)| says_nothing(&self.steps[*own])).collect()
    }

    /// Finds calls of which a layer tells within the time of the client's own step, where both have one parent: what a client
    /// returns at once, a stream say, a layer may begin to tell of a moment later. They used the same, or both failed.
    fn within(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> Vec<(usize, usize)> {
        let is_at_wire = |facts: &StepFacts| facts.is_at_wire && !facts.is_relayed;
        let is_layer = |facts: &StepFacts| {
            !facts.is_at_wire && !facts.is_relayed && facts.response_id.is_none() && facts.kind == StepKind::Llm
        };
        let is_client = |step: &Step| is_at_wire(&step.facts) && !around.contains(&step.span_id);
        // A stream that was given up has no count of what came out, or the one that it began with.
        let used_same = |client: &Step, layer: &Step| {
            let Some((own, told)) = client.facts.tokens.zip(layer.facts.tokens) else { return false };
            let is_same_out = own.completion == told.completion;
            let is_unknown_out = own.completion.is_none() && client.status == StepStatus::Cancelled;
            own.prompt.is_some() && own.prompt == told.prompt && (is_same_out || is_unknown_out)
        };
        let both_failed = |client: &Step, layer: &Step| {
            is_failure(client.status)
                && is_failure(layer.status)
                && client.facts.tokens.is_none()
                && layer.facts.tokens.is_none()
        };
        // When clients began and ended, by the step that they are below.
        let clients = std::cell::LazyCell::new(|| {
            let mut clients: IdMap<Option<SpanId>, Vec<(UnixNanos, Option<UnixNanos>)>> = IdMap::default();
            for client in self.steps.iter().filter(|step| step.facts.billed && is_at_wire(&step.facts)) {
                clients.entry(client.parent).or_default().push((client.started_at, client.ended_at));
            }
            clients.values_mut().for_each(|times| times.sort_unstable());
            clients
        });
        // One within the layer's time is the layer's, and the one around it another.
        let has_its_own = |layer: &Step| {
            let times = clients.get(&layer.parent).map(Vec::as_slice).unwrap_or_default();
            let began_before = |(start, _): &(UnixNanos, Option<UnixNanos>)| *start <= layer.started_at;
            let since = times[times.partition_point(began_before)..].iter().take(MAX_AT_ONCE);
            since
                .take_while(|(start, _)| Some(*start) <= layer.ended_at)
                .any(|(_, end)| end.is_some() && *end <= layer.ended_at)
        };
        let is_one = |client: &Step, layer: &Step| {
            let providers = client.facts.provider.as_ref().zip(layer.facts.provider.as_ref());
            is_most_of(layer, client)
                && !around.contains(&layer.span_id)
                && providers.is_none_or(|(own, told)| own == told)
                && (both_failed(client, layer) || used_same(client, layer))
                && !has_its_own(layer)
        };
        let mut found = self.joined(copies, is_layer, is_client, |step| step.parent, is_one, 0);
        let mut told = HashSet::new();
        found.retain_mut(|(copy, of)| {
            let (layer, client) = if self.steps[*copy].facts.is_at_wire { (*of, *copy) } else { (*copy, *of) };
            // One that failed may seem to be told by several.
            if !told.insert(client) {
                return false;
            }
            let (own, said) = (&self.steps[client], &self.steps[layer]);
            // Of two that failed, the one that knows why counts; of a stream that was given up the client knows that.
            let counts = match (is_failure(own.status), is_failure(said.status)) {
                (true, true) if rank(said) > rank(own) => layer,
                (true, _) => client,
                _ => *of,
            };
            (*copy, *of) = if counts == layer { (client, layer) } else { (layer, client) };
            true
        });
        found
    }

    /// Finds calls of which a layer tells without being around the client that tells them too: both have one parent, and
    /// the client's request falls into the time of the layer's step.
    fn beside(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> Vec<(usize, usize)> {
        let is_client = |facts: &StepFacts| facts.is_at_wire && !facts.is_relayed;
        let is_own = |step: &Step| !step.facts.is_at_wire && !around.contains(&step.span_id);
        self.joined(copies, is_client, is_own, |step| step.parent, |_, _| true, 0)
    }

    /// Finds calls of which two layers tell beside each other, the upper one without the answer's id, where neither is
    /// known to have made the request: one falls into the time of the other, and they used the same.
    fn unanswered(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> Vec<(usize, usize)> {
        let is_answered = |facts: &StepFacts| facts.response_id.is_some() && !facts.is_relayed;
        // What a client tells of its requests is of two, however alike they are.
        let is_layer = |step: &Step| !step.facts.is_at_wire && !around.contains(&step.span_id);
        let is_own = |step: &Step| step.facts.response_id.is_none() && is_layer(step);
        let used = |step: &Step| step.facts.tokens.and_then(|tokens| tokens.prompt.zip(tokens.completion));
        let is_one = |own: &Step, answered: &Step| {
            answered.ended_at.zip(own.ended_at).is_some_and(|(inner, outer)| inner.0 <= outer.0.saturating_add(TICK))
                && used(own).is_some()
                && used(own) == used(answered)
        };
        self.joined(copies, is_answered, is_own, |step| step.parent, is_one, TICK)
    }

    /// Returns the calls that are around a call: they tell of that, and of none beside it.
    fn around_calls(&self) -> IdSet<SpanId> {
        let calls = self.steps.iter().filter(|step| step.facts.billed);
        calls.flat_map(|call| self.calls_around(call)).map(|place| self.steps[place].span_id).collect()
    }

    /// Joins calls at the wire with the program's own of the same kind and place, each with the latest that began before
    /// it, or so many ns behind, had not ended, and may be the same.
    fn joined(
        &self,
        copies: &HashMap<usize, usize>,
        is_wire: impl Fn(&StepFacts) -> bool,
        is_own: impl Fn(&Step) -> bool,
        place_of: impl Fn(&Step) -> Option<SpanId>,
        is_one: impl Fn(&Step, &Step) -> bool,
        slack: u64,
    ) -> Vec<(usize, usize)> {
        let calls = || {
            let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
            calls.filter(|(place, _)| !copies.contains_key(place))
        };
        let by_start = |place: &usize| (self.steps[*place].started_at, self.steps[*place].span_id);
        let mut passed: Vec<usize> = Vec::new();
        let mut told: IdMap<_, Candidates> = IdMap::default();
        for (place, step) in calls() {
            if is_own(step) {
                told.entry((step.facts.kind, place_of(step))).or_default().to_come.push(place);
            } else if is_wire(&step.facts) && self.calls_around(step).is_empty() {
                passed.push(place);
            }
        }
        passed.sort_unstable_by_key(by_start);
        for candidates in told.values_mut() {
            candidates.to_come.sort_unstable_by_key(|place| std::cmp::Reverse(by_start(place)));
        }
        let mut found = Vec::new();
        for place in passed {
            let wire = &self.steps[place];
            let Some(candidates) = told.get_mut(&(wire.facts.kind, place_of(wire))) else { continue };
            let has_begun = |own: &usize| self.steps[*own].started_at.0 <= wire.started_at.0.saturating_add(slack);
            while let Some(own) = candidates.to_come.pop_if(|own| has_begun(own)) {
                candidates.under_way.push(own);
            }
            // Later ones begin later still.
            let is_over = |own: &usize| self.steps[*own].ended_at.is_some_and(|end| end < wire.started_at);
            while candidates.under_way.pop_if(|own| is_over(own)).is_some() {}
            let latest = candidates.under_way.len().saturating_sub(MAX_AT_ONCE);
            let may_be = |own: &usize| {
                let step = &self.steps[*own];
                !is_over(own) && may_be_one(&step.facts, &wire.facts) && is_one(step, wire)
            };
            let Some(last) = candidates.under_way[latest..].iter().rposition(may_be).map(|at| latest + at) else {
                continue;
            };
            let own_place = candidates.under_way[last];
            if is_failure(wire.status) {
                found.push((place, own_place));
                continue;
            }
            // It is answered.
            candidates.under_way.remove(last);
            let own = &self.steps[own_place];
            found.push(if rank(own) > rank(wire) { (place, own_place) } else { (own_place, place) });
        }
        found
    }

    /// Finds the tool call around a step that is another layer's word for it: a tool of the same name, or a plain step
    /// with the same id of the call.
    pub(super) fn tool_around(&self, step: &Step) -> Option<usize> {
        let mut parent = step.parent;
        for _ in 0..MAX_LAYERS {
            let place = parent.and_then(|parent| self.by_span.get(&parent)).copied()?;
            let outer = &self.steps[place];
            match outer.facts.kind {
                StepKind::Tool => return is_same_tool_call(&outer.facts, &step.facts).then_some(place),
                StepKind::Task => parent = outer.parent,
                _ => return None,
            }
        }
        None
    }

    /// Finds for each tool call the step below it that tells how it ended, where it does not itself: by place.
    pub(super) fn executions(&self) -> HashMap<usize, usize> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            if !matches!(step.facts.kind, StepKind::Tool | StepKind::Task) || step.ended_at.is_none() {
                continue;
            }
            let Some(tool) = self.tool_around(step) else { continue };
            let key = |place: &usize| (self.steps[*place].ended_at, self.steps[*place].span_id);
            let latest = last.entry(tool).or_insert(place);
            if key(latest) < key(&place) {
                *latest = place;
            }
        }
        last.retain(|tool, execution| {
            let (tool, execution) = (&self.steps[*tool], &self.steps[*execution]);
            tool.status == StepStatus::Success && is_failure(execution.status)
        });
        last
    }

    /// Returns the calls that may be other layers' words for this one: around it, of its kind, with at most plain
    /// steps between, not another answer, and not a try of another model; the innermost first.
    pub(super) fn calls_around(&self, step: &Step) -> Vec<usize> {
        let may_be_one = |place: &usize| {
            let outer = &self.steps[*place];
            let is_untold = outer.facts.response_id.is_none() || step.facts.response_id.is_none();
            outer.facts.kind == step.facts.kind && is_untold && !is_other_try(outer, step)
        };
        self.layers_above(step).filter(may_be_one).collect()
    }

    /// Returns what is above a step, the innermost first, up to what is neither a plain step nor of its kind.
    fn layers_above(&self, step: &Step) -> impl Iterator<Item = usize> {
        let kind = step.facts.kind;
        let above = |parent: Option<SpanId>| parent.and_then(|parent| self.by_span.get(&parent)).copied();
        let layers = std::iter::successors(above(step.parent), move |place| above(self.steps[*place].parent));
        layers.take(MAX_LAYERS).take_while(move |place| [kind, StepKind::Task].contains(&self.steps[*place].facts.kind))
    }

    /// Returns the places of the steps that are above themselves.
    fn circles(&self) -> HashSet<usize> {
        let mut circles = HashSet::new();
        let mut seen = vec![false; self.steps.len()];
        for start in 0..seen.len() {
            let (mut way, mut next) = (Vec::new(), Some(start));
            while let Some(place) = next.filter(|place| !seen[*place]) {
                seen[place] = true;
                way.push(place);
                next = self.steps[place].parent.and_then(|parent| self.by_span.get(&parent)).copied();
            }
            let closed = next.and_then(|place| way.iter().position(|other| *other == place));
            circles.extend(closed.into_iter().flat_map(|from| way[from..].iter().copied()));
        }
        circles
    }

    /// Returns the places of the steps that count.
    pub(super) fn counted(&self, copies: &HashMap<usize, usize>) -> Counted {
        let calls: Vec<usize> = (0..self.steps.len())
            .filter(|place| self.steps[*place].facts.billed && !copies.contains_key(place))
            .collect();
        let tokens = self.tellers(copies, |facts| facts.tokens.is_some());
        let costs = self.tellers(copies, |facts| facts.cost.is_some());
        Counted { calls, tokens, costs }
    }

    /// Returns which ended steps count.
    pub fn billing(&self) -> Billing {
        let counted = &self.sums().counted;
        let ended = |places: &[usize]| {
            let steps = places.iter().map(|place| &self.steps[*place]);
            steps.filter(|step| step.ended_at.is_some()).map(|step| step.span_id).collect()
        };
        let is_teller = |place: &usize| !self.steps[*place].facts.billed;
        let tellers: Vec<usize> = counted.tokens.iter().copied().filter(is_teller).collect();
        Billing { calls: ended(&counted.calls), tellers: ended(&tellers), costs: ended(&counted.costs) }
    }

    /// Returns the places of the steps that tell something of the bill, each part of it once: calls, and what encloses
    /// or is none, the innermost, where nothing below tells it.
    pub(super) fn tellers(&self, copies: &HashMap<usize, usize>, tells: impl Fn(&StepFacts) -> bool) -> Vec<usize> {
        let mut covered: IdSet<SpanId> = HashSet::default();
        let mut told: IdMap<_, usize> = IdMap::default();
        let mut repeated = HashSet::new();
        let (mut counted, mut others) = (Vec::new(), Vec::new());
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| tells(&step.facts)) {
            if !step.facts.billed {
                others.push((place, self.ancestors(step)));
                continue;
            }
            self.cover(step, &mut covered);
            // What two layers tell of one call is reported once.
            if repeated.insert((copies.get(&place).copied().unwrap_or(place), used_at(step))) {
                *told.entry(used_at(step)).or_default() += 1;
            }
            if !copies.contains_key(&place) {
                counted.push(place);
            }
        }
        // What is around another layer's word for a call encloses it as well.
        for (copy, of) in copies.iter().filter(|(_, of)| tells(&self.steps[**of].facts)) {
            if self.steps[*of].facts.billed {
                self.cover(&self.steps[*copy], &mut covered);
            }
        }
        others.sort_by_key(|(_, above)| std::cmp::Reverse(above.len()));
        // Of a sum alone nobody can say what it is the sum of.
        let tells_parts = |tokens: Tokens| tokens.prompt.is_some() && tokens.completion.is_some();
        let is_report = |step: &Step| step.facts.kind == StepKind::Task && step.facts.tokens.is_some_and(tells_parts);
        if others.iter().any(|(place, _)| is_report(&self.steps[*place])) {
            self.used_below(&counted, &mut told);
        }
        for (place, above) in others {
            if covered.contains(&self.steps[place].span_id) {
                continue;
            }
            // A plain step that says no more than what a call beside it used, or all those below a step beside it.
            let step = &self.steps[place];
            let same = told.get_mut(&used_at(step)).filter(|same| is_report(step) && **same > 0);
            if let Some(same) = same {
                *same -= 1;
                continue;
            }
            counted.push(place);
            covered.extend(above);
        }
        counted.sort_unstable();
        counted
    }

    /// Adds what the calls below each step used, all of them together.
    fn used_below(&self, calls: &[usize], told: &mut IdMap<UsedAt, usize>) {
        let mut below: IdMap<SpanId, Tokens> = HashMap::default();
        for step in calls.iter().map(|place| &self.steps[*place]) {
            for above in self.ancestors(step) {
                let sum = below.entry(above).or_default();
                *sum = sum.plus(step.facts.tokens.unwrap_or_default());
            }
        }
        for (span, tokens) in below {
            let Some(&place) = self.by_span.get(&span) else { continue };
            *told.entry((self.steps[place].parent, counts(tokens))).or_default() += 1;
        }
    }

    pub(super) fn bill(&self, counted: &Counted) -> Bill {
        let mut bill = Bill { unpriced: self.unpriced(counted).len() as u64, ..Bill::default() };
        let mut sources = HashSet::new();
        bill.llm_calls =
            counted.calls.iter().filter(|place| self.steps[**place].facts.kind == StepKind::Llm).count() as u64;
        for &place in &counted.tokens {
            let tokens = self.steps[place].facts.tokens.unwrap_or_default();
            bill.tokens = Some(bill.tokens.unwrap_or_default().plus(tokens.with_total()));
        }
        let mut cost_at: HashMap<usize, NanoUsd> = HashMap::default();
        for &place in &counted.costs {
            let Some((cost, source)) = self.steps[place].facts.cost else { continue };
            sources.insert(source);
            cost_at.insert(place, cost);
            bill.cost = Some(bill.cost.unwrap_or_default() + cost);
        }
        let answered = self.answering_models();
        let mut place_of: IdMap<&str, usize> = IdMap::default();
        for place in counted.all() {
            let facts = &self.steps[place].facts;
            let Some(model) = known_model(facts, &answered) else { continue };
            let cost = cost_at.get(&place).copied().unwrap_or_default();
            let of_model = *place_of.entry(model).or_insert_with(|| {
                bill.models.push((model.to_owned(), facts.provider.clone(), NanoUsd::default()));
                bill.models.len() - 1
            });
            bill.models[of_model].2 = bill.models[of_model].2 + cost;
        }
        bill.source = match (sources.len(), sources.iter().next()) {
            (0, _) => None,
            (1, Some(source)) => Some(*source),
            _ => Some(CostSource::Mixed),
        };
        bill
    }

    /// Returns the places of ended steps that used something of which nobody knows what it cost.
    pub(super) fn unpriced(&self, counted: &Counted) -> Vec<usize> {
        let told: HashSet<usize> = counted.costs.iter().copied().collect();
        let mut priced_below: IdSet<SpanId> = HashSet::default();
        let mut told_above: IdSet<SpanId> = HashSet::default();
        for &place in &counted.costs {
            if self.steps[place].facts.billed {
                priced_below.extend(self.ancestors(&self.steps[place]));
            }
        }
        for &place in counted.tokens.iter().chain(&counted.costs) {
            let step = &self.steps[place];
            if !step.facts.billed {
                told_above.insert(step.span_id);
            }
        }
        let is_unpriced = |place: &usize| {
            let step = &self.steps[*place];
            let facts = &step.facts;
            !told.contains(place)
                && step.status != StepStatus::Running
                && (facts.tokens.is_some() || !is_failure(step.status))
                && !priced_below.contains(&step.span_id)
                && (told_above.is_empty() || self.ancestors(step).is_disjoint(&told_above))
        };
        counted.all().into_iter().filter(is_unpriced).collect()
    }

    /// Returns by provider and requested model the model that answered first.
    pub(super) fn answering_models(&self) -> IdMap<Asked<'_>, &str> {
        let mut models = IdMap::default();
        for facts in self.steps.iter().map(|step| &*step.facts) {
            if let Some(model) = facts.response_model.as_deref() {
                models.entry(asked(facts)).or_insert(model);
            }
        }
        models
    }

    /// Returns the places of the failures, each once: a step that failed because a step below it did is the same failure, and so is
    /// a plain one that encloses nothing and says, of the same time, what a call of a model or a tool says, or nothing but that it
    /// failed. A try that failed inside a call that went well is a failure, though no call of its own.
    pub(super) fn failures(&self, copies: &HashMap<usize, usize>) -> Vec<usize> {
        let executions = self.executions();
        let is_failed = |place: &usize| is_failure(self.steps[*place].status) || executions.contains_key(place);
        // What failed without a word, as a request below a call does, leaves it to the step that it failed for.
        let says_nothing = |step: &Step| {
            let error = step.facts.error.as_ref();
            step.facts.kind == StepKind::Task
                && error.is_some_and(|error| error.kind.is_none() && error.message.is_none())
        };
        let leaves_it = |place: &usize| {
            let step = &self.steps[*place];
            let above = step.parent.filter(|_| says_nothing(step)).and_then(|parent| self.by_span.get(&parent));
            above.is_some_and(|above| is_failed(above) && !copies.contains_key(above))
        };
        let is_try = |place: &usize| {
            let step = &self.steps[*place];
            let mut around = self.calls_around(step).into_iter().map(|outer| &self.steps[outer]);
            step.facts.billed && !step.facts.is_relayed && around.any(|outer| outer.status == StepStatus::Success)
        };
        let is_own = |place: &usize| !copies.contains_key(place) || is_try(place);
        let failed: Vec<usize> =
            (0..self.steps.len()).filter(|place| is_failed(place) && is_own(place) && !leaves_it(place)).collect();
        let mut passed_on: IdSet<SpanId> = HashSet::default();
        for &place in &failed {
            self.cover(&self.steps[place], &mut passed_on);
        }
        // What has lost the step above it is below the one that stands for the run all the same.
        if let Some(host) = self.host_step() {
            let is_lost = |place: &usize| {
                let above = self.ancestors(&self.steps[*place]);
                !above.contains(&host.span_id) && above.iter().any(|span| !self.by_span.contains_key(span))
            };
            if failed.iter().any(is_lost) {
                passed_on.insert(host.span_id);
            }
        }
        let mut own: Vec<usize> =
            failed.into_iter().filter(|place| !passed_on.contains(&self.steps[*place].span_id)).collect();
        let is_call = |step: &Step| step.facts.billed || step.facts.kind == StepKind::Tool;
        let calls: Vec<&Step> = own.iter().map(|place| &self.steps[*place]).filter(|step| is_call(step)).collect();
        let mut of_kind: IdMap<&str, Vec<&Step>> = IdMap::default();
        for step in &calls {
            let kind = step.facts.error.as_ref().and_then(|error| error.kind.as_deref());
            of_kind.entry(kind.unwrap_or_default()).or_default().push(step);
        }
        own.retain(|place| {
            let step = &self.steps[*place];
            // An agent that fails fails for itself.
            let is_plain = matches!(step.facts.kind, StepKind::Task | StepKind::Workflow);
            let Some(error) = step.facts.error.as_ref().filter(|_| is_plain) else { return true };
            // What gives no reason may be of another class, as the answer of a web server is.
            let same = match error.message {
                Some(_) => of_kind.get(error.kind.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice),
                None => &calls,
            };
            let is_near = |call: &Step| step.parent.is_none_or(|parent| self.ancestors(call).contains(&parent));
            !same.iter().rev().take(MAX_AT_ONCE).any(|call| is_near(call) && is_told_again(call, step))
        });
        own
    }

    pub(super) fn tool_calls(&self, copies: &HashMap<usize, usize>) -> u64 {
        let tools = self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool);
        tools.filter(|(place, _)| !copies.contains_key(place)).count() as u64
    }

    /// Adds all above a step to a set that holds whatever is above each of its members.
    pub(super) fn cover(&self, step: &Step, covered: &mut IdSet<SpanId>) {
        let mut parent = step.parent;
        while let Some(span) = parent.filter(|span| covered.insert(*span)) {
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
    }
}

/// Tells two answers that have one id by chance from one that was told twice: one call was over before the other began, and
/// they used something else. Ollama draws ids below 1,000, and others count up from the time in seconds.
fn are_two_answers(one: &Step, other: &Step) -> bool {
    let before = |first: &Step, second: &Step| {
        first.ended_at.is_some_and(|end| first.started_at < end && end <= second.started_at)
            && second.ended_at != Some(second.started_at)
    };
    let used = |step: &Step| step.facts.tokens.map(|tokens| (tokens.prompt, tokens.completion));
    let differs = used(one).zip(used(other)).is_some_and(|(one, other)| one != other);
    differs && (before(one, other) || before(other, one))
}

/// Tells whether a step lies within another, and takes most of its time, but for moments.
fn is_most_of(inner: &Step, outer: &Step) -> bool {
    /// What passes between two layers' words for one call.
    const MOMENTS: u64 = 50_000_000;
    let is_within = |(end, last): &(UnixNanos, UnixNanos)| end.0 <= last.0.saturating_add(TICK);
    let Some((end, last)) = inner.ended_at.zip(outer.ended_at).filter(is_within) else { return false };
    let outside = inner.started_at.0.saturating_sub(outer.started_at.0) + last.0.saturating_sub(end.0);
    outside <= MOMENTS || outside <= last.0.saturating_sub(outer.started_at.0) / 4
}

/// Tells whether a step says of the same time that a call failed, in the words of the call or without any.
fn is_told_again(call: &Step, step: &Step) -> bool {
    let message = |step: &Step| step.facts.error.as_ref().and_then(|error| error.message.clone());
    let says_so = |told: String| message(call).is_some_and(|own| !own.is_empty() && told.contains(&own));
    step.started_at <= call.started_at
        && call.ended_at.zip(step.ended_at).is_some_and(|(inner, outer)| inner <= outer)
        && message(step).is_none_or(says_so)
}

/// What was used, and below which step.
type UsedAt = (Option<SpanId>, [Option<u64>; 5]);

fn used_at(step: &Step) -> UsedAt {
    (step.parent, counts(step.facts.tokens.unwrap_or_default()))
}

fn counts(tokens: Tokens) -> [Option<u64>; 5] {
    let Tokens { prompt, completion, cache_read, cache_write, reasoning, .. } = tokens;
    [prompt, completion, cache_read, cache_write, reasoning]
}

fn asked(facts: &StepFacts) -> Asked<'_> {
    (facts.provider.as_deref(), facts.request_model.as_deref())
}

/// Tells whether two layers may speak of one call: no two answers, and no two models.
fn may_be_one(own: &StepFacts, wire: &StepFacts) -> bool {
    let is_untold = own.model().is_none() || wire.model().is_none();
    let are_one = || models(own).any(|one| models(wire).any(|other| is_same_model(one, other)));
    (own.response_id.is_none() || wire.response_id.is_none()) && (is_untold || are_one())
}

/// Tells whether a call inside another is a try that failed, and of another model: layers have many names for one, and only
/// what failed is known to be no more than tried.
fn is_other_try(outer: &Step, inner: &Step) -> bool {
    let tells = |step: &Step| step.facts.model().is_some();
    let are_one = || models(&outer.facts).any(|one| models(&inner.facts).any(|other| is_same_model(one, other)));
    is_failure(inner.status) && tells(outer) && tells(inner) && !are_one()
}

/// Returns the models that were asked for and that answered.
fn models(facts: &StepFacts) -> impl Iterator<Item = &str> {
    [&facts.request_model, &facts.response_model].into_iter().flatten().map(String::as_str)
}

/// Tells whether two names are of one model: one stands in the other, with who serves it before it and its version behind,
/// like `gpt-4o` in `openai/gpt-4o-2024-08-06`.
fn is_same_model(one: &str, other: &str) -> bool {
    if one == other {
        return !one.is_empty();
    }
    let bare = |name: &str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let (one, other) = (bare(one), bare(other));
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    // A short number is of the model's own name: `claude-sonnet-4-5` is none of `claude-sonnet-4`.
    let is_version = |part: &str| {
        matches!(part, "latest" | "preview" | "exp")
            || (is_number(part) && part.len() > 2)
            || part.strip_prefix('v').is_some_and(is_number)
    };
    let is_rest = |part: &str| is_version(part) || is_number(part);
    !short.is_empty()
        && long.match_indices(&short).any(|(at, found)| {
            let (before, behind) = (&long[..at], &long[at + found.len()..]);
            let begins = before.is_empty() || before.ends_with(['.', ':']);
            let mut parts = behind.strip_prefix(['-', '@', ':']).unwrap_or(behind).split(['-', '@', ':', '.']);
            let is_versioned = behind.starts_with(['-', '@', ':']) && parts.next().is_some_and(is_version);
            begins && (behind.is_empty() || (is_versioned && parts.all(is_rest)))
        })
}

/// Returns the model of a call; for one without an answer the model that answered the same request elsewhere in the
/// run, so that `gpt-4o` and `gpt-4o-2024-08-06` are not taken for two.
pub(super) fn known_model<'a>(facts: &'a StepFacts, answered: &IdMap<Asked<'a>, &'a str>) -> Option<&'a str> {
    facts.response_model.as_deref().or_else(|| answered.get(&asked(facts)).copied()).or(facts.model())
}

/// What a call knows of its bill, what matters more first: whether it was given from a recording, its tokens, its cost, how
/// many parts of the tokens that have a price of their own, its model, why it failed, and whether it spoke to the server itself.
type Knowledge = (bool, bool, bool, usize, bool, bool, bool);

/// How much a call knows of its bill; of two that know the same, the one that spoke to the server knows better. Who only
/// passed the call on does if it tells of cached tokens, which have a price of their own and which many a program leaves out.
fn knowledge(step: &Step) -> Knowledge {
    let facts = &step.facts;
    let is_some = |count: &Option<u64>| count.is_some_and(|count| count > 0);
    let tokens = facts.tokens.unwrap_or_default();
    let tells_cache = is_some(&tokens.cache_read) || is_some(&tokens.cache_write);
    let is_at_wire = facts.is_at_wire && (!facts.is_relayed || tells_cache);
    // What was given from a recording was not billed, whatever the program makes of it.
    let is_replayed = facts.response_id.as_deref().is_some_and(|id| id.starts_with(names::REPLAYED_ANSWER));
    let parts = [tokens.cache_read, tokens.cache_write, tokens.reasoning].iter().filter(|count| is_some(count)).count();
    let says_why = facts.error.as_ref().is_none_or(|error| error.message.is_some());
    (is_replayed, facts.tokens.is_some(), facts.cost.is_some(), parts, facts.model().is_some(), says_why, is_at_wire)
}

/// Of two calls that know the same, the program's own stands where it belongs in the run.
fn rank(step: &Step) -> (Knowledge, bool) {
    (knowledge(step), !step.facts.is_relayed)
}

/// Tells whether the first of two that tell one call is the one that counts.
fn outranks(one: &Step, other: &Step) -> bool {
    knows_how_it_ended(one, other) || (!knows_how_it_ended(other, one) && rank(one) > rank(other))
}

/// Tells whether the first of two that tell one call knows more of it.
fn knows_more(one: &Step, other: &Step) -> bool {
    knows_how_it_ended(one, other) || (!knows_how_it_ended(other, one) && knowledge(one) > knowledge(other))
}

/// Tells whether a client saw the failure of an answer that had begun, of which a layer tells what had come by then, and no reason
/// for its end: that is no more than the count with which an answer begins.
fn knows_how_it_ended(client: &Step, layer: &Step) -> bool {
    let (own, told) = (&client.facts, &layer.facts);
    let prompts = own.tokens.and_then(|tokens| tokens.prompt).zip(told.tokens.and_then(|tokens| tokens.prompt));
    let is_same_answer = match own.response_id.as_ref().zip(told.response_id.as_ref()) {
        Some((own, told)) => own == told,
        None => prompts.is_some_and(|(own, told)| own == told),
    };
    own.is_at_wire
        && !told.is_at_wire
        && is_failure(client.status)
        && layer.status == StepStatus::Success
        && told.finish_reasons.is_empty()
        && is_same_answer
}

/// Follows copies to the one that counts.
fn settled(copies: &HashMap<usize, usize>, mut place: usize) -> usize {
    while let Some(&next) = copies.get(&place) {
        place = next;
    }
    place
}

/// Tells whether two layers speak of one call of a tool: by its id, else by the tool's name.
fn is_same_tool_call(outer: &StepFacts, inner: &StepFacts) -> bool {
    match (&outer.tool_call_id, &inner.tool_call_id) {
        (Some(outer), Some(inner)) => outer == inner,
        _ => inner.kind == StepKind::Tool && outer.tool_name.is_some() && outer.tool_name == inner.tool_name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::otlp::Span;
    use crate::model::{ErrorInfo, EventId, RunId};

    /// A call: whether it was passed on, of which model, from when, for how long, with which answer's id, failed.
    type Told = (bool, u8, u64, u64, u8, bool);

    fn state(told: &[Told]) -> RunState {
        let mut state = RunState::new(RunId([1; 16]), RunId([1; 16]).as_trace_id());
        for (place, &(is_relayed, model, start, length, answer, is_failed)) in told.iter().enumerate() {
            let mut facts = StepFacts::of(&Span::default(), None, None);
            (facts.kind, facts.billed, facts.is_relayed) = (StepKind::Llm, true, is_relayed);
            facts.request_model = Some(format!("m{model}"));
            facts.response_id = (answer > 0).then(|| answer.to_string());
            let status = if is_failed { StepStatus::Error } else { StepStatus::Success };
            facts.tokens = (answer % 2 == 0).then(Tokens::default);
            state.steps.push(Step {
                step_id: place.to_string(),
                span_id: SpanId((place as u64 + 1).to_be_bytes()),
                trace_id: None,
                parent: None,
                has_remote_parent: false,
                start_event: EventId::from_parts(0, [0; 10]),
                started_at: UnixNanos(start),
                ended_at: (length < 9).then_some(UnixNanos(start + length)),
                status,
                facts: std::sync::Arc::new(facts),
                content: None,
            });
        }
        state
    }

    #[test]
    fn a_layer_beside_the_client_that_it_tells_of_is_a_copy() {
        let copies = |own: Told, wire: Told, change: &dyn Fn(&mut Step)| {
            let mut state = state(&[own, wire]);
            let wire = &mut state.steps[1];
            std::sync::Arc::make_mut(&mut wire.facts).is_at_wire = true;
            change(wire);
            state.duplicates()
        };
        let (layer, client) = ((false, 0, 1, 5, 0, false), (false, 0, 2, 3, 2, false));
        assert_eq!(copies(layer, client, &|_| ()), HashMap::from([(0, 1)]));
        // Another answer, another model, another time, another place.
        assert_eq!(copies((false, 0, 1, 5, 1, false), client, &|_| ()), HashMap::new());
        assert_eq!(copies((false, 1, 1, 5, 0, false), client, &|_| ()), HashMap::new());
        assert_eq!(copies((false, 0, 3, 5, 0, false), client, &|_| ()), HashMap::new());
        assert_eq!(copies(layer, client, &|step| step.parent = Some(SpanId([9; 8]))), HashMap::new());
        assert_eq!(
            copies(layer, client, &|step| std::sync::Arc::make_mut(&mut step.facts).is_at_wire = false),
            HashMap::new()
        );
        // The layer is around another call of the client.
        let mut state = state(&[layer, client, (false, 0, 2, 2, 0, false)]);
        std::sync::Arc::make_mut(&mut state.steps[1].facts).is_at_wire = true;
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.steps[2].parent = Some(state.steps[0].span_id);
        assert_eq!(state.duplicates().get(&0), None);
        // The layer names the model that answered.
        let answered = |step: &mut Step| {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.request_model, facts.response_model) = (Some("alias".into()), Some("m0".into()));
        };
        assert_eq!(copies(layer, client, &answered), HashMap::from([(0, 1)]));
    }

    #[test]
    fn a_layer_within_the_time_of_the_client_beside_it_is_a_copy() {
        use StepStatus::{Cancelled, Error, Success};
        /// When it began and ended, in seconds, how, and what it used.
        type Call = (u64, u64, StepStatus, Option<Tokens>);
        let used = |prompt: u64, completion: Option<u64>| {
            Some(Tokens { prompt: Some(prompt), completion, ..Tokens::default() })
        };
        // Clients first, then layers; `change` has the place of a step.
        let copies_of = |clients: &[Call], layers: &[Call], change: &dyn Fn(usize, &mut StepFacts)| {
            let calls: Vec<_> = clients.iter().chain(layers).collect();
            let mut state = state(&vec![(false, 0, 0, 0, 0, false); calls.len()]);
            for (place, (step, &&(start, end, status, tokens))) in state.steps.iter_mut().zip(&calls).enumerate() {
                let at = |seconds: u64| UnixNanos(seconds * 1_000_000_000);
                (step.started_at, step.ended_at, step.status) = (at(start), Some(at(end)), status);
                let facts = std::sync::Arc::make_mut(&mut step.facts);
                (facts.tokens, facts.is_at_wire) = (tokens, place < clients.len());
                // Only layers say why.
                let message = (place >= clients.len()).then(|| "401".to_owned());
                facts.error = is_failure(status).then(|| ErrorInfo { message, ..ErrorInfo::default() });
                change(place, facts);
            }
            let mut copies: Vec<_> = state.duplicates().into_iter().collect();
            copies.sort_unstable();
            copies
        };
        let copies = |clients: &[Call], layers: &[Call]| copies_of(clients, layers, &|_, _| ());
        let answered = used(341, Some(102));
        let client = (100, 180, Success, answered);
        assert_eq!(copies(&[client], &[(110, 170, Success, answered)]), [(1, 0)]);
        // It used something else, ended later, took a small part of the time, or answered where the client did not.
        assert_eq!(copies(&[client], &[(110, 170, Success, used(341, Some(103)))]), []);
        assert_eq!(copies(&[(100, 160, Success, answered)], &[(110, 190, Success, answered)]), []);
        assert_eq!(copies(&[client], &[(130, 170, Success, answered)]), []);
        assert_eq!(copies(&[(100, 180, Error, None)], &[(110, 170, Success, None)]), []);
        // Chunks that are embedded at once are alike, and so may be what two providers count.
        let embeds = |_, facts: &mut StepFacts| facts.kind = StepKind::Embedding;
        assert_eq!(copies_of(&[client], &[(110, 170, Success, answered)], &embeds), []);
        let serves = |place, facts: &mut StepFacts| facts.provider = Some(format!("p{place}"));
        assert_eq!(copies_of(&[client], &[(110, 170, Success, answered)], &serves), []);
        // Of a stream that was given up the client says so, and the layer has the count that it began with.
        let begun = (110, 170, Success, used(341, Some(1)));
        assert_eq!(copies(&[(100, 180, Cancelled, used(341, None))], &[begun]), [(1, 0)]);
        assert_eq!(copies(&[(100, 180, Success, used(341, None))], &[begun]), []);
        // Of two that failed the one that says why counts; of two layers that did one is another call.
        assert_eq!(copies(&[(100, 180, Error, None)], &[(110, 170, Error, None)]), [(0, 1)]);
        assert_eq!(copies(&[(100, 180, Error, None)], &[(101, 170, Error, None), (110, 179, Error, None)]), [(0, 1)]);
        // Two at once, alike in all, are two.
        let other = (120, 200, Success, answered);
        let layers = [(110, 170, Success, answered), (130, 190, Success, answered)];
        assert_eq!(copies(&[client, other], &layers), [(2, 0), (3, 1)]);
        // The layer has a client of its own: the one before it, which was given up, is another.
        let given_up = (100, 180, Cancelled, used(341, None));
        assert_eq!(copies(&[given_up, (112, 168, Success, answered)], &[(110, 170, Success, answered)]), [(2, 1)]);
    }

    #[test]
    fn of_two_layers_words_for_a_failure_those_of_the_one_that_counts_are_the_runs() {
        // The client ends last, and says nothing.
        let calls = [(false, 0, 10, 8, 0, true), (false, 0, 11, 6, 0, true), (false, 0, 9, 10, 0, true)];
        let why = || Some("401: no such key".to_owned());
        // The layer beside the client or around it, below an agent.
        for (of_client, message_of_client, counts) in [(2, None, "1"), (1, None, "1"), (2, why(), "0")] {
            let mut state = state(&calls);
            let kinds = [("authentication_error", message_of_client), ("AuthenticationError", why()), ("", None)];
            for (place, (step, (kind, message))) in state.steps.iter_mut().zip(kinds).enumerate() {
                let facts = std::sync::Arc::make_mut(&mut step.facts);
                (facts.is_at_wire, facts.tokens) = (place == 0, None);
                facts.error = Some(ErrorInfo {
                    kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
                    message,
                    step_id: None,
                });
                if place == 2 {
                    (facts.kind, facts.billed) = (StepKind::Agent, false);
                }
            }
            state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
            let spans: Vec<SpanId> = state.steps.iter().map(|step| step.span_id).collect();
            (state.steps[0].parent, state.steps[1].parent) = (Some(spans[of_client]), Some(spans[2]));
            state.roots = std::iter::once(2).collect();
            let error = state.error(crate::model::RunStatus::Error).unwrap();
            assert_eq!(error.message, why());
            assert_eq!(error.step_id.as_deref(), Some(counts));
        }
    }

    #[test]
    fn a_message_from_elsewhere_is_not_the_reason_of_a_failure_with_a_class_alone() {
        // An agent, a tool that it recovered from, and the call that ended it.
        let error_of = |errors: [Option<(&str, Option<&str>)>; 3]| {
            let mut state = state(&[(false, 0, 1, 8, 0, true), (false, 0, 2, 1, 0, true), (false, 0, 4, 4, 0, true)]);
            let root = state.steps[0].span_id;
            for (place, (step, error)) in state.steps.iter_mut().zip(errors).enumerate() {
                let facts = std::sync::Arc::make_mut(&mut step.facts);
                let [kind, message] =
                    [error.map(|error| error.0), error.and_then(|error| error.1)].map(|text| text.map(str::to_owned));
                (facts.error, facts.tokens) = (Some(ErrorInfo { kind, message, step_id: None }), None);
                let kinds = [StepKind::Agent, StepKind::Tool, StepKind::Llm];
                (facts.kind, facts.billed) = (kinds[place], place == 2);
                step.parent = (place > 0).then_some(root);
            }
            state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
            state.roots = std::iter::once(0).collect();
            let ErrorInfo { kind, message, step_id } = state.error(crate::model::RunStatus::Error).unwrap();
            [kind, message, step_id].map(Option::unwrap_or_default)
        };
        let limit = ("RateLimitError", None);
        let told = error_of([None, Some(("FileNotFoundError", Some("no such file"))), Some(limit)]);
        assert_eq!(told, ["RateLimitError", "", "2"]);
        // The agent passes on what went wrong below it.
        let told = error_of([Some(("RateLimitError", Some("no answer"))), None, Some(limit)]);
        assert_eq!(told, ["RateLimitError", "no answer", "2"]);
    }

    #[test]
    fn of_a_call_around_a_call_the_one_that_knows_more_counts() {
        let around = |change: &dyn Fn(&mut StepFacts, &mut StepFacts)| {
            let call = (false, 0, 1, 5, 0, false);
            let mut state = state(&[call, call]);
            state.steps[1].parent = Some(state.steps[0].span_id);
            state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
            let [outer, inner] = &mut state.steps[..] else { unreachable!() };
            change(std::sync::Arc::make_mut(&mut outer.facts), std::sync::Arc::make_mut(&mut inner.facts));
            state.duplicates()
        };
        assert_eq!(around(&|_, _| ()), HashMap::from([(1, 0)]));
        // Cached tokens, reasoning, and the model.
        let read = Tokens { cache_read: Some(64), ..Tokens::default() };
        assert_eq!(around(&|_, inner| inner.tokens = Some(read)), HashMap::from([(0, 1)]));
        let all = Tokens { reasoning: Some(16), ..read };
        let more =
            |outer: &mut StepFacts, inner: &mut StepFacts| (outer.tokens, inner.tokens) = (Some(read), Some(all));
        assert_eq!(around(&more), HashMap::from([(0, 1)]));
        assert_eq!(around(&|outer, _| outer.request_model = None), HashMap::from([(0, 1)]));
    }

    #[test]
    fn of_tries_that_are_around_each_other_none_is_the_other() {
        let mut state = state(&[(false, 0, 1, 5, 1, true), (false, 1, 2, 3, 3, true)]);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.steps[1].parent = Some(state.steps[0].span_id);
        assert_eq!(state.duplicates(), HashMap::from([(0, 1)]));
        state.steps[0].parent = Some(state.steps[1].span_id);
        assert_eq!(state.duplicates(), HashMap::new());
    }

    #[test]
    fn a_model_is_known_by_its_name_with_a_server_before_it_and_a_version_behind() {
        for (one, other) in [
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("openai/gpt-4o", "gpt-4o-2024-08-06"),
            ("claude-sonnet-4", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
            ("models/gemini-2.5-flash", "gemini-2.5-flash"),
            ("claude-3-5-haiku-latest", "Claude-3-5-haiku-latest"),
            ("llama3.2", "llama3.2:latest"),
        ] {
            assert!(is_same_model(one, other) && is_same_model(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("gpt-4o", "gpt-4o-mini"),
            ("gpt-4", "gpt-4o"),
            ("gpt-4o", "fallback:gpt-4o,claude-sonnet-4-5"),
            ("claude-sonnet-4", "claude-sonnet-4-5"),
            ("", "gpt-4o"),
        ] {
            assert!(!is_same_model(one, other) && !is_same_model(other, one), "{one} {other}");
        }
    }

    /// What `relayed` does, without sorting anything away: each call that was passed on against all others.
    fn by_the_rule(state: &RunState) -> Vec<(usize, usize)> {
        let mut passed: Vec<(usize, &Step)> =
            state.steps.iter().enumerate().filter(|(_, step)| step.facts.is_relayed).collect();
        passed.sort_by_key(|(_, step)| (step.started_at, step.span_id));
        let mut answered = HashSet::new();
        let mut found = Vec::new();
        for (place, wire) in passed {
            let own = state.steps.iter().enumerate().filter(|(place, own)| {
                !own.facts.is_relayed
                    && own.facts.request_model == wire.facts.request_model
                    && (own.facts.response_id.is_none() || wire.facts.response_id.is_none())
                    && own.started_at <= wire.started_at
                    && own.ended_at.is_none_or(|end| wire.started_at <= end)
                    && !answered.contains(place)
            });
            let Some((own_place, own)) = own.max_by_key(|(_, own)| (own.started_at, own.span_id)) else { continue };
            if is_failure(wire.status) {
                found.push((place, own_place));
                continue;
            }
            answered.insert(own_place);
            found.push(if rank(own) > rank(wire) { (place, own_place) } else { (own_place, place) });
        }
        found
    }

    /// A run of calls below one step; `change` has the place of a step.
    fn copies_of(told: &[Told], change: &dyn Fn(usize, &mut Step, &mut StepFacts)) -> Vec<(usize, usize)> {
        let mut state = state(told);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let mut facts = StepFacts::clone(&step.facts);
            change(place, step, &mut facts);
            step.facts = std::sync::Arc::new(facts);
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let mut copies: Vec<_> = state.duplicates().into_iter().collect();
        copies.sort_unstable();
        copies
    }

    fn used(prompt: u64, completion: u64) -> Option<Tokens> {
        Some(Tokens { prompt: Some(prompt), completion: Some(completion), ..Tokens::default() })
    }

    #[test]
    fn who_passed_a_call_on_knows_its_model_by_another_name() {
        let names = |own: Option<&str>, passed_on: &str| {
            let calls = [(false, 0, 1, 6, 0, false), (true, 0, 2, 4, 2, false)];
            copies_of(&calls, &|place, _, facts| {
                facts.request_model = if place == 0 { own.map(str::to_owned) } else { Some(passed_on.to_owned()) };
            })
            .len()
        };
        for own in [Some("gpt-4o-mini"), Some("gpt-4o-mini-2024-07-18"), Some("openai/gpt-4o-mini"), None] {
            assert_eq!(names(own, "gpt-4o-mini"), 1, "{own:?}");
        }
        assert_eq!(names(Some("gpt-4o"), "gpt-4o-mini"), 0);
    }

    #[test]
    fn a_stream_is_read_after_the_step_for_it_has_ended() {
        // A layer's step, and behind it the request; another layer's request beside that.
        let copies = |tokens: [Option<Tokens>; 2], is_relayed: bool, at: u64| {
            copies_of(&[(false, 0, 10, 2, 0, false), (is_relayed, 0, at, 8, 2, false)], &|place, _, facts| {
                (facts.tokens, facts.is_at_wire) = (tokens[place], place == 1);
            })
        };
        assert_eq!(copies([used(7, 3), used(7, 3)], true, 14), [(1, 0)]);
        assert_eq!(copies([used(7, 3), used(7, 3)], false, 14), [(0, 1)]);
        assert_eq!(
            copies([used(7, 3), used(7, 3)], false, 15 * TICK),
            [(0, 1)],
            "it took a quarter of the time at most"
        );
        // Something else, or nothing, was used, or the request came before.
        assert_eq!(copies([used(7, 3), used(7, 4)], true, 14), []);
        assert_eq!(copies([None, None], true, 14), []);
        assert_eq!(copies([used(7, 3), used(7, 3)], true, 5), []);
        // Each of two that are alike has its own request within its time.
        let alike = [
            (false, 0, 10, 5, 0, false),
            (false, 0, 11, 2, 2, false),
            (false, 0, 20, 5, 0, false),
            (false, 0, 21, 2, 4, false),
        ];
        let pairs = copies_of(&alike, &|place, _, facts| {
            (facts.tokens, facts.is_at_wire) = (used(7, 3), place % 2 == 1);
        });
        assert_eq!(pairs, [(0, 1), (2, 3)]);
    }

    #[test]
    fn what_is_around_a_copy_is_no_call_beside_the_one_that_counts() {
        // A framework's call around the client's, and who passed it on.
        let calls = [(false, 0, 1, 7, 0, false), (false, 0, 2, 5, 0, false), (true, 0, 3, 3, 2, false)];
        let copies = copies_of(&calls, &|place, step, facts| {
            facts.tokens = used(7, 3);
            step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
            if place == 2 {
                facts.tokens = facts.tokens.map(|tokens| Tokens { cache_read: Some(5), ..tokens });
            }
        });
        assert_eq!(copies, [(0, 2), (1, 2)]);
    }

    #[test]
    fn a_step_that_says_nothing_of_an_answer_ended_as_the_last_request_for_it_did() {
        let copies = |requests: [bool; 2], says: Option<&str>| {
            let [first, last] = requests;
            let calls = [(false, 0, 1, 8, 0, false), (true, 0, 2, 2, 0, first), (true, 0, 5, 2, 0, last)];
            copies_of(&calls, &|place, _, facts| {
                facts.tokens = None;
                facts.finish_reasons = says.filter(|_| place == 0).map(str::to_owned).into_iter().collect();
            })
        };
        assert_eq!(copies([true, true], None), [(0, 2), (1, 2)]);
        // It was answered, or it says how the answer ended.
        assert_eq!(copies([true, false], None).iter().filter(|(copy, _)| *copy == 0).count(), 0);
        assert_eq!(copies([true, true], Some("stop")), [(1, 0), (2, 0)]);
    }

    #[test]
    fn of_an_answer_that_broke_off_the_client_counts_which_saw_that() {
        let copies = |reason: Option<&str>, failed: bool| {
            let calls = [(false, 0, 1, 7, 1, false), (false, 0, 2, 5, 1, failed)];
            copies_of(&calls, &|place, step, facts| {
                facts.tokens = if place == 0 {
                    used(853, 1)
                } else {
                    used(853, 1).map(|tokens| Tokens { completion: None, ..tokens })
                };
                (facts.is_at_wire, facts.error) = (place == 1, None);
                facts.cost = (place == 0).then_some((NanoUsd(1), CostSource::Computed));
                facts.finish_reasons = reason.filter(|_| place == 0).map(str::to_owned).into_iter().collect();
                step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
            })
        };
        assert_eq!(copies(None, true), [(0, 1)]);
        assert_eq!(copies(Some("stop"), true), [(1, 0)]);
    }

    #[test]
    fn what_encloses_another_layers_word_for_a_call_is_no_part_of_the_bill() {
        // An agent with the sum, the layer's call below it, and who passed that on, below the command.
        let calls = [(false, 0, 1, 8, 0, false), (false, 0, 2, 5, 0, false), (true, 0, 3, 3, 2, false)];
        let mut state = state(&calls);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.kind, facts.billed) = if place == 0 { (StepKind::Agent, false) } else { (StepKind::Llm, true) };
            facts.tokens = used(7, 3).filter(|_| place != 1);
            step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let copies = state.duplicates();
        assert_eq!(copies, HashMap::from([(1, 2)]));
        assert_eq!(state.counted(&copies).tokens, [2]);
    }

    #[test]
    fn two_answers_that_have_one_id_by_chance_are_two_calls() {
        // Of each: start, length, tokens.
        let copies = |calls: [(u64, u64, Option<u64>); 2]| {
            let mut state = state(&calls.map(|(start, length, _)| (false, 0, start, length, 1, false)));
            for (step, (.., prompt)) in state.steps.iter_mut().zip(calls) {
                let facts = std::sync::Arc::make_mut(&mut step.facts);
                facts.tokens = prompt.map(|prompt| Tokens { prompt: Some(prompt), ..Tokens::default() });
            }
            state.duplicates().len()
        };
        assert_eq!(copies([(10, 5, Some(7)), (20, 5, Some(8))]), 0);
        assert_eq!(copies([(20, 5, Some(7)), (10, 5, Some(8))]), 0);
        // Two requests that were passed on are two, whatever else is alike.
        let passed_on = |is_other| {
            let calls = [(true, 0, 10, 5, 1, false), (is_other, 0, 20, 5, 1, false), (is_other, 0, 12, 5, 1, false)];
            state(&calls).duplicates().len()
        };
        assert_eq!((passed_on(true), passed_on(false)), (0, 2));
        // The program tells of each, too.
        let both = [(false, 10), (true, 11), (false, 20), (true, 21)];
        let copies_of_both = state(&both.map(|(is_relayed, start)| (is_relayed, 0, start, 5, 1, false))).duplicates();
        assert_eq!(copies_of_both.len(), 2, "{copies_of_both:?}");
        // From a cache of answers, or told by two layers, in whole or in part.
        assert_eq!(copies([(10, 5, Some(7)), (20, 5, Some(7))]), 1);
        assert_eq!(copies([(10, 8, Some(7)), (12, 5, Some(8))]), 1);
        assert_eq!(copies([(10, 5, Some(7)), (20, 5, None)]), 1);
        // A report of what came before.
        assert_eq!(copies([(10, 5, Some(7)), (15, 0, Some(8))]), 1);
        assert_eq!(copies([(15, 0, Some(7)), (10, 5, Some(8))]), 1);
    }

    proptest! {
        /// Whatever is above what, itself included.
        #[test]
        fn no_step_is_a_copy_of_a_copy(
            told in prop::collection::vec((any::<bool>(), 0..2_u8, 0..4_u64, 0..10_u64, 0..3_u8, any::<bool>()), 1..8),
            shape in prop::collection::vec((0..10_usize, 0..4_u8), 8),
        ) {
            let mut state = state(&told);
            state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
            let spans: Vec<SpanId> = state.steps.iter().map(|step| step.span_id).collect();
            for (step, (above, kind)) in state.steps.iter_mut().zip(shape) {
                step.parent = spans.get(above).copied();
                let facts = std::sync::Arc::make_mut(&mut step.facts);
                (facts.kind, facts.billed) = match kind {
                    0 => (StepKind::Task, false),
                    1 => (StepKind::Tool, false),
                    _ => (StepKind::Llm, true),
                };
                facts.tool_name = (kind == 1).then(|| "search".to_owned());
            }
            let copies = state.duplicates();
            for (copy, of) in &copies {
                prop_assert!(copy != of && !copies.contains_key(of), "{copies:?}");
            }
        }

        #[test]
        fn calls_that_were_passed_on_are_joined_by_the_rule(
            told in prop::collection::vec((any::<bool>(), 0..2_u8, 0..12_u64, 0..10_u64, 0..3_u8, any::<bool>()), 0..14)
        ) {
            let state = state(&told);
            prop_assert_eq!(state.relayed(&HashMap::new()), by_the_rule(&state));
        }
    }
}
