//! `runspan replay` step by step: lines of another program, keys of a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use runspan::{Run, Usage};

use crate::support::{Killed, record_in, tempdir};

fn record(store: &Path) {
    record_in(store, |_| {
        let run = Run::agent("oracle").start();
        let call = run.llm("openai", "gpt-4o");
        call.input("Rain?").output("Yes.").usage(Usage::new(3, 1));
        call.finish();
        run.finish();
    });
}

fn types(lines: &str) -> Vec<&str> {
    let words = lines.lines().filter(|line| !line.starts_with("      ")).map(|line| line.split_whitespace().nth(2));
    words.flatten().collect()
}

#[test]
fn each_line_shows_the_next_event_and_the_end_of_lines_ends_it() {
    let dir = tempdir();
    record(dir.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
    command.args(["replay", "latest", "--step", "--store"]).arg(dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = child.0.stdin.take().unwrap();
    lines.write_all(b"\n\n").unwrap();
    drop(lines);
    let out = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
    assert_eq!(types(&out), ["run_started", "step_started", "step_started"]);
    assert!(child.0.wait().unwrap().success());
}

/// Starts a command on a terminal of its own, and returns the other end of that.
fn on_terminal(command: &mut Command) -> (Killed, File) {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both descriptors are written to, nothing else is given.
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: open, and nobody else's.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    // SAFETY: two system calls in the child; its terminal is its standard input.
    unsafe {
        command.pre_exec(|| {
            let is_led = libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1;
            if is_led { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let child = Killed(command.spawn().unwrap());
    // Nobody but the child has its terminal: once it has ended there is nothing more to read.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (child, ours)
}

#[test]
fn any_key_shows_the_next_event_and_the_terminal_is_left_as_it_was() {
    let dir = tempdir();
    record(dir.path());
    let runspan = env!("CARGO_BIN_EXE_runspan");
    let replay = format!("{runspan} replay latest --step --store {}", dir.path().display());
    let line = format!("stty -a >{0}/before; {replay}; echo ends $?; stty -a >{0}/after", dir.path().display());
    let (mut child, mut keys) = on_terminal(Command::new("sh").args(["-c", &line]).env("NO_COLOR", "1"));
    let mut lines = BufReader::new(keys.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut until = |word: &str| lines.find(|line| line.contains(word)).unwrap_or_default();
    until("run_started");
    keys.write_all(b" ").unwrap();
    until("invoke_agent oracle");
    keys.write_all(b"n").unwrap();
    assert!(until("sees").contains("Rain?"));
    keys.write_all(b"\x03").unwrap();
    assert_eq!(until("ends").trim(), "ends 0", "Ctrl-C is a key that ends it");
    assert!(child.0.wait().unwrap().success());
    let state = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(state("before"), state("after"));
}
