//! LangChain and LangGraph, by their own telemetry and by that of others.

use super::*;

#[test]
fn langfuse_puts_anthropics_name_for_cached_tokens_beside_its_own_buckets() {
    let usage = r#"{"cache_creation_input_tokens": 16, "cache_read_input_tokens": 64, "input": 131, "output": 37}"#;
    let call = told(
        "langfuse-sdk",
        "ChatAnthropic",
        &[("langfuse.observation.type", "generation".into()), ("langfuse.observation.usage_details", usage.into())],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
}

#[test]
fn langfuse_moves_every_detail_of_langchain_out_of_what_it_is_a_part_of() {
    let call = |usage: &str| {
        let list = [
            ("langfuse.observation.type", "generation".into()),
            ("langfuse.observation.metadata.ls_provider", "\"google_vertexai\"".into()),
            ("langfuse.observation.usage_details", usage.into()),
        ];
        tokens(&told("langfuse-sdk", "Chat", &list))
    };
    // Vertex, by modality; with thoughts, and with what came from the cache.
    let modality = r#"{"input": 0, "output": 0, "total": 1200, "input_modality_1": 1000, "output_modality_1": 200}"#;
    assert_eq!(call(modality), [Some(1000), None, None, Some(200), None]);
    let cached = r#"{"input": 0, "output": 0, "total": 1300, "input_modality_1": 800, "cached_modality_1": 200, "cached_content_token_count": 200,
        "output_modality_1": 200, "thoughts_token_count": 100}"#;
    assert_eq!(call(cached), [Some(1000), Some(200), None, Some(300), Some(100)]);
    let alone = r#"{"input": 1000, "output": 200, "total": 1300, "cached_content_token_count": 200, "thoughts_token_count": 100}"#;
    assert_eq!(call(alone), [Some(1000), Some(200), None, Some(300), Some(100)]);
    // OpenAI in a tier; what is told of the dearer one stays in what it is a part of, but in JavaScript.
    let flex = r#"{"input": 0, "output": 0, "total": 248, "input_flex": 147, "input_flex_cache_read": 64, "output_flex": 21, "output_flex_reasoning": 16}"#;
    let all = [Some(211), Some(64), None, Some(37), Some(16)];
    assert_eq!(call(flex), all);
    assert_eq!(call(&flex.replace("flex", "priority")), all);
    let priority = r#"{"input": 201, "output": 37, "input_audio": 10, "total": 248, "input_priority": 147, "input_priority_cache_read": 64,
        "output_priority": 21, "output_priority_reasoning": 16}"#;
    assert_eq!(call(priority), all);
    let nested = priority.replace("201", "211").replace(r#""input_audio": 10, "#, "");
    assert_eq!(call(&nested), all);
    // Parts that overlap make no more than all.
    let overlapping = r#"{"input": 0, "output": 21, "total": 248, "input_cached_tokens": 64, "input_text_tokens": 211, "output_reasoning": 16}"#;
    assert_eq!(call(overlapping), all);
    // A total that is less than the two alone says nothing.
    let lost = r#"{"input": 147, "output": 37, "total": 0, "input_cached_tokens": 64}"#;
    assert_eq!(call(lost), [Some(211), Some(64), None, Some(37), None]);
    // Anthropic's, by when a cache ends; its own counts are told beside.
    let written = r#"{"input": 131, "output": 37, "total": 248, "input_cache_read": 64, "input_cache_creation": 0, "input_ephemeral_5m_input_tokens": 10,
        "input_ephemeral_1h_input_tokens": 6}"#;
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    assert_eq!(call(written), all);
    let own = r#"{"input": 131, "output": 37, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 16, "cache_creation_ephemeral_1h_input_tokens": 6}"#;
    assert_eq!(call(own), all);
    let bedrock =
        r#"{"input": 131, "output": 37, "total": 248, "cache_read_input_tokens": 64, "cache_write_input_tokens": 16}"#;
    assert_eq!(call(bedrock), all);
    // LiteLLM's, which have the cached ones under both names.
    let litellm =
        r#"{"input": 147, "output": 37, "total": 248, "input_cached_tokens": 64, "cache_read_input_tokens": 64}"#;
    assert_eq!(call(litellm), [Some(211), Some(64), None, Some(37), None]);
}

#[test]
fn langfuse_says_the_reason_of_a_failure_under_its_own_name() {
    let failed = told(
        "langfuse-sdk",
        "OpenAI.chat",
        &[
            ("langfuse.observation.type", "generation".into()),
            ("langfuse.observation.level", "ERROR".into()),
            ("langfuse.observation.status_message", "Error: 500 no".into()),
        ],
    );
    assert_eq!(failed.error.and_then(|error| error.message).as_deref(), Some("Error: 500 no"));
}

#[test]
fn langchain_says_who_is_an_agent_by_every_instrumentation() {
    for (scope, list) in [
        (
            "openinference.instrumentation.langchain",
            vec![
                ("openinference.span.kind", "CHAIN"),
                ("metadata", r#"{"lc_agent_name": "weather", "thread_id": "s-1", "user_id": "u-1"}"#),
            ],
        ),
        (
            "langfuse-sdk",
            vec![
                ("langfuse.observation.type", "chain"),
                ("langfuse.observation.metadata.lc_agent_name", "\"weather\""),
                ("session.id", "s-1"),
                ("user.id", "u-1"),
            ],
        ),
        (
            "mlflow.tracing.provider",
            vec![
                ("mlflow.spanType", "\"CHAIN\""),
                ("metadata", r#"{"lc_agent_name": "weather", "thread_id": "s-1", "user_id": "u-1"}"#),
            ],
        ),
    ] {
        let list: Vec<(&str, Value)> = list.into_iter().map(|(key, value)| (key, value.into())).collect();
        let agent = told(scope, "weather", &list);
        assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather")), "{scope}");
        assert_eq!((agent.session_id.as_deref(), agent.user_id.as_deref()), (Some("s-1"), Some("u-1")), "{scope}");
        assert_eq!(told(scope, "model", &list).kind, StepKind::Task, "{scope}");
    }
    // Whatever has `agent` in its name is said to be one.
    let tool = told(
        "openinference.instrumentation.langchain",
        "transfer_to_weather_agent",
        &[("openinference.span.kind", "AGENT".into()), ("tool.name", "transfer_to_weather_agent".into())],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("transfer_to_weather_agent")));
}

#[test]
fn who_hands_control_on_by_raising_has_not_failed_and_who_stops_reading_has_cancelled() {
    let ended_by = |scope: &str, mark: (&str, Value), class: &str, message: &str| {
        let mut record = ended(&[mark]);
        record.scope.name = scope.to_owned();
        record.span.status = Some(Status { code: 2, message: String::new() });
        let raised = [("exception.type", class.into()), ("exception.message", message.into())];
        record.span.events = vec![event("exception", &raised)];
        let facts = facts(&record);
        (facts.status, facts.error.and_then(|error| error.kind))
    };
    let traceloop = |class| {
        let mark = ("traceloop.span.kind", "task".into());
        ended_by("opentelemetry.instrumentation.langchain", mark, class, "…")
    };
    assert_eq!(traceloop("langgraph.errors.ParentCommand"), (StepStatus::Success, None));
    assert_eq!(traceloop("GraphInterrupt"), (StepStatus::Success, None));
    // Pydantic AI up to its format 4: a tool that waits for a person or for another program.
    for class in ["pydantic_ai.exceptions.ApprovalRequired", "pydantic_ai.exceptions.CallDeferred"] {
        let mark = ("gen_ai.operation.name", "execute_tool".into());
        assert_eq!(ended_by("pydantic-ai", mark, class, "").0, StepStatus::Success, "{class}");
    }
    assert_eq!(traceloop("GeneratorExit"), (StepStatus::Cancelled, Some("GeneratorExit".into())));
    // LangSmith has the class in what Python prints of it.
    let langsmith = |message| ended_by("langsmith", ("langsmith.span.kind", "chain".into()), "Exception", message);
    assert_eq!(langsmith("ParentCommand(Command(graph='a'))Traceback (most recent …"), (StepStatus::Success, None));
    assert_eq!(langsmith("GeneratorExit()Traceback (…"), (StepStatus::Cancelled, Some("GeneratorExit".into())));
    assert_eq!(langsmith("it is (odd)"), (StepStatus::Error, Some("Exception".into())));
    // Of a class that any error may have, words of the message tell nothing but where they say it all.
    for (message, status) in [
        ("cannot cancel order 7", StepStatus::Error),
        ("invalid timeout value", StepStatus::Error),
        ("ENOENT: no such file, deadline.txt", StepStatus::Error),
        ("TimeoutError: no answer", StepStatus::Timeout),
        ("Request was aborted.", StepStatus::Cancelled),
    ] {
        let mark = ("traceloop.span.kind", "task".into());
        assert_eq!(ended_by("@traceloop/node-server-sdk", mark, "Error", message).0, status, "{message}");
    }
    // OpenTelemetry's own for OpenAI.
    let mut left = ended(&[("gen_ai.operation.name", "chat".into()), ("error.type", "_OTHER".into())]);
    left.span.status = Some(Status { code: 2, message: "abandoned stream".into() });
    assert_eq!(facts(&left).status, StepStatus::Cancelled);
}

#[test]
fn langchains_own_answer_says_what_openinference_leaves_out() {
    let usage = r#"{"input_tokens": 211, "output_tokens": 38, "total_tokens": 249, "input_token_details": {"cache_read": 64, "cache_creation": 16}}"#;
    let kwargs = format!(r#"{{"response_metadata": {{"id": "msg-1"}}, "usage_metadata": {usage}}}"#);
    let answer = format!(r#"{{"generations": [[{{"message": {{"kwargs": {kwargs}}}}}]]}}"#);
    let call = told(
        "@arizeai/openinference-instrumentation-langchain",
        "ChatAnthropic",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(38)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(38), None]);
    assert_eq!(call.response_id.as_deref(), Some("msg-1"));
    // How much was thought may stand in what the provider reported alone.
    let reported = r#"{"input_tokens": 131, "output_tokens": 38, "output_tokens_details": {"thinking_tokens": 7}}"#;
    let kwargs = format!(r#"{{"response_metadata": {{"usage": {reported}}}, "usage_metadata": {usage}}}"#);
    let answer = format!(r#"{{"generations": [[{{"message": {{"kwargs": {kwargs}}}}}]]}}"#);
    let list = [("openinference.span.kind", "LLM".into()), ("output.value", answer.into())];
    let call = told("openinference.instrumentation.langchain", "ChatAnthropic", &list);
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(38), Some(7)]);
}

#[test]
fn calls_that_another_instrumentation_tells_too_have_their_ids_by_all_of_them() {
    let answer = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":9,"output_tokens":5}}"#;
    let list = |answer: &str| [("openinference.span.kind", Value::from("LLM")), ("output.value", answer.into())];
    let client = |answer: &str| told("openinference.instrumentation.anthropic", "messages.create", &list(answer));
    assert_eq!(client(answer).response_id.as_deref(), Some("msg_1"));
    // By LangChain in JavaScript it is the message's, which is made up where the answer has none.
    let langchain = |id: &str| {
        let answer = format!(r#"{{"generations": [[{{"text": "", "message": {{"kwargs": {{"id": "{id}"}}}}}}]]}}"#);
        told("@arizeai/openinference-instrumentation-langchain", "ChatOpenAI", &list(&answer)).response_id
    };
    let ids = ["chatcmpl-1", "run-8c3d115e", "lc_run--8c3d115e"].map(langchain);
    assert_eq!(ids, [Some("chatcmpl-1".to_owned()), None, None]);
    // A message among others is no answer of Anthropic's.
    assert_eq!(client(r#"{"id":"msg_1","type":"message","content":[]}"#).response_id, None);

    let told_of = r#"{"type": "tool", "content": "sunny", "name": "get_weather", "tool_call_id": "call_1"}"#;
    let wrapped = format!(r#"{{"type": "tool", "data": {told_of}}}"#);
    for output in [told_of, wrapped.as_str()] {
        let list = [
            ("openinference.span.kind", "TOOL".into()),
            ("tool.name", "get_weather".into()),
            ("output.value", output.into()),
        ];
        let tool = told("openinference.instrumentation.langchain", "get_weather", &list);
        assert_eq!(tool.tool_call_id.as_deref(), Some("call_1"), "{output}");
    }
    for (key, value) in
        [("langfuse.observation.metadata.tool_call_id", r#""call_1""#), ("langfuse.observation.output", told_of)]
    {
        let list = [("langfuse.observation.type", "tool".into()), (key, value.into())];
        let tool = told("langfuse-sdk", "get_weather", &list);
        assert_eq!(tool.tool_call_id.as_deref(), Some("call_1"), "{key}");
    }
}

#[test]
fn openllmetry_says_of_langchain_in_javascript_that_a_task_is_a_tool_and_in_its_answer_which() {
    let answer =
        r#"{"kwargs": {"status": "success", "content": "18 C", "tool_call_id": "call-1", "name": "get_weather"}}"#;
    let tool = told(
        "@traceloop/instrumentation-langchain",
        "execute_tool DynamicStructuredTool",
        &[
            ("gen_ai.operation.name", "execute_tool".into()),
            ("traceloop.span.kind", "task".into()),
            ("traceloop.entity.name", "DynamicStructuredTool".into()),
            ("traceloop.entity.output", answer.into()),
        ],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert_eq!(tool.tool_call_id.as_deref(), Some("call-1"));
}

#[test]
fn langsmiths_wrapper_of_gemini_has_thoughts_in_the_total_of_its_object_alone() {
    let usage = |total: u64| {
        format!(
            r#"{{"input_tokens": 211, "output_tokens": 21, "total_tokens": {total}, "input_token_details": {{"cache_read": 64}}, "output_token_details": {{"reasoning": 16}}}}"#
        )
    };
    let call = |total: u64| {
        told(
            "langsmith",
            "ChatGoogleGenerativeAI",
            &[
                ("langsmith.span.kind", "llm".into()),
                ("gen_ai.system", "gemini".into()),
                ("gen_ai.usage.input_tokens", Value::Int(211)),
                ("gen_ai.usage.output_tokens", Value::Int(21)),
                ("gen_ai.usage.total_tokens", Value::Int(232)),
                ("langsmith.metadata.usage_metadata", usage(total).into()),
            ],
        )
    };
    assert_eq!(tokens(&call(248)), [Some(211), Some(64), None, Some(37), Some(16)]);
    // LangChain's own has them in the output.
    assert_eq!(tokens(&call(232)), [Some(211), Some(64), None, Some(21), Some(16)]);
}

#[test]
fn langchain_tells_by_name_how_long_a_cache_is_kept_and_in_which_tier_a_call_was_served() {
    let call = |keys: &[(&str, Value)]| {
        let mut list = vec![
            ("langsmith.span.kind", "llm".into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
        ];
        list.extend_from_slice(keys);
        let mut record = ended(&list);
        normalize(&mut record);
        let hour = record.span.attr(names::CACHE_WRITE_1H_TOKENS).and_then(Value::as_i64);
        (tokens(&facts(&record)), hour)
    };
    // LangSmith's wrapper of Anthropic, as Python prints it.
    let details = |text: &str| call(&[("gen_ai.usage.input_token_details", text.into())]);
    let short = details("{'cache_read': 64, 'ephemeral_5m_input_tokens': 16}");
    assert_eq!(short, ([Some(211), Some(64), Some(16), Some(37), None], None));
    let both = details(
        "{'cache_read': 64, 'cache_creation': 0, 'ephemeral_5m_input_tokens': 10, 'ephemeral_1h_input_tokens': 6}",
    );
    assert_eq!(both, ([Some(211), Some(64), Some(16), Some(37), None], Some(6)));
    assert_eq!(details("{'cache_creation': 16}"), ([Some(211), None, Some(16), Some(37), None], None));
    // Gemini's, of which those over a bound are apart.
    assert_eq!(details("{'cache_read': 60, 'cache_read_over_200k': 4, 'over_200k': 9}").0[1], Some(64));
    // LangChain's own object.
    let object = |details: &str| {
        let usage = format!(r#"{{"input_tokens": 211, "output_tokens": 37, "total_tokens": 248, {details}}}"#);
        call(&[("langsmith.metadata.usage_metadata", usage.into())])
    };
    let anthropic = r#""input_token_details": {"cache_read": 64, "cache_creation": 0, "ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 6}"#;
    assert_eq!(object(anthropic), ([Some(211), Some(64), Some(16), Some(37), None], Some(6)));
    let priority = r#""input_token_details": {"priority_cache_read": 64, "priority": 147}, "output_token_details": {"priority_reasoning": 16, "priority": 21}"#;
    assert_eq!(object(priority).0, [Some(211), Some(64), None, Some(37), Some(16)]);
}

#[test]
fn langfuse_passes_on_the_provider_that_langchain_knows() {
    let list = [
        ("langfuse.observation.type", "generation".into()),
        ("langfuse.observation.metadata.ls_provider", r#""amazon_bedrock""#.into()),
    ];
    let call = told("langfuse-sdk", "ChatBedrock", &list);
    assert_eq!(call.provider.as_deref(), Some("aws.bedrock"));
}

#[test]
fn openllmetry_wraps_a_tool_of_langchain_in_all_that_its_callback_was_given() {
    let input =
        r#"{"input_str": "{'city': 'Paris'}", "inputs": {"city": "Paris"}, "kwargs": {"tool_call_id": "call-1"}}"#;
    let answer = r#"{"kwargs": {"content": "18 C", "type": "tool", "name": "get_weather", "tool_call_id": "call-1"}}"#;
    let output = format!(r#"{{"output": {answer}, "kwargs": {{"name": "get_weather"}}}}"#);
    let list = [
        ("traceloop.span.kind", Value::from("tool")),
        ("traceloop.entity.name", "get_weather".into()),
        ("gen_ai.operation.name", "execute_tool".into()),
        ("gen_ai.tool.name", "get_weather".into()),
        ("traceloop.entity.input", input.into()),
        ("gen_ai.tool.call.arguments", input.into()),
        ("traceloop.entity.output", output.as_str().into()),
        ("gen_ai.tool.call.result", output.as_str().into()),
    ];
    let tool = told("opentelemetry.instrumentation.langchain", "execute_tool get_weather", &list);
    assert_eq!((tool.kind, tool.tool_call_id.as_deref()), (StepKind::Tool, Some("call-1")));
    let text = |side: &Option<crate::model::json_text::JsonText>| side.as_ref().map(|text| text.as_str().to_owned());
    assert_eq!(text(&tool.content.input).as_deref(), Some(r#"{"city":"Paris"}"#));
    assert_eq!(text(&tool.content.output).as_deref(), Some(r#""18 C""#));
    // One that failed has nothing that came out.
    let tool = told("opentelemetry.instrumentation.langchain", "execute_tool get_weather", &list[..6]);
    assert_eq!((tool.tool_call_id.as_deref(), tool.content.output), (Some("call-1"), None));
}

#[test]
fn openinference_has_the_provider_of_langchain_in_javascript_in_the_metadata_alone() {
    let list = [("openinference.span.kind", "LLM".into()), ("metadata", r#"{"ls_provider": "openai"}"#.into())];
    let call = told("@arizeai/openinference-instrumentation-langchain", "ChatOpenAI", &list);
    assert_eq!(call.provider.as_deref(), Some("openai"));
}

#[test]
fn a_tool_of_langchain_has_failed_whose_answer_says_so() {
    let text = r#""Error: no weather""#;
    let parts = r#"[{"type": "text", "text": "Error: no weather"}]"#;
    let by = |status: &str, content: &str| {
        let answer = format!(r#"{{"content": {content}, "type": "tool", "status": "{status}"}}"#);
        [
            told(
                "openinference.instrumentation.langchain",
                "get_weather",
                &[
                    ("openinference.span.kind", "TOOL".into()),
                    ("output.value", format!(r#"{{"type": "tool", "data": {}}}"#, answer).into()),
                ],
            ),
            told(
                "opentelemetry.instrumentation.langchain",
                "execute_tool get_weather",
                &[
                    ("traceloop.span.kind", "tool".into()),
                    ("traceloop.entity.output", format!(r#"{{"output": {{"kwargs": {}}}}}"#, answer).into()),
                ],
            ),
            told(
                "langsmith",
                "get_weather",
                &[
                    ("langsmith.span.kind", "tool".into()),
                    ("gen_ai.completion", format!(r#"{{"output": {}}}"#, answer).into()),
                ],
            ),
            told(
                "mlflow.tracing.provider",
                "get_weather",
                &[("mlflow.spanType", "\"TOOL\"".into()), ("mlflow.spanOutputs", answer.as_str().into())],
            ),
        ]
        .map(|tool| (tool.status, tool.error.and_then(|error| error.message)))
    };
    // What a tool of a program gives may have a status of its own.
    let list = [
        ("openinference.span.kind", Value::from("TOOL")),
        ("output.value", r#"{"data": {"status": "error", "type": "order"}}"#.into()),
    ];
    assert_eq!(told("openinference.instrumentation.langchain", "find_order", &list).status, StepStatus::Success);
    let failed = (StepStatus::Error, Some("Error: no weather".to_owned()));
    for content in [text, parts] {
        assert_eq!(by("error", content), std::array::from_fn(|_| failed.clone()));
        assert_eq!(by("success", content), [const { (StepStatus::Success, None) }; 4]);
    }
}

#[test]
fn messages_that_say_nothing_leave_it_to_the_whole_answer() {
    // LangChain.js with Anthropic, by OpenInference.
    let list = [
        ("openinference.span.kind", "LLM".into()),
        ("llm.output_messages.0.message.role", "assistant".into()),
        ("output.value", r#"{"content": [{"type": "tool_use", "name": "get_weather"}]}"#.into()),
    ];
    let call = told("@arizeai/openinference-instrumentation-langchain", "ChatAnthropic", &list);
    let output = call.content.output.map(|text| text.as_str().to_owned());
    assert!(output.as_deref().is_some_and(|output| output.contains("tool_use")), "{output:?}");
}

#[test]
fn what_was_given_up_before_its_answer_was_told_is_cancelled() {
    let status = |scope: &str, operation: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from(operation)),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("gen_ai.provider.name", "openai".into()),
        ];
        list.extend_from_slice(more);
        told(scope, operation, &list).status
    };
    let (stop, answered) = (("gen_ai.response.finish_reasons", "stop".into()), ("gen_ai.response.id", "c-1".into()));
    for (scope, operation) in [
        ("agent_framework", "chat"),
        ("semantic_kernel.utils.telemetry.model_diagnostics.decorators", "chat"),
        ("gcp.vertex.agent", "generate_content"),
    ] {
        assert_eq!(status(scope, operation, &[]), StepStatus::Cancelled, "{scope}");
        assert_eq!(status(scope, operation, std::slice::from_ref(&stop)), StepStatus::Success, "{scope}");
        assert_eq!(status(scope, operation, std::slice::from_ref(&answered)), StepStatus::Success, "{scope}");
    }
    // The model that was asked for stands for that which answered, or none does; what the provider refused has an answer with nothing in it.
    let model = ("gen_ai.response.model", Value::from("gpt-4o-mini"));
    let empty = ("gen_ai.output.messages", r#"[{"role":"assistant","parts":[]}]"#.into());
    assert_eq!(status("pydantic-ai", "chat", std::slice::from_ref(&model)), StepStatus::Cancelled);
    assert_eq!(status("pydantic-ai", "chat", &[]), StepStatus::Cancelled);
    assert_eq!(status("pydantic-ai", "chat", &[model, empty]), StepStatus::Error);
    // An agent says of its answer only what the program lets it.
    assert_eq!(status("agent_framework", "invoke_agent", &[]), StepStatus::Success);
    assert_eq!(status("semantic_kernel.utils", "invoke_agent", &[]), StepStatus::Success);
    for scope in ["openai_agents", "agno", "autogen_agentchat"] {
        let call = |more: &[(&str, Value)]| {
            let mut list =
                vec![("openinference.span.kind", Value::from("LLM")), ("llm.model_name", "gpt-4o-mini".into())];
            list.extend_from_slice(more);
            told(&format!("openinference.instrumentation.{scope}"), "generation", &list).status
        };
        assert_eq!(call(&[]), StepStatus::Cancelled, "{scope}");
        assert_eq!(call(&[("llm.token_count.prompt", Value::Int(7))]), StepStatus::Success, "{scope}");
        assert_eq!(call(&[("output.value", "It is 18 degrees.".into())]), StepStatus::Success, "{scope}");
        assert_eq!(call(&[("output.value", "__REDACTED__".into())]), StepStatus::Success, "{scope}");
    }
    // Strands says by what.
    let list = [
        ("gen_ai.operation.name", Value::from("invoke_agent")),
        ("gen_ai.system", "strands-agents".into()),
        ("strands.cancellation.type", "CancelledError".into()),
    ];
    assert_eq!(told("strands.telemetry.tracer", "invoke_agent weather", &list).status, StepStatus::Cancelled);
}

/// A step with an exception, of a scope, with a status.
fn raised(scope: &str, list: &[(&str, Value)], code: i32, exception: &[(&str, Value)]) -> StepFacts {
    let mut record = ended(list);
    record.scope.name = scope.to_owned();
    record.span.status = Some(Status { code, message: String::new() });
    record.span.events = vec![event("exception", exception)];
    facts(&record)
}

/// `langsmith` 0.15 (OpenTelemetry mode) with `langchain-core` 1.8, run against a scripted server.
#[test]
fn a_chain_of_langsmiths_that_gives_the_answer_of_a_call_has_used_nothing_itself() {
    let used = |kind: &str, more: &[(&str, Value)]| {
        let counts = [
            ("langsmith.span.kind", kind.into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.total_tokens", Value::Int(248)),
        ];
        told("langsmith", "RunnableLambda", &[&counts, more].concat()).tokens
    };
    assert_eq!(used("chain", &[]), None);
    assert_eq!(used("chain", &[("gen_ai.usage.cache_read.input_tokens", Value::Int(80))]), None);
    assert_eq!(used("llm", &[]).and_then(|tokens| tokens.total), Some(248));
    // What the program says of a step it means.
    let own = ("langsmith.metadata.usage_metadata", r#"{"input_tokens": 211, "output_tokens": 37}"#.into());
    assert_eq!(used("chain", &[own]).and_then(|tokens| tokens.total), Some(248));
}

/// `langsmith` 0.12 for JavaScript, `experimental/otel/setup`, run against a scripted server.
#[test]
fn langsmith_says_of_every_step_in_javascript_that_it_went_well() {
    let step = |code, message: &str| {
        let exception = [("exception.type", Value::from("Error")), ("exception.message", message.into())];
        raised("langsmith", &[("langsmith.span.kind", "llm".into())], code, &exception)
    };
    let failed = step(1, "Error: 400 no such model");
    assert_eq!(failed.status, StepStatus::Error);
    assert_eq!(failed.error.and_then(|error| error.message).as_deref(), Some("Error: 400 no such model"));
    assert_eq!(step(1, "Cancelled").status, StepStatus::Cancelled);
    // Elsewhere a step that says so has dealt with it.
    let exception = [("exception.type", Value::from("Error")), ("exception.message", "no".into())];
    assert_eq!(raised("another", &[], 1, &exception).status, StepStatus::Success);
    let session = [
        ("langsmith.span.kind", Value::from("chain")),
        ("langsmith.metadata.sessionId", "s-1".into()),
        ("langsmith.metadata.userId", "u-1".into()),
    ];
    let of_ai_sdk = told("langsmith", "generateText", &session);
    assert_eq!((of_ai_sdk.session_id.as_deref(), of_ai_sdk.user_id.as_deref()), (Some("s-1"), Some("u-1")));
    // What the program calls it goes before LangGraph's thread.
    let both = [
        ("langsmith.span.kind", Value::from("chain")),
        ("langsmith.metadata.thread_id", "t-1".into()),
        ("langsmith.metadata.session_id", "s-1".into()),
    ];
    assert_eq!(told("langsmith", "graph", &both).session_id.as_deref(), Some("s-1"));
    assert_eq!(told("langsmith", "graph", &both[..2]).session_id.as_deref(), Some("t-1"));
    let metadata = ("metadata", Value::from(r#"{"thread_id": "t-1", "session_id": "s-1"}"#));
    for (key, word) in [("openinference.span.kind", "CHAIN"), ("mlflow.spanType", r#""CHAIN""#)] {
        let of_langchain = told("any", "graph", &[(key, word.into()), metadata.clone()]);
        assert_eq!(of_langchain.session_id.as_deref(), Some("s-1"), "{key}");
    }
}

/// `@langchain/core` 1.4 with `@arizeai/openinference-instrumentation-langchain` 4.1, run against a scripted server.
#[test]
fn langchain_for_javascript_prints_its_error_behind_the_message() {
    let step = |message: &str| {
        let list = [("openinference.span.kind", Value::from("CHAIN"))];
        let facts = raised(
            "@arizeai/openinference-instrumentation-langchain",
            &list,
            2,
            &[("exception.message", message.into())],
        );
        let error = facts.error.unwrap_or_default();
        (facts.status, error.kind.unwrap_or_default(), error.message.unwrap_or_default())
    };
    let told = |status, kind: &str, message: &str| (status, kind.to_owned(), message.to_owned());
    // The stack has the word of another class, and the message may have lines of its own.
    assert_eq!(
        step("disk full\n\nError: disk full\n    at Timeout._onTimeout (a.mjs:3:1)\n    at listOnTimeout (b:1:1)"),
        told(StepStatus::Error, "Error", "disk full")
    );
    assert_eq!(
        step("a\n\nb\n\nTypeError: a\n\nb\n    at f (a.mjs:3:1)"),
        told(StepStatus::Error, "TypeError", "a\n\nb")
    );
    assert_eq!(
        step("Abort\n\nError: Abort\n    at Timeout._onTimeout (a.mjs:3:1)"),
        told(StepStatus::Cancelled, "Error", "Abort")
    );
    // What hands control on is no failure, with a message or without.
    assert_eq!(step("\n\nParentCommand\n    at f (a.mjs:3:1)").0, StepStatus::Success);
    assert_eq!(step("[\n  {}\n]\n\nGraphInterrupt: [\n  {}\n]\n    at f (a.mjs:3:1)").0, StepStatus::Success);
    assert_eq!(
        step("TypeError: no\n    at Timeout._onTimeout (a.mjs:3:1)"),
        told(StepStatus::Error, "TypeError", "no"),
        "the print alone"
    );
    // What is too long to be looked through, too.
    let long = format!("{}\n    at f (a.mjs:3:1)", "\n\nE: ".repeat(100_000));
    assert_eq!(step(&long).1, "");
    // Text that is no such thing stays as it is.
    let other = "a\n\nError: b\n    at f (a.mjs:3:1)";
    assert_eq!(step(other), told(StepStatus::Error, "", other));
}

/// `@arizeai/openinference-instrumentation-langchain` 4.1: a message whose content is a list has its role alone.
#[test]
fn messages_of_which_some_say_nothing_leave_it_to_the_whole_request() {
    let whole =
        r#"{"messages":[[{"kwargs":{"content":[{"type":"text","text":"be kind"}]}},{"kwargs":{"content":"hi"}}]]}"#;
    let call = |system: Option<&str>, whole: Option<&str>| {
        let mut list = vec![
            ("openinference.span.kind", Value::from("LLM")),
            ("llm.input_messages.0.message.role", "system".into()),
            ("llm.input_messages.1.message.role", "user".into()),
            ("llm.input_messages.1.message.content", "hi".into()),
        ];
        list.extend(system.map(|text| ("llm.input_messages.0.message.content", text.into())));
        list.extend(whole.map(|text| ("input.value", text.into())));
        let facts = told("@arizeai/openinference-instrumentation-langchain", "ChatOpenAI", &list);
        facts.content.input.map(|input| input.value().to_string()).unwrap_or_default()
    };
    assert!(call(None, Some(whole)).contains("be kind"));
    assert!(!call(Some("be quick"), Some(whole)).contains("be kind"));
    // It is better than nothing.
    assert!(call(None, None).contains("hi"));
}

/// `mlflow` 3.17.2 with `langchain-anthropic` 1.7.10 and `langchain-openai`, run against a scripted server: its summary says of what was
/// written to a cache that it was nothing, and nothing of thoughts.
#[test]
fn mlflow_has_in_langchains_answer_what_its_summary_lacks() {
    let call = |summary: &str, metadata: &str| {
        let answer = format!(
            r#"{{"generations": [[{{"message": {{"response_metadata": {metadata}}}}}]], "type": "LLMResult"}}"#
        );
        let list = [
            ("mlflow.spanType", r#""CHAT_MODEL""#.into()),
            ("mlflow.chat.tokenUsage", summary.into()),
            ("mlflow.spanOutputs", answer.as_str().into()),
        ];
        tokens(&told("mlflow.tracing.provider", "ChatAnthropic", &list))
    };
    let summary = r#"{"input_tokens": 237, "output_tokens": 23, "total_tokens": 260, "cache_read_input_tokens": 128, "cache_creation_input_tokens": 0}"#;
    let usage = r#"{"usage": {"cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 64}, "cache_creation_input_tokens": 64,
        "cache_read_input_tokens": 128, "input_tokens": 45, "output_tokens": 23, "output_tokens_details": {"thinking_tokens": 7}}}"#;
    assert_eq!(call(summary, usage), [Some(237), Some(128), Some(64), Some(23), Some(7)]);
    let usage = r#"{"token_usage": {"completion_tokens": 23, "prompt_tokens": 237, "total_tokens": 260,
        "completion_tokens_details": {"reasoning_tokens": 7}, "prompt_tokens_details": {"cached_tokens": 128}}}"#;
    let summary = r#"{"input_tokens": 237, "output_tokens": 23, "total_tokens": 260, "cache_read_input_tokens": 128}"#;
    assert_eq!(call(summary, usage), [Some(237), Some(128), None, Some(23), Some(7)]);
    assert_eq!(call(summary, "{}"), [Some(237), Some(128), None, Some(23), None]);
}

#[test]
fn the_tier_of_a_call_of_langchain_stands_in_its_answer() {
    let tier = |scope: &str, list: &[(&str, Value)]| {
        let mut record = ended(list);
        record.scope.name = scope.to_owned();
        normalize(&mut record);
        record.span.attr_str(names::SERVICE_TIER).map(str::to_owned)
    };
    let answer = r#"{"generations": [[{"message": {"kwargs": {"response_metadata": {"service_tier": "flex"}}}}]]}"#;
    let of_mlflow = r#"{"generations": [[{"message": {"response_metadata": {"service_tier": "flex"}}}]]}"#;
    let own = r#"{"id": "resp_1", "object": "response", "service_tier": "flex"}"#;
    let openinference = |answer: &str| {
        let list = [("openinference.span.kind", "LLM".into()), ("output.value", answer.into())];
        tier("openinference.instrumentation.langchain", &list)
    };
    let mlflow = |answer: &str| {
        tier("mlflow", &[("mlflow.spanType", r#""CHAT_MODEL""#.into()), ("mlflow.spanOutputs", answer.into())])
    };
    let langsmith = [("langsmith.span.kind", "llm".into()), ("gen_ai.completion", answer.into())];
    // OpenInference has the chunks of a stream put together (0.1.66).
    let stream = r#"{"id": "c-1", "object": "chat.completion.chunk", "service_tier": "flex"}"#;
    let told = [
        openinference(answer),
        openinference(own),
        openinference(stream),
        mlflow(of_mlflow),
        mlflow(own),
        tier("langsmith", &langsmith),
    ];
    assert!(told.iter().all(|tier| tier.as_deref() == Some("flex")), "{told:?}");
    // Langfuse (5.0) has it in the names of LangChain's details alone, and of a response of OpenAI's in the metadata.
    let langfuse = |list: &[(&str, Value)]| {
        tier("langfuse-sdk", &[&[("langfuse.observation.type", "generation".into())], list].concat())
    };
    let buckets = |usage: &str| langfuse(&[("langfuse.observation.usage_details", usage.into())]);
    let flex = r#"{"input": 0, "output": 0, "total": 248, "input_audio": 0, "input_flex_cache_read": 64, "input_flex": 147, "output_flex_reasoning": 16,
        "output_flex": 21}"#;
    assert_eq!(buckets(flex).as_deref(), Some("flex"));
    assert_eq!(buckets(&flex.replace("flex", "priority")).as_deref(), Some("priority"));
    // A part of it is not all.
    assert_eq!(buckets(&flex.replace("\"output_flex\"", "\"output_text\"")), None);
    assert_eq!(buckets(r#"{"input": 147, "output": 37, "total": 248, "input_cache_read": 64}"#), None);
    let metadata = |object: &str| {
        langfuse(&[
            ("langfuse.observation.metadata.object", object.into()),
            ("langfuse.observation.metadata.service_tier", "\"priority\"".into()),
        ])
    };
    assert_eq!((metadata("\"response\"").as_deref(), metadata("\"mine\"")), (Some("priority"), None));
}

/// OpenAI's client and LangChain by `openinference-instrumentation-openai` 0.1.66, `langfuse` 5.0 and `mlflow` 3.17, run against a scripted server.
#[test]
fn the_tier_that_was_asked_for_is_told_apart_from_the_one_of_the_answer() {
    let tiers = |list: &[(&str, Value)]| {
        let mut record = ended(list);
        normalize(&mut record);
        [names::REQUEST_TIER, names::OPENAI_REQUEST_TIER, names::SERVICE_TIER, names::OPENAI_SERVICE_TIER]
            .map(|key| record.span.attr_str(key).map(str::to_owned))
    };
    let asked = |list: &[(&str, Value)]| {
        assert_eq!(tiers(list), [Some("flex".to_owned()), None, None, None], "{list:?}");
    };
    let parameters = Value::from(r#"{"model": "gpt-5-mini", "service_tier": "flex"}"#);
    asked(&[("openinference.span.kind", "LLM".into()), ("llm.invocation_parameters", parameters.clone())]);
    asked(&[
        ("langfuse.observation.type", "generation".into()),
        ("langfuse.observation.model.parameters", parameters.clone()),
    ]);
    asked(&[("mlflow.spanType", r#""CHAT_MODEL""#.into()), ("invocation_params", parameters.clone())]);
    asked(&[("mlflow.spanType", r#""CHAT_MODEL""#.into()), ("mlflow.spanInputs", parameters)]);
    let old = ("gen_ai.openai.request.service_tier", "flex".into());
    assert_eq!(tiers(&[old]), [None, Some("flex".to_owned()), None, None]);
}

/// `opentelemetry-instrumentation-langchain` 0.62.4, run against a scripted server: an agent below another has its steps beside it.
#[test]
fn openllmetry_has_the_agent_of_a_step_of_langchain_among_its_properties() {
    let step = told(
        "opentelemetry.instrumentation.langchain",
        "ChatAnthropic.chat",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("traceloop.span.kind", "task".into()),
            ("traceloop.association.properties.lc_agent_name", "weather_agent".into()),
        ],
    );
    assert_eq!((step.kind, step.agent_name.as_deref()), (StepKind::Llm, Some("weather_agent")));
}

/// `opentelemetry-instrumentation-langchain` 0.52 and `langfuse` 3 and 5 with `langgraph` 1.2, run against a scripted server.
#[test]
fn the_thread_of_langgraph_is_the_session_where_nothing_else_is_and_a_graph_of_an_agents_name_the_agent() {
    let graph = |more: &[(&str, Value)]| {
        let list = [
            ("traceloop.span.kind", Value::from("workflow")),
            ("traceloop.entity.name", "chatty".into()),
            ("traceloop.association.properties.thread_id", "thread-7".into()),
        ];
        told("opentelemetry.instrumentation.langchain", "chatty.workflow", &[&list, more].concat())
    };
    let agent = graph(&[("traceloop.association.properties.lc_agent_name", "chatty".into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("chatty")));
    assert_eq!(agent.session_id.as_deref(), Some("thread-7"));
    let inner = graph(&[("traceloop.association.properties.lc_agent_name", "planner".into())]);
    assert_eq!((inner.kind, inner.agent_name.as_deref()), (StepKind::Workflow, Some("planner")));
    let named = graph(&[("traceloop.association.properties.session_id", "s-1".into())]);
    assert_eq!((named.kind, named.session_id.as_deref()), (StepKind::Workflow, Some("s-1")));
    for (key, thread) in [("observation", "thread-7"), ("observation", "\"thread-7\""), ("trace", "\"thread-7\"")] {
        let key = format!("langfuse.{key}.metadata.thread_id");
        let list = [("langfuse.observation.type", Value::from("chain")), (key.as_str(), thread.into())];
        assert_eq!(told("langfuse-sdk", "chatty", &list).session_id.as_deref(), Some("thread-7"));
    }
}

/// `@arizeai/openinference-instrumentation-langchain` 3.4 with `@langchain/anthropic` 0.3.34, and 4.1 with 1.5.11.
#[test]
fn langchains_counts_of_claude_in_javascript_have_cached_tokens_by_its_version() {
    const SCOPE: &str = "@arizeai/openinference-instrumentation-langchain";
    let call = |input: u64, reported: &str, versions: &str| {
        let output = format!(
            r#"{{"generations":[[{{"message":{{"kwargs":{{"usage_metadata":{{"input_tokens":{input},"output_tokens":37,"total_tokens":{},"input_token_details":{{"cache_creation":16,"cache_read":64}}}},"response_metadata":{{"usage":{reported}}}}}}}}}]]}}"#,
            input + 37
        );
        let list = [
            ("openinference.span.kind", Value::from("LLM")),
            ("llm.model_name", "claude-sonnet-4-5".into()),
            ("llm.token_count.prompt", Value::Int(input as i64)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.total", Value::Int(input as i64 + 37)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("metadata", format!(r#"{{"ls_provider":"anthropic"{versions}}}"#).into()),
            ("output.value", output.into()),
        ];
        tokens(&told(SCOPE, "ChatAnthropic", &list))
    };
    let whole =
        r#"{"input_tokens":131,"cache_creation_input_tokens":16,"cache_read_input_tokens":64,"output_tokens":37}"#;
    let of_stream = r#"{"cache_creation_input_tokens":16,"cache_read_input_tokens":64,"service_tier":"standard"}"#;
    let newest = r#","versions":{"@langchain/core":"1.4.0","@langchain/anthropic":"1.5.11"}"#;
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    let without_input = [None, Some(64), Some(16), Some(37), None];
    // What was reported decides; of a stream that has no input.
    assert_eq!(call(131, whole, ""), all);
    assert_eq!(call(131, of_stream, ""), without_input);
    assert_eq!(call(211, of_stream, ""), without_input, "nothing tells it from the other");
    for reported in [whole, of_stream] {
        assert_eq!(call(211, reported, newest), all);
    }
    let openai = [
        ("openinference.span.kind", Value::from("LLM")),
        ("llm.token_count.prompt", Value::Int(211)),
        ("llm.token_count.completion", Value::Int(37)),
        ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
        ("metadata", r#"{"ls_provider":"openai"}"#.into()),
    ];
    assert_eq!(tokens(&told(SCOPE, "ChatOpenAI", &openai)), [Some(211), Some(64), None, Some(37), None]);
}

/// `@langfuse/langchain` 4.2 with `@langchain/anthropic` 0.3.34, and 5.11 with 1.5.11: what was cached is taken off what LangChain counts.
#[test]
fn langfuses_buckets_of_langchains_claude_in_javascript_are_what_was_used_by_its_version() {
    let call = |provider: &str, versions: Option<&str>, usage: &str, language: &str| {
        let mut list = vec![
            ("langfuse.observation.type", Value::from("generation")),
            ("langfuse.observation.metadata.ls_provider", provider.into()),
            ("langfuse.observation.usage_details", usage.into()),
        ];
        list.extend(versions.map(|versions| ("langfuse.observation.metadata.versions", versions.into())));
        let mut record = ended(&list);
        record.scope.name = "langfuse-sdk".to_owned();
        std::sync::Arc::make_mut(&mut record.resource).attributes =
            attributes(&[("telemetry.sdk.language", language.into())]);
        tokens(&facts(&record))
    };
    let early = r#"{"input":51,"output":37,"total":168,"input_cache_creation":16,"input_cache_read":64}"#;
    let newest = r#"{"input":131,"output":37,"total":248,"input_cache_creation":16,"input_cache_read":64}"#;
    let plain = r#"{"input":211,"output":37,"total":248,"input_cache_creation":0,"input_cache_read":0}"#;
    let (versions, all) = (
        r#"{"@langchain/core":"1.4.0","@langchain/anthropic":"1.5.11"}"#,
        [Some(211), Some(64), Some(16), Some(37), None],
    );
    let without_input = [None, Some(64), Some(16), Some(37), None];
    assert_eq!(call("anthropic", None, early, "nodejs"), without_input);
    assert_eq!(call("anthropic", Some(versions), newest, "nodejs"), all);
    assert_eq!(call("anthropic", None, plain, "nodejs")[0], Some(211), "nothing was cached");
    assert_eq!(call("openai", None, newest, "nodejs"), all);
    assert_eq!(call("anthropic", None, newest, "python"), all);
}

/// `@arizeai/openinference-instrumentation-langchain` 4.1 with `ChatGoogleGenerativeAI`.
#[test]
fn a_model_that_langchain_alone_names_is_the_calls() {
    let metadata = ("metadata", Value::from(r#"{"ls_provider":"google_genai","ls_model_name":"gemini-2.5-flash"}"#));
    let of_kind = |kind: &str| {
        let list = [("openinference.span.kind", kind.into()), metadata.clone()];
        told("@arizeai/openinference-instrumentation-langchain", "ChatGoogleGenerativeAI", &list).request_model
    };
    assert_eq!(of_kind("LLM").as_deref(), Some("gemini-2.5-flash"));
    assert_eq!(of_kind("CHAIN"), None);
}
