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
mod tests;
