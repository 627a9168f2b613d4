//! Normalisation: canonical names beside the original ones.
//!
//! Emitters say the same facts under many names. This step reads the tables of [`dialects`](crate::conventions::dialects)
//! and writes what it finds under the canonical names, so that everything after it meets only those. Originals stay;
//! where a value has to change under its own key (cached tokens added, a number that came as text), the original goes
//! to `runspan.original.KEY`. `runspan.added` lists what was added, so [`restore_original`] gives the span back as it
//! came.

mod buckets;
mod literal;
pub(crate) mod messages;
mod outcome;
mod usage;

use outcome::{give_up, write_outcome, write_status};
pub use usage::write_answered;

use std::borrow::Cow;

use serde_json::Value as Json;

use super::facts::{self, MAX_COUNT};
use crate::conventions::dialects::{
    ANSWERS, Announced, Asked, DIALECTS, Detect, Dialect, GUESSED, HIDDEN, KindRow, MADE_UP_ANSWERS, NO_MODEL,
    ONE_PROVIDER, ORDINARY, OTEL, Row, SERVES_ITSELF, SPAN_NAME, Shape, Side, Source, Test, UNKNOWN, UNKNOWN_WORDS,
    UNNAMED_AGENTS, logs,
};
use crate::conventions::{names, providers};
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{AnyValue, ArrayValue, KeyValue, STATUS_UNSET, Span, SpanEvent, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{SpanId, StepKind};

/// Writes the canonical attributes of a record's span beside the originals.
///
/// Does nothing to a span that was normalized before, here or by another runspan, and nothing to a lone event: its
/// span will tell it again.
pub fn normalize(record: &mut Record) {
    if record.kind == RecordKind::Event || record.span.attr(names::ADDED).is_some() {
        return;
    }
    let keys = KeyFilter::with_events(&record.span);
    let (dialects, count) = dialects_of(record, &keys);
    let dialects = &dialects[..count];
    if let Some(announced) = dialects.iter().find_map(|dialect| dialect.announced) {
        reveal(record, announced);
    }
    normalize_as(record, dialects, keys);
}

/// The dialects that a span is written in, in the order in which they are read.
type Dialects<'a> = &'a [&'static Dialect];

/// Dialects that are read of one span, at most: who makes it, and who writes on it on its way.
const MAX_DIALECTS: usize = 4;

/// Finds the dialects that a record's span is written in, and how many they are; [`UNKNOWN`] for none.
fn dialects_of(record: &Record, keys: &KeyFilter) -> ([&'static Dialect; MAX_DIALECTS], usize) {
    let mut found = [&UNKNOWN; MAX_DIALECTS];
    let mut count = 0;
    for dialect in DIALECTS.iter().copied() {
        if count < MAX_DIALECTS
            && is_written_in(dialect, record, keys)
            && !found[..count].iter().any(|other| other.is_kin(dialect))
        {
            found[count] = dialect;
            count += 1;
        }
    }
    if count > 1 {
        forget_maker(&mut found, &mut count, record, keys);
    }
    (found, count.max(1))
}

/// Leaves out what only the resource speaks for, where the scope speaks for another: who set up a process says nothing of how a
/// library in it writes its own spans.
fn forget_maker(found: &mut [&'static Dialect; MAX_DIALECTS], count: &mut usize, record: &Record, keys: &KeyFilter) {
    let is_told_by = |dialect: &Dialect, is_such: fn(&Detect) -> bool| {
        dialect.detect.iter().any(|mark| is_such(mark) && is_marked_by(mark, record, keys))
    };
    let is_of_maker = |dialect: &Dialect| {
        is_told_by(dialect, Detect::is_of_resource) && !is_told_by(dialect, |mark| !mark.is_of_resource())
    };
    let (mut kept, mut left) = ([&UNKNOWN; MAX_DIALECTS], 0);
    for dialect in found[..*count].iter().copied().filter(|dialect| !is_of_maker(dialect)) {
        kept[left] = dialect;
        left += 1;
    }
    if left < *count && kept[..left].iter().any(|dialect| is_told_by(dialect, Detect::is_of_scope)) {
        (*found, *count) = (kept, left);
    }
}

/// Tells whether a source may say something of a span that has these keys.
fn may_say(keys: &KeyFilter, source: &Source) -> bool {
    match *source {
        Source::Key(key)
        | Source::Json(key, _)
        | Source::Reason(key, _)
        | Source::Unlike(key, ..)
        | Source::Before(key, ..)
        | Source::After(key, ..)
        | Source::Quoted(key, _) => keys.may_have(key),
        Source::Told(key) => keys.may_have(key),
        Source::Where(key, _, source) | Source::With(key, _, source) | Source::Beside(key, source) => {
            keys.may_have(key) && may_say(keys, source)
        }
        Source::Lacking(_, source) | Source::Served(_, source) => may_say(keys, source),
        Source::Uncounted(source) | Source::Unfailed(source) => may_say(keys, source),
        Source::Indexed(start) => keys.may_begin(start),
        Source::Parts(parts) => parts.iter().any(|(_, key)| keys.may_have(key)),
        Source::Name | Source::Fixed(_) | Source::Method(_) | Source::Behind(_) | Source::Between(..) => true,
    }
}

/// Makes the start of the real span of one that only announces it.
fn reveal(record: &mut Record, announced: Announced) {
    let span = &mut record.span;
    if span.attr_str(announced.key) != Some(announced.word) || span.parent_span_id.is_empty() {
        return;
    }
    let parent = span.attr_str(announced.parent).and_then(|id| id.parse::<SpanId>().ok());
    span.span_id = std::mem::take(&mut span.parent_span_id);
    span.parent_span_id = parent.map(|id| id.0.to_vec()).unwrap_or_default();
    span.end_time_unix_nano = 0;
    record.kind = RecordKind::Started;
}

fn normalize_as(record: &mut Record, dialects: Dialects<'_>, keys: KeyFilter) {
    let ended = record.kind == RecordKind::Ended && record.span.end_time_unix_nano != 0;
    let mut draft = Draft { span: &mut record.span, keys, added: Vec::new() };
    for row in dialects.iter().flat_map(|dialect| dialect.facts).chain(OTEL.facts) {
        write_fact(&mut draft, row);
    }
    for asked in dialects.iter().filter_map(|dialect| dialect.asked) {
        write_asked(&mut draft, asked);
    }
    if dialects.iter().any(|dialect| dialect.names_itself) {
        forget_service(&mut draft, &record.scope.name);
    }
    write_host(&mut draft, &record.scope.name);
    write_bare_model(&mut draft);
    write_provider_of_client(&mut draft, &record.scope.name);
    write_own_service(&mut draft, &record.scope.name);
    let kind = write_kind(&mut draft, dialects);
    write_entity_name(&mut draft, dialects, kind);
    let kind = kind.map(|(kind, _)| kind);
    let told = usage::write(&mut draft, dialects, kind);
    for side in [Side::System, Side::In, Side::Out] {
        write_content(&mut draft, dialects, kind, side);
    }
    for key in [names::INPUT_MESSAGES, names::OUTPUT_MESSAGES] {
        if draft.keys.may_have(key)
            && let Some(messages) = draft.span().attr(key).and_then(messages::with_small_roles)
        {
            draft.set(key, messages);
        }
        if draft.keys.may_have(key)
            && let Some(messages) = draft.span().attr(key).and_then(messages::with_reasoning)
        {
            draft.set(key, messages);
        }
    }
    if ended && usage::forget_beginning(&mut draft, dialects) {
        give_up(&mut draft);
    }
    usage::settle(&mut draft, dialects, told);
    write_outcome(&mut draft, dialects, ended);
    if ended {
        write_status(&mut draft);
    }
    draft.finish();
}

/// Undoes normalisation and pricing: the span is as it came, attribute for attribute.
///
/// What scrub or a limit has changed since stays changed.
pub fn restore_original(span: &mut Span) {
    let Some(Value::Array(added)) = span.attr(names::ADDED) else { return };
    let added: Vec<String> = added.values.iter().filter_map(|key| Some(key.value.as_ref()?.as_str()?.into())).collect();
    let mut originals = Vec::new();
    if added.iter().any(|added| added == names::ADDED_STATUS) {
        span.status = None;
    }
    if let Some(status) = span.status.as_mut().filter(|_| added.iter().any(|added| added == names::ADDED_STATUS_CODE)) {
        status.code = STATUS_UNSET;
    }
    span.attributes.retain_mut(|attribute| {
        if attribute.key == names::ADDED {
            return false;
        }
        if !added.contains(&attribute.key) {
            return true;
        }
        if let Some(key) = attribute.key.strip_prefix(names::ORIGINAL_PREFIX) {
            originals.push(KeyValue { key: key.to_owned(), value: attribute.value.take() });
        }
        false
    });
    // A key that stood several times has as many originals, in the same order.
    for attribute in &mut span.attributes {
        if let Some(at) = originals.iter().position(|original| original.key == attribute.key) {
            attribute.value = originals.remove(at).value;
        }
    }
}

/// Names the model of a call that does not name it itself.
pub(crate) fn name_model(span: &mut Span, model: &str) {
    let mut draft = Draft::of(span);
    draft.set(names::REQUEST_MODEL, model);
    draft.finish();
}

/// A span being written to, with note taken of each change.
pub(super) struct Draft<'a> {
    span: &'a mut Span,
    keys: KeyFilter,
    added: Vec<String>,
}

impl<'a> Draft<'a> {
    /// Begins or continues to write to a span.
    pub(super) fn of(span: &'a mut Span) -> Self {
        Self { keys: KeyFilter::with_events(span), span, added: Vec::new() }
    }

    /// Returns the span as it is now.
    pub(super) fn span(&self) -> &Span {
        self.span
    }

    /// Reads a source, in the shape it should have.
    fn read(&self, source: &Source, shape: Shape) -> Option<Cow<'_, Value>> {
        if may_say(&self.keys, source) { shaped(self.span, source, shape) } else { None }
    }

    /// Tells whether this stands under `key`, and nothing else does.
    fn says(&self, key: &str, value: Option<&Value>) -> bool {
        let mut found = self.span.attributes.iter().filter(|attribute| attribute.key == key).peekable();
        let own = |attribute: &KeyValue| attribute.value.as_ref().and_then(|own| own.value.as_ref()) == value;
        found.peek().is_some() && found.all(own)
    }

    /// Puts `value` under `key`, and what stood there under `runspan.original.KEY`.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.write(key, Some(value.into()));
    }

    /// Empties `key`, so that nothing is reported under it.
    fn clear(&mut self, key: &str) {
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
    pub(super) fn finish(self) {
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

fn is_written_in(dialect: &Dialect, record: &Record, keys: &KeyFilter) -> bool {
    dialect.detect.iter().any(|mark| is_marked_by(mark, record, keys))
}

fn is_marked_by(mark: &Detect, record: &Record, keys: &KeyFilter) -> bool {
    let (span, scope) = (&record.span, &record.scope);
    let has = |is_it: &dyn Fn(&str) -> bool| span.attributes.iter().any(|attribute| is_it(&attribute.key));
    match *mark {
        Detect::Key(key) => keys.may_have(key) && has(&|own| own == key),
        Detect::KeyPrefix(start) => keys.may_begin(start) && has(&|own| begins(own, start)),
        Detect::Value(key, start) => {
            keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start))
        }
        Detect::ValueWithout(key, start, other, part) => {
            let has_start = keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start));
            has_start && span.attr_str(other).is_some_and(|value| !value.contains(part))
        }
        Detect::Maker(key, word) => {
            let of_resource = record.resource.attr(key).and_then(Value::as_str);
            of_resource.or_else(|| span.attr_str(key)) == Some(word)
        }
        Detect::Scope(name) => scope.name == name,
        Detect::ScopePrefix(start) => begins(&scope.name, start),
        Detect::Called(part) => span.name.contains(part),
        Detect::ScopeBy(name, key, word) => {
            scope.name == name && record.resource.attr(key).and_then(Value::as_str) == Some(word)
        }
        Detect::Release { scope: name, version, by: (key, word), with } => {
            scope.name == name
                && version.is_none_or(|version| scope.version == version)
                && record.resource.attr(key).and_then(Value::as_str) == Some(word)
                && (with.is_empty() || keys.may_begin(with) && has(&|own| begins(own, with)))
        }
        Detect::ScopeLacking(name, key, start, other) => {
            let has_start = || keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start));
            scope.name == name && has_start() && !has(&|own| own == other)
        }
        Detect::ScopeOf(name, versions) => scope.name == name && versions.contains(&scope.version.as_str()),
        Detect::ScopeWith(name, start) => scope.name == name && keys.may_begin(start) && has(&|own| begins(own, start)),
        Detect::Named(start, name) => span.name == name && begins(&scope.name, start),
        Detect::Begins(start, name) => begins(&span.name, name) && begins(&scope.name, start),
        Detect::Within { scope: start, name, key, part } => {
            begins(&scope.name, start)
                && begins(&span.name, name)
                && span.attr_str(key).is_some_and(|value| value.contains(part))
        }
        Detect::Method(start, key) => {
            let is_own = |own: &str| {
                let rest = own.strip_prefix(span.name.as_str());
                rest.is_some_and(|rest| rest.starts_with(".argument.") || rest == ".result")
            };
            span.name.starts_with(start) && keys.may_have(key) && has(&|own| own == key) && has(&is_own)
        }
        Detect::Around(start, key, end, other) => {
            let inner = span.name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            inner.is_some_and(|inner| span.attr_str(key) == Some(inner)) && has(&|own| own == other)
        }
        Detect::NamedBy(name, with, of, word) => {
            span.name == name
                && with.iter().all(|key| keys.may_have(key) && has(&|own| own == *key))
                && record.resource.attr(of).and_then(Value::as_str) == Some(word)
        }
    }
}

/// Tells whether a text begins so. Many rows are asked of each span, and what they look for begins alike and differs behind: the last
/// letter says no to nearly all.
#[inline]
fn begins(text: &str, start: &str) -> bool {
    let last = start.len().wrapping_sub(1);
    text.as_bytes().get(last) == start.as_bytes().last() && text.starts_with(start)
}

/// Reads an attribute of the span, else of its latest event that has it.
///
/// Only `gen_ai.*` is taken from events: other names there speak of the event. An evaluation speaks of another span, and so does an
/// event of another operation: a call of a model that was made within an agent.
fn value_of<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
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

fn write_fact(draft: &mut Draft<'_>, row: &Row) {
    let read = |source: &Source| draft.read(source, row.shape);
    let says_none = |value: &Value| row.shape == Shape::Count && *value == Value::Int(0);
    let found = || {
        let mut found = row.from.iter().filter_map(read);
        let first = found.next()?;
        if says_none(&first) { found.find(|value| !says_none(value)).or(Some(first)) } else { Some(first) }
    };
    if let Some(value) = read(&Source::Key(row.to)).or_else(found) {
        if !draft.says(row.to, Some(&value)) {
            let value = value.into_owned();
            draft.set(row.to, value);
        }
    } else if (matches!(
        row.shape,
        Shape::Provider | Shape::Model | Shape::Session | Shape::User | Shape::Agent | Shape::Words
    ) || (row.shape == Shape::Count && draft.span().attr(row.to).and_then(Value::as_i64) > Some(MAX_COUNT)))
        && draft.keys.may_have(row.to)
        && draft.span().attr(row.to).is_some()
    {
        // A placeholder, a framework in the place of a provider, an answer in that of a conversation, a list of empty words, or a
        // count of nothing.
        draft.clear(row.to);
    }
}

/// Writes the model that a gateway asked in place of its own name for it, by which it has answered.
fn write_asked(draft: &mut Draft<'_>, asked: Asked) {
    let span = draft.span();
    let Some((vendor, model)) = span.attr_str(asked.key).and_then(|word| word.split_once('/')) else { return };
    // What was asked before it, and failed, may still stand there.
    let is_of = |told: &str| canonical_provider(vendor).as_deref() == Some(told);
    if !span.attr_str(names::PROVIDER).is_none_or(is_of) {
        return;
    }
    let answered = span.attr_str(names::RESPONSE_MODEL);
    let is_own = asked.own.iter().any(|key| answered.is_some() && span.attr_str(key) == answered);
    if is_own && answered != Some(model) {
        let model = model.to_owned();
        draft.set(names::RESPONSE_MODEL, model);
    }
}

/// Empties the provider where that is the name of the scope: nobody who serves models is named so.
fn forget_service(draft: &mut Draft<'_>, scope: &str) {
    let told = [names::PROVIDER, "gen_ai.system"].map(|key| draft.span().attr_str(key));
    let original = draft.span().attr_str(&format!("{}{}", names::ORIGINAL_PREFIX, names::PROVIDER));
    if told.into_iter().chain([original]).flatten().any(|told| told == scope) && told[0].is_some() {
        draft.clear(names::PROVIDER);
    }
}

/// Writes who serves a model whose name tells it: where nobody is named, or somebody who serves no models of others, for whose
/// client the emitter takes every model that is called in its way. An address says more than a name.
fn write_host(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let told = span.attr_str(names::PROVIDER);
    let is_guess = |told: &str| GUESSED.contains(&(scope, told));
    let has_own = told.is_none_or(|told| providers::WITH_OWN_MODELS.contains(&told) || is_guess(told));
    if !has_own || span.attr(names::SERVER_ADDRESS).is_some() {
        return;
    }
    let [asked, answered] = [names::REQUEST_MODEL, names::RESPONSE_MODEL].map(|key| span.attr_str(key));
    // What was asked for says nothing of who answered in its place.
    let is_same = |asked: &str| {
        let own = asked.rsplit_once('/').map_or(asked, |(_, own)| own);
        answered.is_none_or(|answered| answered.starts_with(own) || asked.contains(answered))
    };
    let host =
        answered.and_then(provider_in_model).or_else(|| provider_in_model(asked.filter(|asked| is_same(asked))?));
    if let Some(host) = host.filter(|host| Some(&**host) != told).map(Cow::into_owned) {
        draft.set(names::PROVIDER, host);
    }
}

/// Writes the only provider of the client that a scope traces, where nothing names one.
fn write_provider_of_client(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let calls = [names::REQUEST_MODEL, names::RESPONSE_MODEL].iter().any(|key| span.attr(key).is_some());
    if !calls || span.attr(names::PROVIDER).is_some() || span.attr(names::SERVER_ADDRESS).is_some() {
        return;
    }
    if let Some((_, provider)) = ONE_PROVIDER.iter().find(|(start, _)| scope.starts_with(start)) {
        draft.set(names::PROVIDER, *provider);
    }
}

/// Writes who serves the models of a program that names its maker, unless the address is that of somebody else.
fn write_own_service(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let told = span.attr_str(names::PROVIDER);
    let own = SERVES_ITSELF.iter().find(|(of, word, _)| *of == scope && Some(*word) == told);
    let Some((.., own)) = own else { return };
    let address = span.attr_str(names::SERVER_ADDRESS).unwrap_or_default();
    let is_below = |host: &str| address.strip_suffix(host).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let other = providers::HOSTS.iter().find(|(host, _)| is_below(host)).map(|(_, provider)| *provider);
    draft.set(names::PROVIDER, other.unwrap_or(own));
}

/// Writes the provider's own name of a model for LiteLLM's, which has the provider before it, where the emitter has it under a key of
/// its own alone. What the server answers by such a name has no other.
fn write_bare_model(draft: &mut Draft<'_>) {
    if !draft.added.iter().any(|added| added == names::REQUEST_MODEL) {
        return;
    }
    let span = draft.span();
    let Some((provider, bare)) = span.attr_str(names::REQUEST_MODEL).and_then(|model| model.split_once('/')) else {
        return;
    };
    let is_told = provider_in_model(&format!("{provider}/")).as_deref() == span.attr_str(names::PROVIDER);
    let answered = span.attr_str(names::RESPONSE_MODEL).and_then(|model| model.split_once('/'));
    if is_told && !bare.is_empty() && answered.is_none_or(|(by, _)| by != provider) {
        let bare = bare.to_owned();
        draft.set(names::REQUEST_MODEL, bare);
    }
}

fn shaped<'a>(span: &'a Span, source: &Source, shape: Shape) -> Option<Cow<'a, Value>> {
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

/// Reads who serves a model out of its name: `openai/gpt-4o-mini`, as LiteLLM has it, or an id of Bedrock's.
fn provider_in_model(model: &str) -> Option<Cow<'_, str>> {
    if let Some((start, _)) = model.split_once('/') {
        return providers::IN_MODELS.contains(&start).then(|| canonical_provider(start))?;
    }
    let (first, rest) = model.split_once('.')?;
    let is_profile = providers::BEDROCK_PROFILES.contains(&first);
    let vendor = if is_profile { rest.split_once('.')?.0 } else { first };
    // Without a profile before it, others may name a vendor in this way, too; a version behind a colon is Bedrock's.
    let has_version = || model.rsplit_once(':').is_some_and(|(_, version)| version.parse::<u32>().is_ok());
    let is_bedrock = providers::BEDROCK_VENDORS.contains(&vendor) && (is_profile || has_version());
    is_bedrock.then(|| canonical_provider("bedrock"))?
}

/// Tells whether what should be a model is the word for who serves it, as OpenLIT writes where LangChain has no model's name.
fn is_its_provider(span: &Span, model: &str) -> bool {
    // The maker alone, of a model's id that has a profile before it (OpenInference in JavaScript).
    let serves = |provider: &str| span.attr_str(names::PROVIDER) == Some(provider);
    if serves("aws.bedrock") && providers::BEDROCK_VENDORS.contains(&model) {
        return true;
    }
    let known = |name: &Cow<'_, str>| providers::HOSTS.iter().any(|(_, of)| of == name);
    let Some(named) = canonical_provider(model).filter(known) else { return false };
    span.attr_str(names::PROVIDER).and_then(canonical_provider) == Some(named)
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
fn structured(value: &Value) -> Json {
    match value.to_json() {
        Json::String(text) if text.starts_with('"') => serde_json::from_str(&text).unwrap_or(Json::String(text)),
        Json::String(text) => literal::read(&text).unwrap_or(Json::String(text)),
        other => other,
    }
}

/// Tells whether a value may have a member: a long text is not parsed for what it does not have.
fn may_have(value: &Value, path: &[&str]) -> bool {
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
pub(super) fn member(value: &Json, path: &[&str]) -> Option<Json> {
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

/// Returns the canonical name for a word in `gen_ai.system`; `None` where the word names a framework.
pub(super) fn canonical_provider(word: &str) -> Option<Cow<'_, str>> {
    let word = word.trim();
    let is_lower = !word.chars().any(char::is_uppercase);
    let word = if is_lower { Cow::Borrowed(word) } else { Cow::Owned(word.to_lowercase()) };
    let says_nothing = word.is_empty() || UNKNOWN_WORDS.contains(&&*word);
    if says_nothing || providers::FRAMEWORKS.contains(&&*word) {
        return None;
    }
    let known = |word: &str| providers::CANONICAL.iter().find(|(old, _)| *old == word).map(|(_, name)| *name);
    let is_canonical = providers::CANONICAL.iter().any(|(_, name)| *name == word);
    let bare = word.rsplit_once('.').filter(|(_, api)| providers::APIS.contains(api)).map(|(bare, _)| bare);
    // What Azure and others have besides is no model's maker: a search, an agent.
    let is_maker = |rest: &str| providers::SERVED_MAKERS.contains(&rest.split('.').next().unwrap_or_default());
    let is_below =
        |server: &&&str| word.strip_prefix(**server).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_maker);
    let server = providers::SERVE_MAKERS.iter().find(is_below).filter(|_| !is_canonical);
    if let Some(name) = known(&word).or_else(|| known(bare?)).or_else(|| known(server?)) {
        return Some(Cow::Borrowed(name));
    }
    Some(match bare.map(str::to_owned) {
        Some(bare) => Cow::Owned(bare),
        None => word,
    })
}

/// Decides what the step is and writes it where it can't be read yet; also returns the dialect that says so. `None` for a span
/// that says nothing of the sort.
///
/// Of several dialects the one that says more counts: what is a plain step or a workflow to one may be an agent to another.
fn write_kind(draft: &mut Draft<'_>, dialects: Dialects<'_>) -> Option<(StepKind, Option<&'static Dialect>)> {
    if let Some(kind) = draft.span().attr_str(names::STEP_KIND).and_then(|word| word.parse().ok()) {
        return Some((kind, None));
    }
    let operation = value_of(draft.span(), names::OPERATION).and_then(Value::as_str).map(str::to_owned);
    let standard = operation.as_deref().and_then(facts::standard_kind);
    let may_fit = |row: &KindRow| row.key == SPAN_NAME || draft.keys.may_have(row.key);
    let find = |rows: &[KindRow]| rows.iter().find(|row| may_fit(row) && fits(draft.span(), row)).map(|row| row.kind);
    let told = dialects.iter().enumerate().filter_map(|(place, dialect)| Some((find(dialect.kinds)?, place)));
    let told = told.min_by_key(|(kind, _)| match kind {
        StepKind::Task => 2,
        StepKind::Workflow => 1,
        _ => 0,
    });
    // That a span is a plain step to who wrote on it later is not against an operation that its maker gave it.
    let told = told.filter(|(kind, place)| *place == 0 || *kind != StepKind::Task || standard.is_none());
    let (kind, by) = match told {
        Some((kind, place)) => (kind, dialects.get(place).copied()),
        None => (standard.or_else(|| find(OTEL.kinds))?, None),
    };
    let names_none = forget_none(draft);
    let kind = match kind {
        StepKind::Llm if names_none => StepKind::Task,
        StepKind::Llm => kind_of_model(draft.span()).unwrap_or(kind),
        kind => kind,
    };
    let word = names::OPERATIONS.iter().find(|(_, of)| *of == kind).map(|(word, _)| *word);
    match (&operation, word) {
        (None, Some(word)) => draft.set(names::OPERATION, word),
        (Some(operation), _) if draft.span().attr(names::OPERATION).is_none() && standard == Some(kind) => {
            draft.set(names::OPERATION, operation.as_str());
        }
        _ if operation.is_none() || facts::kind(draft.span()) != kind => draft.set(names::STEP_KIND, kind.as_str()),
        _ => {}
    }
    Some((kind, by))
}

/// Empties what stands for no model; tells whether that was all there is of one.
fn forget_none(draft: &mut Draft<'_>) -> bool {
    let models = [names::REQUEST_MODEL, names::RESPONSE_MODEL];
    let is_none = |draft: &Draft<'_>, key| draft.span().attr_str(key) == Some(NO_MODEL);
    let none = models.map(|key| is_none(draft, key));
    for (key, _) in models.iter().zip(none).filter(|(_, none)| *none) {
        draft.clear(key);
    }
    none.contains(&true) && models.iter().all(|key| draft.span().attr_str(key).is_none())
}

/// Reads out of a model's name what it does, where that is not to answer.
fn kind_of_model(span: &Span) -> Option<StepKind> {
    let model = span.attr_str(names::RESPONSE_MODEL).or_else(|| span.attr_str(names::REQUEST_MODEL))?;
    // Whoever answers is none of these, whatever somebody calls a deployment of it.
    let has_written = span.attr(names::OUTPUT_TOKENS).and_then(Value::as_i64).is_some_and(|tokens| tokens > 0);
    if has_written || span.attr(names::FINISH_REASONS).is_some() {
        return None;
    }
    let begins = |start: &str| model.split(['/', '.']).any(|part| part.starts_with(start));
    providers::KINDS_OF_MODELS.iter().find(|(start, _)| begins(start)).map(|(_, kind)| *kind)
}

fn fits(span: &Span, row: &KindRow) -> bool {
    let value = if row.key == SPAN_NAME { None } else { value_of(span, row.key) };
    if row.key != SPAN_NAME && value.is_none() {
        return false;
    }
    // Some emitters encode every value as JSON, so words come in quotes.
    let word = value.map_or(Some(span.name.as_str()), Value::as_str).unwrap_or_default().trim_matches('"');
    match row.test {
        Test::Is(expected) => word.eq_ignore_ascii_case(expected),
        Test::IsRoot(expected) => word.eq_ignore_ascii_case(expected) && span.parent_span_id.is_empty(),
        Test::IsWithout(expected, key) => word.eq_ignore_ascii_case(expected) && span.attr(key).is_none(),
        Test::Starts(start) => word.starts_with(start),
        Test::Ends(end) => word.ends_with(end),
        Test::Has(part) => word.contains(part),
        Test::Between(start, end) => {
            word.len() > start.len() + end.len() && word.starts_with(start) && word.ends_with(end)
        }
        Test::IsName => word == span.name,
        Test::Same(key) => span.attr_str(key) == Some(word),
        Test::Present => true,
        Test::Some => value.and_then(Value::as_i64).is_some_and(|count| count > 0),
        Test::None => value.and_then(Value::as_i64) == Some(0),
        Test::With(keys) => keys.iter().any(|key| span.attr(key).is_some()),
        Test::Without(keys) => keys.iter().all(|key| span.attr(key).is_none()),
        Test::Label => !ORDINARY.iter().any(|key| span.attr(key).is_some()) && matches!(span.kind, 0 | 1),
    }
}

fn write_entity_name(
    draft: &mut Draft<'_>,
    dialects: Dialects<'_>,
    kind: Option<(StepKind, Option<&'static Dialect>)>,
) {
    let (kind, by) = (kind.map(|(kind, _)| kind), kind.and_then(|(_, by)| by));
    let to = match kind {
        Some(StepKind::Agent) => names::AGENT_NAME,
        Some(StepKind::Tool) => names::TOOL_NAME,
        Some(StepKind::Workflow) => names::WORKFLOW_NAME,
        _ => return,
    };
    if draft.span().attr(to).is_none()
        && let Some(name) = by
            .iter()
            .chain(dialects)
            .flat_map(|dialect| dialect.entity)
            .map(|source| (source, Shape::Text))
            .chain(OTEL.entity.iter().map(|source| (source, Shape::Name)))
            .filter(|(source, _)| kind != Some(StepKind::Workflow) || !matches!(source, Source::Method(_)))
            .find_map(|(source, shape)| draft.read(source, shape))
            .map(Cow::into_owned)
    {
        draft.set(to, name);
    }
}

/// Writes one side of the content under the name that the kind of the step has for it.
fn write_content(draft: &mut Draft<'_>, dialects: Dialects<'_>, kind: Option<StepKind>, side: Side) {
    let Some(kind) = kind else { return };
    let (to, messages) = match side {
        Side::System => (names::SYSTEM_INSTRUCTIONS, None),
        Side::In => (content_in(kind), Some((names::INPUT_MESSAGES, "user"))),
        Side::Out => (content_out(kind), Some((names::OUTPUT_MESSAGES, "assistant"))),
    };
    // What a dialect wraps in the canonical place comes out of it.
    let content = || dialects.iter().flat_map(|dialect| dialect.content).filter(|row| row.side == side);
    let is_of_messages = |key| messages.is_some_and(|(of, _)| of == key);
    let place_of = |source: &Source| match *source {
        Source::Json(key, _) if key == to => Some(key),
        // Or stands better beside it.
        Source::Beside(key, _) if key == to || is_of_messages(key) => Some(key),
        _ => None,
    };
    let mut wrapped = content().flat_map(|row| row.from).filter_map(|source| Some((place_of(source)?, source)));
    let inner = wrapped.find_map(|(key, source)| Some((key, draft.read(source, Shape::Text)?.into_owned())));
    if let Some((key, inner)) = inner {
        draft.set(key, inner);
        return;
    }
    // An agent's messages are its input and output, under the name they have.
    let has_messages = messages.is_some_and(|(key, _)| draft.span().attr(key).is_some()) && kind != StepKind::Tool;
    if draft.span().attr(to).is_some() || has_messages {
        return;
    }
    // Whose content is messages, and who says them.
    let role = messages.filter(|(key, _)| to == *key).map(|(_, role)| role);
    let of_standard = OTEL.content.iter().filter(|row| row.side == side);
    // Messages of some of which nothing is known but who said them: the next place may have all.
    let mut in_part = None;
    let sources = content().chain(of_standard).flat_map(|row| row.from);
    let found = sources
        .filter(|source| may_say(&draft.keys, source))
        .find_map(|source| match *source {
            Source::Indexed(prefix) => messages::indexed(draft.span(), prefix).and_then(|found| {
                let messages = Value::from(found.messages.to_string());
                if found.is_whole {
                    return Some(messages);
                }
                in_part.get_or_insert(messages);
                None
            }),
            Source::Parts(parts) => messages::of_parts(draft.span(), parts, role.is_some()),
            Source::Told(key) => messages::of_list(value_of(draft.span(), key)?, side),
            _ => draft.read(source, Shape::Text).map(Cow::into_owned),
        })
        .or_else(|| match kind {
            StepKind::Tool => messages::of_tool(&draft.span().events, side),
            _ => messages::of_events(&draft.span().events, side).map(|list| list.to_string().into()),
        })
        .or(in_part);
    match (found, role) {
        (Some(value), Some(role)) => draft.set(to, messages::of_text(value, role)),
        (Some(value), None) => draft.set(to, value),
        (None, _) => {}
    }
}

fn content_in(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Llm => names::INPUT_MESSAGES,
        StepKind::Tool => names::TOOL_ARGUMENTS,
        StepKind::Retrieval => names::RETRIEVAL_QUERY,
        _ => names::INPUT,
    }
}

fn content_out(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Llm => names::OUTPUT_MESSAGES,
        StepKind::Tool => names::TOOL_RESULT,
        StepKind::Retrieval => names::RETRIEVAL_DOCUMENTS,
        _ => names::OUTPUT,
    }
}

#[cfg(test)]
mod tests;
