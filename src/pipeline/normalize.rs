//! Normalisation: canonical names beside the original ones.
//!
//! Emitters say the same facts under many names. This step reads the tables of [`dialects`](crate::conventions::dialects)
//! and writes what it finds under the canonical names, so that everything after it meets only those. Originals stay;
//! where a value has to change under its own key (cached tokens added, a number that came as text), the original goes
//! to `runspan.original.KEY`. `runspan.added` lists what was added, so [`restore_original`] gives the span back as it
//! came.

mod buckets;
mod content;
mod detect;
mod draft;
mod form;
mod kind;
mod literal;
pub(crate) mod messages;
mod outcome;
mod provider;
mod source;
mod usage;

pub(super) use draft::Draft;
pub(super) use provider::canonical_provider;
pub(super) use source::member;
pub use usage::write_answered;

use content::write_content;
use detect::{dialects_by, dialects_of};
use form::Form;
use kind::{write_entity_name, write_kind};
use outcome::{give_up, write_outcome, write_status};
use provider::{forget_service, write_bare_model, write_host, write_own_service, write_provider_of_client};

use super::facts::MAX_COUNT;
use crate::conventions::dialects::{Announced, Asked, Dialect, OTEL, Row, Shape, Side, Source};
use crate::conventions::names;
use crate::model::SpanId;
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{KeyValue, STATUS_UNSET, Span, Value};
use crate::model::record::{Record, RecordKind};

/// Writes the canonical attributes of a record's span beside the originals.
///
/// Does nothing to a span that was normalized before, here or by another runspan, and nothing to a lone event: its
/// span will tell it again.
pub fn normalize(record: &mut Record) {
    if record.kind == RecordKind::Event || record.span.attr(names::ADDED).is_some() {
        return;
    }
    normalize_by(record, Form::of(record).as_deref());
}

/// Does so by what is known of the span's form, if anything is.
fn normalize_by(record: &mut Record, form: Option<&Form>) {
    let keys = form.map_or_else(|| KeyFilter::with_events(&record.span), Form::filter);
    let dialects = match form {
        Some(form) => dialects_by(form.marks(), record, &keys),
        None => dialects_of(record, &keys),
    };
    let dialects = dialects.as_slice();
    if let Some(announced) = dialects.iter().find_map(|dialect| dialect.announced) {
        reveal(record, announced);
    }
    normalize_as(record, dialects, keys, form);
}

/// The dialects that a span is written in, in the order in which they are read.
type Dialects<'a> = &'a [&'static Dialect];

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

fn normalize_as(record: &mut Record, dialects: Dialects<'_>, keys: KeyFilter, form: Option<&Form>) {
    let ended = record.kind == RecordKind::Ended && record.span.end_time_unix_nano != 0;
    let mut draft = Draft::with(&mut record.span, keys);
    match form.and_then(|form| form.rows(dialects)) {
        Some(rows) => rows.iter().for_each(|row| write_fact(&mut draft, row)),
        None => {
            let rows = dialects.iter().flat_map(|dialect| dialect.facts).chain(OTEL.facts);
            rows.for_each(|row| write_fact(&mut draft, row));
        }
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

#[cfg(test)]
mod tests;
