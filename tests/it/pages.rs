//! Pages that are given out, in a real browser: headless Chromium draws what hostile programs have said.
//!
//! Only with `RUNSPAN_INTEROP=1`; a browser that is missing is then a failure.

use std::path::Path;
use std::process::{Command, Stdio};

use runspan::{Run, Usage};
use serde_json::json;

use super::interop::program;
use super::support::{ended, only_run, record_in};

/// What would change the title if any of it were taken for markup or script.
const HOSTILE: &str = "</pre></script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\
    <svg onload=document.title='owned'><style>body{display:none}</style>\u{0}\u{1b}[31m\u{202e}txt.exe\u{2066} &lt;b&gt;";

fn record(store: &Path) {
    record_asked(store, HOSTILE);
}

fn record_asked(store: &Path, question: &str) {
    record_in(store, |_| {
        let run = Run::agent(format!("agent {HOSTILE}")).session(HOSTILE).tag(HOSTILE).input(question).start();
        let call = run.llm("openai", HOSTILE);
        call.system_prompt(HOSTILE).input(json!([{"role": HOSTILE, "parts": [
            {"type": "text", "content": HOSTILE}, {"type": "reasoning", "content": HOSTILE},
            {"type": "tool_call", "name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}, {"type": HOSTILE}]}]));
        call.output(HOSTILE).usage(Usage::new(10, 5));
        call.finish();
        let tool = run.tool(HOSTILE);
        tool.input(json!({HOSTILE: HOSTILE}));
        tool.fail(&std::io::Error::other(HOSTILE));
        run.output(HOSTILE);
        run.finish();
    });
}

/// Has the browser do something with a file; what it says.
fn browse(browser: &Path, dir: &Path, page: &Path, asked: &[String]) -> String {
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,1600",
        "--virtual-time-budget=2000",
    ]);
    command.arg(format!("--user-data-dir={}", dir.join("browser").display()));
    command.args(asked).arg(format!("file://{}", page.display()));
    // Where it runs as a service of the desktop it would leave files in the home.
    command.env("HOME", dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = ended(command);
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn assert_nothing_was_made_of_it(drawn: &str) {
    for made in ["<script", "<img", "<svg", "owned</title>", "\u{202e}", "\u{1b}"] {
        assert!(!drawn.contains(made), "{made:?}: {drawn}");
    }
}

/// A blank page of that size has a few KB as a picture.
fn assert_is_drawn(browser: &Path, dir: &Path, page: &Path, least: usize) {
    let image = dir.join("page.png");
    browse(browser, dir, page, &[format!("--screenshot={}", image.display())]);
    let drawn = std::fs::read(&image).unwrap();
    assert!(drawn.starts_with(b"\x89PNG") && drawn.len() > least, "{} bytes", drawn.len());
}

#[test]
fn a_browser_shows_what_hostile_programs_said_and_does_none_of_it() {
    let Some(browser) = program("chromium") else { return };
    let dir = crate::support::tempdir();
    let store = dir.path().join("store");
    record(&store);
    let run = only_run(&store).run_id.to_string();
    let page = dir.path().join("page.html");
    let mut export = Command::new(env!("CARGO_BIN_EXE_runspan"));
    export.args(["export", &run, "--as", "html", "--to"]).arg(&page).arg("--store").arg(&store);
    assert!(ended(export).status.success());

    let drawn = browse(&browser, dir.path(), &page, &["--dump-dom".to_owned()]);
    assert!(drawn.contains("<title>agent &lt;/pre&gt;&lt;/script&gt;"), "{drawn}");
    assert_nothing_was_made_of_it(&drawn);
    // All that the store has is there: instructions, messages, call, arguments, error.
    assert!(drawn.matches("document.title='owned'").count() >= 20, "{drawn}");

    assert_is_drawn(&browser, dir.path(), &page, 30_000);
}

#[test]
fn a_browser_shows_two_runs_side_by_side_and_does_nothing_that_they_said() {
    let Some(browser) = program("chromium") else { return };
    let dir = crate::support::tempdir();
    let store = dir.path().join("store");
    record(&store);
    let first = only_run(&store).run_id.to_string();
    record_asked(&store, &format!("otherwise {HOSTILE}"));
    let page = dir.path().join("compared.html");
    let mut compare = Command::new(env!("CARGO_BIN_EXE_runspan"));
    compare.args(["compare", &first, "latest", "--html"]).arg(&page).arg("--store").arg(&store);
    // The runs are not equal.
    assert_eq!(ended(compare).status.code(), Some(1));

    let drawn = browse(&browser, dir.path(), &page, &["--dump-dom".to_owned()]);
    assert!(drawn.contains("<mark>otherwise </mark>"), "{drawn}");
    assert!(drawn.contains("different: 1 in io"), "{drawn}");
    assert_nothing_was_made_of_it(&drawn);
    assert_is_drawn(&browser, dir.path(), &page, 20_000);
}
