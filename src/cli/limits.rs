//! Files that may not grow any more (`ulimit -f`).

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signal was not blocked by who started this process.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// Makes a file that may not grow any more an error of the write, as a full disk is: by default the system ends the process. The
/// threads of this process inherit it.
pub fn bear() {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let signal = signal();
    // SAFETY: the sets live through the calls, the first of which writes the second one.
    unsafe {
        if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, before.as_mut_ptr()) == 0 {
            IS_OURS.store(libc::sigismember(before.as_ptr(), libc::SIGXFSZ) == 0, Ordering::Relaxed);
        }
    }
}

/// A command finds the signal as it would without this process.
pub fn leave_to(command: &mut Command) {
    if !IS_OURS.load(Ordering::Relaxed) {
        return;
    }
    let unblock = || {
        let signal = signal();
        // SAFETY: allowed between `fork` and `exec`.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signal, std::ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: it does nothing but that.
    unsafe { command.pre_exec(unblock) };
}

fn signal() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call writes the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGXFSZ);
        set.assume_init()
    }
}
