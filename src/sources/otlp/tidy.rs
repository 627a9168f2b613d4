//! JSON texts before they are parsed: what they hold, and how they are written as the parser wants them.

use std::fmt::{self, Write};
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;

use super::json::{Key, Names, camel};

/// What a walk over a text finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// How many values it may hold, by what stands before each of them.
    pub values: usize,
    /// It has no `null`, and no name with an underscore or an escape.
    pub is_plain: bool,
}

impl Scan {
    /// Walks over a text that is known to be JSON.
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut found = Self { values: 0, is_plain: true };
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'[' | b'{' | b',' => found.values += 1,
                // No other word begins so.
                b'n' => found.is_plain = false,
                b'"' => {
                    let end = end_of_string(bytes, at + 1);
                    let behind = &bytes[(end + 1).min(bytes.len())..];
                    let is_name = behind.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                    let is_odd = is_name && memchr::memchr2(b'_', b'\\', &bytes[at..end]).is_some();
                    found.is_plain &= !is_odd;
                    at = end;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }
}

/// Returns the place of the quote that ends a string.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// Names that are looked at for being the same in one object: more than any message of OTLP has.
const NAMES: usize = 64;

/// Writes a message anew: without what is `null`, names with underscores as they are meant, of two members of one name the last,
/// and of two lists one. Every object here is a message: what senders name themselves stands in values, not in names.
pub(super) fn tidied(text: &str, names: &mut Names) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(text.len());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if !(Tidy { out: &mut out, names }).deserialize(&mut deserializer)? {
        out.push_str("null");
    }
    deserializer.end()?;
    Ok(out)
}

/// Writes one value; false, and nothing, for `null`.
struct Tidy<'a> {
    out: &'a mut String,
    names: &'a mut Names,
}

impl Tidy<'_> {
    fn put(self, value: &(impl Serialize + ?Sized)) -> bool {
        // Texts and numbers can always be written.
        self.out.push_str(&serde_json::to_string(value).unwrap_or_default());
        true
    }
}

impl<'de> DeserializeSeed<'de> for Tidy<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tidy<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.put(&value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.put(&value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.put(&value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.put(&value))
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(self.put(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        self.out.push('[');
        let begin = self.out.len();
        loop {
            let before = self.out.len();
            if before > begin {
                self.out.push(',');
            }
            let written = list.next_element_seed(Tidy { out: self.out, names: self.names })?;
            if written != Some(true) {
                self.out.truncate(before);
            }
            if written.is_none() {
                break;
            }
        }
        self.out.push(']');
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        self.out.push('{');
        let begin = self.out.len();
        let (mut written, mut rest, mut is_repeated) = (Vec::<Written>::new(), Vec::new(), false);
        while let Some(Key(key)) = map.next_key()? {
            let name = camel(&key);
            let from = self.out.len();
            let _ = write!(self.out, "{}:", serde_json::Value::from(&*name));
            let value = self.out.len();
            let is_there = map.next_value_seed(Tidy { out: self.out, names: self.names })?;
            let value = value..self.out.len();
            if is_there {
                self.out.push(',');
                if key != name {
                    self.names.note(&key);
                }
            } else {
                self.out.truncate(from);
            }
            if let Some(place) = written.iter().position(|other| other.name == name) {
                is_repeated = true;
                // What counts stands where the last of them does.
                let mut known = written.remove(place);
                known.repeat(self.out, is_there.then_some(value));
                written.push(known);
            } else if is_there && written.len() < NAMES {
                written.push(Written { name: name.into_owned(), before: Vec::new(), value: Some(value) });
            } else if is_there {
                rest.push(from..self.out.len());
            }
        }
        if is_repeated {
            let old = self.out.split_off(begin);
            let of = |range: &Range<usize>| &old[range.start - begin..range.end - begin];
            written.iter().for_each(|member| member.put(self.out, &of));
            rest.iter().for_each(|range| self.out.push_str(of(range)));
        }
        if self.out.ends_with(',') {
            self.out.pop();
        }
        self.out.push('}');
        Ok(true)
    }
}

/// A member that was written, and where.
struct Written {
    name: String,
    /// Lists of its name that stood before, which it goes on with.
    before: Vec<Range<usize>>,
    value: Option<Range<usize>>,
}

impl Written {
    /// Takes another value of its name: `null` leaves a list as it is, and nothing of anything else.
    fn repeat(&mut self, out: &str, value: Option<Range<usize>>) {
        let is_list = |range: &Range<usize>| out.as_bytes().get(range.start) == Some(&b'[');
        match self.value.take().filter(is_list) {
            Some(list) if value.is_none() => self.value = Some(list),
            Some(list) if value.as_ref().is_some_and(is_list) => {
                self.before.push(list);
                self.value = value;
            }
            _ => {
                self.before.clear();
                self.value = value;
            }
        }
    }

    fn put<'a>(&self, out: &mut String, text: &impl Fn(&Range<usize>) -> &'a str) {
        let Some(value) = &self.value else { return };
        let _ = write!(out, "{}:", serde_json::Value::from(&*self.name));
        if self.before.is_empty() {
            out.push_str(text(value));
        } else {
            out.push('[');
            let lists = self.before.iter().chain([value]).map(text);
            for items in
                lists.filter_map(|list| list.strip_prefix('[')?.strip_suffix(']')).filter(|items| !items.is_empty())
            {
                out.push_str(items);
                out.push(',');
            }
            if out.ends_with(',') {
                out.pop();
            }
            out.push(']');
        }
        out.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_is_odd_is_seen() {
        let told = |text: &str| {
            let Scan { values, is_plain } = Scan::of(text);
            format!("{values} {is_plain}")
        };
        insta::assert_snapshot!(
            [
                r#"{"key":"a_b","value":{"stringValue":"[{,n\\\",_"}}"#,
                r#"[{},{},{}]"#,
                r#"{"trace_id" : 1}"#,
                r#"{"trac\u0065Id":1}"#,
                r#"{"a":null}"#,
                r#"{"a":"null_"}"#,
                r#"{"a":"open"#,
            ]
            .map(told)
            .join("\n"),
            @r"
        3 true
        6 true
        1 false
        1 false
        1 false
        1 true
        1 true
        "
        );
    }

    #[test]
    fn a_message_is_written_as_it_is_meant() {
        let mut names = Names::default();
        let text = r#"{"a_b":1,"c":null,"d":[null,{"e_f":"x_\u00e9\n"},null,-2,1.5,[]],"aB":2,"g":{"h":null},"g":null,"i":true, "i":18446744073709551615}"#;
        insta::assert_snapshot!(
            tidied(text, &mut names).unwrap(),
            @r#"{"d":[{"eF":"x_é\n"},-2,1.5,[]],"aB":2,"i":18446744073709551615}"#
        );
        insta::assert_snapshot!(
            names.warning().unwrap(),
            @r#"2 names are written with underscores, "a_b" first: OTLP JSON has lowerCamelCase"#
        );
        assert_eq!(tidied("null", &mut names).unwrap(), "null");
        let text = r#"{"a_b":[1],"c":[{"d":["]"],"d":[]}],"aB":null,"e":5,"aB":[],"a_b":[[2],3],"c":1,"e":[7],"e":[8],"f":[],"f":[]}"#;
        assert_eq!(tidied(text, &mut names).unwrap(), r#"{"aB":[1,[2],3],"c":1,"e":[7,8],"f":[]}"#);
    }
}
