//! What is asked of many runs: sums, SQL, text.

use super::*;
use runspan::store::RunReader;
use runspan::store::files::FilesReader;
use runspan::store::files::database;
use serde_json::json;

const REPORT: &str = "Rain in Oslo: 12 degrees";

fn messages(parts: &[(&str, serde_json::Value)]) -> Value {
    let messages: Vec<_> = parts.iter().map(|(role, part)| json!({"role": role, "parts": [part]})).collect();
    text(&serde_json::Value::from(messages).to_string())
}

impl Store {
    /// An agent that asks a tool and has its answer in the input of two calls; another tool says nothing that is used.
    fn record_caller(&mut self, last: u8) -> RunId {
        let run = RunId::from_parts(START_MS + u64::from(last), [0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let question = ("user", json!({"type": "text", "content": "What is the weather?"}));
        let answer = ("tool", json!({"type": "tool_call_response", "id": "call-1", "response": REPORT}));
        let call = |input: i64, cost: f64, messages| {
            [
                (names::OPERATION, text("chat")),
                (names::PROVIDER, text("openai")),
                (names::REQUEST_MODEL, text("gpt-4o")),
                (names::INPUT_TOKENS, Value::Int(input)),
                (names::OUTPUT_TOKENS, Value::Int(20)),
                (names::COST_USD, Value::Double(cost)),
                (names::INPUT_MESSAGES, messages),
                ("gen_ai.response.time_to_first_chunk", Value::Double(0.025)),
            ]
        };
        let calls = [
            call(20, 0.001, messages(std::slice::from_ref(&question))),
            call(44, 0.002, messages(&[question.clone(), answer.clone()])),
            call(88, 0.003, messages(&[question.clone(), answer, question])),
        ];
        let tool = |name: &str, call: &str| {
            [
                (names::OPERATION, text("execute_tool")),
                (names::TOOL_NAME, text(name)),
                (names::TOOL_CALL_ID, text(call)),
                (names::TOOL_RESULT, text(REPORT)),
            ]
        };
        let (used, unused) = (tool("get_weather", "call-1"), tool("look_out", "call-2"));
        let agent = [(names::OPERATION, text("invoke_agent")), (names::AGENT_NAME, text("weather"))];
        let told = |id, parent, name, at, end, attributes| Told { id, parent, name, at, end, attributes, error: None };
        self.record(
            run,
            &[
                told(1, 0, "invoke_agent weather", 0, Some(900), &agent),
                told(2, 1, "chat gpt-4o", 10, Some(110), &calls[0]),
                told(3, 1, "execute_tool get_weather", 120, Some(140), &used),
                told(4, 1, "execute_tool look_out", 150, Some(160), &unused),
                told(5, 1, "chat gpt-4o", 200, Some(400), &calls[1]),
                told(6, 1, "chat gpt-4o", 500, Some(800), &calls[2]),
            ],
        );
        run
    }

    fn stats(&self, args: &[&str]) -> serde_json::Value {
        json(&runspan(self.path(), &[&["stats", "--json"], args].concat()))
    }
}

#[test]
fn sums_are_drawn_with_bars_and_errors_with_an_example_and_a_good_run() {
    let mut store = Store::new();
    store.record_caller(1);
    store.record_agent(2);
    let shown = runspan(store.path(), &["stats", "--by", "model"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert_eq!(
        format!("\n{}", shown.out),
        r#"
runs          2, 100 % succeeded
calls         5 of models, 3 of tools
failures      1
tokens        3,152 in (2,048 from cache), 1,660 out
cost          $0.0900
took          p50 900ms, p90 2.50s, p99 2.50s
first token   p50 25ms, p90 25ms, p99 25ms

MODEL                      CALLS     OK     IN    OUT       COST    P50    P90    P99  1ST TOKEN
gpt-4o-mini  ████████████      2  100 %  3,000  1,600    $0.0840  1.00s  1.19s  1.19s
gpt-4o       ▊                 3  100 %    152     60  $0.006000  200ms  300ms  300ms       25ms

FAILURES
1×  ToolError: no such\u{9b}<n>J file\u{202e}  1 run
    newest: runspan get 01KE9BZH800000000000000002  (in read_file)
"#
    );
    let csv = runspan(store.path(), &["stats", "--by", "tool", "--format", "csv"]).out;
    assert_eq!(
        csv.lines().map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",")).collect::<Vec<_>>(),
        ["tool,runs,count,success", "get_weather,1,1,1", "look_out,1,1,1", "read_file,1,1,0"]
    );
}

#[test]
fn a_run_is_summed_up_on_the_day_that_it_is_listed_with_however_late_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let span = |id: u8, start: u64| {
        let (start, end) = (start.to_string(), (start + 1).to_string());
        json!({
            "traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"), "name": "chat", "kind": 3,
            "startTimeUnixNano": start, "endTimeUnixNano": end,
            "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
        })
    };
    // What SQLite has a number for, and what it has none for.
    let spans = [span(1, i64::MAX as u64 - 1), span(2, 1 << 63), span(3, u64::MAX - 1)];
    let file = dir.path().join("late.json");
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    std::fs::write(&file, request.to_string()).unwrap();
    let store = dir.path().join("store");
    let imported = runspan(&store, &["import", file.to_str().unwrap()]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let listed = json(&runspan(&store, &["list", "--json"]));
    let mut days: Vec<&str> =
        listed.as_array().unwrap().iter().map(|run| &run["started_at"].as_str().unwrap()[..10]).collect();
    days.sort_unstable();
    assert_eq!(days, ["2262-04-11", "2262-04-11", "2554-07-21"]);
    let summed = json(&runspan(&store, &["stats", "--by", "day", "--json"]));
    let groups = summed["groups"].as_array().unwrap().iter();
    let mut groups: Vec<_> =
        groups.map(|group| (group["key"].as_str().unwrap(), group["runs"].as_u64().unwrap())).collect();
    groups.sort_unstable();
    assert_eq!(groups, [("2262-04-11", 2), ("2554-07-21", 1)]);
}

#[test]
fn what_a_tool_caused_is_its_part_of_the_inputs_that_its_result_is_in() {
    let mut store = Store::new();
    store.record_caller(1);
    let stats = store.stats(&["--by", "tool"]);
    let caused = |of: &serde_json::Value| (of["caused_tokens"].clone(), of["caused_cost_usd"].clone());
    let groups: Vec<_> =
        stats["groups"].as_array().unwrap().iter().map(|group| (&group["key"], caused(group))).collect();
    // The question has 20 bytes, the result 24. Of the second call's 44 tokens it is 24 of 44, of the third's 88 as much
    // as 24 of 64; of their costs 24 of 64 tokens and 33 of 108.
    let cost = (2_000_000 * 24 / 64 + 3_000_000 * 33 / 108) as f64 / 1e9;
    assert_eq!(
        groups,
        [(&json!("get_weather"), (json!(24 + 33), json!(cost))), (&json!("look_out"), (json!(null), json!(null)))]
    );
    assert_eq!(caused(&stats["total"]), (json!(57), json!(cost)));
    assert_eq!(caused(&store.stats(&["--by", "agent"])["groups"][0]), (json!(57), json!(cost)));
}

#[test]
fn sums_follow_what_grows_crashes_is_damaged_and_goes() {
    let mut store = Store::new();
    let numbers = |store: &Store| {
        let stats = store.stats(&["--by", "model"]);
        let total = &stats["total"];
        json!([total["runs"], total["open"], total["success"], total["tokens"]["prompt"], stats["damaged_runs"]])
    };
    assert_eq!(numbers(&store), json!([0, 0, 0, null, 0]));
    let open = store.record_open_workflow();
    assert_eq!(numbers(&store), json!([1, 1, 0, null, 0]));
    let caller = store.record_caller(1);
    assert_eq!(numbers(&store), json!([2, 1, 1, 152, 0]));
    // Not a line of index.log tells of it.
    let chat = [(names::OPERATION, text("chat")), (names::INPUT_TOKENS, Value::Int(1_000))];
    let told = Told { id: 9, parent: 1, name: "chat", at: 60_200, end: Some(60_300), attributes: &chat, error: None };
    let facts = StepFacts::of(&told.span(open, true), None, None);
    for (nth, body) in [
        started_body(told.span(open, false), &facts, &facts.content, None, None),
        ended_body(told.span(open, true), &facts, *facts.content.clone(), None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let seq = 3 + nth as u64;
        let event_id = EventId::from_parts(START_MS, [seq as u8; 10]);
        let timestamp = UnixNanos::from_millis(START_MS + 60_300);
        let event = Event { seq, event_id, parent_event_id: None, timestamp, step_id: Some("chat".to_owned()), body };
        store.writer.append_events(open, &[event]).unwrap();
    }
    assert_eq!(numbers(&store), json!([2, 1, 1, 1_152, 0]));
    let log = store.run_dir(caller).join("events.jsonl");
    let good = std::fs::read(&log).unwrap();
    std::fs::write(&log, b"{broken}\n").unwrap();
    // What its metadata says still holds. It is read once it is told of. A folder with nothing but artifacts is no run.
    std::fs::create_dir_all(store.path().join(".runspan/agents/01KE9BZH80000000000000000Z/artifacts")).unwrap();
    assert!(runspan(store.path(), &["reindex"]).out.contains("2 runs in"));
    assert_eq!(numbers(&store), json!([2, 1, 1, 1_152, 1]));
    std::fs::write(&log, good).unwrap();
    store.writer.delete_run(caller).unwrap();
    assert_eq!(numbers(&store), json!([1, 1, 0, 1_000, 0]));
    let reader = FilesReader::open(store.path().join(".runspan")).unwrap();
    assert_eq!(database::whole(&reader, database::Depth::Steps, &mut |_| {}).unwrap().steps().unwrap(), 3);
    drop(store._lock);
    let stats = json(&runspan(store.dir.path(), &["stats", "--json"]));
    assert_eq!((&stats["total"]["open"], &stats["total"]["count"]), (&json!(0), &json!(1)));
}

#[test]
fn where_the_index_cannot_be_written_the_answer_is_the_same() {
    let mut store = Store::new();
    for nth in 1..5 {
        store.record_caller(nth);
    }
    let index = store.path().join(".runspan/index.sqlite");
    std::fs::create_dir(&index).unwrap();
    let without = store.stats(&["--by", "tool"]);
    std::fs::remove_dir(&index).unwrap();
    assert_eq!(without, store.stats(&["--by", "tool"]));
    assert!(index.is_file());
    let good = std::fs::read(&index).unwrap();
    for damage in 0..good.len() / 1024 {
        let mut bytes = good.clone();
        bytes[damage * 1024..(damage + 1) * 1024].fill(0xa5);
        std::fs::write(&index, bytes).unwrap();
        // It is noticed where it is read, and made anew.
        let answer = runspan(store.path(), &["stats", "--by", "tool", "--json"]);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "page {damage}");
    }
    // Another version's, and rubbish, are made anew.
    std::fs::write(&index, "rubbish ".repeat(2_000)).unwrap();
    assert_eq!(without, store.stats(&["--by", "tool"]));
}

#[test]
fn several_who_read_steps_at_once_count_each_once() {
    let mut store = Store::new();
    let path = store.path().join(".runspan");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    let reader = FilesReader::open(&path).unwrap();
                    database::whole(&reader, database::Depth::Steps, &mut |_| {}).unwrap();
                }
            });
        }
        for nth in 1..40 {
            store.record_caller(nth);
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let total = &store.stats(&[])["total"];
    assert_eq!(
        (&total["runs"], &total["llm_calls"], &total["tokens"]["prompt"]),
        (&json!(39), &json!(117), &json!(39 * 152))
    );
}

#[test]
fn an_error_is_told_with_its_newest_example_and_a_run_that_went_well() {
    let mut store = Store::new();
    store.record_agent(1);
    let newest = store.record_agent(2);
    let agent = [(names::OPERATION, text("invoke_agent")), (names::AGENT_NAME, text("code\u{1b}[31m-reviewer"))];
    let good = RunId([1; 16]);
    store.record(
        good,
        &[Told { id: 1, parent: 0, name: "agent", at: 0, end: Some(5), attributes: &agent, error: None }],
    );
    let errors = &store.stats(&[])["errors"];
    assert_eq!(
        *errors,
        json!([{
            "type": "ToolError", "pattern": "no such\u{9b}<n>J file\u{202e}", "count": 2, "runs": 2,
            "newest": {
                "run_id": newest, "step_id": "read_file", "started_at": "2026-01-06T10:00:01.250000000Z",
                "message": "no such\u{9b}2J file\u{202e}",
            },
            "compare_with": good,
        }])
    );
}

#[test]
fn sql_answers_over_views_in_every_format() {
    let mut store = Store::new();
    store.record_caller(1);
    store.record_agent(2);
    let sql = |args: &[&str]| {
        let answer = runspan(store.path(), &[&["sql"], args].concat());
        assert_eq!(answer.code, 0, "{}", answer.err);
        answer.out
    };
    let by_model = "select model, count(*) as calls, sum(cost_nano_usd) as nano, sum(prompt_tokens) prompt from steps \
                    where is_model_call group by model order by model";
    assert_eq!(
        sql(&[by_model]),
        "model        calls      nano  prompt\ngpt-4o           3   6000000     152\ngpt-4o-mini      2  84000000    3000\n"
    );
    assert_eq!(
        sql(&[by_model, "--format", "csv"]),
        "model,calls,nano,prompt\ngpt-4o,3,6000000,152\ngpt-4o-mini,2,84000000,3000\n"
    );
    let run = "select run_id, agent_id, status, started_at, duration_ms, cost_usd, model, total_tokens, steps, errors, \
               damage, error_type from runs where agent_id = 'weather'";
    let errors = "select run_id, step_id, kind, type, status, is_failure from errors";
    let spans = "select span_id, parent_span_id, step_id, duration_ms, caused_tokens, cost_source from steps where tool = 'get_weather'";
    let whole = |statement| serde_json::from_str::<serde_json::Value>(&sql(&[statement, "--json"])).unwrap();
    assert_eq!(
        json!([
            whole(run),
            whole(errors),
            whole(spans),
            whole("select (select count(*) from tags) + (select count(*) from models) n, 1 n")
        ]),
        json!([
            [{
                "run_id": "01KE9BZH810000000000000001", "agent_id": "weather", "status": "success",
                "started_at": "2026-01-06T10:00:00.000Z", "duration_ms": 900, "cost_usd": 0.006, "model": "gpt-4o",
                "total_tokens": 212, "steps": 6, "errors": 0, "damage": null, "error_type": null,
            }],
            [{
                "run_id": "01KE9BZH800000000000000002", "step_id": "read_file", "kind": "tool", "type": "ToolError",
                "status": "error", "is_failure": 1,
            }],
            [{
                "span_id": "0303030303030303", "parent_span_id": "0101010101010101", "step_id": "get_weather",
                "duration_ms": 20.0, "caused_tokens": 57, "cost_source": null,
            }],
            [{"n": 2, "n_2": 1}],
        ])
    );
    assert!(sql(&[by_model, "--format", "yaml"]).starts_with("- model: gpt-4o\n  calls: 3\n"));
    let cut = runspan(store.path(), &["sql", "select * from steps", "--limit", "2", "--format", "csv"]);
    assert_eq!(
        (cut.out.lines().count(), cut.err.as_str()),
        (3, "hint: there are more than 2 rows; --limit 0 has all\n")
    );
}

#[test]
fn sql_only_reads_and_only_views_and_marks_what_is_wrong() {
    let mut store = Store::new();
    store.record_caller(1);
    let all = || {
        ["runs", "steps", "tags"]
            .map(|view| runspan(store.path(), &["sql", &format!("select * from {view}"), "--json"]).out)
    };
    let before = all();
    let file = store.path().join("other.sqlite");
    let attach = format!("attach '{}' as other", file.display());
    for (statement, expected) in [
        ("delete from runs", "cannot modify runs because it is a view"),
        ("delete from main.runs", "only statements that select are allowed"),
        ("update main.meta set value = 1", "only statements that select are allowed"),
        ("create table x (y)", "only statements that select are allowed"),
        ("create temp table x (y)", "only statements that select are allowed"),
        ("drop view runs", "only statements that select are allowed"),
        ("begin", "only statements that select are allowed"),
        ("pragma user_version = 7", "pragmas are not allowed"),
        ("pragma query_only = off", "pragmas are not allowed"),
        ("select * from pragma_table_info('runs')", "pragma_table_info is none of the views"),
        (&attach, "other databases are not to be attached"),
        ("vacuum into '/tmp/x'", "nothing is selected"),
        ("select * from main.summaries", "summaries is none of the views runs, steps, errors, models, tags"),
        ("select * from sqlite_master", "sqlite_master is none of the views"),
        ("with x as (select * from main.meta) select * from x", "meta is none of the views"),
        ("select load_extension('x')", "load_extension"),
        ("select 1; select 2", "one statement at a time"),
        ("select ?1", "in the place of a parameter"),
        ("", "nothing is selected"),
        ("/* nothing */", "nothing is selected"),
        ("select zeroblob(1000000000)", "too big"),
        (
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
            "it took longer than 1 s",
        ),
    ] {
        let answer = runspan(store.path(), &["sql", statement, "--timeout", "1"]);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{statement}: {}", answer.err);
        assert!(answer.err.contains(expected), "{statement}: {}", answer.err);
    }
    assert!(!file.exists());
    assert_eq!(before, all());
    let marked = |statement| runspan(store.path(), &["sql", statement]).err;
    assert_eq!(
        marked("select agent_id,\n  costt from runs\nlimit 1"),
        "error: there is no column costt; `runspan sql` alone lists them\n    costt from runs\n    ^\n\
         hint: runspan sql alone lists the views and their columns; docs/sql.md has more\n"
    );
    assert!(
        marked("select 'é', x y z from runs")
            .contains("error: near \"z\": syntax error\n  select 'é', x y z from runs\n                  ^\n")
    );
    assert!(
        marked("select * from run").contains("error: there is no run; the views are runs, steps, errors, models, tags")
    );
}

#[test]
fn the_page_on_sql_has_every_view_and_column() {
    let page = include_str!("../../../docs/sql.md");
    for view in database::VIEWS {
        let section = page.split("\n## ").find(|section| section.starts_with(&format!("{}\n", view.name)));
        let section = section.unwrap_or_else(|| panic!("{} is missing", view.name));
        let told: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let columns: Vec<&str> = view.columns.iter().map(|column| column.name).collect();
        assert_eq!(told, columns, "{}", view.name);
    }
}

#[test]
fn search_shows_runs_with_the_step_and_what_was_found() {
    let mut store = Store::new();
    let caller = store.record_caller(1);
    store.record_agent(2);
    let search = |args: &[&str]| runspan(store.path(), &[&["search"], args].concat());
    let shown = search(&["rain OR file"]);
    let without_ages: String = shown
        .out
        .lines()
        .map(|line| match line.split_once(" ago") {
            Some((before, behind)) => format!("{}…{behind}\n", before.trim_end_matches(|c: char| c.is_alphanumeric())),
            None => format!("{line}\n"),
        })
        .collect();
    assert_eq!(
        without_ages,
        "01KE9BZH81000000  weather  ✓ success  …  900ms  $0.006000\n  get_weather result  [Rain] in Oslo: 12 degrees\n\
         01KE9BZH80000000  code\\u{1b}[31m-reviewer  ✓ success  …  2.50s  $0.0840\n  \
         read_file error  ToolError · no such 2J [file]\\u{202e}\n"
    );
    let found = json(&search(&["\"oslo 12\" degree*", "--json"]));
    assert_eq!(
        (found[0]["run"]["run_id"].clone(), found[0]["run"]["agent_id"].clone()),
        (json!(caller), json!("weather"))
    );
    assert_eq!(
        found[0]["hits"],
        json!([{
            "step_id": "get_weather", "kind": "tool", "field": "result", "snippet": "Rain in Oslo: 12 degrees",
            "marks": [[8, 16], [17, 24]],
        }])
    );
    assert_eq!(json(&search(&["rain", "--agent-id", "other", "--json"])), json!([]));
    assert_eq!(
        json(&search(&["rain", "--agent-id", "weather", "--min-cost", "0.001", "--json"])).as_array().unwrap().len(),
        1
    );
    let nothing = search(&["nowhere"]);
    assert_eq!((nothing.code, nothing.out.as_str(), nothing.err.as_str()), (0, "", "hint: no run has that\n"));
}

#[test]
fn a_query_that_is_wrong_is_marked_even_where_there_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let answer = runspan(dir.path(), &["search", "rate \"limit"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    assert_eq!(
        answer.err,
        "error: there is no second \" for this one\n  rate \"limit\n       ^\nhint: runspan search --help says what can be asked\n"
    );
    let answer = runspan(dir.path(), &["search", "東京 colour:red"]);
    assert!(answer.err.contains("  東京 colour:red\n       ^\n"), "{}", answer.err);
    assert!(answer.err.contains("the fields are input, output, arguments, result, error, log"), "{}", answer.err);
    assert_eq!(runspan(dir.path(), &["search", "x", "--since", "soon"]).code, 2);
}

#[test]
fn a_store_that_wants_no_texts_keeps_none() {
    let mut store = Store::new();
    store.record_caller(1);
    let texts = store.path().join(".runspan/text.sqlite");
    assert_eq!(json(&runspan(store.path(), &["search", "rain", "--json"])).as_array().unwrap().len(), 1);
    assert!(texts.exists());
    let file = store.path().join(".runspan/store.yaml");
    let said = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{said}search: false\n")).unwrap();
    let answer = runspan(store.path(), &["search", "rain"]);
    assert_eq!((answer.code, texts.exists()), (2, false));
    assert!(answer.err.contains("texts are not kept for searching here"), "{}", answer.err);
    assert!(runspan(store.path(), &["list"]).out.contains("weather"));
}

#[test]
fn a_list_is_watched_on_a_terminal_alone() {
    let store = Store::new();
    let answer = runspan(store.path(), &["list", "--watch"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    assert_eq!(
        answer.err,
        "error: --watch draws a table on a terminal again and again, and this is none\n\
         hint: runspan tail prints a line for each change, with --json an object\n"
    );
}

#[test]
fn the_outline_of_a_long_run_has_what_went_into_its_root_and_of_others_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("long.json");
    let text = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
    let span = |id: u64, parent: &str, operation: &str, attributes: [serde_json::Value; 2]| {
        let [a, b] = attributes;
        let (start, end) = ((1_767_693_600_000_000_000 + id).to_string(), "1767693700000000000");
        serde_json::json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": format!("{id:016x}"),
            "parentSpanId": parent, "name": operation, "startTimeUnixNano": start, "endTimeUnixNano": end,
            "attributes": [text("gen_ai.operation.name", operation), a, b]})
    };
    // Children come before their root, as most emitters send them.
    let tool = |id: u64| {
        let attributes = [text("gen_ai.tool.name", "look"), text("gen_ai.tool.call.arguments", "{}")];
        span(id, "0000000000000001", "execute_tool", attributes)
    };
    let mut spans: Vec<serde_json::Value> = (2..400).map(tool).collect();
    spans.push(span(1, "", "invoke_agent", [text("gen_ai.agent.name", "a"), text("runspan.input", "go")]));
    let request = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    std::fs::write(&file, request.to_string()).unwrap();
    assert_eq!(runspan(dir.path(), &["import", file.to_str().unwrap()]).out, "399 spans stored\n");
    let reader = crate::cli::open_store(&dir.path().join(".runspan")).unwrap();
    let run = reader.resolve("latest").unwrap();
    let with_input = |steps: &[runspan::model::StepView]| steps.iter().filter(|step| step.input.is_some()).count();
    let (all, outline) = (reader.get_steps(run).unwrap(), reader.get_outline(run).unwrap());
    assert_eq!((all.len(), outline.len(), with_input(&all)), (399, 399, 399));
    assert!((2..=101).contains(&with_input(&outline)), "{}", with_input(&outline));
    assert_eq!(outline[0], all[0]);
}
