//! The OTLP trace messages, as protobuf and as OTLP JSON.
//!
//! Field numbers are those of `opentelemetry-proto` v1; JSON follows the OTLP/HTTP rules: lowerCamelCase keys, ids
//! in hex, 64-bit integers as strings, enums as integers. Non-finite doubles are written as `"NaN"`, `"Infinity"`
//! and `"-Infinity"`, as protobuf JSON has it, so that nothing turns into `null`.
//!
//! Only messages that runspan reads or writes are here. The published message crate would bring the OpenTelemetry
//! SDK into a library whose default build needs none of it.

use serde::de::MapAccess;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// The body of an export request, and the file format `TracesData`: both have this one field.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TracesData {
    /// Spans grouped by the process that made them.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// Spans of one resource.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceSpans {
    /// The process, host or service that made the spans.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Spans grouped by the code that made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
    /// The schema of the resource's attribute names.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_url: String,
}

/// Spans of one instrumentation scope; the payload of a journal frame, with one span in it.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSpans {
    /// The library or module that made the spans.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
    /// The schema of the spans' attribute names.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_url: String,
}

/// Who made a span: a process, a host, a service.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    /// `service.name` and the like.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

/// Which code made a span.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    /// Name of the library; for plain `tracing` spans their target.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Version of the library.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Further facts about the library.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "4")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

/// One span: a step of a run, or a plain operation around one.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(with = "hex")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(with = "hex")]
    pub span_id: Vec<u8>,
    /// W3C `tracestate`.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_state: String,
    /// 8 bytes, or empty for a root.
    #[prost(bytes = "vec", tag = "4")]
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub parent_span_id: Vec<u8>,
    /// Bits 0-7: W3C flags; 0x100: it is known whether the parent is remote; 0x200: it is.
    #[prost(fixed32, tag = "16")]
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// The operation's name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    #[prost(int32, tag = "6")]
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub kind: i32,
    /// Nanoseconds since the epoch.
    #[prost(fixed64, tag = "7")]
    #[serde(with = "u64_text")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the epoch; 0 while the span is open.
    #[prost(fixed64, tag = "8")]
    #[serde(with = "u64_text", skip_serializing_if = "is_zero_u64")]
    pub end_time_unix_nano: u64,
    /// What is known of the operation.
    #[prost(message, repeated, tag = "9")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "10")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
    /// What happened during the operation.
    #[prost(message, repeated, tag = "11")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<SpanEvent>,
    /// How many events the sender left out.
    #[prost(uint32, tag = "12")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_events_count: u32,
    /// Causes other than the parent.
    #[prost(message, repeated, tag = "13")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// How many links the sender left out.
    #[prost(uint32, tag = "14")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_links_count: u32,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Something that happened during a span.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpanEvent {
    /// Nanoseconds since the epoch.
    #[prost(fixed64, tag = "1")]
    #[serde(with = "u64_text")]
    pub time_unix_nano: u64,
    /// What happened.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The particulars.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "4")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

/// A cause of a span in another trace or branch.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(with = "hex")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(with = "hex")]
    pub span_id: Vec<u8>,
    /// W3C `tracestate`.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_state: String,
    /// The particulars.
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "5")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
    /// As in [`Span::flags`].
    #[prost(fixed32, tag = "6")]
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
}

/// How a span ended.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The reason, of an error only.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// 0 unset, 1 ok, 2 error.
    #[prost(int32, tag = "3")]
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub code: i32,
}

/// [`Status::code`] of a span that says neither.
pub const STATUS_UNSET: i32 = 0;
/// [`Status::code`] of a failed span.
pub const STATUS_ERROR: i32 = 2;

/// One record of a log.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRecord {
    /// When it happened, in nanoseconds since the epoch; 0 where that is not known.
    #[prost(fixed64, tag = "1")]
    #[serde(with = "u64_text")]
    pub time_unix_nano: u64,
    /// When it was seen.
    #[prost(fixed64, tag = "11")]
    #[serde(with = "u64_text", skip_serializing_if = "is_zero_u64")]
    pub observed_time_unix_nano: u64,
    /// 1 to 4 for trace, up to 8 for debug, 12 for info, 16 for warnings, 20 for errors, 24 for what is fatal; 0 where that is
    /// not known.
    #[prost(int32, tag = "2")]
    #[serde(deserialize_with = "severity", skip_serializing_if = "is_zero_i32")]
    pub severity_number: i32,
    /// `ERROR`, `WARN`, `INFO`, ...
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity_text: String,
    /// What it says.
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<AnyValue>,
    /// The particulars.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// How many attributes the sender left out.
    #[prost(uint32, tag = "7")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
    /// Bits 0-7: W3C flags.
    #[prost(fixed32, tag = "8")]
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// 16 bytes, or empty.
    #[prost(bytes = "vec", tag = "9")]
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub trace_id: Vec<u8>,
    /// 8 bytes, or empty.
    #[prost(bytes = "vec", tag = "10")]
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub span_id: Vec<u8>,
    /// What happened, where it is an event.
    #[prost(string, tag = "12")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub event_name: String,
}

/// One attribute.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// The name, dotted by convention.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value; absent is legal and means empty.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value of an attribute: a scalar, bytes, a list or a map.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    /// The value, or nothing.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<Value>,
}

/// What an [`AnyValue`] holds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    String(String),
    /// True or false.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// A float.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A list.
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    /// A map.
    #[prost(message, tag = "6")]
    KvList(KvList),
    /// Bytes.
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

/// A list of values.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ArrayValue {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// A map, in the sender's order.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct KvList {
    /// The entries.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<KeyValue>,
}

impl Span {
    /// Returns about how many bytes a span takes as protobuf: bounds need no more, and the exact length is not cheap.
    pub(crate) fn about_len(&self) -> u64 {
        let texts = |attributes: &[KeyValue]| -> usize {
            let length = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::String(text)) => text.len(),
                Some(Value::Bytes(bytes)) => bytes.len(),
                Some(nested @ (Value::Array(_) | Value::KvList(_))) => nested.encoded_len(),
                Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => 0,
            };
            attributes.iter().map(|attribute| 16 + attribute.key.len() + length(attribute)).sum()
        };
        let events: usize = self.events.iter().map(|event| 32 + event.name.len() + texts(&event.attributes)).sum();
        let links: usize = self.links.iter().map(|link| 64 + texts(&link.attributes)).sum();
        (96 + self.name.len() + texts(&self.attributes) + events + links) as u64
    }

    /// Returns the value of an attribute, the last one where a key occurs twice.
    pub fn attr(&self, key: &str) -> Option<&Value> {
        find(&self.attributes, key)
    }

    /// Returns an attribute's text.
    pub fn attr_str(&self, key: &str) -> Option<&str> {
        self.attr(key).and_then(Value::as_str)
    }

    /// Sets an attribute, replacing what stood under the key.
    pub fn set_attr(&mut self, key: &str, value: impl Into<Value>) {
        set(&mut self.attributes, key, value.into());
    }

    /// Tells whether the status says error.
    pub fn is_error(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.code == STATUS_ERROR)
    }
}

impl Resource {
    /// Returns the value of an attribute.
    pub fn attr(&self, key: &str) -> Option<&Value> {
        find(&self.attributes, key)
    }
}

impl SpanEvent {
    /// Returns the value of an attribute.
    pub fn attr(&self, key: &str) -> Option<&Value> {
        find(&self.attributes, key)
    }
}

/// Finds the last value under `key`.
pub fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().rev().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

/// Sets the value under `key`, replacing all that stood there.
pub fn set(attributes: &mut Vec<KeyValue>, key: &str, value: Value) {
    let value = Some(AnyValue { value: Some(value) });
    match attributes.iter_mut().rev().find(|attribute| attribute.key == key) {
        Some(attribute) => attribute.value = value,
        None => attributes.push(KeyValue { key: key.to_owned(), value }),
    }
}

impl Value {
    /// Returns the text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a whole number, also one that arrived as text (`"211"`) or as a float without a fraction.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::String(text) => {
                let text = text.trim();
                text.parse().ok().or_else(|| Self::Double(text.parse().ok()?).as_i64())
            }
            // Beyond 2^53 a float no longer names one integer.
            Self::Double(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
                Some(*number as i64)
            }
            _ => None,
        }
    }

    /// Returns a number, also one that arrived as text.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            Self::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Returns the value as plain JSON: text as text, lists and maps as lists and maps.
    ///
    /// Text that is itself a JSON object or array is parsed, because emitters that cannot send structure send it as
    /// text. Bytes become base64 text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::String(text) if text.trim_start().starts_with(['{', '[']) => {
                serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))
            }
            Self::String(text) => Json::String(text.clone()),
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Int(number) => Json::from(*number),
            Self::Double(number) => serde_json::Number::from_f64(*number)
                .map_or_else(|| Json::String(float_text(*number).to_owned()), Json::Number),
            Self::Array(list) => Json::Array(list.values.iter().map(AnyValue::to_json).collect()),
            Self::KvList(map) => Json::Object(
                map.values
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.as_ref().map_or(Json::Null, AnyValue::to_json)))
                    .collect(),
            ),
            Self::Bytes(bytes) => Json::String(base64::encode(bytes)),
        }
    }
}

impl AnyValue {
    fn to_json(&self) -> serde_json::Value {
        self.value.as_ref().map_or(serde_json::Value::Null, Value::to_json)
    }
}

impl From<Value> for AnyValue {
    fn from(value: Value) -> Self {
        Self { value: Some(value) }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl Serialize for AnyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(usize::from(self.value.is_some())))?;
        match &self.value {
            None => {}
            Some(Value::String(text)) => map.serialize_entry("stringValue", text)?,
            Some(Value::Bool(flag)) => map.serialize_entry("boolValue", flag)?,
            Some(Value::Int(number)) => map.serialize_entry("intValue", &number.to_string())?,
            Some(Value::Double(number)) if number.is_finite() => map.serialize_entry("doubleValue", number)?,
            Some(Value::Double(number)) => map.serialize_entry("doubleValue", float_text(*number))?,
            Some(Value::Array(list)) => map.serialize_entry("arrayValue", list)?,
            Some(Value::KvList(entries)) => map.serialize_entry("kvlistValue", entries)?,
            Some(Value::Bytes(bytes)) => map.serialize_entry("bytesValue", &base64::encode(bytes))?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The types, in the order in which they count where several are given.
        #[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
        #[serde(field_identifier, rename_all = "camelCase")]
        enum Type {
            StringValue,
            BoolValue,
            IntValue,
            DoubleValue,
            ArrayValue,
            KvlistValue,
            BytesValue,
            #[serde(other)]
            Unknown,
        }

        /// A value, or what is wrong with one that may not count.
        type Read = Result<Value, &'static str>;

        fn read<'de, A: MapAccess<'de>>(map: &mut A, as_type: Type) -> Result<Option<Read>, A::Error> {
            let number = |map: &mut A| map.next_value::<Option<Number>>();
            Ok(match as_type {
                Type::StringValue => map.next_value::<Option<String>>()?.map(|text| Ok(Value::String(text))),
                Type::BoolValue => map.next_value::<Option<bool>>()?.map(|flag| Ok(Value::Bool(flag))),
                Type::IntValue => {
                    number(map)?.map(|number| number.as_i64().map(Value::Int).ok_or("intValue is not a 64-bit integer"))
                }
                Type::DoubleValue => {
                    number(map)?.map(|number| number.as_f64().map(Value::Double).ok_or("doubleValue is not a number"))
                }
                Type::ArrayValue => map.next_value::<Option<ArrayValue>>()?.map(|list| Ok(Value::Array(list))),
                Type::KvlistValue => map.next_value::<Option<KvList>>()?.map(|entries| Ok(Value::KvList(entries))),
                Type::BytesValue => map
                    .next_value::<Option<String>>()?
                    .map(|text| base64::decode(&text).map(Value::Bytes).ok_or("bytesValue is not base64")),
                Type::Unknown => {
                    map.next_value::<de::IgnoredAny>()?;
                    None
                }
            })
        }

        struct Any;
        impl<'de> de::Visitor<'de> for Any {
            type Value = AnyValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value of an attribute")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
                let mut found: Option<(Type, Read)> = None;
                let mut given = [false; Type::Unknown as usize];
                while let Some(as_type) = map.next_key::<Type>()? {
                    if given.get_mut(as_type as usize).is_some_and(|given| std::mem::replace(given, true)) {
                        return Err(de::Error::custom("a type of value stands there twice"));
                    }
                    if let Some(value) = read(&mut map, as_type)?
                        && found.as_ref().is_none_or(|(other, _)| as_type < *other)
                    {
                        found = Some((as_type, value));
                    }
                }
                let value = found.map(|(_, value)| value).transpose().map_err(de::Error::custom)?;
                Ok(AnyValue { value })
            }
        }
        deserializer.deserialize_map(Any)
    }
}

/// A number as OTLP JSON has it: plain, or as text.
enum Number {
    Int(i64),
    Float(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or one as text")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Int(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(i64::try_from(number).map_or(Number::Float(number as f64), Number::Int))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number::Float(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Number {
    fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(number) => Value::Double(*number).as_i64(),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// Returns the word for a float that JSON has no number for.
pub(super) fn float_text(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_zero_i32(number: &i32) -> bool {
    *number == 0
}

fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}

/// Reads a severity, also by its name in the `.proto` file, as some senders write enums: what is neither is not known.
fn severity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    const WORDS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let named = |text: &str| {
        let name = text.strip_prefix("SEVERITY_NUMBER_")?;
        let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let place = i32::try_from(WORDS.iter().position(|known| *known == word)?).ok()?;
        let step = if word == name { 1 } else { name[word.len()..].parse().ok()? };
        Some(4 * place + step)
    };
    Ok(match Option::<Number>::deserialize(deserializer)? {
        Some(Number::Text(text)) => text.parse().ok().or_else(|| named(&text)).unwrap_or(0),
        Some(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        None => 0,
    })
}

/// Ids, as OTLP JSON has them.
pub(crate) mod hex {
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::model::hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("hex digits as text")
            }

            fn visit_unit<E>(self) -> Result<Vec<u8>, E> {
                Ok(Vec::new())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                decode(text).ok_or_else(|| {
                    let shown: String = text.chars().take(40).collect();
                    E::custom(format_args!("{shown:?} is not an id in hex"))
                })
            }
        }
        deserializer.deserialize_any(Digits)
    }

    /// Decodes text; `None` when it is not hex.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let digits = text.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let pair = |pair: &[u8]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
        digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(pair).collect())?
    }
}

mod u64_text {
    use super::Number;
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = Option<u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or one as text")
            }

            fn visit_unit<E>(self) -> Result<Option<u64>, E> {
                Ok(Some(0))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Option<u64>, E> {
                Ok(u64::try_from(number).ok())
            }

            fn visit_u64<E>(self, number: u64) -> Result<Option<u64>, E> {
                Ok(Some(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Option<u64>, E> {
                Ok(Number::Float(number).as_i64().and_then(|number| u64::try_from(number).ok()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Option<u64>, E> {
                Ok(text.parse().ok())
            }
        }
        let number = deserializer.deserialize_any(Any)?;
        number.ok_or_else(|| de::Error::custom("not an unsigned 64-bit integer"))
    }
}

/// Standard base64 with padding (RFC 4648 section 4), as OTLP JSON has it for bytes.
pub mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// Encodes bytes.
    pub fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
            for place in 0..4 {
                if place <= chunk.len() {
                    text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
                } else {
                    text.push('=');
                }
            }
        }
        text
    }

    /// Decodes text; `None` when it is not base64.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let digits = text.trim_end_matches('=').as_bytes();
        let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
        for chunk in digits.chunks(4) {
            let mut word = 0u32;
            for (i, digit) in chunk.iter().enumerate() {
                let value = ALPHABET.iter().position(|c| c == digit)?;
                word |= (value as u32) << (18 - 6 * i);
            }
            match chunk.len() {
                4 => bytes.extend_from_slice(&word.to_be_bytes()[1..]),
                3 => bytes.extend_from_slice(&word.to_be_bytes()[1..3]),
                2 => bytes.push(word.to_be_bytes()[1]),
                _ => return None,
            }
        }
        Some(bytes)
    }
}

/// `Export{Trace,Metrics,Logs}ServiceResponse`: the field numbers of all three are the same.
#[cfg(feature = "forward")]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What of a request was left out, and why.
#[cfg(feature = "forward")]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PartialSuccess {
    /// Spans, data points or records.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn sample() -> Span {
        Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1, 2, 3, 4, 5, 6, 7, 8],
            name: "chat gpt-4o".into(),
            kind: 3,
            start_time_unix_nano: 1_767_693_600_000_000_001,
            end_time_unix_nano: u64::MAX,
            attributes: vec![
                KeyValue { key: "i".into(), value: Some(Value::Int(i64::MAX).into()) },
                KeyValue { key: "nan".into(), value: Some(Value::Double(f64::INFINITY).into()) },
                KeyValue { key: "b".into(), value: Some(Value::Bytes(vec![255, 0, 1, 2]).into()) },
                KeyValue {
                    key: "l".into(),
                    value: Some(Value::Array(ArrayValue { values: vec![Value::Bool(true).into()] }).into()),
                },
                KeyValue { key: "empty".into(), value: Some(AnyValue { value: None }) },
            ],
            status: Some(Status { message: "boom".into(), code: STATUS_ERROR }),
            ..Span::default()
        }
    }

    #[test]
    fn a_span_survives_protobuf_and_json() {
        let span = sample();
        assert_eq!(Span::decode(span.encode_to_vec().as_slice()).unwrap(), span);
        let json = serde_json::to_string(&span).unwrap();
        assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), span);
        assert_eq!(
            json,
            "{\"traceId\":\"abababababababababababababababab\",\"spanId\":\"0102030405060708\",\
             \"name\":\"chat gpt-4o\",\"kind\":3,\"startTimeUnixNano\":\"1767693600000000001\",\
             \"endTimeUnixNano\":\"18446744073709551615\",\"attributes\":[\
             {\"key\":\"i\",\"value\":{\"intValue\":\"9223372036854775807\"}},\
             {\"key\":\"nan\",\"value\":{\"doubleValue\":\"Infinity\"}},\
             {\"key\":\"b\",\"value\":{\"bytesValue\":\"/wABAg==\"}},\
             {\"key\":\"l\",\"value\":{\"arrayValue\":{\"values\":[{\"boolValue\":true}]}}},\
             {\"key\":\"empty\",\"value\":{}}],\"status\":{\"message\":\"boom\",\"code\":2}}"
        );
    }

    #[test]
    fn values_are_read_in_every_form_that_senders_give_them() {
        let read = |json: &str| serde_json::from_str::<AnyValue>(json).map_err(|error| error.to_string());
        let value = |value: Value| Ok(AnyValue { value: Some(value) });
        assert_eq!(read(r#"{"intValue":"-7"}"#), value(Value::Int(-7)));
        assert_eq!(read(r#"{"intValue":7.0}"#), value(Value::Int(7)));
        assert_eq!(read(r#"{"doubleValue":"-Infinity"}"#), value(Value::Double(f64::NEG_INFINITY)));
        assert_eq!(read(r#"{"doubleValue":3}"#), value(Value::Double(3.0)));
        assert_eq!(read(r#"{"bytesValue":"/wABAg=="}"#), value(Value::Bytes(vec![255, 0, 1, 2])));
        // What is null is not given, and of several the text counts.
        assert_eq!(read(r#"{"boolValue":true,"intValue":"x","stringValue":"a"}"#), value("a".into()));
        assert_eq!(read(r#"{"stringValue":null,"boolValue":false,"later":[1]}"#), value(false.into()));
        assert_eq!(read(r#"{"stringValue":null}"#), Ok(AnyValue { value: None }));
        assert_eq!(read("{}"), Ok(AnyValue { value: None }));
        for (wrong, why) in [
            (r#"{"intValue":"x"}"#, "intValue is not a 64-bit integer"),
            (r#"{"doubleValue":"x"}"#, "doubleValue is not a number"),
            (r#"{"bytesValue":"?"}"#, "bytesValue is not base64"),
            (r#"{"boolValue":"yes"}"#, "invalid type: string"),
            (r#"{"intValue":1,"intValue":2}"#, "twice"),
        ] {
            let told = read(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }

    #[test]
    fn ids_and_moments_are_read_as_text_and_as_numbers() {
        let read = |span: &str| serde_json::from_str::<Span>(span).map_err(|error| error.to_string());
        let times = |span: Span| (span.start_time_unix_nano, span.end_time_unix_nano);
        let read_times =
            |start: &str| read(&format!(r#"{{"startTimeUnixNano":{start},"endTimeUnixNano":null}}"#)).map(times);
        assert_eq!(read_times("7"), Ok((7, 0)));
        assert_eq!(read_times("\"18446744073709551615\""), Ok((u64::MAX, 0)));
        assert_eq!(read_times("18446744073709551615"), Ok((u64::MAX, 0)));
        assert_eq!(read_times("7e3"), Ok((7_000, 0)));
        for wrong in ["-1", "\"x\"", "1.5", "true"] {
            assert!(read_times(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            read(r#"{"traceId":null,"spanId":"0aFf"}"#).map(|span| (span.trace_id, span.span_id)),
            Ok((vec![], vec![10, 255]))
        );
        for wrong in [r#""abc""#, r#""zz""#, r#""+a""#, r#""é""#, "7"] {
            assert!(read(&format!(r#"{{"spanId":{wrong}}}"#)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_count_as_integers_and_as_text() {
        assert_eq!(Value::Int(7).as_i64(), Some(7));
        assert_eq!(Value::from("211").as_i64(), Some(211));
        assert_eq!(Value::Double(3.0).as_i64(), Some(3));
        assert_eq!(Value::Double(3.5).as_i64(), None);
        assert_eq!(Value::from("many").as_i64(), None);
    }

    #[test]
    fn base64_has_the_vectors_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64::encode(plain.as_bytes()), text);
            assert_eq!(base64::decode(text).as_deref(), Some(plain.as_bytes()));
        }
    }
}
