//! What is watched while other processes record it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value as Json;

use super::demo::{json, runspan};
use super::support::{WATCHDOG, tempdir};

/// A command that goes on until it is dropped, and the lines that it prints.
struct Watcher {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watcher {
    fn start(store: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(args).arg("--store").arg(store).env("NO_COLOR", "1").stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(WATCHDOG).expect("another line")
    }

    /// Returns what the next lines say of a run, until it is over.
    fn until_over(&self) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let run: Json = serde_json::from_str(&self.line()).unwrap();
            let name = run.get("agent_id").or(run.get("workflow_id")).and_then(Json::as_str).unwrap();
            seen.push(format!("{name} {}", run["status"].as_str().unwrap()));
            if run["status"] != "running" {
                return seen;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tail_of_a_store_tells_each_change_of_each_run_of_other_processes() {
    let dir = tempdir();
    let store = dir.path().join("store");
    // It waits for the store, too.
    let tail = Watcher::start(&store, &["tail", "--json"]);
    let demo = runspan(&store, &["demo"]);
    assert!(demo.status.success());
    assert_eq!(tail.until_over(), ["trip-planner running", "trip-planner success"]);
    assert_eq!(tail.until_over(), ["release-notes running", "release-notes success"]);
    runspan(&store, &["demo", "--crash"]);
    assert_eq!(tail.until_over(), ["trip-planner running", "trip-planner crashed"]);
    // Of what is over by now a new one tells nothing.
    let late = Watcher::start(&store, &["tail"]);
    runspan(&store, &["demo"]);
    let lines: Vec<String> = (0..4).map(|_| late.line()).collect();
    let said: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().skip(1).collect()).collect();
    assert_eq!(said.iter().map(|words| words[1]).collect::<Vec<_>>(), ["running", "success", "running", "success"]);
}

#[test]
fn what_is_recorded_is_found_by_the_next_search_and_counted_by_the_next_sum() {
    let dir = tempdir();
    for runs in 1..3 {
        assert!(runspan(dir.path(), &["demo"]).status.success());
        let found = json(&runspan(dir.path(), &["search", "\"weather station\" result:rain* OR changelog", "--json"]));
        super::format::check(&super::format::definition("cli.schema.json", "search"), "search", [found.clone()]);
        let stats = json(&runspan(dir.path(), &["stats", "--json"]));
        assert_eq!(stats["total"]["runs"], runs * 2);
        assert!(!found.as_array().unwrap().is_empty(), "{found}");
    }
}
