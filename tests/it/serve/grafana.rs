//! The dashboards and data sources for Grafana: as its published types want them, and each query with values.
//!
//! The data are those of a live server, in two waves, since a rate needs a before and an after.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message;
use runspan::model::otlp::{Span, Status};
use runspan::model::{RunStatus, RunSummary};
use serde::Deserialize;
use serde_json::Value as Json;

use super::prometheus::Prometheus;
use super::{PROTOBUF, Server, agent, ask, post, request, wait_for};
use crate::forward::{Peer, free_address};
use crate::interop::program;
use crate::support::{ended, tempdir, wait_until};

const DASHBOARDS: [&str; 4] = ["bridge", "latency", "runs", "usage"];

/// Panels that show what is under way, which is nothing when all is done.
const MAY_BE_ZERO: [&str; 2] = ["Memory of requests", "Connections"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("collector-config/grafana")
}

fn dashboards() -> Vec<(String, Json)> {
    let folder = folder().join("dashboards");
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, DASHBOARDS.map(|name| format!("{name}.json")));
    let read = |name: String| {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        (name, serde_json::from_str(&text).unwrap())
    };
    names.into_iter().map(read).collect()
}

fn list<'a>(value: &'a Json, key: &str) -> &'a [Json] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

#[test]
fn dashboards_are_what_grafanas_published_types_say() {
    let Some(modules) = program("node_modules") else { return };
    let work = tempdir();
    let mut check = std::fs::read_to_string(super::senders::script("grafana/prelude.ts")).unwrap();
    for (n, (_, dashboard)) in dashboards().into_iter().enumerate() {
        check += &format!("export const dashboard{n}: Json<Dashboard> = {dashboard};\n");
        for panel in list(&dashboard, "panels") {
            let (id, kind) = (panel["id"].as_u64().unwrap(), text(panel, "type"));
            let custom =
                panel["fieldConfig"]["defaults"].get("custom").cloned().unwrap_or_else(|| serde_json::json!({}));
            check += &format!("export const options{n}_{id}: Options['{kind}'] = {};\n", panel["options"]);
            check += &format!("export const custom{n}_{id}: Custom['{kind}'] = {custom};\n");
            check += &format!("export const queries{n}_{id}: Query[] = {};\n", panel["targets"]);
        }
    }
    std::fs::write(work.path().join("check.ts"), check).unwrap();
    std::fs::write(work.path().join("package.json"), r#"{"type": "module"}"#).unwrap();
    let options = r#"{"strict": true, "noEmit": true, "skipLibCheck": true, "module": "nodenext", "target": "es2022", "types": []}"#;
    std::fs::write(
        work.path().join("tsconfig.json"),
        format!(r#"{{"compilerOptions": {options}, "files": ["check.ts"]}}"#),
    )
    .unwrap();
    std::os::unix::fs::symlink(modules, work.path().join("node_modules")).unwrap();
    let mut command = Command::new("node");
    command.args(["node_modules/typescript/bin/tsc", "-p", "."]).current_dir(work.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(command);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// One of each thing that the dashboards show; `n` makes ids of its own.
fn wave(n: u8) -> Vec<Span> {
    let error = || Some(Status { code: 2, message: "no".to_owned() });
    let mut well = agent(n);
    well[0].set_attr("gen_ai.response.time_to_first_chunk", 0.2);
    let mut failed = agent(n + 1);
    failed[2].status = error();
    failed[2].set_attr("error.type", "PlanError");
    let mut call_failed = agent(n + 2);
    call_failed[0].status = error();
    call_failed[0].set_attr("error.type", "rate_limit_exceeded");
    let broken = Span { trace_id: vec![n; 16], ..Span::default() };
    [well, failed, call_failed, vec![broken]].concat()
}

fn send(server: &Server, spans: Vec<Span>) {
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    // What is refused whole is shown, and so are metrics that go on.
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", b"\x0a\xff").0, 400);
    let head = format!("POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}");
    assert_eq!(ask(server.port("otlp-http"), &head, &[0x0a, 4, 0x12, 2, 0x0a, 0]).0, 200);
}

/// Fills what Grafana fills: variables that show all, and its own.
fn filled(expression: &str, dashboard: &Json) -> String {
    let mut filled = expression.replace("$__rate_interval", "1m").replace("$__range", "10m");
    for variable in list(&dashboard["templating"], "list") {
        let all = variable["allValue"].as_str().unwrap_or_default();
        filled = filled.replace(&format!("${}", text(variable, "name")), all);
    }
    assert!(!filled.contains('$'), "a variable that the dashboard does not have: {filled}");
    filled
}

#[test]
fn every_query_of_the_dashboards_has_values_and_every_dot_leads_to_a_stored_run() {
    let (dir, (peer, at), dead) = (tempdir(), Peer::started(), free_address());
    let forward = [format!("http://{at}"), format!("http://{dead}")];
    let server = Server::start(dir.path(), &["--forward", &forward[0], "--forward", &forward[1]]);
    let Some(prometheus) = Prometheus::scraping(server.port("http")) else { return };
    let is_scraped = |runs: f64| {
        // The last of each chain: what is behind it is counted.
        prometheus.value("sum(runspan_runs_total)") == Some(runs)
            && prometheus.value("sum(runspan_records_total{reason=\"bad_id\"})") == Some(runs / 3.0)
            && prometheus.value("sum(runspan_bridge_forwarded_metrics_total{outcome=\"sent\"})") == Some(runs / 3.0)
    };
    send(&server, wave(1));
    wait_until("the first wave is scraped", || is_scraped(3.0));
    send(&server, wave(11));
    wait_until("the second wave is scraped", || is_scraped(6.0));
    let over = |runs: &[RunSummary]| runs.iter().filter(|run| run.completed_at.is_some()).count() == 6;
    let runs = wait_for(dir.path(), over);
    let stored: BTreeSet<String> = runs.iter().map(|run| run.trace_id.to_string()).collect();
    wait_until("a rate has two samples, and something waits", || {
        prometheus.value("sum(increase(runspan_runs_total[1m]))").is_some_and(|runs| runs > 0.0)
            && prometheus.value("max(runspan_bridge_journal_age_seconds)").is_some_and(|age| age > 0.0)
    });
    assert!(!peer.spans().is_empty());

    let (mut queries, mut dots) = (0, 0);
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(!list(panel, "targets").is_empty(), "{name}: {title}");
            for target in list(panel, "targets") {
                let query = filled(text(target, "expr"), &dashboard);
                let values = prometheus.values(&query).unwrap_or_else(|| panic!("{name}: {title}: refused: {query}"));
                assert!(!values.is_empty(), "{name}: {title}: nothing for {query}");
                assert!(values.iter().any(|value| value.is_finite()), "{name}: {title}: {values:?} for {query}");
                let shows = values.iter().any(|value| *value > 0.0);
                assert!(shows || MAY_BE_ZERO.contains(&title), "{name}: {title}: {values:?} for {query}");
                queries += 1;
                if target["exemplar"] == true {
                    let labels = prometheus.exemplars(&query).unwrap();
                    let traces: Vec<&str> = labels.iter().filter_map(|labels| labels["trace_id"].as_str()).collect();
                    assert!(!traces.is_empty(), "{name}: {title}: no exemplar for {query}");
                    assert!(traces.iter().all(|trace| stored.contains(*trace)), "{traces:?} of {stored:?}");
                    dots += 1;
                }
            }
        }
        // What fills the menus of the variables.
        for variable in list(&dashboard["templating"], "list").iter().filter(|variable| variable["type"] == "query") {
            let query = text(&variable["query"], "query");
            let (selector, label) = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap();
            let query = format!("count by ({}) ({})", label.trim_end_matches(')'), filled(selector, &dashboard));
            assert!(!prometheus.values(&query).unwrap().is_empty(), "{name}: {query}");
        }
    }
    assert!(queries >= 50 && dots >= 7, "{queries} queries, {dots} of them with exemplars");
    // What the panels count is what the runs come to.
    let total = |of: fn(&RunSummary) -> f64| runs.iter().map(of).sum::<f64>();
    let tokens = |run: &RunSummary| run.tokens.and_then(|tokens| tokens.total).unwrap_or(0) as f64;
    let errors = total(|run| f64::from(run.status == RunStatus::Error));
    assert_eq!((errors, prometheus.value("sum(runspan_runs_total{status=\"error\"})")), (2.0, Some(2.0)));
    assert_eq!(prometheus.value("sum(runspan_usage_tokens_total)"), Some(total(tokens)));
    let by_agent =
        prometheus.value("sum(runspan_usage_cost_usd_total{name=\"weather\", model=\"gpt-4o-mini\"})").unwrap();
    assert!((by_agent - total(|run| run.cost_usd.unwrap().as_usd())).abs() < 1e-12, "{by_agent}");
    assert_eq!(server.end(), Some(0));
}

// ---- data sources ----

/// A file of data sources; a key that Grafana's own form does not have is an error here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sources {
    api_version: u8,
    datasources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Source {
    name: String,
    uid: String,
    r#type: String,
    access: String,
    url: String,
    #[serde(default)]
    json_data: SourceData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourceData {
    #[serde(default)]
    http_method: String,
    #[serde(default)]
    time_interval: String,
    #[serde(default)]
    exemplar_trace_id_destinations: Vec<Destination>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Destination {
    name: String,
    datasource_uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "that it can be read is what is asked")]
struct Providers {
    api_version: u8,
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "that it can be read is what is asked")]
struct Provider {
    name: String,
    org_id: u64,
    folder: String,
    r#type: String,
    disable_deletion: bool,
    update_interval_seconds: u64,
    allow_ui_updates: bool,
    options: std::collections::BTreeMap<String, String>,
}

fn source(path: &str) -> Source {
    let read = std::fs::read_to_string(folder().join(path)).unwrap();
    let mut sources: Sources = serde_saphyr::from_str(&read).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!((sources.api_version, sources.datasources.len()), (1, 1));
    sources.datasources.remove(0)
}

#[test]
fn exemplars_lead_to_the_data_source_of_traces_and_all_addresses_are_those_of_the_other_files() {
    let prometheus = source("provisioning/datasources/prometheus.yaml");
    let (jaeger, tempo) = (source("provisioning/datasources/jaeger.yaml"), source("tempo-datasource.yaml"));
    let kinds = [&prometheus, &jaeger, &tempo].map(|source| (source.r#type.as_str(), source.access.as_str()));
    assert_eq!(kinds, [("prometheus", "proxy"), ("jaeger", "proxy"), ("tempo", "proxy")]);
    assert_eq!((&jaeger.uid, &jaeger.name), (&tempo.uid, &tempo.name), "one in the place of the other");
    // The label is the one that `/metrics` gives to exemplars; the test of queries sees it arrive.
    let to = Destination { name: "trace_id".into(), datasource_uid: jaeger.uid.clone() };
    assert_eq!(prometheus.json_data.exemplar_trace_id_destinations, [to]);
    assert_eq!(prometheus.json_data.http_method, "POST");

    let beside = |name: &str| std::fs::read_to_string(folder().join("..").join(name)).unwrap();
    assert!(beside("prometheus.yaml").contains(&format!("scrape_interval: {}\n", prometheus.json_data.time_interval)));
    assert!(beside("jaeger.yaml").contains(&format!(":-{}}}", jaeger.url.trim_start_matches("http://"))));
    assert!(beside("tempo.yaml").contains(&format!("TEMPO_HTTP_PORT:-{}}}", tempo.url.rsplit(':').next().unwrap())));

    let provider = std::fs::read_to_string(folder().join("provisioning/dashboards/runspan.yaml")).unwrap();
    serde_saphyr::from_str::<Providers>(&provider).unwrap();
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert!(uids.insert(text(&dashboard, "uid").to_owned()), "{name}");
        let shown = &list(&dashboard["templating"], "list")[0]["current"];
        assert_eq!(
            text(shown, "value"),
            prometheus.uid,
            "{name}: the data source that is provisioned is the first shown"
        );
        assert_eq!(text(shown, "text"), prometheus.name);
    }
}
