//! Metrics against the runs that they describe: every series, computed again from what is in the store.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use runspan::model::otlp::KeyValue;
use runspan::model::{RunSummary, StepKind, StepView};
use runspan::{Run, Usage};

use super::support::{child, is_child, runs, said, steps};

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resources {
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

/// Series by metric and attributes: how many, their sum in millionths, and how many in each bucket that has some.
type Series = BTreeMap<String, (u64, i64, BTreeMap<String, u64>)>;

/// An OTLP/HTTP server that keeps the last request, which under cumulative temporality says it all.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    let last = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&last);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
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
            if stream.read_exact(&mut body).is_ok() {
                *kept.lock().unwrap() = body;
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.get_mut().write_all(answer);
            }
        }
    });
    (url, last)
}

fn key(name: &str, attributes: &[(&str, String)]) -> String {
    let mut texts: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    texts.sort();
    format!("{name} {}", texts.join(" "))
}

fn arrived(body: &[u8]) -> Series {
    let name = |metric: &Metric, attributes: &[KeyValue]| {
        let text = |pair: &KeyValue| pair.value.clone().unwrap().value.unwrap().as_str().unwrap().to_owned();
        let pairs: Vec<(&str, String)> = attributes.iter().map(|pair| (pair.key.as_str(), text(pair))).collect();
        key(&metric.name, &pairs)
    };
    let request = Request::decode(body).unwrap();
    let scopes = request.resources.into_iter().flat_map(|resource| resource.scopes);
    let mut series = Series::new();
    for metric in scopes.flat_map(|scope| scope.metrics) {
        for point in metric.sum.iter().flat_map(|sum| &sum.points) {
            series.insert(name(&metric, &point.attributes), (point.int as u64, 0, BTreeMap::new()));
        }
        for point in metric.histogram.iter().flat_map(|histogram| &histogram.points) {
            let bound = |place: usize| point.bounds.get(place).map_or("more".to_owned(), f64::to_string);
            let filled = point.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
            let buckets = filled.map(|(place, n)| (bound(place), *n)).collect();
            let value = (point.count, (point.sum * 1e6).round() as i64, buckets);
            series.insert(name(&metric, &point.attributes), value);
        }
    }
    series
}

const TOKENS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0];
const SECONDS: [f64; 5] = [0.1, 0.5, 1.0, 2.0, 5.0];
const USD: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

fn add(series: &mut Series, key: String, value: f64, bounds: &[f64]) {
    let (count, sum, buckets) = series.entry(key).or_default();
    let bucket = bounds.iter().find(|bound| value <= **bound).unwrap();
    (*count, *sum) = (*count + 1, *sum + (value * 1e6).round() as i64);
    *buckets.entry(bucket.to_string()).or_default() += 1;
}

fn add_step(series: &mut Series, step: &StepView, is_told_below: bool) {
    let is_call = step.kind == StepKind::Llm;
    if step.duplicate_of.is_some() || (!is_call && is_told_below) {
        return;
    }
    let mut pairs = vec![("gen_ai.operation.name", if is_call { "chat" } else { "invoke_agent" }.to_owned())];
    let known = [("gen_ai.provider.name", &step.provider), ("gen_ai.request.model", &step.model)];
    pairs.extend(known.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    let tokens = step.tokens.unwrap_or_default();
    for (kind, tokens) in [("input", tokens.prompt), ("output", tokens.completion)] {
        let with_kind = [pairs.as_slice(), &[("gen_ai.token.type", kind.to_owned())]].concat();
        if let Some(tokens) = tokens {
            add(series, key("gen_ai.client.token.usage", &with_kind), tokens as f64, &TOKENS);
        }
    }
    if is_call {
        let error = step.error.as_ref().map(|error| error.kind.clone().unwrap_or("_OTHER".to_owned()));
        pairs.extend(error.map(|error| ("error.type", error)));
        // Steps are shown in milliseconds, so how long they took is compared as a number of calls.
        series.entry(key("gen_ai.client.operation.duration", &pairs)).or_default().0 += 1;
    }
}

fn add_run(series: &mut Series, store: &Path, run: &RunSummary) {
    let pairs = [("kind", run.kind.to_string()), ("name", run.name().to_owned()), ("status", run.status.to_string())];
    series.entry(key("runspan.runs", &pairs)).or_default().0 += 1;
    add(series, key("runspan.run.duration", &pairs), run.duration_ms.unwrap() as f64 / 1e3, &SECONDS);
    if let Some(cost) = run.cost_usd {
        add(series, key("runspan.run.cost", &pairs), cost.0 as f64 / 1e9, &USD);
    }
    let steps = steps(store, run.run_id);
    for step in &steps {
        // Of the runs here an agent has either calls that tell their tokens, or none below it.
        let is_told_below = steps.iter().any(|other| other.kind == StepKind::Llm && other.tokens.is_some());
        add_step(series, step, is_told_below);
    }
}

/// What the store says without the records, of which it does not know all.
fn of_store(store: &Path) -> Series {
    let mut series = Series::new();
    runs(store).iter().for_each(|run| add_run(&mut series, store, run));
    series
}

fn record_a_mixture() {
    let guard = runspan::init();
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
    guard.shutdown(Duration::from_secs(20));
}

#[test]
fn every_series_is_what_the_runs_in_the_store_add_up_to() {
    const TEST: &str = "metrics::every_series_is_what_the_runs_in_the_store_add_up_to";
    if is_child(TEST).is_some() {
        return record_a_mixture();
    }
    let dir = crate::support::tempdir();
    let found = sent_by(child(TEST, dir.path()));
    assert_eq!(runs(dir.path()).len(), 6);
    assert_eq!(found, of_store(dir.path()));
}

#[test]
fn two_processes_in_turn_count_together_what_is_in_their_store() {
    const TEST: &str = "metrics::two_processes_in_turn_count_together_what_is_in_their_store";
    if is_child(TEST).is_some() {
        return record_a_mixture();
    }
    let dir = crate::support::tempdir();
    let mut found = sent_by(child(TEST, dir.path()));
    for (key, (count, sum, buckets)) in sent_by(child(TEST, dir.path())) {
        let of_both = found.entry(key).or_default();
        (of_both.0, of_both.1) = (of_both.0 + count, of_both.1 + sum);
        buckets.into_iter().for_each(|(bound, n)| *of_both.2.entry(bound).or_default() += n);
    }
    assert_eq!(runs(dir.path()).len(), 12);
    assert_eq!(found, of_store(dir.path()));
}

#[test]
fn a_peer_of_metrics_that_hangs_holds_nothing_else_up() {
    const TEST: &str = "metrics::a_peer_of_metrics_that_hangs_holds_nothing_else_up";
    const LIMIT: Duration = Duration::from_secs(4);
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        crate::support::agent("told", 20);
        let report = guard.shutdown(LIMIT);
        println!("exported {} pending {}", report.exported, report.pending);
        return;
    }
    // It takes connections and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let (traces, last) = collector();
    let dir = crate::support::tempdir();
    let mut process = child(TEST, dir.path());
    process.env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", format!("http://{}", hanging.local_addr().unwrap()));
    process.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.replace("/v1/metrics", "/v1/traces"));
    let output = super::support::ended(process);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("exported 21 pending 0"), "{out}\n{err}");
    assert!(err.contains("the last metrics were not sent"), "{err}");
    assert!(!last.lock().unwrap().is_empty());
    // The worker has answered in time, so nothing is left for others to take over.
    assert_eq!(std::fs::read_dir(dir.path().join("journal")).unwrap().count(), 0);
}

/// Returns what a process sends of runs and calls until its end.
fn sent_by(mut process: Command) -> Series {
    let (url, last) = collector();
    process.env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url);
    said(process);
    let mut found = arrived(&last.lock().unwrap());
    found.retain(|key, _| !key.starts_with("runspan.records "));
    for (key, value) in &mut found {
        if key.starts_with("gen_ai.client.operation.duration ") {
            *value = (value.0, 0, BTreeMap::new());
        }
    }
    found
}
