//! What passes the worker, as measurements.

use std::time::{Duration, Instant};

use super::{Metrics, ModelCall};
use crate::model::outcome::Outcome;
use crate::pipeline::worker::UnderWay;
use crate::sinks::tally::{Call, Tally};

/// Measures what passes the worker: each run with its calls when it is over, each record's outcome.
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
    fn run_over(&mut self, tally: &Tally) {
        let Some(metrics) = &self.metrics else { return };
        tally.calls.iter().for_each(|call| metrics.model_call(&call.as_model_call()));
        tally.tellers.iter().for_each(|step| metrics.tokens(&step.as_model_call()));
        metrics.run_ended(&tally.run, Duration::from_millis(tally.run.duration_ms.unwrap_or(0)));
    }

    fn records(&mut self, outcome: Outcome, reason: &str, n: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.records(outcome, reason, n);
        }
    }

    fn finish(&mut self, deadline: Instant) -> Option<UnderWay> {
        let last = self.metrics.take()?.begin_shutdown(deadline)?;
        Some(Box::new(move |deadline| {
            if let Err(error) = last(deadline) {
                crate::telemetry::warn(format_args!("the last metrics were not sent: {error}"));
            }
        }))
    }
}

impl Call {
    pub(super) fn as_model_call(&self) -> ModelCall<'_> {
        ModelCall {
            operation: self.operation.as_deref().unwrap_or("chat"),
            provider: self.provider.as_deref(),
            request_model: self.request_model.as_deref(),
            response_model: self.response_model.as_deref(),
            server_address: self.server_address.as_deref(),
            server_port: self.server_port,
            error_type: self.error_type.as_deref(),
            duration: self.duration,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            time_to_first_chunk: self.time_to_first_chunk,
        }
    }
}
