//! The step that code runs in, for code that does not hold it.

use serde::Serialize;
use tracing::field::Value;
use tracing::span::{Id, Record};
use tracing::{Dispatch, Metadata, Span};

use super::Usage;
use super::budget::say_unpriced;
use super::content::Text;
use super::spans::kind_of;
use super::tell::Tell;
use super::wait::{Cancellation, Checkpoint, Place, Wait};
use crate::conventions::names;
use crate::model::budget::BudgetExceeded;
use crate::model::{RunId, StepKind};
use crate::sources::desk::Line;
use crate::sources::layer::{find_in_scope, line_of, meter_of};

/// Returns the innermost step around the caller that was begun by hand or by an attribute.
///
/// Plain `tracing` spans in between are passed over. Outside of any step the handle does nothing.
///
/// ```
/// fn called_inside_a_step() {
///     runspan::current().usage(runspan::Usage::new(120, 5));
/// }
/// # let run = runspan::Run::agent("weather").start();
/// # run.in_scope(called_inside_a_step);
/// # run.finish();
/// ```
pub fn current() -> CurrentStep {
    let current = Span::current();
    let found = find_in_scope(&current, |_, metadata| kind_of(metadata).is_some())
        .map(|(dispatch, id, metadata)| (dispatch.clone(), dispatch.clone_span(&id), metadata));
    // Where the recorder is not a layer only the current span itself can be asked.
    let found = found.or_else(|| {
        let metadata = current.metadata()?;
        kind_of(metadata)?;
        current.with_subscriber(|(id, dispatch)| (dispatch.clone(), dispatch.clone_span(id), metadata))
    });
    let open =
        found.and_then(|(dispatch, id, metadata)| Some(Open { dispatch, id, metadata, kind: kind_of(metadata)? }));
    CurrentStep { open }
}

/// A step that somebody else ends; made by [`current`].
#[derive(Debug)]
pub struct CurrentStep {
    open: Option<Open>,
}

/// A reference to a span, counted by the subscriber.
#[derive(Debug)]
struct Open {
    dispatch: Dispatch,
    id: Id,
    metadata: &'static Metadata<'static>,
    kind: StepKind,
}

impl CurrentStep {
    /// Sets the tokens that the call used.
    pub fn usage(&self, usage: Usage) -> &Self {
        self.put_usage(usage);
        self
    }

    /// Sets what the step cost.
    pub fn cost_usd(&self, usd: f64) -> &Self {
        self.put_cost_usd(usd);
        self
    }

    /// Sets what went in.
    pub fn input(&self, input: impl Serialize) -> &Self {
        self.with_text(&input, |text| self.put_input(text));
        self
    }

    /// Sets what came out.
    pub fn output(&self, output: impl Serialize) -> &Self {
        self.with_text(&output, |text| self.put_output(text));
        self
    }

    /// Sets the provider's id of a model's answer. Two steps with one id tell one call, which is counted once.
    pub fn response_id(&self, id: &str) -> &Self {
        self.put(names::RESPONSE_ID, &id);
        self
    }

    /// Sets the model that answered.
    pub fn response_model(&self, model: &str) -> &Self {
        self.put(names::RESPONSE_MODEL, &model);
        self
    }

    /// Sets the conversation that an agent's or a workflow's run belongs to.
    pub fn session(&self, id: &str) -> &Self {
        self.put(names::CONVERSATION_ID, &id);
        self
    }

    /// Sets the user that an agent's or a workflow's run is for.
    pub fn user(&self, id: &str) -> &Self {
        self.put(names::USER_ID, &id);
        self
    }

    /// Sets the id that the model gave to a tool call, which links the call to the answer that asked for it.
    pub fn call_id(&self, id: &str) -> &Self {
        self.put(names::TOOL_CALL_ID, &id);
        self
    }

    /// Adds a line to the run's log.
    pub fn event(&self, name: &str, fields: impl Serialize) -> &Self {
        self.with_text(&fields, |fields| self.put_event(name, fields));
        self
    }

    /// Asks whether one more step may begin in the run around, as [`Run::check_budget`](crate::Run::check_budget) does.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn check_budget(&self) -> Result<(), BudgetExceeded> {
        let meter = self.open.as_ref().and_then(|open| meter_of(&open.dispatch, &open.id));
        meter.map_or(Ok(()), |meter| {
            say_unpriced(&meter, self.span_id());
            meter.check()
        })
    }

    /// Returns what tells that the run around this code is to end; see [`Run::cancellation`](crate::Run::cancellation).
    pub fn cancellation(&self) -> Cancellation {
        Cancellation::of(self.place().line)
    }

    /// Waits until somebody answers the run around this code; see [`Run::wait`](crate::Run::wait).
    ///
    /// # Errors
    ///
    /// [`WaitError`](crate::WaitError): there is no run around, it was cancelled, or it waits already.
    pub fn wait(&self, reason: impl Into<String>, payload: impl Serialize) -> Wait<'_> {
        let payload = Text::of(&payload).filter(|payload| self.is_recorded() && payload.json() != "null");
        Wait::new(self.place(), reason.into(), payload)
    }

    /// Has the run around this code go on without the answer that it waits for; see
    /// [`Run::wait_no_longer`](crate::Run::wait_no_longer).
    pub fn wait_no_longer(&self) {
        self.place().give_up_wait();
    }

    /// A boundary between steps: waits here while the run around this code is to pause; see
    /// [`Run::checkpoint`](crate::Run::checkpoint).
    ///
    /// # Errors
    ///
    /// [`WaitError::Cancelled`](crate::WaitError::Cancelled) when the run was asked to end,
    /// [`WaitError::OverBudget`](crate::WaitError::OverBudget) when it may take no more.
    pub fn checkpoint(&self) -> Checkpoint<'_> {
        Checkpoint::new(self.place())
    }

    pub(super) fn place(&self) -> Place {
        let line = self.open.as_ref().and_then(|open| line_of(&open.dispatch, &open.id));
        let line = line.unwrap_or_else(|| Line::dead(RunId::default()));
        Place::at(line, self.open.as_ref().map(|open| (open.id.clone(), open.dispatch.clone())))
    }

    /// Adds a judgement of quality.
    pub fn score(&self, name: &str, value: f64) -> &Self {
        if self.is_recorded() {
            self.put_score(name, Some(value), None, None);
        }
        self
    }
}

impl Tell for CurrentStep {
    fn is_recorded(&self) -> bool {
        self.open.is_some()
    }

    fn kind(&self) -> StepKind {
        self.open.as_ref().map_or(StepKind::Task, |open| open.kind)
    }

    fn span_id(&self) -> Option<Id> {
        self.open.as_ref().map(|open| open.id.clone())
    }

    fn put(&self, key: &'static str, value: &dyn Value) {
        let Some(open) = &self.open else { return };
        let fields = open.metadata.fields();
        if let Some(field) = fields.field(key) {
            open.dispatch.record(&open.id, &Record::new(&fields.value_set(&[(&field, Some(value))])));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.dispatch.try_close(self.id.clone());
    }
}
