//! Spans and records of logs that are too large to be stored: the longest of their texts are cut, on the bytes as they came.

use prost::Message;

use super::protobuf::MAX_DEPTH;
use crate::conventions::names;
use crate::model::otlp::{KeyValue, Span, Value};
use crate::model::unknown;
use crate::model::wire::{Field, Fields, put};

/// What is left of a text that is cut, in bytes.
const LEFT: usize = 64 << 10;
/// What the mark of a cut, the lengths around it and the note of it take at most.
const NOTE: usize = 64;
/// How far before its end a cut looks for the end of a word: a secret that is cut in two would not be known for one.
const WORD: usize = 4 << 10;

/// What a message is, by what its fields hold.
///
/// Source: `opentelemetry/proto/{trace,logs,common}/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Span,
    Log,
    Resource,
    Scope,
    Event,
    Link,
    Status,
    Attribute,
    Value,
    List,
    Map,
    Text,
    Bytes,
}

impl Kind {
    const fn of_field(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Span, 5) | (Self::Status, 2) | (Self::Value, 1) | (Self::Event, 2) | (Self::Scope, 1 | 2) => {
                Self::Text
            }
            (Self::Resource, 1) | (Self::Scope, 3) => Self::Attribute,
            (Self::Span, 9) | (Self::Log, 6) | (Self::Event, 3) | (Self::Link, 4) | (Self::Map, 1) => Self::Attribute,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::Span, 15) => Self::Status,
            (Self::Log, 5) | (Self::Attribute, 2) | (Self::List, 1) => Self::Value,
            (Self::Value, 5) => Self::List,
            (Self::Value, 6) => Self::Map,
            (Self::Value, 7) => Self::Bytes,
            _ => return None,
        })
    }

    /// The field of its attributes.
    const fn attributes(self) -> u32 {
        match self {
            Self::Log => 6,
            Self::Resource => 1,
            Self::Scope => 3,
            _ => 9,
        }
    }
}

/// Returns a span, a record of a log, a resource or a scope with the longest of its texts cut, each with a mark, and with `runspan.cut`, so that it has `max` bytes
/// at most. `None` where its texts are not what makes it so large, or it is damaged.
pub(super) fn shortened(kind: Kind, message: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut lengths = Vec::new();
    measure(kind, message, 0, &mut lengths)?;
    lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
    let mut surplus = (message.len() + NOTE).checked_sub(max)?;
    let shortest = lengths.into_iter().find(|length| {
        surplus = surplus.saturating_sub(length - LEFT - NOTE);
        surplus == 0
    })?;
    let mut out = Vec::with_capacity(max);
    rewrite(kind, message, shortest, 0, &mut out);
    let note = KeyValue { key: names::CUT.to_owned(), value: Some(Value::String("attributes".to_owned()).into()) };
    put(&mut out, kind.attributes(), Field::Bytes(&note.encode_to_vec()));
    Some(out)
}

/// Cuts the longest texts of a span that has more bytes than it may have, where that helps. Tells whether it did.
pub(crate) fn hold(span: &mut Span, max: usize) -> bool {
    if span.encoded_len() > max
        && let Some(bytes) = shortened(Kind::Span, &span.encode_to_vec(), max)
        && let Ok(held) = unknown::decode_span(&bytes)
    {
        *span = held;
        return true;
    }
    false
}

/// Adds the lengths of all texts that are long enough to be cut. `None` for a message that is damaged.
fn measure(kind: Kind, message: &[u8], depth: u32, lengths: &mut Vec<usize>) -> Option<()> {
    let mut fields = Fields::of(message);
    for (number, value) in fields.by_ref() {
        match (kind.of_field(number), value) {
            (Some(Kind::Text), Field::Bytes(text)) => {
                std::str::from_utf8(text).ok()?;
                lengths.extend(Some(text.len()).filter(|length| *length > LEFT + NOTE));
            }
            (Some(Kind::Bytes), Field::Bytes(bytes)) => {
                lengths.extend(Some(bytes.len()).filter(|length| *length > LEFT + NOTE));
            }
            (Some(inner), Field::Bytes(bytes)) if depth < MAX_DEPTH => measure(inner, bytes, depth + 1, lengths)?,
            _ => {}
        }
    }
    fields.rest().is_empty().then_some(())
}

/// Copies a message with all texts cut that have so many bytes or more.
fn rewrite(kind: Kind, message: &[u8], shortest: usize, depth: u32, out: &mut Vec<u8>) {
    for (number, value) in Fields::of(message) {
        match (kind.of_field(number), value) {
            (Some(Kind::Text), Field::Bytes(text)) if text.len() >= shortest => {
                put(out, number, Field::Bytes(cut(&String::from_utf8_lossy(text)).as_bytes()));
            }
            // There is no mark that bytes could bear: they are a text then, field 1 of a value.
            (Some(Kind::Bytes), Field::Bytes(bytes)) if bytes.len() >= shortest => {
                put(out, 1, Field::Bytes(format!("[cut:{}]", bytes.len()).as_bytes()));
            }
            (Some(Kind::Text | Kind::Bytes), value) => put(out, number, value),
            (Some(inner), Field::Bytes(bytes)) if bytes.len() >= shortest && depth < MAX_DEPTH => {
                let mut held = Vec::new();
                rewrite(inner, bytes, shortest, depth + 1, &mut held);
                put(out, number, Field::Bytes(&held));
            }
            (_, value) => put(out, number, value),
        }
    }
}

fn cut(text: &str) -> String {
    let kept = &text[..text.floor_char_boundary(LEFT)];
    let in_word = |char: char| char.is_alphanumeric() || "_-+/=.~%:".contains(char);
    let border = kept.rfind(|char| !in_word(char)).filter(|border| kept.len() - border < WORD);
    let kept = border.map_or(kept, |border| &kept[..border]);
    format!("{kept}[cut:{}]", text.len() - kept.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::otlp::{AnyValue, ArrayValue, KvList, LogRecord, SpanEvent, Status};

    fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(value.into().into()) }
    }

    fn words(bytes: usize) -> String {
        "word ".repeat(bytes.div_ceil(5))
    }

    #[test]
    fn of_a_span_that_is_too_large_the_longest_texts_are_cut_wherever_they_are() {
        let list = |text: String| Value::Array(ArrayValue { values: vec![Value::String(text).into()] });
        let map = |text: String| Value::KvList(KvList { values: vec![attribute("inside", list(text))] });
        let span = Span {
            name: "chat".to_owned(),
            attributes: vec![
                attribute("short", words(1_000)),
                attribute("long", words(900_000)),
                attribute("longer", words(2_000_000)),
                attribute("deep", map(words(1_500_000))),
                attribute("bytes", Value::Bytes(vec![255; 1_200_000])),
            ],
            events: vec![SpanEvent { attributes: vec![attribute("text", words(1_100_000))], ..SpanEvent::default() }],
            status: Some(Status { message: words(1_000_000), code: 2 }),
            ..Span::default()
        };
        let mut held = span.clone();
        hold(&mut held, 8 << 20);
        assert!(held == span, "nothing is cut of what is small enough");
        hold(&mut held, 9 << 18);
        assert!(held.encoded_len() <= 9 << 18);
        let text = |value: Option<&AnyValue>| match &value.unwrap().value {
            Some(Value::KvList(map)) => match &map.values[0].value.as_ref().unwrap().value {
                Some(Value::Array(list)) => list.values[0].value.as_ref().unwrap().as_str().unwrap().to_owned(),
                other => format!("{other:?}"),
            },
            Some(value) => value.as_str().unwrap().to_owned(),
            None => String::new(),
        };
        let tails: Vec<String> = held
            .attributes
            .iter()
            .chain(&held.events[0].attributes)
            .map(|attribute| {
                let text = text(attribute.value.as_ref());
                let tail: Vec<char> = text.chars().rev().take(18).collect();
                format!("{} {} {}", attribute.key, text.len(), tail.iter().rev().collect::<String>())
            })
            .collect();
        insta::assert_debug_snapshot!(tails, @r#"
        [
            "short 1000 rd word word word ",
            "long 900000 rd word word word ",
            "longer 65547  word[cut:1934466]",
            "deep 65547  word[cut:1434466]",
            "bytes 13 [cut:1200000]",
            "runspan.cut 10 attributes",
            "text 65547  word[cut:1034466]",
        ]
        "#);
        // 900,000 bytes and what is left of the others and the message, which is shorter than what was cut, are less than that.
        assert!(held.status.unwrap().message == words(1_000_000));
    }

    #[test]
    fn what_no_cut_makes_small_enough_or_is_damaged_is_left_as_it_is() {
        let many = Span { attributes: (0..1_000).map(|_| attribute("a", words(1_000))).collect(), ..Span::default() };
        assert_eq!(shortened(Kind::Span, &many.encode_to_vec(), 100_000), None);
        let one = Span { attributes: vec![attribute("a", words(1_000_000))], ..Span::default() };
        let bytes = one.encode_to_vec();
        assert!(shortened(Kind::Span, &bytes, 100_000).is_some());
        assert_eq!(shortened(Kind::Span, &bytes[..bytes.len() - 1], 100_000), None);
        let log = LogRecord { body: Some(Value::String(words(1_000_000)).into()), ..LogRecord::default() };
        let held = LogRecord::decode(&shortened(Kind::Log, &log.encode_to_vec(), 100_000).unwrap()[..]).unwrap();
        assert!(held.body.unwrap().value.unwrap().as_str().unwrap().ends_with("word[cut:934466]"));
        assert_eq!(held.attributes, [attribute(names::CUT, "attributes")]);
    }

    #[test]
    fn a_cut_goes_through_no_word_that_may_be_a_secret() {
        let secret = "A1-_b2.C3/d4+E5=".repeat(8);
        let text = format!("{} {secret}{}", "x".repeat(LEFT - 60), "y".repeat(LEFT));
        assert!(!cut(&text).contains("A1"), "half a secret is left");
        // One word without an end is none.
        assert_eq!(cut(&"x".repeat(2 * LEFT)), format!("{}[cut:{LEFT}]", "x".repeat(LEFT)));
        assert_eq!(cut(&"é".repeat(LEFT)).len(), LEFT + "[cut:65536]".len());
    }

    proptest! {
        #[test]
        fn whatever_a_span_holds_it_fits_or_stays(lengths in prop::collection::vec(0usize..300_000, 0..8), max in 70_000usize..600_000) {
            let span = Span {
                attributes: lengths.iter().map(|length| attribute("k", "€".repeat(length / 3))).collect(),
                ..Span::default()
            };
            let bytes = span.encode_to_vec();
            match shortened(Kind::Span, &bytes, max) {
                Some(held) => {
                    prop_assert!(held.len() <= max);
                    let held = Span::decode(&held[..]).unwrap();
                    prop_assert_eq!(held.attributes.len(), lengths.len() + 1);
                }
                // Within it, or not to be made so.
                None => prop_assert!(bytes.len() + NOTE <= max || lengths.iter().map(|length| (*length).min(LEFT)).sum::<usize>() + 2 * NOTE * 9 > max),
            }
        }
    }
}
