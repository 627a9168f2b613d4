//! `runspan serve` with real requests over loopback: what it answers, and what is stored then.

mod bounds;
mod configurations;
mod disk;
mod forward;
mod grafana;
mod hostile;
mod imports;
mod metrics;
mod prices;
mod prometheus;
mod senders;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use runspan::model::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
use runspan::model::{RunStatus, RunSummary};
use runspan::store::RunReader as _;
use runspan::store::files::FilesReader;

use crate::support::{WATCHDOG, runs, tempdir};

/// A server with its ports, killed when the test is done with it.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    ports: Vec<(String, SocketAddr)>,
}

impl Server {
    fn start(store: &Path, more: &[&str]) -> Self {
        Self::spawn(command(store, more))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ports = Vec::new();
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended before it was ready");
            match line.trim_end().split(' ').collect::<Vec<_>>()[..] {
                ["listening", name, address] => ports.push((name.to_owned(), address.parse().unwrap())),
                ["ready"] => break,
                _ => panic!("{line:?}"),
            }
        }
        Self { child, out, ports }
    }

    fn port(&self, name: &str) -> SocketAddr {
        self.ports.iter().find(|(of, _)| of == name).unwrap().1
    }

    /// Ends it as a supervisor does, and returns its exit code.
    fn end(mut self) -> Option<i32> {
        // SAFETY: a child of ours that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing more on standard output");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(store: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
    command.args(["serve", "--otlp-grpc", "0", "--otlp-http", "0", "--http", "0", "--store"]).arg(store).args(more);
    command
}

/// Sends a request as it stands and returns status, head and body.
fn ask(to: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let length = body.len();
    stream.write_all(format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").as_bytes()).unwrap();
    if let Err(error) = stream.write_all(body) {
        // Who refuses a request by its head answers before the body has come.
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
}

fn post(to: SocketAddr, media: &str, more: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    ask(to, &format!("POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}{more}"), body)
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn span(trace: u8, id: u8, parent: u8, operation: &str, from: u64, to: u64) -> Span {
    let start = 1_767_693_600_000_000_000;
    let mut span = Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: format!("{operation} {id}"),
        start_time_unix_nano: start + from * 1_000_000,
        end_time_unix_nano: start + to * 1_000_000,
        ..Span::default()
    };
    if !operation.is_empty() {
        span.set_attr("gen_ai.operation.name", operation);
    }
    if operation == "chat" {
        span.set_attr("gen_ai.provider.name", "openai");
        span.set_attr("gen_ai.request.model", "gpt-4o-mini");
        span.set_attr("gen_ai.usage.input_tokens", 100);
        span.set_attr("gen_ai.usage.output_tokens", 10);
    }
    span
}

fn request(spans: Vec<Span>) -> TracesData {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// An agent with a model call and a tool, children first, as exporters send them.
fn agent(trace: u8) -> Vec<Span> {
    let mut root = span(trace, 1, 0, "invoke_agent", 0, 100);
    root.set_attr("gen_ai.agent.name", "weather");
    vec![span(trace, 2, 1, "chat", 10, 40), span(trace, 3, 1, "execute_tool", 40, 50), root]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Waits until the store shows what is wanted.
fn wait_for(store: &Path, wanted: impl Fn(&[RunSummary]) -> bool) -> Vec<RunSummary> {
    let until = Instant::now() + WATCHDOG;
    loop {
        let found = runs(store);
        if wanted(&found) || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn shown(run: &RunSummary) -> String {
    let name = run.agent_id.as_ref().or(run.workflow_id.as_ref()).unwrap();
    let tokens = run.tokens.and_then(|tokens| tokens.total);
    format!(
        "{} {name} {} steps {} llm {} tools {} {tokens:?}",
        run.kind, run.status, run.steps_total, run.llm_calls, run.tool_calls
    )
}

#[test]
fn a_run_is_found_by_whoever_asks_right_behind_its_acknowledgement() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let run = |arguments: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_runspan")).args(arguments).arg("--store").arg(dir.path()).output();
        let answer = command.unwrap();
        (answer.status.code(), String::from_utf8_lossy(&answer.stderr).into_owned())
    };
    for (trace, command) in (1..).zip(["get", "unpack", "pin", "verify", "export"]) {
        let (code, ..) = post(server.port("otlp-http"), PROTOBUF, "", &request(agent(trace)).encode_to_vec());
        assert_eq!(code, 200);
        let id = format!("{trace:02x}").repeat(16);
        assert_eq!(run(&[command, &id]), (Some(0), String::new()), "{command}");
    }
    let begun = Instant::now();
    assert_eq!(run(&["get", &"77".repeat(16)]).0, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing is waited for when nothing is to come");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn traces_in_every_encoding_are_stored_and_shown() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let names: Vec<&str> = server.ports.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["otlp-grpc", "otlp-http", "http"]);
    let to = server.port("otlp-http");
    let (code, head, body) = post(to, PROTOBUF, "", &request(agent(1)).encode_to_vec());
    assert_eq!((code, body), (200, Vec::new()));
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let json = serde_json::to_vec(&request(agent(2))).unwrap();
    let (code, head, body) = post(to, "application/json; charset=utf-8", "", &json);
    assert_eq!((code, body), (200, b"{}".to_vec()));
    assert!(head.contains("content-type: application/json"), "{head}");
    let packed = gzip(&request(agent(3)).encode_to_vec());
    assert_eq!(post(to, PROTOBUF, "\r\nContent-Encoding: gzip", &packed).0, 200);
    assert_eq!(grpc(server.port("otlp-grpc"), &request(agent(4)).encode_to_vec(), false).unwrap(), "0");
    assert_eq!(grpc(server.port("otlp-grpc"), &request(agent(5)).encode_to_vec(), true).unwrap(), "0");
    // Sent again, it changes nothing.
    assert_eq!(post(to, PROTOBUF, "", &request(agent(1)).encode_to_vec()).0, 200);
    assert_eq!(post(to, PROTOBUF, "", b"").0, 200, "an empty request is one");
    let found = wait_for(dir.path(), |runs| runs.len() == 5 && runs.iter().all(|run| run.status == RunStatus::Success));
    let found: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"; 5]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(server.port("http"), &format!("GET {path} HTTP/1.1\r\nHost: localhost"), b"").0, 200);
    }
    assert_eq!(server.end(), Some(0));
}

/// Calls `Export` over HTTP/2 and returns the status.
fn grpc(to: SocketAddr, message: &[u8], packed: bool) -> Result<String, h2::Error> {
    let message = if packed { gzip(message) } else { message.to_vec() };
    let mut body = vec![u8::from(packed)];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    grpc_call(to, body, if packed { "gzip" } else { "" })
}

/// Calls `Export` with a body as it stands.
fn grpc_call(to: SocketAddr, body: Vec<u8>, encoding: &str) -> Result<String, h2::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let mut call =
            http::Request::post(format!("http://{to}/opentelemetry.proto.collector.trace.v1.TraceService/Export"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
        if !encoding.is_empty() {
            call = call.header("grpc-encoding", encoding);
        }
        let (answer, mut sending) = send.send_request(call.body(()).unwrap(), false)?;
        sending.send_data(body.into(), true)?;
        let mut answer = answer.await?;
        let status =
            |headers: &http::HeaderMap| headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        let mut told = status(answer.headers());
        while let Some(data) = answer.body_mut().data().await {
            data?;
        }
        if let Some(trailers) = answer.body_mut().trailers().await? {
            told = told.or(status(&trailers));
        }
        connection.abort();
        Ok(told.unwrap_or_default())
    })
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_reason_in_the_senders_encoding() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let text = |(code, _, body): (u16, String, Vec<u8>)| (code, String::from_utf8_lossy(&body).into_owned());
    let (code, why) = text(post(to, JSON, "", b"{\"resourceSpans\": 3}"));
    assert_eq!(code, 400);
    assert!(
        why.starts_with("{\"code\":3,\"message\":\"the body is not an OTLP export request in JSON: resourceSpans"),
        "{why}"
    );
    assert_eq!(text(post(to, PROTOBUF, "", b"\x0a\xff")).0, 400);
    assert_eq!(text(post(to, "text/plain", "", b"")).0, 415);
    assert_eq!(text(post(to, PROTOBUF, "\r\nContent-Encoding: br", b"x")).0, 415);
    assert_eq!(text(post(to, PROTOBUF, "\r\nContent-Encoding: gzip", b"no gzip")).0, 400);
    assert_eq!(text(ask(to, "GET /v1/traces HTTP/1.1\r\nHost: localhost", b"")).0, 405);
    assert_eq!(
        text(ask(to, "POST /v1/other HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json", b"{}")).0,
        404
    );
    let metrics = |body: &[u8]| {
        text(ask(to, "POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json", body))
    };
    let (code, why) = metrics(br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m"}]}]}]}"#);
    assert_eq!(code, 501);
    assert!(why.contains("OTEL_METRICS_EXPORTER=none"), "{why}");
    // Of none it keeps all.
    assert_eq!(metrics(b"{}"), (200, "{}".to_owned()));
    assert_eq!(metrics(br#"{"resourceMetrics":[]}"#), (200, "{}".to_owned()));
    assert_eq!(text(post(to, JSON, "\r\nOrigin: https://evil.example", b"{}")).0, 403);
    assert_eq!(
        text(ask(to, "POST /v1/traces HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json", b"{}")).0,
        421
    );
    // Far more than may be in memory, in a few kilobytes.
    let bomb = gzip(&vec![0; 80 << 20]);
    assert_eq!(text(post(to, PROTOBUF, "\r\nContent-Encoding: gzip", &bomb)).0, 413);
    assert_eq!(text(post(to, PROTOBUF, "", &[0x0a, 0x00].repeat(200_000))).0, 413, "counted before it is decoded");
    assert_eq!(grpc(server.port("otlp-grpc"), b"\x0a\xff", false).unwrap(), "3");
    assert_eq!(grpc(server.port("otlp-grpc"), &vec![0; 80 << 20], true).unwrap(), "8");
    let empty =
        |flag: u8, encoding: &str| grpc_call(server.port("otlp-grpc"), vec![flag, 0, 0, 0, 0], encoding).unwrap();
    assert_eq!([empty(0, ""), empty(0, "gzip"), empty(1, ""), empty(1, "identity")], ["0", "0", "3", "3"]);
    assert_eq!(ask(server.port("http"), "GET /healthz HTTP/1.1\r\nHost: localhost", b"").0, 200, "and it goes on");
    assert_eq!(server.end(), Some(0));
    assert_eq!(runs(dir.path()), []);
}

#[test]
fn one_broken_span_costs_that_span() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let mut spans = agent(1);
    spans.push(Span { trace_id: vec![1; 16], span_id: vec![0; 8], ..Span::default() });
    let json = serde_json::to_string(&request(spans))
        .unwrap()
        .replace("\"parentSpanId\":\"0101010101010101\"", "\"parent_span_id\":\"0101010101010101\",\"events\":null");
    let (code, _, body) = post(server.port("otlp-http"), JSON, "", json.as_bytes());
    assert_eq!(code, 200);
    insta::assert_snapshot!(String::from_utf8(body).unwrap(), @r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"spans rejected: 1 (1 bad_id), first: span 3 of the request: span_id is all zeros; 2 names are written with underscores, \"parent_span_id\" first: OTLP JSON has lowerCamelCase"}}"#);
    let found = wait_for(dir.path(), |runs| runs.iter().any(|run| run.status == RunStatus::Success));
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), ["agent weather success steps 3 llm 1 tools 1 Some(110)"]);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_log_joins_its_span_whichever_comes_first_and_any_other_is_told_of() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}");
    let log = |trace: u8, name: &str| {
        let (trace, span) = (format!("{trace:02x}").repeat(16), "02".repeat(8));
        let answer = serde_json::json!({"key": "gen_ai.output.messages", "value": {"stringValue": "Sunny."}});
        let time = "1767693600030000000";
        serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
            {"timeUnixNano": time, "eventName": name, "traceId": trace, "spanId": span, "attributes": [answer]},
        ]}]}]})
    };
    let send = |log: serde_json::Value| {
        let (code, _, body) = ask(to, &head("/v1/logs"), log.to_string().as_bytes());
        (code, String::from_utf8(body).unwrap())
    };
    let details = "gen_ai.client.inference.operation.details";
    assert_eq!(send(log(1, details)), (200, "{}".to_owned()));
    assert_eq!(post(to, PROTOBUF, "", &request(agent(1)).encode_to_vec()).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &request(agent(2)).encode_to_vec()).0, 200);
    wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().all(|run| run.status == RunStatus::Success));
    assert_eq!(send(log(2, details)), (200, "{}".to_owned()));
    let (code, why) = send(log(1, "app.started"));
    assert!(code == 200 && why.contains(r#""rejectedLogRecords":"1""#) && why.contains("no events of GenAI"), "{why}");
    assert_eq!(server.end(), Some(0));
    for run in runs(dir.path()) {
        let steps = crate::support::steps(dir.path(), run.run_id);
        let outputs: Vec<_> = steps.iter().filter_map(|step| step.output.as_ref()).map(ToString::to_string).collect();
        assert_eq!(outputs, [r#"[{"role":"assistant","parts":[{"type":"text","content":"Sunny."}]}]"#]);
    }
}

#[test]
fn a_run_whose_root_is_late_runs_until_it_comes_or_until_it_is_silent_for_long() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &["--silence", "2"]);
    let to = server.port("otlp-http");
    let mut spans = agent(1);
    let root = spans.pop().unwrap();
    assert_eq!(post(to, PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    let found = wait_for(dir.path(), |runs| runs.len() == 1);
    assert_eq!(found[0].status, RunStatus::Running);
    assert_eq!(post(to, PROTOBUF, "", &request(vec![root]).encode_to_vec()).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &request(vec![span(2, 2, 1, "chat", 0, 10)]).encode_to_vec()).0, 200);
    let found = wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().all(|run| run.status == RunStatus::Success));
    let mut found: Vec<String> = found.iter().map(shown).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "agent weather success steps 3 llm 1 tools 1 Some(110)",
            "workflow chat 2 success steps 1 llm 1 tools 0 Some(110)"
        ]
    );
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_is_late_or_told_again_finds_its_run_behind_a_restart_however_the_server_ended() {
    for is_killed in [true, false] {
        let dir = tempdir();
        let mut server = Server::start(dir.path(), &[]);
        let late = |trace: u8| request(vec![span(trace, 4, 1, "chat", 50, 60)]).encode_to_vec();
        let send = |to: &Server, body: &[u8]| assert_eq!(post(to.port("otlp-http"), PROTOBUF, "", body).0, 200);
        for trace in 1..=20 {
            send(&server, &request(agent(trace)).encode_to_vec());
        }
        wait_for(dir.path(), |runs| runs.len() == 20 && runs.iter().all(|run| run.status == RunStatus::Success));
        // Runs are let go of when they have been over for a while.
        std::thread::sleep(Duration::from_millis(1_500));
        (1..=20).for_each(|trace| send(&server, &late(trace)));
        if is_killed {
            server.child.kill().unwrap();
            drop(server);
        } else {
            assert_eq!(server.end(), Some(0));
        }
        let server = Server::start(dir.path(), &[]);
        // A client whose answer was lost sends again.
        (1..=20).for_each(|trace| send(&server, &late(trace)));
        (1..=20).for_each(|trace| send(&server, &request(agent(trace)).encode_to_vec()));
        assert_eq!(server.end(), Some(0));
        let found: Vec<String> = runs(dir.path()).iter().map(shown).collect();
        assert_eq!(found, ["agent weather success steps 4 llm 2 tools 1 Some(220)"; 20], "killed: {is_killed}");
        let verified =
            Command::new(env!("CARGO_BIN_EXE_runspan")).arg("verify").arg("--store").arg(dir.path()).output();
        assert!(verified.as_ref().unwrap().status.success(), "{verified:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_the_next_server_goes_on_with_it() {
    let dir = tempdir();
    let mut server = Server::start(dir.path(), &[]);
    let mut roots = Vec::new();
    for trace in 1..=20 {
        let mut spans = agent(trace);
        roots.push(spans.pop().unwrap());
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    }
    server.child.kill().unwrap();
    drop(server);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(roots).encode_to_vec()).0, 200);
    let found =
        wait_for(dir.path(), |runs| runs.len() == 20 && runs.iter().all(|run| run.status == RunStatus::Success));
    let found: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"; 20]);
    assert_eq!(server.end(), Some(0));
}

/// It is told once more when it ends, and its own steps do not say what stands above it.
#[test]
fn a_run_in_place_of_another_servers_keeps_the_run_above_when_it_falls_silent() {
    let dir = tempdir();
    let (mut first, second) = (Server::start(dir.path(), &[]), Server::start(dir.path(), &[]));
    let send = |server: &Server, spans: Vec<Span>| {
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    };
    let mut spans = agent(1);
    let late = spans.remove(0);
    send(&second, spans);
    let whole = wait_for(dir.path(), |runs| runs.iter().any(|run| run.status == RunStatus::Success));
    send(&first, vec![late]);
    wait_for(dir.path(), |runs| runs.len() == 2);
    first.child.kill().unwrap();
    drop(first);
    let list = || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_runspan")).args(["list", "--json", "--store"]).arg(dir.path()).output();
        let listed: Vec<RunSummary> = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let late = listed.iter().find(|run| run.run_id != whole[0].run_id).unwrap();
        (late.status, late.parent_run_id)
    };
    assert_eq!(list(), (RunStatus::Success, Some(whole[0].run_id)));
    assert_eq!(second.end(), Some(0));
}

#[test]
fn what_a_server_left_open_is_taken_in_once_and_the_next_server_goes_on_with_it() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempdir();
    let mut server = Server::start(dir.path(), &[]);
    let send = |server: &Server, spans: Vec<Span>| {
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    };
    let mut spans = agent(1);
    // A run is open as long as it has not been silent for long.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for span in &mut spans {
        (span.start_time_unix_nano, span.end_time_unix_nano) = (now - 1_000_000, now);
    }
    let root = spans.pop().unwrap();
    send(&server, vec![spans.remove(0)]);
    server.child.kill().unwrap();
    drop(server);
    let list = || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_runspan")).args(["list", "--json", "--store"]).arg(dir.path()).output();
        let listed: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let run = &listed[0];
        let path = dir.path().join("workflows").join(run["run_id"].as_str().unwrap()).join("run.yaml");
        (run["steps_total"].clone(), std::fs::metadata(path).unwrap().ino())
    };
    let first = list();
    assert_eq!(first.0, 1);
    assert_eq!(list(), first, "and it is not written once more");
    // What a server adds to the same journal is seen behind it.
    let mut server = Server::start(dir.path(), &[]);
    send(&server, spans);
    server.child.kill().unwrap();
    drop(server);
    assert_eq!(list().0, 2);
    let server = Server::start(dir.path(), &[]);
    send(&server, vec![root]);
    let found = wait_for(dir.path(), |runs| runs.iter().all(|run| run.status == RunStatus::Success));
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), ["agent weather success steps 3 llm 1 tools 1 Some(110)"]);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_comes_late_goes_on_with_the_run_of_its_trace_whoever_wrote_that_and_whatever_came_first() {
    let command = |store: &Path, args: &[&str]| -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_runspan")).args(args).arg("--store").arg(store).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let send = |server: &Server, spans: &[Span]| {
        let body = request(spans.to_vec()).encode_to_vec();
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    };
    let (spans, files) = (agent(7), tempdir());
    // The first span that came is not the first that began.
    let (first, rest) = spans.split_at(1);
    let ways = [
        "killed",
        "killed and listed",
        "ended",
        "imported",
        "imported while it serves",
        "imported again",
        "imported with more",
    ];
    for way in ways {
        let dir = tempdir();
        let import = |spans: &[Span]| {
            let file = files.path().join("spans.pb");
            std::fs::write(&file, request(spans.to_vec()).encode_to_vec()).unwrap();
            command(dir.path(), &["import", file.to_str().unwrap()])
        };
        let mut server = Server::start(dir.path(), &[]);
        match way {
            "imported" => {
                assert_eq!(server.end(), Some(0));
                import(first);
                import(rest);
            }
            "imported while it serves" => {
                import(first);
                send(&server, rest);
                assert_eq!(server.end(), Some(0));
            }
            "imported again" => {
                send(&server, &spans);
                wait_for(dir.path(), |runs| runs.iter().any(|run| run.status == RunStatus::Success));
                assert_eq!(import(&spans[1..]), "0 spans stored, 2 there already\n");
                assert_eq!(server.end(), Some(0));
            }
            "imported with more" => {
                // What the server has comes first, and is no GenAI span.
                let mut plain = spans[0].clone();
                (plain.attributes, plain.name, plain.span_id) = (Vec::new(), "GET".to_owned(), vec![77; 8]);
                send(&server, &[spans.as_slice(), std::slice::from_ref(&plain)].concat());
                wait_for(dir.path(), |runs| runs.iter().any(|run| run.status == RunStatus::Success));
                let mut more = spans[1].clone();
                more.span_id = vec![78; 8];
                assert_eq!(import(&[plain, more]), "1 span stored, 1 there already\n");
                assert_eq!(server.end(), Some(0));
                let all = runs(dir.path());
                let below = all.iter().filter(|run| run.parent_run_id.is_some());
                assert_eq!((all.len(), below.count()), (2, 1), "{all:?}");
                continue;
            }
            _ => {
                send(&server, first);
                wait_for(dir.path(), |runs| runs.len() == 1);
                if way == "ended" {
                    assert_eq!(server.end(), Some(0));
                } else {
                    server.child.kill().unwrap();
                    drop(server);
                }
                if way == "killed and listed" {
                    command(dir.path(), &["list"]);
                }
                let server = Server::start(dir.path(), &[]);
                send(&server, rest);
                assert_eq!(server.end(), Some(0));
            }
        }
        let found: Vec<String> = runs(dir.path()).iter().map(shown).collect();
        assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"], "{way}");
        command(dir.path(), &["verify"]);
    }
}

#[test]
fn who_is_waited_for_at_the_start_is_said() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let body = request(vec![span(1, 2, 1, "chat", 1, 2)]).encode_to_vec();
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    drop(server);
    // As an import does that takes in what a killed server had not written.
    let left = std::fs::read_dir(dir.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let held = std::fs::File::open(left.join("lock")).unwrap();
    held.lock().unwrap();
    let said = dir.path().join("said");
    let mut command = command(dir.path(), &[]);
    command.stderr(std::fs::File::create(&said).unwrap());
    let starts = std::thread::spawn(move || Server::spawn(command));
    crate::support::wait_until("it says whom it waits for", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains(&left.display().to_string()) && said.contains("waiting up to 30 s")
    });
    drop(held);
    assert_eq!(starts.join().unwrap().end(), Some(0));
}

#[test]
fn runs_that_are_not_kept_go_while_it_serves_and_it_says_so() {
    let dir = tempdir();
    runspan::store::files::layout::Layout::new(dir.path()).open_or_create().unwrap();
    let store_file = dir.path().join("store.yaml");
    let text = std::fs::read_to_string(&store_file).unwrap();
    std::fs::write(&store_file, text + "retention: {keep: 1, every: 1s}\n").unwrap();
    let said = dir.path().join("said");
    let mut command = command(dir.path(), &["--durability", "process"]);
    command.stderr(std::fs::File::create(&said).unwrap());
    let server = Server::spawn(command);
    for trace in 1..=20 {
        let body = request(agent(trace)).encode_to_vec();
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    }
    crate::support::wait_until("it says what it removed", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains("removed") && said.contains("runspan pin keeps a run")
    });
    // Those that it has at hand for late spans stay for now.
    wait_for(dir.path(), |runs| !runs.is_empty() && runs.len() < 12);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_keeps_it_from_starting_is_named() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let taken = server.port("http").to_string();
    let refused = |more: &[&str]| {
        let output = command(&dir.path().join("other"), &[]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let run = |flag: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        let output = command.args(["serve", flag, value, "--store"]).arg(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, why) = run("--otlp-grpc", &taken);
    assert_eq!(code, Some(3));
    assert!(why.contains(&format!("cannot listen on {taken} for otlp-grpc")), "{why}");
    let (code, why) = run("--http", "0.0.0.0:0");
    assert_eq!(code, Some(2));
    assert!(why.contains("--insecure-bind"), "{why}");
    assert_eq!(refused(&["--durability", "none"]).0, Some(2));
    for (variable, word) in [("RUNSPAN_CONTENT", "all"), ("RUNSPAN_DURABILITY", "no"), ("RUNSPAN_FORWARD_KEEP", "some")]
    {
        let output = command(&dir.path().join("other"), &[]).env(variable, word).output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{why}");
        assert!(why.contains(&format!("{variable}: \"{word}\" is not ")), "{why}");
    }
    std::fs::write(dir.path().join("other"), b"a file").unwrap();
    assert_eq!(refused(&[]).0, Some(3));
    assert_eq!(server.end(), Some(0));
}

#[test]
fn variables_that_are_empty_say_nothing_and_others_stand_for_flags() {
    let empty =
        ["CONFIG", "CONTENT", "DURABILITY", "FORWARD", "FORWARD_KEEP", "SEARCH"].map(|of| format!("RUNSPAN_{of}"));
    let dir = tempdir();
    let mut all = command(dir.path(), &[]);
    all.envs(empty.iter().map(|variable| (variable, "")));
    assert_eq!(Server::spawn(all).end(), Some(0));
    let kept = |more: &[&str]| {
        let dir = tempdir();
        let mut command = command(dir.path(), more);
        command.env("RUNSPAN_CONTENT", "None").env("RUNSPAN_SEARCH", "no");
        let server = Server::spawn(command);
        let said = runspan::model::otlp::KeyValue {
            key: "gen_ai.input.messages".to_owned(),
            value: Some(runspan::model::otlp::Value::from(r#"[{"role":"user","content":"hi"}]"#).into()),
        };
        let mut request = request(agent(1));
        request.resource_spans[0].scope_spans[0].spans[0].attributes.push(said);
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request.encode_to_vec()).0, 200);
        let runs = wait_for(dir.path(), |runs| !runs.is_empty());
        let steps = FilesReader::open(dir.path()).unwrap().get_steps(runs[0].run_id).unwrap();
        assert_eq!(server.end(), Some(0));
        steps.iter().any(|step| step.input.is_some())
    };
    assert!(!kept(&[]));
    assert!(kept(&["--content", "full"]));
    // What a flag gives is not looked for.
    let mut wrong = command(dir.path(), &["--content", "full"]);
    wrong.env("RUNSPAN_CONTENT", "everything");
    assert_eq!(Server::spawn(wrong).end(), Some(0));
}

#[test]
fn what_a_process_of_this_store_has_written_itself_is_not_stored_again() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let about = std::fs::read_to_string(dir.path().join("store.yaml")).unwrap();
    let store_id = about.lines().find_map(|line| line.strip_prefix("store_id: ")).unwrap().trim_matches('"').to_owned();
    let of_store = |trace: u8, id: &str| {
        let mut request = request(agent(trace));
        let resource = request.resource_spans[0].resource.get_or_insert_default();
        let value = Some(runspan::model::otlp::Value::from(id).into());
        resource.attributes = vec![runspan::model::otlp::KeyValue { key: "runspan.store.id".to_owned(), value }];
        request.encode_to_vec()
    };
    let to = server.port("otlp-http");
    assert_eq!(post(to, PROTOBUF, "", &of_store(1, &store_id)).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &of_store(2, "another")).0, 200);
    assert_eq!(server.end(), Some(0));
    let traces: Vec<String> = runs(dir.path()).iter().map(|run| run.trace_id.to_string()).collect();
    assert_eq!(traces, ["02".repeat(16)]);
}

#[test]
fn spans_under_the_trace_of_a_run_that_another_process_writes_are_a_run_of_that_one() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let mut outer_id = None;
    crate::support::record_in(dir.path(), |_| {
        let outer = runspan::Run::agent("outer").start();
        let id = outer.id().unwrap();
        outer_id = Some(id);
        wait_for(dir.path(), |runs| !runs.is_empty());
        let trace = id.as_trace_id().0.to_vec();
        let under = |mut span: Span| {
            span.trace_id = trace.clone();
            // Its parent is a step of the other process.
            if span.parent_span_id.is_empty() {
                (span.parent_span_id, span.flags) = (vec![9; 8], 0x300);
            }
            span
        };
        let spans = request(agent(1).into_iter().map(under).collect());
        assert_eq!(post(to, PROTOBUF, "", &spans.encode_to_vec()).0, 200);
        let found = wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().any(|run| run.llm_calls == 1));
        let inner = found.iter().find(|run| run.run_id != id).unwrap();
        assert_eq!((inner.parent_run_id, inner.trace_id), (Some(id), id.as_trace_id()));
        assert_eq!(shown(inner), "agent weather success steps 3 llm 1 tools 1 Some(110)");
        outer.finish();
    });
    assert_eq!(server.end(), Some(0));
    let found = runs(dir.path());
    let outer = found.iter().find(|run| Some(run.run_id) == outer_id).unwrap();
    assert_eq!((found.len(), outer.steps_total, outer.llm_calls), (2, 1, 0));
}

#[test]
fn a_call_that_two_layers_tell_over_two_connections_counts_once() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let answered = |mut span: Span| {
        if span.name.starts_with("chat") {
            span.set_attr("gen_ai.response.id", "resp-1");
        }
        span
    };
    let mut spans: Vec<Span> = agent(1).into_iter().map(answered).collect();
    let again = answered(span(1, 4, 1, "chat", 11, 39));
    let root = spans.pop().unwrap();
    assert_eq!(post(to, PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &request(vec![again]).encode_to_vec()).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &request(vec![root]).encode_to_vec()).0, 200);
    assert_eq!(server.end(), Some(0));
    let found = runs(dir.path());
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), ["agent weather success steps 4 llm 1 tools 1 Some(110)"]);
    let steps = crate::support::steps(dir.path(), found[0].run_id);
    let copies: Vec<_> = steps.iter().filter_map(|step| step.duplicate_of.as_deref()).collect();
    assert_eq!(copies, ["chat"]);
}

#[test]
fn a_server_keeps_the_texts_of_a_store_unless_told_not_to() {
    let dir = tempdir();
    let run = |args: &[&str]| assert!(crate::demo::runspan(dir.path(), args).status.success(), "{args:?}");
    let texts = dir.path().join("text.sqlite");
    let wait_for = |is_there: bool| {
        let until = Instant::now() + WATCHDOG;
        while texts.exists() != is_there {
            assert!(Instant::now() < until, "text.sqlite is there: {}", !is_there);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    run(&["demo"]);
    // A store this small has an index once something was asked of it.
    run(&["stats"]);
    let server = Server::start(dir.path(), &[]);
    run(&["demo"]);
    wait_for(true);
    assert_eq!(server.end(), Some(0));
    let server = Server::start(dir.path(), &["--search", "off"]);
    run(&["demo"]);
    wait_for(false);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_run_that_came_over_otlp_cannot_be_asked_for_anything_and_that_is_said() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    // Its root has not come, so it is under way.
    let spans = request(vec![span(7, 2, 1, "chat", 10, 40)]).encode_to_vec();
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &spans).0, 200);
    wait_for(dir.path(), |runs| runs.len() == 1 && runs[0].status == RunStatus::Running);
    for command in ["cancel", "pause"] {
        let output = super::demo::runspan(dir.path(), &[command, "latest"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("came over OTLP: its program does not listen"), "{said}");
    }
    drop(server);
    // Nor after the server: the next one goes on with it.
    assert_eq!(super::demo::runspan(dir.path(), &["cancel", "latest"]).status.code(), Some(1));
}
