//! The keys that calls are made with, which nothing that is recorded of them may hold.
//!
//! Most are known by their shape wherever they stand. Of these the text itself is known: a gateway may have keys of any shape,
//! and says in its answer which one is wrong.

use hyper::header::{AUTHORIZATION, HeaderMap};
use runspan::model::otlp::{AnyValue, Span, Value};

/// Headers, and parameters of an address, that hold a key and nothing else.
const HEADERS: &[&str] = &["api-key", "x-api-key", "x-goog-api-key"];
const PARAMETERS: &[&str] = &["key", "api-key", "api_key"];
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
        let of_header = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        // Behind the word for what it is.
        let authorization = of_header(AUTHORIZATION.as_str());
        let authorization = authorization.map(|value| value.split_once(' ').map_or(value, |(_, key)| key));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let parameters = pairs.filter(|(name, _)| PARAMETERS.contains(name)).map(|(_, key)| key);
        let found = authorization.chain(HEADERS.iter().copied().flat_map(of_header)).chain(parameters);
        let mut keys: Vec<String> = found.map(str::trim).filter(|key| is_key(key)).map(str::to_owned).collect();
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
        span.attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()).for_each(|value| self.visit(value));
    }

    fn visit(&self, value: &mut AnyValue) {
        match &mut value.value {
            Some(Value::String(text)) => self.take_out_of(text),
            Some(Value::Array(list)) => list.values.iter_mut().for_each(|value| self.visit(value)),
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
    text.len() >= SHORTEST && !is_word
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
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let keys = Keys::of(&headers, "alt=sse&key=Custom-0002");
        let mut span = Span { name: "chat Custom-0002".to_owned(), ..Span::default() };
        let message = "Incorrect API key provided: Custom-key-0001.".to_owned();
        span.status = Some(Status { code: STATUS_ERROR, message });
        span.set_attr("text", r#"{"a":"Custom-key-0001-and-more, short, not-needed"}"#);
        let list = vec![AnyValue { value: Some(Value::from("Custom-0002")) }];
        span.set_attr("list", Value::Array(ArrayValue { values: list }));
        keys.take_out(&mut span);
        assert_eq!(span.name, "chat [redacted:api-key]");
        assert_eq!(span.status.as_ref().unwrap().message, "Incorrect API key provided: [redacted:api-key].");
        assert_eq!(span.attr_str("text"), Some(r#"{"a":"[redacted:api-key], short, not-needed"}"#));
        let list = span.attr("list").unwrap().to_json();
        assert_eq!(list, serde_json::json!(["[redacted:api-key]"]));
    }
}
