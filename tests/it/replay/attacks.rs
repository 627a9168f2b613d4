//! What a program, a recording or a network may do to a replay.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{AGENT, err, out, recorded, replayed, report, runspan};
use crate::model_server::{ModelServer, Script};
use crate::support::{ended, only_run, runs, tempdir};

/// Asks for fifty things at once, in an order of its own each time, and prints the answers by question.
const MANY: &str = r#"
import json, os, random, urllib.request
from concurrent.futures import ThreadPoolExecutor
def ask(n):
    messages = [{"role": "user", "content": f"Question {n}"}]
    body = json.dumps({"model": "gpt-4o-mini", "messages": messages}).encode()
    said = json.load(urllib.request.urlopen(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body))
    return n, said["choices"][0]["message"]["content"]
questions = list(range(50))
random.shuffle(questions)
with ThreadPoolExecutor(16) as pool:
    for n, answer in sorted(pool.map(ask, questions)):
        print(n, answer)
"#;

#[test]
fn fifty_calls_at_once_get_each_its_own_answer() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let mut exec = runspan(dir.path(), &["exec", "--name", "many", "--", "python3", "-c", MANY]);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let first = ended(exec);
    drop(server);
    assert!(out(&first).contains("49 You asked: Question 49"), "{}", err(&first));
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &[], &[]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), out(&first)), "{}", err(&output));
    assert!(err(&output).contains("50 model calls, 50 exact, 50 answers reused"), "{}", err(&output));
}

/// Counts who comes to a port.
fn watched_port() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&came);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counts.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, came)
}

#[test]
fn nobody_is_asked_neither_models_nor_proxies_and_nobody_is_told() {
    let (dir, run, _) = recorded(&[]);
    let server = ModelServer::start(Script::demo()).unwrap();
    let (proxy, came) = watched_port();
    let agent = AGENT
        .replace("print(os.environ.get(\"MODE\")", "ask([{\"role\": \"user\", \"content\": \"New\"}]); print(\"\"");
    let environment = [
        ("OPENAI_BASE_URL", server.base_url()),
        ("ANTHROPIC_BASE_URL", server.base_url()),
        ("HTTP_PROXY", proxy.clone()),
        ("HTTPS_PROXY", proxy.clone()),
        ("RUNSPAN_FORWARD", proxy.clone()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", proxy.clone()),
        ("ALL_PROXY", proxy),
        ("NO_PROXY", "nothing".to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let output = replayed(dir.path(), &run, &["--json", "--", "python3", "-c", &agent], &environment);
    let told = report(&output);
    assert_eq!((output.status.code(), &told["exact"], &told["unmatched"]), (Some(1), &json!(2), &json!(1)), "{told:#}");
    assert_eq!((server.calls().len(), came.load(Ordering::SeqCst)), (0, 0), "{}", err(&output));
    // Where it is wanted, models are.
    let live = ["--on-miss", "live", "--json", "--", "python3", "-c", &agent];
    let output = replayed(dir.path(), &run, &live, &environment);
    let told = report(&output);
    assert_eq!((&told["live"], &told["reused"], server.calls().len()), (&json!(1), &json!(2), 1), "{told:#}");
    assert!(told["spent"]["cost_usd"].as_f64() > Some(0.0) && told["spent"]["tokens"]["prompt"].as_u64() > Some(0));
}

#[test]
fn what_is_no_call_of_a_model_is_refused_and_named() {
    let (dir, run, _) = recorded(&[]);
    let agent = format!(
        "import os, urllib.request, urllib.error\ntry:\n    urllib.request.urlopen(os.environ['OPENAI_BASE_URL'] + '/models')\n\
         except urllib.error.HTTPError as error:\n    print(error.code)\n\
         try:\n    urllib.request.urlopen(os.environ['OPENAI_BASE_URL'] + '/chat/completions', b'no JSON')\n\
         except urllib.error.HTTPError as error:\n    print(error.code)\n{AGENT}"
    );
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", &agent], &[]);
    assert!(out(&output).starts_with("404\n400\n"), "{}{}", out(&output), err(&output));
    assert!(err(&output).contains("! GET /openai/models  refused: no call of a model"), "{}", err(&output));
}

/// A prompt of so many bytes, and then a short one.
const LARGE: &str = r#"
import json, os, sys, urllib.request, urllib.error
def ask(content):
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}).encode()
    try:
        said = json.load(urllib.request.urlopen(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body))
        print(said["choices"][0]["message"]["content"][:20])
    except urllib.error.HTTPError as error:
        print(error.code)
    except (BrokenPipeError, ConnectionError, urllib.error.URLError):
        print(413)
ask("x" * int(os.environ.get("BYTES", "9000000")))
ask("Hello")
"#;

#[test]
fn a_prompt_that_was_too_large_to_be_kept_is_at_its_place_and_one_that_is_larger_is_refused() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let mut exec = runspan(dir.path(), &["exec", "--name", "large", "--", "python3", "-c", LARGE]);
    exec.env("OPENAI_BASE_URL", server.base_url());
    assert!(ended(exec).status.success());
    drop(server);
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &["--json"], &[]);
    let told = report(&output);
    assert_eq!(told["calls"][0]["differs"], json!([{"what": "not_recorded"}]), "{told:#}");
    assert_eq!((&told["calls"][1]["fit"], &told["reused"]), (&json!("exact"), &json!(2)), "{told:#}");
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", LARGE], &[("BYTES", "40000000")]);
    assert_eq!(out(&output), "413\nYou asked: Hello\n", "{}", err(&output));
}

#[test]
fn a_recording_that_is_removed_meanwhile_is_answered_from_all_the_same() {
    let (dir, run, first) = recorded(&[]);
    let folder = dir.path().join("workflows").join(run.run_id.to_string());
    let agent = format!("import os, shutil\nshutil.rmtree({:?})\n{AGENT}", folder.to_str().unwrap());
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", &agent], &[("MODE", "recorded")]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), out(&first)), "{}", err(&output));
    assert!(!folder.exists());
}

#[test]
fn secrets_of_the_environment_are_not_kept_and_what_is_set_now_holds_for_them() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let agent =
        format!("{AGENT}\nprint(os.environ.get('MY_API_TOKEN'), os.environ.get('PLAIN'), os.environ.get('URL_OF_IT'))");
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", &agent]);
    exec.env("OPENAI_BASE_URL", server.base_url()).env("MY_API_TOKEN", "canary-1f2e3d").env("PLAIN", "kept");
    exec.env("URL_OF_IT", "postgres://me:canary-4c5b6a@db/x");
    assert!(out(&ended(exec)).contains("canary-1f2e3d kept postgres://me:canary-4c5b6a@db/x"));
    let found =
        std::process::Command::new("grep").args(["-r", "canary"]).arg(dir.path()).stdout(Stdio::piped()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout).matches("canary-").count(), 0);
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &[], &[("MY_API_TOKEN", "now"), ("PLAIN", "now"), ("URL_OF_IT", "now")]);
    assert!(out(&output).ends_with("now kept now\n"), "{}{}", out(&output), err(&output));
    assert_eq!(runs(dir.path()).len(), 2);
}

#[test]
fn a_run_that_came_over_otlp_alone_is_replayed_with_a_command_of_ones_own() {
    let dir = tempdir();
    let span = |id: &str, at: u64, input: serde_json::Value, said: serde_json::Value, reason: &str| {
        let attributes = [
            ("gen_ai.operation.name", "chat".to_owned()),
            ("gen_ai.provider.name", "openai".to_owned()),
            ("gen_ai.request.model", "gpt-4o-mini".to_owned()),
            ("gen_ai.system_instructions", json!([{"type": "text", "content": "Be brief."}]).to_string()),
            ("gen_ai.input.messages", input.to_string()),
            (
                "gen_ai.output.messages",
                json!([{"role": "assistant", "parts": [said], "finish_reason": reason}]).to_string(),
            ),
        ];
        let attributes = attributes.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
        json!({"traceId": "ab".repeat(16), "spanId": id, "name": "chat", "attributes": attributes,
            "startTimeUnixNano": (1_790_000_000_000_000_000 + at).to_string(),
            "endTimeUnixNano": (1_790_000_000_000_000_500 + at).to_string()})
    };
    let user = json!({"role": "user", "parts": [{"type": "text", "content": "Which weather is it in Bern?"}]});
    let call = json!({"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Bern"}});
    let asked = json!({"role": "assistant", "parts": [call]});
    let result = json!({"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "snow"}]});
    let spans = [
        span("0000000000000001", 0, json!([user]), call.clone(), "tool_calls"),
        span(
            "0000000000000002",
            1_000,
            json!([user, asked, result]),
            json!({"type": "text", "content": "It snows."}),
            "stop",
        ),
    ];
    let file = dir.path().join("otlp.json");
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    std::fs::write(&file, body.to_string()).unwrap();
    let store = dir.path().join("store");
    let output = ended(runspan(&store, &["import", file.to_str().unwrap()]));
    assert!(output.status.success(), "{}", err(&output));
    let run = only_run(&store);
    let output = replayed(&store, &run, &[], &[]);
    assert!(err(&output).contains("no command is recorded with it"), "{}", err(&output));
    let output = replayed(&store, &run, &["--", "python3", "-c", AGENT], &[]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "None It snows.\n"), "{}", err(&output));
}

#[test]
fn a_prompt_with_a_secret_is_known_again_and_never_shown() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let key = format!("sk-proj-{}", "aB3dE6gH9jK2mN5pQ8sT".repeat(2));
    let prompt = format!("Which weather is it in Bern? My key is {key}");
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", AGENT]);
    exec.env("OPENAI_BASE_URL", server.base_url()).env("PROMPT", &prompt);
    assert!(ended(exec).status.success());
    drop(server);
    let run = only_run(dir.path());
    // What is not kept of the environment is what it is now.
    let output = replayed(dir.path(), &run, &[], &[("PROMPT", &prompt)]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let changed = prompt.replace("Bern", "Rome");
    let output = replayed(dir.path(), &run, &[], &[("PROMPT", &changed)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("+Which weather is it in Rome? My key is [redacted:"), "{}", err(&output));
    assert!(!err(&output).contains(&key));
}
