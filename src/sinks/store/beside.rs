//! Logs beside spans: a program that tells of its work by spans may tell the same by logs that bear no span's id.
//!
//! What such a log says counts only where no stored span of the same conversation is of its time: a program may tell of one
//! prompt by spans and of the next, which failed or was not sampled, by logs alone. It waits for that: shortly, and
//! longer where other logs of the conversation do bear ids of spans, so that these are on their way.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::telling::Step;
use super::{HeldRecord, LATE, StoreSink};
use crate::model::record::RecordKind;
use crate::sources::log_step::{conversation_in, conversation_of};
use crate::store::{RunWriter, StoreError};

use super::live::Said;

/// How long a step that is told by logs alone waits for spans: exporters send these after 5 s by default, logs after 1 s
/// (`OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BLRP_SCHEDULE_DELAY`).
const SHORTLY: Duration = Duration::from_secs(6);
/// A log may be written so much before its span begins, or after it has ended.
const BESIDE_NANOS: u64 = 1_000_000_000;
/// Times of a conversation that are remembered: pauses between its prompts divide them.
const TIMES: usize = 64;
/// Why it is not kept where there are.
pub(super) const TOLD_BY_SPANS: &str = "told_by_spans";
/// Conversations that are remembered.
const AT_HAND: usize = 4_096;

/// What is known of conversations.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    /// Spans of them are stored.
    by_spans: Latest,
    /// Their logs bear ids of spans.
    to_come: Latest,
}

/// The latest of many names, with times in nanoseconds.
#[derive(Debug, Default)]
struct Latest {
    all: HashMap<String, Vec<(u64, u64)>>,
    order: VecDeque<String>,
}

impl Latest {
    fn note(&mut self, name: &str, (mut start, mut end): (u64, u64)) {
        if let Some(times) = self.all.get_mut(name) {
            // Those that meet are one.
            times.retain(|(from, to)| {
                let meets = *from <= end.saturating_add(BESIDE_NANOS) && start <= to.saturating_add(BESIDE_NANOS);
                if meets {
                    (start, end) = (start.min(*from), end.max(*to));
                }
                !meets
            });
            times.push((start, end));
            times.drain(..times.len().saturating_sub(TIMES));
            return;
        }
        self.all.insert(name.to_owned(), vec![(start, end)]);
        self.order.push_back(name.to_owned());
        if self.order.len() > AT_HAND
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    fn has(&self, name: &str, at: u64) -> bool {
        let is_of_it = |(from, to): &(u64, u64)| {
            (from.saturating_sub(BESIDE_NANOS)..=to.saturating_add(BESIDE_NANOS)).contains(&at)
        };
        self.all.get(name).is_some_and(|times| times.iter().any(is_of_it))
    }
}

impl Conversations {
    /// Notes what a record that goes into a run tells of its conversation.
    pub(super) fn note_stored(&mut self, said: &Said) {
        if let Some(conversation) = said.facts.session_id.as_deref().filter(|_| said.record.kind != RecordKind::Event)
            && conversation_of(&said.record.span).is_none()
        {
            let (start, end) = (said.record.span.start_time_unix_nano, said.record.span.end_time_unix_nano);
            self.by_spans.note(conversation, (start, end.max(start)));
        }
    }

    /// Notes what a log that bears a span's id tells of its conversation.
    pub(super) fn note_log(&mut self, said: &Said) {
        let events = said.record.span.events.iter().filter(|_| said.record.kind == RecordKind::Event);
        for conversation in events.filter_map(|event| conversation_in(&event.attributes)) {
            self.to_come.note(conversation, (0, 0));
        }
    }

    /// Tells whether spans of a conversation are stored that are of a time, in nanoseconds.
    pub(super) fn has_spans(&self, conversation: &str, at: u64) -> bool {
        self.by_spans.has(conversation, at)
    }

    fn wait_of(&self, conversation: &str) -> Duration {
        if self.to_come.all.contains_key(conversation) { LATE } else { SHORTLY }
    }
}

impl<W: RunWriter> StoreSink<W> {
    /// Lets steps of logs stand that have waited long enough. `silence`: at the latest then.
    ///
    /// On an error what has waited is to be told again from the journal.
    pub(super) fn let_steps_of_logs_stand(&mut self, now: Instant, silence: Duration) -> Result<(), StoreError> {
        let conversations = &self.conversations;
        let mut due = Vec::new();
        for trace in self.traces.values_mut() {
            trace.held.retain(|_, held| {
                if !held.has_steps_of_logs {
                    return true;
                }
                let is_due = |held: &mut HeldRecord| {
                    let conversation = conversation_of(&held.said.record.span);
                    conversation.is_some_and(|conversation| {
                        let wait = conversations.wait_of(conversation).min(silence);
                        let at = held.said.record.span.end_time_unix_nano;
                        conversations.has_spans(conversation, at) || now.saturating_duration_since(held.since) >= wait
                    })
                };
                due.extend(held.records.extract_if(.., is_due));
                !held.records.is_empty()
            });
        }
        due.into_iter().try_for_each(|held| self.let_step_of_log_stand(held))
    }

    /// Lets one stand, unless spans tell of its conversation.
    pub(super) fn let_step_of_log_stand(&mut self, held: HeldRecord) -> Result<(), StoreError> {
        let (seq, record) = (held.seq, held.said.record);
        self.bring(seq, record, Step::Stands)
    }
}
