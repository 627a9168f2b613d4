//! What a process is told of its own runs from outside: answers, requests to pause and to end.
//!
//! The worker puts here what it finds in the store, and code that runs inside a run finds it here: a flag to look at, or
//! a waker to be called. Nothing here touches a disk.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use serde_json::Value as Json;

use crate::model::event::Waiting;
use crate::model::id::IdMap;
use crate::model::{EventId, RunId};

/// How many runs of this process are to wait at their next boundary, or do: code that does not know its run looks here
/// first.
static PAUSED: AtomicUsize = AtomicUsize::new(0);

/// Tells whether any run of this process is to wait at its next boundary, or does.
#[cfg(feature = "macros")]
pub(crate) fn is_any_paused() -> bool {
    PAUSED.load(Ordering::Relaxed) > 0
}

/// The lines to the runs of one recorder. A run has one once its code asks for what it may be told.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    lines: Mutex<IdMap<RunId, Weak<Line>>>,
    /// Those to runs that wait: what they wait for, and what they are told, stays when their code lets go of them.
    waiting: Mutex<IdMap<RunId, Arc<Line>>>,
    /// Runs at whose requests the worker is to look, rung for or not.
    wanted: Mutex<Vec<RunId>>,
    is_any_wanted: AtomicBool,
}

/// What one run is told.
#[derive(Debug)]
pub(crate) struct Line {
    run: RunId,
    desk: Weak<Desk>,
    is_cancelled: AtomicBool,
    /// The run is to wait at its next boundary, or does.
    is_paused: AtomicBool,
    /// Nobody will tell anything any more.
    is_closed: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// What the run waits for.
    wait: Option<OpenWait>,
    answer: Option<Json>,
    /// The wait whose answer was told last: the file of an answer stays until the log has it.
    answered: Option<EventId>,
    /// The request to pause, until it is seen.
    pause: Option<String>,
    /// The one seen last.
    paused: Option<String>,
    /// The tasks that wait to be told, each with the number of its ticket.
    wakers: Vec<(u64, Waker)>,
    /// A handle of the run is in somebody's hands.
    is_held: bool,
}

/// A wait whose answer has not been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenWait {
    /// What for.
    reason: String,
    /// Somebody polls for it.
    is_awaited: bool,
}

impl Desk {
    fn lines(&self) -> MutexGuard<'_, IdMap<RunId, Weak<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the line to a run, and has the worker look what the run was told before there was one.
    pub fn line(self: &Arc<Self>, run: RunId) -> Arc<Line> {
        let mut lines = self.lines();
        if let Some(line) = lines.get(&run).and_then(Weak::upgrade) {
            return line;
        }
        // Runs come by the thousand: before the map grows, those that are over go.
        if lines.len() == lines.capacity() {
            lines.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::new(Line::new(run, Arc::downgrade(self)));
        lines.insert(run, Arc::downgrade(&line));
        drop(lines);
        self.want_look(run);
        line
    }

    /// Returns the line to a run whose code has asked for one.
    pub fn known(&self, run: RunId) -> Option<Arc<Line>> {
        self.lines().get(&run).and_then(Weak::upgrade)
    }

    /// Has the worker look at a run's requests with its next turn.
    pub fn want_look(&self, run: RunId) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        self.is_any_wanted.store(true, Ordering::Release);
    }

    /// Takes the runs at whose requests the worker is to look.
    pub fn take_wanted(&self) -> Vec<RunId> {
        if !self.is_any_wanted.load(Ordering::Relaxed) || !self.is_any_wanted.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn waiting(&self) -> MutexGuard<'_, IdMap<RunId, Arc<Line>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait that nobody looks any more.
    pub fn close(&self) {
        // Dropped when the lock is free: the last of a line takes its wakers along, whose code is not ours.
        let waiting = std::mem::take(&mut *self.waiting());
        drop(waiting);
        let lines = std::mem::take(&mut *self.lines());
        for line in lines.values().filter_map(Weak::upgrade) {
            line.is_closed.store(true, Ordering::Release);
            line.wake();
        }
    }
}

impl Line {
    fn new(run: RunId, desk: Weak<Desk>) -> Self {
        Self {
            run,
            desk,
            is_cancelled: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// Makes the line to a run that is not recorded: nobody will ever tell it anything.
    pub fn dead(run: RunId) -> Arc<Self> {
        let line = Self::new(run, Weak::new());
        line.is_closed.store(true, Ordering::Release);
        Arc::new(line)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Has the worker look at the run's requests with its next turn.
    pub fn want_look(&self) {
        if let Some(desk) = self.desk.upgrade() {
            desk.want_look(self.run);
        }
    }

    /// Tells whether the run was never recorded.
    pub fn is_dead(&self) -> bool {
        self.desk.strong_count() == 0 && self.is_closed()
    }

    /// Tells whether nobody will tell anything any more.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Tells whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Tells the run to end.
    pub fn cancel(&self) {
        if !self.is_cancelled.swap(true, Ordering::AcqRel) {
            self.wake();
            self.let_desk_forget();
        }
    }

    fn let_desk_forget(&self) {
        if let Some(desk) = self.desk.upgrade() {
            let kept = desk.waiting().remove(&self.run);
            drop(kept);
        }
    }

    fn let_desk_keep(self: &Arc<Self>) {
        if let Some(desk) = self.desk.upgrade() {
            desk.waiting().insert(self.run, Arc::clone(self));
        }
    }

    /// Tells whether the run is to wait at its next boundary, or does.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    fn set_paused(&self, is_paused: bool) {
        match (self.is_paused.swap(is_paused, Ordering::AcqRel), is_paused) {
            (false, true) => {
                PAUSED.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                PAUSED.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Tells the run to wait at its next boundary, once for each request.
    pub fn ask_to_pause(&self, request: &str) {
        let mut told = self.told();
        if told.paused.as_deref() != Some(request) {
            told.pause = Some(request.to_owned());
            self.set_paused(true);
        }
    }

    /// Takes the request to wait: the run does from now on.
    pub fn take_pause(&self) -> Option<String> {
        let mut told = self.told();
        let request = told.pause.take()?;
        told.paused = Some(request.clone());
        Some(request)
    }

    /// Gives the run the answer to a wait, once.
    pub fn answer(&self, wait: EventId, input: Json) {
        let mut told = self.told();
        if told.answered == Some(wait) {
            return;
        }
        (told.answered, told.answer) = (Some(wait), Some(input));
        drop(told);
        self.wake();
    }

    /// Tells whether the answer to a wait was given.
    pub fn is_answered(&self, wait: EventId) -> bool {
        self.told().answered == Some(wait)
    }

    /// Takes the answer, which ends the wait.
    pub fn take_answer(&self) -> Option<Json> {
        let answer = self.told().answer.take()?;
        self.end_wait();
        Some(answer)
    }

    /// Begins a wait, or goes on with one for the same reason that nobody awaits. `Ok(true)` where it is new.
    ///
    /// # Errors
    ///
    /// What the run waits for already.
    pub fn begin_wait(self: &Arc<Self>, reason: &str) -> Result<bool, String> {
        let mut told = self.told();
        match &mut told.wait {
            Some(open) if open.reason == reason && !open.is_awaited => {
                open.is_awaited = true;
                return Ok(false);
            }
            Some(open) => return Err(open.reason.clone()),
            None => told.wait = Some(OpenWait { reason: reason.to_owned(), is_awaited: true }),
        }
        drop(told);
        self.let_desk_keep();
        Ok(true)
    }

    /// Says what the run waits for since before this process. `request`: the one it pauses for.
    pub fn set_wait(self: &Arc<Self>, reason: &str, request: Option<&str>) {
        let mut told = self.told();
        told.wait = Some(OpenWait { reason: reason.to_owned(), is_awaited: false });
        told.paused = request.map(str::to_owned);
        self.set_paused(reason == Waiting::PAUSED);
        drop(told);
        self.let_desk_keep();
    }

    /// Lets a wait go on without anybody who awaits it.
    pub fn leave_wait(&self) {
        if let Some(open) = &mut self.told().wait {
            open.is_awaited = false;
        }
    }

    /// Ends the wait; `false` where there is none.
    pub fn end_wait(&self) -> bool {
        let mut told = self.told();
        told.answer = None;
        let ended = told.wait.take();
        if ended.as_ref().is_some_and(|wait| wait.reason == Waiting::PAUSED) {
            self.set_paused(told.pause.is_some());
        }
        drop(told);
        self.let_desk_forget();
        // Other branches of the run may be held by the same pause.
        self.wake();
        ended.is_some()
    }

    /// Tells what the run waits for.
    pub fn waits_for(&self) -> Option<String> {
        self.told().wait.as_ref().map(|wait| wait.reason.clone())
    }

    /// Takes the run in hand; `false` where somebody has it.
    pub fn hold(&self) -> bool {
        !std::mem::replace(&mut self.told().is_held, true)
    }

    /// Lets go of the run.
    pub fn let_go(&self) {
        self.told().is_held = false;
    }

    fn wake(&self) {
        // The tasks' own code runs here, so not under the lock.
        let wakers = std::mem::take(&mut self.told().wakers);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Has a task called when a run is told something; dropped, no more.
#[derive(Debug)]
pub(crate) struct Ticket {
    line: Arc<Line>,
    number: u64,
}

impl Ticket {
    /// Makes one for a line.
    pub fn of(line: &Arc<Line>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { line: Arc::clone(line), number: LAST.fetch_add(1, Ordering::Relaxed) }
    }

    /// Has the task called that is polling now.
    pub fn wake_later(&self, waker: &Waker) {
        let mut told = self.line.told();
        let replaced = match told.wakers.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, known)) if known.will_wake(waker) => None,
            Some((_, known)) => Some(std::mem::replace(known, waker.clone())),
            None => {
                told.wakers.push((self.number, waker.clone()));
                None
            }
        };
        drop(told);
        drop(replaced);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut told = self.line.told();
        let place = told.wakers.iter().position(|(number, _)| *number == self.number);
        let own = place.map(|place| told.wakers.swap_remove(place));
        drop(told);
        drop(own);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set_paused(false);
    }
}
