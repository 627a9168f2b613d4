//! Versions of before of stacks that other tests have as they are now.

use super::*;

#[test]
fn strands_of_before_has_no_operations_and_names_its_agent_on_every_call() {
    let of = |name: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.event.start_time", "2025-06-01T00:00:00+00:00".into()),
            ("gen_ai.system", "strands-agents".into()),
        ];
        list.extend(more.iter().map(|(key, value)| (*key, value.clone())));
        told("strands-agents", name, &list)
    };
    let named = [("agent.name", "planner".into()), ("gen_ai.agent.name", "planner".into())];
    let call = [named[0].clone(), named[1].clone(), ("gen_ai.request.model", "gpt-4o-mini".into())];
    let tool = [("tool.name", "get_weather".into()), ("tool.id", "call_1".into()), ("tool.status", "error".into())];
    assert_eq!(of("planner", &named).kind, StepKind::Agent);
    assert_eq!(of("Model invoke", &call).kind, StepKind::Llm);
    assert_eq!(of("Cycle 1", &[("event_loop.cycle_id", "1".into())]).kind, StepKind::Task);
    let tool = of("Tool: get_weather", &tool);
    assert_eq!((tool.kind, tool.status), (StepKind::Tool, StepStatus::Error));
    assert_eq!((tool.tool_name.as_deref(), tool.tool_call_id.as_deref()), (Some("get_weather"), Some("call_1")));
    // A program may name its agent on all spans itself.
    let chat = [named[0].clone(), ("gen_ai.operation.name", "chat".into())];
    assert_eq!(of("chat", &chat).kind, StepKind::Llm);
}

#[test]
fn adk_of_before_has_the_names_of_agents_and_tools_in_brackets() {
    let of = |name: &str| {
        let step = told("gcp.vertex.agent", name, &[]);
        (step.kind, step.agent_name.or(step.tool_name))
    };
    assert_eq!(of("agent_run [planner]"), (StepKind::Agent, Some("planner".to_owned())));
    assert_eq!(of("tool_call [get_weather]"), (StepKind::Tool, Some("get_weather".to_owned())));
    assert_eq!(of("tool_response [get_weather]").0, StepKind::Task);
    assert_eq!(of("tool_call [transfer_to_agent]").0, StepKind::Task);
}

/// `google-adk` 1.16 with a limit of calls.
#[test]
fn a_call_that_the_limit_of_a_run_refused_is_none() {
    let of = |message: &str| {
        let mut record = ended(&[]);
        record.scope.name = "gcp.vertex.agent".to_owned();
        record.span.name = "call_llm".to_owned();
        record.span.status = Some(Status { code: STATUS_ERROR, ..Status::default() });
        record.span.events = vec![event("exception", &[("exception.message", message.into())])];
        let step = facts(&record);
        (step.kind, step.status)
    };
    assert_eq!(of("Max number of llm calls limit of `2` exceeded"), (StepKind::Task, StepStatus::Error));
    assert_eq!(of("503 UNAVAILABLE"), (StepKind::Llm, StepStatus::Error));
}

/// `google-adk` 1.6.1 and 1.8, run against a scripted server.
#[test]
fn adk_of_before_has_the_total_in_the_place_of_the_output() {
    let call = |input: i64, total: i64, usage: &str| {
        let response = format!(r#"{{"content":{{"role":"model"}},"usage_metadata":{{{usage}}}}}"#);
        told(
            "gcp.vertex.agent",
            "call_llm",
            &[
                ("gen_ai.system", "gcp.vertex.agent".into()),
                ("gen_ai.request.model", "gemini-2.5-flash".into()),
                ("gcp.vertex.agent.llm_response", response.into()),
                ("gen_ai.usage.input_tokens", Value::Int(input)),
                ("gen_ai.usage.output_tokens", Value::Int(total)),
            ],
        )
    };
    let plain = r#""candidates_token_count":26,"prompt_token_count":274,"total_token_count":300"#;
    assert_eq!(tokens(&call(274, 300, plain)), [Some(274), None, None, Some(26), None]);
    let thought = r#""cached_content_token_count":128,"candidates_token_count":46,"prompt_token_count":607,
        "thoughts_token_count":7,"total_token_count":660"#;
    assert_eq!(tokens(&call(607, 660, thought)), [Some(607), Some(128), None, Some(53), Some(7)]);
    let part = r#""prompt_token_count":792,"total_token_count":792"#;
    assert_eq!(tokens(&call(792, 792, part)), [Some(792), None, None, None, None]);
    // An output that is no total of what stands there is left as it is.
    assert_eq!(tokens(&call(274, 310, plain)), [Some(274), None, None, Some(310), None]);
}

/// `google-adk` 1.20 with `openinference-instrumentation-google-adk` 0.1.7, run against a scripted server.
#[test]
fn adk_s_calls_by_openinference_are_calls_without_a_word_and_name_google_for_models_of_others() {
    let of = |list: &[(&str, Value)]| told("openinference.instrumentation.google_adk", "call_llm", list);
    let failed = of(&[("session.id", "sess-1".into()), ("user.id", "u-1".into())]);
    assert_eq!(failed.kind, StepKind::Llm);
    let call = |model: &str| {
        let call = of(&[
            ("gen_ai.system", "gcp.vertex.agent".into()),
            ("gen_ai.request.model", model.into()),
            ("llm.provider", "google".into()),
            ("llm.model_name", model.into()),
            ("llm.token_count.total", Value::Int(2180)),
            ("llm.token_count.prompt", Value::Int(2013)),
            ("llm.token_count.completion", Value::Int(167)),
            ("openinference.span.kind", "LLM".into()),
        ]);
        (call.kind, call.provider)
    };
    assert_eq!(call("openai/gpt-4o-mini"), (StepKind::Llm, Some("openai".to_owned())));
    assert_eq!(call("gemini-2.5-flash"), (StepKind::Llm, Some("gcp.gen_ai".to_owned())));
    assert_eq!(call("publishers/google/models/gemini-2.5-flash").1.as_deref(), Some("gcp.gen_ai"));
}

/// `agno` 1.7 with `openinference-instrumentation-agno` 0.1.8, run against a scripted server.
#[test]
fn agno_of_before_has_the_provider_s_own_answer() {
    let call = |name: &str, provider: &str, output: &str| {
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.provider", provider.into()),
            ("output.value", output.into()),
        ];
        tokens(&told("openinference.instrumentation.agno", name, &list))
    };
    let chat = r#"{"id":"chatcmpl-2","choices":[],"object":"chat.completion","usage":{"completion_tokens":26,"prompt_tokens":274,
        "total_tokens":300,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens_details":{"cached_tokens":0}}}"#;
    assert_eq!(call("OpenAIChat.invoke", "OpenAI", chat), [Some(274), Some(0), None, Some(26), Some(0)]);
    let response = r#"{"id":"resp_51","object":"response","output":[],"usage":{"input_tokens":2087,"input_tokens_details":{"cached_tokens":128},
        "output_tokens":173,"output_tokens_details":{"reasoning_tokens":7},"total_tokens":2260}}"#;
    assert_eq!(call("OpenAIResponses.invoke", "OpenAI", response), [Some(2087), Some(128), None, Some(173), Some(7)]);
    let message = r#"{"id":"msg_80","content":[],"role":"assistant","type":"message","usage":{"cache_creation_input_tokens":64,
        "cache_read_input_tokens":128,"input_tokens":3160,"output_tokens":260,"server_tool_use":null}}"#;
    assert_eq!(call("Claude.invoke", "Anthropic", message), [Some(3352), Some(128), Some(64), Some(260), None]);
    // Of streams, the texts of what came.
    let chunks = r#"["{\"object\":\"chat.completion.chunk\",\"usage\":null}", "{\"object\":\"chat.completion.chunk\",\"usage\":{\"completion_tokens\":74,\"prompt_tokens\":866,\"total_tokens\":940,\"prompt_tokens_details\":{\"cached_tokens\":128}}}"]"#;
    assert_eq!(call("OpenAIChat.invoke_stream", "OpenAI", chunks), [Some(866), Some(128), None, Some(74), None]);
    let events = r#"["{\"message\":{\"type\":\"message\",\"usage\":{\"input_tokens\":3560,\"output_tokens\":1}},\"type\":\"message_start\"}", "{\"type\":\"message_delta\",\"usage\":{\"cache_creation_input_tokens\":64,\"cache_read_input_tokens\":128,\"input_tokens\":3560,\"output_tokens\":308}}", "{\"type\":\"message_stop\",\"message\":{\"usage\":{\"cache_creation_input_tokens\":64,\"cache_read_input_tokens\":128,\"input_tokens\":3560,\"output_tokens\":308}}}"]"#;
    assert_eq!(call("Claude.invoke_stream", "Anthropic", events), [Some(3752), Some(128), Some(64), Some(308), None]);
}

/// `anthropic-haystack` 4.6 and 5.9, and the code of 5.10, with `haystack-ai` 2.21 to 2.31; `openinference-instrumentation-haystack` 0.1.29.
#[test]
fn haystack_of_before_leaves_anthropic_s_cached_tokens_out() {
    let usage = |cached: u64| {
        serde_json::json!({"cache_creation_input_tokens": cached / 2, "cache_read_input_tokens": cached,
            "prompt_tokens": 1858, "completion_tokens": 170})
    };
    let call = |of: &str, messages: &str| {
        let spec = serde_json::json!({"messages": {"type": messages, "senders": []}}).to_string();
        let output = serde_json::json!({"replies": [{"meta": {"usage": usage(128)}}]}).to_string();
        let list = [
            ("haystack.component.type", of.into()),
            ("haystack.component.input_spec", spec.into()),
            ("haystack.component.output", output.into()),
        ];
        tokens(&told("haystack", "haystack.component.run", &list))
    };
    let before = "list[haystack.dataclasses.chat_message.ChatMessage]";
    let later = "list[haystack.dataclasses.chat_message.ChatMessage] | str";
    assert_eq!(call("AnthropicChatGenerator", before), [Some(2050), Some(128), Some(64), Some(170), None]);
    assert_eq!(call("AnthropicChatGenerator", later), [Some(1858), Some(128), Some(64), Some(170), None]);
    assert_eq!(call("OpenAIChatGenerator", before), [Some(1858), Some(128), Some(64), Some(170), None]);
    // OpenInference does not have what is asked for.
    let call = |cached| {
        let output = format!(r#"{{"replies": ["ChatMessage(_name=None, _meta={{'usage': {}}})"]}}"#, usage(cached))
            .replace('"', "'");
        let output = output.replacen("['", "[\"", 1).replacen("']}", "\"]}", 1).replacen("'replies'", "\"replies\"", 1);
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(1858)),
            ("llm.token_count.completion", Value::Int(170)),
            ("output.value", output.into()),
        ];
        tokens(&told("openinference.instrumentation.haystack", "AnthropicChatGenerator.run", &list))
    };
    assert_eq!(call(128), [None, Some(128), Some(64), Some(170), None]);
    assert_eq!(call(0), [Some(1858), Some(0), Some(0), Some(170), None]);
}

/// `pydantic_ai` 1.99, `logfire` 4.33 and 5.4, and `openinference-instrumentation-anthropic` 1.0 and 3.1, run against a scripted server.
#[test]
fn the_one_token_that_a_message_of_anthropic_s_begins_with_is_no_count_of_one_that_was_given_up() {
    let usage = |output: i64| {
        [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.usage.input_tokens", Value::Int(1643)),
            ("gen_ai.usage.output_tokens", Value::Int(output)),
        ]
    };
    let of = |scope: &str, output: i64, more: &[(&str, Value)]| {
        let call = told(scope, "chat claude-sonnet-4-5", &[&usage(output), more].concat());
        (call.status, tokens(&call)[3])
    };
    let begun = (StepStatus::Cancelled, None);
    let whole = |output| (StepStatus::Success, Some(output));
    let message = |more: &str| {
        format!(r#"[{{"role": "assistant", "parts": [{{"type": "text", "content": "The answer"}}]{more}}}]"#)
    };
    let id = ("gen_ai.response.id", Value::from("msg_179"));
    let open = [id.clone(), ("gen_ai.output.messages", message("").into())];
    let ended = [id.clone(), ("gen_ai.output.messages", message(r#", "finish_reason": "stop""#).into())];
    assert_eq!(of("pydantic-ai", 1, &open), begun);
    assert_eq!(of("pydantic-ai", 1, &ended), whole(1));
    assert_eq!(of("pydantic-ai", 308, &open), whole(308));
    let parts = |parts: u64| {
        let response = serde_json::json!({"combined_chunk_content": "The answer of", "chunk_count": parts});
        [("response_data", Value::from(response.to_string())), ("logfire.span_type", "log".into())]
    };
    assert_eq!(of("logfire.anthropic", 1, &parts(3)), begun);
    let by_openinference = |more: &[(&str, Value)]| {
        let output =
            [id.clone(), ("openinference.span.kind", "LLM".into()), ("output.value", r#"{"stop_reason":null}"#.into())];
        let list = [&usage(1)[..], &output, more].concat();
        let call = told("openinference.instrumentation.anthropic", "messages.stream", &list);
        (call.status, tokens(&call)[3])
    };
    assert_eq!(by_openinference(&open[1..]), begun);
    let reason = ("llm.finish_reason", Value::from("end_turn"));
    assert_eq!(by_openinference(&[open[1].clone(), reason]), whole(1));
    assert_eq!(of("logfire.anthropic", 1, &parts(1)), whole(1));
    assert_eq!(of("logfire.anthropic", 152, &parts(7)), whole(152));
    // Since 5.4 a report has the id and, where the end was read, the reason; before it may have neither.
    let report = |scope: &str, more: &[(&str, Value)]| {
        let schema = [("logfire.span_type", "log".into()), ("logfire.json_schema", "{}".into())];
        let list = [&schema[..], more].concat();
        let call = told(scope, "streaming response from {request_data[model]!r} took {duration:.2f}s", &list);
        (call.status, tokens(&call)[3])
    };
    let by_anthropic = |more: &[(&str, Value)]| report("logfire.anthropic", &[&usage(1)[..], more].concat());
    assert_eq!(by_anthropic(&open), begun);
    assert_eq!(by_anthropic(&open[1..]), whole(1));
    let reasons = ("gen_ai.response.finish_reasons", Value::from("end_turn"));
    assert_eq!(by_anthropic(&[&open[..], std::slice::from_ref(&reasons)].concat()), whole(1));
    let broken = ("error.type", Value::from("RemoteProtocolError"));
    assert_eq!(by_anthropic(&[&open[..], &[broken]].concat()), (StepStatus::Error, None));
    let chat = [("gen_ai.operation.name", "chat".into()), ("gen_ai.provider.name", "openai".into())];
    let by_openai = |more: &[(&str, Value)]| report("logfire.openai", &[&chat[..], more].concat()).0;
    assert_eq!(by_openai(&open), StepStatus::Cancelled);
    assert_eq!(by_openai(&open[1..]), StepStatus::Success);
    assert_eq!(by_openai(&[&open[..], &[reasons]].concat()), StepStatus::Success);
}

#[test]
fn a_function_of_semantic_kernel_s_is_a_tool_where_it_has_a_plugin() {
    let of = |name: &str| told("semantic_kernel.functions.kernel_function", name, &[]);
    let tool = of("Weather-get_weather");
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("Weather-get_weather")));
    assert_eq!(of("xQzWv").kind, StepKind::Task);
    // 1.45 says of each that it is a tool.
    let of = |name: &str, more: &[(&str, Value)]| {
        let list = [("gen_ai.operation.name", Value::from("execute_tool")), ("gen_ai.tool.name", name.into())];
        told("semantic_kernel.functions.kernel_function", &format!("execute_tool {name}"), &[&list, more].concat()).kind
    };
    assert_eq!((of("Weather-get_weather", &[]), of("EUPgRSFkSPqfjeWi", &[])), (StepKind::Tool, StepKind::Task));
    assert_eq!(of("get_weather", &[("gen_ai.tool.call.id", "call_1".into())]), StepKind::Tool);
}

#[test]
fn mlflow_of_before_has_langchain_s_models_among_what_was_asked_and_answered() {
    let answer = r#"{"generations": [[{"message": {"response_metadata": {"model_name": "claude-sonnet-4-5-20250929",
        "usage": {"cache_creation_input_tokens": 64, "cache_read_input_tokens": 128, "input_tokens": 45, "output_tokens": 23}}}}]]}"#;
    let call = told(
        "mlflow.tracing.provider",
        "ChatAnthropic",
        &[
            ("mlflow.spanType", "\"CHAT_MODEL\"".into()),
            ("invocation_params", r#"{"model": "claude-sonnet-4-5"}"#.into()),
            ("metadata", r#"{"ls_provider": "anthropic", "ls_model_name": "claude-sonnet-4-5"}"#.into()),
            ("mlflow.spanOutputs", answer.into()),
        ],
    );
    assert_eq!(call.provider.as_deref(), Some("anthropic"));
    assert_eq!(call.request_model.as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(call.response_model.as_deref(), Some("claude-sonnet-4-5-20250929"));
    assert_eq!(tokens(&call), [Some(237), Some(128), Some(64), Some(23), None]);
    let guardrail = told(
        "mlflow.tracing.provider",
        "ig",
        &[("mlflow.spanType", "\"TOOL\"".into()), ("mlflow.spanOutputs", r#"{"triggered": true}"#.into())],
    );
    assert_eq!(guardrail.kind, StepKind::Guardrail);
    let tool = told(
        "mlflow.tracing.provider",
        "motion",
        &[("mlflow.spanType", "\"TOOL\"".into()), ("mlflow.spanOutputs", r#"{"triggered": true, "zone": 1}"#.into())],
    );
    assert_eq!(tool.kind, StepKind::Tool);
    let agent = told(
        "mlflow.tracing.provider",
        "Agent.run_sync",
        &[("mlflow.spanType", "\"AGENT\"".into()), ("_name", "\"planner\"".into())],
    );
    assert_eq!(agent.agent_name.as_deref(), Some("planner"));
}

#[test]
fn langsmith_of_before_has_langchain_s_counts_in_the_answer_alone() {
    let answer = r#"{"generations":[[{"message":{"kwargs":{"usage_metadata":{"input_tokens":237,"output_tokens":23,"total_tokens":260,
        "input_token_details":{"cache_read":128,"cache_creation":64},"output_token_details":{"reasoning":7}}}}}]]}"#;
    let call = told(
        "langsmith",
        "ChatAnthropic",
        &[
            ("langsmith.span.kind", "llm".into()),
            ("gen_ai.usage.input_tokens", Value::Int(237)),
            ("gen_ai.usage.output_tokens", Value::Int(23)),
            ("gen_ai.completion", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(237), Some(128), Some(64), Some(23), Some(7)]);
    let class = |message: &str| {
        let mut record = ended(&[("langsmith.span.kind", "tool".into())]);
        record.scope.name = "langsmith".to_owned();
        let attributes = [("exception.type", "Exception"), ("exception.message", message)];
        let attributes =
            attributes.map(|(key, text)| KeyValue { key: key.to_owned(), value: Some(Value::from(text).into()) });
        let event = SpanEvent { name: "exception".to_owned(), attributes: attributes.into(), ..SpanEvent::default() };
        record.span.events = vec![event];
        facts(&record).error.and_then(|error| error.kind)
    };
    assert_eq!(class("RuntimeError: station is down").as_deref(), Some("RuntimeError"));
    assert_eq!(class("https://api.openai.com failed").as_deref(), Some("Exception"));
}

#[test]
fn litellm_s_callbacks_have_what_the_provider_reported_among_the_metadata() {
    let call = told(
        "litellm",
        "litellm_request",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.model_name", "gpt-4o-mini".into()),
            ("llm.response.model", "gpt-4o-mini-2024-07-18".into()),
            ("llm.provider", "openai".into()),
            ("llm.token_count.prompt", Value::Int(237)),
            ("llm.token_count.completion", Value::Int(23)),
            (
                "metadata",
                r#"{"usage_object": {"prompt_tokens": 237, "completion_tokens": 23, "total_tokens": 260,
                    "prompt_tokens_details": {"cached_tokens": 128}, "completion_tokens_details": {"reasoning_tokens": 7}}}"#
                    .into(),
            ),
        ],
    );
    assert_eq!(call.response_model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
    assert_eq!(tokens(&call), [Some(237), Some(128), None, Some(23), Some(7)]);
    // That for Langfuse has the prompt under its name alone (1.81).
    let mut said = ended(&[
        ("openinference.span.kind", "LLM".into()),
        ("llm.output_messages.0.message.role", "assistant".into()),
        ("llm.output_messages.0.message.content", "Yes.".into()),
        ("langfuse.observation.input", r#"[{"role": "user", "content": "Well?"}]"#.into()),
    ]);
    said.scope.name = "litellm".to_owned();
    normalize(&mut said);
    let [asked, answered] = [names::INPUT_MESSAGES, names::OUTPUT_MESSAGES].map(|key| said.span.attr_str(key));
    assert_eq!(asked, Some(r#"[{"role": "user", "content": "Well?"}]"#));
    assert_eq!(answered, Some(r#"[{"role":"assistant","parts":[{"type":"text","content":"Yes."}]}]"#));
    let embedding = told(
        "litellm",
        "litellm_request",
        &[("openinference.span.kind", "LLM".into()), ("llm.request.type", "aembedding".into())],
    );
    assert_eq!(embedding.kind, StepKind::Embedding);
}

#[test]
fn pydantic_ai_of_before_has_messages_as_a_list_of_events() {
    let chat = |events: &str| {
        let mut record = ended(&[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("events", events.into()),
        ]);
        record.scope.name = "pydantic-ai".to_owned();
        let facts = facts(&record);
        [facts.content.input, facts.content.output].map(|side| side.map(|side| side.value().to_string()))
    };
    let asked = r#"{"event.name": "gen_ai.system.message", "role": "system", "content": "Be brief."},
        {"event.name": "gen_ai.user.message", "role": "user", "content": "weather?"}"#;
    let choice = r#"{"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "sunny"}}"#;
    let said = r#"{"event.name": "gen_ai.assistant.message", "role": "assistant", "content": "sunny"}"#;
    let input = r#"[{"role":"system","parts":[{"type":"text","content":"Be brief."}]},{"role":"user","parts":[{"type":"text","content":"weather?"}]}]"#;
    let output = r#"[{"role":"assistant","parts":[{"type":"text","content":"sunny"}]}]"#;
    let expected = [Some(input.to_owned()), Some(output.to_owned())];
    assert_eq!(chat(&format!("[{asked}, {choice}]")), expected);
    // Logfire's, of OpenAI's responses.
    assert_eq!(chat(&format!("[{asked}, {said}]")), expected);
    assert_eq!(chat("no list"), [None, None]);
}

#[test]
fn what_was_raised_says_how_a_call_without_an_answer_ended() {
    let call = |class: &str| {
        let mut record = ended(&[("openinference.span.kind", "LLM".into()), ("llm.model_name", "gpt-4o-mini".into())]);
        record.scope.name = "openinference.instrumentation.agno".to_owned();
        record.span.events = vec![SpanEvent {
            name: "exception".to_owned(),
            attributes: vec![KeyValue { key: "exception.type".to_owned(), value: Some(Value::from(class).into()) }],
            ..SpanEvent::default()
        }];
        record.span.status = Some(crate::model::otlp::Status { code: 1, message: String::new() });
        let facts = facts(&record);
        (facts.status, facts.error.and_then(|error| error.kind))
    };
    let class = "agno.exceptions.ModelProviderError";
    assert_eq!(call(class), (StepStatus::Error, Some(class.to_owned())));
    for class in ["GeneratorExit", "KeyboardInterrupt", "builtins.StopAsyncIteration"] {
        assert_eq!(call(class).0, StepStatus::Cancelled, "{class}");
    }
}

#[test]
fn agno_of_before_has_the_counts_in_what_python_prints() {
    let answer = "ModelResponse(role='assistant', content=None, response_usage=Metrics(input_tokens=274, output_tokens=26, total_tokens=300, cache_read_tokens=128, cache_write_tokens=0, reasoning_tokens=7))";
    let call = told(
        "openinference.instrumentation.agno",
        "OpenAIChat.invoke",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.model_name", "gpt-4o-mini".into()),
            ("llm.provider", "OpenAI".into()),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(274), Some(128), Some(0), Some(26), Some(7)]);
}

#[test]
fn openlit_of_before_named_langchain_in_the_place_of_the_provider_and_the_tool_in_the_operation() {
    let of = |list: &[(&str, Value)]| told("openlit.otel.tracing", "chat claude-sonnet-4-5", list);
    let call = of(&[
        ("telemetry.sdk.name", "openlit".into()),
        ("gen_ai.system", "langchain".into()),
        ("gen_ai.operation.name", "chat claude-sonnet-4-5".into()),
        ("gen_ai.request.model", "claude-sonnet-4-5".into()),
        ("gen_ai.usage.input_tokens", Value::Int(445)),
        ("gen_ai.usage.output_tokens", Value::Int(23)),
        ("gen_ai.usage.prompt_tokens_details.cache_read", Value::Int(128)),
        ("gen_ai.usage.prompt_tokens_details.cache_write", Value::Int(64)),
    ]);
    assert_eq!(tokens(&call), [Some(637), Some(128), Some(64), Some(23), None]);
    let tool = told(
        "openlit.otel.tracing",
        "tool get_weather",
        &[("gen_ai.system", "langchain".into()), ("gen_ai.operation.name", "tool get_weather".into())],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn a_call_that_failed_has_its_model_in_the_name_of_the_span_by_openlit_alone() {
    let of = |scope: &str| {
        let call = told(scope, "chat gpt-4o-mini", &[("telemetry.sdk.name", "openlit".into())]);
        (call.kind, call.request_model)
    };
    assert_eq!(of("openlit.otel.tracing"), (StepKind::Llm, Some("gpt-4o-mini".to_owned())));
    assert_eq!(of("my-app").1, None);
}

#[test]
fn a_message_of_mcp_s_is_no_agent_by_the_label_on_it() {
    let of = |list: &[(&str, Value)]| told("opentelemetry.instrumentation.mcp", "tools/list.mcp", list).kind;
    let label = ("gen_ai.agent.name", Value::from("planner"));
    assert_eq!(of(std::slice::from_ref(&label)), StepKind::Task);
    for (word, kind) in [("tool", StepKind::Tool), ("agent", StepKind::Agent), ("workflow", StepKind::Workflow)] {
        assert_eq!(of(&[label.clone(), ("traceloop.span.kind", word.into())]), kind);
    }
}

#[test]
fn a_request_that_bears_the_label_of_an_agent_is_nothing_of_genai() {
    let label = ("gen_ai.agent.name", Value::from("planner"));
    let labels = [label.clone(), ("gen_ai.agent.id", "a1".into()), ("http.method", "POST".into())];
    let request = told("opentelemetry.instrumentation.requests", "POST", &labels);
    assert!(!request.is_genai);
    assert!(told("any", "planner", &[label]).is_genai);
}

#[test]
fn bedrock_is_counted_as_it_reports_by_opentelemetry_s_own_too() {
    let call = told(
        "opentelemetry.instrumentation.genai.bedrock",
        "chat",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "aws.bedrock".into()),
            ("gen_ai.request.model", "anthropic.claude-sonnet-4-5-20250929-v1:0".into()),
            ("gen_ai.usage.input_tokens", Value::Int(1932)),
            ("gen_ai.usage.output_tokens", Value::Int(10)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(128)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(64)),
        ],
    );
    assert_eq!(tokens(&call)[0], Some(2124));
    assert_eq!(told("opentelemetry.instrumentation.bedrock", "bedrock.converse", &[]).kind, StepKind::Llm);
}

#[test]
fn a_client_of_one_provider_names_it_and_what_python_prints_of_no_user_is_none() {
    let call = told(
        "openinference.instrumentation.groq",
        "Completions",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.model_name", "llama-3.3-70b-versatile".into()),
            ("llm.invocation_parameters", r#"{"user": "<groq.Omit object at 0x7f>"}"#.into()),
        ],
    );
    assert_eq!((call.provider.as_deref(), call.user_id.as_deref()), (Some("groq"), None));
    // What a tool was given is no model, and what it said of an object is what it said.
    let said = "<error><Foo object at 0x7f> is not callable</error>";
    let tool = told(
        "any",
        "configure",
        &[
            ("openinference.span.kind", "TOOL".into()),
            ("input.value", r#"{"model": "Tesla Model 3"}"#.into()),
            ("output.value", said.into()),
        ],
    );
    assert_eq!(tool.request_model, None);
    assert_eq!(tool.content.output.map(|output| output.value()), Some(said.into()));
}

#[test]
fn other_names_for_cached_tokens_sessions_and_agents_are_read() {
    let call = told(
        "pydantic-ai",
        "chat",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.usage.input_tokens", Value::Int(237)),
            ("gen_ai.usage.details.cached_tokens", Value::Int(128)),
            ("gen_ai.usage.details.cache_creation_input_tokens", Value::Int(64)),
        ],
    );
    assert_eq!(tokens(&call)[..3], [Some(237), Some(128), Some(64)]);
    let chain = told(
        "openinference.instrumentation.langchain",
        "LangGraph",
        &[
            ("openinference.span.kind", "CHAIN".into()),
            ("session.id", "sess-1".into()),
            ("metadata", r#"{"thread_id": "t1"}"#.into()),
        ],
    );
    assert_eq!(chain.session_id.as_deref(), Some("sess-1"));
    let agent = told(
        "opentelemetry.instrumentation.crewai.instrumentation",
        "Planner.agent",
        &[("traceloop.span.kind", "agent".into()), ("crewai.agent.role", "Planner".into())],
    );
    assert_eq!(agent.agent_name.as_deref(), Some("Planner"));
}

/// By the names that Langfuse's server accepts for cached tokens, and those of spans in OpenTelemetry's conventions for GenAI.
#[test]
fn names_that_any_sender_may_use_are_read() {
    let cached = |read: &str, write: &str| {
        let step = told(
            "weather",
            "chat gpt-4o-mini",
            &[
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.usage.input_tokens", Value::Int(100)),
                ("gen_ai.usage.output_tokens", Value::Int(10)),
                (read, Value::Int(64)),
                (write, Value::Int(8)),
            ],
        );
        step.tokens.map(|tokens| (tokens.prompt, tokens.cache_read, tokens.cache_write))
    };
    let known = Some((Some(100), Some(64), Some(8)));
    let details = ("gen_ai.usage.prompt_details.cache_read", "gen_ai.usage.prompt_details.cache_write");
    assert_eq!(cached(details.0, details.1), known);
    assert_eq!(cached("gen_ai.usage.input_cached_tokens", "gen_ai.usage.input_cache_creation"), known);
    let tool = told("weather", "execute_tool get_weather", &[("gen_ai.operation.name", "execute_tool".into())]);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    let flow = told("weather", "invoke_workflow trip", &[("gen_ai.operation.name", "invoke_workflow".into())]);
    assert_eq!((flow.kind, flow.workflow_name.as_deref()), (StepKind::Workflow, Some("trip")));
    let provider = |word: &str| {
        let list = [("gen_ai.operation.name", "chat".into()), ("gen_ai.system", word.into())];
        told("weather", "chat", &list).provider
    };
    assert_eq!(provider("amazon").as_deref(), Some("aws.bedrock"));
    assert_eq!(provider("azure_ai").as_deref(), Some("azure.ai.inference"));
    let call = told(
        "langsmith",
        "ChatOpenAI",
        &[
            ("langsmith.span.kind", "llm".into()),
            ("langsmith.metadata.ls_provider", "openai".into()),
            ("langsmith.metadata.ls_model_name", "gpt-4o-mini".into()),
        ],
    );
    assert_eq!(
        (call.kind, call.provider.as_deref(), call.model()),
        (StepKind::Llm, Some("openai"), Some("gpt-4o-mini"))
    );
}

#[test]
fn what_is_a_document_by_its_name_is_the_text_that_it_holds() {
    let output = |key: &str, value: &str, more: &[(&str, Value)]| {
        let mut list = vec![("gen_ai.operation.name", Value::from("execute_tool")), (key, value.into())];
        list.extend(more.iter().cloned());
        told("", "get_weather", &list).content.tool_result.map(|text| text.as_str().to_owned())
    };
    let bare = Some(r#""18 C, \"sunny\"""#.to_owned());
    let document = r#""18 C, \"sunny\"""#;
    let of_type = |word: &str| [("gen_ai.tool.name", Value::from("get_weather")), ("output.mime_type", word.into())];
    for key in ["mlflow.spanOutputs", "traceloop.entity.output", "ai.toolCall.result", "genkit:output"] {
        let own = [
            ("mlflow.spanType", "\"TOOL\"".into()),
            ("traceloop.span.kind", "tool".into()),
            ("genkit:type", "action".into()),
            ("ai.operationId", "ai.toolCall".into()),
        ];
        assert_eq!(output(key, document, &own), bare, "{key}");
    }
    assert_eq!(output("output.value", document, &of_type("application/json")), bare);
    // What a tool said in quotes.
    let said = Some(r#""\"18 C, \\\"sunny\\\"\"""#.to_owned());
    assert_eq!(output("output.value", document, &of_type("text/plain")), said);
    assert_eq!(output("gen_ai.tool.call.result", document, &[]), said);
}
