//! What a step is, and the name of the agent, tool or workflow that it is of.

use std::borrow::Cow;

use super::source::value_of;
use super::{Dialects, Draft};
use crate::conventions::dialects::{Dialect, KindRow, NO_MODEL, ORDINARY, OTEL, SPAN_NAME, Shape, Source, Test};
use crate::conventions::{names, providers};
use crate::model::StepKind;
use crate::model::otlp::{Span, Value};
use crate::pipeline::facts;

/// Decides what the step is and writes it where it can't be read yet; also returns the dialect that says so. `None` for a span
/// that says nothing of the sort.
///
/// Of several dialects the one that says more counts: what is a plain step or a workflow to one may be an agent to another.
pub(super) fn write_kind(
    draft: &mut Draft<'_>,
    dialects: Dialects<'_>,
) -> Option<(StepKind, Option<&'static Dialect>)> {
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

pub(super) fn fits(span: &Span, row: &KindRow) -> bool {
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

pub(super) fn write_entity_name(
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
