//! What passes the worker, as measurements.

use std::time::{Duration, Instant};

use super::{Metrics, ModelCall};
use crate::model::RunSummary;
use crate::model::outcome::Outcome;

/// Measures what passes the worker: each model call as its span ends, each run as it ends, each record's outcome.
#[derive(Debug)]
pub(crate) struct Observing {
    metrics: Option<Metrics>,
}

impl Observing {
    /// Measures into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics: Some(metrics) }
    }
}

impl crate::pipeline::worker::Observer for Observing {
    fn span_ended(&mut self, record: &crate::model::record::Record) {
        use crate::conventions::names;
        let facts = crate::pipeline::facts::StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope));
        let Some(metrics) = self.metrics.as_ref().filter(|_| facts.billed) else { return };
        let span = &record.span;
        let length = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let seconds = |key| span.attr(key).and_then(crate::model::otlp::Value::as_f64).filter(|s| *s >= 0.0);
        metrics.model_call(&ModelCall {
            operation: span.attr_str(names::OPERATION).unwrap_or("chat"),
            provider: facts.provider.as_deref(),
            request_model: facts.request_model.as_deref(),
            response_model: facts.response_model.as_deref(),
            server_address: span.attr_str(names::SERVER_ADDRESS),
            server_port: span
                .attr("server.port")
                .and_then(crate::model::otlp::Value::as_i64)
                .and_then(|port| u16::try_from(port).ok()),
            error_type: facts.error.as_ref().map(|error| error.kind.as_deref().unwrap_or(names::ERROR_TYPE_OTHER)),
            duration: Duration::from_nanos(length),
            input_tokens: facts.tokens.and_then(|tokens| tokens.prompt),
            output_tokens: facts.tokens.and_then(|tokens| tokens.completion),
            time_to_first_chunk: seconds("gen_ai.response.time_to_first_chunk")
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        });
    }

    fn run_ended(&mut self, run: &RunSummary) {
        if let Some(metrics) = &self.metrics {
            metrics.run_ended(run, Duration::from_millis(run.duration_ms.unwrap_or(0)));
        }
    }

    fn records(&mut self, outcome: Outcome, reason: &str, n: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.records(outcome, reason, n);
        }
    }

    fn finish(&mut self, deadline: Instant) {
        let Some(metrics) = self.metrics.take() else { return };
        if let Err(error) = metrics.shutdown(deadline.saturating_duration_since(Instant::now())) {
            crate::telemetry::warn(format_args!("the last metrics were not sent: {error}"));
        }
    }
}
