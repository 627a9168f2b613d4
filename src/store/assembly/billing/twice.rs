//! Calls that two instrumentations tell in two places of a trace, with no id of the answer in common: known to be one by what both say of
//! it, and by when.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::layers::{MAX_AT_ONCE, TICK, is_most_of, is_same_model, models, rank, settled, used};
use crate::model::id::IdMap;
use crate::model::{SpanId, StepKind};
use crate::store::assembly::{RunState, Step, is_failure};

/// What may pass between two layers' words for one call, of which the first returns before the answer is read.
const SOON: u64 = 100_000_000;

/// What two steps say of the same call, the surest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// The id of a tool call that was answered.
    ToolCall,
    /// The words of the answer.
    Words,
    /// The execution of a graph's node.
    Task,
    /// Why it failed.
    Failure,
    /// The step that it is below.
    Place,
}

/// By what steps are looked up that may say the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Sum(u32),
    Failed,
    Below([u8; 8]),
}

/// Steps that are known to tell one call, by the place of the one that counts.
type Groups = IdMap<usize, Vec<usize>>;

impl RunState {
    /// Joins calls of models and tools that several instrumentations have told, each at most once: of two calls of one instrumentation
    /// none is the other.
    pub(super) fn join_told_twice(&self, copies: &mut HashMap<usize, usize>) {
        use Evidence::{Failure, Place, Task, ToolCall, Words};
        self.join(copies, |step| step.facts.kind == StepKind::Tool, &[ToolCall]);
        self.join(copies, |step| step.facts.kind == StepKind::Llm, &[ToolCall, Words, Task, Failure, Place]);
    }

    fn join(&self, copies: &mut HashMap<usize, usize>, is_it: impl Fn(&Step) -> bool, evidence: &[Evidence]) {
        let mut scopes = BTreeSet::new();
        let mut groups: Groups = IdMap::default();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| is_it(step)) {
            let Some(marks) = &step.facts.marks else { continue };
            scopes.insert(marks.scope);
            groups.entry(settled(copies, place)).or_default().push(place);
        }
        if scopes.len() < 2 {
            return;
        }
        for &evidence in evidence {
            let mut told: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
            for &place in groups.values().flatten() {
                if let Some(key) = key_of(&self.steps[place], evidence) {
                    told.entry(key).or_default().push(place);
                }
            }
            for places in told.into_values().filter(|places| places.len() > 1) {
                self.join_told(copies, &mut groups, places, evidence);
            }
        }
    }

    /// Joins those that say the same, each with the latest that began before it and may be the same call.
    fn join_told(
        &self,
        copies: &mut HashMap<usize, usize>,
        groups: &mut Groups,
        mut places: Vec<usize>,
        evidence: Evidence,
    ) {
        places.sort_unstable_by_key(|place| (self.steps[*place].started_at, self.steps[*place].span_id));
        let mut before: Vec<usize> = Vec::new();
        for place in places {
            let step = &self.steps[place];
            let is_soon = |other: &usize| {
                self.steps[*other].ended_at.is_some_and(|end| step.started_at.0 <= end.0.saturating_add(SOON))
            };
            if evidence != Evidence::ToolCall {
                before.retain(is_soon);
            }
            let own = settled(copies, place);
            let steps = |of: usize| -> Vec<&Step> {
                groups.get(&of).into_iter().flatten().map(|place| &self.steps[*place]).collect()
            };
            let is_same = |other: &&usize| {
                let of = settled(copies, **other);
                of != own
                    && are_one(&self.steps[**other], step, evidence)
                    && may_be_one(&steps(of), &steps(own), evidence)
            };
            if let Some(other) = before.iter().rev().find(is_same) {
                let of = settled(copies, *other);
                let key = |place: usize| {
                    let step = &self.steps[place];
                    // Of tools the failure is what is to be known.
                    let fails = step.facts.kind == StepKind::Tool && is_failure(step.status);
                    (fails, rank(step), std::cmp::Reverse((step.started_at, step.span_id)))
                };
                let (copy, counts) = if key(of) < key(own) { (of, own) } else { (own, of) };
                copies.insert(copy, counts);
                let joined = groups.remove(&copy).unwrap_or_default();
                groups.entry(counts).or_default().extend(joined);
            }
            if before.len() == MAX_AT_ONCE {
                before.remove(0);
            }
            before.push(place);
        }
    }
}

fn key_of(step: &Step, evidence: Evidence) -> Option<Key> {
    let marks = step.facts.marks.as_ref()?;
    match evidence {
        Evidence::ToolCall if step.facts.kind == StepKind::Tool => {
            let id = step.facts.tool_call_id.as_ref()?;
            Some(Key::Sum(crc32c::crc32c(id.as_bytes())))
        }
        Evidence::ToolCall => marks.asked.iter().min().copied().map(Key::Sum),
        Evidence::Words => marks.text.map(Key::Sum),
        Evidence::Task => marks.task.map(Key::Sum),
        Evidence::Failure => message(step).map(|_| Key::Failed),
        Evidence::Place => step.parent.map(|SpanId(parent)| Key::Below(parent)),
    }
}

/// Tells whether two steps, the earlier one first, say the same at the same time. Some return a stream before it is read, and the other layer
/// tells of what follows.
fn are_one(first: &Step, second: &Step, evidence: Evidence) -> bool {
    let Some((end_of_first, end_of_second)) = first.ended_at.zip(second.ended_at) else { return false };
    let is_at_once = second.started_at.0.saturating_sub(first.started_at.0) <= TICK;
    let is_inside = end_of_second.0 <= end_of_first.0.saturating_add(TICK);
    let is_around = is_at_once && end_of_first.0 <= end_of_second.0.saturating_add(TICK);
    let is_nested = is_inside || is_around;
    let is_beside = first.parent.is_some() && first.parent == second.parent;
    match evidence {
        // Some servers draw the same ids again for each answer.
        Evidence::ToolCall => is_beside || second.started_at.0 <= end_of_first.0.saturating_add(SOON),
        Evidence::Words => is_nested || is_beside,
        Evidence::Task => is_nested,
        Evidence::Failure => {
            let is_in = |one: &Step, other: &Step| {
                message(other).is_some_and(|told| told.contains(message(one).unwrap_or(told)))
            };
            (is_nested || is_beside) && (is_in(first, second) || is_in(second, first))
        }
        // Nothing but the place and the time: it takes all the time.
        Evidence::Place => {
            let is_all = if is_inside { is_most_of(second, first) } else { is_around && is_most_of(first, second) };
            is_nested && is_all && is_failure(first.status) == is_failure(second.status)
        }
    }
}

/// Tells whether nothing that the steps of two calls say shows that they are two.
fn may_be_one(one: &[&Step], other: &[&Step], evidence: Evidence) -> bool {
    let each = || one.iter().flat_map(|one| other.iter().map(move |other| (*one, *other)));
    if !each().all(|(one, other)| may_be_told_of_one(one, other)) {
        return false;
    }
    if one.iter().any(|step| step.facts.kind == StepKind::Tool) {
        return true;
    }
    // Some layers miscount what others have right, and write an answer down in other words.
    match agree(each().map(|(one, other)| used(one).zip(used(other)).map(|(one, other)| one == other))) {
        Some(is_same_use) => is_same_use,
        None if evidence == Evidence::ToolCall => true,
        None => {
            let marks = || each().filter_map(|(one, other)| one.facts.marks.as_ref().zip(other.facts.marks.as_ref()));
            let words = marks().map(|(one, other)| one.text.zip(other.text).map(|(one, other)| one == other));
            let asked = marks().map(|(one, other)| {
                let are_told = !one.asked.is_empty() && !other.asked.is_empty();
                are_told.then(|| one.asked.iter().any(|id| other.asked.contains(id)))
            });
            agree(words) != Some(false) && agree(asked) != Some(false)
        }
    }
}

/// Tells whether any two say the same; nothing where no two say anything.
fn agree(mut each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    each.try_fold(None, |agreed, same| if same == Some(true) { Err(same) } else { Ok(agreed.or(same)) })
        .unwrap_or_else(|same| same)
}

/// Tells whether two instrumentations may speak of one call, by its names.
fn may_be_told_of_one(one: &Step, other: &Step) -> bool {
    let scope = |step: &Step| step.facts.marks.as_ref().map(|marks| marks.scope);
    let (own, told) = (&one.facts, &other.facts);
    let differs = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
    let are_models = || models(own).any(|one| models(told).any(|other| is_same_model(one, other)));
    scope(one) != scope(other)
        && own.kind == told.kind
        && !differs(&own.response_id, &told.response_id)
        && !differs(&own.tool_name, &told.tool_name)
        && !differs(&own.tool_call_id, &told.tool_call_id)
        && (own.model().is_none() || told.model().is_none() || are_models())
}

fn message(step: &Step) -> Option<&str> {
    let message = step.facts.error.as_ref().filter(|_| is_failure(step.status))?.message.as_deref()?;
    Some(message).filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, copies_of, used};
    use super::*;
    use crate::model::{ErrorInfo, StepStatus, UnixNanos};
    use crate::pipeline::facts::{Marks, StepFacts};

    const MS: u64 = 1_000_000;

    /// The instrumentation, begin and end in ms, and what is told besides.
    type Call<'a> = (u32, u64, u64, &'a dyn Fn(&mut Step, &mut StepFacts));

    fn copies(calls: &[Call<'_>]) -> Vec<(usize, usize)> {
        let told: Vec<Told> = calls.iter().map(|_| (false, 0, 0, 0, 0, false)).collect();
        copies_of(&told, &|place, step, facts| {
            let (scope, start, end, change) = calls[place];
            (step.started_at, step.ended_at) = (UnixNanos(start * MS), Some(UnixNanos(end * MS)));
            // Each below another step.
            step.parent = Some(SpanId([place as u8 + 100; 8]));
            facts.tokens = None;
            facts.marks = Some(Box::new(Marks { scope, ..Marks::default() }));
            change(step, facts);
            step.status = facts.status;
        })
    }

    fn marks(facts: &mut StepFacts) -> &mut Marks {
        facts.marks.as_mut().unwrap()
    }

    #[test]
    fn two_instrumentations_words_for_one_call_are_joined_by_what_both_say() {
        let asks = |_: &mut Step, facts: &mut StepFacts| marks(facts).asked = vec![1, 2];
        let says = |_: &mut Step, facts: &mut StepFacts| marks(facts).text = Some(1);
        let is_in_task = |_: &mut Step, facts: &mut StepFacts| marks(facts).task = Some(1);
        let is_beside = |step: &mut Step, _: &mut StepFacts| step.parent = Some(SpanId([1; 8]));
        let fails = |_: &mut Step, facts: &mut StepFacts| {
            facts.status = StepStatus::Error;
            facts.error = Some(ErrorInfo { message: Some("500".into()), ..ErrorInfo::default() });
        };
        let fails_in_other_words = |_: &mut Step, facts: &mut StepFacts| {
            facts.status = StepStatus::Error;
            facts.error = Some(ErrorInfo { message: Some("Error('500')".into()), ..ErrorInfo::default() });
        };
        let all: [&dyn Fn(&mut Step, &mut StepFacts); 5] = [&asks, &says, &is_in_task, &is_beside, &fails];
        for evidence in all {
            assert_eq!(copies(&[(1, 10, 90, evidence), (2, 20, 80, evidence)]), [(1, 0)]);
            // Of one instrumentation two are two, and what another says it says of one of them.
            assert_eq!(copies(&[(1, 10, 90, evidence), (1, 20, 80, evidence)]), []);
            assert_eq!(copies(&[(1, 10, 90, evidence), (2, 20, 80, evidence), (2, 30, 75, evidence)]), [(1, 0)]);
            // Two at once that are alike.
            let two = [(1, 10, 90, evidence), (1, 11, 91, evidence), (2, 20, 80, evidence), (2, 21, 81, evidence)];
            assert_eq!(copies(&two), [(2, 1), (3, 0)]);
            // A third instrumentation.
            assert_eq!(
                copies(&[(1, 10, 90, evidence), (2, 20, 80, evidence), (3, 25, 75, evidence)]),
                [(1, 0), (2, 0)]
            );
        }
        assert_eq!(copies(&[(1, 10, 90, &fails), (2, 20, 80, &fails_in_other_words)]), [(1, 0)]);
        // Nothing in common but the time.
        assert_eq!(copies(&[(1, 10, 90, &|_, _| ()), (2, 20, 80, &|_, _| ())]), []);
        assert_eq!(copies(&[(1, 10, 90, &asks), (2, 20, 80, &says)]), []);
    }

    #[test]
    fn what_contradicts_keeps_two_calls_apart() {
        let say = |change: &dyn Fn(&mut Step, &mut StepFacts)| {
            copies(&[
                (1, 10, 90, &|_, facts| {
                    (marks(facts).task, marks(facts).text) = (Some(1), Some(1));
                    facts.response_id = Some("a".into());
                    facts.tokens = used(10, 5);
                }),
                (2, 20, 80, change),
            ])
        };
        assert_eq!(say(&|_, facts| marks(facts).task = Some(1)), [(1, 0)]);
        // Another answer's id, model, use, words, task.
        assert_eq!(say(&|_, facts| (marks(facts).task, facts.response_id) = (Some(1), Some("b".into()))), []);
        assert_eq!(say(&|_, facts| (marks(facts).task, facts.request_model) = (Some(1), Some("m1".into()))), []);
        assert_eq!(say(&|_, facts| (marks(facts).task, facts.tokens) = (Some(1), used(10, 6))), []);
        assert_eq!(say(&|_, facts| (marks(facts).task, marks(facts).text) = (Some(1), Some(2))), []);
        assert_eq!(say(&|_, facts| marks(facts).task = Some(2)), []);
        // What both have used is surer than how the answer is written down.
        assert_eq!(
            say(&|_, facts| {
                (marks(facts).task, marks(facts).text) = (Some(1), Some(2));
                facts.tokens = used(10, 5);
            }),
            [(1, 0)]
        );
        // Another time.
        let task = |_: &mut Step, facts: &mut StepFacts| marks(facts).task = Some(1);
        assert_eq!(copies(&[(1, 10, 50, &task), (2, 20, 80, &task)]), []);
        // Below one step, and at a small part of its time.
        let beside = |step: &mut Step, _: &mut StepFacts| step.parent = Some(SpanId([1; 8]));
        assert_eq!(copies(&[(1, 10, 900, &beside), (2, 20, 80, &beside)]), []);
    }

    #[test]
    fn a_tool_call_is_one_by_its_id_and_the_failure_is_what_counts() {
        let copies_of_tools = |scopes: [u32; 2], ids: [&'static str; 2], names: [&'static str; 2], fails: bool| {
            let told: Vec<Told> = vec![(false, 0, 1, 5, 0, false), (false, 0, 2, 3, 0, fails)];
            copies_of(&told, &|place, step, facts| {
                step.parent = Some(SpanId([place as u8 + 100; 8]));
                (facts.kind, facts.billed) = (StepKind::Tool, false);
                facts.tool_call_id = Some(ids[place].to_owned());
                facts.tool_name = Some(names[place].to_owned());
                facts.marks = Some(Box::new(Marks { scope: scopes[place], ..Marks::default() }));
            })
        };
        assert_eq!(copies_of_tools([1, 2], ["a"; 2], ["f"; 2], false), [(1, 0)]);
        assert_eq!(copies_of_tools([1, 2], ["a"; 2], ["f"; 2], true), [(0, 1)]);
        assert_eq!(copies_of_tools([1, 1], ["a"; 2], ["f"; 2], false), []);
        assert_eq!(copies_of_tools([1, 2], ["a", "b"], ["f"; 2], false), []);
        assert_eq!(copies_of_tools([1, 2], ["a"; 2], ["f", "g"], false), []);
    }
}
