//! What a run adds up to for those who count: made when the run is over, and of what comes to it after that.
//!
//! Which calls count can only be told of a whole run, since a call may be told by several layers, and an agent's own
//! sum counts only where nothing below says more. So a run is counted as one thing, by the rules of its totals.
//!
//! What comes later may change which calls count. What was counted stays; added is what the totals have grown by.

use std::time::Duration;

use crate::conventions::names;
use crate::model::id::IdMap;
use crate::model::otlp::{Span, Value};
use crate::model::{Event, NanoUsd, RunId, RunSummary, SpanId, UnixNanos};
use crate::pipeline::facts::StepFacts;
use crate::store::assembly::{Billing, RunState};

/// A run that is over, and what it is counted as.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub run: RunSummary,
    /// The run was counted before, and this is what has come to it since.
    pub is_more: bool,
    /// Model calls, each once.
    pub calls: Vec<Call>,
    /// Steps that are no model calls and whose tokens count, since no step below tells its own.
    pub tellers: Vec<Call>,
    /// Steps whose costs make the run's.
    pub costs: Vec<Call>,
}

/// One call, as its span tells it; what is `None` nobody said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Call {
    pub operation: Option<String>,
    pub provider: Option<String>,
    pub request_model: Option<String>,
    pub response_model: Option<String>,
    pub server_address: Option<String>,
    pub server_port: Option<u16>,
    pub error_type: Option<String>,
    pub duration: Duration,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cost: Option<NanoUsd>,
    pub time_to_first_chunk: Option<Duration>,
}

impl Call {
    fn of(span: &Span, facts: &StepFacts) -> Self {
        let text = |key| span.attr_str(key).map(str::to_owned);
        let error = facts.error.as_ref();
        let length = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        Self {
            // What is no call is not to look like one.
            operation: text(names::OPERATION).or_else(|| {
                let kind = facts.kind;
                let word = names::OPERATIONS.iter().find(|(_, of)| *of == kind).map(|(word, _)| *word);
                (!facts.billed).then(|| word.unwrap_or(kind.as_str()).to_owned())
            }),
            provider: facts.provider.clone(),
            request_model: facts.request_model.clone(),
            response_model: facts.response_model.clone(),
            server_address: text(names::SERVER_ADDRESS),
            server_port: span.attr("server.port").and_then(Value::as_i64).and_then(|port| u16::try_from(port).ok()),
            error_type: error.map(|error| error.kind.clone().unwrap_or_else(|| names::ERROR_TYPE_OTHER.to_owned())),
            duration: Duration::from_nanos(length),
            input_tokens: facts.tokens.and_then(|tokens| tokens.prompt),
            output_tokens: facts.tokens.and_then(|tokens| tokens.completion),
            cost: facts.cost.map(|(cost, _)| cost),
            time_to_first_chunk: span
                .attr("gen_ai.response.time_to_first_chunk")
                .and_then(Value::as_f64)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }
}

/// What is noted of a run's events until it is over.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    calls: IdMap<SpanId, Call>,
    /// Something was noted since the run was added up.
    has_new: bool,
}

/// What is counted of a run.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Calls and tellers, with input and output tokens.
    steps: IdMap<SpanId, (u64, u64)>,
    costs: IdMap<SpanId, NanoUsd>,
    sums: Sums,
}

/// What counters grow by for a run.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    calls: usize,
    input: u64,
    output: u64,
    cost: NanoUsd,
}

/// Steps that count, each list of them once.
struct Parts {
    calls: Vec<(SpanId, Call)>,
    tellers: Vec<(SpanId, Call)>,
    costs: Vec<(SpanId, Call)>,
}

impl Tally {
    /// Adds up a run of which the log is all that is known.
    pub fn of_log(run: RunId, events: &[Event]) -> Self {
        let mut notes = Notes::default();
        events.iter().for_each(|event| notes.note(event));
        let state = RunState::read(run, events);
        notes.tally(&state, state.summary(UnixNanos::now())).0
    }
}

impl Notes {
    /// Notes an event of the run's log.
    pub fn note(&mut self, event: &Event) {
        if let Some((span, resource, scope)) = event.body.span().filter(|_| !event.body.is_step_start()) {
            self.note_end(span, &StepFacts::of(span, resource, scope));
        }
    }

    /// Notes the end of a step.
    pub fn note_end(&mut self, span: &Span, facts: &StepFacts) {
        if let Some(id) =
            SpanId::from_bytes(&span.span_id).filter(|_| facts.billed || facts.tokens.is_some() || facts.cost.is_some())
        {
            self.calls.insert(id, Call::of(span, facts));
            self.has_new = true;
        }
    }

    /// Adds the run up as it stands, of which this is the summary.
    pub fn tally(&mut self, state: &RunState, run: RunSummary) -> (Tally, Counted) {
        let parts = self.parts(state);
        let counted = Counted::of(&parts);
        (parts.tally(run, false), counted)
    }

    /// Returns what counts of the run as it stands.
    pub fn counted(&mut self, state: &RunState) -> Counted {
        Counted::of(&self.parts(state))
    }

    /// Adds up what has come to a run since it was counted; `None` where that is nothing.
    pub fn tally_more(
        &mut self,
        state: &RunState,
        counted: &mut Counted,
        run: impl FnOnce() -> RunSummary,
    ) -> Option<Tally> {
        if !self.has_new {
            return None;
        }
        let parts = counted.take(self.parts(state));
        (!parts.is_empty()).then(|| parts.tally(run(), true))
    }

    fn parts(&mut self, state: &RunState) -> Parts {
        self.has_new = false;
        let Billing { calls, tellers, costs } = state.billing();
        let noted = |spans: Vec<SpanId>| {
            let noted = |span: SpanId| {
                let mut call = self.calls.get(&span)?.clone();
                if let Some(own) = state.own_usage(span) {
                    let tokens = own.tokens.unwrap_or_default();
                    (call.input_tokens, call.output_tokens) = (tokens.prompt, tokens.completion);
                    call.cost = own.cost.map(|(cost, _)| cost);
                }
                Some((span, call))
            };
            spans.into_iter().filter_map(noted).collect()
        };
        Parts { calls: noted(calls), tellers: noted(tellers), costs: noted(costs) }
    }
}

impl Counted {
    fn of(parts: &Parts) -> Self {
        let steps = parts.calls.iter().chain(&parts.tellers);
        Self {
            steps: steps.map(|(span, call)| (*span, call.tokens())).collect(),
            costs: parts.costs.iter().map(|(span, call)| (*span, call.cost.unwrap_or_default())).collect(),
            sums: parts.sums(),
        }
    }

    /// Takes of what counts now what is new, and of that no more than what all of it has grown by: a new call may be one that
    /// another step told, and that was counted.
    fn take(&mut self, now: Parts) -> Parts {
        let (sums, was) = (now.sums(), self.sums);
        let mut left = Sums {
            calls: sums.calls.saturating_sub(was.calls),
            input: sums.input.saturating_sub(was.input),
            output: sums.output.saturating_sub(was.output),
            cost: NanoUsd(sums.cost.0.saturating_sub(was.cost.0).max(0)),
        };
        self.sums = Sums {
            calls: sums.calls.max(was.calls),
            input: sums.input.max(was.input),
            output: sums.output.max(was.output),
            cost: sums.cost.max(was.cost),
        };
        // A fuller copy of a step that was counted may have come.
        let mut grown = Vec::new();
        let mut fresh = |list: Vec<(SpanId, Call)>| -> Vec<_> {
            let is_new = |(span, call): &(SpanId, Call)| {
                let (input, output) = call.tokens();
                let Some(was) = self.steps.insert(*span, (input, output)) else { return true };
                let more = |now: u64, was: u64| Some(now.saturating_sub(was)).filter(|more| *more > 0);
                let (input_tokens, output_tokens) = (more(input, was.0), more(output, was.1));
                grown.push((*span, Call { input_tokens, output_tokens, ..call.clone() }));
                false
            };
            list.into_iter().filter(is_new).collect()
        };
        let (mut calls, mut tellers) = (fresh(now.calls), fresh(now.tellers));
        // The last ones are those of which nothing was known, most likely. What is told of others may still be more.
        let instead = calls.drain(..calls.len().saturating_sub(left.calls)).collect::<Vec<_>>();
        tellers.extend(instead.into_iter().chain(grown));
        for (_, call) in calls.iter_mut().chain(&mut tellers) {
            for (tokens, left) in
                [(&mut call.input_tokens, &mut left.input), (&mut call.output_tokens, &mut left.output)]
            {
                let taken = tokens.map(|tokens| tokens.min(*left));
                *left -= taken.unwrap_or(0);
                *tokens = taken.filter(|taken| *taken > 0 || *tokens == Some(0));
            }
        }
        tellers.retain(|(_, step)| step.input_tokens.is_some() || step.output_tokens.is_some());
        let mut costs = Vec::with_capacity(now.costs.len());
        for (span, step) in now.costs {
            let cost = step.cost.unwrap_or_default();
            match self.costs.insert(span, cost) {
                None => costs.push((span, step)),
                Some(was) if cost > was => {
                    costs.push((span, Call { cost: Some(NanoUsd(cost.0.saturating_sub(was.0))), ..step }));
                }
                Some(_) => {}
            }
        }
        for (_, step) in &mut costs {
            let taken = step.cost.map(|cost| cost.min(left.cost));
            left.cost = NanoUsd(left.cost.0 - taken.unwrap_or_default().0);
            step.cost = taken.filter(|taken| taken.0 != 0 || step.cost == Some(NanoUsd(0)));
        }
        costs.retain(|(_, step)| step.cost.is_some());
        Parts { calls, tellers, costs }
    }
}

impl Call {
    fn tokens(&self) -> (u64, u64) {
        (self.input_tokens.unwrap_or(0), self.output_tokens.unwrap_or(0))
    }
}

impl Parts {
    fn sums(&self) -> Sums {
        let tokens = |of: fn(&Call) -> Option<u64>| {
            let all = self.calls.iter().chain(&self.tellers).filter_map(|(_, call)| of(call));
            all.fold(0_u64, u64::saturating_add)
        };
        Sums {
            calls: self.calls.len(),
            input: tokens(|call| call.input_tokens),
            output: tokens(|call| call.output_tokens),
            cost: self.costs.iter().filter_map(|(_, step)| step.cost).sum(),
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.tellers.is_empty() && self.costs.is_empty()
    }

    fn tally(self, run: RunSummary, is_more: bool) -> Tally {
        let steps = |list: Vec<(SpanId, Call)>| list.into_iter().map(|(_, call)| call).collect();
        Tally { run, is_more, calls: steps(self.calls), tellers: steps(self.tellers), costs: steps(self.costs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_is_told_as_what_it_is() {
        let operation = |kind: &str, told: Option<&str>| {
            let mut span = Span { end_time_unix_nano: 1, ..Span::default() };
            span.set_attr(names::STEP_KIND, kind);
            told.into_iter().for_each(|word| span.set_attr(names::OPERATION, word));
            Call::of(&span, &StepFacts::of(&span, None, None)).operation
        };
        let told = [("llm", None), ("agent", None), ("tool", None), ("task", None), ("agent", Some("plan"))]
            .map(|(kind, told)| operation(kind, told));
        let expected = [None, Some("invoke_agent"), Some("execute_tool"), Some("task"), Some("plan")];
        assert_eq!(told, expected.map(|word| word.map(str::to_owned)));
    }
}
