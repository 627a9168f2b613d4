//! Each step's part in its run's totals, so that sums over steps are those of the run.

use std::collections::HashSet;

use super::RunState;
use super::billing::{Sums, known_model};
use super::view::duration_ms;
use crate::model::{CostSource, ErrorInfo, NanoUsd, SpanId, StepKind, StepStatus, Tokens, UnixNanos};

/// A step, and what of it counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    /// Readable name, unique in the run.
    pub step_id: String,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: StepKind,
    pub name: String,
    /// The agent that it is or belongs to.
    pub agent: Option<String>,
    pub provider: Option<String>,
    /// The model, as the run's summary names it: the one that answered, here or elsewhere in the run.
    pub model: Option<String>,
    /// The tool, of a tool call.
    pub tool: Option<String>,
    /// The id that the model gave the call of a tool.
    pub tool_call_id: Option<String>,
    pub status: StepStatus,
    pub started_at: UnixNanos,
    pub duration_ms: Option<f64>,
    pub tokens: Option<Tokens>,
    pub cost: Option<(NanoUsd, CostSource)>,
    pub error: Option<ErrorInfo>,
    pub duplicate_of: Option<String>,
    /// A model call that counts.
    pub is_call: bool,
    /// A tool call that counts.
    pub is_tool_call: bool,
    /// Its tokens are part of the run's.
    pub counts_tokens: bool,
    /// Its cost is part of the run's.
    pub counts_cost: bool,
    /// One of the run's steps without a price.
    pub is_unpriced: bool,
    /// One of the run's errors: a failure of its own.
    pub is_failure: bool,
}

impl RunState {
    /// Returns all steps in the order in which they were told.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        let (Sums { copies, providers, counted, failures, .. }, executions) = (self.sums(), self.executions());
        let set = |places: &[usize]| places.iter().copied().collect::<HashSet<usize>>();
        let (calls, tokens, costs) = (set(&counted.calls), set(&counted.tokens), set(&counted.costs));
        let (unpriced, failures) = (set(&self.unpriced(counted)), set(failures));
        let answered = self.answering_models();
        let agents = self.agents();
        let account = |place: usize| {
            let step = &self.steps[place];
            let facts = &step.facts;
            let ended = executions.get(&place).map_or(step, |execution| &self.steps[*execution]);
            let is_tool = facts.kind == StepKind::Tool;
            Account {
                step_id: step.step_id.clone(),
                span_id: step.span_id,
                parent: step.parent,
                kind: facts.kind,
                name: facts.name.clone(),
                agent: agents[place].map(str::to_owned),
                provider: self.provider_of(place, providers).cloned(),
                model: known_model(facts, &answered).map(str::to_owned),
                tool: is_tool.then(|| facts.tool_name.clone().unwrap_or_else(|| facts.step_name.clone())),
                tool_call_id: facts.tool_call_id.clone().filter(|_| is_tool),
                status: ended.status,
                started_at: step.started_at,
                duration_ms: step.ended_at.map(|end| duration_ms(step.started_at, end)),
                tokens: facts.tokens.map(Tokens::with_total),
                cost: facts.cost,
                error: ended.error().cloned(),
                duplicate_of: copies.get(&place).map(|of| self.steps[*of].step_id.clone()),
                is_call: calls.contains(&place),
                is_tool_call: is_tool && !copies.contains_key(&place),
                counts_tokens: tokens.contains(&place),
                counts_cost: costs.contains(&place),
                is_unpriced: unpriced.contains(&place),
                is_failure: failures.contains(&place),
            }
        };
        (0..self.steps.len()).map(account).collect()
    }
}
