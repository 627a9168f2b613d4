//! Going on with a run that waits and whose process has died.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::act::Leash;
use super::{Run, RunFacts, Step, spans};
use crate::model::budget::{Budget, Spent};
use crate::model::event::{RunStarted, Waiting};
use crate::model::otlp::{KeyValue, Span as StoredSpan};
use crate::model::{Event, EventBody, EventId, RunId, RunKind, RunStatus, SpanId, StepKind, TraceId, UnixNanos};
use crate::recovery;
use crate::sinks::store::Claimed;
use crate::sources::context::{ResumedSpan, SpanContext};
use crate::sources::encode;
use crate::sources::layer::installed_recorder;
use crate::store::assembly::RunState;
use crate::store::family::Tree;
use crate::store::files::FilesReader;
use crate::store::files::requests::Requests;
use crate::store::seen::is_whole;
use crate::store::{RunReader, StoreError};

/// A run that goes on in this process; made by [`Run::resume`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The run, as if it had never been anybody else's. It still waits: [`Run::wait`] for the same reason returns the answer.
    pub run: Run,
    /// All that happened so far, in order.
    pub events: Vec<Event>,
    /// What it waits for.
    pub waiting: Waiting,
    /// What it and the runs below it have taken so far.
    pub spent: Spent,
}

impl Resumed {
    /// Gives the run another budget than it had; what it has taken before counts.
    ///
    /// ```no_run
    /// # fn work() -> Result<(), runspan::ResumeError> {
    /// use runspan::{Budget, Run};
    ///
    /// let resumed = Run::resume("latest")?.budget(Budget { cost_usd: Some(5.0), ..Default::default() });
    /// # drop(resumed);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.run.step.rebound(budget, self.spent);
        self
    }
}

/// Why a run cannot be gone on with.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResumeError {
    /// No recorder of this crate's layer is at work here, so nothing could be written.
    NotRecorded,
    /// The store does not have it, or another process is at it: see [`StoreError::InUse`].
    Store(StoreError),
    /// The run does not wait.
    NotWaiting {
        /// The run.
        run: RunId,
        /// How it stands.
        status: RunStatus,
    },
    /// A handle of the run is in use in this process.
    Held {
        /// The run.
        run: RunId,
    },
    /// Its topmost step has ended, or came from another program, so there is nothing to go on with.
    NoRoot {
        /// The run.
        run: RunId,
    },
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRecorded => f.write_str("nothing is recorded here: call runspan::init() first"),
            Self::Store(error) => error.fmt(f),
            Self::NotWaiting { run, status } => write!(f, "run {run} does not wait: it is {status}"),
            Self::Held { run } => write!(f, "run {run} is in use in this process already"),
            Self::NoRoot { run } => write!(f, "run {run} has no topmost step that is under way"),
        }
    }
}

impl Error for ResumeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for ResumeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Run {
    /// Goes on with a run that waits and whose process has died, or has dropped it: the same run, in the same trace, with
    /// the next `seq`.
    ///
    /// So it does with a run whose process died behind an answer that it had taken: the run waits once more, and
    /// [`Run::wait`] for the same reason returns that answer from the run's log. What the process did between the answer and its
    /// death is in [`Resumed::events`]; which of it may be done again the program knows. Where the log does not have all of the answer,
    /// by content policy or because it was too long, the run waits for another.
    ///
    /// `id` is a run id, a unique beginning of one, or `latest`. What the run was asked meanwhile it finds: an answer is
    /// returned by [`Run::wait`] for the same reason, a cancellation by [`Run::cancellation`]. Steps that the dead process left
    /// open are `crashed`. Of two processes that resume one run at once, one does.
    ///
    /// This reads and writes the store on the caller's thread; in async code call it where blocking is allowed.
    ///
    /// ```no_run
    /// # async fn work() -> Result<(), Box<dyn std::error::Error>> {
    /// let _guard = runspan::init();
    /// let resumed = runspan::Run::resume("01KE9BZH80BG")?;
    /// println!("{} events so far", resumed.events.len());
    /// let answer = resumed.run.wait("approval", ()).await?;
    /// # drop(answer);
    /// resumed.run.finish();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ResumeError`]: it does not wait, another process writes it, or nothing is recorded here.
    pub fn resume(id: &str) -> Result<Resumed, ResumeError> {
        let _bears = crate::fs::BearFileLimit::begin();
        let recorder = installed_recorder().ok_or(ResumeError::NotRecorded)?;
        let layout = recorder.store().ok_or(ResumeError::NotRecorded)?.layout.clone();
        // What the dead process left belongs to the run. What cannot be taken in now shows as the run's being in use.
        let _ = recovery::adopt_dead(&layout, &layout.read()?);
        let reader = FilesReader::of(layout)?;
        let run = reader.resolve(id)?;
        let line = recorder.desk().line(run);
        if !line.hold() {
            return Err(ResumeError::Held { run });
        }
        // Let go of it, should anything go wrong from here on.
        let leash = Leash::of(Arc::clone(&line), tracing::Span::none());
        // Nobody else could take it from a process that lives: one that cannot be gone on with stays as it is, unless it is to
        // end.
        let is_to_end = Requests::find(reader.layout(), run)?.is_some_and(|asked| !matches!(asked.cancel(), Ok(None)));
        if !is_to_end && reader.get_run(run)?.status == RunStatus::Waiting {
            to_go_on_with(run, &reader.get_events(run, 0)?)?;
        }
        match crate::telemetry::claim(&recorder, run).ok_or(ResumeError::NotRecorded)?? {
            Claimed::Not(status) => Err(ResumeError::NotWaiting { run, status }),
            Claimed::Ours => go_on(&reader, run, leash),
            // It is not this process's to keep from others.
            Claimed::Taken => go_on(&reader, run, leash).inspect_err(|_| crate::telemetry::unclaim(&recorder, run)),
        }
    }
}

/// Takes up a run that is this process's.
fn go_on(reader: &FilesReader, run: RunId, mut leash: Leash) -> Result<Resumed, ResumeError> {
    let events = reader.get_events(run, 0)?;
    let (started, root, waiting) = to_go_on_with(run, &events)?;
    let (waiting, again) = (waiting.clone(), answer_again(run, &events));
    let (spent, budget) = budget_of(reader, run)?;
    if let Some(line) = leash.known() {
        line.set_wait(waiting.reason.as_deref().unwrap_or_default(), waiting.pause_request());
        if let Some((wait, input)) = again {
            line.answer(wait, 0, input);
        }
    }
    let mut step = step_of(run, started, root);
    if let Some(budget) = budget {
        step.bound(budget, spent);
    }
    leash.hold(step.span());
    let run = Run { leash, step, kind: started.kind, id: run };
    Ok(Resumed { run, events, waiting, spent })
}

/// Returns the answer that a run which has crashed behind it is given once more, and to which event: as the log has it whole.
fn answer_again(run: RunId, events: &[Event]) -> Option<(EventId, Json)> {
    let wait = RunState::read(run, events).waiting_event()?;
    let place = events.iter().position(|event| event.event_id == wait)?;
    let EventBody::StatusChanged(_) = &events[place].body else { return None };
    last_answer(&events[..place]).map(|input| (wait, input))
}

/// Returns the answer to what was asked last, apart from pauses; `None` where the log does not have it whole.
fn last_answer(events: &[Event]) -> Option<Json> {
    let (mut answer, mut is_pause) = (None, false);
    for event in events {
        match &event.body {
            EventBody::Waiting(waiting) => {
                is_pause = waiting.reason.as_deref() == Some(Waiting::PAUSED);
                // The answer to one question is never that to another.
                answer = answer.filter(|_| is_pause);
            }
            EventBody::Resumed(resumed) if !is_pause => {
                let is_null = resumed.is_null.then_some(Json::Null);
                // A mark in the place of a part of it is no answer.
                answer = resumed.input.clone().filter(is_whole).or(is_null);
            }
            // Gone on with behind an answer, it waits for that again.
            EventBody::StatusChanged(change) if change.to == RunStatus::Waiting => is_pause = false,
            _ => {}
        }
    }
    answer
}

/// Returns what a run has taken, with the runs below it, and what it may take.
fn budget_of(reader: &FilesReader, run: RunId) -> Result<(Spent, Option<Budget>), StoreError> {
    let tree = Tree::read(reader, run)?;
    let own = reader.get_run(run)?;
    let wall = Duration::from_nanos(UnixNanos::now().0.saturating_sub(own.started_at.0));
    Ok((Spent { wall, ..Spent::of_runs(run, tree.from(run)) }, own.budget))
}

/// Returns what a run is gone on with from: how it began, its topmost step, and what it waits for.
fn to_go_on_with(run: RunId, events: &[Event]) -> Result<(&RunStarted, &StoredSpan, &Waiting), ResumeError> {
    let mut state = RunState::read(run, events);
    let mut is_of_answer = state.can_reopen();
    if is_of_answer {
        state.reopen();
    }
    is_of_answer |= state.waiting_event().is_some_and(|wait| {
        events.iter().any(|event| event.event_id == wait && matches!(event.body, EventBody::StatusChanged(_)))
    });
    let started = events.iter().find_map(|event| match &event.body {
        EventBody::RunStarted(started) => Some(&**started),
        _ => None,
    });
    let root = events.iter().find_map(|event| open_root(&state, event));
    // The last one: a run that was asked to end meanwhile does not wait any more, and learns it. Of one that goes on from an
    // answer, that which was answered.
    let waiting = events.iter().rev().find_map(|event| match &event.body {
        EventBody::Waiting(waiting) if is_of_answer && waiting.reason.as_deref() == Some(Waiting::PAUSED) => None,
        EventBody::Waiting(waiting) => Some(waiting),
        _ => None,
    });
    match (started, root, waiting) {
        (Some(started), Some(root), Some(waiting)) => Ok((started, root, waiting)),
        _ => Err(ResumeError::NoRoot { run }),
    }
}

/// Returns the span of the step that stands for the run, if this event began it and it is under way.
fn open_root<'a>(state: &RunState, event: &'a Event) -> Option<&'a StoredSpan> {
    let (span, _, _) = event.body.span().filter(|_| event.body.is_step_start())?;
    let id = SpanId::from_bytes(&span.span_id)?;
    (state.is_root(id) && !state.step_progress(id).1).then_some(span)
}

fn encoded(attributes: &[KeyValue]) -> Vec<u8> {
    let mut out = Vec::new();
    for attribute in attributes {
        encode::bytes(&mut out, encode::SPAN_ATTRIBUTE, &prost::Message::encode_to_vec(attribute));
    }
    out
}

/// Makes the run's span once more, with its ids, its parent and its start.
fn step_of(run: RunId, started: &RunStarted, root: &StoredSpan) -> Step {
    let parent = SpanId::from_bytes(&root.parent_span_id);
    let context = SpanContext {
        trace_id: TraceId::from_bytes(&root.trace_id).unwrap_or(started.trace_id),
        span_id: SpanId::from_bytes(&root.span_id).unwrap_or_default(),
        flags: (root.flags & 0xff) as u8,
        run_id: Some(run),
    };
    let resumed = ResumedSpan {
        context,
        parent,
        has_remote_parent: parent.is_some(),
        start: UnixNanos(root.start_time_unix_nano),
        attributes: encoded(&root.attributes),
    };
    let facts = RunFacts {
        id: &run.to_string(),
        parent_run: started.parent_run_id.map(|run| run.to_string()),
        session: started.session_id.as_deref(),
        user: started.user_id.as_deref(),
        tags: (!started.tags.is_empty()).then(|| serde_json::Value::from(started.tags.clone()).to_string()),
        // It stands among what the span said before.
        budget: None,
    };
    let span = resumed.go_on(|| spans::run_span(None, started.kind, &started.name, &facts));
    let kind = match started.kind {
        RunKind::Agent => StepKind::Agent,
        RunKind::Workflow => StepKind::Workflow,
    };
    Step::new(span, kind)
}
