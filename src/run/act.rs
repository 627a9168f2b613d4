//! What a run's code does about the world outside of it: wait for an answer, pause, end when asked to, start others.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::Value as Json;
use tracing::Span;

use super::content::Text;
use super::tell::Tell;
use super::wait::{Cancellation, Checkpoint, Place, Wait, WaitError};
use super::{Run, RunBuilder};
use crate::model::{RunId, RunKind};
use crate::sources::desk::Line;
use crate::sources::layer::recorder_of;

impl Run {
    /// Waits until somebody answers: `runspan resume ID --input JSON`, or [`control::resume`](crate::control::resume).
    ///
    /// The run is `waiting` meanwhile, with `reason` and `payload` in its log for whoever answers. No thread is blocked and no
    /// runtime is needed. The wait outlives the process: killed, the run stays `waiting`, an answer that comes then is
    /// kept, and [`Run::resume`] goes on with it in another process, where waiting for the same reason returns that answer. A run
    /// that is dropped while it waits is left so, too. The answer is what was given, to the letter, even where content
    /// policy takes a part of it out of what is stored.
    ///
    /// ```no_run
    /// # async fn work() -> Result<(), runspan::WaitError> {
    /// let run = runspan::Run::agent("refunds").start();
    /// let answer = run.wait("approval", serde_json::json!({"refund_usd": 40})).await?;
    /// if answer == "yes" {
    ///     run.tool("refund").finish();
    /// }
    /// run.finish();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WaitError`]: above all the run was cancelled, or it is not recorded, so that nobody could answer.
    pub fn wait(&self, reason: impl Into<String>, payload: impl Serialize) -> Wait<'_> {
        let payload = Text::of(&payload).filter(|payload| self.step.is_recorded() && payload.json() != "null");
        Wait::new(self.place(), reason.into(), payload)
    }

    /// Does the same and blocks the thread: for agents without async code.
    ///
    /// # Errors
    ///
    /// As [`Run::wait`].
    pub fn wait_blocking(&self, reason: impl Into<String>, payload: impl Serialize) -> Result<Json, WaitError> {
        self.wait(reason, payload).block()
    }

    /// Goes on without the answer that the run waits for, if it does: whoever waits for it gets [`WaitError::NoLonger`]. An answer
    /// that comes later finds nobody.
    pub fn wait_no_longer(&self) {
        if self.leash.known().is_some() {
            self.place().give_up_wait();
        }
    }

    /// A boundary between steps: waits here while the run is to pause, by `runspan pause ID`, until it is resumed.
    ///
    /// That is all that a pause does: code that has no such boundary is not held. Functions with an attribute
    /// (`#[runspan::agent]`, `#[runspan::tool]`, ...) that are async have one before they begin. While nobody asks for a pause
    /// it costs two reads of memory.
    ///
    /// # Errors
    ///
    /// [`WaitError::Cancelled`] when the run was asked to end, [`WaitError::OverBudget`] when it may take no more: `?` is enough to
    /// obey.
    pub fn checkpoint(&self) -> Checkpoint<'_> {
        Checkpoint::new(self.place())
    }

    /// Does the same and blocks the thread for as long as the run pauses.
    ///
    /// # Errors
    ///
    /// As [`Run::checkpoint`].
    pub fn checkpoint_blocking(&self) -> Result<(), WaitError> {
        self.checkpoint().block()
    }

    /// Returns what tells the run's code that the run is to end: by `runspan cancel ID`, of this run or of one above it, in
    /// whichever process that is. The run is `cancelled` from the request on.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation::of(Arc::clone(self.line()))
    }

    /// Prepares a run of an agent that this one starts: a run of its own, in the same trace, with this one as its parent.
    ///
    /// It can be begun in another thread. In another process [`propagation`](crate::propagation) does the same.
    ///
    /// ```
    /// let run = runspan::Run::workflow("report").start();
    /// let writer = run.spawn_agent("writer").input("Two pages on rivers.").start();
    /// writer.finish();
    /// run.finish();
    /// ```
    pub fn spawn_agent(&self, name: impl std::fmt::Display) -> RunBuilder {
        RunBuilder::new(RunKind::Agent, name).below(self.step.inner())
    }

    /// Prepares a run of a workflow that this one starts, likewise.
    pub fn spawn_workflow(&self, name: impl std::fmt::Display) -> RunBuilder {
        RunBuilder::new(RunKind::Workflow, name).below(self.step.inner())
    }

    fn line(&self) -> &Arc<Line> {
        self.leash.line(&self.step.span(), self.id)
    }

    fn place(&self) -> Place {
        Place::of(Arc::clone(self.line()), &self.step.span())
    }
}

/// What a run is held by while its handle lives: nobody else can resume it meanwhile.
#[derive(Debug, Default)]
pub(super) struct Leash {
    held: OnceLock<(Arc<Line>, Span)>,
}

impl Leash {
    /// Makes that of a run which another process has begun.
    pub fn of(line: Arc<Line>, span: Span) -> Self {
        Self { held: OnceLock::from((line, span)) }
    }

    /// Says which span is the run's.
    pub fn hold(&mut self, span: Span) {
        if let Some((_, held)) = self.held.get_mut() {
            *held = span;
        }
    }

    fn line(&self, span: &Span, run: RunId) -> &Arc<Line> {
        let hold = || {
            let recorder = recorder_of(span).filter(|recorder| recorder.is_recording() && !span.is_disabled());
            let line = recorder.map_or_else(|| Line::dead(run), |recorder| recorder.desk().line(run));
            line.hold();
            (line, span.clone())
        };
        &self.held.get_or_init(hold).0
    }

    pub(super) fn known(&self) -> Option<&Arc<Line>> {
        self.held.get().map(|(line, _)| line)
    }

    /// Lets go of a run that ends by its own word: it does not wait any more.
    pub fn end(&mut self) {
        if let Some((line, span)) = self.held.take() {
            let place = Place::of(line, &span);
            place.give_up_wait();
            place.line.let_go();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.end();
        }
        if let Some((line, _)) = self.held.take() {
            line.let_go();
        }
    }
}
