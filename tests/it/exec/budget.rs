//! A command that takes more than it may: its calls are refused, then it is asked to end, then it is ended.

use std::net::SocketAddr;
use std::process::Output;

use runspan::model::{RunStatus, RunSummary};
use runspan::store::RunReader;
use serde_json::json;

use super::proxy::{STREAM, event, serve, whole};
use super::{emit_script, ended, err, exec, only_run, runs, tempdir};
use crate::interop::program;
use crate::support::Killed;

/// Asks until it is refused, and says what it got: `VARIABLE PATH [read|leave]`.
const ASKS_UNTIL_REFUSED: &str = "
import json, os, sys, urllib.error, urllib.request
variable, path, *leaves = sys.argv[1:]
body = json.dumps({'model': 'gpt-4o-mini', 'max_tokens': 5, 'messages': [], 'stream': bool(leaves)}).encode()
for _ in range(9):
    try:
        answer = urllib.request.urlopen(os.environ[variable] + path, body)
        answer.readline() if leaves else answer.read()
        answer.close()
        print(answer.status, flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, error.headers['x-should-retry'], error.read().decode(), flush=True)
        break
";

/// A model of which each call costs 15 cents: a million input tokens.
fn model() -> SocketAddr {
    let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0});
    serve(9, move |_, _, stream| {
        whole(stream, "", json!({"model": "gpt-4o-mini", "usage": usage}).to_string().as_bytes());
    })
}

fn asks(store: &std::path::Path, bounds: &[&str], words: &[&str], address: SocketAddr) -> Output {
    let command = [&["python3", "-c", ASKS_UNTIL_REFUSED], words].concat();
    let mut exec = exec(store, &[bounds, &["--name", "asks"]].concat(), &command);
    exec.env(words[0], format!("http://{address}")).env("NO_PROXY", "*");
    ended(exec)
}

fn out(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // How long it took.
    text.split_once(" in ").map_or(text.clone(), |(before, after)| {
        let rest = after.find(['"', ';', '\n']).map_or("", |at| &after[at..]);
        format!("{before}{rest}")
    })
}

fn error(run: &RunSummary) -> String {
    let error = run.error.as_ref().unwrap();
    let (before, after) = error.message.as_deref().unwrap().split_once(" in ").unwrap();
    let rest = after.split_once(';').map_or("", |(_, rest)| rest);
    let (kind, step) = (error.kind.as_deref().unwrap(), error.step_id.as_deref().unwrap());
    format!("{} {kind} at {step}: {before};{rest}", run.status)
}

/// Returns what is said of the budget, without how the command was ended for that: a machine that has much to do may need
/// more than one signal.
fn went_over(run: &RunSummary) -> String {
    let said = error(run);
    let parts = said.split(';').filter(|part| !part.contains("SIG"));
    parts.collect::<Vec<_>>().join(";")
}

#[test]
fn calls_over_the_budget_are_refused_at_once() {
    let dir = tempdir();
    let words = ["OPENAI_BASE_URL", "/chat/completions"];
    let output = asks(dir.path(), &["--budget-usd", "0.4"], &words, model());
    insta::assert_snapshot!(out(&output), @r#"
    200
    200
    200
    403 false {"error":{"message":"runspan exec passes on no more calls: over the budget of $0.4: spent $0.45, 3,000,000 tokens, 3 steps","type":"budget_exceeded","param":null,"code":"budget_exceeded"}}
    "#);
    assert_eq!(output.status.code(), Some(0), "the command ended by itself, and well");
    let run = only_run(dir.path());
    assert_eq!((run.status, run.llm_calls, run.steps_total), (RunStatus::Error, 3, 4));
    insta::assert_snapshot!(error(&run), @"error budget_exceeded at chat-3: over the budget of $0.4: spent $0.45, 3,000,000 tokens, 3 steps; 1 call was refused");
    assert!(err(&output).contains("warning: over the budget of $0.4"), "{}", err(&output));
    // That it was stopped is no failure of a call.
    assert!(err(&output).contains("error: 3 model calls, 3.00M tokens"), "{}", err(&output));
}

#[test]
fn refusals_have_the_form_of_the_service() {
    let dir = tempdir();
    let usage = json!({"input_tokens": 90, "output_tokens": 5});
    let address = serve(9, move |_, _, stream| whole(stream, "", json!({"usage": usage}).to_string().as_bytes()));
    let words = ["ANTHROPIC_BASE_URL", "/v1/messages"];
    let output = asks(dir.path(), &["--budget-tokens", "94"], &words, address);
    insta::assert_snapshot!(out(&output), @r#"
    200
    403 false {"type":"error","error":{"type":"permission_error","message":"runspan exec passes on no more calls: over the budget of 94 tokens: spent $0 and 1 call without a price, 95 tokens, 1 step"}}
    "#);
    // A call that was refused was seen, and so it is no run without any.
    let output = asks(tempdir().path(), &["--budget-steps", "0"], &words, address);
    assert!(err(&output).contains("1 call was refused") && !err(&output).contains("it is empty"), "{}", err(&output));
    let output = asks(tempdir().path(), &["--budget-steps", "2"], &words, address);
    insta::assert_snapshot!(out(&output), @r#"
    200
    200
    403 false {"type":"error","error":{"type":"permission_error","message":"runspan exec passes on no more calls: over the budget of 2 steps: spent $0 and 2 calls without a price, 190 tokens, 2 steps"}}
    "#);
}

#[test]
fn what_a_stream_used_that_nobody_waits_for_counts() {
    let dir = tempdir();
    let address = serve(9, move |_, _, stream| {
        stream.write_all(STREAM).unwrap();
        let message =
            json!({"id": "m", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 95, "output_tokens": 1}});
        event(stream, "message_start", json!({"message": message}));
        // It goes on until nobody reads it.
        while stream.write_all(b"event: ping\ndata: {\"type\": \"ping\"}\n\n").is_ok() {}
    });
    let words = ["ANTHROPIC_BASE_URL", "/v1/messages", "leave"];
    let output = asks(dir.path(), &["--budget-tokens", "90"], &words, address);
    // The next call may come before it is seen that nobody reads the one before.
    assert!(out(&output).contains("403 "), "{}", out(&output));
    let said = error(&only_run(dir.path()));
    assert!(said.starts_with("error budget_exceeded at chat: over the budget of 90 tokens: spent $0 and "), "{said}");
}

/// Asks and waits a fifth of a second for each answer: `TIMES`.
const GIVES_UP: &str = "
import json, os, sys, time, urllib.error, urllib.request
body = json.dumps({'model': 'gpt-4o-mini', 'messages': []}).encode()
for _ in range(int(sys.argv[1])):
    try:
        urllib.request.urlopen(os.environ['OPENAI_BASE_URL'] + '/chat/completions', body, timeout=0.2).read()
    except urllib.error.HTTPError as error:
        print(error.code, flush=True)
        break
    except OSError:
        time.sleep(0.8)
";

fn gives_up(store: &std::path::Path, bounds: &[&str], times: &str, address: SocketAddr) -> Output {
    let more = [bounds, &["--name", "gives-up"]].concat();
    let mut exec = exec(store, &more, &["python3", "-c", GIVES_UP, times]);
    exec.env("OPENAI_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
    ended(exec)
}

#[test]
fn what_a_call_used_that_the_program_gave_up_on_counts() {
    let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0});
    let address = serve(9, move |_, _, stream| {
        std::thread::sleep(std::time::Duration::from_millis(2_000));
        whole(stream, "", json!({"model": "gpt-4o-mini", "usage": usage}).to_string().as_bytes());
    });
    let dir = tempdir();
    let output = gives_up(dir.path(), &["--budget-usd", "0.1"], "9", address);
    assert_eq!(out(&output).trim(), "403", "{}", err(&output));
    let run = only_run(dir.path());
    let said = error(&run);
    assert!(said.starts_with("error budget_exceeded at chat"), "{said}");
    let steps = super::steps(dir.path(), run.run_id);
    let cost = steps[1].cost_usd.map(|cost| cost.to_string());
    assert_eq!((steps[1].status.as_str(), cost.as_deref()), ("cancelled", Some("0.15")));
    // Given up before its answer, it took as long as the program has waited.
    assert!(steps[1].duration_ms.is_some_and(|ms| ms < 2_000.0), "{:?}", steps[1].duration_ms);
}

#[test]
fn what_nobody_knows_of_a_call_that_the_program_gave_up_on_is_said() {
    let (tell, over) = std::sync::mpsc::channel::<()>();
    let over = std::sync::Mutex::new(over);
    let address = serve(2, move |_, _, _| {
        let _ = over.lock().unwrap().recv();
    });
    let dir = tempdir();
    let output = gives_up(dir.path(), &["--budget-usd", "2"], "2", address);
    drop(tell);
    let said: Vec<String> = err(&output).lines().filter(|line| line.contains("warning")).map(str::to_owned).collect();
    insta::assert_snapshot!(said.join("\n"), @"runspan: warning: the budget of $2 does not count 2 calls without a price of gpt-4o-mini; --budget-tokens bounds them, too");
    assert_eq!(only_run(dir.path()).unpriced_steps, 2);
}

#[test]
fn a_command_that_wants_no_more_ends_as_it_would() {
    let dir = tempdir();
    let mut exec = exec(
        dir.path(),
        &["--budget-usd", "0.1", "--name", "asks"],
        &["python3", "-c", super::proxy::ASKS_FAST, "OPENAI_BASE_URL", "1"],
    );
    exec.env("OPENAI_BASE_URL", format!("http://{}", model())).env("NO_PROXY", "*");
    let output = ended(exec);
    assert_eq!(only_run(dir.path()).status, RunStatus::Success, "{}", err(&output));
}

#[test]
fn a_command_that_goes_on_over_its_budget_is_asked_to_end_and_then_ended() {
    let bounds = ["--budget-wall", "100ms", "--budget-grace", "300ms"];
    let dir = tempdir();
    let output = ended(exec(dir.path(), &bounds, &["sleep", "300"]));
    assert_eq!(output.status.code(), Some(128 + libc::SIGTERM));
    insta::assert_snapshot!(error(&only_run(dir.path())), @"error budget_exceeded at sleep: over the budget of 100ms: spent $0, 0 tokens, 0 steps; SIGTERM was sent; the command was killed by SIGTERM");
    let dir = tempdir();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let output = ended(exec(dir.path(), &bounds, &["sh", "-c", script]));
    assert_eq!(output.status.code(), Some(128 + libc::SIGKILL));
    insta::assert_snapshot!(error(&only_run(dir.path())), @"error budget_exceeded at sh: over the budget of 100ms: spent $0, 0 tokens, 0 steps; SIGKILL was sent; the command was killed by SIGKILL");
}

#[test]
fn who_interrupts_a_command_within_its_budget_has_cancelled_it() {
    let dir = tempdir();
    let mut child = Killed(exec(dir.path(), &["--budget-wall", "1h"], &["sh", "-c", "kill -TERM $$"]).spawn().unwrap());
    child.0.wait().unwrap();
    assert_eq!(only_run(dir.path()).status, RunStatus::Cancelled);
}

#[test]
fn what_spans_and_runs_below_tell_counts() {
    let dir = tempdir();
    let script = format!("python3 {} && sleep 300", emit_script());
    let bounds = ["--budget-tokens", "100", "--budget-grace", "100ms"];
    ended(exec(dir.path(), &bounds, &["sh", "-c", &script]));
    insta::assert_snapshot!(went_over(&only_run(dir.path())), @"error budget_exceeded at chat: over the budget of 100 tokens: spent $0.000021, 110 tokens, 3 steps");
    // A run of its own, below a run of its own: three programs.
    let dir = tempdir();
    let runspan = env!("CARGO_BIN_EXE_runspan");
    let nested = format!("{runspan} exec --name inner -- {runspan} exec --name innermost -- sh -c '{script}'");
    let output = ended(exec(dir.path(), &[&bounds[..], &["--name", "outer"]].concat(), &["sh", "-c", &nested]));
    let runs = runs(dir.path());
    let outer = runs.iter().find(|run| run.name() == "outer").unwrap();
    let innermost = runs.iter().find(|run| run.name() == "innermost").unwrap();
    let said = went_over(outer).replace(&innermost.run_id.to_string(), "INNERMOST");
    insta::assert_snapshot!(said, @"error budget_exceeded at outer: over the budget of 100 tokens: spent $0.000021, 110 tokens, 5 steps; the last call was chat of run INNERMOST below it");
    assert!(err(&output).contains("2 runs of its own, 1 model call"), "all of them: {}", err(&output));
}

#[test]
fn a_wrong_bound_is_wrong_use() {
    for wrong in
        [["--budget-usd", "-1"], ["--budget-usd", "nan"], ["--budget-wall", "soon"], ["--budget-tokens", "1.5"]]
    {
        let output = ended(exec(tempdir().path(), &wrong, &["true"]));
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn real_clients_do_not_try_a_refused_call_again() {
    let Some(python) = program("python") else { return };
    const ASKS: &str = "
import openai, anthropic
def tried(ask):
    for _ in range(9):
        try: ask()
        except (openai.APIStatusError, anthropic.APIStatusError) as error: return type(error).__name__, error.status_code
chat = openai.OpenAI(api_key='k').chat.completions
print(tried(lambda: chat.create(model='gpt-4o-mini', messages=[{'role': 'user', 'content': 'Hi'}])))
messages = anthropic.Anthropic(api_key='k').messages
print(tried(lambda: messages.create(model='claude-sonnet-4-5', max_tokens=5, messages=[{'role': 'user', 'content': 'Hi'}])))
";
    let dir = tempdir();
    let mut exec = exec(
        dir.path(),
        &["--budget-usd", "0.4", "--no-auto", "--name", "asks"],
        &[python.to_str().unwrap(), "-c", ASKS],
    );
    let address = format!("http://{}", model());
    exec.env("OPENAI_BASE_URL", &address).env("ANTHROPIC_BASE_URL", &address).env("NO_PROXY", "*");
    let output = ended(exec);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "('PermissionDeniedError', 403)\n('PermissionDeniedError', 403)\n"
    );
    let error = only_run(dir.path()).error.unwrap().message.unwrap();
    assert!(error.contains("2 calls were refused"), "each once: {error}");
}

#[test]
fn a_model_without_a_price_is_said_where_dollars_are_bounded() {
    let dir = tempdir();
    let usage = json!({"input_tokens": 90, "output_tokens": 5});
    let address = serve(9, move |_, _, stream| whole(stream, "", json!({"usage": usage}).to_string().as_bytes()));
    // The service that is asked has no such model.
    let output = asks(dir.path(), &["--budget-usd", "2"], &["ANTHROPIC_BASE_URL", "/v1/messages"], address);
    let said: Vec<String> = err(&output).lines().filter(|line| line.contains("warning")).map(str::to_owned).collect();
    insta::assert_snapshot!(said.join("\n"), @"runspan: warning: the budget of $2 does not count 9 calls without a price of gpt-4o-mini; --budget-tokens bounds them, too");
    let run = only_run(dir.path());
    let events = crate::support::open(dir.path()).get_events(run.run_id, 0).unwrap();
    let said = |event: &runspan::model::Event| match &event.body {
        runspan::model::EventBody::Log(log) => Some(serde_json::to_string(log).unwrap()),
        _ => None,
    };
    insta::assert_snapshot!(events.iter().filter_map(said).collect::<Vec<_>>().join("\n"), @r#"{"level":"WARN","message":"runspan.budget_unpriced","fields":{"gen_ai.request.model":"gpt-4o-mini","runspan.budget":{"cost_usd":2}}}"#);
    let mut get = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
    let get = get.args(["get", "latest"]).env("RUNSPAN_STORE", dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&get.stdout).contains("budget    $2; calls without a price do not count in it"));
}
