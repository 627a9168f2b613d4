//! The commands as a user calls them: arguments in; output, remarks and exit code out.

mod ask;

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
    let look = Look { width, colour: false, is_terminal: false };
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
            let body: EventBody =
                if is_end { ended_body(span, facts, None, None) } else { started_body(span, &facts, None, None) };
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
    assert_eq!(runspan(store.path(), &["--store", "/nowhere/at/all", "list"]).code, 3);
    assert_eq!(runspan(store.path(), &["lst"]).code, 2);
    assert_eq!(runspan(store.path(), &["--help"]).code, 0);
    std::fs::write(store.path().join(".runspan/store.yaml"), "format: 99").unwrap();
    let newer = runspan(store.path(), &["list"]);
    assert_eq!(newer.code, 3);
    assert!(newer.err.contains("format 99"), "{}", newer.err);
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
    let look = Look { width: 100, colour: false, is_terminal: false };
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
    assert_eq!(runspan(dir.path(), &["forward", "retry"]).code, 1);

    let url = peer(|| REFUSES);
    record_forwarded(&dir.path().join(".runspan"), &url);
    let listed = json(&runspan(dir.path(), &["forward", "list", "--json"]));
    let target = &listed[0];
    assert_eq!((listed.as_array().unwrap().len(), &target["target"]), (1, &url.clone().into()));
    assert_eq!((&target["sent"], &target["refused"]["refused_by_peer"]), (&0.into(), &1.into()));
    assert_eq!((&target["waiting"]["spans"], &target["dead_letters"]["spans"]), (&0.into(), &1.into()));
    let shown = runspan(dir.path(), &["forward", "list"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert!(shown.out.starts_with("TARGET") && shown.out.contains("1 spans refused: refused_by_peer"), "{}", shown.out);
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
    assert!(failed.out.contains("1 spans to") && failed.out.contains("not sent: HTTP 503"), "{}", failed.out);
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
    assert_eq!(runspan(&cwd, &["artifacts", &id, "--extract", "all", "--to", "every"]).code, 0);
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
    assert_eq!((&dry["sealed"], &dry["sealed_to_bytes"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(json(&runspan(cwd, &["cleanup", "--json"]))["sealed"], 1);
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

impl Store {
    /// The same agent on another model: it asks once more, is told something else, and the tool works.
    fn record_other_agent(&mut self) -> RunId {
        let run = RunId::from_parts(START_MS + 90_000, [3; 10]);
        let chat = |model: &str, input: &str| {
            [
                (names::OPERATION, text("chat")),
                (names::PROVIDER, text("openai")),
                (names::REQUEST_MODEL, text(model)),
                (names::INPUT_TOKENS, Value::Int(1_700)),
                (names::OUTPUT_TOKENS, Value::Int(800)),
                (names::CACHE_READ_TOKENS, Value::Int(1_024)),
                (names::COST_USD, Value::Double(0.05)),
                (names::COST_SOURCE, text("computed")),
                (names::INPUT_MESSAGES, text(input)),
            ]
        };
        let tool = [(names::OPERATION, text("execute_tool")), (names::TOOL_NAME, text("read_file"))];
        let agent = [
            (names::OPERATION, text("invoke_agent")),
            (names::AGENT_NAME, text("code\u{1b}[31m-reviewer")),
            (names::INPUT_MESSAGES, text("Look at </script> lib.rs\nplease")),
        ];
        let told = |id, parent, name, at, end, attributes| Told { id, parent, name, at, end, attributes, error: None };
        self.record(
            run,
            &[
                told(1, 0, "invoke_agent code-reviewer", 0, Some(2_900), &agent),
                told(2, 1, "chat gpt-4o", 10, Some(1_200), &chat("gpt-4o", "<b>a\u{202e}b</b>")),
                told(3, 1, "execute_tool read_file", 1_250, Some(1_300), &tool),
                told(4, 1, "chat gpt-4o", 1_450, Some(2_450), &chat("gpt-4o", "second")),
                told(5, 1, "chat gpt-4o", 2_500, Some(2_800), &chat("gpt-4o", "third")),
            ],
        );
        run
    }
}

#[test]
fn two_runs_are_compared_step_by_step() {
    let mut store = Store::new();
    let (a, b) = (store.record_agent(1).to_string(), store.record_other_agent().to_string());
    let answer = runspan(store.path(), &["compare", &a, &b]);
    assert_eq!((answer.code, answer.err.as_str()), (1, ""));
    insta::assert_snapshot!(answer.out, @r"
    A  code\u{1b}[31m-reviewer  ✓ success  agent 01KE9BZH800000000000000001
    B  code\u{1b}[31m-reviewer  ✓ success  agent 01KE9C294G0C1G60R30C1G60R3

    steps                  4           5  +1 (+25%)
    model calls            2           3  +1 (+50%)
    tool calls             1           1
    failures               1           0  -1 (-100%)
    tokens in          3,000       5,100  +2,100 (+70%)
    tokens out         1,600       2,400  +800 (+50%)
    cost             $0.0840     $0.1500  +$0.0660 (+79%)
    time               2.50s       2.90s  +400ms (+16%)

    ≠ agent code-[31m-reviewer  2.50s → 2.90s
        input
          - Look at main.rs
          + Look at </script> lib.rs
            please
    ≠   llm chat  1.19s → 1.19s
          model gpt-4o-mini → gpt-4o  tokens 1,500+800 → 1,700+800  cost $0.0420 → $0.0500
          input
            + <b>a\u{202e}b</b>
    ≠   tool read_file  150ms → 50ms
          status error → success
          error
            - ToolError: no such\u{9b}2J file\u{202e}
    ≠   llm chat-2  1.00s → 1.00s
          model gpt-4o-mini → gpt-4o  tokens 1,500+800 → 1,700+800  cost $0.0420 → $0.0500
          input
            + second
    +   llm chat-3

    different: 4 in structure, 4 in io, 6 in cost
    ");
}

#[test]
fn runs_are_equal_by_the_measure_that_is_asked_for() {
    let mut store = Store::new();
    let (a, same, b) =
        (store.record_agent(1).to_string(), store.record_agent(2).to_string(), store.record_other_agent().to_string());
    let code = |args: &[&str]| runspan(store.path(), &[&["compare"], args].concat()).code;
    assert_eq!(code(&[&a, &a]), 0);
    // Ids and times are others.
    assert_eq!(code(&[&a, &same]), 0);
    for measure in ["structure", "io", "cost"] {
        assert_eq!(code(&[&a, &b, "--only", measure]), 1, "{measure}");
    }
    assert_eq!(code(&[&a, "01ZZ"]), 1);
    assert_eq!(code(&[&a, &b, "--only", "time"]), 2);
    let found: serde_json::Value =
        serde_json::from_str(&runspan(store.path(), &["compare", &a, &b, "--json"]).out).unwrap();
    assert_eq!(
        (&found["equal"], &found["differences"]),
        (&false.into(), &serde_json::json!({"structure": 4, "io": 4, "cost": 6}))
    );
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/schema/cli.schema.json")).unwrap();
    let schema = serde_json::json!({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/compare"});
    assert_eq!(jsonschema::validate(&schema, &found).map_err(|error| error.to_string()), Ok(()));
    let changes: Vec<&str> =
        found["steps"].as_array().unwrap().iter().map(|step| step["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["changed", "changed", "changed", "changed", "added"]);
}

#[test]
fn a_comparison_as_a_page_holds_no_markup_of_a_run() {
    let mut store = Store::new();
    let (a, b) = (store.record_agent(1).to_string(), store.record_other_agent().to_string());
    let file = store.path().join("page.html");
    let answer = runspan(store.path(), &["compare", &a, &b, "--html", file.to_str().unwrap()]);
    assert_eq!(answer.code, 1);
    assert!(answer.out.starts_with("different: "), "{}", answer.out);
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.contains("Look at <mark>&lt;/script&gt;"), "{page}");
    for hidden in ["<script", "</script>", "<b>", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(hidden), "{hidden:?}: {page}");
    }
}

#[test]
fn spans_are_given_out_as_they_came() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let open = store.record_open_workflow();
    let mut request = json(&runspan(store.path(), &["export", &run.to_string()]));
    let spans = &mut request["resourceSpans"][0]["scopeSpans"][0]["spans"];
    // What says where each is from comes last.
    for span in spans.as_array_mut().unwrap() {
        let told = span["attributes"].as_array_mut().unwrap();
        let from = told.split_off(told.len() - 2);
        assert_eq!((&from[0]["key"], &from[1]["key"]), (&names::RUN_ID.into(), &names::STORE_ID.into()));
        assert_eq!(from[0]["value"]["stringValue"], run.to_string());
    }
    let log = std::fs::read_to_string(store.run_dir(run).join("events.jsonl")).unwrap();
    let mut told: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["span"].clone())
        .filter(|span| span.get("endTimeUnixNano").is_some())
        .collect();
    told.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().to_owned());
    assert_eq!(spans, &mut serde_json::Value::Array(told));
    assert_eq!(request["resourceSpans"].as_array().unwrap().len(), 1);
    // What has not ended is no span yet, and the user is told.
    let answer = runspan(store.path(), &["export", &open.to_string(), "--as", "otlp-jsonl"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "{\"resourceSpans\":[]}\n"));
    assert_eq!(answer.err, "2 steps have not ended and are not in it\n");
    let lines = runspan(store.path(), &["export", "--limit", "0", "--as", "otlp-jsonl"]).out;
    assert_eq!(lines.lines().count(), 2);
}

#[test]
fn a_page_of_a_run_holds_no_markup_of_it_and_loads_nothing() {
    let mut store = Store::new();
    store.record_agent(1);
    let run = store.record_other_agent().to_string();
    let page = runspan(store.path(), &["export", &run, "--as", "html"]).out;
    assert!(page.contains("Look at &lt;/script&gt; lib.rs"), "{page}");
    assert!(page.contains("&lt;b&gt;a<span class=\"odd\">\\u{202e}</span>b&lt;/b&gt;"), "{page}");
    for hidden in ["<script", "</script>", "<b>", "<img", "<link", "src=", "url(", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(hidden), "{hidden:?}: {page}");
    }
    assert!(page.contains("default-src 'none'"), "{page}");
    let pages = store.path().join("pages");
    let answer = runspan(store.path(), &["export", "--to", pages.to_str().unwrap(), "--as", "html"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    let folder = format!("{}/", pages.display());
    let answer = runspan(store.path(), &["export", "--to", &folder]);
    assert_eq!((answer.code, answer.out.lines().count()), (0, 2), "{}", answer.err);
    assert_eq!(std::fs::read_to_string(pages.join(format!("{run}.html"))).unwrap(), page);
    assert_eq!(std::fs::read_dir(pages).unwrap().count(), 2);
}

#[test]
fn a_damaged_run_is_told_and_the_others_are_exported() {
    let mut store = Store::new();
    let (good, bad) = (store.record_agent(1), store.record_agent(2));
    std::fs::write(store.run_dir(bad).join("events.jsonl"), "no JSON\n").unwrap();
    let answer = runspan(store.path(), &["export", &bad.to_string(), &good.to_string()]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains(&format!("run {bad} is damaged")), "{}", answer.err);
    let request: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 4);
}

/// What `get` says of a run, but for what belongs to the store that it is in. The log of runs in these tests is shorter than that
/// of recorded ones.
fn told_of(store: &Path, run: &str) -> serde_json::Value {
    let mut told = json(&runspan(store, &["get", run, "--json"]));
    for of_store in ["writer", "updated_at", "events", "events_sha256"] {
        told.as_object_mut().unwrap().remove(of_store);
    }
    told
}

/// An empty store.
fn empty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Layout::new(dir.path().join(".runspan")).open_or_create().unwrap();
    dir
}

#[test]
fn what_was_exported_is_the_same_run_where_it_is_imported() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    let file = store.path().join("runs.json");
    let file = file.to_str().unwrap();
    assert_eq!(runspan(store.path(), &["export", &run, "--to", file]).code, 0);
    let other = empty();
    let answer = runspan(other.path(), &["import", file]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (0, "4 spans stored\n", ""));
    assert_eq!(told_of(other.path(), "latest"), told_of(store.path(), &run));
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/schema/cli.schema.json")).unwrap();
    let schema = serde_json::json!({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/import"});
    let said = json(&runspan(other.path(), &["import", file, "--json"]));
    assert_eq!(jsonschema::validate(&schema, &said).map_err(|error| error.to_string()), Ok(()));
    // Once more changes nothing, and neither does it where it came from.
    let before = told_of(other.path(), &run);
    assert_eq!(runspan(other.path(), &["import", file]).out, "0 spans stored, 4 there already\n");
    assert_eq!(told_of(other.path(), &run), before);
    assert_eq!(runspan(store.path(), &["import", file]).out, "0 spans stored, 4 there already\n");
    assert_eq!(json(&runspan(store.path(), &["list", "--json"])).as_array().unwrap().len(), 1);
}

#[test]
fn a_broken_line_is_named_and_the_others_are_imported() {
    let mut store = Store::new();
    store.record_agent(1);
    let line = runspan(store.path(), &["export", "--as", "otlp-jsonl"]).out;
    let other = empty();
    let file = other.path().join("broken.jsonl");
    for text in [format!("{line}\n{{\"resourceSpans\":[\n[1]\n{{}}\n"), format!("{{\"resourceSpans\":[\n{line}")] {
        std::fs::write(&file, text).unwrap();
        let answer = runspan(other.path(), &["import", file.to_str().unwrap(), "none.json"]);
        assert_eq!(answer.code, 1);
        let said = answer.err.replace(other.path().to_str().unwrap(), "DIR");
        if answer.out.starts_with("4 spans stored") {
            insta::assert_snapshot!(said, @r"
            DIR/broken.jsonl, line 3: it is no JSON: EOF while parsing a list at line 1 column 18
            DIR/broken.jsonl, line 4: it is no JSON object
            DIR/broken.jsonl, line 5: it has neither resourceSpans nor resourceLogs, nor Jaeger's data
            none.json: No such file or directory (os error 2)
            ");
        } else {
            assert!(answer.out.contains("4 there already"), "{}", answer.out);
            assert!(said.contains("broken.jsonl, line 1: it is no JSON"), "{said}");
        }
    }
    assert_eq!(json(&runspan(other.path(), &["list", "--json"])).as_array().unwrap().len(), 1);
}

#[test]
fn runs_from_outside_keep_their_ids_and_events_over_export_and_import() {
    let (first, second) = (empty(), empty());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    for emitter in ["rig", "pydantic-ai", "openinference-langchain"] {
        let recorded = corpus.join(emitter).join("agent/000-traces.pb");
        let answer = runspan(first.path(), &["import", recorded.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{}", answer.err);
    }
    let file = first.path().join("all.jsonl");
    assert_eq!(runspan(first.path(), &["export", "--to", file.to_str().unwrap()]).code, 0);
    let answer = runspan(second.path(), &["import", file.to_str().unwrap()]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    let of = |store: &tempfile::TempDir| -> Vec<(serde_json::Value, serde_json::Value)> {
        let listed = json(&runspan(store.path(), &["list", "--json"]));
        let ids = listed.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned());
        let told = ids.map(|id| {
            let mut events = json(&runspan(store.path(), &["get", &id, "--events", "--json"]));
            for event in events.as_array_mut().unwrap() {
                // Where each is from, which the exported spans say.
                let Some(told) = event["data"].pointer_mut("/span/attributes").and_then(|of| of.as_array_mut()) else {
                    continue;
                };
                told.retain(|attribute| attribute["key"] != names::RUN_ID && attribute["key"] != names::STORE_ID);
            }
            (told_of(store.path(), &id), events)
        });
        told.collect()
    };
    let (before, after) = (of(&first), of(&second));
    assert!(before.len() >= 3);
    assert_eq!(before, after);
}

/// Every file of a run's folder.
fn files_of(store: &Path, run: RunId) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let dir = Layout::new(store.join(".runspan")).find_run(run).unwrap().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_tar_of_runs_is_the_same_files_where_it_is_imported() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let open = store.record_open_workflow();
    let file = store.path().join("runs.tar");
    let answer = runspan(store.path(), &["export", "--to", file.to_str().unwrap()]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains(&format!("run {open} is not over")), "{}", answer.err);
    let (by_tar, by_copy) = (empty(), empty());
    let from = store.path().join(".runspan");
    for (other, source) in [(&by_tar, &file), (&by_copy, &from)] {
        let runs = if source.is_dir() { 2 } else { 1 };
        let answer = runspan(other.path(), &["import", source.to_str().unwrap()]);
        let stored = if runs == 1 { "1 run stored\n" } else { "2 runs stored\n" };
        assert_eq!((answer.code, answer.out.as_str()), (0, stored), "{}", answer.err);
        assert_eq!(files_of(other.path(), run), files_of(store.path(), run));
        let again = runspan(other.path(), &["import", source.to_str().unwrap()]);
        assert_eq!(again.out, format!("0 runs stored, {runs} there already\n"));
        assert_eq!(json(&runspan(other.path(), &["list", "--json"])).as_array().unwrap().len(), runs);
    }
}

#[test]
fn a_run_whose_log_was_changed_on_the_way_is_not_taken_in() {
    let mut store = Store::new();
    let (changed, whole) = (store.record_agent(1), store.record_agent(2));
    let layout = Layout::new(store.path().join(".runspan"));
    let log = layout.find_run(changed).unwrap().unwrap().join("events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("gpt-4o"));
    std::fs::write(&log, text.replacen("gpt-4o", "gpt-4x", 1)).unwrap();
    let other = empty();
    let answer = runspan(other.path(), &["import", layout.root().to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (1, "1 run stored\n"));
    let why = format!("run {changed} is damaged: its log was changed since it was written");
    assert!(answer.err.contains(&why), "{}", answer.err);
    assert_eq!(json(&runspan(other.path(), &["list", "--json"]))[0]["run_id"], whole.to_string());
}

#[test]
fn an_archive_with_anything_but_runs_is_refused_whole() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let good = runspan::store::files::layout::Layout::new(store.path().join(".runspan"));
    let place = |name: &str| format!("agents/{run}/{name}");
    let summary = std::fs::read(good.find_run(run).unwrap().unwrap().join("run.yaml")).unwrap();
    let refused = |what: &str, add: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(summary.len() as u64);
        archive.append_data(&mut header, place("run.yaml"), summary.as_slice()).unwrap();
        add(&mut archive);
        let other = empty();
        let file = other.path().join("bad.tar");
        std::fs::write(&file, archive.into_inner().unwrap()).unwrap();
        let before = std::fs::read_dir(other.path().join(".runspan")).unwrap().count();
        let answer = runspan(other.path(), &["import", file.to_str().unwrap()]);
        assert_eq!(answer.code, 1, "{what}");
        assert!(answer.err.contains("is refused: "), "{what}: {}", answer.err);
        assert_eq!(json(&runspan(other.path(), &["list", "--json"])), serde_json::json!([]), "{what}");
        // The journal of the import and the index are all there is besides.
        assert!(std::fs::read_dir(other.path().join(".runspan")).unwrap().count() <= before + 2, "{what}");
        assert!(!other.path().join("escaped").exists() && !other.path().join(".runspan/escaped").exists(), "{what}");
    };
    let raw = |name: &str, kind: tar::EntryType, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        if let Some(link) = link {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        header
    };
    let add =
        |header: tar::Header| move |archive: &mut tar::Builder<Vec<u8>>| archive.append(&header, &[][..]).unwrap();
    use tar::EntryType;
    refused("above", &add(raw("../escaped", EntryType::Regular, None)));
    refused("within", &add(raw(&place("../../../escaped"), EntryType::Regular, None)));
    refused("absolute", &add(raw("/tmp/escaped", EntryType::Regular, None)));
    refused("link", &add(raw(&place("artifacts/a"), EntryType::Symlink, Some("/etc/passwd"))));
    refused("hard link", &add(raw(&place("artifacts/a"), EntryType::Link, Some("run.yaml"))));
    refused("device", &add(raw(&place("artifacts/a"), EntryType::Char, None)));
    refused("pipe", &add(raw(&place("artifacts/a"), EntryType::Fifo, None)));
    refused("other", &add(raw("escaped", EntryType::Regular, None)));
}

/// An OTLP endpoint that gives one answer to all; returns its URL and what it has got.
fn endpoint(says: &'static [u8]) -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some((_, bytes)) = line.to_lowercase().split_once("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n";
            let head = format!("{head}content-length: {}\r\n\r\n", says.len());
            reader.into_inner().write_all(&[head.as_bytes(), says].concat()).unwrap();
            if tell.send(body).is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[test]
fn what_an_endpoint_leaves_out_is_not_counted_as_sent_and_what_it_remarks_is_no_failure() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    // partial_success: rejected_spans and error_message.
    for (says, code, out) in
        [(&b"\x0a\x06\x08\x01\x12\x02no"[..], 1, "3 spans sent\n"), (b"\x0a\x04\x12\x02so", 0, "4 spans sent\n")]
    {
        let (url, _got) = endpoint(says);
        let answer = runspan(store.path(), &["export", &run, "--otlp", &format!("{url}/v1/traces")]);
        assert_eq!((answer.code, answer.out.as_str()), (code, out), "{}", answer.err);
        assert!(answer.err.contains(": no") || answer.err.contains(": so"), "{}", answer.err);
    }
}

#[test]
fn an_endpoint_gets_each_span_once_unless_it_is_asked_for_again() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    let (url, got) = endpoint(b"");
    let url = format!("{url}/v1/traces#compression=none");
    let export = |more: &[&str]| {
        let answer = runspan(store.path(), &[&["export", &run, "--otlp", &url], more].concat());
        assert_eq!((answer.code, answer.err.as_str()), (0, ""));
        answer.out
    };
    assert_eq!(export(&[]), "4 spans sent\n");
    assert_eq!(export(&[]), "0 spans sent, 4 sent before\n");
    assert_eq!(export(&["--again"]), "4 spans sent\n");
    let requests: Vec<Vec<u8>> = got.try_iter().collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    let request = <runspan::model::otlp::TracesData as prost::Message>::decode(requests[0].as_slice()).unwrap();
    let exported = json(&runspan(store.path(), &["export", &run]));
    let sent = serde_json::to_value(&request).unwrap();
    let spans: Vec<&serde_json::Value> =
        sent["resourceSpans"].as_array().unwrap().iter().map(|of| &of["scopeSpans"][0]["spans"][0]).collect();
    assert_eq!(
        spans,
        exported["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().iter().collect::<Vec<_>>()
    );
    let other = runspan(store.path(), &["export", &run, "--otlp", &url, "--to", "x.json"]);
    assert_eq!(other.code, 2);
}
