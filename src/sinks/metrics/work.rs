//! The thread that collects and sends: on the interval, when asked, and at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::MetricsError;
use super::export::{Closing, Line, Waiting, waiting};
use super::ledger::Ledger;
use super::left::Leftovers;
use super::meters::Meters;
use crate::telemetry::warn;

/// When a process that has just begun looks for what dead ones left: by then it is in the store.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether that is so, at the end of a short process.
const LOOK: Duration = Duration::from_millis(10);

/// What the thread is asked.
pub(super) enum Ask {
    /// Export now and tell how it went.
    Flush(Sender<Result<(), MetricsError>>),
    /// The same, then end. The other end of the channel is closed when that is done.
    Stop(Sender<Result<(), MetricsError>>, Last),
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    /// Nothing is sent after it; `None` where nobody waits.
    pub deadline: Option<Instant>,
    /// Every run of the process is over and counted.
    pub is_all: bool,
}

/// Everything that the thread owns.
pub(super) struct Work {
    pub meters: Arc<Meters>,
    pub line: Arc<Line>,
    pub interval: Duration,
    /// A collection says all that those before it said.
    pub is_cumulative: bool,
    /// Collected, and not taken by the peer.
    pub waiting: VecDeque<Waiting>,
    /// `None` where nothing can be written: then a run is counted at most once.
    pub ledger: Option<Ledger>,
    pub left: Option<Leftovers>,
    /// The last export went well, or there was none.
    pub is_reachable: bool,
}

impl Work {
    pub fn run(mut self, asks: &Receiver<Ask>) {
        let begun = Instant::now();
        let after = |moment: Instant, wait| moment.checked_add(wait).unwrap_or(moment);
        let (mut export_at, mut look_at) = (after(begun, self.interval), after(begun, FIRST_LOOK.min(self.interval)));
        loop {
            let next = if self.left.is_some() { export_at.min(look_at) } else { export_at };
            match asks.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.meters.end(),
                Ok(Ask::Flush(told)) => {
                    // The one who asked may have stopped waiting.
                    let _ = told.send(self.export(false));
                    continue;
                }
                Ok(Ask::Stop(told, last)) => return self.end(&told, last),
            }
            if Instant::now() >= export_at {
                // Told and counted by the line.
                let _ = self.export(false);
                export_at = after(Instant::now(), self.interval);
            }
            if Instant::now() >= look_at {
                self.send_left();
                look_at = after(Instant::now(), self.interval);
            }
        }
    }

    /// Collects, writes down what is to be sent, and sends it.
    fn export(&mut self, is_last: bool) -> Result<(), MetricsError> {
        self.collect(is_last)?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        // What a cumulative export says the next one says again; only the last one has to be given up when it is refused.
        let gives_up = is_last || !self.is_cumulative;
        let (exported, before) = (self.line.export(&mut self.waiting, gives_up), self.waiting.len());
        self.is_reachable = exported.is_ok();
        if let Some(ledger) = self.ledger.as_mut().filter(|ledger| ledger.requests().len() != before) {
            // Else they are sent again by the next process: as the same values under cumulative temporality.
            let _ = ledger.settle(self.waiting.iter());
        }
        exported
    }

    fn collect(&mut self, is_last: bool) -> Result<(), MetricsError> {
        if !self.is_cumulative && !self.waiting.is_empty() && !is_last {
            // The SDK adds up meanwhile, which takes no more room than it has; a queue would.
            if let Some(ledger) = &mut self.ledger {
                ledger.note(self.meters.take_counted());
            }
            return Ok(());
        }
        let (collected, runs) = self.meters.collect()?;
        self.line.warn_of_overflow(&collected);
        let collected = waiting(collected);
        if collected.is_empty() && self.waiting.is_empty() && runs.is_empty() {
            return Ok(());
        }
        if self.is_cumulative {
            self.waiting.clear();
        }
        self.waiting.extend(collected);
        if let Some(ledger) = &mut self.ledger {
            ledger.note(runs);
            if let Err(error) = ledger.write_ahead(self.waiting.iter()) {
                warn(format_args!(
                    "cannot write down which runs are counted: {error}; if this process is killed, the next one counts \
                     those of the last moments again"
                ));
            }
        }
        Ok(())
    }

    fn end(mut self, told: &Sender<Result<(), MetricsError>>, last: Last) {
        let exported = self.export(true);
        self.meters.end();
        let is_done = self.waiting.is_empty() && !matches!(exported, Err(MetricsError::Setup { .. }));
        // A run that is under way is for the next process to count, and what was not sent to send.
        if let Some(ledger) = self.ledger.take().filter(|_| is_done && last.is_all) {
            // What is left of it is found empty by the next one.
            let _ = ledger.remove();
        }
        // The one who asked may have gone on at its deadline.
        let _ = told.send(exported);
        if is_done && self.is_reachable {
            self.send_left_at_end(last.deadline);
        }
        self.line.set_closing(Closing::Closed);
    }

    fn send_left(&mut self) {
        if let Some(left) = self.left.as_mut().filter(|_| self.is_reachable) {
            left.send(&self.line);
        }
    }

    /// Sends what dead processes left. A row of short processes would never do it otherwise, and half of the time is for
    /// waiting until that is in the store.
    fn send_left_at_end(&mut self, deadline: Option<Instant>) {
        let now = Instant::now();
        let patience = deadline.map_or(now, |deadline| now + deadline.saturating_duration_since(now) / 2);
        let Some(left) = &mut self.left else { return };
        while left.send(&self.line) && Instant::now() < patience {
            std::thread::sleep(LOOK);
        }
    }
}
