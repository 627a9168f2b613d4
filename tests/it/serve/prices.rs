//! What stored calls cost: worked by hand from the price table, and as the Python engine of the table computes it.

mod by_hand;
mod peer;

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use runspan::model::otlp::{Span, Value};
use runspan::model::{NanoUsd, SpanId, UnixNanos};

use super::{PROTOBUF, Server, post, request, wait_for};
use crate::support::steps;

/// Spans of one trace, besides its root.
const CALLS_A_TRACE: usize = 250;

/// A model call as an emitter tells it.
#[derive(Clone, Debug)]
struct Call {
    at: UnixNanos,
    provider: Option<String>,
    model: String,
    /// Attributes besides.
    told: Vec<(String, Value)>,
}

impl Call {
    fn span(&self) -> Span {
        let mut span = Span {
            name: "chat".into(),
            start_time_unix_nano: self.at.0,
            end_time_unix_nano: self.at.0 + 1_000_000,
            ..Span::default()
        };
        span.set_attr("gen_ai.operation.name", "chat");
        span.set_attr("gen_ai.request.model", self.model.as_str());
        if let Some(provider) = &self.provider {
            span.set_attr("gen_ai.provider.name", provider.as_str());
        }
        for (key, value) in &self.told {
            span.set_attr(key, value.clone());
        }
        span
    }
}

/// Sends calls to a server, and returns what each of them cost as it is stored.
fn stored_costs(store: &Path, calls: &[Call]) -> Vec<Option<NanoUsd>> {
    let server = Server::start(store, &[]);
    for (trace, calls) in (1..).zip(calls.chunks(CALLS_A_TRACE)) {
        let at = calls.iter().map(|call| call.at.0).min().unwrap();
        let mut root = super::span(trace, 255, 0, "invoke_agent", 0, 0);
        (root.start_time_unix_nano, root.end_time_unix_nano) = (at, at + 1);
        root.set_attr("gen_ai.agent.name", "caller");
        let mut spans = vec![root.clone()];
        for (id, call) in (1u64..).zip(calls) {
            let mut span = call.span();
            span.trace_id = root.trace_id.clone();
            span.span_id = id.to_be_bytes().to_vec();
            span.parent_span_id = root.span_id.clone();
            spans.push(span);
        }
        let body = request(spans).encode_to_vec();
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    }
    let wanted = calls.len() + calls.len().div_ceil(CALLS_A_TRACE);
    let is_whole =
        |runs: &[runspan::model::RunSummary]| runs.iter().map(|run| run.steps_total).sum::<u64>() == wanted as u64;
    let runs = wait_for(store, is_whole);
    assert!(is_whole(&runs), "{wanted} steps wanted");
    let mut costs = HashMap::new();
    for run in &runs {
        for step in steps(store, run.run_id) {
            costs.insert((run.trace_id.to_string(), step.span_id), step.cost_usd);
        }
    }
    assert_eq!(server.end(), Some(0));
    let cost = |at: usize| {
        let trace = super::span((at / CALLS_A_TRACE + 1) as u8, 1, 0, "", 0, 0).trace_id;
        let trace: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
        let span = SpanId(((at % CALLS_A_TRACE + 1) as u64).to_be_bytes());
        *costs.get(&(trace, span)).unwrap_or_else(|| panic!("call {at} is not stored"))
    };
    (0..calls.len()).map(cost).collect()
}

fn time(text: &str) -> UnixNanos {
    UnixNanos::parse(text).unwrap()
}
