//! Agents that tell what calls beside them used, which another program or the pass-through tells: a client of an agent that runs in a
//! process of its own.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::layers::{SOON, TICK, is_same_model, models};
use crate::model::id::IdSet;
use crate::model::{SpanId, Tokens, UnixNanos};
use crate::pipeline::facts::StepFacts;
use crate::store::assembly::{RunState, Step};

/// So many calls in an agent's time are looked at.
const MAX_LOOKS: usize = 4_096;

/// Calls that count and have ended, by the session that they are of, by end. Of those without one there are only such as were passed on.
pub(super) struct Beside<'a> {
    by_session: HashMap<Option<&'a str>, Vec<(UnixNanos, usize)>>,
    /// What is above a call.
    above_calls: IdSet<SpanId>,
    /// Calls that an agent's sum is of, by place.
    taken: RefCell<HashSet<usize>>,
    run: &'a RunState,
}

impl RunState {
    /// Gathers calls that count, for agents beside them. `tellers`: the places of those.
    pub(super) fn calls_beside(
        &self,
        calls: &[usize],
        tellers: &[usize],
        copies: &HashMap<usize, usize>,
    ) -> Beside<'_> {
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
        // What is below an agent that tells is its own.
        let agents: HashSet<SpanId> = tellers.iter().map(|place| self.steps[*place].span_id).collect();
        let is_told =
            self.downwards(|above: Option<&bool>, step| above == Some(&true) || agents.contains(&step.span_id));
        let mut by_session: HashMap<Option<&str>, Vec<(UnixNanos, usize)>> = HashMap::new();
        for &place in calls.iter().filter(|place| !is_told[**place]) {
            let session = sessions.get(&place).copied();
            let end = self.steps[place].ended_at;
            if let Some(end) = end.filter(|_| session.is_some() || passed_on.contains(&place)) {
                by_session.entry(session).or_default().push((end, place));
            }
        }
        for calls in by_session.values_mut() {
            calls.sort_unstable_by_key(|(end, place)| (*end, self.steps[*place].span_id));
        }
        let mut above_calls = IdSet::default();
        for call in self.steps.iter().filter(|step| step.facts.billed) {
            self.cover(call, &mut above_calls);
        }
        Beside { by_session, above_calls, taken: RefCell::default(), run: self }
    }
}

impl Beside<'_> {
    /// Tells whether what an agent says that it used is that of calls in its time which are below no agent and of no other's sum: of its
    /// session and model, and together they used as much; or such as were passed on, whose session nobody tells, that used just the
    /// same. They are its own then.
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
        let session = facts.session_id.as_deref().map(Some);
        let mut taken = self.taken.borrow_mut();
        for key in session.into_iter().chain([None]) {
            let Some(calls) = self.by_session.get(&key) else { continue };
            let (mut sum, mut cost, mut is_of_model) = (Tokens::default(), 0_i64, false);
            let mut own = Vec::new();
            let is_told = if key.is_some() { covers } else { is_the_same };
            let from = calls.partition_point(|(end, _)| *end < since);
            let to = calls.partition_point(|(end, _)| *end <= until);
            for &(_, place) in calls[from..to].iter().take(MAX_LOOKS).filter(|(_, place)| !taken.contains(place)) {
                let call = &self.run.steps[place].facts;
                sum = sum.plus(call.tokens.unwrap_or_default());
                cost = cost.saturating_add(call.cost.map_or(0, |(cost, _)| cost.0));
                is_of_model |= models(facts).any(|own| models(call).any(|other| is_same_model(own, other)));
                own.push(place);
                if is_of_model && is_told(facts, sum, cost) {
                    taken.extend(own);
                    return true;
                }
            }
        }
        false
    }
}

/// Tells whether calls used just what an agent says, as far as it says it.
fn is_the_same(agent: &StepFacts, sum: Tokens, cost: i64) -> bool {
    let cached = [sum.cache_read, sum.cache_write].map(Option::unwrap_or_default).iter().sum::<u64>();
    let prompts = [sum.prompt, sum.prompt.and_then(|prompt| prompt.checked_sub(cached))];
    let tokens = agent.tokens.unwrap_or_default();
    let used = tokens.completion.is_some_and(|out| out > 0)
        && tokens.completion == sum.completion
        && (tokens.prompt.is_none() || prompts.contains(&tokens.prompt));
    used || agent.cost.is_some_and(|(own, _)| own.0 > 0 && own.0 == cost)
}

/// Tells whether what calls used is as much as an agent says.
fn covers(agent: &StepFacts, sum: Tokens, cost: i64) -> bool {
    match agent.tokens.map(|tokens| (tokens.prompt, tokens.completion)) {
        Some((prompt, completion)) if prompt.or(completion).is_some() => {
            prompt.unwrap_or_default() <= sum.prompt.unwrap_or_default()
                && completion.unwrap_or_default() <= sum.completion.unwrap_or_default()
        }
        _ => agent.cost.is_some_and(|(own, _)| own.0 <= cost),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, state, used};
    use super::*;
    use crate::model::StepKind;

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
        assert_eq!(counted(&passed_on), all, "which used more");
        assert_eq!(
            counted(&|place, step, facts| {
                passed_on(place, step, facts);
                if place == 0 {
                    facts.tokens = used(300, 40);
                }
            }),
            [1, 2]
        );
    }

    #[test]
    fn a_call_is_of_one_agents_sum_alone() {
        // Agents of one session that used (100, 10) each, and the calls that are told of them, below the first one or none.
        let counted = |agents: u64, calls: u64, below: bool, sessions: bool, is_relayed: bool| {
            let told: Vec<Told> = (0..agents + calls).map(|_| (false, 0, 10, 0, 0, false)).collect();
            let mut state = state(&told);
            for (place, step) in state.steps.iter_mut().enumerate() {
                let is_agent = (place as u64) < agents;
                let mut facts = StepFacts::clone(&step.facts);
                facts.session_id = Some(if sessions { format!("s{place}") } else { "s".to_owned() });
                facts.tokens = used(100, 10);
                if is_agent {
                    (facts.kind, facts.billed) = (StepKind::Agent, false);
                } else {
                    facts.is_relayed = is_relayed;
                    facts.session_id = facts.session_id.filter(|_| !is_relayed);
                    facts.response_id = Some(place.to_string());
                    facts.tokens = if is_relayed { used(5_000, 500) } else { used(100, 10) };
                    step.parent = below.then(|| SpanId(1_u64.to_be_bytes()));
                }
                (step.started_at, step.ended_at) = (UnixNanos(10), Some(UnixNanos(20_000_000)));
                step.facts = std::sync::Arc::new(facts);
            }
            state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
            let copies = state.duplicates();
            state.counted(&copies).tokens.len() as u64
        };
        assert_eq!(counted(3, 3, false, false, false), 3, "each call is of one agent");
        assert_eq!(counted(3, 2, false, false, false), 3, "of one agent no call is told");
        assert_eq!(counted(5, 1, true, false, false), 5, "the call is the first one's, who is above it");
        assert_eq!(counted(3, 1, false, true, true), 4, "whose it was nobody says");
    }
}
