//! Real peers on loopback: an agent's spans and metrics go to a Collector, and from there to Jaeger.
//!
//! Only with `RUNSPAN_INTEROP=1`; a peer that is missing is then a failure. The peers run with the very
//! configurations that `collector-config/` has for users.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::support::TestDir;
use runspan::model::{RunStatus, RunSummary, StepView};
use serde_json::{Value, json};
use tracing::info_span;

use super::model_server::{Call, ModelServer, Script};
use super::rig::weather_agent;
use super::support::{Killed, WATCHDOG, child, is_child, only_run, outline, runs, steps, wait_until};

/// How long a span may take through Collector and Jaeger.
const ARRIVAL: Duration = Duration::from_secs(10);
/// What a child does that plays several parts.
const PART: &str = "RUNSPAN_TEST_PART";
const MODEL_URL: &str = "RUNSPAN_TEST_MODEL_URL";

// ---- the peers ----

/// Where a peer's program is, or nothing when these tests are switched off.
pub fn program(name: &str) -> Option<PathBuf> {
    static SAID: OnceLock<String> = OnceLock::new();
    if std::env::var("RUNSPAN_INTEROP").as_deref() != Ok("1") {
        eprintln!("skipped: RUNSPAN_INTEROP=1 turns on the tests against real peers");
        return None;
    }
    let said = SAID.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/peers");
        let found = Command::new(script).stderr(Stdio::inherit()).output().expect(".ci/peers");
        assert!(found.status.success(), ".ci/peers could not provide the peers: {}", found.status);
        String::from_utf8(found.stdout).unwrap()
    });
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Some(PathBuf::from(line.unwrap_or_else(|| panic!("no {name} in {said}"))))
}

/// The Collector and Jaeger, or nothing when these tests are switched off.
fn programs() -> Option<(PathBuf, PathBuf)> {
    Some((program("otelcol")?, program("jaeger")?))
}

/// A Collector and a Jaeger behind it, or the places where they and others will be.
pub struct Peers {
    dir: TestDir,
    addresses: BTreeMap<&'static str, SocketAddr>,
    // In this order they end.
    running: Vec<Killed>,
}

impl Peers {
    /// Finds free places for all.
    pub fn places() -> Self {
        const NAMES: [&str; 10] = [
            "COLLECTOR_OTLP_GRPC",
            "COLLECTOR_OTLP_HTTP",
            "JAEGER_OTLP_GRPC",
            "JAEGER_OTLP_HTTP",
            "JAEGER_QUERY_HTTP",
            "JAEGER_QUERY_GRPC",
            "TEMPO_OTLP_GRPC",
            "TEMPO_OTLP_HTTP",
            "TEMPO_HTTP",
            "TEMPO_GRPC",
        ];
        let addresses = NAMES.map(|name| (name, crate::forward::free_address())).into();
        Self { dir: crate::support::tempdir(), addresses, running: Vec::new() }
    }

    /// Starts both.
    pub fn started() -> Self {
        Self::started_by(Self::start)
    }

    /// Starts what `start` does; somebody else may have taken a place in the meantime, so there is another try.
    pub fn started_by(start: impl Fn(&mut Self) -> Result<(), String>) -> Self {
        for _ in 0..3 {
            let mut peers = Self::places();
            match start(&mut peers) {
                Ok(()) => return peers,
                Err(log) => eprintln!("once more, since a peer did not start:\n{log}"),
            }
        }
        panic!("the peers do not start");
    }

    fn start(&mut self) -> Result<(), String> {
        let (otelcol, jaeger) = programs().unwrap();
        self.start_one(Command::new(jaeger), "jaeger", &[])?;
        self.start_one(Command::new(otelcol), "collector", &[])
    }

    /// Starts a peer with a file of `collector-config/`, besides the addresses with the variables given.
    pub fn start_one(&mut self, command: Command, name: &str, more: &[(&str, String)]) -> Result<(), String> {
        self.start_saying(command, "--config", name, "Everything is ready", more)
    }

    /// The same for one with another flag, which says something else when it is ready.
    pub fn start_saying(
        &mut self,
        mut command: Command,
        flag: &str,
        name: &str,
        ready: &str,
        more: &[(&str, String)],
    ) -> Result<(), String> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("collector-config/{name}.yaml"));
        let log = self.dir.path().join(format!("{name}.log"));
        let child: Child = command
            .arg(format!("{flag}={}", config.display()))
            .envs(self.addresses.iter().map(|(name, address)| (*name, address.to_string())))
            .envs(more.iter().map(|(name, value)| (*name, value)))
            .env("COLLECTOR_DIR", self.dir.path().join("collected"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        // The first to start is the last to end.
        self.running.insert(0, Killed(child));
        let start = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains(ready) {
                return Ok(());
            }
            let ended = self.running[0].0.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > WATCHDOG {
                return Err(format!("{name}: {ended:?}\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}", self.addresses[name])
    }

    /// Returns a trace as Jaeger answers for it, `None` when there is none.
    fn jaeger_trace(&self, run: &RunSummary) -> Option<Vec<Value>> {
        let (status, body) = get(self.addresses["JAEGER_QUERY_HTTP"], &format!("/api/traces/{}", run.trace_id));
        assert!(status == 200 || status == 404, "{status}: {body}");
        Some(serde_json::from_str::<Value>(&body).ok()?["data"][0]["spans"].as_array()?.clone())
    }

    /// Waits until Jaeger has `wanted` spans of a run, and returns them.
    pub fn arrived(&self, run: &RunSummary, wanted: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let spans = self.jaeger_trace(run).unwrap_or_default();
            if spans.len() >= wanted {
                return spans;
            }
            assert!(start.elapsed() < ARRIVAL, "{wanted} spans wanted, {} came: {spans:#?}", spans.len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads what the Collector wrote of a signal, one request a line.
    fn collected(&self, signal: &str) -> Vec<Value> {
        let path = self.dir.path().join(format!("collected/{signal}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Checks that each of a run's spans came to the Collector, and no oftener than once.
    fn assert_delivered_once(&self, run: &RunSummary) {
        wait_until("all spans are in the file", || self.deliveries(run).len() as u64 == run.steps_total);
        // The file is written every 100 ms; a second copy may be on its way.
        std::thread::sleep(Duration::from_millis(250));
        let deliveries = self.deliveries(run);
        assert!(deliveries.values().all(|times| *times == 1), "{deliveries:?}");
    }

    /// Counts how often each span of a trace came to the Collector.
    fn deliveries(&self, run: &RunSummary) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for request in self.collected("traces") {
            for span in each(&request["resourceSpans"], "scopeSpans").flat_map(|scope| items(&scope["spans"])) {
                if span["traceId"] == run.trace_id.to_string() {
                    *count.entry(span["spanId"].as_str().unwrap().to_owned()).or_default() += 1;
                }
            }
        }
        count
    }

    /// Returns the last value of every series, by metric and attributes. Only one process may have sent metrics.
    pub fn metrics(&self) -> BTreeMap<String, Value> {
        let mut series = BTreeMap::new();
        for request in self.collected("metrics") {
            for metric in each(&request["resourceMetrics"], "scopeMetrics").flat_map(|scope| items(&scope["metrics"])) {
                for data in ["sum", "histogram", "gauge"] {
                    for point in items(&metric[data]["dataPoints"]) {
                        let name = metric["name"].as_str().unwrap();
                        series.insert(format!("{name} {}", attributes(&point["attributes"])), point.clone());
                    }
                }
            }
        }
        series
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn each<'a>(groups: &'a Value, within: &'a str) -> impl Iterator<Item = &'a Value> {
    items(groups).flat_map(move |group| items(&group[within]))
}

/// Writes attributes as `key=value`, sorted.
fn attributes(list: &Value) -> String {
    let mut pairs: Vec<String> = items(list)
        .map(|pair| {
            let value = pair["value"].as_object().and_then(|value| value.values().next()).unwrap();
            format!("{}={}", pair["key"].as_str().unwrap(), value.as_str().map_or(value.to_string(), str::to_owned))
        })
        .collect();
    pairs.sort();
    pairs.join(" ")
}

/// Asks with HTTP/1.0, so that the answer ends with its connection.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ARRIVAL)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

// ---- what Jaeger shows ----

pub fn tag<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let mut found = items(&span["tags"]).filter(|tag| tag["key"] == key);
    let first = found.next();
    assert!(found.next().is_none(), "{key} stands twice on {span:#}");
    Some(&first?["value"])
}

fn parent(span: &Value) -> Option<&str> {
    items(&span["references"]).find(|reference| reference["refType"] == "CHILD_OF")?["spanID"].as_str()
}

/// One line a span, in order of start: depth by parents, name, and those of some tags that it has.
fn tree(spans: &[Value]) -> Vec<String> {
    const SHOWN: [&str; 8] = [
        "span.kind",
        "gen_ai.agent.name",
        "gen_ai.tool.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "otel.status_code",
        "error.type",
        "runspan.step.status",
    ];
    let mut spans: Vec<&Value> = spans.iter().collect();
    spans.sort_by_key(|span| span["startTime"].as_u64());
    let depth = |span: &Value| {
        let above = |id: &str| spans.iter().find(|span| span["spanID"] == id).and_then(|span| parent(span));
        std::iter::successors(parent(span), |id| above(id)).count()
    };
    let line = |span: &&Value| {
        let tags = SHOWN.iter().filter_map(|key| {
            let value = tag(span, key)?;
            let key = key.trim_start_matches("gen_ai.");
            Some(format!(" {key}={}", value.as_str().map_or(value.to_string(), str::to_owned)))
        });
        let name = span["operationName"].as_str().unwrap();
        format!("{}{name}{}", "  ".repeat(depth(span)), tags.collect::<String>())
    };
    spans.iter().map(line).collect()
}

/// Checks a whole trace against the stored run: ids, parents, operations, tokens, cost.
fn assert_same(spans: &[Value], run: &RunSummary, steps: &[StepView]) {
    assert_eq!(spans.len(), steps.len());
    for step in steps {
        let id = step.span_id.to_string();
        let span =
            spans.iter().find(|span| span["spanID"] == *id).unwrap_or_else(|| panic!("{} is missing", step.name));
        assert_eq!(span["traceID"], run.trace_id.to_string());
        assert_eq!(parent(span).map(str::to_owned), step.parent_span_id.map(|id| id.to_string()));
        assert_eq!(span["startTime"], step.started_at.0 / 1000);
        let number = |key: &str| tag(span, key).and_then(Value::as_u64);
        let tokens = step.tokens.unwrap_or_default();
        assert_eq!(number("gen_ai.usage.input_tokens"), tokens.prompt, "{span:#}");
        assert_eq!(number("gen_ai.usage.output_tokens"), tokens.completion, "{span:#}");
        assert_eq!(number("gen_ai.usage.cache_read.input_tokens"), tokens.cache_read, "{span:#}");
        assert_eq!(number("gen_ai.usage.reasoning.output_tokens"), tokens.reasoning, "{span:#}");
        let cost = tag(span, "runspan.cost.usd").and_then(Value::as_f64);
        assert_eq!(cost, step.cost_usd.map(|cost| cost.0 as f64 / 1e9), "{span:#}");
        assert_eq!(tag(span, "runspan.cost.source").is_some(), step.cost_source.is_some(), "{span:#}");
    }
    let root = spans.iter().find(|span| parent(span).is_none()).unwrap();
    assert_eq!(tag(root, "runspan.run.id").and_then(Value::as_str), Some(&*run.run_id.to_string()));
}

// ---- a rig agent's way to Jaeger ----

/// What the children do: `init`, an agent that succeeds, one that fails, and a word on what became of it all.
fn record_rig_agents() {
    let guard = runspan::init();
    let url = std::env::var(MODEL_URL).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        weather_agent(&url, "gpt-4o-mini").prompt("What is the weather in Bern?").await.unwrap();
        weather_agent(&url, "fail-500").prompt("What is the weather in Bern?").await.unwrap_err();
    });
    assert!(guard.flush(WATCHDOG));
    let counts = guard.outcomes();
    let received = counts.received;
    let stored = counts.total(runspan::model::outcome::Outcome::Stored);
    let report = guard.shutdown(Duration::from_secs(10));
    println!(
        "\nreport {}",
        json!({
            "stored": report.stored, "exported": report.exported, "pending": report.pending,
            "dropped": report.dropped, "records": stored, "received": received,
        })
    );
}

/// Waits for a child to end well and returns its report.
fn report_of(mut child: Killed) -> Value {
    let mut said = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let mut warned = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut warned).unwrap();
    assert!(child.0.wait().unwrap().success(), "{said}\n{warned}");
    eprintln!("{warned}");
    let report = said.lines().find_map(|line| line.strip_prefix("report "));
    serde_json::from_str(report.unwrap_or_else(|| panic!("no report: {said}"))).unwrap()
}

/// Starts `test` as a child that sends to `endpoint`.
fn sending_child(test: &str, store: &Path, endpoint: &str) -> Command {
    let mut command = child(test, store);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_SERVICE_NAME", "weather-service");
    command
}

/// Runs the agents in a child with the environment given, and checks what Jaeger and the Collector have of it.
fn rig_agents_arrive_whole(test: &str, endpoint: &str, environment: &[(&str, &str)]) {
    let (peers, dir) = (Peers::started(), crate::support::tempdir());
    let server = ModelServer::start(Script::demo()).unwrap();
    let mut command = sending_child(test, dir.path(), &peers.url(endpoint));
    command.env(MODEL_URL, server.base_url()).envs(environment.iter().copied());
    let report = report_of(Killed(command.spawn().unwrap()));
    let numbers = ["stored", "exported", "pending"].map(|key| report[key].as_u64().unwrap());
    assert_eq!((numbers, &report["dropped"]), ([6, 6, 0], &json!({})));

    let runs = runs(dir.path());
    let of = |status| runs.iter().find(|run| run.status == status).unwrap();
    let (good, bad) = (of(RunStatus::Success), of(RunStatus::Error));
    let spans = peers.arrived(good, 4);
    assert_same(&spans, good, &steps(dir.path(), good.run_id));
    assert_eq!(
        tree(&spans),
        [
            "invoke_agent span.kind=internal agent.name=reporter",
            "  chat span.kind=internal agent.name=reporter provider.name=openai request.model=gpt-4o-mini",
            "  execute_tool span.kind=internal tool.name=get_weather",
            "  chat span.kind=internal agent.name=reporter provider.name=openai request.model=gpt-4o-mini",
        ]
    );
    let spans = peers.arrived(bad, 2);
    assert_same(&spans, bad, &steps(dir.path(), bad.run_id));
    assert_eq!(
        tree(&spans),
        [
            "invoke_agent span.kind=internal agent.name=reporter",
            "  chat span.kind=internal agent.name=reporter provider.name=openai request.model=fail-500 otel.status_code=ERROR error.type=_OTHER runspan.step.status=error",
        ]
    );
    for run in [good, bad] {
        peers.assert_delivered_once(run);
    }
    assert_metrics(&peers, good, &server.calls(), report["records"].as_u64().unwrap());
}

fn assert_metrics(peers: &Peers, good: &RunSummary, calls: &[Call], records: u64) {
    wait_until("the metrics are in the file", || !peers.metrics().is_empty());
    let series = peers.metrics();
    let all = |name: &str, with: &str| -> Vec<Value> {
        let wanted = |key: &str| key.split(' ').next() == Some(name) && key.contains(with);
        series.iter().filter(|(key, _)| wanted(key)).map(|(_, point)| point.clone()).collect()
    };
    let one = |name: &str, with: &str| {
        let found = all(name, with);
        assert_eq!(found.len(), 1, "{name} {with} of {:#?}", series.keys());
        found.into_iter().next().unwrap()
    };
    let count = |point: &Value, key: &str| point[key].as_str().unwrap().parse::<u64>().unwrap();
    let tokens = good.tokens.unwrap();
    for (kind, billed) in [("input", tokens.prompt), ("output", tokens.completion)] {
        let point = one("gen_ai.client.token.usage", &format!("gen_ai.token.type={kind}"));
        assert_eq!((point["sum"].as_f64(), count(&point, "count")), (billed.map(|n| n as f64), 2));
        assert_eq!(point["explicitBounds"].as_array().unwrap()[..3], [json!(1), json!(4), json!(16)]);
    }
    let point = one("gen_ai.client.operation.duration", "gen_ai.request.model=gpt-4o-mini");
    assert_eq!((count(&point, "count"), point["explicitBounds"].as_array().unwrap().len()), (2, 14));
    assert_eq!((&point["explicitBounds"][0], &point["explicitBounds"][13]), (&json!(0.01), &json!(81.92)));
    assert_eq!(count(&one("gen_ai.client.operation.duration", "error.type=_OTHER"), "count"), 1);
    assert_eq!(calls.len(), 3);
    for status in ["success", "error"] {
        let with = format!("status={status}");
        assert_eq!(count(&one("runspan.runs", &with), "asInt"), 1);
        assert_eq!(count(&one("runspan.run.duration", &with), "count"), 1);
    }
    let cost = one("runspan.run.cost", "status=success");
    assert_eq!(cost["sum"].as_f64(), good.cost_usd.map(|cost| cost.0 as f64 / 1e9));
    let stored = all("runspan.records", "outcome=stored");
    assert_eq!(stored.iter().map(|point| count(point, "asInt")).sum::<u64>(), records);
}

#[test]
fn a_rig_agent_reaches_jaeger_over_http() {
    const TEST: &str = "interop::a_rig_agent_reaches_jaeger_over_http";
    if is_child(TEST).is_some() {
        return record_rig_agents();
    }
    if programs().is_some() {
        rig_agents_arrive_whole(TEST, "COLLECTOR_OTLP_HTTP", &[]);
    }
}

#[test]
fn a_rig_agent_reaches_jaeger_over_grpc_compressed() {
    const TEST: &str = "interop::a_rig_agent_reaches_jaeger_over_grpc_compressed";
    if is_child(TEST).is_some() {
        return record_rig_agents();
    }
    if programs().is_some() {
        let environment = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=weather"),
        ];
        rig_agents_arrive_whole(TEST, "COLLECTOR_OTLP_GRPC", &environment);
    }
}

// ---- when something breaks ----

/// A tool that ends and a call that does not.
fn agent_that_hangs() {
    let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "doomed");
    let _in_agent = agent.enter();
    info_span!("execute_tool", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = "search").in_scope(|| {});
    let call = info_span!("chat", gen_ai.operation.name = "chat", gen_ai.request.model = "gpt-4o-mini");
    let _in_call = call.enter();
    println!("\nhangs");
    std::thread::sleep(WATCHDOG);
}

/// One small run.
fn agent_that_is_quick() {
    info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "quick").in_scope(|| {});
}

fn record_and_report(agent: impl FnOnce()) {
    let guard = runspan::init();
    agent();
    let report = guard.shutdown(Duration::from_secs(10));
    println!("\nreport {}", json!({"stored": report.stored, "exported": report.exported, "pending": report.pending}));
}

#[test]
fn a_killed_agents_spans_reach_jaeger_once_and_marked() {
    const TEST: &str = "interop::a_killed_agents_spans_reach_jaeger_once_and_marked";
    if is_child(TEST).is_some() {
        let hangs = std::env::var(PART).as_deref() == Ok("hangs");
        return record_and_report(if hangs { agent_that_hangs } else { agent_that_is_quick });
    }
    if programs().is_none() {
        return;
    }
    let (peers, dir) = (Peers::started(), crate::support::tempdir());
    let endpoint = peers.url("COLLECTOR_OTLP_HTTP");
    let mut doomed = Killed(sending_child(TEST, dir.path(), &endpoint).env(PART, "hangs").spawn().unwrap());
    let said = BufReader::new(doomed.0.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "hangs"));
    wait_until("the open step shows", || {
        dir.path().join("store.yaml").exists() && runs(dir.path()).first().is_some_and(|run| run.steps_total == 3)
    });
    let run = only_run(dir.path());
    // What has ended is there before the run has, and what has not is not.
    let tool = "execute_tool span.kind=internal tool.name=search";
    assert_eq!(tree(&peers.arrived(&run, 1)), [format!("  {tool}")]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(peers.jaeger_trace(&run).unwrap().len(), 1);
    doomed.kill();

    let quick = || report_of(Killed(sending_child(TEST, dir.path(), &endpoint).spawn().unwrap()));
    assert_eq!(quick(), json!({"stored": 1, "exported": 1, "pending": 0}));
    // What one has no time for beside its own, the next one sends.
    for _ in 0..10 {
        if peers.jaeger_trace(&run).is_some_and(|spans| spans.len() >= 3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
        quick();
    }
    let spans = peers.arrived(&run, 3);
    let run = runs(dir.path()).into_iter().find(|run| run.agent_id.as_deref() == Some("doomed")).unwrap();
    assert_same(&spans, &run, &steps(dir.path(), run.run_id));
    assert_eq!(run.status, RunStatus::Crashed);
    assert_eq!(
        tree(&spans),
        [
            "invoke_agent span.kind=internal agent.name=doomed otel.status_code=ERROR runspan.step.status=crashed",
            &format!("  {tool}"),
            "  chat span.kind=internal request.model=gpt-4o-mini otel.status_code=ERROR runspan.step.status=crashed",
        ]
    );
    assert_eq!(
        outline(&steps(dir.path(), run.run_id)),
        ["doomed agent crashed", "  search tool success", "  chat llm crashed"]
    );
    // One more process has nothing left to send of it.
    quick();
    peers.assert_delivered_once(&run);
    wait_until("no journal is left", || {
        runs(dir.path());
        std::fs::read_dir(dir.path().join("journal")).unwrap().next().is_none()
    });
}

#[test]
fn what_a_missing_collector_did_not_get_the_next_process_sends() {
    const TEST: &str = "interop::what_a_missing_collector_did_not_get_the_next_process_sends";
    if is_child(TEST).is_some() {
        return record_and_report(agent_that_is_quick);
    }
    if programs().is_none() {
        return;
    }
    let (mut peers, dir) = (Peers::places(), crate::support::tempdir());
    let endpoint = peers.url("COLLECTOR_OTLP_HTTP");
    let quick = || report_of(Killed(sending_child(TEST, dir.path(), &endpoint).spawn().unwrap()));
    assert_eq!(quick(), json!({"stored": 1, "exported": 0, "pending": 1}));
    assert_eq!(quick(), json!({"stored": 1, "exported": 0, "pending": 1}));
    peers.start().unwrap();
    assert_eq!(quick(), json!({"stored": 1, "exported": 1, "pending": 0}));
    let runs = runs(dir.path());
    assert_eq!(runs.len(), 3);
    for run in &runs {
        assert_eq!(tree(&peers.arrived(run, 1)), ["invoke_agent span.kind=internal agent.name=quick"]);
        peers.assert_delivered_once(run);
    }
    assert!(std::fs::read_dir(dir.path().join("journal")).unwrap().next().is_none(), "the journals are gone");
}
