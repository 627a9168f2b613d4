//! The configurations in `collector-config/`: each is loaded by the program that it is for, with what goes through it.
//!
//! Only with `RUNSPAN_INTEROP=1`. Dashboards and data sources for Grafana have a file of their own.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message;
use runspan::model::{RunStatus, RunSummary};
use serde_json::Value;

use super::{JSON, PROTOBUF, Server, agent, command, post, request, shown, wait_for};
use crate::interop::{Peers, get, program, tag};
use crate::support::{ended, tempdir, wait_until};

fn whole(store: &Path) -> RunSummary {
    let is_whole =
        |runs: &[RunSummary]| matches!(runs, [run] if run.steps_total == 3 && run.status == RunStatus::Success);
    let found = wait_for(store, is_whole);
    assert!(is_whole(&found), "{found:?}");
    found.into_iter().next().unwrap()
}

/// What the configurations of Collectors hold that no test sends anything through is at least valid by its own word.
#[test]
fn every_configuration_of_a_collector_is_valid_by_its_own_word() {
    let (Some(otelcol), Some(jaeger)) = (program("otelcol"), program("jaeger")) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector-config");
    let files: BTreeSet<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let of_collector = ["agents-to-runspan.yaml", "collector.yaml", "runspan-to-tempo.yaml"];
    // By whom each other file is loaded: the builder in `.ci/peers`, and the tests here and beside.
    let others = ["README.md", "builder.yaml", "grafana", "jaeger.yaml", "prometheus.yaml", "tempo.yaml"];
    assert_eq!(files, of_collector.iter().chain(&others).map(|name| (*name).to_owned()).collect());
    for (program, name) in of_collector.iter().map(|name| (&otelcol, *name)).chain([(&jaeger, "jaeger.yaml")]) {
        let mut command = Command::new(program);
        command.arg("validate").arg(format!("--config={}", folder.join(name).display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = ended(command);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn agents_reach_runspan_through_a_collector() {
    let Some(otelcol) = program("otelcol") else { return };
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let runspan = [("RUNSPAN_OTLP_GRPC", server.port("otlp-grpc").to_string())];
    let collector = Peers::started_by(|peers| peers.start_one(Command::new(&otelcol), "agents-to-runspan", &runspan));
    let json = serde_json::to_vec(&request(agent(1))).unwrap();
    assert_eq!(post(collector.address("COLLECTOR_OTLP_HTTP"), JSON, "", &json).0, 200);
    assert_eq!(shown(&whole(dir.path())), "agent weather success steps 3 llm 1 tools 1 Some(110)");
    assert_eq!(server.end(), Some(0));
}

/// Sends an agent to a server that forwards to the Collector of `peers`, and returns its run.
fn forwarded(peers: &Peers, store: &Path) -> RunSummary {
    let server = Server::start(store, &["--forward", &peers.url("COLLECTOR_OTLP_HTTP")]);
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(agent(1)).encode_to_vec()).0, 200);
    let run = whole(store);
    assert_eq!(server.end(), Some(0));
    run
}

#[test]
fn what_the_server_says_of_itself_reaches_a_collector_that_asks_for_it() {
    let Some(otelcol) = program("otelcol") else { return };
    for (protocol, scheme) in [("COLLECTOR_OTLP_HTTP", "http"), ("COLLECTOR_OTLP_GRPC", "grpc")] {
        let peers = Peers::started_by(|peers| peers.start_one(Command::new(&otelcol), "collector", &[]));
        let (dir, target) =
            (tempdir(), format!("{scheme}://{}#own_metrics=on&compression=gzip", peers.address(protocol)));
        let mut command = command(dir.path(), &["--forward", &target]);
        command.env("OTEL_METRIC_EXPORT_INTERVAL", "200");
        let server = Server::spawn(command);
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(agent(1)).encode_to_vec()).0, 200);
        whole(dir.path());
        assert_eq!(server.end(), Some(0));
        // The last value of each series, summed.
        let sum = |name: &str, key: &str| -> f64 {
            let series = peers.metrics();
            let of_name = series.iter().filter(|(series, _)| series.split(' ').next() == Some(name));
            let number = |point: &Value| point[key].as_str().map_or(point[key].as_f64(), |text| text.parse().ok());
            of_name.map(|(_, point)| number(point).unwrap()).sum()
        };
        wait_until("the Collector has the last values", || sum("runspan.records", "asInt") == 3.0);
        assert_eq!((sum("runspan.runs", "asInt"), sum("gen_ai.client.token.usage", "sum")), (1.0, 110.0));
        for name in ["received_spans", "acknowledged_spans", "forwarded_spans"] {
            assert_eq!(sum(&format!("runspan.bridge.{name}"), "asInt"), 3.0, "{name}");
        }
        assert_eq!(sum("runspan.bridge.connections", "asInt"), 0.0);
    }
}

#[test]
fn what_runspan_forwards_reaches_jaeger_through_a_collector_with_names_and_cost() {
    if program("jaeger").is_none() {
        return;
    }
    let (peers, dir) = (Peers::started(), tempdir());
    let run = forwarded(&peers, dir.path());
    let spans = peers.arrived(&run, 3);
    let call = spans.iter().find(|span| span["operationName"] == "chat 2").unwrap();
    let cost = run.cost_usd.unwrap().as_usd();
    assert_eq!(tag(call, "runspan.cost.usd").and_then(Value::as_f64), Some(cost));
    assert_eq!(tag(call, "runspan.cost.source").and_then(Value::as_str), Some("computed"));
    let root = spans.iter().find(|span| span["operationName"] == "invoke_agent 1").unwrap();
    assert_eq!(tag(root, "runspan.run.id").and_then(Value::as_str), Some(&*run.run_id.to_string()));
}

#[test]
fn what_runspan_forwards_reaches_tempo_through_a_collector_with_names_and_cost() {
    let (Some(otelcol), Some(tempo)) = (program("otelcol"), program("tempo")) else { return };
    let peers = Peers::started_by(|peers| {
        let port = |name: &str| peers.address(name).port().to_string();
        let more = [
            ("TEMPO_HTTP_PORT", port("TEMPO_HTTP")),
            ("TEMPO_GRPC_PORT", port("TEMPO_GRPC")),
            ("TEMPO_DIR", peers.dir().join("tempo").display().to_string()),
        ];
        let mut command = Command::new(&tempo);
        command.arg("-config.expand-env=true");
        peers.start_saying(command, "-config.file", "tempo", "Tempo started", &more)?;
        peers.start_one(Command::new(&otelcol), "runspan-to-tempo", &[])
    });
    let dir = tempdir();
    let run = forwarded(&peers, dir.path());
    let spans = || -> Vec<Value> {
        let (code, body) = get(peers.address("TEMPO_HTTP"), &format!("/api/traces/{}", run.trace_id));
        let trace: Value = if code == 200 { serde_json::from_str(&body).unwrap() } else { Value::Null };
        let each = |value: &Value, names: &[&str]| -> Vec<Value> {
            names.iter().flat_map(|name| value[*name].as_array().cloned().unwrap_or_default()).collect()
        };
        // Its releases differ in what the levels are called.
        let scopes = each(&trace, &["batches"])
            .into_iter()
            .flat_map(|batch| each(&batch, &["scopeSpans", "instrumentationLibrarySpans"]));
        scopes.flat_map(|scope| each(&scope, &["spans"])).collect()
    };
    wait_until("all spans are in Tempo", || spans().len() == 3);
    let spans = spans();
    let call = spans.iter().find(|span| span["name"] == "chat 2").unwrap();
    let attribute = |key: &str| {
        call["attributes"].as_array().unwrap().iter().find(|pair| pair["key"] == key).map(|pair| pair["value"].clone())
    };
    let cost = run.cost_usd.unwrap().as_usd();
    assert_eq!(attribute("runspan.cost.usd").and_then(|value| value["doubleValue"].as_f64()), Some(cost));
    assert_eq!(attribute("gen_ai.request.model").unwrap()["stringValue"], "gpt-4o-mini");
}
