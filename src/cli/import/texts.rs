//! JSON as files have it: with marks and zeros around it, several objects behind each other, or in a list.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The mark that some programs begin a file with.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Returns a text without the blanks, marks and zeros around it, and how many zeros those were.
pub(super) fn bare(text: &[u8]) -> (&[u8], usize) {
    let (mut text, mut zeros) = (text.trim_ascii(), 0);
    loop {
        let before = text.len();
        text = text.strip_prefix(BOM).unwrap_or(text).trim_ascii();
        let (front, back) = (
            text.iter().take_while(|byte| **byte == 0).count(),
            text.iter().rev().take_while(|byte| **byte == 0).count(),
        );
        let back = back.min(text.len() - front);
        text = text[front..text.len() - back].trim_ascii();
        zeros += front + back;
        if text.len() == before {
            return (text, zeros);
        }
    }
}

/// Tells whether a file is UTF-16, by its mark or by its first two characters.
pub(super) fn is_utf16(beginning: &[u8]) -> bool {
    match beginning {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => *a >= b' ' && *b >= b' ',
        _ => false,
    }
}

/// Hands on the objects that a text has behind each other, those of a list one by one. Returns how many there were, and what
/// ended them.
pub(super) fn each_object(text: &str, mut take: impl FnMut(&str)) -> (u64, serde_json::Result<()>) {
    let mut taken = 0;
    let mut one = |object: &str| {
        taken += 1;
        take(object);
    };
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let ended = values.try_for_each(|value| {
        let value = value?.get();
        if value.starts_with('[') { list(value, &mut one) } else { object(value, &mut one) }
    });
    (taken, ended)
}

/// Returns where the object ends that a text begins with; `None` where it begins with none, or with one that is broken.
pub(super) fn first_object(text: &[u8]) -> Option<usize> {
    let object = text.strip_prefix(BOM).unwrap_or(text);
    let mut values = serde_json::Deserializer::from_slice(object).into_iter::<&RawValue>();
    values.next()?.ok().filter(|value| value.get().starts_with('{'))?;
    Some(text.len() - object.len() + values.byte_offset())
}

fn object(value: &str, take: &mut dyn FnMut(&str)) -> serde_json::Result<()> {
    if !value.starts_with('{') {
        return Err(serde::de::Error::custom("there is a value that is no object"));
    }
    take(value);
    Ok(())
}

/// Hands on the objects of a list, which may be more than there is room for their places.
fn list(text: &str, take: &mut dyn FnMut(&str)) -> serde_json::Result<()> {
    struct Objects<'a>(&'a mut dyn FnMut(&str));

    impl<'de> Visitor<'de> for Objects<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while let Some(value) = list.next_element::<&RawValue>()? {
                object(value.get(), self.0).map_err(serde::de::Error::custom)?;
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_seq(Objects(take))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_text_is_no_part_of_it() {
        let told = |text: &[u8]| {
            let (text, zeros) = bare(text);
            format!("{:?} {zeros}", String::from_utf8_lossy(text))
        };
        let texts: [&[u8]; 6] =
            [b"{}", b"\xef\xbb\xbf {}\r\n", b"\0\0 {} \0", b"\0\0\0", b" \0 \xef\xbb\xbf\0{\0}\0 \0", b""];
        assert_eq!(texts.map(told), [r#""{}" 0"#, r#""{}" 0"#, r#""{}" 3"#, r#""" 3"#, r#""{\0}" 4"#, r#""" 0"#]);
    }

    #[test]
    fn objects_are_found_behind_each_other_and_in_lists() {
        let told = |text: &str| {
            let mut found = Vec::new();
            let (taken, ended) = each_object(text, |object| found.push(object.to_owned()));
            format!("{taken} {found:?} {:?}", ended.map_err(|error| error.to_string()))
        };
        assert_eq!(
            told(r#"{"a":1}{"b":[2]} [{"c":3}, {}]"#),
            r#"4 ["{\"a\":1}", "{\"b\":[2]}", "{\"c\":3}", "{}"] Ok(())"#
        );
        assert_eq!(told("{} 5 {}"), r#"1 ["{}"] Err("there is a value that is no object")"#);
        assert_eq!(told("[{},[]]"), r#"1 ["{}"] Err("there is a value that is no object at line 1 column 7")"#);
        assert_eq!(told(r#"{}{"a""#), r#"1 ["{}"] Err("EOF while parsing an object at line 1 column 6")"#);
    }

    #[test]
    fn an_object_may_be_spread_over_lines() {
        fn end(text: &str) -> Option<&str> {
            first_object(text.as_bytes()).map(|end| &text[end..])
        }
        assert_eq!(end("{\n \"a\": 1\n}\n{\"b\": 2}\n"), Some("\n{\"b\": 2}\n"));
        assert_eq!(end("\u{feff} {\"a\":\n1} "), Some(" "));
        assert_eq!(end("{\"a\":[\n{\"b\": 2}\n{\"b\": 3}\n"), None);
        assert_eq!(end("[{}]\n"), None);
        assert_eq!(end(""), None);
    }

    #[test]
    fn utf16_is_told_from_zeros() {
        for text in [&b"\xff\xfe{\0"[..], b"\xfe\xff\0{", b"{\0\"\0", b"\0{\0\""] {
            assert!(is_utf16(text), "{text:?}");
        }
        for text in [&b"{\"a\""[..], b"\0{\"a", b"\0\0\0\0", b"", b"\0"] {
            assert!(!is_utf16(text), "{text:?}");
        }
    }
}
