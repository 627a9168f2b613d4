//! Numbers for what spans say, by which copies of one are told apart.

use super::otlp::{AnyValue, KeyValue, Link, Resource, Scope, Span, SpanEvent, Value};

/// Values deeper than this count as one.
const MAX_DEPTH: usize = 64;

/// Returns a checksum (CRC-32C) of what is said of a span: its name, parent, times, status, attributes, events and links, and who
/// made it. Attributes, events and links count in any order.
///
/// It is the same on every machine, so that which one of two copies counts does not depend on where they came, or when.
pub(crate) fn digest_of(span: &Span, resource: Option<&Resource>, scope: Option<&Scope>) -> u32 {
    let mut crc = Crc::default();
    crc.text(&span.name);
    crc.bytes(&span.parent_span_id);
    crc.number(span.start_time_unix_nano);
    crc.number(span.end_time_unix_nano);
    crc.bytes(&span.kind.to_le_bytes());
    if let Some(status) = &span.status {
        crc.bytes(&status.code.to_le_bytes());
        crc.text(&status.message);
    }
    crc.text(scope.map_or("", |scope| &scope.name));
    crc.text(scope.map_or("", |scope| &scope.version));
    let made_by: &[KeyValue] = resource.map_or(&[], |resource| &resource.attributes);
    let attributes = [&span.attributes, made_by].into_iter().map(|list| sum(list, Crc::attribute));
    let others = [sum(&span.events, Crc::event), sum(&span.links, Crc::link)];
    attributes.chain(others).for_each(|sum| crc.bytes(&sum.to_le_bytes()));
    crc.0
}

fn sum<T>(list: &[T], add: impl Fn(&mut Crc, &T)) -> u32 {
    list.iter().fold(0, |sum, one| {
        let mut crc = Crc::default();
        add(&mut crc, one);
        sum.wrapping_add(crc.0)
    })
}

#[derive(Default)]
struct Crc(u32);

impl Crc {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// What follows a text, or a list, is no part of it.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn event(&mut self, event: &SpanEvent) {
        self.number(event.time_unix_nano);
        self.text(&event.name);
        self.bytes(&sum(&event.attributes, Self::attribute).to_le_bytes());
    }

    fn link(&mut self, link: &Link) {
        self.bytes(&link.trace_id);
        self.bytes(&link.span_id);
    }

    fn attribute(&mut self, attribute: &KeyValue) {
        self.member(attribute, 0);
    }

    fn member(&mut self, member: &KeyValue, depth: usize) {
        self.text(&member.key);
        self.value(member.value.as_ref(), depth);
    }

    fn value(&mut self, held: Option<&AnyValue>, depth: usize) {
        // The kind first: a text `1` is not the number.
        match held.and_then(|held| held.value.as_ref()).filter(|_| depth < MAX_DEPTH) {
            None => self.bytes(&[0]),
            Some(Value::String(text)) => {
                self.bytes(&[1]);
                self.text(text);
            }
            Some(Value::Bool(is)) => self.bytes(&[2, u8::from(*is)]),
            Some(Value::Int(number)) => {
                self.bytes(&[3]);
                self.bytes(&number.to_le_bytes());
            }
            Some(Value::Double(number)) => {
                self.bytes(&[4]);
                self.number(number.to_bits());
            }
            Some(Value::Array(list)) => {
                self.bytes(&[5]);
                self.number(list.values.len() as u64);
                list.values.iter().for_each(|one| self.value(Some(one), depth + 1));
            }
            Some(Value::KvList(map)) => {
                self.bytes(&[6]);
                self.number(map.values.len() as u64);
                map.values.iter().for_each(|member| self.member(member, depth + 1));
            }
            Some(Value::Bytes(bytes)) => {
                self.bytes(&[7]);
                self.number(bytes.len() as u64);
                self.bytes(bytes);
            }
        }
    }
}
