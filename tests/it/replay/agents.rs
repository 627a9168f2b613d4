//! Real agents: recorded once live against the scripted model, replayed with it gone; a changed prompt is named by step.

use std::path::{Path, PathBuf};

use runspan::model::{NanoUsd, RunSummary};
use serde_json::{Value, json};

use super::{TestDir, err, out, report, runspan};
use crate::interop::program;
use crate::model_server::{ModelServer, Script};
use crate::rig::{talkative_agent, weather_agent};
use crate::support::{ended, runs, tempdir};

const QUESTION: &str = "Which weather is it in Bern?";
const OTHER: &str = "Which weather is it in Rome?";

/// Records a command against the scripted model, and lets that go.
fn record(options: &[&str], command: &[&str]) -> (TestDir, RunSummary, String) {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let run = record_against(dir.path(), "OPENAI_BASE_URL", &server.base_url(), options, command);
    assert!(!server.calls().is_empty());
    (dir, run.0, run.1)
}

fn record_against(
    store: &Path,
    variable: &str,
    address: &str,
    options: &[&str],
    command: &[&str],
) -> (RunSummary, String) {
    let mut arguments = vec!["exec", "--name", "trip"];
    arguments.extend(options);
    arguments.push("--");
    arguments.extend(command);
    let mut exec = runspan(store, &arguments);
    exec.env(variable, address).env("OPENAI_API_KEY", "canary-1f2e3d").env_remove("PYTHONPATH");
    let output = ended(exec);
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    let run = runs(store).into_iter().find(|run| run.workflow_id.as_deref() == Some("trip")).unwrap();
    (run, out(&output))
}

/// Replays a run with no server and no key, and returns the report.
fn replay(store: &Path, run: &RunSummary, command: &[&str]) -> Value {
    let id = run.run_id.to_string();
    let mut arguments = vec!["replay", &id, "--exec", "--json"];
    if !command.is_empty() {
        arguments.push("--");
        arguments.extend(command);
    }
    let mut replay = runspan(store, &arguments);
    replay.env_remove("OPENAI_API_KEY").env_remove("PYTHONPATH");
    // Who would go elsewhere finds nobody there.
    replay.env("HTTPS_PROXY", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9").env_remove("NO_PROXY");
    let output = ended(replay);
    eprintln!("{}", err(&output));
    report(&output)
}

/// A run that is repeated is the same, asks nobody, and costs nothing, whoever tells of its calls.
fn assert_same(store: &Path, run: &RunSummary, calls: usize) {
    let report = replay(store, run, &[]);
    let found = json!([report["diverged"], report["exit_code"], report["exact"], report["reused"], report["live"]]);
    assert_eq!(found, json!([false, 0, calls, calls, 0]), "{report:#}");
    for again in runs(store).iter().filter(|again| again.started_at > run.completed_at.unwrap()) {
        assert_eq!(again.cost_usd.unwrap_or_default(), NanoUsd(0), "{again:#?}");
        assert_eq!(again.errors, 0, "{again:#?}");
    }
}

/// A changed prompt is told at the steps at which it was sent.
fn assert_told(store: &Path, run: &RunSummary, command: &[&str], expected: &[&str]) {
    let report = replay(store, run, command);
    let calls = report["calls"].as_array().unwrap().iter();
    let told: Vec<String> = calls
        .map(|call| {
            let differs = call["differs"].as_array().unwrap().iter().map(|differs| differs["what"].as_str().unwrap());
            let differs: Vec<&str> = differs.collect();
            // Of steps that tell one call one is named; which number it has depends on who told first.
            let step = call["step_id"].as_str().map_or("-", |step| step.split('-').next().unwrap_or_default());
            format!("{step} {} {}", call["fit"].as_str().unwrap(), differs.join(" "))
        })
        .collect();
    assert_eq!(told, expected, "{report:#}");
    let diff = report["calls"][0]["diff"].as_str().unwrap_or_default();
    assert!(diff.contains(&format!("-{QUESTION}")) && diff.contains(&format!("+{OTHER}")), "{diff}");
    assert_eq!(report["diverged"], true);
}

/// A script of the tests of `exec`, and the same with another question, beside the packages that it needs.
fn scripts(name: &str, modules: Option<&Path>) -> (TestDir, PathBuf, PathBuf) {
    let dir = tempdir();
    let text = std::fs::read_to_string(format!("{}/tests/it/exec/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(text.contains(QUESTION));
    let (one, other) = (dir.path().join(name), dir.path().join(format!("other_{name}")));
    std::fs::write(&one, &text).unwrap();
    std::fs::write(&other, text.replace(QUESTION, OTHER)).unwrap();
    if let Some(modules) = modules {
        std::os::unix::fs::symlink(modules, dir.path().join("node_modules")).unwrap();
    }
    (dir, one, other)
}

#[test]
fn a_program_with_the_openai_client_is_replayed_plain_and_streamed_with_vectors() {
    let Some(python) = program("python") else { return };
    let (_scripts, one, other) = scripts("openai_agent.py", None);
    let python = python.to_str().unwrap();
    // Seen on their way alone; and told by the program as well.
    for options in [&["--no-auto"][..], &[]] {
        let (dir, run, _) = record(options, &[python, one.to_str().unwrap()]);
        assert_same(dir.path(), &run, 5);
        let told =
            ["chat position messages", "chat position messages", "chat exact ", "chat exact ", "embeddings exact "];
        assert_told(dir.path(), &run, &[python, other.to_str().unwrap()], &told);
    }
}

#[test]
fn a_program_with_the_anthropic_client_is_replayed_plain_and_streamed() {
    let Some(python) = program("python") else { return };
    let (_scripts, one, other) = scripts("anthropic_agent.py", None);
    let (dir, python) = (tempdir(), python.to_str().unwrap());
    let address = format!("http://{}", crate::exec::clients::anthropic());
    let command = [python, one.to_str().unwrap()];
    let (run, said) = record_against(dir.path(), "ANTHROPIC_BASE_URL", &address, &["--no-auto"], &command);
    assert_eq!(said, "Snow.\n{'city': 'Bern'}\n");
    assert_same(dir.path(), &run, 2);
    // Both ask the same.
    assert_told(
        dir.path(),
        &run,
        &[python, other.to_str().unwrap()],
        &["chat position messages", "chat position messages"],
    );
}

#[test]
fn an_agent_of_pydantic_ai_is_replayed_also_from_its_own_words_alone() {
    let Some(python) = program("python") else { return };
    let (_scripts, one, other) = scripts("pydantic_agent.py", None);
    let python = python.to_str().unwrap();
    for options in [&[][..], &["--proxy", "off"]] {
        let (dir, run, _) = record(options, &[python, one.to_str().unwrap()]);
        assert_same(dir.path(), &run, 2);
        let told = ["chat position messages", "chat position messages"];
        assert_told(dir.path(), &run, &[python, other.to_str().unwrap()], &told);
    }
}

#[test]
fn an_agent_of_the_vercel_ai_sdk_is_replayed_also_from_its_own_words_alone() {
    let Some(modules) = program("node_modules") else { return };
    let (_scripts, one, other) = scripts("vercel_agent.mjs", Some(&modules));
    for options in [&[][..], &["--proxy", "off"]] {
        let (dir, run, _) = record(options, &["node", one.to_str().unwrap()]);
        assert_same(dir.path(), &run, 2);
        let told = ["chat position messages", "chat position messages"];
        assert_told(dir.path(), &run, &["node", other.to_str().unwrap()], &told);
    }
}

/// What the child does: a rig agent with a tool, recorded by the library.
fn ask_rig() {
    let guard = runspan::init();
    let question = std::env::var("QUESTION").unwrap_or_else(|_| QUESTION.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let make = if std::env::var_os("TALKATIVE").is_some() { talkative_agent } else { weather_agent };
    let agent = make(&std::env::var("OPENAI_BASE_URL").unwrap(), "gpt-4o-mini");
    let answer = runtime.block_on(async { agent.prompt(question.as_str()).await });
    drop(guard);
    println!("{}", answer.unwrap().output());
}

#[test]
fn a_rig_agent_is_replayed_by_its_own_words_and_by_what_was_seen_on_its_way() {
    const TEST: &str = "replay::agents::a_rig_agent_is_replayed_by_its_own_words_and_by_what_was_seen_on_its_way";
    if std::env::var("RUNSPAN_TEST_CHILD").as_deref() == Ok(TEST) {
        return ask_rig();
    }
    let this = std::env::current_exe().unwrap();
    let child = format!("RUNSPAN_TEST_CHILD={TEST}");
    for (options, talkative) in [(&[][..], "TALKATIVE=1"), (&["--proxy", "on"], "QUIET=1")] {
        let this = this.to_str().unwrap();
        let command = ["env", talkative, &child, this, "--exact", TEST, "--nocapture", "--test-threads=1"];
        let (dir, run, _) = record(options, &command);
        assert_same(dir.path(), &run, 2);
        // Its own run has no command; that of the run which started it is meant.
        let own = runs(dir.path()).into_iter().find(|own| own.parent_run_id == Some(run.run_id)).unwrap();
        if talkative == "TALKATIVE=1" {
            let report = replay(dir.path(), &own, &[]);
            assert_eq!((&report["exact"], &report["replay_of"]), (&json!(2), &json!(own.run_id)), "{report:#}");
        }
        let other = format!("QUESTION={OTHER}");
        let mut changed = vec!["env", &other];
        changed.extend(&command[1..]);
        assert_told(dir.path(), &run, &changed, &["chat position messages", "chat position messages"]);
    }
}

#[test]
fn a_client_that_tries_again_after_a_recorded_429_gets_both_answers_again() {
    let Some(python) = program("python") else { return };
    const ASKS: &str = "
import openai
said = openai.OpenAI(api_key='k', max_retries=3).chat.completions.create(model='gpt-4o-mini', messages=[{'role': 'user', 'content': 'Hi'}])
print(said.choices[0].message.content)
";
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let address = crate::exec::proxy::serve(9, move |_, _, stream| {
        if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
            let error = json!({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}});
            let error = error.to_string();
            let head = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 0\r\nContent-Type: application/json\r\n";
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{error}", error.len()).as_bytes()).unwrap();
        } else {
            let message = json!({"role": "assistant", "content": "Hello."});
            let answer = json!({"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}});
            crate::exec::proxy::whole(stream, "Content-Type: application/json\r\n", answer.to_string().as_bytes());
        }
    });
    let dir = tempdir();
    let command = [python.to_str().unwrap(), "-c", ASKS];
    let (run, said) =
        record_against(dir.path(), "OPENAI_BASE_URL", &format!("http://{address}"), &["--no-auto"], &command);
    assert_eq!((said.as_str(), run.llm_calls, run.errors), ("Hello.\n", 3, 2));
    let report = replay(dir.path(), &run, &command);
    assert_eq!((&report["exact"], &report["reused"], &report["diverged"]), (&json!(3), &json!(3), &json!(false)));
}
