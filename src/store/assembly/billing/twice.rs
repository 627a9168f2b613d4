//! Calls that two instrumentations tell in two places of a trace, with no id of the answer in common: known to be one by what both say of
//! it, and by when.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::layers::{SOON, TICK, is_all_but, is_most_of, is_same_model, models, rank, settled, used};
use super::uses::used_the_same;
use crate::model::{SpanId, StepKind};
use crate::store::assembly::{RunState, Step, is_failure};

/// So many steps that say the same are looked at for the one that is the same call.
const MAX_BEFORE: usize = 64;
/// Steps that may be told of one call by as many instrumentations.
const MAX_GROUP: usize = 8;
/// A reason shorter than this stands in others by chance.
const LONG_TEXT: usize = 12;
/// What may pass between the return of a stream and the begin of what reads it, in nanoseconds: less than a program that asks once more takes.
const RETURNED: u64 = 20_000_000;

/// What two steps say of the same call, the surest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// The id of a tool call that was answered.
    ToolCall,
    /// The name of a tool in a session.
    Session,
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
    Called(u32, u32),
    Failed,
    Below([u8; 8]),
}

/// Steps that are known to tell one call, by place.
struct Groups {
    /// The one that counts, of each step.
    of: Vec<usize>,
    /// All of them, at the one that counts.
    steps: Vec<Vec<usize>>,
}

impl Groups {
    fn new(steps: usize) -> Self {
        Self { of: (0..steps).collect(), steps: vec![Vec::new(); steps] }
    }

    fn add(&mut self, place: usize, of: usize) {
        self.of[place] = of;
        self.steps[of].push(place);
    }

    /// Has the steps of one call be of another.
    fn join(&mut self, copy: usize, counts: usize) {
        for place in std::mem::take(&mut self.steps[copy]) {
            self.add(place, counts);
        }
    }
}

impl RunState {
    /// Joins calls of models and tools that several instrumentations have told, each at most once: of two calls of one instrumentation
    /// none is the other.
    pub(super) fn join_told_twice(&self, copies: &mut HashMap<usize, usize>) {
        use Evidence::{Failure, Place, Session, Task, ToolCall, Words};
        self.join(copies, |step| step.facts.kind == StepKind::Tool, &[ToolCall, Session]);
        self.join(copies, |step| step.facts.kind == StepKind::Llm, &[ToolCall, Words, Task, Failure, Place]);
    }

    fn join(&self, copies: &mut HashMap<usize, usize>, is_it: impl Fn(&Step) -> bool, evidence: &[Evidence]) {
        let told = || self.steps.iter().enumerate().filter(|(_, step)| is_it(step) && step.facts.marks.is_some());
        let scopes = told().filter_map(|(_, step)| step.facts.marks.as_ref()).map(|marks| marks.scope);
        if scopes.collect::<BTreeSet<_>>().len() < 2 {
            return;
        }
        let mut groups = Groups::new(self.steps.len());
        for (place, _) in told() {
            groups.add(place, settled(copies, place));
        }
        let sessions = std::cell::LazyCell::new(|| self.sessions());
        for &evidence in evidence {
            let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
            for (place, step) in told() {
                let called = || Some(Key::Called(sessions[place].map(sum)?, step.facts.tool_name.as_deref().map(sum)?));
                let keys =
                    if evidence == Evidence::Session { Vec::from_iter(called()) } else { keys_of(step, evidence) };
                for key in keys {
                    by_key.entry(key).or_default().push(place);
                }
            }
            for places in by_key.into_values().filter(|places| places.len() > 1) {
                self.join_told(copies, &mut groups, places, evidence);
            }
        }
    }

    /// Joins those that say the same, each with one that began before it and may be the same call: one that used the same, else the
    /// latest.
    fn join_told(
        &self,
        copies: &mut HashMap<usize, usize>,
        groups: &mut Groups,
        mut places: Vec<usize>,
        evidence: Evidence,
    ) {
        places.sort_unstable_by_key(|place| (self.steps[*place].started_at, self.steps[*place].span_id));
        let mut before: VecDeque<usize> = VecDeque::new();
        for place in places {
            let step = &self.steps[place];
            before.retain(|other| {
                self.steps[*other].ended_at.is_some_and(|end| step.started_at.0 <= end.0.saturating_add(RETURNED))
            });
            let own = groups.of[place];
            // Each call is looked at once, however many steps tell it.
            let mut tried: Vec<usize> = Vec::new();
            let mut is_same = |other: &&usize| {
                let of = groups.of[**other];
                if of == own || !are_one(&self.steps[**other], step, evidence) || tried.contains(&of) {
                    return false;
                }
                // What is below another is looked at from there.
                let earlier = &self.steps[**other];
                let are_above = || self.is_above(earlier.span_id, step) || self.is_above(step.span_id, earlier);
                // Of two tools of one session, else, nothing says that they are one.
                let is_run = |step: &Step| step.facts.marks.as_ref().is_some_and(|marks| marks.is_run_by_others);
                if evidence == Evidence::Session && (is_run(earlier) == is_run(step) || are_above()) {
                    return false;
                }
                tried.push(of);
                self.may_be_one(&groups.steps[of], &groups.steps[own], evidence)
            };
            let same: Vec<usize> = before.iter().rev().filter(&mut is_same).copied().collect();
            if let Some(other) = same.iter().find(|other| used_the_same(step, &self.steps[**other])).or(same.first()) {
                let of = groups.of[*other];
                let key = |place: usize| {
                    let step = &self.steps[place];
                    // Of tools the failure is what is to be known.
                    let fails = step.facts.kind == StepKind::Tool && is_failure(step.status);
                    (fails, rank(step), std::cmp::Reverse((step.started_at, step.span_id)))
                };
                let (copy, counts) = if key(of) < key(own) { (of, own) } else { (own, of) };
                copies.insert(copy, counts);
                groups.join(copy, counts);
            }
            if before.len() == MAX_BEFORE {
                before.pop_front();
            }
            before.push_back(place);
        }
    }

    /// Tells whether nothing that the steps of two calls say shows that they are two.
    fn may_be_one(&self, one: &[usize], other: &[usize], evidence: Evidence) -> bool {
        if one.len() + other.len() > MAX_GROUP {
            return false;
        }
        let each = || one.iter().flat_map(|one| other.iter().map(|other| (&self.steps[*one], &self.steps[*other])));
        if !each().all(|(one, other)| may_be_told_of_one(one, other)) {
            return false;
        }
        if each().any(|(one, _)| one.facts.kind == StepKind::Tool) {
            return true;
        }
        let marks = || each().filter_map(|(one, other)| one.facts.marks.as_ref().zip(other.facts.marks.as_ref()));
        let questions = marks().map(|(one, other)| one.may_ask_the_same(other));
        if agree(questions) == Some(false) {
            return false;
        }
        // Some layers miscount what others have right, and write an answer down in other words.
        match agree(each().map(|(one, other)| used(one).zip(used(other)).map(|(one, other)| one == other))) {
            Some(is_same_use) => is_same_use,
            None if evidence == Evidence::ToolCall => true,
            None => {
                let words = marks().map(|(one, other)| one.text.zip(other.text).map(|(one, other)| one == other));
                let asked = marks().map(|(one, other)| {
                    let are_told = !one.asked.is_empty() && !other.asked.is_empty();
                    are_told.then(|| one.asked.iter().any(|id| other.asked.contains(id)))
                });
                agree(words) != Some(false) && agree(asked) != Some(false)
            }
        }
    }
}

fn sum(text: &str) -> u32 {
    crc32c::crc32c(text.as_bytes())
}

fn keys_of(step: &Step, evidence: Evidence) -> Vec<Key> {
    let Some(marks) = step.facts.marks.as_ref() else { return Vec::new() };
    let key = match evidence {
        Evidence::ToolCall if step.facts.kind == StepKind::Tool => {
            step.facts.tool_call_id.as_ref().map(|id| Key::Sum(crc32c::crc32c(id.as_bytes())))
        }
        // Not all instrumentations tell all of them.
        Evidence::ToolCall => return marks.asked.iter().copied().map(Key::Sum).collect(),
        Evidence::Words => marks.text.map(Key::Sum),
        Evidence::Task => marks.task.map(Key::Sum),
        Evidence::Failure => message(step).map(|_| Key::Failed),
        Evidence::Place => step.parent.map(|SpanId(parent)| Key::Below(parent)),
        Evidence::Session => None,
    };
    key.into_iter().collect()
}

/// Tells whether two steps, the earlier one first, say the same at the same time. Some return a stream before it is read, and the other layer
/// tells of what follows.
fn are_one(first: &Step, second: &Step, evidence: Evidence) -> bool {
    let Some((end_of_first, end_of_second)) = first.ended_at.zip(second.ended_at) else { return false };
    let is_at_once = second.started_at.0.saturating_sub(first.started_at.0) <= TICK;
    let is_inside = end_of_second.0 <= end_of_first.0.saturating_add(TICK);
    let is_around = is_at_once && end_of_first.0 <= end_of_second.0.saturating_add(TICK);
    let is_nested = (is_inside || is_around) && second.started_at <= end_of_first;
    let is_beside = first.parent.is_some() && first.parent == second.parent;
    let overlaps = second.started_at < end_of_first;
    // What returns a stream has ended when the other begins, or a moment later.
    let follows = is_beside && second.started_at.0 <= end_of_first.0.saturating_add(RETURNED);
    match evidence {
        // Who tries again asks the same, below the same step.
        Evidence::ToolCall if first.facts.kind == StepKind::Tool => is_nested || (is_beside && overlaps),
        Evidence::ToolCall => is_nested || follows || (overlaps && used_the_same(first, second)),
        // Many answers are `ok`.
        Evidence::Words => {
            is_nested || (have_same_question(first, second) && (follows || overlaps && used_the_same(first, second)))
        }
        Evidence::Task => is_nested,
        // Between them lies what brings the call from one process to another.
        Evidence::Session => {
            is_nested && if is_inside { is_all_but(second, first, SOON) } else { is_all_but(first, second, SOON) }
        }
        Evidence::Failure => (is_nested || (is_beside && overlaps)) && fail_alike(first, second),
        // Nothing but the place and the time: it takes all the time.
        Evidence::Place => {
            let is_all = if is_inside { is_most_of(second, first) } else { is_around && is_most_of(first, second) };
            is_nested && is_all && (!is_failure(first.status) || fail_alike(first, second))
        }
    }
}

/// Tells whether two steps say that the same was asked, of what was asked last.
fn have_same_question(one: &Step, other: &Step) -> bool {
    let question = |step: &Step| step.facts.marks.as_ref().and_then(|marks| marks.question);
    question(one).is_some() && question(one) == question(other)
}

/// Tells whether two failures have one reason, as one may have it in what it adds.
fn fail_alike(one: &Step, other: &Step) -> bool {
    let is_in = |part: &str, whole: &str| part == whole || (part.len() >= LONG_TEXT && whole.contains(part));
    message(one).zip(message(other)).is_some_and(|(one, other)| is_in(one, other) || is_in(other, one))
}

/// Tells whether any two say the same; nothing where no two say anything.
fn agree(mut each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    each.try_fold(None, |agreed, same| if same == Some(true) { Err(same) } else { Ok(agreed.or(same)) })
        .unwrap_or_else(|same| same)
}

/// Tells whether two instrumentations may speak of one call, by its names and its end.
fn may_be_told_of_one(one: &Step, other: &Step) -> bool {
    let scope = |step: &Step| step.facts.marks.as_ref().map(|marks| marks.scope);
    let (own, told) = (&one.facts, &other.facts);
    let differs = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
    let are_models = || models(own).any(|one| models(told).any(|other| is_same_model(one, other)));
    scope(one) != scope(other)
        && own.kind == told.kind
        && !differs(&own.response_id, &told.response_id)
        && !differs(&own.provider, &told.provider)
        && !differs(&own.tool_name, &told.tool_name)
        && !differs(&own.tool_call_id, &told.tool_call_id)
        && (own.model().is_none() || told.model().is_none() || are_models())
        // What is around a tool may know that it failed, of which the tool says nothing.
        && (own.kind == StepKind::Tool || is_failure(one.status) == is_failure(other.status))
}

fn message(step: &Step) -> Option<&str> {
    let message = step.facts.error.as_ref().filter(|_| is_failure(step.status))?.message.as_deref()?;
    Some(message).filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, copies_of, used};
    use super::*;
    use crate::model::{ErrorInfo, StepStatus, Tokens, UnixNanos};
    use crate::pipeline::facts::{Marks, StepFacts};

    const MS: u64 = 1_000_000;

    /// The instrumentation, begin and end in ms, and what is told besides.
    type Call<'a> = (u32, u64, u64, Change<'a>);
    type Change<'a> = &'a dyn Fn(&mut Step, &mut StepFacts);

    fn copies(calls: &[Call<'_>]) -> Vec<(usize, usize)> {
        let told: Vec<Told> = calls.iter().map(|_| (false, 0, 0, 0, 0, false)).collect();
        copies_of(&told, &|place, step, facts| {
            let (scope, start, end, change) = calls[place];
            (step.started_at, step.ended_at) = (UnixNanos(start * MS), Some(UnixNanos(end * MS)));
            // Each below another step.
            step.parent = Some(SpanId((place as u64 + 1000).to_be_bytes()));
            step.span_id = SpanId((place as u64 + 1).to_be_bytes());
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
            facts.error = Some(ErrorInfo { message: Some("500 no more of it".into()), ..ErrorInfo::default() });
        };
        let fails_in_other_words = |_: &mut Step, facts: &mut StepFacts| {
            facts.status = StepStatus::Error;
            facts.error =
                Some(ErrorInfo { message: Some("Error('500 no more of it')".into()), ..ErrorInfo::default() });
        };
        let all: [Change<'_>; 5] = [&asks, &says, &is_in_task, &is_beside, &fails];
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
        let say = |change: Change<'_>| {
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
    fn what_many_calls_have_in_common_makes_none_of_them_one() {
        let beside = |step: &mut Step| step.parent = Some(SpanId([1; 8]));
        let says_ok = |question: u32| {
            move |step: &mut Step, facts: &mut StepFacts| {
                beside(step);
                (marks(facts).text, marks(facts).question) = (Some(1), Some(question));
            }
        };
        // One behind the other, or at once, with the same short answer.
        for (start, end) in [(110, 190), (20, 80)] {
            assert_eq!(copies(&[(1, 10, 100, &says_ok(1)), (2, start, end, &says_ok(2))]), []);
            assert_eq!(copies(&[(1, 10, 100, &says_ok(1)), (2, start, end, &says_ok(1))]), [(1, 0)]);
        }
        // Who asks the same once more.
        assert_eq!(copies(&[(1, 10, 100, &says_ok(1)), (2, 150, 190, &says_ok(1))]), []);
        // Ids that a server draws again, much later and below another step.
        let asks = |_: &mut Step, facts: &mut StepFacts| marks(facts).asked = vec![1];
        let asks_beside = |step: &mut Step, facts: &mut StepFacts| {
            beside(step);
            marks(facts).asked = vec![1];
        };
        assert_eq!(copies(&[(1, 10, 90, &asks_beside), (2, 60_000, 60_080, &asks_beside)]), []);
        assert_eq!(copies(&[(1, 10, 90, &asks), (2, 30, 120, &asks)]), []);
        // Those of which both say more may begin and end in turns.
        let asks_and_used = |step: &mut Step, facts: &mut StepFacts| {
            asks(step, facts);
            facts.tokens = used(3, 1);
        };
        assert_eq!(copies(&[(1, 10, 90, &asks_and_used), (2, 30, 120, &asks_and_used)]), [(1, 0)]);
        assert_eq!(copies(&[(1, 10, 90, &asks_and_used), (2, 100, 120, &asks_and_used)]), []);
        // Who tries again, another reason, another provider.
        let fails = |why: &'static str, provider: &'static str| {
            move |step: &mut Step, facts: &mut StepFacts| {
                beside(step);
                facts.status = StepStatus::Error;
                facts.provider = Some(provider.to_owned());
                facts.error = Some(ErrorInfo { message: Some(why.into()), ..ErrorInfo::default() });
            }
        };
        assert_eq!(copies(&[(1, 10, 90, &fails("429", "a")), (2, 20, 85, &fails("429", "a"))]), [(1, 0)]);
        assert_eq!(copies(&[(1, 10, 90, &fails("429", "a")), (2, 140, 190, &fails("429", "a"))]), []);
        assert_eq!(copies(&[(1, 10, 90, &fails("429", "a")), (2, 20, 85, &fails("429", "b"))]), []);
        assert_eq!(copies(&[(1, 10, 90, &fails("no key", "a")), (2, 11, 89, &fails("gone", "a"))]), []);
        // The answer of a call whose first try has failed is the one that used as much.
        let task = |tokens: Option<Tokens>| {
            move |_: &mut Step, facts: &mut StepFacts| (marks(facts).task, facts.tokens) = (Some(1), tokens)
        };
        let tries = |step: &mut Step, facts: &mut StepFacts| {
            fails("429", "a")(step, facts);
            marks(facts).task = Some(1);
        };
        let calls: [Call<'_>; 3] =
            [(1, 0, 1000, &task(used(3, 1))), (2, 10, 100, &tries), (2, 300, 990, &task(used(3, 1)))];
        assert_eq!(copies(&calls), [(2, 0)]);
    }

    #[test]
    fn thousands_of_calls_that_say_the_same_are_looked_at_a_bounded_number_of_times() {
        let says = |step: &mut Step, facts: &mut StepFacts| {
            step.parent = Some(SpanId([1; 8]));
            (marks(facts).text, marks(facts).task, marks(facts).asked) = (Some(1), Some(1), (0..16).collect());
        };
        let of_one_answer = |step: &mut Step, facts: &mut StepFacts| {
            says(step, facts);
            facts.response_id = Some("same".to_owned());
        };
        let calls: Vec<Call<'_>> = (0..3000)
            .map(
                |n| if n % 2 == 0 { (1, 0, 10, &of_one_answer as Change<'_>) } else { (2, 0, 10, &says as Change<'_>) },
            )
            .collect();
        // Those of one answer are one; which of the others is that, too, nobody can say.
        assert!(copies(&calls).len() >= 1499);
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

    #[test]
    fn tools_of_one_name_and_session_at_one_time_are_one_where_two_instrumentations_tell_them() {
        // Below other steps of the session, of which one tells the id of its call.
        let tool = |id: &'static str, session: &'static str| {
            move |_: &mut Step, facts: &mut StepFacts| {
                (facts.kind, facts.billed) = (StepKind::Tool, false);
                facts.tool_call_id = Some(id.to_owned()).filter(|id| !id.is_empty());
                facts.tool_name = Some("Bash".to_owned());
                facts.session_id = Some(session.to_owned());
                if let Some(marks) = &mut facts.marks {
                    marks.is_run_by_others = !id.is_empty() || session == "t";
                }
            }
        };
        let [named, plain, elsewhere] = [tool("c", "s"), tool("", "s"), tool("", "t")];
        assert_eq!(copies(&[(1, 10, 90, &plain), (2, 20, 80, &named)]), [(1, 0)]);
        // Two at once are two, each told twice.
        let two: [Call<'_>; 4] =
            [(1, 10, 90, &plain), (1, 11, 91, &plain), (2, 20, 80, &named), (2, 21, 81, &tool("d", "s"))];
        assert_eq!(copies(&two), [(2, 1), (3, 0)]);
        // Another session, a part of the time, the same instrumentation.
        assert_eq!(copies(&[(1, 10, 90, &plain), (2, 20, 80, &elsewhere)]), []);
        assert_eq!(copies(&[(1, 10, 900, &plain), (2, 20, 80, &named)]), []);
        assert_eq!(copies(&[(1, 10, 90, &plain), (1, 20, 80, &named)]), []);
        // Two agents' tools of one name, of whom none is run by the other.
        assert_eq!(copies(&[(1, 10, 90, &plain), (2, 20, 80, &plain)]), []);
    }
}
