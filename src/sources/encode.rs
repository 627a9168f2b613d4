//! Writes OTLP protobuf straight into a buffer, once, on the thread that records.
//!
//! Field numbers are those of [`crate::model::otlp`]; a test decodes what is written here with the derived messages.

/// `Span.attributes` and `SpanEvent.attributes`, length-delimited.
pub const SPAN_ATTRIBUTE: u8 = 9;
/// `SpanEvent.attributes`.
pub const EVENT_ATTRIBUTE: u8 = 3;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use prost::Message;

use crate::model::otlp::{KeyValue, Span, Value};

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Longest text of one attribute in bytes; what is beyond is cut with a mark that says how much.
pub const MAX_TEXT: usize = 1 << 20;
/// Encoded attributes up to this length stay however full their span is.
const SMALL_ATTRIBUTE: usize = 1 << 10;

fn tag(out: &mut Vec<u8>, field: u8, wire: u8) {
    // All fields used here are below 32; two bytes hold those from 16 on.
    let key = u32::from(field) << 3 | u32::from(wire);
    varint(out, u64::from(key));
}

/// Appends a base-128 varint.
pub fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

const fn varint_len(number: u64) -> usize {
    (70 - (number | 1).leading_zeros() as usize) / 7
}

/// Appends the head of a length-delimited field: `length` bytes have to follow.
pub fn bytes_head(out: &mut Vec<u8>, field: u8, length: usize) {
    tag(out, field, BYTES);
    varint(out, length as u64);
}

/// Appends a length-delimited field.
pub fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    bytes_head(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends a varint field unless it is zero, as proto3 has it.
pub fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        varint(out, value);
    }
}

/// Appends a message whose fields `fill` appends.
pub fn message(out: &mut Vec<u8>, field: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, BYTES);
    let at = out.len();
    // One byte holds the length of most; the body of a longer one moves up a little.
    out.push(0);
    fill(out);
    let length = out.len() - at - 1;
    let width = varint_len(length as u64);
    out.resize(out.len() + width - 1, 0);
    out.copy_within(at + 1..at + 1 + length, at + width);
    let mut length = length;
    for byte in &mut out[at..at + width] {
        *byte = length as u8 | 0x80;
        length >>= 7;
    }
    out[at + width - 1] &= 0x7f;
}

/// Appends a fixed 64-bit field unless it is zero.
pub fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        tag(out, field, FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends a fixed 32-bit field unless it is zero.
pub fn fixed32(out: &mut Vec<u8>, field: u8, value: u32) {
    if value != 0 {
        tag(out, field, FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends the head of an attribute whose `AnyValue` takes `value_len` bytes.
fn attribute_head(out: &mut Vec<u8>, field: u8, key: &str, value_len: usize) {
    let key_len = 1 + varint_len(key.len() as u64) + key.len();
    let any_len = 1 + varint_len(value_len as u64) + value_len;
    tag(out, field, BYTES);
    varint(out, (key_len + any_len) as u64);
    bytes(out, 1, key.as_bytes());
    tag(out, 2, BYTES);
    varint(out, value_len as u64);
}

/// Appends a text attribute, cut at [`MAX_TEXT`].
pub fn text_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    let value = if value.len() > MAX_TEXT { &cut(value, MAX_TEXT) } else { value };
    attribute_head(out, field, key, 1 + varint_len(value.len() as u64) + value.len());
    bytes(out, 1, value.as_bytes());
}

/// Appends a boolean attribute.
pub fn bool_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: bool) {
    attribute_head(out, field, key, 2);
    tag(out, 2, VARINT);
    out.push(u8::from(value));
}

/// Appends an integer attribute.
pub fn int_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: i64) {
    attribute_head(out, field, key, 1 + varint_len(value as u64));
    tag(out, 3, VARINT);
    varint(out, value as u64);
}

/// Appends a float attribute.
pub fn double_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: f64) {
    attribute_head(out, field, key, 9);
    tag(out, 4, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends an attribute that is a list; `fill` appends each element with one of the `*_element` functions.
pub fn list_attribute(out: &mut Vec<u8>, field: u8, key: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    message(out, field, |out| {
        bytes(out, 1, key.as_bytes());
        message(out, 2, |out| message(out, 5, fill));
    });
}

/// Appends a text to a list, cut at [`MAX_TEXT`].
pub fn text_element(out: &mut Vec<u8>, value: &str) {
    let value = if value.len() > MAX_TEXT { &cut(value, MAX_TEXT) } else { value };
    message(out, 1, |out| bytes(out, 1, value.as_bytes()));
}

/// Appends a boolean to a list.
pub fn bool_element(out: &mut Vec<u8>, value: bool) {
    message(out, 1, |out| {
        tag(out, 2, VARINT);
        out.push(u8::from(value));
    });
}

/// Appends an integer to a list.
pub fn int_element(out: &mut Vec<u8>, value: i64) {
    message(out, 1, |out| {
        tag(out, 3, VARINT);
        varint(out, value as u64);
    });
}

/// Appends a float to a list.
pub fn double_element(out: &mut Vec<u8>, value: f64) {
    message(out, 1, |out| {
        tag(out, 4, FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    });
}

/// Appends the fields of a span, byte for byte as its derived message has them.
pub fn span(out: &mut Vec<u8>, span: &Span) {
    let text = |out: &mut Vec<u8>, field, value: &[u8]| {
        if !value.is_empty() {
            bytes(out, field, value);
        }
    };
    text(out, 1, &span.trace_id);
    text(out, 2, &span.span_id);
    text(out, 3, span.trace_state.as_bytes());
    text(out, 4, &span.parent_span_id);
    text(out, 5, span.name.as_bytes());
    number(out, 6, i64::from(span.kind) as u64);
    fixed64(out, 7, span.start_time_unix_nano);
    fixed64(out, 8, span.end_time_unix_nano);
    span.attributes.iter().for_each(|attribute| span_attribute(out, attribute));
    number(out, 10, u64::from(span.dropped_attributes_count));
    span.events.iter().for_each(|event| derived(out, 11, event));
    number(out, 12, u64::from(span.dropped_events_count));
    span.links.iter().for_each(|link| derived(out, 13, link));
    number(out, 14, u64::from(span.dropped_links_count));
    span.status.iter().for_each(|status| derived(out, 15, status));
    fixed32(out, 16, span.flags);
}

fn span_attribute(out: &mut Vec<u8>, attribute: &KeyValue) {
    let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
    let (field, key) = (SPAN_ATTRIBUTE, attribute.key.as_str());
    match value {
        // An empty key is left out.
        _ if key.is_empty() => derived(out, field, attribute),
        Some(Value::String(value)) => {
            attribute_head(out, field, key, 1 + varint_len(value.len() as u64) + value.len());
            bytes(out, 1, value.as_bytes());
        }
        Some(Value::Bool(value)) => bool_attribute(out, field, key, *value),
        Some(Value::Int(value)) => int_attribute(out, field, key, *value),
        Some(Value::Double(value)) => double_attribute(out, field, key, *value),
        _ => derived(out, field, attribute),
    }
}

/// Appends a message that encodes itself.
fn derived(out: &mut Vec<u8>, field: u8, inner: &impl Message) {
    message(out, field, |out| {
        // A vector grows, so there is always room.
        let encoded = inner.encode(out);
        debug_assert!(encoded.is_ok());
    });
}

/// Cuts a text at `limit` bytes, on a character's border, with a mark that says how much went.
pub fn cut(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}[cut:{}]", &text[..end], text.len() - end)
}

/// Cuts a text longer than `limit` bytes so that it has no more with the mark: what was cut is not cut again.
pub fn cut_to(text: &str, limit: usize) -> Cow<'_, str> {
    /// The longest mark there is.
    const MARK: usize = "[cut:18446744073709551615]".len();
    if text.len() <= limit { Cow::Borrowed(text) } else { Cow::Owned(cut(text, limit.saturating_sub(MARK))) }
}

/// Holds encoded attributes to `limit` bytes: of every key what was said last stays, and of those that are large the
/// first ones that fit. Small ones, as counts and names are, always stay. Tells whether any value went.
pub fn hold_to(limit: usize, attributes: &mut Vec<u8>, field: u8) -> bool {
    if attributes.len() <= limit {
        return false;
    }
    let mut places = attribute_places(attributes, field);
    let mut seen = HashSet::with_capacity(places.len());
    places.reverse();
    places.retain(|place| seen.insert(&attributes[place.key.clone()]));
    places.reverse();
    let mut large = 0;
    let fits = |place: &AttributePlace| {
        let length = place.whole.len();
        large += if length > SMALL_ATTRIBUTE { length } else { 0 };
        length <= SMALL_ATTRIBUTE || large <= limit - limit / 16
    };
    let all = places.len();
    places.retain(fits);
    *attributes = places.iter().flat_map(|place| &attributes[place.whole.clone()]).copied().collect();
    places.len() < all
}

/// Where an encoded attribute is, and its key.
struct AttributePlace {
    whole: Range<usize>,
    key: Range<usize>,
}

/// Finds attributes that were encoded here.
fn attribute_places(attributes: &[u8], field: u8) -> Vec<AttributePlace> {
    fn length(bytes: &[u8], at: &mut usize, expected_tag: u8) -> Option<usize> {
        if *bytes.get(*at)? != expected_tag {
            return None;
        }
        let (mut value, mut shift) = (0, 0);
        loop {
            *at += 1;
            let byte = *bytes.get(*at)?;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                *at += 1;
                return Some(value);
            }
        }
    }
    let (mut places, mut next) = (Vec::new(), 0);
    while next < attributes.len() {
        let (start, mut at) = (next, next);
        let Some(whole) = length(attributes, &mut at, field << 3 | BYTES) else { break };
        next = at + whole;
        let Some(key) = length(attributes, &mut at, 1 << 3 | BYTES) else { break };
        places.push(AttributePlace { whole: start..next, key: at..at + key });
    }
    places
}

/// What the record of a span needs besides its attributes and events, which are encoded already.
#[derive(Debug)]
pub struct SpanParts<'a> {
    /// Name of the instrumentation scope.
    pub scope: &'a str,
    /// 16 bytes.
    pub trace_id: &'a [u8; 16],
    /// 8 bytes.
    pub span_id: &'a [u8; 8],
    /// 8 bytes, or none for a root.
    pub parent: Option<&'a [u8; 8]>,
    /// W3C flags with the remote bits.
    pub flags: u32,
    /// The span's name.
    pub name: &'a str,
    /// Span kind of OTLP.
    pub kind: u8,
    /// Nanoseconds since the epoch.
    pub start: u64,
    /// Nanoseconds since the epoch; 0 for an open span.
    pub end: u64,
    /// Encoded `Span` fields: attributes, events, links.
    pub fields: &'a [&'a [u8]],
    /// How many events were left out.
    pub dropped_events: u32,
    /// Status code and message.
    pub status: Option<(u8, &'a str)>,
}

/// Appends a `ScopeSpans` with one span.
pub fn scope_spans(out: &mut Vec<u8>, parts: &SpanParts<'_>) {
    let scope_len = 1 + varint_len(parts.scope.len() as u64) + parts.scope.len();
    tag(out, 1, BYTES);
    varint(out, scope_len as u64);
    bytes(out, 1, parts.scope.as_bytes());

    let status = parts.status.map(|(code, message)| {
        let message =
            if message.len() > MAX_TEXT { Cow::Owned(cut(message, MAX_TEXT)) } else { Cow::Borrowed(message) };
        (code, message)
    });
    let text_len = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    let status_len = status.as_ref().map_or(0, |(code, message)| {
        number_len(u64::from(*code)) + if message.is_empty() { 0 } else { text_len(message) }
    });

    // The length goes first.
    let head_len = 18
        + 10
        + parts.parent.map_or(0, |_| 10)
        + text_len(parts.name)
        + number_len(u64::from(parts.kind))
        + if parts.start == 0 { 0 } else { 9 }
        + if parts.end == 0 { 0 } else { 9 }
        + number_len(u64::from(parts.dropped_events))
        + status.as_ref().map_or(0, |_| 1 + varint_len(status_len as u64) + status_len)
        + if parts.flags == 0 { 0 } else { 6 };
    let fields: usize = parts.fields.iter().map(|field| field.len()).sum();
    bytes_head(out, 2, head_len + fields);
    let start = out.len();
    bytes(out, 1, parts.trace_id);
    bytes(out, 2, parts.span_id);
    if let Some(parent) = parts.parent {
        bytes(out, 4, parent);
    }
    bytes(out, 5, parts.name.as_bytes());
    number(out, 6, u64::from(parts.kind));
    fixed64(out, 7, parts.start);
    fixed64(out, 8, parts.end);
    number(out, 12, u64::from(parts.dropped_events));
    if let Some((code, message)) = status {
        bytes_head(out, 15, status_len);
        if !message.is_empty() {
            bytes(out, 2, message.as_bytes());
        }
        number(out, 3, u64::from(code));
    }
    fixed32(out, 16, parts.flags);
    debug_assert_eq!(out.len() - start, head_len);
    for field in parts.fields {
        out.extend_from_slice(field);
    }
}

/// Returns what [`number`] takes, for fields below 16.
const fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Appends a `Span.events` entry with attributes that are encoded as [`EVENT_ATTRIBUTE`] already.
pub fn span_event(out: &mut Vec<u8>, time: u64, name: &str, attributes: &[u8]) {
    let length = 9 + 1 + varint_len(name.len() as u64) + name.len() + attributes.len();
    tag(out, 11, BYTES);
    varint(out, length as u64);
    tag(out, 1, FIXED64);
    out.extend_from_slice(&time.to_le_bytes());
    bytes(out, 2, name.as_bytes());
    out.extend_from_slice(attributes);
}

/// Appends a `Span.links` entry.
pub fn span_link(out: &mut Vec<u8>, trace_id: &[u8; 16], span_id: &[u8; 8]) {
    tag(out, 13, BYTES);
    varint(out, (18 + 10) as u64);
    bytes(out, 1, trace_id);
    bytes(out, 2, span_id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_held_to_a_limit_without_the_small_ones() {
        let mut attributes = Vec::new();
        for at in 0..100 {
            text_attribute(&mut attributes, SPAN_ATTRIBUTE, "said_again", &"x".repeat(at * 100));
        }
        for key in ["a", "b", "c"] {
            text_attribute(&mut attributes, SPAN_ATTRIBUTE, key, &"y".repeat(20_000));
        }
        int_attribute(&mut attributes, SPAN_ATTRIBUTE, "tokens", 7);
        list_attribute(&mut attributes, SPAN_ATTRIBUTE, "list", |out| int_element(out, 1));
        let keys = |bytes: &[u8]| {
            let places = attribute_places(bytes, SPAN_ATTRIBUTE);
            assert_eq!(places.last().map(|place| place.whole.end), Some(bytes.len()));
            let text = |place: AttributePlace| String::from_utf8(bytes[place.key].to_vec()).unwrap();
            places.into_iter().map(text).collect::<Vec<_>>()
        };
        let mut whole = attributes.clone();
        assert!(!hold_to(1 << 20, &mut whole, SPAN_ATTRIBUTE));
        assert_eq!(whole, attributes);
        assert!(!hold_to(100_000, &mut whole, SPAN_ATTRIBUTE));
        assert_eq!(keys(&whole), ["said_again", "a", "b", "c", "tokens", "list"]);
        assert!(whole.len() < 71_000);
        assert!(hold_to(50_000, &mut whole, SPAN_ATTRIBUTE));
        assert_eq!(keys(&whole), ["said_again", "a", "tokens", "list"]);
    }
    use crate::model::otlp::{KeyValue, Link, Scope, ScopeSpans, Span, SpanEvent, Status, Value};
    use prost::Message;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(value.into()) }
    }

    #[test]
    fn what_is_written_decodes_as_the_derived_messages() {
        let long = "k".repeat(300);
        let (mut attributes, mut events, mut links) = (Vec::new(), Vec::new(), Vec::new());
        text_attribute(&mut attributes, SPAN_ATTRIBUTE, "a", "text");
        text_attribute(&mut attributes, SPAN_ATTRIBUTE, &long, &long);
        text_attribute(&mut attributes, SPAN_ATTRIBUTE, "", "");
        bool_attribute(&mut attributes, SPAN_ATTRIBUTE, "yes", true);
        bool_attribute(&mut attributes, SPAN_ATTRIBUTE, "no", false);
        int_attribute(&mut attributes, SPAN_ATTRIBUTE, "i", -1);
        int_attribute(&mut attributes, SPAN_ATTRIBUTE, "j", 0);
        double_attribute(&mut attributes, SPAN_ATTRIBUTE, "d", 0.5);
        let mut fields = Vec::new();
        int_attribute(&mut fields, EVENT_ATTRIBUTE, "n", 300);
        span_event(&mut events, 0, "happened", &fields);
        span_link(&mut links, &[3; 16], &[4; 8]);
        let mut out = Vec::new();
        scope_spans(
            &mut out,
            &SpanParts {
                scope: "target",
                trace_id: &[1; 16],
                span_id: &[2; 8],
                parent: Some(&[9; 8]),
                flags: 0x301,
                name: "chat",
                kind: 3,
                start: 5,
                end: 6,
                fields: &[&attributes, &events, &links],
                dropped_events: 7,
                status: Some((2, "boom")),
            },
        );
        let expected = ScopeSpans {
            scope: Some(Scope { name: "target".into(), ..Scope::default() }),
            spans: vec![Span {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                parent_span_id: vec![9; 8],
                flags: 0x301,
                name: "chat".into(),
                kind: 3,
                start_time_unix_nano: 5,
                end_time_unix_nano: 6,
                attributes: vec![
                    attribute("a", "text".into()),
                    attribute(&long, long.as_str().into()),
                    attribute("", "".into()),
                    attribute("yes", true.into()),
                    attribute("no", false.into()),
                    attribute("i", (-1).into()),
                    attribute("j", 0.into()),
                    attribute("d", 0.5.into()),
                ],
                events: vec![SpanEvent {
                    name: "happened".into(),
                    attributes: vec![attribute("n", 300.into())],
                    ..SpanEvent::default()
                }],
                dropped_events_count: 7,
                links: vec![Link { trace_id: vec![3; 16], span_id: vec![4; 8], ..Link::default() }],
                status: Some(Status { message: "boom".into(), code: 2 }),
                ..Span::default()
            }],
            ..ScopeSpans::default()
        };
        assert_eq!(ScopeSpans::decode(out.as_slice()).unwrap(), expected);
    }

    #[test]
    fn a_message_of_any_length_decodes() {
        for length in [0, 1, 125, 126, 127, 128, 129, 16_381, 16_384, 70_000] {
            let mut out = vec![0xff; 3];
            let text = "x".repeat(length);
            message(&mut out, 2, |out| message(out, 15, |out| bytes(out, 2, text.as_bytes())));
            let decoded = ScopeSpans::decode(&out[3..]).unwrap();
            assert_eq!(decoded.spans[0].status.as_ref().unwrap().message, text, "{length}");
        }
    }

    #[test]
    fn lists_decode_as_lists() {
        let mut out = Vec::new();
        list_attribute(&mut out, SPAN_ATTRIBUTE, "list", |out| {
            text_element(out, "");
            text_element(out, "b");
            bool_element(out, false);
            int_element(out, -3);
            double_element(out, 0.0);
        });
        list_attribute(&mut out, SPAN_ATTRIBUTE, "empty", |_| {});
        let list = |values: Vec<Value>| {
            Value::Array(crate::model::otlp::ArrayValue { values: values.into_iter().map(Into::into).collect() })
        };
        let expected = vec![
            attribute("list", list(vec!["".into(), "b".into(), false.into(), (-3).into(), 0.0.into()])),
            attribute("empty", list(Vec::new())),
        ];
        assert_eq!(Span::decode(out.as_slice()).unwrap().attributes, expected);
    }

    #[test]
    fn a_long_text_is_cut_on_a_border_and_says_so() {
        assert_eq!(cut("grün", 3), "gr[cut:3]");
        let mut out = Vec::new();
        text_attribute(&mut out, SPAN_ATTRIBUTE, "k", &"x".repeat(MAX_TEXT + 5));
        let span = Span::decode(out.as_slice()).unwrap();
        assert!(span.attr_str("k").unwrap().ends_with("x[cut:5]"));
    }
}
