//! A step, held by the code that makes it.

use std::error::Error;

use serde::Serialize;
use tracing::Span;
use tracing::field::Value;
use tracing::span::Id;

use super::Usage;
use super::budget::Purse;
use super::spans::{self, What, kind_of};
use super::tell::{Tell, error_class};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};
use crate::propagation::span_context;
use crate::sources::guarded::said;
use crate::sources::layer::{find_in_scope, known_line, run_of};

/// A step of a run: a model call, a tool call, an agent inside a run.
///
/// ```
/// # let run = runspan::Run::agent("weather").start();
/// let tool = run.tool("get_weather");
/// tool.input(serde_json::json!({"city": "Paris"}));
/// match "21".parse::<i32>() {
///     Ok(degrees) => {
///         tool.output(degrees);
///         tool.finish();
///     }
///     Err(error) => tool.fail(&error),
/// }
/// # run.finish();
/// ```
///
/// A step that is dropped unfinished is stored as `cancelled`; one that is dropped by a panic, as `error`. It is over at
/// that moment, whoever still holds [`Step::span`] or has entered it: what is said of the span from then on is not heard,
/// while steps below it may go on. Where the OpenTelemetry SDK alone records, it is over when the last clone of the
/// span is gone. What is said twice holds as it was said last.
#[derive(Debug)]
#[must_use = "a step that is dropped is cancelled"]
pub struct Step {
    span: Span,
    kind: StepKind,
    ended: bool,
    /// Of a run that has a budget; after the span, whose end counts too.
    pub(super) purse: Option<Box<Purse>>,
}

impl Step {
    pub(super) fn new(span: Span, kind: StepKind) -> Self {
        Self { span, kind, ended: false, purse: None }
    }

    /// Begins a step below the current span, or at the root where there is none.
    #[cfg(feature = "macros")]
    pub(crate) fn here(what: What<'_>) -> Self {
        Self::new(spans::step_span(Span::current().id(), what), what.kind())
    }

    /// Begins a step below the current span when that is below this one and in the same run, else directly below.
    fn child(&self, what: What<'_>) -> Self {
        Self::new(spans::step_span(self.inner().id(), what), what.kind())
    }

    /// Returns the current span where that is below this step and in the same run, else the step's own.
    pub(super) fn inner(&self) -> Span {
        let current = Span::current();
        if self.encloses(&current) { current } else { self.span.clone() }
    }

    fn encloses(&self, current: &Span) -> bool {
        let (Some(own), Some(now)) = (span_context(&self.span), span_context(current)) else { return false };
        own.run_id == now.run_id
            && own.trace_id == now.trace_id
            && self.span.id().is_some_and(|own| find_in_scope(current, |id, _| *id == own).is_some())
    }

    /// Begins a model call below this step.
    pub fn llm(&self, provider: &str, model: &str) -> Self {
        self.child(What::Llm { provider, model })
    }

    /// Begins a tool call below this step.
    pub fn tool(&self, name: &str) -> Self {
        self.child(What::Tool { name })
    }

    /// Begins a look-up of documents in a source below this step.
    pub fn retrieval(&self, name: &str) -> Self {
        self.child(What::Retrieval { name })
    }

    /// Begins an embedding call below this step.
    pub fn embedding(&self, provider: &str, model: &str) -> Self {
        self.child(What::Embedding { provider, model })
    }

    /// Begins a check of input or output below this step.
    pub fn guardrail(&self, name: &str) -> Self {
        self.child(What::Guardrail { name })
    }

    /// Begins a judgement of quality below this step.
    pub fn evaluator(&self, name: &str) -> Self {
        self.child(What::Evaluator { name })
    }

    /// Begins an agent inside this run, below this step.
    pub fn agent(&self, name: &str) -> Self {
        self.child(What::Agent { name, budget: None })
    }

    /// Begins a workflow inside this run, below this step.
    pub fn workflow(&self, name: &str) -> Self {
        self.child(What::Workflow { name, budget: None })
    }

    /// Begins any other step below this one.
    pub fn task(&self, name: &str) -> Self {
        self.child(What::Task { name })
    }

    /// Returns the step's span, to enter it, or to instrument a future that is to run inside it.
    ///
    /// The step is over when it is finished, fails or is dropped, however many clones there are.
    ///
    /// ```
    /// use tracing::Instrument;
    ///
    /// # async fn answer() {}
    /// # async fn work() {
    /// let run = runspan::Run::agent("weather").start();
    /// answer().instrument(run.span()).await;
    /// run.finish();
    /// # }
    /// ```
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Calls `work` with the step's span entered, so that plain `tracing` spans in it are below this step.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// Sets the tokens that a call used. On an agent or a workflow they count only where no step below reports any.
    pub fn usage(&self, usage: Usage) -> &Self {
        self.put_usage(usage);
        self
    }

    /// Tells how much of what was written to a cache is kept for an hour, which costs more than the usual five minutes.
    pub fn cache_write_1h(&self, tokens: u64) -> &Self {
        self.put_count(names::CACHE_WRITE_1H_TOKENS, tokens);
        self
    }

    /// Tells how much of input and output was audio, which has prices of its own.
    pub fn audio(&self, input_tokens: u64, output_tokens: u64) -> &Self {
        self.put_count(names::AUDIO_INPUT_TOKENS, input_tokens);
        self.put_count(names::AUDIO_OUTPUT_TOKENS, output_tokens);
        self
    }

    /// Sets what the step cost; without, it is computed from a price table where that is possible.
    pub fn cost_usd(&self, usd: f64) -> &Self {
        self.put_cost_usd(usd);
        self
    }

    /// Sets what went in: messages of a model call (plain text is one message of the user), arguments of a tool, the
    /// query of a look-up.
    pub fn input(&self, input: impl Serialize) -> &Self {
        self.with_text(&input, |text| self.put_input(text));
        self
    }

    /// Sets what came out: messages of a model call (plain text is one message of the assistant), the result of a tool,
    /// documents of a look-up.
    pub fn output(&self, output: impl Serialize) -> &Self {
        self.with_text(&output, |text| self.put_output(text));
        self
    }

    /// Sets the messages sent to a model, in the shape of `gen_ai.input.messages`; the same as
    /// [`input`](Self::input).
    pub fn messages(&self, messages: impl Serialize) -> &Self {
        self.input(messages)
    }

    /// Sets the standing instructions of a model call.
    pub fn system_prompt(&self, prompt: impl Serialize) -> &Self {
        self.with_text(&prompt, |text| match text.as_parts() {
            Some(parts) => self.put(names::SYSTEM_INSTRUCTIONS, &parts.as_str()),
            None => self.put_text(names::SYSTEM_INSTRUCTIONS, text),
        });
        self
    }

    /// Sets the provider's id of a model's answer. Two steps with one id tell one call, which is counted once.
    pub fn response_id(&self, id: &str) -> &Self {
        self.put(names::RESPONSE_ID, &id);
        self
    }

    /// Sets the model that answered, where it is not the one asked for.
    pub fn response_model(&self, model: &str) -> &Self {
        self.put(names::RESPONSE_MODEL, &model);
        self
    }

    /// Sets why the model stopped.
    pub fn finish_reason(&self, reason: &str) -> &Self {
        let list = serde_json::Value::from(vec![reason]).to_string();
        self.put(names::FINISH_REASONS, &list.as_str());
        self
    }

    /// Sets the id that the model gave to a tool call, which links the call to the answer that asked for it.
    pub fn call_id(&self, id: &str) -> &Self {
        self.put(names::TOOL_CALL_ID, &id);
        self
    }

    /// Adds a line to the run's log; fields are an object, or any other value.
    ///
    /// ```
    /// # let step = runspan::Run::agent("weather").start();
    /// step.event("cache_hit", serde_json::json!({"key": "paris"}));
    /// # step.finish();
    /// ```
    pub fn event(&self, name: &str, fields: impl Serialize) -> &Self {
        self.with_text(&fields, |fields| self.put_event(name, fields));
        self
    }

    /// Adds a judgement of quality.
    pub fn score(&self, name: &str, value: f64) -> &Self {
        if self.is_recorded() {
            self.put_score(name, Some(value), None, None);
        }
        self
    }

    /// Adds a judgement of quality in words.
    pub fn label(&self, name: &str, label: &str, explanation: Option<&str>) -> &Self {
        if self.is_recorded() {
            self.put_score(name, None, Some(label), explanation);
        }
        self
    }

    /// Ends the step well.
    pub fn finish(mut self) {
        self.ended = true;
        if !self.ends_over_budget(None) {
            self.put_status(StepStatus::Success);
        }
    }

    /// Ends the step with an error, told with its causes. The name of its type is the class of the error.
    pub fn fail<E: Error + ?Sized>(self, error: &E) {
        if self.is_recorded() {
            self.fail_as(&error_class::<E>(), &said(error));
        }
    }

    /// Ends the step with an error of a class.
    pub(crate) fn fail_as(mut self, class: &str, message: &str) {
        self.ended = true;
        if !self.ends_over_budget(Some(message)) {
            self.put_failure(class, message);
        }
    }
}

impl Tell for Step {
    fn is_recorded(&self) -> bool {
        !self.span.is_disabled()
    }

    fn kind(&self) -> StepKind {
        self.kind
    }

    fn span_id(&self) -> Option<Id> {
        self.span.id()
    }

    fn put(&self, key: &'static str, value: &dyn Value) {
        self.span.record(key, value);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.ended {
        } else if std::thread::panicking() {
            self.put_failure("panic", "panicked");
        } else if is_left_waiting(&self.span, self.kind) {
            self.put(names::LEFT_OPEN, &true);
        } else if !self.ends_over_budget(None) {
            self.put_status(StepStatus::Cancelled);
        }
    }
}

/// Tells whether a step is its run's topmost one, and the run waits: dropped, it is left so.
fn is_left_waiting(span: &Span, kind: StepKind) -> bool {
    if !matches!(kind, StepKind::Agent | StepKind::Workflow) {
        return false;
    }
    let line = span.with_subscriber(|(id, dispatch)| known_line(dispatch, id)).flatten();
    let Some(line) = line.filter(|line| line.waits_for().is_some() && !line.is_cancelled()) else { return false };
    let around = find_in_scope(span, |id, metadata| span.id().as_ref() != Some(id) && kind_of(metadata).is_some());
    around.is_none_or(|(dispatch, id, _)| run_of(&dispatch, &id) != Some(line.run()))
}
