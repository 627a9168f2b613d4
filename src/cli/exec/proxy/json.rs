//! JSON as services take it, which is more than all parsers do.

use std::borrow::Cow;

use serde_json::Value as Json;

/// Reads JSON in which a text may have halves of characters: half of a pair of UTF-16, as programs in JavaScript and
/// Python cut them, and bytes that are no UTF-8. In the place of each stands the character for what cannot be shown.
///
/// # Errors
///
/// What else is no JSON.
pub fn read(body: &[u8]) -> serde_json::Result<Json> {
    serde_json::from_slice(body).or_else(|error| {
        let mut text = match String::from_utf8_lossy(body) {
            // Nothing to mend: the error is the body's own.
            Cow::Borrowed(text) if !text.contains("\\u") => return Err(error),
            text => text.into_owned().into_bytes(),
        };
        mend(&mut text);
        serde_json::from_slice(&text)
    })
}

/// Replaces each half of a pair that stands alone.
fn mend(text: &mut [u8]) {
    const HIGH: std::ops::RangeInclusive<u16> = 0xd800..=0xdbff;
    const LOW: std::ops::RangeInclusive<u16> = 0xdc00..=0xdfff;
    let unit = |text: &[u8], at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < text.len() {
        at += match unit(text, at) {
            Some(high) if HIGH.contains(&high) && unit(text, at + 6).is_some_and(|low| LOW.contains(&low)) => 12,
            Some(half) if HIGH.contains(&half) || LOW.contains(&half) => {
                if let Some(digits) = text.get_mut(at + 2..at + 6) {
                    digits.copy_from_slice(b"fffd");
                }
                6
            }
            // Of what is escaped the second byte is no backslash that escapes.
            _ if text.get(at) == Some(&b'\\') => 2,
            _ => 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_half_a_character_that_alone_is_lost() {
        let of = |text: &str| read(text.as_bytes()).map(|json| json.to_string()).map_err(|error| error.to_string());
        let said = [
            r#"{"a":"x\ud800y","n":1}"#,
            r#"["\ude00\ud83d\ude00\ud83d","\ud83d\u0041","\\ud800","\\\ud800"]"#,
            r#"{"\udfff":"\uD83D\uDE00"}"#,
            r#"{"a":"\ud800""#,
            "{a}",
        ];
        let read = said.map(|text| of(text).unwrap_or_else(|error| error)).join("\n");
        insta::assert_snapshot!(read, @r#"
        {"a":"x�y","n":1}
        ["�😀�","�A","\\ud800","\\�"]
        {"�":"😀"}
        EOF while parsing an object at line 1 column 13
        key must be a string at line 1 column 2
        "#);
        assert_eq!(super::read(b"[\"a\xffb\"]").unwrap().to_string(), "[\"a\u{fffd}b\"]");
    }
}
