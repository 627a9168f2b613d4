//! What the commands say of it, and runs of commands in any language.

use super::super::demo;
use super::super::format::{check, definition};
use super::*;

/// Runs a command that must work, and returns what it printed.
fn runspan(store: &Path, args: &[&str]) -> String {
    let output = demo::runspan(store, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn printed(store: &Path, args: &[&str]) -> Json {
    demo::json(&demo::runspan(store, &[args, &["--json"]].concat()))
}

/// Runs a command; returns its exit code and what it said.
fn told(store: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = demo::runspan(store, args);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_commands_say_what_became_of_it_and_how_a_run_stands_that_cannot_be_asked() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let mut agent = waiting_child(AGENT, &store);
    let id = only_run(&store).run_id.to_string();
    let say = |args: &[&str]| {
        let (code, text) = told(&store, args);
        format!("{} {}", code.unwrap(), text.replace(&id, "ID").lines().next().unwrap())
    };
    assert_eq!(say(&["resume", &id]), "2 error: run ID waits for an answer (approval), and none is given");
    assert_eq!(
        say(&["resume", &id, "--input", "yes"]),
        "2 error: the answer is no JSON: expected value at line 1 column 1"
    );
    assert_eq!(say(&["pause", &id]), "1 error: run ID is not running: it is waiting");
    assert_eq!(
        say(&["resume", &id, "--input", "@none"]),
        "2 error: cannot read the answer from none: No such file or directory (os error 2)"
    );
    assert!(runspan(&store, &["get", &id]).contains("waits     approval {\"refund_usd\":40,\"order\":\"A-1001\"}\n"));
    assert_eq!(printed(&store, &["get", &id])["waiting"]["reason"], "approval");
    let file = dir.path().join("answer.json");
    std::fs::write(&file, "\"yes\"").unwrap();
    assert_eq!(say(&["runs", "resume", &id, "--input", &format!("@{}", file.display())]), "0 ✓ run ID goes on");
    assert!(agent.0.wait().unwrap().success());
    assert_eq!(say(&["resume", &id, "--input", "1"]), "1 error: run ID does not wait: it ended as success");
    assert_eq!(say(&["cancel", &id]), "1 error: run ID is over: it ended as success");
    assert_eq!(say(&["pause", &id]), "1 error: run ID is over: it ended as success");
    assert_eq!(say(&["cancel", "01KE9BZH800000000000000001"]), "1 error: no run \"01KE9BZH800000000000000001\"");
}

#[test]
fn what_they_print_for_programs_is_as_specified() {
    let dir = tempdir();
    let store = dir.path().join("store");
    waiting_child(AGENT, &store).kill();
    let asked = printed(&store, &["resume", "latest", "--input", "{}"]);
    check(&definition("cli.schema.json", "asked"), "asked", [asked.clone()]);
    assert_eq!((&asked["status"], &asked["done"], &asked["heard"]), (&json!("waiting"), &json!(false), &json!(false)));
    let cancelled = printed(&store, &["cancel", "latest"]);
    check(&definition("cli.schema.json", "cancel"), "cancel", [cancelled.clone()]);
    assert_eq!((&cancelled[0]["status"], &cancelled[0]["done"]), (&json!("cancelled"), &json!(true)));
    runspan(&store, &["verify"]);
}

#[test]
fn a_family_is_shown_from_any_of_its_runs() {
    if let Some(store) = is_child("act::commands::a_family_is_shown_from_any_of_its_runs") {
        record_in(&store, |_| Run::agent("elsewhere").start().finish());
        return;
    }
    let dir = tempdir();
    let store = dir.path();
    let mut below = None;
    record_in(store, |_| {
        let run = Run::workflow("report").start();
        let writer = run.spawn_agent("writer").start();
        let call = writer.llm("openai", "gpt-4o-mini");
        call.usage(runspan::Usage::new(1_000_000, 0));
        call.finish();
        let editor = writer.spawn_workflow("editor").start();
        below = editor.id();
        editor.finish();
        writer.finish();
        let mut child = child("act::commands::a_family_is_shown_from_any_of_its_runs", store);
        run.in_scope(|| propagation::to_env(&mut child));
        said(child);
        run.finish();
    });
    let family = printed(store, &["get", &below.unwrap().to_string(), "--tree"]);
    check(&definition("cli.schema.json", "family"), "family", [family.clone()]);
    let rows = family["runs"].as_array().unwrap().iter();
    let rows: Vec<String> = rows.map(|row| format!("{} {} {}", row["depth"], row["name"], row["status"])).collect();
    insta::assert_debug_snapshot!((rows, &family["cost_usd"]), @r#"
    (
        [
            "0 \"report\" \"success\"",
            "1 \"writer\" \"success\"",
            "2 \"editor\" \"success\"",
            "1 \"elsewhere\" \"success\"",
        ],
        Number(0.15),
    )
    "#);
    let text = runspan(store, &["get", "latest", "--tree"]);
    assert!(text.contains("├─ ✓ agent writer") && text.contains("│  └─ ✓ workflow editor"), "{text}");
    assert!(text.contains("└─ ✓ agent elsewhere") && text.contains("4 runs, $0.15"), "{text}");
}

#[test]
fn a_run_that_waits_is_kept_exported_without_its_requests_and_goes_with_them() {
    let dir = tempdir();
    let store = dir.path().join("store");
    waiting_child(AGENT, &store).kill();
    answer(&store, json!("yes")).unwrap();
    let run = only_run(&store);
    runspan(&store, &["cleanup", "--keep", "0"]);
    assert_eq!(only_run(&store).status, RunStatus::Waiting);
    let mut next = child(AGENT, &store);
    said({
        next.env("RUN", run.run_id.to_string());
        next
    });
    let (tar, other) = (dir.path().join("runs.tar"), dir.path().join("other"));
    runspan(&store, &["export", "latest", "--to", tar.to_str().unwrap()]);
    runspan(&other, &["import", tar.to_str().unwrap()]);
    assert_eq!(only_run(&other).status, RunStatus::Success);
    let third = dir.path().join("third");
    runspan(&third, &["import", store.to_str().unwrap()]);
    assert_eq!(only_run(&third).status, RunStatus::Success);
    runspan(&third, &["verify"]);
    runspan(&store, &["cleanup", "--keep", "0"]);
    assert_eq!(std::fs::read_dir(store.join("agents")).unwrap().count(), 0);
}

/// Tells whether a process is stopped. A shell that has just begun a child by `vfork` waits for that one to become another
/// program, and is stopped when it is.
fn is_stopped(pid: &str) -> bool {
    let pid = pid.trim();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()) {
        Some('T') => true,
        Some('D') => {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            children.split_whitespace().any(is_stopped)
        }
        _ => false,
    }
}

/// Tells whether a line stands in a file: a shell makes it before it writes.
fn is_written(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
}

#[test]
fn a_command_in_any_language_is_stopped_goes_on_and_is_ended() {
    let dir = tempdir();
    let (store, ended, number) = (dir.path().join("store"), dir.path().join("ended"), dir.path().join("pid"));
    // The shell has a child that does the work, and hears of it as well.
    let script = format!(
        "trap 'echo asked > {}; exit 3' TERM; echo $$ > {}; while :; do sh -c 'sleep 0.01; true'; done",
        ended.display(),
        number.display()
    );
    let mut exec = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
    exec.args(["exec", "--quiet", "--store"]).arg(&store).args(["--", "sh", "-c", &script]);
    let mut exec = Killed(exec.stdout(Stdio::null()).spawn().unwrap());
    wait_until("it runs", || is_written(&number) && store.join("store.yaml").exists() && runs(&store).len() == 1);
    let pid = std::fs::read_to_string(&number).unwrap();
    let say = |args: &[&str]| told(&store, args).0;
    // The command waits for the run, and not for as long as it may take on a machine that has much to do.
    let is_held = || wait_until("it is held", || is_waiting(&store) && is_stopped(&pid));
    assert_eq!(say(&["pause", "latest"]), Some(0));
    is_held();
    assert_eq!(say(&["pause", "latest"]), Some(1));
    assert_eq!(told(&store, &["resume", "latest", "--input", "1"]).0, Some(2), "there is nothing to answer");
    assert!(runspan(&store, &["get", "latest"]).contains("waits     paused\n"));
    assert_eq!(say(&["resume", "latest"]), Some(0));
    wait_until("it goes on", || !is_waiting(&store) && !is_stopped(&pid));
    // Stopped again, it still hears that it is to end.
    assert_eq!(say(&["pause", "latest"]), Some(0));
    is_held();
    let cancelled = printed(&store, &["cancel", "latest"]);
    assert_eq!(cancelled[0]["heard"], true);
    assert_eq!(exec.0.wait().unwrap().code(), Some(3), "the command's own");
    assert_eq!(std::fs::read_to_string(&ended).unwrap(), "asked\n");
    let run = only_run(&store);
    assert_eq!(run.status, RunStatus::Cancelled);
    let mut log = log(&store, run.run_id);
    log.retain(|line| line != "log");
    let waits = log.iter_mut().filter(|line| line.starts_with("waiting paused {"));
    waits.for_each(|line| line.truncate("waiting paused".len()));
    insta::assert_debug_snapshot!(log, @r#"
    [
        "run_started",
        "step_started",
        "waiting paused",
        "resumed -",
        "waiting paused",
        "resumed -",
        "step_failed",
        "run_completed cancelled",
    ]
    "#);
    runspan(&store, &["verify"]);
}

#[test]
fn a_command_that_is_held_goes_on_when_its_recorder_is_killed() {
    let dir = tempdir();
    let (store, number) = (dir.path().join("store"), dir.path().join("pid"));
    // A shell that waits for its child: both were stopped.
    let script = format!("sleep 60 & echo $! $$ > {}; wait; true", number.display());
    let mut exec = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
    exec.args(["exec", "--quiet", "--store"]).arg(&store).args(["--", "sh", "-c", &script]);
    let mut exec = Killed(exec.stdout(Stdio::null()).spawn().unwrap());
    wait_until("it runs", || is_written(&number) && store.join("store.yaml").exists() && runs(&store).len() == 1);
    let numbers = std::fs::read_to_string(&number).unwrap();
    let processes: Vec<&str> = numbers.split_whitespace().collect();
    assert_eq!(told(&store, &["pause", "latest"]).0, Some(0));
    wait_until("they are held", || is_waiting(&store) && processes.iter().all(|process| is_stopped(process)));
    exec.kill();
    wait_until("they go on", || !processes.iter().any(|process| is_stopped(process)));
    for process in processes {
        signal(process.parse().unwrap(), libc::SIGKILL);
    }
    // Nobody will ever have the run itself go on.
    assert_eq!(only_run(&store).status, RunStatus::Crashed);
}

#[test]
fn a_command_that_ignores_that_it_is_to_end_is_said_to_have_heard_it() {
    let dir = tempdir();
    let (store, number) = (dir.path().join("store"), dir.path().join("pid"));
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done", number.display());
    let mut exec = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
    exec.args(["exec", "--quiet", "--store"]).arg(&store).args(["--", "sh", "-c", &script]);
    let mut exec = Killed(exec.stdout(Stdio::null()).spawn().unwrap());
    wait_until("it runs", || is_written(&number) && store.join("store.yaml").exists() && runs(&store).len() == 1);
    let (code, text) = told(&store, &["cancel", "latest"]);
    let id = only_run(&store).run_id;
    let said = format!("· run {id} is asked to end; its program was told, and has not ended yet\n");
    assert_eq!((code, text), (Some(0), said));
    // A pause beside that is none.
    let (_, text) = told(&store, &["pause", "latest"]);
    assert_eq!(text, format!("· run {id} is asked to end as well, and is not held\n"));
    signal(std::fs::read_to_string(&number).unwrap().trim().parse().unwrap(), libc::SIGKILL);
    exec.0.wait().unwrap();
    assert_eq!(only_run(&store).status, RunStatus::Cancelled);
}

#[test]
fn a_command_that_ends_while_it_is_held_leaves_no_run_that_waits() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let dir = tempdir();
        let (store, number) = (dir.path().join("store"), dir.path().join("pid"));
        let script = format!("echo $$ > {}; exec sleep 60", number.display());
        let mut exec = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
        exec.args(["exec", "--quiet", "--store"]).arg(&store).args(["--", "sh", "-c", &script]);
        let mut exec = Killed(exec.stdout(Stdio::null()).spawn().unwrap());
        wait_until("it runs", || is_written(&number) && store.join("store.yaml").exists() && runs(&store).len() == 1);
        let pid = std::fs::read_to_string(&number).unwrap();
        assert_eq!(told(&store, &["pause", "latest"]).0, Some(0));
        assert!(is_waiting(&store) && is_stopped(&pid));
        // To the recorder, which passes it on, or to the command itself.
        let to = if signal == libc::SIGTERM { exec.0.id().to_string() } else { pid };
        // SAFETY: sends a signal to a process that is ours.
        unsafe { libc::kill(to.trim().parse().unwrap(), signal) };
        assert_eq!(exec.0.wait().unwrap().code(), Some(128 + signal));
        let wanted = if signal == libc::SIGTERM { RunStatus::Cancelled } else { RunStatus::Crashed };
        assert_eq!(only_run(&store).status, wanted);
        runspan(&store, &["verify"]);
    }
}

/// Processes that are not children of the test and end with it.
struct Rest([u32; 2]);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
    }
}

#[test]
fn each_pause_of_nested_commands_lets_go_on_what_it_has_stopped() {
    let dir = tempdir();
    let (store, number) = (dir.path().join("store"), dir.path().join("pid"));
    // No shell that has begun a child which is held itself: such a one waits for it, and counts as none that is stopped.
    let script = format!("echo $$ $PPID > {}; exec sleep 300", number.display());
    let program = env!("CARGO_BIN_EXE_runspan");
    let mut outer = std::process::Command::new(program);
    outer.args(["exec", "--quiet", "--name", "outer", "--store"]).arg(&store).args(["--", program]);
    outer.args(["exec", "--quiet", "--name", "inner", "--", "sh", "-c", &script]);
    let mut outer = Killed(outer.stdout(Stdio::null()).spawn().unwrap());
    wait_until("both run", || is_written(&number) && runs(&store).len() == 2);
    let numbers = std::fs::read_to_string(&number).unwrap();
    let (command, recorder) = numbers.trim().split_once(' ').unwrap();
    let id = |name: &str| runs(&store).into_iter().find(|run| run.name() == name).unwrap().run_id.to_string();
    let stands = |name: &str, status| runs(&store).iter().any(|run| run.name() == name && run.status == status);
    let (above, below) = (id("outer"), id("inner"));
    // Should it fail, nothing of it goes on.
    let _rest = Rest([recorder, command].map(|pid| pid.parse().unwrap()));
    // Held with the one above: as it was, and said to be so.
    runspan(&store, &["pause", &above]);
    wait_until("both are held", || stands("outer", RunStatus::Waiting) && is_stopped(command) && is_stopped(recorder));
    assert!(stands("inner", RunStatus::Running));
    let held = printed(&store, &["get", &below]);
    check(&definition("cli.schema.json", "get"), "get", [held.clone()]);
    assert_eq!(held["held_by"], Json::from(above.as_str()));
    assert_eq!(printed(&store, &["get", &above]).get("held_by"), None);
    assert!(runspan(&store, &["get", &below]).contains(&format!("held      with run {above}, which is paused\n")));
    assert!(runspan(&store, &["list"]).contains("● running, held"));
    assert!(runspan(&store, &["get", &above, "--tree"]).contains(&format!("inner {} held", &below[..12])));
    let (code, said) = told(&store, &["resume", &below]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("run {below} is not paused itself: it is held with run {above}, which is\n")));
    // What is asked of it meanwhile it does when it goes on, and that is its own.
    let (_, said) = told(&store, &["pause", &below]);
    assert!(said.contains("it stays so when that one goes on"), "{said}");
    runspan(&store, &["resume", &above]);
    wait_until("its own pause holds", || stands("inner", RunStatus::Waiting) && !is_stopped(recorder));
    assert!(stands("outer", RunStatus::Running) && is_stopped(command));
    // Both at once: who resumes the one above resumes that.
    runspan(&store, &["pause", &above]);
    wait_until("both are held", || stands("outer", RunStatus::Waiting) && is_stopped(recorder));
    runspan(&store, &["resume", &above]);
    wait_until("the one above goes on", || stands("outer", RunStatus::Running) && !is_stopped(recorder));
    assert!(stands("inner", RunStatus::Waiting) && is_stopped(command), "its own pause holds");
    runspan(&store, &["resume", &below]);
    wait_until("it goes on", || stands("inner", RunStatus::Running) && !is_stopped(command));
    // Both hear that they are to end, whichever of them was held.
    runspan(&store, &["pause", &below]);
    wait_until("it is held", || stands("inner", RunStatus::Waiting) && is_stopped(command));
    runspan(&store, &["cancel", &above]);
    assert_eq!(outer.0.wait().unwrap().code(), Some(143));
    assert!(runs(&store).iter().all(|run| run.status == RunStatus::Cancelled), "{:#?}", runs(&store));
    runspan(&store, &["verify"]);
}
