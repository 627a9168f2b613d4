//! Run assembly: what a run's events add up to.
//!
//! One fold over events serves everyone: the writer keeps its state by it, `run.yaml` is its summary, `get` its steps,
//! and a process that takes a run over from a dead one rebuilds the state by reading the log. So what is shown can
//! never differ from what is in the log.
//!
//! Totals are summed once: over model calls, each told once, and over what an enclosing span says of its tokens or its
//! cost only where nothing below says it.

#[cfg(feature = "index")]
pub(crate) mod accounts;
mod billing;
mod bodies;
mod copies;
mod ending;
mod loops;
mod tree;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use crate::conventions::names;
use crate::model::budget::Budget;
use crate::model::digest::digest_of;
use crate::model::event::{EventBody, Waiting};
use crate::model::id::{IdMap, IdSet};
use crate::model::otlp::Span;
use crate::model::run::ArtifactInfo;
use crate::model::{ErrorInfo, Event, EventId, RunId, RunStatus, SpanId, StepStatus, TraceId, UnixNanos};
use crate::pipeline::facts::{MAX_WORDS, StepContent, StepFacts, short};

pub use billing::Billing;
use billing::Sums;
pub use bodies::{ended_body, started_body, status_body};
pub(crate) use bodies::{has_remote_parent, requested_tool_calls, tool_calls_in};
pub(crate) use copies::{Fullness, fullness};
pub(crate) use view::identity_of;
use view::is_named_run;

/// Artifacts listed in a summary.
const MAX_ARTIFACTS: usize = 200;

/// What a run's events add up to so far.
#[derive(Clone, Debug)]
pub struct RunState {
    run_id: RunId,
    trace_id: TraceId,
    parent_run_id: Option<RunId>,
    replay_of: Option<RunId>,
    /// The budget that was given later than the first.
    budget: Option<Budget>,
    external_id: Option<String>,
    session_id: Option<String>,
    user_id: Option<String>,
    tags: Vec<String>,
    steps: Vec<Step>,
    /// By place, that of a step above each, or its own where there is none: the way up is shortened where it was walked.
    tops: Vec<usize>,
    by_span: IdMap<SpanId, usize>,
    /// Topmost steps: those whose parent is not in the run.
    roots: BTreeSet<usize>,
    /// How many of them are under way.
    open_roots: usize,
    /// The step that stands for the run, and its trace: other traces of the run are below it.
    host: Option<(SpanId, TraceId)>,
    /// Calls in loops that tell sums, by the step that they are below.
    loops: IdMap<SpanId, Vec<usize>>,
    /// Topmost steps by the parent that may still come.
    awaiting: IdMap<SpanId, Vec<usize>>,
    /// Parents that are of no run, or of another.
    elsewhere: IdSet<SpanId>,
    /// Each step is told when it begins, and so before what is below it.
    starts_first: bool,
    names: IdMap<String, u64>,
    /// Which model call asked for a tool call, by the call's id.
    asked_by: IdMap<String, EventId>,
    /// The first ones.
    artifacts: Vec<ArtifactInfo>,
    artifacts_total: u64,
    started: Option<(EventId, UnixNanos)>,
    /// A status that was set rather than derived: waiting, cancelled, crashed.
    set_status: Option<RunStatus>,
    /// The event that waits for an answer.
    waiting: Option<EventId>,
    /// When that was.
    waits_since: Option<UnixNanos>,
    /// How long it has waited before, in nanoseconds.
    waited: u64,
    /// What it waited for last was the end of a pause.
    is_pause: bool,
    /// What it asked for last, apart from pauses, was answered.
    has_answer: bool,
    /// The request for whose sake the run paused last.
    paused_by: Option<String>,
    completed: bool,
    next_seq: u64,
    dropped: u64,
    last_time: UnixNanos,
    /// What the steps add up to, once somebody has asked, until one of them changes.
    sums: OnceLock<Arc<Sums>>,
    /// Those of ends, to compare other copies of them with: worked out where one has come, since most never have another.
    digests: Option<IdMap<SpanId, u32>>,
}

/// A step as far as it is known; content is kept only where it is asked for.
#[derive(Clone, Debug)]
struct Step {
    step_id: String,
    span_id: SpanId,
    trace_id: Option<TraceId>,
    /// The step that it is below, in another trace perhaps.
    parent: Option<SpanId>,
    /// The parent is a step of another process.
    has_remote_parent: bool,
    start_event: EventId,
    started_at: UnixNanos,
    ended_at: Option<UnixNanos>,
    status: StepStatus,
    /// Without content; of a step that has not ended its status and error say nothing.
    facts: Arc<StepFacts>,
    /// Kept for readers alone.
    content: Option<Box<StepContent>>,
}

impl Step {
    fn error(&self) -> Option<&ErrorInfo> {
        self.facts.error.as_ref().filter(|_| is_failure(self.status))
    }
}

impl RunState {
    /// Makes the state of a run that has no events yet.
    pub fn new(run_id: RunId, trace_id: TraceId) -> Self {
        Self {
            run_id,
            trace_id,
            parent_run_id: None,
            replay_of: None,
            budget: None,
            external_id: None,
            session_id: None,
            user_id: None,
            tags: Vec::new(),
            steps: Vec::new(),
            tops: Vec::new(),
            by_span: HashMap::default(),
            roots: BTreeSet::new(),
            open_roots: 0,
            host: None,
            awaiting: HashMap::default(),
            elsewhere: IdSet::default(),
            starts_first: false,
            loops: HashMap::default(),
            names: HashMap::default(),
            asked_by: HashMap::default(),
            artifacts: Vec::new(),
            artifacts_total: 0,
            started: None,
            set_status: None,
            waiting: None,
            waits_since: None,
            waited: 0,
            is_pause: false,
            has_answer: false,
            paused_by: None,
            completed: false,
            next_seq: 0,
            dropped: 0,
            last_time: UnixNanos::default(),
            sums: OnceLock::new(),
            digests: None,
        }
    }

    /// The same, which keeps the digests of ends for copies of them that come.
    pub(crate) fn for_copies(self) -> Self {
        Self { digests: Some(IdMap::default()), ..self }
    }

    /// Tells whether it keeps the digests of ends.
    pub(crate) fn is_for_copies(&self) -> bool {
        self.digests.is_some()
    }

    /// Works out the digests of ends that it has taken in, of the events that told them.
    pub(crate) fn take_digests<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut again = Self::new(self.run_id, self.trace_id).for_copies();
        events.into_iter().for_each(|event| again.apply(event, false));
        self.digests = again.digests;
    }

    /// Makes room for so many steps.
    pub(crate) fn reserve(&mut self, steps: usize) {
        self.steps.reserve(steps);
        self.by_span.reserve(steps);
    }

    /// Folds a whole log, contents of steps included.
    pub fn read(run_id: RunId, events: &[Event]) -> Self {
        let mut state = Self::new(run_id, run_id.as_trace_id());
        for event in events {
            state.apply(event, true);
        }
        state
    }

    /// Takes in one event. `with_content`: keep inputs and outputs of steps, which only a reader needs.
    pub fn apply(&mut self, event: &Event, with_content: bool) {
        if let Some((span, resource, scope)) = event.body.span() {
            let mut facts = StepFacts::of(span, resource, scope);
            let content = std::mem::take(&mut facts.content);
            let place = self.apply_step(event, requested_tool_calls(content.output.as_ref()), Arc::new(facts));
            if let Some(place) = place.filter(|_| with_content) {
                self.steps[place].content = Some(Box::new(content.shown()));
            }
            return;
        }
        self.note(event);
        match &event.body {
            EventBody::RunStarted(start) => {
                self.started = Some((event.event_id, event.timestamp));
                self.trace_id = start.trace_id;
                self.parent_run_id = start.parent_run_id;
                // Bounded again: another version or another program may have written the log.
                self.session_id = start.session_id.clone().map(short);
                self.user_id = start.user_id.clone().map(short);
                self.tags = start.tags.iter().take(MAX_WORDS).cloned().map(short).collect();
            }
            EventBody::RunCompleted(_) => {
                self.completed = true;
                self.end_wait(event.timestamp);
            }
            EventBody::StatusChanged(change) => {
                if (change.from, change.to) == (RunStatus::Crashed, RunStatus::Waiting) {
                    self.reopen();
                }
                self.waiting = (change.to == RunStatus::Waiting).then_some(event.event_id);
                match self.waiting {
                    Some(_) => self.begin_wait(event.timestamp),
                    None => self.end_wait(event.timestamp),
                }
                self.set_status = match change.to {
                    RunStatus::Running | RunStatus::Waiting => None,
                    status => Some(status),
                };
            }
            EventBody::Waiting(waiting) => {
                self.waiting = Some(event.event_id);
                self.begin_wait(event.timestamp);
                self.is_pause = waiting.reason.as_deref() == Some(Waiting::PAUSED);
                self.has_answer &= self.is_pause;
                self.paused_by = waiting.pause_request().map(str::to_owned).or(self.paused_by.take());
            }
            EventBody::Resumed(_) => {
                self.waiting = None;
                self.end_wait(event.timestamp);
                self.has_answer |= !self.is_pause;
            }
            EventBody::Artifact(artifact) => {
                self.artifacts_total += 1;
                if self.artifacts.len() < MAX_ARTIFACTS {
                    self.artifacts.push(bounded(artifact));
                }
            }
            EventBody::Log(log) if log.message == DROPPED_LOG => {
                let count = log.fields.get("count").and_then(serde_json::Value::as_u64);
                self.dropped = self.dropped.saturating_add(count.unwrap_or(0));
            }
            EventBody::Log(log) if log.message == names::EVENT_BUDGET => {
                // What is told as text is kept as the object that it says.
                let given = log.fields.get(names::BUDGET).cloned().and_then(|json| serde_json::from_value(json).ok());
                self.budget = given.or(self.budget);
            }
            _ => {}
        }
    }

    fn begin_wait(&mut self, at: UnixNanos) {
        self.waits_since.get_or_insert(at);
    }

    fn end_wait(&mut self, at: UnixNanos) {
        if let Some(since) = self.waits_since.take() {
            self.waited = self.waited.saturating_add(at.0.saturating_sub(since.0));
        }
    }

    fn note(&mut self, event: &Event) {
        self.next_seq = event.seq + 1;
        self.last_time = self.last_time.max(event.timestamp);
    }

    /// Takes in the start or the end of a step, of which the facts are known already: without content, and apart from
    /// them the ids of the tool calls that the step asked for. Of a start they may be those of the end.
    ///
    /// Returns the place of the step, if it is one that was not there or is not over.
    pub(crate) fn apply_step(&mut self, event: &Event, asked: Vec<String>, facts: Arc<StepFacts>) -> Option<usize> {
        self.note(event);
        let (span, resource, scope) = event.body.span()?;
        let span_id = SpanId::from_bytes(&span.span_id)?;
        if !event.body.is_step_start()
            && let Some((known, at)) = self.ended_as(span_id)
            && fullness(known, at) > fullness(&facts, UnixNanos(span.end_time_unix_nano))
        {
            // A copy that says less.
            return self.by_span.get(&span_id).copied();
        }
        self.learn(&facts);
        self.sums.take();
        if event.body.is_step_start() {
            if self.by_span.contains_key(&span_id) {
                return None;
            }
            let step_id = event.step_id.clone().unwrap_or_default();
            // A number after a name that is not there itself is the emitter's own: `gpt-4`.
            if let Some((base, number)) = numbered(&step_id)
                && let Some(count) = self.names.get_mut(base)
            {
                *count = (*count).max(number);
            }
            *self.names.entry(step_id.clone()).or_default() += 1;
            let place = self.steps.len();
            self.by_span.insert(span_id, place);
            let trace_id = TraceId::from_bytes(&span.trace_id);
            // A span that names itself has no parent.
            let parent = SpanId::from_bytes(&span.parent_span_id).filter(|parent| *parent != span_id);
            self.steps.push(Step {
                step_id,
                span_id,
                trace_id,
                parent: parent.or_else(|| self.host_of(trace_id, &facts)),
                has_remote_parent: has_remote_parent(span),
                start_event: event.event_id,
                started_at: UnixNanos(span.start_time_unix_nano),
                ended_at: None,
                status: StepStatus::Running,
                facts,
                content: None,
            });
            self.place_among_roots(place);
            self.become_host(place);
            self.settle_loops(place);
            Some(place)
        } else {
            let place = *self.by_span.get(&span_id)?;
            if matches!(event.body, EventBody::LlmCalled(_)) {
                self.asked_by.extend(asked.into_iter().map(|call| (call, event.event_id)));
            }
            let step = &mut self.steps[place];
            if step.ended_at.is_none() && self.roots.contains(&place) {
                self.open_roots -= 1;
            }
            step.started_at = UnixNanos(span.start_time_unix_nano);
            step.ended_at = Some(UnixNanos(span.end_time_unix_nano));
            (step.status, step.facts) = (facts.status, facts);
            if let Some(digests) = &mut self.digests {
                digests.insert(span_id, digest_of(span, resource, scope));
            }
            self.settle_loops(place);
            Some(place)
        }
    }

    /// Finds out whether a new step is topmost, and which topmost steps it is the parent of.
    fn place_among_roots(&mut self, place: usize) {
        let (span, parent) = (self.steps[place].span_id, self.steps[place].parent);
        self.tops.push(parent.and_then(|parent| self.by_span.get(&parent)).copied().unwrap_or(place));
        if parent.is_none_or(|parent| !self.by_span.contains_key(&parent)) {
            self.roots.insert(place);
            self.open_roots += 1;
            if let Some(parent) = parent {
                self.awaiting.entry(parent).or_default().push(place);
            }
        }
        for child in self.awaiting.remove(&span).unwrap_or_default() {
            // In a circle of parents one of them stays topmost.
            let is_circle = self.topmost_of(place) == child;
            if !is_circle && self.roots.remove(&child) {
                self.tops[child] = place;
                self.open_roots -= usize::from(self.steps[child].ended_at.is_none());
            }
        }
    }

    /// Returns the topmost step above one, or itself.
    fn topmost_of(&mut self, mut place: usize) -> usize {
        while self.tops[place] != place {
            // What was walked once is half as long the next time.
            let next = self.tops[self.tops[place]];
            self.tops[place] = next;
            place = next;
        }
        place
    }

    /// Returns the step that a topmost one of another trace is below: it came into the run by the word of its process,
    /// which the run had started.
    fn host_of(&self, trace: Option<TraceId>, facts: &StepFacts) -> Option<SpanId> {
        let (host, own) = self.host?;
        (trace? != own && !facts.names_run).then_some(host)
    }

    /// Lets a step stand for the run if it says that it does, and takes below it what came before it of other traces.
    fn become_host(&mut self, place: usize) {
        let step = &self.steps[place];
        let is_host = step.facts.names_run && is_named_run(step) && self.roots.contains(&place);
        let Some(trace) = step.trace_id.filter(|_| is_host && self.host.is_none()) else { return };
        let (host, above) = (step.span_id, self.ancestors(step));
        self.host = Some((host, trace));
        let orphans: Vec<usize> = self.roots.iter().copied().collect();
        for place in orphans {
            let step = &self.steps[place];
            if step.parent.is_some() || above.contains(&step.span_id) {
                continue;
            }
            let Some(host) = self.host_of(step.trace_id, &step.facts) else { continue };
            self.open_roots -= usize::from(step.ended_at.is_none());
            self.roots.remove(&place);
            self.steps[place].parent = Some(host);
            self.tops[place] = self.by_span.get(&host).copied().unwrap_or(place);
        }
    }

    /// Takes what a span says of its run.
    fn learn(&mut self, facts: &StepFacts) {
        fn first<T: Clone>(known: &mut Option<T>, told: &Option<T>) {
            if known.is_none() {
                known.clone_from(told);
            }
        }
        first(&mut self.session_id, &facts.session_id);
        first(&mut self.user_id, &facts.user_id);
        first(&mut self.external_id, &facts.external_id);
        first(&mut self.parent_run_id, &facts.parent_run_id);
        first(&mut self.replay_of, &facts.replay_of);
        if self.tags.is_empty() {
            self.tags.clone_from(&facts.tags);
        }
    }

    /// Returns the run's id.
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// Returns the trace the run is part of.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Returns the `seq` of the next event.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Tells whether `run_started` is in the log.
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// Takes the run for crashed, as a process that may write here would note it: its own is dead.
    pub fn crash(&mut self) {
        if self.status() != RunStatus::Running {
            return;
        }
        self.sums.take();
        for step in self.steps.iter_mut().filter(|step| step.ended_at.is_none()) {
            step.ended_at = Some(self.last_time.max(step.started_at));
            step.status = StepStatus::Crashed;
            let error = ErrorInfo { message: Some(CRASHED_STEP.to_owned()), ..ErrorInfo::default() };
            Arc::make_mut(&mut step.facts).error = Some(error);
        }
        self.open_roots = 0;
        self.set_status = Some(RunStatus::Crashed);
    }

    /// Tells whether the run has crashed behind an answer, from which another process may go on with it.
    pub fn can_reopen(&self) -> bool {
        let has_crashed = |root: &Step| root.facts.status == StepStatus::Crashed;
        self.status() == RunStatus::Crashed && self.has_answer && self.root().is_some_and(has_crashed)
    }

    /// Has a run that has crashed wait once more: the step that names it is under way again.
    pub fn reopen(&mut self) {
        let Some(place) = self.root().and_then(|root| self.by_span.get(&root.span_id)).copied() else { return };
        self.sums.take();
        let root = &mut self.steps[place];
        if root.ended_at.take().is_some() {
            self.open_roots += 1;
        }
        let facts = Arc::make_mut(&mut root.facts);
        (facts.status, facts.error) = (StepStatus::Running, None);
        (self.completed, self.set_status, self.is_pause) = (false, None, false);
    }

    /// Returns the event that began the run.
    pub fn start_event(&self) -> Option<EventId> {
        self.started.map(|(event, _)| event)
    }

    /// Returns since when the run waits, if it does.
    pub fn waits_since(&self) -> Option<UnixNanos> {
        self.waits_since.filter(|_| self.waiting_event().is_some())
    }

    /// Returns the event that waits for an answer; `None` when the run does not wait.
    pub fn waiting_event(&self) -> Option<EventId> {
        self.waiting.filter(|_| self.status() == RunStatus::Waiting)
    }

    /// Returns what the run waits for, of its events.
    pub fn waits_for<'a>(&self, events: &'a [Event]) -> Option<&'a Waiting> {
        let wait = self.waiting_event()?;
        let place = events.iter().position(|event| event.event_id == wait)?;
        let asked = |event: &'a Event| match &event.body {
            EventBody::Waiting(waiting) => Some(waiting),
            _ => None,
        };
        let is_question = |waiting: &&Waiting| waiting.reason.as_deref() != Some(Waiting::PAUSED);
        // One that has crashed behind an answer waits for what it asked last.
        asked(&events[place]).or_else(|| events[..place].iter().rev().filter_map(asked).find(is_question))
    }

    /// Tells whether the run waits for the end of a pause.
    pub fn is_paused(&self) -> bool {
        self.is_pause && self.waiting_event().is_some()
    }

    /// Returns the request for whose sake the run paused last.
    pub fn paused_by(&self) -> Option<&str> {
        self.paused_by.as_deref()
    }

    /// Returns the run that this one was started by.
    pub fn parent_run_id(&self) -> Option<RunId> {
        self.parent_run_id
    }

    /// Tells whether `run_completed` is in the log.
    pub fn is_completed(&self) -> bool {
        self.completed
    }

    /// Returns the latest timestamp seen.
    pub fn last_time(&self) -> UnixNanos {
        self.last_time
    }

    /// Tells whether the span's step began, and whether it ended.
    pub fn step_progress(&self, span: SpanId) -> (bool, bool) {
        match self.by_span.get(&span) {
            Some(&place) => (true, self.steps[place].ended_at.is_some()),
            None => (false, false),
        }
    }

    /// Returns what is known of a step that has ended, and when it did.
    pub(crate) fn ended_as(&self, span: SpanId) -> Option<(&StepFacts, UnixNanos)> {
        let step = &self.steps[*self.by_span.get(&span)?];
        Some((&step.facts, step.ended_at?))
    }

    /// Returns the digest of a step's end, where [it keeps them](Self::for_copies).
    pub(crate) fn digest_of(&self, span: SpanId) -> Option<u32> {
        self.digests.as_ref()?.get(&span).copied()
    }

    /// Returns the step's name and the event that began it.
    pub fn step_of(&self, span: SpanId) -> Option<(&str, EventId)> {
        let step = &self.steps[*self.by_span.get(&span)?];
        Some((&step.step_id, step.start_event))
    }

    /// Returns the spans of steps under way, by start.
    pub fn open_spans(&self) -> Vec<SpanId> {
        self.steps.iter().filter(|step| step.ended_at.is_none()).map(|step| step.span_id).collect()
    }

    /// Tells whether some step speaks of GenAI.
    pub(crate) fn has_genai(&self) -> bool {
        self.steps.iter().any(|step| step.facts.is_genai)
    }

    /// Returns the parent of a step, wherever that is.
    pub(crate) fn parent_of(&self, span: SpanId) -> Option<SpanId> {
        self.steps[*self.by_span.get(&span)?].parent
    }

    /// Returns the spans of all steps.
    pub fn spans(&self) -> impl Iterator<Item = SpanId> + '_ {
        self.steps.iter().map(|step| step.span_id)
    }

    /// Returns the names of steps under way, by start.
    pub fn open_steps(&self) -> Vec<String> {
        self.steps.iter().filter(|step| step.ended_at.is_none()).map(|step| step.step_id.clone()).collect()
    }

    /// Tells whether every topmost step has ended, and none of them waits for a parent that may still come.
    pub fn roots_ended(&self) -> bool {
        !self.steps.is_empty() && self.open_roots == 0 && (self.completed || !self.awaits_parent())
    }

    /// Tells whether a topmost step has a parent in its own process that has not been seen: children are told first by
    /// who tells spans when they end. A parent in another process may never come, or be another run's; that of a step which
    /// names its run and the one that started it is, and that of one that names its run may be of none: a handler of requests.
    fn awaits_parent(&self) -> bool {
        !self.awaiting.is_empty() && self.roots().any(|root| self.may_have_parent(root))
    }

    /// Tells whether every topmost step has ended, and those that wait for a parent did so within a step that has none: what lies
    /// between, which some emitters never send where a step fails, changes nothing of how that ended.
    pub(crate) fn awaits_within(&self) -> bool {
        let first = self.roots().filter(|root| root.parent.is_none()).min_by_key(|root| root.started_at);
        let is_within = |root: &Step| {
            first.is_some_and(|first| first.started_at <= root.started_at && root.ended_at <= first.ended_at)
        };
        self.open_roots == 0 && self.roots().all(|root| !self.may_have_parent(root) || is_within(root))
    }

    /// Returns the parents of topmost steps of a trace that do not name the run.
    pub(crate) fn awaited(&self, trace: TraceId) -> impl Iterator<Item = SpanId> + '_ {
        let waits = move |root: &&Step| !root.facts.names_run && root.is_of(trace);
        self.roots().filter(waits).filter_map(|root| root.parent)
    }

    /// Tells whether a step of a trace has no parent.
    pub(crate) fn has_topmost(&self, trace: TraceId) -> bool {
        self.roots().any(|root| root.parent.is_none() && root.is_of(trace))
    }

    /// Returns the spans of the steps of a trace.
    pub(crate) fn spans_of(&self, trace: TraceId) -> impl Iterator<Item = SpanId> + '_ {
        self.steps.iter().filter(move |step| step.is_of(trace)).map(|step| step.span_id)
    }

    /// Returns the parents, that have not come, of topmost steps which name their run and may be one.
    pub(crate) fn above(&self) -> impl Iterator<Item = SpanId> + '_ {
        let is_outermost = |root: &&Step| root.facts.names_run && is_named_run(root) && !root.has_remote_parent;
        self.roots().filter(is_outermost).filter_map(|root| root.parent)
    }

    /// Tells whether every topmost step has ended, and all that they wait for are these parents.
    pub(crate) fn awaits_only(&self, parents: &IdSet<SpanId>) -> bool {
        let is_known = |root: &Step| root.parent.is_some_and(|parent| parents.contains(&parent));
        // One of them is topmost for good: else all of this may be below a step that is still under way.
        self.open_roots == 0
            && self.roots().any(|root| root.parent.is_none())
            && self.roots().all(|root| is_known(root) || !self.may_have_parent(root))
    }

    /// Tells whether the parent of a topmost step may still come.
    fn may_have_parent(&self, root: &Step) -> bool {
        let is_outside = |root: &Step| {
            let parent = root.parent.is_some_and(|parent| self.elsewhere.contains(&parent));
            let is_first = self.starts_first && is_named_run(root);
            root.facts.names_run && (root.facts.parent_run_id.is_some() || is_first || parent)
        };
        root.parent.is_some() && !root.has_remote_parent && !is_outside(root)
    }

    /// Takes steps to be told when they begin, as by who records this process itself: the parent of one that names the run, and has not
    /// been told by then, is none of the run's.
    pub fn take_starts_first(&mut self, starts_first: bool) {
        self.starts_first = starts_first;
    }

    /// Takes over what another state of the run knows of spans that are not of it.
    pub fn know_elsewhere_of(&mut self, other: &Self) {
        self.elsewhere.clone_from(&other.elsewhere);
    }

    /// Notes that a span is not of this run: who names the run below it waits for it no longer.
    pub fn note_elsewhere(&mut self, span: SpanId) {
        self.elsewhere.insert(span);
    }

    /// Tells whether the span is a topmost step of the run.
    pub fn is_root(&self, span: SpanId) -> bool {
        self.by_span.get(&span).is_some_and(|place| self.roots.contains(place))
    }

    /// Makes a readable name unique in this run.
    pub fn unique_step_id(&self, base: &str) -> String {
        let mut number = self.names.get(base).copied().unwrap_or(0) + 1;
        let mut name = if number == 1 { base.to_owned() } else { format!("{base}-{number}") };
        // `chat-2` may also be a name that an emitter gave.
        while number > 1 && self.names.contains_key(&name) {
            number += 1;
            name = format!("{base}-{number}");
        }
        name
    }

    /// Returns the cause of a step's start: the model call that asked for it, else the start of the enclosing step,
    /// else the start of the run.
    pub fn cause_of_start(&self, span: &Span) -> Option<EventId> {
        let asked =
            span.attr_str(crate::conventions::names::TOOL_CALL_ID).and_then(|call| self.asked_by.get(call)).copied();
        let parent = SpanId::from_bytes(&span.parent_span_id).and_then(|parent| self.step_of(parent));
        asked.or(parent.map(|(_, event)| event)).or(self.start_event())
    }

    fn roots(&self) -> impl Iterator<Item = &Step> {
        self.roots.iter().map(|place| &self.steps[*place])
    }
}

/// What is said of a step whose process died.
pub const CRASHED_STEP: &str = "the process ended before the step did";

/// The message of the log line that tells how many records of a run were lost.
pub const DROPPED_LOG: &str = "records dropped";

/// Tells whether a step did not end well.
pub fn is_failure(status: StepStatus) -> bool {
    matches!(status, StepStatus::Error | StepStatus::Timeout | StepStatus::Cancelled | StepStatus::Crashed)
}

impl Step {
    /// Tells whether it is of a trace, as far as is known.
    fn is_of(&self, trace: TraceId) -> bool {
        self.trace_id.is_none_or(|own| own == trace)
    }
}

/// Splits `chat-2` into `chat` and 2.
fn numbered(step_id: &str) -> Option<(&str, u64)> {
    let (base, number) = step_id.rsplit_once('-')?;
    // Far from where counting on would overflow.
    Some((base, u64::from(number.parse::<u32>().ok()?)))
}

/// Holds what an event says of a file to what a summary takes; our own words for it are far shorter.
fn bounded(artifact: &ArtifactInfo) -> ArtifactInfo {
    ArtifactInfo {
        name: short(artifact.name.clone()),
        media_type: artifact.media_type.clone().map(short),
        bytes: artifact.bytes,
        sha256: short(artifact.sha256.clone()),
        content: artifact.content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Resumed, StatusChanged};

    #[test]
    fn the_times_of_waiting_add_up_and_the_one_that_lasts_is_not_among_them() {
        let mut state = RunState::new(RunId([1; 16]), RunId([1; 16]).as_trace_id());
        let mut at = |ms: u64, body: EventBody| {
            let (event_id, timestamp) = (EventId::from_parts(ms, [0; 10]), UnixNanos(ms * 1_000_000));
            let seq = state.next_seq();
            state.apply(&Event { seq, event_id, parent_event_id: None, timestamp, step_id: None, body }, false);
            state.summary(UnixNanos::default()).waited_ms
        };
        let status = |from, to| EventBody::StatusChanged(StatusChanged { from, to, reason: None });
        let waiting = |reason: &str| EventBody::Waiting(Waiting { reason: Some(reason.to_owned()), payload: None });
        let resumed = || EventBody::Resumed(Resumed { input: None, is_null: true });
        let waited = [
            // The status and what it waits for are two events of one wait.
            at(100, status(RunStatus::Running, RunStatus::Waiting)),
            at(101, waiting("approval")),
            at(350, resumed()),
            at(351, status(RunStatus::Waiting, RunStatus::Running)),
            at(400, waiting(Waiting::PAUSED)),
            at(450, resumed()),
            at(900, waiting("approval")),
        ];
        assert_eq!(waited, [0, 0, 250, 250, 250, 300, 300]);
    }
}
