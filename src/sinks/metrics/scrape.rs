//! The same metrics for who comes and asks: collected at that moment, with an example for each series.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::metrics::Temporality;

use super::export::locked;
use super::instruments::{Instruments, key_of_run, pair};
use super::meters::Meters;
use super::series::Known;
use super::{MetricsError, ModelCall, Settings};
use crate::model::id::IdMap;
use crate::model::outcome::Outcome;
use crate::model::{NanoUsd, RunId, TraceId, UnixNanos};
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
    /// Where the examples of calls are that are alike, and of runs.
    calls: Known<6, [Place; 4]>,
    runs: Known<3, [Place; 3]>,
    series: usize,
}

/// Where the examples of a series are; `None` within where there is no room for them.
type Place = OnceLock<Option<usize>>;

/// The examples of all series, found by text when somebody asks.
#[derive(Default)]
struct AllExamples {
    by_text: IdMap<SeriesKey, usize>,
    all: Vec<Examples>,
}

impl AllExamples {
    /// Returns the place of those of a series, which may be new while there are fewer than `most`.
    fn place_of(&mut self, metric: &'static str, attributes: &[KeyValue], most: usize) -> Option<usize> {
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
        Some(place)
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
        let (calls, runs) = (Known::default(), Known::default());
        Self { inner: Arc::new(Inner { meters, examples: Mutex::default(), calls, runs, series: settings.series }) }
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

    /// Notes a measurement of a series; `attributes` makes what tells it apart, where its place is not known.
    fn note(
        &self,
        place: &Place,
        metric: &'static str,
        attributes: impl FnOnce() -> Vec<KeyValue>,
        tally: &Tally,
        value: f64,
    ) {
        let (trace, run) = (tally.run.trace_id, tally.run.run_id);
        let example = Example { trace, run, value, at: UnixNanos::now() };
        // As many series as the SDK keeps, of each metric; of what is counted together beyond that there is no example.
        let find = || locked(&self.inner.examples).place_of(metric, &attributes(), METRICS * self.inner.series);
        let Some(place) = *place.get_or_init(find) else { return };
        if let Some(examples) = locked(&self.inner.examples).all.get_mut(place) {
            examples.insert(magnitude(value), example);
        }
    }

    fn places_of(&self, call: &ModelCall<'_>) -> Arc<[Place; 4]> {
        let ([operation, provider, asked, answered, address], port) = call.key();
        self.inner.calls.get(([operation, provider, asked, answered, address, call.error_type], port), Default::default)
    }

    fn note_call(&self, call: &ModelCall<'_>, tally: &Tally) {
        let places = self.places_of(call);
        let [first, duration, ..] = &*places;
        if let Some(time) = call.time_to_first_chunk {
            let metric = "gen_ai.client.operation.time_to_first_chunk";
            self.note(first, metric, || call.attributes(), tally, time.as_secs_f64());
        }
        self.note_tokens(call, &places, tally);
        let attributes = || {
            let mut attributes = call.attributes();
            attributes.extend(call.error_type.map(|error| pair("error.type", error)));
            attributes
        };
        self.note(duration, "gen_ai.client.operation.duration", attributes, tally, call.duration.as_secs_f64());
    }

    fn note_tokens(&self, call: &ModelCall<'_>, [_, _, input, output]: &[Place; 4], tally: &Tally) {
        for (place, kind, tokens) in [(input, "input", call.input_tokens), (output, "output", call.output_tokens)] {
            if let Some(tokens) = tokens {
                let attributes = || {
                    let mut attributes = call.attributes();
                    attributes.push(pair("gen_ai.token.type", kind));
                    attributes
                };
                self.note(place, "gen_ai.client.token.usage", attributes, tally, tokens as f64);
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
            self.note_tokens(&step, &self.places_of(&step), tally);
        }
        if tally.is_more {
            return;
        }
        let duration = Duration::from_millis(run.duration_ms.unwrap_or(0));
        let places = self.inner.runs.get(key_of_run(run), Default::default);
        let attributes = || Instruments::of_run(run).to_vec();
        let values = [
            ("runspan.runs", Some(1.0)),
            ("runspan.run.duration", Some(duration.as_secs_f64())),
            ("runspan.run.cost", run.cost_usd.map(NanoUsd::as_usd)),
        ];
        for (place, (metric, value)) in places.iter().zip(values) {
            if let Some(value) = value {
                self.note(place, metric, attributes, tally, value);
            }
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
