//! Answers that failed, and streams that failed or were left: they are given as they were.

use std::io::Write;

use serde_json::json;

use super::{err, out, replayed, report, runspan};
use crate::exec::proxy::{STREAM, event, serve, whole};
use crate::support::{ended, only_run, steps, tempdir};

/// Asks `WHAT` of a service for each argument, and prints status, words and error of the answer; of `leave` it reads two
/// words.
const ASKS: &str = r#"
import http.client, json, os, sys, urllib.parse
for what in sys.argv[1:]:
    service, does = what.split(":")
    variable, path = {"openai": ("OPENAI_BASE_URL", "/chat/completions"), "responses": ("OPENAI_BASE_URL", "/responses"),
        "anthropic": ("ANTHROPIC_BASE_URL", "/v1/messages")}[service]
    base = urllib.parse.urlsplit(os.environ[variable])
    connection = http.client.HTTPConnection(base.netloc)
    said = {"input": what} if service == "responses" else {"messages": [{"role": "user", "content": what}]}
    body = {"model": "m", "stream": "stream" in does or "leave" in does, **said}
    connection.request("POST", base.path + path, json.dumps(body), {"Content-Type": "application/json"})
    answer, words, error = connection.getresponse(), [], None
    while line := answer.readline().decode().strip() or answer.readline().decode().strip():
        line = line.removeprefix("data: ")
        if not line.startswith("{"):
            continue
        piece = json.loads(line)
        error = piece.get("error") or (piece.get("response") or {}).get("error") or error
        for choice in piece.get("choices") or []:
            words.append(choice["delta"].get("content") or "")
        delta = piece.get("delta")
        words.append(delta if isinstance(delta, str) else (delta or {}).get("text", ""))
        if does == "leave" and len("".join(words)) > 7:
            break
    connection.close()
    print(what, answer.status, answer.headers["content-type"].split(";")[0], "".join(words), json.dumps(error, sort_keys=True), flush=True)
"#;

/// Answers as is asked for.
fn answers(head: &str, body: &[u8], stream: &mut dyn Write) {
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
    let what = asked.pointer("/messages/0/content").unwrap_or(&asked["input"]).as_str().unwrap();
    let error = json!({"type": "overloaded", "code": "overloaded", "message": "Later", "param": null});
    if what.ends_with(":error") {
        let json = "Content-Type: application/json\r\n";
        return whole(stream, json, json!({"error": error}).to_string().as_bytes());
    }
    stream.write_all(STREAM).unwrap();
    let words = ["Let ", "me ", "look "];
    let data = |stream: &mut dyn Write, data: serde_json::Value| {
        let _ = stream.write_all(format!("data: {data}\n\n").as_bytes());
    };
    if head.contains("/v1/messages") {
        let usage = json!({"input_tokens": 10, "output_tokens": 1});
        let message = json!({"id": "msg_1", "role": "assistant", "model": "m", "content": [], "usage": usage});
        event(stream, "message_start", json!({"message": message}));
        event(stream, "content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}));
        for word in words {
            event(stream, "content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": word}}));
        }
    } else if head.contains("/responses") {
        event(stream, "response.created", json!({"response": {"id": "r1", "status": "in_progress"}}));
        for word in words {
            event(stream, "response.output_text.delta", json!({"delta": word}));
        }
    } else {
        for word in words {
            data(stream, json!({"id": "c1", "choices": [{"index": 0, "delta": {"content": word}}]}));
        }
    }
    if what.ends_with(":leave") {
        // Until nobody reads it.
        while stream.write_all(b": ping\n\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    } else if head.contains("/responses") {
        let failed =
            json!({"id": "r1", "status": "failed", "output": [], "error": {"code": "overloaded", "message": "Later"}});
        event(stream, "response.failed", json!({"response": failed}));
    } else if head.contains("/v1/messages") {
        event(stream, "error", json!({"error": {"type": "overloaded", "message": "Later"}}));
    } else {
        data(stream, json!({"error": error}));
    }
}

#[test]
fn what_failed_fails_as_it_did_and_a_stream_that_was_left_is_there_until_it_is_left() {
    let address = serve(99, answers);
    let dir = tempdir();
    let asked = [
        "openai:error",
        "anthropic:stream",
        "openai:stream",
        "responses:stream",
        "anthropic:leave",
        "openai:leave",
        "responses:leave",
    ];
    let command = [&["exec", "--name", "asks", "--", "python3", "-c", ASKS][..], &asked].concat();
    let mut exec = runspan(dir.path(), &command);
    exec.env("OPENAI_BASE_URL", format!("http://{address}/v1")).env("ANTHROPIC_BASE_URL", format!("http://{address}"));
    let first = ended(exec);
    insta::assert_snapshot!(out(&first), @r#"
    openai:error 200 application/json  {"code": "overloaded", "message": "Later", "param": null, "type": "overloaded"}
    anthropic:stream 200 text/event-stream Let me look  {"message": "Later", "type": "overloaded"}
    openai:stream 200 text/event-stream Let me look  {"code": "overloaded", "message": "Later", "param": null, "type": "overloaded"}
    responses:stream 200 text/event-stream Let me look  {"code": "overloaded", "message": "Later"}
    anthropic:leave 200 text/event-stream Let me look  null
    openai:leave 200 text/event-stream Let me look  null
    responses:leave 200 text/event-stream Let me look  null
    "#);
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &[], &[]);
    assert_eq!(out(&output), out(&first), "{}", err(&output));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(err(&output).contains("as recorded: 7 model calls, 7 exact, 7 answers reused"), "{}", err(&output));
    // The new run is as the old one.
    let new = crate::support::runs(dir.path()).into_iter().find(|new| new.run_id != run.run_id).unwrap();
    let told = |run: &runspan::model::RunSummary| -> Vec<_> {
        let steps = steps(dir.path(), run.run_id).into_iter().skip(1);
        steps.map(|step| (step.status, step.error.map(|error| error.kind), step.output, step.tokens)).collect()
    };
    assert_eq!(told(&new), told(&run));
    // Read on, the stream is over when the program had left it; and what is not asked for as a stream has no answer.
    let reads_on = ASKS.replace("if does == \"leave\"", "if False");
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", &reads_on, "anthropic:leave"], &[]);
    assert_eq!(out(&output), "anthropic:leave 200 text/event-stream Let me look  null\n", "{}", err(&output));
    let whole = ASKS.replace("or \"leave\" in does", "");
    let output = replayed(dir.path(), &run, &["--json", "--", "python3", "-c", &whole, "anthropic:leave"], &[]);
    let told = report(&output);
    assert_eq!(
        (&told["calls"][0]["gap"], &told["calls"][0]["answered_by"]),
        (&json!("not_answered"), &json!("nobody"))
    );
    // Asked once more than it was.
    let more = [&["--", "python3", "-c", ASKS][..], &asked, &["openai:error"]].concat();
    let output = replayed(dir.path(), &run, &more, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("asked more often than recorded"), "{}", err(&output));
}
