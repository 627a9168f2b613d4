//! Metrics as OTLP JSON, written anew as the protobuf that they mean, since that is what goes on to others.
//!
//! The tables below are all that is known of metrics here. The text is read once and nothing is kept of it but what was
//! written, so a request takes no more memory than its two forms.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::BadBody;
use super::json::{Key, Names, camel, lenient, malformed};
use crate::model::otlp::{KeyValue, Resource, Scope, hex};
use crate::model::wire::{Field, put};

/// A member of a message: its name in JSON, its number in protobuf, and what it holds.
struct Member {
    name: &'static str,
    number: u32,
    kind: Kind,
    is_list: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    /// An enum, or an integer of 32 bits without a sign.
    Number,
    /// The same with a sign, as protobuf's `sint32`.
    Signed,
    /// An integer of 64 bits without a sign, of no fixed length.
    Long,
    Fixed,
    SignedFixed,
    Double,
    /// An id in hex.
    Id,
    Message(&'static [Member]),
    /// A message that spans have as well.
    Model(fn(&str, &mut Names) -> Result<Vec<u8>, serde_json::Error>),
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Member {
    Member { name, number, kind, is_list: false }
}

const fn list(name: &'static str, number: u32, kind: Kind) -> Member {
    Member { name, number, kind, is_list: true }
}

fn of_spans<M: prost::Message + DeserializeOwned>(text: &str, names: &mut Names) -> Result<Vec<u8>, serde_json::Error> {
    lenient::<M>(text, names).map(|message| message.encode_to_vec())
}

const ATTRIBUTE: Kind = Kind::Model(of_spans::<KeyValue>);

/// Source of all tables: `opentelemetry/proto/metrics/v1/metrics.proto` and its service, 1.10.
const REQUEST: &[Member] = &[list("resourceMetrics", 1, Kind::Message(RESOURCE_METRICS))];
const RESOURCE_METRICS: &[Member] = &[
    one("resource", 1, Kind::Model(of_spans::<Resource>)),
    list("scopeMetrics", 2, Kind::Message(SCOPE_METRICS)),
    one("schemaUrl", 3, Kind::Text),
];
const SCOPE_METRICS: &[Member] = &[
    one("scope", 1, Kind::Model(of_spans::<Scope>)),
    list("metrics", 2, Kind::Message(METRIC)),
    one("schemaUrl", 3, Kind::Text),
];
const METRIC: &[Member] = &[
    one("name", 1, Kind::Text),
    one("description", 2, Kind::Text),
    one("unit", 3, Kind::Text),
    one("gauge", 5, Kind::Message(&[list("dataPoints", 1, Kind::Message(NUMBER_POINT))])),
    one(
        "sum",
        7,
        Kind::Message(&[
            list("dataPoints", 1, Kind::Message(NUMBER_POINT)),
            one("aggregationTemporality", 2, Kind::Number),
            one("isMonotonic", 3, Kind::Bool),
        ]),
    ),
    one(
        "histogram",
        9,
        Kind::Message(&[
            list("dataPoints", 1, Kind::Message(HISTOGRAM_POINT)),
            one("aggregationTemporality", 2, Kind::Number),
        ]),
    ),
    one(
        "exponentialHistogram",
        10,
        Kind::Message(&[
            list("dataPoints", 1, Kind::Message(EXPONENTIAL_POINT)),
            one("aggregationTemporality", 2, Kind::Number),
        ]),
    ),
    one("summary", 11, Kind::Message(&[list("dataPoints", 1, Kind::Message(SUMMARY_POINT))])),
    list("metadata", 12, ATTRIBUTE),
];
const NUMBER_POINT: &[Member] = &[
    one("startTimeUnixNano", 2, Kind::Fixed),
    one("timeUnixNano", 3, Kind::Fixed),
    one("asDouble", 4, Kind::Double),
    list("exemplars", 5, Kind::Message(EXEMPLAR)),
    one("asInt", 6, Kind::SignedFixed),
    list("attributes", 7, ATTRIBUTE),
    one("flags", 8, Kind::Number),
];
const HISTOGRAM_POINT: &[Member] = &[
    one("startTimeUnixNano", 2, Kind::Fixed),
    one("timeUnixNano", 3, Kind::Fixed),
    one("count", 4, Kind::Fixed),
    one("sum", 5, Kind::Double),
    list("bucketCounts", 6, Kind::Fixed),
    list("explicitBounds", 7, Kind::Double),
    list("exemplars", 8, Kind::Message(EXEMPLAR)),
    list("attributes", 9, ATTRIBUTE),
    one("flags", 10, Kind::Number),
    one("min", 11, Kind::Double),
    one("max", 12, Kind::Double),
];
const EXPONENTIAL_POINT: &[Member] = &[
    list("attributes", 1, ATTRIBUTE),
    one("startTimeUnixNano", 2, Kind::Fixed),
    one("timeUnixNano", 3, Kind::Fixed),
    one("count", 4, Kind::Fixed),
    one("sum", 5, Kind::Double),
    one("scale", 6, Kind::Signed),
    one("zeroCount", 7, Kind::Fixed),
    one("positive", 8, Kind::Message(BUCKETS)),
    one("negative", 9, Kind::Message(BUCKETS)),
    one("flags", 10, Kind::Number),
    list("exemplars", 11, Kind::Message(EXEMPLAR)),
    one("min", 12, Kind::Double),
    one("max", 13, Kind::Double),
    one("zeroThreshold", 14, Kind::Double),
];
const BUCKETS: &[Member] = &[one("offset", 1, Kind::Signed), list("bucketCounts", 2, Kind::Long)];
const SUMMARY_POINT: &[Member] = &[
    one("startTimeUnixNano", 2, Kind::Fixed),
    one("timeUnixNano", 3, Kind::Fixed),
    one("count", 4, Kind::Fixed),
    one("sum", 5, Kind::Double),
    list("quantileValues", 6, Kind::Message(&[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)])),
    list("attributes", 7, ATTRIBUTE),
    one("flags", 8, Kind::Number),
];
const EXEMPLAR: &[Member] = &[
    one("timeUnixNano", 2, Kind::Fixed),
    one("asDouble", 3, Kind::Double),
    one("spanId", 4, Kind::Id),
    one("traceId", 5, Kind::Id),
    one("asInt", 6, Kind::SignedFixed),
    list("filteredAttributes", 7, ATTRIBUTE),
];

/// Writes a request of metrics in JSON as protobuf; the second is what its sender should know of it.
///
/// # Errors
///
/// [`BadBody::Malformed`], and then nothing of it can be taken.
pub fn metrics_as_protobuf(body: &[u8]) -> Result<(Vec<u8>, Option<String>), BadBody> {
    let (mut out, mut names) = (Vec::new(), Names::default());
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok((out, None));
    }
    let text = std::str::from_utf8(body).map_err(|error| malformed("it", &error))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let written = Message { members: REQUEST, out: &mut out, names: &mut names }.deserialize(&mut deserializer);
    written.and_then(|_| deserializer.end()).map_err(|error| malformed("it", &error))?;
    Ok((out, names.warning()))
}

/// Writes the members of a message; false for `null`.
struct Message<'a> {
    members: &'static [Member],
    out: &'a mut Vec<u8>,
    names: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let Some(member) = self.members.iter().find(|member| member.name == key || camel(&key) == member.name)
            else {
                // OTLP has receivers pass over what they do not know.
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if member.name != key {
                self.names.note(&key);
            }
            map.next_value_seed(Content { member, out: self.out, names: self.names })
                .map_err(|error| de::Error::custom(format_args!("{}: {error}", member.name)))?;
        }
        Ok(true)
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// Writes what a member holds.
struct Content<'a> {
    member: &'static Member,
    out: &'a mut Vec<u8>,
    names: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.member.is_list {
            return deserializer.deserialize_any(self);
        }
        let Self { member: Member { number, kind, .. }, out, names } = self;
        Single { kind: *kind, key: Some(*number), out, names }.deserialize(deserializer)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { member: Member { number, kind, .. }, out, names } = self;
        if matches!(kind, Kind::Message(_) | Kind::Model(_)) {
            while items.next_element_seed(Single { kind: *kind, key: Some(*number), out, names })?.is_some() {}
            return Ok(());
        }
        // Numbers of a list stand together, under one key.
        let mut packed = Vec::new();
        while items.next_element_seed(Single { kind: *kind, key: None, out: &mut packed, names })?.is_some() {}
        put(out, *number, Field::Bytes(&packed));
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Writes one value, behind its key if it has one; `null` is none.
struct Single<'a> {
    kind: Kind,
    key: Option<u32>,
    out: &'a mut Vec<u8>,
    names: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Single<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { kind, key, out, names } = self;
        let mut write = |value: Field<'_>| match (key, value) {
            (Some(number), value) => put(out, number, value),
            (None, Field::Varint(number)) => prost::encoding::encode_varint(number, out),
            (None, Field::Fixed64(bytes)) => out.extend_from_slice(&bytes),
            (None, Field::Bytes(bytes)) => out.extend_from_slice(bytes),
            (None, Field::Fixed32(bytes)) => out.extend_from_slice(&bytes),
        };
        match kind {
            Kind::Message(members) => {
                let mut inner = Vec::new();
                if (Message { members, out: &mut inner, names }).deserialize(deserializer)? {
                    write(Field::Bytes(&inner));
                }
                return Ok(());
            }
            Kind::Model(read) => {
                let raw = <&RawValue>::deserialize(deserializer)?;
                if raw.get() != "null" {
                    let bytes = read(raw.get(), names).map_err(de::Error::custom)?;
                    write(Field::Bytes(&bytes));
                }
                return Ok(());
            }
            _ => {}
        }
        let Some(scalar) = Option::<Scalar<'de>>::deserialize(deserializer)? else { return Ok(()) };
        let wrong = |wanted: &str| de::Error::custom(format_args!("{scalar} is not {wanted}"));
        match kind {
            Kind::Text => write(Field::Bytes(scalar.text().ok_or_else(|| wrong("text"))?.as_bytes())),
            Kind::Id => write(Field::Bytes(&scalar.text().and_then(hex::decode).ok_or_else(|| wrong("an id in hex"))?)),
            Kind::Bool => write(Field::Varint(u64::from(scalar.flag().ok_or_else(|| wrong("true or false"))?))),
            Kind::Number => write(Field::Varint(u64::from(
                scalar.whole().and_then(|number| u32::try_from(number).ok()).ok_or_else(|| wrong("a small number"))?,
            ))),
            Kind::Signed => {
                let number = scalar.whole().and_then(|number| i32::try_from(number).ok());
                let number = number.ok_or_else(|| wrong("a small number"))?;
                // Zigzag, as protobuf has it.
                write(Field::Varint(u64::from(((number << 1) ^ (number >> 31)) as u32)));
            }
            Kind::Long | Kind::Fixed => {
                let number = scalar.whole().and_then(|number| u64::try_from(number).ok());
                let number = number.ok_or_else(|| wrong("a whole number"))?;
                write(if matches!(kind, Kind::Long) {
                    Field::Varint(number)
                } else {
                    Field::Fixed64(number.to_le_bytes())
                });
            }
            Kind::SignedFixed => {
                let number = scalar.whole().and_then(|number| i64::try_from(number).ok());
                write(Field::Fixed64(number.ok_or_else(|| wrong("a whole number"))?.to_le_bytes()));
            }
            Kind::Double => write(Field::Fixed64(scalar.float().ok_or_else(|| wrong("a number"))?.to_le_bytes())),
            Kind::Message(_) | Kind::Model(_) => {}
        }
        Ok(())
    }
}

/// A plain value. Numbers of 64 bits come as text, and so do those that JSON has no number for.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Flag(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{:?}", text.chars().take(64).collect::<String>()),
        }
    }
}

impl Scalar<'_> {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Unsigned(number) => Some(i128::from(*number)),
            Self::Signed(number) => Some(i128::from(*number)),
            // Some languages have no other numbers; what is beyond 2^53 they cannot mean exactly.
            Self::Float(number) => (number.fract() == 0.0 && number.abs() < 9.1e15).then_some(*number as i128),
            Self::Text(text) => text.parse().ok(),
            Self::Flag(_) => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Flag(_) => None,
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
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
        the body is not an OTLP export request in JSON: it: invalid type: sequence, expected an object at line 1 column 2
        the body is not an OTLP export request in JSON: it: EOF while parsing an object at line 1 column 1
        the body is not an OTLP export request in JSON: it: resourceMetrics: invalid type: map, expected a list at line 1 column 21
        the body is not an OTLP export request in JSON: it: resourceMetrics: scopeMetrics: metrics: sum: dataPoints: asInt: "1.5" is not a whole number at line 1 column 97
        the body is not an OTLP export request in JSON: it: resourceMetrics: scopeMetrics: metrics: sum: dataPoints: timeUnixNano: -1 is not a whole number at line 1 column 101
        the body is not an OTLP export request in JSON: it: resourceMetrics: scopeMetrics: metrics: gauge: dataPoints: exemplars: traceId: "zz" is not an id in hex at line 1 column 114
        the body is not an OTLP export request in JSON: it: resourceMetrics: scopeMetrics: metrics: gauge: dataPoints: attributes: invalid type: integer `7`, expected struct KeyValue at line 1 column 101
        the body is not an OTLP export request in JSON: it: trailing characters at line 1 column 4
        "#);
    }
}
