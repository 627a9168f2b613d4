//! `runspan exec` with real processes: what is recorded of a command, and that it runs as it would without.

mod budget;
pub mod clients;
pub mod proxy;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use runspan::model::{EventBody, RunKind, RunStatus, RunSummary};
use runspan::store::RunReader;

use crate::support::{
    Killed, agent, ended, is_child, on_own_disk, only_run, open, outline, record_in, runs, signal, steps, tempdir,
};

fn exec(store: &Path, more: &[&str], command: &[&str]) -> Command {
    let mut exec = Command::new(env!("CARGO_BIN_EXE_runspan"));
    exec.arg("exec").arg("--store").arg(store).args(more).arg("--").args(command);
    // Those of who runs the tests are not what is tested.
    for name in ["OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        exec.env_remove(name);
    }
    exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    exec
}

fn emit_script() -> String {
    format!("{}/tests/it/exec/emit.py", env!("CARGO_MANIFEST_DIR"))
}

fn emit(store: &Path, words: &[&str]) -> Output {
    let script = emit_script();
    let mut command = vec!["python3", &script];
    command.extend(words);
    ended(exec(store, &["--name", "trip"], &command))
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `exec` said, with the run's id and the store's path in words.
fn said(output: &Output, store: &Path, run: &RunSummary) -> String {
    err(output).replace(&run.run_id.to_string(), "ID").replace(store.to_str().unwrap(), "STORE")
}

fn shape(store: &Path) -> (String, Vec<String>) {
    let run = only_run(store);
    let name = run.workflow_id.as_ref().or(run.agent_id.as_ref());
    (format!("{} {} {}", run.kind, name.unwrap(), run.status), outline(&steps(store, run.run_id)))
}

/// The journal of a process that ended well is gone.
fn assert_nothing_left(store: &Path) {
    assert_eq!(std::fs::read_dir(store.join("journal")).unwrap().count(), 0);
}

#[test]
fn what_a_command_sends_is_below_it_whoever_it_says_it_is_from() {
    let expected = vec![
        "trip workflow success".to_owned(),
        "  weather agent success".to_owned(),
        "    chat llm success".to_owned(),
        "    look tool success".to_owned(),
    ];
    for words in [&[][..], &["own-trace"], &["alone"]] {
        let dir = tempdir();
        let output = emit(dir.path(), words);
        assert!(output.status.success(), "{}", err(&output));
        assert_eq!(shape(dir.path()), ("workflow trip success".to_owned(), expected.clone()), "{words:?}");
        let run = only_run(dir.path());
        assert_eq!(
            said(&output, dir.path(), &run),
            "runspan: 1 model call, 1 tool call, 110 tokens, $0.000021 · runspan get ID --store STORE\n"
        );
        let run = open(dir.path()).get_run(run.run_id).unwrap();
        let children: Vec<_> = run.steps.iter().flatten().map(|step| step.step_id.as_str()).collect();
        assert_eq!(children, ["weather"]);
        assert_nothing_left(dir.path());
    }
}

#[test]
fn a_target_that_is_down_keeps_nothing_of_the_run_from_the_store() {
    let closed = crate::forward::free_address();
    let dir = tempdir();
    let script = emit_script();
    let mut command = exec(dir.path(), &["--name", "trip"], &["python3", &script]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{closed}")).env("NO_PROXY", "*");
    let output = ended(command);
    assert_eq!(shape(dir.path()).1.len(), 4);
    let said = err(&output);
    assert!(said.contains("the run is in the store, and not all of it is forwarded yet"), "{said}");
    assert!(!said.contains("not all of the run is in the store"), "{said}");
}

#[test]
fn a_clock_that_is_wrong_does_not_tell_when_the_run_was() {
    for words in [["epoch"], ["future"]] {
        let dir = tempdir();
        emit(dir.path(), &words);
        let run = only_run(dir.path());
        assert!(run.started_at.millis().abs_diff(run.run_id.time().millis()) < 60_000, "{words:?}: {run:?}");
        assert!(run.duration_ms.unwrap() < 60_000, "{words:?}: {run:?}");
        assert_eq!((run.steps_total, run.llm_calls), (4, 1));
    }
}

#[test]
fn steps_whose_parent_was_never_sent_do_not_keep_a_run_open() {
    let dir = tempdir();
    emit(dir.path(), &["no-root", "own-trace"]);
    let steps = ["trip workflow success", "chat llm success", "look tool success"].map(str::to_owned).to_vec();
    assert_eq!(shape(dir.path()), ("workflow trip success".to_owned(), steps));
}

#[test]
fn it_ends_as_the_command_did_and_the_run_says_how() {
    let cases = [
        ("exit 0", 0, "workflow sh success", None),
        ("exit 7", 7, "workflow sh error", Some("exit_code: the command ended with exit code 7")),
        ("kill -KILL $$", 137, "workflow sh crashed", Some("crashed: the command was killed by SIGKILL")),
        ("kill -SEGV $$", 139, "workflow sh crashed", Some("crashed: the command was killed by SIGSEGV")),
        ("kill -PIPE $$", 141, "workflow sh cancelled", Some("SIGPIPE: the command was killed by SIGPIPE")),
        ("kill -TERM $$", 143, "workflow sh cancelled", Some("SIGTERM: the command was killed by SIGTERM")),
    ];
    for (script, code, expected, error) in cases {
        let dir = tempdir();
        let output = ended(exec(dir.path(), &[], &["sh", "-c", script]));
        assert_eq!(output.status.code(), Some(code), "{script}: {}", err(&output));
        assert_eq!(shape(dir.path()).0, expected, "{script}");
        let told =
            only_run(dir.path()).error.map(|error| format!("{}: {}", error.kind.unwrap(), error.message.unwrap()));
        assert_eq!(told.as_deref(), error, "{script}");
        assert_nothing_left(dir.path());
    }
}

#[test]
fn who_ignores_its_children_hears_how_the_command_ended_too() {
    use std::os::unix::process::CommandExt;
    for (command, code) in [(&["false"][..], 1), (&["grep", "SigIgn", "/proc/self/status"], 0)] {
        let dir = tempdir();
        let mut exec = exec(dir.path(), &[], command);
        let ignore = || {
            // SAFETY: allowed between `fork` and `exec`.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: it does nothing but that.
        unsafe { exec.pre_exec(ignore) };
        let output = ended(exec);
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
        assert_eq!(only_run(dir.path()).status == RunStatus::Success, code == 0);
        let mask = String::from_utf8_lossy(&output.stdout).trim().rsplit('\t').next().map(str::to_owned);
        let mask = mask.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        assert!(
            mask.is_none_or(|mask| mask & (1 << (libc::SIGCHLD - 1)) != 0),
            "the command finds it as it was: {mask:x?}"
        );
    }
}

#[test]
fn a_command_that_cannot_be_run_leaves_no_run() {
    let dir = tempdir();
    let not_executable = dir.path().join("file");
    std::fs::write(&not_executable, "").unwrap();
    for (command, code) in [("no-such-command", 127), (not_executable.to_str().unwrap(), 126)] {
        let output = ended(exec(&dir.path().join("store"), &[], &[command]));
        assert_eq!(output.status.code(), Some(code));
        assert!(err(&output).starts_with("error: cannot run "), "{}", err(&output));
    }
    assert_eq!(runs(&dir.path().join("store")), []);
    // A script that does not say what runs it is the shell's, as `env` has it.
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(&not_executable, "exit 9").unwrap();
    std::fs::set_permissions(&not_executable, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = ended(exec(&dir.path().join("store"), &[], &[not_executable.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(9), "{}", err(&output));
    assert_nothing_left(&dir.path().join("store"));
}

#[test]
fn a_command_that_tells_nothing_leaves_a_run_that_says_so() {
    let dir = tempdir();
    let mut command = exec(dir.path(), &[], &["sh", "-c", "cat; echo err >&2", "--api-key", "abc"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"through");
    let run = only_run(dir.path());
    insta::assert_snapshot!(said(&output, dir.path(), &run), @r"
    err
    runspan: no model calls · runspan get ID --store STORE
    runspan: it is empty: the command sent no OpenTelemetry spans and made no model calls that were seen; `runspan exec --help` says what is
    ");
    let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
    let logs = events.iter().filter_map(|event| match &event.body {
        EventBody::Log(log) => Some(log.message.as_str()),
        _ => None,
    });
    assert_eq!(
        logs.collect::<Vec<_>>(),
        ["the command sent no OpenTelemetry spans and made no model calls that were seen"]
    );
    let span = events.iter().find_map(|event| event.body.span().filter(|_| !event.body.is_step_start())).unwrap().0;
    let arguments = span.attr("process.command_args").unwrap().to_json();
    assert_eq!(arguments, serde_json::json!(["sh", "-c", "cat; echo err >&2", "--api-key", "***"]));
    assert_eq!(span.attr("process.exit.code").unwrap().to_json(), 0);
    let hidden = tempdir();
    ended(exec(hidden.path(), &["--content", "none"], &["sh", "-c", "true", "a prompt perhaps"]));
    let all = Command::new("grep").args(["-r", "prompt perhaps"]).arg(hidden.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&all.stdout), "");
    let failed = ended(exec(dir.path(), &[], &["false"]));
    assert!(err(&failed).starts_with("runspan: error: no model calls · runspan get "), "{}", err(&failed));
    let quiet = ended(exec(dir.path(), &["--quiet"], &["true"]));
    assert_eq!(err(&quiet), "");
}

#[test]
fn without_a_store_the_command_runs_all_the_same() {
    let dir = tempdir();
    let store = dir.path().join("file");
    std::fs::write(&store, "no store").unwrap();
    let script = "echo $OTEL_EXPORTER_OTLP_ENDPOINT; exit 3";
    let mut command = exec(&store, &[], &["sh", "-c", script]);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    let output = ended(command);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"\n"[..]));
    assert!(err(&output).starts_with("runspan: warning: sh is not recorded: "), "{}", err(&output));
    let mut command = exec(&dir.path().join("none"), &[], &["sh", "-c", script]);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").env("RUNSPAN_DISABLED", "true");
    let output = ended(command);
    assert_eq!((output.status.code(), &output.stdout[..], err(&output)), (Some(3), &b"\n"[..], String::new()));
    assert!(!dir.path().join("none").exists());
    let mut command = exec(&dir.path().join("none"), &[], &["true"]);
    command.env("OTEL_SDK_DISABLED", " true");
    assert_eq!(err(&ended(command)), "");
    assert!(!dir.path().join("none").exists());
    let bounded = ended(exec(&store, &["--budget-usd", "2"], &["true"]));
    assert!(err(&bounded).ends_with("nothing holds the command to its budget, for it is not recorded\n"));
}

#[test]
fn with_wrong_settings_in_the_environment_the_command_runs_all_the_same() {
    let dir = tempdir();
    let mut command = exec(dir.path(), &["--quiet"], &["sh", "-c", "exit 3"]);
    for name in ["RUNSPAN_CONTENT", "RUNSPAN_DURABILITY", "RUNSPAN_FORWARD", "RUNSPAN_FORWARD_KEEP"] {
        command.env(name, "wrong");
    }
    let output = ended(command);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(err(&output), @r#"
    runspan: warning: RUNSPAN_CONTENT: "wrong" is not one of none, redacted, full; the default is used
    runspan: warning: RUNSPAN_DURABILITY: "wrong" is not one of power, process; the default is used
    runspan: warning: RUNSPAN_FORWARD_KEEP: "wrong" is not all, or some of errors, cost>USD, slow>TIME, ratio=0.1; the default is used
    runspan: warning: RUNSPAN_FORWARD: endpoint "wrong" has no scheme; write http://, https://, grpc:// or grpcs:// before the host; nothing is forwarded there
    "#);
    assert_eq!(only_run(dir.path()).status, RunStatus::Error);
    let output = ended(exec(dir.path(), &["--content", "wrong"], &["sh", "-c", "exit 3"]));
    assert_eq!(output.status.code(), Some(2), "who gives a flag is there to mend it");
}

/// Says which signals it gets, and ends by the third.
const COUNTS_SIGNALS: &str = "
import signal, sys, time
def say(number, _):
    print(signal.Signals(number).name, flush=True)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, say)
print('ready', flush=True)
sys.stdin.read()
";

/// Who runs the tests may have signals ignored, as nohup and a shell's background do, and then so have the programs that they start.
fn hear_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let as_usual = || {
        for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: signal is safe between fork and exec.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: as above; nothing else is done there.
    unsafe { command.pre_exec(as_usual) };
}

#[test]
fn signals_reach_the_command_once() {
    let dir = tempdir();
    let mut command = exec(dir.path(), &["--quiet"], &["python3", "-c", COUNTS_SIGNALS]);
    hear_signals(&mut command);
    let mut child = Killed(command.stdin(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    for (number, name) in [
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGUSR2, "SIGUSR2"),
    ] {
        signal(child.0.id(), number);
        assert_eq!(lines.next().as_deref(), Some(name));
    }
    drop(child.0.stdin.take());
    assert_eq!(lines.next(), None);
    assert!(child.0.wait().unwrap().success());
    assert_eq!(shape(dir.path()).0, "workflow python3 success", "a signal that was survived says nothing");
}

/// Says of each interruption which process it is from: 0 is the terminal. Ends by SIGUSR1.
const TELLS_WHO_INTERRUPTS: &str = "
import os, signal
signals = (signal.SIGINT, signal.SIGUSR1)
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print('pid', os.getpid(), flush=True)
while (info := signal.sigwaitinfo(signals)).si_signo == signal.SIGINT:
    print('from', info.si_pid, flush=True)
";

#[test]
fn a_key_on_the_terminal_interrupts_the_command_once() {
    const TIMES: usize = 20;
    let dir = tempdir();
    let runspan = env!("CARGO_BIN_EXE_runspan");
    let line = format!("exec {runspan} exec --store {} -- python3 -c \"$SCRIPT\"", dir.path().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("SCRIPT", TELLS_WHO_INTERRUPTS).env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut terminal = Killed(command.spawn().unwrap());
    let mut keys = terminal.0.stdin.take().unwrap();
    let mut lines = BufReader::new(terminal.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pid = lines.next().unwrap().trim_start_matches("pid ").trim().parse().unwrap();
    for _ in 0..TIMES {
        keys.write_all(b"\x03").unwrap();
        let line = lines.next().unwrap();
        assert!(line.trim().ends_with("from 0"), "{line:?}");
    }
    signal(pid, libc::SIGUSR1);
    let rest: String = lines.collect();
    assert!(!rest.contains("from") && rest.contains("runspan get"), "{rest}");
    drop(keys);
    assert!(terminal.0.wait().unwrap().success());
    assert_eq!(shape(dir.path()).0, "workflow python3 success");
}

/// `ulimit -f`: the system ends who writes more, unless he bears it.
#[test]
fn what_a_file_may_be_long_is_no_reason_to_keep_a_command_from_running() {
    for (script, code) in [("echo ran", 0), ("echo ran; kill -XFSZ $$; echo bears it", 128 + libc::SIGXFSZ)] {
        let dir = tempdir();
        let line = "ulimit -f 1; exec \"$0\" exec --quiet --store \"$1\" -- sh -c \"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", line, env!("CARGO_BIN_EXE_runspan")]).arg(dir.path()).arg(script);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n", "{output:?}");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn an_interrupted_command_is_cancelled() {
    let dir = tempdir();
    let script = "trap 'exit 130' INT; echo ready; while :; do sleep 0.01; done";
    let mut command = exec(dir.path(), &["--quiet"], &["sh", "-c", script]);
    hear_signals(&mut command);
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(child.0.id(), libc::SIGINT);
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert_eq!(shape(dir.path()).0, "workflow sh cancelled");
}

#[test]
fn what_a_command_leaves_behind_is_not_waited_for_without_end() {
    let dir = tempdir();
    let output = ended(exec(dir.path(), &[], &["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"]));
    let left: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    // SAFETY: asks whether it is there, then ends it.
    assert_eq!(unsafe { libc::kill(left, 0) }, 0, "it outlives the run");
    unsafe { libc::kill(left, libc::SIGKILL) };
    assert!(output.status.success());
    assert_eq!(shape(dir.path()).0, "workflow sh success");
}

#[test]
fn what_is_sent_a_moment_after_the_command_is_in_its_run() {
    let dir = tempdir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/exec/emit.py");
    let late = format!("(sleep 0.3; python3 {}) >/dev/null 2>&1 & exit 0", script.display());
    ended(exec(dir.path(), &["--name", "trip"], &["sh", "-c", &late]));
    assert_eq!(shape(dir.path()).1.len(), 4);
}

#[test]
fn a_run_whose_exec_was_killed_has_crashed() {
    let dir = tempdir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/exec/emit.py");
    let line = format!("python3 {} && echo sent $$ && exec sleep 300", script.display());
    let mut child = Killed(exec(dir.path(), &["--name", "trip"], &["sh", "-c", &line]).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let sent = lines.next().unwrap().unwrap();
    assert_eq!(only_run(dir.path()).status, RunStatus::Running);
    child.kill();
    signal(sent.trim_start_matches("sent ").parse().unwrap(), libc::SIGKILL);
    let (name, steps) = shape(dir.path());
    assert_eq!(name, "workflow trip crashed");
    assert_eq!(
        steps,
        ["trip workflow crashed", "  weather agent success", "    chat llm success", "    look tool success"]
    );
    assert_nothing_left(dir.path());
}

#[test]
fn a_program_with_the_library_has_a_run_of_its_own_below_the_commands() {
    const TEST: &str = "exec::a_program_with_the_library_has_a_run_of_its_own_below_the_commands";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |_| agent("inner", 2));
        assert_eq!((report.stored, report.pending), (3, 0));
        return;
    }
    let dir = tempdir();
    let binary = std::env::current_exe().unwrap();
    let command = [binary.to_str().unwrap(), "--exact", TEST, "--nocapture", "--test-threads=1"];
    let mut command = exec(dir.path(), &["--name", "outer"], &command);
    command.env("RUNSPAN_TEST_CHILD", TEST);
    let output = ended(command);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), err(&output));
    let mut runs = runs(dir.path());
    runs.sort_by_key(|run| run.kind == RunKind::Agent);
    let [outer, inner] = &runs[..] else { panic!("{runs:#?}") };
    assert_eq!((outer.workflow_id.as_deref(), outer.steps_total), (Some("outer"), 1));
    assert_eq!((inner.agent_id.as_deref(), inner.steps_total), (Some("inner"), 3));
    assert_eq!((inner.trace_id, inner.parent_run_id), (outer.trace_id, Some(outer.run_id)));
    let events = open(dir.path()).get_events(outer.run_id, 0).unwrap();
    assert!(!events.iter().any(|event| matches!(event.body, EventBody::Log(_))), "it is not empty: {events:#?}");
    assert!(err(&output).contains("runspan: 1 run of its own, no model calls, 2 tool calls · "), "{}", err(&output));
}

#[test]
fn a_command_in_a_command_is_a_run_below_the_others() {
    let dir = tempdir();
    let runspan = env!("CARGO_BIN_EXE_runspan");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/exec/emit.py");
    let command = [runspan, "exec", "--name", "inner", "--", "python3", script.to_str().unwrap()];
    let output = ended(exec(dir.path(), &["--name", "outer"], &command));
    assert!(output.status.success(), "{}", err(&output));
    let runs = runs(dir.path());
    let by_name = |name: &str| runs.iter().find(|run| run.workflow_id.as_deref() == Some(name)).unwrap();
    let (outer, inner) = (by_name("outer"), by_name("inner"));
    assert_eq!((runs.len(), outer.steps_total, inner.steps_total), (2, 1, 4));
    assert_eq!((inner.trace_id, inner.parent_run_id), (outer.trace_id, Some(outer.run_id)));
}

#[test]
fn spans_still_go_where_they_went_before() {
    let (dir, other) = (tempdir(), tempdir());
    let runspan = env!("CARGO_BIN_EXE_runspan");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/exec/emit.py");
    // The port of the outer one is the endpoint that the inner one finds in its environment.
    let store = other.path().to_str().unwrap();
    let command =
        [runspan, "exec", "--store", store, "--name", "inner", "--", "python3", script.to_str().unwrap(), "own-trace"];
    let output = ended(exec(dir.path(), &["--name", "outer"], &command));
    assert!(output.status.success(), "{}", err(&output));
    let inner = only_run(other.path());
    let all = runs(dir.path());
    let passed = all.iter().find(|run| run.run_id == inner.run_id).unwrap();
    assert_eq!((all.len(), passed.steps_total, passed.status), (2, 4, RunStatus::Success));
    assert_eq!(outline(&steps(dir.path(), inner.run_id)), outline(&steps(other.path(), inner.run_id)));
    assert_nothing_left(other.path());
}

/// Claude Code up to 2.1.27 does not start with `OTEL_METRICS_EXPORTER=none` (2.0.71 and 2.1.27 were run).
#[test]
fn of_metrics_that_go_on_to_nobody_is_said_that_none_is_kept_in_an_answer_of_success() {
    const SEND: &str = r#"
import json, os, urllib.request
assert "OTEL_METRICS_EXPORTER" not in os.environ
for name in "m", "m" * 5000:
    metric = {"name": name, "sum": {"dataPoints": [{"asInt": "1", "timeUnixNano": "1"}]}}
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    address = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/metrics"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    partial = answer["partialSuccess"]
    assert partial["rejectedDataPoints"] == "1" and "no target" in partial["errorMessage"], answer
"#;
    let dir = tempdir();
    let mut command = exec(dir.path(), &["--name", "counts"], &["python3", "-c", SEND]);
    command.env_remove("OTEL_METRICS_EXPORTER");
    let output = ended(command);
    assert!(output.status.success(), "{}", err(&output));
    let run = only_run(dir.path());
    assert_eq!((run.steps_total, run.status), (1, RunStatus::Success));
    assert_nothing_left(dir.path());
}

#[test]
fn a_disk_that_fills_up_costs_the_recording_and_not_the_command() {
    let dir = tempdir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/exec/emit.py");
    let store = dir.path().join("store");
    // The exporter hears that it need not try again.
    let fill = "dd if=/dev/zero of=\"$0/fill\" bs=64k 2>/dev/null";
    let large = format!("python3 {} large 2>&1 | grep -o 'HTTP Error.*'", script.display());
    let line = format!("{fill}; {large}; echo over; exit 3");
    let inner = exec(&store, &[], &["sh", "-c", &line, dir.path().to_str().unwrap()]);
    let output = ended(on_own_disk(&inner, dir.path(), 2));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "HTTP Error 501: Not Implemented\nover\n", "{}", err(&output));
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("cannot write the journal in"), "{}", err(&output));
}
