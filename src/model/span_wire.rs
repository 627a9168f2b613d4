//! Spans in protobuf, read by hand: what nearly all of them are made of, in one walk, with no more memory than they need.
//!
//! Whatever else stands in a span is left to prost, so that what is read is always what prost reads, errors too. Fields that are not
//! known are among that, but for those inside of attributes: see [`unknown`](super::unknown).

use prost::Message;

use super::otlp::{AnyValue, ArrayValue, KeyValue, Span, SpanEvent, Status, Value};
use super::wire::{Field, Fields};

/// Attributes that a span gets besides those it comes with, about.
const ROOM: usize = 8;

/// What stands before the key of an attribute, its value, a text and a whole number: a field's number, and how it is written.
const KEY: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;
const TEXT: u8 = 1 << 3 | 2;
const NUMBER: u8 = 3 << 3;

/// Reads a span that has nothing in it that is seldom there, and nothing that is not known.
pub fn span_of(bytes: &[u8]) -> Option<Span> {
    let count = Fields::of(bytes).filter(|(number, _)| *number == 9).count();
    let mut span = Span { attributes: Vec::with_capacity(count + ROOM), ..Span::default() };
    let mut fields = Fields::of(bytes);
    for field in fields.by_ref() {
        match field {
            (1, Field::Bytes(id)) => span.trace_id = id.to_vec(),
            (2, Field::Bytes(id)) => span.span_id = id.to_vec(),
            (3, Field::Bytes(state)) => span.trace_state = text(state)?,
            (4, Field::Bytes(id)) => span.parent_span_id = id.to_vec(),
            (5, Field::Bytes(name)) => span.name = text(name)?,
            (6, Field::Varint(kind)) => span.kind = kind as i32,
            (7, Field::Fixed64(at)) => span.start_time_unix_nano = u64::from_le_bytes(at),
            (8, Field::Fixed64(at)) => span.end_time_unix_nano = u64::from_le_bytes(at),
            (9, Field::Bytes(attribute)) => span.attributes.push(attribute_of(attribute)?),
            (10, Field::Varint(dropped)) => span.dropped_attributes_count = dropped as u32,
            (11, Field::Bytes(event)) => span.events.push(event_of(event)?),
            (12, Field::Varint(dropped)) => span.dropped_events_count = dropped as u32,
            (14, Field::Varint(dropped)) => span.dropped_links_count = dropped as u32,
            (15, Field::Bytes(status)) if span.status.is_none() => span.status = Some(status_of(status)?),
            (16, Field::Fixed32(flags)) => span.flags = u32::from_le_bytes(flags),
            // Links, what stands there twice, what is of another type than it should be, and what is not known.
            _ => return None,
        }
    }
    fields.rest().is_empty().then_some(span)
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn status_of(bytes: &[u8]) -> Option<Status> {
    let is_known = Fields::of(bytes).all(|(number, _)| number <= 3);
    Status::decode(bytes).ok().filter(|_| is_known)
}

fn event_of(bytes: &[u8]) -> Option<SpanEvent> {
    let mut event = SpanEvent::default();
    let mut fields = Fields::of(bytes);
    for field in fields.by_ref() {
        match field {
            (1, Field::Fixed64(at)) => event.time_unix_nano = u64::from_le_bytes(at),
            (2, Field::Bytes(name)) => event.name = text(name)?,
            (3, Field::Bytes(attribute)) => event.attributes.push(attribute_of(attribute)?),
            (4, Field::Varint(dropped)) => event.dropped_attributes_count = dropped as u32,
            _ => return None,
        }
    }
    fields.rest().is_empty().then_some(event)
}

fn attribute_of(bytes: &[u8]) -> Option<KeyValue> {
    plain_attribute_of(bytes).or_else(|| any_attribute_of(bytes))
}

/// Reads an attribute as nearly all are written: its key, then one text or whole number, each with a length of one byte.
fn plain_attribute_of(bytes: &[u8]) -> Option<KeyValue> {
    let (key, rest) = short(bytes.strip_prefix(&[KEY])?)?;
    let (value, []) = short(rest.strip_prefix(&[VALUE])?)? else { return None };
    let (&tag, content) = value.split_first()?;
    let value = match tag {
        TEXT => {
            let (content, []) = short(content)? else { return None };
            Value::String(text(content)?)
        }
        NUMBER => {
            let [number @ 0..0x80] = content else { return None };
            Value::Int(i64::from(*number))
        }
        _ => return None,
    };
    Some(KeyValue { key: text(key)?, value: Some(AnyValue { value: Some(value) }) })
}

/// Takes bytes off whose length is told in one byte before them.
#[inline]
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first().filter(|(length, _)| **length < 0x80)?;
    rest.split_at_checked(length.into())
}

fn any_attribute_of(bytes: &[u8]) -> Option<KeyValue> {
    let mut attribute = KeyValue::default();
    let mut fields = Fields::of(bytes);
    for field in fields.by_ref() {
        match field {
            (1, Field::Bytes(key)) => attribute.key = text(key)?,
            // A second one would be merged with the first.
            (2, Field::Bytes(value)) if attribute.value.is_none() => attribute.value = Some(value_of(value, true)?),
            (1..=2, _) => return None,
            _ => {}
        }
    }
    fields.rest().is_empty().then_some(attribute)
}

/// Reads a value that is no map; a list only of what is neither, and where `may_be_list`: how deep values may lie depends on
/// what they lie in, and prost counts that.
fn value_of(bytes: &[u8], may_be_list: bool) -> Option<AnyValue> {
    let mut found = None;
    let mut fields = Fields::of(bytes);
    for field in fields.by_ref() {
        let value = match field {
            (1, Field::Bytes(bytes)) => Value::String(text(bytes)?),
            (2, Field::Varint(flag)) => Value::Bool(flag != 0),
            (3, Field::Varint(number)) => Value::Int(number as i64),
            (4, Field::Fixed64(number)) => Value::Double(f64::from_le_bytes(number)),
            (5, Field::Bytes(list)) if may_be_list => Value::Array(list_of(list)?),
            (7, Field::Bytes(bytes)) => Value::Bytes(bytes.to_vec()),
            (1..=7, _) => return None,
            _ => continue,
        };
        if found.replace(value).is_some() {
            return None;
        }
    }
    fields.rest().is_empty().then_some(AnyValue { value: found })
}

fn list_of(bytes: &[u8]) -> Option<ArrayValue> {
    let mut list = ArrayValue::default();
    let mut fields = Fields::of(bytes);
    for field in fields.by_ref() {
        match field {
            (1, Field::Bytes(value)) => list.values.push(value_of(value, false)?),
            (1, _) => return None,
            _ => {}
        }
    }
    fields.rest().is_empty().then_some(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::DecodeError;

    use super::*;
    use crate::model::otlp::{KvList, Link};

    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            ".{0,12}".prop_map(Value::String),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Double),
            prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
        ];
        scalar.prop_recursive(3, 12, 3, |inner| {
            let some = prop::option::of(inner).prop_map(|value| AnyValue { value });
            let list = prop::collection::vec(some, 0..3);
            prop_oneof![
                list.clone().prop_map(|values| Value::Array(ArrayValue { values })),
                list.prop_map(|values| {
                    let entry = |value| KeyValue { key: "k".to_owned(), value: Some(value) };
                    Value::KvList(KvList { values: values.into_iter().map(entry).collect() })
                }),
            ]
        })
    }

    fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
        let value = prop::option::of(prop::option::of(value()).prop_map(|value| AnyValue { value }));
        prop::collection::vec((".{0,8}", value).prop_map(|(key, value)| KeyValue { key, value }), 0..5)
    }

    pub(crate) fn span() -> impl Strategy<Value = Span> {
        let event = (any::<u64>(), ".{0,4}", attributes(), 0..3_u32).prop_map(|(at, name, attributes, dropped)| {
            SpanEvent { time_unix_nano: at, name, attributes, dropped_attributes_count: dropped }
        });
        let link = attributes().prop_map(|attributes| Link { trace_id: vec![1; 16], attributes, ..Link::default() });
        let status = (".{0,4}", -1..3).prop_map(|(message, code)| Status { message, code });
        let ids = (prop::collection::vec(any::<u8>(), 0..17), prop::collection::vec(any::<u8>(), 0..9));
        let lists = (attributes(), prop::collection::vec(event, 0..3), prop::collection::vec(link, 0..2));
        let rest = (any::<u64>(), any::<i32>(), any::<u32>(), prop::option::of(status), ".{0,9}");
        (ids, lists, rest).prop_map(
            |((trace_id, span_id), (attributes, events, links), (at, kind, n, status, text))| Span {
                parent_span_id: span_id.clone(),
                trace_id,
                span_id,
                trace_state: text.clone(),
                flags: n,
                name: text,
                kind,
                start_time_unix_nano: at,
                end_time_unix_nano: at / 2,
                attributes,
                dropped_attributes_count: n,
                events,
                dropped_events_count: n / 2,
                links,
                dropped_links_count: n / 3,
                status,
            },
        )
    }

    proptest! {
        #[test]
        fn a_span_is_read_as_prost_reads_it_whole_or_damaged(
            span in span(),
            harm in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = span.encode_to_vec();
            if let (Some((at, byte)), false) = (harm, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            let theirs = Span::decode(&bytes[..]);
            let by_hand = span_of(&bytes).map_or_else(|| Span::decode(&bytes[..]), Ok);
            // Equal as they are written, since not every float equals itself.
            let written = |span: Result<Span, DecodeError>| span.map(|span| span.encode_to_vec()).ok();
            prop_assert_eq!(written(by_hand), written(theirs));
        }

        #[test]
        fn a_span_is_written_as_prost_writes_it(span in span()) {
            let mut written = Vec::new();
            crate::sources::encode::span(&mut written, &span);
            prop_assert_eq!(written, span.encode_to_vec());
        }
    }

    #[test]
    fn what_spans_are_usually_made_of_needs_nobody_else() {
        let mut span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "chat".to_owned(), ..Span::default() };
        span.set_attr("gen_ai.operation.name", "chat");
        span.set_attr("gen_ai.usage.input_tokens", 7);
        span.set_attr("gen_ai.request.temperature", 0.5);
        let reasons = ArrayValue { values: vec![Value::from("stop").into()] };
        span.set_attr("gen_ai.response.finish_reasons", Value::Array(reasons));
        span.status = Some(Status { code: 1, ..Status::default() });
        span.events = vec![SpanEvent { name: "exception".to_owned(), ..SpanEvent::default() }];
        assert_eq!(span_of(&span.encode_to_vec()), Some(span));
    }
}
