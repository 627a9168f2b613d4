//! The command itself: started, sent the signals that come here, and waited for.
//!
//! It stays in this process's group, so that it has the terminal as it would without, in a pipeline and under job control
//! too. What the terminal sends, it sends to the whole group, and so to both; the kernel says of a signal where it is
//! from, and only what somebody sent to this process alone is passed on. (Who signals the whole group by `kill` reaches
//! both as well, and the command twice; that cannot be told apart.)

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::environment::Environment;

/// Signals that are passed on. Those that cannot be caught, and those of job control, are not this process's business.
const PASSED_ON: &[libc::c_int] =
    &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
/// Signals that ask a process to end.
const ASK_TO_END: &[libc::c_int] = &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// How often it is looked for processes that were left behind.
const POLL: Duration = Duration::from_millis(10);

/// The command's process; 0 as long as there is none.
static COMMAND: AtomicI32 = AtomicI32::new(0);
/// Where the handler writes to.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The signals that asked it to end, as bits.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Children were ignored when this process was started.
static IGNORED: AtomicBool = AtomicBool::new(false);
/// One came after the command had ended: who sent it does not want to wait.
static IS_HURRIED: AtomicBool = AtomicBool::new(false);

/// The command and all below it were stopped, and hear nothing until they go on.
static IS_HELD: AtomicBool = AtomicBool::new(false);
/// How often it is looked for processes that were started while others were being stopped.
const LOOKS: usize = 16;

/// A command that runs.
pub struct Child {
    pid: libc::pid_t,
    /// Whether its number is still its own. Held while a signal is sent.
    is_there: Arc<Mutex<bool>>,
}

/// Sends a signal to every process below this one.
pub fn signal_all_below(signal: libc::c_int) {
    signal_each(all_below(std::process::id()).into_iter(), signal);
}

fn signal_each(processes: impl Iterator<Item = libc::pid_t>, signal: libc::c_int) {
    for process in processes {
        // SAFETY: it was below this process a moment ago. One that has ended by now gets nothing.
        unsafe { libc::kill(process, signal) };
    }
}

/// A process, as the system shows it.
#[derive(Clone, Copy)]
struct Process {
    pid: libc::pid_t,
    parent: libc::pid_t,
    /// It runs, or would if it were its turn: it was not stopped, and has not ended.
    can_stop: bool,
}

/// Returns all processes below one, those nearer to it first.
fn all_below(process: u32) -> Vec<libc::pid_t> {
    look_below(process).iter().map(|process| process.pid).collect()
}

fn look_below(process: u32) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let known: Vec<Process> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // Behind its name, which may hold anything: its state, its parent.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let can_stop = !matches!(fields.next()?, "T" | "t" | "Z" | "X");
            Some(Process { pid, parent: fields.next()?.parse().ok()?, can_stop })
        })
        .collect();
    let children_of = |pid| known.iter().filter(move |process| process.parent == pid).copied();
    let mut found: Vec<Process> = children_of(process.cast_signed()).collect();
    let mut next = 0;
    while let Some(above) = found.get(next).map(|process| process.pid) {
        found.extend(children_of(above));
        next += 1;
    }
    found
}

/// Stops all processes below this one but for those that somebody else has stopped. Returns those that were.
fn stop_all_below() -> Vec<libc::pid_t> {
    let mut stopped = Vec::new();
    for _ in 0..LOOKS {
        let is_new = |process: &Process| process.can_stop && !stopped.contains(&process.pid);
        // One that was about to start another, or to have it go on, has done so before it was stopped itself.
        let new: Vec<_> =
            look_below(std::process::id()).into_iter().filter(is_new).map(|process| process.pid).collect();
        if new.is_empty() {
            break;
        }
        signal_each(new.iter().copied(), libc::SIGSTOP);
        stopped.extend(new);
    }
    stopped
}

/// Where a command runs, when it is not here.
#[derive(Debug, Default)]
pub struct Place {
    /// The directory.
    pub directory: Option<PathBuf>,
    /// What it reads from.
    pub input: Option<File>,
    /// What it prints goes to standard error, for standard output is for something else.
    pub is_out_taken: bool,
}

impl Place {
    fn apply(&self, command: &mut Command) -> io::Result<()> {
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(input) = &self.input {
            command.stdin(input.try_clone()?);
        }
        if self.is_out_taken {
            command.stdout(io::stderr().as_fd().try_clone_to_owned()?);
        }
        Ok(())
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited(u8),
    /// By a signal.
    Killed(i32),
    /// The system does not say how.
    Unknown,
}

impl Ended {
    /// Returns the exit code that tells it, as shells do.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Unknown => u8::MAX,
        }
    }

    /// Tells whether it ended by a signal that asked it to end, whether that killed it or it did so itself; that nobody
    /// reads what it says is such a signal, too.
    pub fn was_asked(self) -> bool {
        let asked = ASKED.load(Ordering::Relaxed);
        match self {
            Self::Killed(by) => by == libc::SIGPIPE || ASK_TO_END.contains(&by),
            Self::Unknown => false,
            Self::Exited(code) => {
                ASK_TO_END.iter().any(|signal| asked & (1 << signal) != 0 && i32::from(code) == 128 + signal)
            }
        }
    }
}

impl Child {
    /// Starts the command with a changed environment.
    ///
    /// # Errors
    ///
    /// Why it cannot be started.
    pub fn start(command: &[OsString], environment: &Environment, place: &Place) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else { return Err(io::ErrorKind::NotFound.into()) };
        let is_there = Arc::new(Mutex::new(true));
        catch_signals(&is_there)?;
        // What it leaves behind comes to this process, so that it can be seen whether there is anything. Without that
        // nothing is waited for.
        // SAFETY: sets an attribute of this process.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        let spawn = |mut command: Command| {
            command.args(arguments).envs(&environment.set);
            place.apply(&mut command)?;
            ignore_children_in(&mut command);
            crate::cli::limits::leave_to(&mut command);
            for name in &environment.removed {
                command.env_remove(name);
            }
            command.spawn()
        };
        let child = match spawn(Command::new(program)) {
            // A script without a first line that says what runs it is the shell's, as POSIX has it.
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg(super::python::which(program).unwrap_or_else(|| program.into()));
                spawn(shell)?
            }
            spawned => spawned?,
        };
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        COMMAND.store(pid, Ordering::SeqCst);
        Ok(Self { pid, is_there })
    }

    /// Returns its number.
    pub fn id(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Returns what sends signals to it and to all that it has started.
    pub fn signals(&self) -> Signals {
        Signals { pid: self.pid, is_there: Arc::clone(&self.is_there) }
    }

    /// Waits for its end.
    pub fn wait(self) -> Ended {
        loop {
            match next_to_end(true) {
                Some(pid) if pid == self.pid => {
                    let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
                    *is_there = false;
                    let ended = reap(pid).unwrap_or(Ended::Unknown);
                    // Should it have been killed while it was held, what it left has some time to end, too.
                    let_go_on();
                    return ended;
                }
                Some(orphan) => drop(reap(orphan)),
                // It cannot be waited for, which means that it is gone.
                None => return Ended::Unknown,
            }
        }
    }
}

/// Sends signals to a command.
pub struct Signals {
    pid: libc::pid_t,
    is_there: Arc<Mutex<bool>>,
}

impl Signals {
    /// Sends one to the command, as long as it is there, and to all processes below this one: a shell would not pass it on.
    /// Tells whether the command was there to get it.
    pub fn send(&self, signal: libc::c_int) -> bool {
        let Some(_there) = self.there() else { return false };
        // Looked for before it is gone, and they are nobody's.
        let below = all_below(std::process::id());
        // SAFETY: it was not reaped, so the number is still its own.
        let is_sent = unsafe { libc::kill(self.pid, signal) } == 0;
        signal_each(below.iter().copied().filter(|process| *process != self.pid), signal);
        // What is stopped hears nothing else, whoever has stopped it.
        IS_HELD.store(false, Ordering::Relaxed);
        held().clear();
        signal_each(below.into_iter(), libc::SIGCONT);
        *guard() = None;
        is_sent
    }

    /// Stops the command and all below it, until it is [let go on](Self::release).
    pub fn hold(&self) {
        let Some(_there) = self.there() else { return };
        IS_HELD.store(true, Ordering::Relaxed);
        let stopped = stop_all_below();
        *guard() = Guard::start(&stopped);
        *held() = stopped;
    }

    /// Has go on what was stopped here. What another had stopped before, as the pause of a run below this one has, is that
    /// one's to let go on.
    pub fn release(&self) {
        let Some(_there) = self.there() else { return };
        IS_HELD.store(false, Ordering::Relaxed);
        // The number of one that was killed meanwhile may be another's.
        let below = all_below(std::process::id());
        // Those furthest below first: one above them that is to stop them itself must not find them stopped by somebody else.
        let stopped = std::mem::take(&mut *held()).into_iter().rev().filter(|process| below.contains(process));
        signal_each(stopped, libc::SIGCONT);
        *guard() = None;
    }

    /// Keeps the command from being reaped, if it is there.
    fn there(&self) -> Option<MutexGuard<'_, bool>> {
        let is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        is_there.then_some(is_there)
    }
}

/// The processes that are held.
static HELD: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<libc::pid_t>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that has those go on that were stopped, should this one be killed: nobody else would know that they are.
struct Guard {
    /// Its other end is the guard's, which reads from it that it is not needed, or the end of this process.
    life: OwnedFd,
}

/// While processes are held.
static GUARD: Mutex<Option<Guard>> = Mutex::new(None);

fn guard() -> MutexGuard<'static, Option<Guard>> {
    GUARD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// Starts it for processes that are stopped; `None` where the system has no room for it.
    fn start(stopped: &[libc::pid_t]) -> Option<Self> {
        let mut ends = [0; 2];
        // SAFETY: two places for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return None;
        }
        // SAFETY: they are new, and nobody else's.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: the child calls only what may be called between `fork` and `exec`, and never returns.
        match unsafe { libc::fork() } {
            -1 => None,
            0 => Self::watch(read.as_raw_fd(), write.as_raw_fd(), stopped),
            _ => Some(Self { life: write }),
        }
    }

    /// Is the guard: waits until it is told that it is not needed, or the other end is closed by the death of who has it.
    fn watch(read: libc::c_int, write: libc::c_int, stopped: &[libc::pid_t]) -> ! {
        // SAFETY: plain system calls on descriptors and numbers of this process.
        unsafe {
            // What the terminal or a budget says to the command is not meant for this.
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP] {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::close(write);
            // Nobody waits for the end of what the command prints because of it.
            for standard in 0..3 {
                libc::close(standard);
            }
            let mut word = 0_u8;
            let read = loop {
                match libc::read(read, (&raw mut word).cast(), 1) {
                    -1 if *libc::__errno_location() == libc::EINTR => {}
                    read => break read,
                }
            };
            if read == 1 {
                libc::_exit(0);
            }
            for process in stopped.iter().rev() {
                // It is stopped, so that its number is still its own; one that goes on already takes no notice.
                libc::kill(*process, libc::SIGCONT);
            }
            libc::_exit(0)
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Told, it signals nobody: what went on by now may be stopped once more before it comes to that.
        let word = 1_u8;
        // SAFETY: our own descriptor, and a byte. Should it fail, the guard finds the end closed.
        unsafe { libc::write(self.life.as_raw_fd(), (&raw const word).cast(), 1) };
    }
}

/// Has the system say how children of this process end, which it does not where who started it ignores that. Comes
/// before any of them is started.
pub fn notice_children() {
    // SAFETY: sets what becomes of a signal; there is no handler.
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    IGNORED.store(before == libc::SIG_IGN, Ordering::Relaxed);
}

/// The command finds it as it would without.
fn ignore_children_in(command: &mut Command) {
    if IGNORED.load(Ordering::Relaxed) {
        let ignore = || {
            // SAFETY: allowed between `fork` and `exec`.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: it does nothing but that.
        unsafe { command.pre_exec(ignore) };
    }
}

/// Waits until nothing of what a command started is left and `is_quiet`, at most `limit`. Tells whether anything is left.
pub fn wait_for_the_rest(limit: Duration, is_quiet: impl Fn() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        while let Some(orphan) = next_to_end(false) {
            reap(orphan);
        }
        let is_left = has_children();
        if (!is_left && is_quiet()) || IS_HURRIED.load(Ordering::Relaxed) || Instant::now() >= until {
            return is_left;
        }
        std::thread::sleep(POLL);
    }
}

/// Returns a child that has ended and leaves it; `None` where there is no child, or without `wait` where none has ended.
fn next_to_end(wait: bool) -> Option<libc::pid_t> {
    let flags = libc::WEXITED | libc::WNOWAIT | if wait { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: the information is plain numbers, for which zeros stand.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the place is ours.
        let waited = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
        if waited == 0 {
            // SAFETY: `waitid` has filled it in, or left the zero.
            let pid = unsafe { info.si_pid() };
            return (pid != 0).then_some(pid);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Takes note of a child's end.
fn reap(pid: libc::pid_t) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: the place is ours; the child has ended, so this returns at once.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return None;
    }
    if libc::WIFSIGNALED(status) {
        return Some(Ended::Killed(libc::WTERMSIG(status)));
    }
    Some(Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))
}

fn has_children() -> bool {
    // SAFETY: as in `next_to_end`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the place is ours.
    unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG) == 0 }
}

/// Catches the signals that are passed on, and starts the thread that does so.
fn catch_signals(is_there: &Arc<Mutex<bool>>) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: two places for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let [read, write] = ends;
    // A full pipe must not stop the handler: a signal that came a thousand times came often enough.
    // SAFETY: our own descriptor.
    unsafe { libc::fcntl(write, libc::F_SETFL, libc::O_NONBLOCK) };
    PIPE.store(write, Ordering::SeqCst);
    let is_there = Arc::clone(is_there);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || pass_on(read, &is_there))?;
    for &signal in PASSED_ON {
        catch(signal);
    }
    Ok(())
}

/// Has the handler called for a signal, unless it is ignored: who started this with `nohup` wants the command so, too.
fn catch(signal: libc::c_int) {
    // SAFETY: the structures are plain numbers, for which zeros stand; the handler does what handlers may do.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut old) != 0 || old.sa_sigaction == libc::SIG_IGN {
            return;
        }
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = on_signal as *const () as libc::sighandler_t;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        libc::sigaction(signal, &raw const new, std::ptr::null_mut());
    }
}

/// Says which signal came, and whether the command has had it from the terminal.
extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands in valid information; reading `errno` and writing to a pipe is allowed here.
    unsafe {
        let errno = *libc::__errno_location();
        let is_of_terminal = (*info).si_code == libc::SI_KERNEL;
        let has_it = is_of_terminal && COMMAND.load(Ordering::SeqCst) != 0;
        let said = [u8::try_from(signal).unwrap_or(0), u8::from(has_it)];
        // What does not fit is one signal among very many.
        let _ = libc::write(PIPE.load(Ordering::SeqCst), said.as_ptr().cast(), said.len());
        *libc::__errno_location() = errno;
    }
}

/// Has what was stopped go on, so that it hears the signal that it was sent.
fn let_go_on() {
    if IS_HELD.swap(false, Ordering::Relaxed) {
        held().clear();
        signal_all_below(libc::SIGCONT);
        *guard() = None;
    }
}

/// Sends on what the handler says, for as long as the command is there.
fn pass_on(pipe: libc::c_int, is_there: &Mutex<bool>) {
    let mut said = [0_u8; 2];
    loop {
        // SAFETY: the place is ours. Two bytes are written at once, and so are read at once.
        let read = unsafe { libc::read(pipe, said.as_mut_ptr().cast(), said.len()) };
        match read {
            2 => {}
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
            _ => return,
        }
        let signal = libc::c_int::from(said[0]);
        if ASK_TO_END.contains(&signal) {
            ASKED.fetch_or(1 << signal, Ordering::Relaxed);
        }
        // Held to the end: a pause that begins meanwhile has stopped all, or none, of what is to go on.
        let there = is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if !*there {
            IS_HURRIED.fetch_or(ASK_TO_END.contains(&signal), Ordering::Relaxed);
            continue;
        }
        if said[1] == 1 {
            let_go_on();
            continue;
        }
        drop(there);
        // One that came before the command was there is meant for it.
        while COMMAND.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let is_there = is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_there {
            // SAFETY: it was not reaped, so the number is still its own.
            unsafe { libc::kill(COMMAND.load(Ordering::SeqCst), signal) };
            if ASK_TO_END.contains(&signal) {
                let_go_on();
            }
        }
    }
}
