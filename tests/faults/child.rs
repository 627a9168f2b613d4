//! Processes under test: started clean, listened to, killed at the end whatever happens.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Failed;
use crate::agent::{Plan, Told};

/// Longest that anything may take before it counts as hung.
pub const WATCHDOG: Duration = Duration::from_secs(180);

/// Starts a command without the settings of whoever runs this.
pub fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RUNSPAN_") || name.starts_with("OTEL_") || name == "TRACEPARENT" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What an agent has said so far.
#[derive(Debug, Default)]
struct Heard {
    /// One above the number of the last step whose end has returned; 0: none.
    ended: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Clone, Debug, Default)]
struct Lines {
    runs: Vec<u64>,
    report: Option<Told>,
}

/// What an agent had said when its end came.
#[derive(Clone, Debug)]
pub struct Said {
    /// The steps whose end had returned: from `first`, without a gap, up to here, exclusive.
    pub ended: u64,
    /// The runs whose end had returned.
    pub runs: Vec<u64>,
    pub report: Option<Told>,
    /// What it wrote to standard error.
    pub stderr: String,
    pub status: ExitStatus,
}

/// An agent in a process of its own.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Heard>,
    listeners: Option<(JoinHandle<()>, JoinHandle<String>)>,
    first: u64,
}

impl Agent {
    /// Starts one.
    pub fn start(plan: &Plan) -> Result<Self, Failed> {
        let mut child = clean(std::env::current_exe()?)
            .args(["--agent", &serde_json::to_string(plan)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let heard = Arc::new(Heard::default());
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut stderr = child.stderr.take().ok_or("no standard error")?;
        let hearing = Arc::clone(&heard);
        let out = std::thread::spawn(move || listen(BufReader::new(stdout), &hearing));
        let err = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read until the pipe broke is what there is.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, heard, listeners: Some((out, err)), first: plan.first })
    }

    /// Returns how many steps have ended.
    pub fn ended(&self) -> u64 {
        self.heard.ended.load(Ordering::SeqCst).saturating_sub(self.first)
    }

    /// Waits until so many steps have ended.
    pub fn wait_for(&self, steps: u64) -> Result<(), Failed> {
        wait_until("an agent gets on", || self.ended() >= steps)
    }

    /// Kills it now.
    pub fn kill(mut self) -> Result<Said, Failed> {
        self.child.kill()?;
        self.said()
    }

    /// Lets it come to its end.
    pub fn finish(mut self) -> Result<Said, Failed> {
        drop(self.stdin.take());
        self.said()
    }

    fn said(&mut self) -> Result<Said, Failed> {
        let status = wait(&mut self.child, WATCHDOG)?;
        // What it had said before its end is in the pipes still.
        let (out, err) = self.listeners.take().ok_or("was heard before")?;
        out.join().map_err(|_| "cannot listen")?;
        let stderr = err.join().map_err(|_| "cannot listen")?;
        let lines = self.heard.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = self.heard.ended.load(Ordering::SeqCst).max(self.first);
        Ok(Said { ended, runs: lines.runs, report: lines.report, stderr, status })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail when it is over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    /// Returns the report of an agent that came to its end.
    pub fn reported(&self) -> Result<&Told, Failed> {
        let report = self.report.as_ref();
        report.ok_or_else(|| format!("an agent ended with {} and no report: {}", self.status, self.stderr).into())
    }

    /// Returns the lines that the recorder wrote.
    pub fn warnings(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("runspan: ")).collect()
    }
}

fn listen(lines: impl BufRead, heard: &Heard) {
    for line in lines.lines().map_while(Result::ok) {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let number = rest.parse::<u64>();
        let mut lines = heard.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match (word, number) {
            ("ended", Ok(n)) => heard.ended.store(n + 1, Ordering::SeqCst),
            ("over", Ok(run)) => lines.runs.push(run),
            ("report", _) => lines.report = serde_json::from_str(rest).ok(),
            _ => {}
        }
    }
}

/// Waits for a child's end, and kills one that hangs.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, Failed> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(format!("a process hung for {limit:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) -> Result<(), Failed> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > WATCHDOG {
            return Err(format!("never happened: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs a command to its end, which has to come soon.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output, Failed> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipes = (child.stdout.take().ok_or("no standard output")?, child.stderr.take().ok_or("no standard error")?);
    let read = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    };
    std::thread::scope(|threads| {
        let out = threads.spawn(|| read(&mut pipes.0));
        let err = threads.spawn(|| read(&mut pipes.1));
        let status = wait(&mut child, limit);
        let stdout = out.join().map_err(|_| "cannot listen")?;
        let stderr = err.join().map_err(|_| "cannot listen")?;
        Ok(Output { status: status?, stdout, stderr })
    })
}
