//! Fields of OTLP that a sender knows and this version does not: kept, and given back where they stood.
//!
//! As protobuf they are what they were, in the message that they were in, so that whoever reads it next may know them. In
//! memory and in JSON, which have no place for them, they are bytes under [`UNKNOWN_FIELDS`] among the attributes of
//! that message; those of a span's status are among the span's. Fields inside of attributes are not kept.

use prost::{DecodeError, Message};

use super::otlp::{KeyValue, LogRecord, Resource, Scope, ScopeSpans, Span, TracesData, Value};
use super::schema::{self, SCHEMA_URL};
use super::span_wire::span_of;
use super::wire::{Field, Fields, put};
use crate::sources::encode as wire;

/// The attribute that holds fields which are not known, as protobuf.
pub const UNKNOWN_FIELDS: &str = "runspan.otlp.unknown";

/// The attribute of an event that holds the fields which are not known of the record of a log that it came as.
pub const UNKNOWN_OF_LOG: &str = "runspan.log.unknown";

/// Fields up to these numbers are known.
const OF_SPAN: u32 = 16;
const OF_EVENT: u32 = 4;
const OF_LINK: u32 = 6;
const OF_STATUS: u32 = 3;
const OF_RESOURCE: u32 = 2;
const OF_SCOPE: u32 = 4;
const OF_LOG: u32 = 12;

/// Fields of a span that are messages.
const EVENTS: u32 = 11;
const LINKS: u32 = 13;
const STATUS: u32 = 15;

/// Decodes a span with all that it holds.
pub fn decode_span(bytes: &[u8]) -> Result<Span, DecodeError> {
    if let Some(span) = span_of(bytes) {
        return Ok(span);
    }
    let mut span = Span::decode(bytes)?;
    keep_of_span(&mut span, bytes);
    Ok(span)
}

/// Encodes a span with all that it held when it was decoded.
pub fn encode_span(span: &Span, out: &mut Vec<u8>) {
    let is_plain = !holds(&span.attributes)
        && span.events.iter().all(|event| !holds(&event.attributes))
        && span.links.iter().all(|link| !holds(&link.attributes));
    if is_plain {
        return wire::span(out, span);
    }
    let mut bare = span.clone();
    let unknown = take(&mut bare.attributes);
    let (events, links) = (std::mem::take(&mut bare.events), std::mem::take(&mut bare.links));
    append(&bare, out);
    for mut event in events {
        let unknown = take(&mut event.attributes);
        put(out, EVENTS, Field::Bytes(&with(&event, &unknown, OF_EVENT)));
    }
    for mut link in links {
        let unknown = take(&mut link.attributes);
        put(out, LINKS, Field::Bytes(&with(&link, &unknown, OF_LINK)));
    }
    out.extend(beyond_span(&unknown, |_, _| ()));
}

/// Decodes a resource with all that it holds.
pub fn decode_resource(bytes: &[u8]) -> Result<Resource, DecodeError> {
    let mut resource = Resource::decode(bytes)?;
    keep_of_resource(&mut resource, bytes);
    Ok(resource)
}

/// Notes what of a resource's bytes the resource does not hold.
pub(crate) fn keep_of_resource(resource: &mut Resource, bytes: &[u8]) {
    note(&mut resource.attributes, beyond(bytes, OF_RESOURCE));
}

/// Notes what of a scope's bytes the scope does not hold.
pub(crate) fn keep_of_scope(scope: &mut Scope, bytes: &[u8]) {
    note(&mut scope.attributes, beyond(bytes, OF_SCOPE));
}

/// Notes what of the bytes of a record of a log the record does not hold. They are no fields of the event that it becomes, so
/// they stay bytes.
pub fn keep_of_log(log: &mut LogRecord, bytes: &[u8]) {
    let unknown = beyond(bytes, OF_LOG);
    if !unknown.is_empty() {
        let value = Some(Value::Bytes(unknown).into());
        log.attributes.push(KeyValue { key: UNKNOWN_OF_LOG.to_owned(), value });
    }
}

/// Encodes a resource with all that it held when it was decoded.
pub fn encode_resource(resource: &Resource) -> Vec<u8> {
    if !holds(&resource.attributes) {
        return resource.encode_to_vec();
    }
    let mut bare = resource.clone();
    let unknown = take(&mut bare.attributes);
    with(&bare, &unknown, OF_RESOURCE)
}

/// Decodes a scope with all that it holds.
pub fn decode_scope(bytes: &[u8]) -> Result<Scope, DecodeError> {
    let mut scope = Scope::decode(bytes)?;
    keep_of_scope(&mut scope, bytes);
    Ok(scope)
}

/// Encodes a scope with all that it held when it was decoded.
pub fn encode_scope(scope: &Scope, out: &mut Vec<u8>) {
    if !holds(&scope.attributes) {
        return append(scope, out);
    }
    // Not by a copy, since this is done for each span.
    put_text(out, 1, &scope.name);
    put_text(out, 2, &scope.version);
    let mut behind = Vec::new();
    for attribute in &scope.attributes {
        match (attribute.key.as_str(), attribute.value.as_ref().and_then(|value| value.value.as_ref())) {
            (UNKNOWN_FIELDS, Some(Value::Bytes(unknown))) => behind.extend(beyond(unknown, OF_SCOPE)),
            // It stands beside the scope.
            (UNKNOWN_FIELDS | SCHEMA_URL, _) => {}
            _ => put(out, 3, Field::Bytes(&attribute.encode_to_vec())),
        }
    }
    if scope.dropped_attributes_count > 0 {
        put(out, 4, Field::Varint(scope.dropped_attributes_count.into()));
    }
    out.extend(behind);
}

/// Encodes a message with one span, and its scope, with all that they held when they were decoded.
pub fn encode_one(scope: &Scope, span: &Span, out: &mut Vec<u8>) {
    wire::message(out, 1, |out| encode_scope(scope, out));
    wire::message(out, 2, |out| encode_span(span, out));
    schema::put_of_scope(&scope.attributes, out);
}

/// Decodes the scope of a message with one span, and the span, with all that they hold.
pub fn decode_one(scope_spans: &[u8]) -> Option<(Scope, Span)> {
    if let Some((scope, span, around)) = parts(scope_spans) {
        let mut scope = decode_scope(scope).ok()?;
        schema::note_of(&mut scope.attributes, around);
        return Some((scope, decode_span(span).ok()?));
    }
    let mut found = ScopeSpans::decode(scope_spans).ok()?;
    let (mut span, mut scope) = (found.spans.pop()?, found.scope.unwrap_or_default());
    for field in Fields::of(scope_spans) {
        match field {
            (1, Field::Bytes(bytes)) => keep_of_scope(&mut scope, bytes),
            (2, Field::Bytes(bytes)) => keep_of_span(&mut span, bytes),
            _ => {}
        }
    }
    schema::note(&mut scope.attributes, &found.schema_url);
    Some((scope, span))
}

/// Finds the scope and the span of a message that has one of each, and what stands behind them: at most their schema URL.
fn parts(scope_spans: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut fields = Fields::of(scope_spans);
    let (Some((1, Field::Bytes(scope))), Some((2, Field::Bytes(span)))) = (fields.next(), fields.next()) else {
        return None;
    };
    let around = fields.rest();
    let is_url = |field| matches!(field, (3, Field::Bytes(_)));
    (fields.by_ref().all(is_url) && fields.rest().is_empty()).then_some((scope, span, around))
}

/// Encodes a request with all that its parts held when they were decoded.
pub fn encode_traces(mut traces: TracesData) -> Vec<u8> {
    schema::lift(&mut traces);
    let mut out = Vec::new();
    for of_resource in &traces.resource_spans {
        let mut outer = Vec::new();
        if let Some(resource) = &of_resource.resource {
            put(&mut outer, 1, Field::Bytes(&encode_resource(resource)));
        }
        for of_scope in &of_resource.scope_spans {
            let mut inner = Vec::new();
            if let Some(scope) = &of_scope.scope {
                let mut bytes = Vec::new();
                encode_scope(scope, &mut bytes);
                put(&mut inner, 1, Field::Bytes(&bytes));
            }
            for span in &of_scope.spans {
                let mut bytes = Vec::new();
                encode_span(span, &mut bytes);
                put(&mut inner, 2, Field::Bytes(&bytes));
            }
            put_text(&mut inner, 3, &of_scope.schema_url);
            put(&mut outer, 2, Field::Bytes(&inner));
        }
        put_text(&mut outer, 3, &of_resource.schema_url);
        put(&mut out, 1, Field::Bytes(&outer));
    }
    out
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put(out, number, Field::Bytes(text.as_bytes()));
    }
}

/// Notes what of a span's bytes the span does not hold.
fn keep_of_span(span: &mut Span, bytes: &[u8]) {
    let (mut events, mut links) = (span.events.iter_mut(), span.links.iter_mut());
    let unknown = beyond_span(bytes, |number, inner| {
        let (attributes, known) = match number {
            EVENTS => (events.next().map(|event| &mut event.attributes), OF_EVENT),
            LINKS => (links.next().map(|link| &mut link.attributes), OF_LINK),
            _ => return,
        };
        if let Some(attributes) = attributes {
            note(attributes, beyond(inner, known));
        }
    });
    note(&mut span.attributes, unknown);
}

/// Returns the fields of a span that are not known, and those of its status; shows each message in it.
fn beyond_span(bytes: &[u8], mut each: impl FnMut(u32, &[u8])) -> Vec<u8> {
    let (mut fields, mut unknown) = (Fields::of(bytes), Vec::new());
    loop {
        let before = fields.rest();
        let Some((number, value)) = fields.next() else { return unknown };
        match value {
            _ if number > OF_SPAN => unknown.extend_from_slice(&before[..before.len() - fields.rest().len()]),
            Field::Bytes(status) if number == STATUS => {
                let of_status = beyond(status, OF_STATUS);
                if !of_status.is_empty() {
                    // Two messages in one field are one to who decodes them.
                    put(&mut unknown, STATUS, Field::Bytes(&of_status));
                }
            }
            Field::Bytes(inner) => each(number, inner),
            _ => {}
        }
    }
}

/// Copies the fields of a message whose numbers are greater, as they stand. What makes no sense is left out, so that
/// bytes from anywhere can change nothing that is known.
fn beyond(message: &[u8], known: u32) -> Vec<u8> {
    let (mut fields, mut unknown) = (Fields::of(message), Vec::new());
    loop {
        let before = fields.rest();
        let Some((number, _)) = fields.next() else { return unknown };
        if number > known {
            unknown.extend_from_slice(&before[..before.len() - fields.rest().len()]);
        }
    }
}

/// Tells whether something stands among attributes that stood elsewhere.
fn holds(attributes: &[KeyValue]) -> bool {
    attributes.iter().any(|attribute| attribute.key == UNKNOWN_FIELDS || attribute.key == SCHEMA_URL)
}

fn note(attributes: &mut Vec<KeyValue>, unknown: Vec<u8>) {
    if !unknown.is_empty() {
        attributes.push(KeyValue { key: UNKNOWN_FIELDS.to_owned(), value: Some(Value::Bytes(unknown).into()) });
    }
}

/// Takes out what was noted.
fn take(attributes: &mut Vec<KeyValue>) -> Vec<u8> {
    let mut unknown = Vec::new();
    attributes.retain_mut(|attribute| {
        if attribute.key != UNKNOWN_FIELDS {
            return true;
        }
        if let Some(Value::Bytes(bytes)) = attribute.value.take().and_then(|value| value.value) {
            unknown.extend(bytes);
        }
        false
    });
    unknown
}

fn with(message: &impl Message, unknown: &[u8], known: u32) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    bytes.extend(beyond(unknown, known));
    bytes
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    let encoded = message.encode(out);
    // A vector grows, so there is always room.
    debug_assert!(encoded.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: u32 = 900;

    fn later(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, LATER, Field::Bytes(text.as_bytes()));
        put(&mut bytes, LATER + 1, Field::Varint(7));
        put(&mut bytes, LATER + 2, Field::Fixed64([1; 8]));
        put(&mut bytes, LATER + 3, Field::Fixed32([2; 4]));
        bytes
    }

    /// A message with one span, all of whose parts have fields of a later version.
    fn of_later_version() -> Vec<u8> {
        let part = |number: u32, text: &str, out: &mut Vec<u8>| put(out, number, Field::Bytes(&later(text)));
        let mut span = Vec::new();
        put(&mut span, 2, Field::Bytes(&[9; 8]));
        part(EVENTS, "first event", &mut span);
        part(EVENTS, "second event", &mut span);
        part(LINKS, "link", &mut span);
        part(STATUS, "status", &mut span);
        span.extend(later("span"));
        let mut scope_spans = Vec::new();
        part(1, "scope", &mut scope_spans);
        put(&mut scope_spans, 2, Field::Bytes(&span));
        scope_spans
    }

    fn encoded(scope: &Scope, span: &Span) -> Vec<u8> {
        let of_scope = ScopeSpans { scope: Some(scope.clone()), spans: vec![span.clone()], ..ScopeSpans::default() };
        let of_resource = crate::model::otlp::ResourceSpans { scope_spans: vec![of_scope], ..Default::default() };
        let request = encode_traces(TracesData { resource_spans: vec![of_resource] });
        let inner = |bytes: Vec<u8>, number: u32| {
            let found = Fields::of(&bytes).find_map(|field| match field {
                (of, Field::Bytes(bytes)) if of == number => Some(bytes.to_vec()),
                _ => None,
            });
            found.unwrap()
        };
        inner(inner(request, 1), 2)
    }

    #[test]
    fn what_a_later_version_says_is_given_back_where_it_stood() {
        let (scope, span) = decode_one(&of_later_version()).unwrap();
        assert!(holds(&span.attributes) && span.events.iter().all(|event| holds(&event.attributes)));
        let again = decode_one(&encoded(&scope, &span)).unwrap();
        assert_eq!(again, (scope.clone(), span.clone()));
        // Over JSON as well, and once more as protobuf.
        let json: Span = serde_json::from_str(&serde_json::to_string(&span).unwrap()).unwrap();
        assert_eq!(json, span);
        let bytes = encoded(&scope, &json);
        for part in ["scope", "first event", "second event", "link", "status", "span"] {
            let told = bytes.windows(part.len()).filter(|window| *window == part.as_bytes()).count();
            assert!(told == 1 || (part == "span" && told >= 1), "{part} stands there {told} times");
        }
        assert!(!bytes.windows(UNKNOWN_FIELDS.len()).any(|window| window == UNKNOWN_FIELDS.as_bytes()));
        let bytes = [Resource::default().encode_to_vec(), later("resource")].concat();
        assert_eq!(encode_resource(&decode_resource(&bytes).unwrap()), bytes);
    }

    #[test]
    fn what_is_known_is_as_it_was_and_no_bytes_can_change_it() {
        let mut span = Span { span_id: vec![9; 8], name: "mine".into(), ..Span::default() };
        span.set_attr("a", 1);
        let mut plain = Vec::new();
        encode_span(&span, &mut plain);
        assert_eq!(plain, span.encode_to_vec());
        assert_eq!(decode_span(&plain).unwrap(), span);

        // An attribute that says it holds what is not known, with what is.
        let mut forged = Span { span_id: vec![1; 8], name: "theirs".into(), ..Span::default() }.encode_to_vec();
        forged.extend(later("more"));
        forged.extend([0xff; 3]);
        let mut with_forged = span.clone();
        with_forged.set_attr(UNKNOWN_FIELDS, Value::Bytes(forged));
        let mut bytes = Vec::new();
        encode_span(&with_forged, &mut bytes);
        assert_eq!(Span::decode(bytes.as_slice()).unwrap(), span);
        assert!(bytes.ends_with(&later("more")));
    }
}
