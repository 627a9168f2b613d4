//! What went into a step and what came out of it, under the name that the kind of the step has for it.

use super::source::{may_say, value_of};
use super::{Dialects, Draft, messages};
use crate::conventions::dialects::{DOCUMENTS, OTEL, Shape, Side, Source};
use crate::conventions::names;
use crate::model::StepKind;
use crate::model::otlp::{AnyValue, ArrayValue, Span, Value};

/// Writes one side of the content under the name that the kind of the step has for it.
pub(super) fn write_content(draft: &mut Draft<'_>, dialects: Dialects<'_>, kind: Option<StepKind>, side: Side) {
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
            _ => {
                let found = draft.read(source, Shape::Text)?;
                Some(bare(draft.span(), source, &found).unwrap_or_else(|| found.into_owned()))
            }
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

/// Returns the text that a JSON document is, or texts that a list of them are, where the attribute holds such. What is a text by itself
/// may well stand in quotes.
fn bare(span: &Span, source: &Source, value: &Value) -> Option<Value> {
    let is_quoted = |value: &Value| {
        let text = value.as_str().map(str::trim);
        text.is_some_and(|text| text.len() >= 2 && text.starts_with('"') && text.ends_with('"'))
    };
    let inner = |item: &AnyValue| item.value.as_ref().is_some_and(is_quoted);
    if !(is_quoted(value) || matches!(value, Value::Array(list) if list.values.iter().any(inner))) {
        return None;
    }
    let is_told = |(mark, word): (&str, &str)| mark.is_empty() || span.attr_str(mark) == Some(word);
    let is_document = |key: &str| DOCUMENTS.iter().any(|(own, mark, word)| *own == key && is_told((mark, word)));
    if !source.reads(&mut { is_document }) {
        return None;
    }
    let text_in = |value: &Value| serde_json::from_str::<String>(value.as_str()?).ok().map(Value::from);
    match value {
        Value::Array(list) => {
            let texts = list.values.iter().map(|item| item.value.as_ref().and_then(text_in).map(AnyValue::from));
            Some(Value::Array(ArrayValue { values: texts.collect::<Option<_>>()? }))
        }
        value => text_in(value),
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
