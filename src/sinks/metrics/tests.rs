use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;

use super::instruments::{MAX_VALUE_BYTES, OPERATION_SECONDS, TOKENS, pair};
use super::*;
use crate::model::otlp::{KeyValue as OtlpKeyValue, Value};
use crate::sinks::forward::Compression;
use crate::sinks::forward::tests::peers::{self, Answer, GrpcPeer, HttpPeer};

/// As much of the OTLP metrics messages as the tests look at.
mod wire {
    use crate::model::otlp::{KeyValue, Resource, Scope};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_metrics: Vec<ResourceMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceMetrics {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_metrics: Vec<ScopeMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeMetrics {
        #[prost(message, optional, tag = "1")]
        pub scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "3")]
        pub unit: String,
        #[prost(message, optional, tag = "7")]
        pub sum: Option<Series>,
        #[prost(message, optional, tag = "9")]
        pub histogram: Option<HistogramSeries>,
        #[prost(message, optional, tag = "10")]
        pub exponential: Option<Exponential>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Series {
        #[prost(message, repeated, tag = "1")]
        pub points: Vec<Number>,
        #[prost(int32, tag = "2")]
        pub temporality: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exponential {
        #[prost(int32, tag = "2")]
        pub temporality: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Number {
        #[prost(message, repeated, tag = "7")]
        pub attributes: Vec<KeyValue>,
        #[prost(sfixed64, tag = "6")]
        pub int: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HistogramSeries {
        #[prost(message, repeated, tag = "1")]
        pub points: Vec<HistogramPoint>,
        #[prost(int32, tag = "2")]
        pub temporality: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HistogramPoint {
        #[prost(message, repeated, tag = "9")]
        pub attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "4")]
        pub count: u64,
        #[prost(double, tag = "5")]
        pub sum: f64,
        #[prost(double, repeated, tag = "7")]
        pub bounds: Vec<f64>,
    }
}

fn resource() -> Resource {
    let pair = |key: &str, value: Value| OtlpKeyValue { key: key.into(), value: Some(value.into()) };
    Resource {
        attributes: vec![
            pair("service.name", "demo".into()),
            pair("service.instance.id", "i-1".into()),
            pair("process.pid", Value::Int(7)),
        ],
        ..Resource::default()
    }
}

fn target(url: &str) -> Target {
    Target::from_url_for(Signal::Metrics, url).unwrap()
}

/// Much longer than a loaded machine takes for anything here.
const WATCHDOG: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + WATCHDOG
}

fn start(url: &str, settings: &Settings) -> Metrics {
    Metrics::start(target(url), &resource(), settings).unwrap()
}

fn collector() -> HttpPeer {
    HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")))
}

fn last_metrics(peer: &HttpPeer) -> Vec<wire::Metric> {
    let body = peer.seen().last().expect("a request").body.clone();
    let request = wire::Request::decode(body.as_slice()).unwrap();
    request.resource_metrics[0].scope_metrics[0].metrics.clone()
}

fn shown(attributes: &[OtlpKeyValue]) -> String {
    let mut shown: Vec<String> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.clone().unwrap().value.unwrap().to_json();
            format!("{}={}", attribute.key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    shown.sort();
    shown.join(" ")
}

/// One line a point, sorted: name, unit, attributes, value.
fn lines(metrics: &[wire::Metric]) -> Vec<String> {
    let mut lines = Vec::new();
    for metric in metrics {
        let name = format!("{} {}", metric.name, metric.unit);
        for point in metric.sum.iter().flat_map(|sum| &sum.points) {
            lines.push(format!("{name} | {} | {}", shown(&point.attributes), point.int));
        }
        for point in metric.histogram.iter().flat_map(|histogram| &histogram.points) {
            lines.push(format!("{name} | {} | {} in {}", shown(&point.attributes), point.sum, point.count));
        }
    }
    lines.sort();
    lines
}

fn call() -> ModelCall<'static> {
    ModelCall {
        operation: "chat",
        provider: Some("openai"),
        request_model: Some("gpt-4o"),
        response_model: Some("gpt-4o-2024"),
        server_address: Some("api.openai.com"),
        server_port: Some(443),
        duration: Duration::from_millis(1500),
        input_tokens: Some(100),
        output_tokens: Some(20),
        time_to_first_chunk: Some(Duration::from_millis(250)),
        ..ModelCall::default()
    }
}

fn calls(metrics: &Metrics) {
    metrics.model_call(&call());
    metrics.model_call(&ModelCall {
        operation: "chat",
        provider: Some("openai"),
        server_port: Some(1),
        error_type: Some("timeout"),
        duration: Duration::from_millis(500),
        ..ModelCall::default()
    });
    metrics.model_call(&ModelCall {
        operation: "embeddings",
        provider: Some("openai"),
        duration: Duration::from_millis(250),
        input_tokens: Some(5),
        ..ModelCall::default()
    });
}

const FULL: &str = "gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.model=gpt-4o \
                    gen_ai.response.model=gpt-4o-2024";
const SERVER: &str = "server.address=api.openai.com server.port=443";

#[test]
fn model_calls_have_the_names_of_1_41() {
    let peer = collector();
    let metrics = start(&peer.url(), &Settings::default());
    calls(&metrics);
    metrics.shutdown(Duration::from_secs(20)).unwrap();
    assert_eq!(peer.seen().len(), 1, "shutting down exports once");
    assert_eq!(peer.seen()[0].path, "/v1/metrics");
    let exported = last_metrics(&peer);
    assert_eq!(
        lines(&exported),
        [
            "gen_ai.client.operation.duration s | error.type=timeout gen_ai.operation.name=chat \
             gen_ai.provider.name=openai | 0.5 in 1"
                .into(),
            format!("gen_ai.client.operation.duration s | {FULL} {SERVER} | 1.5 in 1"),
            "gen_ai.client.operation.duration s | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
             | 0.25 in 1"
                .into(),
            format!("gen_ai.client.operation.time_to_first_chunk s | {FULL} {SERVER} | 0.25 in 1"),
            format!("gen_ai.client.token.usage {{token}} | {FULL} gen_ai.token.type=input {SERVER} | 100 in 1"),
            format!("gen_ai.client.token.usage {{token}} | {FULL} gen_ai.token.type=output {SERVER} | 20 in 1"),
            "gen_ai.client.token.usage {token} | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
             gen_ai.token.type=input | 5 in 1"
                .into(),
        ]
    );
    for metric in exported {
        let histogram = metric.histogram.unwrap();
        let buckets = if metric.unit == "s" { OPERATION_SECONDS } else { TOKENS };
        assert_eq!(histogram.points[0].bounds, buckets, "{}", metric.name);
        assert_eq!(histogram.temporality, 2, "cumulative");
    }
}

#[test]
fn the_names_in_development_replace_those_of_1_41() {
    let peer = collector();
    let metrics = start(&peer.url(), &Settings { names: Names::Main, ..Settings::default() });
    calls(&metrics);
    metrics.flush(soon()).unwrap();
    let failed = "error.type=timeout gen_ai.operation.name=chat gen_ai.provider.name=openai";
    let inference = "gen_ai.client.inference";
    let mut expected = vec![
        format!("{inference}.duration s | {FULL} {SERVER} | 1.5 in 1"),
        format!("{inference}.duration s | {failed} | 0.5 in 1"),
        format!("{inference}.time_to_first_chunk s | {FULL} {SERVER} | 0.25 in 1"),
        "gen_ai.client.operation.duration s | gen_ai.operation.name=embeddings gen_ai.provider.name=openai \
         | 0.25 in 1"
            .into(),
    ];
    let (model, failed_modality) = (
        FULL.replace(" gen_ai.response.model=gpt-4o-2024", ""),
        "error.type=timeout gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.token.modality=unknown",
    );
    for (kind, tokens) in [("input", 100), ("output", 20)] {
        expected.extend([
            format!("{inference}.operation.{kind}_tokens {{token}} | {FULL} {SERVER} | {tokens} in 1"),
            format!("{inference}.operation.{kind}_tokens {{token}} | {failed} | 0 in 1"),
            format!(
                "{inference}.usage.{kind}_tokens {{token}} | {model} gen_ai.response.model=gpt-4o-2024 \
                 gen_ai.token.modality=unknown {SERVER} | {tokens}"
            ),
            format!("{inference}.usage.{kind}_tokens {{token}} | {failed_modality} | 0"),
        ]);
    }
    expected.sort();
    assert_eq!(lines(&last_metrics(&peer)), expected);
}

fn run(status: &str, cost: serde_json::Value) -> RunSummary {
    serde_json::from_value(serde_json::json!({
        "format": 1, "run_id": "01KE9BZH80BGEY5ABZ7D0DHDQ1", "kind": "agent", "agent_id": "reviewer",
        "trace_id": "019b92bfc5005c1de2a97f3b40d8b6e1", "status": status, "cost_usd": cost,
        "started_at": "2026-01-06T10:00:00.000Z", "updated_at": "2026-01-06T10:00:00.000Z",
    }))
    .unwrap()
}

#[test]
fn runs_and_records_are_counted_and_the_resource_is_the_callers() {
    let peer = collector();
    let metrics = start(&peer.url(), &Settings::default());
    metrics.run_ended(&run("success", 0.5.into()), Duration::from_secs(150));
    metrics.run_ended(&run("success", 0.25.into()), Duration::from_secs(50));
    metrics.run_ended(&run("error", serde_json::Value::Null), Duration::from_secs(1));
    metrics.records(Outcome::Stored, "ok", 7);
    metrics.records(Outcome::NotKept, "no_genai", 2);
    metrics.records(Outcome::Stored, "ok", 1);
    metrics.records(Outcome::Dropped, "full", 0);
    metrics.flush(soon()).unwrap();
    let run = |status: &str| format!("kind=agent name=reviewer status={status}");
    assert_eq!(
        lines(&last_metrics(&peer)),
        [
            "runspan.records {record} | outcome=not_kept reason=no_genai | 2".into(),
            "runspan.records {record} | outcome=stored reason=ok | 8".into(),
            format!("runspan.run.cost USD | {} | 0.75 in 2", run("success")),
            format!("runspan.run.duration s | {} | 1 in 1", run("error")),
            format!("runspan.run.duration s | {} | 200 in 2", run("success")),
            format!("runspan.runs {{run}} | {} | 1", run("error")),
            format!("runspan.runs {{run}} | {} | 2", run("success")),
        ]
    );
    let request = wire::Request::decode(peer.seen()[0].body.as_slice()).unwrap();
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(shown(&resource.attributes), "process.pid=7 service.instance.id=i-1 service.name=demo");
}

#[test]
fn the_interval_exports_without_being_asked() {
    let peer = collector();
    let metrics = start(&peer.url(), &Settings { interval: Duration::from_millis(50), ..Settings::default() });
    metrics.records(Outcome::Stored, "ok", 1);
    let until = soon();
    while peer.seen().len() < 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(peer.seen().len() >= 2);
}

#[test]
fn grpc_and_gzip_carry_the_same_bytes() {
    let zipped = collector();
    let settings = Settings { temporality: Temporality::Delta, ..Settings::default() };
    let mut gzip = target(&zipped.url());
    gzip.compression = Compression::Gzip;
    let metrics = Metrics::start(gzip, &resource(), &settings).unwrap();
    metrics.model_call(&call());
    metrics.flush(soon()).unwrap();
    let seen = &zipped.seen()[0];
    assert_eq!(seen.header("content-encoding"), "gzip");
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(seen.body.as_slice()).read_to_end(&mut body).unwrap();
    let request = wire::Request::decode(body.as_slice()).unwrap();
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    assert_eq!(metric.histogram.as_ref().unwrap().temporality, 1, "delta");

    let grpc = GrpcPeer::new(|_| Answer::ok(vec![]));
    let metrics = start(&grpc.url(), &Settings { exponential_histograms: true, ..Settings::default() });
    metrics.model_call(&call());
    metrics.shutdown(Duration::from_secs(20)).unwrap();
    let seen = &grpc.seen()[0];
    assert_eq!(seen.path, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
    let request = wire::Request::decode(&seen.body[5..]).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert!(metrics.iter().all(|metric| metric.exponential.is_some() && metric.histogram.is_none()));
}

#[test]
fn a_failed_export_is_told_and_a_passing_failure_is_tried_again() {
    let refusing = HttpPeer::new(|_| Some(peers::response("401 Who", "content-type: text/plain\r\n", b"no key")));
    let metrics = start(&refusing.url(), &Settings::default());
    metrics.records(Outcome::Stored, "ok", 1);
    let error = metrics.flush(soon()).unwrap_err().to_string();
    assert_eq!(error, "metrics were not exported: refused: HTTP 401: no key");
    let failure = Some("refused: HTTP 401: no key".to_owned());
    assert_eq!(metrics.exports(), Exports { done: 0, failed: 1, failure });

    let failed = AtomicBool::new(false);
    let passing = HttpPeer::new(move |_| match failed.swap(true, Ordering::Relaxed) {
        false => Some(peers::response("503 Busy", "", b"")),
        true => Some(peers::response("200 OK", "", b"")),
    });
    let metrics = start(&passing.url(), &Settings::default());
    metrics.records(Outcome::Stored, "ok", 1);
    metrics.flush(soon()).unwrap();
    assert_eq!((passing.seen().len(), metrics.exports()), (2, Exports { done: 1, failed: 0, failure: None }));
}

#[test]
fn dead_and_hanging_peers_cost_no_more_than_the_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    for url in [
        "http://127.0.0.1:1".to_owned(),
        "grpc://127.0.0.1:1".to_owned(),
        format!("http://127.0.0.1:{silent}"),
        format!("grpc://127.0.0.1:{silent}"),
    ] {
        let metrics = start(&url, &Settings::default());
        metrics.records(Outcome::Stored, "ok", 1);
        let begun = Instant::now();
        assert!(metrics.flush(begun + Duration::from_millis(100)).is_err(), "{url}");
        assert!(metrics.shutdown(Duration::from_millis(300)).is_err(), "{url}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{url}: {:?}", begun.elapsed());
        let dropped = start(&url, &Settings::default());
        dropped.records(Outcome::Stored, "ok", 1);
        let begun = Instant::now();
        drop(dropped);
        assert!(begun.elapsed() < Duration::from_millis(500), "{url}: dropped in {:?}", begun.elapsed());
    }
}

#[test]
fn metrics_start_flush_and_end_inside_an_async_runtime() {
    let (http, grpc) = (collector(), GrpcPeer::new(|_| Answer::ok(vec![])));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for url in [http.url(), grpc.url()] {
            let metrics = start(&url, &Settings::default());
            metrics.model_call(&call());
            metrics.flush(soon()).unwrap();
            drop(start(&url, &Settings::default()));
            metrics.shutdown(Duration::from_secs(20)).unwrap();
        }
    });
    // And from a thread without one, with nothing recorded.
    start(&http.url(), &Settings::default()).shutdown(Duration::from_secs(20)).unwrap();
}

#[test]
fn names_without_end_are_counted_together() {
    let peer = collector();
    let metrics = start(&peer.url(), &Settings { series: 20, ..Settings::default() });
    for number in 0..30 {
        metrics.records(Outcome::Dropped, &format!("reason-{number}"), 1);
        metrics.model_call(&ModelCall { request_model: Some(&format!("model-{number}")), ..call() });
    }
    metrics.records(Outcome::Dropped, "reason-3", 1);
    metrics.flush(soon()).unwrap();
    let exported = lines(&last_metrics(&peer));
    let overflow: Vec<&String> = exported.iter().filter(|line| line.contains("otel.metric.overflow")).collect();
    assert_eq!(
        overflow,
        [
            "gen_ai.client.operation.duration s | otel.metric.overflow=true | 15 in 10",
            "gen_ai.client.operation.time_to_first_chunk s | otel.metric.overflow=true | 2.5 in 10",
            // Two series a model.
            "gen_ai.client.token.usage {token} | otel.metric.overflow=true | 2400 in 40",
            "runspan.records {record} | otel.metric.overflow=true | 10",
        ]
    );
    assert_eq!(exported.len(), 4 * 21);
    assert!(exported.iter().any(|line| line.ends_with("reason=reason-3 | 2")));
}

/// Servers take 4 MiB; a metric at its bound is more than that.
#[test]
fn many_series_leave_in_parts_and_smaller_ones_where_the_peer_takes_less() {
    let peer = HttpPeer::new(|request| match request.body.len() {
        0..=300_000 => Some(peers::response("200 OK", "", b"")),
        _ => Some(peers::response("413 Large", "", b"")),
    });
    let metrics = start(&peer.url(), &Settings::default());
    let name = "x".repeat(200);
    for number in 0..2000 {
        metrics.model_call(&ModelCall { request_model: Some(&format!("{number}-{name}")), ..call() });
    }
    metrics.flush(soon()).unwrap();
    let requests: Vec<wire::Request> =
        peer.seen().iter().map(|seen| wire::Request::decode(seen.body.as_slice()).unwrap()).collect();
    assert!(peer.seen().iter().all(|seen| seen.body.len() <= 1 << 20));
    let taken = peer.seen().into_iter().zip(&requests).filter(|(seen, _)| seen.body.len() <= 300_000);
    let taken: Vec<wire::Metric> =
        taken.flat_map(|(_, request)| request.resource_metrics[0].scope_metrics[0].metrics.clone()).collect();
    assert!(taken.iter().all(|metric| metric.histogram.as_ref().is_some_and(|data| data.temporality == 2)));
    let mut lines = lines(&taken);
    // Tokens have two series a model.
    assert_eq!(lines.len(), 2000 + 2000 + 2001, "each series");
    lines.dedup();
    assert_eq!(lines.len(), 2000 + 2000 + 2001, "once");
    let scopes = requests.iter().map(|request| request.resource_metrics[0].scope_metrics[0].scope.clone().unwrap());
    assert!(scopes.into_iter().all(|scope| scope.name == "runspan"));
    assert_eq!(metrics.exports(), Exports { done: 1, failed: 0, failure: None });
}

#[test]
fn a_peer_that_asks_for_patience_gets_the_last_values_at_once_and_delays_nobody() {
    let patient = std::sync::Arc::new(AtomicBool::new(false));
    let answers = std::sync::Arc::clone(&patient);
    let peer = HttpPeer::new(move |_| match answers.load(Ordering::Relaxed) {
        false => Some(peers::response("503 Busy", "retry-after: 600\r\n", b"")),
        true => Some(peers::response("200 OK", "", b"")),
    });
    let metrics = start(&peer.url(), &Settings { interval: Duration::from_millis(20), ..Settings::default() });
    metrics.records(Outcome::Stored, "ok", 1);
    while peer.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // An export waits to be tried again now.
    metrics.records(Outcome::Stored, "ok", 1);
    patient.store(true, Ordering::Relaxed);
    // Long enough for any machine, and too short for who waits as long as was asked.
    metrics.shutdown(WATCHDOG).unwrap();
    assert_eq!(lines(&last_metrics(&peer)), ["runspan.records {record} | outcome=stored reason=ok | 2"]);

    let peer = HttpPeer::new(|_| Some(peers::response("503 Busy", "retry-after: 600\r\n", b"")));
    let metrics = start(&peer.url(), &Settings { interval: Duration::from_millis(20), ..Settings::default() });
    metrics.records(Outcome::Stored, "ok", 1);
    let error = metrics.shutdown(WATCHDOG).unwrap_err().to_string();
    assert_eq!(error, "metrics were not exported: not now: HTTP 503");
}

#[test]
fn an_export_that_was_refused_is_counted_and_the_next_one_may_arrive() {
    let refuses = std::sync::Arc::new(AtomicBool::new(false));
    let answers = std::sync::Arc::clone(&refuses);
    let peer = HttpPeer::new(move |_| match answers.load(Ordering::Relaxed) {
        true => Some(peers::response("400 No", "", b"")),
        false => Some(peers::response("200 OK", "", b"")),
    });
    let metrics = start(&peer.url(), &Settings::default());
    metrics.records(Outcome::Stored, "ok", 1);
    metrics.flush(soon()).unwrap();
    refuses.store(true, Ordering::Relaxed);
    metrics.flush(soon()).unwrap_err();
    refuses.store(false, Ordering::Relaxed);
    metrics.flush(soon()).unwrap();
    let exports = metrics.exports();
    assert_eq!((exports.done, exports.failed, exports.failure), (2, 1, None));
}

#[test]
fn a_delta_that_was_not_taken_is_sent_again_and_what_came_meanwhile_behind_it() {
    let refuses = std::sync::Arc::new(AtomicBool::new(true));
    let answers = std::sync::Arc::clone(&refuses);
    let peer = HttpPeer::new(move |_| match answers.load(Ordering::Relaxed) {
        true => Some(peers::response("401 Who", "", b"")),
        false => Some(peers::response("200 OK", "", b"")),
    });
    let metrics = start(&peer.url(), &Settings { temporality: Temporality::Delta, ..Settings::default() });
    for n in [1, 2, 4] {
        metrics.records(Outcome::Stored, "ok", n);
        metrics.flush(soon()).unwrap_err();
    }
    refuses.store(false, Ordering::Relaxed);
    metrics.flush(soon()).unwrap();
    metrics.flush(soon()).unwrap();
    metrics.flush(soon()).unwrap();
    let told = |seen: &peers::Seen| {
        let request = wire::Request::decode(seen.body.as_slice()).unwrap();
        request.resource_metrics[0].scope_metrics[0].metrics[0].sum.as_ref().unwrap().points[0].int
    };
    assert_eq!(peer.seen().iter().map(told).collect::<Vec<_>>(), [1, 1, 1, 1, 2 + 4]);
}

#[test]
fn a_target_for_traces_is_refused() {
    let traces = Target::from_url("http://127.0.0.1:1").unwrap();
    assert!(Metrics::start(traces, &resource(), &Settings::default()).is_err());
}

#[test]
fn hostile_values_are_cut_and_lose_control_characters() {
    assert_eq!(pair("k", &"x".repeat(1 << 20)).value.as_str().len(), MAX_VALUE_BYTES);
    assert_eq!(pair("k", &format!("x{}", "ä".repeat(300))).value.as_str().len(), MAX_VALUE_BYTES - 1);
    assert_eq!(pair("k", "short").value.as_str(), "short");
    assert_eq!(pair("k", "a\nb\0\u{1b}[31m").value.as_str(), "a\u{fffd}b\u{fffd}\u{fffd}[31m");
}

#[test]
fn settings_come_from_the_standard_variables() {
    let from = |variables: &[(&str, &str)]| {
        Settings::from_lookup(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
        })
    };
    assert_eq!(from(&[]), (Settings::default(), vec![]));
    assert_eq!(
        from(&[
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "LowMemory"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup, gen_ai_latest_experimental"),
            ("RUNSPAN_METRIC_SERIES", "100000"),
        ]),
        (
            Settings {
                names: Names::Main,
                interval: Duration::from_millis(1500),
                timeout: Duration::from_millis(250),
                temporality: Temporality::LowMemory,
                exponential_histograms: true,
                series: 100_000,
            },
            vec![]
        )
    );
    let (settings, warnings) = from(&[
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", ""),
        ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
        ("RUNSPAN_METRIC_SERIES", "0"),
    ]);
    assert_eq!(settings, Settings::default());
    let named: Vec<&str> = warnings.iter().map(|warning| warning.variable.as_str()).collect();
    assert_eq!(
        named,
        [
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "RUNSPAN_METRIC_SERIES"
        ]
    );
}
