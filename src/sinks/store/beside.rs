//! Logs beside spans: a program that tells of its work by spans may tell the same by logs that bear no span's id.
//!
//! What such a log says counts only where no span of the same conversation is stored. It waits for that: shortly, and
//! longer where other logs of the conversation do bear ids of spans, so that these are on their way.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::telling::Step;
use super::{HeldRecord, LATE, StoreSink};
use crate::model::record::RecordKind;
use crate::sources::log_step::{conversation_in, conversation_of};
use crate::store::RunWriter;

use super::live::Said;

/// How long a step that is told by logs alone waits for spans.
pub(super) const SHORTLY: Duration = Duration::from_secs(2);
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

/// The latest of many names.
#[derive(Debug, Default)]
struct Latest {
    all: HashSet<String>,
    order: VecDeque<String>,
}

impl Latest {
    fn note(&mut self, name: &str) {
        if self.all.contains(name) {
            return;
        }
        self.all.insert(name.to_owned());
        self.order.push_back(name.to_owned());
        if self.order.len() > AT_HAND
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Conversations {
    /// Notes what a record that goes into a run tells of its conversation.
    pub(super) fn note_stored(&mut self, said: &Said) {
        if let Some(conversation) = said.facts.session_id.as_deref().filter(|_| said.record.kind != RecordKind::Event)
            && conversation_of(&said.record.span).is_none()
        {
            self.by_spans.note(conversation);
        }
    }

    /// Notes what a log that bears a span's id tells of its conversation.
    pub(super) fn note_log(&mut self, said: &Said) {
        let events = said.record.span.events.iter().filter(|_| said.record.kind == RecordKind::Event);
        for conversation in events.filter_map(|event| conversation_in(&event.attributes)) {
            self.to_come.note(conversation);
        }
    }

    /// Tells whether spans of a conversation are stored.
    pub(super) fn has_spans(&self, conversation: &str) -> bool {
        self.by_spans.all.contains(conversation)
    }

    fn wait_of(&self, conversation: &str) -> Duration {
        if self.to_come.all.contains(conversation) { LATE } else { SHORTLY }
    }
}

impl<W: RunWriter> StoreSink<W> {
    /// Lets steps of logs stand that have waited long enough. `silence`: at the latest then.
    pub(super) fn let_steps_of_logs_stand(&mut self, now: Instant, silence: Duration) {
        let conversations = &self.conversations;
        let mut due = Vec::new();
        for trace in self.traces.values_mut() {
            trace.held.retain(|_, held| {
                let Some(since) = held.of_logs_since else { return true };
                let waited = now.saturating_duration_since(since);
                let is_due = |held: &mut HeldRecord| {
                    let conversation = conversation_of(&held.said.record.span);
                    conversation.is_some_and(|conversation| {
                        let wait = conversations.wait_of(conversation).min(silence);
                        conversations.has_spans(conversation) || waited >= wait
                    })
                };
                due.extend(held.records.extract_if(.., is_due));
                !held.records.is_empty()
            });
        }
        for held in due {
            self.let_step_of_log_stand(held);
        }
    }

    /// Lets one stand, unless spans tell of its conversation.
    pub(super) fn let_step_of_log_stand(&mut self, held: HeldRecord) {
        let (seq, record) = (held.seq, held.said.record);
        // What cannot be opened now is told again from the journal.
        drop(self.bring(seq, record, Step::Stands));
    }
}
