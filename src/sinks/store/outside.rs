//! Runs of spans that come from outside: over OTLP, ended, in any order, late and twice.
//!
//! Nobody says when the last span of a run has come. A run is over when all its topmost steps have ended and none of them
//! waits for a parent of the same process; and at the latest after a time of silence.

use std::time::{Duration, Instant};

use super::telling::Step;
use super::{EventIds, LINKS_AWAITED, LiveRun, StoreSink};
use crate::model::event::EventBody;
use crate::model::id::IdSet;
use crate::model::outcome::Outcome;
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, RunStatus, TraceId, UnixNanos};
use crate::pipeline::normalize::normalize;
use crate::sources::log_step::{conversation_of, stand_in};
use crate::store::assembly::{RunState, status_body};
use crate::store::{RunWriter, StoreError};

/// In place of a place in the journal: events of the end of a run that nobody told.
const END_PLACE: u64 = u64::MAX - 2;

impl<W: RunWriter> StoreSink<W> {
    /// Takes spans of others' programs from now on. A run whose root does not come is over after `silence` without a
    /// span.
    pub fn take_from_outside(&mut self, silence: Duration) {
        self.outside = Some(silence);
        // What cannot be read waits no longer.
        for (trace, run) in self.writer.noted_links(LINKS_AWAITED).unwrap_or_default() {
            self.awaiting_links.add(trace, run);
        }
        // Those taken up are looked at again, for what their end may still lack.
        let mut runs: Vec<RunId> = self.runs.keys().copied().collect();
        runs.sort_unstable();
        for run in runs {
            let Some(live) = self.runs.get_mut(&run) else { continue };
            live.by_span = true;
            live.state.take_starts_first(false);
            live.unsettled |= live.written_status.is_some();
            let nothing = RunState::new(run, live.state.trace_id());
            let state = std::mem::replace(&mut live.state, nothing);
            self.note_taken_up(run, &state, &[]);
            if let Some(live) = self.runs.get_mut(&run) {
                live.state = state;
            }
            self.dirty.insert(run);
        }
        self.look_at_all_of_their_traces();
    }

    /// Looks at those runs, too, that are over and are of the trace of one taken up: steps may be in both, and nothing in the journal says so.
    fn look_at_all_of_their_traces(&mut self) {
        let traces: IdSet<TraceId> = self.runs.values().map(|live| live.state.trace_id()).collect();
        for trace_id in traces {
            // What cannot be read now is when something comes to the trace.
            if self.recall_over(trace_id).is_ok()
                && let Some(trace) = self.traces.get_mut(&trace_id)
            {
                // Until then others may write more.
                trace.is_recalled = false;
            }
        }
    }

    /// Ends runs of which the last that is known lies a silence before `now`: for a store that no server has open.
    pub fn close_silent(&mut self, now: UnixNanos) -> Result<(), StoreError> {
        let Some(silence) = self.outside else { return Ok(()) };
        if self.has_moves() {
            self.flush_all()?;
            self.finish_moves()?;
        }
        let is_silent = |live: &LiveRun| u128::from(now.millis_since(live.state.last_time())) >= silence.as_millis();
        self.end_silent(is_silent);
        self.flush_all()
    }

    /// Ends all runs that are under way, and gives up spans that never became one: nobody goes on with them. `bring_to_disk` has what was
    /// written last as the journal does: steps are taken out of a run when their copies do.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn close_all(
        &mut self,
        bring_to_disk: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.give_up_held(Instant::now(), Duration::ZERO)?;
        self.flush_all()?;
        if self.has_moves() {
            bring_to_disk()?;
            self.finish_moves()?;
        }
        self.end_silent(|_| true);
        self.flush_all()?;
        // Whoever goes on does not know which they are.
        self.delete_left(None)
    }

    pub(super) fn end_silent(&mut self, is_silent: impl Fn(&LiveRun) -> bool) {
        let process = self.process;
        let open = |live: &LiveRun| live.state.has_started() && live.state.status() == RunStatus::Running;
        let in_motion = self.in_motion();
        let is_due = |run: &RunId, live: &LiveRun| open(live) && is_silent(live) && !in_motion.contains(run);
        let silent: Vec<RunId> =
            self.runs.iter().filter(|(run, live)| is_due(run, live)).map(|(run, _)| *run).collect();
        for run in silent {
            if let Some(live) = self.runs.get_mut(&run) {
                live.end_in_silence(process);
                self.dirty.insert(run);
            }
        }
    }

    /// Gives up spans of traces that have shown no GenAI span for so long.
    ///
    /// On an error what was held is to be told again from the journal.
    pub(super) fn give_up_held(&mut self, now: Instant, silence: Duration) -> Result<(), StoreError> {
        let silence = silence.min(super::LATE);
        self.let_steps_of_logs_stand(now, silence)?;
        let mut gone = Vec::new();
        for (trace_id, trace) in &mut self.traces {
            if trace.touched.is_none_or(|touched| now.saturating_duration_since(touched) >= silence) {
                for (run, held) in trace.held.drain() {
                    // Other traces may still hold some of it.
                    if let Some(traces) = self.named.get_mut(&run) {
                        traces.retain(|named| named != trace_id);
                    }
                    gone.extend(held.records.into_iter().map(|held| (run, held)));
                }
            }
        }
        self.named.retain(|_, traces| !traces.is_empty());
        for (run, held) in gone {
            if conversation_of(&held.said.record.span).is_some() {
                self.let_step_of_log_stand(held)?;
            } else if self.runs.contains_key(&run) {
                self.apply(run, held)?;
            } else if !self.let_stand(held.seq, &held.said.record)? {
                self.count(held.seq, held.said.record.kind, Outcome::NotKept, "no_genai");
            }
        }
        Ok(())
    }

    /// Lets a record of a log whose span has not come stand for itself, where it can.
    fn let_stand(&mut self, seq: u64, record: &Record) -> Result<bool, StoreError> {
        let event = record.span.events.first().filter(|_| record.kind == RecordKind::Event);
        let Some(span) = event.and_then(stand_in) else { return Ok(false) };
        let at = span.end_time_unix_nano;
        if conversation_of(&span).is_some_and(|conversation| self.conversations.has_spans(conversation, at)) {
            return Ok(false);
        }
        let mut record = Record { kind: RecordKind::Ended, span, ..record.clone() };
        normalize(&mut record);
        self.pricer.price(&mut record);
        self.bring(seq, record, Step::Stands).map(|()| true)
    }
}

impl LiveRun {
    /// Notes the end of a run whose topmost steps have all ended.
    pub(super) fn complete(&mut self) {
        let is_over = self.state.has_started()
            && !self.state.is_completed()
            && self.state.roots_ended()
            && self.state.status() != RunStatus::Waiting;
        if is_over {
            self.push_end();
        }
    }

    /// Ends a run by what is known of it: as its topmost step ended, else as crashed.
    fn end_in_silence(&mut self, process: RunId) {
        if self.state.open_spans().is_empty() {
            return self.push_end();
        }
        let now = self.state.last_time();
        let id = super::event_id(process, super::CRASH_PLACE, 0, now);
        let reason = "no span has come for long, and the root has not ended";
        let body = status_body(RunStatus::Running, RunStatus::Crashed, reason);
        self.push(id, self.state.start_event(), now, None, body);
        self.stale_summary = true;
    }

    pub(super) fn push_end(&mut self) {
        // The same place for all runs, so the run itself is what makes the id its own.
        let ids = EventIds::of_run(self.state.run_id(), END_PLACE);
        let (at, cause) = (self.state.last_time(), self.state.start_event());
        let body = EventBody::RunCompleted(Box::new(self.state.ended_completion()));
        self.push(ids.make(5, at), cause, at, None, body);
        self.stale_summary = true;
    }
}
