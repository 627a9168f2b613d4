//! What runs, calls and records come to, and how the server itself is: at `/metrics`, and for targets that ask for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource;
use prost::Message;
use tokio::sync::Semaphore;

use super::budget::Budget;
use super::exposition::Family;
use super::intake::Tally;
use crate::journal::{JournalReader, behind};
use crate::model::UnixNanos;
use crate::model::otlp::Resource;
use crate::pipeline::worker::STORE_READER;
use crate::sinks::forward::Signal;
use crate::sinks::forwarder::Known;
use crate::sinks::metrics::scrape::Scrape;
use crate::store::files::layout::Layout;

/// What is counted under which attributes.
type Numbers = Vec<(Vec<KeyValue>, Number)>;

/// Where all that is told comes from.
#[derive(Debug)]
pub(super) struct Sources {
    pub scrape: Scrape,
    pub layout: Layout,
    pub process: String,
    pub targets: Vec<Known>,
    pub tally: Arc<Tally>,
    pub budget: Arc<Budget>,
    /// One for each connection that there may still be, of so many.
    pub permits: Arc<Semaphore>,
    pub max_connections: usize,
    /// When counting began.
    pub since: UnixNanos,
}

impl Sources {
    /// Collects everything, for `/metrics`; blocks for a moment.
    pub fn collect(&self) -> Vec<Family> {
        Family::all_of(self.request(), |key| self.scrape.examples(key))
    }

    /// Collects everything, for a peer that is to know who says it; blocks for a moment.
    pub fn collect_of(&self, resource: &Resource) -> ExportMetricsServiceRequest {
        let resource = resource::v1::Resource::decode(resource.encode_to_vec().as_slice()).ok();
        let mut request = self.request();
        request.resource_metrics.iter_mut().for_each(|of| of.resource.clone_from(&resource));
        request
    }

    fn request(&self) -> ExportMetricsServiceRequest {
        // Without what runs come to the server can still say how it is.
        let mut request = self.scrape.collect().unwrap_or_default();
        let metrics = self.of_requests().into_iter().chain(self.of_journal()).chain(self.of_targets()).collect();
        let own = ScopeMetrics { scope: Some(own_scope()), metrics, ..ScopeMetrics::default() };
        match request.resource_metrics.first_mut() {
            Some(first) => first.scope_metrics.push(own),
            None => request.resource_metrics.push(ResourceMetrics { scope_metrics: vec![own], ..Default::default() }),
        }
        request
    }

    fn of_requests(&self) -> [Metric; 5] {
        let alone = |n: Number| vec![(Vec::new(), n)];
        let (received, journaled) =
            (self.tally.received.load(Ordering::Relaxed), self.tally.journaled.load(Ordering::Relaxed));
        let refused = self.tally.refused().into_iter().map(|(reason, n)| (vec![label("reason", reason)], whole(n)));
        let connections = self.max_connections.saturating_sub(self.permits.available_permits());
        let spans =
            "Spans and log records in requests that were read, broken ones too, and those left in the journal before";
        [
            self.counter("received_spans", "{span}", spans, alone(whole(received))),
            self.counter(
                "acknowledged_spans",
                "{span}",
                "Spans and log records that are in the journal for good",
                alone(whole(journaled)),
            ),
            self.counter("refused_requests", "{request}", "Requests that were refused whole", refused.collect()),
            gauge("connections", "{connection}", "Connections that are open", alone(whole(connections as u64))),
            gauge("request_memory", "By", "What requests take in memory", alone(whole(self.budget.taken() as u64))),
        ]
    }

    fn of_journal(&self) -> [Metric; 2] {
        let (dir, now) = (self.layout.journal(), UnixNanos::now());
        let (mut bytes, mut ages) = (Numbers::new(), Numbers::new());
        let labels = |reader: &str, signal: Signal| vec![label("reader", reader), label("signal", signal.as_str())];
        let store = (STORE_READER.to_owned(), labels("store", Signal::Traces));
        let of_target = |target: &Known| (target.reader().to_owned(), labels(target.label(), target.signal()));
        for (name, labels) in std::iter::once(store).chain(self.targets.iter().map(of_target)) {
            let Ok(reader) = JournalReader::open_read_only(&dir, &self.process, &name) else { continue };
            let (acknowledged, committed) = (reader.acknowledged(), &self.tally.committed);
            let since = committed.oldest_after(acknowledged);
            let Ok(waiting) = behind(&dir, &self.process, acknowledged, committed.last()) else { continue };
            let age = since.map_or(0.0, |since| now.millis_since(since) as f64 / 1e3);
            bytes.push((labels.clone(), whole(waiting)));
            ages.push((labels, Number::AsDouble(age)));
        }
        let waited = "How long the oldest of it has been in the journal, about";
        [
            gauge("journal_behind", "By", "What of the journal a reader has not done yet, about", bytes),
            gauge("journal_age", "s", waited, ages),
        ]
    }

    fn of_targets(&self) -> [Metric; 2] {
        let (mut spans, mut metrics) = (Numbers::new(), Numbers::new());
        for target in &self.targets {
            let numbers = if target.signal() == Signal::Traces { &mut spans } else { &mut metrics };
            let counts = target.counts();
            let mut put = |outcome: &str, reason: &str, n: u64| {
                let labels = [("target", target.label()), ("outcome", outcome), ("reason", reason)];
                numbers.push((labels.map(|(key, value)| label(key, value)).into(), whole(n)));
            };
            put("sent", "", counts.sent);
            for (outcome, reasons) in
                [("not_kept", &counts.not_kept), ("refused", &counts.refused), ("dropped", &counts.dropped)]
            {
                reasons.iter().for_each(|(reason, n)| put(outcome, reason, *n));
            }
        }
        let requests = "What became of requests of metrics for each target";
        [
            self.counter("forwarded_spans", "{span}", "What became of spans for each target", spans),
            self.counter("forwarded_metrics", "{request}", requests, metrics),
        ]
    }

    fn counter(&self, name: &str, unit: &str, help: &str, numbers: Numbers) -> Metric {
        let data = Sum {
            data_points: points(numbers, self.since.0),
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
        };
        metric(name, unit, help, Data::Sum(data))
    }
}

fn gauge(name: &str, unit: &str, help: &str, numbers: Numbers) -> Metric {
    metric(name, unit, help, Data::Gauge(Gauge { data_points: points(numbers, 0) }))
}

fn metric(name: &str, unit: &str, help: &str, data: Data) -> Metric {
    Metric {
        name: format!("runspan.bridge.{name}"),
        description: help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn points(numbers: Numbers, start_time_unix_nano: u64) -> Vec<NumberDataPoint> {
    let time_unix_nano = UnixNanos::now().0;
    let point = |(attributes, value)| NumberDataPoint {
        attributes,
        start_time_unix_nano,
        time_unix_nano,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    numbers.into_iter().map(point).collect()
}

/// Counts beyond what OTLP can say stay at the most.
fn whole(n: u64) -> Number {
    Number::AsInt(i64::try_from(n).unwrap_or(i64::MAX))
}

fn label(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn own_scope() -> InstrumentationScope {
    let (name, version) = ("runspan".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}
