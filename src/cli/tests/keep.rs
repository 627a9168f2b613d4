//! What is kept, checked and removed: verify, cleanup, pins, sealed logs, artifacts.

use super::*;

#[test]
fn verify_tells_by_its_code_whether_anything_is_damaged_and_names_the_record() {
    let mut store = Store::new();
    let (good, bad) = (store.record_agent(1), store.record_agent(2));
    // Its process has ended, and nobody writes in the store.
    drop(store._lock);
    store.writer.release_run(good);
    store.writer.release_run(bad);
    let cwd = store.dir.path();
    let whole = runspan(cwd, &["verify"]);
    assert_eq!((whole.code, whole.err.as_str()), (0, ""), "{}", whole.out);
    let whole = json(&runspan(cwd, &["verify", "--json"]));
    assert_eq!((&whole["ok"], &whole["runs"], &whole["problems"]), (&true.into(), &2.into(), &serde_json::json!([])));
    assert_eq!(runspan(cwd, &["verify", "--checkpoint-to", "/no/such/folder/c"]).code, 3);
    let checkpoint = cwd.join("c.jsonl").display().to_string();
    assert_eq!(runspan(cwd, &["verify", "--checkpoint-to", &checkpoint]).code, 0);
    assert_eq!(runspan(cwd, &["verify", "--checkpoint-to", &checkpoint]).code, 3, "never over another");
    assert_eq!(runspan(cwd, &["verify", "--against", &checkpoint]).code, 0);
    let path = cwd.join(format!(".runspan/agents/{bad}/events.jsonl"));
    assert_eq!(runspan(cwd, &["verify", "--against", path.to_str().unwrap()]).code, 2);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"seq\":3", "\"seq\":4", 1)).unwrap();
    let damaged = runspan(cwd, &["verify"]);
    assert_eq!((damaged.code, damaged.err.as_str()), (1, "error: 1 of 2 runs is damaged\n"));
    let (told, _) = damaged.out.split_once("\n!").unwrap();
    assert_eq!(
        format!("{told}\n"),
        format!(
            "✗ agents/{bad}/events.jsonl line 4\n  seq 4 where 3 should be\n  the lines before it can be read; restore the file \
             from a copy if there is one\n"
        )
    );
    assert_eq!(runspan(cwd, &["verify", &good.to_string()]).code, 0);
    assert_eq!(runspan(cwd, &["verify", &bad.to_string(), "--repair"]).code, 1);
    let damaged = runspan(cwd, &["verify", "--json"]);
    let damaged: serde_json::Value = serde_json::from_str(&damaged.out).unwrap();
    let problem = &damaged["problems"][0];
    assert_eq!((&problem["run_id"], &problem["line"]), (&bad.to_string().into(), &4.into()));
    std::fs::write(cwd.join(".runspan/store.yaml"), "format: [").unwrap();
    assert_eq!(runspan(cwd, &["verify"]).code, 3);
}

#[test]
fn cleanup_says_what_it_would_remove_then_removes_it_and_spares_what_is_pinned() {
    let mut store = Store::new();
    let runs: Vec<RunId> = (1..=4).map(|last| store.record_agent(last)).collect();
    runs.iter().for_each(|run| store.writer.release_run(*run));
    drop(store._lock);
    let cwd = store.dir.path();
    let ids = |answer: &Answer| {
        let removed = json(answer)["removed"].as_array().unwrap().clone();
        removed.iter().map(|run| run["run_id"].as_str().unwrap().parse().unwrap()).collect::<Vec<RunId>>()
    };
    assert_eq!(runspan(cwd, &["cleanup", "--json"]).code, 0, "all of it is far below the bound");
    assert_eq!(runspan(cwd, &["pin", &runs[1].to_string()]).out, format!("{} is pinned\n", runs[1]));
    assert_eq!(runspan(cwd, &["pin", &runs[1].to_string()]).out, format!("{} is already pinned\n", runs[1]));
    let wanted = ["cleanup", "--keep", "1", "--dry-run", "--json"];
    assert_eq!(ids(&runspan(cwd, &wanted)), [runs[0], runs[2]]);
    assert_eq!(json(&runspan(cwd, &["list", "--json"])).as_array().unwrap().len(), 4);
    let table = runspan(cwd, &["cleanup", "--keep", "1"]);
    let kib = table.out.lines().next().unwrap().find("SIZE").unwrap();
    let told: Vec<String> =
        table.out.lines().map(|line| line.get(..kib - 4).unwrap_or(line).trim_end().to_owned()).collect();
    assert_eq!(told[1], format!("{}  code\\u{{1b}}[31m-reviewer  2026-01-06 10:00:00 UTC", runs[0]));
    assert!(table.out.contains("✓ 2 runs removed ("), "{}", table.out);
    let listed = json(&runspan(cwd, &["list", "--json"]));
    let left: Vec<&str> = listed.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap()).collect();
    assert_eq!(left, [runs[3].to_string(), runs[1].to_string()]);
    assert_eq!((&listed[0]["pinned"], &listed[1]["pinned"]), (&serde_json::Value::Null, &true.into()));
    assert!(runspan(cwd, &["verify"]).code == 0);
    runspan(cwd, &["unpin", &runs[1].to_string()]);
    assert_eq!(
        ids(&runspan(cwd, &["cleanup", "--older-than", "1h", "--max-bytes", "0", "--json"])),
        [runs[1], runs[3]]
    );
    // What to remove is not guessed.
    for wrong in [&["--keep", "-1"][..], &["--older-than", "soon"], &["--max-bytes", "much"], &["--mode", "tiny"]] {
        assert_eq!(runspan(cwd, &[&["cleanup"], wrong].concat()).code, 2, "{wrong:?}");
    }
    let store_file = cwd.join(".runspan/store.yaml");
    let text = std::fs::read_to_string(&store_file).unwrap();
    std::fs::write(&store_file, text + "retention: {keep: few}\n").unwrap();
    let answer = runspan(cwd, &["cleanup"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("retention.keep: \"few\" is no number of runs"), "{}", answer.err);
}

#[test]
fn a_sealed_run_is_shown_followed_and_checked_as_before() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    store.writer.release_run(run);
    drop(store._lock);
    let (cwd, id) = (store.dir.path(), run.to_string());
    let dir = cwd.join(format!(".runspan/agents/{run}"));
    let shown = |cwd: &Path| {
        let commands: [&[&str]; 6] = [
            &["get", &id, "--json"],
            &["get", &id, "--events", "--json"],
            &["get", &id],
            &["tail", &id, "--json"],
            &["list", "--json"],
            &["reindex"],
        ];
        commands.map(|command| {
            let answer = runspan(cwd, command);
            let out = if command == ["reindex"] { answer.out[..5].to_owned() } else { without_age(&answer.out) };
            (answer.code, out)
        })
    };
    let before = shown(cwd);
    let answer = json(&runspan(cwd, &["cleanup", "--seal-from", "1B", "--json"]));
    assert_eq!((&answer["sealed"], &answer["removed"]), (&1.into(), &serde_json::json!([])));
    assert!(!dir.join("events.jsonl").exists());
    assert_eq!(shown(cwd), before);
    assert_eq!(runspan(cwd, &["verify"]).code, 0);
    let sealed = dir.join("events.jsonl.zst");
    let good = std::fs::read(&sealed).unwrap();
    // But for one bit of the fifth byte, which no decoder looks at.
    for at in [0, 5, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&sealed, bytes).unwrap();
        let damaged = runspan(cwd, &["verify", "--json"]);
        let damaged: serde_json::Value = serde_json::from_str(&damaged.out).unwrap();
        let file = &damaged["problems"][0]["file"];
        assert_eq!(
            (&damaged["damaged"], file.as_str()),
            (&1.into(), Some(&*format!("agents/{run}/events.jsonl.zst"))),
            "{at}"
        );
    }
}

impl Store {
    /// Lets a run tell of files, and puts those with content beside it.
    fn add_artifacts(&mut self, run: RunId, files: &[(&str, Option<&[u8]>)]) {
        use runspan::model::run::{ArtifactContent, ArtifactInfo};
        use sha2::{Digest, Sha256};
        let mut events = self.writer.take_up(run).unwrap().unwrap();
        let before = events.len();
        std::fs::create_dir_all(self.run_dir(run).join("artifacts")).unwrap();
        for (name, content) in files {
            let bytes = content.unwrap_or_default();
            let info = ArtifactInfo {
                name: (*name).to_owned(),
                media_type: Some("text/plain".to_owned()),
                bytes: bytes.len() as u64,
                sha256: runspan::model::hex(&Sha256::digest(bytes)),
                content: content.is_none().then_some(ArtifactContent::Nothing),
            };
            let seq = events.len() as u64;
            let event_id = EventId::from_parts(START_MS, [0x77, seq as u8, 0, 0, 0, 0, 0, 0, 0, 1]);
            let (parent_event_id, timestamp) = (None, UnixNanos::from_millis(START_MS));
            let body = EventBody::Artifact(info);
            events.push(Event { seq, event_id, parent_event_id, timestamp, step_id: None, body });
            if let Some(content) = content.filter(|_| !name.contains('/')) {
                std::fs::write(self.run_dir(run).join("artifacts").join(name), content).unwrap();
            }
        }
        self.writer.append_events(run, &events[before..]).unwrap();
        let summary = RunState::read(run, &events).summary(UnixNanos::from_millis(START_MS + 10_000));
        self.writer.update_run(&summary).unwrap();
        self.writer.release_run(run);
    }
}

#[test]
fn artifacts_are_listed_and_written_out_into_the_place_named_and_nowhere_else() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    store.add_artifacts(
        run,
        &[
            ("report.md", Some(b"hello")),
            ("secret.txt", None),
            ("../../outside.txt", Some(b"gotcha")),
            ("gone.txt", Some(b"was here")),
            ("b\u{1b}[2J.txt", Some(b"b")),
        ],
    );
    let dir = store.run_dir(run).join("artifacts");
    std::fs::remove_file(dir.join("gone.txt")).unwrap();
    // What a hostile name would lead to.
    std::fs::write(store.run_dir(run).join("../outside.txt"), "gotcha").unwrap();
    let (cwd, id) = (store.path().to_owned(), run.to_string());
    let table = runspan_at(200, &cwd, &["artifacts", &id]).out;
    insta::assert_snapshot!(table, @r"
    NAME               TYPE        SIZE  STORED              SHA-256
    report.md          text/plain   5 B  as given            2cf24dba5fb0a30e
    secret.txt         text/plain   0 B  not kept by policy  e3b0c44298fc1c14
    ../../outside.txt  text/plain   6 B  not here            fea57792e4dcc2fc
    gone.txt           text/plain   8 B  not here            bb7e51c6d02be309
    b\u{1b}[2J.txt     text/plain   1 B  as given            3e23e8160039594a
    ");
    let listed = json(&runspan(&cwd, &["artifacts", &id, "--json"]));
    let forms: Vec<&str> = listed.as_array().unwrap().iter().map(|file| file["stored"].as_str().unwrap()).collect();
    assert_eq!(forms, ["plain", "none", "missing", "missing", "plain"]);
    let extract = |more: &[&str]| runspan(&cwd, &[&["artifacts", &id, "--to", "out"], more].concat());
    assert_eq!(extract(&["--extract", "report.md"]).code, 0);
    assert_eq!(std::fs::read_to_string(cwd.join("out/report.md")).unwrap(), "hello");
    std::fs::write(cwd.join("out/report.md"), "mine").unwrap();
    let refused = extract(&["--extract", "report.md"]);
    assert_eq!((refused.code, refused.err.contains("is there already")), (2, true), "{}", refused.err);
    assert_eq!(std::fs::read_to_string(cwd.join("out/report.md")).unwrap(), "mine");
    // A link in the place of the file is replaced, and what it points to is not.
    std::fs::remove_file(cwd.join("out/report.md")).unwrap();
    std::fs::write(cwd.join("target"), "target").unwrap();
    std::os::unix::fs::symlink(cwd.join("target"), cwd.join("out/report.md")).unwrap();
    assert_eq!(extract(&["--extract", "report.md", "--force"]).code, 0);
    assert_eq!(std::fs::read_to_string(cwd.join("target")).unwrap(), "target");
    assert_eq!(std::fs::read_to_string(cwd.join("out/report.md")).unwrap(), "hello");
    for (name, why) in [
        ("secret.txt", "content policy kept nothing of it"),
        ("gone.txt", "it is not in the store"),
        ("../../outside.txt", "it is not in the store"),
        ("other.txt", "the run has no such file"),
    ] {
        let refused = extract(&["--extract", name]);
        assert_eq!((refused.code, refused.err.contains(why)), (1, true), "{name}: {}", refused.err);
    }
    let all = runspan(&cwd, &["artifacts", &id, "--extract", "all", "--to", "every"]);
    assert_eq!((all.code, all.out.lines().count()), (1, 2), "{}", all.out);
    insta::assert_snapshot!(all.err.replace(&id, "RUN"), @r#"
    secret.txt: content policy kept nothing of it
    error: ../../outside.txt: it is not in the store
      gone.txt: it is not in the store
    hint: runspan artifacts RUN shows what there is
    "#);
    let mut names: Vec<String> = std::fs::read_dir(cwd.join("every"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["b\u{1b}[2J.txt", "report.md"]);
    // What is not what the run says is not given out.
    std::fs::write(dir.join("report.md"), "jello").unwrap();
    let damaged = extract(&["--extract", "report.md", "--force"]);
    assert_eq!((damaged.code, damaged.err.contains("is damaged")), (1, true), "{}", damaged.err);
    assert_eq!(std::fs::read_to_string(cwd.join("out/report.md")).unwrap(), "hello");
    assert_eq!(std::fs::read_dir(cwd.join("out")).unwrap().count(), 1);
}

#[test]
fn a_large_file_that_was_kept_as_it_is_is_compressed_by_cleanup_and_comes_out_as_it_was() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let large = "all work and no play\n".repeat(600_000);
    store.add_artifacts(run, &[("large.txt", Some(large.as_bytes())), ("small.txt", Some(b"small"))]);
    drop(store._lock);
    let (cwd, id) = (store.dir.path(), run.to_string());
    let dry = json(&runspan(cwd, &["cleanup", "--dry-run", "--json"]));
    let told = runspan(cwd, &["cleanup", "--dry-run"]).out;
    assert!(told.contains("artifacts/large.txt") && told.contains("1 file would be sealed (12.0 MiB, then "), "{told}");
    let cleaned = json(&runspan(cwd, &["cleanup", "--json"]));
    assert_eq!((&cleaned["sealed"], &dry["sealed_to_bytes"]), (&1.into(), &cleaned["sealed_to_bytes"]));
    assert_eq!(dry["sealed_files"], cleaned["sealed_files"]);
    let dir = cwd.join(format!(".runspan/agents/{run}/artifacts"));
    assert!(!dir.join("large.txt").exists() && dir.join("large.txt.zst").exists() && dir.join("small.txt").exists());
    let listed = json(&runspan(cwd, &["artifacts", &id, "--json"]));
    assert_eq!((&listed[0]["stored"], &listed[1]["stored"]), (&"compressed".into(), &"plain".into()));
    assert!(listed[0]["stored_bytes"].as_u64().unwrap() < 100_000);
    assert_eq!(runspan(cwd, &["artifacts", &id, "--extract", "large.txt", "--to", "out"]).code, 0);
    assert!(std::fs::read_to_string(cwd.join("out/large.txt")).unwrap() == large);
    assert_eq!(runspan(cwd, &["verify"]).code, 0);
    let mut bytes = std::fs::read(dir.join("large.txt.zst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(dir.join("large.txt.zst"), bytes).unwrap();
    assert_eq!(runspan(cwd, &["verify"]).code, 1);
    assert_eq!(runspan(cwd, &["artifacts", &id, "--extract", "all", "--to", "other"]).code, 1);
    assert_eq!(std::fs::read_dir(cwd.join("other")).unwrap().count(), 0);
}
