//! How a step ended, where its emitter tells that in its own way, or only by silence.

use super::source::{may_say, value_of};
use super::{Dialects, Draft, messages};
use crate::conventions::dialects::{
    BEGUN_STREAMS, CONTROL_FLOW, Dialect, ENDS_A_STREAM, FINISH_REASON_OF_OLD, HIDDEN, Shape, Source,
};
use crate::conventions::names;
use crate::model::otlp::{STATUS_ERROR, STATUS_UNSET, Span, SpanEvent, Value};
use crate::model::{StepKind, StepStatus};
use crate::pipeline::facts;
use crate::pipeline::scrub::is_content;

/// Writes a failure that the emitter tells in its own way, or only by silence.
pub(super) fn write_outcome(draft: &mut Draft<'_>, dialects: Dialects<'_>, ended: bool) {
    if draft.span().attr(names::STEP_STATUS).is_some() {
        return;
    }
    let says = |from: &Source, word: &str| match draft.read(from, Shape::Text).as_deref() {
        Some(Value::Bool(flag)) => word.parse() == Ok(*flag),
        Some(_) if word.is_empty() => true,
        value => value.and_then(Value::as_str) == Some(word),
    };
    // JSON is not read for a word that its text does not have.
    let may_have_word = |from: &Source, word: &str| match *from {
        Source::Json(key, _) => {
            value_of(draft.span(), key).is_some_and(|value| value.as_str().is_none_or(|text| text.contains(word)))
        }
        _ => true,
    };
    if ended && hands_on(draft.span()) {
        draft.set(names::STEP_STATUS, StepStatus::Success.as_str());
        return;
    }
    let told = dialects
        .iter()
        .flat_map(|dialect| dialect.outcomes)
        .filter(|outcome| may_say(&draft.keys, &outcome.from))
        .find(|outcome| may_have_word(&outcome.from, outcome.word) && says(&outcome.from, outcome.word));
    if ended && told.is_none() && is_marked(draft.span(), dialects) {
        draft.set(names::STEP_STATUS, StepStatus::Success.as_str());
        return;
    }
    let is_exception = |event: &SpanEvent| event.name == names::EVENT_EXCEPTION;
    let fails =
        || dialects.iter().any(|dialect| dialect.fails_although_well) && draft.span().events.iter().any(is_exception);
    if ended && told.is_none() && fails() {
        draft.set(names::STEP_STATUS, StepStatus::Error.as_str());
        return;
    }
    let silence = || {
        let silence = ended.then(|| status_of_silence(draft.span(), dialects)).flatten();
        silence.or_else(|| (ended && lacks_its_end(draft.span(), dialects)).then_some(StepStatus::Error))
    };
    let is_told_so = || !dialects.iter().any(|dialect| dialect.unknown_is_error) && ends_by_error(draft.span());
    let by_reason = || (ended && is_told_so()).then_some(StepStatus::Error);
    let Some(status) = told.map(|told| told.status).or_else(silence).or_else(by_reason) else { return };
    let reason =
        |source| draft.read(source, Shape::Text).map(|reason| (reason.into_owned(), source.reads(&mut is_content)));
    let reason = told.and_then(|told| told.message.iter().find_map(reason));
    if let Some((reason, is_content)) = reason.filter(|_| draft.span().attr(names::ERROR_MESSAGE).is_none()) {
        draft.set(names::ERROR_MESSAGE, reason);
        if is_content {
            draft.added.push(names::ADDED_REASON_OF_CONTENT.to_owned());
        }
    }
    draft.set(names::STEP_STATUS, status.as_str());
    // An event may have the class.
    let has_class = draft.span().attr(names::ERROR_TYPE).is_some() || facts::error(draft.span()).kind.is_some();
    if status == StepStatus::Error && !has_class {
        draft.set(names::ERROR_TYPE, names::ERROR_TYPE_OTHER);
    }
}

/// Tells whether the standard's word for a failure is all that a call has for the end of its choices, and its author did not declare it
/// to have gone well; or a response that was fetched has failed.
///
/// Source: `gen_ai.response.finish_reasons`, `gen-ai-output-messages.json` (`FinishReason`), and `gen_ai.response.status`.
fn ends_by_error(span: &Span) -> bool {
    let is_unset = span.status.as_ref().is_none_or(|status| status.code == STATUS_UNSET);
    let told = match span.attr(names::FINISH_REASONS) {
        Some(_) => facts::words(span.attr(names::FINISH_REASONS)),
        None => {
            // JSON is not read for a word that its text does not have.
            let may_say =
                |value: &&Value| value.as_str().is_none_or(|text| text.to_ascii_lowercase().contains("\"error\""));
            span.attr(names::OUTPUT_MESSAGES).filter(may_say).map(messages::reasons).unwrap_or_default()
        }
    };
    let is_error = !told.is_empty() && told.iter().all(|reason| reason.eq_ignore_ascii_case("error"));
    is_unset && (is_error || span.attr_str(names::RESPONSE_STATUS) == Some("failed"))
}

/// Says of a stream whose end nobody read that it was given up, unless something says how it ended.
pub(super) fn give_up(draft: &mut Draft<'_>) {
    let span = draft.span();
    let is_unset = span.status.as_ref().is_none_or(|status| status.code == STATUS_UNSET);
    let was_raised = span.events.iter().any(|event| event.name == names::EVENT_EXCEPTION);
    if is_unset && !was_raised && [names::STEP_STATUS, names::ERROR_TYPE].iter().all(|key| span.attr(key).is_none()) {
        draft.set(names::STEP_STATUS, StepStatus::Cancelled.as_str());
    }
}

/// Tells whether a finished span has not what its dialect writes on each that went well.
fn lacks_its_end(span: &Span, dialects: Dialects<'_>) -> bool {
    let is_unset = span.status.as_ref().is_none_or(|status| status.code == STATUS_UNSET);
    let lacks = |(name, keys): &(&str, &[&str])| {
        let is_it = span.name == *name || name.ends_with(' ') && span.name.starts_with(name);
        is_it && keys.iter().all(|key| span.attr(key).is_none())
    };
    is_unset && dialects.iter().flat_map(|dialect| dialect.fails_without).any(lacks)
}

/// Tells whether a finished span has a part of an answer, and not what its dialect writes where it was read to its end.
fn was_given_up(span: &Span, dialects: Dialects<'_>) -> bool {
    let is_unset = span.status.as_ref().is_none_or(|status| status.code == STATUS_UNSET);
    let has_begun = |mark: &str| span.attr(mark).is_some() || span.events.iter().any(|event| event.name == mark);
    let is_open =
        |(name, begun, end): &(&str, &str, &str)| span.name == *name && has_begun(begun) && span.attr(end).is_none();
    let was_raised = || span.events.iter().any(|event| event.name == names::EVENT_EXCEPTION);
    is_unset && dialects.iter().flat_map(|dialect| dialect.cancelled_without).any(is_open) && !was_raised()
}

/// Tells whether a finished call that says that all is well has no trace of an answer, and what a program raises that stops reading.
fn was_left(span: &Span) -> bool {
    const ANSWERED: &[&str] =
        &[names::RESPONSE_ID, names::FINISH_REASONS, names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::OUTPUT_MESSAGES];
    let is_well = span.status.as_ref().is_some_and(|status| ![STATUS_UNSET, STATUS_ERROR].contains(&status.code));
    let class = span.attr_str(names::ERROR_TYPE).unwrap_or_default();
    is_well
        && ENDS_A_STREAM.contains(&class.rsplit('.').next().unwrap_or_default())
        && facts::kind(span) == StepKind::Llm
        && ANSWERED.iter().all(|key| span.attr(key).is_none())
}

/// Tells whether what ended the span is no failure, but how the program hands control on.
fn hands_on(span: &Span) -> bool {
    let class = facts::error(span).kind.unwrap_or_default();
    CONTROL_FLOW.contains(&class.rsplit('.').next().unwrap_or_default())
}

/// Says the failure in the span's status too, where trace viewers look for it; what the emitter said there stays.
pub(super) fn write_status(draft: &mut Draft<'_>) {
    if !matches!(facts::status(draft.span()), StepStatus::Error | StepStatus::Timeout) {
        return;
    }
    let span = &mut *draft.span;
    let mark = if span.status.is_some() { names::ADDED_STATUS_CODE } else { names::ADDED_STATUS };
    let status = span.status.get_or_insert_default();
    if status.code == STATUS_UNSET {
        status.code = STATUS_ERROR;
        draft.added.push(mark.to_owned());
    }
}

/// Tells whether a failure of which no attribute tells was only put there: for another one in the trace, by who wrote on the span later.
fn is_marked(span: &Span, dialects: Dialects<'_>) -> bool {
    let has_reason =
        span.status.as_ref().is_some_and(|status| status.code == STATUS_ERROR && !status.message.is_empty());
    let is_told = || {
        span.attr(names::ERROR_TYPE).is_some() || span.events.iter().any(|event| event.name == names::EVENT_EXCEPTION)
    };
    has_reason
        && dialects.iter().any(|dialect| dialect.fails_by_exception)
        && dialects.iter().any(|dialect| dialect.marks_failures)
        && !is_told()
}

/// Reads out of the silence of a finished step without any trace of a response how it ended, where its dialect says so.
fn status_of_silence(span: &Span, dialects: Dialects<'_>) -> Option<StepStatus> {
    const ANSWERED: &[&str] =
        &[names::RESPONSE_ID, names::FINISH_REASONS, names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::ERROR_TYPE];
    if was_given_up(span, dialects) || was_left(span) {
        return Some(StepStatus::Cancelled);
    }
    let operation = span.attr_str(names::OPERATION)?;
    let says =
        |of: fn(&Dialect) -> &'static [&'static str]| dialects.iter().any(|dialect| of(dialect).contains(&operation));
    let may_fail = says(|dialect| dialect.failed_without_response);
    let may_be_cancelled = says(|dialect| dialect.cancelled_without_response);
    let status = span.status.as_ref().map_or(STATUS_UNSET, |status| status.code);
    let is_open_stream = || {
        let says_nothing = |key: &&str| span.attr(key).is_none();
        let has = |key: &str, end: &str| match span.attr(key) {
            Some(Value::Bool(flag)) => end.parse() == Ok(*flag),
            Some(value) => end.is_empty() || value.as_str().is_some_and(|value| value.ends_with(end)),
            None => key.is_empty(),
        };
        BEGUN_STREAMS.iter().any(|(key, end, other)| has(key, end) && has(other, ""))
            && [names::FINISH_REASONS, FINISH_REASON_OF_OLD, names::OUTPUT_TOKENS, names::ERROR_TYPE]
                .iter()
                .all(says_nothing)
            && !span.attr_str(names::OUTPUT_MESSAGES).is_some_and(messages::tell_reason)
            && (status == STATUS_UNSET || status != STATUS_ERROR && dialects.iter().any(|dialect| dialect.left_is_well))
    };
    if says(|dialect| dialect.cancelled_without_reason) && is_open_stream() {
        return Some(StepStatus::Cancelled);
    }
    if !may_fail && !may_be_cancelled {
        return None;
    }
    // The model that was asked for is no answer, nor is a message without anything in it.
    let names_another =
        || span.attr(names::RESPONSE_MODEL).is_some_and(|model| Some(model) != span.attr(names::REQUEST_MODEL));
    let output = span.attr(names::OUTPUT_MESSAGES);
    let is_empty = output.is_some_and(messages::are_empty);
    // An answer may have been hidden.
    let hides_something = || {
        let texts = span.attributes.iter().filter_map(|attribute| attribute.value.as_ref()?.value.as_ref()?.as_str());
        texts.into_iter().any(|text| HIDDEN.iter().any(|start| text.starts_with(start)))
    };
    // A list of reasons without a word in it says nothing, but is of an answer.
    let has_empty_reason = || {
        span.attributes.iter().any(|own| own.key.strip_prefix(names::ORIGINAL_PREFIX) == Some(names::FINISH_REASONS))
    };
    if status == STATUS_ERROR
        || ANSWERED.iter().any(|key| span.attr(key).is_some())
        || has_empty_reason()
        || names_another()
        || (output.is_some() && !is_empty)
        || hides_something()
    {
        return None;
    }
    let has_model = span.attr_str(names::RESPONSE_MODEL).is_some();
    if has_model && dialects.iter().any(|dialect| dialect.is_silent_without_model) {
        return None;
    }
    // Without content, a model that is named may be all there is of an answer.
    let leaves_answer = dialects.iter().any(|dialect| dialect.failure_leaves_answer);
    let is_silent = is_empty || !leaves_answer && span.attr(names::RESPONSE_MODEL).is_none();
    if status == STATUS_UNSET && is_silent && may_fail {
        Some(StepStatus::Error)
    } else if may_be_cancelled {
        // Who wrote on the span later may have said that all is well. What was raised says how it ended.
        let was_raised = span.events.iter().any(|event| event.name == names::EVENT_EXCEPTION);
        let class = facts::error(span).kind.unwrap_or_default();
        let is_over = ENDS_A_STREAM.contains(&class.rsplit('.').next().unwrap_or_default());
        Some(if was_raised && !is_over { facts::class_of_failure(span) } else { StepStatus::Cancelled })
    } else {
        None
    }
}
