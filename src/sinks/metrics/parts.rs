//! Export requests cut into parts: servers have a limit, and many series are more than it.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, Gauge, Histogram, Metric, ResourceMetrics, ScopeMetrics, Sum, Summary,
};
use prost::Message;

/// The attribute of the series that counts what is beyond the bound.
const OVERFLOW: &str = "otel.metric.overflow";

/// A request and how many points it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub request: ExportMetricsServiceRequest,
    pub points: u64,
}

/// Cuts a request into such of at most `max_bytes`, or of one point where that has more.
pub(super) fn parts(request: ExportMetricsServiceRequest, max_bytes: usize) -> Vec<Part> {
    if request.encoded_len() <= max_bytes {
        let metrics = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        let points = metrics.map(points_of).sum();
        return vec![Part { request, points }];
    }
    let mut parts = Vec::new();
    for mut resource in request.resource_metrics {
        for mut scope in std::mem::take(&mut resource.scope_metrics) {
            let metrics = std::mem::take(&mut scope.metrics);
            let around = part_of(&resource, &scope, Vec::new()).request.encoded_len();
            let room = max_bytes.saturating_sub(around);
            let pieces = metrics.into_iter().flat_map(|metric| cut(metric, room)).collect();
            let packed = packed(pieces, room, Message::encoded_len);
            parts.extend(packed.into_iter().map(|metrics| part_of(&resource, &scope, metrics)));
        }
    }
    parts
}

fn part_of(resource: &ResourceMetrics, scope: &ScopeMetrics, metrics: Vec<Metric>) -> Part {
    let points = metrics.iter().map(points_of).sum();
    let scope_metrics = vec![ScopeMetrics { metrics, ..scope.clone() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..resource.clone() }];
    Part { request: ExportMetricsServiceRequest { resource_metrics }, points }
}

/// Cuts a metric into such with fewer points.
fn cut(mut metric: Metric, max_bytes: usize) -> Vec<Metric> {
    let Some(data) = metric.data.take() else { return vec![metric] };
    let room = max_bytes.saturating_sub(metric.encoded_len());
    macro_rules! cut {
        ($variant:ident, $data:expr) => {{
            let mut data: $variant = $data;
            let points = packed(std::mem::take(&mut data.data_points), room, Message::encoded_len);
            let with = |data_points| {
                let mut part = data.clone();
                part.data_points = data_points;
                Some(Data::$variant(part))
            };
            points.into_iter().map(|points| Metric { data: with(points), ..metric.clone() }).collect()
        }};
    }
    match data {
        Data::Gauge(data) => cut!(Gauge, data),
        Data::Sum(data) => cut!(Sum, data),
        Data::Histogram(data) => cut!(Histogram, data),
        Data::ExponentialHistogram(data) => cut!(ExponentialHistogram, data),
        Data::Summary(data) => cut!(Summary, data),
    }
}

/// Puts items in groups of at most `room` bytes, each of one item at least.
fn packed<T>(items: Vec<T>, room: usize, len: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    // A field's key and the length before it.
    const FRAME_BYTES: usize = 6;
    let (mut groups, mut bytes) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let more = len(&item) + FRAME_BYTES;
        match groups.last_mut().filter(|_| bytes + more <= room) {
            Some(group) => {
                group.push(item);
                bytes += more;
            }
            None => {
                groups.push(vec![item]);
                bytes = more;
            }
        }
    }
    groups
}

fn points_of(metric: &Metric) -> u64 {
    let points = match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    };
    points as u64
}

/// Names the first metric that has a series of what is beyond the bound.
pub(super) fn metric_that_overflows(request: &ExportMetricsServiceRequest) -> Option<&str> {
    let is_over = |attributes: &[KeyValue]| attributes.iter().any(|attribute| attribute.key == OVERFLOW);
    let mut metrics = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
    let metric = metrics.find(|metric| match &metric.data {
        None => false,
        Some(Data::Gauge(data)) => data.data_points.iter().any(|point| is_over(&point.attributes)),
        Some(Data::Sum(data)) => data.data_points.iter().any(|point| is_over(&point.attributes)),
        Some(Data::Histogram(data)) => data.data_points.iter().any(|point| is_over(&point.attributes)),
        Some(Data::ExponentialHistogram(data)) => data.data_points.iter().any(|point| is_over(&point.attributes)),
        Some(Data::Summary(data)) => data.data_points.iter().any(|point| is_over(&point.attributes)),
    });
    metric.map(|metric| metric.name.as_str())
}

/// Dates cumulative points anew: what was true of a process that has ended is true now, and peers refuse what is old.
pub(super) fn dated(mut request: ExportMetricsServiceRequest, now: u64) -> ExportMetricsServiceRequest {
    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
    let scopes = request.resource_metrics.iter_mut().flat_map(|of| &mut of.scope_metrics);
    for metric in scopes.flat_map(|of| &mut of.metrics) {
        match &mut metric.data {
            Some(Data::Sum(data)) if data.aggregation_temporality == CUMULATIVE => {
                data.data_points.iter_mut().for_each(|point| point.time_unix_nano = now);
            }
            Some(Data::Histogram(data)) if data.aggregation_temporality == CUMULATIVE => {
                data.data_points.iter_mut().for_each(|point| point.time_unix_nano = now);
            }
            Some(Data::ExponentialHistogram(data)) if data.aggregation_temporality == CUMULATIVE => {
                data.data_points.iter_mut().for_each(|point| point.time_unix_nano = now);
            }
            _ => {}
        }
    }
    request
}
