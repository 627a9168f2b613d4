//! The instruments: their names, units, buckets and attributes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter};

use super::series::{Key, Known};
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

    /// What tells its series apart, without the error.
    pub(super) fn key(&self) -> Key<'_, 5> {
        let texts = [Some(self.operation), self.provider, self.request_model, self.response_model, self.server_address];
        (texts, self.server_port)
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
    /// Series of runs by kind, name and status, and of what they used by kind, name, model and provider.
    run_series: Known<3, RunSeries>,
    usage_series: Known<4, UsageSeries>,
}

/// What is counted of runs that are alike.
struct RunSeries {
    attributes: [KeyValue; 3],
    runs: BoundCounter<u64>,
    duration: BoundHistogram<f64>,
    cost: OnceLock<BoundHistogram<f64>>,
}

/// What runs of one name used of one model.
struct UsageSeries {
    attributes: Vec<KeyValue>,
    /// Input and output.
    tokens: [OnceLock<BoundCounter<u64>>; 2],
    cost: OnceLock<BoundCounter<f64>>,
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
            run_series: Known::default(),
            usage_series: Known::default(),
        }
    }

    /// Lets go of series: of one that is held, the SDK keeps the place, and where it has none left what belongs to it is
    /// counted with others as long.
    pub(super) fn let_go(&self) {
        self.run_series.clear();
        self.usage_series.clear();
        if let Calls::V1_41(calls) = &self.calls {
            calls.series.clear();
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
            let run = &tally.run;
            let key = ([Some(run.kind.as_str()), Some(run.name()), maker.0, maker.1], None);
            let series = self.usage_series.get(key, || UsageSeries {
                attributes: Self::of_usage(run, maker),
                tokens: Default::default(),
                cost: OnceLock::new(),
            });
            for (place, kind, tokens) in [(0, "input", used.input), (1, "output", used.output)] {
                if let Some(tokens) = tokens {
                    let bind = || self.usage_tokens.bind(&with_type(&series.attributes, kind));
                    series.tokens[place].get_or_init(bind).add(tokens);
                }
            }
            if let Some(cost) = used.cost {
                series.cost.get_or_init(|| self.usage_cost.bind(&series.attributes)).add(cost.as_usd());
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
        let series = self.run_series.get(key_of_run(run), || {
            let attributes = Self::of_run(run);
            let (runs, duration) = (self.runs.bind(&attributes), self.run_duration.bind(&attributes));
            RunSeries { attributes, runs, duration, cost: OnceLock::new() }
        });
        series.runs.add(1);
        series.duration.record(duration.as_secs_f64());
        if let Some(cost) = run.cost_usd {
            series.cost.get_or_init(|| self.run_cost.bind(&series.attributes)).record(cost.as_usd());
        }
    }

    pub(super) fn records(&self, outcome: Outcome, reason: &str, n: u64) {
        self.records.add(n, &[pair("outcome", outcome.as_str()), pair("reason", reason)]);
    }
}

/// What tells the series of runs apart.
pub(super) fn key_of_run(run: &RunSummary) -> Key<'_, 3> {
    ([Some(run.kind.as_str()), Some(run.name()), Some(run.status.as_str())], None)
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
    V1_41(Box<CallsOf41>),
    Main(Box<MainCalls>),
}

struct CallsOf41 {
    token_usage: Histogram<u64>,
    duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    series: Known<5, CallSeries>,
}

/// What is counted of calls that are alike.
struct CallSeries {
    attributes: Vec<KeyValue>,
    /// Of calls that did not fail.
    duration: OnceLock<BoundHistogram<f64>>,
    /// Of input and output.
    tokens: [OnceLock<BoundHistogram<u64>>; 2],
}

impl CallsOf41 {
    fn series_of(&self, call: &ModelCall<'_>) -> Arc<CallSeries> {
        self.series.get(call.key(), || CallSeries {
            attributes: call.attributes(),
            duration: OnceLock::new(),
            tokens: Default::default(),
        })
    }

    fn record(&self, call: &ModelCall<'_>) {
        let (series, elapsed) = (self.series_of(call), call.duration.as_secs_f64());
        match call.error_type {
            // Durations alone tell failed calls apart.
            Some(error) => {
                self.duration.record(elapsed, &with(&series.attributes, Some(pair("error.type", error))));
            }
            None => {
                let bind = || self.duration.bind(&with(&series.attributes, None));
                series.duration.get_or_init(bind).record(elapsed);
            }
        }
        if let Some(chunk) = call.time_to_first_chunk {
            self.first_chunk.record(chunk.as_secs_f64(), &series.attributes);
        }
        self.record_tokens(call, &series);
    }

    fn record_tokens(&self, call: &ModelCall<'_>, series: &CallSeries) {
        for (place, kind, tokens) in [(0, "input", call.input_tokens), (1, "output", call.output_tokens)] {
            if let Some(tokens) = tokens {
                let bind = || self.token_usage.bind(&with_type(&series.attributes, kind));
                series.tokens[place].get_or_init(bind).record(tokens);
            }
        }
    }
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
            Names::V1_41 => Self::V1_41(Box::new(CallsOf41 {
                token_usage: tokens("gen_ai.client.token.usage", "Number of input and output tokens used"),
                duration: duration("gen_ai.client.operation.duration", "GenAI operation duration"),
                first_chunk: duration("gen_ai.client.operation.time_to_first_chunk", "Time to receive the first chunk"),
                series: Known::default(),
            })),
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
        if let Self::V1_41(calls) = self {
            calls.record_tokens(call, &calls.series_of(call));
        }
    }

    fn record(&self, call: &ModelCall<'_>) {
        match self {
            Self::V1_41(calls) => calls.record(call),
            Self::Main(calls) => calls.record(call),
        }
    }
}

impl MainCalls {
    fn record(&self, call: &ModelCall<'_>) {
        let attributes = call.attributes();
        let with_error = with(&attributes, call.error_type.map(|error| pair("error.type", error)));
        let elapsed = call.duration.as_secs_f64();
        if !call.is_inference() {
            // The conventions in development have no token metric for these yet.
            return self.operation_duration.record(elapsed, &with_error);
        }
        self.inference_duration.record(elapsed, &with_error);
        if let Some(chunk) = call.time_to_first_chunk {
            self.first_chunk.record(chunk.as_secs_f64(), &attributes);
        }
        // A failed call without counts is told as none of an unknown kind; one that succeeded is unknown.
        let unknown = call.error_type.map(|_| 0);
        let counted = with(&with_error, Some(pair("gen_ai.token.modality", "unknown")));
        for (tokens, counter, histogram) in [
            (call.input_tokens, &self.input_tokens, &self.operation_input_tokens),
            (call.output_tokens, &self.output_tokens, &self.operation_output_tokens),
        ] {
            if let Some(tokens) = tokens.or(unknown) {
                counter.add(tokens, &counted);
                histogram.record(tokens, &with_error);
            }
        }
    }
}

fn with_type(attributes: &[KeyValue], kind: &str) -> Vec<KeyValue> {
    with(attributes, Some(pair("gen_ai.token.type", kind)))
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
