//! Waiting for somebody outside: for an answer, or for the end of a pause.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use serde_json::Value as Json;
use tracing::span::Id;
use tracing::{Dispatch, Level, Span};

use super::content::Text;
use super::spans::TARGET;
use crate::conventions::names;
use crate::model::budget::BudgetExceeded;
use crate::model::event::Waiting;
use crate::model::{RunId, RunStatus};
use crate::sources::budgets::Meter;
use crate::sources::desk::{Line, Ticket};
use crate::sources::layer::meter_of;

/// Why a run does not wait, or waits no longer, without an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WaitError {
    /// The run was asked to end.
    Cancelled {
        /// The run.
        run: RunId,
    },
    /// The run has taken more than its budget; only a checkpoint says so.
    OverBudget(BudgetExceeded),
    /// The run is not recorded, so nobody could answer it.
    NotRecorded {
        /// The run.
        run: RunId,
    },
    /// The run waits for something else already: one answer at a time.
    Waits {
        /// The run.
        run: RunId,
        /// What for.
        reason: String,
    },
    /// Recording has ended. The run still waits: [`Run::resume`](crate::Run::resume) goes on with it.
    Closed {
        /// The run.
        run: RunId,
    },
}

impl WaitError {
    /// Tells whether the run was asked to end.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled { run } => write!(f, "run {run} was asked to end"),
            Self::OverBudget(exceeded) => exceeded.fmt(f),
            Self::NotRecorded { run } => write!(f, "run {run} is not recorded, so nobody can answer it"),
            Self::Waits { run, reason } => write!(f, "run {run} waits already: {reason}"),
            Self::Closed { run } => write!(f, "recording has ended; run {run} still waits"),
        }
    }
}

impl Error for WaitError {}

/// A run that can be told something, and the span that says what it does about that.
#[derive(Debug)]
pub(crate) struct Place {
    pub line: Arc<Line>,
    /// The span, and the subscriber that has it: whoever polls may do so on a thread that has another.
    span: Option<(Id, Dispatch)>,
    ticket: Ticket,
}

impl Place {
    /// Makes that of a span.
    pub fn of(line: Arc<Line>, span: &Span) -> Self {
        Self::at(line, span.with_subscriber(|(id, dispatch)| (id.clone(), dispatch.clone())))
    }

    /// Makes that of a span of a subscriber.
    pub fn at(line: Arc<Line>, span: Option<(Id, Dispatch)>) -> Self {
        let ticket = Ticket::of(&line);
        Self { line, span, ticket }
    }

    fn say(&self, event: impl FnOnce(Id)) {
        if let Some((id, dispatch)) = &self.span {
            tracing::dispatcher::with_default(dispatch, || event(id.clone()));
        }
        self.line.want_look();
    }

    fn say_waiting(&self, reason: &str, payload: Option<&Text>, request: Option<&str>) {
        let fields = payload.map(|payload| format!(r#"{{"payload":{}}}"#, payload.whole_json()));
        self.say(|span| {
            tracing::event!(
                target: TARGET,
                parent: span,
                Level::INFO,
                event.name = names::EVENT_WAITING,
                reason = reason,
                request = request,
                runspan.event.fields = fields.as_deref(),
            );
        });
    }

    fn say_resumed(&self, input: &Json) {
        let fields = Text::of(input).map(|input| format!(r#"{{"input":{}}}"#, input.whole_json()));
        self.say(|span| {
            tracing::event!(
                target: TARGET,
                parent: span,
                Level::INFO,
                event.name = names::EVENT_RESUMED,
                runspan.event.fields = fields.as_deref(),
            );
        });
    }

    /// Ends a wait that nobody answered: the run goes on without.
    pub fn give_up_wait(&self) {
        if !self.line.is_cancelled() && self.line.end_wait() {
            self.say(|span| {
                tracing::event!(
                    target: TARGET,
                    parent: span,
                    Level::INFO,
                    event.name = names::EVENT_STATUS_CHANGED,
                    from = RunStatus::Waiting.as_str(),
                    to = RunStatus::Running.as_str(),
                    reason = "it waits no longer",
                );
            });
        }
    }

    /// Looks for the answer, and has the task called when there may be one.
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Result<Json, WaitError>> {
        let run = self.line.run();
        // Before the look: what comes between both calls the task.
        self.ticket.wake_later(cx.waker());
        if self.line.is_cancelled() {
            return Poll::Ready(Err(WaitError::Cancelled { run }));
        }
        if let Some(input) = self.line.take_answer() {
            self.say_resumed(&input);
            return Poll::Ready(Ok(input));
        }
        if self.line.is_closed() {
            return Poll::Ready(Err(WaitError::Closed { run }));
        }
        Poll::Pending
    }
}

/// A wait for an answer; made by [`Run::wait`](crate::Run::wait). It begins when it is first polled.
///
/// Dropped before the answer came it leaves the run waiting, as the death of the process does: a later
/// [`Run::wait`](crate::Run::wait) for the same reason goes on with it, and so does
/// [`Run::resume`](crate::Run::resume).
#[derive(Debug)]
#[must_use = "a run waits when this is awaited"]
pub struct Wait<'a> {
    place: Place,
    reason: String,
    payload: Option<Text>,
    has_begun: bool,
    of_run: PhantomData<&'a ()>,
}

impl Wait<'_> {
    pub(super) fn new(place: Place, reason: String, payload: Option<Text>) -> Self {
        Self { place, reason, payload, has_begun: false, of_run: PhantomData }
    }

    /// Blocks the thread until the answer is there.
    ///
    /// # Errors
    ///
    /// As when it is awaited.
    pub fn block(self) -> Result<Json, WaitError> {
        block_on(self)
    }

    fn begin(&mut self) -> Result<(), WaitError> {
        let line = &self.place.line;
        if line.is_dead() {
            return Err(WaitError::NotRecorded { run: line.run() });
        }
        match line.begin_wait(&self.reason) {
            Err(reason) => return Err(WaitError::Waits { run: line.run(), reason }),
            Ok(true) => self.place.say_waiting(&self.reason, self.payload.as_ref(), None),
            Ok(false) => line.want_look(),
        }
        self.has_begun = true;
        Ok(())
    }
}

impl Future for Wait<'_> {
    type Output = Result<Json, WaitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.has_begun {
            if self.place.line.is_cancelled() {
                return Poll::Ready(Err(WaitError::Cancelled { run: self.place.line.run() }));
            }
            if let Err(error) = self.begin() {
                return Poll::Ready(Err(error));
            }
        }
        self.place.poll_answer(cx)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.has_begun {
            self.place.line.leave_wait();
        }
    }
}

/// A boundary between steps, where a run that was asked to pause waits; made by
/// [`Run::checkpoint`](crate::Run::checkpoint).
#[derive(Debug)]
#[must_use = "a run pauses when this is awaited"]
pub struct Checkpoint<'a> {
    place: Place,
    /// What counts for the run, if it has a budget.
    meter: Option<Arc<Meter>>,
    holds: bool,
    of_run: PhantomData<&'a ()>,
}

impl Checkpoint<'_> {
    pub(crate) fn new(place: Place) -> Self {
        let meter = place.span.as_ref().and_then(|(id, dispatch)| meter_of(dispatch, id));
        Self { place, meter, holds: false, of_run: PhantomData }
    }

    /// Blocks the thread for as long as the run pauses.
    ///
    /// # Errors
    ///
    /// As when it is awaited.
    pub fn block(self) -> Result<(), WaitError> {
        block_on(self)
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        let line = Arc::clone(&self.place.line);
        self.place.ticket.wake_later(cx.waker());
        if !line.is_paused() {
            return Poll::Ready(Ok(()));
        }
        match line.begin_wait(Waiting::PAUSED) {
            Ok(is_new) => {
                self.holds = true;
                if is_new {
                    let request = line.take_pause();
                    self.place.say_waiting(Waiting::PAUSED, None, request.as_deref());
                }
                self.place.poll_answer(cx).map_ok(drop)
            }
            // Another branch of the run is held, and says so for both.
            Err(reason) if reason == Waiting::PAUSED && !line.is_closed() => Poll::Pending,
            // The run waits for an answer: the pause is for when it goes on.
            Err(_) => Poll::Ready(Ok(())),
        }
    }
}

impl Future for Checkpoint<'_> {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let line = &self.place.line;
        if line.is_cancelled() {
            return Poll::Ready(Err(WaitError::Cancelled { run: line.run() }));
        }
        if self.holds {
            return self.place.poll_answer(cx).map_ok(drop);
        }
        if let Some(Err(exceeded)) = self.meter.as_ref().map(|meter| meter.check()) {
            return Poll::Ready(Err(WaitError::OverBudget(exceeded)));
        }
        let line = &self.place.line;
        if !line.is_paused() {
            return Poll::Ready(Ok(()));
        }
        self.poll_pause(cx)
    }
}

impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        if self.holds {
            self.place.line.leave_wait();
        }
    }
}

/// Tells a run's code that the run is to end; made by [`Run::cancellation`](crate::Run::cancellation).
///
/// To look costs one read of memory. Clones tell of the same run.
#[derive(Clone, Debug)]
pub struct Cancellation {
    line: Arc<Line>,
}

impl Cancellation {
    pub(crate) fn of(line: Arc<Line>) -> Self {
        Self { line }
    }

    /// Tells whether the run was asked to end, itself or through a run above it.
    pub fn is_cancelled(&self) -> bool {
        self.line.is_cancelled()
    }

    /// Waits until the run is asked to end; for `select!` beside the run's own work. Of a run that nobody can ask it never
    /// ends.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { line: Arc::clone(&self.line), ticket: Ticket::of(&self.line) }
    }
}

/// A future that ends when a run is asked to end; made by [`Cancellation::cancelled`].
#[derive(Debug)]
#[must_use = "it is to be awaited"]
pub struct Cancelled {
    line: Arc<Line>,
    ticket: Ticket,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.ticket.wake_later(cx.waker());
        if self.line.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Blocks the thread until a future has ended.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
