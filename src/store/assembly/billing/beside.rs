//! Agents that tell what calls beside them used, which another program or the pass-through tells: a client of an agent that runs in a
//! process of its own.

use std::collections::{HashMap, HashSet};

use super::layers::{SOON, TICK, is_same_model, models};
use crate::model::id::IdSet;
use crate::model::{SpanId, UnixNanos};
use crate::store::assembly::{RunState, Step};

/// So many of an agent's calls are looked at for one of its model.
const MAX_LOOKS: usize = 16;

/// What calls used, one after the other: the sum of all up to each of them.
#[derive(Clone, Copy, Default)]
struct Sum {
    prompt: u64,
    completion: u64,
    cost: i64,
}

/// Calls that count and have ended, by the session that they are of, by end. Of those without one there are only such as were passed on.
pub(super) struct Beside<'a> {
    by_session: HashMap<Option<&'a str>, Vec<(UnixNanos, usize, Sum)>>,
    /// What is above a call.
    above_calls: IdSet<SpanId>,
    run: &'a RunState,
}

impl RunState {
    /// Gathers calls that count, for agents beside them.
    pub(super) fn calls_beside(&self, calls: &[usize], copies: &HashMap<usize, usize>) -> Beside<'_> {
        let own = self.sessions();
        // Of what several tell, one may know the session.
        let mut sessions: HashMap<usize, &str> = HashMap::new();
        let mut passed_on: HashSet<usize> = HashSet::new();
        let members = calls.iter().map(|place| (*place, *place)).chain(copies.iter().map(|(copy, of)| (*copy, *of)));
        for (place, of) in members.filter(|(place, _)| self.steps[*place].facts.billed) {
            if let Some(session) = own[place] {
                let known = sessions.entry(of).or_insert(session);
                *known = session.min(known);
            }
            if self.steps[place].facts.is_relayed {
                passed_on.insert(of);
            }
        }
        let mut by_session: HashMap<Option<&str>, Vec<(UnixNanos, usize, Sum)>> = HashMap::new();
        for &place in calls {
            let session = sessions.get(&place).copied();
            let end = self.steps[place].ended_at;
            if let Some(end) = end.filter(|_| session.is_some() || passed_on.contains(&place)) {
                by_session.entry(session).or_default().push((end, place, Sum::default()));
            }
        }
        for calls in by_session.values_mut() {
            calls.sort_unstable_by_key(|(end, place, _)| (*end, self.steps[*place].span_id));
            let mut sum = Sum::default();
            for (_, place, until) in calls {
                sum = sum.plus(&self.steps[*place]);
                *until = sum;
            }
        }
        let mut above_calls = IdSet::default();
        for call in self.steps.iter().filter(|step| step.facts.billed) {
            self.cover(call, &mut above_calls);
        }
        Beside { by_session, above_calls, run: self }
    }
}

impl Sum {
    fn plus(self, step: &Step) -> Self {
        let tokens = step.facts.tokens.unwrap_or_default();
        Self {
            prompt: self.prompt.saturating_add(tokens.prompt.unwrap_or_default()),
            completion: self.completion.saturating_add(tokens.completion.unwrap_or_default()),
            cost: self.cost.saturating_add(step.facts.cost.map_or(0, |(cost, _)| cost.0)),
        }
    }
}

impl Beside<'_> {
    /// Tells whether what an agent says that it used is that of calls in its time which are none below it: of its session and model,
    /// or passed on, and together they used as much.
    pub(super) fn tells(&self, agent: &Step) -> bool {
        let facts = &agent.facts;
        let Some(end) = agent.ended_at.filter(|_| !self.above_calls.contains(&agent.span_id)) else { return false };
        // A sum that names no model may be that of something else.
        if facts.model().is_none() {
            return false;
        }
        // Some begin with the first message that came back.
        let since = UnixNanos(agent.started_at.0.saturating_sub(SOON));
        let until = UnixNanos(end.0.saturating_add(TICK));
        let mut keys = vec![None];
        keys.extend(facts.session_id.as_deref().map(Some));
        let (mut sum, mut is_of_model) = (Sum::default(), false);
        for calls in keys.into_iter().filter_map(|key| self.by_session.get(&key)) {
            let from = calls.partition_point(|(end, ..)| *end < since);
            let to = calls.partition_point(|(end, ..)| *end <= until);
            let Some((_, _, last)) = calls[from..to].last() else { continue };
            let before = from.checked_sub(1).map(|last| calls[last].2).unwrap_or_default();
            sum.prompt = sum.prompt.saturating_add(last.prompt.saturating_sub(before.prompt));
            sum.completion = sum.completion.saturating_add(last.completion.saturating_sub(before.completion));
            sum.cost = sum.cost.saturating_add(last.cost.saturating_sub(before.cost));
            is_of_model |= calls[from..to].iter().take(MAX_LOOKS).any(|(_, place, _)| {
                let call = &self.run.steps[*place].facts;
                models(facts).any(|own| models(call).any(|other| is_same_model(own, other)))
            });
        }
        let covers = match facts.tokens.map(|tokens| (tokens.prompt, tokens.completion)) {
            Some((prompt, completion)) if prompt.or(completion).is_some() => {
                prompt.unwrap_or_default() <= sum.prompt && completion.unwrap_or_default() <= sum.completion
            }
            _ => facts.cost.is_some_and(|(cost, _)| cost.0 <= sum.cost),
        };
        is_of_model && covers
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, state, used};
    use super::*;
    use crate::model::StepKind;
    use crate::pipeline::facts::StepFacts;

    /// An agent from 10 to 50 that used (300, 30), and two calls beside it; the places whose tokens count.
    fn counted(change: &dyn Fn(usize, &mut Step, &mut StepFacts)) -> Vec<usize> {
        let told: [Told; 3] = [(false, 0, 10, 0, 0, false), (false, 0, 12, 5, 0, false), (false, 0, 20, 5, 0, false)];
        let mut state = state(&told);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let mut facts = StepFacts::clone(&step.facts);
            facts.session_id = Some("s".to_owned());
            facts.tokens = if place == 0 { used(300, 30) } else { used(150, 20) };
            let ms = |at: u64| UnixNanos(at * 1_000_000);
            (step.started_at, step.ended_at) = (ms(step.started_at.0), step.ended_at.map(|end| ms(end.0)));
            if place == 0 {
                (facts.kind, facts.billed, step.ended_at) = (StepKind::Agent, false, Some(ms(50)));
            }
            change(place, step, &mut facts);
            step.facts = std::sync::Arc::new(facts);
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let copies = state.duplicates();
        state.counted(&copies).tokens
    }

    #[test]
    fn an_agents_sum_is_that_of_the_calls_of_its_session_in_its_time() {
        assert_eq!(counted(&|_, _, _| ()), [1, 2]);
        let all = [0, 1, 2];
        // Another session, another time, another model, more than they used, and a call of its own that tells nothing.
        let is_other = |place: usize| place > 0;
        assert_eq!(
            counted(&|place, _, facts| if is_other(place) {
                facts.session_id = None
            }),
            all
        );
        assert_eq!(
            counted(&|place, step, _| if is_other(place) {
                step.ended_at = Some(UnixNanos(60_000_000))
            }),
            all
        );
        assert_eq!(
            counted(&|place, _, facts| if is_other(place) {
                facts.request_model = Some("m7".into())
            }),
            all
        );
        assert_eq!(
            counted(&|place, _, facts| if !is_other(place) {
                facts.tokens = used(301, 30)
            }),
            all
        );
        let below = |place: usize, step: &mut Step, facts: &mut StepFacts| {
            if place == 1 {
                (step.parent, facts.tokens) = (Some(SpanId(1_u64.to_be_bytes())), None);
            }
        };
        assert_eq!(
            counted(&|place, step, facts| {
                below(place, step, facts);
                if place == 2 {
                    facts.tokens = used(900, 90)
                }
            }),
            [0, 2]
        );
        // What names no model.
        assert_eq!(
            counted(&|place, _, facts| if place == 0 {
                facts.request_model = None
            }),
            all
        );
        // Passed on, by a program that says nothing of a session.
        let passed_on = |place: usize, _: &mut Step, facts: &mut StepFacts| {
            if is_other(place) {
                (facts.session_id, facts.is_relayed) = (None, true);
            }
        };
        assert_eq!(counted(&passed_on), [1, 2]);
    }
}
