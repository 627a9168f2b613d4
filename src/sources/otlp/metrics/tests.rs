use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    NumberDataPoint, Sum, Summary, SummaryDataPoint, exemplar, number_data_point,
};
use prost::Message as _;

use super::*;

fn written(json: &str) -> Result<(ExportMetricsServiceRequest, Option<String>), String> {
    let (bytes, warning) = metrics_as_protobuf(json.as_bytes()).map_err(|bad| bad.to_string())?;
    Ok((ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap(), warning))
}

/// A metric with these data, as the only one of a request.
fn metric(data: &str) -> String {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m",{data}}}]}}]}}]}}"#)
}

#[test]
fn lists_that_a_request_names_twice_are_one_list() {
    let text = r#"{"resource_metrics":[{"scopeMetrics":[{"metrics":[{"name":"a"}],"metrics":[{"name":"b"}]}]}],
        "resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"c","gauge":{"dataPoints":[{"asInt":1,"attributes":[{"key":"k"}],"attributes":[{"key":"l"}]}],"dataPoints":[{}]}}]}]}]}"#;
    let (request, warning) = written(text).unwrap();
    let metrics: Vec<_> = request
        .resource_metrics
        .iter()
        .flat_map(|of_resource| &of_resource.scope_metrics)
        .flat_map(|of_scope| &of_scope.metrics)
        .collect();
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let Some(Data::Gauge(Gauge { data_points })) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
    assert_eq!((names, data_points.len(), data_points[0].attributes.len()), (vec!["a", "b", "c"], 2, 2));
    assert!(warning.unwrap().contains("resource_metrics"));
}

#[test]
fn everything_that_metrics_may_hold_is_written() {
    let head = r#""attributes":[{"key":"k","value":{"stringValue":"v"}}],"startTimeUnixNano":"1","timeUnixNano":"18446744073709551615","flags":1"#;
    let exemplars = r#""exemplars":[{"timeUnixNano":"5","asDouble":0.5,"spanId":"0102030405060708","traceId":"000102030405060708090a0b0c0d0e0f","filteredAttributes":[{"key":"f","value":{"intValue":"-3"}}]}]"#;
    let attribute = |key: &str, value| {
        let value = common::AnyValue { value: Some(value) };
        vec![common::KeyValue { key: key.to_owned(), value: Some(value), ..common::KeyValue::default() }]
    };
    let attributes = attribute("k", common::any_value::Value::StringValue("v".to_owned()));
    let exemplar = Exemplar {
        filtered_attributes: attribute("f", common::any_value::Value::IntValue(-3)),
        time_unix_nano: 5,
        span_id: vec![1, 2, 3, 4, 5, 6, 7, 8],
        trace_id: (0..16).collect(),
        value: Some(exemplar::Value::AsDouble(0.5)),
    };
    let number = |value| NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: 1,
        time_unix_nano: u64::MAX,
        flags: 1,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    let sum = |value| {
        let data_points = vec![NumberDataPoint { exemplars: vec![exemplar.clone()], ..number(value) }];
        Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true })
    };
    let gauge = |value| Data::Gauge(Gauge { data_points: vec![number(value)] });
    let of_sum = |value: &str| {
        format!(
            r#""sum":{{"dataPoints":[{{{head},{value},{exemplars}}}],"aggregationTemporality":2,"isMonotonic":true}}"#
        )
    };
    let of_gauge = |value: &str| format!(r#""gauge":{{"dataPoints":[{{{head},{value}}}]}}"#);
    let of_histogram = format!(
        r#""histogram":{{"dataPoints":[{{{head},"count":"3","sum":0,"bucketCounts":["1",2,"0"],"explicitBounds":[0.5,10],"min":0,"max":"Infinity",{exemplars}}}],"aggregationTemporality":1}}"#
    );
    let histogram = HistogramDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: 1,
        time_unix_nano: u64::MAX,
        count: 3,
        sum: Some(0.0),
        bucket_counts: vec![1, 2, 0],
        explicit_bounds: vec![0.5, 10.0],
        exemplars: vec![exemplar.clone()],
        flags: 1,
        min: Some(0.0),
        max: Some(f64::INFINITY),
    };
    let of_exponential = format!(
        r#""exponentialHistogram":{{"dataPoints":[{{{head},"count":3,"sum":1e300,"scale":-3,"zeroCount":"1","positive":{{"offset":-2147483648,"bucketCounts":["1","300"]}},"negative":{{"offset":2}},"zeroThreshold":1e-9}}]}}"#
    );
    let exponential = ExponentialHistogramDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: 1,
        time_unix_nano: u64::MAX,
        count: 3,
        sum: Some(1e300),
        scale: -3,
        zero_count: 1,
        positive: Some(Buckets { offset: i32::MIN, bucket_counts: vec![1, 300] }),
        negative: Some(Buckets { offset: 2, bucket_counts: Vec::new() }),
        flags: 1,
        zero_threshold: 1e-9,
        ..ExponentialHistogramDataPoint::default()
    };
    let of_summary = format!(
        r#""summary":{{"dataPoints":[{{{head},"count":"3","sum":4.5,"quantileValues":[{{"quantile":0.5,"value":-1}},{{}}]}}]}}"#
    );
    let summary = SummaryDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: 1,
        time_unix_nano: u64::MAX,
        count: 3,
        sum: 4.5,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: -1.0 }, ValueAtQuantile::default()],
        flags: 1,
    };
    for (json, wanted) in [
        (of_sum(r#""asInt":"-9223372036854775808""#), sum(number_data_point::Value::AsInt(i64::MIN))),
        (of_sum(r#""asInt":0"#), sum(number_data_point::Value::AsInt(0))),
        (of_gauge(r#""asDouble":1"#), gauge(number_data_point::Value::AsDouble(1.0))),
        (of_gauge(r#""asDouble":"-Infinity""#), gauge(number_data_point::Value::AsDouble(f64::NEG_INFINITY))),
        (of_histogram, Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 })),
        (
            of_exponential,
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 0,
            }),
        ),
        (of_summary, Data::Summary(Summary { data_points: vec![summary] })),
    ] {
        let (request, warning) = written(&metric(&json)).unwrap();
        let data = request.resource_metrics[0].scope_metrics[0].metrics[0].data.clone();
        assert_eq!((data, warning), (Some(wanted), None), "{json}");
    }
}

#[test]
fn what_stands_around_metrics_is_written_and_senders_may_be_careless() {
    let (request, warning) = written(
        r#"{"future":{"a":[1]},"resource_metrics":[null,{"resource":{"attributes":[{"key":"service.name","value":{"string_value":"s"}}],"droppedAttributesCount":2},
            "schemaUrl":"r","scopeMetrics":[{"scope":{"name":"lib","version":null},"schemaUrl":"c",
            "metrics":[{"name":"a","description":"b","unit":"By","gauge":null,"metadata":[{"key":"m"}]}]}]}]}"#,
    )
    .unwrap();
    let of_resource = &request.resource_metrics[0];
    let resource = of_resource.resource.as_ref().unwrap();
    assert_eq!((resource.attributes[0].key.as_str(), resource.dropped_attributes_count), ("service.name", 2));
    let of_scope = &of_resource.scope_metrics[0];
    let metric = &of_scope.metrics[0];
    assert_eq!(
        [&of_resource.schema_url, &of_scope.schema_url, &metric.name, &metric.description, &metric.unit],
        ["r", "c", "a", "b", "By"]
    );
    assert_eq!((of_scope.scope.as_ref().unwrap().name.as_str(), metric.metadata[0].key.as_str()), ("lib", "m"));
    insta::assert_snapshot!(
        warning.unwrap(),
        @r#"2 names are written with underscores, "resource_metrics" first: OTLP JSON has lowerCamelCase"#
    );
    for empty in ["", " \n", "{}", "null", r#"{"resourceMetrics":null}"#] {
        assert_eq!(metrics_as_protobuf(empty.as_bytes()).unwrap(), (Vec::new(), None), "{empty:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let why = |json: &str| written(json).unwrap_err();
    let all = [
        why("[]"),
        why("{"),
        why(r#"{"resourceMetrics":{}}"#),
        why(&metric(r#""sum":{"dataPoints":[{"asInt":"1.5"}]}"#)),
        why(&metric(r#""sum":{"dataPoints":[{"timeUnixNano":-1}]}"#)),
        why(&metric(r#""gauge":{"dataPoints":[{"exemplars":[{"traceId":"zz"}]}]}"#)),
        why(&metric(r#""gauge":{"dataPoints":[{"attributes":[7]}]}"#)),
        why("{} x"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    the body is not an OTLP export request in JSON: invalid type: sequence, expected an object at line 1 column 2
    the body is not an OTLP export request in JSON: EOF while parsing an object at line 1 column 1
    the body is not an OTLP export request in JSON: resourceMetrics: invalid type: map, expected a list at line 1 column 21
    the body is not an OTLP export request in JSON: resourceMetrics: scopeMetrics: metrics: sum: dataPoints: asInt: "1.5" is not a whole number at line 1 column 97
    the body is not an OTLP export request in JSON: resourceMetrics: scopeMetrics: metrics: sum: dataPoints: timeUnixNano: -1 is not a whole number at line 1 column 101
    the body is not an OTLP export request in JSON: resourceMetrics: scopeMetrics: metrics: gauge: dataPoints: exemplars: traceId: "zz" is not an id in hex at line 1 column 114
    the body is not an OTLP export request in JSON: resourceMetrics: scopeMetrics: metrics: gauge: dataPoints: attributes: invalid type: integer `7`, expected struct KeyValue at line 1 column 101
    the body is not an OTLP export request in JSON: trailing characters at line 1 column 4
    "#);
}
