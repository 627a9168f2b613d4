//! The server over real connections, with requests written byte by byte.

use super::*;
use serde_json::{Value, json};
use std::io::BufRead;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn connect(server: &ModelServer) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Sends bytes and returns everything the server says until it closes.
fn exchange(server: &ModelServer, bytes: &[u8]) -> io::Result<String> {
    let mut stream = connect(server)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn post(path: &str, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
}

/// Reads one answer with a stated length from a connection that stays open.
fn read_answer(reader: &mut impl BufRead) -> Result<(String, Value), Box<dyn std::error::Error>> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse()?;
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok((status, serde_json::from_slice(&body)?))
}

#[test]
fn one_connection_carries_many_requests() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let mut stream = connect(&server)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut ids = Vec::new();
    for _ in 0..3 {
        stream.write_all(&post("/v1/chat/completions", "", &hello("gpt-4o-mini")))?;
        let (status, mut body) = read_answer(&mut reader)?;
        ids.push(body["id"].take());
        body["created"].take();
        assert_eq!(status, "HTTP/1.1 200 OK\r\n");
        assert_eq!(
            body,
            json!({"id": null, "object": "chat.completion", "created": null, "model": "gpt-4o-mini-2024-07-18",
                "service_tier": "default", "system_fingerprint": "fp_scripted",
                "choices": [{"index": 0, "logprobs": null, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "You asked: Hello", "refusal": null}}],
                "usage": {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                        "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}})
        );
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    Ok(())
}

#[test]
fn malformed_requests_are_refused_and_the_server_lives_on() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let noise: [(&[u8], &str); 5] = [
        (b"\x16\x03\x01\x02\x00\x01\xff\n\n", "HTTP/1.1 400 "),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n", "HTTP/1.1 413 "),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\n\r\n{", "HTTP/1.1 400 "),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1\r\n\r\n{", "HTTP/1.1 400 "),
        (b"", ""),
    ];
    for (bytes, status) in noise {
        let answer = exchange(&server, bytes)?;
        assert!(answer.starts_with(status), "{answer}");
    }
    let good = exchange(&server, &post("/v1/chat/completions", "", &hello("gpt-4o")))?;
    assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
    // Only what could be understood was billed.
    let models: Vec<String> = server.calls().into_iter().map(|call| call.model).collect();
    assert_eq!(models, ["gpt-4o"]);
    Ok(())
}

#[test]
fn an_oversized_body_is_refused_while_it_is_sent() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a".repeat(9 << 20)}]});
    let answer = exchange(&server, &post("/v1/chat/completions", "", &body))?;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(server.calls(), []);
    Ok(())
}

#[test]
fn unknown_paths_and_methods_are_told_apart() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let close = "connection: close\r\n";
    let unknown = exchange(&server, &post("/v1/models", close, &json!({})))?;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    let get = exchange(&server, b"GET /v1/embeddings HTTP/1.1\r\nconnection: close\r\n\r\n")?;
    assert!(get.starts_with("HTTP/1.1 405 "), "{get}");
    Ok(())
}

#[test]
fn connections_beyond_the_bound_are_turned_away() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = connect(&server)?;
        // An answer shows that the connection has its place.
        stream.write_all(&post("/v1/none", "", &json!({})))?;
        read_answer(&mut BufReader::new(stream.try_clone()?))?;
        open.push(stream);
    }
    let mut answer = String::new();
    connect(&server)?.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    Ok(())
}

#[test]
fn dropping_the_server_cuts_idle_and_slow_connections() -> TestResult {
    let server = ModelServer::start(Script::demo().latency(Duration::from_secs(60)))?;
    let mut idle = connect(&server)?;
    let mut slow = connect(&server)?;
    slow.write_all(&post("/v1/chat/completions", "", &hello("gpt-4o")))?;
    while server.calls().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5));
    for stream in [&mut idle, &mut slow] {
        let ended = stream.read(&mut [0; 16]);
        assert!(matches!(&ended, Ok(0) | Err(_)), "{ended:?}");
    }
    Ok(())
}
