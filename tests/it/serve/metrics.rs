//! `/metrics`, by hand and scraped by a real Prometheus, against the runs in the store.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use runspan::model::RunSummary;
use runspan::model::otlp::Span;

use super::prometheus::Prometheus;
use super::{PROTOBUF, Server, agent, ask, command, post, request, span, wait_for};
use crate::forward::{Peer, free_address};
use crate::support::{tempdir, wait_until};

/// Returns what is at `/metrics`, and its content type.
fn scraped(server: &Server, accept: &str) -> (String, String) {
    let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}");
    let (code, head, body) = ask(server.port("http"), &head, b"");
    assert_eq!(code, 200);
    let media = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap().to_owned();
    (String::from_utf8(body).unwrap(), media)
}

const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

/// Returns the sum of all samples of a name whose labels have all of `labels`.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let line = line.split(" # ").next()?;
        let (series, value) = line.rsplit_once(' ')?;
        let of_name = series.strip_prefix(name)?;
        let wanted =
            (of_name.is_empty() || of_name.starts_with('{')) && labels.iter().all(|label| of_name.contains(label));
        wanted.then(|| value.parse::<f64>().unwrap())
    });
    samples.sum()
}

/// Agents that end well and badly, and one call without an agent.
fn some_runs() -> Vec<Span> {
    let mut spans: Vec<Span> = (1..=3).flat_map(agent).collect();
    let mut failed = agent(4);
    failed[2].status = Some(runspan::model::otlp::Status { code: 2, message: "no".to_owned() });
    failed[0].set_attr("gen_ai.request.model", "gpt-4o");
    spans.extend(failed);
    spans.push(span(5, 1, 0, "chat", 0, 700));
    // A span with a broken id, and one of a trace that is no run.
    spans.push(Span { trace_id: vec![6; 16], ..Span::default() });
    spans
}

fn stored(store: &Path) -> Vec<RunSummary> {
    wait_for(store, |runs| runs.len() == 5 && runs.iter().all(|run| run.completed_at.is_some()))
}

#[test]
fn what_is_counted_is_what_the_runs_in_the_store_come_to() {
    let (dir, (peer, at), dead) = (tempdir(), Peer::started(), free_address());
    let forward = [format!("http://{at}"), format!("http://{dead}")];
    let server = Server::start(dir.path(), &["--forward", &forward[0], "--forward", &forward[1]]);
    let to = server.port("otlp-http");
    let body = request(some_runs()).encode_to_vec();
    assert_eq!(post(to, PROTOBUF, "", &body).0, 200);
    // What is told twice counts once, and what is refused is counted under its reason.
    assert_eq!(post(to, PROTOBUF, "", &body).0, 200);
    assert_eq!(post(to, PROTOBUF, "", b"\x0a\xff").0, 400);
    assert_eq!(post(to, "text/plain", "", b"").0, 415);
    let runs = stored(dir.path());
    let of_target = |at: &dyn std::fmt::Display| format!("http://{at}/v1/traces\"");
    wait_until("all runs are counted and forwarded", || {
        let text = scraped(&server, OPEN).0;
        sum(&text, "runspan_runs_total", &[]) >= 5.0
            && sum(&text, "runspan_records_total", &[]) >= 28.0
            && peer.spans().len() == 26
            && sum(&text, "runspan_bridge_journal_behind_bytes", &[&of_target(&at)]) == 0.0
    });
    let (text, media) = scraped(&server, OPEN);
    assert_eq!(media, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    let mut by_status = BTreeMap::<(String, String), f64>::new();
    for run in &runs {
        let name = run.agent_id.clone().or(run.workflow_id.clone()).unwrap();
        *by_status.entry((name, run.status.to_string())).or_default() += 1.0;
    }
    for ((name, status), n) in &by_status {
        let labels = [format!("name=\"{name}\""), format!("status=\"{status}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(sum(&text, "runspan_runs_total", &labels), *n, "{labels:?}\n{text}");
        assert_eq!(sum(&text, "runspan_run_duration_seconds_count", &labels), *n, "{labels:?}");
    }
    let total = |of: fn(&RunSummary) -> f64| runs.iter().map(of).sum::<f64>();
    let tokens = |run: &RunSummary| run.tokens.and_then(|tokens| tokens.total).unwrap_or(0) as f64;
    assert_eq!(sum(&text, "gen_ai_client_token_usage_sum", &[]), total(tokens));
    assert_eq!(sum(&text, "gen_ai_client_operation_duration_seconds_count", &[]), total(|run| run.llm_calls as f64));
    let cost = total(|run| run.cost_usd.map_or(0.0, |cost| cost.as_usd()));
    assert!((sum(&text, "runspan_run_cost_usd_sum", &[]) - cost).abs() < 1e-9, "{cost}\n{text}");
    let seconds = total(|run| run.duration_ms.unwrap_or(0) as f64) / 1e3;
    assert!((sum(&text, "runspan_run_duration_seconds_sum", &[]) - seconds).abs() < 1e-9);

    // 14 spans were good, and came twice.
    assert_eq!(sum(&text, "runspan_bridge_received_spans_total", &[]), 28.0);
    assert_eq!(sum(&text, "runspan_records_total", &[]), 28.0, "each has an outcome\n{text}");
    assert_eq!(sum(&text, "runspan_records_total", &["outcome=\"stored\""]), 13.0);
    assert_eq!(sum(&text, "runspan_records_total", &["outcome=\"duplicate\""]), 13.0);
    assert_eq!(sum(&text, "runspan_records_total", &["outcome=\"rejected\"", "reason=\"bad_id\""]), 2.0);
    assert_eq!(sum(&text, "runspan_bridge_refused_requests_total", &["reason=\"malformed\""]), 1.0);
    assert_eq!(sum(&text, "runspan_bridge_refused_requests_total", &["reason=\"unknown_type\""]), 1.0);
    assert_eq!(sum(&text, "runspan_bridge_forwarded_spans_total", &[&of_target(&at), "outcome=\"sent\""]), 26.0);
    assert_eq!(sum(&text, "runspan_bridge_forwarded_spans_total", &[&of_target(&dead)]), 0.0);
    assert!(sum(&text, "runspan_bridge_journal_behind_bytes", &[&of_target(&dead)]) > 1000.0, "{text}");
    assert_eq!(sum(&text, "runspan_bridge_journal_behind_bytes", &[&of_target(&at)]), 0.0, "{text}");

    // An example leads from a number to a run.
    let run = runs.iter().find(|run| run.workflow_id.is_some()).unwrap();
    let example = format!("# {{trace_id=\"{}\",run_id=\"{}\"}} 0.7 ", run.trace_id, run.run_id);
    let with_example: Vec<&str> = text.lines().filter(|line| line.contains(&example)).collect();
    assert!(
        with_example.iter().any(|line| line.starts_with("gen_ai_client_operation_duration_seconds_bucket")),
        "{text}"
    );
    let (classic, media) = scraped(&server, "*/*");
    assert_eq!(media, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!classic.contains(" # {") && classic.contains("# TYPE runspan_runs_total counter"), "{classic}");
    assert_eq!(server.end(), Some(0));
}

/// Sums of the last request of metrics that a peer got, by name, and who says it.
fn last_reported(peer: &Peer) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

    let (mut sums, mut said) = (BTreeMap::new(), BTreeMap::new());
    let Some(body) = peer.metrics().pop() else { return (sums, said) };
    let request = ExportMetricsServiceRequest::decode(&*body).unwrap();
    for of_resource in request.resource_metrics {
        for attribute in of_resource.resource.unwrap_or_default().attributes {
            if let Some(Value::StringValue(text)) = attribute.value.and_then(|value| value.value) {
                said.insert(attribute.key, text);
            }
        }
        for metric in of_resource.scope_metrics.into_iter().flat_map(|of| of.metrics) {
            let numbers: Vec<f64> = match metric.data.unwrap() {
                Data::Sum(data) => data.data_points.iter().map(|point| number(point.value)).collect(),
                Data::Gauge(data) => data.data_points.iter().map(|point| number(point.value)).collect(),
                Data::Histogram(data) => data.data_points.iter().map(|point| point.sum.unwrap()).collect(),
                other => panic!("{other:?}"),
            };
            sums.insert(metric.name, numbers.iter().sum());
        }
    }
    fn number(value: Option<Number>) -> f64 {
        match value.unwrap() {
            Number::AsInt(number) => number as f64,
            Number::AsDouble(number) => number,
        }
    }
    (sums, said)
}

#[test]
fn a_target_that_asks_for_it_gets_what_is_at_metrics_and_another_gets_nothing() {
    let (dir, (asks, at), (other, other_at)) = (tempdir(), Peer::started(), Peer::started());
    let forward = [format!("http://{at}#own_metrics=on"), format!("http://{other_at}")];
    let start = |interval: &str| {
        let mut command = command(dir.path(), &["--forward", &forward[0], "--forward", &forward[1]]);
        command.env("OTEL_METRIC_EXPORT_INTERVAL", interval);
        Server::spawn(command)
    };
    let server = start("100");
    let body = request(some_runs()).encode_to_vec();
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    stored(dir.path());
    wait_until("it is told while the server serves", || last_reported(&asks).0.get("runspan.runs") == Some(&5.0));
    wait_until("all is counted", || {
        let text = scraped(&server, OPEN).0;
        sum(&text, "runspan_records_total", &[]) == 14.0 && asks.spans().len() == 13 && other.spans().len() == 13
    });
    let text = scraped(&server, OPEN).0;
    assert_eq!(server.end(), Some(0));
    let (sums, said) = last_reported(&asks);
    for (name, in_text) in [
        ("runspan.runs", "runspan_runs_total"),
        ("runspan.run.duration", "runspan_run_duration_seconds_sum"),
        ("runspan.run.cost", "runspan_run_cost_usd_sum"),
        ("runspan.records", "runspan_records_total"),
        ("runspan.usage.tokens", "runspan_usage_tokens_total"),
        ("runspan.usage.cost", "runspan_usage_cost_usd_total"),
        ("gen_ai.client.token.usage", "gen_ai_client_token_usage_sum"),
        ("gen_ai.client.operation.duration", "gen_ai_client_operation_duration_seconds_sum"),
        ("runspan.bridge.received_spans", "runspan_bridge_received_spans_total"),
        ("runspan.bridge.acknowledged_spans", "runspan_bridge_acknowledged_spans_total"),
        ("runspan.bridge.forwarded_spans", "runspan_bridge_forwarded_spans_total"),
    ] {
        let wanted = sum(&text, in_text, &[]);
        assert!(wanted > 0.0 && (sums[name] - wanted).abs() < 1e-9, "{name}: {} and {wanted}\n{text}", sums[name]);
    }
    assert_eq!((sums["runspan.bridge.journal_behind"], sums["runspan.bridge.request_memory"]), (0.0, 0.0));
    assert_eq!(said["service.name"], "runspan");
    assert_eq!(other.metrics(), Vec::<Vec<u8>>::new());
    // The next server counts anew, and so is another instance; its end tells what no interval has come to.
    assert_eq!(start("600000").end(), Some(0));
    let (sums, next) = last_reported(&asks);
    assert_eq!(sums["runspan.bridge.received_spans"], 0.0);
    assert_ne!(said["service.instance.id"], next["service.instance.id"]);
}

#[test]
fn series_are_bounded_whatever_senders_name_and_sums_stay_right() {
    const MOST: usize = 50;
    const SENT: u8 = 200;
    let dir = tempdir();
    let mut command = command(dir.path(), &["--durability", "process"]);
    command.env("RUNSPAN_METRIC_SERIES", MOST.to_string());
    let server = Server::spawn(command);
    let to = server.port("otlp-http");
    for trace in 1..=SENT {
        let mut spans = agent(trace);
        let name = format!("agent \"{trace}\" \n");
        spans[2].set_attr("gen_ai.agent.name", name.as_str());
        spans[0].set_attr("gen_ai.request.model", format!("model-{trace}").as_str());
        spans[0].set_attr("gen_ai.provider.name", format!("provider-{trace}").as_str());
        spans[0].set_attr("server.address", format!("host-{trace}.example").as_str());
        assert_eq!(post(to, PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
        // Nor do those who are refused make a series each.
        let head = format!(
            "M{trace} /v1/x{trace} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: u{trace}\r\nContent-Type: t/{trace}"
        );
        assert_ne!(ask(to, &head, b"").0, 200);
        assert_eq!(post(to, &format!("t/{trace}"), "", b"").0, 415);
    }
    let sent = f64::from(SENT);
    wait_until("all runs are counted", || sum(&scraped(&server, OPEN).0, "runspan_runs_total", &[]) >= sent);
    let (text, _) = scraped(&server, OPEN);
    let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    for (name, least) in [
        ("runspan_runs_total", 2),
        ("runspan_run_duration_seconds_count", 2),
        ("runspan_usage_tokens_total", 2),
        ("gen_ai_client_token_usage_count", 2),
        ("gen_ai_client_operation_duration_seconds_count", 2),
        ("runspan_records_total", 1),
        ("runspan_bridge_refused_requests_total", 1),
    ] {
        assert!((least..=MOST + 1).contains(&series(name)), "{name} has {} series", series(name));
    }
    assert_eq!(series("runspan_bridge_refused_requests_total"), 2, "by reason alone");
    let beyond = ["otel_metric_overflow=\"true\""];
    assert!(sum(&text, "runspan_runs_total", &beyond) > 0.0, "{text}");
    assert_eq!(sum(&text, "runspan_runs_total", &[]), sent);
    assert_eq!(sum(&text, "gen_ai_client_operation_duration_seconds_count", &[]), sent);
    assert_eq!(sum(&text, "gen_ai_client_token_usage_sum", &[]), 110.0 * sent);
    assert_eq!(sum(&text, "runspan_usage_tokens_total", &[]), 110.0 * sent);
    assert_eq!(sum(&text, "runspan_bridge_refused_requests_total", &[]), 2.0 * sent);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_real_prometheus_scrapes_what_the_runs_in_the_store_come_to() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let Some(prometheus) = Prometheus::scraping(server.port("http")) else { return };
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(some_runs()).encode_to_vec()).0, 200);
    let runs = stored(dir.path());
    let query = |query: &str| prometheus.value(query);
    wait_until("Prometheus has scraped all runs", || query("sum(runspan_runs_total)") == Some(5.0));
    let total = |of: fn(&RunSummary) -> f64| runs.iter().map(of).sum::<f64>();
    let cost = query("sum(runspan_run_cost_usd_sum)").unwrap();
    assert!((cost - total(|run| run.cost_usd.map_or(0.0, |cost| cost.as_usd()))).abs() < 1e-9, "{cost}");
    let tokens = |run: &RunSummary| run.tokens.and_then(|tokens| tokens.total).unwrap_or(0) as f64;
    for (promql, wanted) in [
        ("sum(gen_ai_client_token_usage_sum)", total(tokens)),
        ("sum(gen_ai_client_operation_duration_seconds_count)", total(|run| run.llm_calls as f64)),
        ("sum(runspan_runs_total{status=\"error\"})", total(|run| f64::from(run.status.to_string() == "error"))),
        ("sum(runspan_records_total)", 14.0),
        ("up{job=\"runspan\"}", 1.0),
    ] {
        assert_eq!(query(promql), Some(wanted), "{promql}\n{}", prometheus.log());
    }
    let found = prometheus.exemplars("gen_ai_client_operation_duration_seconds_bucket").unwrap();
    let run = runs.iter().find(|run| run.workflow_id.is_some()).unwrap();
    assert!(found.iter().any(|labels| labels["trace_id"] == run.trace_id.to_string()), "{found:?}");
    let targets = prometheus.asked("/api/v1/targets").unwrap();
    assert_eq!(targets["data"]["activeTargets"][0]["lastError"], "", "{targets}");
    assert_eq!(server.end(), Some(0));
}
