//! Where a fact stands in a span, and in which shape it is taken.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::provider::{canonical_provider, is_its_provider};
use super::{buckets, literal};
use crate::conventions::dialects::{
    ANSWERS, HIDDEN, MADE_UP_ANSWERS, Shape, Source, UNKNOWN_WORDS, UNNAMED_AGENTS, logs,
};
use crate::conventions::names;
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{AnyValue, ArrayValue, Span, SpanEvent, Value};
use crate::pipeline::facts::{self, MAX_COUNT};

/// Keys of a span, by which it is known what it does not say.
pub(super) trait Keys {
    /// Tells whether a key may be there.
    fn may_have(&self, key: &str) -> bool;
    /// Tells whether a key may be there that begins so.
    fn may_begin(&self, start: &str) -> bool;
}

impl Keys for KeyFilter {
    #[inline]
    fn may_have(&self, key: &str) -> bool {
        Self::may_have(self, key)
    }

    #[inline]
    fn may_begin(&self, start: &str) -> bool {
        Self::may_begin(self, start)
    }
}

/// Tells whether a source may say something of a span that has these keys.
pub(super) fn may_say(keys: &impl Keys, source: &Source) -> bool {
    match *source {
        Source::Key(key)
        | Source::Json(key, _)
        | Source::Reason(key, _)
        | Source::Unlike(key, ..)
        | Source::Before(key, ..)
        | Source::After(key, ..)
        | Source::Quoted(key, _)
        | Source::Begins(key, _) => keys.may_have(key),
        Source::Told(key) => keys.may_have(key),
        Source::Where(key, _, source) | Source::With(key, _, source) | Source::Beside(key, source) => {
            keys.may_have(key) && may_say(keys, source)
        }
        Source::Lacking(_, source) | Source::Served(_, source) => may_say(keys, source),
        Source::Uncounted(source) | Source::Unfailed(source) => may_say(keys, source),
        Source::Indexed(start) => keys.may_begin(start),
        Source::Parts(parts) => parts.iter().any(|(_, key)| keys.may_have(key)),
        Source::Name | Source::Fixed(_) | Source::Method(_) | Source::Behind(_) | Source::Between(..) => true,
        Source::ModelBehind(_) => true,
    }
}

/// Reads an attribute of the span, else of its latest event that has it.
///
/// Only `gen_ai.*` is taken from events: other names there speak of the event. An evaluation speaks of another span, and so does an
/// event of another operation: a call of a model that was made within an agent.
pub(super) fn value_of<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let of_events = || {
        let kind = |value: Option<&Value>| value.and_then(Value::as_str).and_then(facts::standard_kind);
        let own = kind(span.attr(names::OPERATION));
        let is_of_span = |event: &SpanEvent| {
            own.is_none() || kind(event.attr(names::OPERATION)).is_none_or(|kind| Some(kind) == own)
        };
        let events = span.events.iter().rev();
        let events = events.filter(|event| event.name != "gen_ai.evaluation.result" && is_of_span(event));
        let mut events = events.into_iter();
        match key {
            key if key.starts_with("gen_ai.") => events.find_map(|event| event.attr(key)),
            names::EXCEPTION_MESSAGE => {
                events.filter(|event| event.name == names::EVENT_EXCEPTION).find_map(|event| event.attr(key))
            }
            // What came as a record of a log speaks of the same as the span.
            names::USER_ID => {
                events.filter(|event| event.attr(names::LOG_OF_SPAN).is_some()).find_map(|event| event.attr(key))
            }
            _ => {
                let speaks = |event: &&SpanEvent| {
                    // What a tracing layer names after its place in the code has its name in a field.
                    let field = event.attr(names::EVENT_NAME).and_then(Value::as_str);
                    let is_of = |list: &[&str]| {
                        [Some(event.name.as_str()), field].iter().flatten().any(|name| list.contains(name))
                    };
                    is_of(logs::OF_THE_SPAN) || (is_of(logs::MONOCLES) && span.attr(logs::MONOCLE).is_some())
                };
                events.filter(speaks).find_map(|event| event.attr(key))
            }
        }
    };
    span.attr(key).or_else(of_events)
}

pub(super) fn shaped<'a>(span: &'a Span, source: &Source, shape: Shape) -> Option<Cow<'a, Value>> {
    let value = match *source {
        Source::Key(key) => Cow::Borrowed(value_of(span, key)?),
        Source::Json(key, path) => {
            let value = value_of(span, key).filter(|value| may_have(value, path))?;
            Cow::Owned(Value::from(text_of_json(&member(&structured(value), path)?)?))
        }
        Source::Reason(key, path) => {
            let value = value_of(span, key).filter(|value| may_have(value, path))?;
            let found = member(&structured(value), path).filter(|found| match found {
                Json::String(text) => !text.trim().is_empty(),
                Json::Object(members) => !members.is_empty(),
                _ => false,
            });
            Cow::Owned(Value::from(text_of_json(&found?)?))
        }
        Source::Unlike(key, other, path) => {
            let value = value_of(span, key)?;
            let other = text_of_json(&member(&structured(value_of(span, other)?), path)?)?;
            if value.as_str() == Some(other.as_str()) {
                return None;
            }
            Cow::Borrowed(value)
        }
        Source::Before(key, start, separator) => {
            let rest = value_of(span, key)?.as_str()?.strip_prefix(start)?;
            Cow::Owned(Value::from(rest.split_once(separator)?.0))
        }
        Source::After(key, start, separator) => {
            let rest = value_of(span, key)?.as_str()?.strip_prefix(start)?;
            Cow::Owned(Value::from(rest.split_once(separator)?.1))
        }
        Source::Name => Cow::Owned(Value::from(span.name.as_str())),
        Source::Fixed(word) => Cow::Owned(Value::from(word)),
        Source::Method(method) => Cow::Owned(Value::from(span.name.strip_suffix(method)?)),
        Source::Behind(start) => Cow::Owned(Value::from(span.name.strip_prefix(start)?)),
        Source::Begins(key, starts) => {
            let value = value_of(span, key)?;
            let mut parts = value.as_str()?.split(['/', '.']);
            if !parts.any(|part| starts.iter().any(|start| part.starts_with(start))) {
                return None;
            }
            Cow::Borrowed(value)
        }
        Source::ModelBehind(start) => {
            let rest = span.name.strip_prefix(start)?;
            // A class, as of LangChain's models, has neither number nor sign in it.
            let is_model = !rest.contains(char::is_whitespace) && !rest.chars().all(char::is_alphabetic);
            Cow::Owned(Value::from(is_model.then_some(rest)?))
        }
        Source::Between(start, end) => Cow::Owned(Value::from(span.name.strip_prefix(start)?.strip_suffix(end)?)),
        Source::Quoted(key, before) => {
            let (_, rest) = value_of(span, key)?.as_str()?.split_once(before)?;
            Cow::Owned(Value::from(rest.split_once('\'')?.0))
        }
        Source::Where(key, word, source) => {
            return if span.attr_str(key) == Some(word) { shaped(span, source, shape) } else { None };
        }
        Source::Lacking(keys, source) => {
            let is_lacking = keys.iter().all(|key| span.attr(key).is_none());
            return if is_lacking { shaped(span, source, shape) } else { None };
        }
        Source::Uncounted(source) => {
            let is_none = |key: &&str| span.attr(key).is_none_or(|count| count.as_i64() == Some(0));
            // Of a failure that is told the reason is known.
            let tells_failure = span.is_error()
                || span.attr(names::ERROR_TYPE).is_some()
                || span.events.iter().any(|event| event.name == names::EVENT_EXCEPTION);
            let is_uncounted = names::TOKEN_COUNTS.iter().all(is_none) && !tells_failure;
            return if is_uncounted { shaped(span, source, shape) } else { None };
        }
        Source::Unfailed(source) => {
            return if span.is_error() { None } else { shaped(span, source, shape) };
        }
        Source::Served(starts, source) => {
            let provider = span.attr_str(names::PROVIDER)?;
            let is_one = starts.iter().any(|start| provider.starts_with(start));
            return if is_one { shaped(span, source, shape) } else { None };
        }
        Source::Beside(key, source) => {
            return if span.attr(key).is_some() { shaped(span, source, shape) } else { None };
        }
        Source::With(key, name, source) => {
            let is_there = span.attr(key).is_some() && span.events.iter().any(|event| event.name == name);
            return if is_there { shaped(span, source, shape) } else { None };
        }
        Source::Indexed(_) | Source::Parts(_) | Source::Told(_) => return None,
    };
    let is_accepted = match shape {
        Shape::Count => {
            let count = value.as_i64().filter(|count| (0..=MAX_COUNT).contains(count)).map(Value::Int)?;
            return Some(if *value == count { value } else { Cow::Owned(count) });
        }
        Shape::Provider => {
            let word = value.as_str()?;
            let name = canonical_provider(word)?;
            if name != word {
                return Some(Cow::Owned(Value::from(name.into_owned())));
            }
            true
        }
        Shape::Answer => {
            let is_made_up = |id: &str| MADE_UP_ANSWERS.iter().any(|start| id.starts_with(start));
            says_something(&value) && !value.as_str().is_some_and(is_made_up)
        }
        Shape::Text => says_something(&value),
        Shape::Words => {
            let words: Vec<String> = match &*value {
                // Nothing is copied of what stands there as it should.
                Value::Array(list) if !list.values.iter().any(is_empty_text) => return Some(value),
                Value::Array(_) => match value.to_json() {
                    Json::Array(items) => items.iter().filter_map(text_of_json).collect(),
                    _ => Vec::new(),
                },
                _ => {
                    let text = value.as_str().filter(|_| says_something(&value))?;
                    match serde_json::from_str(text) {
                        Ok(Json::Array(items)) => items.iter().filter_map(text_of_json).collect(),
                        _ => vec![text.to_owned()],
                    }
                }
            };
            let words = words.into_iter().filter(|word| !word.is_empty());
            let values: Vec<AnyValue> = words.map(|word| Value::from(word).into()).collect();
            // A list of none says nothing.
            return (!values.is_empty()).then_some(Cow::Owned(Value::Array(ArrayValue { values })));
        }
        Shape::Session | Shape::User => {
            // AgentScope writes it as JSON.
            let quoted = value.as_str().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
            let bare = quoted.filter(|bare| !bare.contains(['"', '\\'])).map(|bare| Cow::Owned(Value::from(bare)));
            let value = bare.unwrap_or(value);
            let is_unknown = |text: &str| UNKNOWN_WORDS.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
            let is_answer = |text: &str| shape == Shape::Session && text.starts_with(ANSWERS);
            let is_none = |text: &str| is_answer(text) || is_object(text) || is_unknown(text);
            let is_none = value.as_str().is_some_and(is_none);
            return (says_something(&value) && !is_none).then_some(value);
        }
        Shape::Model => {
            let is_unknown = |text: &str| UNKNOWN_WORDS.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
            let is_none = |text: &str| is_unknown(text) || is_object(text) || is_its_provider(span, text);
            says_something(&value) && !value.as_str().is_some_and(is_none)
        }
        Shape::Class => {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
            // An address has a colon behind its first word, too.
            let is_name = |text: &str| text.rsplit('.').next().is_some_and(|name| name.starts_with(char::is_uppercase));
            let is_class =
                |text: &str| text.starts_with(char::is_alphabetic) && text.chars().all(is_part) && is_name(text);
            value.as_str().is_some_and(is_class)
        }
        Shape::Name => {
            let is_name = |text: &str| !facts::is_made_up(text) && span.attr_str(names::REQUEST_MODEL) != Some(text);
            says_something(&value) && value.as_str().is_some_and(is_name)
        }
        Shape::Agent => {
            let is_named = |name: &str| !UNNAMED_AGENTS.contains(&name);
            says_something(&value) && value.as_str().is_none_or(is_named)
        }
    };
    is_accepted.then_some(value)
}

/// Tells whether a name or an id is what Python prints of an object that has no other words for itself, or begins so.
fn is_object(text: &str) -> bool {
    text.starts_with('<') && text.contains(" object at 0x")
}

/// Tells whether an item of a list is a text without anything in it: Go has it where nothing was told.
fn is_empty_text(item: &AnyValue) -> bool {
    item.value.as_ref().and_then(Value::as_str) == Some("")
}

/// Who writes every value as JSON has `null` for none.
fn says_something(value: &Value) -> bool {
    !value
        .as_str()
        .is_some_and(|text| matches!(text, "" | "null") || HIDDEN.iter().any(|start| text.starts_with(start)))
}

/// Reads a value as the structure it is: JSON, also of a lone value, or what Python prints.
pub(super) fn structured(value: &Value) -> Json {
    match value.to_json() {
        Json::String(text) if text.starts_with('"') => serde_json::from_str(&text).unwrap_or(Json::String(text)),
        Json::String(text) => literal::read(&text).unwrap_or(Json::String(text)),
        other => other,
    }
}

/// Tells whether a value may have a member: a long text is not parsed for what it does not have.
pub(super) fn may_have(value: &Value, path: &[&str]) -> bool {
    let is_place = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let has = |text: &str, name: &str| {
        let name = name.strip_suffix('?').unwrap_or(name);
        name.split(['*', '=']).all(|part| text.contains(part))
    };
    value.as_str().is_none_or(|text| path.iter().all(|name| is_place(name) || has(text, name)))
}

/// Finds a member by its path; a number takes an item of a list, and so does `KEY=VALUE`, which of an object goes on only where it
/// is so, as `KEY?` does where the object has a KEY: of a list it takes the last item with one. A name with `*` in it is the sum of all
/// counts under such names. A text on the way is read as the structure that it is.
pub(in crate::pipeline) fn member(value: &Json, path: &[&str]) -> Option<Json> {
    let Some((name, rest)) = path.split_first() else { return (!value.is_null()).then(|| value.clone()) };
    let inner;
    let value = match value {
        Json::String(text) => {
            inner = serde_json::from_str(text).ok().or_else(|| literal::read(text))?;
            &inner
        }
        other => other,
    };
    if name.contains('*') {
        return buckets::sum(value, |key| buckets::fits(key, name)).map(Json::from);
    }
    let found = match value {
        Json::Array(items) => match (name.split_once('='), name.strip_suffix('?')) {
            (Some((key, wanted)), _) => {
                let is_it = |item: &Json| item.get(key).and_then(Json::as_str) == Some(wanted);
                items.iter().find(|item| within(item, wanted, is_it))
            }
            (_, Some(key)) => {
                let has = |item: &Json| item.get(key).is_some_and(|found| !found.is_null());
                items.iter().rev().find(|item| within(item, key, has))
            }
            _ => items.get(name.parse::<usize>().ok()?),
        },
        _ => value.get(name).or_else(|| {
            if let Some(key) = name.strip_suffix('?') {
                return value.get(key).map(|_| value);
            }
            let (key, wanted) = name.split_once('=')?;
            (value.get(key).and_then(Json::as_str) == Some(wanted)).then_some(value)
        }),
    };
    member(found?, rest)
}

/// Tells whether an item of a list is so, or the structure that it is as a text, which must have a word for that.
fn within(item: &Json, word: &str, is_so: impl Fn(&Json) -> bool) -> bool {
    match item {
        Json::String(text) if text.contains(word) => serde_json::from_str(text).is_ok_and(|item: Json| is_so(&item)),
        other => is_so(other),
    }
}

fn text_of_json(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
