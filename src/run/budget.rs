//! What a run with a budget is told, and how it ends when it has taken too much.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tracing::Level;
use tracing::span::Id;

use super::Run;
use super::spans::TARGET;
use super::step::Step;
use super::tell::Tell;
use crate::conventions::names;
use crate::model::SpanId;
use crate::model::budget::{Budget, BudgetExceeded, OVER_BUDGET, Spent};
use crate::propagation::span_context;
use crate::sources::budgets::{Meter, Waiting};
use crate::sources::layer::{meter_of, recorder_of};
use crate::sources::recorder::Recorder;

/// What a run may take, for as long as its handle lives.
#[derive(Debug)]
pub(super) struct Purse {
    meter: Arc<Meter>,
    counted: Option<(Arc<Recorder>, SpanId)>,
}

impl Drop for Purse {
    fn drop(&mut self) {
        if let Some((recorder, root)) = &self.counted {
            recorder.budgets().end(*root);
        }
    }
}

impl Step {
    /// Bounds what is below this step, which has spent so much before.
    pub(super) fn bound(&mut self, budget: Budget, spent: Spent) {
        let span = self.span();
        let recorder = recorder_of(&span).filter(|recorder| recorder.is_recording() && !span.is_disabled());
        let counted = recorder.zip(span_context(&span).map(|context| context.span_id));
        let meter = match &counted {
            Some((recorder, root)) => recorder.budgets().begin(*root, budget, spent),
            None => Arc::new(Meter::new(budget, spent, None)),
        };
        self.purse = Some(Box::new(Purse { meter, counted }));
    }

    /// Gives what is below this step another bound, and says so.
    pub(super) fn rebound(&mut self, budget: Budget, spent: Spent) {
        let json = budget.to_json();
        tracing::event!(
            target: TARGET,
            parent: self.span_id(),
            Level::INFO,
            event.name = names::EVENT_BUDGET,
            runspan.budget = json,
        );
        self.purse = None;
        self.bound(budget, spent);
    }

    /// Says why the run ends, if that is its budget. `instead`: the error that it would end with.
    pub(super) fn ends_over_budget(&self, instead: Option<&str>) -> bool {
        let Some(purse) = &self.purse else { return false };
        say_unpriced(&purse.meter, self.span_id());
        let Some((exceeded, at)) = purse.meter.hit() else { return false };
        let mut message = exceeded.to_string();
        // Code that passes on what it was told says nothing new.
        if let Some(instead) = instead.filter(|instead| !instead.contains(OVER_BUDGET)) {
            message.push_str(&format!("; it ended with: {instead}"));
        }
        if let Some(at) = at {
            self.put(names::ERROR_SPAN, &at.to_string().as_str());
        }
        self.put_failure(names::BUDGET_EXCEEDED, &message);
        true
    }
}

/// Says once that a budget of dollars does not count what has no price.
pub(super) fn say_unpriced(meter: &Meter, at: Option<Id>) {
    if let Some(model) = meter.unpriced_to_say() {
        tracing::event!(
            target: TARGET,
            parent: at,
            Level::WARN,
            event.name = names::EVENT_UNPRICED,
            gen_ai.request.model = model,
            runspan.budget = meter.budget().to_json(),
        );
    }
}

impl Run {
    /// Asks whether one more step may begin within the run's budget ([`RunBuilder::budget`](super::RunBuilder::budget)).
    ///
    /// Cheap enough for every boundary; without a budget the answer is always yes. The budgets of the runs around it
    /// count as well.
    ///
    /// ```
    /// # fn answer(run: &runspan::Run) -> Result<String, Box<dyn std::error::Error>> {
    /// run.check_budget()?;
    /// let call = run.llm("openai", "gpt-4o-mini");
    /// # call.finish();
    /// # Ok(String::new()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When it may not; the run ends as `budget_exceeded` from then on, also where it is dropped by `?`.
    pub fn check_budget(&self) -> Result<(), BudgetExceeded> {
        self.meter().map_or(Ok(()), |meter| {
            say_unpriced(&meter, self.span_id());
            meter.check()
        })
    }

    /// Tells whether [`check_budget`](Self::check_budget) answers no.
    pub fn is_over_budget(&self) -> bool {
        self.check_budget().is_err()
    }

    /// Returns what was taken so far; nothing is counted where no budget was given.
    pub fn spent(&self) -> Spent {
        self.step.purse.as_ref().map(|purse| purse.meter.spent()).unwrap_or_default()
    }

    /// Does `work` for as long as the run is within its budget: a step's end or start that exceeds it has the future
    /// dropped where it waits next, and open steps with it, which are `cancelled`.
    ///
    /// There is no clock in it: `Budget::wall` is looked at whenever the future is polled and at each boundary. For a
    /// call that never answers use your runtime's timeout as well.
    ///
    /// # Errors
    ///
    /// When the budget was exceeded before `work` was done.
    pub async fn within_budget<T>(&self, work: impl Future<Output = T>) -> Result<T, BudgetExceeded> {
        let mut work = pin!(work);
        let waiting = self.meter().map(|meter| Waiting::on(&meter));
        let check = |task: &mut std::task::Context<'_>| match &waiting {
            Some(waiting) => waiting.check(task.waker()),
            None => Ok(()),
        };
        poll_fn(|task| {
            if let Some(waiting) = &waiting {
                say_unpriced(waiting.meter(), self.span_id());
            }
            if let Err(exceeded) = check(task) {
                return Poll::Ready(Err(exceeded));
            }
            match work.as_mut().poll(task) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending => check(task).map_or_else(|exceeded| Poll::Ready(Err(exceeded)), |()| Poll::Pending),
            }
        })
        .await
    }

    /// Returns what counts here: the run's own, or that of the run around it.
    fn meter(&self) -> Option<Arc<Meter>> {
        let own = self.step.purse.as_ref().map(|purse| Arc::clone(&purse.meter));
        own.or_else(|| self.step.span().with_subscriber(|(id, dispatch)| meter_of(dispatch, id))?)
    }
}
