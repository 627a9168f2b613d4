//! The test that `--as-test` writes, in a package of its own that depends on this library.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{err, out, recorded, runspan};
use crate::support::{ended, only_run, tempdir};

/// Makes a package that depends on this library and nothing else.
fn package(dir: &Path) {
    let here = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"agent\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nrunspan = {{ path = {here:?} }}\n\n\
         [profile.dev.package.\"*\"]\nopt-level = 1\ndebug = false\n\n[profile.dev.package.runspan]\nopt-level = 0\n\n[workspace]\n"
    );
    std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(format!("{here}/Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    std::fs::create_dir(dir.join("src")).unwrap();
    std::fs::write(dir.join("src/lib.rs"), "").unwrap();
}

/// Runs its tests, with what was built for ours where that fits.
fn cargo_test(dir: &Path) -> Output {
    let this = std::env::current_exe().unwrap();
    let target = this.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--offline", "--quiet", "--tests"]).current_dir(dir).env("CARGO_TARGET_DIR", target);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUNSPAN_STORE"] {
        cargo.env_remove(name);
    }
    cargo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Not held to the time of other children: it may have to build the library.
    cargo.output().unwrap()
}

#[test]
fn a_run_becomes_a_test_that_passes_and_fails_at_the_step_that_changes() {
    let (store, run, _) = recorded(&[]);
    let dir = tempdir();
    package(dir.path());
    let id = run.run_id.to_string();
    let written = |store: &Path, id: &str| {
        let mut replay = runspan(store, &["replay", id, "--as-test"]);
        replay.current_dir(dir.path());
        ended(replay)
    };
    let output = written(store.path(), &id);
    assert!(output.status.success(), "{}", err(&output));
    assert!(
        out(&output).ends_with("tests/replay_agent.rs\n") || out(&output).contains("replay_agent.rs"),
        "{}",
        out(&output)
    );
    let test = dir.path().join("tests/replay_agent.rs");
    let source = std::fs::read_to_string(&test).unwrap();
    insta::assert_snapshot!(source.replace(&id, "ID"), @r#"
    //! What run ID was asked and answered. Made by `runspan replay ID --as-test`.
    //!
    //! `agent` does what the recorded run did. Put your own in its place: where it would ask a model it asks `replay.ask`,
    //! and `replay.tool` where it would call a tool. The test fails when it asks for something else, and names the step.

    use runspan::replay::{NotAnswered, Recording, Replay, Request, json};

    fn agent(replay: &Replay) -> Result<(), NotAnswered> {
        // chat
        let asked_1 = Request::chat("gpt-4o-mini")
            .system("Be brief.")
            .user("Which weather is it in Bern?");
        let answer = replay.ask(&asked_1)?;
        assert_eq!(answer.tool_calls().map(|tool| tool.name).collect::<Vec<_>>(), ["weather"]);
        // chat-2
        let asked_2 = asked_1
            .clone()
            .assistant_called("weather", json!({"city": "Bern"}))
            .tool_result(json!("snow"));
        let answer = replay.ask(&asked_2)?;
        assert_eq!(answer.text(), "This is what I found: snow");
        Ok(())
    }

    #[test]
    fn agent_is_as_recorded() {
        let recording = Recording::parse(include_str!("replay_agent.jsonl")).expect("the recording beside this file");
        let replay = recording.replay();
        agent(&replay).expect("an answer to each call");
        let report = replay.report();
        assert!(!report.is_diverged(), "{report}");
    }
    "#);
    let log = std::fs::read_to_string(dir.path().join("tests/replay_agent.jsonl")).unwrap();
    assert!(!log.contains("runspan.environment") && !log.contains("process."), "only what was asked and answered");
    // What is there is not written over.
    let again = written(store.path(), &id);
    assert!(!again.status.success() && err(&again).contains("it is left as it is"), "{}", err(&again));
    // A run of the library, with tools, by hand.
    let by_hand = tempdir();
    record_by_hand(by_hand.path());
    let run = only_run(by_hand.path());
    let output = written(by_hand.path(), &run.run_id.to_string());
    assert!(output.status.success(), "{}", err(&output));
    let passes = cargo_test(dir.path());
    assert!(passes.status.success(), "{source}\n{}{}", out(&passes), err(&passes));
    std::fs::write(&test, source.replacen("Bern?", "Rome?", 1)).unwrap();
    let fails = cargo_test(dir.path());
    let said = out(&fails);
    assert!(
        !fails.status.success() && said.contains("diverged") && said.contains("chat: messages"),
        "{said}{}",
        err(&fails)
    );
}

#[test]
fn calls_of_a_run_below_stand_where_they_began_whatever_their_steps_are_called() {
    let (store, dir) = (tempdir(), tempdir());
    crate::support::record_in(store.path(), |_| {
        use runspan::Run;
        let run = Run::agent("outer").start();
        let search = |at: &runspan::Step, city: &str| {
            let tool = at.tool("search");
            tool.input(serde_json::json!({ "city": city })).output("snow");
            tool.finish();
        };
        search(&run, "Bern");
        run.in_scope(|| {
            let below = Run::agent("inner").start();
            let call = below.llm("openai", "gpt-4o-mini");
            call.input("Where?").output("In Rome");
            call.finish();
            search(&below, "Rome");
            below.finish();
        });
        run.finish();
    });
    let outer = crate::support::runs(store.path()).into_iter().find(|run| run.name() == "outer").unwrap();
    let mut replay = runspan(store.path(), &["replay", &outer.run_id.to_string(), "--as-test", "made.rs"]);
    replay.current_dir(dir.path());
    let output = ended(replay);
    assert!(output.status.success(), "{}", err(&output));
    let source = std::fs::read_to_string(dir.path().join("made.rs")).unwrap();
    let asked =
        source.lines().map(str::trim).filter(|line| line.contains("replay.tool(") || line.contains("replay.ask("));
    insta::assert_snapshot!(asked.collect::<Vec<_>>().join("\n"), @r#"
    assert_eq!(replay.tool("search", &json!({"city": "Bern"}))?, json!("snow"));
    let answer = replay.ask(&asked_1)?;
    assert_eq!(replay.tool("search", &json!({"city": "Rome"}))?, json!("snow"));
    "#);
}

/// Records a run that says what a source text has to be careful of.
fn record_by_hand(store: &Path) {
    use runspan::{Run, Usage};
    crate::support::record_in(store, |_| {
        let run = Run::agent("3 by hand").start();
        let hostile = "\"#; */ // {} \\ \u{0}\u{7f}\u{202e}\u{2028}\u{feff} 日本 e\u{301} 👩‍👩‍👧 \r\n\t'\"";
        let call = run.llm("openai", hostile);
        call.input(hostile).output(hostile);
        call.finish();
        let tool = run.tool(hostile);
        let list: Vec<u64> = (0..300).collect();
        let deep = (0..40).fold(serde_json::json!(1), |inner, _| serde_json::json!({ "in": inner }));
        let numbers = serde_json::json!({"at": 1_764_300_000_000_u64, "most": u64::MAX, "least": i64::MIN, "f": 1e300});
        tool.input(numbers.clone()).output(serde_json::json!({"list": list, "deep": deep, hostile: hostile}));
        tool.finish();
        let tool = run.tool("numbers");
        tool.input(hostile).output(numbers);
        tool.finish();
        let call = run.llm("openai", "gpt-4o-mini");
        call.input("And now?");
        call.fail(&std::io::Error::other(hostile));
        let call = run.llm("openai", "gpt-4o-mini");
        call.input("Weather?\n\"Now\"").output("Let me look {}").usage(Usage::new(12, 3));
        call.finish();
        let tool = run.tool("get_weather");
        tool.input(serde_json::json!({"city": "Bern", "days": [1, 2.5]})).output(serde_json::json!({"sky": "snow"}));
        tool.finish();
        let tool = run.tool("get_weather");
        tool.input(serde_json::json!({"city": "?"}));
        tool.fail(&std::io::Error::other("no such city"));
        run.finish();
    });
}
