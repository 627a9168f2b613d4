//! The commands as a user calls them: arguments in; output, remarks and exit code out.

mod ask;
mod compare;
mod files;
mod keep;
mod odd;
mod paracle;
mod replay;
mod said;
mod transfer;

use super::*;
use runspan::conventions::names;
use runspan::model::event::RunStarted;
use runspan::model::otlp::{Span, Status, Value};
use runspan::model::{Event, EventBody, EventId, RunId, RunKind};
use runspan::pipeline::facts::StepFacts;
use runspan::store::RunWriter;
use runspan::store::assembly::{RunState, ended_body, started_body};
use runspan::store::files::FilesWriter;
use runspan::store::files::layout::Layout;

/// Everything in these tests begins at 2026-01-06T10:00:00Z.
const START_MS: u64 = 1_767_693_600_000;

struct Answer {
    code: u8,
    out: String,
    err: String,
}

fn runspan_at(width: usize, cwd: &Path, args: &[&str]) -> Answer {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let look = Look { width, cuts: true, colour: false, is_terminal: false };
    let place = Place { look, cwd: cwd.to_owned(), is_stdout: false };
    let code = execute(["runspan"].iter().chain(args), place, &mut out, &mut err);
    Answer { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn runspan(cwd: &Path, args: &[&str]) -> Answer {
    runspan_at(100, cwd, args)
}

/// A store in a temporary directory, `.runspan` as a search finds it.
struct Store {
    dir: tempfile::TempDir,
    writer: FilesWriter,
    /// Held: what the writer wrote is under way.
    _lock: std::fs::File,
}

/// A span as a test tells it: `at` and `end` in milliseconds of the run; no `end`: still open.
struct Told<'a> {
    id: u8,
    parent: u8,
    name: &'a str,
    at: u64,
    end: Option<u64>,
    attributes: &'a [(&'a str, Value)],
    error: Option<&'a str>,
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

impl Told<'_> {
    fn span(&self, run: RunId, is_ended: bool) -> Span {
        let mut span = Span {
            trace_id: run.0.to_vec(),
            span_id: vec![self.id; 8],
            parent_span_id: if self.parent == 0 { Vec::new() } else { vec![self.parent; 8] },
            name: self.name.to_owned(),
            start_time_unix_nano: (START_MS + self.at) * 1_000_000,
            ..Span::default()
        };
        for (key, value) in self.attributes {
            span.set_attr(key, value.clone());
        }
        if let Some(end) = self.end.filter(|_| is_ended) {
            span.end_time_unix_nano = (START_MS + end) * 1_000_000;
            if let Some(message) = self.error {
                span.set_attr(names::ERROR_TYPE, "ToolError");
                span.status = Some(Status { code: 2, message: message.to_owned() });
            }
        }
        span
    }
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join(".runspan"));
        layout.open_or_create().unwrap();
        let process = RunId([7; 16]);
        let journal = layout.journal().join(process.to_string());
        std::fs::create_dir(&journal).unwrap();
        let lock = std::fs::File::create(journal.join("lock")).unwrap();
        lock.try_lock().unwrap();
        let writer = FilesWriter::new(layout, process, false);
        Self { dir, writer, _lock: lock }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn run_dir(&self, run: RunId) -> PathBuf {
        let layout = Layout::new(self.path().join(".runspan"));
        layout.find_run(run).unwrap().unwrap()
    }

    fn record(&mut self, run: RunId, spans: &[Told<'_>]) {
        let mut moments: Vec<(u64, bool, &Told<'_>)> = spans.iter().map(|told| (told.at, false, told)).collect();
        moments.extend(spans.iter().filter_map(|told| Some((told.end?, true, told))));
        moments.sort_by_key(|(at, is_end, told)| (*at, *is_end, if *is_end { 255 - told.id } else { told.id }));
        let mut state = RunState::new(run, run.as_trace_id());
        let start = EventBody::RunStarted(Box::new(RunStarted {
            kind: RunKind::Agent,
            name: "told by the steps".to_owned(),
            trace_id: run.as_trace_id(),
            parent_run_id: None,
            session_id: None,
            user_id: None,
            tags: Vec::new(),
            input: None,
        }));
        let mut events = vec![Event {
            seq: 0,
            event_id: EventId::from_parts(START_MS, [0xff; 10]),
            parent_event_id: None,
            timestamp: UnixNanos::from_millis(START_MS + spans[0].at),
            step_id: None,
            body: start,
        }];
        state.apply(&events[0], false);
        for (at, is_end, told) in moments {
            let span = told.span(run, is_end);
            let facts = StepFacts::of(&span, None, None);
            let step_id = match state.step_of(runspan::model::SpanId([told.id; 8])) {
                Some((name, _)) => name.to_owned(),
                None => state.unique_step_id(&facts.step_name),
            };
            let body: EventBody = if is_end {
                ended_body(span, &facts, *facts.content.clone(), None, None)
            } else {
                started_body(span, &facts, &facts.content, None, None)
            };
            let seq = state.next_seq();
            let timestamp = UnixNanos::from_millis(START_MS + at);
            let event_id = EventId::from_parts(START_MS + at, [seq as u8; 10]);
            let event = Event { seq, event_id, parent_event_id: None, timestamp, step_id: Some(step_id), body };
            state.apply(&event, false);
            events.push(event);
        }
        let summary = state.summary(UnixNanos::from_millis(START_MS + 10_000));
        self.writer.create_run(&summary, &events).unwrap();
        self.writer.update_run(&summary).unwrap();
    }

    /// An agent that calls a model, then a tool that fails with hostile words.
    fn record_agent(&mut self, last: u8) -> RunId {
        let run = RunId::from_parts(START_MS, [0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let chat = [
            (names::OPERATION, text("chat")),
            (names::PROVIDER, text("openai")),
            (names::REQUEST_MODEL, text("gpt-4o-mini")),
            (names::INPUT_TOKENS, Value::Int(1_500)),
            (names::OUTPUT_TOKENS, Value::Int(800)),
            (names::CACHE_READ_TOKENS, Value::Int(1_024)),
            (names::COST_USD, Value::Double(0.042)),
            (names::COST_SOURCE, text("computed")),
        ];
        let tool = [(names::OPERATION, text("execute_tool")), (names::TOOL_NAME, text("read_file"))];
        let agent = [
            (names::OPERATION, text("invoke_agent")),
            (names::AGENT_NAME, text("code\u{1b}[31m-reviewer")),
            (names::INPUT_MESSAGES, text("Look at main.rs\nplease")),
        ];
        let told = |id, parent, name, at, end, attributes| Told { id, parent, name, at, end, attributes, error: None };
        self.record(
            run,
            &[
                told(1, 0, "invoke_agent code-reviewer", 0, Some(2_500), &agent),
                told(2, 1, "chat gpt-4o-mini", 10, Some(1_200), &chat),
                Told {
                    error: Some("no such\u{9b}2J file\u{202e}"),
                    ..told(3, 1, "execute_tool read_file", 1_250, Some(1_400), &tool)
                },
                told(4, 1, "chat gpt-4o-mini", 1_450, Some(2_450), &chat),
            ],
        );
        run
    }

    /// A workflow whose first step is under way.
    fn record_open_workflow(&mut self) -> RunId {
        let run = RunId::from_parts(START_MS + 60_000, [9; 10]);
        let workflow = [(names::OPERATION, text("invoke_workflow")), (names::WORKFLOW_NAME, text("release"))];
        let agent = [(names::OPERATION, text("invoke_agent")), (names::AGENT_NAME, text("writer"))];
        let told = |id, parent, name, at, attributes| Told { id, parent, name, at, end: None, attributes, error: None };
        self.record(
            run,
            &[told(1, 0, "release", 60_000, &workflow), told(2, 1, "invoke_agent writer", 60_100, &agent)],
        );
        run
    }
}

#[test]
fn what_is_open_is_shown_while_its_process_lives() {
    let mut store = Store::new();
    store.record_open_workflow();
    let list = json(&runspan(store.path(), &["list", "--json"]));
    assert_eq!(
        (&list[0]["status"], &list[0]["open_steps"]),
        (&"running".into(), &serde_json::json!(["release", "writer"]))
    );
    let table = runspan(store.path(), &["list"]).out;
    assert!(table.contains("writer (+1)"), "{table}");
    assert!(runspan(store.path(), &["get", "latest"]).out.contains("└─ ● agent writer"));
    drop(store._lock);
    let list = json(&runspan(store.dir.path(), &["list", "--json"]));
    assert_eq!(list[0]["status"], "crashed");
}

fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.code, 0, "{}", answer.err);
    serde_json::from_str(&answer.out).unwrap()
}

/// Ages depend on the clock of whoever runs the test.
fn without_age(text: &str) -> String {
    let started = text.lines().map(|line| match line.split_once(" UTC, ") {
        Some((before, _)) => format!("{before} UTC\n"),
        None => format!("{line}\n"),
    });
    started.collect()
}

#[test]
fn a_run_is_shown_narrow_and_wide() {
    let mut store = Store::new();
    store.record_agent(1);
    let narrow = without_age(&runspan_at(60, store.path(), &["get", "latest"]).out);
    assert_eq!(
        format!("\n{narrow}"),
        r#"
code\u{1b}[31m-reviewer  ✓ success
agent 01KE9BZH800000000000000001
started   2026-01-06 10:00:00 UTC
took      2.50s
steps     4: 2 model calls, 1 tool call, 1 failure
tokens    3,000 in (2,048 from cache), 1,600 out
cost      $0.0840 computed
model     gpt-4o-mini
input     Look at main.rs\nplease

STEP                     0  2.50s     TOKENS     COST   TIME
✓ agent code-[31m-revi…  ━━━━━━━━                      2.50s
├─ ✓ llm chat gpt-4o-m…  ━━━       1,500+800  $0.0420  1.19s
├─ ✗ tool read_file          ━                         150ms
│    ToolError: no such\u{9b}2J file\u{202e}
└─ ✓ llm chat-2 gpt-4o…      ━━━   1,500+800  $0.0420  1.00s
"#
    );
    let wide = without_age(&runspan_at(120, store.path(), &["get", "latest"]).out);
    assert_eq!(
        format!("\n{wide}"),
        r#"
code\u{1b}[31m-reviewer  ✓ success
agent 01KE9BZH800000000000000001
started   2026-01-06 10:00:00 UTC
took      2.50s
steps     4: 2 model calls, 1 tool call, 1 failure
tokens    3,000 in (2,048 from cache), 1,600 out
cost      $0.0840 computed
model     gpt-4o-mini
input     Look at main.rs\nplease

STEP                         0                                          2.50s     TOKENS     COST   TIME
✓ agent code-[31m-reviewer   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━                      2.50s
├─ ✓ llm chat gpt-4o-mini    ━━━━━━━━━━━━━━━━━━━━━━━                           1,500+800  $0.0420  1.19s
├─ ✗ tool read_file                                  ━━                                            150ms
│    ToolError: no such\u{9b}2J file\u{202e}
└─ ✓ llm chat-2 gpt-4o-mini                             ━━━━━━━━━━━━━━━━━━━━   1,500+800  $0.0420  1.00s
"#
    );
}

#[test]
fn a_list_is_one_line_a_run_with_ids_to_copy() {
    let mut store = Store::new();
    store.record_agent(1);
    store.record_open_workflow();
    let answer = runspan_at(160, store.path(), &["list"]);
    let ids: Vec<&str> = answer.out.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids, ["01KE9C1BV0144GJ289144GJ289", "01KE9BZH800000000000000001"]);
    let narrow = runspan_at(60, store.path(), &["runs", "list", "--kind", "agent"]);
    let cells: Vec<&str> = narrow.out.lines().nth(1).unwrap().split("  ").collect();
    assert_eq!((cells[0], cells[2]), ("01KE9BZH8000", "✓ success"), "{}", narrow.out);
    assert!(cells[1].starts_with(r"code\u{1b}[3"), "{}", narrow.out);
    assert!(narrow.out.lines().all(|line| output::width(line) <= 60), "{}", narrow.out);
    assert_eq!(runspan(store.path(), &["get", cells[0]]).code, 0);
}

#[test]
fn what_is_done_with_runs_is_done_under_the_noun_as_well() {
    let mut store = Store::new();
    store.record_agent(1);
    for command in [
        "list",
        "get latest",
        "search weather",
        "stats",
        "artifacts latest",
        "verify",
        "cleanup --dry-run",
        "unpin latest",
    ] {
        let under = |noun: &[&str]| {
            let words: Vec<&str> = noun.iter().copied().chain(command.split(' ')).collect();
            let answer = runspan(store.path(), &words);
            (answer.code, answer.out, answer.err)
        };
        assert_eq!(under(&["runs"]), under(&[]), "{command}");
        assert_ne!(under(&["runs"]).0, CODE_USE, "{command}");
    }
}

#[test]
fn what_stands_around_runs_is_printed_as_its_schema_says() {
    let mut store = Store::new();
    store.record_agent(1);
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/schema/cli.schema.json")).unwrap();
    for (command, definition) in [
        ("doctor", "doctor"),
        ("reindex", "reindex"),
        ("prices list", "prices_list"),
        ("prices list --provider openai", "prices_lookups"),
        ("prices lookup gpt-4o", "prices_lookup"),
        ("prices version", "prices_version"),
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--json"]).collect();
        let answer = runspan(store.path(), &words);
        let printed: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
        let wanted = format!("#/$defs/{definition}");
        let whole = serde_json::json!({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": wanted});
        assert_eq!(jsonschema::validate(&whole, &printed).map_err(|error| error.to_string()), Ok(()), "{command}");
    }
}

#[test]
fn filters_of_a_list_are_those_of_the_contract() {
    let mut store = Store::new();
    let agent = store.record_agent(1).to_string();
    let workflow = store.record_open_workflow().to_string();
    let listed = |args: &[&str]| -> Vec<String> {
        let args: Vec<&str> = ["list", "--json"].iter().chain(args).copied().collect();
        let runs = json(&runspan(store.path(), &args));
        runs.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&[]), [workflow.as_str(), &agent]);
    assert_eq!(listed(&["--limit", "1"]), [workflow.as_str()]);
    assert_eq!(listed(&["--limit", "0", "--sort", "cost"]), [agent.as_str(), &workflow]);
    assert_eq!(listed(&["--status", "completed"]), [agent.as_str()]);
    assert_eq!(listed(&["--workflow-id", "release"]), [workflow.as_str()]);
    assert_eq!(listed(&["--model", "gpt-4o-mini", "--min-cost", "0.08"]), [agent.as_str()]);
    assert_eq!(listed(&["--since", "2026-01-06T10:00:30Z", "--until", "1s"]), [workflow.as_str()]);
    assert_eq!(listed(&["--session", "none"]), Vec::<String>::new());
    for wrong in [&["list", "--since", "soon"][..], &["list", "--status", "done"], &["list", "--min-cost", "NaN"]] {
        assert_eq!(runspan(store.path(), wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn json_has_the_fields_of_the_contract() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let list = json(&runspan(store.path(), &["list", "--json"]));
    assert_eq!(list[0]["open_steps"], serde_json::json!([]));
    assert_eq!(list[0]["cost_usd"], 0.084);
    let got = json(&runspan(store.path(), &["get", "latest", "--format", "json"]));
    assert_eq!(got["run_id"], run.to_string());
    assert_eq!(got["started_at"], "2026-01-06T10:00:00.000Z");
    let step: Vec<&String> = got["steps"][1].as_object().unwrap().keys().collect();
    let wanted = "step_id span_id parent_span_id kind name agent_id status started_at duration_ms provider model tokens \
                  cost_usd cost_source error input output duplicate_of";
    assert_eq!(step, wanted.split(' ').collect::<Vec<_>>());
    let events = json(&runspan(store.path(), &["get", "latest", "--events", "--json"]));
    assert_eq!(events.as_array().unwrap().len(), 9);
    let yaml = runspan(store.path(), &["get", "latest", "--format", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml.out).unwrap(), got);
}

#[test]
fn a_trace_id_and_any_case_name_a_run() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    for id in [run.to_string(), run.to_string().to_lowercase(), run.as_trace_id().to_string(), "01ke".to_owned()] {
        assert_eq!(runspan(store.path(), &["get", &id]).code, 0, "{id}");
    }
}

#[test]
fn exit_codes_tell_no_from_wrong_from_broken() {
    let mut store = Store::new();
    let first = store.record_agent(1);
    store.record_agent(2);
    let ask = |id: &str| {
        let answer = runspan(store.path(), &["get", id]);
        assert_eq!(answer.out, "");
        (answer.code, answer.err)
    };
    assert_eq!(
        ask("01KE9"),
        (
            1,
            "error: \"01KE9\" may mean 2 runs\n  01KE9BZH800000000000000002\n  01KE9BZH800000000000000001\n\
             hint: type more of the id\n"
                .to_owned()
        )
    );
    assert_eq!(ask("01ARZ3NDEKTSV4RRFFQ69G5FAV").0, 1);
    assert_eq!(ask("../../etc/passwd").0, 2);
    assert_eq!(ask("").0, 2);
    std::fs::write(store.run_dir(first).join("run.yaml"), "run_id: [").unwrap();
    assert_eq!(ask(&first.to_string()).0, 1);
    let list = json(&runspan(store.path(), &["list", "--json"]));
    assert_eq!(list[1]["status"], "damaged");
    assert_eq!(
        (&list[1]["error"]["type"], &list[1]["error"]["step_id"]),
        (&"damaged".into(), &serde_json::Value::Null)
    );
    assert!(list[1]["error"]["message"].as_str().unwrap().starts_with("run.yaml: "), "{list}");
    assert_eq!(runspan(store.path(), &["--store", "/nowhere/at/all", "list"]).code, 3);
    assert_eq!(runspan(store.path(), &["lst"]).code, 2);
    assert_eq!(runspan(store.path(), &["--help"]).code, 0);
    std::fs::write(store.path().join(".runspan/store.yaml"), "format: 99").unwrap();
    let newer = runspan(store.path(), &["list"]);
    assert_eq!(newer.code, 3);
    assert!(newer.err.contains("format 99"), "{}", newer.err);
}

#[test]
fn a_store_whose_runs_were_taken_away_is_no_new_one() {
    let mut store = Store::new();
    store.record_agent(1);
    for kind in ["agents", "workflows"] {
        let _ = std::fs::remove_dir_all(store.path().join(".runspan").join(kind));
    }
    let answer = runspan(store.path(), &["list"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, ""));
    assert!(answer.err.starts_with("hint: no run is here, though the store's log tells of some"), "{}", answer.err);
}

#[test]
fn a_pack_that_cannot_be_read_is_told_where_its_runs_are_missing() {
    let mut store = Store::new();
    store.record_agent(1);
    assert_eq!(runspan(store.path(), &["list"]).err, "");
    let packs = store.path().join(".runspan/packs");
    std::fs::create_dir_all(&packs).unwrap();
    std::fs::write(packs.join("01M8MVR6D5M7QJ5A65VKGF0ZHJ.pack"), "half of nothing").unwrap();
    for (command, code) in
        [(&["list"][..], 0), (&["list", "--agent-id", "nobody"], 0), (&["stats"], 0), (&["search", "nothing"], 0)]
    {
        let answer = runspan(store.path(), command);
        let told = answer.err.replace(&packs.display().to_string(), "PACKS");
        assert_eq!(answer.code, code, "{command:?}");
        insta::allow_duplicates! { insta::assert_snapshot!(told, @r"
            PACKS/01M8MVR6D5M7QJ5A65VKGF0ZHJ.pack cannot be read: it does not begin as a pack does
            hint: runs are missing here; `runspan verify` says what is lost and what can be repaired
            "); }
    }
}

#[test]
fn without_a_store_there_is_an_empty_list_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    if std::env::var_os(STORE_VARIABLE).is_some() {
        return;
    }
    let answer = runspan(dir.path(), &["list", "--json"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "[]\n"));
    assert!(answer.err.starts_with("hint: no runs yet"), "{}", answer.err);
    assert_eq!(runspan(dir.path(), &["get", "latest"]).code, 1);
    assert_eq!(runspan(dir.path(), &["doctor"]).code, 0);
    assert!(!dir.path().join(".runspan").exists());
}

#[test]
fn tail_of_a_run_that_is_over_prints_its_events_and_ends() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let answer = runspan(store.path(), &["tail", &run.to_string(), "--json"]);
    assert_eq!(answer.code, 0);
    assert_eq!(answer.out.lines().count(), 9);
    for line in answer.out.lines() {
        assert!(line.is_ascii(), "{line}");
        serde_json::from_str::<Event>(line).unwrap();
    }
}

/// A reader that goes away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut store = Store::new();
    store.record_agent(1);
    let mut err = Vec::new();
    let look = Look { width: 100, cuts: true, colour: false, is_terminal: false };
    let place = Place { look, cwd: store.path().to_owned(), is_stdout: false };
    assert_eq!(execute(["runspan", "get", "latest"], place, &mut Closed, &mut err), 0);
    assert_eq!(err, b"");
}

#[test]
fn no_output_carries_what_a_terminal_acts_on() {
    let mut store = Store::new();
    store.record_agent(1);
    for args in [
        &["list"][..],
        &["get", "latest"],
        &["get", "latest", "--events"],
        &["list", "--json"],
        &["get", "latest", "--json"],
        &["get", "latest", "--format", "yaml"],
        &["get", "\u{1b}[2J\u{9b}"],
    ] {
        let answer = runspan(store.path(), args);
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!answer.out.contains(acts) && !answer.err.contains(acts), "{args:?}");
    }
}

#[test]
fn arguments_are_declared_without_contradiction() {
    Cli::command().debug_assert();
    for shell in ["bash", "zsh", "fish"] {
        assert!(runspan(Path::new("."), &["completions", shell]).out.contains("runspan"));
    }
}

#[test]
fn the_examples_of_prices_find_prices() {
    let help = runspan(Path::new("."), &["prices", "--help"]).out;
    let examples: Vec<Vec<&str>> =
        help.lines().filter_map(|line| Some(line.strip_prefix("  runspan ")?.split(' ').collect())).collect();
    assert_eq!(examples.len(), 3, "{help}");
    for example in examples {
        let answer = runspan(Path::new("."), &example);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{example:?}");
    }
}

#[test]
fn the_demo_records_two_runs_and_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = path.to_str().unwrap();
    let answer = runspan(dir.path(), &["demo", "--store", store]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    for said in ["trip-planner  ✓ success", "release-notes  ✓ success", "✗ tool get_weather", "✓ tool get_weather-2"]
    {
        assert!(answer.out.contains(said), "{said}\n{}", answer.out);
    }
    assert!(answer.out.contains(&format!("runspan tail --store {store}")), "{}", answer.out);
    let runs = json(&runspan(dir.path(), &["list", "--json", "--store", store]));
    let told: Vec<_> = runs.as_array().unwrap().iter().map(|run| (&run["llm_calls"], &run["errors"])).collect();
    assert_eq!(told, [(&4.into(), &0.into()), (&4.into(), &1.into())]);
    assert!(runs[0]["cost_usd"].as_f64().unwrap() > 0.0, "{runs}");
}

#[test]
fn what_a_dead_process_left_and_cannot_be_read_is_told() {
    let store = Store::new();
    let (root, process) = (store.path().join(".runspan"), RunId([9; 16]).to_string());
    let options = runspan::journal::Options::default();
    drop(runspan::journal::JournalWriter::create(&root.join("journal"), &process, options).unwrap());
    let no_ring = root.join("store.yaml");
    std::fs::write(root.join("journal").join(&process).join("ring"), format!("{}\n", no_ring.display())).unwrap();
    let answer = runspan(store.path(), &["list"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let said =
        format!("warning: not all is there of what ended early, process {process}: what it had in shared memory");
    assert!(answer.err.starts_with(&said) && answer.err.contains("store.yaml"), "{}", answer.err);
    assert!(root.join("journal").join(&process).exists(), "it is kept");
    let answer = runspan(store.path(), &["doctor"]);
    assert!(answer.out.contains("what one had in shared memory cannot be read"), "{}", answer.out);
}

/// Answers every request as told; what is asked is not looked at.
fn peer(answer: impl Fn() -> &'static str + Send + 'static) -> String {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let _ = stream.read_exact(&mut vec![0; length.unwrap_or(0)]);
            let _ = stream.write_all(answer().as_bytes());
        }
    });
    url
}

const REFUSES: &str =
    "HTTP/1.1 400 Bad\r\ncontent-type: text/plain\r\ncontent-length: 7\r\nconnection: close\r\n\r\nno \u{1b}[2J";
const TAKES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Records one run of one span in a store that forwards to a peer.
fn record_forwarded(store: &Path, url: &str) {
    let (layer, guard) = runspan::builder().store(store).forward(url).build().unwrap();
    use tracing_subscriber::layer::SubscriberExt;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        runspan::Run::agent("told").start().finish();
    });
    guard.shutdown(std::time::Duration::from_secs(30));
}

#[test]
fn forward_shows_dead_letters_and_sends_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let none = runspan(dir.path(), &["forward", "list"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("nothing was forwarded"), "{}", none.err);
    let none = runspan(dir.path(), &["forward", "retry"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("there are no dead letters"), "{}", none.err);

    let url = peer(|| REFUSES);
    record_forwarded(&dir.path().join(".runspan"), &url);
    let listed = json(&runspan(dir.path(), &["forward", "list", "--json"]));
    let target = &listed[0];
    assert_eq!((listed.as_array().unwrap().len(), &target["target"]), (1, &url.clone().into()));
    assert_eq!((&target["sent"], &target["refused"]["refused_by_peer"]), (&0.into(), &1.into()));
    assert_eq!((&target["waiting"]["spans"], &target["dead_letters"]["spans"]), (&0.into(), &1.into()));
    let shown = runspan(dir.path(), &["forward", "list"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert!(shown.out.starts_with("TARGET") && shown.out.contains("1 span refused: refused_by_peer"), "{}", shown.out);
    assert!(shown.out.contains("1 dead letter with 1 span: HTTP 400"), "{}", shown.out);
    assert!(shown.out.contains("HTTP 400: no  [2J") && !shown.out.contains('\u{1b}'), "{}", shown.out);

    let again = |args: &[&str]| runspan(dir.path(), &[&["forward", "retry"], args].concat());
    let refused = again(&[]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.out.contains("still refused: HTTP 400: no"), "{}", refused.out);
    assert_eq!(again(&["--target", "http://127.0.0.1:9"]).code, 1);
    assert_eq!(again(&["--target", "nowhere"]).code, 2);
    assert_eq!(again(&["--all", "ID"]).code, 2);
    assert_eq!(again(&["ZZ"]).code, 1);
}

#[test]
fn forward_retry_tells_by_its_code_whether_the_peer_took_it() {
    let dir = tempfile::tempdir().unwrap();
    let answer = std::sync::Arc::new(std::sync::Mutex::new(REFUSES));
    let said = std::sync::Arc::clone(&answer);
    let url = peer(move || *said.lock().unwrap());
    record_forwarded(&dir.path().join(".runspan"), &url);
    let again = |format: &str| runspan(dir.path(), &["forward", "retry", "--all", "--format", format]);
    *answer.lock().unwrap() = BUSY;
    let failed = again("table");
    assert_eq!(failed.code, 3, "{}{}", failed.out, failed.err);
    assert!(failed.out.contains("1 span to") && failed.out.contains("not sent: HTTP 503"), "{}", failed.out);
    *answer.lock().unwrap() = TAKES;
    let sent = again("json");
    assert_eq!(sent.code, 0, "{}", sent.err);
    let told = json(&sent);
    assert_eq!(
        (&told[0]["result"], &told[0]["spans"], &told[1]),
        (&"sent".into(), &1.into(), &serde_json::Value::Null)
    );
    let listed = runspan(dir.path(), &["forward", "list", "--format", "yaml"]).out;
    assert!(listed.contains("resent: 1") && listed.contains("letters: 0"), "{listed}");
}
