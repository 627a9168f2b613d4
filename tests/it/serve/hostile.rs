//! Senders that mean harm, or know no better: each costs itself at most, and everybody else is served.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use prost::Message;
use runspan::model::otlp::{KeyValue, Resource, Scope, Span, Value};

use super::*;
use crate::support::wait_until;

/// What the server may take of memory, whatever it is sent.
const MEMORY_KIB: u64 = 256 << 10;

fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends the trace of an agent that means no harm: it is taken.
fn still_serves(server: &Server, trace: u8) {
    let body = request(agent(trace)).encode_to_vec();
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "", &body).0, 200);
    let health = ask(server.port("http"), "GET /healthz HTTP/1.1\r\nHost: localhost", b"");
    assert_eq!(health.0, 200);
}

/// Puts bytes into the fields of a message around them, from the inside out.
fn inside(fields: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
    for field in fields {
        let mut outer = vec![field << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

/// Reads an answer to what is sent as it stands, until the server closes.
fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    // The server may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn bombs_are_refused_within_the_memory_that_all_requests_have() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    // A gibibyte of zeros, as one member and as two, and a bomb in a bomb.
    let zeros = vec![0; 16 << 20];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..64).for_each(|_| packed.write_all(&zeros).unwrap());
    let bomb = packed.finish().unwrap();
    let bombs = [bomb.clone(), [gzip(b""), bomb.clone()].concat(), gzip(&bomb)];
    std::thread::scope(|threads| {
        for n in 0..50 {
            let (server, bomb) = (&server, &bombs[n % 3]);
            threads.spawn(move || {
                let (code, ..) = post(server.port("otlp-http"), PROTOBUF, "\r\nContent-Encoding: gzip", bomb);
                // Where many come at once, there may be no room to look at it now; the last one is no request inside.
                assert!(matches!((n % 3, code), (_, 503) | (0 | 1, 413) | (2, 400)), "{n}: {code}");
            });
        }
        still_serves(&server, 1);
    });
    assert_eq!(post(server.port("otlp-http"), PROTOBUF, "\r\nContent-Encoding: gzip", &bomb).0, 413);
    let mut call = vec![1];
    call.extend_from_slice(&(bomb.len() as u32).to_be_bytes());
    call.extend_from_slice(&bomb);
    let status = grpc_call(server.port("otlp-grpc"), call, "gzip").unwrap();
    assert_eq!(status, "8");
    assert!(peak_kib(&server) < MEMORY_KIB, "{} KiB", peak_kib(&server));
    still_serves(&server, 2);
}

/// A client that writes all of its request before it reads the answer.
#[test]
fn what_is_refused_is_taken_to_its_end_so_that_the_answer_is_heard() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let head = |path: &str, media: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}");
    let body = vec![0; 12 << 20];
    for (head, code) in [
        (head("/v1/nothing", PROTOBUF), 404),
        (head("/v1/traces", "text/plain"), 415),
        (head("/v1/metrics", PROTOBUF), 501),
        (head("/v1/traces", PROTOBUF).replace("localhost", "example.org"), 421),
    ] {
        for _ in 0..4 {
            assert_eq!(ask(server.port("otlp-http"), &head, &body).0, code, "{head}");
        }
    }
    still_serves(&server, 1);
}

#[test]
fn what_grows_when_it_is_decoded_is_counted_before() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let send = |body: Vec<u8>| post(server.port("otlp-http"), PROTOBUF, "\r\nContent-Encoding: gzip", &gzip(&body));
    let (code, _, why) = send(inside(&[2, 1], [0x12, 0].repeat(2_000_000)));
    assert_eq!(code, 413);
    assert!(String::from_utf8_lossy(&why).contains("65537 spans or more"), "{}", String::from_utf8_lossy(&why));
    // Empty attributes, events and links of one span beyond what one may have: it is cut, and says by how much.
    let mut span = span(9, 1, 0, "chat", 0, 10).encode_to_vec();
    for field in [9_u8, 11, 13] {
        span.extend([field << 3 | 2, 0].repeat(1_000_000));
    }
    assert_eq!(send(inside(&[2, 2, 1], span)).0, 200);
    assert!(peak_kib(&server) < MEMORY_KIB, "{} KiB", peak_kib(&server));
    still_serves(&server, 1);
    let found = wait_for(dir.path(), |runs| runs.len() == 2);
    assert_eq!(found.iter().map(|run| run.steps_total).sum::<u64>(), 4);
}

#[test]
fn json_that_grows_when_it_is_parsed_is_counted_before() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let many = |item: &str, n: usize| vec![item; n].join(",");
    let span = |more: &str| {
        format!(r#"{{"traceId":"{}","spanId":"{}","startTimeUnixNano":"1",{more}}}"#, "ab".repeat(16), "cd".repeat(8))
    };
    let request = |inside: &str| format!(r#"{{"resourceSpans":[{{{inside}}}]}}"#);
    let spans = |spans: &str| request(&format!(r#""scopeSpans":[{{"spans":[{spans}]}}]"#));
    let empty = many("{}", 6_000_000);
    for (what, body, expected) in [
        ("attributes", request(&format!(r#""resource":{{"attributes":[{empty}]}}"#)), 400),
        ("scopes", request(&format!(r#""scopeSpans":[{empty}]"#)), 413),
        ("spans", spans(&empty), 413),
        ("events", spans(&many(&span(&format!(r#""events":[{}]"#, many("{}", 4_000))), 2_000)), 413),
        (
            "scope",
            request(&format!(
                r#""scopeSpans":[{{"scope":{{"name":"{}"}},"spans":[{}]}}]"#,
                "n ".repeat(450_000),
                many(&span(r#""kind":1"#), 1_000)
            )),
            413,
        ),
    ] {
        let (code, _, why) =
            post(server.port("otlp-http"), "application/json", "\r\nContent-Encoding: gzip", &gzip(body.as_bytes()));
        assert_eq!(code, expected, "{what}: {}", String::from_utf8_lossy(&why));
        assert!(peak_kib(&server) < MEMORY_KIB, "{what}: {} KiB", peak_kib(&server));
    }
    still_serves(&server, 1);
}

/// A batch of which one resource is too large is no batch that is sent again and again.
#[test]
fn what_stands_around_spans_is_cut_where_it_is_too_large_and_its_sender_hears_so() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let words = "word ".repeat(4 << 20);
    let mut batch = request(agent(1));
    batch.resource_spans.extend(request(agent(2)).resource_spans);
    batch.resource_spans.extend(request(agent(3)).resource_spans);
    let value = |text: &str| vec![KeyValue { key: "words".to_owned(), value: Some(Value::from(text).into()) }];
    batch.resource_spans[0].resource = Some(Resource { attributes: value(&words), ..Resource::default() });
    let scope = Scope { attributes: value(&words), ..Scope::default() };
    batch.resource_spans[1].scope_spans[0].scope = Some(scope);
    let (code, _, answer) = post(server.port("otlp-http"), PROTOBUF, "", &batch.encode_to_vec());
    let told = String::from_utf8_lossy(&answer);
    assert!(code == 200 && told.contains("the longest texts of the resource or scope were cut, with a mark"), "{told}");
    let found = wait_for(dir.path(), |runs| runs.len() == 3 && runs.iter().all(|run| run.completed_at.is_some()));
    assert_eq!(found.iter().map(|run| run.steps_total).sum::<u64>(), 9);
    assert_eq!(server.end(), Some(0));
}

/// Traces with something odd in each, and how many of their spans cannot be taken.
fn oddities() -> Vec<(&'static str, Vec<Span>, u64)> {
    let start = span(1, 1, 0, "", 0, 0).start_time_unix_nano;
    let with = |trace: u8, change: &dyn Fn(&mut Vec<Span>)| {
        let mut spans = agent(trace);
        change(&mut spans);
        spans
    };
    let id = |n: u64| (n + 1).to_be_bytes().to_vec();
    let chain = |trace: u8, operation: &str, n: u64, parent: &dyn Fn(u64) -> Vec<u8>| {
        let one = |n| {
            let mut one = Span { span_id: id(n), parent_span_id: parent(n), ..span(trace, 1, 0, operation, n, n + 1) };
            one.set_attr("gen_ai.tool.name", "search");
            one
        };
        (0..n).map(one).collect::<Vec<_>>()
    };
    vec![
        ("a cost that is no number", with(40, &|s| s[0].set_attr("gen_ai.usage.cost", f64::NAN)), 0),
        ("an endless cost", with(41, &|s| s[0].set_attr("gen_ai.usage.cost", f64::INFINITY)), 0),
        ("a huge cost", with(42, &|s| s[0].set_attr("gen_ai.usage.cost", 1e308)), 0),
        ("fewer tokens than none", with(43, &|s| s[0].set_attr("gen_ai.usage.input_tokens", -5)), 0),
        (
            "more tokens than can be counted",
            with(44, &|s| {
                let more = Span { span_id: vec![7; 8], ..s[0].clone() };
                s.push(more);
                s.iter_mut().for_each(|span| span.set_attr("gen_ai.usage.input_tokens", i64::MAX));
            }),
            0,
        ),
        ("a whole number as text", with(45, &|s| s[0].set_attr("gen_ai.usage.input_tokens", "12")), 0),
        ("an end before the start", with(46, &|s| s[0].end_time_unix_nano = start - 1_000), 0),
        ("no start", with(47, &|s| s[2].start_time_unix_nano = 0), 0),
        ("the end of time", with(48, &|s| s[2].end_time_unix_nano = u64::MAX), 0),
        (
            "a span told twice, otherwise",
            with(49, &|s| {
                let again = Span { name: "another".to_owned(), ..s[0].clone() };
                s.push(again);
            }),
            0,
        ),
        ("ids of zeros", with(50, &|s| s[0].span_id = vec![0; 8]), 1),
        ("an id that is too short", with(51, &|s| s[0].span_id = vec![1; 4]), 1),
        ("its own parent", with(52, &|s| s[0].parent_span_id = s[0].span_id.clone()), 0),
        (
            "parents of each other",
            with(53, &|s| {
                s[0].parent_span_id = s[1].span_id.clone();
                s[1].parent_span_id = s[0].span_id.clone();
            }),
            0,
        ),
        ("a parent that never comes", with(54, &|s| s[2].parent_span_id = vec![9; 8]), 0),
        ("a name of a megabyte", with(55, &|s| s[0].name = "x".repeat(1 << 20)), 0),
        (
            "an attribute of four megabytes",
            with(56, &|s| s[0].set_attr("gen_ai.input.messages", "y".repeat(4 << 20))),
            0,
        ),
        (
            "bytes where text should be",
            with(57, &|s| s[0].set_attr("gen_ai.agent.name", Value::Bytes(vec![255; 9]))),
            0,
        ),
        ("control characters", with(58, &|s| s[2].set_attr("gen_ai.agent.name", "a\u{1b}[31m\u{0}\u{202e}b")), 0),
        ("a deep chain", chain(60, "chat", 3_000, &|n| if n == 0 { Vec::new() } else { id(n - 1) }), 0),
        ("a call that is its own parent", chain(61, "chat", 1, &id), 0),
        ("calls that are around each other", chain(62, "chat", 40, &|n| id((n + 1) % 40)), 0),
        ("tools that are around each other", chain(63, "execute_tool", 3, &|n| id((n + 1) % 3)), 0),
    ]
}

#[test]
fn odd_spans_are_stored_or_cost_themselves_and_every_command_goes_on() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let mut expected = 0;
    for (what, spans, rejected) in oddities() {
        expected += spans.len() as u64 - rejected;
        let (code, _, answer) = post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec());
        assert_eq!((code, answer.is_empty()), (200, rejected == 0), "{what}: {}", String::from_utf8_lossy(&answer));
    }
    // Text that is none costs its span, of three.
    let mut spans = agent(59);
    spans[0].name = "@@".to_owned();
    let mut body = request(spans).encode_to_vec();
    let at = body.windows(2).position(|two| two == b"@@").unwrap();
    body[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let (code, _, answer) = post(server.port("otlp-http"), PROTOBUF, "", &body);
    assert!(code == 200 && String::from_utf8_lossy(&answer).contains("undecodable"), "{code}");
    still_serves(&server, 1);
    let runs = oddities().len() + 2;
    let found = wait_for(dir.path(), |found| found.len() == runs);
    assert_eq!(server.end(), Some(0));
    // One of them was told twice.
    assert_eq!((found.len(), found.iter().map(|run| run.steps_total).sum::<u64>()), (runs, expected + 2 + 3 - 1));
    let runspan = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(args).arg("--store").arg(dir.path()).output().unwrap()
    };
    for run in &found {
        let shown = runspan(&["get", &run.run_id.to_string()]);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(!shown.stdout.iter().any(|byte| *byte < b' ' && *byte != b'\n'), "control characters");
    }
    for args in [&["verify"][..], &["stats"], &["list", "--sort", "cost"]] {
        let done = runspan(args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stdout));
    }
}

#[test]
fn a_span_with_a_prompt_of_many_megabytes_counts_and_its_sender_hears_what_was_cut() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    // A prompt as text, and one that is an image.
    for (trace, prompt) in [(1, "word ".repeat(8 << 20)), (2, "Zm9v".repeat(5 << 20))] {
        let mut spans = agent(trace);
        spans[0].set_attr("gen_ai.input.messages", prompt.as_str());
        let (code, _, answer) = post(server.port("otlp-http"), PROTOBUF, "", &request(spans).encode_to_vec());
        let told = String::from_utf8_lossy(&answer);
        assert!(
            code == 200 && told.contains("the longest texts were cut, with a mark: a span may have 12582912 bytes"),
            "{told}"
        );
    }
    assert!(peak_kib(&server) < MEMORY_KIB, "{} KiB", peak_kib(&server));
    let found = wait_for(dir.path(), |runs| runs.len() == 2 && runs.iter().all(|run| run.completed_at.is_some()));
    let found: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(found, ["agent weather success steps 3 llm 1 tools 1 Some(110)"; 2]);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn heads_of_requests_are_bounded_and_read_as_http_has_it() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let to = server.port("otlp-http");
    let body = request(agent(1)).encode_to_vec();
    let post = |more: &str, body: &[u8]| {
        let head =
            format!("POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {PROTOBUF}\r\n");
        raw(to, &[head.as_bytes(), more.as_bytes(), b"\r\n", body].concat())
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    // What stands in these headers is of no matter here.
    let context = "traceparent: 00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-ff\r\nbaggage: __proto__=1,constructor=2\r\n";
    assert!(post(&format!("{context}{length}"), &body).starts_with("HTTP/1.1 200"));
    // Headers without end: refused, and closed.
    let many = post(&format!("{}{length}", "baggage: a=b\r\n".repeat(1_000)), &body);
    assert!(many.starts_with("HTTP/1.1 431") || many.is_empty(), "{many}");
    let long = post(&format!("baggage: {}\r\n{length}", "x".repeat(8 << 20)), &body);
    assert!(long.starts_with("HTTP/1.1 431") || long.is_empty(), "{long}");
    // In pieces, without a length.
    let pieces = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    assert!(post("Transfer-Encoding: chunked\r\n", &pieces).starts_with("HTTP/1.1 200"));
    // Who asks first is told to go on.
    let asked = post(&format!("Expect: 100-continue\r\n{length}"), &body);
    assert!(asked.contains("HTTP/1.1 200"), "{asked}");
    let head = raw(to, b"HEAD /v1/traces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    still_serves(&server, 2);
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The head of a call of `Export`, with nothing compressed but what has a number (RFC 7541, sections 6.1 and 6.2.2).
fn call_head(stream: u32, flags: u8) -> Vec<u8> {
    let mut fields = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        fields.extend_from_slice(name);
        fields.push(value.len() as u8);
        fields.extend_from_slice(value.as_bytes());
    };
    field(&[0x04], "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    field(&[0x01], "localhost");
    field(&[0x0f, 0x10], "application/grpc");
    frame(HEADERS, flags, stream, &fields)
}

/// Opens a connection with these settings and sends what `frames` makes for each number, until all is sent, or the server closes
/// or no longer reads. Gives the connection back where it is still there.
fn flood(to: SocketAddr, settings: &[u8], count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat();
    for n in 0..count {
        sent.extend(frames(n));
        if sent.len() < 64 << 10 && n + 1 < count {
            continue;
        }
        match stream.write_all(&sent) {
            Ok(()) => sent.clear(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Some(stream),
            Err(_) => return None,
        }
    }
    Some(stream)
}

#[test]
fn floods_of_http2_frames_cost_their_connection() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &["--drain", "1"]);
    let to = server.port("otlp-grpc");
    // Streams have odd numbers.
    let stream = |n: u32| 2 * n + 1;
    let body = |traces: u8| {
        let message = request(agent(traces)).encode_to_vec();
        [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
    };
    let call = |n: u32| [call_head(stream(n), END_HEADERS), frame(DATA, END_STREAM, stream(n), &body(9))].concat();
    // What these frames say is right, or the floods below would be turned away for it: its trace is there in the end.
    let mut well = flood(to, &[], 1, call).unwrap();
    well.set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut head = [0; 9];
    while [head[3], head[4], head[8]] != [HEADERS, END_HEADERS | END_STREAM, 1] {
        well.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        well.read_exact(&mut vec![0; length as usize]).unwrap();
    }
    let held = [
        flood(to, &[], 200_000, |n| {
            [call_head(stream(n), END_HEADERS), frame(RESET, 0, stream(n), &8_u32.to_be_bytes())].concat()
        }),
        flood(to, &[], 10_000, |n| match n {
            0 => call_head(1, 0),
            _ => frame(CONTINUATION, 0, 1, &[&[0, 1, b'a', 100][..], &[b'b'; 100]].concat()),
        }),
        flood(to, &[], 1_000_000, |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
        flood(to, &[], 1_000_000, |_| frame(SETTINGS, 0, 0, &[])),
        flood(to, &[], 1_000_000, |n| match n {
            0 => call_head(1, END_HEADERS),
            _ => frame(DATA, 0, 1, &[]),
        }),
        // SETTINGS_INITIAL_WINDOW_SIZE of none: nobody can be answered with more than a head.
        flood(to, &[0, 4, 0, 0, 0, 0], 100, call),
    ];
    still_serves(&server, 1);
    assert_eq!(grpc(to, &request(agent(2)).encode_to_vec(), false).unwrap(), "0");
    assert!(peak_kib(&server) < MEMORY_KIB, "{} KiB", peak_kib(&server));
    // It ends though some are still there.
    assert_eq!(server.end(), Some(0));
    drop(held);
    let found = wait_for(dir.path(), |runs| runs.len() == 3);
    assert_eq!(found.iter().map(|run| run.steps_total).sum::<u64>(), 9);
}

#[test]
fn two_thousand_connections_that_say_nothing_crowd_out_others_for_no_longer_than_a_head_may_take() {
    let dir = tempdir();
    let server = bounds::configured(dir.path(), "  bounds: {head_s: 2}\n");
    let idle: Vec<_> = (0..2_000).map(|_| TcpStream::connect(server.port("otlp-http")).unwrap()).collect();
    // Who watches it is served all the while.
    let health = ask(server.port("http"), "GET /healthz HTTP/1.1\r\nHost: localhost", b"");
    assert_eq!(health.0, 200);
    let body = request(agent(1)).encode_to_vec();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let asked = [head.as_bytes(), &body].concat();
    // One that comes while there is no room is closed, and who has written by then is told so.
    wait_until("others are served", || raw(server.port("otlp-http"), &asked).starts_with("HTTP/1.1 200"));
    assert!(peak_kib(&server) < MEMORY_KIB, "{} KiB", peak_kib(&server));
    drop(idle);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_connection_of_http2_without_a_request_is_closed_after_the_time_of_a_head() {
    let dir = tempdir();
    let server = bounds::configured(dir.path(), "  bounds: {head_s: 1}\n");
    for port in ["otlp-http", "otlp-grpc"] {
        let begun = std::time::Instant::now();
        let mut idle = TcpStream::connect(server.port(port)).unwrap();
        idle.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        idle.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, b"")[..]].concat()).unwrap();
        let ended = idle.read_to_end(&mut Vec::new());
        assert!(ended.is_ok_and(|read| read > 0) && begun.elapsed().as_secs() < 10, "{port}: {:?}", begun.elapsed());
    }
    still_serves(&server, 1);
}
