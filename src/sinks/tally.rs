//! What a run adds up to for those who count: made once, when the run is over.
//!
//! Which calls count can only be told of a whole run, since a call may be told by several layers, and an agent's own
//! sum counts only where nothing below says more. So a run is counted as one thing, by the rules of its totals.

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
            operation: text(names::OPERATION),
            provider: facts.provider.clone(),
            request_model: facts.request_model.clone(),
            response_model: facts.response_model.clone(),
            server_address: text(names::SERVER_ADDRESS),
            server_port: span.attr("server.port").and_then(Value::as_i64).and_then(|port| u16::try_from(port).ok()),
            error_type: error.map(|error| error.kind.clone().unwrap_or_else(|| names::ERROR_TYPE_OTHER.to_owned())),
            duration: Duration::from_nanos(length),
            input_tokens: facts.tokens.and_then(|tokens| tokens.prompt).filter(is_credible),
            output_tokens: facts.tokens.and_then(|tokens| tokens.completion).filter(is_credible),
            cost: facts.cost.map(|(cost, _)| cost),
            time_to_first_chunk: span
                .attr("gen_ai.response.time_to_first_chunk")
                .and_then(Value::as_f64)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }
}

/// Tells whether a call can have so many tokens: more are a mistake, and sums of such would overflow.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "`filter` hands it over so")]
fn is_credible(tokens: &u64) -> bool {
    *tokens <= 1 << 40
}

/// What is noted of a run's events until it is over.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    calls: IdMap<SpanId, Call>,
}

impl Tally {
    /// Adds up a run of which the log is all that is known.
    pub fn of_log(run: RunId, events: &[Event]) -> Self {
        let mut notes = Notes::default();
        events.iter().for_each(|event| notes.note(event));
        let state = RunState::read(run, events);
        notes.tally(&state, state.summary(UnixNanos::now()))
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
        }
    }

    /// Adds the run up as it stands, of which this is the summary.
    pub fn tally(&self, state: &RunState, run: RunSummary) -> Tally {
        let Billing { calls, tellers, costs } = state.billing();
        let noted = |spans: Vec<SpanId>| spans.iter().filter_map(|span| self.calls.get(span).cloned()).collect();
        Tally { run, calls: noted(calls), tellers: noted(tellers), costs: noted(costs) }
    }
}
