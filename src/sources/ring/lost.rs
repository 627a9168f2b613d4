//! What did not get in, by trace: a small table in the ring's header, so that it outlives the process.
//!
//! # Layout
//!
//! 256 entries of 64 bytes, each of eight words:
//!
//! | word | what |
//! |---|---|
//! | 0 | state: generation `<< 32`, and 0 free, 1 being claimed, 2 in use |
//! | 1, 2 | the trace id |
//! | 3 | the [`DropReason`] |
//! | 4 | count: generation `<< 32`, bit 31 closed, 31 bits of records |
//! | 5 | when the first of them was lost, in nanoseconds since 1970 |
//!
//! # Operation
//!
//! Who loses a record looks at the 16 entries from a hash of the trace on: adds to an open one of this trace and
//! reason, else claims a free one with compare-and-swap, else counts the record under no known run. It takes no lock,
//! waits for nobody and allocates nothing. Several entries for one trace and reason are as good as one.
//!
//! The worker closes an entry whose run it knows, notes its count in the run, and frees it once the note is written.
//! Adding is a compare-and-swap that names the generation, so nothing can be added to what was closed or freed
//! meanwhile. The event id of the note is made from the entry's mark, its generation and place: whoever notes it again
//! after a crash notes the same event. An entry whose run never shows is moved to the counts of no known run; `moving`
//! holds its mark + 1 meanwhile and `moved` the count that is being reached, so that it is counted once by who reads
//! the ring of a process that died in between.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{DropReason, GIVEN_UP_AT, MOVED_AT, MOVING_AT, NOT_NOTED_AT, Ring, TABLE_AT, Version};
use crate::model::outcome::LostRecords;
use crate::model::{TraceId, UnixNanos};

const ENTRIES: usize = 256;
const ENTRY_BYTES: usize = 64;
pub(super) const TABLE_BYTES: usize = ENTRIES * ENTRY_BYTES;
/// How many entries are looked at for one record.
const WINDOW: usize = 16;

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const IN_USE: u64 = 2;
const CLOSED: u64 = 1 << 31;
const MOST: u64 = CLOSED - 1;
const LOW: u64 = u32::MAX as u64;

/// One entry's words.
#[derive(Clone, Copy)]
struct Entry<'a> {
    ring: &'a Ring,
    place: usize,
}

impl<'a> Entry<'a> {
    fn word(self, nth: usize) -> &'a AtomicU64 {
        self.ring.word(TABLE_AT + self.place * ENTRY_BYTES + nth * 8)
    }

    fn state(self) -> &'a AtomicU64 {
        self.word(0)
    }

    fn count(self) -> &'a AtomicU64 {
        self.word(4)
    }

    fn is_of(self, trace: [u64; 2], reason: DropReason) -> bool {
        let words = [self.word(1), self.word(2), self.word(3)].map(|word| word.load(Ordering::Relaxed));
        words == [trace[0], trace[1], reason as u64]
    }

    /// Adds one record, unless the entry was closed or has another content by now.
    fn add(self, generation: u64) -> bool {
        let mut seen = self.count().load(Ordering::Relaxed);
        loop {
            let open = seen >> 32 == generation && seen & CLOSED == 0 && seen & MOST < MOST;
            if !open {
                return false;
            }
            match self.count().compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(newer) => seen = newer,
            }
        }
    }

    /// Takes a free entry, with its first record.
    fn claim(self, state: u64, trace: [u64; 2], reason: DropReason) -> bool {
        if self.state().compare_exchange(state, state | CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        let generation = state >> 32;
        let content = [trace[0], trace[1], reason as u64, generation << 32 | 1, UnixNanos::now().0];
        for (nth, word) in (1..).zip(content) {
            self.word(nth).store(word, Ordering::Relaxed);
        }
        self.state().store(generation << 32 | IN_USE, Ordering::Release);
        true
    }

    /// Reads an entry in use. Relaxed, since the memory may be mapped for reading only.
    fn read(self) -> Option<LostRecords> {
        let state = self.state().load(Ordering::Relaxed);
        if state & LOW != IN_USE {
            return None;
        }
        fence(Ordering::Acquire);
        let word = |nth: usize| self.word(nth).load(Ordering::Relaxed);
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&word(1).to_ne_bytes());
        trace[8..].copy_from_slice(&word(2).to_ne_bytes());
        Some(LostRecords {
            trace: TraceId(trace),
            reason: DropReason::from_number(word(3))?.as_str(),
            count: word(4) & MOST,
            since: UnixNanos(word(5)),
            mark: state & !LOW | self.place as u64,
        })
    }

    fn free(self, generation: u64) {
        let next = (generation + 1) & LOW;
        // Closed first: from here on nobody adds, whatever state was seen before.
        self.count().store(next << 32 | CLOSED, Ordering::Relaxed);
        self.state().store(next << 32 | FREE, Ordering::Release);
    }
}

/// Spreads ids that may differ in few bits.
fn mixed(mut bits: u64) -> u64 {
    for _ in 0..2 {
        bits = (bits ^ bits >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    bits ^ bits >> 32
}

impl Ring {
    /// Counts a record that never got in, or that the worker had to let go of; `is_end`: it was the end of a span.
    pub fn count_lost(&self, reason: DropReason, is_end: bool, trace: &[u8; 16]) {
        if !self.count_by_trace(reason, trace) {
            self.word(NOT_NOTED_AT + 8 * reason as usize).fetch_add(1, Ordering::Relaxed);
        }
        // Last: who sees that the sum has grown finds in the table what it has grown by.
        self.lost_word(reason, is_end).fetch_add(1, Ordering::Release);
    }

    fn count_by_trace(&self, reason: DropReason, trace: &[u8; 16]) -> bool {
        let [front, back] = [&trace[..8], &trace[8..]].map(|half| {
            let mut word = [0; 8];
            word.copy_from_slice(half);
            u64::from_ne_bytes(word)
        });
        let first = mixed(front ^ back.rotate_left(32)) as usize;
        let entries = || (0..WINDOW).map(|step| self.entry((first + step) % ENTRIES));
        for entry in entries() {
            let state = entry.state().load(Ordering::Acquire);
            if state & LOW == IN_USE && entry.is_of([front, back], reason) && entry.add(state >> 32) {
                return true;
            }
        }
        entries().any(|entry| {
            let state = entry.state().load(Ordering::Relaxed);
            state & LOW == FREE && entry.claim(state, [front, back], reason)
        })
    }

    fn entry(&self, place: usize) -> Entry<'_> {
        Entry { ring: self, place }
    }

    /// Returns what was lost and is not noted in a run yet, by trace and reason.
    pub fn lost(&self) -> Vec<LostRecords> {
        if self.version == Version::V1 {
            // It has no table.
            return Vec::new();
        }
        (0..ENTRIES).filter_map(|place| self.entry(place).read()).filter(|lost| !self.is_moved(lost)).collect()
    }

    /// Tells whether a process died when it had counted an entry under no known run and not freed it yet.
    fn is_moved(&self, lost: &LostRecords) -> bool {
        let word = |at: usize| self.word(at).load(Ordering::Relaxed);
        let Some(reason) = DropReason::from_word(lost.reason) else { return false };
        word(MOVING_AT) == lost.mark + 1 && word(GIVEN_UP_AT + 8 * reason as usize) == word(MOVED_AT)
    }

    /// Returns how many records are lost of which no run is known, for a reason.
    pub fn lost_of_no_run(&self, reason: DropReason) -> u64 {
        let word = |at: usize| self.word(at + 8 * reason as usize).load(Ordering::Relaxed);
        if self.version == Version::V1 { 0 } else { word(NOT_NOTED_AT) + word(GIVEN_UP_AT) }
    }

    /// Closes an entry: what is lost from now on goes to another one. Returns it with its last count.
    pub(crate) fn close_lost(&self, lost: &LostRecords) -> LostRecords {
        let (entry, generation) = self.entry_of(lost);
        // Only the worker frees entries, so the generation is this one still.
        let before = entry.count().fetch_or(CLOSED, Ordering::AcqRel);
        debug_assert_eq!(before >> 32, generation);
        LostRecords { count: before & MOST, ..lost.clone() }
    }

    /// Frees an entry whose count is noted in its run.
    pub(crate) fn free_lost(&self, lost: &LostRecords) {
        let (entry, generation) = self.entry_of(lost);
        entry.free(generation);
    }

    /// Closes an entry and counts its records under no known run.
    pub(crate) fn give_up_lost(&self, lost: &LostRecords) {
        let Some(reason) = DropReason::from_word(lost.reason) else { return };
        let count = self.close_lost(lost).count;
        let sum = self.word(GIVEN_UP_AT + 8 * reason as usize);
        let reached = sum.load(Ordering::Relaxed) + count;
        let (entry, generation) = self.entry_of(lost);
        self.word(MOVED_AT).store(reached, Ordering::Relaxed);
        self.word(MOVING_AT).store(lost.mark + 1, Ordering::Release);
        sum.store(reached, Ordering::Release);
        entry.free(generation);
        self.word(MOVING_AT).store(0, Ordering::Release);
    }

    fn entry_of(&self, lost: &LostRecords) -> (Entry<'_>, u64) {
        (self.entry((lost.mark & LOW) as usize % ENTRIES), lost.mark >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::sources::ring::MIN_CAPACITY;

    fn ring() -> Ring {
        Ring::in_plain_memory(RunId([1; 16]), MIN_CAPACITY).unwrap()
    }

    fn counted(ring: &Ring) -> Vec<(TraceId, &'static str, u64)> {
        let mut counted: Vec<_> = ring.lost().into_iter().map(|lost| (lost.trace, lost.reason, lost.count)).collect();
        counted.sort_unstable();
        counted
    }

    #[test]
    fn what_is_lost_is_counted_by_trace_and_reason_until_it_is_noted() {
        let ring = ring();
        let (a, b) = (TraceId([1; 16]), TraceId([2; 16]));
        for (reason, is_end, trace) in [
            (DropReason::QueueFull, true, a),
            (DropReason::QueueFull, false, a),
            (DropReason::TooLarge, false, a),
            (DropReason::QueueFull, false, b),
        ] {
            ring.count_lost(reason, is_end, &trace.0);
        }
        assert_eq!(counted(&ring), [(a, "queue_full", 2), (a, "too_large", 1), (b, "queue_full", 1)]);
        assert_eq!((ring.lost_ends(DropReason::QueueFull), ring.lost_in_all(DropReason::QueueFull)), (1, 3));
        let first = ring.lost().into_iter().find(|lost| lost.trace == a && lost.count == 2).unwrap();
        let closed = ring.close_lost(&first);
        assert_eq!(ring.close_lost(&closed), closed, "closing again changes nothing");
        // What comes now is not in the note that is being written.
        ring.count_lost(DropReason::QueueFull, false, &a.0);
        assert_eq!(counted(&ring).iter().filter(|lost| lost.0 == a && lost.1 == "queue_full").count(), 2);
        ring.free_lost(&closed);
        assert_eq!(counted(&ring), [(a, "queue_full", 1), (a, "too_large", 1), (b, "queue_full", 1)]);
        let marks: std::collections::HashSet<u64> = ring.lost().iter().map(|lost| lost.mark).collect();
        assert!(marks.len() == 3 && !marks.contains(&closed.mark), "a mark is given once");
        assert_eq!(ring.lost_of_no_run(DropReason::QueueFull), 0);
    }

    #[test]
    fn more_traces_than_the_table_holds_are_counted_without_a_run() {
        let ring = ring();
        for trace in 0..1000u64 {
            let trace = [7u64.to_be_bytes(), trace.to_be_bytes()].concat();
            ring.count_lost(DropReason::QueueFull, false, trace.as_slice().try_into().unwrap());
        }
        let in_table = ring.lost().len() as u64;
        assert!(in_table > 200, "{in_table}");
        assert_eq!(in_table + ring.lost_of_no_run(DropReason::QueueFull), 1000);
    }

    #[test]
    fn nothing_is_lost_from_the_counts_while_they_are_taken() {
        let ring = ring();
        let (threads, each) = (4u8, 30_000u64);
        let (mut noted, mut is_over) = (0, false);
        std::thread::scope(|scope| {
            let losing: Vec<_> = (0..threads)
                .map(|thread| {
                    let ring = &ring;
                    scope.spawn(move || {
                        for n in 0..each {
                            // Some traces are everybody's, some one thread's own.
                            let trace = if n % 2 == 0 { [9, (n % 8) as u8] } else { [thread, (n % 64) as u8] };
                            let trace: Vec<u8> = trace.iter().copied().cycle().take(16).collect();
                            let reason = DropReason::ALL[(n % 3) as usize];
                            ring.count_lost(reason, n % 5 == 0, trace.as_slice().try_into().unwrap());
                        }
                    })
                })
                .collect();
            while !is_over {
                is_over = losing.iter().all(|thread| thread.is_finished());
                for (nth, lost) in ring.lost().iter().enumerate() {
                    if nth % 3 == 0 {
                        ring.give_up_lost(lost);
                    } else {
                        let closed = ring.close_lost(lost);
                        noted += closed.count;
                        ring.free_lost(&closed);
                    }
                }
            }
        });
        let of_no_run: u64 = DropReason::ALL.iter().map(|reason| ring.lost_of_no_run(*reason)).sum();
        let in_all: u64 = DropReason::ALL.iter().map(|reason| ring.lost_in_all(*reason)).sum();
        assert_eq!(ring.lost(), []);
        assert_eq!((noted + of_no_run, in_all), (u64::from(threads) * each, u64::from(threads) * each));
    }

    #[test]
    fn who_dies_while_giving_up_an_entry_has_it_counted_once() {
        let full = DropReason::QueueFull as usize;
        for steps in 0..5 {
            let ring = ring();
            (0..3).for_each(|_| ring.count_lost(DropReason::QueueFull, true, &[5; 16]));
            let lost = ring.close_lost(&ring.lost()[0]);
            // The stores of `give_up_lost`, as far as it came.
            let stores: [&dyn Fn(); 4] = [
                &|| ring.word(MOVED_AT).store(3, Ordering::Relaxed),
                &|| ring.word(MOVING_AT).store(lost.mark + 1, Ordering::Relaxed),
                &|| ring.word(GIVEN_UP_AT + 8 * full).store(3, Ordering::Relaxed),
                &|| ring.free_lost(&lost),
            ];
            stores.iter().take(steps).for_each(|store| store());
            let in_table: u64 = ring.lost().iter().map(|lost| lost.count).sum();
            assert_eq!(in_table + ring.lost_of_no_run(DropReason::QueueFull), 3, "after {steps} stores");
        }
    }
}
