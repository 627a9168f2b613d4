//! Notices `fork`.
//!
//! A child has the parent's memory and none of its threads: it must not write into the parent's ring, repeat its
//! random ids or believe that a worker is there. A counter that the C library's fork handler raises in the child
//! tells, at the price of one relaxed load.
//!
//! What a thread of the parent holds at that moment the child has held for ever: a child that sets up a recorder of its
//! own would wait without end for a table that our worker was just making. So a fork waits until our threads are out of
//! the code where that may be, which is for the microseconds of a record, or the milliseconds of making the tables.
//!
//! A child also shares the parent's open files, and with them their locks: as long as it lives its dead parent would
//! look alive, and nobody would take over what that has left. So the handler puts something harmless in the place of
//! the files that [`keep_from_children`] was told of.

use std::os::unix::io::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static INSTALLED: Once = Once::new();
/// Descriptors of files that are this process's alone: some for each recorder, one for each run under way. What finds no
/// place is shared.
static ALONE: [AtomicI32; 1024] = [const { AtomicI32::new(NONE) }; 1024];
const NONE: RawFd = -1;

/// Longest that a fork waits; whoever is inside for so long is not going to come out.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many threads of ours are inside, and whether a fork is under way.
static INSIDE: AtomicU32 = AtomicU32::new(0);
const FORKING: u32 = 1 << 31;

extern "C" fn before() {
    let until = Instant::now() + PATIENCE;
    INSIDE.fetch_or(FORKING, Ordering::AcqRel);
    while INSIDE.load(Ordering::Acquire) & !FORKING != 0 && Instant::now() < until {
        std::thread::yield_now();
    }
}

extern "C" fn in_parent() {
    INSIDE.fetch_and(!FORKING, Ordering::AcqRel);
}

/// Holds off forks until it is dropped; for work of our own threads with state that the whole process shares.
#[must_use = "forks are held off until this is dropped"]
pub(crate) struct HeldOff(());

/// Waits for a fork that is under way, then holds off others.
pub(crate) fn hold_off() -> HeldOff {
    let enter = |inside: u32| (inside & FORKING == 0).then_some(inside + 1);
    while INSIDE.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_err() {
        std::thread::yield_now();
    }
    HeldOff(())
}

impl Drop for HeldOff {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::AcqRel);
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    INSIDE.store(0, Ordering::Relaxed);
    for place in &ALONE {
        let descriptor = place.swap(NONE, Ordering::Relaxed);
        if descriptor != NONE {
            replace_by_nothing(descriptor);
        }
    }
}

/// Makes a descriptor one of `/dev/null`. Closing it would let its number go to another file, which its owner in this
/// process's memory would then close.
fn replace_by_nothing(descriptor: RawFd) {
    // SAFETY: system calls that are safe between fork and exec, on a descriptor that is open. Where they fail the lock
    // stays shared, as it would be without us.
    unsafe {
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if nothing != -1 {
            libc::dup2(nothing, descriptor);
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::close(nothing);
        }
    }
}

/// Returns how often this process's line has forked since the handler was installed; it changes in a child.
pub fn generation() -> u32 {
    INSTALLED.call_once(|| {
        // SAFETY: the handlers only touch atomics and make system calls, which is safe between fork and exec. A failure to
        // register (out of memory) leaves forks unnoticed and harms nothing else.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}

/// Keeps an open file from forked children until the answer is dropped, which has to be before the file is closed.
pub fn keep_from_children(descriptor: RawFd) -> Alone {
    generation();
    let take =
        |place: &&AtomicI32| place.compare_exchange(NONE, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    Alone { descriptor, place: ALONE.iter().find(take) }
}

/// An open file that forked children do not share.
#[derive(Debug)]
#[must_use = "the file is shared again when this is dropped"]
pub struct Alone {
    descriptor: RawFd,
    place: Option<&'static AtomicI32>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // In a child the place may have gone to a file of its own.
            let _ = place.compare_exchange(self.descriptor, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
