//! Stores from later versions: what is newer is named and left alone, and what is older or beside it is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runspan::model::RunStatus;
use runspan::recovery;
use runspan::store::{Listed, Query, RunReader};
use tracing::info_span;

use super::support::{agent, child, ended, is_child, open, record_in, runs, signal, tool};

/// Every file below a directory, with its content; not one that goes meanwhile, as what a process leaves of its journal may.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
        entries => entries.unwrap(),
    };
    for entry in entries {
        let path = entry.unwrap().path();
        // A journal that is read to its end, and which another thread takes away.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".gone-")) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
            continue;
        }
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            content => found.push((path, content.unwrap())),
        }
    }
    found.sort();
    found
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

#[test]
fn a_run_of_a_newer_format_is_damaged_by_name_and_left_alone() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| ["old", "new"].into_iter().for_each(|name| agent(name, 1)));
    let newer = runs(dir.path()).into_iter().find(|run| run.name() == "new").unwrap();
    let file = dir.path().join("agents").join(newer.run_id.to_string()).join("run.yaml");
    edit(&file, |text| text.replace("format: 1\n", "format: 2\n"));
    let before = files(dir.path());
    let store = open(dir.path());
    let listed = store.list_runs(&Query::default()).unwrap();
    let damaged = listed.iter().filter_map(|listed| match listed {
        Listed::Damaged(run) => Some((run.run_id, run.error.as_str())),
        Listed::Run(run) => (run.summary.name() != "old").then_some((run.summary.run_id, "not damaged")),
    });
    let damaged: Vec<_> = damaged.collect();
    assert_eq!(damaged, [(newer.run_id, "run.yaml: format 2 is newer than 1: use a newer runspan")]);
    let error = store.get_run(newer.run_id).unwrap_err().to_string();
    assert!(error.contains("format 2 is newer than 1"), "{error}");
    assert_eq!(files(dir.path()), before);

    // Nor is it repaired, and what comes of its trace goes elsewhere; also where it looks otherwise in more than its number.
    for text in [fs::read_to_string(&file).unwrap() + "added: 1\n", "format: 3\nall: new\n".to_owned()] {
        fs::write(&file, &text).unwrap();
        let folder = file.parent().unwrap();
        let before = files(folder);
        let spans = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": newer.trace_id.to_string(), "spanId": format!("{:016x}", text.len()), "name": "chat",
            "startTimeUnixNano": newer.started_at.0.to_string(), "endTimeUnixNano": (newer.started_at.0 + 1_000).to_string(),
            "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
        }]}]}]});
        let late = dir.path().join("late.json");
        fs::write(&late, spans.to_string()).unwrap();
        let runspan = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
            let output = command.args(words).arg("--store").arg(dir.path()).output().unwrap();
            let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            (output.status.code(), text.concat())
        };
        assert_eq!(runspan(&["import", late.to_str().unwrap()]), (Some(0), "1 span stored\n".to_owned()));
        fs::remove_file(&late).unwrap();
        let (code, said) = runspan(&["verify", "--repair", &newer.run_id.to_string()]);
        assert!(code == Some(1) && said.contains("a newer runspan wrote it: let that look at it"), "{said}");
        assert_eq!(files(folder), before);
    }
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| agent("a", 1));
    let known = runs(dir.path()).remove(0);
    let run = dir.path().join("agents").join(known.run_id.to_string());
    edit(&dir.path().join("store.yaml"), |text| text + "added: {by: [a, later, version]}\n");
    edit(&run.join("run.yaml"), |text| text + "added: {by: [a, later, version]}\n");
    edit(&dir.path().join("index.log"), |text| text.replace("\"kind\"", "\"added\":{\"by\":[1]},\"kind\""));
    edit(&run.join("events.jsonl"), |text| {
        let added = text.lines().next().unwrap().replace("run_started", "added").replace("\"seq\":0", "\"seq\":6");
        text.replace("\"type\"", "\"added\":[1],\"type\"") + &added + "\n"
    });
    fs::write(run.join("added.bin"), "unknown").unwrap();
    fs::create_dir(dir.path().join("added")).unwrap();
    let before = files(dir.path());
    let store = open(dir.path());
    assert_eq!(runs(dir.path()), std::slice::from_ref(&known));
    assert_eq!(store.get_run(known.run_id).unwrap().steps_total, 2);
    assert_eq!(store.get_steps(known.run_id).unwrap().len(), 2);
    record_in(dir.path(), |_| {});
    assert_eq!(files(dir.path()), before);
}

/// Records in a process that is killed, and returns the journal that it leaves.
fn killed(test: &str, store: &Path) -> PathBuf {
    ended(child(test, store));
    let mut journals = fs::read_dir(store.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    journals.find(|journal| !journal.join("seen").exists()).unwrap()
}

fn record_and_die(store: &Path) {
    record_in(store, |guard| {
        let run = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "killed");
        let _in_run = run.enter();
        tool("t");
        guard.flush(super::support::WATCHDOG);
        tool("t");
        signal(std::process::id(), libc::SIGKILL);
    });
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone_and_keeps_nobody_else_back() {
    const TEST: &str = "versions::a_journal_of_a_newer_version_is_left_alone_and_keeps_nobody_else_back";
    if let Some(store) = is_child(TEST) {
        return record_and_die(&store);
    }
    let dir = crate::support::tempdir();
    let newer = killed(TEST, dir.path());
    fs::write(newer.join("seen"), "").unwrap();
    let segment = fs::read_dir(&newer)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "seg"))
        .unwrap();
    // The version of the segment's header, and its checksum.
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
    let check = crc32c(&bytes[..76]);
    bytes[76..80].copy_from_slice(&check.to_le_bytes());
    fs::write(&segment, bytes).unwrap();
    let before = files(&newer);
    killed(TEST, dir.path());

    let (store, adopted) = recovery::open(dir.path()).unwrap();
    let error = adopted.unwrap().missing[0].to_string();
    assert!(error.contains("version 2") && error.contains(newer.to_str().unwrap()), "{error}");
    assert_eq!(files(&newer), before);
    let mut all: Vec<_> = store
        .list_runs(&Query::default())
        .unwrap()
        .into_iter()
        .filter_map(|listed| match listed {
            Listed::Run(run) => Some((run.summary.status, run.summary.steps_total)),
            Listed::Damaged(_) => None,
        })
        .collect();
    all.sort_by_key(|run| run.1);
    // Of the newer one what is in the store, of the other one all.
    assert_eq!(all, [(RunStatus::Crashed, 2), (RunStatus::Crashed, 3)]);
    // To record beside it is no trouble.
    assert_eq!(record_in(dir.path(), |_| agent("beside", 1)).stored, 2);
    assert_eq!(files(&newer), before);
}

/// CRC-32C, bit by bit: the format's own, from its specification.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}
