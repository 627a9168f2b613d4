//! What is shown of a run: what it is called, its totals, its summary and its steps.

use super::billing::{Counted, Sums};
use super::ending::has_words;
use super::tree::both;
use super::{MAX_ARTIFACTS, RunState, Step};
use crate::model::event::{RunCompleted, Totals};
use crate::model::json_text::JsonText;
use crate::model::run::ChildStep;
use crate::model::{NanoUsd, RunKind, RunSummary, StepKind, StepStatus, StepView, Tokens, UnixNanos};
use crate::pipeline::facts::StepFacts;

/// Direct children listed in a workflow's summary.
const MAX_CHILDREN: usize = 200;
/// Models listed in a summary.
const MAX_MODELS: usize = 64;

impl RunState {
    /// Returns the step that names the run: the first topmost one, or below a plain one that has not been told to
    /// be a root the topmost agent.
    pub(super) fn root(&self) -> Option<&Step> {
        let first = self.roots().min_by_key(|step| (step.started_at, step.span_id))?;
        if first.parent.is_none() || is_named_run(first) {
            return Some(self.agent_made_by(first).unwrap_or(first));
        }
        // The real root has not been seen: the topmost agent names the run.
        self.roots().filter(|step| is_named_run(step)).min_by_key(|step| step.started_at).or(Some(first))
    }

    /// Returns the agent at work right below the step that made it, which then is all of that agent's run and says nothing of it; of
    /// several times at work the last.
    fn agent_made_by(&self, root: &Step) -> Option<&Step> {
        let is_its = |step: &&Step| {
            step.parent == Some(root.span_id)
                && step.facts.kind == StepKind::Agent
                && step.facts.agent_id.is_some()
                && step.facts.agent_id == root.facts.agent_id
        };
        let is_maker = root.facts.makes_agent && !is_named_run(root);
        is_maker.then(|| self.steps.iter().filter(is_its).max_by_key(|step| step.started_at)).flatten()
    }

    /// Returns kind and name of the run, by its root.
    pub fn identity(&self) -> (RunKind, String) {
        let Some(root) = self.root() else { return (RunKind::Workflow, "unknown".to_owned()) };
        identity_of(&root.facts)
    }

    /// Returns the step that stands for the run, which saw all of it by one clock: those of other processes may be wrong.
    pub(super) fn host_step(&self) -> Option<&Step> {
        let (host, _) = self.host?;
        self.by_span.get(&host).map(|place| &self.steps[*place])
    }

    /// Returns the last end of a step; none that began after the step which stands for the run had ended is looked at.
    fn ended_at(&self) -> Option<UnixNanos> {
        let until = self.host_step().and_then(|host| host.ended_at);
        let began_in_time = |step: &&Step| until.is_none_or(|until| step.started_at <= until);
        self.steps.iter().filter(began_in_time).filter_map(|step| step.ended_at).max()
    }

    /// Returns the start of the step that stands for the run, else the first one of a step: nothing begins before its cause.
    fn started_at(&self) -> UnixNanos {
        let first = || self.steps.iter().map(|step| step.started_at).min();
        let start = self.host_step().map(|host| host.started_at).or_else(first);
        start.or(self.started.map(|(_, at)| at)).unwrap_or_default()
    }

    /// Returns what the run took so far.
    pub fn totals(&self) -> Totals {
        let Sums { bill, tool_calls, failures, .. } = self.sums();
        let over = !self.status().is_open();
        Totals {
            duration_ms: self.ended_at().filter(|_| over).map(|end| end.millis_since(self.started_at())),
            tokens: bill.tokens,
            cost_usd: bill.cost,
            cost_source: bill.source,
            steps_total: self.steps.len() as u64,
            llm_calls: bill.llm_calls,
            tool_calls: *tool_calls,
            errors: failures.len() as u64,
        }
    }

    /// Returns `run_completed` for a run of which nothing more is waited for.
    pub fn ended_completion(&mut self) -> RunCompleted {
        let was_completed = std::mem::replace(&mut self.completed, true);
        let completion = self.completion();
        self.completed = was_completed;
        completion
    }

    /// Returns `run_completed` for the run as it stands.
    pub fn completion(&self) -> RunCompleted {
        let status = self.status();
        RunCompleted { status, totals: self.totals(), error: self.error(status) }
    }

    /// Returns the run's summary as of `now`.
    pub fn summary(&self, now: UnixNanos) -> RunSummary {
        let Sums { counted, bill, tool_calls, failures, .. } = self.sums();
        let status = self.status();
        let (kind, name) = self.identity();
        let is_workflow = kind == RunKind::Workflow;
        let started_at = self.started_at();
        let completed_at = self.ended_at().filter(|_| !status.is_open());
        let duration_ms = completed_at.map(|end| end.millis_since(started_at));
        let dearest = bill.models.iter().rev().max_by_key(|(_, _, cost)| *cost);
        RunSummary {
            format: crate::store::FORMAT,
            run_id: self.run_id,
            kind,
            agent_id: (!is_workflow).then(|| name.clone()),
            workflow_id: is_workflow.then_some(name),
            session_id: self.session().cloned(),
            user_id: self.user_id.clone(),
            parent_run_id: self.parent_run_id,
            replay_of: self.replay_of,
            budget: self.budget.or_else(|| self.root()?.facts.budget),
            external_id: self.external_id.clone(),
            tags: self.tags.clone(),
            trace_id: self.trace_id,
            status,
            started_at,
            completed_at,
            duration_ms,
            waited_ms: self.waited / 1_000_000,
            total_duration_ms: is_workflow.then_some(duration_ms),
            cost_usd: bill.cost,
            total_cost_usd: is_workflow.then_some(bill.cost),
            cost_source: bill.source,
            unpriced_steps: bill.unpriced,
            provider: dearest.and_then(|(_, provider, _)| provider.clone()),
            model: dearest.map(|(model, _, _)| model.clone()),
            models: if bill.models.len() > 1 {
                bill.models.iter().take(MAX_MODELS).map(|(model, _, _)| model.clone()).collect()
            } else {
                Vec::new()
            },
            tokens: bill.tokens,
            steps_total: self.steps.len() as u64,
            llm_calls: bill.llm_calls,
            tool_calls: *tool_calls,
            errors: failures.len() as u64,
            events: self.next_seq,
            dropped: self.dropped,
            artifacts: self.artifacts.clone(),
            artifacts_total: Some(self.artifacts_total).filter(|total| *total > MAX_ARTIFACTS as u64),
            error: self.error(status),
            writer: None,
            pinned: false,
            events_sha256: None,
            updated_at: now,
            steps: is_workflow.then(|| self.children(counted)),
        }
    }

    /// Returns the conversation that the run is part of: none of those that an experiment's cases are.
    fn session(&self) -> Option<&String> {
        let has_cases = |root: &Step| root.facts.is_experiment && root.facts.session_id.is_none();
        self.session_id.as_ref().filter(|_| !self.root().is_some_and(has_cases))
    }

    fn children(&self, counted: &Counted) -> Vec<ChildStep> {
        let Some(root) = self.root() else { return Vec::new() };
        let mut own: Vec<Option<NanoUsd>> = vec![None; self.steps.len()];
        for &place in &counted.costs {
            own[place] = self.steps[place].facts.cost.map(|(cost, _)| cost);
        }
        let below = self.sums_below(&own, |one, other| one + other);
        let is_child = |(_, step): &(usize, &Step)| step.parent == Some(root.span_id);
        let mut children: Vec<(usize, &Step)> = self.steps.iter().enumerate().filter(is_child).collect();
        children.sort_by_key(|(_, step)| step.started_at);
        children
            .into_iter()
            .take(MAX_CHILDREN)
            .map(|(place, step)| ChildStep {
                step_id: step.step_id.clone(),
                agent_id: step.facts.agent_name.clone().filter(|_| step.facts.kind == StepKind::Agent),
                status: step.status,
                duration_ms: step.ended_at.map(|end| end.millis_since(step.started_at)),
                cost_usd: both(own[place], below[place], |one, other| one + other),
            })
            .collect()
    }

    /// Returns all steps by start, as `get` shows them.
    pub fn step_views(&self) -> Vec<StepView> {
        let (Sums { copies, providers, .. }, executions) = (self.sums(), self.executions());
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        // What encloses a step comes before it, where both began in the same moment of a coarse clock.
        let (depths, agents) = (self.depths(), self.agents());
        order.sort_by_key(|&place| (self.steps[place].started_at, depths[place], place));
        order
            .into_iter()
            .map(|place| {
                let step = &self.steps[place];
                let facts = &step.facts;
                let ended = executions.get(&place).map_or(step, |execution| &self.steps[*execution]);
                StepView {
                    step_id: step.step_id.clone(),
                    span_id: step.span_id,
                    parent_span_id: step.parent,
                    kind: facts.kind,
                    name: facts.name.clone(),
                    agent_id: agents[place].map(str::to_owned),
                    status: ended.status,
                    started_at: step.started_at,
                    duration_ms: step.ended_at.map(|end| duration_ms(step.started_at, end)),
                    provider: self.provider_of(place, providers).cloned(),
                    model: facts.model().map(str::to_owned),
                    tokens: facts.tokens.map(Tokens::with_total),
                    cost_usd: facts.cost.map(|(cost, _)| cost),
                    cost_source: facts.cost.map(|(_, source)| source),
                    error: ended
                        .error()
                        .filter(|error| has_words(error) || ended.status != StepStatus::Cancelled)
                        .cloned(),
                    input: step.content.as_ref().and_then(|content| content.input.as_ref().map(JsonText::value)),
                    output: step.content.as_ref().and_then(|content| content.output.as_ref().map(JsonText::value)),
                    duplicate_of: copies.get(&place).map(|of| self.steps[*of].step_id.clone()),
                }
            })
            .collect()
    }
}

/// Returns kind and name of the run of which this is the root.
pub(crate) fn identity_of(root: &StepFacts) -> (RunKind, String) {
    match root.kind {
        StepKind::Agent => (RunKind::Agent, root.agent_name.as_ref().unwrap_or(&root.step_name).clone()),
        StepKind::Workflow => (RunKind::Workflow, root.workflow_name.as_ref().unwrap_or(&root.step_name).clone()),
        _ => (RunKind::Workflow, root.name.clone()),
    }
}

pub(super) fn is_named_run(step: &Step) -> bool {
    matches!(step.facts.kind, StepKind::Agent | StepKind::Workflow)
}

/// Milliseconds with microsecond precision, 0 for a span that ends before it starts.
pub(super) fn duration_ms(start: UnixNanos, end: UnixNanos) -> f64 {
    (end.0.saturating_sub(start.0) / 1_000) as f64 / 1_000.0
}
