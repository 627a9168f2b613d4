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
    // With the words of Go's client for HTTP behind, and of gRPC before it.
    let url = "Post \"http://127.0.0.1/v1\": ";
    let limit = format!("{url}context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    assert_eq!(of(Some("*url.Error"), &limit), StepStatus::Timeout);
    let limit =
        "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(of(Some("*fmt.wrapError"), limit), StepStatus::Timeout);
    let reading = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(of(Some("*http.timeoutError"), reading), StepStatus::Timeout);
    assert_eq!(of(Some("*status.Error"), "rpc error: code = Canceled desc = context canceled"), StepStatus::Cancelled);
    let late = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    assert_eq!(of(Some("*fmt.wrapError"), late), StepStatus::Timeout);
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
    for answer in [r#"{"r":"sunny"}"#, r#"{"error":null}"#, r#"{"error":""}"#, r#"{"r":{"error":"none"}}"#]
        .into_iter()
        .chain([r#"{"error":false}"#, r#"{"error":0}"#, r#"{"error":[]}"#, r#"{"error":{}}"#])
    {
        assert_eq!(tool("", answer).1, StepStatus::Success, "{answer}");
    }
    let object = r#"{"error":{"code":7}}"#;
    assert_eq!(tool("", object), (StepKind::Tool, StepStatus::Error, Some(r#"{"code":7}"#.to_owned())));
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

/// ADK 0.5.0, 0.6.0 and 1.1.0 for Go: streams that broke off, and that the program left, say the same as an answer without a reason.
#[test]
fn what_came_out_of_a_call_of_adk_for_go_without_a_reason_and_without_output_is_not_known() {
    let of = |version: &str, reason: &str, counts: &[(&str, i64)]| {
        let step = adk_call(version, "gemini-2.5-flash", reason, counts);
        (step.status, step.tokens.and_then(|tokens| tokens.prompt), step.tokens.and_then(|tokens| tokens.completion))
    };
    let unknown = (StepStatus::Success, Some(1000), None);
    assert_eq!(of("0.3.0", "", &[(INPUT, 1000), (OUTPUT, 1000)]), unknown);
    assert_eq!(of("0.6.0", "", &[(INPUT, 1000), (OUTPUT, 0)]), unknown);
    let apart = [(INPUT, 1000), (OUTPUT, 0), (CACHED, 0), ("gen_ai.usage.experimental.reasoning_tokens", 0)];
    assert_eq!(of("0.6.0", "", &apart), unknown);
    assert_eq!(of("2.0.0", "", &[(INPUT, 1000), (OUTPUT, 0), (CACHED, 0), (THOUGHT, 0)]), unknown);
    // A model of the program's own may have no reasons, and no counts.
    assert_eq!(of("0.6.0", "", &[(INPUT, 1000), (OUTPUT, 7)]), (StepStatus::Success, Some(1000), Some(7)));
    assert_eq!(of("0.6.0", "", &[(INPUT, 0), (OUTPUT, 0)]), (StepStatus::Success, None, None));
    assert_eq!(of("0.6.0", "", &[]), (StepStatus::Success, None, None));
    assert_eq!(of("0.6.0", "STOP", &[(INPUT, 1000), (OUTPUT, 0)]), (StepStatus::Success, Some(1000), Some(0)));
}

/// `pydantic-ai` 1.5 and OpenTelemetry's Bedrock: no stream is told by an empty reason.
#[test]
fn an_empty_reason_of_another_stack_is_no_stream() {
    for scope in ["pydantic-ai", "opentelemetry.instrumentation.bedrock", "trpc.agent.go", "strands.telemetry.tracer"] {
        for counts in [&[][..], &[(INPUT, Value::Int(100))][..]] {
            let mut list = vec![
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.provider.name", "openai".into()),
                ("gen_ai.request.model", "gpt-4o".into()),
                ("gen_ai.response.finish_reasons", list_of(&[""])),
            ];
            list.extend_from_slice(counts);
            assert_eq!(told(scope, "chat gpt-4o", &list).status, StepStatus::Success, "{scope}");
        }
    }
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

/// A list of texts.
fn list_of(words: &[&str]) -> Value {
    Value::Array(ArrayValue { values: words.iter().map(|word| Value::from(*word).into()).collect() })
}

/// A call by trpc-agent-go 1.10.0: model, and what else stands there.
fn trpc_call(model: &str, more: &[(&str, Value)]) -> StepFacts {
    let mut list = vec![
        ("gen_ai.system", "trpc.go.agent".into()),
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.request.model", model.into()),
        ("gen_ai.request.is_stream", Value::Bool(true)),
        ("gen_ai.response.id", "resp-1".into()),
    ];
    list.extend(more.iter().map(|(key, value)| (*key, value.clone())));
    told("trpc.agent.go", "chat", &list)
}

/// trpc-agent-go 1.10.0, by its own exporter and by that for Langfuse.
#[test]
fn trpc_agent_go_counts_a_cache_as_the_provider_does() {
    let cached = |name: &'static str, count: i64| (name, Value::Int(count));
    let own = |counts: &[(&str, Value)]| {
        let response = r#"{"id":"resp-1","usage":{"prompt_tokens":1000,"completion_tokens":50,
            "prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":30}}}"#;
        let mut list = vec![(OUTPUT, Value::Int(50)), ("trpc.go.agent.llm_response", response.into())];
        list.extend_from_slice(counts);
        tokens(&trpc_call("gpt-4o-mini", &list))
    };
    let of_openai = [(INPUT, Value::Int(1000)), cached("gen_ai.usage.input_tokens.cached", 400)];
    assert_eq!(own(&of_openai), [Some(1000), Some(400), None, Some(50), Some(30)]);
    let of_anthropic = [
        (INPUT, Value::Int(530)),
        cached("gen_ai.usage.input_tokens.cached", 400),
        cached("gen_ai.usage.input_tokens.cache_read", 400),
        cached("gen_ai.usage.input_tokens.cache_creation", 70),
    ];
    assert_eq!(own(&of_anthropic), [Some(1000), Some(400), Some(70), Some(50), Some(30)]);
    let written = [(INPUT, Value::Int(930)), cached("gen_ai.usage.input_tokens.cache_creation", 70)];
    assert_eq!(own(&written), [Some(1000), None, Some(70), Some(50), Some(30)]);

    let by_langfuse = |counts: &str| {
        let list =
            [("langfuse.observation.type", "generation".into()), ("langfuse.observation.usage_details", counts.into())];
        tokens(&trpc_call("gpt-4o-mini", &list))
    };
    let of_openai = r#"{"input":1000,"output":50,"input_cached":400}"#;
    assert_eq!(by_langfuse(of_openai), [Some(1000), Some(400), None, Some(50), None]);
    let of_anthropic =
        r#"{"input":530,"output":50,"input_cached":400,"input_cache_read":400,"input_cache_creation":70}"#;
    assert_eq!(by_langfuse(of_anthropic), [Some(1000), Some(400), Some(70), Some(50), None]);
    assert_eq!(by_langfuse(r#"{"input":1000,"output":50}"#), [Some(1000), None, None, Some(50), None]);

    // The sum of an agent's calls is without what these read.
    let agent = |model: &str| {
        let list = [
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.response.model", model.into()),
            (INPUT, Value::Int(1170)),
            (OUTPUT, Value::Int(101)),
        ];
        let agent = told("trpc.agent.go", "invoke_agent asker", &list);
        (tokens(&agent)[0], tokens(&agent)[3])
    };
    assert_eq!(agent("claude-sonnet-4-5"), (None, None));
    assert_eq!(agent("gpt-4o-mini"), (Some(1170), Some(101)));
}

/// trpc-agent-go 1.10.0.
#[test]
fn a_stream_of_trpc_agent_go_without_a_reason_and_without_counts_was_given_up() {
    let of = |reason: &str, output: i64, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.response.finish_reasons", list_of(&[reason])),
            (INPUT, Value::Int(if output > 0 { 1000 } else { 0 })),
            (OUTPUT, Value::Int(output)),
        ];
        list.extend_from_slice(more);
        let step = trpc_call("gpt-4o-mini", &list);
        assert_eq!((step.provider, step.kind), (None, StepKind::Llm));
        (step.status, step.tokens.is_some())
    };
    assert_eq!(of("", 0, &[]), (StepStatus::Cancelled, false));
    let words =
        ("gen_ai.output.messages.otel", r#"[{"role":"assistant","parts":[{"type":"text","content":"a"}]}]"#.into());
    let raw = ("gen_ai.output.messages", r#"[{"index":0,"message":{"role":""},"delta":{"content":"a"}}]"#.into());
    let response = |part: bool| {
        let response =
            format!(r#"{{"id":"resp-1","usage":{{"prompt_tokens":0}},"done":{},"is_partial":{part}}}"#, !part);
        ("trpc.go.agent.llm_response", Value::from(response))
    };
    assert_eq!(of("", 0, &[words.clone(), raw.clone(), response(true)]), (StepStatus::Cancelled, false));
    // An agent has no reason for an end.
    let agent = [
        ("gen_ai.operation.name", "invoke_agent".into()),
        ("gen_ai.request.is_stream", Value::Bool(true)),
        ("gen_ai.response.id", "resp-1".into()),
    ];
    assert_eq!(told("trpc.agent.go", "invoke_agent asker", &agent).status, StepStatus::Success);
    // An answer may have neither, of a server that tells neither.
    assert_eq!(of("", 0, &[words.clone(), raw.clone(), response(false)]), (StepStatus::Success, false));
    assert_eq!(of("", 0, &[raw, words]), (StepStatus::Success, false));
    // Anthropic's never have a reason.
    assert_eq!(of("", 50, &[]), (StepStatus::Success, true));
    // Not all servers count.
    assert_eq!(of("stop", 0, &[]), (StepStatus::Success, false));
    let failed = [("error.type", "stream_error".into()), ("error.message", "unexpected EOF".into())];
    assert_eq!(of("", 0, &failed), (StepStatus::Error, false));
    assert_eq!(of("stop", 0, &[("gen_ai.request.is_stream", Value::Bool(false))]), (StepStatus::Success, false));
}

/// trpc-agent-go 1.10.0, by its own exporter and by that for Langfuse.
#[test]
fn what_trpc_agent_go_wraps_comes_out_of_it() {
    let answer = r#"{"id":"","object":"tool.response","choices":[{"index":0,"message":{"role":"tool",
        "content":"{\"r\":\"sunny\"}","tool_id":"call_1","tool_name":"weather"},"delta":{"role":""}}]}"#;
    let tool = |key: &str, name: &str| {
        let mut list = vec![
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.name", name.into()),
            ("trpc.go.agent.runner.user_id", "user-7".into()),
            (key, answer.into()),
        ];
        if key.starts_with("langfuse.") {
            list.push(("langfuse.observation.type", "tool".into()));
        }
        told("trpc.agent.go", "execute_tool", &list)
    };
    for key in ["gen_ai.tool.call.result", "langfuse.observation.output"] {
        let weather = tool(key, "weather");
        assert_eq!((weather.kind, weather.user_id.as_deref()), (StepKind::Tool, Some("user-7")));
        let result = weather.content.output.as_ref().map(|text| text.as_str());
        assert_eq!(result, Some(r#"{"r":"sunny"}"#), "{key}");
        assert_eq!(tool(key, "(merged tools)").kind, StepKind::Task);
        assert_eq!(tool(key, "transfer_to_agent").kind, StepKind::Task);
    }

    let own = r#"[{"index":0,"message":{"role":"assistant","content":"sunny"},"delta":{"role":""}}]"#;
    let standard = r#"[{"role":"assistant","parts":[{"type":"text","content":"sunny"}]}]"#;
    for operation in ["chat", "invoke_agent"] {
        let list = [
            ("gen_ai.operation.name", Value::from(operation)),
            ("gen_ai.output.messages", own.into()),
            ("gen_ai.output.messages.otel", standard.into()),
        ];
        let step = told("trpc.agent.go", operation, &list);
        assert_eq!(step.content.output.as_ref().map(|text| text.as_str()), Some(standard), "{operation}");
        let before = told("trpc.agent.go", operation, &list[..2]);
        assert_eq!(before.content.output.as_ref().map(|text| text.as_str()), Some(own), "{operation}");
    }

    let node = told(
        "trpc.agent.go",
        "workflow execute_function_node ask",
        &[
            ("gen_ai.operation.name", "workflow".into()),
            ("gen_ai.workflow.name", "execute_function_node ask".into()),
            ("gen_ai.workflow.request", r#"{"user_input":"hi"}"#.into()),
            ("gen_ai.workflow.response", r#"{"last_response":"hello"}"#.into()),
        ],
    );
    assert_eq!(node.kind, StepKind::Task);
    assert_eq!(node.content.input.as_ref().map(|text| text.as_str()), Some(r#"{"user_input":"hi"}"#));
    assert_eq!(node.content.output.as_ref().map(|text| text.as_str()), Some(r#"{"last_response":"hello"}"#));
}

/// agent-sdk-go 0.2.20 of Ingenimax, by its exporters for OpenTelemetry and Langfuse; the counts are by its code.
#[test]
fn agents_and_calls_of_agent_sdk_go_are_known_by_their_names() {
    let of = |name: &str, list: &[(&str, Value)]| told("agent-sdk-go", name, list);
    let call = [("prompt.length", "19".into()), ("model", "gpt-4o-mini".into()), ("duration_ms", "44".into())];
    for start in ["", "github.com/Ingenimax/agent-sdk-go/"] {
        for name in ["agent.Run", "agent.RunStream"] {
            let agent = of(&format!("{start}{name}"), &[("org_id", "org-1".into())]);
            assert_eq!((agent.kind, agent.is_genai), (StepKind::Agent, true));
        }
        for name in ["llm.generate", "llm.generate_with_tools", "llm.generate_with_tools_stream"] {
            let call = of(&format!("{start}{name}"), &call);
            assert_eq!((call.kind, call.request_model.as_deref()), (StepKind::Llm, Some("gpt-4o-mini")));
            assert_eq!((call.status, call.tokens), (StepStatus::Success, None));
        }
        let memory = of(&format!("{start}memory.get_messages"), &[("messages.count", "2".into())]);
        assert_eq!(memory.kind, StepKind::Task);
    }
    let named = of("agent.Run", &[("langfuse.observation.metadata.agent_name", "asker".into())]);
    assert_eq!(named.agent_name.as_deref(), Some("asker"));
    let counts = [
        ("model", "gpt-4o-mini".into()),
        ("usage.input_tokens", "1000".into()),
        ("usage.output_tokens", "50".into()),
        ("usage.total_tokens", "1050".into()),
        ("usage.reasoning_tokens", "30".into()),
    ];
    assert_eq!(tokens(&of("llm.generate_detailed", &counts)), [Some(1000), None, None, Some(50), Some(30)]);

    // A failure stands in an event alone.
    let mut record = ended(&call);
    (record.span.name, record.scope.name) = ("llm.generate".to_owned(), "agent-sdk-go".to_owned());
    record.span.events = vec![event("exception", &[("exception.message", "500 Internal Server Error".into())])];
    assert_eq!(facts(&record).status, StepStatus::Error);
}
