//! The keys that calls are made with, which nothing that is recorded of them may hold.
//!
//! Most are known by their shape wherever they stand. Of these the text itself is known: a gateway may have keys of any shape,
//! and says in its answer which one is wrong.

use hyper::header::HeaderMap;
use runspan::model::otlp::{AnyValue, Span, Value};

/// Words in the names of headers, and of parameters of an address, that hold a key and nothing else: gateways have their own.
const NAMES: &[&str] = &["auth", "key", "token", "secret"];
/// What is shorter is no key that anybody is kept out by.
const SHORTEST: usize = 8;
/// Words up to this length are put where a server of one's own wants no key (`not-needed`), and are said of other things.
const LONGEST_WORD: usize = 16;
/// What stands in the place of a key.
const MARKER: &str = "[redacted:api-key]";

/// The keys of one call.
pub struct Keys(Vec<String>);

impl Keys {
    /// Finds them in the headers of a request and in the query of its address.
    pub fn of(headers: &HeaderMap, query: &str) -> Self {
        let holds_key = |name: &str| {
            let name = name.to_ascii_lowercase();
            NAMES.iter().any(|word| name.contains(word))
        };
        let of_headers = headers.iter().filter(|(name, _)| holds_key(name.as_str()));
        let of_headers = of_headers.filter_map(|(_, value)| value.to_str().ok());
        // Behind the word for what it is.
        let of_headers = of_headers.map(|value| value.split_once(' ').map_or(value, |(_, key)| key).to_owned());
        let pairs = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| holds_key(name));
        let found = of_headers.chain(pairs.map(|(_, key)| key.to_owned()));
        let mut keys: Vec<String> = found.map(|key| key.trim().to_owned()).filter(|key| is_key(key)).collect();
        // One may be a part of another.
        keys.sort_unstable_by_key(|key| std::cmp::Reverse(key.len()));
        keys.dedup();
        Self(keys)
    }

    /// Takes them out of all that a span says.
    pub fn take_out(&self, span: &mut Span) {
        if self.0.is_empty() {
            return;
        }
        self.take_out_of(&mut span.name);
        if let Some(status) = &mut span.status {
            self.take_out_of(&mut status.message);
        }
        let of_events = span.events.iter_mut().flat_map(|event| &mut event.attributes);
        let attributes = span.attributes.iter_mut().chain(of_events);
        attributes.filter_map(|attribute| attribute.value.as_mut()).for_each(|value| self.visit(value));
    }

    fn visit(&self, value: &mut AnyValue) {
        match &mut value.value {
            Some(Value::String(text)) => self.take_out_of(text),
            Some(Value::Array(list)) => list.values.iter_mut().for_each(|value| self.visit(value)),
            Some(Value::KvList(map)) => {
                map.values.iter_mut().filter_map(|member| member.value.as_mut()).for_each(|value| self.visit(value));
            }
            _ => {}
        }
    }

    fn take_out_of(&self, text: &mut String) {
        for key in &self.0 {
            if text.contains(key.as_str()) {
                *text = text.replace(key.as_str(), MARKER);
            }
        }
    }
}

fn is_key(text: &str) -> bool {
    let is_word = text.len() <= LONGEST_WORD
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b'.'));
    let is_variable = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    text.len() >= SHORTEST && !is_word && !is_variable
}

#[cfg(test)]
mod tests {
    use runspan::model::otlp::{ArrayValue, STATUS_ERROR, Status};

    use super::*;

    #[test]
    fn what_a_call_was_made_with_stands_nowhere_in_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer Custom-key-0001"),
            ("x-api-key", "Custom-key-0001-and-more"),
            ("api-key", "short"),
            ("x-goog-api-key", "not-needed"),
            ("helicone-auth", "Bearer Custom-key-0003"),
            ("x-token", "OPENAI_API_KEY"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let keys = Keys::of(&headers, "alt=sse&key=Custom-0002&subscription-key=Custom-0004");
        let mut span = Span { name: "chat Custom-0002".to_owned(), ..Span::default() };
        let message = "Incorrect API key provided: Custom-key-0001.".to_owned();
        span.status = Some(Status { code: STATUS_ERROR, message });
        span.set_attr("text", r#"{"a":"Custom-key-0001-and-more, short, not-needed"}"#);
        span.set_attr("others", "Custom-key-0003 Custom-0004 OPENAI_API_KEY");
        let list = vec![AnyValue { value: Some(Value::from("Custom-0002")) }];
        span.set_attr("list", Value::Array(ArrayValue { values: list }));
        keys.take_out(&mut span);
        assert_eq!(span.name, "chat [redacted:api-key]");
        assert_eq!(span.status.as_ref().unwrap().message, "Incorrect API key provided: [redacted:api-key].");
        assert_eq!(span.attr_str("text"), Some(r#"{"a":"[redacted:api-key], short, not-needed"}"#));
        let others = "[redacted:api-key] [redacted:api-key] OPENAI_API_KEY";
        assert_eq!(span.attr_str("others"), Some(others));
        let list = span.attr("list").unwrap().to_json();
        assert_eq!(list, serde_json::json!(["[redacted:api-key]"]));
    }
}
