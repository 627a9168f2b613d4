//! Calls that were passed on, and which of the program's own steps tell each of them.

use std::collections::{HashMap, HashSet};

use super::layers::{MAX_AT_ONCE, SOON, TICK, is_all_but, may_be_one, rank, says_nothing, settled};
use super::uses::{may_have_gone_in, may_have_used_the_same, used_the_same};
use crate::model::id::{IdMap, IdSet};
use crate::model::{SpanId, StepKind, StepStatus, Tokens, UnixNanos};
use crate::store::assembly::{RunState, Step, is_failure};

/// So many instrumentations may tell a call besides the first and the pass-through.
const MAX_OTHER_LAYERS: usize = 3;

impl RunState {
    /// Finds calls that were told by who passed them on and by the program, too, without a word in common: the same model
    /// was asked within the time of the program's own step, or a moment before it where both used the same. What the program tried
    /// again is one call.
    pub(super) fn relayed(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let is_own = |step: &Step| !step.facts.is_relayed;
        let mut found = self.joined(copies, |facts| facts.is_relayed, is_own, |_| None, |_, _| true, 0);
        let known = with_both(copies, &found);
        let is_late = |own: &Step, wire: &Step| {
            let ends_behind = |(end, last): (UnixNanos, UnixNanos)| end.0 <= last.0.saturating_add(TICK);
            let is_within = |end| own.started_at <= end && own.ended_at.is_none_or(|last| ends_behind((end, last)));
            used_the_same(own, wire) && wire.ended_at.is_some_and(is_within)
        };
        found.extend(self.joined(&known, |facts| facts.is_relayed, is_own, |_| None, is_late, SOON));
        found
    }

    /// Finds calls of which the program says that it asked the pass-through itself, at its own port: each is one that was passed on,
    /// whatever the moments that are told. They are taken in turn.
    pub(super) fn passed_on_in_turn(
        &self,
        copies: &HashMap<usize, usize>,
        relayed: &[(usize, usize)],
        around: &IdSet<SpanId>,
    ) -> Vec<(usize, usize)> {
        let port = |step: &Step| step.facts.local_port;
        let ports: HashSet<u16> =
            self.steps.iter().filter(|step| step.facts.is_relayed && step.facts.billed).filter_map(port).collect();
        if ports.is_empty() {
            return Vec::new();
        }
        let known = with_both(copies, relayed);
        let by_start = |place: &usize| (self.steps[*place].started_at, self.steps[*place].span_id);
        let mut passed: Vec<usize> = Vec::new();
        let mut own: HashMap<(StepKind, u16), Vec<usize>> = HashMap::new();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed) {
            let Some(port) = port(step).filter(|port| ports.contains(port) && !known.contains_key(&place)) else {
                continue;
            };
            if step.facts.is_relayed {
                passed.push(place);
            } else if !around.contains(&step.span_id) && self.calls_around(step).is_empty() {
                own.entry((step.facts.kind, port)).or_default().push(place);
            }
        }
        passed.sort_unstable_by_key(by_start);
        // The first one last.
        own.values_mut().for_each(|places| places.sort_unstable_by_key(|place| std::cmp::Reverse(by_start(place))));
        let mut found = Vec::new();
        for place in passed {
            let wire = &self.steps[place];
            let Some(own) = port(wire).and_then(|port| own.get_mut(&(wire.facts.kind, port))) else { continue };
            let may_be = |own: &usize| {
                let step = &self.steps[*own];
                // What failed is no word for what went well.
                let are_apart = is_failure(wire.status) && step.status == StepStatus::Success;
                may_be_one(&step.facts, &wire.facts) && may_have_used_the_same(step, wire) && !are_apart
            };
            let first = own.len().saturating_sub(MAX_AT_ONCE);
            if let Some(at) = own[first..].iter().rposition(may_be) {
                found.push(self.told_better(place, own.remove(first + at)));
            }
        }
        found
    }

    /// Finds the program's own steps that are none of the calls that were passed on but their sum, each with the last of these: of its
    /// model, in its time, told by no other step, and together they used just what it says. What was passed on is below the run, and
    /// so a step that holds several calls is around none of them.
    pub(super) fn sums_of_passed_on(
        &self,
        copies: &HashMap<usize, usize>,
        around: &IdSet<SpanId>,
    ) -> Vec<(usize, usize)> {
        let of: HashSet<usize> = copies.values().copied().collect();
        let is_told = |place: &usize| copies.contains_key(place) || of.contains(place);
        let calls = self.steps.iter().enumerate().filter(|(place, step)| {
            step.facts.billed && step.facts.kind == StepKind::Llm && step.ended_at.is_some() && !is_told(place)
        });
        let (mut passed, mut own): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for (place, step) in calls {
            let facts = &step.facts;
            let is_untold = facts.response_id.is_none() && !facts.is_at_wire && !around.contains(&step.span_id);
            if facts.is_relayed {
                passed.push(place);
            } else if is_untold && facts.tokens.is_some_and(|tokens| tokens.completion > Some(0)) {
                own.push(place);
            }
        }
        if passed.len() < 2 {
            return Vec::new();
        }
        let by_start = |place: &usize| (self.steps[*place].started_at, self.steps[*place].span_id);
        passed.sort_unstable_by_key(by_start);
        own.sort_unstable_by_key(by_start);
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        for place in own {
            let step = &self.steps[place];
            let Some((end, told)) = step.ended_at.zip(step.facts.tokens) else { continue };
            let from = passed.partition_point(|wire| self.steps[*wire].started_at.0 + TICK < step.started_at.0);
            let is_within = |wire: &Step| wire.ended_at.is_some_and(|last| last.0 <= end.0.saturating_add(TICK));
            let is_of = |wire: &&usize| {
                let wire_step = &self.steps[**wire];
                !taken.contains(*wire) && is_within(wire_step) && may_be_one(&step.facts, &wire_step.facts)
            };
            let since = passed[from..].iter().take_while(|wire| self.steps[**wire].started_at <= end);
            let held: Vec<usize> = since.take(MAX_AT_ONCE).filter(is_of).copied().collect();
            let used: Vec<Tokens> = held.iter().filter_map(|wire| self.steps[*wire].facts.tokens).collect();
            let sum = used.iter().fold(Tokens::default(), |sum, one| sum.plus(*one));
            let is_sum = used.len() > 1 && sum.completion == told.completion && may_have_gone_in(sum, told);
            if let Some(&last) = held.last().filter(|_| is_sum) {
                taken.extend(held);
                found.push((place, last));
            }
        }
        found
    }

    /// Finds steps of the program's own that say nothing of an answer, nor that they failed, while each request that was passed
    /// on for them did: then the last of those says how the call ended.
    pub(super) fn unanswered_in_the_end(&self, relayed: &[(usize, usize)]) -> Vec<(usize, usize)> {
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
        last.into_iter().filter(|(own, _)| says_nothing(&self.steps[*own])).collect()
    }

    /// Joins calls that were passed on, and that the program tells already, with what other instrumentations of it tell of them, without
    /// the answer's id: they asked the same model in whose time it was passed on, and used the same, or say nothing and began with
    /// another's step.
    pub(super) fn join_other_layers(&self, copies: &mut HashMap<usize, usize>, around: &IdSet<SpanId>) {
        let calls = self.steps.iter().filter(|step| step.facts.billed);
        let scopes: HashSet<u32> = calls.filter_map(scope).collect();
        // The pass-through's own is one.
        if scopes.len() < 3 {
            return;
        }
        let passed_on = self.steps.iter().enumerate().filter(|(_, step)| step.facts.is_relayed && step.facts.billed);
        let place_of: IdMap<SpanId, usize> = passed_on.map(|(place, step)| (step.span_id, place)).collect();
        for _ in 0..MAX_OTHER_LAYERS {
            let told = self.who_tells(copies, place_of.values().copied());
            let alone = self.alone(copies, around);
            let is_one = |own: &Step, wire: &Step| {
                let told = place_of.get(&wire.span_id).and_then(|place| told.get(&settled(copies, *place)));
                let Some((told, own_scope)) = told.zip(scope(own)) else { return false };
                let begins_with = |(_, start): &(u32, UnixNanos)| start.0.abs_diff(own.started_at.0) <= TICK;
                let text = |step: &Step| step.facts.marks.as_ref().and_then(|marks| marks.text);
                // Short answers to one prompt use the same.
                let says_the_same = || match text(own).zip(text(wire)) {
                    Some((one, other)) => one == other,
                    None => is_all_but(wire, own, SOON),
                };
                !told.is_empty()
                    && told.iter().all(|(scope, _)| *scope != own_scope)
                    && ((used_the_same(own, wire) && says_the_same())
                        || (own.facts.tokens.is_none() && told.iter().any(begins_with)))
            };
            let is_own = |step: &Step| alone.contains(&step.span_id);
            let found = self.joined(&HashMap::new(), |facts| facts.is_relayed, is_own, |_| None, is_one, TICK);
            if found.is_empty() {
                return;
            }
            for (own, wire) in self.last_requests(&found) {
                let (own, counts) = (settled(copies, own), settled(copies, wire));
                if own == counts {
                    continue;
                }
                let (step, other) = (&self.steps[own], &self.steps[counts]);
                // One that says nothing knows nothing of a failure.
                let is_more = rank(step) > rank(other) && (!is_failure(other.status) || is_failure(step.status));
                copies.insert(if is_more { counts } else { own }, if is_more { own } else { counts });
            }
        }
    }

    /// Returns which instrumentations tell each call that was passed on, and from when, by the step that counts.
    fn who_tells(
        &self,
        copies: &HashMap<usize, usize>,
        passed_on: impl Iterator<Item = usize>,
    ) -> HashMap<usize, Vec<(u32, UnixNanos)>> {
        let mut told: HashMap<usize, Vec<(u32, UnixNanos)>> =
            passed_on.map(|place| (settled(copies, place), Vec::new())).collect();
        let counted: Vec<usize> = told.keys().copied().collect();
        for place in counted.into_iter().chain(copies.keys().copied()) {
            let step = &self.steps[place];
            let told = told.get_mut(&settled(copies, place)).filter(|_| !step.facts.is_relayed);
            if let Some((told, scope)) = told.zip(scope(step)) {
                told.push((scope, step.started_at));
            }
        }
        told
    }

    /// Returns the program's steps without an answer's id that nothing else is known to tell. A try that failed is no word of
    /// another layer.
    fn alone(&self, copies: &HashMap<usize, usize>, around: &IdSet<SpanId>) -> IdSet<SpanId> {
        let is_try = |step: &Step| step.facts.is_relayed && is_failure(step.status);
        let told_by: HashSet<usize> =
            copies.iter().filter(|(copy, _)| !is_try(&self.steps[**copy])).map(|(_, of)| *of).collect();
        let is_alone = |(place, step): &(usize, &Step)| {
            let is_own = step.facts.billed && !step.facts.is_relayed && step.facts.response_id.is_none();
            let is_known = copies.contains_key(place) || told_by.contains(place) || around.contains(&step.span_id);
            is_own && !is_known && self.calls_around(step).is_empty()
        };
        self.steps.iter().enumerate().filter(is_alone).map(|(_, step)| step.span_id).collect()
    }

    /// Returns for each of the program's steps the request that answered it, else the last, in the order of the steps.
    fn last_requests(&self, found: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for &(copy, of) in found {
            let (own, wire) = if self.steps[copy].facts.is_relayed { (of, copy) } else { (copy, of) };
            let key = |place: usize| {
                let step = &self.steps[place];
                (!is_failure(step.status), step.started_at, step.span_id)
            };
            let latest = last.entry(own).or_insert(wire);
            if key(*latest) < key(wire) {
                *latest = wire;
            }
        }
        let mut last: Vec<(usize, usize)> = last.into_iter().collect();
        last.sort_unstable_by_key(|(own, _)| (self.steps[*own].started_at, self.steps[*own].span_id));
        last
    }
}

/// Returns who told a call.
fn scope(step: &Step) -> Option<u32> {
    step.facts.marks.as_ref().map(|marks| marks.scope)
}

/// Returns copies with both sides of others, as those that are known to be told.
fn with_both(copies: &HashMap<usize, usize>, more: &[(usize, usize)]) -> HashMap<usize, usize> {
    let both = more.iter().flat_map(|&(copy, of)| [(copy, of), (of, copy)]);
    copies.iter().map(|(copy, of)| (*copy, *of)).chain(both).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, copies_of, used};
    use super::*;
    use crate::model::{StepStatus, Tokens};
    use crate::pipeline::facts::{Marks, StepFacts};

    const MS: u64 = 1_000_000;

    /// Whether it was passed on, begin and end in ms, and what is told besides.
    type Call<'a> = (bool, u64, u64, &'a dyn Fn(&mut StepFacts));

    fn copies(calls: &[Call<'_>]) -> Vec<(usize, usize)> {
        let told: Vec<Told> = calls.iter().map(|(is_relayed, ..)| (*is_relayed, 0, 0, 0, 0, false)).collect();
        copies_of(&told, &|place, step, facts| {
            let (is_relayed, start, end, change) = calls[place];
            (step.started_at, step.ended_at) = (UnixNanos(start * MS), Some(UnixNanos(end * MS)));
            facts.tokens = None;
            facts.marks = Some(Box::new(Marks { scope: u32::from(!is_relayed), ..Marks::default() }));
            change(facts);
            step.status = facts.status;
        })
    }

    fn uses(prompt: u64, completion: u64) -> impl Fn(&mut StepFacts) {
        move |facts| facts.tokens = used(prompt, completion)
    }

    #[test]
    fn of_calls_at_once_each_is_the_request_that_used_the_same() {
        let [one, other] = [uses(237, 23), uses(274, 26)];
        let calls: [Call<'_>; 4] =
            [(false, 0, 90, &one), (false, 5, 100, &other), (true, 20, 30, &one), (true, 21, 80, &other)];
        assert_eq!(copies(&calls), [(2, 0), (3, 1)]);
        // Alike in all, each is of one request.
        let calls: [Call<'_>; 4] =
            [(false, 0, 90, &one), (false, 5, 100, &one), (true, 20, 30, &one), (true, 21, 80, &one)];
        assert_eq!(copies(&calls), [(2, 0), (3, 1)]);
        // Two that used something else are never one.
        assert_eq!(copies(&[(false, 0, 90, &one), (true, 20, 30, &other)]), []);
        // A program's span that begins a moment late.
        assert_eq!(copies(&[(false, 24, 90, &one), (true, 20, 30, &one)]), [(1, 0)]);
        assert_eq!(copies(&[(false, 24, 90, &other), (true, 20, 30, &one)]), []);
        assert_eq!(copies(&[(false, 31, 90, &one), (true, 20, 30, &one)]), []);
        assert_eq!(copies(&[(false, 22, 25, &one), (true, 20, 30, &one)]), []);
    }

    /// Mastra 0.24 (`@mastra/otel-exporter` 0.3.3): a generation is one call, which leaves out what was written to Anthropic's cache or, of
    /// cached input, all.
    #[test]
    fn a_step_that_has_the_sum_of_what_was_passed_on_is_no_call_beside() {
        let sum = |tokens: Option<Tokens>| {
            let own = move |facts: &mut StepFacts| facts.tokens = tokens;
            let cached = |prompt, completion, read, write| {
                move |facts: &mut StepFacts| {
                    let counts = used(prompt, completion).unwrap_or_default();
                    facts.tokens = Some(Tokens { cache_read: Some(read), cache_write: Some(write), ..counts });
                }
            };
            let [one, other] = [cached(211, 37, 64, 16), cached(321, 57, 97, 24)];
            copies(&[(false, 0, 90, &own), (true, 10, 30, &one), (true, 50, 80, &other)])
        };
        let without = |prompt| Some(Tokens { prompt, completion: Some(94), ..Tokens::default() });
        for prompt in [Some(532), Some(492), Some(331), None] {
            assert_eq!(sum(without(prompt)), [(0, 2)], "{prompt:?}");
        }
        assert_eq!(sum(without(Some(533))), []);
        assert_eq!(sum(used(532, 95)), []);
        // One of them is told by another step, or is not of its time.
        let [whole, one, other] = [uses(532, 94), uses(211, 37), uses(321, 57)];
        let calls: [Call<'_>; 4] =
            [(false, 0, 90, &whole), (false, 5, 35, &one), (true, 10, 30, &one), (true, 50, 80, &other)];
        assert_eq!(copies(&calls), [(2, 1)]);
        assert_eq!(copies(&[(false, 0, 70, &whole), (true, 10, 30, &one), (true, 50, 80, &other)]), []);
    }

    /// The AI SDK 7 (`@ai-sdk/otel` 1.0.173): the outer step of an embedding may end a moment before the inner one, which alone has counts.
    #[test]
    fn of_a_call_around_a_call_the_inner_one_was_passed_on() {
        let told: [Told; 3] = [(false, 0, 0, 0, 0, false), (false, 0, 1, 0, 0, false), (true, 0, 3, 0, 0, false)];
        for ends in [[48, 49, 47], [50, 49, 47]] {
            let copies = copies_of(&told, &|place, step, facts| {
                (step.started_at, step.ended_at) =
                    (UnixNanos(step.started_at.0 * MS), Some(UnixNanos(ends[place] * MS)));
                facts.kind = StepKind::Embedding;
                facts.tokens = (place > 0).then(|| Tokens { prompt: Some(14), ..Tokens::default() });
                step.parent = (place == 1).then(|| SpanId(1_u64.to_be_bytes()));
            });
            assert_eq!(copies.len(), 2, "{copies:?}");
            assert!(copies.contains(&(1, 2)) || copies.contains(&(2, 1)), "{copies:?}");
        }
    }

    #[test]
    fn what_a_layer_leaves_out_of_its_counts_makes_no_other_call() {
        let whole = |facts: &mut StepFacts| {
            let counts = used(237, 23).unwrap_or_default();
            facts.tokens = Some(Tokens { cache_read: Some(128), cache_write: Some(64), reasoning: Some(7), ..counts });
        };
        let is_one = |prompt, completion| {
            copies(&[(false, 0, 90, &uses(prompt, completion)), (true, 20, 30, &whole)]) == [(0, 1)]
        };
        // Without what was cached, without the reasoning, the beginning of a stream.
        for (prompt, completion) in [(237, 23), (109, 23), (173, 23), (45, 23), (237, 16), (237, 1), (45, 2), (237, 24)]
        {
            assert!(is_one(prompt, completion), "{prompt} {completion}");
        }
        for (prompt, completion) in [(236, 23), (237, 14), (237, 32), (128, 23), (64, 1)] {
            assert!(!is_one(prompt, completion), "{prompt} {completion}");
        }
    }

    #[test]
    fn who_asked_at_the_port_of_the_pass_through_was_passed_on_whatever_the_moments() {
        let at = |port: u16, is_failed: bool| {
            move |facts: &mut StepFacts| {
                facts.local_port = Some(port);
                facts.status = if is_failed { StepStatus::Error } else { StepStatus::Success };
            }
        };
        let [failed, other_port] = [at(36911, true), at(11434, true)];
        // The program begins to tell when the request has failed.
        let calls: [Call<'_>; 4] =
            [(true, 20, 22, &failed), (false, 40, 41, &failed), (true, 60, 62, &failed), (false, 90, 91, &failed)];
        assert_eq!(copies(&calls), [(0, 1), (2, 3)]);
        // Another server on this machine, another model, and more calls than requests.
        assert_eq!(copies(&[(true, 20, 22, &failed), (false, 40, 41, &other_port)]), []);
        let of_another = |facts: &mut StepFacts| {
            failed(facts);
            facts.request_model = Some("m7".to_owned());
        };
        assert_eq!(copies(&[(true, 20, 22, &failed), (false, 40, 41, &of_another)]), []);
        let calls: [Call<'_>; 3] = [(true, 20, 22, &failed), (false, 40, 41, &failed), (false, 90, 91, &failed)];
        assert_eq!(copies(&calls), [(0, 1)]);
    }

    /// Of a scope, with an answer's id where there is one.
    fn by(scope: u32, id: &'static str, tokens: Option<Tokens>) -> impl Fn(&mut StepFacts) {
        move |facts| {
            facts.marks = Some(Box::new(Marks { scope, ..Marks::default() }));
            facts.response_id = Some(id.to_owned()).filter(|id| !id.is_empty());
            facts.tokens = tokens;
        }
    }

    #[test]
    fn what_a_third_layer_tells_of_a_request_is_the_same_call() {
        let [turn, layer, request] = [by(1, "a", used(496, 1)), by(2, "", used(496, 44)), by(0, "a", used(496, 44))];
        // The beginning of a stream is not what counts.
        let calls: [Call<'_>; 3] = [(false, 0, 200, &turn), (false, 50, 120, &layer), (true, 60, 110, &request)];
        assert_eq!(copies(&calls), [(0, 1), (2, 1)]);
        // Of the same instrumentation, with another use, in another time: a call of its own.
        let [same, other] = [by(1, "", used(496, 44)), by(2, "", used(497, 44))];
        assert_eq!(copies(&[calls[0], (false, 50, 120, &same), calls[2]]), [(0, 2)]);
        assert_eq!(copies(&[calls[0], (false, 50, 120, &other), calls[2]]), [(0, 2)]);
        assert_eq!(copies(&[calls[0], (false, 130, 140, &layer), calls[2]]), [(0, 2)]);
        // Of two alike one is told by no request.
        let calls: [Call<'_>; 4] = [calls[0], calls[1], calls[2], (false, 51, 121, &layer)];
        assert_eq!(copies(&calls).len(), 2);
    }

    #[test]
    fn layers_that_say_nothing_of_one_request_begin_together() {
        let gives_up = |facts: &mut StepFacts| {
            by(1, "", None)(facts);
            facts.status = StepStatus::Cancelled;
        };
        let [layer, request] = [by(2, "", None), by(0, "a", None)];
        let cut = |facts: &mut StepFacts| {
            request(facts);
            facts.status = StepStatus::Cancelled;
        };
        let calls = |start| -> [Call<'_>; 3] {
            [(false, 10, 200, &gives_up), (false, start, 199, &layer), (true, 13, 201, &cut)]
        };
        assert_eq!(copies(&calls(11)), [(1, 0), (2, 0)]);
        assert_eq!(copies(&calls(5)).len(), 1);
    }

    #[test]
    fn thousands_of_calls_at_once_are_looked_at_a_bounded_number_of_times() {
        let [turn, layer, request] = [by(1, "", used(496, 44)), by(2, "", used(496, 44)), by(0, "", used(496, 44))];
        let told: [&dyn Fn(&mut StepFacts); 3] = [&turn, &layer, &request];
        let calls: Vec<Call<'_>> =
            (0..9000).map(|n| (n % 3 == 2, 10 * u64::from(n % 3 == 2), 90, told[n % 3])).collect();
        assert!(copies(&calls).len() > 3000);
    }
}
