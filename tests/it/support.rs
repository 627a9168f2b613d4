//! What several tests share: a recorder of their own, children that can be killed, steady views of what was stored.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use runspan::model::{RunId, RunSummary, StepView};
use runspan::store::files::FilesReader;
use runspan::store::{Listed, Query, RunReader};
use runspan::{Guard, Report};
use tracing_subscriber::layer::SubscriberExt;

/// Longest that anything may take before a test gives up.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// A folder for one test, that takes along what processes that died over stores in it left in shared memory.
#[derive(Debug)]
pub struct TestDir(tempfile::TempDir);

/// Makes a folder for a test.
pub fn tempdir() -> TestDir {
    TestDir(tempfile::tempdir().expect("a folder"))
}

impl TestDir {
    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        remove_rings(self.path(), 5);
    }
}

/// Removes the rings that journals below a folder name, and the folders of users who were there for a test only.
fn remove_rings(dir: &Path, depth: u32) {
    for path in std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        if depth > 0 && path.is_dir() && !path.is_symlink() {
            remove_rings(&path, depth - 1);
        }
        let is_note = path.ends_with("ring") && path.with_file_name("lock").exists();
        let noted = std::fs::read_to_string(&path).ok().filter(|_| is_note);
        let Some(ring) = noted.map(|path| PathBuf::from(path.trim_end())).filter(|ring| ring.is_absolute()) else {
            continue;
        };
        let _ = std::fs::remove_file(&ring);
        // SAFETY: always succeeds.
        let own = format!("runspan-{}", unsafe { libc::geteuid() });
        if let Some(folder) = ring.parent().filter(|folder| !folder.ends_with(&own)) {
            // Only when it is empty.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Runs `work` under a recorder with its own store and returns the report.
pub fn record_in(store: &Path, work: impl FnOnce(&Guard)) -> Report {
    let (layer, guard) = runspan::builder().store(store).build().expect("a recorder");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || work(&guard));
    guard.shutdown(WATCHDOG)
}

/// Opens a store as a command does: what dead processes left is taken in first.
pub fn open(store: &Path) -> FilesReader {
    let (reader, adopted) = runspan::recovery::open(store).expect("a store");
    let adopted = adopted.expect("what dead processes left");
    assert_eq!(adopted.missing, []);
    reader
}

/// Returns all runs, newest first; a damaged one fails the test.
pub fn runs(store: &Path) -> Vec<RunSummary> {
    let listed = open(store).list_runs(&Query::default()).expect("a list");
    listed
        .into_iter()
        .map(|listed| match listed {
            Listed::Run(run) => run.summary,
            Listed::Damaged(run) => panic!("damaged: {run:?}"),
        })
        .collect()
}

/// Returns the one run of a store.
pub fn only_run(store: &Path) -> RunSummary {
    let mut runs = runs(store);
    assert_eq!(runs.len(), 1, "{runs:#?}");
    runs.remove(0)
}

/// Returns a run's steps.
pub fn steps(store: &Path, run: RunId) -> Vec<StepView> {
    open(store).get_steps(run).expect("steps")
}

/// One line a step: depth by parents, name, kind, status.
pub fn outline(steps: &[StepView]) -> Vec<String> {
    let depth = |step: &StepView| {
        let (mut depth, mut parent) = (0, step.parent_span_id);
        while let Some(above) = parent.and_then(|parent| steps.iter().find(|step| step.span_id == parent)) {
            depth += 1;
            parent = above.parent_span_id;
        }
        depth
    };
    steps
        .iter()
        .map(|step| format!("{}{} {} {}", "  ".repeat(depth(step)), step.step_id, step.kind, step.status))
        .collect()
}

/// Starts a test of this binary as a process of its own; the test looks for `RUNSPAN_TEST_CHILD`.
pub fn child(test: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("RUNSPAN_TEST_CHILD", test)
        .env("RUNSPAN_STORE", store)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Tells the store when this process is the child started for `test`.
pub fn is_child(test: &str) -> Option<PathBuf> {
    (std::env::var("RUNSPAN_TEST_CHILD").ok()? == test)
        .then(|| PathBuf::from(std::env::var_os("RUNSPAN_STORE").unwrap_or_default()))
}

/// Waits until `ready`, or fails.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < WATCHDOG, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end; one that hangs is killed and fails the test.
pub fn ended(mut command: Command) -> Output {
    let child = command.spawn().expect("a child");
    // Not reaped before its output is read, so the number stays its own.
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || drop(tell.send(child.wait_with_output())));
    let hangs = told.recv_timeout(WATCHDOG).map_err(|_| {
        signal(pid, libc::SIGKILL);
        told.recv().expect("a killed child")
    });
    reader.join().expect("the reader");
    wait_for_locks_of(pid);
    match hangs {
        Ok(output) => output.expect("output"),
        Err(output) => panic!("hangs: {}", texts(&output.expect("output"))),
    }
}

/// Waits until the locks of a process that has ended are free: the kernel closes its files a moment later.
fn wait_for_locks_of(pid: u32) {
    let is_of = |line: &str| line.split_whitespace().nth(4) == Some(&pid.to_string());
    // Where there is no such list a lock that is late shows as a test that fails.
    wait_until("locks of the dead are free", || {
        !std::fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.lines().any(is_of))
    });
}

/// Runs a command to its end, which must be a good one, and returns what it said on standard error.
pub fn said(command: Command) -> String {
    let output = ended(command);
    assert!(output.status.success(), "{}: {}", output.status, texts(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn texts(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command with a disk of `mib` MiB of its own at `dir`, in a mount namespace that goes with the process.
pub fn on_own_disk(inner: &Command, dir: &Path, mib: u32) -> Command {
    let script = format!("mount -t tmpfs -o size={mib}m none {} && exec \"$0\" \"$@\"", dir.display());
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The lines that the recorder said.
pub fn warnings(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("runspan: ")).collect()
}

/// Removes the directory of a user that only a test has, `54_321` or above a million; it must be empty by then.
pub fn remove_shared_memory_of_user() {
    // SAFETY: always succeeds.
    let user = unsafe { libc::geteuid() };
    if user != 54_321 && user < 1_000_000 {
        return;
    }
    let dir = format!("/dev/shm/runspan-{user}");
    assert!(!Path::new(&dir).exists() || std::fs::remove_dir(&dir).is_ok(), "something is left in {dir}");
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// An agent with some tool calls; that many spans and one more.
pub fn agent(name: &str, tools: usize) {
    let agent = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = name);
    agent.in_scope(|| (0..tools).for_each(|_| tool("t")));
}

/// A tool call.
pub fn tool(name: &str) {
    tracing::info_span!("execute_tool", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = name)
        .in_scope(|| {});
}

/// Counts the spans that close beside a recorder: what a report must account for.
#[derive(Clone, Debug, Default)]
pub struct Closed(Arc<AtomicU64>);

impl Closed {
    /// Returns how many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Closed {
    fn on_close(&self, _: tracing::span::Id, _: tracing_subscriber::layer::Context<'_, S>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Every span that was made is stored, waits, or is dropped and counted; none is told twice.
pub fn assert_accounted(report: &Report, closed: u64) {
    let accounted = report.stored + report.pending + report.dropped.values().sum::<u64>();
    assert_eq!(accounted, closed, "{report:?}");
}

/// A child that is killed when the test is over, however it ends.
pub struct Killed(pub Child);

impl Killed {
    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        wait_for_locks_of(self.0.id());
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One line a step: its step id and the one above it, then all that is known of it as JSON, ids and times left out.
pub fn told(store: &Path, run: RunId) -> Vec<String> {
    let steps = steps(store, run);
    let name = |span| steps.iter().find(|step| Some(step.span_id) == span).map_or("-", |step| step.step_id.as_str());
    steps
        .iter()
        .map(|step| {
            let mut value = serde_json::to_value(step).expect("JSON");
            let object = value.as_object_mut().expect("an object");
            let unsteady = ["step_id", "span_id", "parent_span_id", "started_at", "duration_ms"];
            object.retain(|key, value| !value.is_null() && !unsteady.contains(&key.as_str()));
            if let Some(tokens) = object.get_mut("tokens").and_then(serde_json::Value::as_object_mut) {
                tokens.retain(|_, count| !count.is_null());
            }
            format!("{} < {} {value}", step.step_id, name(step.parent_span_id))
        })
        .collect()
}
