//! What the counts of two steps say of whether both tell one call.

use super::layers::used;
use crate::model::Tokens;
use crate::store::assembly::{Step, is_failure};

/// LangChain in JavaScript adds it to the whole.
const BEGINNING: u64 = Tokens::BEGINNING;

/// Tells whether nothing that two steps say that they used shows that they are two calls. A layer may leave out of what went in
/// what was cached, and of what came out the reasoning, or know no more than the beginning of a stream, or count that twice.
pub(super) fn may_have_used_the_same(one: &Step, other: &Step) -> bool {
    let Some((tokens, others)) = one.facts.tokens.zip(other.facts.tokens) else { return true };
    // One that broke off was counted by each as far as it had come.
    let broke_off = is_failure(one.status) || is_failure(other.status);
    let is_part = |whole: Tokens, part: Tokens| {
        let Some((all, told)) = whole.completion.zip(part.completion) else { return true };
        all.abs_diff(told) <= BEGINNING
            || whole.reasoning.is_some_and(|reasoning| all.checked_sub(reasoning) == Some(told))
    };
    let came_out = || {
        let Some((one, other)) = tokens.completion.zip(others.completion) else { return true };
        one.min(other) <= BEGINNING || is_part(tokens, others) || is_part(others, tokens)
    };
    may_have_gone_in(tokens, others) && (broke_off || came_out())
}

/// Tells whether what went in may be the same.
pub(super) fn may_have_gone_in(one: Tokens, other: Tokens) -> bool {
    let is_part = |whole: Tokens, told: u64| {
        let [read, written] = [whole.cache_read, whole.cache_write].map(Option::unwrap_or_default);
        let left_out = [0, read, written, read.saturating_add(written)];
        left_out.into_iter().any(|part| whole.prompt.and_then(|all| all.checked_sub(part)) == Some(told))
    };
    match one.prompt.zip(other.prompt) {
        // What nobody has counted.
        None | Some((0, _) | (_, 0)) => true,
        Some((prompt, others)) => is_part(one, others) || is_part(other, prompt),
    }
}

/// How much two steps that may be one call have in common: what they used, what was answered, and what was asked.
pub(super) fn likeness(one: &Step, other: &Step) -> [bool; 3] {
    let marks = one.facts.marks.as_ref().zip(other.facts.marks.as_ref());
    let says = |same: &dyn Fn((u32, u32)) -> bool, told: Option<(Option<u32>, Option<u32>)>| {
        told.and_then(|(one, other)| one.zip(other)).is_some_and(same)
    };
    let is_same = |(one, other): (u32, u32)| one == other;
    [
        used_the_same(one, other),
        says(&is_same, marks.map(|(one, other)| (one.text, other.text))),
        says(&is_same, marks.map(|(one, other)| (one.question, other.question))),
    ]
}

/// Tells whether two steps say that they used the same.
pub(super) fn used_the_same(one: &Step, other: &Step) -> bool {
    used(one).is_some() && used(one) == used(other)
}

/// Tells whether a step has no more than the beginning of a stream of which another tells all.
pub(super) fn has_only_begun(step: &Step, whole: &Step) -> bool {
    let Some((tokens, all)) = step.facts.tokens.zip(whole.facts.tokens) else { return false };
    let Some((begun, out)) = tokens.completion.zip(all.completion) else { return false };
    let are_well = !is_failure(step.status) && !is_failure(whole.status);
    let prompts = tokens.prompt.zip(all.prompt);
    are_well && begun <= BEGINNING && begun < out && prompts.is_some() && may_have_gone_in(tokens, all)
}
