//! What Python prints of a value, read as JSON: `{'a': 1, 'b': None}`.
//!
//! Some emitters write an object as the text that Python shows of it. Dictionaries, lists, tuples, texts, numbers and the
//! three words are read; anything else, the print of a class for example, is not such a text.

use serde_json::{Map, Number, Value as Json};

/// Deeper texts are not read.
const MAX_DEPTH: u32 = 64;

/// Reads a text that is a dictionary, a list or a tuple; `None` for any other.
pub(super) fn read(text: &str) -> Option<Json> {
    let text = text.trim();
    if !text.starts_with(['{', '[', '(']) {
        return None;
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.rest.trim_start().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
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
            _ => self.word(),
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

    fn word(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '+' | '-' | '.' | '_'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word {
            "None" => Some(Json::Null),
            "True" => Some(Json::Bool(true)),
            "False" => Some(Json::Bool(false)),
            _ => match word.parse::<i64>() {
                Ok(number) => Some(number.into()),
                Err(_) => Number::from_f64(word.parse().ok()?).map(Json::Number),
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
    use serde_json::json;

    #[test]
    fn what_python_prints_is_read() {
        let text = r#"{'a': 1, "b": [None, True, -2.5e3, ('x', )], 'it\'s': {'n': "don't"}, 3: {}}"#;
        let expected = json!({"a": 1, "b": [null, true, -2500.0, ["x"]], "it's": {"n": "don't"}, "3": {}});
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn what_is_no_literal_is_not_read() {
        let deep = "[".repeat(100_000);
        for text in
            ["Usage(prompt_tokens=1)", "{'a': Usage(n=1)}", "{'a': 1", "['a' 'b']", "12", "", "{'a': 1} x", &deep]
        {
            assert_eq!(read(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}
