//! What is odd in runs of Paracle costs itself, and is said.

use std::os::unix::ffi::OsStrExt;

use super::*;

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn imported(from: &Path, into: &Path) -> Answer {
    runspan(into, &["import", from.to_str().unwrap()])
}

fn run_of(into: &Path, agent: &str) -> serde_json::Value {
    let listed = json(&runspan(into, &["list", "--agent-id", agent, "--json"]));
    listed[0].clone()
}

#[test]
fn a_file_that_cannot_be_taken_costs_itself_and_a_folder_without_metadata_is_named() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = "agents/run_1";
    write(
        from.path(),
        &format!("{run}/metadata.yaml"),
        "agent_id: a\nstarted_at: 2026-01-06T10:00:00Z\nduration_seconds: 1\nstatus: success\n",
    );
    write(from.path(), &format!("{run}/artifacts/plan.md"), "plan");
    write(from.path(), &format!("{run}/steps/one.json"), r#"{"output": 1}"#);
    let dir = from.path().join(run);
    std::os::unix::fs::symlink("/etc/hostname", dir.join("artifacts/link")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.join("steps/two.json")).unwrap();
    std::fs::write(dir.join("artifacts").join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "x").unwrap();
    std::fs::create_dir(from.path().join("agents/run_2")).unwrap();
    let answer = imported(from.path(), into.path());
    let root = from.path().display().to_string();
    insta::assert_snapshot!(
        format!("{} {}{}", answer.code, answer.out, answer.err.replace(&root, "FROM")),
        @r"
    1 1 run stored
    FROM: FROM/agents/run_2 was passed over: it has no metadata.yaml
    FROM: run FROM/agents/run_1: artifacts/link is no plain file, and was left out
    FROM: run FROM/agents/run_1: artifacts/�.txt has a name that is no text, and was left out
    FROM: run FROM/agents/run_1: steps/two.json is no plain file, and was left out
    "
    );
    let run = run_of(into.path(), "a");
    assert_eq!((&run["steps_total"], &run["artifacts"][0]["name"]), (&2.into(), &"plan.md".into()));
}

#[test]
fn numbers_in_quotes_count_what_is_no_count_is_kept_and_an_unknown_status_is_no_success() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(
        from.path(),
        "agents/run_1/metadata.yaml",
        "agent_id: quoted\nstarted_at: 2026-01-06T10:00:00Z\nduration_seconds: 1\nstatus: success\n\
         tokens: {prompt: '12', completion: -3}\n",
    );
    write(
        from.path(),
        "agents/run_2/metadata.yaml",
        "agent_id: strange\nstarted_at: 2026-01-06T10:00:00Z\nduration_seconds: 1\nstatus: half-done\n",
    );
    assert_eq!(imported(from.path(), into.path()).code, 0);
    let quoted = run_of(into.path(), "quoted");
    assert_eq!((&quoted["tokens"]["prompt"], &quoted["tokens"]["completion"]), (&12.into(), &serde_json::Value::Null));
    let events = runspan(into.path(), &["get", quoted["run_id"].as_str().unwrap(), "--events", "--json"]).out;
    assert!(events.contains("paracle.tokens.completion"), "{events}");
    let strange = run_of(into.path(), "strange");
    assert_eq!(
        (&strange["status"], &strange["error"]["message"]),
        (&"error".into(), &"its status was \"half-done\", which is not known".into())
    );
}

#[test]
fn what_is_not_there_is_wrong_use_and_what_is_empty_is_said_to_be() {
    let into = tempfile::tempdir().unwrap();
    let answer = runspan(into.path(), &["import", "nosuch"]);
    assert_eq!((answer.code, answer.err.contains("nosuch: no such file or folder")), (2, true), "{}", answer.err);
    assert!(!into.path().join(".runspan").exists(), "nothing was made");
    let answer = runspan(into.path(), &["import", "/dev/null"]);
    assert_eq!((answer.code, answer.err.as_str()), (1, "/dev/null: there is nothing in it\n"));
}

#[test]
fn a_run_that_was_under_way_when_it_was_imported_is_renewed_once_it_has_ended_and_loses_nothing() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let metadata = |rest: &str| {
        let text = format!("agent_id: a\nstarted_at: 2026-01-06T10:00:00Z\n{rest}");
        write(from.path(), "agents/run_1/metadata.yaml", &text);
    };
    let told = || {
        let run = run_of(into.path(), "a");
        let (status, steps, pinned) = (&run["status"], &run["steps_total"], run["pinned"] == true);
        (format!("{status} {steps} {pinned}"), run["run_id"].as_str().unwrap().to_owned())
    };
    metadata("status: running\n");
    write(from.path(), "agents/run_1/steps/one.json", r#"{"output": 1}"#);
    assert_eq!(imported(from.path(), into.path()).out, "1 run stored\n");
    let (first, id) = told();
    assert_eq!(first, "\"crashed\" 2 false");
    // It has not gone on.
    assert!(!imported(from.path(), into.path()).out.contains("1 run stored"));
    assert_eq!(runspan(into.path(), &["pin", &id]).code, 0);
    metadata("status: success\nduration_seconds: 9\n");
    write(from.path(), "agents/run_1/steps/two.json", r#"{"output": 2}"#);
    write(from.path(), "agents/run_1/artifacts/plan.md", "plan");
    let answer = imported(from.path(), into.path());
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("1 run stored\n", ""));
    assert_eq!(told(), ("\"success\" 3 true".to_owned(), id));
    assert_eq!(runspan(into.path(), &["verify"]).code, 0);
    // One that is over stays as it is.
    metadata("status: failed\n");
    assert!(!imported(from.path(), into.path()).out.contains("1 run stored"));
    assert_eq!(told().0, "\"success\" 3 true");
}
