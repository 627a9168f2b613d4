//! Runs and steps by hand.
//!
//! [`Run`] and [`Step`] are spans of `tracing` with the right names and fields, so every layer that is installed sees
//! them, and without a subscriber all of this does nothing. They can be held across `.await`, shared between threads
//! and used from spawned tasks.

mod act;
mod artifact;
#[cfg(feature = "macros")]
#[expect(missing_docs, reason = "only expansions of our macros use it")]
pub mod attributes;
mod budget;
mod content;
mod current;
mod resume;
mod spans;
mod step;
mod tell;
mod usage;
mod wait;

use std::error::Error;
use std::fmt;
use std::ops::Deref;

use serde::Serialize;
use tracing::{Metadata, Span};

use crate::conventions::names;
use crate::model::budget::{Budget, Spent};
use crate::model::run::ArtifactInfo;
use crate::model::{RunId, RunKind, StepKind, UnixNanos};
use crate::propagation::{RemoteContext, span_context};
use crate::sources::guarded::printed;
use crate::sources::layer::{cause, find_in_scope, recorder_of};

use act::Leash;
pub use artifact::ArtifactSource;
pub use current::{CurrentStep, current};
pub use resume::{ResumeError, Resumed};
pub use step::Step;
use tell::Tell;
pub use usage::Usage;
pub(crate) use wait::NO_LONGER;
pub use wait::{Cancellation, Cancelled, Checkpoint, Wait, WaitError};

/// One execution of an agent or a workflow, begun by hand.
///
/// ```
/// use runspan::{Run, Usage};
///
/// let run = Run::agent("weather").session("chat-42").input("How is the weather in Paris?").start();
/// let call = run.llm("openai", "gpt-4o-mini");
/// call.input("How is the weather in Paris?").output("Sunny.").usage(Usage::new(120, 5));
/// call.finish();
/// run.output("Sunny.");
/// run.finish();
/// ```
///
/// A run that is dropped unfinished is stored as `cancelled`; one that is dropped by a panic, as `error`. It is over at
/// that moment, whoever still holds its span or has entered it: what is said of the span from then on is not heard, while
/// steps below it that end later, or begin, are still the run's. One that is dropped while it waits for an answer
/// ([`Run::wait`]) stays `waiting`, for [`Run::resume`].
///
/// A run is the topmost step of itself: everything that a [`Step`] offers, a run offers as well. That is by `Deref`, as
/// `run.agent(..)`, a step, and `Run::agent(..)`, a run, could not both stand here.
#[derive(Debug)]
#[must_use = "a run that is dropped is cancelled"]
pub struct Run {
    /// Before the step, which it keeps from ending.
    leash: Leash,
    step: Step,
    kind: RunKind,
    id: RunId,
}

/// A run about to start; made by [`Run::agent`] and [`Run::workflow`].
#[derive(Debug)]
#[must_use = "a run begins with `start`"]
pub struct RunBuilder {
    kind: RunKind,
    name: String,
    session: Option<String>,
    user: Option<String>,
    tags: Vec<String>,
    input: Option<content::Text>,
    parent: Option<RemoteContext>,
    budget: Option<Budget>,
    /// The span of the run that starts it; else the current one.
    below: Option<Span>,
}

impl Run {
    /// Prepares a run of an agent.
    pub fn agent(name: impl fmt::Display) -> RunBuilder {
        RunBuilder::new(RunKind::Agent, name)
    }

    /// Prepares a run of a workflow: several steps or agents under one root.
    pub fn workflow(name: impl fmt::Display) -> RunBuilder {
        RunBuilder::new(RunKind::Workflow, name)
    }

    /// Returns the run's id; `None` when no subscriber takes its span, or recording is switched off.
    pub fn id(&self) -> Option<RunId> {
        let inert = recorder_of(&self.step.span()).is_some_and(|recorder| !recorder.is_recording());
        (self.step.is_recorded() && !inert).then_some(self.id)
    }

    /// Copies a file or bytes into the run's folder and returns what was kept, or `None` with a warning on standard
    /// error where that is not possible.
    ///
    /// The name is made safe and unique in the run. This writes to the disk on the caller's thread, so that the
    /// file is kept when this returns, and in the first moments of a run it waits for the run's folder to appear;
    /// in async code call it where blocking is allowed. One over 10 MB is compressed,
    /// where the feature `seal` is on and that saves something; else `runspan cleanup` does it when the run is over.
    ///
    /// Content policy holds for it. Under [`Content::Redacted`](crate::Content::Redacted) secrets in a text are replaced, and
    /// what is returned is the size and the hash of what is stored; a text is what its media type calls so, and
    /// what begins as UTF-8. Other files are kept as they are. Under [`Content::None`](crate::Content::None) the file is
    /// read and not kept: its name, size and hash are. Secrets in the name go under both.
    ///
    /// ```
    /// let run = runspan::Run::agent("writer").start();
    /// run.artifact(b"# Report".as_slice(), "report.md", "text/markdown");
    /// # run.finish();
    /// ```
    pub fn artifact<'a>(
        &self,
        source: impl Into<ArtifactSource<'a>>,
        name: &str,
        media_type: &str,
    ) -> Option<ArtifactInfo> {
        let _bears = crate::fs::BearFileLimit::begin();
        artifact::keep(&self.step, self.id(), self.kind, source.into(), name, media_type)
    }

    /// Ends the run well.
    pub fn finish(mut self) {
        self.leash.end();
        self.step.finish();
    }

    /// Ends the run with an error, told with its causes.
    pub fn fail(mut self, error: &(impl Error + ?Sized)) {
        self.leash.end();
        self.step.fail(error);
    }
}

impl Deref for Run {
    type Target = Step;

    fn deref(&self) -> &Step {
        &self.step
    }
}

impl RunBuilder {
    fn new(kind: RunKind, name: impl fmt::Display) -> Self {
        Self {
            kind,
            name: printed(|| name.to_string()),
            session: None,
            user: None,
            tags: Vec::new(),
            input: None,
            parent: None,
            budget: None,
            below: None,
        }
    }

    fn below(mut self, span: Span) -> Self {
        self.below = Some(span);
        self
    }

    /// Sets the conversation that the run belongs to.
    pub fn session(mut self, id: impl fmt::Display) -> Self {
        self.session = Some(printed(|| id.to_string()));
        self
    }

    /// Sets the user that the run is for.
    pub fn user(mut self, id: impl fmt::Display) -> Self {
        self.user = Some(printed(|| id.to_string()));
        self
    }

    /// Adds a free label.
    pub fn tag(mut self, tag: impl fmt::Display) -> Self {
        self.tags.push(printed(|| tag.to_string()));
        self
    }

    /// Sets what the run was given.
    pub fn input(mut self, input: impl Serialize) -> Self {
        self.input = content::Text::of(&input);
        self
    }

    /// Puts the run under a span of another process, as it came in headers or in the environment.
    ///
    /// ```
    /// use runspan::{Run, propagation};
    ///
    /// # let headers = std::collections::HashMap::<String, String>::new();
    /// let mut run = Run::agent("worker");
    /// if let Some(parent) = propagation::extract(|name| headers.get(name).map(String::as_str)) {
    ///     run = run.parent(parent);
    /// }
    /// run.start().finish();
    /// ```
    pub fn parent(mut self, parent: RemoteContext) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Bounds what the run may take: what it costs, its tokens, its steps, its time.
    ///
    /// Over a bound the run's code is told so at the next boundary between steps, by [`Run::check_budget`],
    /// [`CurrentStep::check_budget`] or [`Run::within_budget`]; nothing is done to it behind its back. A run that was told, or
    /// that began another step all the same, ends as an `error` of type `budget_exceeded` with what was spent and the
    /// step at which, whatever it is ended with. One that ends without wanting more has what it paid for, and ends
    /// as it does.
    ///
    /// What counts is what is recorded below the run in this process, calls of `rig` or of plain `tracing` spans and runs that
    /// it begins among them. Where nothing is recorded, time alone counts.
    ///
    /// ```
    /// use runspan::{Budget, Run, Usage};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let guard = runspan::builder().store(dir.path()).init().unwrap();
    /// let run = Run::agent("weather").budget(Budget { tokens: Some(100), ..Default::default() }).start();
    /// while run.check_budget().is_ok() {
    ///     let call = run.llm("openai", "gpt-4o-mini");
    ///     call.usage(Usage::new(70, 5));
    ///     call.finish();
    /// }
    /// assert_eq!(run.spent().tokens, 150);
    /// run.finish();
    /// # guard.shutdown(std::time::Duration::from_secs(5));
    /// ```
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Begins the run.
    ///
    /// Without a parent it begins a trace, whose id has the same bits as the run's. Begun while another span is
    /// current it is a run of its own in that span's trace, with the surrounding run as its parent; a plain span, such as
    /// that of a request, is no run.
    pub fn start(self) -> Run {
        let id = RunId::fresh(UnixNanos::now());
        let current = self.below.clone().unwrap_or_else(Span::current);
        // A remote parent is the layer's to write: it knows as well what the environment says.
        let around = if self.parent.is_some() { None } else { surrounding_run(&current) };
        let _attached = self.parent.as_ref().map(RemoteContext::attach);
        let root = RunFacts {
            id: &id.to_string(),
            parent_run: around.map(|run| run.to_string()),
            session: self.session.as_deref(),
            user: self.user.as_deref(),
            tags: (!self.tags.is_empty()).then(|| serde_json::Value::from(self.tags).to_string()),
            budget: self.budget.map(|budget| budget.to_json()),
        };
        let parent = if self.parent.is_some() { None } else { current.id() };
        let span = spans::run_span(parent, self.kind, &self.name, &root);
        let kind = match self.kind {
            RunKind::Agent => StepKind::Agent,
            RunKind::Workflow => StepKind::Workflow,
        };
        let mut step = Step::new(span, kind);
        if let Some(budget) = self.budget {
            step.bound(budget, Spent::default());
        }
        if let Some(input) = &self.input {
            step.put_text(names::INPUT, input);
        }
        Run { leash: Leash::default(), step, kind: self.kind, id }
    }
}

/// Returns the run around a span: its own, if the span or one above it is a step, else the one that called this process.
fn surrounding_run(current: &Span) -> Option<RunId> {
    let own = span_context(current)?.run_id;
    let says_gen_ai =
        |metadata: &Metadata<'_>| metadata.fields().iter().any(|field| field.name().starts_with("gen_ai."));
    let step = find_in_scope(current, |_, metadata| spans::kind_of(metadata).is_some() || says_gen_ai(metadata));
    if step.is_some() { own } else { cause(current) }
}

/// What a run's own span says besides its name.
pub(crate) struct RunFacts<'a> {
    id: &'a str,
    parent_run: Option<String>,
    session: Option<&'a str>,
    user: Option<&'a str>,
    tags: Option<String>,
    /// As JSON.
    budget: Option<String>,
}
