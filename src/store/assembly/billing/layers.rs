//! Which steps tell one call: layers around each other and beside each other, who passed a call on, and what only reports one.

use std::collections::{HashMap, HashSet};

use super::uses::{has_only_begun, likeness, may_have_used_the_same};
use super::{Asked, asked};
use crate::conventions::names;
use crate::model::id::{IdMap, IdSet};
use crate::model::{SpanId, StepKind, StepStatus, UnixNanos};
use crate::pipeline::facts::StepFacts;
use crate::store::assembly::{RunState, Step, is_failure};

/// How far above a call other layers' words for it are looked for, and how far back among answers that have one id.
pub(super) const MAX_LAYERS: usize = 32;

/// How far above a layer's parent a client may stand that the layer is not around.
const MAX_UP: usize = 12;

/// Calls that are under way at once, of which one may be that which was passed on.
pub(super) const MAX_AT_ONCE: usize = 256;

/// What may pass between two layers' words for one call, of which the first returns before the answer is read, in nanoseconds.
pub(super) const SOON: u64 = 100_000_000;

/// How far apart two layers may put one moment: in JavaScript a span's start is a whole millisecond, and its end has more digits.
pub(super) const TICK: u64 = 2_000_000;

/// A program's own calls of one kind and place, of which each may be one that was passed on.
#[derive(Default)]
struct Candidates {
    /// Those that have not begun yet, the next one last.
    to_come: Vec<usize>,
    /// Those that have, by start.
    under_way: Vec<usize>,
}

impl RunState {
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
                    if rank(&self.steps[*first]) < rank(step) {
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
        let around = self.around_calls();
        let mut relayed = self.relayed(&copies);
        relayed.extend(self.passed_on_in_turn(&copies, &relayed, &around));
        copies.extend(relayed.iter().copied());
        for (copy, of) in self.unanswered_in_the_end(&relayed) {
            copies.remove(&of);
            copies.insert(copy, of);
        }
        for (copy, of) in self.within(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.beside(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.unanswered(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.unanswered_inside(&copies, &around) {
            copies.insert(copy, of);
        }
        for (copy, of) in self.further_up(&copies, &around) {
            copies.insert(copy, of);
        }
        copies.extend(self.told_too_early(&copies));
        copies.extend(self.sums_of_passed_on(&copies, &around));
        // Of steps that broken input puts around each other, none is the outer one.
        let circles = std::cell::OnceCell::new();
        let is_in_circle = |place: usize, around: &[usize]| {
            !around.is_empty() && circles.get_or_init(|| self.circles()).contains(&place)
        };
        let askers = self.askers();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool) {
            if let Some(outer) = self.tool_around(step, &askers).filter(|outer| !is_in_circle(place, &[*outer])) {
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
        let holders = self.holders(&nested);
        let mut held: Vec<(usize, usize)> = holders.iter().map(|(holder, last)| (*holder, *last)).collect();
        held.sort_unstable();
        for (holder, last) in held {
            // What counts for the last of them may lie around the holder.
            if settled(&copies, last) != holder {
                copies.insert(holder, last);
            }
        }
        let mut known_better: HashMap<usize, usize> = HashMap::default();
        for &(place, ref around) in &nested {
            for &outer in around {
                let best = known_better.get(&outer).copied().unwrap_or(outer);
                if knowledge(&self.steps[place]) > knowledge(&self.steps[best]) {
                    known_better.insert(outer, place);
                }
            }
        }
        for (place, around) in nested {
            let same = |outer: &&usize| {
                !known_better.contains_key(outer)
                    && !holders.contains_key(outer)
                    && knowledge(&self.steps[**outer]) >= knowledge(&self.steps[place])
            };
            let of = known_better.get(&place).or_else(|| around.iter().rfind(same));
            if holders.contains_key(&place) {
                continue;
            }
            // One that is around the copy may be inside of what counts for it.
            if let Some(&of) = of.filter(|of| settled(&copies, **of) != place) {
                copies.insert(place, of);
            }
        }
        for (call, last_try) in self.tried(&copies, |place| is_in_circle(place, &[place])) {
            copies.insert(call, last_try);
        }
        self.join_told_twice(&mut copies);
        self.join_other_layers(&mut copies, &around);
        let mut copies: HashMap<usize, usize> =
            copies.iter().map(|(&copy, &of)| (copy, settled(&copies, of))).collect();
        let ended_otherwise = self.best_copies(&copies, knows_how_it_ended);
        put_first(&mut copies, ended_otherwise);
        // What holds several says of one of them what all used.
        let told: HashMap<usize, usize> =
            copies.iter().filter(|(copy, _)| !holders.contains_key(copy)).map(|(copy, of)| (*copy, *of)).collect();
        let whole = self.best_copies(&told, |copy, of| has_only_begun(of, copy));
        put_first(&mut copies, whole);
        copies
    }

    /// Finds calls that are none but hold several, one after the other, which together used more than is told of it, with the last
    /// of these: it tells of one of them, as a loop may of its last. What encloses such a one is told of in the same way.
    fn holders(&self, nested: &[(usize, Vec<usize>)]) -> HashMap<usize, usize> {
        let enclosing: HashSet<usize> = nested.iter().flat_map(|(_, around)| around).copied().collect();
        let mut inside: HashMap<usize, Vec<usize>> = HashMap::new();
        for (place, around) in nested.iter().filter(|(place, _)| !enclosing.contains(place)) {
            for outer in around {
                inside.entry(*outer).or_default().push(*place);
            }
        }
        let last_held = |(outer, mut places): (usize, Vec<usize>)| {
            places.sort_unstable_by_key(|place| (self.steps[*place].started_at, *place));
            places.dedup();
            let (holder, end) = (&self.steps[outer], self.steps[outer].ended_at?);
            let is_within = |place: &usize| {
                let call = &self.steps[*place];
                call.started_at.0.saturating_add(TICK) >= holder.started_at.0
                    && call.ended_at.is_some_and(|ended| ended.0 <= end.0.saturating_add(TICK))
            };
            if !places.iter().all(is_within) {
                return None;
            }
            let is_before = |pair: &[usize]| {
                let (first, second) = (&self.steps[pair[0]], &self.steps[pair[1]]);
                first.ended_at.is_some_and(|end| end.0 <= second.started_at.0.saturating_add(TICK))
            };
            // A try that failed used nothing that is told.
            let is_silent =
                |place: &usize| used(&self.steps[*place]).is_none() && is_failure(self.steps[*place].status);
            // Nobody tries again what was answered: another request followed.
            let last_is_silent = places.last().is_some_and(is_silent);
            let goes_on = last_is_silent && !places.iter().all(is_silent) && places.windows(2).all(is_before);
            places.retain(|place| !is_silent(place));
            let calls = places.iter().map(|place| &self.steps[*place]);
            let (told, each) = (used(holder)?, calls.clone().map(used).collect::<Option<Vec<_>>>()?);
            let sum =
                each.iter().fold((0u64, 0u64), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)));
            let covers = sum.0 >= told.0 && sum.1 >= told.1;
            let is_part = covers && sum != told;
            let tells_cost = holder.facts.cost.is_none() || calls.clone().all(|call| call.facts.cost.is_some());
            let is_holder =
                holder.facts.response_id.is_none() && !holder.facts.is_at_wire && !is_failure(holder.status);
            let is_one = places.len() > 1 && is_part && places.windows(2).all(is_before);
            places
                .last()
                .filter(|_| is_holder && tells_cost && (is_one || (goes_on && covers)))
                .map(|last| (outer, *last))
        };
        inside.into_iter().filter_map(last_held).collect()
    }

    /// Finds calls of which a copy knows better than the one that counts: by place, with the copy that knows most.
    fn best_copies(
        &self,
        copies: &HashMap<usize, usize>,
        knows_better: impl Fn(&Step, &Step) -> bool,
    ) -> HashMap<usize, usize> {
        let mut found: HashMap<usize, usize> = HashMap::new();
        let key = |place: usize| (rank(&self.steps[place]), self.steps[place].started_at, self.steps[place].span_id);
        for (&copy, &of) in copies {
            if !knows_better(&self.steps[copy], &self.steps[of]) {
                continue;
            }
            let best = found.entry(of).or_insert(copy);
            if key(*best) < key(copy) {
                *best = copy;
            }
        }
        found
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
    /// a report of the one before it, for the same model. A record of a log is one whatever it tells, of the call that asked the same.
    fn reported(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let is_record = |step: &Step| step.facts.marks.as_ref().is_some_and(|marks| marks.is_report);
        let takes_no_time = |step: &Step| step.ended_at == Some(step.started_at);
        let is_report = |step: &Step| takes_no_time(step) && (step.facts.tokens.is_some() || is_record(step));
        let input = |step: &Step| step.facts.marks.as_ref().and_then(|marks| marks.input);
        let calls = || {
            let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
            calls.filter(|(place, _)| !copies.contains_key(place))
        };
        let is_unreported = |step: &Step| {
            step.facts.tokens.is_none()
                && step.facts.response_id.is_none()
                && !is_failure(step.status)
                && step.ended_at.is_some()
                && !is_record(step)
        };
        let mut reports: Vec<(usize, &Step)> = calls().filter(|(_, step)| is_report(step)).collect();
        if reports.is_empty() {
            return Vec::new();
        }
        reports.sort_by_key(|(_, step)| (step.started_at, step.span_id));
        // The calls that each may be of, by what was asked, and for records by what with: as they end, the latest on top.
        type Key<'a> = (Option<SpanId>, StepKind, Asked<'a>, Option<Option<u32>>);
        fn key(step: &Step, with: Option<Option<u32>>) -> Key<'_> {
            (step.parent, step.facts.kind, asked(&step.facts), with)
        }
        let mut to_come: Vec<(usize, &Step)> = calls().filter(|(_, step)| is_unreported(step)).collect();
        to_come.sort_by_key(|(_, step)| std::cmp::Reverse((step.ended_at, step.span_id)));
        let mut before: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        for (place, report) in reports {
            let has_ended = |(_, call): &mut (usize, &Step)| call.ended_at.is_some_and(|end| end <= report.started_at);
            while let Some((place, call)) = to_come.pop_if(has_ended) {
                for key in [key(call, None), key(call, Some(input(call)))] {
                    before.entry(key).or_default().push(place);
                }
            }
            let with = is_record(report).then(|| input(report));
            let Some(calls) = before.get_mut(&key(report, with)) else { continue };
            while let Some(call) = calls.pop() {
                if taken.insert(call) {
                    found.push((call, place));
                    break;
                }
            }
        }
        found
    }

    /// Finds calls whose request began a moment after a layer's step for them had ended, as that of a stream which is read later
    /// may: they used the same, and no other is known of the layer's.
    fn told_too_early(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let of: HashSet<usize> = copies.values().copied().collect();
        let is_request =
            |step: &Step| step.facts.is_at_wire || step.facts.is_relayed || step.facts.response_id.is_some();
        // Calls that count, and of which a layer told in their time.
        let has_layer: HashSet<usize> = copies
            .iter()
            .filter(|(copy, of)| [**copy, **of].into_iter().any(|place| !is_request(&self.steps[place])))
            .map(|(copy, _)| settled(copies, *copy))
            .collect();
        let mut own: IdMap<_, Vec<usize>> = IdMap::default();
        let mut requests = Vec::new();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed) {
            let Some((prompt, completion)) = used(step) else { continue };
            if is_request(step) {
                requests.push((place, (step.facts.kind, [prompt, completion])));
            } else if step.ended_at.is_some() && !of.contains(&place) && !copies.contains_key(&place) {
                own.entry((step.facts.kind, [prompt, completion])).or_default().push(place);
            }
        }
        let end_of = |place: usize| (self.steps[place].ended_at, self.steps[place].span_id);
        own.values_mut().for_each(|places| places.sort_unstable_by_key(|place| end_of(*place)));
        requests.sort_unstable_by_key(|(place, _)| (self.steps[*place].started_at, self.steps[*place].span_id));
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        for (place, key) in requests {
            let counts = settled(copies, place);
            let Some(own) = own.get(&key).filter(|_| !has_layer.contains(&counts) && !taken.contains(&counts)) else {
                continue;
            };
            let wire = &self.steps[place];
            let took = wire.ended_at.map_or(0, |end| end.0.saturating_sub(wire.started_at.0));
            let is_of = |own: &Step| {
                let Some(end) = own.ended_at else { return false };
                // Another layer's beside it did no more than begin to ask, or the request follows at once.
                let is_brief = end.0.saturating_sub(own.started_at.0) <= took / 4;
                let is_next = wire.started_at.0.saturating_sub(end.0) <= 4 * TICK;
                let is_beside = wire.facts.is_relayed || (own.parent == wire.parent && (is_brief || is_next));
                is_beside && may_be_one(&own.facts, &wire.facts)
            };
            let before = own.partition_point(|own| self.steps[*own].ended_at <= Some(wire.started_at));
            let is_soon = |own: &&usize| {
                let end = self.steps[**own].ended_at.unwrap_or_default();
                wire.started_at.0.saturating_sub(end.0) <= SOON
            };
            let soon = own[..before].iter().rev().take_while(is_soon).take(MAX_AT_ONCE);
            let Some(&last) = soon.into_iter().find(|own| !taken.contains(*own) && is_of(&self.steps[**own])) else {
                continue;
            };
            taken.extend([last, counts]);
            let is_more = rank(&self.steps[last]) > rank(&self.steps[counts]);
            found.push(if is_more { (counts, last) } else { (last, counts) });
        }
        found
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
        let is_one = |own: &Step, answered: &Step| {
            answered.ended_at.zip(own.ended_at).is_some_and(|(inner, outer)| inner.0 <= outer.0.saturating_add(TICK))
                && used(own).is_some()
                && used(own) == used(answered)
        };
        self.joined(copies, is_answered, is_own, |step| step.parent, is_one, TICK)
    }

    /// Finds the same where the layer without the id is the inner one, and no other layer has told of either.
    fn unanswered_inside(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> Vec<(usize, usize)> {
        let is_inner = |facts: &StepFacts| facts.response_id.is_none() && !facts.is_at_wire && !facts.is_relayed;
        let is_outer = |step: &Step| {
            let facts = &step.facts;
            facts.response_id.is_some() && !facts.is_relayed && !facts.is_at_wire && !around.contains(&step.span_id)
        };
        let is_one = |answered: &Step, own: &Step| {
            own.ended_at.zip(answered.ended_at).is_some_and(|(inner, outer)| inner.0 <= outer.0.saturating_add(TICK))
                && used(own).is_some()
                && used(own) == used(answered)
                && !around.contains(&own.span_id)
        };
        let mut found = self.joined(copies, is_inner, is_outer, |step| step.parent, is_one, TICK);
        if !found.is_empty() {
            let of: HashSet<usize> = copies.values().copied().collect();
            found.retain(|(copy, counts)| !of.contains(copy) && !of.contains(counts));
        }
        found
    }

    /// Finds calls of which a layer tells without the answer's id, deeper in the tree than the client that tells them, too, and whose
    /// request falls into the layer's time: what reads a stream may have no place below it. They used the same, or both failed.
    /// A client that failed may know nothing of its server, and is known by the kind of its span where the layer is none of that kind.
    /// Of one without a parent that failed nothing is known but its time: it takes most of the layer's.
    fn further_up(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> Vec<(usize, usize)> {
        let knows_server = |facts: &StepFacts| facts.is_at_wire || facts.response_id.is_some();
        let is_failed_client = |facts: &StepFacts| facts.is_client && is_failure(facts.status) && !knows_server(facts);
        let is_layer =
            |step: &Step| !step.facts.is_relayed && !knows_server(&step.facts) && !around.contains(&step.span_id);
        let is_one = |layer: &Step, client: &Step| {
            let both_failed = is_failure(layer.status) && is_failure(client.status);
            let is_same = match (used(layer), used(client)) {
                (None, None) => both_failed,
                (told, own) => told == own,
            };
            is_same
                && client
                    .ended_at
                    .zip(layer.ended_at)
                    .is_some_and(|(inner, outer)| inner.0 <= outer.0.saturating_add(TICK))
                && client.parent != layer.parent
                && match client.parent {
                    Some(parent) => self.is_above(parent, layer),
                    None => !both_failed || is_most_of(client, layer),
                }
        };
        let is_client = |facts: &StepFacts| !facts.is_relayed && knows_server(facts);
        let mut found = self.joined(copies, is_client, is_layer, |_| None, is_one, TICK);
        if self.steps.iter().any(|step| is_failed_client(&step.facts)) {
            let known: HashMap<usize, usize> =
                copies.iter().map(|(copy, of)| (*copy, *of)).chain(found.clone()).collect();
            let is_client = |facts: &StepFacts| !facts.is_relayed && is_failed_client(facts);
            let is_layer = |step: &Step| is_layer(step) && !is_failed_client(&step.facts);
            found.extend(self.joined(&known, is_client, is_layer, |_| None, is_one, TICK));
        }
        found
    }

    /// Tells whether a span is above a step, and not too far.
    pub(super) fn is_above(&self, span: SpanId, step: &Step) -> bool {
        let above = |span: &SpanId| self.by_span.get(span).and_then(|place| self.steps[*place].parent);
        std::iter::successors(step.parent, above).take(MAX_UP).any(|above| above == span)
    }

    /// Returns the calls that are around a call: they tell of that, and of none beside it.
    pub(super) fn around_calls(&self) -> IdSet<SpanId> {
        let calls = self.steps.iter().filter(|step| step.facts.billed);
        calls.flat_map(|call| self.calls_around(call)).map(|place| self.steps[place].span_id).collect()
    }

    /// Joins calls at the wire with the program's own of the same kind and place, each with the latest that began before
    /// it, or so many ns behind, had not ended, and may be the same.
    pub(super) fn joined(
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
        if passed.is_empty() || told.is_empty() {
            return Vec::new();
        }
        passed.sort_unstable_by_key(by_start);
        for candidates in told.values_mut() {
            candidates.to_come.sort_unstable_by_key(|place| std::cmp::Reverse(by_start(place)));
        }
        let around = std::cell::LazyCell::new(|| self.around_calls());
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
                !is_over(own)
                    && may_be_one(&step.facts, &wire.facts)
                    && may_have_used_the_same(step, wire)
                    && is_one(step, wire)
            };
            // Of calls at once the one that says the same; else one that is around no other, which may end before what it is around
            // does; else the first to end of those that end behind the request, so that as many as there are find one; else the last.
            type Fit = (bool, bool, std::cmp::Reverse<Option<UnixNanos>>);
            let is_choice = candidates.under_way.len() > 1;
            let fit = |own: &Step| -> Fit {
                let end = own.ended_at.zip(wire.ended_at).filter(|(end, inner)| inner.0 <= end.0.saturating_add(TICK));
                let is_inner = is_choice && !around.contains(&own.span_id);
                (is_inner, end.is_some(), std::cmp::Reverse(end.map(|(end, _)| end)))
            };
            let mut best: Option<(([bool; 3], Fit), usize, usize)> = None;
            for (at, &own) in candidates.under_way.iter().enumerate().skip(latest).rev() {
                let key = (likeness(&self.steps[own], wire), fit(&self.steps[own]));
                if best.as_ref().is_none_or(|(most, ..)| key > *most) && may_be(&own) {
                    best = Some((key, at, own));
                }
            }
            let Some((_, at, own)) = best else { continue };
            if self.is_answered(place, own) {
                candidates.under_way.remove(at);
            }
            found.push(self.told_better(place, own));
        }
        found
    }

    /// Tells whether a request is the one that answered a call, and not a try before it that failed.
    pub(super) fn is_answered(&self, request: usize, own: usize) -> bool {
        let (wire, own) = (&self.steps[request], &self.steps[own]);
        // An answer that broke off was billed as far as it had come.
        let broke_off = wire.facts.tokens.is_some() && is_failure(own.status) && rank(own) < rank(wire);
        !is_failure(wire.status) || broke_off
    }

    /// Returns of a request and the call that it was made for which is the copy, and of which: the one that knows less.
    pub(super) fn told_better(&self, request: usize, own: usize) -> (usize, usize) {
        let is_less = rank(&self.steps[own]) <= rank(&self.steps[request]);
        if self.is_answered(request, own) && is_less { (own, request) } else { (request, own) }
    }

    /// Returns the steps that call a model.
    pub(super) fn askers(&self) -> IdSet<SpanId> {
        self.steps.iter().filter(|step| step.facts.billed).filter_map(|step| step.parent).collect()
    }

    /// Finds the tool call around a step that is another layer's word for it: a tool of the same name, or a plain step
    /// with the same id of the call. What calls a model in between is an agent with tools of its own, some of which may have the
    /// same name.
    pub(super) fn tool_around(&self, step: &Step, askers: &IdSet<SpanId>) -> Option<usize> {
        let mut parent = step.parent;
        for _ in 0..MAX_LAYERS {
            let place = parent.and_then(|parent| self.by_span.get(&parent)).copied()?;
            let outer = &self.steps[place];
            match outer.facts.kind {
                StepKind::Tool => return is_same_tool_call(&outer.facts, &step.facts).then_some(place),
                StepKind::Task if !askers.contains(&outer.span_id) => parent = outer.parent,
                _ => return None,
            }
        }
        None
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
}

/// Tells two answers that have one id by chance from one that was told twice: one call was over before the other began, and
/// they used something else, or both are of a client's instrumentation, which tells of each request once. Ollama draws ids below 1,000, and others count up from the time in seconds.
fn are_two_answers(one: &Step, other: &Step) -> bool {
    let before = |first: &Step, second: &Step| {
        first.ended_at.is_some_and(|end| first.started_at < end && end <= second.started_at)
            && second.ended_at != Some(second.started_at)
    };
    let used = |step: &Step| step.facts.tokens.map(|tokens| (tokens.prompt, tokens.completion));
    let differs = used(one).zip(used(other)).is_some_and(|(one, other)| one != other);
    let are_clients = one.facts.is_of_client && other.facts.is_of_client;
    (differs || are_clients) && (before(one, other) || before(other, one))
}

/// What passes between two layers' words for one call, in nanoseconds.
pub(super) const MOMENTS: u64 = 50_000_000;

/// Tells whether a step lies within another, and takes most of its time, but for moments.
pub(super) fn is_most_of(inner: &Step, outer: &Step) -> bool {
    is_all_but(inner, outer, MOMENTS)
}

/// Tells whether a step lies within another, and takes most of its time, but for so many nanoseconds.
pub(super) fn is_all_but(inner: &Step, outer: &Step, moments: u64) -> bool {
    let is_within = |(end, last): &(UnixNanos, UnixNanos)| end.0 <= last.0.saturating_add(TICK);
    let Some((end, last)) = inner.ended_at.zip(outer.ended_at).filter(is_within) else { return false };
    let outside = inner.started_at.0.saturating_sub(outer.started_at.0) + last.0.saturating_sub(end.0);
    outside <= moments || outside <= last.0.saturating_sub(outer.started_at.0) / 4
}

/// Tells whether two layers may speak of one call: no two answers, and no two models.
pub(super) fn may_be_one(own: &StepFacts, wire: &StepFacts) -> bool {
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
pub(super) fn models(facts: &StepFacts) -> impl Iterator<Item = &str> {
    [&facts.request_model, &facts.response_model].into_iter().flatten().map(String::as_str)
}

/// Tells whether two names are of one model: one stands in the other, with who serves it before it and its version behind,
/// like `gpt-4o` in `openai/gpt-4o-2024-08-06`.
pub(super) fn is_same_model(one: &str, other: &str) -> bool {
    /// No model's name is longer, and what is costs no more than a look.
    const MAX_BYTES: usize = 256;
    fn bare(name: &str) -> &str {
        name.rsplit('/').next().unwrap_or_default()
    }
    if one == other {
        return !one.is_empty();
    }
    let (one, other) = (bare(one), bare(other));
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    // Most differ by their first letters, and are not written anew to see it.
    let is_in = |part: &[u8]| part.eq_ignore_ascii_case(short.as_bytes());
    if short.is_empty() || long.len() > MAX_BYTES || !long.as_bytes().windows(short.len()).any(is_in) {
        return false;
    }
    let (short, long) = (short.to_ascii_lowercase(), long.to_ascii_lowercase());
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // A short number is of the model's own name: `claude-sonnet-4-5` is none of `claude-sonnet-4`.
    let is_version = |part: &str| {
        matches!(part, "latest" | "preview" | "exp")
            || (is_number(part) && part.len() > 2)
            || part.strip_prefix('v').is_some_and(is_number)
    };
    let is_rest = |part: &str| is_version(part) || is_number(part);
    let is_at = |at: usize| {
        let (before, behind) = (&long[..at], &long[at + short.len()..]);
        let begins = before.is_empty() || before.ends_with(['.', ':']);
        let mut parts = behind.strip_prefix(['-', '@', ':']).unwrap_or(behind).split(['-', '@', ':', '.']);
        let is_versioned = behind.starts_with(['-', '@', ':']) && parts.next().is_some_and(is_version);
        begins && (behind.is_empty() || (is_versioned && parts.all(is_rest)))
    };
    long.find(&short).is_some_and(is_at) || long.rfind(&short).is_some_and(is_at)
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
pub(super) fn rank(step: &Step) -> (Knowledge, bool) {
    (knowledge(step), !step.facts.is_relayed)
}

/// Tells whether a client saw the failure of an answer that had begun, of which a layer tells what had come by then, and no reason
/// for its end: that is no more than the count with which an answer begins. So does a layer around a client that says nothing of an
/// answer.
fn knows_how_it_ended(client: &Step, layer: &Step) -> bool {
    let is_around = client.started_at <= layer.started_at && client.ended_at >= layer.ended_at;
    let is_layer = !client.facts.is_at_wire && !client.facts.is_relayed;
    if is_layer && is_around && is_failure(client.status) && says_nothing(layer) {
        return true;
    }
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

/// Tells whether a step says that all went well, and nothing of an answer.
pub(super) fn says_nothing(step: &Step) -> bool {
    let facts = &step.facts;
    let is_told = facts.tokens.is_some() || facts.response_id.is_some() || !facts.finish_reasons.is_empty();
    step.status == StepStatus::Success && !is_told
}

/// Returns what a call used, where both sides are told.
pub(super) fn used(step: &Step) -> Option<(u64, u64)> {
    step.facts.tokens.and_then(|tokens| tokens.prompt.zip(tokens.completion))
}

/// Follows copies to the one that counts. Each is inserted only where this would not lead back to it; should one be all the same, it is
/// no reason never to end.
pub(super) fn settled(copies: &HashMap<usize, usize>, mut place: usize) -> usize {
    for _ in 0..=copies.len() {
        match copies.get(&place) {
            Some(&next) => place = next,
            None => break,
        }
    }
    place
}

/// Has calls be told by a copy of them, in the place of the step that counted.
fn put_first(copies: &mut HashMap<usize, usize>, better: HashMap<usize, usize>) {
    for (copy, of) in copies.iter_mut() {
        *of = better.get(of).copied().filter(|first| first != copy).unwrap_or(*of);
    }
    for (counted, first) in better {
        copies.remove(&first);
        copies.insert(counted, first);
    }
}

/// Tells whether two layers speak of one call of a tool: by its id, else by the tool's name.
fn is_same_tool_call(outer: &StepFacts, inner: &StepFacts) -> bool {
    match (&outer.tool_call_id, &inner.tool_call_id) {
        (Some(outer), Some(inner)) => outer == inner,
        _ => inner.kind == StepKind::Tool && outer.tool_name.is_some() && outer.tool_name == inner.tool_name,
    }
}
