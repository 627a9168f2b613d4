//! Metrics against the runs that they describe: every series, computed again from what is in the store.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use runspan::model::otlp::{KeyValue, Resource, Span};
use runspan::model::{RunSummary, SpanId, StepKind, StepView};
use runspan::store::RunReader;
use runspan::{Guard, Run, Usage};

use super::support::{child, ended, is_child, open, runs, said, signal, steps, wait_until};

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resources {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scopes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scopes {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "7")]
    sum: Option<Sums>,
    #[prost(message, optional, tag = "9")]
    histogram: Option<Histograms>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sums {
    #[prost(message, repeated, tag = "1")]
    points: Vec<SumPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SumPoint {
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(sfixed64, tag = "6")]
    int: i64,
    #[prost(double, tag = "4")]
    double: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histograms {
    #[prost(message, repeated, tag = "1")]
    points: Vec<HistogramPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HistogramPoint {
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, tag = "5")]
    sum: f64,
    #[prost(fixed64, repeated, tag = "6")]
    buckets: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    bounds: Vec<f64>,
}

/// Series by metric and attributes: how many, their sum in billionths, and how many in each bucket that has some.
type Series = BTreeMap<String, (u64, i64, BTreeMap<String, u64>)>;

/// How a peer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answers,
    /// It takes what it is sent and says nothing.
    Hangs,
    /// It hangs up and has taken nothing.
    HangsUp,
}

/// An OTLP/HTTP server that keeps every request that it takes.
struct Peer {
    url: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Peer {
    fn new() -> Self {
        Self::with(Manner::Answers)
    }

    fn with(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
        let peer = Self { url, seen: Arc::default(), manner: Arc::new(Mutex::new(manner)) };
        let (seen, manner) = (Arc::clone(&peer.seen), Arc::clone(&peer.manner));
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let (mut stream, manner) = (BufReader::new(stream), *manner.lock().unwrap());
                if manner == Manner::HangsUp {
                    continue;
                }
                let Some(body) = body_of(&mut stream) else { continue };
                seen.lock().unwrap().push(body);
                if manner == Manner::Answers {
                    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.get_mut().write_all(answer);
                } else {
                    hanging.push(stream);
                }
            }
        });
        peer
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Has a process send its metrics here.
    fn meet(&self, process: &mut Command) {
        process.env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &self.url);
    }

    /// What a database of cumulative series knows: of each series of each process the last value; over all processes.
    fn knows(&self) -> Series {
        let mut last: BTreeMap<(String, String), _> = BTreeMap::new();
        for body in self.seen.lock().unwrap().iter() {
            let (instance, series) = arrived(body);
            last.extend(series.into_iter().map(|(key, value)| ((instance.clone(), key), value)));
        }
        let mut all = Series::new();
        last.into_iter().for_each(|((_, key), value)| add_up(&mut all, key, value));
        all
    }

    /// What a database of deltas knows.
    fn sums(&self) -> Series {
        let mut all = Series::new();
        for body in self.seen.lock().unwrap().iter() {
            arrived(body).1.into_iter().for_each(|(key, value)| add_up(&mut all, key, value));
        }
        all
    }
}

fn body_of(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    for line in stream.by_ref().lines().map_while(Result::ok) {
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = bytes.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok().map(|()| body)
}

fn add_up(series: &mut Series, key: String, (count, sum, buckets): (u64, i64, BTreeMap<String, u64>)) {
    let all = series.entry(key).or_default();
    (all.0, all.1) = (all.0 + count, all.1 + sum);
    buckets.into_iter().for_each(|(bound, n)| *all.2.entry(bound).or_default() += n);
}

fn key(name: &str, attributes: &[(&str, String)]) -> String {
    let mut texts: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    texts.sort();
    format!("{name} {}", texts.join(" "))
}

fn texts(attributes: &[KeyValue]) -> Vec<(&str, String)> {
    let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap().to_json() {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    attributes.iter().map(|pair| (pair.key.as_str(), text(pair))).collect()
}

/// Whose metrics a request has, and which.
fn arrived(body: &[u8]) -> (String, Series) {
    let name = |metric: &Metric, attributes: &[KeyValue]| key(&metric.name, &texts(attributes));
    let request = Request::decode(body).unwrap();
    let resource = request.resources[0].resource.clone().unwrap_or_default();
    let instance = texts(&resource.attributes).into_iter().find(|(key, _)| *key == "service.instance.id");
    let scopes = request.resources.iter().flat_map(|resource| &resource.scopes);
    let mut series = Series::new();
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        for point in metric.sum.iter().flat_map(|sum| &sum.points) {
            series.insert(
                name(metric, &point.attributes),
                (point.int as u64, (point.double * 1e9).round() as i64, BTreeMap::new()),
            );
        }
        for point in metric.histogram.iter().flat_map(|histogram| &histogram.points) {
            let bound = |place: usize| point.bounds.get(place).map_or("more".to_owned(), f64::to_string);
            let filled = point.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
            let buckets = filled.map(|(place, n)| (bound(place), *n)).collect();
            let value = (point.count, (point.sum * 1e9).round() as i64, buckets);
            series.insert(name(metric, &point.attributes), value);
        }
    }
    (instance.unwrap().1, series)
}

const TOKENS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0];
const RUN_SECONDS: [f64; 5] = [0.1, 0.5, 1.0, 2.0, 5.0];
const CALL_SECONDS: [f64; 10] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12];
const USD: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

fn add(series: &mut Series, key: String, billionths: i64, bounds: &[f64]) {
    let bucket = bounds.iter().find(|bound| billionths as f64 / 1e9 <= **bound).unwrap();
    add_up(series, key, (1, billionths, BTreeMap::from([(bucket.to_string(), 1)])));
}

fn add_step(series: &mut Series, run: &RunSummary, step: &StepView, span: &Span, is_told_below: bool) {
    const APART: [&str; 6] = [
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "server.address",
        "server.port",
    ];
    let is_call = step.kind == StepKind::Llm;
    if step.duplicate_of.is_some() || (!is_call && is_told_below) {
        return;
    }
    let all = texts(&span.attributes);
    let mut pairs: Vec<(&str, String)> = all.iter().filter(|(key, _)| APART.contains(key)).cloned().collect();
    let tokens = step.tokens.unwrap_or_default();
    let mut usage = vec![("kind", run.kind.to_string()), ("name", run.name().to_owned())];
    usage.extend(step.model.clone().map(|model| ("model", model)));
    usage.extend(step.provider.clone().map(|provider| ("provider", provider)));
    if let Some(cost) = step.cost_usd {
        add_up(series, key("runspan.usage.cost", &usage), (0, cost.0, BTreeMap::new()));
    }
    for (kind, tokens) in [("input", tokens.prompt), ("output", tokens.completion)] {
        if let Some(tokens) = tokens {
            let with_kind = [usage.as_slice(), &[("gen_ai.token.type", kind.to_owned())]].concat();
            add_up(series, key("runspan.usage.tokens", &with_kind), (tokens, 0, BTreeMap::new()));
        }
        let with_kind = [pairs.as_slice(), &[("gen_ai.token.type", kind.to_owned())]].concat();
        if let Some(tokens) = tokens {
            let key = key("gen_ai.client.token.usage", &with_kind);
            add(series, key, tokens as i64 * 1_000_000_000, &TOKENS);
        }
    }
    if !is_call {
        return;
    }
    if let Some((_, seconds)) = all.iter().find(|(key, _)| *key == "gen_ai.response.time_to_first_chunk") {
        let key = key("gen_ai.client.operation.time_to_first_chunk", &pairs);
        add(series, key, (seconds.parse::<f64>().unwrap() * 1e9).round() as i64, &CALL_SECONDS);
    }
    let error = step.error.as_ref().map(|error| error.kind.clone().unwrap_or("_OTHER".to_owned()));
    pairs.extend(error.map(|error| ("error.type", error)));
    let took = span.end_time_unix_nano - span.start_time_unix_nano;
    add(series, key("gen_ai.client.operation.duration", &pairs), took as i64, &CALL_SECONDS);
}

/// The whole spans of a run, from its log.
fn spans(store: &Path, run: &RunSummary) -> BTreeMap<SpanId, Span> {
    let events = open(store).get_events(run.run_id, 0).unwrap();
    let ends = events.iter().filter(|event| !event.body.is_step_start());
    let spans = ends.filter_map(|event| event.body.span()).map(|(span, _, _)| span.clone());
    spans.map(|span| (SpanId::from_bytes(&span.span_id).unwrap(), span)).collect()
}

fn add_run(series: &mut Series, store: &Path, run: &RunSummary) {
    let pairs = [("kind", run.kind.to_string()), ("name", run.name().to_owned()), ("status", run.status.to_string())];
    add_up(series, key("runspan.runs", &pairs), (1, 0, BTreeMap::new()));
    let took = run.duration_ms.unwrap() as i64 * 1_000_000;
    add(series, key("runspan.run.duration", &pairs), took, &RUN_SECONDS);
    if let Some(cost) = run.cost_usd {
        add(series, key("runspan.run.cost", &pairs), cost.0, &USD);
    }
    let (steps, spans) = (steps(store, run.run_id), spans(store, run));
    for step in &steps {
        // Of the runs here an agent has either calls that tell their tokens, or none below it.
        let is_told_below = steps.iter().any(|other| other.kind == StepKind::Llm && other.tokens.is_some());
        add_step(series, run, step, &spans[&step.span_id], is_told_below);
    }
}

/// What the store says, without the records, of which it does not know all.
fn of_store(store: &Path) -> Series {
    let mut series = Series::new();
    runs(store).iter().for_each(|run| add_run(&mut series, store, run));
    series
}

fn without_records(mut series: Series) -> Series {
    series.retain(|key, _| !key.starts_with("runspan.records "));
    series
}

/// Runs of many kinds and ends.
fn record_a_mixture() {
    for (provider, model) in [("openai", "gpt-4o"), ("anthropic", "claude-3-5-sonnet-latest"), ("nobody", "unpriced")] {
        let run = Run::agent("writer").start();
        // It repeats what the calls say.
        run.usage(Usage::new(9, 9));
        let outer = run.llm(provider, model);
        outer.usage(Usage::new(1200, 80).cache_read(1000));
        let copy = outer.llm(provider, model);
        copy.usage(Usage::new(1200, 80).cache_read(1000));
        copy.finish();
        outer.finish();
        let tool = run.tool("search");
        tool.fail(&std::io::Error::other("no such page"));
        let reported = run.llm(provider, model);
        reported.usage(Usage::new(3, 5)).cost_usd(0.25);
        reported.finish();
        run.finish();
    }
    let failed = Run::workflow("nightly").start();
    failed.llm("openai", "gpt-4o").fail(&std::io::Error::other("busy"));
    failed.fail(&std::io::Error::other("busy"));
    let alone = Run::agent("summarizer").start();
    alone.usage(Usage::new(70, 7));
    alone.finish();
    drop(Run::agent("given-up").start());
    let late = tracing::info_span!(
        "invoke_agent",
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = "late",
        otel.status_code = "ERROR",
        error.type = "TimeoutError",
    );
    let _late = late.enter();
    let call = tracing::info_span!(
        "chat",
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = "openai",
        gen_ai.request.model = "gpt-4o",
        gen_ai.response.model = "gpt-4o-2024-08-06",
        gen_ai.response.time_to_first_chunk = 0.03,
        gen_ai.usage.input_tokens = 11,
        server.address = "api.example",
        server.port = 443,
        otel.status_code = "ERROR",
        error.type = "APITimeoutError",
    );
    call.in_scope(|| std::thread::sleep(Duration::from_millis(15)));
}

const MIXTURE: usize = 7;

fn end(guard: Guard) {
    guard.shutdown(Duration::from_secs(20));
}

#[test]
fn every_series_is_what_the_runs_in_the_store_add_up_to() {
    const TEST: &str = "metrics::every_series_is_what_the_runs_in_the_store_add_up_to";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        record_a_mixture();
        assert!(guard.flush(Duration::from_secs(20)));
        println!();
        for ((outcome, reason), n) in guard.outcomes().by {
            println!("outcome {} {reason} {n}", outcome.as_str());
        }
        return end(guard);
    }
    let (dir, peer) = (crate::support::tempdir(), Peer::new());
    let mut process = child(TEST, dir.path());
    peer.meet(&mut process);
    let output = ended(process);
    assert!(output.status.success());
    let (mut expected, runs) = (of_store(dir.path()), runs(dir.path()));
    assert_eq!(runs.len(), MIXTURE);
    assert!(runs.iter().any(|run| run.status.as_str() == "timeout"), "{runs:#?}");
    // Starts, events and ends of steps, each told once.
    let spans: Vec<Span> = runs.iter().flat_map(|run| spans(dir.path(), run).into_values()).collect();
    let records = 2 * spans.len() + spans.iter().map(|span| span.events.len()).sum::<usize>();
    let pairs = [("outcome", "stored".to_owned()), ("reason", String::new())];
    expected.insert(key("runspan.records", &pairs), (records as u64, 0, BTreeMap::new()));
    assert_eq!(peer.knows(), expected);
    let out = String::from_utf8_lossy(&output.stdout);
    let outcomes: Vec<&str> = out.lines().filter(|line| line.starts_with("outcome ")).collect();
    assert_eq!(outcomes, [format!("outcome stored  {records}")]);
}

#[test]
fn two_processes_in_turn_count_together_what_is_in_their_store() {
    const TEST: &str = "metrics::two_processes_in_turn_count_together_what_is_in_their_store";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        record_a_mixture();
        return end(guard);
    }
    let (dir, peer) = (crate::support::tempdir(), Peer::new());
    for _ in 0..2 {
        let mut process = child(TEST, dir.path());
        peer.meet(&mut process);
        said(process);
    }
    assert_eq!(runs(dir.path()).len(), 2 * MIXTURE);
    assert_eq!(without_records(peer.knows()), of_store(dir.path()));
    // Nothing is left for anybody.
    assert!(!dir.path().join("metrics").exists());
}

/// A process that dies, with runs that were sent, that were counted, and that were under way.
fn die_in_the_middle(seen: &Path) {
    let guard = runspan::init();
    record_a_mixture();
    // The peer's side says when these are there.
    wait_until("an export", || seen.exists());
    record_a_mixture();
    let open = Run::agent("killed").start();
    let call = open.llm("openai", "gpt-4o");
    call.usage(Usage::new(5, 5));
    call.finish();
    let _never = open.tool("endless");
    assert!(guard.flush(Duration::from_secs(20)));
    signal(std::process::id(), libc::SIGKILL);
}

/// What is known after a process was killed and another one of the same store came and went.
fn after_a_kill(test: &str, variables: &[(&str, &str)], dir: &Path) -> Peer {
    let peer = Peer::new();
    let go = |killed: bool| {
        let mut process = child(test, dir);
        peer.meet(&mut process);
        process.envs(variables.iter().copied());
        process.env("SEEN", dir.join("seen")).env("KILLED", if killed { "yes" } else { "" });
        // Sent when there is something, and then not again while the process lives.
        process.env("OTEL_METRIC_EXPORT_INTERVAL", if killed { "1500" } else { "60000" });
        process
    };
    let first = go(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sent = || {
                let all = peer.sums();
                all.iter().filter(|(key, _)| key.starts_with("runspan.runs ")).map(|(_, value)| value.0).sum::<u64>()
            };
            wait_until("runs that arrive", || sent() >= MIXTURE as u64);
            std::fs::write(dir.join("seen"), "").unwrap();
        });
        assert!(!ended(first).status.success());
    });
    said(go(false));
    peer
}

fn is_killed_child() -> bool {
    std::env::var("KILLED").is_ok_and(|killed| !killed.is_empty())
}

fn be_killed_or_follow() {
    if is_killed_child() {
        return die_in_the_middle(Path::new(&std::env::var("SEEN").unwrap()));
    }
    let guard = runspan::init();
    record_a_mixture();
    end(guard);
}

#[test]
fn what_a_killed_process_had_not_sent_is_counted_once_by_the_next_one() {
    const TEST: &str = "metrics::what_a_killed_process_had_not_sent_is_counted_once_by_the_next_one";
    if is_child(TEST).is_some() {
        return be_killed_or_follow();
    }
    let dir = crate::support::tempdir();
    let peer = after_a_kill(TEST, &[], dir.path());
    assert_eq!(runs(dir.path()).len(), 3 * MIXTURE + 1);
    let found = without_records(peer.knows());
    assert!(found.contains_key("runspan.runs kind=agent name=killed status=crashed"), "{found:#?}");
    assert_eq!(found, of_store(dir.path()));
    assert!(!dir.path().join("metrics").exists());
}

#[test]
fn deltas_of_a_killed_process_and_the_next_one_add_up_to_the_store() {
    const TEST: &str = "metrics::deltas_of_a_killed_process_and_the_next_one_add_up_to_the_store";
    if is_child(TEST).is_some() {
        return be_killed_or_follow();
    }
    let dir = crate::support::tempdir();
    let variables = [("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")];
    let peer = after_a_kill(TEST, &variables, dir.path());
    assert_eq!(without_records(peer.sums()), of_store(dir.path()));
}

/// A series each, but for what is beyond the bound, which is counted together: in each process.
#[test]
fn at_the_bound_of_series_sums_stay_right_over_a_kill_too() {
    const TEST: &str = "metrics::at_the_bound_of_series_sums_stay_right_over_a_kill_too";
    if is_child(TEST).is_some() {
        return be_killed_or_follow();
    }
    let dir = crate::support::tempdir();
    let peer = after_a_kill(TEST, &[("RUNSPAN_METRIC_SERIES", "3")], dir.path());
    let (found, expected) = (peer.knows(), of_store(dir.path()));
    let sums = |series: &Series| {
        let mut sums = Series::new();
        for (key, value) in without_records(series.clone()) {
            add_up(&mut sums, key.split(' ').next().unwrap().to_owned(), value);
        }
        sums
    };
    assert_eq!(sums(&found), sums(&expected));
    assert!(found.contains_key("runspan.runs otel.metric.overflow=true"), "{found:#?}");
    assert!(found["gen_ai.client.token.usage otel.metric.overflow=true"].0 > 0);
}

#[test]
fn a_peer_of_metrics_that_hangs_holds_nothing_else_up() {
    const TEST: &str = "metrics::a_peer_of_metrics_that_hangs_holds_nothing_else_up";
    const LIMIT: Duration = Duration::from_secs(4);
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        crate::support::agent("told", 20);
        let begun = std::time::Instant::now();
        let report = guard.shutdown(LIMIT);
        assert!(begun.elapsed() < 2 * LIMIT, "{:?}", begun.elapsed());
        println!("exported {} pending {}", report.exported, report.pending);
        return;
    }
    let (hanging, traces) = (Peer::with(Manner::Hangs), Peer::new());
    let dir = crate::support::tempdir();
    let go = || {
        let mut process = child(TEST, dir.path());
        hanging.meet(&mut process);
        process.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.url.replace("/v1/metrics", "/v1/traces"));
        process
    };
    let output = ended(go());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("exported 21 pending 0"), "{out}\n{err}");
    assert!(err.contains("the last metrics were not sent"), "{err}");
    assert!(err.contains("the next process that sends metrics there sends them"), "{err}");
    assert!(!traces.seen.lock().unwrap().is_empty());
    // The worker has answered in time, so nothing is left for others to take over.
    assert_eq!(std::fs::read_dir(dir.path().join("journal")).unwrap().count(), 0);

    // It has taken what it did not answer, and is sent that again: the same values of the same process.
    hanging.behave(Manner::Answers);
    said(go());
    assert_eq!(without_records(hanging.knows()), of_store(dir.path()));
    assert!(!dir.path().join("metrics").exists());
}

#[test]
fn what_a_peer_missed_while_it_was_away_the_next_process_sends() {
    const TEST: &str = "metrics::what_a_peer_missed_while_it_was_away_the_next_process_sends";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        record_a_mixture();
        guard.shutdown(Duration::from_secs(1));
        return;
    }
    let (dir, peer) = (crate::support::tempdir(), Peer::with(Manner::HangsUp));
    let go = || {
        let mut process = child(TEST, dir.path());
        peer.meet(&mut process);
        said(process)
    };
    // Each of them leaves its own, and the first that reaches the peer sends all of it.
    go();
    go();
    assert_eq!(peer.seen.lock().unwrap().len(), 0);
    peer.behave(Manner::Answers);
    go();
    assert_eq!(runs(dir.path()).len(), 3 * MIXTURE);
    assert_eq!(without_records(peer.knows()), of_store(dir.path()));
    assert!(!dir.path().join("metrics").exists());
}

#[test]
fn a_run_that_its_process_left_open_is_counted_once_it_has_crashed() {
    const TEST: &str = "metrics::a_run_that_its_process_left_open_is_counted_once_it_has_crashed";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        crate::support::agent("told", 1);
        let open = Run::agent("left-open").start();
        end(guard);
        std::mem::forget(open);
        return;
    }
    let (dir, peer) = (crate::support::tempdir(), Peer::new());
    let go = || {
        let mut process = child(TEST, dir.path());
        peer.meet(&mut process);
        said(process)
    };
    go();
    let crashed = "runspan.runs kind=agent name=left-open status=crashed";
    assert!(!peer.knows().contains_key(crashed));
    go();
    assert_eq!(peer.knows()[crashed].0, 1);
    // The last one is the next one's.
    go();
    assert_eq!(peer.knows()[crashed].0, 2);
    assert_eq!(peer.knows()["runspan.runs kind=agent name=told status=success"].0, 3);
}

#[test]
fn what_metrics_say_of_a_process_has_no_secrets_in_it() {
    const TEST: &str = "metrics::what_metrics_say_of_a_process_has_no_secrets_in_it";
    const SECRET: &str = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        crate::support::agent("told", 1);
        guard.shutdown(Duration::from_secs(1));
        return;
    }
    let (dir, peer) = (crate::support::tempdir(), Peer::with(Manner::Hangs));
    let mut process = child(TEST, dir.path());
    peer.meet(&mut process);
    process.env("OTEL_RESOURCE_ATTRIBUTES", format!("deployment.token={SECRET},deployment.environment.name=test"));
    said(process);
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let ledgers = std::fs::read_dir(dir.path().join("metrics")).unwrap().next().unwrap().unwrap();
    let ledger = std::fs::read_dir(ledgers.path()).unwrap().next().unwrap().unwrap();
    let state = std::fs::read(ledger.path().join("state")).unwrap();
    for bytes in [&state, &peer.seen.lock().unwrap()[0]] {
        assert!(has(bytes, "deployment.environment.name"));
        assert!(!has(bytes, SECRET));
    }
}
