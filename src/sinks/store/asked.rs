//! What is asked of runs from outside their code: to end, and to be gone on with by another process.

use std::time::Instant;

use super::{EventIds, StoreSink};
use crate::model::event::EventBody;
use crate::model::{EventId, RunId, RunStatus, UnixNanos};
use crate::store::assembly::status_body;
use crate::store::{RunWriter, StoreError};

/// In place of a place in the journal: the events of a cancellation.
const CANCEL_PLACE: u64 = u64::MAX - 4;

/// How a run stands that may be asked something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub status: RunStatus,
    /// The event that waits for an answer.
    pub wait: Option<EventId>,
    /// What it waits for is the end of a pause.
    pub is_paused: bool,
    /// The request for whose sake it paused last.
    pub paused_by: Option<String>,
    /// All of that is in the run's log.
    pub is_written: bool,
}

/// What came of going on with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It was another process's, and is ours now.
    Taken,
    /// It is this process's already.
    Ours,
    /// It does not wait, and has no answer to go on from.
    Not(RunStatus),
}

impl<W: RunWriter> StoreSink<W> {
    /// Returns how a run of this process stands.
    pub(crate) fn standing(&self, run: RunId) -> Option<Standing> {
        let live = self.runs.get(&run).filter(|live| live.state.has_started())?;
        Some(Standing {
            status: live.state.status(),
            wait: live.state.waiting_event(),
            is_paused: live.state.is_paused(),
            paused_by: live.state.paused_by().map(str::to_owned),
            is_written: live.written_status.is_some() && live.queue.is_empty(),
        })
    }

    /// Tells whether any run is under way, as far as it was written: asked often, so nothing is added up for it.
    pub(crate) fn has_open_runs(&self) -> bool {
        self.runs.values().any(|live| live.written_status.is_none_or(RunStatus::is_open))
    }

    /// Returns the runs under way that others started, each with the one that did, likewise.
    pub(crate) fn open_children(&self) -> Vec<(RunId, RunId)> {
        let open = self.runs.iter().filter(|(_, live)| live.written_status.is_none_or(RunStatus::is_open));
        open.filter_map(|(run, live)| Some((*run, live.state.parent_run_id()?))).collect()
    }

    /// Returns the runs that wait for an answer.
    pub(crate) fn waiting_runs(&self) -> Vec<RunId> {
        let waits = |live: &super::LiveRun| live.state.waiting_event().is_some();
        self.runs.iter().filter(|(_, live)| waits(live)).map(|(run, _)| *run).collect()
    }

    /// Notes that a run is to end: it is `cancelled` from now on, whatever its code still does. Tells whether it was open.
    pub(crate) fn cancel(&mut self, run: RunId, at: UnixNanos) -> bool {
        let process = self.process;
        let Some(live) = self.runs.get_mut(&run).filter(|live| live.state.has_started()) else { return false };
        let status = live.state.status();
        if !status.is_open() {
            return false;
        }
        live.flush_pending(process, None);
        let ids = EventIds::of_run(run, CANCEL_PLACE);
        let (at, cause) = (at.max(live.state.last_time()), live.state.start_event());
        let body = status_body(status, RunStatus::Cancelled, "it was asked to end");
        live.push(ids.make(0, at), cause, at, None, body);
        if live.state.roots_ended() && !live.state.is_completed() {
            let body = EventBody::RunCompleted(Box::new(live.state.completion()));
            live.push(ids.make(5, at), cause, at, None, body);
        }
        live.stale_summary = true;
        self.dirty.insert(run);
        true
    }

    /// Notes that a run goes on from its wait without an answer, where that could not be told. Tells whether it waited.
    pub(crate) fn move_on(&mut self, run: RunId, reason: &str) -> bool {
        let Some(live) = self.runs.get_mut(&run).filter(|live| live.state.status() == RunStatus::Waiting) else {
            return false;
        };
        let (at, cause) = (UnixNanos::now().max(live.state.last_time()), live.state.start_event());
        let body = status_body(RunStatus::Waiting, RunStatus::Running, reason);
        live.push(EventId::fresh(at), cause, at, None, body);
        if live.state.roots_ended() && !live.state.is_completed() {
            let body = EventBody::RunCompleted(Box::new(live.state.completion()));
            live.push(EventId::fresh(at), cause, at, None, body);
        }
        live.stale_summary = true;
        self.dirty.insert(run);
        true
    }

    /// Goes on with a run that waits, or has crashed behind an answer, and whose process is dead: from here on this process
    /// writes it.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] while another process writes it, and what the store says.
    pub(crate) fn claim(&mut self, run: RunId) -> Result<Claimed, StoreError> {
        if let Some(live) = self.runs.get(&run).filter(|live| live.state.has_started()) {
            let status = live.state.status();
            return Ok(if status == RunStatus::Waiting { Claimed::Ours } else { Claimed::Not(status) });
        }
        self.open_run(run, run.as_trace_id(), None)?;
        self.forget_unbegun(run);
        let Some(live) = self.runs.get_mut(&run) else { return Err(StoreError::NotFound { id: run.to_string() }) };
        let status = live.state.status();
        if live.state.can_reopen() {
            let (at, cause) = (UnixNanos::now().max(live.state.last_time()), live.state.start_event());
            let body = status_body(status, RunStatus::Waiting, "it is gone on with from its last answer");
            live.push(EventId::fresh(at), cause, at, None, body);
        } else if status != RunStatus::Waiting {
            self.let_go_of(run);
            return Ok(Claimed::Not(status));
        }
        // Others see by `run.yaml` whose it is.
        live.stale_summary = true;
        match self.write(run, Instant::now(), false) {
            Ok(_) => Ok(Claimed::Taken),
            Err(error) => {
                self.unclaim(run);
                Err(error)
            }
        }
    }

    /// Lets go of a run that cannot be gone on with: it is nobody's, and another process may try.
    pub(crate) fn unclaim(&mut self, run: RunId) {
        // What is not written now was not there.
        let _ = self.write(run, Instant::now(), false);
        if let Some(live) = self.runs.get(&run) {
            // Else it is this process's until that ends.
            let _ = self.writer.disown_run(&live.state.summary(UnixNanos::now()));
        }
        self.let_go_of(run);
    }

    fn let_go_of(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.dirty.remove(&run);
        self.writer.release_run(run);
    }

    /// Tells whether a step is topmost in its run.
    pub(crate) fn is_root(&self, run: RunId, span: crate::model::SpanId) -> bool {
        self.runs.get(&run).is_some_and(|live| live.state.is_root(span))
    }
}
