//! Notices `fork`.
//!
//! A child has the parent's memory and none of its threads: it must not write into the parent's ring, repeat its
//! random ids or believe that a worker is there. A counter that the C library's fork handler raises in the child
//! tells, at the price of one relaxed load.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static INSTALLED: Once = Once::new();

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Returns how often this process's line has forked since the handler was installed; it changes in a child.
pub fn generation() -> u32 {
    INSTALLED.call_once(|| {
        // SAFETY: `in_child` only touches an atomic, which is safe between fork and exec. A failure to register
        // (out of memory) leaves forks unnoticed and harms nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}
