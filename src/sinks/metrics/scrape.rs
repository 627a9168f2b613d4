//! The same metrics for who comes and asks: collected at that moment, with an example for each series.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::metrics::Temporality;

use super::export::locked;
use super::instruments::{Instruments, pair};
use super::meters::Meters;
use super::{MetricsError, ModelCall, Settings};
use crate::model::id::IdMap;
use crate::model::outcome::Outcome;
use crate::model::{RunId, TraceId, UnixNanos};
use crate::pipeline::worker::{Observer, UnderWay};
use crate::sinks::forward::quietly;
use crate::sinks::tally::Tally;

/// So many metrics have examples.
const METRICS: usize = 6;

/// A series: its metric's name and its attributes, as text and sorted.
pub(crate) type SeriesKey = (String, Vec<(String, String)>);

/// One measurement that went into a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Example {
    pub trace: TraceId,
    pub run: RunId,
    pub value: f64,
    pub at: UnixNanos,
}

/// The latest measurements of a series, one of each order of magnitude: what is rare stays beside what is frequent.
type Examples = BTreeMap<i32, Example>;

/// Metrics of one process that are collected when somebody asks.
#[derive(Clone)]
pub(crate) struct Scrape {
    inner: Arc<Inner>,
}

struct Inner {
    meters: Meters,
    examples: Mutex<AllExamples>,
    series: usize,
}

/// The examples of all series. They are found by attributes as they are recorded, which takes no copy of them, and by
/// text when somebody asks.
#[derive(Default)]
struct AllExamples {
    by_attributes: IdMap<&'static str, IdMap<Vec<KeyValue>, usize>>,
    by_text: IdMap<SeriesKey, usize>,
    all: Vec<Examples>,
}

impl AllExamples {
    /// Returns those of a series, which may be new while there are fewer than `most`.
    fn of(&mut self, metric: &'static str, attributes: &[KeyValue], most: usize) -> Option<&mut Examples> {
        let of_metric = self.by_attributes.entry(metric).or_default();
        if let Some(place) = of_metric.get(attributes) {
            return self.all.get_mut(*place);
        }
        let mut texts: Vec<(String, String)> =
            attributes.iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect();
        texts.sort_unstable();
        let place = match self.by_text.entry((metric.to_owned(), texts)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if self.all.len() >= most => return None,
            Entry::Vacant(new) => *new.insert(self.all.len()),
        };
        if place == self.all.len() {
            self.all.push(Examples::new());
        }
        of_metric.insert(attributes.to_vec(), place);
        self.all.get_mut(place)
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Scrape {
    /// Begins to count.
    pub fn start(settings: &Settings) -> Self {
        // The text has buckets with bounds alone.
        let settings = Settings { exponential_histograms: false, ..settings.clone() };
        let meters = Meters::new(None, &settings, Temporality::Cumulative);
        Self { inner: Arc::new(Inner { meters, examples: Mutex::default(), series: settings.series }) }
    }

    /// Returns all metrics as they stand; blocks for a moment.
    pub fn collect(&self) -> Result<ExportMetricsServiceRequest, MetricsError> {
        self.inner.meters.collect().map(|(collected, _)| collected)
    }

    /// Returns the latest measurements of a series, the smallest first.
    pub fn examples(&self, key: &SeriesKey) -> Vec<Example> {
        let examples = locked(&self.inner.examples);
        let found = examples.by_text.get(key).and_then(|place| examples.all.get(*place));
        found.into_iter().flat_map(|examples| examples.values().copied()).collect()
    }

    fn note(&self, metric: &'static str, attributes: &[KeyValue], tally: &Tally, value: f64) {
        let (trace, run) = (tally.run.trace_id, tally.run.run_id);
        let example = Example { trace, run, value, at: UnixNanos::now() };
        // As many series as the SDK keeps, of each metric; of what is counted together beyond that there is no example.
        if let Some(examples) = locked(&self.inner.examples).of(metric, attributes, METRICS * self.inner.series) {
            examples.insert(magnitude(value), example);
        }
    }

    fn note_call(&self, call: &ModelCall<'_>, tally: &Tally) {
        let mut attributes = call.attributes();
        if let Some(first) = call.time_to_first_chunk {
            self.note("gen_ai.client.operation.time_to_first_chunk", &attributes, tally, first.as_secs_f64());
        }
        self.note_tokens(call, &mut attributes, tally);
        attributes.extend(call.error_type.map(|error| pair("error.type", error)));
        self.note("gen_ai.client.operation.duration", &attributes, tally, call.duration.as_secs_f64());
    }

    fn note_tokens(&self, call: &ModelCall<'_>, attributes: &mut Vec<KeyValue>, tally: &Tally) {
        for (kind, tokens) in [("input", call.input_tokens), ("output", call.output_tokens)] {
            if let Some(tokens) = tokens {
                attributes.push(pair("gen_ai.token.type", kind));
                self.note("gen_ai.client.token.usage", attributes, tally, tokens as f64);
                attributes.pop();
            }
        }
    }
}

impl Observer for Scrape {
    fn run_over(&mut self, tally: &Tally) {
        let run = &tally.run;
        quietly(|| self.inner.meters.instruments.run_over(tally));
        for call in &tally.calls {
            self.note_call(&call.as_model_call(), tally);
        }
        for step in &tally.tellers {
            let step = step.as_model_call();
            self.note_tokens(&step, &mut step.attributes(), tally);
        }
        if tally.is_more {
            return;
        }
        let duration = Duration::from_millis(run.duration_ms.unwrap_or(0));
        let attributes = Instruments::of_run(run);
        self.note("runspan.runs", &attributes, tally, 1.0);
        self.note("runspan.run.duration", &attributes, tally, duration.as_secs_f64());
        if let Some(cost) = run.cost_usd {
            self.note("runspan.run.cost", &attributes, tally, cost.as_usd());
        }
    }

    fn records(&mut self, outcome: Outcome, reason: &str, n: u64) {
        quietly(|| self.inner.meters.instruments.records(outcome, reason, n));
    }

    fn finish(&mut self, _: Instant, _: bool) -> Option<UnderWay> {
        None
    }
}

/// Returns a number for values that are within a factor of two of each other; within bounds.
fn magnitude(value: f64) -> i32 {
    (value.max(0.0).log2().floor() as i32).clamp(-16, 32)
}
