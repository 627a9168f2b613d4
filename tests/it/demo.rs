//! The binary as its user runs it: the demo, the crash, and what each command answers with.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the binary over a store.
pub fn runspan(store: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
    command.args(args).arg("--store").arg(store).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RUNSPAN_") || name.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

/// Reads what it printed.
pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_demo_records_an_agent_and_a_workflow_of_agents() {
    let dir = crate::support::tempdir();
    let shown = runspan(dir.path(), &["demo"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("agent trip-planner") && text.contains("Try next"), "{text}");

    let runs = json(&runspan(dir.path(), &["list", "--json"]));
    let facts: Vec<String> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            let name = run.get("agent_id").or(run.get("workflow_id")).unwrap();
            format!(
                "{} {name} {} {} {} {}",
                run["kind"], run["status"], run["llm_calls"], run["tool_calls"], run["errors"]
            )
        })
        .collect();
    assert_eq!(facts, [r#""workflow" "release-notes" "success" 4 1 0"#, r#""agent" "trip-planner" "success" 4 3 1"#]);
    // The sum of what the steps say is what the run says.
    for run in runs.as_array().unwrap() {
        let whole = json(&runspan(dir.path(), &["get", run["run_id"].as_str().unwrap(), "--json"]));
        let steps = whole["steps"].as_array().unwrap();
        let sum = |key: &str| steps.iter().filter_map(|step| step["tokens"][key].as_u64()).sum::<u64>();
        assert_eq!(run["tokens"]["prompt"], sum("prompt"));
        assert_eq!(run["tokens"]["completion"], sum("completion"));
        let nanos = |value: &Value| (value.as_f64().unwrap_or(0.0) * 1e9).round() as i64;
        assert_eq!(nanos(&run["cost_usd"]), steps.iter().map(|step| nanos(&step["cost_usd"])).sum::<i64>());
    }
}

#[test]
fn the_crash_demo_leaves_finished_steps_the_open_one_and_the_bill() {
    let dir = crate::support::tempdir();
    let shown = runspan(dir.path(), &["demo", "--crash"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("crashed"), "{text}");
    let run = json(&runspan(dir.path(), &["get", "latest", "--json"]));
    assert_eq!(run["status"], "crashed");
    assert!(run["cost_usd"].as_f64().unwrap() > 0.0);
    let by_status =
        |status: &str| run["steps"].as_array().unwrap().iter().filter(|step| step["status"] == status).count();
    assert!(by_status("success") >= 1, "{run:#}");
    assert_eq!(by_status("crashed"), 2, "the agent and the call it was in: {run:#}");
    assert_eq!(by_status("running"), 0);
}

#[test]
fn commands_answer_with_the_promised_exit_codes() {
    let dir = crate::support::tempdir();
    runspan(dir.path(), &["demo"]);
    let code = |args: &[&str]| runspan(dir.path(), args).status.code();
    assert_eq!(code(&["list"]), Some(0));
    assert_eq!(code(&["get", "latest"]), Some(0));
    assert_eq!(code(&["get", "7ZZZZZZZZZZZ"]), Some(1));
    assert_eq!(code(&["get", "../../etc/passwd"]), Some(2));
    assert_eq!(code(&["get"]), Some(2));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(runspan(&dir.path().join("nowhere"), &["list"]).status.code(), Some(3));
    // Both runs of the demo began in this century: the candidates are named.
    let ambiguous = runspan(dir.path(), &["get", "01"]);
    assert_eq!(ambiguous.status.code(), Some(1));
    let ids = json(&runspan(dir.path(), &["list", "--json"]));
    for run in ids.as_array().unwrap() {
        let id = run["run_id"].as_str().unwrap();
        assert!(String::from_utf8_lossy(&ambiguous.stderr).contains(id), "{id}");
    }
}

#[test]
fn a_demo_that_may_not_record_says_why() {
    let dir = crate::support::tempdir();
    let program = env!("CARGO_BIN_EXE_runspan");
    let store = dir.path().join("store");
    let mut command = Command::new(program);
    command.args(["demo", "--store"]).arg(&store).env("RUNSPAN_DISABLED", "true");
    let shown = command.output().unwrap();
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert_eq!(shown.status.code(), Some(3), "{said}");
    assert!(said.contains("nothing was recorded") && said.contains("RUNSPAN_DISABLED"), "{said}");
}

#[test]
fn own_prices_go_before_the_table_for_what_is_recorded_from_then_on() {
    let dir = crate::support::tempdir();
    let store = dir.path().join("s");
    let lookup = || json(&runspan(&store, &["prices", "lookup", "gpt-4o-mini", "--provider", "openai", "--json"]));
    let listed = lookup();
    let own = dir.path().join("own.json");
    let model =
        r#"{"id":"gpt-4o-mini","match":{"starts_with":"gpt-4o-mini"},"prices":{"input_mtok":100,"output_mtok":200}}"#;
    let text = format!(r#"[{{"id":"openai","name":"OpenAI","api_pattern":"openai","models":[{model}]}}]"#);
    std::fs::write(&own, text).unwrap();
    assert_eq!(runspan(&store, &["prices", "override", own.to_str().unwrap()]).status.code(), Some(0));
    assert_ne!(lookup(), listed);
    runspan(&store, &["demo"]);
    let dear = json(&runspan(&store, &["list", "--json"]));
    assert!(dear[1]["cost_usd"].as_f64().unwrap() > 0.05, "{dear:#}");
    // What is no price list is refused, and nothing changes.
    std::fs::write(&own, "{}").unwrap();
    assert_eq!(runspan(&store, &["prices", "override", own.to_str().unwrap()]).status.code(), Some(2));
    assert_ne!(lookup(), listed);
    assert_eq!(runspan(&store, &["prices", "override", "--remove"]).status.code(), Some(0));
    assert_eq!(lookup(), listed);
}
