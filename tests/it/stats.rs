//! `runspan stats` against sums that are done here over `run.yaml` and the lines of `events.jsonl` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tracing::{info_span, warn_span};

use super::demo::{json, runspan};
use super::support::{record_in, tempdir};

const MODELS: [&str; 3] = ["gpt-4o", "gpt-4o-mini", "a-model-without-a-price"];
const TOOLS: [&str; 3] = ["search_web", "read_file", "send_mail"];

/// Records agents and workflows of every sort: some fail, some calls have no price, some say how long the first token
/// took, some are told by an enclosing span as well.
fn record_all_sorts(store: &Path) {
    super::support::record_in(store, |guard| {
        for n in 0..60u64 {
            one_run(n);
            guard.flush(Duration::from_secs(30));
        }
    });
}

fn one_run(n: u64) {
    let root = if n.is_multiple_of(4) {
        info_span!(
            "flow",
            gen_ai.operation.name = "invoke_workflow",
            gen_ai.workflow.name = format!("flow-{}", n % 3),
            runspan.tags = if n.is_multiple_of(8) { r#"["night","large"]"# } else { r#"["night"]"# },
            otel.status_code = tracing::field::Empty,
        )
    } else {
        info_span!(
            "agent",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.name = format!("agent-{}", n % 5),
            gen_ai.conversation.id = format!("session-{}", n % 7),
            // The agent says once more what its calls say.
            gen_ai.usage.input_tokens = n.is_multiple_of(3).then_some(1_000_000),
            error.type = (n % 10 == 3).then_some("GaveUp"),
            otel.status_code = tracing::field::Empty,
        )
    };
    root.in_scope(|| {
        for call in 0..n % 4 {
            chat(n, call);
            let tool = TOOLS[((n + call) % 3) as usize];
            let failed = (n + call).is_multiple_of(7);
            let span = info_span!(
                "execute_tool",
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = tool,
                error.type = failed.then_some("ToolError"),
                exception.message = tracing::field::Empty,
                otel.status_message = failed.then(|| format!("call {n} of \"{tool}\" took {call}s")),
            );
            span.in_scope(|| std::thread::sleep(Duration::from_millis(1)));
        }
    });
}

fn chat(n: u64, call: u64) {
    let span = warn_span!(
        "chat",
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = if n.is_multiple_of(2) { "openai" } else { "azure.ai.openai" },
        gen_ai.request.model = MODELS[((n + call) % 3) as usize],
        gen_ai.usage.input_tokens = 1_000 + n * 7 + call,
        gen_ai.usage.output_tokens = (n % 6 != 5).then_some(n + 3),
        gen_ai.usage.cache_read.input_tokens = (call == 1).then_some(n),
        gen_ai.response.time_to_first_chunk = (call != 2).then_some(0.001 * (n + 1) as f64),
        error.type = (n % 11 == 10).then_some("RateLimitError"),
    );
    span.in_scope(|| {});
}

/// What this test adds up by itself.
#[derive(Debug, Default)]
struct Sums {
    runs: BTreeSet<String>,
    count: u64,
    success: u64,
    llm_calls: u64,
    tool_calls: u64,
    errors: u64,
    tokens: BTreeMap<&'static str, u64>,
    nano_dollars: Option<i64>,
    unpriced: u64,
    millis: Vec<f64>,
    first_token_millis: Vec<f64>,
}

const KINDS: [&str; 6] = ["prompt", "completion", "total", "cache_read", "cache_write", "reasoning"];

impl Sums {
    fn take_tokens(&mut self, tokens: &Json) {
        for kind in KINDS {
            if let Some(number) = tokens[kind].as_u64() {
                *self.tokens.entry(kind).or_default() += number;
            }
        }
    }

    fn take_cost(&mut self, cost: &Json) {
        if let Some(usd) = cost.as_f64() {
            *self.nano_dollars.get_or_insert(0) += (usd * 1e9).round() as i64;
        }
    }

    fn shown(mut self) -> Json {
        let tokens = if self.tokens.is_empty() {
            Json::Null
        } else {
            KINDS.iter().map(|kind| ((*kind).to_owned(), Json::from(self.tokens.get(kind).copied()))).collect()
        };
        json!({
            "runs": self.runs.len(), "count": self.count, "success": self.success, "open": 0, "cancelled": 0,
            "success_rate": self.success as f64 / self.count as f64,
            "llm_calls": self.llm_calls, "tool_calls": self.tool_calls, "errors": self.errors,
            "tokens": tokens, "nano_dollars": self.nano_dollars, "unpriced_steps": self.unpriced,
            "duration_ms": percentiles(&mut self.millis),
            "time_to_first_token_ms": percentiles(&mut self.first_token_millis),
        })
    }
}

/// The smallest value that at least so many of a hundred values do not exceed, by looking at each.
fn percentiles(values: &mut [f64]) -> Json {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let reaches =
            |value: &&f64| values.iter().filter(|other| other <= value).count() * 100 >= percent * values.len();
        values.iter().find(reaches)
    };
    if values.is_empty() { Json::Null } else { json!({"p50": at(50), "p90": at(90), "p99": at(99)}) }
}

/// A run's `run.yaml` and lines.
struct Files {
    run: Json,
    events: Vec<Json>,
}

fn read_store(store: &Path) -> Vec<Files> {
    let folders = ["agents", "workflows"].iter().flat_map(|kind| std::fs::read_dir(store.join(kind)).unwrap());
    let read = |folder: std::path::PathBuf| Files {
        run: serde_saphyr::from_str(&std::fs::read_to_string(folder.join("run.yaml")).unwrap()).unwrap(),
        events: std::fs::read_to_string(folder.join("events.jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    };
    folders.map(|folder| read(folder.unwrap().path())).collect()
}

fn by_runs(files: &[Files], keys: impl Fn(&Json) -> Vec<Json>) -> BTreeMap<String, Sums> {
    let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
    for Files { run, events } in files {
        for key in keys(run) {
            let sums = groups.entry(key.to_string()).or_default();
            sums.runs.insert(run["run_id"].to_string());
            sums.count += 1;
            sums.success += u64::from(run["status"] == "success");
            for (place, name) in
                [(&mut sums.llm_calls, "llm_calls"), (&mut sums.tool_calls, "tool_calls"), (&mut sums.errors, "errors")]
            {
                *place += run[name].as_u64().unwrap();
            }
            sums.unpriced += run["unpriced_steps"].as_u64().unwrap_or(0);
            sums.take_tokens(&run["tokens"]);
            sums.take_cost(&run["cost_usd"]);
            sums.millis.extend(run["duration_ms"].as_f64());
            sums.first_token_millis.extend(events.iter().filter_map(first_token));
        }
    }
    groups
}

/// Each call of this store is told by one event.
fn by_calls(files: &[Files], key: &str) -> BTreeMap<String, Sums> {
    let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
    for Files { run, events } in files {
        for event in events {
            let (kind, data) = (event["type"].as_str().unwrap(), &event["data"]);
            let is_call = if key == "tool_name" {
                kind == "tool_succeeded" || kind == "tool_failed"
            } else {
                kind == "llm_called"
            };
            if !is_call {
                continue;
            }
            let sums = groups.entry(data[key].to_string()).or_default();
            let failed = data["status"] != "success";
            sums.runs.insert(run["run_id"].to_string());
            sums.count += 1;
            sums.success += u64::from(!failed);
            sums.errors += u64::from(failed);
            sums.millis.extend(data["duration_ms"].as_f64());
            if kind == "llm_called" {
                sums.llm_calls += 1;
                sums.unpriced += u64::from(data["cost_usd"].is_null());
                sums.take_tokens(&data["tokens"]);
                sums.take_cost(&data["cost_usd"]);
                sums.first_token_millis.extend(first_token(event));
            } else {
                sums.tool_calls += 1;
            }
        }
    }
    groups
}

fn first_token(event: &Json) -> Option<f64> {
    let attributes = event["data"]["span"]["attributes"].as_array()?;
    let found = attributes.iter().find(|attribute| attribute["key"] == "gen_ai.response.time_to_first_chunk")?;
    let seconds = found["value"]["doubleValue"].as_f64()?;
    (event["type"] == "llm_called").then(|| (seconds * 1e6).round() / 1e3)
}

fn shown_group(group: &Json) -> (String, Json) {
    let mut group = group.as_object().unwrap().clone();
    let key = group.remove("key").unwrap().to_string();
    group.remove("caused_tokens");
    group.remove("caused_cost_usd");
    let cost = group.remove("cost_usd").unwrap();
    group.insert("nano_dollars".to_owned(), cost.as_f64().map(|usd| (usd * 1e9).round() as i64).into());
    (key, Json::Object(group))
}

#[test]
fn every_number_is_the_sum_over_run_yaml_and_events_done_apart() {
    let dir = super::support::tempdir();
    record_all_sorts(dir.path());
    let files = read_store(dir.path());
    assert_eq!(files.len(), 60);
    let day = |run: &Json, length: usize, end: &str| {
        vec![format!("{}{end}", &run["started_at"].as_str().unwrap()[..length]).into()]
    };
    let tags = |run: &Json| match run["tags"].as_array().unwrap().as_slice() {
        [] => vec![Json::Null],
        tags => tags.to_vec(),
    };
    let expected: Vec<(&str, BTreeMap<String, Sums>)> = vec![
        ("agent", by_runs(&files, |run| vec![run["agent_id"].clone()])),
        ("workflow", by_runs(&files, |run| vec![run["workflow_id"].clone()])),
        ("session", by_runs(&files, |run| vec![run["session_id"].clone()])),
        ("tag", by_runs(&files, tags)),
        ("day", by_runs(&files, |run| day(run, 10, ""))),
        ("hour", by_runs(&files, |run| day(run, 13, ":00Z"))),
        ("model", by_calls(&files, "model")),
        ("provider", by_calls(&files, "provider")),
        ("tool", by_calls(&files, "tool_name")),
    ];
    let total = by_runs(&files, |_| vec![Json::Null]).remove("null").unwrap();
    let failed = files.iter().map(|file| file.run["errors"].as_u64().unwrap()).sum::<u64>();
    let total = total.shown();
    for (by, groups) in expected {
        let stats = json(&runspan(dir.path(), &["stats", "--by", by, "--limit", "0", "--json"]));
        super::format::check(&super::format::definition("cli.schema.json", "stats"), "stats", [stats.clone()]);
        assert_eq!(shown_group(&stats["total"]).1, total, "total by {by}");
        let told: BTreeMap<String, Json> = stats["groups"].as_array().unwrap().iter().map(shown_group).collect();
        let groups: BTreeMap<String, Json> = groups.into_iter().map(|(key, sums)| (key, sums.shown())).collect();
        assert!(groups.len() > 1 || matches!(by, "day" | "hour"), "{by}: {groups:?}");
        assert_eq!(told, groups, "by {by}");
        let errors = stats["errors"].as_array().unwrap();
        assert_eq!(errors.iter().map(|error| error["count"].as_u64().unwrap()).sum::<u64>(), failed);
    }
}

#[test]
fn filters_choose_the_runs_that_list_shows_with_them() {
    let dir = super::support::tempdir();
    record_all_sorts(dir.path());
    for filters in [
        &["--agent-id", "agent-2"][..],
        &["--workflow-id", "flow-1"],
        &["--kind", "workflow", "--status", "error"],
        &["--session", "session-3", "--min-cost", "0.001"],
        &["--model", "gpt-4o"],
        &["--since", "1h", "--until", "2020-01-01T00:00:00Z"],
        &["--since", "1h", "--status", "completed"],
    ] {
        let listed = json(&runspan(dir.path(), &[&["list", "--limit", "0", "--json"], filters].concat()));
        let listed = listed.as_array().unwrap();
        let nanos = |value: &Json| value.as_f64().map(|usd| (usd * 1e9).round() as i64);
        let cost: Option<i64> = listed.iter().filter_map(|run| nanos(&run["cost_usd"])).reduce(|a, b| a + b);
        let prompt = listed.iter().filter_map(|run| run["tokens"]["prompt"].as_u64()).sum::<u64>();
        for by in ["agent", "model"] {
            let stats = json(&runspan(dir.path(), &[&["stats", "--by", by, "--json"], filters].concat()));
            assert_eq!(stats["total"]["runs"], listed.len(), "{filters:?}");
            assert_eq!(nanos(&stats["total"]["cost_usd"]), cost, "{filters:?}");
            let groups = stats["groups"].as_array().unwrap().iter();
            let told: u64 = groups.filter_map(|group| group["tokens"]["prompt"].as_u64()).sum();
            assert_eq!(told, prompt, "{filters:?} by {by}");
        }
    }
}

#[test]
fn bad_filters_are_wrong_use_with_what_is_allowed() {
    let dir = super::support::tempdir();
    for (args, allowed) in [
        (&["stats", "--by", "colour"][..], "agent, workflow, model, provider, tool, day, hour, session, tag"),
        (&["stats", "--status", "fine"], "running, waiting, success, error, timeout, cancelled, crashed"),
        (&["stats", "--since", "yesterday"], "90s, 15m, 2h, 7d"),
        (&["stats", "--min-cost", "much"], "dollars, such as 0.25"),
        (&["stats", "--kind", "x"], "agent, workflow"),
        (&["list", "--format", "csv"], "table, json and yaml"),
    ] {
        let answer = runspan(dir.path(), args);
        let err = String::from_utf8(answer.stderr).unwrap();
        assert_eq!((answer.status.code(), err.contains(allowed)), (Some(2), true), "{args:?}: {err}");
    }
}

#[test]
fn what_was_repeated_or_cancelled_is_no_success_and_no_failure() {
    let dir = tempdir();
    record_in(dir.path(), |_| {
        let run = runspan::Run::agent("a").start();
        run.llm("openai", "gpt-4o-mini").finish();
        run.finish();
        drop(runspan::Run::agent("a").start());
        let replay = tracing::info_span!(
            "invoke_agent",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.name = "a",
            runspan.replayed_run.id = "01KE9BZH80BGEY5ABZ7D0DHDQ1"
        );
        drop(replay);
    });
    let sums = |more: &[&str]| {
        let mut stats = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
        stats.args(["stats", "--json"]).args(more).env("RUNSPAN_STORE", dir.path());
        let printed = stats.output().unwrap();
        let stats: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
        let total = &stats["total"];
        [&total["count"], &total["success"], &total["cancelled"], &total["success_rate"]]
            .map(ToString::to_string)
            .join(" ")
    };
    assert_eq!(sums(&[]), "2 1 1 1.0");
    assert_eq!(sums(&["--replays", "with"]), "3 2 1 1.0");
    assert_eq!(sums(&["--replays", "only"]), "1 1 0 1.0");
}
