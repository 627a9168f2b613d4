//! What the bridge sends on, to real peers: through outages, restarts, and its own bound.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use runspan::model::otlp::{KeyValue, Span, Value};
use runspan::model::unknown::UNKNOWN_FIELDS;
use runspan::sinks::forwarder::{TargetStatus, targets};
use runspan::store::RunReader;

use super::{PROTOBUF, Server, agent, ask, post, request};
use crate::forward::{Peer, free_address};
use crate::support::{runs, tempdir, wait_until};

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn send(server: &Server, spans: Vec<Span>) {
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec()).0, 200);
}

fn distinct(peer: &Peer) -> usize {
    let spans = peer.spans().into_iter().map(|span| (span.trace_id, span.span_id));
    spans.collect::<std::collections::HashSet<_>>().len()
}

fn status(store: &Path, address: SocketAddr) -> TargetStatus {
    let found = targets(store).unwrap();
    let wanted = format!("{}/v1/traces", url(address));
    found.into_iter().find(|target| target.target == wanted).unwrap()
}

/// OpenTelemetry for Python says of each span whether its parent is remote, and never that it is sampled.
#[test]
fn what_is_received_was_sampled_whatever_its_flags_say() {
    let (dir, (peer, at)) = (tempdir(), Peer::started());
    let server = Server::start(dir.path(), &["--forward", &url(at)]);
    for (trace, flags) in [(1, 0x100), (2, 0x300), (3, 0x101), (4, 0)] {
        let mut spans = agent(trace);
        spans.iter_mut().for_each(|span| span.flags = flags);
        send(&server, spans);
    }
    wait_until("all are forwarded", || distinct(&peer) == 12);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_target_that_is_down_delays_nobody_and_has_everything_after_restarts() {
    let (dir, (well, at), dead) = (tempdir(), Peer::started(), free_address());
    let forward = ["--forward", &url(at), "--forward", &url(dead)].map(str::to_owned);
    let forward: Vec<&str> = forward.iter().map(String::as_str).collect();
    for trace in 1..=3 {
        let server = Server::start(dir.path(), &forward);
        send(&server, agent(trace));
        wait_until("the other target has it", || distinct(&well) == 3 * usize::from(trace));
        // One is killed, and so may have sent what it had not noted yet.
        if trace != 2 {
            assert_eq!(server.end(), Some(0));
        }
    }
    assert_eq!(runs(dir.path()).len(), 3);
    let waiting = status(dir.path(), dead);
    assert_eq!((waiting.waiting.spans, waiting.counts.settled()), (9, 0), "{waiting:#?}");

    let back = Peer::at(dead);
    let server = Server::start(dir.path(), &forward);
    wait_until("the target that was down has all", || back.spans().len() == 9);
    assert_eq!(server.end(), Some(0));
    assert_eq!(distinct(&well), 9);
    let settled = status(dir.path(), dead);
    assert_eq!((settled.counts.sent, settled.waiting.spans), (9, 0), "{settled:#?}");

    let mut sent = back.spans();
    sent.retain(|span| span.trace_id == [2; 16]);
    sent.sort_by_key(|span| span.start_time_unix_nano);
    let run = runs(dir.path()).into_iter().find(|run| run.trace_id.0 == [2; 16]).unwrap();
    for span in &sent {
        assert_eq!(span.attr("runspan.run.id"), Some(&Value::from(run.run_id.to_string().as_str())));
        assert!(span.attr("runspan.store.id").is_some());
    }
    let [_, chat, _] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((chat.span_id.as_slice(), chat.parent_span_id.as_slice()), (&[2; 8][..], &[1; 8][..]));
    assert_eq!(chat.attr("gen_ai.usage.input_tokens"), Some(&Value::Int(100)), "what it said itself");
    assert_eq!(chat.attr("runspan.cost.usd"), Some(&Value::Double(0.000_021)), "100 x 0.15 + 10 x 0.60, a million");
}

#[test]
fn other_names_are_forwarded_beside_the_canonical_ones() {
    let (dir, (peer, at)) = (tempdir(), Peer::started());
    let server = Server::start(dir.path(), &["--forward", &url(at)]);
    let mut spans = agent(1);
    spans.truncate(1);
    spans[0].parent_span_id = Vec::new();
    spans[0].attributes.clear();
    for (key, value) in
        [("openinference.span.kind", "LLM"), ("llm.model_name", "gpt-4o-mini"), ("llm.system", "openai")]
    {
        spans[0].set_attr(key, value);
    }
    spans[0].set_attr("llm.token_count.prompt", 100);
    spans[0].set_attr("llm.token_count.completion", 10);
    send(&server, spans);
    wait_until("it is forwarded", || peer.spans().len() == 1);
    let span = peer.spans().remove(0);
    let keys = ["llm.token_count.prompt", "gen_ai.usage.input_tokens"];
    assert_eq!(keys.map(|key| span.attr(key)), [Some(&Value::Int(100)); 2], "{span:#?}");
    assert_eq!(span.attr("gen_ai.provider.name"), Some(&Value::from("openai")));
    assert_eq!(span.attr("runspan.cost.usd"), Some(&Value::Double(0.000_021)));
    assert_eq!(server.end(), Some(0));
}

#[test]
fn at_the_journals_bound_a_target_that_is_down_loses_the_oldest_and_the_store_nothing() {
    let (dir, dead) = (tempdir(), free_address());
    let forward = url(dead);
    // The store gives segments up at once, which it else does every other second.
    let server = Server::start(dir.path(), &["--forward", &forward, "--journal", "1", "--durability", "process"]);
    let filler = "x".repeat(20_000);
    let (mut sent, mut refused) = (0u64, 0);
    for trace in 1..=100 {
        let mut spans = agent(trace);
        spans[0].set_attr("filler", filler.as_str());
        let body = request(spans).encode_to_vec();
        // Told to come again, the sender does.
        wait_until("the request is taken", || {
            let code = post(server.port("otlp-http"), PROTOBUF, "", &body).0;
            refused += u32::from(code == 503);
            code == 200
        });
        sent += 3;
    }
    assert_eq!(server.end(), Some(0));
    let stored = runs(dir.path());
    assert_eq!(stored.len(), 100);
    assert!(stored.iter().all(|run| run.steps_total == 3));
    let target = status(dir.path(), dead);
    let lost = target.counts.dropped["upstream_behind"];
    assert!(lost > 0 && target.waiting.spans > 0, "{target:#?}");
    // What a refused request had left in the journal is there a second time.
    let known = lost + target.waiting.spans;
    assert!(known >= sent && known <= sent + 3 * u64::from(refused), "{known} of {sent}, {refused} refused");
}

/// Passes requests on to a server and gives its answers back, but for so many of the first: after those it closes.
fn losing_answers(to: SocketAddr, lost: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, passed) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&passed);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Some(body) = body_of(&stream) else { continue };
            let (code, ..) = post(to, PROTOBUF, "", &body);
            if count.fetch_add(1, Ordering::SeqCst) >= lost {
                let head = "content-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close";
                let _ = write!(&stream, "HTTP/1.1 {code} OK\r\n{head}\r\n\r\n");
            }
        }
    });
    (at, passed)
}

/// Reads one request, and returns its body.
fn body_of(stream: &TcpStream) -> Option<Vec<u8>> {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

#[test]
fn what_is_sent_again_because_its_answer_was_lost_is_stored_once() {
    let (dir, theirs) = (tempdir(), tempdir());
    let store = Server::start(theirs.path(), &[]);
    let (proxy, passed) = losing_answers(store.port("otlp-http"), 3);
    let forward = format!("{}#compression=none", url(proxy));
    let server = Server::start(dir.path(), &["--forward", &forward]);
    send(&server, agent(1));
    wait_until("an answer is lost", || passed.load(Ordering::SeqCst) > 0);
    // What comes meanwhile may go in one request with what is sent again.
    send(&server, agent(2));
    wait_until("another answer is lost", || passed.load(Ordering::SeqCst) > 1);
    // So may what is sent by another process, after this one was killed.
    drop(server);
    let server = Server::start(dir.path(), &["--forward", &forward]);
    send(&server, agent(3));
    wait_until("all is sent", || {
        let status = status(dir.path(), proxy);
        status.counts.sent >= 9 && status.waiting.spans == 0
    });
    assert_eq!(server.end(), Some(0));

    let (_, _, metrics) = ask(store.port("http"), "GET /metrics HTTP/1.1\r\nHost: localhost", b"");
    let metrics = String::from_utf8(metrics).unwrap();
    let of = |outcome: &str| -> u64 {
        let lines = metrics.lines().filter(|line| {
            line.starts_with("runspan_records_total{") && line.contains(&format!("outcome=\"{outcome}\""))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    // Three answers were lost: the first to three spans, and later ones perhaps to one alone, since less is sent then.
    assert!(of("stored") == 9 && of("duplicate") >= 5, "{metrics}");
    assert_eq!(store.end(), Some(0));
    let mut found: Vec<String> = runs(theirs.path()).iter().map(super::shown).collect();
    found.sort();
    assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"; 3]);
    let ids = |store: &Path| runs(store).into_iter().map(|run| run.run_id).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids(theirs.path()), ids(dir.path()), "they are the same runs");
}

/// A server with one port given and free ones besides.
fn on_port(store: &Path, flag: &str, port: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
    command.arg("serve").args([flag, port]).arg("--store").arg(store);
    for other in ["--otlp-grpc", "--otlp-http", "--http"].into_iter().filter(|other| *other != flag) {
        command.args([other, "0"]);
    }
    command
}

#[test]
fn a_target_that_is_the_server_itself_is_named_at_the_start() {
    let dir = tempdir();
    let port = free_address().port().to_string();
    let run = |flag: &str, url: &str| {
        let output = on_port(dir.path(), flag, &port).args(["--forward", url]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (flag, url) in [
        ("--otlp-http", format!("http://localhost:{port}")),
        ("--otlp-http", format!("http://127.0.0.1:{port}/v1/traces")),
        ("--otlp-grpc", format!("grpc://127.0.0.1:{port}")),
    ] {
        let (code, why) = run(flag, &url);
        assert_eq!(code, Some(2), "{why}");
        assert!(why.contains("is this server itself") && why.contains(&port), "{why}");
    }
    let (code, why) = run("--otlp-http", "http://a:4318#compresion=gzip");
    assert_eq!(code, Some(2), "{why}");
    assert!(why.contains("option \"compresion\" is none of protocol"), "{why}");
    // The standard variable is for those who send here, so it is no reason not to start.
    let mut server = on_port(dir.path(), "--otlp-http", &port);
    server.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
    let server = Server::spawn(server);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_a_process_of_this_store_has_written_is_passed_on_to_targets_once() {
    let (dir, (peer, at)) = (tempdir(), Peer::started());
    let server = Server::start(dir.path(), &["--forward", &url(at)]);
    let about = std::fs::read_to_string(dir.path().join("store.yaml")).unwrap();
    let store_id = about.lines().find_map(|line| line.strip_prefix("store_id: ")).unwrap().trim_matches('"').to_owned();
    let mut of_process = request(agent(1));
    let value = Some(Value::from(store_id.as_str()).into());
    let resource = of_process.resource_spans[0].resource.get_or_insert_default();
    resource.attributes = vec![KeyValue { key: "runspan.store.id".to_owned(), value }];
    // It comes back as often as somebody sends it round in circles.
    for _ in 0..3 {
        assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &of_process.encode_to_vec()).0, 200);
    }
    send(&server, agent(2));
    wait_until("all are forwarded", || peer.spans().len() >= 6);
    // What was sent comes back, too.
    send(&server, peer.spans().into_iter().filter(|span| span.trace_id == [2; 16]).collect());
    send(&server, agent(3));
    wait_until("what came last is forwarded", || peer.spans().len() >= 9);
    assert_eq!(server.end(), Some(0));
    let once: BTreeMap<String, usize> =
        ["invoke_agent 1", "chat 2", "execute_tool 3"].map(|name| (name.to_owned(), 3)).into();
    assert_eq!(peer.names(), once, "each of three traces once");
    let mut traces: Vec<u8> = runs(dir.path()).iter().map(|run| run.trace_id.0[0]).collect();
    traces.sort_unstable();
    assert_eq!(traces, [2, 3]);
}

#[test]
fn metrics_go_on_to_targets_as_they_came_and_nowhere_without_one() {
    let (dir, (well, at), dead) = (tempdir(), Peer::started(), free_address());
    let forward = ["--forward", &url(at), "--forward", &url(dead)].map(str::to_owned);
    let forward: Vec<&str> = forward.iter().map(String::as_str).collect();
    // A resource's attributes and the like, as far as anybody here wants to know.
    let metrics = |n: u8| [&[0x0a, 4, 0x12, 2, 0x0a, 0][..], &[0x0a, 6, 0x0a, 4, 0x0a, 2, b'm', n]].concat();
    let post = |server: &Server, media: &str, more: &str, body: &[u8]| {
        let head = format!("POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}{more}");
        super::ask(server.port("otlp-http"), &head, body)
    };
    let server = Server::start(dir.path(), &forward);
    assert_eq!(post(&server, PROTOBUF, "", &metrics(1)).0, 200);
    assert_eq!(post(&server, PROTOBUF, "\r\nContent-Encoding: gzip", &super::gzip(&metrics(2))).0, 200);
    assert_eq!(post(&server, PROTOBUF, "", b"").0, 200);
    assert_eq!(post(&server, PROTOBUF, "", b"\x0a\xff").0, 400);
    let json = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m\u0001"}]}]}]}"#;
    assert_eq!(post(&server, super::JSON, "", json).0, 200);
    assert_eq!(post(&server, super::JSON, "", b"{}").0, 200, "empty");
    let (code, _, why) = post(&server, super::JSON, "", br#"{"resourceMetrics":7}"#);
    assert_eq!(code, 400);
    assert!(String::from_utf8_lossy(&why).contains("resourceMetrics: invalid type"), "{why:?}");
    send(&server, agent(1));
    // JSON goes on as the protobuf that it means.
    let all = [&metrics(1)[..], &metrics(2), &[0x0a, 8, 0x12, 6, 0x12, 4, 0x0a, 2, b'm', 1]].concat();
    wait_until("all have come", || well.metrics().concat().len() == all.len() && well.spans().len() == 3);
    assert_eq!(well.metrics().concat(), all);
    assert_eq!(server.end(), Some(0));
    let found = targets(dir.path()).unwrap();
    let waiting = |signal: &str| {
        let of_dead = |target: &&TargetStatus| target.target == format!("{}/v1/{signal}", url(dead));
        let target = found.iter().find(of_dead).unwrap();
        (target.signal, target.waiting.spans)
    };
    assert_eq!((waiting("traces"), waiting("metrics")), (("traces", 3), ("metrics", 3)));

    let back = Peer::at(dead);
    let server = Server::start(dir.path(), &forward);
    wait_until("what was down has them, too", || back.metrics().concat() == all);
    assert_eq!(server.end(), Some(0));
    let server = Server::start(dir.path(), &[]);
    let (code, _, why) = post(&server, PROTOBUF, "", &metrics(1));
    assert_eq!(code, 501);
    assert!(String::from_utf8_lossy(&why).contains("no target to forward them to"));
    assert_eq!(server.end(), Some(0));
}

/// A field that no version of OTLP has yet, as protobuf.
fn later(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xa2, 0x38, text.len() as u8];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Wraps bytes as a field of the message around them.
fn inside(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn fields_that_are_not_known_are_stored_and_go_on_where_they_stood() {
    let (first, second) = (tempdir(), tempdir());
    // The second one stands for any receiver: only what came as fields does it keep as what is not known.
    let last = Server::start(second.path(), &[]);
    let server = Server::start(first.path(), &["--forward", &url(last.port("otlp-http"))]);
    let mut span = super::span(1, 1, 0, "chat", 0, 10).encode_to_vec();
    span.extend(inside(11, &[inside(2, b"happened"), later("of event")].concat()));
    span.extend(inside(15, &later("of status")));
    span.extend(later("of span"));
    let scope_spans = [inside(1, &later("of scope")), inside(2, &span)].concat();
    let body = inside(1, &[inside(1, &later("of resource")), inside(2, &scope_spans)].concat());
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);

    let told = |store: &Path| -> Option<Vec<String>> {
        let run = runs(store).into_iter().find(|run| run.completed_at.is_some())?;
        let events = crate::support::open(store).get_events(run.run_id, 0).unwrap();
        let (span, resource, scope) =
            events.iter().filter(|event| !event.body.is_step_start()).find_map(|event| event.body.span())?;
        let lists = [&resource?.attributes, &scope?.attributes, &span.attributes, &span.events.first()?.attributes];
        let unknown = |list: &&Vec<KeyValue>| {
            let value = list.iter().find(|attribute| attribute.key == UNKNOWN_FIELDS)?.value.clone()?.value?;
            let Value::Bytes(bytes) = value else { return None };
            Some(String::from_utf8_lossy(&bytes).chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').collect())
        };
        lists.iter().map(unknown).collect()
    };
    wait_until("both have it", || told(first.path()).is_some() && told(second.path()).is_some());
    let wanted = ["of resource", "of scope", "zof statusof span", "of event"].map(str::to_owned);
    assert_eq!(told(first.path()).unwrap(), wanted);
    assert_eq!(told(second.path()).unwrap(), wanted);
    assert_eq!((server.end(), last.end()), (Some(0), Some(0)));
}

#[test]
fn schema_urls_are_stored_exported_and_forwarded_where_they_stood() {
    let (first, second) = (tempdir(), tempdir());
    let last = Server::start(second.path(), &[]);
    let server = Server::start(first.path(), &["--forward", &url(last.port("otlp-http"))]);
    let mut traces = request(agent(1));
    let of_resource = &mut traces.resource_spans[0];
    of_resource.schema_url = "https://opentelemetry.io/schemas/1.30.0".to_owned();
    of_resource.scope_spans[0].schema_url = "https://opentelemetry.io/schemas/1.37.0".to_owned();
    of_resource.scope_spans[0].scope.get_or_insert_default().name = "agents".to_owned();
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &traces.encode_to_vec()).0, 200);
    // As JSON it is the same.
    let mut json = request(agent(2));
    json.resource_spans[0].schema_url = "https://opentelemetry.io/schemas/1.30.0".to_owned();
    json.resource_spans[0].scope_spans[0].schema_url = "https://opentelemetry.io/schemas/1.37.0".to_owned();
    let json = serde_json::to_vec(&json).unwrap();
    assert_eq!(post(server.port("otlp-http"), super::JSON, "", &json).0, 200);
    let are_over = |store: &Path| runs(store).iter().filter(|run| run.completed_at.is_some()).count() == 2;
    wait_until("both have them", || are_over(first.path()) && are_over(second.path()));
    assert_eq!((server.end(), last.end()), (Some(0), Some(0)));
    for store in [first.path(), second.path()] {
        for trace in ["01", "02"] {
            let out = crate::demo::runspan(store, &["export", &trace.repeat(16)]);
            let exported: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
            let of_resource = &exported["resourceSpans"][0];
            let urls = [&of_resource["schemaUrl"], &of_resource["scopeSpans"][0]["schemaUrl"]];
            assert_eq!(urls, ["https://opentelemetry.io/schemas/1.30.0", "https://opentelemetry.io/schemas/1.37.0"]);
            assert_eq!(of_resource["scopeSpans"][0]["spans"].as_array().unwrap().len(), 3);
            assert!(!String::from_utf8(out.stdout).unwrap().contains("runspan.otlp.schema_url"));
        }
    }
}
