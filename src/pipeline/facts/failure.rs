//! How a step ended, and what is said of its failure.

use super::{is_billed, kind, short, text_of};
use crate::conventions::dialects::ENDS_AGENT;
use crate::conventions::names;
use crate::model::otlp::{Span, SpanEvent, Value};
use crate::model::{ErrorInfo, StepKind, StepStatus};
use crate::sources::encode::cut_to;

/// Longest message of an error, in bytes.
const MAX_MESSAGE: usize = 4 << 10;
/// Classes of errors that say nothing of what happened: Python's and JavaScript's for any. So is a number, the status of an answer.
const ANY_ERROR: &[&str] = &["Exception", "Error"];
/// What such a one says where the program stopped reading, word for word: the clients of OpenAI and Anthropic, `fetch`, and
/// OpenTelemetry's instrumentations of them.
const STOPPED: &[&str] = &["request was aborted", "request aborted", "operation was aborted", "abandoned stream"];
/// The same, whole, behind a number and a word for it.
///
/// Source: Genkit 1.42, of a signal that its caller gave.
const ABORTED: &[&str] = &["request was aborted", "request aborted", "request aborted when reading from the stream"];
/// What the errors of Go's contexts say, alone or behind what was done when one of them ended, and how the work ended then.
///
/// Source: `context.Canceled` and `context.DeadlineExceeded` of Go's library.
const ENDS_OF_CONTEXTS: &[(&str, StepStatus)] =
    &[("context canceled", StepStatus::Cancelled), ("context deadline exceeded", StepStatus::Timeout)];
/// What may stand before those words: what was done, or the code of gRPC's status.
///
/// Source: `fmt.Errorf` with `%w`, by the custom of Go; `status.Error` of `google.golang.org/grpc`.
const BEFORE_END: &[&str] = &[": ", " desc = "];
/// What Go's client for HTTP puts behind them where it has a limit of its own, and behind any error when that has run out.
///
/// Source: `Client.do` and `cancelTimerBody.Read` of `net/http/client.go` in Go 1.26.
const MAY_BE_LIMIT: &str = " (Client.Timeout or context cancellation while reading body)";
const LIMIT: &str = " (Client.Timeout exceeded while ";
/// Classes of Go's library for any error, for one with another one in it, and for those of `net/http` and gRPC.
const ANY_ERROR_OF_GO: &[&str] = &[
    "*errors.errorString",
    "*errors.joinError",
    "*fmt.wrapError",
    "*fmt.wrapErrors",
    "*http.httpError",
    "*http.timeoutError",
    "*status.Error",
    "*url.Error",
];
/// What JavaScript prints of an error of any class before its message, in small letters.
const PRINTED: &str = "error: ";

/// [`Status::code`](crate::model::otlp::Status::code) of a span that its author declared to have gone well.
pub(super) const STATUS_OK: i32 = 1;

/// Tells whether a tool says that its failure ended the agent, and not that a model was told of it.
pub(super) fn ends_agent(span: &Span) -> bool {
    let (ends, goes_on) = ENDS_AGENT;
    let own = error(span).message;
    let texts = [span.status.as_ref().map(|status| status.message.as_str()), own.as_deref()];
    let says = |word: &str| texts.iter().flatten().any(|text| text.contains(word));
    says(ends) && !says(goes_on)
}

pub(super) fn failed(status: StepStatus) -> bool {
    !matches!(status, StepStatus::Running | StepStatus::Success)
}

/// What our own code wrote wins; an open span runs; then what the emitter says by status, error type and events.
pub(in crate::pipeline) fn status(span: &Span) -> StepStatus {
    if let Some(word) = span.attr_str(names::STEP_STATUS).and_then(|word| word.parse().ok()) {
        return match word {
            StepStatus::Error => class_of_failure(span),
            StepStatus::Running if span.end_time_unix_nano != 0 => StepStatus::Success,
            word => word,
        };
    }
    if span.end_time_unix_nano == 0 {
        return StepStatus::Running;
    }
    let declared_ok = span.status.as_ref().is_some_and(|status| status.code == STATUS_OK);
    let told_by_event = || span.events.iter().any(tells_error) && !has_handled(span);
    if span.is_error() || !declared_ok && (span.attr(names::ERROR_TYPE).is_some() || told_by_event()) {
        return class_of_failure(span);
    }
    StepStatus::Success
}

/// Tells whether a span whose status is not set went on behind the exceptions that were recorded in it, which are all that speaks of a
/// failure: it has an answer, whole, or it is a root that is no call by itself, whose maker would have set a status.
///
/// OpenTelemetry's `record_exception` alone is how a program tells of an exception that it has handled. Where a step has nothing
/// more, that is how some instrumentations tell that it failed.
fn has_handled(span: &Span) -> bool {
    let is_escaped = |event: &SpanEvent| match event.attr(names::EXCEPTION_ESCAPED) {
        Some(Value::Bool(flag)) => *flag,
        flag => flag.and_then(Value::as_str).is_some_and(|flag| flag.eq_ignore_ascii_case("true")),
    };
    let was_recorded = |event: &SpanEvent| event.name == names::EVENT_EXCEPTION && !is_escaped(event);
    if !span.events.iter().filter(|event| tells_error(event)).all(was_recorded) {
        return false;
    }
    let is_root = || span.parent_span_id.is_empty() && !is_billed(kind(span)) && kind(span) != StepKind::Tool;
    let says = |key: &&str| span.attr(key).is_some_and(|value| !matches!(value.as_str(), Some("" | "null" | "[]")));
    // A stream that broke off has output, too, and no reason to end.
    let has_answer = || match kind(span) {
        StepKind::Llm => says(&names::FINISH_REASONS),
        _ => ANSWER.iter().any(says),
    };
    is_root() || has_answer()
}

/// Where a step has what it gave.
const ANSWER: &[&str] = &[names::OUTPUT_MESSAGES, names::OUTPUT, names::TOOL_RESULT, names::RETRIEVAL_DOCUMENTS];

fn tells_error(event: &SpanEvent) -> bool {
    let at_error_level =
        event.attr(names::EVENT_LEVEL).and_then(Value::as_str).is_some_and(|level| level.eq_ignore_ascii_case("error"));
    event.name == names::EVENT_EXCEPTION
        || (at_error_level
            && (event.attr(names::EVENT_ERROR).is_some() || event.attr(names::EXCEPTION_MESSAGE).is_some()))
}

/// Distinguishes timeouts and cancellations by the error's class, and by its text only where no class is given. Of a class that any
/// error may have, one that begins the message counts. Whoever stops reading a stream cancels it.
pub(in crate::pipeline) fn class_of_failure(span: &Span) -> StepStatus {
    let error = error(span);
    if let Some(status) = end_of_context(&error) {
        return status;
    }
    let lower = |text: &str| text.to_ascii_lowercase();
    let message = lower(error.message.as_deref().unwrap_or_default());
    let message = message.strip_prefix(PRINTED).unwrap_or(&message);
    let is_number = |kind: &str| !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbered = error.kind.as_deref().is_some_and(is_number);
    let is_any = is_numbered || error.kind.as_deref().is_some_and(|kind| ANY_ERROR.contains(&kind));
    let class = match error.kind.as_deref().filter(|kind| *kind != names::ERROR_TYPE_OTHER) {
        Some(_) if is_any => {
            let end = message.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')));
            let (class, behind) = message.split_at(end.unwrap_or(message.len()));
            // A single word is one, too: `Cancelled`.
            if behind.is_empty() || behind.starts_with(['(', ':']) { class.to_owned() } else { String::new() }
        }
        Some(kind) => lower(kind),
        None => message.to_owned(),
    };
    let says = |words: &[&str]| words.iter().any(|word| class.contains(word));
    let has_stopped = class == message || is_any;
    // A number may be that of a server that failed: then nothing else is said.
    let said = message.split_once(": ").map_or(message, |(_, said)| said).trim_end_matches('.');
    // By a person at the keyboard, as Python has it, or by the signal for that.
    let was_interrupted = says(&["keyboardinterrupt"]) || class == "sigint";
    let was_stopped = match is_numbered {
        true => ABORTED.contains(&said),
        false => has_stopped && STOPPED.iter().any(|words| message.contains(words)),
    };
    if says(&["timeout", "timed out", "timedout", "timed_out", "deadline"]) {
        StepStatus::Timeout
    } else if was_stopped
        || was_interrupted
        || (!is_numbered && (says(&["cancel", "generatorexit", "aborterror"]) || class == "abort"))
    {
        StepStatus::Cancelled
    } else {
        StepStatus::Error
    }
}

/// Reads how work ended out of an error of Go's that says of its context that this is over: such errors have no class of their own.
fn end_of_context(error: &ErrorInfo) -> Option<StepStatus> {
    let is_any = |kind: &str| kind == names::ERROR_TYPE_OTHER || ANY_ERROR_OF_GO.contains(&kind);
    let message = error.message.as_deref().filter(|_| error.kind.as_deref().is_none_or(is_any))?;
    if message.split_once(LIMIT).is_some_and(|(_, rest)| rest.ends_with(')')) {
        return Some(StepStatus::Timeout);
    }
    let message = message.strip_suffix(MAY_BE_LIMIT).unwrap_or(message);
    let is_before = |before: &str| before.is_empty() || BEFORE_END.iter().any(|end| before.ends_with(end));
    let says = |words: &str| message.strip_suffix(words).is_some_and(is_before);
    ENDS_OF_CONTEXTS.iter().find(|(words, _)| says(words)).map(|(_, status)| *status)
}

pub(in crate::pipeline) fn error(span: &Span) -> ErrorInfo {
    // The last event is the one that ended the span; earlier ones may have been handled.
    let event = span.events.iter().rev().find(|event| tells_error(event));
    let told = |key| event.and_then(|event| event.attr(key)).and_then(text_of);
    let status_message = span.status.as_ref().map(|status| status.message.clone()).filter(|text| !text.is_empty());
    // What Python prints of a class.
    let class = |text: String| match text.strip_prefix("<class '").and_then(|rest| rest.strip_suffix("'>")) {
        Some(name) => name.to_owned(),
        None => text,
    };
    let own = span.attr(names::ERROR_TYPE).and_then(text_of);
    // The standard's word for a class that is not known gives way to one that an event has.
    let known = own.clone().filter(|kind| kind != names::ERROR_TYPE_OTHER);
    let kind = known.or_else(|| told(names::EXCEPTION_TYPE)).or(own).map(class);
    let message = status_message
        .or_else(|| told(names::EXCEPTION_MESSAGE))
        .or_else(|| told(names::EVENT_ERROR))
        .or_else(|| span.attr(names::ERROR_MESSAGE).and_then(text_of));
    match message.as_deref().and_then(before_stack) {
        Some((own, message)) => ErrorInfo {
            kind: Some(kind.filter(|kind| kind != names::ERROR_TYPE_OTHER).unwrap_or_else(|| own.to_owned())),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
            step_id: None,
        },
        None => ErrorInfo { kind, message, step_id: None },
    }
}

/// Takes a message apart that has what JavaScript prints of its error behind it: class and message. What stands in the places of
/// the stack says nothing of the error.
///
/// Source: `@langchain/core` 1.4 `tracers/base.ts`, which joins both by an empty line; OpenInference passes it on.
fn before_stack(text: &str) -> Option<(&str, &str)> {
    let is_of_class = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
    /// Of a longer text nobody looks for what it repeats.
    const MAX_BYTES: usize = 4 * MAX_MESSAGE;
    let (said, _) = text.split_once("\n    at ").filter(|(said, _)| said.len() <= MAX_BYTES)?;
    let is_class = |word: &str| !word.is_empty() && word.chars().all(is_of_class);
    let behind_message = said.match_indices("\n\n").find_map(|(at, gap)| {
        let (message, printed) = (&text[..at], &text[at + gap.len()..]);
        let (class, behind) = printed.split_at(printed.find(|c| !is_of_class(c))?);
        let rest = behind.strip_prefix(": ").map_or(Some(behind), |said| said.strip_prefix(message))?;
        let is_told = is_class(class) && (behind.starts_with(": ") || message.is_empty());
        (is_told && rest.starts_with("\n    at ")).then_some((class, message))
    });
    // The print alone.
    let printed = || match said.split_once(": ") {
        Some((class, message)) if is_class(class) && class.ends_with("Error") => Some((class, message)),
        _ => is_class(said).then_some((said, "")),
    };
    behind_message.or_else(printed)
}

pub(super) fn bounded(error: ErrorInfo) -> ErrorInfo {
    let message = error.message.map(|text| cut_to(&text, MAX_MESSAGE).into_owned());
    ErrorInfo { kind: error.kind.map(short), message, ..error }
}
