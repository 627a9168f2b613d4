//! What Python prints of a value, read as JSON: `{'a': 1, 'b': None}`.
//!
//! Some emitters write an object as the text that Python shows of it. Dictionaries, lists, tuples, texts, numbers and the
//! three words are read, and what a class shows of itself: `Usage(n=1)` is its named members, as is `n=1 m=None`, which Pydantic prints
//! of a model, and `<Role.USER: 'user'>` its value. Anything else is not such a text.

use serde_json::{Map, Number, Value as Json};

/// Deeper texts are not read.
const MAX_DEPTH: u32 = 64;

/// Reads a text that is a dictionary, a list, a tuple or the print of a class; `None` for any other.
pub(super) fn read(text: &str) -> Option<Json> {
    let text = text.trim();
    let begins = |end: char| text.split_once(end).is_some_and(|(name, _)| is_name(name));
    let mut reader = Reader { rest: text, classes: 0 };
    let value = match text.chars().next()? {
        '{' | '[' | '(' => reader.value(0)?,
        _ if text.ends_with(')') && begins('(') => reader.value(0)?,
        _ if begins('=') => reader.members()?,
        _ => return None,
    };
    reader.rest.trim_start().is_empty().then_some(value)
}

/// Tells whether a word is what a class may be called, with its modules.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
}

struct Reader<'a> {
    rest: &'a str,
    /// So many classes are being read: within them a bare word is the print of something that has no other.
    classes: u32,
}

impl Reader<'_> {
    fn value(&mut self, depth: u32) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            '{' => self.dictionary(depth),
            '[' => self.list(']', depth),
            '(' => self.list(')', depth),
            '\'' | '"' => self.text().map(Json::String),
            '<' => self.member_of_enum(depth),
            _ => self.word(depth),
        }
    }

    fn dictionary(&mut self, depth: u32) -> Option<Json> {
        self.take('{').then_some(())?;
        let mut members = Map::new();
        while !self.take('}') {
            let key = match self.value(depth + 1)? {
                Json::String(key) => key,
                key => key.to_string(),
            };
            self.take(':').then_some(())?;
            members.insert(key, self.value(depth + 1)?);
            if !self.take(',') {
                self.take('}').then_some(())?;
                break;
            }
        }
        Some(Json::Object(members))
    }

    fn list(&mut self, end: char, depth: u32) -> Option<Json> {
        self.rest = self.rest.get(1..)?;
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.value(depth + 1)?);
            if !self.take(',') {
                self.take(end).then_some(())?;
                break;
            }
        }
        Some(Json::Array(items))
    }

    fn text(&mut self) -> Option<String> {
        let mut chars = self.rest.char_indices();
        let (_, quote) = chars.next()?;
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Some(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                // A character by its number is left as it is written: nothing that is looked for has one.
                c @ ('x' | 'u' | 'U' | 'N') => text.extend(['\\', c]),
                c => text.push(c),
            }
        }
        None
    }

    /// `<Role.USER: 'user'>`, or `<object>` alone.
    fn member_of_enum(&mut self, depth: u32) -> Option<Json> {
        self.take('<').then_some(())?;
        let end = self.rest.find([':', '>'])?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let value = if self.take(':') { self.value(depth + 1)? } else { Json::String(name.to_owned()) };
        self.take('>').then_some(value)
    }

    /// The members that a class shows: those with a name, else all in their order.
    fn class(&mut self, depth: u32) -> Option<Json> {
        self.take('(').then_some(())?;
        self.classes += 1;
        let (mut named, mut others) = (Map::new(), Vec::new());
        while !self.take(')') {
            let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            match self.rest.split_at(end) {
                (name, rest) if is_name(name) && rest.starts_with('=') => {
                    self.rest = &rest[1..];
                    named.insert(name.to_owned(), self.value(depth + 1)?);
                }
                _ => others.push(self.value(depth + 1)?),
            }
            if !self.take(',') {
                self.take(')').then_some(())?;
                break;
            }
        }
        self.classes -= 1;
        Some(if named.is_empty() { Json::Array(others) } else { Json::Object(named) })
    }

    /// `n=1 m=None`, to the end.
    fn members(&mut self) -> Option<Json> {
        let mut members = Map::new();
        while self.peek().is_some() {
            let (name, rest) = self.rest.split_once('=').filter(|(name, _)| is_name(name))?;
            self.rest = rest;
            members.insert(name.to_owned(), self.value(1)?);
        }
        Some(Json::Object(members))
    }

    fn word(&mut self, depth: u32) -> Option<Json> {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '+' | '-' | '.' | '_'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word {
            name if is_name(name) && self.rest.starts_with('(') => self.class(depth),
            "None" => Some(Json::Null),
            "True" => Some(Json::Bool(true)),
            "False" => Some(Json::Bool(false)),
            _ => match word.parse::<i64>() {
                Ok(number) => Some(number.into()),
                Err(_) => match word.parse().ok().and_then(Number::from_f64) {
                    Some(number) => Some(Json::Number(number)),
                    None if self.classes > 0 && is_name(word) => Some(Json::String(word.to_owned())),
                    None => None,
                },
            },
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    /// Takes a character, where it is the next one.
    fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.rest = &self.rest[expected.len_utf8()..];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Texts that are Python's in part.
    fn odd() -> impl Strategy<Value = String> {
        let part = proptest::sample::select(
            &[
                "{", "}", "[", "]", "(", ")", "<", ">", ",", ":", "=", "'", "\"", "\\", " ", "a", "Usage(", "n=",
                "None", "True", "1", "-2.5e3", "1e999", "nan", "_", ".", "é", "\u{2003}", "\\x", "0",
            ][..],
        );
        proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_is_none(text in odd(), deep in 0..4_usize, path in proptest::collection::vec("[a-z?=*]{0,6}|[0-9]{1,21}", 0..5)) {
            let text = [text.as_str(), &["(", "[", "{1:", "<a:"][deep].repeat(50_000)].concat();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            for text in [text.as_str(), &["[", text.as_str()].concat()] {
                let read = read(text);
                super::super::member(&Json::String(text.to_owned()), &path);
                super::super::member(&read.unwrap_or_default(), &path);
            }
        }
    }

    #[test]
    fn what_python_prints_is_read() {
        let text = r#"{'a': 1, "b": [None, True, -2.5e3, ('x', )], 'it\'s': {'n': "don't"}, 3: {}}"#;
        let expected = json!({"a": 1, "b": [null, true, -2500.0, ["x"]], "it's": {"n": "don't"}, "3": {}});
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn what_a_class_shows_of_itself_is_its_members() {
        let text = "openai.Chat(id='c', choices=[Choice(index=0, message=Message(role=<Role.USER: 'user'>, content=\"a(b=1)\"))], \
                    usage=Usage(n=1, details=None, kind=Kind.CHAT), at=datetime.datetime(2026, 1, 6, tzinfo=TzInfo(UTC)), tool=<Tool object>)";
        assert_eq!(
            read(text),
            Some(json!({
                "id": "c",
                "choices": [{"index": 0, "message": {"role": "user", "content": "a(b=1)"}}],
                "usage": {"n": 1, "details": null, "kind": "Kind.CHAT"},
                "at": {"tzinfo": ["UTC"]},
                "tool": "Tool object",
            }))
        );
    }

    #[test]
    fn what_pydantic_prints_of_a_model_is_its_members() {
        let text = "total_tokens=626 kind=<Kind.CHAT: 'chat'> note='a = b' of=Usage(n=1) more=None";
        let expected = json!({"total_tokens": 626, "kind": "chat", "note": "a = b", "of": {"n": 1}, "more": null});
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn what_is_no_literal_is_not_read() {
        let deep = ["[", "a(", "<a:"].map(|open| open.repeat(100_000));
        let texts = [
            "{'a': 1",
            "['a' 'b']",
            "12",
            "",
            "{'a': 1} x",
            "f(x) = 1",
            "Sunny (18 degrees)",
            "a(b=1",
            "a(b=<c)",
            "a=",
            "a=b c",
            "a=1 b",
        ];
        for text in texts.into_iter().chain(deep.iter().map(String::as_str)) {
            assert_eq!(read(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}
