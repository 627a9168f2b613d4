//! YAML of the store's files.
//!
//! It is read by a library, whatever wrote it. What is written most, the metadata of a run, is a flat list of words and
//! numbers that need no quoting; that is written here, byte for byte as the library does, in a third of its time. A text that
//! may need quotes, or be one of several lines, is the library's, and all around it.

use std::fmt::{self, Display, Write};

use serde::ser::{self, Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};

/// Longer texts are folded.
const MAX_PLAIN: usize = 64;
/// Words that are no texts to some reader of YAML.
const RESERVED: &[&str] = &["null", "true", "false", "nan", "inf", "yes", "no", "on", "off", "y", "n"];

/// Reads YAML within the parser's budget.
///
/// # Errors
///
/// What is wrong with the text, in a line; alias bombs and deep nesting are errors, too.
pub fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let message = error.to_string();
        // The parser quotes the text around the place; the first line says what is wrong.
        message.lines().next().unwrap_or("not readable as YAML").to_owned()
    })
}

/// Writes YAML.
pub(super) fn to_yaml<T: Serialize>(value: &T) -> Result<String, String> {
    match plain(value) {
        Some(text) => Ok(text),
        None => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
    }
}

/// Writes what needs no quotes; `None` where something else is in it.
fn plain<T: Serialize>(value: &T) -> Option<String> {
    let mut plain = Plain { out: String::with_capacity(1024), indent: 0, at: At::Start };
    value.serialize(&mut plain).ok()?;
    Some(plain.out)
}

struct Plain {
    out: String,
    /// Of the mapping that a value is in.
    indent: usize,
    at: At,
}

/// What stands before a value.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Key,
    Dash,
}

/// There is something that is not plain.
#[derive(Debug)]
struct NotPlain;

impl Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not plain")
    }
}

impl std::error::Error for NotPlain {}

impl ser::Error for NotPlain {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Done = Result<(), NotPlain>;

impl Plain {
    fn spaces(&mut self, n: usize) {
        self.out.extend(std::iter::repeat_n(' ', n));
    }

    fn scalar(&mut self, text: impl Display) -> Done {
        match self.at {
            At::Start => return Err(NotPlain),
            At::Key => self.out.push(' '),
            At::Dash => {}
        }
        writeln!(self.out, "{text}").map_err(|_| NotPlain)
    }
}

/// Tells whether a text is one to every reader of YAML without quotes, and is written without: not all that are, but nearly all
/// names, models and ids.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
    let [first, ..] = bytes else { return false };
    if bytes.len() > MAX_PLAIN || !bytes.iter().all(is_word) {
        return false;
    }
    if first.is_ascii_alphabetic() {
        return bytes.len() > 5 || !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word));
    }
    // No number of letters and digits alone has a letter but for that of its base or its exponent.
    let is_based = matches!(bytes.get(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B'));
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E');
    !is_based && bytes.iter().all(u8::is_ascii_alphanumeric) && bytes.iter().any(is_letter)
}

/// Tells whether a text is a moment as we write it, which is quoted.
fn is_moment(text: &str) -> bool {
    let shape = |(byte, shape): (u8, u8)| if shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    text.len() == 24 && text.bytes().zip(*b"0000-00-00T00:00:00.000Z").all(shape)
}

impl<'a> Serializer for &'a mut Plain {
    type Ok = ();
    type Error = NotPlain;
    type SerializeSeq = Block<'a>;
    type SerializeTuple = Impossible<(), NotPlain>;
    type SerializeTupleStruct = Impossible<(), NotPlain>;
    type SerializeTupleVariant = Impossible<(), NotPlain>;
    type SerializeMap = Impossible<(), NotPlain>;
    type SerializeStruct = Block<'a>;
    type SerializeStructVariant = Impossible<(), NotPlain>;

    fn serialize_bool(self, flag: bool) -> Done {
        self.scalar(if flag { "true" } else { "false" })
    }

    fn serialize_i8(self, number: i8) -> Done {
        self.scalar(number)
    }

    fn serialize_i16(self, number: i16) -> Done {
        self.scalar(number)
    }

    fn serialize_i32(self, number: i32) -> Done {
        self.scalar(number)
    }

    fn serialize_i64(self, number: i64) -> Done {
        self.scalar(number)
    }

    fn serialize_u8(self, number: u8) -> Done {
        self.scalar(number)
    }

    fn serialize_u16(self, number: u16) -> Done {
        self.scalar(number)
    }

    fn serialize_u32(self, number: u32) -> Done {
        self.scalar(number)
    }

    fn serialize_u64(self, number: u64) -> Done {
        self.scalar(number)
    }

    fn serialize_f32(self, number: f32) -> Done {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Done {
        let text = serde_saphyr::to_string(&number).map_err(|_| NotPlain)?;
        self.scalar(text.trim_end())
    }

    fn serialize_char(self, _: char) -> Done {
        Err(NotPlain)
    }

    fn serialize_str(self, text: &str) -> Done {
        if is_plain(text) {
            return self.scalar(text);
        }
        if is_moment(text) {
            return self.scalar(format_args!("\"{text}\""));
        }
        Err(NotPlain)
    }

    fn serialize_bytes(self, _: &[u8]) -> Done {
        Err(NotPlain)
    }

    fn serialize_none(self) -> Done {
        self.scalar("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.scalar("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Err(NotPlain)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Done {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Done {
        Err(NotPlain)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Block<'a>, NotPlain> {
        if self.at != At::Key {
            return Err(NotPlain);
        }
        let is_empty = len.ok_or(NotPlain)? == 0;
        self.out.push_str(if is_empty { " []\n" } else { "\n" });
        // The dashes stand below the key.
        Ok(Block { indent: self.indent, is_begun: is_empty, plain: self })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NotPlain> {
        Err(NotPlain)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NotPlain> {
        Err(NotPlain)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotPlain> {
        Err(NotPlain)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotPlain> {
        Err(NotPlain)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Block<'a>, NotPlain> {
        let indent = match self.at {
            At::Start => 0,
            At::Key => {
                self.out.push('\n');
                self.indent + 2
            }
            At::Dash => self.indent,
        };
        // The first key of an element stands behind its dash.
        Ok(Block { indent, is_begun: self.at == At::Dash, plain: self })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotPlain> {
        Err(NotPlain)
    }
}

/// A mapping or a sequence.
struct Block<'a> {
    plain: &'a mut Plain,
    indent: usize,
    /// The line of the first key is begun; of a sequence, that it is empty is told.
    is_begun: bool,
}

impl SerializeSeq for Block<'_> {
    type Ok = ();
    type Error = NotPlain;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        if self.is_begun {
            return Err(NotPlain);
        }
        self.plain.spaces(self.indent);
        self.plain.out.push_str("- ");
        (self.plain.indent, self.plain.at) = (self.indent + 2, At::Dash);
        value.serialize(&mut *self.plain)
    }

    fn end(self) -> Done {
        Ok(())
    }
}

impl SerializeStruct for Block<'_> {
    type Ok = ();
    type Error = NotPlain;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        if !std::mem::take(&mut self.is_begun) {
            self.plain.spaces(self.indent);
        }
        self.plain.out.push_str(key);
        self.plain.out.push(':');
        (self.plain.indent, self.plain.at) = (self.indent, At::Key);
        value.serialize(&mut *self.plain)
    }

    fn end(self) -> Done {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::StoreFile;
    use super::*;
    use crate::model::run::{ArtifactInfo, ChildStep, ErrorInfo};
    use crate::model::{NanoUsd, RunId, RunSummary, StepStatus, Tokens, UnixNanos};
    use proptest::prelude::*;
    use serde::Serialize;

    #[test]
    fn hostile_yaml_is_an_error_and_not_an_abort() {
        let bomb = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(20_000));
        let deep = "[".repeat(200_000);
        for text in [bomb.as_str(), &deep, "", "\u{feff}", "format: 1\nformat: 2"] {
            assert!(from_yaml::<StoreFile>(text).is_err());
        }
    }

    /// Text that is YAML in part: its signs, words and blanks in any order.
    fn odd_yaml() -> impl Strategy<Value = String> {
        let sign = proptest::sample::select(
            &[
                "- ",
                "? ",
                ": ",
                ", ",
                "[",
                "]",
                "{",
                "}",
                "&a ",
                "*a",
                "!!str ",
                "!x ",
                "|\n",
                ">-\n",
                "'",
                "\"",
                "#",
                "%YAML 1.2\n",
                "---\n",
                "...\n",
                "\n",
                "\n  ",
                "\t",
                "\r\n",
                "<<: ",
                "@",
                "`",
                "~",
                "null",
                "yes",
                "0x1f",
                "0o17",
                "1e3",
                ".inf",
                ".nan",
                "-0",
                "2026-01-06",
                "12:30:45",
                "9223372036854775808",
                "format: ",
                "run_id: ",
                "tokens: ",
                "steps: ",
                "error: ",
                "\\",
                "\\u0000",
                "\u{feff}",
                "\u{85}",
                "\u{2028}",
                "\0",
                "\u{1b}",
                "é",
            ][..],
        );
        proptest::collection::vec(prop_oneof![4 => sign.prop_map(str::to_owned), 1 => "\\PC{0,6}"], 0..60)
            .prop_map(|parts| parts.concat())
    }

    /// A whole file of a run, with a part of it put in another's place.
    fn odd_run_file() -> impl Strategy<Value = String> {
        let text = to_yaml(&summary(&["a".to_owned(), "b: c".to_owned(), "d\n e".to_owned(), String::new()])).unwrap();
        (0..=text.len(), 0usize..40, odd_yaml(), 0usize..3).prop_map(move |(at, cut, odd, times)| {
            let end = (at + cut).min(text.len());
            format!("{}{}{}", &text[..at], odd.repeat(times), &text[end..])
        })
    }

    /// A run that has these texts wherever one may stand.
    fn summary(texts: &[String; 4]) -> RunSummary {
        let [a, b, c, d] = texts;
        let run = RunId::from_parts(1_767_693_600_000, [1; 10]);
        let summary = crate::store::assembly::RunState::new(run, run.as_trace_id())
            .summary(UnixNanos::from_millis(1_767_693_600_000));
        RunSummary {
            agent_id: Some(a.clone()),
            session_id: Some(b.clone()),
            user_id: Some(c.clone()),
            external_id: Some(d.clone()),
            tags: texts.to_vec(),
            provider: Some(d.clone()),
            model: Some(a.clone()),
            models: texts.to_vec(),
            error: Some(ErrorInfo { kind: Some(b.clone()), message: Some(c.clone()), step_id: Some(d.clone()) }),
            ..summary
        }
    }

    fn odd_text() -> impl Strategy<Value = String> {
        prop_oneof![
            odd_yaml(),
            "\\PC{0,40}",
            proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
        ]
    }

    proptest! {
        #[test]
        fn any_yaml_is_read_or_an_error(text in odd_yaml(), run_file in odd_run_file()) {
            let _ = from_yaml::<StoreFile>(&text);
            let _ = from_yaml::<serde_json::Value>(&text);
            for text in [&text, &run_file] {
                // What is taken for a run is one: written, it is read again as the same.
                if let Ok(read) = from_yaml::<RunSummary>(text) {
                    let written = to_yaml(&read).unwrap();
                    prop_assert_eq!(from_yaml::<RunSummary>(&written), Ok(read), "{}", written);
                }
            }
        }

        #[test]
        fn any_text_of_a_run_is_read_as_it_was_written(a in odd_text(), b in odd_text(), c in odd_text(), d in odd_text()) {
            let summary = summary(&[a, b, c, d]);
            let written = to_yaml(&summary).unwrap();
            prop_assert_eq!(from_yaml::<RunSummary>(&written), Ok(summary), "{}", written);
        }
    }

    /// Texts near the border of what is plain.
    fn nearly_plain() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z0-9_./-]{0,12}",
            "[0-9xXoObBeE_.-]{0,8}",
            "[0-9a-f]{32}",
            "[0-9A-HJKMNP-TV-Z]{26}",
            "(?i)(null|true|false|nan|inf|yes|no|on|off|y|n)[a-z.]?",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}.[0-9]{3}Z",
            "[a-z]{60,70}",
            odd_text(),
        ]
    }

    fn full(texts: &[String; 4], numbers: [u64; 4], cost: i64) -> RunSummary {
        let [a, b, c, d] = texts;
        let [w, x, y, z] = numbers;
        let child = ChildStep {
            step_id: a.clone(),
            agent_id: (x > y).then(|| b.clone()),
            status: StepStatus::Timeout,
            duration_ms: (w > z).then_some(w),
            cost_usd: Some(NanoUsd(cost)),
        };
        let file = ArtifactInfo {
            name: c.clone(),
            media_type: Some(d.clone()),
            bytes: x,
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned(),
            content: None,
        };
        RunSummary {
            cost_usd: Some(NanoUsd(cost)),
            tokens: (w < x).then_some(Tokens {
                prompt: Some(w),
                completion: None,
                total: Some(x),
                ..Tokens::default()
            }),
            tags: if y > z { vec![] } else { texts.to_vec() },
            steps: Some(if y < w { vec![] } else { vec![child.clone(), child] }),
            artifacts: if y < x { vec![] } else { vec![file.clone(), file] },
            pinned: w > y,
            total_duration_ms: Some((w > y).then_some(w)),
            waited_ms: z,
            ..summary(texts)
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_is_written_as_the_library_does(
            a in nearly_plain(), b in nearly_plain(), c in nearly_plain(), d in nearly_plain(),
            numbers in any::<[u64; 4]>(), cost in any::<i64>(),
        ) {
            let run = full(&[a, b, c, d], numbers, cost);
            prop_assert_eq!(to_yaml(&run).unwrap(), serde_saphyr::to_string(&run).unwrap());
        }

        #[test]
        fn a_text_is_written_as_the_library_does(text in nearly_plain()) {
            #[derive(Serialize)]
            struct One<'a> { text: &'a str }
            prop_assert_eq!(to_yaml(&One { text: &text }).unwrap(), serde_saphyr::to_string(&One { text: &text }).unwrap());
        }
    }

    #[test]
    fn a_usual_run_is_plain() {
        let texts = ["researcher", "gpt-4o-mini-2024-07-18", "meta-llama/Llama-3.3-70B", "chat_42"].map(str::to_owned);
        let run = full(&texts, [1, 2, 3, 4], 1_234_567);
        assert_eq!(plain(&run), serde_saphyr::to_string(&run).ok());
        // A moment, and what is written for nobody to take it for a number.
        assert_eq!(plain(&RunSummary { agent_id: Some("1e5".to_owned()), ..run }), None);
    }
}
