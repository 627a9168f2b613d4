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
    lines: Mutex<Lines>,
    /// Those to runs that wait: what they wait for, and what they are told, stays when their code lets go of them.
    waiting: Mutex<IdMap<RunId, Arc<Line>>>,
    /// Runs at whose requests the worker is to look, rung for or not.
    wanted: Mutex<Wanted>,
    is_any_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Wanted {
    runs: Vec<RunId>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Lines {
    to: IdMap<RunId, Weak<Line>>,
    /// Nobody looks any more: lines from here on are dead.
    are_closed: bool,
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
    /// The number of its last wait.
    last_wait: u64,
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
    /// A task has something to say for which the ring had no room.
    is_blocked: bool,
    /// The run goes on without the answer to the wait that the log has at this place in the ring, which had no room to say so.
    moved_on: Option<u64>,
}

/// A wait whose answer has not been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenWait {
    /// Tells it from the run's others in this process.
    number: u64,
    /// What for.
    reason: String,
    /// The place in the ring behind which the log has it; `None` while it is being said.
    since: Option<u64>,
    /// Its answer is being taken: it can be given up no more.
    is_taken: bool,
    /// Somebody polls for it.
    is_awaited: bool,
}

/// What there is for a wait.
#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    Nothing,
    /// The answer, out of the line's hands until it is [ended](Line::end_wait) or [put back](Line::put_back).
    Answer(Json),
    /// The run does not wait for it any more.
    Gone,
}

impl Desk {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the line to a run, and has the worker look what the run was told before there was one.
    pub fn line(self: &Arc<Self>, run: RunId) -> Arc<Line> {
        let mut lines = self.lines();
        if lines.are_closed {
            return Line::dead(run);
        }
        let to = &mut lines.to;
        if let Some(line) = to.get(&run).and_then(Weak::upgrade) {
            return line;
        }
        // Runs come by the thousand: before the map grows, those that are over go.
        if to.len() == to.capacity() {
            to.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::new(Line::new(run, Arc::downgrade(self)));
        to.insert(run, Arc::downgrade(&line));
        drop(lines);
        self.want_look(run);
        line
    }

    /// Returns the line to a run whose code has asked for one.
    pub fn known(&self, run: RunId) -> Option<Arc<Line>> {
        self.lines().to.get(&run).and_then(Weak::upgrade)
    }

    /// Has the worker look at a run's requests with its next turn.
    pub fn want_look(&self, run: RunId) {
        let mut wanted = self.wanted();
        if !wanted.is_closed {
            wanted.runs.push(run);
            self.is_any_wanted.store(true, Ordering::Release);
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the runs at whose requests the worker is to look.
    pub fn take_wanted(&self) -> Vec<RunId> {
        if !self.is_any_wanted.load(Ordering::Relaxed) || !self.is_any_wanted.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.wanted().runs)
    }

    fn waiting(&self) -> MutexGuard<'_, IdMap<RunId, Arc<Line>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait that nobody looks any more.
    pub fn close(&self) {
        *self.wanted() = Wanted { runs: Vec::new(), is_closed: true };
        let lines = std::mem::replace(&mut *self.lines(), Lines { to: IdMap::default(), are_closed: true });
        for line in lines.to.values().filter_map(Weak::upgrade) {
            line.is_closed.store(true, Ordering::Release);
            line.wake();
        }
        // Dropped when the lock is free: the last of a line takes its wakers along, whose code is not ours.
        let waiting = std::mem::take(&mut *self.waiting());
        drop(waiting);
    }
}

impl Told {
    /// Notes what the run waits for, and returns the number of that.
    fn open_wait(&mut self, reason: &str, since: Option<u64>, is_awaited: bool) -> u64 {
        self.last_wait += 1;
        let number = self.last_wait;
        self.wait = Some(OpenWait { number, reason: reason.to_owned(), since, is_taken: false, is_awaited });
        number
    }

    fn waits_since(&self, at: u64) -> bool {
        self.wait.as_ref().and_then(|wait| wait.since).is_some_and(|since| since <= at)
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
            let mut waiting = desk.waiting();
            // Once nobody looks, nobody would ever let go of it.
            if !self.is_closed() {
                waiting.insert(self.run, Arc::clone(self));
            }
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

    /// Forgets the request to wait, of a run that is over.
    pub fn forget_pause(&self) {
        let mut told = self.told();
        told.pause = None;
        self.set_paused(false);
        drop(told);
        self.wake();
    }

    /// Returns the request to wait that was not obeyed yet.
    pub fn pause_request(&self) -> Option<String> {
        self.told().pause.clone()
    }

    /// Tells whether the wait that the log had at a place in the ring is the one that the run is in.
    pub fn waits_since(&self, at: u64) -> bool {
        self.told().waits_since(at)
    }

    /// Gives the run the answer to the wait that the log had at a place in the ring, once; `false` where the run waits for
    /// something else by now.
    pub fn answer(&self, wait: EventId, at: u64, input: Json) -> bool {
        let mut told = self.told();
        if told.answered == Some(wait) {
            return true;
        }
        if !told.waits_since(at) {
            return false;
        }
        (told.answered, told.answer) = (Some(wait), Some(input));
        drop(told);
        self.wake();
        true
    }

    /// Tells whether the answer to a wait was given.
    pub fn is_answered(&self, wait: EventId) -> bool {
        self.told().answered == Some(wait)
    }

    /// Looks for the answer to a wait, and takes it out.
    pub fn look(&self, number: u64) -> Look {
        let mut told = self.told();
        let Told { wait, answer, .. } = &mut *told;
        match wait {
            Some(open) if open.number == number => answer.take().map_or(Look::Nothing, |input| {
                open.is_taken = true;
                Look::Answer(input)
            }),
            _ => Look::Gone,
        }
    }

    /// Puts an answer back that could not be written down.
    pub fn put_back(&self, number: u64, input: Json) {
        let mut told = self.told();
        let Told { wait, answer, .. } = &mut *told;
        if let Some(open) = wait.as_mut().filter(|open| open.number == number) {
            open.is_taken = false;
            *answer = Some(input);
        }
    }

    /// Begins a wait, or goes on with one for the same reason that nobody awaits. Returns its number, and whether it is new:
    /// one that is has to be [said](Self::has_said) or [withdrawn](Self::withdraw).
    ///
    /// # Errors
    ///
    /// What the run waits for already.
    pub fn begin_wait(&self, reason: &str) -> Result<(u64, bool), String> {
        let mut told = self.told();
        match &mut told.wait {
            Some(open) if open.reason == reason && !open.is_awaited => {
                open.is_awaited = true;
                return Ok((open.number, false));
            }
            Some(open) => return Err(open.reason.clone()),
            None => {}
        }
        Ok((told.open_wait(reason, None, true), true))
    }

    /// Notes that a wait is in the ring, in front of a place.
    pub fn has_said(self: &Arc<Self>, number: u64, since: u64, request: Option<String>) {
        let mut told = self.told();
        if request.is_some() {
            if told.pause == request {
                told.pause = None;
            }
            told.paused = request;
        }
        if let Some(open) = told.wait.as_mut().filter(|open| open.number == number) {
            open.since = Some(since);
            // The log has another wait, and needs no word of the one before.
            told.moved_on = None;
            drop(told);
            self.let_desk_keep();
        }
    }

    /// Takes a wait back that could not be said.
    pub fn withdraw(&self, number: u64) {
        let mut told = self.told();
        if told.wait.as_ref().is_some_and(|open| open.number == number) {
            told.wait = None;
        }
    }

    /// Has the tasks called again when the worker has made room.
    pub fn try_later(&self) {
        self.told().is_blocked = true;
        self.want_look();
    }

    /// Calls the tasks that had no room for what they have to say.
    pub fn wake_blocked(&self) {
        if std::mem::take(&mut self.told().is_blocked) {
            self.wake();
        }
    }

    /// Says what the run waits for since before this process. `request`: the one it pauses for.
    pub fn set_wait(self: &Arc<Self>, reason: &str, request: Option<&str>) {
        let mut told = self.told();
        told.open_wait(reason, Some(0), false);
        told.paused = request.map(str::to_owned);
        self.set_paused(reason == Waiting::PAUSED);
        drop(told);
        self.let_desk_keep();
        self.want_look();
    }

    /// Lets a wait go on without anybody who awaits it.
    pub fn leave_wait(&self, number: u64) {
        if let Some(open) = self.told().wait.as_mut().filter(|open| open.number == number) {
            open.is_awaited = false;
        } else {
            return;
        }
        // Another branch may be held by it, and takes it up.
        self.wake();
    }

    /// Ends the wait that there is, if its answer is not being taken; returns behind which place in the ring the log has that.
    pub fn give_up_wait(&self) -> Option<u64> {
        let wait = self.told().wait.as_ref().filter(|open| !open.is_taken).map(|open| (open.number, open.since));
        let (number, since) = wait?;
        since.filter(|_| self.end_wait(number))
    }

    /// Has the worker write down that the run has gone on from a wait, for which the ring had no room.
    pub fn has_moved_on(self: &Arc<Self>, since: u64) {
        self.told().moved_on = Some(since);
        // Its code may let go of it before that is done.
        self.let_desk_keep();
        self.want_look();
    }

    /// Tells, once, whether that is to be written down, of a wait that the worker has come to.
    pub fn takes_moving_on(&self, at: u64) -> bool {
        let is_due = self.told().moved_on.take_if(|since| *since <= at).is_some();
        if is_due {
            self.let_desk_forget();
        }
        is_due
    }

    /// Ends a wait; `false` where it is not there.
    pub fn end_wait(&self, number: u64) -> bool {
        let mut told = self.told();
        let Some(ended) = told.wait.take_if(|open| open.number == number) else { return false };
        told.answer = None;
        if ended.reason == Waiting::PAUSED {
            self.set_paused(told.pause.is_some());
        }
        drop(told);
        self.let_desk_forget();
        // Other branches of the run may be held by the same pause.
        self.wake();
        true
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;

    #[test]
    fn an_answer_goes_to_the_wait_that_the_log_has_and_to_no_later_one() {
        let desk = Arc::new(Desk::default());
        let line = desk.line(RunId([1; 16]));
        let (first, second) = (EventId::fresh(UnixNanos(1)), EventId::fresh(UnixNanos(2)));
        let begin = |reason: &str, since: u64| {
            let (number, is_new) = line.begin_wait(reason).unwrap();
            assert!(is_new);
            line.has_said(number, since, None);
            number
        };
        let one = begin("one", 10);
        assert_eq!(line.give_up_wait(), Some(10));
        let other = begin("other", 30);
        // The worker has come to 20, and knows of the first wait only.
        assert!(!line.answer(first, 20, 1.into()));
        assert_eq!((line.look(one), line.look(other)), (Look::Gone, Look::Nothing));
        assert!(line.answer(second, 30, 2.into()));
        assert_eq!(line.look(other), Look::Answer(2.into()));
        assert_eq!(line.give_up_wait(), None, "its answer is being taken");
        line.put_back(other, 2.into());
        assert_eq!((line.look(other), line.look(other)), (Look::Answer(2.into()), Look::Nothing));
        assert!(line.end_wait(other) && !line.end_wait(other));
    }

    #[test]
    fn a_closed_desk_has_dead_lines_and_remembers_nothing() {
        let desk = Arc::new(Desk::default());
        let before = desk.line(RunId([1; 16]));
        desk.close();
        assert!(before.is_closed() && desk.line(RunId([1; 16])).is_dead());
        before.want_look();
        assert_eq!(desk.take_wanted(), []);
    }
}
