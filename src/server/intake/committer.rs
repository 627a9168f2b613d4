//! Appends what requests bring to the journal, many to a commit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use super::{Bell, Job, Prepared, RETRY, Refused, Tally};
use crate::error::with_causes;
use crate::journal::{self, FrameKind, JournalError, JournalWriter};
use crate::model::UnixNanos;
use crate::pipeline::worker::{Behind, give_back_oldest, warn_of_bound};
use crate::telemetry::warn;

/// Requests are joined in one commit up to about so many bytes.
const GROUP_BYTES: usize = 8 << 20;

/// Appends to the journal.
pub(super) struct Committer {
    pub(super) journal: JournalWriter,
    pub(super) bell: Arc<Bell>,
    pub(super) tally: Arc<Tally>,
    pub(super) root: PathBuf,
    pub(super) process: String,
    /// Bound of the journal on disk.
    pub(super) journal_bytes: u64,
    /// Readers that lose their oldest frames at that bound: the store must not pay for a target that is down.
    pub(super) behind: Vec<Arc<dyn Behind>>,
    /// Spans that were appended since the last commit, and are received with the next one.
    pub(super) uncommitted: u64,
    pub(super) warned: bool,
    pub(super) warned_of_bound: bool,
}

impl Committer {
    pub(super) fn work(mut self, queue: &Receiver<Job>) {
        while let Some(first) = self.next(queue) {
            let mut group = vec![first];
            let mut bytes = group[0].records.bytes();
            while bytes < GROUP_BYTES
                && let Ok(job) = queue.try_recv()
            {
                bytes += job.records.bytes();
                group.push(job);
            }
            self.commit(group);
        }
    }

    /// Waits for a request. A journal that could not be written is tried again meanwhile: who is not ready may be sent
    /// nothing that would show it.
    fn next(&mut self, queue: &Receiver<Job>) -> Option<Job> {
        while self.tally.journal_stuck.load(Ordering::Relaxed) {
            match queue.recv_timeout(RETRY) {
                Err(RecvTimeoutError::Timeout) => self.try_again(),
                job => return job.ok(),
            }
        }
        queue.recv().ok()
    }

    fn try_again(&mut self) {
        if let Ok(committed) = self.bring_in() {
            self.tally.committed.note(committed.seq, UnixNanos::now());
            if self.journal.has_room() {
                self.works();
            }
            self.bell.ring();
        }
    }

    fn works(&mut self) {
        self.tally.journal_stuck.store(false, Ordering::Relaxed);
        self.warned = false;
    }

    pub(super) fn commit(&mut self, group: Vec<Job>) {
        let appended: Vec<Result<(), Refused>> = group.iter().map(|job| self.append(&job.records)).collect();
        let committed = self.bring_in();
        if let Ok(committed) = &committed {
            self.tally.committed.note(committed.seq, UnixNanos::now());
        }
        if let Err(error) = &committed {
            self.failed(error);
        } else if appended.iter().all(Result::is_ok) {
            self.works();
        }
        for (job, appended) in group.into_iter().zip(appended) {
            let answer = appended.and(committed.as_ref().map(drop).map_err(|_| Refused::Unwritable));
            if answer.is_ok() {
                self.tally.count_aside(&job.records.aside);
            }
            // Who asked may have gone: the records are in the journal all the same.
            let _ = job.done.send(answer);
        }
        self.bell.ring();
    }

    /// Appends the records of one request. What a refused one has left in the journal is stored, and known again when
    /// the sender repeats it: that much of it was received.
    fn append(&mut self, records: &Prepared) -> Result<(), Refused> {
        for record in records.records() {
            let mut appended = self.put(record);
            if matches!(&appended, Err(error) if error.is_buffer_full()) {
                appended = self.bring_in().and_then(|_| self.put(record));
            }
            if matches!(&appended, Err(error) if error.is_full()) && self.make_room() {
                appended = self.put(record);
            }
            if let Err(error) = appended {
                self.failed(&error);
                self.tally.wants_room.store(error.is_full(), Ordering::Relaxed);
                return Err(if error.is_full() { Refused::Full } else { Refused::Unwritable });
            }
            self.uncommitted += u64::from(records.is_received && record.0.record().is_some());
        }
        Ok(())
    }

    /// Gives back what only targets that lag behind still want. Tells whether there was anything.
    fn make_room(&mut self) -> bool {
        if self.behind.is_empty() || !give_back_oldest(&self.root, &self.process, self.journal_bytes, &self.behind) {
            return false;
        }
        if !std::mem::replace(&mut self.warned_of_bound, true) {
            warn_of_bound(&self.root);
        }
        // The journal looks for room again with each commit.
        self.bring_in().is_ok()
    }

    /// Commits what was appended: from here on it is received.
    fn bring_in(&mut self) -> Result<journal::Committed, JournalError> {
        let committed = self.journal.commit()?;
        self.tally.received.fetch_add(std::mem::take(&mut self.uncommitted), Ordering::Relaxed);
        Ok(committed)
    }

    fn put(&mut self, (kind, resource, payload): (FrameKind, &[u8], &[u8])) -> Result<u64, JournalError> {
        let resource = self.journal.register_resource(resource)?;
        self.journal.append(kind, resource, 0, payload)
    }

    fn failed(&mut self, error: &JournalError) {
        self.tally.journal_stuck.store(true, Ordering::Relaxed);
        if !std::mem::replace(&mut self.warned, true) {
            warn(format_args!(
                "cannot write the journal in {}: {}; senders are told to come again",
                self.root.display(),
                with_causes(error)
            ));
        }
    }
}
