//! Real senders into `serve`. Only with `RUNSPAN_INTEROP=1`.

use std::path::Path;
use std::process::{Command, Stdio};

use runspan::model::{RunStatus, RunSummary};

use super::{Server, shown, wait_for};
use crate::interop::program;
use crate::support::{ended, outline, steps, tempdir};

const PROTOCOLS: [&str; 3] = ["grpc", "http/protobuf", "http/json"];

pub fn script(name: &str) -> String {
    format!("{}/tests/it/serve/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a sender, with the standard variables set for one protocol.
fn send(server: &Server, protocol: &str, mut command: Command) {
    let port = server.port(if protocol == "grpc" { "otlp-grpc" } else { "otlp-http" });
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{port}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none")
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = ended(command);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{protocol}: {said}");
}

fn over(runs: &[RunSummary], number: usize) -> bool {
    runs.len() == number && runs.iter().all(|run| run.status == RunStatus::Success)
}

/// All protocols of one SDK give the same run.
fn assert_each_protocol_is_understood(store: &Path) {
    let found = wait_for(store, |runs| over(runs, PROTOCOLS.len()));
    for run in &found {
        assert_eq!(shown(run), "agent weather success steps 3 llm 1 tools 1 Some(110)");
        // In the same millisecond, which is as fine as the clock in JavaScript is, either may be the first.
        let mut steps = outline(&steps(store, run.run_id));
        steps[1..].sort();
        assert_eq!(steps, ["weather agent success", "  chat llm success", "  look tool success"]);
    }
    assert_eq!(found.len(), PROTOCOLS.len());
}

#[test]
fn the_python_sdk_is_understood_over_each_protocol() {
    let Some(python) = program("python") else { return };
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    for protocol in PROTOCOLS {
        let mut command = Command::new(&python);
        command.args([&script("sdk.py"), protocol]);
        send(&server, protocol, command);
    }
    assert_each_protocol_is_understood(dir.path());
}

#[test]
fn the_javascript_sdk_is_understood_over_each_protocol() {
    let Some(modules) = program("node_modules") else { return };
    let (dir, scripts) = (tempdir(), tempdir());
    let path = scripts.path().join("sdk.mjs");
    std::fs::copy(script("sdk.mjs"), &path).unwrap();
    std::os::unix::fs::symlink(modules, scripts.path().join("node_modules")).unwrap();
    let server = Server::start(dir.path(), &[]);
    for protocol in PROTOCOLS {
        let mut command = Command::new("node");
        command.arg(&path);
        send(&server, protocol, command);
    }
    assert_each_protocol_is_understood(dir.path());
}

#[test]
fn every_trace_that_telemetrygen_sends_is_a_run() {
    const TRACES: usize = 100;
    const WORKERS: usize = 4;
    let Some(telemetrygen) = program("telemetrygen") else { return };
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    for http in [false, true] {
        let port = server.port(if http { "otlp-http" } else { "otlp-grpc" }).to_string();
        let mut command = Command::new(&telemetrygen);
        command.args(["traces", "--otlp-insecure", "--otlp-endpoint", &port, "--rate", "0", "--child-spans", "3"]);
        command.args(["--traces", &TRACES.to_string(), "--workers", &WORKERS.to_string()]);
        // Its batches are made from a queue that drops what it cannot send as fast as it is made.
        command.arg("--batch=false");
        command.args(["--telemetry-attributes", "gen_ai.operation.name=\"execute_tool\""]);
        if http {
            command.arg("--otlp-http");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = ended(command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // A root may come before its children.
    let is_whole = |run: &RunSummary| run.steps_total == 4;
    let found = wait_for(dir.path(), |runs| over(runs, 2 * TRACES * WORKERS) && runs.iter().all(is_whole));
    assert_eq!(found.iter().filter(|run| is_whole(run)).count(), 2 * TRACES * WORKERS);
}
