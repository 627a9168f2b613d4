//! A span being written to.

use std::borrow::Cow;

use super::source::{may_say, shaped};
use crate::conventions::dialects::{Shape, Source};
use crate::conventions::names;
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{AnyValue, ArrayValue, KeyValue, Span, Value};

/// A span being written to, with note taken of each change.
pub(in crate::pipeline) struct Draft<'a> {
    pub(super) span: &'a mut Span,
    /// What keys it has, by which most questions are answered without a look.
    pub(super) keys: KeyFilter,
    /// The keys that were written.
    pub(super) added: Vec<String>,
}

impl<'a> Draft<'a> {
    /// Begins or continues to write to a span.
    pub(in crate::pipeline) fn of(span: &'a mut Span) -> Self {
        let keys = KeyFilter::with_events(span);
        Self::with(span, keys)
    }

    /// The same, where it is known which keys the span and its events have.
    pub(super) fn with(span: &'a mut Span, keys: KeyFilter) -> Self {
        Self { span, keys, added: Vec::new() }
    }

    /// Returns the span as it is now.
    pub(in crate::pipeline) fn span(&self) -> &Span {
        self.span
    }

    /// Reads a source, in the shape it should have.
    pub(super) fn read(&self, source: &Source, shape: Shape) -> Option<Cow<'_, Value>> {
        if may_say(&self.keys, source) { shaped(self.span, source, shape) } else { None }
    }

    /// Tells whether this stands under `key`, and nothing else does.
    pub(super) fn says(&self, key: &str, value: Option<&Value>) -> bool {
        let mut found = self.span.attributes.iter().filter(|attribute| attribute.key == key).peekable();
        let own = |attribute: &KeyValue| attribute.value.as_ref().and_then(|own| own.value.as_ref()) == value;
        found.peek().is_some() && found.all(own)
    }

    /// Puts `value` under `key`, and what stood there under `runspan.original.KEY`.
    pub(in crate::pipeline) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.write(key, Some(value.into()));
    }

    /// Empties `key`, so that nothing is reported under it.
    pub(super) fn clear(&mut self, key: &str) {
        self.write(key, None);
    }

    fn write(&mut self, key: &str, value: Option<Value>) {
        let is_there = self.keys.may_have(key) && self.span.attributes.iter().any(|attribute| attribute.key == key);
        if !is_there {
            self.keys.note(key);
            self.added.push(key.to_owned());
            self.span.attributes.push(KeyValue { key: key.to_owned(), value: value.map(AnyValue::from) });
            return;
        }
        if self.says(key, value.as_ref()) {
            return;
        }
        let value = value.map(AnyValue::from);
        let same = self.span.attributes.iter_mut().filter(|attribute| attribute.key == key);
        let originals: Vec<_> = same.map(|attribute| std::mem::replace(&mut attribute.value, value.clone())).collect();
        let original_key = format!("{}{key}", names::ORIGINAL_PREFIX);
        // A key that is ours has no original to keep.
        if !self.added.iter().any(|added| added == key || *added == original_key) {
            let originals = originals.into_iter().map(|value| KeyValue { key: original_key.clone(), value });
            self.span.attributes.extend(originals);
            self.keys.note(&original_key);
            self.added.push(original_key);
        }
    }

    /// Writes down what was added.
    pub(in crate::pipeline) fn finish(self) {
        if self.added.is_empty() {
            return;
        }
        let added = self.added.into_iter().map(|key| Value::from(key).into());
        let before = self.span.attributes.iter_mut().rev().find(|attribute| attribute.key == names::ADDED);
        let before = before.and_then(|attribute| attribute.value.as_mut()?.value.as_mut());
        match before {
            Some(Value::Array(before)) => before.values.extend(added),
            _ => self.span.set_attr(names::ADDED, Value::Array(ArrayValue { values: added.collect() })),
        }
    }
}
