//! The client against the scripted model, and against peers that misbehave.

use super::super::model_server::{Call, ModelServer, Script, Tokens};
use super::*;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::thread;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const LONG: Duration = Duration::from_secs(10);

fn weather_tool() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])
}

fn chat(model: &str, messages: Value) -> Value {
    json!({"model": model, "messages": messages, "tools": weather_tool()})
}

fn post(server: &ModelServer, path: &str, body: &Value) -> Result<Response, HttpError> {
    post_json(&(server.base_url() + path), &[("authorization", "Bearer k")], body, LONG)
}

fn call(path: &str, model: &str, status: u16, streamed: bool, tokens: [u64; 4]) -> Call {
    let [input, cached, output, reasoning] = tokens;
    let tokens = Tokens { input, cached, output, reasoning };
    Call { path: path.to_owned(), model: model.to_owned(), tokens, streamed, status }
}

#[test]
fn an_agent_gets_its_tool_call_and_then_its_answer() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let user = json!({"role": "user", "content": "What is the weather in Bern?"});
    let first = post(&server, "/chat/completions", &chat("gpt-5-mini", json!([user])))?.json()?;
    let wish = &first["choices"][0]["message"];
    let id = &wish["tool_calls"][0]["id"];
    assert_eq!(
        *wish,
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [{"id": id, "type": "function",
            "function": {"name": "get_weather", "arguments": r#"{"city":"Bern"}"#}}]})
    );
    let result = json!({"role": "tool", "tool_call_id": id, "content": "4 degrees, snow"});
    let second = chat("gpt-5-mini", json!([user, wish, result]));
    let second = post(&server, "/chat/completions", &second)?.json()?;
    assert_eq!(
        second["choices"][0],
        json!({"index": 0, "logprobs": null, "finish_reason": "stop", "message":
            {"role": "assistant", "content": "This is what I found: 4 degrees, snow", "refusal": null}})
    );
    assert_eq!(
        server.calls(),
        [
            call("/v1/chat/completions", "gpt-5-mini", 200, false, [43, 0, 37, 30]),
            call("/v1/chat/completions", "gpt-5-mini", 200, false, [62, 43, 46, 36]),
        ]
    );
    Ok(())
}

#[test]
fn a_streamed_chat_arrives_in_pieces_and_ends_with_its_usage() -> TestResult {
    let gap = Duration::from_millis(20);
    let server = ModelServer::start(Script::demo().chunk_gap(gap))?;
    let url = server.base_url() + "/chat/completions";
    let body = json!({"model": "gpt-4o-mini", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Count to three"}]});
    let start = std::time::Instant::now();
    let mut first_after = None;
    let mut pieces = Vec::new();
    let mut last = Value::Null;
    for event in post_json_for_events(&url, &[], &body, LONG)? {
        last = serde_json::from_str(&event?)?;
        first_after.get_or_insert(start.elapsed());
        let content = &last["choices"][0]["delta"]["content"];
        pieces.extend(content.as_str().map(str::to_owned));
    }
    assert_eq!(pieces, ["", "You ", "asked: ", "Count ", "to ", "three"]);
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 8, "completion_tokens": 7, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
    );
    // Eight chunks follow the first one, each after a gap.
    let waited = start.elapsed().saturating_sub(first_after.unwrap_or_default());
    assert!(waited >= 5 * gap, "{waited:?}");
    assert_eq!(server.calls(), [call("/v1/chat/completions", "gpt-4o-mini", 200, true, [8, 0, 7, 0])]);
    Ok(())
}

#[test]
fn a_streamed_tool_call_can_be_put_together() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let url = server.base_url() + "/chat/completions";
    let mut body = chat("gpt-4o", json!([{"role": "user", "content": "Weather?"}]));
    body["stream"] = json!(true);
    let (mut name, mut arguments, mut finish) = (String::new(), String::new(), Vec::new());
    for event in post_json_for_events(&url, &[], &body, LONG)? {
        let chunk: Value = serde_json::from_str(&event?)?;
        let function = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"];
        name += function["name"].as_str().unwrap_or("");
        arguments += function["arguments"].as_str().unwrap_or("");
        finish.push(chunk["choices"][0]["finish_reason"].clone());
    }
    assert_eq!((name.as_str(), arguments.as_str()), ("get_weather", r#"{"city":"Bern"}"#));
    assert_eq!(finish, [json!(null), json!(null), json!(null), json!(null), json!("tool_calls")]);
    Ok(())
}

#[test]
fn the_responses_api_answers_whole_and_in_events() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let mut body = json!({"model": "gpt-4o-mini", "input": "Hello"});
    let whole = post(&server, "/responses", &body)?.json()?;
    assert_eq!(whole["output"][0]["content"][0]["text"], "You asked: Hello");
    assert_eq!(
        whole["usage"],
        json!({"input_tokens": 6, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10})
    );
    body["stream"] = json!(true);
    let mut kinds = Vec::new();
    for event in post_json_for_events(&(server.base_url() + "/responses"), &[], &body, LONG)? {
        let event: Value = serde_json::from_str(&event?)?;
        kinds.push(event["type"].as_str().unwrap_or("").to_owned());
    }
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    Ok(())
}

#[test]
fn equal_texts_have_equal_embeddings() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let body = json!({"model": "text-embedding-3-small", "input": ["snow", "rain", "snow"], "dimensions": 2});
    let answer = post(&server, "/embeddings", &body)?.json()?;
    let vector = |at: usize| &answer["data"][at]["embedding"];
    assert_eq!(
        answer,
        json!({"object": "list", "model": "text-embedding-3-small",
            "data": [
                {"object": "embedding", "index": 0, "embedding": vector(0)},
                {"object": "embedding", "index": 1, "embedding": vector(1)},
                {"object": "embedding", "index": 2, "embedding": vector(0)}],
            "usage": {"prompt_tokens": 15, "total_tokens": 15}})
    );
    assert_ne!(vector(0), vector(1));
    assert_eq!(server.calls(), [call("/v1/embeddings", "text-embedding-3-small", 200, false, [15, 0, 0, 0])]);
    Ok(())
}

#[test]
fn ordered_failures_arrive_in_openai_s_shape_and_cost_nothing() -> TestResult {
    let server = ModelServer::start(Script::demo())?;
    let mut seen = Vec::new();
    for model in ["fail-401", "fail-429", "fail-500"] {
        let body = json!({"model": model, "stream": true, "messages": []});
        let url = server.base_url() + "/chat/completions";
        let Err(HttpError::NotAStream(response)) = post_json_for_events(&url, &[], &body, LONG) else {
            return Err("a failure is no stream".into());
        };
        seen.push((response.status, response.json()?));
    }
    let error = |message: &str, kind: &str, code: Option<&str>| json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    assert_eq!(
        seen,
        [
            (401, error("the API key is not accepted, as ordered", "authentication_error", Some("invalid_api_key"))),
            (429, error("the rate limit is reached, as ordered", "rate_limit_error", Some("rate_limit_exceeded"))),
            (500, error("the model failed, as ordered", "server_error", None)),
        ]
    );
    assert_eq!(
        server.calls(),
        [
            call("/v1/chat/completions", "fail-401", 401, false, [0; 4]),
            call("/v1/chat/completions", "fail-429", 429, false, [0; 4]),
            call("/v1/chat/completions", "fail-500", 500, false, [0; 4]),
        ]
    );
    Ok(())
}

/// Runs an agent to its end and returns its answer.
fn run_agent(url: &str, city: usize) -> Result<String, HttpError> {
    let user = json!({"role": "user", "content": format!("Weather in city {city}?")});
    let mut messages = vec![user];
    loop {
        let body = chat("gpt-4o-mini", json!(messages));
        let answer = post_json(url, &[], &body, LONG)?.json()?;
        let message = &answer["choices"][0]["message"];
        let Some(id) = message["tool_calls"][0]["id"].as_str() else {
            return Ok(message["content"].as_str().unwrap_or("").to_owned());
        };
        messages.push(message.clone());
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": format!("{city} degrees")}));
    }
}

#[test]
fn eight_agents_at_once_each_get_their_own_answers() -> TestResult {
    let server = ModelServer::start(Script::demo().latency(Duration::from_millis(5)))?;
    let url = server.base_url() + "/chat/completions";
    let answers: Vec<_> = thread::scope(|scope| {
        let url = &url;
        let agents: Vec<_> = (1..=8).map(|city| scope.spawn(move || run_agent(url, city))).collect();
        agents.into_iter().map(|agent| agent.join()).collect()
    });
    for (at, answer) in answers.into_iter().enumerate() {
        let expected = format!("This is what I found: {} degrees", at + 1);
        assert!(matches!(&answer, Ok(Ok(text)) if *text == expected), "{answer:?}");
    }
    let mut inputs: Vec<u64> = server.calls().iter().map(|call| call.tokens.input).collect();
    inputs.sort_unstable();
    assert_eq!(inputs, [[41; 8], [59; 8]].concat());
    Ok(())
}

/// A peer that answers one request with `parts`, with `pause` before each, and closes.
fn peer(parts: Vec<Vec<u8>>, pause: Duration) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/x", listener.local_addr()?);
    thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let _ = stream.read(&mut [0; 4096])?;
        for part in parts {
            thread::sleep(pause);
            stream.write_all(&part)?;
        }
        Ok(())
    });
    Ok(url)
}

/// What the client makes of a peer that answers `bytes`, as text.
fn answered(bytes: &[u8]) -> String {
    let url = match peer(vec![bytes.to_vec()], Duration::ZERO) {
        Ok(url) => url,
        Err(error) => return error.to_string(),
    };
    match post_json(&url, &[], &json!({}), LONG) {
        Ok(response) => format!("{} {}", response.status, response.body.escape_ascii()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_framing_of_a_body_is_read() {
    let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef";
    assert_eq!(answered(sized), "200 abc");
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\n";
    assert_eq!(answered(chunked), "200 abc");
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\n\r\nabc"), "200 abc");
    let announced = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(answered(announced), "204 ");
}

#[test]
fn what_is_no_http_is_told_as_what_it_is() {
    let cut_off = "the connection ended before the response did";
    assert_eq!(answered(b""), cut_off);
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), cut_off);
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc"), cut_off);
    assert_eq!(answered(b"SSH-2.0-x\r\n\r\n"), "malformed response: status line");
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n"), "malformed response: content length");
    assert_eq!(
        answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n"),
        "malformed response: transfer encoding not known"
    );
}

#[test]
fn what_is_too_large_is_left_unread() {
    let head = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 70_000]].concat();
    assert_eq!(answered(&head), "the head is over 65536 bytes");
    let body = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'a'; 17 << 20]].concat();
    assert_eq!(answered(&body), "the body is over 16777216 bytes");
}

#[test]
fn events_survive_any_cut_of_their_bytes() -> TestResult {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let events = ": hi\n\ndata: a\ndata: b\n\nevent: x\r\ndata: ä\r\n\r\ndata: [DONE]\n\ndata: late\n\n";
    for size in [1, 2, 7, 200] {
        let mut parts = vec![head.as_bytes().to_vec()];
        parts.extend(events.as_bytes().chunks(size).map(<[u8]>::to_vec));
        let url = peer(parts, Duration::from_millis(1))?;
        let events: Result<Vec<String>, HttpError> = post_json_for_events(&url, &[], &json!({}), LONG)?.collect();
        assert_eq!(events?, ["a\nb", "ä"], "in pieces of {size}");
    }
    Ok(())
}

#[test]
fn a_stream_that_is_cut_off_says_so_once() -> TestResult {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let url = peer(vec![format!("{head}9\r\ndata: a\n\n\r\n").into_bytes()], Duration::ZERO)?;
    let mut events = post_json_for_events(&url, &[], &json!({}), LONG)?;
    assert!(matches!(events.next(), Some(Ok(data)) if data == "a"));
    assert!(matches!(events.next(), Some(Err(HttpError::CutOff))));
    assert!(events.next().is_none());
    Ok(())
}

#[test]
fn a_silent_peer_is_given_up_in_time() -> TestResult {
    let server = ModelServer::start(Script::demo().latency(LONG))?;
    let short = Duration::from_millis(50);
    let url = server.base_url() + "/chat/completions";
    let start = std::time::Instant::now();
    let answer = post_json(&url, &[], &chat("gpt-4o", json!([])), short);
    assert!(matches!(&answer, Err(error) if error.is_timeout()), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[test]
fn only_loopback_is_asked_and_headers_stay_whole() {
    let ask = |url: &str, header: (&str, &str)| {
        let answer = post_json(url, &[header], &json!({}), LONG);
        answer.map_or_else(|error| error.to_string(), |response| response.status.to_string())
    };
    let plain = ("a", "b");
    assert_eq!(
        ask("https://127.0.0.1:1/", plain),
        "cannot ask \"https://127.0.0.1:1/\": it does not start with http://"
    );
    assert_eq!(
        ask("http://example.com:80/", plain),
        "cannot ask \"http://example.com:80/\": its host is not an IP address or localhost, with a port"
    );
    assert_eq!(ask("http://192.0.2.1:80/", plain), "cannot ask \"http://192.0.2.1:80/\": it is not on loopback");
    assert_eq!(ask("http://localhost:1/", ("a", "b\r\nc: d")), "header \"a\" has a line break or a colon");
}
