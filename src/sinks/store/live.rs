//! A run that is being written: its state, what waits for the log, and what is noted of it.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value as Json;

use super::ids::event_id;
use super::{START_GRACE, UNSORTED_AGE, UNSORTED_BYTES, UNSORTED_RECORDS};
use crate::conventions::names;
use crate::model::digest::digest_of;
use crate::model::event::{EventBody, Input, Log, Output, Resumed, RunStarted, Score, StatusChanged, Waiting};
use crate::model::id::{IdMap, IdSet};
use crate::model::json_text::JsonText;
use crate::model::otlp::{Resource, Scope, Span, SpanEvent, Value};
use crate::model::record::Record;
use crate::model::run::ArtifactInfo;
use crate::model::{Event, EventId, RunId, RunStatus, RunSummary, SpanId, UnixNanos};
use crate::pipeline::facts::{StepContent, StepFacts};
use crate::pipeline::normalize::{normalize, restore_original};
use crate::pipeline::scrub::CONTENT_MARK;
use crate::pipeline::window::start_of_span;
use crate::sinks::tally::{Counted, Notes, Tally};
use crate::store::assembly::{
    DROPPED_LOG, Fullness, RunState, ended_body, fullness, identity_of, requested_tool_calls, started_body,
};
use crate::store::{RunWriter, StoreError};

#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) state: RunState,
    /// The run above this one, where its own steps do not say: that in the place of which it stands, else that of a trace to
    /// which it is linked.
    pub(super) above: Option<RunId>,
    /// Events that were there when the run was taken up, and notes of lost records since.
    pub(super) known: IdSet<EventId>,
    pub(super) pending: Vec<PendingStart>,
    pub(super) queue: Vec<Event>,
    /// Ended steps of a run from outside of which nothing is written yet.
    pub(super) unsorted: Unsorted,
    /// Moments of the span events that the log has, by the start of their step, until its end.
    pub(super) told: IdMap<EventId, HashSet<UnixNanos>>,
    pub(super) written_status: Option<RunStatus>,
    pub(super) stale_summary: bool,
    /// It was to be made before, and nobody knows how much of that is there.
    pub(super) was_tried: bool,
    pub(super) touched: Instant,
    /// So many ends of steps were told again, and about so many bytes of them.
    pub(super) again: (u32, u64),
    /// What they say, and others before the log was put in order last.
    pub(super) copies: HashSet<(SpanId, u32)>,
    /// Spans that logs tell whole calls of.
    pub(super) calls_of_logs: IdSet<SpanId>,
    /// The ids of its events come of its spans: they come from outside, in any order.
    pub(super) by_span: bool,
    /// Its log stands in the order in which it came.
    pub(super) unsettled: bool,
    /// All of it is on its way to another run: nothing plain makes it stay.
    pub(super) is_leaving: bool,
    /// All that spoke of GenAI was of another run.
    pub(super) is_left: bool,
    /// What is noted for the tally; `None` when nobody wants it, and once that is made where nothing can come later.
    pub(super) notes: Option<Box<Notes>>,
    /// What is counted of it.
    pub(super) counted: Option<Box<Counted>>,
    /// What was written last of it, for the tally.
    pub(super) summary: Option<Box<RunSummary>>,
}

/// More ends that are told again are left out: each is a line of the log until the run is put in order.
const MAX_AGAIN: u32 = 1_000;
const MAX_AGAIN_BYTES: u64 = 4 << 20;
/// The same of all of a run's, whenever its log was put in order.
const MAX_COPIES: usize = 65_536;

/// A record and what it says, read once.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) record: Record,
    /// Without content, which goes into the log and nowhere else.
    pub(super) facts: Arc<StepFacts>,
    pub(super) content: Box<StepContent>,
    /// What copies of it are compared by, worked out once: many may come of one that is large.
    rank: OnceCell<(Fullness, u32)>,
    digest: OnceCell<u32>,
}

impl Said {
    /// Reads a record. It is large, and handed on often until it is written.
    pub(super) fn of(record: Record) -> Box<Self> {
        let mut facts = StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope));
        let content = std::mem::take(&mut facts.content);
        Box::new(Self { record, facts: Arc::new(facts), content, rank: OnceCell::new(), digest: OnceCell::new() })
    }

    /// Tells how much it says of the end of its span.
    fn fullness(&self) -> Fullness {
        fullness(&self.facts, UnixNanos(self.record.span.end_time_unix_nano))
    }

    /// Tells whether it counts where another copy of its span's end has come as well. Of two that say as much it is a checksum of
    /// what was sent that tells, so that it is the same one in whatever order they come.
    pub(super) fn counts_over(&self, other: &Self) -> bool {
        self.digest() != other.digest() && self.rank() > other.rank()
    }

    fn rank(&self) -> (Fullness, u32) {
        *self.rank.get_or_init(|| {
            // What logs and other copies have added says nothing of which was the fuller one.
            let mut record = self.record.clone();
            restore_original(&mut record.span);
            record.span.events.clear();
            record.span.links.clear();
            let digest = digest_of(&record.span, Some(&record.resource), Some(&record.scope));
            normalize(&mut record);
            (Self::of(record).fullness(), digest)
        })
    }

    /// Returns a checksum of all that it said when it was asked first: links of other copies come to it later.
    pub(super) fn digest(&self) -> u32 {
        *self.digest.get_or_init(|| digest_of(&self.record.span, Some(&self.record.resource), Some(&self.record.scope)))
    }

    /// Returns the start that the record tells.
    pub(super) fn as_start(&self) -> Start<'_> {
        let maker = Some((Arc::clone(&self.record.resource), self.record.scope.clone()));
        Start { span: self.record.span.clone(), facts: &self.facts, content: &self.content, maker }
    }

    /// Returns the start of a step that has ended, without who made the span, which its end names a moment later, and
    /// without attributes of what went in, which stands in the event.
    pub(super) fn start(&self) -> Start<'_> {
        Start {
            span: start_of_span(&self.record.span, |_| false),
            facts: &self.facts,
            content: &self.content,
            maker: None,
        }
    }
}

/// Returns who made a span. Of one of a run that has reached its bound that is not known any more, when its log is put in order.
fn maker_of(span: &Span, resource: Arc<Resource>, scope: Scope) -> (Option<Arc<Resource>>, Option<Scope>) {
    let is_lost = span.attr_str(names::CUT) == Some(names::CUT_RUN);
    let resource = Some(resource).filter(|resource| !is_lost || **resource != Resource::default());
    (resource, Some(scope).filter(|scope| !is_lost || *scope != Scope::default()))
}

/// Adds the links of a copy of a span that gives way which the other has not.
pub(super) fn keep_links(kept: &mut Span, given_up: &mut Span) {
    if kept.links == given_up.links {
        return;
    }
    kept.links.append(&mut given_up.links);
    kept.links.sort_by(|a, b| (&a.trace_id, &a.span_id).cmp(&(&b.trace_id, &b.span_id)));
    kept.links.dedup_by(|a, b| (&a.trace_id, &a.span_id) == (&b.trace_id, &b.span_id));
}

/// The start of a step.
pub(super) struct Start<'a> {
    /// As far as it is known; when it ended is not looked at.
    pub(super) span: Span,
    /// Those of the end may be known already.
    pub(super) facts: &'a Arc<StepFacts>,
    pub(super) content: &'a StepContent,
    /// Who made the span, where its end is not known yet.
    pub(super) maker: Option<(Arc<Resource>, Scope)>,
}

/// Ended steps, as they came, that wait to be told in their order.
#[derive(Debug, Default)]
pub(super) struct Unsorted {
    #[expect(clippy::vec_box, reason = "they are large, and wait here and move on without being copied")]
    steps: Vec<Box<Said>>,
    /// Their places.
    spans: IdMap<SpanId, usize>,
    /// Events of copies of them that gave way.
    rest: Vec<(SpanId, SpanEvent)>,
    /// About how many bytes they take.
    bytes: u64,
    first: Option<First>,
}

/// The first step that waits: its place in the journal, and when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) seq: u64,
    pub(super) since: Instant,
}

impl Unsorted {
    /// Takes a step; `false` when it is there already, and then the copy that says more stays.
    fn take(&mut self, seq: u64, span: SpanId, said: Box<Said>, is_fuller: bool) -> bool {
        if let Some(place) = self.spans.get(&span) {
            let known = &mut self.steps[*place];
            if !is_fuller && said.digest() == known.digest() {
                return false;
            }
            self.bytes += said.record.span.about_len();
            let mut given_up = if is_fuller { std::mem::replace(known, said) } else { said };
            keep_links(&mut known.record.span, &mut given_up.record.span);
            self.rest.extend(given_up.record.span.events.into_iter().map(|event| (span, event)));
            return false;
        }
        self.spans.insert(span, self.steps.len());
        // What was held comes behind what shows whose it is.
        let first = self.first.get_or_insert_with(|| First { seq, since: Instant::now() });
        first.seq = first.seq.min(seq);
        self.bytes += said.record.span.about_len();
        self.steps.push(said);
        true
    }

    pub(super) fn first(&self) -> Option<First> {
        self.first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns all steps, and events of copies of them that gave way; is empty then.
    #[expect(clippy::vec_box, reason = "they are large, and wait here and move on without being copied")]
    pub(super) fn drain(&mut self) -> (Vec<Box<Said>>, Vec<(SpanId, SpanEvent)>) {
        let Self { steps, rest, .. } = std::mem::take(self);
        (steps, rest)
    }

    /// Tells whether no more may wait: they are in memory only, and the journal keeps their place.
    fn is_enough(&self, now: Instant) -> bool {
        let is_old = |first: First| now.saturating_duration_since(first.since) >= UNSORTED_AGE;
        self.steps.len() >= UNSORTED_RECORDS || self.bytes >= UNSORTED_BYTES || self.first.is_some_and(is_old)
    }
}

/// What is known of a forgotten run and not of what the store holds of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgotten {
    pub(super) is_unpublished: bool,
    pub(super) is_uncounted: bool,
}

impl Forgotten {
    pub(super) fn add(&mut self, live: &LiveRun) {
        self.is_unpublished |= !live.is_published();
        self.is_uncounted |= live.notes.is_some() && live.counted.is_none();
    }
}

#[derive(Debug)]
pub(super) struct PendingStart {
    pub(super) seq: u64,
    pub(super) said: Box<Said>,
    pub(super) since: Instant,
}

/// The parts of an event id that are the same for all events of one record.
#[derive(Clone, Copy)]
pub(super) struct EventIds {
    pub(super) process: RunId,
    pub(super) seq: u64,
}

impl EventIds {
    pub(super) fn make(self, sub: u64, at: UnixNanos) -> EventId {
        event_id(self.process, self.seq, sub, at)
    }
}

impl LiveRun {
    pub(super) fn new(state: RunState, above: Option<RunId>) -> Self {
        Self {
            state,
            above,
            known: HashSet::default(),
            pending: Vec::new(),
            queue: Vec::new(),
            told: IdMap::default(),
            written_status: None,
            stale_summary: false,
            was_tried: false,
            unsorted: Unsorted::default(),
            touched: Instant::now(),
            again: (0, 0),
            copies: HashSet::new(),
            calls_of_logs: IdSet::default(),
            by_span: false,
            unsettled: false,
            is_leaving: false,
            is_left: false,
            notes: None,
            counted: None,
            summary: None,
        }
    }

    /// Returns the parts of the ids of what a record tells of a span.
    pub(super) fn ids(&self, process: RunId, seq: u64, span: SpanId) -> EventIds {
        if self.by_span { EventIds::of_span(self.state.run_id(), span) } else { EventIds { process, seq } }
    }

    /// Tells whether the run has ended with all its steps.
    pub(super) fn is_over(&self) -> bool {
        self.state.is_completed() && self.state.open_spans().is_empty()
    }

    /// Adds the run up, once; of one from outside what comes after that, too.
    pub(super) fn tally(&mut self) -> Option<Tally> {
        let mut notes = self.notes.take()?;
        let said = self.summary.take().filter(|said| said.events == self.state.next_seq());
        let run = || said.map_or_else(|| self.state.summary(UnixNanos::now()), |said| *said);
        if let Some(counted) = &mut self.counted {
            let more = notes.tally_more(&self.state, counted, run);
            self.notes = Some(notes);
            return more;
        }
        let (tally, counted) = notes.tally(&self.state, run());
        if self.by_span {
            (self.notes, self.counted) = (Some(notes), Some(Box::new(counted)));
        }
        Some(tally)
    }

    /// Tells whether the store has all that the run says of itself.
    pub(super) fn is_published(&self) -> bool {
        self.queue.is_empty() && !self.stale_summary && self.written_status == Some(self.state.status())
    }

    /// Tells whether the start of a span has come and is not in the log yet.
    pub(super) fn has_pending(&self, span: SpanId) -> bool {
        self.pending.iter().any(|start| start.said.record.span.span_id == span.0)
    }

    /// Tells whether all that has come of it is in the store.
    pub(super) fn has_written_all(&self) -> bool {
        self.written_status.is_some() && self.has_nothing_to_write()
    }

    /// Tells whether nothing that came waits to be written.
    pub(super) fn has_nothing_to_write(&self) -> bool {
        self.queue.is_empty() && self.pending.is_empty() && self.unsorted.is_empty()
    }

    /// Tells whether nothing waits to be written.
    pub(super) fn is_clean(&self) -> bool {
        let is_settled = !self.by_span || !self.unsettled || self.state.status().is_open();
        self.has_nothing_to_write() && !self.stale_summary && is_settled
    }

    /// Appends an event to the run, unless it is there already.
    pub(super) fn push(
        &mut self,
        id: EventId,
        cause: Option<EventId>,
        at: UnixNanos,
        step: Option<String>,
        body: EventBody,
    ) {
        if let Some(event) = self.event(id, cause, at, step, body) {
            self.state.apply(&event, false);
            self.queue.push(event);
            self.unsettled = true;
        }
    }

    /// Appends the start or the end of a step, unless it is there already, with what is known of it.
    #[expect(clippy::too_many_arguments, reason = "the parts of an event and what goes with it")]
    pub(super) fn push_step(
        &mut self,
        id: EventId,
        cause: Option<EventId>,
        at: UnixNanos,
        step: String,
        body: EventBody,
        asked: Vec<String>,
        facts: Arc<StepFacts>,
    ) {
        if let Some(event) = self.event(id, cause, at, Some(step), body) {
            self.state.apply_step(&event, asked, facts);
            self.queue.push(event);
            self.unsettled = true;
        }
    }

    pub(super) fn event(
        &self,
        event_id: EventId,
        parent_event_id: Option<EventId>,
        timestamp: UnixNanos,
        step_id: Option<String>,
        body: EventBody,
    ) -> Option<Event> {
        let seq = self.state.next_seq();
        (!self.known.contains(&event_id)).then_some(Event { seq, event_id, parent_event_id, timestamp, step_id, body })
    }

    /// Writes starts into the log: all of them, or those whose grace was over at `now`.
    pub(super) fn flush_pending(&mut self, process: RunId, now: Option<Instant>) {
        self.flush_pending_with(process, now, None);
    }

    /// Does the same; of a step whose end is here already, the end says what it is.
    pub(super) fn flush_pending_with(&mut self, process: RunId, now: Option<Instant>, ended: Option<&Said>) {
        let due = match now {
            None => self.pending.len(),
            Some(now) => {
                let is_due = |start: &PendingStart| now.saturating_duration_since(start.since) >= START_GRACE;
                // In order: a start never overtakes an earlier one.
                self.pending.iter().rposition(is_due).map_or(0, |place| place + 1)
            }
        };
        if due == 0 {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        for start in pending.drain(..due) {
            let Some(span) = SpanId::from_bytes(&start.said.record.span.span_id) else { continue };
            let ids = self.ids(process, start.seq, span);
            match ended.filter(|end| same_span(&start.said.record, &end.record)) {
                Some(end) => self.start_step(ids, end.start()),
                None => {
                    let Said { record, facts, content, .. } = *start.said;
                    let maker = Some((record.resource, record.scope));
                    self.start_step(ids, Start { span: record.span, facts: &facts, content: &content, maker });
                }
            }
        }
        self.pending = pending;
    }

    /// Writes the start of a step, and before it that of the run.
    pub(super) fn start_step(&mut self, ids: EventIds, start: Start<'_>) {
        let Start { mut span, facts, content, maker } = start;
        let Some(span_id) = SpanId::from_bytes(&span.span_id) else { return };
        if self.state.step_progress(span_id).0 {
            return;
        }
        let at = UnixNanos(span.start_time_unix_nano);
        if !self.state.has_started() {
            self.start_run(ids, facts, content, at);
        }
        let cause = self.state.cause_of_start(&span);
        let step_id = self.state.unique_step_id(&facts.step_name);
        span.end_time_unix_nano = 0;
        let (resource, scope) = maker.unzip();
        let body = started_body(span, facts, content, resource, scope);
        self.push_step(ids.make(2, at), cause, at, step_id, body, Vec::new(), Arc::clone(facts));
    }

    fn start_run(&mut self, ids: EventIds, facts: &StepFacts, content: &StepContent, at: UnixNanos) {
        // As if this step were the only one.
        let (kind, name) = identity_of(facts);
        let started = RunStarted {
            kind,
            name,
            trace_id: self.state.trace_id(),
            parent_run_id: facts.parent_run_id.or(self.above),
            session_id: facts.session_id.clone(),
            user_id: facts.user_id.clone(),
            tags: facts.tags.clone(),
            input: content.input.clone(),
        };
        let start = ids.make(0, at);
        self.push(start, None, at, None, EventBody::RunStarted(Box::new(started)));
        if let Some(data) = content.input.as_ref().map(JsonText::value) {
            let body = EventBody::Input(Input { tool: "message_from_user".to_owned(), data });
            self.push(ids.make(1, at), Some(start), at, None, body);
        }
    }

    /// `from_outside`: the run is not over yet even if all its steps are, as more may have come with this one.
    pub(super) fn end_step(&mut self, ids: EventIds, span_id: SpanId, said: Box<Said>, from_outside: bool) {
        if !self.state.step_progress(span_id).0 {
            // A source that tells only ends: the start is read off the end.
            self.start_step(ids, said.start());
        }
        let Said { record, facts, content, .. } = *said;
        let at = UnixNanos(record.span.end_time_unix_nano);
        let Some((step_id, start)) = self.state.step_of(span_id).map(|(name, event)| (name.to_owned(), event)) else {
            return;
        };
        for place in self.untold(start, &record.span.events) {
            self.take_span_event(ids, place as u64, span_id, &record.span.events[place]);
        }
        let was_over = self.state.roots_ended();
        // The root's output is the run's.
        let output =
            content.output.as_ref().filter(|_| !from_outside && self.state.is_root(span_id)).map(JsonText::value);
        if let Some(notes) = &mut self.notes {
            notes.note_end(&record.span, &facts);
        }
        let asked = requested_tool_calls(content.output.as_ref());
        let (resource, scope) = maker_of(&record.span, record.resource, record.scope);
        let body = ended_body(record.span, &facts, *content, resource, scope);
        self.push_step(ids.make(3, at), Some(start), at, step_id, body, asked, facts);
        if self.state.is_completed() {
            self.stale_summary = true;
        } else if !from_outside && !was_over && self.state.roots_ended() && self.state.status() != RunStatus::Waiting {
            let cause = self.state.start_event();
            if let Some(data) = output {
                self.push(ids.make(4, at), cause, at, None, EventBody::Output(Output { data }));
            }
            let body = EventBody::RunCompleted(Box::new(self.state.completion()));
            self.push(ids.make(5, at), cause, at, None, body);
        }
    }

    /// Tells the end of a step that has ended once more, if this copy of it says more: it takes the other's place when the run is
    /// put in order.
    pub(super) fn end_again(&mut self, span: SpanId, said: Box<Said>) {
        let Some((step_id, start)) = self.state.step_of(span).map(|(name, event)| (name.to_owned(), event)) else {
            return;
        };
        let bytes = said.record.span.about_len();
        let is_enough = self.again.0 >= MAX_AGAIN || self.again.1 + bytes > MAX_AGAIN_BYTES;
        let Some((facts, at)) = self.state.ended_as(span) else { return };
        let (digest, known) = (said.digest(), self.state.digest_of(span));
        // When the log is put in order it is told which one counts, and the other has its events. That happens once for each: to put
        // a long log in order is work.
        if is_enough || Some(digest) == known || self.copies.len() >= MAX_COPIES || !self.copies.insert((span, digest))
        {
            return;
        }
        let is_less = fullness(facts, at) > said.fullness();
        self.again = (self.again.0 + 1, self.again.1 + bytes);
        let Said { record, facts, content, .. } = *said;
        let at = UnixNanos(record.span.end_time_unix_nano);
        if let Some(notes) = self.notes.as_mut().filter(|_| !is_less) {
            notes.note_end(&record.span, &facts);
        }
        let copy = super::ids::hash_of(&[&span.0, &at.0.to_le_bytes(), &digest.to_le_bytes()]);
        let id = EventIds::of_run(self.state.run_id(), copy).make(3, at);
        let asked = requested_tool_calls(content.output.as_ref());
        let (resource, scope) = maker_of(&record.span, record.resource, record.scope);
        let body = ended_body(record.span, &facts, *content, resource, scope);
        self.push_step(id, Some(start), at, step_id, body, asked, facts);
        self.stale_summary |= self.state.is_completed();
    }

    /// Tells whether an ended step may wait to be told together with all others of the run, in their order: nobody has
    /// seen anything of the run yet, and it waits for nothing.
    pub(super) fn takes_unsorted(&self, record: &Record) -> bool {
        let is_new = self.written_status.is_none() && !self.state.has_started() && self.pending.is_empty();
        let speaks_of_waiting =
            |event: &SpanEvent| matches!(event.name.as_str(), names::EVENT_WAITING | names::EVENT_RESUMED);
        is_new && self.queue.is_empty() && !record.span.events.iter().any(speaks_of_waiting)
    }

    /// Takes such a step; `false` when it has come already.
    pub(super) fn take_unsorted(&mut self, seq: u64, span: SpanId, said: Box<Said>) -> bool {
        let known = self.unsorted.spans.get(&span).map(|place| &self.unsorted.steps[*place]);
        let is_fuller = known.is_none_or(|known| said.counts_over(known));
        if let Some(notes) = self.notes.as_mut().filter(|_| is_fuller) {
            notes.note_end(&said.record.span, &said.facts);
        }
        self.unsorted.take(seq, span, said, is_fuller)
    }

    /// Tells whether more steps of a new run may be just behind the last one: what stands together in the journal comes
    /// in several pieces. One whose steps never cease is told in pieces after all.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let is_just_behind = now.saturating_duration_since(self.touched) < START_GRACE;
        !self.unsorted.is_empty() && is_just_behind && !self.unsorted.is_enough(now)
    }

    /// Tells steps that wait in the order in which they came, since something else is to be told of them.
    pub(super) fn tell_unsorted(&mut self, process: RunId) {
        if self.unsorted.is_empty() {
            return;
        }
        // They are noted.
        let notes = self.notes.take();
        let (steps, rest) = self.unsorted.drain();
        for said in steps {
            if let Some(span) = SpanId::from_bytes(&said.record.span.span_id) {
                self.end_step(self.ids(process, 0, span), span, said, true);
            }
        }
        rest.iter().for_each(|(span, event)| self.take_log(*span, event));
        self.notes = notes;
    }

    /// Notes that an event of a span was told before its end.
    pub(super) fn note_told(&mut self, span: SpanId, event: &SpanEvent) {
        if let Some((_, start)) = self.state.step_of(span) {
            self.told.entry(start).or_default().insert(UnixNanos(event.time_unix_nano));
        }
    }

    /// Returns the places of those events of an ended span that were not told before: all of a source that tells them
    /// only now, those that were left to the end, and none when another source of the same span told them, of whose
    /// clock this one knows nothing.
    pub(super) fn untold(&mut self, start: EventId, events: &[SpanEvent]) -> Vec<usize> {
        let Some(told) = self.told.remove(&start) else { return (0..events.len()).collect() };
        let moments: Vec<UnixNanos> = events.iter().map(|event| UnixNanos(event.time_unix_nano)).collect();
        let known = moments.iter().collect::<HashSet<_>>();
        if !told.iter().all(|at| known.contains(at)) {
            return Vec::new();
        }
        (0..events.len()).filter(|place| !told.contains(&moments[*place])).collect()
    }

    pub(super) fn take_span_event(&mut self, ids: EventIds, place: u64, span: SpanId, event: &SpanEvent) {
        let at = UnixNanos(event.time_unix_nano);
        let step = self.state.step_of(span).map(|(name, start)| (name.to_owned(), start));
        let (step_id, cause) = step.map_or((None, self.state.start_event()), |(name, start)| (Some(name), Some(start)));
        let body = body_of(event);
        // What the root says of itself it says of the run; a line of log stays with the step that wrote it.
        let of_run = self.state.is_root(span) && !matches!(body, EventBody::Log(_));
        let step_id = step_id.filter(|_| !of_run);
        let is_status = matches!(body, EventBody::Waiting(_) | EventBody::Resumed(_) | EventBody::StatusChanged(_));
        self.push(ids.make(16 + 2 * place, at), cause, at, step_id, body);
        self.stale_summary |= is_status;
    }

    /// Writes queued events and, where the status moved, the summary. Returns the summary of a run that ended now.
    ///
    /// `stored` is raised by the ended spans that were written.
    pub(super) fn write<W: RunWriter>(
        &mut self,
        run: RunId,
        writer: &mut W,
        stored: &mut u64,
    ) -> Result<Option<RunSummary>, StoreError> {
        if self.queue.is_empty() && !self.stale_summary {
            return Ok(None);
        }
        let status = self.state.status();
        let is_end = |event: &&Event| event.body.span().is_some() && !event.body.is_step_start();
        let ends = self.queue.iter().filter(is_end).count() as u64;
        // What the journal tells has a place of its own, and no place is told twice to a run that is open; what was lost
        // is told until it is written.
        let is_lost_note = |event: &&Event| matches!(&event.body, EventBody::Log(log) if log.message == DROPPED_LOG);
        let lost: Vec<EventId> = self.queue.iter().filter(is_lost_note).map(|event| event.event_id).collect();
        let mut created = None;
        if self.written_status.is_none() {
            let was_tried = std::mem::replace(&mut self.was_tried, true);
            let summary = self.state.summary(UnixNanos::now());
            writer.create_whole(&summary, &mut self.queue)?;
            self.summary = self.notes.is_some().then(|| Box::new(summary.clone()));
            created = Some(summary);
            // What is made now says all there is.
            self.stale_summary &= was_tried;
            self.written_status = Some(status);
        } else {
            writer.append_events(run, &self.queue)?;
        }
        *stored += ends;
        self.known.extend(lost);
        self.queue.clear();
        if let Some(summary) = created.filter(|_| !self.stale_summary) {
            // The first summary says it all; a short run is over with it.
            return Ok(Some(summary).filter(|_| !status.is_open()));
        }
        // Whatever comes after the end changes what the summary says.
        if self.written_status == Some(status) && !self.stale_summary && status.is_open() {
            return Ok(None);
        }
        let summary = self.state.summary(UnixNanos::now());
        writer.update_run(&summary)?;
        self.summary = self.notes.is_some().then(|| Box::new(summary.clone()));
        let ended_now = !status.is_open() && self.written_status.is_some_and(RunStatus::is_open);
        (self.written_status, self.stale_summary) = (Some(status), false);
        Ok(ended_now.then_some(summary))
    }
}

/// Types a span event: ours by their names, an evaluation as a score, all others as a line of log.
pub(super) fn body_of(event: &SpanEvent) -> EventBody {
    let json = |key: &str| event.attr(key).map(Value::to_json);
    let text = |key: &str| event.attr(key).and_then(Value::as_str).map(str::to_owned);
    let data = || json("data").unwrap_or(Json::Null);
    // As an attribute of its own, or within an object where its type is to stay.
    let member = |key: &str| {
        json(key).or_else(|| json(names::EVENT_FIELDS)?.get_mut(key).map(Json::take)).filter(|value| !value.is_null())
    };
    match event.name.as_str() {
        names::EVENT_OUTPUT => EventBody::Output(Output { data: data() }),
        names::EVENT_INPUT => EventBody::Input(Input { tool: text("tool").unwrap_or_default(), data: data() }),
        names::EVENT_WAITING => {
            let request = || text(Waiting::REQUEST).map(|request| serde_json::json!({ Waiting::REQUEST: request }));
            EventBody::Waiting(Waiting { reason: text("reason"), payload: member("payload").or_else(request) })
        }
        names::EVENT_RESUMED => EventBody::Resumed(resumed(event, member("input"))),
        names::EVENT_STATUS_CHANGED if moves_on(event) => EventBody::StatusChanged(StatusChanged {
            from: RunStatus::Waiting,
            to: RunStatus::Running,
            reason: text("reason"),
        }),
        names::EVENT_ARTIFACT => EventBody::Artifact(ArtifactInfo {
            name: text("name").unwrap_or_default(),
            media_type: text("media_type"),
            bytes: event.attr("bytes").and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            sha256: text("sha256").unwrap_or_default(),
            content: text(CONTENT_MARK).and_then(|word| word.parse().ok()),
        }),
        names::EVENT_EVALUATION => EventBody::Score(Score {
            name: text("gen_ai.evaluation.name").unwrap_or_default(),
            value: event.attr("gen_ai.evaluation.score.value").and_then(Value::as_f64),
            label: text("gen_ai.evaluation.score.label"),
            explanation: text("gen_ai.evaluation.explanation"),
        }),
        name => {
            let skipped = [names::EVENT_LEVEL, names::EVENT_FIELDS];
            let mut fields: serde_json::Map<String, Json> = event
                .attributes
                .iter()
                .filter(|attribute| !skipped.contains(&attribute.key.as_str()))
                .filter_map(|attribute| {
                    Some((attribute.key.clone(), attribute.value.as_ref()?.value.as_ref()?.to_json()))
                })
                .collect();
            match json(names::EVENT_FIELDS) {
                Some(Json::Object(given)) => fields.extend(given),
                Some(other) => drop(fields.insert("data".to_owned(), other)),
                None => {}
            }
            EventBody::Log(Log { level: text(names::EVENT_LEVEL), message: name.to_owned(), fields })
        }
    }
}

/// Makes the data of an answer: whether it was `null` only the event itself can say.
fn resumed(event: &SpanEvent, input: Option<Json>) -> Resumed {
    let fields = event.attr(names::EVENT_FIELDS).map(Value::to_json);
    let is_null = input.is_none() && fields.is_some_and(|fields| fields.get("input").is_some_and(Json::is_null));
    Resumed { input, is_null }
}

/// Tells whether an event says that a run waits no longer: all that a program may say of its status so.
fn moves_on(event: &SpanEvent) -> bool {
    let says = |key: &str, status: RunStatus| event.attr(key).and_then(Value::as_str) == Some(status.as_str());
    says("from", RunStatus::Waiting) && says("to", RunStatus::Running)
}

pub(super) fn same_span(a: &Record, b: &Record) -> bool {
    a.span.span_id == b.span.span_id
}
