//! Requests against runs that were recorded by any source, and what they are found to be.

use serde_json::{Value as Json, json};

use super::*;
use crate::conventions::names;
use crate::model::otlp::{Span, Status, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{Event, EventId, RunKind, TraceId, UnixNanos};
use crate::pipeline::facts::StepFacts;
use crate::pipeline::{Content, Pipeline};
use crate::store::assembly::{ended_body, started_body};

/// Makes the log of a run of spans that pass the pipeline.
pub(super) fn log_of(spans: Vec<Span>) -> String {
    let mut pipeline = Pipeline::new(Content::Redacted, [7; 32]);
    let mut events = Vec::new();
    let mut push = |timestamp: u64, step_id: Option<String>, body| {
        let event_id = EventId::fresh(UnixNanos(timestamp));
        events.push(Event {
            seq: events.len() as u64,
            event_id,
            parent_event_id: None,
            timestamp: UnixNanos(timestamp),
            step_id,
            body,
        });
    };
    let started = crate::model::event::RunStarted {
        kind: RunKind::Agent,
        name: "agent".to_owned(),
        trace_id: TraceId([1; 16]),
        session_id: None,
        user_id: None,
        tags: Vec::new(),
        parent_run_id: None,
        input: None,
    };
    push(1, None, crate::model::EventBody::RunStarted(Box::new(started)));
    for (at, span) in spans.into_iter().enumerate() {
        let record = Record { kind: RecordKind::Ended, resource: Default::default(), scope: Default::default(), span };
        let span = pipeline.run(record).span;
        let facts = StepFacts::of(&span, None, None);
        let step_id = Some(if at == 0 { facts.step_name.clone() } else { format!("{}-{}", facts.step_name, at + 1) });
        push(
            span.start_time_unix_nano,
            step_id.clone(),
            started_body(span.clone(), &facts, &facts.content, None, None),
        );
        push(span.end_time_unix_nano, step_id, ended_body(span, &facts, *facts.content.clone(), None, None));
    }
    events.iter().map(|event| format!("{}\n", serde_json::to_string(event).unwrap())).collect()
}

fn recording(spans: Vec<Span>) -> Recording {
    Recording::parse(&log_of(spans)).unwrap()
}

/// A model call as the pass-through tells it. `at`: when it began.
pub(super) fn call(at: u64, request: &Json, answer: Option<&str>) -> Span {
    let mut span = span(at, "chat");
    span.set_attr(names::RELAYED, Value::Bool(true));
    ask::write(Format::Chat, request, &mut span);
    if let Some(answer) = answer {
        let said =
            json!([{"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": "stop"}]);
        span.set_attr(names::OUTPUT_MESSAGES, said.to_string());
        span.set_attr(names::RESPONSE_ID, format!("id-{at}"));
    }
    span
}

fn span(at: u64, operation: &str) -> Span {
    let mut span = Span {
        trace_id: vec![1; 16],
        span_id: vec![1, 1, 1, 1, 1, 1, 1, at as u8],
        name: operation.to_owned(),
        start_time_unix_nano: at * 1_000,
        end_time_unix_nano: at * 1_000 + 500,
        ..Span::default()
    };
    span.set_attr(names::OPERATION, operation);
    span
}

fn user(text: &str) -> Json {
    json!({"role": "user", "content": text})
}

fn asks(messages: &[Json]) -> Json {
    json!({"model": "gpt-4o", "messages": messages})
}

fn request(messages: &[Json]) -> Request {
    Request::from_body(Format::Chat, &asks(messages))
}

/// Asks, and says what came of it in a line.
fn said(replay: &Replay, request: Request) -> String {
    let found = replay.find(request);
    let taken = replay.report().taken.pop().unwrap();
    let step = taken.call.map_or("-", |at| replay.recording().calls()[at].step_id.as_str());
    let outcome = match found.outcome {
        Ok(Outcome::Answer(answer)) => answer.text(),
        Ok(Outcome::Left { answer, .. }) => format!("left {}", answer.text()),
        Ok(Outcome::Failure(failure)) => format!("failed {:?} {failure}", failure.status),
        Err(miss) => format!("({miss})"),
    };
    let differs: Vec<String> = taken.differs.iter().map(ToString::to_string).collect();
    let again = if taken.is_again { " again" } else { "" };
    format!("{} {step}{again}: {outcome} {}", taken.fit.as_str(), differs.join(", ")).trim_end().to_owned()
}

/// A conversation of two turns, and another one beside it.
fn two_conversations() -> Recording {
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    recording(vec![
        call(1, &asks(&[user("Weather in Bern today?")]), Some("Snow.")),
        call(2, &asks(&[user("Write a poem about the sea")]), Some("Waves.")),
        call(3, &asks(&[user("Weather in Bern today?"), assistant("Snow."), user("And tomorrow?")]), Some("Sun.")),
        call(4, &asks(&[user("Write a poem about the sea"), assistant("Waves."), user("Longer")]), Some("More waves.")),
    ])
}

#[test]
fn each_call_that_was_seen_on_its_way_has_its_answer_also_where_all_answers_have_one_id() {
    let mut calls =
        vec![call(1, &asks(&[user("Bern?")]), Some("Snow.")), call(2, &asks(&[user("Rome?")]), Some("Sun."))];
    calls.iter_mut().for_each(|call| call.set_attr(names::RESPONSE_ID, "chatcmpl-mock"));
    let replay = recording(calls).replay();
    assert_eq!(said(&replay, request(&[user("Rome?")])), "exact chat-2: Sun.");
    assert_eq!(said(&replay, request(&[user("Bern?")])), "exact chat: Snow.");
}

#[test]
fn what_a_tool_answered_is_the_same_whether_it_is_told_as_a_text_or_as_an_answer() {
    let asked = json!({"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
        "function": {"name": "weather", "arguments": "{}"}}]});
    let answered = |content: &str| json!({"role": "tool", "tool_call_id": "c1", "content": content});
    for (told, content) in [("18 C", "18 C"), (r#"{"c": 18}"#, r#"{"c":18}"#)] {
        let mut span = call(1, &asks(&[user("Bern?")]), Some("Snow."));
        let messages = json!([
            {"role": "user", "parts": [{"type": "text", "content": "Bern?"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {}}]},
            {"role": "tool", "parts": [{"type": "text", "content": told}]},
        ]);
        span.set_attr(names::INPUT_MESSAGES, messages.to_string());
        let replay = recording(vec![span]).replay();
        let asked = [user("Bern?"), asked.clone(), answered(content)];
        assert_eq!(said(&replay, request(&asked)), "exact chat: Snow.");
        let replay = replay.recording().clone().replay();
        let other = [user("Bern?"), asked[1].clone(), answered("19 C")];
        assert_eq!(said(&replay, request(&other)), "position chat: Snow. messages");
    }
}

#[test]
fn calls_at_once_may_come_in_any_order() {
    let replay = two_conversations().replay();
    let (weather, poem) = (user("Weather in Bern today?"), user("Write a poem about the sea"));
    assert_eq!(said(&replay, request(&[poem])), "exact chat-2: Waves.");
    assert_eq!(said(&replay, request(&[weather])), "exact chat: Snow.");
    assert!(replay.report().left_over.len() == 2 && replay.report().is_diverged());
}

#[test]
fn a_changed_prompt_is_at_its_place_in_its_own_conversation() {
    let replay = two_conversations().replay();
    let poem = user("Write a poem about the cold sea");
    assert_eq!(said(&replay, request(std::slice::from_ref(&poem))), "position chat-2: Waves. messages");
    let waves = json!({"role": "assistant", "content": "Waves."});
    assert_eq!(said(&replay, request(&[poem, waves, user("Longer")])), "position chat-4: More waves. messages");
    assert_eq!(said(&replay, request(&[user("Weather in Bern today?")])), "exact chat: Snow.");
    assert_eq!(replay.report().left_over, [LeftOver { call: 2, step_id: "chat-3".to_owned() }]);
}

#[test]
fn what_goes_on_from_a_changed_call_is_at_the_place_behind_it() {
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let (a, b, go_on) = (user("alpha"), user("beta"), user("Go on"));
    let recorded = recording(vec![
        call(1, &asks(std::slice::from_ref(&a)), Some("one")),
        call(2, &asks(std::slice::from_ref(&b)), Some("two")),
        call(3, &asks(&[a.clone(), said("one"), go_on.clone()]), Some("three")),
        call(4, &asks(&[b, said("two"), go_on.clone()]), Some("four")),
    ]);
    let replay = recorded.replay();
    assert_eq!(self::said(&replay, request(&[a])), "exact chat: one");
    let changed = user("gamma");
    assert_eq!(self::said(&replay, request(std::slice::from_ref(&changed))), "position chat-2: two messages");
    // By its words it could as well be the other one.
    assert_eq!(self::said(&replay, request(&[changed, said("two"), go_on])), "position chat-4: four messages");
}

#[test]
fn what_is_not_recorded_is_unmatched_and_what_is_asked_once_more_is_given_once_more() {
    let replay = recording(vec![call(1, &asks(&[user("Hello")]), Some("Hi."))]).replay();
    assert_eq!(said(&replay, request(&[user("Hello")])), "exact chat: Hi.");
    assert!(!replay.report().is_diverged());
    assert_eq!(said(&replay, request(&[user("Hello")])), "exact chat again: Hi.");
    assert_eq!(said(&replay, request(&[user("Bye")])), "unmatched -: (the recording has no such call)");
    let report = replay.report();
    assert_eq!((report.reused(), report.count(Fit::Exact), report.count(Fit::Unmatched)), (2, 2, 1));
    assert!(report.is_diverged());
}

#[test]
fn a_failure_is_given_as_it_was_and_to_who_tries_again_what_came_then() {
    let mut limited = call(1, &asks(&[user("Hello")]), None);
    limited.set_attr(names::ERROR_TYPE, "rate_limit_exceeded");
    limited.set_attr("http.response.status_code", 429);
    limited.status = Some(Status { code: 2, message: "slow down".to_owned() });
    let mut broken = call(2, &asks(&[user("Hello")]), None);
    broken.set_attr(names::ERROR_TYPE, "broken_off");
    broken.status = Some(Status { code: 2, message: "the answer broke off".to_owned() });
    let replay = recording(vec![limited, broken, call(3, &asks(&[user("Hello")]), Some("Hi."))]).replay();
    let hello = || request(&[user("Hello")]);
    assert_eq!(said(&replay, hello()), "exact chat: failed Some(429) rate_limit_exceeded: slow down");
    // What broke off was asked again, and is not to break off again.
    assert_eq!(said(&replay, hello()), "exact chat-3: Hi.");
}

#[test]
fn a_failure_that_is_asked_for_more_often_than_it_was_seen_is_asked_for_again() {
    let mut limited = call(1, &asks(&[user("Hello")]), None);
    limited.set_attr(names::ERROR_TYPE, "500");
    limited.status = Some(Status { code: 2, message: "oh".to_owned() });
    let hello = || request(&[user("Hello")]);
    let replay = recording(vec![limited.clone()]).replay();
    assert_eq!(said(&replay, hello()), "exact chat: failed Some(500) 500: oh");
    assert!(!replay.report().is_diverged());
    assert_eq!(said(&replay, hello()), "exact chat again: failed Some(500) 500: oh");
    assert!(replay.report().is_diverged());
    // Who calls a client does not tell how often that tried.
    limited.attributes.retain(|attribute| attribute.key != names::RELAYED);
    let replay = recording(vec![limited]).replay();
    assert_eq!(said(&replay, hello()), "exact chat: failed Some(500) 500: oh");
    assert_eq!(said(&replay, hello()), "exact chat: failed Some(500) 500: oh");
    assert!(!replay.report().is_diverged());
}

#[test]
fn a_stream_is_given_as_far_as_it_came_and_fails_where_it_failed() {
    let streamed = |at: u64, said: Option<&str>| {
        let mut span = call(at, &asks(&[user("Hello")]), said);
        span.set_attr(names::FINISH_REASONS, Value::Array(Default::default()));
        span.set_attr("gen_ai.response.time_to_first_chunk", Value::Double(0.1));
        span.set_attr("http.response.status_code", 200);
        span
    };
    let mut failed = streamed(1, Some("Hel"));
    failed.set_attr(names::ERROR_TYPE, "overloaded_error");
    failed.status = Some(Status { code: 2, message: "Overloaded".to_owned() });
    let mut left = streamed(2, Some("Hello"));
    left.set_attr(names::ERROR_TYPE, "cancelled");
    left.set_attr(names::STEP_STATUS, "cancelled");
    let mut refused = call(3, &asks(&[user("Hello")]), None);
    refused.set_attr("http.response.status_code", 200);
    refused.set_attr(names::ERROR_TYPE, "server_error");
    refused.status = Some(Status { code: 2, message: "no".to_owned() });
    let said: Vec<String> = recording(vec![failed, left, refused])
        .calls()
        .iter()
        .map(|call| match call.outcome.as_ref() {
            Ok(Outcome::Left { answer, after }) => format!("left after {after:?}: {}", answer.text()),
            Ok(Outcome::Failure(failure)) => {
                let answered = failure.answered.as_ref().map(|answer| answer.text());
                format!("failed {:?} {failure}, after {answered:?}", failure.status)
            }
            other => format!("{other:?}"),
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    failed Some(200) overloaded_error: Overloaded, after Some("Hel")
    left after 500ns: Hello
    failed Some(200) server_error: no, after None
    "#);
}

#[test]
fn what_differs_is_named() {
    let tools = |names: &[&str]| -> Json {
        names.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect()
    };
    let mut recorded = asks(&[user("Hello")]);
    recorded["temperature"] = json!(0);
    recorded["tools"] = tools(&["weather", "time"]);
    let replay = recording(vec![call(1, &recorded, Some("Hi."))]).replay();
    let mut now = recorded.clone();
    now["temperature"] = json!(0.0);
    now["stream"] = json!(true);
    assert_eq!(said(&replay, Request::from_body(Format::Chat, &now)), "exact chat: Hi.");
    now["model"] = json!("gpt-5");
    now["tools"] = tools(&["weather", "news"]);
    now["temperature"] = json!(1);
    now["seed"] = json!(5);
    assert_eq!(
        said(&replay, Request::from_body(Format::Chat, &now)),
        "position chat again: Hi. model gpt-4o → gpt-5, tools -time +news, seed null → 5, temperature 0 → 1"
    );
}

#[test]
fn one_prompt_for_two_models_is_two_calls() {
    let of = |model: &str| json!({"model": model, "messages": [user("Hello")]});
    let replay =
        recording(vec![call(1, &of("gpt-4o"), Some("Hi.")), call(2, &of("gpt-5"), Some("Good day."))]).replay();
    let asked = |model: &str| said(&replay, Request::from_body(Format::Chat, &of(model)));
    assert_eq!(asked("gpt-5"), "exact chat-2: Good day.");
    assert_eq!(asked("gpt-4o"), "exact chat: Hi.");
}

#[test]
fn a_secret_in_a_prompt_is_known_again_by_its_mark() {
    let key = format!("sk-proj-{}", "aB3dE6gH9jK2mN5pQ8sT".repeat(2));
    let secret = asks(&[user(&format!("My key is {key}"))]);
    let log = log_of(vec![call(1, &secret, Some(&format!("Yours is {key}")))]);
    assert!(!log.contains(&key) && log.contains("[redacted:"));
    let replay = Recording::parse(&log).unwrap().replay();
    // Another store has another key, and marks of other hashes.
    let mut record = Record {
        kind: RecordKind::Ended,
        resource: Default::default(),
        scope: Default::default(),
        span: call(1, &secret, None),
    };
    crate::pipeline::Scrubber::new(Content::Redacted, [8; 32]).scrub(&mut record);
    let answer = replay.ask(&Request::of_span(&record.span)).unwrap();
    assert!(answer.redacted == 1 && answer.text().starts_with("Yours is [redacted:"), "{}", answer.text());
    assert!(!replay.report().is_diverged());
}

#[test]
fn a_gap_is_named_with_its_step_and_its_reason() {
    let mut policy = call(1, &asks(&[user("a")]), None);
    policy.set_attr(crate::pipeline::scrub::CONTENT_MARK, "none");
    let untold = call(2, &asks(&[user("b")]), None);
    let mut large = call(3, &asks(&[user("c")]), Some("Once upon[cut:5000]"));
    large.end_time_unix_nano += 1;
    let mut cut = call(4, &asks(&[user("d")]), Some("Once"));
    cut.set_attr(names::CUT, "answer");
    let mut left = call(5, &asks(&[user("e")]), None);
    left.set_attr(names::STEP_STATUS, "cancelled");
    let mut vectors = span(6, "embeddings");
    vectors.set_attr(names::INPUT, "f");
    let recording = recording(vec![policy, untold, large, cut, left, vectors]);
    let gaps: Vec<String> = recording.gaps().map(|(call, gap)| format!("{}: {gap}", call.step_id)).collect();
    insta::assert_snapshot!(gaps.join("\n"), @r"
    chat: its content was not kept, by policy (content none)
    chat-2: the program did not tell what was answered; its instrumentation has a switch for content
    chat-3: its answer was cut, for it was too large to be kept whole
    chat-4: its answer was cut, for it was too large to be kept whole
    chat-5: it ended as cancelled, before it was answered
    embeddings-6: its vectors are not in the recording
    ");
    let replay = recording.replay();
    assert!(
        said(&replay, request(&[user("c")])).starts_with("exact chat-3: (the recording has no answer to step chat-3: ")
    );
    assert!(replay.report().is_diverged());
}

#[test]
fn what_a_command_was_told_until_a_step_is_answered_and_no_more() {
    let recording = two_conversations();
    assert_eq!(recording.calls_until("chat-2"), Some(2));
    assert_eq!(recording.calls_until("nothing"), None);
    let replay = recording.replay().until(2);
    let (weather, poem) = (user("Weather in Bern today?"), user("Write a poem about the sea"));
    assert_eq!(said(&replay, request(std::slice::from_ref(&weather))), "exact chat: Snow.");
    assert_eq!(said(&replay, request(&[user("What?")])), "position chat-2: Waves. messages");
    let snow = json!({"role": "assistant", "content": "Snow."});
    let beyond = "live -: (the recording was to be left before this call)";
    assert_eq!(said(&replay, request(&[weather, snow, user("And tomorrow?")])), beyond);
    assert_eq!(said(&replay, request(&[user("Something new")])), beyond);
    assert_eq!(said(&replay, request(&[poem])), "exact chat-2 again: Waves.");
    assert!(replay.report().left_over.is_empty());
}

#[test]
fn tools_are_answered_from_the_recording_and_run_only_when_they_may() {
    let tool = |at: u64, arguments: &Json, result: Option<&str>| {
        let mut span = span(at, "execute_tool");
        span.set_attr(names::TOOL_NAME, "weather");
        span.set_attr(names::TOOL_ARGUMENTS, arguments.to_string());
        match result {
            Some(result) => span.set_attr(names::TOOL_RESULT, result),
            None => span.set_attr(names::ERROR_TYPE, "no such city"),
        }
        span
    };
    let bern = json!({"city": "Bern", "days": 1});
    let recording = recording(vec![
        tool(1, &bern, Some("snow")),
        tool(2, &bern, Some("sun")),
        tool(3, &json!({"city": "?"}), None),
    ]);
    let replay = recording.replay();
    // In whatever order its arguments are.
    assert_eq!(replay.tool("weather", &json!({"days": 1, "city": "Bern"})), Ok(json!("snow")));
    assert_eq!(replay.tool("weather", &bern), Ok(json!("sun")));
    assert_eq!(replay.tool("weather", &bern), Ok(json!("sun")));
    assert!(matches!(replay.tool("weather", &json!({"city": "?"})), Err(NotAnswered::ToolFailed(_))));
    assert!(!replay.report().is_diverged());
    let never = || panic!("it runs");
    assert_eq!(replay.tool_or("weather", &json!({}), never), Err(NotAnswered::Miss(Miss::Unmatched)));
    assert!(replay.report().is_diverged());
    let replay = recording.replay().allow_tools();
    assert_eq!(replay.tool_or("weather", &bern, never), Ok(json!("snow")));
    assert_eq!(replay.tool_or("weather", &json!({}), || json!("fog")), Ok(json!("fog")));
    assert!(replay.report().tools.pop().unwrap().is_live);
}

#[test]
fn the_same_request_is_the_same_whoever_tells_it() {
    let wire = Request::from_body(
        Format::Chat,
        &json!({"model": "gpt-4o", "messages": [
            {"role": "system", "content": "Be brief."},
            user("Weather in Bern?"),
            {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
                "function": {"name": "weather", "arguments": "{\"city\": \"Bern\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "{\"sky\": \"snow\"}"},
        ]}),
    );
    let built = Request::chat("gpt-4o").system("Be brief.").user("Weather in Bern?");
    let messages = Request::from_body(
        Format::Messages,
        &json!({"model": "gpt-4o", "system": "Be brief.", "messages": [
            user("Weather in Bern?"),
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Bern"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "{\"sky\": \"snow\"}"}]},
        ]}),
    );
    let responses = Request::from_body(
        Format::Responses,
        &json!({"model": "gpt-4o", "instructions": "Be brief.", "input": [
            user("Weather in Bern?"),
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{\"city\":\"Bern\"}"},
            {"type": "function_call_output", "call_id": "c", "output": "{\"sky\": \"snow\"}"},
        ]}),
    );
    // As the Vercel AI SDK writes it.
    let mut vercel = span(1, "chat");
    vercel.set_attr(names::INPUT_MESSAGES, json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Bern?"}]},
        {"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "x", "toolName": "weather", "input": {"city": "Bern"}}]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "x", "toolName": "weather",
            "output": {"type": "json", "value": {"sky": "snow"}}}]},
    ]).to_string());
    for other in [messages, responses, Request::of_span(&vercel)] {
        assert_eq!(wire.differences(&other), [], "{}\n{}", wire.text(), other.text());
    }
    assert!(wire.text().starts_with(&built.text()));
    insta::assert_snapshot!(wire.text(), @r#"
    [system]
    Be brief.
    [user]
    Weather in Bern?
    [assistant]
    calls weather {"city":"Bern"}
    [tool]
    answers {"sky":"snow"}
    "#);
}

#[test]
fn threads_that_ask_at_once_are_each_given_their_own() {
    const THREADS: usize = 8;
    let asked = |at: usize| asks(&[user(&format!("Question {at}"))]);
    let answers: Vec<String> = (0..THREADS).map(|at| format!("answer {at}")).collect();
    let calls = answers.iter().enumerate().map(|(at, answer)| call(at as u64 + 1, &asked(at), Some(answer)));
    let mut known = span(100, "execute_tool");
    known.set_attr(names::TOOL_NAME, "known");
    known.set_attr(names::TOOL_ARGUMENTS, "{}");
    known.set_attr(names::TOOL_RESULT, "snow");
    let recording = recording(calls.chain([known]).collect());
    for _ in 0..50 {
        let replay = recording.replay().allow_tools();
        let ask = || {
            let _ = replay.tool("known", &json!({}));
            replay.tool_or("unknown", &json!({}), || json!("fog")).unwrap();
            replay.next_answer().unwrap().text()
        };
        let mut given: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        given.sort();
        assert_eq!(given, answers);
        let is_wrong = |tool: &ToolTaken| tool.is_live != (tool.name == "unknown");
        assert!(!replay.report().tools.iter().any(is_wrong));
    }
}

#[test]
fn an_id_may_say_any_number_of_times_that_it_was_given_again() {
    let id = format!("{}resp-1", "replayed-1-".repeat(1_000_000));
    assert_eq!(request::original_id(&id), "resp-1");
    assert_eq!(request::original_id("replayed-"), "replayed-");
}

#[test]
fn pictures_the_shape_of_the_answer_and_the_choice_of_tools_are_compared() {
    let ask = |picture: &str, more: &[(&str, Json)]| {
        let content =
            json!([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]);
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
        more.iter().for_each(|(key, value)| body[*key] = value.clone());
        Request::from_body(Format::Chat, &body)
    };
    let differ =
        |a: &Request, b: &Request| -> Vec<String> { a.differences(b).iter().map(ToString::to_string).collect() };
    let (one, other) = ("data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgs=");
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}});
    assert_eq!(differ(&ask(one, &[]), &ask(one, &[("tool_choice", json!("auto"))])), [""; 0]);
    assert_eq!(differ(&ask(one, &[]), &ask(one, &[("response_format", json!({"type": "text"}))])), [""; 0]);
    assert_eq!(differ(&ask(one, &[]), &ask(other, &[])), ["messages"]);
    assert_eq!(differ(&ask(one, &[("tool_choice", json!("none"))]), &ask(one, &[])), [r#"tool_choice "none" → null"#]);
    assert_eq!(differ(&ask(one, &[]), &ask(one, &[("response_format", schema)])), ["response_format"]);
    // The same picture, as another API sends it, and as a framework tells it.
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let content = json!([{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]);
    let anthropic = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    assert_eq!(differ(&ask(one, &[]), &Request::from_body(Format::Messages, &anthropic)), [""; 0]);
    let parts = json!([{"type": "text", "content": "What is it?"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBORw0KGgo="}]);
    let mut told = Span::default();
    told.set_attr(names::OPERATION, "chat");
    told.set_attr(names::INPUT_MESSAGES, json!([{"role": "user", "parts": parts}]).to_string());
    assert_eq!(differ(&Request::of_span(&told), &ask(one, &[])), [""; 0]);
}
