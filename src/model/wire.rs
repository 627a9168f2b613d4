//! A walk over protobuf bytes that decodes nothing: enough to see whose record something is, or how much is in it.

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A whole number.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32([u8; 4]),
}

/// The fields of a message, by number, in the order in which they stand. Ends early where the bytes make no sense.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins a walk.
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Returns the bytes that the walk has not come to: once it has ended, those that make no sense.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.rest.split_first() {
            // Most keys and lengths are one byte.
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Some(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            if place == 9 && *byte > 1 {
                // More than 64 bits.
                return None;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Some(number);
            }
        }
        None
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let begin = self.rest;
        let field = self.field();
        if field.is_none() {
            self.rest = begin;
        }
        field
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Field<'a>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        // Fields are numbered from 1: https://protobuf.dev/programming-guides/proto3/#assigning
        let number = Some(key >> 3).filter(|number| *number > 0)?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.take()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(self.take()?),
            _ => return None,
        };
        Some((number, field))
    }
}

/// Writes a field.
pub fn put(out: &mut Vec<u8>, number: u32, value: Field<'_>) {
    let wire_type = match value {
        Field::Varint(_) => 0,
        Field::Fixed64(_) => 1,
        Field::Bytes(_) => 2,
        Field::Fixed32(_) => 5,
    };
    prost::encoding::encode_varint(u64::from(number << 3 | wire_type), out);
    match value {
        Field::Varint(number) => prost::encoding::encode_varint(number, out),
        Field::Fixed64(bytes) => out.extend_from_slice(&bytes),
        Field::Bytes(bytes) => {
            prost::encoding::encode_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
        Field::Fixed32(bytes) => out.extend_from_slice(&bytes),
    }
}

/// What tells whose record a `ScopeSpans` with one span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Did the emitter leave events out?
    pub has_dropped_events: bool,
}

impl SpanIds {
    /// Reads the ids of the first span; `None` where there is none, or none with ids.
    pub fn of(scope_spans: &[u8]) -> Option<Self> {
        let span = Fields::of(scope_spans).find_map(|field| match field {
            (2, Field::Bytes(span)) => Some(span),
            _ => None,
        })?;
        let (mut trace_id, mut span_id, mut has_dropped_events) = (None, None, false);
        for field in Fields::of(span) {
            match field {
                (1, Field::Bytes(bytes)) => trace_id = bytes.try_into().ok(),
                (2, Field::Bytes(bytes)) => span_id = bytes.try_into().ok(),
                (12, Field::Varint(count)) => has_dropped_events = count > 0,
                _ => {}
            }
        }
        Some(Self { trace_id: trace_id?, span_id: span_id?, has_dropped_events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::{ScopeSpans, Span};
    use prost::Message;

    fn encoded(span: Span) -> Vec<u8> {
        ScopeSpans { spans: vec![span], ..ScopeSpans::default() }.encode_to_vec()
    }

    #[test]
    fn what_makes_no_sense_is_left_over_from_its_first_byte_on() {
        for senseless in [&[0][..], &[0, 0, 0], &[0x0a, 9, 1], &[0x0b], &[0xff]] {
            let mut fields = Fields::of(senseless);
            assert_eq!((fields.next(), fields.rest()), (None, senseless));
        }
    }

    #[test]
    fn ids_are_found_among_all_other_fields() {
        let mut span = Span {
            trace_id: vec![7; 16],
            span_id: vec![9; 8],
            parent_span_id: vec![1; 8],
            name: "x".repeat(300),
            flags: 0x301,
            start_time_unix_nano: u64::MAX,
            dropped_events_count: 3,
            ..Span::default()
        };
        span.set_attr("a", i64::MIN);
        let ids = SpanIds { trace_id: [7; 16], span_id: [9; 8], has_dropped_events: true };
        assert_eq!(SpanIds::of(&encoded(span.clone())), Some(ids));
        span.span_id.pop();
        assert_eq!(SpanIds::of(&encoded(span)), None);
    }

    #[test]
    fn bytes_that_make_no_sense_end_the_walk() {
        let whole = encoded(Span { trace_id: vec![7; 16], span_id: vec![9; 8], ..Span::default() });
        for end in 0..whole.len() {
            assert_eq!(SpanIds::of(&whole[..end]), None, "cut at {end}");
        }
        for bytes in [&[0xff; 32][..], &[0x0b], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(Fields::of(bytes).count(), 0);
        }
    }
}
