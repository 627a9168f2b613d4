//! Notices `fork`.
//!
//! A child has the parent's memory and none of its threads: it must not write into the parent's ring, repeat its
//! random ids or believe that a worker is there. A counter that the C library's fork handler raises in the child
//! tells, at the price of one relaxed load.
//!
//! A child also shares the parent's open files, and with them their locks: as long as it lives its dead parent would
//! look alive, and nobody would take over what that has left. So the handler puts something harmless in the place of
//! the files that [`keep_from_children`] was told of.

use std::os::unix::io::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static INSTALLED: Once = Once::new();
/// Descriptors of files that are this process's alone: some for each recorder, one for each run under way. What finds no
/// place is shared.
static ALONE: [AtomicI32; 1024] = [const { AtomicI32::new(NONE) }; 1024];
const NONE: RawFd = -1;

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
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
        // SAFETY: `in_child` only touches atomics and makes system calls, which is safe between fork and exec. A failure
        // to register (out of memory) leaves forks unnoticed and harms nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
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
