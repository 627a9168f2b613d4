//! Which of several copies of a span's end counts.
//!
//! A sender may tell a span more than once, and not the same each time: before it is whole and when it is, or through two
//! exporters. The one that says most counts, in whatever order they come.

use super::is_failure;
use crate::model::{NanoUsd, StepKind, Tokens, UnixNanos};
use crate::pipeline::facts::StepFacts;

/// How much a copy says: whether it tells of tokens, then how late it ends, then its counts, its cost, whether it failed, and how
/// many facts it knows besides.
pub(crate) type Fullness = (bool, UnixNanos, [Option<u64>; 6], Option<NanoUsd>, bool, usize);

/// Tells how much is known of an end, to compare another copy of it with.
pub(crate) fn fullness(facts: &StepFacts, ended_at: UnixNanos) -> Fullness {
    // What it told itself, and not what is left of a sum.
    let (tokens, cost) = facts.told.as_ref().map_or((facts.tokens, facts.cost), |told| (told.tokens, told.cost));
    let Tokens { prompt, completion, total, cache_read, cache_write, reasoning } = tokens.unwrap_or_default();
    let counts = [prompt, completion, total, cache_read, cache_write, reasoning];
    (tokens.is_some(), ended_at, counts, cost.map(|(cost, _)| cost), is_failure(facts.status), known(facts))
}

fn known(facts: &StepFacts) -> usize {
    let texts = [
        &facts.agent_name,
        &facts.workflow_name,
        &facts.tool_name,
        &facts.tool_call_id,
        &facts.provider,
        &facts.request_model,
        &facts.response_model,
        &facts.session_id,
        &facts.user_id,
        &facts.external_id,
        &facts.response_id,
    ];
    let error = facts.error.as_ref();
    let others = [
        facts.kind != StepKind::Task,
        facts.run_id.is_some(),
        facts.parent_run_id.is_some(),
        !facts.finish_reasons.is_empty(),
        error.is_some_and(|error| error.kind.is_some()),
        error.is_some_and(|error| error.message.is_some()),
    ];
    texts.iter().filter(|text| text.is_some()).count() + others.iter().filter(|is_known| **is_known).count()
}
