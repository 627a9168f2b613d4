//! The server's bounds, each with its answer, while others are served; and its configuration file.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use prost::Message;
use runspan::model::RunStatus;
use runspan::model::otlp::{AnyValue, ArrayValue, KeyValue, Value};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{JSON, PROTOBUF, Server, agent, ask, command, gzip, post, request, shown, wait_for};
use crate::support::{WATCHDOG, runs, tempdir, wait_until};

/// A server with a configuration file of these lines below `serve:`.
pub(super) fn configured(dir: &Path, lines: &str) -> Server {
    Server::start(&dir.join("store"), &["--config", file(dir, &format!("serve:\n{lines}")).to_str().unwrap()])
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("configuration.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn metric(server: &Server, name: &str) -> f64 {
    let (code, _, body) = ask(server.port("http"), "GET /metrics HTTP/1.1\r\nHost: localhost", b"");
    assert_eq!(code, 200, "monitors are served whatever the others do");
    let text = String::from_utf8(body).unwrap();
    let found = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).next();
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn connected(to: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Returns all that comes until the other side closes.
fn until_closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

fn good(trace: u8) -> Vec<u8> {
    request(agent(trace)).encode_to_vec()
}

fn text((code, head, body): (u16, String, Vec<u8>)) -> (u16, String, String) {
    (code, head, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn zstd_is_taken_within_the_same_bounds() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let zstd = |body: &[u8]| compress_to_vec(body, CompressionLevel::Fastest);
    let header = "\r\nContent-Encoding: zstd";
    assert_eq!(post(to, PROTOBUF, header, &zstd(&good(1))).0, 200);
    assert_eq!(post(to, JSON, header, &zstd(&serde_json::to_vec(&request(agent(2))).unwrap())).0, 200);
    assert_eq!(text(post(to, PROTOBUF, header, &zstd(&vec![0; 80 << 20]))).0, 413);
    let (code, _, why) = text(post(to, JSON, header, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0]));
    assert_eq!(code, 400);
    assert!(why.contains("its window has 4123168604160 bytes"), "{why}");
    assert_eq!(text(post(to, JSON, header, b"no zstd")).0, 400);
    let found = wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().all(|run| run.completed_at.is_some()));
    let found: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"; 2]);
    assert_eq!(server.end(), Some(0));
}

/// A span within the bound, of which the standard names are as long again.
#[test]
fn what_gets_too_long_for_the_journal_by_its_names_is_cut_and_stored() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let mut call = agent(1).remove(0);
    call.parent_span_id.clear();
    call.set_attr("openinference.span.kind", "LLM");
    for message in 0..1000 {
        call.set_attr(&format!("llm.input_messages.{message}.message.role"), "user");
        call.set_attr(&format!("llm.input_messages.{message}.message.content"), "x".repeat(10_000));
    }
    let long = request(vec![call]).encode_to_vec();
    assert!((9 << 20..12 << 20).contains(&long.len()));
    let to = server.port("otlp-http");
    assert_eq!(post(to, PROTOBUF, "", &long).0, 200);
    assert_eq!(post(to, PROTOBUF, "", &good(2)).0, 200);
    let found = wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().all(|run| run.completed_at.is_some()));
    assert!(found.iter().all(|run| run.llm_calls == 1 && run.dropped == 0), "{found:?}");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn more_runs_whose_root_never_comes_than_files_may_be_open_keep_none_from_being_stored() {
    let dir = tempdir();
    let mut serve = command(dir.path(), &[]);
    let limit = libc::rlimit { rlim_cur: 80, rlim_max: 100 };
    // SAFETY: a plain system call between fork and exec, with a value of its own.
    unsafe {
        serve.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let server = Server::spawn(serve);
    let to = server.port("otlp-http");
    for trace in 1..=200 {
        // The call alone: the agent around it does not come.
        let alone = agent(trace).into_iter().take(1).collect();
        assert_eq!(post(to, PROTOBUF, "", &request(alone).encode_to_vec()).0, 200);
    }
    assert_eq!(post(to, PROTOBUF, "", &good(201)).0, 200);
    let found = wait_for(dir.path(), |runs| runs.len() == 201 && runs.iter().any(|run| run.completed_at.is_some()));
    assert_eq!(found.iter().filter(|run| run.status == RunStatus::Running).count(), 200);
    // What comes late comes to its run, whose log was put by.
    for trace in 1..=200 {
        let rest = agent(trace).into_iter().skip(1).collect();
        assert_eq!(post(to, PROTOBUF, "", &request(rest).encode_to_vec()).0, 200);
    }
    let whole = "agent weather success steps 3 llm 1 tools 1 Some(110)";
    let found = wait_for(dir.path(), |runs| runs.iter().all(|run| run.completed_at.is_some()));
    let others: Vec<String> = found.iter().map(shown).filter(|shown| shown != whole).collect();
    assert_eq!(others, [""; 0]);
    let (code, _, _) = ask(server.port("http"), "GET /readyz HTTP/1.1\r\nHost: localhost", b"");
    assert_eq!((code, server.end()), (200, Some(0)));
}

#[test]
fn a_request_beyond_the_memory_of_all_requests_is_told_to_come_again() {
    let dir = tempdir();
    let server = configured(dir.path(), "  bounds: {memory_mib: 1}\n");
    let to = server.port("otlp-http");
    let mut first = request(agent(1));
    first.resource_spans[0].scope_spans[0].spans[0].set_attr("filler", "x".repeat(900_000).as_str());
    let first = first.encode_to_vec();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        first.len()
    );
    let mut slow = connected(to, &head);
    wait_until("the first request is there", || metric(&server, "runspan_bridge_request_memory_bytes") > 900_000.0);
    let second = serde_json::to_string(&request(agent(2))).unwrap();
    let second = second.replacen("\"weather\"", &format!("\"{}\"", "w".repeat(300_000)), 1);
    let (code, head, why) = text(post(to, JSON, "", second.as_bytes()));
    assert_eq!(code, 503);
    assert!(head.to_ascii_lowercase().contains("retry-after: 1"), "{head}");
    insta::assert_snapshot!(why, @r#"{"code":14,"message":"the server has as many bytes of requests in memory as it may: come again","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}]}"#);
    // A bomb is no better for being small.
    assert_eq!(post(to, PROTOBUF, "\r\nContent-Encoding: gzip", &gzip(&vec![0; 4 << 20])).0, 503);
    slow.write_all(&first).unwrap();
    assert!(until_closed(slow).starts_with("HTTP/1.1 200"));
    wait_until("there is room again", || post(to, JSON, "", second.as_bytes()).0 == 200);
    wait_until("all of it is given back", || metric(&server, "runspan_bridge_request_memory_bytes") == 0.0);
    assert_eq!(server.end(), Some(0));
    assert_eq!(runs(&dir.path().join("store")).len(), 2);
}

#[test]
fn a_head_that_is_too_large_is_counted() {
    let dir = tempdir();
    let server = configured(dir.path(), "");
    let long = format!("\r\nX-Long: {}", "a".repeat(200 << 10));
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, &long, &good(1)).0, 431);
    let refused = "runspan_bridge_refused_requests_total{reason=\"head_too_large\"}";
    wait_until("it is counted", || metric(&server, refused) == 1.0);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn one_connection_too_many_is_told_so_and_crowds_out_nobody() {
    let dir = tempdir();
    let server = configured(dir.path(), "  bounds: {connections: 2}\n");
    let to = server.port("otlp-http");
    let (one, two) = (connected(to, "POST "), connected(server.port("otlp-grpc"), "PRI * "));
    wait_until("both are there", || metric(&server, "runspan_bridge_connections") == 2.0);
    let (code, head, why) = text(post(to, PROTOBUF, "", &good(1)));
    let said = r#"{"code":14,"message":"too many connections: come again","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}]}"#;
    assert_eq!((code, why.as_str()), (503, said));
    assert!(head.contains("Retry-After: 1"), "{head}");
    assert_eq!(metric(&server, "runspan_bridge_refused_requests_total{reason=\"connections\"}"), 1.0);
    drop(one);
    wait_until("the next one is taken", || post(to, PROTOBUF, "", &good(1)).0 == 200);
    drop(two);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn who_sends_nothing_or_never_ends_is_let_go_of() {
    let dir = tempdir();
    let server = configured(dir.path(), "  bounds: {head_s: 1, body_s: 1}\n");
    let to = server.port("otlp-http");
    // All at once: each takes its time.
    let slow =
        ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/traces HTTP/1.1\r\nHost: local"].map(|text| connected(to, text));
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 100\r\n\r\n{{");
    let body = connected(to, &head);
    assert_eq!(post(to, PROTOBUF, "", &good(1)).0, 200, "others are served");
    for stream in slow {
        until_closed(stream);
    }
    let answer = until_closed(body);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("retry-after: 1") && answer.contains("did not arrive within 1 s"), "{answer}");
    assert_eq!(metric(&server, "runspan_bridge_refused_requests_total{reason=\"too_slow\"}"), 1.0);
    wait_until("no connection is left", || metric(&server, "runspan_bridge_connections") == 0.0);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent_and_deep_nesting_costs_its_span() {
    let dir = tempdir();
    let server = configured(dir.path(), "  bounds: {request_mib: 1, spans: 100}\n");
    let to = server.port("otlp-http");
    let head =
        |more: &str| format!("POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n{more}\r\n\r\n");
    let mut declared = connected(to, &head("Content-Length: 1048577"));
    let mut answer = [0; 12];
    declared.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let large = format!("X-Large: {}", "x".repeat(100 << 10));
    let (code, _, _) = ask(to, head(&large).trim_end(), b"");
    assert_eq!(code, 431);
    let many: Vec<_> = (0..101).map(|_| agent(1).remove(0)).collect();
    let (code, _, why) = text(post(to, JSON, "", &serde_json::to_vec(&request(many)).unwrap()));
    assert_eq!(code, 413);
    assert!(why.contains("holds 101 spans or more, and one may hold 100"), "{why}");

    let deep = format!("{}1{}", "{\"arrayValue\":{\"values\":[".repeat(9_000), "]}}".repeat(9_000));
    let body = serde_json::to_string(&request(agent(2))).unwrap();
    let body = body.replacen("{\"stringValue\":\"chat\"}", &deep, 1);
    assert!(body.contains("arrayValue"));
    let (code, _, why) = text(post(to, JSON, "", body.as_bytes()));
    assert!(code == 400 || (code == 200 && why.contains("rejectedSpans")), "{code} {why}");
    let mut nested = AnyValue { value: Some(Value::Int(1)) };
    for _ in 0..200 {
        nested = AnyValue { value: Some(Value::Array(ArrayValue { values: vec![nested] })) };
    }
    let mut spans = agent(3);
    spans[0].attributes.push(KeyValue { key: "deep".to_owned(), value: Some(nested) });
    let (code, _, why) = text(post(to, PROTOBUF, "", &request(spans).encode_to_vec()));
    assert!(code == 200 && why.contains("spans rejected: 1"), "{code} {why}");
    let store = dir.path().join("store");
    let found = wait_for(&store, |runs| runs.iter().any(|run| run.trace_id.0 == [3; 16] && run.completed_at.is_some()));
    assert!(found.iter().map(shown).any(|run| run.starts_with("agent weather success steps 2")), "{found:#?}");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_configuration_stands_below_the_environment_and_the_flags() {
    let dir = tempdir();
    let text = "store: by-file\nserve:\n  otlp_htpp: 4318\n";
    let run = |more: &[&str]| {
        let output = command(&dir.path().join("store"), more).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = file(dir.path(), text);
    let (code, why) = run(&["--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{why}");
    assert!(why.contains("otlp_htpp") && why.contains("configuration.yaml"), "{why}");
    std::fs::rename(path, dir.path().join("runspan.yaml")).unwrap();
    assert_eq!(run(&[]).0, Some(2), "the one that is here is read");
    let (code, why) = run(&["--config", "nowhere.yaml"]);
    assert_eq!(code, Some(2), "{why}");
    assert!(why.contains("nowhere.yaml"), "{why}");
    // What is wrong in a place that nobody asks any more is wrong all the same; what is right gives way.
    std::fs::write(dir.path().join("runspan.yaml"), "store: by-file\nserve:\n  http: 0\n  durability: process\n")
        .unwrap();
    let start = |environment: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(["serve", "--otlp-grpc", "0", "--otlp-http", "0"]).current_dir(dir.path());
        command.envs(environment.iter().copied());
        let server = Server::spawn(command);
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &good(1)).0, 200);
        assert_eq!(server.end(), Some(0));
    };
    start(&[]);
    assert_eq!(runs(&dir.path().join("by-file")).len(), 1);
    start(&[("RUNSPAN_STORE", "by-environment")]);
    assert_eq!(runs(&dir.path().join("by-environment")).len(), 1);
}
