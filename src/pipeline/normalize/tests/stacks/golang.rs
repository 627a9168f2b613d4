//! Frameworks for Go.

use super::*;

/// ADK 2.2 for Go with Gemini and with its model of OpenAI's, whose contexts were cancelled.
#[test]
fn an_error_of_a_context_of_go_says_how_the_work_ended() {
    let of = |class: Option<&str>, message: &str| {
        let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
        record.span.status = Some(Status { code: STATUS_ERROR, message: message.to_owned() });
        let class = class.map(|class| ("exception.type", Value::from(class)));
        let list: Vec<_> = class.into_iter().chain([("exception.message", message.into())]).collect();
        record.span.events = vec![event("exception", &list)];
        facts(&record).status
    };
    let wrapped = "openai: call failed: context canceled";
    assert_eq!(of(Some("*errors.errorString"), "context canceled"), StepStatus::Cancelled);
    assert_eq!(of(Some("*fmt.wrapError"), wrapped), StepStatus::Cancelled);
    assert_eq!(of(Some("*url.Error"), "Post \"http://127.0.0.1/v1\": context canceled"), StepStatus::Cancelled);
    assert_eq!(of(None, wrapped), StepStatus::Cancelled);
    assert_eq!(of(None, "read after timeout: context canceled"), StepStatus::Cancelled);
    let late = "failed to call model: context deadline exceeded";
    assert_eq!(of(Some("*fmt.wrapError"), late), StepStatus::Timeout);
    assert_eq!(of(None, late), StepStatus::Timeout);
    // Of any other class, or with more behind it, it is not said of the work itself.
    assert_eq!(of(Some("*genai.APIError"), wrapped), StepStatus::Error);
    assert_eq!(of(Some("*fmt.wrapError"), "the server said context canceled, and went on"), StepStatus::Error);
    assert_eq!(of(Some("*fmt.wrapError"), "no context canceled"), StepStatus::Error);
}

/// A span of ADK for Go whose scope has that version.
fn adk(version: &str, name: &str, list: &[(&str, Value)]) -> Record {
    let mut record = ended(list);
    (record.span.name, record.scope.version) = (name.to_owned(), version.to_owned());
    record.scope.name = "gcp.vertex.agent".to_owned();
    let language = attributes(&[("telemetry.sdk.language", "go".into())]);
    record.resource = Resource { attributes: language, ..Resource::default() }.into();
    record
}

/// A call by 0.5 or later: model, reason for its end, and counts.
fn adk_call(version: &str, model: &str, reason: &str, counts: &[(&str, i64)]) -> StepFacts {
    let mut list = vec![
        ("gen_ai.operation.name", "generate_content".into()),
        ("gen_ai.request.model", model.into()),
        ("gen_ai.response.finish_reasons", Value::Array(ArrayValue { values: vec![Value::from(reason).into()] })),
    ];
    list.extend(counts.iter().map(|(key, count)| (*key, Value::Int(*count))));
    facts(&adk(version, "generate_content gemini-2.5-flash", &list))
}

const INPUT: &str = "gen_ai.usage.input_tokens";
const OUTPUT: &str = "gen_ai.usage.output_tokens";
const CACHED: &str = "gen_ai.usage.cache_read.input_tokens";
const THOUGHT: &str = "gen_ai.usage.reasoning.output_tokens";

/// ADK 0.3.0 for Go.
#[test]
fn adk_for_go_of_before_has_its_counts_in_gos_names_and_a_failed_tool_in_its_answer() {
    let call = |rest: &str, counts: &[(&str, i64)]| {
        let response = format!(r#"{{"Content":{{"parts":[{{"text":"answer"}}],"role":"model"}},{rest}}}"#);
        let mut list = vec![
            ("gen_ai.system", "gcp.vertex.agent".into()),
            ("gen_ai.request.model", "gemini-2.5-flash".into()),
            ("gcp.vertex.agent.llm_response", response.into()),
        ];
        list.extend(counts.iter().map(|(key, count)| (*key, Value::Int(*count))));
        facts(&adk("", "call_llm", &list))
    };
    let counts = [
        ("gen_ai.response.prompt_token_count", 1000),
        ("gen_ai.response.candidates_token_count", 50),
        ("gen_ai.response.cached_content_token_count", 400),
        ("gen_ai.response.total_token_count", 1080),
    ];
    let usage = r#""UsageMetadata":{"cachedContentTokenCount":400,"candidatesTokenCount":50,"promptTokenCount":1000,
        "thoughtsTokenCount":30,"totalTokenCount":1080},"Partial":false,"FinishReason":"STOP""#;
    let whole = call(usage, &counts);
    assert_eq!((whole.kind, whole.status), (StepKind::Llm, StepStatus::Success));
    assert_eq!(tokens(&whole), [Some(1000), Some(400), None, Some(80), Some(30)]);
    // The total has what was thought, where the answer was left out.
    assert_eq!(tokens(&call(r#""Partial":false"#, &counts)), [Some(1000), Some(400), None, Some(80), Some(30)]);
    let part = r#""UsageMetadata":{"promptTokenCount":1000,"totalTokenCount":1000},"Partial":true,"FinishReason":"""#;
    let part = call(part, &[counts[0], ("gen_ai.response.total_token_count", 1000)]);
    assert_eq!(part.status, StepStatus::Cancelled);
    assert_eq!(tokens(&part), [Some(1000), None, None, None, None]);

    let tool = |version: &str, response: &str| {
        let list = [("gen_ai.tool.name", "weather".into()), ("gcp.vertex.agent.tool_response", response.into())];
        let step = facts(&adk(version, "execute_tool weather", &list));
        (step.kind, step.status, step.error.and_then(|error| error.message))
    };
    let failed = (StepKind::Tool, StepStatus::Error, Some("the tool is broken".to_owned()));
    assert_eq!(tool("", r#"{"error":"the tool is broken"}"#), failed);
    for answer in [r#"{"r":"sunny"}"#, r#"{"error":null}"#, r#"{"error":""}"#, r#"{"r":{"error":"none"}}"#] {
        assert_eq!(tool("", answer).1, StepStatus::Success, "{answer}");
    }
    // Later ones say it in the status.
    assert_eq!(tool("2.0.0", r#"{"error":"the tool is broken"}"#).1, StepStatus::Success);
}

/// ADK 0.5.0, 0.6.0, 1.1.0 and 2.2.0 for Go with Gemini, which answered with 50 tokens and thought with 30.
#[test]
fn each_adk_for_go_counts_its_output_in_its_own_way() {
    let of = |version: &str, counts: &[(&str, i64)]| tokens(&adk_call(version, "gemini-2.5-flash", "STOP", counts));
    assert_eq!(of("0.3.0", &[(INPUT, 1000), (OUTPUT, 1080)]), [Some(1000), None, None, Some(80), None]);
    assert_eq!(of("0.6.0", &[(INPUT, 1000), (OUTPUT, 50)]), [Some(1000), None, None, Some(50), None]);
    let apart = [(INPUT, 1000), (OUTPUT, 50), (CACHED, 400), ("gen_ai.usage.experimental.reasoning_tokens", 30)];
    assert_eq!(of("0.6.0", &apart), [Some(1000), Some(400), None, Some(80), Some(30)]);
    let within = [(INPUT, 1000), (OUTPUT, 80), (CACHED, 400), (THOUGHT, 30)];
    assert_eq!(of("2.0.0", &within), [Some(1000), Some(400), None, Some(80), Some(30)]);
    // A total that is none.
    assert_eq!(of("0.3.0", &[(INPUT, 1000), (OUTPUT, 0)]), [Some(1000), None, None, None, None]);
    // No other scope of this version has a total there.
    let mut record = adk("0.3.0", "generate_content", &[("gen_ai.operation.name", "generate_content".into())]);
    record.resource = Resource::default().into();
    record.span.attributes.extend(attributes(&[(INPUT, Value::Int(1000)), (OUTPUT, Value::Int(1080))]));
    assert_eq!(tokens(&facts(&record))[3], Some(1080));
}

/// ADK 0.5.0, 0.6.0 and 1.1.0 for Go: streams that broke off, and that the program left.
#[test]
fn a_stream_of_adk_for_go_without_a_reason_and_without_output_was_given_up() {
    let of = |version: &str, reason: &str, counts: &[(&str, i64)]| {
        let step = adk_call(version, "gemini-2.5-flash", reason, counts);
        (step.status, tokens(&step)[0], tokens(&step)[3])
    };
    let given_up = (StepStatus::Cancelled, Some(1000), None);
    assert_eq!(of("0.3.0", "", &[(INPUT, 1000), (OUTPUT, 1000)]), given_up);
    assert_eq!(of("0.6.0", "", &[(INPUT, 1000), (OUTPUT, 0)]), given_up);
    let apart = [(INPUT, 1000), (OUTPUT, 0), (CACHED, 0), ("gen_ai.usage.experimental.reasoning_tokens", 0)];
    assert_eq!(of("0.6.0", "", &apart), given_up);
    assert_eq!(of("2.0.0", "", &[(INPUT, 1000), (OUTPUT, 0), (CACHED, 0), (THOUGHT, 0)]), given_up);
    // A model of the program's own may have no reasons.
    assert_eq!(of("0.6.0", "", &[(INPUT, 1000), (OUTPUT, 7)]), (StepStatus::Success, Some(1000), Some(7)));
    assert_eq!(of("0.6.0", "STOP", &[(INPUT, 1000), (OUTPUT, 0)]), (StepStatus::Success, Some(1000), Some(0)));
}

/// ADK 2.2.0 for Go with its model of OpenAI's, which counted 80 tokens, 30 of them thought.
#[test]
fn adk_for_go_adds_reasoning_once_more_to_models_that_are_none_of_googles() {
    let of = |model: &str| {
        let counts = [(INPUT, 1000), (OUTPUT, 110), (CACHED, 400), (THOUGHT, 30)];
        tokens(&adk_call("2.0.0", model, "STOP", &counts))[3]
    };
    assert_eq!(of("gpt-4o-mini"), Some(80));
    assert_eq!(of("gemini-2.5-flash"), Some(110));
    // It may be Gemini, by a name of the user's.
    assert_eq!(of("projects/p/locations/l/endpoints/123"), Some(110));
    assert_eq!(of("publishers/google/models/gemini-2.5-flash"), Some(110));
}

/// ADK 2.2.0 for Go, whose messages are records of logs.
#[test]
fn contents_of_gemini_in_messages_of_adk_for_go_are_messages() {
    let said = |events: &[(&str, &str)]| {
        let mut record = adk("2.0.0", "generate_content", &[("gen_ai.operation.name", "generate_content".into())]);
        record.span.events = events.iter().map(|(name, body)| event(name, &[("body", (*body).into())])).collect();
        normalize(&mut record);
        [names::INPUT_MESSAGES, names::OUTPUT_MESSAGES].map(|key| record.span.attr_str(key).map(str::to_owned))
    };
    let [input, output] = said(&[
        ("gen_ai.system.message", r#"{"content":"be brief"}"#),
        ("gen_ai.user.message", r#"{"content":{"role":"user","parts":[{"text":"hi"}]}}"#),
        (
            "gen_ai.user.message",
            r#"{"content":{"role":"model","parts":[{"functionCall":{"args":{"city":"Rome"},"name":"weather"}}]}}"#,
        ),
        (
            "gen_ai.user.message",
            r#"{"content":{"role":"user","parts":[{"functionResponse":{"name":"weather","response":{"r":1}}}]}}"#,
        ),
        (
            "gen_ai.choice",
            r#"{"index":0,"content":{"role":"model","parts":[{"text":"so","thought":true},{"text":"sunny"}]},
                "finish_reason":"STOP"}"#,
        ),
    ]);
    let expected = [
        r#"[{"role":"system","parts":[{"type":"text","content":"be brief"}]}"#,
        r#"{"role":"user","parts":[{"type":"text","content":"hi"}]}"#,
        r#"{"role":"assistant","parts":[{"type":"tool_call","id":null,"name":"weather","arguments":{"city":"Rome"}}]}"#,
        r#"{"role":"tool","parts":[{"type":"tool_call_response","id":null,"response":{"r":1}}]}]"#,
    ];
    assert_eq!(input, Some(expected.join(",")));
    let parts = r#"[{"type":"reasoning","content":"so"},{"type":"text","content":"sunny"}]"#;
    assert_eq!(output, Some(format!(r#"[{{"role":"assistant","parts":{parts},"finish_reason":"STOP"}}]"#)));
    // What is left out is not what was said.
    let [input, output] = said(&[
        ("gen_ai.user.message", r#"{"content":"<elided>"}"#),
        ("gen_ai.choice", r#"{"index":0,"content":"<elided>","finish_reason":"STOP"}"#),
    ]);
    assert_eq!(input.as_deref(), Some(r#"[{"role":"user","parts":[]}]"#));
    assert_eq!(output.as_deref(), Some(r#"[{"role":"assistant","parts":[],"finish_reason":"STOP"}]"#));
}
