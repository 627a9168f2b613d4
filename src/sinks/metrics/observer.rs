//! What passes the worker, as measurements.

use std::time::Instant;

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
        if let Some(metrics) = &self.metrics {
            metrics.run_over(tally);
        }
    }

    fn records(&mut self, outcome: Outcome, reason: &str, n: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.records(outcome, reason, n);
        }
    }

    fn finish(&mut self, deadline: Instant, is_all: bool) -> Option<UnderWay> {
        let metrics = self.metrics.take()?;
        let next = if metrics.is_kept() { "; the next process that sends metrics there sends them" } else { "" };
        let last = metrics.begin_shutdown(deadline, is_all)?;
        Some(Box::new(move |deadline| {
            if let Err(error) = last(deadline) {
                crate::telemetry::warn(format_args!("the last metrics were not sent: {error}{next}"));
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
