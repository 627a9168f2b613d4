//! The OpenTelemetry SDK's doors: a span processor and a span exporter.
//!
//! [`Processor`] tells starts and ends as they happen, so a run shows while it runs; it is the better of the two.
//! [`Exporter`] gets spans only when they have ended, and is for programs that can add nothing else. Both encode a span
//! once, straight from the SDK's data, and never wait. The SDK tells nobody of an event before its span ends, so events
//! stand in the run's log where their span's end does.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Span as _, SpanKind, Status};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::encode::{self, EVENT_ATTRIBUTE, SPAN_ATTRIBUTE};
use super::foreign::Note;
use super::recorder::{Recorder, with_scratch};
use crate::conventions::names;
use crate::error::Error;
use crate::error::with_causes;
use crate::model::otlp;
use crate::model::record::RecordKind;
use crate::model::{RunId, SpanId, TraceId, UnixNanos};
use crate::telemetry::{AtWork, Builder, Flushed, Guard, builder, warn};

/// How long a flush may take that came without a limit, as in the SDK's own processors.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Attributes of a span in bytes; what is beyond is left out with a mark.
const MAX_ATTRIBUTE_BYTES: usize = 4 << 20;
/// Events of a span in bytes; what is beyond is counted.
const MAX_EVENT_BYTES: usize = 1 << 20;
const EVENT: u8 = 11;
const LINK: u8 = 13;
const LINK_ATTRIBUTE: u8 = 4;
const SCOPE_ATTRIBUTE: u8 = 3;

/// Makes a processor with all defaults, to be added to a tracer provider:
///
/// ```no_run
/// use opentelemetry_sdk::trace::SdkTracerProvider;
///
/// let provider = SdkTracerProvider::builder().with_span_processor(runspan::processor()).build();
/// ```
///
/// Never fails and never panics: where recording is not possible it warns once on standard error and records nothing.
/// The provider's shutdown writes out what was recorded.
pub fn processor() -> Processor {
    Processor { door: Door::with_defaults() }
}

/// Makes an exporter with all defaults, for programs that can add no processor. Never fails, as [`processor`].
pub fn exporter() -> Exporter {
    Exporter { door: Door::with_defaults() }
}

impl Builder {
    /// Sets recording up and returns a processor for a tracer provider that the program builds.
    ///
    /// The guard keeps the recorder alive; when it is dropped, everything recorded so far is in the store.
    pub fn processor(self) -> Result<(Processor, Guard), Error> {
        let (door, guard) = Door::open(self)?;
        Ok((Processor { door }, guard))
    }

    /// Sets recording up and returns an exporter; the guard is as with [`Builder::processor`].
    pub fn exporter(self) -> Result<(Exporter, Guard), Error> {
        let (door, guard) = Door::open(self)?;
        Ok((Exporter { door }, guard))
    }
}

/// Records the spans of an OpenTelemetry tracer provider, as they start and as they end.
///
/// A span that the provider's sampler drops is not recorded: the SDK tells nobody of it. The root spans of this process
/// get `runspan.run.id` and `runspan.store.id`, which other exporters of the provider see too.
#[derive(Debug)]
pub struct Processor {
    door: Door,
}

/// Records spans that have ended, in batches, as an OpenTelemetry exporter.
#[derive(Debug)]
pub struct Exporter {
    door: Door,
}

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        let recorder = &self.door.recorder;
        if !recorder.is_recording() || self.door.is_stopped() {
            return;
        }
        let Some(mut data) = span.exported_data() else { return };
        let parent = SpanId::from_bytes(&data.parent_span_id.to_bytes());
        let is_local_root = parent.is_none() || data.parent_span_is_remote;
        let mut run_id = None;
        if is_local_root {
            for attribute in root_attributes(recorder, &data, cx, &mut run_id) {
                span.set_attribute(attribute.clone());
                data.attributes.push(attribute);
            }
        }
        if let Some(span_id) = SpanId::from_bytes(&data.span_context.span_id().to_bytes()) {
            recorder.notes().started(span_id, Note { parent, is_local_root, run_id });
        }
        record(recorder, RecordKind::Started, &data);
    }

    fn on_end(&self, span: SpanData) {
        let recorder = &self.door.recorder;
        if !recorder.is_recording() {
            return;
        }
        let context = &span.span_context;
        if self.door.is_stopped() {
            return recorder.refuse(RecordKind::Ended, context.trace_id().to_bytes());
        }
        let ids =
            (TraceId::from_bytes(&context.trace_id().to_bytes()), SpanId::from_bytes(&context.span_id().to_bytes()));
        if let (Some(trace_id), Some(span_id)) = ids {
            let flags = context.trace_flags().to_u8();
            recorder.notes().ended(trace_id, span_id, flags, &span.name, UnixNanos(nanos(span.start_time)));
        }
        record(recorder, RecordKind::Ended, &span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.door.flush(FLUSH_LIMIT)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.door.shutdown(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.door.set_resource(resource);
    }
}

impl SpanExporter for Exporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        std::future::ready(self.door.export(&batch))
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.door.flush(FLUSH_LIMIT)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.door.shutdown(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.door.set_resource(resource);
    }
}

/// What processor and exporter have in common: a way in, which can be shut.
#[derive(Debug)]
struct Door {
    recorder: Arc<Recorder>,
    /// `None` records nothing.
    at_work: Option<Arc<AtWork>>,
    /// Held where nobody else does.
    guard: Mutex<Option<Guard>>,
    stopped: AtomicBool,
}

impl Door {
    fn open(builder: Builder) -> Result<(Self, Guard), Error> {
        let (recorder, guard) = builder.start()?;
        let at_work = guard.at_work();
        Ok((Self { recorder, at_work, guard: Mutex::new(None), stopped: AtomicBool::new(false) }, guard))
    }

    fn with_defaults() -> Self {
        let (recorder, guard) = builder().start().unwrap_or_else(|error| {
            warn(format_args!("{}; this program is not recorded", with_causes(&error)));
            (Arc::new(Recorder::new(None, String::new(), None)), Guard::inert())
        });
        Self { recorder, at_work: guard.at_work(), guard: Mutex::new(Some(guard)), stopped: AtomicBool::new(false) }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn set_resource(&self, resource: &Resource) {
        let attributes = resource
            .iter()
            .map(|(key, value)| otlp::KeyValue { key: key.as_str().to_owned(), value: Some(to_otlp(value).into()) });
        self.recorder.tell_resource(attributes.collect());
    }

    fn flush(&self, limit: Duration) -> OTelSdkResult {
        if self.is_stopped() {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        self.written(limit)
    }

    /// Writes out what was recorded.
    fn written(&self, limit: Duration) -> OTelSdkResult {
        let Some(at_work) = self.at_work.as_ref().filter(|_| self.recorder.is_recording()) else { return Ok(()) };
        match at_work.flush(limit) {
            Flushed::Written => Ok(()),
            Flushed::Late => Err(OTelSdkError::Timeout(limit)),
            Flushed::Stuck => Err(OTelSdkError::InternalFailure(
                "the run store cannot be written; what was recorded is kept and tried again".to_owned(),
            )),
            Flushed::Ended => Err(OTelSdkError::AlreadyShutdown),
        }
    }

    fn shutdown(&self, limit: Duration) -> OTelSdkResult {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let deadline = Instant::now() + limit;
        let written = match self.written(limit) {
            // Its guard went first, and waited for all that was recorded.
            Err(OTelSdkError::AlreadyShutdown) => Ok(()),
            written => written,
        };
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(guard) = guard {
            // What it reports beyond the result is for those who hold a guard of their own.
            let _ = guard.shutdown(deadline.saturating_duration_since(Instant::now()));
        }
        written
    }

    /// Tells the starts and the ends of a batch in the order of their time, as if they had been seen.
    fn export(&self, batch: &[SpanData]) -> OTelSdkResult {
        let stopped = self.is_stopped();
        if stopped || !self.recorder.is_recording() {
            for span in batch.iter().filter(|_| stopped) {
                self.recorder.refuse(RecordKind::Ended, span.span_context.trace_id().to_bytes());
            }
            return if stopped { Err(OTelSdkError::AlreadyShutdown) } else { Ok(()) };
        }
        let parents: HashMap<_, _> =
            batch.iter().map(|span| (span.span_context.span_id(), span.parent_span_id)).collect();
        let depth = |span: &SpanData| {
            let above = std::iter::successors(Some(span.parent_span_id), |id| parents.get(id).copied());
            // A batch that says of two spans that each is the other's parent has an end, too.
            above.take(batch.len()).take_while(|id| parents.contains_key(id)).count() as i64
        };
        let mut moments: Vec<_> = batch
            .iter()
            .flat_map(|span| {
                let depth = depth(span);
                [(nanos(span.start_time), false, depth, span), (ended_nanos(span), true, -depth, span)]
            })
            .collect();
        moments.sort_by_key(|(at, is_end, depth, _)| (*at, *is_end, *depth));
        for (_, is_end, _, span) in moments {
            record(&self.recorder, if is_end { RecordKind::Ended } else { RecordKind::Started }, span);
        }
        Ok(())
    }
}

/// What the root of a run is to say: its run, its store, and the run that caused it.
fn root_attributes(recorder: &Recorder, data: &SpanData, cx: &Context, run: &mut Option<RunId>) -> Vec<KeyValue> {
    let told = |key: &str| data.attributes.iter().rev().find(|attribute| attribute.key.as_str() == key);
    let mut attributes = Vec::with_capacity(3);
    let given = told(names::RUN_ID).and_then(|attribute| attribute.value.as_str().parse().ok());
    if given.is_none() {
        let fresh = RunId::fresh(UnixNanos(nanos(data.start_time)));
        attributes.push(KeyValue::new(names::RUN_ID, fresh.to_string()));
        *run = Some(fresh);
    } else {
        *run = given;
    }
    attributes.push(KeyValue::new(names::STORE_ID, recorder.store_id().to_owned()));
    let by_baggage = cx.baggage().get(names::RUN_ID).and_then(|run| run.as_str().parse::<RunId>().ok());
    let cause = by_baggage.or_else(|| recorder.remote_parent()?.span.run_id);
    if let Some(cause) = cause.filter(|_| told(names::PARENT_RUN_ID).is_none()) {
        attributes.push(KeyValue::new(names::PARENT_RUN_ID, cause.to_string()));
    }
    attributes
}

fn record(recorder: &Recorder, kind: RecordKind, span: &SpanData) {
    with_scratch(|out| {
        encode_record(out, kind, span);
        let is_topmost = span.parent_span_id == opentelemetry::trace::SpanId::INVALID || span.parent_span_is_remote;
        recorder.record_encoded(kind, &span.span_context.trace_id().to_bytes(), is_topmost, out);
    });
}

/// Appends a `ScopeSpans` with the span.
fn encode_record(out: &mut Vec<u8>, kind: RecordKind, span: &SpanData) {
    let scope = &span.instrumentation_scope;
    encode::message(out, 1, |out| {
        encode::bytes(out, 1, scope.name().as_bytes());
        if let Some(version) = scope.version() {
            encode::bytes(out, 2, version.as_bytes());
        }
        for attribute in scope.attributes() {
            encode_attribute(out, SCOPE_ATTRIBUTE, attribute);
        }
    });
    encode::message(out, 2, |out| encode_span(out, kind, span));
    if let Some(schema_url) = scope.schema_url() {
        encode::bytes(out, 3, schema_url.as_bytes());
    }
}

fn encode_span(out: &mut Vec<u8>, kind: RecordKind, span: &SpanData) {
    let context = &span.span_context;
    let is_ended = kind == RecordKind::Ended;
    encode::bytes(out, 1, &context.trace_id().to_bytes());
    encode::bytes(out, 2, &context.span_id().to_bytes());
    let state = context.trace_state().header();
    if !state.is_empty() {
        encode::bytes(out, 3, state.as_bytes());
    }
    if span.parent_span_id != opentelemetry::trace::SpanId::INVALID {
        encode::bytes(out, 4, &span.parent_span_id.to_bytes());
    }
    encode::bytes(out, 5, span.name.as_bytes());
    encode::number(out, 6, kind_number(&span.span_kind));
    encode::fixed64(out, 7, nanos(span.start_time));
    if is_ended {
        encode::fixed64(out, 8, ended_nanos(span));
    }
    encode_attributes(out, &span.attributes);
    encode::number(out, 10, u64::from(span.dropped_attributes_count));
    if is_ended {
        let left_out = encode_events(out, span);
        encode::number(out, 12, u64::from(span.events.dropped_count) + left_out);
    }
    for link in span.links.iter() {
        encode_link(out, link);
    }
    encode::number(out, 14, u64::from(span.links.dropped_count));
    if is_ended {
        encode_status(out, &span.status);
    }
    let remote = if span.parent_span_is_remote { 0x200 } else { 0 };
    encode::fixed32(out, 16, u32::from(context.trace_flags().to_u8()) | 0x100 | remote);
}

fn encode_attributes(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    let mut encoded = Vec::new();
    for attribute in attributes {
        encode_attribute(&mut encoded, SPAN_ATTRIBUTE, attribute);
    }
    if encode::hold_to(MAX_ATTRIBUTE_BYTES, &mut encoded, SPAN_ATTRIBUTE) {
        encode::text_attribute(&mut encoded, SPAN_ATTRIBUTE, names::CUT, "attributes");
    }
    out.extend_from_slice(&encoded);
}

/// Appends the events that fit; returns how many do not.
fn encode_events(out: &mut Vec<u8>, span: &SpanData) -> u64 {
    let begin = out.len();
    for (place, event) in span.events.iter().enumerate() {
        if out.len() - begin > MAX_EVENT_BYTES {
            return (span.events.len() - place) as u64;
        }
        encode::message(out, EVENT, |out| {
            encode::fixed64(out, 1, nanos(event.timestamp));
            encode::bytes(out, 2, event.name.as_bytes());
            for attribute in &event.attributes {
                encode_attribute(out, EVENT_ATTRIBUTE, attribute);
            }
            encode::number(out, 4, u64::from(event.dropped_attributes_count));
        });
    }
    0
}

fn encode_link(out: &mut Vec<u8>, link: &opentelemetry::trace::Link) {
    let to = &link.span_context;
    encode::message(out, LINK, |out| {
        encode::bytes(out, 1, &to.trace_id().to_bytes());
        encode::bytes(out, 2, &to.span_id().to_bytes());
        let state = to.trace_state().header();
        if !state.is_empty() {
            encode::bytes(out, 3, state.as_bytes());
        }
        for attribute in &link.attributes {
            encode_attribute(out, LINK_ATTRIBUTE, attribute);
        }
        encode::number(out, 5, u64::from(link.dropped_attributes_count));
        let remote = if to.is_remote() { 0x200 } else { 0 };
        encode::fixed32(out, 6, u32::from(to.trace_flags().to_u8()) | 0x100 | remote);
    });
}

fn encode_status(out: &mut Vec<u8>, status: &Status) {
    let (code, description) = match status {
        Status::Unset => return,
        Status::Ok => (1, ""),
        Status::Error { description } => (2, description.as_ref()),
    };
    encode::message(out, 15, |out| {
        if description.len() > encode::MAX_TEXT {
            encode::bytes(out, 2, encode::cut(description, encode::MAX_TEXT).as_bytes());
        } else if !description.is_empty() {
            encode::bytes(out, 2, description.as_bytes());
        }
        encode::number(out, 3, code);
    });
}

fn encode_attribute(out: &mut Vec<u8>, field: u8, attribute: &KeyValue) {
    let key = attribute.key.as_str();
    match &attribute.value {
        Value::Bool(value) => encode::bool_attribute(out, field, key, *value),
        Value::I64(value) => encode::int_attribute(out, field, key, *value),
        Value::F64(value) => encode::double_attribute(out, field, key, *value),
        Value::String(value) => encode::text_attribute(out, field, key, value.as_str()),
        Value::Array(list) => encode::list_attribute(out, field, key, |out| encode_list(out, list)),
        // A kind of value that a later version of the API brings has at least a text.
        other => encode::text_attribute(out, field, key, &other.as_str()),
    }
}

fn encode_list(out: &mut Vec<u8>, list: &Array) {
    match list {
        Array::Bool(values) => values.iter().for_each(|value| encode::bool_element(out, *value)),
        Array::I64(values) => values.iter().for_each(|value| encode::int_element(out, *value)),
        Array::F64(values) => values.iter().for_each(|value| encode::double_element(out, *value)),
        Array::String(values) => values.iter().for_each(|value| encode::text_element(out, value.as_str())),
        other => encode::text_element(out, &other.to_string()),
    }
}

/// Converts an attribute of a resource, of which there is one in a process.
fn to_otlp(value: &Value) -> otlp::Value {
    fn list<T>(values: &[T], convert: impl Fn(&T) -> otlp::Value) -> otlp::Value {
        otlp::Value::Array(otlp::ArrayValue { values: values.iter().map(|value| convert(value).into()).collect() })
    }
    match value {
        Value::Bool(value) => otlp::Value::Bool(*value),
        Value::I64(value) => otlp::Value::Int(*value),
        Value::F64(value) => otlp::Value::Double(*value),
        Value::Array(Array::Bool(values)) => list(values, |value| otlp::Value::Bool(*value)),
        Value::Array(Array::I64(values)) => list(values, |value| otlp::Value::Int(*value)),
        Value::Array(Array::F64(values)) => list(values, |value| otlp::Value::Double(*value)),
        Value::Array(Array::String(values)) => list(values, |value| otlp::Value::from(value.as_str())),
        other => otlp::Value::from(other.as_str().as_ref()),
    }
}

fn kind_number(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The end of a span; never before its start, though the wall clock that the SDK reads may have been set back.
fn ended_nanos(span: &SpanData) -> u64 {
    nanos(span.end_time).max(nanos(span.start_time))
}
