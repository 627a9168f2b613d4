//! A number for what a span says, by which copies of it are told apart that are alike in all that counts.

use super::otlp::{AnyValue, KeyValue, Span, Value};

/// Values deeper than this count as one.
const MAX_DEPTH: usize = 64;

impl Span {
    /// Returns a checksum (CRC-32C) of what the span says itself: its name, parent, times, status and attributes, in any order.
    ///
    /// Not of its events and links: what came in logs is among them, and copies are joined in those. The number is the same on
    /// every machine, so that which one of two copies counts does not depend on where or in which order they came.
    pub(crate) fn digest(&self) -> u32 {
        let mut crc = crc32c::crc32c(self.name.as_bytes());
        let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
        add(&self.parent_span_id);
        add(&self.start_time_unix_nano.to_le_bytes());
        add(&self.end_time_unix_nano.to_le_bytes());
        add(&self.kind.to_le_bytes());
        if let Some(status) = &self.status {
            add(&status.code.to_le_bytes());
            add(status.message.as_bytes());
        }
        self.attributes.iter().fold(crc, |sum, attribute| {
            let mut crc = 0;
            attributes(std::slice::from_ref(attribute), 0, &mut |bytes| crc = crc32c::crc32c_append(crc, bytes));
            sum.wrapping_add(crc)
        })
    }
}

fn attributes(list: &[KeyValue], depth: usize, add: &mut impl FnMut(&[u8])) {
    for KeyValue { key, value: held } in list {
        add(key.as_bytes());
        value(held.as_ref(), depth, add);
    }
}

fn value(held: Option<&AnyValue>, depth: usize, add: &mut impl FnMut(&[u8])) {
    // The kind first: a text `1` is not the number.
    match held.and_then(|held| held.value.as_ref()).filter(|_| depth < MAX_DEPTH) {
        None => add(&[0]),
        Some(Value::String(text)) => {
            add(&[1]);
            add(text.as_bytes());
        }
        Some(Value::Bool(is)) => add(&[2, u8::from(*is)]),
        Some(Value::Int(number)) => {
            add(&[3]);
            add(&number.to_le_bytes());
        }
        Some(Value::Double(number)) => {
            add(&[4]);
            add(&number.to_bits().to_le_bytes());
        }
        Some(Value::Array(list)) => {
            add(&[5]);
            list.values.iter().for_each(|one| value(Some(one), depth + 1, add));
        }
        Some(Value::KvList(map)) => {
            add(&[6]);
            attributes(&map.values, depth + 1, add);
        }
        Some(Value::Bytes(bytes)) => {
            add(&[7]);
            add(bytes);
        }
    }
}
