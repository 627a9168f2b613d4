//! Waiting for somebody outside: for an answer, or for the end of a pause.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::Thread;

use serde_json::Value as Json;
use tracing::span::Id;
use tracing::{Dispatch, Level, Span};

use super::budget::say_unpriced;
use super::content::Text;
use super::spans::TARGET;
use crate::conventions::names;
use crate::model::budget::BudgetExceeded;
use crate::model::event::Waiting;
use crate::model::{RunId, RunStatus};
use crate::sources::budgets::Meter;
use crate::sources::desk::{Line, Look, Ticket};
use crate::sources::layer::{meter_of, recorder_at};
use crate::sources::recorder::Taken;

/// What is said of a run that goes on without an answer.
pub(crate) const NO_LONGER: &str = "it waits no longer";

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
    /// The reason `paused` is that of `runspan pause`: a program cannot wait for it on its own.
    Reserved {
        /// The run.
        run: RunId,
    },
    /// The run went on without an answer, by [`Run::wait_no_longer`](crate::Run::wait_no_longer).
    NoLonger {
        /// The run.
        run: RunId,
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
            Self::Reserved { run } => {
                write!(f, "run {run} cannot wait for \"paused\", which is what a pause is called: take another reason")
            }
            Self::NoLonger { run } => write!(f, "run {run} went on without an answer"),
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

    fn span_id(&self) -> Option<Id> {
        self.span.as_ref().map(|(id, _)| id.clone())
    }

    fn say(&self, event: impl FnOnce(Id)) -> Taken {
        let taken = self.span.as_ref().map_or(Taken::Never, |(id, dispatch)| {
            let say = || tracing::dispatcher::with_default(dispatch, || event(id.clone()));
            recorder_at(dispatch).map_or(Taken::Never, |recorder| recorder.takes(say))
        });
        self.line.want_look();
        taken
    }

    fn say_waiting(&self, reason: &str, payload: Option<&Text>, request: Option<&str>) -> Taken {
        self.say_with("payload", payload, |span, fields| {
            tracing::event!(
                target: TARGET,
                parent: span,
                Level::INFO,
                event.name = names::EVENT_WAITING,
                reason = reason,
                request = request,
                runspan.event.fields = fields,
            );
        })
    }

    fn say_resumed(&self, input: Option<&Json>) -> Taken {
        self.say_with("input", input.and_then(Text::of).as_ref(), |span, fields| {
            tracing::event!(
                target: TARGET,
                parent: span,
                Level::INFO,
                event.name = names::EVENT_RESUMED,
                runspan.event.fields = fields,
            );
        })
    }

    /// Says something with a value; where the ring cannot hold that, with a mark in its place: that it happened is what
    /// counts.
    fn say_with(&self, key: &str, value: Option<&Text>, event: impl Fn(Id, Option<&str>)) -> Taken {
        let say = |fields: Option<String>| self.say(|span| event(span, fields.as_deref()));
        match (say(value.map(|value| value.under(key))), value) {
            (Taken::TooLarge, Some(value)) => say(Some(value.mark_under(key))),
            (taken, _) => taken,
        }
    }

    /// Begins a wait, or goes on with it. What the code may rely on is in the ring by then.
    fn begin(&self, reason: &str, payload: Option<&Text>) -> Begun {
        let (number, is_new) = match self.line.begin_wait(reason) {
            Err(open) => return Begun::Other(open),
            Ok(begun) => begun,
        };
        if !is_new {
            self.line.want_look();
            return Begun::Waits(number);
        }
        let request = self.line.pause_request().filter(|_| reason == Waiting::PAUSED);
        match self.say_waiting(reason, payload, request.as_deref()) {
            Taken::Yes(since) => {
                self.line.has_said(number, since, request);
                Begun::Waits(number)
            }
            Taken::Later => {
                self.line.withdraw(number);
                self.line.try_later();
                Begun::Later
            }
            Taken::TooLarge | Taken::Never => {
                self.line.withdraw(number);
                Begun::Never
            }
        }
    }

    /// Ends a wait that nobody answered: the run goes on without.
    pub fn give_up_wait(&self) {
        if self.line.is_cancelled() {
            return;
        }
        let Some(since) = self.line.give_up_wait() else { return };
        let taken = self.say(|span| {
            tracing::event!(
                target: TARGET,
                parent: span,
                Level::INFO,
                event.name = names::EVENT_STATUS_CHANGED,
                from = RunStatus::Waiting.as_str(),
                to = RunStatus::Running.as_str(),
                reason = NO_LONGER,
            );
        });
        if taken == Taken::Later {
            self.line.has_moved_on(since);
        }
    }

    /// Looks for the answer to a wait, and has the task called when there may be one.
    fn poll_answer(&self, number: u64, cx: &mut Context<'_>) -> Poll<Result<Json, WaitError>> {
        let run = self.line.run();
        // Before the look: what comes between both calls the task.
        self.ticket.wake_later(cx.waker());
        if self.line.is_cancelled() {
            return Poll::Ready(Err(WaitError::Cancelled { run }));
        }
        if self.line.is_closed() {
            return Poll::Ready(Err(WaitError::Closed { run }));
        }
        let input = match self.line.look(number) {
            Look::Nothing => return Poll::Pending,
            Look::Gone => return Poll::Ready(Err(WaitError::NoLonger { run })),
            Look::Answer(input) => input,
        };
        // The code gets it once the ring has that it did, and never before: else the next process would get it, too.
        let is_pause = self.line.waits_for().is_some_and(|reason| reason == Waiting::PAUSED);
        match self.say_resumed((!is_pause).then_some(&input)) {
            Taken::Yes(_) => {
                self.line.end_wait(number);
                Poll::Ready(Ok(input))
            }
            Taken::Later => {
                self.line.put_back(number, input);
                self.line.try_later();
                Poll::Pending
            }
            Taken::TooLarge | Taken::Never => {
                self.line.put_back(number, input);
                Poll::Ready(Err(WaitError::Closed { run }))
            }
        }
    }

    /// Is held by a pause, asked for or begun, until there is none. `held`: the number of the wait that this branch of the run
    /// holds for all.
    fn poll_pause(&self, held: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        self.ticket.wake_later(cx.waker());
        if held.is_none() {
            if !self.line.is_paused() {
                return Poll::Ready(Ok(()));
            }
            match self.begin(Waiting::PAUSED, None) {
                Begun::Waits(number) => *held = Some(number),
                Begun::Later => return Poll::Pending,
                // Another branch of the run is held, and says so for both.
                Begun::Other(reason) if reason == Waiting::PAUSED && !self.line.is_closed() => return Poll::Pending,
                // The run waits for an answer: the pause is for when it goes on.
                Begun::Other(_) | Begun::Never => return Poll::Ready(Ok(())),
            }
        }
        let Some(number) = *held else { return Poll::Ready(Ok(())) };
        let ended = ready!(self.poll_answer(number, cx));
        *held = None;
        Poll::Ready(match ended {
            Ok(_) | Err(WaitError::NoLonger { .. }) => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Lets go of waits that have not ended.
    fn leave(&self, waits: impl IntoIterator<Item = u64>) {
        waits.into_iter().for_each(|number| self.line.leave_wait(number));
    }
}

/// What came of the wish to wait.
enum Begun {
    /// The run waits, by this number.
    Waits(u64),
    /// It waits for something else already.
    Other(String),
    /// There is no room to say so now; the task is called when there is.
    Later,
    /// Nobody records it.
    Never,
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
    /// The pause that is held first.
    held: Option<u64>,
    /// The number of the wait, while it lasts.
    number: Option<u64>,
    of_run: PhantomData<&'a ()>,
}

impl Wait<'_> {
    pub(super) fn new(place: Place, reason: String, payload: Option<Text>) -> Self {
        Self { place, reason, payload, held: None, number: None, of_run: PhantomData }
    }

    /// Blocks the thread until the answer is there.
    ///
    /// # Errors
    ///
    /// As when it is awaited.
    pub fn block(self) -> Result<Json, WaitError> {
        block_on(self)
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, WaitError>> {
        let Self { place, held, reason, .. } = self;
        let (line, run) = (&place.line, place.line.run());
        place.ticket.wake_later(cx.waker());
        if line.is_cancelled() {
            return Poll::Ready(Err(WaitError::Cancelled { run }));
        }
        if line.is_dead() {
            return Poll::Ready(Err(WaitError::NotRecorded { run }));
        }
        let is_paused = line.waits_for().is_some_and(|open| open == Waiting::PAUSED);
        if reason != Waiting::PAUSED && (is_paused || held.is_some()) {
            // A run waits for one thing at a time: for this one when the pause is over.
            ready!(place.poll_pause(held, cx))?;
        } else if reason == Waiting::PAUSED && !is_paused {
            return Poll::Ready(Err(WaitError::Reserved { run }));
        }
        match place.begin(reason, self.payload.as_ref()) {
            Begun::Waits(number) => Poll::Ready(Ok(number)),
            Begun::Later => Poll::Pending,
            Begun::Never => Poll::Ready(Err(WaitError::NotRecorded { run })),
            // It came a moment ago.
            Begun::Other(open) if open == Waiting::PAUSED && open != *reason && !line.is_closed() => Poll::Pending,
            Begun::Other(reason) => Poll::Ready(Err(WaitError::Waits { run, reason })),
        }
    }
}

impl Future for Wait<'_> {
    type Output = Result<Json, WaitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = match self.number {
            Some(number) => number,
            None => ready!(self.poll_begin(cx))?,
        };
        self.number = Some(number);
        let ended = ready!(self.place.poll_answer(number, cx));
        if !matches!(ended, Err(WaitError::Closed { .. } | WaitError::Cancelled { .. })) {
            self.number = None;
        }
        Poll::Ready(ended)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.place.leave(self.number.into_iter().chain(self.held));
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
    /// The pause that this branch of the run holds for all.
    held: Option<u64>,
    of_run: PhantomData<&'a ()>,
}

impl Checkpoint<'_> {
    pub(crate) fn new(place: Place) -> Self {
        let meter = place.span.as_ref().and_then(|(id, dispatch)| meter_of(dispatch, id));
        Self { place, meter, held: None, of_run: PhantomData }
    }

    /// Blocks the thread for as long as the run pauses.
    ///
    /// # Errors
    ///
    /// As when it is awaited.
    pub fn block(self) -> Result<(), WaitError> {
        block_on(self)
    }
}

impl Future for Checkpoint<'_> {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let line = &self.place.line;
        if line.is_cancelled() {
            return Poll::Ready(Err(WaitError::Cancelled { run: line.run() }));
        }
        let is_held = self.held.is_some();
        if let Some(meter) = self.meter.as_ref().filter(|_| !is_held) {
            say_unpriced(meter, self.place.span_id());
        }
        if !is_held && let Some(Err(exceeded)) = self.meter.as_ref().map(|meter| meter.check()) {
            return Poll::Ready(Err(WaitError::OverBudget(exceeded)));
        }
        if !is_held && !self.place.line.is_paused() {
            return Poll::Ready(Ok(()));
        }
        let Self { place, held, .. } = &mut *self;
        place.poll_pause(held, cx)
    }
}

impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        self.place.leave(self.held);
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
