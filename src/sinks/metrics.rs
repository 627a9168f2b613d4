//! Metrics of model calls, runs and records, sent as OTLP on an interval.
//!
//! The OpenTelemetry SDK counts, on a provider of our own that no global knows; what it encodes leaves through
//! [`forward`], so that endpoints, TLS, deadlines and silence are the same as for traces, over HTTP and
//! gRPC alike. Names, units and buckets of `gen_ai.*` are those of the semantic conventions: version 1.41 unless
//! [`Names::Main`] is chosen, and never both at once, because sums over both would count twice.
//!
//! Each instrument keeps at most 2000 sets of attributes (the SDK's limit); what comes after is counted together
//! under `otel.metric.overflow`.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream};

use super::forward::{self, Sender, Sent, SettingsError, Signal, Target, Warning, quietly};
use crate::model::RunSummary;
use crate::model::otlp::{Resource, Value};
use crate::model::outcome::Outcome;

/// The standard's buckets for durations of single operations, in seconds.
const OPERATION_SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// The standard's buckets for token counts.
const TOKENS: [f64; 14] = [
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

/// The longest attribute value that is kept, in characters; names come from outside.
const MAX_VALUE_CHARS: usize = 256;

/// One more than what is sent, so that a request over the limit is told from one at it.
const MAX_BODY_BYTES: u64 = forward::MAX_REQUEST_BYTES as u64 + 1;

/// Which names the `gen_ai` metrics have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Semantic conventions 1.41, which today's dashboards ask for.
    #[default]
    V1_41,
    /// The conventions in development.
    Main,
}

/// How points of one series relate to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Each point counts from the start.
    #[default]
    Cumulative,
    /// Each point counts from the one before.
    Delta,
    /// Whatever needs the least memory.
    LowMemory,
}

/// How metrics are made and when they leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which names the `gen_ai` metrics have.
    pub names: Names,
    /// The time between two exports.
    pub interval: Duration,
    /// How long one export may take; the target's own timeout holds as well.
    pub timeout: Duration,
    /// How points of one series relate to each other.
    pub temporality: Temporality,
    /// Exponential histograms in place of the standard's buckets.
    pub exponential_histograms: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Names::default(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            temporality: Temporality::default(),
            exponential_histograms: false,
        }
    }
}

impl Settings {
    /// Reads the standard variables: `OTEL_METRIC_EXPORT_INTERVAL` and `_TIMEOUT`, the temporality preference and
    /// histogram aggregation of OTLP, and `OTEL_SEMCONV_STABILITY_OPT_IN`.
    ///
    /// A value that can't be used gives a warning that names the variable, and counts as unset.
    pub fn from_env() -> (Self, Vec<Warning>) {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads the settings from variables that `lookup` returns.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<Warning>) {
        let mut settings = Self::default();
        let mut warnings = Vec::new();
        let mut read = |variable: &str, usable: &mut dyn FnMut(&str) -> bool| {
            let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else { return };
            if !usable(value.to_string_lossy().trim()) {
                warnings.push(Warning {
                    variable: variable.to_owned(),
                    message: "has no value known here; ignored".into(),
                });
            }
        };
        read("OTEL_METRIC_EXPORT_INTERVAL", &mut |text| milliseconds(text, &mut settings.interval));
        read("OTEL_METRIC_EXPORT_TIMEOUT", &mut |text| milliseconds(text, &mut settings.timeout));
        read("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", &mut |text| {
            settings.temporality = match text.to_ascii_lowercase().as_str() {
                "cumulative" => Temporality::Cumulative,
                "delta" => Temporality::Delta,
                "lowmemory" => Temporality::LowMemory,
                _ => return false,
            };
            true
        });
        read("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", &mut |text| {
            settings.exponential_histograms = match text.to_ascii_lowercase().as_str() {
                "explicit_bucket_histogram" => false,
                "base2_exponential_bucket_histogram" => true,
                _ => return false,
            };
            true
        });
        // A list of many areas' switches: words for others are none of our business.
        read("OTEL_SEMCONV_STABILITY_OPT_IN", &mut |text| {
            if text.split(',').any(|word| word.trim() == "gen_ai_latest_experimental") {
                settings.names = Names::Main;
            }
            true
        });
        (settings, warnings)
    }
}

fn milliseconds(text: &str, into: &mut Duration) -> bool {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => {
            *into = Duration::from_millis(number);
            true
        }
        _ => false,
    }
}

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

    fn attributes(&self) -> Vec<KeyValue> {
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

/// The metrics of one process.
///
/// Recording never blocks on the network. [`Metrics::shutdown`] sends the last values; a drop without it tries to, in
/// the background.
pub struct Metrics {
    /// Taken when shut down or dropped.
    provider: Option<SdkMeterProvider>,
    line: Arc<Line>,
    calls: Calls,
    runs: Counter<u64>,
    run_duration: Histogram<f64>,
    run_cost: Histogram<f64>,
    records: Counter<u64>,
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
        let timeout = settings.timeout.min(target.timeout);
        let endpoint = target.endpoint.clone();
        let line = Arc::new(Line {
            sender: Mutex::new(Sender::new(target)?),
            timeout,
            closing: Mutex::new(Closing::Open),
            failure: Mutex::new(None),
        });
        let exporter = MetricExporter::builder()
            .with_temporality(settings.temporality.to_sdk())
            .with_http()
            .with_http_client(LineClient(Arc::clone(&line)))
            // All that could come from the environment is set, so that it is read in one place alone: ours. Where the
            // request really goes, and whether it is compressed on the way, is the sender's business.
            .with_endpoint(endpoint)
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_compression(opentelemetry_otlp::Compression::Gzip)
            .with_timeout(timeout)
            .build()
            .map_err(|error| MetricsError::Setup { reason: error.to_string() })?;
        let reader = PeriodicReader::builder(exporter).with_interval(settings.interval).build();
        let mut provider = SdkMeterProvider::builder().with_resource(sdk_resource(resource)).with_reader(reader);
        if settings.exponential_histograms {
            provider = provider.with_view(exponential);
        }
        let provider = provider.build();
        let scope = InstrumentationScope::builder("runspan").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self::with_meter(&provider.meter_with_scope(scope), provider.clone(), line, settings.names))
    }

    fn with_meter(meter: &Meter, provider: SdkMeterProvider, line: Arc<Line>, names: Names) -> Self {
        Self {
            provider: Some(provider),
            line,
            calls: Calls::new(meter, names),
            runs: meter.u64_counter("runspan.runs").with_unit("{run}").with_description("Runs that ended").build(),
            run_duration: seconds(meter, "runspan.run.duration", "How long runs took", &RUN_SECONDS),
            run_cost: meter
                .f64_histogram("runspan.run.cost")
                .with_unit("USD")
                .with_description("What runs cost")
                .with_boundaries(RUN_USD.to_vec())
                .build(),
            records: meter
                .u64_counter("runspan.records")
                .with_unit("{record}")
                .with_description("What became of the records that were received")
                .build(),
        }
    }

    /// Counts one call of a model. A call that is told twice must be given once.
    pub fn model_call(&self, call: &ModelCall<'_>) {
        quietly(|| self.calls.record(call));
    }

    /// Counts a run that ended. A run without a known cost is not in the histogram of costs.
    pub fn run_ended(&self, run: &RunSummary, duration: Duration) {
        let attributes =
            [pair("kind", run.kind.as_str()), pair("name", run.name()), pair("status", run.status.as_str())];
        quietly(|| {
            self.runs.add(1, &attributes);
            self.run_duration.record(duration.as_secs_f64(), &attributes);
            if let Some(cost) = run.cost_usd {
                self.run_cost.record(cost.as_usd(), &attributes);
            }
        });
    }

    /// Counts `n` records that had one outcome.
    pub fn records(&self, outcome: Outcome, reason: &str, n: u64) {
        if n > 0 {
            quietly(|| self.records.add(n, &[pair("outcome", outcome.as_str()), pair("reason", reason)]));
        }
    }

    /// Tells why the last export failed, or what of it was rejected; `None` after a good one.
    pub fn last_failure(&self) -> Option<String> {
        locked(&self.line.failure).clone()
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
                for (kind, tokens) in [("input", call.input_tokens), ("output", call.output_tokens)] {
                    if let Some(tokens) = tokens {
                        token_usage.record(tokens, &with(&attributes, Some(pair("gen_ai.token.type", kind))));
                    }
                }
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

fn seconds(meter: &Meter, name: &'static str, text: &'static str, buckets: &[f64]) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_description(text).with_boundaries(buckets.to_vec()).build()
}

fn pair(key: &'static str, value: &str) -> KeyValue {
    match value.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => KeyValue::new(key, value[..end].to_owned()),
        None => KeyValue::new(key, value.to_owned()),
    }
}

fn with(attributes: &[KeyValue], more: Option<KeyValue>) -> Vec<KeyValue> {
    attributes.iter().cloned().chain(more).collect()
}

fn exponential(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram {
        return None;
    }
    // The standard's defaults.
    let aggregation = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };
    Stream::builder().with_aggregation(aggregation).build().ok()
}

impl Temporality {
    fn to_sdk(self) -> opentelemetry_sdk::metrics::Temporality {
        match self {
            Self::Cumulative => opentelemetry_sdk::metrics::Temporality::Cumulative,
            Self::Delta => opentelemetry_sdk::metrics::Temporality::Delta,
            Self::LowMemory => opentelemetry_sdk::metrics::Temporality::LowMemory,
        }
    }
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

/// The way out: from the SDK's exporter to the peer.
#[derive(Debug)]
struct Line {
    sender: Mutex<Sender>,
    timeout: Duration,
    closing: Mutex<Closing>,
    /// Why the last export failed.
    failure: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug)]
enum Closing {
    Open,
    /// Shutting down: nothing is sent after this moment.
    Until(Instant),
    /// Everything is sent, or given up.
    Closed,
}

impl Line {
    fn set_closing(&self, closing: Closing) {
        *locked(&self.closing) = closing;
    }

    fn flush(&self, provider: &SdkMeterProvider) -> Result<(), MetricsError> {
        provider.force_flush().map_err(|error| {
            let reason = locked(&self.failure).clone();
            MetricsError::Export { reason: reason.unwrap_or_else(|| error.to_string()) }
        })
    }

    /// Sends an encoded request and says what became of it as an HTTP status, which is what the SDK understands.
    fn send(&self, request: Vec<u8>) -> Response<Bytes> {
        let now = Instant::now();
        let own = now.checked_add(self.timeout).unwrap_or(now);
        let closing = *locked(&self.closing);
        let deadline = match closing {
            Closing::Open => own,
            Closing::Until(deadline) => own.min(deadline),
            Closing::Closed => return answer(200, None),
        };
        // The number of points is not known here, so a peer that rejects more than all is believed.
        let sent = locked(&self.sender).send(request, u64::MAX, deadline);
        *locked(&self.failure) = (sent != Sent::Accepted).then(|| sent.to_string());
        match sent {
            Sent::Accepted | Sent::Partial { .. } => answer(200, None),
            // Once the end has come the SDK must not sleep before another try.
            Sent::Later { .. } if matches!(closing, Closing::Until(end) if end <= Instant::now()) => answer(400, None),
            Sent::Later { after, .. } => answer(503, after),
            Sent::TooLarge { .. } => answer(413, None),
            Sent::Refused { .. } => answer(400, None),
        }
    }
}

/// The line as the SDK's exporter wants to have it.
#[derive(Debug)]
struct LineClient(Arc<Line>);

#[async_trait]
impl HttpClient for LineClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(request.body().as_ref()).take(MAX_BODY_BYTES).read_to_end(&mut body)?;
        // Blocking is right here: the SDK drives this future on a thread that does nothing else.
        Ok(self.0.send(body))
    }
}

fn answer(status: u16, after: Option<Duration>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    if let Some(after) = after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
    }
    response
}

/// Locks even after a panic elsewhere; what is guarded here is valid at any moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prost::Message;

    use super::*;
    use crate::model::otlp::{KeyValue as OtlpKeyValue, Value};
    use crate::sinks::forward::Compression;
    use crate::sinks::forward::tests::peers::{self, Answer, GrpcPeer, HttpPeer};

    /// As much of the OTLP metrics messages as the tests look at.
    mod wire {
        use crate::model::otlp::{KeyValue, Resource, Scope};

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Request {
            #[prost(message, repeated, tag = "1")]
            pub resource_metrics: Vec<ResourceMetrics>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct ResourceMetrics {
            #[prost(message, optional, tag = "1")]
            pub resource: Option<Resource>,
            #[prost(message, repeated, tag = "2")]
            pub scope_metrics: Vec<ScopeMetrics>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct ScopeMetrics {
            #[prost(message, optional, tag = "1")]
            pub scope: Option<Scope>,
            #[prost(message, repeated, tag = "2")]
            pub metrics: Vec<Metric>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Metric {
            #[prost(string, tag = "1")]
            pub name: String,
            #[prost(string, tag = "3")]
            pub unit: String,
            #[prost(message, optional, tag = "7")]
            pub sum: Option<Series>,
            #[prost(message, optional, tag = "9")]
            pub histogram: Option<HistogramSeries>,
            #[prost(message, optional, tag = "10")]
            pub exponential: Option<Exponential>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Series {
            #[prost(message, repeated, tag = "1")]
            pub points: Vec<Number>,
            #[prost(int32, tag = "2")]
            pub temporality: i32,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Exponential {
            #[prost(int32, tag = "2")]
            pub temporality: i32,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Number {
            #[prost(message, repeated, tag = "7")]
            pub attributes: Vec<KeyValue>,
            #[prost(sfixed64, tag = "6")]
            pub int: i64,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct HistogramSeries {
            #[prost(message, repeated, tag = "1")]
            pub points: Vec<HistogramPoint>,
            #[prost(int32, tag = "2")]
            pub temporality: i32,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct HistogramPoint {
            #[prost(message, repeated, tag = "9")]
            pub attributes: Vec<KeyValue>,
            #[prost(fixed64, tag = "4")]
            pub count: u64,
            #[prost(double, tag = "5")]
            pub sum: f64,
            #[prost(double, repeated, tag = "7")]
            pub bounds: Vec<f64>,
        }
    }

    fn resource() -> Resource {
        let pair = |key: &str, value: Value| OtlpKeyValue { key: key.into(), value: Some(value.into()) };
        Resource {
            attributes: vec![
                pair("service.name", "demo".into()),
                pair("service.instance.id", "i-1".into()),
                pair("process.pid", Value::Int(7)),
            ],
            ..Resource::default()
        }
    }

    fn target(url: &str) -> Target {
        Target::from_url_for(Signal::Metrics, url).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn start(url: &str, settings: &Settings) -> Metrics {
        Metrics::start(target(url), &resource(), settings).unwrap()
    }

    fn collector() -> HttpPeer {
        HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")))
    }

    fn last_metrics(peer: &HttpPeer) -> Vec<wire::Metric> {
        let body = peer.seen().last().expect("a request").body.clone();
        let request = wire::Request::decode(body.as_slice()).unwrap();
        request.resource_metrics[0].scope_metrics[0].metrics.clone()
    }

    fn shown(attributes: &[OtlpKeyValue]) -> String {
        let mut shown: Vec<String> = attributes
            .iter()
            .map(|attribute| {
                let value = attribute.value.clone().unwrap().value.unwrap().to_json();
                format!("{}={}", attribute.key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        shown.sort();
        shown.join(" ")
    }

    /// One line a point, sorted: name, unit, attributes, value.
    fn lines(metrics: &[wire::Metric]) -> Vec<String> {
        let mut lines = Vec::new();
        for metric in metrics {
            let name = format!("{} {}", metric.name, metric.unit);
            for point in metric.sum.iter().flat_map(|sum| &sum.points) {
                lines.push(format!("{name} | {} | {}", shown(&point.attributes), point.int));
            }
            for point in metric.histogram.iter().flat_map(|histogram| &histogram.points) {
                lines.push(format!("{name} | {} | {} in {}", shown(&point.attributes), point.sum, point.count));
            }
        }
        lines.sort();
        lines
    }

    fn call() -> ModelCall<'static> {
        ModelCall {
            operation: "chat",
            provider: Some("openai"),
            request_model: Some("gpt-4o"),
            response_model: Some("gpt-4o-2024"),
            server_address: Some("api.openai.com"),
            server_port: Some(443),
            duration: Duration::from_millis(1500),
            input_tokens: Some(100),
            output_tokens: Some(20),
            time_to_first_chunk: Some(Duration::from_millis(250)),
            ..ModelCall::default()
        }
    }

    fn calls(metrics: &Metrics) {
        metrics.model_call(&call());
        metrics.model_call(&ModelCall {
            operation: "chat",
            provider: Some("openai"),
            server_port: Some(1),
            error_type: Some("timeout"),
            duration: Duration::from_millis(500),
            ..ModelCall::default()
        });
        metrics.model_call(&ModelCall {
            operation: "embeddings",
            provider: Some("openai"),
            duration: Duration::from_millis(250),
            input_tokens: Some(5),
            ..ModelCall::default()
        });
    }

    const FULL: &str = "gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.model=gpt-4o \
                        gen_ai.response.model=gpt-4o-2024";
    const SERVER: &str = "server.address=api.openai.com server.port=443";

    #[test]
    fn model_calls_have_the_names_of_1_41() {
        let peer = collector();
        let metrics = start(&peer.url(), &Settings::default());
        calls(&metrics);
        metrics.shutdown(Duration::from_secs(20)).unwrap();
        assert_eq!(peer.seen().len(), 1, "shutting down exports once");
        assert_eq!(peer.seen()[0].path, "/v1/metrics");
        let exported = last_metrics(&peer);
        assert_eq!(
            lines(&exported),
            [
                "gen_ai.client.operation.duration s | error.type=timeout gen_ai.operation.name=chat \
                 gen_ai.provider.name=openai | 0.5 in 1"
                    .into(),
                format!("gen_ai.client.operation.duration s | {FULL} {SERVER} | 1.5 in 1"),
                "gen_ai.client.operation.duration s | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
                 | 0.25 in 1"
                    .into(),
                format!("gen_ai.client.operation.time_to_first_chunk s | {FULL} {SERVER} | 0.25 in 1"),
                format!("gen_ai.client.token.usage {{token}} | {FULL} gen_ai.token.type=input {SERVER} | 100 in 1"),
                format!("gen_ai.client.token.usage {{token}} | {FULL} gen_ai.token.type=output {SERVER} | 20 in 1"),
                "gen_ai.client.token.usage {token} | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
                 gen_ai.token.type=input | 5 in 1"
                    .into(),
            ]
        );
        for metric in exported {
            let histogram = metric.histogram.unwrap();
            let buckets = if metric.unit == "s" { OPERATION_SECONDS } else { TOKENS };
            assert_eq!(histogram.points[0].bounds, buckets, "{}", metric.name);
            assert_eq!(histogram.temporality, 2, "cumulative");
        }
    }

    #[test]
    fn the_names_in_development_replace_those_of_1_41() {
        let peer = collector();
        let metrics = start(&peer.url(), &Settings { names: Names::Main, ..Settings::default() });
        calls(&metrics);
        metrics.flush(soon()).unwrap();
        let failed = "error.type=timeout gen_ai.operation.name=chat gen_ai.provider.name=openai";
        let inference = "gen_ai.client.inference";
        let mut expected = vec![
            format!("{inference}.duration s | {FULL} {SERVER} | 1.5 in 1"),
            format!("{inference}.duration s | {failed} | 0.5 in 1"),
            format!("{inference}.time_to_first_chunk s | {FULL} {SERVER} | 0.25 in 1"),
            "gen_ai.client.operation.duration s | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
             | 0.25 in 1"
                .into(),
        ];
        let (model, failed_modality) = (
            FULL.replace(" gen_ai.response.model=gpt-4o-2024", ""),
            "error.type=timeout gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.token.modality=unknown",
        );
        for (kind, tokens) in [("input", 100), ("output", 20)] {
            expected.extend([
                format!("{inference}.operation.{kind}_tokens {{token}} | {FULL} {SERVER} | {tokens} in 1"),
                format!("{inference}.operation.{kind}_tokens {{token}} | {failed} | 0 in 1"),
                format!(
                    "{inference}.usage.{kind}_tokens {{token}} | {model} gen_ai.response.model=gpt-4o-2024 \
                     gen_ai.token.modality=unknown {SERVER} | {tokens}"
                ),
                format!("{inference}.usage.{kind}_tokens {{token}} | {failed_modality} | 0"),
            ]);
        }
        expected.sort();
        assert_eq!(lines(&last_metrics(&peer)), expected);
    }

    fn run(status: &str, cost: serde_json::Value) -> RunSummary {
        serde_json::from_value(serde_json::json!({
            "format": 1, "run_id": "01KE9BZH80BGEY5ABZ7D0DHDQ1", "kind": "agent", "agent_id": "reviewer",
            "trace_id": "019b92bfc5005c1de2a97f3b40d8b6e1", "status": status, "cost_usd": cost,
            "started_at": "2026-01-06T10:00:00.000Z", "updated_at": "2026-01-06T10:00:00.000Z",
        }))
        .unwrap()
    }

    #[test]
    fn runs_and_records_are_counted_and_the_resource_is_the_callers() {
        let peer = collector();
        let metrics = start(&peer.url(), &Settings::default());
        metrics.run_ended(&run("success", 0.5.into()), Duration::from_secs(150));
        metrics.run_ended(&run("success", 0.25.into()), Duration::from_secs(50));
        metrics.run_ended(&run("error", serde_json::Value::Null), Duration::from_secs(1));
        metrics.records(Outcome::Stored, "ok", 7);
        metrics.records(Outcome::NotKept, "no_genai", 2);
        metrics.records(Outcome::Stored, "ok", 1);
        metrics.records(Outcome::Dropped, "full", 0);
        metrics.flush(soon()).unwrap();
        let run = |status: &str| format!("kind=agent name=reviewer status={status}");
        assert_eq!(
            lines(&last_metrics(&peer)),
            [
                "runspan.records {record} | outcome=not_kept reason=no_genai | 2".into(),
                "runspan.records {record} | outcome=stored reason=ok | 8".into(),
                format!("runspan.run.cost USD | {} | 0.75 in 2", run("success")),
                format!("runspan.run.duration s | {} | 1 in 1", run("error")),
                format!("runspan.run.duration s | {} | 200 in 2", run("success")),
                format!("runspan.runs {{run}} | {} | 1", run("error")),
                format!("runspan.runs {{run}} | {} | 2", run("success")),
            ]
        );
        let request = wire::Request::decode(peer.seen()[0].body.as_slice()).unwrap();
        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        assert_eq!(shown(&resource.attributes), "process.pid=7 service.instance.id=i-1 service.name=demo");
    }

    #[test]
    fn the_interval_exports_without_being_asked() {
        let peer = collector();
        let metrics = start(&peer.url(), &Settings { interval: Duration::from_millis(50), ..Settings::default() });
        metrics.records(Outcome::Stored, "ok", 1);
        let until = soon();
        while peer.seen().len() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(peer.seen().len() >= 2);
    }

    #[test]
    fn grpc_and_gzip_carry_the_same_bytes() {
        let zipped = collector();
        let settings = Settings { temporality: Temporality::Delta, ..Settings::default() };
        let mut gzip = target(&zipped.url());
        gzip.compression = Compression::Gzip;
        let metrics = Metrics::start(gzip, &resource(), &settings).unwrap();
        metrics.model_call(&call());
        metrics.flush(soon()).unwrap();
        let seen = &zipped.seen()[0];
        assert_eq!(seen.header("content-encoding"), "gzip");
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(seen.body.as_slice()).read_to_end(&mut body).unwrap();
        let request = wire::Request::decode(body.as_slice()).unwrap();
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        assert_eq!(metric.histogram.as_ref().unwrap().temporality, 1, "delta");

        let grpc = GrpcPeer::new(|_| Answer::ok(vec![]));
        let metrics = start(&grpc.url(), &Settings { exponential_histograms: true, ..Settings::default() });
        metrics.model_call(&call());
        metrics.shutdown(Duration::from_secs(20)).unwrap();
        let seen = &grpc.seen()[0];
        assert_eq!(seen.path, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
        let request = wire::Request::decode(&seen.body[5..]).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        assert!(metrics.iter().all(|metric| metric.exponential.is_some() && metric.histogram.is_none()));
    }

    #[test]
    fn a_failed_export_is_told_and_a_passing_failure_is_tried_again() {
        let refusing = HttpPeer::new(|_| Some(peers::response("401 Who", "content-type: text/plain\r\n", b"no key")));
        let metrics = start(&refusing.url(), &Settings::default());
        metrics.records(Outcome::Stored, "ok", 1);
        let error = metrics.flush(soon()).unwrap_err().to_string();
        assert_eq!(error, "metrics were not exported: refused: HTTP 401: no key");
        assert_eq!(metrics.last_failure().as_deref(), Some("refused: HTTP 401: no key"));

        let failed = AtomicBool::new(false);
        let passing = HttpPeer::new(move |_| match failed.swap(true, Ordering::Relaxed) {
            false => Some(peers::response("503 Busy", "", b"")),
            true => Some(peers::response("200 OK", "", b"")),
        });
        let metrics = start(&passing.url(), &Settings::default());
        metrics.records(Outcome::Stored, "ok", 1);
        metrics.flush(soon()).unwrap();
        assert_eq!((passing.seen().len(), metrics.last_failure()), (2, None));
    }

    #[test]
    fn dead_and_hanging_peers_cost_no_more_than_the_deadline() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = silent.local_addr().unwrap().port();
        for url in [
            "http://127.0.0.1:1".to_owned(),
            "grpc://127.0.0.1:1".to_owned(),
            format!("http://127.0.0.1:{silent}"),
            format!("grpc://127.0.0.1:{silent}"),
        ] {
            let metrics = start(&url, &Settings::default());
            metrics.records(Outcome::Stored, "ok", 1);
            let begun = Instant::now();
            assert!(metrics.flush(begun + Duration::from_millis(100)).is_err(), "{url}");
            assert!(metrics.shutdown(Duration::from_millis(300)).is_err(), "{url}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{url}: {:?}", begun.elapsed());
            let dropped = start(&url, &Settings::default());
            dropped.records(Outcome::Stored, "ok", 1);
            let begun = Instant::now();
            drop(dropped);
            assert!(begun.elapsed() < Duration::from_millis(500), "{url}: dropped in {:?}", begun.elapsed());
        }
    }

    #[test]
    fn metrics_start_flush_and_end_inside_an_async_runtime() {
        let (http, grpc) = (collector(), GrpcPeer::new(|_| Answer::ok(vec![])));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for url in [http.url(), grpc.url()] {
                let metrics = start(&url, &Settings::default());
                metrics.model_call(&call());
                metrics.flush(soon()).unwrap();
                drop(start(&url, &Settings::default()));
                metrics.shutdown(Duration::from_secs(20)).unwrap();
            }
        });
        // And from a thread without one, with nothing recorded.
        start(&http.url(), &Settings::default()).shutdown(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn names_without_end_are_counted_together() {
        let peer = collector();
        let metrics = start(&peer.url(), &Settings::default());
        for number in 0..3000 {
            metrics.records(Outcome::Dropped, &format!("reason-{number}"), 1);
        }
        metrics.records(Outcome::Dropped, &"x".repeat(10_000), 1);
        metrics.flush(soon()).unwrap();
        let exported = lines(&last_metrics(&peer));
        assert_eq!(exported.len(), 2001);
        assert!(exported.iter().any(|line| line == "runspan.records {record} | otel.metric.overflow=true | 1001"));
    }

    #[test]
    fn a_target_for_traces_is_refused() {
        let traces = Target::from_url("http://127.0.0.1:1").unwrap();
        assert!(Metrics::start(traces, &resource(), &Settings::default()).is_err());
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(pair("k", &"ä".repeat(300)).value.as_str().chars().count(), MAX_VALUE_CHARS);
        assert_eq!(pair("k", "short").value.as_str(), "short");
    }

    #[test]
    fn settings_come_from_the_standard_variables() {
        let from = |variables: &[(&str, &str)]| {
            Settings::from_lookup(|name| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(from(&[]), (Settings::default(), vec![]));
        assert_eq!(
            from(&[
                ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
                ("OTEL_METRIC_EXPORT_TIMEOUT", "250"),
                ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "LowMemory"),
                ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
                ("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup, gen_ai_latest_experimental"),
            ]),
            (
                Settings {
                    names: Names::Main,
                    interval: Duration::from_millis(1500),
                    timeout: Duration::from_millis(250),
                    temporality: Temporality::LowMemory,
                    exponential_histograms: true,
                },
                vec![]
            )
        );
        let (settings, warnings) = from(&[
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", ""),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
        ]);
        assert_eq!(settings, Settings::default());
        let named: Vec<&str> = warnings.iter().map(|warning| warning.variable.as_str()).collect();
        assert_eq!(
            named,
            [
                "OTEL_METRIC_EXPORT_INTERVAL",
                "OTEL_METRIC_EXPORT_TIMEOUT",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
            ]
        );
    }
}
