//! Asking runs for something from outside: to go on with an answer, to pause, to end.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, _) = runspan::recovery::open(".runspan")?;
//! runspan::control::resume(&store, "01KE9BZH80BG", Some(serde_json::json!({"approved": true})))?;
//! # Ok(()) }
//! ```
//!
//! A request is a small file in the run's folder, on the disk when these return, and is taken by the process that writes
//! the run: within a tenth of a second by one that lives, else by the one that goes on with it
//! ([`Run::resume`](crate::Run::resume)). `docs/act.md` says what it then does.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tracing_subscriber::layer::SubscriberExt;

use crate::Run;
use crate::journal;
use crate::model::event::Waiting;
use crate::model::id::IdSet;
use crate::model::{Event, EventBody, EventId, RunId, RunStatus, RunSummary, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::files::FilesReader;
use crate::store::files::layout::Layout;
use crate::store::files::requests::{Cancel, MAX_INPUT, Pause, Requests, Resume, ring_bell};
use crate::store::{RunReader, StoreError};

/// How long the end of a run is waited for whose process is dead.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The run.
    pub run_id: RunId,
    /// How it stands a moment later.
    pub status: RunStatus,
    /// A process that lives writes the run, and looks at the request now. Else it is kept.
    pub is_heard: bool,
}

/// Why a run is not asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// The store does not have it, or cannot be written.
    Store(StoreError),
    /// Only a run that waits can be resumed.
    NotWaiting {
        /// The run.
        run: RunId,
        /// How it stands.
        status: RunStatus,
    },
    /// It waits, and somebody else's answer came first.
    Answered {
        /// The run.
        run: RunId,
    },
    /// Only a run that is running can be paused.
    NotRunning {
        /// The run.
        run: RunId,
        /// How it stands.
        status: RunStatus,
    },
    /// It is not paused itself, and goes on with a run above it that is.
    Held {
        /// The run.
        run: RunId,
        /// The one that is paused.
        by: RunId,
    },
    /// A run that is over cannot be cancelled.
    Over {
        /// The run.
        run: RunId,
        /// How it ended.
        status: RunStatus,
    },
    /// It came over OTLP: its program knows nothing of this store.
    FromOutside {
        /// The run.
        run: RunId,
    },
    /// It waits for an answer, and none was given.
    NeedsInput {
        /// The run.
        run: RunId,
        /// What it waits for.
        reason: String,
    },
    /// It is paused: there is nothing to answer, and an answer was given.
    TakesNoInput {
        /// The run.
        run: RunId,
    },
    /// The answer is longer than 1 MiB.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The run of a dead process cannot be ended from here.
    NotEnded {
        /// The run.
        run: RunId,
        /// Why not.
        why: String,
    },
}

impl AskError {
    /// Tells whether the answer is no: the run is there and does not stand so that it could be asked this.
    pub fn is_negative_answer(&self) -> bool {
        match self {
            Self::Store(error) => error.is_negative_answer(),
            Self::TooLong { .. } | Self::NeedsInput { .. } | Self::TakesNoInput { .. } | Self::NotEnded { .. } => false,
            _ => true,
        }
    }

    /// Tells whether the caller asked wrongly.
    pub fn is_wrong_use(&self) -> bool {
        match self {
            Self::Store(error) => error.is_wrong_use(),
            _ => matches!(self, Self::TooLong { .. } | Self::NeedsInput { .. } | Self::TakesNoInput { .. }),
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::NotWaiting { run, status: RunStatus::Running } => write!(f, "run {run} does not wait: it is running"),
            Self::NotWaiting { run, status } => write!(f, "run {run} does not wait: it ended as {status}"),
            Self::Answered { run } => write!(f, "run {run} is waiting, and was answered a moment ago by somebody else"),
            Self::NotRunning { run, status: RunStatus::Waiting } => {
                write!(f, "run {run} is not running: it is waiting")
            }
            Self::NotRunning { run, status } | Self::Over { run, status } => {
                write!(f, "run {run} is over: it ended as {status}")
            }
            Self::Held { run, by } => write!(f, "run {run} is not paused itself: it is held with run {by}, which is"),
            Self::FromOutside { run } => {
                write!(f, "run {run} came over OTLP: its program does not listen, so there is nobody to tell")
            }
            Self::NeedsInput { run, reason } => {
                write!(f, "run {run} waits for an answer ({reason}), and none is given")
            }
            Self::TakesNoInput { run } => write!(f, "run {run} is paused and takes no answer"),
            Self::TooLong { bytes } => write!(f, "the answer has {bytes} bytes, more than {MAX_INPUT}"),
            Self::NotEnded { run, why } => write!(f, "run {run}, whose process is dead, is not ended: {why}"),
        }
    }
}

impl Error for AskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Answers a run that waits; of several at once one does. A run that was paused takes no answer.
///
/// # Errors
///
/// [`AskError::NotWaiting`], [`AskError::Held`], [`AskError::Answered`], [`AskError::NeedsInput`], [`AskError::TakesNoInput`],
/// [`AskError::FromOutside`], [`AskError::TooLong`], and what the store says.
pub fn resume(store: &FilesReader, id: &str, input: Option<Json>) -> Result<Asked, AskError> {
    let bytes = input.as_ref().map_or(0, |input| input.to_string().len());
    if bytes > MAX_INPUT {
        return Err(AskError::TooLong { bytes });
    }
    let (summary, state) = look(store, store.resolve(id)?)?;
    let (run, status) = (summary.run_id, summary.status);
    let Some(wait) = state.waiting_event() else {
        return Err(match held_by(store, &summary) {
            Some(by) => AskError::Held { run, by },
            None => AskError::NotWaiting { run, status },
        });
    };
    let requests = requests(store, &summary)?;
    match (asks_for(&state, &store.get_events(run, 0)?), &input) {
        (Some(reason), None) => return Err(AskError::NeedsInput { run, reason }),
        (None, Some(_)) => return Err(AskError::TakesNoInput { run }),
        _ => {}
    }
    if !requests.put_resume(wait, &Resume { at: UnixNanos::now(), input, taken_at: None })? {
        // Who answered first may have died before it rang.
        tell(store, run)?;
        return Err(AskError::Answered { run });
    }
    // Another answer cannot have come first, but the run may have moved on without any.
    let (after, _) = look(store, run)?;
    let events = store.get_events(run, 0)?;
    if let Some(status) = left_without_answer(&events, wait, after.status) {
        requests.withdraw_resume(wait)?;
        return Err(AskError::NotWaiting { run, status });
    }
    tell(store, run)
}

/// Asks a run to wait at its next boundary; asked twice it does so once.
///
/// # Errors
///
/// [`AskError::NotRunning`], [`AskError::FromOutside`], and what the store says.
pub fn pause(store: &FilesReader, id: &str) -> Result<Asked, AskError> {
    let (summary, _) = look(store, store.resolve(id)?)?;
    let (run, status) = (summary.run_id, summary.status);
    if status != RunStatus::Running {
        return Err(AskError::NotRunning { run, status });
    }
    let now = UnixNanos::now();
    requests(store, &summary)?.put_pause(&Pause { id: RunId::fresh(now).to_string(), at: now })?;
    tell(store, run)
}

/// Ends a run and those that it has started. The first of the answer is the run itself.
///
/// One whose process is dead and that waits is ended by this process, which blocks the thread: at most ten seconds for each
/// such run, commonly some milliseconds. In async code call it where blocking is allowed.
///
/// # Errors
///
/// [`AskError::Over`], [`AskError::FromOutside`], and what the store says. What is below it is asked all the same.
pub fn cancel(store: &FilesReader, id: &str) -> Result<Vec<Asked>, AskError> {
    let run = store.resolve(id)?;
    let first = cancel_one(store, run, None);
    let below = match (&first, store.open_below(run)) {
        (Ok(_), below) => below?,
        // What keeps the run itself from being asked is what there is to say.
        (Err(_), below) => below.unwrap_or_default(),
    };
    let mut asked = Vec::new();
    for (below, parent) in below {
        match cancel_one(store, below, Some(parent)) {
            Ok(below) => asked.push(below),
            // The request to the one above was faster.
            Err(AskError::Over { run, status: RunStatus::Cancelled }) => {
                asked.push(Asked { run_id: run, status: RunStatus::Cancelled, is_heard: true });
            }
            // One that ends in this moment, or cannot be told, keeps no other from being asked.
            Err(_) => {}
        }
    }
    asked.insert(0, first?);
    Ok(asked)
}

fn cancel_one(store: &FilesReader, run: RunId, parent_run_id: Option<RunId>) -> Result<Asked, AskError> {
    let (summary, _) = look(store, run)?;
    if !summary.status.is_open() {
        return Err(AskError::Over { run, status: summary.status });
    }
    let requests = requests(store, &summary)?;
    requests.put_cancel(&Cancel { at: UnixNanos::now(), parent_run_id })?;
    let asked = tell(store, run)?;
    if !asked.status.is_open() && asked.status != RunStatus::Cancelled {
        // It ended by itself: what it starts later, as a run that is over may, was not asked.
        requests.remove_cancel()?;
        return Err(AskError::Over { run, status: asked.status });
    }
    if asked.is_heard || !asked.status.is_open() {
        return Ok(asked);
    }
    let ended = end_for_the_dead(store, run);
    let status = store.get_run(run)?.status;
    // One whose topmost step is not there to be ended is cancelled all the same.
    if status.is_open() {
        ended?;
    }
    Ok(Asked { status, ..asked })
}

/// Ends a run that waits and whose process is dead, as the process that goes on with it would. Blocks: see [`cancel`].
fn end_for_the_dead(store: &FilesReader, run: RunId) -> Result<(), AskError> {
    let not_ended = |why: &dyn fmt::Display| AskError::NotEnded { run, why: why.to_string() };
    let built = crate::builder().store(store.layout().root()).build();
    let (layer, guard) = built.map_err(|error| not_ended(&error))?;
    let subscriber = tracing_subscriber::registry().with(layer);
    let ended = tracing::subscriber::with_default(subscriber, || {
        let resumed = Run::resume(&run.to_string()).map_err(|error| not_ended(&error))?;
        let (cancellation, until) = (resumed.run.cancellation(), Instant::now() + END_LIMIT);
        while !cancellation.is_cancelled() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    guard.shutdown(END_LIMIT);
    ended
}

/// Returns the nearest run above one that is paused and holds this one with it: that of a command, whose processes are stopped
/// then, those of the runs below it among them. A run that is held hears nothing until that one goes on, and stands as it
/// stood.
///
/// What cannot be read holds nobody.
pub fn held_by(store: &FilesReader, run: &RunSummary) -> Option<RunId> {
    let mut seen = IdSet::from_iter([run.run_id]);
    let mut above = run.parent_run_id.filter(|_| run.status.is_open());
    while let Some(parent) = above.filter(|parent| seen.insert(*parent)) {
        let parent = store.get_run(parent).ok()?;
        if holds_those_below(store, &parent) {
            return Some(parent.run_id);
        }
        above = parent.parent_run_id;
    }
    None
}

/// Tells whether a run is that of a command and paused.
pub fn holds_those_below(store: &FilesReader, run: &RunSummary) -> bool {
    let layout = store.layout();
    let is_of_command =
        |writer: RunId| journal::is_of_command_in(layout.fs(), &layout.journal(), &writer.to_string()).unwrap_or(false);
    // All that a command waits for is the end of its pause.
    run.status == RunStatus::Waiting && run.writer.is_some_and(is_of_command)
}

/// Returns a run as it stands.
fn look(store: &FilesReader, run: RunId) -> Result<(RunSummary, RunState), StoreError> {
    let summary = store.get_run(run)?;
    Ok((summary, RunState::read(run, &store.get_events(run, 0)?)))
}

/// Returns the place of a run's requests, if its program would see them.
fn requests<'a>(store: &'a FilesReader, summary: &RunSummary) -> Result<Requests<'a>, AskError> {
    let (layout, run) = (store.layout(), summary.run_id);
    let is_bridge = |writer: RunId| journal::is_resumable_in(layout.fs(), &layout.journal(), &writer.to_string());
    if summary.writer.is_some_and(is_bridge) {
        return Err(AskError::FromOutside { run });
    }
    let found = Requests::find(layout, run)?;
    found.ok_or_else(|| StoreError::NotFound { id: run.to_string() }.into())
}

/// Rings for the process that writes a run, whichever that is by now, and returns how the run stands.
fn tell(store: &FilesReader, run: RunId) -> Result<Asked, AskError> {
    let mut summary = store.get_run(run)?;
    let mut is_heard = false;
    // Who goes on with a run looks at its requests after `run.yaml` says so: one of both sees the other.
    for _ in 0..2 {
        let Some(writer) = summary.writer else { break };
        is_heard = !store.is_dead(writer) && ring_bell(store.layout(), writer)?;
        let after = store.get_run(run)?;
        let is_same = after.writer == summary.writer;
        summary = after;
        if is_same {
            break;
        }
    }
    Ok(Asked { run_id: run, status: summary.status, is_heard })
}

/// Returns what a run waits for that is not merely paused.
fn asks_for(state: &RunState, events: &[Event]) -> Option<String> {
    let waiting = state.waits_for(events)?;
    (waiting.reason.as_deref() != Some(Waiting::PAUSED)).then(|| waiting.reason.clone().unwrap_or_default())
}

/// Returns how a run stands that went on from a wait without an answer to it.
fn left_without_answer(events: &[Event], wait: EventId, status: RunStatus) -> Option<RunStatus> {
    let since = events.iter().skip_while(|event| event.event_id != wait).skip(1);
    let mut moved = since.filter_map(|event| match &event.body {
        EventBody::Resumed(_) => Some(true),
        EventBody::Waiting(_) | EventBody::StatusChanged(_) | EventBody::RunCompleted(_) => Some(false),
        _ => None,
    });
    (moved.next() == Some(false)).then_some(status)
}

/// The requests of one run, for a program that writes the run by other means than [`Run`], and takes them itself.
///
/// What cannot be read now counts as not there: who looks again finds it.
#[derive(Clone, Debug)]
pub struct Inbox {
    layout: Layout,
    run: RunId,
}

impl Inbox {
    /// Names the requests of a run in a store.
    pub fn of(layout: &Layout, run: RunId) -> Self {
        Self { layout: layout.clone(), run }
    }

    fn requests(&self) -> Option<Requests<'_>> {
        Requests::find(&self.layout, self.run).ok().flatten()
    }

    /// Tells whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.requests().is_some_and(|requests| matches!(requests.cancel(), Ok(Some(_))))
    }

    /// Returns the id of the request to pause, if there is one.
    pub fn pause(&self) -> Option<String> {
        Some(self.requests()?.pause().ok()??.id)
    }

    /// Says that there is nothing left to do about a request to pause: the log has, for good, that the run pauses, or it is to end.
    pub fn note_paused(&self) {
        // Should it stay, the run pauses once more.
        let _ = self.requests().map(|requests| requests.remove_pause());
    }

    /// Returns the wait that was answered and whose answer was not taken: the one that the run is in.
    pub fn answered(&self) -> Option<EventId> {
        let requests = self.requests()?;
        let is_new = |wait: &EventId| matches!(requests.resume(*wait), Ok(Some(Resume { taken_at: None, .. })));
        requests.answered().ok()?.into_iter().find(is_new)
    }

    /// Says that the log has, for good, that the run is over: what it was asked meanwhile is taken back.
    pub fn close(&self, is_cancelled: bool) {
        // What stays is in nobody's way: the run is over.
        let _ = self.requests().map(|requests| requests.close(is_cancelled, UnixNanos::now()));
    }

    /// Says that the log has, for good, that the run goes on.
    pub fn note_resumed(&self, wait: EventId) {
        let _ = self.requests().map(|requests| requests.note_taken(wait, UnixNanos::now()));
    }
}
