//! JSON that is kept as its text: what models and tools were given and gave.
//!
//! It goes into the log as it is, and few readers look into it, so no tree is made of it unless somebody asks for one. The
//! text is what the general serializer writes of that tree, byte for byte, which a test holds it to.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::json::{self, WriteJson};
use super::otlp::Value;

/// An object with more members is read as a tree, to find out whether one stands there twice.
const MAX_MEMBERS: usize = 64;

/// A JSON value as its text, on one line. Copies share it.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(Arc<str>);

impl JsonText {
    /// Returns what [`Value::to_json`] makes of an attribute's value, as text.
    pub fn of(value: &Value) -> Self {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        const MAX_KEPT: usize = 1 << 20;
        let write = |out: &mut Vec<u8>| {
            out.clear();
            let is_written = match value {
                Value::String(text) if text.trim_start().starts_with(['{', '[']) => rewrite(text, out).is_ok(),
                Value::String(text) => {
                    json::text(out, text);
                    true
                }
                _ => false,
            };
            if !is_written {
                return Self::from(value.to_json());
            }
            let text = Self(Arc::from(String::from_utf8_lossy(out)));
            if out.capacity() > MAX_KEPT {
                *out = Vec::new();
            }
            text
        };
        let written = SCRATCH.try_with(|scratch| scratch.try_borrow_mut().ok().map(|mut scratch| write(&mut scratch)));
        written.ok().flatten().unwrap_or_else(|| write(&mut Vec::new()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value; text that no value can be made of as it stands, as text.
    pub fn value(&self) -> Json {
        serde_json::from_str(&self.0).unwrap_or_else(|_| Json::String(self.0.as_ref().to_owned()))
    }
}

impl From<Json> for JsonText {
    fn from(value: Json) -> Self {
        Self(Arc::from(value.to_string()))
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl WriteJson for JsonText {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(())
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::from(Box::<RawValue>::deserialize(deserializer)?.get())))
    }
}

/// Appends the text of a JSON value as the general serializer writes it. Fails where no value can be made of it, and where
/// an object has a member twice, of which only one counts.
fn rewrite(text: &str, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Rewrite { out, members: &mut Vec::new() }.deserialize(&mut reader)?;
    reader.end()
}

/// Writes a value as it is read.
struct Rewrite<'a> {
    out: &'a mut Vec<u8>,
    /// Where the names of the members of the objects around are, the innermost one's last.
    members: &'a mut Vec<(usize, usize)>,
}

impl<'de> DeserializeSeed<'de> for Rewrite<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rewrite<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<(), E> {
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        json::general(self.out, &number).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        json::number(self.out, number);
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        json::general(self.out, &number).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        json::text(self.out, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { out, members } = self;
        out.push(b'[');
        let begin = out.len();
        // What is written behind the last item is taken back.
        while list.next_element_seed(Rewrite { out, members })?.is_some() {
            out.push(b',');
        }
        out.truncate(out.len() - usize::from(out.len() > begin));
        out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { out, members } = self;
        out.push(b'{');
        let (begin, first) = (out.len(), members.len());
        loop {
            let name = out.len();
            if map.next_key_seed(Rewrite { out, members })?.is_none() {
                break;
            }
            let is_known = members[first..].iter().any(|(from, to)| out[*from..*to] == out[name..]);
            if is_known || members.len() - first >= MAX_MEMBERS {
                return Err(de::Error::custom("it takes a tree"));
            }
            members.push((name, out.len()));
            out.push(b':');
            map.next_value_seed(Rewrite { out, members })?;
            out.push(b',');
        }
        members.truncate(first);
        out.truncate(out.len() - usize::from(out.len() > begin));
        out.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_as_the_tree(text: &str) {
        let value = Value::from(text);
        let (ours, theirs) = (JsonText::of(&value), value.to_json());
        assert_eq!(ours.as_str(), theirs.to_string(), "of {text}");
        assert_eq!(ours.value(), theirs);
    }

    #[test]
    fn the_text_is_what_the_general_serializer_writes_of_the_tree() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let many = |names: usize| {
            let members: Vec<String> = (0..names).map(|n| format!("\"k{n}\" : {n}")).collect();
            format!("{{{}}}", members.join(", "))
        };
        for text in [
            "plain \"words\"\n",
            " [ ] ",
            "{ }",
            r#"{"a" : [1, -2, 3.50, 1e3, 18446744073709551615, 123456789012345678901234567890], "b":{"c":null}}"#,
            "[\n  true,\r\n\tfalse\n]",
            r#"["\u00e9\/\u0001\t\ud834\udd1e", "\"\\"]"#,
            r#"{"twice":1,"other":2,"twice":3}"#,
            r#"[{"same":1},{"same":{"same":2}}]"#,
            // No values: they stay the texts that they are.
            r#"["\ud800"]"#,
            "[1e999]",
            "{\"a\":",
            "[1] 2",
            "[1,]",
            &deep(127),
            &deep(128),
            &deep(5_000),
            &many(MAX_MEMBERS),
            &many(MAX_MEMBERS + 1),
        ] {
            is_as_the_tree(text);
        }
        for value in [Value::Int(-7), Value::Bool(true), Value::Double(f64::NAN), Value::Bytes(vec![1, 2])] {
            assert_eq!(JsonText::of(&value).value(), value.to_json());
        }
    }

    #[test]
    fn it_is_read_from_a_log_and_written_there_as_it_is() {
        let read: Option<JsonText> = serde_json::from_str(r#"{"a":[1.0,"\u00e9"]}"#).unwrap();
        let mut written = Vec::new();
        read.write_json(&mut written).unwrap();
        assert_eq!(written, r#"{"a":[1.0,"\u00e9"]}"#.as_bytes());
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"a":[1.0,"é"]}"#);
        assert_eq!(serde_json::from_str::<Option<JsonText>>("null").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_text_that_looks_like_json_is_as_its_tree(text in r#"[\[{](["a-c0-9.,:eE+\-{}\[\] \\un]|"[a-c]":|null|true){0,24}[\]}]?"#) {
            is_as_the_tree(&text);
        }
    }
}
