//! The worker's ear: what people ask of this process's runs, and runs that it takes over from dead processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;

use super::State;
use crate::model::{RunId, RunStatus, UnixNanos};
use crate::recovery::{closed, starts_of};
use crate::sinks::store::{Claimed, Standing};
use crate::sources::desk::Line;
use crate::store::StoreError;
use crate::store::files::layout::Layout;
use crate::store::files::requests::{Cancel, Requests, bell_count};

/// How often it is listened for the bell.
const LISTEN: Duration = Duration::from_millis(100);
/// How often it is looked without that: whether runs that wait were answered, and whether the parents of runs were asked to
/// end, which may be other processes' runs, for which nobody rings here.
const LOOK_UP: Duration = Duration::from_millis(500);

/// When it was listened last, and what was heard.
#[derive(Debug)]
pub(super) struct Ear {
    layout: Layout,
    listened: Instant,
    looked_up: Instant,
    rung: u64,
    /// Lines to runs that are to pause: their code may not have asked for one.
    lines: Vec<Arc<Line>>,
}

impl Ear {
    pub fn new(root: &std::path::Path) -> Self {
        let now = Instant::now();
        Self { layout: Layout::new(root), listened: now, looked_up: now, rung: 0, lines: Vec::new() }
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
        let mut is_changed = false;
        if self.ear.listened.elapsed() >= LISTEN && self.worker.sink.has_open_runs() {
            self.ear.listened = Instant::now();
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
            match self.attend_to(run) {
                Ok(Heard::All) => {}
                Ok(Heard::Moved) => is_changed = true,
                Ok(Heard::NotYet) => self.worker.recorder.desk().want_look(run),
                // Half made, or the disk is in trouble: the next ring, or the next to listen, has it looked at again.
                Err(_) => self.ear.rung = u64::MAX,
            }
        }
        if is_changed {
            self.settle();
        }
    }

    /// Looks at the requests of one run.
    fn attend_to(&mut self, run: RunId) -> Result<Heard, StoreError> {
        let Some(standing) = self.worker.sink.standing(run) else {
            let is_listening = self.worker.recorder.desk().known(run).is_some();
            return Ok(if is_listening { Heard::NotYet } else { Heard::All });
        };
        let layout = self.ear.layout.clone();
        let Some(requests) = Requests::find(&layout, run)? else { return Ok(Heard::All) };
        if let Some(cancel) = requests.cancel()? {
            let is_changed = self.cancel(run, cancel.at);
            if !is_changed && standing.is_written {
                // What it waited for is of no use any more.
                requests.settle(None, UnixNanos::now())?;
            } else if !requests.answered()?.is_empty() {
                self.worker.recorder.desk().want_look(run);
            }
            return Ok(if is_changed { Heard::Moved } else { Heard::All });
        }
        let is_pause_heard = self.hear_pause(run, &standing, &requests)?;
        let are_answers_heard = self.hear_answers(run, &standing, &requests)?;
        Ok(if is_pause_heard && are_answers_heard { Heard::All } else { Heard::NotYet })
    }

    fn cancel(&mut self, run: RunId, at: UnixNanos) -> bool {
        let is_changed = self.worker.sink.cancel(run, at);
        let is_cancelled = self.worker.sink.standing(run).is_some_and(|now| now.status == RunStatus::Cancelled);
        if let Some(line) = self.worker.recorder.desk().known(run).filter(|_| is_cancelled) {
            line.cancel();
        }
        if is_changed {
            // Those below it in this process, and at the next look those below them.
            self.look_up();
        }
        is_changed
    }

    fn hear_pause(&mut self, run: RunId, standing: &Standing, requests: &Requests<'_>) -> Result<bool, StoreError> {
        let Some(pause) = requests.pause()? else { return Ok(true) };
        if standing.paused_by.as_deref() == Some(&pause.id) {
            // Once the log has it, and not before: else who dies in between has never been asked.
            return if standing.is_written { requests.remove_pause().map(|()| true) } else { Ok(false) };
        }
        let line = self.worker.recorder.desk().line(run);
        line.ask_to_pause(&pause.id);
        let sink = &self.worker.sink;
        let is_open = |line: &Arc<Line>| sink.standing(line.run()).is_some_and(|now| now.status.is_open());
        self.ear.lines.retain(|kept| kept.run() != run && is_open(kept));
        self.ear.lines.push(line);
        Ok(true)
    }

    fn hear_answers(&self, run: RunId, standing: &Standing, requests: &Requests<'_>) -> Result<bool, StoreError> {
        let mut are_all_taken = true;
        // Where the worker has come to; what code has done since then it does not know.
        let at = if self.batch.is_empty() { self.taken } else { 0 };
        for wait in requests.answered()? {
            if standing.wait != Some(wait) && standing.is_written {
                requests.note_taken(wait, UnixNanos::now())?;
            } else if standing.wait != Some(wait) {
                are_all_taken = false;
            } else if let Some(line) = self.worker.recorder.desk().known(run) {
                // Once recording ends nobody could write down that it was taken: it is the next process's.
                if !line.is_answered(wait)
                    && line.waits_since(at)
                    && !self.worker.recorder.is_stopped()
                    && let Some(resume) = requests.resume(wait)?.filter(|resume| resume.taken_at.is_none())
                {
                    line.answer(wait, at, resume.input.unwrap_or_default());
                }
                // What is left of the request is for when the log has the answer.
                are_all_taken &= line.is_answered(wait) && line.waits_for().is_some();
            }
        }
        Ok(are_all_taken)
    }

    /// Ends runs whose parents were asked to end; tells whether there were any.
    fn look_up(&mut self) -> bool {
        let layout = self.ear.layout.clone();
        let is_to_end = |parent: RunId| {
            let requests = Requests::find(&layout, parent).ok().flatten()?;
            requests.cancel().ok().flatten()
        };
        let mut is_changed = false;
        for (run, parent) in self.worker.sink.open_children() {
            let is_open = self.worker.sink.standing(run).is_some_and(|standing| standing.status.is_open());
            let Some(cancel) = is_to_end(parent).filter(|_| is_open) else { continue };
            // Written down for those below it.
            let told = Cancel { at: cancel.at, parent_run_id: Some(parent) };
            if let Ok(Some(requests)) = Requests::find(&layout, run)
                && requests.put_cancel(&told).is_ok()
            {
                is_changed |= self.cancel(run, cancel.at);
            }
        }
        is_changed
    }

    /// Goes on with a run of a dead process that waits.
    pub(super) fn claim(&mut self, run: RunId) -> Result<Claimed, StoreError> {
        let claimed = self.worker.sink.claim(run)?;
        if claimed == Claimed::Taken {
            self.close_left_steps(run)?;
        }
        if claimed != Claimed::Ours {
            // What it was asked while nobody listened.
            self.attend_to(run)?;
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
            let resource = record.resource.encode_to_vec();
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
