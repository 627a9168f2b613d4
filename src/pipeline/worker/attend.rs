//! The worker's ear: what people ask of this process's runs, and runs that it takes over from dead processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::model::{EventId, RunId, RunStatus, RunSummary, UnixNanos, unknown};
use crate::recovery::{closed, starts_of};
use crate::sinks::store::{Claimed, Standing};
use crate::sources::desk::Line;
use crate::store::files::FilesReader;
use crate::store::files::layout::Layout;
use crate::store::files::requests::{Cancel, Requests, bell_count};
use crate::store::{RunReader, StoreError};

/// How often it is listened for the bell.
const LISTEN: Duration = Duration::from_millis(100);
/// How often it is looked without that: whether runs that wait were answered, and whether the parents of runs were asked to
/// end, which may be other processes' runs, for which nobody rings here.
const LOOK_UP: Duration = Duration::from_millis(500);

/// Longest time until a run is looked at again whose requests cannot be read.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// When it was listened last, and what was heard.
#[derive(Debug)]
pub(super) struct Ear {
    layout: Layout,
    listened: Instant,
    looked_up: Instant,
    rung: u64,
    /// Lines to runs that are to pause: their code may not have asked for one.
    lines: Vec<Arc<Line>>,
    /// Runs whose requests cannot be read, when they are looked at again, and how long that was waited for.
    troubled: BTreeMap<RunId, (Instant, Duration)>,
}

impl Ear {
    pub fn new(root: &std::path::Path) -> Self {
        let now = Instant::now();
        Self {
            layout: Layout::new(root),
            listened: now,
            looked_up: now,
            rung: 0,
            lines: Vec::new(),
            troubled: BTreeMap::new(),
        }
    }

    /// Has a run looked at again in a while: what it was asked is half made, or the disk is in trouble.
    fn note_trouble(&mut self, run: RunId) {
        let last = self.troubled.get(&run).map_or(LISTEN / 2, |(_, waited)| *waited);
        let wait = (last * 2).min(MAX_BACKOFF);
        self.troubled.insert(run, (Instant::now() + wait, wait));
    }

    /// Tells whether there is something to look at or to let go of although no run is under way.
    fn is_busy(&self) -> bool {
        !self.lines.is_empty() || !self.troubled.is_empty()
    }

    /// Returns those in trouble that are to be looked at now.
    fn due(&self) -> Vec<RunId> {
        let now = Instant::now();
        self.troubled.iter().filter(|(_, (at, _))| *at <= now).map(|(run, _)| *run).collect()
    }
}

/// What came of a look at the requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    All,
    /// The run's status is another.
    Moved,
    /// The log does not have yet what has to be there first.
    NotYet,
}

impl State {
    /// Looks at what is asked of runs: of all that are under way when somebody rang, else of those whose code has begun to
    /// listen.
    pub(super) fn attend(&mut self) {
        if self.sink_retry.is_some() {
            // How runs stand is not known now.
            return;
        }
        let mut runs = self.worker.recorder.desk().take_wanted();
        let (mut is_changed, mut is_moved) = (false, false);
        if self.ear.listened.elapsed() >= LISTEN && (self.worker.sink.has_open_runs() || self.ear.is_busy()) {
            self.ear.listened = Instant::now();
            self.let_go_of_ended();
            runs.extend(self.ear.due());
            let rung = bell_count(&self.ear.layout, self.worker.process);
            if rung != self.ear.rung {
                self.ear.rung = rung;
                runs.extend(self.worker.sink.open_runs());
            }
            if self.ear.looked_up.elapsed() >= LOOK_UP {
                self.ear.looked_up = Instant::now();
                is_changed |= self.look_up();
                // Who answered may have died before it rang.
                runs.extend(self.worker.sink.waiting_runs());
            }
        }
        for run in runs {
            if let Some(line) = self.worker.recorder.desk().known(run) {
                // There may be room now.
                line.wake_blocked();
            }
            is_moved |= self.attend_or_note(run);
        }
        if is_moved {
            // Those below them in this process.
            self.look_up();
        }
        if is_moved || is_changed {
            self.settle();
        }
    }

    /// Looks at the requests of one run, now and, where that is of no use yet, again; tells whether its status is another.
    fn attend_or_note(&mut self, run: RunId) -> bool {
        let heard = self.attend_to(run);
        if heard.is_err() {
            self.ear.note_trouble(run);
        } else {
            self.ear.troubled.remove(&run);
        }
        if matches!(heard, Ok(Heard::NotYet)) {
            self.worker.recorder.desk().want_look(run);
        }
        matches!(heard, Ok(Heard::Moved))
    }

    /// Lets go of the lines to runs that were to pause and are over.
    fn let_go_of_ended(&mut self) {
        let (sink, layout) = (&self.worker.sink, &self.ear.layout);
        self.ear.lines.retain(|line| {
            let is_open = sink.standing(line.run()).is_some_and(|now| now.status.is_open());
            if !is_open {
                line.forget_pause();
                // What cannot be removed is in nobody's way.
                let _ = Requests::find(layout, line.run()).map(|requests| requests.map(|own| own.remove_pause()));
            }
            is_open
        });
    }

    /// Looks at the requests of one run.
    fn attend_to(&mut self, run: RunId) -> Result<Heard, StoreError> {
        let Some(standing) = self.worker.sink.standing(run) else {
            let is_listening = self.worker.recorder.desk().known(run).is_some();
            return Ok(if is_listening { Heard::NotYet } else { Heard::All });
        };
        let layout = self.ear.layout.clone();
        if self.move_on(run, &standing) {
            return Ok(Heard::Moved);
        }
        let Some(requests) = Requests::find(&layout, run)? else { return Ok(Heard::All) };
        let cancel = requests.cancel();
        if let Ok(Some(cancel)) = cancel {
            let is_changed = self.cancel(run, cancel.at);
            if !is_changed && standing.is_written {
                requests.close(standing.status == RunStatus::Cancelled, UnixNanos::now())?;
            } else {
                // Once the log has it.
                self.worker.recorder.desk().want_look(run);
            }
            return Ok(if is_changed { Heard::Moved } else { Heard::All });
        }
        // One file that cannot be read keeps none of the others from being heard.
        let is_pause_heard = self.hear_pause(run, &standing, &requests);
        let are_answers_heard = self.hear_answers(run, &standing, &requests);
        cancel?;
        Ok(if is_pause_heard? && are_answers_heard? { Heard::All } else { Heard::NotYet })
    }

    /// Writes down that a run goes on without an answer, where its code had no room to say so.
    fn move_on(&mut self, run: RunId, standing: &Standing) -> bool {
        let line = self.worker.recorder.desk().known(run);
        // The worker may not have come to the wait yet that is given up.
        let Some(line) = line.filter(|_| standing.wait.is_some()) else { return false };
        line.takes_moving_on(self.taken) && self.worker.sink.move_on(run, crate::run::NO_LONGER)
    }

    /// Ends a run; tells whether it was open.
    fn cancel(&mut self, run: RunId, at: UnixNanos) -> bool {
        let is_changed = self.worker.sink.cancel(run, at);
        let is_cancelled = self.worker.sink.standing(run).is_some_and(|now| now.status == RunStatus::Cancelled);
        if let Some(line) = self.worker.recorder.desk().known(run).filter(|_| is_cancelled) {
            line.cancel();
        }
        is_changed
    }

    fn hear_pause(&mut self, run: RunId, standing: &Standing, requests: &Requests<'_>) -> Result<bool, StoreError> {
        let Some(pause) = requests.pause()? else { return Ok(true) };
        if standing.paused_by.as_deref() == Some(&pause.id) {
            // Once the log has it, and not before: else who dies in between has never been asked.
            return if standing.is_written { requests.remove_pause().map(|()| true) } else { Ok(false) };
        }
        if standing.is_paused {
            // Who asked at the same time as another is served by that pause.
            return requests.remove_pause().map(|()| true);
        }
        let line = self.worker.recorder.desk().line(run);
        line.ask_to_pause(&pause.id);
        if !self.ear.lines.iter().any(|kept| Arc::ptr_eq(kept, &line)) {
            self.ear.lines.push(line);
        }
        Ok(true)
    }

    fn hear_answers(&self, run: RunId, standing: &Standing, requests: &Requests<'_>) -> Result<bool, StoreError> {
        let heard = requests.answered()?.into_iter().map(|wait| self.hear_answer(run, wait, standing, requests));
        // All of them, whatever one is like.
        let heard: Vec<_> = heard.collect();
        heard.into_iter().try_fold(true, |are_all_taken, is_taken| Ok(are_all_taken & is_taken?))
    }

    /// Hands an answer to the code that waits for it; tells whether nothing is left to do about it.
    fn hear_answer(
        &self,
        run: RunId,
        wait: EventId,
        standing: &Standing,
        requests: &Requests<'_>,
    ) -> Result<bool, StoreError> {
        if standing.wait != Some(wait) {
            return if standing.is_written {
                requests.note_taken(wait, UnixNanos::now()).map(|()| true)
            } else {
                Ok(false)
            };
        }
        let Some(line) = self.worker.recorder.desk().known(run) else { return Ok(true) };
        // Where the worker has come to; what code has done since then it does not know.
        let at = if self.batch.is_empty() { self.taken } else { 0 };
        // Once recording ends nobody could write down that it was taken: it is the next process's.
        if !line.is_answered(wait)
            && line.waits_since(at)
            && !self.worker.recorder.is_stopped()
            && let Some(resume) = requests.resume(wait)?.filter(|resume| resume.taken_at.is_none())
        {
            line.answer(wait, at, resume.input.unwrap_or_default());
        }
        // What is left of the request is for when the log has the answer.
        Ok(line.is_answered(wait) && line.waits_for().is_some())
    }

    /// Ends runs whose parents were asked to end, and those below them in this process; tells whether there were any.
    fn look_up(&mut self) -> bool {
        let layout = self.ear.layout.clone();
        let mut below: BTreeMap<RunId, Vec<RunId>> = BTreeMap::new();
        for (run, parent) in self.worker.sink.open_children() {
            if self.worker.sink.standing(run).is_some_and(|standing| standing.status.is_open()) {
                below.entry(parent).or_default().push(run);
            }
        }
        let asked = |parent: RunId| {
            let cancel = Requests::find(&layout, parent).ok()??.cancel().ok()??;
            // Who asked, and who ended it another way, may have died before one of them took that back.
            self.has_obeyed(parent).then_some(cancel)
        };
        let mut to_end: Vec<_> = below.keys().filter_map(|parent| Some((*parent, asked(*parent)?.at))).collect();
        let mut is_changed = false;
        while let Some((parent, at)) = to_end.pop() {
            let told = Cancel { at, parent_run_id: Some(parent) };
            for run in below.remove(&parent).into_iter().flatten() {
                // Written down for those below it in other processes.
                let is_told =
                    Requests::find(&layout, run).ok().flatten().is_some_and(|own| own.put_cancel(&told).is_ok());
                if is_told && self.cancel(run, at) {
                    is_changed = true;
                    to_end.push((run, at));
                }
            }
        }
        is_changed
    }

    /// Tells whether a run that was asked to end has, or may still.
    fn has_obeyed(&self, run: RunId) -> bool {
        let here = self.worker.sink.standing(run).map(|standing| standing.status);
        let stored = || FilesReader::of(self.ear.layout.clone()).ok()?.get_run(run).ok().map(|run| run.status);
        // One of which nothing is known was asked all the same.
        here.or_else(stored).is_none_or(|status| status.is_open() || status == RunStatus::Cancelled)
    }

    /// Takes back what runs were asked that are over by now, for good in the store: who asks behind that sees it there.
    pub(super) fn close_requests(&self, ended: &[RunSummary]) {
        if ended.is_empty() || bell_count(&self.ear.layout, self.worker.process) == 0 {
            return;
        }
        for run in ended {
            let Ok(Some(requests)) = Requests::find(&self.ear.layout, run.run_id) else { continue };
            // What cannot be taken back now is in nobody's way.
            let _ = requests.close(run.status == RunStatus::Cancelled, UnixNanos::now());
        }
    }

    /// Goes on with a run of a dead process that waits.
    pub(super) fn claim(&mut self, run: RunId) -> Result<Claimed, StoreError> {
        let claimed = self.worker.sink.claim(run)?;
        if claimed == Claimed::Taken
            && let Err(error) = self.close_left_steps(run)
        {
            self.worker.sink.unclaim(run);
            return Err(error);
        }
        if claimed != Claimed::Ours {
            // What it was asked while nobody listened. What cannot be read now is looked at again.
            if self.attend_or_note(run) {
                self.look_up();
            }
            self.settle();
        }
        Ok(claimed)
    }

    /// Closes the steps that a dead process left open in a run that goes on, all but the run itself.
    fn close_left_steps(&mut self, run: RunId) -> Result<(), StoreError> {
        let (open, last) = self.worker.sink.open_spans(run);
        let left: Vec<_> = open.into_iter().filter(|span| !self.worker.sink.is_root(run, *span)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let starts = starts_of(&self.worker.sink.written_events(run)?);
        let own_resource = std::mem::take(&mut self.resource_id);
        for record in left.iter().filter_map(|span| starts.get(span)) {
            let resource = unknown::encode_resource(&record.resource);
            self.resource_id = self.worker.journal.register_resource(&resource).unwrap_or(0);
            // Where there is no room for it now, the step stays open.
            if !self.put(self.taken, closed(record.clone(), last), 1) {
                break;
            }
        }
        self.resource_id = own_resource;
        self.commit();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::store::files::requests::{Pause, ring_bell};

    fn wait_until(ready: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !ready() {
            assert!(Instant::now() < until, "it does not come to that");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_run_that_ends_as_it_is_asked_to_keeps_the_request_only_if_it_obeyed() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, guard) = crate::builder().store(dir.path()).build().unwrap();
        let (layout, subscriber) = (Layout::new(dir.path()), tracing_subscriber::registry().with(layer));
        let id = tracing::subscriber::with_default(subscriber, || {
            let run = crate::Run::agent("a").start();
            let id = run.id().unwrap();
            wait_until(|| Requests::find(&layout, id).unwrap().is_some());
            let requests = Requests::find(&layout, id).unwrap().unwrap();
            requests.put_cancel(&Cancel { at: UnixNanos(1), parent_run_id: None }).unwrap();
            requests.put_pause(&Pause { id: "p".to_owned(), at: UnixNanos(1) }).unwrap();
            let stored = FilesReader::of(layout.clone()).unwrap().get_run(id).unwrap();
            ring_bell(&layout, stored.writer.unwrap()).unwrap();
            // Commonly before the worker listens again.
            run.finish();
            id
        });
        guard.shutdown(Duration::from_secs(5));
        let requests = Requests::find(&layout, id).unwrap().unwrap();
        let status = FilesReader::of(layout.clone()).unwrap().get_run(id).unwrap().status;
        assert_eq!(requests.cancel().unwrap().is_some(), status == RunStatus::Cancelled, "{status}");
        assert_eq!(requests.pause().unwrap(), None);
    }

    #[test]
    fn a_line_to_a_run_that_was_to_pause_is_let_go_of_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, guard) = crate::builder().store(dir.path()).build().unwrap();
        let desk = Arc::clone(layer.recorder().desk());
        let (layout, subscriber) = (Layout::new(dir.path()), tracing_subscriber::registry().with(layer));
        tracing::subscriber::with_default(subscriber, || {
            let run = crate::Run::agent("a").start();
            let id = run.id().unwrap();
            wait_until(|| Requests::find(&layout, id).unwrap().is_some());
            let requests = Requests::find(&layout, id).unwrap().unwrap();
            requests.put_pause(&Pause { id: "p".to_owned(), at: UnixNanos(1) }).unwrap();
            desk.want_look(id);
            wait_until(|| desk.known(id).is_some_and(|line| line.is_paused()));
            // It comes to no boundary.
            run.finish();
            wait_until(|| desk.known(id).is_none());
            assert_eq!(requests.pause().unwrap(), None);
        });
        guard.shutdown(Duration::from_secs(5));
    }
}
