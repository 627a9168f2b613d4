//! Metrics of model calls, runs and records, sent as OTLP on an interval.
//!
//! The OpenTelemetry SDK counts, on a provider of our own that no global knows; what it collects leaves through
//! [`forward`](super::forward), so that endpoints, TLS, deadlines and silence are the same as for traces, over HTTP and
//! gRPC alike. Names, units and buckets of `gen_ai.*` are those of the semantic conventions: version 1.41 unless
//! [`Names::Main`] is chosen, and never both at once, because sums over both would count twice.
//!
//! Each instrument keeps a bounded number of sets of attributes ([`Settings::series`]); what comes beyond is counted
//! together under `otel.metric.overflow`, so that sums stay right and memory stays flat.
//!
//! `docs/metrics.md` says of each metric what exactly it counts.

mod export;
mod instruments;
mod ledger;
mod left;
mod meters;
mod observer;
mod parts;
#[cfg(feature = "server")]
pub(crate) mod report;
#[cfg(feature = "server")]
pub(crate) mod scrape;
mod series;
mod settings;
#[cfg(test)]
mod tests;
mod work;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};

use self::export::{Closing, Line};
use self::ledger::Ledger;
use self::left::Leftovers;
use self::meters::Meters;
use self::work::{Ask, Last, Work};
use super::forward::{SettingsError, Signal, Target, quietly};
use crate::model::RunSummary;
use crate::model::otlp::{Resource, Value};
use crate::model::outcome::Outcome;
use crate::sinks::tally::Tally;
use crate::telemetry::warn;

pub use export::Exports;
pub use instruments::ModelCall;
pub(crate) use left::Place;
pub(crate) use observer::Observing;
pub use settings::{Names, Settings, Temporality};

/// Why metrics can't be sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum MetricsError {
    /// The target can't be used.
    Target(SettingsError),
    /// The SDK could not be set up.
    Setup {
        /// What it says.
        reason: String,
    },
    /// The last export failed.
    Export {
        /// What the peer or the connection says.
        reason: String,
    },
    /// The peer did not answer by the deadline.
    Timeout,
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => error.fmt(f),
            Self::Setup { reason } => write!(f, "metrics can't be set up: {reason}"),
            Self::Export { reason } => write!(f, "metrics were not exported: {reason}"),
            Self::Timeout => f.write_str("metrics were not exported in time"),
        }
    }
}

impl std::error::Error for MetricsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Target(error) => Some(error),
            _ => None,
        }
    }
}

impl From<SettingsError> for MetricsError {
    fn from(error: SettingsError) -> Self {
        Self::Target(error)
    }
}

/// The metrics of one process.
///
/// Recording never blocks on the network. [`Metrics::shutdown`] sends the last values; a drop without it tries to, in
/// the background.
pub struct Metrics {
    meters: Arc<Meters>,
    line: Arc<Line>,
    asks: Sender<Ask>,
    is_kept: bool,
    is_closed: bool,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Starts exporting to `target`, on a thread of its own.
    pub fn start(target: Target, resource: &Resource, settings: &Settings) -> Result<Self, MetricsError> {
        quietly(|| Self::start_quietly(target, resource, settings, None))
    }

    /// Starts exporting, and keeps in a store what is counted and not sent: for the next process that exports to the
    /// same target. What earlier ones left is sent as well.
    pub(crate) fn start_in(
        place: Place,
        target: Target,
        resource: &Resource,
        settings: &Settings,
    ) -> Result<Self, MetricsError> {
        quietly(|| Self::start_quietly(target, resource, settings, Some(place)))
    }

    fn start_quietly(
        target: Target,
        resource: &Resource,
        settings: &Settings,
        place: Option<Place>,
    ) -> Result<Self, MetricsError> {
        if target.signal != Signal::Metrics {
            return Err(MetricsError::Setup { reason: "the target is one for traces".to_owned() });
        }
        let peer = crate::sinks::forwarder::short_digest(&target);
        let line = Arc::new(Line::new(target, settings.timeout, settings.series)?);
        let meters = Arc::new(Meters::new(Some(resource), settings, settings.temporality.to_sdk()));
        let ledger = place.as_ref().and_then(|place| ledger_of(place, &peer, resource));
        let is_kept = ledger.is_some();
        let work = Work {
            meters: Arc::clone(&meters),
            line: Arc::clone(&line),
            interval: settings.interval,
            is_cumulative: settings.temporality == Temporality::Cumulative,
            waiting: VecDeque::new(),
            ledger,
            left: place.map(|place| Leftovers::new(place, peer, settings.clone())),
            is_reachable: true,
        };
        let (asks, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("runspan-metrics".to_owned())
            .spawn(move || work.run(&asked))
            .map_err(|error| MetricsError::Setup { reason: error.to_string() })?;
        Ok(Self { meters, line, asks, is_kept, is_closed: false })
    }

    /// Counts a run that is over, with all its calls.
    pub(crate) fn run_over(&self, tally: &Tally) {
        self.meters.count(tally);
    }

    /// Counts one call of a model. A call that is told twice must be given once.
    pub fn model_call(&self, call: &ModelCall<'_>) {
        quietly(|| self.meters.instruments.model_call(call));
    }

    /// Counts the tokens that a step reports which is no call of a model, and no step below it does.
    pub fn tokens(&self, step: &ModelCall<'_>) {
        quietly(|| self.meters.instruments.tokens(step));
    }

    /// Counts a run that ended. A run without a known cost is not in the histogram of costs.
    pub fn run_ended(&self, run: &RunSummary, duration: Duration) {
        quietly(|| self.meters.instruments.run_ended(run, duration));
    }

    /// Counts `n` records that had one outcome.
    pub fn records(&self, outcome: Outcome, reason: &str, n: u64) {
        if n > 0 {
            quietly(|| self.meters.instruments.records(outcome, reason, n));
        }
    }

    /// Returns how exports have gone so far.
    pub fn exports(&self) -> Exports {
        self.line.exports()
    }

    /// Tells whether what cannot be sent is kept for another process.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Exports now and waits for the answer, until `deadline` at most.
    pub fn flush(&self, deadline: Instant) -> Result<(), MetricsError> {
        let (tell, told) = mpsc::channel();
        // Its thread ends with a panic of a library at worst, which is what the waiting side sees.
        let _ = self.asks.send(Ask::Flush(tell));
        wait(&told, deadline)
    }

    /// Exports the last values and stops; returns within `limit`, whatever the peer does.
    pub fn shutdown(self, limit: Duration) -> Result<(), MetricsError> {
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now);
        self.begin_shutdown(deadline, true).map_or(Ok(()), |wait| wait(deadline))
    }

    /// Begins to do the same; what is returned waits for it. `is_all`: every run of the process is over and counted.
    pub(crate) fn begin_shutdown(
        mut self,
        deadline: Instant,
        is_all: bool,
    ) -> Option<impl FnOnce(Instant) -> Result<(), MetricsError> + Send + use<>> {
        let told = self.close(Last { deadline: Some(deadline), is_all })?;
        Some(move |deadline| {
            let result = wait(&told, deadline);
            // What dead processes left is sent behind it; the channel closes when that is done.
            let _ = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            result
        })
    }

    /// Stops in the background and returns where the result will be told.
    fn close(&mut self, last: Last) -> Option<mpsc::Receiver<Result<(), MetricsError>>> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        if let Some(deadline) = last.deadline {
            self.line.set_closing(Closing::Until(deadline));
        }
        let (tell, told) = mpsc::channel();
        let _ = self.asks.send(Ask::Stop(tell, last));
        Some(told)
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        drop(self.close(Last { deadline: None, is_all: false }));
    }
}

/// Begins the ledger of this process. Without one a run is counted at most once.
fn ledger_of(place: &Place, peer: &str, resource: &Resource) -> Option<Ledger> {
    let dir = place.own(peer);
    match Ledger::create(place.layout.shared_fs(), dir.clone(), resource) {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            let dir = dir.display();
            warn(format_args!(
                "cannot write to {dir}: {error}; metrics that are not sent when this process ends are in nobody's"
            ));
            None
        }
    }
}

fn wait(told: &mpsc::Receiver<Result<(), MetricsError>>, deadline: Instant) -> Result<(), MetricsError> {
    match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(MetricsError::Timeout),
        Err(RecvTimeoutError::Disconnected) => Err(MetricsError::Setup { reason: "no thread to wait on".to_owned() }),
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("runspan").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// How an instrument is aggregated: its name, unit and buckets are its own.
fn stream(instrument: &Instrument, series: usize, exponential: bool) -> Option<Stream> {
    let mut stream = Stream::builder().with_cardinality_limit(series);
    if exponential && instrument.kind() == InstrumentKind::Histogram {
        // The standard's defaults.
        let aggregation = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };
        stream = stream.with_aggregation(aggregation);
    }
    stream.build().ok()
}

fn sdk_resource(resource: &Resource) -> opentelemetry_sdk::Resource {
    let attributes = resource.attributes.iter().filter_map(|attribute| {
        let value = match attribute.value.as_ref()?.value.as_ref()? {
            Value::String(text) => opentelemetry::Value::from(text.clone()),
            Value::Bool(flag) => opentelemetry::Value::from(*flag),
            Value::Int(number) => opentelemetry::Value::from(*number),
            Value::Double(number) => opentelemetry::Value::from(*number),
            // The SDK has no maps and no mixed lists.
            structure => opentelemetry::Value::from(structure.to_json().to_string()),
        };
        Some(KeyValue::new(attribute.key.clone(), value))
    });
    opentelemetry_sdk::Resource::builder_empty().with_attributes(attributes).build()
}
