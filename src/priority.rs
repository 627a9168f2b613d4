//! Which of our threads go after others that want to work.

/// The run store: an answer to a sender waits for the journal, and the journal for nobody.
#[cfg(feature = "server")]
pub(crate) const STORE: i32 = 12;
/// The index, which readers can do without.
#[cfg(feature = "index")]
pub(crate) const INDEX: i32 = 15;
/// Retention, which has all the time there is: the lowest.
pub(crate) const RETENTION: i32 = 19;

/// Lets this thread go after all that have a smaller number, which is 0 to begin with. Where there is work for fewer threads
/// than there are processors it changes nothing.
pub(crate) fn lower(to: i32) {
    // On Linux the number means a thread, elsewhere the process.
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is handed over; a system that refuses lets it run as before.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, to);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = to;
}
