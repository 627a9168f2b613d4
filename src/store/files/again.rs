//! Logs that were read and will be read once more: the index reads each run for its steps and for its texts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Event, RunId, RunSummary, UnixNanos};

/// Events that are kept: read, each takes some 4 KB beside its content.
const MAX_EVENTS: usize = 8_192;
/// A log with more is read twice.
const MAX_EVENTS_OF_RUN: usize = 256;

/// Logs that one has read and the other has not, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Again {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    logs: VecDeque<Log>,
    events: usize,
}

#[derive(Debug)]
struct Log {
    run: RunId,
    /// Which state of the run it is.
    stamp: (u64, UnixNanos),
    events: Arc<Vec<Event>>,
}

fn stamp(known: &RunSummary) -> (u64, UnixNanos) {
    (known.events, known.updated_at)
}

impl Again {
    /// Keeps the log of a run that is over; of one under way the next reader wants to see more.
    pub fn put(&self, known: &RunSummary, events: &Arc<Vec<Event>>) {
        if known.status.is_open() || events.len() > MAX_EVENTS_OF_RUN {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events += events.len();
        kept.logs.push_back(Log { run: known.run_id, stamp: stamp(known), events: Arc::clone(events) });
        while kept.events > MAX_EVENTS
            && let Some(log) = kept.logs.pop_front()
        {
            kept.events -= log.events.len();
        }
    }

    /// Takes the log of a run, if it is kept as it is known.
    pub fn take(&self, known: &RunSummary) -> Option<Arc<Vec<Event>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Both go the same way, so it is the first one, most often.
        let place = kept.logs.iter().position(|log| log.run == known.run_id && log.stamp == stamp(known))?;
        let log = kept.logs.remove(place)?;
        kept.events -= log.events.len();
        Some(log.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventBody, EventId, RunStatus, TraceId};
    use crate::store::assembly::RunState;

    #[test]
    fn a_log_is_kept_for_one_more_reader_as_it_was_and_not_more_than_there_is_room_for() {
        let of = |run: u8, status: RunStatus, updated_at: u64| {
            let state = RunState::new(RunId([run; 16]), TraceId([run; 16]));
            RunSummary { status, updated_at: UnixNanos(updated_at), ..state.summary(UnixNanos(1)) }
        };
        let log = |events: usize| {
            let body = EventBody::Unknown { kind: "later".to_owned(), data: serde_json::Value::Null };
            let event_id = EventId::fresh(UnixNanos(1));
            let event = Event { seq: 0, event_id, parent_event_id: None, timestamp: UnixNanos(1), step_id: None, body };
            Arc::new(vec![event; events])
        };
        let again = Again::default();
        let (over, changed) = (of(1, RunStatus::Success, 1), of(1, RunStatus::Success, 2));
        again.put(&over, &log(2));
        again.put(&of(2, RunStatus::Running, 1), &log(2));
        assert_eq!(again.take(&changed), None);
        assert_eq!(again.take(&over).map(|events| events.len()), Some(2));
        assert_eq!(again.take(&over), None);
        assert_eq!(again.take(&of(2, RunStatus::Running, 1)), None);
        again.put(&over, &log(MAX_EVENTS_OF_RUN + 1));
        assert_eq!(again.take(&over), None);
        for run in 0..=(MAX_EVENTS / MAX_EVENTS_OF_RUN) as u8 {
            again.put(&of(run, RunStatus::Success, 1), &log(MAX_EVENTS_OF_RUN));
        }
        assert_eq!(again.take(&of(0, RunStatus::Success, 1)), None);
        assert!(again.take(&of(1, RunStatus::Success, 1)).is_some());
    }
}
