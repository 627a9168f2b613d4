//! Logs that were read or written and will be read once more: the index reads each run for its steps and for its texts, of
//! most a moment after this process wrote it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Event, RunId, RunSummary};

/// Events that are kept: read, each takes some 4 KB beside its content.
const MAX_EVENTS: usize = 8_192;
/// A log with more is read twice.
const MAX_EVENTS_OF_RUN: usize = 256;
/// Events that are kept of what was written: whoever reads them is a second behind, or so far that they are of no use.
const MAX_FRESH_EVENTS: usize = 4_096;
/// Bytes of their lines.
const MAX_FRESH_BYTES: u64 = 8 << 20;
/// How long they are kept for a reader that does not come.
const FRESH: Duration = Duration::from_secs(60);

/// Logs that one has read and the other has not, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Again {
    kept: Mutex<Kept>,
}

/// Logs that this process has written, for a reader in it.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    kept: Mutex<Kept>,
    is_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    logs: VecDeque<Log>,
    events: usize,
    /// Of lines, where that is known.
    bytes: u64,
}

#[derive(Debug)]
struct Log {
    run: RunId,
    /// Which state of the run it is.
    stamp: (u64, u64),
    events: Arc<Vec<Event>>,
    bytes: u64,
    since: Instant,
}

/// What is written says milliseconds.
fn stamp(known: &RunSummary) -> (u64, u64) {
    (known.events, known.updated_at.millis())
}

impl Kept {
    fn push(&mut self, known: &RunSummary, events: &Arc<Vec<Event>>, bytes: u64) {
        let (stamp, events_kept) = (stamp(known), Arc::clone(events));
        let log = Log { run: known.run_id, stamp, events: events_kept, bytes, since: Instant::now() };
        self.events += events.len();
        self.bytes += bytes;
        self.logs.push_back(log);
    }

    fn pop(&mut self) -> bool {
        let Some(log) = self.logs.pop_front() else { return false };
        self.events -= log.events.len();
        self.bytes -= log.bytes;
        true
    }

    /// Lets go of what was kept for long.
    fn expire(&mut self) {
        while self.logs.front().is_some_and(|log| log.since.elapsed() > FRESH) && self.pop() {}
    }

    fn take(&mut self, known: &RunSummary) -> Option<Arc<Vec<Event>>> {
        // Both go the same way, so it is the first one, most often.
        let place = self.logs.iter().position(|log| log.run == known.run_id && log.stamp == stamp(known))?;
        let log = self.logs.remove(place)?;
        self.events -= log.events.len();
        self.bytes -= log.bytes;
        Some(log.events)
    }
}

/// Tells whether a log is kept: that of a run that is over; of one under way the next reader wants to see more.
fn may_be_kept(known: &RunSummary, events: usize) -> bool {
    !known.status.is_open() && events <= MAX_EVENTS_OF_RUN
}

impl Again {
    /// Keeps the log of a run that is over.
    pub fn put(&self, known: &RunSummary, events: &Arc<Vec<Event>>) {
        if !may_be_kept(known, events.len()) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(known, events, 0);
        while kept.events > MAX_EVENTS && kept.pop() {}
    }

    /// Takes the log of a run, if it is kept as it is known.
    pub fn take(&self, known: &RunSummary) -> Option<Arc<Vec<Event>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(known)
    }
}

impl Fresh {
    /// Keeps what is written from now on, or nothing any more.
    pub fn want(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
        if !is_wanted {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
        }
    }

    /// Keeps the log of a run that is over, of so many bytes of lines, while there is room. The oldest are read first, so it is the others that are read from the
    /// disk where the reader is behind.
    pub fn offer(&self, known: &RunSummary, events: Vec<Event>, bytes: u64) {
        if !self.is_wanted.load(Ordering::Relaxed) || !may_be_kept(known, events.len()) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire();
        if kept.events + events.len() <= MAX_FRESH_EVENTS && kept.bytes + bytes <= MAX_FRESH_BYTES {
            kept.push(known, &Arc::new(events), bytes);
        }
    }

    /// Lets go of what nobody has come for.
    pub fn expire(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).expire();
    }

    /// Takes the log of a run, if it is kept as it is known.
    pub fn take(&self, known: &RunSummary) -> Option<Arc<Vec<Event>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventBody, EventId, RunStatus, TraceId, UnixNanos};
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
        let (over, changed) = (of(1, RunStatus::Success, 1), of(1, RunStatus::Success, 2_000_000));
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

    #[test]
    fn what_was_written_is_kept_where_it_is_wanted_the_first_ones_and_for_one_reader() {
        let of = |run: u8| {
            let state = RunState::new(RunId([run; 16]), TraceId([run; 16]));
            RunSummary { status: RunStatus::Success, ..state.summary(UnixNanos(1)) }
        };
        let log = || {
            let body = EventBody::Unknown { kind: "later".to_owned(), data: serde_json::Value::Null };
            let event_id = EventId::fresh(UnixNanos(1));
            let event = Event { seq: 0, event_id, parent_event_id: None, timestamp: UnixNanos(1), step_id: None, body };
            vec![event; MAX_EVENTS_OF_RUN]
        };
        let fresh = Fresh::default();
        fresh.offer(&of(1), log(), 1);
        assert_eq!(fresh.take(&of(1)), None);
        fresh.want(true);
        let room = (MAX_FRESH_EVENTS / MAX_EVENTS_OF_RUN) as u8;
        (0..=room).for_each(|run| fresh.offer(&of(run), log(), 1));
        assert_eq!(fresh.take(&of(room)), None);
        assert_eq!(fresh.take(&of(0)).map(|events| events.len()), Some(MAX_EVENTS_OF_RUN));
        assert_eq!(fresh.take(&of(0)), None);
        // There is room for its events again, and none for so long lines.
        fresh.offer(&of(0), log(), MAX_FRESH_BYTES);
        assert_eq!(fresh.take(&of(0)), None);
        fresh.want(false);
        assert_eq!(fresh.take(&of(1)), None);
    }
}
