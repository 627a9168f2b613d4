//! The instruments: their names, units, buckets and attributes.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use super::settings::Names;
use crate::model::outcome::Outcome;
use crate::model::{NanoUsd, RunSummary};
use crate::sinks::tally::{Call, Tally};

/// The standard's buckets for durations of single operations, in seconds.
pub(super) const OPERATION_SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// The standard's buckets for token counts.
pub(super) const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Runs last from a blink to hours; no standard covers both.
const RUN_SECONDS: [f64; 14] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];

/// From a hundredth of a cent to a hundred dollars.
const RUN_USD: [f64; 13] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0];

/// The longest attribute value that is kept, in bytes; names come from outside.
pub(super) const MAX_VALUE_BYTES: usize = 256;

/// One call of a model; what is `None` is unknown and left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelCall<'a> {
    /// `gen_ai.operation.name`.
    pub operation: &'a str,
    /// `gen_ai.provider.name`.
    pub provider: Option<&'a str>,
    /// `gen_ai.request.model`.
    pub request_model: Option<&'a str>,
    /// `gen_ai.response.model`.
    pub response_model: Option<&'a str>,
    /// `server.address`.
    pub server_address: Option<&'a str>,
    /// `server.port`; told only beside the address.
    pub server_port: Option<u16>,
    /// `error.type`, of a failed call.
    pub error_type: Option<&'a str>,
    /// How long it took.
    pub duration: Duration,
    /// All input tokens, cached ones included.
    pub input_tokens: Option<u64>,
    /// All output tokens, reasoning included.
    pub output_tokens: Option<u64>,
    /// How long the first piece of a streamed answer took.
    pub time_to_first_chunk: Option<Duration>,
}

impl ModelCall<'_> {
    /// Tells whether the call is what the conventions in development call inference.
    fn is_inference(&self) -> bool {
        matches!(self.operation, "chat" | "generate_content" | "text_completion")
    }

    pub(super) fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![pair("gen_ai.operation.name", self.operation)];
        let port = self.server_port.filter(|_| self.server_address.is_some());
        for (key, value) in [
            ("gen_ai.provider.name", self.provider),
            ("gen_ai.request.model", self.request_model),
            ("gen_ai.response.model", self.response_model),
            ("server.address", self.server_address),
        ] {
            attributes.extend(value.map(|value| pair(key, value)));
        }
        attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        attributes
    }
}

/// All instruments of one process.
pub(super) struct Instruments {
    calls: Calls,
    runs: Counter<u64>,
    run_duration: Histogram<f64>,
    run_cost: Histogram<f64>,
    usage_tokens: Counter<u64>,
    usage_cost: Counter<f64>,
    records: Counter<u64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter, names: Names) -> Self {
        Self {
            calls: Calls::new(meter, names),
            runs: meter.u64_counter("runspan.runs").with_unit("{run}").with_description("Runs that ended").build(),
            run_duration: seconds(meter, "runspan.run.duration", "How long runs took", &RUN_SECONDS),
            run_cost: meter
                .f64_histogram("runspan.run.cost")
                .with_unit("USD")
                .with_description("What runs cost")
                .with_boundaries(RUN_USD.to_vec())
                .build(),
            usage_tokens: meter
                .u64_counter("runspan.usage.tokens")
                .with_unit("{token}")
                .with_description("Tokens by who used them and by model")
                .build(),
            usage_cost: meter
                .f64_counter("runspan.usage.cost")
                .with_unit("USD")
                .with_description("What was paid by who used it and by model")
                .build(),
            records: meter
                .u64_counter("runspan.records")
                .with_unit("{record}")
                .with_description("What became of the records that were received")
                .build(),
        }
    }

    /// Counts a run that is over, with all its calls, or what has come to it since.
    pub(super) fn run_over(&self, tally: &Tally) {
        tally.calls.iter().for_each(|call| self.model_call(&call.as_model_call()));
        tally.tellers.iter().for_each(|step| self.tokens(&step.as_model_call()));
        self.usage(tally);
        if !tally.is_more {
            self.run_ended(&tally.run, Duration::from_millis(tally.run.duration_ms.unwrap_or(0)));
        }
    }

    pub(super) fn model_call(&self, call: &ModelCall<'_>) {
        self.calls.record(call);
    }

    pub(super) fn tokens(&self, call: &ModelCall<'_>) {
        self.calls.record_tokens(call);
    }

    /// Counts what a run used, by model: together it is what the run's totals say.
    fn usage(&self, tally: &Tally) {
        // Most runs use one model, and adding takes longer than finding that out.
        let mut used: Vec<(Maker<'_>, Used)> = Vec::new();
        for step in tally.calls.iter().chain(&tally.tellers) {
            let used = used_by(&mut used, step);
            for (sum, tokens) in [(&mut used.input, step.input_tokens), (&mut used.output, step.output_tokens)] {
                *sum = tokens.map(|tokens| sum.unwrap_or(0).saturating_add(tokens)).or(*sum);
            }
        }
        for step in &tally.costs {
            let used = used_by(&mut used, step);
            used.cost = step.cost.map(|cost| used.cost.unwrap_or_default() + cost).or(used.cost);
        }
        for (maker, used) in used {
            let attributes = Self::of_usage(&tally.run, maker);
            for (kind, tokens) in [("input", used.input), ("output", used.output)] {
                if let Some(tokens) = tokens {
                    self.usage_tokens.add(tokens, &with(&attributes, Some(pair("gen_ai.token.type", kind))));
                }
            }
            if let Some(cost) = used.cost {
                self.usage_cost.add(cost.as_usd(), &attributes);
            }
        }
    }

    /// Returns what tells usage apart: the run's name, and who made the answers.
    fn of_usage(run: &RunSummary, (model, provider): Maker<'_>) -> Vec<KeyValue> {
        let mut attributes = vec![pair("kind", run.kind.as_str()), pair("name", run.name())];
        attributes.extend(model.map(|model| pair("model", model)));
        attributes.extend(provider.map(|provider| pair("provider", provider)));
        attributes
    }

    /// Returns what tells runs apart.
    pub(super) fn of_run(run: &RunSummary) -> [KeyValue; 3] {
        [pair("kind", run.kind.as_str()), pair("name", run.name()), pair("status", run.status.as_str())]
    }

    pub(super) fn run_ended(&self, run: &RunSummary, duration: Duration) {
        let attributes = Self::of_run(run);
        self.runs.add(1, &attributes);
        self.run_duration.record(duration.as_secs_f64(), &attributes);
        if let Some(cost) = run.cost_usd {
            self.run_cost.record(cost.as_usd(), &attributes);
        }
    }

    pub(super) fn records(&self, outcome: Outcome, reason: &str, n: u64) {
        self.records.add(n, &[pair("outcome", outcome.as_str()), pair("reason", reason)]);
    }
}

/// Who made an answer: the model that answered, else the one asked for, and its provider.
type Maker<'a> = (Option<&'a str>, Option<&'a str>);

/// What a run used of one maker; what is `None` nobody said.
#[derive(Default)]
struct Used {
    input: Option<u64>,
    output: Option<u64>,
    cost: Option<NanoUsd>,
}

fn used_by<'a, 'b>(all: &'b mut Vec<(Maker<'a>, Used)>, step: &'a Call) -> &'b mut Used {
    let maker = (step.response_model.as_deref().or(step.request_model.as_deref()), step.provider.as_deref());
    let place = all.iter().position(|(known, _)| *known == maker).unwrap_or_else(|| {
        all.push((maker, Used::default()));
        all.len() - 1
    });
    &mut all[place].1
}

/// The instruments of model calls, under one set of names.
enum Calls {
    V1_41 { token_usage: Histogram<u64>, duration: Histogram<f64>, first_chunk: Histogram<f64> },
    Main(Box<MainCalls>),
}

struct MainCalls {
    inference_duration: Histogram<f64>,
    /// For operations other than inference.
    operation_duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    input_tokens: Counter<u64>,
    output_tokens: Counter<u64>,
    operation_input_tokens: Histogram<u64>,
    operation_output_tokens: Histogram<u64>,
}

impl Calls {
    fn new(meter: &Meter, names: Names) -> Self {
        let duration = |name, text| seconds(meter, name, text, &OPERATION_SECONDS);
        let tokens = |name, text| {
            meter
                .u64_histogram(name)
                .with_unit("{token}")
                .with_description(text)
                .with_boundaries(TOKENS.to_vec())
                .build()
        };
        let counter = |name, text| meter.u64_counter(name).with_unit("{token}").with_description(text).build();
        match names {
            Names::V1_41 => Self::V1_41 {
                token_usage: tokens("gen_ai.client.token.usage", "Number of input and output tokens used"),
                duration: duration("gen_ai.client.operation.duration", "GenAI operation duration"),
                first_chunk: duration("gen_ai.client.operation.time_to_first_chunk", "Time to receive the first chunk"),
            },
            Names::Main => Self::Main(Box::new(MainCalls {
                inference_duration: duration("gen_ai.client.inference.duration", "Duration of inference"),
                operation_duration: duration("gen_ai.client.operation.duration", "Duration of other operations"),
                first_chunk: duration("gen_ai.client.inference.time_to_first_chunk", "Time to receive the first chunk"),
                input_tokens: counter("gen_ai.client.inference.usage.input_tokens", "Input tokens used"),
                output_tokens: counter("gen_ai.client.inference.usage.output_tokens", "Output tokens used"),
                operation_input_tokens: tokens(
                    "gen_ai.client.inference.operation.input_tokens",
                    "Input tokens of one operation",
                ),
                operation_output_tokens: tokens(
                    "gen_ai.client.inference.operation.output_tokens",
                    "Output tokens of one operation",
                ),
            })),
        }
    }

    /// Counts tokens that no call tells.
    fn record_tokens(&self, call: &ModelCall<'_>) {
        // The conventions in development count tokens of inference alone.
        if let Self::V1_41 { token_usage, .. } = self {
            record_token_usage(token_usage, call, &call.attributes());
        }
    }

    fn record(&self, call: &ModelCall<'_>) {
        let attributes = call.attributes();
        // Durations alone tell failed calls apart.
        let with_error = with(&attributes, call.error_type.map(|error| pair("error.type", error)));
        let (elapsed, chunk) = (call.duration.as_secs_f64(), call.time_to_first_chunk.map(|time| time.as_secs_f64()));
        match self {
            Self::V1_41 { token_usage, duration, first_chunk } => {
                duration.record(elapsed, &with_error);
                if let Some(chunk) = chunk {
                    first_chunk.record(chunk, &attributes);
                }
                record_token_usage(token_usage, call, &attributes);
            }
            Self::Main(main) if call.is_inference() => {
                main.inference_duration.record(elapsed, &with_error);
                if let Some(chunk) = chunk {
                    main.first_chunk.record(chunk, &attributes);
                }
                // A failed call without counts is told as none of an unknown kind; one that succeeded is unknown.
                let unknown = call.error_type.map(|_| 0);
                let counted = with(&with_error, Some(pair("gen_ai.token.modality", "unknown")));
                for (tokens, counter, histogram) in [
                    (call.input_tokens, &main.input_tokens, &main.operation_input_tokens),
                    (call.output_tokens, &main.output_tokens, &main.operation_output_tokens),
                ] {
                    if let Some(tokens) = tokens.or(unknown) {
                        counter.add(tokens, &counted);
                        histogram.record(tokens, &with_error);
                    }
                }
            }
            // The conventions in development have no token metric for these yet.
            Self::Main(main) => main.operation_duration.record(elapsed, &with_error),
        }
    }
}

fn record_token_usage(token_usage: &Histogram<u64>, call: &ModelCall<'_>, attributes: &[KeyValue]) {
    for (kind, tokens) in [("input", call.input_tokens), ("output", call.output_tokens)] {
        if let Some(tokens) = tokens {
            token_usage.record(tokens, &with(attributes, Some(pair("gen_ai.token.type", kind))));
        }
    }
}

fn seconds(meter: &Meter, name: &'static str, text: &'static str, buckets: &[f64]) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_description(text).with_boundaries(buckets.to_vec()).build()
}

/// Makes an attribute, cut and without control characters: names come from outside. Its copies share the text.
pub(super) fn pair(key: &'static str, value: &str) -> KeyValue {
    let kept = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
    if kept.contains(char::is_control) {
        return KeyValue::new(key, kept.replace(char::is_control, "\u{fffd}"));
    }
    KeyValue::new(key, Arc::<str>::from(kept))
}

/// Adds an attribute, and sorts them: the SDK then keeps one key a set instead of two.
fn with(attributes: &[KeyValue], more: Option<KeyValue>) -> Vec<KeyValue> {
    let mut all: Vec<KeyValue> = attributes.iter().cloned().chain(more).collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}
