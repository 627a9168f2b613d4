//! Model calls of programs that tell nothing themselves, seen on their way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use runspan::model::{RunStatus, StepStatus, Tokens};
use serde_json::json;

use super::{ended, err, exec, only_run, open, runs, steps, tempdir};
use crate::model_server::{ModelServer, Script};
use crate::support::told;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/exec/ask.py");

/// Runs `ask.py`, with a variable that says where calls went before.
fn ask(store: &Path, more: &[&str], base: &str, words: &[&str]) -> Output {
    let mut command = vec!["python3", SCRIPT];
    command.extend(words);
    let mut more = more.to_vec();
    more.extend(["--name", "ask"]);
    let mut exec = exec(store, &more, &command);
    exec.env(words[0], base).env("NO_PROXY", "*");
    ended(exec)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that answers each request by `answer`, for as many connections as are said.
pub fn serve(connections: usize, answer: impl Fn(&str, &[u8], &mut dyn Write) + Send + 'static) -> SocketAddr {
    listen(connections, move |mut stream| respond(&mut stream, &answer))
}

fn listen(connections: usize, mut with: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().take(connections).map_while(Result::ok).for_each(&mut with));
    address
}

fn respond(stream: &mut (impl Read + Write), answer: &impl Fn(&str, &[u8], &mut dyn Write)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    answer(&head, &body, stream);
}

pub fn whole(stream: &mut dyn Write, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

pub const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n";

pub fn event(stream: &mut dyn Write, kind: &str, data: serde_json::Value) {
    let mut data = data;
    data["type"] = kind.into();
    // Who has gone reads no more.
    let _ = stream.write_all(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
}

#[test]
fn each_kind_of_call_is_a_step_with_what_was_billed() {
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}}}}}]);
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which weather?"}]);
    let chat = json!({"model": "gpt-4o-mini", "temperature": 0.5, "messages": messages, "tools": tools});
    let streamed = json!({"model": "gpt-4o-mini", "messages": messages, "stream": true,
        "stream_options": {"include_usage": true}});
    let response = json!({"model": "gpt-5-mini", "instructions": "Be brief.", "input": "Hello"});
    let streamed_response =
        json!({"model": "gpt-5-mini", "input": [{"role": "user", "content": "Hello"}], "stream": true});
    let embedding = json!({"model": "text-embedding-3-small", "input": ["a", "b"]});
    for (path, body) in [
        ("/chat/completions", &chat),
        ("/chat/completions", &streamed),
        ("/responses", &response),
        ("/responses", &streamed_response),
        ("/embeddings", &embedding),
    ] {
        let server = ModelServer::start(Script::demo()).unwrap();
        let dir = tempdir();
        let output = ask(dir.path(), &[], &server.base_url(), &["OPENAI_BASE_URL", path, &body.to_string()]);
        assert!(out(&output).starts_with("200 "), "{path}: {} {}", out(&output), err(&output));
        let run = only_run(dir.path());
        let steps = steps(dir.path(), run.run_id);
        let [root, call] = &steps[..] else { panic!("{path}: {steps:#?}") };
        assert_eq!(call.parent_span_id, Some(root.span_id));
        let billed = server.calls()[0].tokens;
        let told = call.tokens.unwrap();
        assert_eq!(
            (told.prompt, told.completion.unwrap_or(0), told.cache_read.unwrap_or(0), told.reasoning.unwrap_or(0)),
            (Some(billed.input), billed.output, billed.cached, billed.reasoning),
            "{path}"
        );
        assert!(call.cost_usd.is_some(), "{path}");
        assert!(call.input.is_some() && (call.output.is_some() || path == "/embeddings"), "{path}: {call:#?}");
        assert_eq!(run.llm_calls, u64::from(path != "/embeddings"));
    }
}

#[test]
fn a_call_is_told_whole_and_its_key_is_not() {
    let server = ModelServer::start(Script::demo()).unwrap();
    let dir = tempdir();
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let words = ["OPENAI_API_BASE", "/chat/completions", &body];
    let output = ask(dir.path(), &[], &server.base_url(), &words);
    let run = only_run(dir.path());
    insta::assert_snapshot!(told(dir.path(), run.run_id).join("\n"), @r#"
    ask < - {"kind":"workflow","name":"invoke_workflow ask","status":"success"}
    chat < ask {"kind":"llm","name":"chat gpt-4o-mini","status":"success","provider":"openai","model":"gpt-4o-mini-2024-07-18","tokens":{"prompt":6,"completion":4,"total":10,"cache_read":0,"reasoning":0},"cost_usd":3.3e-6,"cost_source":"computed","input":[{"role":"user","parts":[{"type":"text","content":"Hello"}]}],"output":[{"role":"assistant","parts":[{"type":"text","content":"You asked: Hello"}],"finish_reason":"stop"}]}
    "#);
    assert!(err(&output).starts_with("runspan: 1 model call, "), "{}", err(&output));
    let all = std::process::Command::new("grep").args(["-r", "canary"]).arg(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&all.stdout), "");
    let dir = tempdir();
    ask(dir.path(), &["--content", "none"], &server.base_url(), &words);
    let steps = steps(dir.path(), only_run(dir.path()).run_id);
    assert_eq!((&steps[1].input, &steps[1].output), (&None, &None));
    assert_eq!(steps[1].model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
}

#[test]
fn it_is_said_which_calls_are_not_seen() {
    let said = |more: &[&str], key: &str| {
        let dir = tempdir();
        std::fs::write(dir.path().join(".env"), "ANTHROPIC_BASE_URL=http://127.0.0.1:1\n").unwrap();
        let mut exec = exec(&dir.path().join("store"), more, &["true"]);
        exec.current_dir(dir.path()).env("TOGETHER_API_KEY", key).env("OPENAI_API_BASE", "http://127.0.0.1:1/v1");
        let said = err(&ended(exec));
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let in_file = "ANTHROPIC_BASE_URL stands in .env and is left as it is: export it to have these calls recorded";
    let lines = said(&[], "k");
    assert_eq!(lines[0], format!("runspan: {in_file}"));
    assert!(lines[1].starts_with("runspan: TOGETHER_BASE_URL is left as it is, for Together's clients"), "{lines:?}");
    let empty = "no model calls that were seen (ANTHROPIC_BASE_URL, TOGETHER_BASE_URL were left as they are); ";
    assert!(lines.len() == 4 && lines[3].contains(empty), "{lines:?}");
    assert_eq!(said(&["--quiet"], "k"), [""; 0]);
    let lines = said(&["--quiet", "--proxy", "on"], "");
    let beside = "OPENAI_BASE_URL is left as it is, for OPENAI_API_BASE is set: calls of clients that read the first alone are not seen";
    assert_eq!(lines, [format!("runspan: warning: {beside}"), format!("runspan: warning: {in_file}")]);
}

#[test]
fn it_is_said_that_processes_left_behind_cannot_call_any_more() {
    let left = |more: &[&str], script: &str| {
        let dir = tempdir();
        let mut exec = exec(dir.path(), more, &["sh", "-c", script]);
        exec.env("OPENAI_BASE_URL", "http://127.0.0.1:1").env("NO_PROXY", "*");
        err(&ended(exec)).contains("any model calls of theirs fail from now on")
    };
    // Nobody has asked at the port yet: it may be no program that calls models.
    const LEAVES: &str = "sleep 6 >/dev/null 2>&1 </dev/null & exit 0";
    assert!(!left(&[], LEAVES));
    let asks = "python3 -c 'import os, urllib.request; urllib.request.build_opener().open(os.environ[\"OPENAI_BASE_URL\"] + \"/models\")' 2>/dev/null;";
    assert!(left(&[], &format!("{asks} {LEAVES}")));
    assert!(!left(&["--proxy", "off"], &format!("{asks} {LEAVES}")));
    assert!(!left(&[], &format!("{asks} sleep 0.2 >/dev/null 2>&1 </dev/null & exit 0")));
}

/// A server that sends from its first paths to the last, and answers there after some time.
fn sends_on(connections: usize, location: &'static str, status: u16, after: Duration) -> SocketAddr {
    serve(connections, move |head, body, stream| {
        if head.starts_with("POST /v1/") {
            std::thread::sleep(after);
            let head = format!(
                "HTTP/1.1 {status} On\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return stream.write_all(head.as_bytes()).unwrap();
        }
        let model = serde_json::from_slice::<serde_json::Value>(body).unwrap()["model"].clone();
        let usage = json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9});
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"});
        let answer = json!({"id": "c1", "model": model, "choices": [choice], "usage": usage});
        whole(stream, "Content-Type: application/json\r\n", answer.to_string().as_bytes());
    })
}

/// Follows redirects as the clients of OpenAI's do, which `urllib` does not with a body.
const FOLLOWS: &str = r#"
import http.client, json, os, urllib.parse
at = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
for _ in range(3):
    url = urllib.parse.urlsplit(at)
    asked = http.client.HTTPConnection(url.netloc)
    asked.request("POST", url.path, json.dumps({"model": "gpt-4o-mini", "messages": []}), {"Authorization": "Bearer k"})
    answer = asked.getresponse()
    print(answer.status, answer.read()[:0], flush=True)
    at = answer.headers["Location"]
    if not 300 < answer.status < 304 and answer.status not in (307, 308) or not at.startswith(os.environ["OPENAI_BASE_URL"][:20]): break
"#;

#[test]
fn a_redirect_is_no_call_and_the_one_that_follows_is() {
    // One that takes its time has been told to begin before.
    for after in [0, 1_500] {
        let address = sends_on(2, "/v2/chat/completions", 307, Duration::from_millis(after));
        let dir = tempdir();
        let more = ["--budget-steps", "1"];
        let mut exec = exec(dir.path(), &more, &["python3", "-c", FOLLOWS]);
        exec.env("OPENAI_BASE_URL", format!("http://{address}/v1")).env("NO_PROXY", "*");
        let output = ended(exec);
        assert_eq!(out(&output), "307 b''\n200 b''\n", "{}", err(&output));
        let run = only_run(dir.path());
        assert_eq!((run.status, run.llm_calls, run.errors, run.steps_total), (RunStatus::Success, 1, 0, 2), "{after}");
        let steps = steps(dir.path(), run.run_id);
        assert_eq!((steps[1].status, steps[1].tokens.unwrap().total), (StepStatus::Success, Some(9)));
        let is_long = steps[1].duration_ms.unwrap() >= 1_500.0;
        assert_eq!(is_long, after > 0);
        assert!(!err(&output).contains("redirect"), "{}", err(&output));
    }
}

#[test]
fn it_is_said_that_calls_go_on_where_they_are_not_seen() {
    let said = |more: &[&str], location: &'static str, status: u16, after: u64| {
        let address = sends_on(1, location, status, Duration::from_millis(after));
        let dir = tempdir();
        let mut exec = exec(dir.path(), more, &["python3", "-c", FOLLOWS]);
        exec.env("OPENAI_BASE_URL", format!("http://{address}/v1")).env("NO_PROXY", "*");
        let output = ended(exec);
        let run = only_run(dir.path());
        let steps = steps(dir.path(), run.run_id);
        let steps = steps.iter().skip(1).map(|step| format!(" {} {} {}", step.kind, step.name, step.status));
        let said = err(&output).replace(&address.to_string(), "HERE");
        let said = said.lines().find(|line| line.contains("were answered")).unwrap_or_default().to_owned();
        format!("{said} | {} {} {}{}", run.status, run.llm_calls, run.errors, steps.collect::<String>())
    };
    let elsewhere =
        "requests to HERE were answered with a redirect to 127.0.0.1:1 (307): calls that go on there are not seen";
    const THERE: &str = "http://127.0.0.1:1/v1";
    assert_eq!(said(&[], THERE, 307, 0), format!("runspan: {elsewhere} | success 0 0"));
    assert_eq!(said(&["--quiet"], THERE, 307, 0), " | success 0 0");
    assert_eq!(
        said(&["--quiet", "--proxy", "on"], THERE, 307, 0),
        format!("runspan: warning: {elsewhere} | success 0 0")
    );
    assert_eq!(said(&["--quiet"], THERE, 307, 900), " | success 0 0 task redirect success");
    let nowhere = "requests to HERE were answered with 304, a redirect that leads nowhere: they are not recorded";
    assert_eq!(said(&[], "/v2/chat/completions", 304, 0), format!("runspan: {nowhere} | success 0 0"));
}

#[test]
fn what_is_billed_beside_the_counts_of_an_answer_counts_as_it_does_over_otlp() {
    let of = |usage: serde_json::Value| {
        let answer = json!({"id": "c1", "model": "grok-4", "usage": usage,
            "choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]});
        let address = serve(1, move |_, _, stream| whole(stream, "", answer.to_string().as_bytes()));
        let dir = tempdir();
        let body = json!({"model": "grok-4", "messages": []}).to_string();
        ask(dir.path(), &[], &format!("http://{address}"), &["OPENAI_BASE_URL", "/chat/completions", &body]);
        let tokens = steps(dir.path(), only_run(dir.path()).run_id)[1].tokens.unwrap();
        [tokens.prompt, tokens.completion, tokens.reasoning, tokens.cache_read, tokens.cache_write, tokens.total]
    };
    // Reasoning that only the total includes, as xAI's: less than what was said, too.
    let details = json!({"reasoning_tokens": 20});
    let apart =
        json!({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 80, "completion_tokens_details": details});
    assert_eq!(of(apart), [Some(10), Some(70), Some(20), None, None, Some(80)]);
    let within =
        json!({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60, "completion_tokens_details": details});
    assert_eq!(of(within), [Some(10), Some(50), Some(20), None, None, Some(60)]);
    // Anthropic's cache behind a gateway that speaks as OpenAI does.
    let cached = json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105,
        "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30});
    assert_eq!(of(cached), [Some(100), Some(5), None, Some(60), Some(30), Some(105)]);
}

/// A stream as Anthropic's: what came in is said first, what went out at the end, and between waits until it is told.
fn anthropic(go_on: Receiver<()>) -> SocketAddr {
    let go_on = std::sync::Mutex::new(go_on);
    serve(1, move |_, _, stream| {
        stream.write_all(STREAM).unwrap();
        let usage = json!({"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 5,
            "output_tokens": 1});
        let message =
            json!({"id": "msg_1", "role": "assistant", "model": "claude-sonnet-4-5-20250929", "usage": usage});
        event(stream, "message_start", json!({"message": message}));
        // It comes as an error when the test has given up.
        let _ = go_on.lock().unwrap().recv();
        event(stream, "content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}));
        for word in ["Let me ", "look."] {
            event(stream, "content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": word}}));
        }
        let tool = json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}});
        event(stream, "content_block_start", json!({"index": 1, "content_block": tool}));
        for part in ["{\"city\":", "\"Bern\"}"] {
            let delta = json!({"type": "input_json_delta", "partial_json": part});
            event(stream, "content_block_delta", json!({"index": 1, "delta": delta}));
        }
        let delta = json!({"stop_reason": "tool_use"});
        event(stream, "message_delta", json!({"delta": delta, "usage": {"output_tokens": 42}}));
        event(stream, "message_stop", json!({}));
    })
}

fn tokens(input: u64, output: u64) -> Option<Tokens> {
    let tokens = Tokens {
        prompt: Some(input),
        completion: Some(output),
        total: Some(input + output),
        cache_read: Some(100),
        cache_write: Some(5),
        reasoning: None,
    };
    Some(tokens)
}

fn starts_stream(store: &Path, words: &[&str]) -> (std::process::Child, Sender<()>) {
    let (tell, go_on) = channel();
    let address = anthropic(go_on);
    let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": true, "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Which weather?"}]}]});
    let mut command = vec!["python3", SCRIPT, "ANTHROPIC_BASE_URL", "/v1/messages"];
    let body = body.to_string();
    command.push(&body);
    command.extend(words);
    let mut exec = exec(store, &["--name", "ask"], &command);
    exec.env("ANTHROPIC_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
    (exec.spawn().unwrap(), tell)
}

#[test]
fn pieces_of_a_stream_pass_as_they_come() {
    let dir = tempdir();
    let (mut child, go_on) = starts_stream(dir.path(), &["first"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The rest is not sent before this has come through.
    assert_eq!(lines.next().unwrap().unwrap(), "event: message_start");
    let run = only_run(dir.path());
    crate::support::wait_until("the call shows while it is under way", || {
        steps(dir.path(), run.run_id).iter().any(|step| step.name == "chat claude-sonnet-4-5")
    });
    go_on.send(()).unwrap();
    assert!(lines.next().unwrap().unwrap().starts_with("200 "));
    assert!(child.wait().unwrap().success());
    let steps = steps(dir.path(), run.run_id);
    assert_eq!(steps[1].tokens, tokens(115, 42));
    insta::assert_snapshot!(serde_json::to_string(&steps[1].output).unwrap(), @r#"[{"role":"assistant","parts":[{"type":"text","content":"Let me look."},{"type":"tool_call","id":"toolu_1","name":"weather","arguments":{"city":"Bern"}}],"finish_reason":"tool_use"}]"#);
    let events = open(dir.path());
    let events = runspan::store::RunReader::get_events(&events, run.run_id, 0).unwrap();
    let span = events
        .iter()
        .filter_map(|event| event.body.span())
        .find(|(span, ..)| span.name.starts_with("chat") && span.attr("gen_ai.response.time_to_first_chunk").is_some());
    assert!(span.is_some(), "{events:#?}");
}

#[test]
fn of_a_stream_that_nobody_waits_for_what_was_used_is_kept_as_far_as_it_is_known() {
    let dir = tempdir();
    let (child, go_on) = starts_stream(dir.path(), &["leave"]);
    let output = child.wait_with_output().unwrap();
    drop(go_on);
    assert!(output.status.success());
    let steps = steps(dir.path(), only_run(dir.path()).run_id);
    // What it had begun with is no count of what it came to.
    let told = tokens(115, 0).map(|tokens| Tokens { completion: None, ..tokens });
    assert_eq!((steps[1].status.as_str(), steps[1].tokens, steps[1].cost_usd), ("cancelled", told, None));
    assert_eq!(only_run(dir.path()).unpriced_steps, 1);
    assert_eq!(steps[0].status.as_str(), "success");
}

/// Makes calls as fast as it can: `VARIABLE TIMES`.
pub const ASKS_FAST: &str = "
import json, os, sys, urllib.request
body = json.dumps({'model': 'gpt-4o-mini', 'messages': []}).encode()
for _ in range(int(sys.argv[2])):
    urllib.request.urlopen(os.environ[sys.argv[1]] + '/chat/completions', body).read()
";

#[test]
fn calls_that_come_faster_than_a_store_is_read_are_all_recorded() {
    const CALLS: usize = 1_500;
    let answer = json!({"usage": {"prompt_tokens": 7, "completion_tokens": 3}}).to_string();
    let address = serve(CALLS, move |_, _, stream| whole(stream, "", answer.as_bytes()));
    let dir = tempdir();
    let times = CALLS.to_string();
    let mut exec = exec(dir.path(), &["--name", "fast"], &["python3", "-c", ASKS_FAST, "OPENAI_BASE_URL", &times]);
    exec.env("OPENAI_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
    let output = ended(exec);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(only_run(dir.path()).llm_calls, CALLS as u64, "{}", err(&output));
    assert!(!err(&output).contains("not recorded"), "{}", err(&output));
}

/// The run of one that was killed is under way by its metadata, and what is called behind its death is nobody else's.
#[test]
fn calls_behind_the_death_of_a_program_that_recorded_itself_are_recorded() {
    let answer = json!({"usage": {"prompt_tokens": 7, "completion_tokens": 3}}).to_string();
    let address = serve(1, move |_, _, stream| whole(stream, "", answer.as_bytes()));
    let dir = tempdir();
    let (runspan, store) = (env!("CARGO_BIN_EXE_runspan"), dir.path().display());
    let body = json!({"model": "gpt-4o-mini", "messages": []});
    let script = format!(
        "'{runspan}' exec --store '{store}' --name killed --proxy off --quiet -- sleep 2 >/dev/null 2>&1 &
        until '{runspan}' list --store '{store}' | grep -q killed; do sleep 0.05; done
        kill -9 $!; wait; sleep 0.3
        exec python3 {SCRIPT} OPENAI_BASE_URL /chat/completions '{body}'"
    );
    let mut exec = exec(dir.path(), &["--name", "above"], &["sh", "-c", &script]);
    exec.env("OPENAI_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
    let output = ended(exec);
    assert!(output.status.success(), "{}", err(&output));
    let calls: Vec<_> = runs(dir.path()).iter().map(|run| (run.parent_run_id.is_some(), run.llm_calls)).collect();
    assert!(calls.len() == 2 && calls.contains(&(false, 1)) && calls.contains(&(true, 0)), "{calls:?}");
}

#[test]
fn a_call_whose_answer_nobody_waits_for_has_ended() {
    // What is under way at the end has ended, too.
    for leave in ["give-up", "stay"] {
        let dir = tempdir();
        let came = dir.path().join("came");
        let (tell, over) = channel::<()>();
        let (over, comes) = (std::sync::Mutex::new(over), came.clone());
        let address = serve(1, move |_, _, _| {
            std::fs::write(&comes, "").unwrap();
            let _ = over.lock().unwrap().recv();
        });
        let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
        // What is left behind is waited for, for a while, and then the recording is over.
        let left = format!(
            "python3 {SCRIPT} OPENAI_BASE_URL /chat/completions '{body}' >/dev/null 2>&1 & until [ -e {} ]; do sleep 0.01; done",
            came.display()
        );
        let stays = ["sh", "-c", &left];
        let gives_up = ["python3", SCRIPT, "OPENAI_BASE_URL", "/chat/completions", &body, "give-up"];
        let command = if leave == "stay" { &stays[..] } else { &gives_up };
        let mut exec = exec(dir.path(), &["--name", "ask"], command);
        exec.env("OPENAI_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
        let output = ended(exec);
        let steps = steps(dir.path(), only_run(dir.path()).run_id);
        let told: Vec<_> = steps.iter().map(|step| format!("{} {}", step.name, step.status)).collect();
        assert_eq!(told[1..], ["chat gpt-4o-mini cancelled"], "{leave}: {told:?} {}", err(&output));
        drop(tell);
    }
}

/// Sends the head of a request and some of its body, and goes: `LENGTH`, of the body.
const BREAKS_OFF: &str = "
import os, socket, sys, time, urllib.parse
base = urllib.parse.urlparse(os.environ['OPENAI_BASE_URL'])
connection = socket.create_connection((base.hostname, base.port))
head = f'POST {base.path}/chat/completions HTTP/1.1\\r\\nHost: {base.netloc}\\r\\nContent-Length: {sys.argv[1]}\\r\\n\\r\\n'
connection.sendall(head.encode() + b'{')
time.sleep(0.3)
connection.close()
time.sleep(0.3)
";

#[test]
fn a_request_that_the_program_breaks_off_is_cancelled() {
    // Read whole before it goes on, and passed on piece by piece.
    for (length, bounds) in [("5000", &[][..]), ("5000000", &[]), ("5000000", &["--budget-usd", "2"])] {
        let address = serve(1, |_, _, _| {});
        let dir = tempdir();
        let more = [bounds, &["--name", "breaks-off"]].concat();
        let mut exec = exec(dir.path(), &more, &["python3", "-c", BREAKS_OFF, length]);
        exec.env("OPENAI_BASE_URL", format!("http://{address}")).env("NO_PROXY", "*");
        let output = ended(exec);
        let run = only_run(dir.path());
        assert_eq!(run.status.as_str(), "cancelled", "{length}: {}", err(&output));
        // Of one that has begun to pass on, it may be seen first that the program has gone.
        assert!(run.unpriced_steps == 0 || length != "5000", "{length}");
        let call = &steps(dir.path(), run.run_id)[1];
        assert_eq!(call.status, StepStatus::Cancelled, "{length}: {call:#?}");
    }
}

#[test]
fn a_stream_that_fails_or_breaks_off_is_an_error_with_what_was_told_until_then() {
    let error = json!({"error": {"type": "overloaded_error", "message": "Overloaded"}});
    for (last, kind) in [(Some(error), "overloaded_error"), (None, "broken_off")] {
        let address = serve(1, move |_, _, stream| {
            stream.write_all(STREAM).unwrap();
            let usage = json!({"input_tokens": 10, "output_tokens": 1});
            let message = json!({"id": "msg_1", "model": "claude-sonnet-4-5-20250929", "usage": usage});
            event(stream, "message_start", json!({"message": message}));
            if let Some(last) = &last {
                event(stream, "error", last.clone());
            }
        });
        let dir = tempdir();
        let body = json!({"model": "claude-sonnet-4-5", "stream": true, "messages": []}).to_string();
        let words = ["ANTHROPIC_BASE_URL", "/v1/messages", &body];
        let output = ask(dir.path(), &[], &format!("http://{address}"), &words);
        assert!(out(&output).starts_with("200 "), "{}", out(&output));
        let call = &steps(dir.path(), only_run(dir.path()).run_id)[1];
        let told = (call.status.as_str(), call.error.as_ref().and_then(|error| error.kind.as_deref()));
        assert_eq!(told, ("error", Some(kind)), "{call:#?}");
        let told = call.tokens.map(|tokens| (tokens.prompt, tokens.completion));
        assert_eq!((told, call.cost_usd), (Some((Some(10), None)), None));
        assert_eq!(call.model.as_deref(), Some("claude-sonnet-4-5-20250929"));
    }
}

#[test]
fn failures_come_through_as_they_are_and_show_in_the_run() {
    let server = ModelServer::start(Script::demo()).unwrap();
    let dir = tempdir();
    let body = json!({"model": "fail-429", "messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let output = ask(dir.path(), &[], &server.base_url(), &["OPENAI_BASE_URL", "/chat/completions", &body]);
    assert!(out(&output).starts_with("429 ") && out(&output).contains("as ordered"), "{}", out(&output));
    let run = only_run(dir.path());
    let failed = &steps(dir.path(), run.run_id)[1];
    let error = failed.error.clone().unwrap();
    assert_eq!(error.message.as_deref(), Some("the rate limit is reached, as ordered"));
    assert_eq!(run.status.as_str(), "error", "the last call failed, and nothing succeeded after it");

    let closed = crate::forward::free_address();
    let dir = tempdir();
    let output = ask(dir.path(), &[], &format!("http://{closed}/v1"), &["OPENAI_BASE_URL", "/chat/completions", &body]);
    let expected = "502 {\"error\":{\"message\":\"runspan exec passes model calls on, and cannot reach 127.0.0.1: ";
    assert!(out(&output).starts_with(expected), "{}", out(&output));
    let error = steps(dir.path(), only_run(dir.path()).run_id)[1].error.clone().unwrap();
    assert_eq!(error.kind.as_deref(), Some("unreachable"));

    let address = serve(1, |_, _, _| {});
    let dir = tempdir();
    let output =
        ask(dir.path(), &[], &format!("http://{address}/v1"), &["OPENAI_BASE_URL", "/chat/completions", &body]);
    let expected = "502 {\"error\":{\"message\":\"runspan exec passes model calls on, and the connection to 127.0.0.1 broke before the answer: ";
    assert!(out(&output).starts_with(expected), "{}", out(&output));
    let error = steps(dir.path(), only_run(dir.path()).run_id)[1].error.clone().unwrap();
    assert_eq!(error.kind.as_deref(), Some("disconnected"));
}

#[test]
fn of_a_text_with_half_a_character_that_alone_is_lost() {
    let whole_answer = r#"{"id": "c1", "model": "gpt-4o-mini", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Hi \ud83d there"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}"#;
    let piece = r#"data: {"id": "c1", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Hi \ud83d there"},
        "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}"#;
    for is_stream in [false, true] {
        let address = serve(1, move |_, _, stream| {
            if is_stream {
                stream.write_all(STREAM).unwrap();
                stream.write_all(format!("{}\n\ndata: [DONE]\n\n", piece.replace('\n', "")).as_bytes()).unwrap();
            } else {
                whole(stream, "", whole_answer.as_bytes());
            }
        });
        let dir = tempdir();
        let body = r#"{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Look \ude00 here"}]}"#;
        ask(dir.path(), &[], &format!("http://{address}/v1"), &["OPENAI_BASE_URL", "/chat/completions", body]);
        let call = &steps(dir.path(), only_run(dir.path()).run_id)[1];
        let said = |content: &Option<serde_json::Value>| content.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(said(&call.input).contains("Look \u{fffd} here"), "{call:#?}");
        assert!(said(&call.output).contains("Hi \u{fffd} there"), "{call:#?}");
        assert_eq!(call.tokens.and_then(|tokens| tokens.total), Some(10));
        assert!(call.cost_usd.is_some());
    }
}

#[test]
fn an_answer_with_trailers_behind_it_is_whole() {
    let answer = |_: &str, _: &[u8], stream: &mut dyn Write| {
        let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}})
        .to_string();
        let head =
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        // More headers than most have, and a length that says nothing beside the chunks.
        let headers: String = (0..150).map(|n| format!("X-{n}: {n}\r\n")).collect();
        let whole = format!(
            "{head}{headers}Content-Length: 5\r\nTrailer: X-Took\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Took: 1\r\n\r\n",
            body.len()
        );
        stream.write_all(whole.as_bytes()).unwrap();
    };
    let (dir, base) = (tempdir(), format!("http://{}/v1", serve(1, answer)));
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Rain?"}]}).to_string();
    let output = ask(dir.path(), &[], &base, &["OPENAI_BASE_URL", "/chat/completions", &body]);
    assert!(
        out(&output).starts_with("200 ") && out(&output).contains("chatcmpl-1"),
        "{} {}",
        out(&output),
        err(&output)
    );
    let steps = steps(dir.path(), only_run(dir.path()).run_id);
    assert_eq!((steps[1].status, steps[1].tokens.and_then(|tokens| tokens.total)), (StepStatus::Success, Some(8)));
}

#[test]
fn a_packed_answer_passes_packed_and_is_read() {
    let answer = json!({"id": "c1", "model": "gpt-4o-mini-2024-07-18", "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]});
    let answer = answer.to_string();
    let level = flate2::Compression::fast();
    let (mut gzip, mut zlib, mut deflate) = (
        flate2::write::GzEncoder::new(Vec::new(), level),
        flate2::write::ZlibEncoder::new(Vec::new(), level),
        flate2::write::DeflateEncoder::new(Vec::new(), level),
    );
    let all: [&mut dyn Write; 3] = [&mut gzip, &mut zlib, &mut deflate];
    all.into_iter().for_each(|packer| packer.write_all(answer.as_bytes()).unwrap());
    let packed =
        [("gzip", gzip.finish()), ("deflate", zlib.finish()), ("deflate", deflate.finish()), ("br", Ok(vec![7]))];
    for (way, packed) in packed {
        let packed = packed.unwrap();
        let length = packed.len();
        let address = serve(1, move |head, _, stream| {
            // What cannot be read here is not asked for, and may be sent all the same.
            assert!(
                head.contains("Accept-Encoding: gzip, deflate;q=0.5\r\n") && head.contains("canary-1f2e3d"),
                "{head}"
            );
            whole(stream, &format!("Content-Encoding: {way}\r\n"), &packed);
        });
        let dir = tempdir();
        let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
        let words = ["OPENAI_BASE_URL", "/chat/completions", &body, "Accept-Encoding=br, gzip, zstd, deflate;q=0.5"];
        let output = ask(dir.path(), &[], &format!("http://{address}"), &words);
        assert!(out(&output).starts_with(&format!("200 {length} ")), "{} {}", out(&output), err(&output));
        let call = &steps(dir.path(), only_run(dir.path()).run_id)[1];
        let used = call.tokens.map(|tokens| (tokens.prompt, tokens.completion));
        assert_eq!(used, (way != "br").then_some((Some(7), Some(3))), "{way}");
    }
}

/// Serves over TLS with the certificate for `localhost` of the tests.
fn serve_tls(answer: impl Fn(&str, &[u8], &mut dyn Write) + Send + 'static) -> SocketAddr {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_file(tls_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    listen(3, move |stream| {
        let connection = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        respond(&mut stream, &answer);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

fn tls_file(name: &str) -> String {
    format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn calls_go_on_over_tls_to_whom_this_system_trusts() {
    let answer = json!({"id": "c1", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).to_string();
    let address = serve_tls(move |_, _, stream| whole(stream, "", answer.as_bytes()));
    let base = format!("https://localhost:{}/v1", address.port());
    let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
    for (variable, trusted, code) in [
        ("SSL_CERT_FILE", "ca.pem", "200 "),
        ("REQUESTS_CA_BUNDLE", "ca.pem", "200 "),
        ("SSL_CERT_FILE", "client.pem", "502 "),
    ] {
        let dir = tempdir();
        let command = ["python3", SCRIPT, "OPENAI_BASE_URL", "/chat/completions", &body];
        let mut exec = exec(dir.path(), &["--name", "ask"], &command);
        exec.env("OPENAI_BASE_URL", &base).env("NO_PROXY", "*").env(variable, tls_file(trusted));
        let output = ended(exec);
        assert!(out(&output).starts_with(code), "{}{}", out(&output), err(&output));
        let call = &steps(dir.path(), only_run(dir.path()).run_id)[1];
        assert_eq!(call.tokens.and_then(|tokens| tokens.prompt), (code == "200 ").then_some(7));
    }
}

#[test]
fn what_is_longer_than_its_copy_may_be_passes_whole() {
    const BYTES: usize = 20 << 20;
    let address = serve(1, |_, body, stream| {
        assert!(body.len() > BYTES);
        let filler = "y".repeat(BYTES);
        whole(stream, "", json!({"filler": filler, "usage": {"prompt_tokens": 7}}).to_string().as_bytes());
    });
    let dir = tempdir();
    let words = ["OPENAI_BASE_URL", "/chat/completions", &format!("@{BYTES}")];
    let output = ask(dir.path(), &[], &format!("http://{address}"), &words);
    let length: usize = out(&output).split(' ').nth(1).and_then(|length| length.parse().ok()).unwrap();
    assert!(length > BYTES, "{}", out(&output));
    let run = only_run(dir.path());
    assert_eq!((run.llm_calls, run.status.as_str()), (1, "success"));
}

#[test]
fn a_call_that_the_program_tells_too_counts_once() {
    let server = ModelServer::start(Script::demo()).unwrap();
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}).to_string();
    // By the id of the answer, and without one by model and time.
    for tell in ["tell-id", "tell"] {
        let dir = tempdir();
        let output = ask(dir.path(), &[], &server.base_url(), &["OPENAI_BASE_URL", "/chat/completions", &body, tell]);
        assert!(output.status.success(), "{}", err(&output));
        let run = only_run(dir.path());
        let steps = steps(dir.path(), run.run_id);
        let copies: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.duplicate_of.as_deref())).collect();
        assert_eq!(run.llm_calls, 1, "{tell}: {copies:?}");
        assert!(copies.contains(&("own chat", Some("chat-2"))), "{tell}: {copies:?}");
    }
}

/// Asks the model that the environment names, inside of a run of the library.
fn ask_by_hand() {
    let url = std::env::var("OPENAI_BASE_URL").unwrap();
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("POST /{path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Makes a call in a run that tells it, as soon as that has begun, and one before and one after it, which nobody tells.
fn ask_with_the_library(store: &Path) {
    use runspan::{Run, Usage};
    use tracing_subscriber::layer::SubscriberExt;

    let (layer, guard) = runspan::builder().store(store).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        ask_by_hand();
        let run = Run::agent("inner").start();
        let call = run.llm("openai", "gpt-4o-mini");
        ask_by_hand();
        call.usage(Usage::new(1, 1));
        call.finish();
        run.finish();
        ask_by_hand();
    });
    guard.shutdown(crate::support::WATCHDOG);
}

#[test]
fn what_a_program_with_the_library_tells_itself_is_not_told_again() {
    const TEST: &str = "exec::proxy::what_a_program_with_the_library_tells_itself_is_not_told_again";
    if let Some(store) = crate::support::is_child(TEST) {
        return ask_with_the_library(&store);
    }
    let server = ModelServer::start(Script::demo()).unwrap();
    let binary = std::env::current_exe().unwrap();
    let command = [binary.to_str().unwrap(), "--exact", TEST, "--nocapture", "--test-threads=1"];
    for (proxy, steps) in [("auto", 3), ("on", 4)] {
        let dir = tempdir();
        let mut command = exec(dir.path(), &["--name", "outer", "--proxy", proxy], &command);
        command.env("RUNSPAN_TEST_CHILD", TEST).env("OPENAI_BASE_URL", server.base_url()).env("NO_PROXY", "*");
        let output = ended(command);
        assert!(output.status.success(), "{}{}", out(&output), err(&output));
        let runs = runs(dir.path());
        let outer = runs.iter().find(|run| run.workflow_id.as_deref() == Some("outer")).unwrap();
        assert_eq!((runs.len(), outer.steps_total), (2, steps), "{proxy}");
    }
}

#[test]
fn another_protocol_passes_both_ways_and_other_hosts_are_refused() {
    let address = serve(1, |head, _, stream| {
        assert!(head.starts_with("GET /v1/realtime?model=m HTTP/1.1\r\n") && head.contains("canary"), "{head}");
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n").unwrap();
        stream.write_all(b"hello\n").unwrap();
    });
    let dir = tempdir();
    let mut exec = exec(dir.path(), &["--quiet"], &["sh", "-c", "echo $OPENAI_BASE_URL; read line"]);
    exec.env("OPENAI_BASE_URL", format!("http://{address}/v1"))
        .env("NO_PROXY", "*")
        .stdin(std::process::Stdio::piped());
    let mut child = crate::support::Killed(exec.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let say = |head: &str| {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: test\r\nAuthorization: canary\r\n\r\n";
    let said = say(&format!("GET /{path}/realtime?model=m HTTP/1.1\r\nHost: {host}\r\n{upgrade}"));
    assert!(said.starts_with("HTTP/1.1 101 ") && said.ends_with("\r\n\r\nhello\n"), "{said}");
    let close = "Connection: close\r\n\r\n";
    let said = say(&format!("GET /{path}/models HTTP/1.1\r\nHost: evil.example\r\n{close}"));
    assert!(said.starts_with("HTTP/1.1 421 "), "{said}");
    let said = say(&format!("GET /elsewhere HTTP/1.1\r\nHost: {host}\r\n{close}"));
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    drop(child.0.stdin.take());
    child.0.wait().unwrap();
    assert_eq!(only_run(dir.path()).steps_total, 1);
}

#[test]
fn where_nobody_is_trusted_addresses_are_left_alone() {
    let dir = tempdir();
    let nobody = dir.path().join("nobody.pem");
    std::fs::write(&nobody, "").unwrap();
    let mut exec = exec(&dir.path().join("store"), &["--quiet"], &["sh", "-c", "echo \"$OPENAI_BASE_URL\""]);
    exec.env("SSL_CERT_FILE", &nobody).env("NO_PROXY", "*").env_remove("SSL_CERT_DIR");
    for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
        exec.env_remove(name);
    }
    let output = ended(exec);
    assert_eq!(out(&output), "\n");
    assert!(err(&output).contains("no certificates to trust"), "{}", err(&output));
}

#[test]
fn switched_off_it_leaves_addresses_alone() {
    let dir = tempdir();
    let mut off = exec(dir.path(), &["--proxy", "off"], &["sh", "-c", "echo \"$OPENAI_BASE_URL$ANTHROPIC_BASE_URL\""]);
    off.env_remove("OPENAI_BASE_URL").env("ANTHROPIC_BASE_URL", "http://mine");
    assert_eq!(out(&ended(off)), "http://mine\n");
    let mut behind = exec(dir.path(), &[], &["sh", "-c", "echo \"$OPENAI_BASE_URL\""]);
    behind.env_remove("OPENAI_BASE_URL").env("HTTPS_PROXY", "http://127.0.0.1:1").env_remove("NO_PROXY");
    assert_eq!(out(&ended(behind)), "\n");
    assert_eq!(runs(dir.path()).len(), 2);
}
