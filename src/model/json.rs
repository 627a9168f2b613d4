//! Writes JSON straight into a buffer.
//!
//! `events.jsonl` is most of what a recording process writes, and the general serializer was the largest part of the
//! worker's time. What is written here is byte for byte what that one writes, which a test holds it to; whatever is
//! small or rare is left to it.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Serialize;

use super::otlp::{AnyValue, KeyValue, Link, Resource, Scope, Span, SpanEvent, Status, Value, base64};
use super::run::{StepKind, StepStatus};

/// What can be written as JSON.
pub(crate) trait WriteJson {
    /// Appends the value to `out`. Fails only where the general serializer does.
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()>;
}

/// Appends a value by the general serializer.
pub(crate) fn general(out: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(out, value)
}

/// Appends a text with its quotes.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    while let Some(ahead) = first_special(&bytes[done..]) {
        let at = done + ahead;
        out.extend_from_slice(&bytes[done..at]);
        escape(out, bytes[at]);
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

/// Finds the first byte that JSON wants escaped, eight at a time: a quote, a backslash, or one below a space.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero, and perhaps of bytes above such a one.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = controls | zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c));
        if found != 0 {
            // The lowest one is exact.
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = chunks.remainder();
    rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')).map(|place| at + place)
}

/// Appends a whole number.
pub(crate) fn number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    number(out, value.unsigned_abs());
}

/// Appends text that needs no escapes: what a formatter of ours makes.
fn quoted(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    fill(out);
    out.push(b'"');
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    quoted(out, |out| {
        out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
    });
}

/// An object being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    /// Begins one.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_empty: true }
    }

    /// Appends a key, which needs no escapes, and lends the place for its value. Where it is a word of ours, all of this is a few stores.
    #[inline(always)]
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.is_empty { b"{\"" } else { b",\"" });
        self.is_empty = false;
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Appends a key and its value.
    pub fn field(&mut self, key: &str, value: &impl WriteJson) -> serde_json::Result<()> {
        value.write_json(self.key(key))
    }

    /// Ends it.
    pub fn end(self) {
        self.out.extend_from_slice(if self.is_empty { b"{}" } else { b"}" });
    }

    fn list<T: WriteJson>(&mut self, key: &str, values: &[T]) -> serde_json::Result<()> {
        if values.is_empty() { Ok(()) } else { list(self.key(key), values) }
    }

    fn count(&mut self, key: &str, value: u64) {
        if value != 0 {
            number(self.key(key), value);
        }
    }

    fn words(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            text(self.key(key), value);
        }
    }
}

fn list<T: WriteJson>(out: &mut Vec<u8>, values: &[T]) -> serde_json::Result<()> {
    out.push(b'[');
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        value.write_json(out)?;
    }
    out.push(b']');
    Ok(())
}

impl WriteJson for String {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        text(out, self);
        Ok(())
    }
}

impl<T: WriteJson> WriteJson for Option<T> {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Some(value) => value.write_json(out),
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }
}

impl<T: WriteJson> WriteJson for Box<T> {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        T::write_json(self, out)
    }
}

impl WriteJson for Arc<Resource> {
    /// Of all steps that one process tells the maker is the same, and a tenth of what is written of each.
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        thread_local! {
            static LAST: RefCell<Option<(Arc<Resource>, Vec<u8>)>> = const { RefCell::new(None) };
        }
        let is_last = LAST.try_with(|last| {
            let last = last.try_borrow().ok()?;
            let (_, json) = last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, self))?;
            out.extend_from_slice(json);
            Some(())
        });
        if let Ok(Some(())) = is_last {
            return Ok(());
        }
        let begin = out.len();
        Resource::write_json(self, out)?;
        const MAX_KEPT: usize = 64 << 10;
        let json = out[begin..].to_vec();
        if json.len() > MAX_KEPT {
            return Ok(());
        }
        // A thread that ends keeps none.
        let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some((Arc::clone(self), json))));
        Ok(())
    }
}

impl WriteJson for StepKind {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        text(out, self.as_str());
        Ok(())
    }
}

impl WriteJson for StepStatus {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        text(out, self.as_str());
        Ok(())
    }
}

macro_rules! by_the_general_serializer {
    ($($type:ty),+ $(,)?) => {
        $(impl WriteJson for $type {
            fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
                general(out, self)
            }
        })+
    };
}

by_the_general_serializer! {
    f64, serde_json::Number, super::NanoUsd, super::run::CostSource, super::run::ErrorInfo, super::run::Tokens,
}

// Prompts and answers, and so most bytes of a log with content.
impl WriteJson for serde_json::Value {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(value) => value.write_json(out)?,
            Self::String(value) => text(out, value),
            Self::Array(values) => list(out, values)?,
            Self::Object(fields) => fields.write_json(out)?,
        }
        Ok(())
    }
}

impl WriteJson for serde_json::Map<String, serde_json::Value> {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        out.push(b'{');
        for (place, (key, value)) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            text(out, key);
            out.push(b':');
            value.write_json(out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

impl WriteJson for Span {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        hex(object.key("traceId"), &self.trace_id);
        hex(object.key("spanId"), &self.span_id);
        object.words("traceState", &self.trace_state);
        if !self.parent_span_id.is_empty() {
            hex(object.key("parentSpanId"), &self.parent_span_id);
        }
        object.count("flags", self.flags.into());
        text(object.key("name"), &self.name);
        if self.kind != 0 {
            signed(object.key("kind"), self.kind.into());
        }
        quoted(object.key("startTimeUnixNano"), |out| number(out, self.start_time_unix_nano));
        if self.end_time_unix_nano != 0 {
            quoted(object.key("endTimeUnixNano"), |out| number(out, self.end_time_unix_nano));
        }
        object.list("attributes", &self.attributes)?;
        object.count("droppedAttributesCount", self.dropped_attributes_count.into());
        object.list("events", &self.events)?;
        object.count("droppedEventsCount", self.dropped_events_count.into());
        object.list("links", &self.links)?;
        object.count("droppedLinksCount", self.dropped_links_count.into());
        if let Some(status) = &self.status {
            object.field("status", status)?;
        }
        object.end();
        Ok(())
    }
}

impl WriteJson for SpanEvent {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        quoted(object.key("timeUnixNano"), |out| number(out, self.time_unix_nano));
        text(object.key("name"), &self.name);
        object.list("attributes", &self.attributes)?;
        object.count("droppedAttributesCount", self.dropped_attributes_count.into());
        object.end();
        Ok(())
    }
}

impl WriteJson for Link {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        hex(object.key("traceId"), &self.trace_id);
        hex(object.key("spanId"), &self.span_id);
        object.words("traceState", &self.trace_state);
        object.list("attributes", &self.attributes)?;
        object.count("droppedAttributesCount", self.dropped_attributes_count.into());
        object.count("flags", self.flags.into());
        object.end();
        Ok(())
    }
}

impl WriteJson for Status {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        object.words("message", &self.message);
        if self.code != 0 {
            signed(object.key("code"), self.code.into());
        }
        object.end();
        Ok(())
    }
}

impl WriteJson for Resource {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        object.list("attributes", &self.attributes)?;
        object.count("droppedAttributesCount", self.dropped_attributes_count.into());
        object.end();
        Ok(())
    }
}

impl WriteJson for Scope {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        object.words("name", &self.name);
        object.words("version", &self.version);
        object.list("attributes", &self.attributes)?;
        object.count("droppedAttributesCount", self.dropped_attributes_count.into());
        object.end();
        Ok(())
    }
}

impl WriteJson for KeyValue {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        text(object.key("key"), &self.key);
        object.field("value", &self.value)?;
        object.end();
        Ok(())
    }
}

impl WriteJson for AnyValue {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        match &self.value {
            None => {}
            Some(Value::String(value)) => text(object.key("stringValue"), value),
            Some(Value::Bool(true)) => object.key("boolValue").extend_from_slice(b"true"),
            Some(Value::Bool(false)) => object.key("boolValue").extend_from_slice(b"false"),
            Some(Value::Int(value)) => quoted(object.key("intValue"), |out| signed(out, *value)),
            Some(Value::Double(value)) if value.is_finite() => general(object.key("doubleValue"), value)?,
            Some(Value::Double(value)) => text(object.key("doubleValue"), super::otlp::float_text(*value)),
            Some(Value::Array(values)) => {
                let mut inner = Object::begin(object.key("arrayValue"));
                list(inner.key("values"), &values.values)?;
                inner.end();
            }
            Some(Value::KvList(entries)) => {
                let mut inner = Object::begin(object.key("kvlistValue"));
                list(inner.key("values"), &entries.values)?;
                inner.end();
            }
            Some(Value::Bytes(bytes)) => text(object.key("bytesValue"), &base64::encode(bytes)),
        }
        object.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::{ArrayValue, KvList};
    use proptest::prelude::*;

    fn words() -> impl Strategy<Value = String> {
        // Each byte that needs an escape, at every place of a word of eight, and none.
        prop_oneof!["[ -~]{0,40}", "[a-z\"\\\\\n\r\t\u{0}-\u{1f}\u{7f}é€𝄞]{0,40}", Just(String::new())]
    }

    fn values() -> impl Strategy<Value = AnyValue> {
        let leaf = prop_oneof![
            words().prop_map(Value::String),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        let leaf =
            prop_oneof![4 => leaf.prop_map(|value| AnyValue { value: Some(value) }), 1 => Just(AnyValue::default())];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let inner = prop::collection::vec(inner, 0..4);
            prop_oneof![
                inner.clone().prop_map(|values| Value::Array(ArrayValue { values }).into()),
                (inner, words()).prop_map(|(values, key)| {
                    let entry = |value| KeyValue { key: key.clone(), value: Some(value) };
                    Value::KvList(KvList { values: values.into_iter().map(entry).collect() }).into()
                }),
            ]
        })
    }

    fn json_values() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value as Json;
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            words().prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::vec((words(), inner), 0..4)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
        let attribute = (words(), prop::option::of(values())).prop_map(|(key, value)| KeyValue { key, value });
        prop::collection::vec(attribute, 0..5)
    }

    prop_compose! {
        fn spans()(
            ids in (prop::collection::vec(any::<u8>(), 16), prop::collection::vec(any::<u8>(), 8), prop::collection::vec(any::<u8>(), 0..9)),
            texts in (words(), words(), words()),
            numbers in (0u32..3, -1i32..4, any::<u64>(), 0u64..2, 0u32..2, 0u32..2),
            attributes in attributes(),
            inner in attributes(),
            shape in 0usize..3,
        ) -> Span {
            let (trace_id, span_id, parent_span_id) = ids;
            let event = SpanEvent { time_unix_nano: numbers.2, name: texts.1.clone(), attributes: inner.clone(), dropped_attributes_count: numbers.4 };
            let link = Link { trace_id: trace_id.clone(), span_id: span_id.clone(), trace_state: texts.2.clone(), attributes: inner, dropped_attributes_count: numbers.4, flags: numbers.0 };
            Span {
                trace_id,
                span_id,
                trace_state: texts.2.clone(),
                parent_span_id,
                flags: numbers.0,
                name: texts.0,
                kind: numbers.1,
                start_time_unix_nano: numbers.2,
                end_time_unix_nano: numbers.3,
                attributes,
                dropped_attributes_count: numbers.4,
                events: vec![event; shape],
                dropped_events_count: numbers.5,
                links: vec![link; shape],
                dropped_links_count: numbers.4,
                status: (shape > 0).then_some(Status { message: texts.1, code: numbers.1 }),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_general_serializer_writes(span in spans(), attributes in attributes()) {
            let both = |value: &dyn Fn(&mut Vec<u8>), general: Vec<u8>| {
                let mut out = Vec::new();
                value(&mut out);
                (String::from_utf8(out).unwrap(), String::from_utf8(general).unwrap())
            };
            let (ours, theirs) = both(&|out| span.write_json(out).unwrap(), serde_json::to_vec(&span).unwrap());
            prop_assert_eq!(ours, theirs);
            let resource = Resource { attributes: attributes.clone(), dropped_attributes_count: span.flags };
            let (ours, theirs) = both(&|out| resource.write_json(out).unwrap(), serde_json::to_vec(&resource).unwrap());
            prop_assert_eq!(ours, theirs);
            let scope = Scope { name: span.name.clone(), version: span.trace_state.clone(), attributes, dropped_attributes_count: span.flags };
            let (ours, theirs) = both(&|out| scope.write_json(out).unwrap(), serde_json::to_vec(&scope).unwrap());
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn any_json_is_what_the_general_serializer_writes(value in json_values()) {
            let mut ours = Vec::new();
            value.write_json(&mut ours).unwrap();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn a_line_is_what_the_general_serializer_writes(span in spans(), kind in 0usize..StepKind::ALL.len(), failed in any::<bool>()) {
            use crate::model::{Event, EventBody, EventId, UnixNanos, event};
            use crate::pipeline::facts::StepFacts;
            use crate::store::assembly::{ended_body, started_body};

            let mut span = span;
            span.set_attr(crate::conventions::names::STEP_KIND, StepKind::ALL[kind].as_str());
            span.set_attr(crate::conventions::names::INPUT_TOKENS, i64::from(span.flags));
            span.set_attr(crate::conventions::names::COST_USD, 0.25);
            span.end_time_unix_nano = span.start_time_unix_nano.saturating_add(1_234_567);
            if failed {
                span.set_attr(crate::conventions::names::ERROR_TYPE, "TimeoutError");
            }
            let facts = StepFacts::of(&span, None, None);
            let resource = Some(Arc::new(Resource { attributes: span.attributes.clone(), ..Resource::default() }));
            let scope = failed.then(|| Scope { name: span.name.clone(), ..Scope::default() });
            let fields = serde_json::json!({"a": [1, null, "\"\u{1}"]}).as_object().cloned().unwrap_or_default();
            let log = event::Log { level: failed.then(|| "WARN".to_owned()), message: span.name.clone(), fields };
            let bodies = [
                started_body(span.clone(), &facts, &facts.content, resource.clone(), scope.clone()),
                ended_body(span, &facts, *facts.content.clone(), resource, scope),
                EventBody::Log(log),
                EventBody::Unknown { kind: "later".to_owned(), data: serde_json::json!({"x": 1}) },
            ];
            for (seq, body) in (9..).zip(bodies) {
                let event = Event {
                    seq,
                    event_id: EventId::fresh(UnixNanos(seq)),
                    parent_event_id: failed.then(|| EventId::fresh(UnixNanos(1))),
                    timestamp: UnixNanos(1_767_693_600_000_000_001),
                    step_id: failed.then(|| "chat-2".to_owned()),
                    body,
                };
                let mut line = Vec::new();
                event.write_line(&mut line).unwrap();
                prop_assert_eq!(String::from_utf8(line).unwrap(), serde_json::to_string(&event).unwrap());
            }
        }
    }
}
