//! A stored run, read as what its models and tools were asked and answered.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value as Json;

use super::answer::{self, Gap, Outcome};
use super::matching::Replay;
use super::request::{Request, comparable};
use crate::conventions::names;
use crate::error::Error;
use crate::model::event::RunStarted;
use crate::model::otlp::{Span, Value};
use crate::model::{
    ErrorInfo, Event, EventBody, EventId, RunId, RunSummary, SpanId, StepKind, StepStatus, StepView, Tokens, UnixNanos,
};
use crate::pipeline::facts::StepFacts;
use crate::recovery;
use crate::store::assembly::{RunState, ended_body, started_body};
use crate::store::family::Tree;
use crate::store::files::layout::find_store;
use crate::store::{RunReader, StoreError};

/// A recorded run: its calls of models and of tools, each once, in the order in which they began.
///
/// A run that another started is part of it: the calls of a program that `runspan exec` ran may be told in the program's own
/// run.
#[derive(Clone, Debug)]
pub struct Recording {
    run: RunSummary,
    calls: Vec<ModelCall>,
    tools: Vec<ToolCall>,
    /// All steps, with how many calls of models began until then.
    steps: Vec<(RunId, String, usize)>,
    /// What the root step says of a command.
    root: Option<Span>,
}

/// A recorded call of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelCall {
    /// The run that it is in: the recorded one, or one below it.
    pub run_id: RunId,
    /// The step.
    pub step_id: String,
    /// A model call or an embedding.
    pub kind: StepKind,
    /// Who served the model.
    pub provider: Option<String>,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Result<Outcome, Gap>,
    /// What it used.
    pub tokens: Option<Tokens>,
    started_at: UnixNanos,
    response_id: Option<String>,
    span: Span,
}

/// A recorded call of a tool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The run that it is in: the recorded one, or one below it.
    pub run_id: RunId,
    /// The step.
    pub step_id: String,
    /// The tool.
    pub name: String,
    /// What it was given.
    pub arguments: Json,
    /// What it gave back.
    pub outcome: Result<Result<Json, ErrorInfo>, Gap>,
    started_at: UnixNanos,
    span: Span,
}

/// A run with its events.
struct Told {
    run: RunSummary,
    events: Vec<Event>,
}

impl Recording {
    /// Opens a run of the store that is found from here: that of `RUNSPAN_STORE`, else the nearest `.runspan`. `id` is a run
    /// id, the beginning of one, a trace id, or `latest`.
    ///
    /// # Errors
    ///
    /// When there is no store or no such run, or it cannot be read.
    pub fn open(id: &str) -> Result<Self, Error> {
        let here = std::env::current_dir().unwrap_or_default();
        Self::open_in(find_store(None, &here), id)
    }

    /// Opens a run of the store at `path`.
    ///
    /// # Errors
    ///
    /// When there is no store or no such run, or it cannot be read.
    pub fn open_in(path: impl AsRef<Path>, id: &str) -> Result<Self, Error> {
        let (reader, _) = recovery::open(path.as_ref())?;
        Ok(Self::read(&reader, reader.resolve(id)?)?)
    }

    /// Reads a run of any store.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(reader: &impl RunReader, run: RunId) -> Result<Self, StoreError> {
        let own = Told { run: reader.get_run(run)?, events: reader.get_events(run, 0)? };
        // A repetition that was started from within is not what is repeated.
        let tree = Tree::read(reader, run)?.without(|below| below.replay_of.is_some() && below.run_id != run);
        let below = tree.from(run).filter(|below| below.run_id != run).map(|below| {
            let events = reader.get_events(below.run_id, 0)?;
            Ok(Told { run: below.clone(), events })
        });
        let told = std::iter::once(Ok(own)).chain(below).collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Self::of(told))
    }

    /// Reads a run's log, `events.jsonl`, as text: kept beside a test, say.
    ///
    /// # Errors
    ///
    /// What of it is no event, by line.
    pub fn parse(log: &str) -> Result<Self, String> {
        let mut events: Vec<Event> = Vec::new();
        for (at, line) in log.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let event = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))?;
            events.push(event);
        }
        let started = events.iter().find_map(|event| match &event.body {
            EventBody::RunStarted(_) => Some(event.timestamp),
            _ => None,
        });
        let Some(started) = started else { return Err("it does not tell of a run's start".to_owned()) };
        // A log does not name its run.
        let run = RunId::fresh(started);
        let run = RunState::read(run, &events).summary(started);
        Ok(Self::of(vec![Told { run, events }]))
    }

    fn of(told: Vec<Told>) -> Self {
        let mut calls = Vec::new();
        let mut tools = Vec::new();
        let mut steps = Vec::new();
        let mut root = None;
        for Told { run, events } in &told {
            let spans = spans_of(events);
            let views = RunState::read(run.run_id, events).step_views();
            let views = apart(views, &spans);
            let copies = copies_of(&views);
            if root.is_none() {
                root = views.iter().filter_map(|view| spans.get(&view.span_id)).find(|span| is_command(span)).cloned();
            }
            for view in &views {
                steps.push((view.started_at, run.run_id, view.step_id.clone()));
                if view.duplicate_of.is_some() {
                    continue;
                }
                match view.kind {
                    StepKind::Llm | StepKind::Embedding => calls.extend(model_call(run.run_id, view, &copies, &spans)),
                    StepKind::Tool => tools.extend(tool_call(run.run_id, view, &spans)),
                    _ => {}
                }
            }
        }
        calls.sort_by_key(|call| call.started_at);
        let calls = each_once(calls);
        tools.sort_by_key(|tool| tool.started_at);
        steps.sort_by_key(|(started_at, ..)| *started_at);
        let until = |at: UnixNanos| calls.partition_point(|call| call.started_at <= at);
        let steps = steps.into_iter().map(|(at, run, step)| (run, step, until(at))).collect();
        let mut told = told;
        Self { run: told.swap_remove(0).run, calls, tools, steps, root }
    }

    /// Returns the run.
    pub fn run(&self) -> &RunSummary {
        &self.run
    }

    /// Returns its calls of models, in the order in which they began.
    pub fn calls(&self) -> &[ModelCall] {
        &self.calls
    }

    /// Returns its calls of tools, in the order in which they began.
    pub fn tools(&self) -> &[ToolCall] {
        &self.tools
    }

    /// Returns the calls that it has no answer to, each with the reason.
    pub fn gaps(&self) -> impl Iterator<Item = (&ModelCall, Gap)> {
        self.calls.iter().filter_map(|call| Some((call, call.outcome.as_ref().err().copied()?)))
    }

    /// Returns how many calls of models had begun when a step had, this one among them; `None` when there is no such step.
    pub fn calls_until(&self, step_id: &str) -> Option<usize> {
        let of_run = self.steps.iter().find(|(run, step, _)| *run == self.run.run_id && step == step_id);
        of_run.or_else(|| self.steps.iter().find(|(_, step, _)| step == step_id)).map(|(.., calls)| *calls)
    }

    /// Returns the step that tells of the command whose run it is, as `runspan exec` wrote it.
    pub fn command(&self) -> Option<&Span> {
        self.root.as_ref()
    }

    /// Writes its calls as a log that [`parse`](Self::parse) reads: what was asked and answered, and nothing else of the run.
    /// Calls that it has no answer to are left out.
    pub fn log(&self) -> String {
        let mut events = Vec::new();
        let mut push = |at: UnixNanos, step_id: Option<&str>, body: EventBody| {
            let event = Event {
                seq: events.len() as u64,
                event_id: EventId::fresh(at),
                parent_event_id: None,
                timestamp: at,
                step_id: step_id.map(str::to_owned),
                body,
            };
            events.push(event);
        };
        let run = &self.run;
        let started = RunStarted {
            kind: run.kind,
            name: run.name().to_owned(),
            trace_id: run.trace_id,
            parent_run_id: None,
            session_id: None,
            user_id: None,
            tags: Vec::new(),
            input: None,
        };
        push(run.started_at, None, EventBody::RunStarted(Box::new(started)));
        let calls = self.calls.iter().filter(|call| call.outcome.is_ok());
        let calls = calls.map(|call| (call.started_at, &call.step_id, &call.span));
        let tools = self
            .tools
            .iter()
            .filter(|tool| tool.outcome.is_ok())
            .map(|tool| (tool.started_at, &tool.step_id, &tool.span));
        let mut all: Vec<_> = calls.chain(tools).collect();
        all.sort_by_key(|(at, ..)| *at);
        for (at, step_id, span) in all {
            let span = lean(span);
            let facts = StepFacts::of(&span, None, None);
            push(at, Some(step_id), started_body(span.clone(), &facts, &facts.content, None, None));
            if facts.status != StepStatus::Running {
                let at = UnixNanos(span.end_time_unix_nano);
                push(at, Some(step_id), ended_body(span, &facts, *facts.content.clone(), None, None));
            }
        }
        let lines = events.iter().filter_map(|event| serde_json::to_string(event).ok());
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Begins to answer from it.
    pub fn replay(&self) -> Replay {
        Replay::new(self.clone())
    }
}

/// Leaves of a span what a call is read from.
fn lean(span: &Span) -> Span {
    const KEPT: &[&str] = &["error.type", "http.response.status_code"];
    let is_kept = |key: &str| key.starts_with("gen_ai.") || key.starts_with("runspan.") || KEPT.contains(&key);
    let attributes = span.attributes.iter().filter(|attribute| {
        let key = attribute.key.as_str();
        is_kept(key) && !key.starts_with(names::ORIGINAL_PREFIX) && key != names::ADDED
    });
    Span { attributes: attributes.cloned().collect(), events: Vec::new(), links: Vec::new(), ..span.clone() }
}

fn is_command(span: &Span) -> bool {
    span.attr(names::COMMAND_ARGS).is_some()
}

/// Returns what was told last of each step.
fn spans_of(events: &[Event]) -> HashMap<SpanId, Span> {
    let mut spans = HashMap::new();
    for (span, ..) in events.iter().filter_map(|event| event.body.span()) {
        if let Some(id) = SpanId::from_bytes(&span.span_id) {
            spans.insert(id, span.clone());
        }
    }
    spans
}

/// Takes calls that were seen on their way for calls of their own: each was asked for, also where a server gives all answers one
/// id, or the same answer again.
fn apart(mut views: Vec<StepView>, spans: &HashMap<SpanId, Span>) -> Vec<StepView> {
    let is_relayed = |view: &StepView| {
        spans.get(&view.span_id).and_then(|span| span.attr(names::RELAYED)) == Some(&Value::Bool(true))
    };
    let relayed: HashSet<String> =
        views.iter().filter(|view| is_relayed(view)).map(|view| view.step_id.clone()).collect();
    for view in views.iter_mut().filter(|view| relayed.contains(&view.step_id)) {
        view.duplicate_of = view.duplicate_of.take().filter(|of| !relayed.contains(of));
    }
    views
}

/// Returns the steps that tell what another tells, by that one's name.
fn copies_of(views: &[StepView]) -> HashMap<&str, Vec<&StepView>> {
    let mut copies: HashMap<&str, Vec<&StepView>> = HashMap::new();
    for copy in views {
        if let Some(of) = &copy.duplicate_of {
            copies.entry(of).or_default().push(copy);
        }
    }
    copies
}

/// Reads a model call, from the one of its copies that knows most of what was said.
fn model_call(
    run_id: RunId,
    view: &StepView,
    copies: &HashMap<&str, Vec<&StepView>>,
    spans: &HashMap<SpanId, Span>,
) -> Option<ModelCall> {
    let copies = copies.get(view.step_id.as_str()).into_iter().flatten().copied();
    let told = [view].into_iter().chain(copies.filter(|copy| copy.kind == view.kind)).filter_map(|copy| {
        let span = spans.get(&copy.span_id)?;
        let facts = StepFacts::of(span, None, None);
        let request = Request::of_span(span);
        let outcome = answer::outcome(span, &facts, copy.status);
        // Of those that know both the one that saw the request itself says it best.
        let knows = (outcome.is_ok(), request.is_known(), facts.is_relayed, facts.is_at_wire);
        Some((knows, request, outcome, facts, span))
    });
    // The first of equals: the one that counts.
    let best = told.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let (_, request, outcome, facts, span) = best?;
    Some(ModelCall {
        run_id,
        step_id: view.step_id.clone(),
        kind: view.kind,
        provider: view.provider.clone(),
        request,
        outcome,
        tokens: view.tokens.or(facts.tokens),
        started_at: view.started_at,
        response_id: facts.response_id,
        span: span.clone(),
    })
}

/// Leaves out what the run of a program tells of calls that its command's run tells, too: by the id of the answer.
fn each_once(calls: Vec<ModelCall>) -> Vec<ModelCall> {
    let mut kept: Vec<ModelCall> = Vec::with_capacity(calls.len());
    let mut by_answer: HashMap<String, usize> = HashMap::new();
    for call in calls {
        let same = call.response_id.as_ref().and_then(|id| by_answer.get(id)).copied();
        match same {
            Some(at) if kept[at].run_id != call.run_id => {
                if kept[at].outcome.is_err() && call.outcome.is_ok() {
                    kept[at] = call;
                }
            }
            _ => {
                if let Some(id) = &call.response_id {
                    by_answer.insert(id.clone(), kept.len());
                }
                kept.push(call);
            }
        }
    }
    kept
}

fn tool_call(run_id: RunId, view: &StepView, spans: &HashMap<SpanId, Span>) -> Option<ToolCall> {
    let span = spans.get(&view.span_id)?;
    let facts = StepFacts::of(span, None, None);
    let content = *facts.content;
    let absent = || match span.attr(names::CUT) {
        Some(_) => Gap::Cut,
        None if span.attr(crate::pipeline::scrub::CONTENT_MARK).is_some() => Gap::Policy,
        None => Gap::NotTold,
    };
    let outcome = match view.status {
        StepStatus::Success => {
            content.tool_result.or(content.output).map(|result| Ok(result.value())).ok_or_else(absent)
        }
        StepStatus::Running | StepStatus::Crashed | StepStatus::Cancelled => Err(Gap::NotAnswered(view.status)),
        StepStatus::Error | StepStatus::Timeout => Ok(Err(view.error.clone().unwrap_or_default())),
    };
    Some(ToolCall {
        run_id,
        step_id: view.step_id.clone(),
        name: facts.tool_name.unwrap_or_else(|| view.name.clone()),
        arguments: content.tool_args.or(content.input).map(|given| given.value()).unwrap_or_default(),
        outcome,
        started_at: view.started_at,
        span: span.clone(),
    })
}

impl ModelCall {
    /// Returns when it began.
    pub fn started_at(&self) -> UnixNanos {
        self.started_at
    }

    /// Tells whether it was seen on its way, and with it each time that it was tried.
    pub(super) fn is_relayed(&self) -> bool {
        self.span.attr(names::RELAYED) == Some(&Value::Bool(true))
    }

    /// Tells whether its answer was given from a recording itself.
    pub fn is_replayed(&self) -> bool {
        self.response_id.as_deref().is_some_and(|id| id.starts_with(names::REPLAYED_ANSWER))
    }
}

impl ToolCall {
    /// Returns when it began.
    pub fn started_at(&self) -> UnixNanos {
        self.started_at
    }

    /// Tells whether it is this call: the tool, and what it was given.
    pub(super) fn is(&self, name: &str, arguments: &Json) -> bool {
        self.name == name && comparable(&self.arguments) == comparable(arguments)
    }
}
