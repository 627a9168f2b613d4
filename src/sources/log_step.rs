//! Steps made of events that an emitter wrote into logs alone.

use sha2::{Digest, Sha256};

use crate::conventions::dialects::logs::{CONVERSATION, DURATION_MS, FAILURE, FAILURE_TEXT, LogStep, PROMPT, STEPS};
use crate::conventions::names;
use crate::model::StepKind;
use crate::model::otlp::{KeyValue, STATUS_ERROR, Span, SpanEvent, Status, Value, find};

/// The parent is in another process: it is known, and so.
const REMOTE_PARENT: u32 = 0x300;

/// Makes a step of an event of a span that has not come, where the event can stand for itself.
pub(crate) fn stand_in(event: &SpanEvent) -> Option<Span> {
    step_of(event.name.clone(), event.time_unix_nano, event.attributes.clone())
}

/// Makes a step of an event, where it is one by itself: its trace is that of its conversation and prompt.
pub(crate) fn step_of(name: String, end: u64, attributes: Vec<KeyValue>) -> Option<Span> {
    let value = |key: &str| find(&attributes, key).and_then(Value::as_str);
    let fits = |step: &&LogStep| {
        step.event == name
            && step
                .only
                .iter()
                .all(|(key, word)| find(&attributes, key).is_some() && (word.is_empty() || value(key) == Some(word)))
    };
    let step = STEPS.iter().find(fits)?;
    let conversation = conversation_in(&attributes)?.to_owned();
    let run = run_of(&conversation, &attributes);
    let took = duration(&attributes);
    let root = id_of::<8>(&[run.as_bytes(), b"root"]);
    let is_root = step.agent.is_some();
    let own = || {
        let parts: Vec<String> = attributes.iter().map(|attribute| format!("{attribute:?}")).collect();
        id_of::<8>(&[run.as_bytes(), name.as_bytes(), &end.to_be_bytes(), parts.join("\n").as_bytes()])
    };
    let mut span = Span {
        trace_id: id_of::<16>(&[run.as_bytes()]).to_vec(),
        span_id: if is_root { root } else { own() }.to_vec(),
        parent_span_id: if is_root { Vec::new() } else { root.to_vec() },
        flags: if is_root { 0 } else { REMOTE_PARENT },
        start_time_unix_nano: end.saturating_sub(took),
        end_time_unix_nano: end.max(1),
        status: step.failed.then(|| Status {
            code: STATUS_ERROR,
            message: text_in(&attributes, FAILURE_TEXT).unwrap_or_default().to_owned(),
        }),
        ..Span::default()
    };
    let failure = step.failed.then(|| FAILURE.iter().find_map(|key| word_of(find(&attributes, key)?))).flatten();
    span.attributes = attributes;
    if let Some(failure) = failure {
        span.set_attr(names::ERROR_TYPE, failure);
    }
    let operation = match step.kind {
        StepKind::Llm => "chat",
        StepKind::Tool => "execute_tool",
        _ => "invoke_agent",
    };
    span.set_attr(names::EVENT_NAME, name.as_str());
    span.set_attr(names::OPERATION, operation);
    span.set_attr(names::CONVERSATION_ID, conversation);
    if let Some(agent) = step.agent {
        span.set_attr(names::AGENT_NAME, agent);
    }
    span.name = name;
    Some(span)
}

/// Returns the conversation that an event names.
pub(crate) fn conversation_in(attributes: &[KeyValue]) -> Option<&str> {
    text_in(attributes, CONVERSATION)
}

/// Returns the conversation of a step that was made of an event; `None` for any other span.
pub(crate) fn conversation_of(span: &Span) -> Option<&str> {
    span.attr(names::EVENT_NAME)?;
    let conversation = conversation_in(&span.attributes)?;
    let trace_id = id_of::<16>(&[run_of(conversation, &span.attributes).as_bytes()]);
    (trace_id[..] == span.trace_id[..]).then_some(conversation)
}

fn text_in<'a>(attributes: &'a [KeyValue], keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| find(attributes, key).and_then(Value::as_str))
}

/// Returns a word that stands there as text or as a number.
fn word_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Names the run of an event: its conversation, and the prompt in that.
fn run_of(conversation: &str, attributes: &[KeyValue]) -> String {
    format!("{conversation}\n{}", text_in(attributes, PROMPT).unwrap_or_default())
}

/// Makes an id of what is the same whenever the record comes.
fn id_of<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new_with_prefix(b"runspan log ");
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; N];
    id.copy_from_slice(&hash.finalize()[..N]);
    // No id is all zeros.
    id[0] |= 1;
    id
}

/// Returns how long an event says that something took, in nanoseconds.
pub(crate) fn duration(attributes: &[KeyValue]) -> u64 {
    let ms = find(attributes, DURATION_MS).and_then(Value::as_f64).filter(|ms| *ms > 0.0);
    (ms.unwrap_or_default() * 1e6) as u64
}
