//! Metrics as text for Prometheus: OpenMetrics with examples, and the older format without.
//!
//! Names follow OpenTelemetry's rules for Prometheus: dots become underscores and the unit is the end of the name, but for
//! units in braces, which only count things.

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};

use crate::sinks::metrics::scrape::{Example, SeriesKey};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Classic,
}

impl Format {
    /// Chooses by what a client says it accepts: what it likes best of the two, and the older one where it does not care.
    pub fn of(accept: &str) -> Self {
        let liking = |media: &str| {
            let quality = |part: &str| {
                let mut fields = part.split(';').map(str::trim);
                let named = fields.next().is_some_and(|name| name.eq_ignore_ascii_case(media));
                let quality = fields.find_map(|field| field.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
                quality.filter(|_| named)
            };
            accept.split(',').filter_map(quality).fold(0.0, f32::max)
        };
        match liking("application/openmetrics-text") {
            open if open > 0.0 && open >= liking("text/plain") => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One metric with all its series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    /// Without unit and `_total`.
    pub name: String,
    pub unit: &'static str,
    pub help: String,
    pub kind: Kind,
    pub series: Vec<Series>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub labels: Vec<(String, String)>,
    pub value: Value,
    /// The smallest first.
    pub examples: Vec<Example>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    /// Upper bounds, counts between them (one more), and the sum.
    Buckets(Vec<f64>, Vec<u64>, f64),
}

impl Family {
    /// Makes families of collected metrics; `examples` knows measurements of a series.
    pub fn all_of(request: ExportMetricsServiceRequest, examples: impl Fn(&SeriesKey) -> Vec<Example>) -> Vec<Self> {
        let scopes = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        let metrics = scopes.flat_map(|scope| scope.metrics);
        metrics.filter_map(|metric| Self::of_metric(metric, &examples)).collect()
    }

    fn of_metric(metric: Metric, examples: &impl Fn(&SeriesKey) -> Vec<Example>) -> Option<Self> {
        let series = |attributes: &[KeyValue], value| {
            let mut attributes: Vec<(String, String)> = attributes.iter().map(text_of).collect();
            attributes.sort_unstable();
            let key = (metric.name.clone(), attributes);
            let examples = examples(&key);
            Series { labels: key.1, value, examples }
        };
        let number_of = |point: &NumberDataPoint| {
            let number = match point.value {
                Some(number_data_point::Value::AsDouble(number)) => number,
                Some(number_data_point::Value::AsInt(number)) => number as f64,
                None => 0.0,
            };
            series(&point.attributes, Value::Number(number))
        };
        let (kind, series) = match metric.data.as_ref()? {
            Data::Sum(sum) => (Kind::Counter, sum.data_points.iter().map(number_of).collect()),
            Data::Histogram(histogram) => {
                let of = |point: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| {
                    let (bounds, counts) = (point.explicit_bounds.clone(), point.bucket_counts.clone());
                    series(&point.attributes, Value::Buckets(bounds, counts, point.sum.unwrap_or(0.0)))
                };
                (Kind::Histogram, histogram.data_points.iter().map(of).collect())
            }
            Data::Gauge(gauge) => (Kind::Gauge, gauge.data_points.iter().map(number_of).collect()),
            // There are none among ours.
            _ => return None,
        };
        let unit = match metric.unit.as_str() {
            "s" => "seconds",
            "USD" => "usd",
            "By" => "bytes",
            _ => "",
        };
        Some(Self { name: plain(&metric.name), unit, help: metric.description, kind, series })
    }

    /// Returns the name with its unit.
    fn full_name(&self) -> String {
        match self.unit {
            "" => self.name.clone(),
            unit if self.name.ends_with(&format!("_{unit}")) => self.name.clone(),
            unit => format!("{}_{unit}", self.name),
        }
    }
}

fn text_of(attribute: &KeyValue) -> (String, String) {
    let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    };
    (attribute.key.clone(), value)
}

/// Returns a name with underscores in place of all that Prometheus does not take.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Writes families as text.
pub(super) fn write(families: &[Family], format: Format) -> String {
    let mut out = String::new();
    for family in families {
        write_family(&mut out, family, format);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, family: &Family, format: Format) {
    let name = family.full_name();
    let total = if family.kind == Kind::Counter { "_total" } else { "" };
    // OpenMetrics names the family, the older format its samples.
    let head = if format == Format::OpenMetrics { name.clone() } else { format!("{name}{total}") };
    let _ = writeln!(out, "# TYPE {head} {}", family.kind.as_str());
    if format == Format::OpenMetrics && !family.unit.is_empty() {
        let _ = writeln!(out, "# UNIT {head} {}", family.unit);
    }
    let _ = writeln!(out, "# HELP {head} {}", family.help.replace('\\', "\\\\").replace('\n', "\\n"));
    for series in &family.series {
        let examples = if format == Format::OpenMetrics { &series.examples[..] } else { &[] };
        match &series.value {
            Value::Number(number) => {
                let example = examples.last().filter(|_| family.kind == Kind::Counter);
                write_sample(out, &format!("{name}{total}"), &series.labels, None, *number, example);
            }
            Value::Buckets(bounds, counts, sum) => write_buckets(out, &name, series, (bounds, counts, *sum), examples),
        }
    }
}

fn write_buckets(
    out: &mut String,
    name: &str,
    series: &Series,
    (bounds, counts, sum): (&[f64], &[u64], f64),
    examples: &[Example],
) {
    let (mut below, mut before) = (0, f64::NEG_INFINITY);
    let bucket = format!("{name}_bucket");
    for (place, count) in counts.iter().enumerate() {
        below += count;
        let bound = bounds.get(place).copied().unwrap_or(f64::INFINITY);
        let example = examples.iter().find(|example| example.value > before && example.value <= bound);
        write_sample(out, &bucket, &series.labels, Some(bound), below as f64, example);
        before = bound;
    }
    write_sample(out, &format!("{name}_sum"), &series.labels, None, sum, None);
    write_sample(out, &format!("{name}_count"), &series.labels, None, below as f64, None);
}

fn write_sample(
    out: &mut String,
    name: &str,
    labels: &[(String, String)],
    bound: Option<f64>,
    value: f64,
    example: Option<&Example>,
) {
    out.push_str(name);
    let bound = bound.map(|bound| ("le".to_owned(), number(bound)));
    if !labels.is_empty() || bound.is_some() {
        let pairs = labels.iter().chain(&bound).map(|(key, value)| format!("{}=\"{}\"", plain(key), escaped(value)));
        let _ = write!(out, "{{{}}}", pairs.collect::<Vec<_>>().join(","));
    }
    let _ = write!(out, " {}", number(value));
    if let Some(Example { trace, run, value, at }) = example {
        let seconds = at.0 as f64 / 1e9;
        let _ = write!(out, " # {{trace_id=\"{trace}\",run_id=\"{run}\"}} {} {seconds:.3}", number(*value));
    }
    out.push('\n');
}

fn number(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RunId, TraceId, UnixNanos};

    fn families() -> Vec<Family> {
        let labels = |name: &str| vec![("agent.name".to_owned(), name.to_owned())];
        let example =
            Example { trace: TraceId([1; 16]), run: RunId([2; 16]), value: 0.3, at: UnixNanos(1_500_000_000) };
        let buckets = Value::Buckets(vec![0.1, 0.5], vec![1, 2, 3], 7.25);
        vec![
            Family {
                name: "runs".to_owned(),
                unit: "",
                help: "What \\ has\nended".to_owned(),
                kind: Kind::Counter,
                series: vec![Series {
                    labels: labels("a \"b\"\n\\"),
                    value: Value::Number(3.0),
                    examples: vec![example],
                }],
            },
            Family {
                name: "run_duration".to_owned(),
                unit: "seconds",
                help: "How long".to_owned(),
                kind: Kind::Histogram,
                series: vec![Series { labels: labels("c"), value: buckets, examples: vec![example] }],
            },
            Family {
                name: "memory_bytes".to_owned(),
                unit: "bytes",
                help: "In use".to_owned(),
                kind: Kind::Gauge,
                series: vec![Series { labels: Vec::new(), value: Value::Number(12.5), examples: Vec::new() }],
            },
        ]
    }

    #[test]
    fn openmetrics_has_families_units_and_examples() {
        insta::assert_snapshot!(write(&families(), Format::OpenMetrics), @r#"
        # TYPE runs counter
        # HELP runs What \\ has\nended
        runs_total{agent_name="a \"b\"\n\\"} 3 # {trace_id="01010101010101010101010101010101",run_id="02081040G2081040G2081040G2"} 0.3 1.500
        # TYPE run_duration_seconds histogram
        # UNIT run_duration_seconds seconds
        # HELP run_duration_seconds How long
        run_duration_seconds_bucket{agent_name="c",le="0.1"} 1
        run_duration_seconds_bucket{agent_name="c",le="0.5"} 3 # {trace_id="01010101010101010101010101010101",run_id="02081040G2081040G2081040G2"} 0.3 1.500
        run_duration_seconds_bucket{agent_name="c",le="+Inf"} 6
        run_duration_seconds_sum{agent_name="c"} 7.25
        run_duration_seconds_count{agent_name="c"} 6
        # TYPE memory_bytes gauge
        # UNIT memory_bytes bytes
        # HELP memory_bytes In use
        memory_bytes 12.5
        # EOF
        "#);
    }

    #[test]
    fn the_older_format_names_samples_and_has_no_examples() {
        insta::assert_snapshot!(write(&families(), Format::Classic), @r#"
        # TYPE runs_total counter
        # HELP runs_total What \\ has\nended
        runs_total{agent_name="a \"b\"\n\\"} 3
        # TYPE run_duration_seconds histogram
        # HELP run_duration_seconds How long
        run_duration_seconds_bucket{agent_name="c",le="0.1"} 1
        run_duration_seconds_bucket{agent_name="c",le="0.5"} 3
        run_duration_seconds_bucket{agent_name="c",le="+Inf"} 6
        run_duration_seconds_sum{agent_name="c"} 7.25
        run_duration_seconds_count{agent_name="c"} 6
        # TYPE memory_bytes gauge
        # HELP memory_bytes In use
        memory_bytes 12.5
        "#);
    }

    #[test]
    fn the_client_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::of(prometheus), Format::OpenMetrics);
        assert_eq!(Format::of("application/openmetrics-text; q=0.3, text/plain; q=0.9"), Format::Classic);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "application/openmetrics-text;q=x"]
        {
            assert_eq!(Format::of(accept), Format::Classic, "{accept}");
        }
    }
}
