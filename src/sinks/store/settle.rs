//! The log of a run that is over, in the one order that does not depend on how its spans came.
//!
//! Spans from outside come in any order, late and twice, and are told as they come, so that a run can be watched. When
//! it is over its log is made once more of what it tells: steps by their start, what encloses a step before it, names and
//! ids by that order. What came in logs joins its span here, whichever of both was first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::live::{Said, keep_links};
use super::telling::linked_trace;
use super::{EventIds, LiveRun, StoreSink};
use crate::conventions::dialects::logs::CALLS;
use crate::conventions::names;
use crate::model::event::{EventBody, Log};
use crate::model::id::{IdMap, IdSet, is_foreign_run_id};
use crate::model::otlp::{KeyValue, Scope, Span, SpanEvent, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{Event, EventId, RunId, RunStatus, SpanId, StepKind, TraceId, UnixNanos};
use crate::pipeline::cost::Pricer;
use crate::pipeline::facts::{is_billed, standard_kind};
use crate::pipeline::normalize::{name_model, normalize, restore_original};
use crate::store::assembly::{DROPPED_LOG, RunState};
use crate::store::{RunWriter, StoreError};

/// In place of a span: events of the run itself.
const RUN_PLACE: u64 = u64::MAX - 3;

/// What a log tells, taken apart again.
#[derive(Default)]
pub(super) struct Told {
    steps: IdMap<SpanId, Step>,
    /// Events that are told of no span, and stay as they are.
    others: Vec<Event>,
    is_completed: bool,
    /// Some step's end is told more than once.
    has_copies: bool,
}

#[derive(Default)]
struct Step {
    start: Option<Box<Said>>,
    end: Option<Box<Said>>,
    logs: Vec<SpanEvent>,
}

/// A step in the order of a settled log.
struct Placed {
    span: SpanId,
    /// Until all of it is told.
    said: Option<Box<Said>>,
    is_over: bool,
    depth: usize,
    from: u64,
    to: u64,
}

impl<W: RunWriter> StoreSink<W> {
    /// Tells what has come of a run that nobody has seen yet, at once in its order.
    pub(super) fn tell_new(&mut self, run: RunId) {
        let Some(live) = self.runs.get_mut(&run).filter(|live| !live.unsorted.is_empty()) else { return };
        let (ends, rest) = live.unsorted.drain();
        let told = Told::of_ends(ends, rest);
        let parent = self.parent_of(run, &told);
        let Some(live) = self.runs.get_mut(&run) else { return };
        let (events, state) = told.settled(live, parent, &mut self.pricer);
        live.unsettled = !state.is_completed();
        (live.state, live.queue) = (state, events);
    }

    /// Finds the run of the trace that a run names as its cause; waits for it where there is none yet.
    fn parent_of(&mut self, run: RunId, told: &Told) -> Option<RunId> {
        let linked = told.linked_trace(self.runs.get(&run)?.state.trace_id())?;
        let parent = self.run_that_caused(run, linked);
        if parent.is_none() {
            self.await_link(linked, run);
        } else if self.outside.is_some() {
            self.caused.add(linked, run);
        }
        parent
    }

    /// Writes the log of a run that is over in its order, unless it stands so already.
    pub(super) fn settle(&mut self, run: RunId) -> Result<(), StoreError> {
        let Some(live) = self.runs.get(&run) else { return Ok(()) };
        let is_written = live.written_status.is_some();
        let mut events = if is_written { self.writer.take_up(run)?.unwrap_or_default() } else { Vec::new() };
        let before: Vec<EventId> = events.iter().map(|event| event.event_id).collect();
        let parent_before = told_parent(&events);
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        events.append(&mut live.queue);
        let told = Told::of(events);
        let (parent, has_copies) = (self.parent_of(run, &told), told.has_copies);
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        let (events, state) = told.settled(live, parent, &mut self.pricer);
        live.state = state;
        if !is_written {
            (live.unsettled, live.again) = (false, (0, 0));
            live.queue = events;
            return Ok(());
        }
        // The run that caused it may have come since its start was written.
        let same = !has_copies
            && before.len() == events.len()
            && parent_before == told_parent(&events)
            && before.iter().zip(&events).all(|(id, event)| *id == event.event_id);
        live.known = events.iter().map(|event| event.event_id).collect();
        live.queue.clear();
        live.stale_summary = true;
        if !same {
            if events.len() < before.len() {
                // A summary vouches for so many events, and must not do so for more than are there at any moment.
                let summary = live.state.summary(UnixNanos::now());
                self.writer.update_run(&summary)?;
            }
            self.writer.replace_events(run, &events)?;
        }
        if let Some(live) = self.runs.get_mut(&run) {
            (live.unsettled, live.again) = (false, (0, 0));
        }
        Ok(())
    }

    /// Writes the log of a run once more, which tells less than before.
    pub(super) fn tell_once_more(&mut self, run: RunId, told: Told) -> Result<(), StoreError> {
        let parent = self.parent_of(run, &told);
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        let (events, state) = told.settled(live, parent, &mut self.pricer);
        live.unsettled = !state.is_completed();
        live.state = state;
        self.dirty.insert(run);
        if live.written_status.is_none() {
            live.queue = events;
            return Ok(());
        }
        live.known = events.iter().map(|event| event.event_id).collect();
        live.queue.clear();
        live.stale_summary = true;
        // It vouches for no more than is there at any moment.
        self.writer.update_run(&live.state.summary(UnixNanos::now()))?;
        self.writer.replace_events(run, &events)
    }
}

impl LiveRun {
    /// Notes what a record of an event tells: that the run waits or goes on, which only its own process says, or a log.
    pub(super) fn take_log_or_status(&mut self, span: SpanId, event: &SpanEvent) {
        if !matches!(event.name.as_str(), names::EVENT_WAITING | names::EVENT_RESUMED) {
            return self.take_log(span, event);
        }
        // The end of the span tells it again, for the log in its order.
        self.note_told(span, event);
        let place = super::ids::hash_of(&[event.name.as_bytes(), &event.time_unix_nano.to_le_bytes()]);
        self.take_span_event(EventIds::of_run(self.state.run_id(), place), 0, span, event);
    }

    /// Notes what a record of a log tells of a span, in place until the run is over.
    pub(super) fn take_log(&mut self, span: SpanId, event: &SpanEvent) {
        if is_call(event) {
            self.calls_of_logs.insert(span);
        }
        let at = UnixNanos(event.time_unix_nano);
        let step = self.state.step_of(span).map(|(name, start)| (name.to_owned(), start));
        let (step_id, cause) = step.map_or((None, self.state.start_event()), |(name, start)| (Some(name), Some(start)));
        let EventBody::Log(mut log) = log_body(event) else { return };
        // Told again in another order, it is the same.
        log.fields.shift_remove(names::LOG_OF_SPAN);
        let text = serde_json::to_string(&log.fields).unwrap_or_default();
        let place = super::ids::hash_of(&[&span.0, log.message.as_bytes(), text.as_bytes()]);
        log.fields.insert(names::LOG_OF_SPAN.to_owned(), span.to_string().into());
        let id = EventIds::of_run(self.state.run_id(), place).make(7, at);
        self.push(id, cause, at, step_id, EventBody::Log(log));
        // A sender that was not answered in time sends it again, and of a span that never comes nothing else tells so.
        self.known.insert(id);
    }
}

fn log_body(event: &SpanEvent) -> EventBody {
    let fields = event
        .attributes
        .iter()
        .filter_map(|attribute| Some((attribute.key.clone(), attribute.value.as_ref()?.value.as_ref()?.to_json())));
    let mut fields: serde_json::Map<String, Json> = fields.collect();
    let level = match fields.shift_remove(names::EVENT_LEVEL) {
        Some(Json::String(level)) => Some(level),
        _ => None,
    };
    EventBody::Log(Log { level, message: event.name.clone(), fields })
}

/// Returns the run above that the start of a run names.
pub(super) fn told_parent(events: &[Event]) -> Option<RunId> {
    events.iter().find_map(|event| match &event.body {
        EventBody::RunStarted(start) => Some(start.parent_run_id),
        _ => None,
    })?
}

/// Makes an event of a span of a line that a record of a log made.
fn span_event(event: &Event, log: &Log) -> Option<(SpanId, SpanEvent)> {
    let span = log.fields.get(names::LOG_OF_SPAN)?.as_str()?.parse().ok()?;
    let level = log.level.clone().map(|level| (names::EVENT_LEVEL.to_owned(), Json::from(level)));
    let fields = log.fields.iter().map(|(key, value)| (key.clone(), value.clone()));
    let attributes = level.into_iter().chain(fields).map(|(key, value)| {
        let value = match value {
            Json::String(text) => Value::String(text),
            Json::Bool(flag) => Value::Bool(flag),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Int(whole),
                None => Value::Double(number.as_f64().unwrap_or_default()),
            },
            // Structures are texts again: whoever reads them reads JSON.
            other => Value::String(other.to_string()),
        };
        KeyValue { key, value: Some(value.into()) }
    });
    let attributes = attributes.collect();
    Some((
        span,
        SpanEvent { time_unix_nano: event.timestamp.0, name: log.message.clone(), attributes, ..SpanEvent::default() },
    ))
}

impl Told {
    #[expect(clippy::vec_box, reason = "they are large, and wait here and move on without being copied")]
    fn of_ends(ends: Vec<Box<Said>>, rest: Vec<(SpanId, SpanEvent)>) -> Self {
        let mut told = Self::default();
        told.steps.reserve(ends.len());
        for said in ends {
            if let Some(id) = SpanId::from_bytes(&said.record.span.span_id) {
                told.steps.insert(id, Step { end: Some(said), ..Step::default() });
            }
        }
        for (span, event) in rest {
            told.steps.entry(span).or_default().logs.push(event);
        }
        told
    }

    pub(super) fn of(events: Vec<Event>) -> Self {
        let mut told = Self::default();
        let mut made_of_logs = HashSet::new();
        for event in events {
            let is_start = event.body.is_step_start();
            let (span, resource, scope) = match event.body.into_span() {
                Ok(parts) => parts,
                Err(body) => {
                    told.take_other(Event { body, ..event });
                    continue;
                }
            };
            let Some(id) = SpanId::from_bytes(&span.span_id) else { continue };
            if span.attr(names::LOG_FOR_SPAN).is_some() {
                // It is made once more, unless its span has come.
                made_of_logs.insert(id);
                told.steps.entry(id).or_default().logs.extend(span.events);
                continue;
            }
            let record = Record {
                kind: if is_start { RecordKind::Started } else { RecordKind::Ended },
                resource: resource.unwrap_or_default(),
                scope: scope.unwrap_or_default(),
                span,
            };
            let step = told.steps.entry(id).or_default();
            if is_start {
                step.start = Some(Said::of(record));
                continue;
            }
            let mut end = Said::of(record);
            if let Some(mut given_up) = step.end.take() {
                told.has_copies = true;
                if !end.counts_over(&given_up) {
                    std::mem::swap(&mut end, &mut given_up);
                }
                let given_up = &mut given_up.record.span;
                keep_links(&mut end.record.span, given_up);
                step.logs.append(&mut given_up.events);
            }
            step.end = Some(end);
        }
        for id in made_of_logs {
            let step = told.steps.entry(id).or_default();
            told.has_copies |= step.end.is_some();
            // The start was made with the end.
            step.start = None;
        }
        told
    }

    /// Tells whether it tells of no step.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Leaves these steps out.
    pub(super) fn leave_out(&mut self, spans: &IdSet<SpanId>) {
        self.steps.retain(|span, _| !spans.contains(span));
        self.is_completed = false;
    }

    /// Tells whether some step speaks of GenAI.
    pub(super) fn has_genai(&self) -> bool {
        let said = self.steps.values().flat_map(|step| step.end.as_deref().or(step.start.as_deref()));
        said.into_iter().any(|said| said.facts.is_genai)
    }

    /// Takes out the steps that wait for a parent, with all below them, and what logs tell of spans that have not come. `is_known`: the span has
    /// come, to whichever run; `is_by_logs`: only logs have told of it, which do not name a run.
    #[expect(clippy::vec_box, reason = "they are large, and move on without being copied")]
    pub(super) fn take_orphans(
        &mut self,
        children: &mut IdMap<SpanId, Vec<SpanId>>,
        trace: TraceId,
        is_known: impl Fn(SpanId) -> bool,
        is_by_logs: impl Fn(SpanId) -> bool,
    ) -> Vec<Box<Said>> {
        let waits = |step: &Step, id: SpanId| match step.end.as_deref().or(step.start.as_deref()) {
            None => is_by_logs(id),
            Some(said) => {
                let parent = SpanId::from_bytes(&said.record.span.parent_span_id);
                let is_named = said.facts.run_id.is_some_and(|run| !is_foreign_run_id(run, trace));
                let is_of_it = said.record.span.trace_id == trace.0;
                is_of_it && !is_named && parent.is_some_and(|parent| !is_known(parent))
            }
        };
        let waiting: Vec<SpanId> =
            self.steps.iter().filter(|(id, step)| waits(step, **id)).map(|(id, _)| *id).collect();
        let mut orphans = Vec::new();
        for id in waiting {
            orphans.extend(self.steps.remove(&id).into_iter().flat_map(|step| step.into_said(trace, id)));
            orphans.append(&mut self.take_below(children, id, trace));
        }
        orphans
    }

    /// Returns which steps are right below each span, but for those that name a run themselves.
    pub(super) fn children(&self, trace: TraceId) -> IdMap<SpanId, Vec<SpanId>> {
        let mut children: IdMap<SpanId, Vec<SpanId>> = IdMap::default();
        for (id, step) in &self.steps {
            let Some(said) = step.end.as_deref().or(step.start.as_deref()) else { continue };
            let is_named = said.facts.run_id.is_some_and(|run| !is_foreign_run_id(run, trace));
            let is_of_it = said.record.span.trace_id == trace.0;
            if let Some(parent) = SpanId::from_bytes(&said.record.span.parent_span_id).filter(|_| is_of_it && !is_named)
            {
                children.entry(parent).or_default().push(*id);
            }
        }
        children
    }

    /// Takes out the steps below a span, and what logs tell of them and of the span itself.
    #[expect(clippy::vec_box, reason = "they are large, and move on without being copied")]
    pub(super) fn take_below(
        &mut self,
        children: &mut IdMap<SpanId, Vec<SpanId>>,
        span: SpanId,
        trace: TraceId,
    ) -> Vec<Box<Said>> {
        let logs = self.steps.remove(&span).filter(|step| !step.has_span());
        let mut below: Vec<Box<Said>> = logs.into_iter().flat_map(|step| step.into_said(trace, span)).collect();
        let mut next = vec![span];
        while let Some(span) = next.pop() {
            for id in children.remove(&span).unwrap_or_default() {
                next.push(id);
                below.extend(self.steps.remove(&id).into_iter().flat_map(|step| step.into_said(trace, id)));
            }
        }
        below
    }

    fn take_other(&mut self, event: Event) {
        match &event.body {
            EventBody::Log(log) => match span_event(&event, log) {
                Some((span, log)) => self.steps.entry(span).or_default().logs.push(log),
                // One that a span tells is told by it again.
                None if log.message == DROPPED_LOG && event.step_id.is_none() => self.others.push(event),
                // Made again of the span that tells it.
                None => {}
            },
            EventBody::RunCompleted(_) => self.is_completed = true,
            EventBody::StatusChanged(_) => self.others.push(event),
            _ => {}
        }
    }

    /// Returns the trace that the topmost step names as its cause: the first of the earliest one.
    fn linked_trace(&self, own: TraceId) -> Option<TraceId> {
        let spans = self.steps.values().filter_map(|step| step.end.as_ref().map(|end| &end.record.span));
        let is_top = |span: &&Span| {
            SpanId::from_bytes(&span.parent_span_id).is_none_or(|parent| !self.steps.contains_key(&parent))
        };
        let linked = spans
            .filter(is_top)
            .filter_map(|span| Some((span.start_time_unix_nano, &span.span_id, linked_trace(span, own)?)));
        linked.min_by_key(|(at, span, _)| (*at, *span)).map(|(_, _, trace)| trace)
    }

    /// Tells it all once more in order.
    fn settled(mut self, live: &LiveRun, parent: Option<RunId>, pricer: &mut Pricer) -> (Vec<Event>, RunState) {
        let mut waiting = Vec::new();
        self.make_calls_of_logs(live.state.trace_id());
        for (span, step) in &mut self.steps {
            step.join(pricer);
            waiting.extend(step.logs.drain(..).map(|log| (*span, log)));
        }
        self.name_models(pricer);
        let state = RunState::new(live.state.run_id(), live.state.trace_id());
        let mut state = if live.state.is_for_copies() { state.for_copies() } else { state };
        state.know_elsewhere_of(&live.state);
        let mut run = LiveRun::new(state, live.above.or(parent));
        run.by_span = true;
        let mut placed = self.placed();
        run.state.reserve(placed.len());
        run.queue.reserve(2 * placed.len() + 3);
        let mut order: Vec<(u64, bool, usize, usize)> = Vec::with_capacity(2 * placed.len());
        for (place, step) in placed.iter().enumerate() {
            order.push((step.from, false, step.depth, place));
            if step.is_over {
                order.push((step.to, true, usize::MAX - step.depth, place));
            }
        }
        // Of equal moments: what begins before what ends, outer steps around inner ones.
        order.sort_by_key(|(at, is_end, depth, place)| (*at, *is_end, *depth, placed[*place].span));
        for (_, is_end, _, place) in order {
            let Placed { span, said, is_over, .. } = &mut placed[place];
            let ids = EventIds::of_span(live.state.run_id(), *span);
            if is_end {
                if let Some(said) = said.take() {
                    run.end_step(ids, *span, said, true);
                }
            } else if let Some(said) = said {
                run.start_step(ids, if *is_over { said.start() } else { said.as_start() });
            }
        }
        // Of spans that have not ended yet, or have not come.
        waiting.sort_by_cached_key(|(span, log)| (log.time_unix_nano, *span, format!("{:?}", log_body(log))));
        waiting.iter().for_each(|(span, log)| run.take_log(*span, log));
        self.tell_others(&mut run);
        if self.is_completed || run.state.roots_ended() {
            run.push_end();
        }
        run.name_start();
        (run.queue, run.state)
    }

    /// Makes calls of what logs tell of whole calls whose spans have not come: below the root, and around what names such a span as its
    /// parent. A call that another instrumentation tells of needs none.
    fn make_calls_of_logs(&mut self, trace: TraceId) {
        let alone = self.steps.iter().filter(|(_, step)| !step.has_span());
        let last = |step: &Step| {
            let calls = step.logs.iter().filter(|log| is_call(log));
            calls.max_by_key(|log| (log.time_unix_nano, answer_of(log).map(str::to_owned), output_of(log))).cloned()
        };
        let mut calls: Vec<(SpanId, SpanEvent)> = alone.filter_map(|(span, step)| Some((*span, last(step)?))).collect();
        if calls.is_empty() {
            return;
        }
        calls.sort_unstable_by_key(|(span, log)| (log.time_unix_nano, *span));
        let ends = || self.steps.values().filter_map(|step| step.end.as_deref()).filter(|said| said.facts.billed);
        let answers: HashSet<&str> = ends().filter_map(|said| said.facts.response_id.as_deref()).collect();
        let mut by_output: HashMap<u64, Vec<&Said>> = HashMap::new();
        for said in ends() {
            if let Some(output) = said.facts.tokens.and_then(|tokens| tokens.completion) {
                by_output.entry(output).or_default().push(said);
            }
        }
        by_output.values_mut().for_each(|calls| {
            calls.sort_unstable_by_key(|said| (said.record.span.start_time_unix_nano, &said.record.span.span_id));
        });
        // Each call is told of by one log.
        calls.retain(|(_, log)| {
            let answer = answer_of(log);
            if answer.is_some_and(|answer| answers.contains(answer)) {
                return false;
            }
            let Some(alike) = output_of(log).and_then(|output| by_output.get_mut(&output)) else { return true };
            let is_it = |said: &&Said| (answer.is_none() || said.facts.response_id.is_none()) && said.is_call_of(log);
            match alike.iter().take(MOST_ALIKE).position(is_it) {
                Some(place) => {
                    alike.remove(place);
                    false
                }
                None => true,
            }
        });
        let told = self.steps.values().filter_map(|step| step.end.as_ref().or(step.start.as_ref()));
        let records = || told.clone().map(|said| &said.record);
        let root = records().filter(|record| record.span.parent_span_id.is_empty());
        let root = root.min_by_key(|record| (record.span.start_time_unix_nano, &record.span.span_id));
        let resource = root.map(|root| Arc::clone(&root.resource)).unwrap_or_default();
        let root = root.map(|root| root.span.span_id.clone()).unwrap_or_default();
        let made = calls.into_iter().map(|(id, log)| {
            let below = records().filter(|record| record.span.parent_span_id == id.0);
            let first = below.map(|record| record.span.start_time_unix_nano).min();
            let text = |key| log.attr(key).and_then(Value::as_str).unwrap_or_default();
            let mut span = Span {
                trace_id: trace.0.to_vec(),
                span_id: id.0.to_vec(),
                parent_span_id: root.clone(),
                name: format!("{} {}", text(names::OPERATION), text(names::REQUEST_MODEL)).trim_end().to_owned(),
                start_time_unix_nano: first.unwrap_or(log.time_unix_nano).min(log.time_unix_nano),
                end_time_unix_nano: log.time_unix_nano,
                ..Span::default()
            };
            span.set_attr(names::LOG_FOR_SPAN, true);
            let resource = Arc::clone(&resource);
            (id, Said::of(Record { kind: RecordKind::Ended, resource, scope: Scope::default(), span }))
        });
        for (id, said) in made.collect::<Vec<_>>() {
            self.steps.entry(id).or_default().end = Some(said);
        }
    }

    /// Gives calls that tell what they used, and not of which model, the model of the layer around them that does.
    fn name_models(&mut self, pricer: &mut Pricer) {
        let ended = |span: &SpanId| self.steps.get(span).and_then(|step| step.end.as_deref());
        let unnamed = self.steps.keys().filter(|span| {
            let facts = ended(span).map(|said| &said.facts);
            facts.is_some_and(|facts| facts.billed && facts.tokens.is_some() && facts.model().is_none())
        });
        let named = unnamed.filter_map(|span| {
            let mut around = *span;
            for _ in 0..MAX_DEPTH {
                around = SpanId::from_bytes(&ended(&around)?.record.span.parent_span_id)?;
                let facts = &ended(&around)?.facts;
                match facts.model() {
                    Some(model) if facts.billed => return Some((*span, model.to_owned())),
                    _ if facts.billed || facts.kind == StepKind::Task => {}
                    _ => return None,
                }
            }
            None
        });
        for (span, model) in named.collect::<Vec<_>>() {
            let Some(step) = self.steps.get_mut(&span) else { continue };
            let Some(mut said) = step.end.take() else { continue };
            restore_original(&mut said.record.span);
            normalize(&mut said.record);
            name_model(&mut said.record.span, &model);
            pricer.price(&mut said.record);
            step.end = Some(Said::of(said.record));
        }
    }

    /// Tells what is told of no span: what was lost, and that the run was given up, unless it has ended after all.
    fn tell_others(&mut self, run: &mut LiveRun) {
        let ended = self.is_completed || run.state.roots_ended();
        self.others.sort_by_key(|event| (event.timestamp, event.event_id));
        for event in self.others.drain(..) {
            if matches!(event.body, EventBody::StatusChanged(_)) && ended {
                continue;
            }
            run.push(event.event_id, run.state.start_event(), event.timestamp, None, event.body);
        }
    }

    /// Puts the steps under each other: nothing begins before what encloses it, whatever the clocks say.
    fn placed(&mut self) -> Vec<Placed> {
        let steps = std::mem::take(&mut self.steps);
        let mut told: IdMap<SpanId, Box<Said>> =
            steps.into_iter().filter_map(|(span, step)| Some((span, step.end.or(step.start)?))).collect();
        let parent_of = |span: SpanId| {
            let parent = SpanId::from_bytes(&told.get(&span)?.record.span.parent_span_id)?;
            (parent != span && told.contains_key(&parent)).then_some(parent)
        };
        let start_of = |span: &SpanId| told[span].record.span.start_time_unix_nano;
        let mut found: IdMap<SpanId, (usize, u64)> = IdMap::default();
        let mut spans: Vec<SpanId> = told.keys().copied().collect();
        // In one order, for what is below itself, and what is too deep, is placed by who is looked at first.
        spans.sort_unstable_by_key(|span| (start_of(span), *span));
        for span in spans {
            let mut way = vec![span];
            while let Some(parent) = parent_of(way[way.len() - 1]) {
                if let Some(at) = way.iter().position(|span| *span == parent) {
                    // Of a circle, the first one is topmost, and so last on the way.
                    let circle = &mut way[at..];
                    let top = (0..circle.len()).min_by_key(|at| (start_of(&circle[*at]), circle[*at])).unwrap_or(0);
                    circle.rotate_left(top + 1);
                    found.insert(circle[circle.len() - 1], (0, start_of(&circle[circle.len() - 1])));
                    break;
                }
                if found.contains_key(&parent) || way.len() > MAX_DEPTH {
                    way.push(parent);
                    break;
                }
                way.push(parent);
            }
            for span in way.into_iter().rev() {
                let own = start_of(&span);
                let above = parent_of(span).and_then(|parent| found.get(&parent)).copied();
                found.entry(span).or_insert_with(|| above.map_or((0, own), |(depth, from)| (depth + 1, from.max(own))));
            }
        }
        let placed = told.drain().map(|(span, said)| {
            let own = &said.record;
            let (depth, from) = found.get(&span).copied().unwrap_or((0, own.span.start_time_unix_nano));
            let (to, is_over) = (own.span.end_time_unix_nano.max(from), own.kind == RecordKind::Ended);
            Placed { span, said: Some(said), is_over, depth, from, to }
        });
        placed.collect()
    }
}

/// Deeper than this steps are looked at as if they lay beside each other.
const MAX_DEPTH: usize = 256;

/// Tells whether what came in a log tells all of a call of a model.
pub(super) fn is_call(log: &SpanEvent) -> bool {
    let operation = || log.attr(names::OPERATION).and_then(Value::as_str);
    CALLS.contains(&log.name.as_str()) && operation().and_then(standard_kind).is_some_and(is_billed)
}

/// Of so many calls with one count of output it is looked whether they are what a log tells of.
const MOST_ALIKE: usize = 64;

/// Returns the answer's id that a log tells.
fn answer_of(log: &SpanEvent) -> Option<&str> {
    log.attr(names::RESPONSE_ID).and_then(Value::as_str)
}

/// Returns how many tokens came out, by a log.
fn output_of(log: &SpanEvent) -> Option<u64> {
    log.attr(names::OUTPUT_TOKENS).and_then(Value::as_i64).and_then(|count| u64::try_from(count).ok())
}

impl Said {
    /// Tells whether it may be the call that a log tells of, by its time.
    fn is_call_of(&self, log: &SpanEvent) -> bool {
        /// A log may be written so much behind the end of its call, in nanoseconds.
        const BEHIND: u64 = 1_000_000_000;
        let span = &self.record.span;
        let time = span.start_time_unix_nano..=span.end_time_unix_nano.saturating_add(BEHIND);
        time.contains(&log.time_unix_nano)
    }
}

impl Step {
    /// Makes records of what is told of it: its end, or its start where that has not come, and its logs.
    fn into_said(self, trace: TraceId, span: SpanId) -> impl Iterator<Item = Box<Said>> {
        let log = (!self.logs.is_empty()).then(|| {
            let span =
                Span { trace_id: trace.0.to_vec(), span_id: span.0.to_vec(), events: self.logs, ..Span::default() };
            let (resource, scope) = (Arc::default(), Scope::default());
            Said::of(Record { kind: RecordKind::Event, resource, scope, span })
        });
        self.end.or(self.start).into_iter().chain(log)
    }

    /// Tells whether its span has come, or its start.
    fn has_span(&self) -> bool {
        self.start.is_some() || self.end.is_some()
    }

    /// Puts what came in logs into the span, and reads the span once more with it.
    fn join(&mut self, pricer: &mut Pricer) {
        let Some(mut said) = self.end.take_if(|_| !self.logs.is_empty()) else { return };
        let record = &mut said.record;
        let text = |log: &SpanEvent| format!("{:?}", log_body(log));
        let mut known: HashSet<String> = record.span.events.iter().map(text).collect();
        // A log that says the same is one.
        let mut logs: Vec<(u64, String, SpanEvent)> =
            self.logs.drain(..).map(|log| (log.time_unix_nano, text(&log), log)).collect();
        logs.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let new: Vec<SpanEvent> =
            logs.into_iter().filter_map(|(_, text, log)| known.insert(text).then_some(log)).collect();
        if new.is_empty() {
            self.end = Some(said);
            return;
        }
        restore_original(&mut record.span);
        record.span.events.extend(new);
        record.span.events.sort_by_key(|event| event.time_unix_nano);
        normalize(record);
        pricer.price(record);
        self.end = Some(Said::of(said.record));
    }
}

impl LiveRun {
    /// Names the run at its start as it is known now.
    fn name_start(&mut self) {
        let (kind, name) = self.state.identity();
        let Some(Event { body: EventBody::RunStarted(start), .. }) = self.queue.first_mut() else { return };
        (start.kind, start.name) = (kind, name);
    }

    /// Tells whether the log of a run that is over is still to be put in order, and may be: at once where that is little
    /// work, else when nothing more has come for a while.
    pub(super) fn is_to_settle(&self, now: std::time::Instant, all: bool) -> bool {
        let is_quiet = all || now.saturating_duration_since(self.touched) >= QUIET;
        let is_over = self.state.is_completed() || self.state.status() == RunStatus::Crashed;
        let is_little = self.state.next_seq() <= AT_ONCE && self.again.0 == 0;
        self.by_span && self.unsettled && is_over && (is_little || is_quiet)
    }
}

/// Logs up to this many events are put in order whenever something comes late.
const AT_ONCE: u64 = 2_000;
/// Longer ones when nothing has come for so long.
const QUIET: std::time::Duration = std::time::Duration::from_secs(1);

impl EventIds {
    /// Ids of what a span from outside tells: the same whenever it comes.
    pub(super) fn of_span(run: RunId, span: SpanId) -> Self {
        Self::of_run(run, u64::from_be_bytes(span.0).min(RUN_PLACE))
    }

    /// The same of something else. The moment in the run's id depends on which span came first, and is left out.
    pub(super) fn of_run(mut run: RunId, seq: u64) -> Self {
        run.0[..6].fill(0);
        Self { process: run, seq }
    }
}
