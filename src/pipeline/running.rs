//! Calls that tell what they used together with those before them in one loop over tools: what each used itself.
//!
//! The calls of a loop are of one parent and come one after the other. What a call tells is known of its own span alone, so the
//! line remembers what the calls before it told; a call whose loop it does not know stays as it was told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{facts, normalize};
use crate::conventions::dialects::RUNNING_SUMS;
use crate::conventions::{names, providers};
use crate::model::StepKind;
use crate::model::id::IdMap;
use crate::model::otlp::Span;
use crate::model::record::{Record, RecordKind};

/// So many loops are remembered, and so many calls of one: what is sent again finds those before it.
const LOOPS: usize = 1024;
const CALLS: usize = 64;
/// How far apart the end of a call and the start of the next may seem to be the wrong way round, in nanoseconds.
const TICK: u64 = 2_000_000;

/// What is remembered of loops; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<Loops>>);

#[derive(Debug, Default)]
struct Loops {
    of: IdMap<Key, Vec<Call>>,
    /// The loops by their first call, the oldest first.
    order: VecDeque<Key>,
}

/// The trace, and the span that the calls are below.
type Key = ([u8; 16], [u8; 8]);

/// A call of a loop.
#[derive(Clone, Copy, Debug)]
struct Call {
    span: [u8; 8],
    end: u64,
    told: Used,
    /// What it used itself.
    own: Used,
    /// It asked for tools, so that the next call is of its loop.
    goes_on: bool,
}

/// What was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    input: u64,
    output: u64,
}

impl Running {
    /// Writes on a normalized span of a call what it used itself, where it tells the sum of its loop.
    pub fn settle(&self, record: &mut Record) {
        let is_ended = record.kind == RecordKind::Ended && record.span.end_time_unix_nano != 0;
        let is_sum =
            |(scope, version): &(&str, &str)| record.scope.name == *scope && record.scope.version.starts_with(version);
        if !is_ended || !RUNNING_SUMS.iter().any(is_sum) || facts::kind(&record.span) != StepKind::Llm {
            return;
        }
        let Some((key, span, told)) = read(&record.span) else { return };
        let mut loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = record.span.start_time_unix_nano.saturating_add(TICK);
        let calls = loops.of.get(&key).map(Vec::as_slice).unwrap_or_default();
        let before = calls.iter().filter(|call| call.end <= start && call.span != span).max_by_key(|call| call.end);
        let provider = record.span.attr_str(names::PROVIDER);
        let before = before.filter(|before| before.goes_on && before.is_in(told, provider)).copied();
        let own = before.map_or(told, |before| told.without(before.told));
        let goes_on = asks_for_tools(&record.span);
        // A call alone is no loop.
        if goes_on || !calls.is_empty() {
            loops.note(key, Call { span, end: record.span.end_time_unix_nano, told, own, goes_on });
        }
        drop(loops);
        let counts = [
            (names::INPUT_TOKENS, own.input),
            (names::OUTPUT_TOKENS, own.output),
            (names::TOTAL_TOKENS, own.input.saturating_add(own.output)),
        ];
        for (key, tokens) in counts.into_iter().filter(|_| before.is_some()) {
            if record.span.attr(key).is_some() {
                normalize::write_in_place(&mut record.span, key, i64::try_from(tokens).unwrap_or(i64::MAX));
            }
        }
    }
}

impl Used {
    fn without(self, other: Self) -> Self {
        let Self { input, output } = self;
        Self { input: input.saturating_sub(other.input), output: output.saturating_sub(other.output) }
    }
}

impl Call {
    /// Tells whether what the next call tells is the sum with this one: what it used itself has the conversation that this one
    /// was asked with, but where the provider counts what it had in its cache apart.
    fn is_in(&self, told: Used, provider: Option<&str>) -> bool {
        let counts_apart = provider.is_some_and(|provider| providers::COUNT_CACHE_APART.contains(&provider));
        let least = if counts_apart { 1 } else { self.own.input };
        told.input >= self.told.input.saturating_add(least) && told.output > self.told.output
    }
}

impl Loops {
    fn note(&mut self, key: Key, call: Call) {
        if !self.of.contains_key(&key) {
            while self.order.len() >= LOOPS {
                let oldest = self.order.pop_front();
                oldest.map(|oldest| self.of.remove(&oldest));
            }
            self.order.push_back(key);
        }
        let calls = self.of.entry(key).or_default();
        calls.retain(|known| known.span != call.span);
        if calls.len() >= CALLS {
            calls.remove(0);
        }
        calls.push(call);
    }
}

fn read(span: &Span) -> Option<(Key, [u8; 8], Used)> {
    let key = (span.trace_id.as_slice().try_into().ok()?, span.parent_span_id.as_slice().try_into().ok()?);
    let tokens = facts::tokens(span)?;
    let used = Used { input: tokens.prompt?, output: tokens.completion? };
    Some((key, span.span_id.as_slice().try_into().ok()?, used))
}

fn asks_for_tools(span: &Span) -> bool {
    let reasons = facts::words(span.attr(names::FINISH_REASONS));
    reasons.iter().any(|reason| reason.to_ascii_lowercase().contains("tool"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::otlp::Scope;

    /// What is told of a call of a loop.
    struct Told {
        span: u8,
        parent: u8,
        provider: &'static str,
        input: &'static str,
        output: &'static str,
        finish: &'static str,
    }

    const FIRST: Told =
        Told { span: 1, parent: 9, provider: "openai", input: "237", output: "23", finish: r#"["TOOL_CALLS"]"# };

    fn used(running: &Running, version: &str, told: &Told) -> (Option<u64>, Option<u64>) {
        let start = u64::from(told.span) * 1_000_000_000;
        let mut span = Span {
            trace_id: vec![7; 16],
            span_id: vec![told.span; 8],
            parent_span_id: vec![told.parent; 8],
            name: "chat m".to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 900_000_000,
            ..Span::default()
        };
        for (key, value) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.system", told.provider),
            ("gen_ai.usage.input_tokens", told.input),
            ("gen_ai.usage.output_tokens", told.output),
            ("gen_ai.response.finish_reasons", told.finish),
        ] {
            span.set_attr(key, value);
        }
        let given = span.clone();
        let scope =
            Scope { name: "org.springframework.boot".to_owned(), version: version.to_owned(), ..Scope::default() };
        let mut record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope, span };
        normalize::normalize(&mut record);
        running.settle(&mut record);
        let tokens = facts::tokens(&record.span).unwrap();
        normalize::restore_original(&mut record.span);
        assert_eq!(record.span, given, "it can be given on as it came");
        (tokens.prompt, tokens.completion)
    }

    #[test]
    fn of_calls_that_tell_the_sum_of_their_loop_each_has_what_it_used() {
        let running = Running::default();
        let second = Told { span: 2, input: "511", output: "49", ..FIRST };
        let last = Told { span: 3, input: "822", output: "78", finish: r#"["STOP"]"#, ..FIRST };
        let used = |told: &Told| used(&running, "3.5.8", told);
        assert_eq!(used(&FIRST), (Some(237), Some(23)));
        assert_eq!(used(&second), (Some(274), Some(26)));
        assert_eq!(used(&last), (Some(311), Some(29)));
        // They are sent once more.
        assert_eq!(used(&FIRST), (Some(237), Some(23)));
        assert_eq!(used(&last), (Some(311), Some(29)));
        // What follows the last one is of another loop, and so is what has another parent.
        assert_eq!(used(&Told { span: 4, input: "1900", output: "190", ..FIRST }), (Some(1900), Some(190)));
        assert_eq!(used(&Told { span: 5, input: "3900", output: "390", ..FIRST }), (Some(2000), Some(200)));
        assert_eq!(used(&Told { span: 6, parent: 8, input: "1900", output: "190", ..FIRST }), (Some(1900), Some(190)));
    }

    #[test]
    fn calls_that_tell_their_own_stay_as_they_are() {
        let next = |version: &str, input: &'static str, provider: &'static str| {
            let running = Running::default();
            used(&running, version, &Told { provider, ..FIRST });
            used(&running, version, &Told { span: 2, input, output: "49", provider, ..FIRST }).0
        };
        // The conversation so far, which had been asked once, and the result of a tool.
        assert_eq!(next("3.5.8", "290", "openai"), Some(290));
        assert_eq!(next("4.0.1", "511", "openai"), Some(511));
        // Of the input most was read from the cache.
        assert_eq!(next("3.5.8", "290", "anthropic"), Some(53));
    }
}
