//! `runspan replay ID --exec` with real processes: recorded once against a server, run again with the server gone.

mod agents;
mod as_test;
mod attacks;
mod streams;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use runspan::model::{NanoUsd, RunSummary};
use runspan::store::RunReader;
use serde_json::{Value, json};

use crate::model_server::{ModelServer, Script};
use crate::support::{TestDir, ended, only_run, open, steps, tempdir};

/// Variables that would lead elsewhere.
const ELSEWHERE: &[&str] = &["OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"];

fn runspan(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
    command.args(arguments).env("RUNSPAN_STORE", store).env("NO_PROXY", "*").env("MODE", "recorded");
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An agent that asks for a tool, calls it, and asks again; `PROMPT` and `MODEL` change what it asks.
const AGENT: &str = r#"
import json, os, sys, urllib.request
prompt = os.environ.get("PROMPT", "Which weather is it in Bern?")
tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
def ask(messages, path="/chat/completions", **more):
    body = {"model": os.environ.get("MODEL", "gpt-4o-mini"), "messages": messages, **more}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, json.dumps(body).encode())
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code} {error.read().decode()}")
said = ask(messages, tools=tools)["choices"][0]["message"]
for call in said.get("tool_calls") or []:
    messages += [said, {"role": "tool", "tool_call_id": call["id"], "content": "snow"}]
    said = ask(messages, tools=tools)["choices"][0]["message"]
print(os.environ.get("MODE"), said["content"])
print(sys.stdin.read(), end="")
"#;

/// A store with one recorded run of the agent, its server gone.
fn recorded(more: &[&str]) -> (TestDir, RunSummary, Output) {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let mut arguments = vec!["exec", "--name", "agent"];
    arguments.extend(more);
    arguments.extend(["--", "python3", "-c", AGENT]);
    let mut exec = runspan(dir.path(), &arguments);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let output = ended(exec);
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    let run = only_run(dir.path());
    (dir, run, output)
}

fn replayed(store: &Path, run: &RunSummary, more: &[&str], environment: &[(&str, &str)]) -> Output {
    let id = run.run_id.to_string();
    let mut arguments = vec!["replay", &id, "--exec"];
    arguments.extend(more);
    let mut replay = runspan(store, &arguments);
    replay.env_remove("MODE").envs(environment.iter().copied());
    ended(replay)
}

/// What was said, with ids in words.
fn said(output: &Output, store: &Path, run: &RunSummary) -> String {
    let new = crate::support::runs(store).into_iter().find(|other| other.run_id != run.run_id);
    let text = err(output).replace(&run.run_id.to_string(), "OLD");
    new.map_or(text.clone(), |new| text.replace(&new.run_id.to_string(), "NEW"))
}

/// Reads a report, and holds it against its schema.
fn report(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", out(output), err(output)));
    crate::format::check(&crate::format::schema("replay.schema.json"), "report", [report.clone()]);
    report
}

#[test]
fn a_run_is_repeated_with_the_server_gone_and_costs_nothing() {
    let (dir, run, first) = recorded(&[]);
    let output = replayed(dir.path(), &run, &[], &[]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), out(&first)), "{}", err(&output));
    insta::assert_snapshot!(said(&output, dir.path(), &run), @r"
    runspan: as recorded: 2 model calls, 2 exact, 2 answers reused, nothing spent
    runspan: the new run is NEW · runspan compare OLD NEW
    ");
    let runs = crate::support::runs(dir.path());
    let new = runs.iter().find(|new| new.run_id != run.run_id).unwrap();
    assert_eq!((new.replay_of, run.replay_of), (Some(run.run_id), None));
    assert_eq!((new.cost_usd, new.tokens, new.llm_calls), (Some(NanoUsd(0)), run.tokens, run.llm_calls));
    assert!(run.cost_usd > Some(NanoUsd(0)));
    let contents = |run: &RunSummary| -> Vec<_> {
        steps(dir.path(), run.run_id).into_iter().skip(1).map(|step| (step.input, step.output)).collect()
    };
    assert_eq!(contents(new), contents(&run));
    let listed = open(dir.path()).get_run(new.run_id).unwrap();
    assert_eq!(json!(listed)["replay_of"], json!(run.run_id));
}

#[test]
fn a_changed_prompt_is_reported_at_its_steps() {
    let (dir, run, _) = recorded(&[]);
    let changed = [("PROMPT", "Which weather is it in Rome?"), ("MODEL", "gpt-4o")];
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", AGENT], &changed);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    insta::assert_snapshot!(said(&output, dir.path(), &run), @r"
    ≠ chat  model gpt-4o-mini → gpt-4o, messages, answered as recorded
        ⋯ 1 equal line
         Be brief.
         [user]
        -Which weather is it in Bern?
        +Which weather is it in Rome?
    ≠ chat-2  model gpt-4o-mini → gpt-4o, messages, as at chat, answered as recorded
    runspan: diverged: 2 model calls, 2 at its place and different, 2 answers reused, nothing spent
    runspan: the new run is NEW · runspan compare OLD NEW
    ");
    let output = replayed(dir.path(), &run, &["--json", "--", "python3", "-c", AGENT], &changed);
    let mut report = report(&output);
    report["run_id"] = "NEW".into();
    report["replay_of"] = "OLD".into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
    {
      "run_id": "NEW",
      "replay_of": "OLD",
      "diverged": true,
      "exit_code": 0,
      "exact": 0,
      "position": 2,
      "unmatched": 0,
      "live": 0,
      "reused": 2,
      "spent": {
        "tokens": null,
        "cost_usd": 0,
        "unpriced_steps": 0
      },
      "calls": [
        {
          "step_id": "chat",
          "fit": "position",
          "answered_by": "recording",
          "is_again": false,
          "differs": [
            {
              "what": "model",
              "recorded": "gpt-4o-mini",
              "asked": "gpt-4o"
            },
            {
              "what": "messages"
            }
          ],
          "diff": "⋯1 equal line\n Be brief.\n [user]\n-Which weather is it in Bern?\n+Which weather is it in Rome?",
          "gap": null,
          "redacted": 0
        },
        {
          "step_id": "chat-2",
          "fit": "position",
          "answered_by": "recording",
          "is_again": false,
          "differs": [
            {
              "what": "model",
              "recorded": "gpt-4o-mini",
              "asked": "gpt-4o"
            },
            {
              "what": "messages"
            }
          ],
          "diff": "⋯1 equal line\n Be brief.\n [user]\n-Which weather is it in Bern?\n+Which weather is it in Rome?\n [assistant]\n calls weather {\"city\":\"Bern\"}\n⋯2 equal lines",
          "gap": null,
          "redacted": 0
        }
      ],
      "not_asked": [],
      "refused": []
    }
    "#);
}

/// The agent's second call was not answered when it was recorded.
fn without_its_last_answer() -> (TestDir, RunSummary) {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    // The run ends with the process that records it, once the first call is in the store.
    let kill = r#"
import signal, subprocess, time
while '"output": [' not in subprocess.run([os.environ["RUNSPAN"], "get", "latest", "--json"], capture_output=True, text=True).stdout:
    time.sleep(0.02)
os.kill(os.getppid(), signal.SIGKILL)
for call"#;
    let first = AGENT.replacen("\nfor call", kill, 1);
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", &first]);
    exec.env("OPENAI_BASE_URL", server.base_url()).env("RUNSPAN", env!("CARGO_BIN_EXE_runspan"));
    ended(exec);
    let run = only_run(dir.path());
    (dir, run)
}

#[test]
fn after_the_last_answer_of_a_crashed_run_the_call_fails_and_says_why() {
    let (dir, run) = without_its_last_answer();
    assert_eq!(run.status.as_str(), "crashed");
    let output = replayed(dir.path(), &run, &["--json", "--", "python3", "-c", AGENT], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("400 {\"error\":{\"message\":\"runspan replay: the recording has no such call"),
        "{}",
        err(&output)
    );
    let report = report(&output);
    assert_eq!((&report["exact"], &report["unmatched"], &report["exit_code"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(report["calls"][1]["answered_by"], "nobody");
    // A text that says so, where that is wanted.
    let output = replayed(dir.path(), &run, &["--on-miss", "stub", "--", "python3", "-c", AGENT], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "None [runspan replay: the recording has no such call]\n", "{}", err(&output));
}

#[test]
fn a_replay_is_replayed_as_any_run() {
    let (dir, run, first) = recorded(&[]);
    assert!(replayed(dir.path(), &run, &[], &[]).status.success());
    let new = crate::support::runs(dir.path()).into_iter().find(|new| new.run_id != run.run_id).unwrap();
    let again = replayed(dir.path(), &new, &[], &[]);
    assert_eq!((again.status.code(), out(&again)), (Some(0), out(&first)), "{}", err(&again));
}

#[test]
fn after_the_fork_models_are_asked_with_another_model_and_what_they_cost_is_said() {
    let (dir, run, _) = recorded(&[]);
    let server = ModelServer::start(Script::demo()).unwrap();
    let options = ["--fork-at", "chat", "--model", "gpt-4o", "--json"];
    let output = replayed(dir.path(), &run, &options, &[]);
    // Where models were asked then there is nobody any more.
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let unheard = report(&output);
    assert_eq!((&unheard["live"], &unheard["spent"]["cost_usd"]), (&json!(0), &json!(0)));
    assert_eq!((&unheard["calls"][1]["fit"], &unheard["calls"][1]["answered_by"]), (&json!("live"), &json!("nobody")));
    let mut more = options.to_vec();
    more.extend(["--", "python3", "-c", AGENT]);
    let output = replayed(dir.path(), &run, &more, &[("OPENAI_BASE_URL", &server.base_url())]);
    assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
    let report = report(&output);
    assert_eq!((&report["exact"], &report["live"], &report["diverged"]), (&json!(1), &json!(1), &json!(false)));
    let calls = server.calls();
    assert_eq!(calls.iter().map(|call| call.model.as_str()).collect::<Vec<_>>(), ["gpt-4o"]);
    let spent = &report["spent"];
    assert_eq!(spent["tokens"]["prompt"], json!(calls[0].tokens.input));
    let new = open(dir.path()).get_run(report["run_id"].as_str().unwrap().parse().unwrap()).unwrap();
    assert!(spent["cost_usd"].as_f64() > Some(0.0) && json!(new.cost_usd) == spent["cost_usd"], "{report}");
}

#[test]
fn the_commands_own_code_is_given_when_nothing_diverged() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let agent = format!("{AGENT}\nsys.exit(7)");
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", &agent]);
    exec.env("OPENAI_BASE_URL", server.base_url());
    assert_eq!(ended(exec).status.code(), Some(7));
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &[], &[]);
    assert_eq!(output.status.code(), Some(7), "{}", err(&output));
    assert!(err(&output).contains("as recorded") && err(&output).contains("the command ended with exit code 7"));
}

#[test]
fn what_stood_in_a_file_on_standard_input_is_given_again_and_the_file_is_read_by_the_command_alone() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let input = dir.path().join("input");
    std::fs::write(&input, "from a file\n").unwrap();
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", AGENT]);
    exec.env("OPENAI_BASE_URL", server.base_url()).stdin(std::fs::File::open(&input).unwrap());
    let first = ended(exec);
    assert!(out(&first).ends_with("from a file\n"), "{}", err(&first));
    std::fs::remove_file(&input).unwrap();
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &[], &[]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), out(&first)), "{}", err(&output));
}

#[test]
fn a_run_without_content_is_refused_with_the_reason() {
    let (dir, run, _) = recorded(&["--content", "none"]);
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", AGENT], &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(said(&output, dir.path(), &run), @r"
    error: run OLD cannot be replayed: it has an answer to none of its 2 model calls
      chat: its content was not kept, by policy (content none)
      chat-2: its content was not kept, by policy (content none)
    hint: record with content: runspan exec --content redacted
    ");
    assert_eq!(crate::support::runs(dir.path()).len(), 1);
}

#[test]
fn calls_after_the_fork_are_held_to_a_budget_and_recorded_answers_take_nothing_of_it() {
    let (dir, run, _) = recorded(&[]);
    let server = ModelServer::start(Script::demo()).unwrap();
    let environment = [("OPENAI_BASE_URL", server.base_url())];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let options = |tokens| ["--fork-at", "chat", "--budget-tokens", tokens, "--json", "--", "python3", "-c"];
    let asks_again = format!("{AGENT}\nprint(ask(messages + [{{'role': 'user', 'content': 'And now?'}}]))");
    let within = |tokens| {
        let options = [&options(tokens)[..], &[&asks_again]].concat();
        let output = replayed(dir.path(), &run, &options, &environment);
        (report(&output), err(&output))
    };
    let answered_by = |report: &Value| -> Vec<String> {
        let calls = report["calls"].as_array().unwrap();
        calls.iter().map(|call| call["answered_by"].as_str().unwrap().to_owned()).collect()
    };
    let (told, _) = within("100000");
    assert_eq!(answered_by(&told), ["recording", "model", "model"]);
    let (told, said) = within("1");
    assert_eq!(answered_by(&told), ["recording", "model", "nobody"], "{said}");
    assert!(said.contains("403") && said.contains("warning: over the budget of"), "{said}");
    let new = open(dir.path()).get_run(told["run_id"].as_str().unwrap().parse().unwrap()).unwrap();
    let error = new.error.unwrap();
    assert_eq!((error.kind.as_deref(), error.step_id.as_deref()), (Some("budget_exceeded"), Some("chat-2")));
    assert!(error.message.unwrap().contains("1 call was refused"));
}

#[test]
fn bounds_without_anything_to_hold_are_wrong_use() {
    let output = ended(runspan(tempdir().path(), &["replay", "latest", "--budget-usd", "1"]));
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
}

#[test]
fn a_recording_that_is_not_over_is_said_to_be_unfinished() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), tempdir());
    let agent = format!("{AGENT}\nsys.stdout.flush(); import time; time.sleep(300)");
    let mut exec = runspan(dir.path(), &["exec", "--name", "agent", "--", "python3", "-c", &agent]);
    exec.env("OPENAI_BASE_URL", server.base_url());
    let _exec = crate::support::Killed(exec.spawn().unwrap());
    crate::support::wait_until("both calls are recorded", || {
        dir.path().join("store.yaml").exists() && crate::support::runs(dir.path()).iter().any(|run| run.llm_calls == 2)
    });
    let run = only_run(dir.path());
    let output = replayed(dir.path(), &run, &["--", "python3", "-c", AGENT], &[]);
    let said = err(&output);
    let line = format!("run {} is not over, but running: what it does from now on is not in the recording", run.run_id);
    assert!(said.contains(&line) && said.contains("as recorded"), "{said}");
}
