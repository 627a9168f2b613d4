//! Real clients, frameworks and SDKs through `exec`, against the scripted model. Only with `RUNSPAN_INTEROP=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runspan::model::{RunSummary, StepKind, StepView};
use serde_json::json;

use super::proxy::{STREAM, event, serve, whole};
use super::{ended, err, exec, only_run, steps, tempdir};
use crate::interop::program;
use crate::model_server::{Call, ModelServer, Script};
use crate::support::TestDir;

fn script(name: &str) -> String {
    format!("{}/tests/it/exec/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command, which must end well, and returns its one run with its steps.
fn recorded(store: &Path, mut command: Command) -> (Output, RunSummary, Vec<StepView>) {
    let output = {
        command.env("NO_PROXY", "*").env_remove("PYTHONPATH");
        ended(command)
    };
    assert!(output.status.success(), "{}{}", text(&output.stdout), err(&output));
    let run = only_run(store);
    let steps = steps(store, run.run_id);
    (output, run, steps)
}

/// Input and output tokens of all calls.
fn billed(calls: &[Call]) -> (u64, u64) {
    (calls.iter().map(|call| call.tokens.input).sum(), calls.iter().map(|call| call.tokens.output).sum())
}

fn assert_billed(run: &RunSummary, calls: &[Call]) {
    let tokens = run.tokens.unwrap();
    assert_eq!((tokens.prompt.unwrap(), tokens.completion.unwrap()), billed(calls));
    assert_eq!(run.llm_calls as usize, calls.iter().filter(|call| !call.path.ends_with("embeddings")).count());
    assert_eq!((run.errors, run.unpriced_steps), (0, 0));
    assert!(run.cost_usd.is_some());
}

#[test]
fn a_program_with_the_openai_client_and_nothing_else_is_recorded_by_its_calls() {
    let Some(python) = program("python") else { return };
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let command = [python.to_str().unwrap(), &script("openai_agent.py")];
    let mut exec = exec(dir.path(), &["--no-auto", "--name", "agent"], &command);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let (_, run, steps) = recorded(dir.path(), exec);
    let calls = server.calls();
    assert_eq!(calls.len(), 5);
    assert_billed(&run, &calls);
    assert_eq!(steps.len(), 6, "{steps:#?}");
    assert!(steps[1..].iter().all(|step| step.parent_span_id == Some(steps[0].span_id)));
    assert!(steps[1].output.as_ref().unwrap().to_string().contains("get_weather"), "the tool that was asked for");
}

/// A server as Anthropic's for two calls: one answer in one piece, one in many.
pub fn anthropic() -> std::net::SocketAddr {
    let usage = json!({"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 5,
        "output_tokens": 20});
    let message = move |content: serde_json::Value, reason: Option<&str>| {
        json!({"id": format!("msg_{}", reason.unwrap_or("s")), "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5-20250929", "content": content, "stop_reason": reason, "stop_sequence": null,
            "usage": usage})
    };
    serve(2, move |_, body, stream| {
        let request: serde_json::Value = serde_json::from_slice(body).unwrap();
        if request["stream"] != true {
            let answer = message(json!([{"type": "text", "text": "Snow."}]), Some("end_turn"));
            return whole(stream, "Content-Type: application/json\r\n", answer.to_string().as_bytes());
        }
        stream.write_all(STREAM).unwrap();
        event(stream, "message_start", json!({"message": message(json!([]), None)}));
        event(stream, "content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}));
        event(
            stream,
            "content_block_delta",
            json!({"index": 0, "delta": {"type": "text_delta", "text": "Let me look."}}),
        );
        event(stream, "content_block_stop", json!({"index": 0}));
        let tool = json!({"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}});
        event(stream, "content_block_start", json!({"index": 1, "content_block": tool}));
        let delta = json!({"type": "input_json_delta", "partial_json": "{\"city\": \"Bern\"}"});
        event(stream, "content_block_delta", json!({"index": 1, "delta": delta}));
        event(stream, "content_block_stop", json!({"index": 1}));
        let delta = json!({"stop_reason": "tool_use", "stop_sequence": null});
        event(stream, "message_delta", json!({"delta": delta, "usage": {"output_tokens": 42}}));
        event(stream, "message_stop", json!({}));
    })
}

#[test]
fn a_program_with_the_anthropic_client_and_nothing_else_is_recorded_by_its_calls() {
    let Some(python) = program("python") else { return };
    let address = anthropic();
    let dir = tempdir();
    let command = [python.to_str().unwrap(), &script("anthropic_agent.py")];
    let mut exec = exec(dir.path(), &["--no-auto"], &command);
    exec.env("ANTHROPIC_BASE_URL", format!("http://{address}"));
    let (output, run, steps) = recorded(dir.path(), exec);
    assert_eq!(text(&output.stdout), "Snow.\n{'city': 'Bern'}\n");
    let tokens = run.tokens.unwrap();
    assert_eq!((run.llm_calls, tokens.prompt, tokens.completion), (2, Some(230), Some(62)));
    assert_eq!((tokens.cache_read, tokens.cache_write), (Some(200), Some(10)));
    assert!(steps[1..].iter().all(|step| step.cost_usd.is_some() && step.provider.as_deref() == Some("anthropic")));
}

#[test]
fn python_that_has_auto_instrumentation_tells_its_calls_itself_and_each_counts_once() {
    let Some(python) = program("python") else { return };
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let command = [python.to_str().unwrap(), &script("openai_agent.py")];
    let mut exec = exec(dir.path(), &["--name", "agent"], &command);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let (output, run, steps) = recorded(dir.path(), exec);
    assert!(!err(&output).contains("Traceback") && !err(&output).contains("ERROR"), "{}", err(&output));
    assert_billed(&run, &server.calls());
    let copies = steps.iter().filter(|step| step.duplicate_of.is_some()).count();
    assert!(copies > 0 && copies + 6 == steps.len(), "{steps:#?}");
}

#[test]
fn an_agent_of_pydantic_ai_shows_with_its_calls_and_tools() {
    let Some(python) = program("python") else { return };
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let command = [python.to_str().unwrap(), &script("pydantic_agent.py")];
    let mut exec = exec(dir.path(), &["--name", "trip"], &command);
    exec.env("OPENAI_BASE_URL", server.base_url()).env("OPENAI_API_KEY", "canary-1f2e3d");
    let (_, run, steps) = recorded(dir.path(), exec);
    assert_billed(&run, &server.calls());
    assert_eq!(run.tool_calls, 1);
    let agent = steps.iter().find(|step| step.kind == StepKind::Agent).unwrap();
    assert_eq!((agent.agent_id.as_deref(), agent.parent_span_id), (Some("weather"), Some(steps[0].span_id)));
}

/// A folder with a script and the packages that it needs.
fn with_modules(name: &str, node_modules: &Path) -> (TestDir, PathBuf) {
    let dir = tempdir();
    let path = dir.path().join(name);
    std::fs::copy(script(name), &path).unwrap();
    std::os::unix::fs::symlink(node_modules, dir.path().join("node_modules")).unwrap();
    (dir, path)
}

#[test]
fn an_agent_of_the_vercel_ai_sdk_shows_with_its_calls_and_tools() {
    let Some(modules) = program("node_modules") else { return };
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let (_scripts, path) = with_modules("vercel_agent.mjs", &modules);
    let mut exec = exec(dir.path(), &["--name", "trip"], &["node", path.to_str().unwrap()]);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let (_, run, steps) = recorded(dir.path(), exec);
    assert_billed(&run, &server.calls());
    assert_eq!(run.tool_calls, 1);
    assert!(steps.iter().any(|step| step.kind == StepKind::Agent), "{steps:#?}");
}

#[test]
fn one_port_takes_every_protocol() {
    let Some(python) = program("python") else { return };
    let script = format!("{}/tests/it/serve/sdk.py", env!("CARGO_MANIFEST_DIR"));
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let dir = tempdir();
        // The exporter is made in code, whatever the environment says of protocols.
        let command = [python.to_str().unwrap(), &script, protocol];
        let (output, run, steps) = recorded(dir.path(), exec(dir.path(), &["--no-auto", "--name", "sdk"], &command));
        assert_eq!((steps.len(), run.llm_calls, run.tool_calls), (4, 1, 1), "{protocol}: {}", err(&output));
        assert_eq!(steps[1].parent_span_id, Some(steps[0].span_id), "{protocol}");
    }
}
