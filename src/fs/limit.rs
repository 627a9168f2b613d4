//! Files that may not grow any more (`ulimit -f`, `RLIMIT_FSIZE`), and how many may be open (`ulimit -n`, `RLIMIT_NOFILE`).

use std::mem::MaybeUninit;

/// While it lives, a write of this thread beyond what a file may be long fails with `EFBIG`, as one to a full disk does: by default
/// the system ends the process (`SIGXFSZ`). What a program has set for the signal stays as it is, and threads that are started
/// meanwhile have it so for good.
#[derive(Debug)]
pub(crate) struct BearFileLimit {
    /// The signal was not blocked before.
    is_ours: bool,
}

impl BearFileLimit {
    /// Begins.
    pub fn begin() -> Self {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let signal = signal();
        // SAFETY: the sets live through the call, which writes the second one.
        let changed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, before.as_mut_ptr()) };
        // SAFETY: written where the call did not fail.
        let is_ours = changed == 0 && unsafe { libc::sigismember(before.as_ptr(), libc::SIGXFSZ) } == 0;
        Self { is_ours }
    }
}

impl Drop for BearFileLimit {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let signal = signal();
        let (mut pending, mut taken) = (signal, 0);
        // SAFETY: the structures live through the calls. The signal is this thread's: who wrote was sent it, and waits for what
        // is there.
        unsafe {
            if libc::sigpending(&raw mut pending) == 0 && libc::sigismember(&raw const pending, libc::SIGXFSZ) == 1 {
                libc::sigwait(&raw const signal, &raw mut taken);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signal, std::ptr::null_mut());
        }
    }
}

/// Returns how many descriptors this process may have; `None` where the system does not say.
pub(crate) fn descriptors() -> Option<u64> {
    let mut known = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut known) };
    (done == 0).then_some(known.rlim_cur)
}

fn signal() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call writes the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGXFSZ);
        set.assume_init()
    }
}
