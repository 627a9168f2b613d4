//! Content as text: what goes in and out of steps, as JSON, within a bound.

use std::fmt;
use std::io;

use serde::Serialize;
use serde_json::Value as Json;

use crate::sources::encode::{self, MAX_TEXT};
use crate::sources::guarded::{PANICKED, guarded};

/// A value as JSON text. One longer than the bound was cut and is no JSON any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    json: String,
    is_whole: bool,
}

/// What a [`Text`] is to a reader of attributes.
pub(crate) enum Scalar {
    /// Nothing to say.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Plain text: a string without its quotes, a list or an object as JSON.
    Text(String),
}

impl Text {
    /// Writes a value as JSON; `None` where its own code refuses, a mark where that panics.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Option<Self> {
        let mut out = Bounded::default();
        let Some(written) = guarded(|| serde_json::to_writer(&mut out, value)) else { return Self::of(PANICKED) };
        if written.is_err() && !out.is_full {
            return None;
        }
        Some(out.into_text())
    }

    /// Writes a value as a JSON string of what `Debug` prints.
    #[cfg(any(feature = "macros", test))]
    pub(crate) fn of_debug(value: &(impl fmt::Debug + ?Sized)) -> Option<Self> {
        use fmt::Write as _;
        let mut out = Bounded::default();
        // The bound stops a value that prints without end; what was printed is kept.
        if guarded(|| write!(out, "{value:?}")).is_none() {
            let _ = out.write_str(PANICKED);
        }
        Self::of(&out.into_text().json)
    }

    /// Returns the JSON.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Returns an object with the value under a key, within the bound: of a longer one, the beginning of its text, with a mark.
    pub(crate) fn under(&self, key: &str) -> String {
        let whole = member(key, &self.json);
        if self.is_whole && whole.len() <= MAX_TEXT {
            return whole;
        }
        // As a text within JSON it is at most twice as long.
        let begins = encode::cut_to(&self.json, (MAX_TEXT - member(key, "\"\"").len()) / 2);
        member(key, &Json::from(begins).to_string())
    }

    /// Returns an object with a mark under a key: all of the value was cut.
    pub(crate) fn mark_under(&self, key: &str) -> String {
        member(key, &Json::from(encode::cut(&self.json, 0)).to_string())
    }

    /// Returns the value as an attribute has it.
    pub(crate) fn scalar(&self) -> Scalar {
        match self.json.as_bytes().first() {
            Some(b'n') => Scalar::Null,
            Some(b't') => Scalar::Bool(true),
            Some(b'f') => Scalar::Bool(false),
            Some(b'"') if self.is_whole => Scalar::Text(serde_json::from_str(&self.json).unwrap_or_default()),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.json.parse().map(Scalar::Int).ok();
                number.or_else(|| self.json.parse().map(Scalar::Float).ok()).unwrap_or(Scalar::Null)
            }
            _ => Scalar::Text(self.json.clone()),
        }
    }

    /// Returns the value as a list of messages, if it is a list or plain text.
    pub(crate) fn as_messages(&self, role: &str) -> Option<String> {
        self.as_list(|text| format!(r#"[{{"role":"{role}","parts":[{{"type":"text","content":{text}}}]}}]"#))
    }

    /// Returns the value as a list of message parts, if it is a list or plain text.
    pub(crate) fn as_parts(&self) -> Option<String> {
        self.as_list(|text| format!(r#"[{{"type":"text","content":{text}}}]"#))
    }

    fn as_list(&self, wrap: impl Fn(&str) -> String) -> Option<String> {
        match self.json.as_bytes().first() {
            Some(b'[') => Some(self.json.clone()),
            Some(b'"') if self.is_whole => Some(wrap(&self.json)),
            _ => None,
        }
    }
}

fn member(key: &str, json: &str) -> String {
    format!("{{{}:{json}}}", Json::from(key))
}

/// Collects arguments as a JSON object.
#[cfg(any(feature = "macros", test))]
#[derive(Debug, Default)]
pub struct Arguments {
    json: String,
}

#[cfg(any(feature = "macros", test))]
impl Arguments {
    /// Adds an argument; one without a value is `null`.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<Text>) -> Self {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        let value = value.filter(|value| value.is_whole).map_or_else(|| "null".to_owned(), |value| value.json);
        self.json.push_str(&serde_json::Value::from(name).to_string());
        self.json.push(':');
        self.json.push_str(&value);
        self
    }

    pub(crate) fn into_text(mut self) -> Option<Text> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push('}');
        Some(Text { json: self.json, is_whole: true })
    }
}

/// Takes text up to a little past the bound, so that the cut is marked where the attribute is written.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Bounded {
    fn put(&mut self, bytes: &[u8]) -> bool {
        let room = (MAX_TEXT + 1).saturating_sub(self.bytes.len());
        self.is_full |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        !self.is_full
    }

    fn into_text(self) -> Text {
        Text { json: String::from_utf8_lossy(&self.bytes).into_owned(), is_whole: !self.is_full }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.put(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.put(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_a_message_and_a_list_stays_one() {
        let messages = |value: serde_json::Value| Text::of(&value).unwrap().as_messages("user");
        let said = r#"[{"role":"user","parts":[{"type":"text","content":"a \"b\""}]}]"#;
        assert_eq!(messages("a \"b\"".into()).as_deref(), Some(said));
        assert_eq!(messages(serde_json::json!([1])).as_deref(), Some("[1]"));
        assert_eq!(messages(serde_json::json!({"a": 1})), None);
    }

    #[test]
    fn a_long_value_is_cut_and_never_held_whole() {
        let text = Text::of(&"x".repeat(3 * MAX_TEXT)).unwrap();
        assert_eq!((text.json.len(), text.is_whole), (MAX_TEXT + 1, false));
        let arguments = Arguments::default().with("long", Some(text)).with("n", Text::of(&1)).into_text().unwrap();
        assert_eq!(arguments.json(), r#"{"long":null,"n":1}"#);
    }

    #[test]
    fn what_stands_under_a_key_is_json_within_the_bound_however_long_it_is() {
        let under = |value: &serde_json::Value| Text::of(value).unwrap().under("k");
        assert_eq!(under(&serde_json::Value::Null), r#"{"k":null}"#);
        let fits = "x".repeat(MAX_TEXT - r#"{"k":""}"#.len());
        assert_eq!(under(&fits.as_str().into()).len(), MAX_TEXT);
        for long in [format!("{fits}x"), "\"".repeat(MAX_TEXT), "\\é".repeat(2 * MAX_TEXT)] {
            let json = under(&long.into());
            let text = serde_json::from_str::<serde_json::Value>(&json).unwrap()["k"].as_str().unwrap().to_owned();
            assert!(json.len() <= MAX_TEXT && crate::pipeline::scrub::ends_in_a_cut(&text), "{} bytes", json.len());
        }
        assert_eq!(Text::of("abc").unwrap().mark_under("k"), r#"{"k":"[cut:5]"}"#);
    }

    #[test]
    fn what_debug_prints_is_a_string() {
        assert_eq!(Text::of_debug(&Some("a")).unwrap().json(), r#""Some(\"a\")""#);
    }
}
