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
mod observer;
mod parts;
#[cfg(feature = "server")]
pub(crate) mod scrape;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream};

use self::export::{Closing, Exporter, Line};
use self::instruments::Instruments;
use super::forward::{SettingsError, Signal, Target, quietly};
use crate::model::RunSummary;
use crate::model::otlp::{Resource, Value};
use crate::model::outcome::Outcome;

pub use export::Exports;
pub use instruments::ModelCall;
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
    /// Taken when shut down or dropped.
    provider: Option<SdkMeterProvider>,
    line: Arc<Line>,
    instruments: Instruments,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Starts exporting to `target`, on a thread of the SDK.
    pub fn start(target: Target, resource: &Resource, settings: &Settings) -> Result<Self, MetricsError> {
        quietly(|| Self::start_quietly(target, resource, settings))
    }

    fn start_quietly(target: Target, resource: &Resource, settings: &Settings) -> Result<Self, MetricsError> {
        if target.signal != Signal::Metrics {
            return Err(MetricsError::Setup { reason: "the target is one for traces".to_owned() });
        }
        let line = Arc::new(Line::new(target, settings.timeout, settings.series)?);
        let exporter = Exporter { line: Arc::clone(&line), temporality: settings.temporality.to_sdk() };
        let reader = PeriodicReader::builder(exporter).with_interval(settings.interval).build();
        let (series, exponential) = (settings.series, settings.exponential_histograms);
        let provider = SdkMeterProvider::builder()
            .with_resource(sdk_resource(resource))
            .with_reader(reader)
            .with_view(move |instrument: &Instrument| stream(instrument, series, exponential));
        let provider = provider.build();
        let meter = provider.meter_with_scope(scope());
        let instruments = Instruments::new(&meter, settings.names);
        Ok(Self { provider: Some(provider), line, instruments })
    }

    /// Counts one call of a model. A call that is told twice must be given once.
    pub fn model_call(&self, call: &ModelCall<'_>) {
        quietly(|| self.instruments.model_call(call));
    }

    /// Counts the tokens that a step reports which is no call of a model, and no step below it does.
    pub fn tokens(&self, step: &ModelCall<'_>) {
        quietly(|| self.instruments.tokens(step));
    }

    /// Counts a run that ended. A run without a known cost is not in the histogram of costs.
    pub fn run_ended(&self, run: &RunSummary, duration: Duration) {
        quietly(|| self.instruments.run_ended(run, duration));
    }

    /// Counts `n` records that had one outcome.
    pub fn records(&self, outcome: Outcome, reason: &str, n: u64) {
        if n > 0 {
            quietly(|| self.instruments.records(outcome, reason, n));
        }
    }

    /// Returns how exports have gone so far.
    pub fn exports(&self) -> Exports {
        self.line.exports()
    }

    /// Exports now and waits for the answer, until `deadline` at most.
    pub fn flush(&self, deadline: Instant) -> Result<(), MetricsError> {
        let Some(provider) = self.provider.clone() else { return Ok(()) };
        let line = Arc::clone(&self.line);
        in_background(move || line.flush(&provider), deadline)
    }

    /// Exports the last values and stops; returns within `limit`, whatever the peer does.
    pub fn shutdown(mut self, limit: Duration) -> Result<(), MetricsError> {
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now);
        self.close(Some(deadline)).map_or(Ok(()), |done| wait(&done, deadline))
    }

    /// Begins to do the same; what is returned waits for it.
    pub(crate) fn begin_shutdown(
        mut self,
        deadline: Instant,
    ) -> Option<impl FnOnce(Instant) -> Result<(), MetricsError> + Send + use<>> {
        let done = self.close(Some(deadline))?;
        Some(move |deadline| wait(&done, deadline))
    }

    /// Stops in the background and returns where the result will be told.
    fn close(&mut self, deadline: Option<Instant>) -> Option<mpsc::Receiver<Result<(), MetricsError>>> {
        let provider = self.provider.take()?;
        let line = Arc::clone(&self.line);
        if let Some(deadline) = deadline {
            line.set_closing(Closing::Until(deadline));
        }
        // The SDK's own shutdown waits for five seconds, no more and no less, and exports once more; so the last export
        // is a flush, and the shutdown finds the line closed.
        Some(spawn(move || {
            let flushed = line.flush(&provider);
            line.set_closing(Closing::Closed);
            // What can fail now is the end of a thread that has nothing left to do.
            let _ = provider.shutdown();
            flushed
        }))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // The SDK's drop would wait for seconds.
        drop(self.close(None));
    }
}

/// Runs `work` on a thread of its own, because the SDK's waits have no limit that we could set.
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (tell, told) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("runspan-metrics".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = tell.send(quietly(work));
    });
    // Without a thread the channel is closed, which is what the waiting side sees.
    drop(spawned);
    told
}

fn in_background(
    work: impl FnOnce() -> Result<(), MetricsError> + Send + 'static,
    deadline: Instant,
) -> Result<(), MetricsError> {
    wait(&spawn(work), deadline)
}

fn wait(done: &mpsc::Receiver<Result<(), MetricsError>>, deadline: Instant) -> Result<(), MetricsError> {
    match done.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
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
