//! Run assembly: what a run's events add up to.
//!
//! One fold over events serves everyone: the writer keeps its state by it, `run.yaml` is its summary, `get` its steps,
//! and a process that takes a run over from a dead one rebuilds the state by reading the log. So what is shown can
//! never differ from what is in the log.
//!
//! Totals are summed once: over model calls, each told once, and over what an enclosing span says of its tokens or its
//! cost only where nothing below says it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::model::event::{
    EventBody, LlmCalled, RunCompleted, StatusChanged, StepCompleted, StepFailed, StepStarted, ToolFailed,
    ToolRequested, ToolSucceeded, Totals,
};
use crate::model::id::{IdMap, IdSet};
use crate::model::otlp::{Resource, Scope, Span};
use crate::model::run::{ArtifactInfo, ChildStep};
use crate::model::{
    CostSource, ErrorInfo, Event, EventId, NanoUsd, RunId, RunKind, RunStatus, RunSummary, SpanId, StepKind,
    StepStatus, StepView, Tokens, TraceId, UnixNanos,
};
use crate::pipeline::facts::{MAX_WORDS, StepFacts, short};

/// Direct children listed in a workflow's summary.
const MAX_CHILDREN: usize = 200;
/// Artifacts listed in a summary.
const MAX_ARTIFACTS: usize = 200;
/// Models listed in a summary.
const MAX_MODELS: usize = 64;
/// How far above a call other layers' words for it are looked for.
const MAX_LAYERS: usize = 32;

/// What a run's events add up to so far.
#[derive(Clone, Debug)]
pub struct RunState {
    run_id: RunId,
    trace_id: TraceId,
    parent_run_id: Option<RunId>,
    replay_of: Option<RunId>,
    external_id: Option<String>,
    session_id: Option<String>,
    user_id: Option<String>,
    tags: Vec<String>,
    steps: Vec<Step>,
    by_span: IdMap<SpanId, usize>,
    /// Topmost steps: those whose parent is not in the run.
    roots: BTreeSet<usize>,
    /// How many of them are under way.
    open_roots: usize,
    /// Topmost steps by the parent that may still come.
    awaiting: IdMap<SpanId, Vec<usize>>,
    names: HashMap<String, u64>,
    /// Which model call asked for a tool call, by the call's id.
    asked_by: HashMap<String, EventId>,
    /// The first ones.
    artifacts: Vec<ArtifactInfo>,
    artifacts_total: u64,
    started: Option<(EventId, UnixNanos)>,
    /// A status that was set rather than derived: waiting, cancelled, crashed.
    set_status: Option<RunStatus>,
    waiting: bool,
    completed: bool,
    next_seq: u64,
    dropped: u64,
    last_time: UnixNanos,
}

/// A step as far as it is known; content is kept only where it is asked for.
#[derive(Clone, Debug)]
struct Step {
    step_id: String,
    span_id: SpanId,
    parent: Option<SpanId>,
    /// The parent is a step of another process.
    has_remote_parent: bool,
    start_event: EventId,
    started_at: UnixNanos,
    ended_at: Option<UnixNanos>,
    facts: StepFacts,
}

/// The places of the steps that make up a run's totals.
#[derive(Debug)]
struct Counted {
    /// Calls, each once.
    calls: Vec<usize>,
    /// Steps whose tokens are summed.
    tokens: Vec<usize>,
    /// Steps whose costs are summed.
    costs: Vec<usize>,
}

impl Counted {
    /// Returns all of them by start, each once.
    fn all(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.calls.iter().chain(&self.tokens).chain(&self.costs).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A run's totals over counted steps.
#[derive(Clone, Debug, Default)]
struct Bill {
    tokens: Option<Tokens>,
    cost: Option<NanoUsd>,
    source: Option<CostSource>,
    unpriced: u64,
    llm_calls: u64,
    models: Vec<(String, Option<String>, NanoUsd)>,
}

impl RunState {
    /// Makes the state of a run that has no events yet.
    pub fn new(run_id: RunId, trace_id: TraceId) -> Self {
        Self {
            run_id,
            trace_id,
            parent_run_id: None,
            replay_of: None,
            external_id: None,
            session_id: None,
            user_id: None,
            tags: Vec::new(),
            steps: Vec::new(),
            by_span: HashMap::default(),
            roots: BTreeSet::new(),
            open_roots: 0,
            awaiting: HashMap::default(),
            names: HashMap::default(),
            asked_by: HashMap::default(),
            artifacts: Vec::new(),
            artifacts_total: 0,
            started: None,
            set_status: None,
            waiting: false,
            completed: false,
            next_seq: 0,
            dropped: 0,
            last_time: UnixNanos::default(),
        }
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
            let facts = StepFacts::of(span, resource, scope);
            let asked = requested_tool_calls(facts.output.as_ref());
            return self.apply_step(event, asked, lean(facts, with_content));
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
            EventBody::RunCompleted(_) => self.completed = true,
            EventBody::StatusChanged(change) => {
                self.waiting = change.to == RunStatus::Waiting;
                self.set_status = match change.to {
                    RunStatus::Running | RunStatus::Waiting => None,
                    status => Some(status),
                };
            }
            EventBody::Waiting(_) => self.waiting = true,
            EventBody::Resumed(_) => self.waiting = false,
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
            _ => {}
        }
    }

    fn note(&mut self, event: &Event) {
        self.next_seq = event.seq + 1;
        self.last_time = self.last_time.max(event.timestamp);
    }

    /// Takes in the start or the end of a step, of which the facts are known already: without content, and apart from
    /// them the ids of the tool calls that the step asked for.
    pub fn apply_step(&mut self, event: &Event, asked: Vec<String>, facts: StepFacts) {
        self.note(event);
        let Some((span, _, _)) = event.body.span() else { return };
        let Some(span_id) = SpanId::from_bytes(&span.span_id) else { return };
        self.learn(&facts);
        if event.body.is_step_start() {
            if self.by_span.contains_key(&span_id) {
                return;
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
            self.steps.push(Step {
                step_id,
                span_id,
                // A span that names itself has no parent.
                parent: SpanId::from_bytes(&span.parent_span_id).filter(|parent| *parent != span_id),
                has_remote_parent: has_remote_parent(span),
                start_event: event.event_id,
                started_at: UnixNanos(span.start_time_unix_nano),
                ended_at: None,
                facts,
            });
            self.place_among_roots(place);
        } else if let Some(&place) = self.by_span.get(&span_id) {
            if matches!(event.body, EventBody::LlmCalled(_)) {
                self.asked_by.extend(asked.into_iter().map(|call| (call, event.event_id)));
            }
            let step = &mut self.steps[place];
            if step.ended_at.is_none() && self.roots.contains(&place) {
                self.open_roots -= 1;
            }
            step.started_at = UnixNanos(span.start_time_unix_nano);
            step.ended_at = Some(UnixNanos(span.end_time_unix_nano));
            step.facts = facts;
        }
    }

    /// Finds out whether a new step is topmost, and which topmost steps it is the parent of.
    fn place_among_roots(&mut self, place: usize) {
        let (span, parent) = (self.steps[place].span_id, self.steps[place].parent);
        if parent.is_none_or(|parent| !self.by_span.contains_key(&parent)) {
            self.roots.insert(place);
            self.open_roots += 1;
            if let Some(parent) = parent {
                self.awaiting.entry(parent).or_default().push(place);
            }
        }
        for child in self.awaiting.remove(&span).unwrap_or_default() {
            // In a circle of parents one of them stays topmost.
            let circle = self.ancestors(&self.steps[place]).contains(&self.steps[child].span_id);
            if !circle && self.roots.remove(&child) {
                self.open_roots -= usize::from(self.steps[child].ended_at.is_none());
            }
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
        for step in self.steps.iter_mut().filter(|step| step.ended_at.is_none()) {
            step.ended_at = Some(self.last_time.max(step.started_at));
            step.facts.status = StepStatus::Crashed;
            step.facts.error = Some(ErrorInfo { message: Some(CRASHED_STEP.to_owned()), ..ErrorInfo::default() });
        }
        self.open_roots = 0;
        self.set_status = Some(RunStatus::Crashed);
    }

    /// Returns the event that began the run.
    pub fn start_event(&self) -> Option<EventId> {
        self.started.map(|(event, _)| event)
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

    /// Returns the step's name and the event that began it.
    pub fn step_of(&self, span: SpanId) -> Option<(&str, EventId)> {
        let step = &self.steps[*self.by_span.get(&span)?];
        Some((&step.step_id, step.start_event))
    }

    /// Returns the spans of steps under way, by start.
    pub fn open_spans(&self) -> Vec<SpanId> {
        self.steps.iter().filter(|step| step.ended_at.is_none()).map(|step| step.span_id).collect()
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
    /// who tells spans when they end. A parent in another process may never come, or be another run's.
    fn awaits_parent(&self) -> bool {
        !self.awaiting.is_empty() && self.roots().any(|root| root.parent.is_some() && !root.has_remote_parent)
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

    /// Returns the step that names the run: the first topmost one, or below a plain one that has not been told to
    /// be a root the topmost agent.
    fn root(&self) -> Option<&Step> {
        let first = self.roots().min_by_key(|step| (step.started_at, step.span_id))?;
        if first.parent.is_none() || is_named_run(first) {
            return Some(first);
        }
        // The real root has not been seen: the topmost agent names the run.
        self.roots().filter(|step| is_named_run(step)).min_by_key(|step| step.started_at).or(Some(first))
    }

    /// Returns kind and name of the run, by its root.
    pub fn identity(&self) -> (RunKind, String) {
        let Some(root) = self.root() else { return (RunKind::Workflow, "unknown".to_owned()) };
        let facts = &root.facts;
        match facts.kind {
            StepKind::Agent => (RunKind::Agent, facts.agent_name.clone().unwrap_or_else(|| facts.step_name.clone())),
            StepKind::Workflow => {
                (RunKind::Workflow, facts.workflow_name.clone().unwrap_or_else(|| facts.step_name.clone()))
            }
            _ => (RunKind::Workflow, facts.name.clone()),
        }
    }

    /// Returns how the run stands.
    pub fn status(&self) -> RunStatus {
        if let Some(status) = self.set_status {
            return status;
        }
        if self.waiting {
            return RunStatus::Waiting;
        }
        if !self.roots_ended() {
            return RunStatus::Running;
        }
        let root = self.root().map_or(StepStatus::Success, |root| root.facts.status);
        match root {
            StepStatus::Error => RunStatus::Error,
            StepStatus::Timeout => RunStatus::Timeout,
            StepStatus::Cancelled => RunStatus::Cancelled,
            StepStatus::Crashed => RunStatus::Crashed,
            StepStatus::Success | StepStatus::Running => {
                if self.ended_on_a_failed_call() {
                    RunStatus::Error
                } else {
                    RunStatus::Success
                }
            }
        }
    }

    /// Tells whether the last model call failed and nothing succeeded after it: some emitters leave the root's status
    /// unset whatever happened below.
    fn ended_on_a_failed_call(&self) -> bool {
        let roots: IdSet<SpanId> = self.roots().map(|root| root.span_id).collect();
        let last_call = self.steps.iter().filter(|step| step.facts.billed).max_by_key(|step| step.ended_at);
        let Some(call) = last_call.filter(|call| is_failure(call.facts.status)) else { return false };
        let enclosing = self.ancestors(call);
        !self.steps.iter().any(|step| {
            step.facts.status == StepStatus::Success
                && step.started_at >= call.started_at
                && step.ended_at > call.ended_at
                && !roots.contains(&step.span_id)
                && !enclosing.contains(&step.span_id)
        })
    }

    fn ancestors(&self, step: &Step) -> IdSet<SpanId> {
        let mut above = HashSet::default();
        let mut parent = step.parent;
        // `insert` ends the walk when broken input makes a circle.
        while let Some(span) = parent.filter(|span| above.insert(*span)) {
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
        above
    }

    /// Returns how deep each step is, by place.
    fn depths(&self) -> Vec<u32> {
        let above = |place: usize| self.steps[place].parent.and_then(|parent| self.by_span.get(&parent)).copied();
        let mut depths: Vec<Option<u32>> = vec![None; self.steps.len()];
        let mut way = Vec::new();
        for place in 0..depths.len() {
            let mut next = Some(place);
            // A step that is on its way already is in a circle of broken input, and as good as a root.
            while let Some(step) = next.filter(|step| depths[*step].is_none()) {
                depths[step] = Some(0);
                way.push(step);
                next = above(step);
            }
            while let Some(step) = way.pop() {
                depths[step] =
                    Some(above(step).and_then(|above| depths[above]).map_or(0, |depth| depth.saturating_add(1)));
            }
        }
        depths.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Adds all above a step to a set that holds whatever is above each of its members.
    fn cover(&self, step: &Step, covered: &mut IdSet<SpanId>) {
        let mut parent = step.parent;
        while let Some(span) = parent.filter(|span| covered.insert(*span)) {
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
    }

    /// Finds steps that tell a call another step tells: the same answer id, or a model call around a model call.
    /// Returns for each such step the place of the one that counts.
    fn duplicates(&self) -> HashMap<usize, usize> {
        let calls = || self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
        let mut copies = HashMap::new();
        let mut by_answer: HashMap<&str, usize> = HashMap::default();
        for (place, step) in calls() {
            let Some(answer) = step.facts.response_id.as_deref() else { continue };
            match by_answer.get(answer).copied() {
                None => drop(by_answer.insert(answer, place)),
                // The one that knows more of the bill counts.
                Some(first) if knowledge(&self.steps[first]) < knowledge(step) => {
                    copies.insert(first, place);
                    by_answer.insert(answer, place);
                }
                Some(first) => drop(copies.insert(place, first)),
            }
        }
        for (call, report) in self.reported(&copies) {
            copies.insert(call, report);
        }
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool) {
            if let Some(outer) = self.tool_around(step) {
                copies.insert(place, outer);
            }
        }
        // Layers that tell one call: the one that knows most of the bill counts, the outermost of those that know
        // the same. Calls beside each other inside one are calls of their own.
        let nested: Vec<(usize, Vec<usize>)> = calls()
            .filter(|(place, _)| !copies.contains_key(place))
            .map(|(place, step)| (place, self.calls_around(step)))
            .map(|(place, around)| (place, around.into_iter().filter(|outer| !copies.contains_key(outer)).collect()))
            .collect();
        let mut known_better: HashMap<usize, usize> = HashMap::default();
        for &(place, ref around) in &nested {
            for &outer in around {
                let best = known_better.get(&outer).copied().unwrap_or(outer);
                if knowledge(&self.steps[place]) > knowledge(&self.steps[best]) {
                    known_better.insert(outer, place);
                }
            }
        }
        for (place, around) in nested {
            let same = |outer: &&usize| {
                !known_better.contains_key(outer) && knowledge(&self.steps[**outer]) >= knowledge(&self.steps[place])
            };
            if let Some(&better) = known_better.get(&place) {
                copies.insert(place, better);
            } else if let Some(&outermost) = around.iter().rfind(same) {
                copies.insert(place, outermost);
            }
        }
        let settled = |mut place: usize| {
            while let Some(&next) = copies.get(&place) {
                place = next;
            }
            place
        };
        copies.iter().map(|(&copy, &of)| (copy, settled(of))).collect()
    }

    /// Finds calls of which a step beside them tells what they used: a step that took no time is no call of its own but
    /// a report of the one before it, for the same model.
    fn reported(&self, copies: &HashMap<usize, usize>) -> Vec<(usize, usize)> {
        let is_report = |step: &Step| step.ended_at == Some(step.started_at) && step.facts.tokens.is_some();
        let calls = || {
            let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
            calls.filter(|(place, _)| !copies.contains_key(place))
        };
        let mut taken = HashSet::new();
        let mut reports: Vec<(usize, &Step)> = calls().filter(|(_, step)| is_report(step)).collect();
        reports.sort_by_key(|(_, step)| (step.started_at, step.span_id));
        let call_before = |report: &Step, taken: &HashSet<usize>| {
            let of = calls().filter(|(place, call)| {
                call.parent == report.parent
                    && call.facts.kind == report.facts.kind
                    && asked(&call.facts) == asked(&report.facts)
                    && call.facts.tokens.is_none()
                    && call.facts.response_id.is_none()
                    && !is_failure(call.facts.status)
                    && call.ended_at.is_some_and(|end| end <= report.started_at)
                    && !taken.contains(place)
            });
            of.max_by_key(|(_, call)| (call.ended_at, call.span_id)).map(|(place, _)| place)
        };
        let mut found = Vec::new();
        for (place, report) in reports {
            if let Some(call) = call_before(report, &taken) {
                taken.insert(call);
                found.push((call, place));
            }
        }
        found
    }

    /// Finds the tool call around a step that is another layer's word for it: a tool of the same name, or a plain step
    /// with the same id of the call.
    fn tool_around(&self, step: &Step) -> Option<usize> {
        let mut parent = step.parent;
        for _ in 0..MAX_LAYERS {
            let place = parent.and_then(|parent| self.by_span.get(&parent)).copied()?;
            let outer = &self.steps[place];
            match outer.facts.kind {
                StepKind::Tool => return is_same_tool_call(&outer.facts, &step.facts).then_some(place),
                StepKind::Task => parent = outer.parent,
                _ => return None,
            }
        }
        None
    }

    /// Finds for each tool call the step below it that tells how it ended, where it does not itself: by place.
    fn executions(&self) -> HashMap<usize, usize> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            if !matches!(step.facts.kind, StepKind::Tool | StepKind::Task) || step.ended_at.is_none() {
                continue;
            }
            let Some(tool) = self.tool_around(step) else { continue };
            let key = |place: &usize| (self.steps[*place].ended_at, self.steps[*place].span_id);
            let latest = last.entry(tool).or_insert(place);
            if key(latest) < key(&place) {
                *latest = place;
            }
        }
        last.retain(|tool, execution| {
            let (tool, execution) = (&self.steps[*tool].facts, &self.steps[*execution].facts);
            tool.status == StepStatus::Success && is_failure(execution.status)
        });
        last
    }

    /// Returns the calls that may be other layers' words for this one: around it, of its kind, with at most plain
    /// steps between and not another answer; the innermost first.
    fn calls_around(&self, step: &Step) -> Vec<usize> {
        let mut found = Vec::new();
        let mut parent = step.parent;
        for _ in 0..MAX_LAYERS {
            let Some(&place) = parent.and_then(|parent| self.by_span.get(&parent)) else { break };
            let outer = &self.steps[place];
            if outer.facts.kind == step.facts.kind {
                if outer.facts.response_id.is_none() || step.facts.response_id.is_none() {
                    found.push(place);
                }
            } else if outer.facts.kind != StepKind::Task {
                break;
            }
            parent = outer.parent;
        }
        found
    }

    /// Returns the places of the steps that count.
    fn counted(&self, copies: &HashMap<usize, usize>) -> Counted {
        let calls: Vec<usize> = (0..self.steps.len())
            .filter(|place| self.steps[*place].facts.billed && !copies.contains_key(place))
            .collect();
        let tokens = self.tellers(copies, |facts| facts.tokens.is_some());
        let costs = self.tellers(copies, |facts| facts.cost.is_some());
        Counted { calls, tokens, costs }
    }

    /// Returns the ended calls that count, and the ended steps that are none and whose tokens count.
    pub fn billing(&self) -> (Vec<SpanId>, Vec<SpanId>) {
        let counted = self.counted(&self.duplicates());
        let ended = |places: Vec<usize>| {
            let steps = places.into_iter().map(|place| &self.steps[place]);
            steps.filter(|step| step.ended_at.is_some()).map(|step| step.span_id).collect()
        };
        let tellers = counted.tokens.into_iter().filter(|place| !self.steps[*place].facts.billed).collect();
        (ended(counted.calls), ended(tellers))
    }

    /// Returns the places of the steps that tell something of the bill, each part of it once: calls, and what encloses
    /// or is none, the innermost, where nothing below tells it.
    fn tellers(&self, copies: &HashMap<usize, usize>, tells: impl Fn(&StepFacts) -> bool) -> Vec<usize> {
        let mut covered: IdSet<SpanId> = HashSet::default();
        let (mut counted, mut others) = (Vec::new(), Vec::new());
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| tells(&step.facts)) {
            if !step.facts.billed {
                others.push((place, self.ancestors(step)));
                continue;
            }
            self.cover(step, &mut covered);
            if !copies.contains_key(&place) {
                counted.push(place);
            }
        }
        others.sort_by_key(|(_, above)| std::cmp::Reverse(above.len()));
        for (place, above) in others {
            if !covered.contains(&self.steps[place].span_id) {
                counted.push(place);
                covered.extend(above);
            }
        }
        counted.sort_unstable();
        counted
    }

    fn bill(&self, counted: &Counted) -> Bill {
        let mut bill = Bill { unpriced: self.unpriced(counted), ..Bill::default() };
        let mut sources = HashSet::new();
        bill.llm_calls =
            counted.calls.iter().filter(|place| self.steps[**place].facts.kind == StepKind::Llm).count() as u64;
        for &place in &counted.tokens {
            let tokens = self.steps[place].facts.tokens.unwrap_or_default();
            bill.tokens = Some(bill.tokens.unwrap_or_default().plus(tokens.with_total()));
        }
        let mut cost_at: HashMap<usize, NanoUsd> = HashMap::default();
        for &place in &counted.costs {
            let Some((cost, source)) = self.steps[place].facts.cost else { continue };
            sources.insert(source);
            cost_at.insert(place, cost);
            bill.cost = Some(bill.cost.unwrap_or_default() + cost);
        }
        let answered = self.answering_models();
        let mut place_of: HashMap<&str, usize> = HashMap::new();
        for place in counted.all() {
            let facts = &self.steps[place].facts;
            let Some(model) = known_model(facts, &answered) else { continue };
            let cost = cost_at.get(&place).copied().unwrap_or_default();
            let of_model = *place_of.entry(model).or_insert_with(|| {
                bill.models.push((model.to_owned(), facts.provider.clone(), NanoUsd::default()));
                bill.models.len() - 1
            });
            bill.models[of_model].2 = bill.models[of_model].2 + cost;
        }
        bill.source = match (sources.len(), sources.iter().next()) {
            (0, _) => None,
            (1, Some(source)) => Some(*source),
            _ => Some(CostSource::Mixed),
        };
        bill
    }

    /// Counts ended steps that used something of which nobody knows what it cost.
    fn unpriced(&self, counted: &Counted) -> u64 {
        let told: HashSet<usize> = counted.costs.iter().copied().collect();
        let mut priced_below: IdSet<SpanId> = HashSet::default();
        let mut told_above: IdSet<SpanId> = HashSet::default();
        for &place in &counted.costs {
            if self.steps[place].facts.billed {
                priced_below.extend(self.ancestors(&self.steps[place]));
            }
        }
        for &place in counted.tokens.iter().chain(&counted.costs) {
            let step = &self.steps[place];
            if !step.facts.billed {
                told_above.insert(step.span_id);
            }
        }
        let is_unpriced = |place: &usize| {
            let step = &self.steps[*place];
            let facts = &step.facts;
            !told.contains(place)
                && facts.status != StepStatus::Running
                && (facts.tokens.is_some() || !is_failure(facts.status))
                && !priced_below.contains(&step.span_id)
                && (told_above.is_empty() || self.ancestors(step).is_disjoint(&told_above))
        };
        counted.all().into_iter().filter(is_unpriced).count() as u64
    }

    /// Returns by provider and requested model the model that answered first.
    fn answering_models(&self) -> HashMap<Asked<'_>, &str> {
        let mut models = HashMap::default();
        for facts in self.steps.iter().map(|step| &step.facts) {
            if let Some(model) = facts.response_model.as_deref() {
                models.entry(asked(facts)).or_insert(model);
            }
        }
        models
    }

    /// Counts failures, each once: a step that failed because a step below it did is the same failure.
    fn errors(&self, copies: &HashMap<usize, usize>) -> u64 {
        let executions = self.executions();
        let is_failed = |place: &usize| is_failure(self.steps[*place].facts.status) || executions.contains_key(place);
        let failed: Vec<usize> =
            (0..self.steps.len()).filter(|place| is_failed(place) && !copies.contains_key(place)).collect();
        let mut passed_on: IdSet<SpanId> = HashSet::default();
        for &place in &failed {
            self.cover(&self.steps[place], &mut passed_on);
        }
        failed.iter().filter(|place| !passed_on.contains(&self.steps[**place].span_id)).count() as u64
    }

    fn error(&self, status: RunStatus) -> Option<ErrorInfo> {
        if !matches!(status, RunStatus::Error | RunStatus::Timeout | RunStatus::Cancelled | RunStatus::Crashed) {
            return None;
        }
        let root = self.root()?;
        // The innermost failed step that ended last says most about why.
        let culprit = self
            .steps
            .iter()
            .filter(|step| is_failure(step.facts.status))
            .max_by_key(|step| (self.ancestors(step).len(), step.ended_at));
        if status == RunStatus::Crashed {
            return Some(ErrorInfo {
                kind: Some("crashed".to_owned()),
                message: Some("the process ended while the run was under way".to_owned()),
                step_id: culprit.map(|step| step.step_id.clone()),
            });
        }
        // The root often passes on what went wrong below it; then the step below is the one to look at.
        let passes_on = |own: &ErrorInfo, below: &ErrorInfo| {
            let same_kind = own.kind.is_some() && own.kind == below.kind;
            let told = own.message.as_deref().zip(below.message.as_deref());
            same_kind || told.is_some_and(|(own, below)| own.contains(below))
        };
        let own = root.facts.error.clone().filter(|error| error.kind.is_some() || error.message.is_some());
        let below = culprit.and_then(|step| step.facts.error.clone());
        let names_culprit = own.as_ref().zip(below.as_ref()).is_none_or(|(own, below)| passes_on(own, below));
        let mut error = own.or(below).unwrap_or_default();
        error.step_id = culprit.filter(|_| names_culprit).or(Some(root)).map(|step| step.step_id.clone());
        Some(error)
    }

    fn ended_at(&self) -> Option<UnixNanos> {
        self.steps.iter().filter_map(|step| step.ended_at).max()
    }

    fn started_at(&self) -> UnixNanos {
        let first = self.steps.iter().map(|step| step.started_at).min();
        first.or(self.started.map(|(_, at)| at)).unwrap_or_default()
    }

    /// Returns what the run took so far.
    pub fn totals(&self) -> Totals {
        let copies = self.duplicates();
        let bill = self.bill(&self.counted(&copies));
        let over = !self.status().is_open();
        Totals {
            duration_ms: self.ended_at().filter(|_| over).map(|end| end.millis_since(self.started_at())),
            tokens: bill.tokens,
            cost_usd: bill.cost,
            cost_source: bill.source,
            steps_total: self.steps.len() as u64,
            llm_calls: bill.llm_calls,
            tool_calls: self.tool_calls(&copies),
            errors: self.errors(&copies),
        }
    }

    fn tool_calls(&self, copies: &HashMap<usize, usize>) -> u64 {
        let tools = self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool);
        tools.filter(|(place, _)| !copies.contains_key(place)).count() as u64
    }

    /// Returns `run_completed` for a run of which nothing more is waited for.
    pub fn ended_completion(&self) -> RunCompleted {
        Self { completed: true, ..self.clone() }.completion()
    }

    /// Returns `run_completed` for the run as it stands.
    pub fn completion(&self) -> RunCompleted {
        let status = self.status();
        RunCompleted { status, totals: self.totals(), error: self.error(status) }
    }

    /// Returns the run's summary as of `now`.
    pub fn summary(&self, now: UnixNanos) -> RunSummary {
        let copies = self.duplicates();
        let counted = self.counted(&copies);
        let bill = self.bill(&counted);
        let status = self.status();
        let (kind, name) = self.identity();
        let is_workflow = kind == RunKind::Workflow;
        let started_at = self.started_at();
        let completed_at = self.ended_at().filter(|_| !status.is_open());
        let duration_ms = completed_at.map(|end| end.millis_since(started_at));
        let dearest = bill.models.iter().rev().max_by_key(|(_, _, cost)| *cost);
        RunSummary {
            format: super::FORMAT,
            run_id: self.run_id,
            kind,
            agent_id: (!is_workflow).then(|| name.clone()),
            workflow_id: is_workflow.then_some(name),
            session_id: self.session_id.clone(),
            user_id: self.user_id.clone(),
            parent_run_id: self.parent_run_id,
            replay_of: self.replay_of,
            external_id: self.external_id.clone(),
            tags: self.tags.clone(),
            trace_id: self.trace_id,
            status,
            started_at,
            completed_at,
            duration_ms,
            total_duration_ms: duration_ms.filter(|_| is_workflow),
            cost_usd: bill.cost,
            total_cost_usd: bill.cost.filter(|_| is_workflow),
            cost_source: bill.source,
            unpriced_steps: bill.unpriced,
            provider: dearest.and_then(|(_, provider, _)| provider.clone()),
            model: dearest.map(|(model, _, _)| model.clone()),
            models: if bill.models.len() > 1 {
                bill.models.iter().take(MAX_MODELS).map(|(model, _, _)| model.clone()).collect()
            } else {
                Vec::new()
            },
            tokens: bill.tokens,
            steps_total: self.steps.len() as u64,
            llm_calls: bill.llm_calls,
            tool_calls: self.tool_calls(&copies),
            errors: self.errors(&copies),
            events: self.next_seq,
            dropped: self.dropped,
            artifacts: self.artifacts.clone(),
            artifacts_total: Some(self.artifacts_total).filter(|total| *total > MAX_ARTIFACTS as u64),
            error: self.error(status),
            writer: None,
            pinned: false,
            updated_at: now,
            steps: is_workflow.then(|| self.children(&counted)),
        }
    }

    fn children(&self, counted: &Counted) -> Vec<ChildStep> {
        let Some(root) = self.root() else { return Vec::new() };
        let mut cost_of: IdMap<SpanId, NanoUsd> = HashMap::default();
        for &place in &counted.costs {
            let step = &self.steps[place];
            let Some((cost, _)) = step.facts.cost else { continue };
            for span in self.ancestors(step).into_iter().chain([step.span_id]) {
                let sum = cost_of.entry(span).or_default();
                *sum = *sum + cost;
            }
        }
        let mut children: Vec<&Step> = self.steps.iter().filter(|step| step.parent == Some(root.span_id)).collect();
        children.sort_by_key(|step| step.started_at);
        children
            .into_iter()
            .take(MAX_CHILDREN)
            .map(|step| ChildStep {
                step_id: step.step_id.clone(),
                agent_id: step.facts.agent_name.clone().filter(|_| step.facts.kind == StepKind::Agent),
                status: step.facts.status,
                duration_ms: step.ended_at.map(|end| end.millis_since(step.started_at)),
                cost_usd: cost_of.get(&step.span_id).copied(),
            })
            .collect()
    }

    /// Returns all steps by start, as `get` shows them.
    pub fn step_views(&self) -> Vec<StepView> {
        let (copies, executions) = (self.duplicates(), self.executions());
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        // What encloses a step comes before it, where both began in the same moment of a coarse clock.
        let depths = self.depths();
        order.sort_by_key(|&place| (self.steps[place].started_at, depths[place], place));
        order
            .into_iter()
            .map(|place| {
                let step = &self.steps[place];
                let facts = &step.facts;
                let ended = executions.get(&place).map_or(facts, |execution| &self.steps[*execution].facts);
                StepView {
                    step_id: step.step_id.clone(),
                    span_id: step.span_id,
                    parent_span_id: step.parent,
                    kind: facts.kind,
                    name: facts.name.clone(),
                    agent_id: facts.agent_name.clone(),
                    status: ended.status,
                    started_at: step.started_at,
                    duration_ms: step.ended_at.map(|end| duration_ms(step.started_at, end)),
                    provider: facts.provider.clone(),
                    model: facts.model().map(str::to_owned),
                    tokens: facts.tokens.map(Tokens::with_total),
                    cost_usd: facts.cost.map(|(cost, _)| cost),
                    cost_source: facts.cost.map(|(_, source)| source),
                    error: ended.error.clone(),
                    input: facts.input.clone(),
                    output: facts.output.clone(),
                    duplicate_of: copies.get(&place).map(|of| self.steps[*of].step_id.clone()),
                }
            })
            .collect()
    }
}

/// Tells whether a span's parent is in another process: by its flags, else by its kind, for a server's or consumer's is.
fn has_remote_parent(span: &Span) -> bool {
    span.flags & 0x200 != 0 || matches!(span.kind, 2 | 5)
}

/// What is said of a step whose process died.
pub const CRASHED_STEP: &str = "the process ended before the step did";

/// The message of the log line that tells how many records of a run were lost.
pub const DROPPED_LOG: &str = "records dropped";

/// Makes the event body for a step's start.
pub fn started_body(span: Span, facts: &StepFacts, resource: Option<Arc<Resource>>, scope: Option<Scope>) -> EventBody {
    if facts.kind == StepKind::Tool {
        EventBody::ToolRequested(Box::new(ToolRequested {
            tool_name: facts.tool_name.clone().unwrap_or_else(|| facts.step_name.clone()),
            tool_args: facts.tool_args.clone(),
            agent_id: facts.agent_name.clone(),
            span,
            resource,
            scope,
        }))
    } else {
        EventBody::StepStarted(Box::new(StepStarted {
            kind: facts.kind,
            name: facts.name.clone(),
            agent_id: facts.agent_name.clone(),
            input: facts.input.clone(),
            span,
            resource,
            scope,
        }))
    }
}

/// Makes the event body for a step's end.
pub fn ended_body(span: Span, facts: StepFacts, resource: Option<Arc<Resource>>, scope: Option<Scope>) -> EventBody {
    let agent_id = facts.agent_name.clone();
    let status = facts.status;
    let length = duration_ms(UnixNanos(span.start_time_unix_nano), UnixNanos(span.end_time_unix_nano));
    let duration_ms = Some(length);
    let (cost_usd, cost_source) = facts.cost.unzip();
    let model = facts.model().map(str::to_owned);
    let tokens = facts.tokens.map(Tokens::with_total);
    let failed = is_failure(status);
    let error = facts.error;
    match facts.kind {
        StepKind::Llm => EventBody::LlmCalled(Box::new(LlmCalled {
            name: facts.name,
            provider: facts.provider,
            model,
            system_prompt: facts.system_prompt,
            messages: facts.messages,
            output: facts.output,
            tokens,
            cost_usd,
            cost_source,
            agent_id,
            status,
            duration_ms,
            error,
            span,
            resource,
            scope,
        })),
        StepKind::Tool => {
            let tool_name = facts.tool_name.unwrap_or(facts.step_name);
            let (tool_args, result) = (facts.tool_args, facts.tool_result);
            if failed {
                EventBody::ToolFailed(Box::new(ToolFailed {
                    tool_name,
                    tool_args,
                    result,
                    agent_id,
                    status,
                    duration_ms,
                    error,
                    span,
                    resource,
                    scope,
                }))
            } else {
                EventBody::ToolSucceeded(Box::new(ToolSucceeded {
                    tool_name,
                    tool_args,
                    result,
                    agent_id,
                    status,
                    duration_ms,
                    error,
                    span,
                    resource,
                    scope,
                }))
            }
        }
        kind => {
            macro_rules! step {
                ($variant:ident) => {
                    EventBody::$variant(Box::new($variant {
                        kind,
                        name: facts.name,
                        input: facts.input,
                        output: facts.output,
                        tokens,
                        cost_usd,
                        cost_source,
                        agent_id,
                        status,
                        duration_ms,
                        error,
                        span,
                        resource,
                        scope,
                    }))
                };
            }
            if failed { step!(StepFailed) } else { step!(StepCompleted) }
        }
    }
}

/// Makes the event body for a change of status.
pub fn status_body(from: RunStatus, to: RunStatus, reason: &str) -> EventBody {
    EventBody::StatusChanged(StatusChanged { from, to, reason: Some(reason.to_owned()) })
}

/// What was asked for: provider and model.
type Asked<'a> = (Option<&'a str>, Option<&'a str>);

fn asked(facts: &StepFacts) -> Asked<'_> {
    (facts.provider.as_deref(), facts.request_model.as_deref())
}

/// Returns the model of a call; for one without an answer the model that answered the same request elsewhere in the
/// run, so that `gpt-4o` and `gpt-4o-2024-08-06` are not taken for two.
fn known_model<'a>(facts: &'a StepFacts, answered: &HashMap<Asked<'a>, &'a str>) -> Option<&'a str> {
    facts.response_model.as_deref().or_else(|| answered.get(&asked(facts)).copied()).or(facts.model())
}

/// How much a call knows of its bill; of two that know the same, the one that spoke to the server knows better.
fn knowledge(step: &Step) -> u8 {
    let facts = &step.facts;
    4 * u8::from(facts.tokens.is_some()) + 2 * u8::from(facts.cost.is_some()) + u8::from(facts.is_at_wire)
}

/// Tells whether two layers speak of one call of a tool: by its id, else by the tool's name.
fn is_same_tool_call(outer: &StepFacts, inner: &StepFacts) -> bool {
    match (&outer.tool_call_id, &inner.tool_call_id) {
        (Some(outer), Some(inner)) => outer == inner,
        _ => inner.kind == StepKind::Tool && outer.tool_name.is_some() && outer.tool_name == inner.tool_name,
    }
}

/// Tells whether a step did not end well.
pub fn is_failure(status: StepStatus) -> bool {
    matches!(status, StepStatus::Error | StepStatus::Timeout | StepStatus::Cancelled | StepStatus::Crashed)
}

fn is_named_run(step: &Step) -> bool {
    matches!(step.facts.kind, StepKind::Agent | StepKind::Workflow)
}

/// Milliseconds with microsecond precision, 0 for a span that ends before it starts.
fn duration_ms(start: UnixNanos, end: UnixNanos) -> f64 {
    (end.0.saturating_sub(start.0) / 1_000) as f64 / 1_000.0
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

/// Drops what only readers need, so that a long run stays small in its writer's memory.
fn lean(mut facts: StepFacts, with_content: bool) -> StepFacts {
    facts.system_prompt = None;
    facts.messages = None;
    facts.tool_args = None;
    facts.tool_result = None;
    if !with_content {
        facts.input = None;
        facts.output = None;
    }
    facts
}

/// Finds the ids of the tool calls in a model's answer: message parts of type `tool_call`.
pub(crate) fn requested_tool_calls(output: Option<&serde_json::Value>) -> Vec<String> {
    let messages = output.and_then(serde_json::Value::as_array).into_iter().flatten();
    let parts = messages.filter_map(|message| message.get("parts")?.as_array()).flatten();
    parts
        .filter(|part| part.get("type").and_then(serde_json::Value::as_str) == Some("tool_call"))
        .filter_map(|part| Some(part.get("id")?.as_str()?.to_owned()))
        .collect()
}
